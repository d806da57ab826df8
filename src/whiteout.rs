//! How one branch spells that a name is deleted.
//!
//! AUFS: an empty file `.wh.NAME` beside NAME's place, and `.wh..wh..opq` in a directory whose
//! lower content is hidden. Everything else that begins with `.wh..wh.` is AUFS's own
//! housekeeping and marks nothing.

use rustix::io::Errno;
use serde::Serialize;

use crate::dir::{Dir, Kind, Names};

/// The longest name that an AUFS union has: a whiteout and a temporary of it must fit into 255.
pub const AUFS_NAME_MAX: usize = 242;

const PREFIX: &[u8] = b".wh.";
const META_PREFIX: &[u8] = b".wh..wh.";
/// The name of AUFS's opaque mark.
pub const OPAQUE: &[u8] = b".wh..wh..opq";

/// How a branch spells whiteout and opaque.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grammar {
    /// AUFS, in a branch whose marks count.
    Aufs,
    /// AUFS, in a plain `ro` or `rr` branch: marks are invisible and mean nothing.
    AufsIgnored,
    /// No union at all: an ordinary directory, such as a host's root.
    Plain,
}

/// The two kinds of mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum MarkKind {
    Whiteout,
    Opaque,
}

impl MarkKind {
    pub fn word(self) -> &'static str {
        match self {
            MarkKind::Whiteout => "whiteout",
            MarkKind::Opaque => "opaque",
        }
    }
}

/// What a branch's directory says of one name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    pub whiteout: Validity,
    pub entry: Option<Kind>,
}

/// Whether a mark is there, and whether the union can read it: AUFS answers `EIO` for one that
/// is not a regular file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Validity {
    Absent,
    Valid,
    Invalid,
}

impl Validity {
    fn of(kind: Option<Kind>) -> Validity {
        match kind {
            None => Validity::Absent,
            Some(Kind::File) => Validity::Valid,
            Some(_) => Validity::Invalid,
        }
    }
}

/// Where the facts about a directory come from: its listing where it was read, the kernel where
/// not.
pub enum Source<'a> {
    Listing(&'a Names),
    Disk(&'a Dir),
}

impl Source<'_> {
    fn kind(&self, name: &[u8]) -> Result<Option<Kind>, Errno> {
        match self {
            Source::Listing(names) => Ok(names.kind(name)),
            Source::Disk(dir) => Ok(dir.stat(name)?.map(|stat| stat.kind)),
        }
    }
}

impl Grammar {
    /// Why the union refuses `name` before it looks at any branch.
    pub fn refuses(self, name: &[u8]) -> Option<Errno> {
        match self {
            Grammar::Plain => None,
            Grammar::Aufs | Grammar::AufsIgnored if name.starts_with(PREFIX) => Some(Errno::PERM),
            Grammar::Aufs | Grammar::AufsIgnored if name.len() > AUFS_NAME_MAX => {
                Some(Errno::NAMETOOLONG)
            }
            Grammar::Aufs | Grammar::AufsIgnored => None,
        }
    }

    /// Whether an entry of this name on disk is a mark or housekeeping, never shown by the union.
    pub fn hides_entry(self, name: &[u8]) -> bool {
        match self {
            Grammar::Plain => false,
            Grammar::Aufs | Grammar::AufsIgnored => name.starts_with(PREFIX),
        }
    }

    /// What the directory says of `name`.
    pub fn look(self, source: &Source<'_>, name: &[u8]) -> Result<Seen, Errno> {
        let whiteout = match self {
            Grammar::Aufs => Validity::of(source.kind(&self.whiteout_of(name))?),
            Grammar::AufsIgnored | Grammar::Plain => Validity::Absent,
        };
        Ok(Seen {
            whiteout,
            entry: source.kind(name)?,
        })
    }

    /// Whether the directory is marked opaque.
    pub fn opaque(self, source: &Source<'_>) -> Result<Validity, Errno> {
        match self {
            Grammar::Aufs => Ok(Validity::of(source.kind(OPAQUE)?)),
            Grammar::AufsIgnored | Grammar::Plain => Ok(Validity::Absent),
        }
    }

    /// The name on disk of the mark that deletes `name`.
    pub fn whiteout_of(self, name: &[u8]) -> Vec<u8> {
        [PREFIX, name].concat()
    }

    /// What an entry of a listing marks, whether or not the mark counts in this branch.
    pub fn mark(self, name: &[u8]) -> Option<Mark<'_>> {
        match self {
            Grammar::Plain => None,
            Grammar::Aufs | Grammar::AufsIgnored if name == OPAQUE => Some(Mark::Opaque),
            Grammar::Aufs | Grammar::AufsIgnored if name.starts_with(META_PREFIX) => None,
            Grammar::Aufs | Grammar::AufsIgnored => match name.strip_prefix(PREFIX)? {
                b"" | b"." | b".." => None,
                hidden => Some(Mark::Whiteout(hidden)),
            },
        }
    }
}

/// What an entry of a directory marks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark<'a> {
    /// The name that is deleted.
    Whiteout(&'a [u8]),
    /// The directory itself hides what is below it.
    Opaque,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_from_marks() {
        // FACTS-aufs 1.7, 1.8, 1.11
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
        // FACTS-aufs 1.9, 1.10
        assert_eq!(Grammar::Aufs.refuses(b".wh.x"), Some(Errno::PERM));
        assert_eq!(Grammar::AufsIgnored.refuses(b".wh."), Some(Errno::PERM));
        assert_eq!(Grammar::Aufs.refuses(&[b'a'; 242]), None);
        assert_eq!(
            Grammar::Aufs.refuses(&[b'a'; 243]),
            Some(Errno::NAMETOOLONG)
        );
        assert_eq!(Grammar::Aufs.refuses(b".whx"), None);
        assert_eq!(Grammar::Plain.refuses(b".wh.x"), None);
    }
}
