//! `check [TARGET]`: what is wrong or surprising in the marks of a union.

use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::sync::Arc;

use rustix::io::Errno;
use serde::Serialize;

use crate::bytes::Bytes;
use crate::command::{Context, Findings, Group, Help, Label, Outcome, Verb, Which, union_column};
use crate::dir::{Access, Kind, Names};
use crate::engine;
use crate::engine::usage::{FaultKind, LeftoverKind};
use crate::error::{Error, Result, errno_name};
use crate::render::Look;
use crate::render::column::{Column, column};
use crate::restore::staging::STAGING;
use crate::union::{Entry, Listed, Node, Stack, Why};
use crate::walk::{Found, InBranch, walk_all};
use crate::whiteout::{Grammar, Mark, MarkKind, OPAQUE};

/// Look for what is wrong or surprising: in marks, and without TARGET in stores
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Without it every container of the host, and the engines' stores
    target: Option<OsString>,
    #[command(flatten)]
    which: Which,
}

/// One finding.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct Row {
    /// The union, as a TARGET; none where it is a store's.
    #[serde(skip_serializing_if = "Label::is_none")]
    pub target: Label,
    /// The engine whose store it is in, where it is no union's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub engine: Option<&'static str>,
    pub finding: Finding,
    /// Index of the branch, 0 is topmost; none in a store.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub branch: Option<usize>,
    /// What it is about, as a path of the union, or of the host in a store.
    pub path: Bytes,
    /// The entry on disk, as a path of the branch, or of the host in a store.
    pub entry: Bytes,
    /// What it means.
    pub means: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Finding {
    /// A whiteout that hides nothing.
    StaleWhiteout,
    /// A name beside its own whiteout.
    BesideWhiteout,
    /// A mark that is not a regular file.
    BadMark,
    /// A name that the union cannot have.
    NameTooLong,
    /// A mark that means nothing where it is.
    NoEffect,
    /// Deleted content that the next mount shows again.
    ComesBack,
    /// What AUFS left in its own directories.
    Leftover,
    /// A store's list of layers, or a layer's short name, that is empty or missing.
    BadList,
    /// A short name of a layer without its link, or with one that leads nowhere.
    LostLink,
    /// A record of what is gone.
    LostRecord,
    /// A layer that its engine has not finished.
    Incomplete,
    /// A mount of a layer that nothing runs on.
    StaleMount,
    /// Files in a directory that a union would cover.
    BeneathMount,
}

impl Finding {
    pub fn word(self) -> &'static str {
        match self {
            Finding::StaleWhiteout => "stale whiteout",
            Finding::BesideWhiteout => "beside whiteout",
            Finding::BadMark => "bad mark",
            Finding::NameTooLong => "name too long",
            Finding::NoEffect => "no effect",
            Finding::ComesBack => "comes back",
            Finding::Leftover => "leftover",
            Finding::BadList => "bad list",
            Finding::LostLink => "lost link",
            Finding::LostRecord => "lost record",
            Finding::Incomplete => "incomplete",
            Finding::StaleMount => "stale mount",
            Finding::BeneathMount => "beneath mount",
        }
    }
}

impl Verb for Args {
    const HELP: Help = Help {
        group: Group::Repair,
        examples: &[
            "layerctl check",
            "layerctl check web",
            "layerctl --root /mnt/disk check",
        ],
        exit: "0 nothing found; 1 something found; 2 could not tell",
    };

    type Answer = Findings<Row>;

    fn run(self, context: &mut Context<'_>) -> Result<Outcome<Findings<Row>>> {
        let mut rows = Vec::new();
        let targets = context.targets(self.target.as_deref(), self.which);
        let targets = match targets {
            // There are stores to look at.
            Err(Error::NothingMounted) if context.survey.engines_here().next().is_some() => {
                Vec::new()
            }
            targets => targets?,
        };
        if self.target.is_none() {
            rows.extend(in_stores(context));
        }
        for (label, target) in targets {
            let stack = context.open(&target);
            let in_use = context.survey.host.is_live() && target.union.is_mounted();
            for branch in 0..stack.branches.len() {
                findings(
                    &stack,
                    branch,
                    context.threads.count(),
                    |found| match found {
                        Ok(row) => rows.push(Row {
                            target: label.clone(),
                            ..row
                        }),
                        Err(error) => context.problems.push(error),
                    },
                );
                // While it is mounted, AUFS is still using them. To overlay they are files like others.
                let is_aufs = stack.overlay_rules().is_none();
                if !in_use && is_aufs {
                    match leftovers(&stack, branch) {
                        Ok(found) => rows.extend(found.into_iter().map(|row| Row {
                            target: label.clone(),
                            ..row
                        })),
                        Err(error) => context.problems.push(error),
                    }
                }
            }
        }
        context.problems.extend(context.survey.take_vanished());
        let is_whole = context.problems.is_empty();
        Ok(Outcome {
            is_yes: rows.is_empty(),
            answer: Findings { rows, is_whole },
        })
    }
}

/// What engines stumble over in their stores.
fn in_stores(context: &mut Context<'_>) -> Vec<Row> {
    let row = |engine, finding, path: Bytes, means| Row {
        target: Label::default(),
        engine: Some(engine),
        finding,
        branch: None,
        entry: path.clone(),
        path,
        means,
    };
    let mut rows = Vec::new();
    for engine in context.survey.engines_here() {
        match engine.faults() {
            Ok(found) => rows.extend(found.into_iter().map(|of| {
                let finding = match of.kind {
                    FaultKind::List => Finding::BadList,
                    FaultKind::Link => Finding::LostLink,
                    FaultKind::Incomplete => Finding::Incomplete,
                };
                row(engine.name(), finding, of.path, of.means)
            })),
            Err(error) => context.problems.push(error),
        }
    }
    for (engine, path) in beneath_mounts(context) {
        let means = format!(
            "nothing is mounted here, and there are files: \"replacing mount point \\\"{path}\\\": directory not empty\""
        );
        rows.push(row(engine, Finding::BeneathMount, path, means));
    }
    let orphaned = engine::orphaned(&mut context.survey);
    rows.extend(orphaned.found.into_iter().filter_map(|(engine, of)| {
        let finding = match of.kind {
            LeftoverKind::Metadata => Finding::LostRecord,
            LeftoverKind::Mount => Finding::StaleMount,
            // What is nobody's harms nobody: that is for `orphans`.
            _ => return None,
        };
        Some(row(engine, finding, of.path, of.why))
    }));
    context.problems.extend(orphaned.problems);
    rows
}

/// The mount points in stores that have files of their own.
fn beneath_mounts(context: &Context<'_>) -> Vec<(&'static str, Bytes)> {
    let host = context.survey.host;
    let mut found = Vec::new();
    for engine in context.survey.engines_here() {
        // What cannot be read is told by whoever needs it.
        for of in engine.layer_uses().unwrap_or_default() {
            let point = of.directory.parent().join(b"merged");
            let inside = point.strip_prefix(engine.root());
            let mut mounts = context
                .survey
                .mounted
                .iter()
                .flat_map(|union| &union.mounts);
            let is_shown = host.is_live() && mounts.any(|mount| mount.path == point);
            if inside.is_some_and(|inside| engine.is_merged(&inside))
                && !is_shown
                && host.list(&point).is_ok_and(|names| !names.is_empty())
            {
                found.push((engine.name(), point));
            }
        }
    }
    found
}

/// What is wrong in one branch, in the view of that branch and those below it.
fn findings<'s>(
    stack: &'s Stack,
    branch: usize,
    threads: NonZeroUsize,
    mut give: impl FnMut(Result<Row>),
) {
    let visit = |place: InBranch<'s>, found: &mut Found<'_, InBranch<'s>, Vec<Result<Row>>>| {
        let mut is_refused = None;
        let visited = place.open(
            stack,
            branch,
            |node, above| in_directory(node, above.is_none(), branch, found),
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
    })
}

fn in_directory<'s>(
    node: Node<'s>,
    is_root: bool,
    branch: usize,
    found: &mut Found<'_, InBranch<'s>, Vec<Result<Row>>>,
) -> Result<()> {
    let Some(listing) = node.listing(branch)? else {
        return Ok(());
    };
    let directory = Directory {
        node: Arc::new(node),
        listing,
        is_root,
        branch,
    };
    for (name, kind) in directory.listing.iter() {
        if let Err(error) = directory.entry(name, kind, found) {
            found.rows().push(Err(error));
        }
    }
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
        }
    }

    fn entry(
        &self,
        name: &[u8],
        kind: Kind,
        found: &mut Found<'_, InBranch<'s>, Vec<Result<Row>>>,
    ) -> Result<()> {
        let wrong = match self.node.mark(self.branch, name)? {
            Some(mark) => self.of_mark(mark, name, kind)?,
            None => self.of_name(name, kind, found)?,
        };
        found
            .rows()
            .extend(wrong.map(|wrong| Ok(self.row(name, wrong))));
        Ok(())
    }

    /// What is wrong with a mark.
    fn of_mark(&self, mark: Mark<'_>, name: &[u8], kind: Kind) -> Result<Option<Wrong>> {
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
                let without = node.child_without_mark(hidden, self.branch, MarkKind::Whiteout)?;
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
        name: &[u8],
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
            && node.stack().overlay_rules().is_some()
            && let Entry::Broken { why, .. } = node.child(name)?
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
/// of the same name is merged at the next mount (FACTS 3.4b: the lowest opaque one counts).
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
fn leftovers(stack: &Stack, branch: usize) -> Result<Vec<Row>> {
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
        }));
    }
    Ok(rows)
}

impl crate::command::Row for Row {
    fn words(&self, give: &mut dyn FnMut(&[u8])) {
        give(&self.target.word(&self.path));
    }

    fn label(&self) -> Option<&Label> {
        Some(&self.target)
    }

    fn columns(_look: Look) -> Vec<Column<Row>> {
        vec![
            union_column(),
            column("FINDING", |row: &Row, _, cell| {
                cell.word(row.finding.word())
            }),
            column("BRANCH", |row, _, cell| {
                if let Some(branch) = row.branch {
                    cell.show(branch);
                }
            }),
            column("PATH", |row, _, cell| cell.show(&row.path)),
            column("MEANS", |row, _, cell| cell.text(&row.means)),
        ]
    }
}
