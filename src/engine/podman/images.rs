//! Images: what they are called, their history, and the layers it made.

use std::collections::HashMap;

use rustix::io::Errno;

use super::record::ImageRecord;
use super::store::{NAME, Podman};
use crate::branch::Permission;
use crate::bytes::Bytes;
use crate::engine::inventory::{
    HistoryEntry, Image, ImageLayer, LayerName, Names, sort_newest_first,
};
use crate::engine::manifest::{Descriptor, Document};
use crate::engine::oci::{self, ImageConfig};
use crate::engine::platform::{ForPlatform, Platform};
use crate::engine::stored::{Config, RecordFault, Settings, Sizes, Stored, StoredLayer};
use crate::engine::union::{Owner, OwnerKind, Union};
use crate::error::{Error, Result};

impl Podman<'_> {
    /// Every image of this store itself, newest first. Those that it takes from others are listed
    /// there.
    pub(super) fn read_images(&self) -> Vec<Image> {
        let mut images = Vec::new();
        for record in self.image_records().iter().filter(|of| of.home == 0) {
            let name = record.names.first().unwrap_or(&record.id).clone();
            let read = self.image(record);
            let image = read.and_then(|image| Ok((image, self.lost_data(record)?)));
            let (image, error) = match image {
                Ok((image, None)) => {
                    images.push(image);
                    continue;
                }
                Ok((image, Some(error))) => (Some(image), error),
                Err(error) => (None, error),
            };
            // It was removed since the list was read, and what it had went with it.
            if error.is_not_found() && !self.is_still_listed(&record.id) {
                continue;
            }
            let problem = error.to_string();
            let list = self.kind_of(&self.root, "images");
            self.note(Error::damaged(list, format!("the image {name}: {problem}")));
            images.push(match image {
                Some(image) => Image {
                    problem: Some(problem),
                    ..image
                },
                None => Image {
                    created: record.created.clone(),
                    ..Image::unread(&record.id, &self.driver, record.all_names(), problem)
                },
            });
        }
        sort_newest_first(&mut images, |of| (&of.created, &of.id));
        find_steps(&mut images);
        images
    }

    /// The first file that an image should have and has not, as an error.
    fn lost_data(&self, record: &ImageRecord) -> Result<Option<Error>> {
        for name in &record.data_names {
            let path = self.image_data_path(record, name);
            if self.host.stat(&path)?.is_none() {
                return Ok(Some(Error::io(path, Errno::NOENT)));
            }
        }
        Ok(None)
    }

    /// Whether the lists of images have one now. What cannot be read may have it.
    pub(super) fn is_still_listed(&self, id: &str) -> bool {
        let (records, unread) = self.read_image_records();
        !unread.is_empty() || records.iter().any(|record| record.id == id)
    }

    fn image(&self, record: &ImageRecord) -> Result<Image> {
        let of_layers: u64 = self
            .chain(&record.layer)
            .iter()
            .filter_map(|layer| layer.diff_size)
            .fold(0, u64::saturating_add);
        let of_data = record.data_sizes.values().copied();
        let of_data: u64 = of_data.fold(0, u64::saturating_add);
        if record.is_list() {
            return Ok(self.list_of_images(record, of_data));
        }
        let bytes = self.image_data(record, &record.config_name())?;
        let config = ImageConfig::parse(&bytes).map_err(|what| {
            let what = format!("the configuration of image {} {what}", record.id);
            Error::damaged(self.kind_of(&self.stores[record.home], "images"), what)
        })?;
        let diff_ids = config.diff_ids().map_err(|what| {
            Error::damaged(self.kind_of(&self.stores[record.home], "images"), what)
        })?;
        let mut chain = self.chain(&record.layer);
        chain.reverse();
        let layers = oci::chain_ids(diff_ids)
            .into_iter()
            .zip(diff_ids)
            .enumerate();
        let layers = layers.map(|(at, (chain_id, diff_id))| ImageLayer {
            diff_id: Some(diff_id.clone()),
            chain_id: Some(chain_id),
            cache_id: chain.get(at).map(|layer| layer.id.clone()),
            size: chain.get(at).and_then(|layer| layer.diff_size),
        });
        let history = config.history(layers.collect());
        Ok(Image {
            names: record.all_names(),
            id: record.id.clone(),
            created: config.created.as_ref().unwrap_or(&record.created).clone(),
            driver: self.driver.clone(),
            size: of_layers.saturating_add(of_data),
            parent: None,
            history,
            namespace: None,
            problem: None,
            platform: None,
        })
    }

    /// What is kept of an image that gives back the bytes that were pulled or built.
    ///
    /// # Errors
    /// An image that the store does not list, or that has no configuration.
    pub(super) fn stored_image(&self, image: &Image) -> Result<Stored> {
        let record = self
            .image_record(&image.id)
            .ok_or_else(|| Error::no_such_target(image.id.clone()))?;
        if record.is_list() {
            return Ok(Stored {
                is_list: true,
                config: None,
                settings: Settings::new(),
                manifest: None,
                layers: Vec::new(),
            });
        }
        let name = record.config_name();
        let bytes = self.image_data(record, &name)?;
        let layers = image.history.iter().rev();
        let layers = layers.filter_map(|entry| entry.layer.as_ref());
        let stored = layers.map(|layer| {
            let id = layer.cache_id.clone();
            StoredLayer {
                diff_id: layer.diff_id.clone(),
                recipe: id.as_deref().map(|id| self.recipe(id)),
                name: id.map(|id| LayerName {
                    driver: self.driver.clone(),
                    id,
                    aliases: Vec::new(),
                }),
                blob: None,
                sizes: Sizes {
                    archive: layer
                        .size
                        .map(|size| (self.layer_list(&layer.cache_id), size)),
                    content: None,
                },
            }
        });
        Ok(Stored {
            is_list: false,
            config: Some(Config {
                path: self.image_data_path(record, &name),
                bytes,
                digest: record.id.clone(),
            }),
            settings: Settings::new(),
            manifest: None,
            layers: stored.collect(),
        })
    }

    /// The list that has a layer.
    fn layer_list(&self, id: &Option<String>) -> Bytes {
        let home = id.as_deref().map_or(0, |id| self.home_of(id));
        self.kind_of(&self.stores[home], "layers")
            .join(b"layers.json")
    }

    /// What the lists contradict: the digests of an image's configuration.
    pub(super) fn list_faults(&self, image: &Image) -> Vec<RecordFault> {
        let mut faults = Vec::new();
        let mut below = String::new();
        let layers = image.history.iter().rev();
        for layer in layers.filter_map(|entry| entry.layer.as_ref()) {
            let path = self.layer_list(&layer.cache_id);
            let record = layer
                .cache_id
                .as_deref()
                .and_then(|id| self.layer_record(id));
            let Some(record) = record else {
                let diff_id = layer.diff_id.as_deref().unwrap_or_default();
                let what = format!("does not have the layer {diff_id} of image {}", image.id);
                faults.push(RecordFault { path, what });
                continue;
            };
            if record.diff_digest.is_some() && record.diff_digest != layer.diff_id {
                let own = record.diff_digest.clone().unwrap_or_default();
                let said = layer.diff_id.clone().unwrap_or_default();
                let what = format!(
                    "says that layer {} is {own}, and the image {said}",
                    record.id
                );
                let path = path.clone();
                faults.push(RecordFault { path, what });
            }
            if record.parent != below {
                let what = format!("says that layer {} stands on {}", record.id, record.parent);
                faults.push(RecordFault { path, what });
            }
            below.clone_from(&record.id);
        }
        faults
    }

    /// Where the recipe of a layer's archive is.
    fn recipe(&self, id: &str) -> Bytes {
        let layers = self.kind_of(&self.stores[self.home_of(id)], "layers");
        layers.join(format!("{id}.tar-split.gz").as_bytes())
    }

    /// What a list of images says of each, and the image that is here of it.
    ///
    /// # Errors
    /// A list that is missing or damaged.
    fn instances(&self, list: &ImageRecord) -> Result<Vec<(ForPlatform, Option<&ImageRecord>)>> {
        let path = self.image_data_path(list, "manifest");
        let bytes = self.host.read(&path)?;
        let document: Document = serde_json::from_slice(&bytes).map_err(|error| {
            let what = format!("is no list of images: {error}");
            Error::damaged(path.clone(), what)
        })?;
        let manifests = document.manifests.unwrap_or_default().into_iter();
        let instances = manifests.filter(Descriptor::is_for_a_platform);
        let instances = instances.filter_map(|of| {
            let record = self
                .image_records()
                .iter()
                .find(|image| image.is_called(&of.digest));
            let told = || self.platform_of(record?);
            let instance = ForPlatform {
                platform: of.platform.clone().or_else(told)?,
                is_here: record.is_some(),
                manifest: Some(of.digest),
            };
            Some((instance, record))
        });
        Ok(instances.collect())
    }

    /// What an image's configuration says that it is for.
    fn platform_of(&self, record: &ImageRecord) -> Option<Platform> {
        let bytes = self.image_data(record, &record.config_name()).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    /// Of a list of images, the one that the engine would take here, or else the first that is here.
    ///
    /// # Errors
    /// A list that is missing or damaged.
    fn instance_here(&self, list: &ImageRecord) -> Result<Option<&ImageRecord>> {
        let instances = self.instances(list)?;
        let here = Platform::here();
        let of_here = instances.iter().filter(|(of, _)| of.platform.fits(&here));
        let others = instances.iter();
        let mut found = of_here.chain(others).filter_map(|(_, record)| *record);
        Ok(found.next())
    }

    /// The platforms of an image: of a list, each that it names.
    ///
    /// # Errors
    /// Metadata that is missing or damaged.
    pub(super) fn platforms_of(&self, image: &Image) -> Result<Vec<ForPlatform>> {
        match self.image_record(&image.id).filter(|of| of.is_list()) {
            Some(list) => {
                let instances = self.instances(list)?.into_iter();
                Ok(instances.map(|(of, _)| of).collect())
            }
            None => Ok(self.stored_image(image)?.platform().into_iter().collect()),
        }
    }

    /// An image as it is for one of its platforms: what a list names is an image of its own.
    ///
    /// # Errors
    /// Metadata that is missing or damaged.
    pub(super) fn image_of_platform(&self, image: &Image, of: &ForPlatform) -> Result<Image> {
        let manifest = of.manifest.as_ref();
        let mut records = self.image_records().iter();
        let instance = manifest.and_then(|digest| records.find(|of| of.is_called(digest)));
        match instance {
            Some(record) => self.image(record),
            None => Ok(image.clone()),
        }
    }

    /// A list of the images of several platforms: it has no configuration, and no layers.
    fn list_of_images(&self, record: &ImageRecord, size: u64) -> Image {
        Image {
            names: record.all_names(),
            id: record.id.clone(),
            created: record.created.clone(),
            driver: self.driver.clone(),
            size,
            parent: None,
            history: Vec::new(),
            namespace: None,
            problem: None,
            platform: None,
        }
    }

    /// The union that an image's layers make.
    ///
    /// # Errors
    /// An image that the store does not list; a layer that is missing or damaged.
    pub(super) fn image_union(&self, image: &Image) -> Result<Union> {
        let record = self
            .image_record(&image.id)
            .ok_or_else(|| Error::no_such_target(image.id.clone()))?;
        if record.is_list()
            && let Some(instance) = self.instance_here(record)?
            && !instance.is_list()
        {
            return self.image_union(&self.image(instance)?);
        }
        let mut union = if record.layer.is_empty() {
            self.union(self.kind(), Vec::new())
        } else {
            self.stack(&record.layer, Permission::RO)?
        };
        union.owner = Some(Owner {
            engine: NAME,
            kind: OwnerKind::Image,
            id: image.id.clone(),
            name: image.names.tags.first().cloned(),
            store: self.as_store(),
        });
        self.label_image(&mut union, Some(record));
        Ok(union)
    }

    /// The image that is, or is below, what a union belongs to; none where it is not ours.
    pub(super) fn image_of_union(&self, union: &Union) -> Option<Result<Image>> {
        let owner = union.owner.as_ref().filter(|owner| owner.engine == NAME)?;
        let id = match owner.kind {
            OwnerKind::Layer => return None,
            OwnerKind::Image => owner.id.clone(),
            OwnerKind::Container => self.container_record(&owner.id)?.image.clone(),
        };
        match (self.image_record(&id), owner.kind) {
            // The images of its steps are found among all.
            (Some(record), _) => {
                let found = self
                    .read_images()
                    .into_iter()
                    .find(|image| image.id == record.id);
                Some(found.map_or_else(|| self.image(record), Ok))
            }
            (None, OwnerKind::Container) => {
                let what = format!("does not have the image {id}");
                let path = self.kind_of(&self.root, "images").join(b"images.json");
                Some(Err(Error::damaged(path, what)))
            }
            (None, _) => None,
        }
    }

    pub(super) fn label_image(&self, union: &mut Union, image: Option<&ImageRecord>) {
        let image = image.and_then(|image| {
            let read = self.image(image);
            self.problems.unless_absent(read)
        });
        let steps = image.map(|image| image.steps()).unwrap_or_default();
        union.label_image(&steps, !self.copies());
    }
}

impl ImageRecord {
    /// Whether it stands for images of several platforms.
    pub(super) fn is_list(&self) -> bool {
        let has = |name: &str| self.data_names.iter().any(|of| of == name);
        self.layer.is_empty() && has("instances.json") && !has(&format!("sha256:{}", self.id))
    }

    /// Whether a manifest's digest is one of its own.
    fn is_called(&self, digest: &str) -> bool {
        let mut names = self.data_names.iter();
        self.digest.as_deref() == Some(digest)
            || names.any(|name| name.strip_prefix("manifest-") == Some(digest))
    }

    /// What the store calls the file with the configuration.
    pub(super) fn config_name(&self) -> String {
        format!("sha256:{}", self.id)
    }

    fn all_names(&self) -> Names {
        let names = self.names.iter().cloned();
        let (digests, tags) = names.partition(|name| name.contains('@'));
        Names::new(tags, digests, self.digest.iter().map(String::as_str))
    }
}

/// Finds the image that ended with each step of another one: the one whose whole history is the
/// rest of the other's.
fn find_steps(images: &mut [Image]) {
    type Steps = Vec<(String, Option<String>)>;
    let steps = |history: &[HistoryEntry]| -> Steps {
        let step = |entry: &HistoryEntry| {
            let layer = entry
                .layer
                .as_ref()
                .and_then(|layer| layer.cache_id.clone());
            (entry.instruction.clone(), layer)
        };
        history.iter().map(step).collect()
    };
    let known: HashMap<Steps, String> = images
        .iter()
        .rev()
        .map(|image| (steps(&image.history), image.id.clone()))
        .collect();
    for image in images {
        for at in 0..image.history.len() {
            let of = match at {
                0 => Some(image.id.clone()),
                _ => known.get(&steps(&image.history[at..])).cloned(),
            };
            if at > 0 && image.parent.is_none() {
                image.parent.clone_from(&of);
            }
            image.history[at].image = of;
        }
    }
}
