//! What must not be done, and who else is at it.

use std::ffi::OsStr;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::{Errno, fcntl_dupfd_cloexec};

use super::mount::open_outside;
use super::out;
use super::plan::Plan;
use super::view::{Site, workdir_of};
use super::{Apply, Changed, Consent, Goal, Query};
use crate::bytes::Bytes;
use crate::dir::{Access, Dir, see_way};
use crate::engine::mount_table::Superblock;
use crate::engine::reach::Reach;
use crate::engine::{LayeredBranch, Survey, Union, UnionKind};
use crate::error::{Error, Result};
use crate::union::Stack;

/// The writable branches of a union, locked against another restore until this is dropped.
///
/// What is locked is the branch's own directory. No process inside of a union can lock that: a
/// lock on the union's root is one of the union's own inode. Where the container's root is the
/// directory itself, the one that it lies in is locked.
pub struct Lock {
    #[expect(dead_code, reason = "it is held, not read")]
    held: Vec<OwnedFd>,
    /// Whether somebody else had to end first: what was looked at before may be otherwise by now.
    pub has_waited: bool,
}

/// After how long it is said that another one is waited for.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often it is looked whether the other one has ended.
const LOOK_EVERY: Duration = Duration::from_millis(20);

impl Lock {
    /// Two of us in one branch would each find what the other is making. The other one's end is
    /// waited for. Where a lock cannot be had there is nothing to wait for: whoever may not list
    /// a branch does not write to it.
    pub fn take(union: &Union, stack: &Stack) -> Lock {
        let writable = stack
            .branches
            .iter()
            .filter(|branch| branch.permission.is_writable());
        let name: &[u8] = match union.kind {
            UnionKind::Aufs | UnionKind::Overlay { .. } | UnionKind::FuseOverlay(_) => b".",
            UnionKind::Copy => b"..",
        };
        let mut dirs: Vec<((u64, u64), OwnedFd, &Bytes)> = writable
            .filter_map(|branch| {
                let dir = branch.dir.as_ref().ok()?.child(name, Access::List).ok()?;
                let identity = dir.stat_self().ok()?.identity();
                // Of our own: the budget closes others, and with them the lock.
                let fd = fcntl_dupfd_cloexec(&*dir.fd().ok()?, 0).ok()?;
                Some((identity, fd, &branch.path))
            })
            .collect();
        // In one order for everybody, so that no two wait for each other.
        dirs.sort_by_key(|(identity, ..)| *identity);
        dirs.dedup_by_key(|(identity, ..)| *identity);
        let mut has_waited = false;
        let locked = dirs.into_iter().filter_map(|(_, fd, path)| {
            has_waited |= lock(&fd, path).ok()?;
            Some(fd)
        });
        Lock {
            held: locked.collect(),
            has_waited,
        }
    }
}

/// Waits for a lock, and tells whether it had to. Whoever waits can be interrupted: nothing has been done
/// yet.
fn lock(fd: &OwnedFd, path: &Bytes) -> Result<bool, Errno> {
    let began = Instant::now();
    let (mut is_said, mut has_waited) = (false, false);
    loop {
        match flock(fd, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK | Errno::INTR) => has_waited = true,
            result => return result.map(|()| has_waited),
        }
        if !is_said && began.elapsed() >= PATIENCE {
            is_said = true;
            let words = format!("layerctl: waiting for another restore in {path} to end\n");
            let _ = std::io::stderr().write_all(words.as_bytes());
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// A directory outside of unions, as far as it is there.
pub struct Outside {
    dir: Dir,
    /// The names below it that are still to be made.
    missing: Vec<Vec<u8>>,
}

impl Outside {
    /// Opens a directory, or the deepest of those on the way to it that are there.
    ///
    /// # Errors
    /// One of them is no directory, or a symbolic link, or cannot be opened.
    pub fn find(path: &Path) -> Result<Outside> {
        let mut missing = Vec::new();
        let mut here = path;
        loop {
            match (open_outside(here), here.parent(), here.file_name()) {
                (Err(error), Some(parent), Some(name)) if error.is_absent() => {
                    missing.insert(0, name.as_encoded_bytes().to_vec());
                    here = parent;
                }
                (dir, ..) => return Ok(Outside { dir: dir?, missing }),
            }
        }
    }

    /// The directory, if all of it is there.
    ///
    /// # Errors
    /// It is not.
    pub fn existing(self, path: &Path) -> Result<Dir> {
        if self.missing.is_empty() {
            Ok(self.dir)
        } else {
            Err(Error::io(path, Errno::NOENT))
        }
    }

    /// Sees that it lies outside of a union: in no branch, in no directory below one, and on none of
    /// its own mounts.
    ///
    /// # Errors
    /// It does not.
    pub fn check(
        &self,
        survey: &Survey<'_>,
        union: &Union,
        stack: &Stack,
        to: &Path,
    ) -> Result<()> {
        let fail = |errno| Error::io(to, errno);
        let is_inside = |of: String| {
            Err(Error::Refused {
                what: format!("{} lies in {of}", to.display()),
                hint: "name a directory outside of the union".into(),
            })
        };
        let own = self.dir.stat_self().map_err(fail)?;
        if survey.host.is_live() && devices(survey, union).contains(&own.dev) {
            return is_inside("the union itself, as it is mounted".into());
        }
        let identity = |dir: &Dir| dir.stat_self().map(|stat| stat.identity());
        let branches: Vec<_> = stack
            .branches
            .iter()
            .filter_map(|branch| {
                let dir = branch.dir.as_ref().ok()?;
                Some((identity(dir).ok()?, &branch.path))
            })
            .collect();
        let mut here = self.dir.clone();
        loop {
            let known = identity(&here).map_err(fail)?;
            if let Some((_, branch)) = branches.iter().find(|(of, _)| *of == known) {
                return is_inside(format!("the union's own branch {branch}"));
            }
            let above = here.child(b"..", Access::Lookup).map_err(fail)?;
            if identity(&above).map_err(fail)? == known {
                return Ok(());
            }
            here = above;
        }
    }

    /// The directory itself, made where it is missing.
    ///
    /// # Errors
    /// What the system calls say.
    pub fn make(&self) -> Result<Dir> {
        out::directory(&self.dir, self.missing.iter().map(Vec::as_slice))
    }
}

/// Whether anything has a name outside of unions.
pub fn is_taken(path: &Bytes) -> bool {
    let path = Path::new(OsStr::from_bytes(path.as_bytes()));
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return true;
    };
    let dir = Outside::find(parent).and_then(|outside| outside.existing(parent));
    dir.is_ok_and(|dir| !matches!(dir.stat(name.as_bytes()), Ok(None)))
}

/// Opens the directory that something is copied or saved to. It must not lie in the union: in a
/// branch, in a directory below one, or on one of its own mounts. One to copy to is made, unless that
/// is only planned.
///
/// # Errors
/// It does; it is a symbolic link, or one to save to is not there.
pub fn destination(
    survey: &Survey<'_>,
    union: &Union,
    stack: &Stack,
    query: &Query<'_>,
) -> Result<Option<Dir>> {
    let (to, may_make) = match &query.goal {
        Goal::CopyOut(to) => (to, true),
        Goal::Revert(Changed::Save(to)) => (to, false),
        Goal::Undelete(_) | Goal::Revert(Changed::Discard) => return Ok(None),
    };
    let outside = Outside::find(to)?;
    outside.check(survey, union, stack, to)?;
    if outside.missing.is_empty() {
        return Ok(Some(outside.dir));
    }
    match query.apply {
        _ if !may_make => Err(Error::io(&**to, Errno::NOENT)),
        Apply::OnlyPlan => Ok(None),
        Apply::Now => {
            permit_copy(survey, to, query.may_write_copy)?;
            outside.make().map(Some)
        }
    }
}

/// Refuses to write into a copy of a host unasked.
///
/// # Errors
/// A path lies in the host that is looked at, which is not the running machine.
pub fn permit_copy(survey: &Survey<'_>, to: &Path, is_permitted: bool) -> Result<()> {
    if survey.host.is_live() || is_permitted || !lies_in(to, survey.host.root()) {
        return Ok(());
    }
    Err(copy_unasked(survey))
}

fn copy_unasked(survey: &Survey<'_>) -> Error {
    Error::Refused {
        what: format!(
            "{} is a copy of a host, which is not written to unasked",
            survey.host.root().display()
        ),
        hint: "add --write, or see the plan with --dry-run".into(),
    }
}

/// The numbers of the union's device, as files on it have them.
fn devices(survey: &Survey<'_>, union: &Union) -> Vec<u64> {
    let Some(superblock) = &union.superblock else {
        return Vec::new();
    };
    let of_superblock = match superblock {
        Superblock::Device(major, minor) => Some((*major, *minor)),
        Superblock::Aufs(_) | Superblock::Options(_) => None,
    };
    let mounts = survey.table.0.iter();
    let mounts = mounts.filter(|mount| mount.superblock().as_ref() == Some(superblock));
    let devices = mounts.filter_map(|mount| mount.device).chain(of_superblock);
    devices
        .map(|(major, minor)| rustix::fs::makedev(major, minor))
        .collect()
}

/// Refuses a plan that could not be carried out safely, be it only shown.
///
/// # Errors
/// With the reason.
pub fn plan(
    survey: &Survey<'_>,
    union: &Union,
    stack: &Stack,
    plan: &Plan<'_>,
    site: &Site,
    query: &Query<'_>,
) -> Result<()> {
    if union.renames_directories() {
        return Err(Error::Refused {
            what: format!(
                "{} is mounted with dirren: where its directories were renamed is not read, and the wrong one could \
                 be written to",
                union.label()
            ),
            hint: "copy the file from its branch by hand; `layerctl branches` lists them".into(),
        });
    }
    if !plan.writes_union() {
        return Ok(());
    }
    refuse_traps(survey, stack, site)?;
    if site.view.is_none() && survey.host.is_live() {
        if union.is_mounted() {
            return Err(Error::Refused {
                what: format!(
                    "{} is mounted, but not where this process could look",
                    union.label()
                ),
                hint: "run it as root on the host, or unmount the union first".into(),
            });
        }
        refuse_unsure(survey, union)?;
    }
    if survey.host.is_alias() && query.apply == Apply::Now {
        return Err(Error::Refused {
            what: format!(
                "{} is the running machine, and what is mounted there cannot be told from here",
                survey.host.root().display()
            ),
            hint: "run it without --root, in the machine's own namespaces".into(),
        });
    }
    Ok(())
}

/// Sees that no link of somebody's leads to what is written to, or to what is copied into it, which is not
/// that one's: a user may have any for a layer of a store of its own, and may read what lands there.
///
/// # Errors
/// One does.
fn refuse_traps(survey: &Survey<'_>, stack: &Stack, site: &Site) -> Result<()> {
    let root = survey.host.open_dir(&Bytes::from("/"))?;
    for branch in &stack.branches {
        match &branch.dir {
            // An image is a file: the way to the directory that it lies in is.
            Ok(dir) if dir.is_in_image() => {
                let around = branch.path.parent();
                see_way(&root, &around, &survey.host.open_dir(&around)?)?;
            }
            Ok(dir) => see_way(&root, &branch.path, dir)?,
            Err(_) => {}
        }
    }
    if let (Some(workdir), Some(upper)) = (&site.workdir, stack.branches.first()) {
        see_way(&root, &workdir_of(&upper.path), workdir)?;
    }
    Ok(())
}

/// Before a branch is written to that nothing seems to have mounted: there may be a mounted union
/// whose own branches are not known, as where they were given relative to a directory that nobody
/// remembers. Its root has the number of the directory that it writes to.
fn refuse_unsure(survey: &Survey<'_>, union: &Union) -> Result<()> {
    let host = survey.host;
    let writable = union
        .branches
        .iter()
        .find(|branch| branch.spec.permission.is_writable());
    let Some(upper) = writable.and_then(|branch| host.stat(&branch.spec.path).ok().flatten())
    else {
        return Ok(());
    };
    if union.kind == UnionKind::Aufs || union.kind == UnionKind::Copy {
        return Ok(());
    }
    let user = rustix::process::geteuid();
    let is_users = !user.is_root() && upper.uid == user.as_raw();
    for mounted in &survey.mounted {
        let is_overlay = matches!(mounted.kind, UnionKind::Overlay { .. });
        let mut own = mounted
            .branches
            .iter()
            .filter(|branch| branch.spec.permission.is_writable());
        let reach = Reach::new(survey.host, &survey.table, mounted);
        // What is closed to an ordinary user is another's: the user has this one open.
        let is_unknown = |branch: &LayeredBranch| match reach.open(branch) {
            Ok(_) => false,
            Err(error) => {
                let is_whole = branch.spec.path.as_bytes().starts_with(b"/");
                !(is_whole && error.is_denied() && is_users)
            }
        };
        if !is_overlay || !own.any(is_unknown) {
            continue;
        }
        let mut mounts = mounted.mounts.iter();
        let whole = mounts.find(|mount| mount.root == Bytes::from("/"));
        let root = whole.map(|mount| {
            let dir = Dir::open_root(&mount.reach())?;
            dir.stat_self()
                .map_err(|errno| Error::io(mount.path.clone(), errno))
        });
        let is_another = match root {
            Some(Ok(stat)) => stat.ino != upper.ino,
            // It has been unmounted, or the process that had it has ended.
            Some(Err(error)) => error.is_not_found(),
            None => false,
        };
        if !is_another {
            return Err(Error::Refused {
                what: format!(
                    "{} is mounted, and which directory it writes to cannot be told: it may be this one",
                    mounted.label()
                ),
                hint: "unmount it, or restore through its mount point".into(),
            });
        }
    }
    Ok(())
}

/// Refuses to carry out what was not asked for, or on what is another union by now.
///
/// # Errors
/// A copy of a host would be written to, or more would come back than was named.
pub fn consent(
    survey: &Survey<'_>,
    path: &Bytes,
    plan: &Plan<'_>,
    reappears: &[Bytes],
    site: &Site,
    query: &Query<'_>,
) -> Result<()> {
    let host = survey.host;
    if let Some(view) = site.view.as_ref().filter(|_| plan.writes_union()) {
        view.prove()?;
    }
    let is_written = plan.writes_union() || is_into(plan, host.root());
    if is_written && !host.is_live() && !query.may_write_copy {
        return Err(copy_unasked(survey));
    }
    if reappears.is_empty() || query.consent == Consent::Given {
        return Ok(());
    }
    let (path, reappears) = (path.clone(), reappears.to_vec());
    Err(match plan {
        Plan::Unhide(_) => Error::MoreReappears { path, reappears },
        _ => Error::MoreReappearsLater { path, reappears },
    })
}

/// Whether something is copied out into the host that is looked at.
fn is_into(plan: &Plan<'_>, root: &Path) -> bool {
    matches!(plan, Plan::CopyOut(copy) if lies_in(&copy.to, root))
}

/// Whether a path that need not be there lies below a directory, links resolved.
fn lies_in(path: &Path, root: &Path) -> bool {
    let real = |path: &Path| std::fs::canonicalize(path).ok();
    let there = path.ancestors().find_map(real);
    match (there, real(root)) {
        (Some(path), Some(root)) => path.starts_with(root),
        _ => false,
    }
}
