//! What the kernel asks, and how an answer is put.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{
    FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, InitFlags,
    KernelConfig, LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyDirectoryPlus,
    ReplyEmpty, ReplyEntry, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyXattr, Request,
};
use rustix::fs;
use rustix::io::Errno;

use super::catalogue::{Catalogue, Room};
use super::directory::Directory;
use super::inodes::{Inodes, ROOT, Told};
use super::item::{Inside, Item, NOTHING};
use super::open::{File, Handles, Listing};
use super::places::Places;
use super::turns::Turns;
use super::view::{FRESH, View};
use crate::dir::{Kind, Stat};

/// A view, as the kernel asks for it.
pub struct Server {
    inodes: Inodes,
    files: Handles<File>,
    listings: Handles<Listing>,
    /// Where links lead stays as it is.
    keeps_links: bool,
    turns: Turns,
}

impl Server {
    /// Of one view.
    pub fn new(view: View) -> Server {
        let keeps_links = !view.is_writable();
        let root = Directory::root(Arc::new(view));
        Server::of(Item::Directory(Arc::new(root)), keeps_links)
    }

    /// Of all unions of a host.
    pub fn of_all(catalogue: Catalogue) -> Server {
        Server::of(Item::Room(Arc::new(Room::root(catalogue))), false)
    }

    fn of(root: Item, keeps_links: bool) -> Server {
        Server {
            inodes: Inodes::new(root),
            files: Handles::default(),
            listings: Handles::default(),
            keeps_links,
            turns: Turns::of(1, None),
        }
    }

    /// The same, answering by threads that take turns.
    pub fn by(self, turns: Turns) -> Server {
        Server { turns, ..self }
    }

    fn inside(&self, number: INodeNo) -> Result<Inside, Errno> {
        self.inodes.get(number.0)?.inside()
    }

    /// What has a name: what the kernel is told of it, and for how long.
    fn found(&self, inside: &Inside, parent: INodeNo, name: &[u8]) -> Result<Found, Errno> {
        let child = inside.child(None, name)?;
        let told = Told::of(parent.0, name, child)?;
        let (stat, lasts) = (told.stat, told.item.lasts());
        Ok((attributes(told.number(&self.inodes), &stat), lasts))
    }

    fn stat(&self, number: INodeNo) -> Result<Found, Errno> {
        let item = self.inodes.get(number.0)?;
        let stat = match item.stat() {
            // What is open is there, whatever has its name.
            Err(Errno::STALE) => {
                let open = self.files.find(|file| file.number == number.0);
                open.ok_or(Errno::STALE)?.stat()?
            }
            stat => stat?,
        };
        Ok((attributes(number.0, &stat), item.lasts()))
    }

    fn open_file(&self, number: INodeNo) -> Result<(FileHandle, FopenFlags), Errno> {
        let Item::Leaf(leaf) = self.inodes.get(number.0)? else {
            return Err(Errno::ISDIR);
        };
        leaf.view().check()?;
        let version = leaf.open()?;
        let file = File {
            number: number.0,
            stat: version.stat,
            content: version.content.ok_or(Errno::NXIO)?,
        };
        let keeps = if leaf.is_of_layer() {
            FopenFlags::FOPEN_KEEP_CACHE
        } else {
            FopenFlags::empty()
        };
        Ok((self.files.add(file), keeps | FopenFlags::FOPEN_NOFLUSH))
    }

    /// Gives the names of a directory from an offset on, until `give` takes no more: the name, the
    /// offset behind it, and what is known of it.
    fn list(
        &self,
        number: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut give: impl FnMut(&[u8], u64, Told) -> bool,
    ) -> Result<(), Errno> {
        let listing = self.listings.get(handle)?;
        let snapshot = listing.snapshot(offset == 0)?;
        let inside = &listing.inside;
        let first = usize::try_from(offset).unwrap_or(usize::MAX);
        let places = snapshot.places(inside)?;
        for at in first.. {
            let (name, told): (&[u8], _) = match at {
                0 | 1 => {
                    let item = inside.item();
                    let name: &[u8] = if at == 0 { b"." } else { b".." };
                    (name, Some(Told::of(number.0, name, (item, None))?))
                }
                _ => match snapshot.names.get(at - 2) {
                    Some(name) => (name, told(inside, places.as_ref(), number, name)?),
                    None => break,
                },
            };
            if let Some(told) = told
                && give(name, at as u64 + 1, told)
            {
                break;
            }
        }
        Ok(())
    }
}

/// What the kernel is told of something, and for how long that is so.
type Found = (FileAttr, Duration);

/// What is known of a name that is listed; none where there is nothing.
fn told(
    inside: &Inside,
    places: Option<&Places>,
    number: INodeNo,
    name: &[u8],
) -> Result<Option<Told>, Errno> {
    let found = inside
        .child(places, name)
        .and_then(|child| Told::of(number.0, name, child));
    match (found, places) {
        (Ok(told), _) => Ok(Some(told)),
        // Listed by a branch and not there; or gone meanwhile.
        (Err(Errno::NOENT | Errno::STALE), _) | (Err(_), None) => Ok(None),
        (Err(errno), Some(places)) => {
            let lists = places.lists_refused(name);
            let is_listed = lists.map_err(|error| error.errno())?;
            Ok(is_listed.then(|| Told::refused(number.0, name, errno)))
        }
    }
}

// ---- how answers are put ----

/// A number of the kernel's, as the crate has it.
fn no(errno: Errno) -> fuser::Errno {
    fuser::Errno::from_i32(errno.raw_os_error())
}

fn attributes(number: u64, stat: &Stat) -> FileAttr {
    let time = |(seconds, nanoseconds): (i64, u32)| {
        let whole = Duration::from_secs(seconds.unsigned_abs());
        let whole = if seconds < 0 {
            UNIX_EPOCH.checked_sub(whole)
        } else {
            UNIX_EPOCH.checked_add(whole)
        };
        let of_time = whole.and_then(|of| of.checked_add(Duration::from_nanos(nanoseconds.into())));
        of_time.unwrap_or(SystemTime::UNIX_EPOCH)
    };
    FileAttr {
        ino: INodeNo(number),
        size: stat.size,
        blocks: stat.blocks,
        atime: time(stat.atime),
        mtime: time(stat.mtime),
        ctime: time(stat.ctime),
        crtime: UNIX_EPOCH,
        kind: file_type(stat.kind),
        perm: u16::try_from(stat.mode & 0o7777).unwrap_or(0),
        nlink: u32::try_from(stat.nlink).unwrap_or(u32::MAX),
        uid: stat.uid,
        gid: stat.gid,
        rdev: device(stat.rdev),
        blksize: BLOCK_SIZE,
        flags: 0,
    }
}

/// What is best read at once, in bytes.
const BLOCK_SIZE: u32 = 4096;

/// The number of a device in 32 bits, as the kernel's `new_decode_dev` takes it apart.
fn device(number: u64) -> u32 {
    let (major, minor) = (fs::major(number), fs::minor(number));
    minor & 0xff | (major & 0xfff) << 8 | (minor & !0xff) << 12
}

fn file_type(kind: Kind) -> FileType {
    match kind {
        Kind::File => FileType::RegularFile,
        Kind::Directory => FileType::Directory,
        Kind::Symlink => FileType::Symlink,
        Kind::Char => FileType::CharDevice,
        Kind::Block => FileType::BlockDevice,
        Kind::Fifo => FileType::NamedPipe,
        Kind::Socket => FileType::Socket,
    }
}

/// Answers with an attribute, or says how long it is to who asks with no room.
fn put_attribute(value: Result<Vec<u8>, Errno>, size: u32, reply: ReplyXattr) {
    match value {
        Err(errno) => reply.error(no(errno)),
        Ok(value) if size == 0 => reply.size(u32::try_from(value.len()).unwrap_or(u32::MAX)),
        Ok(value) if value.len() > size as usize => reply.error(no(Errno::RANGE)),
        Ok(value) => reply.data(&value),
    }
}

thread_local! {
    /// What a thread reads into.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// One number, for ever: numbers of inodes come back only to the same thing.
const GENERATION: Generation = Generation(0);

impl Filesystem for Server {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // Kernels have some of them, and ask accordingly.
        for wanted in [
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_READDIRPLUS_AUTO,
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_AUTO_INVAL_DATA,
            InitFlags::FUSE_ASYNC_DIO,
        ] {
            let _ = config.add_capabilities(wanted);
        }
        if self.keeps_links {
            let _ = config.add_capabilities(InitFlags::FUSE_CACHE_SYMLINKS);
        }
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let _turn = self.turns.begin();
        let inside = match self.inside(parent) {
            Ok(inside) => inside,
            Err(errno) => return reply.error(no(errno)),
        };
        match self.found(&inside, parent, name.as_bytes()) {
            Ok((found, lasts)) => reply.entry(&lasts, &found, GENERATION),
            Err(errno) => match inside.lacks_for() {
                // That there is nothing lasts as long.
                lasts if errno == Errno::NOENT && lasts > FRESH => {
                    reply.entry(&lasts, &attributes(0, &NOTHING), GENERATION);
                }
                _ => reply.error(no(errno)),
            },
        }
    }

    fn forget(&self, _: &Request, number: INodeNo, times: u64) {
        self.inodes.forget(number.0, times);
    }

    fn getattr(&self, _: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        let _turn = self.turns.begin();
        match self.stat(number) {
            Ok((found, lasts)) => reply.attr(&lasts, &found),
            Err(errno) => reply.error(no(errno)),
        }
    }

    fn readlink(&self, _: &Request, number: INodeNo, reply: ReplyData) {
        let _turn = self.turns.begin();
        let target = match self.inodes.get(number.0) {
            Ok(Item::Leaf(leaf)) => leaf.read_link(),
            Ok(Item::Directory(_) | Item::Room(_)) => Err(Errno::INVAL),
            Ok(Item::Refused(errno)) | Err(errno) => Err(errno),
        };
        match target {
            Ok(target) => reply.data(&target),
            Err(errno) => reply.error(no(errno)),
        }
    }

    fn open(&self, _: &Request, number: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let _turn = self.turns.begin();
        match self.open_file(number) {
            Ok((handle, flags)) => reply.opened(handle, flags),
            Err(errno) => reply.error(no(errno)),
        }
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let _turn = self.turns.begin();
        let file = match self.files.get(handle) {
            Ok(file) => file,
            Err(errno) => return reply.error(no(errno)),
        };
        BUFFER.with_borrow_mut(|buffer| {
            let size = size as usize;
            if buffer.len() < size {
                buffer.resize(size, 0);
            }
            match file.read(&mut buffer[..size], offset) {
                Ok(count) => reply.data(&buffer[..count]),
                Err(errno) => reply.error(no(errno)),
            }
        });
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        let _turn = self.turns.begin();
        self.files.remove(handle);
        reply.ok();
    }

    fn opendir(&self, _: &Request, number: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let _turn = self.turns.begin();
        let opened = self.inside(number).and_then(|inside| {
            let keeps = match &inside {
                Inside::Room(_) => FopenFlags::empty(),
                Inside::Directory(directory) => {
                    directory.view.check()?;
                    if directory.view.is_writable() {
                        FopenFlags::empty()
                    } else {
                        FopenFlags::FOPEN_CACHE_DIR | FopenFlags::FOPEN_KEEP_CACHE
                    }
                }
            };
            Ok((inside, keeps))
        });
        match opened {
            Ok((inside, keeps)) => {
                reply.opened(self.listings.add(Listing::new(inside)), keeps);
            }
            Err(errno) => reply.error(no(errno)),
        }
    }

    fn readdir(
        &self,
        _: &Request,
        number: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let _turn = self.turns.begin();
        let listed = self.list(number, handle, offset, |name, next, told| {
            let kind = file_type(told.stat.kind);
            let number = told.would_be(&self.inodes);
            reply.add(INodeNo(number), next, kind, OsStr::from_bytes(name))
        });
        match listed {
            Ok(()) => reply.ok(),
            Err(errno) => reply.error(no(errno)),
        }
    }

    fn readdirplus(
        &self,
        _: &Request,
        number: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let _turn = self.turns.begin();
        let listed = self.list(number, handle, offset, |name, next, told| {
            let is_own = matches!(name, b"." | b"..");
            let (stat, lasts) = (told.stat, told.item.lasts());
            // The kernel is told of these otherwise.
            let number = if is_own {
                number.0
            } else {
                told.number(&self.inodes)
            };
            let found = attributes(number, &stat);
            let name = OsStr::from_bytes(name);
            let is_full = reply.add(found.ino, next, name, &lasts, &found, GENERATION);
            if is_full && !is_own {
                self.inodes.forget(number, 1);
            }
            is_full
        });
        match listed {
            Ok(()) => reply.ok(),
            Err(errno) => reply.error(no(errno)),
        }
    }

    fn releasedir(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        reply: ReplyEmpty,
    ) {
        let _turn = self.turns.begin();
        self.listings.remove(handle);
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let _turn = self.turns.begin();
        let space = match self.inodes.get(ROOT) {
            Ok(Item::Directory(root)) => root.space(),
            _ => Err(Errno::NOSYS),
        };
        match space {
            Ok(of) => reply.statfs(
                of.f_blocks,
                of.f_bfree,
                of.f_bavail,
                of.f_files,
                of.f_ffree,
                u32::try_from(of.f_bsize).unwrap_or(BLOCK_SIZE),
                u32::try_from(of.f_namemax).unwrap_or(255),
                u32::try_from(of.f_frsize).unwrap_or(BLOCK_SIZE),
            ),
            Err(_) => reply.statfs(0, 0, 0, 0, 0, BLOCK_SIZE, 255, BLOCK_SIZE),
        }
    }

    fn getxattr(&self, _: &Request, number: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let _turn = self.turns.begin();
        let item = self.inodes.get(number.0);
        let value = item.and_then(|item| item.attribute(name.as_bytes()));
        put_attribute(value, size, reply);
    }

    fn listxattr(&self, request: &Request, number: INodeNo, size: u32, reply: ReplyXattr) {
        let _turn = self.turns.begin();
        let item = self.inodes.get(number.0);
        // As every file system has it, who is no administrator is told of no `trusted.*`.
        let is_told = |name: &[u8]| request.uid() == 0 || !name.starts_with(b"trusted.");
        let names = item.and_then(|item| {
            let mut names = Vec::new();
            for (name, _) in item.attributes()?.iter().filter(|(name, _)| is_told(name)) {
                names.extend_from_slice(name);
                names.push(0);
            }
            Ok(names)
        });
        put_attribute(names, size, reply);
    }

    fn lseek(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let _turn = self.turns.begin();
        let file = self.files.get(handle);
        match file.and_then(|file| file.seek(offset, whence)) {
            Ok(found) => reply.offset(found),
            Err(errno) => reply.error(no(errno)),
        }
    }
}
