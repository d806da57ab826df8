//! What the directories of a store are for: who uses each layer, what nobody refers to, and what
//! else takes space. For `whois`, `orphans` and `du`.

use serde::Serialize;

use super::inventory::{Container, LayerName};
use super::union::Owner;
use crate::bytes::{Bytes, shell_quote};

/// A layer, and everybody who uses it.
#[derive(Debug, Clone)]
pub struct LayerUse {
    pub layer: LayerName,
    /// Its content.
    pub directory: Bytes,
    pub kind: UseKind,
    pub containers: Vec<ContainerName>,
    pub images: Vec<ImageUse>,
    /// What else is to be said: what needs it although no record has it, a lease that holds it.
    pub note: Option<String>,
    /// The containers whose own layers stand on it.
    pub above: Vec<ContainerName>,
    /// It lies in the store of another engine, which keeps it for this one.
    pub is_lent: bool,
}

impl LayerUse {
    /// What a person would call whoever uses it.
    pub fn user(&self) -> String {
        let container = self.containers.first().map(|of| of.name.clone());
        let tag = || {
            self.images
                .iter()
                .find_map(|image| image.tags.first().cloned())
        };
        let image = || self.images.first().map(|image| image.id.clone());
        let own = || format!("layer {}", self.layer.id);
        container.or_else(tag).or_else(image).unwrap_or_else(own)
    }
}

/// What a layer is to its engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum UseKind {
    /// A container's own.
    Container,
    /// What an engine puts between a container and its image.
    Init,
    /// One of an image's, be the image itself gone while containers stand on it.
    Image,
    /// A builder keeps it to build faster.
    BuildCache,
    /// It is being made: a pull, a build.
    InProgress,
    /// A read-only view of a snapshot.
    View,
    /// The engine knows it, and nothing uses it.
    Unused,
    /// The engine's records do not have it, and yet something needs it: a mounted union, or a
    /// layer that names it as the one below.
    InUse,
    /// The engine's records do not have it.
    Unknown,
    /// No record says who uses it, and not all of them could be read.
    Untold,
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
            UseKind::InUse => "layer in use",
            UseKind::Unknown => "unknown to its engine",
            UseKind::Untold => "layer of unknown use",
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

    /// The same of who owns a union.
    pub fn owner(owner: &Owner) -> ContainerName {
        ContainerName {
            id: owner.id.clone(),
            name: owner.name.clone().unwrap_or_else(|| owner.id.clone()),
            namespace: owner.store.namespace.clone(),
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
    #[serde(rename = "layer_number")]
    pub number: usize,
    #[serde(rename = "layer_count")]
    pub of: usize,
}

/// That something needs layers, whatever the records of these say.
#[derive(Debug, Clone)]
pub struct Need {
    /// The content of the layer that needs them; none where it is a record that does.
    pub layer: Option<Bytes>,
    /// What needs them, as a person calls it.
    pub by: String,
    /// The content of the layers that are needed, and other paths that are.
    pub needed: Vec<Bytes>,
    /// It counts although nothing is known to use the layer itself: an active snapshot.
    pub always: bool,
}

/// Something that nothing refers to, or that refers to what is gone.
#[derive(Debug, Clone)]
pub struct Leftover {
    pub kind: LeftoverKind,
    pub path: Bytes,
    pub why: String,
    /// The content of the layer that it is about, where it is beside that.
    pub layer: Option<Bytes>,
    /// Nothing but the leftover is lost where its path is removed. A list has others' records, too.
    pub is_removable: bool,
    /// What its engine calls it, where it knows it.
    pub name: Option<String>,
    /// The engine's own command to free it.
    pub command: Option<String>,
    /// Bytes, where they are known without a look at its path.
    pub size: Option<u64>,
}

impl Leftover {
    /// One whose path is nobody else's.
    pub fn new(kind: LeftoverKind, path: Bytes, why: impl Into<String>) -> Leftover {
        Leftover {
            kind,
            path,
            why: why.into(),
            layer: None,
            is_removable: kind != LeftoverKind::Mount,
            name: None,
            command: None,
            size: None,
        }
    }

    /// Something that its engine knows by a name, and that nothing uses.
    pub fn unused(
        kind: LeftoverKind,
        name: String,
        path: Bytes,
        why: impl Into<String>,
        command: Option<String>,
    ) -> Leftover {
        Leftover {
            name: Some(name),
            command,
            is_removable: false,
            ..Leftover::new(kind, path, why)
        }
    }

    /// A volume that no container has. `remove` is its engine's command, without the name.
    pub fn volume(remove: &str, name: &[u8], path: Bytes) -> Leftover {
        let command = command(remove, name);
        let name = String::from_utf8_lossy(name).into_owned();
        let why = "no container has it";
        Leftover::unused(LeftoverKind::Volume, name, path, why, Some(command))
    }

    /// A log of a container that does not run. Its engine frees it with the container only.
    pub fn log(path: Bytes, container: &str) -> Leftover {
        let name = String::from_utf8_lossy(path.file_name()).into_owned();
        let why = format!("the container {container} does not run");
        let command = Some(command("truncate -s 0 --", path.as_bytes()));
        Leftover::unused(LeftoverKind::Log, name, path, why, command)
    }

    /// A record in a file that holds others, or of something that is still there.
    pub fn record(path: Bytes, why: impl Into<String>) -> Leftover {
        Leftover {
            is_removable: false,
            ..Leftover::new(LeftoverKind::Metadata, path, why)
        }
    }
}

/// Why Docker's builder keeps a layer, and what frees all of them that nothing uses.
pub const BUILD_CACHE: (&str, &str) =
    ("a builder keeps it to build faster", "docker builder prune");

/// A command of an engine with a name behind it, as a person can paste it. Names are others': neither a
/// shell nor the command must act on them.
pub fn command(words: &str, name: &[u8]) -> String {
    let end = match name.first() {
        Some(b'-') if !words.ends_with(" --") => " --",
        _ => "",
    };
    format!("{words}{end} {}", shell_quote(&Bytes::from(name)))
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
    /// It is being made or removed, or was when whoever did so ended: the engine itself collects
    /// it.
    InProgress,
    /// A layer that the engine knows and nothing uses; so are the following.
    Layer,
    Snapshot,
    Image,
    /// Content that was downloaded.
    Blob,
    Volume,
    BuildCache,
    Log,
    /// Nobody's any more: the engine itself removes it, and nobody need do anything.
    Collected,
}

impl LeftoverKind {
    /// Whether it is only a record of something: what it takes on disk is not worth a word.
    pub fn is_record(self) -> bool {
        matches!(
            self,
            LeftoverKind::Link | LeftoverKind::Metadata | LeftoverKind::Mount
        )
    }

    /// As machine formats have it.
    pub fn word(self) -> &'static str {
        match self {
            LeftoverKind::Directory => "directory",
            LeftoverKind::HalfRemoved => "half-removed",
            LeftoverKind::Link => "link",
            LeftoverKind::Metadata => "metadata",
            LeftoverKind::Mount => "mount",
            LeftoverKind::Temporary => "temporary",
            LeftoverKind::InProgress => "in-progress",
            LeftoverKind::Layer => "layer",
            LeftoverKind::Snapshot => "snapshot",
            LeftoverKind::Image => "image",
            LeftoverKind::Blob => "blob",
            LeftoverKind::Volume => "volume",
            LeftoverKind::BuildCache => "build-cache",
            LeftoverKind::Log => "log",
            LeftoverKind::Collected => "collected",
        }
    }
}

/// Something in a store that its engine stumbles over.
#[derive(Debug, Clone)]
pub struct Fault {
    pub kind: FaultKind,
    pub path: Bytes,
    /// What it means, with the engine's own words for it in quotes.
    pub means: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// A list of layers, or a short name, that is empty or missing.
    List,
    /// A short name without its link, or with one that leads nowhere.
    Link,
    /// A layer that is marked as unfinished.
    Incomplete,
}

/// What a part of a store's space is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Space {
    /// The layer whose directory has this name.
    Layer {
        driver: String,
        id: String,
    },
    /// What is kept beside a container's layer but logs: its configuration.
    Container(String),
    /// A container's logs.
    Log(String),
    /// What a container has changed in overlays that lie over its layers.
    Overlaid(String),
    /// In a mount point, whose path in the store it is, and not in the union that belongs there.
    Beneath(Bytes),
    BuildCache,
    /// The volume of this name.
    Volume(String),
    /// What is kept beside volumes.
    Volumes,
    /// Images' and layers' records, content that was downloaded.
    Records,
    Other,
}
