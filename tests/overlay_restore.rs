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
use std::thread::sleep;
use std::time::Duration;

use rustix::fs::{FileType, FlockOperation, lgetxattr, makedev};
use rustix::mount::{MountFlags, UnmountFlags};
use serde_json::Value;
use walkdir::WalkDir;

use crate::lab::host::Host;
use crate::lab::run::{self, Output, bytes, text};
use crate::lab::{has_strace, is_root, skip};

// It is AUFS's, too, and not all of it is of use here.
#[allow(dead_code, clippy::duplicate_mod)]
#[path = "lab/union.rs"]
mod union;

use union::{Detail, Facts, Union, assert_same, difference, fact, facts};

// ---- a place of its own for every test ----

/// Set where a test runs in namespaces of its own.
const INSIDE: &str = "LAYERCTL_OVERLAY_RESTORE_INSIDE";

fn unshared() -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private"]);
    command.args(["--pid", "--fork", "--kill-child", "--mount-proc"]);
    command
}

/// Why nothing can be mounted here, if so.
fn why_not() -> Option<&'static str> {
    static WHY: OnceLock<Option<String>> = OnceLock::new();
    let why = WHY.get_or_init(|| {
        if !is_root() {
            return Some("this is not root".into());
        }
        // What the commands to take a mark back by are made of.
        if Command::new("setfattr").arg("--version").output().is_err() {
            return Some("setfattr is not installed (package attr)".into());
        }
        let probe = tempfile::tempdir().expect("a directory");
        for name in ["lower", "upper", "work", "mount"] {
            fs::create_dir(probe.path().join(name)).expect("a new directory");
        }
        let mounted = unshared()
            .current_dir(probe.path())
            .args(["mount", "-t", "overlay", "overlay", "-o"])
            .args(["lowerdir=lower,upperdir=upper,workdir=work", "mount"])
            .output();
        match mounted {
            Ok(output) if output.status.success() => None,
            Ok(output) => Some(String::from_utf8_lossy(&output.stderr).into_owned()),
            Err(error) => Some(format!("unshare: {error}")),
        }
    });
    why.as_deref()
}

fn not_here(why: &str) {
    assert!(
        std::env::var_os("LAYERCTL_MUST_MOUNT").is_none(),
        "LAYERCTL_MUST_MOUNT is set, but {why}"
    );
    skip(why);
}

/// Runs the calling test once more, alone in its own namespaces, or is that run.
fn in_own_mounts<F: FnOnce()>(body: F) {
    alone(body, None);
}

/// The same where making a change last takes no time.
fn in_memory<F: FnOnce()>(body: F) {
    let place = tempfile::tempdir().expect("a directory");
    alone(body, Some(place.path()));
}

fn alone<F: FnOnce()>(body: F, memory: Option<&Path>) {
    if std::env::var_os(INSIDE).is_some() {
        if memory.is_some() {
            cover(&std::env::temp_dir());
        }
        return body();
    }
    if let Some(why) = why_not() {
        return not_here(&format!("no overlay is restored in: {why}"));
    }
    // The closure is called after the test: CRATE::MODULE::TEST::{{closure}}.
    let whole = std::any::type_name::<F>();
    let name = whole.split_once("::").map_or(whole, |(_, name)| name);
    let name = name.trim_end_matches("::{{closure}}");
    let output = unshared()
        .arg(std::env::current_exe().expect("this program has a path"))
        .args(["--exact", name, "--nocapture"])
        .env(INSIDE, "1")
        .envs(memory.map(|place| ("TMPDIR", place)))
        .output()
        .expect("unshare ran before");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && String::from_utf8_lossy(&output.stdout).contains("1 passed"),
        "{said}"
    );
    eprint!("{said}");
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
            By::Kernel => {
                let options = CString::new(self.mount_options()).expect("no NUL");
                rustix::mount::mount("overlay", &merged, "overlay", flags, options.as_c_str())
                    .unwrap_or_else(|errno| panic!("{}: {errno}", self.mount_options()));
            }
            By::FuseOverlayfs => {
                let output = Command::new("fuse-overlayfs")
                    .args(["-o", &self.mount_options()])
                    .arg(&merged)
                    .output();
                let output = output.expect("asked for before");
                assert!(output.status.success(), "{output:?}");
            }
        }
        Mounted(merged)
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
                let target = row["target"].as_str().unwrap_or_default();
                let fact = format!(
                    "{} {} {}:{} {size} {} {target}",
                    row["type"], row["mode"], row["uid"], row["gid"], row["mtime"]
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

mod unhide {
    use super::*;

    #[test]
    fn of_what_the_kernel_deleted() {
        in_own_mounts(|| {
            let lab = Lab::usual();
            lab.file("mid/f", "before")
                .file("low/f", "older")
                .file("low/g", "stays deleted");
            lab.with_mount(|merged| {
                fs::remove_file(merged.join("f")).expect("it is there");
                fs::remove_file(merged.join("g")).expect("it is there");
            });
            let (row, new) = there_and_back(&lab, &[], "/f");
            assert_eq!(row["strategy"], "unhide");
            assert_eq!(actions(&row), ["remove-mark", "look"]);
            assert_eq!(paths(&new), ["/f"]);
            assert_eq!(new[&b"/f"[..]], fact(&lab.at("mid/f"), Detail::Copied));
        });
    }

    #[test]
    fn removes_the_mark_and_nothing_else() {
        in_own_mounts(|| {
            let lab = Lab::usual();
            lab.file("low/d/f", "before").file("up/d/new", "mine");
            lab.device("up/d/f").device("up/d/g").file("low/d/g", "");
            let mut expected = lab.disk();
            expected.remove(&b"up/d/f"[..]).expect("a mark");
            lab.brings_back(&[], "/d/f");
            // Removing a name is a change of its directory.
            expected.insert(b"up/d".to_vec(), lab.disk()[&b"up/d"[..]].clone());
            assert_same(&expected, &lab.disk());
            assert_eq!(paths(&lab.agrees(&["/d/g"])), ["/d", "/d/f", "/d/new"]);
        });
    }

    #[test]
    fn of_a_mark_by_attribute() {
        in_own_mounts(|| {
            for options in ["", ",userxattr"] {
                let lab = Lab::of("mid:low", options);
                lab.file("low/d/f", "before").attribute("up/d/f", b"");
                lab.attribute("up/d/g", b"").file("low/d/g", "");
                let (row, new) = there_and_back(&lab, &[], "/d/f");
                assert_eq!(row["strategy"], "unhide");
                assert_eq!(paths(&new), ["/d", "/d/f"]);
            }
        });
    }

    #[test]
    fn of_a_whole_directory() {
        in_own_mounts(|| {
            for options in ["", ",userxattr"] {
                let lab = Lab::of("mid:low", options);
                lab.file("low/d/e/x", "x")
                    .file("mid/d/y", "y")
                    .file("low/d/z", "z");
                lab.device("mid/d/z").device("up/d");
                let (row, new) = there_and_back(&lab, &[], "/d");
                assert_eq!(row["strategy"], "unhide");
                assert_eq!(paths(&new), ["/d", "/d/e", "/d/e/x", "/d/y"]);
            }
        });
    }

    #[test]
    fn gives_a_mark_its_mode_back_when_it_is_taken_back() {
        in_own_mounts(|| {
            let lab = Lab::usual();
            lab.file("low/f", "before");
            lab.with_mount(|merged| fs::remove_file(merged.join("f")).expect("it is there"));
            let before = fact(&lab.at("up/f"), Detail::Copied);
            let row = lab.brings_back(&[], "/f");
            take_back(&row);
            let after = fact(&lab.at("up/f"), Detail::Copied);
            assert_eq!(without_time(&before), without_time(&after));
        });
    }

    #[test]
    fn of_an_opaque_directory_says_what_reappears_and_asks() {
        in_own_mounts(|| {
            for options in ["", ",userxattr"] {
                let lab = Lab::of("mid:low", options);
                lab.file("mid/d/x", "asked")
                    .file("low/d/y", "")
                    .file("mid/d/e/z", "");
                lab.opaque("up/d")
                    .file("up/d/new", "")
                    .device("up/d/z")
                    .file("low/d/z", "");
                let unhide = ["--strategy", "unhide"];
                let refusal = lab.refuses_and_changes_nothing(&lab.target(), &unhide, "/d/x");
                for words in ["/d/y", "/d/e", "--yes"] {
                    assert!(refusal.stderr.contains(words), "{}", refusal.stderr);
                }
                assert!(!refusal.stderr.contains("/d/z"), "{}", refusal.stderr);
                let (row, new) = there_and_back(&lab, &[&unhide[..], &["--yes"]].concat(), "/d/x");
                assert_eq!(row["reappears"].to_string(), r#"["/d/e","/d/y"]"#);
                assert_eq!(
                    paths(&new),
                    ["/d", "/d/e", "/d/e/z", "/d/new", "/d/x", "/d/y"]
                );
            }
        });
    }

    #[test]
    fn of_a_deleted_ancestor_says_what_reappears_and_asks() {
        in_own_mounts(|| {
            let lab = Lab::usual();
            lab.file("mid/d/x", "asked")
                .file("low/d/y", "")
                .device("up/d");
            let unhide = ["--strategy", "unhide"];
            lab.refuses_and_changes_nothing(&lab.target(), &unhide, "/d/x")
                .says("/d/y");
            let (row, new) = there_and_back(&lab, &[&unhide[..], &["-y"]].concat(), "/d/x");
            assert_eq!(row["reappears"].to_string(), r#"["/d/y"]"#);
            assert_eq!(paths(&new), ["/d", "/d/x", "/d/y"]);
        });
    }

    #[test]
    fn is_refused_where_another_mark_hides_it_too() {
        in_own_mounts(|| {
            let lab = Lab::usual();
            lab.device("up/f").device("mid/f").file("low/f", "x");
            let unhide = ["--strategy", "unhide"];
            let refusal = lab.refuses_and_changes_nothing(&lab.target(), &unhide, "/f");
            refusal.says("--strategy copy");
            // Without being told how it finds the other way.
            let (row, _) = there_and_back(&lab, &[], "/f");
            assert_eq!(row["strategy"], "copy");
        });
    }
}

mod copy {
    use super::*;

    const COPY: [&str; 2] = ["--strategy", "copy"];

    #[test]
    fn takes_the_place_of_a_mark_of_either_kind() {
        in_own_mounts(|| {
            for options in ["", ",userxattr"] {
                let lab = Lab::of("mid:low", options);
                treasure(&lab, "low/d");
                let all = names(&lab.at("low/d"));
                let leaves: Vec<&String> = all.iter().filter(|name| *name != "sub").collect();
                for (index, name) in leaves.iter().enumerate() {
                    let mark = format!("up/d/{name}");
                    match index % 2 {
                        0 => lab.device(&mark),
                        _ => lab.attribute(&mark, b""),
                    };
                }
                lab.attribute("up/d/x", b"");
                let before = lab.state();
                assert_eq!(paths(&lab.agrees(&[])), ["/d", "/d/sub", "/d/sub/two"]);
                let mut done = Vec::new();
                for name in &leaves {
                    done.push(lab.brings_back(&COPY, &format!("/d/{name}")));
                }
                let new = lab.agrees(&[]);
                for name in leaves {
                    let path = format!("/d/{name}").into_bytes();
                    let lower = fact(&lab.at(format!("low/d/{name}")), Detail::Copied);
                    assert_eq!(new.get(&path), Some(&lower), "{name}");
                }
                done.iter().for_each(take_back);
                assert_same(&before, &lab.state());
            }
        });
    }

    #[test]
    fn of_a_directory_is_opaque_and_keeps_everything() {
        in_own_mounts(|| {
            for options in ["", ",userxattr"] {
                let lab = Lab::of("mid:low", options);
                treasure(&lab, "low/d");
                lab.file("mid/d/more", "merged")
                    .device("mid/d/gone")
                    .file("low/d/gone", "");
                lab.mode("mid/d", 0o711).time("mid/d", 1_000_000_000);
                let merged = lab.agrees(&[]);
                lab.device("up/d");
                lab.refuses_and_changes_nothing(&lab.target(), &COPY, "/d")
                    .says("-r");
                let row = lab.brings_back(&[&COPY[..], &["-r"]].concat(), "/d");
                assert_eq!(
                    actions(&row),
                    ["copy", "make-opaque", "remove-mark", "look"]
                );
                assert_eq!(
                    attribute(&lab.at("up/d"), &lab.own("opaque")),
                    Some(b"y".to_vec())
                );
                is_the_treasure(&lab.at("up/d"));
                let new = lab.agrees(&["/d/gone"]);
                assert_same(&merged, &new);
                // Nothing shines through, whatever becomes of the copy.
                fs::remove_file(lab.at("up/d/more")).expect("it was copied");
                assert!(!lab.agrees(&[]).contains_key(&b"/d/more"[..]));
                take_back(&row);
                lab.agrees(&["/d"]);
                assert_eq!(names(&lab.at("up")), ["d"]);
            }
        });
    }

    #[test]
    fn of_a_directory_over_a_mark_by_attribute() {
        in_own_mounts(|| {
            let lab = Lab::usual();
            lab.file("low/a/d/x", "x").attribute("up/a/d", b"");
            let (_, new) = there_and_back(&lab, &[&COPY[..], &["-r"]].concat(), "/a/d");
            assert_eq!(paths(&new), ["/a", "/a/d", "/a/d/x"]);
        });
    }

    #[test]
    fn out_of_a_deleted_ancestor_brings_only_what_was_asked_for() {
        in_own_mounts(|| {
            for options in ["", ",userxattr"] {
                let lab = Lab::of("mid:low", options);
                lab.file("low/d/e/x", "asked")
                    .file("low/d/e/y", "")
                    .file("mid/d/z", "");
                lab.mode("low/d/e", 0o701)
                    .owner("low/d/e", 7, 8)
                    .time("low/d/e", 1_000_000_000);
                lab.mode("mid/d", 0o710)
                    .xattr("mid/d", "user.note", b"kept")
                    .device("up/d");
                let (row, new) = there_and_back(&lab, &[], "/d/e/x");
                assert_eq!(row["strategy"], "copy");
                assert_eq!(paths(&new), ["/d", "/d/e", "/d/e/x"]);
                assert_eq!(new[&b"/d/e"[..]], fact(&lab.at("low/d/e"), Detail::Copied));
                assert_eq!(new[&b"/d"[..]], fact(&lab.at("mid/d"), Detail::Copied));
            }
        });
    }

    #[test]
    fn into_an_opaque_directory() {
        in_own_mounts(|| {
            for options in ["", ",userxattr"] {
                let lab = Lab::of("mid:low", options);
                lab.file("mid/d/x", "asked")
                    .file("mid/d/y", "")
                    .file("low/d/e/z", "deep");
                lab.opaque("up/d").file("up/d/new", "");
                let (row, new) = there_and_back(&lab, &[], "/d/x");
                assert_eq!(
                    (&row["strategy"], &row["hidden_by"]["kind"]),
                    (&"copy".into(), &"opaque".into())
                );
                assert_eq!(paths(&new), ["/d", "/d/new", "/d/x"]);
                let (_, new) = there_and_back(&lab, &[], "/d/e/z");
                assert_eq!(paths(&new), ["/d", "/d/e", "/d/e/z", "/d/new"]);
                let (_, new) = there_and_back(&lab, &["-r"], "/d/e");
                assert_eq!(paths(&new), ["/d", "/d/e", "/d/e/z", "/d/new"]);
            }
        });
    }

    #[test]
    fn makes_the_directories_on_the_way_as_the_union_shows_them() {
        in_own_mounts(|| {
            for options in ["", ",userxattr"] {
                let lab = Lab::of("mid:low", options);
                lab.device("mid/a/b/x")
                    .file("low/a/b/x", "asked")
                    .file("low/a/b/y", "");
                lab.mode("mid/a/b", 0o701)
                    .owner("mid/a/b", 5, 6)
                    .mode("mid/a", 0o2710);
                lab.xattr("mid/a", &lab.own("origin"), b"not to be copied");
                lab.xattr("mid/a/b", "system.posix_acl_default", &access_list());
                lab.time("mid/a/b", 1_000_000_000)
                    .time("mid/a", 1_000_000_001);
                let old = lab.agrees(&["/a/b/x"]);
                let (row, new) = there_and_back(&lab, &[], "/a/b/x");
                let made = ["make-directory", "make-directory", "copy", "look"];
                assert_eq!(actions(&row), made);
                let mut rest = new.clone();
                rest.remove(&b"/a/b/x"[..]).expect("restored");
                assert_same(&settled(old), &settled(rest));
            }
        });
    }

    #[test]
    fn of_a_file_whose_content_lies_in_another_branch() {
        in_own_mounts(|| {
            for (lowers, redirect) in [("mid:low", None), ("mid::low", Some(&b"/data/f"[..]))] {
                let lab = Lab::of(lowers, ",metacopy=on");
                let data = if redirect.is_some() {
                    "low/data/f"
                } else {
                    "low/d/f"
                };
                lab.file(data, "the content").mode(data, 0o600);
                fs::create_dir_all(lab.at("mid/d")).expect("our own");
                let meta = fs::File::create(lab.at("mid/d/f")).expect("our own");
                meta.set_len(11).expect("our own");
                lab.mode("mid/d/f", 0o640).owner("mid/d/f", 9, 10);
                lab.xattr("mid/d/f", "user.note", b"of the metadata");
                lab.xattr("mid/d/f", "trusted.overlay.metacopy", b"");
                if let Some(redirect) = redirect {
                    lab.xattr("mid/d/f", "trusted.overlay.redirect", redirect);
                }
                lab.time("mid/d/f", 1_000_000_000).device("up/d/f");
                let (row, unhidden) = there_and_back(&lab, &[], "/d/f");
                assert_eq!(row["strategy"], "unhide");
                let (_, copied) = there_and_back(&lab, &COPY, "/d/f");
                assert_same(&settled(unhidden.clone()), &settled(copied));
                let of_file = &unhidden[&b"/d/f"[..]];
                assert!(
                    of_file.contains("the content") && of_file.contains("user.note"),
                    "{of_file}"
                );
                lab.brings_back(&["--to", "out"], "/d/f");
                assert_eq!(&fact(&lab.at("out/f"), Detail::Copied), of_file);
                lab.brings_back(&COPY, "/d/f");
                assert_eq!(&fact(&lab.at("up/d/f"), Detail::Copied), of_file);
            }
        });
    }

    #[test]
    fn leaves_what_is_overlays_own_and_keeps_what_is_escaped() {
        in_own_mounts(|| {
            for options in ["", ",userxattr"] {
                let lab = Lab::of("mid:low", options);
                let other = if lab.is_user() { "trusted" } else { "user" };
                let escaped = lab.own("overlay.opaque");
                for path in ["mid/d/f", "mid/d"] {
                    lab.file("mid/d/f", "x");
                    lab.xattr(path, &lab.own("origin"), b"own")
                        .xattr(path, &escaped, b"y");
                    lab.xattr(path, &lab.own("protattr"), b"own");
                    lab.xattr(path, &format!("{other}.overlay.origin"), b"somebody's");
                }
                lab.xattr("mid/d", &lab.own("impure"), b"y");
                let shown = lab.agrees(&[]);
                assert!(shown[&b"/d"[..]].contains(&lab.own("opaque")), "{shown:?}");
                lab.device("up/d");
                lab.brings_back(&["--to", "out", "-r"], "/d");
                for path in ["", "/f"] {
                    let out = fact(&lab.at(format!("out/d{path}")), Detail::Copied);
                    assert_eq!(out, shown[format!("/d{path}").as_bytes()]);
                }
                lab.brings_back(&[&COPY[..], &["-r"]].concat(), "/d");
                for path in ["up/d", "up/d/f"] {
                    let at = lab.at(path);
                    for own in ["origin", "protattr", "impure"] {
                        assert_eq!(attribute(&at, &lab.own(own)), None, "{path} {own}");
                    }
                    assert_eq!(attribute(&at, &escaped), Some(b"y".to_vec()), "{path}");
                }
                assert_eq!(attribute(&lab.at("up/d/f"), &lab.own("opaque")), None);
                assert_same(&shown, &lab.agrees(&[]));
            }
        });
    }

    #[test]
    fn out_of_the_union_touches_nothing_in_it() {
        in_own_mounts(|| {
            let lab = Lab::usual();
            treasure(&lab, "low/d");
            let old = lab.agrees(&[]);
            lab.device("up/d");
            let before = (lab.branch("up"), lab.branch("low"), lab.branch("work"));
            let row = lab.brings_back(&["--to", "out", "-r"], "/d");
            assert_eq!(row["strategy"], "copy-out");
            let copied = shown(&lab.at("out"));
            assert_same(&old, &copied);
            is_the_treasure(&lab.at("out/d"));
            lab.refuses_and_changes_nothing(&lab.target(), &["--to", "out", "-r"], "/d");
            take_back(&row);
            assert!(names(&lab.at("out")).is_empty());
            // One file of it, whatever has its name.
            for take in [&|at: &Path| fs::create_dir(at), &|at: &Path| {
                fs::write(at, "mine")
            }] as [&dyn Fn(&Path) -> std::io::Result<()>; 2]
            {
                take(&lab.at("out/file")).expect("nothing has the name");
                lab.refuses_and_changes_nothing(&lab.target(), &["--to", "out"], "/d/file");
                let _ = fs::remove_dir(lab.at("out/file"));
            }
            lab.refuses_and_changes_nothing(&lab.target(), &["--to", "up"], "/d/file");
            lab.refuses_and_changes_nothing(&lab.target(), &["--to", "low/d"], "/d/file");
            assert_same(&before.0, &lab.branch("up"));
            assert_same(&before.1, &lab.branch("low"));
            assert_same(&before.2, &lab.branch("work"));
        });
    }

    #[test]
    fn of_what_is_there_again_changes_nothing() {
        in_own_mounts(|| {
            let lab = Lab::usual();
            lab.file("low/f", "before")
                .file("up/f", "mine")
                .file("low/d/x", "")
                .file("up/d", "mine");
            let before = lab.disk();
            for options in [&[][..], &COPY, &["--strategy", "unhide"]] {
                for path in ["/f", "/d"] {
                    let row = lab.restore(options, path).exits(1).row();
                    assert!(text(&row, "nothing").contains("it is there"), "{row}");
                }
            }
            lab.restore(&COPY, "/d/x");
            assert_same(&before, &lab.disk());
        });
    }

    /// Nothing can be renamed from one mount to another, though both are of one file system.
    #[test]
    fn where_the_directory_beside_it_is_of_another_mount() {
        in_own_mounts(|| {
            let lab = Lab::usual();
            lab.file("low/d/f", "before").dir("elsewhere");
            let bind = |name: &str| {
                rustix::mount::mount_bind(lab.at("elsewhere"), lab.at(name)).expect("root may");
                Mounted(lab.at(name))
            };
            {
                let _upper = bind("up");
                lab.device("up/d");
                lab.restore(&[], "/d/f").exits(0);
                assert_eq!(fs::read(lab.at("up/d/f")).expect("it is there"), b"before");
                assert_eq!(names(&lab.at("up/d")), ["f"]);
                assert_eq!(names(&lab.at("up")), ["d"]);
            }
            assert_eq!(names(&lab.at("work")), ["work"]);
        });
    }

    #[test]
    fn where_no_directory_is_beside_it() {
        in_own_mounts(|| {
            let lab = Lab::usual();
            lab.file("low/d/f", "before")
                .file("low/t/x", "x")
                .device("up/d")
                .device("up/t");
            fs::remove_dir_all(lab.at("work")).expect("our own");
            lab.restore(&[], "/d/f").exits(0);
            lab.restore(&[&COPY[..], &["-r"]].concat(), "/t").exits(0);
            lab.dir("work/work");
            assert_eq!(paths(&lab.agrees(&[])), ["/d", "/d/f", "/t", "/t/x"]);
        });
    }

    /// A link leads to where it leads in the union, and not out of it.
    #[test]
    fn through_a_link() {
        in_own_mounts(|| {
            for is_mounted in [false, true] {
                let lab = Lab::usual();
                lab.file("low/real/f", "before").device("up/real/f");
                lab.link("up/way", "/real").link("low/out", lab.at("out"));
                let out = format!("low{}", lab.at("out").display());
                lab.file(format!("{out}/x"), "inside")
                    .device(&format!("up{}/x", &out[3..]));
                let mounted = is_mounted.then(|| lab.mount());
                let row = lab.restore(&[], "/way/f").exits(0).row();
                assert_eq!(row["path"], "/real/f");
                lab.restore(&[], "/out/x").exits(0);
                assert!(names(&lab.at("out")).is_empty());
                drop(mounted);
                let shown = lab.agrees(&[]);
                assert!(shown[&b"/real/f"[..]].contains("before"));
                assert!(shown[format!("{}/x", &out[3..]).as_bytes()].contains("inside"));
            }
        });
    }

    #[test]
    fn of_odd_names_in_odd_places() {
        in_own_mounts(|| {
            let home = tempfile::tempdir().expect("a directory");
            let odd = home.path().join("a b:c,d\\e'f");
            let lab = Lab::on(Union::at_home(&odd, &[]), "mid:low", "");
            let name = "it's \\ a $(false) `false` \"file\"";
            lab.file(format!("low/{name}"), "before")
                .device(&format!("up/{name}"));
            lab.file(format!("low/d {name}/x"), "x")
                .device(&format!("up/d {name}"));
            let path = format!("/{name}");
            there_and_back(&lab, &[], &path);
            there_and_back(&lab, &COPY, &path);
            there_and_back(&lab, &[], &format!("/d {name}/x"));
            let mounted = lab.mount();
            let row = lab.restore(&[], &path).exits(0).row();
            assert_eq!(
                fs::read(mounted.0.join(name)).expect("it is there"),
                b"before"
            );
            take_back(&row);
            assert!(!mounted.0.join(name).exists());
        });
    }

    /// Whoever holds the branch has changed it by the time that a run goes on.
    #[test]
    fn looks_again_after_it_had_to_wait() {
        in_own_mounts(|| {
            for options in [&[][..], &COPY] {
                let lab = Lab::usual();
                lab.file("low/f", "before").device("up/f");
                let upper = fs::File::open(lab.at("up")).expect("our own");
                rustix::fs::flock(&upper, FlockOperation::LockExclusive).expect("nobody has it");
                let mut waiting = lab
                    .command(&lab.target(), options, "/f")
                    .stdout(Stdio::null())
                    .spawn()
                    .expect("layerctl was built");
                sleep(Duration::from_millis(150));
                fs::remove_file(lab.at("up/f")).expect("a mark");
                lab.file("up/f", "mine");
                drop(upper);
                let status = waiting.wait().expect("it ends");
                assert_eq!(status.code(), Some(1), "{options:?}");
                assert_eq!(fs::read(lab.at("up/f")).expect("it stays"), b"mine");
                assert_eq!(names(&lab.at("work")), ["work"]);
            }
        });
    }

    /// What stands in the place of the mark when the copy is done is left alone.
    #[test]
    fn is_not_put_over_what_is_no_mark_any_more() {
        in_own_mounts(|| {
            if !has_strace() {
                return not_here("strace is not installed");
            }
            for path in ["f", "d"] {
                let lab = Lab::usual();
                lab.file("low/f", "before").device("up/f");
                lab.file("low/d/x", "before").device("up/d");
                let mut strace = Command::new("strace");
                strace.args(["-f", "-o", "/dev/null", "-e", "trace=fsync"]);
                strace.args(["-e", "inject=fsync:delay_enter=800000:when=1"]);
                let options = [&COPY[..], &["-r"]].concat();
                let command = lab.command(&lab.target(), &options, &format!("/{path}"));
                let mut slow = under(strace, &command)
                    .stdout(Stdio::null())
                    .stderr(Stdio::null())
                    .spawn()
                    .expect("strace");
                sleep(Duration::from_millis(400));
                let at = lab.at(format!("up/{path}"));
                fs::remove_file(&at).expect("a mark");
                fs::write(&at, "mine").expect("our own");
                assert_eq!(slow.wait().expect("it ends").code(), Some(2), "{path}");
                assert_eq!(fs::read(&at).expect("it stays"), b"mine");
                assert_eq!(names(&lab.at("work")), ["work"]);
            }
        });
    }
}

/// Directories whose lower content has another name there.
mod renamed {
    use super::*;

    const COPY: [&str; 2] = ["--strategy", "copy"];

    /// `/old` has been renamed to `/moved`, and two files deleted in it.
    fn moved() -> Lab {
        let lab = Lab::of("mid:low", ",redirect_dir=on");
        lab.file("low/old/f", "before")
            .file("low/old/g", "g")
            .file("mid/old/e/x", "deep");
        lab.time("low/old/f", 1_000_000_000)
            .mode("mid/old/e", 0o701);
        lab.with_mount(|merged| {
            fs::rename(merged.join("old"), merged.join("moved")).expect("redirects are on");
            fs::remove_file(merged.join("moved/f")).expect("it is there");
            fs::remove_dir_all(merged.join("moved/e")).expect("it is there");
        });
        assert!(attribute(&lab.at("up/moved"), "trusted.overlay.redirect").is_some());
        lab
    }

    /// What has the new name below has nothing to do with it.
    fn with_another(lab: &Lab) -> &Lab {
        lab.file("low/moved/f", "another")
            .file("low/moved/e/x", "another");
        lab
    }

    #[track_caller]
    fn comes_back(lab: &Lab) {
        let (row, new) = there_and_back(lab, &[], "/moved/f");
        assert_eq!(row["strategy"], "unhide");
        let of_file = fact(&lab.at("low/old/f"), Detail::Copied);
        assert_eq!(new[&b"/moved/f"[..]], of_file);
        lab.brings_back(&["--to", "out"], "/moved/f");
        assert_eq!(fact(&lab.at("out/f"), Detail::Copied), of_file);
        let (_, new) = there_and_back(lab, &COPY, "/moved/f");
        assert_eq!(new[&b"/moved/f"[..]], of_file);
        let (_, new) = there_and_back(lab, &[], "/moved/e/x");
        assert!(new[&b"/moved/e/x"[..]].contains("deep"), "{new:?}");
    }

    #[test]
    fn a_deleted_file_comes_back() {
        in_own_mounts(|| comes_back(&moved()));
    }

    #[test]
    fn another_below_of_the_new_name_is_not_taken_for_it() {
        in_own_mounts(|| comes_back(with_another(&moved())));
    }

    #[test]
    fn a_deleted_file_comes_back_through_the_mount() {
        in_own_mounts(|| {
            for another in [false, true] {
                let lab = moved();
                if another {
                    with_another(&lab);
                }
                let mounted = lab.mount();
                lab.restore(&[], "/moved/f").exits(0);
                let now = fact(&mounted.0.join("moved/f"), Detail::Copied);
                assert_eq!(now, fact(&lab.at("low/old/f"), Detail::Copied));
            }
        });
    }

    #[test]
    fn the_old_name_is_copied_beside_the_new_one() {
        in_own_mounts(|| {
            let lab = moved();
            let (_, new) = there_and_back(&lab, &[&COPY[..], &["-r"]].concat(), "/old");
            assert!(new[&b"/old/f"[..]].contains("before"), "{new:?}");
            assert!(new.contains_key(&b"/moved/g"[..]), "{new:?}");
        });
    }

    /// Two names of one lower directory the kernel does not have: without its mark the old one
    /// would take the new one's place, which answers ESTALE from then on.
    #[test]
    fn the_old_name_comes_back_beside_the_new_one() {
        in_own_mounts(|| {
            let lab = moved();
            let (_, new) = there_and_back(&lab, &["-r"], "/old");
            assert!(new[&b"/old/f"[..]].contains("before"), "{new:?}");
            assert!(new.contains_key(&b"/moved/g"[..]), "{new:?}");
        });
    }

    /// The directory of the same name was itself renamed, by a lower branch.
    #[test]
    fn the_old_name_in_a_directory_that_was_renamed_below() {
        in_own_mounts(|| {
            let lab = Lab::of("mid:low", ",redirect_dir=on");
            lab.file("low/d/x/f", "before").device("mid/d");
            lab.dir("mid/e")
                .xattr("mid/e", "trusted.overlay.redirect", b"d");
            lab.with_mount(|merged| {
                fs::rename(merged.join("e/x"), merged.join("e/y")).expect("redirects are on");
            });
            let (row, new) = there_and_back(&lab, &["-r"], "/e/x");
            assert_eq!(row["strategy"], "copy");
            assert!(new[&b"/e/x/f"[..]].contains("before"), "{new:?}");
            assert!(new.contains_key(&b"/e/y/f"[..]), "{new:?}");
        });
    }

    /// What the whole directory had before it was deleted lies where only its redirect leads.
    #[test]
    fn what_lay_in_a_deleted_directory_that_was_renamed_below() {
        in_own_mounts(|| {
            let lab = Lab::of("mid:low", ",redirect_dir=on");
            lab.file("low/d/f", "before").device("mid/d");
            lab.dir("mid/e")
                .xattr("mid/e", "trusted.overlay.redirect", b"d");
            lab.with_mount(|merged| fs::remove_dir_all(merged.join("e")).expect("it is there"));
            let (_, new) = there_and_back(&lab, &[], "/e/f");
            assert!(new[&b"/e/f"[..]].contains("before"), "{new:?}");
        });
    }

    /// The writable branch gets a directory of its own above one that says where it was.
    #[test]
    fn in_a_directory_that_the_upper_one_lacks() {
        in_own_mounts(|| {
            let lab = Lab::of("mid:low", ",redirect_dir=on");
            lab.file("low/old/x", "asked")
                .file("low/old/y", "y")
                .device("mid/old");
            lab.dir("mid/new").device("mid/new/x");
            lab.xattr("mid/new", "trusted.overlay.redirect", b"old");
            let (_, new) = there_and_back(&lab, &[], "/new/x");
            assert_eq!(paths(&new), ["/new", "/new/x", "/new/y"]);
            assert!(new[&b"/new/x"[..]].contains("asked"));
        });
    }

    #[test]
    fn a_changed_file_is_reverted() {
        in_own_mounts(|| {
            for another in [false, true] {
                for is_mounted in [false, true] {
                    let lab = moved();
                    if another {
                        lab.file("low/moved/g", "another");
                    }
                    lab.with_mount(|merged| {
                        fs::write(merged.join("moved/g"), "changed").expect("root may");
                    });
                    let mounted = is_mounted.then(|| lab.mount());
                    lab.restore(&["--revert", "--discard"], "/moved/g").exits(0);
                    let mounted = mounted.unwrap_or_else(|| lab.mount());
                    let now = fs::read_to_string(mounted.0.join("moved/g"));
                    assert_eq!(now.expect("it is there"), "g", "{another} {is_mounted}");
                }
            }
        });
    }
}

mod revert {
    use super::*;

    fn copied_up(options: &'static str) -> Lab {
        let lab = Lab::of("mid:low", options);
        lab.file("mid/d/f", "before")
            .mode("mid/d/f", 0o640)
            .owner("mid/d/f", 3, 4);
        lab.xattr("mid/d/f", "user.note", b"kept")
            .time("mid/d/f", 1_000_000_000);
        lab.file("low/d/f", "older").file("mid/d/g", "stays");
        lab.with_mount(|merged| {
            let mut file = fs::OpenOptions::new()
                .append(true)
                .open(merged.join("d/f"))
                .expect("it is there");
            file.write_all(b" and after").expect("it is writable");
        });
        lab
    }

    #[test]
    fn saves_the_changed_file() {
        in_own_mounts(|| {
            for options in ["", ",userxattr"] {
                let lab = copied_up(options);
                let changed = lab.agrees(&[]);
                let row = lab.brings_back(&["--revert", "--save", "out"], "/d/f");
                let new = lab.agrees(&[]);
                assert_eq!(new[&b"/d/f"[..]], fact(&lab.at("mid/d/f"), Detail::Copied));
                let saved = fact(&lab.at("out/f"), Detail::Copied);
                assert_eq!(saved, changed[&b"/d/f"[..]]);
                lab.restore(&["--revert", "--discard"], "/d/f").exits(1);
                take_back(&row);
                assert_same(&settled(changed), &settled(lab.agrees(&[])));
                // What has the saved file's name is left alone.
                let before = lab.disk();
                lab.restore(&["--revert", "--save", "out"], "/d/f").exits(2);
                assert_same(&before, &lab.disk());
            }
        });
    }

    #[test]
    fn throws_the_changed_file_away() {
        in_own_mounts(|| {
            let lab = copied_up("");
            lab.brings_back(&["--revert", "--discard"], "/d/f");
            assert!(!lab.at("up/d/f").exists());
            assert!(lab.agrees(&[])[&b"/d/f"[..]].contains("before"));
        });
    }

    /// Only the mode was changed: the content that is saved is the lower one's.
    #[test]
    fn of_a_copy_of_metadata() {
        in_own_mounts(|| {
            let lab = Lab::of("mid:low", ",metacopy=on");
            lab.file("mid/f", "the content").mode("mid/f", 0o600);
            lab.with_mount(|merged| {
                let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
                fs::set_permissions(merged.join("f"), mode).expect("root may");
            });
            assert!(attribute(&lab.at("up/f"), "trusted.overlay.metacopy").is_some());
            let changed = lab.agrees(&[]);
            lab.brings_back(&["--revert", "--save", "out"], "/f");
            assert_eq!(fact(&lab.at("out/f"), Detail::Copied), changed[&b"/f"[..]]);
            assert_eq!(
                lab.agrees(&[])[&b"/f"[..]],
                fact(&lab.at("mid/f"), Detail::Copied)
            );
        });
    }

    #[test]
    fn of_what_has_no_lower_version_changes_nothing() {
        in_own_mounts(|| {
            let lab = Lab::usual();
            lab.file("up/new", "")
                .opaque("up/d")
                .file("up/d/f", "mine")
                .file("mid/d/f", "hidden");
            lab.file("mid/untouched", "");
            lab.device("mid/w")
                .file("low/w", "below a mark")
                .file("up/w", "mine");
            let before = lab.disk();
            for path in ["/new", "/d/f", "/untouched", "/w"] {
                let row = lab.restore(&["--revert", "--discard"], path).exits(1).row();
                assert!(row["nothing"].is_string(), "{row}");
            }
            assert_same(&before, &lab.disk());
        });
    }
}

mod mounted {
    use super::*;

    const UNHIDE: [&str; 2] = ["--strategy", "unhide"];

    /// Deleted through the mount, looked up there afterwards, and so known not to be there.
    fn deleted() -> Lab {
        let lab = Lab::usual();
        lab.file("mid/d/f", "before")
            .mode("mid/d/f", 0o640)
            .owner("mid/d/f", 3, 4);
        lab.xattr("mid/d/f", "user.note", b"kept")
            .time("mid/d/f", 1_000_000_000);
        lab.file("low/d/f", "older")
            .file("low/d/g", "")
            .file("up/d/new", "mine");
        treasure(&lab, "low/d/tree");
        lab.file("mid/d/tree/more", "merged");
        lab
    }

    fn delete(merged: &Path) {
        fs::remove_file(merged.join("d/f")).expect("it is there");
        fs::remove_file(merged.join("d/g")).expect("it is there");
        fs::remove_dir_all(merged.join("d/tree")).expect("it is there");
        for name in ["d/f", "d/g", "d/tree"] {
            assert!(merged.join(name).symlink_metadata().is_err());
        }
    }

    /// A process in a mount namespace of its own.
    struct Elsewhere(Child);

    impl Elsewhere {
        /// It mounts the stack there and waits; `then` may replace the waiting process.
        fn new(lab: &Lab, then: &str) -> Elsewhere {
            let script = format!(
                "mount -t overlay overlay -o \"$0\" merged && {{ {then}; }} && echo ready && {WAIT}"
            );
            let mut child = Command::new("unshare")
                .args(["--mount", "--propagation", "private", "sh", "-ec", &script])
                .arg(lab.mount_options())
                .current_dir(lab.home())
                .stdout(Stdio::piped())
                .stdin(Stdio::piped())
                .spawn()
                .expect("unshare ran before");
            let mut line = String::new();
            let said = child.stdout.take().expect("a pipe");
            BufReader::new(said).read_line(&mut line).expect("a pipe");
            assert_eq!(line, "ready\n");
            Elsewhere(child)
        }

        fn id(&self) -> u32 {
            self.0.id()
        }

        /// A path as the process reaches it.
        fn at(&self, path: &Path) -> PathBuf {
            let root = format!("/proc/{}/root", self.id());
            Path::new(&root).join(path.strip_prefix("/").expect("an absolute path"))
        }

        /// What another process says there.
        fn says(&self, command: &str) -> String {
            let output = Command::new("nsenter")
                .args(["--mount", "--target", &self.id().to_string()])
                .args(["sh", "-ec", command])
                .output()
                .expect("nsenter comes with unshare");
            assert!(output.status.success(), "{output:?}");
            String::from_utf8(output.stdout).expect("plain text")
        }
    }

    /// Until the test is over.
    const WAIT: &str = "read -r _";

    impl Drop for Elsewhere {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    /// Restores `/d/f` and then `/d/tree` of a mounted stack, and looks at all of it.
    #[track_caller]
    fn come_back(lab: &Lab, target: &str, merged: &Path) {
        let lower = (lab.branch("mid"), lab.branch("low"));
        let (old, upper) = (shown(merged), lab.branch("up"));
        let row = lab.restore_in(target, &[], "/d/f").exits(0).row();
        assert_eq!(row["strategy"], "copy", "{row}");
        assert_eq!(actions(&row), ["copy", "look"], "{row}");
        // At once, by name and in the listing, although it was known not to be there.
        assert_eq!(
            fs::read(merged.join("d/f")).expect("it is there"),
            b"before"
        );
        assert_eq!(names(&merged.join("d")), ["f", "new"]);
        let new = shown(merged);
        let mut expected = settled(old.clone());
        let file = fact(&lab.at("mid/d/f"), Detail::Copied);
        expected.insert(b"/d/f".to_vec(), file);
        assert_same(&expected, &settled(new));
        // Below, only the mark has become a file: the kernel did it.
        let mut raw = lab.branch("up");
        let mut expected = upper.clone();
        for facts in [&mut raw, &mut expected] {
            // The kernel's marks are links of one another.
            for fact in facts.values_mut().filter(|fact| fact.starts_with("20000 ")) {
                *fact = without_links(fact);
            }
            facts.remove(&b"d/f"[..]).expect("a mark or a file");
            facts.remove(&b"d"[..]).expect("its directory");
        }
        assert_same(&expected, &raw);
        assert_eq!(
            attribute(&lab.at("up/d/f"), "user.note"),
            Some(b"kept".to_vec())
        );
        take_back(&row);
        assert_same(&settled(old.clone()), &settled(shown(merged)));

        lab.refuses_and_changes_nothing(target, &[], "/d/tree")
            .says("-r");
        let row = lab.restore_in(target, &["-r"], "/d/tree").exits(0).row();
        let new = shown(merged);
        is_the_treasure(&merged.join("d/tree"));
        assert_eq!(
            new[&b"/d/tree/listed"[..]],
            fact(&lab.at("low/d/tree/listed"), Detail::Copied)
        );
        let tree: Facts = below(&new, "/d/tree/");
        let mut expected = shown(&lab.at("low/d/tree"));
        expected.insert(
            b"/more".to_vec(),
            fact(&lab.at("mid/d/tree/more"), Detail::Copied),
        );
        let expected = expected
            .into_iter()
            .map(|(path, fact)| (path[1..].to_vec(), fact));
        assert_same(&expected.collect(), &tree);
        take_back(&row);
        assert_same(&settled(old), &settled(shown(merged)));
        assert_same(&lower.0, &lab.branch("mid"));
        assert_same(&lower.1, &lab.branch("low"));
    }

    #[test]
    fn here() {
        in_own_mounts(|| {
            let lab = deleted();
            let mounted = lab.mount();
            delete(&mounted.0);
            let point = mounted.0.display().to_string();
            for target in [point.clone(), lab.target()] {
                come_back(&lab, &target, &mounted.0);
            }
            // As a path of the machine, too.
            let path = format!("{point}/d/f");
            run::layerctl(["restore", &path]).exits(0);
            assert_eq!(fs::read(&path).expect("it is there"), b"before");
            drop(mounted);
            assert_eq!(
                lab.agrees(&["/d/g"])[&b"/d/f"[..]],
                fact(&lab.at("mid/d/f"), Detail::Copied)
            );
        });
    }

    #[test]
    fn through_a_link_to_the_upper_directory() {
        in_own_mounts(|| {
            let lab = deleted();
            std::os::unix::fs::symlink("up", lab.at("alias")).expect("our own");
            lab.dir("bound");
            rustix::mount::mount_bind(lab.at("up"), lab.at("bound")).expect("root may");
            let bound = Mounted(lab.at("bound"));
            let mounted = lab.mount();
            delete(&mounted.0);
            for alias in ["alias", "bound", "work/../up"] {
                let target = lab.target().replace("/up", &format!("/{alias}"));
                lab.refuses_and_changes_nothing(&target, &UNHIDE, "/d/f");
                come_back(&lab, &target, &mounted.0);
            }
            drop((mounted, bound));
        });
    }

    /// Only `/d` of the stack is mounted, at `part`.
    fn in_part(lab: &Lab) -> Mounted {
        lab.dir("part").file("low/x", "outside");
        let mounted = lab.mount();
        delete(&mounted.0);
        fs::remove_file(mounted.0.join("x")).expect("it is there");
        rustix::mount::mount_bind(lab.at("merged/d"), lab.at("part")).expect("root may");
        drop(mounted);
        Mounted(lab.at("part"))
    }

    #[track_caller]
    fn comes_back_in_part(lab: &Lab, target: &str, path: &str) {
        let part = lab.at("part");
        let row = lab.restore_in(target, &[], path).exits(0).row();
        assert_eq!(row["strategy"], "copy");
        assert_eq!(names(&part), ["f", "new"]);
        assert_eq!(fs::read(part.join("f")).expect("it is there"), b"before");
        take_back(&row);
        assert_eq!(names(&part), ["new"]);
    }

    #[test]
    fn through_a_bind_mount_of_a_part() {
        in_own_mounts(|| {
            let lab = deleted();
            let part = in_part(&lab);
            let point = part.0.display().to_string();
            comes_back_in_part(&lab, &point, "/d/f");
            // What lies outside of the part can be reached nowhere.
            for target in [&point, &lab.target()] {
                lab.refuses_and_changes_nothing(target, &[], "/x");
                lab.refuses_and_changes_nothing(target, &UNHIDE, "/x");
                lab.refuses_and_changes_nothing(target, &UNHIDE, "/d/f");
            }
            run::layerctl(["restore", &format!("{point}/f")]).exits(0);
            assert_eq!(names(&part.0), ["f", "new"]);
        });
    }

    #[test]
    fn through_a_bind_mount_of_a_part_of_a_spelled_stack() {
        in_own_mounts(|| {
            let lab = deleted();
            let _part = in_part(&lab);
            comes_back_in_part(&lab, &lab.target(), "/d/f");
        });
    }

    #[test]
    fn in_another_mount_namespace_only() {
        in_own_mounts(|| {
            let lab = deleted();
            let elsewhere = Elsewhere::new(&lab, "true");
            let merged = elsewhere.at(&lab.at("merged"));
            assert!(names(&lab.at("merged")).is_empty());
            delete(&merged);
            let before = elsewhere.says(&format!("ls -a {}/d", lab.at("merged").display()));
            assert!(!before.contains("tree"));
            lab.refuses_and_changes_nothing(&lab.target(), &UNHIDE, "/d/f")
                .says("mounted");
            come_back(&lab, &lab.target(), &merged);
            lab.restore(&[], "/d/f").exits(0);
            let there = elsewhere.says(&format!(
                "cd {}/d && cat f && stat -c ' %s %a' f && ls",
                lab.at("merged").display()
            ));
            assert_eq!(there, "before 6 640\nf\nnew\n");
            assert!(names(&lab.at("merged")).is_empty());
        });
    }

    /// As a container's: the union is the root of the process.
    fn as_root(lab: &Lab) -> Elsewhere {
        let mut binds = String::from("true");
        for name in ["usr", "lib", "lib64", "bin"] {
            let at = Path::new("/").join(name);
            if let Ok(target) = fs::read_link(&at) {
                lab.link(format!("low/{name}"), target);
            } else if at.is_dir() {
                lab.dir(format!("low/{name}"));
                binds += &format!(" && mount --bind /{name} merged/{name}");
            }
        }
        let then = format!("{binds} && exec chroot merged sh -c 'echo ready; {WAIT}'");
        Elsewhere::new(lab, &then)
    }

    #[test]
    fn as_the_root_of_a_process() {
        in_own_mounts(|| {
            let lab = deleted();
            let elsewhere = as_root(&lab);
            let merged = elsewhere.at(Path::new("/"));
            delete(&merged);
            let id = elsewhere.id().to_string();
            let row = lab.restore_in(&id, &[], "/d/f").exits(0).row();
            assert_eq!(row["strategy"], "copy");
            let content = fs::read(merged.join("d/f")).expect("it is there");
            assert_eq!(content, b"before");
            assert_eq!(names(&merged.join("d")), ["f", "new"]);
            take_back(&row);
            assert_eq!(names(&merged.join("d")), ["new"]);
            lab.refuses_and_changes_nothing(&id, &UNHIDE, "/d/f")
                .says("mounted");
            run::layerctl(["restore", "-r", &format!("{id}:/d/tree")]).exits(0);
            is_the_treasure(&merged.join("d/tree"));
        });
    }

    /// What has the names there of our directories may be something else.
    const HIDE: &str = "mount -t tmpfs none up && mkdir -p up/own up/work && touch up/there";

    fn with_own_upper() -> Lab {
        let lab = Lab::usual();
        lab.file("low/f", "before")
            .dir("up/own")
            .dir("up/work")
            .device("up/own/f");
        lab
    }

    /// The same words for another directory.
    fn own(lab: &Lab) -> String {
        lab.target().replace("/up", "/up/own")
    }

    #[test]
    fn another_directory_of_the_same_name_elsewhere_is_not_taken_for_it() {
        in_own_mounts(|| {
            let lab = with_own_upper();
            let mount = format!(
                "mount -t overlay overlay -o '{},workdir={}/up/work' out && rm out/f",
                own(&lab),
                lab.home().display()
            );
            let elsewhere = Elsewhere::new(&lab, &format!("umount merged && {HIDE} && {mount}"));
            let there = elsewhere.at(&lab.at("out"));
            assert!(names(&there).is_empty());
            lab.restore_in(&own(&lab), &[], "/f").exits(0);
            assert!(names(&there).is_empty(), "it was restored in another union");
            assert!(!lab.at("up/own/f").exists());
        });
    }

    #[test]
    fn is_not_edited_below_the_mount() {
        in_own_mounts(|| {
            let lab = deleted();
            lab.file("low/o/x", "").opaque("up/o");
            let mounted = lab.mount();
            delete(&mounted.0);
            let point = mounted.0.display().to_string();
            for target in [&point, &lab.target()] {
                for options in [
                    &UNHIDE[..],
                    &[UNHIDE[0], UNHIDE[1], "-y"],
                    &[UNHIDE[0], UNHIDE[1], "-n"],
                ] {
                    for path in ["/d/f", "/o/x", "/d/tree/file"] {
                        let refusal = lab.refuses_and_changes_nothing(target, options, path);
                        for words in ["mounted", "undefined", "--strategy copy", "unmount"] {
                            assert!(refusal.stderr.contains(words), "{}", refusal.stderr);
                        }
                    }
                }
            }
            // Unmounted it is the ordinary way.
            drop(mounted);
            let row = lab.brings_back(&[], "/d/f");
            assert_eq!(row["strategy"], "unhide");
            lab.agrees(&["/d/f"]);
        });
    }

    #[test]
    fn a_dry_run_changes_nothing() {
        in_own_mounts(|| {
            let lab = deleted();
            let mounted = lab.mount();
            delete(&mounted.0);
            let point = mounted.0.display().to_string();
            let before = (lab.disk(), shown(&mounted.0));
            for target in [&point, &lab.target()] {
                for options in [
                    &["-n"][..],
                    &["-n", "-r"],
                    &["-n", "--strategy", "copy"],
                    &["-n", "--to", "out"],
                ] {
                    let row = lab.restore_in(target, options, "/d/f").exits(0).row();
                    assert_eq!(row["applied"], false);
                }
                lab.restore_in(target, &["-n", "-r"], "/d/tree/sub/two")
                    .exits(0);
            }
            assert_same(&before.0, &lab.disk());
            assert_same(&before.1, &shown(&mounted.0));
        });
    }

    #[test]
    fn where_the_kernel_makes_directories_opaque() {
        in_own_mounts(|| {
            let lab = Lab::usual();
            lab.file("low/d/e/x", "asked")
                .file("low/d/e/y", "")
                .file("mid/d/z", "");
            lab.mode("low/d/e", 0o701)
                .owner("low/d/e", 7, 8)
                .time("low/d/e", 1_000_000_000);
            lab.file("mid/o/x", "asked")
                .file("mid/o/y", "")
                .opaque("up/o")
                .file("up/o/new", "");
            lab.device("mid/a/b/x")
                .file("low/a/b/x", "asked")
                .file("low/a/b/y", "");
            let mounted = lab.mount();
            fs::remove_dir_all(mounted.0.join("d")).expect("it is there");
            lab.restore(&[], "/d/e/x").exits(0);
            lab.restore(&[], "/o/x").exits(0);
            lab.restore(&[], "/a/b/x").exits(0);
            let all = [
                "/a", "/a/b", "/a/b/x", "/a/b/y", "/d", "/d/e", "/d/e/x", "/o", "/o/new", "/o/x",
            ];
            let new = shown(&mounted.0);
            assert_eq!(paths(&new), all);
            assert_eq!(new[&b"/d/e"[..]], fact(&lab.at("low/d/e"), Detail::Copied));
            drop(mounted);
            assert_eq!(paths(&lab.agrees(&["/d/z", "/o/y"])), all);
        });
    }

    #[test]
    fn keeps_what_is_escaped_and_leaves_what_is_overlays_own() {
        in_own_mounts(|| {
            for options in ["", ",userxattr"] {
                let lab = Lab::of("mid:low", options);
                lab.file("mid/d/f", "x");
                for path in ["mid/d", "mid/d/f"] {
                    lab.xattr(path, &lab.own("overlay.opaque"), b"y");
                    lab.xattr(path, &lab.own("protattr"), b"own");
                }
                let mounted = lab.mount();
                let old = shown(&mounted.0);
                fs::remove_dir_all(mounted.0.join("d")).expect("it is there");
                lab.restore(&["-r"], "/d").exits(0);
                assert_same(&settled(old), &settled(shown(&mounted.0)));
                for path in ["up/d", "up/d/f"] {
                    let at = lab.at(path);
                    let escaped = attribute(&at, &lab.own("overlay.opaque"));
                    assert_eq!(escaped, Some(b"y".to_vec()), "{path}");
                    assert_eq!(attribute(&at, &lab.own("protattr")), None, "{path}");
                }
            }
        });
    }

    #[test]
    fn of_a_file_whose_content_lies_in_another_branch() {
        in_own_mounts(|| {
            let lab = Lab::of("mid:low", ",metacopy=on,redirect_dir=on");
            lab.file("low/f", "the content").mode("low/f", 0o600);
            fs::File::create(lab.at("mid/f"))
                .expect("our own")
                .set_len(11)
                .expect("our own");
            lab.mode("mid/f", 0o640)
                .xattr("mid/f", "trusted.overlay.metacopy", b"");
            lab.time("mid/f", 1_000_000_000);
            let mounted = lab.mount();
            let old = shown(&mounted.0);
            assert!(old[&b"/f"[..]].contains("the content"), "{old:?}");
            fs::remove_file(mounted.0.join("f")).expect("it is there");
            lab.restore(&[], "/f").exits(0);
            assert_same(&old, &shown(&mounted.0));
        });
    }

    #[test]
    fn puts_the_lower_version_back() {
        in_own_mounts(|| {
            let lab = deleted();
            let mounted = lab.mount();
            fs::write(mounted.0.join("d/f"), "changed").expect("root may");
            let changed = fact(&mounted.0.join("d/f"), Detail::Copied);
            let row = lab
                .restore(&["--revert", "--save", "out"], "/d/f")
                .exits(0)
                .row();
            assert_eq!(
                fact(&mounted.0.join("d/f"), Detail::Copied),
                fact(&lab.at("mid/d/f"), Detail::Copied)
            );
            assert_eq!(fact(&lab.at("out/f"), Detail::Copied), changed);
            assert_eq!(names(&mounted.0.join("d")), ["f", "g", "new", "tree"]);
            take_back(&row);
            assert_eq!(fact(&mounted.0.join("d/f"), Detail::Copied), changed);
            lab.restore(&["--revert", "--discard"], "/d/f").exits(0);
            assert_eq!(
                fs::read(mounted.0.join("d/f")).expect("it is there"),
                b"before"
            );
            drop(mounted);
            assert!(lab.agrees(&[])[&b"/d/f"[..]].contains("before"));
        });
    }

    #[test]
    fn below_another_mount_nothing_is_written_to_that() {
        in_own_mounts(|| {
            let lab = deleted();
            lab.dir("second");
            let mounted = lab.mount();
            delete(&mounted.0);
            cover(&mounted.0);
            lab.refuses_and_changes_nothing(&lab.target(), &[], "/d/f")
                .says("mounted");
            lab.refuses_and_changes_nothing(&lab.target(), &UNHIDE, "/d/f");
            assert!(names(&mounted.0).is_empty());
            // Where it can be seen beside that it can be written to.
            rustix::mount::unmount(&mounted.0, UnmountFlags::empty()).expect("the cover");
            rustix::mount::mount_bind(&mounted.0, lab.at("second")).expect("root may");
            let second = Mounted(lab.at("second"));
            cover(&mounted.0);
            come_back(&lab, &lab.target(), &second.0);
            assert!(names(&mounted.0).is_empty());
        });
    }

    /// A volume of a container, say.
    #[test]
    fn below_a_mount_inside_nothing_is_written_to_that() {
        in_own_mounts(|| {
            let lab = deleted();
            let mounted = lab.mount();
            delete(&mounted.0);
            let inside = Mounted(mounted.0.join("d"));
            cover(&inside.0);
            for target in [lab.target(), mounted.0.display().to_string()] {
                let before = lab.disk();
                let output = lab.restore_in(&target, &[], "/d/f");
                assert!(
                    names(&inside.0).is_empty(),
                    "written to the other mount: {}",
                    output.text()
                );
                assert_eq!(output.status, Some(2), "{}{}", output.text(), output.stderr);
                assert_same(&before, &lab.disk());
            }
            drop(inside);
            drop(mounted);
        });
    }

    #[test]
    fn an_upper_directory_below_another_overlay_is_left_alone() {
        in_own_mounts(|| {
            let lab = Lab::usual();
            lab.file("low/f", "before")
                .device("up/f")
                .dir("other/up")
                .dir("other/work");
            let home = lab.home().display();
            let options = format!(
                "lowerdir={home}/up:{home}/low,upperdir={home}/other/up,workdir={home}/other/work"
            );
            let options = CString::new(options).expect("no NUL");
            let merged = lab.at("merged");
            rustix::mount::mount(
                "overlay",
                &merged,
                "overlay",
                MountFlags::empty(),
                options.as_c_str(),
            )
            .expect("root may");
            let mounted = Mounted(merged);
            for options in [&[][..], &UNHIDE, &["--strategy", "copy"]] {
                lab.refuses_and_changes_nothing(&lab.target(), options, "/f");
            }
            assert!(names(&mounted.0).is_empty());
            drop(mounted);
            lab.brings_back(&[], "/f");
            lab.agrees(&[]);
        });
    }

    /// A directory further down in the upper one is what the other overlay has.
    #[test]
    fn an_upper_directory_with_a_part_below_another_overlay_is_left_alone() {
        in_own_mounts(|| {
            let lab = Lab::usual();
            lab.file("low/d/f", "before")
                .device("up/d/f")
                .dir("other/up")
                .dir("other/work");
            let home = lab.home().display();
            let options = format!(
                "lowerdir={home}/up/d:{home}/low/d,upperdir={home}/other/up,workdir={home}/other/work"
            );
            let options = CString::new(options).expect("no NUL");
            let merged = lab.at("merged");
            rustix::mount::mount(
                "overlay",
                &merged,
                "overlay",
                MountFlags::empty(),
                options.as_c_str(),
            )
            .expect("root may");
            let mounted = Mounted(merged);
            lab.refuses_and_changes_nothing(&lab.target(), &UNHIDE, "/d/f");
            drop(mounted);
        });
    }

    #[test]
    fn read_only_it_says_so() {
        in_own_mounts(|| {
            let lab = deleted();
            lab.with_mount(delete);
            let mounted = lab.mount_with(MountFlags::RDONLY);
            let refusal = lab.refuses_and_changes_nothing(&lab.target(), &[], "/d/f");
            assert!(
                refusal.stderr.to_lowercase().contains("read-only"),
                "{}",
                refusal.stderr
            );
            lab.refuses_and_changes_nothing(&lab.target(), &UNHIDE, "/d/f");
            lab.restore(&["--to", "out"], "/d/f").exits(0);
            drop(mounted);
            // Only lower directories, of which none is ever written to.
            let home = lab.home().display();
            let options =
                CString::new(format!("lowerdir={home}/up:{home}/mid:{home}/low")).expect("no NUL");
            let merged = lab.at("merged");
            rustix::mount::mount(
                "overlay",
                &merged,
                "overlay",
                MountFlags::empty(),
                options.as_c_str(),
            )
            .expect("root may");
            let mounted = Mounted(merged);
            let point = mounted.0.display().to_string();
            let refusal = lab.refuses_and_changes_nothing(&point, &[], "/d/f");
            assert!(refusal.stderr.contains("--to DIR"), "{}", refusal.stderr);
        });
    }

    /// Somebody has removed the mark behind the mount: the kernel goes on to deny the name (64).
    #[test]
    fn what_the_mount_has_cached_is_said_plainly() {
        in_own_mounts(|| {
            let lab = deleted();
            let mounted = lab.mount();
            delete(&mounted.0);
            fs::remove_file(lab.at("up/d/f")).expect("a mark");
            // Another test may drop what is cached meanwhile; nothing is wrong then.
            if mounted.0.join("d/f").symlink_metadata().is_ok() {
                return skip("the kernel has forgotten what it looked up");
            }
            for target in [lab.target(), mounted.0.display().to_string()] {
                let refusal = lab.refuses_and_changes_nothing(&target, &[], "/d/f");
                for words in ["cached", "unmount", "drop_caches"] {
                    assert!(refusal.stderr.contains(words), "{}", refusal.stderr);
                }
            }
            drop(mounted);
            assert!(lab.agrees(&[])[&b"/d/f"[..]].contains("before"));
        });
    }

    #[test]
    fn what_is_there_again_is_left_alone() {
        in_own_mounts(|| {
            let lab = deleted();
            let mounted = lab.mount();
            delete(&mounted.0);
            fs::write(mounted.0.join("d/f"), "mine").expect("root may");
            fs::create_dir(mounted.0.join("d/tree")).expect("root may");
            let before = (lab.disk(), shown(&mounted.0));
            for options in [&[][..], &UNHIDE, &["--strategy", "copy", "-r"]] {
                lab.restore(options, "/d/f").exits(1);
                lab.restore(options, "/d/tree").exits(1);
            }
            fs::write(lab.at("out/file"), "mine").expect("our own");
            let before = (lab.disk(), before.1);
            lab.restore(&["--to", "out"], "/d/tree/file").exits(2);
            assert_same(&before.0, &lab.disk());
            assert_same(&before.1, &shown(&mounted.0));
        });
    }
}

mod fuse {
    use super::*;

    /// A stack of fuse-overlayfs, where that can be mounted.
    fn lab() -> Option<Lab> {
        let new = || Lab {
            by: By::FuseOverlayfs,
            ..Lab::usual()
        };
        static WHY: OnceLock<Option<String>> = OnceLock::new();
        let why = WHY.get_or_init(|| {
            let probe = new();
            let output = Command::new("fuse-overlayfs")
                .args(["-o", &probe.mount_options()])
                .arg(probe.at("merged"))
                .output();
            match output {
                Ok(output) if output.status.success() => {
                    drop(Mounted(probe.at("merged")));
                    None
                }
                Ok(output) => Some(String::from_utf8_lossy(&output.stderr).into_owned()),
                Err(error) => Some(error.to_string()),
            }
        });
        if let Some(why) = why {
            not_here(&format!("nothing is restored in fuse-overlayfs: {why}"));
            return None;
        }
        Some(new())
    }

    /// The ways in which `up` says that `/d/NAME` is deleted.
    const MARKS: [&str; 2] = ["up/d/.wh.NAME", "up/d/NAME"];

    fn mark(lab: &Lab, mark: &str, name: &str) {
        let path = mark.replace("NAME", name);
        if path.contains("/.wh.") {
            lab.file(&path, "").mode(&path, 0)
        } else {
            lab.device(&path)
        };
    }

    #[test]
    fn unhides_a_name_that_is_deleted_either_way() {
        in_own_mounts(|| {
            for kind in MARKS {
                let Some(lab) = lab() else { return };
                lab.file("low/d/f", "before").file("low/d/g", "");
                mark(&lab, kind, "f");
                mark(&lab, kind, "g");
                let (row, new) = there_and_back(&lab, &[], "/d/f");
                assert_eq!(row["strategy"], "unhide", "{kind}");
                assert_eq!(paths(&new), ["/d", "/d/f"], "{kind}");
            }
        });
    }

    #[test]
    fn copies_over_a_mark_of_either_kind() {
        in_own_mounts(|| {
            for kind in MARKS {
                let Some(lab) = lab() else { return };
                lab.file("low/d/f", "before")
                    .mode("low/d/f", 0o640)
                    .owner("low/d/f", 3, 4);
                lab.xattr("low/d/f", "user.note", b"kept")
                    .time("low/d/f", 1_000_000_000);
                lab.link("low/d/l", "no/where")
                    .node("low/d/p", FileType::Fifo, 0);
                lab.file("low/d/t/x", "x")
                    .file("mid/d/t/y", "y")
                    .mode("low/d/t", 0o750);
                for name in ["f", "l", "p", "t"] {
                    mark(&lab, kind, name);
                }
                let copy = ["--strategy", "copy", "-r"];
                for (path, all) in [
                    ("/d/f", &["/d", "/d/f"][..]),
                    ("/d/l", &["/d", "/d/l"]),
                    ("/d/p", &["/d", "/d/p"]),
                    ("/d/t", &["/d", "/d/t", "/d/t/x", "/d/t/y"]),
                ] {
                    let (_, new) = there_and_back(&lab, &copy, path);
                    assert_eq!(paths(&new), all, "{kind}");
                    if path == "/d/f" {
                        assert_eq!(new[&b"/d/f"[..]], fact(&lab.at("low/d/f"), Detail::Copied));
                    }
                }
                // Of all that was below only this.
                let (_, new) = there_and_back(&lab, &[], "/d/t/x");
                assert_eq!(paths(&new), ["/d", "/d/t", "/d/t/x"], "{kind}");
            }
        });
    }

    /// It is there in the end, or nothing has changed.
    #[test]
    fn of_a_name_that_is_deleted_twice() {
        in_own_mounts(|| {
            for options in [&[][..], &["--strategy", "copy"]] {
                let Some(lab) = lab() else { return };
                lab.file("low/d/f", "before").device("up/d/f");
                lab.file("up/d/.wh.f", "").mode("up/d/.wh.f", 0);
                let before = lab.disk();
                match lab.restore(options, "/d/f").status {
                    Some(0) => assert_eq!(paths(&lab.agrees(&[])), ["/d", "/d/f"]),
                    _ => assert_same(&before, &lab.disk()),
                }
            }
        });
    }

    /// As fuse-overlayfs itself leaves it: opaque three times over.
    fn opaque(lab: &Lab) {
        lab.file("low/d/x", "asked")
            .file("mid/d/y", "")
            .file("up/d/new", "");
        lab.xattr("up/d", "trusted.overlay.opaque", b"y");
        lab.file("up/d/.wh..wh..opq", "")
            .mode("up/d/.wh..wh..opq", 0o700);
        lab.device("up/d/.wh..opq");
    }

    #[test]
    fn copies_into_an_opaque_directory() {
        in_own_mounts(|| {
            let Some(lab) = lab() else { return };
            opaque(&lab);
            let (row, new) = there_and_back(&lab, &[], "/d/x");
            assert_eq!(row["strategy"], "copy");
            assert_eq!(paths(&new), ["/d", "/d/new", "/d/x"]);
        });
    }

    #[test]
    fn unhides_an_opaque_directory() {
        in_own_mounts(|| {
            let Some(lab) = lab() else { return };
            opaque(&lab);
            assert_eq!(paths(&lab.agrees(&["/d/x"])), ["/d", "/d/new"]);
            let unhide = ["--strategy", "unhide"];
            lab.refuses_and_changes_nothing(&lab.target(), &unhide, "/d/x")
                .says("/d/y");
            let row = lab.brings_back(&["--strategy", "unhide", "-y"], "/d/x");
            assert_eq!(paths(&lab.agrees(&[])), ["/d", "/d/new", "/d/x", "/d/y"]);
            assert_eq!(names(&lab.at("up/d")), ["new"]);
            take_back(&row);
            assert_eq!(paths(&lab.agrees(&["/d/x"])), ["/d", "/d/new"]);
        });
    }

    /// All three marks, not only one that does the same.
    #[test]
    fn gives_an_opaque_directory_all_of_its_marks_back() {
        in_own_mounts(|| {
            let Some(lab) = lab() else { return };
            opaque(&lab);
            there_and_back(&lab, &["--strategy", "unhide", "-y"], "/d/x");
        });
    }

    #[test]
    fn of_what_it_deleted_itself() {
        in_own_mounts(|| {
            let Some(lab) = lab() else { return };
            lab.file("low/d/f", "before")
                .file("low/d/t/x", "x")
                .file("low/t/u/x", "");
            lab.with_mount(|merged| {
                fs::remove_file(merged.join("d/f")).expect("it is there");
                fs::remove_dir_all(merged.join("d/t")).expect("it is there");
                fs::remove_dir_all(merged.join("t")).expect("it is there");
                fs::create_dir_all(merged.join("t/u")).expect("nothing has the name");
            });
            let (_, new) = there_and_back(&lab, &[], "/d/f");
            assert_eq!(paths(&new), ["/d", "/d/f", "/t", "/t/u"]);
            let (_, new) = there_and_back(&lab, &["--strategy", "copy", "-r"], "/d/t");
            assert_eq!(paths(&new), ["/d", "/d/t", "/d/t/x", "/t", "/t/u"]);
            let (_, new) = there_and_back(&lab, &[], "/t/u/x");
            assert_eq!(paths(&new), ["/d", "/t", "/t/u", "/t/u/x"]);
        });
    }

    #[test]
    fn through_the_mount() {
        in_own_mounts(|| {
            let Some(lab) = lab() else { return };
            lab.file("low/d/f", "before")
                .mode("low/d/f", 0o640)
                .file("up/d/new", "mine");
            let mounted = lab.mount();
            fs::remove_file(mounted.0.join("d/f")).expect("it is there");
            assert_eq!(names(&mounted.0.join("d")), ["new"]);
            let point = mounted.0.display().to_string();
            for target in [&point, &lab.target()] {
                let row = lab.restore_in(target, &[], "/d/f").exits(0).row();
                let content = fs::read(mounted.0.join("d/f")).expect("it is there");
                assert_eq!(content, b"before");
                assert_eq!(names(&mounted.0.join("d")), ["f", "new"], "{row}");
                take_back(&row);
                assert_eq!(names(&mounted.0.join("d")), ["new"]);
            }
        });
    }
}

mod vfs {
    use super::*;

    /// What is there, without the content: some files are large.
    fn outline(directory: &Path) -> Facts {
        let mut outline = Facts::new();
        for entry in WalkDir::new(directory).min_depth(1) {
            let entry = entry.expect("our own tree");
            let meta = entry.metadata().expect("our own tree");
            let time = (!meta.is_dir()).then(|| meta.mtime());
            let (mode, uid, gid) = (meta.mode(), meta.uid(), meta.gid());
            outline.insert(
                entry.path().as_os_str().as_bytes().to_vec(),
                format!("{mode:o} {uid}:{gid} {} {time:?}", meta.nlink()),
            );
        }
        outline
    }

    /// A container is a copy of the layer below it, and no mark tells what was deleted.
    #[test]
    fn what_a_container_deleted_is_copied_from_the_layer_below() {
        if why_not().is_some() {
            return not_here(
                "the captured host holds owners and devices, which only root can make",
            );
        }
        let host = Host::captured("docker-vfs");
        let layers = host.at("/var/lib/docker/vfs/dir");
        let of_container = |id: &str, file: &str| {
            let at = host.at(format!(
                "/var/lib/docker/image/vfs/layerdb/mounts/{id}/{file}"
            ));
            fs::read_to_string(at).expect("plain text")
        };
        let rows = host.jsonl(["containers", "--no-trunc"]).exits(0).rows();
        let mut restored = 0;
        for row in &rows {
            let id = text(row, "id");
            let container = layers.join(of_container(id, "mount-id"));
            let parent = layers.join(of_container(id, "init-id"));
            let changes = host.jsonl(["changes", id]).exits(0).rows();
            let deleted = changes
                .iter()
                .filter(|change| change["change"] == "deleted");
            let deleted: Vec<&str> = deleted.map(|change| text(change, "path")).collect();
            let before = outline(&container);
            if let Some(path) = deleted.first() {
                let target = format!("{id}:{path}");
                host.jsonl(["restore", "-n", "-r", &target]).exits(0);
                host.jsonl(["restore", "-r", &target])
                    .exits(2)
                    .says("--write");
                assert_same(&before, &outline(&container));
            }
            let mut done = Vec::new();
            for path in &deleted {
                let target = format!("{id}:{path}");
                let restore = ["restore", "--write", "-r", &target];
                let row = host.jsonl(restore).exits(0).row();
                assert_eq!(row["strategy"], "copy", "{row}");
                let (from, to) = (parent.join(&path[1..]), container.join(&path[1..]));
                assert_eq!(fact(&from, Detail::Copied), fact(&to, Detail::Copied));
                assert_same(&shown(&from), &shown(&to));
                host.jsonl(restore).exits(1);
                done.push(row);
            }
            let now = host.jsonl(["changes", id]).exits(0).rows();
            assert!(
                now.iter().all(|change| change["change"] != "deleted"),
                "{now:?}"
            );
            done.iter().rev().for_each(take_back);
            assert_same(&before, &outline(&container));
            restored += done.len();
        }
        assert!(restored > 3, "only {restored} were deleted");
    }
}

mod kills {
    use super::*;

    const CALLS: [&str; 14] = [
        "renameat",
        "renameat2",
        "unlinkat",
        "mkdirat",
        "linkat",
        "symlinkat",
        "write",
        "ftruncate",
        "fchmod",
        "fchown",
        "fsetxattr",
        "lsetxattr",
        "lremovexattr",
        "fsync",
    ];

    #[derive(Clone, Copy, PartialEq, Eq)]
    enum State {
        Mounted,
        Unmounted,
    }

    /// Mounts the stack anew, so that nothing is cached, and says what it shows.
    fn fresh(lab: &Lab, state: State, mounted: Option<Mounted>) -> (Facts, Option<Mounted>) {
        drop(mounted);
        let mounted = lab.mount();
        let mut shown = settled(shown(&mounted.0));
        if state == State::Mounted {
            // What a killed run was making there is in the union, under a name of its own.
            shown.retain(|path, _| !path.windows(11).any(|part| part == b"/.layerctl-"));
        }
        (shown, (state == State::Mounted).then_some(mounted))
    }

    /// Kills a run before every single system call that writes, and lets the kernel look.
    fn any_moment(make: &dyn Fn() -> Lab, options: &[&str], path: &str, state: State) {
        if !has_strace() {
            return not_here("strace is not installed");
        }
        let lab = make();
        let (old, mounted) = fresh(&lab, state, None);
        lab.restore(options, path).exits(0);
        let (new, mounted) = fresh(&lab, state, mounted);
        assert!(old != new);
        drop(mounted);
        let mut killed = 0;
        for call in CALLS {
            for count in 1.. {
                let lab = make();
                let mounted = (state == State::Mounted).then(|| lab.mount());
                let mut strace = Command::new("strace");
                strace.args(["-f", "-o", "/dev/null", "-e", &format!("trace={call}")]);
                strace.args(["-e", &format!("inject={call}:signal=KILL:when={count}")]);
                let output = under(strace, &lab.command(&lab.target(), options, path))
                    .output()
                    .expect("strace");
                if output.status.success() {
                    break;
                }
                killed += 1;
                let moment = format!("{options:?} {path}: killed before {call} number {count}");
                let (view, mounted) = fresh(&lab, state, mounted);
                assert!(
                    view == old || view == new,
                    "{moment}\nfrom old: {}from new: {}",
                    difference(&old, &view),
                    difference(&new, &view)
                );
                let again = lab.restore(options, path);
                assert_eq!(
                    again.status,
                    Some(if view == new { 1 } else { 0 }),
                    "{moment}\nrun again: {}{}",
                    again.text(),
                    again.stderr
                );
                let (view, _mounted) = fresh(&lab, state, mounted);
                assert!(
                    view == new,
                    "{moment}\nrun again: {}",
                    difference(&new, &view)
                );
            }
        }
        assert!(killed > 1, "only {killed} kills: is strace working?");
    }

    fn deleted() -> Lab {
        let lab = Lab::usual();
        lab.file("low/d/f", "before")
            .mode("low/d/f", 0o4755)
            .xattr("low/d/f", "trusted.x", b"y");
        lab.file("low/d/t/x", "x").device("up/d/f").device("up/d/t");
        lab.time("low/d/f", 1_000_000_000)
            .time("low/d/t/x", 1_000_000_000);
        lab
    }

    #[test]
    fn while_a_mark_is_removed() {
        in_memory(|| any_moment(&deleted, &[], "/d/f", State::Unmounted));
    }

    #[test]
    fn while_a_file_takes_the_place_of_its_mark() {
        let copy = ["--strategy", "copy"];
        in_memory(|| any_moment(&deleted, &copy, "/d/f", State::Unmounted));
    }

    #[test]
    fn while_a_directory_takes_the_place_of_its_mark() {
        let copy = ["--strategy", "copy", "-r"];
        in_memory(|| any_moment(&deleted, &copy, "/d/t", State::Unmounted));
    }

    #[test]
    fn while_directories_are_made_on_the_way() {
        in_memory(|| {
            let make = || {
                let lab = Lab::usual();
                lab.device("mid/a/b/x")
                    .file("low/a/b/x", "asked")
                    .mode("mid/a/b", 0o701);
                lab.time("low/a/b/x", 1_000_000_000);
                lab
            };
            any_moment(&make, &[], "/a/b/x", State::Unmounted);
        });
    }

    #[test]
    fn while_a_directory_stops_being_opaque() {
        in_memory(|| {
            let make = || {
                let lab = Lab::usual();
                lab.opaque("up/d").file("low/d/x", "").file("low/d/y", "");
                lab.time("low/d/x", 1_000_000_000)
                    .time("low/d/y", 1_000_000_000);
                lab
            };
            let unhide = ["--strategy", "unhide", "-y"];
            any_moment(&make, &unhide, "/d/x", State::Unmounted);
        });
    }

    #[test]
    fn while_it_copies_through_the_mount() {
        in_memory(|| any_moment(&deleted, &[], "/d/f", State::Mounted));
    }
}

/// A command run by another.
fn under(mut outer: Command, inner: &Command) -> Command {
    outer.arg(inner.get_program()).args(inner.get_args());
    if let Some(dir) = inner.get_current_dir() {
        outer.current_dir(dir);
    }
    outer
}
