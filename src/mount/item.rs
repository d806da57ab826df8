//! What the kernel can be told of, and what it is told of it.

use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;

use super::catalogue::{Entered, Room};
use super::directory::{Child, Directory, Leaf};
use super::places::Places;
use super::view::{FRESH, View};
use crate::dir::{Kind, Stat};
use crate::restore::attributes::{Attributes, Into};

/// What the kernel can be told of.
#[derive(Clone)]
pub enum Item {
    Directory(Arc<Directory>),
    /// Names of unions, or one that may not have been entered yet.
    Room(Arc<Room>),
    Leaf(Arc<Leaf>),
    /// A name that is listed and refused.
    Refused(Errno),
}

/// The longest value of an attribute, in bytes.
const VALUE_MAX: usize = 64 * 1024;

impl Item {
    /// How long the kernel may take an answer about it for what is.
    pub fn lasts(&self) -> Duration {
        match self {
            Item::Leaf(leaf) => leaf.view().lasts(),
            // Also a directory that nobody writes to can be removed: it is looked for, and what is in it
            // need not be.
            Item::Directory(_) | Item::Room(_) => FRESH,
            Item::Refused(_) => Duration::ZERO,
        }
    }

    /// Where names are looked up, if it is such a place. A union is entered by that.
    ///
    /// # Errors
    /// `ENOTDIR` for what is none; the union cannot be opened.
    pub fn inside(&self) -> Result<Inside, Errno> {
        match self {
            Item::Directory(directory) => Ok(Inside::Directory(Arc::clone(directory))),
            Item::Room(room) => match room.what()? {
                Entered::Names => Ok(Inside::Room(Arc::clone(room))),
                Entered::Union => Ok(Inside::Directory(room.enter()?)),
            },
            Item::Leaf(_) => Err(Errno::NOTDIR),
            Item::Refused(errno) => Err(*errno),
        }
    }

    /// What `lstat` says of it.
    ///
    /// # Errors
    /// What the system calls say.
    pub fn stat(&self) -> Result<Stat, Errno> {
        match self {
            Item::Directory(directory) => {
                directory.view.check()?;
                directory.stat()
            }
            Item::Room(room) => match room.entered() {
                Some(root) => root.stat(),
                None => room.what().map(|_| OF_ROOM),
            },
            Item::Leaf(leaf) => leaf.stat(),
            Item::Refused(errno) => Err(*errno),
        }
    }

    /// The directory that it is, or that it shows; none of a room without.
    fn directory(&self) -> Option<Arc<Directory>> {
        match self {
            Item::Directory(directory) => Some(Arc::clone(directory)),
            Item::Room(room) => room.entered(),
            Item::Leaf(_) | Item::Refused(_) => None,
        }
    }

    /// All attributes, as the union shows them.
    ///
    /// # Errors
    /// What the system calls say.
    pub fn attributes(&self) -> Result<Attributes, Errno> {
        match self {
            Item::Refused(errno) => Err(*errno),
            Item::Leaf(leaf) => {
                let attributes = leaf.entry(Attributes::of_entry)?;
                Ok(attributes.seen(&*leaf.node()?, leaf.found.from, Into::View))
            }
            Item::Directory(_) | Item::Room(_) => match self.directory() {
                None => Ok(Attributes::default()),
                Some(directory) => {
                    let places = directory.places()?;
                    let node = places.shown();
                    let provider = node.provider().ok_or(Errno::STALE)?;
                    let dir = node.dir(provider).ok_or(Errno::STALE)?;
                    let attributes = Attributes::of_directory(dir)?;
                    Ok(attributes.seen(node, provider, Into::View))
                }
            },
        }
    }

    /// One attribute, as the union shows it.
    ///
    /// # Errors
    /// `ENODATA` where there is none; what the system calls say.
    pub fn attribute(&self, name: &[u8]) -> Result<Vec<u8>, Errno> {
        if !self.has_attribute(name)? {
            return Err(Errno::NODATA);
        }
        let all = self.attributes()?;
        let mut all = all.iter();
        let found = all.find(|(of, _)| *of == name);
        found.map(|(_, value)| value.to_vec()).ok_or(Errno::NODATA)
    }

    /// Whether the branch has something that may be shown under a name: most entries have no
    /// attributes, and those of all need not be read to see that.
    fn has_attribute(&self, name: &[u8]) -> Result<bool, Errno> {
        let stored = |branch: usize, view: &View| {
            let stored = view.stack.branches[branch].grammar.stored_attribute(name);
            String::from_utf8(stored).map_err(|_| Errno::NODATA)
        };
        let value = match self {
            Item::Refused(errno) => return Err(*errno),
            Item::Leaf(leaf) => {
                let stored = stored(leaf.found.from, leaf.view())?;
                leaf.entry(|dir, name| dir.attribute(name, &stored, VALUE_MAX))?
            }
            Item::Directory(_) | Item::Room(_) => {
                let Some(directory) = self.directory() else {
                    return Ok(false);
                };
                let places = directory.places()?;
                let node = places.shown();
                let provider = node.provider().ok_or(Errno::STALE)?;
                let dir = node.dir(provider).ok_or(Errno::STALE)?;
                dir.attribute_self(&stored(provider, &directory.view)?, VALUE_MAX)?
            }
        };
        Ok(value.is_some())
    }
}

/// Where names are looked up.
#[derive(Clone)]
pub enum Inside {
    Directory(Arc<Directory>),
    Room(Arc<Room>),
}

impl Inside {
    /// What it is itself.
    pub fn item(&self) -> Item {
        match self {
            Inside::Directory(directory) => Item::Directory(Arc::clone(directory)),
            Inside::Room(room) => Item::Room(Arc::clone(room)),
        }
    }

    /// How long the kernel may take it that a name means nothing here.
    pub fn lacks_for(&self) -> Duration {
        match self {
            Inside::Directory(directory) => directory.view.lasts(),
            Inside::Room(_) => FRESH,
        }
    }

    /// What has a name, and what its branch was heard to say of it on the way. `places` are those that
    /// say what names mean, where they are known.
    ///
    /// # Errors
    /// What the union says of the name; `ENOENT` where there is nothing.
    pub fn child(
        &self,
        places: Option<&Places>,
        name: &[u8],
    ) -> Result<(Item, Option<Stat>), Errno> {
        let child = match (self, places) {
            (Inside::Room(room), _) => {
                let room = Arc::new(room.child(name)?);
                return Ok((Item::Room(room), None));
            }
            (Inside::Directory(directory), Some(places)) => directory.child(places, name)?,
            (Inside::Directory(directory), None) => {
                directory.view.check()?;
                directory.child(&directory.places()?, name)?
            }
        };
        Ok(match child {
            Child::Directory(directory) => (Item::Directory(directory), None),
            Child::Leaf(leaf, stat) => (Item::Leaf(leaf), stat),
        })
    }
}

/// What is said of a directory of names, and of a union that nobody has entered.
const OF_ROOM: Stat = Stat {
    kind: Kind::Directory,
    mode: 0o555,
    ..NOTHING
};

/// What is said of what cannot be asked.
pub const NOTHING: Stat = Stat {
    kind: Kind::File,
    mode: 0,
    uid: 0,
    gid: 0,
    size: 0,
    mtime: (0, 0),
    atime: (0, 0),
    ctime: (0, 0),
    ino: 0,
    dev: 0,
    rdev: 0,
    nlink: 1,
    blocks: 0,
};
