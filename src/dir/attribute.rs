//! Extended attributes of directories and their entries.

use std::os::fd::{AsRawFd, OwnedFd};

use rustix::buffer::spare_capacity;
use rustix::fs;
use rustix::io::Errno;

use super::open::{Access, Dir, Ground};

impl Dir {
    /// An extended attribute of the directory itself. `None` where it has none of that name, or a
    /// longer one than `max` bytes.
    ///
    /// # Errors
    /// What the system call says.
    pub fn attribute_self(&self, name: &str, max: usize) -> Result<Option<Vec<u8>>, Errno> {
        if let Ground::Image(place) = &self.0.ground {
            return place.attribute(b".", name, max);
        }
        let fd = self.fd()?;
        let mut value = Vec::with_capacity(max);
        let got = match self.0.access {
            Access::List => fs::fgetxattr(&*fd, name, spare_capacity(&mut value)),
            // What was opened for lookups only cannot be asked itself.
            Access::Lookup => fs::getxattr(entry_path(&fd, b"."), name, spare_capacity(&mut value)),
        };
        attribute_or_none(got, value)
    }

    /// The same of an entry, which is not opened.
    ///
    /// # Errors
    /// What the system call says.
    pub fn attribute(
        &self,
        entry: &[u8],
        name: &str,
        max: usize,
    ) -> Result<Option<Vec<u8>>, Errno> {
        if let Ground::Image(place) = &self.0.ground {
            return place.attribute(entry, name, max);
        }
        let fd = self.fd()?;
        let mut value = Vec::with_capacity(max);
        let got = fs::lgetxattr(entry_path(&fd, entry), name, spare_capacity(&mut value));
        attribute_or_none(got, value)
    }
}

/// Which extended attributes there are, as far as this user is told of them.
pub struct AttributeList(Option<Vec<u8>>);

impl AttributeList {
    /// Where nothing is told, or the answers cost nothing.
    pub const UNTOLD: AttributeList = AttributeList(None);

    /// Whether there is an attribute of that name; `None` where nothing is told.
    pub fn has(&self, name: &str) -> Option<bool> {
        let mut names = self.names()?;
        Some(names.any(|of| of == name.as_bytes()))
    }

    /// Whether there may be one.
    pub fn may_have(&self, name: &str) -> bool {
        self.has(name).unwrap_or(true)
    }

    fn names(&self) -> Option<impl Iterator<Item = &[u8]>> {
        let names = self.0.as_ref()?.split(|&byte| byte == 0);
        Some(names.filter(|name| !name.is_empty()))
    }

    /// Asks for them: `list` is the system call.
    fn ask(
        mut list: impl FnMut(&mut Vec<u8>) -> Result<usize, Errno>,
    ) -> Result<AttributeList, Errno> {
        // Nearly nothing has as many.
        let mut names: Vec<u8> = Vec::with_capacity(1024);
        let listed = match list(&mut names) {
            Err(Errno::RANGE) => {
                names.reserve(NAMES_MAX);
                list(&mut names)
            }
            listed => listed,
        };
        match listed {
            Ok(_) => Ok(AttributeList(Some(names))),
            Err(Errno::OPNOTSUPP | Errno::TOOBIG) => Ok(AttributeList::UNTOLD),
            Err(errno) => Err(errno),
        }
    }
}

impl Dir {
    /// Which extended attributes the directory itself has.
    ///
    /// # Errors
    /// What the system call says.
    pub fn attributes_self(&self) -> Result<AttributeList, Errno> {
        if self.is_in_image() {
            return Ok(AttributeList::UNTOLD);
        }
        let fd = self.fd()?;
        AttributeList::ask(|names| match self.0.access {
            Access::List => fs::flistxattr(&*fd, spare_capacity(names)),
            Access::Lookup => fs::listxattr(entry_path(&fd, b"."), spare_capacity(names)),
        })
    }

    /// The same of an entry, which is not opened.
    ///
    /// # Errors
    /// What the system call says.
    pub fn attributes(&self, entry: &[u8]) -> Result<AttributeList, Errno> {
        if self.is_in_image() {
            return Ok(AttributeList::UNTOLD);
        }
        let fd = self.fd()?;
        let path = entry_path(&fd, entry);
        AttributeList::ask(|names| fs::llistxattr(&path, spare_capacity(names)))
    }

    /// The names of an entry's extended attributes, as far as this user is told of them. A name that
    /// is not text is none that anybody can give.
    ///
    /// # Errors
    /// What the system call says.
    pub fn attribute_names(&self, entry: &[u8]) -> Result<Vec<String>, Errno> {
        let text = |name: &[u8]| String::from_utf8(name.to_vec()).ok();
        if let Ground::Image(place) = &self.0.ground {
            let names = place.attribute_names(entry)?;
            return Ok(names.iter().filter_map(|name| text(name)).collect());
        }
        let listed = self.attributes(entry)?;
        Ok(listed
            .names()
            .into_iter()
            .flatten()
            .filter_map(text)
            .collect())
    }
}

/// What the names of all attributes of an entry can take, in bytes.
const NAMES_MAX: usize = 64 * 1024;

/// A path to an entry of an open directory, for the calls that take nothing else. The link in
/// `/proc` is the directory itself, whatever has become of its path.
pub fn entry_path(dir: &OwnedFd, name: &[u8]) -> Vec<u8> {
    let directory = format!("/proc/self/fd/{}/", dir.as_raw_fd());
    [directory.as_bytes(), name].concat()
}

fn attribute_or_none(got: Result<usize, Errno>, value: Vec<u8>) -> Result<Option<Vec<u8>>, Errno> {
    match got {
        Ok(_) => Ok(Some(value)),
        Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE) => Ok(None),
        Err(errno) => Err(errno),
    }
}
