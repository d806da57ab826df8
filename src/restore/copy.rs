//! How a version of a file or a tree is copied, with all that belongs to it: owner, mode, times,
//! extended attributes, holes, and hard links among the files copied.
//!
//! What is copied is a place of a view ([`Node`]), so that a directory is copied as it was seen,
//! merged from all branches below. Where it is copied to is an open directory. Nothing is ever
//! overwritten.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::BorrowedFd;

use rustix::io::Errno;

use super::Depth;
use super::attributes::{Attributes, Into};
use super::made::{Identity, Lacks, Made, Named};
use super::staging::Staging;
use crate::dir::{Content, Dir, Kind, Stat};
use crate::error::{Error, Result, errno_of};
use crate::union::{DataAt, Entry, Node};
use crate::walk::walk;

/// Copies what lies at `chain`, a path below `from`, to where it is staged. Of the directories on
/// the way only themselves are copied, with their metadata; the first of them gets the passing
/// name. What is copied has reached the disk when this returns.
///
/// # Errors
/// Something of the source that cannot be read or is broken, or of the destination that cannot
/// be written. What was made until then is left for the caller to remove.
pub fn copy(
    from: &Node<'_>,
    chain: &[Vec<u8>],
    to: &Staging,
    depth: Depth,
    into: Into,
) -> Result<Copied> {
    let [name, rest @ ..] = chain else {
        return Ok(Copied::default());
    };
    if let (Into::Branch, Some(branch)) = (into, from.stack().overridden().next()) {
        return Err(Error::Refused {
            what: format!(
                "{} keeps owners and modes in attributes (override_stat), which a copy beside them has not",
                branch.path
            ),
            hint: "restore while it is mounted, or copy it out with --to".into(),
        });
    }
    let mut copying = Copying {
        depth,
        into,
        staging: to,
        links: HashMap::new(),
        directories: Vec::new(),
        lacks: Lacks::default(),
    };
    let root = Transfer {
        from: from.clone(),
        name: name.clone(),
        rest,
        to: to.dir.clone(),
        to_name: to.name.clone(),
    };
    let mut results = walk(root, |transfer, found| match copying.copy(&transfer) {
        Ok(below) => below.into_iter().for_each(|below| found.directory(below)),
        Err(error) => found.rows().push(error),
    });
    if let Some(error) = results.next() {
        return Err(error);
    }
    drop(results);
    copying.finish()
}

/// What was copied.
#[derive(Default)]
pub struct Copied {
    pub lacks: Lacks,
    /// Of a directory, whose times are set once more when it has its place.
    pub directory: Option<Stat>,
}

/// Something that is to be copied, and where to.
struct Transfer<'s, 'c> {
    from: Node<'s>,
    name: Vec<u8>,
    /// What is left of the way to what is copied.
    rest: &'c [Vec<u8>],
    to: Dir,
    to_name: Vec<u8>,
}

/// What is known while a tree is copied.
struct Copying<'a> {
    depth: Depth,
    into: Into,
    staging: &'a Staging,
    /// Files of which there may be more names, and the first that was made of each.
    links: HashMap<Identity, Named>,
    /// Directories get their metadata last: writing into them would change their times.
    directories: Vec<(Made, Stat, Attributes)>,
    lacks: Lacks,
}

impl Copying<'_> {
    /// Copies one entry, and gives what is in it.
    fn copy<'s, 'c>(&mut self, transfer: &Transfer<'s, 'c>) -> Result<Vec<Transfer<'s, 'c>>> {
        let Transfer {
            from, name, rest, ..
        } = transfer;
        match from.child(name)? {
            Entry::Dir(node) => self.copy_directory(&node, transfer),
            Entry::Leaf {
                from: branch, data, ..
            } => {
                let leaf = Leaf {
                    from,
                    branch,
                    name,
                    data: data.as_deref(),
                    into: self.into,
                };
                self.copy_leaf(&leaf, &transfer.to, &transfer.to_name)?;
                Ok(Vec::new())
            }
            Entry::Broken { errno, .. } => Err(Error::io(from.path_of(name), errno)),
            // A name that is listed and not there; on the way to what is copied it is an error.
            Entry::Missing | Entry::Deleted { .. } if rest.is_empty() => Ok(Vec::new()),
            Entry::Missing | Entry::Deleted { .. } => {
                Err(Error::io(from.path_of(name), Errno::NOENT))
            }
        }
    }

    fn copy_directory<'s, 'c>(
        &mut self,
        node: &Node<'s>,
        transfer: &Transfer<'s, 'c>,
    ) -> Result<Vec<Transfer<'s, 'c>>> {
        let stat = node.stat_self()?;
        let provider = node.provider().unwrap_or_default();
        let source = node.dir(provider).ok_or(Errno::NOENT);
        let attributes = source.and_then(Attributes::of_directory);
        let attributes = attributes.map_err(|errno| Error::io(node.on_host(provider, b""), errno));
        let attributes = attributes?.seen(node, provider, self.into);
        let made = Made::directory(&transfer.to, &transfer.to_name)?;
        if self.directories.is_empty() && self.into == Into::View {
            made.claim();
        }
        self.staging.note(&made);
        let to = made.as_dir().cloned();
        self.directories.push((made, stat, attributes));
        let (names, rest) = match (transfer.rest.split_first(), self.depth) {
            (Some((next, rest)), _) => (vec![next.clone()], rest),
            (None, Depth::OneEntry) => (Vec::new(), transfer.rest),
            (None, Depth::Whole) => (node.names()?.to_vec(), transfer.rest),
        };
        let below = to.into_iter().flat_map(|to| {
            names.iter().map(move |name| Transfer {
                from: node.clone(),
                to_name: name.clone(),
                name: name.clone(),
                rest,
                to: to.clone(),
            })
        });
        Ok(below.collect())
    }

    fn copy_leaf(&mut self, leaf: &Leaf<'_, '_>, to: &Dir, to_name: &[u8]) -> Result<()> {
        // With the owner that the union shows.
        let stat = leaf.from.stat(leaf.branch, leaf.name)?;
        if let Some(first) = self.links.get(&stat.identity()) {
            Made::link(first, to, to_name)?;
            return Ok(());
        }
        let made = leaf.make(&stat, to, to_name, self.staging)?;
        // What a program that makes the mount writes back later takes capabilities away.
        if let Into::View = self.into {
            made.sync()?;
        }
        self.lacks = self.lacks.and(made.dress(&leaf.attributes()?, &stat)?);
        made.sync()?;
        if stat.nlink > 1 {
            self.links.insert(stat.identity(), made.named());
        }
        Ok(())
    }

    /// Gives the directories their metadata, the deepest first.
    fn finish(self) -> Result<Copied> {
        let mut lacks = self.lacks;
        if let (Some((root, ..)), Into::View) = (self.directories.first(), self.into) {
            root.disclaim()?;
        }
        for (made, stat, attributes) in self.directories.iter().rev() {
            lacks = lacks.and(made.dress(attributes, stat)?);
            made.sync()?;
        }
        Ok(Copied {
            lacks,
            directory: self.directories.first().map(|(_, stat, _)| *stat),
        })
    }
}

/// What is no directory, and how it is copied.
struct Leaf<'a, 's> {
    from: &'a Node<'s>,
    branch: usize,
    name: &'a [u8],
    /// Where its content is, if not with its metadata.
    data: Option<&'a DataAt>,
    into: Into,
}

impl Leaf<'_, '_> {
    fn fail(&self, errno: Errno) -> Error {
        Error::io(self.from.on_host(self.branch, self.name), errno)
    }

    fn dir(&self) -> Result<&Dir> {
        let dir = self.from.dir(self.branch);
        dir.ok_or_else(|| self.fail(Errno::NOENT))
    }

    fn attributes(&self) -> Result<Attributes> {
        let attributes = Attributes::of_entry(self.dir()?, self.name);
        let attributes = attributes.map_err(|errno| self.fail(errno))?;
        Ok(attributes.seen(self.from, self.branch, self.into))
    }

    /// Makes it with its content, and nothing else that belongs to it.
    fn make(&self, stat: &Stat, to: &Dir, to_name: &[u8], staging: &Staging) -> Result<Made> {
        match stat.kind {
            Kind::File => {
                let source = self.from.open_content(self.branch, self.name, self.data)?;
                let made = Made::file(to, to_name)?;
                staging.note(&made);
                if let Some(file) = made.as_file() {
                    let copied = copy_bytes(source, file);
                    copied.map_err(|error| match error {
                        CopyError::From(errno) => self.fail(errno),
                        CopyError::To(errno) => Error::io(to.path().join(to_name), errno),
                    })?;
                }
                Ok(made)
            }
            Kind::Symlink => {
                let target = self.dir()?.read_link(self.name);
                let target = target.map_err(|errno| self.fail(errno))?;
                let made = Made::symlink(to, to_name, &target)?;
                staging.note(&made);
                Ok(made)
            }
            Kind::Char | Kind::Block | Kind::Fifo | Kind::Socket | Kind::Directory => {
                let made = Made::node(to, to_name, stat.kind, stat.rdev)?;
                staging.note(&made);
                Ok(made)
            }
        }
    }
}

enum CopyError {
    From(Errno),
    To(Errno),
}

/// Copies content, holes as holes.
fn copy_bytes(mut source: Content, made: BorrowedFd<'_>) -> Result<(), CopyError> {
    let from = |error: std::io::Error| CopyError::From(errno_of(&error));
    let to = |error: std::io::Error| CopyError::To(errno_of(&error));
    let mut made = File::from(made.try_clone_to_owned().map_err(to)?);
    let length = source.size().map_err(from)?;
    let mut at = 0;
    let mut buffer = vec![0; 256 * 1024];
    while at < length {
        let Some((start, end)) = source.next_data(at).map_err(from)? else {
            break; // a hole to the end
        };
        made.seek(SeekFrom::Start(start)).map_err(to)?;
        let mut left = (&mut source).take(end - start);
        loop {
            let count = left.read(&mut buffer).map_err(from)?;
            if count == 0 {
                break;
            }
            made.write_all(&buffer[..count]).map_err(to)?;
        }
        at = end;
    }
    made.set_len(length).map_err(to)?;
    Ok(())
}
