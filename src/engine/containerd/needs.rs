//! What snapshots stand on.

use super::record::SnapshotKind;
use super::snapshotter::is_read;
use super::store::Containerd;
use crate::engine::usage::Need;
use crate::error::Result;

impl Containerd<'_> {
    pub(super) fn find_needs(&self) -> Result<Vec<Need>> {
        let mut needs = Vec::new();
        for snapshotter in self.snapshotters().iter().filter(|name| is_read(name)) {
            let all = self.snapshots(snapshotter);
            for (name, snapshot) in all.iter() {
                let parent = snapshot.parent.as_ref().and_then(|parent| all.get(parent));
                let Some(parent) = parent else { continue };
                needs.push(Need {
                    layer: Some(self.place_of(snapshotter, snapshot, &all)),
                    by: format!("the snapshot {name}"),
                    needed: vec![self.place_of(snapshotter, parent, &all)],
                    always: false,
                });
                // Whoever works in it has no other record of it, perhaps: all below it are needed.
                if snapshot.kind == Some(SnapshotKind::Active) {
                    needs.push(Need {
                        layer: None,
                        by: format!("the active snapshot {name}"),
                        needed: vec![self.place_of(snapshotter, parent, &all)],
                        always: true,
                    });
                }
            }
        }
        Ok(needs)
    }
}
