//! containerd 2: a captured host of a real containerd 2.1 with pods, and small hosts with what
//! that one does not have. What the engine and the kernel said is what layerctl has to say.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use rustix::fs::{XattrFlags, lgetxattr, lsetxattr};
use serde_json::{Map, Value, json};

use crate::docker_drivers::View;
use crate::lab::captured::{Captured, Shared};
use crate::lab::fixture;
use crate::lab::host::Host;
use crate::lab::needs;
use crate::lab::run::{text, texts};
use crate::whois::bolt::{self, Bucket, Item};

const ROOT: &str = "/var/lib/containerd";
const OVERLAYFS: &str = "/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs";
/// Kubernetes' names of the containers whose pod has users of its own.
const OWN_USERS: [&str; 3] = ["usr-0", "usr-0/u", "usr-0/u2"];
/// The first of the host's ids that these users are.
const FIRST_ID: u64 = 100_000;

fn captured() -> Arc<Captured> {
    static SHARED: Shared<Captured> = Shared::new();
    needs::captured_hosts();
    SHARED.get(|| Captured::new("containerd-2.1"))
}

/// The namespace, the id and the name of every container.
fn containers(host: &Host) -> Vec<(String, String, String)> {
    let rows = host.jsonl(["containers"]).exits(0).rows();
    let of = |row: &Value, field: &str| text(row, field).to_owned();
    let named = rows.iter();
    named
        .map(|row| (of(row, "namespace"), of(row, "id"), of(row, "name")))
        .collect()
}

// ---- the captured host ----

#[apply(test)]
fn the_view_is_the_kernels_users_of_a_pods_own_too() {
    needs::time();
    let captured = captured();
    let mut compared = 0;
    for (namespace, id, name) in containers(&captured.host) {
        let mut said = captured.view(&format!("{namespace}-merged-{id}"));
        let tasks = captured.said(&format!("{namespace}-tasks.txt"));
        let runs = tasks.lines().any(|line| line.starts_with(&id));
        if OWN_USERS.contains(&name.as_str()) && !runs {
            // The mount that was made for the question did not map what is below.
            shift_below(&mut said);
        }
        let ask = ["-n", &namespace, "ls", "-R", "-l", &id];
        captured.compare_view(&ask, said, &BTreeSet::new(), runs);
        compared += 1;
    }
    assert_eq!(compared, 21);
}

fn shift_below(view: &mut View) {
    for entry in view.values_mut() {
        if let Some((_, user, group)) = &mut entry.rights {
            for id in [user, group] {
                if *id < FIRST_ID {
                    *id += FIRST_ID;
                }
            }
        }
    }
}

#[apply(test)]
fn changes_are_the_differs_but_where_it_does_not_know_the_pods_users() {
    needs::time();
    let captured = captured();
    for (namespace, id, name) in containers(&captured.host) {
        let ask = ["-n", &namespace, "changes", &id];
        if OWN_USERS.contains(&name.as_str()) {
            continue;
        }
        let lower = format!("{namespace}-lower-{id}.jsonl");
        let below = if captured.truth.contains_key(&lower) {
            captured.view(lower.trim_end_matches(".jsonl"))
        } else {
            // The native one: what it stands on is another's image.
            captured.view("default-lower-live")
        };
        let said = captured.differ(&format!("{namespace}-diff-{id}"), &below);
        captured.compare_changes(&ask, &said);
    }
    // The same program ran in both; a device cannot be made in a user namespace.
    let changed = |name: &str| {
        captured
            .host
            .ask(["changes", name])
            .exits(0)
            .text()
            .to_owned()
    };
    let (own, plain) = (changed("usr-0/u"), changed("web-0/app"));
    assert_eq!(own, plain.replace("C /data/null\n", "D /data/null\n"));
    let expected = "C /data\nC /data/t\nD /data/t/d2f\nD /data/t/f2d\nD /data/t/f2l\nD /data/t/l2f\n\
                    D /data/t/same\nC /etc\nA /etc/hostname\nD /etc/passwd\nA /u2\n";
    assert_eq!(changed("usr-0/u2"), expected);
    assert_eq!(changed("usr-0"), changed("web-0"));
    // No copy differs in its owner.
    let rows = captured.host.jsonl(["copyups", "usr-0/u"]).exits(0).rows();
    assert!(rows.len() >= 6, "{rows:?}");
    for row in rows {
        let differs = row["differs"].to_string();
        assert!(!differs.contains("owner"), "{row}");
    }
}

/// An access list that lets one user read.
fn access_list(user: u32) -> Vec<u8> {
    let entry = |tag: u16, id: u32| {
        [
            &tag.to_le_bytes()[..],
            &4u16.to_le_bytes(),
            &id.to_le_bytes(),
        ]
        .concat()
    };
    let none = u32::MAX;
    let entries = [(1, none), (2, user), (4, none), (16, none), (32, none)];
    let entries = entries.map(|(tag, id)| entry(tag, id)).concat();
    [&2u32.to_le_bytes()[..], &entries].concat()
}

#[apply(test)]
fn what_is_restored_has_the_owner_that_the_pod_shows() {
    needs::time();
    needs::root("a copy has another's owner");
    needs::captured_hosts();
    let host = Host::captured("containerd-2.1");
    let rows = host.jsonl(["branches", "usr-0/u2"]).exits(0).row();
    let branches = rows["branches"].as_array().expect("branches").iter();
    let has_it = |at: &PathBuf| fs::symlink_metadata(at).is_ok_and(|meta| meta.is_file());
    let lower = branches
        .map(|branch| host.at(format!("{}/etc/passwd", text(branch, "directory"))))
        .find(has_it)
        .expect("a layer has it");
    let (access, note) = ("system.posix_acl_access", "user.note");
    let set = |name, value: &[u8]| lsetxattr(&lower, name, value, XattrFlags::empty());
    set(access, &access_list(5)).expect("a file system with access lists");
    set(note, &access_list(5)).expect("a file system with attributes");
    host.ask([
        "restore",
        "--write",
        "--strategy",
        "copy",
        "usr-0/u2:/etc/passwd",
    ])
    .exits(0);
    let rows = host.jsonl(["branches", "usr-0/u2"]).exits(0).row();
    let upper = text(&rows["branches"][0], "directory").to_owned();
    let copy = fs::symlink_metadata(host.at(format!("{upper}/etc/passwd"))).expect("a copy");
    assert_eq!(u64::from(copy.uid()), FIRST_ID);
    assert_eq!(u64::from(copy.gid()), FIRST_ID);
    let shown = 5 + u32::try_from(FIRST_ID).expect("a small number");
    for (name, expected) in [(access, access_list(shown)), (note, access_list(5))] {
        let mut value = [0; 256];
        let at = host.at(format!("{upper}/etc/passwd"));
        let length = lgetxattr(at, name, &mut value[..]).expect("the copy has it");
        assert_eq!(value[..length], expected, "{name}");
    }
    let row = host.jsonl(["which", "usr-0/u2:/etc/passwd"]).exits(0).row();
    assert_eq!(row["branch"], 0, "{row}");
}

#[apply(test)]
fn states_are_what_the_engine_says_or_what_is_known() {
    needs::time();
    let captured = captured();
    let rows = captured.host.jsonl(["containers"]).exits(0).rows();
    let row = |id: &str| {
        let mut rows = rows.iter();
        rows.find(|row| row["id"] == id).expect("it is listed")
    };
    // Without a task: whether it ever ran, its snapshot tells. With what it ended, nothing.
    for (id, state) in [
        ("three", "exited"),
        ("halted", "exited"),
        ("made", "created"),
    ] {
        assert_eq!(row(id)["state"], state, "{}", row(id));
        assert_eq!(row(id)["exit_code"], Value::Null, "{}", row(id));
    }
    // The copy has no control groups, and the process waits as frozen ones do.
    assert_eq!(row("paused")["state"], "unknown");
    for id in ["live", "locked", "nat"] {
        assert_eq!(row(id)["state"], "running", "{}", row(id));
    }
    let info = captured.host.jsonl(["info"]).exits(0).row();
    let engine = &info["engines"][0];
    let counts = ["running_count", "stopped_count", "unknown_count"].map(|of| engine[of].clone());
    assert_eq!(counts, [12, 8, 1].map(Value::from));
    for of in captured.jsonl("cri-containers.jsonl") {
        let row = row(text(&of, "id"));
        let state = match of["state"].as_str().unwrap_or_default() {
            "CONTAINER_RUNNING" => "running",
            "CONTAINER_EXITED" => "exited",
            _ => "created",
        };
        assert_eq!(row["state"], state, "{row}");
    }
    for of in captured.jsonl("cri-pods.jsonl") {
        let row = row(text(&of, "id"));
        let is_ready = of["state"] != "SANDBOX_NOTREADY";
        assert_eq!(
            row["state"],
            if is_ready { "running" } else { "exited" },
            "{row}"
        );
        // A sandbox is started as it is created.
        assert_eq!(row["started"], row["created"], "{row}");
    }
}

#[apply(test)]
fn images_are_told_apart_by_namespace_and_found_by_every_name() {
    needs::time();
    let captured = captured();
    let table = captured.host.ask(["images"]).exits(0).text().to_owned();
    assert!(table.starts_with("NAMESPACE "), "{table}");
    let lines: BTreeSet<&str> = table.lines().collect();
    assert_eq!(lines.len(), table.lines().count(), "{table}");
    let history = |name: &str| {
        let rows = captured.host.jsonl(["history", name]).exits(0).rows();
        rows.iter()
            .map(|row| row["diff_id"].to_string())
            .collect::<Vec<_>>()
    };
    // Kubernetes' id of it, which one namespace has, and people's name.
    for of in captured.jsonl("cri-images.jsonl") {
        let id = text(&of, "id");
        let hex = id.trim_start_matches("sha256:");
        let tag = of["repo_tags"][0].as_str().expect("a tag");
        let whole = history(tag);
        let familiar = tag.trim_start_matches("docker.io/library/");
        for name in [id, hex, &hex[..12], familiar] {
            assert_eq!(history(name), whole, "{name}");
        }
    }
    assert_eq!(history("app"), history("docker.io/library/app:latest"));
}

#[apply(test)]
fn an_image_has_a_line_for_each_tag() {
    let host = &captured().host;
    let table = host.ask(["images"]).exits(0).text().to_owned();
    // The names by which the CRI knows images are ids.
    assert!(!table.contains("sha256:"), "{table}");
    assert_eq!(table.lines().count(), 8, "{table}");
}

#[apply(test)]
fn nothing_of_a_living_host_is_accused() {
    needs::time();
    let captured = captured();
    let found = captured.host.ask(["orphans"]).exits(0);
    assert_eq!(found.text(), "nothing found\n");
    let found = captured.host.ask(["orphans", "--unused"]).exits(0);
    assert_eq!(found.text(), "nothing found\n");
}

// ---- small hosts ----

/// A tree of names as a database has it: text, small numbers, and sizes.
fn bucket(of: &Map<String, Value>) -> Bucket {
    let item = |name: &String, value: &Value| match value {
        Value::Object(below) => Item::Bucket(bucket(below)),
        Value::String(text) => bolt::text(text),
        Value::Number(number) => {
            let number = u8::try_from(number.as_u64().expect("a number")).expect("a small one");
            assert!(number < 64);
            // Sizes are signed.
            Item::Value(vec![if name == "size" { number * 2 } else { number }])
        }
        other => panic!("{other}"),
    };
    of.iter()
        .map(|(name, value)| (name.clone().into_bytes(), item(name, value)))
        .collect()
}

fn database(of: Value) -> Vec<u8> {
    bolt::write(&bucket(json!({ "v1": of }).as_object().expect("an object")))
}

const VIEW: u8 = 1;
const ACTIVE: u8 = 2;
const COMMITTED: u8 = 3;

/// A snapshot: number, key, number of the one below.
struct Snapshot(u8, &'static str, u8, Option<u8>);

/// What a namespace has, beside snapshots.
struct Small {
    host: Host,
    namespace: Map<String, Value>,
}

impl Small {
    fn new() -> Small {
        Small {
            host: Host::empty(),
            namespace: Map::new(),
        }
    }

    fn put(&mut self, what: &str, name: &str, value: Value) -> &mut Small {
        let of = self.namespace.entry(what).or_insert_with(|| json!({}));
        of[name] = value;
        self
    }

    fn container(&mut self, id: &str, snapshotter: &str, image: &str) -> &mut Small {
        let record = json!({"image": image, "snapshotter": snapshotter, "snapshotKey": id});
        self.put("containers", id, record)
    }

    /// The snapshots of a snapshotter whose records are in `at`; none where these are elsewhere.
    fn snapshots(&mut self, snapshotter: &str, at: Option<&str>, all: &[Snapshot]) -> &mut Small {
        let full = |of: &Snapshot| format!("default/{}/{}", of.0, of.1);
        let below = |number: u8| all.iter().find(|of| of.0 == number).expect("one below");
        let (mut names, mut own) = (json!({}), json!({}));
        for of in all {
            names[of.1] = json!({"name": full(of)});
            let mut record = json!({"id": of.0, "kind": of.2});
            if let Some(parent) = of.3 {
                names[of.1]["parent"] = json!(below(parent).1);
                record["parent"] = json!(full(below(parent)));
            }
            own[full(of)] = record;
        }
        if let Some(at) = at {
            let file = database(json!({"snapshots": own}));
            self.host.file(format!("{at}/metadata.db"), file);
        }
        self.put("snapshots", snapshotter, names)
    }

    /// An image of one layer, whose chain id is what it returns.
    fn image(&mut self, name: &str) -> &'static str {
        const LAYER: &str =
            "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
        let digest = |letter: &str| format!("sha256:{}", letter.repeat(64));
        let blob = |host: &Host, digest: &str, content: &Value| {
            let at = digest.replace(':', "/");
            let at = format!("{ROOT}/io.containerd.content.v1.content/blobs/{at}");
            host.file(at, content.to_string());
        };
        let config = json!({
            "created": "2026-01-01T00:00:00Z",
            "history": [{"created_by": "COPY it"}],
            "rootfs": {"type": "layers", "diff_ids": [LAYER]},
        });
        blob(&self.host, &digest("c"), &config);
        let manifest = json!({"config": {"digest": digest("c"), "size": 1}, "layers": [{"digest": digest("d"), "size": 1}]});
        blob(&self.host, &digest("b"), &manifest);
        let target = json!({"digest": digest("b"), "size": 1});
        self.put("images", name, json!({"target": target}));
        LAYER
    }

    fn save(&self) -> &Host {
        let meta = database(json!({"default": self.namespace}));
        let path = format!("{ROOT}/io.containerd.metadata.v1.bolt/meta.db");
        self.host.file(path, meta);
        &self.host
    }
}

fn listed(host: &Host, target: &str) -> Vec<String> {
    let rows = host.jsonl(["ls", target]).exits(0).rows();
    texts(&rows, "path")
        .into_iter()
        .map(str::to_owned)
        .collect()
}

fn rows_by<'r>(rows: &'r [Value], field: &str) -> BTreeMap<&'r str, &'r Value> {
    rows.iter().map(|row| (text(row, field), row)).collect()
}

#[apply(test)]
fn a_view_of_a_whole_copy_is_the_copy() {
    let mut small = Small::new();
    let native = format!("{ROOT}/io.containerd.snapshotter.v1.native");
    let all = [
        Snapshot(1, "sha256:aa", COMMITTED, None),
        Snapshot(2, "looked-at", VIEW, Some(1)),
    ];
    small.snapshots("native", Some(&native), &all);
    small.host.file(format!("{native}/snapshots/1/file"), "x");
    let host = small.save();
    assert_eq!(listed(host, "looked-at"), ["/file"]);
    assert_eq!(host.ask(["changes", "looked-at"]).exits(0).text(), "");
    let row = host.jsonl(["branches", "looked-at"]).exits(0).row();
    assert_eq!(
        row["branches"][0]["directory"],
        format!("{native}/snapshots/1")
    );
    assert_eq!(row["branches"][0]["role"], "snapshot");
    assert_eq!(row["branches"][0]["permission"], "ro");
    assert_eq!(host.ask(["orphans"]).exits(0).text(), "nothing found\n");
}

/// As containerd 1.7 does it for a pod with users of its own: their first ids are in the copy's key.
#[apply(test)]
fn an_image_that_was_copied_for_other_owners_is_still_the_image() {
    let mut small = Small::new();
    let layer = small.image("it:1");
    let copy: &'static str = format!("{layer}-200000-200000").leak();
    let all = [
        Snapshot(1, layer, COMMITTED, None),
        Snapshot(2, copy, COMMITTED, Some(1)),
        Snapshot(3, "own-users", ACTIVE, Some(2)),
    ];
    small.snapshots("overlayfs", Some(OVERLAYFS), &all);
    small.container("own-users", "overlayfs", "it:1");
    for number in [1, 2, 3] {
        small
            .host
            .file(format!("{OVERLAYFS}/snapshots/{number}/fs/{number}"), "x");
    }
    let host = small.save();
    let rows = host.jsonl(["history", "own-users"]).exits(0).rows();
    let steps = rows.iter().filter(|row| row["instruction"] == "COPY it");
    assert_eq!(steps.count(), 1, "{rows:?}");
    let row = host.jsonl(["containers"]).exits(0).row();
    assert_eq!(row["image_id"], "b".repeat(64), "{row}");
}

#[apply(test)]
fn a_snapshot_that_somebody_works_in_is_no_layer_of_an_image() {
    let mut small = Small::new();
    let layer = small.image("it:1");
    let all = [
        Snapshot(1, layer, COMMITTED, None),
        Snapshot(2, "by-hand", ACTIVE, Some(1)),
    ];
    small.snapshots("overlayfs", Some(OVERLAYFS), &all);
    for number in [1, 2] {
        small
            .host
            .file(format!("{OVERLAYFS}/snapshots/{number}/fs/{number}"), "x");
    }
    let host = small.save();
    let row = host.jsonl(["branches", "by-hand"]).exits(0).row();
    let branches = row["branches"].as_array().expect("branches");
    assert_eq!(texts(branches, "role"), ["snapshot", "image 1/1"]);
    assert_eq!(texts(branches, "permission"), ["rw", "ro"]);
    assert_eq!(host.ask(["changes", "by-hand"]).exits(0).text(), "A /2\n");
}

#[apply(test)]
fn btrfs_has_whole_copies_by_kind() {
    let mut small = Small::new();
    let btrfs = format!("{ROOT}/io.containerd.snapshotter.v1.btrfs");
    let layer = small.image("it:1");
    let all = [
        Snapshot(1, layer, COMMITTED, None),
        Snapshot(2, "web", ACTIVE, Some(1)),
        Snapshot(3, "looked-at", VIEW, Some(1)),
    ];
    small.snapshots("btrfs", Some(&btrfs), &all);
    small.container("web", "btrfs", "it:1");
    for (at, name) in [
        ("snapshots/1", "old"),
        ("snapshots/1", "same"),
        ("active/2", "same"),
        ("active/2", "new"),
        ("view/3", "old"),
        ("view/3", "same"),
    ] {
        small.host.file(format!("{btrfs}/{at}/{name}"), "x");
    }
    // A snapshot has its parent's times.
    for at in ["snapshots/1", "active/2", "view/3"] {
        let same = fs::File::open(small.host.at(format!("{btrfs}/{at}/same"))).expect("our own");
        same.set_modified(SystemTime::UNIX_EPOCH).expect("our own");
    }
    let host = small.save();
    assert_eq!(
        host.ask(["changes", "web"]).exits(0).text(),
        "D /old\nA /new\n"
    );
    assert_eq!(listed(host, "looked-at"), ["/old", "/same"]);
    assert_eq!(host.ask(["orphans"]).exits(0).text(), "nothing found\n");
    let row = host
        .jsonl(["whois", &format!("{btrfs}/active/2/new")])
        .exits(0)
        .row();
    assert_eq!(row["kind"], "container", "{row}");
    let images = host.jsonl(["images"]).exits(0).rows();
    assert_eq!(images[0]["driver"], "btrfs");
    // What no record has is found where it lies.
    host.file(format!("{btrfs}/active/9/file"), "x");
    let rows = host.jsonl(["orphans"]).exits(1).rows();
    assert_eq!(texts(&rows, "path"), [format!("{btrfs}/active/9")]);
}

#[apply(test)]
fn what_is_mounted_by_its_key_is_in_use() {
    let mut small = Small::new();
    let layer = small.image("it:1");
    let volume =
        "/run/containerd/io.containerd.grpc.v1.cri/image-volumes/0123456789abcdef/sha256:aa";
    let all = [
        Snapshot(1, layer, COMMITTED, None),
        Snapshot(2, "/mnt/it", VIEW, Some(1)),
        Snapshot(3, volume, ACTIVE, Some(1)),
        Snapshot(4, "forgotten", ACTIVE, Some(1)),
    ];
    small.snapshots("overlayfs", Some(OVERLAYFS), &all);
    for number in 1..=4 {
        small.host.dir(format!("{OVERLAYFS}/snapshots/{number}/fs"));
    }
    let host = small.save();
    let rows = host.jsonl(["orphans", "--unused"]).exits(1).rows();
    assert_eq!(texts(&rows, "name"), ["default/forgotten"]);
    assert_eq!(rows[0]["command"], "ctr -n default snapshots rm forgotten");
    let row = host.jsonl(["whois", "containerd:2"]).exits(0).row();
    assert_eq!(row["kind"], "view", "{row}");
    assert!(row.to_string().contains("/mnt/it"), "{row}");
    let row = host.jsonl(["whois", "containerd:3"]).exits(0).row();
    assert_eq!(row["kind"], "in-use", "{row}");
    assert!(row.to_string().contains("the pod 0123456789ab"), "{row}");
}

#[apply(test)]
fn downloads_leases_and_blobs_are_named() {
    let mut small = Small::new();
    small.image("it:1");
    let digest = |letter: &str| format!("sha256:{}", letter.repeat(64));
    let refers = json!({"containerd.io/gc.ref.content.config": digest("c"), "containerd.io/gc.ref.content.l.0": digest("d")});
    small.put(
        "content",
        "blob",
        json!({
            digest("b"): {"size": 1, "labels": refers},
            digest("c"): {"size": 1},
            digest("d"): {"size": 1},
            digest("e"): {"size": 9},
            digest("f"): {"size": 7},
            digest("1"): {"size": 7, "labels": {"containerd.io/gc.root": "x"}},
        }),
    );
    small.put(
        "leases",
        "pull-1",
        json!({
            "labels": {"containerd.io/gc.expire": "2100-11-28T00:00:00Z"},
            "content": {digest("e"): ""},
            "ingests": {"layer-sha256:77": ""},
        }),
    );
    let ingest = format!("{ROOT}/io.containerd.content.v1.content/ingest/0a0b");
    let host = &small.host;
    host.file(format!("{ingest}/ref"), "default/5/layer-sha256:77");
    host.file(format!("{ingest}/startedat"), "2026-11-27T00:00:00Z");
    host.file(format!("{ingest}/data"), "part");
    let host = small.save();
    let rows = host.jsonl(["orphans", "--unused"]).exits(1).rows();
    let by_name = rows_by(&rows, "name");
    assert_eq!(by_name.len(), 3, "{rows:?}");
    let why = |name: &str| text(by_name[name], "why");
    let leased = format!("default/{}", digest("e"));
    assert_eq!(
        why(&leased),
        "the lease pull-1 holds it until 2100-11-28T00:00:00Z"
    );
    assert_eq!(by_name[leased.as_str()]["kind"], "in-progress");
    let free = by_name[format!("default/{}", digest("f")).as_str()];
    assert_eq!(free["kind"], "blob");
    assert_eq!(free["disk"], 7);
    let command = format!("ctr -n default content rm {}", digest("f"));
    assert_eq!(free["command"], command);
    let ingest = why("default/5/layer-sha256:77");
    assert!(
        ingest.contains("being downloaded since 2026-11-27"),
        "{ingest}"
    );
    assert!(
        ingest.contains("the lease pull-1 holds it until"),
        "{ingest}"
    );
}

/// Nobody's any more, and nobody's fault: listed by itself, and the status is that of no finding.
#[apply(test)]
fn what_the_next_collection_takes_is_no_orphan() {
    let mut small = Small::new();
    small.image("it:1");
    let (past, future) = ("2020-01-02T03:04:05Z", "2999-01-02T03:04:05Z");
    let digest = |letter: &str| format!("sha256:{}", letter.repeat(64));
    let lease = |until: &str, letter: &str| {
        json!({
            "labels": {"containerd.io/gc.expire": until},
            "content": {digest(letter): ""},
            "ingests": {format!("of-{letter}"): ""},
        })
    };
    small.put("leases", "over", lease(past, "e"));
    small.put("leases", "held", lease(future, "f"));
    let blobs = ["b", "c", "e", "f"].map(|letter| (digest(letter), json!({"size": 7})));
    small.put(
        "content",
        "blob",
        Value::Object(blobs.into_iter().collect()),
    );
    let store = format!("{ROOT}/io.containerd.content.v1.content");
    let host = &small.host;
    let mut ingests = serde_json::Map::new();
    for (number, name) in ["of-e", "of-f", "of-nobody", "lost"].iter().enumerate() {
        let reference = format!("default/{number}/{name}");
        host.file(format!("{store}/ingest/{number}/ref"), &reference);
        host.file(format!("{store}/ingest/{number}/data"), "part");
        if *name != "lost" {
            ingests.insert((*name).to_owned(), json!({"ref": reference}));
        }
    }
    small.put("content", "ingests", ingests.into());
    for letter in ["e", "f", "a"] {
        small.host.file(
            format!("{store}/blobs/sha256/{}", letter.repeat(64)),
            letter,
        );
    }
    let host = small.save();
    let rows = host.jsonl(["orphans"]).exits(0).rows();
    let whys: Vec<&str> = texts(&rows, "why");
    let has = |part: &str| whys.iter().filter(|why| why.contains(part)).count();
    assert_eq!(rows.len(), 5, "{rows:#?}");
    assert!(
        rows.iter().all(|row| row["kind"] == "collected"),
        "{rows:#?}"
    );
    assert_eq!(
        has("the lease default/over expired at 2020-01-02T03:04:05Z"),
        1
    );
    assert_eq!(has("default/0/of-e, and its own time is over"), 1);
    assert_eq!(has("default/2/of-nobody, and its own time is over"), 1);
    assert_eq!(
        has("the download default/3/lost is in no namespace's records"),
        1
    );
    assert_eq!(has("no namespace has this content"), 1);
    // Nobody is to remove what the engine does.
    assert_eq!(host.ask(["orphans", "-q"]).exits(0).text(), "");
}

/// What a layer is that mkfs.erofs made (fixtures/erofs/make.py): of a tar file as it is unpacked, or
/// as it is indexed.
fn erofs_layer(name: &str) -> Vec<u8> {
    let path = fixture("erofs").join(format!("{name}.erofs.zst"));
    zstd::decode_all(fs::File::open(path).expect("a fixture")).expect("a zstd stream")
}

#[apply(test)]
fn erofs_snapshots_are_images_below_a_directory() {
    needs::fixtures();
    needs::root("to be told of trusted attributes, and to make devices");
    for image in ["layer", "index"] {
        let mut small = Small::new();
        let erofs = format!("{ROOT}/io.containerd.snapshotter.v1.erofs");
        let layer = small.image("it:1");
        let all = [
            Snapshot(1, "sha256:base", COMMITTED, None),
            Snapshot(2, layer, COMMITTED, Some(1)),
            Snapshot(3, "web", ACTIVE, Some(2)),
            Snapshot(4, "looked-at", VIEW, Some(2)),
        ];
        small.snapshots("erofs", Some(&erofs), &all);
        small.container("web", "erofs", "it:1");
        let host = &small.host;
        for number in 1..=4 {
            host.dir(format!("{erofs}/snapshots/{number}/fs"));
            host.file(format!("{erofs}/snapshots/{number}/.erofslayer"), "");
        }
        // The base is the same without marks; what is above it hides nothing of another name.
        for number in [1, 2] {
            let at = format!("{erofs}/snapshots/{number}/layer.erofs");
            host.file(at, erofs_layer(image));
        }
        host.file(format!("{erofs}/snapshots/3/fs/file"), "changed");
        host.file(format!("{erofs}/snapshots/3/fs/new"), "new");
        let deleted = host.at(format!("{erofs}/snapshots/3/fs/hidden"));
        let device = rustix::fs::makedev(0, 0);
        let kind = rustix::fs::FileType::CharacterDevice;
        let mode = rustix::fs::Mode::empty();
        rustix::fs::mknodat(rustix::fs::CWD, &deleted, kind, mode, device).expect("a whiteout");
        let host = small.save();
        let row = host.jsonl(["branches", "web"]).exits(0).row();
        let branches = row["branches"].as_array().expect("branches");
        let directories = texts(branches, "directory");
        let expected = ["3/fs", "2/layer.erofs", "1/layer.erofs"];
        assert_eq!(
            directories,
            expected.map(|of| format!("{erofs}/snapshots/{of}"))
        );
        assert_eq!(
            host.ask(["changes", "web"]).exits(0).text(),
            "C /file\nD /hidden\nA /new\n"
        );
        assert_eq!(
            listed(host, "looked-at"),
            ["/file", "/gone-from", "/hidden"]
        );
        let row = host
            .jsonl(["which", "looked-at:/hidden/new"])
            .exits(0)
            .row();
        assert_eq!(row["layer"], "2", "{row}");
        host.ask(["which", "looked-at:/gone-from/it"]).exits(1);
        let marks = host.jsonl(["whiteouts", "--all-layers", "looked-at"]);
        let marks = marks.exits(0).rows();
        let marks: Vec<(&str, &str)> = marks
            .iter()
            .map(|row| (text(row, "kind"), text(row, "path")))
            .collect();
        assert!(marks.contains(&("whiteout", "/gone-from/it")), "{marks:?}");
        assert!(marks.contains(&("opaque", "/hidden")), "{marks:?}");
        let copied = host.jsonl(["copyups", "web"]).exits(0).rows();
        assert_eq!(texts(&copied, "path"), ["/file"]);
        let out = tempfile::tempdir().expect("a directory");
        let to = out.path().to_str().expect("text");
        host.ask(["restore", "-r", "--to", to, "web:/hidden"])
            .exits(0);
        let content = fs::read(out.path().join("hidden/new")).expect("what was restored");
        assert_eq!(content, b"content of hidden/new");
        assert_eq!(host.ask(["orphans"]).exits(0).text(), "nothing found\n");
        let du = host.ask(["du"]).exits(0);
        assert!(!du.text().contains("unknown"), "{}", du.text());
        let row = host.jsonl(["whois", &format!("{erofs}/snapshots/2/layer.erofs")]);
        assert_eq!(row.exits(0).row()["layer"], "2");
        host.file(format!("{erofs}/snapshots/2/layer.erofs"), "no image");
        host.ask(["ls", "web"]).exits(2).says("nor an EROFS image");
    }
}

#[apply(test)]
fn what_is_not_read_is_told_from_the_records_and_never_empty() {
    let devmapper = format!("{ROOT}/io.containerd.snapshotter.v1.devmapper");
    // The second keeps its records elsewhere: a process of its own.
    for (snapshotter, at) in [("devmapper", Some(devmapper.as_str())), ("stargz", None)] {
        let mut small = Small::new();
        let layer = small.image("it:1");
        let all = [
            Snapshot(1, layer, COMMITTED, None),
            Snapshot(2, "web", ACTIVE, Some(1)),
        ];
        small.snapshots(snapshotter, at, &all);
        small.container("web", snapshotter, "it:1");
        let host = small.save();
        let row = host.jsonl(["branches", "web"]);
        let row = row.row();
        let branches = row["branches"].as_array().expect("branches");
        assert_eq!(texts(branches, "role"), ["container", "image 1/1"]);
        assert_eq!(texts(branches, "layer"), ["2", "1"]);
        let history = host.ask(["history", "web"]);
        assert!(history.text().contains("COPY it"), "{}", history.text());
        let row = host.jsonl(["whois", "containerd:2"]).row();
        assert_eq!(row["kind"], "container", "{row}");
        for ask in [
            &["ls", "web"][..],
            &["changes", "web"],
            &["which", "web:/etc"],
        ] {
            host.ask(ask).exits(2).says("does not read");
        }
        let du = host.ask(["du"]).exits(2);
        let line = du.text().lines().find(|line| line.ends_with("web"));
        let line = line.expect("the container");
        assert!(line.contains("unknown"), "{line}");
    }
}

#[apply(test)]
fn a_snapshotters_own_directory_and_what_is_imported_are_heeded() {
    let mut small = Small::new();
    let layer = small.image("it:1");
    let all = [
        Snapshot(1, layer, COMMITTED, None),
        Snapshot(2, "web", ACTIVE, Some(1)),
    ];
    small.snapshots("overlayfs", Some("/data/snapshots"), &all);
    small.container("web", "overlayfs", "it:1");
    let host = &small.host;
    host.file("/data/snapshots/snapshots/1/fs/below", "x");
    host.file("/data/snapshots/snapshots/2/fs/own", "x");
    host.file(
        "/etc/containerd/config.toml",
        "version = 3\nimports = ['conf.d/*.toml']\n",
    );
    let section =
        "[plugins.'io.containerd.snapshotter.v1.overlayfs']\nroot_path = '/data/snapshots'\n";
    host.file("/etc/containerd/conf.d/10.toml", section);
    let host = small.save();
    assert_eq!(listed(host, "web"), ["/below", "/own"]);
    assert_eq!(host.ask(["changes", "web"]).exits(0).text(), "A /own\n");
    let row = host
        .jsonl(["whois", "/data/snapshots/snapshots/1/fs/below"])
        .exits(0)
        .row();
    assert_eq!(row["kind"], "image", "{row}");
    // It is not in what is walked.
    host.ask(["du"]).exits(2).says("not known");
    host.file("/etc/containerd/conf.d/20.toml", "[");
    host.ask(["ls", "web"]).exits(2).says("20.toml");
}
