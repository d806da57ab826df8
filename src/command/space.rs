//! How much space things take on disk: blocks, hard links once, other file systems not at all.

use std::collections::{BTreeMap, HashSet};

use rustix::io::Errno;

use crate::bytes::Bytes;
use crate::dir::{Access, Dir, Kind, Stat};
use crate::engine::usage::Space;
use crate::engine::{Engine, Survey};
use crate::error::{Error, Result};
use crate::interrupt::Interrupt;

/// How many of the largest files are told of one layer.
pub const LARGEST: usize = 10;
/// How many are kept: a few are no content, but an engine's own beside it.
const KEPT: usize = LARGEST + 6;

/// How deep in a store it is settled what a path is for: what lies below is for the same.
const SETTLED: usize = 8;

/// A directory that is still to be walked.
struct Pending {
    dir: Dir,
    /// Its path in the store.
    path: Bytes,
    /// How many parts that has.
    depth: usize,
    space: Space,
}

/// The file system that a walk stays on.
struct Extent {
    /// The numbers of its mounts; none where the kernel does not tell.
    mounts: Vec<u64>,
    device: u64,
    /// Where the walk began, with every link resolved.
    root: Bytes,
}

impl Extent {
    fn around(survey: &Survey<'_>, dir: &Dir, own: &Stat, root: &Bytes) -> Result<Extent> {
        Ok(Extent {
            mounts: dir.mount_id().into_iter().collect(),
            device: own.dev,
            root: survey.host.resolve(root)?,
        })
    }

    /// Whether a directory is on it. A subvolume has a device of its own, and is of the same mount; a
    /// directory that is mounted on itself is of another mount.
    fn has(&mut self, survey: &Survey<'_>, dir: &Dir, stat: &Stat, inside: &Bytes) -> bool {
        let Some(mount) = dir.mount_id().filter(|_| !self.mounts.is_empty()) else {
            return stat.dev == self.device;
        };
        if self.mounts.contains(&mount) {
            return true;
        }
        let is_itself = stat.dev == self.device
            && survey.host.is_live()
            && survey
                .table
                .is_mounted_on_itself(&self.root.join_path(inside));
        if is_itself {
            self.mounts.push(mount);
        }
        is_itself
    }
}

/// What a walk found.
#[derive(Debug, Default)]
pub struct Walked {
    /// Bytes on disk, of everything.
    pub total: u64,
    pub spaces: BTreeMap<Space, u64>,
    /// What is of no known kind: the data directory's own entries, with what is in each.
    pub others: BTreeMap<Bytes, u64>,
    /// The largest files of each layer, and of what is kept beside one, largest first, by their
    /// paths in the store.
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
    pub fn store(survey: &Survey<'_>, engine: &dyn Engine, patience: &Patience) -> Result<Walked> {
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
        walked.walk(survey, engine.root(), &space, Some(patience))?;
        Ok(walked)
    }

    /// Walks one directory.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn directory(survey: &Survey<'_>, path: &Bytes) -> Result<Walked> {
        let mut walked = Walked::default();
        walked.walk(survey, path, &|_| Space::Other, None)?;
        Ok(walked)
    }

    fn walk(
        &mut self,
        survey: &Survey<'_>,
        root: &Bytes,
        space: &dyn Fn(&Bytes) -> Space,
        patience: Option<&Patience>,
    ) -> Result<()> {
        let dir = survey.host.open_dir(root)?;
        let start = Bytes::from("/");
        let own = dir.stat_self();
        let own = own.map_err(|errno| Error::io(root.clone(), errno))?;
        let mut extent = Extent::around(survey, &dir, &own, root)?;
        let of_start = space(&start);
        self.add(&of_start, &own, &start);
        let mut links: HashSet<(u64, u64)> = HashSet::new();
        let mut pending: Vec<Pending> = vec![Pending {
            dir,
            path: start,
            depth: 0,
            space: of_start,
        }];
        while let Some(Pending {
            dir,
            path,
            depth,
            space: of_parent,
        }) = pending.pop()
        {
            if patience.is_some_and(Patience::is_over) {
                let what = "was not walked to its end: what is shown is a part";
                self.problems.push(Error::damaged(root.clone(), what));
                let left = pending.into_iter().map(|of| of.space);
                self.unreached = Some(left.chain([of_parent]).collect());
                return Ok(());
            }
            let dir = dir.child(b".", Access::List);
            let listed = dir.and_then(|dir| Ok((dir.names()?, dir)));
            let (names, dir) = match listed {
                Ok(listed) => listed,
                Err(errno) => {
                    self.problems.push(Error::io(root.join_path(&path), errno));
                    continue;
                }
            };
            // To look through the whole path at each level would make deep trees take for ever.
            let space_of = |inside: &Bytes| {
                if depth < SETTLED {
                    space(inside)
                } else {
                    of_parent.clone()
                }
            };
            for (name, _) in names.iter() {
                let inside = path.join(name);
                let found = dir.stat(name).and_then(|stat| stat.ok_or(Errno::NOENT));
                let Some(stat) = self.told(root, &inside, found) else {
                    continue;
                };
                if stat.kind == Kind::Directory {
                    let entered = self.told(root, &inside, dir.child(name, Access::Lookup));
                    let is_here = |below: &Dir| extent.has(survey, below, &stat, &inside);
                    let Some(below) = entered.filter(is_here) else {
                        continue;
                    };
                    let space = space_of(&inside);
                    self.add(&space, &stat, &inside);
                    // A union that is mounted has another number; without one there is only disk.
                    pending.push(Pending {
                        dir: below,
                        path: inside,
                        depth: depth + 1,
                        space,
                    });
                } else if stat.nlink < 2 || links.insert(stat.identity()) {
                    self.add(&space_of(&inside), &stat, &inside);
                }
            }
        }
        Ok(())
    }

    /// What was read of an entry, if it could be. One that has vanished meanwhile is none.
    fn told<T>(&mut self, root: &Bytes, path: &Bytes, read: Result<T, Errno>) -> Option<T> {
        match read {
            Ok(read) => Some(read),
            Err(Errno::NOENT) => None,
            Err(errno) => {
                self.problems.push(Error::io(root.join_path(path), errno));
                None
            }
        }
    }

    fn add(&mut self, space: &Space, stat: &Stat, path: &Bytes) {
        let bytes = stat.blocks * 512;
        self.total += bytes;
        *self.spaces.entry(space.clone()).or_default() += bytes;
        let first = path.components().next().filter(|_| *space == Space::Other);
        if let Some(first) = first {
            *self.others.entry(Bytes::absolute([first])).or_default() += bytes;
        }
        let is_told = matches!(
            space,
            Space::Layer { .. } | Space::Container(_) | Space::Log(_) | Space::Beneath(_)
        );
        if stat.kind == Kind::File && is_told {
            let largest = self.largest.entry(space.clone()).or_default();
            let is_large =
                largest.len() < KEPT || largest.last().is_some_and(|last| last.0 < bytes);
            if is_large {
                let at = largest.partition_point(|of| of.0 >= bytes);
                largest.insert(at, (bytes, path.clone()));
                largest.truncate(KEPT);
            }
        }
    }
}
