//! What has been removed from Docker's records since it was read.

use super::store::Docker;
use crate::engine::interface::Engine;
use crate::engine::union::{Owner, OwnerKind};

impl Docker<'_> {
    /// A removal marks a container before it touches the layer. It takes an image's record first,
    /// and moves a layer's record away.
    pub(super) fn removed<'o>(&self, owners: &[&'o Owner]) -> Vec<&'o Owner> {
        let is_own = |owner: &&Owner| owner.store.root == self.root;
        let is_gone = |owner: &&Owner| match owner.kind {
            OwnerKind::Container => self.is_container_gone(&owner.id),
            OwnerKind::Image => {
                !self.has_image(&owner.store.driver, &owner.id)
                    && self.is_snapshot_image_gone(owner)
            }
            OwnerKind::Layer => self.is_layer_gone(&owner.store.driver, &owner.id),
        };
        let own = owners.iter().copied().filter(is_own).filter(is_gone);
        let containerds = self.containerds.get().into_iter().flatten();
        let others = containerds.flat_map(|containerd| containerd.gone(owners));
        own.chain(others).collect()
    }

    /// Whether a container has no record any more, or is being removed.
    fn is_container_gone(&self, id: &str) -> bool {
        let is_gone = self.config_of(id).and_then(|config| match config {
            None => Ok(true),
            // Newer Dockers write nothing but that it is dead, and so it stays where a removal fails: that
            // may have taken a part as well.
            Some(_) => {
                let state = self.container(id)?.state;
                Ok((state.removal_in_progress || state.dead) && self.host.is_live())
            }
        });
        is_gone.unwrap_or_else(|error| {
            self.note(error);
            false
        })
    }

    /// Whether the record of a layer that was read has been taken away since.
    fn is_layer_gone(&self, driver: &str, id: &str) -> bool {
        let records = self.records.borrow();
        let mut of_layer = records.iter().filter(|((of, _), record)| {
            let (cache_id, _) = self.problems.tell(record);
            of == driver && cache_id.as_deref() == Some(id)
        });
        of_layer.any(|((driver, chain), _)| {
            let chain = chain.trim_start_matches("sha256:");
            !self.is_there(&["image", driver, "layerdb", "sha256", chain])
        })
    }
}
