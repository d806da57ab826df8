//! How one branch spells that a name is deleted.
//!
//! AUFS: an empty file `.wh.NAME` beside NAME's place, and `.wh..wh..opq` in a directory whose
//! lower content is hidden. Everything else that begins with `.wh..wh.` is AUFS's own
//! housekeeping and marks nothing.
//!
//! Overlay: a character device 0:0 in NAME's place, or an empty file with the attribute
//! `overlay.whiteout`; a directory is opaque that has `overlay.opaque=y`. What else an attribute
//! can say - where a renamed directory was, that a file's content is in a lower branch - is read
//! here, too, and means what `union` makes of it.
//!
//! fuse-overlayfs reads both: the device and `.wh.NAME`, whatever that is, and of a directory the
//! first opaque attribute that it has, else `.wh..wh..opq`. The mark of a name that is itself a
//! mark's - `.wh..opq` beside `.wh..wh..opq` - is none.

#![deny(clippy::wildcard_enum_match_arm)]

mod attributes;
mod mark;
mod source;
mod spelling;

use rustix::io::Errno;

use crate::dir::{Access, AttributeList, Dir, Kind, Names, Stat};
use crate::overlay::{Namespace, Rules};
use source::PREFIX;
use spelling::{
    FUSE_OVERRIDES, is_taken_back, look_fuse, look_overlay, named_whiteout, opaque_fuse,
    opaque_value,
};

pub use mark::{Mark, MarkKind};
pub use source::{FEW, Marks, Seen, Source, Validity};
pub use spelling::{FUSE_OPAQUE, OPAQUE};

/// The longest name that an AUFS union has: a whiteout and a temporary of it must fit into 255.
pub const AUFS_NAME_MAX: usize = 242;

/// The longest name of an overlay, which is that of the file systems below.
pub const OVERLAY_NAME_MAX: usize = 255;

/// How a branch spells whiteout and opaque.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grammar {
    /// AUFS, in a branch whose marks count.
    Aufs,
    /// AUFS, in a plain `ro` or `rr` branch: marks are invisible and mean nothing.
    AufsIgnored,
    /// No union at all: an ordinary directory, such as a host's root.
    Plain,
    /// Overlay, upper or lower.
    Overlay(Rules),
    /// Overlay's lower branches that are asked for the content of files only.
    OverlayData,
    /// What fuse-overlayfs reads: overlay's marks and AUFS's.
    FuseOverlay(Namespace),
}

// A further spelling is one more arm above. The compiler then names every question that it must
// answer: no `match` on a grammar has an arm for the rest, which the lint above sees to.

impl Grammar {
    /// What the union answers to `name` before it looks at any branch, if it refuses the name:
    /// `EPERM` for a name that it keeps for itself, `ENAMETOOLONG`, or `ENOENT` where it denies
    /// that it has any such name.
    pub fn refuses(self, name: &[u8]) -> Option<Errno> {
        let is_reserved = self.hides_entry(name);
        match self {
            Grammar::Plain => None,
            Grammar::Aufs | Grammar::AufsIgnored if is_reserved => Some(Errno::PERM),
            Grammar::Aufs | Grammar::AufsIgnored => {
                (name.len() > AUFS_NAME_MAX).then_some(Errno::NAMETOOLONG)
            }
            Grammar::Overlay(_) | Grammar::OverlayData => {
                (name.len() > OVERLAY_NAME_MAX).then_some(Errno::NAMETOOLONG)
            }
            Grammar::FuseOverlay(_) => {
                (is_reserved || name.len() > OVERLAY_NAME_MAX).then_some(Errno::NOENT)
            }
        }
    }

    /// Whether an entry of this name on disk is a mark or housekeeping, never shown by the union.
    pub fn hides_entry(self, name: &[u8]) -> bool {
        match self {
            Grammar::Plain | Grammar::Overlay(_) | Grammar::OverlayData => false,
            Grammar::Aufs | Grammar::AufsIgnored | Grammar::FuseOverlay(_) => {
                name.starts_with(PREFIX)
            }
        }
    }

    /// What a listing tells of the marks in its directory. A sub-directory's own marks are left
    /// aside.
    pub fn has_marks(self, names: &Names) -> Marks {
        match self {
            Grammar::Plain => Marks::None,
            Grammar::Aufs | Grammar::AufsIgnored => {
                if names.longest() <= AUFS_NAME_MAX && !names.has_prefix(PREFIX) {
                    Marks::None
                } else {
                    Marks::Named
                }
            }
            // An empty file may be a whiteout.
            Grammar::Overlay(_) | Grammar::OverlayData | Grammar::FuseOverlay(_) => Marks::Hidden,
        }
    }

    /// Whether the union shows `name` as it is listed. The listing is one whose marks all have a
    /// mark's name ([`Marks::Named`]).
    pub fn is_unmarked(self, names: &Names, name: &[u8]) -> bool {
        let has_mark = || match self {
            Grammar::Aufs
            | Grammar::AufsIgnored
            | Grammar::Plain
            | Grammar::Overlay(_)
            | Grammar::OverlayData
            | Grammar::FuseOverlay(_) => names.kind_of_joined(PREFIX, name).is_some(),
        };
        self.refuses(name).is_none() && !(self.honours_marks() && has_mark())
    }

    /// What the directory says of `name`.
    ///
    /// # Errors
    /// An entry that cannot be asked. `ENAMETOOLONG` where the name, or its mark's, is longer than
    /// the branch's file system allows.
    pub fn look(self, source: &Source<'_>, name: &[u8]) -> Result<Seen, Errno> {
        let whiteout = match self {
            Grammar::Overlay(rules) => return look_overlay(rules, source, name),
            Grammar::FuseOverlay(_) => return look_fuse(source, name),
            Grammar::Aufs => Validity::of(source.kind_of_mark(name)?),
            Grammar::AufsIgnored | Grammar::Plain | Grammar::OverlayData => Validity::Absent,
        };
        let found = source.find(name)?;
        Ok(Seen {
            whiteout,
            ..Seen::entry(found)
        })
    }

    /// What `lstat` says of what a directory has of `name` that is no mark.
    ///
    /// # Errors
    /// As [`Grammar::look`].
    pub fn version(self, dir: &Dir, name: &[u8]) -> Result<Option<Stat>, Errno> {
        let is_no_mark = match self {
            Grammar::Aufs | Grammar::AufsIgnored => !name.starts_with(PREFIX),
            Grammar::Plain | Grammar::OverlayData => true,
            Grammar::Overlay(_) | Grammar::FuseOverlay(_) => false,
        };
        if !is_no_mark && self.look(&Source::Disk(dir), name)?.entry.is_none() {
            return Ok(None);
        }
        dir.stat(name)
    }

    /// Whether the directory is marked opaque.
    ///
    /// # Errors
    /// A directory that cannot be asked. `ERANGE` for a mark that fuse-overlayfs cannot read.
    pub fn opaque(self, source: &Source<'_>) -> Result<Validity, Errno> {
        match self {
            Grammar::Aufs => Ok(Validity::of(source.kind(OPAQUE)?)),
            Grammar::Overlay(rules) => {
                let value = opaque_value(rules.namespace, source.dir())?;
                Ok(Validity::if_there(value == Some(b'y')))
            }
            Grammar::FuseOverlay(namespace) => opaque_fuse(namespace, source),
            Grammar::AufsIgnored | Grammar::Plain | Grammar::OverlayData => Ok(Validity::Absent),
        }
    }

    /// The same of a directory whose attributes are listed, which is remembered.
    ///
    /// # Errors
    /// As [`Grammar::opaque`].
    pub fn opaque_of(self, source: &Source<'_>, listed: &AttributeList) -> Result<Validity, Errno> {
        if let Some(namespace) = self.kernel_namespace() {
            let impure = namespace.attributes().impure;
            source.dir().note(|| listed.may_have(impure));
        }
        match self.kernel_namespace() {
            Some(namespace) if !listed.may_have(namespace.attributes().opaque) => {
                Ok(Validity::Absent)
            }
            _ => self.opaque(source),
        }
    }

    /// The list of a directory's attributes, where that spares asking for each by its name.
    ///
    /// # Errors
    /// What the system call says.
    pub fn attributes_of(self, dir: &Dir) -> Result<AttributeList, Errno> {
        match self.kernel_namespace() {
            Some(_) => dir.attributes_self(),
            None => Ok(AttributeList::UNTOLD),
        }
    }

    /// Whether the mark of every directory is read, and one that cannot be read refuses the
    /// directory, though there be nothing below it to hide.
    pub fn always_reads_opaque(self) -> bool {
        match self {
            Grammar::FuseOverlay(_) => true,
            Grammar::Aufs
            | Grammar::AufsIgnored
            | Grammar::Plain
            | Grammar::Overlay(_)
            | Grammar::OverlayData => false,
        }
    }

    /// How a directory is best opened in which names are looked up: attributes are asked of what
    /// is open for listing.
    pub fn access(self) -> Access {
        match self {
            Grammar::Overlay(_) | Grammar::FuseOverlay(_) => Access::List,
            Grammar::Aufs | Grammar::AufsIgnored | Grammar::Plain | Grammar::OverlayData => {
                Access::Lookup
            }
        }
    }

    /// Whether the opaque mark of a branch's own root counts, so that no branch below shows. To
    /// AUFS and overlay it means nothing there.
    ///
    /// # Errors
    /// As [`Grammar::opaque`].
    pub fn is_opaque_root(self, dir: &Dir) -> Result<bool, Errno> {
        match self {
            Grammar::FuseOverlay(_) => Ok(self.opaque(&Source::Disk(dir))? == Validity::Valid),
            Grammar::Aufs
            | Grammar::AufsIgnored
            | Grammar::Plain
            | Grammar::Overlay(_)
            | Grammar::OverlayData => Ok(false),
        }
    }

    /// Whether the whole branch is deleted, and with it all below: fuse-overlayfs takes `.wh.` in
    /// a branch's root for the whiteout of that root.
    ///
    /// # Errors
    /// What the system call says.
    pub fn is_cut_off(self, dir: &Dir) -> Result<bool, Errno> {
        match self {
            Grammar::FuseOverlay(_) => Ok(dir.stat(PREFIX)?.is_some()),
            Grammar::Aufs
            | Grammar::AufsIgnored
            | Grammar::Plain
            | Grammar::Overlay(_)
            | Grammar::OverlayData => Ok(false),
        }
    }

    /// Whether the directory says that there are whiteouts by attribute in it. They count without
    /// that, too, but only here does the kernel look for them when it lists the directory.
    ///
    /// # Errors
    /// What the system call says.
    pub fn has_attribute_whiteouts(self, dir: &Dir) -> Result<bool, Errno> {
        match self.kernel_namespace() {
            Some(namespace) => Ok(opaque_value(namespace, dir)? == Some(b'x')),
            None => Ok(false),
        }
    }

    /// Where the marks are that are attributes; none where no attribute is a mark.
    pub fn namespace(self) -> Option<Namespace> {
        match self {
            Grammar::Overlay(rules) => Some(rules.namespace),
            Grammar::FuseOverlay(namespace) => Some(namespace),
            Grammar::Aufs | Grammar::AufsIgnored | Grammar::OverlayData | Grammar::Plain => None,
        }
    }

    /// Where the kernel's overlay keeps what only it knows - redirects, metacopies, escaped
    /// attributes; none for branches of other unions.
    fn kernel_namespace(self) -> Option<Namespace> {
        match self {
            Grammar::Overlay(rules) => Some(rules.namespace),
            Grammar::Aufs
            | Grammar::AufsIgnored
            | Grammar::Plain
            | Grammar::OverlayData
            | Grammar::FuseOverlay(_) => None,
        }
    }

    /// Whether an entry can say that the branches below have it under another name.
    pub fn has_redirects(self) -> bool {
        self.kernel_namespace().is_some()
    }

    /// Whether the branch gives the content of files and nothing else: it has no part in the
    /// merged view.
    pub fn is_data_only(self) -> bool {
        match self {
            Grammar::OverlayData => true,
            Grammar::Aufs
            | Grammar::AufsIgnored
            | Grammar::Plain
            | Grammar::Overlay(_)
            | Grammar::FuseOverlay(_) => false,
        }
    }

    /// Whether the branch holds only what was changed. An ordinary directory holds everything,
    /// changed or not.
    pub fn holds_changes_only(self) -> bool {
        match self {
            Grammar::Plain => false,
            Grammar::Aufs
            | Grammar::AufsIgnored
            | Grammar::Overlay(_)
            | Grammar::OverlayData
            | Grammar::FuseOverlay(_) => true,
        }
    }

    /// The attributes that can stand on a branch's root to say that the owners and modes of its
    /// entries are kept in attributes.
    pub fn override_attributes(self) -> &'static [&'static str] {
        match self {
            Grammar::FuseOverlay(_) => &FUSE_OVERRIDES,
            Grammar::Aufs
            | Grammar::AufsIgnored
            | Grammar::Plain
            | Grammar::Overlay(_)
            | Grammar::OverlayData => &[],
        }
    }

    /// The name on disk of the whiteout that a directory has of `name`; none where it has none.
    ///
    /// # Errors
    /// An entry that cannot be asked.
    pub fn whiteout_name(self, source: &Source<'_>, name: &[u8]) -> Result<Option<Vec<u8>>, Errno> {
        let looked = match self.look(source, name) {
            Err(Errno::NAMETOOLONG) => return Ok(None),
            looked => looked?,
        };
        let is_there = looked.whiteout.ends_search();
        Ok(is_there.then(|| self.name_of_whiteout(source, name)))
    }

    /// The same of a whiteout that was seen.
    pub fn name_of_whiteout(self, source: &Source<'_>, name: &[u8]) -> Vec<u8> {
        match self {
            Grammar::FuseOverlay(_) => {
                let mark = [PREFIX, name].concat();
                if source.kind(&mark).is_ok_and(|kind| kind.is_some()) {
                    mark
                } else {
                    self.whiteout_of(name)
                }
            }
            Grammar::Aufs
            | Grammar::AufsIgnored
            | Grammar::Plain
            | Grammar::Overlay(_)
            | Grammar::OverlayData => self.whiteout_of(name),
        }
    }

    /// The name on disk of the whiteout that the union itself makes of `name`.
    pub fn whiteout_of(self, name: &[u8]) -> Vec<u8> {
        match self {
            Grammar::Overlay(_) | Grammar::OverlayData | Grammar::FuseOverlay(_) => name.to_vec(),
            Grammar::Aufs | Grammar::AufsIgnored | Grammar::Plain => [PREFIX, name].concat(),
        }
    }

    /// The name on disk of the mark that makes a directory opaque; none where the mark is no
    /// entry of it.
    pub fn opaque_name(self) -> Option<&'static [u8]> {
        match self {
            Grammar::Overlay(_) | Grammar::OverlayData | Grammar::FuseOverlay(_) => None,
            Grammar::Aufs | Grammar::AufsIgnored | Grammar::Plain => Some(OPAQUE),
        }
    }

    /// Whether marks in this branch mean anything.
    pub fn honours_marks(self) -> bool {
        match self {
            Grammar::Aufs | Grammar::Overlay(_) | Grammar::FuseOverlay(_) => true,
            Grammar::AufsIgnored | Grammar::Plain | Grammar::OverlayData => false,
        }
    }

    /// Whether a mark that is no regular file makes the union answer `EIO` for what it marks.
    pub fn wants_regular_marks(self) -> bool {
        match self {
            Grammar::Aufs => true,
            Grammar::AufsIgnored
            | Grammar::Overlay(_)
            | Grammar::OverlayData
            | Grammar::FuseOverlay(_)
            | Grammar::Plain => false,
        }
    }

    /// Whether an entry of this name and kind can be a mark at all.
    pub fn could_be_mark(self, name: &[u8], kind: Kind) -> bool {
        match self {
            Grammar::Plain | Grammar::OverlayData => false,
            Grammar::Aufs | Grammar::AufsIgnored => name.starts_with(PREFIX),
            Grammar::Overlay(_) => matches!(kind, Kind::Char | Kind::File),
            Grammar::FuseOverlay(_) => name.starts_with(PREFIX) || kind == Kind::Char,
        }
    }

    /// What an entry of a directory marks, whether or not the mark counts in this branch; and what
    /// [`Grammar::look`] says of it, where it had to be looked at.
    ///
    /// # Errors
    /// An entry that cannot be asked.
    pub fn mark_at<'n>(
        self,
        source: &Source<'_>,
        name: &'n [u8],
    ) -> Result<(Option<Mark<'n>>, Option<Seen>), Errno> {
        match self {
            Grammar::Overlay(_) => self.whiteout_at(source, name),
            Grammar::FuseOverlay(_) => match self.mark(name) {
                Some(_) if is_taken_back(source, name)? => Ok((None, None)),
                None if !self.hides_entry(name) => self.whiteout_at(source, name),
                mark => Ok((mark, None)),
            },
            Grammar::Aufs | Grammar::AufsIgnored | Grammar::Plain | Grammar::OverlayData => {
                Ok((self.mark(name), None))
            }
        }
    }

    /// The mark that is called as what it marks.
    fn whiteout_at<'n>(
        self,
        source: &Source<'_>,
        name: &'n [u8],
    ) -> Result<(Option<Mark<'n>>, Option<Seen>), Errno> {
        let seen = self.look(source, name)?;
        let is_whiteout = seen.whiteout.ends_search();
        Ok((is_whiteout.then_some(Mark::Whiteout(name)), Some(seen)))
    }

    /// What the name of an entry alone says that it marks.
    pub fn mark(self, name: &[u8]) -> Option<Mark<'_>> {
        match self {
            Grammar::Plain | Grammar::Overlay(_) | Grammar::OverlayData => None,
            Grammar::Aufs | Grammar::AufsIgnored if name == OPAQUE => Some(Mark::Opaque),
            Grammar::Aufs | Grammar::AufsIgnored | Grammar::FuseOverlay(_) => {
                named_whiteout(name).map(Mark::Whiteout)
            }
        }
    }

    /// Whether an entry of a directory is what `name` is in the union, or says something of it; as
    /// far as the entry's own name tells.
    pub fn concerns(self, entry: &[u8], name: &[u8]) -> bool {
        match self.mark(entry) {
            Some(Mark::Whiteout(hidden)) => hidden == name || entry == name,
            Some(Mark::Opaque) => true,
            None => entry == name,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_from_marks() {
        // docs/facts.md#aufs-1.7, #aufs-1.8, #aufs-1.11
        for (name, mark) in [
            (&b".wh.tomato"[..], Some(Mark::Whiteout(b"tomato"))),
            (b".wh..wh", Some(Mark::Whiteout(b".wh"))),
            (b".wh..hidden", Some(Mark::Whiteout(b".hidden"))),
            (b".wh.\xff\n", Some(Mark::Whiteout(b"\xff\n"))),
            (b".wh..wh..opq", Some(Mark::Opaque)),
            (b".wh..wh.opq", None),
            (b".wh..wh.aufs", None),
            (b".wh..wh.orph", None),
            (b".wh..wh.plnk", None),
            (b".wh.", None),
            (b".wh..", None),
            (b".wh...", None),
            (b".wh", None),
            (b".whx", None),
            (b"tomato", None),
        ] {
            assert_eq!(
                Grammar::Aufs.mark(name),
                mark,
                "{}",
                crate::bytes::escape(name)
            );
        }
    }

    #[test]
    fn reserved_and_long_names_are_refused() {
        // docs/facts.md#aufs-1.9, #aufs-1.10
        assert_eq!(Grammar::Aufs.refuses(b".wh.x"), Some(Errno::PERM));
        assert_eq!(Grammar::AufsIgnored.refuses(b".wh."), Some(Errno::PERM));
        assert_eq!(Grammar::Aufs.refuses(&[b'a'; 242]), None);
        assert_eq!(
            Grammar::Aufs.refuses(&[b'a'; 243]),
            Some(Errno::NAMETOOLONG)
        );
        assert_eq!(Grammar::Aufs.refuses(b".whx"), None);
        assert_eq!(Grammar::Plain.refuses(b".wh.x"), None);
        let (longest, longer) = ([b'a'; 255], [b'a'; 256]);
        let fuse = Grammar::FuseOverlay(Namespace::Trusted);
        for (grammar, of_marks, of_longer) in [
            (Grammar::OverlayData, None, Some(Errno::NAMETOOLONG)),
            (fuse, Some(Errno::NOENT), Some(Errno::NOENT)),
            (Grammar::Plain, None, None),
        ] {
            assert_eq!(grammar.refuses(b".wh.x"), of_marks, "{grammar:?}");
            assert_eq!(grammar.refuses(&longest), None, "{grammar:?}");
            assert_eq!(grammar.refuses(&longer), of_longer, "{grammar:?}");
        }
    }
}
