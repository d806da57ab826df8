//! Which layer or container a path of the host, or a mounted union, is.

use super::record::ContainerRecord;
use super::store::{NAME, Podman};
use crate::branch::Permission;
use crate::bytes::Bytes;
use crate::engine::inventory::{LayerName, is_hex_id, is_id};
use crate::engine::linked::{self, LINKS};
use crate::engine::recorded::{Named, restack, top_permission};
use crate::engine::union::Union;

impl Podman<'_> {
    /// What is left of a path below a directory of layers.
    fn inside_home(&self, path: &Bytes) -> Option<Bytes> {
        let homes = self.linked().homes;
        homes.iter().find_map(|home| {
            path.strip_prefix(home).or_else(|| {
                let real = self.host.resolve(home).ok()?;
                path.strip_prefix(&real)
            })
        })
    }

    /// Whether a path lies where this store itself keeps its layers.
    pub(super) fn is_in_own_home(&self, path: &Bytes) -> bool {
        let home = self.home(&self.root);
        let real = || self.host.resolve(&home).ok();
        path.strip_prefix(&home).is_some()
            || real().is_some_and(|real| path.strip_prefix(&real).is_some())
    }

    /// The layer directory that a path is, or lies in, and what is left of the path.
    pub(super) fn layer_inside(&self, path: &Bytes) -> Option<(String, Bytes)> {
        if !self.is_read() {
            return None;
        }
        let inside = self.inside_home(path)?;
        let parts: Vec<&[u8]> = inside.components().collect();
        let id = |part: &[u8]| {
            let id = String::from_utf8(part.to_vec()).ok()?;
            is_id(&id).then_some(id)
        };
        let (first, rest) = parts.split_first()?;
        if self.copies() {
            return Some((id(first)?, Bytes::absolute(rest.iter().copied())));
        }
        // Where a container has users of its own, the layers below are mounted once more, with other
        // owners: `<layer>/mapped/<number>/l/<short name>`.
        let link = match rest {
            _ if *first == LINKS.as_bytes() => rest.split_first(),
            [b"mapped", _, links, rest @ ..] if *links == LINKS.as_bytes() => rest.split_first(),
            _ => None,
        };
        if let Some((name, rest)) = link {
            return match self.linked().find(&id(name)?) {
                Ok(linked::Parent::Layer { id, .. }) => {
                    Some((id, Bytes::absolute(rest.iter().copied())))
                }
                Ok(linked::Parent::Lost(_)) => None,
                Err(error) => {
                    self.note(error);
                    None
                }
            };
        }
        // The driver has files of its own beside the layers, and the directory of their short names.
        let is_layer = |name: &str| self.layer_record(name).is_some() || is_hex_id(name);
        if !id(first).is_some_and(|name| is_layer(&name)) {
            return None;
        }
        let rest = match rest {
            [b"merged", ..] => return None,
            // Objects of composefs have no names there that the union would show.
            [b"diff", _, ..] if self.has_objects(first) => &[],
            [name, rest @ ..] if is_content(name) => rest,
            // A file beside the content, which is about the layer.
            _ => &[],
        };
        Some((id(first)?, Bytes::absolute(rest.iter().copied())))
    }

    /// Whether the directory of a layer has nothing but composefs's objects.
    fn has_objects(&self, layer: &[u8]) -> bool {
        let id = std::str::from_utf8(layer).ok().filter(|id| is_id(id));
        let found = id.map(|id| self.composefs(self.home_of(id), id));
        matches!(found, Some(Ok(Some(_))))
    }

    /// What the kernel's path of a branch stands for.
    fn named_branch(&self, path: &Bytes) -> Named {
        let full = self.full(path);
        let Some(inside) = self.inside_home(&full) else {
            return Named::Unknown;
        };
        let parts: Vec<&[u8]> = inside.components().collect();
        let is_content = match parts.as_slice() {
            [_, b"empty"] => return Named::Empty,
            [links, _] if *links == LINKS.as_bytes() => true,
            [_, b"mapped", _, links, _] => *links == LINKS.as_bytes(),
            [_, name] => is_content(name),
            _ => false,
        };
        let layer = is_content.then(|| self.layer_of_branch(path)).flatten();
        layer.map_or(Named::Unknown, Named::Layer)
    }

    /// An option's path may be relative to the directory of layers.
    fn full(&self, path: &Bytes) -> Bytes {
        if path.as_bytes().starts_with(b"/") {
            path.clone()
        } else {
            self.home(&self.root).join_path(path)
        }
    }

    fn layer_of_branch(&self, path: &Bytes) -> Option<String> {
        let is_absolute = path.as_bytes().starts_with(b"/");
        let (id, inside) = self.layer_inside(&self.full(path))?;
        let content = self.content_dir(self.home_of(&id), &id);
        let is_there = || self.host.stat(&content).is_ok_and(|stat| stat.is_some());
        (inside == Bytes::from("/") && (is_absolute || is_there())).then_some(id)
    }

    /// The container whose mounted union this is, by its mount point or its topmost branch.
    fn container_of_union(&self, union: &Union) -> Option<&ContainerRecord> {
        if let Some(layer) = self.layer_of_union(union) {
            return self.container_of_layer(&layer);
        }
        let top = &union.branches.first()?.spec.path;
        let is_rootfs = |of: &ContainerRecord| of.rootfs.as_ref().is_some_and(|of| of.is_below);
        let mut records = self.container_records().iter();
        records.find(|of| is_rootfs(of) && *top == self.rootfs_upper(&of.id))
    }

    /// The topmost layer of a mounted union, by its topmost branch or its mount point.
    fn layer_of_union(&self, union: &Union) -> Option<String> {
        let top = union.branches.first();
        match top.map(|top| self.named_branch(&top.spec.path)) {
            Some(Named::Layer(id)) => Some(id),
            _ => {
                let mut mounts = union.mounts.iter();
                let root = Bytes::from("/");
                mounts.find_map(|mount| {
                    let (id, inside) = self.merged(&mount.path)?;
                    (inside == root).then_some(id)
                })
            }
        }
    }

    /// Gives a mounted union the branches that the store has recorded for its topmost layer.
    fn restack(&self, union: &mut Union) {
        let layer = self.layer_of_union(union);
        let known = layer.filter(|layer| self.layer_record(layer).is_some());
        let stack = known.map(|layer| self.stack(&layer, top_permission(union)));
        match stack {
            Some(Ok(recorded)) => {
                let said = restack(union, recorded, |path| self.named_branch(path));
                said.unwrap_or_else(|error| self.note(error));
                return;
            }
            Some(Err(error)) => self.note(error),
            None => {}
        }
        for branch in &mut union.branches {
            if let Named::Layer(id) = self.named_branch(&branch.spec.path) {
                branch.spec.path = self.content_dir(self.home_of(&id), &id);
                branch.layer.id = Some(id);
            }
        }
    }

    /// The mount point in our directories that a path lies under, as the layer and what is left.
    pub(super) fn merged(&self, path: &Bytes) -> Option<(String, Bytes)> {
        if self.copies() {
            return None;
        }
        let inside = path.strip_prefix(&self.home(&self.root))?;
        let mut parts = inside.components();
        let id = String::from_utf8(parts.next()?.to_vec()).ok()?;
        (parts.next() == Some(b"merged")).then(|| (id, Bytes::absolute(parts)))
    }

    /// Finds out whether a mounted union is a container's.
    pub(super) fn recognise_union(&self, union: &mut Union) {
        if union.owner.is_some() || self.copies() || !self.is_read() {
            return;
        }
        let Some(container) = self.container_of_union(union) else {
            return;
        };
        if union.branches.is_empty() {
            match self.stack(&container.layer, Permission::RW) {
                Ok(stack) => (union.branches, union.kind) = (stack.branches, stack.kind),
                Err(error) => self.note(error),
            }
        }
        self.label_owner(union, container);
    }

    /// Says what the branches of a mounted union are.
    pub(super) fn describe_union(&self, union: &mut Union) {
        let is_anothers = union
            .owner
            .as_ref()
            .is_some_and(|owner| owner.engine != NAME);
        if is_anothers || self.copies() || !self.is_read() {
            return;
        }
        let container = self.container_of_union(union);
        self.restack(union);
        if let Some(container) = container {
            self.label_container(union, container);
        }
    }

    pub(super) fn named(&self, layer: String) -> LayerName {
        LayerName {
            driver: self.driver.clone(),
            id: layer,
            aliases: Vec::new(),
        }
    }

    /// The layer that a short name stands for.
    pub(super) fn linked_layer(&self, link: &str) -> Option<LayerName> {
        if self.copies() {
            return None;
        }
        let links = self.home(&self.root).join(LINKS.as_bytes());
        let (id, _) = self.layer_inside(&links.join(link.as_bytes()))?;
        Some(self.named(id))
    }
}

/// Whether an entry of a layer's directory is its content. A rootless store may keep it in several:
/// `diff`, `diff1`.
fn is_content(name: &[u8]) -> bool {
    let number = name.strip_prefix(b"diff");
    number.is_some_and(|number| number.iter().all(u8::is_ascii_digit))
}
