//! containers-storage, read without its locks: what Podman, buildah and CRI-O keep containers and
//! images in.
//!
//! ```text
//! <graphroot>/overlay/<layer>/{diff,link,lower,merged}   or vfs/dir/<layer>, btrfs/subvolumes/<layer>
//! <graphroot>/<driver>-{layers,images,containers}/       their lists: records
//! <runroot>/<driver>-layers/mountpoints.json             what is mounted
//! <graphroot>/db.sql, libpod/bolt_state.db               Podman's own records: libpod, database
//! ```
//!
//! Every user may have a store. Its overlays are mounted in a mount namespace of the user's own.

mod config;
mod containers;
mod crio;
mod data;
mod database;
mod images;
mod layers;
mod leftovers;
mod libpod;
mod needs;
mod paths;
mod ports;
mod record;
mod records;
mod removed;
mod roots;
mod store;
mod unused;
mod usage;

use crate::bytes::Bytes;
use crate::engine::cover::Cover;
use crate::engine::interface::{Description, Engine};
use crate::engine::inventory::{Container, Image, LayerName};
use crate::engine::platform::ForPlatform;
use crate::engine::stored::{RecordFault, Settings, Stored};
use crate::engine::union::{Owner, Union};
use crate::engine::usage::{Fault, FaultKind, LayerUse, Leftover, Need, Space};
use crate::error::{Error, Result};
use store::{NAME, Podman};

pub static DESCRIPTION: Description = Description {
    name: NAME,
    also: &["buildah", "cri-o"],
    options: roots::OPTIONS,
    variables: roots::VARIABLES,
    goes_without_saying: false,
    names_what_is_there: false,
    diff_has_attributes: true,
    numbers_layers: false,
    stands_on: None,
    daemons: roots::DAEMONS,
    in_volumes: None,
    find: roots::find,
};

impl Engine for Podman<'_> {
    fn description(&self) -> &'static Description {
        &DESCRIPTION
    }

    fn root(&self) -> &Bytes {
        &self.root
    }

    fn covers(&self, id: &str, _: Option<&str>) -> Result<Vec<Cover>> {
        Ok(self.covers_of(id))
    }

    fn process_of(&self, id: &str, _: Option<&str>) -> Option<u32> {
        let state = self.libpod_record(id).state;
        state.pid.filter(|_| state.running)
    }

    fn containers(&self) -> Vec<Container> {
        if self.is_of_images() {
            return Vec::new();
        }
        self.note_closed();
        self.read_containers()
    }

    fn union_of(&self, container: &Container) -> Result<Union> {
        self.container_union(container)
    }

    fn images(&self) -> Vec<Image> {
        self.note_closed();
        self.note_lost_images();
        let mut images = self.read_images();
        for record in self.image_records().iter() {
            let Some(lost) = self.lost_layer(&record.layer) else {
                continue;
            };
            if !self.is_still_listed(&record.id) {
                continue;
            }
            let problem = format!("it needs the layer {lost}: \"layer not known\"");
            let name = record.names.first().unwrap_or(&record.id);
            let list = self.kind_of(&self.root, "layers").join(b"layers.json");
            self.note(Error::damaged(list, format!("the image {name}: {problem}")));
            if let Some(image) = images.iter_mut().find(|image| image.id == record.id) {
                image.problem = Some(problem);
            }
        }
        images
    }

    fn layers(&self) -> Vec<LayerName> {
        if self.is_of_images() {
            return Vec::new();
        }
        self.read_layers()
    }

    fn gone<'o>(&self, owners: &[&'o Owner]) -> Vec<&'o Owner> {
        self.removed(owners)
    }

    fn driver(&self, _: &[Container]) -> String {
        self.driver.clone()
    }

    fn reads(&self, container: &Container) -> bool {
        self.is_read() || self.rootfs_of(container).is_some()
    }

    fn has_union(&self, container: &Container) -> bool {
        match self.rootfs_of(container) {
            Some(rootfs) => rootfs.is_below,
            None => self.is_read() && !self.copies(),
        }
    }

    fn union_of_image(&self, image: &Image) -> Result<Union> {
        self.image_union(image)
    }

    fn platforms(&self, image: &Image) -> Result<Vec<ForPlatform>> {
        self.platforms_of(image)
    }

    fn image_for(&self, image: &Image, of: &ForPlatform) -> Result<Image> {
        self.image_of_platform(image, of)
    }

    fn stored(&self, image: &Image) -> Result<Stored> {
        self.stored_image(image)
    }

    fn record_faults(&self, image: &Image) -> Result<Vec<RecordFault>> {
        let mut faults = self.list_faults(image);
        faults.extend(self.data_faults(image)?);
        Ok(faults)
    }

    fn settings(&self, union: &Union) -> Result<Option<Settings>> {
        let owner = union.owned_container(NAME);
        let owner = owner.filter(|owner| owner.store == self.as_store());
        Ok(owner.and_then(|owner| self.libpod_record(&owner.id).settings))
    }

    fn union_of_layer(&self, layer: &LayerName) -> Result<Union> {
        self.layer_union(layer)
    }

    fn image_of(&self, union: &Union) -> Option<Result<Image>> {
        self.image_of_union(union)
    }

    fn layer_uses(&self) -> Result<Vec<LayerUse>> {
        self.read_uses()
    }

    fn needs(&self) -> Result<Vec<Need>> {
        self.note_lost_images();
        self.find_needs()
    }

    fn leftovers(&self) -> Result<Vec<Leftover>> {
        // Who fills it may be somebody else, and is the one to judge.
        if self.is_of_images() {
            return Ok(Vec::new());
        }
        self.find_leftovers()
    }

    fn faults(&self) -> Result<Vec<Fault>> {
        let mut faults = Vec::new();
        if !self.copies() {
            let has_parent = |id: &str| {
                let record = self.layer_record(id);
                record.is_some_and(|of| !of.parent.is_empty())
            };
            faults.extend(self.linked().faults(0, has_parent)?);
        }
        let list = self.kind_of(&self.root, "layers").join(b"layers.json");
        let incomplete = self.layer_records().iter();
        for layer in incomplete.filter(|of| of.home == 0 && of.flags.incomplete) {
            let id = &layer.id;
            let means = format!(
                "the layer {id} is unfinished: Podman removes it when it starts next, \"Found incomplete layer \\\"{id}\\\", deleting it\""
            );
            faults.push(Fault {
                kind: FaultKind::Incomplete,
                path: list.clone(),
                means,
            });
        }
        Ok(faults)
    }

    fn unused(&self) -> Result<Vec<Leftover>> {
        // Who has its images is told by those that take them.
        if self.is_of_images() {
            return Ok(Vec::new());
        }
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

    fn directory_of_driver(&self, driver: &str) -> Bytes {
        self.root.join(driver.as_bytes())
    }

    fn directory_of_layer(&self, driver: &str, id: &str) -> Option<Bytes> {
        let layer = self.layer_record(id).filter(|_| driver == self.driver)?;
        Some(self.content_dir(layer.home, id))
    }

    fn recognise(&self, union: &mut Union) {
        self.recognise_union(union);
    }

    fn describe(&self, union: &mut Union) {
        self.describe_union(union);
    }

    fn layer_at(&self, path: &Bytes) -> Option<(LayerName, Bytes)> {
        // What lies in a store that images are taken from is that store's to tell of.
        if !self.is_in_own_home(path) {
            return None;
        }
        let (id, inside) = self.layer_inside(path)?;
        Some((self.named(id), inside))
    }

    fn layers_of_link<'s>(&'s self, link: &'s str) -> Box<dyn Iterator<Item = LayerName> + 's> {
        Box::new(self.linked_layer(link).into_iter())
    }

    fn mount_dir_at(&self, path: &Bytes) -> Option<(Container, Bytes)> {
        let (layer, inside) = self.merged(path)?;
        let container = self.container_of_layer(&layer)?;
        Some((self.container(container), inside))
    }
}
