//! How the rows look.

use std::io::{self, Write};

use super::wasted::WastedFile;
use super::{Kind, Large, Row};
use crate::render::column::{Column, column, giving, optional, optional_giving};
use crate::render::{Look, table};

/// Smaller parts are not shown in the table, in bytes.
const PART_MIN: u64 = 64 << 10;
/// How wide a bar is, in characters.
const BAR: u64 = 10;
/// How much of an instruction is shown, in characters.
const INSTRUCTION: usize = 45;

/// A line of the table: a row, or one of its largest files.
struct Line<'r> {
    what: What<'r>,
    /// The largest row's bytes.
    most: u64,
    /// There are other stores.
    is_of_stores: bool,
}

enum What<'r> {
    Row(&'r Row),
    Large(&'r Large),
    Wasted(&'r WastedFile),
}

impl Line<'_> {
    fn row(&self) -> Option<&Row> {
        match self.what {
            What::Row(row) => Some(row),
            What::Large(_) | What::Wasted(_) => None,
        }
    }

    fn disk(&self) -> Option<u64> {
        match self.what {
            What::Row(row) => row.disk,
            What::Large(large) => Some(large.disk),
            What::Wasted(_) => None,
        }
    }

    /// A row's share of the largest one, as a bar.
    fn bar(&self) -> String {
        let row = self.row().filter(|row| row.kind != Kind::Total);
        let disk = row.and_then(|row| row.disk).unwrap_or_default();
        let long = u128::from(disk) * u128::from(BAR) / u128::from(self.most.max(1));
        "\u{2588}".repeat(usize::try_from(long).unwrap_or_default())
    }
}

impl crate::command::Row for Row {
    fn words(&self, give: &mut dyn FnMut(&[u8])) {
        let id = self.id.as_ref();
        let volume = self.name.as_ref().filter(|_| self.kind == Kind::Volume);
        id.or(volume).iter().for_each(|id| give(id.as_bytes()));
    }

    fn table(rows: &[Row], look: Look, out: &mut dyn Write) -> io::Result<()> {
        let parts = rows.iter().filter(|row| row.kind != Kind::Total);
        let most = parts.filter_map(|row| row.disk).max().unwrap_or_default();
        let mut lines: Vec<What<'_>> = Vec::new();
        for row in rows {
            lines.push(What::Row(row));
            // Whoever wants all asks for a machine format.
            let largest = row.largest.iter().filter(|large| large.disk > 0).take(3);
            lines.extend(largest.map(What::Large));
            // Small records are no answer to what fills the disk; a container's own rows tell them.
            let is_told = row.kind == Kind::Layer;
            let parts = row.parts.iter();
            let parts = parts.filter(|part| part.disk >= PART_MIN && !is_told);
            lines.extend(parts.take(3).map(What::Large));
            lines.extend(row.wasted_files.iter().map(What::Wasted));
        }
        let is_of_stores = rows.windows(2).any(|pair| pair[0].store != pair[1].store);
        let lines = lines.into_iter().map(|what| Line {
            what,
            most,
            is_of_stores,
        });
        let lines: Vec<Line<'_>> = lines.collect();
        let mut columns = columns();
        if is_of_stores {
            // Of two sums nobody knows otherwise which is whose.
            columns[0].gives = None;
        }
        table::write(&columns, &lines, look, out)
    }
}

fn columns<'r>() -> Vec<Column<Line<'r>>> {
    vec![
        giving(4, "ENGINE", |line: &Line<'_>, _, cell| {
            cell.text(line.row().map(|row| row.engine).unwrap_or_default());
        }),
        optional("UNION", |line, _, cell| {
            let row = line.row().filter(|row| row.is_of_several);
            if let Some(target) = row.and_then(|row| row.target.as_ref()) {
                cell.show(target);
            }
        }),
        column("SIZE", |line, look, cell| {
            let size = line.disk().map(|size| look.size(size));
            match line.what {
                What::Wasted(_) => {}
                What::Row(row) if size.is_none() && !row.is_part => cell.word("unknown"),
                _ => cell.word(size.as_deref().unwrap_or("-")),
            }
        }),
        optional_giving(2, "SHARE", |line, look, cell| {
            if look.is_terminal {
                cell.word(&line.bar());
            }
        }),
        optional("WASTED", |line, look, cell| {
            let wasted = match line.what {
                What::Row(row) => row.wasted,
                What::Large(_) => None,
                What::Wasted(file) => Some(file.disk),
            };
            cell.word(&wasted.map(|size| look.size(size)).unwrap_or_default());
        }),
        giving(1, "SHARED", |line, look, cell| {
            let shared = line.row().and_then(|row| row.shared);
            cell.word(&shared.map(|size| look.size(size)).unwrap_or_default());
        }),
        column("WHAT", |line, _, cell| match line.what {
            What::Row(row) => cell.word(row.kind.word()),
            What::Large(large) if large.is_log => cell.word("log"),
            What::Large(_) => {}
            What::Wasted(file) => cell.word(file.why.word()),
        }),
        giving(3, "ID", |line, look, cell| {
            let id = match line.what {
                What::Row(row) => row.id.as_deref(),
                What::Large(_) => None,
                What::Wasted(file) => file.layer.as_deref(),
            };
            cell.text(&id.map(|id| look.id(id)).unwrap_or_default());
        }),
        column("NAME", |line, _, cell| match line.what {
            // One engine has several stores, root's and its users'.
            What::Row(row) if row.kind == Kind::Total && line.is_of_stores => {
                cell.show(&row.store);
            }
            What::Row(row) => cell.text(row.name.as_deref().unwrap_or_default()),
            What::Large(large) => cell.show(&large.path),
            What::Wasted(file) => cell.show(&file.path),
        }),
        optional("USED BY", |line, _, cell| {
            let users = line.row().and_then(|row| row.containers.as_ref());
            let users = users.map(|users| {
                let names: Vec<&str> = users.iter().map(|user| user.name.as_str()).collect();
                if names.is_empty() {
                    "nobody".to_owned()
                } else {
                    names.join(", ")
                }
            });
            cell.text(&users.unwrap_or_default());
        }),
        optional("INSTRUCTION", |line, look, cell| {
            let instruction = line.row().and_then(|row| row.instruction.as_deref());
            cell.word(&look.clip(instruction.unwrap_or_default(), INSTRUCTION));
        }),
    ]
}
