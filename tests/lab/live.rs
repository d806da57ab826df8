//! Living engines: namespaces of their own, which end with the test and end everything in them,
//! and what two directory trees differ in, found out without layerctl.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::lgetxattr;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use walkdir::WalkDir;

use super::harness::{again, attempt, needs_asking, skip, skip_everywhere, wants_all};
use super::needs;
use crate::docker_drivers::{Change, Entry, View, entry_of_row, kind_of_mode};
use crate::lab::host::directories;
use crate::lab::run::Output;

/// What is done in a container that has busybox. Whatever `podman diff` can list.
pub const CHANGE: &str = r#"
set -eu
mkdir -p /new/deep && echo made > /new/deep/file
echo more:x:1:1::/:/bin/sh >> /etc/passwd
chmod 600 /opt/app/1
chown 12:34 /opt/app/2
touch -d '2001-02-03 04:05:06' /opt/app/5
chmod 700 /opt/app/6 && chmod 644 /opt/app/6
echo as-it-is >> /opt/big
rm /opt/app/7
rm /opt/app/8 && echo other > /opt/app/8
ln /opt/app/10 /opt/app/ten
mv /opt/app/11 /opt/app/eleven
rm /opt/tree/c/deep/er/file
rm -r /opt/tree/d
rm -r /opt/tree/f && echo "a file" > /opt/tree/f
mv /opt/tree/g /opt/moved
chmod 711 /opt/tree/h/deep
rm /srv/link && mkdir /srv/link
ln -s /opt/app /root/link
ln -s ../../../../opt/../etc/passwd /root/up
mkfifo /root/fifo
mkdir /root/gone && rmdir /root/gone
mkdir /root/odd && cd /root/odd
for name in "$(printf 'new\nline')" "$(printf 'bell\007\033]0;title')" "$(printf '\377\376')" ' white space ' 'back\slash' 'a:b' -dash '"' "'" "$(printf '\342\200\256rtl')"
do echo "$name" > "./$name"; done
cd /opt/odd && rm ./a:b "./$(printf 'new\nline')" && echo more >> 'back\slash'
"#;

/// And whatever it cannot.
pub const CHANGE_MORE: &str = r#"
set -eu
rm /opt/app/9 && mkdir /opt/app/9 && echo in > /opt/app/9/in
rm -r /opt/tree/e && mkdir /opt/tree/e && echo again > /opt/tree/e/again && echo e > /opt/tree/e/file
"#;

/// Names that are AUFS's marks, and fuse-overlayfs's: to others they are names.
pub const CHANGE_MARKS: &str = r#"
cd /root/odd && for name in .wh.mine .wh..wh..opq; do echo "$name" > "$name"; done
"#;

/// A check of a living engine, and its name.
pub type Check<E> = (&'static str, fn(&E));

/// A test of a living engine: it runs this program again, where it can do no harm.
pub struct Live {
    /// What the engine is called.
    pub engine: &'static str,
    /// What it takes; the first is the engine's own.
    pub programs: &'static [&'static str],
    /// Which of its stores the checks are about.
    pub stores: &'static str,
}

/// Begins a line of README's table, which the gate looks for there.
const TESTED: &str = "tested: ";

/// Begins the name of a test's directory.
const PREFIX: &str = "layerctl-";

/// Set in the namespaces: the test's directory.
const INSIDE: &str = "LAYERCTL_LIVE_INSIDE";

impl Live {
    /// Runs what `start` and the checks say in namespaces of its own.
    pub fn run<E>(&self, start: impl FnOnce(&Path) -> Result<E, String>, checks: &[Check<E>]) {
        match std::env::var_os(INSIDE) {
            Some(home) => self.inside(Path::new(&home), start, checks),
            None => self.outside(),
        }
    }

    /// Leaves the test out where the engine's version is one that lacks what is tested.
    #[must_use]
    pub fn of_version(self, fits: impl FnOnce(&str) -> bool, lacks: &str) -> Live {
        let is_asked_for =
            wants_all() && asked(Command::new(self.programs[0]).arg("--version")).is_ok();
        if is_asked_for && !fits(&self.version()) {
            skip_everywhere(&format!("{} {} {lacks}", self.engine, self.version()));
        }
        self
    }

    fn not_here(&self, why: &str) -> ! {
        skip(&format!("no living {} is asked: {why}", self.engine));
    }

    fn outside(&self) {
        needs_asking("a living engine is started");
        needs::root("to start an engine");
        for program in self.programs {
            if let Err(why) = asked(Command::new(program).arg("--version")) {
                self.not_here(&why);
            }
        }
        if let Err(why) = asked(unshared().arg("true")) {
            self.not_here(&why);
        }
        let home = tempfile::Builder::new()
            .prefix(&format!("{PREFIX}{}-", self.engine))
            .tempdir()
            .expect("a temporary directory");
        // Ordinary users have their homes in it.
        done(Command::new("chmod").arg("711").arg(home.path())).expect("our own directory");
        let _groups = Groups(home.path());
        again(unshared().env(INSIDE, home.path()));
        eprintln!(
            "{TESTED}| {} {} | {} |",
            self.engine,
            self.version(),
            self.stores
        );
    }

    /// The engine's version, as far as a table of what was tested tells them apart.
    fn version(&self) -> String {
        let said = asked(Command::new(self.programs[0]).arg("--version"));
        let said = String::from_utf8(said.expect("it answered before")).expect("a version");
        let mut words = said.split(|byte: char| byte.is_whitespace() || byte == ',');
        let word = words.find(|word| word.starts_with(|first: char| first.is_ascii_digit()));
        let parts: Vec<&str> = word.expect("a version").split('.').take(2).collect();
        parts.join(".")
    }

    fn inside<E>(
        &self,
        home: &Path,
        start: impl FnOnce(&Path) -> Result<E, String>,
        checks: &[Check<E>],
    ) {
        let engine = match hide_the_host(home).and_then(|()| start(home)) {
            Ok(engine) => engine,
            Err(why) => self.not_here(&why),
        };
        let wrong: Vec<String> = checks
            .iter()
            .filter_map(|(name, check)| {
                let wrong = attempt(|| check(&engine)).err()?;
                Some(format!("{name}: {wrong}"))
            })
            .collect();
        drop(engine);
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}

/// Removes the control groups below a test's own.
struct Groups<'h>(&'h Path);

impl Drop for Groups<'_> {
    fn drop(&mut self) {
        remove_cgroups(self.0);
    }
}

/// Runs a program in namespaces that end with it, and end everything in them. So does a hang.
fn unshared() -> Command {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", "3600", "unshare"]);
    command.args(["--mount", "--propagation", "private", "--net"]);
    command.args(["--pid", "--fork", "--kill-child", "--mount-proc"]);
    // What mount hands over one by one may not be longer than 255 bytes.
    command.env("LIBMOUNT_FORCE_MOUNT2", "always");
    command
}

/// A daemon, which ends with it.
pub struct Daemon {
    name: &'static str,
    child: Mutex<Child>,
    log: PathBuf,
}

impl Daemon {
    /// Starts it, with its log in `home`.
    pub fn spawn(
        name: &'static str,
        arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
        home: &Path,
    ) -> Result<Daemon, String> {
        let log = home.join("log");
        let file = fs::File::create(&log).expect("a file of our own");
        let child = Command::new(name)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("a file of our own"))
            .stderr(file)
            .spawn();
        let child = Mutex::new(child.map_err(|error| format!("{name}: {error}"))?);
        Ok(Daemon { name, child, log })
    }

    /// The end of its log.
    fn said(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&log[log.len().saturating_sub(2000)..]).into_owned()
    }

    /// The last that it complained of in its log.
    pub fn complained(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let complaints = log
            .lines()
            .rev()
            .filter(|line| line.contains("level=error"));
        complaints.take(2).collect::<Vec<_>>().join("\n")
    }

    fn has_ended(&self) -> bool {
        let mut child = self.child.lock().expect("no thread panicked");
        !matches!(child.try_wait(), Ok(None))
    }

    /// Asks until there is an answer, or the daemon has ended.
    pub fn wait_for(&self, answer: impl Fn() -> Result<(), String>) -> Result<(), String> {
        while let Err(error) = answer() {
            if self.has_ended() {
                let log = self.said();
                return Err(format!("{} did not start: {error}\n{log}", self.name));
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

impl Drop for Daemon {
    /// Whatever fails here, the namespace ends it.
    fn drop(&mut self) {
        let pid = self.child.get_mut().expect("no thread panicked").id();
        if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let ends = Instant::now() + Duration::from_secs(10);
        while Instant::now() < ends && !self.has_ended() {
            thread::sleep(Duration::from_millis(20));
        }
        let child = self.child.get_mut().expect("no thread panicked");
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// The name of the control group of all containers: the test's, whichever of its directories an engine has.
pub fn cgroup(home: &Path) -> OsString {
    let mut names = home.ancestors().filter_map(Path::file_name);
    let own = names.find(|name| name.as_bytes().starts_with(PREFIX.as_bytes()));
    own.expect("a name of our own").to_owned()
}

/// Engines remove their containers' groups, unless they were killed.
fn remove_cgroups(home: &Path) {
    let group = cgroup(home);
    let mut roots = vec![PathBuf::from("/sys/fs/cgroup")];
    let hierarchies = fs::read_dir(&roots[0]).into_iter().flatten().flatten();
    roots.extend(hierarchies.map(|entry| entry.path()));
    for at in roots.iter().map(|root| root.join(&group)) {
        for entry in WalkDir::new(&at).contents_first(true).into_iter().flatten() {
            if entry.file_type().is_dir() {
                // One that is still in use stays, as an empty directory.
                let _ = fs::remove_dir(entry.path());
            }
        }
    }
}

/// Mounts over what an engine writes outside of its own directories, and over what other engines
/// have on this machine.
fn hide_the_host(home: &Path) -> Result<(), String> {
    let mount = || Command::new("mount");
    // On an overlay, as in many containers, nothing can be the upper directory of another.
    let probe = home.join("probe");
    let overlay = || {
        for name in ["lower", "upper", "work", "mount"] {
            fs::create_dir_all(probe.join(name)).expect("a directory of our own");
        }
        let mut command = mount();
        command
            .current_dir(&probe)
            .args(["-t", "overlay", "overlay", "-o"])
            .args(["lowerdir=lower,upperdir=upper,workdir=work", "mount"]);
        done(&mut command)
    };
    if overlay().is_err() {
        done(
            mount()
                .args(["-t", "tmpfs", "-o", "mode=711", "tmpfs"])
                .arg(home),
        )?;
        overlay()?;
    }
    done(Command::new("umount").arg(probe.join("mount")))?;
    let etc = home.join("etc");
    done(Command::new("cp").args(["-a", "/etc"]).arg(&etc))?;
    done(mount().arg("--bind").arg(&etc).arg("/etc"))?;
    done(mount().args(["-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run"]))?;
    for engine in ["containerd", "containers", "docker", "rancher"] {
        let at = Path::new("/var/lib").join(engine);
        if at.is_dir() {
            done(mount().args(["-t", "tmpfs", "tmpfs"]).arg(at))?;
        }
    }
    Ok(())
}

// ---- programs ----

/// What a program prints, or what it complains of.
pub fn asked(command: &mut Command) -> Result<Vec<u8>, String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        Ok(output.stdout)
    } else {
        Err(format!(
            "{command:?}: {}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        ))
    }
}

pub fn done(command: &mut Command) -> Result<(), String> {
    asked(command).map(|_| ())
}

/// The program that containers have, which has to run without libraries.
pub fn busybox(root: &Path) -> Result<(), String> {
    fs::create_dir_all(root.join("bin")).expect("a directory of our own");
    fs::copy("/bin/busybox", root.join("bin/busybox"))
        .map_err(|error| format!("/bin/busybox: {error}"))?;
    let mut command = Command::new("chroot");
    let is_static = done(command.arg(root).args(["/bin/busybox", "true"]));
    is_static.map_err(|why| format!("/bin/busybox does not run without libraries: {why}"))
}

// ---- what lies on disk ----

/// What changes whenever anything changes.
pub type Snapshot = BTreeMap<PathBuf, (u64, u32, u64, u64, [i64; 4])>;

pub fn snapshot(root: &Path) -> Snapshot {
    let mut found = Snapshot::new();
    // Without the containers' mounts, which are file systems of their own.
    for entry in WalkDir::new(root).same_file_system(true) {
        let entry = entry.expect("root may read it");
        let meta = entry.metadata().expect("nobody removes it");
        let times = [
            meta.mtime(),
            meta.mtime_nsec(),
            meta.ctime(),
            meta.ctime_nsec(),
        ];
        let fact = (meta.ino(), meta.mode(), meta.nlink(), meta.size(), times);
        found.insert(entry.into_path(), fact);
    }
    found
}

#[track_caller]
pub fn assert_untouched(before: &Snapshot, after: &Snapshot, what: &str) {
    let paths: BTreeSet<&PathBuf> = before.keys().chain(after.keys()).collect();
    let touched: Vec<&PathBuf> = paths
        .into_iter()
        .filter(|path| before.get(*path) != after.get(*path))
        .collect();
    assert!(touched.is_empty(), "{what} touched {touched:#?}");
}

// ---- what a directory shows ----

/// One name of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    mode: u32,
    owner: (u32, u32),
    device: u64,
    size: u64,
    time: (i64, i64),
    capability: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
}

/// Everything below a directory, without it, by its path from there.
pub type Tree = BTreeMap<Vec<u8>, Node>;

/// Reads a mounted tree, without what is mounted below it.
pub fn tree(root: &Path) -> Tree {
    let mut found = Tree::new();
    for entry in WalkDir::new(root).min_depth(1).same_file_system(true) {
        let entry = entry.expect("root may read it");
        let meta = match entry.metadata() {
            Ok(meta) => meta,
            // Listed, and not to be found (54).
            Err(error)
                if error.io_error().map(io::Error::kind) == Some(io::ErrorKind::NotFound) =>
            {
                continue;
            }
            Err(error) => panic!("{error}"),
        };
        let mut value = [0; 64];
        let capability = lgetxattr(entry.path(), "security.capability", &mut value).ok();
        let node = Node {
            mode: meta.mode(),
            owner: (meta.uid(), meta.gid()),
            device: meta.rdev(),
            size: meta.size(),
            time: (meta.mtime(), meta.mtime_nsec()),
            capability: capability.map(|length| value[..length].to_vec()),
            target: meta.is_symlink().then(|| {
                let target = fs::read_link(entry.path()).expect("a link");
                target.into_os_string().as_bytes().to_vec()
            }),
        };
        let inside = entry.path().strip_prefix(root).expect("below it");
        found.insert([b"/", inside.as_os_str().as_bytes()].concat(), node);
    }
    found
}

/// A tree as whoever has other ids sees it.
pub fn shift_owners(tree: &mut Tree, by: u32) {
    for node in tree.values_mut() {
        node.owner = (node.owner.0 + by, node.owner.1 + by);
    }
}

/// The same for what is not yet as they see it.
pub fn shift_owners_below(tree: &mut Tree, by: u32) {
    for node in tree.values_mut() {
        let shifted = |id: u32| if id < by { id + by } else { id };
        node.owner = (shifted(node.owner.0), shifted(node.owner.1));
    }
}

impl Node {
    fn is_directory(&self) -> bool {
        self.mode >> 12 == 0o04
    }

    /// As docker compares (60).
    fn differs_from(&self, other: &Node) -> bool {
        let of = |node: &Node| {
            let of_file = (!node.is_directory()).then_some((node.size, node.time));
            let capability = node.capability.clone();
            (node.mode, node.owner, node.device, of_file, capability)
        };
        of(self) != of(other)
    }
}

/// The view as `ls -R -l` tells it.
pub fn view(tree: &Tree) -> View {
    tree.iter()
        .map(|(path, node)| {
            let kind = kind_of_mode(node.mode);
            let entry = Entry {
                kind: kind.into(),
                rights: Some((node.mode & 0o7777, node.owner.0.into(), node.owner.1.into())),
                size: (kind == "file").then_some(node.size),
                target: node.target.clone(),
            };
            (path.clone(), entry)
        })
        .collect()
}

fn parent(path: &[u8]) -> Option<&[u8]> {
    let slash = path.iter().rposition(|&byte| byte == b'/')?;
    (slash > 0).then(|| &path[..slash])
}

/// What `docker diff` would have to say of two trees: a directory that is gone is said once, and
/// one in which something changed is changed.
pub fn differences(below: &Tree, above: &Tree) -> BTreeSet<Change> {
    let mut found = BTreeSet::new();
    for (path, node) in above {
        match below.get(path) {
            None => {
                found.insert((b'A', path.clone()));
            }
            Some(old) if node.differs_from(old) => {
                found.insert((b'C', path.clone()));
            }
            Some(_) => {}
        }
    }
    for path in below.keys().filter(|path| !above.contains_key(*path)) {
        // What was in a directory goes with it, be it gone or another kind of thing now.
        let is_first = parent(path).is_none_or(|up| above.get(up).is_some_and(Node::is_directory));
        if is_first {
            found.insert((b'D', path.clone()));
        }
    }
    let changed: Vec<Vec<u8>> = found.iter().map(|(_, path)| path.clone()).collect();
    for path in changed {
        let mut up = parent(&path);
        while let Some(path) = up {
            if below.contains_key(path) {
                found.insert((b'C', path.to_vec()));
            }
            up = parent(path);
        }
    }
    found
}

#[apply(test)]
fn trees_differ_as_docker_compares_them() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let make = |side: &str, files: &[&str]| {
        for file in files {
            let at = home.path().join(side).join(file);
            fs::create_dir_all(at.parent().expect("below it")).expect("our own directory");
            fs::write(at, file).expect("our own directory");
        }
        tree(&home.path().join(side))
    };
    let below = make(
        "below",
        &["gone/a/b", "kept/one", "was/directory", "was-file"],
    );
    let above = make("above", &["kept/two", "new/a", "was", "was-file/in"]);
    let found = differences(&below, &above);
    let lines: Vec<String> = found.iter().map(line).collect();
    let expected = [
        "A /kept/two",
        "A /new",
        "A /new/a",
        "A /was-file/in",
        "C /kept",
        "C /was",
        "C /was-file",
        "D /gone",
        "D /kept/one",
    ];
    assert_eq!(lines, expected);
}

// ---- what is compared ----

fn line((letter, path): &Change) -> String {
    format!("{} {}", *letter as char, path.escape_ascii())
}

#[track_caller]
pub fn assert_changes(what: &str, ours: &BTreeSet<Change>, truth: &BTreeSet<Change>) {
    let only = |these: &BTreeSet<Change>, those: &BTreeSet<Change>| {
        these.difference(those).map(line).collect::<Vec<_>>()
    };
    assert!(
        ours == truth,
        "{what}\nonly ours: {:#?}\nonly the truth: {:#?}",
        only(ours, truth),
        only(truth, ours)
    );
}

/// Whether `ls -R -l` told what is to be seen.
#[track_caller]
pub fn assert_view(what: &str, listed: Output, seen: &View) {
    assert_same_view(what, &self::listed(what, listed), seen);
}

/// What `ls -R -l` told.
#[track_caller]
pub fn listed(what: &str, listed: Output) -> View {
    let rows = listed.exits(0).rows();
    let view: View = rows.iter().map(entry_of_row).collect();
    assert_eq!(view.len(), rows.len(), "{what}: a name twice");
    view
}

#[track_caller]
pub fn assert_same_view(what: &str, ours: &View, seen: &View) {
    let paths: BTreeSet<&Vec<u8>> = seen.keys().chain(ours.keys()).collect();
    let wrong: Vec<String> = paths
        .into_iter()
        .filter(|path| seen.get(*path) != ours.get(*path))
        .map(|path| {
            let path_said = path.escape_ascii();
            let (seen, ours) = (seen.get(path), ours.get(path));
            format!("{path_said}\n  seen: {seen:?}\n  ours: {ours:?}")
        })
        .collect();
    assert!(wrong.is_empty(), "{what}\n{}", wrong.join("\n"));
}

/// A script that makes files, `MANY` of them: enough for a removal to take its time.
pub const MAKE_MANY: &str = "for i in $(seq 100); do mkdir -p /many/$i; \
     for j in $(seq 100); do : > /many/$i/$j; done; done";
const MANY: usize = 100 * 100;

/// Whether all that is answered about a container with those files, while it is removed, is the
/// whole of it.
#[track_caller]
pub fn assert_goes_whole(
    remove: &mut Command,
    ask: impl Fn(&[&str]) -> Output + Sync,
    container: &str,
) {
    let before = ask(&["changes", container]).exits(0);
    assert!(before.rows().len() > MANY, "{container} is not whole");
    let is_over = AtomicBool::new(false);
    let asks = &|asked: &[&str]| {
        let (mut whole, mut part, mut gone, mut wrong) = (0, 0, 0, Vec::new());
        loop {
            let is_last = is_over.load(Ordering::Relaxed);
            let output = ask(asked);
            let rows = output.rows();
            let is_file = |row: &&Value| {
                let path = row["path"].as_str().unwrap_or_default();
                path.starts_with("/many/") && path.matches('/').count() == 3
            };
            match (output.status, rows.iter().filter(is_file).count()) {
                (Some(0), MANY) => whole += 1,
                (Some(2), 0) if !output.stderr.is_empty() => gone += 1,
                (Some(2), _) if !output.stderr.is_empty() => part += 1,
                (status, found) => wrong.push(format!(
                    "{asked:?} found {found} of {MANY} and exited {status:?}: {}",
                    output.stderr
                )),
            }
            if is_last {
                return (whole, part, gone, wrong);
            }
        }
    };
    let answers = thread::scope(|scope| {
        let asking = [&["changes"][..], &["ls", "-R"]]
            .map(|verb| scope.spawn(move || asks(&[verb, &[container]].concat())));
        let removed = done(remove);
        is_over.store(true, Ordering::Relaxed);
        removed.unwrap_or_else(|why| panic!("{why}"));
        asking.map(|asking| asking.join().expect("it asks"))
    });
    for (whole, part, gone, wrong) in answers {
        eprintln!("{container}: {whole} times whole, {part} times in part, {gone} times gone");
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        assert!(gone > 0, "{container} is not gone");
    }
}

/// How long others come and go, in seconds; `LAYERCTL_STORM` says otherwise (`just storm`).
const STORM: u64 = 15;
/// How often is looked at least, in that time.
pub const LOOKS: i32 = 10;

/// Nothing is accused while others come and go: `jobs`, each of steps that are done over and over, all
/// at once, and for so many `looks` at least. What a step complains of counts for nothing.
#[track_caller]
pub fn assert_nobody_is_accused(
    jobs: &[Vec<Vec<&str>>],
    step: &(impl Fn(&[&str]) + Sync),
    looks: i32,
    ask: impl Fn(&[&str]) -> Output,
) {
    let storm = std::env::var("LAYERCTL_STORM")
        .map_or(STORM, |said| said.parse().expect("a number of seconds"));
    let is_over = &AtomicBool::new(false);
    let (mut asked, mut told, mut looked, mut wrong) = (0, 0, 0, Vec::new());
    let rounds = thread::scope(|scope| {
        let jobs = jobs.iter().map(|steps| {
            scope.spawn(move || {
                let mut rounds = 0;
                while !is_over.load(Ordering::Relaxed) {
                    steps.iter().for_each(|words| step(words));
                    rounds += 1;
                }
                rounds
            })
        });
        let jobs: Vec<_> = jobs.collect();
        let ends = Instant::now() + Duration::from_secs(storm);
        while Instant::now() < ends || looked < looks {
            for verb in ["orphans", "containers", "orphans", "images"] {
                let output = ask(&[verb]);
                asked += 1;
                looked += i32::from(verb == "orphans");
                told += i32::from(output.status == Some(2));
                if verb == "orphans" && !output.stdout.is_empty() {
                    wrong.push(output.text().to_owned());
                }
            }
        }
        is_over.store(true, Ordering::Relaxed);
        jobs.into_iter()
            .map(|job| job.join().expect("it only asks"))
            .collect::<Vec<i32>>()
    });
    eprintln!(
        "a storm of {rounds:?} rounds: {asked} times asked, {looked} of them for orphans, {told} \
         times told in part"
    );
    assert!(rounds.iter().all(|rounds| *rounds > 0), "{rounds:?}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Whether a row of `branches` has these directories.
#[track_caller]
pub fn assert_directories(what: &str, row: &Value, expected: &[Vec<u8>]) {
    let spelled = |all: &[Vec<u8>]| -> Vec<String> {
        let spelled = all.iter().map(|path| path.escape_ascii().to_string());
        spelled.collect()
    };
    assert_eq!(spelled(&directories(row)), spelled(expected), "{what}");
}

pub fn os(bytes: &[u8]) -> &OsStr {
    OsStr::from_bytes(bytes)
}

/// What is the same at two looks, one after the other: an engine collects its garbage a little later.
pub fn settled<T: PartialEq>(look: &impl Fn() -> T) -> T {
    let mut before = look();
    for _ in 0..20 {
        thread::sleep(Duration::from_millis(250));
        let now = look();
        if now == before {
            break;
        }
        before = now;
    }
    before
}
