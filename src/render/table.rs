//! Tables whose rows are all known: drawn by the library for tables.

use std::io::{self, Write};

use comfy_table::{Cell as TableCell, Color, ContentArrangement, Table, presets};
use unicode_width::UnicodeWidthStr;

use super::Look;
use super::column::{Accent, Cell, Column};
use super::fit::{BETWEEN, Width, cut, fit};

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
    let whole = widths(columns, &rows);
    if let Some(screen) = look.screen
        && columns.iter().any(|column| column.is_below)
        && total(&whole) > screen
    {
        return write_stacked(columns, &rows, (&whole, screen), out);
    }
    let mut widths = whole;
    if let Some(screen) = look.screen {
        fit(&mut widths, screen);
    }
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

/// How wide each column is, if nothing is cut; none where no row has anything in it.
fn widths<T>(columns: &[Column<T>], rows: &[Vec<Made>]) -> Vec<Width> {
    let width = |(at, column): (usize, &Column<T>)| {
        let cells = rows.iter().map(|row| row[at].text.width());
        let widest = cells.max().unwrap_or(0);
        let is_shown = !column.is_optional || widest > 0;
        Width {
            columns: is_shown.then(|| widest.max(column.heading.len())),
            gives: column.gives,
        }
    };
    columns.iter().enumerate().map(width).collect()
}

/// How wide the table is.
fn total(widths: &[Width]) -> usize {
    let shown = widths.iter().filter_map(|width| width.columns);
    let total: usize = shown.map(|columns| columns + BETWEEN).sum();
    total.saturating_sub(BETWEEN)
}

/// Draws a table that the screen is too narrow for: under each row, indented, what is `below` it, whole.
fn write_stacked<T>(
    columns: &[Column<T>],
    rows: &[Vec<Made>],
    (whole, screen): (&[Width], usize),
    out: &mut (impl Write + ?Sized),
) -> io::Result<()> {
    let beside: Vec<usize> = (0..columns.len())
        .filter(|&at| !columns[at].is_below && whole[at].columns.is_some())
        .collect();
    let mut widths: Vec<Width> = beside.iter().map(|&at| whole[at].clone()).collect();
    fit(&mut widths, screen);
    let write = |cells: &mut dyn Iterator<Item = &str>, out: &mut dyn Write| {
        let mut line = String::new();
        for (cell, width) in cells.zip(&widths) {
            let Some(width) = width.columns else { continue };
            let cell = cut(cell, width);
            line.push_str(&cell);
            let rest = width.saturating_sub(cell.width()) + BETWEEN;
            line.extend(std::iter::repeat_n(' ', rest));
        }
        writeln!(out, "{}", line.trim_end_matches(' '))
    };
    let mut headings = beside.iter().map(|&at| columns[at].heading);
    let mut out = out;
    write(&mut headings, &mut out)?;
    for row in rows {
        let mut cells = beside.iter().map(|&at| &*row[at].text);
        write(&mut cells, &mut out)?;
        for (column, cell) in columns.iter().zip(row) {
            if !column.is_below || cell.text.is_empty() {
                continue;
            }
            // What is there only sometimes is not known by its place.
            let heading = if column.is_optional {
                format!("{}: ", column.heading.to_lowercase())
            } else {
                String::new()
            };
            writeln!(out, "  {heading}{}", cell.text)?;
        }
    }
    Ok(())
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
