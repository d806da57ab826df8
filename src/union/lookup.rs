//! A path, followed as a process inside the union would.

use std::collections::{BTreeMap, VecDeque};

use rustix::io::Errno;
use serde::Serialize;

use super::entry::{Entry, Says, Why};
use super::node::{Expected, Node, Reading};
use super::stack::Stack;
use crate::bytes::{Bytes, components};
use crate::dir::{Kind, Stat};
use crate::error::{Error, Result};

/// The kernel's limit on symbolic links in one lookup.
const LINKS_MAX: usize = 40;

/// The verdicts on the root. No lookup is needed to find it: all branches are merged there.
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
    pub link: Bytes,
    /// The branch that provides the link.
    pub branch: usize,
}

/// Where a lookup ended.
#[derive(Debug)]
pub struct Resolution<'s> {
    /// The path in the union, with all links resolved that were met. What is left of it after the
    /// last name that was asked for is as it was typed.
    pub path: Bytes,
    /// The directory in which the last name was looked up, and that name; `None` for the root.
    pub place: Option<(Node<'s>, Vec<u8>)>,
    /// What the last name that was asked for means.
    pub entry: Entry<'s>,
    /// What was left of the path when the lookup ended, after the last name asked for.
    pub rest: Vec<Vec<u8>>,
    /// The symbolic links that were followed, in order.
    pub links: Vec<Link>,
    /// Each branch's verdict on the last name that was asked for.
    pub trail: Vec<(usize, Says)>,
}

impl Resolution<'_> {
    /// A branch's verdict on the last name that was asked for, if it was asked.
    pub fn said(&self, branch: usize) -> Option<Says> {
        let is_it = |of: &&(usize, Says)| of.0 == branch;
        // Where all branches were asked, a verdict's place in the trail is its branch's number.
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
        // A version that only a redirect leads to is seen in the view that begins below what hides
        // it.
        let follows = stack.merger().follows_redirects();
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

    /// What one branch has of it. The directory is open where the lookup came so far.
    fn version_in(&self, stack: &Stack, branch: usize) -> Result<Option<Stat>> {
        if let Some((place, name)) = &self.place
            && self.rest.is_empty()
            && let Some(dir) = place.dir(branch)
        {
            let grammar = stack.branches[branch].grammar;
            // A branch that had nothing may have been asked for another name.
            if !grammar.has_redirects() && self.said(branch) == Some(Says::Nothing) {
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
            (Entry::Leaf { from, stat, .. }, Some((place, name))) => {
                place.stat_of(*from, name, *stat)
            }
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
    let mut walk = PathWalk::new(root, path);
    while let Some(name) = walk.wanted.pop_front() {
        if name == b".." {
            walk.climb();
            continue;
        }
        match walk.child(&name)? {
            Entry::Dir(node) => walk.nodes.push(node),
            Entry::Leaf { from, kind, .. } if kind == Kind::Symlink && walk.follows(follow) => {
                if walk.links.len() == LINKS_MAX {
                    return Ok(walk.broken(name, Errno::LOOP, Why::Links));
                }
                walk.follow_link(from, &name)?;
            }
            Entry::Leaf { .. } if walk.needs_directory() => {
                return Ok(walk.broken(name, Errno::NOTDIR, Why::NotDirectory));
            }
            entry @ (Entry::Missing
            | Entry::Deleted { .. }
            | Entry::Broken { .. }
            | Entry::Leaf { .. }) => return Ok(walk.end(name, entry)),
        }
    }
    walk.arrive(root)
}

/// How far a path was followed.
struct PathWalk<'s> {
    /// What is left of the path, with the links on the way put into it.
    wanted: VecDeque<Vec<u8>>,
    /// The path ends with a slash: it asks for a directory.
    as_directory: bool,
    /// The directories on the way down, the root first.
    nodes: Vec<Node<'s>>,
    links: Vec<Link>,
    /// The verdicts on the last name, unless `..` or a link came after it.
    trail: Vec<(usize, Says)>,
}

fn ends_as_directory(path: &[u8]) -> bool {
    path.ends_with(b"/") || path.ends_with(b"/.")
}

impl<'s> PathWalk<'s> {
    fn new(root: &Node<'s>, path: &[u8]) -> PathWalk<'s> {
        PathWalk {
            wanted: components(path).map(<[u8]>::to_vec).collect(),
            as_directory: ends_as_directory(path),
            nodes: vec![root.clone()],
            links: Vec::new(),
            trail: Vec::new(),
        }
    }

    fn here(&self) -> &Node<'s> {
        &self.nodes[self.nodes.len() - 1]
    }

    /// Whether only a directory can be the answer to the name that was asked for last.
    fn needs_directory(&self) -> bool {
        !self.wanted.is_empty() || self.as_directory
    }

    /// Whether a link is followed. A trailing slash asks for what it leads to.
    fn follows(&self, follow: Follow) -> bool {
        self.needs_directory() || follow == Follow::All
    }

    /// One directory up, but never out of the root.
    fn climb(&mut self) {
        if self.nodes.len() > 1 {
            self.nodes.pop();
        }
        self.trail.clear();
    }

    fn child(&mut self, name: &[u8]) -> Result<Entry<'s>> {
        let expected = if self.needs_directory() {
            Expected::Directory
        } else {
            Expected::Anything
        };
        let (entry, trail) = self.here().child_with_trail(name, expected)?;
        self.trail = trail;
        Ok(entry)
    }

    fn follow_link(&mut self, from: usize, name: &[u8]) -> Result<()> {
        let here = self.here();
        let fail = |errno| Error::io(here.on_host(from, name), errno);
        let dir = here.dir(from).ok_or_else(|| fail(Errno::NOENT))?;
        let target = dir.read_link(name).map_err(fail)?;
        let link = Link {
            path: here.path_of(name),
            link: Bytes::from(&target[..]),
            branch: from,
        };
        self.links.push(link);
        if self.wanted.is_empty() {
            self.as_directory |= ends_as_directory(&target);
        }
        for part in components(&target).rev() {
            self.wanted.push_front(part.to_vec());
        }
        if target.starts_with(b"/") {
            self.nodes.truncate(1);
        }
        self.trail.clear();
        Ok(())
    }

    /// The lookup ends at a name that leads no further.
    fn end(self, name: Vec<u8>, entry: Entry<'s>) -> Resolution<'s> {
        let here = self.here().clone();
        let start = here.path_of(&name);
        Resolution {
            path: self.wanted.iter().fold(start, |path, part| path.join(part)),
            place: Some((here, name)),
            entry,
            rest: self.wanted.into(),
            links: self.links,
            trail: self.trail,
        }
    }

    fn broken(self, name: Vec<u8>, errno: Errno, why: Why) -> Resolution<'s> {
        self.end(name, Entry::Broken { errno, why })
    }

    /// The lookup ends at a directory, with nothing left of the path.
    fn arrive(mut self, root: &Node<'s>) -> Result<Resolution<'s>> {
        let Some(node) = self.nodes.pop() else {
            return Err(Error::io(root.path(), Errno::NOENT));
        };
        let parent = self.nodes.pop();
        let place = parent.map(|parent| (parent, node.path().file_name().to_vec()));
        if self.trail.is_empty() {
            // The way here ended with `..`, or with a link to where it had been already.
            self.trail = match &place {
                Some((parent, name)) => parent.child_with_trail(name, Expected::Directory)?.1,
                None => root_trail(&node),
            };
        }
        Ok(Resolution {
            path: node.path(),
            place,
            entry: Entry::Dir(node),
            rest: Vec::new(),
            links: self.links,
            trail: self.trail,
        })
    }
}
