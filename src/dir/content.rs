//! The content of a regular file, wherever it is: in a file of its own, or in an image.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs;
use rustix::io::Errno;

use super::image::Opened;
use super::open::{Dir, Ground};
use crate::erofs::{Fault, Inode};

/// The content of a regular file, which is read from its beginning on.
pub struct Content(Kept);

enum Kept {
    File(File),
    Image {
        opened: Arc<Opened>,
        inode: Inode,
        /// Where reading goes on, in bytes.
        at: u64,
    },
}

impl Dir {
    /// Opens the content of a regular file.
    ///
    /// # Errors
    /// As of [`Dir::open_file`]; `EOPNOTSUPP` for what an image has in a form that is not read.
    pub fn open_content(&self, name: &[u8]) -> Result<Content, Errno> {
        let Ground::Image(place) = &self.0.ground else {
            return Ok(Content::from(self.open_file(name)?));
        };
        let (opened, inode) = place.open_file(name)?;
        // Whether it can be read at all is known now.
        let first = opened.image.next_data(&inode, 0);
        first.map_err(Fault::errno)?;
        Ok(Content(Kept::Image {
            opened,
            inode,
            at: 0,
        }))
    }
}

impl From<OwnedFd> for Content {
    fn from(file: OwnedFd) -> Content {
        Content(Kept::File(File::from(file)))
    }
}

impl Content {
    /// The file that it is in by itself; none for what is in an image.
    pub fn as_file(&self) -> Option<&File> {
        match &self.0 {
            Kept::File(file) => Some(file),
            Kept::Image { .. } => None,
        }
    }

    /// Goes on to read at a place.
    ///
    /// # Errors
    /// What the system call says.
    pub fn seek(&mut self, to: u64) -> io::Result<()> {
        match &mut self.0 {
            Kept::File(file) => file.seek(SeekFrom::Start(to)).map(|_| ()),
            Kept::Image { at, .. } => {
                *at = to;
                Ok(())
            }
        }
    }

    /// How long it is, in bytes.
    ///
    /// # Errors
    /// What the system call says.
    pub fn size(&self) -> io::Result<u64> {
        match &self.0 {
            Kept::File(file) => Ok(file.metadata()?.len()),
            Kept::Image { inode, .. } => Ok(inode.size),
        }
    }

    /// The next part from a place on that is no hole, where reading then goes on: its beginning and
    /// its end. None where there are only zeros. A file system without holes has one part.
    ///
    /// # Errors
    /// What the system calls say.
    pub fn next_data(&mut self, from: u64) -> io::Result<Option<(u64, u64)>> {
        let size = self.size()?;
        match &mut self.0 {
            Kept::File(file) => {
                let start = match fs::seek(&*file, fs::SeekFrom::Data(from)) {
                    Ok(start) => start,
                    Err(Errno::NXIO) => return Ok(None),
                    Err(_) => from,
                };
                let end = fs::seek(&*file, fs::SeekFrom::Hole(start)).unwrap_or(size);
                file.seek(SeekFrom::Start(start))?;
                Ok(Some((start, end.max(start + 1))))
            }
            Kept::Image { opened, inode, at } => {
                let next = opened.image.next_data(inode, from);
                let next = next.map_err(|fault| io::Error::from(fault.errno()))?;
                if let Some((start, _)) = next {
                    *at = start;
                }
                Ok(next)
            }
        }
    }
}

impl Read for Content {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match &mut self.0 {
            Kept::File(file) => file.read(into),
            Kept::Image { opened, inode, at } => {
                let count = opened.image.read_content(inode, into, *at);
                let count = count.map_err(|fault| io::Error::from(fault.errno()))?;
                *at += count as u64;
                Ok(count)
            }
        }
    }
}
