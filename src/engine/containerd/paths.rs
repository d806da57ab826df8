//! Which snapshot or container a path of the host, or a mounted union, is.

use super::record::ContainerRecord;
use super::snapshotter::{SNAPSHOTTER, is_copying, is_read};
use super::store::{Containerd, NAME, TASKS};
use crate::bytes::Bytes;
use crate::engine::recorded::{Named, restack, top_permission};
use crate::engine::union::Union;

impl Containerd<'_> {
    /// Gives a mounted union the snapshots that the snapshotter has recorded below its topmost one.
    pub fn restack(&self, union: &mut Union) {
        let top = union.branches.first();
        let top = top.and_then(|top| self.snapshot_of_branch(&top.spec.path));
        let recorded = top.and_then(|(snapshotter, number)| {
            let all = self.snapshots(&snapshotter);
            let mut named = all.iter();
            let named = named.find(|(_, snapshot)| snapshot.id.to_string() == number);
            let name = named.map(|(name, _)| name.clone())?;
            Some(self.union_of_name(&snapshotter, &name, top_permission(union)))
        });
        let named = |path: &Bytes| {
            let snapshot = self.snapshot_of_branch(path);
            snapshot.map_or(Named::Unknown, |(_, number)| Named::Layer(number))
        };
        match recorded {
            Some(Ok(recorded)) => {
                let said = restack(union, recorded, named);
                return said.unwrap_or_else(|error| self.note(error));
            }
            Some(Err(error)) => self.note(error),
            None => {}
        }
        for branch in &mut union.branches {
            if let Named::Layer(number) = named(&branch.spec.path) {
                branch.layer.id = Some(number);
            }
        }
    }

    /// The snapshot whose content the kernel's path of a branch is: snapshotter, number.
    fn snapshot_of_branch(&self, path: &Bytes) -> Option<(String, String)> {
        let (snapshotter, number, inside) = self.snapshot_inside(path)?;
        if !is_read(&snapshotter) {
            return None;
        }
        let is_content =
            is_copying(&snapshotter) || matches!(path.file_name(), b"fs" | b"layer.erofs");
        (inside == Bytes::from("/") && is_content).then_some((snapshotter, number))
    }

    /// The container whose own snapshot this is.
    pub(super) fn container_of(
        &self,
        snapshotter: &str,
        number: &str,
    ) -> Option<(&String, &ContainerRecord)> {
        let number: u64 = number.parse().ok()?;
        let all = self.snapshots(snapshotter);
        self.own().find(|(namespace, container)| {
            let key = (
                container.snapshotter.clone(),
                container.snapshot_key.clone(),
            );
            let name = self
                .meta()
                .get(*namespace)
                .and_then(|of| of.snapshots.get(&key));
            container.snapshotter == snapshotter
                && name.is_some_and(|name| all.get(&name.name).is_some_and(|of| of.id == number))
        })
    }

    /// The container whose mounted union this is, by its topmost branch or its mount point.
    fn container_of_union(&self, union: &Union) -> Option<(&String, &ContainerRecord)> {
        let top = union.branches.first();
        let top = top.and_then(|top| self.snapshot_of_branch(&top.spec.path));
        if let Some((snapshotter, number)) = top {
            return self.container_of(&snapshotter, &number);
        }
        let mut mounts = union.mounts.iter();
        let (namespace, record, _) = mounts.find_map(|mount| self.rootfs(&mount.path))?;
        Some((namespace, record))
    }

    /// The snapshotter in whose directory a path lies, and what is left of the path.
    fn in_snapshotter(&self, path: &Bytes) -> Option<(String, Bytes)> {
        let elsewhere = self.settings.iter().find_map(|(name, told)| {
            let inside = path.strip_prefix(told.root.as_ref()?)?;
            Some((name.clone(), inside))
        });
        if elsewhere.is_some() {
            return elsewhere;
        }
        let inside = path.strip_prefix(&self.root).or_else(|| {
            let real = self.host.resolve(&self.root).ok()?;
            path.strip_prefix(&real)
        })?;
        let mut parts = inside.components();
        let first = std::str::from_utf8(parts.next()?).ok()?;
        let snapshotter = first.strip_prefix(SNAPSHOTTER)?.to_owned();
        Some((snapshotter, Bytes::absolute(parts)))
    }

    /// The snapshot's directory that a path is, or lies in: snapshotter, number, what is left.
    pub(super) fn snapshot_inside(&self, path: &Bytes) -> Option<(String, String, Bytes)> {
        let (snapshotter, inside) = self.in_snapshotter(path)?;
        let mut parts = inside.components();
        let is_place = match parts.next()? {
            b"snapshots" => true,
            b"active" | b"view" => snapshotter == "btrfs",
            _ => false,
        };
        if !is_place {
            return None;
        }
        let number = std::str::from_utf8(parts.next()?).ok()?.to_owned();
        if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let rest: Vec<&[u8]> = parts.collect();
        let rest = match (is_copying(&snapshotter), rest.as_slice()) {
            (true, rest) => rest,
            (false, [b"fs", rest @ ..]) => rest,
            (false, _) => &[],
        };
        Some((snapshotter, number, Bytes::absolute(rest.iter().copied())))
    }

    /// The container at whose mount point a path lies, and what is left of the path.
    pub(super) fn rootfs(&self, path: &Bytes) -> Option<(&String, &ContainerRecord, Bytes)> {
        let inside = path.strip_prefix(&self.state.join(TASKS))?;
        let mut parts = inside.components();
        let namespace = std::str::from_utf8(parts.next()?).ok()?.to_owned();
        let id = std::str::from_utf8(parts.next()?).ok()?.to_owned();
        if parts.next()? != b"rootfs" {
            return None;
        }
        let rest = Bytes::absolute(parts);
        let mut own = self.own();
        let (namespace, record) = own.find(|(of, record)| **of == namespace && record.id == id)?;
        Some((namespace, record, rest))
    }

    /// Whether a path is where a container is mounted.
    pub(super) fn is_rootfs(&self, path: &Bytes) -> bool {
        let inside = path.strip_prefix(&self.state.join(TASKS));
        inside.is_some_and(|inside| {
            inside.components().count() == 3 && inside.file_name() == b"rootfs"
        })
    }

    /// Finds out whether a mounted union is a container's.
    pub(super) fn recognise_union(&self, union: &mut Union) {
        if union.owner.is_none()
            && let Some((namespace, record)) = self.container_of_union(union)
        {
            self.label_owner(union, namespace, record);
        }
    }

    /// Says what the branches of a mounted union are.
    pub(super) fn describe_union(&self, union: &mut Union) {
        if union
            .owner
            .as_ref()
            .is_some_and(|owner| owner.engine != NAME)
        {
            return;
        }
        let container = self.container_of_union(union);
        self.restack(union);
        if let Some((namespace, record)) = container {
            self.label_container(union, namespace, record);
        }
    }
}
