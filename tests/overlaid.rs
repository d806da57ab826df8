//! Podman's `:O` volumes: overlays over a container's layers, which are mounted in the container. What
//! the engine recorded is believed, and of what is mounted there only what fits it.

use serde_json::{Value, json};

use crate::lab::host::Host;
use crate::lab::run::{Output, text};
use crate::lab::store::{PODMAN, id, linked_layer, mounted_elsewhere, podman_lists, short};
use crate::whois::bolt;

/// What Podman makes for the changes of an overlay, of the number that it has.
fn made(number: u32) -> String {
    let container = format!("{PODMAN}/overlay-containers/{}", id('1'));
    format!("{container}/userdata/overlay/{number}")
}

fn options(upper: &str, below: &str) -> String {
    format!("rw,lowerdir={below},upperdir={upper}/upper,workdir={upper}/work")
}

/// A container as Podman keeps one that runs with `-v /srv/src:/dst:O`, `-v data:/data:O` and
/// `-v /srv/src:/own:O,upperdir=/srv/own/upper,workdir=/srv/own/work`.
fn podman() -> Host {
    let host = Host::empty();
    let home = format!("{PODMAN}/overlay");
    linked_layer(&host, &home, 'a', &[]);
    linked_layer(&host, &home, 'c', &['a']);
    let layers = json!([{"id": id('a')}, {"id": id('c'), "parent": id('a')}]);
    let container = json!({"id": id('1'), "names": ["web"], "layer": id('c'), "metadata": "{}"});
    podman_lists(&host, PODMAN, &layers, &json!([]), &json!([container]));
    let config = json!({
        "createdTime": "2026-11-28T20:00:00Z",
        "overlayVolumes": [
            {"dest": "/dst", "source": "/srv/src", "options": ["O"]},
            {"dest": "/own", "source": "/srv/src",
             "options": ["O", "upperdir=/srv/own/upper", "workdir=/srv/own/work"]},
        ],
        "namedVolumes": [{"volumeName": "data", "dest": "/data", "options": ["O", "rw"]}],
    });
    let record = bolt::of([
        ("config", bolt::text(&config.to_string())),
        ("state", bolt::text(r#"{"state": 3, "pid": 77}"#)),
    ]);
    let containers = bolt::of([(id('1').as_str(), record)]);
    let all = bolt::of([("ctr", containers)]).bucket().expect("a bucket");
    host.file(format!("{PODMAN}/libpod/bolt_state.db"), bolt::write(&all));
    given(&host, &[("/dst", 1), ("/data", 2), ("/own", 3)]);
    for file in ["/srv/src/a", "/srv/src/b", "/srv/own/upper/o"] {
        host.file(file, "it");
    }
    host.file(format!("{}/upper/c", made(1)), "changed");
    host.dir(format!("{}/work", made(1)));
    host.dir(format!("{}/upper", made(2)));
    host.file(format!("{PODMAN}/volumes/data/_data/base"), "");
    let merged = format!("{home}/{}/merged", id('c'));
    host.dir(&merged);
    mounted_elsewhere(&host, "/ / rw - ext4 /dev/sdb1 rw");
    host.file(
        "/proc/self/mountinfo",
        format!(
            "20 1 8:1 / / rw - ext4 /dev/sda1 rw\n33 20 0:40 / {merged} rw - overlay overlay {}\n",
            of_container()
        ),
    );
    running(&host, "0:40", &mount_of_dst(&made(1), "/srv/src"));
    host
}

fn of_container() -> String {
    let home = format!("{PODMAN}/overlay");
    let own = format!("{home}/{}", id('c'));
    format!(
        "rw,lowerdir={home}/l/{},upperdir={own}/diff,workdir={own}/work",
        short('a')
    )
}

/// What Podman gave to the runtime: where each overlay comes from.
fn given(host: &Host, mounts: &[(&str, u32)]) {
    let mounts: Vec<Value> = mounts
        .iter()
        .map(|(destination, number)| {
            json!({"destination": destination, "type": "overlay",
                   "source": format!("{}/merge", made(*number)), "options": []})
        })
        .collect();
    let path = format!(
        "{PODMAN}/overlay-containers/{}/userdata/config.json",
        id('1')
    );
    host.file(path, json!({"mounts": mounts}).to_string());
}

fn mount_of_dst(upper: &str, below: &str) -> String {
    format!(
        "51 50 0:41 / /dst rw - overlay {upper}/merge {}\n",
        options(upper, below)
    )
}

/// The mounts of the container's process, whose root is on a device.
fn running(host: &Host, device: &str, mounts: &str) {
    let root = format!(
        "50 1 {device} / / rw - overlay overlay {}\n",
        of_container()
    );
    host.file("/proc/77/mountinfo", format!("{root}{mounts}"));
}

fn whose(host: &Host, path: &str) -> Value {
    host.jsonl(["whois", path]).exits(0).row()
}

#[track_caller]
fn is_clean(output: Output) {
    let output = output.exits(0);
    assert_eq!(output.stderr, "");
}

#[apply(test)]
fn an_overlay_over_layers_is_told() {
    crate::lab::needs::root("to be told of overlay\'s marks");
    let host = podman();
    let upper = format!("{}/upper", made(1));
    is_clean(host.ask(["check"]));
    is_clean(host.ask(["orphans", "--unused"]));
    for (path, below, upper, name) in [
        ("/dst/b", "/srv/src", upper.as_str(), None),
        ("/own", "/srv/src", "/srv/own/upper", None),
        (
            "/data/base",
            &format!("{PODMAN}/volumes/data/_data"),
            &format!("{}/upper", made(2)),
            Some("data"),
        ),
    ] {
        let rows = host.jsonl(["which", &format!("web:{path}")]).rows();
        let cover = &rows[0]["covered_by"];
        assert_eq!(cover["kind"], "overlay", "{path}: {cover}");
        assert_eq!(text(cover, "source"), below, "{path}");
        assert_eq!(text(cover, "upper"), upper, "{path}");
        assert_eq!(cover["name"].as_str(), name, "{path}");
    }
    let words = format!(
        "/dst is an overlay over /srv/src, with its changes in {upper}; layers do not show it"
    );
    let shown = host.ask(["which", "web:/dst/b"]).exits(1);
    assert!(shown.text().contains(&words), "{}", shown.text());
    // Whose the changes are, and what is below them.
    let row = whose(&host, &format!("{upper}/c"));
    assert_eq!(row["kind"], "container-files", "{row}");
    assert_eq!(row["containers"][0]["name"], "web", "{row}");
    assert_eq!(row["why"], "in the overlay at /dst of web", "{row}");
    let row = whose(&host, "/srv/src/b");
    assert_eq!(row["containers"][0]["name"], "web", "{row}");
    let rows = host.jsonl(["ls", &upper]).exits(0).rows();
    let paths: Vec<&str> = rows.iter().map(|row| text(row, "path")).collect();
    assert_eq!(paths, ["/a", "/b", "/c"]);
    assert_eq!(host.ask(["changes", &upper]).exits(0).text(), "A /c\n");
    // The volume below one is used.
    let rows = host.jsonl(["du"]).exits(0).rows();
    let volume = rows.iter().find(|row| row["name"] == "data").expect("it");
    assert_eq!(volume["containers"][0]["name"], "web", "{volume}");
    let rows = host.jsonl(["du", "web"]).exits(0).rows();
    let of = |kind: &str| rows.iter().find(|row| row["kind"] == kind).expect("it");
    assert_eq!(of("volume")["name"], "/data, /dst", "{rows:?}");
    assert!(of("volume")["disk"].as_u64() > of("log")["disk"].as_u64());
}

/// Who may mount in a container can mount what is called as Podman's overlay is.
#[apply(test)]
fn what_no_record_has_is_not_taken_from_a_container() {
    crate::lab::needs::root("to be told of overlay\'s marks");
    let host = podman();
    let inside = format!("{}/upper/c", made(1));
    let is_told = |host: &Host| !whose(host, &inside)["why"].is_null();
    assert!(is_told(&host));
    let own = mount_of_dst(&made(1), "/srv/src");
    for (device, mounts, why) in [
        (
            "0:40",
            mount_of_dst(&made(1), "/etc"),
            "another directory below",
        ),
        (
            "0:40",
            mount_of_dst("/srv/other", "/srv/src"),
            "changes elsewhere",
        ),
        ("0:99", own.clone(), "the root is not the container's"),
        (
            "0:40",
            own.replace(" /dst ", " /else "),
            "where the record has none",
        ),
        (
            "0:40",
            format!("{own}52 51 0:42 / /dst rw - tmpfs tmpfs rw\n"),
            "covered by something else",
        ),
        ("0:40", own.replace(" / /dst ", " /a /dst "), "a part of it"),
    ] {
        running(&host, device, &mounts);
        assert!(!is_told(&host), "{why}");
    }
    running(&host, "0:40", &own);
    assert!(is_told(&host));
    // What Podman gave to the runtime names no directory but its own.
    let path = format!(
        "{PODMAN}/overlay-containers/{}/userdata/config.json",
        id('1')
    );
    for source in [
        "/srv/own/merge",
        &format!("{}/../../../merge", made(1)),
        &format!("{}/merge/in", made(1)),
        &format!(
            "{PODMAN}/overlay-containers/{}/userdata/overlay/x/merge",
            id('1')
        ),
        "",
    ] {
        let mounts = json!([{"destination": "/dst", "type": "overlay", "source": source}]);
        host.file(&path, json!({"mounts": mounts}).to_string());
        assert!(!is_told(&host), "{source}");
        let row = host.jsonl(["which", "web:/dst/b"]).exits(1).row();
        assert!(row["covered_by"]["upper"].is_null(), "{row}");
    }
    // They go when the container stops.
    given(&host, &[("/dst", 9)]);
    let row = host.jsonl(["which", "web:/dst/b"]).exits(1).row();
    assert!(row["covered_by"]["upper"].is_null(), "{row}");
    assert_eq!(text(&row["covered_by"], "source"), "/srv/src");
}
