//! What a branch makes of the view below it: the difference between the union without the
//! branch and the union with it.
//!
//! *Added* is what is only in the view with it; *deleted* what is only in the view without it
//! (where many vanish together, the topmost); *changed* what is in both and has an entry in the
//! branch. The order is that of `docker diff`, which walks the branch's own names: a deletion
//! sorts as the whiteout that it is, `.wh.NAME`.
//!
//! On overlay docker compares the two views, and so is *changed* there only what differs in mode,
//! owner, device, capability, or, but for directories, in size or time; and every directory that
//! something differs in (`docs/facts.md#engines-60`). In what two versions differ is decided in
//! `versions`.

mod names;
mod versions;
mod views;

use std::borrow::Cow;
use std::cell::Cell;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::sync::Arc;

use serde::Serialize;

use crate::bytes::{Bytes, Entries};
use crate::dir::{Kind, Names, Stat};
use crate::error::{Error, Result};
use crate::union::{Entry, Merger, Node, Reading, Stack};
use crate::walk::{Found, Heading, Rest, Rows, walk_all};
use names::{Named, names};
use versions::differ;
pub use versions::{Compared, Differing, Differs, Measure, differs, is_same_time};
pub use views::{Between, Criteria, Names as ListedNames, Version, between, listed_by};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    Added,
    Changed,
    Deleted,
}

impl Change {
    /// Docker's letter.
    pub fn letter(self) -> char {
        match self {
            Change::Added => 'A',
            Change::Changed => 'C',
            Change::Deleted => 'D',
        }
    }
}

/// One entry of a view: which branch provides it, and as what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Provided {
    /// The branch.
    pub branch: usize,
    /// What the entry is.
    pub kind: Kind,
}

/// One difference between the two views.
pub struct Difference<'d, 's> {
    /// What the branch did to the entry.
    pub change: Change,
    /// The entry in the view without the branch.
    pub before: Option<Provided>,
    /// The entry in the view with the branch.
    pub after: Option<Provided>,
    directory: &'d Directory<'s>,
    name: &'d [u8],
    /// The two, as the views were asked for them; none where a listing told enough.
    entries: [Option<&'d Entry<'s>>; 2],
    /// What the union says of the two by `lstat`, where it was asked.
    stats: [Cell<Option<Stat>>; 2],
    visit: Visit<'d>,
}

impl Difference<'_, '_> {
    /// Where it is in the union.
    pub fn path(&self) -> Bytes {
        match self.visit {
            Visit::InListing(paths) => paths.path(self.name),
            Visit::ByItself(path) => path.clone(),
        }
    }

    /// Gives the memory of [`Difference::path`] back, for the next one.
    pub fn give_back(&self, path: Bytes) {
        match self.visit {
            Visit::InListing(paths) => paths.give_back(path),
            Visit::ByItself(_) => path.give_back(),
        }
    }

    /// `lstat` of the entry in the view without the branch.
    ///
    /// # Errors
    /// What the system call says.
    pub fn stat_before(&self) -> Result<Option<Stat>> {
        let node = self.directory.before.as_deref();
        self.stat(0, node, self.before)
    }

    /// `lstat` of the entry in the view with the branch.
    ///
    /// # Errors
    /// What the system call says.
    pub fn stat_after(&self) -> Result<Option<Stat>> {
        self.stat(1, Some(&self.directory.after), self.after)
    }

    /// One of the two, which is asked once.
    fn stat(
        &self,
        side: usize,
        node: Option<&Node<'_>>,
        provided: Option<Provided>,
    ) -> Result<Option<Stat>> {
        let (Some(node), Some(provided)) = (node, provided) else {
            return Ok(None);
        };
        let known = &self.stats[side];
        if known.get().is_none() {
            let own = self.entries[side].and_then(Entry::stat);
            known.set(Some(node.stat_of(provided.branch, self.name, own)?));
        }
        Ok(known.get())
    }

    /// The two versions, where there are two: the directory and the branch that hold the one
    /// before, those of the one after, and the name in both.
    pub fn versions(&self) -> Option<(&Node<'_>, usize, &Node<'_>, usize, &[u8])> {
        let before = self.directory.before.as_ref()?;
        Some((
            before,
            self.before?.branch,
            &self.directory.after,
            self.after?.branch,
            self.name,
        ))
    }
}

/// A directory that is in the view with the branch, what was there without it, and what the
/// branch itself has there.
#[derive(Debug)]
struct Directory<'s> {
    after: Node<'s>,
    before: Option<Box<Node<'s>>>,
    own: Option<Arc<Names>>,
}

impl<'s> Directory<'s> {
    fn new(after: Node<'s>, before: Option<Node<'s>>, branch: usize) -> Result<Directory<'s>> {
        let own = after.listing(branch)?;
        let count = own.as_ref().map_or(0, |own| own.count());
        Ok(Directory {
            own,
            after,
            before: before.map(|before| Box::new(before.read_for(count))),
        })
    }

    fn has_own_directories(&self) -> bool {
        let mut own = self.own.iter();
        own.any(|own| own.has_directories())
    }

    fn own_kind(&self, name: &[u8]) -> Option<Kind> {
        self.own.as_ref()?.kind(name)
    }
}

/// What is still to be compared.
enum Comparand<'s> {
    /// The two views, from their roots on.
    Root,
    /// A name that may be a directory. It is opened only when it is compared: a wide directory
    /// would else hold all of its children open.
    Name(Arc<Directory<'s>>, Vec<u8>),
    /// The rest of a directory's names, each with the kind that the branch itself lists.
    Rest(Box<Rest<Arc<Directory<'s>>, Option<Kind>>>),
    /// A directory that was compared, whose row waits for a difference in it.
    Same(Box<Same<'s>>),
}

/// A directory that is changed if anything in it is.
struct Same<'s> {
    directory: Arc<Directory<'s>>,
    name: Vec<u8>,
    before: Provided,
    after: Provided,
}

/// What makes an entry of both views a changed one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Criterion {
    /// The branch has an entry of that name.
    InBranch,
    /// The two versions differ, or what is in the two directories does.
    Differs(Measure),
}

impl Criterion {
    /// What counts in the union itself. An entry of the branch is a change, unless the branch is a
    /// copy, which has everything.
    pub fn of_union(stack: &Stack) -> Criterion {
        let top = stack.branches.first();
        if top.is_none_or(|top| top.grammar.holds_changes_only()) {
            Criterion::InBranch
        } else {
            Criterion::Differs(Measure {
                attributes: Compared::All,
                content: false,
            })
        }
    }

    /// What counts for an engine's `diff`. It asks AUFS for the branch's entries, and compares
    /// everywhere else.
    pub fn of_engine(stack: &Stack, measure: Measure) -> Criterion {
        match stack.merger() {
            Merger::Aufs | Merger::Alone if stack.base.is_none() => Criterion::InBranch,
            Merger::Aufs | Merger::Alone | Merger::Overlay(_) => Criterion::Differs(measure),
        }
    }
}

/// Compares the union without `branch` to the union with it, as far as `inside` and the way there:
/// nothing else is opened.
///
/// `row` is told of each difference, and of what cannot be read, which does not end the
/// comparison. It is called by several threads at once; `give` gets what it put into rows in the
/// order of the names.
pub fn differences<'s, B: Rows>(
    stack: &'s Stack,
    branch: usize,
    (criterion, inside): (Criterion, &Bytes),
    threads: NonZeroUsize,
    row: &(impl Fn(Result<Difference<'_, '_>>, &mut B) + Sync),
    give: impl FnMut(B) -> ControlFlow<()>,
) -> ControlFlow<()> {
    let comparison = Comparison {
        branch,
        criterion,
        inside,
        row,
    };
    let visit = |comparand: Comparand<'s>, found: &mut Found<'_, Comparand<'s>, B>| {
        let compared = match comparand {
            Comparand::Root => {
                let path = Bytes::from("/");
                root(stack, branch).and_then(|root| comparison.directory(root, &path, found))
            }
            Comparand::Name(directory, name) => {
                let path = directory.after.path_into(&name, Bytes::spare());
                let visit = Visit::ByItself(&path);
                let compared = comparison.name(&directory, &name, visit, found);
                path.give_back();
                compared
            }
            Comparand::Rest(rest) => {
                let path = rest.directory.after.path();
                let paths = path.entries();
                let visit = |directory: &_, name: Vec<u8>, own, found: &mut _| {
                    let visit = Visit::InListing(&paths);
                    comparison.listed(directory, name.into(), own, visit, found);
                };
                found.each_of_rest(rest, visit, Comparand::Rest);
                Ok(())
            }
            Comparand::Same(same) => {
                let path = same.directory.after.path_of(&same.name);
                let difference = Difference {
                    change: Change::Changed,
                    before: Some(same.before),
                    after: Some(same.after),
                    directory: &same.directory,
                    name: &same.name,
                    entries: [None; 2],
                    stats: Default::default(),
                    visit: Visit::ByItself(&path),
                };
                row(Ok(difference), found.rows());
                Ok(())
            }
        };
        if let Err(error) = compared {
            row(Err(error), found.rows());
        }
    };
    walk_all(threads, Comparand::Root, &visit, give)
}

fn root(stack: &Stack, branch: usize) -> Result<Directory<'_>> {
    let after = stack.whole(Reading::Branch(branch));
    Directory::new(after, Some(stack.without(branch)), branch)
}

/// How a name comes to be compared, which decides where its path is kept and what happens to a
/// directory.
#[derive(Clone, Copy)]
enum Visit<'v> {
    /// While its directory is listed. The paths of that directory's entries share one piece of
    /// memory. A name that turns out to be a directory is left to a visit by itself.
    InListing(&'v Entries<'v>),
    /// By itself, with its path. A directory is compared with all that is in it.
    ByItself(&'v Bytes),
}

/// The longest path, in bytes, that waits with the row of a directory that may not have changed. A
/// longer one is made anew when the row is wanted: of a deep tree every level waits, and their
/// paths would take memory by the square of the depth.
const LONG: usize = 4096;

/// One comparison of two views.
struct Comparison<'r, V> {
    branch: usize,
    criterion: Criterion,
    /// What is compared, and the way there.
    inside: &'r Bytes,
    row: &'r V,
}

impl<V> Comparison<'_, V> {
    /// Compares what is in a directory. What may be a directory itself waits for a visit of its own.
    fn directory<'s, B: Rows>(
        &self,
        directory: Directory<'s>,
        path: &Bytes,
        found: &mut Found<'_, Comparand<'s>, B>,
    ) -> Result<()>
    where
        V: Fn(Result<Difference<'_, '_>>, &mut B),
    {
        let is_own = directory.after.only_listing() == Some(self.branch);
        if is_own && directory.before.is_none() && !directory.has_own_directories() {
            self.added(&directory, path, found);
            return Ok(());
        }
        let directory = Arc::new(directory);
        let paths = path.entries();
        let visit = Visit::InListing(&paths);
        let only = self.inside.step_from(path);
        let mut names = names(&directory, self.branch, only)?.into_iter();
        found.each(&mut names, |Named { name, own, .. }, found| {
            self.listed(&directory, name, own, visit, found);
        });
        let rest = names.map(|of| (of.name.into_owned(), of.own));
        found.rest(Arc::clone(&directory), rest, Comparand::Rest);
        Ok(())
    }

    /// Compares a name of a directory that is listed, unless that may be a directory itself.
    #[inline]
    fn listed<'s, B: Rows>(
        &self,
        directory: &Arc<Directory<'s>>,
        name: Cow<'_, [u8]>,
        own: Option<Kind>,
        visit: Visit<'_>,
        found: &mut Found<'_, Comparand<'s>, B>,
    ) where
        V: Fn(Result<Difference<'_, '_>>, &mut B),
    {
        match own {
            Some(kind) if kind != Kind::Directory => {
                if let Err(error) = self.name(directory, &name, visit, found) {
                    (self.row)(Err(error), found.rows());
                }
            }
            _ => found.directory(Comparand::Name(Arc::clone(directory), name.into_owned())),
        }
    }

    /// Everything in a directory was added that is the branch's alone and has no other in it. What
    /// the branch deletes there was not there.
    fn added<'s, B: Rows>(
        &self,
        directory: &Directory<'s>,
        path: &Bytes,
        found: &mut Found<'_, Comparand<'s>, B>,
    ) where
        V: Fn(Result<Difference<'_, '_>>, &mut B),
    {
        let grammar = directory.after.stack().branches[self.branch].grammar;
        let paths = path.entries();
        let only = self.inside.step_from(path);
        for (name, kind) in directory.own.iter().flat_map(|own| own.iter()) {
            if only.is_some_and(|only| *only != *name) {
                continue;
            }
            // A name beside its own whiteout is refused.
            if grammar.hides_entry(name) || directory.after.as_listed(name, kind).is_none() {
                continue;
            }
            let difference = Difference {
                change: Change::Added,
                before: None,
                after: Some(Provided {
                    branch: self.branch,
                    kind,
                }),
                directory,
                name,
                entries: [None; 2],
                stats: Default::default(),
                visit: Visit::InListing(&paths),
            };
            (self.row)(Ok(difference), found.rows());
        }
    }

    /// Compares one name, and on a visit by itself what is below it.
    fn name<'s, B: Rows>(
        &self,
        directory: &Arc<Directory<'s>>,
        name: &[u8],
        visit: Visit<'_>,
        found: &mut Found<'_, Comparand<'s>, B>,
    ) -> Result<()>
    where
        V: Fn(Result<Difference<'_, '_>>, &mut B),
    {
        let child = |node: &Node<'s>| match visit {
            Visit::InListing(_) => node.child(name),
            Visit::ByItself(_) => node.child_directory(name),
        };
        let after = child(&directory.after)?;
        if let (Entry::Dir(_), Visit::InListing(_)) = (&after, visit) {
            found.directory(Comparand::Name(Arc::clone(directory), name.to_vec()));
            return Ok(());
        }
        let before = match &directory.before {
            Some(node) => child(node)?,
            None => Entry::Missing,
        };
        self.check_shown(directory, name, [&after, &before])?;
        if let Some(change) = self.change(&before, &after) {
            let difference = Difference {
                change,
                before: provided(&before),
                after: provided(&after),
                directory,
                name,
                entries: [Some(&before), Some(&after)],
                stats: Default::default(),
                visit,
            };
            if !self.is_same(&difference)? {
                (self.row)(Ok(difference), found.rows());
            } else if let Entry::Dir(_) = &after {
                self.heading(directory, difference, found);
            }
        }
        if let (Entry::Dir(after), Visit::ByItself(path)) = (after, visit) {
            let before = match before {
                Entry::Dir(node) => Some(node),
                _ => None,
            };
            self.directory(Directory::new(after, before, self.branch)?, path, found)?;
        }
        Ok(())
    }

    /// What an overlay refuses is neither there nor deleted.
    ///
    /// # Errors
    /// The union's own answer to such a name.
    fn check_shown(
        &self,
        directory: &Directory<'_>,
        name: &[u8],
        entries: [&Entry<'_>; 2],
    ) -> Result<()> {
        if directory.after.stack().merger().refuses_what_is_broken() {
            for entry in entries {
                if let Entry::Broken { errno, .. } = entry {
                    let path = directory.after.on_host(self.branch, name);
                    return Err(Error::io(path, *errno));
                }
            }
        }
        Ok(())
    }

    /// What the branch did to an entry, as far as who provides it tells.
    fn change(&self, before: &Entry<'_>, after: &Entry<'_>) -> Option<Change> {
        match (provided(before), provided(after)) {
            (None, None) => None,
            (None, Some(_)) => Some(Change::Added),
            (Some(_), None) => Some(Change::Deleted),
            (Some(_), Some(_)) => {
                // A branch that is not on top may hold what the view does not show.
                let has_own = || match after {
                    Entry::Dir(node) => node.branches().any(|of| of == self.branch),
                    entry => entry.provider() == Some(self.branch),
                };
                // Two versions from below differ where a directory was moved into another one's
                // place.
                let is_candidate = self.criterion != Criterion::InBranch || has_own();
                is_candidate.then_some(Change::Changed)
            }
        }
    }

    /// Whether an entry that may have changed is the same in both views. A directory may still
    /// differ in what is in it.
    fn is_same(&self, difference: &Difference<'_, '_>) -> Result<bool> {
        match (difference.change, self.criterion) {
            (Change::Changed, Criterion::Differs(measure)) => Ok(!differ(difference, measure)?),
            _ => Ok(false),
        }
    }

    /// Leaves the row of a directory that is changed only if something in it is.
    fn heading<'s, B: Rows>(
        &self,
        directory: &Arc<Directory<'s>>,
        difference: Difference<'_, 's>,
        found: &mut Found<'_, Comparand<'s>, B>,
    ) where
        V: Fn(Result<Difference<'_, '_>>, &mut B),
    {
        let both = difference.before.zip(difference.after);
        found.heading(match (difference.visit, both) {
            (Visit::ByItself(path), Some((before, after))) if path.as_bytes().len() > LONG => {
                Heading::Directory(Comparand::Same(Box::new(Same {
                    directory: Arc::clone(directory),
                    name: difference.name.to_vec(),
                    before,
                    after,
                })))
            }
            _ => {
                let mut rows = B::default();
                (self.row)(Ok(difference), &mut rows);
                Heading::Rows(rows)
            }
        });
    }
}

fn provided(entry: &Entry<'_>) -> Option<Provided> {
    Some(Provided {
        branch: entry.provider()?,
        kind: entry.kind()?,
    })
}
