//! What the directories of a store are for: who uses each layer, what nobody refers to, and what
//! else takes space. For `whois`, `orphans` and `du`.

use serde::Serialize;

use super::inventory::{Container, LayerName};
use crate::bytes::Bytes;

/// A layer, and everybody who uses it.
#[derive(Debug, Clone)]
pub struct LayerUse {
    pub layer: LayerName,
    /// Its content.
    pub directory: Bytes,
    pub kind: UseKind,
    pub containers: Vec<ContainerName>,
    pub images: Vec<ImageUse>,
}

/// What a layer is to its engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum UseKind {
    /// A container's own.
    Container,
    /// What an engine puts between a container and its image.
    Init,
    /// One of an image's.
    Image,
    /// A builder keeps it to build faster.
    BuildCache,
    /// It is being made: a pull, a build.
    InProgress,
    /// A read-only view of a snapshot.
    #[allow(dead_code)] // no engine's record is read that says so
    View,
    /// The engine knows it, and nothing uses it.
    Unused,
    /// The engine's records do not have it.
    Unknown,
}

impl UseKind {
    pub fn words(self) -> &'static str {
        match self {
            UseKind::Container => "container layer",
            UseKind::Init => "init layer",
            UseKind::Image => "image layer",
            UseKind::BuildCache => "build cache",
            UseKind::InProgress => "in progress",
            UseKind::View => "snapshot view",
            UseKind::Unused => "unused layer",
            UseKind::Unknown => "unknown to its engine",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct ContainerName {
    pub id: String,
    pub name: String,
    /// containerd's: another namespace can have the same id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

impl ContainerName {
    /// What a container is called.
    pub fn of(container: &Container) -> ContainerName {
        ContainerName {
            id: container.id.clone(),
            name: container.name.clone(),
            namespace: container.namespace.clone(),
        }
    }

    /// Whether it is this container, in a list of the same engine's.
    pub fn is(&self, container: &Container) -> bool {
        self.id == container.id && self.namespace == container.namespace
    }
}

/// That a layer is number `number` of `of` of an image, counted from the base.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct ImageUse {
    pub id: String,
    pub tags: Vec<String>,
    pub number: usize,
    pub of: usize,
}

/// Something that nothing refers to, or that refers to what is gone.
#[derive(Debug, Clone)]
pub struct Leftover {
    pub kind: LeftoverKind,
    pub path: Bytes,
    pub why: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LeftoverKind {
    /// A layer's directory that no record has.
    Directory,
    /// A container that was being removed.
    HalfRemoved,
    /// A short name of a layer that is gone.
    Link,
    /// A record of what is gone.
    Metadata,
    /// A mount of a layer that nothing runs on.
    Mount,
    /// What was being made when the engine ended.
    Temporary,
}

impl LeftoverKind {
    /// As machine formats have it.
    pub fn word(self) -> &'static str {
        match self {
            LeftoverKind::Directory => "directory",
            LeftoverKind::HalfRemoved => "half-removed",
            LeftoverKind::Link => "link",
            LeftoverKind::Metadata => "metadata",
            LeftoverKind::Mount => "mount",
            LeftoverKind::Temporary => "temporary",
        }
    }
}

/// What a part of a store's space is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Space {
    /// The layer whose directory has this name.
    Layer {
        driver: String,
        id: String,
    },
    /// What is kept beside a container's layer: configuration, logs.
    Container(String),
    BuildCache,
    Volumes,
    /// Images' and layers' records, content that was downloaded.
    Records,
    Other,
}
