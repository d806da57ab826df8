//! What the kernel asks, and how an answer is put.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use fuser::{
    FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, InitFlags,
    KernelConfig, LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyDirectoryPlus,
    ReplyEmpty, ReplyEntry, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyXattr, Request,
};
use rustix::fs;
use rustix::io::Errno;

use super::directory::{Directory, Item};
use super::inodes::{Inodes, ROOT, Told};
use super::places::Places;
use super::view::View;
use crate::dir::{Content, Kind, Stat};
use crate::error::errno_of;

/// A view, as the kernel asks for it.
pub struct Server {
    inodes: Inodes,
    files: Handles<File>,
    listings: Handles<Listing>,
    /// How long the kernel may take an answer for what is.
    lasts: Duration,
}

impl Server {
    pub fn new(view: View) -> Server {
        let lasts = view.lasts();
        let root = Directory::root(Arc::new(view));
        Server {
            inodes: Inodes::new(Item::Directory(Arc::new(root))),
            files: Handles::default(),
            listings: Handles::default(),
            lasts,
        }
    }

    fn directory(&self, number: INodeNo) -> Result<Arc<Directory>, Errno> {
        match self.inodes.get(number.0)? {
            Item::Directory(directory) => Ok(directory),
            Item::Refused(errno) => Err(errno),
            Item::Leaf(_) => Err(Errno::NOTDIR),
        }
    }

    fn found(&self, parent: INodeNo, name: &[u8]) -> Result<FileAttr, Errno> {
        let directory = self.directory(parent)?;
        directory.view.check()?;
        let item = directory.item(&directory.places()?, name)?;
        let told = Told::of(parent.0, name, item)?;
        let stat = told.stat;
        Ok(attributes(told.number(&self.inodes), &stat))
    }

    fn stat(&self, number: INodeNo, handle: Option<FileHandle>) -> Result<Stat, Errno> {
        match self.inodes.get(number.0)? {
            Item::Directory(directory) => {
                directory.view.check()?;
                directory.stat()
            }
            Item::Refused(errno) => Err(errno),
            Item::Leaf(leaf) => {
                let open = handle.and_then(|handle| self.files.get(handle).ok());
                match (leaf.stat(), open) {
                    // What is open is there, whatever has its name.
                    (Err(Errno::STALE), Some(file)) => file.stat(),
                    (stat, _) => stat,
                }
            }
        }
    }

    fn open_file(&self, number: INodeNo) -> Result<(FileHandle, FopenFlags), Errno> {
        let Item::Leaf(leaf) = self.inodes.get(number.0)? else {
            return Err(Errno::ISDIR);
        };
        leaf.view().check()?;
        let version = leaf.open()?;
        let file = File {
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
        let directory = &listing.directory;
        let first = usize::try_from(offset).unwrap_or(usize::MAX);
        let places = snapshot.places(directory)?;
        for at in first.. {
            let (name, told): (&[u8], _) = match at {
                0 | 1 => {
                    let item = Item::Directory(Arc::clone(directory));
                    let name: &[u8] = if at == 0 { b"." } else { b".." };
                    (name, Some(Told::of(number.0, name, item)?))
                }
                _ => match snapshot.names.get(at - 2) {
                    Some(name) => (name, told(directory, &places, number, name)?),
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

/// What is known of a name that is listed; none where there is nothing.
fn told(
    directory: &Arc<Directory>,
    places: &Places,
    number: INodeNo,
    name: &[u8],
) -> Result<Option<Told>, Errno> {
    let found = directory
        .item(places, name)
        .and_then(|item| Told::of(number.0, name, item));
    match found {
        Ok(told) => Ok(Some(told)),
        // Listed by a branch and not there; or gone meanwhile.
        Err(Errno::NOENT | Errno::STALE) => Ok(None),
        Err(errno) => {
            let lists = places.lists_refused(name);
            let is_listed = lists.map_err(|error| error.errno())?;
            Ok(is_listed.then(|| Told::refused(number.0, name, errno)))
        }
    }
}

// ---- what is open ----

/// A file that is open.
struct File {
    stat: Stat,
    content: Content,
}

impl File {
    /// What `fstat` says of it now.
    fn stat(&self) -> Result<Stat, Errno> {
        let Some(file) = self.content.as_file() else {
            return Ok(self.stat);
        };
        let now = fs::fstat(file)?;
        Ok(Stat {
            size: u64::try_from(now.st_size).unwrap_or(0),
            blocks: u64::try_from(now.st_blocks).unwrap_or(0),
            mtime: (now.st_mtime, u32::try_from(now.st_mtime_nsec).unwrap_or(0)),
            ctime: (now.st_ctime, u32::try_from(now.st_ctime_nsec).unwrap_or(0)),
            nlink: now.st_nlink,
            ..self.stat
        })
    }

    fn seek(&self, offset: i64, whence: i32) -> Result<i64, Errno> {
        let from = u64::try_from(offset).map_err(|_| Errno::INVAL)?;
        let whence = match whence {
            SEEK_DATA => fs::SeekFrom::Data(from),
            SEEK_HOLE => fs::SeekFrom::Hole(from),
            _ => return Err(Errno::INVAL),
        };
        let found = match (self.content.as_file(), whence) {
            // Where reading goes on is nothing to who reads at places.
            (Some(file), whence) => fs::seek(file, whence)?,
            (None, _) if from >= self.stat.size => return Err(Errno::NXIO),
            (None, fs::SeekFrom::Hole(_)) => self.stat.size,
            (None, _) => from,
        };
        i64::try_from(found).map_err(|_| Errno::OVERFLOW)
    }
}

/// As `lseek` has them, on every machine that Linux runs on.
const SEEK_DATA: i32 = 3;
const SEEK_HOLE: i32 = 4;

/// A directory that is open, and its names as they were when they were first asked for: whoever goes
/// on at an offset goes on in the same list.
struct Listing {
    directory: Arc<Directory>,
    snapshot: Mutex<Option<Arc<Snapshot>>>,
}

struct Snapshot {
    names: Vec<Vec<u8>>,
    /// The places, with their listings.
    read: Places,
    when: Instant,
}

impl Listing {
    /// The names; those of now, where a list that can have changed is begun again.
    fn snapshot(&self, is_begun: bool) -> Result<Arc<Snapshot>, Errno> {
        let mut kept = self.snapshot.lock().unwrap_or_else(PoisonError::into_inner);
        let is_over = |of: &Arc<Snapshot>| is_begun && self.directory.view.is_over(of.when);
        if let Some(snapshot) = kept.as_ref().filter(|of| !is_over(of)) {
            return Ok(Arc::clone(snapshot));
        }
        let when = Instant::now();
        let read = self.directory.places()?.read();
        let names = read.names().map_err(|error| error.errno())?;
        // What was removed while it was read has no names.
        self.directory.view.check()?;
        let snapshot = Arc::new(Snapshot { names, read, when });
        *kept = Some(Arc::clone(&snapshot));
        Ok(snapshot)
    }
}

impl Snapshot {
    /// The places that say what the names mean.
    fn places(&self, directory: &Directory) -> Result<Places, Errno> {
        if directory.view.is_over(self.when) {
            directory.places()
        } else {
            Ok(self.read.clone())
        }
    }
}

/// What is open, by the numbers that the kernel has for it.
struct Handles<T> {
    next: AtomicU64,
    open: Mutex<HashMap<u64, Arc<T>>>,
}

impl<T> Default for Handles<T> {
    fn default() -> Self {
        Handles {
            next: AtomicU64::new(1),
            open: Mutex::default(),
        }
    }
}

impl<T> Handles<T> {
    fn add(&self, opened: T) -> FileHandle {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.insert(number, Arc::new(opened));
        FileHandle(number)
    }

    fn get(&self, handle: FileHandle) -> Result<Arc<T>, Errno> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.get(&handle.0).cloned().ok_or(Errno::BADF)
    }

    fn remove(&self, handle: FileHandle) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let closed = open.remove(&handle.0);
        drop(open);
        drop(closed);
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
        if self.lasts > super::view::FRESH {
            let _ = config.add_capabilities(InitFlags::FUSE_CACHE_SYMLINKS);
        }
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.found(parent, name.as_bytes()) {
            Ok(found) => reply.entry(&self.lasts, &found, GENERATION),
            // That there is nothing lasts as long.
            Err(Errno::NOENT) if self.lasts > super::view::FRESH => {
                let nothing = Told::refused(0, b"", Errno::NOENT);
                reply.entry(&self.lasts, &attributes(0, &nothing.stat), GENERATION);
            }
            Err(errno) => reply.error(no(errno)),
        }
    }

    fn forget(&self, _: &Request, number: INodeNo, times: u64) {
        self.inodes.forget(number.0, times);
    }

    fn getattr(&self, _: &Request, number: INodeNo, handle: Option<FileHandle>, reply: ReplyAttr) {
        match self.stat(number, handle) {
            Ok(stat) => reply.attr(&self.lasts, &attributes(number.0, &stat)),
            Err(errno) => reply.error(no(errno)),
        }
    }

    fn readlink(&self, _: &Request, number: INodeNo, reply: ReplyData) {
        let target = match self.inodes.get(number.0) {
            Ok(Item::Leaf(leaf)) => leaf.read_link(),
            Ok(Item::Directory(_)) => Err(Errno::INVAL),
            Ok(Item::Refused(errno)) | Err(errno) => Err(errno),
        };
        match target {
            Ok(target) => reply.data(&target),
            Err(errno) => reply.error(no(errno)),
        }
    }

    fn open(&self, _: &Request, number: INodeNo, _: OpenFlags, reply: ReplyOpen) {
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
        let file = match self.files.get(handle) {
            Ok(file) => file,
            Err(errno) => return reply.error(no(errno)),
        };
        BUFFER.with_borrow_mut(|buffer| {
            let size = size as usize;
            if buffer.len() < size {
                buffer.resize(size, 0);
            }
            match read_whole(&file.content, &mut buffer[..size], offset) {
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
        self.files.remove(handle);
        reply.ok();
    }

    fn opendir(&self, _: &Request, number: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let directory = self.directory(number);
        match directory.and_then(|directory| directory.view.check().map(|()| directory)) {
            Ok(directory) => {
                let keeps = if directory.view.is_writable() {
                    FopenFlags::empty()
                } else {
                    FopenFlags::FOPEN_CACHE_DIR | FopenFlags::FOPEN_KEEP_CACHE
                };
                let listing = Listing {
                    directory,
                    snapshot: Mutex::default(),
                };
                reply.opened(self.listings.add(listing), keeps);
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
        let listed = self.list(number, handle, offset, |name, next, told| {
            let is_own = matches!(name, b"." | b"..");
            let lasts = if told.is_refused() {
                Duration::ZERO
            } else {
                self.lasts
            };
            let stat = told.stat;
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
        self.listings.remove(handle);
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let space = self.directory(INodeNo(ROOT)).and_then(|root| root.space());
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
        let item = self.inodes.get(number.0);
        let value = item.and_then(|item| item.attribute(name.as_bytes()));
        put_attribute(value, size, reply);
    }

    fn listxattr(&self, request: &Request, number: INodeNo, size: u32, reply: ReplyXattr) {
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
        let file = self.files.get(handle);
        match file.and_then(|file| file.seek(offset, whence)) {
            Ok(found) => reply.offset(found),
            Err(errno) => reply.error(no(errno)),
        }
    }
}

/// Reads until the buffer is full or the file ends: the kernel takes less for the end.
fn read_whole(content: &Content, buffer: &mut [u8], offset: u64) -> Result<usize, Errno> {
    let mut done = 0;
    while done < buffer.len() {
        match content.read_at(&mut buffer[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(errno_of(&error)),
        }
    }
    Ok(done)
}
