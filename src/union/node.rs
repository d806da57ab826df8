//! One place of the merged view: the directories that are merged there.

use std::cell::Cell;
use std::sync::Arc;

use rustix::io::Errno;
use smallvec::SmallVec;

use super::cut::Cut;
use super::stack::Stack;
use crate::bytes::Bytes;
use crate::dir::{Access, Dir, Names, Stat};
use crate::error::{Error, Result};
use crate::whiteout::{Grammar, Mark, Marks, Seen, Source, Validity};

/// Which directories are read whole when they are opened: what is read once need not be asked
/// name by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// None: a lookup costs what its path costs.
    Nothing,
    /// Those of one branch, which is being walked.
    Branch(usize),
    /// All: the merged view is being walked.
    Everything,
}

impl Reading {
    fn reads(self, branch: usize) -> bool {
        match self {
            Reading::Nothing => false,
            Reading::Branch(only) => only == branch,
            Reading::Everything => true,
        }
    }
}

/// One place of the merged view: the directories that are merged there, topmost first.
#[derive(Debug, Clone)]
pub struct Node<'s> {
    pub(super) stack: &'s Stack,
    /// The place's path in the union. It is kept only where a redirect was followed: elsewhere the
    /// directories lie at the same path in their branches.
    pub(super) shown: Option<Bytes>,
    /// In the order of the branches.
    pub(super) parts: Parts,
    /// The marks above this place that keep branches out of it.
    pub(super) cuts: Vec<Arc<Cut>>,
    pub(super) reading: Reading,
    /// The root of the view, where redirects start from: only overlay has them.
    pub(super) roots: Option<Arc<[Part]>>,
}

/// Most places are one branch's.
pub(super) type Parts = SmallVec<[Part; 1]>;

/// A branch's directory at a place.
#[derive(Debug, Clone)]
pub(super) struct Part {
    pub branch: usize,
    pub dir: Dir,
    /// The listing, where it was read.
    pub names: Option<Arc<Names>>,
    /// What the listing tells of marks.
    pub marks: Marks,
}

impl Part {
    /// Reads the listing where it is wanted. Where that fails the names are asked for one by one:
    /// whoever needs the whole listing reads it again, and is told why.
    pub fn new((branch, grammar): (usize, Grammar), dir: Dir, reading: Reading) -> Part {
        let names = if reading.reads(branch) {
            dir.names().ok().map(Arc::new)
        } else {
            None
        };
        Part {
            branch,
            dir,
            marks: names
                .as_ref()
                .map_or(Marks::Hidden, |names| grammar.has_marks(names)),
            names,
        }
    }

    /// The same directory, as if there were nothing in it.
    pub fn emptied(self) -> Part {
        Part {
            names: Some(Arc::default()),
            marks: Marks::Hidden,
            ..self
        }
    }

    /// Opens a sub-directory so that it can be read as it is to be. `opened` is the directory where
    /// it is open.
    pub fn enter(&self, name: &[u8], opened: Option<Dir>, reading: Reading) -> Result<Dir, Errno> {
        let wanted = match (opened, reading.reads(self.branch)) {
            (Some(dir), false) => Ok(dir),
            (_, true) => self.dir.child(name, Access::List),
            (None, false) => self.dir.child(name, Access::Lookup),
        };
        // A directory that may not be listed may still be entered.
        match wanted {
            Err(Errno::ACCESS) => self.dir.child(name, Access::Lookup),
            result => result,
        }
    }

    /// Where the facts about the directory come from.
    pub fn source(&self) -> Source<'_> {
        match &self.names {
            Some(names) => Source::Listing(names, self.marks, &self.dir),
            None => Source::Disk(&self.dir),
        }
    }

    /// The same for one name. A directory that is expected is left open.
    pub fn source_for<'p>(
        &'p self,
        grammar: Grammar,
        expected: Expected,
        opened: &'p Cell<Option<Dir>>,
    ) -> Source<'p> {
        match (self.source(), expected) {
            (Source::Disk(dir), Expected::Directory) => {
                Source::Opening(dir, grammar.access(), opened)
            }
            (source, _) => source,
        }
    }
}

/// What a name is most likely to be. A wrong guess costs a system call, not the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expected {
    Anything,
    Directory,
}

/// Where the content of a file is whose metadata is in a branch above.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataAt {
    /// The branch that has the content.
    pub branch: usize,
    /// The file's path in that branch.
    pub path: Bytes,
    /// Whether no branch has it. The kernel looks for it late: the name is there, and opening it is
    /// an error.
    pub is_lost: bool,
}

impl Stack {
    /// The root of the merged view of those branches that `choose` picks.
    ///
    /// A branch that could not be opened takes no part; whoever needs a sure answer asks
    /// [`Stack::lost`] first.
    pub fn root(&self, choose: impl Fn(usize) -> bool, reading: Reading) -> Node<'_> {
        let mut parts = Parts::with_capacity(self.branches.len());
        for (index, branch) in self.branches.iter().enumerate() {
            if !choose(index) || branch.grammar.is_data_only() {
                continue;
            }
            let Ok(dir) = &branch.dir else { continue };
            let at = (index, branch.grammar);
            // A root whose marks cannot be read is merged: the first name in it says why.
            if branch.grammar.is_cut_off(dir) == Ok(true) {
                // The first is the root all the same, with nothing in it.
                if parts.is_empty() {
                    let part = Part::new(at, dir.clone(), Reading::Nothing);
                    parts.push(part.emptied());
                }
                break;
            }
            parts.push(Part::new(at, dir.clone(), reading));
            if branch.grammar.is_opaque_root(dir) == Ok(true) {
                break;
            }
        }
        let leads_elsewhere = self.merger().leads_elsewhere();
        Node {
            stack: self,
            shown: None,
            roots: leads_elsewhere.then(|| parts.to_vec().into()),
            parts,
            cuts: Vec::new(),
            reading,
        }
    }

    /// The root of what the union would be without a branch: of a copy, what it is a copy of.
    pub fn without(&self, branch: usize) -> Node<'_> {
        match &self.base {
            Some(base) => base.whole(Reading::Nothing),
            None => self.root(|of| of != branch, Reading::Nothing),
        }
    }

    /// The whole merged view.
    pub fn whole(&self, reading: Reading) -> Node<'_> {
        self.root(|_| true, reading)
    }
}

/// Whether a name is that of a directory of composefs's objects, the first byte of their digests.
/// The root of an image has a whiteout of each, so that none is seen (docs/facts.md#engines-2026-b8).
fn is_of_objects(name: &[u8]) -> bool {
    name.len() == 2
        && name
            .iter()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

impl<'s> Node<'s> {
    /// The branches of the union that this is a place of.
    pub fn stack(&self) -> &'s Stack {
        self.stack
    }

    /// How the branch of one of the directories here spells marks.
    pub(super) fn grammar(&self, part: &Part) -> Grammar {
        self.stack.branches[part.branch].grammar
    }

    /// The place's path in the union.
    pub fn path(&self) -> Bytes {
        self.path_of(b"")
    }

    /// The name by which a path goes on from here, where it leads through here. Every directory of a walk
    /// is asked: where all of the view is meant, none makes its own path for that.
    pub fn step_to<'p>(&self, goal: &'p Bytes) -> Option<&'p [u8]> {
        goal.components().next()?;
        goal.step_from(&self.path())
    }

    /// The path in the union of a name here.
    pub fn path_of(&self, name: &[u8]) -> Bytes {
        self.path_into(name, Bytes::default())
    }

    /// The same, in memory that is not used any more. A place makes its path when asked, and keeps
    /// none: a walk holds all places on the way down, and their paths would take memory by the
    /// square of the depth.
    pub fn path_into(&self, name: &[u8], used: Bytes) -> Bytes {
        match (&self.shown, self.parts.first()) {
            (Some(shown), _) if name.is_empty() => shown.clone(),
            (Some(shown), _) => shown.join_into(name, used),
            (None, Some(part)) => self.path_in(part.branch, &part.dir, name, used),
            (None, None) => Bytes::absolute([name].into_iter().filter(|name| !name.is_empty())),
        }
    }

    /// Where a branch has, or would have, a name of one of its directories.
    pub(super) fn path_in(&self, branch: usize, dir: &Dir, name: &[u8], used: Bytes) -> Bytes {
        match &self.stack.branches[branch].dir {
            Ok(top) => dir.path_below(top, name, used),
            Err(_) => unreachable!("a branch that could not be opened takes no part"),
        }
    }

    /// The marks above this place that keep lower branches out of it.
    pub fn cuts(&self) -> impl Iterator<Item = &Cut> {
        self.cuts.iter().map(|cut| &**cut)
    }

    /// The branch whose directory the merged view shows.
    pub fn provider(&self) -> Option<usize> {
        self.parts.first().map(|part| part.branch)
    }

    /// The branches that take part here, topmost first.
    pub fn branches(&self) -> impl Iterator<Item = usize> {
        self.parts.iter().map(|part| part.branch)
    }

    /// A branch's own directory at this place.
    pub fn dir(&self, branch: usize) -> Option<&Dir> {
        self.part(branch).map(|part| &part.dir)
    }

    /// A branch's own listing at this place; `None` where the branch takes no part.
    ///
    /// # Errors
    /// A directory that cannot be listed.
    pub fn listing(&self, branch: usize) -> Result<Option<Arc<Names>>> {
        let part = self.part(branch);
        part.map(|part| self.read_part(part)).transpose()
    }

    /// What an entry of a branch's own listing marks, whether or not that counts.
    ///
    /// # Errors
    /// An entry that cannot be asked.
    pub fn mark<'n>(&self, branch: usize, name: &'n [u8]) -> Result<Option<Mark<'n>>> {
        Ok(self.look(branch, name)?.0)
    }

    /// The same, and what the directory says of the name, where it was asked. What composefs makes for
    /// itself marks nothing that anybody deleted.
    ///
    /// # Errors
    /// An entry that cannot be asked.
    pub fn look<'n>(
        &self,
        branch: usize,
        name: &'n [u8],
    ) -> Result<(Option<Mark<'n>>, Option<Seen>)> {
        let grammar = self.stack.branches[branch].grammar;
        match self.part(branch) {
            Some(part) if self.is_composefs(part) && is_of_objects(name) => Ok((None, None)),
            Some(part) => grammar
                .mark_at(&part.source(), name)
                .map_err(|errno| Error::io(self.on_host(branch, name), errno)),
            None => Ok((grammar.mark(name), None)),
        }
    }

    /// Whether a branch's directory here is marked opaque. Every composefs image's root is, which
    /// means nothing.
    ///
    /// # Errors
    /// A directory that cannot be asked.
    pub fn is_opaque(&self, branch: usize) -> Result<bool> {
        let part = self.part(branch);
        let Some(part) = part.filter(|part| !self.is_composefs(part)) else {
            return Ok(false);
        };
        let opaque = self.grammar(part).opaque(&part.source());
        let opaque = opaque.map_err(|errno| Error::io(self.host_path(part), errno))?;
        Ok(opaque == Validity::Valid)
    }

    /// What `lstat` says of `name` in one of the branches here.
    ///
    /// # Errors
    /// What the system call says; an entry that has vanished meanwhile is `ENOENT`.
    pub fn stat(&self, branch: usize, name: &[u8]) -> Result<Stat> {
        let fail = |errno| Error::io(self.on_host(branch, name), errno);
        let dir = self.dir(branch).ok_or_else(|| fail(Errno::NOENT))?;
        let stat = dir.stat(name).map_err(fail)?;
        let stat = stat.ok_or_else(|| fail(Errno::NOENT))?;
        self.stat_of(branch, name, Some(stat))
    }

    /// The same where the branch's own answer is known: [`Entry::stat`](super::Entry::stat).
    ///
    /// # Errors
    /// As [`Node::stat`].
    pub fn stat_of(&self, branch: usize, name: &[u8], known: Option<Stat>) -> Result<Stat> {
        let (Some(stat), Some(dir)) = (known, self.dir(branch)) else {
            return self.stat(branch, name);
        };
        let attribute = |attribute: &str, max| dir.attribute(name, attribute, max);
        Ok(self.stack.branches[branch].shown(stat, attribute))
    }

    /// What `lstat` says of the directory itself, which is the provider's.
    ///
    /// # Errors
    /// What the system call says.
    pub fn stat_self(&self) -> Result<Stat> {
        let (part, stat) = self.topmost()?;
        let attribute = |name: &str, max| part.dir.attribute_self(name, max);
        Ok(self.stack.branches[part.branch].shown(stat, attribute))
    }

    /// What the topmost of the merged directories is on disk, whatever the union shows of it.
    ///
    /// # Errors
    /// As [`Node::stat_self`].
    pub fn stored_self(&self) -> Result<Stat> {
        self.topmost().map(|(_, stat)| stat)
    }

    fn topmost(&self) -> Result<(&Part, Stat)> {
        let part = self
            .parts
            .first()
            .ok_or_else(|| Error::io(self.path(), Errno::NOENT))?;
        let stat = part.dir.stat_self();
        let stat = stat.map_err(|errno| Error::io(self.host_path(part), errno))?;
        Ok((part, stat))
    }

    /// Where a name of this place lies on the host, in one branch.
    pub fn on_host(&self, branch: usize, name: &[u8]) -> Bytes {
        self.stack.on_host(branch, &self.place_of(branch, name))
    }

    /// Where this place is in a branch: overlay may show a directory that lies elsewhere.
    pub fn place_in(&self, branch: usize) -> Bytes {
        self.place_of(branch, b"")
    }

    /// Where a name of this place is in a branch.
    pub(super) fn place_of(&self, branch: usize, name: &[u8]) -> Bytes {
        match self.part(branch) {
            Some(part) => self.path_in(branch, &part.dir, name, Bytes::default()),
            None => self.path_of(name),
        }
    }

    /// Whether one of the directories here is the root of a composefs image: one that has its
    /// content in branches which give nothing else.
    fn is_composefs(&self, part: &Part) -> bool {
        let lowest = self.stack.branches.last();
        part.dir.is_root_of_image() && lowest.is_some_and(|of| of.grammar.is_data_only())
    }

    fn part(&self, branch: usize) -> Option<&Part> {
        let at = self.parts.binary_search_by_key(&branch, |part| part.branch);
        at.ok().map(|at| &self.parts[at])
    }

    /// Whether this is the root of the view.
    pub(super) fn is_root(&self) -> bool {
        let is_top = |part: &Part| match &self.stack.branches[part.branch].dir {
            Ok(top) => part.dir.is_same(top),
            Err(_) => false,
        };
        self.shown.is_none() && self.parts.first().is_none_or(is_top)
    }

    /// Whether what is merged here, but for one branch, is what another view of this place merges.
    pub fn is_same_but(&self, branch: usize, other: Option<&Node<'_>>) -> bool {
        let own = self.parts.iter().filter(|part| part.branch != branch);
        let others = other.iter().flat_map(|node| &node.parts);
        let may_lie_elsewhere = self.shown.is_some() || other.is_some_and(|of| of.shown.is_some());
        let is_same = |(a, b): (&Part, &Part)| {
            a.branch == b.branch && (!may_lie_elsewhere || a.dir.has_same_path(&b.dir))
        };
        own.clone().count() == others.clone().count() && own.zip(others).all(is_same)
    }

    /// The same place of the view that only some of the branches make. Those that marks above keep
    /// out of it stay out.
    pub fn narrowed(&self, keep: impl Fn(usize) -> bool) -> Node<'s> {
        let kept = |parts: &[Part]| -> Parts {
            let parts = parts.iter().filter(|part| keep(part.branch));
            parts.cloned().collect()
        };
        Node {
            stack: self.stack,
            shown: (!self.is_root()).then(|| self.path()),
            parts: kept(&self.parts),
            cuts: Vec::new(),
            reading: self.reading,
            roots: self.roots.as_ref().map(|roots| kept(roots).to_vec().into()),
        }
    }

    /// Where a branch would have this place: where it has it, or where those around it in the
    /// stack do, since a redirect concerns all branches below.
    pub(super) fn place_around(&self, branch: usize) -> Bytes {
        let below = self.parts.iter().find(|part| part.branch >= branch);
        match below.or(self.parts.last()) {
            Some(part) => self.place_in(part.branch),
            None => self.path(),
        }
    }

    /// Where one of the directories here lies on the host.
    pub(super) fn host_path(&self, part: &Part) -> Bytes {
        self.on_host(part.branch, b"")
    }

    /// The listing of one of the directories here.
    pub(super) fn read_part(&self, part: &Part) -> Result<Arc<Names>> {
        match &part.names {
            Some(names) => Ok(Arc::clone(names)),
            None => part
                .dir
                .names()
                .map(Arc::new)
                .map_err(|errno| Error::io(self.host_path(part), errno)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_lie_under_the_first_byte_of_their_digests() {
        // docs/facts.md#engines-2026-b8
        for (name, expected) in [
            (&b"00"[..], true),
            (b"9f", true),
            (b"ff", true),
            (b"a", false),
            (b"abc", false),
            (b"", false),
            (b"g0", false),
            (b"AB", false),
        ] {
            assert_eq!(is_of_objects(name), expected, "{name:?}");
        }
    }
}
