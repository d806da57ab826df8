//! What no namespace refers to, and what refers to what is gone.

use std::collections::HashSet;

use super::snapshotter::{is_bind, is_read, places};
use super::store::Containerd;
use crate::bytes::Bytes;
use crate::engine::usage::{Leftover, LeftoverKind};
use crate::error::Result;

impl Containerd<'_> {
    pub(super) fn find_leftovers(&self) -> Result<Vec<Leftover>> {
        let mut found = Vec::new();
        for snapshotter in self.snapshotters().iter().filter(|name| is_read(name)) {
            let all = self.snapshots(snapshotter);
            let directories: HashSet<u64> = self.numbers(snapshotter)?.into_iter().collect();
            let snapshots = self.directory(snapshotter).join(b"snapshots");
            let records: HashSet<u64> = all.values().map(|snapshot| snapshot.id).collect();
            let named: HashSet<&str> = self
                .meta()
                .values()
                .flat_map(|namespace| &namespace.snapshots)
                .filter(|((of, _), _)| of == snapshotter)
                .map(|(_, snapshot)| snapshot.name.as_str())
                .collect();
            let is_lost = |name: &str| !all.contains_key(name);
            let mut parents = all.values().filter_map(|of| of.parent.as_deref());
            // One without a record may be what something still names.
            let is_any_lost = named.iter().any(|name| is_lost(name)) || parents.any(is_lost);
            let mut unknown: Vec<u64> = directories.difference(&records).copied().collect();
            unknown.sort_unstable();
            for number in unknown.into_iter().filter(|_| !is_any_lost) {
                let why = "metadata.db does not have this snapshot".to_owned();
                let name = number.to_string();
                let at = places(snapshotter).iter();
                let mut at = at.map(|place| self.directory(snapshotter).join(place.as_bytes()));
                let is_there = |place: &Bytes| {
                    let found = self.host.stat(&place.join(name.as_bytes()));
                    found.is_ok_and(|stat| stat.is_some())
                };
                let place = at.find(is_there).unwrap_or_else(|| snapshots.clone());
                let path = place.join(name.as_bytes());
                found.push(Leftover::new(LeftoverKind::Directory, path, why));
            }
            let mut names: Vec<&String> = all.keys().collect();
            names.sort_unstable();
            let database = self.directory(snapshotter).join(b"metadata.db");
            for name in names {
                let snapshot = &all[name];
                if !directories.contains(&snapshot.id) && !is_bind(snapshotter, snapshot) {
                    let why = format!("it lists the snapshot {name}, whose directory is gone");
                    found.push(Leftover::record(database.clone(), why));
                } else if !named.contains(name.as_str()) && !self.host.is_live() {
                    // A removal takes the name first, and containerd's next collection the rest:
                    // on a live host that is under way, which is nobody's fault.
                    let why = format!(
                        "no namespace has the snapshot {name} any more, and containerd did not collect it"
                    );
                    let path = self.snapshot_dir(snapshotter, &snapshot.id.to_string());
                    found.push(Leftover {
                        is_removable: false,
                        ..Leftover::new(LeftoverKind::Directory, path, why)
                    });
                }
            }
            let mut gone: Vec<String> = named
                .into_iter()
                .filter(|name| is_lost(name))
                .map(|name| {
                    format!("it lists the snapshot {name}, which {snapshotter} does not have")
                })
                .collect();
            gone.sort_unstable();
            for why in gone {
                found.push(Leftover::record(self.database(), why));
            }
            // What is being made has a name of its own until it has a number.
            for (name, _) in self.host.list(&snapshots)? {
                if name.starts_with(b"new-") || name.starts_with(b"rm-") {
                    let why = "it was being made or removed when containerd ended".to_owned();
                    found.push(Leftover::new(
                        LeftoverKind::Temporary,
                        snapshots.join(&name),
                        why,
                    ));
                }
            }
        }
        Ok(found)
    }
}
