//! Docker's other storage drivers: captured hosts of a real Docker 20.10 on overlay2,
//! fuse-overlayfs, vfs and btrfs. What the engine said there is what layerctl has to say. Numbers
//! are those of FACTS-engines.
//!
//! A btrfs that is only copied looks like vfs. So all tests run once more on a mounted one, whose
//! layers are file systems of their own.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::Deref;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use serde_json::Value;

use crate::lab::captured::{Captured, Shared};
use crate::lab::host::Host;
use crate::lab::run::{bytes, text};
use crate::lab::{archive, needs, skip_everywhere};

const DRIVERS: [&str; 4] = ["overlay2", "fuse-overlayfs", "vfs", "btrfs"];
/// Set where the tests run again with a btrfs mounted: the root of the host that has it.
const ON_BTRFS: &str = "LAYERCTL_ON_BTRFS";

/// A captured host with what Docker said on it.
struct Docker {
    driver: &'static str,
    captured: Captured,
}

impl Deref for Docker {
    type Target = Captured;

    fn deref(&self) -> &Captured {
        &self.captured
    }
}

/// The captured hosts, which tests that run at one time share.
fn dockers() -> Arc<Vec<Docker>> {
    static SHARED: Shared<Vec<Docker>> = Shared::new();
    SHARED.get(unpack)
}

fn unpack() -> Vec<Docker> {
    if let Some(root) = std::env::var_os(ON_BTRFS) {
        let host = Host::existing(Path::new(&root));
        return vec![Docker {
            driver: "btrfs",
            captured: Captured::on("docker-btrfs", host),
        }];
    }
    needs::captured_hosts();
    let unpack = |driver| Docker {
        driver,
        captured: Captured::new(&format!("docker-{driver}")),
    };
    DRIVERS.map(unpack).into()
}

impl Docker {
    /// The containers that Docker could diff. On fuse-overlayfs it cannot while they run (21).
    fn diffed(&self) -> Vec<&str> {
        let mut containers = self.named("diff-", ".txt");
        containers.retain(|name| !self.truth.contains_key(&format!("diff-{name}.err")));
        containers
    }

    /// Whether its containers were killed after Docker was asked and before the disk was taken.
    fn was_stopped(&self) -> bool {
        self.driver == "btrfs"
    }

    fn diff(&self, container: &str) -> BTreeSet<Change> {
        changes(self.said(&format!("diff-{container}.txt")))
    }
}

// ---- changes ----

/// The letter of `docker diff` and the path.
pub type Change = (u8, Vec<u8>);

/// The lines of `docker diff`. Names are printed raw, and may hold newlines (61).
pub fn changes(diff: impl AsRef<[u8]>) -> BTreeSet<Change> {
    let is_start = |line: &[u8]| {
        ["A /", "C /", "D /"]
            .iter()
            .any(|start| line.starts_with(start.as_bytes()))
    };
    let mut entries: Vec<Vec<u8>> = Vec::new();
    for line in diff.as_ref().split_inclusive(|&byte| byte == b'\n') {
        match entries.last_mut() {
            Some(entry) if !is_start(line) => entry.extend(line),
            _ => entries.push(line.to_vec()),
        }
    }
    let change = |entry: Vec<u8>| {
        let entry = entry.strip_suffix(b"\n").expect("a whole line");
        (entry[0], entry[2..].to_vec())
    };
    entries.into_iter().map(change).collect()
}

#[apply(test)]
fn a_newline_in_a_name_continues_the_line() {
    assert_eq!(
        changes("C /a\nD /a/new\nline.txt\nA /b\n"),
        BTreeSet::from([
            (b'A', b"/b".to_vec()),
            (b'C', b"/a".to_vec()),
            (b'D', b"/a/new\nline.txt".to_vec()),
        ])
    );
}

/// What `docker diff` said and should not have, or should have said and did not.
struct DockersError {
    drivers: &'static [&'static str],
    containers: &'static [&'static str],
    said: Option<(u8, &'static str)>,
    truth: Option<(u8, &'static [u8])>,
    why: &'static str,
}

const DOCKERS_ERRORS: [DockersError; 3] = [
    DockersError {
        drivers: &["overlay2", "vfs", "btrfs"],
        containers: &["run-a", "stop-a"],
        said: Some((b'A', "/root/ctr\x1b]0;title\x07\n\u{fffd}.txt")),
        truth: Some((b'A', b"/root/ctr\x1b]0;title\x07\n\xff.txt")),
        why: "61: the name's bytes are not UTF-8, and JSON lost them on the way",
    },
    DockersError {
        drivers: &["fuse-overlayfs"],
        containers: &["stop-a"],
        said: Some((b'A', "/root/ctr\x1b]0;title\x07\n\u{fffd}.txt")),
        truth: Some((b'A', b"/root/ctr\x1b]0;title\x07\n\xff.txt")),
        why: "61: the same",
    },
    DockersError {
        drivers: &["fuse-overlayfs"],
        containers: &["stop-a"],
        said: None,
        truth: Some((b'D', b"/opt/keep/keep.txt")),
        why: "the directory is opaque, docker exports it without the file, and yet does not list that",
    },
];

impl DockersError {
    fn is_of(&self, docker: &Docker, container: &str) -> bool {
        self.drivers.contains(&docker.driver) && self.containers.contains(&container)
    }

    fn said(&self) -> Option<Change> {
        self.said.map(|(letter, path)| (letter, path.into()))
    }

    fn truth(&self) -> Option<Change> {
        self.truth.map(|(letter, path)| (letter, path.into()))
    }
}

#[apply(test)]
fn changes_are_docker_diff_without_dockers_errors() {
    needs::time();
    for docker in dockers().iter() {
        for container in docker.diffed() {
            let mut said = docker.diff(container);
            for error in DOCKERS_ERRORS
                .iter()
                .filter(|error| error.is_of(docker, container))
            {
                if let Some(change) = error.said() {
                    said.remove(&change);
                }
                said.extend(error.truth());
            }
            docker.compare_changes(&["changes", container], &said);
        }
    }
}

pub fn change_of_row(row: &Value) -> Change {
    let letter = match text(row, "change") {
        "added" => b'A',
        "changed" => b'C',
        "deleted" => b'D',
        other => panic!("no change is {other:?}"),
    };
    (letter, bytes(&row["path"]))
}

#[apply(test)]
fn every_error_of_docker_that_is_named_was_seen() {
    needs::time();
    let dockers = dockers();
    for error in DOCKERS_ERRORS.iter().filter(|_| !dockers.is_empty()) {
        for (driver, container) in error
            .drivers
            .iter()
            .flat_map(|driver| error.containers.iter().map(move |name| (driver, name)))
        {
            let mut dockers = dockers.iter();
            let Some(docker) = dockers.find(|docker| docker.driver == *driver) else {
                // All are here, unless one is mounted.
                assert!(std::env::var_os(ON_BTRFS).is_some(), "no {driver}");
                continue;
            };
            let diff = docker.diff(container);
            let is_said = error.said().is_none_or(|change| diff.contains(&change));
            let is_true = error.truth().is_some_and(|change| diff.contains(&change));
            assert!(is_said && !is_true, "{driver} {container}: {}", error.why);
        }
    }
}

// ---- ls ----

/// A name of the merged view. The root's name is not one of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub kind: String,
    /// Mode, owner and group, unless something was mounted there.
    pub rights: Option<(u32, u64, u64)>,
    /// Of regular files, unless something was mounted there.
    pub size: Option<u64>,
    pub target: Option<Vec<u8>>,
}

pub type View = BTreeMap<Vec<u8>, Entry>;

/// What a running container has mounted over its root, and what is below that.
const MOUNTED_TREES: [&[u8]; 3] = [b"/proc", b"/sys", b"/dev"];
pub const MOUNTED_FILES: [&[u8]; 3] = [b"/etc/hosts", b"/etc/hostname", b"/etc/resolv.conf"];

/// A view as far as it can be told beside the mounts of a running container.
pub fn beside_mounts(view: View) -> View {
    let is_below = |path: &[u8], tree: &[u8]| {
        path.strip_prefix(tree)
            .is_some_and(|rest| rest.starts_with(b"/"))
    };
    let mut kept = view;
    kept.retain(|path, _| !MOUNTED_TREES.iter().any(|tree| is_below(path, tree)));
    for path in MOUNTED_TREES.iter().chain(&MOUNTED_FILES) {
        if let Some(entry) = kept.get_mut(*path) {
            entry.rights = None;
            entry.size = None;
        }
    }
    kept
}

/// What the engine's view holds, and the names that only its `readdir` gave (54).
pub fn seen(jsonl: &str) -> (View, BTreeSet<Vec<u8>>) {
    let rows: Vec<Value> = jsonl
        .lines()
        .map(|line| serde_json::from_str(line).expect("the capture wrote JSON"))
        .collect();
    let (mut view, mut ghosts) = (View::new(), BTreeSet::new());
    for row in &rows {
        let path = unescape(text(row, "path"));
        if row["readdir_only"] == true {
            ghosts.insert(path);
            continue;
        }
        let mode = u32::from_str_radix(text(row, "mode"), 8).expect("an octal mode");
        // An export tells the size of a hard link at the first of its names only.
        let size = match row.get("hardlink_to") {
            Some(first) => {
                let first = unescape(first.as_str().expect("a path"));
                view.get(&first).and_then(|first: &Entry| first.size)
            }
            None => row["size"].as_u64(),
        };
        let kind = kind_of_mode(mode);
        assert_eq!(size.is_some(), kind == "file", "{row}");
        let entry = Entry {
            kind: kind.into(),
            rights: Some((
                mode & 0o7777,
                row["uid"].as_u64().expect("a user"),
                row["gid"].as_u64().expect("a group"),
            )),
            size,
            target: row
                .get("link")
                .map(|link| unescape(link.as_str().expect("a path"))),
        };
        assert!(view.insert(path, entry).is_none(), "{row}");
    }
    (view, ghosts)
}

pub fn kind_of_mode(mode: u32) -> &'static str {
    match mode >> 12 {
        0o01 => "fifo",
        0o02 => "char",
        0o04 => "directory",
        0o06 => "block",
        0o10 => "file",
        0o12 => "symlink",
        other => panic!("no type is {other:o}"),
    }
}

/// `%e9` as the byte.
pub fn unescape(path: &str) -> Vec<u8> {
    let mut parts = path.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let (digits, rest) = part.split_at(2);
        bytes.push(u8::from_str_radix(digits, 16).expect("two hexadecimal digits"));
        bytes.extend_from_slice(rest.as_bytes());
    }
    bytes
}

pub fn entry_of_row(row: &Value) -> (Vec<u8>, Entry) {
    let kind = text(row, "type");
    let entry = Entry {
        kind: kind.into(),
        rights: Some((
            u32::from_str_radix(text(row, "mode"), 8).expect("an octal mode"),
            row["uid"].as_u64().expect("a user"),
            row["gid"].as_u64().expect("a group"),
        )),
        size: row["size"].as_u64().filter(|_| kind == "file"),
        target: row.get("link").map(bytes),
    };
    (bytes(&row["path"]), entry)
}

#[apply(test)]
fn the_view_is_what_docker_showed() {
    needs::time();
    for docker in dockers().iter() {
        for name in docker.named("merged-", ".jsonl") {
            let (engine, ghosts) = seen(docker.said(&format!("merged-{name}.jsonl")));
            let container = name.strip_prefix("export-").unwrap_or(name);
            let ask = ["ls", "-R", "-l", container];
            docker.compare_view(&ask, engine, &ghosts, container == name);
        }
    }
}

#[apply(test)]
fn the_captures_say_what_is_hard() {
    needs::time();
    let ghost = b"/srv/weird/notawhiteout".to_vec();
    for docker in dockers().iter() {
        let (stopped, _) = seen(docker.said("merged-export-stop-a.jsonl"));
        assert_eq!(stopped[&b"/root/big.sparse"[..]].size, Some(1 << 30));
        // 17: to drivers that copy this is a file like others.
        let device = stopped.get(&b"/root/whiteout"[..]);
        assert_eq!(
            device.map(|entry| entry.kind.as_str()),
            ["vfs", "btrfs"].contains(&docker.driver).then_some("char")
        );
        if docker.driver == "overlay2" {
            let (_, ghosts) = seen(docker.said("merged-clean-a.jsonl"));
            assert_eq!(ghosts, BTreeSet::from([ghost.clone()]));
        }
    }
}

// ---- containers, images, info ----

#[apply(test)]
fn containers_are_what_docker_inspects() {
    needs::time();
    for docker in dockers().iter() {
        let rows = docker.host.jsonl(["containers"]).exits(0).rows();
        let mut names = docker.named("inspect-", ".json");
        names.retain(|name| !name.starts_with("image-"));
        // `docker ps -a`, below its heading.
        assert_eq!(names.len(), docker.said("ps.txt").lines().count() - 1);
        assert_eq!(rows.len(), names.len());
        for name in names {
            let said = docker.inspected(name);
            let row = rows
                .iter()
                .find(|row| row["name"] == name)
                .unwrap_or_else(|| panic!("no {name}"));
            assert_eq!(row["id"], said["Id"]);
            assert_eq!(row["created"], said["Created"]);
            assert_eq!(row["driver"], docker.driver);
            if docker.was_stopped() && said["State"]["Running"] == true {
                assert_eq!(row["state"], "exited");
                assert_eq!(row["exit_code"], 128 + 9);
            } else {
                assert_eq!(row["state"], said["State"]["Status"]);
                assert_eq!(row["exit_code"], said["State"]["ExitCode"]);
            }
            assert_eq!(
                format!("sha256:{}", text(row, "image_id")),
                text(&said, "Image")
            );
        }
    }
}

/// Images with their names.
type Images = BTreeMap<String, BTreeSet<String>>;

#[apply(test)]
fn images_are_docker_images() {
    needs::time();
    for docker in dockers().iter() {
        let said = docker.listed_images();
        let rows = docker.host.jsonl(["images", "--all"]).exits(0).rows();
        let names_of = |row: &Value| {
            let tags = row["tags"].as_array().expect("tags");
            let tags = tags.iter().map(|tag| tag.as_str().expect("a tag").into());
            (text(row, "id").to_owned(), tags.collect())
        };
        let ours: Images = rows.iter().map(names_of).collect();
        assert_eq!(ours, said, "{}", docker.driver);

        for name in docker.named("inspect-image-", ".json") {
            let said = docker.inspected(&format!("image-{name}"));
            let row = rows
                .iter()
                .find(|row| format!("sha256:{}", text(row, "id")) == text(&said, "Id"))
                .unwrap_or_else(|| panic!("no {name}"));
            let layers = said["RootFS"]["Layers"].as_array().expect("layers");
            assert_eq!(row["layer_count"], layers.len(), "{} {name}", docker.driver);
            assert_eq!(row["size"], said["Size"], "{} {name}", docker.driver);
            assert_eq!(row["created"], said["Created"], "{} {name}", docker.driver);
            assert_eq!(row["driver"], docker.driver);
        }
    }
}

#[apply(test)]
fn info_is_the_storage_part_of_docker_info() {
    needs::time();
    for docker in dockers().iter() {
        let value = |name: &str| {
            let lines = docker.said("info.txt").lines();
            let mut lines = lines.filter_map(|line| line.trim().split_once(": "));
            lines.find(|(of, _)| *of == name).map(|(_, value)| value)
        };
        let row = docker.host.jsonl(["info"]).exits(0).row();
        let engine = &row["engines"][0];
        for (field, name) in [
            ("container_count", "Containers"),
            ("running_count", "Running"),
            ("paused_count", "Paused"),
            ("stopped_count", "Stopped"),
            ("image_count", "Images"),
        ] {
            let said = match name {
                "Running" | "Stopped" if docker.was_stopped() => {
                    let all = value("Containers").filter(|_| name == "Stopped");
                    all.unwrap_or("0")
                }
                _ => value(name).expect("docker counts them"),
            };
            assert_eq!(engine[field].to_string(), said, "{} {name}", docker.driver);
        }
        assert_eq!(value("Storage Driver"), Some(docker.driver));
        assert_eq!(engine["storage_driver"], docker.driver);
        assert_eq!(
            engine["root_dir"],
            format!("/var/lib/docker/{}", docker.driver)
        );
        // Docker says it of overlay2 only.
        if let Some(backing) = value("Backing Filesystem") {
            assert_eq!(engine["backing_filesystem"], backing);
        }
    }
}

// ---- btrfs ----

#[apply(test)]
fn the_same_is_true_of_a_mounted_btrfs() {
    // It is the other tests that are run there.
    needs::time();
    if std::env::var_os(ON_BTRFS).is_some() {
        return every_layer_is_a_file_system();
    }
    needs::root("to mount");
    let not_here = |why: &str| skip_everywhere(&format!("no btrfs is mounted: {}", why.trim()));
    let home = Host::empty();
    let image = home.at("/docker.img");
    archive::unpack_image("docker-btrfs", &image);
    let root = home.at("/host");
    home.dir("/host/var/lib/docker");
    // In a mount namespace of its own: whatever becomes of the tests, no mount outlives them.
    let mounted = || {
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--propagation", "private", "sh", "-c"])
            .arg(r#"mount -t btrfs -o loop,ro "$1" "$2" && shift 2 && exec "$@""#)
            .arg("sh")
            .arg(&image)
            .arg(root.join("var/lib/docker"));
        command
    };
    match mounted().arg("true").output() {
        Ok(output) if output.status.success() => {}
        Ok(output) => not_here(&String::from_utf8_lossy(&output.stderr)),
        Err(error) => not_here(&format!("unshare: {error}")),
    }
    let output = mounted()
        .arg(std::env::current_exe().expect("this program has a path"))
        .arg("docker_drivers::")
        .env(ON_BTRFS, &root)
        .output()
        .expect("unshare ran before");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "on a mounted btrfs:\n{said}");
    let counted = String::from_utf8_lossy(&output.stdout);
    assert!(
        !counted.contains(" 0 passed") && counted.contains(" 0 ignored"),
        "{counted}"
    );
}

/// What a copy of it would lack.
fn every_layer_is_a_file_system() {
    let docker = &dockers()[0];
    let subvolumes = docker.host.at("/var/lib/docker/btrfs/subvolumes");
    let device = |path: &Path| fs::metadata(path).expect("it is mounted").dev();
    let layers = fs::read_dir(&subvolumes).expect("it is mounted");
    let devices: BTreeSet<u64> = layers
        .map(|layer| device(&layer.expect("it is mounted").path()))
        .collect();
    let listed = docker.said("btrfs-subvolume-list.txt").lines().count();
    assert_eq!(devices.len(), listed);
    assert!(!devices.contains(&device(&subvolumes)));
}
