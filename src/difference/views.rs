//! In what two views differ, whatever unions they are of.
//!
//! What both share is not walked: where the directories merged at a place end with the same ones, only
//! what the others list can differ.

use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::sync::Arc;

use rustix::io::Errno;

use super::versions::{Reader, attributes, is_same_content, link};
use super::{Change, Compared, Differing, Differs};
use crate::bytes::Bytes;
use crate::dir::{Content, Kind, Stat};
use crate::error::{Error, Result, errno_name};
use crate::union::{DataAt, Entry, Node, Resolution};
use crate::walk::{Found, Rest, Rows, walk_all};
use crate::whiteout::Mark;

/// What counts as a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Criteria {
    /// When files were changed.
    pub times: bool,
    /// Files of one size are read.
    pub content: bool,
}

/// One version of an entry.
pub struct Version<'d> {
    pub place: &'d Node<'d>,
    pub name: &'d [u8],
    /// The branch that provides it.
    pub branch: usize,
    pub stat: Stat,
    data: Option<&'d DataAt>,
}

impl<'d> Version<'d> {
    /// The version that a lookup found; none of a view's root.
    ///
    /// # Errors
    /// What the system call says.
    pub fn of<'s: 'd>(found: &'d Resolution<'s>) -> Result<Option<Version<'d>>> {
        match &found.place {
            Some((place, name)) => version(Some(place), name, &found.entry),
            None => Ok(None),
        }
    }

    /// Opens the content of a file.
    ///
    /// # Errors
    /// What the system calls say.
    pub fn open(&self) -> Result<Content> {
        self.place.open_content(self.branch, self.name, self.data)
    }

    /// The names of its extended attributes.
    ///
    /// # Errors
    /// What the system call says.
    pub fn attribute_names(&self) -> Result<Vec<String>> {
        let fail = |errno| Error::io(self.on_host(), errno);
        let dir = self.place.dir(self.branch);
        let dir = dir.ok_or_else(|| fail(Errno::NOENT))?;
        dir.attribute_names(self.name).map_err(fail)
    }

    /// Its path in the union.
    pub fn path(&self) -> Bytes {
        self.place.path_of(self.name)
    }

    /// Where it is on the host.
    pub fn on_host(&self) -> Bytes {
        self.place.on_host(self.branch, self.name)
    }

    /// Where its content is on the host, if that lies elsewhere: a branch's number means another branch
    /// in another stack.
    fn content_on_host(&self) -> Option<Bytes> {
        let stack = self.place.stack();
        self.data.map(|data| stack.on_host(data.branch, &data.path))
    }
}

/// One difference.
pub struct Between<'d> {
    pub change: Change,
    pub before: Option<Version<'d>>,
    pub after: Option<Version<'d>>,
    /// Of a changed entry: what differs.
    pub differing: Differing,
}

impl<'d> Between<'d> {
    /// What differs between two versions of whatever names, if anything does.
    ///
    /// # Errors
    /// One that cannot be read.
    pub fn of(
        before: Option<Version<'d>>,
        after: Option<Version<'d>>,
        criteria: Criteria,
    ) -> Result<Option<Between<'d>>> {
        let (change, differing) = match (&before, &after) {
            (None, None) => return Ok(None),
            (None, Some(_)) => (Change::Added, Differing::default()),
            (Some(_), None) => (Change::Deleted, Differing::default()),
            (Some(old), Some(new)) => {
                let differing = compare(old, new, criteria)?;
                if differing.what.is_empty() {
                    return Ok(None);
                }
                (Change::Changed, differing)
            }
        };
        Ok(Some(Between {
            change,
            before,
            after,
            differing,
        }))
    }

    /// Its path, in the view that has it last.
    pub fn path(&self) -> Bytes {
        let version = self.after.as_ref().or(self.before.as_ref());
        version.map(Version::path).unwrap_or_default()
    }
}

/// A place of both views, or of the one that has it.
struct Pair<'s> {
    before: Option<Node<'s>>,
    after: Option<Node<'s>>,
}

/// Names, each with whether it may be a directory.
pub type Names = Vec<(Vec<u8>, bool)>;

/// What is still to be compared.
enum Place<'s> {
    Root,
    /// A name that is a directory in one view at least. It is opened only when it is compared.
    Name(Arc<Pair<'s>>, Vec<u8>),
    Rest(Box<Rest<Arc<Pair<'s>>, bool>>),
}

/// Compares what two places have. `row` is told of each difference, and of what cannot be read; it is
/// called by several threads at once. `give` gets what it put into rows in the order of the names.
///
/// Of a tree that only the first view has, its topmost directory is told alone.
pub fn between<'s, B: Rows>(
    before: &Node<'s>,
    after: &Node<'s>,
    criteria: Criteria,
    threads: NonZeroUsize,
    row: &(impl Fn(Result<Between<'_>>, &mut B) + Sync),
    give: impl FnMut(B) -> ControlFlow<()>,
) -> ControlFlow<()> {
    let comparison = Comparison { criteria, row };
    let visit = |place: Place<'s>, found: &mut Found<'_, Place<'s>, B>| {
        let compared = match place {
            Place::Root => comparison.pair(
                Pair {
                    before: Some(before.clone()),
                    after: Some(after.clone()),
                },
                found,
            ),
            Place::Name(pair, name) => comparison.name(&pair, &name, true, found),
            Place::Rest(rest) => {
                let visit = |pair: &Arc<Pair<'s>>, name: Vec<u8>, is_directory, found: &mut _| {
                    comparison.listed(pair, name, is_directory, found);
                };
                found.each_of_rest(rest, visit, Place::Rest);
                Ok(())
            }
        };
        if let Err(error) = compared {
            row(Err(error), found.rows());
        }
    };
    walk_all(threads, Place::Root, &visit, give)
}

/// Compares two versions that are no directories.
///
/// # Errors
/// One that cannot be read.
fn compare(before: &Version<'_>, after: &Version<'_>, criteria: Criteria) -> Result<Differing> {
    let (old, new) = (&before.stat, &after.stat);
    let mut found = Differing::default();
    if old.kind != new.kind {
        found.what.push(Differs::Type);
        return Ok(found);
    }
    // One inode is alike in all but what mounts make of its owner.
    let is_same = old.identity() == new.identity();
    if old.mode != new.mode {
        found.what.push(Differs::Mode);
    }
    if (old.uid, old.gid) != (new.uid, new.gid) {
        found.what.push(Differs::Owner);
    }
    if is_same && before.content_on_host() == after.content_on_host() {
        return Ok(found);
    }
    let is_content = match old.kind {
        Kind::File if old.size != new.size => {
            found.what.push(Differs::Size);
            criteria.content
        }
        Kind::File if criteria.content => {
            let reader = |of: &Version<'_>| Ok::<_, Error>(Reader::new(of.open()?, of.on_host()));
            !is_same_content(reader(before)?, reader(after)?)?
        }
        Kind::Symlink => {
            let target = |of: &Version<'_>| link(of.place, of.branch, of.name);
            if target(before)? != target(after)? {
                found.what.push(Differs::Link);
            }
            false
        }
        Kind::Char | Kind::Block => old.rdev != new.rdev,
        Kind::File | Kind::Directory | Kind::Fifo | Kind::Socket => false,
    };
    if is_content {
        found.what.push(Differs::Content);
    }
    if criteria.times && old.kind != Kind::Directory && old.mtime != new.mtime {
        found.what.push(Differs::Time);
    }
    let of = |of: &Version<'_>| attributes(of.place, of.branch, of.name, Compared::All);
    let (old, new) = (of(before)?, of(after)?);
    let mut names: Vec<&Vec<u8>> = old.keys().chain(new.keys()).collect();
    names.sort();
    names.dedup();
    names.retain(|name| old.get(*name) != new.get(*name));
    let is_capability = |name: &&&Vec<u8>| name.as_slice() == b"security.capability";
    if names.iter().any(|name| is_capability(&name)) {
        found.what.push(Differs::Capability);
    }
    if names.iter().any(|name| !is_capability(&name)) {
        found.what.push(Differs::Xattr);
    }
    found.attributes = names
        .into_iter()
        .map(|name| Bytes::from(&name[..]))
        .collect();
    Ok(found)
}

struct Comparison<'r, V> {
    criteria: Criteria,
    row: &'r V,
}

impl<V> Comparison<'_, V> {
    /// Compares what is in a directory.
    fn pair<'s, B: Rows>(&self, pair: Pair<'s>, found: &mut Found<'_, Place<'s>, B>) -> Result<()>
    where
        V: Fn(Result<Between<'_>>, &mut B),
    {
        let (pair, names) = pair.read()?;
        let pair = Arc::new(pair);
        let mut names = names.into_iter();
        found.each(&mut names, |(name, is_directory), found| {
            self.listed(&pair, name, is_directory, found);
        });
        found.rest(Arc::clone(&pair), names, Place::Rest);
        Ok(())
    }

    fn listed<'s, B: Rows>(
        &self,
        pair: &Arc<Pair<'s>>,
        name: Vec<u8>,
        is_directory: bool,
        found: &mut Found<'_, Place<'s>, B>,
    ) where
        V: Fn(Result<Between<'_>>, &mut B),
    {
        if is_directory {
            found.directory(Place::Name(Arc::clone(pair), name));
        } else if let Err(error) = self.name(pair, &name, false, found) {
            (self.row)(Err(error), found.rows());
        }
    }

    /// Compares one name, and on a visit by itself what is below it.
    fn name<'s, B: Rows>(
        &self,
        pair: &Arc<Pair<'s>>,
        name: &[u8],
        is_by_itself: bool,
        found: &mut Found<'_, Place<'s>, B>,
    ) -> Result<()>
    where
        V: Fn(Result<Between<'_>>, &mut B),
    {
        let before = shown(pair.before.as_ref(), name)?;
        let after = shown(pair.after.as_ref(), name)?;
        let is_directory = |entry: &Entry<'_>| matches!(entry, Entry::Dir(_));
        if !is_by_itself && (is_directory(&before) || is_directory(&after)) {
            found.directory(Place::Name(Arc::clone(pair), name.to_vec()));
            return Ok(());
        }
        let compared = self.compare(pair, name, &before, &after);
        match compared {
            Ok(Some(difference)) => (self.row)(Ok(difference), found.rows()),
            Ok(None) => {}
            // What is below can be compared all the same.
            Err(error) => (self.row)(Err(error), found.rows()),
        }
        let node = |entry| match entry {
            Entry::Dir(node) => Some(node),
            _ => None,
        };
        match (node(before), node(after)) {
            (before, Some(after)) => {
                let after = Some(after);
                self.pair(Pair { before, after }, found)
            }
            (_, None) => Ok(()),
        }
    }

    fn compare<'d, 's>(
        &self,
        pair: &'d Pair<'s>,
        name: &'d [u8],
        before: &'d Entry<'s>,
        after: &'d Entry<'s>,
    ) -> Result<Option<Between<'d>>>
    where
        's: 'd,
    {
        let before = version(pair.before.as_ref(), name, before)?;
        let after = version(pair.after.as_ref(), name, after)?;
        Between::of(before, after, self.criteria)
    }
}

/// What a view shows of a name.
///
/// # Errors
/// The union's own answer to a name that it refuses; a branch that cannot be asked.
fn shown<'s>(node: Option<&Node<'s>>, name: &[u8]) -> Result<Entry<'s>> {
    let Some(node) = node else {
        return Ok(Entry::Missing);
    };
    match node.child(name)? {
        Entry::Broken { errno, .. } if errno_name(errno) != "ENOENT" => {
            Err(Error::io(node.path_of(name), errno))
        }
        entry => Ok(entry),
    }
}

/// What is known of an entry; none where nothing is.
///
/// # Errors
/// What the system call says.
fn version<'d, 's: 'd>(
    node: Option<&'d Node<'s>>,
    name: &'d [u8],
    entry: &'d Entry<'s>,
) -> Result<Option<Version<'d>>> {
    let (Some(place), Some(branch)) = (node, entry.provider()) else {
        return Ok(None);
    };
    let data = entry.data();
    let mut stat = match entry {
        Entry::Dir(node) => node.stat_self()?,
        _ => place.stat_of(branch, name, entry.stat())?,
    };
    if let Some(data) = data {
        // A metacopy has the size of its content, if not its blocks.
        stat.size = stat.size.max(content_size(place, data)?);
    }
    Ok(Some(Version {
        place,
        name,
        branch,
        stat,
        data,
    }))
}

fn content_size(place: &Node<'_>, data: &DataAt) -> Result<u64> {
    let stack = place.stack();
    let stat = stack.version(data.branch, &data.path)?;
    let stat = stat.ok_or_else(|| Error::io(stack.on_host(data.branch, &data.path), Errno::NOENT));
    Ok(stat?.size)
}

impl<'s> Pair<'s> {
    /// The names that can differ, in order, each with whether it may be a directory.
    fn read(self) -> Result<(Pair<'s>, Names)> {
        let Pair { before, after } = self;
        let (before, after) = match (before, after) {
            (Some(before), Some(after)) => (before, after),
            (before, after) => {
                let (before, after) = (before.map(Node::read), after.map(Node::read));
                let mut names = Vec::new();
                for node in before.iter().chain(&after) {
                    let listed = node.names()?;
                    let listed = listed.iter();
                    names.extend(listed.map(|of| (of.name.to_vec(), of.could_be_directory)));
                }
                return Ok((Pair { before, after }, names));
            }
        };
        let shared = shared(&before, &after)?;
        let mut names = Vec::new();
        let (before, after) = if shared == 0 {
            let (before, after) = (before.read(), after.read());
            for node in [&before, &after] {
                let listed = node.names()?;
                let listed = listed.iter();
                names.extend(listed.map(|of| (of.name.to_vec(), of.could_be_directory)));
            }
            (before, after)
        } else {
            for node in [&before, &after] {
                let own = node.branches().count() - shared;
                for branch in node.branches().take(own) {
                    listed_by(node, branch, &mut names)?;
                }
            }
            (before.read_for(names.len()), after.read_for(names.len()))
        };
        names.sort();
        names.dedup_by(|later, first| {
            let is_one = later.0 == first.0;
            first.1 |= is_one && later.1;
            is_one
        });
        let pair = Pair {
            before: Some(before),
            after: Some(after),
        };
        Ok((pair, names))
    }
}

/// The names that a branch's own listing says something of.
///
/// # Errors
/// A directory that cannot be listed.
pub fn listed_by(node: &Node<'_>, branch: usize, names: &mut Names) -> Result<()> {
    let grammar = node.stack().branches[branch].grammar;
    let Some(listing) = node.listing(branch)? else {
        return Ok(());
    };
    for (name, kind) in listing.iter() {
        match grammar.mark(name) {
            Some(Mark::Whiteout(hidden)) => names.push((hidden.to_vec(), false)),
            _ if grammar.hides_entry(name) => {}
            _ => names.push((name.to_vec(), kind == Kind::Directory)),
        }
    }
    Ok(())
}

/// How many directories, from the lowest up, are merged in both places in the same way.
///
/// # Errors
/// One that cannot be asked.
fn shared(a: &Node<'_>, b: &Node<'_>) -> Result<usize> {
    let parts = |node: &Node<'_>| -> Result<Vec<_>> {
        let stack = node.stack();
        let mut parts = Vec::new();
        for branch in node.branches() {
            let fail = |errno| Error::io(node.on_host(branch, b""), errno);
            let dir = node.dir(branch).ok_or_else(|| fail(Errno::NOENT))?;
            let identity = dir.stat_self().map_err(fail)?.identity();
            let of = &stack.branches[branch];
            parts.push((identity, of.grammar, of.owners.clone(), of.overrides));
        }
        Ok(parts)
    };
    let (a, b) = (parts(a)?, parts(b)?);
    let both = a.iter().rev().zip(b.iter().rev());
    Ok(both.take_while(|(a, b)| a == b).count())
}
