//! Where an open directory is, as messages and rows say it.

use std::sync::Arc;

use rustix::io::Errno;
use smallvec::SmallVec;

use super::open::{Dir, Ground};
use crate::bytes::Bytes;

impl Dir {
    /// The path from the directory that was opened by path, for messages.
    pub fn path(&self) -> Bytes {
        let top = self.top();
        let path = self.path_below(top, b"", Bytes::default());
        Bytes::from(&top.0.name[..]).join_path(&path)
    }

    /// The directory that was opened by path.
    pub(super) fn top(&self) -> &Dir {
        let mut top = self;
        while let Some(parent) = &top.0.parent {
            top = parent;
        }
        top
    }

    /// The path of a name in this directory, as if `top`, which this is below, were the root. The
    /// memory is that of `used`.
    pub fn path_below(&self, top: &Dir, name: &[u8], used: Bytes) -> Bytes {
        let mut names: SmallVec<[&[u8]; 16]> = SmallVec::new();
        let mut known: &[u8] = b"";
        let mut dir = self;
        while let Some(parent) = dir.0.parent.as_ref().filter(|_| !dir.is_same(top)) {
            if let Some(path) = &dir.0.path {
                known = &path[top.0.path_len..];
                break;
            }
            names.push(&dir.0.name);
            dir = parent;
        }
        let Bytes(mut path) = used;
        path.clear();
        path.reserve(self.0.path_len - top.0.path_len + 1 + name.len());
        path.extend_from_slice(known);
        for name in names.iter().rev() {
            path.push(b'/');
            path.extend_from_slice(name);
        }
        if !name.is_empty() {
            path.push(b'/');
            path.extend_from_slice(name);
        }
        if path.is_empty() {
            path.push(b'/');
        }
        Bytes(path)
    }

    /// Whether the path by which it was opened still leads here.
    ///
    /// # Errors
    /// What the system calls say.
    pub fn is_at_its_path(&self) -> Result<bool, Errno> {
        let mut dir = self;
        while let Some(parent) = &dir.0.parent {
            let own = match &dir.0.ground {
                // Its name is that of the file which the image is in.
                Ground::Image(place) if place.is_root => Ok(place.opened.file),
                _ => dir.stat_self().map(|own| own.identity()),
            };
            let found = own.and_then(|own| {
                let found = parent.stat(&dir.0.name)?;
                Ok(found.is_some_and(|found| found.identity() == own))
            });
            match found {
                Ok(true) => dir = parent,
                // It is gone, or another one has its place.
                Ok(false) | Err(Errno::STALE | Errno::NOENT | Errno::NOTDIR) => return Ok(false),
                Err(errno) => return Err(errno),
            }
        }
        Ok(true)
    }

    /// Whether both are one open directory. Two that were opened apart never are.
    pub fn is_same(&self, other: &Dir) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Whether both were opened by the same path from the same directory.
    pub fn has_same_path(&self, other: &Dir) -> bool {
        let (mut own, mut other) = (self, other);
        while !own.is_same(other) {
            match (&own.0.parent, &other.0.parent) {
                (Some(above), Some(others)) if own.0.name == other.0.name => {
                    (own, other) = (above, others);
                }
                _ => return false,
            }
        }
        true
    }
}

impl std::fmt::Debug for Dir {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Dir({})", self.path())
    }
}
