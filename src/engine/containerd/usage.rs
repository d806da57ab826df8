//! Who uses containerd's snapshots, and what else its directories are for.

use std::collections::{HashMap, HashSet};

use super::layers::is_read;
use super::{Containerd, DOCKERS_NAMESPACE, SNAPSHOTTER};
use crate::bytes::Bytes;
use crate::engine::inventory::{INIT, LayerName};
use crate::engine::usage::{ContainerName, ImageUse, LayerUse, Space, UseKind};
use crate::error::Result;

/// The key of what is being unpacked begins so.
const EXTRACTING: &str = "extract-";

impl Containerd<'_> {
    pub(super) fn read_uses(&self) -> Result<Vec<LayerUse>> {
        let mut uses = Vec::new();
        for snapshotter in self.snapshotters().iter().filter(|name| is_read(name)) {
            uses.extend(self.uses_of(snapshotter)?);
        }
        Ok(uses)
    }

    fn uses_of(&self, snapshotter: &str) -> Result<Vec<LayerUse>> {
        let all = self.snapshots(snapshotter);
        // `number -> containers`, `number -> images`, and what namespaces call each snapshot.
        let mut of_containers: HashMap<u64, Vec<ContainerName>> = HashMap::new();
        let mut of_images: HashMap<u64, Vec<ImageUse>> = HashMap::new();
        let mut keys: HashMap<u64, String> = HashMap::new();
        for (name, namespace) in self.meta() {
            for ((of, key), snapshot) in &namespace.snapshots {
                if of == snapshotter
                    && let Some(found) = all.get(&snapshot.name)
                {
                    keys.insert(found.id, key.clone());
                    if name == DOCKERS_NAMESPACE {
                        let id = key.trim_end_matches(INIT);
                        if !key.starts_with("sha256:") {
                            of_containers
                                .entry(found.id)
                                .or_default()
                                .push(ContainerName {
                                    id: id.to_owned(),
                                    name: id.to_owned(),
                                });
                        }
                    }
                }
            }
            for container in &namespace.containers {
                let place = (
                    container.snapshotter.clone(),
                    container.snapshot_key.clone(),
                );
                let snapshot = namespace.snapshots.get(&place);
                if container.snapshotter == snapshotter
                    && let Some(found) = snapshot.and_then(|of| all.get(&of.name))
                {
                    let shown = self.container(name, container);
                    of_containers
                        .entry(found.id)
                        .or_default()
                        .push(ContainerName {
                            id: shown.id,
                            name: shown.name,
                        });
                }
            }
            for image in self.images_in(name) {
                let layers: Vec<String> = image
                    .history
                    .iter()
                    .filter_map(|entry| entry.layer.as_ref()?.chain_id.clone())
                    .collect();
                let of = layers.len();
                for (index, chain_id) in layers.iter().enumerate() {
                    let place = (snapshotter.to_owned(), chain_id.clone());
                    let snapshot = namespace.snapshots.get(&place);
                    if let Some(found) = snapshot.and_then(|of| all.get(&of.name)) {
                        of_images.entry(found.id).or_default().push(ImageUse {
                            id: image.id.clone(),
                            tags: image.names.tags.clone(),
                            number: of - index,
                            of,
                        });
                    }
                }
            }
        }
        let mut known: Vec<u64> = all.values().map(|snapshot| snapshot.id).collect();
        known.extend(self.numbers(snapshotter)?);
        known.sort_unstable();
        known.dedup();
        let has_record: HashSet<u64> = all.values().map(|snapshot| snapshot.id).collect();
        Ok(known
            .into_iter()
            .map(|number| {
                let containers = of_containers.remove(&number).unwrap_or_default();
                let images = of_images.remove(&number).unwrap_or_default();
                let key = keys.get(&number).map(String::as_str).unwrap_or_default();
                let kind = match () {
                    () if !containers.is_empty() && key.ends_with(INIT) => UseKind::Init,
                    () if !containers.is_empty() => UseKind::Container,
                    () if !images.is_empty() => UseKind::Image,
                    () if key.starts_with(EXTRACTING) => UseKind::InProgress,
                    () if !has_record.contains(&number) => UseKind::Unknown,
                    () if key.is_empty() => UseKind::Unknown,
                    // A lease may hold it, or a client's own name.
                    () => UseKind::Unused,
                };
                LayerUse {
                    directory: self.content_dir(snapshotter, number),
                    layer: LayerName {
                        driver: snapshotter.to_owned(),
                        id: number.to_string(),
                        aliases: vec![key.trim_start_matches("sha256:").to_owned()],
                    },
                    kind,
                    containers,
                    images,
                }
            })
            .collect())
    }

    /// The numbers of the directories that a snapshotter has.
    pub(super) fn numbers(&self, snapshotter: &str) -> Result<Vec<u64>> {
        let directory = self.directory(snapshotter).join(b"snapshots");
        let names = self.host.list(&directory)?.into_iter();
        Ok(names
            .filter_map(|(name, _)| std::str::from_utf8(&name).ok()?.parse().ok())
            .collect())
    }

    pub(super) fn space(&self, inside: &Bytes) -> Space {
        let parts: Vec<&[u8]> = inside.components().collect();
        let text = |part: &[u8]| String::from_utf8_lossy(part).into_owned();
        match parts.as_slice() {
            [first, b"snapshots", number, ..] => match text(first).strip_prefix(SNAPSHOTTER) {
                Some(driver) => Space::Layer {
                    driver: driver.to_owned(),
                    id: text(number),
                },
                None => Space::Other,
            },
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
