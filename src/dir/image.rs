//! Directories that are in an image and not the kernel's: the answers are those that the kernel
//! would give if the image were mounted.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{self, FileType};
use rustix::io::Errno;

use super::names::Reading;
use super::stat::{Kind, Stat};
use crate::erofs::{self, Entry, Image, Inode};

/// What no device of the kernel's has in its number, so that what is in an image is never taken for
/// something that is not.
const OF_IMAGE: u64 = 1 << 63;

/// The longest name that a file system has, in bytes.
const NAME_MAX: usize = 255;

/// An image that was opened, and its place among all files.
#[derive(Debug)]
pub(super) struct Opened {
    pub image: Image,
    /// The device and the inode of the file that it is in.
    pub file: (u64, u64),
    /// What files in it have as the number of their device.
    device: u64,
}

/// A directory in an image.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub opened: Arc<Opened>,
    pub inode: Inode,
    /// Whether it is the image's root.
    pub is_root: bool,
}

/// The bytes of an image in a file.
struct InFile {
    file: OwnedFd,
    size: u64,
}

impl erofs::Source for InFile {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, into: &mut [u8], at: u64) -> Result<usize, Errno> {
        rustix::io::pread(&self.file, into, at)
    }
}

fn errno(fault: erofs::Fault) -> Errno {
    fault.errno()
}

impl Place {
    /// The root of the image that a regular file is.
    pub fn root_of(file: OwnedFd) -> Result<Place, erofs::Fault> {
        let stat = fs::fstat(&file).map_err(erofs::Fault::Io)?;
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let image = Image::open(Box::new(InFile { file, size }))?;
        let inode = image.inode(image.root())?;
        if !inode.is_directory() {
            return Err(erofs::Fault::Damaged("its root is no directory"));
        }
        Ok(Place {
            opened: Arc::new(Opened {
                image,
                file: (stat.st_dev, stat.st_ino),
                device: OF_IMAGE | (stat.st_dev.rotate_left(40) ^ stat.st_ino),
            }),
            inode,
            is_root: true,
        })
    }

    fn image(&self) -> &Image {
        &self.opened.image
    }

    /// The inode of a name; none where there is nothing of that name.
    fn find(&self, name: &[u8]) -> Result<Option<Inode>, Errno> {
        if name == b"." {
            return Ok(Some(self.inode));
        }
        if name.len() > NAME_MAX {
            return Err(Errno::NAMETOOLONG);
        }
        let number = self.image().find(&self.inode, name).map_err(errno)?;
        let inode = number.map(|number| self.image().inode(number));
        inode.transpose().map_err(errno)
    }

    fn get(&self, name: &[u8]) -> Result<Inode, Errno> {
        self.find(name)?.ok_or(Errno::NOENT)
    }

    pub fn child(&self, name: &[u8]) -> Result<Place, Errno> {
        if name == b"." {
            return Ok(self.clone());
        }
        // What is above the root is not in the image, and nobody asks for it.
        if name == b".." {
            return Err(Errno::NOENT);
        }
        if name.len() > NAME_MAX {
            return Err(Errno::NAMETOOLONG);
        }
        let found = self.image().enter(&self.inode, name).map_err(errno)?;
        let inode = found.ok_or(Errno::NOENT)?;
        if !inode.is_directory() {
            return Err(Errno::NOTDIR);
        }
        Ok(Place {
            opened: Arc::clone(&self.opened),
            inode,
            is_root: false,
        })
    }

    /// Lists the directory, up to one name more than `most`.
    pub fn list(&self, most: usize, reading: &mut Reading) -> Result<(), Errno> {
        let mut failed = None;
        let listed = self.image().list(&self.inode, |entry| {
            if reading.count() > most {
                return Ok(false);
            }
            let Some(kind) = self.kind_of(&entry)? else {
                return Ok(true);
            };
            failed = reading.push(entry.name, kind).err();
            Ok(failed.is_none())
        });
        match failed {
            Some(errno) => Err(errno),
            None => listed.map_err(errno),
        }
    }

    fn kind_of(&self, entry: &Entry<'_>) -> Result<Option<Kind>, erofs::Fault> {
        Ok(match entry.kind {
            1 => Some(Kind::File),
            2 => Some(Kind::Directory),
            3 => Some(Kind::Char),
            4 => Some(Kind::Block),
            5 => Some(Kind::Fifo),
            6 => Some(Kind::Socket),
            7 => Some(Kind::Symlink),
            _ => kind(&self.image().inode(entry.number)?),
        })
    }

    pub fn stat(&self, name: &[u8]) -> Result<Option<Stat>, Errno> {
        let found = self.find(name)?;
        found.map(|inode| self.stat_of(&inode)).transpose()
    }

    /// # Errors
    /// `EUCLEAN` for what is of no type.
    pub fn stat_of(&self, inode: &Inode) -> Result<Stat, Errno> {
        Ok(Stat {
            kind: kind(inode).ok_or(Errno::UCLEAN)?,
            mode: inode.mode & 0o7777,
            uid: inode.uid,
            gid: inode.gid,
            size: inode.size,
            mtime: inode.mtime,
            atime: inode.mtime,
            ctime: inode.mtime,
            ino: inode.number,
            dev: self.opened.device,
            rdev: inode.device.into(),
            nlink: inode.names.into(),
            blocks: inode.blocks,
        })
    }

    pub fn read_link(&self, name: &[u8]) -> Result<Vec<u8>, Errno> {
        let inode = self.get(name)?;
        let target = self.image().target(&inode).map_err(errno)?;
        target.ok_or(Errno::INVAL)
    }

    pub fn attribute(
        &self,
        entry: &[u8],
        name: &str,
        max: usize,
    ) -> Result<Option<Vec<u8>>, Errno> {
        let inode = self.get(entry)?;
        let value = self.image().attribute(&inode, name.as_bytes(), max);
        value.map_err(errno)
    }

    pub fn attribute_names(&self, entry: &[u8]) -> Result<Vec<Vec<u8>>, Errno> {
        let inode = self.get(entry)?;
        self.image().attribute_names(&inode).map_err(errno)
    }

    /// The image and the inode of a regular file.
    pub fn open_file(&self, name: &[u8]) -> Result<(Arc<Opened>, Inode), Errno> {
        let inode = self.get(name)?;
        match kind(&inode) {
            Some(Kind::File) => Ok((Arc::clone(&self.opened), inode)),
            Some(Kind::Symlink) => Err(Errno::LOOP),
            _ => Err(Errno::INVAL),
        }
    }
}

fn kind(inode: &Inode) -> Option<Kind> {
    Kind::from_file_type(FileType::from_raw_mode(inode.mode))
}
