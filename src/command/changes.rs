//! `changes [TARGET[:PATH]...]`: what a container made of its image, in `docker diff`'s lines.

use std::ffi::OsString;
use std::io::Write;
use std::ops::ControlFlow;

use owo_colors::OwoColorize;
use serde::Serialize;

use crate::bytes::Bytes;
use crate::command::copyups::differing_words;
use crate::command::{
    Batch, Context, Find, Group, Help, Label, Outcome, Shape, Stream, Verb, Which, union_column,
};
use crate::difference::{
    Change, Compared, Criterion, Difference, Differing, Differs, Measure, Provided, differences,
    differs,
};
use crate::dir::Kind;
use crate::engine;
use crate::error::Result;
use crate::render::Look;
use crate::render::column::{Column, column, giving};
use crate::target::Target;
use crate::union::Stack;

/// List what was added, changed and deleted, in `docker diff`'s lines
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A union, or a path of it below which is looked; without it every container of the host
    #[arg(value_name = "TARGET[:PATH]")]
    pub(super) targets: Vec<OsString>,
    #[command(flatten)]
    pub(super) which: Which,
    /// Add origin, sizes and what differs
    #[arg(short, long)]
    pub(super) long: bool,
    /// Read files whose size and time are as before
    #[arg(long)]
    pub(super) content: bool,
}

/// One change.
#[derive(Debug, Serialize, schemars::JsonSchema)]
#[schemars(rename = "ChangeRow")]
pub struct Row {
    /// The union, as a TARGET.
    pub target: Label,
    pub path: Bytes,
    pub change: Change,
    /// What it is in the view that has it last: with the branch, or without it where it is deleted.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<Kind>,
    /// The version that was changed or deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    #[serde(flatten)]
    pub long: Option<Box<Long>>,
}

#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct Origin {
    /// Index of the branch, 0 is topmost; past the last one for what a copy was made from.
    pub branch: usize,
    #[serde(rename = "type")]
    pub kind: Kind,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layer: Option<String>,
    /// The branch's directory.
    pub directory: Bytes,
}

/// What `--long` adds. Sizes are in bytes.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct Long {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_before: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub differs: Option<Vec<Differs>>,
    /// The names of the extended attributes that differ.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attributes: Vec<Bytes>,
}

impl Verb for Args {
    const HELP: Help = Help {
        group: Group::Look,
        examples: &[
            "layerctl changes web",
            "layerctl changes --long web:/etc db",
            "layerctl changes nginx:latest    what its top layer changed",
        ],
        exit: "0 listed, be there none; 2 something could not be read",
    };

    type Answer = Stream<Row>;

    fn run(self, context: &mut Context<'_>) -> Result<Outcome<Stream<Row>>> {
        let is_long = self.long;
        let content = self.content;
        let shape = match (self.long, self.targets.len()) {
            (true, _) => Shape::Columns,
            (false, 1) => Shape::Lines,
            (false, _) => Shape::Headed,
        };
        let subjects: Vec<Subject> = context
            .subjects(&self.targets, self.which)?
            .into_iter()
            .map(|(label, mut target, branch)| Subject {
                stack: context.open_part(&mut target),
                label,
                target,
                branch,
            })
            .collect();
        Outcome::yes(Stream::new(shape, move |how, give| {
            let _ = subjects
                .iter()
                .try_for_each(|subject| subject.walk(is_long, content, how, &mut *give));
        }))
    }
}

/// A union, and the branch whose changes are asked for.
pub(super) struct Subject {
    pub(super) label: Label,
    pub(super) target: Target,
    pub(super) stack: Stack,
    pub(super) branch: usize,
}

impl Subject {
    /// Finds its changes.
    pub(super) fn walk(
        &self,
        is_long: bool,
        content: bool,
        how: &Find<'_, Row>,
        give: impl FnMut(Batch<Row>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let changed = self.criterion(is_long, content);
        let row = |found: Result<Difference<'_, '_>>, batch: &mut Batch<Row>| {
            let kept = found.and_then(|found| self.row(&found, is_long, how, batch));
            let error = kept.err();
            batch
                .problems
                .extend(error.map(|error| self.label.of(error)));
        };
        let compared = (changed, &self.target.inside);
        differences(&self.stack, self.branch, compared, how.threads, &row, give)
    }

    /// What counts as changed: as for the engine's own `diff`, and in the long form whatever
    /// differs.
    fn criterion(&self, is_long: bool, content: bool) -> Criterion {
        let owner = self.target.union.owner.as_ref();
        let engine = owner.and_then(|owner| engine::called(owner.engine));
        let attributes = if is_long {
            Compared::All
        } else if engine.is_some_and(|engine| engine.diff_has_attributes) {
            Compared::Users
        } else {
            Compared::Capabilities
        };
        let measure = Measure {
            attributes,
            content,
        };
        Criterion::of_engine(&self.stack, measure)
    }

    fn row(
        &self,
        found: &Difference<'_, '_>,
        is_long: bool,
        how: &Find<'_, Row>,
        batch: &mut Batch<Row>,
    ) -> Result<()> {
        let path = found.path();
        // What is gone with a directory is no row of its own.
        let is_gone_with = || {
            let is_directory = |of: Provided| of.kind == Kind::Directory;
            !found.after.is_some_and(is_directory) && self.target.is_below(&path)
        };
        if !self.target.has(&path) && !is_gone_with() {
            found.give_back(path);
            return Ok(());
        }
        let mut made = self.target.union.engine_made.iter();
        if made.any(|made| made.as_bytes() == path.as_bytes()) {
            batch.has_hidden = true;
            return Ok(());
        }
        let long = if is_long {
            let differing = match found.change {
                Change::Changed => Some(differs(found)?),
                Change::Added | Change::Deleted => None,
            };
            let (differs, attributes) = match differing {
                Some(Differing { what, attributes }) => (Some(what), attributes),
                None => (None, Vec::new()),
            };
            Some(Box::new(Long {
                size: found.stat_after()?.map(|stat| stat.size),
                size_before: found.stat_before()?.map(|stat| stat.size),
                differs,
                attributes,
            }))
        } else {
            None
        };
        let row = Row {
            target: self.label.clone(),
            path,
            change: found.change,
            kind: found.after.or(found.before).map(|of| of.kind),
            origin: found.before.map(|before| {
                let (branch, layer, directory) = self.target.union.compared_with(before.branch);
                Origin {
                    branch,
                    kind: before.kind,
                    layer,
                    directory,
                }
            }),
            long,
        };
        if let Some(row) = batch.keep(how.keep, row) {
            found.give_back(row.path);
        }
        Ok(())
    }
}

/// Docker's line of a change.
pub(super) fn write_line(change: Change, path: &Bytes, look: Look, out: &mut Vec<u8>) {
    let letter = change.letter();
    // Memory takes whatever is written to it.
    let _ = if look.colors {
        let line = format!("{letter} {path}");
        match change {
            Change::Added => writeln!(out, "{}", line.green()),
            Change::Changed => writeln!(out, "{}", line.magenta()),
            Change::Deleted => writeln!(out, "{}", line.red()),
        }
    } else {
        out.extend([letter as u8, b' ']);
        look.write_line(path.as_bytes(), out)
    };
}

impl crate::command::Row for Row {
    const HEADS_NOTHING: bool = false;

    fn words(&self, give: &mut dyn FnMut(&[u8])) {
        give(&self.target.word(&self.path));
    }

    fn label(&self) -> Option<&Label> {
        Some(&self.target)
    }

    /// Docker's line.
    fn line(&self, look: Look, out: &mut Vec<u8>) {
        write_line(self.change, &self.path, look, out);
    }

    fn columns(_look: Look) -> Vec<Column<Row>> {
        vec![
            union_column(),
            column("CHANGE", |row: &Row, _, cell| {
                cell.show(row.change.letter())
            }),
            column("ORIGIN", |row, look, cell| match &row.origin {
                Some(Origin {
                    layer: Some(id), ..
                }) => cell.text(&look.id(id)),
                Some(origin) => cell.show(format_args!("branch {}", origin.branch)),
                None => {}
            }),
            column("WAS", |row, look, cell| {
                let size = row.long.as_ref().and_then(|long| long.size_before);
                cell.word(&size.map(|size| look.size(size)).unwrap_or_default());
            }),
            column("IS", |row, look, cell| {
                let size = row.long.as_ref().and_then(|long| long.size);
                cell.word(&size.map(|size| look.size(size)).unwrap_or_default());
            }),
            giving(1, "DIFFERS", |row, look, cell| {
                if let Some(long) = &row.long {
                    let differs = long.differs.as_deref().unwrap_or_default();
                    cell.word(&differing_words(differs, &long.attributes, look));
                }
            }),
            column("PATH", |row, _, cell| cell.show(&row.path)),
        ]
    }
}
