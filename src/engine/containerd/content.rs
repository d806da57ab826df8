//! The content store: an image's index, manifest and configuration, each by its digest.
//!
//! ```text
//! <root>/io.containerd.content.v1.content/blobs/sha256/<hex>
//! index     {"manifests": [{"digest", "size", "platform": {"os", "architecture"}, "annotations"}]}
//! manifest  {"config": {"digest", "size"}, "layers": [{"digest", "size"}]}
//! ```

use super::manifest::{Content, Descriptor, Document};
use super::store::Containerd;
use crate::bytes::Bytes;
use crate::engine::inventory::{Image, LayerName, is_id};
use crate::engine::oci::{self, ImageConfig};
use crate::engine::stored::{Blob, Config, RecordFault, Settings, Sizes, Stored, StoredLayer};
use crate::error::{Error, Result};

/// An index in an index is as deep as anyone has gone.
const INDEXES_MAX: usize = 4;

impl Containerd<'_> {
    pub(super) fn content_store(&self) -> Bytes {
        self.root.join(b"io.containerd.content.v1.content")
    }

    /// Where a blob is.
    pub(super) fn blob_path(&self, digest: &str) -> Bytes {
        let (algorithm, hex) = digest.split_once(':').unwrap_or(("", digest));
        let store = self.content_store().join(b"blobs");
        store.join(algorithm.as_bytes()).join(hex.as_bytes())
    }

    fn blob(&self, digest: &str) -> Result<(Bytes, Vec<u8>)> {
        let store = self.content_store().join(b"blobs");
        let (algorithm, hex) = digest.split_once(':').unwrap_or(("", digest));
        if !is_id(algorithm) || !is_id(hex) {
            return Err(Error::damaged(store, "is asked for what is no digest"));
        }
        let path = self.blob_path(digest);
        let bytes = self.host.read(&path)?;
        Ok((path, bytes))
    }

    fn document(&self, digest: &str) -> Result<Document> {
        let (path, bytes) = self.blob(digest)?;
        serde_json::from_slice(&bytes).map_err(|error| damaged(path, &error))
    }

    /// What an image's digest leads to. Of several platforms the machine's own is taken, or the
    /// first that is there.
    ///
    /// # Errors
    /// What is missing or damaged.
    pub(super) fn content(&self, digest: &str, size: u64) -> Result<Content> {
        let mut size = size;
        let mut at = digest.to_owned();
        for _ in 0..INDEXES_MAX {
            let document = self.document(&at)?;
            if let Some(config) = document.config {
                let (path, bytes) = self.blob(&config.digest)?;
                let read = ImageConfig::parse(&bytes);
                let read = read.map_err(|what| Error::damaged(path, what))?;
                let layers = document.layers.unwrap_or_default();
                size += layers.iter().map(|layer| layer.size).sum::<u64>() + config.size;
                return Ok(Content {
                    config: read,
                    size,
                    manifest_digest: at,
                    config_digest: config.digest,
                    layers,
                });
            }
            let mut manifests = document.manifests.unwrap_or_default();
            manifests.retain(Descriptor::is_for_a_platform);
            manifests.sort_by_key(|manifest| !manifest.is_for_this_machine());
            let is_here = |manifest: &&Descriptor| self.document(&manifest.digest).is_ok();
            let Some(manifest) = manifests.iter().find(is_here).or(manifests.first()) else {
                break;
            };
            size += manifest.size;
            at.clone_from(&manifest.digest);
        }
        let store = self.content_store();
        Err(Error::damaged(
            store,
            format!("{digest} leads to no manifest"),
        ))
    }
    /// The manifests of an image whose digest is not the one that they are called by.
    ///
    /// # Errors
    /// What is missing or damaged.
    pub fn blob_faults(&self, image: &Image) -> Result<Vec<RecordFault>> {
        let id = format!("sha256:{}", image.id);
        let content = self.content(&id, 0)?;
        let mut faults = Vec::new();
        let mut digests = vec![id, content.manifest_digest];
        digests.dedup();
        for digest in digests {
            let (path, bytes) = self.blob(&digest)?;
            let own = format!("sha256:{}", oci::digest_of(&bytes));
            if own != digest {
                let what = format!("has the digest {own}");
                faults.push(RecordFault { path, what });
            }
        }
        Ok(faults)
    }

    /// What is kept of an image that gives back the bytes that were pulled: everything, but for what
    /// of its content has been thrown away.
    ///
    /// # Errors
    /// What is missing or damaged.
    pub fn stored_image(&self, image: &Image) -> Result<Stored> {
        let content = self.content(&format!("sha256:{}", image.id), 0)?;
        let (path, bytes) = self.blob(&content.config_digest)?;
        let (_, manifest) = self.blob(&content.manifest_digest)?;
        let layers = image.history.iter().rev();
        let layers = layers.filter_map(|entry| entry.layer.as_ref());
        // Where there are as many blobs as layers, one is the other's.
        let mut blobs = content.layers.iter();
        let stored = layers.map(|layer| {
            let blob = blobs.next().filter(|blob| is_digest(&blob.digest));
            StoredLayer {
                diff_id: layer.diff_id.clone(),
                name: layer.cache_id.clone().map(|id| LayerName {
                    driver: image.driver.clone(),
                    id,
                    aliases: Vec::new(),
                }),
                recipe: None,
                sizes: Sizes::default(),
                blob: blob.map(|blob| Blob {
                    path: self.blob_path(&blob.digest),
                    digest: blob.digest.clone(),
                    media_type: blob.media_type.clone(),
                }),
            }
        });
        Ok(Stored {
            config: Some(Config {
                path,
                bytes,
                digest: content
                    .config_digest
                    .trim_start_matches("sha256:")
                    .to_owned(),
            }),
            settings: Settings::new(),
            manifest: Some(manifest),
            layers: stored.collect(),
        })
    }
}

fn is_digest(digest: &str) -> bool {
    digest.strip_prefix("sha256:").is_some_and(is_id)
}

fn damaged(path: Bytes, error: &serde_json::Error) -> Error {
    Error::damaged(path, format!("is not what an image has: {error}"))
}
