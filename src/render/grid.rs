//! Tables that grow: rows are made text where they are found, by whatever thread, and the columns
//! are measured when all are there.
//!
//! The library for tables takes a hundred times as long for a row, which only a tree's number of
//! rows makes matter.

use std::io::{self, Write};

use unicode_width::UnicodeWidthStr;

use super::Look;
use super::column::{Cell, Column};
use super::fit::{BETWEEN, Width, cut, fit};

/// What ends a cell but the last of a row: a byte that is in no cell, since all are escaped.
const CELL_END: u8 = 0;

/// Makes a row of a grid at the end of a text.
#[inline]
pub fn write_row<T>(columns: &[Column<T>], row: &T, look: Look, text: &mut Vec<u8>) {
    for column in columns {
        (column.cell)(row, look, &mut Cell::at_end(text));
        text.push(CELL_END);
    }
    text.pop();
    text.push(b'\n');
}

/// A table that is measured while it grows.
pub struct Grid {
    headings: Vec<&'static str>,
    is_optional: Vec<bool>,
    gives: Vec<Option<u8>>,
    /// Columns on a terminal.
    widths: Vec<usize>,
    parts: Vec<Vec<u8>>,
}

impl Grid {
    pub fn new<T>(columns: &[Column<T>]) -> Grid {
        Grid {
            headings: columns.iter().map(|column| column.heading).collect(),
            is_optional: columns.iter().map(|column| column.is_optional).collect(),
            gives: columns.iter().map(|column| column.gives).collect(),
            widths: vec![0; columns.len()],
            parts: Vec::new(),
        }
    }

    /// Adds rows that [`write_row`] made.
    pub fn add(&mut self, text: Vec<u8>) {
        for row in text.split(|&byte| byte == b'\n') {
            for (width, cell) in self.widths.iter_mut().zip(cells(row)) {
                *width = (*width).max(width_of(cell));
            }
        }
        if !text.is_empty() {
            self.parts.push(text);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Draws the whole table.
    ///
    /// # Errors
    /// The output cannot be written.
    pub fn write(self, screen: Option<usize>, out: &mut (impl Write + ?Sized)) -> io::Result<()> {
        let measured = self.widths.iter().zip(&self.headings);
        let width = |((width, heading), is_optional): ((&usize, &&str), &bool)| {
            (*width > 0 || !is_optional).then(|| *width.max(&heading.len()))
        };
        let columns = measured.zip(&self.is_optional).map(width).zip(&self.gives);
        let mut widths: Vec<Width> = columns
            .map(|(columns, &gives)| Width { columns, gives })
            .collect();
        if let Some(screen) = screen {
            // Its cells are not measured, for it is never cut.
            widths.pop();
            widths.push(Width {
                columns: Some(screen / 2),
                gives: None,
            });
            fit(&mut widths, screen);
        }
        let heading = self.headings.join("\0").into_bytes();
        let mut line = Vec::new();
        let rows = self.parts.iter().flat_map(|part| {
            let rows = part.split(|&byte| byte == b'\n');
            rows.filter(|row| !row.is_empty())
        });
        for row in std::iter::once(&heading[..]).chain(rows) {
            line.clear();
            let mut rest = row;
            for (cell, width) in cells(row).zip(&widths) {
                rest = &rest[cell.len() + 1..];
                let Some(width) = width.columns else {
                    continue;
                };
                let mut used = width_of(cell);
                if used > width {
                    line.extend_from_slice(cut(&String::from_utf8_lossy(cell), width).as_bytes());
                    used = width;
                } else {
                    line.extend_from_slice(cell);
                }
                let end = line.len() + width.saturating_sub(used) + BETWEEN;
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
        let at = rest.iter().position(|&byte| byte == CELL_END)?;
        let (cell, after) = rest.split_at(at);
        rest = &after[1..];
        Some(cell)
    })
}

/// How many columns a text takes on a terminal.
fn width_of(cell: &[u8]) -> usize {
    if cell.is_ascii() {
        cell.len()
    } else {
        String::from_utf8_lossy(cell).width()
    }
}
