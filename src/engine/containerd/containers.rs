//! Containers: their records, their state, and the union that each has.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::record::ContainerRecord;
use super::snapshotter::{is_copying, is_read, is_view, places};
use super::store::{Containerd, DOCKERS_NAMESPACE, NAME, TASKS};
use crate::branch::Permission;
use crate::bytes::Bytes;
use crate::engine::cover::Cover;
use crate::engine::inventory::{
    Container, ContainerState, Pod, command_line, is_id, null_default, sort_newest_first,
};
use crate::engine::namespace;
use crate::engine::oci::RuntimeConfig;
use crate::engine::stored::Settings;
use crate::engine::union::{LayeredBranch, Owner, OwnerKind, Role, Union, UnionKind};
use crate::error::{Error, Result};

impl Containerd<'_> {
    /// Every container, newest first.
    pub(super) fn read_containers(&self) -> Vec<Container> {
        self.note_lost_snapshots();
        let mut containers: Vec<Container> = self
            .own()
            .filter(|(namespace, _)| self.is_shown(namespace))
            .map(|(namespace, record)| self.container(namespace, record))
            .collect();
        sort_newest_first(&mut containers, |of| (&of.created, &of.id));
        containers
    }

    /// Notes where a snapshotter's directories are all gone while containers stand on some.
    fn note_lost_snapshots(&self) {
        let used = self.own().filter(|(_, of)| !of.snapshot_key.is_empty());
        let used: BTreeSet<&str> = used.map(|(_, of)| of.snapshotter.as_str()).collect();
        for snapshotter in used.into_iter().filter(|name| is_read(name)) {
            let directory = self.directory(snapshotter);
            let mut at = places(snapshotter).iter();
            let is_there = |place: &&str| {
                let found = self.host.stat(&directory.join(place.as_bytes()));
                !matches!(found, Ok(None))
            };
            if !at.any(is_there) {
                let what = "has none of the snapshots that containers stand on";
                self.problems.note_again(&Error::damaged(directory, what));
            }
        }
    }

    /// The containers that are containerd's own: Docker's may have their snapshots elsewhere. A
    /// container of a directory has no snapshot. Those of all namespaces: what is known is not
    /// limited by what is to be shown.
    pub(super) fn own(&self) -> impl Iterator<Item = (&String, &ContainerRecord)> {
        self.meta().iter().flat_map(|(name, namespace)| {
            let containers = namespace.containers.iter();
            containers
                .filter(move |of| !of.snapshot_key.is_empty() || name != DOCKERS_NAMESPACE)
                .map(move |container| (name, container))
        })
    }

    pub(super) fn record(&self, namespace: &str, id: &str) -> Option<(&String, &ContainerRecord)> {
        let mut own = self.own();
        own.find(|(of, container)| *of == namespace && container.id == id)
    }

    pub(super) fn container(&self, namespace: &str, record: &ContainerRecord) -> Container {
        let spec: RuntimeConfig = serde_json::from_slice(&record.spec).unwrap_or_default();
        let mut args = spec.args();
        let command = if args.is_empty() {
            String::new()
        } else {
            let rest = args.split_off(1);
            command_line(&args[0], rest)
        };
        let pod = self.pod(namespace, record);
        let name = record.labels.get("nerdctl/name").cloned();
        let of_pod = pod.as_ref().map(Pod::own_name);
        let image = self.image_below(namespace, record);
        Container {
            manifest: None,
            name: name.or(of_pod).unwrap_or_else(|| record.id.clone()),
            image: record.image.clone(),
            image_id: image
                .map(|digest| digest.trim_start_matches("sha256:").to_owned())
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

    /// What Kubernetes calls it: its labels, or what the CRI plugin noted.
    fn pod(&self, namespace: &str, record: &ContainerRecord) -> Option<Pod> {
        let kind = record.labels.get(CRI_KIND)?;
        let label = |name: &str| record.labels.get(&format!("io.kubernetes.{name}")).cloned();
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
        // Who noted no name noted no number.
        let attempt = own_name.name.as_ref().map(|_| own_name.attempt);
        let of_pod = if is_sandbox {
            CriName {
                name: own_name.name.clone(),
                namespace: own_name.namespace.clone(),
                attempt: own_name.attempt,
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
            attempt,
        })
    }

    fn task(&self, namespace: &str, id: &str) -> Bytes {
        self.state
            .join(TASKS)
            .join(namespace.as_bytes())
            .join(id.as_bytes())
    }

    /// What a task was is forgotten with it: of one that is gone no more is known than that there
    /// was one. Only the CRI plugin notes more, and its sandboxes are started as they are created.
    fn state_of(&self, namespace: &str, record: &ContainerRecord) -> ContainerState {
        let mut state = ContainerState::default();
        if !is_id(&record.id) || !is_id(namespace) {
            return state;
        }
        let task = self.task_of(namespace, record);
        let is_sandbox = record
            .labels
            .get(CRI_KIND)
            .is_some_and(|of| of == "sandbox");
        let cri = self.cri_status(record);
        if let Some(cri) = &cri {
            state.started_at = cri_time(cri.started_at);
            state.finished_at = cri_time(cri.finished_at);
        } else if is_sandbox {
            state.started_at = Some(record.created.clone()).filter(|time| !time.is_empty());
        }
        // A task that has ended is there until it is deleted.
        let was_there = match task {
            Task::None if cri.is_none() && !is_sandbox => self.had_task(namespace, record),
            task => Some(task.was_there()),
        };
        state.was_started = cri.is_none() && (is_sandbox || was_there == Some(true));
        if state.finished_at.is_none() {
            match task {
                Task::Runs(process) => {
                    state.running = true;
                    let is_frozen = self.is_frozen(process);
                    state.paused = is_frozen == Some(true);
                    state.is_unknown = is_frozen.is_none();
                }
                Task::Unknown => state.is_unknown = true,
                Task::Ended | Task::None => state.is_unknown = was_there.is_none(),
            }
        }
        // What is noted before it has ended is no exit code, unless as one of what runs.
        let has_gone = !state.running && (state.started_at.is_some() || state.was_started);
        let is_known = state.finished_at.is_some() || !has_gone;
        state.exit_code = cri.filter(|_| is_known).map(|cri| cri.exit_code);
        state
    }

    /// Whether a container that has no task had one, as far as its snapshot tells: the kernel makes
    /// `work/work` anew whenever it mounts one to be written in, and clients of containerd 1 mount
    /// it once before there is a container, to look for users. None where nothing tells.
    fn had_task(&self, namespace: &str, record: &ContainerRecord) -> Option<bool> {
        let stat = |path: &Bytes| self.host.stat(path).ok();
        let of_task = self.root.join(TASKS).join(namespace.as_bytes());
        if stat(&of_task.join(record.id.as_bytes()))?.is_some() {
            return Some(true);
        }
        let snapshots = self.snapshots_of(namespace, &record.snapshotter);
        let snapshot = snapshots.get(&record.snapshot_key)?;
        if record.snapshotter != "overlayfs" || is_view(snapshot) {
            return None;
        }
        let content = self.content_dir(&record.snapshotter, snapshot.id);
        let work = content.parent().join(b"work");
        stat(&work)??;
        let Some(mounted) = stat(&work.join(b"work"))? else {
            return Some(false);
        };
        let (seconds, nanoseconds) = mounted.mtime;
        let mounted = jiff::Timestamp::new(seconds, i32::try_from(nanoseconds).ok()?).ok()?;
        let created: jiff::Timestamp = record.created.parse().ok()?;
        Some(mounted > created)
    }

    fn cri_status(&self, record: &ContainerRecord) -> Option<CriStatus> {
        let containers = self
            .root
            .join(b"io.containerd.grpc.v1.cri")
            .join(b"containers");
        let path = containers.join(record.id.as_bytes()).join(b"status");
        let read = self.host.read(&path).and_then(|bytes| {
            serde_json::from_slice(&bytes).map_err(|error| {
                let what = format!("is not what containerd writes: {error}");
                Error::damaged(path, what)
            })
        });
        // Only Kubernetes' have one.
        self.problems.unless_absent(read)
    }

    fn task_of(&self, namespace: &str, record: &ContainerRecord) -> Task {
        let exists = |path: &Bytes| self.host.stat(path).is_ok_and(|stat| stat.is_some());
        let path = self.task(namespace, &record.id).join(b"init.pid");
        let pid = self.host.read(&path).ok();
        let pid = pid.and_then(|bytes| std::str::from_utf8(&bytes).ok()?.trim().parse().ok());
        // Neither tasks nor processes outlive the machine's running, and few copies have them.
        let is_told = |place: &Bytes| self.host.is_live() || exists(place);
        match pid {
            Some(process) if exists(&namespace::directory(process)) => Task::Runs(process),
            Some(_) if is_told(&Bytes::from("/proc/self")) => Task::Ended,
            None if is_told(&self.state.join(TASKS)) => Task::None,
            _ => Task::Unknown,
        }
    }

    /// Whether the kernel has frozen a process, which is how a task is paused. None where nothing
    /// tells: a copy without control groups, of a process that waits as frozen ones do, too.
    fn is_frozen(&self, process: u32) -> Option<bool> {
        let read = |path: &Bytes| self.host.read(path).unwrap_or_default();
        let groups = read(&namespace::directory(process).join(b"cgroup"));
        let mut is_unsure = false;
        let is_frozen = groups.split(|&byte| byte == b'\n').any(|line| {
            let mut fields = line.splitn(3, |&byte| byte == b':');
            let (Some(_), Some(controllers), Some(path)) =
                (fields.next(), fields.next(), fields.next())
            else {
                return false;
            };
            // The one hierarchy of version 2 names no controllers.
            let is_freezer = |of: &[u8]| of == b"freezer";
            let (mount, file, frozen): (&str, &[u8], &[u8]) = if controllers.is_empty() {
                ("/sys/fs/cgroup", b"cgroup.freeze", b"1")
            } else if controllers.split(|&byte| byte == b',').any(is_freezer) {
                ("/sys/fs/cgroup/freezer", b"freezer.state", b"FROZEN")
            } else {
                return false;
            };
            let group = Bytes::from(mount).join_path(&Bytes::from(path));
            let said = read(&group.join(file));
            is_unsure |= said.is_empty() && !controllers.is_empty() && !self.host.is_live();
            said.trim_ascii() == frozen
        });
        let waits = || {
            let stat = read(&namespace::directory(process).join(b"stat"));
            // The name before it may hold anything.
            let mut fields = stat.rsplit(|&byte| byte == b')');
            fields.next().is_some_and(|rest| rest.starts_with(b" D"))
        };
        (is_frozen || !is_unsure || !waits()).then_some(is_frozen)
    }

    /// The union of a container, mounted or not.
    ///
    /// # Errors
    /// A container that no namespace has; a snapshot that is missing.
    pub(super) fn container_union(&self, container: &Container) -> Result<Union> {
        let namespace = container.namespace.as_ref();
        let (namespace, record) = namespace
            .and_then(|namespace| self.record(namespace, &container.id))
            .ok_or_else(|| Error::no_such_target(container.id.clone()))?;
        let (snapshotter, key) = (&record.snapshotter, &record.snapshot_key);
        let mut union = if key.is_empty() {
            self.directory_union(record)?
        } else {
            self.union_of_key(namespace, snapshotter, key, Permission::RW)?
        };
        self.label_container(&mut union, namespace, record);
        Ok(union)
    }

    /// What lies over a container's layers, as its runtime's configuration has it.
    pub(super) fn covers_of(&self, id: &str, namespace: &str) -> Vec<Cover> {
        let Some((_, record)) = self.record(namespace, id) else {
            return Vec::new();
        };
        let spec: RuntimeConfig = serde_json::from_slice(&record.spec).unwrap_or_default();
        spec.covers()
    }

    /// What a container runs as, as its runtime's configuration has it.
    pub(super) fn settings_of(&self, owner: &Owner) -> Option<Settings> {
        let (_, record) = self.record(owner.store.namespace.as_deref()?, &owner.id)?;
        let spec: RuntimeConfig = serde_json::from_slice(&record.spec).ok()?;
        Some(spec.settings())
    }

    /// The first process of a container's task.
    pub(super) fn task_process(&self, id: &str, namespace: &str) -> Option<u32> {
        let path = self.task(namespace, id).join(b"init.pid");
        let bytes = self.host.read(&path).ok()?;
        std::str::from_utf8(&bytes).ok()?.trim().parse().ok()
    }

    /// What a container has that was made of a directory: `ctr run --rootfs DIR`.
    fn directory_union(&self, record: &ContainerRecord) -> Result<Union> {
        let spec: RuntimeConfig = serde_json::from_slice(&record.spec).unwrap_or_default();
        let root = spec.root().filter(|root| root.starts_with('/'));
        let root = root.ok_or_else(|| {
            let what = format!("has no directory for the container {}", record.id);
            Error::damaged(self.database(), what)
        })?;
        let own = LayeredBranch::plain(Bytes::from(root.as_str()), Permission::RW);
        Ok(Union {
            kind: UnionKind::Copy,
            ..Union::unmounted(vec![own])
        })
    }

    pub(super) fn label_owner(&self, union: &mut Union, namespace: &str, record: &ContainerRecord) {
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

    pub(super) fn label_container(
        &self,
        union: &mut Union,
        namespace: &str,
        record: &ContainerRecord,
    ) {
        self.label_owner(union, namespace, record);
        if let Some(top) = union.branches.first_mut() {
            top.layer.role = Role::Container;
        }
        match self.image_below(namespace, record) {
            Some(digest) => self.label_layers(union, namespace, &record.snapshotter, &digest),
            None => union.label_image(&[], !is_copying(&record.snapshotter)),
        }
    }
}

/// The label that says whether a container of the CRI plugin is a pod's sandbox.
const CRI_KIND: &str = "io.cri-containerd.kind";

/// What is known of a container's task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Task {
    /// By its first process.
    Runs(u32),
    /// Its process is gone, and it was not deleted.
    Ended,
    None,
    Unknown,
}

fn noted(record: &ContainerRecord) -> Option<CriMetadata> {
    let cri: Cri = serde_json::from_slice(record.cri.as_ref()?).ok()?;
    Some(cri.metadata)
}

/// The image that the CRI plugin says a container was made from.
pub(super) fn cri_image(record: &ContainerRecord) -> Option<String> {
    noted(record)?.image_ref
}

impl Task {
    fn was_there(self) -> bool {
        matches!(self, Task::Runs(_) | Task::Ended)
    }
}

/// RFC 3339, of nanoseconds; none where it never was.
fn cri_time(nanoseconds: i64) -> Option<String> {
    let time = jiff::Timestamp::from_nanosecond(nanoseconds.into()).ok()?;
    (nanoseconds > 0).then(|| time.to_string())
}

/// What the CRI plugin noted of a container or a pod's sandbox.
#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct Cri {
    metadata: CriMetadata,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct CriMetadata {
    #[serde(rename = "SandboxID")]
    sandbox: Option<String>,
    /// The image that it was made from: its configuration's digest.
    image_ref: Option<String>,
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
    /// Left away where it is the first.
    attempt: u32,
}

/// The state of a container of the CRI plugin: times in nanoseconds.
#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct CriStatus {
    started_at: i64,
    finished_at: i64,
    exit_code: i64,
}
