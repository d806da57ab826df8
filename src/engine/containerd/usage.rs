//! Who uses containerd's snapshots, and what else its directories are for.

use std::collections::{HashMap, HashSet};

use super::record::Snapshot;
use super::snapshotter::{SNAPSHOTTER, is_read, is_view, places};
use super::store::{Containerd, DOCKERS_NAMESPACE};
use crate::bytes::Bytes;
use crate::engine::inventory::{DOCKERS_ID, INIT, Image, LayerName, short};
use crate::engine::oci::CHAIN_MAX;
use crate::engine::usage::{ContainerName, ImageUse, LayerUse, Space, UseKind};
use crate::error::Result;

/// The key of what is being unpacked begins so.
const EXTRACTING: &str = "extract-";

/// Who uses the snapshots of one snapshotter, by their numbers.
#[derive(Default)]
struct Users {
    containers: HashMap<u64, Vec<ContainerName>>,
    images: HashMap<u64, Vec<ImageUse>>,
    /// The containers that stand on each.
    above: HashMap<u64, Vec<ContainerName>>,
    /// What namespaces call each snapshot.
    keys: HashMap<u64, String>,
    /// What else holds snapshots, in words: leases, places.
    notes: HashMap<u64, String>,
    views: HashSet<u64>,
    /// What Docker's builder has, and what that stands on.
    builders: HashSet<u64>,
}

impl Users {
    fn add_key(&mut self, number: u64, key: &str, is_dockers: bool) {
        self.keys.insert(number, key.to_owned());
        if !is_dockers || key.starts_with("sha256:") {
            return;
        }
        // Docker calls its containers' snapshots by their ids, and has no container records here. The
        // others are its builder's, by ids of another length.
        // docs/facts.md#engines-2026-c2
        let id = key.split('-').next().unwrap_or_default();
        if id.len() != DOCKERS_ID {
            self.builders.insert(number);
        } else {
            let container = ContainerName {
                id: id.to_owned(),
                name: id.to_owned(),
                namespace: None,
            };
            self.add_container(number, container);
        }
    }

    fn add_container(&mut self, number: u64, container: ContainerName) {
        self.containers.entry(number).or_default().push(container);
    }

    fn add_image(&mut self, image: &Image, number: impl Fn(&str) -> Option<u64>) {
        let layers = image.history.iter();
        let layers = layers.filter_map(|entry| entry.layer.as_ref()?.chain_id.as_deref());
        let layers: Vec<&str> = layers.collect();
        for (index, chain_id) in layers.iter().enumerate() {
            if let Some(number) = number(chain_id) {
                self.images.entry(number).or_default().push(ImageUse {
                    id: image.id.clone(),
                    tags: image.names.tags.clone(),
                    number: layers.len() - index,
                    of: layers.len(),
                });
            }
        }
    }

    /// Finds who stands on what, of snapshots by the snapshotter's own names.
    fn find_above(&mut self, all: &HashMap<String, Snapshot>) {
        let below = |snapshot: &Snapshot| snapshot.parent.as_ref().and_then(|of| all.get(of));
        let builders = all.values().filter(|of| self.builders.contains(&of.id));
        for snapshot in builders.collect::<Vec<_>>() {
            let mut next = below(snapshot);
            while let Some(parent) = next.filter(|of| self.builders.insert(of.id)) {
                next = below(parent);
            }
        }
        for snapshot in all.values() {
            let Some(containers) = self.containers.get(&snapshot.id) else {
                continue;
            };
            let mut next = below(snapshot);
            let mut depth = 0;
            while let Some(parent) = next.filter(|_| depth < CHAIN_MAX) {
                let above = self.above.entry(parent.id).or_default();
                for container in containers {
                    // Its init layer is its own, too.
                    if !above.contains(container)
                        && !self
                            .containers
                            .get(&parent.id)
                            .is_some_and(|own| own.contains(container))
                    {
                        above.push(container.clone());
                    }
                }
                next = below(parent);
                depth += 1;
            }
        }
        for above in self.above.values_mut() {
            above.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
        }
    }

    fn key(&self, number: u64) -> &str {
        self.keys
            .get(&number)
            .map(String::as_str)
            .unwrap_or_default()
    }

    fn kind(&self, number: u64, recorded: &HashSet<u64>) -> UseKind {
        let key = self.key(number);
        if self.containers.contains_key(&number) {
            if key.ends_with(INIT) {
                UseKind::Init
            } else {
                UseKind::Container
            }
        } else if self.images.contains_key(&number) || self.above.contains_key(&number) {
            UseKind::Image
        } else if key.starts_with(EXTRACTING) {
            UseKind::InProgress
        } else if self.builders.contains(&number) {
            UseKind::BuildCache
        } else if said_by_key(key).is_some() {
            if self.views.contains(&number) {
                UseKind::View
            } else {
                UseKind::InUse
            }
        } else if !recorded.contains(&number) || key.is_empty() {
            UseKind::Unknown
        } else {
            // A lease may hold it, or a client's own name.
            UseKind::Unused
        }
    }
}

impl Containerd<'_> {
    pub(super) fn read_uses(&self) -> Result<Vec<LayerUse>> {
        let mut uses = Vec::new();
        for snapshotter in &self.snapshotters() {
            uses.extend(self.uses_of(snapshotter)?);
        }
        Ok(uses)
    }

    /// Those of the snapshots that are one namespace's.
    ///
    /// # Errors
    /// A record that cannot be read.
    pub fn uses_in(&self, namespace: &str) -> Result<Vec<LayerUse>> {
        let mut own: HashSet<(String, String)> = HashSet::new();
        for snapshotter in self.snapshotters() {
            for (name, snapshot) in self.snapshots(&snapshotter).iter() {
                if name.split('/').next() == Some(namespace) {
                    own.insert((snapshotter.clone(), snapshot.id.to_string()));
                }
            }
        }
        let mut uses = self.read_uses()?;
        uses.retain(|of| own.contains(&(of.layer.driver.clone(), of.layer.id.clone())));
        Ok(uses)
    }

    /// The directories of the snapshots that are one namespace's.
    pub fn directories_in(&self, namespace: &str) -> Vec<Bytes> {
        let mut found = Vec::new();
        for snapshotter in self.snapshotters() {
            let directory = self.directory(&snapshotter);
            for snapshot in self.snapshots_of(namespace, &snapshotter).into_values() {
                let number = snapshot.id.to_string();
                let at = |place: &&str| directory.join(place.as_bytes()).join(number.as_bytes());
                let all = places(&snapshotter).iter().map(at);
                found.extend(
                    all.filter(|path| self.host.stat(path).is_ok_and(|stat| stat.is_some())),
                );
            }
        }
        found.sort();
        found
    }

    fn uses_of(&self, snapshotter: &str) -> Result<Vec<LayerUse>> {
        let all = self.snapshots(snapshotter);
        let mut users = Users::default();
        for (name, namespace) in self.meta() {
            let number = |key: &str| {
                let place = (snapshotter.to_owned(), key.to_owned());
                let snapshot = namespace.snapshots.get(&place)?;
                all.get(&snapshot.name).map(|found| found.id)
            };
            for (_, key) in namespace
                .snapshots
                .keys()
                .filter(|(of, _)| of == snapshotter)
            {
                if let Some(number) = number(key) {
                    users.add_key(number, key, name == DOCKERS_NAMESPACE);
                    let lease = self.lease_of(name, snapshotter, key);
                    if let Some(note) = said_by_key(key).or(lease) {
                        users.notes.insert(number, note);
                    }
                }
            }
            for record in &namespace.containers {
                let is_own = record.snapshotter == snapshotter;
                if let Some(number) = number(&record.snapshot_key).filter(|_| is_own) {
                    let shown = self.container(name, record);
                    users.add_container(number, ContainerName::of(&shown));
                }
            }
            for image in self.images_in(name) {
                users.add_image(&image, number);
            }
        }
        users.find_above(&all);
        let views = all.values().filter(|of| is_view(of)).map(|of| of.id);
        users.views.extend(views);
        let recorded: HashSet<u64> = all.values().map(|snapshot| snapshot.id).collect();
        let mut known: Vec<u64> = recorded.iter().copied().collect();
        known.extend(self.numbers(snapshotter)?);
        known.sort_unstable();
        known.dedup();
        let uses = known.into_iter().map(|number| {
            let (kind, key) = (users.kind(number, &recorded), users.key(number));
            LayerUse {
                directory: self.content_dir(snapshotter, number),
                layer: LayerName {
                    driver: snapshotter.to_owned(),
                    id: number.to_string(),
                    aliases: vec![key.trim_start_matches("sha256:").to_owned()],
                },
                kind,
                containers: users.containers.remove(&number).unwrap_or_default(),
                images: users.images.remove(&number).unwrap_or_default(),
                note: users.notes.remove(&number),
                is_lent: false,
                above: users.above.remove(&number).unwrap_or_default(),
            }
        });
        Ok(uses.collect())
    }

    /// The numbers of the directories that a snapshotter has.
    pub(super) fn numbers(&self, snapshotter: &str) -> Result<Vec<u64>> {
        let mut numbers = Vec::new();
        for place in places(snapshotter) {
            let directory = self.directory(snapshotter).join(place.as_bytes());
            let names = match self.host.list(&directory) {
                Err(error) if error.is_not_found() && may_lack(snapshotter, place) => Vec::new(),
                names => names?,
            };
            let own = names.into_iter();
            let number = |name: Vec<u8>| std::str::from_utf8(&name).ok()?.parse::<u64>().ok();
            numbers.extend(own.filter_map(|(name, _)| number(name)));
        }
        Ok(numbers)
    }

    pub(super) fn space(&self, inside: &Bytes) -> Space {
        let parts: Vec<&[u8]> = inside.components().collect();
        let text = |part: &[u8]| String::from_utf8_lossy(part).into_owned();
        match parts.as_slice() {
            [first, b"snapshots" | b"active" | b"view", number, ..] => {
                match text(first).strip_prefix(SNAPSHOTTER) {
                    Some(driver) => Space::Layer {
                        driver: driver.to_owned(),
                        id: text(number),
                    },
                    None => Space::Other,
                }
            }
            [
                b"io.containerd.content.v1.content" | b"io.containerd.metadata.v1.bolt",
                ..,
            ] => Space::Records,
            [
                b"io.containerd.grpc.v1.cri",
                b"containers" | b"sandboxes",
                id,
                ..,
            ] => Space::Container(text(id)),
            [first, b"metadata.db"] if first.starts_with(SNAPSHOTTER.as_bytes()) => Space::Records,
            _ => Space::Other,
        }
    }
}

fn may_lack(snapshotter: &str, place: &str) -> bool {
    place != "snapshots" || !is_read(snapshotter)
}

/// What the key of a snapshot says of who has it: whoever mounts an image calls its snapshot by the
/// place.
///
/// ```text
/// /run/containerd/io.containerd.grpc.v1.cri/image-volumes/<sandbox>/<digest>
/// ```
fn said_by_key(key: &str) -> Option<String> {
    if !key.starts_with('/') {
        return None;
    }
    let volume = key.split_once("/image-volumes/");
    let pod = volume.and_then(|(_, rest)| rest.split('/').next());
    Some(match pod {
        Some(pod) => format!("an image volume of the pod {}", short(pod)),
        None => format!("mounted at {key}, as its key says"),
    })
}
