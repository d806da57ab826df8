//! containerd: captured hosts of a real containerd 1.6, with `ctr`'s containers on overlayfs and
//! native snapshots and with Kubernetes' pods, and Docker 29's layout as a real containerd wrote
//! it under the names that Docker gives. What the engine said there is what layerctl has to say.
//! Numbers are those of FACTS-engines.
//!
//! containerd's own differ was never wrong on these hosts: an independent reading of the same
//! files had the same views and the same changes. Like docker's, it does not say that nothing but
//! a `user.*` attribute changed (35).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::Arc;

use rustix::fs::lgetxattr;
use serde_json::Value;

use crate::docker_drivers::{Change, View, seen, unescape};
use crate::lab::captured::{Captured, Shared};
use crate::lab::host::directories;
use crate::lab::run::{self, bytes, text, texts};
use crate::lab::{needs, table};

const ROOT: &str = "/var/lib/containerd";
const TASKS: &str = "/run/containerd/io.containerd.runtime.v2.task";

/// A container, and what the names of the truth's files begin and end with.
struct Record {
    namespace: String,
    id: String,
    /// `ctr containers info`.
    info: Value,
}

struct Hosts {
    /// `ctr` only, on overlayfs. The views of what runs were taken inside, where `/proc` is mounted.
    overlayfs: Captured,
    /// Pods, and `ctr` on native snapshots.
    kubernetes: Captured,
    docker: Captured,
}

/// The captured hosts, which tests that run at one time share.
fn hosts() -> Arc<Hosts> {
    static SHARED: Shared<Hosts> = Shared::new();
    needs::captured_hosts();
    SHARED.get(|| Hosts {
        overlayfs: Captured::new("containerd-overlayfs"),
        kubernetes: Captured::new("containerd-kubernetes"),
        docker: Captured::new("docker-29"),
    })
}

impl Hosts {
    fn containerds(&self) -> [&Captured; 2] {
        [&self.overlayfs, &self.kubernetes]
    }
}

impl Captured {
    /// Some columns of a table that `ctr` printed.
    fn columns<const N: usize>(&self, file: &str, names: [&str; N]) -> Vec<[String; N]> {
        let rows = table::columns(self.said(file), &names).into_iter();
        rows.map(|row| row.try_into().expect("as many columns as asked for"))
            .collect()
    }

    fn namespaces(&self) -> Vec<String> {
        let rows = self.columns("namespaces.txt", ["NAME"]).into_iter();
        rows.map(|[name]| name).collect()
    }

    fn records(&self) -> Vec<Record> {
        let of = |namespace: &String| {
            let listed = self.columns(&format!("{namespace}-containers.txt"), ["CONTAINER"]);
            let records = listed.into_iter().map(|[id]| Record {
                info: self.json(&format!("{namespace}-info-{id}.json")),
                namespace: namespace.clone(),
                id,
            });
            records.collect::<Vec<_>>()
        };
        self.namespaces().iter().flat_map(of).collect()
    }

    /// The containers with a task that runs, and its process.
    fn tasks(&self, namespace: &str) -> BTreeMap<String, String> {
        let file = format!("{namespace}-tasks.txt");
        let tasks = self.columns(&file, ["TASK", "PID", "STATUS"]).into_iter();
        let running = tasks.filter(|[_, _, status]| status == "RUNNING");
        running.map(|[task, process, _]| (task, process)).collect()
    }

    /// The directories of what `ctr snapshots mounts` would mount, topmost first.
    fn mounts(&self, what: &str) -> Vec<Vec<u8>> {
        directories_of_mount(self.said(&format!("{what}.txt")))
    }

    /// Everything that the engine showed, and nothing that only its `readdir` gave (54).
    pub fn view(&self, what: &str) -> View {
        let (view, ghosts) = seen(self.said(&format!("{what}.jsonl")));
        assert!(ghosts.is_empty(), "{} {what}", self.name);
        view
    }

    /// What the differ said of a container over what `below` shows, as `docker diff` puts it.
    pub fn differ(&self, what: &str, below: &View) -> BTreeSet<Change> {
        let lines = self.said(&format!("{what}.jsonl")).lines();
        lines
            .map(|line| {
                let row: Value = serde_json::from_str(line).expect("the capture wrote JSON");
                let path = unescape(text(&row, "path"));
                match deleted(&path) {
                    Some(path) => (b'D', path),
                    None if below.contains_key(&path) => (b'C', path),
                    None => (b'A', path),
                }
            })
            .collect()
    }

    /// A blob of the content store that is JSON.
    fn blob(&self, root: &str, digest: &str) -> Value {
        let digest = digest.replace(':', "/");
        let path = format!("{root}/io.containerd.content.v1.content/blobs/{digest}");
        serde_json::from_slice(&self.host.read(path)).expect("a JSON document")
    }

    /// The configuration behind an image's target.
    fn config(&self, root: &str, target: &str) -> Value {
        let mut manifest = self.blob(root, target);
        if let Some(manifests) = manifest["manifests"].as_array() {
            // What is not for a platform is not to be run.
            let mut manifests = manifests.iter();
            let found = manifests.find(|one| one["platform"]["os"] != "unknown");
            let digest = text(found.expect("one for this platform"), "digest");
            manifest = self.blob(root, digest);
        }
        self.blob(root, text(&manifest["config"], "digest"))
    }

    fn branches(&self, namespace: &str, target: &str) -> Value {
        let ask = ["-n", namespace, "branches", target];
        self.host.jsonl(ask).exits(0).row()
    }
}

impl Record {
    /// The name of a file of the truth.
    fn file(&self, what: &str) -> String {
        format!("{}-{what}-{}", self.namespace, self.id)
    }

    fn image(&self) -> &str {
        text(&self.info, "Image")
    }

    fn snapshotter(&self) -> &str {
        text(&self.info, "Snapshotter")
    }

    fn label(&self, name: &str) -> Option<&str> {
        self.info["Labels"][name].as_str()
    }

    /// What Kubernetes calls it.
    fn pod_name(&self) -> Option<String> {
        let pod = self.label("io.kubernetes.pod.name")?;
        let container = self.label("io.kubernetes.container.name")?;
        Some(format!("{pod}/{container}"))
    }
}

/// `DIR/.wh.NAME` as `DIR/NAME`.
fn deleted(path: &[u8]) -> Option<Vec<u8>> {
    let slash = path.iter().rposition(|&byte| byte == b'/')?;
    let (directory, name) = path.split_at(slash + 1);
    let name = name.strip_prefix(b".wh.")?;
    Some([directory, name].concat())
}

/// `mount -t overlay overlay /X -o OPTIONS`, or `mount -t bind DIR /X -o OPTIONS`.
fn directories_of_mount(line: &str) -> Vec<Vec<u8>> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let ["mount", "-t", kind, source, _, "-o", options] = words[..] else {
        panic!("{line}");
    };
    if kind == "bind" {
        return vec![source.into()];
    }
    overlay_directories(options)
}

/// The directories in an overlay's options, topmost first.
fn overlay_directories(options: &str) -> Vec<Vec<u8>> {
    let option = |name: &str| {
        let mut options = options.split(',');
        let value = options.find_map(|option| option.strip_prefix(name)?.strip_prefix('='));
        value.unwrap_or_else(|| panic!("no {name} in {options:?}"))
    };
    std::iter::once(option("upperdir"))
        .chain(option("lowerdir").split(':'))
        .map(|directory| directory.into())
        .collect()
}

#[apply(test)]
fn the_differ_deletes_by_name() {
    assert_eq!(deleted(b"/a/.wh.b"), Some(b"/a/b".to_vec()));
    assert_eq!(deleted(b"/.wh.b"), Some(b"/b".to_vec()));
    assert_eq!(deleted(b"/.wh.a/b"), None);
}

// ---- containers ----

#[apply(test)]
fn containers_are_what_ctr_lists() {
    let hosts = hosts();
    for containerd in hosts.containerds() {
        for namespace in containerd.namespaces() {
            let ask = ["-n", &namespace, "containers"];
            let rows = containerd.host.jsonl(ask).exits(0).rows();
            let ours: BTreeSet<[String; 2]> = rows
                .iter()
                .map(|row| ["id", "image"].map(|field| text(row, field).to_owned()))
                .collect();
            let file = format!("{namespace}-containers.txt");
            let said = containerd.columns(&file, ["CONTAINER", "IMAGE"]);
            assert_eq!(rows.len(), said.len(), "{namespace}");
            assert_eq!(ours, said.into_iter().collect(), "{namespace}");
        }
    }
}

#[apply(test)]
fn without_a_namespace_all_are_listed() {
    let hosts = hosts();
    for containerd in hosts.containerds() {
        let rows = containerd.host.jsonl(["containers"]).exits(0).rows();
        let records = containerd.records();
        assert_eq!(rows.len(), records.len());
        for record in records {
            let row = rows
                .iter()
                .find(|row| row["id"] == *record.id && row["namespace"] == *record.namespace)
                .unwrap_or_else(|| panic!("no {} in {}", record.id, record.namespace));
            assert_eq!(row["engine"], "containerd");
            assert_eq!(row["image"], record.image());
            assert_eq!(row["driver"], record.snapshotter());
            assert_eq!(row["created"], record.info["CreatedAt"]);
            assert_eq!(row["command"], command(&record.info["Spec"]));
            match record.label("nerdctl/name") {
                Some(name) => assert_eq!(row["name"], name),
                None if record.label("io.cri-containerd.kind").is_none() => {
                    assert_eq!(row["name"], *record.id);
                }
                None => {}
            }
        }
    }
}

/// As `docker ps` has it.
fn command(spec: &Value) -> String {
    let arguments = spec["process"]["args"].as_array().expect("arguments");
    let words = arguments.iter().map(|argument| {
        let argument = argument.as_str().expect("text");
        if argument.contains(' ') {
            format!("'{argument}'")
        } else {
            argument.to_owned()
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

#[apply(test)]
fn what_has_a_task_runs() {
    let hosts = hosts();
    for containerd in hosts.containerds() {
        let rows = containerd.host.jsonl(["containers"]).exits(0).rows();
        for record in containerd.records() {
            let mut rows = rows.iter();
            let row = rows
                .find(|row| row["id"] == *record.id)
                .expect("it is listed");
            let tasks = containerd.tasks(&record.namespace);
            let is_running = tasks.contains_key(&record.id);
            assert_eq!(row["state"] == "running", is_running, "{row}");
            // Of what does not run, only Kubernetes' plugin keeps more.
            let id = &record.id;
            let status = format!("{ROOT}/io.containerd.grpc.v1.cri/containers/{id}/status");
            let Ok(status) = fs::read(containerd.host.at(status)) else {
                continue;
            };
            let status: Value = serde_json::from_slice(&status).expect("a JSON document");
            let state = match (&status["StartedAt"], &status["FinishedAt"]) {
                (started, _) if *started == 0 => "created",
                (_, finished) if *finished == 0 => "running",
                _ => "exited",
            };
            assert_eq!(row["state"], state, "{row}");
            assert_eq!(row["exit_code"], status["ExitCode"], "{row}");
        }
    }
}

// ---- changes and ls ----

/// What a container was started over: what one of the same image shows that nothing was changed
/// in.
fn view_below(containerd: &Captured, record: &Record, records: &[Record]) -> View {
    let mut records = records.iter();
    let unchanged = records.find(|other| {
        other.image() == record.image()
            && other.snapshotter() == record.snapshotter()
            && !containerd.tasks(&other.namespace).contains_key(&other.id)
            && containerd
                .said(&format!("{}.jsonl", other.file("diff")))
                .is_empty()
    });
    containerd.view(&unchanged.expect("one without changes").file("merged"))
}

#[apply(test)]
fn changes_are_what_containerds_differ_says() {
    let hosts = hosts();
    let mut changed = 0;
    for containerd in hosts.containerds() {
        let records = containerd.records();
        for record in &records {
            let below = view_below(containerd, record, &records);
            let said = containerd.differ(&record.file("diff"), &below);
            containerd.compare_changes(&["-n", &record.namespace, "changes", &record.id], &said);
            changed += usize::from(!said.is_empty());
        }
    }
    assert_eq!(changed, 2 + 8);
}

#[apply(test)]
fn the_view_is_what_containerd_mounted() {
    let hosts = hosts();
    for containerd in hosts.containerds() {
        for record in containerd.records() {
            let is_running = containerd.tasks(&record.namespace).contains_key(&record.id);
            containerd.compare_view(
                &["-n", &record.namespace, "ls", "-R", "-l", &record.id],
                containerd.view(&record.file("merged")),
                &BTreeSet::new(),
                is_running && containerd.name == hosts.overlayfs.name,
            );
        }
    }
}

#[apply(test)]
fn the_captures_say_what_is_hard() {
    let hosts = hosts();
    let containerd = &hosts.overlayfs;
    let stopped = containerd.view("default-merged-stop-a");
    assert_eq!(stopped[&b"/root/big.sparse"[..]].size, Some(1 << 30));
    assert!(stopped.contains_key(&b"/root/ctr\x1b]0;title\x07\n\xff.txt"[..]));
    let below = containerd.view("default-merged-created-a");
    let changes = containerd.differ("default-diff-stop-a", &below);
    // An opaque directory has no mark there: what it hides is deleted.
    assert!(changes.contains(&(b'C', b"/opt/keep".to_vec())));
    assert!(changes.contains(&(b'D', b"/opt/keep/keep.txt".to_vec())));
    // A file in a directory's place is all that is said, and what was in it is not.
    assert!(changes.contains(&(b'C', b"/var/cache".to_vec())));
    // 35: only an attribute was changed.
    let upper = String::from_utf8(containerd.mounts("default-mounts-stop-a").remove(0));
    let upper = upper.expect("plain names");
    let program = containerd.host.at(format!("{upper}/usr/bin/busybox"));
    let mut value = [0; 16];
    let length = lgetxattr(&program, "user.ctr", &mut value).expect("it was set in the container");
    assert_ne!(length, 0);
    assert!(!changes.iter().any(|(_, path)| path == b"/usr/bin/busybox"));
}

// ---- branches ----

#[apply(test)]
fn branches_are_what_containerd_would_mount() {
    let hosts = hosts();
    for containerd in hosts.containerds() {
        for record in containerd.records() {
            let row = containerd.branches(&record.namespace, &record.id);
            let said = containerd.mounts(&record.file("mounts"));
            assert_eq!(directories(&row), said, "{}", record.id);
            let owner = &row["owner"];
            assert_eq!(owner["engine"], "containerd");
            assert_eq!(owner["kind"], "container");
            assert_eq!(owner["id"], *record.id);
            let branches = row["branches"].as_array().expect("branches");
            let roles: Vec<&str> = texts(branches, "role");
            let below = branches.len() - 1;
            let expected: Vec<String> = std::iter::once("container".to_owned())
                .chain((1..=below).rev().map(|n| format!("image {n}/{below}")))
                .collect();
            assert_eq!(roles, expected, "{}", record.id);
        }
    }
}

#[apply(test)]
fn a_process_is_its_container() {
    let hosts = hosts();
    let mut processes = 0;
    for containerd in hosts.containerds() {
        for namespace in containerd.namespaces() {
            for (id, process) in containerd.tasks(&namespace) {
                let of_process = containerd.host.jsonl(["branches", &process]).exits(0).row();
                let of_container = containerd.branches(&namespace, &id);
                assert_eq!(directories(&of_process), directories(&of_container));
                assert_eq!(of_process["owner"], of_container["owner"], "{process}");
                processes += 1;
            }
        }
    }
    assert_eq!(processes, 3 + 7);
}

#[apply(test)]
fn what_is_mounted_is_known_by_name() {
    let hosts = hosts();
    for containerd in hosts.containerds() {
        let rows = containerd.host.jsonl(["branches"]).exits(0).rows();
        for record in containerd.records() {
            let tasks = containerd.tasks(&record.namespace);
            // A native snapshot is no union, and only bound to the place.
            if record.snapshotter() != "overlayfs" || !tasks.contains_key(&record.id) {
                continue;
            }
            let point = format!("{TASKS}/{}/{}/rootfs", record.namespace, record.id);
            let row = rows
                .iter()
                .find(|row| {
                    let mut mounts = row["mounts"].as_array().into_iter().flatten();
                    mounts.any(|mount| bytes(mount) == point.as_bytes())
                })
                .unwrap_or_else(|| panic!("nothing at {point}"));
            assert_eq!(row["state"], "mounted");
            assert_eq!(row["owner"]["engine"], "containerd");
            assert_eq!(row["owner"]["id"], *record.id);
            let table = containerd.host.read("/proc/self/mountinfo");
            let table = String::from_utf8(table).expect("plain names");
            let mut lines = table.lines();
            let line = lines.find(|line| line.contains(&format!(" {point} ")));
            let options = line.and_then(|line| line.rsplit(' ').next());
            assert_eq!(
                directories(row),
                overlay_directories(options.expect("it is mounted"))
            );
        }
    }
}

// ---- names ----

#[apply(test)]
fn a_name_is_looked_for_where_it_was_asked_for() {
    let hosts = hosts();
    let host = &hosts.overlayfs.host;
    let run_a = host.branches_of("run-a");
    assert_eq!(host.branches_of("containerd:run-a"), run_a);
    let there = host.jsonl(["-n", "default", "branches", "run-a"]).exits(0);
    assert_eq!(directories(&there.row()), run_a);
    host.jsonl(["-n", "k8s.io", "branches", "run-a"])
        .exits(2)
        .says("run-a");
    let from_environment = |namespace: &str| {
        let mut command = run::command();
        command
            .args(run::jsonl(&host.root, ["containers"]))
            .env("CONTAINERD_NAMESPACE", namespace);
        run::run(&mut command).exits(0).rows()
    };
    assert_eq!(from_environment("default").len(), 5);
    assert!(from_environment("k8s.io").is_empty());
    // The same image has layers of its own in every namespace (31).
    let layers = |namespace: &str| {
        let ask = ["-n", namespace, "branches", "localhost/lab/web:2"];
        directories(&host.jsonl(ask).exits(0).row())
    };
    let in_snapshots = |numbers: std::ops::RangeInclusive<u32>| {
        let paths = numbers.rev().map(|number| {
            let path =
                format!("{ROOT}/io.containerd.snapshotter.v1.overlayfs/snapshots/{number}/fs");
            path.into_bytes()
        });
        paths.collect::<Vec<_>>()
    };
    assert_eq!(layers("default"), in_snapshots(1..=9));
    assert_eq!(layers("k8s.io"), in_snapshots(10..=18));
}

#[apply(test)]
fn nerdctl_has_names_of_its_own() {
    let hosts = hosts();
    let containerd = &hosts.kubernetes;
    let records = containerd.records();
    let mut records = records.iter();
    let record = records.find(|record| record.label("nerdctl/name").is_some());
    let record = record.expect("one is captured");
    let name = record.label("nerdctl/name").expect("it has one");
    assert_ne!(name, record.id);
    assert_eq!(
        containerd.host.branches_of(name),
        containerd.mounts(&record.file("mounts"))
    );
}

#[apply(test)]
fn a_pods_container_is_found_by_name() {
    let hosts = hosts();
    let containerd = &hosts.kubernetes;
    let mut named: BTreeMap<String, Vec<Record>> = BTreeMap::new();
    for record in containerd.records() {
        if let Some(name) = record.pod_name() {
            named.entry(name).or_default().push(record);
        }
    }
    let created = |record: &Record| text(&record.info, "CreatedAt").to_owned();
    for (name, records) in &named {
        let mut pods: Vec<_> = records
            .iter()
            .map(|record| record.label("io.kubernetes.pod.uid"))
            .collect();
        pods.dedup();
        let ask = ["-n", "k8s.io", "branches", name];
        if pods.len() > 1 {
            // Kubernetes' own namespaces may have the same names.
            let output = containerd.host.jsonl(ask).exits(2);
            for record in records {
                assert!(
                    output.stderr.contains(&record.id[..12]),
                    "{}",
                    output.stderr
                );
            }
            continue;
        }
        // Restarted, it has left one behind: the last is meant.
        let last = records
            .iter()
            .max_by_key(|record| created(record))
            .expect("one at least");
        let row = containerd.host.jsonl(ask).exits(0).row();
        assert_eq!(row["owner"]["id"], *last.id, "{name}");
        assert_eq!(directories(&row), containerd.mounts(&last.file("mounts")));
    }
    let counts: Vec<usize> = named.values().map(Vec::len).collect();
    assert_eq!(counts, [2, 2, 1], "{:?}", named.keys());
}

#[apply(test)]
fn the_data_directory_can_be_elsewhere() {
    needs::captured_hosts();
    let spoilt = Captured::new("containerd-overlayfs");
    let moved = spoilt.host.at("/srv");
    fs::create_dir(&moved).expect("our own directory");
    fs::rename(spoilt.host.at(ROOT), moved.join("containerd")).expect("our own directory");
    let nothing = spoilt.host.jsonl(["containers"]).exits(0).rows();
    assert!(nothing.is_empty(), "{nothing:?}");
    let ask = ["--containerd-root", "/srv/containerd"];
    let rows = spoilt.host.jsonl([&ask[..], &["containers"]].concat());
    assert_eq!(rows.exits(0).rows().len(), 5);
    let row = spoilt
        .host
        .jsonl([&ask[..], &["branches", "stop-a"]].concat())
        .exits(0)
        .row();
    let said = spoilt.mounts("default-mounts-stop-a").into_iter();
    let said = said.map(|path| [b"/srv/containerd", &path[ROOT.len()..]].concat());
    assert_eq!(directories(&row), said.collect::<Vec<_>>());
}

// ---- images ----

/// Images by the digest of their target, with their names.
type Images = BTreeMap<String, BTreeSet<String>>;

fn images(rows: &[Value]) -> Images {
    let names_of = |row: &Value| {
        let tags = row["tags"].as_array().expect("tags");
        let tags = tags.iter().map(|tag| tag.as_str().expect("a tag").into());
        (format!("sha256:{}", text(row, "id")), tags.collect())
    };
    let images: Images = rows.iter().map(names_of).collect();
    assert_eq!(images.len(), rows.len(), "two have one id: {rows:#?}");
    images
}

#[apply(test)]
fn images_are_what_ctr_lists() {
    let hosts = hosts();
    for containerd in hosts.containerds() {
        for namespace in containerd.namespaces() {
            let ask = ["-n", &namespace, "images", "--all"];
            let rows = containerd.host.jsonl(ask).exits(0).rows();
            let file = format!("{namespace}-images.txt");
            let listed = containerd.columns(&file, ["REF", "DIGEST", "SIZE"]);
            let mut said = Images::new();
            for [name, digest, _] in &listed {
                let names = said.entry(digest.clone()).or_default();
                // Kubernetes' plugin has the configuration's digest for a second name.
                if !name.starts_with("sha256:") {
                    names.insert(name.clone());
                }
            }
            assert_eq!(images(&rows), said, "{namespace}");
            for row in &rows {
                let digest = format!("sha256:{}", text(row, "id"));
                let mut listed = listed.iter();
                let [_, _, size] = listed.find(|[_, of, _]| *of == digest).expect("listed");
                assert_eq!(mebibytes(&row["size"]), *size, "{row}");
                let config = containerd.config(ROOT, &digest);
                let layers = config["rootfs"]["diff_ids"].as_array().expect("layers");
                assert_eq!(row["layer_count"], layers.len(), "{row}");
                assert_eq!(row["created"], config["created"], "{row}");
                assert_eq!(row["engine"], "containerd");
            }
        }
    }
}

/// As `ctr` prints what there is to be fetched of an image: manifests, configuration, and layers as
/// they are packed.
fn mebibytes(size: &Value) -> String {
    let size = size.as_u64().expect("a size") as f64;
    format!("{:.1} MiB", size / f64::from(1 << 20))
}

#[apply(test)]
fn an_image_has_the_history_of_its_configuration() {
    let hosts = hosts();
    for containerd in hosts.containerds() {
        let records = containerd.records();
        for namespace in containerd.namespaces() {
            let file = format!("{namespace}-images.txt");
            for [name, digest] in containerd.columns(&file, ["REF", "DIGEST"]) {
                let ask = ["-n", &namespace, "history", &name];
                let rows = containerd.host.jsonl(ask).exits(0).rows();
                let config = containerd.config(ROOT, &digest);
                let steps = config["history"].as_array().expect("a history");
                assert_eq!(rows.len(), steps.len(), "{name}");
                for (row, step) in rows.iter().zip(steps.iter().rev()) {
                    assert_eq!(row["created"], step["created"]);
                    assert_eq!(row["instruction"], step["created_by"]);
                    assert_eq!(row["empty"], step["empty_layer"] == true);
                }
                let layers: Vec<&Value> = rows.iter().filter(|row| row["empty"] == false).collect();
                let diff_ids = config["rootfs"]["diff_ids"].as_array().expect("layers");
                let ours: Vec<&Value> = layers.iter().map(|row| &row["diff_id"]).collect();
                assert_eq!(ours, diff_ids.iter().rev().collect::<Vec<_>>(), "{name}");
                // Their chain ids are snapshots, each the parent of the one before.
                let file = format!("{namespace}-snapshots.txt");
                let parents: BTreeMap<String, String> = containerd
                    .said(&file)
                    .lines()
                    .skip(1)
                    .map(|line| {
                        let mut words = line.split_whitespace().map(str::to_owned);
                        let key = words.next().expect("a key");
                        let parent = words.next().filter(|word| word != "Committed");
                        (key, parent.unwrap_or_default())
                    })
                    .collect();
                let mut below = layers.iter().skip(1);
                for row in &layers {
                    let parent = below.next().map_or("", |row| text(row, "chain_id"));
                    assert_eq!(parents[text(row, "chain_id")], parent, "{name}");
                }
                // What a container of it is started over.
                let mut of_image = records.iter().filter(|record| {
                    record.namespace == namespace
                        && record.image() == name
                        && record.snapshotter() == "overlayfs"
                });
                let Some(record) = of_image.next() else {
                    continue;
                };
                let ours: Vec<Vec<u8>> =
                    layers.iter().map(|row| bytes(&row["directory"])).collect();
                let said = containerd.mounts(&record.file("mounts"));
                assert_eq!(ours, said[1..], "{name}");
            }
        }
    }
}

#[apply(test)]
fn info_counts_what_all_namespaces_have() {
    let hosts = hosts();
    for containerd in hosts.containerds() {
        let row = containerd.host.jsonl(["info"]).exits(0).row();
        let engines = row["engines"].as_array().expect("engines");
        let [engine] = &engines[..] else {
            panic!("{row}");
        };
        assert_eq!(engine["engine"], "containerd");
        assert_eq!(engine["container_count"], containerd.records().len());
        let namespaces = containerd.namespaces();
        let tasks = namespaces.iter().map(|name| containerd.tasks(name).len());
        assert_eq!(engine["running_count"], tasks.sum::<usize>());
    }
}

// ---- Docker 29 ----

/// Docker's own containerd, and how Docker's containers are called.
const DOCKERS: &str = "/var/lib/docker/containerd/daemon";
const DOCKERS_NAMES: [&str; 3] = ["run-a", "stop-a", "created-a"];

#[apply(test)]
fn docker_29s_containers_are_docker_containers() {
    let hosts = hosts();
    let docker = &hosts.docker;
    // containerd's record of what runs there has no snapshot, and is no container of its own (24).
    let rows = docker.host.jsonl(["containers"]).exits(0).rows();
    assert_eq!(rows.len(), DOCKERS_NAMES.len());
    for name in DOCKERS_NAMES {
        let config = docker.json(&format!("config-{name}.json"));
        let mut rows = rows.iter();
        let row = rows.find(|row| row["name"] == name);
        let row = row.unwrap_or_else(|| panic!("no {name}"));
        assert_eq!(row["engine"], "docker");
        assert_eq!(row["id"], config["ID"]);
        assert_eq!(row["driver"], "overlayfs");
        assert_eq!(row["image"], "small:1");
        assert_eq!(
            format!("sha256:{}", text(row, "image_id")),
            text(&config, "Image")
        );
        assert_eq!(row["created"], config["Created"]);
        assert_eq!(row["exit_code"], config["State"]["ExitCode"]);
        let (state, _) = name.split_once('-').expect("a state and a letter");
        let state = match state {
            "run" => "running",
            "stop" => "exited",
            other => other,
        };
        assert_eq!(row["state"], state);
    }
}

#[apply(test)]
fn docker_29_changes_what_is_above_its_init_layer() {
    let hosts = hosts();
    let docker = &hosts.docker;
    let below = docker.view("merged-created-a");
    assert!(below.contains_key(&b"/.dockerenv"[..]));
    for name in DOCKERS_NAMES {
        let said = docker.differ(&format!("diff-{name}"), &below);
        assert_eq!(said.is_empty(), name == "created-a");
        docker.compare_changes(&["changes", name], &said);
        let view = docker.view(&format!("merged-{name}"));
        docker.compare_view(&["ls", "-R", "-l", name], view, &BTreeSet::new(), false);
    }
}

#[apply(test)]
fn docker_29s_branches_are_snapshots() {
    let hosts = hosts();
    let docker = &hosts.docker;
    for name in DOCKERS_NAMES {
        let row = docker.host.jsonl(["branches", name]).exits(0).row();
        let said = docker.mounts(&format!("mounts-{name}"));
        assert_eq!(directories(&row), said, "{name}");
        assert_eq!(row["owner"]["engine"], "docker");
        assert_eq!(row["owner"]["name"], name);
        let branches = row["branches"].as_array().expect("branches");
        assert_eq!(
            texts(branches, "role"),
            [
                "container",
                "init",
                "image 4/4",
                "image 3/4",
                "image 2/4",
                "image 1/4"
            ]
        );
        let state = if name == "run-a" {
            "mounted"
        } else {
            "not-mounted"
        };
        assert_eq!(row["state"], state, "{name}");
    }
    let config = docker.json("config-run-a.json");
    let process = config["State"]["Pid"].to_string();
    let of_process = docker.host.jsonl(["branches", &process]).exits(0).row();
    assert_eq!(of_process["owner"]["name"], "run-a");
    let mounts: Vec<Vec<u8>> = of_process["mounts"]
        .as_array()
        .into_iter()
        .flatten()
        .map(bytes)
        .collect();
    let id = text(&config, "ID");
    let point = format!("/var/lib/docker/rootfs/overlayfs/{id}");
    assert!(mounts.contains(&point.into_bytes()), "{of_process}");
}

#[apply(test)]
fn docker_29s_images_are_named_as_docker_names_them() {
    let hosts = hosts();
    let docker = &hosts.docker;
    let rows = docker.host.jsonl(["images", "--all"]).exits(0).rows();
    let mut said = Images::new();
    for [name, digest] in docker.columns("moby-images.txt", ["REF", "DIGEST"]) {
        let names = said.entry(digest).or_default();
        // 25: an image without a name.
        if !name.starts_with("moby-dangling@") {
            let name = name.strip_prefix("docker.io/").unwrap_or(&name);
            names.insert(name.strip_prefix("library/").unwrap_or(name).to_owned());
        }
    }
    assert_eq!(said.len(), 3);
    assert_eq!(images(&rows), said);
    let history = docker.host.jsonl(["history", "small:1"]).exits(0).rows();
    let digest = said
        .iter()
        .find(|(_, names)| names.contains("small:1"))
        .map(|(digest, _)| digest.as_str());
    let config = docker.config(DOCKERS, digest.expect("it is listed"));
    let steps = config["history"].as_array().expect("a history");
    let expected: Vec<&str> = texts(steps, "created_by").into_iter().rev().collect();
    assert_eq!(texts(&history, "instruction"), expected);
    let branches = docker.host.branches_of("small:1");
    let above = docker.mounts("mounts-created-a");
    assert_eq!(branches, above[2..]);
    let found: Vec<Vec<u8>> = history
        .iter()
        .filter(|row| row["empty"] == false)
        .map(|row| bytes(&row["directory"]))
        .collect();
    assert_eq!(found, branches);
}

#[apply(test)]
fn docker_29_can_share_the_systems_containerd() {
    needs::captured_hosts();
    // 23: one that answers is used. Its directories are called as the default's.
    let spoilt = Captured::new("docker-29");
    let to = spoilt.host.at(ROOT);
    fs::rename(spoilt.host.at(DOCKERS), &to).expect("our own directory");
    let said = spoilt.mounts("mounts-stop-a").into_iter();
    let said = said.map(|path| [ROOT.as_bytes(), &path[DOCKERS.len()..]].concat());
    assert_eq!(spoilt.host.branches_of("stop-a"), said.collect::<Vec<_>>());
    let rows = spoilt.host.jsonl(["containers"]).exits(0).rows();
    assert_eq!(texts(&rows, "engine"), ["docker"; 3]);
}
