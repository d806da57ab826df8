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

use std::borrow::Cow;
use std::cell::Cell;

use rustix::io::Errno;
use serde::Serialize;

use crate::dir::{Access, Dir, Kind, Names, Stat};
use crate::overlay::{Namespace, Rules};

/// The longest name that an AUFS union has: a whiteout and a temporary of it must fit into 255.
pub const AUFS_NAME_MAX: usize = 242;

/// The longest name of an overlay, which is that of the file systems below.
pub const OVERLAY_NAME_MAX: usize = 255;

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
    /// Overlay, upper or lower.
    Overlay(Rules),
    /// Overlay's lower branches that are asked for the content of files only.
    OverlayData,
    /// What fuse-overlayfs reads: overlay's marks and AUFS's.
    FuseOverlay(Namespace),
}

/// What a listing tells of the marks in a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Marks {
    /// There are none.
    None,
    /// Their names tell.
    Named,
    /// There may be others, which it does not tell.
    Hidden,
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

impl Seen {
    const NOTHING: Seen = Seen {
        whiteout: Validity::Absent,
        entry: None,
    };

    const WHITEOUT: Seen = Seen {
        whiteout: Validity::Valid,
        entry: None,
    };
}

/// Whether a mark is there, and whether the union can read it: AUFS answers `EIO` for one that
/// is not a regular file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Validity {
    Absent,
    Valid,
    Invalid,
    /// It has a mark itself. It deletes nothing then, but a directory below shows empty:
    /// fuse-overlayfs's own confusion.
    TakenBack,
}

impl Validity {
    /// Whether the name is deleted, or cannot be told.
    pub fn ends_search(self) -> bool {
        matches!(self, Validity::Valid | Validity::Invalid)
    }

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
    Listing(&'a Names, Marks, &'a Dir),
    Disk(&'a Dir),
    /// The same, where what is asked for is most likely a directory: that it can be opened is
    /// asked first, and it is left open.
    Opening(&'a Dir, Access, &'a Cell<Option<Dir>>),
}

impl Source<'_> {
    fn kind(&self, name: &[u8]) -> Result<Option<Kind>, Errno> {
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

    /// The kind of the whiteout that is an entry beside what it deletes.
    fn kind_of_mark(&self, name: &[u8]) -> Result<Option<Kind>, Errno> {
        match self {
            Source::Listing(_, Marks::None, _) => Ok(None),
            Source::Listing(names, ..) => Ok(names.kind_of_joined(PREFIX, name)),
            Source::Disk(dir) | Source::Opening(dir, ..) => {
                Source::Disk(dir).kind(&[PREFIX, name].concat())
            }
        }
    }

    fn dir(&self) -> &Dir {
        match self {
            Source::Listing(.., dir) | Source::Disk(dir) | Source::Opening(dir, ..) => dir,
        }
    }

    /// What `lstat` says of an entry whose kind alone does not tell whether it is a mark.
    fn could_be_mark(&self, name: &[u8]) -> Result<Option<(Kind, Option<Stat>)>, Errno> {
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

/// The longest value of an attribute that can be a mark: a path.
const PATH_MAX: usize = 4096;
/// What a metacopy attribute has at least, unless it is empty.
const METACOPY_MIN: usize = 4;

impl Grammar {
    /// Why the union refuses `name` before it looks at any branch.
    pub fn refuses(self, name: &[u8]) -> Option<Errno> {
        match self {
            Grammar::Plain => None,
            Grammar::Overlay(_) | Grammar::OverlayData | Grammar::FuseOverlay(_) => {
                (name.len() > OVERLAY_NAME_MAX).then_some(Errno::NAMETOOLONG)
            }
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
            Grammar::Plain | Grammar::Overlay(_) | Grammar::OverlayData => false,
            Grammar::Aufs | Grammar::AufsIgnored | Grammar::FuseOverlay(_) => {
                name.starts_with(PREFIX)
            }
        }
    }

    /// Whether there is anything in a listing that is more than it looks like, but for
    /// directories.
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

    /// Whether a listing that has no marks but by name has none of this one that counts.
    pub fn is_unmarked(self, names: &Names, name: &[u8]) -> bool {
        let counts = self != Grammar::AufsIgnored;
        let has_mark = || names.kind_of_joined(PREFIX, name).is_some();
        self.refuses(name).is_none() && !(counts && has_mark())
    }

    /// What the directory says of `name`.
    pub fn look(self, source: &Source<'_>, name: &[u8]) -> Result<Seen, Errno> {
        let whiteout = match self {
            Grammar::Overlay(rules) => {
                let Some((kind, stat)) = source.could_be_mark(name)? else {
                    return Ok(Seen::NOTHING);
                };
                let is_mark = match stat {
                    Some(stat) if kind == Kind::Char => stat.rdev == 0,
                    Some(stat) if kind == Kind::File && stat.size == 0 => {
                        let attribute = rules.namespace.attributes().whiteout;
                        match source.dir().attribute(name, attribute, PATH_MAX) {
                            // It has vanished meanwhile.
                            Err(Errno::NOENT) => return Ok(Seen::NOTHING),
                            value => value?.is_some(),
                        }
                    }
                    _ => false,
                };
                return Ok(if is_mark {
                    Seen::WHITEOUT
                } else {
                    Seen {
                        entry: Some(kind),
                        ..Seen::NOTHING
                    }
                });
            }
            Grammar::FuseOverlay(_) => {
                let has_mark = match source.kind_of_mark(name) {
                    // No mark of so long a name can be.
                    Err(Errno::NAMETOOLONG) => false,
                    result => result?.is_some(),
                };
                if has_mark {
                    // What stands beside it is deleted all the same.
                    let is_alone = source.kind(name)?.is_none();
                    let mark = [PREFIX, name].concat();
                    return Ok(if is_alone && is_taken_back(source, &mark)? {
                        Seen {
                            whiteout: Validity::TakenBack,
                            ..Seen::NOTHING
                        }
                    } else {
                        Seen::WHITEOUT
                    });
                }
                return Ok(match source.could_be_mark(name)? {
                    Some((Kind::Char, Some(stat))) if stat.rdev == 0 => Seen::WHITEOUT,
                    found => Seen {
                        entry: found.map(|(kind, _)| kind),
                        ..Seen::NOTHING
                    },
                });
            }
            Grammar::Aufs => Validity::of(source.kind_of_mark(name)?),
            Grammar::AufsIgnored | Grammar::Plain | Grammar::OverlayData => Validity::Absent,
        };
        Ok(Seen {
            whiteout,
            entry: source.kind(name)?,
        })
    }

    /// What `lstat` says of what a directory has of `name` that is no mark.
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
    pub fn opaque(self, source: &Source<'_>) -> Result<Validity, Errno> {
        match self {
            Grammar::Aufs => Ok(Validity::of(source.kind(OPAQUE)?)),
            Grammar::Overlay(rules) => {
                let is_opaque = opaque_value(rules, source.dir())? == Some(b'y');
                Ok(if is_opaque {
                    Validity::Valid
                } else {
                    Validity::Absent
                })
            }
            Grammar::FuseOverlay(namespace) => {
                let attributes = match namespace {
                    Namespace::Trusted => &FUSE_OPAQUE[..],
                    // Nobody but root is told of the first.
                    Namespace::User => &FUSE_OPAQUE[1..],
                };
                for attribute in attributes {
                    let value = source.dir().attribute_self(attribute, PATH_MAX)?;
                    if value
                        .as_ref()
                        .is_some_and(|value| value.len() > FUSE_OPAQUE_MAX)
                    {
                        return Err(Errno::RANGE);
                    }
                    if let Some(value) = value {
                        return Ok(match value.first() {
                            Some(b'y') => Validity::Valid,
                            _ => Validity::Absent,
                        });
                    }
                }
                Ok(match source.kind(OPAQUE)? {
                    Some(_) => Validity::Valid,
                    None => Validity::Absent,
                })
            }
            Grammar::AufsIgnored | Grammar::Plain | Grammar::OverlayData => Ok(Validity::Absent),
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

    /// Whether the mark on a branch's own root counts, and nothing below the branch shows at all:
    /// to overlay and AUFS it means nothing there.
    pub fn is_opaque_root(self, dir: &Dir) -> Result<bool, Errno> {
        match self {
            Grammar::FuseOverlay(_) => Ok(self.opaque(&Source::Disk(dir))? == Validity::Valid),
            _ => Ok(false),
        }
    }

    /// Whether a branch is cut off at its own root, and with it all below: to fuse-overlayfs a
    /// mark of no name is one there.
    pub fn is_cut_off(self, dir: &Dir) -> Result<bool, Errno> {
        match self {
            Grammar::FuseOverlay(_) => Ok(dir.stat(PREFIX)?.is_some()),
            _ => Ok(false),
        }
    }

    /// Whether the directory says that there are whiteouts by attribute in it. They count without
    /// that, too, but only here does the kernel look for them when it lists the directory.
    pub fn has_attribute_whiteouts(self, dir: &Dir) -> Result<bool, Errno> {
        match self {
            Grammar::Overlay(rules) => Ok(opaque_value(rules, dir)? == Some(b'x')),
            _ => Ok(false),
        }
    }

    /// Whether a regular file has its content in a lower branch.
    ///
    /// # Errors
    /// `EIO` for an attribute that cannot be one.
    pub fn metacopy(self, source: &Source<'_>, name: &[u8]) -> Result<bool, Errno> {
        let Grammar::Overlay(rules) = self else {
            return Ok(false);
        };
        let attribute = rules.namespace.attributes().metacopy;
        match source.dir().attribute(name, attribute, PATH_MAX)? {
            None => Ok(false),
            Some(value) if value.is_empty() || value.len() >= METACOPY_MIN => Ok(true),
            Some(_) => Err(Errno::IO),
        }
    }

    /// Under which name the branches below are asked, where not under the same: a name in the
    /// same directory, or a path from the root. `of` is the entry, `None` the directory itself.
    ///
    /// # Errors
    /// `EINVAL` for what can be neither.
    pub fn redirect(
        self,
        source: &Source<'_>,
        of: Option<&[u8]>,
    ) -> Result<Option<Vec<u8>>, Errno> {
        let Grammar::Overlay(rules) = self else {
            return Ok(None);
        };
        let attribute = rules.namespace.attributes().redirect;
        let value = match of {
            Some(name) => source.dir().attribute(name, attribute, PATH_MAX)?,
            None => source.dir().attribute_self(attribute, PATH_MAX)?,
        };
        let Some(mut value) = value else {
            return Ok(None);
        };
        if value.is_empty() {
            return Err(Errno::INVAL);
        }
        // The kernel takes it for a C string.
        value.truncate(
            value
                .iter()
                .position(|&byte| byte == 0)
                .unwrap_or(value.len()),
        );
        let is_valid = match value.strip_prefix(b"/") {
            Some(path) => path
                .split(|&byte| byte == b'/')
                .all(|part| !part.is_empty()),
            None => !value.contains(&b'/'),
        };
        is_valid.then_some(Some(value)).ok_or(Errno::INVAL)
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
        if !looked.whiteout.ends_search() {
            return Ok(None);
        }
        if let Grammar::FuseOverlay(_) = self {
            let mark = [PREFIX, name].concat();
            if source.kind(&mark).is_ok_and(|kind| kind.is_some()) {
                return Ok(Some(mark));
            }
        }
        Ok(Some(self.whiteout_of(name)))
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
    pub fn opaque_name(self) -> &'static [u8] {
        match self {
            Grammar::Overlay(_) | Grammar::OverlayData | Grammar::FuseOverlay(_) => b"",
            Grammar::Aufs | Grammar::AufsIgnored | Grammar::Plain => OPAQUE,
        }
    }

    /// The name under which the union shows an attribute of a branch: none for its own ones. What
    /// a union on top of this one has stored for itself is escaped: `overlay.overlay.`.
    pub fn shown_attribute(self, name: &[u8]) -> Option<Cow<'_, [u8]>> {
        match self {
            Grammar::Overlay(rules) => {
                let prefix = rules.namespace.prefix();
                match name.strip_prefix(prefix) {
                    None => Some(Cow::Borrowed(name)),
                    Some(rest) => rest
                        .strip_prefix(ESCAPE)
                        .map(|rest| Cow::Owned([prefix, rest].concat())),
                }
            }
            Grammar::FuseOverlay(_) => {
                let is_own = FUSE_OWN.iter().any(|prefix| name.starts_with(prefix));
                (!is_own).then_some(Cow::Borrowed(name))
            }
            Grammar::Aufs | Grammar::AufsIgnored | Grammar::OverlayData | Grammar::Plain => {
                Some(Cow::Borrowed(name))
            }
        }
    }

    /// The name under which a branch has an attribute that the union shows.
    pub fn stored_attribute(self, name: &[u8]) -> Vec<u8> {
        let Grammar::Overlay(rules) = self else {
            return name.to_vec();
        };
        let prefix = rules.namespace.prefix();
        match name.strip_prefix(prefix) {
            Some(rest) => [prefix, ESCAPE, rest].concat(),
            None => name.to_vec(),
        }
    }

    /// Whether marks in this branch mean anything.
    pub fn honours_marks(self) -> bool {
        matches!(
            self,
            Grammar::Aufs | Grammar::Overlay(_) | Grammar::FuseOverlay(_)
        )
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

    /// What an entry of a directory marks, whether or not the mark counts in this branch.
    ///
    /// # Errors
    /// An entry that cannot be asked.
    pub fn mark_at<'n>(
        self,
        source: &Source<'_>,
        name: &'n [u8],
    ) -> Result<Option<Mark<'n>>, Errno> {
        match self {
            Grammar::Overlay(_) => self.whiteout_at(source, name),
            Grammar::FuseOverlay(_) => match self.mark(name) {
                Some(_) if is_taken_back(source, name)? => Ok(None),
                None if !self.hides_entry(name) => self.whiteout_at(source, name),
                mark => Ok(mark),
            },
            _ => Ok(self.mark(name)),
        }
    }

    /// The mark that is called as what it marks.
    fn whiteout_at<'n>(
        self,
        source: &Source<'_>,
        name: &'n [u8],
    ) -> Result<Option<Mark<'n>>, Errno> {
        let is_whiteout = self.look(source, name)?.whiteout.ends_search();
        Ok(is_whiteout.then_some(Mark::Whiteout(name)))
    }

    /// What the name of an entry alone says that it marks.
    pub fn mark(self, name: &[u8]) -> Option<Mark<'_>> {
        match self {
            Grammar::Plain | Grammar::Overlay(_) | Grammar::OverlayData => None,
            Grammar::Aufs | Grammar::AufsIgnored if name == OPAQUE => Some(Mark::Opaque),
            _ if name.starts_with(META_PREFIX) => None,
            Grammar::Aufs | Grammar::AufsIgnored | Grammar::FuseOverlay(_) => {
                match name.strip_prefix(PREFIX)? {
                    b"" | b"." | b".." => None,
                    hidden => Some(Mark::Whiteout(hidden)),
                }
            }
        }
    }
}

/// What stands after its own prefix in a name that overlay has escaped.
const ESCAPE: &[u8] = b"overlay.";

/// What the names of fuse-overlayfs's own attributes begin with.
const FUSE_OWN: [&[u8]; 3] = [
    b"trusted.overlay.",
    b"user.overlay.",
    b"user.fuseoverlayfs.",
];

/// The attributes of an opaque directory that fuse-overlayfs knows, in its order.
pub const FUSE_OPAQUE: [&str; 3] = [
    "trusted.overlay.opaque",
    "user.overlay.opaque",
    "user.fuseoverlayfs.opaque",
];
/// The longest value of one, in bytes.
const FUSE_OPAQUE_MAX: usize = 16;

/// Whether a mark of fuse-overlayfs has a mark itself.
fn is_taken_back(source: &Source<'_>, mark: &[u8]) -> Result<bool, Errno> {
    match source.kind_of_mark(mark) {
        Err(Errno::NAMETOOLONG) => Ok(false),
        result => Ok(result?.is_some()),
    }
}

/// `y` for an opaque directory, `x` for one that has whiteouts by attribute and hides nothing.
fn opaque_value(rules: Rules, dir: &Dir) -> Result<Option<u8>, Errno> {
    let value = dir.attribute_self(rules.namespace.attributes().opaque, 1)?;
    Ok(value.and_then(|value| value.first().copied()))
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
