//! Who uses the layers of containers-storage, and what is left over.

use std::collections::{HashMap, HashSet};

use super::Podman;
use super::store::LayerRecord;
use crate::bytes::Bytes;
use crate::dir::Kind;
use crate::engine::inventory::{LayerName, is_id};
use crate::engine::linked::LINKS;
use crate::engine::usage::{
    ContainerName, ImageUse, LayerUse, Leftover, LeftoverKind, Space, UseKind,
};
use crate::error::Result;

impl Podman<'_> {
    pub(super) fn read_uses(&self) -> Result<Vec<LayerUse>> {
        let records: HashMap<&str, &LayerRecord> = self
            .layer_records()
            .iter()
            .map(|layer| (layer.id.as_str(), layer))
            .collect();
        let mut of_images: HashMap<String, Vec<ImageUse>> = HashMap::new();
        for image in self.image_records() {
            let chain = self.chain(&image.layer);
            for (index, layer) in chain.iter().enumerate() {
                let tags = image.names.iter().filter(|name| !name.contains('@'));
                of_images
                    .entry(layer.id.clone())
                    .or_default()
                    .push(ImageUse {
                        id: image.id.clone(),
                        tags: tags.cloned().collect(),
                        number: chain.len() - index,
                        of: chain.len(),
                    });
            }
        }
        let mut of_containers: HashMap<String, ContainerName> = HashMap::new();
        for container in self.container_records() {
            let name = container.names.first().cloned();
            let owner = ContainerName {
                name: name.unwrap_or_else(|| container.id.clone()),
                id: container.id,
            };
            of_containers.insert(container.layer, owner);
        }
        let mut uses = Vec::new();
        for id in self.directories()? {
            let images = of_images.remove(&id).unwrap_or_default();
            let containers: Vec<ContainerName> = of_containers.remove(&id).into_iter().collect();
            let record = records.get(id.as_str());
            let kind = match record {
                _ if !containers.is_empty() => UseKind::Container,
                _ if !images.is_empty() => UseKind::Image,
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

    pub(super) fn find_leftovers(&self) -> Result<Vec<Leftover>> {
        let mut found = Vec::new();
        let mut note = |kind, path, why: String| found.push(Leftover { kind, path, why });
        let uses = self.read_uses()?;
        let home = self.home(&self.root);
        for of in uses.iter().filter(|of| of.kind == UseKind::Unknown) {
            let why = "layers.json does not have this layer".to_owned();
            note(
                LeftoverKind::Directory,
                home.join(of.layer.id.as_bytes()),
                why,
            );
        }
        let here: HashSet<&str> = uses.iter().map(|of| of.layer.id.as_str()).collect();
        let list = self.kind_of(&self.root, "layers").join(b"layers.json");
        for layer in self.layer_records().iter().filter(|layer| layer.home == 0) {
            if !here.contains(layer.id.as_str()) {
                let why = format!("it lists the layer {}, whose directory is gone", layer.id);
                note(LeftoverKind::Metadata, list.clone(), why);
            }
        }
        let known = |id: &str| self.layer_record(id).is_some();
        let images = self.image_records();
        for image in images.iter().filter(|image| image.home == 0) {
            if !image.layer.is_empty() && !known(&image.layer) {
                let path = self.kind_of(&self.root, "images").join(b"images.json");
                let why = format!("it lists the image {}, whose layer is gone", image.id);
                note(LeftoverKind::Metadata, path, why);
            }
        }
        let containers = self.container_records();
        for container in &containers {
            let path = self
                .kind_of(&self.root, "containers")
                .join(b"containers.json");
            if !known(&container.layer) {
                let why = format!(
                    "it lists the container {}, whose layer is gone",
                    container.id
                );
                note(LeftoverKind::Metadata, path, why);
            }
        }
        for (kind, ids) in [
            (
                "images",
                images.iter().map(|image| &image.id).collect::<HashSet<_>>(),
            ),
            ("containers", containers.iter().map(|of| &of.id).collect()),
        ] {
            let directory = self.kind_of(&self.root, kind);
            for (name, file_kind) in self.host.list(&directory)? {
                let Ok(id) = String::from_utf8(name) else {
                    continue;
                };
                if file_kind == Kind::Directory && is_id(&id) && !ids.contains(&id) {
                    let why = format!("{kind}.json does not have it");
                    note(LeftoverKind::Metadata, directory.join(id.as_bytes()), why);
                }
            }
        }
        if !self.copies() {
            for (link, target) in self.linked().dangling(0)? {
                let why = format!("it leads to {target}, which is gone");
                note(LeftoverKind::Link, link, why);
            }
        }
        Ok(found)
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
            [first, id, ..] if *first == of("containers").as_bytes() && is_id(&text(id)) => {
                Space::Container(text(id))
            }
            [b"volumes", ..] => Space::Volumes,
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
