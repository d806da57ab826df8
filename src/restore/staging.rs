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

use std::cell::{OnceCell, RefCell};
use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::OnceLock;

use rustix::io::Errno;
use rustix::process::Pid;

use super::attributes::times;
use super::made::{self, Identity, Made, sync_dir};
use super::mark::{self, Mark};
use crate::dir::{Dir, Kind, Stat};
use crate::engine::oci;
use crate::error::{Error, Result};
use crate::interrupt;
use crate::union::{Cut, Stack};

/// The prefix of what is being made in a branch: hidden from the union like AUFS's own.
pub const STAGING: &[u8] = b".wh..wh.";
/// The prefix of what is being made where no name is hidden.
const STAGING_SEEN: &[u8] = b".";

/// What is being made, and where until it is done.
pub struct Staging {
    pub dir: Dir,
    pub name: Vec<u8>,
    /// What was made under that name, and what keeps its number from being given again.
    made: OnceCell<(Identity, Option<OwnedFd>)>,
    /// The directories that were made in it.
    directories: RefCell<HashSet<Identity>>,
}

impl Staging {
    /// For a writable branch's directory. `workdir` is the one that the union works in.
    pub fn for_branch(stack: &Stack, writable: usize, dir: &Dir, workdir: Option<&Dir>) -> Staging {
        if stack.branches[writable].grammar.hides_entry(STAGING) {
            Staging::new(dir, STAGING)
        } else {
            Staging::beside(workdir.unwrap_or(dir))
        }
    }

    /// In a directory where no name is hidden.
    pub fn beside(dir: &Dir) -> Staging {
        Staging::new(dir, STAGING_SEEN)
    }

    /// Takes away what runs that were killed have left in a directory of a mounted union, which
    /// shows it. What is not certainly ours stays.
    pub fn clear(dir: &Dir) {
        let Ok(names) = dir.names() else { return };
        for (name, _) in names.iter() {
            let is_left = maker_of(name)
                .is_some_and(|maker| rustix::process::test_kill_process(maker) == Err(Errno::SRCH));
            if is_left {
                let _ = made::remove_left(dir, name);
            }
        }
    }

    fn new(dir: &Dir, prefix: &[u8]) -> Staging {
        interrupt::outlive_limits();
        Staging {
            dir: dir.clone(),
            name: staging_name(prefix),
            made: OnceCell::new(),
            directories: RefCell::default(),
        }
    }

    /// The first that is made has the passing name; what else is made lies in it.
    pub fn note(&self, made: &Made) {
        self.made.get_or_init(|| (made.identity(), made.hold()));
        if made.as_dir().is_some() {
            self.directories.borrow_mut().insert(made.identity());
        }
    }

    /// What was made under the passing name; none if nothing was.
    pub fn made(&self) -> Option<Identity> {
        self.made.get().map(|(made, _)| *made)
    }

    /// Whether a directory is one of those that were made.
    pub fn has_made(&self, dir: &Dir) -> bool {
        let identity = dir.stat_self().map(|stat| stat.identity());
        identity.is_ok_and(|of| self.directories.borrow().contains(&of))
    }

    /// Takes away what was made, and nothing that has its name now. What cannot be removed is
    /// named by `check`.
    pub fn discard(&self) {
        if let Some(made) = self.made() {
            let is_made = |dir: &Dir| self.has_made(dir);
            let _ = made::remove_tree(&self.dir, &self.name, made, &is_made);
        }
    }

    /// An error by the name that was wanted: nobody finds anything under the passing one.
    pub fn told(&self, error: Error, dir: &Dir, name: &[u8]) -> Error {
        let Error::Io { path, errno } = error else {
            return error;
        };
        let passing = self.dir.path().join(&self.name);
        let rest = path.strip_prefix(&passing);
        let wanted = rest.map(|rest| dir.path().join(name).join_path(&rest));
        Error::io(wanted.unwrap_or(path), errno)
    }

    /// Sees that what was made has its name, and that a directory has its times: the kernel may
    /// have made a mark in it.
    ///
    /// # Errors
    /// Something else has the name.
    pub fn confirm(&self, dir: &Dir, name: &[u8], directory: Option<&Stat>) -> Result<()> {
        let Some(known) = self.made() else {
            return Ok(());
        };
        let made = made::find(dir, name, known)?;
        if let Some(stat) = directory {
            let dated = made.date(&times(stat));
            dated.map_err(|errno| Error::io(dir.path().join(name), errno))?;
        }
        Ok(())
    }

    /// Moves it into its place, which nothing has.
    ///
    /// # Errors
    /// `EEXIST` if something has; what else the system call says.
    pub fn place(&self, dir: &Dir, name: &[u8]) -> Result<(), Errno> {
        made::rename(&self.dir, &self.name, dir, name)
    }

    /// Moves it over what is there.
    ///
    /// # Errors
    /// What the system call says.
    pub fn replace(&self, dir: &Dir, name: &[u8]) -> Result<(), Errno> {
        made::rename_over(&self.dir, &self.name, dir, name)
    }

    /// Moves it into the place of a whiteout that has the very name.
    ///
    /// # Errors
    /// What the system call says.
    pub fn replace_mark(&self, dir: &Dir, name: &[u8], kind: Kind) -> Result<(), Errno> {
        if kind != Kind::Directory {
            return self.replace(dir, name);
        }
        match made::exchange(&self.dir, &self.name, dir, name) {
            // A file system that cannot do both at once.
            Err(Errno::INVAL | Errno::NOSYS) => {
                made::remove(dir, name)?;
                self.place(dir, name)
            }
            Ok(()) => {
                sync_dir(dir)?;
                made::remove(&self.dir, &self.name)
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
            let placed = sync_dir(dir).and_then(|()| made::rename(dir, mark_name, dir, name));
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
            let _ = made::rename(dir, name, &self.dir, &self.name);
            fail(errno)
        })
    }
}

/// A name for something that is being made: hidden from an AUFS union by its prefix, and told
/// from AUFS's own by the rest.
fn staging_name(prefix: &[u8]) -> Vec<u8> {
    let mut random = [0u8; 4];
    // Without randomness the process id tells runs apart well enough: nothing is overwritten.
    let _ = rustix::rand::getrandom(&mut random[..], rustix::rand::GetRandomFlags::NONBLOCK);
    let (process, unique) = (std::process::id(), u32::from_ne_bytes(random));
    [
        prefix,
        format!("layerctl-{process}-{}{unique:08x}", where_numbers_count()).as_bytes(),
    ]
    .concat()
}

/// Where a process's number means that process: this machine and this PID namespace, in eight digits. In a
/// directory that several share, a number of another one tells nothing.
fn where_numbers_count() -> &'static str {
    static WHERE: OnceLock<String> = OnceLock::new();
    WHERE.get_or_init(|| {
        let mut machine = Vec::new();
        let etc = Dir::open_root(Path::new("/etc")).ok();
        if let Some(id) = etc.and_then(|etc| etc.open_file(b"machine-id").ok()) {
            // A machine without one is told by the namespace alone.
            let _ = File::from(id).read_to_end(&mut machine);
        }
        let namespace = rustix::fs::readlink("/proc/self/ns/pid", Vec::new());
        let namespace = namespace.map(|of| of.into_bytes()).unwrap_or_default();
        let mut digits = oci::digest_of(&[machine, namespace].concat());
        digits.truncate(8);
        digits
    })
}

/// The process that has made what is seen under a passing name.
fn maker_of(name: &[u8]) -> Option<Pid> {
    let name = std::str::from_utf8(name).ok()?;
    let (process, unique) = name.strip_prefix(".layerctl-")?.split_once('-')?;
    let is_ours = unique.len() == 16
        && unique.bytes().all(|byte| byte.is_ascii_hexdigit())
        && unique.starts_with(where_numbers_count());
    Pid::from_raw(process.parse().ok().filter(|_| is_ours)?)
}
