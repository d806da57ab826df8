//! A record that is lost or damaged: nobody is accused for want of it, and no answer is shorter
//! without a word. Every kind of file that the engines of captured hosts keep records in is taken away, emptied,
//! overwritten and cut, one at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use walkdir::WalkDir;

use crate::lab::host::Host;
use crate::lab::run::{Output, text};
use crate::lab::{in_part_everywhere, needs, wants_all};

const HOSTS: [(&str, &str); 11] = [
    ("docker-28-overlay2", "/var/lib/docker"),
    ("docker-28-containerd", "/var/lib/docker"),
    ("docker-aufs-webapp", "/var/lib/docker"),
    ("podman-5.8-overlay", "/var/lib/containers/storage"),
    ("containerd-2.1", "/var/lib/containerd"),
    ("docker-29", "/var/lib/docker"),
    ("docker-vfs", "/var/lib/docker"),
    ("docker-btrfs", "/var/lib/docker"),
    ("docker-fuse-overlayfs", "/var/lib/docker"),
    ("podman-overlay", "/var/lib/containers/storage"),
    ("containerd-kubernetes", "/var/lib/containerd"),
];

/// So many of them, the last, are more of the same kinds, by older engines or other drivers.
const OLDER: usize = 6;

/// A way to lose a record.
type Way = (&'static str, fn(&[u8]) -> Option<Vec<u8>>);

const WAYS: [Way; 4] = [
    ("gone", |_| None),
    ("empty", |_| Some(Vec::new())),
    // What a power cut leaves of a file whose size was written and whose content was not.
    ("zeros", |was| Some(vec![0; was.len()])),
    ("half", |was| Some(was[..was.len() / 2].to_vec())),
];

/// Losses that a verb answers without, as the engine itself does: what was a container or an image is none any more,
/// or a shorter number is a number.
const ALLOWED: [(&str, &str, &str); 12] = [
    ("config.v2.json", "gone", "containers"),
    // That it is mounted is not known any more.
    ("layerdb/mounts/ID/mount-id", "gone", "containers"),
    ("layerdb/mounts/ID/mount-id", "empty", "containers"),
    ("layerdb/mounts/ID/mount-id", "zeros", "containers"),
    ("layerdb/mounts/ID/mount-id", "half", "containers"),
    // A step between two images, which is listed once nothing stands on it.
    ("imagedb/content/sha256/ID", "gone", "images"),
    ("imagedb/metadata/sha256/ID/parent", "gone", "images"),
    ("imagedb/metadata/sha256/ID/parent", "empty", "images"),
    ("imagedb/metadata/sha256/ID/parent", "zeros", "images"),
    ("imagedb/metadata/sha256/ID/parent", "half", "images"),
    ("layerdb/sha256/ID/size", "half", "images"),
    // A container without one is none of Kubernetes'.
    ("cri/containers/ID/status", "gone", "containers"),
];

/// What lies in a layer, or in a volume, is no record.
fn is_content(path: &Path) -> bool {
    let names: Vec<&str> = path.iter().filter_map(|name| name.to_str()).collect();
    let lies_in = |directory: &str, at: usize| {
        let place = names.iter().position(|name| *name == directory);
        place.is_some_and(|place| names.len() > place + at)
    };
    let is_layer = |name: &&str| matches!(*name, "diff" | "fs" | "work" | "merged");
    let in_layers = ["overlay", "overlay2", "fuse-overlayfs", "snapshots"]
        .iter()
        .any(|of| lies_in(of, 2));
    in_layers && names.iter().any(is_layer)
        || lies_in("aufs", 2) && (lies_in("diff", 1) || lies_in("mnt", 1))
        || ["vfs", "btrfs", "io.containerd.snapshotter.v1.native"]
            .iter()
            .any(|of| lies_in(of, 2))
        || lies_in("volumes", 1) && lies_in("_data", 0)
}

/// One name for all records of a kind.
fn shape(path: &str) -> String {
    let is_hex =
        |part: &str| part.len() >= 25 && part.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let name = |part: &str| match part {
        part if is_hex(part) => "ID".to_owned(),
        part if part.starts_with('=') => "=ID".to_owned(),
        part if part.bytes().all(|byte| byte.is_ascii_digit()) => "N".to_owned(),
        part => match part.strip_suffix("-init") {
            Some(_) => "ID-init".to_owned(),
            None => part.to_owned(),
        },
    };
    path.split('/').map(name).collect::<Vec<_>>().join("/")
}

/// One record of each kind.
fn records(host: &Host, store: &str) -> BTreeMap<String, PathBuf> {
    let mut found = BTreeMap::new();
    let top = host.at(store);
    for entry in WalkDir::new(&top).sort_by_file_name() {
        let entry = entry.expect("a directory of ours");
        let path = entry.path().strip_prefix(&top).expect("below it");
        let is_log = path.extension().is_some_and(|of| of == "log" || of == "gz");
        let has_content =
            entry.file_type().is_file() && entry.metadata().is_ok_and(|of| of.len() > 0);
        if has_content && !is_log && !is_content(path) {
            let shape = shape(path.to_str().expect("records have plain names"));
            found.entry(shape).or_insert_with(|| entry.into_path());
        }
    }
    found
}

/// What `orphans` gives to `rm`.
fn for_rm(host: &Host) -> BTreeSet<String> {
    let output = host.ask(["-0", "-q", "orphans"]);
    let paths = output.text().split('\0').filter(|path| !path.is_empty());
    paths.map(str::to_owned).collect()
}

/// What `orphans` says that `rm` can take.
fn accused(output: &Output) -> BTreeSet<String> {
    let rows = output.rows().into_iter();
    let is_content = |row: &Value| matches!(text(row, "kind"), "directory" | "blob" | "link");
    rows.filter(is_content)
        .map(|row| text(&row, "path").to_owned())
        .collect()
}

/// What `du` counts as layers that nothing uses; none where it says that it is not known.
fn unused_bytes(host: &Host) -> Option<u64> {
    let rows = host.jsonl(["du"]).rows();
    let unused = rows.iter().find(|row| row["kind"] == "unused");
    unused.expect("a sum")["disk"].as_u64()
}

#[apply(test)]
fn nobody_is_accused_and_nothing_is_left_out_without_a_word() {
    needs::time();
    needs::captured_hosts();
    let (verbs, ways): (&[&str], &[Way]) = if wants_all() {
        (&["orphans", "containers", "images", "changes"], &WAYS)
    } else {
        in_part_everywhere(
            "one way of four and one verb of four: all of them only with LAYERCTL_TESTS=all",
        );
        (&["orphans"], &WAYS[1..2])
    };
    let mut wrong = Vec::new();
    let first = HOSTS.len() - OLDER;
    let hosts = if wants_all() {
        &HOSTS[..]
    } else {
        &HOSTS[..first]
    };
    for (number, (name, store)) in hosts.iter().enumerate() {
        let verbs = if number < first { verbs } else { &verbs[..1] };
        let host = Host::captured(name);
        host.settle();
        let whole: Vec<Output> = verbs.iter().map(|verb| host.jsonl([*verb])).collect();
        let whole_for_rm = for_rm(&host);
        let records = records(&host, store);
        assert!(records.len() > 4, "{name}: {records:?}");
        for (shape, path) in records {
            let was = fs::read(&path).expect("a record");
            for (way, lost) in ways {
                match lost(&was) {
                    Some(content) => fs::write(&path, content),
                    None => fs::remove_file(&path),
                }
                .expect("ours");
                for (verb, whole) in verbs.iter().zip(&whole) {
                    let output = host.jsonl([*verb]);
                    let is_allowed = ALLOWED.iter().any(|(of, how, asked)| {
                        shape.ends_with(of) && how == way && (asked == verb || *verb == "changes")
                    });
                    let is_silent = output.stdout != whole.stdout && output.status != Some(2);
                    if *verb == "orphans" {
                        let accused: Vec<String> =
                            for_rm(&host).difference(&whole_for_rm).cloned().collect();
                        if !accused.is_empty() {
                            wrong.push(format!("{name}: {shape} {way}: accused: {accused:?}"));
                        }
                    } else if is_silent && !is_allowed {
                        wrong.push(format!("{name}: {shape} {way}: {verb} says nothing of it"));
                    }
                }
                // The file itself, so that its owner and mode stay.
                fs::write(&path, &was).expect("ours");
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// "RWLayer of container ... is unexpectedly nil": the container is there, and no record has its layer, which is
/// all that is left of what it wrote.
#[apply(test)]
fn a_container_whose_layer_no_record_has() {
    needs::time();
    needs::captured_hosts();
    let host = Host::captured("docker-28-overlay2");
    let container = host.jsonl(["containers"]).exits(0).rows().remove(0);
    let id = text(&container, "id");
    let record = host.at(format!(
        "/var/lib/docker/image/overlay2/layerdb/mounts/{id}"
    ));
    for lost in [record.join("mount-id"), record] {
        if lost.is_dir() {
            fs::remove_dir_all(&lost).expect("ours");
        } else {
            fs::remove_file(&lost).expect("ours");
        }
        let words = format!("RWLayer of container {id} is unexpectedly nil");
        let found = host.jsonl(["orphans"]).exits(2).says(&words);
        assert!(accused(&found).is_empty(), "{}", found.text());
        host.ask(["check"]).exits(2).says(&words);
    }
}

/// Podman lists what its database has, whether or not the store still does.
#[apply(test)]
fn a_container_that_only_podmans_database_has() {
    needs::time();
    needs::captured_hosts();
    let host = Host::captured("podman-5.8-overlay");
    let list = host.at("/var/lib/containers/storage/overlay-containers/containers.json");
    let mut listed: Vec<Value> =
        serde_json::from_slice(&fs::read(&list).expect("a list")).expect("JSON");
    let names = |host: &Host| -> BTreeSet<String> {
        let rows = host.jsonl(["containers"]).exits(0).rows();
        rows.iter()
            .map(|row| text(row, "name").to_owned())
            .collect()
    };
    let whole = names(&host);
    let lost = listed.remove(0);
    let (id, name) = (
        text(&lost, "id"),
        lost["names"][0].as_str().expect("a name"),
    );
    fs::write(&list, serde_json::to_vec(&listed).expect("JSON")).expect("ours");
    assert_eq!(names(&host), whole);
    let found = host.ask(["orphans"]).exits(1);
    assert!(
        found.text().contains("container not known"),
        "{}",
        found.text()
    );
    assert!(found.text().contains(id));
    assert!(accused(&host.jsonl(["orphans"])).is_empty());
    host.ask(["changes", name])
        .exits(2)
        .says("container not known");
}

/// A list that is not there, beside directories that it must have had, was lost: it is not empty.
#[apply(test)]
fn a_list_that_was_lost_is_no_empty_list() {
    needs::time();
    needs::captured_hosts();
    for (kind, verb) in [
        ("images", "images"),
        ("containers", "containers"),
        ("layers", "orphans"),
    ] {
        let host = Host::captured("podman-5.8-overlay");
        let list = format!("/var/lib/containers/storage/overlay-{kind}/{kind}.json");
        fs::remove_file(host.at(&list)).expect("ours");
        host.ask([verb]).exits(2).says(&list);
        host.ask(["check"]).exits(2).says(&list);
    }
}

/// A whole directory of records that was lost: what people remove to get an engine to start again.
#[apply(test)]
fn nobody_is_accused_for_want_of_a_directory_of_records() {
    needs::time();
    needs::captured_hosts();
    let lost: [(&str, &str, &[&str]); 3] = [
        (
            "docker-28-overlay2",
            "/var/lib/docker/image",
            &[
                "overlay2",
                "overlay2/layerdb",
                "overlay2/layerdb/mounts",
                "overlay2/layerdb/sha256",
                "overlay2/imagedb",
            ],
        ),
        (
            "podman-5.8-overlay",
            "/var/lib/containers/storage",
            &["overlay-layers", "overlay-images", "overlay-containers"],
        ),
        (
            "containerd-2.1",
            "/var/lib/containerd",
            &[
                "io.containerd.metadata.v1.bolt",
                "io.containerd.content.v1.content",
            ],
        ),
    ];
    for (name, store, directories) in lost {
        let host = Host::captured(name);
        let unused = unused_bytes(&host);
        assert!(unused.is_some(), "{name}");
        for directory in directories {
            let (at, aside) = (host.at(format!("{store}/{directory}")), host.at("/aside"));
            fs::rename(&at, &aside).expect("ours");
            let found = host.jsonl(["orphans"]);
            assert!(
                accused(&found).is_empty(),
                "{name} without {directory}: {}",
                found.text()
            );
            // What nobody can know is no more than was known.
            assert!(
                unused_bytes(&host) <= unused,
                "{name} without {directory}: {}",
                host.jsonl(["du"]).text()
            );
            fs::rename(&aside, &at).expect("ours");
        }
    }
}

/// The same of every verb that would have an answer: without it nothing is empty in silence.
#[apply(test)]
fn a_lost_directory_of_records_is_said_by_every_list() {
    needs::time();
    needs::captured_hosts();
    let lost: [(&str, &str, &[&str]); 3] = [
        (
            "podman-5.8-overlay",
            "/var/lib/containers/storage",
            &["overlay-images", "overlay-containers"],
        ),
        (
            "docker-28-overlay2",
            "/var/lib/docker",
            &["image", "containers", "overlay2"],
        ),
        (
            "containerd-2.1",
            "/var/lib/containerd",
            &["io.containerd.snapshotter.v1.overlayfs/snapshots"],
        ),
    ];
    for (name, store, directories) in lost {
        let host = Host::captured(name);
        for directory in directories {
            let (at, aside) = (host.at(format!("{store}/{directory}")), host.at("/aside"));
            fs::rename(&at, &aside).expect("ours");
            let verbs: &[&str] = match *directory {
                "overlay-images" => &["images", "du", "orphans", "check"],
                "overlay-containers" => &["containers", "du", "orphans", "check"],
                _ if name.starts_with("docker") => &["containers", "images", "du", "orphans"],
                _ => &["containers", "du", "orphans"],
            };
            for verb in verbs {
                let output = host.ask([*verb]);
                // What it lists and has not is a finding of `orphans`.
                let is_said =
                    output.status == Some(2) || (*verb, output.status) == ("orphans", Some(1));
                assert!(is_said, "{name} {directory} {verb}: {}", output.text());
            }
            let removed = host.ask(["-0", "-q", "orphans"]);
            assert_eq!(removed.text(), "", "{name} {directory}");
            fs::rename(&aside, &at).expect("ours");
        }
    }
}

/// An image that was listed is so under its names, with why it cannot be used.
#[track_caller]
fn assert_cannot_be_used(host: &Host, whole: &Value) {
    let rows = host.jsonl(["images"]).exits(2).rows();
    let row = rows.iter().find(|row| row["id"] == whole["id"]);
    let row = row.expect("its row");
    assert_eq!(row["tags"], whole["tags"]);
    assert!(row["problem"].is_string(), "{row}");
}

/// An image whose configuration or manifest is lost is listed by its name all the same, and every list
/// says why it cannot be used.
#[apply(test)]
fn an_image_that_lost_its_records_keeps_its_name() {
    needs::captured_hosts();
    let host = Host::captured("podman-5.8-overlay");
    host.settle();
    let images = host.at("/var/lib/containers/storage/overlay-images");
    let whole = host.jsonl(["images"]).exits(0).rows();
    let named = whole.iter().find(|row| {
        let is_tagged = row["tags"].as_array().is_some_and(|tags| !tags.is_empty());
        is_tagged && images.join(text(row, "id")).join("manifest").is_file()
    });
    let named = named.expect("an image with a name");
    let own = images.join(text(named, "id"));
    let config = fs::read_dir(&own)
        .expect("a directory")
        .flatten()
        .map(|entry| entry.path());
    let config = config.into_iter().find(|path| {
        path.file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with("=c2h"))
    });
    for lost in [config.expect("a configuration"), own.join("manifest")] {
        let was = fs::read(&lost).expect("a record");
        fs::remove_file(&lost).expect("ours");
        assert_cannot_be_used(&host, named);
        for verb in ["orphans", "check", "du"] {
            let output = host.ask([verb]).exits(2);
            let name = lost.file_name().expect("a name").to_string_lossy();
            assert!(output.stderr.contains(&*name), "{verb}: {}", output.stderr);
        }
        fs::write(&lost, was).expect("ours");
    }

    let host = Host::captured("docker-28-overlay2");
    let images = host.jsonl(["images"]).exits(0).rows();
    let named = images
        .iter()
        .find(|row| row["tags"].as_array().is_some_and(|of| !of.is_empty()));
    let named = named.expect("an image with a name");
    let content = "/var/lib/docker/image/overlay2/imagedb/content/sha256";
    host.file(format!("{content}/{}", text(named, "id")), "{");
    assert_cannot_be_used(&host, named);
}

/// A list of the layers below one that is gone, damaged, or names one twice: the engine starts containers
/// without them, or none.
#[apply(test)]
fn a_spoilt_list_of_the_layers_below_is_found() {
    needs::time();
    needs::captured_hosts();
    for (name, home) in [
        ("docker-28-overlay2", "/var/lib/docker/overlay2"),
        ("podman-5.8-overlay", "/var/lib/containers/storage/overlay"),
    ] {
        let host = Host::captured(name);
        let whole = host.jsonl(["check"]);
        let is_list = |entry: &fs::DirEntry| entry.path().join("lower").is_file();
        let layers = fs::read_dir(host.at(home)).expect("a store").flatten();
        let mut layers: Vec<PathBuf> = layers.filter(is_list).map(|entry| entry.path()).collect();
        layers.sort();
        let lower = layers.pop().expect("a layer above another").join("lower");
        let ids = lower.with_file_name("lower-layers");
        let (was, ids_were) = (fs::read(&lower).expect("a list"), fs::read(&ids).ok());
        let twice = [&was[..], b":", &was[..]].concat();
        let ways: [(&str, Option<&[u8]>); 4] = [
            ("gone", None),
            ("zeros", Some(&[0; 100])),
            ("words", Some(b"not a list")),
            ("twice", Some(&twice)),
        ];
        for (way, content) in ways {
            // The same is in another list in newer ones.
            let _ = fs::remove_file(&ids);
            match content {
                Some(content) => fs::write(&lower, content),
                None => fs::remove_file(&lower),
            }
            .expect("ours");
            let found = host.jsonl(["check"]);
            let path = format!(
                "/{}",
                lower.strip_prefix(host.at("/")).expect("in it").display()
            );
            let mut rows = found.rows().into_iter();
            let row = rows.find(|row| text(row, "path") == path);
            assert!(row.is_some(), "{name} {way}: {}", found.text());
        }
        fs::write(&lower, &was).expect("ours");
        if let Some(were) = ids_were {
            fs::write(&ids, were).expect("ours");
        }
        assert_eq!(host.jsonl(["check"]).stdout, whole.stdout, "{name}");
    }
}
