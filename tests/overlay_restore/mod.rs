//! `restore` on overlay, proved with the running kernel: whatever layerctl brings back has to be
//! there when the kernel mounts the stack, or at once where it is mounted, and nothing else may be.
//!
//! Every test runs again in mount and process namespaces of its own: whatever becomes of it, no
//! mount and no process outlives it, and nobody else's mounts are seen.

use std::collections::BTreeSet;
use std::ffi::{CString, OsStr};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::ops::Deref;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use rustix::fs::{FileType, FlockOperation, lgetxattr, makedev};
use rustix::mount::{MountFlags, UnmountFlags};
use serde_json::Value;
use walkdir::WalkDir;

use crate::lab::held::{self, Held, killed_at};
use crate::lab::host::Host;
use crate::lab::run::{self, Output, bytes, text};
use crate::lab::union::{Detail, Facts, Union, assert_same, difference, fact, facts};
use crate::lab::{inside, needs, skip, skip_everywhere};

// It is AUFS's, too, and not all of it is of use here.
mod copy;
mod fuse;
mod kills;
mod missing;
mod mounted;
mod renamed;
mod revert;
mod unhide;
mod vfs;

// ---- a place of its own for every test ----

/// Runs the calling test once more, alone in its own namespaces, or is that run.
fn in_own_mounts(body: impl FnOnce()) {
    alone(body, None);
}

/// The same where making a change last takes no time.
fn in_memory(body: impl FnOnce()) {
    let place = tempfile::tempdir().expect("a directory");
    alone(body, Some(place.path()));
}

fn alone(body: impl FnOnce(), memory: Option<&Path>) {
    let covered = || {
        if memory.is_some() {
            cover(&std::env::temp_dir());
        }
        body();
    };
    inside(covered, || {
        // What the commands to take a mark back by are made of.
        needs::program("setfattr", "--version");
        needs::mounts();
        let mut command = needs::own_mounts();
        command.envs(memory.map(|place| ("TMPDIR", place)));
        command
    });
}

fn cover(at: &Path) {
    let options = c"size=64m";
    rustix::mount::mount("tmpfs", at, "tmpfs", MountFlags::empty(), options).expect("root may");
}

// ---- stacks ----

/// What mounts a stack.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    Kernel,
    FuseOverlayfs,
}

/// An upper directory `up`, lower ones, and what it takes to mount them at `merged`.
struct Lab {
    disk: Union,
    lowers: &'static str,
    options: &'static str,
    by: By,
}

impl Deref for Lab {
    type Target = Union;

    fn deref(&self) -> &Union {
        &self.disk
    }
}

impl Lab {
    /// `lowers` and `options` as overlay's own are written.
    fn of(lowers: &'static str, options: &'static str) -> Lab {
        Lab::on(Union::of(&[]), lowers, options)
    }

    fn on(disk: Union, lowers: &'static str, options: &'static str) -> Lab {
        for name in lowers.split(':').filter(|name| !name.is_empty()) {
            disk.dir(name);
        }
        // What an upper directory that was mounted once has beside it.
        disk.dir("up").dir("merged").dir("work/work").dir("out");
        Lab {
            disk,
            lowers,
            options,
            by: By::Kernel,
        }
    }

    fn usual() -> Lab {
        Lab::of("mid:low", "")
    }

    // The disk's own, so that marks can be made in the same breath.

    fn file(&self, path: impl AsRef<OsStr>, content: impl AsRef<[u8]>) -> &Lab {
        self.disk.file(path, content);
        self
    }

    fn dir(&self, path: impl AsRef<OsStr>) -> &Lab {
        self.disk.dir(path);
        self
    }

    fn mode(&self, path: impl AsRef<OsStr>, mode: u32) -> &Lab {
        self.disk.mode(path, mode);
        self
    }

    fn owner(&self, path: impl AsRef<OsStr>, uid: u32, gid: u32) -> &Lab {
        self.disk.owner(path, uid, gid);
        self
    }

    fn time(&self, path: impl AsRef<OsStr>, seconds: i64) -> &Lab {
        self.disk.time(path, seconds);
        self
    }

    fn xattr(&self, path: impl AsRef<OsStr>, name: &str, value: &[u8]) -> &Lab {
        self.disk.xattr(path, name, value);
        self
    }

    fn is_user(&self) -> bool {
        self.options.contains("userxattr")
    }

    /// The whole name of one of overlay's attributes.
    fn own(&self, name: &str) -> String {
        let namespace = if self.is_user() { "user" } else { "trusted" };
        format!("{namespace}.overlay.{name}")
    }

    fn device(&self, path: &str) -> &Lab {
        self.node(path, FileType::CharacterDevice, makedev(0, 0));
        self
    }

    /// A whiteout by attribute, in a directory that says that it has such.
    fn attribute(&self, path: &str, value: &[u8]) -> &Lab {
        self.file(path, "")
            .xattr(path, &self.own("whiteout"), value);
        let (parent, _) = path.rsplit_once('/').expect("in a branch");
        self.xattr(parent, &self.own("opaque"), b"x");
        self
    }

    fn opaque(&self, path: &str) -> &Lab {
        self.dir(path).xattr(path, &self.own("opaque"), b"y");
        self
    }

    /// A directory of ours in overlay's options.
    fn escaped(&self, name: &str) -> String {
        let path = format!("{}/{name}", self.home().display());
        let mut escaped = String::new();
        for character in path.chars() {
            if [':', ',', '\\'].contains(&character) {
                escaped.push('\\');
            }
            escaped.push(character);
        }
        escaped
    }

    fn spelled_without_engine(&self) -> String {
        let lowers = self.lowers.split(':').map(|name| match name {
            "" => String::new(),
            name => self.escaped(name),
        });
        let lowers = lowers.collect::<Vec<_>>().join(":");
        let (upper, options) = (self.escaped("up"), self.options);
        format!("lowerdir={lowers},upperdir={upper}{options}")
    }

    /// The stack as a person spells it.
    fn target(&self) -> String {
        let spelled = self.spelled_without_engine();
        match self.by {
            By::Kernel => spelled,
            By::FuseOverlayfs => format!("fuse-overlayfs:{spelled}"),
        }
    }

    fn mount_options(&self) -> String {
        let work = self.escaped("work");
        format!("{},workdir={work}", self.spelled_without_engine())
    }

    fn mount(&self) -> Mounted {
        self.mount_with(MountFlags::empty())
    }

    #[track_caller]
    fn mount_with(&self, flags: MountFlags) -> Mounted {
        let merged = self.at("merged");
        match self.by {
            By::Kernel => Mounted::overlay_with(merged, &self.mount_options(), flags),
            By::FuseOverlayfs => {
                let output = Command::new("fuse-overlayfs")
                    .args(["-o", &self.mount_options()])
                    .arg(&merged)
                    .output();
                let output = output.expect("asked for before");
                assert!(output.status.success(), "{output:?}");
                Mounted(merged)
            }
        }
    }

    /// Lets the kernel itself change the stack.
    fn with_mount(&self, change: impl FnOnce(&Path)) -> &Lab {
        let mounted = self.mount();
        change(&mounted.0);
        self
    }

    fn command(&self, target: &str, options: &[&str], path: &str) -> Command {
        let mut command = run::command();
        command
            .args(["--format", "jsonl", "restore", "--in", target])
            .args(options)
            .args(["--", path])
            .current_dir(self.home());
        command
    }

    fn restore(&self, options: &[&str], path: &str) -> Output {
        self.restore_in(&self.target(), options, path)
    }

    fn restore_in(&self, target: &str, options: &[&str], path: &str) -> Output {
        run::run(&mut self.command(target, options, path))
    }

    /// Brings a path back and says what was done; nothing passing is left behind.
    #[track_caller]
    fn brings_back(&self, options: &[&str], path: &str) -> Value {
        let row = self.restore(options, path).exits(0).row();
        assert_eq!(row["applied"], true, "{row}");
        assert_eq!(names(&self.at("work")), ["work"], "{row}");
        row
    }

    #[track_caller]
    fn refuses_and_changes_nothing(&self, target: &str, options: &[&str], path: &str) -> Output {
        let before = self.disk();
        let output = self.restore_in(target, options, path).exits(2);
        assert_same(&before, &self.disk());
        output
    }

    /// Everything on disk, and last what is shown where it is mounted.
    fn disk(&self) -> Facts {
        let mut disk = Facts::new();
        for name in names(self.home()) {
            let facts = match name.as_str() {
                "merged" => shown(&self.at("merged")),
                _ => facts(&self.at(&name)),
            };
            let under = |(path, fact): (Vec<u8>, String)| {
                let path = path.strip_prefix(b"/").unwrap_or(&path);
                ([name.as_bytes(), b"/", path].concat(), fact)
            };
            disk.extend(facts.into_iter().map(under));
        }
        disk
    }

    /// The branches but for what a mount writes there, and what cannot be put back.
    fn state(&self) -> Facts {
        let mut state = Facts::new();
        for path in self.disk().into_keys() {
            let branch = path.split(|&byte| byte == b'/').next().expect("one part");
            if [&b"work"[..], b"merged", b"out"].contains(&branch) {
                continue;
            }
            let at = self.at(OsStr::from_bytes(&path));
            let mut fact = fact(&at, Detail::Copied);
            for passing in ["uuid", "impure", "origin"] {
                fact = without_attribute(&fact, &self.own(passing));
            }
            let kind = fs::symlink_metadata(&at).expect("it was listed");
            let is_whiteout = kind.file_type().is_char_device() && kind.rdev() == 0
                || kind.is_file() && kind.len() == 0;
            if is_whiteout {
                // Its mode has a test of its own.
                let after_mode = fact.split_once(' ').expect("more than a mode").1;
                fact = format!("mark {after_mode}");
            }
            if is_whiteout || kind.is_dir() {
                fact = without_time(&fact);
            }
            state.insert(path, fact);
        }
        state
    }

    /// Mounts the stack and compares everything that it shows, and these paths, with what
    /// layerctl says. Returns what is shown.
    #[track_caller]
    fn agrees(&self, paths: &[&str]) -> Facts {
        // Before the mount, which writes marks of its own.
        let listed = run::layerctl(["--format", "jsonl", "ls", "-R", "-l", &self.target()]);
        assert!(
            [Some(0), Some(1)].contains(&listed.status),
            "{}",
            listed.stderr
        );
        let mut all: BTreeSet<String> = paths.iter().map(|path| (*path).to_owned()).collect();
        let seen = {
            let mounted = self.mount();
            let seen = shown(&mounted.0);
            all.extend(
                seen.keys()
                    .map(|path| String::from_utf8_lossy(path).into_owned()),
            );
            self.compare_listing(&listed.rows(), &mounted.0);
            let there: Vec<bool> = all
                .iter()
                .map(|path| mounted.0.join(&path[1..]).symlink_metadata().is_ok())
                .collect();
            drop(mounted);
            self.compare_which(&all, &there);
            seen
        };
        // The mount itself is no trace of restore.
        let left = names(&self.at("work"));
        assert!(left.iter().all(|name| name == "work"), "{left:?}");
        seen
    }

    #[track_caller]
    fn compare_listing(&self, rows: &[Value], mounted: &Path) {
        let is_directory = |row: &Value| row["type"] == "directory";
        let told: Facts = rows
            .iter()
            .map(|row| {
                let size = if is_directory(row) {
                    &Value::Null
                } else {
                    &row["size"]
                };
                let target = row["link"].as_str().unwrap_or_default();
                let fact = format!(
                    "{} {} {}:{} {size} {} {target}",
                    row["type"],
                    row["mode"],
                    row["uid"],
                    row["gid"],
                    run::seconds(&row["mtime"]).expect("a time")
                );
                (bytes(&row["path"]), fact)
            })
            .collect();
        let mut seen = Facts::new();
        for path in shown(mounted).into_keys() {
            let at = mounted.join(OsStr::from_bytes(&path[1..]));
            let meta = fs::symlink_metadata(&at).expect("it was listed");
            let size = if meta.is_dir() {
                Value::Null
            } else {
                meta.len().into()
            };
            let target = fs::read_link(&at).unwrap_or_default();
            let fact = format!(
                "\"{}\" \"{:04o}\" {}:{} {size} {} {}",
                kind(&meta),
                meta.mode() & 0o7777,
                meta.uid(),
                meta.gid(),
                meta.mtime(),
                target.display()
            );
            seen.insert(path, fact);
        }
        assert!(
            told == seen,
            "ls -R (-) and the mount (+):\n{}",
            difference(&told, &seen)
        );
    }

    #[track_caller]
    fn compare_which(&self, paths: &BTreeSet<String>, there: &[bool]) {
        let target = self.target();
        let mut arguments = vec!["--format", "jsonl", "which", "--no-follow", "--in", &target];
        arguments.push("--");
        arguments.extend(paths.iter().map(String::as_str));
        if paths.is_empty() {
            return;
        }
        let rows = run::layerctl(arguments).rows();
        assert_eq!(rows.len(), paths.len());
        for ((path, is_there), row) in paths.iter().zip(there).zip(&rows) {
            assert_eq!(text(row, "state") == "present", *is_there, "{path}: {row}");
        }
    }
}

/// A mount that ends with it.
struct Mounted(PathBuf);

impl Mounted {
    #[track_caller]
    fn overlay(at: PathBuf, options: &str) -> Mounted {
        Mounted::overlay_with(at, options, MountFlags::empty())
    }

    #[track_caller]
    fn overlay_with(at: PathBuf, options: &str, flags: MountFlags) -> Mounted {
        let given = CString::new(options).expect("no NUL");
        rustix::mount::mount("overlay", &at, "overlay", flags, given.as_c_str())
            .unwrap_or_else(|errno| panic!("{options}: {errno}"));
        Mounted(at)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Whatever is mounted over it goes first.
        while rustix::mount::unmount(&self.0, UnmountFlags::empty()).is_ok() {}
        let _ = rustix::mount::unmount(&self.0, UnmountFlags::DETACH);
    }
}

fn kind(meta: &fs::Metadata) -> &'static str {
    match FileType::from_raw_mode(meta.mode()) {
        FileType::RegularFile => "file",
        FileType::Directory => "directory",
        FileType::Symlink => "symlink",
        FileType::Fifo => "fifo",
        FileType::Socket => "socket",
        FileType::CharacterDevice => "char",
        FileType::BlockDevice => "block",
        FileType::Unknown => "unknown",
    }
}

/// Everything below a mount in every detail that a copy shares, by its path there. What is listed
/// and not there is left out.
fn shown(mount: &Path) -> Facts {
    let mut facts = Facts::new();
    for entry in WalkDir::new(mount).min_depth(1).into_iter().flatten() {
        if entry.path().symlink_metadata().is_err() {
            continue;
        }
        let path = entry.path().strip_prefix(mount).expect("below it");
        let path = [b"/", path.as_os_str().as_bytes()].concat();
        facts.insert(path, fact(entry.path(), Detail::Copied));
    }
    facts
}

/// What is listed in a directory, in order.
fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("our own directory");
    let mut names: Vec<String> = entries
        .map(|entry| {
            entry
                .expect("our own")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    names.sort();
    names
}

fn without_time(fact: &str) -> String {
    match fact.split_once(" mtime ") {
        Some((before, after)) => {
            let rest = after.split_once(' ').map_or("", |(_, rest)| rest);
            format!("{before} {rest}").trim_end().to_owned()
        }
        None => fact.to_owned(),
    }
}

fn without_links(fact: &str) -> String {
    match fact.split_once(" links ") {
        Some((before, after)) => {
            let rest = after.split_once(' ').map_or("", |(_, rest)| rest);
            format!("{before} {rest}")
        }
        None => fact.to_owned(),
    }
}

fn without_attribute(fact: &str, name: &str) -> String {
    match fact.split_once(&format!(" {name}=[")) {
        Some((before, after)) => {
            let rest = after.split_once(']').map_or("", |(_, rest)| rest);
            format!("{before}{rest}")
        }
        None => fact.to_owned(),
    }
}

/// Facts without the times of directories, in which names were made.
fn settled(facts: Facts) -> Facts {
    let cut = |(path, fact): (Vec<u8>, String)| {
        let fact = if fact.starts_with('4') {
            without_time(&fact)
        } else {
            fact
        };
        (path, fact)
    };
    facts.into_iter().map(cut).collect()
}

/// The paths of what is shown.
fn paths(facts: &Facts) -> Vec<String> {
    let text = |path: &Vec<u8>| String::from_utf8_lossy(path).into_owned();
    facts.keys().map(text).collect()
}

/// Facts below a directory, by the path from there on.
fn below(facts: &Facts, directory: &str) -> Facts {
    let rest = |(path, fact): (&Vec<u8>, &String)| {
        let rest = path.strip_prefix(directory.as_bytes())?;
        Some((rest.to_vec(), fact.clone()))
    };
    facts.iter().filter_map(rest).collect()
}

fn actions(row: &Value) -> Vec<&str> {
    let steps = row["steps"].as_array().expect("steps");
    steps.iter().map(|step| text(step, "action")).collect()
}

/// Runs the commands that the report ended with.
#[track_caller]
fn take_back(row: &Value) {
    let commands = row["undo"].as_array().expect("commands");
    let commands: Vec<&str> = commands
        .iter()
        .map(|command| command.as_str().expect("text"))
        .collect();
    assert!(!commands.is_empty(), "{row}");
    let commands = commands.join(" && ");
    // Bytes that a terminal would act on are quoted in a way that not every shell knows.
    let shell = if commands.contains("$'") {
        "bash"
    } else {
        "sh"
    };
    let output = Command::new(shell)
        .args(["-ec", &commands])
        .output()
        .expect("a shell");
    assert!(
        output.status.success(),
        "{commands}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Brings a path back, lets the kernel look, takes it back, lets the kernel look again. Returns
/// what was done and what the kernel showed then.
#[track_caller]
fn there_and_back(lab: &Lab, options: &[&str], path: &str) -> (Value, Facts) {
    let old = lab.agrees(&[path]);
    let before = lab.state();
    let planned = lab.disk();
    let plan = lab.restore(&[options, &["--dry-run"]].concat(), path);
    let plan = plan.exits(0).row();
    assert_eq!(plan["applied"], false);
    assert_same(&planned, &lab.disk());
    let row = lab.brings_back(options, path);
    for field in ["steps", "undo", "strategy", "reappears"] {
        assert_eq!(plan[field], row[field], "{field}");
    }
    for branch in lab.lowers.split(':').filter(|name| !name.is_empty()) {
        let prefix = format!("{branch}/");
        assert_same(&below(&planned, &prefix), &below(&lab.disk(), &prefix));
    }
    let new = lab.agrees(&[path]);
    assert!(
        new.contains_key(path.as_bytes()),
        "{path} is not there: {row}"
    );
    take_back(&row);
    assert_same(&before, &lab.state());
    assert_same(&settled(old), &settled(lab.agrees(&[path])));
    (row, new)
}

fn attribute(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0; 4096];
    let length = lgetxattr(path, name, &mut value[..]).ok()?;
    value.truncate(length);
    Some(value)
}

/// An access list that lets user 1234 read, as the kernel keeps it.
fn access_list() -> Vec<u8> {
    let mut list = 2u32.to_le_bytes().to_vec();
    let everybody = u32::MAX;
    for (tag, permission, id) in [
        (0x01u16, 6u16, everybody),
        (0x02, 4, 1234),
        (0x04, 4, everybody),
        (0x10, 4, everybody),
        (0x20, 0, everybody),
    ] {
        list.extend(tag.to_le_bytes());
        list.extend(permission.to_le_bytes());
        list.extend(id.to_le_bytes());
    }
    list
}

/// `cap_net_raw+ep`, as the kernel keeps it.
fn capability() -> Vec<u8> {
    [0x0200_0001u32, 1 << 13, 0, 0, 0]
        .iter()
        .flat_map(|word| word.to_le_bytes())
        .collect()
}

/// Everything that a copy has to keep, at `directory`.
fn treasure(lab: &Lab, directory: &str) {
    let at = |name: &str| format!("{directory}/{name}");
    lab.file(at("file"), "content")
        .file(at("set-id"), "s")
        .file(at("listed"), "l");
    lab.file(at("capable"), "c")
        .file(at("one"), "linked")
        .hard_link(&at("one"), &at("sub/two"));
    lab.link(at("link"), "no/where");
    lab.node(&at("fifo"), FileType::Fifo, 0)
        .node(&at("socket"), FileType::Socket, 0)
        .node(&at("null"), FileType::CharacterDevice, makedev(1, 3))
        .node(&at("disk"), FileType::BlockDevice, makedev(7, 200));
    let mut sparse = fs::File::create(lab.at(at("sparse"))).expect("our own");
    sparse.set_len(8 << 20).expect("our own");
    sparse.write_all(b"start").expect("our own");
    for name in [
        "file", "set-id", "listed", "capable", "one", "link", "fifo", "null", "sparse", "sub",
    ] {
        lab.owner(at(name), 1001, 1002);
    }
    lab.mode(at("file"), 0o640)
        .mode(at("set-id"), 0o6755)
        .mode(at("sub"), 0o1770);
    lab.mode(directory, 0o751).owner(directory, 1003, 1004);
    lab.xattr(at("file"), "user.note", b"kept")
        .xattr(at("sub"), "user.note", b"too");
    lab.xattr(at("link"), "trusted.note", b"of a link");
    lab.xattr(at("listed"), "system.posix_acl_access", &access_list());
    lab.xattr(at("sub"), "system.posix_acl_default", &access_list());
    lab.xattr(at("capable"), "security.capability", &capability());
    for name in [
        "file", "set-id", "listed", "capable", "one", "link", "fifo", "socket", "null", "disk",
        "sparse", "sub", "",
    ] {
        lab.time(at(name), 1_234_567_890);
    }
}

/// Holes and links, which facts do not tell.
#[track_caller]
fn is_the_treasure(directory: &Path) {
    let meta = |name: &str| fs::symlink_metadata(directory.join(name)).expect("it is there");
    assert!(
        meta("sparse").blocks() < 1000,
        "{} blocks",
        meta("sparse").blocks()
    );
    assert_eq!(meta("one").ino(), meta("sub/two").ino());
    assert_eq!(meta("one").nlink(), 2);
}
