//! What has been removed from containerd's databases since they were read.

use super::store::Containerd;
use crate::engine::problems::Problems;
use crate::engine::union::{Owner, OwnerKind};

impl Containerd<'_> {
    /// A removal takes records away first. What nothing refers to any more is collected later.
    pub(super) fn removed<'o>(&self, owners: &[&'o Owner]) -> Vec<&'o Owner> {
        let own: Vec<&Owner> = owners
            .iter()
            .copied()
            .filter(|owner| owner.store.root == self.root)
            .collect();
        if own.is_empty() {
            return own;
        }
        // As it is now.
        let (root, state) = (self.root.clone(), self.state.clone());
        let now = Containerd {
            settings: self.settings.clone(),
            ..Containerd::at(self.host, root, state, Problems::default())
        };
        let is_there = |owner: &Owner| {
            let store = &owner.store;
            let namespace = store.namespace.as_ref();
            let namespace = namespace.and_then(|name| now.meta().get(name));
            match owner.kind {
                OwnerKind::Layer => {
                    let snapshots = now.snapshots(&store.driver);
                    let mut numbers = snapshots.values().map(|snapshot| snapshot.id.to_string());
                    numbers.any(|number| number == owner.id)
                }
                OwnerKind::Container => {
                    namespace.is_some_and(|of| of.containers.iter().any(|own| own.id == owner.id))
                }
                OwnerKind::Image => namespace.is_some_and(|of| {
                    let mut digests = of.images.iter().map(|image| &*image.digest);
                    digests.any(|digest| digest.trim_start_matches("sha256:") == owner.id)
                }),
            }
        };
        let gone = own.into_iter().filter(|owner| !is_there(owner)).collect();
        let problems = now.problems.take();
        if problems.is_empty() {
            gone
        } else {
            problems.into_iter().for_each(|error| self.note(error));
            Vec::new()
        }
    }
}
