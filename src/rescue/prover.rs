//! What holds the entries of an archive against a layer's directory, one by one, and then what is there
//! against the archive.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read};

use super::expected::Expected;
use super::found::Found;
use super::proof::{Manner, Proof, Subject, What};
use super::recipe::{CRC, Promise};
use super::tree::{Absent, PATH_MAX, Tree, path_of};
use crate::bytes::Bytes;
use crate::dir::{Content, Dir, Kind, Stat, at_once};
use crate::error::{Error, Result, errno_of};
use crate::interrupt::is_asked_to_end;
use crate::restore::archive::OCI_WHITEOUT;
use crate::restore::attributes::{Attributes, Into, capability_of_user};
use crate::union::{Entry, Node};
use crate::whiteout::Mark;

/// The longest name that a directory entry can have, in bytes.
const NAME_MAX: usize = 255;

/// Holds the entries of an archive against a layer's directory.
pub struct Prover<'s> {
    pub(super) tree: Tree<'s>,
    pub(super) subject: &'s Subject<'s>,
    pub(super) manner: Manner,
    pub(super) found: Found,
}

/// What an entry's name means in a layer.
enum Name {
    Entry,
    /// This name in the same directory is deleted.
    Deleted(Vec<u8>),
    Opaque,
    /// AUFS's own.
    Housekeeping,
}

fn meaning(name: &[u8]) -> Name {
    let last = name
        .rsplit(|byte| *byte == b'/')
        .find(|part| !part.is_empty());
    match last.unwrap_or_default().strip_prefix(OCI_WHITEOUT) {
        None | Some(b"") => Name::Entry,
        Some(b".wh..opq") => Name::Opaque,
        Some(rest) if rest.starts_with(OCI_WHITEOUT) => Name::Housekeeping,
        Some(rest) => Name::Deleted(rest.to_vec()),
    }
}

impl<'s> Prover<'s> {
    pub fn new(subject: &'s Subject<'s>, manner: Manner) -> Prover<'s> {
        Prover {
            tree: Tree::new(subject.stack, subject.branches),
            subject,
            manner,
            found: Found::default(),
        }
    }

    pub(super) fn fault(&mut self, path: Bytes, what: What) {
        self.found.fault(path, what);
    }

    /// An entry of a recipe: its content is on disk alone.
    pub fn promised(
        &mut self,
        expected: &Expected,
        promise: &Promise,
        digest: &mut dyn FnMut(&[u8]),
    ) {
        let found = self.entry(expected);
        if promise.size == 0 {
            return;
        }
        if let Name::Deleted(_) = meaning(&expected.name) {
            self.taken_for_whiteout(expected);
            return;
        }
        let path = path_of(&promise.name);
        match found {
            Some(_) if self.manner.is_fast => {}
            Some(mut content) => {
                match content_of(&mut content, promise.size, &mut *digest) {
                    Ok(crc) if promise.crc.is_none_or(|promised| promised == crc) => {}
                    Ok(_) => self.fault(path, What::Content),
                    // It is told of the whole layer.
                    Err(_) if is_asked_to_end() => self.found.proof.has_unread = true,
                    Err(error) => self.unread(&path, &error.to_string()),
                }
            }
            None => {}
        }
    }

    /// An entry of an archive that has its content.
    pub fn archived(&mut self, expected: &Expected, archive: &mut impl Read) -> io::Result<()> {
        let found = self.entry(expected);
        if expected.size == 0 {
            return Ok(());
        }
        if let Name::Deleted(_) = meaning(&expected.name) {
            self.taken_for_whiteout(expected);
            return Ok(());
        }
        if self.manner.is_fast {
            return Ok(());
        }
        let Some(mut content) = found else {
            return Ok(());
        };
        match is_same(archive, &mut content, expected.size)? {
            Ok(true) => {}
            Ok(false) => self.fault(expected.path(), What::Content),
            Err(error) => {
                let what = Error::io(expected.path(), errno_of(&error)).to_string();
                self.unread(&expected.path(), &what);
            }
        }
        Ok(())
    }

    /// A file that is called as OCI calls what is deleted: every engine takes it for that, and its
    /// content is nowhere.
    fn taken_for_whiteout(&mut self, expected: &Expected) {
        self.found.proof.has_unread = true;
        let what = format!(
            "{} was taken for a deletion, as engines do",
            expected.path()
        );
        self.found.proof.leave(what);
    }

    fn unread(&mut self, path: &Bytes, what: &str) {
        self.found.proof.has_unread = true;
        self.found
            .proof
            .leave(format!("{path} cannot be read: {what}"));
    }

    /// Holds an entry against what is there; a file whose size is right is given back open.
    fn entry(&mut self, expected: &Expected) -> Option<Content> {
        if expected.kind == Some(Kind::Symlink) {
            self.found.proof.content_and_links += expected.link.len() as u64;
        }
        self.found.proof.content_and_links += expected.size;
        let is_too_long = expected.name.len() > PATH_MAX
            || expected
                .name
                .split(|byte| *byte == b'/')
                .any(|part| part.len() > NAME_MAX);
        if is_too_long {
            let what = "the archive has a name that no disk can have";
            self.found.proof.leave(what);
            return None;
        }
        let path = expected.path();
        self.found.see(&path);
        let (place, name) = match self.tree.find(&expected.name) {
            Ok(found) => found,
            Err(absent) => {
                self.absent(path, absent);
                return None;
            }
        };
        match meaning(&expected.name) {
            Name::Housekeeping => None,
            Name::Deleted(hidden) => {
                if !self.is_deleted(&place, &hidden) {
                    let hidden = path.parent().join(&hidden);
                    if self.is_image() {
                        let what = format!("composefs has no whiteouts, and shows {hidden} again");
                        self.found.proof.leave(what);
                    } else {
                        self.fault(hidden, What::WhiteoutLost);
                    }
                }
                None
            }
            Name::Opaque => {
                if !self.is_opaque(&place) {
                    self.fault(path.parent(), What::OpaqueMarkLost);
                }
                None
            }
            Name::Entry if name.is_empty() => {
                match place.stat_self() {
                    Ok(stat) if is_engines_root(&stat, self.manner) => {}
                    Ok(stat) => self.compare_facts(expected, &path, &stat),
                    Err(error) => self.unread(&path, &error.to_string()),
                }
                None
            }
            Name::Entry => match self.compare(expected, &place, &name) {
                Ok(content) => content,
                Err(absent) => {
                    self.absent(path, absent);
                    None
                }
            },
        }
    }

    fn absent(&mut self, path: Bytes, absent: Absent) {
        match absent {
            Absent::Missing => self.fault(path, What::Missing),
            Absent::OtherType => self.fault(path, What::Type),
            Absent::Outside => {
                let what = format!("{path} leads out of the layer");
                self.found.proof.leave(what);
            }
            Absent::Unread(error) => self.unread(&path, &error.to_string()),
        }
    }

    /// Of a copy what was deleted is not there; of a layer of differences there is a mark.
    fn is_deleted(&self, place: &Node<'_>, name: &[u8]) -> bool {
        let child = place.child(name);
        if self.is_copy() {
            return matches!(child, Ok(Entry::Missing | Entry::Deleted { .. }));
        }
        let mark = [OCI_WHITEOUT, name].concat();
        let is_marked = |branch: &usize| {
            let is_listed = |name: &[u8]| {
                let names = place.listing(*branch).ok().flatten();
                names.is_some_and(|names| names.kind(name).is_some())
                    && matches!(place.mark(*branch, name), Ok(Some(Mark::Whiteout(_))))
            };
            is_listed(name) || is_listed(&mark)
        };
        // What takes the place of what was deleted needs no other mark.
        matches!(child, Ok(Entry::Dir(_) | Entry::Leaf { .. }))
            || self.subject.branches.iter().any(is_marked)
    }

    fn is_opaque(&self, place: &Node<'_>) -> bool {
        if self.is_copy() {
            return true;
        }
        let mut branches = self.subject.branches.iter();
        branches.any(|branch| place.is_opaque(*branch).unwrap_or(false))
    }

    /// Whether the layer's names are in an image: containers-storage puts no whiteouts into those that
    /// it makes of zstd:chunked layers.
    pub(super) fn is_image(&self) -> bool {
        let mut branches = self.subject.branches.iter();
        branches.any(|branch| {
            let dir = &self.subject.stack.branches[*branch].dir;
            dir.as_ref().is_ok_and(Dir::is_in_image)
        })
    }

    fn is_copy(&self) -> bool {
        let top = self.subject.stack.branches.get(self.subject.branches[0]);
        top.is_some_and(|top| !top.grammar.holds_changes_only())
    }

    /// Compares what is not content.
    fn compare(
        &mut self,
        expected: &Expected,
        place: &Node<'s>,
        name: &[u8],
    ) -> Result<Option<Content>, Absent> {
        let path = expected.path();
        let (branch, stat, content) = match place.child(name)? {
            Entry::Dir(node) => {
                let provider = node.provider().unwrap_or_default();
                (provider, node.stat_self()?, None)
            }
            Entry::Leaf {
                from, kind, data, ..
            } => {
                let version = place.open_version((from, kind), name, data.as_deref())?;
                (from, version.stat, version.content)
            }
            Entry::Missing | Entry::Deleted { .. } => return Err(Absent::Missing),
            Entry::Broken { errno, .. } => return Err(Absent::Unread(Error::io(path, errno))),
        };
        let Some(kind) = expected.kind else {
            if !self.is_same_file(&expected.link, &stat) {
                self.fault(path, What::Link);
            }
            return Ok(None);
        };
        if kind != stat.kind {
            return Err(Absent::OtherType);
        }
        self.compare_facts(expected, &path, &stat);
        if kind == Kind::Symlink {
            let dir = place.dir(branch);
            let link = dir.and_then(|dir| dir.read_link(name).ok());
            if link.is_none_or(|link| link != expected.link) {
                self.fault(path.clone(), What::Link);
            }
        }
        self.compare_attributes(expected, &path, (place, branch, name))?;
        if kind == Kind::File && stat.size != expected.size {
            self.fault(path, What::Content);
            return Ok(None);
        }
        Ok(content)
    }

    fn is_same_file(&mut self, first: &[u8], stat: &Stat) -> bool {
        let Ok((place, name)) = self.tree.find(first) else {
            return false;
        };
        match place.child(&name) {
            Ok(Entry::Leaf { from, .. }) => {
                let first = place.stat(from, &name);
                first.is_ok_and(|first| first.identity() == stat.identity())
            }
            _ => false,
        }
    }

    fn compare_facts(&mut self, expected: &Expected, path: &Bytes, stat: &Stat) {
        if stat.kind != Kind::Symlink && stat.mode != expected.mode {
            self.fault(path.clone(), What::Mode);
        }
        let (seconds, nanoseconds) = expected.mtime;
        let is_time = stat.mtime.0 == seconds && nanoseconds.is_none_or(|of| of == stat.mtime.1);
        // Engines touch directories while they work in them.
        if stat.kind != Kind::Directory && !is_time {
            self.fault(path.clone(), What::Time);
        }
        if matches!(stat.kind, Kind::Char | Kind::Block) && stat.rdev != expected.device {
            self.fault(path.clone(), What::Type);
        }
        let owner = (u64::from(stat.uid), u64::from(stat.gid));
        if self.manner.is_remapped {
            self.found
                .note_owners((expected.uid, expected.gid), owner, path);
        } else if owner != (expected.uid, expected.gid) {
            self.fault(path.clone(), What::Owner);
        }
    }

    fn compare_attributes(
        &mut self,
        expected: &Expected,
        path: &Bytes,
        (place, branch, name): (&Node<'_>, usize, &[u8]),
    ) -> Result<()> {
        let Some(dir) = place.dir(branch) else {
            return Ok(());
        };
        let own = Attributes::of_entry(dir, name);
        let own = own.map_err(|errno| Error::io(place.on_host(branch, name), errno))?;
        if !dir.is_in_image() && !self.is_copy() {
            self.is_elsewhere(path, own.iter().map(|(name, _)| name));
        }
        let own = own.seen(place, branch, Into::View);
        let is_of_host = |name: &[u8]| {
            name == b"security.selinux"
                || name.starts_with(b"system.")
                || name.starts_with(b"trusted.")
        };
        let keeps = |name: &[u8]| {
            !self.manner.drops_user_attributes
                || !name.starts_with(b"user.")
                || expected.attributes.contains_key(name)
        };
        let own = own.iter();
        let own = own.filter(|(name, _)| !is_of_host(name) && keeps(name));
        let comparable = |(name, value)| (name, self.as_archived(name, value));
        let own: BTreeMap<&[u8], Cow<'_, [u8]>> = own.map(comparable).collect();
        // An engine in an engine has left its own marks in the archive, too. What shows the layer hides them.
        let grammar = place.stack().branches[branch].grammar;
        let said = expected.attributes.iter();
        let said: BTreeMap<&[u8], Cow<'_, [u8]>> = said
            .map(|(name, value)| (&name[..], &value[..]))
            .filter(|(name, _)| !is_of_host(name) && grammar.shown_attribute(name).is_some())
            .map(comparable)
            .collect();
        if own != said {
            self.fault(path.clone(), What::Xattr);
        }
        Ok(())
    }

    /// An attribute's value as an archive has it. A store that keeps owners as others has the user of a
    /// capability's root in it, which the kernel adds (`VFS_CAP_REVISION_3` of linux/capability.h).
    fn as_archived<'v>(&self, name: &[u8], value: &'v [u8]) -> Cow<'v, [u8]> {
        let is_of_user = self.manner.is_remapped && name == b"security.capability";
        let plain = is_of_user.then(|| capability_of_user(value)).flatten();
        plain.map_or(Cow::Borrowed(value), |(plain, _)| Cow::Owned(plain))
    }

    /// What is there and not in the archive.
    pub fn finish(mut self) -> Proof {
        if self.found.is_full() {
            let what =
                "the archive has more names than are remembered: what it has not is not told";
            self.found.proof.leave(what);
        } else if self.is_copy() {
            let own = self.found.proof.faults.len();
            self.not_in_the_copy();
            self.found.proof.inherited = self.found.proof.faults.split_off(own);
        } else if let Err(error) = self.not_in_the_archive() {
            self.found.proof.leave(error.to_string());
        }
        if self.manner.is_remapped {
            self.found.remapped();
        }
        self.found.proof
    }

    fn not_in_the_archive(&mut self) -> Result<()> {
        let root = self.tree.root();
        // What lies in the archive lies in directories, whether or not it has them.
        let mut todo = vec![root];
        while let Some(place) = todo.pop() {
            for &branch in self.subject.branches {
                let Some(names) = place.listing(branch)? else {
                    continue;
                };
                for (name, kind) in names.iter() {
                    if let Some(below) = self.known(&place, branch, (name, kind))? {
                        todo.push(below);
                    }
                }
            }
        }
        Ok(())
    }
}

/// Reads a file, and gives its checksum.
fn content_of(content: &mut Content, size: u64, mut read: impl FnMut(&[u8])) -> Result<u64, Error> {
    let mut buffer = vec![0; at_once(size)];
    let mut crc = CRC.digest();
    let mut left = size;
    while left > 0 {
        if is_asked_to_end() {
            return Err(Error::damaged("its content", "interrupted"));
        }
        let most = usize::try_from(left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        match content.read(&mut buffer[..most]) {
            Ok(0) => break,
            Ok(count) => {
                crc.update(&buffer[..count]);
                read(&buffer[..count]);
                left -= count as u64;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::io("its content", errno_of(&error))),
        }
    }
    Ok(crc.finalize())
}

/// Whether two readers give the same. Inside: the file cannot be read.
fn is_same(
    archive: &mut impl Read,
    content: &mut Content,
    size: u64,
) -> io::Result<io::Result<bool>> {
    let mut ours = vec![0; at_once(size)];
    let mut theirs = vec![0; at_once(size)];
    let mut is_same = true;
    loop {
        if is_asked_to_end() {
            return Err(io::Error::other("interrupted"));
        }
        let count = match archive.read(&mut theirs) {
            Ok(0) => return Ok(Ok(is_same)),
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if is_same {
            match content.read_exact(&mut ours[..count]) {
                Ok(()) => is_same = ours[..count] == theirs[..count],
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => is_same = false,
                Err(error) => return Ok(Err(error)),
            }
        }
    }
}

/// Whether the root of a layer is as Docker and containers-storage make it, which pass over what an
/// archive says of its own root. docs/facts.md#engines-2026-d1
fn is_engines_root(stat: &Stat, manner: Manner) -> bool {
    ((stat.uid, stat.gid) == (0, 0) || manner.is_remapped) && matches!(stat.mode, 0o555 | 0o755)
}
