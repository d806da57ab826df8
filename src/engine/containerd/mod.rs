//! containerd, read without asking it: `ctr`, nerdctl and Kubernetes keep their containers there,
//! and Docker from 29 on.
//!
//! ```text
//! <root>/io.containerd.metadata.v1.bolt/meta.db            containers, images, snapshots: records
//! <root>/io.containerd.snapshotter.v1.<snapshotter>/metadata.db
//!                               .../snapshots/<number>/fs       overlayfs: what differs
//!                               .../snapshots/<number>          native: everything
//!                               .../{active,view,snapshots}/<number>   btrfs: everything
//! <root>/io.containerd.content.v1.content/                 manifests, configurations: content
//! <root>/io.containerd.grpc.v1.cri/containers/<id>/status  the state of Kubernetes' containers
//! <state>/io.containerd.runtime.v2.task/<namespace>/<id>/{init.pid,rootfs}
//! ```

mod collected;
mod config;
mod containers;
mod content;
mod images;
mod layers;
mod leftovers;
mod needs;
mod paths;
mod record;
mod records;
mod removed;
mod roots;
mod snapshotter;
mod store;
mod unused;
mod usage;

pub use self::roots::places;
pub use self::store::{Containerd, DOCKERS_NAMESPACE};

use crate::bytes::Bytes;
use crate::engine::cover::Cover;
use crate::engine::interface::{Description, Engine};
use crate::engine::inventory::{Container, Image, LayerName};
use crate::engine::platform::ForPlatform;
use crate::engine::stored::{RecordFault, Settings, Stored};
use crate::engine::union::{Owner, Union};
use crate::engine::usage::{LayerUse, Leftover, Need, Space};
use crate::error::Result;
use snapshotter::{is_copying, is_read};
use store::NAME;

pub static DESCRIPTION: Description = Description {
    name: NAME,
    also: &[],
    options: roots::OPTIONS,
    variables: roots::VARIABLES,
    goes_without_saying: false,
    names_what_is_there: false,
    diff_has_attributes: false,
    numbers_layers: true,
    stands_on: None,
    daemons: roots::DAEMONS,
    in_volumes: Some(roots::IN_VOLUMES),
    find: roots::find,
};

impl Engine for Containerd<'_> {
    fn description(&self) -> &'static Description {
        &DESCRIPTION
    }

    fn root(&self) -> &Bytes {
        &self.root
    }

    fn exists(&self) -> bool {
        self.own().any(|(namespace, _)| self.is_shown(namespace))
            || self.namespaces().any(|(_, of)| !of.images.is_empty())
            || self.is_there() && self.namespace.is_none() && !self.is_dockers_alone()
    }

    fn covers(&self, id: &str, namespace: Option<&str>) -> Result<Vec<Cover>> {
        Ok(self.covers_of(id, namespace.unwrap_or_default()))
    }

    fn process_of(&self, id: &str, namespace: Option<&str>) -> Option<u32> {
        self.task_process(id, namespace?)
    }

    fn containers(&self) -> Vec<Container> {
        self.read_containers()
    }

    fn divisions(&self) -> Vec<String> {
        self.meta().keys().cloned().collect()
    }

    fn images(&self) -> Vec<Image> {
        self.read_images()
    }

    fn layers(&self) -> Vec<LayerName> {
        self.read_layers()
    }

    fn gone<'o>(&self, owners: &[&'o Owner]) -> Vec<&'o Owner> {
        self.removed(owners)
    }

    fn driver(&self, containers: &[Container]) -> String {
        let in_use = containers.first().map(|container| container.driver.clone());
        in_use.unwrap_or_else(|| "overlayfs".into())
    }

    fn reads(&self, container: &Container) -> bool {
        is_read(&container.driver) || container.driver.is_empty()
    }

    fn reads_driver(&self, driver: &str) -> bool {
        is_read(driver)
    }

    fn has_union(&self, container: &Container) -> bool {
        is_read(&container.driver) && !is_copying(&container.driver)
    }

    fn union_of(&self, container: &Container) -> Result<Union> {
        self.container_union(container)
    }

    fn union_of_image(&self, image: &Image) -> Result<Union> {
        self.image_union(image)
    }

    fn platforms(&self, image: &Image) -> Result<Vec<ForPlatform>> {
        self.platforms_of(&format!("sha256:{}", image.id))
    }

    fn image_for(&self, image: &Image, of: &ForPlatform) -> Result<Image> {
        self.image_of_platform(image, of)
    }

    fn stored(&self, image: &Image) -> Result<Stored> {
        self.stored_image(image)
    }

    fn record_faults(&self, image: &Image) -> Result<Vec<RecordFault>> {
        self.blob_faults(image)
    }

    fn settings(&self, union: &Union) -> Result<Option<Settings>> {
        let owner = union.owned_container(NAME);
        let owner = owner.filter(|owner| owner.store.root == self.root);
        Ok(owner.and_then(|owner| self.settings_of(owner)))
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
        self.find_needs()
    }

    fn leftovers(&self) -> Result<Vec<Leftover>> {
        let mut found = self.find_leftovers()?;
        found.extend(self.find_collected()?);
        Ok(found)
    }

    fn unused(&self) -> Result<Vec<Leftover>> {
        self.find_unused()
    }

    fn unused_layer(&self, of: &LayerUse) -> Leftover {
        self.free_layer(of)
    }

    /// Its clients say where: the kubelet below `/var/log/pods`.
    fn keeps_logs(&self) -> bool {
        false
    }

    fn space_of(&self, inside: &Bytes) -> Space {
        self.space(inside)
    }

    fn is_mount_point(&self, path: &Bytes) -> bool {
        self.is_rootfs(path)
    }

    fn directory_of_driver(&self, driver: &str) -> Bytes {
        self.directory(driver)
    }

    fn directory_of_layer(&self, driver: &str, id: &str) -> Option<Bytes> {
        let number = id.parse().ok()?;
        Some(self.content_dir(driver, number))
    }

    fn recognise(&self, union: &mut Union) {
        self.recognise_union(union);
    }

    fn describe(&self, union: &mut Union) {
        self.describe_union(union);
    }

    fn layer_at(&self, path: &Bytes) -> Option<(LayerName, Bytes)> {
        let (driver, id, inside) = self.snapshot_inside(path)?;
        let name = LayerName {
            driver,
            id,
            aliases: Vec::new(),
        };
        Some((name, inside))
    }

    fn mount_dir_at(&self, path: &Bytes) -> Option<(Container, Bytes)> {
        let (namespace, record, inside) = self.rootfs(path)?;
        Some((self.container(namespace, record), inside))
    }
}
