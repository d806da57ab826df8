//! Layers of the `aufs` driver: which directories there are, and what each of them is.

use std::collections::{BTreeMap, HashSet};

use super::{Container, Docker, NAME, is_id};
use crate::branch::Permission;
use crate::bytes::Bytes;
use crate::engine::{Owner, OwnerKind, Role, Union, layer_branch};
use crate::error::{Error, Result};

impl Docker<'_> {
    /// The names of all layer directories: Docker's own count of them is `Dirs` in `docker info`.
    pub fn layer_ids(&self) -> Vec<String> {
        self.ids(&["aufs", "layers"])
    }

    /// `cache id -> (chain id, diff id)` of every layer in the database.
    pub fn layer_database(&self) -> BTreeMap<String, (String, String)> {
        let parts = ["image", "aufs", "layerdb", "sha256"];
        self.ids(&parts)
            .into_iter()
            .filter_map(|hex| {
                let at = |name| ["image", "aufs", "layerdb", "sha256", &hex, name];
                let cache_id = self.id(&at("cache-id"))?;
                let diff_id = self.word(&at("diff")).unwrap_or_default();
                Some((cache_id, (hex.clone(), diff_id)))
            })
            .collect()
    }

    /// The ids below a layer, nearest first.
    pub(super) fn parents(&self, id: &str) -> Result<Vec<String>> {
        let path = self.at(&["aufs", "layers", id]);
        let bytes = self.host.read(&path)?;
        let text =
            std::str::from_utf8(&bytes).map_err(|_| Error::damaged(path.clone(), "is not text"))?;
        let mut seen = HashSet::from([id]);
        let mut ids = Vec::new();
        for line in text.lines().filter(|line| !line.is_empty()) {
            if !is_id(line) {
                return Err(Error::damaged(
                    path,
                    format!("holds {line:?}, which is not an id"),
                ));
            }
            if !seen.insert(line) {
                return Err(Error::damaged(
                    path,
                    format!("names {line} twice: a loop of parents"),
                ));
            }
            ids.push(line.to_owned());
        }
        Ok(ids)
    }

    pub(super) fn diff_dir(&self, id: &str) -> Bytes {
        self.at(&["aufs", "diff", id])
    }

    /// A container's own directory, or what a removal that failed has made of it (FACTS 6.12).
    pub(super) fn own_diff_dir(&self, id: &str) -> Bytes {
        let removing = format!("{id}-removing");
        match self.is_there(&["aufs", "diff", &removing]) && !self.is_there(&["aufs", "diff", id]) {
            true => self.diff_dir(&removing),
            false => self.diff_dir(id),
        }
    }

    /// Finds out whether a mounted union is a container's, by its topmost branch, and says what
    /// its branches are.
    pub fn recognise(&self, union: &mut Union) {
        self.move_branches(union);
        let Some(top) = union
            .branches
            .first()
            .and_then(|branch| self.layer_name(&branch.spec.path))
        else {
            return;
        };
        for branch in &mut union.branches {
            branch.layer.id = layer_of_diff(&branch.spec.path);
        }
        if let Some(container) = self.container_of_mount(&top) {
            self.label_container(union, &container);
        }
    }

    /// Where the data directory has been moved, the kernel's paths are those of the old place.
    fn move_branches(&self, union: &mut Union) {
        for branch in &mut union.branches {
            let path = &branch.spec.path;
            if self.layer_name(path).is_some() {
                continue;
            }
            let Some(id) = layer_of_diff(path).filter(|id| is_id(id)) else {
                continue;
            };
            let moved = self.diff_dir(&id);
            let exists = |path: &Bytes| self.host.stat(path).is_ok_and(|stat| stat.is_some());
            if !exists(path) && exists(&moved) {
                branch.spec.path = moved;
            }
        }
    }

    /// The layer directory that a path of the host is, or lies in.
    pub fn layer_at(&self, path: &Bytes) -> Option<(String, Bytes)> {
        let inside = self.inside(&["aufs", "diff"], path)?;
        let id = self.layer_name(path)?;
        Some((id, Bytes::absolute(inside.components().skip(1))))
    }

    /// The id of a layer's directory, where `path` is one of ours.
    fn layer_name(&self, path: &Bytes) -> Option<String> {
        let inside = self.inside(&["aufs", "diff"], path)?;
        let first = inside.components().next()?;
        String::from_utf8(first.to_vec())
            .ok()
            .filter(|id| is_id(id))
    }

    /// What is left of a path below one of our directories, which a link may lead to.
    fn inside(&self, parts: &[&str], path: &Bytes) -> Option<Bytes> {
        let directory = self.at(parts);
        path.strip_prefix(&directory).or_else(|| {
            let real = self.host.resolve(&directory).ok()?;
            path.strip_prefix(&real)
        })
    }

    /// The container whose mount directory `aufs/mnt/<id>` a path is, or lies in.
    pub fn mount_dir_at(&self, path: &Bytes) -> Option<(Container, Bytes)> {
        let inside = self.inside(&["aufs", "mnt"], path)?;
        let mut parts = inside.components();
        let id = String::from_utf8(parts.next()?.to_vec())
            .ok()
            .filter(|id| is_id(id))?;
        Some((self.container_of_mount(&id)?, Bytes::absolute(parts)))
    }

    /// A layer and those below it.
    ///
    /// # Errors
    /// Metadata that is missing or damaged.
    pub fn union_of_layer(&self, id: &str) -> Result<Union> {
        let container = self.container_of_mount(id.trim_end_matches("-init"));
        let ids = std::iter::once(id.to_owned()).chain(self.parents(id)?);
        let branches: Vec<_> = ids
            .map(|id| {
                let is_container = container.is_some()
                    && !id.ends_with("-init")
                    && self.is_top(&id, container.as_ref());
                let permission = if is_container {
                    Permission::RW
                } else {
                    Permission::ro_wh()
                };
                layer_branch(self.diff_dir(&id), permission, id)
            })
            .collect();
        let mut union = Union::unmounted(branches);
        match container {
            Some(container) if id.ends_with("-init") => {
                if let Some(init) = union.branches.first_mut() {
                    init.layer.role = Role::Init;
                }
                self.label_image(
                    &mut union,
                    container.layout,
                    &container.driver,
                    &container.image_id,
                );
            }
            Some(container) => self.label_container(&mut union, &container),
            None => {
                // Number the layers within the smallest image that has this one.
                let image = self
                    .images()
                    .into_iter()
                    .filter(|image| {
                        let ids = image
                            .history
                            .iter()
                            .filter_map(|entry| entry.layer.as_ref()?.cache_id.as_deref());
                        ids.into_iter().any(|of| of == id)
                    })
                    .min_by_key(|image| image.history.len());
                if let Some(image) = image {
                    self.label_image(&mut union, image.layout, &image.driver, &image.id);
                }
            }
        }
        if union.owner.is_none() {
            union.owner = Some(Owner {
                engine: NAME,
                kind: OwnerKind::Layer,
                id: id.to_owned(),
                name: None,
            });
        }
        Ok(union)
    }

    fn is_top(&self, id: &str, container: Option<&Container>) -> bool {
        container.is_some_and(|container| self.mount_id(container).is_ok_and(|of| of == id))
    }
}

/// The layer id in a path `.../aufs/diff/<id>`.
fn layer_of_diff(path: &Bytes) -> Option<String> {
    let parts: Vec<&[u8]> = path.components().collect();
    match parts.as_slice() {
        [.., b"aufs", b"diff", id] => String::from_utf8(id.to_vec()).ok(),
        _ => None,
    }
}
