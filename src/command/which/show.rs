//! How an answer of `which` looks: the verdict, and what each branch says.

use std::io::{self, Write};

use super::{BranchNote, Row, State, Verdict};
use crate::bytes::{Bytes, escape};
use crate::command::{Version, role_words};
use crate::dir::Kind;
use crate::engine::Role;
use crate::render::column::{Accent, Column, column};
use crate::render::{Look, table};
use crate::union::Says;
use crate::whiteout::MarkKind;

impl crate::command::Row for Row {
    /// The file that provides it.
    fn words(&self, give: &mut dyn FnMut(&[u8])) {
        let provider = self.branch.and_then(|branch| self.branches.get(branch));
        if let Some(BranchNote { directory, .. }) = provider {
            give(directory.join_path(&self.path).as_bytes());
        }
    }

    fn table(rows: &[Row], look: Look, out: &mut dyn Write) -> io::Result<()> {
        // Of many containers most have nothing there: a line is enough for them.
        let (absent, told): (Vec<&Row>, Vec<&Row>) = rows
            .iter()
            .partition(|row| !look.verbose && row.is_absent());
        for (index, row) in told.iter().enumerate() {
            if index > 0 {
                writeln!(out)?;
            }
            row.write_verdict(look, out)?;
            row.write_trail(look, out)?;
            if let Some(command) = row.shown_by.as_ref().filter(|_| look.is_terminal) {
                writeln!(out, "{command}")?;
            }
        }
        let mut paths: Vec<&Bytes> = absent.iter().map(|row| &row.path).collect();
        paths.dedup();
        for (index, path) in paths.into_iter().enumerate() {
            if index > 0 || !told.is_empty() {
                writeln!(out)?;
            }
            let of_it = absent.iter().filter(|row| row.path == *path);
            let unions = of_it.filter_map(|row| row.target.told());
            let unions: Vec<String> = unions.map(Bytes::to_string).collect();
            let path = look.bold(&path.to_string());
            writeln!(out, "{path}  not there in {}", unions.join(", "))?;
        }
        Ok(())
    }
}

impl Row {
    /// Whether one of several unions has nothing at all there.
    fn is_absent(&self) -> bool {
        let is_seen = self.covered_by.is_none();
        let is_plain = is_seen && self.why.is_none() && self.links.is_empty() && !self.uncertain;
        let is_empty = self.state == State::Missing && self.versions.is_empty();
        self.target.told().is_some() && is_plain && is_empty
    }

    fn write_verdict(&self, look: Look, out: &mut dyn Write) -> io::Result<()> {
        if let Some(union) = self.target.told() {
            write!(out, "{}:", escape(union.as_bytes()))?;
        }
        for link in &self.links {
            write!(out, "{} -> {}\n  ", link.path, link.link)?;
        }
        let (verdict, reason) = self.verdict(look);
        writeln!(out, "{}  {verdict}", look.bold(&self.path.to_string()))?;
        if let Some(reason) = reason {
            writeln!(out, "  {reason}")?;
        }
        if let Some(cover) = &self.covered_by {
            writeln!(out, "  {}", cover.words())?;
        }
        if self.uncertain && self.state != State::Missing {
            writeln!(
                out,
                "  but a branch was not read that may say something else"
            )?;
        }
        if let Some(instruction) = &self.instruction {
            writeln!(out, "  made by {}", look.clip(instruction, 70))?;
        }
        Ok(())
    }

    /// What is there, or that nothing is; and what decides it.
    fn verdict(&self, look: Look) -> (String, Option<String>) {
        let why = || self.why.clone();
        match (self.state, self.branch, &self.hidden_by) {
            (State::Present, Some(branch), _) => {
                let kind = self.kind.map(Kind::word).unwrap_or_default();
                let from = self.branch_words(branch, look);
                (format!("{kind} from {from}"), why())
            }
            (State::Deleted, _, Some(cut)) => {
                let verdict = if self.versions.is_empty() {
                    "deleted, and nothing is left below"
                } else {
                    "deleted"
                };
                let kind = match cut.kind {
                    MarkKind::Whiteout => "whiteout",
                    MarkKind::Opaque => "opaque mark",
                };
                let of = self.branch_words(cut.branch, look);
                let reason = format!("by the {kind} {} of {of}", cut.mark);
                (verdict.to_owned(), Some(reason))
            }
            (State::Missing, _, _) if self.uncertain => {
                let verdict = "unknown: a branch was not read that may have it";
                (verdict.to_owned(), why())
            }
            (State::Missing, _, _) => {
                let why = why().unwrap_or_else(|| "no branch has it".into());
                (format!("not there: {why}"), None)
            }
            _ => {
                let (error, why) = (self.error.unwrap_or("EIO"), why().unwrap_or_default());
                (format!("broken ({error}): {why}"), None)
            }
        }
    }

    /// A branch as a sentence has it.
    fn branch_words(&self, branch: usize, look: Look) -> String {
        match self.branches.get(branch) {
            Some(note) if note.role != Role::Plain => format!("branch {branch}, {}", note.role),
            Some(note) => format!("branch {branch}, {}", look.directory(&note.directory)),
            None => format!("branch {branch}"),
        }
    }

    /// What the branches say; those that say nothing are asked for.
    fn write_trail(&self, look: Look, out: &mut dyn Write) -> io::Result<()> {
        let shown = self.trail.iter();
        let shown = shown.filter(|verdict| look.verbose || verdict.says != Says::Nothing);
        let lines: Vec<Line<'_>> = shown
            .map(|verdict| Line {
                verdict,
                version: {
                    let mut versions = self.versions.iter();
                    versions.find(|version| version.branch == verdict.branch)
                },
                note: self.branches.get(verdict.branch),
            })
            .collect();
        if lines.is_empty() {
            return Ok(());
        }
        table::write(&Line::columns(), &lines, look, out)
    }
}

/// What a branch says, with the version that it has.
struct Line<'r> {
    verdict: &'r Verdict,
    version: Option<&'r Version>,
    note: Option<&'r BranchNote>,
}

impl<'r> Line<'r> {
    fn columns() -> Vec<Column<Line<'r>>> {
        vec![
            column("#", |line: &Line<'_>, _, cell| {
                cell.show(line.verdict.branch)
            }),
            column("SAYS", |line, _, cell| {
                let says = line.verdict.says;
                cell.word(says.words());
                match says {
                    Says::Provides | Says::ProvidesOpaque => cell.accent(Accent::Good),
                    Says::Whiteout | Says::Invalid | Says::Unread => cell.accent(Accent::Bad),
                    _ => {}
                }
            }),
            column("LAYER", |line, _, cell| {
                let role = line.note.map(|note| role_words(&note.role.to_string()));
                cell.text(&role.unwrap_or_default());
            }),
            column("TYPE", |line, _, cell| {
                let kind = line.version.map(|version| version.kind.word());
                cell.word(kind.unwrap_or_default());
            }),
            column("SIZE", |line, look, cell| {
                let size = line.version.map(|version| version.size_words(look));
                cell.word(&size.unwrap_or_default());
            }),
            column("DIRECTORY", |line, look, cell| {
                let directory = line.note.map(|note| look.directory(&note.directory));
                cell.word(&directory.unwrap_or_default());
            }),
        ]
    }
}
