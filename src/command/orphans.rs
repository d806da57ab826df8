//! `orphans`: what no metadata refers to, and metadata that refers to what is gone.

use std::io::{self, Write};

use serde::Serialize;

use crate::bytes::Bytes;
use crate::command::space::Walked;
use crate::command::{Context, Outcome, Verb};
use crate::engine;
use crate::engine::usage::LeftoverKind;
use crate::error::Result;
use crate::render::column::{Column, column};
use crate::render::{Look, table, time};

/// List what no metadata refers to, and metadata that refers to what is gone
#[derive(Debug, clap::Args)]
pub struct Args {}

#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct Row {
    pub engine: &'static str,
    pub kind: LeftoverKind,
    pub path: Bytes,
    /// Bytes on disk; none for a record.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// When it was last changed: RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub modified: Option<String>,
    pub why: String,
    /// Nothing but this is lost where the path is removed: only such paths are printed by
    /// `--quiet` and `-0`.
    #[serde(skip)]
    pub is_removable: bool,
}

impl Verb for Args {
    type Answer = Vec<Row>;

    fn run(self, context: &mut Context<'_>) -> Result<Outcome<Vec<Row>>> {
        let first = engine::orphaned(&mut context.survey);
        let mut rows = Vec::new();
        for (engine, of) in first.found {
            let stat = context.survey.host.stat(&of.path).ok().flatten();
            let size = match of.kind {
                LeftoverKind::Link | LeftoverKind::Metadata | LeftoverKind::Mount => None,
                _ => {
                    let walked = Walked::directory(&context.survey, &of.path);
                    walked.map(|walked| walked.total).ok()
                }
            };
            let modified = stat.and_then(|stat| {
                jiff::Timestamp::new(stat.mtime.0, i32::try_from(stat.mtime.1).ok()?).ok()
            });
            rows.push(Row {
                engine,
                kind: of.kind,
                path: of.path,
                size,
                modified: modified.map(|time| time.to_string()),
                why: of.why,
                is_removable: of.is_removable,
            });
        }
        rows.sort_by(|a, b| (a.engine, a.kind, &a.path).cmp(&(b.engine, b.kind, &b.path)));
        let is_yes = rows.is_empty();
        context.problems.extend(first.problems);
        context.note_no_engine();
        Ok(Outcome {
            answer: rows,
            is_yes,
        })
    }
}

impl crate::command::Row for Row {
    fn words(&self, give: &mut dyn FnMut(&[u8])) {
        // This is what a person gives to `rm`: a list has others' records, too, and behind a mount
        // is a layer.
        if self.is_removable {
            give(self.path.as_bytes());
        }
    }

    fn columns(_look: Look) -> Vec<Column<Row>> {
        vec![
            column("ENGINE", |row: &Row, _, cell| cell.text(row.engine)),
            column("KIND", |row, _, cell| cell.word(row.kind.word())),
            column("SIZE", |row, look, cell| {
                cell.word(&row.size.map(|size| look.size(size)).unwrap_or_default());
            }),
            column("CHANGED", |row, _, cell| {
                cell.text(&row.modified.as_deref().map(time::ago).unwrap_or_default());
            }),
            column("WHY", |row, _, cell| cell.text(&row.why)),
            column("PATH", |row, _, cell| cell.show(&row.path)),
        ]
    }

    fn table(rows: &[Row], look: Look, out: &mut dyn Write) -> io::Result<()> {
        if rows.is_empty() {
            return writeln!(out, "nothing found");
        }
        table::write(&Row::columns(look), rows, look, out)
    }
}
