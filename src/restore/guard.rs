//! What must not be done, and who else is at it.

use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use super::plan::Plan;
use super::view::Site;
use super::{Apply, Changed, Consent, Goal, Query};
use crate::bytes::Bytes;
use crate::dir::{Access, Dir};
use crate::engine::reach::Reach;
use crate::engine::{Survey, Union, UnionKind};
use crate::error::{Error, Result, errno_of};
use crate::union::Stack;

/// The writable branches of a union, locked against another restore until this is dropped.
pub struct Lock(#[expect(dead_code, reason = "it is held, not read")] Vec<Dir>);

impl Lock {
    /// Two of us in one branch would each find what the other is making. The other one's end is
    /// waited for. Where a lock cannot be had there is nothing to wait for: whoever may not list
    /// a branch does not write to it.
    pub fn take(stack: &Stack) -> Lock {
        let writable = stack
            .branches
            .iter()
            .filter(|branch| branch.permission.is_writable());
        let mut dirs: Vec<((u64, u64), Dir)> = writable
            .filter_map(|branch| {
                let dir = branch.dir.as_ref().ok()?.child(b".", Access::List).ok()?;
                Some((dir.stat_self().ok()?.identity(), dir))
            })
            .collect();
        // In one order for everybody, so that no two wait for each other.
        dirs.sort_by_key(|(identity, _)| *identity);
        dirs.dedup_by_key(|(identity, _)| *identity);
        let locked = dirs.into_iter().filter_map(|(_, dir)| {
            flock(&*dir.fd().ok()?, FlockOperation::LockExclusive).ok()?;
            Some(dir)
        });
        Lock(locked.collect())
    }
}

/// What is copied or saved outside must not land in the union: in a branch, or in a directory
/// below one.
///
/// # Errors
/// It would; the directory is not there.
pub fn destination(stack: &Stack, goal: &Goal) -> Result<()> {
    match goal {
        Goal::CopyOut(to) | Goal::Revert(Changed::Save(to)) => refuse_inside(stack, to),
        Goal::Undelete(_) | Goal::Revert(Changed::Discard) => Ok(()),
    }
}

fn refuse_inside(stack: &Stack, to: &Path) -> Result<()> {
    let identity = |dir: &Dir| dir.stat_self().ok().map(|stat| stat.identity());
    let branches: Vec<_> = stack
        .branches
        .iter()
        .filter_map(|branch| identity(branch.dir.as_ref().ok()?))
        .collect();
    let real = std::fs::canonicalize(to).map_err(|error| Error::io(to, errno_of(&error)))?;
    for ancestor in real.ancestors() {
        let is_branch =
            identity(&Dir::open_root(ancestor)?).is_some_and(|of| branches.contains(&of));
        if is_branch {
            return Err(Error::Refused {
                what: format!(
                    "{} lies in the union's own branch {}",
                    to.display(),
                    ancestor.display()
                ),
                hint: "name a directory outside of the union".into(),
            });
        }
    }
    Ok(())
}

/// Refuses a plan that could not be carried out safely, be it only shown.
///
/// # Errors
/// With the reason.
pub fn plan(
    survey: &Survey<'_>,
    union: &Union,
    plan: &Plan<'_>,
    site: &Site,
    query: &Query<'_>,
) -> Result<()> {
    if !plan.writes_union() {
        return Ok(());
    }
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
    for mounted in &survey.mounted {
        let is_overlay = matches!(mounted.kind, UnionKind::Overlay { .. });
        let mut own = mounted
            .branches
            .iter()
            .filter(|branch| branch.spec.permission.is_writable());
        let reach = Reach::new(survey, mounted);
        if !is_overlay || !own.any(|branch| reach.open(branch).is_err()) {
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

/// Refuses to carry out what was not asked for.
///
/// # Errors
/// A copy of a host would be written to, or more would come back than was named.
pub fn consent(
    survey: &Survey<'_>,
    path: &Bytes,
    plan: &Plan<'_>,
    reappears: &[Bytes],
    query: &Query<'_>,
) -> Result<()> {
    let host = survey.host;
    let is_written = plan.writes_union() || is_into(plan, host.root());
    if is_written && !host.is_live() && !query.may_write_copy {
        return Err(Error::Refused {
            what: format!(
                "{} is a copy of a host, which is not written to unasked",
                host.root().display()
            ),
            hint: "add --write, or see the plan with --dry-run".into(),
        });
    }
    let is_unhiding = matches!(plan, Plan::Unhide(_));
    if is_unhiding && !reappears.is_empty() && query.consent == Consent::NotGiven {
        return Err(Error::MoreReappears {
            path: path.clone(),
            reappears: reappears.to_vec(),
        });
    }
    Ok(())
}

/// Whether something is copied out into the host that is looked at.
fn is_into(plan: &Plan<'_>, root: &Path) -> bool {
    let real = |path: &Path| std::fs::canonicalize(path).ok();
    match (plan, real(root)) {
        (Plan::CopyOut(copy), Some(root)) => real(&copy.to).is_some_and(|to| to.starts_with(root)),
        _ => false,
    }
}
