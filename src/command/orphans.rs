//! `orphans`: what no metadata refers to, and metadata that refers to what is gone.

use std::io::{self, Write};
use std::time::Duration;

use serde::Serialize;

use crate::bytes::Bytes;
use crate::command::space::Walked;
use crate::command::{Context, Outcome, Verb};
use crate::engine::Engine;
use crate::engine::usage::{Leftover, LeftoverKind};
use crate::error::Result;
use crate::render::column::{Column, column};
use crate::render::{Look, table, time};

/// How long an engine that is at work is given to finish what it is making.
const SECOND_LOOK: Duration = Duration::from_millis(500);

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
}

impl Verb for Args {
    type Answer = Vec<Row>;

    fn run(self, context: &mut Context<'_>) -> Result<Outcome<Vec<Row>>> {
        context.survey.look_everywhere();
        let mut rows = Vec::new();
        let mut problems = Vec::new();
        for found in context.survey.found_here() {
            let engine = &*found.engine;
            // Records are read once: what could not be read until now counts, too.
            let look = || (engine.leftovers(), found.problems.take());
            let (found, unread) = look();
            let mut found = match found {
                // What could not be read may refer to anything: nobody is accused.
                Ok(_) if !unread.is_empty() => {
                    problems.extend(unread);
                    continue;
                }
                Ok(found) => found,
                Err(error) => {
                    problems.push(error);
                    continue;
                }
            };
            found.extend(stale_mounts(context, engine));
            if context.survey.host.is_live() && !found.is_empty() {
                // A layer is made before it is recorded: what is still there is left over.
                std::thread::sleep(SECOND_LOOK);
                let (again, _) = look();
                let again = again.unwrap_or_default();
                found.retain(|of| {
                    of.kind == LeftoverKind::Mount
                        || again.iter().any(|other| other.path == of.path)
                });
            }
            for of in found {
                let stat = context.survey.host.stat(&of.path).ok().flatten();
                let size = match of.kind {
                    LeftoverKind::Directory
                    | LeftoverKind::HalfRemoved
                    | LeftoverKind::Temporary => {
                        let walked = Walked::directory(&context.survey, &of.path);
                        walked.map(|walked| walked.total).ok()
                    }
                    LeftoverKind::Link | LeftoverKind::Metadata | LeftoverKind::Mount => None,
                };
                let modified = stat.and_then(|stat| {
                    jiff::Timestamp::new(stat.mtime.0, i32::try_from(stat.mtime.1).ok()?).ok()
                });
                rows.push(Row {
                    engine: engine.name(),
                    kind: of.kind,
                    path: of.path,
                    size,
                    modified: modified.map(|time| time.to_string()),
                    why: of.why,
                });
            }
        }
        rows.sort_by(|a, b| (a.engine, a.kind, &a.path).cmp(&(b.engine, b.kind, &b.path)));
        let is_yes = rows.is_empty();
        context.problems.extend(problems);
        Ok(Outcome {
            answer: rows,
            is_yes,
        })
    }
}

/// Unions that are mounted in an engine's directories, and whose container is not there.
fn stale_mounts(context: &Context<'_>, engine: &dyn Engine) -> Vec<Leftover> {
    let unions = context
        .survey
        .mounted
        .iter()
        .filter(|union| union.owner.is_none());
    let mounts = unions.flat_map(|union| &union.mounts);
    let own = mounts.filter(|mount| {
        let inside = mount.path.strip_prefix(engine.root());
        let is_in_store = inside.is_some_and(|inside| engine.is_merged(&inside));
        mount.process.is_none() && (is_in_store || engine.is_mount_point(&mount.path))
    });
    own.map(|mount| Leftover {
        kind: LeftoverKind::Mount,
        path: mount.path.clone(),
        why: "no container has the layer that is mounted here".to_owned(),
    })
    .collect()
}

impl crate::command::Row for Row {
    fn words(&self, give: &mut dyn FnMut(&[u8])) {
        give(self.path.as_bytes());
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
