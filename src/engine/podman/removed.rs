//! What has been removed from the store's lists since they were read.

use std::cell::LazyCell;
use std::collections::{HashMap, HashSet};

use super::store::Podman;
use crate::engine::union::{Owner, OwnerKind};
use crate::error::Error;

impl Podman<'_> {
    /// A removal marks a layer before it touches it. A container's layer goes before the
    /// container's record, an image's layers after the image's.
    pub(super) fn removed<'o>(&self, owners: &[&'o Owner]) -> Vec<&'o Owner> {
        let is_own = |owner: &&Owner| owner.store == self.as_store();
        let mut gone: Vec<&Owner> = owners.iter().copied().filter(is_own).collect();
        if gone.is_empty() {
            return gone;
        }
        let noted = self.problems.count();
        let is_live = self.host.is_live();
        let note_all = |unread: Vec<Error>| unread.into_iter().for_each(|error| self.note(error));
        let (layers, unread) = self.read_layer_records();
        note_all(unread);
        let layers: HashMap<&str, bool> = layers
            .iter()
            .map(|layer| (&*layer.id, layer.flags.incomplete))
            .collect();
        let is_marked = |id: &str| is_live && layers.get(id) == Some(&true);
        // One that had no record when it was opened never had one.
        let has_lost = |id: &str| self.layer_record(id).is_some() && !layers.contains_key(id);
        // Each is read if it is asked for.
        let containers = LazyCell::new(|| -> HashMap<String, String> {
            let (records, unread) = self.read_container_records();
            note_all(unread);
            // What only Podman's database has still is gone from the store.
            let stored = records.into_iter().filter(|record| !record.is_lost());
            stored.map(|record| (record.id, record.layer)).collect()
        });
        let images = LazyCell::new(|| -> HashSet<String> {
            let (records, unread) = self.read_image_records();
            note_all(unread);
            records.into_iter().map(|record| record.id).collect()
        });
        let libpod = LazyCell::new(|| self.read_libpod());
        let is_going = |id: &str| {
            is_live
                && libpod
                    .get(id)
                    .is_some_and(|record| record.state.removal_in_progress)
        };
        gone.retain(|owner| match owner.kind {
            OwnerKind::Image => !images.contains(&owner.id),
            OwnerKind::Container => containers
                .get(&owner.id)
                .is_none_or(|layer| is_going(&owner.id) || has_lost(layer) || is_marked(layer)),
            // What is being made is marked in the same way.
            OwnerKind::Layer => {
                let was_marked = self.layer_record(&owner.id).map(|of| of.flags.incomplete);
                has_lost(&owner.id) || is_marked(&owner.id) && was_marked == Some(false)
            }
        });
        // What cannot be read does not tell that anything is gone.
        if self.problems.count() > noted {
            gone.clear();
        }
        gone
    }
}
