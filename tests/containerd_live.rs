//! A real containerd, started here by hand and changed by `ctr`: what its differ says and what its
//! tasks see is what layerctl has to say, while it holds the locks of its databases and writes to
//! them.
//!
//! Numbers are those of FACTS-engines. Truth is what the mounted directories differ in.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

use crate::docker_drivers::{Change, View, change_of_row, entry_of_row};
use crate::lab::host::directories;
use crate::lab::live::{
    self, CHANGE, CHANGE_MARKS, CHANGE_MORE, Daemon, Live, Tree, asked, assert_changes,
    assert_directories, assert_untouched, assert_view, busybox, done, os, snapshot,
};
use crate::lab::run::{self, Output, bytes, text};
use crate::lab::table;
use crate::lab::verbs::{self, Words, words};

pub const IMAGE: &str = "localhost/lab/app:1";
/// Where all but one check work, and where the other image's layers are whole directories.
pub const DEFAULT: &str = "default";
pub const NATIVE: &str = "whole";
/// Where containers come and go.
const BUSY: &str = "busy";

#[apply(test)]
fn containerd_agrees() {
    Live {
        engine: "containerd",
        programs: &["containerd", "ctr", "runc"],
        stores: "overlayfs, native",
    }
    .run(
        Containerd::start,
        &[
            ("a changed container", |containerd| {
                a_changed_container(containerd, DEFAULT)
            }),
            ("a changed container of whole snapshots", |containerd| {
                a_changed_container(containerd, NATIVE)
            }),
            ("an unchanged container", an_unchanged_container),
            ("a user namespace", ids_may_be_mapped),
            ("names of a union", every_name_of_a_union_means_it),
            ("containers and images", lists_are_ctrs),
            ("history", history_is_the_images),
            ("the root by name", the_root_can_be_named),
            ("restore", restore_is_seen),
            ("the lock", the_lock_is_not_waited_for),
            (
                "what nothing uses",
                downloads_and_mounted_images_are_nobodys_orphans,
            ),
            ("while others come and go", always_an_answer),
            ("while images come and go", nobody_is_accused),
            ("nothing is written", nothing_is_written),
        ],
    );
}

// ---- an image ----

/// A layer, packed.
pub struct Layer {
    tar: Builder<Vec<u8>>,
    step: &'static str,
}

impl Layer {
    fn new(step: &'static str) -> Layer {
        let tar = Builder::new(Vec::new());
        Layer { tar, step }
    }

    fn header(kind: EntryType, mode: u32, owner: (u64, u64), size: usize) -> Header {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(owner.0);
        header.set_gid(owner.1);
        header.set_mtime(1_600_000_000);
        header.set_size(size as u64);
        header
    }

    fn add(&mut self, path: impl AsRef<OsStr>, mut header: Header, content: &[u8]) {
        let path = Path::new(path.as_ref());
        let done = self.tar.append_data(&mut header, path, content);
        done.expect("it is written to memory");
    }

    fn file(&mut self, path: impl AsRef<OsStr>, content: impl AsRef<[u8]>) {
        self.owned(path, 0o644, (0, 0), content.as_ref());
    }

    fn owned(&mut self, path: impl AsRef<OsStr>, mode: u32, owner: (u64, u64), content: &[u8]) {
        let header = Layer::header(EntryType::Regular, mode, owner, content.len());
        self.add(path, header, content);
    }

    fn dir(&mut self, path: impl AsRef<OsStr>, mode: u32) {
        let header = Layer::header(EntryType::Directory, mode, (0, 0), 0);
        self.add(path, header, &[]);
    }

    fn link(&mut self, kind: EntryType, path: &str, target: &str) {
        // A hard link says of its file what that says itself: engines differ in whom they believe.
        let (mode, owner) = match kind {
            EntryType::Link => (0o644, (7, 8)),
            _ => (0o777, (0, 0)),
        };
        let mut header = Layer::header(kind, mode, owner, 0);
        let done = self.tar.append_link(&mut header, path, target);
        done.expect("it is written to memory");
    }
}

/// What containers need, what `CHANGE` changes, and what a layer can do to those below it.
pub fn layers() -> Vec<Layer> {
    let mut base = Layer::new("ADD busybox /");
    for directory in ["bin", "etc", "opt", "opt/app", "root", "srv"] {
        base.dir(directory, 0o755);
    }
    base.dir("tmp", 0o1777);
    let program = fs::read("/bin/busybox").expect("it ran before");
    base.owned("bin/busybox", 0o755, (0, 0), &program);
    for applet in [
        "cat", "chmod", "chown", "echo", "ln", "ls", "mkdir", "mkfifo", "mv", "printf", "rm",
        "rmdir", "sh", "sleep", "stat", "touch", "true",
    ] {
        base.link(EntryType::Symlink, &format!("bin/{applet}"), "busybox");
    }
    base.file("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n");
    for number in 1..=12 {
        base.file(format!("opt/app/{number}"), format!("{number} as it was\n"));
    }
    base.file("opt/big", &program[..300_000]);

    let mut trees = Layer::new("RUN trees");
    trees.dir("opt/tree", 0o755);
    for letter in ["a", "b", "c", "d", "e", "f", "g", "h"] {
        let at = format!("opt/tree/{letter}");
        for directory in ["", "/deep", "/deep/er"] {
            trees.dir(format!("{at}{directory}"), 0o755);
        }
        trees.file(format!("{at}/deep/er/file"), format!("{letter}\n"));
        trees.owned(format!("{at}/file"), 0o644, (7, 8), letter.as_bytes());
        trees.link(EntryType::Symlink, &format!("{at}/link"), "deep");
    }
    trees.link(EntryType::Link, "opt/tree/h/same", "opt/tree/h/file");

    let mut changed = Layer::new("RUN changes");
    changed.file("opt/app/2", "changed in a layer\n");
    changed.owned("opt/app/5", 0o4750, (0, 0), b"5 as it was\n");
    changed.owned("opt/app/6", 0o644, (7, 8), b"6 as it was\n");
    changed.file("opt/app/.wh.3", "");
    changed.dir("opt/tree/a", 0o755);
    changed.file("opt/tree/a/.wh..wh..opq", "");
    changed.file("opt/tree/a/again", "again\n");
    changed.link(EntryType::Symlink, "srv/link", "../opt/app");

    let mut odd = Layer::new("RUN odd names");
    odd.file("opt/tree/b", "a file\n");
    odd.dir("opt/app/4", 0o755);
    odd.file("opt/app/4/in", "in\n");
    odd.file("opt/app/3", "back in a layer\n");
    odd.dir("opt/odd", 0o2755);
    for name in [
        &b"new\nline"[..],
        b"not utf\xff",
        b" white space ",
        b"back\\slash",
        b"a:b",
        b"\"",
    ] {
        odd.file(os(&[b"opt/odd/", name].concat()), name);
    }
    vec![base, trees, changed, odd]
}

fn digest(content: &[u8]) -> String {
    let digits = Sha256::digest(content);
    let digits: String = digits.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{digits}")
}

/// An archive in OCI's layout, and the image's configuration.
pub fn image(name: &str, layers: Vec<Layer>) -> (Vec<u8>, Value) {
    let (mut blobs, mut described) = (Vec::new(), Vec::new());
    let mut describe = |kind: &str, content: Vec<u8>| {
        let digest = digest(&content);
        let descriptor = json!({
            "mediaType": format!("application/vnd.oci.image.{kind}"),
            "digest": digest,
            "size": content.len(),
        });
        blobs.push((format!("blobs/{}", digest.replace(':', "/")), content));
        descriptor
    };
    let created = "2026-01-02T03:04:05.678901234Z";
    let mut history = vec![];
    for layer in layers {
        let tar = layer.tar.into_inner().expect("it is written to memory");
        described.push(describe("layer.v1.tar", tar));
        history.push(json!({"created": created, "created_by": layer.step}));
    }
    history.push(json!({"created": created, "created_by": "CMD sleep", "empty_layer": true}));
    let diff_ids: Vec<&Value> = described.iter().map(|layer| &layer["digest"]).collect();
    let config = json!({
        "created": created, "os": "linux", "architecture": architecture(),
        "config": {"Cmd": ["sleep", "3600"], "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": history,
    });
    let config_described = describe("config.v1+json", config.to_string().into());
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config_described, "layers": described,
    });
    let mut manifest = describe("manifest.v1+json", manifest.to_string().into());
    manifest["annotations"] = json!({"io.containerd.image.name": name});
    let index = json!({"schemaVersion": 2, "manifests": [manifest]});

    let mut archive = Layer::new("");
    archive.file("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#);
    archive.file("index.json", index.to_string());
    for (path, content) in blobs {
        archive.file(path, content);
    }
    let archive = archive.tar.into_inner().expect("it is written to memory");
    (archive, config)
}

/// As Go calls it.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

// ---- the daemon ----

pub struct Containerd {
    pub home: PathBuf,
    pub daemon: Daemon,
    /// The image's configuration.
    config: Value,
    /// What the image shows.
    pub image: Tree,
    made: AtomicUsize,
}

impl Drop for Containerd {
    fn drop(&mut self) {
        // Whatever fails here, the namespace ends it.
        for namespace in [DEFAULT, NATIVE, BUSY] {
            for [task] in self.columns(namespace, &["tasks", "ls"], ["TASK"]) {
                let rest = ["tasks", "rm", "--force", &task];
                let _ = done(&mut self.ctr(namespace, rest));
            }
        }
    }
}

impl Containerd {
    pub fn start(home: &Path) -> Result<Containerd, String> {
        let without_pods = "disabled_plugins = [\"io.containerd.grpc.v1.cri\"]";
        let (archive, config) = image(IMAGE, layers());
        let mut containerd = Containerd::spawn(home, [without_pods, ""], config)?;
        fs::write(home.join("app.tar"), archive).expect("a file of our own");
        for namespace in [DEFAULT, NATIVE] {
            containerd.import(namespace, "app.tar")?;
        }
        let mut run = containerd.ctr(
            DEFAULT,
            ["run", "--rm", "--cgroup=", IMAGE, "first", "true"],
        );
        done(&mut run)?;
        containerd.look_at_image(DEFAULT)?;
        Ok(containerd)
    }

    /// A daemon that has a configuration of its own, which says these settings besides: of all, and
    /// of plugins.
    pub fn spawn(home: &Path, said: [&str; 2], image: Value) -> Result<Containerd, String> {
        busybox(&home.join("try"))?;
        let own = |name: &str| home.join(name);
        // Where both it and layerctl look for it. The rest is as it comes.
        let config = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\n{}\n[grpc]\naddress = {:?}\n{}\n",
            own("data"),
            own("state"),
            said[0],
            own("socket"),
            said[1],
        );
        fs::create_dir_all("/etc/containerd").expect("a directory of our own");
        fs::write("/etc/containerd/config.toml", config).expect("a directory of our own");
        let daemon = Daemon::spawn("containerd", [""; 0], home)?;
        let containerd = Containerd {
            home: home.to_owned(),
            daemon,
            config: image,
            image: Tree::new(),
            made: AtomicUsize::new(0),
        };
        let answers = || done(&mut containerd.ctr(DEFAULT, ["version"]));
        containerd.daemon.wait_for(answers)?;
        Ok(containerd)
    }

    /// Takes an archive that lies beside its data.
    pub fn import(&self, namespace: &str, archive: &str) -> Result<(), String> {
        let snapshotter = ["--snapshotter", snapshotter_of(namespace)];
        // The daemon of containerd 2 unpacks for its own snapshotter only, and its client for any.
        let import = |words: &[&str]| {
            let mut command = self.ctr(namespace, ["images", "import"]);
            let command = command.args(words).args(snapshotter);
            done(command.arg(self.home.join(archive)))
        };
        import(&[]).or_else(|_| import(&["--local"]))
    }

    /// Looks at what the image shows.
    pub fn look_at_image(&mut self, namespace: &str) -> Result<(), String> {
        // What was removed before is collected soon after, and with it what nothing refers to yet.
        std::thread::sleep(Duration::from_secs(2));
        let top = self.chain_ids().pop().expect("a layer at least");
        let view = ["snapshots", "view", "image", &top];
        done(&mut self.ctr(namespace, view))?;
        self.image = self.mounted(namespace, "image");
        done(&mut self.ctr(namespace, ["snapshots", "rm", "image"]))
    }

    /// The client.
    pub fn ctr(
        &self,
        namespace: &str,
        arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
    ) -> Command {
        let mut command = Command::new("ctr");
        command
            .arg("--address")
            .arg(self.home.join("socket"))
            .args(["--namespace", namespace])
            .args(arguments);
        command
    }

    #[track_caller]
    pub fn said(&self, namespace: &str, arguments: &[&str]) -> String {
        let printed = asked(&mut self.ctr(namespace, arguments));
        let printed = printed.unwrap_or_else(|why| panic!("{why}"));
        String::from_utf8(printed).expect("ctr prints UTF-8")
    }

    /// Some columns of a table.
    fn columns<const N: usize>(
        &self,
        namespace: &str,
        arguments: &[&str],
        names: [&str; N],
    ) -> Vec<[String; N]> {
        let printed = asked(&mut self.ctr(namespace, arguments)).unwrap_or_default();
        let rows = table::columns(&String::from_utf8_lossy(&printed), &names);
        rows.into_iter()
            .map(|row| row.try_into().expect("as many columns as asked for"))
            .collect()
    }

    pub fn new_name(&self) -> String {
        format!("lab-{}", self.made.fetch_add(1, Ordering::Relaxed))
    }

    #[track_caller]
    pub fn run(&self, namespace: &str) -> String {
        self.run_with(namespace, &[])
    }

    #[track_caller]
    fn run_with(&self, namespace: &str, more: &[&str]) -> String {
        let name = self.new_name();
        let snapshotter = snapshotter_of(namespace);
        let options = ["run", "--detach", "--cgroup=", "--snapshotter", snapshotter];
        let words = [IMAGE, &name, "sleep", "3600"];
        self.said(namespace, &[&options[..], more, &words].concat());
        name
    }

    /// Ends a container's task; what it changed stays.
    #[track_caller]
    pub fn stop(&self, namespace: &str, container: &str) {
        self.said(namespace, &["tasks", "kill", "--signal=KILL", container]);
        let ends = Instant::now() + Duration::from_secs(600);
        while asked(&mut self.ctr(namespace, ["tasks", "rm", container])).is_err() {
            let left = self.columns(namespace, &["tasks", "ls"], ["TASK"]);
            if !left.iter().any(|[task]| task == container) {
                // It complains of the status of what it removed.
                break;
            }
            assert!(Instant::now() < ends, "{container} does not end");
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn exec_command(&self, namespace: &str, container: &str, words: &[&OsStr]) -> Command {
        let id = self.new_name();
        let mut command = self.ctr(namespace, ["tasks", "exec", "--exec-id", &id, container]);
        command.args(words);
        command
    }

    #[track_caller]
    pub fn exec(&self, namespace: &str, container: &str, script: &str) -> Vec<u8> {
        let words = ["sh", "-c", script].map(OsStr::new);
        let printed = asked(&mut self.exec_command(namespace, container, &words));
        printed.unwrap_or_else(|why| panic!("{why}"))
    }

    fn cat(&self, container: &str, path: impl AsRef<OsStr>) -> Option<Vec<u8>> {
        let words = [OsStr::new("cat"), path.as_ref()];
        asked(&mut self.exec_command(DEFAULT, container, &words)).ok()
    }

    #[track_caller]
    fn pid(&self, container: &str) -> String {
        let tasks = self.columns(DEFAULT, &["tasks", "ls"], ["TASK", "PID"]);
        let task = tasks.into_iter().find(|[task, _]| task == container);
        let [_, pid] = task.expect("it runs");
        pid
    }

    /// Where a task's root is.
    pub fn rootfs(&self, namespace: &str, container: &str) -> PathBuf {
        let tasks = self.home.join("state/io.containerd.runtime.v2.task");
        tasks.join(namespace).join(container).join("rootfs")
    }

    /// What would be mounted for a snapshot: the kind of file system, its source, its options.
    #[track_caller]
    fn mount_of(&self, namespace: &str, key: &str) -> [String; 3] {
        let snapshotter = ["snapshots", "--snapshotter", snapshotter_of(namespace)];
        let said = self.said(
            namespace,
            &[&snapshotter[..], &["mounts", "/X", key]].concat(),
        );
        let words: Vec<&str> = said.split_whitespace().collect();
        let ["mount", "-t", kind, source, _, "-o", options] = words[..] else {
            panic!("{said}");
        };
        [kind, source, options].map(str::to_owned)
    }

    /// The directories of a snapshot and those below it.
    #[track_caller]
    pub fn directories(&self, namespace: &str, key: &str) -> Vec<Vec<u8>> {
        let [kind, source, options] = self.mount_of(namespace, key);
        if kind == "bind" {
            return vec![source.into()];
        }
        let option = |name: &str| {
            let mut options = options.split(',');
            options.find_map(|option| option.strip_prefix(name)?.strip_prefix('='))
        };
        let lower = option("lowerdir")
            .into_iter()
            .flat_map(|all| all.split(':'));
        let all = option("upperdir").into_iter().chain(lower);
        all.map(Into::into).collect()
    }

    /// What a snapshot shows that no task has mounted.
    #[track_caller]
    pub fn mounted(&self, namespace: &str, key: &str) -> Tree {
        let at = self.home.join("mounted");
        fs::create_dir_all(&at).expect("a directory of our own");
        let [kind, source, options] = self.mount_of(namespace, key);
        // How users are mapped is no option of the kernel's.
        let options = options.split(',').filter(|of| !of.contains("idmap="));
        let options: Vec<&str> = options.collect();
        let options = options.join(",");
        // Nothing of it is changed by looking.
        let mut command = Command::new("mount");
        match &*kind {
            "bind" => command.arg("--bind").arg(source),
            _ => command.args(["-t", &kind, &source, "-o", &format!("ro,{options}")]),
        };
        done(command.arg(&at)).unwrap_or_else(|why| panic!("{why}"));
        let tree = live::tree(&at);
        done(Command::new("umount").arg(&at)).unwrap_or_else(|why| panic!("{why}"));
        tree
    }

    /// What a container changed, found out without anybody's help.
    pub fn truth(&self, seen: &Tree) -> BTreeSet<Change> {
        live::differences(&self.image, seen)
    }

    /// The names of the snapshots of the image's layers, lowest first.
    fn chain_ids(&self) -> Vec<String> {
        let mut chain: Vec<String> = Vec::new();
        for diff_id in self.diff_ids() {
            let next = match chain.last() {
                None => diff_id,
                Some(below) => digest(format!("{below} {diff_id}").as_bytes()),
            };
            chain.push(next);
        }
        chain
    }

    fn diff_ids(&self) -> Vec<String> {
        let diff_ids = self.config["rootfs"]["diff_ids"].as_array();
        let diff_ids = diff_ids.expect("layers").iter();
        diff_ids
            .map(|id| id.as_str().expect("a digest").to_owned())
            .collect()
    }

    /// `layerctl` in a machine's format.
    pub fn ask(
        &self,
        namespace: &str,
        arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
    ) -> Output {
        ask_in(namespace, arguments)
    }

    #[track_caller]
    fn changes(&self, namespace: &str, container: &str) -> BTreeSet<Change> {
        changes_of(&self.ask(namespace, ["changes", container]).exits(0).rows())
    }

    /// What containerd's own differ says of a container over the image.
    #[track_caller]
    pub fn differ(&self, namespace: &str, container: &str) -> BTreeSet<Change> {
        let snapshotter = ["snapshots", "--snapshotter", snapshotter_of(namespace)];
        let plain = "application/vnd.oci.image.layer.v1.tar";
        let diff = ["diff", "--media-type", plain, container];
        let mut command = self.ctr(namespace, snapshotter);
        let printed = asked(command.args(diff)).unwrap_or_else(|why| panic!("{why}"));
        let mut archive = tar::Archive::new(&printed[..]);
        let mut found = BTreeSet::new();
        for entry in archive.entries().expect("a tar archive") {
            let path = entry.expect("a tar archive").path_bytes().into_owned();
            let path = path.strip_suffix(b"/").unwrap_or(&path);
            let path = [b"/", path].concat();
            let slash = path.iter().rposition(|&byte| byte == b'/').unwrap_or(0);
            let (directory, name) = path.split_at(slash + 1);
            found.insert(match name.strip_prefix(b".wh.") {
                Some(name) => (b'D', [directory, name].concat()),
                None if self.image.contains_key(&path) => (b'C', path),
                None => (b'A', path),
            });
        }
        found
    }
}

fn ask_in(namespace: &str, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Output {
    let options = ["--format", "jsonl", "--namespace", namespace].map(OsString::from);
    let arguments = arguments.into_iter().map(|word| word.as_ref().to_owned());
    run::layerctl(options.into_iter().chain(arguments))
}

fn snapshotter_of(namespace: &str) -> &'static str {
    match namespace {
        NATIVE => "native",
        _ => "overlayfs",
    }
}

#[track_caller]
pub fn changes_of(rows: &[Value]) -> BTreeSet<Change> {
    let ours: BTreeSet<Change> = rows.iter().map(change_of_row).collect();
    assert_eq!(ours.len(), rows.len(), "a line twice");
    ours
}

pub fn change(letter: u8, path: impl AsRef<[u8]>) -> Change {
    (letter, path.as_ref().to_vec())
}

/// What runc makes to mount something there; `ctr` has no exceptions.
const MADE_BY_RUNC: [&str; 4] = ["/dev", "/proc", "/run", "/sys"];

fn unchanged() -> BTreeSet<Change> {
    MADE_BY_RUNC.map(|path| change(b'A', path)).into()
}

// ---- what is looked at ----

fn a_changed_container(containerd: &Containerd, namespace: &str) {
    let container = containerd.run(namespace);
    for script in [CHANGE, CHANGE_MORE, CHANGE_MARKS] {
        containerd.exec(namespace, &container, script);
    }
    let seen = live::tree(&containerd.rootfs(namespace, &container));
    let truth = containerd.truth(&seen);
    for expected in [
        change(b'A', "/new/deep/file"),
        change(b'C', "/etc/passwd"),
        change(b'C', "/opt/app/9"),
        change(b'A', "/opt/app/9/in"),
        change(b'D', "/opt/app/7"),
        change(b'D', "/opt/tree/d"),
        change(b'D', "/opt/tree/e/link"),
        change(b'D', "/opt/odd/new\nline"),
        change(b'A', b"/root/odd/\xff\xfe"),
        change(b'A', "/root/odd/.wh.mine"),
    ] {
        assert!(truth.contains(&expected), "no {expected:?}");
    }
    let directories_said = containerd.directories(namespace, &container);
    let look = |is_running: bool| {
        let ours = containerd.changes(namespace, &container);
        assert_changes(&container, &ours, &truth);
        let listed = containerd.ask(namespace, ["ls", "-R", "-l", &container]);
        assert_view(&container, listed, &live::view(&seen));
        let row = containerd.ask(namespace, ["branches", &container]);
        let row = row.exits(0).row();
        assert_directories(&container, &row, &directories_said);
        let state = if is_running && namespace != NATIVE {
            "mounted"
        } else {
            "not-mounted"
        };
        assert_eq!(row["state"], state, "{row}");
        let deleted = format!("{container}:/opt/app/7");
        containerd.ask(namespace, ["which", &deleted]).exits(1);
    };
    look(true);
    containerd.stop(namespace, &container);
    look(false);
    let stopped = containerd.mounted(namespace, &container);
    assert_eq!(containerd.truth(&stopped), truth);
    let mut said = containerd.differ(namespace, &container);
    // Its differ has the old names of a file that has a new one, and what is called as its marks
    // are looks like one.
    said.remove(&change(b'C', "/opt/app/10"));
    for name in ["mine", ".wh..opq"] {
        if said.remove(&change(b'D', format!("/root/odd/{name}"))) {
            said.insert(change(b'A', format!("/root/odd/.wh.{name}")));
        }
    }
    assert_changes("its differ", &said, &truth);
}

/// The first of the ids that users of a container's own are for the kernel.
const SUBORDINATE: u32 = 100_000;

/// What a container with users of its own shows and changed: `ctr` copies the image's layers up for
/// other owners before it starts.
fn ids_may_be_mapped(containerd: &Containerd) {
    let maps = format!("0:{SUBORDINATE}:65536");
    let container = containerd.run_with(DEFAULT, &["--uidmap", &maps, "--gidmap", &maps]);
    containerd.exec(DEFAULT, &container, CHANGE);
    let seen = live::tree(&containerd.rootfs(DEFAULT, &container));
    let mut image = containerd.image.clone();
    live::shift_owners(&mut image, SUBORDINATE);
    let truth = live::differences(&image, &seen);
    for expected in [change(b'D', "/opt/app/7"), change(b'C', "/etc/passwd")] {
        assert!(truth.contains(&expected), "no {expected:?}");
    }
    // Another owner of all that is in the image is no change of the container's.
    assert!(!truth.contains(&change(b'C', "/opt/app/4")));
    let directories_said = containerd.directories(DEFAULT, &container);
    let look = |state: &str, seen: &Tree| {
        assert_changes(state, &containerd.changes(DEFAULT, &container), &truth);
        let listed = containerd.ask(DEFAULT, ["ls", "-R", "-l", &container]);
        assert_view(state, listed, &live::view(seen));
        let row = containerd.ask(DEFAULT, ["branches", &container]);
        assert_directories(state, &row.exits(0).row(), &directories_said);
        // What it copied up is what it changed of what was there, and no more.
        let copied = containerd.ask(DEFAULT, ["copyups", &container]).rows();
        let copied: BTreeSet<Vec<u8>> = copied.iter().map(|row| bytes(&row["path"])).collect();
        for path in [
            "/etc/passwd",
            "/opt/app/1",
            "/opt/app/2",
            "/opt/app/5",
            "/opt/app/6",
            "/opt/big",
        ] {
            assert!(
                copied.contains(path.as_bytes()),
                "{state}: {path} of {copied:?}"
            );
        }
        for path in [
            "/opt/app/4/in",
            "/opt/app/12",
            "/new/deep/file",
            "/opt/app/7",
        ] {
            assert!(!copied.contains(path.as_bytes()), "{state}: {path}");
        }
    };
    let named = format!("{container}:/opt/app/7");
    let restore = || containerd.ask(DEFAULT, ["restore", &named]).exits(0);
    look("running", &seen);
    restore();
    let shown = containerd.cat(&container, "/opt/app/7");
    assert_eq!(shown, Some(b"7 as it was\n".to_vec()));
    // To the container it is root's again.
    let stat = containerd.exec(DEFAULT, &container, "stat -c '%u %g' /opt/app/7");
    assert_eq!(stat, b"0 0\n");
    containerd.exec(DEFAULT, &container, "rm /opt/app/7");
    containerd.stop(DEFAULT, &container);
    look("stopped", &containerd.mounted(DEFAULT, &container));
    restore();
    let back = containerd.mounted(DEFAULT, &container);
    let at = &b"/opt/app/7"[..];
    assert!(back.contains_key(at) && back.get(at) == image.get(at));
    containerd.said(DEFAULT, &["containers", "rm", &container]);
}

fn an_unchanged_container(containerd: &Containerd) {
    for namespace in [DEFAULT, NATIVE] {
        let container = containerd.run(namespace);
        let seen = live::tree(&containerd.rootfs(namespace, &container));
        assert_eq!(containerd.truth(&seen), unchanged());
        assert_eq!(containerd.changes(namespace, &container), unchanged());
        let listed = containerd.ask(namespace, ["ls", "-R", "-l", &container]);
        assert_view(&container, listed, &live::view(&seen));
        let listed = containerd.ask(namespace, ["ls", "-R", "-l", IMAGE]);
        assert_view(IMAGE, listed, &live::view(&containerd.image));
        containerd.stop(namespace, &container);
    }
}

fn every_name_of_a_union_means_it(containerd: &Containerd) {
    let container = containerd.run(DEFAULT);
    let branches = containerd.directories(DEFAULT, &container);
    assert_eq!(branches.len(), 5);
    let pid = containerd.pid(&container);
    let rootfs = containerd.rootfs(DEFAULT, &container);
    let row = containerd.ask(DEFAULT, ["branches", &container]).exits(0);
    let row = row.row();
    assert_eq!(row["owner"]["engine"], "containerd");
    assert_eq!(row["owner"]["kind"], "container");
    assert_eq!(row["owner"]["id"], container.as_str());
    let mounts: Vec<Vec<u8>> = row["mounts"]
        .as_array()
        .into_iter()
        .flatten()
        .map(bytes)
        .collect();
    assert!(
        mounts.contains(&rootfs.as_os_str().as_encoded_bytes().to_vec()),
        "{row}"
    );
    let roles: Vec<&str> = row["branches"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|branch| text(branch, "role"))
        .collect();
    let expected = [
        "container",
        "image 4/4",
        "image 3/4",
        "image 2/4",
        "image 1/4",
    ];
    assert_eq!(roles, expected);

    let engine = format!("containerd:{container}");
    let inside = rootfs.join("opt");
    let paths = [&rootfs, &inside].map(|path| path.to_str().expect("a plain path"));
    for name in [&engine, &pid, paths[0], paths[1]] {
        let of_name = containerd.ask(DEFAULT, ["branches", name]).exits(0).row();
        assert_directories(name, &of_name, &branches);
        assert_eq!(of_name["owner"], row["owner"], "{name}");
    }
    let which = |asked: &str| containerd.ask(DEFAULT, ["which", asked]).exits(0).row();
    let expected = which(&format!("{container}:/opt/app/2"));
    assert_eq!(expected["branch"], 2, "{expected}");
    for asked in [
        format!("{pid}:/opt/app/2"),
        format!("{}/opt/app/2", paths[0]),
        format!("{container}:/srv/link/2"),
    ] {
        let row = which(&asked);
        for field in ["path", "branch", "layer", "versions"] {
            assert_eq!(row[field], expected[field], "{row}");
        }
    }
    // The image's snapshots, and what runs over them.
    let image = containerd.ask(DEFAULT, ["branches", IMAGE]).exits(0).row();
    assert_directories(IMAGE, &image, &branches[1..]);
    // Another namespace has layers of its own, and not this container.
    let other = containerd.ask(NATIVE, ["branches", IMAGE]).exits(0).row();
    assert_ne!(directories(&other), branches[1..]);
    containerd.ask(NATIVE, ["branches", &container]).exits(2);
    containerd.stop(DEFAULT, &container);
    assert_eq!(containerd.ask(DEFAULT, ["branches", &pid]).status, Some(2));
}

// ---- lists ----

/// A download that is under way and one whose client died, a blob of no image, and an image that is
/// mounted by hand: what each is called, and how it is freed.
fn downloads_and_mounted_images_are_nobodys_orphans(containerd: &Containerd) {
    let unused = || {
        let found = containerd.ask(DEFAULT, ["orphans", "--unused"]);
        assert_ne!(found.status, Some(2), "{}", found.text());
        found.rows()
    };
    let none_accused = || {
        let rows = containerd.ask(DEFAULT, ["orphans"]).exits(0).rows();
        assert!(rows.is_empty(), "{rows:?}");
    };
    let named = |rows: &[Value], end: &str| {
        let mut rows = rows.iter();
        let found = rows.find(|row| row["name"].as_str().is_some_and(|name| name.ends_with(end)));
        found.cloned()
    };

    let content = "part of it";
    let whole = digest(content.repeat(2).as_bytes());
    let reference = containerd.new_name();
    let ingest = ["content", "ingest", "--expected-digest", &whole, &reference];
    let mut command = containerd.ctr(DEFAULT, ingest);
    let mut client = command.stdin(Stdio::piped()).spawn().expect("a client");
    let mut pipe = client.stdin.take().expect("a pipe");
    pipe.write_all(content.as_bytes())
        .expect("the client reads");
    let ends = Instant::now() + Duration::from_secs(600);
    let row = loop {
        if let Some(row) = named(&unused(), &format!("/{reference}")) {
            break row;
        }
        assert!(Instant::now() < ends, "{reference} does not begin");
        thread::sleep(Duration::from_millis(20));
    };
    assert_eq!(row["kind"], "in-progress", "{row}");
    none_accused();
    client.kill().expect("it runs");
    client.wait().expect("it is ours");
    drop(pipe);
    assert!(named(&unused(), &format!("/{reference}")).is_some());
    none_accused();

    // The same goes on where that one ended, or begins anew.
    let at = containerd.home.join("ingested");
    fs::write(&at, content.repeat(2)).expect("a file of our own");
    let mut command = containerd.ctr(DEFAULT, ingest);
    // Newer clients seek in what they are given.
    command.stdin(File::open(at).expect("a file of our own"));
    assert!(command.status().expect("a client").success());
    let row = named(&unused(), &whole).expect("a blob that no image has");
    assert_eq!(row["kind"], "blob", "{row}");
    assert_eq!(
        row["command"],
        format!("ctr -n {DEFAULT} content rm {whole}")
    );
    none_accused();
    containerd.said(DEFAULT, &["content", "rm", &whole]);
    assert_eq!(named(&unused(), &whole), None);

    let place = containerd.home.join("mounted image");
    fs::create_dir_all(&place).expect("a directory of our own");
    let place = place.to_str().expect("plain names");
    containerd.said(DEFAULT, &["images", "mount", IMAGE, place]);
    assert_eq!(named(&unused(), place), None);
    none_accused();
    let row = containerd.ask(DEFAULT, ["branches", place]).exits(0).row();
    assert_eq!(row["branches"][0]["permission"], "ro", "{row}");
    containerd.said(DEFAULT, &["images", "unmount", "--rm", place]);
    none_accused();
}

/// Rows of `ctr containers ls`, with what more it tells of each.
fn containers_of(containerd: &Containerd, namespace: &str) -> Vec<Value> {
    let listed = containerd.columns(namespace, &["containers", "ls"], ["CONTAINER"]);
    let info = |[id]: [String; 1]| {
        let said = containerd.said(namespace, &["containers", "info", &id]);
        serde_json::from_str(&said).expect("ctr prints JSON")
    };
    listed.into_iter().map(info).collect()
}

fn lists_are_ctrs(containerd: &Containerd) {
    let (running, whole, stopped) = (
        containerd.run(DEFAULT),
        containerd.run(NATIVE),
        containerd.run(DEFAULT),
    );
    containerd.stop(DEFAULT, &stopped);
    let created = containerd.new_name();
    let create = ["containers", "create", IMAGE, &created];
    containerd.said(DEFAULT, &[&create[..], &["echo", "a b"]].concat());
    // Killed, and its task still there.
    let killed = containerd.run(DEFAULT);
    containerd.said(DEFAULT, &["tasks", "kill", "--signal=KILL", &killed]);
    let status_of = |container: &str| {
        let tasks = containerd.columns(DEFAULT, &["tasks", "ls"], ["TASK", "STATUS"]);
        let task = tasks.into_iter().find(|[task, _]| task == container);
        task.map(|[_, status]| status)
    };
    let ends = Instant::now() + Duration::from_secs(600);
    while status_of(&killed).as_deref() != Some("STOPPED") {
        assert!(Instant::now() < ends);
        thread::sleep(Duration::from_millis(20));
    }

    let mut count = 0;
    for namespace in [DEFAULT, NATIVE] {
        let rows = containerd.ask(namespace, ["containers"]).exits(0).rows();
        let said = containers_of(containerd, namespace);
        assert_eq!(rows.len(), said.len(), "{namespace}");
        count += rows.len();
        let tasks = containerd.columns(namespace, &["tasks", "ls"], ["TASK", "STATUS"]);
        for said in &said {
            let row = rows.iter().find(|row| row["id"] == said["ID"]);
            let row = row.unwrap_or_else(|| panic!("no {}", said["ID"]));
            assert_eq!(row["engine"], "containerd");
            assert_eq!(row["namespace"], namespace);
            assert_eq!(row["name"], said["ID"]);
            assert_eq!(row["image"], said["Image"]);
            assert_eq!(row["driver"], said["Snapshotter"]);
            assert_eq!(row["created"], said["CreatedAt"]);
            let id = text(said, "ID");
            let runs = tasks
                .iter()
                .any(|[task, status]| task == id && status == "RUNNING");
            assert_eq!(row["state"] == "running", runs, "{row}");
        }
        let named = |name: &str| rows.iter().find(|row| row["name"] == name);
        if let Some(row) = named(&created) {
            assert_eq!(row["state"], "created", "{row}");
            assert_eq!(row["command"], "echo 'a b'", "{row}");
        }
        if let Some(row) = named(&stopped) {
            // Its task is gone, and its exit code with it.
            assert_eq!(row["state"], "exited", "{row}");
            assert_eq!(row["exit_code"], Value::Null, "{row}");
        }
        for name in [&running, &whole] {
            assert!(named(name).is_none_or(|row| row["command"] == "sleep 3600"));
        }
        images_are_ctrs(containerd, namespace);
    }
    // What never ran has changed nothing; runc made its places in the others.
    assert_eq!(containerd.changes(DEFAULT, &created), BTreeSet::new());
    for name in [&stopped, &killed] {
        assert_eq!(containerd.changes(DEFAULT, name), unchanged(), "{name}");
    }
    let all = run::layerctl(["--format", "jsonl", "containers"])
        .exits(0)
        .rows();
    assert_eq!(all.len(), count);
    let info = run::layerctl(["--format", "jsonl", "info"]).exits(0).row();
    let engine = &info["engines"][0];
    assert_eq!(engine["engine"], "containerd");
    assert_eq!(engine["container_count"], count);
    assert_eq!(info["problems"], json!([]));
}

fn images_are_ctrs(containerd: &Containerd, namespace: &str) {
    // A second name, and the image of nothing else.
    let second = "localhost/lab/second:2";
    containerd.said(namespace, &["images", "tag", "--force", IMAGE, second]);
    let rows = containerd
        .ask(namespace, ["images", "--all"])
        .exits(0)
        .rows();
    let columns = ["REF", "DIGEST", "SIZE"];
    let said = containerd.columns(namespace, &["images", "ls"], columns);
    let mut names: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for [name, digest, _] in &said {
        names
            .entry(digest.clone())
            .or_default()
            .insert(name.clone());
    }
    assert_eq!(rows.len(), names.len(), "{rows:?}");
    for row in &rows {
        let digest = format!("sha256:{}", text(row, "id"));
        let tags = row["tags"].as_array().into_iter().flatten();
        let tags: BTreeSet<String> = tags
            .map(|tag| tag.as_str().expect("a name").to_owned())
            .collect();
        assert_eq!(Some(&tags), names.get(&digest), "{row}");
        let size = row["size"].as_u64().expect("a size") as f64;
        let size = format!("{:.1} MiB", size / f64::from(1 << 20));
        assert!(said.iter().all(|[_, _, said]| *said == size), "{row}");
        assert_eq!(row["layer_count"], 4);
        assert_eq!(row["created"], containerd.config["created"]);
    }
    containerd.said(namespace, &["images", "rm", second]);
}

fn history_is_the_images(containerd: &Containerd) {
    let rows = containerd.ask(DEFAULT, ["history", IMAGE]).exits(0).rows();
    let steps = containerd.config["history"].as_array().expect("a history");
    assert_eq!(rows.len(), steps.len());
    for (row, step) in rows.iter().zip(steps.iter().rev()) {
        assert_eq!(row["instruction"], step["created_by"]);
        assert_eq!(row["empty"], step["empty_layer"] == true);
    }
    let below = rows[1..].iter();
    for ((row, diff_id), chain_id) in below
        .zip(containerd.diff_ids().iter().rev())
        .zip(containerd.chain_ids().iter().rev())
    {
        assert_eq!(row["diff_id"], *diff_id);
        assert_eq!(row["chain_id"], *chain_id);
    }
    let container = containerd.run(DEFAULT);
    let found: Vec<Vec<u8>> = rows[1..]
        .iter()
        .map(|row| bytes(&row["directory"]))
        .collect();
    assert_eq!(found, containerd.directories(DEFAULT, &container)[1..]);
    let of_container = containerd.ask(DEFAULT, ["history", &container]);
    // Its own layer is above the image's.
    let mut of_container = of_container.exits(0).rows().split_off(1);
    for (of_container, row) in of_container.iter_mut().zip(&rows) {
        of_container["target"] = row["target"].clone();
    }
    assert_eq!(of_container, rows);
    containerd.stop(DEFAULT, &container);
}

/// By any of its names. The configuration that tells of this root has its state directory, too.
fn the_root_can_be_named(containerd: &Containerd) {
    let container = containerd.run(DEFAULT);
    let root = containerd.home.join("data");
    let linked = containerd.home.join("linked");
    symlink(&root, &linked).expect("a directory of our own");
    let named = |root: &Path, arguments: &[&str]| {
        let mut command = run::command();
        command.arg("--containerd-root").arg(root);
        run::run(command.args(["--format", "jsonl"]).args(arguments)).exits(0)
    };
    for root in [&root, &linked] {
        let rows = named(root, &["changes", &container]).rows();
        assert_eq!(changes_of(&rows), unchanged(), "{}", root.display());
    }
    let rows = named(&root, &["containers"]).rows();
    let row = rows.iter().find(|row| row["id"] == container.as_str());
    let row = row.expect("it is listed");
    assert_eq!(row["mounted"], true, "{row}");
    assert_eq!(row["state"], "running", "{row}");
    containerd.stop(DEFAULT, &container);
}

// ---- what is restored ----

fn restore_is_seen(containerd: &Containerd) {
    let container = containerd.run(DEFAULT);
    let restore = |options: &[&str], target: &str, path: &str| {
        let arguments = ["restore", "--in", target];
        let arguments = [&arguments[..], options, &["--", path]].concat();
        containerd.ask(DEFAULT, arguments)
    };
    let delete = |script: &str| {
        // Looked up after its deletion, so that the kernel has it in mind (64).
        let script = format!("{script}; ls -l /opt/app/7 /opt/tree/h || true");
        containerd.exec(DEFAULT, &container, &script);
    };
    let seven = Some(b"7 as it was\n".to_vec());
    delete("rm -r /opt/app/7 /opt/tree/h");
    let row = restore(&[], &container, "/opt/app/7").exits(0).row();
    assert_eq!(row["strategy"], "copy", "{row}");
    assert_eq!(containerd.cat(&container, "/opt/app/7"), seven);
    restore(&["--recursive"], &container, "/opt/tree/h").exits(0);
    restore(&[], &container, "/opt/app/7").exits(1);
    delete("rm -r /opt/app/7");
    let pid = containerd.pid(&container);
    restore(&[], &pid, "/opt/app/7").exits(0);
    assert_eq!(containerd.cat(&container, "/opt/app/7"), seven);
    let rootfs = containerd.rootfs(DEFAULT, &container);
    let seen = live::tree(&rootfs);
    assert_changes("restored", &containerd.truth(&seen), &unchanged());
    assert_changes(
        &container,
        &containerd.changes(DEFAULT, &container),
        &unchanged(),
    );

    delete("rm /opt/app/7; rm -r /opt/tree/d /opt/tree/e; mkdir /opt/tree/e");
    let upper = containerd.directories(DEFAULT, &container).remove(0);
    let before = snapshot(Path::new(os(&upper)));
    let refused = restore(&["--strategy", "unhide"], &container, "/opt/app/7").exits(2);
    assert!(refused.stderr.contains("mounted"), "{}", refused.stderr);
    assert_untouched(
        &before,
        &snapshot(Path::new(os(&upper))),
        "a refused restore",
    );
    containerd.stop(DEFAULT, &container);
    let row = restore(&[], &container, "/opt/app/7").exits(0).row();
    assert_eq!(row["strategy"], "unhide", "{row}");
    restore(&["--yes"], &container, "/opt/tree/d").exits(0);
    restore(&[], &container, "/opt/tree/e/deep/er/file").exits(0);
    containerd.said(DEFAULT, &["tasks", "start", "--detach", &container]);
    assert_eq!(containerd.cat(&container, "/opt/app/7"), seven);
    let d = containerd.cat(&container, "/opt/tree/d/deep/er/file");
    assert_eq!(d, Some(b"d\n".to_vec()));
    let truth = containerd.truth(&live::tree(&rootfs));
    let expected = [
        (b'C', "/opt"),
        (b'C', "/opt/tree"),
        (b'C', "/opt/tree/e"),
        (b'D', "/opt/tree/e/file"),
        (b'D', "/opt/tree/e/link"),
    ]
    .map(|(letter, path)| change(letter, path));
    assert_eq!(truth, expected.into_iter().chain(unchanged()).collect());
    assert_changes(&container, &containerd.changes(DEFAULT, &container), &truth);
    containerd.stop(DEFAULT, &container);
}

// ---- what is left alone ----

fn reading(container: &str) -> Vec<Words> {
    let mut all = verbs::reading(
        container.as_ref(),
        "/opt/app/7".as_ref(),
        "/var/lib".as_ref(),
    );
    all.extend([words(["branches", IMAGE]), words(["ls", "-R", "-l", IMAGE])]);
    all
}

/// containerd holds it as long as it runs (70).
fn the_lock_is_not_waited_for(containerd: &Containerd) {
    let container = containerd.run(DEFAULT);
    for database in [
        "io.containerd.metadata.v1.bolt/meta.db",
        "io.containerd.snapshotter.v1.overlayfs/metadata.db",
    ] {
        let path = containerd.home.join("data").join(database);
        let file = File::open(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
        let locked = flock(&file, FlockOperation::NonBlockingLockShared);
        assert_eq!(locked, Err(rustix::io::Errno::WOULDBLOCK), "{path:?}");
    }
    let answered = |asked: &Words| !verbs::is_refused(asked);
    for arguments in reading(&container).into_iter().filter(answered) {
        let output = containerd.ask(DEFAULT, &arguments);
        assert_ne!(output.status, Some(2), "{arguments:?} {}", output.stderr);
    }
    containerd.stop(DEFAULT, &container);
}

/// While images are unpacked - also by clients that are killed - and snapshots and containers come and
/// go, nothing is an orphan.
fn nobody_is_accused(containerd: &Containerd) {
    // All that is shared between threads.
    let socket = containerd.home.join("socket");
    let archive = containerd.home.join("app.tar");
    let archive = archive.to_str().expect("plain names");
    let others = ["storm-1", "storm-2", "storm-3"];
    let own = |of: &[&'static str]| -> Vec<Vec<&'static str>> {
        of.iter().map(|words| words.split(' ').collect()).collect()
    };
    let ctr = |namespace: &str, words: &[&str], seconds: &str| {
        // A client that is killed leaves its lease, and what it has half unpacked.
        let mut command = Command::new("timeout");
        command.args(["--signal=KILL", seconds, "ctr", "--address"]);
        command.arg(&socket).args(["--namespace", namespace]);
        let _ = live::asked(command.args(words));
    };
    let step = |words: &[&str]| {
        let (namespace, words) = words.split_first().expect("a namespace");
        match words {
            ["import"] => ctr(namespace, &["images", "import", archive], "60"),
            ["killed", seconds] => ctr(namespace, &["images", "import", archive], seconds),
            _ => ctr(namespace, words, "60"),
        }
    };
    let jobs = [
        own(&[
            "storm-1 import",
            "storm-1 images rm --sync localhost/lab/app:1",
        ]),
        own(&[
            "storm-2 killed 0.02",
            "storm-2 killed 0.05",
            "storm-2 killed 0.1",
            "storm-2 import",
            "storm-2 images rm localhost/lab/app:1",
        ]),
        own(&[
            "storm-3 import",
            "storm-3 run --detach --cgroup= localhost/lab/app:1 storm sleep 3600",
            "storm-3 tasks rm --force storm",
            "storm-3 containers rm storm",
            "storm-3 snapshots prepare storm-key",
            "storm-3 snapshots view storm-view storm-key",
            "storm-3 snapshots rm storm-key",
        ]),
    ];
    live::assert_nobody_is_accused(&jobs, &step, live::LOOKS, |asked| {
        containerd.ask(DEFAULT, asked)
    });
    for namespace in others {
        let _ = asked(&mut containerd.ctr(namespace, ["images", "rm", "--sync", IMAGE]));
    }
}

/// Asks again and again while containers and images come and go, in the same databases.
fn always_an_answer(containerd: &Containerd) {
    const NAMES: [&str; 3] = ["busy-1", "busy-2", "busy-3"];
    let container = containerd.run(DEFAULT);
    containerd.exec(DEFAULT, &container, CHANGE);
    let seen = live::view(&live::tree(&containerd.rootfs(DEFAULT, &container)));
    let truth = containerd.truth(&live::tree(&containerd.rootfs(DEFAULT, &container)));
    let directories_said = containerd.directories(DEFAULT, &container);
    let kept: BTreeSet<String> = containers_of(containerd, DEFAULT)
        .iter()
        .map(|said| text(said, "ID").to_owned())
        .collect();
    let mut import = containerd.ctr(BUSY, ["images", "import"]);
    done(import.arg(containerd.home.join("app.tar"))).unwrap_or_else(|why| panic!("{why}"));

    let is_over = AtomicBool::new(false);
    // All that is shared between threads.
    let socket = containerd.home.join("socket");
    let ctr = |arguments: &[&str]| {
        let mut command = Command::new("ctr");
        command.arg("--address").arg(&socket);
        done(command.args(["--namespace", BUSY]).args(arguments))
    };
    let come_and_go = |name: &str| {
        let mut rounds = 0;
        while !is_over.load(Ordering::Relaxed) {
            let run = ["run", "--detach", "--cgroup=", IMAGE, name, "sleep", "3600"];
            ctr(&run).unwrap_or_else(|why| panic!("{why}"));
            let tag = format!("localhost/{name}:{rounds}");
            ctr(&["images", "tag", IMAGE, &tag]).unwrap_or_else(|why| panic!("{why}"));
            ctr(&["images", "rm", &tag]).unwrap_or_else(|why| panic!("{why}"));
            // It complains of the exit status.
            let _ = ctr(&["tasks", "rm", "--force", name]);
            ctr(&["containers", "rm", name]).unwrap_or_else(|why| panic!("{why}"));
            rounds += 1;
        }
        rounds
    };
    let look = || {
        let rows = ask_in(DEFAULT, ["changes", &container]).exits(0).rows();
        assert_changes(&container, &changes_of(&rows), &truth);
        let rows = ask_in(DEFAULT, ["containers"]).exits(0).rows();
        let ours: BTreeSet<String> = rows.iter().map(|row| text(row, "id").to_owned()).collect();
        assert_eq!(ours, kept);
        let row = rows.iter().find(|row| row["id"] == container.as_str());
        assert_eq!(row.expect("it runs")["state"], "running");
        let row = ask_in(DEFAULT, ["branches", &container]).exits(0).row();
        assert_directories(&container, &row, &directories_said);
        let rows = ask_in(DEFAULT, ["images", "--all"]).exits(0).rows();
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0]["tags"], json!([IMAGE]));
        let rows = ask_in(DEFAULT, ["ls", "-R", "-l", &container])
            .exits(0)
            .rows();
        let ours: View = rows.iter().map(entry_of_row).collect();
        assert!(ours == seen, "ls");
        let rows = ask_in(DEFAULT, ["history", IMAGE]).exits(0).rows();
        assert_eq!(rows.len(), 5);
        // Of those that come and go: what there is, or that it is not there.
        let rows = ask_in(BUSY, ["containers"]).exits(0).rows();
        for row in &rows {
            assert!(NAMES.contains(&text(row, "id")), "{row}");
            assert_eq!(row["image"], IMAGE, "{row}");
            assert_eq!(row["driver"], "overlayfs", "{row}");
            assert_eq!(row["command"], "sleep 3600", "{row}");
        }
        let rows = ask_in(BUSY, ["images"]).exits(0).rows();
        assert_eq!(rows.len(), 1, "{rows:?}");
        let output = ask_in(BUSY, ["changes", NAMES[0]]);
        let ours = changes_of(&output.rows());
        assert!(ours.is_subset(&unchanged()), "{ours:?}");
        if output.status != Some(0) {
            // It was not there, or went while it was read.
            let output = output.exits(2);
            let has_gone = output.stderr.contains("removed");
            assert!(has_gone || ours.is_empty(), "{}", output.stderr);
        }
        let output = ask_in(BUSY, ["branches", NAMES[1]]);
        if output.status == Some(0) {
            let row = output.row();
            assert_eq!(directories(&row).len(), 5, "{row}");
            // Before a container is recorded its snapshot has the name.
            if row["owner"]["kind"] == "layer" {
                return;
            }
            assert_eq!(directories(&row)[1..], containerd_layers(&row), "{row}");
        }
    };
    let (asked, rounds) = thread::scope(|scope| {
        let busy = NAMES.map(|name| {
            let come_and_go = &come_and_go;
            scope.spawn(move || come_and_go(name))
        });
        let ends = Instant::now() + Duration::from_secs(5);
        let mut asked = 0;
        let looked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            while Instant::now() < ends || asked <= 5 {
                look();
                asked += 1;
            }
        }));
        is_over.store(true, Ordering::Relaxed);
        let rounds = busy.map(|one| {
            one.join()
                .unwrap_or_else(|why| std::panic::resume_unwind(why))
        });
        if let Err(why) = looked {
            std::panic::resume_unwind(why);
        }
        (asked, rounds.iter().sum::<i32>())
    });
    eprintln!("asked {asked} times while {rounds} containers came and went");
    assert!(asked > 5 && rounds > 5, "{asked} {rounds}");
    containerd.stop(DEFAULT, &container);
}

/// The layers of a row that are an image's.
fn containerd_layers(row: &Value) -> Vec<Vec<u8>> {
    let branches = row["branches"].as_array().into_iter().flatten();
    let of_image = branches.filter(|branch| text(branch, "role").starts_with("image "));
    of_image.map(|branch| bytes(&branch["directory"])).collect()
}

fn nothing_is_written(containerd: &Containerd) {
    let (running, stopped) = (containerd.run(DEFAULT), containerd.run(DEFAULT));
    for container in [&running, &stopped] {
        containerd.exec(DEFAULT, container, "rm /opt/app/7; echo more >> /opt/app/2");
    }
    containerd.stop(DEFAULT, &stopped);
    let all = || {
        let mut all = snapshot(&containerd.home.join("data"));
        all.extend(snapshot(&containerd.home.join("state")));
        all
    };
    let before = live::settled(&all);
    for container in [&running, &stopped] {
        for arguments in reading(container) {
            containerd.ask(DEFAULT, &arguments);
        }
    }
    assert_untouched(&before, &all(), "reading");
    let mut log = String::new();
    let file = File::open(containerd.home.join("log")).expect("our own file");
    { file }.read_to_string(&mut log).expect("text");
    assert!(!log.contains("level=fatal"), "{log}");
}
