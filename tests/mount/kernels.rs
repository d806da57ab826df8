//! What is seen through a mount, held against what kernels showed of the same stacks: AUFS's recorded
//! answers, and the overlay of the running kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt, lchown};
use std::path::Path;
use std::sync::Mutex;

use layerctl::internals::error::errno_name;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use walkdir::WalkDir;

use super::{mount, privately};
use crate::lab;
use crate::lab::needs;
use crate::lab::oracle::{Answer, LookupCase, Made, decode, kind_word, read};
use crate::lab::run::{command, run};
use crate::overlay::{self, Seen, Stack, Who, count};

/// `lstat` says of an entry that its group is this and its branch.
const GROUP: u32 = 1000;
const STACKS: u64 = 1500;

/// Unmounts. A child that another thread starts has everything open until it is the child that was
/// meant.
fn take_away(at: &Path) {
    run(command().args(["umount", "--lazy"]).arg(at)).exits(0);
}

// ---- AUFS ----

#[apply(test)]
fn a_mount_shows_what_aufs_showed() {
    privately(|ground| {
        let cases = read::<LookupCase>("aufs-lookup.ndjson.zst");
        let wanted = lab::of_many(cases.len() as u64, 4, "stacks of the oracle");
        let step = cases.len() / usize::try_from(wanted).expect("few");
        let cases: Vec<LookupCase> = cases.into_iter().step_by(step).collect();
        lab::all_right(&cases, |case| {
            let made = Made::lookup(ground.at(&case.id.to_string()), case);
            own_groups(&made, case.branches.len());
            let at = ground.dir(&format!("{}.mount", case.id));
            mount(&[], &made.spelled, &at).exits(0);
            let wrong = compare(case, &at);
            take_away(&at);
            wrong
        });
    });
}

/// Gives every entry a group that tells its branch. The files are links of one.
fn own_groups(made: &Made, branches: usize) {
    for branch in 0..branches {
        let at = made.dir.join(format!("b{branch}"));
        for entry in WalkDir::new(&at) {
            let entry = entry.expect("our own");
            if entry.file_type().is_file() {
                fs::remove_file(entry.path()).expect("our own");
                fs::write(entry.path(), "").expect("our own");
            }
            let group = GROUP + u32::try_from(branch).expect("few");
            lchown(entry.path(), None, Some(group)).expect("root may");
        }
    }
}

fn compare(case: &LookupCase, at: &Path) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut hold = |what: &str, path: &str, ours: Answer, kernel: Answer| {
        if ours != kernel {
            let id = case.id;
            wrong.push(format!(
                "stack {id} {what} {path:?}: {ours:?}, kernel {kernel:?}"
            ));
        }
    };
    let found = |(kind, branch): &(String, usize)| Answer::Found(kind_word(kind).into(), *branch);
    for (path, said) in &case.view {
        hold("lstat", path, lstat(at, path), found(said));
    }
    for (path, errno) in &case.errors {
        hold("lstat", path, lstat(at, path), Answer::Errno(errno.clone()));
    }
    for (path, said) in &case.follow {
        let said = match said {
            Answer::Found(kind, branch) => found(&(kind.clone(), *branch)),
            Answer::Errno(errno) => Answer::Errno(errno.clone()),
        };
        hold("stat", path, stat(at, path), said);
    }
    for (directory, names) in &case.list {
        let undecided = crate::oracle::names_beside_their_whiteout(case, directory);
        let path = at.join(OsStr::from_bytes(&decode(directory)));
        let ours = fs::read_dir(&path).expect("a directory that is shown");
        let ours = ours.map(|entry| entry.expect("listed").file_name().into_vec());
        // A ghost is listed by the kernel, and not there.
        let is_there = |name: &Vec<u8>| {
            let stat = fs::symlink_metadata(path.join(OsStr::from_bytes(name)));
            !stat.is_err_and(|error| Errno::from_io_error(&error) == Some(Errno::NOENT))
        };
        let decided = |name: &Vec<u8>| !undecided.contains(name);
        let ours: BTreeSet<Vec<u8>> = ours.filter(decided).collect();
        let kernel = names.iter().map(|name| decode(name)).filter(decided);
        let kernel: BTreeSet<Vec<u8>> = kernel.filter(is_there).collect();
        if ours != kernel {
            let id = case.id;
            wrong.push(format!(
                "stack {id} readdir {directory:?}: {ours:?}, kernel {kernel:?}"
            ));
        }
    }
    wrong
}

fn answer(stat: std::io::Result<fs::Metadata>) -> Answer {
    match stat {
        Err(error) => Answer::Errno(errno_name(Errno::from_io_error(&error).expect("one")).into()),
        Ok(stat) => {
            let kind = stat.file_type();
            let word = if kind.is_dir() {
                "directory"
            } else if kind.is_symlink() {
                "symlink"
            } else if kind.is_fifo() {
                "fifo"
            } else if kind.is_char_device() {
                "char"
            } else {
                "file"
            };
            let branch = stat.gid().checked_sub(GROUP).expect("a group of a branch");
            Answer::Found(word.into(), branch as usize)
        }
    }
}

fn lstat(at: &Path, path: &str) -> Answer {
    answer(fs::symlink_metadata(
        at.join(OsStr::from_bytes(&decode(path))),
    ))
}

/// As a process whose root it is.
fn stat(at: &Path, path: &str) -> Answer {
    let root = fs::File::open(at).expect("it is mounted");
    let path = [b"/", &decode(path)[..]].concat();
    loop {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT;
        match rustix::fs::openat2(&root, &path[..], flags, Mode::empty(), resolve) {
            // Something was mounted meanwhile, and `..` could not be trusted.
            Err(Errno::AGAIN) => {}
            Err(errno) => return answer(Err(errno.into())),
            Ok(file) => return answer(fs::File::from(file).metadata()),
        }
    }
}

// ---- overlay ----

#[apply(test)]
fn a_mount_shows_what_the_kernel_s_overlay_shows() {
    needs::time();
    crate::lab::needs::fuse();
    overlay::inside(Who::Root, || {
        compare_stacks(STACKS);
    });
}

fn compare_stacks(stacks: u64) {
    let (first, count) = match std::env::var("LAYERCTL_OVERLAY_STACK") {
        Ok(number) => (number.parse().expect("a number"), 1),
        Err(_) => (0, lab::of_many(stacks, 4, "random stacks")),
    };
    let numbers: Vec<u64> = (first..first + count).collect();
    let place = tempfile::tempdir().expect("a directory");
    let tally = Mutex::new(BTreeMap::new());
    lab::all_right(&numbers, |&number| {
        let stack = Stack::random(Who::Root, number);
        let here = place.path().join(number.to_string());
        let differences = differences(&stack, &here, &tally);
        differences
            .into_iter()
            .map(|what| format!("stack {number}: {what}"))
            .collect()
    });
    let tally = tally.into_inner().expect("no worker panicked");
    if count > 1 {
        let of = |what: &str| tally.get(what).copied().unwrap_or(0);
        assert!(of("mounted") > count as usize * 8 / 10, "{tally:?}");
        assert!(of("same inode") > of("mounted"), "{tally:?}");
        for answer in ["EIO", "ENOENT"] {
            assert!(of(answer) > 0, "never {answer}: {tally:?}");
        }
    }
}

fn differences(stack: &Stack, here: &Path, tally: &overlay::Tally) -> Vec<String> {
    fs::create_dir(here).expect("a new directory");
    stack.make(here).expect("entries can be made");
    let options = stack.options(here);
    let ours = here.join("ours");
    fs::create_dir(&ours).expect("a new directory");
    // The kernel writes marks of its own to the upper branch: this goes first.
    mount(&[], &options, &ours).exits(0);
    let shown = stack.seen_at(&ours);
    take_away(&ours);
    let mut wrong = Vec::new();
    match stack.seen(here, &options) {
        Err(_) => count(tally, "not mounted"),
        Ok(kernel) if kernel.is_stale() => count(tally, "stale"),
        Ok(kernel) => {
            count(tally, "mounted");
            compare_seen(stack, (&kernel, &shown), tally, &mut wrong);
        }
    }
    fs::remove_dir_all(here).expect("nothing is mounted there");
    wrong
}

fn compare_seen(
    stack: &Stack,
    (kernel, ours): (&Seen, &Seen),
    tally: &overlay::Tally,
    wrong: &mut Vec<String>,
) {
    for (what, kernel, ours) in [
        ("lstat", &kernel.names, &ours.names),
        ("open", &kernel.paths, &ours.paths),
    ] {
        let paths: BTreeSet<&Vec<u8>> = kernel.keys().chain(ours.keys()).collect();
        for path in paths {
            let (said, shown) = (kernel.get(path), ours.get(path));
            // What only one of them has listed is not there for the other.
            let missing = Err(Errno::NOENT);
            let mut said = said.unwrap_or(&missing).clone();
            let shown = shown.unwrap_or(&missing).clone();
            if let (Ok(said), Ok(shown)) = (&mut said, &shown) {
                if said.inode == shown.inode {
                    count(tally, "same inode");
                }
                // Of a directory the kernel need not pass on any branch's, and of a metacopy it passes on
                // another one's.
                if !stack.has_own_inode(said) {
                    said.inode = shown.inode;
                }
            }
            if let Err(errno) = &said {
                count(tally, &overlay::name(*errno));
            }
            if said != shown {
                let path = path.escape_ascii();
                wrong.push(format!("{what} {path}: {shown:?}, kernel {said:?}"));
            }
        }
    }
    let is_there = |path: &&Vec<u8>| !matches!(kernel.names.get(*path), Some(Err(Errno::NOENT)));
    let said: BTreeSet<&Vec<u8>> = kernel.listed.iter().filter(is_there).collect();
    let shown: BTreeSet<&Vec<u8>> = ours.listed.iter().collect();
    for path in said.symmetric_difference(&shown) {
        // A refused name may spoil a listing, or be left out of it.
        let is_refused = matches!(kernel.names.get(*path), Some(Err(_)));
        if !is_refused {
            let (by_kernel, by_us) = (said.contains(path), shown.contains(path));
            let path = path.escape_ascii();
            wrong.push(format!("{path}: listed {by_us}, kernel {by_kernel}"));
        }
    }
}
