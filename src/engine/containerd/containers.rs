//! Containers: their records, their state, and the union that each has.

use serde::Deserialize;

use super::layers::is_copying;
use super::records::ContainerRecord;
use super::{Containerd, NAME, TASKS};
use crate::branch::Permission;
use crate::bytes::Bytes;
use crate::engine::inventory::{
    Container, ContainerState, Pod, command_line, is_id, null_default, sort_newest_first,
};
use crate::engine::namespace;
use crate::engine::oci::RuntimeConfig;
use crate::engine::union::{Owner, OwnerKind, Role, Union};
use crate::error::{Error, Result};

impl Containerd<'_> {
    /// Every container, newest first.
    pub(super) fn read_containers(&self) -> Vec<Container> {
        let mut containers: Vec<Container> = self
            .own()
            .filter(|(namespace, _)| self.is_shown(namespace))
            .map(|(namespace, record)| self.container(namespace, record))
            .collect();
        sort_newest_first(&mut containers, |of| (&of.created, &of.id));
        containers
    }

    /// The containers that are containerd's own: Docker's have their snapshots elsewhere. Those of
    /// all namespaces: what is known is not limited by what is to be shown.
    pub(super) fn own(&self) -> impl Iterator<Item = (&String, &ContainerRecord)> {
        self.meta().iter().flat_map(|(name, namespace)| {
            let containers = namespace.containers.iter();
            containers
                .filter(|container| !container.snapshot_key.is_empty())
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

    /// The union of a container, mounted or not.
    ///
    /// # Errors
    /// A container that no namespace has; a snapshot that is missing.
    pub(super) fn container_union(&self, container: &Container) -> Result<Union> {
        let namespace = container.namespace.as_ref();
        let (namespace, record) = namespace
            .and_then(|namespace| self.record(namespace, &container.id))
            .ok_or_else(|| Error::NoSuchTarget(container.id.clone()))?;
        let (snapshotter, key) = (&record.snapshotter, &record.snapshot_key);
        let mut union = self.union_of_key(namespace, snapshotter, key, Permission::RW)?;
        self.label_container(&mut union, namespace, record);
        Ok(union)
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
        match self.image_record(namespace, &record.image) {
            Some(image) => {
                let digest = image.digest.clone();
                self.label_layers(union, namespace, &record.snapshotter, &digest);
            }
            None => union.label_image(&[], !is_copying(&record.snapshotter)),
        }
    }
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
