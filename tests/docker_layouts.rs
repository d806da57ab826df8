//! Docker's directories as no captured host has them: the old overlay driver, remapped users, a
//! data directory elsewhere, what an earlier driver left, and metadata that lies.

use std::fs;
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, XattrFlags, lsetxattr, makedev, mknodat};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::lab::host::Host;
use crate::lab::needs;
use crate::lab::run::{Output, bytes, text, texts};
use crate::lab::{is_root, skip};

const DATA: &str = "/var/lib/docker";
const CREATED: &str = "2026-01-02T03:04:05.678901234Z";

/// One driver's files in one data directory, written as a daemon writes them.
struct Docker<'h> {
    host: &'h Host,
    data: &'h str,
    driver: &'static str,
}

/// What a container is made of.
#[derive(Clone)]
struct Image {
    id: String,
    name: &'static str,
    top_chain: String,
}

impl<'h> Docker<'h> {
    fn new(host: &'h Host, driver: &'static str) -> Docker<'h> {
        Docker {
            host,
            data: DATA,
            driver,
        }
    }

    fn at(&self, path: &str) -> String {
        format!("{}/{path}", self.data)
    }

    fn file(&self, path: &str, content: impl AsRef<[u8]>) -> &Docker<'h> {
        self.host.file(self.at(path), content);
        self
    }

    fn dir(&self, path: &str) -> &Docker<'h> {
        self.host.dir(self.at(path));
        self
    }

    /// The image and its layers in the driver's databases. The layers are named by their
    /// directories, the base first.
    fn image(&self, name: &'static str, layers: &[&str]) -> Image {
        let database = format!("image/{}", self.driver);
        let mut chain = String::new();
        let mut diffs = Vec::new();
        for cache_id in layers {
            let diff = format!("sha256:{}", sha256(cache_id));
            let parent = std::mem::take(&mut chain);
            chain = if parent.is_empty() {
                diff.clone()
            } else {
                format!("sha256:{}", sha256(format!("{parent} {diff}")))
            };
            let hex = chain.strip_prefix("sha256:").expect("just made");
            let at = |file: &str| format!("{database}/layerdb/sha256/{hex}/{file}");
            self.file(&at("cache-id"), cache_id)
                .file(&at("diff"), &diff)
                .file(&at("size"), "1000");
            if !parent.is_empty() {
                self.file(&at("parent"), parent);
            }
            diffs.push(diff);
        }
        let history: Vec<Value> = layers
            .iter()
            .map(|layer| json!({ "created": CREATED, "created_by": format!("made {layer}") }))
            .collect();
        let content = json!({
            "architecture": "amd64",
            "config": { "Cmd": ["sh"] },
            "created": CREATED,
            "history": history,
            "os": "linux",
            "rootfs": { "type": "layers", "diff_ids": diffs },
        })
        .to_string();
        let id = sha256(&content);
        self.file(&format!("{database}/imagedb/content/sha256/{id}"), content);
        let mut names = serde_json::Map::new();
        names.insert(format!("{name}:1"), format!("sha256:{id}").into());
        let repositories = json!({ "Repositories": { name: names } });
        self.file(
            &format!("{database}/repositories.json"),
            repositories.to_string(),
        );
        Image {
            id,
            name,
            top_chain: chain,
        }
    }

    /// A container that has exited, and its id.
    fn container(&self, name: &str, image: &Image, mount_id: &str) -> String {
        let id = sha256(format!("{} {} {name}", self.data, self.driver));
        let config = json!({
            "State": {
                "Running": false, "Paused": false, "Restarting": false, "Dead": false, "Pid": 0,
                "ExitCode": 0, "StartedAt": CREATED, "FinishedAt": CREATED,
            },
            "ID": id,
            "Created": CREATED,
            "Path": "sh",
            "Args": [],
            "Config": { "Image": format!("{}:1", image.name), "Cmd": ["sh"] },
            "Image": format!("sha256:{}", image.id),
            "NetworkSettings": { "Ports": {} },
            "Name": format!("/{name}"),
            "Driver": self.driver,
        });
        self.file(
            &format!("containers/{id}/config.v2.json"),
            config.to_string(),
        );
        let at = |file| format!("image/{}/layerdb/mounts/{id}/{file}", self.driver);
        self.file(&at("mount-id"), mount_id)
            .file(&at("init-id"), format!("{mount_id}-init"))
            .file(&at("parent"), &image.top_chain);
        id
    }

    /// A layer of overlay2: its short name, and those below it, topmost first.
    fn overlay2(&self, id: &str, link: &str, lower: &[&str]) -> &Docker<'h> {
        self.dir(&format!("overlay2/{id}/diff"))
            .file(&format!("overlay2/{id}/link"), link);
        self.host.link(
            self.at(&format!("overlay2/l/{link}")),
            format!("../{id}/diff"),
        );
        if !lower.is_empty() {
            let lower: Vec<String> = lower.iter().map(|link| format!("l/{link}")).collect();
            self.file(&format!("overlay2/{id}/lower"), lower.join(":"))
                .dir(&format!("overlay2/{id}/work"));
        }
        self
    }

    /// `top` over `base`, and a container `name` that changed both: whose id is returned.
    fn webapp(&self, name: &str) -> String {
        self.overlay2("base", "BASE", &[])
            .overlay2("top", "TOP", &["BASE"])
            .overlay2("mount-init", "INIT", &["TOP", "BASE"])
            .overlay2("mount", "MOUNT", &["INIT", "TOP", "BASE"])
            .file("overlay2/base/diff/etc/passwd", "base")
            .file("overlay2/base/diff/etc/group", "base")
            .file("overlay2/top/diff/etc/passwd", "top")
            .file("overlay2/mount-init/diff/.dockerenv", "")
            .file("overlay2/mount-init/diff/etc/hosts", "")
            .file("overlay2/mount/diff/etc/group", "changed")
            .file("overlay2/mount/diff/new", "new");
        let image = self.image("app", &["base", "top"]);
        self.container(name, &image, "mount")
    }

    fn webapp_branches(&self) -> Vec<Vec<u8>> {
        ["mount", "mount-init", "top", "base"]
            .map(|id| self.at(&format!("overlay2/{id}/diff")).into_bytes())
            .to_vec()
    }
}

const WEBAPP_CHANGES: &str = "C /etc\nC /etc/group\nA /new\n";

fn sha256(of: impl AsRef<[u8]>) -> String {
    let digits = Sha256::digest(of.as_ref());
    digits.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A character device 0:0, which most kernels let anybody make: whether it could be made.
fn device(host: &Host, path: &str) -> bool {
    mknodat(
        CWD,
        host.at(path),
        FileType::CharacterDevice,
        Mode::empty(),
        makedev(0, 0),
    )
    .is_ok()
}

fn attribute(host: &Host, path: &str, name: &str, value: &[u8]) {
    lsetxattr(host.at(path), name, value, XattrFlags::empty()).expect("root may");
}

#[track_caller]
fn changes_of(host: &Host, target: &str) -> String {
    let output = host.ask(["changes", target]).exits(0);
    output.text().to_owned()
}

/// Where a path comes from: its branch's number.
#[track_caller]
fn provider(host: &Host, target: &str, path: &str) -> u64 {
    let row = host.jsonl(["which", "--in", target, path]).exits(0).row();
    assert_eq!(row["state"], "present", "{row}");
    row["branch"].as_u64().expect("a branch")
}

#[track_caller]
fn listed(host: &Host, target: &str) -> Vec<String> {
    let rows = host.jsonl(["ls", "-R", target]).exits(0).rows();
    rows.iter()
        .map(|row| String::from_utf8(bytes(&row["path"])).expect("plain names"))
        .collect()
}

fn directories(paths: &[&str]) -> Vec<Vec<u8>> {
    paths.iter().map(|path| path.as_bytes().to_vec()).collect()
}

// ---- the old overlay driver ----

/// An image of two layers, each a whole tree that shares its files with the one below, and a
/// container that changed it, whose upper directory began as a copy of its init layer's.
fn old_overlay(host: &Host) -> Docker<'_> {
    let docker = Docker::new(host, "overlay");
    docker
        .file("overlay/base/root/etc/passwd", "base")
        .file("overlay/base/root/etc/group", "base")
        .file("overlay/base/root/opt/gone", "gone in the image")
        .file("overlay/base/root/opt/dir/file", "base")
        .file("overlay/base/root/opt/deleted", "to be deleted")
        .file("overlay/top/root/etc/passwd", "top")
        .file("overlay/top/root/added", "top");
    for shared in ["etc/group", "opt/dir/file", "opt/deleted"] {
        let [from, to] = ["base", "top"]
            .map(|layer| host.at(docker.at(&format!("overlay/{layer}/root/{shared}"))));
        fs::create_dir_all(to.parent().expect("below the root")).expect("a directory of our own");
        fs::hard_link(from, to).expect("a file of our own");
    }
    for layer in ["mount-init", "mount"] {
        docker
            .file(&format!("overlay/{layer}/lower-id"), "top")
            .file(&format!("overlay/{layer}/upper/.dockerenv"), "")
            .file(&format!("overlay/{layer}/upper/etc/hosts"), "")
            .dir(&format!("overlay/{layer}/work/work"))
            .dir(&format!("overlay/{layer}/merged"));
    }
    // What the driver copies keeps its times.
    for path in ["/.dockerenv", "/etc/hosts"] {
        let [from, to] = ["mount-init", "mount"]
            .map(|layer| host.at(docker.at(&format!("overlay/{layer}/upper{path}"))));
        let time = fs::metadata(from)
            .and_then(|meta| meta.modified())
            .expect("a file of our own");
        let file = fs::File::options().write(true).open(to);
        let is_set = file.and_then(|file| file.set_modified(time));
        is_set.expect("a file of our own");
    }
    docker
}

const OLD_BRANCHES: [&str; 2] = [
    "/var/lib/docker/overlay/mount/upper",
    "/var/lib/docker/overlay/top/root",
];

#[apply(test)]
fn old_overlay_has_one_image_below_a_container() {
    let host = Host::empty();
    let docker = old_overlay(&host);
    let image = docker.image("app", &["base", "top"]);
    docker.container("unchanged", &image, "mount");
    assert_eq!(host.branches_of("unchanged"), directories(&OLD_BRANCHES));
    assert_eq!(changes_of(&host, "unchanged"), "");
    assert_eq!(provider(&host, "unchanged", "/etc/passwd"), 1);
    assert_eq!(provider(&host, "unchanged", "/etc/hosts"), 0);
    // What the image deleted is in no layer that counts.
    let row = host.jsonl(["which", "unchanged:/opt/gone"]).exits(1).row();
    assert_eq!(row["state"], "missing", "{row}");
    assert_eq!(
        listed(&host, "unchanged"),
        [
            "/.dockerenv",
            "/added",
            "/etc",
            "/etc/group",
            "/etc/hosts",
            "/etc/passwd",
            "/opt",
            "/opt/deleted",
            "/opt/dir",
            "/opt/dir/file",
        ]
    );

    docker
        .file("overlay/mount/upper/etc/passwd", "changed by it")
        .file("overlay/mount/upper/opt/new", "by the container");
    assert_eq!(
        changes_of(&host, "unchanged"),
        "C /etc\nC /etc/passwd\nC /opt\nA /opt/new\n"
    );
    assert_eq!(provider(&host, "unchanged", "/etc/passwd"), 0);
    let mut rows = host.jsonl(["copyups", "unchanged"]).exits(0).rows();
    // What the driver copied is no different.
    rows.retain(|row| row["differs"] != json!([]));
    assert_eq!(texts(&rows, "path"), ["/etc/passwd"]);

    let row = host.jsonl(["info"]).exits(0).row();
    let engine = &row["engines"][0];
    assert_eq!(engine["storage_driver"], "overlay");
    assert_eq!(engine["root_dir"], "/var/lib/docker/overlay");
    let rows = host.jsonl(["containers"]).exits(0).rows();
    assert_eq!(texts(&rows, "driver"), ["overlay"]);
}

#[apply(test)]
fn old_overlay_deletes_as_overlay_does() {
    let host = Host::empty();
    let docker = old_overlay(&host);
    let image = docker.image("app", &["base", "top"]);
    docker.container("changed", &image, "mount");
    let upper = docker.at("overlay/mount/upper");
    docker.dir("overlay/mount/upper/opt");
    if !device(&host, &format!("{upper}/opt/deleted")) {
        skip("to make a whiteout takes root");
    }
    assert_eq!(changes_of(&host, "changed"), "C /opt\nD /opt/deleted\n");
    let row = host.jsonl(["which", "changed:/opt/deleted"]).exits(1).row();
    assert_eq!(row["state"], "deleted", "{row}");
    assert_eq!(row["hidden_by"]["branch"], 0, "{row}");
    let rows = host.jsonl(["whiteouts", "changed"]).exits(0).rows();
    assert_eq!(texts(&rows, "path"), ["/opt/deleted"]);
    if is_root() {
        docker.dir("overlay/mount/upper/opt/dir");
        attribute(
            &host,
            &format!("{upper}/opt/dir"),
            "trusted.overlay.opaque",
            b"y",
        );
        assert_eq!(
            changes_of(&host, "changed"),
            "C /opt\nD /opt/deleted\nC /opt/dir\nD /opt/dir/file\n"
        );
    }
    host.ask(["restore", "--write", "changed:/opt/deleted"])
        .exits(0);
    assert_eq!(provider(&host, "changed", "/opt/deleted"), 1);
    assert!(!host.at(format!("{upper}/opt/deleted")).exists());
}

#[apply(test)]
fn old_overlay_images_are_whole_layers() {
    let host = Host::empty();
    let docker = old_overlay(&host);
    let image = docker.image("app", &["base", "top"]);
    docker.container("app-1", &image, "mount");
    assert_eq!(
        host.branches_of("app:1"),
        directories(&["/var/lib/docker/overlay/top/root"])
    );
    assert_eq!(provider(&host, "app:1", "/etc/group"), 0);
    let rows = host.jsonl(["history", "app:1"]).exits(0).rows();
    assert_eq!(texts(&rows, "instruction"), ["made top", "made base"]);
    let rows = host.jsonl(["images"]).exits(0).rows();
    assert_eq!(texts(&rows, "id"), [image.id]);
    assert_eq!(rows[0]["layer_count"], 2);
    assert_eq!(rows[0]["driver"], "overlay");
}

#[apply(test)]
fn old_overlay_while_it_is_mounted() {
    crate::lab::needs::root("to be told of overlay's marks");
    let host = Host::empty();
    let docker = old_overlay(&host);
    let image = docker.image("app", &["base", "top"]);
    let id = docker.container("mounted", &image, "mount");
    host.mount("/ / rw - ext4 /dev/sda1 rw").mount(
        "/ /var/lib/docker/overlay/mount/merged rw,relatime - overlay overlay rw,\
         lowerdir=/var/lib/docker/overlay/top/root,\
         upperdir=/var/lib/docker/overlay/mount/upper,\
         workdir=/var/lib/docker/overlay/mount/work",
    );
    let row = host.jsonl(["branches"]).exits(0).row();
    assert_eq!(row["target"], "docker:mounted");
    assert_eq!(row["state"], "mounted");
    assert_eq!(row["owner"]["id"], id);
    assert_eq!(host.branches_of("mounted"), directories(&OLD_BRANCHES));
    assert_eq!(
        host.branches_of("/var/lib/docker/overlay/mount/merged"),
        directories(&OLD_BRANCHES)
    );
    assert_eq!(changes_of(&host, "mounted"), "");
    let rows = host.jsonl(["containers"]).exits(0).rows();
    assert_eq!(rows[0]["mounted"], true);
}

#[apply(test)]
fn old_overlay_with_a_lie_for_a_lower() {
    let secret = "/etc/secret";
    for lie in [
        "../../../../etc",
        "/etc",
        "..",
        ".",
        "",
        "top/root/../../..",
        "top\nbase",
        "t\0p",
        "nothing",
        "mount",
    ] {
        let host = Host::empty();
        let docker = old_overlay(&host);
        let image = docker.image("app", &["base", "top"]);
        docker.container("lied-to", &image, "mount");
        host.file(secret, "secret")
            .file("/etc/root/secret", "secret");
        docker.file("overlay/mount/lower-id", lie);
        for arguments in [
            ["which", "lied-to:/secret"],
            ["ls", "lied-to:/"],
            ["branches", "lied-to"],
            ["changes", "lied-to"],
        ] {
            let output = host.ask(arguments);
            assert_eq!(
                output.status,
                Some(2),
                "{lie:?}: {arguments:?} {}",
                output.stderr
            );
            assert_says_nothing_of(&output, "secret");
        }
        // It is listed all the same.
        let rows = host.jsonl(["containers"]).exits(0).rows();
        assert_eq!(texts(&rows, "name"), ["lied-to"], "{lie:?}");
    }
}

#[track_caller]
fn assert_says_nothing_of(output: &Output, word: &str) {
    let said = String::from_utf8_lossy(&output.stdout);
    // The question itself may be repeated.
    let said = said.replace(":/secret", "").replace("/secret", "");
    assert!(!said.contains(word), "{said}");
}

// ---- remapped users ----

const REMAPPED: &str = "/var/lib/docker/165536.165536";

#[apply(test)]
fn remapped_users_have_a_data_directory_of_their_own() {
    crate::lab::needs::root("to be told of overlay's marks");
    let host = Host::empty();
    let plain = Docker::new(&host, "overlay2");
    let remapped = Docker {
        data: REMAPPED,
        ..Docker::new(&host, "overlay2")
    };
    let (plain_id, remapped_id) = (plain.webapp("plain"), remapped.webapp("remapped"));
    remapped.file("overlay2/mount/diff/new", "other content");
    let rows = host.jsonl(["containers"]).exits(0).rows();
    let mut names = texts(&rows, "name");
    names.sort_unstable();
    assert_eq!(names, ["plain", "remapped"]);
    for (docker, name, id) in [
        (&plain, "plain", plain_id),
        (&remapped, "remapped", remapped_id),
    ] {
        assert_eq!(host.branches_of(name), docker.webapp_branches());
        assert_eq!(host.branches_of(&id[..20]), docker.webapp_branches());
        assert_eq!(changes_of(&host, name), WEBAPP_CHANGES);
        assert_eq!(provider(&host, name, "/etc/passwd"), 2);
        // By the directory of the container's layer.
        let own = docker.at("overlay2/mount/diff");
        assert_eq!(host.branches_of(&own), docker.webapp_branches());
        // And where it would be mounted.
        let merged = docker.at("overlay2/mount/merged");
        assert_eq!(host.branches_of(&merged), docker.webapp_branches());
    }
    let rows = host.jsonl(["images"]).exits(0).rows();
    assert_eq!(rows.len(), 2, "the same image, twice on this disk");

    let row = host.jsonl(["info"]).exits(0).row();
    let engines = row["engines"].as_array().expect("engines");
    let mut roots: Vec<&str> = engines.iter().map(|row| text(row, "root_dir")).collect();
    roots.sort_unstable();
    assert_eq!(
        roots,
        [
            "/var/lib/docker/165536.165536/overlay2",
            "/var/lib/docker/overlay2"
        ]
    );
    assert!(engines.iter().all(|engine| engine["container_count"] == 1));

    // That directory alone.
    let row = host
        .jsonl(["--docker-root", REMAPPED, "containers"])
        .exits(0)
        .row();
    assert_eq!(row["name"], "remapped");
}

#[apply(test)]
fn only_the_remapped_one_was_ever_used() {
    crate::lab::needs::root("to be told of overlay's marks");
    let host = Host::empty();
    let remapped = Docker {
        data: REMAPPED,
        ..Docker::new(&host, "overlay2")
    };
    remapped.webapp("remapped");
    // What dockerd makes before it looks at userns-remap.
    host.dir("/var/lib/docker");
    let row = host.jsonl(["containers"]).exits(0).row();
    assert_eq!(row["name"], "remapped");
    assert_eq!(host.branches_of("remapped"), remapped.webapp_branches());
    let row = host.jsonl(["info"]).exits(0).row();
    let engines = row["engines"].as_array().expect("engines");
    assert_eq!(engines.len(), 1, "{row}");
}

#[apply(test)]
fn a_name_that_two_daemons_gave() {
    crate::lab::needs::root("to be told of overlay's marks");
    let host = Host::empty();
    let plain = Docker::new(&host, "overlay2");
    let remapped = Docker {
        data: REMAPPED,
        ..Docker::new(&host, "overlay2")
    };
    let ids = [plain.webapp("web"), remapped.webapp("web")];
    let output = host.ask(["branches", "web"]).exits(2);
    for id in &ids {
        assert!(output.stderr.contains(&id[..12]), "{}", output.stderr);
    }
    for (docker, id) in [&plain, &remapped].into_iter().zip(&ids) {
        assert_eq!(host.branches_of(id), docker.webapp_branches());
    }
}

// ---- a data directory elsewhere ----

#[apply(test)]
fn a_data_directory_that_the_configuration_names() {
    for (key, named, real) in [
        ("data-root", "/srv/docker", "/srv/docker"),
        ("graph", "/srv/docker", "/srv/docker"),
        ("data-root", "/srv/link", "/srv/docker"),
        ("data-root", "/srv/docker/", "/srv/docker"),
    ] {
        let host = Host::empty();
        let docker = Docker {
            data: real,
            ..Docker::new(&host, "overlay2")
        };
        docker.webapp("web");
        host.link("/srv/link", "docker");
        // Left from before.
        let old = Docker::new(&host, "overlay2");
        old.webapp("old");
        let configuration = json!({ key: named, "storage-driver": "overlay2" });
        host.file("/etc/docker/daemon.json", configuration.to_string());
        let row = host.jsonl(["containers"]).exits(0).row();
        assert_eq!(row["name"], "web");
        assert_eq!(changes_of(&host, "web"), WEBAPP_CHANGES);
        assert_eq!(provider(&host, "web", "/etc/group"), 0);
        let found = host.branches_of("web");
        let on_disk: Vec<_> = docker.webapp_branches();
        assert_eq!(found.len(), on_disk.len());
        for (found, expected) in found.iter().zip(&on_disk) {
            let real = |path: &[u8]| {
                let path = std::str::from_utf8(path).expect("plain names");
                fs::canonicalize(host.at(path)).expect("it is there")
            };
            assert_eq!(real(found), real(expected));
        }
        // The person knows better.
        let row = host
            .jsonl(["--docker-root", DATA, "containers"])
            .exits(0)
            .row();
        assert_eq!(row["name"], "old");
    }
}

#[apply(test)]
fn a_configuration_that_cannot_be_followed() {
    let outside = tempfile::tempdir().expect("a temporary directory");
    let outside_host = Host::empty();
    Docker::new(&outside_host, "overlay2").webapp("outside");
    let up = format!(
        "/srv{}{}",
        "/..".repeat(40),
        outside_host.at(DATA).display()
    );
    let absolute = outside_host.at(DATA).display().to_string();
    for configuration in [
        r#"{"data-root": "/nothing"}"#.to_owned(),
        r#"{"data-root": "#.to_owned(),
        r#"{"data-root": 7}"#.to_owned(),
        "[]".to_owned(),
        json!({ "data-root": up }).to_string(),
        json!({ "data-root": absolute }).to_string(),
    ] {
        let host = Host::empty();
        host.file("/etc/docker/daemon.json", &configuration);
        let output = host.ask(["containers"]);
        assert_eq!(output.status, Some(2), "{configuration}: {}", output.stderr);
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(!said.contains("outside"), "{configuration}: {said}");
    }
    // The same by a link out of the host.
    let host = Host::empty();
    host.link("/var/lib/docker", outside_host.at(DATA));
    let output = host.ask(["containers"]).exits(2);
    assert!(!String::from_utf8_lossy(&output.stdout).contains("outside"));
    drop(outside);
}

// ---- what an earlier driver left ----

#[apply(test)]
fn two_drivers_side_by_side() {
    let host = Host::empty();
    let aufs = Docker::new(&host, "aufs");
    aufs.file("aufs/diff/old-base/etc/passwd", "base")
        .file("aufs/diff/old-top/etc/passwd", "top")
        .file("aufs/diff/old-mount/etc/passwd", "changed long ago")
        .dir("aufs/diff/old-mount-init")
        .file("aufs/layers/old-base", "")
        .file("aufs/layers/old-top", "old-base\n")
        .file("aufs/layers/old-mount-init", "old-top\nold-base\n")
        .file(
            "aufs/layers/old-mount",
            "old-mount-init\nold-top\nold-base\n",
        )
        .dir("aufs/mnt/old-mount");
    let overlay2 = Docker::new(&host, "overlay2");
    overlay2.webapp("new");
    // The same image was pulled again: what it is does not depend on where its layers are.
    let image = aufs.image("app", &["base", "top"]);
    for (cache_id, old) in [("base", "old-base"), ("top", "old-top")] {
        let diff = format!("sha256:{}", sha256(cache_id));
        let layers = host.at(aufs.at("image/aufs/layerdb/sha256"));
        for layer in fs::read_dir(layers).expect("it was made") {
            let layer = layer.expect("it was made").path();
            if fs::read_to_string(layer.join("diff")).expect("it was made") == diff {
                fs::write(layer.join("cache-id"), old).expect("a file of our own");
            }
        }
    }
    let old_id = aufs.container("old", &image, "old-mount");

    let rows = host.jsonl(["images"]).exits(0).rows();
    let mut found: Vec<(&str, &str)> = rows
        .iter()
        .map(|row| (text(row, "driver"), text(row, "id")))
        .collect();
    found.sort_unstable();
    let id = image.id.as_str();
    assert_eq!(found, [("aufs", id), ("overlay2", id)]);

    let rows = host.jsonl(["containers"]).exits(0).rows();
    let mut found: Vec<(&str, &str)> = rows
        .iter()
        .map(|row| (text(row, "driver"), text(row, "name")))
        .collect();
    found.sort_unstable();
    assert_eq!(found, [("aufs", "old"), ("overlay2", "new")]);

    assert_eq!(host.branches_of("new"), overlay2.webapp_branches());
    assert_eq!(changes_of(&host, "new"), WEBAPP_CHANGES);
    let old = ["old-mount", "old-mount-init", "old-top", "old-base"]
        .map(|id| format!("/var/lib/docker/aufs/diff/{id}").into_bytes());
    assert_eq!(host.branches_of("old"), old);
    assert_eq!(host.branches_of(&old_id), old);
    assert_eq!(changes_of(&host, "old"), "C /etc\nC /etc/passwd\n");
    // Each container's layers are those of its own driver, numbered by the one image.
    for container in ["old", "new"] {
        let row = host.jsonl(["branches", container]).exits(0).row();
        let roles: Vec<&str> = row["branches"]
            .as_array()
            .expect("branches")
            .iter()
            .map(|branch| text(branch, "role"))
            .collect();
        assert_eq!(roles, ["container", "init", "image 2/2", "image 1/2"]);
        let rows = host.jsonl(["history", container]).exits(0).rows();
        assert!(texts(&rows, "instruction").contains(&"made top"));
    }
    // Either one is the image.
    let branches = host.branches_of("app:1");
    assert!(
        branches == old[2..] || branches == overlay2.webapp_branches()[2..],
        "{branches:?}"
    );
}

// ---- overlay2's metadata ----

/// A webapp host with a secret where lies would lead to.
fn with_secret() -> Host {
    let host = Host::empty();
    Docker::new(&host, "overlay2").webapp("web");
    host.file("/etc/secret", "secret")
        .file("/etc/diff/secret", "secret");
    host
}

#[track_caller]
fn replace_link(host: &Host, target: Option<&Path>) {
    let at = format!("{DATA}/overlay2/l/TOP");
    fs::remove_file(host.at(&at)).expect("it was made");
    if let Some(target) = target {
        host.link(at, target);
    }
}

/// That a container's layers are not known is said, whatever is asked.
#[track_caller]
fn assert_not_known(host: &Host, what: &str) {
    for arguments in [
        &["which", "web:/etc/passwd"][..],
        &["which", "web:/secret"],
        &["ls", "-R", "web:/"],
        &["branches", "web"],
        &["changes", "web"],
        &["whiteouts", "web"],
        &["copyups", "web"],
        &["branches", "/var/lib/docker/overlay2/mount/diff"],
    ] {
        let output = host.ask(arguments);
        assert_eq!(
            output.status,
            Some(2),
            "{what}: {arguments:?}\n{}{}",
            String::from_utf8_lossy(&output.stdout),
            output.stderr
        );
        assert!(!output.stderr.is_empty(), "{what}: {arguments:?}");
        assert!(output.stderr.len() < 4000, "{what}: {arguments:?}");
        assert!(!output.stderr.contains('\0'), "{what}: {arguments:?}");
        assert_says_nothing_of(&output, "secret");
    }
    // What needs no layers is answered.
    let rows = host.jsonl(["containers"]).exits(0).rows();
    assert_eq!(texts(&rows, "name"), ["web"], "{what}");
    let rows = host.jsonl(["images"]).exits(0).rows();
    assert_eq!(rows.len(), 1, "{what}");
}

#[apply(test)]
fn a_lost_link_is_found_again() {
    let host = with_secret();
    replace_link(&host, None);
    let docker = Docker::new(&host, "overlay2");
    assert_eq!(host.branches_of("web"), docker.webapp_branches());
    assert_eq!(changes_of(&host, "web"), WEBAPP_CHANGES);
    assert_eq!(provider(&host, "web", "/etc/passwd"), 2);
}

#[apply(test)]
fn a_lost_link_that_nothing_names_again() {
    let host = with_secret();
    replace_link(&host, None);
    fs::remove_file(host.at(format!("{DATA}/overlay2/top/link"))).expect("it was made");
    // The topmost branch has this file whatever is below.
    let output = host.jsonl(["which", "web:/new"]);
    assert_eq!(output.status, Some(2), "{}", output.stderr);
    assert!(output.stderr.contains("TOP"), "{}", output.stderr);
    // Whether that one is the base's nobody can tell.
    let output = host.jsonl(["which", "web:/etc/passwd"]);
    assert_eq!(output.status, Some(2), "{}", output.stderr);
    for row in output.rows() {
        assert_eq!(row["uncertain"], true, "{row}");
    }
    host.ask(["changes", "web"]).exits(2);
}

#[apply(test)]
fn links_that_lead_elsewhere() {
    let outside = tempfile::tempdir().expect("a temporary directory");
    fs::write(outside.path().join("secret"), "secret").expect("a file of our own");
    let up = "../".repeat(40);
    let out = format!("{up}{}", outside.path().display());
    for target in [
        "../../../etc",
        "../../../../../etc",
        "/etc",
        "/var/lib/docker/overlay2/../../../../etc",
        "../top/diff/../../../../../../etc",
        "../top",
        "..",
        ".",
        "/",
        "TOP",
        "../..",
        "../l/TOP",
        "../\u{202e}/diff",
        "../top\n/diff",
        "../../diff",
        "..//diff",
        &out,
        outside.path().to_str().expect("a plain path"),
    ] {
        let host = with_secret();
        replace_link(&host, Some(Path::new(target)));
        assert_not_known(&host, target);
    }
}

#[apply(test)]
fn something_else_where_a_link_should_be() {
    let host = with_secret();
    replace_link(&host, None);
    host.file(format!("{DATA}/overlay2/l/TOP"), "../top/diff");
    // As if it were lost.
    let docker = Docker::new(&host, "overlay2");
    assert_eq!(host.branches_of("web"), docker.webapp_branches());

    let host = with_secret();
    fs::rename(
        host.at(format!("{DATA}/overlay2/top/diff")),
        host.at(format!("{DATA}/overlay2/top/other")),
    )
    .expect("it was made");
    // It would be mounted, but never from outside of the host.
    let outside = tempfile::tempdir().expect("a temporary directory");
    fs::write(outside.path().join("secret"), "secret").expect("a file of our own");
    host.link(format!("{DATA}/overlay2/top/diff"), outside.path());
    let output = host.ask(["which", "web:/secret"]).exits(2);
    assert_says_nothing_of(&output, "secret");
}

/// Every container has its init layer: one whose list is lost is no base.
#[apply(test)]
fn a_container_without_its_list_of_layers() {
    let host = with_secret();
    let whole = listed(&host, "web");
    fs::remove_file(host.at(format!("{DATA}/overlay2/mount/lower"))).expect("it is there");
    // The init layer's own list has what is left.
    assert_eq!(listed(&host, "web"), whole);
    fs::remove_file(host.at(format!("{DATA}/overlay2/mount-init/lower"))).expect("it is there");
    assert_not_known(&host, "no list at all");
}

#[apply(test)]
fn lower_files_that_lie() {
    needs::time();
    let garbage: Vec<u8> = (0..1 << 20)
        .map(|number: u32| (number.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    let letters: Vec<u8> = garbage.iter().map(|byte| b'a' + byte % 26).collect();
    let many = vec!["l/TOP"; 100_000].join(":");
    let links = |names: &[&str]| names.join(":").into_bytes();
    for (what, lower) in [
        ("garbage", garbage),
        ("letters", letters),
        ("100,000 layers", many.into_bytes()),
        ("colons", vec![b':'; 1 << 20]),
        ("nothing", Vec::new()),
        ("a newline", b"\n".to_vec()),
        ("a loop", links(&["l/INIT", "l/MOUNT", "l/TOP", "l/BASE"])),
        (
            "a layer twice",
            links(&["l/INIT", "l/TOP", "l/TOP", "l/BASE"]),
        ),
        ("a way up", links(&["l/../../../../etc", "l/TOP"])),
        ("a way out", links(&["l/INIT", "/etc"])),
        ("two ways up", links(&["../../../../etc", "l/TOP"])),
        ("a layer's directory", links(&["mount-init/diff", "l/TOP"])),
        ("no name", links(&["l/INIT", "l/", "l/BASE"])),
        ("an empty part", links(&["l/INIT", "", "l/BASE"])),
        ("a dot", links(&["l/.", "l/TOP"])),
        ("a hidden name", links(&["l/.hidden", "l/TOP"])),
        ("a NUL", b"l/INIT:l/T\0P:l/BASE".to_vec()),
        ("no UTF-8", b"l/INIT:l/\xff:l/BASE".to_vec()),
        (
            "a terminal's words",
            b"l/INIT:l/\x1b]0;title\x07:l/BASE".to_vec(),
        ),
        ("a blank", b"l/INIT l/TOP".to_vec()),
        ("a comma", b"l/INIT,l/TOP".to_vec()),
    ] {
        let host = with_secret();
        host.file(format!("{DATA}/overlay2/mount/lower"), lower);
        assert_not_known(&host, what);
    }
}

#[apply(test)]
fn ids_that_lie() {
    for lie in [
        "../../../../etc",
        "/etc",
        "..",
        "",
        "mount/diff",
        "m\0unt",
        "nothing",
        "l",
    ] {
        let host = with_secret();
        let docker = Docker::new(&host, "overlay2");
        let mounts = host.at(docker.at("image/overlay2/layerdb/mounts"));
        for container in fs::read_dir(mounts).expect("it was made") {
            let container = container.expect("it was made").path();
            fs::write(container.join("mount-id"), lie).expect("a file of our own");
        }
        for arguments in [
            ["which", "web:/secret"],
            ["ls", "web:/"],
            ["branches", "web"],
            ["changes", "web"],
        ] {
            let output = host.ask(arguments);
            assert_eq!(
                output.status,
                Some(2),
                "{lie:?}: {arguments:?} {}",
                output.stderr
            );
            assert_says_nothing_of(&output, "secret");
        }
    }
}

// ---- vfs ----

#[apply(test)]
fn marks_are_files_on_vfs() {
    let host = Host::empty();
    let docker = Docker::new(&host, "vfs");
    for layer in ["base", "top", "mount-init", "mount"] {
        docker
            .file(&format!("vfs/dir/{layer}/etc/passwd"), "base")
            .file(&format!("vfs/dir/{layer}/opt/deleted"), "base")
            .file(&format!("vfs/dir/{layer}/opt/.wh.stays"), "")
            .file(&format!("vfs/dir/{layer}/opt/stays"), "base");
    }
    for layer in ["mount-init", "mount"] {
        docker.file(&format!("vfs/dir/{layer}/.dockerenv"), "");
    }
    // Each is a copy of the one below it, with its times.
    for path in ["etc/passwd", "opt/deleted", "opt/.wh.stays", "opt/stays"] {
        for layer in ["base", "top", "mount-init", "mount"] {
            let file = fs::File::options()
                .write(true)
                .open(host.at(docker.at(&format!("vfs/dir/{layer}/{path}"))));
            let is_set = file.and_then(|file| file.set_modified(std::time::UNIX_EPOCH));
            is_set.expect("a file of our own");
        }
    }
    let [from, to] = ["mount-init", "mount"]
        .map(|layer| host.at(docker.at(&format!("vfs/dir/{layer}/.dockerenv"))));
    let time = fs::metadata(from).and_then(|meta| meta.modified());
    let file = fs::File::options().write(true).open(to);
    file.and_then(|file| file.set_modified(time?))
        .expect("a file of our own");
    let image = docker.image("app", &["base", "top"]);
    docker.container("web", &image, "mount");
    assert_eq!(changes_of(&host, "web"), "");

    let own = docker.at("vfs/dir/mount");
    fs::remove_file(host.at(format!("{own}/opt/deleted"))).expect("it was made");
    docker
        .file("vfs/dir/mount/opt/.wh.passwd", "")
        .file("vfs/dir/mount/opt/.wh..wh..opq", "")
        .file("vfs/dir/mount/etc/passwd", "changed");
    assert_eq!(
        host.branches_of("web"),
        directories(&["/var/lib/docker/vfs/dir/mount"])
    );
    let changes = changes_of(&host, "web");
    let mut changes: Vec<&str> = changes.lines().collect();
    changes.sort_unstable();
    assert_eq!(
        changes,
        [
            "A /opt/.wh..wh..opq",
            "A /opt/.wh.passwd",
            "C /etc",
            "C /etc/passwd",
            "C /opt",
            "D /opt/deleted",
        ]
    );
    let files = [
        "/.dockerenv",
        "/etc",
        "/etc/passwd",
        "/opt",
        "/opt/.wh..wh..opq",
        "/opt/.wh.passwd",
        "/opt/.wh.stays",
        "/opt/stays",
    ];
    assert_eq!(listed(&host, "web"), files);
    assert_eq!(provider(&host, "web", "/opt/.wh.passwd"), 0);
    let rows = host.jsonl(["whiteouts", "web"]).exits(0).rows();
    assert!(rows.is_empty(), "{rows:?}");

    if !device(&host, &format!("{own}/opt/zero")) {
        skip("to make a whiteout takes root");
    }
    let row = host.jsonl(["which", "web:/opt/zero"]).exits(0).row();
    assert_eq!(
        (&row["state"], &row["type"]),
        (&json!("present"), &json!("char"))
    );
    assert!(listed(&host, "web").contains(&"/opt/zero".into()));
    assert!(changes_of(&host, "web").contains("A /opt/zero\n"));
    let rows = host.jsonl(["whiteouts", "web"]).exits(0).rows();
    assert!(rows.is_empty(), "{rows:?}");
    if is_root() {
        let opt = format!("{own}/opt");
        attribute(&host, &opt, "trusted.overlay.opaque", b"y");
        attribute(&host, &opt, "trusted.overlay.redirect", b"/etc");
        assert_eq!(listed(&host, "web").len(), files.len() + 1);
        assert_eq!(provider(&host, "web", "/opt/stays"), 0);
    }
}
