//! `du`: the parts add up to what a walk of the store finds, each is what its layers take, and
//! nothing is counted that lies elsewhere.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use walkdir::WalkDir;

use crate::lab::host::Host;
use crate::lab::laid::laid;
use crate::lab::run::{self, text};
use crate::lab::store::{DOCKER, docker_container, id, linked_layer};
use crate::lab::{again, archive, needs, skip, skip_everywhere, terminal};
use crate::whois::{self, Known, Store, captured, stores};

/// Set where a test runs again with a btrfs mounted: the root of the host that has it.
const ON_BTRFS: &str = "LAYERCTL_DU_ON_BTRFS";

/// Bytes on disk of a tree: blocks, hard links once.
pub fn size(at: &Path) -> u64 {
    let mut seen = HashSet::new();
    let mut bytes = 0;
    for entry in WalkDir::new(at) {
        let entry = entry.unwrap_or_else(|error| panic!("{error}"));
        let meta = entry.metadata().expect("our own");
        if meta.is_dir() || meta.nlink() < 2 || seen.insert((meta.dev(), meta.ino())) {
            bytes += meta.blocks() * 512;
        }
    }
    bytes
}

fn number(row: &Value, field: &str) -> u64 {
    row[field]
        .as_u64()
        .unwrap_or_else(|| panic!("no {field} in {row}"))
}

fn rows(host: &Host) -> Vec<Value> {
    host.jsonl(["du"]).exits(0).rows()
}

fn row<'a>(rows: &'a [Value], kind: &str) -> &'a Value {
    let mut of_kind = rows.iter().filter(|row| row["kind"] == kind);
    let found = of_kind.next();
    assert!(of_kind.next().is_none(), "several of {kind}");
    found.unwrap_or_else(|| panic!("no {kind}"))
}

#[track_caller]
fn adds_up(rows: &[Value]) -> u64 {
    let total = number(row(rows, "total"), "disk");
    let parts = rows.iter().filter(|row| row["kind"] != "total");
    let sum: u64 = parts.map(|row| number(row, "disk")).sum();
    assert_eq!(sum, total);
    total
}

/// All of the store that is a layer's, not only its content.
fn layer_size(store: &Store, layer: &Known) -> u64 {
    let parents = format!("{}/aufs/layers/{}", store.root, layer.id);
    let parents = fs::symlink_metadata(store.host.at(parents));
    size(&store.host.at(&layer.directory)) + parents.map_or(0, |meta| meta.blocks() * 512)
}

/// The sizes of the ten largest files of a layer's content.
fn largest(store: &Store, layer: &Known) -> Vec<u64> {
    let content = store.host.at(&layer.content);
    let files = WalkDir::new(content)
        .into_iter()
        .map(|of| of.expect("our own"));
    let files = files.filter(|of| of.file_type().is_file());
    let mut seen = HashSet::new();
    let mut sizes: Vec<u64> = files
        .map(|of| of.metadata().expect("our own"))
        .filter(|meta| seen.insert((meta.dev(), meta.ino())))
        .map(|meta| meta.blocks() * 512)
        .collect();
    sizes.sort_unstable_by(|a, b| b.cmp(a));
    sizes.retain(|size| *size > 0);
    sizes.truncate(10);
    sizes
}

/// Demands that the files are in the layer, and that they are its largest.
fn largest_are_right(store: &Store, layer: &Known, row: &Value) {
    let listed = row["largest"].as_array().cloned().unwrap_or_default();
    let mut sizes = Vec::new();
    for file in &listed {
        let size = number(file, "disk");
        let path = run::bytes(&file["path"]);
        let path = [layer.content.as_bytes(), &path].concat();
        let at = store.host.at(OsStr::from_bytes(&path));
        let meta = fs::symlink_metadata(&at).unwrap_or_else(|error| panic!("{file}: {error}"));
        assert_eq!(meta.blocks() * 512, size, "{file}");
        sizes.push(size);
    }
    sizes.retain(|size| *size > 0);
    let right = largest(store, layer);
    assert_eq!(sizes, right, "{} {}: {row}", store.name, layer.id);
}

/// What is wrong in the rows of a store.
fn is_right(store: &Store) {
    store.host.settle();
    let rows = rows(&store.host);
    assert_eq!(
        adds_up(&rows),
        size(&store.host.at(store.root)),
        "{}",
        store.name
    );
    for row in &rows {
        assert_eq!(row["engine"], store.engine, "{row}");
        assert_eq!(row["store"], store.root, "{row}");
    }
    let of_kind = |kind: &str| -> BTreeMap<&str, &Value> {
        let rows = rows.iter().filter(|row| row["kind"] == kind);
        rows.map(|row| (text(row, "id"), row)).collect()
    };
    let containers = of_kind("container");
    let mut known: BTreeMap<&str, u64> = BTreeMap::new();
    for layer in &store.layers {
        for id in layer.containers.keys() {
            *known.entry(id).or_default() += layer_size(store, layer);
        }
    }
    let mut files = BTreeSet::new();
    for parent in [
        "containers",
        "overlay-containers",
        "vfs-containers",
        "io.containerd.grpc.v1.cri/containers",
        "io.containerd.grpc.v1.cri/sandboxes",
    ] {
        for id in store.list(&format!("{}/{parent}", store.root)) {
            let at = store.host.at(format!("{}/{parent}/{id}", store.root));
            if let Some(known) = known.get_mut(id.as_str()).filter(|_| at.is_dir()) {
                *known += size(&at);
                files.insert((id, size(&at)));
            }
        }
    }
    assert_eq!(
        containers.keys().copied().collect::<Vec<_>>(),
        known.keys().copied().collect::<Vec<_>>(),
        "{}",
        store.name
    );
    for (id, row) in &containers {
        assert_eq!(number(row, "disk"), known[id], "{}: {row}", store.name);
    }
    for (id, size) in files {
        assert_eq!(number(containers[id.as_str()], "files"), size, "{id}");
    }
    // An image that another was built on is no image of its own.
    let images = of_kind("image");
    let (mut unique, mut shared) = (BTreeMap::<&str, u64>::new(), BTreeMap::<&str, u64>::new());
    let mut of_several = 0;
    for layer in store.layers.iter().filter(|of| of.kind == "image") {
        let users = layer.images.iter().map(|(id, ..)| id.as_str());
        let users: BTreeSet<&str> = users.filter(|id| images.contains_key(id)).collect();
        let size = layer_size(store, layer);
        let into = if users.len() == 1 {
            &mut unique
        } else {
            &mut shared
        };
        for user in &users {
            *into.entry(user).or_default() += size;
        }
        of_several += if users.len() == 1 { 0 } else { size };
    }
    for (id, row) in &images {
        let of = |sizes: &BTreeMap<&str, u64>| sizes.get(id).copied().unwrap_or_default();
        assert_eq!(number(row, "disk"), of(&unique), "{}: {row}", store.name);
        assert_eq!(number(row, "shared"), of(&shared), "{}: {row}", store.name);
    }
    for (id, tags) in &store.tags {
        assert!(
            tags.is_empty() || images.contains_key(id.as_str()),
            "{}: {id}",
            store.name
        );
    }
    assert_eq!(
        number(row(&rows, "shared"), "disk"),
        of_several,
        "{}",
        store.name
    );
    let unused = store
        .layers
        .iter()
        .filter(|of| ["unused", ""].contains(&of.kind));
    let unused: u64 = unused.map(|of| layer_size(store, of)).sum();
    assert_eq!(
        number(row(&rows, "unused"), "disk"),
        unused,
        "{}",
        store.name
    );
    let at = store.host.at(format!("{}/buildkit", store.root));
    let cache = if at.exists() { size(&at) } else { 0 };
    assert_eq!(number(row(&rows, "build-cache"), "disk"), cache);
    let volumes = format!("{}/volumes", store.root);
    let mut shown = BTreeSet::new();
    for row in rows.iter().filter(|row| row["kind"] == "volume") {
        let name = text(row, "name");
        let at = store.host.at(format!("{volumes}/{name}"));
        assert_eq!(number(row, "disk"), size(&at), "{}: {row}", store.name);
        shown.insert(name.to_owned());
    }
    let of_volumes = if store.host.at(&volumes).is_dir() {
        store.list(&volumes)
    } else {
        Vec::new()
    };
    let named = of_volumes.into_iter().filter(|name| {
        let at = store.host.at(format!("{volumes}/{name}"));
        at.is_dir()
    });
    assert_eq!(shown, named.collect(), "{}", store.name);
    let disks: Vec<u64> = rows.iter().map(|row| number(row, "disk")).collect();
    let (total, parts) = disks.split_last().expect("rows");
    assert!(parts.is_sorted_by(|a, b| a >= b), "{}", store.name);
    assert!(total >= &parts[0]);
    assert_eq!(rows.last().expect("rows")["kind"], "total");
}

#[apply(test)]
fn the_parts_add_up() {
    needs::time();
    // Those of the others are looked at one by one, too.
    for store in stores().iter().filter(|of| of.name == "docker-29") {
        store.host.settle();
        let rows = rows(&store.host);
        assert_eq!(
            adds_up(&rows),
            size(&store.host.at(store.root)),
            "{}",
            store.name
        );
    }
    let host = Host::captured("aufs-plain-01-mounted");
    assert_eq!(rows(&host), Vec::<Value>::new());
}

#[apply(test)]
fn each_part_is_right() {
    needs::time();
    for store in stores().iter().filter(|of| of.name != "docker-29") {
        is_right(store);
    }
}

#[apply(test)]
fn dockers_snapshots_are_counted_as_layers() {
    needs::time();
    for store in stores().iter().filter(|of| of.name == "docker-29") {
        is_right(store);
    }
}

#[apply(test)]
fn the_largest_files_of_a_container_are_shown() {
    needs::time();
    let is_small = |of: &&Store| {
        [
            "docker-fuse-overlayfs",
            "docker-vfs",
            "containerd-overlayfs",
        ]
        .contains(&of.name)
    };
    for store in stores().iter().filter(is_small) {
        let rows = rows(&store.host);
        for layer in store.layers.iter().filter(|of| of.kind == "container") {
            let (id, _) = layer.containers.first_key_value().expect("one");
            let row = rows.iter().find(|row| row["id"] == id.as_str());
            largest_are_right(store, layer, row.expect("its row"));
        }
    }
}

#[apply(test)]
fn the_layers_of_a_target() {
    needs::time();
    for store in stores().iter().filter(|of| {
        [
            "docker-fuse-overlayfs",
            "docker-aufs-webapp",
            "podman-vfs",
            "containerd-overlayfs",
        ]
        .contains(&of.name)
    }) {
        let container = store.layers.iter().find(|of| of.kind == "container");
        let (container, _) = container
            .expect("one")
            .containers
            .first_key_value()
            .expect("one");
        let tagged = store
            .tags
            .iter()
            .find_map(|(id, tags)| Some((id, tags.first()?)));
        let (image, tag) = tagged.expect("an image with a name");
        for (target, is_container) in [(container, true), (tag, false)] {
            let rows = store.host.jsonl(["du", target]).exits(0).rows();
            // Each layer of vfs holds all.
            assert!(
                rows.len() > 1 || store.name == "podman-vfs",
                "{}: {target}",
                store.name
            );
            let mut shown = BTreeSet::new();
            for row in &rows {
                if row["kind"] != "layer" {
                    continue;
                }
                let layer = store.layers.iter().find(|of| row["id"] == of.id.as_str());
                let layer = layer.unwrap_or_else(|| panic!("{}: {row}", store.name));
                let is_below = is_container && row["shared"].is_u64();
                let field = if is_below { "shared" } else { "disk" };
                assert_eq!(number(row, field), layer_size(store, layer), "{row}");
                shown.insert(&layer.id);
            }
            // All of it is what plain du says of it.
            let sum = adds_up(&rows);
            let plain = self::rows(&store.host);
            let own = plain.iter().find(|row| row["id"] == container.as_str());
            if is_container {
                assert_eq!(number(own.expect("its row"), "disk"), sum, "{}", store.name);
                // Logs of containerd's are where its clients want them.
                let logs = usize::from(store.engine != "containerd");
                let shown = rows.iter().filter(|row| row["kind"] == "log");
                assert_eq!(shown.count(), logs, "{}", store.name);
            }
            if !is_container {
                let own = store
                    .layers
                    .iter()
                    .filter(|of| of.images.iter().any(|(id, ..)| id == image));
                let own: BTreeSet<&String> = own.map(|of| &of.id).collect();
                // The same image in two namespaces has two stacks.
                assert!(shown.is_subset(&own), "{}: {target}", store.name);
                let count = own.len();
                assert!(
                    shown.len() == count || store.engine == "containerd",
                    "{target}"
                );
            } else {
                let first = rows.iter().find(|row| row["kind"] == "layer");
                assert_eq!(text(first.expect("one"), "id"), {
                    let own = store
                        .layers
                        .iter()
                        .find(|of| of.kind == "container" && of.containers.contains_key(container));
                    own.expect("its layer").id.as_str()
                });
            }
        }
        store.host.jsonl(["du", "nothing-of-the-kind"]).exits(2);
    }
}

#[apply(test)]
fn blocks_are_counted_once() {
    needs::captured_hosts();
    let store = captured("docker-vfs");
    let before = adds_up(&rows(&store.host));
    let layer = store
        .layers
        .iter()
        .find(|of| of.kind == "container")
        .expect("one");
    let at = store.host.at(&layer.directory);
    // A gigabyte that takes 64 KiB.
    let sparse = File::create(at.join("sparse")).expect("our own");
    sparse.set_len(1 << 30).expect("a hole");
    sparse
        .write_all_at(&[1; 1 << 16], 1 << 29)
        .expect("our own");
    sparse.sync_all().expect("our own");
    fs::write(at.join("one"), vec![1; 1 << 15]).expect("our own");
    File::open(at.join("one"))
        .and_then(|file| file.sync_all())
        .expect("our own");
    fs::hard_link(at.join("one"), at.join("two")).expect("our own");
    let rows = rows(&store.host);
    let after = adds_up(&rows);
    assert_eq!(after, size(&store.host.at(store.root)));
    assert!(
        (96 << 10..1 << 20).contains(&(after - before)),
        "{before} {after}"
    );
    let (id, _) = layer.containers.first_key_value().expect("one");
    let row = rows
        .iter()
        .find(|row| row["id"] == id.as_str())
        .expect("its row");
    assert_eq!(row["largest"][0]["path"], "/sparse", "{row}");
    largest_are_right(&store, layer, row);
}

/// A mount namespace of its own: whatever becomes of the tests, no mount outlives them.
fn alone(script: &str) -> Command {
    let mut command = Command::new("unshare");
    command
        .args([
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-ec",
            script,
            "sh",
        ])
        .env("TZ", "UTC");
    command
}

#[apply(test)]
fn what_is_mounted_in_the_store_lies_elsewhere() {
    needs::captured_hosts();
    let store = captured("docker-fuse-overlayfs");
    let layer = store
        .layers
        .iter()
        .find(|of| of.kind == "container")
        .expect("one");
    let merged = format!("{}/merged", layer.directory);
    let volume = format!("{}/volumes/data", store.root);
    // Where nothing is mounted, what lies in a union's mount point is on the disk.
    let in_merged = store.host.at(&merged);
    store.host.dir(&merged).dir(&volume).dir("/elsewhere");
    store.host.file("/elsewhere/big", vec![1; 1 << 16]);
    let before = adds_up(&rows(&store.host));
    store
        .host
        .file(format!("{merged}/is/counted"), vec![1; 1 << 16]);
    assert!(adds_up(&rows(&store.host)) > before + (1 << 16));
    fs::remove_dir_all(in_merged.join("is")).expect("our own");
    let points = [store.host.at(&merged), store.host.at(&volume)];
    let hidden: u64 = points.iter().map(|at| size(at)).sum();
    let script = r#"mount --bind "$1" "$2"; mount -t tmpfs none "$3"; dd if=/dev/zero of="$3/file" bs=64k count=1 2>/dev/null; shift 3; exec "$@""#;
    let output = run::run(
        alone(script)
            .arg(store.host.at("/elsewhere"))
            .args(&points)
            .arg(env!("CARGO_BIN_EXE_layerctl"))
            .args(run::jsonl(&store.host.root, ["du"])),
    );
    if output.stderr.contains("unshare:") || output.stderr.contains("mount:") {
        skip(&format!("nothing can be mounted: {}", output.stderr));
    }
    let rows = output.exits(0).rows();
    assert_eq!(adds_up(&rows), before - hidden);
}

#[apply(test)]
fn the_subvolumes_of_a_btrfs_are_walked() {
    if let Some(root) = std::env::var_os(ON_BTRFS) {
        let store = whois::existing("docker-btrfs", Host::existing(Path::new(&root)));
        return is_right(&store);
    }
    needs::root("to mount");
    let home = Host::empty();
    let image: PathBuf = home.at("/docker.img");
    archive::unpack_image("docker-btrfs", &image);
    home.dir("/host/var/lib/docker");
    let root = home.at("/host");
    let mounted = || {
        let mut command = alone(r#"mount -t btrfs -o loop,ro "$1" "$2"; shift 2; exec "$@""#);
        command.arg(&image).arg(root.join("var/lib/docker"));
        command
    };
    let tried = mounted().arg("true").output();
    if !tried.is_ok_and(|tried| tried.status.success()) {
        skip_everywhere("no btrfs can be mounted");
    }
    again(mounted().env(ON_BTRFS, &root));
}

/// Whether a process handles SIGINT itself.
fn handles_interrupts(process: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let caught = caught.and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok());
    caught.is_some_and(|set| set & 2 != 0)
}

/// Whether it reads directories below `store`.
fn walks(process: u32, store: &Path) -> bool {
    let open = fs::read_dir(format!("/proc/{process}/fd"))
        .into_iter()
        .flatten();
    let open = open.filter_map(|of| fs::read_link(of.ok()?.path()).ok());
    open.into_iter().any(|path| path.starts_with(store))
}

/// What it leaves that is interrupted while it walks `walked`; nothing if it was done before.
fn interrupted(host: &Host, walked: &Path, format: &str) -> Option<std::process::Output> {
    let mut child = run::command()
        .arg("--root")
        .arg(&host.root)
        .args(["--format", format, "du"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("layerctl was built");
    let process = child.id();
    while !(handles_interrupts(process) && walks(process, walked)) {
        if child.try_wait().expect("our child").is_some() {
            return None;
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    let pid = Pid::from_raw(i32::try_from(process).expect("a process")).expect("a process");
    kill_process(pid, Signal::INT).expect("our child");
    let output = child.wait_with_output().expect("our child");
    (output.status.code() == Some(2)).then_some(output)
}

#[apply(test)]
fn an_interrupt_leaves_a_part() {
    needs::time();
    let host = Host::empty();
    let store = "/var/lib/docker";
    host.file(format!("{store}/engine-id"), "one");
    host.dir(format!("{store}/containers"));
    host.dir(format!("{store}/overlay2"));
    host.dir(format!("{store}/image/overlay2/layerdb"));
    for part in 0..40 {
        for below in 0..250 {
            host.dir(format!("{store}/volumes/{part}/{below}"));
        }
    }
    let whole = rows(&host);
    // A busy machine may let it end before it was seen at work.
    let walked = host.at(format!("{store}/volumes"));
    let interrupted = |format| {
        let output = (0..100).find_map(|_| interrupted(&host, &walked, format));
        output.expect("it is seen at work")
    };
    let output = interrupted("jsonl");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("part"), "{said}");
    // Nothing but the words: a spinner is for a terminal.
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(!said.contains('\r') && !said.contains('\u{1b}'), "{said:?}");
    let rows: Vec<Value> = String::from_utf8(output.stdout)
        .expect("UTF-8")
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let total = number(row(&rows, "total"), "disk");
    assert!(total < adds_up(&whole), "all was walked");
    // What was not reached is not said to be nothing, and the table has a dash for it.
    assert!(rows.iter().any(|row| row["disk"].is_null()), "{rows:?}");
    let table = String::from_utf8(interrupted("table").stdout).expect("UTF-8");
    let mut lines = table.lines().map(|line| line.split_whitespace().nth(1));
    assert!(lines.any(|size| size == Some("-")), "{table}");
    assert!(!table.contains("unknown"), "{table}");
}

#[apply(test)]
fn volumes_are_told_by_name_with_who_uses_them() {
    needs::captured_hosts();
    let host = Host::captured("docker-28-overlay2");
    let rows = rows(&host);
    let volume = rows.iter().find(|row| row["name"] == "datavol");
    let volume = volume.expect("its row");
    assert_eq!(volume["kind"], "volume");
    assert_eq!(volume["containers"][0]["name"], "web-1", "{volume}");
    let web = rows.iter().find(|row| row["name"] == "web-1");
    assert_eq!(web.expect("its row")["target"], "docker:web-1");
    let output = host.ask(["du"]).exits(0);
    assert!(output.text().contains("USED BY"), "{}", output.text());
    // A limit on what is shown leaves the sum as it is.
    let few = host.jsonl(["du", "-n", "2"]).exits(0).rows();
    assert_eq!(few.len(), 3, "{few:?}");
    assert_eq!(few[..2], rows[..2]);
    assert_eq!(few[2], rows[rows.len() - 1]);

    let podman = Host::captured("podman-5.8-overlay");
    let rows = self::rows(&podman);
    let volume = rows.iter().find(|row| row["name"] == "datavol");
    let users = &volume.expect("its row")["containers"];
    assert!(users.as_array().is_some_and(|of| of.len() == 1), "{users}");
}

#[apply(test)]
fn a_namespace_is_named_before_and_behind_the_verb() {
    needs::captured_hosts();
    let host = Host::captured("containerd-overlayfs");
    let before = ["--namespace", "k8s.io", "du", "--largest", "3"];
    let before = host.jsonl(before).exits(0).rows();
    let behind = ["du", "-n", "3", "--namespace", "k8s.io"];
    assert_eq!(before, host.jsonl(behind).exits(0).rows());
    assert_eq!(before.len(), 4);
    let all = host.jsonl(["du"]).exits(0).rows();
    let containers = |rows: &[Value]| {
        let containers = rows.iter().filter(|row| row["kind"] == "container");
        containers.count()
    };
    let own = host.jsonl(["du", "--namespace", "k8s.io"]).exits(0).rows();
    assert!(containers(&own) < containers(&all), "{own:?}");
}

#[apply(test)]
fn a_layer_whose_directory_is_missing_is_said() {
    needs::captured_hosts();
    let host = Host::captured("docker-28-overlay2");
    let branches = host.branches_of("web-1");
    let lowest = OsStr::from_bytes(branches.last().expect("one"));
    fs::remove_dir_all(host.at(lowest)).expect("our own");
    for arguments in [&["du"][..], &["du", "web-1"], &["du", "lab/web:2"]] {
        host.ask(arguments).exits(2).says("is missing");
    }
}

#[apply(test)]
fn what_an_image_wastes() {
    needs::captured_hosts();
    let host = Host::captured("docker-28-overlay2");
    let rows = host.jsonl(["branches", "lab/web:2"]).exits(0).row();
    let branches = rows["branches"].as_array().expect("branches").clone();
    let layers = host.branches_of("lab/web:2");
    let at = |layer: usize, path: &str| {
        let layer = host.at(OsStr::from_bytes(&layers[layer]));
        layer.join(path)
    };
    let layer_of = |path: &str| {
        let mut having = (0..layers.len()).filter(|layer| at(*layer, path).exists());
        (having.next().expect("one"), having.next())
    };
    // One that is deleted, one whose mode is changed later, one that is written again.
    let (deleted, _) = layer_of("data/d3/deep/er/f");
    fs::write(at(deleted, "data/d3/deep/er/f"), vec![1; 600 << 10]).expect("our own");
    let (changed, Some(original)) = layer_of("opt/app/7") else {
        panic!("it was copied")
    };
    let time = fs::metadata(at(original, "opt/app/7")).expect("it is there");
    for layer in [changed, original] {
        let file = at(layer, "opt/app/7");
        fs::write(&file, vec![2; 500 << 10]).expect("our own");
        let file = File::options().write(true).open(file).expect("our own");
        file.set_modified(time.modified().expect("a time"))
            .expect("our own");
    }
    let (again, Some(written)) = layer_of("data/d1/f9") else {
        panic!("it was written again")
    };
    fs::write(at(written, "data/d1/f9"), vec![3; 400 << 10]).expect("our own");
    // A file with two names of which one is seen is none.
    fs::hard_link(at(written, "data/d1/f8"), at(written, "data/d3/deep/er/g")).expect("our own");
    rustix::fs::sync();

    let rows = host.jsonl(["du", "lab/web:2"]).exits(0).rows();
    let mut sums: BTreeMap<usize, u64> = BTreeMap::new();
    let mut files: BTreeMap<PathBuf, u64> = BTreeMap::new();
    for of in laid(&host, &layers).hidden {
        if of.meta.is_file() && !of.path.ends_with("d3/deep/er/g") {
            let disk = of.meta.blocks() * 512;
            *sums.entry(of.layer).or_default() += disk;
            *files.entry(of.path).or_default() += disk;
        }
    }
    let id = |layer: usize| &branches[layer]["layer"];
    for (layer, branch) in branches.iter().enumerate() {
        let row = rows.iter().find(|row| row["id"] == branch["layer"]);
        let row = row.unwrap_or_else(|| panic!("no {branch}"));
        let right = sums.get(&layer).copied().unwrap_or_default();
        assert_eq!(number(row, "wasted"), right, "{row}");
        assert_eq!(row["instruction"], branch["instruction"], "{row}");
        assert!(number(row, "disk") >= right, "{row}");
    }
    let total = row(&rows, "total");
    assert_eq!(number(total, "wasted"), sums.values().sum::<u64>());
    let told = total["wasted_files"].as_array().expect("files");
    assert_eq!(told.len(), 10);
    for file in told {
        let path = PathBuf::from(OsStr::from_bytes(&run::bytes(&file["path"])[1..]));
        assert_eq!(number(file, "disk"), files[&path], "{file}");
    }
    let largest = [
        ("/data/d3/deep/er/f", "deleted", deleted, None),
        ("/opt/app/7", "mode-change", original, Some(changed)),
        ("/data/d1/f9", "overwritten", written, Some(again)),
    ];
    for ((path, why, layer, by), file) in largest.into_iter().zip(told) {
        assert_eq!((text(file, "path"), text(file, "why")), (path, why));
        assert_eq!(&file["layer"], id(layer), "{file}");
        if let Some(by) = by {
            assert_eq!(&file["hidden_by_layer"], id(by), "{file}");
        }
    }
    // Biggest first, and one screen of it for a person.
    let disks: Vec<u64> = rows.iter().map(|row| number(row, "disk")).collect();
    assert!(disks[..disks.len() - 1].is_sorted_by(|a, b| a >= b));
    let shown = host.ask(["du", "-n", "3", "lab/web:2"]).exits(0);
    assert!(shown.text().lines().count() <= 24, "{}", shown.text());
    for word in [
        "WASTED",
        "INSTRUCTION",
        "mode change",
        "deleted",
        "ADD root.tar",
    ] {
        assert!(shown.text().contains(word), "{word}: {}", shown.text());
    }
}

#[apply(test)]
fn a_bar_is_for_a_terminal() {
    let store = Host::empty();
    docker_container(&store, "web", '1', '2');
    store.file(
        format!("{DOCKER}/overlay2/{}/diff/big", id('2')),
        vec![1; 1 << 20],
    );
    let root = store.root.as_os_str();
    let words = [OsStr::new("--root"), root, OsStr::new("du")];
    let (status, shown) = terminal::run(words);
    assert_eq!(status, Some(0), "{shown}");
    let bars: Vec<(&str, usize)> = shown
        .lines()
        .map(|line| (line, line.matches('\u{2588}').count()))
        .filter(|(_, bar)| *bar > 0)
        .collect();
    assert_eq!(bars.len(), 1, "{shown}");
    assert!(
        bars[0].0.contains("container") && bars[0].1 == 10,
        "{shown}"
    );
    let piped = store.ask(["du"]).exits(0);
    assert!(!piped.text().contains('\u{2588}'));
}

/// A log of a container that outgrows its layer is the first thing that is seen.
#[apply(test)]
fn a_log_is_in_its_containers_size() {
    let store = Host::empty();
    docker_container(&store, "web", '1', '2');
    docker_container(&store, "idle", '3', '4');
    let home = format!("{DOCKER}/overlay2");
    linked_layer(&store, &home, 'b', &[]);
    for own in ['2', '4'] {
        linked_layer(&store, &home, own, &['b']);
    }
    let log = format!("{DOCKER}/containers/{0}/{0}-json.log", id('1'));
    store.file(&log, vec![b'l'; 1 << 20]);
    let rows = store.jsonl(["du"]).exits(0).rows();
    assert_eq!(rows[0]["target"], "docker:web", "{rows:?}");
    let logs = number(&rows[0], "logs");
    assert!((1 << 20..2 << 20).contains(&logs), "{logs}");
    let shown = store.ask(["du"]).exits(0);
    let line = shown.text().lines().find(|line| line.contains(&log));
    assert!(
        line.is_some_and(|line| line.contains("log ")),
        "{}",
        shown.text()
    );
    let own = store.jsonl(["du", "web"]).exits(0).rows();
    assert_eq!(number(row(&own, "log"), "disk"), logs);
    assert_eq!(adds_up(&own), number(&rows[0], "disk"));
}
