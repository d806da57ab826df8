//! Docker's own files, read without a daemon.
//!
//! ```text
//! 1.10 and newer                                   1.9 and older
//! containers/<cid>/config.v2.json                  containers/<cid>/config.json
//! image/<driver>/repositories.json                 repositories-<driver>
//! image/<driver>/imagedb/content/sha256/<image>    graph/<image>/{json,layersize}
//! image/<driver>/layerdb/sha256/<chain>/{cache-id,diff,parent,size}
//! image/<driver>/layerdb/mounts/<cid>/{mount-id,init-id,parent}
//! aufs/{diff,layers,mnt}/<cache id | mount id>     aufs/{diff,layers,mnt}/<image | cid>
//! ```
//!
//! Every id read from a file is checked before it becomes part of a path.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::branch::Permission;
use crate::bytes::Bytes;
use crate::engine::{Layer, MountState, Owner, OwnerKind, Role, Union, layer_branch};
use crate::error::{Error, Result};
use crate::host::Host;

/// No image has nearly as many layers; a longer chain of parents is a loop.
const CHAIN_MAX: usize = 1000;
const DEFAULT_ROOT: &str = "/var/lib/docker";
const NAME: &str = "docker";

/// One Docker data directory. Nothing is read from it until it is asked.
pub struct Docker<'h> {
    host: &'h Host,
    pub root: Bytes,
}

/// The two ways in which Docker has kept its files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    /// 1.10 and newer: layers have chain ids and cache ids.
    Content,
    /// 1.9 and older: an image is a layer.
    Graph,
}

/// A container, as its configuration file has it.
#[derive(Debug, Clone)]
pub struct Container {
    pub id: String,
    /// Without the leading slash.
    pub name: String,
    /// What the person called the image.
    pub image: String,
    /// Hexadecimal, without `sha256:`.
    pub image_id: String,
    pub command: String,
    /// RFC 3339.
    pub created: String,
    pub state: ContainerState,
    pub driver: String,
    pub ports: String,
    layout: Layout,
}

impl Container {
    pub fn is_aufs(&self) -> bool {
        self.driver == "aufs"
    }
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ContainerState {
    pub running: bool,
    pub paused: bool,
    pub restarting: bool,
    pub removal_in_progress: bool,
    pub dead: bool,
    pub exit_code: i64,
    pub started_at: Option<String>,
    pub finished_at: Option<String>,
}

impl ContainerState {
    /// Docker's word for it.
    pub fn word(&self) -> &'static str {
        if self.running {
            return match (self.paused, self.restarting) {
                (true, _) => "paused",
                (_, true) => "restarting",
                _ => "running",
            };
        }
        if self.removal_in_progress {
            "removing"
        } else if self.dead {
            "dead"
        } else if is_zero_time(self.started_at.as_deref()) {
            "created"
        } else {
            "exited"
        }
    }
}

/// Go writes a time that never was as the first second of year 1.
pub fn is_zero_time(time: Option<&str>) -> bool {
    time.is_none_or(|time| time.is_empty() || time.starts_with("0001-01-01"))
}

/// An image with its layers.
#[derive(Debug, Clone)]
pub struct Image {
    /// Hexadecimal, without `sha256:`.
    pub id: String,
    /// `name:tag`, sorted; none for a dangling image.
    pub tags: Vec<String>,
    /// RFC 3339.
    pub created: String,
    pub driver: String,
    /// Bytes: the sum of the layers'.
    pub size: u64,
    /// The image it was built from, where Docker noted one.
    pub parent: Option<String>,
    /// Newest first.
    pub history: Vec<HistoryEntry>,
    layout: Layout,
}

/// A step of an image's history, with the layer it made.
#[derive(Debug, Clone)]
pub struct HistoryEntry {
    /// RFC 3339.
    pub created: String,
    pub instruction: String,
    pub comment: String,
    /// The image that ended with this step, where Docker still has it.
    pub image: Option<String>,
    /// None: a step that made no layer.
    pub layer: Option<ImageLayer>,
}

/// A layer of an image.
#[derive(Debug, Clone)]
pub struct ImageLayer {
    pub diff_id: Option<String>,
    pub chain_id: Option<String>,
    /// The name of its directory; none where the layer database lacks it.
    pub cache_id: Option<String>,
    /// Bytes.
    pub size: Option<u64>,
}

impl<'h> Docker<'h> {
    /// Takes the data directory that the person named, that `daemon.json` names, or the default.
    pub fn find(host: &'h Host, named: Option<&Bytes>, problems: &mut Vec<Error>) -> Docker<'h> {
        let configured = || {
            #[derive(Deserialize)]
            struct Daemon {
                #[serde(rename = "data-root", alias = "graph")]
                data_root: Option<String>,
            }
            let path = Bytes::from("/etc/docker/daemon.json");
            match read_json::<Daemon>(host, &path) {
                Ok(daemon) => daemon.data_root.map(Bytes::from),
                Err(error) if error.is_not_found() => None,
                Err(error) => {
                    problems.push(error);
                    None
                }
            }
        };
        let root = named
            .cloned()
            .or_else(configured)
            .unwrap_or_else(|| Bytes::from(DEFAULT_ROOT));
        Docker { host, root }
    }

    /// Whether there is anything of Docker's here.
    pub fn exists(&self) -> bool {
        ["containers", "image", "graph", "aufs"]
            .iter()
            .any(|name| self.is_there(&[name]))
    }

    fn is_there(&self, parts: &[&str]) -> bool {
        self.host
            .stat(&self.at(parts))
            .is_ok_and(|stat| stat.is_some())
    }

    fn at(&self, parts: &[&str]) -> Bytes {
        parts
            .iter()
            .fold(self.root.clone(), |path, part| path.join(part.as_bytes()))
    }

    fn read_word(&self, parts: &[&str]) -> Result<String> {
        let path = self.at(parts);
        let bytes = self.host.read(&path)?;
        match std::str::from_utf8(&bytes) {
            Ok(text) => Ok(text.trim().to_owned()),
            Err(_) => Err(Error::damaged(path, "is not text")),
        }
    }

    /// The names in a directory that can be ids.
    fn ids(&self, parts: &[&str], problems: &mut Vec<Error>) -> Vec<String> {
        let names = self.host.list(&self.at(parts)).unwrap_or_else(|error| {
            problems.push(error);
            Vec::new()
        });
        names
            .into_iter()
            .filter_map(|(name, _)| String::from_utf8(name).ok())
            .filter(|name| is_id(name))
            .collect()
    }

    // ---- containers ----

    /// Every container, newest first, as `docker ps -a` lists them.
    pub fn containers(&self, problems: &mut Vec<Error>) -> Vec<Container> {
        let mut containers = Vec::new();
        for id in self.ids(&["containers"], problems) {
            match self.container(&id) {
                Ok(container) => containers.push(container),
                Err(error) => problems.push(error),
            }
        }
        containers.sort_by(|a, b| {
            instant(&b.created)
                .cmp(&instant(&a.created))
                .then(a.id.cmp(&b.id))
        });
        containers
    }

    fn container(&self, id: &str) -> Result<Container> {
        let new = self.at(&["containers", id, "config.v2.json"]);
        let old = self.at(&["containers", id, "config.json"]);
        let (path, layout) = match self.host.stat(&new)? {
            Some(_) => (new, Layout::Content),
            None if self.host.stat(&old)?.is_some() => (old, Layout::Graph),
            None => {
                return Err(Error::damaged(
                    self.at(&["containers", id]),
                    "has no config.v2.json",
                ));
            }
        };
        let config: ContainerConfig = read_json(self.host, &path)?;
        if config.id != id {
            return Err(Error::damaged(
                path,
                "is the configuration of another container",
            ));
        }
        let image_id = config.image.trim_start_matches("sha256:").to_owned();
        Ok(Container {
            id: config.id,
            name: config.name.trim_start_matches('/').to_owned(),
            image: config.config.image.unwrap_or_else(|| image_id.clone()),
            image_id,
            command: command_line(&config.path, config.args.unwrap_or_default()),
            created: config.created,
            state: config.state,
            driver: if config.driver.is_empty() {
                "aufs".into()
            } else {
                config.driver
            },
            ports: ports(config.network_settings.ports.unwrap_or_default()),
            layout,
        })
    }

    /// The directory name of a container's own layer.
    fn mount_id(&self, container: &Container) -> Result<String> {
        match container.layout {
            Layout::Graph => Ok(container.id.clone()),
            Layout::Content => {
                let parts = [
                    "image",
                    &container.driver,
                    "layerdb",
                    "mounts",
                    &container.id,
                    "mount-id",
                ];
                let id = self.read_word(&parts)?;
                if is_id(&id) {
                    Ok(id)
                } else {
                    Err(Error::damaged(self.at(&parts), "is not an id"))
                }
            }
        }
    }

    /// The union of a container, mounted or not.
    ///
    /// # Errors
    /// Metadata that is missing or damaged; a driver that has no layers of this kind.
    pub fn union_of(&self, container: &Container) -> Result<Union> {
        if !container.is_aufs() {
            return Err(Error::Refused {
                what: format!(
                    "{} uses the storage driver {}",
                    container.name, container.driver
                ),
                hint: "this version of layerctl reads Docker's aufs driver".into(),
            });
        }
        let mount_id = self.mount_id(container)?;
        let mut ids = vec![mount_id.clone()];
        match self.parents(&mount_id) {
            Ok(parents) => ids.extend(parents),
            // A half-removed container has lost its own list, but its init layer's is there.
            Err(error) if error.is_not_found() => {
                let init = format!("{mount_id}-init");
                ids.extend(
                    self.parents(&init)
                        .map(|parents| std::iter::once(init).chain(parents))
                        .map_err(|_| error)?,
                );
            }
            Err(error) => return Err(error),
        }
        let branches = ids
            .into_iter()
            .enumerate()
            .map(|(index, id)| {
                let permission = if index == 0 {
                    Permission::RW
                } else {
                    Permission::ro_wh()
                };
                let path = if index == 0 { self.own_diff_dir(&id) } else { self.diff_dir(&id) };
                layer_branch(
                    path,
                    permission,
                    Layer {
                        id: Some(id),
                        ..Layer::PLAIN
                    },
                )
            })
            .collect();
        let mut union = Union {
            si: None,
            mounts: Vec::new(),
            state: MountState::NotMounted,
            owner: None,
            branches,
        };
        self.label_container(&mut union, container);
        Ok(union)
    }

    fn diff_dir(&self, id: &str) -> Bytes {
        self.at(&["aufs", "diff", id])
    }

    /// A container's own directory, or what a removal that failed has made of it (FACTS 6.12).
    fn own_diff_dir(&self, id: &str) -> Bytes {
        let removing = format!("{id}-removing");
        match self.is_there(&["aufs", "diff", &removing]) && !self.is_there(&["aufs", "diff", id]) {
            true => self.diff_dir(&removing),
            false => self.diff_dir(id),
        }
    }

    /// The ids below a layer, nearest first.
    fn parents(&self, id: &str) -> Result<Vec<String>> {
        let path = self.at(&["aufs", "layers", id]);
        let bytes = self.host.read(&path)?;
        let text =
            std::str::from_utf8(&bytes).map_err(|_| Error::damaged(path.clone(), "is not text"))?;
        let mut seen = HashSet::from([id]);
        let mut ids = Vec::new();
        for line in text.lines().filter(|line| !line.is_empty()) {
            if !is_id(line) {
                return Err(Error::damaged(
                    path,
                    format!("holds {line:?}, which is not an id"),
                ));
            }
            if !seen.insert(line) {
                return Err(Error::damaged(
                    path,
                    format!("names {line} twice: a loop of parents"),
                ));
            }
            ids.push(line.to_owned());
        }
        Ok(ids)
    }

    /// Finds out whether a mounted union is a container's, by its topmost branch, and says what
    /// its branches are.
    pub fn recognise(&self, union: &mut Union, problems: &mut Vec<Error>) {
        self.move_branches(union);
        let Some(top) = union
            .branches
            .first()
            .and_then(|branch| self.layer_name(&branch.spec.path))
        else {
            return;
        };
        for branch in &mut union.branches {
            branch.layer.id = layer_of_diff(&branch.spec.path);
        }
        if let Some(container) = self.container_of_mount(&top, problems) {
            self.label_container(union, &container);
        }
    }

    /// Where the data directory has been moved, the kernel's paths are those of the old place.
    fn move_branches(&self, union: &mut Union) {
        for branch in &mut union.branches {
            let path = &branch.spec.path;
            if self.layer_name(path).is_some() {
                continue;
            }
            let Some(id) = layer_of_diff(path).filter(|id| is_id(id)) else {
                continue;
            };
            let moved = self.diff_dir(&id);
            let exists = |path: &Bytes| self.host.stat(path).is_ok_and(|stat| stat.is_some());
            if !exists(path) && exists(&moved) {
                branch.spec.path = moved;
            }
        }
    }

    /// The id of a layer's directory, where `path` is one of ours.
    fn layer_name(&self, path: &Bytes) -> Option<String> {
        let root = self.at(&["aufs", "diff"]);
        let inside = path.strip_prefix(&root).or_else(|| {
            let real = self.host.resolve(&root).ok()?;
            path.strip_prefix(&real)
        })?;
        let first = inside.components().next()?;
        String::from_utf8(first.to_vec())
            .ok()
            .filter(|id| is_id(id))
    }

    fn container_of_mount(&self, mount_id: &str, problems: &mut Vec<Error>) -> Option<Container> {
        if self.is_there(&["containers", mount_id]) {
            return self
                .container(mount_id)
                .map_err(|error| problems.push(error))
                .ok();
        }
        let mounts = ["image", "aufs", "layerdb", "mounts"];
        self.ids(&mounts, problems)
            .into_iter()
            .find(|id| {
                self.read_word(&["image", "aufs", "layerdb", "mounts", id, "mount-id"])
                    .is_ok_and(|of| of == mount_id)
            })
            .and_then(|id| {
                self.container(&id)
                    .map_err(|error| problems.push(error))
                    .ok()
            })
    }

    fn label_container(&self, union: &mut Union, container: &Container) {
        union.owner = Some(Owner {
            engine: NAME,
            kind: OwnerKind::Container,
            id: container.id.clone(),
            name: Some(container.name.clone()),
        });
        if let Some(top) = union.branches.first_mut() {
            top.layer.role = Role::Container;
        }
        let is_init = |branch: &crate::engine::LayeredBranch| {
            branch
                .layer
                .id
                .as_ref()
                .is_some_and(|id| id.ends_with("-init"))
        };
        if let Some(init) = union.branches.get_mut(1).filter(|branch| is_init(branch)) {
            init.layer.role = Role::Init;
        }
        self.label_image(
            union,
            container.layout,
            &container.driver,
            &container.image_id,
        );
    }

    /// Numbers the image's layers and gives each its instruction.
    fn label_image(&self, union: &mut Union, layout: Layout, driver: &str, image: &str) {
        let instructions = self.instructions(layout, driver, image);
        let image_branches: Vec<&mut Layer> = union
            .branches
            .iter_mut()
            .map(|branch| &mut branch.layer)
            .filter(|layer| layer.role == Role::Plain)
            .collect();
        let of = image_branches.len();
        for (index, layer) in image_branches.into_iter().enumerate() {
            layer.role = Role::Image {
                number: of - index,
                of,
            };
            layer.instruction = layer
                .id
                .as_ref()
                .and_then(|id| instructions.get(id).cloned());
        }
    }

    /// What made each layer of an image, by cache id. An image that is gone tells nothing.
    fn instructions(&self, layout: Layout, driver: &str, image: &str) -> HashMap<String, String> {
        let history = match layout {
            Layout::Content => self.content_image(driver, image).map(|image| image.history),
            Layout::Graph => self.graph_history(image),
        };
        history
            .unwrap_or_default()
            .into_iter()
            .filter_map(|entry| Some((entry.layer?.cache_id?, entry.instruction)))
            .filter(|(_, instruction)| !instruction.is_empty())
            .collect()
    }

    /// The storage driver in use: that of the containers, or the one whose layers are here.
    pub fn driver(&self, containers: &[Container], problems: &mut Vec<Error>) -> String {
        if let Some(container) = containers.first() {
            return container.driver.clone();
        }
        let drivers = self.ids(&["image"], problems);
        let used = drivers.into_iter().find(|driver| self.is_there(&[driver]));
        used.unwrap_or_else(|| "aufs".into())
    }

    // ---- images ----

    /// Every image, newest first, the intermediate ones too.
    pub fn images(&self, problems: &mut Vec<Error>) -> Vec<Image> {
        let mut images = Vec::new();
        for driver in self.ids(&["image"], problems) {
            let tags = self.tags(&["image", &driver, "repositories.json"], problems);
            for id in self.ids(
                &["image", &driver, "imagedb", "content", "sha256"],
                problems,
            ) {
                match self.content_image(&driver, &id) {
                    Ok(mut image) => {
                        image.tags = tags.get(&id).cloned().unwrap_or_default();
                        images.push(image);
                    }
                    Err(error) => problems.push(error),
                }
            }
        }
        let graph = self.ids(&["graph"], problems);
        if !graph.is_empty() {
            let mut tags = self.tags(&["repositories-aufs"], problems);
            for id in graph.into_iter().filter(|id| id != "_tmp") {
                match self.graph_image(&id) {
                    Ok(mut image) => {
                        image.tags = tags.remove(&id).unwrap_or_default();
                        images.push(image);
                    }
                    Err(error) => problems.push(error),
                }
            }
        }
        images.sort_by(|a, b| {
            instant(&b.created)
                .cmp(&instant(&a.created))
                .then(a.id.cmp(&b.id))
        });
        images
    }

    /// `image id -> name:tag...`, from a repositories file of either layout.
    fn tags(&self, parts: &[&str], problems: &mut Vec<Error>) -> HashMap<String, Vec<String>> {
        let repositories: Repositories = match read_json(self.host, &self.at(parts)) {
            Ok(repositories) => repositories,
            Err(error) if error.is_not_found() => return HashMap::new(),
            Err(error) => {
                problems.push(error);
                return HashMap::new();
            }
        };
        let mut tags: HashMap<String, Vec<String>> = HashMap::new();
        for (name, references) in repositories.repositories {
            for (reference, id) in references {
                // name:tag and name@digest in the newer layout, tag and digest in the older.
                if reference.contains('@') || reference.starts_with("sha256:") {
                    continue;
                }
                let tag = match reference.strip_prefix(&format!("{name}:")) {
                    Some(_) => reference,
                    None => format!("{name}:{reference}"),
                };
                tags.entry(id.trim_start_matches("sha256:").to_owned())
                    .or_default()
                    .push(tag);
            }
        }
        for list in tags.values_mut() {
            list.sort();
        }
        tags
    }

    fn content_image(&self, driver: &str, id: &str) -> Result<Image> {
        let path = self.at(&["image", driver, "imagedb", "content", "sha256", id]);
        if !is_id(id) {
            return Err(Error::damaged(path, "is not an image id"));
        }
        let config: ImageConfig = read_json(self.host, &path)?;
        if config
            .rootfs
            .diff_ids
            .as_ref()
            .is_some_and(|ids| ids.len() > CHAIN_MAX)
        {
            return Err(Error::damaged(
                path,
                "has more layers than an image can have",
            ));
        }
        let layers = self.image_layers(driver, &config.rootfs.diff_ids.unwrap_or_default());
        let size = layers.iter().filter_map(|layer| layer.size).sum();
        let mut parents = self.image_parents(driver, id).into_iter();
        let parent = parents.next();
        let mut next_image = Some(id.to_owned());
        let mut left = layers.into_iter();
        let mut history = Vec::new();
        for step in config.history.unwrap_or_default() {
            let layer = if step.empty_layer { None } else { left.next() };
            history.push(HistoryEntry {
                created: step.created.unwrap_or_default(),
                instruction: step.created_by.unwrap_or_default(),
                comment: step.comment.unwrap_or_default(),
                image: None,
                layer,
            });
        }
        // Layers that the history does not account for.
        history.extend(left.map(|layer| HistoryEntry {
            created: config.created.clone().unwrap_or_default(),
            instruction: String::new(),
            comment: String::new(),
            image: None,
            layer: Some(layer),
        }));
        history.reverse();
        // Docker still has the images that ended with earlier steps where it built them here.
        let mut parents = parent.iter().cloned().chain(parents);
        for entry in &mut history {
            entry.image = next_image.take();
            next_image = parents.next();
        }
        Ok(Image {
            id: id.to_owned(),
            tags: Vec::new(),
            created: config.created.unwrap_or_default(),
            driver: driver.to_owned(),
            size,
            parent,
            history,
            layout: Layout::Content,
        })
    }

    /// The images below an image that was built here, nearest first.
    fn image_parents(&self, driver: &str, id: &str) -> Vec<String> {
        let mut chain: Vec<String> = Vec::new();
        let mut at = id.to_owned();
        while chain.len() < CHAIN_MAX {
            let Ok(parent) = self.read_word(&[
                "image", driver, "imagedb", "metadata", "sha256", &at, "parent",
            ]) else {
                break;
            };
            let parent = parent.trim_start_matches("sha256:").to_owned();
            if !is_id(&parent) || parent == id || chain.contains(&parent) {
                break;
            }
            chain.push(parent.clone());
            at = parent;
        }
        chain
    }

    /// Layers, bottom first, from the diff ids of an image's configuration.
    fn image_layers(&self, driver: &str, diff_ids: &[String]) -> Vec<ImageLayer> {
        let mut chain: Option<String> = None;
        diff_ids
            .iter()
            .map(|diff_id| {
                let chain_id = match &chain {
                    None => diff_id.clone(),
                    Some(parent) => chain_id(parent, diff_id),
                };
                let hex = chain_id.trim_start_matches("sha256:");
                let word = |name| match is_id(hex) {
                    true => self
                        .read_word(&["image", driver, "layerdb", "sha256", hex, name])
                        .ok(),
                    false => None,
                };
                let layer = ImageLayer {
                    diff_id: Some(diff_id.clone()),
                    cache_id: word("cache-id").filter(|id| is_id(id)),
                    size: word("size").and_then(|size| size.parse().ok()),
                    chain_id: Some(chain_id.clone()),
                };
                chain = Some(chain_id);
                layer
            })
            .collect()
    }

    fn graph_json(&self, id: &str) -> Result<GraphImage> {
        let path = self.at(&["graph", id, "json"]);
        if !is_id(id) {
            return Err(Error::damaged(path, "is not an image id"));
        }
        read_json(self.host, &path)
    }

    fn graph_image(&self, id: &str) -> Result<Image> {
        let json = self.graph_json(id)?;
        let history = self.graph_history(id)?;
        Ok(Image {
            id: id.to_owned(),
            tags: Vec::new(),
            created: json.created.unwrap_or_default(),
            driver: "aufs".into(),
            size: history
                .iter()
                .filter_map(|entry| entry.layer.as_ref()?.size)
                .sum(),
            parent: json.parent.filter(|parent| !parent.is_empty()),
            history,
            layout: Layout::Graph,
        })
    }

    /// An image and its parents, newest first. Each is a layer of its own.
    fn graph_history(&self, id: &str) -> Result<Vec<HistoryEntry>> {
        let mut history = Vec::new();
        let mut seen = HashSet::new();
        let mut next = Some(id.to_owned());
        while let Some(id) = next.take() {
            if !seen.insert(id.clone()) || seen.len() > CHAIN_MAX {
                return Err(Error::damaged(
                    self.at(&["graph", &id, "json"]),
                    "is its own ancestor: a loop of parents",
                ));
            }
            let json = self.graph_json(&id)?;
            let size = self
                .read_word(&["graph", &id, "layersize"])
                .ok()
                .and_then(|size| size.parse().ok())
                .or(json.size);
            history.push(HistoryEntry {
                created: json.created.unwrap_or_default(),
                instruction: json
                    .container_config
                    .unwrap_or_default()
                    .cmd
                    .unwrap_or_default()
                    .join(" "),
                comment: json.comment.unwrap_or_default(),
                image: Some(id.clone()),
                layer: Some(ImageLayer {
                    diff_id: None,
                    chain_id: None,
                    cache_id: Some(id),
                    size,
                }),
            });
            next = json.parent.filter(|parent| !parent.is_empty());
        }
        Ok(history)
    }

    /// An image with its layers.
    ///
    /// # Errors
    /// Metadata that is missing or damaged.
    pub fn image(&self, driver: &str, id: &str) -> Result<Image> {
        if self.is_there(&["image", driver, "imagedb", "content", "sha256", id]) {
            self.content_image(driver, id)
        } else {
            self.graph_image(id)
        }
    }

    /// The union that an image's layers make, topmost first, as a container would see them.
    ///
    /// # Errors
    /// An image of another driver; a layer whose directory is not known.
    pub fn union_of_image(&self, image: &Image) -> Result<Union> {
        if image.driver != "aufs" {
            return Err(Error::Refused {
                what: format!(
                    "image {} belongs to the storage driver {}",
                    short(&image.id),
                    image.driver
                ),
                hint: "this version of layerctl reads Docker's aufs driver".into(),
            });
        }
        let mut branches = Vec::new();
        for layer in image
            .history
            .iter()
            .filter_map(|entry| entry.layer.as_ref())
        {
            let id = layer.cache_id.clone().ok_or_else(|| {
                Error::damaged(
                    self.at(&["image", &image.driver, "layerdb"]),
                    format!(
                        "does not know the layer {}",
                        layer.chain_id.as_deref().unwrap_or("of the image")
                    ),
                )
            })?;
            branches.push(layer_branch(
                self.diff_dir(&id),
                Permission::ro_wh(),
                Layer {
                    id: Some(id),
                    ..Layer::PLAIN
                },
            ));
        }
        let mut union = Union {
            si: None,
            mounts: Vec::new(),
            state: MountState::NotMounted,
            owner: Some(Owner {
                engine: NAME,
                kind: OwnerKind::Image,
                id: image.id.clone(),
                name: image.tags.first().cloned(),
            }),
            branches,
        };
        self.label_image(&mut union, image.layout, &image.driver, &image.id);
        Ok(union)
    }

    // ---- layers ----

    /// The names of all layer directories: Docker's own count of them is `Dirs` in `docker info`.
    pub fn layer_ids(&self, problems: &mut Vec<Error>) -> Vec<String> {
        self.ids(&["aufs", "layers"], problems)
    }

    /// `cache id -> (chain id, diff id)` of every layer in the database.
    pub fn layer_database(&self, problems: &mut Vec<Error>) -> BTreeMap<String, (String, String)> {
        let parts = ["image", "aufs", "layerdb", "sha256"];
        self.ids(&parts, problems)
            .into_iter()
            .filter_map(|hex| {
                let word = |name| {
                    self.read_word(&["image", "aufs", "layerdb", "sha256", &hex, name])
                        .ok()
                };
                Some((
                    word("cache-id").filter(|id| is_id(id))?,
                    (hex.clone(), word("diff").unwrap_or_default()),
                ))
            })
            .collect()
    }

    /// The layer directory that a path of the host is, or lies in.
    pub fn layer_at(&self, path: &Bytes) -> Option<(String, Bytes)> {
        let id = self.layer_name(path)?;
        let depth = self.diff_dir(&id).components().count();
        Some((id, Bytes::absolute(path.components().skip(depth))))
    }

    /// The container whose mount directory `aufs/mnt/<id>` a path is, or lies in.
    pub fn mount_dir_at(
        &self,
        path: &Bytes,
        problems: &mut Vec<Error>,
    ) -> Option<(Container, Bytes)> {
        let inside = path.strip_prefix(&self.at(&["aufs", "mnt"]))?;
        let mut parts = inside.components();
        let id = String::from_utf8(parts.next()?.to_vec())
            .ok()
            .filter(|id| is_id(id))?;
        Some((
            self.container_of_mount(&id, problems)?,
            Bytes::absolute(parts),
        ))
    }

    /// A layer and those below it.
    ///
    /// # Errors
    /// Metadata that is missing or damaged.
    pub fn union_of_layer(&self, id: &str, problems: &mut Vec<Error>) -> Result<Union> {
        let container = self.container_of_mount(id.trim_end_matches("-init"), problems);
        let ids = std::iter::once(id.to_owned()).chain(self.parents(id)?);
        let branches: Vec<_> = ids
            .map(|id| {
                let is_container = container.is_some()
                    && !id.ends_with("-init")
                    && self.is_top(&id, container.as_ref());
                let permission = if is_container {
                    Permission::RW
                } else {
                    Permission::ro_wh()
                };
                layer_branch(
                    self.diff_dir(&id),
                    permission,
                    Layer {
                        id: Some(id),
                        ..Layer::PLAIN
                    },
                )
            })
            .collect();
        let mut union = Union {
            si: None,
            mounts: Vec::new(),
            state: MountState::NotMounted,
            owner: None,
            branches,
        };
        match container {
            Some(container) if id.ends_with("-init") => {
                if let Some(init) = union.branches.first_mut() {
                    init.layer.role = Role::Init;
                }
                self.label_image(
                    &mut union,
                    container.layout,
                    &container.driver,
                    &container.image_id,
                );
            }
            Some(container) => self.label_container(&mut union, &container),
            None => {
                // Number the layers within the smallest image that has this one.
                let image = self
                    .images(problems)
                    .into_iter()
                    .filter(|image| {
                        let ids = image
                            .history
                            .iter()
                            .filter_map(|entry| entry.layer.as_ref()?.cache_id.as_deref());
                        ids.into_iter().any(|of| of == id)
                    })
                    .min_by_key(|image| image.history.len());
                if let Some(image) = image {
                    self.label_image(&mut union, image.layout, &image.driver, &image.id);
                }
            }
        }
        if union.owner.is_none() {
            union.owner = Some(Owner {
                engine: NAME,
                kind: OwnerKind::Layer,
                id: id.to_owned(),
                name: None,
            });
        }
        Ok(union)
    }

    fn is_top(&self, id: &str, container: Option<&Container>) -> bool {
        container.is_some_and(|container| self.mount_id(container).is_ok_and(|of| of == id))
    }
}

/// A time as Docker writes it; what is no time sorts before all others.
fn instant(text: &str) -> Option<jiff::Timestamp> {
    text.parse().ok()
}

/// The layer id in a path `.../aufs/diff/<id>`.
fn layer_of_diff(path: &Bytes) -> Option<String> {
    let parts: Vec<&[u8]> = path.components().collect();
    match parts.as_slice() {
        [.., b"aufs", b"diff", id] => String::from_utf8(id.to_vec()).ok(),
        _ => None,
    }
}

/// Docker's twelve digits.
pub fn short(id: &str) -> &str {
    let hex = id.strip_prefix("sha256:").unwrap_or(id);
    hex.get(..12).unwrap_or(hex)
}

/// Whether a text may become a path component: letters, digits, `-`, `_`, `.`, not led by a dot.
pub fn is_id(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 128
        && !text.starts_with('.')
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

/// The chain id of a layer on top of another: the digest of both names.
fn chain_id(parent: &str, diff_id: &str) -> String {
    let digest = Sha256::digest(format!("{parent} {diff_id}"));
    let mut text = String::from("sha256:");
    for byte in digest {
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

/// As `docker ps` shows it: arguments with blanks in single quotes.
fn command_line(path: &str, args: Vec<String>) -> String {
    let quoted = args.into_iter().map(|arg| {
        if arg.contains(' ') {
            format!("'{arg}'")
        } else {
            arg
        }
    });
    std::iter::once(path.to_owned())
        .chain(quoted)
        .collect::<Vec<_>>()
        .join(" ")
}

/// As `docker ps` shows them: `0.0.0.0:32768->5000/tcp`.
fn ports(ports: BTreeMap<String, Option<Vec<PortBinding>>>) -> String {
    let mut shown = Vec::new();
    for (port, bindings) in ports {
        let bindings = bindings.unwrap_or_default();
        if bindings.is_empty() {
            shown.push(port);
        } else {
            shown.extend(
                bindings
                    .iter()
                    .map(|to| format!("{}:{}->{port}", to.host_ip, to.host_port)),
            );
        }
    }
    shown.join(", ")
}

fn read_json<T: for<'de> Deserialize<'de>>(host: &Host, path: &Bytes) -> Result<T> {
    let bytes = host.read(path)?;
    serde_json::from_slice(&bytes).map_err(|error| {
        Error::damaged(path.clone(), format!("is not what Docker writes: {error}"))
    })
}

#[derive(Deserialize)]
struct ContainerConfig {
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "Name", default)]
    name: String,
    #[serde(rename = "Created", default)]
    created: String,
    #[serde(rename = "Path", default)]
    path: String,
    #[serde(rename = "Args", default)]
    args: Option<Vec<String>>,
    #[serde(rename = "Image", default)]
    image: String,
    #[serde(rename = "Driver", default)]
    driver: String,
    #[serde(rename = "State", default)]
    state: ContainerState,
    #[serde(rename = "Config", default)]
    config: ContainerInner,
    #[serde(rename = "NetworkSettings", default)]
    network_settings: NetworkSettings,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct ContainerInner {
    image: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct NetworkSettings {
    ports: Option<BTreeMap<String, Option<Vec<PortBinding>>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct PortBinding {
    #[serde(default)]
    host_ip: String,
    #[serde(default)]
    host_port: String,
}

#[derive(Deserialize)]
struct Repositories {
    #[serde(rename = "Repositories", default)]
    repositories: BTreeMap<String, BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct ImageConfig {
    created: Option<String>,
    history: Option<Vec<HistoryStep>>,
    #[serde(default)]
    rootfs: RootFs,
}

#[derive(Deserialize, Default)]
struct RootFs {
    diff_ids: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct HistoryStep {
    created: Option<String>,
    created_by: Option<String>,
    comment: Option<String>,
    #[serde(default)]
    empty_layer: bool,
}

#[derive(Deserialize)]
struct GraphImage {
    parent: Option<String>,
    created: Option<String>,
    comment: Option<String>,
    container_config: Option<GraphConfig>,
    #[serde(rename = "Size")]
    size: Option<u64>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct GraphConfig {
    #[serde(rename = "Cmd")]
    cmd: Option<Vec<String>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_never_leave_their_directory() {
        for bad in [
            "", ".", "..", "../x", "a/b", ".hidden", "a\nb", "a b", "\u{fc}",
        ] {
            assert!(!is_id(bad), "{bad:?}");
        }
        assert!(is_id(
            "2ee58d81e4ac6811bbc78beb4b46bf213c79c9e2dc7e441741afc8c4349c6bab-init"
        ));
    }

    #[test]
    fn chain_ids_are_dockers() {
        // FACTS-engines 10; the values are from the captured host's layer database.
        assert_eq!(
            chain_id("sha256:a", "sha256:b"),
            format!(
                "sha256:{}",
                hex(Sha256::digest("sha256:a sha256:b").as_slice())
            )
        );
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn command_lines_are_quoted_as_docker_quotes_them() {
        assert_eq!(
            command_line("/bin/sh", vec!["-c".into(), "sleep 1".into()]),
            "/bin/sh -c 'sleep 1'"
        );
    }
}
