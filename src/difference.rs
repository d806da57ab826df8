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

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde::Serialize;

use crate::bytes::Bytes;
use crate::dir::{Kind, Names, Stat};
use crate::error::{Error, Result};
use crate::union::{Entry, Node, Reading, Stack};
use crate::walk::{Item, walk};
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
#[derive(Debug)]
pub struct Difference<'s> {
    pub path: Bytes,
    pub change: Change,
    pub before: Option<Provided>,
    pub after: Option<Provided>,
    place: Arc<Directory<'s>>,
    name: Vec<u8>,
    /// A directory that is changed only if something in it is.
    is_mere_parent: bool,
}

impl Difference<'_> {
    /// `lstat` of the entry in the view without the branch.
    ///
    /// # Errors
    /// What the system call says.
    pub fn stat_before(&self) -> Result<Option<Stat>> {
        stat(self.place.place.before.as_ref(), &self.name, self.before)
    }

    /// `lstat` of the entry in the view with the branch.
    ///
    /// # Errors
    /// What the system call says.
    pub fn stat_after(&self) -> Result<Option<Stat>> {
        stat(Some(&self.place.place.after), &self.name, self.after)
    }

    /// The directories that hold the two versions, and the name in them.
    pub fn versions(&self) -> Option<(&Node<'_>, usize, &Node<'_>, usize, &[u8])> {
        let before = self.place.place.before.as_ref()?;
        Some((
            before,
            self.before?.branch,
            &self.place.place.after,
            self.after?.branch,
            &self.name,
        ))
    }
}

fn stat(node: Option<&Node<'_>>, name: &[u8], provided: Option<Provided>) -> Result<Option<Stat>> {
    match (node, provided) {
        (Some(node), Some(provided)) => node.stat(provided.branch, name).map(Some),
        _ => Ok(None),
    }
}

/// A directory that is in the view with the branch, and what was there without it.
#[derive(Debug)]
struct Place<'s> {
    after: Node<'s>,
    before: Option<Node<'s>>,
}

/// A place, and what the branch itself has there.
#[derive(Debug)]
struct Directory<'s> {
    place: Place<'s>,
    own: Option<Arc<Names>>,
}

impl Directory<'_> {
    fn own_kind(&self, name: &[u8]) -> Option<Kind> {
        self.own.as_ref()?.kind(name)
    }
}

enum Visit<'s> {
    Root,
    /// A name that may be a directory. It is opened only when its turn comes, so that a wide
    /// directory does not hold all of its children open.
    Name(Arc<Directory<'s>>, Vec<u8>),
}

/// Compares the union without `branch` to the union with it. What cannot be read comes out as
/// an error, in its place, and the rest goes on.
pub fn differences<'s>(
    stack: &'s Stack,
    branch: usize,
) -> impl Iterator<Item = Result<Difference<'s>>> {
    // A copy has everything, changed or not.
    let changed = match stack.branches.first() {
        Some(first) if first.grammar == Grammar::Plain => Changed::Differs,
        _ => Changed::InBranch,
    };
    compared(stack, branch, changed)
}

/// The same, where *changed* is what `docker diff` calls so: on overlay, what differs.
pub fn changes<'s>(
    stack: &'s Stack,
    branch: usize,
) -> impl Iterator<Item = Result<Difference<'s>>> {
    let is_aufs = stack.overlay_rules().is_none() && stack.base.is_none();
    let changed = match is_aufs {
        true => Changed::InBranch,
        false => Changed::Differs,
    };
    without_mere_parents(compared(stack, branch, changed))
}

/// What makes an entry of both views a changed one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Changed {
    /// The branch has it.
    InBranch,
    /// The two versions differ, or what is in the two directories does.
    Differs,
}

fn compared<'s>(
    stack: &'s Stack,
    branch: usize,
    changed: Changed,
) -> impl Iterator<Item = Result<Difference<'s>>> {
    walk(Visit::Root, move |visit| {
        let items = match visit {
            Visit::Root => root(stack, branch).and_then(|place| compare(place, branch, changed)),
            Visit::Name(place, name) => compare_name(&place, branch, &name, changed),
        };
        items.unwrap_or_else(|error| vec![Item::Row(Err(error))])
    })
}

/// Leaves out the directories that are changed only if something in them is, where nothing is.
fn without_mere_parents<'s>(
    mut all: impl Iterator<Item = Result<Difference<'s>>>,
) -> impl Iterator<Item = Result<Difference<'s>>> {
    let mut parents: VecDeque<Difference<'s>> = VecDeque::new();
    let mut ready: VecDeque<Result<Difference<'s>>> = VecDeque::new();
    std::iter::from_fn(move || {
        while ready.is_empty() {
            let difference = match all.next()? {
                Ok(difference) => difference,
                Err(error) => return Some(Err(error)),
            };
            let holds =
                |parent: &Difference<'_>| difference.path.strip_prefix(&parent.path).is_some();
            while parents.back().is_some_and(|parent| !holds(parent)) {
                parents.pop_back();
            }
            if difference.is_mere_parent {
                parents.push_back(difference);
            } else {
                ready.extend(parents.drain(..).map(Ok));
                ready.push_back(Ok(difference));
            }
        }
        ready.pop_front()
    })
}

fn root(stack: &Stack, branch: usize) -> Result<Place<'_>> {
    Ok(Place {
        after: stack.whole(Reading::Branch(branch)),
        before: Some(match &stack.base {
            Some(base) => base.whole(Reading::Nothing),
            None => stack.root(|index| index != branch, Reading::Nothing),
        }),
    })
}

type Found<'s> = Vec<Item<Visit<'s>, Result<Difference<'s>>>>;

fn compare<'s>(place: Place<'s>, branch: usize, changed: Changed) -> Result<Found<'s>> {
    let own = place.after.listing(branch)?;
    let place = Arc::new(Directory { place, own });
    let mut items: Found<'s> = Vec::new();
    for (_, name) in names(&place, branch)? {
        match place.own_kind(&name) {
            Some(kind) if kind != Kind::Directory => {
                match compare_name(&place, branch, &name, changed) {
                    Ok(found) => items.extend(found),
                    Err(error) => items.push(Item::Row(Err(error))),
                }
            }
            _ => items.push(Item::Place(Visit::Name(Arc::clone(&place), name))),
        }
    }
    Ok(items)
}

/// The names that may differ, in docker's order: those the branch has something to say of, and
/// where lower branches take part in only one of the views, all of theirs.
fn names(directory: &Directory<'_>, branch: usize) -> Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let place = &directory.place;
    let grammar = place.after.stack().branches[branch].grammar;
    let mut names = BTreeMap::new();
    if let Some(listing) = &directory.own {
        for (name, _) in listing.iter() {
            match grammar.mark(name) {
                Some(Mark::Whiteout(hidden)) if listing.kind(hidden).is_none() => {
                    names.insert(name.to_vec(), hidden.to_vec());
                }
                _ if grammar.hides_entry(name) => {}
                _ => {
                    names.insert(name.to_vec(), name.to_vec());
                }
            }
        }
    }
    let is_below = |(index, _): &(usize, &Bytes)| *index != branch;
    let below = place.after.places().filter(is_below);
    let before = place.before.iter().flat_map(Node::places);
    // The branches of another stack are other ones, whatever their numbers.
    if place.after.stack().base.is_some() || !below.eq(before) {
        let sides = std::iter::once(&place.after).chain(&place.before);
        for side in sides {
            for name in side.names()? {
                if directory.own_kind(&name).is_none() {
                    names.entry(grammar.whiteout_of(&name)).or_insert(name);
                }
            }
        }
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

/// One name, and what is below it.
fn compare_name<'s>(
    directory: &Arc<Directory<'s>>,
    branch: usize,
    name: &[u8],
    changed: Changed,
) -> Result<Found<'s>> {
    let place = &directory.place;
    let after = place.after.child(name)?;
    let before = match &place.before {
        Some(node) => node.child(name)?,
        None => Entry::Missing,
    };
    // What an overlay refuses is neither there nor deleted.
    if place.after.stack().overlay_rules().is_some() {
        for entry in [&after, &before] {
            if let Entry::Broken { errno, .. } = entry {
                return Err(Error::io(place.after.on_host(branch, name), *errno));
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
        (None, None) => return Ok(Vec::new()),
        (None, Some(_)) => Some(Change::Added),
        (Some(_), None) => Some(Change::Deleted),
        // Two versions from below differ where a directory was moved into another one's place.
        (Some(_), Some(_)) => (has_own || changed == Changed::Differs).then_some(Change::Changed),
    };
    let mut is_mere_parent = false;
    let mut change = change;
    if let (Some(Change::Changed), Some(before), Some(old), Some(new)) =
        (change, &place.before, was, is)
        && changed == Changed::Differs
        && !differ((before, old), (&place.after, new), name)?
    {
        is_mere_parent = new.kind == Kind::Directory;
        change = change.filter(|_| is_mere_parent);
    }
    let mut items: Found<'s> = Vec::new();
    items.extend(change.map(|change| {
        Item::Row(Ok(Difference {
            path: place.after.path().join(name),
            change,
            before: was,
            after: is,
            place: Arc::clone(directory),
            name: name.to_vec(),
            is_mere_parent,
        }))
    }));
    if let Entry::Dir(after) = after {
        let before = match before {
            Entry::Dir(node) => Some(node),
            _ => None,
        };
        match compare(Place { after, before }, branch, changed) {
            Ok(below) => items.extend(below),
            Err(error) => items.push(Item::Row(Err(error))),
        }
    }
    Ok(items)
}
