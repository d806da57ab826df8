//! Who uses the layers of containers-storage, and what else its directories are for.

use std::collections::HashMap;

use super::record::LayerRecord;
use super::store::Podman;
use crate::bytes::Bytes;
use crate::dir::Kind;
use crate::engine::inventory::{LayerName, is_id};
use crate::engine::linked::LINKS;
use crate::engine::usage::{ContainerName, ImageUse, LayerUse, Space, UseKind};
use crate::error::Result;

/// Who uses layers, by their ids.
#[derive(Default)]
struct Users {
    images: HashMap<String, Vec<ImageUse>>,
    containers: HashMap<String, ContainerName>,
    above: HashMap<String, Vec<ContainerName>>,
}

impl Users {
    /// Takes what one store's lists say.
    fn take(&mut self, store: &Podman<'_>) {
        for image in store.image_records().iter() {
            let chain = store.chain(&image.layer);
            let layers = chain.iter().enumerate();
            let layers = layers.map(|(index, layer)| (&layer.id, chain.len() - index));
            // Copies of its topmost layer for other users.
            let mapped = image.mapped_layers.iter().map(|id| (id, chain.len()));
            for (id, number) in layers.chain(mapped) {
                let tags = image.names.iter().filter(|name| !name.contains('@'));
                let of_layer = self.images.entry(id.clone()).or_default();
                // Several stores can list one image.
                if !of_layer.iter().any(|of| of.id == image.id) {
                    of_layer.push(ImageUse {
                        id: image.id.clone(),
                        tags: tags.cloned().collect(),
                        number,
                        of: chain.len(),
                    });
                }
            }
        }
        for container in store.container_records().iter() {
            let name = container.names.first().cloned();
            let owner = ContainerName {
                name: name.unwrap_or_else(|| container.id.clone()),
                id: container.id.clone(),
                namespace: None,
            };
            for below in store.chain(&container.layer).into_iter().skip(1) {
                let of_layer = self.above.entry(below.id.clone()).or_default();
                of_layer.push(owner.clone());
            }
            // One whose root is a directory of the host has none.
            if !container.layer.is_empty() {
                self.containers.insert(container.layer.clone(), owner);
            }
        }
    }
}

impl Podman<'_> {
    pub(super) fn read_uses(&self) -> Result<Vec<LayerUse>> {
        let records: HashMap<&str, &LayerRecord> = self
            .layer_records()
            .iter()
            .map(|layer| (layer.id.as_str(), layer))
            .collect();
        let mut users = Users::default();
        for store in std::iter::once(self).chain(&self.takers) {
            users.take(store);
        }
        let Users {
            images: mut of_images,
            containers: mut of_containers,
            mut above,
        } = users;
        let mut uses = Vec::new();
        for id in self.directories()? {
            let images = of_images.remove(&id).unwrap_or_default();
            let above = above.remove(&id).unwrap_or_default();
            let containers: Vec<ContainerName> = of_containers.remove(&id).into_iter().collect();
            let record = records.get(id.as_str());
            let kind = match record {
                _ if !containers.is_empty() => UseKind::Container,
                _ if !images.is_empty() || !above.is_empty() => UseKind::Image,
                Some(record) if record.flags.incomplete => UseKind::InProgress,
                // A builder's intermediate layers have no image.
                Some(_) => UseKind::Unused,
                None => UseKind::Unknown,
            };
            uses.push(LayerUse {
                directory: self.content_dir(0, &id),
                layer: LayerName {
                    driver: self.driver.clone(),
                    id,
                    aliases: Vec::new(),
                },
                kind,
                containers,
                images,
                note: None,
                is_lent: false,
                above,
            });
        }
        Ok(uses)
    }

    /// The directories that our own store has for layers.
    fn directories(&self) -> Result<Vec<String>> {
        let names = self.host.list(&self.home(&self.root))?.into_iter();
        let ids = names
            .filter(|(_, kind)| *kind == Kind::Directory)
            .filter_map(|(name, _)| String::from_utf8(name).ok());
        // Beside layers there are directories of the driver's own: `l`, `staging`, `tempdirs`.
        Ok(ids
            .filter(|id| is_id(id) && !["staging", "tempdirs", LINKS].contains(&id.as_str()))
            .collect())
    }

    pub(super) fn space(&self, inside: &Bytes) -> Space {
        let parts: Vec<&[u8]> = inside.components().collect();
        let text = |part: &[u8]| String::from_utf8_lossy(part).into_owned();
        let home = self.home(&Bytes::from("/"));
        let directory: Vec<&[u8]> = home.components().collect();
        if parts.len() > directory.len()
            && parts.starts_with(&directory)
            && parts[directory.len()] != LINKS.as_bytes()
        {
            return Space::Layer {
                driver: self.driver.clone(),
                id: text(parts[directory.len()]),
            };
        }
        let of = |kind: &str| format!("{}-{kind}", self.driver);
        match parts.as_slice() {
            [first, id, b"userdata", file, ..]
                if *first == of("containers").as_bytes() && is_log(file) =>
            {
                Space::Log(text(id))
            }
            [first, id, b"userdata", b"overlay", ..] if *first == of("containers").as_bytes() => {
                Space::Overlaid(text(id))
            }
            [first, id, ..] if *first == of("containers").as_bytes() && is_id(&text(id)) => {
                Space::Container(text(id))
            }
            [b"volumes"] => Space::Volumes,
            [b"volumes", name, ..] => Space::Volume(text(name)),
            [first, ..]
                if [of("images"), of("layers"), of("containers")]
                    .iter()
                    .any(|of| of.as_bytes() == *first) =>
            {
                Space::Records
            }
            _ => Space::Other,
        }
    }

    pub(super) fn shows_layers(&self, inside: &Bytes) -> bool {
        let parts: Vec<&[u8]> = inside.components().collect();
        matches!(parts.as_slice(), [b"overlay", _, b"merged"])
    }
}

/// Whether a container's file has what it printed.
pub(super) fn is_log(name: &[u8]) -> bool {
    name.starts_with(b"ctr.log")
}
