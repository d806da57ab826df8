//! How a version of a file or a tree is copied, with all that belongs to it: owner, mode, times,
//! extended attributes, holes, and hard links among the files copied.
//!
//! What is copied is a place of a view ([`Node`]), so that a directory is copied as it was seen,
//! merged from all branches below. Where it is copied to is an open directory. Nothing is ever
//! overwritten.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::attributes::{Attributes, chown_link, set_times};
use crate::dir::{Access, Dir, Kind, Stat};
use crate::error::{Error, Result, errno_of};
use crate::union::{DataAt, Entry, Node};
use crate::walk::walk;

/// Whether a directory is copied with what is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Only the directory itself, with its metadata.
    OneEntry,
    Whole,
}

/// What a copy is made into, and so which form overlay's attributes get there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Into {
    /// A branch, as the branch that it comes from is one.
    Branch,
    /// A merged view, or an ordinary directory: what a person would see.
    View,
}

/// Copies what lies at `chain`, a path below `from`, to `to_name` in `to`. Of the directories on
/// the way only themselves are copied, with their metadata; the first of them gets the new name.
/// What is copied has reached the disk when this returns.
///
/// # Errors
/// Something of the source that cannot be read or is broken, or of the destination that cannot
/// be written. What was made until then is left for the caller to remove.
pub fn copy(
    from: &Node<'_>,
    chain: &[Vec<u8>],
    to: &Dir,
    to_name: &[u8],
    depth: Depth,
    into: Into,
) -> Result<()> {
    let [name, rest @ ..] = chain else {
        return Ok(());
    };
    let mut links = HashMap::new();
    // Directories get their metadata last: writing into them would change their times.
    let mut directories: Vec<(Dir, Stat, Attributes)> = Vec::new();
    let root = Transfer {
        from: from.clone(),
        name: name.clone(),
        rest: rest.to_vec(),
        to: to.clone(),
        to_name: to_name.to_vec(),
    };
    let mut results = walk(root, |transfer, found| {
        match copy_entry(&transfer, (depth, into), &mut links, &mut directories) {
            Ok(below) => below.into_iter().for_each(|below| found.directory(below)),
            Err(error) => found.rows().push(error),
        }
    });
    if let Some(error) = results.next() {
        return Err(error);
    }
    drop(results);
    for (dir, stat, attributes) in directories.iter().rev() {
        let fail = |errno| Error::io(dir.path(), errno);
        let open = dir.child(b".", Access::List).map_err(fail)?;
        let fd = open.fd().map_err(fail)?;
        attributes.apply(&*fd, stat).map_err(fail)?;
        sync(&*fd).map_err(fail)?;
    }
    Ok(())
}

/// Something that is to be copied, and where to.
struct Transfer<'s> {
    from: Node<'s>,
    name: Vec<u8>,
    /// What is left of the way to what is copied.
    rest: Vec<Vec<u8>>,
    to: Dir,
    to_name: Vec<u8>,
}

type Links = HashMap<(u64, u64), (Dir, Vec<u8>)>;

fn copy_entry<'s>(
    transfer: &Transfer<'s>,
    (depth, into): (Depth, Into),
    links: &mut Links,
    directories: &mut Vec<(Dir, Stat, Attributes)>,
) -> Result<Vec<Transfer<'s>>> {
    let Transfer {
        from,
        name,
        rest,
        to,
        to_name,
    } = transfer;
    let failed_to = |errno| Error::io(to.path().join(to_name), errno);
    let entry = from.child(name)?;
    let (node, leaf) = match entry {
        Entry::Dir(node) => (node, None),
        Entry::Leaf {
            from: branch, data, ..
        } => (from.clone(), Some((branch, data))),
        Entry::Broken { errno, .. } => return Err(Error::io(from.path_of(name), errno)),
        // A name that is listed and not there; on the way to what is copied it is an error.
        Entry::Missing | Entry::Deleted { .. } if rest.is_empty() => return Ok(Vec::new()),
        Entry::Missing | Entry::Deleted { .. } => {
            return Err(Error::io(from.path_of(name), Errno::NOENT));
        }
    };
    let Some((branch, data)) = leaf else {
        let stat = node.stat_self()?;
        let provider = node.provider().unwrap_or_default();
        let failed_from = |errno| Error::io(node.on_host(provider, b""), errno);
        let source = node
            .dir(provider)
            .ok_or(Errno::NOENT)
            .map_err(failed_from)?;
        let source = source.child(b".", Access::List).map_err(failed_from)?;
        let attributes =
            Attributes::of(&*source.fd().map_err(failed_from)?).map_err(failed_from)?;
        let attributes = attributes.seen(&node, provider, into);
        let made = make_dir(to, to_name)?;
        directories.push((made.clone(), stat, attributes));
        let (names, rest) = match (rest.split_first(), depth) {
            (Some((next, rest)), _) => (vec![next.clone()], rest.to_vec()),
            (None, Depth::OneEntry) => (Vec::new(), Vec::new()),
            (None, Depth::Whole) => (node.names()?.to_vec(), Vec::new()),
        };
        let below = names.into_iter().map(|name| Transfer {
            from: node.clone(),
            to_name: name.clone(),
            name,
            rest: rest.clone(),
            to: made.clone(),
        });
        return Ok(below.collect());
    };
    let leaf = Leaf {
        from,
        branch,
        name,
        data: data.as_deref(),
        into,
    };
    copy_leaf(&leaf, to, to_name, links)
        .map(|()| Vec::new())
        .map_err(|error| match error {
            LeafError::From(errno) => Error::io(from.on_host(branch, name), errno),
            LeafError::Content(error) => error,
            LeafError::To(errno) => failed_to(errno),
        })
}

enum LeafError {
    From(Errno),
    /// Worded already: the content, say, may be elsewhere.
    Content(Error),
    To(Errno),
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
    fn seen(&self, attributes: Attributes) -> Attributes {
        attributes.seen(self.from, self.branch, self.into)
    }
}

fn copy_leaf(
    leaf: &Leaf<'_, '_>,
    to: &Dir,
    to_name: &[u8],
    links: &mut Links,
) -> Result<(), LeafError> {
    let Leaf {
        from, branch, name, ..
    } = *leaf;
    let dir = from.dir(branch).ok_or(LeafError::From(Errno::NOENT))?;
    // With the owner that the union shows.
    let stat = from.stat(branch, name).map_err(LeafError::Content)?;
    let to_fd = to.fd().map_err(LeafError::To)?;
    if stat.nlink > 1 {
        if let Some((dir, first)) = links.get(&stat.identity()) {
            let first_fd = dir.fd().map_err(LeafError::To)?;
            return fs::linkat(&*first_fd, &first[..], &*to_fd, to_name, AtFlags::empty())
                .map_err(LeafError::To);
        }
        links.insert(stat.identity(), (to.clone(), to_name.to_vec()));
    }
    match stat.kind {
        Kind::File => {
            let attributes = Attributes::of_entry(dir, name).map_err(LeafError::From)?;
            let attributes = leaf.seen(attributes);
            let source = from.open_content(branch, name, leaf.data);
            let source = source.map_err(LeafError::Content)?;
            let made = create_file(to, to_name).map_err(LeafError::To)?;
            let made = copy_bytes(source, made)?;
            attributes.apply(&made, &stat).map_err(LeafError::To)?;
            sync(&made).map_err(LeafError::To)
        }
        Kind::Symlink => {
            let target = dir.read_link(name).map_err(LeafError::From)?;
            let attributes = leaf.seen(Attributes::of_entry(dir, name).map_err(LeafError::From)?);
            fs::symlinkat(&target[..], &*to_fd, to_name).map_err(LeafError::To)?;
            attributes
                .apply_to_entry(to, to_name)
                .map_err(LeafError::To)?;
            chown_link(to, to_name, &stat).map_err(LeafError::To)?;
            set_times(to, to_name, &stat).map_err(LeafError::To)
        }
        kind => {
            let file_type = match kind {
                Kind::Char => FileType::CharacterDevice,
                Kind::Block => FileType::BlockDevice,
                Kind::Fifo => FileType::Fifo,
                _ => FileType::Socket,
            };
            let mode = Mode::from_raw_mode(0o600);
            let attributes = leaf.seen(Attributes::of_entry(dir, name).map_err(LeafError::From)?);
            fs::mknodat(&*to_fd, to_name, file_type, mode, stat.rdev).map_err(LeafError::To)?;
            attributes
                .apply_to_entry(to, to_name)
                .map_err(LeafError::To)?;
            chown_link(to, to_name, &stat).map_err(LeafError::To)?;
            fs::chmodat(
                &*to_fd,
                to_name,
                Mode::from_raw_mode(stat.mode),
                AtFlags::empty(),
            )
            .map_err(LeafError::To)?;
            set_times(to, to_name, &stat).map_err(LeafError::To)
        }
    }
}

/// Makes a directory that only its owner can enter until its metadata is set.
///
/// # Errors
/// `EEXIST` if anything has the name.
pub fn make_dir(to: &Dir, name: &[u8]) -> Result<Dir> {
    let fail = |errno| Error::io(to.path().join(name), errno);
    let fd = to.fd().map_err(fail)?;
    fs::mkdirat(&*fd, name, Mode::from_raw_mode(0o700)).map_err(fail)?;
    to.child(name, Access::Lookup).map_err(fail)
}

/// Makes an empty file for writing.
///
/// # Errors
/// `EEXIST` if anything has the name.
pub fn create_file(to: &Dir, name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    fs::openat(&*to.fd()?, name, flags, Mode::from_raw_mode(0o600))
}

/// Makes a directory's entries last: a rename in it has reached the disk.
pub fn sync_dir(dir: &Dir) -> Result<(), Errno> {
    let open = dir.child(b".", Access::List)?;
    sync(&*open.fd()?)
}

fn sync(fd: impl AsFd) -> Result<(), Errno> {
    match fs::fsync(fd) {
        Err(Errno::INVAL | Errno::ROFS) => Ok(()), // not on this kind of file
        result => result,
    }
}

/// Copies content, holes as holes.
fn copy_bytes(source: OwnedFd, made: OwnedFd) -> Result<File, LeafError> {
    let (mut source, mut made) = (File::from(source), File::from(made));
    let length = source
        .metadata()
        .map_err(|error| LeafError::From(errno_of(&error)))?
        .len();
    let mut at = 0;
    let mut buffer = vec![0; 256 * 1024];
    while at < length {
        let start = match fs::seek(&source, fs::SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(Errno::NXIO) => break, // a hole to the end
            Err(_) => at,              // a file system without holes
        };
        let end = fs::seek(&source, fs::SeekFrom::Hole(start)).unwrap_or(length);
        source
            .seek(SeekFrom::Start(start))
            .map_err(|error| LeafError::From(errno_of(&error)))?;
        made.seek(SeekFrom::Start(start))
            .map_err(|error| LeafError::To(errno_of(&error)))?;
        let mut left = (&mut source).take(end.max(start + 1) - start);
        loop {
            let count = left
                .read(&mut buffer)
                .map_err(|error| LeafError::From(errno_of(&error)))?;
            if count == 0 {
                break;
            }
            made.write_all(&buffer[..count])
                .map_err(|error| LeafError::To(errno_of(&error)))?;
        }
        at = end.max(start + 1);
    }
    made.set_len(length)
        .map_err(|error| LeafError::To(errno_of(&error)))?;
    Ok(made)
}
