//! Docker 29's image store: its containers' layers and its images are containerd's.
//!
//! ```text
//! containers/<cid>/config.v2.json             as ever; the driver is the snapshotter
//! containerd/daemon/                          the containerd that the daemon starts, unless the
//!                                             machine's own answers it
//! snapshot <cid> in the namespace moby        the container; above <cid>-init, above the image
//! rootfs/<snapshotter>/<cid>                  where it is mounted while it runs
//! ```

use super::store::{Docker, NAME};
use crate::branch::Permission;
use crate::bytes::Bytes;
use crate::engine::containerd::{Containerd, DOCKERS_NAMESPACE};
use crate::engine::interface::Engine;
use crate::engine::inventory::{Container, Image, LayerName, Names, familiar, is_id};
use crate::engine::platform::ForPlatform;
use crate::engine::stored::{RecordFault, Stored};
use crate::engine::union::{Owner, Role, Store, Union};
use crate::engine::usage::Space;
use crate::error::{Error, Result};

impl Docker<'_> {
    /// The containerds that can have this daemon's snapshots: its own, and the machine's.
    fn containerds(&self) -> &[Containerd<'_>] {
        self.containerds.get_or_init(|| {
            let own = |of: &Bytes| of.join(b"containerd").join(b"daemon");
            let own = std::iter::once((own(&self.root), own(&self.exec_root)));
            let places = own.chain(self.others.iter().cloned());
            let found = places.map(|(root, state)| {
                Containerd::at(self.host, root, state, self.problems.of_inner())
            });
            found.filter(Containerd::is_there).collect()
        })
    }

    /// The containerds that are this daemon's: in its data directory, or the machine's where nobody else
    /// has anything there.
    pub(super) fn own_containerds(&self) -> impl Iterator<Item = &Containerd<'_>> {
        let all = self.containerds().iter();
        all.filter(|of| self.is_inside(of) || self.is_kept_by(of) && of.is_dockers_alone())
    }

    /// Those that others use, too, and that keep snapshots of this daemon's.
    pub(super) fn lending_containerds(&self) -> impl Iterator<Item = &Containerd<'_>> {
        let all = self.containerds().iter();
        all.filter(|of| !self.is_inside(of) && self.is_kept_by(of) && !of.is_dockers_alone())
    }

    fn is_inside(&self, containerd: &Containerd<'_>) -> bool {
        containerd.root().lies_in(&self.root)
    }

    /// Whether a containerd elsewhere has this daemon's layers. One with a driver of its own has records
    /// of images here, and no mount points of snapshotters.
    fn is_kept_by(&self, containerd: &Containerd<'_>) -> bool {
        let has_snapshotter = self.is_there(&["rootfs"]) || !self.is_there(&["image"]);
        if !has_snapshotter || !containerd.stores_for(DOCKERS_NAMESPACE) {
            return false;
        }
        let mut all = self.containerds().iter();
        let has_own = all.any(|of| self.is_inside(of) && of.stores_for(DOCKERS_NAMESPACE));
        // With two of them, what is in the other one may be another daemon's.
        let stands_there =
            |of: &Container| containerd.has_snapshot(DOCKERS_NAMESPACE, &of.driver, &of.id);
        !has_own || self.read_containers().iter().any(stands_there)
    }

    /// The directories that are this daemon's outside of its own.
    pub(super) fn directories_elsewhere(&self) -> Vec<Bytes> {
        let own = self.own_containerds().filter(|of| !self.is_inside(of));
        let mut found: Vec<Bytes> = own.map(|of| of.root().clone()).collect();
        for containerd in self.lending_containerds() {
            found.extend(containerd.directories_in(DOCKERS_NAMESPACE));
        }
        found
    }

    /// What a path in one of them is for.
    pub(super) fn space_elsewhere(&self, path: &Bytes) -> Space {
        let mut containerds = self.containerds().iter();
        let space = containerds.find_map(|of| {
            let inside = path.strip_prefix(of.root())?;
            Some(snapshots_or_records(of, &inside))
        });
        space.unwrap_or(Space::Records)
    }

    /// The containerd that has a container's snapshot.
    fn containerd_of(&self, container: &Container) -> Option<&Containerd<'_>> {
        // What a graph driver keeps has an entry here.
        let parts = [
            "image",
            &container.driver,
            "layerdb",
            "mounts",
            &container.id,
            "mount-id",
        ];
        if self.is_there(&parts) {
            return None;
        }
        let mut containerds = self.containerds().iter();
        containerds.find(|of| of.has_snapshot(DOCKERS_NAMESPACE, &container.driver, &container.id))
    }

    pub(super) fn has_snapshot(&self, container: &Container) -> bool {
        self.containerd_of(container).is_some()
    }

    /// The union of a container whose layers are snapshots; none where they are not.
    pub(super) fn snapshot_union(&self, container: &Container) -> Option<Result<Union>> {
        let containerd = self.containerd_of(container)?;
        let (driver, id) = (&container.driver, &container.id);
        let union = containerd.union_of_key(DOCKERS_NAMESPACE, driver, id, Permission::RW);
        Some(union.map(|mut union| {
            self.label_snapshots(containerd, &mut union, container);
            union
        }))
    }

    fn label_snapshots(
        &self,
        containerd: &Containerd<'_>,
        union: &mut Union,
        container: &Container,
    ) {
        self.label_owner(union, container);
        if let Some(top) = union.branches.first_mut() {
            top.layer.role = Role::Container;
        }
        let digest = format!("sha256:{}", container.image_id);
        let digest = container.manifest.as_ref().unwrap_or(&digest);
        containerd.label_layers(union, DOCKERS_NAMESPACE, &container.driver, digest);
    }

    /// Says whose a mounted union is whose layers are snapshots.
    pub(super) fn recognise_snapshots(&self, union: &mut Union) {
        let mut points = union.mounts.iter();
        if let Some((container, _)) = points.find_map(|mount| self.rootfs(&mount.path)) {
            self.label_owner(union, &container);
        }
    }

    /// Says what its branches are.
    pub(super) fn describe_snapshots(&self, union: &mut Union) {
        let mut points = union.mounts.iter();
        let Some((container, _)) = points.find_map(|mount| self.rootfs(&mount.path)) else {
            return;
        };
        let Some(containerd) = self.containerd_of(&container) else {
            return;
        };
        containerd.restack(union);
        let init = containerd.number_of(
            DOCKERS_NAMESPACE,
            &container.driver,
            &format!("{}-init", container.id),
        );
        for branch in &mut union.branches {
            if branch.layer.id.is_some() && branch.layer.id == init {
                branch.layer.role = Role::Init;
            }
        }
        self.label_snapshots(containerd, union, &container);
    }

    /// The container at whose mount point a path lies, and what is left of the path.
    pub(super) fn rootfs(&self, path: &Bytes) -> Option<(Container, Bytes)> {
        let inside = path.strip_prefix(&self.at(&["rootfs"]))?;
        let mut parts = inside.components();
        let _snapshotter = parts.next()?;
        let id = std::str::from_utf8(parts.next()?).ok()?.to_owned();
        let rest = Bytes::absolute(parts);
        if !is_id(&id) || !self.is_there(&["containers", &id]) {
            return None;
        }
        let container = self.recorded_container(&id);
        let container = container.map_err(|error| self.note(error)).ok()??;
        Some((container, rest))
    }

    /// The images that are containerd's, named as docker names them.
    pub(super) fn snapshot_images(&self) -> Vec<Image> {
        let mut images = Vec::new();
        for containerd in self.containerds() {
            for image in containerd.images_in(DOCKERS_NAMESPACE) {
                images.push(as_docker_has_it(containerd, image));
            }
        }
        images
    }

    /// The containerd that has an image, by its digest.
    fn containerd_of_image(&self, id: &str) -> Option<&Containerd<'_>> {
        let digest = format!("sha256:{id}");
        let mut containerds = self.containerds().iter();
        containerds.find(|containerd| containerd.has_image(DOCKERS_NAMESPACE, &digest))
    }

    /// An image; of one for several platforms what a manifest has, or else the machine's own.
    pub(super) fn snapshot_image(
        &self,
        driver: &str,
        id: &str,
        manifest: Option<&str>,
    ) -> Option<Result<Image>> {
        let containerd = self.containerd_of_image(id)?;
        let digest = format!("sha256:{id}");
        let image = containerd.image_of_manifest(
            DOCKERS_NAMESPACE,
            driver,
            &digest,
            manifest.unwrap_or(&digest),
        );
        Some(image.map(|image| as_docker_has_it(containerd, image)))
    }

    /// The platforms of an image that is containerd's; none where it is not.
    pub(super) fn platforms_of_snapshots(&self, image: &Image) -> Option<Result<Vec<ForPlatform>>> {
        let containerd = self.containerd_of_image(&image.id)?;
        Some(containerd.platforms_of(&format!("sha256:{}", image.id)))
    }

    /// Such an image as it is for one of them.
    pub(super) fn snapshot_image_for(
        &self,
        image: &Image,
        of: &ForPlatform,
    ) -> Option<Result<Image>> {
        let containerd = self.containerd_of_image(&image.id)?;
        let found = containerd.image_of_platform(image, of);
        Some(found.map(|found| {
            let names = image.names.clone();
            let found = Image { names, ..found };
            as_docker_has_it(containerd, found)
        }))
    }

    pub(super) fn union_of_snapshot_image(&self, image: &Image) -> Option<Result<Union>> {
        let containerd = self.containerd_of_image(&image.id)?;
        let mut image = image.clone();
        image.namespace = Some(DOCKERS_NAMESPACE.to_owned());
        Some(containerd.union_of_image(&image).map(|mut union| {
            if let Some(owner) = &mut union.owner {
                owner.engine = NAME;
                owner.name.clone_from(&image.names.tags.first().cloned());
                owner.store = self.store(&image.driver);
            }
            union
        }))
    }

    /// Whether an image that containerd had is there no more.
    pub(super) fn is_snapshot_image_gone(&self, owner: &Owner) -> bool {
        let Some(containerd) = self.containerd_of_image(&owner.id) else {
            return true;
        };
        let there = Owner {
            store: Store {
                root: containerd.root().clone(),
                driver: owner.store.driver.clone(),
                namespace: Some(DOCKERS_NAMESPACE.to_owned()),
            },
            ..owner.clone()
        };
        !containerd.gone(&[&there]).is_empty()
    }

    /// What is wrong with the records of such an image; none where it is none.
    pub(super) fn snapshot_record_faults(&self, image: &Image) -> Option<Result<Vec<RecordFault>>> {
        let containerd = self.containerd_of_image(&image.id)?;
        Some(containerd.blob_faults(image))
    }

    /// What is kept of an image whose layers are snapshots; none where they are not.
    pub(super) fn stored_snapshot_image(&self, image: &Image) -> Option<Result<Stored>> {
        let containerd = self.containerd_of_image(&image.id)?;
        Some(containerd.stored_image(image))
    }

    /// Where a snapshot's content is.
    pub(super) fn directory_of_snapshot(&self, driver: &str, id: &str) -> Option<Bytes> {
        let mut containerds = self.containerds().iter();
        containerds.find_map(|containerd| {
            containerd.key_of(DOCKERS_NAMESPACE, driver, id)?;
            containerd.directory_of_layer(driver, id)
        })
    }

    /// The snapshot that a path is, or lies in.
    pub(super) fn snapshot_at(&self, path: &Bytes) -> Option<(LayerName, Bytes)> {
        let mut own = self.own_containerds();
        own.find_map(|containerd| containerd.layer_at(path))
            .or_else(|| {
                let mut lending = self.lending_containerds();
                lending.find_map(|containerd| {
                    let found = containerd.layer_at(path)?;
                    let LayerName { driver, id, .. } = &found.0;
                    containerd.key_of(DOCKERS_NAMESPACE, driver, id)?;
                    Some(found)
                })
            })
    }

    /// The union that has a snapshot on top: of a container, or read-only.
    pub(super) fn union_of_snapshot(&self, layer: &LayerName) -> Result<Union> {
        for containerd in self.containerds() {
            let key = containerd.key_of(DOCKERS_NAMESPACE, &layer.driver, &layer.id);
            let Some(key) = key else { continue };
            if is_id(&key) && self.is_there(&["containers", &key]) {
                let container = self.container(&key)?;
                if let Some(union) = self.snapshot_union(&container) {
                    return union;
                }
            }
            let mut union = containerd.union_of_layer(layer)?;
            if let Some(owner) = &mut union.owner {
                owner.engine = NAME;
            }
            return Ok(union);
        }
        Err(Error::no_such_target(layer.id.clone()))
    }
}

/// What a path in a containerd of Docker's is for.
pub(super) fn snapshots_or_records(containerd: &Containerd<'_>, inside: &Bytes) -> Space {
    match containerd.space_of(inside) {
        space @ Space::Layer { .. } => space,
        _ => Space::Records,
    }
}

/// An image's names, size and history as docker has them: what is unpacked counts as well as the content,
/// and each step of a chain of commits ends an image.
fn as_docker_has_it(containerd: &Containerd<'_>, mut image: Image) -> Image {
    image.namespace = None;
    let Names { tags, digests } = &mut image.names;
    for names in [tags, digests] {
        as_docker_names_them(names);
    }
    let layers = image.history.iter().filter_map(|step| step.layer.as_ref());
    image.size += layers.filter_map(|layer| layer.size).sum::<u64>();
    let mut ends_here = Some(format!("sha256:{}", image.id));
    for step in &mut image.history {
        let Some(digest) = ends_here.take() else {
            break;
        };
        ends_here = containerd.parent_of_image(DOCKERS_NAMESPACE, &digest);
        step.image = Some(digest.trim_start_matches("sha256:").to_owned());
    }
    image.parent = containerd
        .parent_of_image(DOCKERS_NAMESPACE, &format!("sha256:{}", image.id))
        .map(|digest| digest.trim_start_matches("sha256:").to_owned());
    image
}

/// Makes names of containerd's those that docker shows.
pub(super) fn as_docker_names_them(names: &mut Vec<String>) {
    names.retain(|name| !name.starts_with(DANGLING));
    for name in names {
        *name = familiar(name).to_owned();
    }
}

/// What an image without a name is called in containerd.
const DANGLING: &str = "moby-dangling@";
