//! Layers: which directories there are, what stands below each, and what they make together.

use std::collections::{HashMap, HashSet};

use rustix::io::Errno;

use super::driver::{Driver, Stacking};
use super::layer::{LayerBelow, LayerId};
use super::store::{Docker, NAME};
use crate::branch::Permission;
use crate::bytes::Bytes;
use crate::engine::interface::Engine;
use crate::engine::inventory::{Container, INIT, LayerName, is_id};
use crate::engine::linked::{LINKS, Linked};
use crate::engine::union::{LayeredBranch, Owner, OwnerKind, Role, Union, UnionKind, layer_branch};
use crate::error::{Error, Result};

impl Docker<'_> {
    /// The layers of every driver.
    pub(super) fn read_layers(&self) -> Vec<LayerName> {
        let mut layers = Vec::new();
        for driver in Driver::ALL {
            let mut database = self.database(driver);
            let ids = self.layer_ids(driver).into_iter();
            layers.extend(ids.map(|id| {
                LayerName {
                    driver: driver.name().to_owned(),
                    aliases: database
                        .remove(&id)
                        .map(|(chain_id, diff_id)| vec![chain_id, diff_id])
                        .unwrap_or_default(),
                    id,
                }
            }));
        }
        // Both stores can be in use in one data directory, the one after the other.
        layers.extend(self.own_containerds().flat_map(|of| of.layers()));
        layers
    }

    /// The names of a driver's layers: docker's own count of them is `Dirs` in `docker info`.
    pub(super) fn layer_ids(&self, driver: Driver) -> Vec<String> {
        let mut ids = self.ids(driver.layers());
        ids.retain(|id| id != LINKS);
        ids
    }

    /// `cache id -> (chain id, diff id)` of every layer in a driver's database, in hexadecimal.
    fn database(&self, driver: Driver) -> HashMap<String, (String, String)> {
        let parts = ["image", driver.name(), "layerdb", "sha256"];
        self.ids(&parts)
            .into_iter()
            .filter_map(|hex| {
                let at = |name| ["image", driver.name(), "layerdb", "sha256", &hex, name];
                let cache_id = self.id(&at("cache-id"))?;
                let diff_id = self.word(&at("diff")).unwrap_or_default();
                let diff_id = diff_id.trim_start_matches("sha256:").to_owned();
                Some((cache_id, (hex.clone(), diff_id)))
            })
            .collect()
    }

    /// The directory of a layer's content.
    pub(super) fn content_dir(&self, layer: &LayerId) -> Bytes {
        let (directory, inside) = layer.driver.content();
        let at = |id: &str| self.at(directory).join(id.as_bytes());
        match (layer.driver, inside) {
            (Driver::Overlay, _) if self.is_whole(layer) => at(&layer.id).join(b"root"),
            (_, Some(inside)) => at(&layer.id).join(inside.as_bytes()),
            (Driver::Aufs, None) => {
                // What a removal that failed has made of a container's directory (docs/facts.md#aufs-6.12).
                let removing = format!("{}-removing", layer.id);
                let is_removing = self.is_there(&["aufs", "diff", &removing])
                    && !self.is_there(&["aufs", "diff", &layer.id]);
                at(if is_removing { &removing } else { &layer.id })
            }
            (_, None) => at(&layer.id),
        }
    }

    /// Whether a layer of the old overlay driver is an image's, and so a copy of all below it.
    fn is_whole(&self, layer: &LayerId) -> bool {
        self.is_there(&["overlay", &layer.id, "root"])
    }

    /// The union that has a layer on top: of a container, or read-only.
    pub(super) fn stack(&self, layer: &LayerId, container: Option<&Container>) -> Result<Union> {
        let top = match container {
            Some(_) => Permission::RW,
            None => Permission::RO,
        };
        match layer.driver.stacking() {
            Stacking::Differences => {
                let lower = match self.parents(layer) {
                    // A half-removed container has lost its own list, but its init layer's is
                    // there.
                    Err(error) if error.is_not_found() && container.is_some() => {
                        let init = layer.beside(format!("{}{INIT}", layer.id));
                        let parents = self.parents(&init).map_err(|_| error)?;
                        [vec![LayerBelow::Layer(init)], parents].concat()
                    }
                    parents => parents?,
                };
                let own = LayerBelow::Layer(layer.clone());
                let all = std::iter::once(own).chain(lower).enumerate();
                let branches = all.map(|(index, parent)| {
                    let permission = if index == 0 {
                        top.clone()
                    } else {
                        Permission::RO
                    };
                    self.branch(parent, permission)
                });
                Ok(self.union(layer.driver, branches.collect()))
            }
            Stacking::OneImage if self.is_whole(layer) => self.copy(layer, top),
            Stacking::OneImage => {
                let parts = ["overlay", &layer.id, "lower-id"];
                let image = layer.beside(self.id_of(&parts)?);
                if !self.is_whole(&image) {
                    let what = format!("names the layer {}, which is no image's", image.id);
                    return Err(Error::damaged(self.at(&parts), what));
                }
                let over_image = |own: &LayerId, top| {
                    let own = self.branch(LayerBelow::Layer(own.clone()), top);
                    let image = self.branch(LayerBelow::Layer(image.clone()), Permission::RO);
                    self.union(layer.driver, vec![own, image])
                };
                let mut union = over_image(layer, top);
                // The container's directory began as a copy of its init layer's.
                let init = layer.beside(format!("{}{INIT}", layer.id));
                if container.is_some() && self.is_there(&["overlay", &init.id]) {
                    union.base = Some(Box::new(over_image(&init, Permission::RO)));
                }
                Ok(union)
            }
            Stacking::Copies => self.copy(layer, top),
        }
    }

    /// A layer that is whole, and the one that it was copied from.
    fn copy(&self, layer: &LayerId, top: Permission) -> Result<Union> {
        let branch = |layer: &LayerId, permission| {
            let branch = self.branch(LayerBelow::Layer(layer.clone()), permission);
            self.one_copy(layer.driver, branch)
        };
        let mut union = branch(layer, top);
        let mut base = self
            .parent_of_copy(layer)?
            .map(|parent| branch(&parent, Permission::RO));
        for branch in base.iter_mut().flat_map(|base| &mut base.branches) {
            if branch
                .layer
                .id
                .as_ref()
                .is_some_and(|id| id.ends_with(INIT))
            {
                branch.layer.role = Role::Init;
            }
        }
        union.base = base.map(Box::new);
        Ok(union)
    }

    /// The layer that another one began as a copy of; none below a base.
    fn parent_of_copy(&self, layer: &LayerId) -> Result<Option<LayerId>> {
        let name = layer.driver.name();
        let of_chain = |chain_id: &str| {
            let hex = chain_id.trim_start_matches("sha256:");
            let parts = ["image", name, "layerdb", "sha256", hex, "cache-id"];
            if !is_id(hex) {
                return Err(Error::damaged(self.at(&parts[..4]), "names no layer"));
            }
            self.id_of(&parts).map(|id| Some(layer.beside(id)))
        };
        let own_id = layer.id.trim_end_matches(INIT);
        if let Some(container) = self.container_of_mount(own_id) {
            let of = |file| ["image", name, "layerdb", "mounts", &container.id, file];
            if !layer.is_init()
                && let Some(init) = self.id(&of("init-id"))
            {
                return Ok(Some(layer.beside(init)));
            }
            // A container may be made from nothing.
            return match self.word(&of("parent")) {
                Some(chain_id) if !chain_id.is_empty() => of_chain(&chain_id),
                _ => Ok(None),
            };
        }
        let Some((chain_id, _)) = self.database(layer.driver).remove(&layer.id) else {
            return Err(Error::damaged(
                self.at(&["image", name, "layerdb"]),
                format!("does not know the layer {}", layer.id),
            ));
        };
        match self.word(&["image", name, "layerdb", "sha256", &chain_id, "parent"]) {
            Some(parent) => of_chain(&parent),
            None => Ok(None),
        }
    }

    /// The union that an image's layers make, newest first.
    pub(super) fn image_stack(&self, driver: Driver, layers: Vec<LayerId>) -> Union {
        let is_whole = driver.stacking() != Stacking::Differences;
        let branch = |layer| self.branch(LayerBelow::Layer(layer), Permission::RO);
        let mut branches = layers.into_iter().map(branch);
        if !is_whole {
            return self.union(driver, branches.collect());
        }
        let copy = |branch| self.one_copy(driver, branch);
        match (branches.next(), branches.next()) {
            (Some(top), below) => Union {
                base: below.map(copy).map(Box::new),
                ..copy(top)
            },
            (None, _) => self.union(driver, Vec::new()),
        }
    }

    fn one_copy(&self, driver: Driver, branch: LayeredBranch) -> Union {
        Union {
            kind: UnionKind::Copy,
            ..self.union(driver, vec![branch])
        }
    }

    fn union(&self, driver: Driver, branches: Vec<LayeredBranch>) -> Union {
        Union {
            kind: driver.kind(self.namespace),
            driver: Some(driver.name().to_owned()),
            ..Union::unmounted(branches)
        }
    }

    fn branch(&self, parent: LayerBelow, permission: Permission) -> LayeredBranch {
        match parent {
            LayerBelow::Layer(layer) => {
                let permission = match (layer.driver, permission.is_writable()) {
                    (Driver::Aufs, false) => Permission::ro_wh(),
                    _ => permission,
                };
                layer_branch(self.content_dir(&layer), permission, layer.id)
            }
            LayerBelow::Lost(path) => LayeredBranch::plain(path, permission),
        }
    }

    /// The layers below one whose content is a difference, nearest first.
    fn parents(&self, layer: &LayerId) -> Result<Vec<LayerBelow>> {
        match layer.driver {
            Driver::Aufs => self.listed_parents(layer),
            _ => self.linked_parents(layer),
        }
    }

    /// The names of the layers below an AUFS driver's one, but for what is a container's own; none
    /// where they are not listed.
    pub(super) fn ids_below(&self, layer: &LayerId) -> Vec<String> {
        let listed = match layer.driver {
            Driver::Aufs => self.listed_parents(layer).unwrap_or_default(),
            _ => Vec::new(),
        };
        let ids = listed.into_iter().filter_map(|below| match below {
            LayerBelow::Layer(layer) if !layer.is_init() => Some(layer.id),
            LayerBelow::Layer(_) | LayerBelow::Lost(_) => None,
        });
        ids.collect()
    }

    /// AUFS: a line for each.
    fn listed_parents(&self, layer: &LayerId) -> Result<Vec<LayerBelow>> {
        let path = self.at(&["aufs", "layers", &layer.id]);
        let bytes = self.host.read(&path)?;
        let text =
            std::str::from_utf8(&bytes).map_err(|_| Error::damaged(path.clone(), "is not text"))?;
        let mut seen = HashSet::from([layer.id.as_str()]);
        let mut parents = Vec::new();
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
            parents.push(LayerBelow::Layer(layer.beside(line.to_owned())));
        }
        Ok(parents)
    }

    /// overlay2: short names.
    fn linked_parents(&self, layer: &LayerId) -> Result<Vec<LayerBelow>> {
        let parents = self.linked(layer.driver).parents(0, &layer.id)?;
        let driver = layer.driver;
        if parents.is_empty() && self.has_parent(layer) {
            let path = self.at(&[driver.content().0[0], &layer.id, "lower"]);
            return Err(Error::io(path, Errno::NOENT));
        }
        Ok(parents
            .into_iter()
            .map(|parent| LayerBelow::of_link(driver, parent))
            .collect())
    }

    /// Whether Docker's records have something below a layer: every container has its init layer.
    fn has_parent(&self, layer: &LayerId) -> bool {
        let own = layer.id.trim_end_matches(INIT);
        if let Some(container) = self.container_of_mount(own) {
            let parts = [
                "image",
                layer.driver.name(),
                "layerdb",
                "mounts",
                &container.id,
                "parent",
            ];
            return !layer.is_init() || self.word(&parts).is_some_and(|parent| !parent.is_empty());
        }
        let record = self.database(layer.driver).remove(&layer.id);
        record.is_some_and(|(chain_id, _)| {
            let parts = [
                "image",
                layer.driver.name(),
                "layerdb",
                "sha256",
                &chain_id,
                "parent",
            ];
            self.is_there(&parts)
        })
    }

    pub(super) fn linked(&self, driver: Driver) -> Linked<'_> {
        Linked {
            host: self.host,
            homes: vec![self.at(driver.content().0)],
        }
    }

    /// A layer and those below it.
    ///
    /// # Errors
    /// Metadata that is missing or damaged.
    pub(super) fn layer_union(&self, layer: &LayerId) -> Result<Union> {
        let container = self.container_of_mount(layer.id.trim_end_matches(INIT));
        let own = container
            .as_ref()
            .filter(|container| self.own_layer(container).is_ok_and(|own| own == *layer));
        let mut union = self.stack(layer, own)?;
        match &container {
            Some(container) if layer.is_init() => {
                if let Some(init) = union.branches.first_mut() {
                    init.layer.role = Role::Init;
                }
                self.label_image(&mut union, &container.driver, &container.image_id);
            }
            Some(container) => self.label_container(&mut union, container),
            None => {
                // Number the layers within the smallest image that has this one.
                let image = self
                    .read_images()
                    .into_iter()
                    .filter(|image| image.driver == layer.driver.name())
                    .filter(|image| {
                        let mut ids = image
                            .history
                            .iter()
                            .filter_map(|entry| entry.layer.as_ref()?.cache_id.as_deref());
                        ids.any(|of| of == layer.id)
                    })
                    .min_by_key(|image| image.history.len());
                if let Some(image) = image {
                    self.label_image(&mut union, &image.driver, &image.id);
                }
            }
        }
        if union.owner.is_none() {
            union.owner = Some(Owner {
                engine: NAME,
                kind: OwnerKind::Layer,
                id: layer.id.clone(),
                name: None,
                store: self.store(layer.driver.name()),
            });
        }
        Ok(union)
    }
}
