//! An image as it travels between engines: its configuration, its manifest, and of each layer what
//! gives back the very bytes of its archive.

use super::inventory::LayerName;
use super::platform::{ForPlatform, Platform};
use crate::bytes::Bytes;

/// What an engine keeps of an image beside the directories of its layers.
#[derive(Debug, Clone)]
pub struct Stored {
    /// The configuration, byte for byte; none where images had none yet (Docker up to 1.9).
    pub config: Option<Config>,
    /// What its containers run as, where there is no configuration that says so.
    pub settings: Settings,
    /// The manifest, byte for byte, where the layers' archives that it names are kept as well.
    pub manifest: Option<Vec<u8>>,
    /// Bottom first.
    pub layers: Vec<StoredLayer>,
    /// It is a list of the images of several platforms, which has no configuration: each is an image of
    /// its own.
    pub is_list: bool,
}

impl Stored {
    /// What its configuration says that it is for.
    pub fn platform(&self) -> Option<ForPlatform> {
        let config = self.config.as_ref()?;
        let platform: Platform = serde_json::from_slice(&config.bytes).ok()?;
        let is_said = !platform.os.is_empty() && !platform.architecture.is_empty();
        is_said.then_some(ForPlatform {
            platform,
            manifest: None,
            is_here: true,
        })
    }
}

/// An image's configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where it is on the host.
    pub path: Bytes,
    pub bytes: Vec<u8>,
    /// What its SHA-256 has to be, in hexadecimal.
    pub digest: String,
}

/// What an engine keeps of one layer of an image.
#[derive(Debug, Clone)]
pub struct StoredLayer {
    /// The digest of its archive, `sha256:...`; none where layers had none yet.
    pub diff_id: Option<String>,
    /// The layer; none where the layer database does not know it.
    pub name: Option<LayerName>,
    /// Where the recipe of its archive would be: what tar-split wrote.
    pub recipe: Option<Bytes>,
    /// The archive itself, as it was transferred.
    pub blob: Option<Blob>,
    /// How large it is, as records have it.
    pub sizes: Sizes,
}

/// Sizes in bytes, each with the record that has it.
#[derive(Debug, Clone, Default)]
pub struct Sizes {
    /// Of the whole archive, unpacked.
    pub archive: Option<(Bytes, u64)>,
    /// Of what is in its files.
    pub content: Option<(Bytes, u64)>,
}

/// A record that does not say what is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordFault {
    /// Where the record is on the host.
    pub path: Bytes,
    pub what: String,
}

/// A name of no image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameFault {
    pub name: String,
    pub fault: RecordFault,
}

/// A layer's archive in a content store.
#[derive(Debug, Clone)]
pub struct Blob {
    /// Where it is on the host.
    pub path: Bytes,
    /// `sha256:...`, of the archive as it is kept, packed or not.
    pub digest: String,
    pub media_type: String,
}

impl StoredLayer {
    /// What messages call it: its directory's name, or else its digest.
    pub fn label(&self) -> &str {
        let id = self.name.as_ref().map(|name| name.id.as_str());
        id.or(self.diff_id.as_deref()).unwrap_or("unknown")
    }
}

/// What a container runs as: the object `config` of an image's configuration.
pub type Settings = serde_json::Map<String, serde_json::Value>;

/// The keys of an image's configuration that a container's record has as well.
const SETTINGS: [&str; 12] = [
    "Cmd",
    "Entrypoint",
    "Env",
    "ExposedPorts",
    "Healthcheck",
    "Labels",
    "OnBuild",
    "Shell",
    "StopSignal",
    "User",
    "Volumes",
    "WorkingDir",
];

/// What of a container's record an image's configuration can have. What is null takes the place of
/// what the image has.
pub fn settings_of(record: Settings) -> Settings {
    let known = |(key, _): &(String, serde_json::Value)| SETTINGS.contains(&key.as_str());
    record.into_iter().filter(known).collect()
}
