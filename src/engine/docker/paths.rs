//! Which layer or container a path of the host, or a mounted union, is.

use super::driver::{Driver, Stacking};
use super::layer::{DriverHere, LayerBelow, LayerId};
use super::store::Docker;
use crate::bytes::Bytes;
use crate::engine::inventory::{Container, LayerName, is_id};
use crate::engine::linked::LINKS;
use crate::engine::recorded::{Named, restack};
use crate::engine::union::{Union, UnionKind};
use crate::error::Result;

impl Docker<'_> {
    /// The container whose mounted union this is, by its topmost branch or its mount point.
    fn container_of_union(&self, union: &Union) -> Option<Container> {
        let top = union.branches.first();
        let layer = top.and_then(|top| self.layer_of_branch(&top.spec.path));
        if let Some(layer) = layer {
            return self.container_of_mount(&layer.id);
        }
        // A mount by a program does not tell its branches, one by descriptors none that lasts.
        let root = Bytes::from("/");
        let mut points = union.mounts.iter().map(|mount| &mount.path);
        points.find_map(|point| {
            let (container, inside) = self.mount_dir(point)?;
            (inside == root).then_some(container)
        })
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
        let container = self.container_of_union(union);
        self.restack(union, container.as_ref());
        let Some(container) = container else {
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

    /// Gives a mounted overlay of a container the branches that the store has recorded. AUFS says
    /// itself what they are now.
    fn restack(&self, union: &mut Union, container: Option<&Container>) {
        let driver = container.and_then(|container| Driver::named(&container.driver));
        let is_told = union.kind == UnionKind::Aufs
            || driver.is_none_or(|driver| driver.stacking() != Stacking::Differences);
        if let Some(container) = container.filter(|_| !is_told) {
            let named = |path: &Bytes| {
                let layer = self.layer_of_branch(path);
                layer.map_or(Named::Unknown, |layer| Named::Layer(layer.id))
            };
            match self.own_stack(container) {
                Ok(recorded) => {
                    let said = restack(union, recorded, named);
                    return said.unwrap_or_else(|error| self.note(error));
                }
                Err(error) => self.note(error),
            }
        }
        for branch in &mut union.branches {
            if let Some(layer) = self.layer_of_branch(&branch.spec.path) {
                branch.spec.path = self.content_dir(&layer);
                branch.layer.id = Some(layer.id);
            }
        }
    }

    fn own_stack(&self, container: &Container) -> Result<Union> {
        let layer = self.own_layer(container)?;
        self.stack(&layer, Some(container))
    }

    /// The layer that the kernel's path of a branch stands for. It may be a short name, relative
    /// to the driver's directory, or in the place where the data directory was before.
    fn layer_of_branch(&self, path: &Bytes) -> Option<LayerId> {
        if let Some((layer, inside)) = self.layer_inside(path) {
            let is_content = match layer.driver.content().1 {
                None => true,
                // Nothing else in a layer's directory is its content.
                Some(_) => {
                    matches!(path.file_name(), b"diff" | b"upper" | b"root")
                        || path.parent().file_name() == LINKS.as_bytes()
                }
            };
            return (inside == Bytes::from("/") && is_content).then_some(layer);
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
    pub(super) fn layer_inside(&self, path: &Bytes) -> Option<(LayerId, Bytes)> {
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
    ) -> Option<(LayerId, &'p [&'p [u8]])> {
        let id = |part: &[u8]| {
            let id = String::from_utf8(part.to_vec()).ok()?;
            is_id(&id).then_some(id)
        };
        let (first, rest) = parts.split_first()?;
        if *first == LINKS.as_bytes() && driver.content().1.is_some() {
            let (name, rest) = rest.split_first()?;
            let found = self.linked(driver).find(&id(name)?);
            return match found.map(|parent| LayerBelow::of_link(driver, parent)) {
                Ok(LayerBelow::Layer(layer)) => Some((layer, rest)),
                Ok(LayerBelow::Lost(_)) => None,
                Err(error) => {
                    self.note(error);
                    None
                }
            };
        }
        // A device that the driver keeps for quotas, beside the layers.
        if *first == b"backingFsBlockDev" {
            return None;
        }
        let layer = LayerId {
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

    /// The layers that a short name stands for, in each of the directories that have such.
    pub(super) fn linked_layers<'s>(
        &'s self,
        link: &'s str,
    ) -> impl Iterator<Item = LayerName> + 's {
        let drivers = [Driver::Overlay2, Driver::Overlay, Driver::FuseOverlayfs];
        drivers.into_iter().filter_map(move |driver| {
            let links = self.at(driver.content().0).join(LINKS.as_bytes());
            let (layer, _) = self.layer_inside(&links.join(link.as_bytes()))?;
            Some(layer.named())
        })
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
}

/// What is left of a path below a directory.
fn inside(directory: &[Bytes], path: &Bytes) -> Option<Bytes> {
    let mut names = directory.iter();
    names.find_map(|name| path.strip_prefix(name))
}
