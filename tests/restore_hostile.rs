//! `restore` writes, as root, in directories that somebody else can change meanwhile: the
//! container itself, through whose mount it writes, or whoever may write to the directory that
//! something is copied out to. Whatever that one does, nothing outside is touched, and what was
//! not restored is not called so.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FileType, FlockOperation, XattrFlags, makedev, setxattr};
use walkdir::{DirEntryExt, WalkDir};

use crate::lab::held::{Held, ONLY_THESE, injecting, killed_at, traced, until_it_waits_or_ends};
use crate::lab::union::{Detail, Union, assert_same, fact};
use crate::lab::{inside, needs};

/// How long each call that an attacker waits for is held up, in microseconds.
const HELD: u64 = 400_000;

/// A command run by strace, which holds up every call of some names after it was made.
fn held_up(calls: &str, when: &str, inner: &Command) -> Command {
    let what = format!("delay_{when}={HELD}");
    injecting(calls, &what, Path::new("/dev/null"), inner)
}

/// Whether a name is what is being made, not done yet.
pub fn is_passing(name: &[u8]) -> bool {
    name.starts_with(b".layerctl-") || name.starts_with(b".wh..wh.layerctl-")
}

fn passing(directory: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(directory).ok()?.flatten();
    let mut names = entries.map(|entry| entry.path());
    names.find(|path| {
        path.file_name()
            .is_some_and(|name| is_passing(name.as_bytes()))
    })
}

/// Runs a command while something else takes the place of whatever it makes in a directory: `put`
/// has the name then. Gives the command's output, and whether anything was swapped.
fn run_swapped(
    mut command: Command,
    directory: &Path,
    put: impl FnOnce(&Path) + Send,
) -> (Output, bool) {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let swapper = scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                if let Some(made) = passing(directory)
                    && fs::rename(&made, directory.join("stolen")).is_ok()
                {
                    put(&made);
                    return true;
                }
                thread::sleep(Duration::from_millis(2));
            }
            false
        });
        let output = command.output().expect("strace");
        is_over.store(true, Ordering::Relaxed);
        (output, swapper.join().expect("it does not panic"))
    })
}

/// A kind of file, the call that makes one, and how it is made in a branch.
struct Case {
    name: &'static str,
    /// The call that makes its name, or the next one, and whether that is held up before or after.
    makes: (&'static str, &'static str),
    make: fn(&Union, &str),
}

const CASES: [Case; 7] = [
    Case {
        name: "fifo",
        makes: ("mknodat", "exit"),
        make: |union, path| {
            union.node(path, FileType::Fifo, 0).mode(path, 0o666);
        },
    },
    Case {
        name: "socket",
        makes: ("mknodat", "exit"),
        make: |union, path| {
            union.node(path, FileType::Socket, 0).mode(path, 0o666);
        },
    },
    Case {
        name: "char",
        makes: ("mknodat", "exit"),
        make: |union, path| {
            union.node(path, FileType::CharacterDevice, makedev(1, 3));
        },
    },
    Case {
        name: "block",
        makes: ("mknodat", "exit"),
        make: |union, path| {
            union.node(path, FileType::BlockDevice, makedev(7, 200));
        },
    },
    Case {
        name: "symlink",
        makes: ("symlinkat", "exit"),
        make: |union, path| {
            union.link(path, "target");
        },
    },
    Case {
        name: "file",
        makes: ("fchown", "enter"),
        make: |union, path| {
            union.file(path, "content").mode(path, 0o666);
        },
    },
    Case {
        name: "directory",
        makes: ("mkdirat", "exit"),
        make: |union, path| {
            union
                .file(format!("{path}/in_it"), "content")
                .mode(path, 0o777);
        },
    },
];

/// A union with something of a kind deleted, a directory to copy it out to, and a file and a
/// directory that are nobody's business.
fn stage(case: &Case) -> Union {
    let union = Union::usual();
    let path = format!("low/d/{}", case.name);
    (case.make)(&union, &path);
    union.owner(&path, 1234, 1234);
    union.mark(format!("up/d/.wh.{}", case.name));
    union.dir("out").dir("host/directory");
    union.file("host/file", "secret").mode("host/file", 0o600);
    make_alike(case, &union);
    union
}

/// What somebody else's link leads to, for a kind of file.
fn victim(union: &Union, case: &Case) -> PathBuf {
    union.at(if case.name == "directory" {
        "host/directory"
    } else {
        "host/file"
    })
}

fn is_untouched(union: &Union, before: &[String], case: &str) {
    assert_eq!(facts_of_host(union), before, "{case}");
}

pub fn facts_of_host(union: &Union) -> Vec<String> {
    ["host", "host/file", "host/directory"]
        .iter()
        .map(|path| fact(&union.at(path), Detail::All))
        .collect()
}

/// What takes the place of what was made: for a kind, and in a union that is staged for it.
type Put = fn(&Case, &Union, &Path);

fn put_link(case: &Case, union: &Union, made: &Path) {
    symlink(victim(union, case), made).expect("the name was free");
}

/// For each kind: swapped at once after it was made, and before it is moved into its place.
fn nothing_outside_is_touched(held: fn(&Case) -> (&'static str, &'static str), put: Put) {
    needs::strace();
    needs::root("to own what others may write to");
    crate::lab::all_right(&CASES, |case| {
        // On a busy machine the moment may be over before it is seen.
        let swapped = (0..100).find_map(|_| swapped_once(case, held(case), put));
        swapped.unwrap_or_else(|| vec![format!("{}: nothing was swapped", case.name)])
    });
}

/// What is wrong when it is swapped; nothing if it was not.
fn swapped_once(case: &Case, (calls, when): (&str, &str), put: Put) -> Option<Vec<String>> {
    let mut wrong = Vec::new();
    let union = stage(case);
    let before = facts_of_host(&union);
    let inode = fs::symlink_metadata(union.at("other/alike")).expect("it was made");
    let inode = inode.ino();
    let alike_before = alike(&union, inode);
    let out = union.at("out");
    let options = ["-r", "--to", out.to_str().expect("a plain path")];
    let command = union.command(&options, format!("/d/{}", case.name));
    let command = held_up(calls, when, &command);
    let (output, was_swapped) = run_swapped(command, &out, |made| put(case, &union, made));
    if !was_swapped {
        return None;
    }
    if facts_of_host(&union) != before {
        wrong.push(format!(
            "{}: it was touched: {:?}",
            case.name,
            facts_of_host(&union)
        ));
    }
    if alike(&union, inode) != alike_before {
        wrong.push(format!("{}: another's was touched", case.name));
    }
    if output.status.code() != Some(2) {
        wrong.push(format!("{}: it is called done: {output:?}", case.name));
    }
    let stolen = out.join("stolen");
    if !stolen.exists() && !stolen.is_symlink() {
        wrong.push(format!("{}: what was moved away is gone", case.name));
    }
    Some(wrong)
}

#[apply(test)]
fn what_was_just_made_is_swapped_for_a_link() {
    nothing_outside_is_touched(|case| case.makes, put_link);
}

/// What is another's is told from what was just made: it has a further name, or other numbers, or
/// something in it.
#[apply(test)]
fn what_was_just_made_is_swapped_for_another_of_its_kind() {
    nothing_outside_is_touched(|case| case.makes, put_alike);
}

fn put_alike(case: &Case, union: &Union, made: &Path) {
    let alike = union.at("other/alike");
    match case.name {
        "block" | "directory" => fs::rename(alike, made),
        _ => fs::hard_link(alike, made),
    }
    .expect("the name was free");
}

/// Another's, which nobody but root may use.
fn make_alike(case: &Case, union: &Union) {
    let path = "other/alike";
    match case.name {
        "block" => {
            union.node(path, FileType::BlockDevice, makedev(7, 201));
        }
        "symlink" => {
            union.link(path, "elsewhere");
            return;
        }
        _ => (case.make)(union, path),
    }
    union.mode(path, 0o600);
}

/// Who may do what with it, wherever it is now.
fn alike(union: &Union, inode: u64) -> Option<(u32, u32, u32)> {
    let mut found = WalkDir::new(union.home()).into_iter().flatten();
    let found = found.find(|entry| entry.ino() == inode)?.metadata().ok()?;
    Some((found.uid(), found.gid(), found.mode()))
}

#[apply(test)]
fn what_is_about_to_get_its_name_is_swapped_for_a_link() {
    nothing_outside_is_touched(|_| ("renameat2", "enter"), put_link);
}

/// Between the plan and the copy somebody takes the version out of its layer: nothing else comes back
/// in its stead, and the mark stays.
#[apply(test)]
fn what_vanishes_from_a_layer_is_not_called_restored() {
    needs::strace();
    // On a busy machine the moment may be over before it is seen.
    let seen = (0..100).find_map(|_| {
        let union = Union::usual();
        union
            .file("low/d/f", "before")
            .file("low/d/other", "")
            .mark("up/.wh.d");
        let before = union.branch("up");
        let command = union.command(&["--strategy", "copy"], "/d/f");
        let mut child = held_up("mkdirat", "exit", &command)
            .spawn()
            .expect("strace");
        while passing(&union.at("up")).is_none() {
            if child.try_wait().expect("our own child").is_some() {
                return None;
            }
            thread::sleep(Duration::from_millis(2));
        }
        fs::remove_file(union.at("low/d/f")).expect("our own");
        let status = child.wait().expect("it ends");
        // It had been opened before, and came back.
        let is_late = status.success();
        (!is_late).then(|| (before, union.branch("up"), status.code()))
    });
    let (before, after, status) = seen.expect("it vanished in time");
    assert_eq!(status, Some(2));
    assert_same(&before, &after);
}

/// What a run that fails takes away is what it made itself, not what has its name then.
#[apply(test)]
fn what_has_the_name_of_what_failed_is_left_alone() {
    needs::strace();
    needs::root("to own what others may write to");
    for case in &CASES[5..] {
        // On a busy machine the moment may be over before it is seen.
        let kept = (0..100).find_map(|_| kept_in_the_place_of(case));
        assert_eq!(kept.as_deref(), Some("precious"), "{}", case.name);
    }
}

/// What is left of a file, or of one in a directory, that takes the place of what cannot get its name;
/// nothing if the moment was missed.
fn kept_in_the_place_of(case: &Case) -> Option<String> {
    let is_directory = case.name == "directory";
    let union = stage(case);
    let precious = ["precious", "precious/file"][usize::from(is_directory)];
    union.file(precious, "precious");
    let out = union.at("out");
    let options = ["-r", "--to", out.to_str().expect("a plain path")];
    // Long enough before its first rename for something else to take the place.
    let path = format!("/d/{}", case.name);
    let mut command = held_up("renameat2", "enter", &union.command(&options, path));
    let mut child = command.spawn().expect("strace");
    // It is whole when the rename is held up.
    let is_whole = |made: &PathBuf| {
        if is_directory {
            made.join("in_it").exists()
        } else {
            fs::metadata(made).is_ok_and(|made| made.mode() & 0o777 == 0o666)
        }
    };
    let made = loop {
        if let Some(made) = passing(&out).filter(is_whole) {
            break made;
        }
        if child.try_wait().expect("our own child").is_some() {
            return None;
        }
        thread::sleep(Duration::from_millis(2));
    };
    // It may have got its name since.
    if fs::rename(&made, out.join("stolen")).is_err() {
        child.wait().expect("it ends");
        return None;
    }
    fs::rename(union.at("precious"), &made).expect("our own");
    // The place is taken, so that the rename fails and all is taken back.
    fs::create_dir(out.join(case.name)).expect("it is free");
    let status = child.wait().expect("it ends");
    assert_eq!(status.code(), Some(2), "{}", case.name);
    let kept = if is_directory {
        made.join("file")
    } else {
        made
    };
    Some(fs::read_to_string(kept).unwrap_or_default())
}

/// It leads to where a container's file stands, say: nobody asked for that.
#[apply(test)]
fn a_link_is_no_directory_to_copy_out_to() {
    needs::root("to make what is copied");
    let union = stage(&CASES[5]);
    union.link("link", union.at("host/directory"));
    let link = union.at("link");
    let options = ["--to", link.to_str().expect("a plain path")];
    let before = facts_of_host(&union);
    union
        .restore(&options, "/d/file")
        .exits(2)
        .says("is a symbolic link");
    is_untouched(&union, &before, "--to");
    assert!(!union.at("host/directory/file").exists());
}

/// A user's store is the user's: for the layer that root writes to it may have a link of its own, and so
/// may whoever owns a directory on the way to where something is copied.
#[apply(test)]
fn somebodys_link_to_what_is_another_ones_is_a_trap() {
    needs::root("to be somebody else");
    let user = Some(1234);
    let give = |path: &Path| lchown(path, user, user).expect("root may");
    for name in ["up", "work", "low"] {
        let union = Union::of(&[("up", "rw"), ("low", "ro")]);
        union
            .file("low/f", "before")
            .dir("work/work")
            .dir("host/etc");
        let device = FileType::CharacterDevice;
        union.node("up/f", device, makedev(0, 0));
        for name in ["up", "low", "work"] {
            give(&union.at(name));
        }
        let target = format!(
            "lowerdir={},upperdir={}",
            union.at("low").display(),
            union.at("up").display()
        );
        let run = |options: &[&str]| {
            let mut command = crate::lab::run::command();
            command
                .args(["restore", "--strategy", "copy"])
                .args(options);
            command.arg("--in").arg(&target).args(["--", "/f"]);
            crate::lab::run::run(&mut command)
        };
        run(&["--dry-run"]).exits(0);
        // The link and where it leads are the same user's: a store may lie on another disk.
        fs::rename(union.at(name), union.at("disk")).expect("our own");
        symlink(union.at("disk"), union.at(name)).expect("the name is free");
        give(&union.at(name));
        run(&["--dry-run"]).exits(0);
        // What lies in the user's own directory may be of an id that is the user's, too.
        union.dir("disks/own");
        give(&union.at("disks"));
        fs::rename(union.at("disk"), union.at("disks/own/disk")).expect("our own");
        lchown(union.at("disks/own/disk"), Some(101_234), Some(101_234)).expect("root may");
        fs::remove_file(union.at(name)).expect("a link");
        symlink(union.at("disks"), union.at("link")).expect("the name is free");
        give(&union.at("link"));
        symlink("link/own/disk", union.at(name)).expect("the name is free");
        run(&["--dry-run"]).exits(0);
        fs::rename(union.at("disks/own/disk"), union.at("disk")).expect("our own");
        fs::remove_file(union.at(name)).expect("a link");
        symlink(union.at("disk"), union.at(name)).expect("the name is free");
        give(&union.at(name));
        // It leads to what is root's.
        lchown(union.at("disk"), Some(0), Some(0)).expect("root may");
        let before = union.disk();
        run(&[]).exits(2).says("is a symbolic link of user 1234's");
        assert_same(&before, &union.disk());
        // It leads to what is the user's and lies where the user does not get to.
        lchown(union.at("disk"), Some(1234), Some(1234)).expect("root may");
        run(&["--dry-run"]).exits(0);
        union.dir("closed").mode("closed", 0o700);
        fs::rename(union.at("disk"), union.at("closed/disk")).expect("our own");
        fs::remove_file(union.at(name)).expect("a link");
        symlink(union.at("closed/disk"), union.at(name)).expect("the name is free");
        give(&union.at(name));
        let before = union.disk();
        run(&[]).exits(2).says("is a symbolic link of user 1234's");
        assert_same(&before, &union.disk());
        // Root's own link is root's word.
        lchown(union.at(name), Some(0), Some(0)).expect("root may");
        run(&["--dry-run"]).exits(0);
    }

    let union = deleted();
    union.dir("host/etc").dir("theirs");
    symlink(union.at("host"), union.at("theirs/link")).expect("the name is free");
    for name in ["theirs", "theirs/link"] {
        give(&union.at(name));
    }
    for to in [
        "theirs/link/etc",
        "theirs/link/etc/new",
        "theirs/link/new/deep",
    ] {
        let to = union.at(to);
        let to = to.to_str().expect("a plain path");
        union
            .restore(&["--to", to], "/f")
            .exits(2)
            .says("symbolic link");
        let mut command = crate::lab::run::command();
        command
            .arg("cp")
            .arg("--in")
            .arg(union.spelled())
            .args(["/g", to]);
        crate::lab::run::run(&mut command)
            .exits(2)
            .says("symbolic link");
    }
    assert_eq!(
        fs::read_dir(union.at("host")).expect("it is there").count(),
        1
    );
    lchown(union.at("theirs/link"), Some(0), Some(0)).expect("root may");
    let to = union.at("theirs/link/etc");
    union
        .restore(&["--to", to.to_str().expect("a plain path")], "/f")
        .exits(0);
}

/// A link that was there when the layer was opened, and is gone, or is the layer itself, when it is looked at.
#[apply(test)]
fn a_trap_that_is_taken_away_meanwhile_is_none_the_less_one() {
    needs::root("to be somebody else");
    needs::strace();
    for put_back in [false, true] {
        let union = Union::of(&[("up", "rw"), ("low", "ro")]);
        union
            .file("low/f", "before")
            .dir("host/etc")
            .dir("theirs/real");
        let device = FileType::CharacterDevice;
        union.node("host/etc/f", device, makedev(0, 0));
        symlink(union.at("host/etc"), union.at("theirs/up")).expect("the name is free");
        for name in ["theirs", "theirs/up", "theirs/real"] {
            lchown(union.at(name), Some(1234), Some(1234)).expect("root may");
        }
        let mut command = crate::lab::run::command();
        command.args(["restore", "--in"]).arg(format!(
            "lowerdir={},upperdir={}",
            union.at("low").display(),
            union.at("theirs/up").display()
        ));
        let held = Held::after("flock", command.args(["--", "/f"]));
        fs::remove_file(union.at("theirs/up")).expect("a link");
        if put_back {
            fs::rename(union.at("theirs/real"), union.at("theirs/up")).expect("our own");
        }
        assert_eq!(held.let_go().code(), Some(2), "{put_back}");
        let left = fs::symlink_metadata(union.at("host/etc/f")).expect("it stays");
        assert!(left.file_type().is_char_device(), "{put_back}");
    }
}

/// A link is copied as a link: it is not looked at where it leads.
#[apply(test)]
fn a_link_that_is_copied_out_is_not_followed() {
    for target in ["nowhere/at/all", "/usr", "/usr/"] {
        let union = Union::usual();
        union
            .link("low/link", target)
            .mark("up/.wh.link")
            .dir("out");
        let out = union.at("out");
        let options = ["--to", out.to_str().expect("a plain path")];
        let row = union.restore(&options, "/link").exits(0).row();
        let made = out.join("link");
        assert_eq!(fs::read_link(&made).expect("a link"), Path::new(target));
        assert_eq!(
            row["seen"],
            made.to_str().expect("a plain path"),
            "{target}"
        );
    }
}

// ---- locks ----

/// A restore of a union whose writable branch somebody else has locked.
fn waiting(union: &Union, path: &str) -> (fs::File, std::process::Child) {
    let upper = fs::File::open(union.at("up")).expect("our own");
    rustix::fs::flock(&upper, FlockOperation::LockExclusive).expect("nobody has it");
    let mut command = union.command(&[], path);
    let waiting = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    (upper, waiting.spawn().expect("layerctl was built"))
}

fn deleted() -> Union {
    let union = Union::usual();
    union.file("low/f", "before").mark("up/.wh.f");
    union
}

#[apply(test)]
fn whoever_waits_says_so_after_a_moment() {
    let union = deleted();
    let began = Instant::now();
    let (lock, mut child) = waiting(&union, "/f");
    let mut stderr = BufReader::new(child.stderr.take().expect("it is piped"));
    let mut said = String::new();
    stderr.read_line(&mut said).expect("UTF-8");
    assert!(said.contains("waiting"), "{said}");
    assert!(
        began.elapsed() >= Duration::from_secs(2),
        "it was said at once"
    );
    // Some more looks are nothing more to say.
    thread::sleep(Duration::from_millis(100));
    drop(lock);
    stderr.read_to_string(&mut said).expect("UTF-8");
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert_eq!(
        said.matches("waiting for another restore").count(),
        1,
        "{said}"
    );
}

#[apply(test)]
fn whoever_waits_can_be_interrupted_and_has_changed_nothing() {
    let union = deleted();
    let before = union.disk();
    let (_lock, mut child) = waiting(&union, "/f");
    until_it_waits_or_ends(&mut child);
    assert!(child.try_wait().expect("our own child").is_none());
    let id = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(id, rustix::process::Signal::INT).expect("our own child");
    let status = child.wait().expect("it ends");
    assert!(!status.success());
    assert_same(&before, &union.disk());
}

/// The budget of descriptors closes directories that are not in use; a lock is in use.
#[apply(test)]
fn a_lock_is_held_however_few_files_can_be_open() {
    needs::strace();
    const LAYERS: [&str; 32] = [
        "up", "l01", "l02", "l03", "l04", "l05", "l06", "l07", "l08", "l09", "l10", "l11", "l12",
        "l13", "l14", "l15", "l16", "l17", "l18", "l19", "l20", "l21", "l22", "l23", "l24", "l25",
        "l26", "l27", "l28", "l29", "l30", "low",
    ];
    let branches: Vec<(&'static str, &'static str)> = LAYERS
        .iter()
        .map(|name| (*name, if *name == "up" { "rw" } else { "ro+wh" }))
        .collect();
    let union = Union::of(&branches);
    let deep = "d/".repeat(12);
    union.file(format!("low/{deep}f"), "before");
    for layer in &LAYERS[1..31] {
        union.dir(format!("{layer}/{deep}"));
    }
    union.mark(format!("up/{deep}.wh.f"));
    let trace = union.at("trace");
    let inner = union.command(&["--strategy", "copy"], format!("/{deep}f"));
    let options = [
        ONLY_THESE,
        "-y",
        "-e",
        "trace=flock,close,renameat,renameat2",
    ];
    let strace = traced(&options, &trace, &inner);
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -n 64; exec \"$@\"", "sh"]);
    limited.arg(strace.get_program()).args(strace.get_args());
    let output = limited.output().expect("sh");
    assert!(output.status.success(), "{output:?}");
    let trace = fs::read_to_string(trace).expect("what strace wrote");
    let locked = trace
        .lines()
        .position(|line| line.contains("flock(") && line.contains("/up>"))
        .expect("it is locked");
    let number = trace.lines().nth(locked).expect("the line");
    let number = &number[number.find("flock(").expect("a call") + 6..];
    let number = number.split('<').next().expect("a number").to_owned();
    let rest: Vec<&str> = trace.lines().skip(locked).collect();
    let closed = rest
        .iter()
        .position(|line| line.contains(&format!("close({number}<")));
    let placed = rest.iter().rposition(|line| line.contains("renameat"));
    let placed = placed.expect("it was moved into its place");
    assert!(closed.is_none_or(|closed| closed > placed), "{trace}");
}

// ---- mounts ----

/// Runs the calling test once more, alone in its own mount and process namespaces, or is that run.
fn alone(body: impl FnOnce()) {
    inside(body, || {
        needs::mounts();
        needs::own_mounts()
    });
}

/// Mounts an overlay of a union's `low`, `up` and `work`.
pub fn mount_overlay(union: &Union, at: &Path) {
    let at_home = |name| union.at(name).display().to_string();
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        at_home("low"),
        at_home("up"),
        at_home("work")
    );
    let mut mount = Command::new("mount");
    mount.args(["-t", "overlay", "overlay", "-o", &options]);
    let status = mount.arg(at).status();
    assert!(status.expect("mount").success());
}

/// An overlay that is mounted at `host/run/merged`.
struct Overlay(Union);

impl Overlay {
    fn mounted() -> Overlay {
        let union = Union::of(&[("up", "rw"), ("low", "ro")]);
        union
            .file("low/f", "before")
            .dir("work")
            .dir("host/run/merged");
        let overlay = Overlay(union);
        overlay.mount(&overlay.0.at("host/run/merged"));
        fs::remove_file(overlay.0.at("host/run/merged/f")).expect("it is there");
        overlay
    }

    fn mount(&self, at: &Path) {
        mount_overlay(&self.0, at);
    }

    fn command(&self, target: &str) -> Command {
        let mut command = crate::lab::run::command();
        command.args(["--format", "jsonl", "restore", "--in"]);
        command.arg(target).args(["--", "/f"]);
        command
    }
}

/// What is mounted is opened once: a directory that takes the mount point's place while another
/// restore is waited for is not written to, and not called restored.
#[apply(test)]
fn another_directory_in_the_place_of_the_mount_point_is_not_written_to() {
    alone(|| {
        let overlay = Overlay::mounted();
        let merged = overlay.0.at("host/run/merged");
        let upper = fs::File::open(overlay.0.at("up")).expect("our own");
        rustix::fs::flock(&upper, FlockOperation::LockExclusive).expect("nobody has it");
        let mut command = overlay.command(merged.to_str().expect("a plain path"));
        let waiting = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = waiting.spawn().expect("layerctl was built");
        until_it_waits_or_ends(&mut child);
        fs::rename(overlay.0.at("host/run"), overlay.0.at("host/moved")).expect("our own");
        fs::create_dir_all(&merged).expect("the name is free");
        drop(upper);
        let output = child.wait_with_output().expect("it ends");
        assert_eq!(
            fs::read_dir(&merged).expect("our own").count(),
            0,
            "{output:?}"
        );
        let is_back = overlay.0.at("host/moved/merged/f").exists();
        assert_eq!(output.status.success(), is_back, "{output:?}");
    });
}

/// What is mounted over a directory of the union once the union was looked at gets nothing.
#[apply(test)]
fn what_was_mounted_over_a_part_meanwhile_is_not_written_to() {
    alone(|| {
        needs::strace();
        let union = Union::of(&[("up", "rw"), ("low", "ro")]);
        union
            .file("low/d/f", "before")
            .dir("work")
            .dir("merged")
            .dir("host");
        let merged = union.at("merged");
        mount_overlay(&union, &merged);
        fs::remove_file(merged.join("d/f")).expect("it is there");
        let mut command = crate::lab::run::command();
        command.arg("restore").arg(merged.join("d/f"));
        let held = Held::after("flock", &command);
        let over = Command::new("mount")
            .arg("--bind")
            .arg(union.at("host"))
            .arg(merged.join("d"))
            .status();
        assert!(over.expect("mount").success());
        assert_eq!(held.let_go().code(), Some(2));
        assert_eq!(fs::read_dir(union.at("host")).expect("our own").count(), 0);
        let beneath = Command::new("umount").arg(merged.join("d")).status();
        assert!(beneath.expect("umount").success());
        assert!(!merged.join("d/f").exists());
    });
}

/// A union that is mounted while another restore is waited for is written to through its mount.
#[apply(test)]
fn what_was_mounted_meanwhile_is_not_edited_beneath() {
    alone(|| {
        let union = Union::of(&[("up", "rw"), ("low", "ro")]);
        union
            .file("low/d/f", "before")
            .dir("up/d")
            .dir("work")
            .dir("merged");
        union.node("up/d/f", FileType::CharacterDevice, makedev(0, 0));
        let target = format!(
            "lowerdir={},upperdir={}",
            union.at("low").display(),
            union.at("up").display()
        );
        let upper = fs::File::open(union.at("up")).expect("our own");
        rustix::fs::flock(&upper, FlockOperation::LockExclusive).expect("nobody has it");
        let mut command = crate::lab::run::command();
        command.args(["restore", "--in", &target, "/d/f"]);
        let waiting = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = waiting.spawn().expect("layerctl was built");
        until_it_waits_or_ends(&mut child);
        let merged = union.at("merged");
        mount_overlay(&union, &merged);
        // The kernel remembers that it is not there.
        assert!(fs::metadata(merged.join("d/f")).is_err());
        drop(upper);
        let output = child.wait_with_output().expect("it ends");
        let is_back = fs::read(merged.join("d/f")).is_ok();
        assert_eq!(output.status.success(), is_back, "{output:?}");
        if !is_back {
            assert!(
                fs::symlink_metadata(union.at("up/d/f")).is_ok(),
                "{output:?}"
            );
        }
    });
}

/// A union that is unmounted, and mounted anew, while another restore is waited for.
#[apply(test)]
fn what_was_unmounted_meanwhile_is_not_written_through() {
    alone(|| {
        let overlay = Overlay::mounted();
        let merged = overlay.0.at("host/run/merged");
        let upper = fs::File::open(overlay.0.at("up")).expect("our own");
        rustix::fs::flock(&upper, FlockOperation::LockExclusive).expect("nobody has it");
        let mut command = overlay.command(merged.to_str().expect("a plain path"));
        let waiting = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = waiting.spawn().expect("layerctl was built");
        until_it_waits_or_ends(&mut child);
        let lazily = Command::new("umount").arg("-l").arg(&merged).status();
        assert!(lazily.expect("umount").success());
        drop(upper);
        let output = child.wait_with_output().expect("it ends");
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert_eq!(fs::read_dir(&merged).expect("our own").count(), 0);
    });
}

/// Neither the mount itself nor a bind mount of it is outside of the union.
#[apply(test)]
fn nothing_is_copied_out_to_the_union_itself() {
    alone(|| {
        let overlay = Overlay::mounted();
        let merged = overlay.0.at("host/run/merged");
        fs::create_dir(merged.join("out")).expect("it is free");
        overlay.0.dir("bound");
        let bind = Command::new("mount")
            .arg("--bind")
            .arg(&merged)
            .arg(overlay.0.at("bound"))
            .status();
        assert!(bind.expect("mount").success());
        for to in ["host/run/merged/out", "bound", "bound/out"] {
            let mut command = crate::lab::run::command();
            command.args(["restore", "--to"]).arg(overlay.0.at(to));
            command.arg("--in").arg(&merged).args(["--", "/f"]);
            crate::lab::run::run(&mut command)
                .exits(2)
                .says("lies in the union itself");
        }
        assert!(!merged.join("out/f").exists() && !merged.join("f").exists());
    });
}

// ---- what it costs, and how deep it goes ----

/// How many calls a restore makes in a union whose upper directory has so many others in it.
fn calls_beside(others: usize) -> usize {
    let union = Union::of(&[("up", "rw"), ("low", "ro")]);
    union.file("low/f", "before").dir("work");
    union.node("up/f", FileType::CharacterDevice, 0);
    for number in 0..others {
        union.file(format!("up/d{}/f{number}", number % 20), "");
    }
    let trace = union.at("trace");
    let mut inner = crate::lab::run::command();
    inner.args(["restore", "--in"]).arg(format!(
        "lowerdir={},upperdir={},redirect_dir=on",
        union.at("low").display(),
        union.at("up").display()
    ));
    inner.args(["--", "/f"]);
    let output = traced(&["-qq"], &trace, &inner).output().expect("strace");
    assert!(output.status.success(), "{output:?}");
    let trace = fs::read_to_string(trace).expect("what strace wrote");
    trace.lines().count()
}

/// A plain file cannot have been renamed away from where it is: nobody looks for it elsewhere.
#[apply(test)]
fn the_whole_upper_directory_is_not_walked_for_one_file() {
    needs::strace();
    needs::root("to own what others may write to");
    // The heap, and the processes that come and go meanwhile, depend on chance.
    let more = (0..5).map(|_| calls_beside(1000).saturating_sub(calls_beside(20)));
    let more: Vec<usize> = more.collect();
    let least = more.iter().min();
    assert!(
        least.is_some_and(|least| *least < 40),
        "{more:?} calls more"
    );
}

/// A place where making twelve thousand directories takes no time, and a branch's path is short.
fn deep_union() -> (tempfile::TempDir, Union) {
    let home = tempfile::Builder::new()
        .tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .expect("a temporary directory");
    let union = Union::at_home(home.path(), &[("up", "rw"), ("low", "ro")]);
    (home, union)
}

const LEVELS: usize = 12_500;

/// A file below so many directories in a branch.
fn make_deep(union: &Union, branch: &str, file: Option<&str>) {
    use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};
    let mut dir = openat(CWD, union.at(branch), OFlags::PATH, Mode::empty()).expect("ours");
    for _ in 0..LEVELS {
        mkdirat(&dir, c"d", Mode::from_raw_mode(0o755)).expect("ours");
        dir = openat(&dir, c"d", OFlags::PATH, Mode::empty()).expect("it is there");
    }
    if let Some(name) = file {
        let flags = OFlags::CREATE | OFlags::WRONLY;
        openat(&dir, name, flags, Mode::from_raw_mode(0o644)).expect("ours");
    }
}

fn take_away(home: &tempfile::TempDir) {
    let removed = Command::new("rm").arg("-rf").arg(home.path()).status();
    assert!(removed.expect("rm").success());
}

/// Each way of writing, with a mark above more directories than the stack has room for.
#[apply(test)]
fn no_depth_overflows_the_stack() {
    needs::time();
    let path = format!("{}/f", "/d".repeat(LEVELS));
    // Deleted far above, and deleted itself; brought back by each way.
    for (mark_at, options) in [
        ("top", &["--dry-run"][..]),
        ("top", &["--strategy", "unhide", "--yes"]),
        ("bottom", &[]),
        ("bottom", &["--strategy", "copy"]),
        ("top", &["--to", "out"]),
    ] {
        let (home, union) = deep_union();
        make_deep(&union, "low", Some("f"));
        union.dir("out");
        match mark_at {
            "top" => {
                union.mark("up/.wh.d");
            }
            _ => make_deep(&union, "up", Some(".wh.f")),
        }
        let output = union.restore(options, &path);
        assert_eq!(
            output.status,
            Some(0),
            "{mark_at} {options:?}: {}",
            &output.stderr[..output.stderr.len().min(300)]
        );
        take_away(&home);
    }
}

/// What a run that was killed has left where the union shows it is taken away by the next one; what
/// only has such a name is not.
#[apply(test)]
fn what_a_killed_run_left_in_a_mount_is_taken_away_by_the_next() {
    alone(|| {
        needs::strace();
        let overlay = Overlay::mounted();
        let merged = overlay.0.at("host/run/merged");
        overlay.0.file("low2/x", "");
        fs::create_dir_all(merged.join("tree/sub")).expect("our own");
        let target = merged.to_str().expect("a plain path").to_owned();
        let kill = |path: &str| {
            let mut inner = crate::lab::run::command();
            inner.args(["restore", "-r", "--in", &target, "--", path]);
            assert!(!killed_at("renameat2", 1, &inner).status.success());
        };
        kill("/f");
        let file = passing(&merged).expect("it was killed in time");
        // Nobody's: no process of ours has the number of the last one.
        // The name that says where the number is one: eight digits of this machine's.
        let own = file
            .file_name()
            .and_then(|name| name.to_str())
            .expect("a plain name");
        let own = own.rsplit('-').next().map(|digits| &digits[..8]);
        let named = |name: &str| merged.join(name.replace("01234567", own.expect("16 digits")));
        let theirs = named(".layerctl-4194303-0123456789abcdef");
        fs::create_dir(&theirs).expect("our own");
        fs::write(theirs.join("precious"), "").expect("our own");
        // One that bears another's note, as a copy of a tree that was being made does.
        let copied = named(".layerctl-4194303-0123456789abcde0");
        fs::create_dir(&copied).expect("our own");
        let note = theirs.file_name().expect("a name").as_encoded_bytes();
        let flags = XattrFlags::CREATE;
        setxattr(&copied, "trusted.layerctl.staging", note, flags).expect("root may");
        // No name of ours: too short, no number in the end or before it; or its maker lives.
        let odd = [
            ".layerctl-4194303-0123456789abcde",
            ".layerctl-4194303-0123456789abcdeg",
            ".layerctl-4194303-0123456789abcdef0",
            ".layerctl-nobody-0123456789abcdef",
            ".layerctl-1-0123456789abcdef",
            "layerctl-4194303-0123456789abcdef",
            // Of another machine, or another namespace of processes.
            ".layerctl-4194303-f123456789abcdef",
        ];
        // A user's, and one that has a name elsewhere, too.
        let (users, linked) = (
            ".layerctl-4194303-0123456789abcde2",
            ".layerctl-4194303-0123456789abcde3",
        );
        let files: Vec<PathBuf> = odd
            .iter()
            .chain(&[users, linked])
            .map(|name| named(name))
            .collect();
        for file in &files {
            fs::write(file, "precious").expect("our own");
        }
        lchown(named(users), Some(1234), None).expect("root may");
        fs::hard_link(named(linked), merged.join("elsewhere")).expect("our own");
        let mut command = overlay.command(&target);
        assert!(
            command
                .stdout(Stdio::null())
                .status()
                .expect("built")
                .success()
        );
        assert!(!file.exists(), "{}", file.display());
        assert!(theirs.join("precious").exists());
        for kept in files.iter().chain([&copied]) {
            assert!(kept.exists(), "{}", kept.display());
        }
        assert_eq!(
            fs::read_to_string(merged.join("f")).expect("it is back"),
            "before"
        );
    });
}

/// The same of a tree, which is known by its note; what is done does not bear one.
#[apply(test)]
fn a_tree_that_a_killed_run_left_is_taken_away_by_the_next() {
    alone(|| {
        needs::strace();
        let union = Union::of(&[("up", "rw"), ("low", "ro")]);
        union
            .file("low/d/sub/f", "before")
            .dir("work")
            .dir("host/run/merged");
        let overlay = Overlay(union);
        let merged = overlay.0.at("host/run/merged");
        overlay.mount(&merged);
        fs::remove_dir_all(merged.join("d")).expect("it is there");
        let command = || {
            let mut command = crate::lab::run::command();
            command
                .args(["restore", "-r", "--in"])
                .arg(&merged)
                .args(["--", "/d"]);
            command
        };
        let inner = command();
        assert!(!killed_at("fremovexattr", 1, &inner).status.success());
        let left = passing(&merged).expect("it was killed in time");
        let status = command().stdout(Stdio::null()).status().expect("built");
        assert!(status.success());
        assert!(!left.exists(), "{}", left.display());
        let copied = fact(&merged.join("d"), Detail::Copied);
        assert!(!copied.contains("layerctl"), "{copied}");
        assert!(merged.join("d/sub/f").exists());
    });
}
