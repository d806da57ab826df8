//! In hostile hands: layers that change under the reader, names and records made to deceive, hosts
//! that may not be touched, and a store that an engine goes on writing to. Nothing outside a layer
//! is read or written, nothing reaches a terminal that it would act on, and every run ends with an
//! answer.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, RenameFlags, Timespec, Timestamps, UTIME_OMIT, lgetxattr,
    llistxattr, makedev, mknodat, openat, renameat_with, utimensat,
};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use walkdir::WalkDir;

use crate::lab::deep::Deep;
use crate::lab::host::Host;
use crate::lab::run::{self, Output, bytes, text, texts};
use crate::lab::{all_right, is_root, skip};
use crate::whois::bolt;

// ---- what all of them need ----

/// Numbers that are the same in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit.max(1) as u64).expect("below a usize")
    }

    fn of<'a, T>(&mut self, these: &'a [T]) -> &'a T {
        &these[self.below(these.len())]
    }
}

type Words = Vec<OsString>;

fn words<T: AsRef<OsStr>>(words: impl IntoIterator<Item = T>) -> Words {
    words
        .into_iter()
        .map(|word| word.as_ref().to_owned())
        .collect()
}

/// Every verb that reads, asked of one union, one path in it and one directory of the host.
fn reading(target: &OsStr, path: &OsStr, directory: &OsStr) -> Vec<Words> {
    let plain: [&[&str]; 7] = [
        &["branches"],
        &["containers"],
        &["images", "--all"],
        &["check"],
        &["info"],
        &["orphans"],
        &["du"],
    ];
    let of_target: [&[&str]; 10] = [
        &["branches", "--"],
        &["ls", "-R", "-l", "--in"],
        &["-v", "ls", "-R", "--in"],
        &["whiteouts", "--all-layers", "--"],
        &["copyups", "--"],
        &["changes", "--"],
        &["changes", "--long", "--"],
        &["-v", "history", "--"],
        &["check", "--"],
        &["du", "--"],
    ];
    let mut all: Vec<Words> = plain.into_iter().map(words).collect();
    for of_target in of_target {
        let mut asked = words(of_target);
        asked.push(target.to_owned());
        if of_target.contains(&"--in") {
            asked.extend(words(["--", "/"]));
        }
        all.push(asked);
    }
    for verb in [&["which"][..], &["restore", "--dry-run"]] {
        let mut asked = words(verb);
        asked.extend(words(["--in".as_ref(), target, "--".as_ref(), path]));
        all.push(asked);
    }
    all.push(words(["whois".as_ref(), "--".as_ref(), directory]));
    all
}

/// Long for the slowest machine, short for what never ends.
const HANG: &str = "30";
/// KiB.
const MEMORY: &str = "1048576";

/// A program that is killed when it hangs, and refused more memory than anything here may take.
fn bounded(program: &Path) -> Command {
    let mut command = Command::new("timeout");
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("TZ", "UTC")
        .stdin(Stdio::null())
        .args(["-s", "KILL", HANG, "/bin/sh", "-c"])
        .args([&format!("ulimit -v {MEMORY} && exec \"$@\""), "sh"])
        .arg(program);
    command
}

fn layerctl() -> Command {
    bounded(Path::new(env!("CARGO_BIN_EXE_layerctl")))
}

/// Asks about a host, within bounds.
fn ask(root: &Path, arguments: &[OsString]) -> Output {
    run::run(layerctl().arg("--root").arg(root).args(arguments))
}

/// What is wrong with how a run ended, whatever it was asked.
fn ill_end(asked: &[OsString], output: &Output) -> Option<String> {
    let is_panic =
        output.stderr.contains("panicked") || output.stderr.contains("overflowed its stack");
    let is_status = matches!(output.status, Some(0..=2));
    let is_silent = output.status == Some(2) && output.stderr.is_empty();
    (is_panic || !is_status || is_silent).then(|| {
        format!(
            "{asked:?} ended with {:?}: {}",
            output.status,
            output.stderr.chars().take(600).collect::<String>()
        )
    })
}

fn sha256(of: impl AsRef<[u8]>) -> String {
    let digits = Sha256::digest(of.as_ref());
    digits.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn node(at: &Path, kind: FileType) -> bool {
    // /dev/null, should it be a device.
    mknodat(CWD, at, kind, Mode::from_raw_mode(0o666), makedev(1, 3)).is_ok()
}

const DATA: &str = "/var/lib/docker";
const TIME: &str = "2026-01-02T03:04:05.678901234Z";

/// A Docker host on overlay2 with one image of two layers, written as the daemon writes it.
struct Store {
    host: Host,
    image: String,
    top_chain: String,
}

impl Store {
    /// `hostile` is put into every text that an image may choose.
    fn new(hostile: &str) -> Store {
        let mut store = Store {
            host: Host::empty(),
            image: String::new(),
            top_chain: String::new(),
        };
        let (mut diffs, mut history) = (Vec::new(), Vec::new());
        for (layer, lower) in [("base", &[][..]), ("top", &["BASE"])] {
            store.layer(layer, &layer.to_uppercase(), lower);
            let diff = format!("sha256:{}", sha256(layer));
            let parent = std::mem::take(&mut store.top_chain);
            store.top_chain = if parent.is_empty() {
                diff.clone()
            } else {
                format!("sha256:{}", sha256(format!("{parent} {diff}")))
            };
            let hex = &store.top_chain["sha256:".len()..];
            let at = |file: &str| format!("image/overlay2/layerdb/sha256/{hex}/{file}");
            store.file(&at("cache-id"), layer);
            store.file(&at("diff"), &diff);
            store.file(&at("size"), "1000");
            if !parent.is_empty() {
                store.file(&at("parent"), parent);
            }
            diffs.push(diff);
            history.push(json!({
                "created": TIME,
                "created_by": format!("made {layer}{hostile}"),
                "comment": format!("comment{hostile}"),
                "author": format!("author{hostile}"),
            }));
        }
        let config = json!({
            "architecture": format!("amd64{hostile}"),
            "author": hostile,
            "config": {"Cmd": [format!("sh{hostile}")], "Labels": {"a": hostile, hostile: "b"}},
            "created": TIME,
            "history": history,
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": diffs},
        })
        .to_string();
        store.image = sha256(&config);
        let image = format!("sha256:{}", store.image);
        store.file(
            &format!("image/overlay2/imagedb/content/sha256/{}", store.image),
            config,
        );
        let mut names = json!({"app:1": image});
        if !hostile.is_empty() {
            names[format!("app{hostile}:1{hostile}")] = json!(image);
        }
        let repositories = json!({"Repositories": {"app": names}});
        store.file("image/overlay2/repositories.json", repositories.to_string());
        store.file("overlay2/base/diff/etc/passwd", "root");
        store.file("overlay2/base/diff/etc/group", "base");
        store.file("overlay2/top/diff/etc/group", "top");
        store
    }

    fn at(&self, path: &str) -> PathBuf {
        self.host.at(format!("{DATA}/{path}"))
    }

    fn file(&self, path: &str, content: impl AsRef<[u8]>) {
        self.host.file(format!("{DATA}/{path}"), content);
    }

    fn layer(&self, id: &str, link: &str, lower: &[&str]) {
        self.host.dir(format!("{DATA}/overlay2/{id}/diff"));
        self.file(&format!("overlay2/{id}/link"), link);
        self.host
            .link(format!("{DATA}/overlay2/l/{link}"), format!("../{id}/diff"));
        if !lower.is_empty() {
            let lower: Vec<String> = lower.iter().map(|link| format!("l/{link}")).collect();
            self.file(&format!("overlay2/{id}/lower"), lower.join(":"));
            self.host.dir(format!("{DATA}/overlay2/{id}/work"));
        }
    }

    /// A container that has added `/new-NAME`, in the order in which Docker makes one.
    fn container(&self, name: &str, hostile: &str) -> String {
        let (id, link) = (sha256(name), name.to_uppercase());
        let init = format!("{link}I");
        self.layer(&format!("{name}-init"), &init, &["TOP", "BASE"]);
        self.layer(name, &link, &[&init, "TOP", "BASE"]);
        self.file(&format!("overlay2/{name}-init/diff/.dockerenv"), "");
        self.file(&format!("overlay2/{name}/diff/new-{name}"), name);
        let at = |file: &str| format!("image/overlay2/layerdb/mounts/{id}/{file}");
        self.file(&at("mount-id"), name);
        self.file(&at("init-id"), format!("{name}-init"));
        self.file(&at("parent"), &self.top_chain);
        let config = json!({
            "State": {
                "Running": false, "Paused": false, "Restarting": false, "Dead": false, "Pid": 0,
                "ExitCode": 0, "StartedAt": TIME, "FinishedAt": TIME,
                "Status": hostile, "Error": hostile,
            },
            "ID": id,
            "Created": TIME,
            "Path": format!("sh{hostile}"),
            "Args": [hostile, "x"],
            "Config": {
                "Image": format!("app:1{hostile}"), "Cmd": [hostile],
                "Labels": {"label": hostile, hostile: "label"},
            },
            "Image": format!("sha256:{}", self.image),
            "NetworkSettings": {"Ports": {
                "80/tcp": [{"HostIp": format!("::{hostile}"), "HostPort": format!("80{hostile}")}],
                format!("90/tcp{hostile}"): null,
            }},
            "Name": format!("/{name}{hostile}"),
            "Driver": "overlay2",
        })
        .to_string();
        // Written beside its place and moved there, as Docker does.
        let directory = format!("containers/{id}");
        self.file(&format!("{directory}/.tmp-config.v2.json"), config);
        let directory = self.at(&directory);
        fs::rename(
            directory.join(".tmp-config.v2.json"),
            directory.join("config.v2.json"),
        )
        .expect("our own store");
        id
    }
}

/// The directory of a layer's content.
fn upper(name: &str) -> String {
    format!("{DATA}/overlay2/{name}/diff")
}

mod swaps {
    use super::*;

    const CANARY: &str = "CANARY";
    /// The size of a file outside, which nothing inside has.
    const SIZE: u64 = 777_777;

    /// What must never be looked at: names, bytes and sizes that are nowhere else, and an alarm.
    struct Outside {
        home: TempDir,
        alarm: OwnedFd,
        /// A directory of another mount, with the same in it.
        mount: Option<TempDir>,
    }

    impl Outside {
        fn new() -> Outside {
            let home = tempfile::tempdir().expect("a temporary directory");
            let outside = home.path().join("outside");
            let elsewhere = tempfile::tempdir_in("/dev/shm").ok();
            let device = |path: &Path| path.metadata().map(|meta| meta.dev()).ok();
            let mount = elsewhere.filter(|shm| device(shm.path()) != device(home.path()));
            if mount.is_none() {
                skip("/dev/shm is no other file system, so that none is led to");
            }
            let alarm = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)
                .expect("a kernel with inotify");
            for tree in [Some(outside.as_path()), mount.as_ref().map(TempDir::path)]
                .into_iter()
                .flatten()
            {
                // The names that are looked up in the layers are here, too.
                for dir in ["", "d", "sub", "d/sub", "diff", "diff/d/sub"] {
                    let dir = tree.join(dir);
                    fs::create_dir_all(&dir).expect("our own");
                    for name in ["f", "gone", "CANARY-name", ".wh.CANARY-mark"] {
                        fs::write(dir.join(name), "CANARY bytes").expect("our own");
                        File::options()
                            .write(true)
                            .open(dir.join(name))
                            .and_then(|file| file.set_len(SIZE))
                            .expect("our own");
                    }
                }
                let record = json!({"ID": sha256("web"), "Name": "/CANARY"}).to_string();
                fs::write(tree.join("config.v2.json"), record).expect("our own");
                fs::write(tree.join("mount-id"), CANARY).expect("our own");
                for entry in WalkDir::new(tree) {
                    inotify::add_watch(
                        &alarm,
                        entry.expect("our own").path(),
                        WatchFlags::OPEN
                            | WatchFlags::ACCESS
                            | WatchFlags::MODIFY
                            | WatchFlags::ATTRIB
                            | WatchFlags::CREATE
                            | WatchFlags::DELETE
                            | WatchFlags::MOVE,
                    )
                    .expect("a watch");
                }
            }
            Outside { home, alarm, mount }
        }

        fn at(&self, path: &str) -> PathBuf {
            self.home.path().join(path)
        }

        /// How many bytes of events there are: something was opened, read or written.
        fn alarms(&self) -> usize {
            let mut buffer = [0; 65536];
            rustix::io::read(&self.alarm, &mut buffer).unwrap_or(0)
        }

        /// Where links lead that take a place in a layer. `beside` is a directory of the host's,
        /// but of no layer's.
        fn targets(&self) -> Vec<PathBuf> {
            let outside = self.at("outside");
            let up = "../".repeat(24);
            let from_root = outside.strip_prefix("/").expect("absolute").to_owned();
            let mut targets = vec![
                outside.clone(),
                Path::new(&up).join(&from_root),
                "..".into(),
                "../..".into(),
                Path::new("/proc/self/root").join(&from_root),
                // The programs are run there.
                "/proc/self/cwd".into(),
                "/proc/thread-self/cwd".into(),
                Path::new(&format!("/proc/{}/root", std::process::id())).join(&from_root),
                "/".into(),
            ];
            targets.extend(self.mount.as_ref().map(|shm| shm.path().to_owned()));
            targets
        }
    }

    /// Exchanges what is at `places` and links to `targets`, there and back, until it is told
    /// that it is over.
    struct Swapper<'a> {
        places: Vec<PathBuf>,
        spares: Vec<PathBuf>,
        rounds: &'a AtomicUsize,
        is_over: &'a AtomicBool,
        /// Held while a link is in place.
        is_swapped: &'a Mutex<()>,
    }

    impl Swapper<'_> {
        fn run(&self, seed: u64) {
            let mut random = Random(seed);
            let exchange =
                |a: &Path, b: &Path| renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE).is_ok();
            while !self.is_over.load(Ordering::Relaxed) {
                let (place, spare) = (random.of(&self.places), random.of(&self.spares));
                let guard = self.is_swapped.lock().expect("no panic");
                // Several times: a reader may be between any two of its steps.
                for _ in 0..1 + random.below(8) {
                    assert!(
                        exchange(place, spare),
                        "{} {}",
                        place.display(),
                        spare.display()
                    );
                    for _ in 0..random.below(2000) {
                        std::hint::spin_loop();
                    }
                    if random.below(4) == 0 {
                        thread::sleep(Duration::from_micros(300));
                    }
                    assert!(
                        exchange(place, spare),
                        "{} {}",
                        place.display(),
                        spare.display()
                    );
                    self.rounds.fetch_add(1, Ordering::Relaxed);
                }
                drop(guard);
                if random.below(3) == 0 {
                    thread::sleep(Duration::from_micros(random.next() % 2000));
                }
            }
        }
    }

    fn has_canary(bytes: &[u8]) -> bool {
        bytes
            .windows(CANARY.len())
            .any(|window| window == CANARY.as_bytes())
    }

    fn leaks(asked: &[OsString], output: &Output) -> Option<String> {
        let sizes = [
            format!("\"size\":{SIZE}"),
            format!("\"size_before\":{SIZE}"),
        ];
        let text = String::from_utf8_lossy(&output.stdout);
        let is_leak = has_canary(&output.stdout)
            || has_canary(output.stderr.as_bytes())
            || sizes.iter().any(|size| text.contains(size));
        is_leak.then(|| {
            format!(
                "{asked:?} told of what is outside: {text} {}",
                output.stderr
            )
        })
    }

    /// Runs `ask` until there were enough rounds, while the places are swapped.
    fn while_swapped(
        outside: &Outside,
        places: Vec<PathBuf>,
        targets: &[PathBuf],
        mut ask: impl FnMut(&Mutex<()>) -> Vec<String>,
    ) {
        fs::read_dir(outside.at("outside")).expect("our own");
        if outside.alarms() == 0 {
            return skip("nothing tells here what was opened");
        }
        let spare = outside.at("spare");
        fs::create_dir(&spare).expect("our own");
        let spares: Vec<PathBuf> = targets
            .iter()
            .enumerate()
            .map(|(index, target)| {
                let at = spare.join(index.to_string());
                symlink(target, &at).expect("our own");
                at
            })
            .collect();
        let (rounds, is_over, is_swapped) =
            (AtomicUsize::new(0), AtomicBool::new(false), Mutex::new(()));
        let mut wrong = Vec::new();
        thread::scope(|scope| {
            let swapper = Swapper {
                places,
                spares,
                rounds: &rounds,
                is_over: &is_over,
                is_swapped: &is_swapped,
            };
            scope.spawn(move || swapper.run(6));
            let mut asked = 0;
            while wrong.is_empty() && (asked < 6 || rounds.load(Ordering::Relaxed) < 3000) {
                wrong = ask(&is_swapped);
                asked += 1;
            }
            is_over.store(true, Ordering::Relaxed);
        });
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        assert_eq!(outside.alarms(), 0, "something outside was opened");
    }

    /// A command that is run where `/proc/self/cwd` leads outside.
    fn jsonl(outside: &Outside, arguments: &[OsString]) -> Output {
        let mut command = layerctl();
        command.current_dir(outside.at("outside"));
        run::run(command.args(["--format", "jsonl"]).args(arguments))
    }

    #[test]
    fn in_a_store_are_followed_by_no_verb() {
        let outside = Outside::new();
        let mut store = Store::new("");
        fs::rename(&store.host.root, outside.at("root")).expect("our own");
        store.host = Host::existing(&outside.at("root"));
        store.container("web", "");
        for layer in ["web", "base"] {
            for path in ["d/f", "d/sub/f", "d/sub/deep/f"] {
                store.file(&format!("overlay2/{layer}/diff/{path}"), layer);
            }
        }
        // Of the host, but of no layer.
        store.file("CANARY-beside", "");
        store.file("overlay2/web/CANARY-beside", "");
        let whiteout = store.at("overlay2/web/diff/d/sub/gone");
        if mknodat(CWD, &whiteout, FileType::CharacterDevice, Mode::empty(), 0).is_ok() {
            store.file("overlay2/base/diff/d/sub/gone", "was there");
        }
        let places = ["web", "base"]
            .iter()
            .flat_map(|layer| {
                ["d", "d/sub", "d/sub/deep", "d/f"].map(|path| format!("{}/{path}", upper(layer)))
            })
            .map(|path| store.host.at(path))
            .collect();
        let mut verbs = reading(
            "web".as_ref(),
            "/d/sub/f".as_ref(),
            upper("web/d/sub").as_ref(),
        );
        verbs.push(words(["which", "web:/d/sub/deep/f"]));
        verbs.push(words(["ls", "-l", "web:/d/sub"]));
        let (root, mut out) = (outside.at("root"), 0);
        while_swapped(&outside, places, &outside.targets(), |_| {
            let mut wrong = Vec::new();
            for verb in &verbs {
                let mut asked = words(["--root".as_ref(), root.as_os_str()]);
                asked.extend(verb.iter().cloned());
                let output = jsonl(&outside, &asked);
                wrong.extend(ill_end(verb, &output));
                wrong.extend(leaks(verb, &output));
            }
            out += 1;
            let to = outside.at(&format!("to-{out}"));
            fs::create_dir(&to).expect("our own");
            let asked = words([
                "--root".as_ref(),
                root.as_os_str(),
                "restore".as_ref(),
                "-r".as_ref(),
                "--to".as_ref(),
                to.as_os_str(),
                "--in".as_ref(),
                "web".as_ref(),
                "/d/sub/gone".as_ref(),
            ]);
            let output = jsonl(&outside, &asked);
            wrong.extend(ill_end(&asked, &output));
            wrong.extend(leaks(&asked, &output));
            wrong.extend(tree_leaks(&to));
            wrong
        });
    }

    /// The directories and records that an engine keeps may be links, but inside the root.
    #[test]
    fn of_an_engines_directories_never_lead_out_of_the_root() {
        let outside = Outside::new();
        let mut store = Store::new("");
        fs::rename(&store.host.root, outside.at("root")).expect("our own");
        store.host = Host::existing(&outside.at("root"));
        let id = store.container("web", "");
        let places = [
            "overlay2".into(),
            "overlay2/web".into(),
            "overlay2/web/diff".into(),
            "overlay2/l".into(),
            "overlay2/web/lower".into(),
            "containers".into(),
            format!("containers/{id}"),
            format!("containers/{id}/config.v2.json"),
            "image/overlay2/layerdb".into(),
            format!("image/overlay2/layerdb/mounts/{id}"),
            format!("image/overlay2/layerdb/mounts/{id}/mount-id"),
            "image/overlay2/repositories.json".into(),
        ]
        .map(|path: String| store.at(&path));
        let mut targets = outside.targets();
        // Inside the root these are places of the host's, and may be.
        targets.retain(|target| {
            target.starts_with(outside.home.path()) || target.starts_with("/proc")
        });
        targets.extend(outside.mount.as_ref().map(|shm| shm.path().join("diff")));
        let verbs = reading("web".as_ref(), "/new-web".as_ref(), upper("web").as_ref());
        let root = outside.at("root");
        while_swapped(&outside, places.to_vec(), &targets, |_| {
            let mut wrong = Vec::new();
            for verb in &verbs {
                let mut asked = words(["--root".as_ref(), root.as_os_str()]);
                asked.extend(verb.iter().cloned());
                let output = jsonl(&outside, &asked);
                wrong.extend(ill_end(verb, &output));
                wrong.extend(leaks(verb, &output));
            }
            wrong
        });
    }

    fn tree_leaks(tree: &Path) -> Option<String> {
        let leak = WalkDir::new(tree).into_iter().flatten().find(|entry| {
            has_canary(entry.file_name().as_bytes())
                || entry.file_type().is_file()
                    && has_canary(&fs::read(entry.path()).unwrap_or_default())
        });
        leak.map(|entry| format!("{} is from outside", entry.path().display()))
    }

    /// On the running system, where links lead as far as they like.
    #[test]
    fn in_a_spelled_stack_are_followed_by_no_verb() {
        let outside = Outside::new();
        let (up, low) = (outside.at("layers/up"), outside.at("layers/low"));
        for layer in [&up, &low] {
            for path in ["d/f", "d/r", "d/sub/f", "d/sub/deep/f"] {
                let at = layer.join(path);
                fs::create_dir_all(at.parent().expect("below")).expect("our own");
                fs::write(at, "inside").expect("our own");
            }
        }
        for name in ["gone", "gone2", "gone3/x"] {
            let at = low.join("d/sub").join(name);
            fs::create_dir_all(at.parent().expect("below")).expect("our own");
            fs::write(at, "inside").expect("our own");
        }
        fs::write(outside.at("layers/CANARY-beside"), "").expect("our own");
        let stack = crate::lab::host::spelled(&[(&up, "rw"), (&low, "ro+wh")]);
        let places = [&up, &low]
            .iter()
            .flat_map(|layer| ["d", "d/sub", "d/sub/deep", "d/f"].map(|path| layer.join(path)))
            .collect();
        let on = |verb: &[&str], rest: &[&OsStr]| {
            let mut asked = words(verb);
            asked.extend(rest.iter().map(OsString::from));
            asked
        };
        let reading = [
            on(&["whiteouts", "--all-layers", "--"], &[&stack]),
            on(&["changes", "--long", "--"], &[&stack]),
            on(&["copyups", "--"], &[&stack]),
            on(&["check", "--"], &[&stack]),
            on(&["ls", "-R", "-l", "--in"], &[&stack, "/".as_ref()]),
            on(&["-v", "ls", "--in"], &[&stack, "/d/sub".as_ref()]),
            on(
                &["which", "--in"],
                &[
                    &stack,
                    "/d/sub/f".as_ref(),
                    "/d/sub/deep/f".as_ref(),
                    "/d/f".as_ref(),
                    "/d/sub/gone".as_ref(),
                ],
            ),
        ];
        let layers = outside.at("layers");
        let mut out = 0;
        while_swapped(&outside, places, &outside.targets(), |is_swapped| {
            let mut wrong = Vec::new();
            for asked in &reading {
                let output = jsonl(&outside, asked);
                wrong.extend(ill_end(asked, &output));
                wrong.extend(leaks(asked, &output));
            }
            {
                // What this test makes must not itself go through a link.
                let _guard = is_swapped.lock().expect("no panic");
                for name in ["gone", "gone2", "gone3"] {
                    let at = up.join("d/sub");
                    let _ = fs::remove_file(at.join(name));
                    let _ = fs::remove_dir_all(at.join(name));
                    fs::write(at.join(format!(".wh.{name}")), "").expect("our own");
                }
                fs::write(up.join("d/r"), "changed").expect("our own");
            }
            out += 1;
            let to = outside.at(&format!("to-{out}"));
            fs::create_dir(&to).expect("our own");
            let restores = [
                on(&["restore", "--in"], &[&stack, "/d/sub/gone".as_ref()]),
                on(
                    &["restore", "--strategy", "copy", "--in"],
                    &[&stack, "/d/sub/gone2".as_ref()],
                ),
                on(
                    &["restore", "--strategy", "copy", "-r", "--in"],
                    &[&stack, "/d/sub/gone3".as_ref()],
                ),
                on(
                    &["restore", "--revert", "--save"],
                    &[to.as_os_str(), "--in".as_ref(), &stack, "/d/r".as_ref()],
                ),
                on(
                    &["restore", "-r", "--to"],
                    &[
                        to.as_os_str(),
                        "--in".as_ref(),
                        &stack,
                        "/d/sub/gone3".as_ref(),
                    ],
                ),
            ];
            for asked in &restores {
                let output = jsonl(&outside, asked);
                wrong.extend(ill_end(asked, &output));
                wrong.extend(leaks(asked, &output));
            }
            wrong.extend(tree_leaks(&to));
            let _guard = is_swapped.lock().expect("no panic");
            wrong.extend(tree_leaks(&up).or_else(|| tree_leaks(&low)));
            let beside = fs::read_dir(&layers).expect("our own").count();
            wrong.extend((beside != 3).then(|| format!("{beside} names beside the layers")));
            wrong
        });
    }
}

mod nodes {
    use super::*;

    /// Whether anything opened it, since the last time that this was asked.
    struct Opened(OwnedFd);

    impl Opened {
        fn of(paths: &[&Path]) -> Opened {
            let flags = CreateFlags::NONBLOCK | CreateFlags::CLOEXEC;
            let alarm = inotify::init(flags).expect("a kernel with inotify");
            for path in paths {
                inotify::add_watch(&alarm, *path, WatchFlags::OPEN).expect("a watch");
            }
            Opened(alarm)
        }

        fn take(&self) -> bool {
            let mut buffer = [0; 65536];
            rustix::io::read(&self.0, &mut buffer).is_ok_and(|length| length > 0)
        }
    }

    fn kinds() -> Vec<FileType> {
        let mut kinds = vec![FileType::Fifo, FileType::Socket];
        if is_root() {
            kinds.push(FileType::CharacterDevice);
        } else {
            skip("only root makes devices");
        }
        kinds
    }

    /// An engine's files, and the kernel's.
    fn records(host: &Host) -> Vec<PathBuf> {
        let mut of_kind = BTreeMap::new();
        for entry in WalkDir::new(&host.root) {
            let entry = entry.expect("our own");
            if entry.file_type().is_file() && is_record(entry.path()) {
                let kind = kind_of_record(entry.path());
                of_kind.entry(kind).or_insert(entry.into_path());
            }
        }
        of_kind.into_values().collect()
    }

    #[test]
    fn in_place_of_an_engines_file_are_not_opened() {
        all_right(&small_hosts(), |(host, target)| {
            let verbs = [
                words(["info"]),
                words(["orphans"]),
                words(["history", target]),
            ];
            let kinds = kinds();
            let mut wrong = Vec::new();
            for (index, at) in records(host).iter().enumerate() {
                let kept = at.with_extension("kept-by-the-test");
                fs::rename(at, &kept).expect("our own");
                // A fifo blocks whoever opens it; of the others each has its turn.
                for kind in [FileType::Fifo, kinds[index % kinds.len()]] {
                    assert!(node(at, kind), "{}", at.display());
                    let opened = Opened::of(&[at]);
                    for asked in &verbs[index % 2..] {
                        let why = ill_end(asked, &ask(&host.root, asked));
                        wrong.extend(why.map(|why| format!("{} {why}", at.display())));
                    }
                    if opened.take() {
                        wrong.push(format!("{} was opened, a {kind:?}", at.display()));
                    }
                    fs::remove_file(at).expect("our own");
                }
                fs::rename(&kept, at).expect("our own");
            }
            wrong
        });
    }

    #[test]
    fn in_a_layer_are_not_opened() {
        let store = Store::new("");
        store.container("web", "");
        let mut made = Vec::new();
        for layer in ["web", "top", "base"] {
            for kind in kinds() {
                for name in ["n", "d/n"] {
                    let at = store.host.at(format!("{}/{name}-{kind:?}", upper(layer)));
                    fs::create_dir_all(at.parent().expect("below")).expect("our own");
                    assert!(node(&at, kind), "{}", at.display());
                    made.push(at);
                }
            }
        }
        let opened = Opened::of(&made.iter().map(PathBuf::as_path).collect::<Vec<_>>());
        let inside = format!("{}/n-Fifo", upper("web"));
        let mut wrong = Vec::new();
        for asked in reading("web".as_ref(), "/d/n-Fifo".as_ref(), inside.as_ref()) {
            let output = ask(&store.host.root, &asked);
            wrong.extend(ill_end(&asked, &output));
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        assert!(!opened.take(), "one of them was opened");
        File::options()
            .read(true)
            .write(true)
            .open(&made[0])
            .expect("a pipe of our own");
        if !opened.take() {
            skip("this kernel does not tell who opens a fifo");
        }
    }

    /// A file is looked at before it is opened, and may be another one by then.
    #[test]
    fn that_take_a_files_place_are_not_opened() {
        let home = tempfile::tempdir().expect("a temporary directory");
        let (up, low) = (home.path().join("up"), home.path().join("low"));
        for layer in [&up, &low] {
            fs::create_dir(layer).expect("our own");
            for index in 0..40 {
                fs::write(layer.join(format!("f{index}")), "x".repeat(3)).expect("our own");
            }
        }
        let (place, spare) = (up.join("f20"), home.path().join("fifo"));
        assert!(node(&spare, FileType::Fifo));
        let opened = Opened::of(&[&spare]);
        let stack = crate::lab::host::spelled(&[(&up, "rw"), (&low, "ro+wh")]);
        let is_over = AtomicBool::new(false);
        let asked = words(["copyups".as_ref(), "--".as_ref(), stack.as_os_str()]);
        let mut wrong = Vec::new();
        thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    renameat_with(CWD, &place, CWD, &spare, RenameFlags::EXCHANGE)
                        .expect("our own");
                }
            });
            for _ in 0..150 {
                let output = run::run(layerctl().args(&asked));
                wrong.extend(ill_end(&asked, &output));
                if opened.take() {
                    wrong.push("a fifo was opened that took a file's place".into());
                    break;
                }
            }
            is_over.store(true, Ordering::Relaxed);
        });
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}

/// A small host of each engine and layout, to be spoilt, with a container on it.
fn small_hosts() -> Vec<(Host, &'static str)> {
    let store = Store::new("");
    store.container("web", "");
    let mut hosts = vec![
        (store.host, "web"),
        (Host::copy_of("blog-host"), "determined_sammet"),
        (Host::copy_of("docker-1.9"), "old_web"),
    ];
    if can_unpack() {
        hosts.extend([
            (Host::captured("podman-rootless-overlay"), "run-a"),
            (Host::captured("containerd-overlayfs"), "run-a"),
            (Host::captured("docker-29"), "run-a"),
        ]);
    }
    for (host, _) in &hosts {
        let configurations = [
            (
                "/etc/docker/daemon.json",
                "{\"data-root\": \"/var/lib/docker\"}",
            ),
            (
                "/etc/containers/storage.conf",
                "[storage]\ndriver = \"overlay\"\ngraphroot = \"/var/lib/containers/storage\"\n[storage.options]\nadditionalimagestores = []\n",
            ),
            (
                "/etc/containerd/config.toml",
                "version = 2\nroot = \"/var/lib/containerd\"\n",
            ),
        ];
        for (path, content) in configurations {
            if !host.at(path).exists() {
                host.file(path, content);
            }
        }
    }
    hosts
}

fn can_unpack() -> bool {
    let can = is_root() && crate::docker_drivers::makes_whiteouts();
    if !can {
        skip(
            "the captured hosts hold owners, devices and trusted attributes, which only root can make",
        );
    }
    can
}

/// Whether a file is an engine's or the kernel's, and no layer's content.
fn is_record(path: &Path) -> bool {
    let text = path.to_string_lossy();
    let is_content = [
        "/diff/",
        "/fs/",
        "/rootfs/",
        "/vfs/dir/",
        "/merged/",
        "/mnt/",
    ]
    .iter()
    .any(|part| text.contains(part) && !text.contains("/sys/fs/"));
    !is_content
        && path
            .metadata()
            .is_ok_and(|meta| meta.is_file() && meta.len() > 0)
}

/// Files of one kind are read by one parser.
fn kind_of_record(path: &Path) -> String {
    let name = path
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let parent = path
        .parent()
        .and_then(Path::file_name)
        .unwrap_or_default()
        .to_string_lossy();
    if name.len() >= 12
        && name
            .bytes()
            .all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
    {
        return format!("{parent}/ID");
    }
    name.trim_end_matches(|char: char| char.is_ascii_digit())
        .to_owned()
}

mod terminals {
    use super::*;

    /// Whatever a terminal acts on: every C0 and C1 control but NUL and the slash, DEL, an
    /// operating system command, bidi overrides, separators.
    fn hostile() -> String {
        let mut all = String::from("\u{1b}]0;title\u{7}\u{9d}1\u{9c}");
        all.extend((1..0x20).chain(0x7f..0xa0).filter_map(char::from_u32));
        all.push_str("\u{61c}\u{200e}\u{200f}\u{2028}\u{2029}\u{202a}\u{202d}\u{202e}\u{2066}\u{2069}\u{feff}");
        all
    }

    /// The same, and what is no UTF-8, as names: one to each, since a name may be only so long.
    fn hostile_names() -> Vec<Vec<u8>> {
        let mut names: Vec<Vec<u8>> = (1..=255)
            .filter(|byte| !(0x20..0x7f).contains(byte))
            .map(|byte| vec![b'n', byte, b'm'])
            .collect();
        names.extend(
            hostile()
                .chars()
                .map(|char| format!("c{char}d").into_bytes()),
        );
        names.push(b"\x1b]0;title\x07".to_vec());
        names.push(b"over\xf4\x90\x80\x80long\xc0\xae\xed\xa0\x80".to_vec());
        let mut seen = BTreeSet::new();
        names.retain(|name| seen.insert(name.clone()));
        names
    }

    /// What a terminal must not be sent, if there is such a thing. A line may end, and a
    /// terminal's own driver puts a carriage return before that.
    fn harm(sent: &[u8], may_tab: bool) -> Option<String> {
        let sent = match std::str::from_utf8(sent) {
            Ok(sent) => sent.replace("\r\n", "\n"),
            Err(_) => return Some(format!("no UTF-8 was sent: {}", sent.escape_ascii())),
        };
        let harms = |char: char| match char {
            '\n' => false,
            '\t' => !may_tab,
            '\u{61c}'
            | '\u{200e}'
            | '\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}'
            | '\u{feff}' => true,
            char => char.is_control(),
        };
        let at = sent.find(harms)?;
        let before = sent[..at].chars().rev().take(60).collect::<Vec<_>>();
        let before: String = before.into_iter().rev().collect();
        let harmful = sent[at..].chars().next();
        Some(format!("{harmful:?} was sent after {before:?}"))
    }

    /// What a terminal is sent on both outputs, and how it ended. `du` draws there that it is busy;
    /// what else it says is looked at in a pipe.
    fn on_a_terminal(root: &Path, arguments: &[OsString]) -> (Option<i32>, Vec<u8>) {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a pseudo-terminal");
        grantpt(&master)
            .and_then(|()| unlockpt(&master))
            .expect("a pseudo-terminal");
        let name = ptsname(&master, Vec::new()).expect("a pseudo-terminal");
        let slave = File::options()
            .write(true)
            .open(Path::new(OsStr::from_bytes(name.as_bytes())))
            .expect("a pseudo-terminal");
        let mut command = run::command();
        command
            .env("TERM", "xterm")
            .arg("--root")
            .arg(root)
            .args(arguments)
            .stdout(slave.try_clone().expect("a descriptor"));
        if arguments.iter().any(|word| word == "du") {
            command.stderr(Stdio::null());
            drop(slave);
        } else {
            command.stderr(slave);
        }
        let mut child = command.spawn().expect("layerctl was built");
        // Ours are the last hands on the slave: without them, reading ends.
        drop(command);
        let (mut seen, mut buffer) = (Vec::new(), [0; 4096]);
        let mut master = File::from(master);
        while let Ok(length @ 1..) = master.read(&mut buffer) {
            seen.extend_from_slice(&buffer[..length]);
        }
        (child.wait().expect("our child").code(), seen)
    }

    /// Our own colours are `ESC [ ... m`; none of the hostile names has that.
    fn without_colours(seen: &[u8]) -> Vec<u8> {
        let mut plain = Vec::new();
        let mut rest = seen;
        while let Some((&byte, after)) = rest.split_first() {
            let sequence = after.strip_prefix(b"[").filter(|_| byte == 0x1b);
            let end = sequence.and_then(|text| {
                text.iter()
                    .position(|byte| !matches!(byte, b'0'..=b'9' | b';'))
            });
            rest = match (sequence, end) {
                (Some(text), Some(end)) if text[end] == b'm' => &text[end + 1..],
                _ => {
                    plain.push(byte);
                    after
                }
            };
        }
        plain
    }

    /// Asks every verb in every look, and says where harm was done.
    fn harmed(root: &Path, verbs: &[Words]) {
        let looks: [(&[&str], bool); 7] = [
            (&[], false),
            (&["-v", "--no-trunc"], false),
            (&["-v", "--no-trunc", "--color", "always"], false),
            (&["-v", "--no-trunc", "--color", "never"], true),
            (&[], true),
            (&["-q"], true),
            (&["--format", "jsonl"], true),
        ];
        all_right(verbs, |verb| {
            let mut wrong = Vec::new();
            for (look, is_terminal) in looks {
                let mut asked = words(look);
                asked.extend(verb.iter().cloned());
                let (status, seen) = if is_terminal {
                    on_a_terminal(root, &asked)
                } else {
                    let output = ask(root, &asked);
                    wrong.extend(ill_end(&asked, &output));
                    // These lines are docker's, and raw for other programs.
                    let is_raw = verb[0] == "changes"
                        && verb.iter().all(|word| word != "--long")
                        && !look.contains(&"always");
                    let stdout = if is_raw { Vec::new() } else { output.stdout };
                    (output.status, [stdout, output.stderr.into_bytes()].concat())
                };
                if !matches!(status, Some(0..=2)) {
                    wrong.push(format!("{asked:?} ended with {status:?}"));
                }
                wrong.extend(
                    harm(&without_colours(&seen), false)
                        .map(|why| format!("{asked:?} terminal: {is_terminal}: {why}")),
                );
            }
            let mut asked = words(["--format", "jsonl"]);
            asked.extend(verb.iter().cloned());
            let output = ask(root, &asked);
            for line in output.stdout.split(|&byte| byte == b'\n') {
                if !line.is_empty() && serde_json::from_slice::<Value>(line).is_err() {
                    wrong.push(format!(
                        "{asked:?} printed what is no JSON: {}",
                        line.escape_ascii()
                    ));
                }
            }
            wrong
        });
    }

    #[test]
    fn see_no_name_of_a_layer_raw() {
        let store = Store::new("");
        store.container("web", "");
        for (index, name) in hostile_names().iter().enumerate() {
            let at = |layer: &str| store.host.at(upper(layer)).join(OsStr::from_bytes(name));
            match index % 4 {
                0 => {
                    fs::write(at("base"), "below").expect("our own");
                    fs::write(at("web"), "changed").expect("our own");
                }
                1 => {
                    fs::write(at("base"), "below").expect("our own");
                    // What is deleted, where anybody may say so.
                    let _ = mknodat(CWD, at("web"), FileType::CharacterDevice, Mode::empty(), 0);
                }
                2 => symlink(OsStr::from_bytes(name), at("top")).expect("our own"),
                _ => {
                    fs::create_dir(at("web")).expect("our own");
                    fs::write(at("web").join(OsStr::from_bytes(name)), "in it").expect("our own");
                }
            }
        }
        let asked = OsString::from_vec(b"/\x1b]0;title\x07\x9b\xff\xc2\x9b".to_vec());
        let mut path = OsString::from(upper("web"));
        path.push(&asked);
        let mut verbs = reading("web".as_ref(), &asked, &path);
        for name in hostile_names().iter().step_by(23) {
            let path = OsString::from_vec([b"/", &name[..]].concat());
            verbs.push(words([
                "which".as_ref(),
                "--in".as_ref(),
                "web".as_ref(),
                "--".as_ref(),
                path.as_os_str(),
            ]));
            verbs.push(words([
                "branches".as_ref(),
                "--".as_ref(),
                path.as_os_str(),
            ]));
            verbs.push(words([
                "ls".as_ref(),
                "--".as_ref(),
                OsStr::from_bytes(name),
            ]));
            verbs.push(words(["whois".as_ref(), "--".as_ref(), path.as_os_str()]));
            verbs.push(words([
                "restore".as_ref(),
                "--dry-run".as_ref(),
                "--in".as_ref(),
                "web".as_ref(),
                "--".as_ref(),
                path.as_os_str(),
            ]));
        }
        harmed(&store.host.root, &verbs);
        // The same as AUFS marks in a stack that is spelled.
        let host = Host::empty();
        host.dir("/up/d").dir("/low");
        for name in hostile_names() {
            let at = |dir: &str, mark: &[u8]| {
                host.at(dir)
                    .join(OsStr::from_bytes(&[mark, &name].concat()))
            };
            fs::write(at("/up", b".wh."), "").expect("our own");
            fs::write(at("/low", b""), "").expect("our own");
            fs::write(at("/up/d", b".wh."), "").expect("our own");
        }
        let stack: &OsStr = "br:/up=rw:/low=ro+wh".as_ref();
        let verbs: Vec<Words> = [
            &["whiteouts"][..],
            &["changes"],
            &["check"],
            &["ls", "-R", "-l"],
            &["copyups"],
            &["branches"],
        ]
        .into_iter()
        .map(|verb| {
            let mut asked = words(verb);
            asked.push(stack.to_owned());
            asked
        })
        .collect();
        harmed(&host.root, &verbs);
    }

    #[test]
    fn see_no_word_of_a_docker_store_raw() {
        let store = Store::new(&hostile());
        let id = store.container("web", &hostile());
        // A driver that cannot be one, an id that is none, and what is left over.
        let other = store.container("other", "");
        let at = format!("containers/{other}/config.v2.json");
        let config = String::from_utf8(fs::read(store.at(&at)).expect("our own")).expect("JSON");
        store.file(
            &at,
            config.replace("\"overlay2\"", "\"over\\u001b]0;\\u009b\""),
        );
        for name in hostile_names().iter().step_by(5) {
            let name = OsStr::from_bytes(name);
            for dir in [
                "overlay2",
                "containers",
                "image/overlay2/layerdb/sha256",
                "volumes",
            ] {
                fs::create_dir_all(store.at(dir).join(name)).expect("our own");
            }
            symlink(name, store.at("overlay2/l").join(name)).expect("our own");
        }
        let mut broken = 0;
        for content in ["\u{1b}]0;\u{9b}", "l/\u{1b}]0;", "../\u{202e}"] {
            broken += 1;
            let name = format!("broken{broken}");
            store.container(&name, "");
            store.file(&format!("overlay2/{name}/lower"), content);
            store.file(&format!("overlay2/{name}/link"), content);
            store.file(
                &format!("image/overlay2/layerdb/mounts/{}/init-id", sha256(&name)),
                content,
            );
        }
        // Mount points, types of file systems, options.
        let escaped: String = hostile()
            .bytes()
            .map(|byte| format!("\\{byte:03o}"))
            .collect();
        store
            .host
            .mount(&format!("/ /mnt/{escaped} rw - overlay {escaped} rw,lowerdir=/a{escaped}:/b,upperdir=/u{escaped},workdir=/w"))
            .mount(&format!("/ /var/lib rw - ext{escaped} /dev/{escaped} rw"))
            .mount("/ /a\u{1b}]0;\u{9b} rw - overlay \u{1b}]0;\u{9b} rw,lowerdir=/a\u{1b}]0;:/b,upperdir=/u\u{9b},workdir=/w")
            .union("80a122805ed3e91b", &[(&format!("/mnt/aufs{escaped}"), "/")], &[(hostile().as_bytes(), "rw"), (b"/\xff\x9b", "ro")]);
        for daemon in [
            None,
            Some("{\"data-root\": \"/nowhere/\\u001b]0;\\u009b\"}"),
            Some("{\u{1b}]0;\u{9b}"),
        ] {
            if let Some(daemon) = daemon {
                store.host.file("/etc/docker/daemon.json", daemon);
            }
            let mut verbs = reading(
                OsStr::new(&id),
                "/etc/group".as_ref(),
                upper("web").as_ref(),
            );
            if daemon.is_none() {
                for name in ["broken1", "broken2", "broken3", "other", "app", "app:1"] {
                    verbs.push(words(["branches", name]));
                    verbs.push(words(["history", name]));
                    verbs.push(words(["whois", name]));
                }
                verbs.push(words(["branches".into(), format!("web{}", hostile())]));
                verbs.push(words(["history".into(), format!("app{}:1{0}", hostile())]));
                // Everything that is called so is listed when a name is ambiguous.
                verbs.push(words(["branches", &sha256("web")[..1]]));
            }
            harmed(&store.host.root, &verbs);
        }
        let named = [
            "--docker-root",
            "--storage-root",
            "--containerd-root",
            "--namespace",
        ];
        let mut verbs = Vec::new();
        for option in named {
            verbs.push(words([
                option.to_owned(),
                format!("/x{}", hostile()),
                "info".into(),
            ]));
        }
        harmed(&store.host.root, &verbs);
    }

    /// Puts hostile text behind every text in JSON but those that are read as names of files.
    fn spoil(json: &mut Value, hostile: &str) {
        match json {
            Value::String(text) => {
                let is_id = text.len() >= 12
                    && text
                        .rsplit(':')
                        .next()
                        .is_some_and(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit()));
                if !is_id && !text.starts_with('/') && !text.contains("manifest") {
                    text.push_str(hostile);
                }
            }
            Value::Array(these) => these.iter_mut().for_each(|json| spoil(json, hostile)),
            Value::Object(map) => map.values_mut().for_each(|json| spoil(json, hostile)),
            _ => {}
        }
    }

    #[test]
    fn see_no_word_of_other_stores_raw() {
        if !can_unpack() {
            return;
        }
        let podman = Host::captured("podman-rootless-overlay");
        for entry in WalkDir::new(&podman.root) {
            let at = entry.expect("our own").into_path();
            let name = at
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            let is_list = matches!(
                &*name,
                "layers.json" | "images.json" | "containers.json" | "volatile-containers.json"
            );
            if !is_record(&at) || !(is_list || name.starts_with('=')) {
                continue;
            }
            let Ok(mut json) = serde_json::from_slice::<Value>(&fs::read(&at).expect("our own"))
            else {
                continue;
            };
            spoil(&mut json, &hostile());
            fs::write(&at, json.to_string()).expect("our own");
        }
        // In a database, a text can only be replaced by one as long. C0 controls would end JSON.
        let mut hosts = vec![(podman, "run-a", &[("sleep", "s\u{9b}\u{7f}")][..])];
        for name in ["containerd-kubernetes", "docker-29"] {
            hosts.push((
                Host::captured(name),
                if name == "docker-29" {
                    "run-a"
                } else {
                    "nat-run"
                },
                &[
                    ("nginx", "\u{9b}\u{7f}\u{9d}"),
                    ("web-7d4b9c", "\u{202e}\u{9b}\u{7f}\u{2066}\u{7f}"),
                    ("sidecar", "\u{1b}]0;\u{7}\u{9b}"),
                ],
            ));
        }
        for (host, target, replaced) in &hosts {
            let mut found = 0;
            for entry in WalkDir::new(&host.root) {
                let at = entry.expect("our own").into_path();
                let is_text = at
                    .extension()
                    .is_some_and(|kind| kind == "db" || kind == "json")
                    || at.ends_with("config.toml");
                if !is_text || !is_record(&at) {
                    continue;
                }
                let mut content = fs::read(&at).expect("our own");
                for (from, to) in *replaced {
                    let (from, to) = (from.as_bytes(), to.as_bytes());
                    let mut start = 0;
                    while let Some(next) = content[start..]
                        .windows(from.len())
                        .position(|window| window == from)
                    {
                        let length = from.len().min(to.len());
                        content[start + next..start + next + length].copy_from_slice(&to[..length]);
                        start += next + from.len();
                        found += 1;
                    }
                }
                fs::write(&at, content).expect("our own");
            }
            let rows = host.jsonl(["containers"]).rows();
            assert!(found > 0 || !rows.is_empty(), "{target}");
            let branches = host.jsonl(["branches", "--", target]);
            let directory = branches
                .rows()
                .first()
                .map(|row| bytes(&row["branches"][0]["directory"]));
            let directory = OsString::from_vec(directory.unwrap_or_else(|| b"/var/lib".to_vec()));
            let mut verbs = reading(target.as_ref(), "/etc/passwd".as_ref(), &directory);
            for row in &rows {
                verbs.push(words(["history", text(row, "id")]));
                verbs.push(words(["whois", text(row, "id")]));
            }
            for row in host.jsonl(["images", "--all"]).rows() {
                verbs.push(words(["history", text(&row, "id")]));
            }
            harmed(&host.root, &verbs);
        }
    }

    #[test]
    fn see_lines_of_other_programs_with_their_tabs_only() {
        let store = Store::new(&hostile());
        store.container("web", &hostile());
        let mut lines = Vec::new();
        for name in hostile_names() {
            lines.extend_from_slice(b"12K\t");
            lines.extend_from_slice(upper("web").as_bytes());
            lines.extend_from_slice(b"/");
            lines.extend_from_slice(&name);
            lines.push(b'\n');
        }
        store.host.file("/lines", &lines);
        let mut command = layerctl();
        command
            .stdin(File::open(store.host.at("/lines")).expect("our own"))
            .arg("--root")
            .arg(&store.host.root)
            .args(["whois", "-"]);
        let output = run::run(&mut command);
        let sent = [&output.stdout[..], output.stderr.as_bytes()].concat();
        assert_eq!(ill_end(&words(["whois", "-"]), &output), None);
        assert_eq!(harm(&sent, true), None);
    }
}

mod reading_only {
    use super::*;
    use std::hash::{DefaultHasher, Hash, Hasher};

    const NOBODY: u32 = 65534;

    /// Everything below a root, the times of reading among it.
    struct Trace {
        root: PathBuf,
        facts: BTreeMap<PathBuf, String>,
    }

    impl Trace {
        fn of(root: &Path) -> Trace {
            let paths: Vec<PathBuf> = WalkDir::new(root)
                .into_iter()
                .map(|entry| entry.expect("our own").into_path())
                .collect();
            for path in &paths {
                // Read before it was written, so that even `relatime` notes the next reading.
                let times = Timestamps {
                    last_access: Timespec {
                        tv_sec: 1_000_000_000,
                        tv_nsec: 0,
                    },
                    last_modification: Timespec {
                        tv_sec: 0,
                        tv_nsec: UTIME_OMIT,
                    },
                };
                utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).expect("our own");
            }
            let facts = paths.into_iter().map(|path| {
                let fact = fact(&path);
                (path, fact)
            });
            Trace {
                root: root.to_owned(),
                facts: facts.collect(),
            }
        }

        /// What is not as it was.
        fn changes(&self) -> Vec<String> {
            let differs = self.facts.iter().filter_map(|(path, before)| {
                let after = fact(path);
                (after != *before).then(|| format!("{}: {before}\n  now {after}", path.display()))
            });
            let mut changes: Vec<String> = differs.collect();
            // Only now: listing changes directories' times.
            let count = WalkDir::new(&self.root).into_iter().count();
            if count != self.facts.len() {
                changes.push(format!("{count} entries, not {}", self.facts.len()));
            }
            changes
        }
    }

    fn fact(path: &Path) -> String {
        let Ok(meta) = path.symlink_metadata() else {
            return "gone".into();
        };
        let mut hasher = DefaultHasher::new();
        if meta.is_file() {
            let flags = OFlags::RDONLY | OFlags::NOATIME | OFlags::CLOEXEC;
            let file = openat(CWD, path, flags, Mode::empty()).expect("our own");
            let mut content = Vec::new();
            File::from(file)
                .take(1 << 20)
                .read_to_end(&mut content)
                .expect("our own");
            content.hash(&mut hasher);
        } else if meta.is_symlink() {
            fs::read_link(path).expect("our own").hash(&mut hasher);
        }
        let mut names = vec![0; 4096];
        let length = llistxattr(path, &mut names[..]).unwrap_or(0);
        for name in names[..length]
            .split(|&byte| byte == 0)
            .filter(|name| !name.is_empty())
        {
            let mut value = vec![0; 4096];
            let length = lgetxattr(path, name, &mut value[..]).unwrap_or(0);
            (name, &value[..length]).hash(&mut hasher);
        }
        // Linux notes the reading of a link, and has no way to forbid it.
        let read = if meta.is_symlink() {
            0
        } else {
            meta.atime_nsec() + meta.atime() * 1_000_000_000
        };
        format!(
            "inode {} mode {:o} links {} owner {}:{} size {} blocks {} read {read} written {}.{} changed {}.{} content {:x}",
            meta.ino(),
            meta.mode(),
            meta.nlink(),
            meta.uid(),
            meta.gid(),
            meta.len(),
            meta.blocks(),
            meta.mtime(),
            meta.mtime_nsec(),
            meta.ctime(),
            meta.ctime_nsec(),
            hasher.finish()
        )
    }

    /// Puts a command into a mount namespace in which a directory is mounted read-only.
    fn read_only(root: &Path) -> Command {
        let script = "mount --bind \"$1\" \"$1\" && mount -o remount,bind,ro \"$1\" || exit 97
            if mkdir \"$1/written\" 2>/dev/null; then exit 98; fi
            shift && exec \"$@\"";
        let mut command = bounded(Path::new("unshare"));
        command
            .args(["-m", "--propagation", "private", "sh", "-c", script, "sh"])
            .arg(root)
            .arg(env!("CARGO_BIN_EXE_layerctl"));
        command
    }

    fn can_mount() -> bool {
        let home = tempfile::tempdir().expect("a temporary directory");
        let output = run::run(read_only(home.path()).arg("--version"));
        let can = output.status == Some(0);
        if !can {
            assert!(
                std::env::var_os("LAYERCTL_MUST_MOUNT").is_none(),
                "{}",
                output.stderr
            );
            skip("this machine forbids mounting");
        }
        can
    }

    #[test]
    fn leaves_no_trace_and_needs_no_more_than_to_read() {
        if !can_unpack() {
            return;
        }
        let can_mount = can_mount();
        let home = tempfile::tempdir().expect("a temporary directory");
        let program = home.path().join("layerctl");
        run::copy_program(env!("CARGO_BIN_EXE_layerctl"), &program);
        fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).expect("our own");
        let hosts = [
            ("docker-overlay2", "run-a"),
            ("containerd-kubernetes", "nat-run"),
            ("docker-fuse-overlayfs", "run-a"),
            ("podman-rootless-fuse-overlayfs", "run-a"),
            ("docker-29", "run-a"),
        ];
        all_right(&hosts, |&(name, target)| {
            let host = Host::captured(name);
            fs::set_permissions(&host.root, fs::Permissions::from_mode(0o755)).expect("our own");
            let directory = OsString::from_vec(host.branches_of(target).remove(0));
            let trace = Trace::of(&host.root);
            let verbs = reading(target.as_ref(), "/etc/passwd".as_ref(), &directory);
            let mut wrong = Vec::new();
            let outputs: Vec<Output> = verbs.iter().map(|asked| ask(&host.root, asked)).collect();
            for (asked, output) in verbs.iter().zip(&outputs) {
                wrong.extend(ill_end(asked, output));
            }
            for (asked, before) in verbs.iter().zip(&outputs).filter(|_| can_mount) {
                let output = run::run(
                    read_only(&host.root)
                        .arg("--root")
                        .arg(&host.root)
                        .args(asked),
                );
                // An age in words is another one once its hour is over, so that the answer is to be
                // the one before or the one after.
                let is_answer = |answer: &Output| {
                    (&output.stdout, output.status) == (&answer.stdout, answer.status)
                };
                if !is_answer(before) && !is_answer(&ask(&host.root, asked)) {
                    wrong.push(format!(
                        "{asked:?} on a read-only mount: {:?} {}",
                        output.status, output.stderr
                    ));
                }
            }
            wrong.extend(trace.changes().into_iter().take(5));
            // Others than the owner may not read without a trace, and need not read everything.
            for asked in verbs.iter().step_by(3) {
                let mut command = bounded(&program);
                command
                    .current_dir("/")
                    .uid(NOBODY)
                    .gid(NOBODY)
                    .arg("--root")
                    .arg(&host.root)
                    .args(asked);
                let why = ill_end(asked, &run::run(&mut command));
                wrong.extend(why.map(|why| format!("as an ordinary user {why}")));
            }
            wrong
                .into_iter()
                .map(|why| format!("{name}: {why}"))
                .collect()
        });
    }

    #[test]
    fn no_verb_answers_nothing() {
        all_right(&small_hosts(), |(host, target)| {
            let mut verbs = reading(OsStr::new(target), "/etc".as_ref(), "/var/lib".as_ref());
            // Without a target it is asked of what is mounted, which may be nothing.
            verbs.retain(|asked| *asked != words(["check"]));
            let answers_nothing = |asked: &Words| {
                let output = ask(&host.root, asked);
                let is_empty = output.stdout.is_empty();
                is_empty.then(|| format!("{target} {asked:?} answers nothing: {}", output.stderr))
            };
            verbs.iter().filter_map(answers_nothing).collect()
        });
    }

    #[test]
    fn needs_neither_proc_nor_sys() {
        let mut hosts = small_hosts();
        hosts.retain(|(host, _)| host.at("/proc").exists() || host.at("/sys").exists());
        all_right(&hosts, |(host, target)| {
            let mut wrong = Vec::new();
            let before = host.jsonl(["containers"]);
            for missing in ["/sys", "/proc"] {
                if host.at(missing).exists() {
                    fs::rename(host.at(missing), host.at(format!("{missing}-gone")))
                        .expect("our own");
                }
                for asked in reading(
                    OsStr::new(target),
                    "/etc/passwd".as_ref(),
                    "/var/lib".as_ref(),
                ) {
                    wrong.extend(
                        ill_end(&asked, &ask(&host.root, &asked))
                            .map(|why| format!("without {missing} {why}")),
                    );
                }
                // Neither has anything to do with what is on disk.
                let after = host.jsonl(["containers"]);
                let (before, after) = (before.rows(), after.rows());
                if texts(&before, "id") != texts(&after, "id") {
                    wrong.push(format!(
                        "without {missing} there are {} containers, not {}",
                        after.len(),
                        before.len()
                    ));
                }
            }
            wrong
        });
    }
}

mod spoilt {
    use super::*;

    /// One way to spoil a file, in words.
    fn spoil(random: &mut Random, content: &mut Vec<u8>) -> String {
        let at = random.below(content.len() + 1);
        let huge: [&[u8]; 9] = [
            b"99999999999999999999999",
            b"-1",
            b"18446744073709551615",
            b"9223372036854775807",
            b"4294967296",
            b"1e999",
            b"0.1",
            b"null",
            b"-9223372036854775808",
        ];
        let words: [&[u8]; 13] = [
            b"../../../../../../etc/passwd",
            b"/",
            b"..",
            "\u{fc}\u{1f980}\u{20ac}\u{fc}\u{1f980}\u{20ac}\u{fc}\u{1f980}".as_bytes(),
            b"\xff\xfe",
            b"\0",
            b"",
            b"sha256:",
            b"sha256:\xc3\xbc\xc3\xbc\xc3\xbc\xc3\xbc\xc3\xbc\xc3\xbc\xc3\xbc\xc3\xbc",
            b"-init",
            b"\\134\\12\\999\\",
            b"9999-99-99T99:99:99.999999999999999Z",
            b"-262143-01-01T00:00:00Z",
        ];
        let insert = |content: &mut Vec<u8>, at: usize, what: &[u8]| {
            content.splice(at..at, what.iter().copied());
        };
        // The next run of these bytes from `at` on.
        let run = |content: &[u8], of: &dyn Fn(u8) -> bool| {
            let start = at + content[at..].iter().position(|&byte| of(byte))?;
            let length = content[start..]
                .iter()
                .position(|&byte| !of(byte))
                .unwrap_or(content.len() - start);
            Some(start..start + length)
        };
        match random.below(12) {
            0 | 1 => {
                for _ in 0..1 + random.below(8) {
                    let at = random.below(content.len());
                    if let Some(byte) = content.get_mut(at) {
                        *byte ^= 1 << (random.next() % 8);
                    }
                }
                "flipped bits".into()
            }
            2 => {
                content.truncate(at);
                format!("cut at {at}")
            }
            3 => {
                let of = *random.of(&huge);
                if let Some(range) = run(content, &|byte| byte.is_ascii_digit()) {
                    content.splice(range, of.iter().copied());
                }
                format!("number {} at {at}", of.escape_ascii())
            }
            4 | 5 => {
                // A whole text, be it JSON's, TOML's, a path's part or an id.
                let of = *random.of(&words);
                if let Some(range) = run(content, &|byte| !b"\"'/ :,\n={}[]".contains(&byte)) {
                    content.splice(range, of.iter().copied());
                }
                format!("text {} at {at}", of.escape_ascii())
            }
            6 => {
                let open = *random.of(&[&b"["[..], b"{\"a\":", b"{", b"[{\"a\":["]);
                insert(content, at, &open.repeat(5000));
                format!("{} nested at {at}", open.escape_ascii())
            }
            7 => {
                let end = at + random.below(200.min(content.len() - at) + 1);
                let piece = content[at..end].to_vec();
                let copies = 1 + random.below(3);
                insert(content, at, &piece.repeat(copies));
                format!("{at}..{end} again")
            }
            8 => {
                // The same key twice, with another value.
                let keys: Vec<usize> = content
                    .windows(2)
                    .enumerate()
                    .filter(|(_, pair)| *pair == b"\":")
                    .map(|(at, _)| at)
                    .collect();
                if let Some(&end) = keys.get(random.below(keys.len())) {
                    let start = content[..end]
                        .iter()
                        .rposition(|&byte| byte == b'"')
                        .unwrap_or(0);
                    let key = content[start..=end].to_vec();
                    let value = *random.of(&[&b"null"[..], b"7", b"[]", b"{}", b"\"x\"", b"true"]);
                    insert(content, start, &[&key, &b":"[..], value, b","].concat());
                }
                "a key twice".into()
            }
            9 => {
                let length = random.below(64);
                insert(content, at, &vec![0; length]);
                format!("{length} NULs at {at}")
            }
            10 => {
                let end = at + random.below(content.len() - at + 1);
                content.drain(at..end);
                format!("{at}..{end} left out")
            }
            _ => {
                let other = random.below(content.len() + 1);
                let (from, to) = (at.min(other), at.max(other));
                content[from..to].reverse();
                format!("{from}..{to} reversed")
            }
        }
    }

    #[test]
    fn records_are_damaged_and_no_more() {
        const ROUNDS: usize = 70;
        let hosts: Vec<(usize, (Host, &str))> = small_hosts().into_iter().enumerate().collect();
        all_right(&hosts, |(number, (host, target))| {
            let mut random = Random(*number as u64);
            let mut kinds: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
            for entry in WalkDir::new(&host.root).sort_by_file_name() {
                let at = entry.expect("our own").into_path();
                if is_record(&at) {
                    kinds.entry(kind_of_record(&at)).or_default().push(at);
                }
            }
            let kinds: Vec<Vec<PathBuf>> = kinds.into_values().collect();
            let directory = host.jsonl(["branches", "--", target]).rows();
            let directory = directory
                .first()
                .map(|row| bytes(&row["branches"][0]["directory"]));
            let directory = OsString::from_vec(directory.unwrap_or_else(|| b"/var".to_vec()));
            let verbs = reading(OsStr::new(target), "/etc/passwd".as_ref(), &directory);
            let mut wrong = Vec::new();
            for round in 0..ROUNDS {
                let files = &kinds[(round + random.below(2)) % kinds.len()];
                let at = random.of(files);
                let whole = fs::read(at).expect("our own");
                let mut content = whole.clone();
                let how: Vec<String> = (0..1 + random.below(3))
                    .map(|_| spoil(&mut random, &mut content))
                    .collect();
                fs::write(at, &content).expect("our own");
                for _ in 0..2 {
                    let mut asked = random.of(&verbs).clone();
                    if random.below(2) == 0 {
                        asked.splice(0..0, words(["--format", "jsonl"]));
                    }
                    let output = ask(&host.root, &asked);
                    wrong.extend(ill_end(&asked, &output).map(|why| {
                        format!(
                            "round {round}, {}, {how:?}: {why}\n  {}",
                            at.display(),
                            content[..content.len().min(2000)].escape_ascii()
                        )
                    }));
                }
                fs::write(at, whole).expect("our own");
            }
            wrong
        });
    }

    /// Replaces one record after the other by the same content.
    fn replaced(content_of: impl Fn(&Path, &[u8]) -> Vec<Vec<u8>> + Sync) {
        let hosts = small_hosts();
        all_right(&hosts, |(host, target)| {
            let mut seen = BTreeSet::new();
            let mut wrong = Vec::new();
            for entry in WalkDir::new(&host.root).sort_by_file_name() {
                let at = entry.expect("our own").into_path();
                if !is_record(&at) || !seen.insert(kind_of_record(&at)) {
                    continue;
                }
                let whole = fs::read(&at).expect("our own");
                for content in content_of(&at, &whole) {
                    fs::write(&at, &content).expect("our own");
                    for asked in [words(["-v", "history", target]), words(["orphans"])]
                        .iter()
                        .skip(seen.len() % 2)
                        .take(1)
                    {
                        let output = ask(&host.root, asked);
                        wrong.extend(ill_end(asked, &output).map(|why| {
                            format!(
                                "{} {}: {why}",
                                at.display(),
                                content[..content.len().min(80)].escape_ascii()
                            )
                        }));
                    }
                }
                fs::write(&at, whole).expect("our own");
            }
            wrong
        });
    }

    #[test]
    fn records_nested_without_end_are_no_stack_overflow() {
        const DEPTH: usize = 100_000;
        replaced(|at, whole| {
            let is_toml = at
                .extension()
                .is_some_and(|kind| kind == "toml" || kind == "conf");
            let is_json = matches!(whole.first(), Some(b'{' | b'['));
            if is_toml {
                let dotted = ["a"; DEPTH].join(".");
                return [
                    format!("storage = {}", "[".repeat(DEPTH)),
                    format!("storage = {}", "{a=".repeat(DEPTH)),
                    format!("{dotted} = 1"),
                    format!("[{dotted}]\nb = 1"),
                    format!("[[{dotted}]]\nb = 1"),
                ]
                .map(String::into_bytes)
                .to_vec();
            }
            if !is_json {
                return Vec::new();
            }
            // Alone, and where a known object has a name that is not known.
            let inside =
                |nested: String| [&whole[..1], format!("\"unknown\":{nested}").as_bytes()].concat();
            let (open, close) = ("[".repeat(DEPTH), "]".repeat(DEPTH));
            let keys = "{\"a\":".repeat(DEPTH);
            vec![
                open.clone().into_bytes(),
                keys.clone().into_bytes(),
                inside(format!("{open}{close},\"x\":1}}")),
                inside(keys),
            ]
        });
    }

    /// An engine's directory may be anywhere, but no kernel finds it behind so long a path.
    #[test]
    fn a_path_of_many_parts_is_no_stack_overflow() {
        let path = "/a".repeat(20_000);
        let store = Store::new("");
        store.host.file(
            "/etc/docker/daemon.json",
            json!({"data-root": path}).to_string(),
        );
        let graph_root = format!("[storage]\ndriver = \"overlay\"\ngraphroot = \"{path}\"\n");
        store.host.file("/etc/containers/storage.conf", graph_root);
        let root = format!("version = 2\nroot = \"{path}\"\n");
        store.host.file("/etc/containerd/config.toml", root);
        let asked = words(["info"]);
        assert_eq!(ill_end(&asked, &ask(&store.host.root, &asked)), None);
    }

    /// 100 MB, as a hole; and as much as is read of a file in small pieces of JSON, each of which
    /// takes many times as much memory as disk.
    #[test]
    fn records_without_end_take_no_memory_without_end() {
        let store = Store::new("");
        let id = store.container("web", "");
        let image = format!("image/overlay2/imagedb/content/sha256/{}", store.image);
        let verbs = [words(["info"]), words(["history", "web"])];
        let mut wrong = Vec::new();
        let config = format!("containers/{id}/config.v2.json");
        for path in [
            &config,
            &image,
            "image/overlay2/repositories.json",
            "overlay2/web/lower",
            "overlay2/web/link",
        ] {
            let at = store.at(path);
            let whole = fs::read(&at).expect("our own");
            File::options()
                .write(true)
                .open(&at)
                .and_then(|file| file.set_len(100_000_000))
                .expect("our own");
            for asked in &verbs {
                let output = ask(&store.host.root, asked);
                wrong.extend(ill_end(asked, &output).map(|why| format!("{path}, 100 MB: {why}")));
            }
            fs::write(&at, whole).expect("our own");
        }
        const PIECES: usize = 6_000_000;
        for (path, open, piece, close) in [
            (
                &*image,
                "{\"rootfs\":{\"diff_ids\":[]},\"history\":[",
                "{},",
                "{}]}",
            ),
            (&*image, "{\"rootfs\":{\"diff_ids\":[", "\"\",", "\"\"]}}"),
            (&*config, "{\"Args\":[", "\"\",", "\"\"]}"),
        ] {
            let at = store.at(path);
            let whole = fs::read(&at).expect("our own");
            fs::write(&at, [open, &piece.repeat(PIECES), close].concat()).expect("our own");
            let asked = if path == image { &verbs[1] } else { &verbs[0] };
            let output = ask(&store.host.root, asked);
            wrong.extend(
                ill_end(asked, &output).map(|why| format!("{path}, {PIECES} times {piece} {why}")),
            );
            fs::write(&at, whole).expect("our own");
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}

mod shapes {
    use super::*;

    #[test]
    fn trees_of_ten_thousand_levels_have_an_end() {
        const LEVELS: usize = 10_000;
        let store = Store::new("");
        store.container("web", "");
        let upper_dir = upper("web");
        // What nobody refers to is measured, and so has a host of its own.
        let leftover = Store::new("");
        let _deep = [
            store.host.at(&upper_dir),
            store.host.at(upper("base")),
            leftover.at("overlay2/lost/diff"),
        ]
        .map(|at| Deep::make(at, LEVELS));
        let path = "/d".repeat(LEVELS);
        let verbs: [(&[&str], Option<i32>); 9] = [
            (&["whiteouts", "--all-layers", "web"], Some(0)),
            (&["copyups", "web"], Some(0)),
            (&["check", "web"], Some(0)),
            (&["changes", "web"], Some(0)),
            (&["which", "--in", "web", &path], Some(0)),
            (&["which", "--in", "web", &format!("{path}/x")], Some(1)),
            (&["whois", &format!("{upper_dir}{path}")], Some(0)),
            (&["orphans"], Some(1)),
            (&["du"], Some(0)),
        ];
        all_right(&verbs, |(verb, status)| {
            let asked = words(verb.iter());
            let mut with_format = words(["--format", "jsonl"]);
            with_format.extend(asked.iter().cloned());
            let host = match verb[0] {
                "du" | "orphans" => &leftover.host,
                _ => &store.host,
            };
            let output = ask(&host.root, &with_format);
            let mut wrong: Vec<String> = ill_end(&asked, &output).into_iter().collect();
            if output.status != *status {
                let said: String = output.stderr.chars().take(300).collect();
                wrong.push(format!(
                    "{} ended with {:?}: {said}",
                    verb[0], output.status
                ));
            }
            wrong
                .into_iter()
                .map(|why| why.replace(&path, "/d..."))
                .collect()
        });
        // Of a copy that lies deeper than a path can tell.
        let asked = words(["--root".to_owned(), path, "info".into()]);
        assert_eq!(run::run(layerctl().args(&asked)).status, Some(2));
    }

    #[test]
    fn what_waits_in_a_deep_tree_takes_little_memory() {
        // Of two files in each level, which come after what is below, the paths are 150 MB; and
        // a mark in each level is above all that are below.
        const LEVELS: usize = 1_000;
        let name = "d".repeat(150);
        let host = Host::empty();
        host.dir("/low");
        let files = [".wh..wh..opq", ".wh.x", "y", "z"];
        let _deep = Deep::make_with(host.at("/up"), LEVELS, &name, &files);
        let verbs = [
            ("whiteouts", 2 * LEVELS),
            ("changes", 3 * LEVELS),
            ("ls -R", 3 * LEVELS),
        ];
        all_right(&verbs, |(verb, rows)| {
            let command = format!(
                "ulimit -v 65536 && \"$@\" -j1 --root {} {verb} br:/up=rw:/low=ro+wh | wc -l",
                host.root.display()
            );
            let output = run::run(bounded(Path::new("/bin/sh")).args([
                "-c",
                &command,
                "sh",
                env!("CARGO_BIN_EXE_layerctl"),
                "-q",
            ]));
            let counted = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            let is_right = counted == rows.to_string() && output.stderr.is_empty();
            (!is_right)
                .then(|| format!("{verb}: {counted} rows, not {rows}: {}", output.stderr))
                .into_iter()
                .collect()
        });
    }

    #[test]
    fn the_longest_names_are_names() {
        let store = Store::new("");
        store.container("web", "");
        let names = [
            "n".repeat(255),
            "\u{1f980}".repeat(63),
            "\u{1}".repeat(255),
            ".wh.".repeat(63),
        ];
        for name in &names {
            for layer in ["base", "web"] {
                store.host.file(format!("{}/{name}", upper(layer)), layer);
                store.host.file(
                    format!("{}/{name}-/{name}", upper(layer))
                        .replace(&format!("{name}-"), &"x".repeat(255)),
                    layer,
                );
            }
        }
        for name in &names {
            let at = format!("{}/{name}", upper("web"));
            let row = store
                .host
                .jsonl(["which", "--in", "web", name.as_str()])
                .exits(0)
                .row();
            assert_eq!(
                (row["state"].as_str(), row["branch"].as_u64()),
                (Some("present"), Some(0)),
                "{row}"
            );
            for asked in reading("web".as_ref(), name.as_ref(), at.as_ref()) {
                let output = ask(&store.host.root, &asked);
                assert_eq!(ill_end(&asked, &output), None);
            }
        }
        let asked = store.host.jsonl(["ls", "-R", "--in", "web", "/"]).exits(0);
        let listed = asked.rows();
        for name in &names {
            assert!(
                listed
                    .iter()
                    .any(|row| bytes(&row["path"]) == format!("/{name}").as_bytes()),
                "{name}"
            );
        }
    }

    /// Every verb, once something goes round in circles.
    fn ends(host: &Host, target: &str, what: &str) -> Vec<String> {
        let verbs = reading(
            target.as_ref(),
            "/etc/passwd".as_ref(),
            upper("web").as_ref(),
        );
        verbs
            .iter()
            .filter_map(|asked| ill_end(asked, &ask(&host.root, asked)))
            .map(|why| format!("{what}: {why}"))
            .collect()
    }

    /// What goes round, and how it is made to.
    type Circle = (&'static str, fn(&Store));

    #[test]
    fn circles_of_docker_end() {
        let cases: [Circle; 8] = [
            ("lower names itself", |store| {
                store.file("overlay2/web/lower", "l/WEB:l/TOP:l/BASE");
                store.file("overlay2/base/lower", "l/WEB:l/BASE");
            }),
            ("lower ten thousand times", |store| {
                store.file("overlay2/web/lower", ["l/TOP"; 10_000].join(":"));
            }),
            ("layers that are each other's parents", |store| {
                let base = sha256("base");
                let parent = store.top_chain.clone();
                store.file(
                    &format!("image/overlay2/layerdb/sha256/{base}/parent"),
                    parent,
                );
            }),
            ("a layer that is its own parent", |store| {
                let base = sha256("base");
                store.file(
                    &format!("image/overlay2/layerdb/sha256/{base}/parent"),
                    format!("sha256:{base}"),
                );
            }),
            ("short names that lead to each other", |store| {
                for (link, to) in [("TOP", "BASE"), ("BASE", "TOP")] {
                    let at = store.at("overlay2/l").join(link);
                    fs::remove_file(&at).expect("our own");
                    symlink(to, at).expect("our own");
                }
            }),
            ("a layer that is a link to itself", |store| {
                let diff = store.at("overlay2/top/diff");
                fs::remove_dir_all(&diff).expect("our own");
                symlink("../l/TOP", diff).expect("our own");
            }),
            ("a data directory that is a link to itself", |store| {
                let data = store.host.at(DATA);
                fs::rename(&data, store.host.at("/kept")).expect("our own");
                symlink("../lib/docker", data).expect("our own");
            }),
            ("mounts that lie in each other", |store| {
                store.host.file(
                    "/proc/self/mountinfo",
                    "1 2 0:1 / / rw - overlay o rw,lowerdir=/a:/b,upperdir=/u,workdir=/w\n\
                     2 1 0:1 / / rw - overlay o rw,lowerdir=/a:/b,upperdir=/u,workdir=/w\n\
                     3 3 0:2 / /var/lib/docker/overlay2/web/merged rw - overlay o rw,lowerdir=/a:/b,upperdir=/u,workdir=/w\n",
                );
            }),
        ];
        all_right(&cases, |(what, change)| {
            let store = Store::new("");
            store.container("web", "");
            change(&store);
            ends(&store.host, "web", what)
        });
    }

    #[test]
    fn circles_of_other_engines_end() {
        if !can_unpack() {
            return;
        }
        let mut wrong = Vec::new();
        let host = Host::captured("podman-rootless-overlay");
        let list = WalkDir::new(&host.root)
            .into_iter()
            .map(|entry| entry.expect("our own").into_path())
            .find(|at| at.ends_with("overlay-layers/layers.json"))
            .expect("a store");
        let mut layers: Value =
            serde_json::from_slice(&fs::read(&list).expect("our own")).expect("JSON");
        let ids: Vec<Value> = layers
            .as_array()
            .expect("layers")
            .iter()
            .map(|layer| layer["id"].clone())
            .collect();
        for step in [0, 1, ids.len() - 1] {
            for (index, layer) in layers
                .as_array_mut()
                .expect("layers")
                .iter_mut()
                .enumerate()
            {
                layer["parent"] = ids[(index + step) % ids.len()].clone();
            }
            fs::write(&list, layers.to_string()).expect("our own");
            wrong.extend(ends(&host, "run-a", &format!("Podman's layers, {step} on")));
        }
        // containerd names a snapshot's parent by its key. One key for all of them is a circle.
        let host = Host::captured("containerd-overlayfs");
        for database in [
            "io.containerd.metadata.v1.bolt/meta.db",
            "io.containerd.snapshotter.v1.overlayfs/metadata.db",
        ] {
            let at = host.at(format!("/var/lib/containerd/{database}"));
            let whole = fs::read(&at).expect("our own");
            let mut content = whole.clone();
            let digests: Vec<usize> = content
                .windows(7)
                .enumerate()
                .filter(|(_, window)| window == b"sha256:")
                .map(|(at, _)| at)
                .collect();
            let first = content[digests[0]..digests[0] + 71].to_vec();
            for at in digests {
                if content.len() >= at + first.len() {
                    content[at..at + first.len()].copy_from_slice(&first);
                }
            }
            fs::write(&at, content).expect("our own");
            wrong.extend(ends(&host, "run-a", database));
            fs::write(&at, whole).expect("our own");
        }
        // An index that lists itself, and each manifest as a manifest of itself.
        let blobs = host.at("/var/lib/containerd/io.containerd.content.v1.content/blobs/sha256");
        for entry in fs::read_dir(&blobs).expect("a store") {
            let at = entry.expect("our own").path();
            let Ok(mut blob) = serde_json::from_slice::<Value>(&fs::read(&at).expect("our own"))
            else {
                continue;
            };
            let own = json!({
                "mediaType": "application/vnd.oci.image.index.v1+json",
                "digest": format!("sha256:{}", at.file_name().unwrap_or_default().to_string_lossy()),
                "size": 1,
                "platform": {"architecture": "amd64", "os": "linux"},
            });
            for field in ["manifests", "layers"] {
                if !blob[field].is_null() {
                    blob[field] = json!([own, own]);
                }
            }
            if !blob["config"]["digest"].is_null() {
                blob["config"]["digest"] = own["digest"].clone();
            }
            fs::write(&at, blob.to_string()).expect("our own");
        }
        wrong.extend(ends(&host, "run-a", "blobs that name themselves"));
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}

mod churn {
    use super::*;

    /// Docker removes a layer name by name, in the order of its directory. Whatever is gone
    /// already: the rest is never taken for the whole.
    #[test]
    fn a_layer_that_is_removed_in_part_is_not_taken_for_a_whole_one() {
        let parts = ["lower", "link", "work", "diff"];
        let mut wrong = Vec::new();
        for gone in 1..1 << parts.len() {
            let store = Store::new("");
            store.container("web", "");
            let gone: Vec<&str> = (0..parts.len())
                .filter(|bit| gone & (1 << bit) != 0)
                .map(|bit| parts[bit])
                .collect();
            for part in &gone {
                let at = store.at("overlay2/web").join(part);
                let removed = if at.is_dir() {
                    fs::remove_dir_all(at)
                } else {
                    fs::remove_file(at)
                };
                removed.expect("our own");
            }
            let said = |asked: &[&str], whole: &str| {
                let output = store.host.jsonl(asked);
                let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
                let is_wrong = matches!(output.status, Some(0 | 1)) && !stdout.contains(whole);
                is_wrong.then(|| {
                    format!(
                        "without {gone:?} {asked:?} exits {:?}: {stdout}",
                        output.status
                    )
                })
            };
            wrong.extend(said(&["changes", "web"], "/new-web"));
            wrong.extend(said(&["which", "web:/etc/group"], "\"present\""));
            wrong.extend(said(&["ls", "-R", "web"], "/etc/group"));
            wrong.extend(said(&["branches", "web"], &upper("base")));
            wrong.extend(said(&["containers"], &sha256("web")));
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    /// How a run ends under which something happens when it has begun to answer: with which status,
    /// and what it says beside the answer.
    fn asked_while(asked: &[OsString], happens: impl FnOnce()) -> (Option<i32>, String) {
        let mut command = layerctl();
        command.args(asked);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("layerctl was built");
        let mut pipe = child.stdout.take().expect("a pipe");
        // The rest is more than the pipe holds: the program cannot have ended.
        let mut stdout = vec![0];
        let is_said = pipe.read_exact(&mut stdout).is_ok();
        happens();
        pipe.read_to_end(&mut stdout).expect("the rest");
        let output = child.wait_with_output().expect("our child");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(is_said, "{asked:?} answers nothing: {said}");
        (output.status.code(), said)
    }

    fn is_quiet(asked: &[OsString], happens: impl FnOnce()) {
        let ended = asked_while(asked, happens);
        assert_eq!(ended, (Some(0), String::new()), "{asked:?}");
    }

    /// More than a pipe holds, even of names alone.
    const MANY: usize = 1500;

    fn many(prefix: &str) -> impl Iterator<Item = String> {
        let name = move |number| format!("{prefix}{number:0>200}");
        (0..MANY).map(name)
    }

    /// What is wrong with how a run ends under which something goes.
    fn goes(asked: &[OsString], what: &str, happens: impl FnOnce()) -> Option<String> {
        let (status, said) = asked_while(asked, happens);
        let is_said = said.contains(what) && said.contains("removed");
        (status != Some(2) || !is_said).then(|| format!("{asked:?} exits {status:?}: {said}"))
    }

    #[test]
    fn a_branch_that_goes_while_it_is_read_is_said_to_have_gone() {
        let stack = "br:/home/up=rw:/low=ro+wh";
        let mut wrong = Vec::new();
        for verb in [
            &["ls", "-R"][..],
            &["changes"],
            &["whiteouts"],
            &["copyups"],
        ] {
            let host = Host::empty();
            for name in many("") {
                host.file(format!("/low/{name}"), "");
                host.file(format!("/home/up/{name}"), "changed");
            }
            for name in many(".wh.x") {
                host.file(format!("/home/up/{name}"), "");
            }
            for name in many("x") {
                host.file(format!("/low/{name}"), "");
            }
            let mut asked = words(["--root".as_ref(), host.root.as_os_str()]);
            asked.extend(words(["-0"].iter().chain(verb).chain(&[stack])));
            is_quiet(&asked, || ());
            let (home, away) = (host.at("/home"), host.at("/away"));
            wrong.extend(goes(&asked, "/home/up", || {
                fs::rename(&home, &away).expect("our own");
            }));
            fs::rename(&away, &home).expect("our own");
            wrong.extend(goes(&asked, "/home/up", || {
                // Another directory has its name.
                fs::rename(&home, &away).expect("our own");
                fs::create_dir_all(home.join("up")).expect("our own");
            }));
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    /// Docker marks a container before it removes its layer, name by name and in place, and takes
    /// away its record at the end. An image's record is the first to go, and a layer's is moved
    /// away.
    #[test]
    fn what_docker_removes_while_it_is_read_is_said_to_have_gone() {
        let store = Store::new("");
        let id = store.container("web", "");
        for name in many("") {
            store.file(&format!("overlay2/web/diff/{name}"), "");
            store.file(&format!("overlay2/top/diff/{name}"), "");
        }
        let record = store.at(&format!("containers/{id}/config.v2.json"));
        let alive = fs::read_to_string(&record).expect("our own");
        let with = |word: &str| {
            let old = "\"Dead\":false";
            let new = alive.replace(old, &format!("\"{word}\":true"));
            assert_ne!(alive, new);
            new
        };
        let (removing, dead) = (with("RemovalInProgress"), with("Dead"));
        let write = |content: &str| fs::write(&record, content).expect("our own");
        let data = store.host.at(DATA);
        let mut wrong = Vec::new();
        for verb in [&["ls", "-R"][..], &["changes"]] {
            let asks = |target: &str| {
                let mut asked = words(["--docker-root".as_ref(), data.as_os_str()]);
                asked.extend(words(["-0"].iter().chain(verb).chain(&[target])));
                asked
            };
            let asked = asks("web");
            is_quiet(&asked, || ());
            wrong.extend(goes(&asked, "web", || write(&removing)));
            // What is dead and no more was left so by a removal that failed.
            is_quiet(&asked, || write(&dead));
            wrong.extend(goes(&asked, "web", || {
                fs::remove_file(&record).expect("our own");
            }));
            write(&alive);
            let (status, said) = asked_while(&asked, || write("{"));
            assert!(status == Some(2) && !said.contains("removed"), "{said}");
            write(&alive);

            let mut copy = words(["--root".as_ref(), store.host.root.as_os_str()]);
            copy.extend(asked[2..].iter().cloned());
            // On a copy of a host nothing goes on: the word is as old as the copy.
            is_quiet(&copy, || write(&removing));
            wrong.extend(goes(&copy, "web", || {
                fs::remove_file(&record).expect("our own");
            }));
            write(&alive);

            let image = store.at(&format!(
                "image/overlay2/imagedb/content/sha256/{}",
                store.image
            ));
            let chain = store.top_chain.trim_start_matches("sha256:");
            let layer = store.at(&format!("image/overlay2/layerdb/sha256/{chain}"));
            let away = store.at("away");
            for (target, name, record) in [("app:1", "app:1", image), (chain, "top", layer)] {
                is_quiet(&asks(target), || ());
                wrong.extend(goes(&asks(target), name, || {
                    fs::rename(&record, &away).expect("our own");
                }));
                fs::rename(&away, &record).expect("our own");
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    /// A captured host on which much is made of the topmost layer of a target, and what is asked
    /// about it.
    fn much_of(name: &str, target: &str, options: &[&str]) -> (Host, Vec<OsString>) {
        let host = Host::captured(name);
        let branches = host.jsonl(["branches", target]).exits(0).rows();
        let top = text(&branches[0]["branches"][0], "directory").to_owned();
        for name in many("") {
            host.file(format!("{top}/{name}"), "");
        }
        let [option, root, more @ ..] = options else {
            panic!("an option and a root");
        };
        let mut asked = words([option.as_ref(), host.at(root).as_os_str()]);
        asked.extend(words(more.iter().chain(&["-0", "changes", target])));
        is_quiet(&asked, || ());
        (host, asked)
    }

    #[test]
    fn what_podman_removes_while_it_is_read_is_said_to_have_gone() {
        if !can_unpack() {
            return;
        }
        let storage = "/var/lib/containers/storage";
        let none = |_: Value| json!([]);
        let incomplete = |list: Value| -> Value {
            let mark = |layer: &Value| {
                let mut layer = layer.clone();
                layer["flags"] = json!({"incomplete": true});
                layer
            };
            list.as_array().expect("layers").iter().map(mark).collect()
        };
        let layer = "a932360868954167fa8e3ed3856529b9dd3dd0633422c5f41f35cfde1885ce73";
        let mut wrong = Vec::new();
        for (target, list, change) in [
            (
                "stop-a",
                "overlay-layers/layers.json",
                incomplete as fn(Value) -> Value,
            ),
            (layer, "overlay-layers/layers.json", incomplete),
            ("stop-a", "overlay-containers/containers.json", none),
            ("localhost/lab/base:1", "overlay-images/images.json", none),
        ] {
            let (host, asked) = much_of("podman-overlay", target, &["--storage-root", storage]);
            let list = host.at(format!("{storage}/{list}"));
            let whole = fs::read(&list).expect("our own");
            // As the store replaces it.
            let replace = |new: &[u8]| {
                let beside = list.with_extension("new");
                fs::write(&beside, new).expect("our own");
                fs::rename(beside, &list).expect("our own");
            };
            wrong.extend(goes(&asked, target, || {
                let old = serde_json::from_slice(&whole).expect("JSON");
                replace(change(old).to_string().as_bytes());
            }));
            replace(&whole);
            let (status, said) = asked_while(&asked, || replace(b"["));
            assert!(status == Some(2) && !said.contains("removed"), "{said}");
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    /// What is gone in one namespace may be there under the same name in another.
    #[test]
    fn what_containerd_removes_while_it_is_read_is_said_to_have_gone() {
        if !can_unpack() {
            return;
        }
        fn bucket<'b>(root: &'b mut bolt::Bucket, path: &[&str]) -> &'b mut bolt::Bucket {
            path.iter()
                .fold(root, |bucket, name| match bucket.get_mut(name.as_bytes()) {
                    Some(bolt::Item::Bucket(below)) => below,
                    _ => panic!("no bucket {name}"),
                })
        }
        let meta = "io.containerd.metadata.v1.bolt/meta.db";
        let snapshots = "io.containerd.snapshotter.v1.overlayfs/metadata.db";
        let own = ("containerd-overlayfs", "/var/lib/containerd", "default");
        let dockers = ("docker-29", "/var/lib/docker/containerd/daemon", "moby");
        let mut wrong = Vec::new();
        for ((name, root, namespace), target, database, emptied) in [
            (own, "stop-a", meta, &["v1", "default", "containers"][..]),
            (
                own,
                "docker.io/lab/app:1",
                meta,
                &["v1", "default", "images"],
            ),
            (own, "12", snapshots, &["v1", "snapshots"]),
            (dockers, "small:1", meta, &["v1", "moby", "images"]),
        ] {
            let options: &[&str] = match namespace {
                "default" => &["--containerd-root", root, "--namespace", namespace],
                _ => &["--docker-root", "/var/lib/docker"],
            };
            let (host, asked) = much_of(name, target, options);
            let database = host.at(format!("{root}/{database}"));
            let mut content = bolt::read(&fs::read(&database).expect("our own"));
            if emptied.len() == 3 {
                let of_all = bucket(&mut content, &["v1"]);
                let same = of_all[namespace.as_bytes()].clone();
                of_all.insert(b"other".to_vec(), same);
                fs::write(&database, bolt::write(&content)).expect("our own");
                is_quiet(&asked, || ());
            }
            bucket(&mut content, emptied).clear();
            wrong.extend(goes(&asked, target, || {
                fs::write(&database, bolt::write(&content)).expect("our own");
            }));
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    /// Removes a container in Docker's order: its layers, what is known of them, its own records.
    /// Each directory goes in one step, so that nothing is ever there in part.
    fn remove(store: &Store, name: &str) {
        let bin = store.host.at("/bin-of-the-test");
        fs::create_dir_all(&bin).expect("our own");
        let id = sha256(name);
        let upper_case = name.to_uppercase();
        for (of, link) in [
            (name.to_owned(), upper_case.clone()),
            (format!("{name}-init"), format!("{upper_case}I")),
        ] {
            fs::remove_file(store.at("overlay2/l").join(link)).expect("our own");
            fs::rename(store.at("overlay2").join(&of), bin.join(&of)).expect("our own");
        }
        let mounts = format!("image/overlay2/layerdb/mounts/{id}");
        fs::rename(store.at(&mounts), bin.join("mounts")).expect("our own");
        fs::rename(store.at(&format!("containers/{id}")), bin.join("container")).expect("our own");
        fs::remove_dir_all(bin).expect("our own");
    }

    /// A generation's containers. No name and no id comes a second time.
    fn names(generation: usize) -> [String; 3] {
        ["x", "y", "z"].map(|letter| format!("{letter}{generation}"))
    }

    #[test]
    fn what_vanishes_is_never_an_empty_answer() {
        let store = Store::new("");
        for name in ["keep", "stay"] {
            store.container(name, "");
        }
        let (is_over, generation) = (AtomicBool::new(false), AtomicUsize::new(0));
        let mut wrong = Vec::new();
        thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    let number = generation.load(Ordering::Relaxed);
                    let names = names(number);
                    for name in &names {
                        store.container(name, "");
                    }
                    // Long enough to be seen whole, and short enough to vanish under a reader.
                    thread::sleep(Duration::from_millis(number as u64 % 40));
                    for name in [1, 0, 2].map(|index| &names[index]) {
                        remove(&store, name);
                    }
                    generation.fetch_add(1, Ordering::Relaxed);
                }
            });
            let (mut rounds, mut answered) = (0, 0);
            while wrong.is_empty() && rounds < 200 {
                let is_enough = rounds >= 12 && answered > 0;
                if is_enough && generation.load(Ordering::Relaxed) >= 50 {
                    break;
                }
                rounds += 1;
                wrong = round(&store, &generation, &mut answered);
            }
            is_over.store(true, Ordering::Relaxed);
            if answered == 0 && wrong.is_empty() {
                wrong.push("no container was ever seen whole".into());
            }
        });
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    /// Asks everything once, and says what was not as it should be.
    fn round(store: &Store, generation: &AtomicUsize, answered: &mut usize) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut said = Vec::new();
        let mut asks = |asked: &[&str]| {
            let mut all = words(["--format", "jsonl"]);
            all.extend(words(asked));
            let output = ask(&store.host.root, &all);
            wrong.extend(ill_end(&all, &output));
            output
        };
        // What nobody touches is always there, and always the same.
        for name in ["keep", "stay"] {
            let output = asks(&["changes", name]);
            let rows = output.rows();
            let paths = texts(&rows, "path");
            if paths != [format!("/new-{name}")] || output.status != Some(0) {
                said.push(format!("changes {name}: {paths:?} {}", output.stderr));
            }
        }
        let rows = asks(&["containers"]).rows();
        for row in &rows {
            if text(row, "id") != sha256(text(row, "name")) || row["driver"] != "overlay2" {
                said.push(format!("containers: {row}"));
            }
        }
        let listed = texts(&rows, "name");
        if !["keep", "stay"].iter().all(|name| listed.contains(name)) {
            said.push(format!("containers: {listed:?}"));
        }
        let output = asks(&["images"]);
        if output.rows().len() != 1 {
            said.push(format!("images: {:?} {}", output.rows(), output.stderr));
        }
        let keep = [
            upper("keep"),
            upper("stay"),
            upper("base"),
            upper("top"),
            sha256("keep"),
            sha256("stay"),
        ];
        for row in asks(&["orphans"]).rows() {
            let path = String::from_utf8_lossy(&bytes(&row["path"])).into_owned();
            if keep
                .iter()
                .any(|of| path.contains(of.trim_end_matches("/diff")))
            {
                said.push(format!("orphans accuses {row}"));
            }
        }
        for index in 0..3 {
            let name = &*names(generation.load(Ordering::Relaxed))[index];
            let new = format!("/new-{name}");
            let layers = [upper("base"), upper("top"), upper(&format!("{name}-init"))];
            let layers: Vec<&str> = layers.iter().map(String::as_str).collect();
            // Whole, or said to be gone.
            for (verb, whole) in [
                (&["changes", name][..], vec![&*new]),
                (&["ls", "-R", name], vec![&new, "/etc/group", "/.dockerenv"]),
                (&["branches", name], layers),
                (&["history", name], vec!["made base", "made top"]),
                (
                    &["which", &format!("{name}:/etc/group")],
                    vec!["\"present\""],
                ),
                (&["whiteouts", name], vec![]),
                (&["du", name], vec![]),
            ] {
                let output = asks(verb);
                let text = String::from_utf8_lossy(&output.stdout).into_owned();
                let is_answer = matches!(output.status, Some(0 | 1));
                if is_answer && !whole.iter().all(|part| text.contains(part)) {
                    said.push(format!("{verb:?} answers {:?} {text:?}", output.status));
                }
                *answered += usize::from(is_answer && verb[0] == "changes");
            }
        }
        for verb in ["info", "du", "branches", "check"] {
            asks(&[verb]);
        }
        wrong.extend(said);
        wrong
    }
}
