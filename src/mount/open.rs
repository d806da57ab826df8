//! What is open: files, and directories with their lists.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use fuser::FileHandle;
use rustix::fs;
use rustix::io::Errno;

use super::item::Inside;
use super::places::Places;
use crate::dir::{Content, Stat};
use crate::error::errno_of;

/// A file that is open.
pub struct File {
    /// The number of its inode.
    pub number: u64,
    pub stat: Stat,
    pub content: Content,
}

impl File {
    /// Reads until the buffer is full or the file ends: the kernel takes less for the end. Where the
    /// file ended when it was opened, what comes short is not asked again whether that is the end.
    ///
    /// # Errors
    /// What the system call says.
    pub fn read(&self, buffer: &mut [u8], offset: u64) -> Result<usize, Errno> {
        let mut done = 0;
        while done < buffer.len() {
            let at = offset.saturating_add(done as u64);
            match self.content.read_at(&mut buffer[done..], at) {
                Ok(0) => break,
                Ok(count) => {
                    done += count;
                    if at.saturating_add(count as u64) == self.stat.size {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(errno_of(&error)),
            }
        }
        Ok(done)
    }

    /// What `fstat` says of it now.
    pub fn stat(&self) -> Result<Stat, Errno> {
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

    /// What `lseek` finds: the next data, or the next hole.
    ///
    /// # Errors
    /// `ENXIO` behind the end; `EINVAL` for what else can be sought; what the system call says.
    pub fn seek(&self, offset: i64, whence: i32) -> Result<i64, Errno> {
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
pub struct Listing {
    pub inside: Inside,
    snapshot: Mutex<Option<Arc<Snapshot>>>,
}

pub struct Snapshot {
    pub names: Vec<Vec<u8>>,
    /// The places of a directory, with their listings.
    read: Option<Places>,
    when: Instant,
}

impl Listing {
    pub fn new(inside: Inside) -> Listing {
        Listing {
            inside,
            snapshot: Mutex::default(),
        }
    }

    /// The names; those of now, where a list that can have changed is begun again.
    ///
    /// # Errors
    /// A directory that cannot be listed.
    pub fn snapshot(&self, is_begun: bool) -> Result<Arc<Snapshot>, Errno> {
        let mut kept = self.snapshot.lock().unwrap_or_else(PoisonError::into_inner);
        let is_over = |of: &Arc<Snapshot>| {
            is_begun
                && match &self.inside {
                    Inside::Directory(directory) => directory.view.is_over(of.when),
                    Inside::Room(_) => true,
                }
        };
        if let Some(snapshot) = kept.as_ref().filter(|of| !is_over(of)) {
            return Ok(Arc::clone(snapshot));
        }
        let snapshot = Arc::new(Snapshot::of(&self.inside)?);
        *kept = Some(Arc::clone(&snapshot));
        Ok(snapshot)
    }
}

impl Snapshot {
    fn of(inside: &Inside) -> Result<Snapshot, Errno> {
        let when = Instant::now();
        let (names, read) = match inside {
            Inside::Room(room) => (room.names()?, None),
            Inside::Directory(directory) => {
                let read = directory.places()?.read();
                let names = read.names().map_err(|error| match error.errno() {
                    // One that was removed is open still. Whoever lists takes this error for the end.
                    Errno::NOENT => Errno::STALE,
                    errno => errno,
                })?;
                // What was removed while it was read has no names.
                directory.view.check()?;
                (names, Some(read))
            }
        };
        Ok(Snapshot { names, read, when })
    }

    /// The places that say what the names mean.
    ///
    /// # Errors
    /// `ESTALE` where there is no such directory any more.
    pub fn places(&self, inside: &Inside) -> Result<Option<Places>, Errno> {
        match inside {
            Inside::Directory(directory) if directory.view.is_over(self.when) => {
                directory.places().map(Some)
            }
            Inside::Directory(_) | Inside::Room(_) => Ok(self.read.clone()),
        }
    }
}

/// What is open, by the numbers that the kernel has for it.
pub struct Handles<T> {
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
    /// Gives something its number.
    pub fn add(&self, opened: T) -> FileHandle {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.insert(number, Arc::new(opened));
        FileHandle(number)
    }

    /// What has a number.
    ///
    /// # Errors
    /// `EBADF` where nothing has.
    pub fn get(&self, handle: FileHandle) -> Result<Arc<T>, Errno> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.get(&handle.0).cloned().ok_or(Errno::BADF)
    }

    /// One that is open and of which something is so.
    pub fn find(&self, is_it: impl Fn(&T) -> bool) -> Option<Arc<T>> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.values().find(|of| is_it(of)).cloned()
    }

    /// Closes something, once nobody looks at it.
    pub fn remove(&self, handle: FileHandle) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let closed = open.remove(&handle.0);
        drop(open);
        drop(closed);
    }
}
