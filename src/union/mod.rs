//! The core: what a name means in a stack of branches.
//!
//! A [`Node`] is one place of the merged view: the directories that are merged there, topmost
//! first. [`Node::child`] is the one function that decides what a name in it means; everything
//! else - [`lookup`] along a path, listings, differences - folds it.
//!
//! The rules are AUFS's, as a kernel was seen to follow them:
//!
//! ```text
//! branch by branch, topmost first, in those that have the parent directory:
//!   .wh.NAME               the search ends; below it nothing shows (EIO if it is no regular file,
//!                          and if NAME stands beside it in the first branch searched)
//!   NAME, no directory     is the answer if nothing was found yet, else is skipped
//!   NAME, a directory      is merged; if it is opaque, nothing below it is
//!                          (the lowest opaque one counts: the search itself goes on)
//! ```
//!
//! Overlay's rules are other ones, and have a place of their own: `union/overlay.rs`.

mod overlay;

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::io::Errno;
use serde::Serialize;
use smallvec::SmallVec;

use crate::branch::{BranchSpec, Permission};
use crate::bytes::{Bytes, components};
use crate::dir::{Access, Dir, Kind, Names, Stat};
use crate::error::{Error, Result};
use crate::overlay::{Namespace, Rules};
use crate::whiteout::{Grammar, Mark, MarkKind, Marks, OPAQUE, Source, Validity};

/// How many names are asked for one by one in any case.
const ASKED_MIN: usize = 16;
/// How many names are listed in the time that it takes to ask for one.
const LISTED_FOR_ASKED: usize = 8;

/// The kernel's limit on symbolic links in one lookup.
const LINKS_MAX: usize = 40;

/// The attributes of a branch's root that say so.
const OVERRIDES: [&str; 3] = [
    "security.fuseoverlayfs.override_stat",
    "user.containers.override_stat",
    "user.fuseoverlayfs.override_stat",
];
/// What one of them can have at most, in bytes: two ids and a mode.
const OVERRIDE_MAX: usize = 64;

/// The branches of one union, topmost first.
#[derive(Debug)]
pub struct Stack {
    pub branches: Vec<Branch>,
    /// What the topmost branch is compared with, where that is not the branches below it.
    pub base: Option<Box<Stack>>,
}

/// How a mount shows the owners of a branch: as others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IdMap {
    pub users: Vec<IdRange>,
    pub groups: Vec<IdRange>,
}

/// `size` ids from `stored` on stand for those from `shown` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdRange {
    pub stored: u32,
    pub shown: u32,
    pub size: u32,
}

impl IdRange {
    fn show(ranges: &[IdRange], id: u32) -> u32 {
        let found = ranges.iter().find_map(|range| {
            let at = id.checked_sub(range.stored).filter(|at| *at < range.size)?;
            range.shown.checked_add(at)
        });
        // What has no other id is nobody's.
        found.unwrap_or(OVERFLOW_ID)
    }
}

/// The kernel's id of what has none.
const OVERFLOW_ID: u32 = 65_534;

/// One directory of a union.
#[derive(Debug)]
pub struct Branch {
    /// The directory's path on the host.
    pub path: Bytes,
    pub permission: Permission,
    pub grammar: Grammar,
    /// The directory itself, or why it could not be opened.
    pub dir: Result<Dir>,
    /// How its owners are shown, if not as they are.
    pub owners: Option<Arc<IdMap>>,
}

impl Branch {
    /// A branch of an AUFS union.
    pub fn aufs(spec: &BranchSpec, dir: Result<Dir>) -> Branch {
        let grammar = if spec.permission.honours_marks() {
            Grammar::Aufs
        } else {
            Grammar::AufsIgnored
        };
        Branch::new(spec, grammar, dir)
    }

    pub fn new(spec: &BranchSpec, grammar: Grammar, dir: Result<Dir>) -> Branch {
        Branch {
            path: spec.path.clone(),
            permission: spec.permission.clone(),
            grammar,
            dir,
            owners: None,
        }
    }

    /// What the union shows of something in the branch.
    fn shown(&self, stat: Stat) -> Stat {
        match &self.owners {
            None => stat,
            Some(map) => Stat {
                uid: IdRange::show(&map.users, stat.uid),
                gid: IdRange::show(&map.groups, stat.gid),
                ..stat
            },
        }
    }
}

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

impl Stack {
    pub fn new(branches: Vec<Branch>) -> Stack {
        Stack {
            branches,
            base: None,
        }
    }

    /// The root of the merged view of those branches that `choose` picks.
    ///
    /// A branch that could not be opened takes no part; whoever needs a sure answer asks
    /// [`Stack::lost`] first.
    pub fn root(&self, choose: impl Fn(usize) -> bool, reading: Reading) -> Node<'_> {
        let mut parts = Parts::with_capacity(self.branches.len());
        for (index, branch) in self.branches.iter().enumerate() {
            let is_merged = choose(index) && branch.grammar != Grammar::OverlayData;
            if let (true, Ok(dir)) = (is_merged, &branch.dir) {
                // What cannot be asked is said when a name in it is looked up.
                if branch.grammar.is_cut_off(dir) == Ok(true) {
                    // The first is the root all the same, with nothing in it.
                    if parts.is_empty() {
                        let at = (index, branch.grammar);
                        let part = Part::new(at, dir.clone(), Reading::Nothing);
                        parts.push(part.emptied());
                    }
                    break;
                }
                let at = (index, branch.grammar);
                parts.push(Part::new(at, dir.clone(), reading));
                if branch.grammar.is_opaque_root(dir) == Ok(true) {
                    break;
                }
            }
        }
        Node {
            stack: self,
            shown: None,
            roots: self.overlay_rules().map(|_| parts.to_vec().into()),
            parts,
            cuts: Vec::new(),
            reading,
        }
    }

    /// The rules of an overlay; none for other unions.
    pub fn overlay_rules(&self) -> Option<Rules> {
        match self.branches.first()?.grammar {
            Grammar::Overlay(rules) => Some(rules),
            // It has neither redirects nor metacopies to follow.
            Grammar::FuseOverlay(namespace) => Some(Rules {
                namespace,
                ..Rules::DEFAULT
            }),
            Grammar::Aufs | Grammar::AufsIgnored | Grammar::OverlayData | Grammar::Plain => None,
        }
    }

    /// The whole merged view.
    pub fn whole(&self, reading: Reading) -> Node<'_> {
        self.root(|_| true, reading)
    }

    /// Whether the marks of this union are among those that the kernel tells root only: to others
    /// it denies that there are any.
    pub fn has_trusted_marks(&self) -> bool {
        self.branches.iter().any(|branch| match branch.grammar {
            Grammar::Overlay(rules) => rules.namespace == Namespace::Trusted,
            Grammar::FuseOverlay(namespace) => namespace == Namespace::Trusted,
            _ => false,
        })
    }

    /// The branches in which owners and modes are in attributes, since their file system, or who
    /// wrote them, could not set them.
    pub fn overridden(&self) -> impl Iterator<Item = &Branch> {
        self.branches
            .iter()
            .filter(|branch| match (branch.grammar, &branch.dir) {
                (Grammar::FuseOverlay(_), Ok(dir)) => OVERRIDES
                    .iter()
                    .any(|name| matches!(dir.attribute_self(name, OVERRIDE_MAX), Ok(Some(_)))),
                _ => false,
            })
    }

    /// The topmost writable branch: where changes go.
    pub fn writable(&self) -> Option<usize> {
        self.branches
            .iter()
            .position(|branch| branch.permission.is_writable())
    }

    /// The branches that could not be opened. While there are any, no answer is sure.
    pub fn lost(&self) -> impl Iterator<Item = Error> {
        self.branches
            .iter()
            .enumerate()
            .filter_map(|(index, branch)| {
                let error = branch.dir.as_ref().err()?;
                Some(Error::BranchLost {
                    index,
                    path: branch.path.clone(),
                    why: error.reason(),
                })
            })
    }

    /// Whether a branch below another could not be opened.
    pub fn lost_below(&self, branch: usize) -> bool {
        self.branches
            .iter()
            .skip(branch + 1)
            .any(|below| below.dir.is_err())
    }

    /// What one branch alone holds at `path`, marks and other branches left aside.
    ///
    /// # Errors
    /// A directory on the way that cannot be searched.
    pub fn version(&self, branch: usize, path: &Bytes) -> Result<Option<Stat>> {
        if climbs(path) {
            return Ok(None);
        }
        let fail = |errno| Error::io(self.on_host(branch, path), errno);
        let Some(dir) = self.dir_at(branch, &path.parent())? else {
            return Ok(None);
        };
        let name = path.file_name();
        if name.is_empty() {
            return dir.stat_self().map(Some).map_err(fail);
        }
        match self.branches[branch].grammar.version(&dir, name) {
            Err(Errno::NAMETOOLONG) => Ok(None),
            version => version.map_err(fail),
        }
    }

    /// The whiteout that one branch has of a path.
    ///
    /// # Errors
    /// A directory on the way that cannot be searched.
    pub fn whiteout(&self, branch: usize, path: &Bytes) -> Result<Option<Cut>> {
        if climbs(path) {
            return Ok(None);
        }
        let Some(dir) = self.dir_at(branch, &path.parent())? else {
            return Ok(None);
        };
        let grammar = self.branches[branch].grammar;
        let mark = grammar.whiteout_name(&Source::Disk(&dir), path.file_name());
        let mark = mark.map_err(|errno| Error::io(self.on_host(branch, path), errno))?;
        Ok(mark.map(|mark| Cut {
            branch,
            mark: path.parent().join(&mark),
            kind: MarkKind::Whiteout,
            of: path.clone(),
        }))
    }

    /// A branch's own directory, no link followed; `None` where it has none there.
    ///
    /// # Errors
    /// A directory on the way that cannot be searched.
    pub fn dir_at(&self, branch: usize, path: &Bytes) -> Result<Option<Dir>> {
        let Ok(root) = &self.branches[branch].dir else {
            return Ok(None);
        };
        if climbs(path) {
            return Ok(None);
        }
        let mut dir = root.clone();
        for name in path.components() {
            let child = child_if_any(&dir, name);
            let child = child.map_err(|errno| Error::io(self.on_host(branch, path), errno))?;
            let Some(child) = child else {
                return Ok(None);
            };
            dir = child;
        }
        Ok(Some(dir))
    }

    /// The directories on the way to a path that a branch does not have, topmost first.
    ///
    /// # Errors
    /// A directory on the way that cannot be searched.
    pub fn missing(&self, branch: usize, path: &Bytes) -> Result<Vec<Bytes>> {
        let mut missing = Vec::new();
        let mut on_the_way = Bytes::from("/");
        let mut dir = self.dir_at(branch, &on_the_way)?;
        for name in path.components() {
            on_the_way = on_the_way.join(name);
            let child = dir.map(|dir| child_if_any(&dir, name)).transpose();
            let child = child.map_err(|errno| Error::io(self.on_host(branch, path), errno))?;
            dir = child.flatten();
            if dir.is_none() {
                missing.push(on_the_way.clone());
            }
        }
        Ok(missing)
    }

    /// Where a path of the union lies on the host, in one branch.
    pub fn on_host(&self, branch: usize, path: &Bytes) -> Bytes {
        self.branches[branch].path.join_path(path)
    }
}

/// A directory's own sub-directory; `None` where it has none of that name.
fn child_if_any(dir: &Dir, name: &[u8]) -> Result<Option<Dir>, Errno> {
    match dir.child(name, Access::Lookup) {
        Ok(child) => Ok(Some(child)),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NAMETOOLONG) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// What is left of a path that ended early may still climb; no branch is left that way.
fn climbs(path: &Bytes) -> bool {
    path.components().any(|part| part == b"..")
}

/// One place of the merged view: the directories that are merged there, topmost first.
#[derive(Debug, Clone)]
pub struct Node<'s> {
    stack: &'s Stack,
    /// The place's path in the union, where that may not be where its directories lie in their
    /// branches: something was redirected.
    shown: Option<Bytes>,
    /// In the order of the branches.
    parts: Parts,
    cuts: Vec<Arc<Cut>>,
    reading: Reading,
    /// The root of the view, where redirects start from: only overlay has them.
    roots: Option<Arc<[Part]>>,
}

/// Most places are one branch's.
type Parts = SmallVec<[Part; 1]>;

/// A branch's directory at a place.
#[derive(Debug, Clone)]
struct Part {
    branch: usize,
    dir: Dir,
    names: Option<Arc<Names>>,
    /// What the listing tells of them.
    marks: Marks,
}

impl Part {
    /// Reads the listing where it is wanted. One that cannot be read is asked name by name, and
    /// whoever needs it whole is told why.
    fn new((branch, grammar): (usize, Grammar), dir: Dir, reading: Reading) -> Part {
        let names = if reads(reading, branch) {
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

    /// The same, as if there were nothing in it.
    fn emptied(self) -> Part {
        Part {
            names: Some(Arc::default()),
            marks: Marks::Hidden,
            ..self
        }
    }

    /// Opens a sub-directory, as it is to be read: `opened` is what it was opened as already.
    fn enter(&self, name: &[u8], opened: Option<Dir>, reading: Reading) -> Result<Dir, Errno> {
        let wanted = match (opened, reads(reading, self.branch)) {
            (Some(dir), false) => Ok(dir),
            (_, true) => self.dir.child(name, Access::List),
            (None, false) => self.dir.child(name, Access::Lookup),
        };
        // What may be entered but not listed can still be looked up in.
        match wanted {
            Err(Errno::ACCESS) => self.dir.child(name, Access::Lookup),
            result => result,
        }
    }

    fn source(&self) -> Source<'_> {
        match &self.names {
            Some(names) => Source::Listing(names, self.marks, &self.dir),
            None => Source::Disk(&self.dir),
        }
    }

    /// The same, where a name is expected to be a directory's, which is left open then.
    fn source_for<'p>(
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

/// What a name is most likely to be. It only saves asking twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    Anything,
    Directory,
}

/// How a name is to be decided.
struct Question<'q> {
    name: &'q [u8],
    expected: Expected,
    /// A mark that is to be looked past.
    without: Option<(usize, MarkKind)>,
}

fn reads(reading: Reading, branch: usize) -> bool {
    match reading {
        Reading::Nothing => false,
        Reading::Branch(only) => only == branch,
        Reading::Everything => true,
    }
}

/// A mark that ends the search: below its branch nothing shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Cut {
    /// Index of the branch that holds the mark.
    pub branch: usize,
    /// The mark's own path, as if the branch were the root.
    pub mark: Bytes,
    pub kind: MarkKind,
    /// What is marked: the deleted name, or the opaque directory.
    #[serde(skip)]
    pub of: Bytes,
}

/// Adds a mark that keeps branches out, unless those above keep them out anyway: a path has more
/// directories than a union has branches.
fn add_cut(cuts: &mut Vec<Arc<Cut>>, branch: usize, kind: MarkKind, cut: impl FnOnce() -> Cut) {
    let first_hidden = |branch: usize, kind: MarkKind| match kind {
        // It hides what its own branch has of the name, too.
        MarkKind::Whiteout => branch,
        MarkKind::Opaque => branch + 1,
    };
    let is_hidden = cuts.iter().any(|above| {
        above.branch <= branch
            && first_hidden(above.branch, above.kind) <= first_hidden(branch, kind)
    });
    if !is_hidden {
        cuts.push(Arc::new(cut()));
    }
}

/// What a name means.
#[derive(Debug)]
pub enum Entry<'s> {
    /// No branch that takes part has it.
    Missing,
    /// A whiteout of exactly this name.
    Deleted {
        by: Cut,
    },
    /// The union refuses the name.
    Broken {
        errno: Errno,
        why: Why,
    },
    /// Anything but a directory.
    Leaf {
        from: usize,
        kind: Kind,
        /// Where the content is, if only the metadata is in `from`.
        data: Option<Box<DataAt>>,
    },
    Dir(Node<'s>),
}

/// Where the content of a file is whose metadata is in a branch above.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataAt {
    pub branch: usize,
    /// The file's path in that branch.
    pub path: Bytes,
}

impl Entry<'_> {
    pub fn kind(&self) -> Option<Kind> {
        match self {
            Entry::Leaf { kind, .. } => Some(*kind),
            Entry::Dir(_) => Some(Kind::Directory),
            Entry::Missing | Entry::Deleted { .. } | Entry::Broken { .. } => None,
        }
    }

    /// The branch whose entry the merged view shows.
    pub fn provider(&self) -> Option<usize> {
        match self {
            Entry::Leaf { from, .. } => Some(*from),
            Entry::Dir(node) => node.provider(),
            Entry::Missing | Entry::Deleted { .. } | Entry::Broken { .. } => None,
        }
    }
}

/// Why the union refuses a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It begins with `.wh.`, which the union keeps for itself.
    Reserved,
    /// It is longer than a name of the union can be.
    TooLong,
    /// It stands beside its own whiteout in the first branch searched.
    BesideWhiteout { branch: usize },
    /// Its whiteout is not a regular file.
    BadWhiteout { branch: usize },
    /// The directory's opaque mark is not a regular file.
    BadOpaque { branch: usize },
    /// Too many symbolic links.
    Links,
    /// A component of the path is not a directory.
    NotDirectory,
    /// A redirect in a branch that the union may not follow.
    Redirect { branch: usize },
    /// A redirect that can be no name.
    BadRedirect { branch: usize },
    /// A file without content in a branch whose metacopies the union may not follow.
    Metacopy { branch: usize },
    /// A file whose content is nowhere.
    NoData { branch: usize },
    /// A metacopy attribute that cannot be one.
    BadMetacopy { branch: usize },
}

/// One branch's verdict on a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Says {
    /// Its entry is what the union shows.
    Provides,
    /// It has the content of the file, whose metadata is the provider's.
    ProvidesData,
    /// Its directory is shown, and hides what is below.
    ProvidesOpaque,
    /// Its directory is merged under the provider's.
    Merges,
    /// The same, and it hides what is below.
    MergesOpaque,
    /// It holds a whiteout of the name.
    Whiteout,
    /// It holds a mark that the union cannot read.
    Invalid,
    /// It has the name, which is no directory, under a directory of a higher branch.
    Skipped,
    /// It has the name, but a higher branch provides it.
    Shadowed,
    /// It has the name, behind a mark of a higher branch.
    Hidden,
    /// It does not have the name.
    Nothing,
    /// It could not be read.
    Unread,
}

impl Says {
    /// Of a directory that is shown, as the first one of its name or under another.
    fn of_directory(is_first: bool, is_opaque: bool) -> Says {
        match (is_first, is_opaque) {
            (true, false) => Says::Provides,
            (true, true) => Says::ProvidesOpaque,
            (false, false) => Says::Merges,
            (false, true) => Says::MergesOpaque,
        }
    }
}

impl<'s> Node<'s> {
    pub fn stack(&self) -> &'s Stack {
        self.stack
    }

    /// The place's path in the union.
    pub fn path(&self) -> Bytes {
        self.path_of(b"")
    }

    /// The path in the union of a name here.
    pub fn path_of(&self, name: &[u8]) -> Bytes {
        self.path_into(name, Bytes::default())
    }

    /// The same, in memory that is not used any more. No place keeps its path: those that wait in
    /// a walk lie one in another, and their paths would take the square of the depth.
    pub fn path_into(&self, name: &[u8], used: Bytes) -> Bytes {
        match (&self.shown, self.parts.first()) {
            (Some(shown), _) if name.is_empty() => shown.clone(),
            (Some(shown), _) => shown.join_into(name, used),
            (None, Some(part)) => self.path_in(part.branch, &part.dir, name, used),
            (None, None) => Bytes::absolute([name].into_iter().filter(|name| !name.is_empty())),
        }
    }

    /// Where a branch has, or would have, a name of one of its directories.
    fn path_in(&self, branch: usize, dir: &Dir, name: &[u8], used: Bytes) -> Bytes {
        match &self.stack.branches[branch].dir {
            Ok(top) => dir.path_below(top, name, used),
            Err(_) => unreachable!("a branch that could not be opened takes no part"),
        }
    }

    /// The marks above this place that keep lower branches out of it.
    pub fn cuts(&self) -> impl Iterator<Item = &Cut> {
        self.cuts.iter().map(|cut| &**cut)
    }

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
        let grammar = self.stack.branches[branch].grammar;
        match self.part(branch) {
            Some(part) => grammar
                .mark_at(&part.source(), name)
                .map_err(|errno| Error::io(self.on_host(branch, name), errno)),
            None => Ok(grammar.mark(name)),
        }
    }

    /// Whether a branch's directory here is marked opaque.
    ///
    /// # Errors
    /// A directory that cannot be asked.
    pub fn is_opaque(&self, branch: usize) -> Result<bool> {
        let Some(part) = self.part(branch) else {
            return Ok(false);
        };
        let grammar = self.stack.branches[branch].grammar;
        let opaque = grammar.opaque(&part.source());
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
        Ok(self.stack.branches[branch].shown(stat))
    }

    /// What `lstat` says of the directory itself, which is the provider's.
    ///
    /// # Errors
    /// What the system call says.
    pub fn stat_self(&self) -> Result<Stat> {
        let part = self
            .parts
            .first()
            .ok_or_else(|| Error::io(self.path(), Errno::NOENT))?;
        let stat = part.dir.stat_self();
        let stat = stat.map_err(|errno| Error::io(self.host_path(part), errno))?;
        Ok(self.stack.branches[part.branch].shown(stat))
    }

    /// Opens the content of a regular file that the branch `from` provides here: `data` is where
    /// that is, if the branch has only the metadata.
    ///
    /// # Errors
    /// What the system call says.
    pub fn open_content(&self, from: usize, name: &[u8], data: Option<&DataAt>) -> Result<OwnedFd> {
        let (branch, path, dir) = match data {
            None => {
                let path = self.place_of(from, name);
                (from, path, self.dir(from).cloned())
            }
            Some(data) => {
                let dir = self.stack.dir_at(data.branch, &data.path.parent())?;
                (data.branch, data.path.clone(), dir)
            }
        };
        let opened = dir
            .ok_or(Errno::NOENT)
            .and_then(|dir| dir.open_file(path.file_name()));
        opened.map_err(|errno| Error::io(self.stack.on_host(branch, &path), errno))
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
    fn place_of(&self, branch: usize, name: &[u8]) -> Bytes {
        match self.part(branch) {
            Some(part) => self.path_in(branch, &part.dir, name, Bytes::default()),
            None => self.path_of(name),
        }
    }

    fn part(&self, branch: usize) -> Option<&Part> {
        let at = self.parts.binary_search_by_key(&branch, |part| part.branch);
        at.ok().map(|at| &self.parts[at])
    }

    /// Whether this is the root of the view.
    fn is_root(&self) -> bool {
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
    fn place_around(&self, branch: usize) -> Bytes {
        let below = self.parts.iter().find(|part| part.branch >= branch);
        match below.or(self.parts.last()) {
            Some(part) => self.place_in(part.branch),
            None => self.path(),
        }
    }

    fn host_path(&self, part: &Part) -> Bytes {
        self.on_host(part.branch, b"")
    }

    /// What `name` means here. This is the one place that decides it.
    ///
    /// # Errors
    /// A branch that cannot be asked. The answer is then not known, whatever other branches say.
    pub fn child(&self, name: &[u8]) -> Result<Entry<'s>> {
        let question = Question {
            name,
            expected: Expected::Anything,
            without: None,
        };
        self.decide(&question, &mut |_, _| ())
    }

    /// What `name` would mean if one mark on it were removed: the whiteout of it in `branch`, or
    /// the opaque mark of the directory that it is there.
    ///
    /// # Errors
    /// As [`Node::child`].
    pub fn child_without_mark(
        &self,
        name: &[u8],
        branch: usize,
        kind: MarkKind,
    ) -> Result<Entry<'s>> {
        let question = Question {
            name,
            expected: Expected::Anything,
            without: Some((branch, kind)),
        };
        self.decide(&question, &mut |_, _| ())
    }

    /// [`Node::child`], and each branch's verdict as it was heard.
    ///
    /// # Errors
    /// As [`Node::child`].
    fn child_with_trail(
        &self,
        name: &[u8],
        expected: Expected,
    ) -> Result<(Entry<'s>, Vec<(usize, Says)>)> {
        let mut trail: Vec<(usize, Says)> = Vec::new();
        let question = Question {
            name,
            expected,
            without: None,
        };
        let entry = self.decide(&question, &mut |branch, says| {
            // They are asked in order; what is said again is of one that was heard.
            let heard = match trail.last() {
                Some((last, _)) if *last >= branch => {
                    trail.iter_mut().rfind(|(of, _)| *of == branch)
                }
                _ => None,
            };
            match heard {
                Some(verdict) => verdict.1 = says,
                None => trail.push((branch, says)),
            }
        })?;
        Ok((entry, trail))
    }

    fn decide(
        &self,
        question: &Question<'_>,
        says: &mut dyn FnMut(usize, Says),
    ) -> Result<Entry<'s>> {
        if let Some(rules) = self.stack.overlay_rules() {
            return self.decide_overlay(rules, question, says);
        }
        let Question {
            name,
            expected,
            without,
        } = *question;
        let opened = Cell::new(None);
        let broken = |errno, why| Ok(Entry::Broken { errno, why });
        let mut found = Parts::new();
        let mut lowest_opaque = None;
        let mut cut = None;
        for (position, part) in self.parts.iter().enumerate() {
            let branch = part.branch;
            let grammar = self.stack.branches[branch].grammar;
            match grammar.refuses(name) {
                Some(Errno::PERM) => return broken(Errno::PERM, Why::Reserved),
                Some(errno) => return broken(errno, Why::TooLong),
                None => {}
            }
            let fail = |errno| Error::io(self.on_host(branch, name), errno);
            let seen = match grammar.look(&part.source_for(grammar, expected, &opened), name) {
                Ok(seen) => seen,
                Err(Errno::NAMETOOLONG) => return broken(Errno::NAMETOOLONG, Why::TooLong),
                Err(errno) => return Err(fail(errno)),
            };
            match seen.whiteout {
                Validity::Absent | Validity::TakenBack => {}
                _ if without == Some((branch, MarkKind::Whiteout)) => {}
                Validity::Invalid => {
                    says(branch, Says::Invalid);
                    return broken(Errno::IO, Why::BadWhiteout { branch });
                }
                Validity::Valid => {
                    says(branch, Says::Whiteout);
                    if position == 0 && seen.entry.is_some() {
                        return broken(Errno::IO, Why::BesideWhiteout { branch });
                    }
                    let mark = self.path_of(&grammar.whiteout_of(name));
                    cut = Some(Cut {
                        branch,
                        mark,
                        kind: MarkKind::Whiteout,
                        of: self.path_of(name),
                    });
                    break;
                }
            }
            match seen.entry {
                None => says(branch, Says::Nothing),
                Some(Kind::Directory) => {
                    let dir = part
                        .enter(name, opened.take(), self.reading)
                        .map_err(fail)?;
                    let at = (branch, grammar);
                    let mut child = Part::new(at, dir, self.reading);
                    let mut opaque = grammar.opaque(&child.source());
                    // What may be listed but not searched says it in its listing.
                    if opaque == Err(Errno::ACCESS)
                        && let Ok(dir) = part.dir.child(name, Access::List)
                    {
                        child = Part::new(at, dir, Reading::Branch(branch));
                        opaque = grammar.opaque(&child.source());
                    }
                    let opaque = opaque.map_err(fail)?;
                    if opaque == Validity::Invalid && without != Some((branch, MarkKind::Opaque)) {
                        says(branch, Says::Invalid);
                        return broken(Errno::IO, Why::BadOpaque { branch });
                    }
                    let opaque =
                        opaque == Validity::Valid && without != Some((branch, MarkKind::Opaque));
                    if opaque {
                        lowest_opaque = Some(found.len());
                    }
                    says(branch, Says::of_directory(found.is_empty(), opaque));
                    found.push(child);
                }
                Some(kind) if found.is_empty() => {
                    says(branch, Says::Provides);
                    return Ok(Entry::Leaf {
                        from: branch,
                        kind,
                        data: None,
                    });
                }
                Some(_) => says(branch, Says::Skipped),
            }
        }
        if found.is_empty() {
            return Ok(match cut {
                Some(by) => Entry::Deleted { by },
                None => Entry::Missing,
            });
        }
        let mut cuts = self.cuts.clone();
        if let Some(lowest) = lowest_opaque {
            for part in found.drain(lowest + 1..) {
                says(part.branch, Says::Hidden);
            }
            let branch = found[lowest].branch;
            add_cut(&mut cuts, branch, MarkKind::Opaque, || {
                let of = self.path_of(name);
                Cut {
                    branch,
                    mark: of.join(OPAQUE),
                    kind: MarkKind::Opaque,
                    of,
                }
            });
        }
        if let Some(cut) = cut {
            add_cut(&mut cuts, cut.branch, cut.kind, || cut);
        }
        Ok(Entry::Dir(Node {
            stack: self.stack,
            shown: None,
            parts: found,
            cuts,
            reading: self.reading,
            roots: None,
        }))
    }

    /// Every name that any branch has here, marks and housekeeping left out, sorted. Whether the
    /// union shows it is for [`Node::child`] to say.
    ///
    /// # Errors
    /// A directory that cannot be listed.
    pub fn names(&self) -> Result<Listing> {
        let mut sources = Sources::with_capacity(self.parts.len());
        for part in &self.parts {
            let grammar = self.stack.branches[part.branch].grammar;
            sources.push((self.read_part(part)?, grammar));
        }
        let mut order = Vec::new();
        if sources.len() > 1 {
            for (source, (names, _)) in sources.iter().enumerate() {
                order.extend((0..names.len()).map(|at| (source, at)));
            }
            let name = |&(source, at): &(usize, usize)| sources[source].0.get(at).map(|of| of.0);
            // Those of one source are in order already.
            order.sort_by(|a, b| name(a).cmp(&name(b)));
        }
        Ok(Listing { sources, order })
    }

    /// The same place, its directories read where that is less work than to ask them for so many
    /// names. What it takes does not grow with what else is in them.
    pub fn read_for(self, count: usize) -> Node<'s> {
        if count < ASKED_MIN {
            self
        } else {
            self.read_up_to(count.saturating_mul(LISTED_FOR_ASKED))
        }
    }

    /// The same place, its directories read.
    pub fn read(self) -> Node<'s> {
        self.read_up_to(usize::MAX)
    }

    fn read_up_to(mut self, most: usize) -> Node<'s> {
        for part in &mut self.parts {
            // One that may not be listed is asked.
            if part.names.is_none()
                && let Ok(Some(names)) = part.dir.names_up_to(most)
            {
                let grammar = self.stack.branches[part.branch].grammar;
                part.marks = grammar.has_marks(&names);
                part.names = Some(Arc::new(names));
            }
        }
        self
    }

    /// The branch whose listing is the only one here and alone says what its names mean, but for
    /// its directories.
    pub fn only_listing(&self) -> Option<usize> {
        match self.parts.as_slice() {
            [part] if part.marks != Marks::Hidden => Some(part.branch),
            _ => None,
        }
    }

    /// The branch that provides an entry, which is of the kind that is listed, where such a listing
    /// says so at once. It is what [`Node::child`] says.
    pub fn as_listed(&self, name: &[u8], kind: Kind) -> Option<usize> {
        let [part] = self.parts.as_slice() else {
            return None;
        };
        let is_as_listed = match (&part.names, part.marks) {
            _ if kind == Kind::Directory => false,
            (Some(_), Marks::None) => true,
            (Some(names), Marks::Named) => {
                let grammar = self.stack.branches[part.branch].grammar;
                grammar.is_unmarked(names, name)
            }
            _ => false,
        };
        is_as_listed.then_some(part.branch)
    }

    /// Whether the kernel's `readdir` lists `name` here, which it does for a few names that
    /// `lstat` denies: it does not heed the whiteouts of the lowest branch, and hears of a name
    /// before it hears of the whiteout beside it.
    ///
    /// # Errors
    /// A directory that cannot be listed.
    pub fn readdir_lists(&self, name: &[u8]) -> Result<bool> {
        for (position, part) in self.parts.iter().enumerate() {
            let grammar = self.stack.branches[part.branch].grammar;
            let listing = self.read_part(part)?;
            if let Grammar::FuseOverlay(_) = grammar {
                let entry = self.child(name)?;
                return Ok(!matches!(entry, Entry::Missing | Entry::Deleted { .. }));
            }
            if let Grammar::Overlay(_) = grammar {
                // Overlay reads a directory of one branch as it is, whiteouts and all.
                match grammar.look(&Source::Disk(&part.dir), name) {
                    _ if self.parts.len() == 1 => return Ok(listing.kind(name).is_some()),
                    Ok(seen) if seen.whiteout.ends_search() => return Ok(false),
                    // Where there can be whiteouts by attribute it looks at files, and leaves out
                    // those that it refuses.
                    Ok(_) if listing.kind(name) == Some(Kind::File) => {
                        return Ok(!self.has_attribute_whiteouts(part)?);
                    }
                    _ if listing.kind(name).is_some() => return Ok(true),
                    _ => continue,
                }
            }
            if listing.kind(name).is_some() {
                return Ok(true);
            }
            let is_last = position + 1 == self.parts.len();
            if !is_last
                && grammar == Grammar::Aufs
                && listing.kind(&grammar.whiteout_of(name)).is_some()
            {
                return Ok(false);
            }
        }
        Ok(false)
    }

    /// Whether the kernel looks for whiteouts by attribute when it lists a branch's directory: it
    /// does not ask the upper branch, nor the lowest of the union.
    fn has_attribute_whiteouts(&self, part: &Part) -> Result<bool> {
        let branch = &self.stack.branches[part.branch];
        let lowest = self.roots.as_ref().and_then(|roots| roots.last());
        if branch.permission.is_writable() || lowest.is_some_and(|of| of.branch == part.branch) {
            return Ok(false);
        }
        let has_whiteouts = branch.grammar.has_attribute_whiteouts(&part.dir);
        has_whiteouts.map_err(|errno| Error::io(self.host_path(part), errno))
    }

    fn read_part(&self, part: &Part) -> Result<Arc<Names>> {
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

/// The listings of a place, and how each is to be read.
type Sources = SmallVec<[(Arc<Names>, Grammar); 1]>;

/// The names of a place, of all branches there.
#[derive(Debug)]
pub struct Listing {
    sources: Sources,
    /// Which source, and where in it, if there are several.
    order: Vec<(usize, usize)>,
}

/// A name of a place.
#[derive(Debug, Clone, Copy)]
pub struct Listed<'l> {
    pub name: &'l [u8],
    /// As the topmost branch that lists it has it.
    pub kind: Kind,
    /// Whether any branch has a directory of that name.
    pub could_be_directory: bool,
}

impl Listing {
    fn get(&self, at: usize) -> Option<(&[u8], Kind, Grammar)> {
        let (source, at) = *self.order.get(at)?;
        let (names, grammar) = &self.sources[source];
        let (name, kind) = names.get(at)?;
        Some((name, kind, *grammar))
    }

    /// Each name once, but marks.
    pub fn iter(&self) -> impl Iterator<Item = Listed<'_>> {
        let mut at = 0;
        let single = match self.sources.as_slice() {
            [(names, grammar)] => Some((&**names, *grammar)),
            _ => None,
        };
        std::iter::from_fn(move || {
            loop {
                let (name, kind, grammar) = match single {
                    Some((names, grammar)) => {
                        let (name, kind) = names.get(at)?;
                        (name, kind, grammar)
                    }
                    None => self.get(at)?,
                };
                at += 1;
                if grammar.hides_entry(name) {
                    continue;
                }
                let mut could_be_directory = kind == Kind::Directory;
                // Of several sources some may list it, too.
                while single.is_none()
                    && let Some((next, kind, grammar)) = self.get(at)
                    && next == name
                    && !grammar.hides_entry(next)
                {
                    could_be_directory |= kind == Kind::Directory;
                    at += 1;
                }
                return Some(Listed {
                    name,
                    kind,
                    could_be_directory,
                });
            }
        })
    }

    pub fn to_vec(&self) -> Vec<Vec<u8>> {
        self.iter().map(|listed| listed.name.to_vec()).collect()
    }
}

/// Nothing is looked up to find the root: all branches are merged there.
fn root_trail(root: &Node<'_>) -> Vec<(usize, Says)> {
    let says = std::iter::once(Says::Provides).chain(std::iter::repeat(Says::Merges));
    root.branches().zip(says).collect()
}

/// What happens to a symbolic link at the end of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Follow {
    /// It is followed, as `stat` does.
    All,
    /// It is the answer, as `lstat` has it. Links in the middle are followed all the same.
    NotLast,
}

/// A symbolic link that was followed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Link {
    /// The link's own path in the union, its directories resolved.
    pub path: Bytes,
    /// What it says.
    pub target: Bytes,
    /// The branch that provides the link.
    pub branch: usize,
}

/// Where a lookup ended.
#[derive(Debug)]
pub struct Resolution<'s> {
    /// The path with all links resolved that were met; the rest as it was asked for.
    pub path: Bytes,
    /// The directory in which the last name was looked up, and that name; `None` for the root.
    pub place: Option<(Node<'s>, Vec<u8>)>,
    pub entry: Entry<'s>,
    /// What was left of the path when the lookup ended, after the last name asked for.
    pub rest: Vec<Vec<u8>>,
    pub links: Vec<Link>,
    /// Each branch's verdict on the last name that was asked for.
    pub trail: Vec<(usize, Says)>,
}

impl Resolution<'_> {
    /// A branch's verdict on the last name that was asked for, if it was asked.
    pub fn said(&self, branch: usize) -> Option<Says> {
        let is_it = |of: &&(usize, Says)| of.0 == branch;
        // Mostly all were.
        let at_its_place = self.trail.get(branch).filter(is_it);
        let verdict = at_its_place.or_else(|| self.trail.iter().find(is_it));
        verdict.map(|(_, says)| *says)
    }

    /// Where a branch would have what was looked up, whatever the others say of it.
    pub fn path_in(&self, branch: usize) -> Bytes {
        match &self.place {
            None => self.path.clone(),
            Some((place, name)) => {
                let start = place.place_around(branch).join(name);
                self.rest.iter().fold(start, |path, part| path.join(part))
            }
        }
    }

    /// Where a branch has it, as far as the views that begin with a branch lead there.
    ///
    /// # Errors
    /// A directory on the way that cannot be searched.
    pub fn path_led_to(&self, stack: &Stack, branch: usize) -> Result<Bytes> {
        let path = Bytes::absolute(self.path.components());
        for from in 1..=branch {
            let root = stack.root(|of| of >= from, Reading::Nothing);
            let found = lookup(&root, path.as_bytes(), Follow::NotLast)?;
            if found.entry.provider() == Some(branch) {
                return Ok(match (&found.entry, &found.place) {
                    (Entry::Dir(node), _) => node.place_in(branch),
                    (_, Some((node, name))) => node.place_of(branch, name),
                    (_, None) => path,
                });
            }
        }
        Ok(self.path_in(branch))
    }

    /// What the branches have of it, visible or not, topmost first.
    ///
    /// # Errors
    /// A directory on the way that cannot be searched.
    pub fn versions(&self, stack: &Stack) -> Result<Vec<(usize, Stat)>> {
        let mut versions: BTreeMap<usize, Stat> = BTreeMap::new();
        for branch in 0..stack.branches.len() {
            if let Some(stat) = self.version_in(stack, branch)? {
                versions.insert(branch, stat);
            }
        }
        // What only a redirect leads to is seen in the view that begins below what hides it.
        let follows = stack
            .overlay_rules()
            .is_some_and(|rules| rules.follows_redirects);
        if follows && self.entry.kind().is_none() {
            for from in 1..stack.branches.len() {
                let path = Bytes::absolute(self.path.components());
                let root = stack.root(|branch| branch >= from, Reading::Nothing);
                let found = lookup(&root, path.as_bytes(), Follow::NotLast)?;
                if let Some(branch) = found.entry.provider() {
                    versions.entry(branch).or_insert(found.stat()?);
                }
            }
        }
        Ok(versions.into_iter().collect())
    }

    fn version_in(&self, stack: &Stack, branch: usize) -> Result<Option<Stat>> {
        // The lookup has its directory open.
        if let Some((place, name)) = &self.place
            && self.rest.is_empty()
            && let Some(dir) = place.dir(branch)
        {
            let grammar = stack.branches[branch].grammar;
            // A redirect may have asked for another name.
            if grammar == Grammar::Aufs && self.said(branch) == Some(Says::Nothing) {
                return Ok(None);
            }
            return match grammar.version(dir, name) {
                Err(Errno::NAMETOOLONG) => Ok(None),
                version => version.map_err(|errno| Error::io(place.on_host(branch, name), errno)),
            };
        }
        stack.version(branch, &self.path_in(branch))
    }

    /// `lstat` of what was found.
    ///
    /// # Errors
    /// `ENOENT` where nothing was found; else what the system call says.
    pub fn stat(&self) -> Result<Stat> {
        match (&self.entry, &self.place) {
            (Entry::Dir(node), _) => node.stat_self(),
            (Entry::Leaf { from, .. }, Some((place, name))) => place.stat(*from, name),
            _ => Err(Error::io(self.path.clone(), Errno::NOENT)),
        }
    }
}

/// Resolves `path` as a process inside the union would: absolute links start at `root`, `..`
/// never leaves it, a link in one branch may lead through a directory of another.
///
/// # Errors
/// A branch that cannot be asked.
pub fn lookup<'s>(root: &Node<'s>, path: &[u8], follow: Follow) -> Result<Resolution<'s>> {
    let mut wanted: VecDeque<Vec<u8>> = components(path).map(<[u8]>::to_vec).collect();
    // A trailing slash asks for a directory, and so follows a link.
    let mut as_directory = path.ends_with(b"/") || path.ends_with(b"/.");
    let mut nodes: Vec<Node<'s>> = vec![root.clone()];
    let mut links: Vec<Link> = Vec::new();
    let mut trail = Vec::new();

    let end = |nodes: &[Node<'s>], name: Vec<u8>, entry, rest: VecDeque<Vec<u8>>, links, trail| {
        let here = nodes[nodes.len() - 1].clone();
        let mut path = here.path_of(&name);
        for part in &rest {
            path = path.join(part);
        }
        Ok(Resolution {
            path,
            place: Some((here, name)),
            entry,
            rest: rest.into(),
            links,
            trail,
        })
    };

    while let Some(name) = wanted.pop_front() {
        if name == b".." {
            if nodes.len() > 1 {
                nodes.pop();
            }
            trail.clear();
            continue;
        }
        let here = &nodes[nodes.len() - 1];
        let expected = if wanted.is_empty() && !as_directory {
            Expected::Anything
        } else {
            Expected::Directory
        };
        let (entry, verdicts) = here.child_with_trail(&name, expected)?;
        trail = verdicts;
        match entry {
            Entry::Dir(node) => nodes.push(node),
            Entry::Leaf {
                from,
                kind: Kind::Symlink,
                ..
            } if !wanted.is_empty() || as_directory || follow == Follow::All => {
                if links.len() == LINKS_MAX {
                    let entry = Entry::Broken {
                        errno: Errno::LOOP,
                        why: Why::Links,
                    };
                    return end(&nodes, name, entry, wanted, links, trail);
                }
                let fail = |errno| Error::io(here.on_host(from, &name), errno);
                let dir = here.dir(from).ok_or_else(|| fail(Errno::NOENT))?;
                let target = dir.read_link(&name).map_err(fail)?;
                links.push(Link {
                    path: here.path_of(&name),
                    target: Bytes::from(&target[..]),
                    branch: from,
                });
                if wanted.is_empty() {
                    as_directory |= target.ends_with(b"/") || target.ends_with(b"/.");
                }
                for part in components(&target).rev() {
                    wanted.push_front(part.to_vec());
                }
                if target.starts_with(b"/") {
                    nodes.truncate(1);
                }
                trail.clear();
            }
            Entry::Leaf { .. } if !wanted.is_empty() || as_directory => {
                let entry = Entry::Broken {
                    errno: Errno::NOTDIR,
                    why: Why::NotDirectory,
                };
                return end(&nodes, name, entry, wanted, links, trail);
            }
            entry => return end(&nodes, name, entry, wanted, links, trail),
        }
    }
    let Some(node) = nodes.pop() else {
        return Err(Error::io(root.path(), Errno::NOENT));
    };
    let place = nodes
        .pop()
        .map(|parent| (parent, node.path().file_name().to_vec()));
    if trail.is_empty() {
        // It was reached by `..` or by a link to where the lookup had been already.
        trail = match &place {
            Some((parent, name)) => parent.child_with_trail(name, Expected::Directory)?.1,
            None => root_trail(&node),
        };
    }
    Ok(Resolution {
        path: node.path(),
        place,
        entry: Entry::Dir(node),
        rest: Vec::new(),
        links,
        trail,
    })
}
