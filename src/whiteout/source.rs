//! What a directory says of a name, and who is asked: its listing, or the kernel.

use std::cell::Cell;

use rustix::io::Errno;

use crate::dir::{Access, Dir, Kind, Names, Stat};

/// What the names of marks and of housekeeping begin with.
pub(super) const PREFIX: &[u8] = b".wh.";

/// What a directory's listing tells of the marks in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Marks {
    /// The directory has none.
    None,
    /// The marks are those that have a mark's name.
    Named,
    /// Some may look like ordinary entries.
    Hidden,
}

/// What a branch's directory says of one name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// The whiteout of the name.
    pub whiteout: Validity,
    /// The kind of the entry that has the name and is no mark.
    pub entry: Option<Kind>,
}

impl Seen {
    pub(super) const NOTHING: Seen = Seen {
        whiteout: Validity::Absent,
        entry: None,
    };

    pub(super) const WHITEOUT: Seen = Seen {
        whiteout: Validity::Valid,
        entry: None,
    };

    pub(super) fn entry(entry: Option<Kind>) -> Seen {
        Seen {
            entry,
            ..Seen::NOTHING
        }
    }
}

/// Whether a mark is there, and whether the union can read it: AUFS answers `EIO` for one that
/// is not a regular file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Validity {
    /// There is no mark.
    Absent,
    /// The mark is one that counts.
    Valid,
    /// The union cannot read the mark.
    Invalid,
    /// The mark has a mark itself. It deletes nothing then, but a directory below shows empty:
    /// fuse-overlayfs's own confusion.
    TakenBack,
}

impl Validity {
    /// Whether the name is deleted, or cannot be told.
    pub fn ends_search(self) -> bool {
        matches!(self, Validity::Valid | Validity::Invalid)
    }

    pub(super) fn if_there(is_there: bool) -> Validity {
        if is_there {
            Validity::Valid
        } else {
            Validity::Absent
        }
    }

    /// Of a mark that must be a regular file.
    pub(super) fn of(kind: Option<Kind>) -> Validity {
        match kind {
            None => Validity::Absent,
            Some(Kind::File) => Validity::Valid,
            Some(_) => Validity::Invalid,
        }
    }
}

/// Where the facts about a directory come from.
pub enum Source<'a> {
    /// Its listing, which was read, and what that tells of the marks in it.
    Listing(&'a Names, Marks, &'a Dir),
    /// The kernel.
    Disk(&'a Dir),
    /// The kernel, which is asked to open the name, since that is most likely a directory's. The
    /// directory is left in the cell: to open it tells its kind, and spares a second call.
    Opening(&'a Dir, Access, &'a Cell<Option<Dir>>),
}

impl Source<'_> {
    pub(super) fn kind(&self, name: &[u8]) -> Result<Option<Kind>, Errno> {
        match self {
            Source::Listing(names, ..) => Ok(names.kind(name)),
            Source::Disk(dir) => Ok(dir.stat(name)?.map(|stat| stat.kind)),
            Source::Opening(dir, access, opened) => match dir.child(name, *access) {
                Ok(child) => {
                    opened.set(Some(child));
                    Ok(Some(Kind::Directory))
                }
                Err(Errno::NOENT) => Ok(None),
                Err(_) => Source::Disk(dir).kind(name),
            },
        }
    }

    /// The kind of the whiteout that is an entry of its own: `.wh.NAME`.
    pub(super) fn kind_of_mark(&self, name: &[u8]) -> Result<Option<Kind>, Errno> {
        match self {
            Source::Listing(_, Marks::None, _) => Ok(None),
            Source::Listing(names, ..) => Ok(names.kind_of_joined(PREFIX, name)),
            Source::Disk(dir) | Source::Opening(dir, ..) => {
                Source::Disk(dir).kind(&[PREFIX, name].concat())
            }
        }
    }

    pub(super) fn dir(&self) -> &Dir {
        match self {
            Source::Listing(.., dir) | Source::Disk(dir) | Source::Opening(dir, ..) => dir,
        }
    }

    /// The kind of an entry, and what `lstat` says of it where the kind alone does not tell
    /// whether it is a mark.
    pub(super) fn could_be_mark(&self, name: &[u8]) -> Result<Option<(Kind, Option<Stat>)>, Errno> {
        let listed = match self {
            Source::Listing(names, ..) => names.kind(name),
            Source::Disk(_) => Some(Kind::File),
            Source::Opening(..) => match self.kind(name)? {
                Some(kind) if kind != Kind::Directory => Some(Kind::File),
                kind => kind,
            },
        };
        match listed {
            None => Ok(None),
            Some(Kind::Char | Kind::File) => {
                let stat = self.dir().stat(name)?;
                Ok(stat.map(|stat| (stat.kind, Some(stat))))
            }
            Some(kind) => Ok(Some((kind, None))),
        }
    }
}
