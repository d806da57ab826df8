//! What Docker knows and nothing uses.

use std::collections::HashSet;

use serde::Deserialize;

use super::Docker;
use super::records::read_json;
use crate::bytes::Bytes;
use crate::dir::Kind;
use crate::engine::interface::Engine;
use crate::engine::inventory::{null_default, short};
use crate::engine::usage::{LayerUse, Leftover, LeftoverKind, UseKind, command};
use crate::error::Result;

impl Docker<'_> {
    pub(super) fn find_unused(&self) -> Result<Vec<Leftover>> {
        let mut found = self.unused_images();
        found.extend(self.unused_volumes()?);
        found.extend(self.old_logs()?);
        for containerd in self.own_containerds() {
            found.extend(containerd.unused()?);
        }
        Ok(found)
    }

    /// The images without a name that no container and no other image stands on.
    fn unused_images(&self) -> Vec<Leftover> {
        let images = self.images();
        let parents: HashSet<&String> = images.iter().filter_map(|of| of.parent.as_ref()).collect();
        let containers = self.containers();
        let used: HashSet<&String> = containers.iter().map(|of| &of.image_id).collect();
        let free = images.iter().filter(|image| {
            let is_used = parents.contains(&image.id) || used.contains(&image.id);
            image.names.tags.is_empty() && !is_used
        });
        free.map(|image| {
            let why = "it has no name, and no container stands on it";
            let command = Some("docker image prune".to_owned());
            let name = short(&image.id).to_owned();
            let image_size = Some(image.size);
            let path = self.image_path(&image.driver, &image.id);
            Leftover {
                size: image_size,
                ..Leftover::unused(LeftoverKind::Image, name, path, why, command)
            }
        })
        .collect()
    }

    /// The volumes that no container has.
    fn unused_volumes(&self) -> Result<Vec<Leftover>> {
        let mut used = HashSet::new();
        for id in self.ids(&["containers"]) {
            if let Some(path) = self.config_of(&id)? {
                let mounts: Mounts = read_json(self.host, &path)?;
                used.extend(mounts.points.into_values().map(|point| point.name));
                used.extend(mounts.older.into_values().filter_map(|path| {
                    let name = path.strip_suffix("/_data")?.rsplit('/').next()?;
                    Some(name.to_owned())
                }));
            }
        }
        let volumes = self.volume_directories()?.into_iter();
        let free = volumes.filter_map(|path| {
            let name = std::str::from_utf8(path.file_name()).ok()?.to_owned();
            let is_free = !used.contains(&name);
            is_free.then(|| Leftover::volume("docker volume rm", name.as_bytes(), path))
        });
        Ok(free.collect())
    }

    /// The directories of the volumes, in order of name.
    pub(super) fn volume_directories(&self) -> Result<Vec<Bytes>> {
        let volumes = self.at(&["volumes"]);
        let names = self.host.list(&volumes)?.into_iter();
        let names = names.filter(|(_, kind)| *kind == Kind::Directory);
        Ok(names.map(|(name, _)| volumes.join(&name)).collect())
    }

    /// The logs of containers that do not run.
    fn old_logs(&self) -> Result<Vec<Leftover>> {
        let mut found = Vec::new();
        for container in self.containers().iter().filter(|of| !of.state.running) {
            let directory = self.at(&["containers", &container.id]);
            for (name, kind) in self.host.list(&directory)? {
                let text = String::from_utf8_lossy(&name).into_owned();
                if kind != Kind::File || !text.contains("-json.log") {
                    continue;
                }
                let why = format!("the container {} does not run", container.name);
                let command = Some(command("docker rm", container.name.as_bytes()));
                let path = directory.join(&name);
                found.push(Leftover::unused(
                    LeftoverKind::Log,
                    text,
                    path,
                    why,
                    command,
                ));
            }
        }
        Ok(found)
    }

    pub(super) fn free_layer(&self, of: &LayerUse) -> Leftover {
        let mut containerds = self.own_containerds();
        let is_in = |root: &crate::bytes::Bytes| of.directory.lies_in(root);
        if let Some(containerd) = containerds.find(|containerd| is_in(containerd.root())) {
            return containerd.unused_layer(of);
        }
        let (name, path) = (of.layer.id.clone(), of.directory.clone());
        let (kind, why, command) = match of.kind {
            UseKind::BuildCache => (
                LeftoverKind::BuildCache,
                "a builder keeps it to build faster",
                Some("docker builder prune".to_owned()),
            ),
            UseKind::InProgress => (
                LeftoverKind::InProgress,
                "it is being pulled or built, or was when the daemon ended",
                None,
            ),
            _ => (
                LeftoverKind::Layer,
                "no image and no container has it",
                None,
            ),
        };
        Leftover::unused(kind, name, path, why, command)
    }
}

/// What a container's configuration says of its volumes.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Mounts {
    #[serde(rename = "MountPoints", deserialize_with = "null_default")]
    points: std::collections::HashMap<String, Point>,
    /// Before 1.8: where each is.
    #[serde(rename = "Volumes", deserialize_with = "null_default")]
    older: std::collections::HashMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Point {
    #[serde(deserialize_with = "null_default")]
    name: String,
}
