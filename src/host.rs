//! Where we look: `/`, or the tree given with `--root`. Every path of the host is resolved
//! inside that tree, so that a link in it can never lead to the machine that layerctl runs on.

use std::cell::{OnceCell, RefCell};
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::branch::Permission;
use crate::bytes::Bytes;
use crate::dir::{Access, Dir, Kind, Stat};
use crate::error::{Error, Result, errno_of};
use crate::union::{Branch, Entry, Follow, Reading, Resolution, Stack, lookup};
use crate::whiteout::Grammar;

/// The largest file that is read, in bytes: none of an engine's state is nearly as large.
const FILE_MAX: u64 = 64 << 20;

/// How many directories are kept open for what is asked next.
const PARENTS_MAX: usize = 1024;

/// The longest path that is opened part by part from what is open already, in bytes: to the kernel
/// no longer one is a path.
const PATH_MAX: usize = 4096;

/// Whether a path has no part that leads up, and ends in a name.
fn is_plain(path: &Bytes) -> bool {
    let bytes = path.as_bytes();
    bytes.len() < PATH_MAX
        && bytes.starts_with(b"/")
        && !bytes.ends_with(b"/")
        && !bytes.ends_with(b"/.")
        && path.components().next().is_some()
        && path.components().all(|part| part != b"..")
}

/// How often a file is read that changes meanwhile.
const ATTEMPTS: usize = 50;

/// How a file is read that somebody else may be writing to.
pub struct Steady {
    /// The largest that is read, in bytes.
    pub size_max: u64,
    /// How much of its beginning is read again when all of it was read, in bytes.
    pub head: usize,
    /// Whether a copy is of one state of the file. It is given the copy and the beginning that was
    /// read again.
    pub is_sound: fn(&[u8], &[u8]) -> bool,
}

/// What is known of the directory that a path is in.
enum Nearest {
    /// The directory itself, and its path with every link resolved.
    Open(Dir, Bytes),
    /// There is none, and so nothing at the path.
    Absent,
    /// It takes more to tell: a link leads elsewhere, or it cannot be opened.
    Unknown,
}

/// The file system that is looked at.
#[derive(Debug)]
pub struct Host {
    root: PathBuf,
    /// The root's paths on this machine, as it was given and with every link resolved: found once.
    roots: OnceCell<Vec<Bytes>>,
    /// Its only branch is the root.
    stack: Stack,
    /// The directories in which something was asked for, each with its path with every link
    /// resolved. An engine's records lie side by side.
    parents: RefCell<HashMap<Bytes, (Dir, Bytes)>>,
    /// What the links said that do not change while what has them is there.
    links: RefCell<HashMap<Bytes, Result<Option<Bytes>>>>,
    /// The directories that are not there, while many places are looked at in a moment.
    absent: RefCell<Option<HashSet<Bytes>>>,
}

impl Host {
    /// Opens the host whose root is a directory of the machine.
    ///
    /// # Errors
    /// The root cannot be opened.
    pub fn open(root: &Path) -> Result<Host> {
        let dir = Dir::open_root(root)?;
        let branch = Branch {
            path: Bytes::from("/"),
            permission: Permission::RO,
            grammar: Grammar::Plain,
            dir: Ok(dir),
            owners: None,
            overrides: None,
        };
        Ok(Host {
            parents: RefCell::default(),
            links: RefCell::default(),
            absent: RefCell::default(),
            root: root.to_owned(),
            roots: OnceCell::new(),
            stack: Stack {
                branches: vec![branch],
                base: None,
                is_unwatched: false,
            },
        })
    }

    /// Whether this is the running machine. Under any other root nothing is live, whatever the
    /// copied mount table says.
    pub fn is_live(&self) -> bool {
        self.root == Path::new("/")
    }

    /// Whether this is the running machine under another name: its own root again, or that of
    /// another namespace, with a `/proc` that lives.
    pub fn is_alias(&self) -> bool {
        !self.is_live() && (self.is_own_root() || self.has_living_proc())
    }

    /// Whether this is the running machine, looked at from where another directory is the root: from a
    /// container that has the machine's root mounted.
    pub fn is_other_root(&self) -> bool {
        !self.is_live() && !self.is_own_root() && self.has_living_proc()
    }

    fn is_own_root(&self) -> bool {
        let identity = |dir: Result<Dir>| {
            let stat = dir.ok()?.stat_self().ok()?;
            Some(stat.identity())
        };
        let own = identity(self.stack.branches[0].dir.clone());
        own.is_some() && own == identity(Dir::open_root(Path::new("/")))
    }

    fn has_living_proc(&self) -> bool {
        let proc = self.open_dir(&Bytes::from("/proc"));
        proc.is_ok_and(|proc| proc.is_proc())
    }

    /// The path on the host that a path of this machine is; none where it lies outside of the root
    /// that was given, and on the running machine.
    pub fn inside(&self, path: &Path) -> Option<Bytes> {
        if self.is_live() {
            return None;
        }
        let path = Bytes::from(std::path::absolute(path).ok()?.as_path());
        let roots = self.roots.get_or_init(|| {
            let root = std::path::absolute(&self.root).ok();
            let real = root.as_ref().and_then(|root| root.canonicalize().ok());
            let roots = root.into_iter().chain(real);
            roots.map(|root| Bytes::from(root.as_path())).collect()
        });
        roots.iter().find_map(|root| path.strip_prefix(root))
    }

    /// The root as the person gave it.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What `path` is on the host, links followed inside it.
    ///
    /// # Errors
    /// A directory on the way that cannot be searched.
    pub fn lookup(&self, path: &[u8], follow: Follow) -> Result<Resolution<'_>> {
        lookup(&self.stack.whole(Reading::Nothing), path, follow)
    }

    /// Opens a directory of the host.
    ///
    /// # Errors
    /// `ENOENT`, `ENOTDIR`, or what the system call says.
    pub fn open_dir(&self, path: &Bytes) -> Result<Dir> {
        self.open_real(path).map(|(dir, _)| dir)
    }

    /// Opens a directory of the host that will be asked for again, and keeps it open.
    ///
    /// # Errors
    /// As [`Host::open_dir`].
    pub fn open_and_keep(&self, path: &Bytes) -> Result<()> {
        let opened = self.open_real(path)?;
        self.keep(path.clone(), opened);
        Ok(())
    }

    /// Looks at many places: a directory in which several would be is missed once. What was
    /// missing may be there a moment later, so that it is forgotten afterwards.
    pub fn missing_once<T>(&self, look: impl FnOnce() -> T) -> T {
        let before = self.absent.replace(Some(HashSet::new()));
        let found = look();
        self.absent.replace(before);
        found
    }

    fn keep(&self, path: Bytes, opened: (Dir, Bytes)) {
        let mut parents = self.parents.borrow_mut();
        if parents.len() >= PARENTS_MAX {
            parents.clear();
        }
        parents.insert(path, opened);
    }

    /// Opens a directory of the host, and says what it is when links are resolved.
    ///
    /// # Errors
    /// As [`Host::open_dir`].
    pub fn open_real(&self, path: &Bytes) -> Result<(Dir, Bytes)> {
        if let Some(known) = self.parents.borrow().get(path) {
            return Ok(known.clone());
        }
        if is_plain(path) {
            match self.parent_dir(path) {
                Nearest::Open(dir, real) => match dir.child(path.file_name(), Access::Lookup) {
                    Ok(dir) => return Ok((dir, real.join(path.file_name()))),
                    Err(Errno::NOENT) => return Err(Error::io(path.clone(), Errno::NOENT)),
                    // It may be a link.
                    Err(_) => {}
                },
                Nearest::Absent => return Err(Error::io(path.clone(), Errno::NOENT)),
                Nearest::Unknown => {}
            }
        }
        self.open_resolved(path)
    }

    fn open_resolved(&self, path: &Bytes) -> Result<(Dir, Bytes)> {
        let found = self.lookup(path.as_bytes(), Follow::All)?;
        match &found.entry {
            Entry::Dir(node) => match node.dir(0) {
                Some(dir) => Ok((dir.clone(), found.path)),
                None => Err(Error::io(path.clone(), Errno::NOENT)),
            },
            Entry::Leaf { .. } => Err(Error::io(path.clone(), Errno::NOTDIR)),
            Entry::Broken { errno, .. } => Err(Error::io(path.clone(), *errno)),
            Entry::Missing | Entry::Deleted { .. } => Err(Error::io(path.clone(), Errno::NOENT)),
        }
    }

    /// The directory that a path lies in, opened from the nearest one that is open already.
    fn parent_dir(&self, path: &Bytes) -> Nearest {
        let parent = path.parent();
        if let Some(known) = self.parents.borrow().get(&parent) {
            return Nearest::Open(known.0.clone(), known.1.clone());
        }
        let absent = self.absent.borrow();
        if absent.as_ref().is_some_and(|of| of.contains(&parent)) {
            return Nearest::Absent;
        }
        drop(absent);
        let (dir, real) = match (parent.file_name(), &self.stack.branches[0].dir) {
            (b"", Ok(root)) => (root.clone(), Bytes::from("/")),
            (b"", Err(_)) => return Nearest::Unknown,
            (name, _) => match self.parent_dir(&parent) {
                Nearest::Open(above, real) => match above.child(name, Access::Lookup) {
                    Ok(child) => (child, real.join(name)),
                    Err(Errno::NOENT) => {
                        if let Some(absent) = self.absent.borrow_mut().as_mut() {
                            absent.insert(parent);
                        }
                        return Nearest::Absent;
                    }
                    // A link leads elsewhere.
                    Err(Errno::NOTDIR | Errno::LOOP) => match self.open_resolved(&parent) {
                        Ok(found) => found,
                        Err(_) => return Nearest::Unknown,
                    },
                    Err(_) => return Nearest::Unknown,
                },
                nearest => return nearest,
            },
        };
        self.keep(parent, (dir.clone(), real.clone()));
        Nearest::Open(dir, real)
    }

    /// What is at a path, and the directory that it is in, unless it takes more to tell: a link
    /// leads elsewhere.
    fn known(&self, path: &Bytes) -> Option<Option<(Dir, Stat)>> {
        if !is_plain(path) {
            return None;
        }
        let dir = match self.parent_dir(path) {
            Nearest::Open(dir, _) => dir,
            Nearest::Absent => return Some(None),
            Nearest::Unknown => return None,
        };
        match dir.stat(path.file_name()) {
            Ok(Some(stat)) if stat.kind == Kind::Symlink => None,
            Ok(stat) => Some(stat.map(|stat| (dir, stat))),
            Err(_) => None,
        }
    }

    /// What `stat` says of a path; `None` where nothing is there.
    ///
    /// # Errors
    /// A directory on the way that cannot be searched.
    pub fn stat(&self, path: &Bytes) -> Result<Option<Stat>> {
        if let Some(known) = self.known(path) {
            return Ok(known.map(|(_, stat)| stat));
        }
        let found = self.lookup(path.as_bytes(), Follow::All)?;
        match found.entry.kind() {
            Some(_) => found.stat().map(Some),
            None => Ok(None),
        }
    }

    /// A path with every symbolic link resolved, whether or not its end exists.
    ///
    /// # Errors
    /// A directory on the way that cannot be searched.
    pub fn resolve(&self, path: &Bytes) -> Result<Bytes> {
        Ok(self.lookup(path.as_bytes(), Follow::All)?.path)
    }

    /// What a symbolic link says; `None` where there is none.
    ///
    /// # Errors
    /// A directory on the way that cannot be searched; what the system call says.
    pub fn read_link(&self, path: &Bytes) -> Result<Option<Bytes>> {
        if is_plain(path)
            && let Nearest::Open(dir, _) = self.parent_dir(path)
        {
            return match dir.read_link(path.file_name()) {
                Ok(target) => Ok(Some(Bytes(target))),
                // It is no link, or not there.
                Err(Errno::INVAL | Errno::NOENT) => Ok(None),
                Err(errno) => Err(Error::io(path.clone(), errno)),
            };
        }
        let found = self.lookup(path.as_bytes(), Follow::NotLast)?;
        let (Some(Kind::Symlink), Some((place, name))) = (found.entry.kind(), &found.place) else {
            return Ok(None);
        };
        let target = place.dir(0).map(|dir| dir.read_link(name)).transpose();
        let target = target.map_err(|errno| Error::io(path.clone(), errno))?;
        Ok(target.map(|target| Bytes::from(&target[..])))
    }

    /// The same of a link that does not change while what has it is there: it is read once.
    ///
    /// # Errors
    /// As [`Host::read_link`].
    pub fn read_link_once(&self, path: &Bytes) -> Result<Option<Bytes>> {
        if let Some(known) = self.links.borrow().get(path) {
            return known.clone();
        }
        let read = self.read_link(path);
        self.links.borrow_mut().insert(path.clone(), read.clone());
        read
    }

    /// Reads a small file whole. Kernel files are read to their end, whatever size they claim.
    ///
    /// # Errors
    /// What the system call says; a file that is no regular file, or is larger than 64 MiB.
    pub fn read(&self, path: &Bytes) -> Result<Vec<u8>> {
        let file = self.open_file(path)?;
        // Most are small, and a kernel's file does not say how large it is.
        let mut bytes = Vec::with_capacity(4 << 10);
        file.take(FILE_MAX + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| Error::io(path.clone(), errno_of(&error)))?;
        if bytes.len() as u64 > FILE_MAX {
            return Err(Error::damaged(
                path.clone(),
                "larger than 64 MiB, which no such file is",
            ));
        }
        Ok(bytes)
    }

    /// Opens a large file to be read piece by piece, and says how large it is, in bytes.
    ///
    /// # Errors
    /// What the system call says; a file that is no regular file.
    pub fn open_sized(&self, path: &Bytes) -> Result<(File, u64)> {
        let file = self.open_file(path)?;
        let size = file.metadata();
        let size = size.map_err(|error| Error::io(path.clone(), errno_of(&error)))?;
        Ok((file, size.len()))
    }

    fn open_file(&self, path: &Bytes) -> Result<File> {
        if is_plain(path) {
            match self.parent_dir(path) {
                Nearest::Open(dir, _) => match dir.open_file(path.file_name()) {
                    Ok(file) => return Ok(File::from(file)),
                    Err(Errno::NOENT) => return Err(Error::io(path.clone(), Errno::NOENT)),
                    // It may be a link, or a directory.
                    Err(_) => {}
                },
                Nearest::Absent => return Err(Error::io(path.clone(), Errno::NOENT)),
                Nearest::Unknown => {}
            }
        }
        let found = self.lookup(path.as_bytes(), Follow::All)?;
        let fail = |errno| Error::io(path.clone(), errno);
        let (place, name) = match (&found.entry, &found.place) {
            (Entry::Leaf { .. }, Some(place)) => place,
            (Entry::Dir(_), _) => return Err(fail(Errno::ISDIR)),
            (Entry::Broken { errno, .. }, _) => return Err(fail(*errno)),
            _ => return Err(fail(Errno::NOENT)),
        };
        let dir = place.dir(0).ok_or_else(|| fail(Errno::NOENT))?;
        dir.open_file(name).map(File::from).map_err(fail)
    }

    /// Reads a file that somebody else may be writing to.
    ///
    /// # Errors
    /// What the system call says; one that is too large, or kept changing while it was read.
    pub fn read_steady(&self, path: &Bytes, steady: Steady) -> Result<Vec<u8>> {
        let fail = |error: io::Error| Error::io(path.clone(), errno_of(&error));
        for _ in 0..ATTEMPTS {
            let mut file = self.open_file(path)?;
            let mut bytes = Vec::new();
            let limit = (&mut file).take(steady.size_max + 1);
            { limit }.read_to_end(&mut bytes).map_err(fail)?;
            if bytes.len() as u64 > steady.size_max {
                return Err(Error::damaged(path.clone(), "is too large to be read"));
            }
            let mut again = vec![0; steady.head.min(bytes.len())];
            file.rewind().map_err(fail)?;
            file.read_exact(&mut again).map_err(fail)?;
            if (steady.is_sound)(&bytes, &again) {
                return Ok(bytes);
            }
        }
        Err(Error::damaged(
            path.clone(),
            "kept changing while it was read",
        ))
    }

    /// The names in a directory, sorted; none where the directory does not exist.
    ///
    /// # Errors
    /// A directory that is there and cannot be listed.
    pub fn list(&self, path: &Bytes) -> Result<Vec<(Vec<u8>, Kind)>> {
        let dir = match self.open_dir(path) {
            Err(error) if error.is_absent() => return Ok(Vec::new()),
            result => result?,
        };
        Self::list_dir(&dir, path)
    }

    /// The names in an open directory, sorted. `path` is what messages call it.
    ///
    /// # Errors
    /// It cannot be listed.
    pub fn list_dir(dir: &Dir, path: &Bytes) -> Result<Vec<(Vec<u8>, Kind)>> {
        let fail = |errno| Error::io(path.clone(), errno);
        let dir = dir.child(b".", Access::List).map_err(fail)?;
        let names = dir.names().map_err(fail)?;
        Ok(names
            .iter()
            .map(|(name, kind)| (name.to_vec(), kind))
            .collect())
    }
}
