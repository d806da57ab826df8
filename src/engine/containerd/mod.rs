//! containerd, read without asking it: `ctr`, nerdctl and Kubernetes keep their containers there,
//! and Docker from 29 on.
//!
//! ```text
//! <root>/io.containerd.metadata.v1.bolt/meta.db            containers, images, snapshots: database
//! <root>/io.containerd.snapshotter.v1.<snapshotter>/metadata.db
//!                               .../snapshots/<number>/fs       overlayfs: what differs
//!                               .../snapshots/<number>          native: everything
//! <root>/io.containerd.content.v1.content/                 manifests, configurations: content
//! <root>/io.containerd.grpc.v1.cri/containers/<id>/status  the state of Kubernetes' containers
//! <state>/io.containerd.runtime.v2.task/<namespace>/<id>/{init.pid,rootfs}
//! ```

mod content;
mod database;
mod usage;

use std::cell::{OnceCell, RefCell};
use std::collections::{BTreeMap, HashMap, HashSet};

use serde::Deserialize;

use crate::branch::Permission;
use crate::bytes::Bytes;
use crate::engine::inventory::{
    Container, ContainerState, Image, ImageLayer, LayerName, Names, Pod, command_line, is_id,
    null_default, repository, sort_newest_first,
};
use crate::engine::namespace;
use crate::engine::oci::{self, CHAIN_MAX};
use crate::engine::usage::{LayerUse, Leftover, Space};
use crate::engine::{
    Engine, LayeredBranch, Owner, OwnerKind, Role, Roots, Store, Union, UnionKind, layer_branch,
};
use crate::error::{Error, Result};
use crate::host::Host;
use crate::overlay::{self, Rules};
use content::Content;
use database::{ContainerRecord, ImageRecord, Namespace, Snapshot};

const NAME: &str = "containerd";
const SNAPSHOTTER: &str = "io.containerd.snapshotter.v1.";
const TASKS: &[u8] = b"io.containerd.runtime.v2.task";
const CONFIGURATION: &str = "/etc/containerd/config.toml";
/// Where it is: the root, and the state that does not outlive the machine's running.
const PLACES: [(&str, &str); 2] = [
    ("/var/lib/containerd", "/run/containerd"),
    (
        "/var/lib/rancher/k3s/agent/containerd",
        "/run/k3s/containerd",
    ),
];
/// The namespace in which Docker keeps its own.
pub const DOCKERS_NAMESPACE: &str = "moby";

/// One containerd.
pub struct Containerd<'h> {
    host: &'h Host,
    root: Bytes,
    state: Bytes,
    /// The one namespace that is asked for.
    namespace: Option<String>,
    marks: overlay::Namespace,
    problems: RefCell<Vec<Error>>,
    meta: OnceCell<BTreeMap<String, Namespace>>,
    snapshotters: RefCell<HashMap<String, std::rc::Rc<HashMap<String, Snapshot>>>>,
    /// What was read of images, by digest: many names stand for one.
    contents: RefCell<HashMap<String, std::rc::Rc<Content>>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Spec {
    #[serde(deserialize_with = "null_default")]
    process: Process,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Process {
    #[serde(deserialize_with = "null_default")]
    args: Vec<String>,
}

/// What the CRI plugin noted of a container or a pod's sandbox.
#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct Cri {
    metadata: CriMetadata,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct CriMetadata {
    #[serde(rename = "SandboxID")]
    sandbox: Option<String>,
    #[serde(rename = "Config", deserialize_with = "null_default")]
    config: CriConfig,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct CriConfig {
    #[serde(deserialize_with = "null_default")]
    metadata: CriName,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct CriName {
    name: Option<String>,
    namespace: Option<String>,
}

/// The state of a container of the CRI plugin: times in nanoseconds.
#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct CriStatus {
    started_at: i64,
    finished_at: i64,
    exit_code: i64,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Configuration {
    root: Option<String>,
    state: Option<String>,
}

impl<'h> Containerd<'h> {
    /// Every containerd that there is anything of.
    pub fn find(host: &'h Host, roots: &Roots) -> Vec<Containerd<'h>> {
        let make = |root: Bytes, state: Bytes| {
            let containerd = Containerd::at(host, root, state);
            Containerd {
                namespace: roots.namespace.clone(),
                ..containerd
            }
        };
        if let Some(root) = &roots.containerd {
            // The configuration tells its state directory, if it is the one that is configured.
            let configured = host.read(&Bytes::from(CONFIGURATION)).ok();
            let configured = configured.and_then(|bytes| parse_configuration(&bytes).ok());
            let state = configured
                .filter(|of| of.root.as_deref().map(Bytes::from).as_ref() == Some(root))
                .and_then(|of| of.state);
            let state = roots.containerd_state.clone().or(state.map(Bytes::from));
            let containerd = make(
                root.clone(),
                state.unwrap_or_else(|| Bytes::from(PLACES[0].1)),
            );
            if !containerd.is_there() {
                let what =
                    "is no root of containerd: it has no io.containerd.metadata.v1.bolt/meta.db";
                containerd.note(Error::damaged(root.clone(), what));
            }
            return vec![containerd];
        }
        let mut problem = None;
        let configured = match host.read(&Bytes::from(CONFIGURATION)) {
            Ok(bytes) => parse_configuration(&bytes).unwrap_or_else(|what| {
                problem = Some(Error::damaged(CONFIGURATION, what));
                Configuration::default()
            }),
            Err(_) => Configuration::default(),
        };
        let mut found: Vec<Containerd<'h>> = Vec::new();
        for (index, (root, state)) in PLACES.into_iter().enumerate() {
            let own = index == 0;
            let or = |configured: &Option<String>, default: &str| {
                let configured = configured
                    .as_deref()
                    .filter(|path| own && path.starts_with('/'));
                Bytes::from(configured.unwrap_or(default))
            };
            let containerd = make(or(&configured.root, root), or(&configured.state, state));
            if containerd.is_there() {
                found.push(containerd);
            }
        }
        if let (Some(first), Some(problem)) = (found.first(), problem) {
            first.note(problem);
        }
        found
    }

    /// The one with a certain root.
    pub fn at(host: &'h Host, root: Bytes, state: Bytes) -> Containerd<'h> {
        let owner = host.stat(&root).ok().flatten();
        Containerd {
            host,
            state,
            namespace: None,
            marks: if owner.is_some_and(|stat| stat.uid != 0) {
                overlay::Namespace::User
            } else {
                overlay::Namespace::Trusted
            },
            root,
            problems: RefCell::default(),
            meta: OnceCell::new(),
            snapshotters: RefCell::default(),
            contents: RefCell::default(),
        }
    }

    fn database(&self) -> Bytes {
        self.root
            .join(b"io.containerd.metadata.v1.bolt")
            .join(b"meta.db")
    }

    /// Whether there is anything of it.
    pub fn is_there(&self) -> bool {
        match self.host.stat(&self.database()) {
            Ok(stat) => stat.is_some(),
            Err(error) => {
                self.note(error);
                true
            }
        }
    }

    /// Keeps what could not be read: an unreadable part is not an empty part.
    fn note(&self, error: Error) {
        self.problems.borrow_mut().push(error);
    }

    fn meta(&self) -> &BTreeMap<String, Namespace> {
        self.meta.get_or_init(|| {
            let path = self.database();
            let read = self.host.read_database(&path).and_then(|bytes| {
                database::read_meta(&bytes)
                    .map_err(|damage| Error::damaged(path.clone(), damage.to_string()))
            });
            read.unwrap_or_else(|error| {
                self.note(error);
                BTreeMap::new()
            })
        })
    }

    /// The namespaces that are asked for.
    fn namespaces(&self) -> impl Iterator<Item = (&String, &Namespace)> {
        let is_asked_for = |name: &str| match &self.namespace {
            Some(only) => only == name,
            None => true,
        };
        self.meta()
            .iter()
            .filter(move |(name, _)| is_asked_for(name))
    }

    fn directory(&self, snapshotter: &str) -> Bytes {
        self.root
            .join(format!("{SNAPSHOTTER}{snapshotter}").as_bytes())
    }

    /// What a snapshotter has, by its own names.
    fn snapshots(&self, snapshotter: &str) -> std::rc::Rc<HashMap<String, Snapshot>> {
        if let Some(known) = self.snapshotters.borrow().get(snapshotter) {
            return std::rc::Rc::clone(known);
        }
        let path = self.directory(snapshotter).join(b"metadata.db");
        let read = self.host.read_database(&path).and_then(|bytes| {
            database::read_snapshots(&bytes)
                .map_err(|damage| Error::damaged(path.clone(), damage.to_string()))
        });
        let read = std::rc::Rc::new(read.unwrap_or_else(|error| {
            self.note(error);
            HashMap::new()
        }));
        let mut snapshotters = self.snapshotters.borrow_mut();
        snapshotters.insert(snapshotter.to_owned(), std::rc::Rc::clone(&read));
        read
    }

    /// The snapshotters of which there is a directory.
    fn snapshotters(&self) -> Vec<String> {
        let names = self.host.list(&self.root).unwrap_or_default().into_iter();
        names
            .filter_map(|(name, _)| String::from_utf8(name).ok())
            .filter_map(|name| name.strip_prefix(SNAPSHOTTER).map(str::to_owned))
            .filter(|name| {
                let database = self.directory(name).join(b"metadata.db");
                self.host.stat(&database).is_ok_and(|stat| stat.is_some())
            })
            .collect()
    }

    /// Refuses what has no directories, or has them in a way that is not read.
    fn refuse(&self, snapshotter: &str) -> Result<()> {
        if is_read(snapshotter) {
            Ok(())
        } else {
            Err(Error::Refused {
                what: format!("the snapshotter {snapshotter} keeps what layerctl does not read"),
                hint: "layerctl reads the snapshotters overlayfs, fuse-overlayfs and native".into(),
            })
        }
    }

    fn content_dir(&self, snapshotter: &str, number: u64) -> Bytes {
        let directory = self.directory(snapshotter).join(b"snapshots");
        let directory = directory.join(number.to_string().as_bytes());
        if is_copying(snapshotter) {
            directory
        } else {
            directory.join(b"fs")
        }
    }

    /// A snapshot and those below it, nearest first, each with its name in the snapshotter's
    /// database.
    fn chain(&self, snapshotter: &str, name: &str) -> Result<Vec<(String, Snapshot)>> {
        let all = self.snapshots(snapshotter);
        let path = || self.directory(snapshotter).join(b"metadata.db");
        let mut snapshots: Vec<(String, Snapshot)> = Vec::new();
        let mut seen = HashSet::new();
        let mut next = Some(name.to_owned());
        while let Some(name) = next.take() {
            let Some(snapshot) = all.get(&name) else {
                return Err(Error::damaged(
                    path(),
                    format!("does not have the snapshot {name}"),
                ));
            };
            if !seen.insert(snapshot.id) || snapshots.len() > CHAIN_MAX {
                let what = format!("snapshot {name} is its own ancestor");
                return Err(Error::damaged(path(), what));
            }
            next.clone_from(&snapshot.parent);
            snapshots.push((name, snapshot.clone()));
        }
        Ok(snapshots)
    }

    /// The union that has a snapshot on top, which its namespace knows by `key`.
    ///
    /// # Errors
    /// A snapshotter that is not read; a snapshot that is missing.
    pub fn union_of_key(
        &self,
        namespace: &str,
        snapshotter: &str,
        key: &str,
        top: Permission,
    ) -> Result<Union> {
        self.refuse(snapshotter)?;
        let place = (snapshotter.to_owned(), key.to_owned());
        let snapshot = self
            .meta()
            .get(namespace)
            .and_then(|of| of.snapshots.get(&place));
        let name = snapshot
            .map(|snapshot| snapshot.name.as_str())
            .ok_or_else(|| {
                let what =
                    format!("does not have the snapshot {key} of {snapshotter} in {namespace}");
                Error::damaged(self.database(), what)
            })?;
        self.union_of_name(snapshotter, name, top)
    }

    fn union_of_name(&self, snapshotter: &str, name: &str, top: Permission) -> Result<Union> {
        self.refuse(snapshotter)?;
        let chain = self.chain(snapshotter, name)?;
        let mut branches: Vec<LayeredBranch> = Vec::new();
        for (index, (name, snapshot)) in chain.iter().enumerate() {
            let permission = if index == 0 {
                top.clone()
            } else {
                Permission::RO
            };
            let directory = self.content_dir(snapshotter, snapshot.id);
            let mut branch = layer_branch(directory, permission, snapshot.id.to_string());
            if name.ends_with("-init") {
                branch.layer.role = Role::Init;
            }
            branches.push(branch);
        }
        let union = |kind, branches| Union {
            kind,
            driver: Some(snapshotter.to_owned()),
            ..Union::unmounted(branches)
        };
        if !is_copying(snapshotter) {
            return Ok(union(self.kind(snapshotter), branches));
        }
        let mut branches = branches.into_iter();
        let mut own = union(UnionKind::Copy, branches.next().into_iter().collect());
        let base = branches
            .next()
            .map(|base| union(UnionKind::Copy, vec![base]));
        own.base = base.map(Box::new);
        Ok(own)
    }

    fn kind(&self, snapshotter: &str) -> UnionKind {
        match snapshotter {
            "fuse-overlayfs" => UnionKind::FuseOverlay(self.marks),
            _ => UnionKind::Overlay {
                rules: Rules::of(self.marks),
                data: 0,
            },
        }
    }

    /// Gives the layers of a union the instructions of the image that is made of them: known by
    /// the names of snapshots, which are chain ids.
    pub fn label_layers(
        &self,
        union: &mut Union,
        namespace: &str,
        snapshotter: &str,
        digest: &str,
    ) {
        let steps = match self.image_of_digest(namespace, snapshotter, digest) {
            Ok(image) => image.steps(),
            Err(error) if error.is_not_found() => Vec::new(),
            Err(error) => {
                self.note(error);
                Vec::new()
            }
        };
        union.label_image(&steps, !is_copying(snapshotter));
    }

    /// Whether nothing but Docker's own is there, which is Docker's to tell of.
    fn is_dockers_alone(&self) -> bool {
        let mut names = self.meta().keys();
        names.next().is_some_and(|name| name == DOCKERS_NAMESPACE) && names.next().is_none()
    }

    /// Whether a namespace has a snapshot of this name.
    pub fn has_snapshot(&self, namespace: &str, snapshotter: &str, key: &str) -> bool {
        let place = (snapshotter.to_owned(), key.to_owned());
        let of = self.meta().get(namespace);
        of.is_some_and(|of| of.snapshots.contains_key(&place))
    }

    /// Whether a namespace has an image of this digest.
    pub fn has_image(&self, namespace: &str, digest: &str) -> bool {
        let of = self.meta().get(namespace);
        of.is_some_and(|of| of.images.iter().any(|image| image.digest == digest))
    }

    /// The number of a snapshot's directory.
    pub fn number_of(&self, namespace: &str, snapshotter: &str, key: &str) -> Option<String> {
        let snapshots = self.snapshots_of(namespace, snapshotter);
        snapshots.get(key).map(|snapshot| snapshot.id.to_string())
    }

    /// What a namespace calls the snapshot whose directory has this number.
    pub fn key_of(&self, namespace: &str, snapshotter: &str, number: &str) -> Option<String> {
        let snapshots = self.snapshots_of(namespace, snapshotter).into_iter();
        let mut named = snapshots.filter(|(_, snapshot)| snapshot.id.to_string() == number);
        named.next().map(|(key, _)| key)
    }

    /// Gives the branches of a mounted union the numbers of their snapshots.
    pub fn name_layers(&self, union: &mut Union) {
        for branch in &mut union.branches {
            if let Some((_, number, inside)) = self.snapshot_inside(&branch.spec.path)
                && inside == Bytes::from("/")
            {
                branch.layer.id = Some(number);
            }
        }
    }

    /// A namespace's images, one for each digest.
    pub fn images_in(&self, name: &str) -> Vec<Image> {
        let Some(namespace) = self.meta().get(name) else {
            return Vec::new();
        };
        let snapshotter = self.snapshotter_of(namespace);
        let mut seen = HashSet::new();
        let mut images = Vec::new();
        for record in namespace
            .images
            .iter()
            .filter(|record| seen.insert(&record.digest))
        {
            match self.image_of_digest(name, &snapshotter, &record.digest) {
                Ok(image) => images.push(image),
                Err(error) => self.note(error),
            }
        }
        images
    }

    fn content_of(&self, digest: &str, size: u64) -> Result<std::rc::Rc<Content>> {
        if let Some(known) = self.contents.borrow().get(digest) {
            return Ok(std::rc::Rc::clone(known));
        }
        let content = std::rc::Rc::new(self.content(digest, size)?);
        let mut contents = self.contents.borrow_mut();
        contents.insert(digest.to_owned(), std::rc::Rc::clone(&content));
        Ok(content)
    }

    /// The image that a digest stands for, with the snapshots that its layers are in.
    ///
    /// # Errors
    /// Content that is missing or damaged.
    pub fn image_of_digest(
        &self,
        namespace: &str,
        snapshotter: &str,
        digest: &str,
    ) -> Result<Image> {
        let records = self
            .meta()
            .get(namespace)
            .map(|of| &of.images[..])
            .unwrap_or_default();
        let named: Vec<&ImageRecord> = records
            .iter()
            .filter(|image| image.digest == digest)
            .collect();
        let size = named.first().map_or(0, |image| image.size);
        let content = self.content_of(digest, size)?;
        let diff_ids = content.config.diff_ids();
        let diff_ids = diff_ids.map_err(|what| Error::damaged(self.root.clone(), what))?;
        let snapshots = self.snapshots_of(namespace, snapshotter);
        let layers = oci::chain_ids(diff_ids).into_iter().zip(diff_ids);
        let layers = layers.map(|(chain_id, diff_id)| {
            let snapshot = snapshots.get(&chain_id);
            ImageLayer {
                diff_id: Some(diff_id.clone()),
                cache_id: snapshot.map(|snapshot| snapshot.id.to_string()),
                size: snapshot.and_then(|snapshot| snapshot.size),
                chain_id: Some(chain_id),
            }
        });
        let history = content.config.history(layers.collect());
        // A name may be the image's own digest.
        let names = named.iter().map(|image| image.name.clone());
        let (digests, tags): (Vec<String>, Vec<String>) =
            names.partition(|name| name.contains('@') || name.starts_with("sha256:"));
        let by_digest = tags
            .iter()
            .map(|tag| format!("{}@{digest}", repository(tag)));
        let mut names = Names {
            digests: digests.into_iter().chain(by_digest).collect(),
            tags: tags.clone(),
        };
        names.tags.sort();
        names.digests.sort();
        names.digests.dedup();
        let created = named.first().map(|image| image.created.clone());
        Ok(Image {
            id: digest.trim_start_matches("sha256:").to_owned(),
            names,
            created: content
                .config
                .created
                .clone()
                .or(created)
                .unwrap_or_default(),
            driver: snapshotter.to_owned(),
            size: content.size,
            parent: None,
            history,
            namespace: Some(namespace.to_owned()),
        })
    }

    /// `key -> snapshot` in one namespace.
    fn snapshots_of(&self, namespace: &str, snapshotter: &str) -> HashMap<String, Snapshot> {
        let Some(of) = self.meta().get(namespace) else {
            return HashMap::new();
        };
        let own = of.snapshots.iter().filter(|((of, _), _)| of == snapshotter);
        let own: Vec<_> = own.collect();
        if own.is_empty() {
            return HashMap::new();
        }
        let all = self.snapshots(snapshotter);
        own.into_iter()
            .filter_map(|((_, key), snapshot)| {
                Some((key.clone(), all.get(&snapshot.name)?.clone()))
            })
            .collect()
    }

    /// The snapshotter that a namespace's images are unpacked with: the one most of its snapshots
    /// belong to.
    fn snapshotter_of(&self, namespace: &Namespace) -> String {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for (snapshotter, _) in namespace.snapshots.keys() {
            *counts.entry(snapshotter).or_default() += 1;
        }
        let most = counts.into_iter().max_by_key(|(_, count)| *count);
        most.map_or("overlayfs", |(snapshotter, _)| snapshotter)
            .to_owned()
    }

    /// The containers that are containerd's own: Docker's have their snapshots elsewhere.
    fn own(&self) -> impl Iterator<Item = (&String, &ContainerRecord)> {
        self.namespaces().flat_map(|(name, namespace)| {
            let containers = namespace.containers.iter();
            containers
                .filter(|container| !container.snapshot_key.is_empty())
                .map(move |container| (name, container))
        })
    }

    fn record(&self, id: &str) -> Option<(&String, &ContainerRecord)> {
        self.own().find(|(_, container)| container.id == id)
    }

    fn container(&self, namespace: &str, record: &ContainerRecord) -> Container {
        let spec: Spec = serde_json::from_slice(&record.spec).unwrap_or_default();
        let mut args = spec.process.args;
        let command = if args.is_empty() {
            String::new()
        } else {
            let rest = args.split_off(1);
            command_line(&args[0], rest)
        };
        let pod = self.pod(namespace, record);
        let name = record.labels.get("nerdctl/name").cloned();
        let of_pod = pod.as_ref().map(|pod| match &pod.container {
            Some(container) => format!("{}/{container}", pod.name),
            None => pod.name.clone(),
        });
        let image = self.image_record(namespace, &record.image);
        Container {
            name: name.or(of_pod).unwrap_or_else(|| record.id.clone()),
            image: record.image.clone(),
            image_id: image
                .map(|image| image.digest.trim_start_matches("sha256:").to_owned())
                .unwrap_or_default(),
            command,
            created: record.created.clone(),
            state: self.state_of(namespace, record),
            driver: record.snapshotter.clone(),
            ports: String::new(),
            namespace: Some(namespace.to_owned()),
            pod,
            id: record.id.clone(),
        }
    }

    fn image_record(&self, namespace: &str, name: &str) -> Option<&ImageRecord> {
        let images = &self.meta().get(namespace)?.images;
        images.iter().find(|image| image.name == name)
    }

    /// What Kubernetes calls it: its labels, or what the CRI plugin noted.
    fn pod(&self, namespace: &str, record: &ContainerRecord) -> Option<Pod> {
        let kind = record.labels.get("io.cri-containerd.kind")?;
        let label = |name: &str| record.labels.get(&format!("io.kubernetes.{name}")).cloned();
        let noted = |record: &ContainerRecord| {
            let cri: Option<Cri> = serde_json::from_slice(record.cri.as_ref()?).ok();
            cri.map(|cri| cri.metadata)
        };
        let own = noted(record).unwrap_or_default();
        let is_sandbox = kind == "sandbox";
        let sandbox = match (&own.sandbox, is_sandbox) {
            (Some(id), false) => {
                let records = self.meta().get(namespace).map(|of| &of.containers[..]);
                let mut records = records.unwrap_or_default().iter();
                records.find(|of| of.id == *id).and_then(noted)
            }
            _ => None,
        };
        let own_name = own.config.metadata;
        let of_pod = if is_sandbox {
            CriName {
                name: own_name.name.clone(),
                namespace: own_name.namespace.clone(),
            }
        } else {
            sandbox.unwrap_or_default().config.metadata
        };
        Some(Pod {
            name: label("pod.name").or(of_pod.name)?,
            namespace: label("pod.namespace").or(of_pod.namespace),
            container: if is_sandbox {
                None
            } else {
                label("container.name").or(own_name.name)
            },
        })
    }

    fn task(&self, namespace: &str, id: &str) -> Bytes {
        self.state
            .join(TASKS)
            .join(namespace.as_bytes())
            .join(id.as_bytes())
    }

    /// A container without a task is a created one, as containerd sees it: what a task was is
    /// forgotten with it. Only the CRI plugin notes more.
    fn state_of(&self, namespace: &str, record: &ContainerRecord) -> ContainerState {
        let mut state = ContainerState::default();
        if !is_id(&record.id) || !is_id(namespace) {
            return state;
        }
        let cri = self
            .root
            .join(b"io.containerd.grpc.v1.cri")
            .join(b"containers");
        let cri = self
            .host
            .read(&cri.join(record.id.as_bytes()).join(b"status"));
        let cri: Option<CriStatus> = cri
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok());
        if let Some(cri) = cri {
            let time = |nanoseconds: i64| {
                let time = jiff::Timestamp::from_nanosecond(nanoseconds.into()).ok()?;
                (nanoseconds > 0).then(|| time.to_string())
            };
            state.started_at = time(cri.started_at);
            state.finished_at = time(cri.finished_at);
            state.exit_code = cri.exit_code;
        }
        let pid = self
            .host
            .read(&self.task(namespace, &record.id).join(b"init.pid"));
        let pid = pid
            .ok()
            .and_then(|bytes| std::str::from_utf8(&bytes).ok()?.trim().parse().ok());
        // A task that has ended is there until it is deleted.
        if pid.is_some() && state.started_at.is_none() {
            state.started_at = Some(record.created.clone());
        }
        state.running = state.finished_at.is_none()
            && pid.is_some_and(|pid: u32| {
                let process = self.host.stat(&namespace::directory(pid));
                process.is_ok_and(|stat| stat.is_some())
            });
        state
    }

    fn store(&self, snapshotter: &str, namespace: Option<&str>) -> Store {
        Store {
            root: self.root.clone(),
            driver: snapshotter.to_owned(),
            namespace: namespace.map(str::to_owned),
        }
    }

    fn label_owner(&self, union: &mut Union, namespace: &str, record: &ContainerRecord) {
        union.driver = Some(record.snapshotter.clone());
        let container = self.container(namespace, record);
        union.owner = Some(Owner {
            engine: NAME,
            kind: OwnerKind::Container,
            id: container.id,
            name: Some(container.name),
            store: self.store(&record.snapshotter, Some(namespace)),
        });
    }

    fn label_container(&self, union: &mut Union, namespace: &str, record: &ContainerRecord) {
        self.label_owner(union, namespace, record);
        if let Some(top) = union.branches.first_mut() {
            top.layer.role = Role::Container;
        }
        match self.image_record(namespace, &record.image) {
            Some(image) => {
                let digest = image.digest.clone();
                self.label_layers(union, namespace, &record.snapshotter, &digest);
            }
            None => union.label_image(&[], !is_copying(&record.snapshotter)),
        }
    }

    /// The container whose own snapshot this is.
    fn container_of(&self, snapshotter: &str, number: &str) -> Option<(&String, &ContainerRecord)> {
        let number: u64 = number.parse().ok()?;
        let all = self.snapshots(snapshotter);
        self.own().find(|(namespace, container)| {
            let key = (
                container.snapshotter.clone(),
                container.snapshot_key.clone(),
            );
            let name = self
                .meta()
                .get(*namespace)
                .and_then(|of| of.snapshots.get(&key));
            container.snapshotter == snapshotter
                && name.is_some_and(|name| all.get(&name.name).is_some_and(|of| of.id == number))
        })
    }

    /// The container whose mounted union this is, by its topmost branch or its mount point.
    fn container_of_union(&self, union: &Union) -> Option<(&String, &ContainerRecord)> {
        let top = union.branches.first();
        let top = top.and_then(|top| self.snapshot_inside(&top.spec.path));
        if let Some((snapshotter, number, _)) = top {
            return self.container_of(&snapshotter, &number);
        }
        let mut mounts = union.mounts.iter();
        let (namespace, record, _) = mounts.find_map(|mount| self.rootfs(&mount.path))?;
        Some((namespace, record))
    }

    /// The snapshot's directory that a path is, or lies in: snapshotter, number, what is left.
    fn snapshot_inside(&self, path: &Bytes) -> Option<(String, String, Bytes)> {
        let inside = path.strip_prefix(&self.root).or_else(|| {
            let real = self.host.resolve(&self.root).ok()?;
            path.strip_prefix(&real)
        })?;
        let mut parts = inside.components();
        let first = std::str::from_utf8(parts.next()?).ok()?;
        let snapshotter = first.strip_prefix(SNAPSHOTTER)?.to_owned();
        if parts.next()? != b"snapshots" || !is_read(&snapshotter) {
            return None;
        }
        let number = std::str::from_utf8(parts.next()?).ok()?.to_owned();
        if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let rest: Vec<&[u8]> = parts.collect();
        let rest = match (is_copying(&snapshotter), rest.as_slice()) {
            (true, rest) => rest,
            (false, [b"fs", rest @ ..]) => rest,
            (false, _) => &[],
        };
        Some((snapshotter, number, Bytes::absolute(rest.iter().copied())))
    }

    /// The container at whose mount point a path lies, and what is left of the path.
    fn rootfs(&self, path: &Bytes) -> Option<(&String, &ContainerRecord, Bytes)> {
        let inside = path.strip_prefix(&self.state.join(TASKS))?;
        let mut parts = inside.components();
        let namespace = std::str::from_utf8(parts.next()?).ok()?.to_owned();
        let id = std::str::from_utf8(parts.next()?).ok()?.to_owned();
        if parts.next()? != b"rootfs" {
            return None;
        }
        let rest = Bytes::absolute(parts);
        let mut own = self.own();
        let (namespace, record) = own.find(|(of, record)| **of == namespace && record.id == id)?;
        Some((namespace, record, rest))
    }
}

/// Whether a snapshotter keeps directories that can be stacked.
fn is_read(snapshotter: &str) -> bool {
    matches!(snapshotter, "overlayfs" | "fuse-overlayfs" | "native")
}

/// Whether each snapshot is whole.
fn is_copying(snapshotter: &str) -> bool {
    snapshotter == "native"
}

fn parse_configuration(bytes: &[u8]) -> Result<Configuration, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "is not text".to_owned())?;
    toml::from_str(text)
        .map_err(|error| format!("is not what containerd reads: {}", error.message()))
}

impl Engine for Containerd<'_> {
    fn name(&self) -> &'static str {
        NAME
    }

    fn root(&self) -> &Bytes {
        &self.root
    }

    fn exists(&self) -> bool {
        self.own().next().is_some()
            || self.namespaces().any(|(_, of)| !of.images.is_empty())
            || self
                .host
                .stat(&self.database())
                .is_ok_and(|stat| stat.is_some())
                && self.namespace.is_none()
                && !self.is_dockers_alone()
    }

    fn take_problems(&self) -> Vec<Error> {
        self.problems.take()
    }

    fn containers(&self) -> Vec<Container> {
        let mut containers: Vec<Container> = self
            .own()
            .map(|(namespace, record)| self.container(namespace, record))
            .collect();
        sort_newest_first(&mut containers, |of| (&of.created, &of.id));
        containers
    }

    fn images(&self) -> Vec<Image> {
        let own = self
            .namespaces()
            .filter(|(name, _)| *name != DOCKERS_NAMESPACE);
        let mut images: Vec<Image> = own.flat_map(|(name, _)| self.images_in(name)).collect();
        sort_newest_first(&mut images, |of| (&of.created, &of.id));
        images
    }

    fn layers(&self) -> Vec<LayerName> {
        let mut layers = Vec::new();
        for snapshotter in self.snapshotters() {
            for (name, snapshot) in self.snapshots(&snapshotter).iter() {
                // `namespace/number/key`.
                let key = name.splitn(3, '/').nth(2).unwrap_or(name);
                layers.push(LayerName {
                    driver: snapshotter.clone(),
                    id: snapshot.id.to_string(),
                    aliases: vec![key.trim_start_matches("sha256:").to_owned()],
                });
            }
        }
        layers.sort_by(|a, b| (&a.driver, &a.id).cmp(&(&b.driver, &b.id)));
        layers
    }

    /// Records are taken away first; what nothing refers to is collected then.
    fn gone<'o>(&self, owners: &[&'o Owner]) -> Vec<&'o Owner> {
        let own: Vec<&Owner> = owners
            .iter()
            .copied()
            .filter(|owner| owner.store.root == self.root)
            .collect();
        if own.is_empty() {
            return own;
        }
        // As it is now.
        let now = Containerd::at(self.host, self.root.clone(), self.state.clone());
        let is_there = |owner: &Owner| {
            let store = &owner.store;
            let namespace = store.namespace.as_ref();
            let namespace = namespace.and_then(|name| now.meta().get(name));
            match owner.kind {
                OwnerKind::Layer => {
                    let snapshots = now.snapshots(&store.driver);
                    let mut numbers = snapshots.values().map(|snapshot| snapshot.id.to_string());
                    numbers.any(|number| number == owner.id)
                }
                OwnerKind::Container => {
                    namespace.is_some_and(|of| of.containers.iter().any(|own| own.id == owner.id))
                }
                OwnerKind::Image => namespace.is_some_and(|of| {
                    let mut digests = of.images.iter().map(|image| &*image.digest);
                    digests.any(|digest| digest.trim_start_matches("sha256:") == owner.id)
                }),
            }
        };
        let gone = own.into_iter().filter(|owner| !is_there(owner)).collect();
        let mut problems = now.problems.take();
        if problems.is_empty() {
            gone
        } else {
            self.problems.borrow_mut().append(&mut problems);
            Vec::new()
        }
    }

    fn driver(&self, containers: &[Container]) -> String {
        let in_use = containers.first().map(|container| container.driver.clone());
        in_use.unwrap_or_else(|| "overlayfs".into())
    }

    fn reads(&self, container: &Container) -> bool {
        is_read(&container.driver)
    }

    fn has_union(&self, container: &Container) -> bool {
        is_read(&container.driver) && !is_copying(&container.driver)
    }

    fn union_of(&self, container: &Container) -> Result<Union> {
        let (namespace, record) = self
            .own()
            .find(|(namespace, record)| {
                record.id == container.id && Some(*namespace) == container.namespace.as_ref()
            })
            .ok_or_else(|| Error::NoSuchTarget(container.id.clone()))?;
        let (snapshotter, key) = (&record.snapshotter, &record.snapshot_key);
        let mut union = self.union_of_key(namespace, snapshotter, key, Permission::RW)?;
        self.label_container(&mut union, namespace, record);
        Ok(union)
    }

    fn union_of_image(&self, image: &Image) -> Result<Union> {
        let namespace = image.namespace.clone().unwrap_or_default();
        let top = image
            .history
            .iter()
            .find_map(|entry| entry.layer.as_ref()?.chain_id.clone());
        let owner = Owner {
            engine: NAME,
            kind: OwnerKind::Image,
            id: image.id.clone(),
            name: image.names.tags.first().cloned(),
            store: self.store(&image.driver, Some(&namespace)),
        };
        let mut union = match top {
            Some(key) => self.union_of_key(&namespace, &image.driver, &key, Permission::RO)?,
            None => Union {
                kind: self.kind(&image.driver),
                driver: Some(image.driver.clone()),
                ..Union::unmounted(Vec::new())
            },
        };
        union.owner = Some(owner);
        union.label_image(&image.clone().steps(), !is_copying(&image.driver));
        Ok(union)
    }

    fn union_of_layer(&self, layer: &LayerName) -> Result<Union> {
        if let Some((namespace, record)) = self.container_of(&layer.driver, &layer.id) {
            let (snapshotter, key) = (&record.snapshotter, &record.snapshot_key);
            let mut union = self.union_of_key(namespace, snapshotter, key, Permission::RW)?;
            self.label_container(&mut union, namespace, record);
            return Ok(union);
        }
        let all = self.snapshots(&layer.driver);
        let mut named = all.iter();
        let name = named.find(|(_, snapshot)| snapshot.id.to_string() == layer.id);
        let (name, _) = name.ok_or_else(|| {
            let what = format!("does not have the snapshot {}", layer.id);
            Error::damaged(self.directory(&layer.driver).join(b"metadata.db"), what)
        })?;
        let mut union = self.union_of_name(&layer.driver, name, Permission::RO)?;
        // Number the layers within the smallest image that has this one.
        let images = self.images().into_iter().map(Image::steps);
        let steps = images
            .filter(|steps| steps.iter().any(|(id, _)| *id == layer.id))
            .min_by_key(Vec::len);
        union.label_image(&steps.unwrap_or_default(), !is_copying(&layer.driver));
        union.owner = Some(Owner {
            engine: NAME,
            kind: OwnerKind::Layer,
            id: layer.id.clone(),
            name: None,
            store: self.store(&layer.driver, None),
        });
        Ok(union)
    }

    fn image_of(&self, union: &Union) -> Option<Result<Image>> {
        let owner = union.owner.as_ref().filter(|owner| owner.engine == NAME)?;
        match owner.kind {
            OwnerKind::Layer => None,
            OwnerKind::Image => self
                .images()
                .into_iter()
                .find(|image| image.id == owner.id)
                .map(Ok),
            OwnerKind::Container => {
                let (namespace, record) = self.record(&owner.id)?;
                let Some(image) = self.image_record(namespace, &record.image) else {
                    let what = format!("does not have the image {}", record.image);
                    return Some(Err(Error::damaged(self.database(), what)));
                };
                Some(self.image_of_digest(namespace, &record.snapshotter, &image.digest))
            }
        }
    }

    fn layer_uses(&self) -> Result<Vec<LayerUse>> {
        self.read_uses()
    }

    fn leftovers(&self) -> Result<Vec<Leftover>> {
        self.find_leftovers()
    }

    fn space_of(&self, inside: &Bytes) -> Space {
        self.space(inside)
    }

    fn is_merged(&self, _: &Bytes) -> bool {
        false
    }

    fn is_mount_point(&self, path: &Bytes) -> bool {
        let inside = path.strip_prefix(&self.state.join(TASKS));
        inside.is_some_and(|inside| {
            inside.components().count() == 3 && inside.file_name() == b"rootfs"
        })
    }

    fn directory_of_driver(&self, driver: &str) -> Bytes {
        self.directory(driver)
    }

    fn directory_of_layer(&self, driver: &str, id: &str) -> Option<Bytes> {
        let number = id.parse().ok()?;
        is_read(driver).then(|| self.content_dir(driver, number))
    }

    fn recognise(&self, union: &mut Union) {
        if union.owner.is_none()
            && let Some((namespace, record)) = self.container_of_union(union)
        {
            self.label_owner(union, namespace, record);
        }
    }

    fn describe(&self, union: &mut Union) {
        if union
            .owner
            .as_ref()
            .is_some_and(|owner| owner.engine != NAME)
        {
            return;
        }
        self.name_layers(union);
        if let Some((namespace, record)) = self.container_of_union(union) {
            self.label_container(union, namespace, record);
        }
    }

    fn layer_at(&self, path: &Bytes) -> Option<(LayerName, Bytes)> {
        let (driver, id, inside) = self.snapshot_inside(path)?;
        let name = LayerName {
            driver,
            id,
            aliases: Vec::new(),
        };
        Some((name, inside))
    }

    fn mount_dir_at(&self, path: &Bytes) -> Option<(Container, Bytes)> {
        let (namespace, record, inside) = self.rootfs(path)?;
        Some((self.container(namespace, record), inside))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configurations_of_both_versions() {
        for text in [
            "version = 2\nroot = \"/data/containerd\"\nstate = \"/run/c\"\n[plugins]\n[plugins.\"io.containerd.grpc.v1.cri\"]\n",
            "version = 3\nroot = '/data/containerd'\nstate = '/run/c'\n",
        ] {
            let configuration = parse_configuration(text.as_bytes()).unwrap();
            assert_eq!(configuration.root.as_deref(), Some("/data/containerd"));
            assert_eq!(configuration.state.as_deref(), Some("/run/c"));
        }
        assert!(parse_configuration(b"[").is_err());
    }
}
