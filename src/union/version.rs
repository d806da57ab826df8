//! One version of an entry, opened: what `lstat` says and the content are of one file.

use std::fs::File;

use rustix::io::Errno;

use super::node::{DataAt, Node};
use crate::dir::{Content, Dir, Kind, Stat};
use crate::error::{Error, Result};

/// How often another file may have the name of one that is opened.
const SWAPS_MAX: usize = 8;

/// One version of an entry, as it is handed over.
pub struct OpenVersion {
    pub stat: Stat,
    /// Of a regular file.
    pub content: Option<Content>,
    /// The content lies with the metadata.
    is_whole: bool,
}

impl OpenVersion {
    /// The open file, where it has the metadata, too.
    pub fn own_file(&self) -> Option<&File> {
        self.content.as_ref().filter(|_| self.is_whole)?.as_file()
    }
}

impl Node<'_> {
    /// Opens the content of a regular file that the branch `from` provides here: `data` is where
    /// that is, if the branch has only the metadata.
    ///
    /// # Errors
    /// What the system call says.
    pub fn open_content(&self, from: usize, name: &[u8], data: Option<&DataAt>) -> Result<Content> {
        let (branch, path, dir) = match data {
            None => {
                let path = self.place_of(from, name);
                (from, path, self.dir(from).cloned())
            }
            Some(data) if data.is_lost => {
                return Err(Error::io(
                    self.stack.on_host(from, &self.place_of(from, name)),
                    Errno::IO,
                ));
            }
            Some(data) => {
                let dir = self.stack.dir_at(data.branch, &data.path.parent())?;
                (data.branch, data.path.clone(), dir)
            }
        };
        let opened = dir
            .ok_or(Errno::NOENT)
            .and_then(|dir| dir.open_content(path.file_name()));
        opened.map_err(|errno| {
            let path = self.stack.on_host(branch, &path);
            if errno == Errno::OPNOTSUPP {
                Error::damaged(
                    path,
                    "is kept compressed in its image, or on another device: that is not read",
                )
            } else {
                Error::io(path, errno)
            }
        })
    }

    /// What the branch `from` provides of a kind here, with the content of a regular file: `data` is
    /// where that is, if the branch has only the metadata. What `lstat` says is of the very file that
    /// is open, since its name may be another's a moment later.
    ///
    /// # Errors
    /// It is another kind by now, or another file again and again; what the system calls say.
    pub fn open_version(
        &self,
        (from, kind): (usize, Kind),
        name: &[u8],
        data: Option<&DataAt>,
    ) -> Result<OpenVersion> {
        if let Some(version) = self.open_whole((from, kind), name, data) {
            return version;
        }
        for _ in 0..SWAPS_MAX {
            let stat = self.stat(from, name)?;
            if stat.kind != kind {
                break;
            }
            if kind != Kind::File {
                return Ok(OpenVersion {
                    stat,
                    content: None,
                    is_whole: true,
                });
            }
            let content = self.open_content(from, name, data)?;
            let identity = content.opened().identity;
            let is_whole = data.is_none();
            if !is_whole || identity.is_none_or(|of| of == stat.identity()) {
                return Ok(OpenVersion {
                    stat,
                    content: Some(content),
                    is_whole,
                });
            }
        }
        Err(self.replaced(from, name))
    }

    /// The same of a file of which the open descriptor tells all: nothing else need be asked, and
    /// nothing can come between. None of what else there is.
    fn open_whole(
        &self,
        (from, kind): (usize, Kind),
        name: &[u8],
        data: Option<&DataAt>,
    ) -> Option<Result<OpenVersion>> {
        let branch = &self.stack.branches[from];
        let is_in_image = self.dir(from).is_none_or(Dir::is_in_image);
        if kind != Kind::File || data.is_some() || branch.overrides.is_some() || is_in_image {
            return None;
        }
        let content = match self.open_content(from, name, None) {
            Ok(content) => content,
            Err(error) if matches!(error.errno(), Errno::LOOP | Errno::INVAL) => {
                return Some(Err(self.replaced(from, name)));
            }
            Err(error) => return Some(Err(error)),
        };
        let stat = branch.shown(content.stat()?, |_, _| Ok(None));
        Some(Ok(OpenVersion {
            stat,
            content: Some(content),
            is_whole: true,
        }))
    }

    fn replaced(&self, branch: usize, name: &[u8]) -> Error {
        Error::damaged(
            self.on_host(branch, name),
            "was replaced while it was looked at: it was left out",
        )
    }
}
