//! What is in use is nobody's orphan, whatever the engine's records have lost; what is to be shown
//! does not limit what is known; and an id alone tells nobody from another.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
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
    host.dir(format!("{DOCKER}/image/overlay2/layerdb"));
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

/// A part of the host's own file system that another mount namespace has at a place.
fn bound_elsewhere(host: &Host, part: &str, at: &str) {
    host.file(
        "/proc/self/mountinfo",
        "20 1 8:1 / / rw - ext4 /dev/sda1 rw\n",
    );
    mounted_elsewhere(host, "/ / rw - ext4 /dev/sdb1 rw");
    let line = format!("41 40 8:1 {part} {at} rw - ext4 /dev/sda1 rw\n");
    host.file("/proc/77/mountinfo", line);
}

#[apply(test)]
fn a_bound_layer_is_nobodys_orphan() {
    let host = Host::empty();
    let layers = format!("{DOCKER}/vfs/dir");
    host.file(format!("{layers}/{}/file", id('a')), "content");
    host.file(format!("{layers}/{}/file", id('b')), "content");
    host.dir(format!("{DOCKER}/containers"));
    host.dir(format!("{DOCKER}/image/vfs/layerdb"));
    bound_elsewhere(&host, &format!("{layers}/{}", id('a')), "/rootfs");
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
    let name = BASE64.encode(format!("sha256:{}", id('1')));
    host.file(
        format!("{PODMAN}/overlay-images/{}/={name}", id('1')),
        r#"{"rootfs": {"diff_ids": []}, "history": []}"#,
    );
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
    let mut command = crate::lab::run::command();
    command
        .env("CONTAINERD_NAMESPACE", "default")
        .arg("--root")
        .arg(host.at("/"));
    crate::lab::run::run(command.arg("orphans")).exits(0);
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
    // Its list speaks for what it stands on.
    linked_layer(&host, &format!("{DOCKER}/overlay2"), '4', &[]);
    linked_layer(&host, &format!("{DOCKER}/overlay2"), '2', &['4']);
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

/// What `orphans -0 -q` gives to `rm`.
fn for_rm(host: &Host, options: &[&str]) -> Vec<String> {
    let output = host.ask([options, &["-0", "-q", "orphans"]].concat());
    // Shown where the test fails.
    eprint!("{}", output.stderr);
    let paths = output.text().split('\0').filter(|path| !path.is_empty());
    paths.map(str::to_owned).collect()
}

/// A record of Docker's of a layer, which names the layer's directory only at the end.
fn docker_layer_record(host: &Host, chain: char, file: &str, content: &str) {
    let record = format!("{DOCKER}/image/overlay2/layerdb/sha256/{}", id(chain));
    host.file(format!("{record}/{file}"), content);
}

/// An image of Docker's with one layer, which has a record.
fn docker_image(host: &Host, own: char) {
    let diff = format!("sha256:{}", id('8'));
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": {}, "created": "2026-01-02T03:04:05Z",
        "rootfs": {"type": "layers", "diff_ids": [diff]},
        "history": [{"created": "2026-01-02T03:04:05Z", "created_by": "COPY"}],
    });
    let images = format!("{DOCKER}/image/overlay2");
    host.file(
        format!("{images}/imagedb/content/sha256/{}", id('9')),
        config.to_string(),
    );
    let names =
        json!({"Repositories": {"acme/app": {"acme/app:1": format!("sha256:{}", id('9'))}}});
    host.file(format!("{images}/repositories.json"), names.to_string());
    docker_layer_record(host, '8', "cache-id", &id(own));
    docker_layer_record(host, '8', "diff", &diff);
    docker_layer_record(host, '8', "size", "7");
}

/// A transfer that stalls: the layer's directory is there, and the record that will name it does not yet.
#[apply(test)]
fn a_layer_whose_record_is_being_written_is_nobodys_orphan() {
    let host = Host::empty();
    let home = format!("{DOCKER}/overlay2");
    linked_layer(&host, &home, 'a', &[]);
    docker_image(&host, 'a');
    host.dir(format!("{DOCKER}/containers"));
    linked_layer(&host, &home, 'e', &[]);
    let layer = format!("{home}/{}", id('e'));
    assert_eq!(for_rm(&host, &[]), [&layer[..]]);
    let set = format!("{DOCKER}/image/overlay2/layerdb/tmp/write-set-123");
    host.file(format!("{set}/tar-split.json.gz"), "x");
    assert!(for_rm(&host, &[]).is_empty());
    let row = host.jsonl(["whois", &layer]).exits(0).row();
    assert_eq!(row["kind"], "in-progress", "{row}");
    // One that was there long before is not what is being unpacked.
    let old = filetime(&host, &layer, 3600);
    assert_eq!(for_rm(&host, &[]), [old]);
}

/// Makes a directory so many seconds older.
fn filetime(host: &Host, path: &str, seconds: u64) -> String {
    let dir = std::fs::File::open(host.at(path)).expect("it is there");
    let then = std::time::SystemTime::now() - std::time::Duration::from_secs(seconds);
    dir.set_modified(then).expect("our own");
    path.to_owned()
}

/// What a container that has lost its configuration, or its line in the list, still has: its files are
/// mounted, or its layer is recorded.
#[apply(test)]
fn the_directory_of_what_runs_is_nobodys_orphan() {
    let host = Host::empty();
    let home = format!("{DOCKER}/overlay2");
    linked_layer(&host, &home, 'a', &[]);
    linked_layer(&host, &home, 'c', &['a']);
    docker_image(&host, 'a');
    docker_container(&host, "app", '1', 'c');
    let own = format!("{DOCKER}/containers/{}", id('1'));
    host.file(format!("{own}/resolv.conf"), "nameserver ::1");
    std::fs::remove_file(host.at(format!("{own}/config.v2.json"))).expect("it is there");
    let output = host.jsonl(["orphans"]).exits(1);
    assert_eq!(of_kind(&output, "metadata"), [&own[..]]);
    assert!(for_rm(&host, &[]).is_empty());
    // Without a layer only what is mounted speaks for it.
    let mounts = format!("{DOCKER}/image/overlay2/layerdb/mounts");
    std::fs::remove_dir_all(host.at(&mounts)).expect("it is there");
    std::fs::remove_dir_all(host.at(format!("{home}/{}", id('c')))).expect("it is there");
    std::fs::remove_file(host.at(format!("{home}/l/{}", short('c')))).expect("it is there");
    assert_eq!(for_rm(&host, &[]), [&own[..]]);
    bound_elsewhere(&host, &format!("{own}/resolv.conf"), "/etc/resolv.conf");
    assert!(for_rm(&host, &[]).is_empty());

    let host = Host::empty();
    podman_lists(&host, PODMAN, &json!([]), &json!([]), &json!([]));
    let own = format!("{PODMAN}/overlay-containers/{}", id('1'));
    host.file(format!("{own}/userdata/resolv.conf"), "nameserver ::1");
    assert_eq!(for_rm(&host, &[]), [&own[..]]);
    bound_elsewhere(
        &host,
        &format!("{own}/userdata/resolv.conf"),
        "/etc/resolv.conf",
    );
    assert!(for_rm(&host, &[]).is_empty());
}

/// A list of layers that has one whose directory is gone: what that one names is needed.
#[apply(test)]
fn what_a_listed_layer_names_is_in_use_though_that_is_gone() {
    let host = Host::empty();
    let home = format!("{PODMAN}/overlay");
    linked_layer(&host, &home, 'f', &[]);
    let layers = json!([{"id": id('e'), "parent": id('f')}]);
    podman_lists(&host, PODMAN, &layers, &json!([]), &json!([]));
    assert!(for_rm(&host, &[]).is_empty());
}

/// A record that has lost the name of its layer has all the rest, which is nowhere else.
#[apply(test)]
fn a_record_without_its_layers_name_is_not_for_rm() {
    let host = Host::empty();
    let home = format!("{DOCKER}/overlay2");
    linked_layer(&host, &home, 'a', &[]);
    docker_image(&host, 'a');
    host.dir(format!("{DOCKER}/containers"));
    assert!(for_rm(&host, &[]).is_empty());
    let record = format!("{DOCKER}/image/overlay2/layerdb/sha256/{}", id('8'));
    std::fs::remove_file(host.at(format!("{record}/cache-id"))).expect("it is there");
    assert!(for_rm(&host, &[]).is_empty());
    // One with nothing at all is what an interrupted pull leaves.
    for name in ["imagedb/content", "layerdb/sha256"] {
        let path = host.at(format!("{DOCKER}/image/overlay2/{name}"));
        std::fs::remove_dir_all(path).expect("it is there");
    }
    let names = format!("{DOCKER}/image/overlay2/repositories.json");
    host.file(names, r#"{"Repositories": {}}"#);
    host.dir(&record);
    let layer = format!("{home}/{}", id('a'));
    assert_eq!(for_rm(&host, &[]), [&layer[..], &record]);
}

/// An image, or a container that does not say itself what it stands on, names a layer that no record
/// has: one without a record may be it.
#[apply(test)]
fn while_a_name_is_without_its_layer_nobody_is_accused() {
    let host = Host::empty();
    let home = format!("{DOCKER}/overlay2");
    linked_layer(&host, &home, 'a', &[]);
    docker_image(&host, 'a');
    host.dir(format!("{DOCKER}/containers"));
    linked_layer(&host, &home, 'e', &[]);
    assert_eq!(for_rm(&host, &[]), [format!("{home}/{}", id('e'))]);
    let record = format!("{DOCKER}/image/overlay2/layerdb/sha256/{}", id('8'));
    std::fs::remove_dir_all(host.at(&record)).expect("it is there");
    assert!(for_rm(&host, &[]).is_empty());
    assert!(
        host.jsonl(["orphans"])
            .exits(1)
            .text()
            .contains("acme/app:1")
    );

    // A container's list of its layers speaks for them; without one nobody knows.
    let host = Host::empty();
    linked_layer(&host, &home, 'a', &[]);
    linked_layer(&host, &home, 'c', &['a']);
    linked_layer(&host, &home, 'e', &[]);
    docker_container(&host, "app", '1', 'c');
    assert_eq!(for_rm(&host, &[]), [format!("{home}/{}", id('e'))]);
    for spoilt in ["", "\0\0\0\0\0\0\0\0"] {
        host.file(format!("{home}/{}/lower", id('c')), spoilt);
        assert!(for_rm(&host, &[]).is_empty(), "{spoilt:?}");
    }
    std::fs::remove_file(host.at(format!("{home}/{}/lower", id('c')))).expect("it is there");
    assert!(for_rm(&host, &[]).is_empty());

    // A snapshotter that has lost one: the container's own, or one below it.
    for lost in [2, 1] {
        let host = Host::empty();
        let space = Namespace {
            snapshots: vec![
                Snapshot(1, "base", None, 3),
                Snapshot(2, "web", Some("base"), 2),
            ],
            containers: vec![("web", "web")],
            ..Namespace::default()
        };
        containerd(&host, CONTAINERD, &[("default", space)], &[]);
        let database = |host: &Host| {
            let path = "io.containerd.snapshotter.v1.overlayfs/metadata.db";
            host.at(format!("{CONTAINERD}/{path}"))
        };
        assert!(for_rm(&host, &[]).is_empty());
        // The same without it, as an older copy of the file has it.
        let older = Host::empty();
        let left = match lost {
            2 => vec![Snapshot(1, "base", None, 3)],
            _ => vec![Snapshot(2, "web", Some("base"), 2)],
        };
        let space = Namespace {
            snapshots: left,
            ..Namespace::default()
        };
        containerd(&older, CONTAINERD, &[("default", space)], &[]);
        std::fs::copy(database(&older), database(&host)).expect("it is there");
        assert!(for_rm(&host, &[]).is_empty(), "{lost}");
        let found = host.jsonl(["orphans"]);
        assert_ne!(found.status, Some(0), "{lost}: {}", found.text());
    }
}

/// A container's whole id is as little an identity as its name: two namespaces, or engines, have it.
#[apply(test)]
fn an_id_that_two_have_is_ambiguous() {
    let host = Host::empty();
    two_namespaces(&host);
    let words = ["containerd:default/web", "containerd:other/web"];
    for asked in [
        &["branches", "web"][..],
        &["changes", "web"],
        &["which", "web:/file"],
        &["restore", "--dry-run", "web:/file"],
        &["cp", "web:/file", "."],
        &["cat", "web:/file"],
        &["du", "web"],
    ] {
        let output = host.ask(asked).exits(2);
        for word in words {
            assert!(output.stderr.contains(word), "{asked:?}: {}", output.stderr);
        }
    }
    for word in words {
        host.ask(["branches", word]);
    }
    // A name of one engine's is not before the id of another's.
    let host = Host::empty();
    let only = Namespace {
        snapshots: vec![Snapshot(1, "web", None, 2)],
        containers: vec![("web", "web")],
        ..Namespace::default()
    };
    containerd(&host, CONTAINERD, &[("default", only)], &[]);
    linked_layer(&host, &format!("{DOCKER}/overlay2"), 'c', &[]);
    docker_container(&host, "web", '1', 'c');
    let said = host.ask(["changes", "web"]).exits(2).stderr.clone();
    for word in ["docker:web", "containerd:default/web"] {
        assert!(said.contains(word), "{said}");
    }
}

/// The run root of a store that was named is that of whoever's it is: a transient one has its records there.
#[apply(test)]
fn a_transient_store_that_is_named_is_whole() {
    let host = Host::empty();
    let home = format!("{PODMAN}/overlay");
    linked_layer(&host, &home, 'c', &[]);
    podman_lists(&host, PODMAN, &json!([]), &json!([]), &json!([]));
    host.dir(format!("{PODMAN}/overlay-containers/{}/userdata", id('1')));
    let layer = format!("{home}/{}", id('c'));
    let data = format!("{PODMAN}/overlay-containers/{}", id('1'));
    let named = ["--storage-root", PODMAN];
    assert_eq!(for_rm(&host, &named), [&layer[..], &data]);
    for run in ["/run/containers/storage", "/mnt/run"] {
        let conf = format!("[storage]\ngraphroot = \"{PODMAN}\"\nrunroot = \"{run}\"\n");
        host.file("/etc/containers/storage.conf", conf);
        let of = |kind: &str| format!("{run}/overlay-{kind}/volatile-{kind}.json");
        host.file(of("layers"), json!([{"id": id('c')}]).to_string());
        let container = json!({"id": id('1'), "names": ["one"], "layer": id('c')});
        host.file(of("containers"), json!([container]).to_string());
        assert!(for_rm(&host, &[]).is_empty(), "{run}");
        assert!(for_rm(&host, &named).is_empty(), "{run}");
        std::fs::remove_dir_all(host.at(run)).expect("it is there");
    }
}

/// A name that one list prints, every verb takes, and no command takes one of others' for an option.
#[apply(test)]
fn what_nothing_uses_is_called_as_every_verb_takes_it() {
    let host = Host::empty();
    let space = |number, key| Namespace {
        snapshots: vec![Snapshot(number, key, None, 2)],
        ..Namespace::default()
    };
    let spaces = [
        ("default", space(1, "dead")),
        ("other", space(2, "dead")),
        ("third", space(3, "-rf")),
    ];
    containerd(&host, CONTAINERD, &spaces, &[]);
    let unused = host.jsonl(["orphans", "--unused"]).exits(1).rows();
    let names: Vec<&str> = unused.iter().map(|row| text(row, "name")).collect();
    assert_eq!(names, ["default/dead", "other/dead", "third/-rf"]);
    for (row, number) in unused.iter().zip([1, 2, 3]) {
        let name = text(row, "name");
        let branches = host.ask(["--format", "jsonl", "branches", "--", name]);
        assert!(
            branches.text().contains(&format!("/snapshots/{number}/fs")),
            "{name}: {}",
            branches.stderr
        );
        let found = host.jsonl(["whois", "--", name]).exits(0).row();
        assert_eq!(found["layer"], number.to_string(), "{name}: {found}");
    }
    assert_eq!(
        text(&unused[2], "command"),
        "ctr -n third snapshots rm -- -rf"
    );

    // A lease that is over holds nothing.
    let host = Host::empty();
    let space = Namespace {
        leases: vec![
            ("old", "dead", "2020-01-01T00:00:00Z"),
            ("new", "alive", "2100-01-01T00:00:00Z"),
        ],
        snapshots: vec![Snapshot(1, "dead", None, 2), Snapshot(2, "alive", None, 2)],
        ..Namespace::default()
    };
    containerd(&host, CONTAINERD, &[("default", space)], &[]);
    let unused = host.jsonl(["orphans", "--unused"]).exits(1).rows();
    let why = |name: &str| {
        let row = unused
            .iter()
            .find(|row| row["name"] == format!("default/{name}"));
        text(row.expect("a row"), "why").to_owned()
    };
    assert_eq!(
        why("dead"),
        "the lease old held it until 2020-01-01T00:00:00Z: containerd collects it"
    );
    assert_eq!(
        why("alive"),
        "the lease new holds it until 2100-01-01T00:00:00Z"
    );
}
