//! Directories and regular files, opened from the directory that they are in.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard};

use rustix::fs::{self, FileType, Mode, OFlags};
use rustix::io::Errno;
use smallvec::SmallVec;

use super::budget::{self, Park, Parked};
use super::image::Place;
use crate::bytes::Bytes;
use crate::erofs::Fault;
use crate::error::{Error, Result};

/// What a directory will be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Looking names up. Needs no read permission and leaves no access time.
    Lookup,
    /// Listing it, too.
    List,
}

/// On the way down every so manieth directory keeps its path.
const PATH_EVERY: usize = 256;

/// An open directory of a branch. Cheap to clone.
#[derive(Clone)]
pub struct Dir(pub(super) Arc<Inner>);

pub(super) struct Inner {
    /// The directory that it is in; `None` for one that was opened by path.
    pub(super) parent: Option<Dir>,
    /// Its name there, or the path that it was opened by.
    pub(super) name: SmallVec<[u8; 24]>,
    /// The length of its path below the directory that was opened by path, in bytes.
    pub(super) path_len: usize,
    /// That path, kept by one in [`PATH_EVERY`]: nobody who asks for a path goes all the way up.
    pub(super) path: Option<Box<[u8]>>,
    /// How many directories it is in.
    depth: usize,
    pub(super) access: Access,
    pub(super) ground: Ground,
    /// What was found of the directory once for all that is in it.
    noted: OnceLock<bool>,
    /// Whether a listing was given up, since there are more names than were wanted.
    pub(super) is_large: AtomicBool,
}

/// What a directory stands on.
pub(super) enum Ground {
    /// The kernel has it.
    Kernel(Descriptor),
    /// It is in an image that we read ourselves.
    Image(Place),
}

pub(super) struct Descriptor {
    /// The descriptor; `None` while the directory is parked.
    fd: RwLock<Option<OwnedFd>>,
    /// Whether the descriptor stays open: it does not count against the budget.
    is_pinned: bool,
    /// Whether its listing was read: reading it again starts over.
    pub(super) was_listed: AtomicBool,
    /// Device and inode, noted when the directory is parked.
    identity: OnceLock<(u64, u64)>,
}

impl Descriptor {
    fn new(fd: OwnedFd, is_pinned: bool) -> Descriptor {
        Descriptor {
            fd: RwLock::new(Some(fd)),
            is_pinned,
            was_listed: AtomicBool::new(false),
            identity: OnceLock::new(),
        }
    }
}

impl Dir {
    /// Opens the directory that the host's root is. Nothing else follows symbolic links, and this
    /// does only for the path that the person gave.
    ///
    /// # Errors
    /// What the system call says.
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
            ground: Ground::Kernel(Descriptor::new(fd, true)),
            noted: OnceLock::new(),
            is_large: AtomicBool::new(false),
        }))
    }

    /// The sub-directory `name`.
    ///
    /// # Errors
    /// `ENOTDIR` for a symbolic link and anything else that is no directory; what the system call
    /// says.
    pub fn child(&self, name: &[u8], access: Access) -> Result<Dir, Errno> {
        if let Ground::Image(place) = &self.0.ground {
            return Ok(self.below(name, access, Ground::Image(place.child(name)?)));
        }
        let fd = open_dir_at(&*self.fd()?, name, access)?;
        let child = self.below(name, access, Ground::Kernel(Descriptor::new(fd, false)));
        budget::opened(&child.0);
        Ok(child)
    }

    /// The answer to the one question that is asked of the directory for each of its entries: `ask`
    /// is called the first time only.
    pub fn note(&self, ask: impl FnOnce() -> bool) -> bool {
        *self.0.noted.get_or_init(ask)
    }

    /// A directory that was opened in this one.
    pub(super) fn below(&self, name: &[u8], access: Access, ground: Ground) -> Dir {
        let depth = self.0.depth + 1;
        let path = depth.is_multiple_of(PATH_EVERY);
        let path = path.then(|| self.path_below(self.top(), name, Bytes::default()));
        Dir(Arc::new(Inner {
            parent: Some(self.clone()),
            path_len: self.0.path_len + 1 + name.len(),
            path: path.map(|Bytes(path)| path.into()),
            depth,
            name: SmallVec::from_slice(name),
            access,
            ground,
            noted: OnceLock::new(),
            is_large: AtomicBool::new(false),
        }))
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

    /// Opens a regular file for reading. Nothing else is ever opened: a fifo would block, a
    /// device would act.
    ///
    /// # Errors
    /// `ELOOP` for a symbolic link, `EINVAL` for what else is no regular file; what the system
    /// calls say.
    pub fn open_file(&self, name: &[u8]) -> Result<OwnedFd, Errno> {
        Ok(self.open_regular(name)?.0)
    }

    /// The same, and what was said of it when it was looked at.
    pub(super) fn open_regular(&self, name: &[u8]) -> Result<(OwnedFd, fs::Stat), Errno> {
        let fd = self.fd()?;
        // It is looked at before it is opened: what takes its place meanwhile is not opened
        // either.
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let found = budget::with_room(|| fs::openat(&*fd, name, flags, Mode::empty()))?;
        let stat = fs::fstat(&found)?;
        match FileType::from_raw_mode(stat.st_mode) {
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
            // It is the very file that was looked at.
            Ok(file) => return Ok((file, stat)),
            // Without /proc there is only the name.
            Err(Errno::NOENT) => {
                let flags = flags | OFlags::NOFOLLOW;
                without_atime(flags, |flags| {
                    budget::with_room(|| fs::openat(&*fd, name, flags, Mode::empty()))
                })?
            }
            Err(errno) => return Err(errno),
        };
        let stat = fs::fstat(&file)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Ok((file, stat)),
            _ => Err(Errno::INVAL),
        }
    }

    /// The root of the EROFS image that a file of this directory is.
    ///
    /// # Errors
    /// What is no regular file, or no image that can be read; what the system calls say.
    pub fn open_image(&self, name: &[u8]) -> Result<Dir> {
        let path = || self.path().join(name);
        let file = self.open_file(name);
        let file = file.map_err(|errno| Error::io(path(), errno))?;
        let place = Place::root_of(file).map_err(|fault| match fault {
            Fault::Io(errno) => Error::io(path(), errno),
            fault => Error::damaged(path(), fault.to_string()),
        })?;
        Ok(self.below(name, Access::List, Ground::Image(place)))
    }

    /// Whether it is in an image, so that the kernel has nothing that could be asked or changed.
    pub fn is_in_image(&self) -> bool {
        matches!(self.0.ground, Ground::Image(_))
    }

    /// Whether it is the root of an image.
    pub fn is_root_of_image(&self) -> bool {
        matches!(&self.0.ground, Ground::Image(place) if place.is_root)
    }

    /// The open descriptor, opened again where it was parked. While it is held, it stays open.
    ///
    /// # Errors
    /// `EROFS` for what is in an image: who needs a descriptor wants to write. `ESTALE` where another directory has the place of the one that was parked; what the system
    /// calls say.
    pub fn fd(&self) -> Result<Open<'_>, Errno> {
        let own = self.descriptor()?;
        loop {
            let fd = own.fd.read().unwrap_or_else(PoisonError::into_inner);
            if fd.is_some() {
                return Ok(Open(fd));
            }
            drop(fd);
            self.reopen()?;
        }
    }

    fn descriptor(&self) -> Result<&Descriptor, Errno> {
        match &self.0.ground {
            Ground::Kernel(descriptor) => Ok(descriptor),
            Ground::Image(_) => Err(Errno::ROFS),
        }
    }

    /// Opens a parked directory again. All its parents may be parked, too, and a tree can be deeper
    /// than the stack: this is a loop and not a recursion.
    fn reopen(&self) -> Result<(), Errno> {
        let mut parked = vec![self];
        while let Some(dir) = parked.last() {
            let parent = dir.0.parent.as_ref().ok_or(Errno::BADF)?;
            let fd = parent.descriptor()?.fd.read();
            let fd = fd.unwrap_or_else(PoisonError::into_inner);
            let Some(fd) = fd.as_ref() else {
                parked.push(parent);
                continue;
            };
            let fd = open_dir_at(fd, &dir.0.name, dir.0.access)?;
            let stat = fs::fstat(&fd)?;
            let descriptor = dir.descriptor()?;
            if descriptor.identity.get() != Some(&(stat.st_dev, stat.st_ino)) {
                return Err(Errno::STALE);
            }
            // Another thread may have opened it meanwhile, or be looking at it.
            if let Ok(mut own) = descriptor.fd.try_write()
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

/// The open descriptor of a directory, which is not parked while this is held.
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

impl Park for Inner {
    fn number(&self) -> Option<usize> {
        let Ground::Kernel(own) = &self.ground else {
            return None;
        };
        let fd = own.fd.read().unwrap_or_else(PoisonError::into_inner);
        usize::try_from(fd.as_ref()?.as_raw_fd()).ok()
    }

    fn park(&self) -> Parked {
        let Ground::Kernel(own) = &self.ground else {
            return Parked::Already;
        };
        if own.is_pinned {
            return Parked::InUse;
        }
        let Ok(mut fd) = own.fd.try_write() else {
            return Parked::InUse;
        };
        let Some(open) = fd.as_ref() else {
            return Parked::Already;
        };
        let Ok(stat) = fs::fstat(open) else {
            return Parked::InUse;
        };
        let _ = own.identity.set((stat.st_dev, stat.st_ino));
        *fd = None;
        budget::closed();
        Parked::Yes
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Ground::Kernel(own) = &mut self.ground {
            let fd = own.fd.get_mut().unwrap_or_else(PoisonError::into_inner);
            if !own.is_pinned && fd.is_some() {
                budget::closed();
            }
        }
        // A tree can be deeper than the stack: the chain of parents is dropped in a loop.
        let mut next = self.parent.take();
        while let Some(Dir(parent)) = next {
            match Arc::into_inner(parent) {
                Some(mut inner) => next = inner.parent.take(),
                None => break,
            }
        }
    }
}

pub(super) fn open_dir_at(
    parent: impl AsFd,
    name: &[u8],
    access: Access,
) -> Result<OwnedFd, Errno> {
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
