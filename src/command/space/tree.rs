//! The walk itself: several threads look, one adds up what they find, in the order of the paths.

use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::sync::RwLock;

use rustix::io::Errno;

use super::keep_largest;
use crate::bytes::Bytes;
use crate::dir::{Access, Dir, Kind, Names, Stat};
use crate::engine::Survey;
use crate::engine::mount_table::MountTable;
use crate::error::{Error, Result};
use crate::walk::{Found, Rows, walk_all};

/// How deep in a store it is settled what a path is for: what lies below is for the same. To look
/// through the whole path at each level would make deep trees take for ever.
pub(super) const SETTLED: usize = 8;

/// What was found in one directory.
pub(super) struct Visited {
    /// Its path in the store.
    pub path: Bytes,
    /// How many parts that has.
    pub depth: usize,
    /// What it takes itself, in bytes.
    pub own: u64,
    pub files: Files,
    /// What could not be read.
    pub problems: Vec<Error>,
}

/// What is in a directory beside further directories.
pub(super) enum Files {
    /// Somebody ended the walk before it was read.
    Unreached,
    /// Each entry, since what it is for is asked one by one.
    Each(Vec<FileSize>),
    /// What all is for the same.
    Sum {
        /// On disk, without what has several names.
        bytes: u64,
        /// The largest files of that, with their names.
        largest: Vec<(u64, Vec<u8>)>,
        /// What has several names.
        links: Vec<FileSize>,
    },
}

/// What is no directory.
pub(super) struct FileSize {
    pub name: Vec<u8>,
    /// On disk.
    pub bytes: u64,
    /// Whether it has content: a device has none.
    pub is_content: bool,
    /// What it is known by, where it may have other names.
    pub link: Option<(u64, u64)>,
}

impl FileSize {
    fn new(name: &[u8], stat: &Stat) -> FileSize {
        FileSize {
            name: name.to_vec(),
            bytes: stat.disk(),
            is_content: stat.kind == Kind::File,
            link: (stat.nlink > 1).then(|| stat.identity()),
        }
    }
}

/// What a visit found, and how much memory that takes.
#[derive(Default)]
struct Visits {
    visited: Vec<Visited>,
    size: usize,
}

impl Rows for Visits {
    fn is_empty(&self) -> bool {
        self.visited.is_empty()
    }

    fn size(&self) -> usize {
        self.size
    }

    fn append(&mut self, mut later: Self) {
        self.visited.append(&mut later.visited);
        self.size += later.size;
    }

    fn with_room_for(like: &Self) -> Self {
        Visits {
            visited: Vec::with_capacity(like.visited.len()),
            size: 0,
        }
    }
}

impl Visits {
    fn push(&mut self, visited: Visited) {
        let entries = match &visited.files {
            Files::Unreached => 0,
            Files::Each(files) => files.len(),
            Files::Sum { largest, links, .. } => largest.len() + links.len(),
        };
        self.size += size_of::<Visited>() + visited.path.as_bytes().len();
        self.size += entries * 2 * size_of::<FileSize>();
        self.visited.push(visited);
    }
}

/// A directory that is still to be visited.
struct Pending {
    parent: Dir,
    /// Its own name; a dot for where the walk begins.
    name: Vec<u8>,
    path: Bytes,
    depth: usize,
    stat: Stat,
}

/// The file system that a walk stays on.
struct Extent<'s> {
    /// The numbers of its mounts; none where the kernel does not tell.
    mounts: RwLock<Vec<u64>>,
    device: u64,
    /// Where the walk began, with every link resolved.
    root: Bytes,
    /// What is mounted; none where the host is not this one.
    table: Option<&'s MountTable>,
}

impl<'s> Extent<'s> {
    fn around(survey: &'s Survey<'_>, dir: &Dir, own: &Stat, root: &Bytes) -> Result<Extent<'s>> {
        let is_this = survey.host.is_live() || survey.host.is_alias();
        Ok(Extent {
            mounts: RwLock::new(dir.mount_id().into_iter().collect()),
            device: own.dev,
            root: survey.host.resolve(root)?,
            table: is_this.then_some(&survey.table),
        })
    }

    /// Whether a directory is on it. A subvolume has a device of its own, and is of the same mount; a
    /// directory that is mounted on itself is of another mount.
    fn has(&self, dir: &Dir, pending: &Pending) -> bool {
        let known = self.mounts.read().ok().filter(|mounts| !mounts.is_empty());
        let is_of_device = pending.stat.dev == self.device;
        let (Some(known), Some(mount)) = (known, dir.mount_id()) else {
            return is_of_device;
        };
        if known.contains(&mount) {
            return true;
        }
        drop(known);
        let path = || self.root.join_path(&pending.path);
        let table = self.table.filter(|_| is_of_device);
        let is_itself = table.is_some_and(|table| table.is_mounted_on_itself(&path()));
        if is_itself && let Ok(mut mounts) = self.mounts.write() {
            mounts.push(mount);
        }
        is_itself
    }
}

/// Walks a directory with so many threads, and gives what is found in the order of the paths. Once
/// `is_over`, nothing more is read.
///
/// # Errors
/// It cannot be opened.
pub(super) fn walk(
    survey: &Survey<'_>,
    root: &Bytes,
    threads: NonZeroUsize,
    is_over: &(dyn Fn() -> bool + Sync),
    mut add: impl FnMut(Visited),
) -> Result<()> {
    let dir = survey.host.open_dir(root)?;
    let own = dir.stat_self();
    let own = own.map_err(|errno| Error::io(root.clone(), errno))?;
    let walk = Walk {
        root,
        extent: Extent::around(survey, &dir, &own, root)?,
        is_over,
    };
    let start = Pending {
        parent: dir,
        name: b".".to_vec(),
        path: Bytes::from("/"),
        depth: 0,
        stat: own,
    };
    let visit = |pending: Pending, found: &mut Found<'_, Pending, Visits>| {
        walk.visit(&pending, found);
    };
    let _ = walk_all(threads, start, &visit, |batch: Visits| {
        batch.visited.into_iter().for_each(&mut add);
        ControlFlow::Continue(())
    });
    Ok(())
}

struct Walk<'w> {
    /// Where it begins, as the host calls it.
    root: &'w Bytes,
    extent: Extent<'w>,
    is_over: &'w (dyn Fn() -> bool + Sync),
}

impl Walk<'_> {
    fn visit(&self, pending: &Pending, found: &mut Found<'_, Pending, Visits>) {
        let mut visited = Visited {
            path: pending.path.clone(),
            depth: pending.depth,
            own: pending.stat.disk(),
            files: Files::Each(Vec::new()),
            problems: Vec::new(),
        };
        if (self.is_over)() {
            visited.files = Files::Unreached;
            return found.rows().push(visited);
        }
        let (dir, names) = match self.read(pending) {
            Ok(Some(read)) => read,
            Ok(None) => return,
            // What may not be read is there all the same.
            Err(errno) => {
                let path = self.root.join_path(&pending.path);
                visited.problems.push(Error::io(path, errno));
                return found.rows().push(visited);
            }
        };
        visited.files = Files::none(pending.depth);
        let mut directories = Vec::new();
        for (name, _) in names.iter() {
            match dir.stat(name) {
                Ok(Some(stat)) if stat.kind == Kind::Directory => {
                    directories.push((name.to_vec(), stat));
                }
                Ok(Some(stat)) => visited.files.add(name, &stat),
                Ok(None) | Err(Errno::NOENT) => {}
                Err(errno) => {
                    let path = self.root.join_path(&pending.path.join(name));
                    visited.problems.push(Error::io(path, errno));
                }
            }
        }
        found.rows().push(visited);
        for (name, stat) in directories {
            found.directory(Pending {
                parent: dir.clone(),
                path: pending.path.join(&name),
                name,
                depth: pending.depth + 1,
                stat,
            });
        }
    }

    /// Opens and lists a directory; none that has vanished meanwhile, or that is on another file system.
    fn read(&self, pending: &Pending) -> Result<Option<(Dir, Names)>, Errno> {
        let dir = match pending.parent.child(&pending.name, Access::List) {
            Err(Errno::NOENT) => return Ok(None),
            opened => opened?,
        };
        // A union that is mounted has another number; without one there is only disk.
        if pending.depth > 0 && !self.extent.has(&dir, pending) {
            return Ok(None);
        }
        let names = dir.names()?;
        Ok(Some((dir, names)))
    }
}

impl Files {
    /// What a directory of no files has, so deep in a store.
    fn none(depth: usize) -> Files {
        if depth < SETTLED {
            return Files::Each(Vec::new());
        }
        Files::Sum {
            bytes: 0,
            largest: Vec::new(),
            links: Vec::new(),
        }
    }

    fn add(&mut self, name: &[u8], stat: &Stat) {
        match self {
            Files::Unreached => {}
            Files::Each(files) => files.push(FileSize::new(name, stat)),
            Files::Sum { links, .. } if stat.nlink > 1 => links.push(FileSize::new(name, stat)),
            Files::Sum { bytes, largest, .. } => {
                let own = stat.disk();
                *bytes += own;
                if stat.kind == Kind::File {
                    keep_largest(largest, own, || name.to_vec());
                }
            }
        }
    }
}
