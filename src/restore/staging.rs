//! What is being made, until it has its place. Nothing is overwritten, and a kill between any two
//! system calls leaves the old state or the new one: a copy is made where the union does not show
//! it and then renamed - on AUFS under a name that it hides (`.wh..wh.layerctl-*`), on overlay in
//! the directory that the union works in, where there is one.
//!
//! Where a whiteout has to go in the same breath: on overlay it has the name itself, and the copy
//! is renamed over it, or if it is a directory exchanged with it. On AUFS a file is first renamed
//! *over the whiteout* - AUFS heeds only the name of a whiteout, not its content, so the file is
//! still deleted - and then renamed into its place. Only for what is no regular file there are
//! two steps, between which the name answers EIO.

use rustix::fs::{AtFlags, RenameFlags, renameat, renameat_with, unlinkat};
use rustix::io::Errno;

use super::copy::sync_dir;
use super::mark::{self, Mark};
use crate::dir::{Access, Dir, Kind};
use crate::error::{Error, Result};
use crate::union::{Cut, Stack};

/// The prefix of what is being made in a branch: hidden from the union like AUFS's own.
pub const STAGING: &[u8] = b".wh..wh.";
/// The prefix of what is being made where no name is hidden.
const STAGING_SEEN: &[u8] = b".";

/// What is being made, and where until it is done.
pub struct Staging {
    pub dir: Dir,
    pub name: Vec<u8>,
}

impl Staging {
    /// For a writable branch's directory. `workdir` is the one that the union works in.
    pub fn for_branch(stack: &Stack, writable: usize, dir: &Dir, workdir: Option<&Dir>) -> Staging {
        if stack.branches[writable].grammar.hides_entry(STAGING) {
            Staging {
                dir: dir.clone(),
                name: staging_name(STAGING),
            }
        } else {
            Staging::beside(workdir.unwrap_or(dir))
        }
    }

    /// In a directory where no name is hidden.
    pub fn beside(dir: &Dir) -> Staging {
        Staging {
            dir: dir.clone(),
            name: staging_name(STAGING_SEEN),
        }
    }

    /// Takes away what was made. What cannot be removed is named by `check`.
    pub fn discard(&self) {
        let _ = remove_tree(&self.dir, &self.name);
    }

    /// Moves it into its place, which nothing has.
    ///
    /// # Errors
    /// `EEXIST` if something has; what else the system call says.
    pub fn place(&self, dir: &Dir, name: &[u8]) -> Result<(), Errno> {
        rename_into(&self.dir, &self.name, dir, name)
    }

    /// Moves it over what is there.
    ///
    /// # Errors
    /// What the system call says.
    pub fn replace(&self, dir: &Dir, name: &[u8]) -> Result<(), Errno> {
        let (from, to) = (self.dir.fd()?, dir.fd()?);
        renameat(&*from, &self.name[..], &*to, name)
    }

    /// Moves it into the place of a whiteout that has the very name.
    ///
    /// # Errors
    /// What the system call says.
    pub fn replace_mark(&self, dir: &Dir, name: &[u8], kind: Kind) -> Result<(), Errno> {
        if kind != Kind::Directory {
            return self.replace(dir, name);
        }
        let (from, to) = (self.dir.fd()?, dir.fd()?);
        match renameat_with(&*from, &self.name[..], &*to, name, RenameFlags::EXCHANGE) {
            // A file system that cannot do both at once.
            Err(Errno::INVAL | Errno::NOSYS) => {
                unlinkat(&*to, name, AtFlags::empty())?;
                self.place(dir, name)
            }
            Ok(()) => {
                sync_dir(dir)?;
                unlinkat(&*from, &self.name[..], AtFlags::empty())
            }
            result => result,
        }
    }

    /// Moves it into its place, and takes away the whiteout that lies beside that.
    ///
    /// # Errors
    /// What the system calls say; the whiteout goes on to hide the name then.
    pub fn beside_mark(
        &self,
        stack: &Stack,
        cut: &Cut,
        dir: &Dir,
        name: &[u8],
        kind: Kind,
    ) -> Result<()> {
        let fail = |errno| Error::io(stack.on_host(cut.branch, &cut.of), errno);
        let mark = Mark::new(stack, cut);
        let mark_name = cut.mark.file_name();
        if mark.is_in_place_too(dir).map_err(fail)? {
            self.replace_mark(dir, name, kind).map_err(fail)?;
            return mark.remove_from(dir).map_err(fail);
        }
        if dir.stat(name).map_err(fail)?.is_some() {
            return Err(fail(Errno::EXIST));
        }
        if kind == Kind::File && mark.may_have_content() {
            self.replace(dir, mark_name).map_err(fail)?;
            let placed = sync_dir(dir).and_then(|()| rename_into(dir, mark_name, dir, name));
            return placed.map_err(|errno| {
                // The mark goes on to hide the name; it gets its empty content back.
                let _ = mark::make_file(stack, cut.branch, &self.dir, &self.name)
                    .and_then(|()| self.replace(dir, mark_name));
                fail(errno)
            });
        }
        // fuse-overlayfs heeds the mark as long as it is there.
        self.place(dir, name).map_err(fail)?;
        mark.remove_from(dir).map_err(|errno| {
            // Back to the old state: what was made goes with the staging name.
            let _ = rename_into(dir, name, &self.dir, &self.name);
            fail(errno)
        })
    }
}

/// A name for something that is being made: hidden from an AUFS union by its prefix, and told
/// from AUFS's own by the rest.
fn staging_name(prefix: &[u8]) -> Vec<u8> {
    let mut random = [0u8; 8];
    // Without randomness the process id tells runs apart well enough: nothing is overwritten.
    let _ = rustix::rand::getrandom(&mut random[..], rustix::rand::GetRandomFlags::NONBLOCK);
    let unique = u64::from_ne_bytes(random);
    [
        prefix,
        format!("layerctl-{}-{unique:016x}", std::process::id()).as_bytes(),
    ]
    .concat()
}

/// Moves a name into its place without overwriting anything.
///
/// # Errors
/// `EEXIST` if the place is taken.
fn rename_into(from: &Dir, name: &[u8], to: &Dir, to_name: &[u8]) -> Result<(), Errno> {
    let (from_fd, to_fd) = (from.fd()?, to.fd()?);
    match renameat_with(&*from_fd, name, &*to_fd, to_name, RenameFlags::NOREPLACE) {
        // Older kernels and some file systems cannot promise it: look first.
        Err(Errno::INVAL | Errno::NOSYS) => match to.stat(to_name)? {
            Some(_) => Err(Errno::EXIST),
            None => renameat(&*from_fd, name, &*to_fd, to_name),
        },
        result => result,
    }
}

/// Removes a tree that layerctl has made itself, and nothing else.
fn remove_tree(parent: &Dir, name: &[u8]) -> Result<(), Errno> {
    let Some(stat) = parent.stat(name)? else {
        return Ok(());
    };
    if stat.kind != Kind::Directory {
        return unlinkat(&*parent.fd()?, name, AtFlags::empty());
    }
    let dir = parent.child(name, Access::List)?;
    let mut directories = vec![(parent.clone(), name.to_vec())];
    let mut pending = vec![dir];
    while let Some(dir) = pending.pop() {
        for (name, kind) in dir.names()?.iter() {
            if kind == Kind::Directory {
                directories.push((dir.clone(), name.to_vec()));
                pending.push(dir.child(name, Access::List)?);
            } else {
                unlinkat(&*dir.fd()?, name, AtFlags::empty())?;
            }
        }
    }
    for (parent, name) in directories.iter().rev() {
        unlinkat(&*parent.fd()?, &name[..], AtFlags::REMOVEDIR)?;
    }
    Ok(())
}
