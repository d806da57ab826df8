//! The kinds of snapshotters, and what each keeps where.

use super::record::{Snapshot, SnapshotKind};

/// What the names of snapshotters' directories and sections begin with.
pub(super) const SNAPSHOTTER: &str = "io.containerd.snapshotter.v1.";

pub(super) fn is_view(snapshot: &Snapshot) -> bool {
    snapshot.kind == Some(SnapshotKind::View)
}

/// Whether a snapshot has no directory of its own: a view of a whole one is mounted from there.
pub(super) fn is_bind(snapshotter: &str, snapshot: &Snapshot) -> bool {
    let is_whole = matches!(snapshotter, "native" | "blockfile");
    is_view(snapshot) && is_whole && snapshot.parent.is_some()
}

/// Whether a snapshotter keeps directories, or images of them.
pub(super) fn is_read(snapshotter: &str) -> bool {
    is_stacked(snapshotter) || is_copying(snapshotter) || snapshotter == "erofs"
}

/// Whether a snapshotter keeps directories that can be stacked.
pub(super) fn is_stacked(snapshotter: &str) -> bool {
    matches!(snapshotter, "overlayfs" | "fuse-overlayfs")
}

/// Whether the content of a snapshot is the whole of its directory, or a file.
pub(super) fn is_whole_directory(snapshotter: &str) -> bool {
    !is_stacked(snapshotter) && snapshotter != "erofs"
}

/// Whether each snapshot is whole.
pub(super) fn is_copying(snapshotter: &str) -> bool {
    matches!(snapshotter, "native" | "btrfs")
}

/// The directories of a snapshotter that have snapshots in them.
pub(super) fn places(snapshotter: &str) -> &'static [&'static str] {
    match snapshotter {
        "btrfs" => &["snapshots", "active", "view"],
        _ => &["snapshots"],
    }
}
