//! How a version of a file or a tree is copied, with all that belongs to it: owner, mode, times,
//! extended attributes, holes, and hard links among the files copied.
//!
//! What is copied is a place of a view ([`Node`]), so that a directory is copied as it was seen,
//! merged from all branches below. Where it is copied to is an open directory. Nothing is ever
//! overwritten.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::mem::take;
use std::os::fd::BorrowedFd;

use rustix::fs;
use rustix::io::Errno;

use super::Depth;
use super::attributes::{Attributes, Into, Keep};
use super::links::Links;
use super::made::{self, Lacks, Made};
use super::staging::Staging;
use crate::bytes::Bytes;
use crate::dir::{Content, Dir, Kind, Stat};
use crate::error::{Error, Result, errno_of};
use crate::interrupt::Interrupt;
use crate::union::{DataAt, Entry, Node, OpenVersion, Stack};
use crate::walk::walk;

/// How something is copied.
#[derive(Debug, Clone, Copy)]
pub struct How {
    pub depth: Depth,
    pub into: Into,
    pub keep: Keep,
}

/// Copies what lies at `chain`, a path below `from` or nothing for itself, to where it is staged. Of the directories on
/// the way only themselves are copied, with their metadata; the first of them gets the passing
/// name. What is copied with all that belongs to it has reached the disk when this returns.
///
/// # Errors
/// Something of the destination that cannot be written, or an interrupt; where all is kept, also
/// something of the source that cannot be read or is broken. What was made until then is left for
/// the caller to remove.
pub fn copy(
    from: &Node<'_>,
    chain: &[Vec<u8>],
    to: &Staging,
    how: How,
    links: &mut Links,
) -> Result<Copied> {
    let (name, rest) = match chain {
        [name, rest @ ..] => (Some(name.clone()), rest),
        [] => (None, chain),
    };
    let is_stored = how.into == Into::Branch && keeps_in_attributes(from.stack())?;
    let mut copying = Copying {
        how,
        top: name
            .as_ref()
            .map_or_else(|| from.path(), |name| from.path_of(name)),
        is_stored,
        staging: to,
        links,
        directories: Vec::new(),
        copied: Copied::default(),
        interrupt: Interrupt::catch_all(),
    };
    let root = Transfer {
        from: from.clone(),
        name,
        rest,
        to: to.dir.clone(),
        to_name: to.name.clone(),
        is_inner: false,
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

/// Whether the branch that is written to keeps owners and modes in attributes.
///
/// # Errors
/// Not all branches keep them alike: what stands for an owner in one says nothing in the other.
fn keeps_in_attributes(stack: &Stack) -> Result<bool> {
    let own = |branch: usize| stack.branches[branch].overrides;
    let into = stack.writable().and_then(own);
    match stack
        .branches
        .iter()
        .find(|branch| branch.overrides != into)
    {
        None => Ok(into.is_some()),
        Some(branch) => Err(Error::Refused {
            what: format!(
                "{} keeps owners and modes otherwise than the writable branch does (override_stat)",
                branch.path
            ),
            hint: "restore while it is mounted, or copy it out with --to".into(),
        }),
    }
}

/// What was copied.
#[derive(Default)]
pub struct Copied {
    pub lacks: Lacks,
    /// Of a directory, whose times are set once more when it has its place.
    pub directory: Option<Stat>,
    /// How many entries there are.
    pub entries: u64,
    /// What is in the files, in bytes.
    pub size: u64,
    /// What could not be read, or is not as it was.
    pub said: Vec<Error>,
    /// What copies do not have: how many, and the first of them.
    missing: BTreeMap<&'static str, (u64, Bytes)>,
}

impl Copied {
    /// Puts what was copied later to it.
    pub fn add(&mut self, later: Copied) {
        self.lacks = take(&mut self.lacks).and(later.lacks);
        self.entries += later.entries;
        self.size += later.size;
        self.said.extend(later.said);
        for (what, (count, first)) in later.missing {
            let known = self.missing.entry(what).or_insert((0, first));
            known.0 += count;
        }
    }

    /// Notes what a copy does not have.
    fn lacks(&mut self, lacks: Lacks, path: impl Fn() -> Bytes) {
        for what in lacks.missing() {
            self.missing.entry(what).or_insert_with(|| (0, path())).0 += 1;
        }
        self.lacks = take(&mut self.lacks).and(lacks);
    }

    /// All that is to be said: each kind of what is missing once.
    pub fn into_said(self) -> Vec<Error> {
        let missing = self.missing.into_iter().map(|(what, (count, first))| {
            let more = match count {
                1 => String::new(),
                2 => " (and of one more)".to_owned(),
                count => format!(" (and of {} more)", count - 1),
            };
            Error::damaged(first, format!("{what}{more}"))
        });
        self.said.into_iter().chain(missing).collect()
    }
}

/// Something that is to be copied, and where to.
struct Transfer<'s, 'c> {
    from: Node<'s>,
    /// None for the place itself.
    name: Option<Vec<u8>>,
    /// What is left of the way to what is copied.
    rest: &'c [Vec<u8>],
    to: Dir,
    to_name: Vec<u8>,
    /// It was listed in a directory that is copied whole.
    is_inner: bool,
}

/// What is known while a tree is copied.
struct Copying<'a> {
    how: How,
    /// What has the passing name is this in the union.
    top: Bytes,
    /// Owner and mode are copied as they are on disk: those that the union shows are in an attribute.
    is_stored: bool,
    staging: &'a Staging,
    links: &'a mut Links,
    /// Directories get their metadata last: writing into them would change their times.
    directories: Vec<(Made, Stat, Attributes)>,
    copied: Copied,
    interrupt: Interrupt,
}

impl Copying<'_> {
    /// Copies one entry, and gives what is in it.
    fn copy<'s, 'c>(&mut self, transfer: &Transfer<'s, 'c>) -> Result<Vec<Transfer<'s, 'c>>> {
        if self.interrupt.is_pressed() {
            return Err(interrupted());
        }
        let copied = self.try_copy(transfer);
        match copied {
            Ok(below) => Ok(below),
            Err(Fault::From(error)) if self.how.keep != Keep::All => {
                self.copied.said.push(error);
                Ok(Vec::new())
            }
            // One name of a tree is no reason to leave the others where they are.
            Err(Fault::From(error) | Fault::To(error))
                if transfer.is_inner && error.is_too_long() =>
            {
                self.copied.lacks.left_out.push(error);
                Ok(Vec::new())
            }
            Err(Fault::From(error) | Fault::To(error)) => Err(error),
        }
    }

    fn try_copy<'s, 'c>(
        &mut self,
        transfer: &Transfer<'s, 'c>,
    ) -> Result<Vec<Transfer<'s, 'c>>, Fault> {
        let (from, rest) = (&transfer.from, transfer.rest);
        let Some(name) = &transfer.name else {
            return self.copy_directory(from.clone(), transfer);
        };
        match from.child(name).map_err(Fault::From)? {
            Entry::Dir(node) => self.copy_directory(node, transfer),
            Entry::Leaf {
                from: branch,
                kind,
                data,
                ..
            } => {
                let leaf = Leaf {
                    from,
                    branch,
                    kind,
                    name,
                    data: data.as_deref(),
                    into: self.how.into,
                };
                self.copy_leaf(&leaf, &transfer.to, &transfer.to_name)?;
                Ok(Vec::new())
            }
            Entry::Broken { errno, .. } => Err(Fault::From(Error::io(from.path_of(name), errno))),
            // A name that is listed and not there. Below a directory that was made for it, it was there
            // a moment ago.
            Entry::Missing | Entry::Deleted { .. }
                if transfer.is_inner || rest.is_empty() && self.directories.is_empty() =>
            {
                Ok(Vec::new())
            }
            Entry::Missing | Entry::Deleted { .. } => {
                Err(Fault::From(Error::io(from.path_of(name), Errno::NOENT)))
            }
        }
    }

    fn copy_directory<'s, 'c>(
        &mut self,
        node: Node<'s>,
        transfer: &Transfer<'s, 'c>,
    ) -> Result<Vec<Transfer<'s, 'c>>, Fault> {
        let is_whole = transfer.rest.is_empty() && self.how.depth == Depth::Whole;
        let node = if is_whole { node.read() } else { node };
        let stat = if self.is_stored {
            node.stored_self()
        } else {
            node.stat_self()
        };
        let stat = stat.map_err(Fault::From)?;
        let attributes = attributes_of_directory(&node, self.how.into).map_err(Fault::From)?;
        let made = Made::directory(&transfer.to, &transfer.to_name).map_err(Fault::To)?;
        self.copied.entries += 1;
        if self.directories.is_empty() && self.how.into == Into::View {
            made.claim();
        }
        self.staging.note(&made);
        let to = made.as_dir().cloned();
        self.directories.push((made, stat, attributes));
        let (names, rest) = match (transfer.rest.split_first(), self.how.depth) {
            (Some((next, rest)), _) => (vec![next.clone()], rest),
            (None, Depth::OneEntry) => (Vec::new(), transfer.rest),
            (None, Depth::Whole) => {
                let names = node.names().map_err(Fault::From)?.to_vec();
                (names, transfer.rest)
            }
        };
        let is_inner = transfer.rest.is_empty();
        let below = to
            .into_iter()
            .flat_map(|to| names.iter().map(move |name| (name, to.clone())));
        let below = below.map(|(name, to)| Transfer {
            from: node.clone(),
            to_name: name.clone(),
            name: Some(name.clone()),
            rest,
            to,
            is_inner,
        });
        Ok(below.collect())
    }

    fn copy_leaf(&mut self, leaf: &Leaf<'_, '_>, to: &Dir, to_name: &[u8]) -> Result<(), Fault> {
        let version = leaf.open().map_err(Fault::From)?;
        // With the owner that the union shows, unless that is an attribute.
        let stat = if self.is_stored {
            leaf.stored(&version).map_err(Fault::From)?
        } else {
            version.stat
        };
        if let Some(first) = self.links.first_of(stat.identity()) {
            match Made::link(first, to, to_name) {
                Ok(made) => {
                    self.staging.note(&made);
                    self.copied.entries += 1;
                    return Ok(());
                }
                // A part of the destination may be on another file system.
                Err(Error::Io {
                    errno: Errno::XDEV, ..
                }) => {}
                Err(error) => return Err(Fault::To(error)),
            }
        }
        let attributes = leaf.attributes(&version).map_err(Fault::From)?;
        let made = match leaf.make(version, to, to_name, self)? {
            Some(made) => made,
            None => return Ok(()),
        };
        let is_to_last = self.how.keep == Keep::All;
        // What a program that makes the mount writes back later takes capabilities away.
        if is_to_last && self.how.into == Into::View {
            made.sync().map_err(Fault::To)?;
        }
        let lacks = made.dress_as(&attributes, &stat, self.how.keep);
        self.copied
            .lacks(lacks.map_err(Fault::To)?, || leaf.from.path_of(leaf.name));
        if is_to_last {
            made.sync().map_err(Fault::To)?;
        }
        if stat.nlink > 1 {
            self.links.insert(stat.identity(), made.named());
        }
        self.copied.entries += 1;
        if stat.kind == Kind::File {
            self.copied.size += stat.size;
        }
        Ok(())
    }

    /// Gives the directories their metadata, the deepest first.
    fn finish(mut self) -> Result<Copied> {
        if self.interrupt.is_pressed() {
            return Err(interrupted());
        }
        if let (Some((root, ..)), Into::View) = (self.directories.first(), self.how.into) {
            root.disclaim()?;
        }
        for (made, stat, attributes) in self.directories.iter().rev() {
            let lacks = made.dress_as(attributes, stat, self.how.keep)?;
            self.copied.lacks(lacks, || {
                let passing = self.staging.dir.path().join(&self.staging.name);
                let below = made.path().strip_prefix(&passing);
                self.top.join_path(&below.unwrap_or_default())
            });
            if self.how.keep == Keep::All {
                made.sync()?;
            }
        }
        self.copied.directory = self.directories.first().map(|(_, stat, _)| *stat);
        Ok(self.copied)
    }
}

/// What went wrong: with what is copied, or with where it is copied to.
enum Fault {
    From(Error),
    To(Error),
}

/// That the person has ended the copy.
pub fn interrupted() -> Error {
    Error::Refused {
        what: "the copy was interrupted".into(),
        hint: "what was not whole was removed".into(),
    }
}

fn attributes_of_directory(node: &Node<'_>, into: Into) -> Result<Attributes> {
    let provider = node.provider().unwrap_or_default();
    let source = node.dir(provider).ok_or(Errno::NOENT);
    let attributes = source.and_then(Attributes::of_directory);
    let attributes = attributes.map_err(|errno| Error::io(node.on_host(provider, b""), errno))?;
    Ok(attributes.seen(node, provider, into))
}

/// What is no directory, and how it is copied.
struct Leaf<'a, 's> {
    from: &'a Node<'s>,
    branch: usize,
    kind: Kind,
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

    fn open(&self) -> Result<OpenVersion> {
        self.from
            .open_version((self.branch, self.kind), self.name, self.data)
    }

    /// What the branch has of it on disk.
    fn stored(&self, version: &OpenVersion) -> Result<Stat> {
        let stored = self.dir()?.stat(self.name);
        let stored = stored.map_err(|errno| self.fail(errno))?;
        let is_same = |stat: &Stat| stat.identity() == version.stat.identity();
        stored
            .filter(is_same)
            .ok_or_else(|| self.fail(Errno::STALE))
    }

    fn attributes(&self, version: &OpenVersion) -> Result<Attributes> {
        let attributes = match version.own_file() {
            Some(file) => Attributes::of(file),
            None => Attributes::of_entry(self.dir()?, self.name),
        };
        let attributes = attributes.map_err(|errno| self.fail(errno))?;
        Ok(attributes.seen(self.from, self.branch, self.into))
    }

    /// Makes it with its content, and nothing else that belongs to it. Not everybody may make
    /// devices: none where that is said instead.
    fn make(
        &self,
        version: OpenVersion,
        to: &Dir,
        to_name: &[u8],
        copying: &mut Copying<'_>,
    ) -> Result<Option<Made>, Fault> {
        if let Some(source) = version.content {
            return self.make_file(source, to, to_name, copying).map(Some);
        }
        let stat = version.stat;
        match stat.kind {
            Kind::Symlink => {
                let dir = self.dir().map_err(Fault::From)?;
                let target = dir.read_link(self.name);
                let target = target.map_err(|errno| Fault::From(self.fail(errno)))?;
                let made = Made::symlink(to, to_name, &target).map_err(Fault::To)?;
                copying.staging.note(&made);
                Ok(Some(made))
            }
            Kind::File | Kind::Directory => Err(Fault::From(self.fail(Errno::STALE))),
            Kind::Char | Kind::Block | Kind::Fifo | Kind::Socket => {
                let made = match Made::node(to, to_name, stat.kind, stat.rdev) {
                    Err(Error::Io {
                        errno: Errno::PERM | Errno::ACCESS,
                        ..
                    }) if copying.how.keep != Keep::All => {
                        let path = self.from.path_of(self.name);
                        let what = format!(
                            "is a {}, which only root can make: it was left out",
                            stat.kind.word()
                        );
                        copying.copied.said.push(Error::damaged(path, what));
                        return Ok(None);
                    }
                    made => made.map_err(Fault::To)?,
                };
                copying.staging.note(&made);
                Ok(Some(made))
            }
        }
    }
}

impl Leaf<'_, '_> {
    fn make_file(
        &self,
        source: Content,
        to: &Dir,
        to_name: &[u8],
        copying: &mut Copying<'_>,
    ) -> Result<Made, Fault> {
        let made = Made::file(to, to_name).map_err(Fault::To)?;
        copying.staging.note(&made);
        let Some(file) = made.as_file() else {
            return Ok(made);
        };
        match copy_bytes(source, file, &copying.interrupt) {
            Ok(None) => Ok(made),
            Ok(Some(changed)) => {
                let path = self.from.on_host(self.branch, self.name);
                copying.copied.said.push(Error::damaged(path, changed));
                Ok(made)
            }
            Err(CopyError::From(errno)) => {
                // Half a file has no name.
                let _ = made::remove_tree(to, to_name, made.identity(), &|_| false);
                Err(Fault::From(self.fail(errno)))
            }
            Err(CopyError::To(errno)) => Err(Fault::To(Error::io(to.path().join(to_name), errno))),
            Err(CopyError::Interrupted) => Err(Fault::To(interrupted())),
        }
    }
}

enum CopyError {
    From(Errno),
    To(Errno),
    Interrupted,
}

/// How much is copied between two looks for an interrupt, in bytes.
const AT_ONCE: u64 = 64 << 20;

/// Copies content, holes as holes: shared where the file system can, copied by the kernel where it
/// can. What comes back is what has become of the source meanwhile.
fn copy_bytes(
    mut source: Content,
    made: BorrowedFd<'_>,
    interrupt: &Interrupt,
) -> Result<Option<&'static str>, CopyError> {
    let before = source.opened();
    let is_shared = |file: &File| before.size > 0 && fs::ioctl_ficlone(made, file).is_ok();
    if source.as_file().is_some_and(is_shared) {
        return Ok(source.changed());
    }
    let from = |error: std::io::Error| CopyError::From(errno_of(&error));
    let to = |error: std::io::Error| CopyError::To(errno_of(&error));
    let mut made = File::from(made.try_clone_to_owned().map_err(to)?);
    let length = before.size;
    let mut at = 0;
    let mut buffer = Vec::new();
    while at < length {
        let Some((start, end)) = source.next_data(at).map_err(from)? else {
            break; // a hole to the end
        };
        at = match source.as_file() {
            Some(file) => by_kernel(file, &made, start, end, interrupt)?,
            None => start,
        };
        if at >= end {
            continue;
        }
        source.seek(at).map_err(from)?;
        made.seek(SeekFrom::Start(at)).map_err(to)?;
        buffer.resize(256 * 1024, 0);
        let mut left = (&mut source).take(end - at);
        loop {
            if interrupt.is_pressed() {
                return Err(CopyError::Interrupted);
            }
            match left.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => made.write_all(&buffer[..count]).map_err(to)?,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(from(error)),
            }
        }
        at = end;
    }
    made.set_len(length).map_err(to)?;
    Ok(source.changed())
}

/// Lets the kernel copy a part of a file, and says how far it came.
fn by_kernel(
    source: &File,
    made: &File,
    start: u64,
    end: u64,
    interrupt: &Interrupt,
) -> Result<u64, CopyError> {
    let (mut from, mut to) = (start, start);
    while from < end {
        if interrupt.is_pressed() {
            return Err(CopyError::Interrupted);
        }
        let count = usize::try_from((end - from).min(AT_ONCE)).unwrap_or(usize::MAX);
        match fs::copy_file_range(source, Some(&mut from), made, Some(&mut to), count) {
            Ok(0) => break,
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno @ (Errno::NOSPC | Errno::DQUOT | Errno::FBIG)) => {
                return Err(CopyError::To(errno));
            }
            Err(_) => break,
        }
    }
    Ok(from)
}
