//! How a branch's directory is reached. Its path alone may lead elsewhere than the union's own
//! reference, which is as old as the mount: something can have been mounted over it since, be it
//! the union itself, or have been mounted in it, where the union does not go; and in another mount
//! namespace the path may mean another directory.

use std::cell::RefCell;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use rustix::io::Errno;
use rustix::mount::{OpenTreeFlags, open_tree};

use super::mount_table::{Mount, MountTable, Superblock};
use super::namespace::{self, Process};
use super::union::{LayeredBranch, Union};
use crate::bytes::Bytes;
use crate::dir::{Dir, Kind};
use crate::error::{Error, Result};
use crate::host::Host;

/// What is known of the mounts around a union when its branches are opened.
pub struct Reach<'a> {
    host: &'a Host,
    /// Our own mount table.
    table: &'a MountTable,
    /// The mount table of the union's own namespace, where that is not ours.
    elsewhere: Option<Process>,
    superblock: Option<Superblock>,
    /// The line of the union in our own table, where that is known: what follows it was mounted
    /// later.
    line: Option<usize>,
    /// Of the directory in which a branch was opened last: most are side by side.
    around: RefCell<Option<Rc<Around>>>,
}

/// The mounts that concern what is in a directory.
struct Around {
    directory: Bytes,
    table: MountTable,
    /// Those that were there when the union was mounted.
    before: Option<MountTable>,
    /// Nothing was mounted in the directory, nor over it since.
    is_as_it_was: bool,
}

impl<'a> Reach<'a> {
    /// Of a union on a host with such a mount table.
    pub fn new(host: &'a Host, table: &'a MountTable, union: &Union) -> Reach<'a> {
        let is_live = host.is_live();
        let process = union.mounts.first().and_then(|mount| mount.process);
        // The paths of what an engine mounts over a container's layers are the engine's, and the host's.
        let elsewhere = process
            .filter(|_| is_live && union.over.is_none())
            .and_then(|id| Process::read(host, id).ok());
        let its_own = elsewhere.as_ref().map_or(table, |process| &process.table);
        let superblock = union.superblock.as_ref().filter(|_| is_live);
        let line = superblock.and_then(|superblock| {
            let is_it = |mount: &Mount| mount.superblock().as_ref() == Some(superblock);
            its_own.0.iter().position(is_it)
        });
        Reach {
            host,
            table,
            line: line.filter(|_| elsewhere.is_none()),
            superblock: superblock.cloned(),
            elsewhere,
            around: RefCell::default(),
        }
    }

    fn around(&self, directory: Bytes) -> Rc<Around> {
        let mut last = self.around.borrow_mut();
        if let Some(around) = last.as_ref().filter(|of| of.directory == directory) {
            return Rc::clone(around);
        }
        let concern = |mounts: &[Mount]| {
            let concern = mounts
                .iter()
                .filter(|mount| directory.lies_in(&mount.point) || mount.point.lies_in(&directory));
            MountTable(concern.cloned().collect())
        };
        let table = concern(&self.table.0);
        let before = self.line.map(|line| concern(&self.table.0[..line]));
        let then = before.as_ref().and_then(|table| table.covering(&directory));
        let is_same = match (table.covering(&directory), then) {
            (Some(now), Some(then)) => is_same(now, then),
            _ => true,
        };
        let has_mounts = table
            .0
            .iter()
            .any(|mount| mount.point != directory && mount.point.lies_in(&directory));
        let around = Rc::new(Around {
            is_as_it_was: is_same && !has_mounts,
            directory,
            table,
            before,
        });
        *last = Some(Rc::clone(&around));
        around
    }

    /// Opens a branch: a directory, or the file that is an image of one.
    ///
    /// # Errors
    /// It is not there, or cannot be reached for certain.
    pub fn open(&self, branch: &LayeredBranch) -> Result<Dir> {
        let path = &branch.spec.path;
        let opened = self.open_directory(path);
        if !matches!(&opened, Err(Error::Io { errno, .. }) if *errno == Errno::NOTDIR) {
            return opened;
        }
        let around = self.open_directory(&path.parent());
        let is_file = |dir: &Dir| {
            let stat = dir.stat(path.file_name());
            matches!(stat, Ok(Some(stat)) if stat.kind == Kind::File)
        };
        match around {
            Ok(dir) if is_file(&dir) => dir.open_image(path.file_name()),
            _ => opened,
        }
    }

    fn open_directory(&self, path: &Bytes) -> Result<Dir> {
        let host = self.host;
        if !host.is_live() {
            return host.open_dir(path);
        }
        if let Some(process) = &self.elsewhere
            && !self.is_same_here(path, process)
        {
            // No link is followed: there it would lead into our own namespace.
            let root = namespace::directory(process.id).join(b"root");
            return Dir::open_root(&root.to_path())?.descend(path);
        }
        let opened = host.open_real(path);
        let real = match &opened {
            Ok((_, real)) => real.clone(),
            Err(_) => host.resolve(path)?,
        };
        let around = self.around(real.parent());
        if around.is_as_it_was {
            return opened.map(|(dir, _)| dir);
        }
        let now = around.table.covering(&real);
        let then = around.before.as_ref();
        let then = then.and_then(|table| table.covering(&real));
        if let (Some(now), Some(then)) = (now, then)
            && !is_same(now, then)
        {
            return self.beneath(then, &real);
        }
        let (dir, _) = opened?;
        let is_in_it = |mount: &Mount| mount.point != real && mount.point.lies_in(&real);
        if !around.table.0.iter().any(is_in_it) {
            Ok(dir)
        } else {
            without_mounts(&dir, &real)
        }
    }

    /// What a mount has at a path that something was mounted over later.
    fn beneath(&self, mount: &Mount, path: &Bytes) -> Result<Dir> {
        let rest = path.strip_prefix(&mount.point).unwrap_or_default();
        let on_top = self.table.covering(&mount.point);
        if !on_top.is_some_and(|on_top| is_same(on_top, mount)) {
            return Err(covered(path));
        }
        let point = Dir::open_root(&mount.point.to_path())?;
        without_mounts(&point, path)?.descend(&rest)
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
        there.is_some() && there == place(self.table)
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
