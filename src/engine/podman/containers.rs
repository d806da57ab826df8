//! Containers: as the store and Podman's own records have them, and the union that each has.

use std::sync::Arc;

use super::record::{ContainerRecord, MappedIds, Metadata, Rootfs};
use super::store::{ENGINE_MADE, NAME, Podman};
use crate::branch::Permission;
use crate::bytes::Bytes;
use crate::engine::inventory::{Container, Pod, sort_newest_first};
use crate::engine::union::{LayeredBranch, Owner, OwnerKind, Role, Union};
use crate::error::{Error, Result};
use crate::union::{IdMap, IdRange};

impl Podman<'_> {
    /// Every container, newest first.
    pub(super) fn read_containers(&self) -> Vec<Container> {
        let records = self.container_records().iter();
        let mut containers: Vec<Container> = records.map(|record| self.container(record)).collect();
        sort_newest_first(&mut containers, |of| (&of.created, &of.id));
        containers
    }

    pub(super) fn container(&self, record: &ContainerRecord) -> Container {
        let metadata = record.metadata();
        let libpod = self.libpod_record(&record.id);
        let name = record
            .names
            .first()
            .cloned()
            .or(libpod.name)
            .or_else(|| metadata.name.clone());
        let image = metadata.image_name.clone().filter(|name| !name.is_empty());
        let image = image.or_else(|| {
            let image = self.image_record(&record.image)?;
            image.names.first().cloned()
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
            ports: libpod.ports,
            namespace: None,
            pod: metadata.pod().or_else(|| libpod.pod.map(Pod::named)),
            id: record.id.clone(),
        }
    }

    /// What a container has as its root instead of a layer.
    pub(super) fn rootfs_of(&self, container: &Container) -> Option<Rootfs> {
        self.container_record(&container.id)?.rootfs.clone()
    }

    /// Where a container writes that has a directory of the host below.
    pub(super) fn rootfs_upper(&self, id: &str) -> Bytes {
        let directory = self.kind_of(&self.root, "containers").join(id.as_bytes());
        directory.join(b"rootfs").join(b"upper")
    }

    /// The union of a container whose root is a directory of the host.
    fn rootfs_union(&self, id: &str, rootfs: Rootfs) -> Result<Union> {
        if !rootfs.is_below {
            return Err(Error::Refused {
                what: format!(
                    "container {id} has no layers: its root is the directory {}",
                    rootfs.directory
                ),
                hint: "a directory of its own is no union".into(),
            });
        }
        let branches = vec![
            LayeredBranch::plain(self.rootfs_upper(id), Permission::RW),
            LayeredBranch::plain(rootfs.directory, Permission::RO),
        ];
        Ok(self.union(self.kind(), branches))
    }

    /// The union of a container, mounted or not.
    ///
    /// # Errors
    /// A container that the store does not list, or that has a directory of the host as its root; a
    /// layer that is missing or damaged.
    pub(super) fn container_union(&self, container: &Container) -> Result<Union> {
        let record = self
            .container_record(&container.id)
            .ok_or_else(|| Error::no_such_target(container.id.clone()))?;
        let mut union = match record.rootfs.clone() {
            Some(rootfs) => self.rootfs_union(&record.id, rootfs)?,
            None if record.is_lost() => {
                let list = self
                    .kind_of(&self.root, "containers")
                    .join(b"containers.json");
                let what = format!("does not list {}: \"container not known\"", record.id);
                return Err(Error::damaged(list, what));
            }
            None => self.stack(&record.layer, Permission::RW)?,
        };
        self.label_container(&mut union, record);
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
        union.ids = container.ids();
        if let Some(top) = union.branches.first_mut() {
            top.layer.role = Role::Container;
        }
        self.label_image(union, self.image_record(&container.image));
    }

    /// How the layers below a container's show their owners, where it has users of its own and
    /// they were not copied for it.
    fn owners_of(&self, container: &ContainerRecord) -> Option<Arc<IdMap>> {
        let layer = self.layer_record(&container.layer)?;
        let below = self.layer_record(&layer.parent)?;
        let ids = container.ids();
        ids.filter(|_| below.uidmap != container.uidmap)
    }
}

impl ContainerRecord {
    /// The users and groups of one that has its own.
    fn ids(&self) -> Option<Arc<IdMap>> {
        if self.uidmap.is_empty() {
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
            users: ranges(&self.uidmap),
            groups: ranges(&self.gidmap),
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
            attempt: None,
        })
    }
}
