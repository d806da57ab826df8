//! What leads from an image's digest to its layers: indexes and manifests.
//!
//! ```text
//! index     {"manifests": [{"digest", "size", "platform": {"os", "architecture"}, "annotations"}]}
//! manifest  {"config": {"digest", "size"}, "layers": [{"digest", "size"}]}
//! ```

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

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
    #[serde(deserialize_with = "few")]
    pub manifests: Option<Vec<Descriptor>>,
    pub config: Option<Descriptor>,
    #[serde(deserialize_with = "few")]
    pub layers: Option<Vec<Descriptor>>,
}

/// No image has as many layers, nor is for as many platforms: who wrote the document decides how long a
/// list is, and not how much memory that takes.
const DESCRIPTORS_MAX: usize = 10_000;

fn few<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<Descriptor>>, D::Error> {
    struct Few;
    impl<'de> Visitor<'de> for Few {
        type Value = Option<Vec<Descriptor>>;

        fn expecting(&self, words: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(words, "a list of at most {DESCRIPTORS_MAX}")
        }

        fn visit_unit<E>(self) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
            let mut all = Vec::new();
            while let Some(next) = list.next_element()? {
                if all.len() == DESCRIPTORS_MAX {
                    return Err(serde::de::Error::invalid_length(all.len() + 1, &self));
                }
                all.push(next);
            }
            Ok(Some(all))
        }
    }
    from.deserialize_any(Few)
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
