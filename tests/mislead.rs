//! No answer misleads: what could not be looked for is said, whatever was found; who stands on what
//! comes from what each layer stands on; states are not invented; and what one verb prints every
//! verb takes. The hosts are made here.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::lab::host::Host;
use crate::lab::needs;
use crate::lab::run::{self, Output, text, texts};
use crate::whois::bolt::{self, Bucket, Item};

const ROOT: &str = "/var/lib/containerd";
const STATE: &str = "/run/containerd/io.containerd.runtime.v2.task";
const TIME: &str = "2024-05-06T07:08:09Z";

fn sha(text: &str) -> String {
    let bytes = Sha256::digest(text);
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn diff_id(name: &str) -> String {
    format!("sha256:{}", sha(&format!("diff {name}")))
}

/// The chain ids of layers by their names, bottom first.
fn chains(names: &[&str]) -> Vec<String> {
    let mut chain: Vec<String> = Vec::new();
    for name in names {
        let own = diff_id(name);
        chain.push(match chain.last() {
            None => own,
            Some(below) => format!("sha256:{}", sha(&format!("{below} {own}"))),
        });
    }
    chain
}

/// Go's varints.
fn uvarint(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

/// Protobuf's `Any` around a text.
fn any(value: &str) -> Item {
    let mut bytes = vec![2 << 3 | 2];
    bytes.extend(uvarint(value.len() as u64));
    bytes.extend(value.as_bytes());
    Item::Value(bytes)
}

/// A containerd with the snapshotter overlayfs, written as containerd 1.7 writes it.
struct Containerd {
    host: Host,
    namespaces: Bucket,
    snapshots: Bucket,
    count: u64,
}

/// The bucket at a path of buckets, made where it is not there.
fn at<'b>(bucket: &'b mut Bucket, path: &[&str]) -> &'b mut Bucket {
    path.iter().fold(bucket, |bucket, name| {
        let item = bucket
            .entry(name.as_bytes().to_vec())
            .or_insert_with(|| Item::Bucket(Bucket::new()));
        match item {
            Item::Bucket(below) => below,
            Item::Value(_) => panic!("{name} is a value"),
        }
    })
}

fn put(bucket: &mut Bucket, name: &str, value: Item) {
    bucket.insert(name.as_bytes().to_vec(), value);
}

impl Containerd {
    fn new() -> Containerd {
        Containerd {
            host: Host::empty(),
            namespaces: Bucket::new(),
            snapshots: Bucket::new(),
            count: 0,
        }
    }

    /// A snapshot, and the number of its directory.
    fn snapshot(&mut self, namespace: &str, key: &str, parent: Option<&str>) -> u64 {
        self.count += 1;
        let number = self.count;
        let name = format!("{namespace}/{number}/{key}");
        let keys = at(&mut self.namespaces, &[namespace, "snapshots", "overlayfs"]);
        let below = parent.map(|parent| at(keys, &[parent])[&b"name"[..]].value());
        put(at(keys, &[key]), "name", bolt::text(&name));
        let record = at(&mut self.snapshots, &[&name]);
        put(record, "id", Item::Value(uvarint(number)));
        if let Some(below) = below {
            put(record, "parent", Item::Value(below));
        }
        self.host
            .dir(format!("{}/fs", Containerd::directory(number)));
        number
    }

    fn directory(number: u64) -> String {
        format!("{ROOT}/io.containerd.snapshotter.v1.overlayfs/snapshots/{number}")
    }

    fn blob(&self, content: &str) -> String {
        let hex = sha(content);
        let path = format!("{ROOT}/io.containerd.content.v1.content/blobs/sha256/{hex}");
        self.host.file(path, content);
        format!("sha256:{hex}")
    }

    /// An image of layers by their names, bottom first, with its snapshots: the digests of its
    /// manifest and its configuration.
    fn image(&mut self, namespace: &str, name: &str, layers: &[&str]) -> [String; 2] {
        let chain = chains(layers);
        for (index, id) in chain.iter().enumerate() {
            let known = at(&mut self.namespaces, &[namespace, "snapshots", "overlayfs"]);
            if !known.contains_key(id.as_bytes()) {
                let parent = index.checked_sub(1).map(|below| chain[below].clone());
                self.snapshot(namespace, id, parent.as_deref());
            }
        }
        let step = |layer: &&str| json!({"created": TIME, "created_by": format!("RUN {layer}")});
        let config = json!({
            "created": TIME,
            "config": {"Labels": {"name": name}},
            "history": layers.iter().map(step).collect::<Vec<_>>(),
            "rootfs": {"type": "layers", "diff_ids": layers.iter().map(|of| diff_id(of)).collect::<Vec<_>>()},
        });
        let config = self.blob(&config.to_string());
        let layer = |of: &&str| json!({"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": diff_id(of), "size": 1});
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": 1},
            "layers": layers.iter().map(layer).collect::<Vec<_>>(),
        });
        let manifest = self.blob(&manifest.to_string());
        self.tag(namespace, name, &manifest);
        [manifest, config]
    }

    /// Gives a name to an image, whoever had it before.
    fn tag(&mut self, namespace: &str, name: &str, digest: &str) {
        let target = at(&mut self.namespaces, &[namespace, "images", name, "target"]);
        put(target, "digest", bolt::text(digest));
        put(target, "size", Item::Value(uvarint(2)));
    }

    fn container(&mut self, namespace: &str, id: &str, image: &str, key: &str) -> &mut Bucket {
        let record = at(&mut self.namespaces, &[namespace, "containers", id]);
        put(record, "image", bolt::text(image));
        let snapshotter = if key.is_empty() { "" } else { "overlayfs" };
        put(record, "snapshotter", bolt::text(snapshotter));
        put(record, "snapshotKey", bolt::text(key));
        record
    }

    /// A container with a snapshot of its own on an image's.
    fn run(&mut self, namespace: &str, id: &str, image: &str, layers: &[&str]) -> u64 {
        let top = chains(layers).pop();
        let number = self.snapshot(namespace, id, top.as_deref());
        self.container(namespace, id, image, id);
        number
    }

    fn save(&self) -> &Host {
        let mut meta = Bucket::new();
        put(&mut meta, "v1", Item::Bucket(self.namespaces.clone()));
        let path = format!("{ROOT}/io.containerd.metadata.v1.bolt/meta.db");
        self.host.file(path, bolt::write(&meta));
        let mut snapshots = Bucket::new();
        let of = at(&mut snapshots, &["v1"]);
        put(of, "snapshots", Item::Bucket(self.snapshots.clone()));
        let path = format!("{ROOT}/io.containerd.snapshotter.v1.overlayfs/metadata.db");
        self.host.file(path, bolt::write(&snapshots));
        &self.host
    }
}

/// The row of a thing by its id.
#[track_caller]
fn row(rows: &[Value], id: &str) -> Value {
    let mut found = rows.iter().filter(|row| row["id"] == id);
    let row = found.next().unwrap_or_else(|| panic!("no {id}: {rows:?}"));
    assert!(found.next().is_none(), "{id} is there twice");
    row.clone()
}

fn names(list: &Value) -> Vec<&str> {
    let list = list.as_array().map(Vec::as_slice).unwrap_or_default();
    texts(list, "name")
}

/// Words on stderr do not make an answer less complete.
#[track_caller]
fn notes(output: Output, status: i32) -> Output {
    assert_eq!(output.status, Some(status), "{}", output.stderr);
    output
}

/// A host whose containerd has its data, one container, at a place of its own.
pub fn containerd_at(place: &str) -> Host {
    let mut containerd = Containerd::new();
    containerd.image("default", "docker.io/acme/a:1", &["base"]);
    containerd.run("default", "web", "docker.io/acme/a:1", &["base"]);
    containerd.save();
    let host = containerd.host;
    let to = host.at(place);
    std::fs::create_dir_all(to.parent().unwrap()).unwrap();
    std::fs::rename(host.at(ROOT), to).unwrap();
    host
}

// ---- where to look ----

const ENGINES_VERBS: [&[&str]; 5] = [
    &["containers"],
    &["images"],
    &["orphans"],
    &["du"],
    &["info"],
];

#[apply(test)]
fn what_says_where_to_look_and_cannot_be_read_is_said_whatever_is_found() {
    needs::time();
    type Spoil = fn(&Host);
    let spoilt: [(&str, Spoil); 19] = [
        ("/etc/containers/storage.conf", |host| {
            host.file("/etc/containers/storage.conf", "[storage\n");
        }),
        ("/etc/containers/storage.conf.d/x.conf", |host| {
            host.file("/etc/containers/storage.conf.d/x.conf", "graphroot = [");
        }),
        ("/usr/share/containers/storage.conf.d/y.conf", |host| {
            host.dir("/usr/share/containers/storage.conf.d/y.conf");
        }),
        ("/home/u/.config/containers/storage.conf", |host| {
            host.file("/etc/passwd", "u:x:1000:1000::/home/u:/bin/sh\n");
            host.dir("/home/u/.config/containers/storage.conf");
        }),
        ("/home/u/.config/containers/storage.conf.d/z.conf", |host| {
            host.file("/etc/passwd", "u:x:1000:1000::/home/u:/bin/sh\n");
            let path = "/home/u/.config/containers/storage.conf.d/z.conf";
            host.file(path, [0xff, 0xfe]);
        }),
        ("/etc/containerd/config.toml", |host| {
            host.file("/etc/containerd/config.toml", "root = \n");
        }),
        ("/etc/containerd/config.toml", |host| {
            host.dir("/etc/containerd/config.toml");
        }),
        ("/etc/docker/daemon.json", |host| {
            host.file("/etc/docker/daemon.json", "{");
        }),
        ("/etc/systemd/system/docker.service", |host| {
            host.dir("/etc/systemd/system/docker.service");
        }),
        ("/lib/systemd/system/containerd.service", |host| {
            host.file(
                "/lib/systemd/system/containerd.service",
                "[Service]\nExecStart=/usr/bin/containerd --root '/data\n",
            );
        }),
        ("/etc/systemd/system/docker.service.d/x.conf", |host| {
            let path = "/etc/systemd/system/docker.service.d/x.conf";
            host.file(path, b"[Service]\nExecStart=\xff\n");
        }),
        ("/run/systemd/system", |host| {
            host.link("/run/systemd/system", "system");
        }),
        ("/etc/default/docker", |host| {
            host.dir("/etc/default/docker");
        }),
        ("/etc/rancher/k3s/config.yaml", |host| {
            host.file("/etc/rancher/k3s/config.yaml", "data-dir: [/data\n");
        }),
        ("/etc/rancher/rke2/config.yaml", |host| {
            host.dir("/etc/rancher/rke2/config.yaml");
        }),
        ("/etc/rancher/k3s/config.yaml.d/1.yaml", |host| {
            host.file("/etc/rancher/k3s/config.yaml.d/1.yaml", b"data-dir: \xff\n");
        }),
        ("/etc/k0s/k0s.yaml", |host| {
            host.file("/etc/k0s/k0s.yaml", "{\"data-dir\": \n");
        }),
        ("/etc/passwd", |host| {
            host.dir("/etc/passwd");
        }),
        ("/etc/passwd", |host| {
            host.file("/etc/passwd", "root:x:0:0::/root:/bin/sh\nu;1000\n");
        }),
    ];
    for (path, spoil) in spoilt {
        // With nothing found, and with something.
        let nothing = Host::empty();
        let mut containerd = Containerd::new();
        containerd.image("default", "img:1", &["a"]);
        containerd.run("default", "web", "img:1", &["a"]);
        let something = containerd.save();
        for host in [&nothing, something] {
            spoil(host);
            for ask in ENGINES_VERBS {
                host.ask(ask).exits(2).says(path);
            }
        }
        for ask in [
            ["branches", "web"],
            ["ls", "web"],
            ["history", "img:1"],
            ["changes", "web"],
            ["whois", "web"],
        ] {
            something.ask(ask).exits(2).says(path);
        }
    }
    // A comment, a blank line and another list are no damage.
    let host = Host::empty();
    host.file("/etc/passwd", "# users\n\n+::::::\nu:x:1000:1000::/:/x\n");
    assert!(!host.ask(["containers"]).stderr.contains("passwd"));
    // Nor is a unit that is masked, nor a configuration without a data directory.
    for masked in ["docker.service", "containerd.service", "k3s.service"] {
        let path = format!("/etc/systemd/system/{masked}");
        host.link(path, "/dev/null");
    }
    let said = "# of ours\ntls-san:\n- a\n  # inner\nkubelet-arg:\n  - \"x=y\"\n";
    host.file("/etc/rancher/k3s/config.yaml", said);
    let said = host.ask(["containers"]).exits(0).stderr;
    assert!(
        !said.contains("service") && !said.contains("yaml"),
        "{said}"
    );
}

#[apply(test)]
fn a_drop_in_says_where_the_store_is() {
    let host = Host::empty();
    host.file(
        "/etc/containers/storage.conf",
        "[storage]\ndriver = \"overlay\"\ngraphroot = \"/old\"\n",
    );
    let drop_in = |name: &str, root: &str| {
        let text = format!("[storage]\ngraphroot = \"{root}\"\n");
        host.file(format!("/etc/containers/storage.conf.d/{name}"), text);
    };
    drop_in("10.conf", "/first");
    drop_in("20.conf", "/last");
    drop_in("30.not", "/never");
    let said = notes(host.ask(["containers"]), 0);
    let said = said.says("/last,");
    for other in ["/old", "/first", "/never"] {
        assert!(!said.stderr.contains(other), "{}", said.stderr);
    }
}

#[apply(test)]
fn without_an_engine_nothing_is_claimed() {
    needs::time();
    let host = Host::empty();
    for verb in ["containers", "images", "orphans", "du"] {
        let said = notes(host.ask([verb]), 0);
        let said = said.says("no engine was found");
        for place in ["/var/lib/docker", "/var/lib/containers/storage", ROOT] {
            assert!(said.stderr.contains(place), "{verb}: {}", said.stderr);
        }
        for option in ["--docker-root", "--storage-root", "--containerd-root"] {
            assert!(said.stderr.contains(option), "{verb}: {}", said.stderr);
        }
    }
    // An engine's directory is no host: how it is named is said.
    needs::captured_hosts();
    for (of, root, option) in [
        ("docker-28-overlay2", "/var/lib/docker", "--docker-root"),
        (
            "podman-5.8-overlay",
            "/var/lib/containers/storage",
            "--storage-root",
        ),
        ("containerd-overlayfs", ROOT, "--containerd-root"),
    ] {
        let captured = Host::captured(of);
        let at = captured.at(root);
        let mut command = run::command();
        let said = run::run(command.arg("--root").arg(&at).arg("containers"));
        let said = said.exits(0).stderr;
        let expected = format!("{option} {}", at.display());
        assert!(said.contains(&expected), "{of}: {said}");
    }
    host.dir("/srv/containerd");
    host.file(
        "/etc/containerd/config.toml",
        "root = \"/srv/containerd\"\n",
    );
    notes(host.ask(["images"]), 0).says("/srv/containerd");
    // Where one is, there is nothing to say.
    Containerd::new().save().ask(["containers"]).exits(0);
}

// ---- who stands on what ----

/// An image for two platforms in Docker's own containerd, of which a container has the one that
/// is not this machine's.
#[apply(test)]
fn a_container_has_the_history_of_its_own_platform() {
    let mut containerd = Containerd::new();
    let [here, _] = containerd.image("moby", "docker.io/acme/here:1", &["here"]);
    let [there, _] = containerd.image("moby", "docker.io/acme/there:1", &["there"]);
    let platform = |digest: &String, architecture: &str| json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": 1, "platform": {"os": "linux", "architecture": architecture}});
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [platform(&here, if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" }), platform(&there, "riscv64"),
            // What was never fetched.
            json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": format!("sha256:{}", "e".repeat(64)), "size": 1, "platform": {"os": "linux", "architecture": "arm", "variant": "v6"}}),
        ],
    });
    let index = containerd.blob(&index.to_string());
    containerd.tag("moby", "docker.io/acme/app:1", &index);
    let id = "3".repeat(64);
    let top = chains(&["there"]).pop();
    containerd.snapshot("moby", &id, top.as_deref());
    containerd.save();
    let host = &containerd.host;
    let docker = "/var/lib/docker";
    host.dir(format!("{docker}/containerd"));
    let own = host.at(format!("{docker}/containerd/daemon"));
    std::fs::rename(host.at(ROOT), own).unwrap();
    let record = json!({
        "ID": id, "Name": "/web", "Driver": "overlayfs", "Created": TIME, "State": {},
        "Image": index, "Config": {"Image": "acme/app:1"}, "ImageManifest": {"digest": there, "size": 1},
    });
    host.file(
        format!("{docker}/containers/{id}/config.v2.json"),
        record.to_string(),
    );
    let steps = |target: &str| {
        let rows = host.jsonl(["history", target]).exits(0).rows();
        let said = rows.iter().map(|row| text(row, "instruction").to_owned());
        said.filter(|said| !said.is_empty()).collect::<Vec<_>>()
    };
    assert_eq!(steps("web"), ["RUN there"]);
    assert_eq!(steps("acme/app:1"), ["RUN here"]);
    let branches = host.jsonl(["branches", "web"]).exits(0).rows();
    let said = serde_json::to_string(&branches).unwrap();
    assert!(said.contains("RUN there"), "{said}");
    // A person names the platform, in any of its spellings.
    let there = "docker:acme/app:1@linux/riscv64";
    for target in [
        "acme/app:1@linux/riscv64",
        "docker:acme/app:1@riscv64",
        there,
    ] {
        assert_eq!(steps(target), ["RUN there"], "{target}");
    }
    assert_eq!(
        steps(&format!("acme/app:1@{}", std::env::consts::ARCH)),
        ["RUN here"]
    );
    let row = host.jsonl(["branches", there]).exits(0).row();
    assert_eq!(row["target"], there);
    assert_eq!(row["branches"][0]["instruction"], "RUN there");
    assert_eq!(
        host.jsonl(["branches", &format!("{there}@0")])
            .exits(0)
            .row()["target"],
        there
    );
    host.ask(["history", "acme/app:1@linux/s390x"])
        .exits(2)
        .says("docker:acme/app:1 has nothing for linux/s390x")
        // A line each, to be typed.
        .says("\n  docker:acme/app:1@linux/")
        .says(there);
    host.ask(["history", "acme/app:1@linux/arm/v6"])
        .exits(2)
        .says("docker:acme/app:1@linux/arm/v6  (not here)");
    host.ask(["history", "web@linux/riscv64"])
        .exits(2)
        .says("web is no image");
    // Of what is for one platform, the configuration says which.
    host.ask(["history", "acme/there:1@linux/s390x"]).exits(2);
}

/// A daemon was switched to the newer image store, and both are in its data directory: one tag, one
/// container's name and one layer are in both.
#[apply(test)]
fn what_both_stores_of_one_docker_have_is_neither_of_them() {
    let docker = "/var/lib/docker";
    let mut containerd = Containerd::new();
    let [index, _] = containerd.image("moby", "docker.io/acme/app:1", &["base"]);
    let newer = "4".repeat(64);
    let top = chains(&["base"]).pop().unwrap();
    containerd.snapshot("moby", &newer, Some(&top));
    containerd.save();
    let host = &containerd.host;
    host.dir(format!("{docker}/containerd"));
    std::fs::rename(
        host.at(ROOT),
        host.at(format!("{docker}/containerd/daemon")),
    )
    .unwrap();
    let config = json!({
        "os": "linux", "architecture": "amd64", "created": TIME,
        "rootfs": {"type": "layers", "diff_ids": [diff_id("base")]},
        "history": [{"created": TIME, "created_by": "RUN base"}],
    })
    .to_string();
    let image = sha(&config);
    let older = "5".repeat(64);
    let cache = "ab".repeat(32);
    let mount = "cd".repeat(32);
    let of = format!("{docker}/image/overlay2");
    let chain = top.trim_start_matches("sha256:");
    for (path, text) in [
        (format!("{of}/imagedb/content/sha256/{image}"), config),
        (
            format!("{of}/repositories.json"),
            json!({"Repositories": {"acme/app": {"acme/app:1": format!("sha256:{image}")}}})
                .to_string(),
        ),
        (
            format!("{of}/layerdb/sha256/{chain}/cache-id"),
            cache.clone(),
        ),
        (format!("{of}/layerdb/sha256/{chain}/diff"), diff_id("base")),
        (format!("{of}/layerdb/sha256/{chain}/size"), "0".to_owned()),
        (
            format!("{of}/layerdb/mounts/{older}/mount-id"),
            mount.clone(),
        ),
        (format!("{of}/layerdb/mounts/{older}/parent"), top.clone()),
        (format!("{docker}/overlay2/{cache}/link"), "A".to_owned()),
        (format!("{docker}/overlay2/{mount}/link"), "B".to_owned()),
        (format!("{docker}/overlay2/{mount}/lower"), "l/A".to_owned()),
    ] {
        host.file(path, text);
    }
    for (id, link) in [(&cache, "A"), (&mount, "B")] {
        host.dir(format!("{docker}/overlay2/{id}/diff"));
        host.dir(format!("{docker}/overlay2/l"));
        host.link(
            format!("{docker}/overlay2/l/{link}"),
            format!("../{id}/diff"),
        );
    }
    for (id, driver, image) in [
        (&newer, "overlayfs", &index),
        (&older, "overlay2", &format!("sha256:{image}")),
    ] {
        let record = json!({
            "ID": id, "Name": "/web", "Driver": driver, "Created": TIME, "State": {},
            "Image": image, "Config": {"Image": "acme/app:1"},
        });
        host.file(
            format!("{docker}/containers/{id}/config.v2.json"),
            record.to_string(),
        );
    }
    let newer_image = format!("docker:{index}");
    let older_image = format!("docker:sha256:{image}");
    for verb in ["branches", "history"] {
        host.ask([verb, "acme/app:1"])
            .exits(2)
            .says(&format!(
                "{newer_image}  (image {}, acme/app:1, overlayfs)",
                &index[7..19]
            ))
            .says(&format!(
                "{older_image}  (image {}, acme/app:1, overlay2)",
                &image[..12]
            ));
        host.ask([verb, "web"])
            .exits(2)
            .says(&format!(
                "docker:{newer}  (container {}, web, overlayfs)",
                &newer[..12]
            ))
            .says(&format!(
                "docker:{older}  (container {}, web, overlay2)",
                &older[..12]
            ));
    }
    host.ask(["branches", &top])
        .exits(2)
        .says(&format!("docker:{cache}  (layer, overlay2)"))
        .says("(layer, overlayfs)");
    // Each is found as it is listed, and called so.
    for (target, store) in [
        (&newer_image, "io.containerd.snapshotter.v1.overlayfs"),
        (&older_image, "/overlay2/"),
        (
            &format!("docker:{newer}"),
            "io.containerd.snapshotter.v1.overlayfs",
        ),
        (&format!("docker:{older}"), "/overlay2/"),
        (&format!("docker:{cache}"), "/overlay2/"),
    ] {
        let row = host.jsonl(["branches", target]).exits(0).row();
        assert_eq!(row["target"], json!(target));
        assert!(
            text(&row["branches"][0], "directory").contains(store),
            "{row}"
        );
    }
    let images = host.jsonl(["images"]).exits(0).rows();
    assert_eq!(images.len(), 2, "{images:?}");
    // What the daemon has in use is what its configuration says.
    let driver = |features: Value| {
        host.file("/etc/docker/daemon.json", features.to_string());
        let row = host.jsonl(["info"]).exits(0).row();
        row["engines"][0]["storage_driver"].clone()
    };
    assert_eq!(
        driver(json!({"features": {"containerd-snapshotter": true}})),
        "overlayfs"
    );
    assert_eq!(driver(json!({"storage-driver": "overlay2"})), "overlay2");
}

#[apply(test)]
fn a_tag_that_moved_is_not_what_a_container_was_made_of() {
    let mut containerd = Containerd::new();
    let [old, _] = containerd.image("default", "img:1", &["base", "old"]);
    let own = containerd.run("default", "web", "img:1", &["base", "old"]);
    containerd.tag("default", "img:kept", &old);
    containerd.image("default", "img:1", &["base", "new"]);
    let host = containerd.save();
    let hex = old.trim_start_matches("sha256:");
    let listed = row(&host.jsonl(["containers"]).exits(0).rows(), "web");
    assert_eq!(listed["image_id"], hex);
    // The name is another image's now.
    assert_eq!(listed["image"], hex[..12]);
    let history = host.jsonl(["history", "web"]).exits(0).rows();
    let instructions: Vec<&str> = texts(&history, "instruction");
    assert_eq!(instructions, ["", "RUN old", "RUN base"]);
    let branches = host.jsonl(["branches", "web"]).exits(0).row();
    assert_eq!(branches["branches"][1]["instruction"], "RUN old");
    assert_eq!(branches["branches"][0]["layer"], own.to_string());
    let tops = [chains(&["base", "old"]), chains(&["base", "new"])];
    let [old_top, new_top] = tops.map(|chain| chain[1].clone());
    let above = host.jsonl(["whois", &old_top]).exits(0).row();
    assert_eq!(names(&above["above"]), ["web"]);
    let above = host.jsonl(["whois", &new_top]).exits(0).row();
    assert!(names(&above["above"]).is_empty(), "{above}");
}

#[apply(test)]
fn an_image_that_was_removed_under_a_container_is_not_another_one() {
    let mut containerd = Containerd::new();
    containerd.image("default", "img:1", &["base", "old"]);
    containerd.run("default", "web", "img:1", &["base", "old"]);
    at(&mut containerd.namespaces, &["default", "images"]).clear();
    containerd.image("default", "img:1", &["other"]);
    let host = containerd.save();
    let listed = row(&host.jsonl(["containers"]).exits(0).rows(), "web");
    assert_eq!(listed["image_id"], "");
    assert_ne!(listed["image"], "img:1");
    let history = host.jsonl(["history", "web"]).exits(2).says("img:1");
    assert_eq!(history.rows().len(), 3, "the layers are known all the same");
    let top = &chains(&["base", "old"])[1];
    let of = host.jsonl(["whois", top]).exits(0).row();
    assert_eq!(of["kind"], "image");
    assert_eq!(names(&of["above"]), ["web"]);
}

#[apply(test)]
fn namespaces_are_not_mixed() {
    let mut containerd = Containerd::new();
    for (namespace, id) in [("one", "web"), ("two", "db")] {
        containerd.image(namespace, "img:1", &["a"]);
        containerd.run(namespace, id, "img:1", &["a"]);
    }
    let host = containerd.save();
    for (number, id) in [(1, "web"), (3, "db")] {
        let path = format!("{}/fs", Containerd::directory(number));
        let of = host.jsonl(["whois", &path]).exits(0).row();
        assert_eq!(names(&of["above"]), [id]);
    }
}

/// A pod's name is one in its namespace, and what was started anew in it has the old one's name.
#[apply(test)]
fn containers_of_pods_that_look_alike_are_told_apart() {
    let mut containerd = Containerd::new();
    containerd.image("k8s.io", "img:1", &["a"]);
    for (id, namespace, pod, attempt) in [
        ("first", "shop", "web-0", 0),
        ("second", "shop", "web-0", 1),
        ("other", "team", "web-0", 0),
        ("old", "shop", "db-0", 2),
        ("new", "shop", "db-0", 3),
        ("single", "shop", "alone-0", 5),
    ] {
        containerd.run("k8s.io", id, "img:1", &["a"]);
        let record = containerd.container("k8s.io", id, "img:1", id);
        let labels = at(record, &["labels"]);
        for (label, value) in [
            ("io.cri-containerd.kind", "container"),
            ("io.kubernetes.pod.name", pod),
            ("io.kubernetes.pod.namespace", namespace),
            ("io.kubernetes.container.name", "app"),
        ] {
            put(labels, label, bolt::text(value));
        }
        // The first has no number, as the plugin writes it.
        let metadata = match attempt {
            0 => json!({"name": "app"}),
            attempt => json!({"name": "app", "attempt": attempt}),
        };
        let noted =
            json!({"Version": "v1", "Metadata": {"ID": id, "Config": {"metadata": metadata}}});
        put(
            at(record, &["extensions"]),
            "io.cri-containerd.container.metadata",
            any(&noted.to_string()),
        );
    }
    let host = containerd.save();
    let output = host.ask(["containers"]).exits(0);
    let shown = output.text();
    let mut names: Vec<&str> = shown
        .lines()
        .skip(1)
        .filter_map(|line| line.rsplit("  ").next())
        .map(str::trim)
        .collect();
    names.sort_unstable();
    let expected = [
        "alone-0/app",
        "db-0/app (attempt 2)",
        "db-0/app (attempt 3)",
        "shop/web-0/app (attempt 0)",
        "shop/web-0/app (attempt 1)",
        "team/web-0/app",
    ];
    assert_eq!(names, expected, "{shown}");
    // What is shown means it.
    for (name, id) in expected
        .into_iter()
        .zip(["single", "old", "new", "first", "second", "other"])
    {
        let row = host.jsonl(["branches", name]).exits(0).row();
        assert_eq!(row["owner"]["id"], id, "{name}");
    }
    let rows = host.jsonl(["containers"]).exits(0).rows();
    let second = rows.iter().find(|row| row["id"] == "second").expect("it");
    assert_eq!(second["pod"]["attempt"], 1);
    assert_eq!(second["name"], "web-0/app");
}

// ---- states ----

#[apply(test)]
fn what_no_task_tells_is_unknown() {
    let mut containerd = Containerd::new();
    containerd.image("k8s.io", "img:1", &["a"]);
    let mut numbers = BTreeMap::new();
    for id in ["taskless", "untold", "ended", "runs", "frozen", "frozen1"] {
        numbers.insert(id, containerd.run("k8s.io", id, "img:1", &["a"]));
    }
    containerd.run("k8s.io", "pod", "img:1", &["a"]);
    let record = containerd.container("k8s.io", "pod", "img:1", "pod");
    let labels = at(record, &["labels"]);
    put(labels, "io.cri-containerd.kind", bolt::text("sandbox"));
    let host = containerd.save();
    // On a disk alone nobody knows.
    let rows = host.jsonl(["containers"]).exits(0).rows();
    assert!(rows.iter().all(|row| row["state"] == "unknown"), "{rows:?}");
    assert!(rows.iter().all(|row| row["exit_code"].is_null()));
    let shown = host.ask(["containers"]).exits(0);
    assert!(!shown.text().contains("Created\n"), "{}", shown.text());
    assert!(!shown.text().contains("Exited"), "{}", shown.text());

    host.dir("/proc/self");
    // The kernel has never worked in it.
    host.dir(format!(
        "{}/work",
        Containerd::directory(numbers["taskless"])
    ));
    for (id, pid) in [("ended", 9), ("runs", 10), ("frozen", 11), ("frozen1", 12)] {
        host.file(format!("{STATE}/k8s.io/{id}/init.pid"), pid.to_string());
    }
    host.file("/proc/10/cgroup", "0::/k/runs\n");
    host.file("/sys/fs/cgroup/k/runs/cgroup.freeze", "0\n");
    host.file("/proc/11/cgroup", "0::/k/frozen\n");
    host.file("/sys/fs/cgroup/k/frozen/cgroup.freeze", "1\n");
    host.file("/proc/12/cgroup", "5:cpu:/\n4:freezer:/k/f\n0::/\n");
    host.file("/sys/fs/cgroup/freezer/k/f/freezer.state", "FROZEN\n");
    let rows = host.jsonl(["containers"]).exits(0).rows();
    for (id, state) in [
        ("taskless", "created"),
        ("untold", "unknown"),
        ("ended", "exited"),
        ("runs", "running"),
        ("frozen", "paused"),
        ("frozen1", "paused"),
        ("pod", "exited"),
    ] {
        let row = row(&rows, id);
        assert_eq!(row["state"], state, "{row}");
        assert!(row["exit_code"].is_null(), "{row}");
    }
    let shown = host.ask(["containers"]).exits(0);
    assert!(
        shown.text().contains("Exited (unknown)"),
        "{}",
        shown.text()
    );
    assert!(!shown.text().contains("Exited (0)"), "{}", shown.text());
}

#[apply(test)]
fn a_container_of_a_directory_is_one() {
    let mut containerd = Containerd::new();
    let record = containerd.container("default", "plain", "", "");
    let spec = json!({"root": {"path": "/srv/root"}, "process": {"args": ["sh"]}});
    put(record, "spec", any(&spec.to_string()));
    let host = containerd.save();
    host.file("/srv/root/etc/motd", "x");
    host.dir(STATE);
    let listed = row(&host.jsonl(["containers"]).exits(0).rows(), "plain");
    assert_eq!(listed["command"], "sh");
    assert_eq!(host.branches_of("plain"), [b"/srv/root".to_vec()]);
    host.ask(["which", "plain:/etc/motd"]).exits(0);
}

// ---- names ----

#[apply(test)]
fn a_snapshots_key_is_a_name() {
    let mut containerd = Containerd::new();
    containerd.image("default", "img:1", &["a"]);
    let top = chains(&["a"]).pop();
    for key in ["web", "web2", "dead", "dead2", "/mount/point"] {
        let number = containerd.snapshot("default", key, top.as_deref());
        let file = format!("{}/fs/{number}", Containerd::directory(number));
        containerd.host.file(file, "x");
    }
    for id in ["job", "job2", "abc"] {
        containerd.run("default", id, "img:1", &["a"]);
    }
    let host = containerd.save();
    for (key, number) in [("web", 2), ("web2", 3), ("dead", 4), ("dead2", 5)] {
        let changes = host.jsonl(["changes", key]).exits(0).row();
        assert_eq!(changes["path"], format!("/{number}"));
        let of = host.jsonl(["whois", key]).exits(0).row();
        assert_eq!(of["layer"], number.to_string());
    }
    for (typed, id) in [
        ("job", "job"),
        ("job2", "job2"),
        ("ab", "abc"),
        ("a", "abc"),
    ] {
        let row = host.jsonl(["branches", typed]).exits(0).row();
        assert_eq!(row["owner"]["id"], id, "{typed}");
        let of = host.jsonl(["whois", typed]).exits(0).row();
        assert_eq!(names(&of["containers"]), [id], "{typed}");
    }
    // A beginning of two.
    host.ask(["branches", "jo"]).exits(2).says("job2");
}

#[apply(test)]
fn the_digests_of_an_image_are_its_names() {
    let mut containerd = Containerd::new();
    let [manifest, config] = containerd.image("k8s.io", "reg/img:1", &["a", "b"]);
    containerd.tag("k8s.io", &config, &manifest);
    let host = containerd.save();
    for digest in [&manifest, &config] {
        let hex = digest.trim_start_matches("sha256:");
        for typed in [digest.as_str(), hex, &hex[..13], &hex[..5]] {
            for verb in ["branches", "history", "whois"] {
                host.ask([verb, typed]).exits(0);
            }
        }
    }
    host.ask(["branches", &format!("reg/img@{manifest}")])
        .exits(0);
}

#[apply(test)]
fn a_path_may_have_the_root_before_it() {
    let mut containerd = Containerd::new();
    containerd.image("default", "img:1", &["a"]);
    let number = containerd.run("default", "web", "img:1", &["a"]);
    let host = containerd.save();
    let inside = format!("{}/fs", Containerd::directory(number));
    host.file(format!("{inside}/new"), "x");
    let outside = host.at(&inside);
    let outside = outside.to_str().expect("our own path");
    for path in [&inside, outside] {
        for verb in ["branches", "changes", "ls"] {
            host.ask([verb, path]).exits(0);
        }
        let of = host.jsonl(["whois", path]).exits(0).row();
        assert_eq!(names(&of["containers"]), ["web"], "{path}");
        host.ask(["ls", &format!("br:{path}=rw")]).exits(0);
    }
    // As `du` and the shell's completion give it in the directory that the root is in.
    let (home, name) = (host.root.parent(), host.root.file_name());
    let relative = format!(
        "{}{inside}",
        name.and_then(|name| name.to_str()).expect("text")
    );
    for verb in ["branches", "whois"] {
        let output = run::run(
            run::command()
                .current_dir(home.expect("a directory"))
                .arg("--root")
                .arg(name.expect("a name"))
                .args([verb, &relative]),
        );
        assert!(output.exits(0).text().contains("web"), "{verb}");
    }
}

#[apply(test)]
fn a_lost_links_name_is_a_name() {
    let host = Host::empty();
    let id = sha("layer");
    let store = "/var/lib/containers/storage";
    let layers = json!([{"id": id, "created": TIME}]);
    host.file(
        format!("{store}/overlay-layers/layers.json"),
        layers.to_string(),
    );
    host.file(format!("{store}/overlay-images/images.json"), "[]");
    host.file(format!("{store}/overlay-containers/containers.json"), "[]");
    host.dir(format!("{store}/overlay/l"));
    host.dir(format!("{store}/overlay/{id}/diff"));
    host.file(
        format!("{store}/overlay/{id}/link"),
        "ABCDEFGHIJKLMNOPQRSTUVWXYZ",
    );
    for verb in ["branches", "ls", "whois"] {
        host.ask([verb, "l/ABCDEFGHIJKLMNOPQRSTUVWXYZ"]).exits(0);
    }
}

#[apply(test)]
fn a_branch_in_another_mount_namespace_is_a_name() {
    crate::lab::needs::root("to be told of overlay's marks");
    let host = Host::empty();
    host.file(
        "/proc/self/mountinfo",
        "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n",
    );
    host.file("/proc/self/ns_mnt", "x");
    let options = "rw,lowerdir=/srv/low,upperdir=/srv/up,workdir=/srv/work";
    let line = format!("40 1 0:40 / /merged rw,relatime - overlay overlay {options}\n");
    host.file(
        "/proc/77/mountinfo",
        format!("1 0 8:1 / / rw - ext4 /dev/sda1 rw\n{line}"),
    );
    host.dir("/srv/low").dir("/srv/up").dir("/srv/work");
    host.file("/srv/up/new", "x");
    let directories = [b"/srv/up".to_vec(), b"/srv/low".to_vec()];
    for path in ["/srv/up", "/merged"] {
        assert_eq!(host.branches_of(path), directories, "{path}");
    }
    let changes = host.jsonl(["changes", "/srv/up"]).exits(0).row();
    assert_eq!(changes["path"], "/new");
}

// ---- a stream of lines ----

struct Lines {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<std::process::ChildStdout>,
}

impl Lines {
    fn of(host: &Host, format: &[&str]) -> Lines {
        let mut child = run::command()
            .arg("--root")
            .arg(&host.root)
            .args(format)
            .args(["whois", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("layerctl was built");
        Lines {
            input: child.stdin.take(),
            output: BufReader::new(child.stdout.take().expect("piped")),
            child,
        }
    }

    fn write(&mut self, text: &[u8]) {
        let input = self.input.as_mut().expect("open");
        input.write_all(text).expect("it reads");
    }

    fn read(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("text");
        line
    }
}

#[apply(test)]
fn each_line_is_answered_before_the_next_is_there() {
    let mut containerd = Containerd::new();
    containerd.image("default", "img:1", &["a"]);
    containerd.run("default", "web", "img:1", &["a"]);
    let host = containerd.save();
    for format in [&["--format", "jsonl"][..], &[], &["-q"]] {
        let mut lines = Lines::of(host, format);
        for _ in 0..3 {
            lines.write(format!("4\t{}\n", Containerd::directory(2)).as_bytes());
            assert!(lines.read().contains("web"));
        }
        lines.input = None;
        assert_eq!(lines.child.wait().expect("a child").code(), Some(0));
    }
    // One document, whole.
    let mut lines = Lines::of(host, &["--format", "json"]);
    lines.write(b"web\nnobody\n\n");
    lines.input = None;
    let mut document = String::new();
    lines.output.read_to_string(&mut document).expect("text");
    let document: Value = serde_json::from_str(&document).expect("a document");
    assert_eq!(document.as_array().map(Vec::len), Some(2));
    assert_eq!(lines.child.wait().expect("a child").code(), Some(1));
}

#[apply(test)]
fn lines_without_end_take_no_memory() {
    let mut containerd = Containerd::new();
    containerd.image("default", "img:1", &["a"]);
    let host = containerd.save();
    let mut lines = Lines::of(host, &["-q"]);
    let peak = |lines: &Lines| {
        let path = format!("/proc/{}/status", lines.child.id());
        let status = std::fs::read_to_string(path).expect("it runs");
        let line = status.lines().find(|line| line.starts_with("VmHWM"));
        let number = line.and_then(|line| line.split_whitespace().nth(1));
        number
            .and_then(|number| number.parse::<u64>().ok())
            .expect("kB")
    };
    let batch = format!("{}/fs/some/where\n", Containerd::directory(1)).repeat(100);
    let answer = |lines: &mut Lines, times: usize| {
        for _ in 0..times {
            lines.write(batch.as_bytes());
            (0..100).for_each(|_| drop(lines.read()));
        }
    };
    answer(&mut lines, 5);
    let before = peak(&lines);
    answer(&mut lines, 100);
    let after = peak(&lines);
    assert!(after < before + 1024, "{before} kB, then {after} kB");
    // A line that never ends is none.
    lines.write(&vec![b'x'; 3 << 20]);
    lines.write(b"\nimg:1\n");
    assert!(lines.read().contains("img:1"));
    lines.input = None;
    assert_eq!(lines.child.wait().expect("a child").code(), Some(2));
}

#[apply(test)]
fn ctrl_c_ends_it_at_once() {
    let mut containerd = Containerd::new();
    containerd.image("default", "img:1", &["a"]);
    let host = containerd.save();
    let mut lines = Lines::of(host, &[]);
    lines.write(b"img:1\n");
    lines.read();
    interrupt(&lines.child);
    let ended = wait(&mut lines.child);
    assert_eq!(signal_of(ended), Some(2));
}

/// `du` looks for the first press itself. When it waits for a reader it is as deaf as any program,
/// and must end all the same.
#[apply(test)]
fn the_second_ctrl_c_ends_whatever_goes_on() {
    let mut containerd = Containerd::new();
    containerd.image("default", "img:1", &["a"]);
    let host = containerd.save();
    // Nobody reads what it says, and the pipe is full.
    let (_reader, mut writer) = std::io::pipe().expect("a pipe");
    let flags = rustix::fs::fcntl_getfl(&writer).expect("flags");
    let nonblocking = flags | rustix::fs::OFlags::NONBLOCK;
    rustix::fs::fcntl_setfl(&writer, nonblocking).expect("a pipe");
    while writer.write(&[b'x'; 4096]).is_ok() {}
    rustix::fs::fcntl_setfl(&writer, flags).expect("a pipe");
    let mut child = run::command()
        .arg("--root")
        .arg(&host.root)
        .args(["du"])
        .stdout(writer)
        .stderr(Stdio::null())
        .spawn()
        .expect("layerctl was built");
    // It waits in a call that writes.
    let path = format!("/proc/{}/wchan", child.id());
    let start = Instant::now();
    while !std::fs::read_to_string(&path).is_ok_and(|at| at.contains("pipe")) {
        assert!(start.elapsed() < Duration::from_secs(60), "it never writes");
        std::thread::sleep(Duration::from_millis(5));
    }
    interrupt(&child);
    std::thread::sleep(Duration::from_millis(20));
    interrupt(&child);
    assert_eq!(signal_of(wait(&mut child)), Some(2));
}

fn interrupt(child: &Child) {
    let pid = rustix::process::Pid::from_child(child);
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::INT);
}

fn wait(child: &mut Child) -> std::process::ExitStatus {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("a child") {
            return status;
        }
        // A busy machine is slow to run what was woken.
        assert!(start.elapsed() < Duration::from_secs(60), "it goes on");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn signal_of(status: std::process::ExitStatus) -> Option<i32> {
    std::os::unix::process::ExitStatusExt::signal(&status)
}

// ---- words ----

#[apply(test)]
fn an_image_without_layers_has_no_branch_that_was_not_read() {
    let mut containerd = Containerd::new();
    containerd.image("default", "empty:1", &[]);
    let host = containerd.save();
    let said = host.ask(["which", "empty:1:/etc/passwd"]).exits(1);
    assert!(!said.text().contains("not read"), "{}", said.text());
    for verb in ["branches", "ls", "history"] {
        host.ask([verb, "empty:1"]).exits(0);
    }
}

#[apply(test)]
fn times_outside_of_the_calendar_are_no_ages() {
    let host = Host::empty();
    let (id, mount) = (sha("container"), sha("mount"));
    for (created, started, finished) in [
        (
            "9999-12-31T23:59:59Z",
            "9999-12-31T23:59:59Z",
            "9999-12-31T23:59:59Z",
        ),
        ("12026-01-01T00:00:00Z", "no time", "no time"),
        (
            "0001-01-01T00:00:00Z",
            "2024-05-06T07:08:09Z",
            "0001-01-01T00:00:00Z",
        ),
    ] {
        for running in [true, false] {
            let config = json!({
                "ID": id, "Created": created, "Path": "sh", "Name": "/web", "Driver": "overlay2",
                "State": {"Running": running, "ExitCode": 0, "StartedAt": started, "FinishedAt": finished},
                "Config": {"Image": "img"}, "Image": format!("sha256:{id}"),
            });
            host.file(
                format!("/var/lib/docker/containers/{id}/config.v2.json"),
                config.to_string(),
            );
            let record = format!("/var/lib/docker/image/overlay2/layerdb/mounts/{id}");
            host.file(format!("{record}/mount-id"), &mount);
            host.dir(format!("/var/lib/docker/overlay2/{mount}/diff"));
            let output = host.ask(["containers"]);
            let shown = output.text();
            for lie in [
                "Less than a second",
                "2025 years",
                "2026 years",
                ")  ago",
                "Up ago",
                "in ago",
            ] {
                assert!(!shown.contains(lie), "{lie:?} in {shown}");
            }
        }
    }
}

#[apply(test)]
fn control_bytes_reach_no_terminal() {
    let evil = "a\u{1b}[2Jb\u{7}\u{202e}c\rd\ne";
    let mut containerd = Containerd::new();
    containerd.image(evil, evil, &["a"]);
    containerd.run(evil, "web", evil, &["a"]);
    containerd.snapshot(evil, evil, None);
    let record = containerd.container(evil, "web", evil, "web");
    put(at(record, &["labels"]), "nerdctl/name", bolt::text(evil));
    let spec = json!({"process": {"args": [evil, evil]}});
    put(record, "spec", any(&spec.to_string()));
    let host = containerd.save();
    host.file(format!("{}/fs/{evil}", Containerd::directory(2)), "x");
    for ask in [
        &["containers"][..],
        &["images"],
        &["orphans"],
        &["du"],
        &["info"],
        &["branches", "web"],
        &["history", "web"],
        &["whois", "web"],
        &["whois", evil],
        &["branches", evil],
        &["branches", "nobody\u{1b}[2J"],
        &["whois", "nobody\u{1b}[2J"],
        &["which", "web:/\u{1b}[2J"],
    ] {
        let output = host.ask(ask);
        for said in [output.text(), &output.stderr] {
            let is_control = |char: char| char != '\n' && (char.is_control() || char == '\u{202e}');
            assert!(!said.contains(is_control), "{ask:?}: {said:?}");
        }
    }
}

#[apply(test)]
fn dockers_snapshots_are_where_the_running_containerd_has_its_data() {
    let mut containerd = Containerd::new();
    let [image, _] = containerd.image("moby", "docker.io/acme/app:1", &["base"]);
    let id = "3".repeat(64);
    let top = chains(&["base"]).pop();
    containerd.snapshot("moby", &id, top.as_deref());
    containerd.save();
    let host = containerd.host;
    let place = host.at("/data/ctd");
    std::fs::create_dir_all(host.at("/data")).expect("a temporary directory");
    std::fs::rename(host.at(ROOT), place).expect("a temporary directory");
    let record = json!({
        "ID": id, "Name": "/web", "Driver": "overlayfs", "Created": TIME, "State": {},
        "Image": image, "Config": {"Image": "acme/app:1"},
        "ImageManifest": {"digest": image, "size": 1},
    });
    let path = format!("/var/lib/docker/containers/{id}/config.v2.json");
    host.file(path, record.to_string());
    for process in ["self", "812"] {
        let mounts = "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n";
        host.file(format!("/proc/{process}/mountinfo"), mounts);
        host.link(format!("/proc/{process}/ns_mnt"), "mnt:[4026531841]");
    }
    let words = "/usr/bin/containerd\0--root\0/data/ctd\0";
    host.file("/proc/812/cmdline", words);
    let row = host.jsonl(["branches", "docker:web"]).exits(0).row();
    let first = row["branches"][0]["directory"].as_str().unwrap_or_default();
    assert!(first.starts_with("/data/ctd/"), "{row}");
}
