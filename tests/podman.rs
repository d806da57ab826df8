//! Podman's stores: captured hosts of a real Podman 4.3 on overlay and vfs, and an ordinary
//! user's on overlay and fuse-overlayfs. What Podman said there is what layerctl has to say.
//! Numbers are those of FACTS-engines.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::Deref;
use std::os::unix::fs::chown;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};

use crate::docker_drivers::{
    Change, Entry, MOUNTED_FILES, View, beside_mounts, change_of_row, changes, entry_of_row, seen,
};
use crate::lab::captured::{Captured, Shared};
use crate::lab::needs;
use crate::lab::run::{text, texts};

const HOSTS: [&str; 4] = [
    "overlay",
    "vfs",
    "rootless-overlay",
    "rootless-fuse-overlayfs",
];

/// A captured host with what Podman said on it.
struct Podman {
    name: &'static str,
    captured: Captured,
}

impl Deref for Podman {
    type Target = Captured;

    fn deref(&self) -> &Captured {
        &self.captured
    }
}

/// The captured hosts, which tests that run at one time share; none where they cannot be made.
fn podmans() -> Arc<Vec<Podman>> {
    static SHARED: Shared<Vec<Podman>> = Shared::new();
    SHARED.get(unpack)
}

fn unpack() -> Vec<Podman> {
    needs::captured_hosts();
    HOSTS.map(Podman::captured).into()
}

impl Podman {
    fn captured(name: &'static str) -> Podman {
        Podman {
            name,
            captured: Captured::new(&format!("podman-{name}")),
        }
    }

    fn containers(&self) -> Vec<&str> {
        let mut names = self.named("inspect-", ".json");
        names.retain(|name| !name.starts_with("image-"));
        names
    }

    /// Images with what `inspect` said of them.
    fn images(&self) -> Vec<Value> {
        let names = self.named("inspect-image-", ".json").into_iter();
        names
            .map(|name| self.inspected(&format!("image-{name}")))
            .collect()
    }

    /// The values of a name in `podman info`, which has the same names in several places.
    fn info(&self, name: &str) -> Vec<&str> {
        let lines = self.said("info.txt").lines();
        let values = lines.filter_map(|line| line.trim().split_once(": "));
        values
            .filter_map(|(of, value)| (of == name).then_some(value))
            .collect()
    }

    fn driver(&self) -> &str {
        self.info("graphDriverName")[0]
    }

    /// A path below the graph root, as the host has it.
    fn at(&self, path: &str) -> String {
        format!("{}/{path}", self.info("graphRoot")[0])
    }

    /// The records of `layers`, `images` or `containers`, as the store has them.
    fn records(&self, of: &str) -> Vec<Value> {
        let path = self.at(&format!("{}-{of}/{of}.json", self.driver()));
        serde_json::from_slice(&self.host.read(path)).expect("a store's JSON")
    }

    fn is_rootless(&self) -> bool {
        self.info("rootless") == ["true"]
    }

    /// The directories that `inspect` gives for a container or an image, topmost first.
    fn directories(&self, inspected: &Value, layer: &str) -> Vec<Vec<u8>> {
        // It gives none on vfs, where one directory is all there is.
        let data = &inspected["GraphDriver"]["Data"];
        if data.is_null() {
            return vec![self.at(&format!("vfs/dir/{layer}")).into_bytes()];
        }
        let lower = data["LowerDir"].as_str();
        let lower = lower.into_iter().flat_map(|lower| lower.split(':'));
        std::iter::once(text(data, "UpperDir"))
            .chain(lower)
            .map(|path| path.as_bytes().to_vec())
            .collect()
    }
}

fn record<'a>(records: &'a [Value], field: &str, value: &str) -> &'a Value {
    let found = records.iter().find(|record| record[field] == value);
    found.unwrap_or_else(|| panic!("no {field} {value}"))
}

// ---- changes ----

/// What `podman diff` said and should not have, or should have said and did not.
struct PodmansError {
    hosts: &'static [&'static str],
    containers: &'static [&'static str],
    said: Option<(u8, &'static str)>,
    truth: Option<(u8, &'static [u8])>,
    why: &'static str,
}

const OF_OPAQUE: &str = "the directory is there: new, and opaque";
const OF_UPPER: &str = "all that is in the upper directory is listed, also what differs in nothing";

const PODMANS_ERRORS: [PodmansError; 6] = [
    PodmansError {
        hosts: &["rootless-fuse-overlayfs"],
        containers: &["run-a"],
        said: Some((b'A', "/root/ctr\x1b]0;title\x07\n\u{fffd}.txt")),
        truth: Some((b'A', b"/root/ctr\x1b]0;title\x07\n\xff.txt")),
        why: "61: the name's bytes are not UTF-8, and JSON lost them on the way",
    },
    PodmansError {
        hosts: &["rootless-fuse-overlayfs"],
        containers: &["run-a", "stop-a"],
        said: None,
        truth: Some((b'D', b"/opt/keep/keep.txt")),
        why: "the directory is opaque, and what that hides is not listed, as with docker",
    },
    PodmansError {
        hosts: &["rootless-overlay"],
        containers: &["stop-b"],
        said: Some((b'D', "/lib")),
        truth: Some((b'C', b"/lib")),
        why: OF_OPAQUE,
    },
    PodmansError {
        hosts: &["rootless-overlay"],
        containers: &["stop-b"],
        said: Some((b'D', "/home/user")),
        truth: Some((b'C', b"/home/user")),
        why: OF_OPAQUE,
    },
    PodmansError {
        hosts: &["rootless-overlay"],
        containers: &["stop-b"],
        said: Some((b'C', "/srv/h1")),
        truth: None,
        why: OF_UPPER,
    },
    PodmansError {
        hosts: &["rootless-overlay"],
        containers: &["stop-b"],
        said: Some((b'C', "/etc/apt/sources.list.d")),
        truth: None,
        why: OF_UPPER,
    },
];

/// Where `podman diff` failed in both of its forms, and its last words.
const FAILED: [(&str, &str); 4] = [
    ("overlay", "run-a"),
    ("overlay", "stop-a"),
    ("rootless-overlay", "run-a"),
    ("rootless-overlay", "stop-a"),
];
const FAILED_WITH: &str = "/etc/empty/in: not a directory";

impl PodmansError {
    fn is_of(&self, host: &str, container: &str) -> bool {
        self.hosts.contains(&host) && self.containers.contains(&container)
    }

    fn said(&self) -> Option<Change> {
        self.said.map(|(letter, path)| (letter, path.into()))
    }

    fn truth(&self) -> Option<Change> {
        self.truth.map(|(letter, path)| (letter, path.into()))
    }
}

impl Podman {
    /// What `podman diff` said: as text or, where that failed, as JSON; nothing if both did.
    fn diff(&self, container: &str) -> BTreeSet<Change> {
        if !self.truth.contains_key(&format!("diff-{container}.err")) {
            return changes(&self.truth[&format!("diff-{container}.txt")]);
        }
        let file = format!("diff-{container}.json");
        if self.truth[&file].is_empty() {
            return BTreeSet::new();
        }
        let said = self.json(&file);
        let of = |(letter, name): (u8, &str)| {
            let paths = said[name].as_array().cloned().unwrap_or_default();
            let path = |path: Value| path.as_str().expect("a path").as_bytes().to_vec();
            paths.into_iter().map(move |each| (letter, path(each)))
        };
        [(b'A', "added"), (b'C', "changed"), (b'D', "deleted")]
            .into_iter()
            .flat_map(of)
            .collect()
    }

    fn diff_without_errors(&self, container: &str) -> BTreeSet<Change> {
        let mut said = self.diff(container);
        let errors = PODMANS_ERRORS.iter();
        for error in errors.filter(|error| error.is_of(self.name, container)) {
            if let Some(change) = error.said() {
                said.remove(&change);
            }
            said.extend(error.truth());
        }
        said
    }
}

fn named<'p>(podmans: &'p [Podman], name: &str) -> &'p Podman {
    let podman = podmans.iter().find(|podman| podman.name == name);
    podman.expect("all are here")
}

#[apply(test)]
fn changes_are_podman_diff_without_podmans_errors() {
    needs::time();
    let podmans = podmans();
    for podman in podmans.iter() {
        for container in podman.containers() {
            // 46: what made it fail was done by the same commands on fuse-overlayfs.
            let said = if FAILED.contains(&(podman.name, container)) {
                named(&podmans, "rootless-fuse-overlayfs").diff_without_errors(container)
            } else {
                podman.diff_without_errors(container)
            };
            podman.compare_changes(&["changes", container], &said);
        }
    }
}

#[apply(test)]
fn every_error_of_podman_that_is_named_was_seen() {
    let podmans = podmans();
    for error in PODMANS_ERRORS.iter().filter(|_| !podmans.is_empty()) {
        for (host, container) in error
            .hosts
            .iter()
            .flat_map(|host| error.containers.iter().map(move |name| (host, name)))
        {
            let diff = named(&podmans, host).diff(container);
            let is_said = error.said().is_none_or(|change| diff.contains(&change));
            let is_true = error.truth().is_some_and(|change| diff.contains(&change));
            assert!(is_said && !is_true, "{host} {container}: {}", error.why);
        }
    }
    let mut failed = Vec::new();
    for podman in podmans.iter() {
        for container in podman.named("diff-", ".err") {
            let words = podman.said(&format!("diff-{container}.err")).trim_end();
            if podman.diff(container).is_empty() {
                assert!(words.ends_with(FAILED_WITH), "{words}");
                failed.push((podman.name, container));
            } else {
                // 21: only as text.
                assert!(
                    words.ends_with("readdirent: no such file or directory"),
                    "{words}"
                );
            }
        }
    }
    assert!(podmans.is_empty() || failed == FAILED, "{failed:?}");
}

#[apply(test)]
fn what_podman_makes_is_no_change() {
    // Podman has no layer between the image's and the container's own.
    const MADE: [&str; 3] = ["etc/hosts", "etc/mtab", "run/.containerenv"];
    let podmans = podmans();
    for podman in podmans.iter().filter(|podman| podman.name == "overlay") {
        let upper = podman.inspected("clean-a")["GraphDriver"]["Data"]["UpperDir"].take();
        let upper = upper.as_str().expect("a directory");
        for path in MADE {
            let made = podman.host.at(format!("{upper}/{path}"));
            assert!(fs::symlink_metadata(made).is_ok(), "{path}");
        }
        let rows = podman.host.jsonl(["changes", "clean-a"]).exits(0).rows();
        let ours: Vec<Change> = rows.iter().map(change_of_row).collect();
        assert_eq!(ours, [(b'C', b"/etc".to_vec())]);
    }
}

// ---- ls ----

/// What a running container has mounted, besides what docker mounts there.
const MOUNTED_BY_PODMAN: &[u8] = b"/run/.containerenv";

fn beside_podmans_mounts(view: View) -> View {
    let mut view = beside_mounts(view);
    if let Some(entry) = view.get_mut(MOUNTED_BY_PODMAN) {
        entry.rights = None;
        entry.size = None;
    }
    view
}

impl Podman {
    fn view(&self, container: &str) -> View {
        let arguments = ["ls", "-R", "-l", container];
        let rows = self.host.jsonl(arguments).exits(0).rows();
        let view: View = rows.iter().map(entry_of_row).collect();
        assert_eq!(view.len(), rows.len(), "{} {container}", self.name);
        view
    }
}

#[track_caller]
fn assert_same(what: &str, engine: &View, ours: &View) {
    let paths: BTreeSet<&Vec<u8>> = engine.keys().chain(ours.keys()).collect();
    let wrong: Vec<String> = paths
        .into_iter()
        .filter(|path| engine.get(*path) != ours.get(*path))
        .map(|path| {
            format!(
                "{}\n  podman: {:?}\n  ours: {:?}",
                path.escape_ascii(),
                engine.get(path),
                ours.get(path)
            )
        })
        .collect();
    assert!(wrong.is_empty(), "{what}\n{}", wrong.join("\n"));
}

#[apply(test)]
fn the_view_is_what_podman_showed() {
    needs::time();
    for podman in podmans().iter() {
        for name in podman.named("merged-", ".jsonl") {
            // A user's views were walked from the host: owners are the host's, as on disk.
            let (mut engine, ghosts) = seen(podman.said(&format!("merged-{name}.jsonl")));
            if engine.is_empty() {
                // A mount of FUSE is closed to everybody else, root too.
                assert_eq!((podman.name, name), ("rootless-fuse-overlayfs", "run-a"));
                continue;
            }
            let container = name.strip_prefix("export-").unwrap_or(name);
            let mut ours = podman.view(container);
            for ghost in ghosts {
                assert!(!ours.contains_key(&ghost), "{}", ghost.escape_ascii());
            }
            if container == name {
                assert!(MOUNTED_FILES.iter().any(|path| engine.contains_key(*path)));
                (engine, ours) = (beside_podmans_mounts(engine), beside_podmans_mounts(ours));
            }
            assert_same(&format!("{} {name}", podman.name), &engine, &ours);
        }
    }
}

#[apply(test)]
fn a_mount_program_shows_what_overlay_showed() {
    let podmans = podmans();
    for container in ["run-a", "stop-a"].iter().filter(|_| !podmans.is_empty()) {
        let (mut engine, _) = seen(named(&podmans, "rootless-overlay").said("merged-run-a.jsonl"));
        // Made set-user-id by the image, and changed hands in the container: the kernel takes
        // that mode away from what an ordinary user owns, the program does not.
        let suid = engine.get_mut(&b"/usr/bin/suid2"[..]);
        let (mode, ..) = suid
            .and_then(|entry| entry.rights.as_mut())
            .expect("a file");
        assert_eq!(*mode, 0o755);
        *mode = 0o6755;
        let ours = named(&podmans, "rootless-fuse-overlayfs").view(container);
        assert_same(
            container,
            &beside_podmans_mounts(engine),
            &beside_podmans_mounts(ours),
        );
    }
}

#[apply(test)]
fn the_captures_say_what_is_hard() {
    for podman in podmans().iter() {
        let ours = podman.view("stop-a");
        let entry = |path: &str| ours.get(path.as_bytes());
        let kind = |path: &str| entry(path).map(|entry: &Entry| entry.kind.as_str());
        assert_eq!(
            entry("/root/big.sparse").and_then(|entry| entry.size),
            Some(1 << 30)
        );
        // 17: to a driver that copies this is a file like others.
        assert_eq!(
            kind("/root/whiteout"),
            (podman.name == "vfs").then_some("char")
        );
        // 48: a directory where a file was, and what an opaque one hides.
        assert_eq!(kind("/etc/empty"), Some("directory"));
        assert_eq!(kind("/opt/keep/fresh.txt"), Some("file"));
        assert_eq!(kind("/opt/keep/keep.txt"), None);
        // 45: subordinate ids are the host's.
        let owners = |path: &str| entry(path).and_then(|entry| entry.rights);
        let expected = if podman.is_rootless() {
            (100_999, 4242)
        } else {
            (1000, 0)
        };
        let of = |path| owners(path).map(|(_, user, _)| user);
        assert_eq!(
            (of("/home/user"), of("/etc")),
            (Some(expected.0), Some(expected.1)),
            "{}",
            podman.name
        );
    }
}

// ---- containers, images, history, info ----

/// Docker's word for a state of Podman's.
fn word(state: &str) -> &str {
    match state {
        "configured" | "created" | "initialized" => "created",
        "stopped" | "exited" => "exited",
        "running" | "paused" => state,
        other => panic!("no state is {other:?}"),
    }
}

#[apply(test)]
fn containers_are_what_podman_inspects() {
    for podman in podmans().iter() {
        let rows = podman.host.jsonl(["containers"]).exits(0).rows();
        // `podman ps -a --external`, below its heading.
        let listed: BTreeSet<(&str, &str)> = podman
            .said("ps-external.txt")
            .lines()
            .skip(1)
            .map(|line| {
                let mut words = line.split_whitespace();
                let id = words.next().expect("an id");
                (id, words.next_back().expect("a name"))
            })
            .collect();
        let ours: BTreeSet<(&str, &str)> = texts(&rows, "id")
            .into_iter()
            .zip(texts(&rows, "name"))
            .collect();
        assert_eq!(ours, listed, "{}", podman.name);
        assert_eq!(rows.len(), podman.containers().len());
        for name in podman.containers() {
            let said = podman.inspected(name);
            let row = record(&rows, "name", name);
            assert_eq!(row["engine"], "podman");
            assert_eq!(row["id"], said["Id"]);
            assert_eq!(row["image"], said["ImageName"]);
            assert_eq!(row["image_id"], said["Image"]);
            assert_eq!(row["created"], said["Created"], "{} {name}", podman.name);
            assert_eq!(row["driver"], said["Driver"]);
            let command = said["Config"]["Cmd"].as_array().expect("words");
            let command: Vec<&str> = command.iter().filter_map(Value::as_str).collect();
            assert_eq!(row["command"], command.join(" "), "{} {name}", podman.name);
            let state = &said["State"];
            assert_eq!(
                text(row, "state"),
                word(text(state, "Status")),
                "{} {name}",
                podman.name
            );
            assert_eq!(
                row["exit_code"], state["ExitCode"],
                "{} {name}",
                podman.name
            );
        }
    }
}

/// Images with their names.
type Images = BTreeMap<String, BTreeSet<String>>;

#[apply(test)]
fn images_are_podman_images() {
    for podman in podmans().iter() {
        let said = podman.listed_images();
        let rows = podman.host.jsonl(["images", "--all"]).exits(0).rows();
        let names_of = |row: &Value| {
            let tags = row["tags"].as_array().expect("tags");
            let tags = tags.iter().map(|tag| tag.as_str().expect("a tag").into());
            (text(row, "id").to_owned(), tags.collect())
        };
        let ours: Images = rows.iter().map(names_of).collect();
        assert_eq!(ours, said, "{}", podman.name);
        assert_eq!(ours.len(), rows.len(), "{}", podman.name);

        for said in podman.images() {
            let row = record(&rows, "id", text(&said, "Id"));
            let layers = said["RootFS"]["Layers"].as_array().expect("layers");
            assert_eq!(row["engine"], "podman");
            assert_eq!(row["layer_count"], layers.len(), "{} {row}", podman.name);
            // The layers' and, unlike docker, what is written about the image.
            assert_eq!(row["size"], said["Size"], "{} {row}", podman.name);
            assert_eq!(row["created"], said["Created"], "{} {row}", podman.name);
            assert_eq!(row["tags"], said["RepoTags"], "{} {row}", podman.name);
            assert_eq!(row["driver"], podman.driver());
        }
    }
}

impl Podman {
    /// A layer's record and those below it.
    fn chain<'l>(&self, layers: &'l [Value], top: &str) -> Vec<&'l Value> {
        let mut chain = vec![record(layers, "id", top)];
        while let Some(parent) = chain.last().and_then(|layer| layer["parent"].as_str()) {
            chain.push(record(layers, "id", parent));
        }
        chain
    }

    fn directory(&self, layer: &str) -> String {
        match self.driver() {
            "vfs" => self.at(&format!("vfs/dir/{layer}")),
            driver => self.at(&format!("{driver}/{layer}/diff")),
        }
    }

    fn history(&self, image: &str) -> Vec<Value> {
        self.host.jsonl(["history", image]).exits(0).rows()
    }

    /// The instructions in an image's own configuration, newest first.
    fn steps(&self, image: &str) -> Vec<String> {
        let name = BASE64.encode(format!("sha256:{image}"));
        let path = self.at(&format!("{}-images/{image}/={name}", self.driver()));
        let config: Value = serde_json::from_slice(&self.host.read(path)).expect("JSON");
        let steps = config["history"].as_array().expect("a history");
        let instruction = |step: &Value| text(step, "created_by").to_owned();
        steps.iter().rev().map(instruction).collect()
    }
}

/// The only name of an image.
fn tag(image: &Value) -> &str {
    image["RepoTags"][0].as_str().expect("a name")
}

#[apply(test)]
fn the_history_of_every_image_is_podmans() {
    needs::time();
    for podman in podmans().iter() {
        let (layers, images) = (podman.records("layers"), podman.records("images"));
        for said in podman.images() {
            let (id, name) = (text(&said, "Id"), tag(&said));
            let rows = podman.history(id);
            assert_eq!(rows, podman.history(name));
            let file = format!("history-{}.txt", name.replace(['/', ':'], "_"));
            let lines = podman.said(&file).lines().skip(1);
            let mut steps = said["History"].as_array().expect("a history").clone();
            steps.reverse();
            assert_eq!(rows.len(), steps.len(), "{} {name}", podman.name);
            assert_eq!(rows.len(), lines.clone().count(), "{} {name}", podman.name);
            let top = text(record(&images, "id", id), "layer");
            let mut chain = podman.chain(&layers, top).into_iter();
            for ((row, step), line) in rows.iter().zip(&steps).zip(lines) {
                let instruction = text(row, "instruction");
                assert!(line.contains(instruction.trim_end()), "{line}\n{row}");
                assert_eq!(row["instruction"], step["created_by"]);
                assert_eq!(row["created"], step["created"]);
                assert_eq!(
                    row["comment"].as_str().unwrap_or_default(),
                    step["comment"].as_str().unwrap_or_default()
                );
                let empty = step["empty_layer"] == true;
                assert_eq!(row["empty"] == true, empty, "{row}");
                if empty {
                    assert!(row["size"].as_u64().is_none_or(|size| size == 0), "{row}");
                    continue;
                }
                // 39: a layer's id is the name of its directory.
                let layer = chain.next().expect("a layer for every step that made one");
                assert_eq!(row["layer"], layer["id"], "{row}");
                assert_eq!(row["diff_id"], layer["diff-digest"], "{row}");
                assert_eq!(row["size"], layer["diff-size"], "{row}");
                assert_eq!(row["directory"], podman.directory(text(layer, "id")));
                assert!(podman.host.at(text(row, "directory")).is_dir(), "{row}");
            }
            assert!(chain.next().is_none(), "{name}");
        }
    }
}

/// Podman prints beside a step whichever image of that layer it met first, be it the image of a
/// later step without a layer. What is said here has to be true: that the image ends there.
#[apply(test)]
fn the_images_in_a_history_end_at_their_steps() {
    needs::time();
    for podman in podmans().iter() {
        for said in podman.images() {
            let rows = podman.history(tag(&said));
            assert_eq!(rows[0]["image"], said["Id"]);
            for (index, row) in rows.iter().enumerate() {
                if let Some(id) = row["image"].as_str() {
                    let steps = texts(&rows[index..], "instruction");
                    assert_eq!(podman.steps(id), steps, "{id}");
                }
            }
        }
    }
}

#[apply(test)]
fn info_is_the_store_of_podman_info() {
    for podman in podmans().iter() {
        let row = podman.host.jsonl(["info"]).exits(0).row();
        let engines = row["engines"].as_array().expect("engines");
        assert_eq!(engines.len(), 1, "{row}");
        let engine = &engines[0];
        assert_eq!(engine["engine"], "podman");
        let counted = podman.info("number");
        let [containers, images] = counted[..] else {
            panic!("{counted:?}");
        };
        for (field, said) in [
            ("container_count", containers),
            ("running_count", podman.info("running")[0]),
            ("paused_count", podman.info("paused")[0]),
            ("stopped_count", podman.info("stopped")[0]),
            ("image_count", images),
        ] {
            assert_eq!(engine[field].to_string(), said, "{} {field}", podman.name);
        }
        assert_eq!(engine["storage_driver"], podman.driver());
        assert_eq!(engine["root_dir"], podman.at(podman.driver()));
        // Podman says it of overlay only.
        if let Some(backing) = podman.info("Backing Filesystem").first() {
            assert_eq!(engine["backing_filesystem"], *backing);
        }
        assert_eq!(row["problems"], json!([]), "{}", podman.name);
    }
}

// ---- branches ----

#[apply(test)]
fn branches_are_the_graph_drivers() {
    needs::time();
    for podman in podmans().iter() {
        let containers = podman.records("containers");
        for name in podman.containers() {
            let said = podman.inspected(name);
            let layer = text(record(&containers, "id", text(&said, "Id")), "layer");
            let row = podman.host.jsonl(["branches", name]).exits(0).row();
            let directories = podman.directories(&said, layer);
            assert_eq!(
                crate::lab::host::directories(&row),
                directories,
                "{} {name}",
                podman.name
            );
            assert_eq!(row["owner"]["engine"], "podman");
            assert_eq!(row["owner"]["name"], name);
            // 45: a user's are mounted where only the user's processes see them. 17: on vfs
            // nothing is mounted.
            let state = match text(&said["State"], "Status") {
                "running" if podman.name == "vfs" => "not-mounted",
                "running" if podman.is_rootless() => "elsewhere",
                "running" => "mounted",
                _ => "not-mounted",
            };
            assert_eq!(row["state"], state, "{} {name}", podman.name);
            // By a part of its id, and by its process.
            let id = &text(&said, "Id")[..12];
            assert_eq!(podman.host.branches_of(id), directories);
            if let Some(process) = said["State"]["Pid"].as_u64().filter(|&id| id > 0) {
                let process = process.to_string();
                assert_eq!(
                    podman.host.branches_of(&process),
                    directories,
                    "{} {name}, process {process}",
                    podman.name
                );
            }
        }
    }
}

#[apply(test)]
fn branches_of_an_image_are_the_graph_drivers() {
    needs::time();
    for podman in podmans().iter() {
        let images = podman.records("images");
        for said in podman.images() {
            let (id, name) = (text(&said, "Id"), tag(&said));
            let layer = text(record(&images, "id", id), "layer");
            let directories = podman.directories(&said, layer);
            assert_eq!(podman.host.branches_of(name), directories, "{name}");
            assert_eq!(podman.host.branches_of(id), directories, "{id}");
        }
    }
}

// ---- buildah ----

/// Buildah's containers are the store's alone: no record of libpod's, no metadata (42). Newer
/// ones are in files of their own (40).
#[apply(test)]
fn working_containers_are_containers() {
    needs::captured_hosts();
    for prefix in ["", "volatile-"] {
        let podman = Podman::captured("rootless-overlay");
        let before = podman.host.jsonl(["containers"]).exits(0).rows().len();
        let created = podman.inspected("created-a");
        let (id, layer) = ("b1".repeat(32), "1a".repeat(32));
        let image = &created["Image"];
        let parent = podman.records("images");
        let parent = &record(&parent, "id", image.as_str().expect("an id"))["layer"];
        let add = |of: &str, entry: Value| {
            let old = if prefix.is_empty() {
                podman.records(of)
            } else {
                Vec::new()
            };
            let all: Vec<Value> = old.into_iter().chain([entry]).collect();
            let path = podman.at(&format!("overlay-{of}/{prefix}{of}.json"));
            podman.host.file(&path, Value::from(all).to_string());
            chown(podman.host.at(&path), Some(4242), Some(4242)).expect("this is root");
        };
        let time = "2026-11-24T04:00:00.5Z";
        add(
            "layers",
            json!({"id": layer, "parent": parent, "created": time}),
        );
        add(
            "containers",
            json!({
                "id": id, "names": ["app-working-container"], "image": image, "layer": layer,
                "created": time,
                "flags": {"MountLabel": "", "ProcessLabel": "", "Volatile": true},
            }),
        );
        podman.host.file(
            podman.at(&format!("overlay-containers/{id}/userdata/buildah.json")),
            json!({
                "type": "buildah 0.0.1", "image": "localhost/lab/app:1", "image-id": image,
                "container-name": "app-working-container", "container-id": id,
            })
            .to_string(),
        );
        // Its lower layers are those of another container from the image.
        let layer_of_created = podman.records("containers");
        let layer_of_created = record(&layer_of_created, "id", text(&created, "Id"));
        let lower = podman.at(&format!(
            "overlay/{}/lower",
            text(layer_of_created, "layer")
        ));
        let at = |path: &str| podman.at(&format!("overlay/{layer}/{path}"));
        podman
            .host
            .file(at("diff/made"), "")
            .dir(at("work"))
            .file(at("lower"), podman.host.read(lower))
            .file(at("link"), "BUILDAHSWORKINGCONTAINERAA")
            .link(
                podman.at("overlay/l/BUILDAHSWORKINGCONTAINERAA"),
                format!("../{layer}/diff"),
            );

        let rows = podman.host.jsonl(["containers"]).exits(0).rows();
        assert_eq!(rows.len(), before + 1, "{prefix}");
        let row = record(&rows, "name", "app-working-container");
        assert_eq!(row["id"], *id);
        assert_eq!(row["image_id"], *image);
        assert_eq!(row["image"], "localhost/lab/app:1");
        assert_eq!(row["created"], time);
        for target in ["app-working-container", &id] {
            let mut directories = podman.directories(&created, "");
            directories[0] = at("diff").into_bytes();
            assert_eq!(podman.host.branches_of(target), directories, "{prefix}");
            let rows = podman.host.jsonl(["changes", target]).exits(0).rows();
            let changes: Vec<Change> = rows.iter().map(change_of_row).collect();
            assert_eq!(changes, [(b'A', b"/made".to_vec())], "{prefix}");
        }
    }
}
