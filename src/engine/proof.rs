//! Whether the branches of a mounted overlay are the directories that its options name. Options
//! are as old as the mount: a `pivot_root` since, or a mount that was moved, and they lead
//! elsewhere, or to the union itself.
//!
//! ```text
//! lowerdir=/,upperdir=/overlay/upper     OpenWrt: / is the union now, and its branch is /rom
//! lowerdir=/live/root                    a live system: it is /run/live/root now
//! ```
//!
//! What the union shows proves a branch: a file that a branch provides has its inode's number, size
//! and time there too. Overlay keeps the numbers of files, whatever it does to those of directories
//! and to devices' (where several file systems are stacked, it may only fill the upper half).
//!
//! An engine's record of a union is better than that, and such unions are not looked at.

use std::collections::{HashSet, VecDeque};

use super::mount_table::{Mount, MountTable, Superblock};
use super::reach::Reach;
use super::union::{Union, UnionKind};
use crate::branch::{BranchSpec, Permission};
use crate::bytes::Bytes;
use crate::dir::{Access, Dir, Kind, Stat, reads_trusted_attributes};
use crate::error::Error;
use crate::host::Host;
use crate::overlay::Rules;
use crate::union::{Branch, Entry, Node, Reading, Stack};
use crate::whiteout::Grammar;

/// How many directories of a branch are looked at.
const DIRECTORIES: usize = 32;
/// How many names a directory may have of which some are compared.
const NAMES: usize = 4096;
/// How many names of one directory are compared.
const SAMPLES: usize = 16;
/// So many files that are the branch's, or so many names that are missing, are enough.
const ENOUGH: usize = 2;
/// What an attribute that says what a file was copied from can have at most, in bytes.
const ORIGIN_MAX: usize = 256;

const IS_UNION: &str = "is the union itself, or in it: the directory that was meant when it was \
                        mounted is elsewhere now, and which one it is cannot be told";
const IS_ANOTHER: &str = "is another directory than the one that was meant when the union was \
                          mounted: which one that is cannot be told";

/// What is known of a branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Proven,
    Refuted,
    /// Nothing in it tells.
    Open,
}

/// Finds out whether the branches of a mounted overlay are the directories that its options name.
/// One that is not is looked for among the mounts, and if it is not found either, it is in doubt.
/// Says whether one was found.
pub fn settle(host: &Host, table: &MountTable, union: &mut Union) -> bool {
    let UnionKind::Overlay { rules, data } = union.kind else {
        return false;
    };
    if union.owner.is_some() || union.superblock.is_none() || union.branches.is_empty() {
        return false;
    }
    let merged = union.branches.len() - data.min(union.branches.len());
    let mut proof = Proof::new(host, table, union, rules);
    for index in 0..merged {
        proof.open(union, index);
    }
    proof.explain();
    let mut is_any_found = false;
    for index in 0..merged {
        if proof.verdicts[index] != Verdict::Refuted {
            continue;
        }
        let path = union.branches[index].spec.path.clone();
        match proof.find(index, &path, union) {
            Some(found) => {
                union.branches[index].spec.path = found;
                is_any_found = true;
            }
            None => union.branches[index].doubt = proof.doubts[index],
        }
    }
    is_any_found
}

/// In so many places at most a branch is looked for.
const CANDIDATES: usize = 200;
/// So many more are made of mounts for each: some are made twice.
const TRIED: usize = 10;

struct Proof<'h> {
    host: &'h Host,
    table: &'h MountTable,
    superblock: Option<Superblock>,
    /// The device of the union.
    device: Option<u64>,
    /// The union, as it is mounted.
    view: Option<Dir>,
    /// The branches, as far as they are opened.
    stack: Stack,
    rules: Rules,
    verdicts: Vec<Verdict>,
    /// What is said of a branch that is not found.
    doubts: Vec<Option<&'static str>>,
}

impl<'h> Proof<'h> {
    fn new(host: &'h Host, table: &'h MountTable, union: &Union, rules: Rules) -> Proof<'h> {
        let device = match union.superblock {
            Some(Superblock::Device(major, minor)) => Some(rustix::fs::makedev(major, minor)),
            _ => None,
        };
        let is_live = host.is_live();
        let whole = |root: &Bytes| root.as_bytes() == b"/";
        let mut mounts = union.mounts.iter().filter(|mount| whole(&mount.root));
        let view = mounts.find_map(|mount| {
            if !is_live {
                return host.open_dir(&mount.path).ok();
            }
            let dir = Dir::open_root(&mount.reach()).ok()?;
            // Something else may be mounted over it.
            (Some(dir.stat_self().ok()?.dev) == device).then_some(dir)
        });
        Proof {
            superblock: union.superblock.clone(),
            device,
            view,
            stack: Stack {
                branches: Vec::new(),
                base: None,
                is_unwatched: false,
            },
            rules,
            verdicts: Vec::new(),
            doubts: Vec::new(),
            host,
            table,
        }
    }

    /// Opens a branch at the path that the options name, and looks at it.
    fn open(&mut self, union: &Union, index: usize) {
        let branch = &union.branches[index];
        let opened = Reach::new(self.host, self.table, union).open(branch);
        let is_union = opened
            .as_ref()
            .is_ok_and(|dir| self.is_on_union(&branch.spec.path, dir));
        let is_absent = opened.as_ref().is_err_and(Error::is_not_found);
        self.doubts.push(match (is_union, is_absent) {
            (true, _) => Some(IS_UNION),
            // That it is not there is said when it is opened.
            (false, true) => None,
            (false, false) => Some(IS_ANOTHER),
        });
        let dir = if is_union {
            Err(Error::damaged(branch.spec.path.clone(), IS_UNION))
        } else {
            opened
        };
        let is_there = dir.is_ok();
        self.put(index, branch.spec.clone(), dir);
        self.verdicts.push(if is_union || is_absent {
            Verdict::Refuted
        } else if is_there && self.host.is_live() {
            self.look(index)
        } else {
            // Of a copy the rest is as good as its mount table.
            Verdict::Open
        });
        if self.verdicts[index] == Verdict::Refuted && is_there {
            let lost = Err(Error::damaged(branch.spec.path.clone(), IS_ANOTHER));
            self.put(index, branch.spec.clone(), lost);
        }
    }

    fn put(&mut self, index: usize, spec: BranchSpec, dir: Result<Dir, Error>) {
        let branch = Branch::new(&spec, Grammar::Overlay(self.rules), dir);
        match self.stack.branches.get_mut(index) {
            Some(place) => *place = branch,
            None => self.stack.branches.push(branch),
        }
    }

    /// Whether a directory is the union or in it. A lower one never is.
    fn is_on_union(&self, path: &Bytes, dir: &Dir) -> bool {
        if self.host.is_live() {
            let device = dir.stat_self().ok().map(|stat| stat.dev);
            return device.is_some() && device == self.device;
        }
        let covering = self.table.covering(path);
        let covering = covering.and_then(Mount::superblock);
        covering.is_some() && covering == self.superblock
    }

    /// A name that the union shows and no branch has: what nothing else proves is then not what
    /// it should be.
    fn explain(&mut self) {
        let is_open = |verdict: &Verdict| *verdict == Verdict::Open;
        let lowers = |of: &BranchSpec| !of.permission.is_writable();
        let any_open = self.verdicts.iter().any(is_open);
        let Some(view) = self.view.as_ref().filter(|_| any_open) else {
            return;
        };
        let is_whole = self.stack.branches.iter().all(|of| of.dir.is_ok());
        if !is_whole || !self.host.is_live() {
            return;
        }
        if !self.is_unexplained(view) && !self.lacks_originals() {
            return;
        }
        for (index, verdict) in self.verdicts.iter_mut().enumerate() {
            let branch = &mut self.stack.branches[index];
            let spec = BranchSpec {
                path: branch.path.clone(),
                permission: branch.permission.clone(),
            };
            if *verdict == Verdict::Open && lowers(&spec) {
                *verdict = Verdict::Refuted;
                branch.dir = Err(Error::damaged(spec.path, IS_ANOTHER));
            }
        }
    }

    /// Whether the union shows a name that no branch has: at its top, or among the first names of
    /// the directories below.
    fn is_unexplained(&self, view: &Dir) -> bool {
        let mount = view.mount_id();
        let mut left = VecDeque::from([(self.stack.whole(Reading::Nothing), view.clone())]);
        let (mut looked, mut count) = (0, NAMES);
        while let Some((node, shown)) = left.pop_front() {
            looked += 1;
            let Ok(Some(names)) = shown.names_up_to(NAMES) else {
                continue;
            };
            for (name, kind) in names.iter().take(count) {
                match node.child(name) {
                    Ok(Entry::Missing) if matches!(shown.stat(name), Ok(Some(_))) => return true,
                    Ok(Entry::Dir(inside)) if kind == Kind::Directory => {
                        let is_room = looked + left.len() < DIRECTORIES;
                        let dir = is_room.then(|| shown.child(name, Access::List).ok());
                        // Something else may be mounted on it.
                        let dir = dir.flatten().filter(|dir| dir.mount_id() == mount);
                        left.extend(dir.map(|dir| (inside, dir)));
                    }
                    _ => {}
                }
            }
            count = SAMPLES;
        }
        false
    }

    /// Whether a directory at the top of the upper branch was copied from one that no lower branch
    /// has.
    fn lacks_originals(&self) -> bool {
        let upper = self.stack.branches.first();
        let upper = upper.filter(|upper| upper.permission.is_writable());
        let Some(Ok(dir)) = upper.map(|upper| &upper.dir) else {
            return false;
        };
        let Ok(Some(names)) = dir.names_up_to(NAMES) else {
            return false;
        };
        let below = self.stack.root(|of| of > 0, Reading::Nothing);
        let directories = names.iter().filter(|(_, kind)| *kind == Kind::Directory);
        directories.take(SAMPLES).any(|(name, _)| {
            has_origin(dir, name) && matches!(below.child(name), Ok(Entry::Missing))
        })
    }

    /// The directory that a branch is now, if the union proves it.
    fn find(&mut self, index: usize, path: &Bytes, union: &Union) -> Option<Bytes> {
        // The mounts of another namespace cannot be reached by their paths.
        if union.mounts.iter().any(|mount| mount.process.is_some()) {
            return None;
        }
        let (host, table) = (self.host, self.table);
        let taken = |at: &Bytes| union.branches.iter().any(|of| of.spec.path == *at);
        for at in candidates(table, path) {
            if taken(&at) {
                continue;
            }
            let Ok(dir) = host.open_dir(&at) else {
                continue;
            };
            if self.is_on_union(&at, &dir) {
                continue;
            }
            let permission = if union.branches[index].spec.permission.is_writable() {
                Permission::RW
            } else {
                Permission::RO
            };
            let spec = BranchSpec {
                path: at.clone(),
                permission,
            };
            self.put(index, spec.clone(), Ok(dir));
            if self.look(index) == Verdict::Proven {
                self.verdicts[index] = Verdict::Proven;
                return Some(at);
            }
            self.put(index, spec, Err(Error::damaged(at, IS_ANOTHER)));
        }
        None
    }

    /// Compares what a branch provides with what the union shows.
    fn look(&self, branch: usize) -> Verdict {
        let Some(view) = &self.view else {
            return Verdict::Open;
        };
        let mount = view.mount_id();
        let root = self.stack.root(|of| of <= branch, Reading::Nothing);
        let mut left = VecDeque::from([(root, view.clone())]);
        let mut found = Found::default();
        let mut looked = 0;
        while let Some((node, shown)) = left.pop_front() {
            looked += 1;
            let names = node.dir(branch).map(|dir| dir.names_up_to(NAMES));
            let Some(Ok(Some(names))) = names else {
                continue;
            };
            // Files tell most.
            let (directories, files): (Vec<_>, Vec<_>) =
                names.iter().partition(|(_, kind)| *kind == Kind::Directory);
            for (name, _) in files.into_iter().take(SAMPLES) {
                found.add(self.is_shown(&node, branch, &shown, name));
            }
            if found.same >= ENOUGH {
                return Verdict::Proven;
            }
            for (name, _) in directories.into_iter().take(SAMPLES) {
                if looked + left.len() >= DIRECTORIES {
                    break;
                }
                let Ok(Entry::Dir(inside)) = node.child(name) else {
                    continue;
                };
                match shown.child(name, Access::Lookup) {
                    // Something else may be mounted on it.
                    Ok(dir) if dir.mount_id() == mount => left.push_back((inside, dir)),
                    Ok(_) => {}
                    Err(errno) => found.add(is_absence(errno).then_some(Shown::Not)),
                }
            }
        }
        let is_below_all = self.stack.branches[..branch]
            .iter()
            .all(|of| of.dir.is_ok());
        if found.same > 0 {
            Verdict::Proven
        } else if found.is_another(self.stack.has_trusted_marks()) && is_below_all {
            Verdict::Refuted
        } else {
            Verdict::Open
        }
    }

    /// Whether the union shows a file of a branch as its own; none where that does not tell.
    fn is_shown(&self, node: &Node<'_>, branch: usize, shown: &Dir, name: &[u8]) -> Option<Shown> {
        match node.child(name) {
            Ok(Entry::Leaf { from, data, .. }) if from == branch && data.is_none() => {}
            _ => return None,
        }
        let dir = node.dir(branch)?;
        let own = dir.stat(name).ok()??;
        let seen = match shown.stat(name) {
            Ok(Some(seen)) => seen,
            Ok(None) => return Some(Shown::Not),
            Err(_) => return None,
        };
        if shown.mount_id_of(name) != shown.mount_id() {
            return None;
        }
        if !is_alike(&own, &seen) {
            return Some(Shown::AsAnother);
        }
        // Copies keep no numbers.
        if !self.host.is_live() || own.ino as u32 == seen.ino as u32 {
            return Some(Shown::AsItself);
        }
        // Something that was copied up keeps the number of what it was copied from.
        (!has_origin(dir, name)).then_some(Shown::AsAnother)
    }
}

/// Whether an entry was copied up.
fn has_origin(dir: &Dir, name: &[u8]) -> bool {
    let origins = ["trusted.overlay.origin", "user.overlay.origin"];
    let has = |of: &&str| matches!(dir.attribute(name, of, ORIGIN_MAX), Ok(Some(_)));
    origins.iter().any(has)
}

/// How the union shows a file that a branch provides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shown {
    AsItself,
    AsAnother,
    /// The union has no such name.
    Not,
}

/// How many names were shown in which way.
#[derive(Default)]
struct Found {
    same: usize,
    other: usize,
    missing: usize,
}

impl Found {
    fn add(&mut self, shown: Option<Shown>) {
        match shown {
            Some(Shown::AsItself) => self.same += 1,
            Some(Shown::AsAnother) => self.other += 1,
            Some(Shown::Not) => self.missing += 1,
            None => {}
        }
    }

    /// Whether the branch is another directory. One name that is missing proves nothing: the
    /// kernel remembers what was deleted, whatever has become of the mark since. Nor do many to whom
    /// trusted marks are closed: an opaque directory above hides them.
    fn is_another(&self, has_trusted_marks: bool) -> bool {
        let missing_tell = !has_trusted_marks || reads_trusted_attributes();
        self.same == 0 && (self.other > 0 || missing_tell && self.missing >= ENOUGH)
    }
}

fn is_alike(a: &Stat, b: &Stat) -> bool {
    (a.kind, a.size, a.mtime, a.mode) == (b.kind, b.size, b.mtime, b.mode)
}

fn is_absence(errno: rustix::io::Errno) -> bool {
    matches!(errno, rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR)
}

/// Where a directory may be now whose path was `path` when the union was mounted: at the same
/// place of what was the root then, or in a mount that was moved; the likeliest first.
fn candidates(table: &MountTable, path: &Bytes) -> Vec<Bytes> {
    let parts: Vec<&[u8]> = path.components().collect();
    let parts = &parts[..];
    let tail = |from: usize| Bytes::absolute(parts[from..].iter().copied());
    let mounts = || table.0.iter().filter(|mount| is_on_disk(mount));
    // What ends alike is the likelier.
    let alike = (1..=parts.len()).flat_map(|from| {
        let alike = mounts().filter(move |mount| mount.point.file_name() == parts[from - 1]);
        alike.map(move |mount| mount.point.join_path(&tail(from)))
    });
    let below = mounts().map(|mount| mount.point.join_path(path));
    // The mount has another name now (`mount --move /mnt/lower /ro`).
    let renamed = (1..=parts.len()).rev().flat_map(|from| {
        let others = mounts().filter(|mount| mount.kind().is_none());
        others.map(move |mount| mount.point.join_path(&tail(from)))
    });
    let mut seen = HashSet::from([path.clone()]);
    let all = alike.chain(below).chain(renamed);
    all.take(TRIED * CANDIDATES)
        .filter(|at| seen.insert(at.clone()))
        .take(CANDIDATES)
        .collect()
}

/// Whether a mount may be of what branches are in.
fn is_on_disk(mount: &Mount) -> bool {
    let kernels: [&[u8]; 9] = [
        b"proc",
        b"sysfs",
        b"devpts",
        b"devtmpfs",
        b"cgroup",
        b"cgroup2",
        b"mqueue",
        b"debugfs",
        b"securityfs",
    ];
    !kernels.contains(&mount.fs_type.as_slice())
}
