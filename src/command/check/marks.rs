//! What is wrong in a branch's marks, and with its names.

use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::io::Errno;

use super::{Finding, Row};
use crate::bytes::Bytes;
use crate::command::Label;
use crate::dir::{Access, Kind, Names};
use crate::error::{Error, Result, errno_name};
use crate::restore::staging::STAGING;
use crate::union::{Entry, Listed, Node, Stack, Why};
use crate::walk::{Found, InBranch, walk_all};
use crate::whiteout::{Grammar, Mark, MarkKind, OPAQUE, Seen};

/// What is wrong in one branch inside of a path and on the way there, in the view of that branch and
/// those below it.
pub(super) fn findings<'s>(
    stack: &'s Stack,
    (branch, inside): (usize, &Bytes),
    threads: NonZeroUsize,
    names: &AtomicU64,
    mut give: impl FnMut(Result<Row>),
) {
    let visit = |place: InBranch<'s>, found: &mut Found<'_, InBranch<'s>, Vec<Result<Row>>>| {
        let mut is_refused = None;
        let visited = place.open(
            stack,
            branch,
            |node, above| in_directory(node, above.is_none(), (branch, inside), names, found),
            |parent, name, why| {
                is_refused = match why {
                    Why::BadOpaque { branch: of } if of == branch => {
                        Some(bad_opaque(parent, name, branch))
                    }
                    why => refused_by(parent, name, why, branch),
                };
            },
        );
        found.rows().extend(is_refused.map(Ok));
        found.rows().extend(visited.err().map(Err));
    };
    let _ = walk_all(threads, InBranch::Root, &visit, |found| {
        found.into_iter().for_each(&mut give);
        ControlFlow::Continue(())
    });
}

fn bad_opaque(parent: &Node<'_>, name: &[u8], branch: usize) -> Row {
    let path = parent.path_of(name);
    Row {
        target: Label::default(),
        engine: None,
        finding: Finding::BadMark,
        branch: Some(branch),
        entry: path.join(OPAQUE),
        path,
        means: "the mark is not a regular file: the directory answers EIO".into(),
        users: Vec::new(),
    }
}

/// A directory or a file that an overlay refuses, for what this branch says of it.
fn refused_by(parent: &Node<'_>, name: &[u8], why: Why, branch: usize) -> Option<Row> {
    let (of, means) = match why {
        Why::Redirect { branch } => (
            branch,
            "it was renamed, and the union may not follow that: the name answers EPERM",
        ),
        Why::BadRedirect { branch } => (
            branch,
            "it was renamed from what can be no name: the name is refused",
        ),
        Why::Metacopy { branch } => (
            branch,
            "its content is elsewhere, where the union may not look: the name answers EPERM",
        ),
        Why::NoData { branch } => (branch, "its content is nowhere: the name answers EIO"),
        Why::BadMetacopy { branch } => (
            branch,
            "its metacopy attribute cannot be read: the name answers EIO",
        ),
        _ => return None,
    };
    let path = parent.path_of(name);
    (of == branch).then(|| Row {
        target: Label::default(),
        engine: None,
        finding: Finding::BadMark,
        branch: Some(branch),
        entry: path.clone(),
        path,
        means: means.into(),
        users: Vec::new(),
    })
}

fn in_directory<'s>(
    node: Node<'s>,
    is_root: bool,
    (branch, inside): (usize, &Bytes),
    names: &AtomicU64,
    found: &mut Found<'_, InBranch<'s>, Vec<Result<Row>>>,
) -> Result<()> {
    let Some(listing) = node.listing(branch)? else {
        return Ok(());
    };
    let only = node.step_to(inside);
    let directory = Directory {
        node: Arc::new(node),
        listing,
        is_root,
        branch,
    };
    let grammar = directory.grammar();
    let mut looked_at = 0;
    for (name, kind) in directory.listing.iter() {
        if only.is_some_and(|only| !grammar.concerns(name, only)) {
            continue;
        }
        looked_at += 1;
        if let Err(error) = directory.entry(name, kind, found) {
            found.rows().push(Err(error));
        }
    }
    names.fetch_add(looked_at, Ordering::Relaxed);
    Ok(())
}

/// A branch's directory that is examined.
struct Directory<'s> {
    node: Arc<Node<'s>>,
    listing: Arc<Names>,
    is_root: bool,
    branch: usize,
}

/// What is wrong with an entry, the path that it is about, and what it means.
type Wrong = (Finding, Bytes, String);

/// What stands in a tree after a restore that was killed.
const INTERRUPTED: &str = "a restore was interrupted; what it was making can be removed";

impl<'s> Directory<'s> {
    fn grammar(&self) -> Grammar {
        self.node.stack().branches[self.branch].grammar
    }

    fn row(&self, name: &[u8], (finding, path, means): Wrong) -> Row {
        Row {
            target: Label::default(),
            engine: None,
            finding,
            branch: Some(self.branch),
            path,
            entry: self.node.path_of(name),
            means,
            users: Vec::new(),
        }
    }

    fn entry(
        &self,
        name: &[u8],
        kind: Kind,
        found: &mut Found<'_, InBranch<'s>, Vec<Result<Row>>>,
    ) -> Result<()> {
        let (mark, seen) = self.node.look(self.branch, name)?;
        let wrong = match mark {
            Some(mark) => self.of_mark(mark, (name, seen), kind)?,
            None => self.of_name((name, seen), kind, found)?,
        };
        found
            .rows()
            .extend(wrong.map(|wrong| Ok(self.row(name, wrong))));
        Ok(())
    }

    /// What is wrong with a mark.
    fn of_mark(
        &self,
        mark: Mark<'_>,
        (name, seen): (&[u8], Option<Seen>),
        kind: Kind,
    ) -> Result<Option<Wrong>> {
        let (node, grammar) = (&self.node, self.grammar());
        let marked = match mark {
            Mark::Whiteout(hidden) => node.path_of(hidden),
            Mark::Opaque => node.path(),
        };
        if !grammar.honours_marks() {
            let permission = &node.stack().branches[self.branch].permission;
            let means = format!("marks do not count in a {permission} branch");
            return Ok(Some((Finding::NoEffect, marked, means)));
        }
        if mark == Mark::Opaque && self.is_root {
            let means = "an opaque mark in a branch's root is ignored".to_owned();
            return Ok(Some((Finding::NoEffect, marked, means)));
        }
        if kind != Kind::File && grammar.wants_regular_marks() {
            let what = match mark {
                Mark::Whiteout(_) => "the name answers EIO",
                Mark::Opaque => "the directory answers EIO",
            };
            let means = format!("the mark is a {}, not a regular file: {what}", kind.word());
            return Ok(Some((Finding::BadMark, marked, means)));
        }
        match mark {
            Mark::Whiteout(hidden) if hidden != name && self.listing.kind(hidden).is_some() => {
                let answer = match node.child(hidden)? {
                    Entry::Broken { errno, .. } => {
                        format!("the name answers {}", errno_name(errno))
                    }
                    _ => "the whiteout wins".to_owned(),
                };
                let means = format!("the branch has both the name and its whiteout: {answer}");
                Ok(Some((Finding::BesideWhiteout, marked, means)))
            }
            Mark::Whiteout(hidden) => {
                let kind = MarkKind::Whiteout;
                let without = node.child_without_mark(hidden, self.branch, kind, seen)?;
                // Of what was not read nobody knows whether it has the name.
                let is_stale =
                    without.provider().is_none() && !node.stack().lost_below(self.branch);
                let means = || "nothing would show without it".to_owned();
                Ok(is_stale.then(|| (Finding::StaleWhiteout, marked, means())))
            }
            Mark::Opaque => {
                let names = coming_back(node, self.branch)?;
                let comes_back = || (Finding::ComesBack, marked, comes_back_words(&names));
                Ok((!names.is_empty()).then(comes_back))
            }
        }
    }

    /// What is wrong with a name that is no mark.
    fn of_name(
        &self,
        (name, seen): (&[u8], Option<Seen>),
        kind: Kind,
        found: &mut Found<'_, InBranch<'s>, Vec<Result<Row>>>,
    ) -> Result<Option<Wrong>> {
        let (node, grammar) = (&self.node, self.grammar());
        let staged = name.strip_prefix(STAGING);
        if staged.is_some_and(|rest| rest.starts_with(b"layerctl-")) {
            let means = INTERRUPTED.to_owned();
            return Ok(Some((Finding::Leftover, node.path_of(name), means)));
        }
        if grammar.hides_entry(name) {
            return Ok(None);
        }
        if name.starts_with(b".layerctl-") {
            let means = INTERRUPTED.to_owned();
            return Ok(Some((Finding::Leftover, node.path_of(name), means)));
        }
        if kind == Kind::File
            && node.stack().merger().refuses_what_is_broken()
            && let Entry::Broken { why, .. } = node.child_seen(name, self.branch, seen)?
        {
            let refused = refused_by(node, name, why, self.branch);
            found.rows().extend(refused.map(Ok));
            return Ok(None);
        }
        let is_too_long = grammar.refuses(name) == Some(Errno::NAMETOOLONG);
        if is_too_long {
            let means = format!(
                "{} bytes; the union lists it and answers ENAMETOOLONG",
                name.len()
            );
            let wrong = (Finding::NameTooLong, node.path_of(name), means);
            found.rows().push(Ok(self.row(name, wrong)));
        }
        if kind == Kind::Directory {
            found.directory(InBranch::Name(Arc::clone(node), name.to_vec()));
        }
        Ok(None)
    }
}

/// What an opaque directory shows of lower branches after all, because a lower opaque directory
/// of the same name is merged at the next mount (docs/facts.md#aufs-3.4b: the lowest opaque one counts).
fn coming_back(node: &Node<'_>, branch: usize) -> Result<Vec<Vec<u8>>> {
    if node.branches().all(|of| of == branch) {
        return Ok(Vec::new());
    }
    let mut names = Vec::new();
    for Listed { name, .. } in node.names()?.iter() {
        let provider = node.child(name)?.provider();
        if provider.is_some_and(|provider| provider != branch) {
            names.push(name.to_vec());
        }
    }
    Ok(names)
}

fn comes_back_words(names: &[Vec<u8>]) -> String {
    let shown: Vec<String> = names
        .iter()
        .take(3)
        .map(|name| crate::bytes::escape(name).into_owned())
        .collect();
    let more = match names.len().saturating_sub(shown.len()) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!(
        "a lower layer's directory is opaque, too, and is merged at the next mount: {}{more} will be there",
        shown.join(", ")
    )
}

/// What AUFS keeps for a mounted union and has left behind.
pub(super) fn leftovers(stack: &Stack, branch: usize) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let Ok(root) = &stack.branches[branch].dir else {
        return Ok(rows);
    };
    for (directory, means) in [
        (
            &b".wh..wh.plnk"[..],
            "a copied-up hard link; its other names show their old content at the next mount",
        ),
        (
            &b".wh..wh.orph"[..],
            "a file that was open when it was deleted",
        ),
    ] {
        let at = Bytes::from("/").join(directory);
        let fail = |errno| Error::io(stack.on_host(branch, &at), errno);
        if root.stat(directory).map_err(fail)?.map(|stat| stat.kind) != Some(Kind::Directory) {
            continue;
        }
        let names = root
            .child(directory, Access::List)
            .and_then(|dir| dir.names())
            .map_err(fail)?;
        rows.extend(names.iter().map(|(name, _)| Row {
            target: Label::default(),
            engine: None,
            finding: Finding::Leftover,
            branch: Some(branch),
            path: at.join(name),
            entry: at.join(name),
            means: means.into(),
            users: Vec::new(),
        }));
    }
    Ok(rows)
}
