//! Unions that lie over a container's layers: Podman's `:O` volumes. Such an overlay is mounted in the
//! container's own mount namespace, and the paths of its options are the host's: there they mean
//! something else, or nothing (docs/facts.md#engines-2026-b11).
//!
//! Who may mount in the container can make another mount with the same words. So nothing is taken
//! from the namespace that the engine's record does not have: the container is the one that the
//! kernel says has its root there, the overlay is the one that is seen where the record has one, and
//! its directories are those of the record. Whether they are what it shows, `proof` finds out.

use super::cover::{Cover, CoverKind};
use super::interface::{Engine, engine_of};
use super::namespace::Process;
use super::union::{MountPoint, Over, Owner, OwnerKind, Union, UnionKind};
use crate::bytes::Bytes;
use crate::host::Host;

/// What is known when unions are looked at.
pub struct Around<'a> {
    pub host: &'a Host,
    pub engines: &'a [&'a dyn Engine],
    /// What else is mounted.
    pub mounted: &'a [Union],
}

impl Around<'_> {
    /// Which of the unions lie over a container's layers. The container's own may be among them.
    pub fn find(&self, unions: &[Union]) -> Vec<(usize, Over)> {
        let mut found = Vec::new();
        for (index, union) in unions.iter().enumerate() {
            if union.owner.is_some() || !matches!(union.kind, UnionKind::Overlay { .. }) {
                continue;
            }
            let mut mounts = union.mounts.iter();
            let over = mounts.find_map(|mount| self.over(unions, union, mount));
            found.extend(over.map(|over| (index, over)));
        }
        found
    }

    fn over(&self, others: &[Union], union: &Union, mount: &MountPoint) -> Option<Over> {
        let table = Process::read(self.host, mount.process?).ok()?.table;
        let seen = table.covering(&mount.path)?.superblock();
        if seen != union.superblock || mount.root.as_bytes() != b"/" {
            return None;
        }
        let root = table.covering(&Bytes::from("/"))?.superblock()?;
        let mounted = || self.mounted.iter().chain(others);
        let is_root = |of: &&Union| of.superblock.as_ref() == Some(&root);
        let container = mounted().find(is_root)?.owner.as_ref();
        let container = container.filter(is_container)?;
        // What our own mount namespace has is told first.
        let is_its_own = |of: &&Union| of.owner.as_ref().is_some_and(|of| of.is_same(container));
        mounted().find(is_its_own).filter(is_root)?;
        let engine = engine_of(self.engines.iter().copied(), container)?;
        // What cannot be read is told by whoever asks for the container.
        let covers = engine.covers(&container.id, container.store.namespace.as_deref());
        let covers = covers.ok()?;
        let is_it = |cover: &&Cover| {
            cover.kind == CoverKind::Overlay && cover.path == mount.path && self.fits(union, cover)
        };
        covers.iter().find(is_it)?;
        Some(Over {
            container: container.clone(),
            path: mount.path.clone(),
        })
    }

    /// Whether a union's branches are those that the record has.
    fn fits(&self, union: &Union, cover: &Cover) -> bool {
        let real = |path: &Bytes| self.host.resolve(path).ok();
        let is_same = |a: &Bytes, b: &Bytes| a == b || (real(a).is_some() && real(a) == real(b));
        match (&union.branches[..], &cover.upper, &cover.source) {
            ([top, below], Some(upper), Some(source)) => {
                is_same(&top.spec.path, upper) && is_same(&below.spec.path, source)
            }
            _ => false,
        }
    }
}

fn is_container(owner: &&Owner) -> bool {
    owner.kind == OwnerKind::Container
}
