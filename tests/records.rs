//! Mounted unions of stores: the branches are those that the store has recorded, whatever the
//! kernel's options name them by.

use std::fs;

use serde_json::{Value, json};

use crate::lab::host::{Host, directories};
use crate::lab::needs;

pub const STORE: &str = "/var/lib/containers/storage";
pub const CONTAINER: &str = "c0ffee0000000000000000000000000000000000000000000000000000000001";

pub fn id(number: usize) -> String {
    format!("{number:064x}")
}

/// A store with one container on so many layers: layer 1 is the base.
pub fn store(layers: usize) -> Host {
    let host = Host::empty();
    let layer = |number: usize| {
        let id = if number > layers {
            CONTAINER.to_owned()
        } else {
            id(number)
        };
        let at = format!("{STORE}/overlay/{id}");
        host.file(format!("{at}/link"), format!("L{number}"));
        host.link(
            format!("{STORE}/overlay/l/L{number}"),
            format!("../{id}/diff"),
        );
        host.file(format!("{at}/diff/of{number}"), "");
        if number > 1 {
            let lower: Vec<String> = (1..number).rev().map(|of| format!("l/L{of}")).collect();
            host.file(format!("{at}/lower"), lower.join(":"));
        } else {
            host.dir(format!("{at}/empty"));
        }
        let parent = (number > 1).then(|| self::id(number - 1));
        json!({"id": id, "parent": parent, "created": "2026-11-27T00:00:00Z"})
    };
    let records: Vec<Value> = (1..=layers + 1).map(layer).collect();
    let containers = json!([{"id": CONTAINER, "names": ["web"], "layer": CONTAINER,
        "created": "2026-11-27T00:00:00Z", "metadata": "{}"}]);
    host.file(
        format!("{STORE}/overlay-layers/layers.json"),
        json!(records).to_string(),
    );
    host.file(
        format!("{STORE}/overlay-containers/containers.json"),
        containers.to_string(),
    );
    host
}

/// As its store's container would be mounted, with these as lower directories.
fn mount(host: &Host, lowers: &str) {
    let at = format!("{STORE}/overlay/{CONTAINER}");
    host.mount(&format!(
        "/ {at}/merged rw,relatime - overlay overlay rw,lowerdir={lowers},upperdir={at}/diff,workdir={at}/work"
    ));
}

/// The content of every layer, topmost first.
fn contents(layers: usize) -> Vec<Vec<u8>> {
    let ids = (1..=layers).rev().map(id);
    let ids = std::iter::once(CONTAINER.to_owned()).chain(ids);
    ids.map(|id| format!("{STORE}/overlay/{id}/diff").into_bytes())
        .collect()
}

fn assert_recorded(host: &Host, layers: usize) {
    let row = host.jsonl(["branches", "web"]).exits(0).row();
    assert_eq!(row["state"], "mounted");
    assert_eq!(directories(&row), contents(layers));
    let names = host.jsonl(["ls", "web"]).exits(0).rows();
    assert_eq!(names.len(), layers + 1);
}

#[apply(test)]
fn many_layers_are_mounted_by_descriptors() {
    crate::lab::needs::root("to be told of overlay's marks");
    let host = store(45);
    let descriptors: Vec<String> = (0..45).map(|number| (number + 3).to_string()).collect();
    mount(&host, &descriptors.join(":"));
    assert_recorded(&host, 45);
}

#[apply(test)]
fn layers_are_mounted_with_other_owners() {
    crate::lab::needs::root("to be told of overlay's marks");
    let host = store(3);
    let at = format!("{STORE}/overlay/{CONTAINER}");
    let mapped: Vec<String> = (0..3)
        .map(|number| format!("{at}/mapped/{number}/diff"))
        .collect();
    for mapped in &mapped {
        host.dir(mapped);
    }
    mount(&host, &mapped.join(":"));
    assert_recorded(&host, 3);
}

#[apply(test)]
fn a_mount_point_is_enough_to_know_a_union_by() {
    crate::lab::needs::root("to be told of overlay's marks");
    let host = store(2);
    host.mount(&format!(
        "/ {STORE}/overlay/{}/merged ro,relatime - overlay overlay ro,lowerdir=4:5",
        id(2)
    ));
    let point = format!("{STORE}/overlay/{}/merged", id(2));
    let row = host.jsonl(["branches", &point]).exits(0).row();
    assert_eq!(directories(&row), contents(2)[1..]);
}

#[apply(test)]
fn an_empty_directory_is_no_layer() {
    crate::lab::needs::root("to be told of overlay's marks");
    let host = store(0);
    mount(&host, &format!("{STORE}/overlay/{CONTAINER}/empty"));
    assert_recorded(&host, 0);
}

#[apply(test)]
fn no_unknown_entry_of_a_layer_is_its_content() {
    // Nothing is recorded, so that the kernel's word is all there is.
    let host = store(2);
    fs::remove_dir_all(host.at(format!("{STORE}/overlay-layers"))).expect("it was made");
    let odd = format!("{STORE}/overlay/{}/composefs-layers/1", id(2));
    mount(&host, &odd);
    let row = host.jsonl(["branches", "web"]).exits(2).row();
    assert_eq!(directories(&row)[1], odd.as_bytes());
}

#[apply(test)]
fn a_layer_may_have_its_content_in_several_directories() {
    crate::lab::needs::root("to be told of overlay's marks");
    let host = store(2);
    let second = format!("{STORE}/overlay/{}", id(2));
    host.file(format!("{second}/diff1/further"), "");
    let base = format!("{STORE}/overlay/{}/diff", id(1));
    mount(&host, &format!("{second}/diff:{second}/diff1:{base}"));
    let row = host.jsonl(["branches", "web"]).exits(0).row();
    let mut expected = contents(2);
    expected.insert(2, format!("{second}/diff1").into_bytes());
    assert_eq!(directories(&row), expected);
    host.jsonl(["which", "web:/further"]).exits(0);
}

#[apply(test)]
fn what_the_kernel_and_the_records_disagree_in_is_said() {
    let host = store(2);
    let layer = |number| format!("{STORE}/overlay/{}/diff", id(number));
    mount(&host, &format!("{}:{}", layer(1), layer(2)));
    host.jsonl(["branches", "web"]).exits(2).says("recorded");

    let host = store(3);
    mount(&host, "l/L2:l/L1");
    host.jsonl(["branches", "web"]).exits(2).says("recorded 4");
}

#[apply(test)]
fn snapshots_with_other_owners_are_recorded() {
    needs::captured_hosts();
    let host = Host::captured("containerd-overlayfs");
    let mounted = |host: &Host| -> Vec<(Value, Vec<Vec<u8>>)> {
        let rows = host.jsonl(["branches"]).exits(0).rows().into_iter();
        let rows = rows.filter(|row| row["state"] == "mounted" && row["owner"].is_object());
        rows.map(|row| (row["owner"]["id"].clone(), directories(&row)))
            .collect()
    };
    let before = mounted(&host);
    assert!(before.len() > 1);
    let table = host.read("/proc/self/mountinfo");
    let table = String::from_utf8(table).expect("plain names");
    let snapshots = "/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots/";
    let line = |line: &str| match line.split_once("upperdir=") {
        Some((lower, upper)) => {
            let lower = lower.replace(snapshots, "/tmp/ovl-idmapped7/");
            format!("{lower}upperdir={upper}\n")
        }
        None => format!("{line}\n"),
    };
    let mapped: String = table.lines().map(line).collect();
    assert!(mapped.contains("/tmp/ovl-idmapped7/"));
    host.file("/proc/self/mountinfo", mapped);
    assert_eq!(mounted(&host), before);
}
