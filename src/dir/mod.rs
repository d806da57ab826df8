//! How layers are touched: every system call on a branch is made here, relative to an open
//! directory and never following a symbolic link.
//!
//! Descriptors are few and trees are deep, so a [`Dir`] may be *parked*: its descriptor is
//! closed when too many are open, and opened again from its parent when it is next used. The
//! directory found then must be the one that was parked; another one in its place is an error.
//! Those that were opened while few were stay open.

use std::cell::Cell;
use std::cmp::Ordering as Order;
use std::collections::VecDeque;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, RwLockReadGuard, Weak};

use rustix::buffer::spare_capacity;
use rustix::fs::{self, AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use serde::Serialize;
use smallvec::SmallVec;

use crate::bytes::Bytes;
use crate::error::{Error, Result};

/// The kinds of file that a branch can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    File,
    Directory,
    Symlink,
    Char,
    Block,
    Fifo,
    Socket,
}

impl Kind {
    fn from_file_type(file_type: FileType) -> Option<Kind> {
        Some(match file_type {
            FileType::RegularFile => Kind::File,
            FileType::Directory => Kind::Directory,
            FileType::Symlink => Kind::Symlink,
            FileType::CharacterDevice => Kind::Char,
            FileType::BlockDevice => Kind::Block,
            FileType::Fifo => Kind::Fifo,
            FileType::Socket => Kind::Socket,
            FileType::Unknown => return None,
        })
    }

    pub fn word(self) -> &'static str {
        match self {
            Kind::File => "file",
            Kind::Directory => "directory",
            Kind::Symlink => "symlink",
            Kind::Char => "char",
            Kind::Block => "block",
            Kind::Fifo => "fifo",
            Kind::Socket => "socket",
        }
    }
}

/// What `lstat` says of one entry of a branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    pub kind: Kind,
    /// Permission bits with setuid, setgid and sticky: `mode & 0o7777`.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Bytes.
    pub size: u64,
    /// Seconds and nanoseconds since 1970.
    pub mtime: (i64, u32),
    pub atime: (i64, u32),
    pub ino: u64,
    pub dev: u64,
    pub rdev: u64,
    pub nlink: u64,
    /// 512-byte blocks on disk.
    pub blocks: u64,
}

impl Stat {
    fn from_raw(raw: &fs::Stat) -> Option<Stat> {
        Some(Stat {
            kind: Kind::from_file_type(FileType::from_raw_mode(raw.st_mode))?,
            mode: raw.st_mode & 0o7777,
            uid: raw.st_uid,
            gid: raw.st_gid,
            size: u64::try_from(raw.st_size).unwrap_or(0),
            mtime: (raw.st_mtime, u32::try_from(raw.st_mtime_nsec).unwrap_or(0)),
            atime: (raw.st_atime, u32::try_from(raw.st_atime_nsec).unwrap_or(0)),
            ino: raw.st_ino,
            dev: raw.st_dev,
            rdev: raw.st_rdev,
            nlink: raw.st_nlink,
            blocks: u64::try_from(raw.st_blocks).unwrap_or(0),
        })
    }

    /// What tells a file from all others of the machine: device and inode.
    pub fn identity(&self) -> (u64, u64) {
        (self.dev, self.ino)
    }
}

/// What a directory will be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Looking names up. Needs no read permission and leaves no access time.
    Lookup,
    /// Listing it, too.
    List,
}

/// Of every so many directories that lie one in the other the path is kept.
const PATH_EVERY: usize = 256;

/// An open directory of a branch. Cheap to clone.
#[derive(Clone)]
pub struct Dir(Arc<Inner>);

struct Inner {
    parent: Option<Dir>,
    name: SmallVec<[u8; 24]>,
    /// How long its path is below the directory that was opened by path, in bytes; of some it is
    /// kept, so that whoever asks for a path need not go all the way up.
    path_len: usize,
    path: Option<Box<[u8]>>,
    /// How many directories it lies in.
    depth: usize,
    access: Access,
    fd: RwLock<Option<OwnedFd>>,
    /// Whether it counts against the budget: all but the host's root.
    counted: bool,
    /// Whether its listing was read, so that reading it again starts over.
    was_listed: AtomicBool,
    /// Device and inode, noted when the directory is parked.
    identity: OnceLock<(u64, u64)>,
}

impl Dir {
    /// Opens the directory that the host's root is. Follows symbolic links: the one place that
    /// does, and only for the path that the person gave.
    pub fn open_root(path: &std::path::Path) -> Result<Dir> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = fs::open(path, flags, Mode::empty()).map_err(|errno| Error::io(path, errno))?;
        Ok(Dir::of_fd(fd, &Bytes::from(path)))
    }

    /// A directory that is open already. `path` is what messages call it.
    pub fn of_fd(fd: OwnedFd, path: &Bytes) -> Dir {
        Dir(Arc::new(Inner {
            parent: None,
            path_len: 0,
            path: None,
            depth: 0,
            name: SmallVec::from_slice(path.as_bytes()),
            access: Access::Lookup,
            fd: RwLock::new(Some(fd)),
            counted: false,
            was_listed: AtomicBool::new(false),
            identity: OnceLock::new(),
        }))
    }

    /// The sub-directory `name`. A symbolic link or anything else that is no directory is
    /// `ENOTDIR`.
    pub fn child(&self, name: &[u8], access: Access) -> Result<Dir, Errno> {
        let fd = open_dir_at(&*self.fd()?, name, access)?;
        let depth = self.0.depth + 1;
        let path = depth.is_multiple_of(PATH_EVERY);
        let path = path.then(|| self.path_below(self.top(), name, Bytes::default()));
        let inner = Arc::new(Inner {
            parent: Some(self.clone()),
            path_len: self.0.path_len + 1 + name.len(),
            path: path.map(|Bytes(path)| path.into()),
            depth,
            name: SmallVec::from_slice(name),
            access,
            fd: RwLock::new(Some(fd)),
            counted: true,
            was_listed: AtomicBool::new(false),
            identity: OnceLock::new(),
        });
        budget::opened(&inner);
        Ok(Dir(inner))
    }

    /// A directory below this one, no link followed.
    ///
    /// # Errors
    /// A component that is missing, is no directory, or cannot be opened.
    pub fn descend(&self, path: &Bytes) -> Result<Dir, Error> {
        path.components().try_fold(self.clone(), |dir, name| {
            dir.child(name, Access::Lookup)
                .map_err(|errno| Error::io(dir.path().join(name), errno))
        })
    }

    /// What `lstat` says of `name`; `None` where there is nothing of that name.
    pub fn stat(&self, name: &[u8]) -> Result<Option<Stat>, Errno> {
        match fs::statat(&*self.fd()?, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(raw) => Stat::from_raw(&raw).ok_or(Errno::IO).map(Some),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// What `fstat` says of the directory itself.
    pub fn stat_self(&self) -> Result<Stat, Errno> {
        let raw = fs::fstat(&*self.fd()?)?;
        Stat::from_raw(&raw).ok_or(Errno::IO)
    }

    /// Whether the directory is the kernel's own `/proc`.
    pub fn is_proc(&self) -> bool {
        let found = self.fd().and_then(|fd| fs::fstatfs(&*fd));
        found.is_ok_and(|found| found.f_type == fs::PROC_SUPER_MAGIC)
    }

    /// The mount that the directory is on: two file systems' may have one number, two mounts
    /// never. `None` on kernels before 5.8.
    pub fn mount_id(&self) -> Option<u64> {
        let wanted = fs::StatxFlags::MNT_ID;
        let found = fs::statx(&*self.fd().ok()?, "", AtFlags::EMPTY_PATH, wanted).ok()?;
        (found.stx_mask & wanted.bits() != 0).then_some(found.stx_mnt_id)
    }

    pub fn read_link(&self, name: &[u8]) -> Result<Vec<u8>, Errno> {
        Ok(fs::readlinkat(&*self.fd()?, name, Vec::new())?.into_bytes())
    }

    /// An extended attribute of the directory itself. `None` where it has none of that name, or a
    /// longer one than `max` bytes.
    pub fn attribute_self(&self, name: &str, max: usize) -> Result<Option<Vec<u8>>, Errno> {
        let fd = self.fd()?;
        let mut value = Vec::with_capacity(max);
        let got = match self.0.access {
            Access::List => fs::fgetxattr(&*fd, name, spare_capacity(&mut value)),
            // What was opened for lookups only cannot be asked itself.
            Access::Lookup => fs::getxattr(entry_path(&fd, b"."), name, spare_capacity(&mut value)),
        };
        attribute_or_none(got, value)
    }

    /// The same of an entry, which is not opened.
    pub fn attribute(
        &self,
        entry: &[u8],
        name: &str,
        max: usize,
    ) -> Result<Option<Vec<u8>>, Errno> {
        let fd = self.fd()?;
        let mut value = Vec::with_capacity(max);
        let got = fs::lgetxattr(entry_path(&fd, entry), name, spare_capacity(&mut value));
        attribute_or_none(got, value)
    }

    /// Opens a regular file for reading. Nothing else is ever opened: a fifo would block, a
    /// device would act.
    pub fn open_file(&self, name: &[u8]) -> Result<OwnedFd, Errno> {
        let fd = self.fd()?;
        // Found first without being opened, so that what takes its place meanwhile is not either.
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let found = budget::with_room(|| fs::openat(&*fd, name, flags, Mode::empty()))?;
        match FileType::from_raw_mode(fs::fstat(&found)?.st_mode) {
            FileType::RegularFile => {}
            FileType::Symlink => return Err(Errno::LOOP),
            _ => return Err(Errno::INVAL),
        }
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let path = format!("/proc/self/fd/{}", found.as_raw_fd());
        let opened = without_atime(flags, |flags| {
            budget::with_room(|| fs::open(&path[..], flags, Mode::empty()))
        });
        let file = match opened {
            // Without /proc there is but the name.
            Err(Errno::NOENT) => {
                let flags = flags | OFlags::NOFOLLOW;
                without_atime(flags, |flags| {
                    budget::with_room(|| fs::openat(&*fd, name, flags, Mode::empty()))
                })?
            }
            opened => opened?,
        };
        match FileType::from_raw_mode(fs::fstat(&file)?.st_mode) {
            FileType::RegularFile => Ok(file),
            _ => Err(Errno::INVAL),
        }
    }

    /// Every name in the directory but `.` and `..`, sorted by bytes, with what the listing
    /// itself tells of its kind.
    pub fn names(&self) -> Result<Names, Errno> {
        self.read_names(usize::MAX)
    }

    /// The same, unless there are more than so many: then it is not read to its end.
    pub fn names_up_to(&self, most: usize) -> Result<Option<Names>, Errno> {
        let names = self.read_names(most)?;
        Ok((names.len() <= most).then_some(names))
    }

    fn read_names(&self, most: usize) -> Result<Names, Errno> {
        let fd = self.fd()?;
        let mut reading = READING.take();
        let listed = match self.0.access {
            Access::List => {
                if self.0.was_listed.swap(true, Ordering::Relaxed) {
                    fs::seek(&*fd, fs::SeekFrom::Start(0))?;
                }
                self.read_entries(&fd, most, &mut reading)
            }
            Access::Lookup => {
                let listed = open_dir_at(&*fd, b".", Access::List)?;
                self.read_entries(&listed, most, &mut reading)
            }
        };
        let names = listed.map(|()| reading.names());
        READING.set(reading.emptied());
        names
    }

    fn read_entries(&self, fd: &OwnedFd, most: usize, reading: &mut Reading) -> Result<(), Errno> {
        let mut buffer = std::mem::take(&mut reading.buffer);
        buffer.reserve(ENTRIES);
        let mut raw = fs::RawDir::new(fd, buffer.spare_capacity_mut());
        while let Some(entry) = raw.next() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            let is_last = entry.next_entry_cookie() == NO_PLACE_BEHIND;
            if name != b"." && name != b".." {
                if reading.entries.len() > most {
                    break;
                }
                let kind = match Kind::from_file_type(entry.file_type()) {
                    // Some file systems do not tell the kind in the listing.
                    None => self.stat(name)?.map(|stat| stat.kind),
                    told => told,
                };
                if let Some(kind) = kind {
                    reading.push(name, kind)?;
                }
            }
            if is_last && raw.is_buffer_empty() {
                break;
            }
        }
        reading.buffer = buffer;
        Ok(())
    }

    /// The path from the directory that was opened by path, for messages.
    pub fn path(&self) -> Bytes {
        let top = self.top();
        let path = self.path_below(top, b"", Bytes::default());
        Bytes::from(&top.0.name[..]).join_path(&path)
    }

    /// The directory that was opened by path.
    fn top(&self) -> &Dir {
        let mut top = self;
        while let Some(parent) = &top.0.parent {
            top = parent;
        }
        top
    }

    /// The path from `top`, in which it lies, to a name here, as if `top` were the root. The memory
    /// is that of `used`.
    pub fn path_below(&self, top: &Dir, name: &[u8], used: Bytes) -> Bytes {
        let mut names: SmallVec<[&[u8]; 16]> = SmallVec::new();
        let mut known: &[u8] = b"";
        let mut dir = self;
        while let Some(parent) = dir.0.parent.as_ref().filter(|_| !dir.is_same(top)) {
            if let Some(path) = &dir.0.path {
                known = &path[top.0.path_len..];
                break;
            }
            names.push(&dir.0.name);
            dir = parent;
        }
        let Bytes(mut path) = used;
        path.clear();
        path.reserve(self.0.path_len - top.0.path_len + 1 + name.len());
        path.extend_from_slice(known);
        for name in names.iter().rev() {
            path.push(b'/');
            path.extend_from_slice(name);
        }
        if !name.is_empty() {
            path.push(b'/');
            path.extend_from_slice(name);
        }
        if path.is_empty() {
            path.push(b'/');
        }
        Bytes(path)
    }

    /// Whether the path by which it was opened still leads here.
    ///
    /// # Errors
    /// What the system calls say.
    pub fn is_at_its_path(&self) -> Result<bool, Errno> {
        let mut dir = self;
        while let Some(parent) = &dir.0.parent {
            let found = dir.stat_self().and_then(|own| {
                let found = parent.stat(&dir.0.name)?;
                Ok(found.is_some_and(|found| found.identity() == own.identity()))
            });
            match found {
                Ok(true) => dir = parent,
                // What was parked is not found again, or another one has its place.
                Ok(false) | Err(Errno::STALE | Errno::NOENT | Errno::NOTDIR) => return Ok(false),
                Err(errno) => return Err(errno),
            }
        }
        Ok(true)
    }

    /// Whether it is the same open directory.
    pub fn is_same(&self, other: &Dir) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Whether both were opened by the same path from the same directory.
    pub fn has_same_path(&self, other: &Dir) -> bool {
        let (mut own, mut other) = (self, other);
        while !own.is_same(other) {
            match (&own.0.parent, &other.0.parent) {
                (Some(above), Some(others)) if own.0.name == other.0.name => {
                    (own, other) = (above, others);
                }
                _ => return false,
            }
        }
        true
    }

    /// The open descriptor, opened again where it was parked. While it is held, it stays open.
    pub fn fd(&self) -> Result<Open<'_>, Errno> {
        loop {
            let fd = self.0.fd.read().unwrap_or_else(PoisonError::into_inner);
            if fd.is_some() {
                return Ok(Open(fd));
            }
            drop(fd);
            self.reopen()?;
        }
    }

    /// In a loop, not by recursion: all the parents may be parked, and a tree can be deeper than
    /// the stack.
    fn reopen(&self) -> Result<(), Errno> {
        let mut parked = vec![self];
        while let Some(dir) = parked.last() {
            let parent = dir.0.parent.as_ref().ok_or(Errno::BADF)?;
            let fd = parent.0.fd.read().unwrap_or_else(PoisonError::into_inner);
            let Some(fd) = fd.as_ref() else {
                parked.push(parent);
                continue;
            };
            let fd = open_dir_at(fd, &dir.0.name, dir.0.access)?;
            let stat = fs::fstat(&fd)?;
            if dir.0.identity.get() != Some(&(stat.st_dev, stat.st_ino)) {
                return Err(Errno::STALE);
            }
            // Another thread may have been faster, or be looking whether one was.
            if let Ok(mut own) = dir.0.fd.try_write()
                && own.is_none()
            {
                *own = Some(fd);
                drop(own);
                budget::opened(&dir.0);
            }
            parked.pop();
        }
        Ok(())
    }
}

/// The open descriptor of a directory.
pub struct Open<'d>(RwLockReadGuard<'d, Option<OwnedFd>>);

impl std::ops::Deref for Open<'_> {
    type Target = OwnedFd;

    fn deref(&self) -> &OwnedFd {
        match &*self.0 {
            Some(fd) => fd,
            None => unreachable!("it is looked at before it is given out"),
        }
    }
}

impl std::fmt::Debug for Dir {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Dir({})", self.path())
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let fd = self.fd.get_mut().unwrap_or_else(PoisonError::into_inner);
        if self.counted && fd.is_some() {
            budget::closed();
        }
        // A chain of parents is taken apart in a loop: a tree can be deeper than the stack.
        let mut next = self.parent.take();
        while let Some(Dir(parent)) = next {
            match Arc::into_inner(parent) {
                Some(mut inner) => next = inner.parent.take(),
                None => break,
            }
        }
    }
}

/// Whether the kernel tells this process of `trusted.*` attributes: it takes the right to
/// administer the machine, not just a user namespace.
pub fn reads_trusted_attributes() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| {
        let capabilities = rustix::thread::capabilities(None);
        let is_administrator = capabilities.is_ok_and(|sets| {
            let wanted = rustix::thread::CapabilitySet::SYS_ADMIN;
            sets.effective.contains(wanted)
        });
        is_administrator && !is_in_user_namespace()
    })
}

/// In the machine's own user namespace every user is himself.
pub fn is_in_user_namespace() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(has_own_users)
}

fn has_own_users() -> bool {
    let mut map = String::new();
    let file = Dir::open_root(std::path::Path::new("/proc/self"))
        .ok()
        .and_then(|dir| dir.open_file(b"uid_map").ok());
    // Without /proc nothing tells; then the capability does.
    let Some(file) = file else { return false };
    match std::fs::File::from(file).read_to_string(&mut map) {
        Ok(_) => map.split_whitespace().ne(["0", "0", "4294967295"]),
        Err(_) => false,
    }
}

/// A path to an entry of an open directory, for the calls that take nothing else. The link in
/// `/proc` is the directory itself, whatever has become of its path.
pub fn entry_path(dir: &OwnedFd, name: &[u8]) -> Vec<u8> {
    let directory = format!("/proc/self/fd/{}/", dir.as_raw_fd());
    [directory.as_bytes(), name].concat()
}

fn attribute_or_none(got: Result<usize, Errno>, value: Vec<u8>) -> Result<Option<Vec<u8>>, Errno> {
    match got {
        Ok(_) => Ok(Some(value)),
        Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE) => Ok(None),
        Err(errno) => Err(errno),
    }
}

fn open_dir_at(parent: impl AsFd, name: &[u8], access: Access) -> Result<OwnedFd, Errno> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = |flags| budget::with_room(|| fs::openat(&parent, name, flags, Mode::empty()));
    match access {
        Access::Lookup => open(flags | OFlags::PATH),
        Access::List => without_atime(flags | OFlags::RDONLY, open),
    }
}

/// Reading must not leave an access time; only owners and root may ask for that.
fn without_atime<T>(flags: OFlags, open: impl Fn(OFlags) -> Result<T, Errno>) -> Result<T, Errno> {
    match open(flags | OFlags::NOATIME) {
        Err(Errno::PERM) => open(flags),
        result => result,
    }
}

pub use budget::threads_max;

/// How many directories may be open at once, and which is parked next.
mod budget {
    use super::*;

    const LIMIT_MIN: usize = 4;
    const LIMIT_MAX: usize = 4096;
    /// How many descriptors a thread may need that cannot be parked meanwhile, and its part of
    /// what is open all the time.
    const EACH: usize = 6;
    /// How often it is tried to open something where others have all that can be open.
    const TRIES: usize = 1000;

    static OPEN: AtomicUsize = AtomicUsize::new(0);
    /// Those that may be parked, oldest first: what was opened when half of the limit was reached.
    /// Few walks ever do.
    static QUEUE: Mutex<VecDeque<Weak<Inner>>> = Mutex::new(VecDeque::new());
    /// How many more descriptors the process could open when the first directory was.
    static FREE: OnceLock<usize> = OnceLock::new();

    /// `first` is the number of the first descriptor that is opened: the lowest that is free. Those
    /// below it are somebody else's, and are mostly all that are.
    fn free(first: impl FnOnce() -> usize) -> usize {
        *FREE.get_or_init(|| {
            let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
            let soft = usize::try_from(limit.current.unwrap_or(1024)).unwrap_or(1024);
            soft.saturating_sub(first())
        })
    }

    pub fn opened(inner: &Arc<Inner>) {
        let free = free(|| {
            let fd = inner.fd.read().unwrap_or_else(PoisonError::into_inner);
            let number = fd.as_ref().map(|fd| fd.as_raw_fd());
            number.and_then(|fd| usize::try_from(fd).ok()).unwrap_or(0)
        });
        // The rest is for everything else.
        let limit = (free / 4 * 3).clamp(LIMIT_MIN, LIMIT_MAX);
        let open = OPEN.fetch_add(1, Ordering::Relaxed);
        if open < limit / 2 {
            return;
        }
        let mut queue = QUEUE.lock().unwrap_or_else(PoisonError::into_inner);
        if open >= limit {
            park_oldest(&mut queue);
        }
        queue.push_back(Arc::downgrade(inner));
        if queue.len() > 4 * limit {
            queue.retain(|weak| weak.strong_count() > 0);
        }
    }

    pub fn closed() {
        OPEN.fetch_sub(1, Ordering::Relaxed);
    }

    /// Opens something. Where the process may open no more, a directory is parked for it: what is
    /// counted here is not all that is open.
    pub fn with_room<T>(open: impl Fn() -> Result<T, Errno>) -> Result<T, Errno> {
        for _ in 0..TRIES {
            match open() {
                Err(Errno::MFILE) => {}
                result => return result,
            }
            let mut queue = QUEUE.lock().unwrap_or_else(PoisonError::into_inner);
            match park_oldest(&mut queue) {
                Parked::Yes => {}
                // Another thread has what it looks at open for a moment.
                Parked::InUse => {
                    drop(queue);
                    std::thread::yield_now();
                }
                Parked::Already => break,
            }
        }
        open()
    }

    fn park_oldest(queue: &mut VecDeque<Weak<Inner>>) -> Parked {
        let mut parked = Parked::Already;
        for _ in 0..queue.len() {
            let oldest = queue.pop_front().unwrap_or_default();
            match oldest.upgrade().map(|oldest| park(&oldest)) {
                Some(Parked::Yes) => return Parked::Yes,
                Some(Parked::InUse) => {
                    queue.push_back(oldest);
                    parked = Parked::InUse;
                }
                Some(Parked::Already) | None => {}
            }
        }
        parked
    }

    /// How many threads can look at directories at the same time, as far as open files go; one in
    /// any case.
    pub fn threads_max() -> usize {
        // Before any is open, all but the standard three are free.
        (free(|| 3) / EACH).max(1)
    }

    enum Parked {
        Yes,
        Already,
        InUse,
    }

    fn park(inner: &Inner) -> Parked {
        let Ok(mut fd) = inner.fd.try_write() else {
            return Parked::InUse;
        };
        let Some(open) = fd.as_ref() else {
            return Parked::Already;
        };
        let Ok(stat) = fs::fstat(open) else {
            return Parked::InUse;
        };
        let _ = inner.identity.set((stat.st_dev, stat.st_ino));
        *fd = None;
        closed();
        Parked::Yes
    }
}

/// A directory's listing: names sorted by bytes, in one piece of memory.
#[derive(Debug, Default)]
pub struct Names {
    bytes: Box<[u8]>,
    entries: Box<[Listed]>,
    /// Where the last question was answered: most come in order.
    last: AtomicUsize,
    longest: usize,
    has_directories: bool,
}

/// One entry of a listing.
#[derive(Debug, Clone, Copy)]
struct Listed {
    /// The first bytes of the name, which tell most names apart.
    key: u64,
    start: u32,
    len: u16,
    kind: Kind,
}

impl Listed {
    fn name(self, bytes: &[u8]) -> &[u8] {
        &bytes[self.start as usize..self.start as usize + usize::from(self.len)]
    }
}

/// The first bytes of a name as a number that is ordered as they are. A name has no NUL, so that
/// those that fit whole are equal only if the names are.
fn key_of(name: &[u8]) -> u64 {
    if let Some(first) = name.first_chunk() {
        return u64::from_be_bytes(*first);
    }
    let half = |bytes: &[u8; 4]| u64::from(u32::from_be_bytes(*bytes));
    match (name.first_chunk(), name.last_chunk()) {
        // Where the two overlap they are the same.
        (Some(first), Some(last)) => half(first) << 32 | half(last) << (8 * (8 - name.len())),
        _ => name
            .iter()
            .zip([56, 48, 40])
            .fold(0, |key, (byte, place)| key | u64::from(*byte) << place),
    }
}

/// A listing that is being read. The memory is kept for the next one.
#[derive(Default)]
struct Reading {
    buffer: Vec<u8>,
    bytes: Vec<u8>,
    entries: Vec<Listed>,
}

thread_local! {
    static READING: Cell<Reading> = const { Cell::new(Reading {
        buffer: Vec::new(),
        bytes: Vec::new(),
        entries: Vec::new(),
    }) };
}

/// From how many names on it is worth looking at what they have in common.
const MANY: usize = 256;

/// Sorts names of which most begin with the same: `file000001`. What tells them apart is behind.
fn sort_many(entries: &mut [Listed], bytes: &[u8]) {
    let common = |a: &[u8], b: &[u8]| a.iter().zip(b).take_while(|(a, b)| a == b).count();
    let Some(first) = entries.first().map(|first| first.name(bytes)) else {
        return;
    };
    let shared = entries.iter().fold(first.len(), |shared, entry| {
        common(&first[..shared], entry.name(bytes))
    });
    let mut order: Vec<(u64, Listed)> = entries
        .iter()
        .map(|entry| (key_of(&entry.name(bytes)[shared..]), *entry))
        .collect();
    order.sort_unstable_by(|(a, first), (b, second)| {
        let by_key = a.cmp(b);
        by_key.then_with(|| first.name(bytes).cmp(second.name(bytes)))
    });
    for (entry, (_, sorted)) in entries.iter_mut().zip(order) {
        *entry = sorted;
    }
}

/// What ext4 and btrfs give as the place behind a directory's last entry: there is no larger one.
/// The call that would find nothing more, one in four of a walk's, is then not made.
const NO_PLACE_BEHIND: u64 = i64::MAX as u64;
/// Space for entries, in bytes: what the kernel fills in one call.
const ENTRIES: usize = 32 * 1024;
/// A larger listing's memory is not kept.
const KEPT_MAX: usize = 4096;

impl Reading {
    /// # Errors
    /// `ENOMEM` for 4 GiB of names in one directory.
    fn push(&mut self, name: &[u8], kind: Kind) -> Result<(), Errno> {
        let (Ok(start), Ok(len)) = (u32::try_from(self.bytes.len()), u16::try_from(name.len()))
        else {
            return Err(Errno::NOMEM);
        };
        self.bytes.extend_from_slice(name);
        self.entries.push(Listed {
            key: key_of(name),
            start,
            len,
            kind,
        });
        Ok(())
    }

    fn names(&mut self) -> Names {
        let bytes = &self.bytes;
        if self.entries.len() < MANY {
            self.entries.sort_unstable_by(|a, b| {
                let by_key = a.key.cmp(&b.key);
                by_key.then_with(|| a.name(bytes).cmp(b.name(bytes)))
            })
        } else {
            sort_many(&mut self.entries, bytes)
        }
        // What is renamed meanwhile may be listed twice.
        self.entries
            .dedup_by(|a, b| a.key == b.key && a.name(bytes) == b.name(bytes));
        let lengths = self.entries.iter().map(|entry| usize::from(entry.len));
        let mut kinds = self.entries.iter().map(|entry| entry.kind);
        Names {
            longest: lengths.max().unwrap_or_default(),
            has_directories: kinds.any(|kind| kind == Kind::Directory),
            bytes: self.bytes.as_slice().into(),
            entries: self.entries.as_slice().into(),
            last: AtomicUsize::new(0),
        }
    }

    /// Ready for the next one.
    fn emptied(mut self) -> Reading {
        if self.entries.capacity() > KEPT_MAX {
            self.bytes = Vec::new();
            self.entries = Vec::new();
        }
        self.bytes.clear();
        self.entries.clear();
        self
    }
}

impl Names {
    /// The kind of `name`, where it is listed.
    pub fn kind(&self, name: &[u8]) -> Option<Kind> {
        let key = key_of(name);
        self.find(key, |listed| listed.cmp(name))
    }

    /// The kind of the entry whose name is `prefix` and `rest`.
    pub fn kind_of_joined(&self, prefix: &[u8], rest: &[u8]) -> Option<Kind> {
        // The key of the two together, which are not put together for it.
        let room = u32::try_from(8 * prefix.len()).unwrap_or(u32::MAX);
        let key = key_of(prefix) | key_of(rest).checked_shr(room).unwrap_or_default();
        self.find(key, |listed| {
            let (start, end) = listed.split_at(listed.len().min(prefix.len()));
            start.cmp(prefix).then_with(|| end.cmp(rest))
        })
    }

    fn find(&self, key: u64, order: impl Fn(&[u8]) -> Order) -> Option<Kind> {
        let order_of = |at: &Listed| {
            let by_key = at.key.cmp(&key);
            by_key.then_with(|| order(at.name(&self.bytes)))
        };
        let (Some(first), Some(end)) = (self.entries.first(), self.entries.last()) else {
            return None;
        };
        if !(first.key..=end.key).contains(&key) {
            return None;
        }
        let last = self.last.load(Ordering::Relaxed);
        let next = last + 1;
        let found = match order_of(&self.entries[last]) {
            Order::Equal => Ok(last),
            Order::Greater => self.entries[..last].binary_search_by(order_of),
            Order::Less => match self.entries.get(next).map(order_of) {
                Some(Order::Equal) => Ok(next),
                Some(Order::Greater) | None => Err(next),
                Some(Order::Less) => {
                    let behind = self.entries[next..].binary_search_by(order_of);
                    behind.map(|at| next + at).map_err(|at| next + at)
                }
            },
        };
        // What is not there has a place all the same, behind the last that comes before it.
        let (Ok(place) | Err(place)) = found.map_err(|at| at.saturating_sub(1));
        if place != last {
            self.last.store(place, Ordering::Relaxed);
        }
        Some(self.entries[found.ok()?].kind)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&[u8], Kind)> {
        self.entries
            .iter()
            .map(|entry| (entry.name(&self.bytes), entry.kind))
    }

    /// The name and the kind at a place in the order.
    pub fn get(&self, at: usize) -> Option<(&[u8], Kind)> {
        let entry = self.entries.get(at)?;
        Some((entry.name(&self.bytes), entry.kind))
    }

    /// Whether any name begins with this.
    pub fn has_prefix(&self, prefix: &[u8]) -> bool {
        let key = key_of(prefix);
        let at = |entry: &Listed| {
            entry.key < key || entry.key == key && entry.name(&self.bytes) < prefix
        };
        let first = self.entries.partition_point(at);
        let first = self.entries.get(first);
        first.is_some_and(|entry| entry.name(&self.bytes).starts_with(prefix))
    }

    /// The length of the longest name, in bytes.
    pub fn longest(&self) -> usize {
        self.longest
    }

    pub fn has_directories(&self) -> bool {
        self.has_directories
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn names_are_found(
            names in prop::collection::vec("[ab]{1,10}|a{6,9}[a-d]", 0..20),
            questions in prop::collection::vec(("[ab]{0,9}", "[abd]{1,10}"), 0..60),
        ) {
            let mut reading = Reading::default();
            for name in &names {
                reading.push(name.as_bytes(), Kind::File).unwrap();
            }
            let listing = reading.names();
            let mut sorted = names.clone();
            sorted.sort();
            sorted.dedup();
            let listed: Vec<&[u8]> = listing.iter().map(|(name, _)| name).collect();
            let expected: Vec<&[u8]> = sorted.iter().map(|name| name.as_bytes()).collect();
            prop_assert_eq!(listed, expected);
            for name in &names {
                prop_assert!(listing.kind(name.as_bytes()).is_some());
            }
            for (prefix, rest) in questions {
                let joined = format!("{prefix}{rest}");
                let is_there = names.contains(&joined);
                prop_assert_eq!(listing.kind(joined.as_bytes()).is_some(), is_there);
                let found = listing.kind_of_joined(prefix.as_bytes(), rest.as_bytes());
                prop_assert_eq!(found.is_some(), is_there);
                let begins = names.iter().any(|name| name.starts_with(&prefix));
                prop_assert_eq!(listing.has_prefix(prefix.as_bytes()), begins);
            }
        }
    }
}
