//! Which snapshot or container a path of the host, or a mounted union, is.

use super::layers::{is_copying, is_read};
use super::records::ContainerRecord;
use super::{Containerd, NAME, SNAPSHOTTER, TASKS};
use crate::bytes::Bytes;
use crate::engine::union::Union;

impl Containerd<'_> {
    /// Gives the branches of a mounted union the numbers of their snapshots.
    pub fn name_layers(&self, union: &mut Union) {
        for branch in &mut union.branches {
            if let Some((_, number, inside)) = self.snapshot_inside(&branch.spec.path)
                && inside == Bytes::from("/")
            {
                branch.layer.id = Some(number);
            }
        }
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
        let top = top.and_then(|top| self.snapshot_inside(&top.spec.path));
        if let Some((snapshotter, number, _)) = top {
            return self.container_of(&snapshotter, &number);
        }
        let mut mounts = union.mounts.iter();
        let (namespace, record, _) = mounts.find_map(|mount| self.rootfs(&mount.path))?;
        Some((namespace, record))
    }

    /// The snapshot's directory that a path is, or lies in: snapshotter, number, what is left.
    pub(super) fn snapshot_inside(&self, path: &Bytes) -> Option<(String, String, Bytes)> {
        let inside = path.strip_prefix(&self.root).or_else(|| {
            let real = self.host.resolve(&self.root).ok()?;
            path.strip_prefix(&real)
        })?;
        let mut parts = inside.components();
        let first = std::str::from_utf8(parts.next()?).ok()?;
        let snapshotter = first.strip_prefix(SNAPSHOTTER)?.to_owned();
        if parts.next()? != b"snapshots" || !is_read(&snapshotter) {
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
        self.name_layers(union);
        if let Some((namespace, record)) = self.container_of_union(union) {
            self.label_container(union, namespace, record);
        }
    }
}
