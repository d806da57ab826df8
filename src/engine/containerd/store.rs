//! One containerd: what every room asks of it.

use std::cell::{OnceCell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use super::config::SnapshotterSettings;
use super::record::{NamespaceRecords, Snapshot};
use crate::bytes::Bytes;
use crate::engine::manifest::Content;
use crate::engine::problems::{Kept, Problems};
use crate::engine::union::Store;
use crate::error::Error;
use crate::host::Host;
use crate::overlay;

pub(super) const NAME: &str = "containerd";
pub(super) const TASKS: &[u8] = b"io.containerd.runtime.v2.task";
/// The namespace in which Docker keeps its own.
pub const DOCKERS_NAMESPACE: &str = "moby";
/// The one in which its builder keeps what it remembers of builds.
pub(super) const DOCKERS_HISTORY: &str = "moby_history";
/// The one in which its plugins run.
const DOCKERS_PLUGINS: &str = "plugins.moby";

/// What a snapshotter has, by its own names.
pub(super) type Snapshots = Rc<HashMap<String, Snapshot>>;

/// One containerd.
pub struct Containerd<'h> {
    pub(super) host: &'h Host,
    pub(super) root: Bytes,
    pub(super) state: Bytes,
    /// The one namespace that is asked for.
    pub(super) namespace: Option<String>,
    /// What its configuration says of snapshotters.
    pub(super) settings: BTreeMap<String, SnapshotterSettings>,
    pub(super) marks: overlay::Namespace,
    /// What could not be read.
    pub(super) problems: Problems,
    pub(super) meta: OnceCell<Kept<BTreeMap<String, NamespaceRecords>>>,
    pub(super) snapshotters: RefCell<HashMap<String, Kept<Snapshots>>>,
    /// What was read of images, by digest: many names stand for one.
    pub(super) contents: RefCell<HashMap<String, Rc<Content>>>,
    /// The chain ids of images' topmost layers, by the images' digests.
    pub(super) tops: RefCell<HashMap<String, Option<String>>>,
}

impl<'h> Containerd<'h> {
    /// The one with a certain root.
    pub fn at(host: &'h Host, root: Bytes, state: Bytes, problems: Problems) -> Containerd<'h> {
        let owner = host.stat(&root).ok().flatten();
        Containerd {
            host,
            state,
            namespace: None,
            settings: BTreeMap::new(),
            marks: if owner.is_some_and(|stat| stat.uid != 0) {
                overlay::Namespace::User
            } else {
                overlay::Namespace::Trusted
            },
            root,
            problems,
            meta: OnceCell::new(),
            snapshotters: RefCell::default(),
            contents: RefCell::default(),
            tops: RefCell::default(),
        }
    }

    pub(super) fn note(&self, error: Error) {
        self.problems.note(error);
    }

    /// Whether nothing but Docker's own is there, which is Docker's to tell of.
    pub fn is_dockers_alone(&self) -> bool {
        let names = self.meta();
        let mut all = names.keys();
        names.contains_key(DOCKERS_NAMESPACE)
            && all.all(|name| {
                [DOCKERS_NAMESPACE, DOCKERS_HISTORY, DOCKERS_PLUGINS].contains(&&**name)
            })
    }

    /// Whether a namespace has layers or images here: Docker's has nothing but containers where a driver
    /// of its own keeps the layers.
    pub fn stores_for(&self, namespace: &str) -> bool {
        let of = self.meta().get(namespace);
        of.is_some_and(|of| !of.snapshots.is_empty() || !of.images.is_empty())
    }

    pub(super) fn store(&self, snapshotter: &str, namespace: Option<&str>) -> Store {
        Store {
            root: self.root.clone(),
            driver: snapshotter.to_owned(),
            namespace: namespace.map(str::to_owned),
        }
    }
}
