//! Columns, ids, sizes and names as every table shows them.

use std::io::{self, Write};

use comfy_table::{Cell, ContentArrangement, Table, presets};
use owo_colors::OwoColorize;

use super::{Look, size};
use crate::bytes::{Bytes, escape, escape_text};
use crate::engine::inventory::short;

/// A table without lines, two blanks between columns, as wide as it needs to be.
pub struct Columns {
    table: Table,
}

impl Columns {
    pub fn new(head: &[&str], look: Look) -> Columns {
        let mut table = Table::new();
        table
            .load_style(presets::NOTHING)
            .set_content_arrangement(ContentArrangement::Disabled)
            .set_header(head.iter().map(|text| Cell::new(*text)));
        if look.colors {
            table.enforce_styling();
        } else {
            table.force_no_tty();
        }
        Columns { table }
    }

    pub fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.table.add_row(cells);
    }

    pub fn write(mut self, out: &mut impl Write) -> io::Result<()> {
        for column in self.table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        writeln!(out, "{}", self.table.trim_fmt())
    }
}

pub fn text(text: impl AsRef<str>) -> Cell {
    Cell::new(escape(text.as_ref().as_bytes()))
}

pub fn path(path: &Bytes) -> Cell {
    Cell::new(path.to_string())
}

impl Look {
    pub fn size(self, bytes: u64) -> String {
        if self.exact_sizes {
            bytes.to_string()
        } else {
            size::human(bytes)
        }
    }

    pub fn id(self, id: &str) -> String {
        if self.no_trunc {
            id.to_owned()
        } else {
            short(id).to_owned()
        }
    }

    /// Docker's ellipsis: so many characters, the last one a `…`.
    pub fn clip(self, text: &str, max: usize) -> String {
        let text = escape_text(text);
        if self.no_trunc || text.chars().count() <= max {
            return text.into_owned();
        }
        text.chars().take(max - 1).chain(['…']).collect()
    }

    /// A directory, its long hexadecimal names cut to docker's twelve digits.
    pub fn directory(self, directory: &Bytes) -> String {
        let shown = directory.to_string();
        if self.no_trunc {
            return shown;
        }
        let parts: Vec<String> = shown
            .split('/')
            .map(|part| {
                let hex = part.bytes().take_while(u8::is_ascii_hexdigit).count();
                match part.get(64..) {
                    Some(rest) if hex == 64 => format!("{}…{rest}", &part[..12]),
                    _ => part.to_owned(),
                }
            })
            .collect();
        parts.join("/")
    }

    pub fn bold(self, text: &str) -> String {
        if self.colors {
            text.bold().to_string()
        } else {
            text.to_owned()
        }
    }
}
