//! Which containers there are, and where each has its files.

use super::DESCRIPTION;
use super::store::Example;
use crate::branch::Permission;
use crate::engine::inventory::{Container, ContainerState, is_id};
use crate::engine::union::{Owner, OwnerKind, Role, Store, Union, UnionKind, layer_branch};

impl Example<'_> {
    /// A directory each.
    pub(super) fn read_containers(&self) -> Vec<Container> {
        let names = self.host.list(&self.root).unwrap_or_else(|error| {
            self.problems.note(error);
            Vec::new()
        });
        let ids = names
            .into_iter()
            .filter_map(|(name, _)| String::from_utf8(name).ok());
        ids.filter(|id| is_id(id))
            .map(|id| Container {
                name: id.clone(),
                image: String::new(),
                image_id: String::new(),
                manifest: None,
                command: String::new(),
                created: String::new(),
                state: ContainerState::default(),
                driver: "directory".into(),
                ports: String::new(),
                namespace: None,
                pod: None,
                id,
            })
            .collect()
    }

    /// A container's files are one directory, which nobody merges with another.
    pub(super) fn directory_of(&self, container: &Container) -> Union {
        let directory = self.root.join(container.id.as_bytes()).join(b"rootfs");
        let mut branch = layer_branch(directory, Permission::RW, container.id.clone());
        branch.layer.role = Role::Container;
        let driver = container.driver.clone();
        Union {
            kind: UnionKind::Copy,
            driver: Some(driver.clone()),
            owner: Some(Owner {
                engine: DESCRIPTION.name,
                kind: OwnerKind::Container,
                id: container.id.clone(),
                name: Some(container.name.clone()),
                store: Store {
                    root: self.root.clone(),
                    driver,
                    namespace: None,
                },
            }),
            ..Union::unmounted(vec![branch])
        }
    }
}
