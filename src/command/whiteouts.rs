//! `whiteouts [TARGET]`: every mark, where it is and what it hides.

use std::borrow::Cow;

use serde::Serialize;

use crate::bytes::Bytes;
use crate::command::{Context, Outcome, Report, Version, subjects};
use crate::dir::Kind;
use crate::engine::Union;
use crate::error::{Error, Result};
use crate::target::Target;
use crate::union::{Entry, Node, Stack};
use crate::walk::{BranchItems, Found, InBranch, Item, walk_branch};
use crate::whiteout::{Mark, MarkKind};

pub struct Query<'a> {
    pub target: Option<&'a [u8]>,
    pub layers: Layers,
    /// Only paths that match.
    pub glob: Option<Glob>,
    pub only: Only,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layers {
    Writable,
    All,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Only {
    Everything,
    /// What hides something that would come back.
    Recoverable,
}

/// A pattern over paths: against the whole path if it holds a slash, where `*` stops at a slash
/// and `**` does not; else against the name.
pub struct Glob {
    pattern: glob::Pattern,
    is_path: bool,
    is_text: bool,
}

impl Glob {
    /// # Errors
    /// What is wrong with the pattern.
    pub fn new(pattern: &[u8]) -> Result<Glob> {
        let is_text = std::str::from_utf8(pattern).is_ok();
        let text = readable(pattern, is_text);
        let parsed = glob::Pattern::new(&text).map_err(|error| {
            Error::Usage(format!(
                "{}: is no pattern: {error}",
                crate::bytes::escape(pattern)
            ))
        })?;
        Ok(Glob {
            pattern: parsed,
            is_path: pattern.contains(&b'/'),
            is_text,
        })
    }

    fn matches(&self, path: &Bytes) -> bool {
        let bytes = if self.is_path {
            path.as_bytes()
        } else {
            path.file_name()
        };
        let options = glob::MatchOptions {
            require_literal_separator: true,
            ..Default::default()
        };
        self.pattern
            .matches_with(&readable(bytes, self.is_text), options)
    }
}

/// Bytes as the pattern matcher takes them, which knows only text: as they are, or each byte as a
/// character of its own where either side is not UTF-8.
fn readable(bytes: &[u8], is_text: bool) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) if is_text => Cow::Borrowed(text),
        _ => bytes.iter().map(|&byte| char::from(byte)).collect(),
    }
}

/// One mark.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct Row {
    /// The union, where the query did not name one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub union: Option<Bytes>,
    /// What is marked: the deleted name, or the opaque directory.
    pub path: Bytes,
    /// The mark's own path in its branch.
    pub mark: Bytes,
    pub kind: MarkKind,
    /// Index of the branch that holds the mark, 0 is topmost.
    pub branch: usize,
    /// What would come back without the mark; null for a stale one.
    pub hides: Option<Version>,
    /// A branch below was not read, so that nobody knows whether the mark is stale.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unknown: bool,
}

pub fn run(context: &mut Context<'_>, query: &Query<'_>) -> Result<Outcome> {
    let mut rows = Vec::new();
    let asked: Vec<(Option<Bytes>, Target, Vec<usize>)> = match query.layers {
        Layers::Writable => subjects(context, query.target)?
            .into_iter()
            .map(|(label, target, branch)| (label, target, vec![branch]))
            .collect(),
        Layers::All => context
            .targets(query.target)?
            .into_iter()
            .map(|(label, target)| {
                let branches = (0..target.union.branches.len()).collect();
                (label, target, branches)
            })
            .collect(),
    };
    for (label, target, branches) in asked {
        let stack = context.open(&target);
        for branch in branches {
            for found in marks(&stack, branch) {
                let row = found.and_then(|found| row(&target.union, label.clone(), found));
                match row {
                    Ok(row) => {
                        let is_wanted = query
                            .glob
                            .as_ref()
                            .is_none_or(|glob| glob.matches(&row.path))
                            && (query.only == Only::Everything || row.hides.is_some());
                        if is_wanted {
                            rows.push(row);
                        }
                    }
                    Err(error) => context.problems.push(error),
                }
            }
        }
    }
    Outcome::yes(Report::Whiteouts(rows))
}

fn row(union: &Union, label: Option<Bytes>, found: FoundMark<'_>) -> Result<Row> {
    let hides = found.hides()?;
    let hides = hides.map(|(branch, stat)| Version::new(union, branch, &stat));
    Ok(Row {
        union: label,
        mark: match found.kind {
            MarkKind::Whiteout => found.parent.path().join(&found.mark),
            // An attribute is on the directory itself.
            MarkKind::Opaque if found.mark.is_empty() => found.path.clone(),
            MarkKind::Opaque => found.path.join(&found.mark),
        },
        path: found.path,
        kind: found.kind,
        branch: found.branch,
        unknown: hides.is_none() && found.parent.stack().lost_below(found.branch),
        hides,
    })
}

/// A mark in a branch, in the view of that branch and those below it.
pub struct FoundMark<'s> {
    /// What is marked.
    pub path: Bytes,
    pub kind: MarkKind,
    pub branch: usize,
    /// The name of the mark on disk.
    pub mark: Vec<u8>,
    /// For a whiteout the directory it lies in; for an opaque mark the marked directory's parent.
    parent: std::sync::Arc<Node<'s>>,
    name: Vec<u8>,
}

impl FoundMark<'_> {
    /// The topmost version that would come back if the mark were removed.
    ///
    /// # Errors
    /// A branch that cannot be asked.
    pub fn hides(&self) -> Result<Option<(usize, crate::dir::Stat)>> {
        if self.name.is_empty() {
            return Ok(None); // an opaque mark in a branch's root means nothing
        }
        let stack = self.parent.stack();
        if !stack.branches[self.branch].grammar.honours_marks() {
            return Ok(None);
        }
        let without = self
            .parent
            .child_without_mark(&self.name, self.branch, self.kind)?;
        let from = match (self.kind, &without) {
            (MarkKind::Whiteout, entry) => entry.provider(),
            (MarkKind::Opaque, Entry::Dir(node)) => {
                let with: Vec<usize> = match self.parent.child(&self.name)? {
                    Entry::Dir(node) => node.branches().collect(),
                    _ => Vec::new(),
                };
                node.branches().find(|branch| !with.contains(branch))
            }
            (MarkKind::Opaque, _) => None,
        };
        match from {
            Some(branch) => {
                let dir_stat = stack.version(branch, &self.path)?;
                Ok(dir_stat.map(|stat| (branch, stat)))
            }
            None => Ok(None),
        }
    }
}

/// Every mark in one branch, in the order of the branch's names.
pub fn marks<'s>(stack: &'s Stack, branch: usize) -> impl Iterator<Item = Result<FoundMark<'s>>> {
    walk_branch(
        stack,
        branch,
        move |node, at| in_directory(node, at, branch),
        |_, _, _| None,
    )
}

fn in_directory<'s>(
    node: Node<'s>,
    parent: Found<'s>,
    branch: usize,
) -> Result<BranchItems<'s, FoundMark<'s>>> {
    let grammar = node.stack().branches[branch].grammar;
    let Some(listing) = node.listing(branch)? else {
        return Ok(Vec::new());
    };
    let node = std::sync::Arc::new(node);
    let mut found = Vec::new();
    let opaque = |parent: Found<'s>, mark: Vec<u8>| {
        let (parent, of) = parent.unwrap_or((std::sync::Arc::clone(&node), Vec::new()));
        FoundMark {
            path: node.path().clone(),
            kind: MarkKind::Opaque,
            branch,
            mark,
            parent,
            name: of,
        }
    };
    if grammar.opaque_name().is_empty() && node.is_opaque(branch)? {
        found.push(Item::Row(Ok(opaque(parent.clone(), Vec::new()))));
    }
    for (name, kind) in listing.iter() {
        let mark = match node.mark(branch, name)? {
            Some(Mark::Whiteout(hidden)) => FoundMark {
                path: node.path().join(hidden),
                kind: MarkKind::Whiteout,
                branch,
                mark: name.to_vec(),
                parent: std::sync::Arc::clone(&node),
                name: hidden.to_vec(),
            },
            Some(Mark::Opaque) => opaque(parent.clone(), name.to_vec()),
            None => {
                if kind == Kind::Directory && !grammar.hides_entry(name) {
                    found.push(Item::Place(InBranch::Name(
                        std::sync::Arc::clone(&node),
                        name.to_vec(),
                    )));
                }
                continue;
            }
        };
        found.push(Item::Row(Ok(mark)));
    }
    Ok(found)
}
