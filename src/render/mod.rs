//! How answers look: tables for people, JSON for machines, bare lines for other tools.

mod columns;
mod json;
mod size;
mod stream;
mod table;
mod time;

use std::io::{self, Write};

use crate::bytes::{Bytes, escape};
use crate::command::{Report, Threads};
use crate::error::Error;
use stream::stream;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Table,
    Json,
    Jsonl,
    /// Only ids or paths, one a line.
    Quiet,
    /// Only ids or paths, each ended by a NUL byte.
    Null,
}

/// How to show a report.
#[derive(Debug, Clone, Copy)]
#[allow(clippy::struct_excessive_bools)] // each is an option of the command line
pub struct Look {
    pub format: Format,
    pub no_trunc: bool,
    pub exact_sizes: bool,
    pub verbose: bool,
    pub colors: bool,
    /// Whether a person's terminal reads the answer, which acts on control bytes.
    pub is_terminal: bool,
}

/// What was only found while the answer was shown.
#[derive(Debug, Default)]
pub struct Ended {
    /// What could not be read.
    pub problems: Vec<Error>,
    /// Something was asked for that is not there.
    pub is_no: bool,
}

/// Writes the whole answer. Where rows are found as they are shown, so many threads find them, and
/// `ended` is told of what else is found.
///
/// # Errors
/// The output cannot be written, a closed pipe among the reasons.
pub fn render(
    report: Report,
    look: Look,
    threads: Threads,
    out: &mut impl Write,
    ended: &mut Ended,
) -> io::Result<()> {
    match report {
        Report::Ls(rows) => return stream(rows, look, threads, out, ended),
        Report::Whiteouts(rows) => return stream(rows, look, threads, out, ended),
        Report::Changes(rows) => return stream(rows, look, threads, out, ended),
        _ => {}
    }
    match look.format {
        Format::Json => json::document(&report, out)?,
        Format::Jsonl => json::lines(&report, out)?,
        Format::Table => table::render(&report, look, out)?,
        Format::Quiet | Format::Null => {
            for word in words(&report) {
                write_word(&word, look, out)?;
            }
        }
    }
    Ok(())
}

/// A bare word: ended by a NUL byte, or on a line.
#[inline]
fn write_word(word: &Bytes, look: Look, out: &mut impl Write) -> io::Result<()> {
    match look.format {
        Format::Null => {
            out.write_all(word.as_bytes())?;
            out.write_all(b"\0")
        }
        _ => write_line(word, look, out),
    }
}

/// A bare line: escaped for a terminal, raw for everything else.
#[inline]
fn write_line(word: &Bytes, look: Look, out: &mut impl Write) -> io::Result<()> {
    if look.is_terminal {
        writeln!(out, "{}", escape(word.as_bytes()))
    } else {
        out.write_all(word.as_bytes())?;
        out.write_all(b"\n")
    }
}

/// What `--quiet` leaves of a report: ids or paths.
fn words(report: &Report) -> Vec<Bytes> {
    match report {
        Report::Ls(_) | Report::Whiteouts(_) | Report::Changes(_) => Vec::new(),
        Report::Branches(rows) => rows
            .iter()
            .flat_map(|row| row.branches.iter().map(|branch| branch.directory.clone()))
            .collect(),
        Report::Which(rows) => rows
            .iter()
            .filter_map(|row| {
                let directory = &row.branches.get(row.branch?)?.directory;
                Some(directory.join_path(&row.path))
            })
            .collect(),
        Report::Copyups(rows) => rows.iter().map(|row| row.path.clone()).collect(),
        Report::History(rows) => rows
            .iter()
            .filter_map(|row| row.image.clone().or_else(|| row.cache_id.clone()))
            .map(Bytes::from)
            .collect(),
        Report::Containers(rows) => rows.iter().map(|row| Bytes::from(row.id.clone())).collect(),
        Report::Images(rows) => rows.iter().map(|row| Bytes::from(row.id.clone())).collect(),
        Report::Check(found) => found.rows.iter().map(|row| row.path.clone()).collect(),
        Report::Info(row) => row
            .engines
            .iter()
            .map(|engine| engine.root_dir.clone())
            .collect(),
        Report::Restore(row) => vec![row.path.clone()],
        Report::Whois(rows) => rows.iter().map(|row| Bytes::from(row.owner())).collect(),
        Report::Orphans(rows) => rows.iter().map(|row| row.path.clone()).collect(),
        Report::Du(rows) => rows
            .iter()
            .filter_map(|row| row.id.clone().map(Bytes::from))
            .collect(),
    }
}
