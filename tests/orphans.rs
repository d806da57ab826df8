//! `orphans`: the captured hosts have nothing left over but what they really have; what is
//! planted in copies of them is found once each; and nobody is accused where a record cannot be
//! read.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use walkdir::WalkDir;

use crate::lab::host::Host;
use crate::lab::run::{self, Output, text};
use crate::lab::store::{DOCKER, PODMAN, docker_container, linked_layer, podman_lists};
use crate::lab::{needs, skip};
use crate::whois::bolt::{self, of};
use crate::whois::{Store, captured, stores};

/// What was found: a kind and a path.
type Found = (String, String);

fn found(output: &Output) -> Vec<Found> {
    let mut found: Vec<Found> = output
        .rows()
        .iter()
        .map(|row| (text(row, "kind").to_owned(), text(row, "path").to_owned()))
        .collect();
    found.sort();
    found
}

/// Names as engines make them: 64 digits.
fn id(digit: char) -> String {
    digit.to_string().repeat(64)
}

fn ask(host: &Host) -> Output {
    host.jsonl(["orphans"])
}

#[track_caller]
fn finds<const N: usize>(host: &Host, planted: [(&str, String); N]) {
    let mut planted: Vec<Found> = planted
        .into_iter()
        .map(|(kind, path)| (kind.to_owned(), path))
        .collect();
    planted.sort();
    let output = ask(host).exits(i32::from(!planted.is_empty()));
    assert_eq!(found(&output), planted, "{}", output.text());
    for row in output.rows() {
        assert!(!text(&row, "why").is_empty(), "{row}");
        let has_size = ["directory", "half-removed", "temporary"].contains(&text(&row, "kind"));
        assert_eq!(row["disk"].is_u64(), has_size, "{row}");
    }
}

/// Demands that nobody is accused while any of the files is spoilt.
#[track_caller]
fn tells_nothing_without(host: &Host, files: &[String]) {
    let mut wrong = Vec::new();
    for file in files {
        let at = host.at(file);
        let whole = fs::read(&at).unwrap_or_else(|error| panic!("{file}: {error}"));
        let half = &whole[..whole.len() / 2];
        fs::write(&at, half).expect("our own");
        let output = ask(host);
        if output.status != Some(2) || !output.stdout.is_empty() || output.stderr.is_empty() {
            wrong.push(format!(
                "without {file}: exit {:?}, {} accused; {}",
                output.status,
                output.text().lines().count(),
                output.stderr
            ));
        }
        fs::write(&at, whole).expect("our own");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The host asked about by somebody who may not read everything.
fn ask_as_nobody(host: &Host) -> Output {
    needs::root("to become somebody else");
    let open = fs::Permissions::from_mode(0o755);
    fs::set_permissions(&host.root, open).expect("our own");
    let as_nobody = |arguments: &[&str]| {
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(env!("CARGO_BIN_EXE_layerctl"))
            .env("TZ", "UTC")
            .arg("--root")
            .arg(&host.root)
            .args(arguments);
        command
    };
    let tried = as_nobody(&["--version"]).output();
    if !tried.is_ok_and(|tried| tried.status.success()) {
        skip("nobody may run the program where it was built");
    }
    run::run(&mut as_nobody(&["--format", "jsonl", "orphans"]))
}

#[apply(test)]
fn nobody_is_accused_by_one_who_may_not_read() {
    needs::time();
    needs::captured_hosts();
    let mut wrong = Vec::new();
    for name in [
        "docker-fuse-overlayfs",
        "podman-vfs",
        "podman-rootless-overlay",
        "containerd-overlayfs",
    ] {
        let store = captured(name);
        let output = ask_as_nobody(&store.host);
        if output.status != Some(2) || !output.stdout.is_empty() {
            let accused = output.text().lines().count();
            wrong.push(format!(
                "{name}: exit {:?}, {accused} accused; {}",
                output.status, output.stderr
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[apply(test)]
fn captured_hosts_have_what_they_have() {
    needs::time();
    for store in stores().iter().filter(|of| of.name != "docker-29") {
        has_left_over(store, usize::from(store.name == "docker-aufs-leftover"));
    }
    for name in ["aufs-plain-01-mounted", "aufs-plain-08-br14"] {
        finds(&Host::captured(name), []);
    }
}

/// Two views that were removed, and that containerd had not yet got round to.
#[apply(test)]
fn dockers_snapshots_have_what_they_have() {
    needs::time();
    for store in stores().iter().filter(|of| of.name == "docker-29") {
        has_left_over(store, 2);
    }
}

/// As the engine's own files tell.
#[track_caller]
fn has_left_over(store: &Store, count: usize) {
    let mut left = Vec::new();
    for layer in &store.layers {
        if layer.id.ends_with("-removing") {
            left.push(("half-removed".to_owned(), layer.directory.clone()));
        } else if layer.kind.is_empty() {
            left.push(("directory".to_owned(), layer.directory.clone()));
        }
    }
    for parent in ["overlay2/l", "fuse-overlayfs/l", "overlay/l"] {
        let parent = format!("{}/{parent}", store.root);
        for link in store.list(&parent) {
            let link = format!("{parent}/{link}");
            if !store.host.at(&link).exists() {
                left.push(("link".to_owned(), link));
            }
        }
    }
    // That each record has its directory was found when the stores were read.
    let records = match store.engine {
        "podman" => ["overlay-containers", "vfs-containers"].map(str::to_owned),
        _ => ["aufs", "overlay2"].map(|driver| format!("image/{driver}/layerdb/mounts")),
    };
    for records in records {
        for container in store.list(&format!("{}/{records}", store.root)) {
            let is_known = store
                .layers
                .iter()
                .any(|layer| layer.containers.contains_key(&container));
            assert!(
                is_known || container.contains('.'),
                "{}: {container}",
                store.name
            );
        }
    }
    left.sort();
    let output = ask(&store.host);
    assert_eq!(found(&output), left, "{}", store.name);
    output.exits(i32::from(!left.is_empty()));
    assert_eq!(left.len(), count, "{left:?}");
}

/// Anything of the image's that the store has.
fn image_layer(store: &Store) -> crate::whois::Known {
    let layer = store.layers.iter().find(|of| of.kind == "image");
    layer.expect("an image's").clone()
}

fn remove(host: &Host, path: &str) {
    let at = host.at(path);
    fs::remove_dir_all(&at).unwrap_or_else(|error| panic!("{}: {error}", at.display()));
}

/// A builder's database, as BuildKit keeps it beside Docker's drivers.
fn plant_buildkit(host: &Host, layers: [&str; 2]) {
    let root = bolt::of([
        (layers[0], of([("parent", bolt::text(""))])),
        (
            "sha256:0123",
            of([
                ("committed", bolt::text(layers[1])),
                ("parent", bolt::text(layers[0])),
            ]),
        ),
    ]);
    let root = root.bucket().expect("a bucket");
    host.file("/var/lib/docker/buildkit/snapshots.db", bolt::write(&root));
}

#[apply(test)]
fn dockers_leftovers_on_links() {
    needs::captured_hosts();
    let store = captured("docker-fuse-overlayfs");
    let (host, root) = (&store.host, "/var/lib/docker");
    let (driver, image) = (
        format!("{root}/fuse-overlayfs"),
        format!("{root}/image/fuse-overlayfs/layerdb"),
    );
    let gone = image_layer(&store);
    let link = gone
        .names
        .iter()
        .find(|name| name.starts_with("l/"))
        .expect("one");
    let chain_id = store
        .list(&format!("{image}/sha256"))
        .into_iter()
        .find(|chain| {
            let cache = host.read(format!("{image}/sha256/{chain}/cache-id"));
            cache == gone.id.as_bytes()
        });
    let chain_id = chain_id.expect("its record");
    remove(host, &gone.directory);
    host.file(format!("{driver}/{}/diff/file", id('a')), "left over");
    host.dir(format!("{driver}/{}/merged", id('a')));
    host.mount(&format!(
        "/ {driver}/{}/merged rw,nodev - fuse.fuse-overlayfs fuse-overlayfs rw,user_id=0",
        id('a')
    ));
    host.link(
        format!("{driver}/l/AAAAAAAAAAAAAAAAAAAAAAAAAA"),
        "../gone/diff",
    );
    host.dir(format!("{driver}/{}-removing/diff", id('b')));
    host.file(format!("{image}/mounts/{}/mount-id", id('c')), id('d'));
    // What Docker 26 leaves of a container that was removed while it ended is no container.
    host.dir(format!("{root}/containers/{}", id('f')));
    host.jsonl(["containers"]).exits(0);
    // Nobody's business: a pull, a builder, other roots.
    host.file(format!("{image}/tmp/write-set-1/cache-id"), id('e'));
    host.dir(format!("{driver}/{}/diff", id('e')));
    let built = ["qmj8wk1v0rgvgd2m1xlxn4zdy", "zi0q6v4ejlp5cq24qdk9hoy2t"];
    plant_buildkit(host, built);
    for layer in built {
        host.dir(format!("{driver}/{layer}/diff"));
    }
    host.dir(format!(
        "{root}/165536.165536/fuse-overlayfs/{}/diff",
        id('9')
    ));
    host.dir(format!("{root}/165536.165536/overlay2/{}/diff", id('9')));
    host.dir(format!("/srv/docker/overlay2/{}/diff", id('9')));
    // What is mounted is in use: its directory is left over when it is not any more.
    let planted = [
        ("mount", format!("{driver}/{}/merged", id('a'))),
        ("half-removed", format!("{driver}/{}-removing", id('b'))),
        ("link", format!("{driver}/l/AAAAAAAAAAAAAAAAAAAAAAAAAA")),
        ("link", format!("{driver}/{link}")),
        ("metadata", format!("{image}/sha256/{chain_id}")),
        ("metadata", format!("{image}/mounts/{}", id('c'))),
        ("metadata", format!("{root}/containers/{}", id('f'))),
    ];
    // What is printed alone is for rm: a mount is not.
    let removable = planted.iter().filter(|(kind, _)| *kind != "mount");
    let mut paths: Vec<String> = removable.map(|(_, path)| path.clone()).collect();
    paths.sort();
    finds(host, planted);
    let output = host.ask(["-0", "-q", "orphans"]).exits(1);
    let mut said: Vec<&str> = output.text().split_terminator('\0').collect();
    said.sort_unstable();
    assert_eq!(said, paths);
}

#[apply(test)]
fn nobody_is_accused_where_docker_is_damaged() {
    needs::captured_hosts();
    let store = captured("docker-fuse-overlayfs");
    let (host, root) = (&store.host, "/var/lib/docker");
    let built = ["qmj8wk1v0rgvgd2m1xlxn4zdy", "zi0q6v4ejlp5cq24qdk9hoy2t"];
    plant_buildkit(host, built);
    for layer in built {
        host.dir(format!("{root}/fuse-overlayfs/{layer}/diff"));
    }
    host.dir(format!("{root}/fuse-overlayfs/{}/diff", id('a')));
    let container = store.list(&format!("{root}/containers")).remove(0);
    let configuration = store
        .list(&format!(
            "{root}/image/fuse-overlayfs/imagedb/content/sha256"
        ))
        .remove(0);
    tells_nothing_without(
        host,
        &[
            format!("{root}/containers/{container}/config.v2.json"),
            format!("{root}/image/fuse-overlayfs/repositories.json"),
            format!("{root}/image/fuse-overlayfs/imagedb/content/sha256/{configuration}"),
            format!("{root}/buildkit/snapshots.db"),
        ],
    );
}

#[apply(test)]
fn dockers_leftovers_in_copies() {
    needs::time();
    needs::captured_hosts();
    for (name, driver, parent) in [
        ("docker-vfs", "vfs", "vfs/dir"),
        ("docker-btrfs", "btrfs", "btrfs/subvolumes"),
    ] {
        let store = captured(name);
        let (host, parent) = (&store.host, format!("/var/lib/docker/{parent}"));
        let image = format!("/var/lib/docker/image/{driver}/layerdb");
        let own = store
            .layers
            .iter()
            .find(|of| of.kind == "container")
            .expect("one");
        let container = own.containers.keys().next().expect("one");
        remove(host, &own.directory);
        host.file(format!("{parent}/{}/file", id('a')), "left over");
        host.dir(format!("{parent}/{}-removing", id('b')));
        finds(
            host,
            [
                ("directory", format!("{parent}/{}", id('a'))),
                ("half-removed", format!("{parent}/{}-removing", id('b'))),
                ("metadata", format!("{image}/mounts/{container}")),
            ],
        );
    }
}

#[apply(test)]
fn dockers_leftovers_on_aufs() {
    needs::captured_hosts();
    let store = captured("docker-aufs-webapp");
    let (host, aufs) = (&store.host, "/var/lib/docker/aufs");
    host.file(format!("{aufs}/diff/{}/file", id('a')), "left over");
    host.dir(format!("{aufs}/mnt/{}", id('a')));
    host.union(
        "1234567890abcdef",
        &[(&format!("{aufs}/mnt/{}", id('a')), "/")],
        &[(format!("{aufs}/diff/{}", id('a')).as_bytes(), "rw")],
    );
    finds(host, [("mount", format!("{aufs}/mnt/{}", id('a')))]);
}

/// What a removal that was ended in the middle leaves: Docker renames the record of an image's
/// layer before it removes the layer.
#[apply(test)]
fn a_half_removed_record_is_found() {
    needs::captured_hosts();
    let store = captured("docker-vfs");
    let records = "/var/lib/docker/image/vfs/layerdb/sha256";
    let record = format!("{records}/{}-{}-removing", id('a'), id('b'));
    store.host.file(format!("{record}/cache-id"), id('c'));
    store
        .host
        .file(format!("{record}/diff"), format!("sha256:{}", id('a')));
    let layer = format!("/var/lib/docker/vfs/dir/{}", id('c'));
    store.host.dir(&layer);
    let output = ask(&store.host).exits(1);
    let found = found(&output);
    let is_half =
        |(kind, path): &Found| kind == "half-removed" && [&record, &layer].contains(&path);
    assert!(found.iter().any(is_half), "{found:?}");
}

/// A pull that was ended leaves its record apart, and what it unpacked was removed.
#[apply(test)]
fn what_a_pull_left_is_temporary() {
    needs::captured_hosts();
    let store = captured("docker-vfs");
    let set = "/var/lib/docker/image/vfs/layerdb/tmp/write-set-12";
    store.host.file(format!("{set}/cache-id"), id('c'));
    finds(&store.host, [("temporary", set.to_owned())]);
}

/// What cannot be looked into has no size: that of the directory alone would be a claim.
#[apply(test)]
fn what_cannot_be_walked_has_no_size() {
    needs::captured_hosts();
    let store = captured("docker-vfs");
    let set = "/var/lib/docker/image/vfs/layerdb/tmp/write-set-12";
    store.host.file(format!("{set}/cache-id"), id('c'));
    store.host.file(format!("{set}/closed/parent"), id('b'));
    for entry in WalkDir::new(&store.host.root) {
        let entry = entry.expect("our own");
        if !entry.file_type().is_symlink() {
            let mode = if entry.file_type().is_dir() {
                0o755
            } else {
                0o644
            };
            let mode = fs::Permissions::from_mode(mode);
            fs::set_permissions(entry.path(), mode).expect("our own");
        }
    }
    let closed = store.host.at(format!("{set}/closed"));
    for (mode, status) in [(0o755, 1), (0o000, 2)] {
        fs::set_permissions(&closed, fs::Permissions::from_mode(mode)).expect("our own");
        let output = ask_as_nobody(&store.host).exits(status);
        assert_eq!(found(&output), [("temporary".to_owned(), set.to_owned())]);
        assert_eq!(output.rows()[0]["disk"].is_u64(), status == 1);
        assert_eq!(output.stderr.contains("/closed"), status == 2);
    }
}

/// To empty a log is to free it; to remove its container is not what was asked for.
#[apply(test)]
fn an_old_log_is_emptied_and_an_empty_one_is_nothing() {
    let host = Host::empty();
    let home = format!("{DOCKER}/overlay2");
    for (name, container, layer, log) in [("said", '1', '2', "{}\n"), ("silent", '3', '4', "")] {
        linked_layer(&host, &home, layer, &[]);
        docker_container(&host, name, container, layer);
        let long = id(container);
        host.file(format!("{DOCKER}/containers/{long}/{long}-json.log"), log);
    }
    let rows = host.jsonl(["orphans", "--unused"]).rows();
    let logs: Vec<&Value> = rows.iter().filter(|row| row["kind"] == "log").collect();
    let path = format!("{DOCKER}/containers/{0}/{0}-json.log", id('1'));
    assert_eq!(logs.len(), 1, "{logs:?}");
    assert_eq!(logs[0]["path"], *path);
    assert_eq!(logs[0]["command"], format!("truncate -s 0 -- {path}"));
}

/// Other drivers' logs, and Podman's: what `du` counts as a log is one.
#[apply(test)]
fn an_old_log_is_one_whoever_wrote_it() {
    let host = Host::empty();
    linked_layer(&host, &format!("{DOCKER}/overlay2"), '2', &[]);
    docker_container(&host, "said", '1', '2');
    let own = format!("{DOCKER}/containers/{}", id('1'));
    let mut expected = vec![
        format!("{own}/container-cached.log"),
        format!("{own}/local-logs/container.log"),
        format!("{own}/local-logs/container.log.1.gz"),
    ];
    for path in &expected {
        host.file(path, "a line");
    }
    host.file(format!("{own}/local-logs/empty"), "");
    linked_layer(&host, &format!("{PODMAN}/overlay"), '3', &[]);
    let containers = json!([{"id": id('4'), "names": ["one"], "layer": id('3'), "metadata": "{}"}]);
    podman_lists(
        &host,
        PODMAN,
        &json!([{"id": id('3')}]),
        &json!([]),
        &containers,
    );
    host.dir("/run/containers/storage");
    let log = format!("{PODMAN}/overlay-containers/{}/userdata/ctr.log", id('4'));
    host.file(&log, "a line");
    expected.push(log);
    let rows = host.jsonl(["orphans", "--unused"]).rows();
    let logs = rows.iter().filter(|row| row["kind"] == "log");
    let mut found: Vec<&str> = logs.map(|row| text(row, "path")).collect();
    found.sort_unstable();
    expected.sort_unstable();
    assert_eq!(found, expected, "{rows:?}");
}

#[apply(test)]
fn podmans_leftovers() {
    needs::time();
    needs::captured_hosts();
    for (name, driver, parent) in [
        ("podman-rootless-overlay", "overlay", "overlay"),
        ("podman-vfs", "vfs", "vfs/dir"),
    ] {
        let store = captured(name);
        let (host, root) = (&store.host, store.root);
        let parent = format!("{root}/{parent}");
        let list = |kind: &str| format!("{root}/{driver}-{kind}/{kind}.json");
        let gone = image_layer(&store);
        remove(host, &gone.directory);
        host.file(format!("{parent}/{}/diff/file", id('a')), "left over");
        host.dir(format!("{root}/{driver}-containers/{}/userdata", id('b')));
        let containers: Value =
            serde_json::from_slice(&host.read(list("containers"))).expect("JSON");
        let mut containers = containers.as_array().cloned().expect("containers");
        containers.push(json!({
            "id": id('c'), "names": ["lost"], "image": "", "layer": id('d'), "metadata": "{}",
        }));
        host.file(list("containers"), Value::from(containers).to_string());
        let mut planted = vec![
            (
                "metadata".to_owned(),
                format!("{root}/{driver}-containers/{}", id('b')),
            ),
            ("metadata".to_owned(), list("containers")),
            ("metadata".to_owned(), list("layers")),
        ];
        if driver == "vfs" {
            planted.push(("directory".to_owned(), format!("{parent}/{}", id('a'))));
        }
        if driver == "overlay" {
            let link = gone
                .names
                .iter()
                .find(|name| name.starts_with("l/"))
                .expect("one");
            host.link(
                format!("{parent}/l/AAAAAAAAAAAAAAAAAAAAAAAAAA"),
                "../gone/diff",
            );
            host.mount(&format!(
                "/ {parent}/{}/merged rw - overlay overlay rw,lowerdir={parent}/{}/diff,upperdir={parent}/{}/diff,workdir={parent}/{}/work",
                id('a'), id('e'), id('a'), id('a')
            ));
            planted.extend([
                (
                    "link".to_owned(),
                    format!("{parent}/l/AAAAAAAAAAAAAAAAAAAAAAAAAA"),
                ),
                ("link".to_owned(), format!("{parent}/{link}")),
                ("mount".to_owned(), format!("{parent}/{}/merged", id('a'))),
            ]);
        }
        planted.sort();
        let output = ask(host).exits(1);
        assert_eq!(found(&output), planted, "{name}");
    }
}

#[apply(test)]
fn nobody_is_accused_where_podman_is_damaged() {
    needs::time();
    needs::captured_hosts();
    for (name, driver) in [
        ("podman-rootless-overlay", "overlay"),
        ("podman-vfs", "vfs"),
    ] {
        let store = captured(name);
        let (host, root) = (&store.host, store.root);
        let list = |kind: &str| format!("{root}/{driver}-{kind}/{kind}.json");
        tells_nothing_without(host, &["layers", "images", "containers"].map(list));
    }
}

/// An image in a store that is only read has no layer in the own one.
#[apply(test)]
fn another_store_is_not_accused() {
    let host = Host::empty();
    host.file(
        "/etc/containers/storage.conf",
        "[storage]\ndriver = \"overlay\"\ngraphroot = \"/var/lib/containers/storage\"\n\
         [storage.options]\nadditionalimagestores = [\"/srv/images\"]\n",
    );
    let own = "/var/lib/containers/storage";
    let list = |store: &str, kind: &str, of: Value| {
        host.file(
            format!("{store}/overlay-{kind}/{kind}.json"),
            of.to_string(),
        );
    };
    list("/srv/images", "layers", json!([{"id": id('a')}]));
    list(
        "/srv/images",
        "images",
        json!([{"id": id('1'), "names": ["localhost/lab/app:1"], "layer": id('a')}]),
    );
    host.dir(format!("/srv/images/overlay/{}/diff", id('a')));
    // Somebody else's: its owner will know.
    host.dir(format!("/srv/images/overlay/{}/diff", id('f')));
    list(own, "layers", json!([{"id": id('b'), "parent": id('a')}]));
    list(own, "images", json!([]));
    list(
        own,
        "containers",
        json!([{"id": id('2'), "names": ["one"], "image": id('1'), "layer": id('b'), "metadata": "{}"}]),
    );
    host.dir(format!("{own}/overlay/{}/diff", id('b')));
    host.dir(format!("{own}/overlay-containers/{}", id('2')));
    host.link(
        format!("{own}/overlay/l/BBBBBBBBBBBBBBBBBBBBBBBBBB"),
        format!("../{}/diff", id('b')),
    );
    finds(&host, []);
}

#[apply(test)]
fn containerds_leftovers() {
    needs::captured_hosts();
    let store = captured("containerd-overlayfs");
    let (host, root) = (&store.host, store.root);
    let snapshotter = format!("{root}/io.containerd.snapshotter.v1.overlayfs");
    let gone = image_layer(&store);
    remove(host, &gone.directory);
    host.file(format!("{snapshotter}/snapshots/999/fs/file"), "left over");
    host.dir(format!("{snapshotter}/snapshots/new-123456/fs"));
    host.dir(format!("{snapshotter}/snapshots/rm-77/fs"));
    finds(
        host,
        [
            ("directory", format!("{snapshotter}/snapshots/999")),
            ("metadata", format!("{snapshotter}/metadata.db")),
            ("temporary", format!("{snapshotter}/snapshots/new-123456")),
            ("temporary", format!("{snapshotter}/snapshots/rm-77")),
        ],
    );
}

#[apply(test)]
fn nobody_is_accused_where_containerd_is_damaged() {
    needs::captured_hosts();
    let store = captured("containerd-overlayfs");
    let (host, root) = (&store.host, store.root);
    let snapshotter = format!("{root}/io.containerd.snapshotter.v1.overlayfs");
    host.dir(format!("{snapshotter}/snapshots/999/fs"));
    tells_nothing_without(
        host,
        &[
            format!("{root}/io.containerd.metadata.v1.bolt/meta.db"),
            format!("{snapshotter}/metadata.db"),
        ],
    );
}

#[apply(test)]
fn a_stale_mount_of_containerds_is_found() {
    needs::captured_hosts();
    let store = captured("containerd-overlayfs");
    let snapshots = "/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots";
    store.host.dir(format!("{snapshots}/999/fs"));
    let point = "/run/containerd/io.containerd.runtime.v2.task/default/gone/rootfs";
    store.host.mount(&format!(
        "/ {point} rw - overlay overlay rw,lowerdir={snapshots}/1/fs,upperdir={snapshots}/999/fs,workdir={snapshots}/999/work"
    ));
    finds(&store.host, [("mount", point.to_owned())]);
}

/// A containerd with the snapshots `keys`, numbered from 1, and what else its namespace has.
fn containerd(keys: &[&str], lease: Option<&str>, has_container: bool) -> Host {
    let host = Host::empty();
    let root = "/var/lib/containerd";
    let snapshotter = format!("{root}/io.containerd.snapshotter.v1.overlayfs");
    let (mut own, mut named) = (BTreeMap::new(), BTreeMap::new());
    for (index, key) in keys.iter().enumerate() {
        let number = u8::try_from(index + 1).expect("few");
        let name = format!("default/{number}/{key}");
        named.insert(key.as_bytes().to_vec(), of([("name", bolt::text(&name))]));
        let snapshot = of([
            ("id", bolt::Item::Value(vec![number])),
            ("kind", bolt::Item::Value(vec![2])),
        ]);
        own.insert(name.into_bytes(), snapshot);
        host.dir(format!("{snapshotter}/snapshots/{number}/fs"));
        host.dir(format!("{snapshotter}/snapshots/{number}/work"));
    }
    let own = of([("v1", of([("snapshots", bolt::Item::Bucket(own))]))]);
    let leases = match lease {
        Some(key) => of([(
            "held",
            of([(
                "snapshots",
                of([("overlayfs", of([(key, bolt::text(""))]))]),
            )]),
        )]),
        None => of([]),
    };
    let containers = if has_container {
        of([(
            "one",
            of([
                ("snapshotKey", bolt::text("view-key")),
                ("snapshotter", bolt::text("overlayfs")),
            ]),
        )])
    } else {
        of([])
    };
    let namespace = of([
        ("containers", containers),
        ("leases", leases),
        ("snapshots", of([("overlayfs", bolt::Item::Bucket(named))])),
    ]);
    let meta = of([(
        "v1",
        of([
            ("default", namespace),
            ("version", bolt::Item::Value(vec![6])),
        ]),
    )]);
    let write = |item: bolt::Item| bolt::write(&item.bucket().expect("a bucket"));
    host.file(format!("{snapshotter}/metadata.db"), write(own));
    host.file(
        format!("{root}/io.containerd.metadata.v1.bolt/meta.db"),
        write(meta),
    );
    host
}

#[apply(test)]
fn a_lease_holds_what_nothing_else_has() {
    let unpacked = "extract-123456789-abcd sha256:00";
    let host = containerd(&["leased", unpacked, "view-key"], Some("leased"), true);
    finds(&host, []);
    let snapshots = "/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots";
    host.dir(format!("{snapshots}/7/fs"));
    finds(&host, [("directory", format!("{snapshots}/7"))]);
}

/// What an engine leaves when everything that it had was removed.
#[apply(test)]
fn a_containerd_without_containers_has_leftovers() {
    let host = containerd(&["committed-key"], None, false);
    let snapshots = "/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots";
    host.dir(format!("{snapshots}/7/fs"));
    finds(&host, [("directory", format!("{snapshots}/7"))]);
}

#[apply(test)]
fn nothing_is_left_over_where_no_engine_is() {
    let host = Host::empty();
    finds(&host, []);
    assert!(Path::new(&host.root).exists());
}
