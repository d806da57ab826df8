//! In what two versions of an entry differ.

use std::collections::BTreeMap;
use std::io::Read;

use rustix::io::Errno;
use serde::Serialize;

use super::Difference;
use crate::bytes::Bytes;
use crate::dir::{Content, Kind};
use crate::error::{Error, Result, errno_of};
use crate::union::{DataAt, Entry, Node};

/// What a `security.capability` attribute can have at most, in bytes.
const CAPABILITY_MAX: usize = 64;
/// What any attribute can have at most, in bytes.
const ATTRIBUTE_MAX: usize = 64 * 1024;

/// What overlays keep for themselves. A container can have such attributes, too, which its overlay
/// keeps under other names: [`Grammar::shown_attribute`](crate::whiteout::Grammar::shown_attribute)
/// tells. No engine's `diff` looks at either.
const OVERLAY: [&str; 2] = ["trusted.overlay.", "user.overlay."];
/// Attributes that programs which make unions keep for themselves, and those that the kernel makes
/// for the machine: nobody in a container has changed them.
const KEPT: [&str; 5] = [
    "user.fuseoverlayfs.",
    "user.containers.",
    "security.selinux",
    "security.ima",
    "security.evm",
];

/// What makes two versions differ, beside what `lstat` says and capabilities.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Measure {
    /// The extended attributes that are compared.
    pub attributes: Compared,
    /// Files of one size and time are read.
    pub content: bool,
}

/// Which extended attributes are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compared {
    /// None but capabilities.
    Capabilities,
    /// Those whose names begin with `user.`, too.
    Users,
    /// All that a container can have changed, access control lists among them.
    All,
}

/// What can differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Differs {
    Type,
    Content,
    Mode,
    Owner,
    Time,
    Xattr,
    Size,
    Link,
    Capability,
}

impl Differs {
    /// What answers call it.
    pub fn word(self) -> &'static str {
        match self {
            Differs::Type => "type",
            Differs::Content => "content",
            Differs::Mode => "mode",
            Differs::Owner => "owner",
            Differs::Time => "time",
            Differs::Xattr => "xattr",
            Differs::Size => "size",
            Differs::Link => "link",
            Differs::Capability => "capability",
        }
    }
}

/// In what two versions differ.
#[derive(Debug, Default)]
pub struct Differing {
    /// Everything; empty if nothing does.
    pub what: Vec<Differs>,
    /// The names of the extended attributes that do.
    pub attributes: Vec<Bytes>,
}

/// Whether the two versions of an entry differ as an engine sees it. What costs more is asked only
/// where nothing else differs.
pub(super) fn differ(difference: &Difference<'_, '_>, measure: Measure) -> Result<bool> {
    let (Some(was), Some(is), Some((before, old_branch, after, new_branch, name))) = (
        difference.stat_before()?,
        difference.stat_after()?,
        difference.versions(),
    ) else {
        return Ok(true);
    };
    let is_directory = is.kind == Kind::Directory;
    if was.kind != is.kind
        || (was.mode, was.uid, was.gid, was.rdev) != (is.mode, is.uid, is.gid, is.rdev)
        || (!is_directory && (was.size != is.size || !is_same_time(was.mtime, is.mtime)))
    {
        return Ok(true);
    }
    let capability = |node, branch| capability(node, branch, name);
    if is.kind == Kind::File && capability(before, old_branch)? != capability(after, new_branch)? {
        return Ok(true);
    }
    if measure.attributes != Compared::Capabilities {
        let attributes = |node, branch| attributes(node, branch, name, measure.attributes);
        if attributes(before, old_branch)? != attributes(after, new_branch)? {
            return Ok(true);
        }
    }
    if !measure.content || is_one_file(difference) {
        return Ok(false);
    }
    match is.kind {
        Kind::File => Ok(!is_same_file(difference)?),
        Kind::Symlink => Ok(link(before, old_branch, name)? != link(after, new_branch, name)?),
        _ => Ok(false),
    }
}

fn capability(node: &Node<'_>, branch: usize, name: &[u8]) -> Result<Option<Vec<u8>>> {
    let fail = |errno| Error::io(node.on_host(branch, name), errno);
    let dir = node.dir(branch).ok_or_else(|| fail(Errno::NOENT))?;
    dir.attribute(name, "security.capability", CAPABILITY_MAX)
        .map_err(fail)
}

/// A time without nanoseconds may come from an archive that had none.
pub fn is_same_time(a: (i64, u32), b: (i64, u32)) -> bool {
    a.0 == b.0 && (a.1 == b.1 || a.1 == 0 || b.1 == 0)
}

/// What differs between the two versions of a changed entry.
///
/// # Errors
/// A version that cannot be read.
pub fn differs(difference: &Difference<'_, '_>) -> Result<Differing> {
    let mut found = Differing::default();
    let (Some(old), Some(new)) = (difference.stat_before()?, difference.stat_after()?) else {
        return Ok(found);
    };
    if old.kind != new.kind {
        found.what.push(Differs::Type);
        return Ok(found);
    }
    let is_content = match (old.kind, difference.versions()) {
        (Kind::File, Some(_)) => old.size != new.size || !is_same_file(difference)?,
        (Kind::Symlink, Some((before, old_branch, after, new_branch, name))) => {
            link(before, old_branch, name)? != link(after, new_branch, name)?
        }
        (Kind::Char | Kind::Block, _) => old.rdev != new.rdev,
        _ => false,
    };
    if is_content {
        found.what.push(Differs::Content);
    }
    if old.mode != new.mode {
        found.what.push(Differs::Mode);
    }
    if (old.uid, old.gid) != (new.uid, new.gid) {
        found.what.push(Differs::Owner);
    }
    if old.mtime != new.mtime {
        found.what.push(Differs::Time);
    }
    if let Some((before, old_branch, after, new_branch, name)) = difference.versions() {
        let old = attributes(before, old_branch, name, Compared::All)?;
        let new = attributes(after, new_branch, name, Compared::All)?;
        let mut names: Vec<&Vec<u8>> = old.keys().chain(new.keys()).collect();
        names.sort();
        names.dedup();
        names.retain(|name| old.get(*name) != new.get(*name));
        found.attributes = names
            .into_iter()
            .map(|name| Bytes::from(&name[..]))
            .collect();
    }
    if !found.attributes.is_empty() {
        found.what.push(Differs::Xattr);
    }
    Ok(found)
}

/// The extended attributes of one version that are compared, with their values. A value that goes
/// while it is read is none.
pub(super) fn attributes(
    node: &Node<'_>,
    branch: usize,
    name: &[u8],
    compared: Compared,
) -> Result<BTreeMap<Vec<u8>, Option<Vec<u8>>>> {
    let fail = |errno| Error::io(node.on_host(branch, name), errno);
    let dir = node.dir(branch).ok_or_else(|| fail(Errno::NOENT))?;
    let grammar = node.stack().branches[branch].grammar;
    let mut found = BTreeMap::new();
    for attribute in dir.attribute_names(name).map_err(fail)? {
        let is_one_of = |prefixes: &[&str]| prefixes.iter().any(|kept| attribute.starts_with(kept));
        if is_one_of(&KEPT) {
            continue;
        }
        let shown = match compared {
            Compared::All => grammar.shown_attribute(attribute.as_bytes()),
            Compared::Capabilities | Compared::Users => {
                let is_wanted = attribute.starts_with("user.") && !is_one_of(&OVERLAY);
                is_wanted.then_some(attribute.as_bytes().into())
            }
        };
        if let Some(shown) = shown {
            let value = dir.attribute(name, &attribute, ATTRIBUTE_MAX);
            found.insert(shown.into_owned(), value.map_err(fail)?);
        }
    }
    Ok(found)
}

pub(super) fn link(node: &Node<'_>, branch: usize, name: &[u8]) -> Result<Vec<u8>> {
    let fail = |errno| Error::io(node.on_host(branch, name), errno);
    let dir = node.dir(branch).ok_or_else(|| fail(Errno::NOENT))?;
    dir.read_link(name).map_err(fail)
}

/// Whether both versions are one file. A branch can have two under one name, where a directory was moved.
fn is_one_file(difference: &Difference<'_, '_>) -> bool {
    let versions = difference.versions();
    versions.is_some_and(|(before, old_branch, after, new_branch, name)| {
        before.on_host(old_branch, name) == after.on_host(new_branch, name)
    })
}

fn is_same_file(difference: &Difference<'_, '_>) -> Result<bool> {
    let Some((before, old_branch, after, new_branch, name)) = difference.versions() else {
        return Ok(false);
    };
    let [old, new] = difference.entries.map(|of| of.and_then(Entry::data));
    let old = Reader::open(before, old_branch, name, old)?;
    is_same_content(old, Reader::open(after, new_branch, name, new)?)
}

/// Whether two files have the same bytes. What both have not on disk is not read: a file may say that
/// it has exabytes.
pub(super) fn is_same_content(mut old: Reader, mut new: Reader) -> Result<bool> {
    let size = old.file.opened().size;
    let has_holes = size == new.file.opened().size
        && old.file.opened().has_holes
        && new.file.opened().has_holes;
    let mut at = 0;
    loop {
        if has_holes {
            let start = old.next_data(at, size)?.min(new.next_data(at, size)?);
            if start >= size {
                return Ok(true);
            }
            at = start;
            old.seek(at)?;
            new.seek(at)?;
        }
        let a = old.fill()?;
        let b = new.fill()?;
        if a != b {
            return Ok(false);
        }
        if a.is_empty() {
            return Ok(true);
        }
        at += a.len() as u64;
    }
}

/// A file that is read to be compared.
pub(super) struct Reader {
    file: Content,
    path: Bytes,
    buffer: Vec<u8>,
}

impl Reader {
    fn open(node: &Node<'_>, from: usize, name: &[u8], data: Option<&DataAt>) -> Result<Reader> {
        let file = node.open_content(from, name, data)?;
        Ok(Reader::new(file, node.on_host(from, name)))
    }

    pub(super) fn new(file: Content, path: Bytes) -> Reader {
        Reader {
            file,
            path,
            buffer: vec![0; 128 * 1024],
        }
    }

    /// Where there is more than zeros next, in bytes.
    fn next_data(&mut self, from: u64, size: u64) -> Result<u64> {
        let next = self
            .file
            .next_data(from)
            .map_err(|error| self.fail(&error))?;
        Ok(next.map_or(size, |(start, _)| start))
    }

    fn seek(&mut self, to: u64) -> Result<()> {
        self.file.seek(to).map_err(|error| self.fail(&error))
    }

    fn fail(&self, error: &std::io::Error) -> Error {
        Error::io(self.path.clone(), errno_of(error))
    }

    /// The next 128 KiB, less only at the end.
    fn fill(&mut self) -> Result<&[u8]> {
        let mut len = 0;
        while len < self.buffer.len() {
            match self.file.read(&mut self.buffer[len..]) {
                Ok(0) => break,
                Ok(more) => len += more,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => {
                    return Err(Error::io(self.path.clone(), errno_of(&error)));
                }
            }
        }
        Ok(&self.buffer[..len])
    }
}
