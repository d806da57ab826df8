//! Directories, listed.

use std::cell::Cell;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs;
use rustix::io::Errno;

use super::names::{Names, Reading};
use super::open::{Access, Dir, Ground, open_dir_at};
use super::stat::Kind;

/// The position behind a directory's last entry, as ext4 and btrfs give it: there is no larger one.
/// The call that would find nothing more, one in four of a walk's, is then not made.
const END: u64 = i64::MAX as u64;
/// Space for entries, in bytes: what the kernel fills in one call.
const ENTRIES: usize = 32 * 1024;

thread_local! {
    static READING: Cell<Reading> = const { Cell::new(Reading::empty()) };
}

/// How many names were listed until now, for whoever waits.
static LISTED: AtomicU64 = AtomicU64::new(0);

/// How many names of directories this process has listed.
pub fn names_listed() -> u64 {
    LISTED.load(Ordering::Relaxed)
}

impl Dir {
    /// Every name in the directory but `.` and `..`, sorted by bytes, and its kind as the listing
    /// itself tells it.
    ///
    /// # Errors
    /// What the system calls say; `ENOMEM` for 4 GiB of names.
    pub fn names(&self) -> Result<Names, Errno> {
        self.read_names(usize::MAX)
    }

    /// The same; `None` for more names than `most`, of which not all are then read.
    ///
    /// # Errors
    /// As of [`Dir::names`].
    pub fn names_up_to(&self, most: usize) -> Result<Option<Names>, Errno> {
        let names = self.read_names(most)?;
        let is_whole = names.count() <= most;
        if !is_whole {
            self.0.is_large.store(true, Ordering::Relaxed);
        }
        Ok(is_whole.then_some(names))
    }

    /// Whether it is known to have more names than somebody wanted to read.
    pub fn is_large(&self) -> bool {
        self.0.is_large.load(Ordering::Relaxed)
    }

    fn read_names(&self, most: usize) -> Result<Names, Errno> {
        let mut reading = READING.take();
        let listed = match &self.0.ground {
            Ground::Image(place) => place.list(most, &mut reading),
            Ground::Kernel(own) => {
                let fd = self.fd()?;
                match self.0.access {
                    Access::List => {
                        if own.was_listed.swap(true, Ordering::Relaxed) {
                            fs::seek(&*fd, fs::SeekFrom::Start(0))?;
                        }
                        self.read_entries(&fd, most, &mut reading)
                    }
                    Access::Lookup => {
                        let listed = open_dir_at(&*fd, b".", Access::List)?;
                        self.read_entries(&listed, most, &mut reading)
                    }
                }
            }
        };
        let names = listed.map(|()| reading.names());
        READING.set(reading.emptied());
        if let Ok(names) = &names {
            LISTED.fetch_add(names.count() as u64, Ordering::Relaxed);
        }
        names
    }

    fn read_entries(&self, fd: &OwnedFd, most: usize, reading: &mut Reading) -> Result<(), Errno> {
        let mut buffer = std::mem::take(&mut reading.buffer);
        buffer.reserve(ENTRIES);
        let mut raw = fs::RawDir::new(fd, buffer.spare_capacity_mut());
        while let Some(entry) = raw.next() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            let is_last = entry.next_entry_cookie() == END;
            if name != b"." && name != b".." {
                if reading.count() > most {
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
}
