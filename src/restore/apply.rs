//! A plan, carried out: through the mounted union where there is one, in its writable branch
//! where not.

use std::path::Path;

use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};
use rustix::io::Errno;

use super::Depth;
use super::attributes::{Into, Keep};
use super::copy::{Copied, How, copy};
use super::foresee::Hiding;
use super::links::Links;
use super::made::{self, Lacks, Made, sync_dir};
use super::mark::{self, Mark, branch_dir};
use super::out::{self, Way};
use super::plan::{CopyIn, CopyOut, Plan};
use super::revert::Revert;
use super::staging::Staging;
use super::view::{Site, View};
use crate::bytes::{Bytes, shell_quote};
use crate::dir::{Access, Dir, Kind};
use crate::error::{Error, Result, errno_words};
use crate::union::{Cut, Entry, Node, Reading, Stack};
use crate::whiteout::Source;

impl Plan<'_> {
    /// Does it, and tells what the copies lack.
    ///
    /// # Errors
    /// Whatever stands in the way; what was begun has been taken back then.
    pub fn apply(&self, stack: &Stack, site: &Site) -> Result<Lacks> {
        let done = self.carry_out(stack, site);
        done.map_err(|error| protected(&error, site).unwrap_or(error))
    }

    fn carry_out(&self, stack: &Stack, site: &Site) -> Result<Lacks> {
        let whole = |()| Lacks::default();
        match (self, &site.view) {
            (Plan::Unhide(cut), None) => Mark::new(stack, cut).remove().map(whole),
            (Plan::Unhide(cut), Some(view)) => {
                remove_mark_live(stack, cut, view, &site.command).map(whole)
            }
            (Plan::CopyIn(copy), None) => copy_into_branch(stack, copy, site),
            (Plan::CopyIn(copy), Some(view)) => {
                let dir = view.open(&copy.place.path())?;
                same_owners(&copy.place, &dir)?;
                no_hidden_access_list(&copy.place, &dir)?;
                Staging::clear(&dir);
                copy_beside(&copy.source, &copy.chain, &dir, &copy.chain[0], copy.depth)
            }
            (Plan::CopyOut(copy), _) => copy_out(copy, site),
            (Plan::Refresh(_), None) => Ok(Lacks::default()),
            (Plan::Refresh(path), Some(view)) => {
                let refreshed = view.refresh();
                refreshed.map_err(|errno| Error::io(view.mount.path.clone(), errno))?;
                show_in_listing(stack, view, path).map(whole)
            }
            (Plan::Revert(revert), _) => put_lower_back(stack, revert, site),
        }
    }
}

/// What "not permitted" means where not even root may change a file, or the directory that it is
/// in: somebody has protected it.
fn protected(error: &Error, site: &Site) -> Option<Error> {
    let Error::Io {
        path,
        errno: Errno::PERM,
    } = error
    else {
        return None;
    };
    let path = site.machine_path(path);
    [path.clone(), path.parent()].into_iter().find_map(|path| {
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        let found = statx(CWD, path.to_path(), flags, StatxFlags::empty()).ok()?;
        let (word, letter) = if found.stx_attributes.contains(StatxAttributes::IMMUTABLE) {
            ("immutable", 'i')
        } else if found.stx_attributes.contains(StatxAttributes::APPEND) {
            ("append-only", 'a')
        } else {
            return None;
        };
        Some(Error::Refused {
            what: format!("{path} is {word}, which not even root may change"),
            hint: format!(
                "`chattr -{letter} {}` first, if it may be changed",
                shell_quote(&path)
            ),
        })
    })
}

/// On a mounted union a removed mark is dangerous until the kernel has forgotten what it cached:
/// first it is found out whether that is permitted, and then both are done in one breath.
fn remove_mark_live(stack: &Stack, cut: &Cut, view: &View, command: &str) -> Result<()> {
    let mount = &view.mount.path;
    let fail = |errno| Error::io(stack.on_host(cut.branch, &cut.mark), errno);
    view.refresh().map_err(|errno| Error::Refused {
        what: format!(
            "{mount} may not be refreshed ({}); the mark was left alone, since a mounted union would go on \
             to answer \"not there\", and making the name anew could crash the kernel",
            errno_words(errno)
        ),
        hint: format!(
            "run `{command}` as root on the host, or bring the file back through the mount with --strategy copy"
        ),
    })?;
    let mark = Mark::new(stack, cut);
    let dir = mark.find()?;
    let removed = mark.remove_from(&dir);
    // Whatever the removal answered, nothing may come between.
    let refreshed = view.refresh();
    removed.map_err(fail)?;
    if let Err(errno) = refreshed {
        let put_back = mark.put_back(&dir);
        return Err(Error::Refused {
            what: format!("{mount} could not be refreshed ({})", errno_words(errno)),
            hint: match put_back {
                Ok(()) => "the mark was put back; try --strategy copy".into(),
                Err(_) => format!(
                    "the mark is gone: unmount the union, or run `mount -o remount {mount}`, before anything uses the name"
                ),
            },
        });
    }
    sync_dir(&dir).map_err(fail)?;
    show_in_listing(stack, view, &cut.of)
}

/// AUFS may go on to list a directory that is in use as it was, for seconds, though a lookup finds
/// what is back (docs/facts.md#aufs-5.3a). A name that is made in it, and removed, makes it look.
fn show_in_listing(stack: &Stack, view: &View, path: &Bytes) -> Result<()> {
    let dir = match view.open(&path.parent()) {
        Err(error) if error.is_not_found() => return Ok(()),
        dir => dir?,
    };
    if !stack.merger().can_look_again() || view.lists(path)? {
        return Ok(());
    }
    let staging = Staging::beside(&dir);
    let made = Made::file(&staging.dir, &staging.name);
    // Where nothing can be made the listing is right after a while: what is back is back.
    if let Ok(made) = made {
        staging.note(&made);
        staging.discard();
    }
    Ok(())
}

fn copy_into_branch(stack: &Stack, copying: &CopyIn<'_>, site: &Site) -> Result<Lacks> {
    let CopyIn {
        writable, place, ..
    } = copying;
    let take_back = || {
        for path in copying.missing.iter().rev() {
            // Only what is empty goes: anything else has become somebody's.
            if let Ok(dir) = branch_dir(stack, *writable, &path.parent()) {
                let _ = made::remove_directory(&dir, path.file_name());
            }
        }
    };
    let dir = make_directories(stack, *writable, place, site).inspect_err(|_| take_back())?;
    let staging = Staging::for_branch(stack, *writable, &dir, site.workdir.as_ref());
    let copied = copy_and_place(stack, copying, &staging, &dir).inspect_err(|_| {
        // The first error is the one to tell.
        staging.discard();
        take_back();
    })?;
    staging.confirm(&dir, &copying.chain[0], copied.directory.as_ref())?;
    sync_dir(&dir).map_err(|errno| {
        let path = place.path_of(&copying.chain[0]);
        Error::io(stack.on_host(*writable, &path), errno)
    })?;
    Ok(copied.lacks)
}

fn copy_and_place(
    stack: &Stack,
    copying: &CopyIn<'_>,
    staging: &Staging,
    dir: &Dir,
) -> Result<Copied> {
    let CopyIn {
        writable,
        chain,
        first,
        whiteout,
        ..
    } = copying;
    let name = &chain[0];
    let path = copying.place.path_of(name);
    let fail = |errno| Error::io(stack.on_host(*writable, &path), errno);
    let depth = copying.depth;
    let copied = copy(
        &copying.source,
        chain,
        staging,
        all(depth, Into::Branch),
        &mut Links::default(),
    );
    let copied = copied.map_err(|error| staging.told(error, dir, name))?;
    let (to, passing) = (&staging.dir, &staging.name);
    if copying.hiding != Hiding::Nothing {
        let top = to.child(passing, Access::Lookup).map_err(fail)?;
        let is_made = |dir: &Dir| staging.has_made(dir);
        if !is_made(&top) {
            return Err(fail(Errno::STALE));
        }
        match &copying.hiding {
            Hiding::Nothing => {}
            Hiding::Opaque => mark::make_opaque(stack, *writable, &top).map_err(fail)?,
            Hiding::Names(names) => {
                let hidden = mark::hide(stack, *writable, &top, &chain[1..], names, &is_made);
                hidden.map_err(fail)?;
            }
        }
    }
    sync_dir(&staging.dir).map_err(fail)?;
    match whiteout {
        None => staging.place(dir, name).map_err(fail)?,
        Some(cut) if cut.mark.file_name() == name => {
            // Nobody has put anything else there meanwhile.
            Mark::new(stack, cut).find()?;
            staging.replace_mark(dir, name, *first).map_err(fail)?;
        }
        Some(cut) => staging.beside_mark(stack, cut, dir, name, *first)?,
    }
    Ok(copied)
}

/// A copy that has all that belongs to what it is a copy of.
fn all(depth: Depth, into: Into) -> How {
    let keep = Keep::All;
    How { depth, into, keep }
}

/// The writable branch's directory at a place of the union, made with the metadata that the
/// union shows where the branch does not have it. That changes nothing in the view.
fn make_directories(stack: &Stack, branch: usize, place: &Node<'_>, site: &Site) -> Result<Dir> {
    let root = stack.branches[branch].dir.as_ref();
    let mut dir = root.map_err(Clone::clone)?.clone();
    let mut view = stack.whole(Reading::Nothing);
    for name in place.path().components() {
        let path = view.path_of(name);
        let fail = |errno| Error::io(stack.on_host(branch, &path), errno);
        let is_there = match dir.stat(name).map_err(fail)? {
            Some(stat) => stat.kind == Kind::Directory,
            None => false,
        };
        if !is_there {
            let grammar = stack.branches[branch].grammar;
            let whiteout = grammar.whiteout_name(&Source::Disk(&dir), name);
            if whiteout.map_err(fail)?.is_some() {
                return Err(Error::Refused {
                    what: format!(
                        "{path} is deleted in the writable branch and shown by a branch above it"
                    ),
                    hint: "copy the version out with --to DIR".into(),
                });
            }
            let staging = Staging::for_branch(stack, branch, &dir, site.workdir.as_ref());
            let chain = [name.to_vec()];
            let copied = copy(
                &view,
                &chain,
                &staging,
                all(Depth::OneEntry, Into::Branch),
                &mut Links::default(),
            )
            .and_then(|copied| staging.place(&dir, name).map_err(fail).map(|()| copied))
            .inspect_err(|_| staging.discard())
            .map_err(|error| staging.told(error, &dir, name))?;
            staging.confirm(&dir, name, copied.directory.as_ref())?;
            sync_dir(&dir).map_err(fail)?;
        }
        dir = dir.child(name, Access::Lookup).map_err(fail)?;
        view = match view.child(name)? {
            Entry::Dir(node) => node,
            _ => return Err(fail(Errno::NOTDIR)),
        };
    }
    Ok(dir)
}

/// A copy gets the owner that the union shows. Whether that is known is to be seen at the directory
/// that it is made in: a mount can show other owners than those on disk.
fn same_owners(place: &Node<'_>, dir: &Dir) -> Result<()> {
    let known = place.stat_self()?;
    let shown = dir.stat_self();
    let shown = shown.map_err(|errno| Error::io(dir.path(), errno))?;
    if (known.uid, known.gid) == (shown.uid, shown.gid) {
        return Ok(());
    }
    Err(Error::Refused {
        what: format!(
            "{} belongs to {}:{} as the union shows it, and to {}:{} as far as is known: the owner of a copy \
             could be wrong",
            dir.path(),
            shown.uid,
            shown.gid,
            known.uid,
            known.gid
        ),
        hint: "nothing was changed; stop the container (unmount the union) and run this again"
            .into(),
    })
}

/// A mount without the option `acl` shows no access lists and takes none; but what is made in a
/// directory inherits its default one all the same, and others may read it then.
fn no_hidden_access_list(place: &Node<'_>, dir: &Dir) -> Result<()> {
    const DEFAULT: &str = "system.posix_acl_default";
    const LIST_MAX: usize = 64 * 1024;
    let has_one = |dir: &Dir| {
        let open = dir.child(b".", Access::List);
        let list = open.and_then(|open| open.attribute_self(DEFAULT, LIST_MAX));
        list.map(|list| list.is_some())
            .map_err(|errno| Error::io(dir.path(), errno))
    };
    if has_one(dir)? {
        return Ok(());
    }
    for branch in place.branches() {
        if place.dir(branch).map(has_one).transpose()? == Some(true) {
            return Err(Error::Refused {
                what: format!(
                    "{} has a default access list in branch {branch} that the mount does not show (it has no \
                     option acl): others could read what is made there",
                    dir.path()
                ),
                hint: "nothing was changed; stop the container (unmount the union) and run this again, or copy it \
                       out with --to DIR"
                    .into(),
            });
        }
    }
    Ok(())
}

/// In a mounted union the kernel itself takes whiteouts away and makes directories opaque.
fn copy_beside(
    source: &Node<'_>,
    chain: &[Vec<u8>],
    to: &Dir,
    name: &[u8],
    depth: Depth,
) -> Result<Lacks> {
    let how = all(depth, Into::View);
    out::beside(source, chain, (to, name), how, &mut Links::default()).map(|copied| copied.lacks)
}

/// The directory outside of the union, as it was opened when it was looked at.
fn outside<'d>(site: &'d Site, path: &Path) -> Result<&'d Dir> {
    let outside = site.outside.as_ref();
    outside.ok_or_else(|| Error::io(path, Errno::NOENT))
}

fn copy_out(copy: &CopyOut<'_>, site: &Site) -> Result<Lacks> {
    let to = outside(site, &copy.to)?;
    let way = Way {
        how: all(copy.depth, Into::View),
        may_replace: false,
    };
    out::place(
        &copy.source,
        &copy.name,
        (to, &copy.name),
        way,
        &mut Links::default(),
    )
    .map(|copied| copied.lacks)
}

fn put_lower_back(stack: &Stack, revert: &Revert<'_>, site: &Site) -> Result<Lacks> {
    let name = &revert.name;
    let path = revert.place.path_of(name);
    let mut lacks = Lacks::default();
    if let Some(save) = &revert.save {
        let to = outside(site, save)?;
        let chain = std::slice::from_ref(name);
        lacks = copy_beside(&revert.place, chain, to, name, Depth::OneEntry)?;
    }
    match &site.view {
        None if revert.is_hidden => {
            lacks = lacks.and(replace_in_branch(stack, revert, &path, site)?);
        }
        None => remove_entry(stack, revert.writable, &path)?,
        Some(view) => {
            let dir = view.open(&path.parent())?;
            same_owners(&revert.place, &dir)?;
            no_hidden_access_list(&revert.place, &dir)?;
            lacks = lacks.and(replace_through(view, &path, &revert.below, name)?);
        }
    }
    Ok(lacks)
}

/// Puts the lower version in the place of the changed one, through the mount and in one rename.
fn replace_through(view: &View, path: &Bytes, below: &Node<'_>, name: &[u8]) -> Result<Lacks> {
    let dir = view.open(&path.parent())?;
    replace(&dir, &Staging::beside(&dir), Into::View, (below, name))
}

/// The same in the writable branch, where the lower version would not show by itself.
fn replace_in_branch(
    stack: &Stack,
    revert: &Revert<'_>,
    path: &Bytes,
    site: &Site,
) -> Result<Lacks> {
    let dir = branch_dir(stack, revert.writable, &path.parent())?;
    let staging = Staging::for_branch(stack, revert.writable, &dir, site.workdir.as_ref());
    replace(&dir, &staging, Into::Branch, (&revert.below, &revert.name))
}

fn replace(
    dir: &Dir,
    staging: &Staging,
    into: Into,
    (below, name): (&Node<'_>, &[u8]),
) -> Result<Lacks> {
    let fail = |errno| Error::io(dir.path().join(name), errno);
    let chain = [name.to_vec()];
    let copied = copy(
        below,
        &chain,
        staging,
        all(Depth::OneEntry, into),
        &mut Links::default(),
    )
    .and_then(|copied| staging.replace(dir, name).map_err(fail).map(|()| copied))
    .inspect_err(|_| staging.discard())
    .map_err(|error| staging.told(error, dir, name))?;
    staging.confirm(dir, name, copied.directory.as_ref())?;
    sync_dir(dir).map_err(fail)?;
    Ok(copied.lacks)
}

fn remove_entry(stack: &Stack, branch: usize, path: &Bytes) -> Result<()> {
    let fail = |errno| Error::io(stack.on_host(branch, path), errno);
    let dir = branch_dir(stack, branch, &path.parent())?;
    made::remove(&dir, path.file_name()).map_err(fail)?;
    sync_dir(&dir).map_err(fail)
}
