//! What is missing in the middle of a store, what its engine stumbles over, what nothing uses, and
//! what takes the space.

use std::fs;

use serde_json::{Value, json};

use crate::lab::host::Host;
use crate::lab::run::text;
use crate::lab::store::{
    CONTAINERD, DOCKER, Namespace, PODMAN, Snapshot, containerd, docker_container, id,
    linked_layer, of_kind, podman_lists, short,
};

const SNAPSHOTTER: &str = "io.containerd.snapshotter.v1.overlayfs";

fn one_container() -> Namespace {
    Namespace {
        snapshots: vec![
            Snapshot(1, "base", None, 3),
            Snapshot(2, "web", Some("base"), 2),
        ],
        containers: vec![("web", "web")],
        ..Namespace::default()
    }
}

#[apply(test)]
fn a_lost_database_is_told_by_every_verb() {
    for lost in [
        format!("{CONTAINERD}/{SNAPSHOTTER}/metadata.db"),
        format!("{CONTAINERD}/io.containerd.metadata.v1.bolt/meta.db"),
    ] {
        let host = Host::empty();
        containerd(&host, CONTAINERD, &[("default", one_container())], &[]);
        host.jsonl(["orphans"]).exits(0);
        fs::remove_file(host.at(&lost)).expect("our own");
        for verb in ["orphans", "du", "check"] {
            let output = host.ask([verb]).exits(2);
            assert!(output.stderr.contains(&lost), "{verb}: {}", output.stderr);
            assert!(!output.text().contains("nothing found\n"), "{verb}");
        }
        let snapshot = format!("{CONTAINERD}/{SNAPSHOTTER}/snapshots/1");
        host.ask(["whois", &snapshot]).exits(2);
    }
}

#[apply(test)]
fn an_image_without_its_manifest_is_listed_with_its_error() {
    let host = Host::empty();
    let digest = format!("sha256:{}", id('d'));
    let namespace = Namespace {
        images: vec![("reg/z:1", digest.clone())],
        ..one_container()
    };
    containerd(&host, CONTAINERD, &[("default", namespace)], &[]);
    let output = host.jsonl(["images"]).exits(2);
    let row = output.row();
    assert_eq!(row["tags"], json!(["reg/z:1"]));
    assert_eq!(
        row["problem"],
        format!("content digest {digest}: not found")
    );
    assert!(output.stderr.contains("reg/z:1"), "{}", output.stderr);
    for verb in ["orphans", "du"] {
        host.ask([verb]).exits(2);
    }
    host.ask(["branches", "reg/z:1"]).exits(2);
}

#[apply(test)]
fn an_image_whose_layers_have_no_record_is_listed_with_its_error() {
    let host = Host::empty();
    let diff = format!("sha256:{}", id('7'));
    let image = json!({"rootfs": {"diff_ids": [diff]}, "history": [{"created_by": "x"}], "created": "2026-01-02T03:04:05Z"});
    let path = format!("{DOCKER}/image/overlay2/imagedb/content/sha256/{}", id('9'));
    host.file(&path, image.to_string());
    let output = host.jsonl(["images"]).exits(2);
    assert!(text(&output.row(), "problem").contains("layer does not exist"));
    let found = host.jsonl(["orphans"]).exits(1);
    assert_eq!(of_kind(&found, "metadata"), [path]);
}

/// The findings of `check` without a target, each with its path.
fn findings(host: &Host) -> Vec<(String, String)> {
    let rows = host.jsonl(["check"]).exits(1).rows();
    let mut found: Vec<(String, String)> = rows
        .iter()
        .map(|row| {
            (
                text(row, "finding").to_owned(),
                text(row, "path").to_owned(),
            )
        })
        .collect();
    found.sort();
    found
}

fn podman_store() -> Host {
    let host = Host::empty();
    let home = format!("{PODMAN}/overlay");
    linked_layer(&host, &home, 'a', &[]);
    linked_layer(&host, &home, 'b', &['a']);
    let layers = json!([{"id": id('a')}, {"id": id('b'), "parent": id('a')}]);
    podman_lists(&host, PODMAN, &layers, &json!([]), &json!([]));
    host
}

/// What is spoilt, the finding, its path, and the engine's words.
type Fault<'a> = (&'a dyn Fn(&Host), &'a str, String, &'a str);

#[apply(test)]
fn what_an_engine_stumbles_over_is_found_with_its_words() {
    let home = format!("{PODMAN}/overlay");
    let links = format!("{home}/l");
    let (link, list) = (
        format!("{links}/{}", short('a')),
        format!("{PODMAN}/overlay-layers/layers.json"),
    );
    podman_store().ask(["check"]).exits(0).text();
    let faults: [Fault<'_>; 6] = [
        (
            &|host| {
                host.file(format!("{home}/{}/lower", id('b')), "");
            },
            "bad-list",
            format!("{home}/{}/lower", id('b')),
            "invalid argument",
        ),
        (
            &|host| {
                host.file(format!("{home}/{}/link", id('b')), "");
            },
            "bad-list",
            format!("{home}/{}/link", id('b')),
            "invalid argument",
        ),
        (
            &|host| fs::remove_file(host.at(&link)).expect("our own"),
            "lost-link",
            link.clone(),
            "readlink /var/lib/containers/storage/overlay/l/AAAAAAAAAAAAAAAAAAAAAAAAAA: no such file or directory",
        ),
        (
            &|host| {
                fs::rename(host.at(&links), host.at("/elsewhere")).expect("our own");
                host.link(&links, "../../../../../elsewhere");
            },
            "lost-link",
            links.clone(),
            "file exists",
        ),
        (
            &|host| {
                let layers = json!([{"id": id('a')}, {"id": id('b'), "parent": id('a'), "flags": {"incomplete": true}}]);
                host.file(&list, layers.to_string());
            },
            "incomplete",
            list.clone(),
            "Found incomplete layer",
        ),
        (
            &|host| {
                let layers = json!([{"id": id('b'), "parent": id('a')}]);
                host.file(&list, layers.to_string());
            },
            "lost-record",
            list.clone(),
            "layer not known",
        ),
    ];
    for (spoil, finding, path, words) in faults {
        let host = podman_store();
        spoil(&host);
        let mut found = findings(&host);
        // Links that lead elsewhere are nobody's as well.
        found.retain(|(finding, _)| finding != "orphan");
        assert_eq!(found, [(finding.to_owned(), path)], "{words}");
        let rows = host.jsonl(["check"]).exits(1).rows();
        let row = rows.iter().find(|row| row["finding"] == finding);
        let row = row.expect("it is among them");
        assert!(text(row, "means").contains(words), "{row}");
        assert_eq!(row["engine"], "podman");
        assert_eq!(row["branch"], Value::Null);
    }
}

/// One verb for health: what `orphans` finds is a finding, and how much was looked at is said.
#[apply(test)]
fn check_finds_orphans_and_says_how_much_it_examined() {
    let host = podman_store();
    let before = host.ask(["check"]).exits(0);
    let lines: Vec<&str> = before.text().lines().collect();
    assert_eq!(lines[0], "nothing found");
    assert!(lines[1].starts_with("examined: "), "{lines:?}");
    assert!(lines[1].ends_with(", 1 store"), "{lines:?}");
    let orphan = format!("{PODMAN}/overlay/{}", id('f'));
    host.file(format!("{orphan}/diff/file"), "of nobody");
    let orphans = host.jsonl(["orphans"]).exits(1).rows();
    let rows = host.jsonl(["check"]).exits(1).rows();
    let found: Vec<&Value> = rows
        .iter()
        .filter(|row| row["finding"] == "orphan")
        .collect();
    assert_eq!(found.len(), orphans.len());
    assert_eq!(
        (&found[0]["path"], &found[0]["means"]),
        (&orphans[0]["path"], &orphans[0]["why"])
    );
    assert_eq!(found[0]["path"], orphan.as_str());

    // Three names and two marks in two branches.
    let host = Host::empty();
    for name in ["/a/x", "/a/d/y", "/a/.wh.z", "/b/z", "/b/d/y"] {
        host.file(name, "");
    }
    let output = host.ask(["check", "br:/a=rw:/b=ro"]).exits(0);
    assert_eq!(output.text(), "nothing found\nexamined: 1 union, 7 names\n");
    assert_eq!(host.jsonl(["check", "br:/a=rw:/b=ro"]).exits(0).text(), "");
}

#[apply(test)]
fn unused_is_another_question_than_left_over() {
    let host = Host::empty();
    let namespace = Namespace {
        snapshots: vec![
            Snapshot(1, "base", None, 3),
            Snapshot(2, "web", Some("base"), 2),
            Snapshot(3, "dead", None, 2),
            Snapshot(4, "kept", None, 2),
            Snapshot(5, "extract-12-ab sha256:00", None, 2),
        ],
        leases: vec![("mine", "kept", "2027-01-01T00:00:00Z")],
        ..one_container()
    };
    containerd(&host, CONTAINERD, &[("default", namespace)], &[]);
    let ingest = format!("{CONTAINERD}/io.containerd.content.v1.content/ingest/abc");
    host.file(format!("{ingest}/ref"), "layer-sha256:11");
    host.jsonl(["orphans"]).exits(0);
    let output = host.jsonl(["orphans", "--unused"]).exits(1);
    let rows = output.rows();
    let row = |name: &str| {
        let mut named = rows.iter().filter(|row| text(row, "name") == name);
        named
            .next()
            .unwrap_or_else(|| panic!("{name}: {}", output.text()))
    };
    assert_eq!(rows.len(), 4, "{}", output.text());
    let dead = row("default/dead");
    assert_eq!(dead["kind"], "snapshot");
    assert_eq!(dead["command"], "ctr -n default snapshots rm dead");
    assert!(dead["disk"].as_u64().is_some_and(|size| size > 0), "{dead}");
    let kept = row("default/kept");
    assert_eq!(kept["kind"], "in-progress");
    assert_eq!(
        kept["why"],
        "the lease mine holds it until 2027-01-01T00:00:00Z"
    );
    let unpacked = row("default/extract-12-ab sha256:00");
    assert!(
        text(unpacked, "why").contains("being unpacked"),
        "{unpacked}"
    );
    assert!(text(row("layer-sha256:11"), "why").contains("being downloaded"));
}

#[apply(test)]
fn volumes_logs_and_images_that_nothing_uses_are_named() {
    let host = Host::empty();
    let home = format!("{DOCKER}/overlay2");
    linked_layer(&host, &home, 'a', &[]);
    linked_layer(&host, &home, 'c', &['a']);
    docker_container(&host, "app", '1', 'c');
    fs::remove_file(host.at(format!(
        "{DOCKER}/image/overlay2/layerdb/mounts/{}/parent",
        id('1')
    )))
    .expect("our own");
    let configuration = format!("{DOCKER}/containers/{}/config.v2.json", id('1'));
    let mut value: Value = serde_json::from_slice(&host.read(&configuration)).expect("JSON");
    value["MountPoints"] = json!({"/data": {"Name": "used"}});
    host.file(&configuration, value.to_string());
    for name in ["used", "free"] {
        host.file(format!("{DOCKER}/volumes/{name}/_data/file"), "content");
    }
    // Where the volumes have a file system of their own, this is its own.
    host.dir(format!("{DOCKER}/volumes/lost+found"));
    let log = format!("{DOCKER}/containers/{0}/{0}-json.log", id('1'));
    host.file(&log, vec![b'x'; 1 << 20]);
    let output = host.jsonl(["orphans", "--unused"]).exits(1);
    assert_eq!(
        of_kind(&output, "volume"),
        [format!("{DOCKER}/volumes/free")]
    );
    assert_eq!(of_kind(&output, "log"), std::slice::from_ref(&log));
    assert!(output.text().contains("docker volume rm free"));

    // A name is for the engine: a shell that the command is pasted into must not act on it.
    host.file(format!("{DOCKER}/volumes/a $(b)/_data/file"), "content");
    let hostile = host.jsonl(["orphans", "--unused"]).exits(1).rows();
    let hostile = hostile.iter().find(|row| row["name"] == "a $(b)");
    let command = &hostile.expect("it is not used")["command"];
    assert_eq!(command, "docker volume rm 'a $(b)'");
    fs::remove_dir_all(host.at(format!("{DOCKER}/volumes/a $(b)"))).expect("our own");
    let names = host.ask(["-q", "orphans", "--unused"]).exits(1);
    assert!(
        names.text().lines().any(|line| line == "free"),
        "{}",
        names.text()
    );

    // What fills the disk is named, too.
    let rows = host.jsonl(["du"]).exits(0).rows();
    let app = rows
        .iter()
        .find(|row| row["name"] == "app")
        .expect("its row");
    assert_eq!(app["parts"][0]["path"], log.as_str(), "{app}");
    let layers = host.jsonl(["du", "app"]).exits(0).rows();
    assert_eq!(layers[0]["parts"][0]["path"], log.as_str(), "{layers:?}");
    assert!(host.ask(["du"]).exits(0).text().contains("-json.log"));
}

#[apply(test)]
fn files_beneath_a_mount_are_counted_and_named() {
    let host = Host::empty();
    let home = format!("{DOCKER}/overlay2");
    linked_layer(&host, &home, 'a', &[]);
    linked_layer(&host, &home, 'c', &['a']);
    docker_container(&host, "db", '1', 'c');
    fs::remove_file(host.at(format!(
        "{DOCKER}/image/overlay2/layerdb/mounts/{}/parent",
        id('1')
    )))
    .expect("our own");
    host.file(format!("{DOCKER}/swarm/state"), vec![b'x'; 300 << 10]);
    let before = total(&host);
    let lost = format!("{home}/{}/merged/var/lost", id('c'));
    host.file(&lost, vec![b'x'; 200 << 10]);
    let rows = host.jsonl(["du"]).exits(0).rows();
    let row = |kind: &str| {
        rows.iter()
            .find(|row| row["kind"] == kind)
            .expect("its row")
            .clone()
    };
    let beneath = row("beneath");
    assert_eq!(beneath["parts"][0]["path"], lost.as_str(), "{beneath}");
    // Its file, and two directories: merged and var.
    assert!(total(&host) >= before + (200 << 10) + 4096);
    assert_eq!(row("other")["parts"][0]["path"], format!("{DOCKER}/swarm"));
    let point = format!("{home}/{}/merged", id('c'));
    assert!(findings(&host).contains(&("beneath-mount".to_owned(), point)));
}

fn total(host: &Host) -> u64 {
    let rows = host.jsonl(["du"]).exits(0).rows();
    let row = rows
        .iter()
        .find(|row| row["kind"] == "total")
        .expect("a total");
    row["disk"].as_u64().expect("bytes")
}
