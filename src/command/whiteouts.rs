//! `whiteouts [TARGET[:PATH]...]`: every mark, where it is and what it hides.

use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use serde::Serialize;

use crate::bytes::Bytes;
use crate::command::glob::Glob;
use crate::command::{
    Batch, Context, Group, Help, Label, Labelled, Outcome, Shape, Stream, Verb, Version, Which,
    union_column,
};
use crate::dir::{Dir, Kind};
use crate::error::{Error, Result};
use crate::render::Look;
use crate::render::column::{Column, column};
use crate::target::Target;
use crate::union::{Entry, Node, Stack};
use crate::walk::{Above, Found, InBranch, Rest, Rows, walk_all};
use crate::whiteout::{Mark, MarkKind, Seen};

/// List whiteouts and opaque marks, and what they hide
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A union, or a path of it below which is looked; without it every container of the host
    #[arg(value_name = "TARGET[:PATH]")]
    targets: Vec<OsString>,
    #[command(flatten)]
    which: Which,
    /// Only paths that match (names, if it has no slash); ** crosses slashes
    #[arg(long, value_name = "PATTERN")]
    glob: Option<OsString>,
    /// Look at read-only branches, too
    #[arg(long)]
    all_layers: bool,
    /// Only marks that hide something
    #[arg(long)]
    recoverable: bool,
}

/// One mark.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct Row {
    /// The union, as a TARGET.
    pub target: Label,
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

impl Verb for Args {
    const HELP: Help = Help {
        group: Group::Look,
        examples: &[
            "layerctl whiteouts",
            "layerctl whiteouts web --glob '*.conf' --recoverable",
            "layerctl whiteouts nginx:latest --all-layers",
        ],
        exit: "0 listed, be there none; 2 something could not be read",
    };

    type Answer = Stream<Row>;

    fn run(self, context: &mut Context<'_>) -> Result<Outcome<Stream<Row>>> {
        let glob = self.glob.as_ref();
        let glob = glob.map(|glob| Glob::new(glob.as_bytes())).transpose()?;
        let subjects: Vec<Subject> = asked(context, &self)?
            .into_iter()
            .map(|((label, mut target), branches)| Subject {
                stack: context.open_part(&mut target),
                label,
                target,
                branches,
            })
            .collect();
        let only_recoverable = self.recoverable;
        Outcome::yes(Stream::new(Shape::Columns, move |how, give| {
            let is_wanted = |row: &Row| {
                glob.as_ref().is_none_or(|glob| glob.matches(&row.path))
                    && (!only_recoverable || row.hides.is_some())
            };
            let branches = subjects.iter().flat_map(|subject| {
                let branches = subject.branches.iter();
                branches.map(move |branch| (subject, *branch))
            });
            let _ = { branches }.try_for_each(|(subject, branch)| {
                let row = |found: Result<FoundMark<'_>>, batch: &mut Batch<Row>| {
                    if found
                        .as_ref()
                        .is_ok_and(|found| !subject.is_asked_for(found))
                    {
                        return;
                    }
                    match found.and_then(|found| subject.row(found)) {
                        Ok(row) if is_wanted(&row) => {
                            batch.keep(how.keep, row);
                        }
                        Ok(_) => {}
                        Err(error) => batch.problems.push(subject.label.of(error)),
                    }
                };
                let part = (branch, &subject.target.inside);
                marks(&subject.stack, part, how.threads, &row, &mut *give)
            });
        }))
    }
}

/// The unions, and the branches of each in which marks are looked for.
fn asked(context: &mut Context<'_>, typed: &Args) -> Result<Vec<(Labelled, Vec<usize>)>> {
    if typed.all_layers {
        let targets = context.targets(&typed.targets, typed.which)?.into_iter();
        let all = targets.map(|of| {
            let branches = (0..of.1.union.branches.len()).collect();
            (of, branches)
        });
        return Ok(all.collect());
    }
    let subjects = context.subjects(&typed.targets, typed.which)?;
    let subjects = subjects.into_iter();
    let one = subjects.map(|(label, target, branch)| ((label, target), vec![branch]));
    Ok(one.collect())
}

/// A union, and the branches whose marks are asked for.
struct Subject {
    label: Label,
    target: Target,
    stack: Stack,
    branches: Vec<usize>,
}

impl Subject {
    /// Whether a mark is in the part that is asked about, or hides it with all on the way.
    fn is_asked_for(&self, found: &FoundMark<'_>) -> bool {
        self.target.has(&found.path) || self.target.is_below(&found.path)
    }

    fn row(&self, found: FoundMark<'_>) -> Result<Row> {
        let union = &self.target.union;
        let hides = found.hides()?;
        let hides = hides.map(|(branch, stat)| Version::new(union, branch, &stat));
        Ok(Row {
            target: self.label.clone(),
            mark: match found.kind {
                MarkKind::Whiteout => found.parent.path_of(&found.mark),
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
    parent: Arc<Node<'s>>,
    name: Vec<u8>,
    /// What the branch's own directory says of the name, where it was asked.
    seen: Option<Seen>,
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
        let without =
            self.parent
                .child_without_mark(&self.name, self.branch, self.kind, self.seen)?;
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
        let Some(branch) = from else { return Ok(None) };
        let stat = match &without {
            Entry::Dir(node) => node.dir(branch).map(Dir::stat_self).transpose(),
            entry if entry.stat().is_some() => Ok(entry.stat()),
            _ => match self.parent.dir(branch) {
                Some(dir) => dir.stat(&self.name),
                None => Ok(None),
            },
        };
        match stat {
            Ok(stat) => Ok(stat.map(|stat| (branch, stat))),
            Err(errno) => Err(Error::io(self.parent.on_host(branch, &self.name), errno)),
        }
    }
}

/// Every mark in one branch inside of a path and on the way there, in the order of the branch's names,
/// with so many threads: `row` is told of each, and of what cannot be read, in its place. What it
/// puts into the rows is given in order.
pub fn marks<'s, B: Rows>(
    stack: &'s Stack,
    (branch, inside): (usize, &Bytes),
    threads: NonZeroUsize,
    row: &(impl Fn(Result<FoundMark<'_>>, &mut B) + Sync),
    give: impl FnMut(B) -> ControlFlow<()>,
) -> ControlFlow<()> {
    let visit = |place: Place<'s>, found: &mut Found<'_, Place<'s>, B>| {
        let visited = match place {
            Place::Entry(entry) => entry.open(
                stack,
                branch,
                |node, above| in_directory(node, above, (branch, inside), row, found),
                |_, _, _| {},
            ),
            Place::Rest(rest) => {
                let visit = |directory: &Directory<'s>, name: Vec<u8>, kind, found: &mut _| {
                    directory.entry(&name, kind, row, found);
                };
                found.each_of_rest(rest, visit, Place::Rest);
                Ok(())
            }
        };
        if let Err(error) = visited {
            row(Err(error), found.rows());
        }
    };
    walk_all(threads, Place::Entry(InBranch::Root), &visit, give)
}

enum Place<'s> {
    Entry(InBranch<'s>),
    Rest(Box<Rest<Directory<'s>, Kind>>),
}

/// A directory of the branch.
struct Directory<'s> {
    node: Arc<Node<'s>>,
    above: Above<'s>,
    branch: usize,
}

fn in_directory<'s, B: Rows>(
    node: Node<'s>,
    above: Above<'s>,
    (branch, inside): (usize, &Bytes),
    row: &impl Fn(Result<FoundMark<'_>>, &mut B),
    found: &mut Found<'_, Place<'s>, B>,
) -> Result<()> {
    let grammar = node.stack().branches[branch].grammar;
    let Some(listing) = node.listing(branch)? else {
        return Ok(());
    };
    let directory = Directory {
        node: Arc::new(node),
        above,
        branch,
    };
    if grammar.opaque_name().is_none() {
        match directory.node.is_opaque(branch) {
            Ok(true) => row(Ok(directory.opaque(b"")), found.rows()),
            Ok(false) => {}
            Err(error) => row(Err(error), found.rows()),
        }
    }
    let only = directory.node.step_to(inside);
    let could_tell = |&(name, kind): &(&[u8], Kind)| {
        (kind == Kind::Directory || grammar.could_be_mark(name, kind))
            && only.is_none_or(|only| grammar.concerns(name, only))
    };
    let mut entries = listing.iter().filter(could_tell);
    found.each(&mut entries, |(name, kind), found| {
        directory.entry(name, kind, row, found);
    });
    let rest = entries.map(|(name, kind)| (name.to_vec(), kind));
    found.rest(directory, rest, Place::Rest);
    Ok(())
}

impl<'s> Directory<'s> {
    fn opaque(&self, mark: &[u8]) -> FoundMark<'s> {
        let above = self.above.clone();
        let (parent, name) = above.unwrap_or((Arc::clone(&self.node), Vec::new()));
        FoundMark {
            path: self.node.path(),
            kind: MarkKind::Opaque,
            branch: self.branch,
            mark: mark.to_vec(),
            parent,
            name,
            seen: None,
        }
    }

    fn entry<B: Rows>(
        &self,
        name: &[u8],
        kind: Kind,
        row: &impl Fn(Result<FoundMark<'_>>, &mut B),
        found: &mut Found<'_, Place<'s>, B>,
    ) {
        let (node, branch) = (&self.node, self.branch);
        let grammar = node.stack().branches[branch].grammar;
        let mark = if grammar.could_be_mark(name, kind) {
            node.look(branch, name)
        } else {
            Ok((None, None))
        };
        let mark = match mark {
            Err(error) => Err(error),
            Ok((Some(Mark::Whiteout(hidden)), seen)) => Ok(FoundMark {
                path: node.path_of(hidden),
                kind: MarkKind::Whiteout,
                branch,
                mark: name.to_vec(),
                parent: Arc::clone(node),
                name: hidden.to_vec(),
                seen,
            }),
            Ok((Some(Mark::Opaque), _)) => Ok(self.opaque(name)),
            Ok((None, _)) => {
                if kind == Kind::Directory && !grammar.hides_entry(name) {
                    let entry = InBranch::Name(Arc::clone(node), name.to_vec());
                    found.directory(Place::Entry(entry));
                }
                return;
            }
        };
        row(mark, found.rows());
    }
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
            column("BRANCH", |row: &Row, _, cell| cell.show(row.branch)),
            column("KIND", |row, _, cell| cell.word(row.kind.word())),
            column("HIDES", |row, _, cell| {
                cell.word(match &row.hides {
                    Some(version) => version.kind.word(),
                    None if row.unknown => "not known",
                    None => "nothing (stale)",
                });
            }),
            column("SIZE", |row, look, cell| {
                let size = row.hides.as_ref().map(|version| version.size_words(look));
                cell.word(&size.unwrap_or_default());
            }),
            column("FROM", |row, look, cell| {
                let layer = row.hides.as_ref().map(|version| version.layer_words(look));
                cell.text(&layer.unwrap_or_default());
            }),
            column("PATH", |row, _, cell| cell.show(&row.path)),
        ]
    }
}
