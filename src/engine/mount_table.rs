//! The mount table: what the kernel says is mounted where.
//!
//! ```text
//! /proc/self/mountinfo   33 15 0:29 / /demo/mnt rw,relatime shared:2 - aufs none rw,si=80a122805ed3e91b
//!                        id parent dev root mount-point flags [tags] - type source options
//! /proc/mounts           none /demo/mnt aufs rw,relatime,si=80a122805ed3e91b 0 0
//! ```

use std::collections::HashSet;

use crate::branch::unescape_octal;
use crate::bytes::Bytes;

/// One line of a mount table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// The mount's own number and that of the mount it lies on; `/proc/mounts` has neither.
    pub ids: Option<(u32, u32)>,
    /// The number of the file system's device; not in `/proc/mounts`.
    pub device: Option<(u32, u32)>,
    pub root: Bytes,
    pub point: Bytes,
    pub flags: String,
    pub fs_type: Vec<u8>,
    pub source: Bytes,
    /// As the table has them, escapes and all.
    pub options: Vec<u8>,
}

/// What the kernel tells one mounted union from another by, in whatever mount namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Superblock {
    /// AUFS's own name for it: the hexadecimal digits after `si_`.
    Aufs(String),
    /// The number of its device.
    Device(u32, u32),
    /// Neither is known: its options.
    Options(Bytes),
}

impl std::fmt::Display for Superblock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Superblock::Aufs(si) => write!(f, "si_{si}"),
            Superblock::Device(major, minor) => write!(f, "device {major}:{minor}"),
            Superblock::Options(options) => write!(f, "{options}"),
        }
    }
}

/// The kinds of union that a mount can be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MountKind {
    Aufs,
    Overlay,
    FuseOverlay,
}

impl Mount {
    /// What kind of union is mounted here; none for other file systems.
    pub fn kind(&self) -> Option<MountKind> {
        match self.fs_type.as_slice() {
            b"aufs" => Some(MountKind::Aufs),
            b"overlay" | b"overlayfs" => Some(MountKind::Overlay),
            b"fuse.fuse-overlayfs" => Some(MountKind::FuseOverlay),
            _ => None,
        }
    }

    /// Whether the directory that is mounted here has been removed since: it has no place in the
    /// file system any more.
    pub fn is_of_removed(&self) -> bool {
        self.root.as_bytes().ends_with(b"//deleted")
    }

    /// What the kernel knows the union by that is mounted here.
    pub fn superblock(&self) -> Option<Superblock> {
        match (self.kind()?, self.device) {
            (MountKind::Aufs, _) => self.si().map(Superblock::Aufs),
            (_, Some((major, minor))) => Some(Superblock::Device(major, minor)),
            (MountKind::Overlay, None) => Some(Superblock::Options(Bytes::from(&self.options[..]))),
            (MountKind::FuseOverlay, None) => Some(Superblock::Options(self.point.clone())),
        }
    }

    /// AUFS's `si=` option.
    pub fn si(&self) -> Option<String> {
        let value = self
            .options
            .split(|&byte| byte == b',')
            .find_map(|option| option.strip_prefix(b"si="))?;
        is_hex(value).then(|| String::from_utf8_lossy(value).into_owned())
    }
}

/// Whether a text is the number of an AUFS mount: up to sixteen hexadecimal digits.
pub(super) fn is_hex(text: &[u8]) -> bool {
    !text.is_empty() && text.len() <= 16 && text.iter().all(u8::is_ascii_hexdigit)
}

/// The mounts of one namespace, in mount order.
#[derive(Debug, Clone, Default)]
pub struct MountTable(pub Vec<Mount>);

impl MountTable {
    /// The mounts that have a path for somebody else, by that path.
    pub fn seen_by(self, path: impl Fn(&Bytes) -> Option<Bytes>) -> MountTable {
        let seen = self.0.into_iter().filter_map(|mount| {
            Some(Mount {
                point: path(&mount.point)?,
                ..mount
            })
        });
        MountTable(seen.collect())
    }

    /// Whether both are tables of one mount namespace: no other has a mount of the same number.
    pub fn shares_a_mount_with(&self, other: &MountTable) -> bool {
        fn numbers(table: &MountTable) -> impl Iterator<Item = u32> {
            table.0.iter().filter_map(|mount| Some(mount.ids?.0))
        }
        let of_other: HashSet<u32> = numbers(other).collect();
        numbers(self).any(|id| of_other.contains(&id))
    }

    /// Whether what is mounted at a path is the directory that lies there: engines mount a directory
    /// of theirs on itself.
    pub fn is_mounted_on_itself(&self, path: &Bytes) -> bool {
        let at = self.0.iter().rev().find(|mount| mount.point == *path);
        let Some((at, (_, below))) = at.and_then(|mount| Some((mount, mount.ids?))) else {
            return false;
        };
        let below = self
            .0
            .iter()
            .find(|mount| mount.ids.is_some_and(|(own, _)| own == below));
        below.is_some_and(|below| {
            let inside = path.strip_prefix(&below.point);
            at.device.is_some()
                && at.device == below.device
                && inside.is_some_and(|inside| at.root == below.root.join_path(&inside))
        })
    }

    /// The mount that a path lies on. As the kernel walks: down from the first mount on the path,
    /// always to the next one that lies on it, however deep the ones are that it covers.
    pub fn covering(&self, path: &Bytes) -> Option<&Mount> {
        let on_path: Vec<&Mount> = self
            .0
            .iter()
            .filter(|mount| path.lies_in(&mount.point))
            .collect();
        let depth = |mount: &&&Mount| mount.point.components().count();
        let numbers: Option<Vec<(u32, u32)>> = on_path.iter().map(|mount| mount.ids).collect();
        let are_unlike = |numbers: &Vec<(u32, u32)>| {
            let ids: HashSet<u32> = numbers.iter().map(|(id, _)| *id).collect();
            ids.len() == numbers.len()
        };
        // Without numbers the order of mounting is all there is: the latest covers.
        let Some(numbers) = numbers.filter(are_unlike) else {
            return on_path.last().copied();
        };
        let is_lowest =
            |(id, parent): (u32, u32)| id == parent || !numbers.iter().any(|(of, _)| *of == parent);
        let lowest = on_path
            .iter()
            .rev()
            .filter(|mount| mount.ids.is_some_and(is_lowest));
        let mut at: &Mount = lowest.min_by_key(depth)?;
        for _ in 0..on_path.len() {
            let id = at.ids.map(|(id, _)| id);
            let lies_on_it = on_path.iter().rev().filter(|mount| {
                mount
                    .ids
                    .is_some_and(|(of, parent)| Some(parent) == id && Some(of) != id)
            });
            match lies_on_it.min_by_key(depth) {
                Some(next) => at = next,
                None => break,
            }
        }
        Some(at)
    }
}

/// Reads `mountinfo`. Lines that are no mounts are passed over.
pub fn parse_mountinfo(bytes: &[u8]) -> MountTable {
    let mounts = bytes.split(|&byte| byte == b'\n').filter_map(|line| {
        let fields: Vec<&[u8]> = line.split(|&byte| byte == b' ').collect();
        let dash = fields.iter().skip(6).position(|field| *field == b"-")? + 6;
        let number = |text: &[u8]| std::str::from_utf8(text).ok()?.parse().ok();
        let colon = fields[2].iter().position(|&byte| byte == b':');
        Some(Mount {
            ids: number(fields[0]).zip(number(fields[1])),
            device: colon.and_then(|at| number(&fields[2][..at]).zip(number(&fields[2][at + 1..]))),
            root: Bytes(unescape_octal(fields[3])),
            point: Bytes(unescape_octal(fields[4])),
            flags: String::from_utf8_lossy(fields[5]).into_owned(),
            fs_type: fields.get(dash + 1)?.to_vec(),
            source: Bytes(unescape_octal(fields.get(dash + 2)?)),
            options: fields.get(dash + 3).copied().unwrap_or_default().to_vec(),
        })
    });
    MountTable(mounts.collect())
}

/// Reads `/proc/mounts`, which lacks only the part that a bind mount shows.
pub fn parse_mounts(bytes: &[u8]) -> MountTable {
    let mounts = bytes.split(|&byte| byte == b'\n').filter_map(|line| {
        let mut fields = line.split(|&byte| byte == b' ');
        let source = fields.next()?;
        let point = fields.next()?;
        let fs_type = fields.next()?;
        let options = fields.next()?;
        Some(Mount {
            ids: None,
            device: None,
            root: Bytes::from("/"),
            point: Bytes(unescape_octal(point)),
            flags: String::from_utf8_lossy(options).into_owned(),
            fs_type: fs_type.to_vec(),
            source: Bytes(unescape_octal(source)),
            options: options.to_vec(),
        })
    });
    MountTable(mounts.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountinfo_lines() {
        // docs/facts.md#aufs-4.4, aufs-4.5, aufs-4.11, aufs-4.12
        let table = parse_mountinfo(
            b"32 15 0:28 / /host rw,relatime - hostfs none rw,/srv1/aufs/share\n\
              33 15 0:29 / /demo/mnt rw,relatime shared:2 master:1 - aufs none rw,si=e5fdfdcac24fc19,dio\n\
              34 15 0:29 /sub\\040dir /demo/bind ro - aufs none rw,si=e5fdfdcac24fc19\n\
              broken line\n",
        );
        assert_eq!(table.0.len(), 3);
        assert_eq!(table.0[0].si(), None);
        assert_eq!(table.0[1].si().as_deref(), Some("e5fdfdcac24fc19"));
        assert_eq!(table.0[2].root, Bytes::from("/sub dir"));
        assert_eq!(table.0[2].flags, "ro");
    }

    #[test]
    fn a_container_sees_the_host_s_mounts_below_a_directory() {
        let table = parse_mountinfo(
            b"1 0 0:1 / / rw - overlay overlay rw\n\
              2 1 8:1 / /host ro - ext4 /dev/sda1 rw\n\
              3 2 8:1 /graph/overlay /host/graph/overlay rw - ext4 /dev/sda1 rw\n\
              4 1 0:4 / /hosts rw - tmpfs tmpfs rw\n",
        );
        let inside = |path: &Bytes| path.strip_prefix(&Bytes::from("/host"));
        let table = table.seen_by(inside);
        let points: Vec<&[u8]> = table.0.iter().map(|mount| mount.point.as_bytes()).collect();
        assert_eq!(points, [&b"/"[..], b"/graph/overlay"]);
        assert!(table.is_mounted_on_itself(&Bytes::from("/graph/overlay")));
    }

    #[test]
    fn the_deepest_and_latest_mount_covers_a_path() {
        let table = parse_mountinfo(
            b"1 0 0:1 / / rw - aufs none rw,si=1\n\
              2 1 0:2 / /home rw - ext4 /dev/a rw\n\
              3 1 0:3 / /home rw - tmpfs t rw\n",
        );
        let covering = |path: &str| table.covering(&Bytes::from(path)).unwrap().fs_type.clone();
        assert_eq!(covering("/etc/passwd"), b"aufs");
        assert_eq!(covering("/home/me"), b"tmpfs");
        assert_eq!(covering("/homeless"), b"aufs");

        // A later mount over a parent covers what was mounted below it before.
        for table in [
            parse_mountinfo(
                b"1 0 0:1 / / rw - ext4 /dev/a rw\n\
                  2 1 0:2 / /mnt/sub rw - aufs none rw,si=1\n\
                  3 1 0:3 / /mnt rw - tmpfs t rw\n",
            ),
            parse_mounts(
                b"/dev/a / ext4 rw 0 0\nnone /mnt/sub aufs rw,si=1 0 0\nt /mnt tmpfs rw 0 0\n",
            ),
        ] {
            let covering = table.covering(&Bytes::from("/mnt/sub/x")).unwrap();
            assert_eq!(covering.fs_type, b"tmpfs");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_a_parser_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
            let _ = parse_mountinfo(&bytes);
            let _ = parse_mounts(&bytes);
        }
    }
}
