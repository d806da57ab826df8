//! Rows that are shown as they are found: there may be millions. Each is made text where it is
//! found, by whatever thread; in columns, too, though those are measured when all are there.

use std::io::{self, Write};
use std::ops::ControlFlow;

use owo_colors::OwoColorize;
use serde::Serialize;
use unicode_width::UnicodeWidthStr;

use super::table::{layer_words, sized};
use super::{Ended, Format, Look, json, write_line, write_word};
use crate::bytes::{Bytes, escape};
use crate::command::{Find, Keep, Shape, Stream, Threads, changes, ls, whiteouts};
use crate::difference::Change;

/// A row that is found while others are shown.
pub trait Streamed: Serialize + Send {
    /// The columns. The last one has paths.
    const COLUMNS: &'static [Column];
    /// Whether a table without a row is shown.
    const SHOWS_HEAD_ALONE: bool = true;

    /// What `--quiet` leaves of it.
    fn word(&self) -> Option<&Bytes>;

    /// A person's line, where there are no columns.
    fn line(&self, look: Look, out: &mut Vec<u8>) -> io::Result<()>;

    /// A cell for each column.
    fn cells(&self, look: Look, cells: &mut Cells<'_>) -> io::Result<()>;

    /// The union that it is of, where there are rows of several.
    fn union(&self) -> Option<&Bytes>;
}

/// A column of a table.
pub struct Column {
    head: &'static str,
    /// Left out where no row has anything in it.
    is_optional: bool,
}

const fn column(head: &'static str) -> Column {
    Column {
        head,
        is_optional: false,
    }
}

const fn optional(head: &'static str) -> Column {
    Column {
        head,
        is_optional: true,
    }
}

/// Shows the rows of a stream. What else was found is told however that ends.
///
/// # Errors
/// The output cannot be written, a closed pipe among the reasons.
pub fn stream<R: Streamed>(
    found: Stream<R>,
    look: Look,
    threads: Threads,
    out: &mut impl Write,
    ended: &mut Ended,
) -> io::Result<()> {
    let shape = found.shape;
    // Nothing fails that is written to memory.
    let word = |row: &R, text: &mut Vec<u8>| {
        let _ = row.word().map(|word| write_word(word, look, text));
    };
    let json = |row: &R, text: &mut Vec<u8>| {
        let _ = json::line(row, text);
    };
    let line = |row: &R, text: &mut Vec<u8>| {
        let _ = row.line(look, text);
    };
    let cells = |row: &R, text: &mut Vec<u8>| {
        let _ = row.cells(look, &mut Cells(text));
        Cells::end(text);
    };
    let keep = match (look.format, shape) {
        (Format::Quiet | Format::Null, _) => Keep::Text(&word),
        (Format::Jsonl, _) => Keep::Text(&json),
        (Format::Table, Shape::Lines) => Keep::Text(&line),
        (Format::Table, Shape::Columns) => Keep::Text(&cells),
        (Format::Json, _) | (Format::Table, Shape::Headed) => Keep::Rows,
    };
    let mut table =
        (look.format == Format::Table && shape == Shape::Columns).then(|| Grid::new(R::COLUMNS));
    let mut rows: Vec<R> = Vec::new();
    let mut written = Ok(());
    let how = Find {
        threads: threads.count(),
        keep,
    };
    found.find(&how, |mut batch| {
        rows.append(&mut batch.rows);
        ended.problems.append(&mut batch.problems);
        ended.is_no |= batch.is_no;
        match &mut table {
            Some(table) => table.add(std::mem::take(&mut batch.text)),
            None => written = out.write_all(&batch.text),
        }
        match written {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    });
    written?;
    match table {
        Some(table) if table.parts.is_empty() && !R::SHOWS_HEAD_ALONE => {}
        Some(table) => table.write(out)?,
        None => {}
    }
    match (look.format, shape) {
        (Format::Json, _) => json::pretty(&rows, out)?,
        (Format::Table, Shape::Headed) => headed(&rows, look, out)?,
        _ => {}
    }
    Ok(())
}

/// Lines under the names of their unions.
fn headed<R: Streamed>(rows: &[R], look: Look, out: &mut impl Write) -> io::Result<()> {
    let mut heading = None;
    let mut line = Vec::new();
    for row in rows {
        if let Some(union) = row.union()
            && heading != Some(union)
        {
            heading = Some(union);
            writeln!(out, "{}:", look.bold(&union.to_string()))?;
        }
        line.clear();
        row.line(look, &mut line)?;
        out.write_all(&line)?;
    }
    Ok(())
}

/// The cells of a row, each ended by a byte that is in no cell: all are escaped.
pub struct Cells<'t>(&'t mut Vec<u8>);

impl Cells<'_> {
    fn cell(&mut self, text: impl std::fmt::Display) -> io::Result<()> {
        write!(self.0, "{text}\0")
    }

    /// A word of ours.
    fn word(&mut self, word: &str) {
        self.0.extend_from_slice(word.as_bytes());
        self.0.push(0);
    }

    /// What somebody else has written.
    fn text(&mut self, text: &str) {
        self.word(&escape(text.as_bytes()));
    }

    fn end(text: &mut Vec<u8>) {
        text.pop();
        text.push(b'\n');
    }
}

/// A table that is measured while it grows. The library for tables takes a hundred times as long
/// for a row, which only a tree's number of rows makes matter.
struct Grid {
    columns: &'static [Column],
    /// Columns on a terminal.
    widths: Vec<usize>,
    parts: Vec<Vec<u8>>,
}

impl Grid {
    fn new(columns: &'static [Column]) -> Grid {
        Grid {
            columns,
            widths: vec![0; columns.len()],
            parts: Vec::new(),
        }
    }

    fn add(&mut self, text: Vec<u8>) {
        for row in text.split(|&byte| byte == b'\n') {
            for (width, cell) in self.widths.iter_mut().zip(cells(row)) {
                *width = (*width).max(columns_of(cell));
            }
        }
        if !text.is_empty() {
            self.parts.push(text);
        }
    }

    fn write(self, out: &mut impl Write) -> io::Result<()> {
        let widths = self.columns.iter().zip(&self.widths);
        // None where the column is left out.
        let widths: Vec<Option<usize>> = widths
            .map(|(column, width)| match (column.is_optional, width) {
                (true, 0) => None,
                _ => Some(*width.max(&column.head.len())),
            })
            .collect();
        let head: Vec<&str> = self.columns.iter().map(|column| column.head).collect();
        let head = head.join("\0").into_bytes();
        let mut line = Vec::new();
        let rows = self.parts.iter().flat_map(|part| {
            let rows = part.split(|&byte| byte == b'\n');
            rows.filter(|row| !row.is_empty())
        });
        for row in std::iter::once(&head[..]).chain(rows) {
            line.clear();
            let mut rest = row;
            for (cell, width) in cells(row).zip(&widths) {
                rest = &rest[cell.len() + 1..];
                let Some(width) = width else { continue };
                line.extend_from_slice(cell);
                let end = line.len() + width.saturating_sub(columns_of(cell)) + 2;
                line.resize(end, b' ');
            }
            line.extend_from_slice(rest);
            line.push(b'\n');
            out.write_all(&line)?;
        }
        Ok(())
    }
}

/// The cells of a row but the last.
fn cells(row: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = row;
    std::iter::from_fn(move || {
        let at = rest.iter().position(|&byte| byte == 0)?;
        let (cell, after) = rest.split_at(at);
        rest = &after[1..];
        Some(cell)
    })
}

/// How many columns a text takes on a terminal.
fn columns_of(cell: &[u8]) -> usize {
    if cell.is_ascii() {
        cell.len()
    } else {
        String::from_utf8_lossy(cell).width()
    }
}

impl Streamed for ls::Row {
    const COLUMNS: &'static [Column] = &[
        column("TYPE"),
        column("BRANCH"),
        optional("LAYER"),
        optional("MODE"),
        optional("OWNER"),
        optional("SIZE"),
        optional("MODIFIED"),
        column("PATH"),
    ];
    const SHOWS_HEAD_ALONE: bool = false;

    fn word(&self) -> Option<&Bytes> {
        match self {
            ls::Row::Shown(shown) => Some(&shown.path),
            ls::Row::Refused(_) => None,
        }
    }

    fn line(&self, look: Look, out: &mut Vec<u8>) -> io::Result<()> {
        let word = self.word();
        word.map_or(Ok(()), |path| write_line(path, look, out))
    }

    fn cells(&self, look: Look, cells: &mut Cells<'_>) -> io::Result<()> {
        let shown = match self {
            ls::Row::Shown(shown) => shown,
            ls::Row::Refused(refused) => {
                cells.word(if refused.is_ghost { "ghost" } else { "-" });
                cells.word("-");
                (0..5).for_each(|_| cells.word(""));
                return cells.cell(format_args!("{} ({})", refused.path, refused.error));
            }
        };
        cells.word(shown.kind.word());
        cells.cell(shown.branch)?;
        let layer = shown.layer.as_deref().map(|id| look.id(id));
        cells.text(&layer.unwrap_or_default());
        let Some(long) = &shown.long else {
            (0..4).for_each(|_| cells.word(""));
            return cells.cell(&shown.path);
        };
        cells.word(&long.mode);
        cells.cell(format_args!("{}:{}", long.uid, long.gid))?;
        cells.word(&look.size(long.size));
        cells.cell(jiff::Timestamp::from_second(long.mtime).unwrap_or_default())?;
        match &long.target {
            Some(target) => cells.cell(format_args!("{} -> {target}", shown.path)),
            None => cells.cell(&shown.path),
        }
    }

    fn union(&self) -> Option<&Bytes> {
        None
    }
}

impl Streamed for whiteouts::Row {
    const COLUMNS: &'static [Column] = &[
        optional("UNION"),
        column("BRANCH"),
        column("KIND"),
        column("HIDES"),
        column("SIZE"),
        column("FROM"),
        column("PATH"),
    ];

    fn word(&self) -> Option<&Bytes> {
        Some(&self.path)
    }

    fn line(&self, look: Look, out: &mut Vec<u8>) -> io::Result<()> {
        write_line(&self.path, look, out)
    }

    fn cells(&self, look: Look, cells: &mut Cells<'_>) -> io::Result<()> {
        cells.cell(self.union().unwrap_or(&Bytes::default()))?;
        cells.cell(self.branch)?;
        cells.word(self.kind.word());
        match &self.hides {
            Some(version) => {
                cells.word(version.kind.word());
                cells.word(&sized(version, look));
                cells.text(&layer_words(version, look));
            }
            None => {
                cells.word(if self.unknown {
                    "not known"
                } else {
                    "nothing (stale)"
                });
                cells.word("");
                cells.word("");
            }
        }
        cells.cell(&self.path)
    }

    fn union(&self) -> Option<&Bytes> {
        self.union.as_ref()
    }
}

impl Streamed for changes::Row {
    const COLUMNS: &'static [Column] = &[
        optional("UNION"),
        column("CHANGE"),
        column("ORIGIN"),
        column("WAS"),
        column("IS"),
        column("DIFFERS"),
        column("PATH"),
    ];
    const SHOWS_HEAD_ALONE: bool = false;

    fn word(&self) -> Option<&Bytes> {
        Some(&self.path)
    }

    /// Docker's line.
    fn line(&self, look: Look, out: &mut Vec<u8>) -> io::Result<()> {
        let letter = self.change.letter();
        if look.colors {
            let line = format!("{letter} {}", self.path);
            return match self.change {
                Change::Added => writeln!(out, "{}", line.green()),
                Change::Changed => writeln!(out, "{}", line.yellow()),
                Change::Deleted => writeln!(out, "{}", line.red()),
            };
        }
        out.extend([letter as u8, b' ']);
        write_line(&self.path, look, out)
    }

    fn cells(&self, look: Look, cells: &mut Cells<'_>) -> io::Result<()> {
        cells.cell(self.union().unwrap_or(&Bytes::default()))?;
        cells.cell(self.change.letter())?;
        match &self.origin {
            Some(origin) => match &origin.layer {
                Some(id) => cells.text(&look.id(id)),
                None => cells.cell(format_args!("branch {}", origin.branch))?,
            },
            None => cells.word(""),
        }
        let long = self.long.as_ref();
        let size = |size: Option<u64>| size.map(|size| look.size(size)).unwrap_or_default();
        cells.word(&size(long.and_then(|long| long.size_before)));
        cells.word(&size(long.and_then(|long| long.size)));
        let differs = long.and_then(|long| long.differs.as_ref());
        let differs: Vec<&str> = differs
            .into_iter()
            .flatten()
            .map(|what| what.word())
            .collect();
        cells.word(&differs.join(","));
        cells.cell(&self.path)
    }

    fn union(&self) -> Option<&Bytes> {
        self.union.as_ref()
    }
}
