//! What stores and Podman itself record of layers, images and containers: the forms.

use std::cell::OnceCell;
use std::collections::{BTreeMap, HashMap};
use std::ops::Deref;

use serde::Deserialize;

use crate::bytes::Bytes;
use crate::engine::cover::Cover;
use crate::engine::inventory::{ContainerState, null_default};
use crate::engine::problems::Kept;
use crate::engine::stored::Settings;
use crate::error::Error;

/// What was read of a store's lists: each is read once, since every container asks for its image.
#[derive(Default)]
pub(super) struct Lists {
    pub(super) layers: OnceCell<Kept<RecordList<LayerRecord>>>,
    pub(super) images: OnceCell<Kept<RecordList<ImageRecord>>>,
    pub(super) containers: OnceCell<Kept<RecordList<ContainerRecord>>>,
    /// The ids of containers by those of their layers.
    pub(super) of_layers: OnceCell<HashMap<String, String>>,
}

/// Records in their store's order, found by their ids.
pub(super) struct RecordList<T> {
    pub(super) all: Vec<T>,
    /// Of several with one id the first counts.
    pub(super) numbers: HashMap<String, usize>,
}

/// The records of a list, and what could not be read of it.
pub(super) type WithProblems<T> = (Vec<T>, Vec<Error>);

impl<T> RecordList<T> {
    pub(super) fn kept(
        (all, problems): WithProblems<T>,
        id: impl Fn(&T) -> &String,
    ) -> Kept<RecordList<T>> {
        let mut numbers = HashMap::with_capacity(all.len());
        for (number, record) in all.iter().enumerate() {
            numbers.entry(id(record).clone()).or_insert(number);
        }
        Kept::new(RecordList { all, numbers }, problems)
    }

    pub(super) fn get(&self, id: &str) -> Option<&T> {
        self.all.get(*self.numbers.get(id)?)
    }
}

impl<T> Deref for RecordList<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.all
    }
}

/// A layer, as its store lists it.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct LayerRecord {
    pub id: String,
    #[serde(default, deserialize_with = "null_default")]
    pub parent: String,
    #[serde(rename = "diff-digest", default)]
    pub diff_digest: Option<String>,
    /// Bytes.
    #[serde(rename = "diff-size", default)]
    pub diff_size: Option<u64>,
    /// The ids for which its content was copied, where that is so.
    #[serde(default, deserialize_with = "null_default")]
    pub uidmap: Vec<MappedIds>,
    #[serde(default, deserialize_with = "null_default")]
    pub flags: LayerFlags,
    /// The number of the store that has it.
    #[serde(skip)]
    pub home: usize,
}

/// `size` ids of a container from `container_id` on, and what they are outside.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct MappedIds {
    pub container_id: u32,
    pub host_id: u32,
    pub size: u32,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct LayerFlags {
    /// It is being made or removed, or was when who did so ended.
    #[serde(deserialize_with = "null_default")]
    pub incomplete: bool,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct ImageRecord {
    pub id: String,
    #[serde(default)]
    pub digest: Option<String>,
    #[serde(default, deserialize_with = "null_default")]
    pub names: Vec<String>,
    #[serde(default, deserialize_with = "null_default")]
    pub layer: String,
    /// The copies of its top layer for other users.
    #[serde(rename = "mapped-layers", default, deserialize_with = "null_default")]
    pub mapped_layers: Vec<String>,
    #[serde(rename = "big-data-names", default, deserialize_with = "null_default")]
    pub data_names: Vec<String>,
    /// Bytes.
    #[serde(rename = "big-data-sizes", default, deserialize_with = "null_default")]
    pub data_sizes: BTreeMap<String, u64>,
    #[serde(
        rename = "big-data-digests",
        default,
        deserialize_with = "null_default"
    )]
    pub data_digests: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "null_default")]
    pub created: String,
    /// The number of the store that has it.
    #[serde(skip)]
    pub home: usize,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct ContainerRecord {
    pub id: String,
    #[serde(default, deserialize_with = "null_default")]
    pub names: Vec<String>,
    #[serde(default, deserialize_with = "null_default")]
    pub image: String,
    #[serde(default, deserialize_with = "null_default")]
    pub layer: String,
    /// JSON once more.
    #[serde(default, deserialize_with = "null_default")]
    pub metadata: String,
    #[serde(default, deserialize_with = "null_default")]
    pub created: String,
    /// The ids of its own users, where it has such.
    #[serde(default, deserialize_with = "null_default")]
    pub uidmap: Vec<MappedIds>,
    #[serde(default, deserialize_with = "null_default")]
    pub gidmap: Vec<MappedIds>,
    /// What it has instead of a layer. The store does not list such containers, Podman does.
    #[serde(skip)]
    pub rootfs: Option<Rootfs>,
}

/// What the engine that made a container noted beside it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub(super) struct Metadata {
    pub image_name: Option<String>,
    pub name: Option<String>,
    /// CRI-O's pod, and the container's name in it.
    pub pod_name: Option<String>,
    pub metadata_name: Option<String>,
    pub namespace: Option<String>,
}

impl ContainerRecord {
    /// Whether Podman has it, and the store has lost it.
    pub fn is_lost(&self) -> bool {
        self.layer.is_empty() && self.rootfs.is_none()
    }

    pub fn metadata(&self) -> Metadata {
        serde_json::from_str(&self.metadata).unwrap_or_default()
    }
}

/// What is recorded of a container.
#[derive(Debug, Clone, Default)]
pub(super) struct LibpodRecord {
    pub state: ContainerState,
    pub command: Option<String>,
    /// RFC 3339.
    pub created: Option<String>,
    /// As it is called now; none where nobody says.
    pub name: Option<String>,
    /// The pod's name.
    pub pod: Option<String>,
    pub ports: String,
    /// The names of its volumes; none where they are not recorded.
    pub volumes: Option<Vec<String>>,
    /// The directory that is its root where no image's layers are.
    pub rootfs: Option<Rootfs>,
    /// What lies over its layers; of a volume without where that is.
    pub covers: Vec<Cover>,
    /// What it runs as; none where nobody says.
    pub settings: Option<Settings>,
    /// Something is run to see whether it is well.
    pub is_checked: bool,
}

/// A directory of the host that a container has as its root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rootfs {
    pub directory: Bytes,
    /// It is a lower directory: what the container writes is beside its records.
    pub is_below: bool,
}

pub(super) type Records = HashMap<String, LibpodRecord>;
