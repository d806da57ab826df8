//! Containers: as the store and Podman's own records have them, and the union that each has.

use std::sync::Arc;

use super::records::{ContainerRecord, MappedIds, Metadata};
use super::{ENGINE_MADE, NAME, Podman};
use crate::branch::Permission;
use crate::engine::inventory::{Container, Pod, sort_newest_first};
use crate::engine::union::{Owner, OwnerKind, Role, Union};
use crate::error::{Error, Result};
use crate::union::{IdMap, IdRange};

impl Podman<'_> {
    /// Every container, newest first.
    pub(super) fn read_containers(&self) -> Vec<Container> {
        let records = self.container_records().into_iter();
        let mut containers: Vec<Container> = records.map(|record| self.container(record)).collect();
        sort_newest_first(&mut containers, |of| (&of.created, &of.id));
        containers
    }

    pub(super) fn container_record(&self, id: &str) -> Option<ContainerRecord> {
        let mut records = self.container_records().into_iter();
        records.find(|container| container.id == id)
    }

    pub(super) fn container(&self, record: ContainerRecord) -> Container {
        let metadata = record.metadata();
        let libpod = self.libpod_record(&record.id);
        let name = record
            .names
            .first()
            .cloned()
            .or_else(|| metadata.name.clone());
        let image = metadata.image_name.clone().filter(|name| !name.is_empty());
        let image = image.or_else(|| {
            let mut images = self.image_records().into_iter();
            let image = images.find(|image| image.id == record.image)?;
            image.names.into_iter().next()
        });
        Container {
            name: name.unwrap_or_else(|| record.id.clone()),
            image: image
                .filter(|name| !name.is_empty())
                .unwrap_or_else(|| record.image.clone()),
            image_id: record.image.clone(),
            manifest: None,
            command: libpod.command.unwrap_or_default(),
            created: libpod.created.unwrap_or_else(|| record.created.clone()),
            state: libpod.state,
            driver: self.driver.clone(),
            ports: String::new(),
            namespace: None,
            pod: metadata.pod(),
            id: record.id,
        }
    }

    pub(super) fn container_of_layer(&self, layer: &str) -> Option<ContainerRecord> {
        let mut records = self.container_records().into_iter();
        records.find(|container| container.layer == layer)
    }

    /// The union of a container, mounted or not.
    ///
    /// # Errors
    /// A container that the store does not list; a layer that is missing or damaged.
    pub(super) fn container_union(&self, container: &Container) -> Result<Union> {
        let record = self
            .container_record(&container.id)
            .ok_or_else(|| Error::NoSuchTarget(container.id.clone()))?;
        let mut union = self.stack(&record.layer, Permission::RW)?;
        self.label_container(&mut union, &record);
        Ok(union)
    }

    pub(super) fn label_owner(&self, union: &mut Union, container: &ContainerRecord) {
        let name = container.names.first().cloned();
        union.driver = Some(self.driver.clone());
        union.engine_made = &ENGINE_MADE;
        union.owner = Some(Owner {
            engine: NAME,
            kind: OwnerKind::Container,
            id: container.id.clone(),
            name: name.or_else(|| container.metadata().name),
            store: self.as_store(),
        });
    }

    pub(super) fn label_container(&self, union: &mut Union, container: &ContainerRecord) {
        self.label_owner(union, container);
        union.owners = self.owners_of(container);
        if let Some(top) = union.branches.first_mut() {
            top.layer.role = Role::Container;
        }
        let mut images = self.image_records().into_iter();
        let image = images.find(|image| image.id == container.image);
        self.label_image(union, image.as_ref());
    }

    /// How the layers below a container's show their owners, where it has users of its own and
    /// they were not copied for it.
    fn owners_of(&self, container: &ContainerRecord) -> Option<Arc<IdMap>> {
        let layer = self.layer_record(&container.layer)?;
        let below = self.layer_record(&layer.parent)?;
        if container.uidmap.is_empty() || below.uidmap == container.uidmap {
            return None;
        }
        let ranges = |mapped: &[MappedIds]| {
            let range = |ids: &MappedIds| IdRange {
                stored: ids.container_id,
                shown: ids.host_id,
                size: ids.size,
            };
            mapped.iter().map(range).collect()
        };
        Some(Arc::new(IdMap {
            users: ranges(&container.uidmap),
            groups: ranges(&container.gidmap),
        }))
    }
}

impl Metadata {
    /// The pod, as Kubernetes names it, and the container's name in it.
    fn pod(&self) -> Option<Pod> {
        Some(Pod {
            name: self.pod_name.clone()?,
            namespace: self.namespace.clone(),
            container: self.metadata_name.clone(),
        })
    }
}
