//! `copyups [TARGET]`: every file copied up, what differs from the original, and what it costs.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::ops::ControlFlow;

use rustix::io::Errno;
use serde::Serialize;

use crate::bytes::Bytes;
use crate::command::{Context, Outcome, Verb, Version, subjects, union_column};
use crate::difference::{Change, Criterion, Difference, differences};
use crate::dir::{Kind, Stat};
use crate::engine::Union;
use crate::error::{Error, Result, errno_of};
use crate::render::Look;
use crate::render::column::{Column, column};
use crate::union::{Entry, Node};

/// List files copied up, what differs, and what the copies cost
#[derive(Debug, clap::Args)]
pub struct Args {
    target: Option<OsString>,
}

/// One copied-up file.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct Row {
    /// The union, where the query did not name one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub union: Option<Bytes>,
    pub path: Bytes,
    #[serde(rename = "type")]
    pub kind: Kind,
    /// The version that was copied.
    pub from: Version,
    /// What differs now; empty if nothing does.
    pub differs: Vec<Differs>,
    /// Bytes that the copy takes on disk; none for a further name of a file already counted.
    pub cost: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Differs {
    Type,
    Content,
    Mode,
    Owner,
    Time,
}

impl Differs {
    pub fn word(self) -> &'static str {
        match self {
            Differs::Type => "type",
            Differs::Content => "content",
            Differs::Mode => "mode",
            Differs::Owner => "owner",
            Differs::Time => "time",
        }
    }
}

impl Verb for Args {
    type Answer = Vec<Row>;

    fn run(self, context: &mut Context<'_>) -> Result<Outcome<Vec<Row>>> {
        let mut rows = Vec::new();
        for (label, target, branch) in subjects(context, self.target.as_deref())? {
            let stack = context.open(&target);
            let changed = Criterion::of_union(&stack);
            let row = |found: Result<Difference<'_, '_>>, rows: &mut Vec<Result<(Row, Stat)>>| {
                rows.extend(
                    found
                        .and_then(|found| copied(&target.union, &found))
                        .transpose(),
                );
            };
            let mut counted = HashSet::new();
            let _ = differences(
                &stack,
                branch,
                changed,
                context.threads.count(),
                &row,
                |found| {
                    for found in found {
                        match found {
                            // A further name of a file costs nothing.
                            Ok((row, stat)) => rows.push(Row {
                                union: label.clone(),
                                cost: if counted.insert(stat.identity()) {
                                    row.cost
                                } else {
                                    0
                                },
                                ..row
                            }),
                            Err(error) => context.problems.push(error),
                        }
                    }
                    ControlFlow::Continue(())
                },
            );
        }
        Outcome::yes(rows)
    }
}

/// What was copied up, if anything was: its row, and what `lstat` says of it.
fn copied(union: &Union, found: &Difference<'_, '_>) -> Result<Option<(Row, Stat)>> {
    let (Some(before), Some(after)) = (found.before, found.after) else {
        return Ok(None);
    };
    if found.change != Change::Changed || before.kind != after.kind {
        return Ok(None);
    }
    let (Some(old), Some(new)) = (found.stat_before()?, found.stat_after()?) else {
        return Ok(None);
    };
    let differs = differs(found)?;
    // Directories are copied up only to hold what is in them, unless they were changed.
    let is_mere_parent = !differs
        .iter()
        .any(|what| matches!(what, Differs::Mode | Differs::Owner));
    if new.kind == Kind::Directory && is_mere_parent {
        return Ok(None);
    }
    let (branch, layer) = union.compared_with(before.branch);
    let row = Row {
        union: None,
        path: found.path(),
        kind: new.kind,
        from: Version {
            branch,
            layer,
            kind: old.kind,
            size: old.size,
        },
        differs,
        cost: match new.kind {
            Kind::File => new.size.min(new.blocks * 512),
            _ => 0,
        },
    };
    Ok(Some((row, new)))
}

/// What differs between the two versions of a changed entry.
///
/// # Errors
/// A version that cannot be read.
pub fn differs(difference: &Difference<'_, '_>) -> Result<Vec<Differs>> {
    let mut found = Vec::new();
    let (Some(old), Some(new)) = (difference.stat_before()?, difference.stat_after()?) else {
        return Ok(found);
    };
    if old.kind != new.kind {
        return Ok(vec![Differs::Type]);
    }
    let is_content = match (old.kind, difference.versions()) {
        (Kind::File, Some((before, _, after, _, name))) => {
            old.size != new.size || !is_same_file(before, after, name)?
        }
        (Kind::Symlink, Some((before, old_branch, after, new_branch, name))) => {
            link(before, old_branch, name)? != link(after, new_branch, name)?
        }
        (Kind::Char | Kind::Block, _) => old.rdev != new.rdev,
        _ => false,
    };
    if is_content {
        found.push(Differs::Content);
    }
    if old.mode != new.mode {
        found.push(Differs::Mode);
    }
    if (old.uid, old.gid) != (new.uid, new.gid) {
        found.push(Differs::Owner);
    }
    if old.mtime != new.mtime {
        found.push(Differs::Time);
    }
    Ok(found)
}

fn link(node: &Node<'_>, branch: usize, name: &[u8]) -> Result<Vec<u8>> {
    let fail = |errno| Error::io(node.on_host(branch, name), errno);
    let dir = node.dir(branch).ok_or_else(|| fail(Errno::NOENT))?;
    dir.read_link(name).map_err(fail)
}

fn is_same_file(old: &Node<'_>, new: &Node<'_>, name: &[u8]) -> Result<bool> {
    let mut old = Reader::open(old, name)?;
    let mut new = Reader::open(new, name)?;
    loop {
        let a = old.fill()?;
        let b = new.fill()?;
        if a != b {
            return Ok(false);
        }
        if a.is_empty() {
            return Ok(true);
        }
    }
}

struct Reader {
    file: File,
    path: Bytes,
    buffer: Vec<u8>,
}

impl Reader {
    fn open(node: &Node<'_>, name: &[u8]) -> Result<Reader> {
        let Entry::Leaf { from, data, .. } = node.child(name)? else {
            return Err(Error::io(node.path_of(name), Errno::NOENT));
        };
        let file = node.open_content(from, name, data.as_deref())?;
        Ok(Reader {
            file: File::from(file),
            path: node.on_host(from, name),
            buffer: vec![0; 128 * 1024],
        })
    }

    /// The next 128 KiB, less only at the end.
    fn fill(&mut self) -> Result<&[u8]> {
        let mut len = 0;
        while len < self.buffer.len() {
            match self.file.read(&mut self.buffer[len..]) {
                Ok(0) => break,
                Ok(more) => len += more,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => {
                    return Err(Error::io(self.path.clone(), errno_of(&error)));
                }
            }
        }
        Ok(&self.buffer[..len])
    }
}

impl crate::command::Row for Row {
    fn words(&self, give: &mut dyn FnMut(&[u8])) {
        give(self.path.as_bytes());
    }

    fn union(&self) -> Option<&Bytes> {
        self.union.as_ref()
    }

    fn columns(_look: Look) -> Vec<Column<Row>> {
        vec![
            union_column(),
            column("TYPE", |row: &Row, _, cell| cell.word(row.kind.word())),
            column("FROM", |row, look, cell| {
                cell.text(&row.from.layer_words(look))
            }),
            column("DIFFERS", |row, _, cell| {
                let words: Vec<&str> = row.differs.iter().map(|what| what.word()).collect();
                if words.is_empty() {
                    cell.word("nothing");
                }
                cell.word(&words.join(","));
            }),
            column("COST", |row, look, cell| cell.word(&look.size(row.cost))),
            column("PATH", |row, _, cell| cell.show(&row.path)),
        ]
    }
}
