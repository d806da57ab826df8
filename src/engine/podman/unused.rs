//! What a store of containers-storage knows and nothing uses.

use std::collections::HashSet;

use super::store::Podman;
use super::usage::is_log;
use crate::dir::Kind;
use crate::engine::cover::Cover;
use crate::engine::inventory::{is_id, short};
use crate::engine::usage::{LayerUse, Leftover, LeftoverKind, UseKind};
use crate::error::{Error, Result};

impl Podman<'_> {
    /// What lies over a container's layers.
    pub(super) fn covers_of(&self, id: &str) -> Vec<Cover> {
        let mut covers = self.libpod_record(id).covers;
        for cover in &mut covers {
            let name = cover.name.as_ref().filter(|_| cover.source.is_none());
            if let Some(name) = name.filter(|name| is_id(name)) {
                let volume = self.root.join(b"volumes").join(name.as_bytes());
                cover.source = Some(volume.join(b"_data"));
            }
        }
        self.add_uppers(id, &mut covers);
        covers
    }

    pub(super) fn find_unused(&self) -> Result<Vec<Leftover>> {
        let mut found = self.unused_images();
        found.extend(self.unused_volumes()?);
        found.extend(self.old_logs()?);
        Ok(found)
    }

    /// The logs that containers that do not run have written beside their layers.
    fn old_logs(&self) -> Result<Vec<Leftover>> {
        let mut found = Vec::new();
        let stopped = self.read_containers().into_iter();
        for container in stopped.filter(|of| !of.state.running && !of.state.is_unknown) {
            let directory = self.kind_of(&self.root, "containers");
            let directory = directory.join(container.id.as_bytes()).join(b"userdata");
            for (name, kind) in self.host.list(&directory)? {
                if kind != Kind::File || !is_log(&name) {
                    continue;
                }
                let path = directory.join(&name);
                if self.host.stat(&path)?.is_some_and(|stat| stat.size > 0) {
                    found.push(Leftover::log(path, &container.name));
                }
            }
        }
        Ok(found)
    }

    /// The images without a name that no container and no other image stands on.
    fn unused_images(&self) -> Vec<Leftover> {
        let images = self.read_images();
        let containers = self.container_records();
        let directory = self.kind_of(&self.root, "images");
        let parents = images.iter().filter_map(|of| of.parent.as_ref());
        let used = parents.chain(containers.iter().map(|of| &of.image));
        let used: HashSet<&String> = used.collect();
        let free = images
            .iter()
            .filter(|image| image.names.tags.is_empty() && !used.contains(&image.id));
        free.map(|image| {
            let (name, path) = (
                short(&image.id).to_owned(),
                directory.join(image.id.as_bytes()),
            );
            let why = "it has no name, and no container stands on it";
            let command = Some("podman image prune".to_owned());
            Leftover {
                size: Some(image.size),
                ..Leftover::unused(LeftoverKind::Image, name, path, why, command)
            }
        })
        .collect()
    }

    /// The volumes that no container has: as Podman recorded, or else as each container's runtime
    /// configuration names them.
    fn unused_volumes(&self) -> Result<Vec<Leftover>> {
        let volumes = self.root.join(b"volumes");
        let names = self.host.list(&volumes)?.into_iter();
        let names = names.filter(|(_, kind)| *kind == Kind::Directory);
        let mut names: Vec<Vec<u8>> = names.map(|(name, _)| name).collect();
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let mut configurations = Vec::new();
        let mut recorded: HashSet<String> = HashSet::new();
        for container in self.container_records().iter() {
            if let Some(volumes) = self.libpod_record(&container.id).volumes {
                recorded.extend(volumes);
                continue;
            }
            let directory = self
                .kind_of(&self.root, "containers")
                .join(container.id.as_bytes());
            match self
                .host
                .read(&directory.join(b"userdata").join(b"config.json"))
            {
                Ok(bytes) => configurations.push(bytes),
                // What a builder works in, Podman does not know; it has no volumes.
                Err(error) if error.is_not_found() && !self.libpod_records().is_empty() => {}
                Err(error) if error.is_not_found() => {
                    let what = "has no userdata/config.json, as before its first start: which volumes it has cannot be told";
                    return Err(Error::damaged(directory, what));
                }
                Err(error) => return Err(error),
            }
        }
        names.sort_unstable();
        names.retain(|name| {
            let path = volumes.join(name).to_text().into_owned();
            let is_named = |bytes: &Vec<u8>| {
                let text = String::from_utf8_lossy(bytes);
                text.contains(&format!("{path}/_data")) || text.contains(&format!("{path}\""))
            };
            let is_recorded = |name: &[u8]| recorded.contains(&*String::from_utf8_lossy(name));
            !is_recorded(name) && !configurations.iter().any(is_named)
        });
        let free = names.into_iter().map(|name| {
            let path = volumes.join(&name);
            Leftover::volume("podman volume rm", &name, path)
        });
        Ok(free.collect())
    }

    pub(super) fn free_layer(&self, of: &LayerUse) -> Leftover {
        let (name, path) = (of.layer.id.clone(), of.directory.clone());
        if of.kind == UseKind::InProgress {
            let why = "it is unfinished, being made or removed: Podman removes what was left so when it starts next";
            return Leftover::unused(LeftoverKind::InProgress, name, path, why, None);
        }
        let why = "no image and no container has it";
        let command = Some("podman system check --repair".to_owned());
        Leftover::unused(LeftoverKind::Layer, name, path, why, command)
    }
}
