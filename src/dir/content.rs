//! The content of a regular file, wherever it is: in a file of its own, or in an image.
//!
//! It ends where it ended when it was opened: somebody may write to the file as fast as it is read.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use rustix::fs;
use rustix::io::Errno;

use super::image::Opened;
use super::open::{Dir, Ground};
use super::pass::{Passed, pass};
use super::snapshot::Snapshot;
use super::stat::Stat;
use crate::erofs::{Fault, Inode};

/// The content of a regular file, which is read from its beginning on.
pub struct Content {
    kept: Kept,
    opened: Snapshot,
    /// What `fstat` said of a file of its own when it was opened.
    stat: Option<Stat>,
    /// Where reading goes on, in bytes.
    at: u64,
    /// Where it ends, in bytes.
    end: u64,
}

enum Kept {
    File(File),
    Image { opened: Arc<Opened>, inode: Inode },
}

impl Dir {
    /// Opens the content of a regular file.
    ///
    /// # Errors
    /// As of [`Dir::open_file`]; `EOPNOTSUPP` for what an image has in a form that is not read.
    pub fn open_content(&self, name: &[u8]) -> Result<Content, Errno> {
        let Ground::Image(place) = &self.0.ground else {
            let (file, stat) = self.open_regular(name)?;
            return Content::of(file, &stat);
        };
        let (opened, inode) = place.open_file(name)?;
        // Whether it can be read at all is known now.
        let first = opened.image.next_data(&inode, 0);
        first.map_err(Fault::errno)?;
        Ok(Content {
            opened: Snapshot::in_image(inode.size),
            stat: None,
            end: inode.size,
            at: 0,
            kept: Kept::Image { opened, inode },
        })
    }
}

/// How much of so many bytes is read at once, in bytes. Most files are small, and a buffer is made for each.
pub fn at_once(bytes: u64) -> usize {
    const MOST: usize = 128 << 10;
    usize::try_from(bytes).unwrap_or(MOST).clamp(1, MOST)
}

impl Content {
    fn of(file: OwnedFd, stat: &fs::Stat) -> Result<Content, Errno> {
        let file = File::from(file);
        let opened = Snapshot::from_raw(stat);
        // The kernel's own files have content that their size does not tell of; and its own file
        // systems have no blocks, and no device.
        let is_untold =
            opened.size == 0 && fs::major(stat.st_dev) == 0 && fs::fstatfs(&file)?.f_blocks == 0;
        Ok(Content {
            kept: Kept::File(file),
            opened,
            stat: Stat::from_raw(stat),
            at: 0,
            end: if is_untold { u64::MAX } else { opened.size },
        })
    }

    /// The file that it is in by itself; none for what is in an image.
    pub fn as_file(&self) -> Option<&File> {
        match &self.kept {
            Kept::File(file) => Some(file),
            Kept::Image { .. } => None,
        }
    }

    /// What it was when it was opened.
    pub fn opened(&self) -> Snapshot {
        self.opened
    }

    /// What `fstat` said of it when it was opened; none of what is in an image.
    pub fn stat(&self) -> Option<Stat> {
        self.stat
    }

    /// What has become of it since, as a sentence goes on; none where it is as it was.
    pub fn changed(&self) -> Option<&'static str> {
        let file = self.as_file()?;
        match Snapshot::of(file) {
            Ok(now) => self.opened.became(now),
            Err(_) => Some("could not be looked at again after it was read"),
        }
    }

    /// Lets the kernel pass on what is left of it, as far as it can.
    ///
    /// # Errors
    /// The other side takes no more.
    pub fn pass(&mut self, to: impl AsFd) -> Result<Passed, Errno> {
        let Kept::File(file) = &self.kept else {
            return Ok(Passed::ToBeRead);
        };
        let mut left = self.end.saturating_sub(self.at);
        let passed = pass(file, to, &mut left);
        self.at = self.end - left;
        passed
    }

    /// Goes on to read at a place.
    ///
    /// # Errors
    /// What the system call says.
    pub fn seek(&mut self, to: u64) -> io::Result<()> {
        if let Kept::File(file) = &mut self.kept {
            file.seek(SeekFrom::Start(to))?;
        }
        self.at = to;
        Ok(())
    }

    /// Whether a small file takes as much on disk as it is long: it is not worth a question where its
    /// holes are. A large one may have blocks that hold nothing yet.
    fn has_all_blocks(&self) -> bool {
        const SMALL: u64 = 128 << 10;
        let stat = self.stat.as_ref();
        stat.is_some_and(|stat| (1..=SMALL).contains(&stat.size) && stat.disk() >= self.end)
    }

    /// Reads at a place, wherever reading goes on, and as far as the file reaches by now. Several may
    /// do so at once.
    ///
    /// # Errors
    /// What the system call says.
    pub fn read_at(&self, into: &mut [u8], at: u64) -> io::Result<usize> {
        match &self.kept {
            Kept::File(file) => file.read_at(into, at),
            Kept::Image { opened, inode } => {
                let count = opened.image.read_content(inode, into, at);
                count.map_err(|fault| io::Error::from(fault.errno()))
            }
        }
    }

    /// The next part from a place on that is no hole - of a small file all, if it has as many blocks - where reading then goes on: its beginning and
    /// its end. None where there are only zeros. A file system without holes has one part.
    ///
    /// # Errors
    /// What the system calls say.
    pub fn next_data(&mut self, from: u64) -> io::Result<Option<(u64, u64)>> {
        if self.has_all_blocks() {
            // Where reading goes on is asked for by who has moved on.
            if from != self.at {
                self.seek(from)?;
            }
            return Ok(Some((from, self.end)).filter(|(start, end)| start < end));
        }
        let next = match &self.kept {
            Kept::File(file) => {
                let start = match fs::seek(file, fs::SeekFrom::Data(from)) {
                    Ok(start) => start,
                    Err(Errno::NXIO) => return Ok(None),
                    Err(_) => from,
                };
                let end = fs::seek(file, fs::SeekFrom::Hole(start)).unwrap_or(self.end);
                // What came since is no part of it.
                Some((start, end.min(self.end))).filter(|(start, end)| start < end)
            }
            Kept::Image { opened, inode } => {
                let next = opened.image.next_data(inode, from);
                next.map_err(|fault| io::Error::from(fault.errno()))?
            }
        };
        if let Some((start, _)) = next {
            self.seek(start)?;
        }
        Ok(next)
    }
}

impl Read for Content {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let most = into.len().min(left);
        let into = &mut into[..most];
        let count = match &mut self.kept {
            Kept::File(file) => file.read(into)?,
            Kept::Image { opened, inode } => {
                let count = opened.image.read_content(inode, into, self.at);
                count.map_err(|fault| io::Error::from(fault.errno()))?
            }
        };
        self.at += count as u64;
        Ok(count)
    }
}
