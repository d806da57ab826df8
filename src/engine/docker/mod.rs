//! Docker's own files, read without a daemon.
//!
//! ```text
//! 1.10 and newer                                   1.9 and older
//! containers/<cid>/config.v2.json                  containers/<cid>/config.json
//! image/<driver>/repositories.json                 repositories-<driver>
//! image/<driver>/imagedb/content/sha256/<image>    graph/<image>/{json,layersize}
//! image/<driver>/layerdb/sha256/<chain>/{cache-id,diff,parent,size}
//! image/<driver>/layerdb/mounts/<cid>/{mount-id,init-id,parent}
//! ```
//!
//! Where the layers themselves are is the storage driver's affair: `driver`; those of the newer
//! image store are containerd's: `snapshots`. With remapped users everything is once more below
//! `<uid>.<gid>/` of the data directory.
//!
//! Every id read from a file is checked before it becomes part of a path.

mod config;
mod containers;
mod driver;
mod images;
mod layer;
mod layers;
mod leftovers;
mod names;
mod needs;
mod paths;
mod records;
mod removed;
mod roots;
mod snapshots;
mod store;
mod unused;
mod usage;

use self::driver::{Driver, Stacking};
use self::layer::LayerId;
use crate::bytes::Bytes;
use crate::engine::cover::Cover;
use crate::engine::interface::{Description, Engine};
use crate::engine::inventory::{Container, Image, LayerName, sort_newest_first};
use crate::engine::platform::ForPlatform;
use crate::engine::stored::{NameFault, RecordFault, Settings, Stored};
use crate::engine::union::{Owner, Union};
use crate::engine::usage::{Fault, LayerUse, Leftover, Need, Space};
use crate::error::{Error, Result};
use store::{Docker, NAME};

pub static DESCRIPTION: Description = Description {
    name: NAME,
    also: &[],
    options: roots::OPTIONS,
    variables: &[],
    goes_without_saying: true,
    names_what_is_there: true,
    diff_has_attributes: false,
    numbers_layers: false,
    stands_on: Some("containerd"),
    daemons: roots::DAEMONS,
    in_volumes: Some(roots::IN_VOLUMES),
    find: roots::find,
};

impl Engine for Docker<'_> {
    fn description(&self) -> &'static Description {
        &DESCRIPTION
    }

    fn root(&self) -> &Bytes {
        &self.root
    }

    fn exists(&self) -> bool {
        ["containers", "image", "graph", "aufs"]
            .iter()
            .any(|name| self.is_there(&[name]))
    }

    fn covers(&self, id: &str, _: Option<&str>) -> Result<Vec<Cover>> {
        self.covers_of(id)
    }

    fn process_of(&self, id: &str, _: Option<&str>) -> Option<u32> {
        let state = self.container(id).ok()?.state;
        state.pid.filter(|_| state.running)
    }

    fn volumes(&self) -> Vec<Bytes> {
        let volumes = self.volume_directories().unwrap_or_default().into_iter();
        volumes.map(|volume| volume.join(b"_data")).collect()
    }

    fn containers(&self) -> Vec<Container> {
        self.read_containers()
    }

    fn images(&self) -> Vec<Image> {
        let mut images = self.read_images();
        for image in images.iter_mut().filter(|of| of.problem.is_none()) {
            // Who lists images is told that one of them cannot be used.
            image.problem = images::lost_layer(image).map(images::lost_words);
            if let Some(problem) = &image.problem {
                let database = self.at(&["image", &image.driver, "layerdb"]);
                let name = image.names.tags.first().unwrap_or(&image.id);
                self.note(Error::damaged(
                    database,
                    format!("the image {name} {problem}"),
                ));
            }
        }
        images.extend(self.snapshot_images());
        sort_newest_first(&mut images, |of| (&of.created, &of.id));
        images
    }

    fn layers(&self) -> Vec<LayerName> {
        self.read_layers()
    }

    fn gone<'o>(&self, owners: &[&'o Owner]) -> Vec<&'o Owner> {
        self.removed(owners)
    }

    fn driver(&self, containers: &[Container]) -> String {
        self.driver_in_use(containers)
    }

    fn reads(&self, container: &Container) -> bool {
        Driver::named(&container.driver).is_some() || self.has_snapshot(container)
    }

    fn has_union(&self, container: &Container) -> bool {
        match Driver::named(&container.driver) {
            Some(driver) => driver.stacking() != Stacking::Copies,
            None => container.driver != "native" && self.has_snapshot(container),
        }
    }

    fn union_of(&self, container: &Container) -> Result<Union> {
        match self.snapshot_union(container) {
            Some(union) => union,
            None => self.container_union(container),
        }
    }

    fn union_of_image(&self, image: &Image) -> Result<Union> {
        match self.union_of_snapshot_image(image) {
            Some(union) => union,
            None => self.image_union(image),
        }
    }

    fn platforms(&self, image: &Image) -> Result<Vec<ForPlatform>> {
        match self.platforms_of_snapshots(image) {
            Some(platforms) => platforms,
            None => Ok(self.stored(image)?.platform().into_iter().collect()),
        }
    }

    fn image_for(&self, image: &Image, of: &ForPlatform) -> Result<Image> {
        let snapshots = self.snapshot_image_for(image, of);
        snapshots.unwrap_or_else(|| Ok(image.clone()))
    }

    fn stored(&self, image: &Image) -> Result<Stored> {
        self.stored_image(image)
    }

    fn record_faults(&self, image: &Image) -> Result<Vec<RecordFault>> {
        let of_snapshots = self.snapshot_record_faults(image);
        of_snapshots.unwrap_or_else(|| self.layer_record_faults(image))
    }

    fn name_faults(&self) -> Vec<NameFault> {
        self.find_name_faults()
    }

    fn settings(&self, union: &Union) -> Result<Option<Settings>> {
        match union.owned_container(NAME) {
            Some(owner) if self.is_there(&["containers", &owner.id]) => self.settings_of(&owner.id),
            _ => Ok(None),
        }
    }

    fn union_of_layer(&self, layer: &LayerName) -> Result<Union> {
        let is_number = layer.id.bytes().all(|byte| byte.is_ascii_digit());
        let driver = Driver::named(&layer.driver).filter(|_| !is_number);
        let Some(driver) = driver else {
            return self.union_of_snapshot(layer);
        };
        let id = layer.id.clone();
        self.layer_union(&LayerId { driver, id })
    }

    fn image_of(&self, union: &Union) -> Option<Result<Image>> {
        self.image_of_union(union)
    }

    fn layer_uses(&self) -> Result<Vec<LayerUse>> {
        self.read_uses()
    }

    fn needs(&self) -> Result<Vec<Need>> {
        self.find_needs()
    }

    fn leftovers(&self) -> Result<Vec<Leftover>> {
        self.find_leftovers()
    }

    fn faults(&self) -> Result<Vec<Fault>> {
        let mut faults = Vec::new();
        for here in self.drivers_here() {
            // The others have no short names.
            if matches!(here.driver, Driver::Overlay2 | Driver::FuseOverlayfs) {
                let upper = self.with_parents(here.driver)?;
                let has_parent = |id: &str| upper.contains(id);
                faults.extend(self.linked(here.driver).faults(0, has_parent)?);
            }
        }
        Ok(faults)
    }

    fn unused(&self) -> Result<Vec<Leftover>> {
        self.find_unused()
    }

    fn unused_layer(&self, of: &LayerUse) -> Leftover {
        self.free_layer(of)
    }

    fn space_of(&self, inside: &Bytes) -> Space {
        self.space(inside)
    }

    fn is_merged(&self, inside: &Bytes) -> bool {
        self.shows_layers(inside)
    }

    fn directories_elsewhere(&self) -> Vec<Bytes> {
        Docker::directories_elsewhere(self)
    }

    fn space_elsewhere(&self, path: &Bytes) -> Space {
        Docker::space_elsewhere(self, path)
    }

    fn directory_of_driver(&self, driver: &str) -> Bytes {
        self.root.join(driver.as_bytes())
    }

    fn directory_of_layer(&self, driver: &str, id: &str) -> Option<Bytes> {
        let is_number = id.bytes().all(|byte| byte.is_ascii_digit());
        let Some(driver) = Driver::named(driver).filter(|_| !is_number) else {
            return self.directory_of_snapshot(driver, id);
        };
        let id = id.to_owned();
        Some(self.content_dir(&LayerId { driver, id }))
    }

    fn recognise(&self, union: &mut Union) {
        self.recognise_union(union);
        if union.owner.is_none() {
            self.recognise_snapshots(union);
        }
    }

    fn describe(&self, union: &mut Union) {
        self.describe_union(union);
        self.describe_snapshots(union);
    }

    fn layer_at(&self, path: &Bytes) -> Option<(LayerName, Bytes)> {
        match self.layer_inside(path) {
            Some((layer, inside)) => Some((layer.named(), inside)),
            None => self.snapshot_at(path),
        }
    }

    fn layers_of_link<'s>(&'s self, link: &'s str) -> Box<dyn Iterator<Item = LayerName> + 's> {
        Box::new(self.linked_layers(link))
    }

    fn mount_dir_at(&self, path: &Bytes) -> Option<(Container, Bytes)> {
        self.mount_dir(path).or_else(|| self.rootfs(path))
    }
}
