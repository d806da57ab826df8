//! Images: what they are called, their history, and the layers it made.

use std::collections::HashSet;

use super::driver::{Driver, Stacking};
use super::layer::LayerId;
use super::records::read_json;
use super::store::{DRIVERS_READ, Docker, LayerRecord, NAME};
use crate::bytes::Bytes;
use crate::engine::inventory::{
    self, Container, HistoryEntry, Image, ImageLayer, LayerName, Names, is_id, short,
    sort_newest_first,
};
use crate::engine::oci::{self, CHAIN_MAX, ImageConfig};
use crate::engine::stored::{Config, RecordFault, Settings, Sizes, Stored, StoredLayer};
use crate::engine::union::{Owner, OwnerKind, Role, Union};
use crate::error::{Error, Result};
use rustix::io::Errno;
use serde::Deserialize;

impl Docker<'_> {
    /// Every image, newest first, the intermediate ones too.
    pub(super) fn read_images(&self) -> Vec<Image> {
        self.note_lost_directories();
        let mut images = Vec::new();
        for driver in self.ids(&["image"]) {
            let repositories = ["image", &driver, "repositories.json"];
            let names = self.names(&repositories);
            let ids = self.ids(&["image", &driver, "imagedb", "content", "sha256"]);
            // Docker has one from its first start, as it has records of layers.
            let is_used = !ids.is_empty() && self.is_there(&["image", &driver, "layerdb"]);
            if names.is_empty() && is_used && !self.is_there(&repositories) {
                self.note(Error::io(self.at(&repositories), Errno::NOENT));
            }
            for id in ids {
                let image = self.content_image(&driver, &id);
                let is_lost = image
                    .as_ref()
                    .map_or_else(Error::is_not_found, |image| lost_layer(image).is_some());
                if is_lost && !self.has_image(&driver, &id) {
                    // It was removed since it was listed, and what it had went with it.
                    continue;
                }
                let names = names.get(&id).cloned().unwrap_or_default();
                images.push(match image {
                    Ok(image) => Image { names, ..image },
                    Err(error) => self.unread_image(&driver, &id, names, &error),
                });
            }
            // What is named and not there is missing, not absent, if it still has its name.
            let unread = |id: &&String| !images.iter().any(|image| image.id == **id);
            let unread: Vec<&String> = names.keys().filter(unread).collect();
            for id in unread {
                if let Err(error) = self.content_image(&driver, id)
                    && let Some(names) = self.names(&repositories).remove(id)
                {
                    images.push(self.unread_image(&driver, id, names, &error));
                }
            }
        }
        let graph = self.ids(&["graph"]);
        if !graph.is_empty() {
            let names = self.names(&["repositories-aufs"]);
            for id in graph.into_iter().filter(|id| id != "_tmp") {
                match self.graph_image(&id) {
                    Ok(mut image) => {
                        image.names = names.get(&id).cloned().unwrap_or_default();
                        images.push(image);
                    }
                    Err(error) => self.note(error),
                }
            }
        }
        sort_newest_first(&mut images, |of| (&of.created, &of.id));
        images
    }

    /// An image of which there is only a name: it is told all the same.
    fn unread_image(&self, driver: &str, id: &str, names: Names, error: &Error) -> Image {
        let name = names.tags.first().map_or(id, String::as_str);
        let (path, problem) = (self.at(&["image", driver]), error.to_string());
        self.note(Error::damaged(path, format!("the image {name}: {problem}")));
        Image::unread(id, driver, names, problem)
    }

    /// An image with its layers.
    ///
    /// # Errors
    /// Metadata that is missing or damaged.
    pub(super) fn image(&self, driver: &str, id: &str) -> Result<Image> {
        if is_id(id) && self.is_there(&["graph", id]) {
            self.graph_image(id)
        } else {
            self.content_image(driver, id)
        }
    }

    /// Whether this data directory has an image.
    pub(super) fn has_image(&self, driver: &str, id: &str) -> bool {
        self.is_there(&["graph", id])
            || self.is_there(&["image", driver, "imagedb", "content", "sha256", id])
    }

    /// The image that a container was made from.
    ///
    /// # Errors
    /// Metadata that is missing or damaged.
    pub(super) fn image_of_container(&self, container: &Container) -> Result<Image> {
        self.image(&container.driver, &container.image_id)
    }

    /// The image that is, or is below, what a union belongs to; none where it is not ours.
    pub(super) fn image_of_union(&self, union: &Union) -> Option<Result<Image>> {
        let owner = union.owner.as_ref()?;
        let driver = union.driver.as_deref()?;
        match owner.kind {
            OwnerKind::Image if self.has_image(driver, &owner.id) => {
                Some(self.image(driver, &owner.id))
            }
            OwnerKind::Container if self.is_there(&["containers", &owner.id]) => {
                let container = self.container(&owner.id);
                Some(container.and_then(|container| {
                    let snapshot = self.snapshot_image(
                        &container.driver,
                        &container.image_id,
                        container.manifest.as_deref(),
                    );
                    snapshot.unwrap_or_else(|| self.image_of_container(&container))
                }))
            }
            OwnerKind::Image => {
                let manifest = union
                    .platform
                    .as_ref()
                    .and_then(|of| of.manifest.as_deref());
                let image = self.snapshot_image(driver, &owner.id, manifest)?;
                Some(image.map(|image| Image {
                    platform: union.platform.clone(),
                    ..image
                }))
            }
            _ => None,
        }
    }

    fn content_image(&self, driver: &str, id: &str) -> Result<Image> {
        let (config, path) = self.image_config(driver, id)?;
        let diff_ids = config
            .diff_ids()
            .map_err(|what| Error::damaged(path, what))?;
        let layers = self.image_layers(driver, diff_ids);
        let sizes = layers.iter().filter_map(|layer| layer.size);
        let size = sizes.fold(0, u64::saturating_add);
        let mut parents = self.image_parents(driver, id).into_iter();
        let parent = parents.next();
        let mut next_image = Some(id.to_owned());
        let mut history = config.history(layers);
        // Docker still has the images that ended with earlier steps where it built them here.
        let mut parents = parent.iter().cloned().chain(parents);
        for entry in &mut history {
            entry.image = next_image.take();
            next_image = parents.next();
        }
        Ok(Image {
            id: id.to_owned(),
            names: Names::default(),
            created: config.created.unwrap_or_default(),
            driver: driver.to_owned(),
            size,
            parent,
            history,
            namespace: None,
            problem: None,
            platform: None,
        })
    }

    /// Where an image's configuration is.
    pub(super) fn image_path(&self, driver: &str, id: &str) -> Bytes {
        self.at(&["image", driver, "imagedb", "content", "sha256", id])
    }

    /// An image's configuration, and where that is.
    fn image_config(&self, driver: &str, id: &str) -> Result<(ImageConfig, Bytes)> {
        let path = self.image_path(driver, id);
        if !is_id(id) {
            return Err(Error::damaged(path, "is not an image id"));
        }
        let bytes = self.host.read(&path)?;
        let config = ImageConfig::parse(&bytes);
        let config = config.map_err(|what| Error::damaged(path.clone(), what))?;
        Ok((config, path))
    }

    /// What made the layers of a union, newest first, if they are an image's: when the topmost one
    /// is the image's, so are those below, which need not be asked one by one.
    fn steps_of(&self, union: &Union, driver: &str, id: &str) -> Option<Vec<(String, String)>> {
        let (config, _) = self.image_config(driver, id).ok()?;
        let diff_ids = config.diff_ids().ok()?;
        let plain = union
            .branches
            .iter()
            .filter(|branch| branch.layer.role == Role::Plain);
        let own: Option<Vec<&String>> = plain.map(|branch| branch.layer.id.as_ref()).collect();
        let own = own.filter(|own| own.len() == diff_ids.len())?;
        let chain_ids = oci::chain_ids(diff_ids);
        let hex = chain_ids.last()?.trim_start_matches("sha256:");
        let top = ["image", driver, "layerdb", "sha256", hex, "cache-id"];
        if !is_id(hex) || self.id(&top).as_ref() != own.first().copied() {
            return None;
        }
        let layers = own.iter().rev().map(|id| ImageLayer {
            diff_id: None,
            chain_id: None,
            cache_id: Some((*id).clone()),
            size: None,
        });
        Some(inventory::steps(config.history(layers.collect())))
    }

    /// The images below an image that was built here, nearest first.
    fn image_parents(&self, driver: &str, id: &str) -> Vec<String> {
        let mut chain: Vec<String> = Vec::new();
        let mut at = id.to_owned();
        while chain.len() < CHAIN_MAX {
            let parts = [
                "image", driver, "imagedb", "metadata", "sha256", &at, "parent",
            ];
            let key = (driver.to_owned(), at.clone());
            let known = self.parents.borrow().get(&key).cloned();
            let parent = known.unwrap_or_else(|| {
                let read = self.problems.keep(|| self.word(&parts));
                self.parents.borrow_mut().insert(key, read.clone());
                read
            });
            let Some(parent) = self.problems.tell(&parent).clone() else {
                break;
            };
            let parent = parent.trim_start_matches("sha256:").to_owned();
            if !is_id(&parent) || parent == id || chain.contains(&parent) {
                break;
            }
            chain.push(parent.clone());
            at = parent;
        }
        chain
    }

    /// The directory of a layer, and its size in bytes, as the record of its chain id says.
    fn read_layer(&self, driver: &str, hex: &str) -> LayerRecord {
        if !is_id(hex) {
            return (None, None);
        }
        let at = |name| ["image", driver, "layerdb", "sha256", hex, name];
        let cache_id = self.id(&at("cache-id"));
        (cache_id, self.size_beside(&at("size"), &at("cache-id")))
    }

    /// Layers, bottom first, from the diff ids of an image's configuration.
    fn image_layers(&self, driver: &str, diff_ids: &[String]) -> Vec<ImageLayer> {
        oci::chain_ids(diff_ids)
            .into_iter()
            .zip(diff_ids)
            .map(|(chain_id, diff_id)| {
                let hex = chain_id.trim_start_matches("sha256:");
                // Images share most of their layers.
                let key = (driver.to_owned(), chain_id.clone());
                let known = self.records.borrow().get(&key).cloned();
                let record = known.unwrap_or_else(|| {
                    let read = self.problems.keep(|| self.read_layer(driver, hex));
                    self.records.borrow_mut().insert(key, read.clone());
                    read
                });
                let (cache_id, size) = self.problems.tell(&record).clone();
                ImageLayer {
                    diff_id: Some(diff_id.clone()),
                    cache_id,
                    size,
                    chain_id: Some(chain_id.clone()),
                }
            })
            .collect()
    }

    /// What is kept of an image that gives back the bytes that were pulled or built.
    ///
    /// # Errors
    /// Metadata that is missing or damaged.
    pub(super) fn stored_image(&self, image: &Image) -> Result<Stored> {
        if self.is_there(&["graph", &image.id]) {
            return Ok(Stored {
                is_list: false,
                config: None,
                settings: self.graph_json(&image.id)?.config.unwrap_or_default(),
                manifest: None,
                layers: self.stored_layers(image, |layer| {
                    let id = layer.cache_id.as_deref()?;
                    Some(self.at(&["graph", id, "tar-data.json.gz"]))
                }),
            });
        }
        let path = self.image_path(&image.driver, &image.id);
        if let Some(stored) = self.stored_snapshot_image(image) {
            return stored;
        }
        let recipe = |layer: &ImageLayer| {
            let hex = layer.chain_id.as_deref()?.trim_start_matches("sha256:");
            let database = self.at(&["image", &image.driver, "layerdb", "sha256"]);
            is_id(hex).then(|| database.join(hex.as_bytes()).join(b"tar-split.json.gz"))
        };
        Ok(Stored {
            is_list: false,
            config: Some(Config {
                bytes: self.host.read(&path)?,
                digest: image.id.clone(),
                path,
            }),
            settings: Settings::new(),
            manifest: None,
            layers: self.stored_layers(image, recipe),
        })
    }

    /// A file of the layer database.
    fn layer_record(&self, driver: &str, chain_id: &str, name: &str) -> Bytes {
        let hex = chain_id.trim_start_matches("sha256:");
        let database = self.at(&["image", driver, "layerdb", "sha256"]);
        database.join(hex.as_bytes()).join(name.as_bytes())
    }

    /// What the layer database contradicts: the digests of an image's configuration.
    ///
    /// # Errors
    /// A record that cannot be read.
    pub(super) fn layer_record_faults(&self, image: &Image) -> Result<Vec<RecordFault>> {
        let mut faults = Vec::new();
        let mut below: Option<String> = None;
        let layers = image.history.iter().rev();
        for layer in layers.filter_map(|entry| entry.layer.as_ref()) {
            let (Some(chain_id), Some(diff_id)) = (&layer.chain_id, &layer.diff_id) else {
                continue;
            };
            let hex = chain_id.trim_start_matches("sha256:");
            if !is_id(hex) {
                return Ok(faults);
            }
            let said =
                |name: &str| self.word(&["image", &image.driver, "layerdb", "sha256", hex, name]);
            let names = [("diff", Some(diff_id)), ("parent", below.as_ref())];
            for (name, expected) in names {
                let own = said(name);
                if own.as_ref() != expected {
                    let none = "nothing".to_owned();
                    let (own, expected) = (own.unwrap_or(none.clone()), expected.unwrap_or(&none));
                    faults.push(RecordFault {
                        path: self.layer_record(&image.driver, chain_id, name),
                        what: format!("says {own}, and the image {expected}"),
                    });
                }
            }
            if layer.cache_id.is_none() {
                faults.push(RecordFault {
                    path: self.layer_record(&image.driver, chain_id, "cache-id"),
                    what: "does not name the layer's directory".into(),
                });
            }
            below = Some(chain_id.clone());
        }
        Ok(faults)
    }

    fn stored_layers(
        &self,
        image: &Image,
        recipe: impl Fn(&ImageLayer) -> Option<Bytes>,
    ) -> Vec<StoredLayer> {
        let layers = image.history.iter().rev();
        let layers = layers.filter_map(|entry| entry.layer.as_ref());
        let stored = layers.map(|layer| StoredLayer {
            diff_id: layer.diff_id.clone(),
            name: layer.cache_id.clone().map(|id| LayerName {
                driver: image.driver.clone(),
                id,
                aliases: Vec::new(),
            }),
            recipe: recipe(layer),
            blob: None,
            sizes: Sizes {
                archive: None,
                content: layer
                    .chain_id
                    .as_deref()
                    .zip(layer.size)
                    .map(|(chain_id, size)| {
                        (self.layer_record(&image.driver, chain_id, "size"), size)
                    }),
            },
        });
        stored.collect()
    }

    fn graph_json(&self, id: &str) -> Result<GraphImage> {
        let path = self.at(&["graph", id, "json"]);
        if !is_id(id) {
            return Err(Error::damaged(path, "is not an image id"));
        }
        read_json(self.host, &path)
    }

    fn graph_image(&self, id: &str) -> Result<Image> {
        let json = self.graph_json(id)?;
        let history = self.graph_history(id)?;
        Ok(Image {
            id: id.to_owned(),
            names: Names::default(),
            created: json.created.unwrap_or_default(),
            driver: "aufs".into(),
            size: history
                .iter()
                .filter_map(|entry| entry.layer.as_ref()?.size)
                .fold(0, u64::saturating_add),
            parent: json.parent.filter(|parent| !parent.is_empty()),
            history,
            namespace: None,
            problem: None,
            platform: None,
        })
    }

    /// An image and its parents, newest first. Each is a layer of its own.
    fn graph_history(&self, id: &str) -> Result<Vec<HistoryEntry>> {
        let mut history = Vec::new();
        let mut seen = HashSet::new();
        let mut next = Some(id.to_owned());
        while let Some(id) = next.take() {
            if !seen.insert(id.clone()) || seen.len() > CHAIN_MAX {
                return Err(Error::damaged(
                    self.at(&["graph", &id, "json"]),
                    "is its own ancestor: a loop of parents",
                ));
            }
            let json = self.graph_json(&id)?;
            let size = self.size(&["graph", &id, "layersize"]).or(json.size);
            history.push(HistoryEntry {
                created: json.created.unwrap_or_default(),
                instruction: json
                    .container_config
                    .unwrap_or_default()
                    .cmd
                    .unwrap_or_default()
                    .join(" "),
                comment: json.comment.unwrap_or_default(),
                image: Some(id.clone()),
                layer: Some(ImageLayer {
                    diff_id: None,
                    chain_id: None,
                    cache_id: Some(id),
                    size,
                }),
            });
            next = json.parent.filter(|parent| !parent.is_empty());
        }
        Ok(history)
    }

    /// The union that an image's layers make, topmost first, as a container would see them.
    ///
    /// # Errors
    /// An image of a driver that is not read; a layer whose directory is not known.
    pub(super) fn image_union(&self, image: &Image) -> Result<Union> {
        let driver = Driver::named(&image.driver).ok_or_else(|| Error::Refused {
            what: format!(
                "image {} belongs to the storage driver {}",
                short(&image.id),
                image.driver
            ),
            hint: DRIVERS_READ.into(),
        })?;
        let layers = image
            .history
            .iter()
            .filter_map(|entry| entry.layer.as_ref());
        let layers = layers.map(|layer| LayerId {
            driver,
            id: layer.cache_id.clone().unwrap_or_else(|| {
                // Kept as a branch that cannot be read, so that no answer seems sure.
                let chain_id = layer.chain_id.clone().unwrap_or_default();
                let what = format!("does not know the layer {chain_id}");
                self.note(Error::damaged(
                    self.at(&["image", &image.driver, "layerdb"]),
                    what,
                ));
                let hex = chain_id.trim_start_matches("sha256:");
                if is_id(hex) {
                    hex.to_owned()
                } else {
                    "unknown".to_owned()
                }
            }),
        });
        let union = self.image_stack(driver, layers.collect());
        let mut union = Union {
            owner: Some(Owner {
                engine: NAME,
                kind: OwnerKind::Image,
                id: image.id.clone(),
                name: image.names.tags.first().cloned(),
                store: self.store(&image.driver),
            }),
            ..union
        };
        self.label_image(&mut union, &image.driver, &image.id);
        Ok(union)
    }

    /// Numbers the image's layers and gives each its instruction. An image that is gone tells
    /// nothing.
    pub(super) fn label_image(&self, union: &mut Union, driver: &str, image: &str) {
        let is_stack =
            Driver::named(driver).is_none_or(|driver| driver.stacking() == Stacking::Differences);
        let known = if is_stack {
            self.steps_of(union, driver, image)
        } else {
            None
        };
        let steps = known.unwrap_or_else(|| {
            let image = self.image(driver, image);
            let image = image.map_err(|error| self.note_unless_absent(error)).ok();
            image.map(Image::steps).unwrap_or_default()
        });
        union.label_image(&steps, is_stack);
    }
}

#[derive(Deserialize)]
struct GraphImage {
    parent: Option<String>,
    created: Option<String>,
    comment: Option<String>,
    container_config: Option<GraphConfig>,
    /// What its containers run as.
    config: Option<Settings>,
    #[serde(rename = "Size")]
    size: Option<u64>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct GraphConfig {
    #[serde(rename = "Cmd")]
    cmd: Option<Vec<String>>,
}
/// What Docker says of an image with a layer that no record has.
pub(super) fn lost_words(chain_id: &str) -> String {
    format!("has the layer {chain_id}, whose record is gone: \"layer does not exist\"")
}

/// The chain id of the layer that an image has lost.
pub(super) fn lost_layer(image: &Image) -> Option<&str> {
    image.lost_layer()?.chain_id.as_deref()
}
