//! `whois`: on every captured host the owner of every layer is the one that the engine's own
//! files have, read here once more and otherwise than the program does.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::process::Stdio;
use std::sync::Arc;

use serde_json::Value;
use sha2::{Digest, Sha256};
use walkdir::WalkDir;

use crate::lab::captured::Shared;
use crate::lab::host::Host;
use crate::lab::run::{self, bytes, text};
use crate::lab::{archive, needs, table};

/// A captured host, its engine, its storage driver and its data directory.
const STORES: [(&str, &str, &str, &str); 13] = [
    ("docker-overlay2", "docker", "overlay2", DOCKER),
    ("docker-fuse-overlayfs", "docker", "fuse-overlayfs", DOCKER),
    ("docker-vfs", "docker", "vfs", DOCKER),
    ("docker-btrfs", "docker", "btrfs", DOCKER),
    ("docker-aufs-webapp", "docker", "aufs", DOCKER),
    ("docker-aufs-leftover", "docker", "aufs", DOCKER),
    (
        "podman-overlay",
        "podman",
        "overlay",
        "/var/lib/containers/storage",
    ),
    ("podman-vfs", "podman", "vfs", "/var/lib/containers/vfs"),
    (
        "podman-rootless-overlay",
        "podman",
        "overlay",
        "/home/labu/.local/share/containers/storage",
    ),
    (
        "podman-rootless-fuse-overlayfs",
        "podman",
        "overlay",
        "/home/labu/fuse-storage",
    ),
    (
        "containerd-overlayfs",
        "containerd",
        "",
        "/var/lib/containerd",
    ),
    (
        "containerd-kubernetes",
        "containerd",
        "",
        "/var/lib/containerd",
    ),
    ("docker-29", "docker", "", DOCKER),
];
const DOCKER: &str = "/var/lib/docker";
/// Where Docker 29's own containerd is.
const DAEMON: &str = "/var/lib/docker/containerd/daemon";

/// A layer, as its engine's own files have it.
#[derive(Debug, Default, Clone)]
pub struct Known {
    pub driver: String,
    pub id: String,
    /// Its directory, and its content in that.
    pub directory: String,
    pub content: String,
    pub kind: &'static str,
    /// Names by id.
    pub containers: BTreeMap<String, String>,
    /// Id, number, of how many.
    pub images: BTreeSet<(String, usize, usize)>,
    /// Chain id, diff id, short link, number.
    pub names: BTreeSet<String>,
}

pub struct Store {
    pub name: &'static str,
    pub engine: &'static str,
    pub root: &'static str,
    pub host: Host,
    pub layers: Vec<Known>,
    /// Tags by image id, as far as an engine's files have them by it.
    pub tags: BTreeMap<String, BTreeSet<String>>,
}

/// The captured hosts, which tests that run at one time share.
pub fn stores() -> Arc<Vec<Store>> {
    static SHARED: Shared<Vec<Store>> = Shared::new();
    SHARED.get(|| {
        needs::captured_hosts();
        STORES.map(|(name, ..)| captured(name)).into()
    })
}

pub fn captured(name: &str) -> Store {
    existing(name, Host::captured(name))
}

/// Reads the store of a host that is a captured one.
pub fn existing(name: &str, host: Host) -> Store {
    let (name, engine, driver, root) = *STORES
        .iter()
        .find(|(of, ..)| *of == name)
        .expect("a captured host");
    let mut store = Store {
        name,
        engine,
        root,
        host,
        layers: Vec::new(),
        tags: BTreeMap::new(),
    };
    match (name, engine) {
        ("docker-29", _) => store.containerd(DAEMON),
        (_, "docker") => store.docker(driver),
        (_, "podman") => store.podman(driver),
        _ => store.containerd(root),
    }
    store
}

fn hex(text: &str) -> String {
    text.trim().trim_start_matches("sha256:").to_owned()
}

/// The chain ids of a configuration's layers, base first.
fn chain_ids(config: &Value) -> Vec<String> {
    let diff_ids = config["rootfs"]["diff_ids"].as_array();
    let mut chain: Vec<String> = Vec::new();
    for diff_id in diff_ids.into_iter().flatten() {
        let diff_id = diff_id.as_str().expect("a digest");
        let next = match chain.last() {
            None => diff_id.to_owned(),
            Some(last) => {
                let digest = Sha256::digest(format!("{last} {diff_id}"));
                let digits = digest.iter().map(|byte| format!("{byte:02x}"));
                format!("sha256:{}", digits.collect::<String>())
            }
        };
        chain.push(next);
    }
    chain
}

impl Store {
    fn read(&self, path: &str) -> Option<String> {
        let read = fs::read(self.host.at(path)).ok()?;
        Some(
            String::from_utf8(read)
                .expect("plain text")
                .trim()
                .to_owned(),
        )
    }

    fn json(&self, path: &str) -> Value {
        let text = self.read(path);
        text.map_or(Value::Null, |text| {
            serde_json::from_str(&text).expect("a JSON document")
        })
    }

    pub fn list(&self, path: &str) -> Vec<String> {
        let names = fs::read_dir(self.host.at(path)).into_iter().flatten();
        let mut names: Vec<String> = names
            .map(|name| name.expect("our own").file_name())
            .map(|name| name.into_string().expect("plain names"))
            .collect();
        names.sort();
        names
    }

    fn layers_in(&mut self, driver: &str, parent: &str, inner: &str) {
        for id in self.list(parent) {
            let directory = format!("{parent}/{id}");
            if id == "l" || !self.host.at(&directory).is_dir() {
                continue;
            }
            let mut known = Known {
                driver: driver.to_owned(),
                content: format!("{directory}{inner}"),
                kind: "",
                ..Known::default()
            };
            if let Some(link) = self.read(&format!("{directory}/link")) {
                known.names.insert(format!("l/{link}"));
            }
            (known.directory, known.id) = (directory, id);
            self.layers.push(known);
        }
    }

    fn layer(&mut self, id: &str) -> Option<&mut Known> {
        let is_it = |of: &&mut Known| of.id.trim_end_matches("-removing") == id;
        self.layers.iter_mut().find(is_it)
    }

    fn docker(&mut self, driver: &str) {
        let (parent, inner) = match driver {
            "vfs" => ("vfs/dir", ""),
            "btrfs" => ("btrfs/subvolumes", ""),
            "aufs" => ("aufs/diff", ""),
            _ => (driver, "/diff"),
        };
        self.layers_in(driver, &format!("{DOCKER}/{parent}"), inner);
        let image = format!("{DOCKER}/image/{driver}");
        let mut caches = BTreeMap::new();
        for chain in self.list(&format!("{image}/layerdb/sha256")) {
            let of = |file: &str| self.read(&format!("{image}/layerdb/sha256/{chain}/{file}"));
            let (cache, diff) = (of("cache-id").expect("one"), of("diff").expect("one"));
            let layer = self.layer(&cache).expect("its directory");
            layer.names.extend([format!("sha256:{chain}"), diff]);
            caches.insert(format!("sha256:{chain}"), cache);
        }
        for id in self.list(&format!("{image}/imagedb/content/sha256")) {
            let config = self.json(&format!("{image}/imagedb/content/sha256/{id}"));
            let chain = chain_ids(&config);
            for (index, of) in chain.iter().enumerate() {
                let layer = self.layer(&caches[of]).expect("its directory");
                layer.images.insert((id.clone(), index + 1, chain.len()));
                layer.kind = "image";
            }
            self.tags.insert(id, BTreeSet::new());
        }
        let names = self.json(&format!("{image}/repositories.json"));
        for (_, references) in names["Repositories"].as_object().expect("some") {
            for (reference, id) in references.as_object().expect("some") {
                let tags = self.tags.get_mut(&hex(id.as_str().expect("an id")));
                if !reference.contains('@') {
                    tags.expect("an image").insert(reference.clone());
                }
            }
        }
        for id in self.list(&format!("{DOCKER}/containers")) {
            let config = self.json(&format!("{DOCKER}/containers/{id}/config.v2.json"));
            let name = text(&config, "Name").trim_start_matches('/').to_owned();
            for (file, kind) in [("mount-id", "container"), ("init-id", "init")] {
                let layer = self.read(&format!("{image}/layerdb/mounts/{id}/{file}"));
                let layer = self.layer(&layer.expect("a mount")).expect("a directory");
                layer.containers.insert(id.clone(), name.clone());
                layer.kind = kind;
            }
        }
    }

    fn podman(&mut self, driver: &str) {
        let root = self.root;
        let (parent, inner) = match driver {
            "vfs" => ("vfs/dir", ""),
            _ => ("overlay", "/diff"),
        };
        self.layers_in(driver, &format!("{root}/{parent}"), inner);
        let all = |kind: &str| {
            let list = self.json(&format!("{root}/{driver}-{kind}/{kind}.json"));
            list.as_array().cloned().unwrap_or_default()
        };
        let (layers, images, containers) = (all("layers"), all("images"), all("containers"));
        let mut parents = BTreeMap::new();
        for layer in &layers {
            let id = text(layer, "id");
            parents.insert(id.to_owned(), layer["parent"].as_str().map(str::to_owned));
            let known = self.layer(id).expect("its directory");
            known.kind = "unused";
            let digest = layer["diff-digest"].as_str().map(str::to_owned);
            known.names.extend(digest);
        }
        for image in &images {
            let id = text(image, "id").to_owned();
            let mut chain = vec![text(image, "layer").to_owned()];
            while let Some(parent) = parents[chain.last().expect("one")].clone() {
                chain.push(parent);
            }
            for (index, layer) in chain.iter().enumerate() {
                let known = self.layer(layer).expect("its directory");
                let number = chain.len() - index;
                known.images.insert((id.clone(), number, chain.len()));
                known.kind = "image";
            }
            let names = image["names"].as_array().into_iter().flatten();
            let names = names.filter_map(Value::as_str).map(str::to_owned);
            let tags = names.filter(|name| !name.contains('@')).collect();
            self.tags.insert(id, tags);
        }
        for container in &containers {
            let known = self.layer(text(container, "layer")).expect("its directory");
            known.kind = "container";
            let name = container["names"][0].as_str().expect("a name").to_owned();
            let id = text(container, "id").to_owned();
            known.containers.insert(id, name);
        }
    }

    fn containerd(&mut self, root: &str) {
        let meta = self.database(format!("{root}/io.containerd.metadata.v1.bolt/meta.db"));
        let namespaces: Vec<_> = meta
            .expect("a database")
            .into_iter()
            .filter_map(|(name, of)| Some((name, of.bucket()?)))
            .collect();
        for snapshotter in ["overlayfs", "native"] {
            let home = format!("{root}/io.containerd.snapshotter.v1.{snapshotter}");
            let Some(mut own) = self.database(format!("{home}/metadata.db")) else {
                continue;
            };
            let inner = if snapshotter == "overlayfs" {
                "/fs"
            } else {
                ""
            };
            let first = self.layers.len();
            self.layers_in(snapshotter, &format!("{home}/snapshots"), inner);
            let snapshots = own.remove(b"snapshots".as_slice());
            let snapshots = snapshots.and_then(bolt::Item::bucket).unwrap_or_default();
            // The name in the snapshotter, and the number, which is a varint.
            let mut numbers = BTreeMap::new();
            for (name, snapshot) in snapshots {
                let snapshot = snapshot.bucket().expect("a snapshot");
                let number = snapshot[b"id".as_slice()].value();
                let number = number
                    .iter()
                    .rev()
                    .fold(0_u64, |number, byte| number << 7 | u64::from(byte & 0x7f));
                numbers.insert(name, number.to_string());
            }
            for (_, namespace) in &namespaces {
                let of = |name: &str| {
                    let found = namespace.get(name.as_bytes());
                    found
                        .cloned()
                        .and_then(bolt::Item::bucket)
                        .unwrap_or_default()
                };
                let keys = of("snapshots").remove(snapshotter.as_bytes());
                let keys = keys.and_then(bolt::Item::bucket).unwrap_or_default();
                let keys: BTreeMap<String, String> = keys
                    .into_iter()
                    .map(|(key, of)| {
                        let name = of.bucket().expect("a snapshot")[b"name".as_slice()].clone();
                        let key = String::from_utf8(key).expect("plain keys");
                        (key, numbers[&name.value()].clone())
                    })
                    .collect();
                let users: Vec<(String, String, &str)> = match self.name {
                    "docker-29" => {
                        let of = |key: &String| match key.strip_suffix("-init") {
                            Some(id) => Some((id.to_owned(), key.clone(), "init")),
                            None if key.starts_with("sha256:") => None,
                            None => Some((key.clone(), key.clone(), "container")),
                        };
                        keys.keys().filter_map(of).collect()
                    }
                    _ => {
                        let mut users = Vec::new();
                        for (id, container) in of("containers") {
                            let container = container.bucket().expect("a container");
                            let field = |name: &str| {
                                let value = container.get(name.as_bytes()).cloned();
                                let value = value.map(|of| of.value()).unwrap_or_default();
                                String::from_utf8(value).expect("plain text")
                            };
                            if field("snapshotter") == snapshotter {
                                let id = String::from_utf8(id).expect("plain ids");
                                users.push((id, field("snapshotKey"), "container"));
                            }
                        }
                        users
                    }
                };
                for (id, key, kind) in users {
                    let layer = self.snapshot(first, &keys[&key]);
                    layer.containers.insert(id, String::new());
                    layer.kind = kind;
                }
                for (reference, image) in of("images") {
                    let image = image.bucket().expect("an image");
                    let target = image[b"target".as_slice()].clone();
                    let target = target.bucket().expect("a target")[b"digest".as_slice()].value();
                    let digest = String::from_utf8(target).expect("a digest");
                    let id = hex(&digest);
                    let tags = self.tags.entry(id.clone()).or_default();
                    tags.insert(String::from_utf8(reference).expect("plain names"));
                    let chain = chain_ids(&self.config_of(root, &digest));
                    for (index, chain_id) in chain.iter().enumerate() {
                        let Some(number) = keys.get(chain_id) else {
                            continue;
                        };
                        let layer = self.snapshot(first, number);
                        layer.images.insert((id.clone(), index + 1, chain.len()));
                        layer.kind = "image";
                    }
                }
                for (key, number) in keys {
                    let layer = self.snapshot(first, &number);
                    if layer.kind.is_empty() {
                        layer.kind = "unused";
                    }
                    layer.names.insert(key);
                }
            }
        }
    }

    fn database(&self, path: String) -> Option<bolt::Bucket> {
        let bytes = fs::read(self.host.at(&path)).ok()?;
        bolt::read(&bytes).remove(b"v1".as_slice())?.bucket()
    }

    fn snapshot(&mut self, first: usize, number: &str) -> &mut Known {
        let found = self.layers[first..].iter_mut().find(|of| of.id == number);
        found.expect("its directory")
    }

    /// The configuration of an image: of the only platform that has one, in an index.
    fn config_of(&self, root: &str, digest: &str) -> Value {
        let blob = |digest: &str| {
            let hex = hex(digest);
            self.json(&format!(
                "{root}/io.containerd.content.v1.content/blobs/sha256/{hex}"
            ))
        };
        let mut manifest = blob(digest);
        let platforms = manifest["manifests"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        if let Some(one) = platforms
            .iter()
            .find(|of| of["platform"]["os"] != "unknown")
        {
            manifest = blob(text(one, "digest"));
        }
        blob(text(&manifest["config"], "digest"))
    }

    /// What is wrong in an answer that has to be about `layer`.
    fn wrong(&self, layer: &Known, row: &Value) -> Option<String> {
        let containers = row["containers"].as_array().expect("containers").iter();
        let is_named = self.name != "docker-29" && self.engine != "containerd";
        let containers: BTreeMap<String, String> = containers
            .map(|of| {
                let name = if is_named { text(of, "name") } else { "" };
                (text(of, "id").to_owned(), name.to_owned())
            })
            .collect();
        let images = row["images"].as_array().expect("images");
        let number = |of: &Value, field: &str| {
            let number = of[field].as_u64().expect("a number");
            usize::try_from(number).expect("a small one")
        };
        let of_images: BTreeSet<(String, usize, usize)> = images
            .iter()
            .map(|of| {
                (
                    text(of, "id").to_owned(),
                    number(of, "layer_number"),
                    number(of, "layer_count"),
                )
            })
            .collect();
        let tags = |of: &Value| -> BTreeSet<String> {
            let tags = of["tags"].as_array().expect("tags").iter();
            tags.map(|tag| tag.as_str().expect("text").to_owned())
                .collect()
        };
        let is_tagged = !is_named
            || images
                .iter()
                .all(|of| tags(of) == self.tags[text(of, "id")]);
        let is_right = row["kind"] == layer.kind
            && row["engine"] == self.engine
            && row["driver"] == layer.driver.as_str()
            && row["layer"] == layer.id.as_str()
            && row["directory"] == layer.content.as_str()
            && containers == layer.containers
            && of_images == layer.images
            && is_tagged;
        (!is_right).then(|| format!("{}: {row}\n  is {layer:?}", self.name))
    }

    fn whois<S: AsRef<std::ffi::OsStr>>(&self, things: &[S]) -> run::Output {
        let things = things.iter().map(AsRef::as_ref);
        self.host
            .jsonl(["whois".as_ref(), "--".as_ref()].into_iter().chain(things))
    }

    /// Asks for all at once, and demands the right answer to each.
    #[track_caller]
    fn all_are(&self, asked: &[(String, &Known)]) {
        let things: Vec<&String> = asked.iter().map(|(thing, _)| thing).collect();
        let rows = self.whois(&things);
        let found = rows.rows();
        let wrong: Vec<String> = found
            .iter()
            .zip(asked)
            .filter_map(|(row, (thing, layer))| {
                if row["query"] == thing.as_str() {
                    self.wrong(layer, row)
                } else {
                    Some(format!("{row} is no answer to {thing}"))
                }
            })
            .collect();
        let shown = wrong.iter().take(3).cloned().collect::<Vec<_>>().join("\n");
        assert!(
            wrong.is_empty(),
            "{}: {} of {} wrong:\n{shown}\n{}",
            self.name,
            wrong.len(),
            asked.len(),
            rows.stderr
        );
        assert_eq!(found.len(), asked.len(), "{}: {}", self.name, rows.stderr);
        rows.exits(0);
    }

    /// The layers by each name that is one's own, and those that have a name in common.
    fn names(&self) -> BTreeMap<&str, Vec<&Known>> {
        let mut names: BTreeMap<&str, Vec<&Known>> = BTreeMap::new();
        for layer in &self.layers {
            for name in &layer.names {
                names.entry(name).or_default().push(layer);
            }
        }
        names
    }

    /// The processes of running containers, and where their roots are mounted on the host.
    fn running(&self) -> Vec<(String, &Known)> {
        let mut found = Vec::new();
        let truth = archive::texts(&format!("{}.truth", self.name));
        let table = self.read("/proc/self/mountinfo").unwrap_or_default();
        for layer in self.layers.iter().filter(|of| of.kind == "container") {
            let (id, name) = layer.containers.first_key_value().expect("one");
            let points = table.lines().filter_map(|line| {
                let point = line.split(' ').nth(4)?;
                let is_it = match self.engine {
                    _ if self.name == "docker-29" => point.ends_with(&format!("/{id}")),
                    "containerd" => point.ends_with(&format!("/{id}/rootfs")),
                    _ => {
                        point == format!("{}/merged", layer.directory)
                            || point == format!("{}/aufs/mnt/{}", self.root, layer.id)
                    }
                };
                is_it.then(|| point.to_owned())
            });
            found.extend(points.map(|point| (point, layer)));
            let process = match self.engine {
                "docker" => self.json(&format!("{DOCKER}/containers/{id}/config.v2.json"))["State"]
                    ["Pid"]
                    .as_u64(),
                "podman" => {
                    let said = &truth[&format!("inspect-{name}.json")];
                    let said: Value = serde_json::from_slice(said).expect("JSON");
                    said[0]["State"]["Pid"].as_u64()
                }
                _ => truth
                    .iter()
                    .filter(|(file, _)| file.ends_with("-tasks.txt"))
                    .flat_map(|(_, said)| {
                        let said = std::str::from_utf8(said).expect("UTF-8");
                        table::columns(said, &["TASK", "PID"])
                    })
                    .find(|row| row[0] == *id)
                    .and_then(|row| row[1].parse().ok()),
            };
            let process =
                process.filter(|of| self.host.at(format!("/proc/{of}/mountinfo")).exists());
            found.extend(process.map(|of| (format!("pid:{of}"), layer)));
        }
        found
    }
}

#[apply(test)]
fn the_engines_say_the_same_as_their_files() {
    needs::time();
    for store in stores().iter().filter(|of| of.engine != "containerd") {
        let truth = archive::texts(&format!("{}.truth", store.name));
        for (file, said) in &truth {
            let is_container = file.starts_with("inspect-") && !file.starts_with("inspect-image");
            if !is_container {
                continue;
            }
            let said: Value = serde_json::from_slice(said).expect("JSON");
            let said = if said.is_array() { &said[0] } else { &said };
            let id = text(said, "Id");
            let own = store
                .layers
                .iter()
                .find(|of| of.kind == "container" && of.containers.contains_key(id));
            let own = own.unwrap_or_else(|| panic!("{}: no layer of {file}", store.name));
            let upper = said["GraphDriver"]["Data"]["UpperDir"].as_str();
            assert_eq!(upper.unwrap_or(&own.content), own.content, "{file}");
        }
    }
    let stores = stores();
    for store in stores
        .iter()
        .filter(|of| of.layers[0].driver == "overlayfs")
    {
        let truth = archive::texts(&format!("{}.truth", store.name));
        let mut mounts = 0;
        for (file, said) in truth.iter().filter(|(file, _)| file.contains("mounts-")) {
            let said = std::str::from_utf8(said).expect("UTF-8");
            let upper = said.split(',').find_map(|of| of.strip_prefix("upperdir="));
            let Some(upper) = upper else { continue };
            let own = store.layers.iter().find(|of| of.content == upper.trim());
            let own = own.unwrap_or_else(|| panic!("{}: no layer of {file}", store.name));
            assert_eq!(own.kind, "container", "{file}");
            mounts += 1;
        }
        assert!(mounts > 0, "{}", store.name);
    }
}

#[apply(test)]
fn every_directory_is_its_owners() {
    needs::time();
    for store in stores().iter().filter(|of| of.name != "docker-29") {
        store.directories_are_right();
    }
}

#[apply(test)]
fn every_name_is_its_owners() {
    needs::time();
    for store in stores().iter().filter(|of| of.name != "docker-29") {
        store.names_are_right();
    }
}

#[apply(test)]
fn dockers_snapshots_are_its_own() {
    needs::time();
    for store in stores().iter().filter(|of| of.name == "docker-29") {
        store.directories_are_right();
        store.names_are_right();
    }
}

impl Store {
    #[track_caller]
    fn directories_are_right(&self) {
        // What no record has is left over, and unknown.
        let directories = self.layers.iter().filter(|of| !of.kind.is_empty());
        let asked: Vec<_> = directories
            .flat_map(|of| [(of.directory.clone(), of), (of.content.clone(), of)])
            .collect();
        assert!(asked.len() > 10, "{}", self.name);
        self.all_are(&asked);
    }

    #[track_caller]
    fn names_are_right(&self) {
        let store = self;
        let mut asked = Vec::new();
        for (name, layers) in store.names() {
            if let [layer] = layers[..] {
                asked.push((name.to_owned(), layer));
                asked.extend(
                    name.strip_prefix("sha256:")
                        .map(|hex| (hex.to_owned(), layer)),
                );
            }
        }
        // Snapshots have numbers, which two snapshotters may both have.
        let is_alone = |id: &str| store.layers.iter().filter(|of| of.id == id).count() == 1;
        for layer in store.layers.iter().filter(|of| is_alone(&of.id)) {
            if layer.kind.is_empty() {
                continue;
            }
            asked.push((layer.id.clone(), layer));
            if layer.id.len() < 12 {
                continue;
            }
            let prefix = &layer.id[..12];
            let begins = |of: &&Known| {
                of.id.starts_with(prefix)
                    || of.names.iter().any(|name| hex(name).starts_with(prefix))
            };
            let others = store
                .layers
                .iter()
                .filter(begins)
                .filter(|of| of.kind != "init");
            if others.count() == 1 && layer.kind != "init" {
                asked.push((prefix.to_owned(), layer));
            }
        }
        let links = store.layers.iter().flat_map(|of| {
            let link = of.names.iter().find(|name| name.starts_with("l/"));
            let parent = of.directory.rsplit_once('/').expect("a path").0;
            link.map(|link| (format!("{parent}/{link}"), of))
        });
        asked.extend(links);
        store.all_are(&asked);
    }
}

#[apply(test)]
fn a_snapshot_has_a_number() {
    needs::time();
    let stores = stores();
    for store in stores
        .iter()
        .filter(|of| of.layers[0].driver == "overlayfs")
    {
        let is_alone = |id: &str| store.layers.iter().filter(|of| of.id == id).count() == 1;
        // Of two of docker-29's no namespace has a name any more: `orphans` tells of them.
        let is_known = |of: &&Known| !of.kind.is_empty();
        let layers = store.layers.iter().filter(|of| is_alone(&of.id));
        let layers = layers.filter(is_known);
        let asked: Vec<_> = layers
            .map(|of| (format!("containerd:{}", of.id), of))
            .collect();
        store.all_are(&asked);
    }
}

/// Everything on an image uses its layers, be it made from the image long ago.
#[apply(test)]
fn containers_stand_on_the_layers_of_their_images() {
    needs::time();
    let mut seen = 0;
    for store in stores().iter() {
        let containers = store.host.jsonl(["containers"]);
        let rows: Vec<Value> = match containers.status {
            Some(0) => containers.rows(),
            _ => continue,
        };
        for container in &rows {
            let id = text(container, "id");
            let branches = store.host.jsonl(["branches", id]).exits(0).row();
            let branches = branches["branches"].as_array().expect("branches");
            let image = |branch: &&Value| text(branch, "role").starts_with("image");
            let Some(lowest) = branches.iter().rfind(image) else {
                continue;
            };
            let directory = text(lowest, "directory");
            let row = store.whois(&[directory]).exits(0).row();
            let above = row["above"].as_array().into_iter().flatten();
            assert!(above.clone().any(|of| of["id"] == id), "{id}: {row}");
            let known: Vec<&Value> = rows.iter().map(|row| &row["id"]).collect();
            assert!(above.clone().all(|of| known.contains(&&of["id"])), "{row}");
            seen += 1;
        }
    }
    assert!(seen > 10 || stores().is_empty(), "{seen}");
}

#[apply(test)]
fn what_runs_is_its_containers() {
    needs::time();
    let mut kinds = BTreeSet::new();
    for store in stores().iter() {
        let asked = store.running();
        for (thing, layer) in &asked {
            let row = store.whois(&[thing]).exits(0).row();
            let containers: Vec<&str> = row["containers"]
                .as_array()
                .expect("containers")
                .iter()
                .map(|of| text(of, "id"))
                .collect();
            let (own, _) = layer.containers.first_key_value().expect("one");
            assert_eq!(containers, [own], "{}: {row}", store.name);
            assert_eq!(row["engine"], store.engine, "{}: {row}", store.name);
            let kind = if thing.starts_with("pid:") {
                "container"
            } else {
                "mount"
            };
            assert_eq!(row["kind"], kind, "{}: {row}", store.name);
            kinds.insert((store.engine, kind));
        }
    }
    assert!(stores().is_empty() || kinds.len() == 6, "{kinds:?}");
}

#[apply(test)]
fn a_mount_by_hand_is_a_mount() {
    needs::captured_hosts();
    for name in [
        "aufs-plain-01-mounted",
        "aufs-plain-02-copyup",
        "aufs-plain-03-whiteout",
        "aufs-plain-05-opaque",
        "aufs-plain-06-fivebranch",
        "aufs-plain-08-br127",
        "aufs-plain-08-br14",
    ] {
        let host = Host::captured(name);
        let table = String::from_utf8(host.read("/proc/self/mountinfo")).expect("UTF-8");
        let mut asked: Vec<String> = table
            .lines()
            .filter(|line| line.contains(" - aufs "))
            .filter_map(|line| line.split(' ').nth(4))
            .map(str::to_owned)
            .collect();
        assert!(!asked.is_empty(), "{name}");
        for entry in WalkDir::new(host.at("/sys/fs/aufs")) {
            let entry = entry.expect("our own");
            let file = entry.file_name().as_bytes();
            if file.starts_with(b"br") && !file.starts_with(b"brid") && entry.file_type().is_file()
            {
                let branch = fs::read_to_string(entry.path()).expect("a branch");
                asked.extend(branch.rsplit_once('=').map(|(path, _)| path.to_owned()));
            }
        }
        asked.retain(|path| path.starts_with('/') && !path.contains('\\'));
        let query = ["whois".to_owned()]
            .into_iter()
            .chain(asked.iter().cloned());
        for row in host.jsonl(query).exits(0).rows() {
            assert_eq!(row["kind"], "mount", "{name}: {row}");
            assert!(row["engine"].is_null(), "{name}: {row}");
        }
    }
}

/// How `which` shows a layer's path, in the words of `whois`.
fn visibility(row: &Value, layer: &str) -> &'static str {
    let trail = row["trail"].as_array().expect("a trail");
    let versions = row["versions"].as_array().expect("versions");
    let own = versions.iter().find(|of| of["layer"] == layer);
    let own = own.map(|of| of["branch"].clone());
    let says = |of: &Value| text(of, "says").to_owned();
    let part = ["provides", "provides-opaque", "merges"];
    let parts = trail.iter().filter(|of| part.contains(&says(of).as_str()));
    let is_part = trail
        .iter()
        .any(|of| Some(&of["branch"]) == own.as_ref() && part.contains(&says(of).as_str()));
    match (row["state"] == "present", is_part) {
        (false, _) => "deleted",
        (true, false) => "shadowed",
        (true, true) if parts.count() > 1 => "merged",
        (true, true) => "visible",
    }
}

#[apply(test)]
fn deep_paths_are_seen_as_which_sees_them() {
    needs::time();
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    // On the other drivers each layer holds all.
    let hosts = [
        "docker-fuse-overlayfs",
        "docker-aufs-webapp",
        "podman-rootless-overlay",
        "containerd-overlayfs",
    ];
    let stores = stores();
    for store in stores.iter().filter(|of| hosts.contains(&of.name)) {
        let own = |of: &&Known| {
            let (_, name) = of
                .containers
                .first_key_value()
                .map_or(("", ""), |(id, name)| (id, name));
            of.kind == "container" && (name.is_empty() || ["run-a", "web1", "v2c"].contains(&name))
        };
        let Some(container) = store.layers.iter().find(own) else {
            panic!("{}: no container", store.name);
        };
        let (id, _) = container.containers.first_key_value().expect("one");
        let branches = store.host.jsonl(["branches", id]).exits(0).row();
        let mut stack: Vec<&str> = branches["branches"]
            .as_array()
            .expect("branches")
            .iter()
            .filter_map(|of| of["layer"]["id"].as_str().or(of["layer"].as_str()))
            .collect();
        if stack.is_empty() {
            stack.push(&container.id);
        }
        let mut paths = Vec::new();
        let content = store.host.at(&container.content);
        let entries = WalkDir::new(&content).min_depth(1).sort_by_file_name();
        for entry in entries.into_iter().map(|entry| entry.expect("our own")) {
            // `which` tells where a link leads.
            if entry.path_is_symlink() {
                continue;
            }
            let inside = entry.path().strip_prefix(&content).expect("below it");
            // AUFS' marks are no paths of the union.
            let is_mark = inside
                .as_os_str()
                .as_bytes()
                .windows(4)
                .any(|of| of == b".wh.");
            if let Some(path) = inside.to_str().filter(|_| !is_mark) {
                paths.push(format!("/{path}"));
            }
        }
        paths.retain(|path| !path.contains('\n'));
        let step = paths.len().div_ceil(16).max(1);
        let paths: Vec<String> = paths.into_iter().step_by(step).collect();
        let queries = paths.iter().map(|path| format!("{id}:{path}"));
        let which = store.host.jsonl(
            ["which".to_owned(), "--".to_owned()]
                .into_iter()
                .chain(queries),
        );
        let things: Vec<String> = paths
            .iter()
            .map(|path| format!("{}{path}", container.content))
            .collect();
        let rows = store.whois(&things).exits(0).rows();
        for ((row, which), path) in rows.iter().zip(which.rows()).zip(&paths) {
            if let Some(wrong) = store.wrong(container, row) {
                panic!("{wrong}");
            }
            let inside = &row["inside"][0];
            assert_eq!(bytes(&inside["path"]), path.as_bytes(), "{row}");
            let state = visibility(&which, &container.id);
            assert_eq!(inside["state"], state, "{}: {row}\n{which}", store.name);
            *seen.entry(state.to_owned()).or_default() += 1;
        }
        // What the layers below have at the same places.
        let below: Vec<(String, &Known, &String)> = paths
            .iter()
            .flat_map(|path| {
                let has = |of: &&Known| {
                    let at = store.host.at(format!("{}{path}", of.content));
                    of.kind == "image" && at.exists() && !at.is_symlink()
                };
                let stack = &stack;
                let in_stack = move |of: &&Known| stack.contains(&of.id.as_str());
                let found = store.layers.iter().filter(in_stack).find(has);
                found.map(|of| (format!("{}{path}", of.content), of, path))
            })
            .take(4)
            .collect();
        for (thing, layer, path) in below {
            let row = store.whois(&[&thing]).exits(0).row();
            if let Some(wrong) = store.wrong(layer, &row) {
                panic!("{wrong}");
            }
            let inside = row["inside"].as_array().expect("places");
            for inside in inside {
                let of = text(inside, "target");
                let which = store.host.jsonl(["which", &format!("{of}:{path}")]).rows();
                let state = visibility(&which[0], &layer.id);
                assert_eq!(
                    inside["state"], state,
                    "{}: {row}\n{}",
                    store.name, which[0]
                );
                *seen.entry(state.to_owned()).or_default() += 1;
            }
        }
    }
    if !stores.is_empty() {
        let states: Vec<&str> = seen.keys().map(String::as_str).collect();
        for state in ["deleted", "merged", "visible"] {
            assert!(states.contains(&state), "{seen:?}");
        }
    }
}

/// In an image: what a layer above has as well, and what one deletes.
#[apply(test)]
fn what_a_layer_above_hides_is_not_visible() {
    needs::time();
    let stores = stores();
    let mut states = BTreeSet::new();
    for store in stores
        .iter()
        .filter(|of| of.name == "docker-fuse-overlayfs")
    {
        let app = store
            .tags
            .iter()
            .find(|(_, tags)| tags.contains("lab/app:1"));
        let (image, _) = app.expect("it was built");
        let number = |of: &&Known| {
            let used = of.images.iter().find(|(id, ..)| id == image);
            used.map(|(_, number, _)| *number)
        };
        let mut stack: Vec<&Known> = store
            .layers
            .iter()
            .filter(|of| number(of).is_some())
            .collect();
        stack.sort_by_key(number);
        let mut asked: BTreeMap<String, &str> = BTreeMap::new();
        for (index, layer) in stack.iter().enumerate() {
            let content = store.host.at(&layer.content);
            for entry in WalkDir::new(&content) {
                let entry = entry.expect("our own");
                let path = entry.path().strip_prefix(&content).expect("below it");
                if !entry.file_type().is_file()
                    || path.to_str().is_none_or(|of| of.contains(".wh."))
                {
                    continue;
                }
                // The first layer above that says anything of it.
                let state = stack[index + 1..].iter().rev().find_map(|above| {
                    let above = store.host.at(&above.content);
                    // Image layers have AUFS' marks here.
                    let name = path.file_name().expect("a name").to_str().expect("text");
                    let mark = above.join(path).with_file_name(format!(".wh.{name}"));
                    match () {
                        () if fs::symlink_metadata(mark).is_ok() => Some("deleted"),
                        () if above.join(path).is_file() => Some("shadowed"),
                        () => None,
                    }
                });
                if let Some(state) = state {
                    asked.insert(format!("{}/{}", layer.content, path.display()), state);
                }
            }
        }
        let things: Vec<&String> = asked.keys().collect();
        for (row, (_, state)) in store.whois(&things).exits(0).rows().iter().zip(&asked) {
            let places = row["inside"].as_array().expect("places");
            let inside = places
                .iter()
                .find(|of| run::text(of, "target").ends_with(":lab/app:1"));
            let inside = inside.unwrap_or_else(|| panic!("{row}"));
            assert_eq!(inside["state"], *state, "{row}");
            states.insert(*state);
        }
    }
    let all = BTreeSet::from(["deleted", "shadowed"]);
    assert!(stores.is_empty() || states == all, "{states:?}");
}

/// A path that was never there is in no union, and neither "visible" nor "deleted".
#[apply(test)]
fn what_is_nowhere_is_not_in_a_union() {
    needs::time();
    for store in &*stores() {
        let layer = store.layers.iter().find(|of| {
            of.kind == "container"
                && !of.containers.is_empty()
                && store.host.at(&of.content).is_dir()
        });
        let Some(layer) = layer else { continue };
        let path = format!("{}/never/was/there", layer.content);
        let row = store.whois(&[&path]).rows().remove(0);
        let places = row["inside"].as_array().map_or(0, Vec::len);
        assert_eq!(places, 0, "{}: {row}", store.name);
    }
}

/// What a driver keeps beside the layers is its own, and no layer that its engine forgot.
#[apply(test)]
fn what_lies_beside_the_layers_is_the_stores() {
    needs::time();
    for (name, home) in [
        ("docker-28-overlay2", "/var/lib/docker/overlay2"),
        ("podman-5.8-overlay", "/var/lib/containers/storage/overlay"),
    ] {
        needs::captured_hosts();
        let host = Host::captured(name);
        host.file(format!("{home}/backingFsBlockDev"), "");
        for beside in ["l", "backingFsBlockDev"] {
            let row = host
                .jsonl(["whois", &format!("{home}/{beside}")])
                .exits(0)
                .row();
            assert_eq!(row["kind"], "store", "{row}");
        }
    }
}

#[apply(test)]
fn lines_of_du_are_annotated() {
    needs::time();
    let stores = stores();
    let Some(store) = stores.iter().find(|of| of.name == "docker-vfs") else {
        return;
    };
    let own = |kind: &str| store.layers.iter().find(|of| of.kind == kind).expect("one");
    let (container, image) = (own("container"), own("image"));
    let name = container.containers.values().next().expect("one");
    let input = format!(
        "12\t{}\n\n 4\tx\t{}/etc\n7\t{}\n",
        container.directory, container.directory, image.directory
    );
    let ask = |arguments: &[&str]| {
        let mut child = run::command()
            .arg("--root")
            .arg(&store.host.root)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("layerctl was built");
        let mut stdin = child.stdin.take().expect("a pipe");
        stdin.write_all(input.as_bytes()).expect("it reads");
        drop(stdin);
        let output = child.wait_with_output().expect("it ends");
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert!(output.stderr.is_empty(), "{output:?}");
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    let said = ask(&["whois", "-"]);
    let lines: Vec<&str> = said.lines().collect();
    let asked: Vec<&str> = input.lines().filter(|line| !line.is_empty()).collect();
    assert_eq!(lines.len(), asked.len(), "{said}");
    for (line, asked) in lines.iter().zip(&asked) {
        let note = line.strip_prefix(&format!("{asked}\t"));
        let note = note.unwrap_or_else(|| panic!("{line:?} lacks {asked:?}"));
        assert!(!note.is_empty() && !note.contains('\t'), "{line:?}");
    }
    assert!(
        lines[0].ends_with(&format!("container layer of {name}")),
        "{said}"
    );
    assert!(lines[2].contains("image layer"), "{said}");
    let said = ask(&["-q", "whois", "-"]);
    let owners: Vec<&str> = said.lines().collect();
    assert_eq!(owners.len(), 3, "{said}");
    assert_eq!(&owners[..2], [name, name], "{said}");
    assert!(
        store.tags.values().any(|tags| tags.contains(owners[2])),
        "{said}"
    );
    let rows = ask(&["--format", "jsonl", "whois", "-"]);
    for (row, asked) in rows.lines().zip(&asked) {
        let row: Value = serde_json::from_str(row).expect("JSON");
        assert_eq!(row["line"], *asked);
    }
}

#[apply(test)]
fn nobody_owns_what_no_engine_has() {
    needs::time();
    let stores = stores();
    for store in stores.iter() {
        let host = &store.host;
        for thing in [
            "/usr/share/nothing",
            "0123456789abcdef",
            "l/ABCDEFGHIJKLMNOPQRSTUVWXYZ",
        ] {
            let row = host.jsonl(["whois", thing]).exits(1).row();
            assert_eq!(row["kind"], "unknown", "{row}");
            assert!(row["engine"].is_null(), "{row}");
        }
        // One that is known does not help the other.
        if store.name == "docker-29" {
            continue;
        }
        let known = store.layers[0].directory.as_str();
        let rows = host.jsonl(["whois", known, "/nothing"]).exits(1).rows();
        assert_eq!(rows.len(), 2, "{}", store.name);
        assert_ne!(rows[0]["kind"], "unknown", "{}", store.name);
    }
}

#[apply(test)]
fn nobody_is_a_process_that_is_not_there() {
    needs::time();
    for store in stores().iter().take(1) {
        let row = store.whois(&["pid:4194303"]).exits(1).row();
        assert_eq!(row["kind"], "unknown", "{row}");
    }
}

#[apply(test)]
fn a_name_of_several_is_ambiguous() {
    needs::time();
    let mut several = 0;
    for store in stores().iter() {
        for (name, layers) in store
            .names()
            .into_iter()
            .filter(|(_, of)| of.len() > 1)
            .take(2)
        {
            let output = store.whois(&[name]).exits(2).says("ambiguous");
            for layer in layers {
                assert!(output.stderr.contains(&layer.id), "{}", output.stderr);
            }
            assert!(output.text().is_empty(), "{}", output.text());
            several += 1;
        }
        // Two snapshotters with the same number.
        let twice = store.layers.iter().find(|of| {
            of.driver == "native"
                && store
                    .layers
                    .iter()
                    .any(|other| other.driver == "overlayfs" && other.id == of.id)
        });
        if let Some(twice) = twice {
            store.whois(&[&twice.id]).exits(2).says("ambiguous");
        }
    }
    assert!(stores().is_empty() || several > 0);
}

/// bbolt's files, as far as they are needed: whole ones, read into memory, and small ones written.
pub mod bolt {
    use std::collections::BTreeMap;

    pub type Bucket = BTreeMap<Vec<u8>, Item>;

    #[derive(Debug, Clone)]
    pub enum Item {
        Value(Vec<u8>),
        Bucket(Bucket),
    }

    impl Item {
        pub fn bucket(self) -> Option<Bucket> {
            match self {
                Item::Bucket(bucket) => Some(bucket),
                Item::Value(_) => None,
            }
        }

        pub fn value(&self) -> Vec<u8> {
            match self {
                Item::Value(value) => value.clone(),
                Item::Bucket(_) => panic!("a bucket"),
            }
        }
    }

    const PAGE: usize = 4096;
    const MAGIC: u32 = 0xED0C_DAED;
    const BRANCH: u16 = 1;
    const LEAF: u16 = 2;

    fn number(bytes: &[u8], at: usize, length: usize) -> usize {
        let digits = bytes[at..at + length].iter().rev();
        digits.fold(0, |number, digit| number << 8 | usize::from(*digit))
    }

    pub fn read(file: &[u8]) -> Bucket {
        let size = number(file, 24, 4);
        let metas = [&file[16..], &file[size + 16..]];
        let newest = metas.into_iter().max_by_key(|meta| number(meta, 48, 8));
        let newest = newest.expect("two");
        assert_eq!(number(newest, 0, 4), MAGIC as usize);
        let mut root = Bucket::new();
        page(file, size, &file[number(newest, 16, 8) * size..], &mut root);
        root
    }

    fn page(file: &[u8], size: usize, page_: &[u8], into: &mut Bucket) {
        let flags = number(page_, 8, 2);
        for index in 0..number(page_, 10, 2) {
            let element = &page_[16 + index * 16..];
            if flags == usize::from(BRANCH) {
                page(file, size, &file[number(element, 8, 8) * size..], into);
                continue;
            }
            assert_eq!(flags, usize::from(LEAF));
            let (at, key_size) = (number(element, 4, 4), number(element, 8, 4));
            let key = element[at..at + key_size].to_vec();
            let value = &element[at + key_size..at + key_size + number(element, 12, 4)];
            let item = if number(element, 0, 4) == 0 {
                Item::Value(value.to_vec())
            } else {
                let mut bucket = Bucket::new();
                let below = match number(value, 0, 8) {
                    0 => &value[16..],
                    root => &file[root * size..],
                };
                page(file, size, below, &mut bucket);
                Item::Bucket(bucket)
            };
            into.insert(key, item);
        }
    }

    /// A database with a page, or a run of them, for each bucket.
    pub fn write(root: &Bucket) -> Vec<u8> {
        let mut pages = vec![vec![0; PAGE]; 3];
        pages[2][8] = 0x10;
        let start = write_bucket(root, &mut pages);
        for (id, page) in pages.iter_mut().take(3).enumerate() {
            page[..8].copy_from_slice(&(id as u64).to_le_bytes());
        }
        let count = pages.len() as u64;
        for (tx, page) in pages.iter_mut().take(2).enumerate() {
            page[8] = 4;
            let mut meta = Vec::new();
            for part in [MAGIC, 2, 4096, 0] {
                meta.extend(part.to_le_bytes());
            }
            for part in [start, 0, 2, count, tx as u64] {
                meta.extend(part.to_le_bytes());
            }
            let sum = meta.iter().fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| {
                (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
            });
            meta.extend(sum.to_le_bytes());
            page[16..16 + meta.len()].copy_from_slice(&meta);
        }
        pages.concat()
    }

    fn write_bucket(bucket: &Bucket, pages: &mut Vec<Vec<u8>>) -> u64 {
        let items: Vec<(&Vec<u8>, u32, Vec<u8>)> = bucket
            .iter()
            .map(|(key, item)| match item {
                Item::Value(value) => (key, 0, value.clone()),
                Item::Bucket(below) => {
                    let mut value = write_bucket(below, pages).to_le_bytes().to_vec();
                    value.extend([0; 8]);
                    (key, 1, value)
                }
            })
            .collect();
        let (mut elements, mut data) = (Vec::new(), Vec::new());
        for (index, (key, flags, value)) in items.iter().enumerate() {
            let at = (items.len() - index) * 16 + data.len();
            for part in [*flags as usize, at, key.len(), value.len()] {
                elements.extend(u32::try_from(part).expect("small").to_le_bytes());
            }
            data.extend_from_slice(key);
            data.extend_from_slice(value);
        }
        let mut page = vec![0; 16];
        page[8..10].copy_from_slice(&LEAF.to_le_bytes());
        let count = u16::try_from(items.len()).expect("few");
        page[10..12].copy_from_slice(&count.to_le_bytes());
        page.extend(elements);
        page.extend(data);
        let id = pages.len() as u64;
        page[..8].copy_from_slice(&id.to_le_bytes());
        let more = u32::try_from((page.len() - 1) / PAGE).expect("small");
        page[12..16].copy_from_slice(&more.to_le_bytes());
        page.resize(page.len().next_multiple_of(PAGE), 0);
        pages.extend(page.chunks(PAGE).map(<[u8]>::to_vec));
        id
    }

    /// Buckets by name, and values.
    pub fn of<const N: usize>(items: [(&str, Item); N]) -> Item {
        let items = items.into_iter();
        Item::Bucket(
            items
                .map(|(key, item)| (key.as_bytes().to_vec(), item))
                .collect(),
        )
    }

    pub fn text(value: &str) -> Item {
        Item::Value(value.as_bytes().to_vec())
    }
}

#[apply(test)]
fn what_lies_below_a_mount_point_is_in_no_union() {
    needs::time();
    needs::captured_hosts();
    let store = captured("docker-overlay2");
    let layer = store.layers.iter().find(|of| of.kind == "container");
    let merged = format!("{}/merged", layer.expect("one").directory);
    let lost = format!("{merged}/var/lost");
    store.host.file(&lost, "x");
    for path in [format!("{merged}/var"), lost] {
        let row = store.host.jsonl(["whois", &path]).exits(0).row();
        assert_eq!(row["kind"], "beneath-mount", "{row}");
        assert_eq!(row["inside"], Value::Null, "{row}");
        assert_eq!(row["containers"].as_array().map(Vec::len), Some(1), "{row}");
        let said = store.host.ask(["whois", &path]).exits(0);
        assert!(
            said.text().contains("under the mount point"),
            "{}",
            said.text()
        );
        assert!(!said.text().contains("visible"), "{}", said.text());
    }
    // What is on no disk there may be in the union, or not.
    for (path, state) in [("/bin", Some("visible")), ("/no/such", None)] {
        let path = format!("{merged}{path}");
        let row = store.host.jsonl(["whois", &path]).exits(0).row();
        assert_eq!(row["kind"], "mount", "{row}");
        assert_eq!(row["inside"][0]["state"].as_str(), state, "{row}");
    }
}
