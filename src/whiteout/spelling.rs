//! The marks themselves: the names, devices and attributes that each union reads.

use rustix::io::Errno;

use super::source::{PREFIX, Seen, Source, Validity};
use crate::dir::{Dir, Kind, Stat, reads_trusted_attributes};
use crate::overlay::{Namespace, Rules};

/// What the names of AUFS's housekeeping begin with.
const META_PREFIX: &[u8] = b".wh..wh.";
/// The name of AUFS's opaque mark.
pub const OPAQUE: &[u8] = b".wh..wh..opq";

/// The longest value of an attribute that can be a mark: a path.
pub(super) const PATH_MAX: usize = 4096;
/// What a metacopy attribute has at least, unless it is empty.
pub(super) const METACOPY_MIN: usize = 4;

/// The name that `.wh.NAME` deletes. What else begins with `.wh.` is housekeeping.
pub(super) fn named_whiteout(mark: &[u8]) -> Option<&[u8]> {
    if mark.starts_with(META_PREFIX) {
        return None;
    }
    match mark.strip_prefix(PREFIX)? {
        b"" | b"." | b".." => None,
        hidden => Some(hidden),
    }
}

/// Overlay's whiteout is the entry itself: a device 0:0, or an empty file with an attribute.
pub(super) fn look_overlay(rules: Rules, source: &Source<'_>, name: &[u8]) -> Result<Seen, Errno> {
    let found = source.could_be_mark(name)?;
    let seen = Seen::entry(found);
    let is_mark = match found {
        Some((Kind::Char, Some(stat))) => stat.rdev == 0,
        Some((Kind::File, Some(stat))) if stat.size == 0 => {
            match empty(rules.namespace, source.dir(), name) {
                // It has vanished meanwhile.
                Err(Errno::NOENT) => return Ok(Seen::NOTHING),
                Ok(Empty::Bare) => {
                    return Ok(Seen {
                        is_bare: true,
                        ..seen
                    });
                }
                empty => empty? == Empty::Whiteout,
            }
        }
        _ => false,
    };
    Ok(if is_mark { Seen::WHITEOUT } else { seen })
}

/// What an empty file is.
#[derive(PartialEq, Eq)]
enum Empty {
    Whiteout,
    /// None of the attributes that can stand on a file is on it.
    Bare,
    Other,
}

fn empty(namespace: Namespace, dir: &Dir, name: &[u8]) -> Result<Empty, Errno> {
    let attributes = namespace.attributes();
    let listed = dir.attributes(name)?;
    // Its value is nothing to the kernel, and may be closed to whoever may not read the file.
    let is_whiteout = match listed.has(attributes.whiteout) {
        Some(is_there) => is_there,
        None => dir
            .attribute(name, attributes.whiteout, PATH_MAX)?
            .is_some(),
    };
    Ok(if is_whiteout {
        Empty::Whiteout
    } else if listed.may_have(attributes.metacopy) {
        Empty::Other
    } else {
        Empty::Bare
    })
}

/// Whether a regular file can have its content in a lower branch, by what is known of it already. The
/// kernel's own ones have nothing on disk, or no more than a block of attributes, in a directory that
/// it has marked as impure; and who sets the attribute changes the file later than its content
/// (docs/facts.md#engines-73).
pub(super) fn could_be_metacopy(
    namespace: Namespace,
    source: &Source<'_>,
    stat: Option<&Stat>,
) -> bool {
    let dir = source.dir();
    let Some(stat) = stat.filter(|_| !dir.is_in_image()) else {
        return true;
    };
    if namespace == Namespace::Trusted && !reads_trusted_attributes() {
        return false;
    }
    let is_whole = stat.size > 0 && stat.disk() >= stat.size;
    let is_as_written = stat.ctime == stat.mtime;
    let is_impure = || {
        let listed = dir.attributes_self();
        listed.map_or(true, |listed| {
            listed.may_have(namespace.attributes().impure)
        })
    };
    source.has_few()
        || !is_whole
        || !is_as_written
        || !dir.counts_blocks(stat.dev)
        || dir.note(is_impure)
}

/// fuse-overlayfs's whiteout is `.wh.NAME`, whatever that is, or a device 0:0 in the name's place.
pub(super) fn look_fuse(source: &Source<'_>, name: &[u8]) -> Result<Seen, Errno> {
    let has_mark = match source.kind_of_mark(name) {
        // No mark of so long a name can be.
        Err(Errno::NAMETOOLONG) => false,
        result => result?.is_some(),
    };
    if !has_mark {
        return Ok(match source.could_be_mark(name)? {
            Some((Kind::Char, Some(stat))) if stat.rdev == 0 => Seen::WHITEOUT,
            found => Seen::entry(found),
        });
    }
    // What stands beside its mark is deleted all the same.
    let is_alone = source.kind(name)?.is_none();
    let mark = [PREFIX, name].concat();
    Ok(if is_alone && is_taken_back(source, &mark)? {
        Seen {
            whiteout: Validity::TakenBack,
            ..Seen::NOTHING
        }
    } else {
        Seen::WHITEOUT
    })
}

/// fuse-overlayfs heeds the first attribute that a directory has, and the file only where there is
/// none.
pub(super) fn opaque_fuse(namespace: Namespace, source: &Source<'_>) -> Result<Validity, Errno> {
    let attributes = match namespace {
        Namespace::Trusted => &FUSE_OPAQUE[..],
        // Nobody but root is told of the first.
        Namespace::User => &FUSE_OPAQUE[1..],
    };
    for attribute in attributes {
        let value = source.dir().attribute_self(attribute, PATH_MAX)?;
        if let Some(value) = value {
            if value.len() > FUSE_OPAQUE_MAX {
                return Err(Errno::RANGE);
            }
            return Ok(Validity::if_there(value.first() == Some(&b'y')));
        }
    }
    Ok(Validity::if_there(source.kind(OPAQUE)?.is_some()))
}

/// What stands after its own prefix in a name that overlay has escaped.
pub(super) const ESCAPE: &[u8] = b"overlay.";

/// What the names of fuse-overlayfs's own attributes begin with.
pub(super) const FUSE_OWN: [&[u8]; 3] = [
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
/// The longest value of one that fuse-overlayfs can read, in bytes.
const FUSE_OPAQUE_MAX: usize = 16;

/// The attributes in which fuse-overlayfs keeps an entry's owner and mode where it may not, or is
/// not to, set them. Where a branch's root has one, it does so in the whole branch.
pub(super) const FUSE_OVERRIDES: [&str; 3] = [
    "security.fuseoverlayfs.override_stat",
    "user.containers.override_stat",
    "user.fuseoverlayfs.override_stat",
];

/// Whether a mark of fuse-overlayfs has a mark itself.
pub(super) fn is_taken_back(source: &Source<'_>, mark: &[u8]) -> Result<bool, Errno> {
    match source.kind_of_mark(mark) {
        Err(Errno::NAMETOOLONG) => Ok(false),
        result => Ok(result?.is_some()),
    }
}

/// The first byte of overlay's opaque attribute: `y` for an opaque directory, `x` for one that has
/// whiteouts by attribute and hides nothing.
pub(super) fn opaque_value(namespace: Namespace, dir: &Dir) -> Result<Option<u8>, Errno> {
    let value = dir.attribute_self(namespace.attributes().opaque, 1)?;
    Ok(value.and_then(|value| value.first().copied()))
}
