//! One data directory of Docker's: what every room asks of it.

use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;

use super::layer::DriverHere;
use crate::bytes::Bytes;
use crate::engine::containerd::Containerd;
use crate::engine::problems::{Kept, Problems};
use crate::engine::union::Store;
use crate::error::Error;
use crate::host::Host;
use crate::overlay::Namespace;

/// Where a daemon has what does not outlive the machine's running.
pub(super) const EXEC_ROOT: &str = "/run/docker";
pub(super) const NAME: &str = "docker";
pub(super) const DRIVERS_READ: &str =
    "layerctl reads Docker's drivers aufs, overlay2, overlay, fuse-overlayfs, vfs and btrfs";

/// One Docker data directory. Nothing is read from it until it is asked.
pub struct Docker<'h> {
    pub(super) host: &'h Host,
    pub(super) root: Bytes,
    /// Where overlay's marks are: a daemon without root's rights has the user's.
    pub(super) namespace: Namespace,
    /// The storage driver that `daemon.json` names.
    pub(super) configured_driver: Option<String>,
    /// What does not outlive the machine's running.
    pub(super) exec_root: Bytes,
    /// Where containerds have their data that are not this daemon's own: the root, and the state.
    pub(super) others: Vec<(Bytes, Bytes)>,
    /// What could not be read.
    pub(super) problems: Problems,
    /// `mount id -> container id`, once it has been asked for.
    pub(super) mounts: OnceCell<Kept<HashMap<String, String>>>,
    /// That directories of records are gone was noted, once it has been asked for.
    pub(super) lost: OnceCell<Kept<()>>,
    /// The files that hold a word, as far as they were read.
    pub(super) words: RefCell<HashMap<Bytes, Vec<u8>>>,
    /// `(driver, chain id) -> cache id and size`, as far as they were read.
    pub(super) records: RefCell<HashMap<(String, String), Kept<LayerRecord>>>,
    /// `(driver, image) -> the image it was built on`, as far as they were read.
    pub(super) parents: RefCell<HashMap<(String, String), Parent>>,
    /// The drivers that have a directory here, once they have been asked for.
    pub(super) drivers: OnceCell<Vec<DriverHere>>,
    /// The containerds that can have layers of ours, once they have been asked for.
    pub(super) containerds: OnceCell<Vec<Containerd<'h>>>,
}

/// A layer's cache id, and its size in bytes.
pub(super) type LayerRecord = (Option<String>, Option<u64>);

/// The image that another was made from.
pub(super) type Parent = Kept<Option<String>>;

impl<'h> Docker<'h> {
    pub(super) fn new(host: &'h Host, root: Bytes, problems: Problems) -> Docker<'h> {
        Docker {
            host,
            root,
            namespace: Namespace::Trusted,
            configured_driver: None,
            exec_root: Bytes::from(EXEC_ROOT),
            others: Vec::new(),
            problems,
            mounts: OnceCell::new(),
            lost: OnceCell::new(),
            words: RefCell::default(),
            records: RefCell::default(),
            parents: RefCell::default(),
            drivers: OnceCell::new(),
            containerds: OnceCell::new(),
        }
    }

    pub(super) fn store(&self, driver: &str) -> Store {
        Store {
            root: self.root.clone(),
            driver: driver.to_owned(),
            namespace: None,
        }
    }

    pub(super) fn note(&self, error: Error) {
        self.problems.note(error);
    }
}
