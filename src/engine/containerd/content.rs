//! The content store: an image's index, manifest and configuration, each by its digest.
//!
//! ```text
//! <root>/io.containerd.content.v1.content/blobs/sha256/<hex>
//! ```

use std::collections::HashSet;

use super::store::Containerd;
use crate::bytes::Bytes;
use crate::engine::inventory::{Image, LayerName, is_id};
use crate::engine::manifest::{Content, Descriptor, Document};
use crate::engine::oci::{self, ImageConfig};
use crate::engine::platform::{ForPlatform, Platform};
use crate::engine::stored::{Blob, Config, RecordFault, Settings, Sizes, Stored, StoredLayer};
use crate::error::{Error, Result};

/// An index in an index is as deep as anyone has gone.
const INDEXES_MAX: usize = 4;
/// No image is for nearly as many platforms.
const PLATFORMS_MAX: usize = 256;

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

    pub(super) fn document(&self, digest: &str) -> Result<Document> {
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

    /// The platforms that a digest leads to. Of what is no index there is one, and it has no other
    /// manifest.
    ///
    /// # Errors
    /// What is missing or damaged.
    pub fn platforms_of(&self, digest: &str) -> Result<Vec<ForPlatform>> {
        let mut found = Vec::new();
        let mut left = vec![(digest.to_owned(), 0)];
        while let Some((at, depth)) = left.pop() {
            let document = match self.document(&at) {
                // Of an index in an index no more than its digest may be here.
                Err(error) if depth > 0 && error.is_not_found() => continue,
                document => document?,
            };
            if let Some(config) = document.config.as_ref().filter(|_| depth == 0) {
                let platform = self.platform_of_config(&config.digest)?;
                found.push(ForPlatform {
                    platform,
                    manifest: None,
                    is_here: true,
                });
                break;
            }
            for manifest in document.manifests.unwrap_or_default() {
                if manifest.is_index() && depth < INDEXES_MAX {
                    left.push((manifest.digest, depth + 1));
                } else if manifest.is_for_a_platform() && found.len() < PLATFORMS_MAX {
                    found.extend(self.for_platform(manifest));
                }
            }
            if left.len() > PLATFORMS_MAX {
                let what = format!("{digest} leads to more indexes than an image can have");
                return Err(Error::damaged(self.content_store(), what));
            }
        }
        Ok(found)
    }

    /// What an index says of one manifest; none where nothing says for which platform it is.
    fn for_platform(&self, manifest: Descriptor) -> Option<ForPlatform> {
        let config = self.document(&manifest.digest).ok();
        let config = config.and_then(|document| document.config);
        let read = |of: &Descriptor| self.platform_of_config(&of.digest).ok();
        let of_config = config.as_ref().and_then(read);
        Some(ForPlatform {
            is_here: of_config.is_some(),
            platform: manifest.platform.or(of_config)?,
            manifest: Some(manifest.digest),
        })
    }

    fn platform_of_config(&self, digest: &str) -> Result<Platform> {
        let (path, bytes) = self.blob(digest)?;
        serde_json::from_slice(&bytes).map_err(|error| damaged(path, &error))
    }

    /// What leads to an image's layers: the manifest of the platform that was asked for, or else
    /// what the image is called by.
    fn digest_of(image: &Image) -> String {
        let of_platform = image.platform.as_ref().and_then(|of| of.manifest.clone());
        of_platform.unwrap_or_else(|| format!("sha256:{}", image.id))
    }

    /// The indexes, manifests and configurations that an image leads to, for any platform, and that have
    /// not the digest that they are called by. Its own configuration is not among them: who reads the image
    /// has its digest.
    ///
    /// # Errors
    /// What is missing or damaged.
    pub fn blob_faults(&self, image: &Image) -> Result<Vec<RecordFault>> {
        let id = Self::digest_of(image);
        let content = self.content(&id, 0)?;
        let mut faults = Vec::new();
        let mut known = HashSet::from([id.clone(), content.config_digest.clone()]);
        let mut left = vec![(id, true)];
        while let Some((digest, is_document)) = left.pop() {
            let (path, bytes) = match self.blob(&digest) {
                Ok(read) => read,
                // What is for other machines need not be here.
                Err(error) if error.is_absent() && digest != content.manifest_digest => continue,
                Err(error) => return Err(error),
            };
            let own = format!("sha256:{}", oci::digest_of(&bytes));
            if own != digest {
                let what = format!("has the digest {own}");
                faults.push(RecordFault { path, what });
            }
            // What is of another form leads nowhere.
            let document: Option<Document> = serde_json::from_slice(&bytes).ok();
            let Some(document) = document.filter(|_| is_document) else {
                continue;
            };
            let manifests = document.manifests.unwrap_or_default().into_iter();
            let below = manifests.map(|of| (of.digest, true));
            let config = document.config.map(|of| (of.digest, false));
            left.extend(
                below
                    .chain(config)
                    .filter(|(of, _)| known.insert(of.clone())),
            );
            // Each has a manifest, a configuration, and an attestation with its own.
            if known.len() > 4 * PLATFORMS_MAX {
                let what = format!("{digest} leads to more manifests than an image can have");
                return Err(Error::damaged(self.content_store(), what));
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
        let content = self.content(&Self::digest_of(image), 0)?;
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
            is_list: false,
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
