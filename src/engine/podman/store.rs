//! One store of containers-storage: what every room asks of it.

use std::cell::OnceCell;

use rustix::io::Errno;

use super::record::{Lists, Records};
use crate::bytes::Bytes;
use crate::engine::problems::{Kept, Problems};
use crate::engine::union::Store;
use crate::error::Error;
use crate::host::Host;
use crate::overlay::Rules;

pub(super) const NAME: &str = "podman";
/// Podman's database since its fifth version, in the graph root or, of a transient store, the run root.
pub(super) const DATABASE: &[u8] = b"db.sql";
pub(super) const DRIVERS_READ: &str = "layerctl reads the storage drivers overlay, vfs and btrfs";

/// What Podman makes in every container to mount something on, and so leaves out of `podman diff`.
pub(super) const ENGINE_MADE: [&str; 13] = [
    "/dev",
    "/dev/init",
    "/etc/hostname",
    "/etc/hosts",
    "/etc/mtab",
    "/etc/resolv.conf",
    "/proc",
    "/run",
    "/run/.containerenv",
    "/run/notify",
    "/run/podman-init",
    "/run/secrets",
    "/sys",
];

/// One store, of one storage driver.
pub struct Podman<'h> {
    pub(super) host: &'h Host,
    /// The graph root.
    pub(super) root: Bytes,
    /// As a person configured it, or else Podman recorded it.
    pub(super) run_root: OnceCell<Option<Bytes>>,
    /// Where it is if nobody says.
    pub(super) usual_run_root: Option<Bytes>,
    pub(super) driver: String,
    /// Where layers and images are looked for: the graph root, then the stores it takes images
    /// from.
    pub(super) stores: Vec<Bytes>,
    /// Where this is a store that others take images from: those others.
    pub(super) takers: Vec<Podman<'h>>,
    /// A program makes the mounts.
    pub(super) has_mount_program: bool,
    /// Those of its overlays while they are not mounted.
    pub(super) rules: Rules,
    /// Why nothing of it is read: it is closed to who asks. Said once it is asked for what it keeps.
    pub(super) closed: Option<Errno>,
    /// What could not be read.
    pub(super) problems: Problems,
    /// Whether the machine was started since Podman worked last, once that has been asked for.
    pub(super) started_anew: OnceCell<bool>,
    pub(super) lists: Lists,
    pub(super) libpod: OnceCell<Kept<Records>>,
}

impl<'h> Podman<'h> {
    pub(super) fn new(
        host: &'h Host,
        root: Bytes,
        driver: String,
        problems: Problems,
    ) -> Podman<'h> {
        Podman {
            host,
            stores: vec![root.clone()],
            root,
            run_root: OnceCell::new(),
            usual_run_root: None,
            driver,
            takers: Vec::new(),
            has_mount_program: false,
            rules: Rules::DEFAULT,
            closed: None,
            problems,
            started_anew: OnceCell::new(),
            lists: Lists::default(),
            libpod: OnceCell::new(),
        }
    }

    pub(super) fn note(&self, error: Error) {
        self.problems.note(error);
    }

    /// Whether it is here for others' images alone.
    pub(super) fn is_of_images(&self) -> bool {
        !self.takers.is_empty()
    }

    pub(super) fn note_closed(&self) {
        if let Some(errno) = self.closed {
            self.note(Error::io(self.root.clone(), errno));
        }
    }

    pub(super) fn as_store(&self) -> Store {
        Store {
            root: self.root.clone(),
            driver: self.driver.clone(),
            namespace: None,
        }
    }
}
