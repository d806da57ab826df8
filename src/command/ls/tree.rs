//! `ls --tree`: what lies in what, drawn.

use std::cmp::Ordering;
use std::io::{self, Write};

use super::{Row, Shown};
use crate::bytes::{Bytes, escape};
use crate::command::Label;
use crate::render::Look;

/// Draws a tree for each place that was asked for, in which the rows are that lie below it.
///
/// # Errors
/// The output cannot be written.
pub fn write(
    starts: &[(Label, Bytes)],
    rows: &[Row],
    look: Look,
    out: &mut dyn Write,
) -> io::Result<()> {
    for (label, start) in starts {
        let target = label.target();
        let below: Vec<&Row> = rows
            .iter()
            .filter(|row| of(row).target() == target && is_below(row.path(), start))
            .collect();
        let head = format!("{target}:{start}");
        writeln!(out, "{}", look.bold(&head))?;
        draw(below, start, look, out)?;
    }
    Ok(())
}

fn of(row: &Row) -> &Label {
    match row {
        Row::Shown(shown) => &shown.target,
        Row::Refused(refused) => &refused.target,
    }
}

fn is_below(path: &Bytes, start: &Bytes) -> bool {
    let mut path = path.components();
    start.components().all(|part| path.next() == Some(part))
}

fn draw(mut rows: Vec<&Row>, start: &Bytes, look: Look, out: &mut dyn Write) -> io::Result<()> {
    let by_parts =
        |a: &&Row, b: &&Row| -> Ordering { a.path().components().cmp(b.path().components()) };
    rows.sort_by(by_parts);
    let top = start.components().count();
    // From the end it is known of each whether another of its directory follows.
    let mut follows: Vec<bool> = Vec::new();
    let mut lines = Vec::with_capacity(rows.len());
    for row in rows.iter().rev() {
        let Some(level) = row.path().components().count().checked_sub(top + 1) else {
            continue;
        };
        follows.resize(level + 1, false);
        let mut line = String::new();
        for &follows in &follows[..level] {
            line.push_str(if follows { "│   " } else { "    " });
        }
        line.push_str(if follows[level] {
            "├── "
        } else {
            "└── "
        });
        follows[level] = true;
        lines.push(line + &name_of(row, look));
    }
    lines
        .iter()
        .rev()
        .try_for_each(|line| writeln!(out, "{line}"))
}

/// The last part of its path, and the branch that provides it.
fn name_of(row: &Row, look: Look) -> String {
    let name = row.path().components().last().unwrap_or_default();
    let name = Bytes::from(name);
    let named = match row {
        Row::Shown(shown) => named(shown, &name, look),
        Row::Refused(refused) => format!("{name} ({})", refused.error),
    };
    match row.cover().filter(|cover| cover.path == *row.path()) {
        Some(cover) => format!("{named}  covered by {}", escape(cover.title().as_bytes())),
        None => named,
    }
}

fn named(shown: &Shown, name: &Bytes, look: Look) -> String {
    let layer = match &shown.layer {
        Some(id) => look.id(id),
        None => format!("branch {}", shown.branch),
    };
    format!("{}  [{layer}]", look.path(name, shown.type_of()))
}
