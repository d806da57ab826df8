//! What belongs to a file beside its content, as it is read: extended attributes, times.

use std::os::fd::AsFd;

use rustix::fs::{self, Timespec, Timestamps};
use rustix::io::Errno;

use crate::dir::{Access, Dir, Stat, entry_path};
use crate::union::{Branch, IdMap, IdRange, Node};

/// What a copy is made into, and so which form overlay's attributes get there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Into {
    /// A branch, as the branch that it comes from is one.
    Branch,
    /// A merged view, or an ordinary directory: what a person would see.
    View,
}

/// What of an entry's metadata a copy has, and what becomes of what it cannot have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// All of it: where it cannot have something that others could do more without, there is no copy.
    All,
    /// All that is possible. What is not is said.
    Possible,
    /// Content, permissions and time. The owner is who copies.
    Content,
}

/// A file's extended attributes.
#[derive(Default)]
pub struct Attributes(Vec<(Vec<u8>, Vec<u8>)>);

/// What the largest attribute, and the largest list of them, can have.
const XATTR_MAX: usize = 64 * 1024;

impl Attributes {
    pub fn of(fd: impl AsFd) -> Result<Attributes, Errno> {
        let list = |buffer: &mut Vec<u8>| {
            fs::flistxattr(&fd, rustix::buffer::spare_capacity(buffer)).map(|_| ())
        };
        Self::read(list, |name, buffer| {
            fs::fgetxattr(&fd, name, rustix::buffer::spare_capacity(buffer)).map(|_| ())
        })
    }

    /// Those of a directory of a branch.
    ///
    /// # Errors
    /// What the system calls say.
    pub fn of_directory(dir: &Dir) -> Result<Attributes, Errno> {
        if dir.is_in_image() {
            return Self::in_image(dir, b".");
        }
        let dir = dir.child(b".", Access::List)?;
        Attributes::of(&*dir.fd()?)
    }

    fn in_image(dir: &Dir, name: &[u8]) -> Result<Attributes, Errno> {
        let mut attributes = Vec::new();
        for attribute in dir.attribute_names(name)? {
            if let Some(value) = dir.attribute(name, &attribute, XATTR_MAX)? {
                attributes.push((attribute.into_bytes(), value));
            }
        }
        Ok(Attributes(attributes))
    }

    /// Those of an entry that is not opened: a link, a fifo, a device.
    pub fn of_entry(dir: &Dir, name: &[u8]) -> Result<Attributes, Errno> {
        if dir.is_in_image() {
            return Self::in_image(dir, name);
        }
        let fd = dir.fd()?;
        let path = entry_path(&fd, name);
        let list = |buffer: &mut Vec<u8>| {
            fs::llistxattr(&path[..], rustix::buffer::spare_capacity(buffer)).map(|_| ())
        };
        match Self::read(list, |name, buffer| {
            fs::lgetxattr(&path[..], name, rustix::buffer::spare_capacity(buffer)).map(|_| ())
        }) {
            Err(Errno::NOENT) => Ok(Attributes(Vec::new())), // no /proc to name it by
            result => result,
        }
    }

    /// The names of those that an open file has.
    ///
    /// # Errors
    /// What the system call says.
    pub fn names_of(fd: impl AsFd) -> Result<Vec<Vec<u8>>, Errno> {
        Self::names(|buffer| {
            fs::flistxattr(&fd, rustix::buffer::spare_capacity(buffer)).map(|_| ())
        })
    }

    /// The same of what a path leads to, links and all.
    ///
    /// # Errors
    /// What the system call says.
    pub fn names_at(path: &str) -> Result<Vec<Vec<u8>>, Errno> {
        let list = |buffer: &mut Vec<u8>| {
            fs::listxattr(path, rustix::buffer::spare_capacity(buffer)).map(|_| ())
        };
        match Self::names(list) {
            Err(Errno::NOENT) => Ok(Vec::new()), // no /proc to name it by
            result => result,
        }
    }

    fn names(list: impl Fn(&mut Vec<u8>) -> Result<(), Errno>) -> Result<Vec<Vec<u8>>, Errno> {
        let mut names: Vec<u8> = Vec::with_capacity(XATTR_MAX);
        match list(&mut names) {
            Ok(()) => {}
            Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
            Err(errno) => return Err(errno),
        }
        let names = names.split(|&byte| byte == 0);
        let names = names.filter(|name| !name.is_empty());
        Ok(names.map(<[u8]>::to_vec).collect())
    }

    fn read(
        list: impl Fn(&mut Vec<u8>) -> Result<(), Errno>,
        get: impl Fn(&[u8], &mut Vec<u8>) -> Result<(), Errno>,
    ) -> Result<Attributes, Errno> {
        let mut attributes = Vec::new();
        for name in Self::names(list)? {
            let mut value: Vec<u8> = Vec::with_capacity(XATTR_MAX);
            match get(&name, &mut value) {
                Ok(()) => {
                    // Those of every directory are kept until all is copied.
                    value.shrink_to_fit();
                    attributes.push((name, value));
                }
                // Gone meanwhile, or a name that this file system lists and does not give.
                Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(Attributes(attributes))
    }

    /// What a union that branch `branch` of `node` belongs to shows of them.
    pub fn seen(self, node: &Node<'_>, branch: usize, into: Into) -> Attributes {
        let Branch {
            grammar,
            owners,
            overrides,
            ..
        } = &node.stack().branches[branch];
        let shown = |(name, mut value): (Vec<u8>, Vec<u8>)| {
            if let Some(owners) = owners
                && Attributes::need(&name) == Need::Access
            {
                show_access_list(&mut value, owners);
            }
            if let Some(owners) = owners
                && Attributes::need(&name) == Need::Capability
            {
                show_capability(&mut value, owners);
            }
            let is_override = overrides.is_some_and(|own| own.as_bytes() == name);
            if into == Into::Branch && is_override {
                return Some((name, value));
            }
            let name = grammar.shown_attribute(&name)?;
            let name = match into {
                Into::View => name.into_owned(),
                Into::Branch => grammar.stored_attribute(&name),
            };
            Some((name, value))
        };
        Attributes(self.0.into_iter().filter_map(shown).collect())
    }

    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.0.iter().map(|(name, value)| (&name[..], &value[..]))
    }

    pub fn has(&self, name: &[u8]) -> bool {
        self.0.iter().any(|(known, _)| known == name)
    }

    /// What a copy would be without an attribute.
    pub fn need(name: &[u8]) -> Need {
        if name.starts_with(b"system.posix_acl_") || name.ends_with(b".override_stat") {
            Need::Access
        } else if name == b"security.capability" {
            Need::Capability
        } else if name.starts_with(b"security.") || name.starts_with(b"trusted.") {
            Need::Host
        } else {
            Need::Content
        }
    }
}

/// What a copy is without an attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// It lets others do what the original did not: an access list; owner and mode, where they are
    /// kept in an attribute.
    Access,
    /// It can do less.
    Capability,
    /// It has lost a part of what was in it.
    Content,
    /// The same: a label of the host's security module, or what the union keeps for itself. The
    /// copy has its own.
    Host,
}

/// The times of something, as they are set.
pub fn times(stat: &Stat) -> Timestamps {
    let spec = |(tv_sec, tv_nsec): (i64, u32)| Timespec {
        tv_sec,
        tv_nsec: tv_nsec.into(),
    };
    Timestamps {
        last_access: spec(stat.atime),
        last_modification: spec(stat.mtime),
    }
}

/// Gives a capability that counts in a user's namespaces only the user whom a mount shows for that one; where that
/// is root, it counts for everybody, and has none.
///
/// ```text
/// version   u32  0x02000000, 20 bytes in all; 0x03000000, with a further u32 in the end: the user's id
/// ```
fn show_capability(value: &mut Vec<u8>, owners: &IdMap) {
    let Some((plain, user)) = capability_of_user(value) else {
        return;
    };
    match IdRange::show(&owners.users, user) {
        0 => *value = plain,
        shown => value[plain.len()..].copy_from_slice(&shown.to_le_bytes()),
    }
}

/// Of a capability that counts in a user's namespaces only: the same for everybody, and the user.
pub fn capability_of_user(value: &[u8]) -> Option<(Vec<u8>, u32)> {
    const LENGTH: usize = 24;
    let (plain, user) = value.split_last_chunk()?;
    if value.len() != LENGTH || value[3] != 3 {
        return None;
    }
    let mut plain = plain.to_vec();
    plain[3] = 2;
    Some((plain, u32::from_le_bytes(*user)))
}

/// Gives an access list the users and groups that a mount shows.
///
/// ```text
/// version   u32  2
/// entry     u16 tag, u16 permissions, u32 id        tag 2: a user, 8: a group
/// ```
fn show_access_list(value: &mut [u8], owners: &IdMap) {
    const HEADER: usize = 4;
    const ENTRY: usize = 8;
    let Some(entries) = value.get_mut(HEADER..) else {
        return;
    };
    for entry in entries.chunks_exact_mut(ENTRY) {
        let ranges = match u16::from_le_bytes([entry[0], entry[1]]) {
            2 => &owners.users,
            8 => &owners.groups,
            _ => continue,
        };
        let id = u32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]]);
        entry[4..].copy_from_slice(&IdRange::show(ranges, id).to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attribute_is_missed_for_what_it_does() {
        for (name, need) in [
            (&b"system.posix_acl_access"[..], Need::Access),
            (b"system.posix_acl_default", Need::Access),
            (b"security.capability", Need::Capability),
            (b"security.selinux", Need::Host),
            (b"trusted.note", Need::Host),
            (b"user.note", Need::Content),
            (b"user.security.capability", Need::Content),
        ] {
            assert_eq!(Attributes::need(name), need, "{}", name.escape_ascii());
        }
    }

    #[test]
    fn an_access_list_names_those_that_the_mount_shows() {
        let range = |shown| IdRange {
            stored: 0,
            shown,
            size: 65_536,
        };
        let owners = IdMap {
            users: vec![range(100_000)],
            groups: vec![range(200_000)],
        };
        let list = |user: u32, group: u32| {
            let entry = |tag: u16, id: u32| {
                let tag = tag.to_le_bytes();
                let id = id.to_le_bytes();
                [&tag[..], &4u16.to_le_bytes(), &id].concat()
            };
            let none = u32::MAX;
            let entries = [(1, none), (2, user), (4, none), (8, group), (16, none)];
            let entries = entries.map(|(tag, id)| entry(tag, id)).concat();
            [&2u32.to_le_bytes()[..], &entries].concat()
        };
        let mut value = list(1000, 50);
        show_access_list(&mut value, &owners);
        assert_eq!(value, list(101_000, 200_050));
        // What is no list, or is cut off, is left as it is.
        for odd in [&b""[..], b"\x02\0", b"\x02\0\0\0\x02\0\x04\0\x01"] {
            let mut value = odd.to_vec();
            show_access_list(&mut value, &owners);
            assert_eq!(value, odd);
        }
    }
}
