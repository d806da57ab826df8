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
//! something differs in (FACTS-engines 60).

use std::borrow::Cow;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::sync::Arc;

use serde::Serialize;

use crate::bytes::{Bytes, Entries};
use crate::dir::{Kind, Names, Stat};
use crate::error::{Error, Result};
use crate::union::{Entry, Listed, Node, Reading, Stack};
use crate::walk::{Found, Heading, Rest, Rows, walk_all};
use crate::whiteout::{Grammar, Mark};

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
    pub branch: usize,
    pub kind: Kind,
}

/// One difference between the two views.
pub struct Difference<'d, 's> {
    pub change: Change,
    pub before: Option<Provided>,
    pub after: Option<Provided>,
    directory: &'d Directory<'s>,
    name: &'d [u8],
    turn: Turn<'d>,
}

impl Difference<'_, '_> {
    /// Where it is in the union.
    pub fn path(&self) -> Bytes {
        match self.turn {
            Turn::Directory(paths) => paths.path(self.name),
            Turn::Name(path) => path.clone(),
        }
    }

    /// Gives the memory of its path back.
    pub fn give_back(&self, path: Bytes) {
        match self.turn {
            Turn::Directory(paths) => paths.give_back(path),
            Turn::Name(_) => path.give_back(),
        }
    }

    /// `lstat` of the entry in the view without the branch.
    ///
    /// # Errors
    /// What the system call says.
    pub fn stat_before(&self) -> Result<Option<Stat>> {
        stat(self.directory.before.as_deref(), self.name, self.before)
    }

    /// `lstat` of the entry in the view with the branch.
    ///
    /// # Errors
    /// What the system call says.
    pub fn stat_after(&self) -> Result<Option<Stat>> {
        stat(Some(&self.directory.after), self.name, self.after)
    }

    /// The directories that hold the two versions, and the name in them.
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

fn stat(node: Option<&Node<'_>>, name: &[u8], provided: Option<Provided>) -> Result<Option<Stat>> {
    match (node, provided) {
        (Some(node), Some(provided)) => node.stat(provided.branch, name).map(Some),
        _ => Ok(None),
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
        let count = own.as_ref().map_or(0, |own| own.len());
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

/// A place of the two views.
enum Place<'s> {
    Root,
    /// A name that may be a directory. It is opened only when its turn comes, so that a wide
    /// directory does not hold all of its children open.
    Name(Arc<Directory<'s>>, Vec<u8>),
    /// Names that may differ, with what the branch itself lists.
    Rest(Box<Rest<Arc<Directory<'s>>, Option<Kind>>>),
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
pub enum Changed {
    /// The branch has it.
    InBranch,
    /// The two versions differ, or what is in the two directories does.
    Differs,
}

impl Changed {
    /// To the union itself: a copy has everything, changed or not.
    pub fn of_union(stack: &Stack) -> Changed {
        match stack.branches.first() {
            Some(first) if first.grammar == Grammar::Plain => Changed::Differs,
            _ => Changed::InBranch,
        }
    }

    /// To `docker diff`: on overlay what differs.
    pub fn of_docker(stack: &Stack) -> Changed {
        let is_aufs = stack.overlay_rules().is_none() && stack.base.is_none();
        if is_aufs {
            Changed::InBranch
        } else {
            Changed::Differs
        }
    }
}

/// Compares the union without `branch` to the union with it, with so many threads: `row` is told
/// of each difference, and of what cannot be read, in its place. The rest goes on. What it puts
/// into the rows is given in order.
pub fn differences<'s, B: Rows>(
    stack: &'s Stack,
    branch: usize,
    changed: Changed,
    threads: NonZeroUsize,
    row: &(impl Fn(Result<Difference<'_, '_>>, &mut B) + Sync),
    give: impl FnMut(B) -> ControlFlow<()>,
) -> ControlFlow<()> {
    let comparison = Comparison {
        branch,
        changed,
        row,
    };
    let visit = |place: Place<'s>, found: &mut Found<'_, Place<'s>, B>| {
        let compared = match place {
            Place::Root => {
                let path = Bytes::from("/");
                root(stack, branch).and_then(|root| comparison.directory(root, &path, found))
            }
            Place::Name(directory, name) => {
                let path = directory.after.path_into(&name, Bytes::spare());
                let compared = comparison.name(&directory, &name, Turn::Name(&path), found);
                path.give_back();
                compared
            }
            Place::Rest(rest) => {
                let path = rest.directory.after.path();
                let paths = path.entries();
                let visit = |directory: &_, name: Vec<u8>, own, found: &mut _| {
                    comparison.listed(directory, name.into(), own, Turn::Directory(&paths), found);
                };
                found.each_of_rest(rest, visit, Place::Rest);
                Ok(())
            }
            Place::Same(same) => {
                let path = same.directory.after.path_of(&same.name);
                let difference = Difference {
                    change: Change::Changed,
                    before: Some(same.before),
                    after: Some(same.after),
                    directory: &same.directory,
                    name: &same.name,
                    turn: Turn::Name(&path),
                };
                row(Ok(difference), found.rows());
                Ok(())
            }
        };
        if let Err(error) = compared {
            row(Err(error), found.rows());
        }
    };
    walk_all(threads, Place::Root, &visit, give)
}

fn root(stack: &Stack, branch: usize) -> Result<Directory<'_>> {
    let after = stack.whole(Reading::Branch(branch));
    let before = match &stack.base {
        Some(base) => base.whole(Reading::Nothing),
        None => stack.root(|index| index != branch, Reading::Nothing),
    };
    Directory::new(after, Some(before), branch)
}

/// A name that may differ.
struct Named<'n> {
    /// What it is called in the order of `docker diff`.
    key: Cow<'n, [u8]>,
    name: Cow<'n, [u8]>,
    /// As the branch itself lists it.
    own: Option<Kind>,
}

/// The names that may differ, in docker's order: those the branch has something to say of, and
/// where lower branches take part in only one of the views, all of theirs.
fn names<'n>(directory: &'n Directory<'_>, branch: usize) -> Result<Vec<Named<'n>>> {
    let grammar = directory.after.stack().branches[branch].grammar;
    let mut names: Vec<Named<'n>> = Vec::new();
    if let Some(listing) = &directory.own {
        names.reserve(listing.len());
        for (key, kind) in listing.iter() {
            let (name, own) = match grammar.mark(key) {
                Some(Mark::Whiteout(hidden)) if listing.kind(hidden).is_none() => (hidden, None),
                _ if grammar.hides_entry(key) => continue,
                _ => (key, Some(kind)),
            };
            names.push(Named {
                key: key.into(),
                name: name.into(),
                own,
            });
        }
    }
    let (after, before) = (&directory.after, directory.before.as_deref());
    // The branches of another stack are other ones, whatever their numbers.
    if after.stack().base.is_some() || !after.is_same_but(branch, before) {
        let sides = std::iter::once(after).chain(before);
        for side in sides {
            for Listed { name, .. } in side.names()?.iter() {
                if directory.own_kind(name).is_none() {
                    names.push(Named {
                        key: grammar.whiteout_of(name).into(),
                        name: name.to_vec().into(),
                        own: None,
                    });
                }
            }
        }
        // Of two that are called the same the branch's own was the first.
        names.sort_by(|a, b| a.key.cmp(&b.key));
        names.dedup_by(|later, first| later.key == first.key);
    }
    Ok(names)
}

/// Whether two versions differ as docker sees it.
fn differ(old: (&Node<'_>, Provided), new: (&Node<'_>, Provided), name: &[u8]) -> Result<bool> {
    let facts = |(node, provided): (&Node<'_>, Provided)| -> Result<(Stat, Option<Vec<u8>>)> {
        let stat = node.stat(provided.branch, name)?;
        let capability = match (stat.kind, node.dir(provided.branch)) {
            (Kind::File, Some(dir)) => {
                dir.attribute(name, "security.capability", CAPABILITY_MAX)
                    .map_err(|errno| Error::io(node.on_host(provided.branch, name), errno))?
            }
            _ => None,
        };
        Ok((stat, capability))
    };
    let ((old, old_capability), (new, new_capability)) = (facts(old)?, facts(new)?);
    let is_directory = new.kind == Kind::Directory;
    Ok(old.kind != new.kind
        || (old.mode, old.uid, old.gid, old.rdev) != (new.mode, new.uid, new.gid, new.rdev)
        || old_capability != new_capability
        || (!is_directory && (old.size != new.size || !is_same_time(old.mtime, new.mtime))))
}

/// What a `security.capability` attribute can have at most, in bytes.
const CAPABILITY_MAX: usize = 64;

/// A time without nanoseconds may come from an archive that had none.
fn is_same_time(a: (i64, u32), b: (i64, u32)) -> bool {
    a.0 == b.0 && (a.1 == b.1 || a.1 == 0 || b.1 == 0)
}

/// Whether it is a name's turn, or that of the directory that it is in: then what is a directory
/// after all is visited later. With the name's path, or those of what is in the directory.
#[derive(Clone, Copy)]
enum Turn<'t> {
    Name(&'t Bytes),
    Directory(&'t Entries<'t>),
}

/// From what length on, in bytes, the path of a directory that may not have changed is made only
/// when it is wanted: in a deep tree many wait.
const LONG: usize = 4096;

/// One comparison of two views.
struct Comparison<'r, V> {
    branch: usize,
    changed: Changed,
    row: &'r V,
}

impl<V> Comparison<'_, V> {
    /// What is in a directory. What may be one itself is a place of its own.
    fn directory<'s, B: Rows>(
        &self,
        directory: Directory<'s>,
        path: &Bytes,
        found: &mut Found<'_, Place<'s>, B>,
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
        let turn = Turn::Directory(&paths);
        let mut names = names(&directory, self.branch)?.into_iter();
        found.each(&mut names, |Named { name, own, .. }, found| {
            self.listed(&directory, name, own, turn, found);
        });
        let rest = names.map(|of| (of.name.into_owned(), of.own));
        found.rest(Arc::clone(&directory), rest, Place::Rest);
        Ok(())
    }

    /// A name of a directory that is listed. What may be a directory itself is a place of its own.
    #[inline]
    fn listed<'s, B: Rows>(
        &self,
        directory: &Arc<Directory<'s>>,
        name: Cow<'_, [u8]>,
        own: Option<Kind>,
        turn: Turn<'_>,
        found: &mut Found<'_, Place<'s>, B>,
    ) where
        V: Fn(Result<Difference<'_, '_>>, &mut B),
    {
        match own {
            Some(kind) if kind != Kind::Directory => {
                if let Err(error) = self.name(directory, &name, turn, found) {
                    (self.row)(Err(error), found.rows());
                }
            }
            _ => found.place(Place::Name(Arc::clone(directory), name.into_owned())),
        }
    }

    /// What is in a directory that is the branch's alone, and has no other in it: all of it was
    /// added. What it deletes was not there.
    fn added<'s, B: Rows>(
        &self,
        directory: &Directory<'s>,
        path: &Bytes,
        found: &mut Found<'_, Place<'s>, B>,
    ) where
        V: Fn(Result<Difference<'_, '_>>, &mut B),
    {
        let grammar = directory.after.stack().branches[self.branch].grammar;
        let paths = path.entries();
        for (name, kind) in directory.own.iter().flat_map(|own| own.iter()) {
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
                turn: Turn::Directory(&paths),
            };
            (self.row)(Ok(difference), found.rows());
        }
    }

    /// One name, and what is below it.
    fn name<'s, B: Rows>(
        &self,
        directory: &Arc<Directory<'s>>,
        name: &[u8],
        turn: Turn<'_>,
        found: &mut Found<'_, Place<'s>, B>,
    ) -> Result<()>
    where
        V: Fn(Result<Difference<'_, '_>>, &mut B),
    {
        let branch = self.branch;
        let after = directory.after.child(name)?;
        if let (Entry::Dir(_), Turn::Directory(_)) = (&after, turn) {
            found.place(Place::Name(Arc::clone(directory), name.to_vec()));
            return Ok(());
        }
        let before = match &directory.before {
            Some(node) => node.child(name)?,
            None => Entry::Missing,
        };
        // What an overlay refuses is neither there nor deleted.
        if directory.after.stack().overlay_rules().is_some() {
            for entry in [&after, &before] {
                if let Entry::Broken { errno, .. } = entry {
                    return Err(Error::io(directory.after.on_host(branch, name), *errno));
                }
            }
        }
        let provided = |entry: &Entry<'_>| {
            Some(Provided {
                branch: entry.provider()?,
                kind: entry.kind()?,
            })
        };
        let (was, is) = (provided(&before), provided(&after));
        // A branch that is not on top may hold what the view does not show.
        let has_own = match &after {
            Entry::Dir(node) => node.branches().any(|of| of == branch),
            entry => entry.provider() == Some(branch),
        };
        let change = match (was, is) {
            (None, None) => return Ok(()),
            (None, Some(_)) => Some(Change::Added),
            (Some(_), None) => Some(Change::Deleted),
            // Two versions from below differ where a directory was moved into another one's place.
            (Some(_), Some(_)) => {
                (has_own || self.changed == Changed::Differs).then_some(Change::Changed)
            }
        };
        let same = match (change, directory.before.as_deref(), was.zip(is)) {
            (Some(Change::Changed), Some(node), Some((before, after)))
                if self.changed == Changed::Differs
                    && !differ((node, before), (&directory.after, after), name)? =>
            {
                Some((before, after))
            }
            _ => None,
        };
        let difference = change.map(|change| Difference {
            change,
            before: was,
            after: is,
            directory,
            name,
            turn,
        });
        match (difference, same, &after) {
            (Some(difference), None, _) => (self.row)(Ok(difference), found.rows()),
            // It is changed only if something in it is.
            (Some(difference), Some((before, after)), Entry::Dir(_)) => {
                found.heading(match turn {
                    Turn::Name(path) if path.as_bytes().len() > LONG => {
                        Heading::Place(Place::Same(Box::new(Same {
                            directory: Arc::clone(directory),
                            name: name.to_vec(),
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
            _ => {}
        }
        if let (Entry::Dir(after), Turn::Name(path)) = (after, turn) {
            let before = match before {
                Entry::Dir(node) => Some(node),
                _ => None,
            };
            self.directory(Directory::new(after, before, branch)?, path, found)?;
        }
        Ok(())
    }
}
