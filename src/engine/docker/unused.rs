//! What Docker knows and nothing uses.

use std::collections::HashSet;

use serde::Deserialize;

use super::records::read_json;
use super::store::Docker;
use super::usage::is_log;
use crate::bytes::Bytes;
use crate::dir::Kind;
use crate::engine::cover::{Cover, CoverKind, ENGINE_FILES, engines_own};
use crate::engine::interface::Engine;
use crate::engine::inventory::{is_id, null_default, short};
use crate::engine::usage::{BUILD_CACHE, LayerUse, Leftover, LeftoverKind, UseKind};
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

    /// What lies over a container's layers: what a person asked for comes first.
    pub(super) fn covers_of(&self, id: &str) -> Result<Vec<Cover>> {
        let Some(path) = self.config_of(id)? else {
            return Ok(Vec::new());
        };
        let mounts: Mounts = read_json(self.host, &path)?;
        let points = mounts.points.iter();
        let mut covers: Vec<Cover> = points
            .map(|(path, point)| {
                let cover = point.cover(path);
                match (&cover.name, point.source.as_str()) {
                    (Some(name), "") if is_id(name) => {
                        let source = self.at(&["volumes", name, "_data"]);
                        Cover {
                            source: Some(source),
                            ..cover
                        }
                    }
                    (Some(_), source) => cover.at(source),
                    (None, _) => cover,
                }
            })
            .collect();
        let older = mounts.older.iter();
        covers.extend(older.map(|(path, source)| Cover::of_mount(b"bind", path.as_str(), source)));
        let asked = match read_json(self.host, &self.at(&["containers", id, "hostconfig.json"])) {
            Ok(asked) => asked,
            Err(error) if error.is_absent() => Asked::default(),
            Err(error) => return Err(error),
        };
        let targets = asked.mounts.iter().filter(|mount| mount.r#type == "tmpfs");
        let targets = targets.map(|mount| &mount.target);
        let tmpfs = asked.tmpfs.keys().chain(targets);
        covers.extend(tmpfs.map(|path| Cover::new(CoverKind::Tmpfs, path.as_str())));
        covers.sort_by(|a, b| a.path.cmp(&b.path));
        let sources = [
            &mounts.hosts_path,
            &mounts.resolv_conf_path,
            &mounts.hostname_path,
        ];
        let files = ENGINE_FILES.into_iter().zip(sources);
        covers.extend(files.map(|(path, source)| Cover::new(CoverKind::Engine, path).at(source)));
        covers.extend(engines_own());
        Ok(covers)
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
        // The file system's own is none.
        let is_name = |name: &[u8]| name != b"lost+found";
        let names = names.filter(|(name, kind)| *kind == Kind::Directory && is_name(name));
        Ok(names.map(|(name, _)| volumes.join(&name)).collect())
    }

    /// The logs of containers that do not run.
    fn old_logs(&self) -> Result<Vec<Leftover>> {
        let mut found = Vec::new();
        for container in self.containers().iter().filter(|of| !of.state.running) {
            let directory = self.at(&["containers", &container.id]);
            let mut logs = Vec::new();
            for (name, kind) in self.host.list(&directory)? {
                let path = directory.join(&name);
                match kind {
                    Kind::File if is_log(&name) => logs.push(path),
                    // Of the `local` driver: one that is written to, and those before it.
                    Kind::Directory if is_log(&name) => {
                        let names = self.host.list(&path)?.into_iter();
                        let files = names.filter(|(_, kind)| *kind == Kind::File);
                        logs.extend(files.map(|(name, _)| path.join(&name)));
                    }
                    _ => {}
                }
            }
            for path in logs {
                if self.host.stat(&path)?.is_some_and(|stat| stat.size > 0) {
                    found.push(Leftover::log(path, &container.name));
                }
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
            UseKind::BuildCache => {
                let (why, command) = BUILD_CACHE;
                (LeftoverKind::BuildCache, why, Some(command.to_owned()))
            }
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
#[serde(rename_all = "PascalCase", default)]
struct Mounts {
    #[serde(deserialize_with = "null_default")]
    hosts_path: String,
    #[serde(deserialize_with = "null_default")]
    resolv_conf_path: String,
    #[serde(deserialize_with = "null_default")]
    hostname_path: String,
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
    #[serde(deserialize_with = "null_default")]
    source: String,
    /// Before 1.10 there was none.
    #[serde(deserialize_with = "null_default")]
    r#type: String,
}

impl Point {
    fn cover(&self, path: &str) -> Cover {
        match self.r#type.as_str() {
            "tmpfs" => Cover::new(CoverKind::Tmpfs, path),
            "bind" => Cover::new(CoverKind::Bind, path).at(&self.source),
            _ if self.name.is_empty() => Cover::new(CoverKind::Bind, path).at(&self.source),
            _ => Cover::volume(path, &self.name),
        }
    }
}

/// What was asked for when a container was made.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Asked {
    #[serde(deserialize_with = "null_default")]
    tmpfs: std::collections::HashMap<String, String>,
    #[serde(deserialize_with = "null_default")]
    mounts: Vec<AskedMount>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct AskedMount {
    #[serde(deserialize_with = "null_default")]
    r#type: String,
    #[serde(deserialize_with = "null_default")]
    target: String,
}
