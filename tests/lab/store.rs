//! Stores of engines, made from nothing: layers, containers and the records that name them.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::host::Host;
use super::run::{Output, text};
use crate::whois::bolt::{self, Item, of};

/// Names as engines make them: 64 digits.
pub fn id(digit: char) -> String {
    digit.to_string().repeat(64)
}

/// A short name of a layer: 26 letters.
pub fn short(digit: char) -> String {
    digit.to_ascii_uppercase().to_string().repeat(26)
}

/// A layer with short names, as Docker's overlay2 and Podman's overlay keep it.
pub fn linked_layer(host: &Host, home: &str, own: char, below: &[char]) {
    let layer = format!("{home}/{}", id(own));
    host.file(format!("{layer}/diff/file-{own}"), "content");
    host.file(format!("{layer}/link"), short(own));
    host.link(
        format!("{home}/l/{}", short(own)),
        format!("../{}/diff", id(own)),
    );
    if !below.is_empty() {
        let names: Vec<String> = below.iter().map(|of| format!("l/{}", short(*of))).collect();
        host.file(format!("{layer}/lower"), names.join(":"));
    }
}

pub const DOCKER: &str = "/var/lib/docker";
pub const PODMAN: &str = "/var/lib/containers/storage";
pub const CONTAINERD: &str = "/var/lib/containerd";

/// A container of Docker's with the layer `own`, and no other record.
pub fn docker_container(host: &Host, name: &str, cid: char, own: char) {
    let configuration = json!({
        "ID": id(cid), "Name": format!("/{name}"), "Driver": "overlay2", "Created": "2026-01-02T03:04:05Z",
        "State": {}, "Config": {"Image": "acme/app:1"}, "Image": format!("sha256:{}", id('9')),
    });
    host.file(
        format!("{DOCKER}/containers/{}/config.v2.json", id(cid)),
        configuration.to_string(),
    );
    let record = format!("{DOCKER}/image/overlay2/layerdb/mounts/{}", id(cid));
    host.file(format!("{record}/mount-id"), id(own));
    host.file(format!("{record}/parent"), format!("sha256:{}", id('8')));
}

/// The lists of a store of Podman's.
pub fn podman_lists(host: &Host, root: &str, layers: &Value, images: &Value, containers: &Value) {
    for (kind, list) in [
        ("layers", layers),
        ("images", images),
        ("containers", containers),
    ] {
        let path = format!("{root}/overlay-{kind}/{kind}.json");
        host.file(path, list.to_string());
    }
}

/// A snapshot of containerd's: number, key, the parent's key, and its kind.
pub struct Snapshot(pub u8, pub &'static str, pub Option<&'static str>, pub u8);

/// What one namespace has.
#[derive(Default)]
pub struct Namespace {
    pub snapshots: Vec<Snapshot>,
    /// `(id, snapshot key)`.
    pub containers: Vec<(&'static str, &'static str)>,
    /// `(name, digest)`.
    pub images: Vec<(&'static str, String)>,
    /// `(id, snapshot key, until)`.
    pub leases: Vec<(&'static str, &'static str, &'static str)>,
}

/// A containerd; of the snapshots `unnamed` only its snapshotter knows.
pub fn containerd(host: &Host, root: &str, namespaces: &[(&str, Namespace)], unnamed: &[Snapshot]) {
    let snapshotter = format!("{root}/io.containerd.snapshotter.v1.overlayfs");
    let mut own = BTreeMap::new();
    let mut add = |space: &str, Snapshot(number, key, parent, kind): &Snapshot| {
        let full = |key: &str, number: u8| format!("{space}/{number}/{key}");
        let mut record = BTreeMap::from([
            (b"id".to_vec(), Item::Value(vec![*number])),
            (b"kind".to_vec(), Item::Value(vec![*kind])),
        ]);
        if let Some(parent) = parent {
            // The parent of a number is the one before it.
            record.insert(b"parent".to_vec(), bolt::text(&full(parent, number - 1)));
        }
        own.insert(full(key, *number).into_bytes(), Item::Bucket(record));
        host.file(
            format!("{snapshotter}/snapshots/{number}/fs/file"),
            "content",
        );
        full(key, *number)
    };
    unnamed.iter().for_each(|of| drop(add("default", of)));
    let bucket = |items: BTreeMap<Vec<u8>, Item>| Item::Bucket(items);
    let mut spaces = BTreeMap::new();
    for (space, has) in namespaces {
        let snapshots = has.snapshots.iter();
        let named = snapshots.map(|of| {
            (
                of.1.as_bytes().to_vec(),
                self::of([("name", bolt::text(&add(space, of)))]),
            )
        });
        let named = bucket(named.collect());
        let containers = has.containers.iter().map(|(id, key)| {
            let record = self::of([
                ("snapshotKey", bolt::text(key)),
                ("snapshotter", bolt::text("overlayfs")),
            ]);
            (id.as_bytes().to_vec(), record)
        });
        let images = has.images.iter().map(|(name, digest)| {
            let record = self::of([("target", self::of([("digest", bolt::text(digest))]))]);
            (name.as_bytes().to_vec(), record)
        });
        let leases = has.leases.iter().map(|(id, key, until)| {
            let record = self::of([
                (
                    "labels",
                    self::of([("containerd.io/gc.expire", bolt::text(until))]),
                ),
                (
                    "snapshots",
                    self::of([("overlayfs", self::of([(key, bolt::text(""))]))]),
                ),
            ]);
            (id.as_bytes().to_vec(), record)
        });
        let space_of = self::of([
            ("containers", bucket(containers.collect())),
            ("images", bucket(images.collect())),
            ("leases", bucket(leases.collect())),
            ("snapshots", self::of([("overlayfs", named)])),
        ]);
        spaces.insert(space.as_bytes().to_vec(), space_of);
    }
    let write = |item: Item| bolt::write(&item.bucket().expect("a bucket"));
    let own = self::of([("v1", self::of([("snapshots", bucket(own))]))]);
    host.file(format!("{snapshotter}/metadata.db"), write(own));
    host.file(
        format!("{root}/io.containerd.metadata.v1.bolt/meta.db"),
        write(self::of([("v1", bucket(spaces))])),
    );
}

/// Another mount namespace, and a mount in it.
pub fn mounted_elsewhere(host: &Host, line: &str) {
    host.link("/proc/self/ns_mnt", "mnt:[1]");
    host.link("/proc/77/ns_mnt", "mnt:[2]");
    host.file("/proc/77/mountinfo", format!("40 15 0:77 {line}\n"));
}

pub fn of_kind(output: &Output, kind: &str) -> Vec<String> {
    let rows = output.rows().into_iter();
    let rows = rows.filter(|row| text(row, "kind") == kind);
    rows.map(|row| text(&row, "path").to_owned()).collect()
}
