//! Layers: which directories there are, what stands below each, and what they make together.

use std::collections::{HashMap, HashSet};

use rustix::io::Errno;

use super::driver::{Driver, Stacking};
use super::{Docker, NAME};
use crate::branch::Permission;
use crate::bytes::Bytes;
use crate::engine::inventory::{Container, INIT, LayerName, is_id};
use crate::engine::linked::{self, LINKS, Linked};
use crate::engine::{LayeredBranch, Owner, OwnerKind, Role, Union, UnionKind, layer_branch};
use crate::error::{Error, Result};

/// A layer's directory.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Layer {
    pub driver: Driver,
    pub id: String,
}

impl Layer {
    fn is_init(&self) -> bool {
        self.id.ends_with(INIT)
    }

    /// Another layer of the same driver.
    fn beside(&self, id: String) -> Layer {
        Layer {
            driver: self.driver,
            id,
        }
    }
}

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
    pub(super) fn content_dir(&self, layer: &Layer) -> Bytes {
        let (directory, inside) = layer.driver.content();
        let at = |id: &str| self.at(directory).join(id.as_bytes());
        match (layer.driver, inside) {
            (Driver::Overlay, _) if self.is_whole(layer) => at(&layer.id).join(b"root"),
            (_, Some(inside)) => at(&layer.id).join(inside.as_bytes()),
            (Driver::Aufs, None) => {
                // What a removal that failed has made of a container's directory (FACTS 6.12).
                let removing = format!("{}-removing", layer.id);
                let is_removing = self.is_there(&["aufs", "diff", &removing])
                    && !self.is_there(&["aufs", "diff", &layer.id]);
                at(if is_removing { &removing } else { &layer.id })
            }
            (_, None) => at(&layer.id),
        }
    }

    /// Whether a layer of the old overlay driver is an image's, and so a copy of all below it.
    fn is_whole(&self, layer: &Layer) -> bool {
        self.is_there(&["overlay", &layer.id, "root"])
    }

    /// The union that has a layer on top: of a container, or read-only.
    pub(super) fn stack(&self, layer: &Layer, container: Option<&Container>) -> Result<Union> {
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
                        [vec![Parent::Layer(init)], parents].concat()
                    }
                    parents => parents?,
                };
                let own = Parent::Layer(layer.clone());
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
                let over_image = |own: &Layer, top| {
                    let own = self.branch(Parent::Layer(own.clone()), top);
                    let image = self.branch(Parent::Layer(image.clone()), Permission::RO);
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
    fn copy(&self, layer: &Layer, top: Permission) -> Result<Union> {
        let branch = |layer: &Layer, permission| {
            let branch = self.branch(Parent::Layer(layer.clone()), permission);
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
    fn parent_of_copy(&self, layer: &Layer) -> Result<Option<Layer>> {
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
    pub(super) fn image_stack(&self, driver: Driver, layers: Vec<Layer>) -> Union {
        let is_whole = driver.stacking() != Stacking::Differences;
        let branch = |layer| self.branch(Parent::Layer(layer), Permission::RO);
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

    fn branch(&self, parent: Parent, permission: Permission) -> LayeredBranch {
        match parent {
            Parent::Layer(layer) => {
                let permission = match (layer.driver, permission.is_writable()) {
                    (Driver::Aufs, false) => Permission::ro_wh(),
                    _ => permission,
                };
                layer_branch(self.content_dir(&layer), permission, layer.id)
            }
            Parent::Lost(path) => LayeredBranch::plain(path, permission),
        }
    }

    /// The layers below one whose content is a difference, nearest first.
    fn parents(&self, layer: &Layer) -> Result<Vec<Parent>> {
        match layer.driver {
            Driver::Aufs => self.listed_parents(layer),
            _ => self.linked_parents(layer),
        }
    }

    /// AUFS: a line for each.
    fn listed_parents(&self, layer: &Layer) -> Result<Vec<Parent>> {
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
            parents.push(Parent::Layer(layer.beside(line.to_owned())));
        }
        Ok(parents)
    }

    /// overlay2: short names.
    fn linked_parents(&self, layer: &Layer) -> Result<Vec<Parent>> {
        let parents = self.linked(layer.driver).parents(0, &layer.id)?;
        let driver = layer.driver;
        if parents.is_empty() && self.has_parent(layer) {
            let path = self.at(&[driver.content().0[0], &layer.id, "lower"]);
            return Err(Error::io(path, Errno::NOENT));
        }
        Ok(parents
            .into_iter()
            .map(|parent| Parent::of_link(driver, parent))
            .collect())
    }

    /// Whether the record of a layer that was read has been taken away since.
    pub(super) fn is_layer_gone(&self, driver: &str, id: &str) -> bool {
        let records = self.records.borrow();
        let mut of_layer = records
            .iter()
            .filter(|((of, _), (cache_id, _))| of == driver && cache_id.as_deref() == Some(id));
        of_layer.any(|((driver, chain), _)| {
            let chain = chain.trim_start_matches("sha256:");
            !self.is_there(&["image", driver, "layerdb", "sha256", chain])
        })
    }

    /// Whether Docker's records have something below a layer: every container has its init layer.
    fn has_parent(&self, layer: &Layer) -> bool {
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

    /// The container whose mounted union this is, by its topmost branch or its mount point.
    fn container_of_union(&self, union: &Union) -> Option<Container> {
        match union.branches.first() {
            Some(top) => {
                let layer = self.layer_of_branch(&top.spec.path)?;
                self.container_of_mount(&layer.id)
            }
            // A mount by a program does not tell its branches.
            None => {
                let mut points = union.mounts.iter().map(|mount| &mount.path);
                points.find_map(|point| Some(self.mount_dir(point)?.0))
            }
        }
    }

    /// Finds out whether a mounted union is a container's.
    pub(super) fn recognise_union(&self, union: &mut Union) {
        let Some(container) = self.container_of_union(union) else {
            return;
        };
        if union.branches.is_empty() {
            match self.own_stack(&container) {
                Ok(stack) => (union.branches, union.kind) = (stack.branches, stack.kind),
                Err(error) => self.note(error),
            }
        }
        self.label_owner(union, &container);
    }

    /// Says what the branches of a mounted union are.
    pub(super) fn describe_union(&self, union: &mut Union) {
        for branch in &mut union.branches {
            if let Some(layer) = self.layer_of_branch(&branch.spec.path) {
                branch.spec.path = self.content_dir(&layer);
                branch.layer.id = Some(layer.id);
            }
        }
        let Some(container) = self.container_of_union(union) else {
            return;
        };
        if container.driver == Driver::Overlay.name() {
            match self.own_stack(&container) {
                Ok(stack) => union.base = stack.base,
                Err(error) => self.note(error),
            }
        }
        self.label_container(union, &container);
    }

    fn own_stack(&self, container: &Container) -> Result<Union> {
        let layer = self.own_layer(container)?;
        self.stack(&layer, Some(container))
    }

    /// The layer that the kernel's path of a branch stands for. It may be a short name, relative
    /// to the driver's directory, or in the place where the data directory was before.
    fn layer_of_branch(&self, path: &Bytes) -> Option<Layer> {
        if let Some((layer, inside)) = self.layer_inside(path) {
            return (inside == Bytes::from("/")).then_some(layer);
        }
        let exists = |path: &Bytes| self.host.stat(path).is_ok_and(|stat| stat.is_some());
        if path.as_bytes().starts_with(b"/") && exists(path) {
            return None;
        }
        let parts: Vec<&[u8]> = path.components().collect();
        let layer = Driver::ALL.into_iter().find_map(|driver| {
            let (directory, inside) = driver.content();
            let directory: Vec<&[u8]> = directory.iter().map(|part| part.as_bytes()).collect();
            let tail = match (path.as_bytes().starts_with(b"/"), inside) {
                (true, _) => {
                    let at = parts
                        .windows(directory.len())
                        .rposition(|window| window == directory)?;
                    &parts[at + directory.len()..]
                }
                // Relative options are overlay's.
                (false, Some(_)) => &parts[..],
                (false, None) => return None,
            };
            self.layer_in(driver, tail)
                .filter(|(_, rest)| rest.is_empty())
        });
        layer
            .map(|(layer, _)| layer)
            .filter(|layer| exists(&self.content_dir(layer)))
    }

    /// The layer directory that a path of the host is, or lies in, and where in it.
    pub(super) fn layer_inside(&self, path: &Bytes) -> Option<(Layer, Bytes)> {
        self.drivers_here().iter().find_map(|here| {
            let inside = inside(&here.content, path)?;
            let parts: Vec<&[u8]> = inside.components().collect();
            let (layer, rest) = self.layer_in(here.driver, &parts)?;
            Some((layer, Bytes::absolute(rest.iter().copied())))
        })
    }

    /// The layer that a path below a driver's directory names, and what is left of the path.
    fn layer_in<'p>(
        &self,
        driver: Driver,
        parts: &'p [&'p [u8]],
    ) -> Option<(Layer, &'p [&'p [u8]])> {
        let id = |part: &[u8]| {
            let id = String::from_utf8(part.to_vec()).ok()?;
            is_id(&id).then_some(id)
        };
        let (first, rest) = parts.split_first()?;
        if *first == LINKS.as_bytes() && driver.content().1.is_some() {
            let (name, rest) = rest.split_first()?;
            let found = self.linked(driver).find(&id(name)?);
            return match found.map(|parent| Parent::of_link(driver, parent)) {
                Ok(Parent::Layer(layer)) => Some((layer, rest)),
                Ok(Parent::Lost(_)) => None,
                Err(error) => {
                    self.note(error);
                    None
                }
            };
        }
        let layer = Layer {
            driver,
            id: id(first)?,
        };
        match (driver.content().1, rest) {
            (None, rest) => Some((layer, rest)),
            (Some(_), []) => Some((layer, rest)),
            (Some(_), [b"merged", ..]) => None,
            (Some(_), [b"diff" | b"upper" | b"root", rest @ ..]) => Some((layer, rest)),
            // A file beside the content, which is about the layer.
            (Some(_), [_, ..]) => Some((layer, &[])),
        }
    }

    /// The drivers that have a directory here, with what each is called and where links lead.
    pub(super) fn drivers_here(&self) -> &[DriverHere] {
        self.drivers.get_or_init(|| {
            let here = Driver::ALL.into_iter().filter(|driver| {
                let directory = &driver.content().0[..1];
                self.is_there(directory)
            });
            here.map(|driver| DriverHere {
                driver,
                content: self.called(driver.content().0),
                mount: driver.mount().map(|(directory, _)| self.called(directory)),
            })
            .collect()
        })
    }

    fn called(&self, parts: &[&str]) -> Vec<Bytes> {
        let directory = self.at(parts);
        let real = self.host.resolve(&directory).ok();
        let real = real.filter(|real| *real != directory);
        std::iter::once(directory).chain(real).collect()
    }

    /// The container whose mount directory a path is, or lies in.
    pub(super) fn mount_dir(&self, path: &Bytes) -> Option<(Container, Bytes)> {
        self.drivers_here().iter().find_map(|here| {
            let (_, point) = here.driver.mount()?;
            let inside = inside(here.mount.as_ref()?, path)?;
            let mut parts = inside.components();
            let id = String::from_utf8(parts.next()?.to_vec()).ok()?;
            if let Some(point) = point
                && parts.next() != Some(point.as_bytes())
            {
                return None;
            }
            let container = is_id(&id).then(|| self.container_of_mount(&id)).flatten()?;
            Some((container, Bytes::absolute(parts)))
        })
    }

    /// A layer and those below it.
    ///
    /// # Errors
    /// Metadata that is missing or damaged.
    pub(super) fn layer_union(&self, layer: &Layer) -> Result<Union> {
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

/// A storage driver with its directories, under every name by which a path can lead there.
pub(super) struct DriverHere {
    driver: Driver,
    content: Vec<Bytes>,
    mount: Option<Vec<Bytes>>,
}

impl DriverHere {
    pub fn driver(&self) -> Driver {
        self.driver
    }
}

/// What is left of a path below a directory.
fn inside(directory: &[Bytes], path: &Bytes) -> Option<Bytes> {
    let mut names = directory.iter();
    names.find_map(|name| path.strip_prefix(name))
}

/// A layer below another one.
#[derive(Debug, Clone)]
enum Parent {
    Layer(Layer),
    /// Nothing tells which one it was. It stays in its place, so that no answer seems sure.
    Lost(Bytes),
}

impl Parent {
    fn of_link(driver: Driver, parent: linked::Parent) -> Parent {
        match parent {
            linked::Parent::Layer { id, .. } => Parent::Layer(Layer { driver, id }),
            linked::Parent::Lost(path) => Parent::Lost(path),
        }
    }
}
