//! How a branch's directory is reached. Its path alone may lead elsewhere than the union's own
//! reference, which is as old as the mount: something can have been mounted over it since, be it
//! the union itself, or have been mounted in it, where the union does not go; and in another mount
//! namespace the path may mean another directory.

use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::mount::{OpenTreeFlags, open_tree};

use super::mount_table::{Mount, MountTable, Superblock};
use super::namespace::{self, Process};
use super::{LayeredBranch, Survey, Union};
use crate::bytes::Bytes;
use crate::dir::Dir;
use crate::error::{Error, Result};
use crate::mark::descend;

/// What is known of the mounts around a union when its branches are opened.
pub struct Reach<'a> {
    survey: &'a Survey<'a>,
    /// The mount table of the union's own namespace, where that is not ours.
    elsewhere: Option<Process>,
    superblock: Option<Superblock>,
    /// Our own table as it was when the union was mounted, where that is known: what follows its
    /// line was mounted later.
    before: Option<MountTable>,
}

impl<'a> Reach<'a> {
    pub fn new(survey: &'a Survey<'a>, union: &Union) -> Reach<'a> {
        let is_live = survey.host.is_live();
        let process = union.mounts.first().and_then(|mount| mount.process);
        let elsewhere = process
            .filter(|_| is_live)
            .and_then(|id| Process::read(survey.host, id).ok());
        let table = elsewhere
            .as_ref()
            .map_or(&survey.table, |process| &process.table);
        let superblock = union.superblock.as_ref().filter(|_| is_live);
        let line = superblock.and_then(|superblock| {
            let is_it = |mount: &Mount| mount.superblock().as_ref() == Some(superblock);
            table.0.iter().position(is_it)
        });
        Reach {
            survey,
            before: line
                .filter(|_| elsewhere.is_none())
                .map(|line| MountTable(survey.table.0[..line].to_vec())),
            superblock: superblock.cloned(),
            elsewhere,
        }
    }

    /// Opens a branch.
    ///
    /// # Errors
    /// It is not there, or cannot be reached for certain.
    pub fn open(&self, branch: &LayeredBranch) -> Result<Dir> {
        let host = self.survey.host;
        let path = &branch.spec.path;
        if !host.is_live() {
            return host.open_dir(path);
        }
        if let Some(process) = &self.elsewhere
            && !self.is_same_here(path, process)
        {
            // No link is followed: there it would lead into our own namespace.
            let root = namespace::directory(process.id).join(b"root");
            return descend(&Dir::open_root(&root.to_path())?, path);
        }
        let real = host.resolve(path)?;
        let now = self.survey.table.covering(&real);
        let then = self.before.as_ref().and_then(|table| table.covering(&real));
        if let (Some(now), Some(then)) = (now, then)
            && !is_same(now, then)
        {
            return self.beneath(then, &real);
        }
        let dir = host.open_dir(path)?;
        let is_in_it =
            |mount: &Mount| mount.point != real && mount.point.strip_prefix(&real).is_some();
        match self.survey.table.0.iter().any(is_in_it) {
            false => Ok(dir),
            true => without_mounts(&dir, &real),
        }
    }

    /// What a mount has at a path that something was mounted over later.
    fn beneath(&self, mount: &Mount, path: &Bytes) -> Result<Dir> {
        let rest = path.strip_prefix(&mount.point).unwrap_or_default();
        let on_top = self.survey.table.covering(&mount.point);
        if !on_top.is_some_and(|on_top| is_same(on_top, mount)) {
            return Err(covered(path));
        }
        let point = Dir::open_root(&mount.point.to_path())?;
        descend(&without_mounts(&point, path)?, &rest)
    }

    /// Whether a path means the same in our own mount namespace: the same part of the same file
    /// system. A process that has the union itself there cannot know: it is in a container, whose
    /// mount was made outside.
    fn is_same_here(&self, path: &Bytes, process: &Process) -> bool {
        let place = |table: &MountTable| {
            let mount = table.covering(path)?;
            let rest = path.strip_prefix(&mount.point)?;
            Some((mount.device?, mount.root.join_path(&rest)))
        };
        let covering = process.table.covering(path).and_then(Mount::superblock);
        if covering.is_some() && covering == self.superblock {
            return true;
        }
        let there = place(&process.table);
        there.is_some() && there == place(&self.survey.table)
    }
}

fn is_same(a: &Mount, b: &Mount) -> bool {
    match (a.ids, b.ids) {
        (Some((a, _)), Some((b, _))) => a == b,
        _ => a == b,
    }
}

/// The same directory without what is mounted in it: a mount of its own, which nobody else sees
/// and which ends with us.
fn without_mounts(dir: &Dir, path: &Bytes) -> Result<Dir> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    let fd = dir.fd().map_err(|errno| Error::io(path.clone(), errno))?;
    let cloned: std::result::Result<OwnedFd, Errno> = open_tree(&*fd, "", flags);
    match cloned {
        Ok(cloned) => Ok(Dir::of_fd(cloned, path)),
        Err(Errno::PERM | Errno::NOSYS | Errno::INVAL) => Err(covered(path)),
        Err(errno) => Err(Error::io(path.clone(), errno)),
    }
}

fn covered(path: &Bytes) -> Error {
    Error::damaged(
        path.clone(),
        "has something mounted over it or in it, beneath which only root can look",
    )
}
