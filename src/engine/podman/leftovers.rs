//! What nothing in the store refers to, and what refers to what is gone.

use std::collections::HashSet;

use super::store::Podman;
use crate::engine::usage::{Leftover, LeftoverKind, UseKind};
use crate::error::Result;

impl Podman<'_> {
    pub(super) fn find_leftovers(&self) -> Result<Vec<Leftover>> {
        let mut found = Vec::new();
        // Whoever is asked for what is left is told of an image that has lost its records.
        self.read_images();
        let uses = self.read_uses()?;
        let home = self.home(&self.root);
        for of in uses.iter().filter(|of| of.kind == UseKind::Unknown) {
            let why = "layers.json does not have this layer".to_owned();
            found.push(Leftover::new(
                LeftoverKind::Directory,
                home.join(of.layer.id.as_bytes()),
                why,
            ));
        }
        let here: HashSet<&str> = uses.iter().map(|of| of.layer.id.as_str()).collect();
        let list = self.kind_of(&self.root, "layers").join(b"layers.json");
        for layer in self.layer_records().iter().filter(|layer| layer.home == 0) {
            if !here.contains(layer.id.as_str()) {
                let why = format!("it lists the layer {}, whose directory is gone", layer.id);
                found.push(Leftover::record(list.clone(), why));
            }
        }
        let known = |id: &str| self.layer_record(id).is_some();
        for layer in self.layer_records().iter().filter(|layer| layer.home == 0) {
            if !layer.parent.is_empty() && !known(&layer.parent) {
                let why = format!(
                    "it lists the layer {} and not the one below it, {}: \"layer not known\"",
                    layer.id, layer.parent
                );
                found.push(Leftover::record(list.clone(), why));
            }
        }
        let images = self.image_records();
        for image in images.iter().filter(|image| image.home == 0) {
            if !image.layer.is_empty() && !known(&image.layer) {
                let path = self.kind_of(&self.root, "images").join(b"images.json");
                let why = format!(
                    "it lists the image {}, whose layer is gone: \"layer not known\"",
                    image.id
                );
                found.push(Leftover::record(path, why));
            }
        }
        let containers = self.container_records();
        for container in containers.iter() {
            let path = self
                .kind_of(&self.root, "containers")
                .join(b"containers.json");
            if container.is_lost() {
                let why = format!(
                    "Podman has the container {}, which it does not list: \"container not known\"",
                    container.id
                );
                found.push(Leftover::record(path, why));
            } else if container.rootfs.is_none() && !known(&container.layer) {
                let why = format!(
                    "it lists the container {}, whose layer is gone: \"layer not known\"",
                    container.id
                );
                found.push(Leftover::record(path, why));
            }
        }
        let image = |id: &str| self.image_record(id).is_some();
        found.extend(self.unlisted_data("images", image)?);
        let container = |id: &str| self.container_record(id).is_some();
        found.extend(self.unlisted_data("containers", container)?);
        if !self.copies() {
            for (link, target) in self.linked().dangling(0)? {
                let why = format!("it leads to {target}, which is gone");
                found.push(Leftover::new(LeftoverKind::Link, link, why));
            }
        }
        Ok(found)
    }

    /// The directories of images' or containers' data that the list does not have.
    fn unlisted_data(&self, kind: &str, is_listed: impl Fn(&str) -> bool) -> Result<Vec<Leftover>> {
        let paths = self.unlisted(&self.kind_of(&self.root, kind), is_listed)?;
        let leftover = |path| {
            let why = format!("{kind}.json does not have it");
            Leftover::new(LeftoverKind::Metadata, path, why)
        };
        Ok(paths.into_iter().map(leftover).collect())
    }
}
