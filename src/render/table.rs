//! Tables whose rows are all known: drawn by the library for tables.

use std::io::{self, Write};

use comfy_table::{Cell as TableCell, Color, ContentArrangement, Table, presets};
use unicode_width::UnicodeWidthStr;

use super::Look;
use super::column::{Accent, Cell, Column};
use super::fit::{Width, cut, fit};

/// Draws a table without lines, two blanks between columns, as wide as it needs to be.
///
/// # Errors
/// The output cannot be written.
pub fn write<'r, T: 'r>(
    columns: &[Column<T>],
    rows: impl IntoIterator<Item = &'r T>,
    look: Look,
    out: &mut (impl Write + ?Sized),
) -> io::Result<()> {
    let rows: Vec<Vec<Made>> = rows
        .into_iter()
        .map(|row| {
            columns
                .iter()
                .map(|column| Made::of(column, row, look))
                .collect()
        })
        .collect();
    let widths = widths(columns, &rows, look.screen);
    let shown: Vec<(usize, usize)> = widths
        .iter()
        .enumerate()
        .filter_map(|(at, width)| Some((at, width.columns?)))
        .collect();
    let last = shown.last().map(|(at, _)| *at);
    // The last column is never cut.
    let cut_to = |&(at, width): &(usize, usize), text: &str| {
        if last == Some(at) {
            text.to_owned()
        } else {
            cut(text, width).into_owned()
        }
    };
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(
            shown
                .iter()
                .map(|of| TableCell::new(cut_to(of, columns[of.0].heading))),
        );
    if look.colors {
        table.enforce_styling();
    } else {
        table.force_no_tty();
    }
    for row in &rows {
        table.add_row(
            shown
                .iter()
                .map(|of| row[of.0].cell(&cut_to(of, &row[of.0].text))),
        );
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    writeln!(out, "{}", table.trim_fmt())
}

/// How wide each column is; none where no row has anything in it, or the screen has no room.
fn widths<T>(columns: &[Column<T>], rows: &[Vec<Made>], screen: Option<usize>) -> Vec<Width> {
    let width = |(at, column): (usize, &Column<T>)| {
        let cells = rows.iter().map(|row| row[at].text.width());
        let widest = cells.max().unwrap_or(0);
        let is_shown = !column.is_optional || widest > 0;
        Width {
            columns: is_shown.then(|| widest.max(column.heading.len())),
            gives: column.gives,
        }
    };
    let mut widths: Vec<Width> = columns.iter().enumerate().map(width).collect();
    if let Some(screen) = screen {
        fit(&mut widths, screen);
    }
    widths
}

/// A cell that is written.
struct Made {
    text: String,
    accent: Option<Accent>,
}

impl Made {
    fn of<T>(column: &Column<T>, row: &T, look: Look) -> Made {
        let mut text = Vec::new();
        let mut cell = Cell::at_end(&mut text);
        (column.cell)(row, look, &mut cell);
        let accent = cell.accented();
        Made {
            text: String::from_utf8_lossy(&text).into_owned(),
            accent,
        }
    }

    fn cell(&self, text: &str) -> TableCell {
        let cell = TableCell::new(text);
        match self.accent {
            Some(Accent::Good) => cell.fg(Color::Green),
            Some(Accent::Bad) => cell.fg(Color::Red),
            None => cell,
        }
    }
}
