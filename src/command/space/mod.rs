//! How much space things take on disk: blocks, hard links once, other file systems not at all.

mod tree;

use std::collections::{BTreeMap, HashSet};
use std::num::NonZeroUsize;

use crate::bytes::Bytes;
use crate::engine::usage::Space;
use crate::engine::{Engine, Survey};
use crate::error::{Error, Result};
use crate::interrupt::Interrupt;
use tree::{FileSize, Files, SETTLED, Visited};

/// How many of the largest files are told of one layer.
pub const LARGEST: usize = 10;
/// How many are kept: a few are no content, but an engine's own beside it.
const KEPT: usize = LARGEST + 6;

/// What a walk found.
#[derive(Debug, Default)]
pub struct Walked {
    /// Bytes on disk, of everything.
    pub total: u64,
    pub spaces: BTreeMap<Space, u64>,
    /// What is of no known kind: the data directory's own entries, with what is in each, as paths of
    /// the host.
    pub others: BTreeMap<Bytes, u64>,
    /// The largest files of each layer, and of what is kept beside one, largest first, as paths of
    /// the host.
    pub largest: BTreeMap<Space, Vec<(u64, Bytes)>>,
    /// What was still to be walked when somebody ended the walk; none where it came to its end.
    pub unreached: Option<HashSet<Space>>,
    /// What could not be read.
    pub problems: Vec<Error>,
}

/// A walk that a person may be waiting for, and end.
pub struct Patience {
    interrupt: Interrupt,
}

impl Patience {
    /// Lets Ctrl-C end it.
    pub fn new() -> Patience {
        Patience {
            interrupt: Interrupt::catch(),
        }
    }

    fn is_over(&self) -> bool {
        self.interrupt.is_pressed()
    }
}

impl Walked {
    /// The bytes on disk of one space; none where somebody ended the walk before all of it was
    /// reached.
    pub fn of(&self, space: &Space) -> Option<u64> {
        match (&self.unreached, self.spaces.get(space)) {
            (None, size) => Some(size.copied().unwrap_or_default()),
            (Some(left), Some(size)) if !left.contains(space) => Some(*size),
            (Some(_), _) => None,
        }
    }

    /// Walks a store: what belongs to what is for its engine to say.
    ///
    /// # Errors
    /// The store cannot be opened.
    pub fn store(
        survey: &Survey<'_>,
        engine: &dyn Engine,
        (threads, patience): (NonZeroUsize, &Patience),
    ) -> Result<Walked> {
        let mut walked = Walked::default();
        let space = |inside: &Bytes| {
            // What lies in a mount point is no layer's.
            let mut above = inside.parent();
            while above.as_bytes() != b"/" {
                if engine.is_merged(&above) {
                    return Space::Beneath(above);
                }
                above = above.parent();
            }
            engine.space_of(inside)
        };
        let how = (threads, Some(patience));
        walked.walk(survey, engine.root(), &space, how)?;
        for directory in engine.directories_elsewhere() {
            let space = |inside: &Bytes| engine.space_elsewhere(&directory.join_path(inside));
            walked.walk(survey, &directory, &space, how)?;
        }
        Ok(walked)
    }

    /// Leaves out what an engine keeps in a store for another one, whose it is to tell.
    pub fn leave_out(&mut self, space: &Space) {
        self.total -= self.spaces.remove(space).unwrap_or_default();
        self.largest.remove(space);
    }

    /// Walks one directory.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn directory(survey: &Survey<'_>, path: &Bytes, threads: NonZeroUsize) -> Result<Walked> {
        let mut walked = Walked::default();
        walked.walk(survey, path, &|_| Space::Other, (threads, None))?;
        Ok(walked)
    }

    fn walk(
        &mut self,
        survey: &Survey<'_>,
        root: &Bytes,
        space: &dyn Fn(&Bytes) -> Space,
        (threads, patience): (NonZeroUsize, Option<&Patience>),
    ) -> Result<()> {
        let mut sums = Sums {
            walked: self,
            root,
            space,
            spaces: Vec::new(),
            links: HashSet::new(),
            unreached: HashSet::new(),
        };
        let is_over = || patience.is_some_and(Patience::is_over);
        tree::walk(survey, root, threads, &is_over, |visited| sums.add(visited))?;
        if !sums.unreached.is_empty() {
            let left = sums.unreached;
            let what = "was not walked to its end: what is shown is a part";
            self.problems.push(Error::damaged(root.clone(), what));
            self.unreached.get_or_insert_default().extend(left);
        }
        Ok(())
    }

    /// So many bytes more in a space, in the first part of a path below a root.
    fn count(&mut self, space: &Space, root: &Bytes, path: &Bytes, bytes: u64) {
        self.total += bytes;
        *self.spaces.entry(space.clone()).or_default() += bytes;
        let first = path.components().next().filter(|_| *space == Space::Other);
        if let Some(first) = first {
            *self.others.entry(root.join(first)).or_default() += bytes;
        }
    }

    /// A file of a space, if it is one of the largest there.
    fn tell(&mut self, space: &Space, bytes: u64, path: impl FnOnce() -> Bytes) {
        let is_told = matches!(
            space,
            Space::Layer { .. }
                | Space::Container(_)
                | Space::Log(_)
                | Space::Overlaid(_)
                | Space::Beneath(_)
        );
        if !is_told {
            return;
        }
        match self.largest.get_mut(space) {
            Some(largest) => keep_largest(largest, bytes, path),
            None => {
                let first = vec![(bytes, path())];
                self.largest.insert(space.clone(), first);
            }
        }
    }
}

/// Keeps a file among so many others of the same that are as large.
fn keep_largest<P>(largest: &mut Vec<(u64, P)>, bytes: u64, path: impl FnOnce() -> P) {
    let is_large = largest.len() < KEPT || largest.last().is_some_and(|last| last.0 < bytes);
    if is_large {
        let at = largest.partition_point(|of| of.0 >= bytes);
        largest.insert(at, (bytes, path()));
        largest.truncate(KEPT);
    }
}

/// Adds up what a walk finds.
struct Sums<'w> {
    walked: &'w mut Walked,
    /// Where the walk began.
    root: &'w Bytes,
    /// What a path in the store is for.
    space: &'w dyn Fn(&Bytes) -> Space,
    /// What the directories on the way down are for, as far as that is asked.
    spaces: Vec<Space>,
    /// The files with several names that were counted.
    links: HashSet<(u64, u64)>,
    unreached: HashSet<Space>,
}

impl Sums<'_> {
    fn add(&mut self, visited: Visited) {
        let Visited { path, files, .. } = visited;
        self.spaces.truncate(visited.depth);
        if visited.depth <= SETTLED {
            self.spaces.push((self.space)(&path));
        }
        let Some(space) = self.spaces.last().cloned() else {
            return;
        };
        self.walked.problems.extend(visited.problems);
        self.walked.count(&space, self.root, &path, visited.own);
        match files {
            Files::Unreached => {
                self.unreached.insert(space);
            }
            Files::Each(files) => {
                // What lies in a layer, or beneath a mount, is of nothing else.
                let is_same = matches!(space, Space::Layer { .. } | Space::Beneath(_));
                for file in files {
                    if is_same {
                        self.file(&space, &path, file);
                    } else {
                        let of_file = (self.space)(&path.join(&file.name));
                        self.file(&of_file, &path, file);
                    }
                }
            }
            Files::Sum {
                bytes,
                largest,
                links,
            } => {
                self.walked.count(&space, self.root, &path, bytes);
                for (bytes, name) in largest {
                    let root = self.root;
                    self.walked
                        .tell(&space, bytes, || root.join_path(&path.join(&name)));
                }
                for file in links {
                    self.file(&space, &path, file);
                }
            }
        }
    }

    /// One file in a directory, if it was not met under another name.
    fn file(&mut self, space: &Space, directory: &Bytes, file: FileSize) {
        if file.link.is_some_and(|link| !self.links.insert(link)) {
            return;
        }
        let path = || directory.join(&file.name);
        if *space == Space::Other {
            self.walked.count(space, self.root, &path(), file.bytes);
        } else {
            self.walked.count(space, self.root, directory, file.bytes);
        }
        if file.is_content {
            let root = self.root;
            self.walked
                .tell(space, file.bytes, || root.join_path(&path()));
        }
    }
}
