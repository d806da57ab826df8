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

/// Up to how many names a directory is never read whole to be asked for some, and all that is in it is
/// asked for everything: it costs little.
pub const FEW: usize = 8;

/// The kind of an entry, and what `lstat` says of it where it was asked.
pub(super) type Found = (Kind, Option<Stat>);

/// What a branch's directory says of one name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// The whiteout of the name.
    pub whiteout: Validity,
    /// The kind of the entry that has the name and is no mark.
    pub entry: Option<Kind>,
    /// What `lstat` says of it, where it was asked.
    pub stat: Option<Stat>,
    /// It was asked for its attributes, and none of them is a union's.
    pub is_bare: bool,
}

impl Seen {
    pub(super) const NOTHING: Seen = Seen {
        whiteout: Validity::Absent,
        entry: None,
        stat: None,
        is_bare: false,
    };

    pub(super) const WHITEOUT: Seen = Seen {
        whiteout: Validity::Valid,
        ..Seen::NOTHING
    };

    pub(super) fn entry(found: Option<Found>) -> Seen {
        Seen {
            entry: found.map(|(kind, _)| kind),
            stat: found.and_then(|(_, stat)| stat),
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
        Ok(self.find(name)?.map(|(kind, _)| kind))
    }

    /// The entry of that name.
    pub(super) fn find(&self, name: &[u8]) -> Result<Option<Found>, Errno> {
        match self {
            Source::Listing(names, ..) => Ok(names.kind(name).map(|kind| (kind, None))),
            Source::Disk(dir) => Ok(dir.stat(name)?.map(|stat| (stat.kind, Some(stat)))),
            Source::Opening(dir, access, opened) => match dir.child(name, *access) {
                Ok(child) => {
                    opened.set(Some(child));
                    Ok(Some((Kind::Directory, None)))
                }
                Err(Errno::NOENT) => Ok(None),
                Err(_) => Source::Disk(dir).find(name),
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

    /// Whether the directory may have no more than [`FEW`] names, as far as is known.
    pub(super) fn has_few(&self) -> bool {
        match self {
            Source::Listing(names, ..) => names.count() <= FEW,
            Source::Disk(dir) | Source::Opening(dir, ..) => !dir.is_large(),
        }
    }

    pub(super) fn dir(&self) -> &Dir {
        match self {
            Source::Listing(.., dir) | Source::Disk(dir) | Source::Opening(dir, ..) => dir,
        }
    }

    /// The entry of that name, with what `lstat` says of it where the kind alone does not tell
    /// whether it is a mark.
    pub(super) fn could_be_mark(&self, name: &[u8]) -> Result<Option<Found>, Errno> {
        match self.find(name)? {
            Some((Kind::Char | Kind::File, None)) => Source::Disk(self.dir()).find(name),
            found => Ok(found),
        }
    }
}
