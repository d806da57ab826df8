//! What was just made, held by its descriptor.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{self, AtFlags, CWD, FileType, Mode, OFlags};
use rustix::io::{Errno, fcntl_dupfd_cloexec};

use crate::bytes::Bytes;
use crate::dir::{Access, Dir, Kind};
use crate::error::{Error, Result};

/// What a directory is made with: what nobody's directory has tells it from another one that somebody puts
/// in its place before it is opened. It has its own mode once it is dressed.
const NEW_DIRECTORY: Mode = Mode::RWXU.union(Mode::SVTX);
/// The same of a fifo, a socket or a device.
const NEW_NODE: Mode = Mode::empty();

/// Device and inode.
pub type Identity = (u64, u64);

/// Something that this process has just made, held by a descriptor.
pub struct Made {
    pub(super) dir: Dir,
    pub(super) name: Vec<u8>,
    identity: Identity,
    pub(super) held: Held,
}

pub(super) enum Held {
    /// Opened by the call that made it.
    File(OwnedFd),
    /// The budget may close it; what is opened again is the same directory or an error.
    Directory(Dir),
    /// Neither opened for reading nor for writing: a device would act, a fifo would wait.
    Node(OwnedFd),
}

/// What a new name has to be.
pub(super) enum Expected<'a> {
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
            .and_then(|fd| fs::mkdirat(&*fd, name, NEW_DIRECTORY))
            .and_then(|()| {
                let made = dir.child(name, Access::List).map_err(swapped)?;
                let stat = made.stat_self()?;
                let is_ours = made.names_up_to(0)?.is_some()
                    && made.mount_id() == dir.mount_id()
                    && stat.dev == dir.stat_self()?.dev
                    && (is_new(stat.mode, NEW_DIRECTORY) || !keeps_modes(&*made.fd()?));
                if !is_ours {
                    return Err(Errno::STALE);
                }
                Ok((Held::Directory(made), stat.identity()))
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
            .and_then(|fd| fs::mknodat(&*fd, name, kind, NEW_NODE, device))
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

    /// A descriptor by which it stays what it is: while one is open, nothing else gets its number. None where
    /// the system has no more of them.
    pub fn hold(&self) -> Option<OwnedFd> {
        let held = match &self.held {
            Held::Directory(dir) => dir.fd().and_then(|fd| fcntl_dupfd_cloexec(&*fd, 0)),
            Held::File(fd) | Held::Node(fd) => fcntl_dupfd_cloexec(fd, 0),
        };
        held.ok()
    }

    /// Where it is, for messages.
    pub fn path(&self) -> Bytes {
        self.dir.path().join(&self.name)
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

    pub(super) fn fail(&self) -> impl Fn(Errno) -> Error {
        move |errno| match errno {
            Errno::STALE => was_swapped(&self.dir, &self.name),
            errno => Error::io(self.dir.path().join(&self.name), errno),
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
    pub(super) fn path(&self) -> Result<String, Errno> {
        let number = match self {
            Held::File(fd) | Held::Node(fd) => fd.as_raw_fd(),
            Held::Directory(_) => return Err(Errno::ISDIR),
        };
        Ok(format!("/proc/self/fd/{number}"))
    }
}

/// A name, and what has to have it.
#[derive(Clone)]
pub struct Named {
    dir: Dir,
    name: Vec<u8>,
    identity: Identity,
}

impl Named {
    /// What was made has another name now.
    pub fn follow(&mut self, made: Identity, dir: &Dir, name: &[u8]) {
        if self.identity == made {
            self.dir = dir.clone();
            self.name = name.to_vec();
        }
    }
}

/// What a directory is marked with that is not done.
pub(super) const CLAIM: &str = "trusted.layerctl.staging";

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

/// Whether a mode is one that something was made with. A directory can inherit its group's bit.
fn is_new(mode: u32, made: Mode) -> bool {
    // A default access list and the umask can take from its owner, too.
    let kept = Mode::RWXG | Mode::RWXO | Mode::SVTX | Mode::SUID;
    let mode = Mode::from_raw_mode(mode);
    mode & kept == made & kept && made.contains(mode & Mode::RWXU)
}

/// Whether a file system keeps the modes that it is given. Those of other systems have none, and what a
/// program or another machine serves may have its own ways.
fn keeps_modes(fd: impl AsFd) -> bool {
    // FAT, exFAT, NTFS, CIFS, SMB, FUSE, 9p, VirtualBox's: linux/magic.h and the drivers' own.
    const KEEP_NONE: [fs::FsWord; 8] = [
        0x4d44,
        0x2011_bab0,
        0x7366_746e,
        0xff53_4d42,
        0xfe53_4d42,
        0x6573_5546,
        0x0102_1997,
        0x786f_4256,
    ];
    let found = fs::fstatfs(fd).map(|of| of.f_type & 0xffff_ffff);
    !found.is_ok_and(|kind| KEEP_NONE.contains(&kind))
}

fn identity(stat: &fs::Stat) -> Identity {
    (stat.st_dev, stat.st_ino)
}

pub(super) fn create(dir: &Dir, name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    fs::openat(&*dir.fd()?, name, flags, Mode::RUSR | Mode::WUSR)
}

/// Takes hold of what was just made, if it is that.
pub(super) fn seize(
    dir: &Dir,
    name: &[u8],
    expected: &Expected<'_>,
) -> Result<(Held, Identity), Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = fs::openat(&*dir.fd()?, name, flags, Mode::empty()).map_err(swapped)?;
    let stat = fs::fstat(&fd)?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    let is_it = match expected {
        Expected::Node(wanted, device) => {
            let is_device = matches!(wanted, FileType::CharacterDevice | FileType::BlockDevice);
            kind == *wanted
                && stat.st_nlink == 1
                && (!is_device || stat.st_rdev == *device)
                && (is_new(stat.st_mode, NEW_NODE) || !keeps_modes(&fd))
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

pub(super) fn sync(fd: impl AsFd) -> Result<(), Errno> {
    match fs::fsync(fd) {
        Err(Errno::INVAL | Errno::ROFS) => Ok(()), // not on this kind of file
        result => result,
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // a test makes the disk that is read
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;

    fn empty() -> (tempfile::TempDir, Dir) {
        let home = tempfile::tempdir().expect("a temporary directory");
        let dir = Dir::open_root(home.path()).expect("a directory of our own");
        (home, dir)
    }

    #[test]
    fn what_is_made_is_new_and_its_owner_s_alone() {
        let (home, dir) = empty();
        Made::file(&dir, b"file").expect("the name is free");
        Made::node(&dir, b"fifo", Kind::Fifo, 0).expect("the name is free");
        Made::directory(&dir, b"directory").expect("the name is free");
        // What has a mode that nobody's has is known again.
        for (name, mode) in [("file", 0o600), ("fifo", 0), ("directory", 0o1700)] {
            let made = std::fs::symlink_metadata(home.path().join(name)).expect("it was made");
            assert_eq!(made.mode() & 0o7777, mode, "{name}");
        }
        std::fs::write(home.path().join("taken"), "somebody's").expect("our own");
        symlink("elsewhere", home.path().join("link")).expect("our own");
        for name in [&b"taken"[..], b"link"] {
            let taken = Made::file(&dir, name).map(|_| ());
            assert_eq!(taken.expect_err("it is taken").errno(), Errno::EXIST);
        }
        let kept = std::fs::read_to_string(home.path().join("taken"));
        assert_eq!(kept.expect("it stays"), "somebody's");
        assert!(!home.path().join("elsewhere").exists());
    }

    /// Who may write to the directory puts something else there between two calls.
    #[test]
    fn what_is_not_what_was_made_is_not_seized() {
        let (home, dir) = empty();
        for name in ["fifo", "named_twice"] {
            Made::node(&dir, name.as_bytes(), Kind::Fifo, 0).expect("the name is free");
        }
        let at = |name: &str| home.path().join(name);
        std::fs::hard_link(at("named_twice"), at("again")).expect("our own");
        std::fs::write(at("file"), "link").expect("our own");
        std::fs::set_permissions(at("file"), PermissionsExt::from_mode(0o644)).expect("our own");
        symlink("target", at("link")).expect("our own");
        Made::node(&dir, b"roots", Kind::Fifo, 0).expect("the name is free");
        std::fs::set_permissions(at("roots"), PermissionsExt::from_mode(0o600)).expect("our own");
        let devices = Dir::open_root(std::path::Path::new("/dev")).expect("it is there");
        let null = rustix::fs::makedev(1, 3);
        let node = |kind, device| Expected::Node(kind, device);
        let fifo = || node(FileType::Fifo, 0);
        for (dir, name, expected, is_it) in [
            (&dir, "fifo", fifo(), true),
            (&dir, "fifo", node(FileType::Socket, 0), false),
            (&dir, "named_twice", fifo(), false),
            // One that was there before, in the place of what was made.
            (&dir, "roots", fifo(), false),
            (&dir, "file", fifo(), false),
            (&dir, "link", fifo(), false),
            (&dir, "gone", fifo(), false),
            (
                &devices,
                "null",
                node(FileType::CharacterDevice, null),
                false,
            ),
            (
                &devices,
                "null",
                node(FileType::CharacterDevice, null + 1),
                false,
            ),
            (&devices, "null", node(FileType::BlockDevice, null), false),
            (&dir, "link", Expected::Link(b"target"), true),
            (&dir, "link", Expected::Link(b"another"), false),
            (&dir, "fifo", Expected::Known((0, 0)), false),
        ] {
            let seized = seize(dir, name.as_bytes(), &expected).map(|_| ());
            let right = if is_it { Ok(()) } else { Err(Errno::STALE) };
            assert_eq!(seized, right, "{name}");
        }
        // What is no link has no target to be asked for.
        assert!(seize(&dir, b"file", &Expected::Link(b"link")).is_err());
    }
}
