//! Every call by which `restore` changes a disk. Somebody else may be able to write to the
//! directory at hand - a container, through whose mount it is written - so that no name is used
//! twice: what was made is opened once, looked at, and gone on with by its descriptor. Nothing
//! here follows a symbolic link.
//!
//! ```text
//! Made::file, directory, symlink, node, link   make a name, and take hold of what was made
//! Made::dress                                  owner, access lists, attributes, mode, times
//! rename, rename_over, exchange, remove ...    act on a name itself, and can do no more
//! ```

#![allow(
    clippy::disallowed_methods,
    reason = "the one place that changes what is on a disk"
)]

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    self, AtFlags, CWD, FileType, Gid, Mode, OFlags, RenameFlags, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;

use super::attributes::{Attributes, Need, times};
use crate::dir::{Access, Dir, Kind, Stat};
use crate::error::{Error, Result, errno_words};

/// Device and inode.
pub type Identity = (u64, u64);

/// Something that this process has just made, held by a descriptor.
pub struct Made {
    dir: Dir,
    name: Vec<u8>,
    identity: Identity,
    held: Held,
}

enum Held {
    /// Opened by the call that made it.
    File(OwnedFd),
    /// The budget may close it; what is opened again is the same directory or an error.
    Directory(Dir),
    /// Neither opened for reading nor for writing: a device would act, a fifo would wait.
    Node(OwnedFd),
}

/// What a new name has to be.
enum Expected<'a> {
    Node(FileType, u64),
    Link(&'a [u8]),
    /// A further name of a file that was made before.
    Known(Identity),
}

impl Made {
    /// Makes an empty file that only its owner can read.
    ///
    /// # Errors
    /// `EEXIST` if anything has the name.
    pub fn file(dir: &Dir, name: &[u8]) -> Result<Made> {
        let made = create(dir, name).and_then(|file| {
            let identity = identity(&fs::fstat(&file)?);
            Ok((Held::File(file), identity))
        });
        Made::of(dir, name, made)
    }

    /// Makes a directory that only its owner can enter.
    ///
    /// # Errors
    /// `EEXIST` if anything has the name; `ESTALE` if something else has it at once.
    pub fn directory(dir: &Dir, name: &[u8]) -> Result<Made> {
        let made = dir
            .fd()
            .and_then(|fd| fs::mkdirat(&*fd, name, Mode::RWXU))
            .and_then(|()| {
                let made = dir.child(name, Access::List).map_err(swapped)?;
                let is_ours = made.names_up_to(0)?.is_some()
                    && made.mount_id() == dir.mount_id()
                    && made.stat_self()?.dev == dir.stat_self()?.dev;
                if !is_ours {
                    return Err(Errno::STALE);
                }
                let identity = made.stat_self()?.identity();
                Ok((Held::Directory(made), identity))
            });
        Made::of(dir, name, made)
    }

    /// Makes a symbolic link.
    ///
    /// # Errors
    /// As [`Made::directory`].
    pub fn symlink(dir: &Dir, name: &[u8], target: &[u8]) -> Result<Made> {
        let made = dir
            .fd()
            .and_then(|fd| fs::symlinkat(target, &*fd, name))
            .and_then(|()| seize(dir, name, &Expected::Link(target)));
        Made::of(dir, name, made)
    }

    /// Makes a fifo, a socket or a device.
    ///
    /// # Errors
    /// As [`Made::directory`].
    pub fn node(dir: &Dir, name: &[u8], kind: Kind, device: u64) -> Result<Made> {
        let kind = match kind {
            Kind::Char => FileType::CharacterDevice,
            Kind::Block => FileType::BlockDevice,
            Kind::Fifo => FileType::Fifo,
            Kind::Socket | Kind::File | Kind::Directory | Kind::Symlink => FileType::Socket,
        };
        let made = dir
            .fd()
            .and_then(|fd| fs::mknodat(&*fd, name, kind, Mode::RUSR | Mode::WUSR, device))
            .and_then(|()| seize(dir, name, &Expected::Node(kind, device)));
        Made::of(dir, name, made)
    }

    /// Makes a further name of a file.
    ///
    /// # Errors
    /// `ESTALE` if the first name is not the file's any more; as [`Made::directory`].
    pub fn link(first: &Named, dir: &Dir, name: &[u8]) -> Result<Made> {
        let known = Expected::Known(first.identity);
        let made = seize(&first.dir, &first.name, &known).and_then(|(held, _)| {
            let path = held.path()?;
            // The link in /proc is the file itself.
            fs::linkat(CWD, path, &*dir.fd()?, name, AtFlags::SYMLINK_FOLLOW)?;
            seize(dir, name, &known)
        });
        Made::of(dir, name, made)
    }

    fn of(dir: &Dir, name: &[u8], made: Result<(Held, Identity), Errno>) -> Result<Made> {
        match made {
            Ok((held, identity)) => Ok(Made {
                dir: dir.clone(),
                name: name.to_vec(),
                identity,
                held,
            }),
            Err(Errno::STALE) => Err(was_swapped(dir, name)),
            Err(errno) => Err(Error::io(dir.path().join(name), errno)),
        }
    }

    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// Where it is, to be found again.
    pub fn named(&self) -> Named {
        Named {
            dir: self.dir.clone(),
            name: self.name.clone(),
            identity: self.identity,
        }
    }

    /// The directory that it is.
    pub fn as_dir(&self) -> Option<&Dir> {
        match &self.held {
            Held::Directory(dir) => Some(dir),
            Held::File(_) | Held::Node(_) => None,
        }
    }

    /// The file that it is, to be written.
    pub fn as_file(&self) -> Option<BorrowedFd<'_>> {
        match &self.held {
            Held::File(file) => Some(file.as_fd()),
            Held::Directory(_) | Held::Node(_) => None,
        }
    }

    fn fail(&self) -> impl Fn(Errno) -> Error {
        move |errno| match errno {
            Errno::STALE => was_swapped(&self.dir, &self.name),
            errno => Error::io(self.dir.path().join(&self.name), errno),
        }
    }

    /// Gives it all that belongs to it, and sees that it has it. Owner first, since changing it
    /// takes set-id bits and capabilities away; times last.
    ///
    /// # Errors
    /// More could be done with it than with what it is a copy of; what the system calls say.
    pub fn dress(&self, attributes: &Attributes, stat: &Stat) -> Result<Lacks> {
        let fail = self.fail();
        self.own(stat.uid, stat.gid).map_err(&fail)?;
        self.drop_inherited(attributes)?;
        let mut lacks = Lacks::default();
        for (name, value) in attributes.iter() {
            match (self.set(name, value), Attributes::need(name)) {
                (Ok(()), _) => {}
                (Err(errno), Need::Access) => return Err(self.wider(name, errno)),
                (Err(Errno::OPNOTSUPP | Errno::PERM | Errno::ACCESS), Need::Capability) => {
                    lacks.capability = true;
                }
                (Err(Errno::OPNOTSUPP), Need::Content) => {}
                (Err(Errno::OPNOTSUPP | Errno::PERM | Errno::ACCESS), Need::Host) => {}
                (Err(errno), _) => return Err(fail(errno)),
            }
        }
        if stat.kind != Kind::Symlink {
            self.permit(stat.mode).map_err(&fail)?;
        }
        self.date(&times(stat)).map_err(&fail)?;
        let now = self.stat().map_err(&fail)?;
        let mode = now.st_mode & 0o7777;
        let is_alike = stat.kind == Kind::Symlink || mode == stat.mode;
        if (now.st_uid, now.st_gid) != (stat.uid, stat.gid) || !is_alike {
            return Err(Error::Refused {
                what: format!(
                    "{} would be {mode:04o} of {}:{}, and is {:04o} of {}:{}",
                    self.dir.path().join(&self.name),
                    now.st_uid,
                    now.st_gid,
                    stat.mode,
                    stat.uid,
                    stat.gid
                ),
                hint: NOT_HERE.into(),
            });
        }
        lacks.seconds = now.st_mtime_nsec == 0 && stat.mtime.1 != 0;
        Ok(lacks)
    }

    /// A new file inherits its directory's default access list, which the version had not.
    fn drop_inherited(&self, attributes: &Attributes) -> Result<()> {
        for name in self.listed().map_err(self.fail())? {
            if Attributes::need(&name) == Need::Access && !attributes.has(&name) {
                self.unset(&name)
                    .map_err(|errno| self.wider(&name, errno))?;
            }
        }
        Ok(())
    }

    /// Without its access list others may do more, or less.
    fn wider(&self, name: &[u8], errno: Errno) -> Error {
        Error::Refused {
            what: format!(
                "{} cannot have the access list that it had ({}: {})",
                self.dir.path().join(&self.name),
                name.escape_ascii(),
                errno_words(errno)
            ),
            hint: NOT_HERE.into(),
        }
    }

    /// Sets its times once more.
    ///
    /// # Errors
    /// What the system call says.
    pub fn date(&self, times: &Timestamps) -> Result<(), Errno> {
        match &self.held {
            Held::File(file) => fs::futimens(file, times),
            Held::Directory(dir) => fs::futimens(&*dir.fd()?, times),
            Held::Node(fd) => match fs::utimensat(fd, c"", times, AtFlags::EMPTY_PATH) {
                // Older kernels know no times of a descriptor alone.
                Err(Errno::INVAL | Errno::NOENT) => {
                    fs::utimensat(CWD, self.held.path()?, times, AtFlags::empty())
                }
                result => result,
            },
        }
    }

    fn stat(&self) -> Result<fs::Stat, Errno> {
        match &self.held {
            Held::File(fd) | Held::Node(fd) => fs::fstat(fd),
            Held::Directory(dir) => fs::fstat(&*dir.fd()?),
        }
    }

    fn own(&self, uid: u32, gid: u32) -> Result<(), Errno> {
        let now = self.stat()?;
        if (now.st_uid, now.st_gid) == (uid, gid) {
            return Ok(());
        }
        let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        match &self.held {
            Held::File(file) => fs::fchown(file, uid, gid),
            Held::Directory(dir) => fs::fchown(&*dir.fd()?, uid, gid),
            Held::Node(fd) => fs::chownat(fd, c"", uid, gid, AtFlags::EMPTY_PATH),
        }
    }

    fn permit(&self, mode: u32) -> Result<(), Errno> {
        let mode = Mode::from_raw_mode(mode);
        match &self.held {
            Held::File(file) => fs::fchmod(file, mode),
            Held::Directory(dir) => fs::fchmod(&*dir.fd()?, mode),
            // The link in /proc is the file itself.
            Held::Node(_) => fs::chmodat(CWD, self.held.path()?, mode, AtFlags::empty()),
        }
    }

    fn set(&self, name: &[u8], value: &[u8]) -> Result<(), Errno> {
        let flags = XattrFlags::empty();
        match &self.held {
            Held::File(file) => fs::fsetxattr(file, name, value, flags),
            Held::Directory(dir) => fs::fsetxattr(&*dir.fd()?, name, value, flags),
            Held::Node(_) => fs::setxattr(self.held.path()?, name, value, flags),
        }
    }

    fn unset(&self, name: &[u8]) -> Result<(), Errno> {
        match &self.held {
            Held::File(file) => fs::fremovexattr(file, name),
            Held::Directory(dir) => fs::fremovexattr(&*dir.fd()?, name),
            Held::Node(_) => fs::removexattr(self.held.path()?, name),
        }
    }

    fn listed(&self) -> Result<Vec<Vec<u8>>, Errno> {
        match &self.held {
            Held::File(file) => Attributes::names_of(file),
            Held::Directory(dir) => Attributes::names_of(&*dir.fd()?),
            Held::Node(_) => Attributes::names_at(&self.held.path()?),
        }
    }

    /// Notes on a directory that it is not done, under which name: should this process be killed, the
    /// next one knows it. No process of a container can set such an attribute; not every file
    /// system takes it.
    pub fn claim(&self) {
        let _ = self.set(CLAIM.as_bytes(), &self.name);
    }

    /// Takes that note away.
    ///
    /// # Errors
    /// What the system call says.
    pub fn disclaim(&self) -> Result<()> {
        match self.unset(CLAIM.as_bytes()) {
            Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::PERM | Errno::ACCESS) => Ok(()),
            result => result.map_err(self.fail()),
        }
    }

    /// Makes it last.
    ///
    /// # Errors
    /// What the system call says.
    pub fn sync(&self) -> Result<()> {
        let done = match &self.held {
            Held::File(file) => sync(file),
            Held::Directory(dir) => dir.fd().and_then(|fd| sync(&*fd)),
            Held::Node(_) => Ok(()),
        };
        done.map_err(self.fail())
    }
}

impl Held {
    /// A path that leads to what is held and to nothing else: the kernel's own link.
    fn path(&self) -> Result<String, Errno> {
        let number = match self {
            Held::File(fd) | Held::Node(fd) => fd.as_raw_fd(),
            Held::Directory(_) => return Err(Errno::ISDIR),
        };
        Ok(format!("/proc/self/fd/{number}"))
    }
}

/// What a copy does not have of what it is a copy of.
#[derive(Debug, Default, Clone, Copy)]
pub struct Lacks {
    pub capability: bool,
    /// Its times are cut to whole seconds.
    pub seconds: bool,
}

impl std::fmt::Display for Lacks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.capability {
            f.write_str("; its capabilities could not be set there")?;
        }
        if self.seconds {
            f.write_str("; its times are kept in whole seconds there")?;
        }
        Ok(())
    }
}

impl Lacks {
    pub fn and(self, other: Lacks) -> Lacks {
        Lacks {
            capability: self.capability || other.capability,
            seconds: self.seconds || other.seconds,
        }
    }
}

/// A name, and what has to have it.
#[derive(Clone)]
pub struct Named {
    dir: Dir,
    name: Vec<u8>,
    identity: Identity,
}

/// What a directory is marked with that is not done.
const CLAIM: &str = "trusted.layerctl.staging";
/// The longest passing name, in bytes.
const CLAIM_MAX: usize = 64;

const NOT_HERE: &str = "nothing was changed; copy it out with --to DIR on another file system, or stop the container \
     (unmount the union) and run this again";

fn was_swapped(dir: &Dir, name: &[u8]) -> Error {
    Error::damaged(
        dir.path().join(name),
        "something else took the place of what was just made: somebody writes here at the same time",
    )
}

fn swapped(errno: Errno) -> Errno {
    match errno {
        Errno::NOENT | Errno::NOTDIR | Errno::LOOP => Errno::STALE,
        errno => errno,
    }
}

fn identity(stat: &fs::Stat) -> Identity {
    (stat.st_dev, stat.st_ino)
}

fn create(dir: &Dir, name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    fs::openat(&*dir.fd()?, name, flags, Mode::RUSR | Mode::WUSR)
}

/// Takes hold of what was just made, if it is that.
fn seize(dir: &Dir, name: &[u8], expected: &Expected<'_>) -> Result<(Held, Identity), Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = fs::openat(&*dir.fd()?, name, flags, Mode::empty()).map_err(swapped)?;
    let stat = fs::fstat(&fd)?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    let is_it = match expected {
        Expected::Node(wanted, device) => {
            let is_device = matches!(wanted, FileType::CharacterDevice | FileType::BlockDevice);
            kind == *wanted && stat.st_nlink == 1 && (!is_device || stat.st_rdev == *device)
        }
        Expected::Link(target) => {
            kind == FileType::Symlink && fs::readlinkat(&fd, c"", Vec::new())?.as_bytes() == *target
        }
        Expected::Known(known) => identity(&stat) == *known,
    };
    if is_it {
        Ok((Held::Node(fd), identity(&stat)))
    } else {
        Err(Errno::STALE)
    }
}

/// Sees that a name is that of what was made, and takes hold of it. It need not be readable.
///
/// # Errors
/// It is not: somebody was faster.
pub fn find(dir: &Dir, name: &[u8], known: Identity) -> Result<Made> {
    Made::of(dir, name, seize(dir, name, &Expected::Known(known)))
}

/// Moves a name to where nothing is.
///
/// # Errors
/// `EEXIST` if the place is taken.
pub fn rename(from: &Dir, name: &[u8], to: &Dir, to_name: &[u8]) -> Result<(), Errno> {
    let (from_fd, to_fd) = (from.fd()?, to.fd()?);
    match fs::renameat_with(&*from_fd, name, &*to_fd, to_name, RenameFlags::NOREPLACE) {
        // Older kernels and some file systems cannot promise it: look first.
        Err(Errno::INVAL | Errno::NOSYS) => match to.stat(to_name)? {
            Some(_) => Err(Errno::EXIST),
            None => fs::renameat(&*from_fd, name, &*to_fd, to_name),
        },
        result => result,
    }
}

/// Moves a name over what is there.
///
/// # Errors
/// What the system call says.
pub fn rename_over(from: &Dir, name: &[u8], to: &Dir, to_name: &[u8]) -> Result<(), Errno> {
    let (from_fd, to_fd) = (from.fd()?, to.fd()?);
    fs::renameat(&*from_fd, name, &*to_fd, to_name)
}

/// Lets two names change places.
///
/// # Errors
/// `EINVAL` or `ENOSYS` on a file system that cannot do both at once.
pub fn exchange(from: &Dir, name: &[u8], to: &Dir, to_name: &[u8]) -> Result<(), Errno> {
    let (from_fd, to_fd) = (from.fd()?, to.fd()?);
    fs::renameat_with(&*from_fd, name, &*to_fd, to_name, RenameFlags::EXCHANGE)
}

/// Removes a name that is no directory's.
///
/// # Errors
/// What the system call says.
pub fn remove(dir: &Dir, name: &[u8]) -> Result<(), Errno> {
    fs::unlinkat(&*dir.fd()?, name, AtFlags::empty())
}

/// Removes a directory that is empty.
///
/// # Errors
/// What the system call says.
pub fn remove_directory(dir: &Dir, name: &[u8]) -> Result<(), Errno> {
    fs::unlinkat(&*dir.fd()?, name, AtFlags::REMOVEDIR)
}

/// Removes what a process that was killed has left under a passing name, if that is certain: a
/// directory that bears its note, or what is none and whoever may write here could remove.
///
/// # Errors
/// What the system call says.
pub fn remove_left(dir: &Dir, name: &[u8]) -> Result<(), Errno> {
    let Some(stat) = dir.stat(name)? else {
        return Ok(());
    };
    if stat.kind == Kind::Directory {
        let left = dir.child(name, Access::List)?;
        let note = left.attribute_self(CLAIM, CLAIM_MAX)?;
        if left.stat_self()?.identity() != stat.identity() || note.as_deref() != Some(name) {
            return Ok(());
        }
    } else if stat.uid != rustix::process::geteuid().as_raw() || stat.nlink > 1 {
        return Ok(());
    }
    remove_tree(dir, name, stat.identity())
}

/// Removes a tree that this process has made, and nothing else: what has its name now and is
/// another is left alone.
///
/// # Errors
/// What the system call says.
pub fn remove_tree(parent: &Dir, name: &[u8], made: Identity) -> Result<(), Errno> {
    let Some(stat) = parent.stat(name)? else {
        return Ok(());
    };
    if stat.identity() != made {
        return Err(Errno::STALE);
    }
    if stat.kind != Kind::Directory {
        return remove(parent, name);
    }
    let dir = parent.child(name, Access::List)?;
    if dir.stat_self()?.identity() != made {
        return Err(Errno::STALE);
    }
    let mut directories = vec![(parent.clone(), name.to_vec())];
    let mut pending = vec![dir];
    while let Some(dir) = pending.pop() {
        for (name, kind) in dir.names()?.iter() {
            if kind == Kind::Directory {
                directories.push((dir.clone(), name.to_vec()));
                pending.push(dir.child(name, Access::List)?);
            } else {
                remove(&dir, name)?;
            }
        }
    }
    for (parent, name) in directories.iter().rev() {
        remove_directory(parent, name)?;
    }
    Ok(())
}

/// Sets an attribute of a directory that does not have it.
///
/// # Errors
/// `EEXIST` if it has; what else the system call says.
pub fn mark(dir: &Dir, attribute: &str, value: &[u8]) -> Result<(), Errno> {
    let open = dir.child(b".", Access::List)?;
    fs::fsetxattr(&*open.fd()?, attribute, value, XattrFlags::CREATE)
}

/// Removes an attribute of a directory.
///
/// # Errors
/// What the system call says.
pub fn unmark(dir: &Dir, attribute: &str) -> Result<(), Errno> {
    let open = dir.child(b".", Access::List)?;
    fs::fremovexattr(&*open.fd()?, attribute)
}

/// Makes an empty file that everybody may read.
///
/// # Errors
/// `EEXIST` if anything has the name.
pub fn empty_file(dir: &Dir, name: &[u8]) -> Result<(), Errno> {
    let file = create(dir, name)?;
    fs::fchmod(&file, Mode::from_raw_mode(0o444))
}

/// Gives what a directory has under one name another name, too, if it is what it was.
///
/// # Errors
/// `ESTALE` if it is not; what else the system call says.
pub fn link(
    from: &Dir,
    name: &[u8],
    known: Identity,
    to: &Dir,
    to_name: &[u8],
) -> Result<(), Errno> {
    let (held, _) = seize(from, name, &Expected::Known(known))?;
    fs::linkat(
        CWD,
        held.path()?,
        &*to.fd()?,
        to_name,
        AtFlags::SYMLINK_FOLLOW,
    )
}

/// Gives a directory times.
///
/// # Errors
/// What the system call says.
pub fn date_directory(dir: &Dir, times: &Timestamps) -> Result<(), Errno> {
    let open = dir.child(b".", Access::List)?;
    fs::futimens(&*open.fd()?, times)
}

/// Makes a directory's entries last: a rename in it has reached the disk.
///
/// # Errors
/// What the system call says.
pub fn sync_dir(dir: &Dir) -> Result<(), Errno> {
    let open = dir.child(b".", Access::List)?;
    sync(&*open.fd()?)
}

fn sync(fd: impl AsFd) -> Result<(), Errno> {
    match fs::fsync(fd) {
        Err(Errno::INVAL | Errno::ROFS) => Ok(()), // not on this kind of file
        result => result,
    }
}
