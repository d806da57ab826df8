//! `ls --tree`: what lies in what, drawn.

use std::io::{self, Write};

use super::Row;
use crate::bytes::{Bytes, escape};
use crate::command::layer_words;
use crate::render::Look;

/// Draws what was found in a directory; what is none is a line of its own.
///
/// # Errors
/// The output cannot be written.
pub fn write(
    target: &Bytes,
    directory: Option<&Bytes>,
    mut rows: Vec<Row>,
    look: Look,
    out: &mut dyn Write,
) -> io::Result<()> {
    let Some(start) = directory else {
        return rows.iter().try_for_each(|row| {
            let name = named(row, row.path(), look);
            writeln!(out, "{target}:{name}{}", cover_of(row))
        });
    };
    rows.sort_by(|a, b| a.path().components().cmp(b.path().components()));
    writeln!(out, "{}", look.bold(&format!("{target}:{start}")))?;
    draw(&rows, start, look, out)
}

fn draw(rows: &[Row], start: &Bytes, look: Look, out: &mut dyn Write) -> io::Result<()> {
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
        let name = row.path().components().last().unwrap_or_default();
        lines.push(line + &named(row, &Bytes::from(name), look) + &cover_of(row));
    }
    lines
        .iter()
        .rev()
        .try_for_each(|line| writeln!(out, "{line}"))
}

/// A name, and the layer that provides it.
fn named(row: &Row, name: &Bytes, look: Look) -> String {
    let shown = match row {
        Row::Shown(shown) => shown,
        Row::Refused(refused) => return format!("{name} ({})", refused.error),
    };
    let layer = layer_words(shown.layer.as_deref(), shown.branch, look);
    format!("{}  [{layer}]", look.path(name, shown.indicator()))
}

/// What lies over a name itself; what lies over all around it is said where that begins.
fn cover_of(row: &Row) -> String {
    let cover = row.cover().filter(|cover| cover.path == *row.path());
    let title = cover.map(|cover| format!("  covered by {}", escape(cover.title().as_bytes())));
    title.unwrap_or_default()
}
