//! The files that one layer's directory has, found by the names that an archive has for them.

use crate::bytes::Bytes;
use crate::dir::{Content, Kind};
use crate::error::{Error, Result};
use crate::union::{Entry, Node, Reading, Stack};

/// The longest path of an archive that is looked for, or named, in bytes. No engine unpacks one of more than
/// 4 KiB, and each of its directories may be remembered.
pub const PATH_MAX: usize = 64 << 10;

/// What a layer's own branches have. No link is followed: a name is that of an entry or of nothing.
pub struct Tree<'s> {
    root: Node<'s>,
    /// The directory that was looked into last: the names of an archive lie side by side.
    last: Option<(Vec<u8>, Node<'s>)>,
}

/// Why there is no file's content.
#[derive(Debug)]
pub enum Absent {
    /// Nothing has the name.
    Missing,
    /// Something else has it.
    OtherType,
    /// The name leads out of the layer.
    Outside,
    /// It cannot be read.
    Unread(Error),
}

impl From<Error> for Absent {
    fn from(error: Error) -> Absent {
        if error.is_not_found() {
            Absent::Missing
        } else {
            Absent::Unread(error)
        }
    }
}

impl<'s> Tree<'s> {
    /// The layer that some branches of a stack are.
    pub fn new(stack: &'s Stack, branches: &[usize]) -> Tree<'s> {
        Tree {
            root: stack.root(|branch| branches.contains(&branch), Reading::Nothing),
            last: None,
        }
    }

    /// The layer's root.
    pub fn root(&self) -> Node<'s> {
        self.root.clone()
    }

    /// Opens the content of a file.
    ///
    /// # Errors
    /// There is none.
    pub fn open(&mut self, name: &[u8]) -> Result<Content, Absent> {
        let (place, name) = self.find(name)?;
        match place.child(&name)? {
            Entry::Leaf {
                from,
                kind: Kind::File,
                data,
                ..
            } => Ok(place.open_content(from, &name, data.as_deref())?),
            Entry::Missing | Entry::Deleted { .. } => Err(Absent::Missing),
            Entry::Leaf { .. } | Entry::Dir(_) => Err(Absent::OtherType),
            Entry::Broken { errno, .. } => {
                Err(Absent::Unread(Error::io(place.path_of(&name), errno)))
            }
        }
    }

    /// The place that a name of an archive lies in, and its last part: empty for the layer's root.
    ///
    /// # Errors
    /// There is no such place.
    pub fn find(&mut self, name: &[u8]) -> Result<(Node<'s>, Vec<u8>), Absent> {
        let parts = name.split(|byte| *byte == b'/');
        let parts = parts.filter(|part| !part.is_empty() && *part != b".");
        let mut parts: Vec<&[u8]> = parts.collect();
        if parts.contains(&&b".."[..]) || name.contains(&0) {
            return Err(Absent::Outside);
        }
        let last = parts.pop().unwrap_or_default().to_vec();
        let parent = parts.join(&b"/"[..]);
        if let Some((known, node)) = &self.last
            && *known == parent
        {
            return Ok((node.clone(), last));
        }
        let mut node = self.root.clone();
        for part in parts {
            node = match node.child(part)? {
                Entry::Dir(below) => below,
                Entry::Missing | Entry::Deleted { .. } => return Err(Absent::Missing),
                Entry::Leaf { .. } => return Err(Absent::OtherType),
                Entry::Broken { errno, .. } => {
                    return Err(Absent::Unread(Error::io(node.path_of(part), errno)));
                }
            };
        }
        self.last = Some((parent, node.clone()));
        Ok((node, last))
    }
}

/// The path in the layer that a name of an archive means.
pub fn path_of(name: &[u8]) -> Bytes {
    Bytes::absolute(crate::bytes::components(name))
}
