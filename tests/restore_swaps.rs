//! `restore` is stopped after each of its calls that write, one after the other, and all that it has
//! made so far is swapped: what stood there is moved away, and a link to somebody else's file or
//! directory takes the name. Nothing of somebody else's is ever touched.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::FileType;

use crate::lab::held::Held;
use crate::lab::union::Union;
use crate::lab::{inside, needs, needs_asking};
use crate::restore_hostile::{facts_of_host, is_passing, mount_overlay};

/// Calls that make, change, place or take away; those that a machine's kernel may lack with a
/// question mark, as strace wants it.
const CALLS: [&str; 14] = [
    "mkdirat",
    "mknodat",
    "symlinkat",
    "renameat2",
    "unlinkat",
    "fchown",
    "fchmod",
    "?chmod",
    "?chown",
    "fsetxattr",
    "setxattr",
    "utimensat",
    "fsync",
    "copy_file_range",
];

/// Those after which the directory itself is swapped: it is the same for the rest.
const PLACING: [&str; 4] = ["mkdirat", "mknodat", "renameat2", "fsync"];

/// What is swapped while it is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Swap {
    /// What was made in the directory, by its passing or its last name, and what is in that.
    Made,
    /// The directory itself.
    Directory,
}

/// A tree with each kind of file, deleted, and somebody else's file and directory.
fn stage() -> Union {
    let union = Union::of(&[("up", "rw"), ("low", "ro")]);
    let tree = |name: &str| format!("low/d/tree/{name}");
    let file = tree("file");
    union
        .file(&file, "content")
        .mode(&file, 0o4755)
        .file(tree("sub/in_it"), "more")
        .mode(tree("sub"), 0o1777)
        .link(tree("link"), "file")
        .node(&tree("fifo"), FileType::Fifo, 0);
    union.xattr(&file, "user.note", b"kept");
    for name in ["file", "sub", "link", "fifo"] {
        union.owner(tree(name), 1234, 1234);
    }
    union.dir("up/d").dir("work").dir("merged").dir("out");
    union.dir("host/directory").file("host/file", "secret");
    union.mode("host/file", 0o600).mode("host/directory", 0o700);
    union
}

fn of_others(union: &Union) -> Vec<String> {
    let mut facts = facts_of_host(union);
    let inside = fs::read_dir(union.at("host/directory")).expect("our own");
    facts.push(format!("{} inside", inside.count()));
    facts
}

/// Moves what has a name away, and lets the name lead to something of its kind that is another's.
fn swap_one(at: &Path, aside: &Path, union: &Union) {
    let Ok(stat) = at.symlink_metadata() else {
        return;
    };
    let other = if stat.is_dir() {
        "host/directory"
    } else {
        "host/file"
    };
    if fs::rename(at, aside).is_ok() {
        symlink(union.at(other), at).expect("the name is free");
    }
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let read = fs::read_dir(directory).into_iter().flatten();
    let mut entries: Vec<PathBuf> = read.flatten().map(|entry| entry.path()).collect();
    entries.sort();
    entries
}

/// Whether it was made by the run: it has a passing name, or that of the tree.
fn is_made(path: &Path) -> bool {
    let name = path.file_name().expect("a name").as_bytes();
    name == b"tree" || is_passing(name)
}

fn swap_all(union: &Union, directory: &Path, swap: Swap) {
    let made: Vec<PathBuf> = entries(directory)
        .into_iter()
        .filter(|path| is_made(path))
        .collect();
    match swap {
        Swap::Directory => swap_one(directory, &directory.with_file_name("moved"), union),
        Swap::Made => {
            for within in made.iter().flat_map(|path| entries(path)) {
                let name = within.file_name().expect("a name").to_string_lossy();
                let aside = within.with_file_name(format!("stolen-{name}"));
                swap_one(&within, &aside, union);
            }
            for (number, path) in made.iter().enumerate() {
                let aside = directory.join(format!("stolen{number}"));
                swap_one(path, &aside, union);
            }
        }
    }
}

/// Stops a run at each of its calls, and gives at how many.
fn at_each_call(swap: Swap, through_the_mount: bool) -> usize {
    let mut stopped = 0;
    let calls = match swap {
        Swap::Made => &CALLS[..],
        Swap::Directory => &PLACING,
    };
    for call in calls {
        for number in 1.. {
            let union = stage();
            let directory = if through_the_mount {
                mount_overlay(&union, &union.at("merged"));
                fs::remove_dir_all(union.at("merged/d/tree")).expect("it is there");
                union.at("merged/d")
            } else {
                union.mark("up/d/.wh.tree");
                union.at("out")
            };
            let before = of_others(&union);
            let command = command(&union, through_the_mount);
            let Ok(held) = Held::after_each(call, number, &command) else {
                unmount(&union, through_the_mount);
                break;
            };
            swap_all(&union, &directory, swap);
            held.let_go();
            stopped += 1;
            assert_eq!(
                before,
                of_others(&union),
                "{swap:?} after {call} number {number}"
            );
            unmount(&union, through_the_mount);
        }
    }
    stopped
}

fn command(union: &Union, through_the_mount: bool) -> Command {
    if through_the_mount {
        let mut command = crate::lab::run::command();
        command.args(["restore", "-r", "--strategy", "copy", "--in"]);
        command.arg(union.at("merged")).args(["--", "/d/tree"]);
        return command;
    }
    let out = union.at("out");
    let options = ["-r", "--to", out.to_str().expect("a plain path")];
    union.command(&options, "/d/tree")
}

fn unmount(union: &Union, is_mounted: bool) {
    if is_mounted {
        let status = Command::new("umount")
            .arg("-l")
            .arg(union.at("merged"))
            .status();
        assert!(status.expect("umount").success());
    }
}

#[apply(test)]
fn what_is_copied_out_is_swapped_after_each_call() {
    needs::strace();
    needs::root("to own what others may write to");
    needs_asking("restores that are stopped at each call");
    for swap in [Swap::Made, Swap::Directory] {
        let stopped = at_each_call(swap, false);
        assert!(stopped > 5, "{stopped} calls");
    }
}

#[apply(test)]
fn what_is_copied_through_a_mount_is_swapped_after_each_call() {
    needs::strace();
    inside(
        || {
            for swap in [Swap::Made, Swap::Directory] {
                let stopped = at_each_call(swap, true);
                assert!(stopped > 5, "{stopped} calls");
            }
        },
        || {
            needs::mounts();
            needs_asking("restores that are stopped at each call");
            needs::own_mounts()
        },
    );
}
