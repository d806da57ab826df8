//! Tables whose rows are all known: drawn by the library for tables.

use std::io::{self, Write};

use comfy_table::{Cell as TableCell, Color, ContentArrangement, Table, presets};

use super::Look;
use super::column::{Accent, Cell, Column};

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
    let is_shown =
        |&at: &usize| !columns[at].is_optional || rows.iter().any(|row| !row[at].text.is_empty());
    let shown: Vec<usize> = (0..columns.len()).filter(is_shown).collect();
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(shown.iter().map(|&at| TableCell::new(columns[at].heading)));
    if look.colors {
        table.enforce_styling();
    } else {
        table.force_no_tty();
    }
    for row in &rows {
        table.add_row(shown.iter().map(|&at| row[at].cell()));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    writeln!(out, "{}", table.trim_fmt())
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

    fn cell(&self) -> TableCell {
        let cell = TableCell::new(&self.text);
        match self.accent {
            Some(Accent::Good) => cell.fg(Color::Green),
            Some(Accent::Bad) => cell.fg(Color::Red),
            None => cell,
        }
    }
}
