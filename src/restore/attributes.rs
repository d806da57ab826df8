//! What belongs to a file beside its content: owner, mode, times, extended attributes.

use std::os::fd::AsFd;

use rustix::fs::{self, AtFlags, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::copy::Into;
use crate::dir::{Dir, Stat, entry_path};
use crate::union::Node;

/// A file's extended attributes.
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

    /// Those of an entry that is not opened: a link, a fifo, a device.
    pub fn of_entry(dir: &Dir, name: &[u8]) -> Result<Attributes, Errno> {
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

    fn read(
        list: impl Fn(&mut Vec<u8>) -> Result<(), Errno>,
        get: impl Fn(&[u8], &mut Vec<u8>) -> Result<(), Errno>,
    ) -> Result<Attributes, Errno> {
        let mut names: Vec<u8> = Vec::with_capacity(XATTR_MAX);
        match list(&mut names) {
            Ok(()) => {}
            Err(Errno::OPNOTSUPP) => return Ok(Attributes(Vec::new())),
            Err(errno) => return Err(errno),
        }
        let mut attributes = Vec::new();
        for name in names
            .split(|&byte| byte == 0)
            .filter(|name| !name.is_empty())
        {
            let mut value: Vec<u8> = Vec::with_capacity(XATTR_MAX);
            match get(name, &mut value) {
                Ok(()) => attributes.push((name.to_vec(), value)),
                // Gone meanwhile, or a name that this file system lists and does not give.
                Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
                Err(errno) => return Err(errno),
            }
        }
        Ok(Attributes(attributes))
    }

    /// What a union that branch `branch` of `node` belongs to shows of them.
    pub fn seen(self, node: &Node<'_>, branch: usize, into: Into) -> Attributes {
        let grammar = node.stack().branches[branch].grammar;
        let shown = |(name, value): (Vec<u8>, Vec<u8>)| {
            let name = grammar.shown_attribute(&name)?;
            let name = match into {
                Into::View => name.into_owned(),
                Into::Branch => grammar.stored_attribute(&name),
            };
            Some((name, value))
        };
        Attributes(self.0.into_iter().filter_map(shown).collect())
    }

    /// Owner first, since changing it takes set-id bits and capabilities away; times last.
    pub fn apply(&self, fd: impl AsFd, stat: &Stat) -> Result<(), Errno> {
        let now = fs::fstat(&fd)?;
        if (now.st_uid, now.st_gid) != (stat.uid, stat.gid) {
            let (uid, gid) = (Uid::from_raw(stat.uid), Gid::from_raw(stat.gid));
            fs::fchown(&fd, Some(uid), Some(gid))?;
        }
        // A new file inherits its directory's default access list, which the version had not.
        for (name, _) in &Attributes::of(&fd)?.0 {
            if name.starts_with(b"system.posix_acl_") && !self.has(name) {
                fs::fremovexattr(&fd, &name[..])?;
            }
        }
        for (name, value) in &self.0 {
            may_be_refused(
                name,
                fs::fsetxattr(&fd, &name[..], value, XattrFlags::empty()),
            )?;
        }
        fs::fchmod(&fd, Mode::from_raw_mode(stat.mode))?;
        fs::futimens(&fd, &times(stat))
    }

    pub fn apply_to_entry(&self, dir: &Dir, name: &[u8]) -> Result<(), Errno> {
        if self.0.is_empty() {
            return Ok(());
        }
        let fd = dir.fd()?;
        let path = entry_path(&fd, name);
        for (name, value) in &self.0 {
            may_be_refused(
                name,
                fs::lsetxattr(&path[..], &name[..], value, XattrFlags::empty()),
            )?;
        }
        Ok(())
    }

    fn has(&self, name: &[u8]) -> bool {
        self.0.iter().any(|(known, _)| known == name)
    }
}

/// A label of the host's security module, or an attribute that the union itself does not take,
/// is no reason to fail: the copy has its own.
fn may_be_refused(name: &[u8], set: Result<(), Errno>) -> Result<(), Errno> {
    let is_the_hosts = name.starts_with(b"security.") || name.starts_with(b"trusted.");
    match set {
        Err(Errno::OPNOTSUPP) => Ok(()),
        Err(Errno::PERM | Errno::ACCESS) if is_the_hosts => Ok(()),
        result => result,
    }
}

fn times(stat: &Stat) -> Timestamps {
    let spec = |(tv_sec, tv_nsec): (i64, u32)| Timespec {
        tv_sec,
        tv_nsec: tv_nsec.into(),
    };
    Timestamps {
        last_access: spec(stat.atime),
        last_modification: spec(stat.mtime),
    }
}

/// Gives an entry the times of another.
///
/// # Errors
/// What the system call says.
pub fn set_times(dir: &Dir, name: &[u8], stat: &Stat) -> Result<(), Errno> {
    fs::utimensat(&*dir.fd()?, name, &times(stat), AtFlags::SYMLINK_NOFOLLOW)
}

pub fn chown_link(dir: &Dir, name: &[u8], stat: &Stat) -> Result<(), Errno> {
    match dir.stat(name)? {
        Some(now) if (now.uid, now.gid) == (stat.uid, stat.gid) => Ok(()),
        _ => fs::chownat(
            &*dir.fd()?,
            name,
            Some(Uid::from_raw(stat.uid)),
            Some(Gid::from_raw(stat.gid)),
            AtFlags::SYMLINK_NOFOLLOW,
        ),
    }
}
