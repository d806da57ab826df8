//! `copyups [TARGET[:PATH]...]`: every file copied up, what differs from the original, and what it costs.

use std::collections::HashSet;
use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;

use serde::Serialize;

use crate::bytes::Bytes;
use crate::command::{Context, Group, Help, Label, Outcome, Verb, Version, Which, union_column};
use crate::difference::{Change, Criterion, Difference, Differing, Differs, differences, differs};
use crate::dir::{Kind, Stat};
use crate::engine::Union;
use crate::error::Result;
use crate::render::Look;
use crate::render::column::{Column, column, giving};
use crate::target::Target;
use crate::union::Stack;

/// List files copied up, what differs, and what the copies cost
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A union, or a path of it below which is looked; without it every container of the host
    #[arg(value_name = "TARGET[:PATH]")]
    targets: Vec<OsString>,
    #[command(flatten)]
    which: Which,
}

/// One copied-up file.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct Row {
    /// The union, as a TARGET.
    pub target: Label,
    pub path: Bytes,
    #[serde(rename = "type")]
    pub kind: Kind,
    /// The version that was copied.
    pub from: Version,
    /// What differs now; empty if nothing does.
    pub differs: Vec<Differs>,
    /// The names of the extended attributes that differ.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attributes: Vec<Bytes>,
    /// Bytes that the copy takes on disk; none for a further name of a file already counted.
    pub disk: u64,
}

/// What differs, as a table has it; the names of attributes with `-v`.
pub fn differing_words(differs: &[Differs], attributes: &[Bytes], look: Look) -> String {
    let word = |what: &Differs| match what {
        Differs::Xattr if look.verbose => {
            let names: Vec<String> = attributes.iter().map(Bytes::to_string).collect();
            format!("xattr({})", names.join(" "))
        }
        what => what.word().to_owned(),
    };
    differs.iter().map(word).collect::<Vec<_>>().join(",")
}

impl Verb for Args {
    const HELP: Help = Help {
        group: Group::Look,
        examples: &[
            "layerctl copyups web",
            "layerctl copyups --running",
            "layerctl copyups web -v",
        ],
        exit: "0 listed, be there none; 2 something could not be read",
    };

    type Answer = Vec<Row>;

    fn run(self, context: &mut Context<'_>) -> Result<Outcome<Vec<Row>>> {
        let mut rows = Vec::new();
        let threads = context.threads.count();
        for (label, mut target, branch) in context.subjects(&self.targets, self.which)? {
            let stack = context.open_part(&mut target);
            let copies = (&stack, branch);
            in_union((&label, &target), copies, threads, |found| {
                match found {
                    Ok(row) if !target.has(&row.path) => {}
                    Ok(row) => rows.push(row),
                    Err(error) => context.problems.push(label.of(error)),
                }
                ControlFlow::Continue(())
            });
        }
        Outcome::yes(rows)
    }
}

/// The files that were copied up into one branch of a union, as far as is asked about.
pub(super) fn in_union(
    (label, target): (&Label, &Target),
    (stack, branch): (&Stack, usize),
    threads: NonZeroUsize,
    mut give: impl FnMut(Result<Row>) -> ControlFlow<()>,
) {
    let compared = (Criterion::of_union(stack), &target.inside);
    let row = |found: Result<Difference<'_, '_>>, rows: &mut Vec<Result<(Row, Stat)>>| {
        let copied = found.and_then(|found| copied(&target.union, &found));
        rows.extend(copied.transpose());
    };
    let mut counted = HashSet::new();
    let _ = differences(stack, branch, compared, threads, &row, |found| {
        found.into_iter().try_for_each(|found| {
            give(found.map(|(row, stat)| Row {
                target: label.clone(),
                // A further name of a file costs nothing.
                disk: if counted.insert(stat.identity()) {
                    row.disk
                } else {
                    0
                },
                ..row
            }))
        })
    });
}

/// What was copied up, if anything was: its row, and what `lstat` says of it.
fn copied(union: &Union, found: &Difference<'_, '_>) -> Result<Option<(Row, Stat)>> {
    let (Some(before), Some(after)) = (found.before, found.after) else {
        return Ok(None);
    };
    if found.change != Change::Changed || before.kind != after.kind {
        return Ok(None);
    }
    let (Some(old), Some(new)) = (found.stat_before()?, found.stat_after()?) else {
        return Ok(None);
    };
    let Differing {
        what: differs,
        attributes,
    } = differs(found)?;
    // Directories are copied up only to hold what is in them, unless they were changed.
    let is_mere_parent = !differs
        .iter()
        .any(|what| matches!(what, Differs::Mode | Differs::Owner | Differs::Xattr));
    if new.kind == Kind::Directory && is_mere_parent {
        return Ok(None);
    }
    let (branch, layer, directory) = union.compared_with(before.branch);
    let row = Row {
        target: Label::default(),
        path: found.path(),
        kind: new.kind,
        from: Version {
            branch,
            layer,
            directory,
            kind: old.kind,
            size: old.size,
        },
        differs,
        attributes,
        disk: match new.kind {
            Kind::File => new.size.min(new.disk()),
            _ => 0,
        },
    };
    Ok(Some((row, new)))
}

impl crate::command::Row for Row {
    fn words(&self, give: &mut dyn FnMut(&[u8])) {
        give(&self.target.word(&self.path));
    }

    fn label(&self) -> Option<&Label> {
        Some(&self.target)
    }

    fn columns(_look: Look) -> Vec<Column<Row>> {
        vec![
            union_column(),
            column("TYPE", |row: &Row, _, cell| cell.word(row.kind.word())),
            column("FROM", |row, look, cell| {
                cell.text(&row.from.layer_words(look))
            }),
            giving(1, "DIFFERS", |row, look, cell| {
                if row.differs.is_empty() {
                    cell.word("nothing");
                }
                cell.word(&differing_words(&row.differs, &row.attributes, look));
            }),
            column("COST", |row, look, cell| cell.word(&look.size(row.disk))),
            column("PATH", |row, _, cell| cell.show(&row.path)),
        ]
    }
}
