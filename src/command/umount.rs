//! `umount DIR...`: takes our mounts away.

use std::io::{self, Write};
use std::path::PathBuf;

use serde::Serialize;

use crate::bytes::Bytes;
use crate::command::{Context, Group, Help, Label, Outcome, Verb};
use crate::error::{Error, Result};
use crate::mount::attach::{When, detach};
use crate::mount::listed;
use crate::render::column::{Column, column};
use crate::render::{Look, table};

/// Take away what `layerctl mount` has mounted
///
/// Also a mount whose process was killed. What anybody else has mounted is left alone.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Also where it is in use: it ends when that does
    #[arg(short = 'z', long)]
    lazy: bool,
    /// The directories that they are on
    #[arg(required = true, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    directories: Vec<PathBuf>,
}

/// A mount that was taken away.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct Row {
    /// What was mounted, as a TARGET.
    pub target: Label,
    /// Where it was mounted.
    pub path: Bytes,
}

impl Verb for Args {
    const HELP: Help = Help {
        group: Group::Look,
        examples: &[
            "layerctl umount /mnt/web",
            "layerctl umount --lazy /mnt/web    though it is in use",
            "layerctl umount /mnt/web /mnt/db",
        ],
        exit: "0 taken away; 1 nothing is mounted there; 2 could not be taken away",
    };

    type Answer = Vec<Row>;

    fn run(self, context: &mut Context<'_>) -> Result<Outcome<Vec<Row>>> {
        let when = if self.lazy { When::Unused } else { When::Now };
        let mut rows = Vec::new();
        let mut is_yes = true;
        for typed in &self.directories {
            let path = listed::real_path_of_mount(typed)?;
            match listed::at(&path)? {
                Some(Ok(ours)) => match detach(&path, ours.number, when) {
                    Ok(()) => rows.push(Row {
                        target: Label::found(ours.target),
                        path,
                    }),
                    Err(error) => context.problems.push(error),
                },
                Some(Err(fs_type)) => context.problems.push(Error::Refused {
                    what: format!(
                        "{path} is a mount of {}, and not of layerctl",
                        String::from_utf8_lossy(&fs_type)
                    ),
                    hint: String::new(),
                }),
                None => {
                    is_yes = false;
                    let what = format!("{path}: nothing is mounted there");
                    context.notes.push(Error::Usage(what));
                }
            }
        }
        Ok(Outcome {
            answer: rows,
            is_yes,
        })
    }
}

impl crate::command::Row for Row {
    const HEADS_NOTHING: bool = false;

    fn table(rows: &[Row], look: Look, out: &mut dyn Write) -> io::Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        table::write(&Row::columns(look), rows, look, out)
    }

    fn words(&self, give: &mut dyn FnMut(&[u8])) {
        give(self.path.as_bytes());
    }

    fn label(&self) -> Option<&Label> {
        Some(&self.target)
    }

    fn columns(_look: Look) -> Vec<Column<Row>> {
        vec![
            column("TARGET", |row: &Row, _, cell| {
                cell.show(row.target.target())
            }),
            column("PATH", |row, _, cell| cell.show(&row.path)),
        ]
    }
}
