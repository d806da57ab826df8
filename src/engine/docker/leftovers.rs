//! What nothing of Docker's refers to, and what refers to what is gone.

use std::collections::HashSet;

use super::driver::Driver;
use super::images::{lost_layer, lost_words};
use super::layer::LayerId;
use super::store::Docker;
use super::usage::REMOVING;
use crate::engine::interface::Engine;
use crate::engine::inventory::{BUILDERS_ID, DOCKERS_ID, Image};
use crate::engine::usage::{LayerUse, Leftover, LeftoverKind, UseKind};
use crate::error::Result;

impl Docker<'_> {
    pub(super) fn find_leftovers(&self) -> Result<Vec<Leftover>> {
        let (uses, images) = (self.read_uses()?, self.read_images());
        let mut found = self.leftover_directories(&uses, &images)?;
        for driver in Driver::ALL {
            let of_driver = uses.iter().filter(|of| of.layer.driver == driver.name());
            let here = of_driver.map(|of| of.layer.id.trim_end_matches(REMOVING));
            found.extend(self.leftover_records(driver, &here.collect())?);
            if driver.content().1.is_some() && driver != Driver::Overlay {
                let dangling = self.linked(driver).dangling(0)?.into_iter();
                found.extend(dangling.map(|(path, target)| {
                    let why = format!("it leads to {target}, which is gone");
                    Leftover::new(LeftoverKind::Link, path, why)
                }));
            }
        }
        found.extend(self.leftover_images(&images));
        found.extend(self.leftover_containers()?);
        for containerd in self.own_containerds() {
            found.extend(containerd.leftovers()?);
        }
        Ok(found)
    }

    /// The layers' directories that a removal left, or that nothing has.
    fn leftover_directories(&self, uses: &[LayerUse], images: &[Image]) -> Result<Vec<Leftover>> {
        let mut found = Vec::new();
        let lost = self.drivers_with_lost_names(images)?;
        for of in uses {
            let Some(driver) = Driver::named(&of.layer.driver) else {
                continue;
            };
            let (kind, why) = if let Some(own) = of.layer.id.strip_suffix(REMOVING) {
                let why = match of.containers.first() {
                    Some(container) => format!(
                        "container {} was being removed; its record is still there",
                        container.name
                    ),
                    None => format!("layer {own} was being removed"),
                };
                (LeftoverKind::HalfRemoved, why)
            } else if of.kind == UseKind::Unknown && !lost.contains(driver.name()) {
                let why = "no image, no container and no builder's record has this layer";
                (LeftoverKind::Directory, why.to_owned())
            } else {
                continue;
            };
            let path = self.at(driver.content().0).join(of.layer.id.as_bytes());
            found.push(Leftover::new(kind, path, why));
        }
        Ok(found)
    }

    /// The drivers of which an image or a container names layers that no record has, so that one without
    /// a record may be any of them. What a container's own layer names is known without.
    fn drivers_with_lost_names(&self, images: &[Image]) -> Result<HashSet<String>> {
        let images = images.iter().filter(|image| lost_layer(image).is_some());
        let mut lost: HashSet<String> = images.map(|image| image.driver.clone()).collect();
        for here in self.drivers_here() {
            let driver = here.driver;
            let mounts = self.at(&["image", driver.name(), "layerdb", "mounts"]);
            for (cid, _) in self.host.list(&mounts)? {
                let record = mounts.join(&cid);
                let parent = self.recorded(&record, "parent")?.unwrap_or_default();
                if parent.is_empty() || self.has_layer_record(driver, &parent)? {
                    continue;
                }
                let id = self.recorded(&record, "mount-id")?.unwrap_or_default();
                if self.named_below(driver, &id)?.is_empty() {
                    lost.insert(driver.name().to_owned());
                }
            }
        }
        Ok(lost)
    }

    /// A driver's records of layers, of what is being made, and of mounts, whose layers are not
    /// here.
    fn leftover_records(&self, driver: Driver, here: &HashSet<&str>) -> Result<Vec<Leftover>> {
        let mut found = Vec::new();
        let database = self.at(&["image", driver.name(), "layerdb"]);
        let records = database.join(b"sha256");
        for (hex, _) in self.host.list(&records)? {
            let record = records.join(&hex);
            if hex.ends_with(REMOVING.as_bytes()) {
                let why = "the layer was being removed";
                found.push(Leftover::new(LeftoverKind::HalfRemoved, record, why));
                continue;
            }
            let metadata = |path, why| Leftover::new(LeftoverKind::Metadata, path, why);
            found.push(
                match self.recorded(&record, "cache-id").unwrap_or_default() {
                    Some(id) if here.contains(id.as_str()) => continue,
                    Some(id) if is_whole(&id) => {
                        metadata(record, format!("its layer {id} is gone"))
                    }
                    Some(id) => Leftover::record(record, format!("{id} is no layer's whole name")),
                    None if self.host.list(&record)?.is_empty() => {
                        metadata(record, "it names no layer".to_owned())
                    }
                    // What else it has is nowhere else.
                    None => Leftover::record(record, "it does not name its layer any more"),
                },
            );
        }
        let sets = database.join(b"tmp");
        for (set, _) in self.host.list(&sets)? {
            let record = sets.join(&set);
            let id = self.recorded(&record, "cache-id").unwrap_or_default();
            // One whose layer is there may be at work.
            if let Some(id) = id.filter(|id| !here.contains(id.as_str())) {
                let why = format!("what was being made for it, the layer {id}, is gone");
                found.push(Leftover::new(LeftoverKind::Temporary, record, why));
            }
        }
        found.extend(self.leftover_mounts(driver, here)?);
        Ok(found)
    }

    /// The records of containers' layers whose container or layer is not here.
    fn leftover_mounts(&self, driver: Driver, here: &HashSet<&str>) -> Result<Vec<Leftover>> {
        let mut found = Vec::new();
        let mounts = self.at(&["image", driver.name(), "layerdb", "mounts"]);
        let built = self.build_cache()?;
        for (cid, _) in self.host.list(&mounts)? {
            let record = mounts.join(&cid);
            let cid = String::from_utf8_lossy(&cid).into_owned();
            let id = self.recorded(&record, "mount-id")?.unwrap_or_default();
            if self.host.stat(&self.at(&["containers", &cid]))?.is_none() {
                // A builder's step has a layer without a container.
                if !built.contains(&cid) && !built.contains(&id) {
                    let layer = LayerId { driver, id };
                    let why = if self.is_builders_mount(&cid) {
                        "the builder does not know this step of its any more"
                    } else {
                        "its container is gone"
                    };
                    found.push(Leftover {
                        layer: Some(self.content_dir(&layer)),
                        ..Leftover::new(LeftoverKind::Metadata, record, why)
                    });
                }
                continue;
            }
            if !id.is_empty() && !here.contains(id.as_str()) {
                let why = format!("the container's layer {id} is gone");
                found.push(Leftover::record(record, why));
                continue;
            }
            let parent = self.recorded(&record, "parent")?.unwrap_or_default();
            if !parent.is_empty() && !self.has_layer_record(driver, &parent)? {
                let why = format!(
                    "the container stands on the layer {parent}, whose record is gone: \"layer does not exist\""
                );
                found.push(Leftover::record(record, why));
            }
        }
        Ok(found)
    }

    /// Whether Docker has a layer of this chain id.
    fn has_layer_record(&self, driver: Driver, chain_id: &str) -> Result<bool> {
        let hex = chain_id.trim_start_matches("sha256:");
        let record = self.at(&["image", driver.name(), "layerdb", "sha256"]);
        let id = self.recorded(&record.join(hex.as_bytes()), "cache-id")?;
        Ok(id.is_some_and(|id| !id.is_empty()))
    }

    /// The images whose layers' records, or whose configurations, are not here.
    fn leftover_images(&self, images: &[Image]) -> Vec<Leftover> {
        let mut found = Vec::new();
        for image in images {
            let Some(chain_id) = lost_layer(image) else {
                continue;
            };
            let name = image.names.tags.first().unwrap_or(&image.id);
            let why = format!("the image {name} {}", lost_words(chain_id));
            found.push(Leftover::record(
                self.image_path(&image.driver, &image.id),
                why,
            ));
        }
        for driver in self.ids(&["image"]) {
            let metadata = ["image", &driver, "imagedb", "metadata", "sha256"];
            let mut named: HashSet<String> = self
                .names(&["image", &driver, "repositories.json"])
                .into_keys()
                .collect();
            for id in self.ids(&metadata) {
                let record = self.at(&metadata).join(id.as_bytes());
                let parent = self.recorded(&record, "parent").unwrap_or_default();
                named.extend(parent.map(|parent| parent.trim_start_matches("sha256:").to_owned()));
            }
            for id in self.ids(&metadata) {
                if !self.has_image(&driver, &id) {
                    let path = self.at(&metadata).join(id.as_bytes());
                    let why = "the image's configuration is gone";
                    found.push(if named.contains(&id) {
                        Leftover::record(
                            path,
                            format!("{why}, and another image or a name stands on it"),
                        )
                    } else {
                        Leftover::new(LeftoverKind::Metadata, path, why)
                    });
                }
            }
        }
        found
    }

    /// The containers' directories without a configuration. A removal takes the layer first: one whose
    /// layer is recorded has lost it, and has the container's logs.
    fn leftover_containers(&self) -> Result<Vec<Leftover>> {
        let mut found = Vec::new();
        for id in self.ids(&["containers"]) {
            if self.recorded_container(&id)?.is_none() {
                let path = self.at(&["containers", &id]);
                let has_layer = |driver: &String| {
                    self.is_there(&["image", driver, "layerdb", "mounts", &id, "mount-id"])
                };
                let mut containerds = self.own_containerds();
                let has_snapshot = containerds.any(|of| {
                    let mut layers = of.layers().into_iter();
                    layers.any(|layer| layer.aliases.contains(&id))
                });
                found.push(
                    if has_snapshot || self.ids(&["image"]).iter().any(has_layer) {
                        Leftover::record(
                            path,
                            "it has no configuration any more, and its layer is there",
                        )
                    } else {
                        Leftover::new(LeftoverKind::Metadata, path, "it has no configuration")
                    },
                );
            }
        }
        Ok(found)
    }
}

/// Whether a name is as long as those of layers are: Docker's own, or its builder's.
fn is_whole(id: &str) -> bool {
    matches!(id.len(), DOCKERS_ID | BUILDERS_ID)
}
