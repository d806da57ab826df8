//! What leads from an image's digest to its layers: indexes and manifests.
//!
//! ```text
//! index     {"manifests": [{"digest", "size", "platform": {"os", "architecture"}, "annotations"}]}
//! manifest  {"config": {"digest", "size"}, "layers": [{"digest", "size"}]}
//! ```

use serde::Deserialize;

use super::inventory::null_default;
use super::oci::ImageConfig;
use super::platform::Platform;

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Descriptor {
    pub digest: String,
    #[serde(rename = "mediaType", deserialize_with = "null_default")]
    pub media_type: String,
    #[serde(deserialize_with = "null_default")]
    pub size: u64,
    pub platform: Option<Platform>,
    #[serde(deserialize_with = "null_default")]
    pub annotations: std::collections::HashMap<String, String>,
}

/// An index or a manifest.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Document {
    pub manifests: Option<Vec<Descriptor>>,
    pub config: Option<Descriptor>,
    pub layers: Option<Vec<Descriptor>>,
}

/// What a digest of an image leads to, for one platform.
pub struct Content {
    pub config: ImageConfig,
    /// Bytes of all that is transferred: index, manifest, configuration and layers.
    pub size: u64,
    pub manifest_digest: String,
    pub config_digest: String,
    pub layers: Vec<Descriptor>,
}

impl Descriptor {
    /// Beside the manifests of platforms there can be attestations of them.
    pub fn is_for_a_platform(&self) -> bool {
        !self.annotations.contains_key("vnd.docker.reference.type")
            && self
                .platform
                .as_ref()
                .is_none_or(|platform| platform.os != "unknown")
    }

    pub fn is_for_this_machine(&self) -> bool {
        let platform = self.platform.as_ref();
        platform.is_some_and(|platform| platform.fits(&Platform::here()))
    }

    /// Whether it is an index once more.
    pub fn is_index(&self) -> bool {
        self.media_type.contains("index") || self.media_type.contains("manifest.list")
    }
}
