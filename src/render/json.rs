//! Reports for machines: one document, or one object a line.

use std::io::{self, Write};

use serde::Serialize;

use crate::command::Report;

pub fn document(report: &Report, out: &mut impl Write) -> io::Result<()> {
    match report {
        Report::Branches(rows) => pretty(rows, out),
        Report::Which(rows) => pretty(rows, out),
        Report::Ls(rows) => pretty(rows, out),
        Report::Whiteouts(rows) => pretty(rows, out),
        Report::Copyups(rows) => pretty(rows, out),
        Report::Changes(rows) => pretty(rows, out),
        Report::History(rows) => pretty(rows, out),
        Report::Containers(rows) => pretty(rows, out),
        Report::Images(rows) => pretty(rows, out),
        Report::Check(rows) => pretty(rows, out),
        Report::Info(row) => pretty(row, out),
        Report::Restore(row) => pretty(row, out),
    }
}

pub fn lines(report: &Report, out: &mut impl Write) -> io::Result<()> {
    match report {
        Report::Branches(rows) => each(rows, out),
        Report::Which(rows) => each(rows, out),
        Report::Ls(rows) => each(rows, out),
        Report::Whiteouts(rows) => each(rows, out),
        Report::Copyups(rows) => each(rows, out),
        Report::Changes(rows) => each(rows, out),
        Report::History(rows) => each(rows, out),
        Report::Containers(rows) => each(rows, out),
        Report::Images(rows) => each(rows, out),
        Report::Check(rows) => each(rows, out),
        Report::Info(row) => each(std::slice::from_ref(&**row), out),
        Report::Restore(row) => each(std::slice::from_ref(&**row), out),
    }
}

fn pretty(report: &impl Serialize, out: &mut impl Write) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, report)?;
    out.write_all(b"\n")
}

fn each(rows: &[impl Serialize], out: &mut impl Write) -> io::Result<()> {
    for row in rows {
        serde_json::to_writer(&mut *out, row)?;
        out.write_all(b"\n")?;
    }
    Ok(())
}
