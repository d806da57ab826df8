//! What `restore` does, as data: a plan that can be printed or applied, step for step the same.
//!
//! Nothing is overwritten, and a kill between any two system calls leaves the old state or the
//! new one. A copy is made where the union does not show it and then renamed: on AUFS under a
//! name that it hides (`.wh..wh.layerctl-*`), on overlay in the directory that the union works
//! in, where there is one.
//!
//! Where a whiteout has to go in the same breath: on overlay it has the name itself, and the copy
//! is renamed over it, or if it is a directory exchanged with it. On AUFS a file is first renamed
//! *over the whiteout* - AUFS heeds only the name of a whiteout, not its content, so the file is
//! still deleted - and then renamed into its place. Only for what is no regular file there are
//! two steps, between which the name answers EIO.

use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, RenameFlags, renameat, renameat_with, unlinkat};
use rustix::io::Errno;
use serde::Serialize;

use crate::bytes::{Bytes, shell_quote};
use crate::dir::{Access, Dir, Kind, Stat};
use crate::engine::{MountPoint, kernel};
use crate::error::{Error, Result, errno_words};
use crate::restore::copy::{self, Depth, Into, copy, rename_into, staging_name, sync_dir};
use crate::restore::mark::{self, Mark, branch_dir};
use crate::union::{Cut, Node, Stack};
use crate::whiteout::{Grammar, MarkKind};

/// The prefix of what is being made in a branch: hidden from the union like AUFS's own.
pub const STAGING: &[u8] = b".wh..wh.";
/// The prefix of what is being made where no name is hidden.
const STAGING_SEEN: &[u8] = b".";

/// One thing that is done.
#[derive(Debug, Clone, Serialize, schemars::JsonSchema)]
pub struct Step {
    pub action: Action,
    /// Where, as a path of the machine.
    pub path: Bytes,
    /// The same in words.
    pub words: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Ask the kernel whether it will forget what it has cached.
    CheckRefresh,
    RemoveMark,
    Refresh,
    MakeDirectory,
    Copy,
    MakeOpaque,
    Move,
    Remove,
    Replace,
    Look,
}

/// Where a union can be seen while it is mounted.
#[derive(Debug, Clone)]
pub struct View {
    pub mount: MountPoint,
    /// Where other unions are mounted that share the branch.
    pub also: Vec<MountPoint>,
}

impl View {
    /// Refreshes each mount, whatever becomes of another.
    fn refresh(&self) -> Result<(), Errno> {
        let all = std::iter::once(&self.mount).chain(&self.also);
        all.map(kernel::refresh).fold(Ok(()), Result::and)
    }

    /// The union's path as seen below the mount point.
    fn inside(&self, path: &Bytes) -> Result<Bytes> {
        path.strip_prefix(&self.mount.root)
            .ok_or_else(|| Error::Refused {
                what: format!(
                    "{path} lies outside of what is mounted at {}",
                    self.mount.path
                ),
                hint: "mount the whole union somewhere, and try again".into(),
            })
    }

    /// A directory of the union, through the mount.
    fn open(&self, path: &Bytes) -> Result<Dir> {
        let root = Dir::open_root(&self.mount.reach())?;
        root.descend(&self.inside(path)?)
    }

    /// The path on the machine by which a person reaches something in the union.
    pub fn path(&self, path: &Bytes) -> Result<Bytes> {
        let inside = self.inside(path)?;
        let mount = Bytes::from(self.mount.reach().as_path());
        Ok(mount.join_path(&inside))
    }

    /// What the mounted union answers for a path.
    pub fn look(&self, path: &Bytes) -> Result<Option<Stat>> {
        match self.open(&path.parent()) {
            Ok(dir) => dir
                .stat(path.file_name())
                .map_err(|errno| Error::io(path.clone(), errno)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Where the branch's directories lie on the machine: below `--root`.
#[derive(Debug, Clone)]
pub struct Ground {
    pub root: PathBuf,
    /// The mounted view, where there is one.
    pub view: Option<View>,
    /// The directory in which an overlay makes what it does not show yet, on the writable
    /// branch's own file system; none where there is no such directory.
    pub workshop: Option<Dir>,
    /// The command line that asks for this, as a shell takes it.
    pub command: String,
}

impl Ground {
    fn machine_path(&self, on_host: &Bytes) -> Bytes {
        if self.root == Path::new("/") {
            on_host.clone()
        } else {
            Bytes::from(self.root.as_path()).join_path(on_host)
        }
    }
}

/// What is to be done.
pub enum Plan<'s> {
    /// Remove one mark from a writable branch.
    Unhide { cut: Cut },
    /// Copy a hidden version into the writable branch.
    Copy {
        writable: usize,
        /// The deepest directory on the way that the union shows.
        place: Node<'s>,
        /// The names from there to what is restored.
        chain: Vec<Vec<u8>>,
        /// The same place in the view that still has the version.
        source: Node<'s>,
        /// The branch that provides the version there.
        from: usize,
        /// What the first name of the chain is there.
        first: Kind,
        /// The writable branch's whiteout of the first name.
        whiteout: Option<Cut>,
        /// The directories on the way that the writable branch does not have, topmost first.
        missing: Vec<Bytes>,
        depth: Depth,
    },
    /// Copy a hidden version out of the union.
    CopyOut {
        source: Node<'s>,
        /// The branch that provides the version.
        from: usize,
        name: Vec<u8>,
        to: PathBuf,
        depth: Depth,
    },
    /// The branches show it, the mount does not: make the kernel look again.
    Refresh,
    /// Take the writable branch's version away, so that the one below shows.
    Revert {
        writable: usize,
        /// The directory in the whole view.
        place: Node<'s>,
        name: Vec<u8>,
        /// The same directory in the view without the writable branch.
        below: Node<'s>,
        save: Option<PathBuf>,
    },
}

impl Plan<'_> {
    /// What will be done, in order.
    pub fn steps(&self, stack: &Stack, ground: &Ground) -> Result<Vec<Step>> {
        let step = |action, path: Bytes, words: String| Step {
            action,
            path,
            words,
        };
        let in_branch =
            |branch: usize, path: &Bytes| ground.machine_path(&stack.on_host(branch, path));
        let mut steps = Vec::new();
        match self {
            Plan::Unhide { cut } => {
                let at = in_branch(cut.branch, &cut.mark);
                let words = if cut.mark == cut.of && cut.kind == MarkKind::Opaque {
                    format!("make {at} no longer opaque")
                } else {
                    format!("remove the mark {at}")
                };
                if let Some(view) = &ground.view {
                    let mount = view.mount.path.clone();
                    steps.push(step(
                        Action::CheckRefresh,
                        mount.clone(),
                        format!("check that {mount} may be refreshed"),
                    ));
                    steps.push(step(Action::RemoveMark, at, words));
                    steps.push(step(
                        Action::Refresh,
                        mount.clone(),
                        format!("refresh {mount}, no option changed"),
                    ));
                } else {
                    steps.push(step(Action::RemoveMark, at, words));
                }
            }
            Plan::Copy {
                writable,
                place,
                chain,
                source,
                from,
                whiteout,
                first,
                missing,
                ..
            } => {
                let what = chain
                    .iter()
                    .fold(place.path(), |path, name| path.join(name));
                let first_path = place.path_of(&chain[0]);
                let from = chain[1..]
                    .iter()
                    .fold(source.on_host(*from, &chain[0]), |path, name| {
                        path.join(name)
                    });
                let from = ground.machine_path(&from);
                match &ground.view {
                    Some(view) => {
                        let to = view.path(&what)?;
                        steps.push(step(
                            Action::Copy,
                            to.clone(),
                            format!("copy {from} to {to}, through the mount"),
                        ));
                    }
                    None => {
                        for made in missing {
                            let to = in_branch(*writable, made);
                            steps.push(step(
                                Action::MakeDirectory,
                                to.clone(),
                                format!("make the directory {to}, as the union shows it"),
                            ));
                        }
                        let to = in_branch(*writable, &what);
                        steps.push(step(
                            Action::Copy,
                            to.clone(),
                            format!("copy {from} to {to}"),
                        ));
                        if whiteout.is_some() && *first == Kind::Directory {
                            let grammar = stack.branches[*writable].grammar;
                            let mark = match grammar.opaque_name() {
                                b"" => first_path.clone(),
                                name => first_path.join(name),
                            };
                            let to = in_branch(*writable, &mark);
                            steps.push(step(
                                Action::MakeOpaque,
                                to,
                                format!("make {first_path} opaque, so that nothing else reappears"),
                            ));
                        }
                        if let Some(whiteout) = whiteout {
                            let mark = in_branch(*writable, &whiteout.mark);
                            steps.push(step(
                                Action::RemoveMark,
                                mark.clone(),
                                format!("remove the mark {mark}"),
                            ));
                        }
                    }
                }
            }
            Plan::CopyOut {
                source,
                from,
                name,
                to,
                ..
            } => {
                let from = ground.machine_path(&source.on_host(*from, name));
                let to = Bytes::from(to.as_path()).join(name);
                steps.push(step(
                    Action::Copy,
                    to.clone(),
                    format!("copy {from} to {to}"),
                ));
            }
            Plan::Refresh => {
                if let Some(view) = &ground.view {
                    let mount = view.mount.path.clone();
                    steps.push(step(
                        Action::Refresh,
                        mount.clone(),
                        format!("refresh {mount}, no option changed"),
                    ));
                }
            }
            Plan::Revert {
                writable,
                place,
                name,
                save,
                ..
            } => {
                let path = place.path_of(name);
                let changed = in_branch(*writable, &path);
                if let Some(save) = save {
                    let to = Bytes::from(save.as_path()).join(name);
                    steps.push(step(
                        Action::Move,
                        to.clone(),
                        format!("save the changed file as {to}"),
                    ));
                }
                match &ground.view {
                    Some(view) => {
                        let at = view.path(&path)?;
                        steps.push(step(
                            Action::Replace,
                            at.clone(),
                            format!("replace {at} by the lower version, through the mount"),
                        ));
                    }
                    None => steps.push(step(
                        Action::Remove,
                        changed.clone(),
                        format!("remove {changed}"),
                    )),
                }
            }
        }
        if !matches!(self, Plan::CopyOut { .. }) {
            steps.push(step(
                Action::Look,
                Bytes::from("/"),
                "look at the union again".into(),
            ));
        }
        Ok(steps)
    }

    /// The commands that take it back, for a shell.
    pub fn undo(&self, stack: &Stack, ground: &Ground) -> Result<Vec<String>> {
        let in_branch = |branch: usize, path: &Bytes| {
            shell_quote(&ground.machine_path(&stack.on_host(branch, path)))
        };
        let put_back = |cut: &Cut| {
            let at = ground.machine_path(&stack.on_host(cut.branch, &cut.mark));
            Mark::new(stack, cut).undo(&at)
        };
        Ok(match self {
            // While it is mounted, only the union itself may make the whiteout.
            Plan::Unhide { cut } => match (&ground.view, cut.kind) {
                (Some(view), MarkKind::Whiteout) => {
                    vec![format!("rm -r -- {}", shell_quote(&view.path(&cut.of)?))]
                }
                // An opaque mark can only be put back behind the mount, which then has to look again.
                (Some(view), MarkKind::Opaque) => {
                    let mut commands = put_back(cut)?;
                    commands.push(format!(
                        "mount -o remount {}",
                        shell_quote(&view.mount.path)
                    ));
                    commands
                }
                (None, _) => put_back(cut)?,
            },
            Plan::Copy {
                writable,
                place,
                chain,
                whiteout,
                missing,
                ..
            } => {
                let first = place.path_of(&chain[0]);
                match &ground.view {
                    Some(view) => vec![format!("rm -r -- {}", shell_quote(&view.path(&first)?))],
                    None => {
                        let mut commands =
                            vec![format!("rm -r -- {}", in_branch(*writable, &first))];
                        if let Some(whiteout) = whiteout {
                            commands.extend(put_back(whiteout)?);
                        }
                        if !missing.is_empty() {
                            let dirs = missing.iter().rev();
                            let dirs: Vec<String> =
                                dirs.map(|dir| in_branch(*writable, dir)).collect();
                            commands.push(format!("rmdir -- {}", dirs.join(" ")));
                        }
                        commands
                    }
                }
            }
            Plan::CopyOut { name, to, .. } => {
                vec![format!(
                    "rm -r -- {}",
                    shell_quote(&Bytes::from(to.as_path()).join(name))
                )]
            }
            Plan::Refresh | Plan::Revert { save: None, .. } => Vec::new(),
            Plan::Revert {
                writable,
                place,
                name,
                save: Some(save),
                ..
            } => {
                let path = place.path_of(name);
                let saved = shell_quote(&Bytes::from(save.as_path()).join(name));
                let to = match &ground.view {
                    Some(view) => shell_quote(&view.path(&path)?),
                    None => in_branch(*writable, &path),
                };
                vec![format!("cp -a --remove-destination -- {saved} {to}")]
            }
        })
    }

    /// Does it.
    ///
    /// # Errors
    /// Whatever stands in the way; what was begun has been taken back then.
    pub fn apply(&self, stack: &Stack, ground: &Ground) -> Result<()> {
        match self {
            Plan::Unhide { cut } => match &ground.view {
                None => Mark::new(stack, cut).remove(),
                Some(view) => remove_mark_live(stack, cut, view, &ground.command),
            },
            Plan::Copy {
                place,
                chain,
                source,
                depth,
                ..
            } => match &ground.view {
                Some(view) => copy_through(view, place, chain, source, *depth),
                None => self.copy_into_branch(stack, ground),
            },
            Plan::Refresh => match &ground.view {
                None => Ok(()),
                Some(view) => view
                    .refresh()
                    .map_err(|errno| Error::io(view.mount.path.clone(), errno)),
            },
            Plan::CopyOut {
                source,
                name,
                to,
                depth,
                ..
            } => {
                let to = Dir::open_root(to)?;
                copy_beside(source, std::slice::from_ref(name), &to, name, *depth)
            }
            Plan::Revert {
                writable,
                place,
                name,
                below,
                save,
            } => {
                let path = place.path_of(name);
                if let Some(save) = save {
                    let to = Dir::open_root(save)?;
                    copy_beside(
                        place,
                        std::slice::from_ref(name),
                        &to,
                        name,
                        Depth::OneEntry,
                    )?;
                }
                match &ground.view {
                    None => remove_entry(stack, *writable, &path),
                    Some(view) => replace_through(view, &path, below, name),
                }
            }
        }
    }

    fn copy_into_branch(&self, stack: &Stack, ground: &Ground) -> Result<()> {
        let Plan::Copy {
            writable,
            place,
            chain,
            source,
            first,
            whiteout,
            missing,
            depth,
            ..
        } = self
        else {
            return Ok(());
        };
        let take_back = || {
            for path in missing.iter().rev() {
                // Only what is empty goes: anything else has become somebody's.
                if let Ok(dir) = branch_dir(stack, *writable, &path.parent())
                    && let Ok(fd) = dir.fd()
                {
                    let _ = unlinkat(&*fd, path.file_name(), AtFlags::REMOVEDIR);
                }
            }
        };
        let dir = make_place(stack, *writable, place, ground).inspect_err(|_| take_back())?;
        let name = &chain[0];
        let staging = Staging::new(stack, *writable, &dir, ground);
        let fail = |errno| Error::io(stack.on_host(*writable, &place.path_of(name)), errno);
        let made = copy(
            source,
            chain,
            &staging.dir,
            &staging.name,
            *depth,
            Into::Branch,
        )
        .and_then(|()| {
            if whiteout.is_some() && *first == Kind::Directory {
                mark::make_opaque(stack, *writable, &staging.dir, &staging.name).map_err(fail)?;
            }
            sync_dir(&staging.dir).map_err(fail)?;
            match whiteout {
                None => staging.place(&dir, name).map_err(fail),
                Some(cut) if cut.mark.file_name() == name => {
                    // Nobody has put anything else there meanwhile.
                    Mark::new(stack, cut).find()?;
                    staging.replace_mark(&dir, name, *first).map_err(fail)
                }
                Some(cut) => staging.beside_mark(stack, cut, &dir, name, *first),
            }
        });
        if made.is_err() {
            // What cannot be removed is named by `check`; the first error is the one to tell.
            let _ = copy::remove_tree(&staging.dir, &staging.name);
            take_back();
        }
        made?;
        sync_dir(&dir).map_err(fail)
    }
}

/// What is being made for a writable branch, and where until it is done.
struct Staging {
    dir: Dir,
    name: Vec<u8>,
}

impl Staging {
    fn new(stack: &Stack, writable: usize, dir: &Dir, ground: &Ground) -> Staging {
        let is_hidden = stack.branches[writable].grammar.hides_entry(STAGING);
        let (dir, prefix) = match (&ground.workshop, is_hidden) {
            (_, true) => (dir, STAGING),
            (Some(workshop), false) => (workshop, STAGING_SEEN),
            (None, false) => (dir, STAGING_SEEN),
        };
        Staging {
            dir: dir.clone(),
            name: staging_name(prefix),
        }
    }

    /// Moves it into its place, which nothing has.
    fn place(&self, dir: &Dir, name: &[u8]) -> Result<(), Errno> {
        rename_into(&self.dir, &self.name, dir, name)
    }

    /// Moves it into the place of a whiteout that has the very name.
    fn replace_mark(&self, dir: &Dir, name: &[u8], kind: Kind) -> Result<(), Errno> {
        let (from, to) = (self.dir.fd()?, dir.fd()?);
        if kind != Kind::Directory {
            return renameat(&*from, &self.name[..], &*to, name);
        }
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
    fn beside_mark(
        &self,
        stack: &Stack,
        cut: &Cut,
        dir: &Dir,
        name: &[u8],
        kind: Kind,
    ) -> Result<()> {
        let fail = |errno| Error::io(stack.on_host(cut.branch, &cut.of), errno);
        let mark = cut.mark.file_name();
        let fd = dir.fd().map_err(fail)?;
        let is_marked_twice = stack.branches[cut.branch].grammar != Grammar::Aufs
            && Mark::new(stack, cut).has_device(dir).map_err(fail)?;
        if is_marked_twice {
            self.replace_mark(dir, name, kind).map_err(fail)?;
            return Mark::new(stack, cut).remove_from(dir).map_err(fail);
        }
        if dir.stat(name).map_err(fail)?.is_some() {
            return Err(fail(Errno::EXIST));
        }
        let is_aufs = stack.branches[cut.branch].grammar == Grammar::Aufs;
        if kind == Kind::File && is_aufs {
            let from = self.dir.fd().map_err(fail)?;
            renameat(&*from, &self.name[..], &*fd, mark).map_err(fail)?;
            let placed = sync_dir(dir).and_then(|()| rename_into(dir, mark, dir, name));
            return placed.map_err(|errno| {
                // The mark goes on to hide the name; it gets its empty content back.
                let _ = mark::make_file(stack, cut.branch, &self.dir, &self.name)
                    .and_then(|()| renameat(&*from, &self.name[..], &*fd, mark));
                fail(errno)
            });
        }
        // fuse-overlayfs heeds the mark as long as it is there.
        self.place(dir, name).map_err(fail)?;
        Mark::new(stack, cut).remove_from(dir).map_err(|errno| {
            // Back to the old state: what was made goes with the staging name.
            let _ = rename_into(dir, name, &self.dir, &self.name);
            fail(errno)
        })
    }
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
    sync_dir(&dir).map_err(fail)
}

/// The writable branch's directory at a place of the union, made with the metadata that the
/// union shows where the branch does not have it. That changes nothing in the view.
fn make_place(stack: &Stack, branch: usize, place: &Node<'_>, ground: &Ground) -> Result<Dir> {
    let mut dir = stack.branches[branch]
        .dir
        .as_ref()
        .map_err(Clone::clone)?
        .clone();
    let mut view = stack.whole(crate::union::Reading::Nothing);
    for name in place.path().components() {
        let path = view.path_of(name);
        let fail = |errno| Error::io(stack.on_host(branch, &path), errno);
        let is_there = match dir.stat(name).map_err(fail)? {
            Some(stat) => stat.kind == Kind::Directory,
            None => false,
        };
        if !is_there {
            if stack.whiteout(branch, &path)?.is_some() {
                return Err(Error::Refused {
                    what: format!(
                        "{path} is deleted in the writable branch and shown by a branch above it"
                    ),
                    hint: "copy the version out with --to DIR".into(),
                });
            }
            let staging = Staging::new(stack, branch, &dir, ground);
            let chain = [name.to_vec()];
            let (to, passing) = (&staging.dir, &staging.name);
            let made = copy(&view, &chain, to, passing, Depth::OneEntry, Into::Branch)
                .and_then(|()| staging.place(&dir, name).map_err(fail));
            if made.is_err() {
                let _ = copy::remove_tree(to, passing);
            }
            made?;
            sync_dir(&dir).map_err(fail)?;
        }
        dir = dir.child(name, Access::Lookup).map_err(fail)?;
        view = match view.child(name)? {
            crate::union::Entry::Dir(node) => node,
            _ => return Err(fail(Errno::NOTDIR)),
        };
    }
    Ok(dir)
}

/// Copies through the mounted view: the kernel itself takes whiteouts away and makes directories
/// opaque.
fn copy_through(
    view: &View,
    place: &Node<'_>,
    chain: &[Vec<u8>],
    source: &Node<'_>,
    depth: Depth,
) -> Result<()> {
    let dir = view.open(&place.path())?;
    copy_beside(source, chain, &dir, &chain[0], depth)
}

/// Copies under a passing name, so that nothing half-written ever has the real one.
fn copy_beside(
    source: &Node<'_>,
    chain: &[Vec<u8>],
    to: &Dir,
    name: &[u8],
    depth: Depth,
) -> Result<()> {
    let fail = |errno| Error::io(to.path().join(name), errno);
    if to.stat(name).map_err(fail)?.is_some() {
        return Err(fail(Errno::EXIST));
    }
    let staging = staging_name(STAGING_SEEN);
    let made = copy(source, chain, to, &staging, depth, Into::View)
        .and_then(|()| rename_into(to, &staging, to, name).map_err(fail))
        .and_then(|()| sync_dir(to).map_err(fail));
    if made.is_err() {
        let _ = copy::remove_tree(to, &staging);
    }
    made
}

/// Puts the lower version in the place of the changed one, through the mount and in one rename.
fn replace_through(view: &View, path: &Bytes, below: &Node<'_>, name: &[u8]) -> Result<()> {
    let dir = view.open(&path.parent())?;
    let fail = |errno| Error::io(dir.path().join(name), errno);
    let staging = staging_name(STAGING_SEEN);
    let chain = [name.to_vec()];
    let made = copy(below, &chain, &dir, &staging, Depth::OneEntry, Into::View).and_then(|()| {
        let fd = dir.fd().map_err(fail)?;
        renameat(&*fd, &staging[..], &*fd, name).map_err(fail)
    });
    if made.is_err() {
        let _ = copy::remove_tree(&dir, &staging);
    }
    made?;
    sync_dir(&dir).map_err(fail)
}

fn remove_entry(stack: &Stack, branch: usize, path: &Bytes) -> Result<()> {
    let fail = |errno| Error::io(stack.on_host(branch, path), errno);
    let dir = branch_dir(stack, branch, &path.parent())?;
    unlinkat(
        &*dir.fd().map_err(fail)?,
        path.file_name(),
        AtFlags::empty(),
    )
    .map_err(fail)?;
    sync_dir(&dir).map_err(fail)
}
