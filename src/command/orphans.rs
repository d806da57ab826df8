//! `orphans`: what no metadata refers to, and metadata that refers to what is gone.

use std::num::NonZeroUsize;

use serde::Serialize;

use crate::bytes::Bytes;
use crate::command::space::Walked;
use crate::command::{Context, Findings, Group, Help, Outcome, Verb};
use crate::dir::Kind;
use crate::engine::usage::{Leftover, LeftoverKind};
use crate::engine::{self, Orphaned, Survey};
use crate::error::{Error, Result};
use crate::render::column::{Column, column, giving, optional};
use crate::render::{Look, time};

/// List what no metadata refers to, and metadata that refers to what is gone
#[derive(Debug, clap::Args)]
pub struct Args {
    /// List what the engines know and nothing uses, and how to free it
    #[arg(long)]
    unused: bool,
}

#[derive(Debug, Serialize, schemars::JsonSchema)]
#[schemars(rename = "LeftoverRow")]
pub struct Row {
    pub engine: &'static str,
    pub kind: LeftoverKind,
    pub path: Bytes,
    /// Bytes on disk; none for a record, and where not all of it could be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk: Option<u64>,
    /// When it was last changed: RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtime: Option<String>,
    pub why: String,
    /// Of `--unused`: what its engine calls it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Of `--unused`: the engine's own command to free it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// Nothing but this is lost where the path is removed: only such paths are printed by
    /// `--quiet` and `-0`.
    #[serde(skip)]
    pub is_removable: bool,
}

impl Verb for Args {
    const HELP: Help = Help {
        group: Group::Disk,
        examples: &[
            "layerctl orphans",
            "layerctl orphans --unused",
            "layerctl orphans -0 -q | xargs -0 -p rm -rf --",
        ],
        exit: "0 nothing found, or only what engines collect themselves; 1 something found; 2 could not tell",
    };

    type Answer = Findings<Row>;

    fn run(self, context: &mut Context<'_>) -> Result<Outcome<Findings<Row>>> {
        let first = if self.unused {
            engine::unused(&mut context.survey)
        } else {
            left_over(context)
        };
        // What could not be read may be somebody's: nobody is accused.
        let is_whole = first.problems.is_empty() && context.survey.closed().is_none();
        let rows = rows(context, first.found);
        // What the engine itself takes away is listed, and is no fault.
        let is_yes = rows.iter().all(|row| row.kind == LeftoverKind::Collected);
        context.problems.extend(first.problems);
        context.note_no_engine();
        Ok(Outcome {
            answer: Findings { rows, is_whole },
            is_yes,
        })
    }
}

/// What is nobody's in the stores of the host.
pub(super) fn left_over(context: &mut Context<'_>) -> Orphaned {
    let threads = context.threads.count();
    // What comes and goes while they look is no problem yet.
    let size = |survey: &Survey<'_>, of: &Leftover| size_of(survey, of, threads).ok().flatten();
    engine::orphaned(&mut context.survey, &size)
}

/// What was found to be left over or unused, each with the engine whose it is, and how large it is.
pub(super) fn rows(context: &mut Context<'_>, found: Vec<(&'static str, Leftover)>) -> Vec<Row> {
    let threads = context.threads.count();
    let mut rows = Vec::new();
    for (engine, of) in found {
        let stat = context.survey.host.stat(&of.path).ok().flatten();
        let size = size_of(&context.survey, &of, threads);
        let size = size.unwrap_or_else(|problems| {
            context.problems.extend(problems);
            None
        });
        let modified = stat.and_then(|stat| {
            jiff::Timestamp::new(stat.mtime.0, i32::try_from(stat.mtime.1).ok()?).ok()
        });
        rows.push(Row {
            engine,
            kind: of.kind,
            path: of.path,
            disk: size,
            mtime: modified.map(|time| time.to_string()),
            why: of.why,
            name: of.name,
            command: of.command,
            is_removable: of.is_removable,
        });
    }
    rows.sort_by(|a, b| (a.engine, a.kind, &a.path).cmp(&(b.engine, b.kind, &b.path)));
    rows
}

/// What a leftover takes on disk, in bytes; none for a record.
///
/// # Errors
/// What of it could not be read: its size is not known.
fn size_of(
    survey: &Survey<'_>,
    of: &Leftover,
    threads: NonZeroUsize,
) -> std::result::Result<Option<u64>, Vec<Error>> {
    if of.size.is_some() || of.kind.is_record() {
        return Ok(of.size);
    }
    // A file has no more than its own.
    let Some(stat) = survey.host.stat(&of.path).map_err(|error| vec![error])? else {
        return Ok(None);
    };
    if stat.kind != Kind::Directory {
        return Ok(Some(stat.disk()));
    }
    let walked = Walked::directory(survey, &of.path, threads).map_err(|error| vec![error])?;
    if walked.problems.is_empty() {
        Ok(Some(walked.total))
    } else {
        Err(walked.problems)
    }
}

impl crate::command::Row for Row {
    fn words(&self, give: &mut dyn FnMut(&[u8])) {
        // This is what a person gives to `rm`: a list has others' records, too, and behind a mount
        // is a layer. What an engine knows is for the engine to remove, by its name.
        match &self.name {
            Some(name) => give(name.as_bytes()),
            None if self.is_removable => give(self.path.as_bytes()),
            None => {}
        }
    }

    fn columns(_look: Look) -> Vec<Column<Row>> {
        vec![
            column("ENGINE", |row: &Row, _, cell| cell.text(row.engine)),
            column("KIND", |row, _, cell| cell.word(row.kind.word())),
            column("SIZE", |row, look, cell| match row.disk {
                Some(size) => cell.word(&look.size(size)),
                None if row.kind.is_record() => {}
                None => cell.word("unknown"),
            }),
            giving(2, "CHANGED", |row, _, cell| {
                cell.text(&row.mtime.as_deref().map(time::ago).unwrap_or_default());
            }),
            optional("NAME", |row, _, cell| {
                cell.text(row.name.as_deref().unwrap_or_default());
            }),
            column("WHY", |row: &Row, _, cell| cell.text(&row.why)).below(),
            optional("FREED BY", |row: &Row, _, cell| {
                cell.text(row.command.as_deref().unwrap_or_default());
            })
            .below(),
            column("PATH", |row: &Row, _, cell| cell.show(&row.path)).below(),
        ]
    }
}
