//! Docker's storage drivers: where each keeps a layer, and what the layers of a container make
//! together.
//!
//! ```text
//! aufs            aufs/{diff,layers,mnt}/<id>                  a union; parents: a list of ids
//! overlay2        overlay2/<id>/{diff,link,lower,merged}       a union; parents: l/<link>:l/<link>
//! fuse-overlayfs  fuse-overlayfs/<id>/{diff,link,lower,merged} the same, mounted by a program
//! overlay         overlay/<id>/root                            an image: a copy, by hard links
//!                 overlay/<id>/{upper,lower-id,merged}         a container over one image
//! vfs             vfs/dir/<id>                                 a whole copy for each layer
//! btrfs           btrfs/subvolumes/<id>                        the same, as snapshots
//! ```

use crate::engine::union::UnionKind;
use crate::overlay::{Namespace, Rules};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Driver {
    Aufs,
    Overlay2,
    FuseOverlayfs,
    Overlay,
    Vfs,
    Btrfs,
}

/// How a driver stacks layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stacking {
    /// Each layer holds what differs from those below it.
    Differences,
    /// A container holds what differs from the copy of an image.
    OneImage,
    /// Each layer is whole.
    Copies,
}

impl Driver {
    pub const ALL: [Driver; 6] = [
        Driver::Aufs,
        Driver::Overlay2,
        Driver::FuseOverlayfs,
        Driver::Overlay,
        Driver::Vfs,
        Driver::Btrfs,
    ];

    pub fn named(name: &str) -> Option<Driver> {
        Driver::ALL.into_iter().find(|driver| driver.name() == name)
    }

    pub fn name(self) -> &'static str {
        match self {
            Driver::Aufs => "aufs",
            Driver::Overlay2 => "overlay2",
            Driver::FuseOverlayfs => "fuse-overlayfs",
            Driver::Overlay => "overlay",
            Driver::Vfs => "vfs",
            Driver::Btrfs => "btrfs",
        }
    }

    pub fn stacking(self) -> Stacking {
        match self {
            Driver::Aufs | Driver::Overlay2 | Driver::FuseOverlayfs => Stacking::Differences,
            Driver::Overlay => Stacking::OneImage,
            Driver::Vfs | Driver::Btrfs => Stacking::Copies,
        }
    }

    /// The directory that has an entry for each layer.
    pub fn layers(self) -> &'static [&'static str] {
        match self {
            Driver::Aufs => &["aufs", "layers"],
            _ => self.content().0,
        }
    }

    /// Where a layer's content is: in which directory by its id, and where in that.
    pub fn content(self) -> LayerPath {
        match self {
            Driver::Aufs => (&["aufs", "diff"], None),
            Driver::Overlay2 => (&["overlay2"], Some("diff")),
            Driver::FuseOverlayfs => (&["fuse-overlayfs"], Some("diff")),
            // An image's is `root`.
            Driver::Overlay => (&["overlay"], Some("upper")),
            Driver::Vfs => (&["vfs", "dir"], None),
            Driver::Btrfs => (&["btrfs", "subvolumes"], None),
        }
    }

    /// Where a container is mounted while it runs; none where it is its layer itself.
    pub fn mount(self) -> Option<LayerPath> {
        match self {
            Driver::Aufs => Some((&["aufs", "mnt"], None)),
            Driver::Overlay2 => Some((&["overlay2"], Some("merged"))),
            Driver::FuseOverlayfs => Some((&["fuse-overlayfs"], Some("merged"))),
            Driver::Overlay => Some((&["overlay"], Some("merged"))),
            Driver::Vfs | Driver::Btrfs => None,
        }
    }

    /// What the layers make while nothing is mounted that says more exactly.
    pub fn kind(self, namespace: Namespace) -> UnionKind {
        match self {
            Driver::Aufs => UnionKind::Aufs,
            Driver::Overlay2 | Driver::Overlay => UnionKind::Overlay {
                rules: Rules::of(namespace),
                data: 0,
            },
            Driver::FuseOverlayfs => UnionKind::FuseOverlay(namespace),
            Driver::Vfs | Driver::Btrfs => UnionKind::Copy,
        }
    }
}

/// A directory of the data directory, and what follows the layer's id in it.
pub(super) type LayerPath = (&'static [&'static str], Option<&'static str>);
