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
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use walkdir::WalkDir;

use crate::lab::deep::Deep;
use crate::lab::host::Host;
use crate::lab::run::{self, Output, bytes, text, texts};
use crate::lab::verbs::{Words, is_refused, reading, words};
use crate::lab::{
    all_right, in_part, in_part_everywhere, is_root, needs, skip_everywhere, terminal,
};
use crate::whois::bolt;

mod churn;
mod nodes;
mod reading_only;
mod shapes;
mod spoilt;
mod swaps;
mod terminals;

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

/// Seconds of computing, however long they take: a hundred times what is needed, and an end to what
/// has none.
const COMPUTING: &str = "600";
/// KiB.
const MEMORY: &str = "1048576";

/// A program that is killed when it computes without end, and refused more memory than anything here may take.
fn bounded(program: &Path) -> Command {
    let mut command = Command::new("/bin/sh");
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("TZ", "UTC")
        // Answers that are held against each other are of one moment.
        .env("SOURCE_DATE_EPOCH", "1795000000")
        .stdin(Stdio::null())
        .arg("-c")
        .arg(format!(
            "ulimit -t {COMPUTING} && ulimit -v {MEMORY} && exec \"$@\""
        ))
        .arg("sh")
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

/// A small host of each engine and layout, to be spoilt, with a container on it.
fn small_hosts() -> Vec<(Host, &'static str)> {
    let store = Store::new("");
    store.container("web", "");
    let mut hosts = vec![
        (store.host, "web"),
        (Host::copy_of("blog-host"), "determined_sammet"),
        (Host::copy_of("docker-1.9"), "old_web"),
    ];
    if needs::captured_hosts_in_part() {
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
