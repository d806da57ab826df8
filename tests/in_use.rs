//! What is in use is nobody's orphan, whatever the engine's records have lost; what is to be shown
//! does not limit what is known; and an id alone tells nobody from another.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::lab::host::Host;
use crate::lab::run::text;
use crate::lab::store::{
    CONTAINERD, DOCKER, Namespace, PODMAN, Snapshot, containerd, docker_container, id,
    linked_layer, mounted_elsewhere, of_kind, podman_lists, short,
};
use crate::whois::bolt::{self, Item};

/// A layer of the builder's with its record under the name `key`, as a step has it that mounts an
/// image.
fn builders_layer(host: &Host, key: &str, own: char) {
    let home = format!("{DOCKER}/overlay2");
    linked_layer(host, &home, own, &[]);
    let record = format!("{DOCKER}/image/overlay2/layerdb/mounts/{key}");
    host.file(format!("{record}/mount-id"), id(own));
}

/// The names that the builder's database has.
fn builder_knows(host: &Host, known: &[&str]) {
    let known = known.iter();
    let records = known.map(|name| (name.as_bytes().to_vec(), Item::Bucket(BTreeMap::new())));
    let path = format!("{DOCKER}/buildkit/snapshots.db");
    host.file(path, bolt::write(&records.collect()));
}

#[apply(test)]
fn what_a_container_stands_on_is_nobodys_orphan_without_records() {
    let host = Host::empty();
    let home = format!("{DOCKER}/overlay2");
    linked_layer(&host, &home, 'a', &[]);
    linked_layer(&host, &home, 'b', &['a']);
    linked_layer(&host, &home, 'c', &['b', 'a']);
    docker_container(&host, "app", '1', 'c');
    let output = host.jsonl(["orphans"]).exits(1);
    assert!(
        of_kind(&output, "directory").is_empty(),
        "{}",
        output.text()
    );
    let records = of_kind(&output, "metadata");
    assert_eq!(
        records,
        [format!(
            "{DOCKER}/image/overlay2/layerdb/mounts/{}",
            id('1')
        )]
    );
    assert!(output.text().contains("layer does not exist"));
    // It is the container's: nothing of it is for rm.
    assert_eq!(host.ask(["-0", "-q", "orphans"]).exits(1).text(), "");
    let row = host
        .jsonl(["whois", &format!("{home}/{}", id('b'))])
        .exits(0)
        .row();
    assert_eq!(row["kind"], "in-use");
    assert!(text(&row, "why").contains("in use by app"), "{row}");

    // What stands on nothing that is used is left over, with all below it.
    linked_layer(&host, &home, 'e', &[]);
    linked_layer(&host, &home, 'f', &['e']);
    let output = host.jsonl(["orphans"]).exits(1);
    let both = ['e', 'f'].map(|of| format!("{home}/{}", id(of)));
    assert_eq!(of_kind(&output, "directory"), both);
}

#[apply(test)]
fn branches_of_a_union_in_any_namespace_are_nobodys_orphans() {
    let host = Host::empty();
    let docker = format!("{DOCKER}/overlay2");
    linked_layer(&host, &docker, 'a', &[]);
    linked_layer(&host, &docker, 'b', &['a']);
    linked_layer(&host, &docker, 'c', &[]);
    host.dir(format!("{DOCKER}/containers"));
    let all = host.jsonl(["orphans"]).exits(1);
    assert_eq!(of_kind(&all, "directory").len(), 3);
    // The layer below is named by the list of the one that is mounted.
    let branch = format!("{docker}/{}/diff", id('b'));
    mounted_elsewhere(
        &host,
        &format!(
            "/ /somewhere rw - overlay overlay rw,lowerdir=/lib/x,upperdir={branch},workdir=/w"
        ),
    );
    let output = host.jsonl(["orphans"]).exits(1);
    assert_eq!(
        of_kind(&output, "directory"),
        [format!("{docker}/{}", id('c'))]
    );
}

#[apply(test)]
fn a_bound_layer_is_nobodys_orphan() {
    let host = Host::empty();
    let layers = format!("{DOCKER}/vfs/dir");
    host.file(format!("{layers}/{}/file", id('a')), "content");
    host.file(format!("{layers}/{}/file", id('b')), "content");
    host.dir(format!("{DOCKER}/containers"));
    host.file(
        "/proc/self/mountinfo",
        "20 1 8:1 / / rw - ext4 /dev/sda1 rw\n",
    );
    mounted_elsewhere(&host, "/ / rw - ext4 /dev/sdb1 rw");
    let line = format!(
        "41 15 8:1 {layers}/{} /rootfs rw - ext4 /dev/sda1 rw\n",
        id('a')
    );
    host.file("/proc/77/mountinfo", line);
    let output = host.jsonl(["orphans"]).exits(1);
    assert_eq!(
        of_kind(&output, "directory"),
        [format!("{layers}/{}", id('b'))]
    );
}

#[apply(test)]
fn what_podmans_list_lost_in_the_middle_is_in_use() {
    let host = Host::empty();
    let home = format!("{PODMAN}/overlay");
    linked_layer(&host, &home, 'a', &[]);
    linked_layer(&host, &home, 'b', &['a']);
    linked_layer(&host, &home, 'c', &['b', 'a']);
    linked_layer(&host, &home, 'd', &[]);
    let layers = json!([{"id": id('a')}, {"id": id('c'), "parent": id('b')}]);
    let images = json!([{"id": id('1'), "names": ["localhost/acme/app:1"], "layer": id('c')}]);
    podman_lists(&host, PODMAN, &layers, &images, &json!([]));
    let output = host.jsonl(["orphans"]).exits(1);
    assert_eq!(
        of_kind(&output, "directory"),
        [format!("{home}/{}", id('d'))]
    );
    // The list is not for rm, whatever it lists.
    let removed = host.ask(["-0", "-q", "orphans"]).exits(1);
    assert_eq!(removed.text(), format!("{home}/{}\0", id('d')));
}

#[apply(test)]
fn newer_lists_name_layers_by_their_ids() {
    let host = Host::empty();
    let home = format!("{PODMAN}/overlay");
    for layer in ['a', 'b'] {
        host.file(format!("{home}/{}/diff/file", id(layer)), "content");
    }
    host.file(format!("{home}/{}/lower-layers", id('b')), id('a'));
    podman_lists(
        &host,
        PODMAN,
        &json!([{"id": id('b')}]),
        &json!([]),
        &json!([]),
    );
    host.jsonl(["orphans"]).exits(0);
}

#[apply(test)]
fn what_stands_below_an_active_snapshot_is_in_use() {
    let host = Host::empty();
    let unnamed = [
        Snapshot(1, "base", None, 3),
        Snapshot(2, "work", Some("base"), 2),
    ];
    containerd(
        &host,
        CONTAINERD,
        &[("default", Namespace::default())],
        &unnamed,
    );
    let output = host.jsonl(["orphans"]).exits(1);
    let snapshots = format!("{CONTAINERD}/io.containerd.snapshotter.v1.overlayfs/snapshots");
    // Its own name is gone: containerd collects it, and nobody else has to.
    assert_eq!(of_kind(&output, "directory"), [format!("{snapshots}/2")]);
    assert_eq!(output.rows().len(), 1);
    assert_eq!(host.ask(["-0", "-q", "orphans"]).exits(1).text(), "");
}

fn mount_of(namespace: &str, id: &str, number: u8, root: &str) -> String {
    let snapshots = format!("{root}/io.containerd.snapshotter.v1.overlayfs/snapshots");
    let below = number - 1;
    format!(
        "/ /run/containerd/io.containerd.runtime.v2.task/{namespace}/{id}/rootfs rw - overlay overlay rw,lowerdir={snapshots}/{below}/fs,upperdir={snapshots}/{number}/fs,workdir={snapshots}/{number}/work"
    )
}

fn two_namespaces(host: &Host) {
    let space = |snapshots, container| Namespace {
        snapshots,
        containers: vec![container],
        ..Namespace::default()
    };
    let first = space(
        vec![
            Snapshot(1, "base", None, 3),
            Snapshot(2, "web", Some("base"), 2),
        ],
        ("web", "web"),
    );
    let second = space(
        vec![
            Snapshot(3, "base", None, 3),
            Snapshot(4, "web", Some("base"), 2),
        ],
        ("web", "web"),
    );
    containerd(
        host,
        CONTAINERD,
        &[("default", first), ("other", second)],
        &[],
    );
    host.mount(&mount_of("other", "web", 4, CONTAINERD));
}

#[apply(test)]
fn a_namespace_limits_what_is_shown_and_not_what_is_known() {
    let host = Host::empty();
    two_namespaces(&host);
    for arguments in [&["orphans"][..], &["--namespace", "default", "orphans"]] {
        host.jsonl(arguments).exits(0);
    }
}

#[apply(test)]
fn a_root_limits_what_is_shown_and_not_what_is_known() {
    let host = Host::empty();
    two_namespaces(&host);
    let other = Namespace {
        snapshots: vec![Snapshot(1, "base", None, 3)],
        ..Namespace::default()
    };
    containerd(&host, "/srv/containerd", &[("default", other)], &[]);
    host.jsonl(["--containerd-root", "/srv/containerd", "orphans"])
        .exits(0);
}

#[apply(test)]
fn layers_of_a_store_that_was_named_are_in_use_by_another() {
    let host = Host::empty();
    let images = "/srv/images";
    host.file(
        "/etc/containers/storage.conf",
        format!("[storage]\ndriver = \"overlay\"\ngraphroot = \"{PODMAN}\"\n[storage.options]\nadditionalimagestores = [\"{images}\"]\n"),
    );
    linked_layer(&host, &format!("{images}/overlay"), 'a', &[]);
    podman_lists(&host, images, &json!([]), &json!([]), &json!([]));
    let home = format!("{PODMAN}/overlay");
    host.file(format!("{home}/{}/diff/file", id('b')), "content");
    host.file(
        format!("{home}/{}/lower", id('b')),
        format!("l/{}", short('a')),
    );
    podman_lists(
        &host,
        PODMAN,
        &json!([{"id": id('b')}]),
        &json!([]),
        &json!([]),
    );
    host.jsonl(["--storage-root", images, "orphans"]).exits(0);
}

#[apply(test)]
fn an_id_is_not_an_identity() {
    crate::lab::needs::root("to be told of overlay's marks");
    let host = Host::empty();
    two_namespaces(&host);
    let rows = host.jsonl(["containers"]).exits(0).rows();
    let mounted: BTreeMap<&str, &Value> = rows
        .iter()
        .map(|row| (text(row, "namespace"), &row["mounted"]))
        .collect();
    assert_eq!(mounted["other"], &json!(true), "{rows:?}");
    assert_eq!(mounted["default"], &json!(false), "{rows:?}");
    for (namespace, number) in [("default", 2), ("other", 4)] {
        let output = host
            .jsonl(["--namespace", namespace, "branches", "web"])
            .exits(0);
        let top = text(&output.row()["branches"][0], "directory").to_owned();
        assert!(
            top.ends_with(&format!("/{number}/fs")),
            "{namespace}: {top}"
        );
    }
}

#[apply(test)]
fn a_mount_that_the_engine_knows_is_not_stale() {
    let host = Host::empty();
    let home = format!("{PODMAN}/overlay");
    linked_layer(&host, &home, 'a', &[]);
    podman_lists(
        &host,
        PODMAN,
        &json!([{"id": id('a')}]),
        &json!([]),
        &json!([]),
    );
    // As `podman image mount` makes it.
    host.mount(&format!(
        "/ {home}/{}/merged ro - overlay overlay ro,lowerdir={home}/{}/diff:{home}/{}/empty",
        id('a'),
        id('a'),
        id('a')
    ));
    host.jsonl(["orphans"]).exits(0);
}

#[apply(test)]
fn a_builders_step_is_the_builders_and_no_container() {
    let key = "xsma4ctfsqykb9hlgsmtnd57c";
    let host = Host::empty();
    docker_container(&host, "web", '1', '2');
    linked_layer(&host, &format!("{DOCKER}/overlay2"), '2', &[]);
    builders_layer(&host, key, '3');
    builder_knows(&host, &[key]);
    let of = |own: char| {
        let path = format!("{DOCKER}/overlay2/{}/diff", id(own));
        host.jsonl(["whois", &path]).exits(0).row()
    };
    assert_eq!(text(&of('3'), "kind"), "build-cache");
    assert_eq!(of('3')["containers"].as_array().map_or(0, Vec::len), 0);
    assert_eq!(host.jsonl(["containers"]).exits(0).rows().len(), 1);
    // The container's image is gone here, and no more than that is said.
    let accused = || {
        let said = host.jsonl(["orphans"]).exits(1).rows();
        let paths = said.iter().map(|row| text(row, "path").to_owned());
        paths.collect::<Vec<String>>()
    };
    let is_the_steps = |path: &&String| path.contains(key) || path.contains(&id('3'));
    assert_eq!(accused().iter().find(is_the_steps), None);
    // The builder has forgotten it: nobody's, as docker itself leaves some.
    builder_knows(&host, &[]);
    let paths = accused();
    let record = format!("{DOCKER}/image/overlay2/layerdb/mounts/{key}");
    assert!(paths.contains(&record), "{paths:?}");
    let layer = format!("{DOCKER}/overlay2/{}", id('3'));
    assert!(paths.contains(&layer), "{paths:?}");
}
