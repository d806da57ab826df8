//! containerd's databases, each read once.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use super::record::{NamespaceRecords, Snapshot, read_meta, read_snapshots};
use super::snapshotter::{SNAPSHOTTER, is_read};
use super::store::{Containerd, Snapshots};
use crate::bytes::Bytes;
use crate::engine::bolt;
use crate::error::Error;

impl Containerd<'_> {
    pub(super) fn database(&self) -> Bytes {
        self.root
            .join(b"io.containerd.metadata.v1.bolt")
            .join(b"meta.db")
    }

    /// Whether there is anything of it. Its own database may be lost, and a snapshotter's there.
    pub fn is_there(&self) -> bool {
        match self.host.stat(&self.database()) {
            Ok(Some(_)) => true,
            Ok(None) => {
                let names = self.host.list(&self.root).unwrap_or_default().into_iter();
                let mut snapshotters =
                    names.filter(|(name, _)| name.starts_with(SNAPSHOTTER.as_bytes()));
                snapshotters.any(|(name, _)| {
                    let database = self.root.join(&name).join(b"metadata.db");
                    self.host.stat(&database).is_ok_and(|stat| stat.is_some())
                })
            }
            Err(error) => {
                self.note(error);
                true
            }
        }
    }

    pub(super) fn meta(&self) -> &BTreeMap<String, NamespaceRecords> {
        let read = || {
            let path = self.database();
            let read = bolt::read(self.host, &path).and_then(|bytes| {
                read_meta(&bytes).map_err(|damage| Error::damaged(path.clone(), damage.to_string()))
            });
            read.unwrap_or_else(|error| {
                self.note(error);
                BTreeMap::new()
            })
        };
        self.problems
            .tell(self.meta.get_or_init(|| self.problems.keep(read)))
    }

    /// Whether what a namespace has is to be listed.
    pub(super) fn is_shown(&self, namespace: &str) -> bool {
        self.namespace.as_ref().is_none_or(|only| only == namespace)
    }

    /// The namespaces that are asked for.
    pub(super) fn namespaces(&self) -> impl Iterator<Item = (&String, &NamespaceRecords)> {
        self.meta().iter().filter(|(name, _)| self.is_shown(name))
    }

    /// What namespaces have of a snapshotter that keeps its own records elsewhere: a process of its
    /// own. The numbers are those of the names that containerd gave it.
    fn named_only(&self, snapshotter: &str) -> HashMap<String, Snapshot> {
        let mut named = HashMap::new();
        for of in self.meta().values() {
            let own = of.snapshots.iter().filter(|((of, _), _)| of == snapshotter);
            for (_, snapshot) in own {
                let number = snapshot.name.split('/').nth(1);
                let parent = snapshot.parent.as_ref().and_then(|parent| {
                    let place = (snapshotter.to_owned(), parent.clone());
                    Some(of.snapshots.get(&place)?.name.clone())
                });
                let found = Snapshot {
                    id: number.and_then(|number| number.parse().ok()).unwrap_or(0),
                    parent,
                    ..Snapshot::default()
                };
                named.insert(snapshot.name.clone(), found);
            }
        }
        named
    }

    /// What a snapshotter has, by its own names.
    pub(super) fn snapshots(&self, snapshotter: &str) -> Snapshots {
        if let Some(known) = self.snapshotters.borrow().get(snapshotter) {
            return Rc::clone(self.problems.tell(known));
        }
        let read = self
            .problems
            .keep(|| Rc::new(self.read_snapshots(snapshotter)));
        let mut snapshotters = self.snapshotters.borrow_mut();
        let read = snapshotters.entry(snapshotter.to_owned()).or_insert(read);
        Rc::clone(self.problems.tell(read))
    }

    fn read_snapshots(&self, snapshotter: &str) -> HashMap<String, Snapshot> {
        let path = self.directory(snapshotter).join(b"metadata.db");
        let is_elsewhere = || self.host.stat(&path).is_ok_and(|stat| stat.is_none());
        if !is_read(snapshotter) && is_elsewhere() {
            return self.named_only(snapshotter);
        }
        let read = bolt::read(self.host, &path).and_then(|bytes| {
            read_snapshots(&bytes).map_err(|damage| Error::damaged(path, damage.to_string()))
        });
        read.unwrap_or_else(|error| {
            self.note(error);
            HashMap::new()
        })
    }
}
