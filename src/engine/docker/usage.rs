//! Who uses Docker's layers, and what else its directories are for.

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;

use super::driver::{Driver, Stacking};
use super::layer::LayerId;
use super::snapshots::{as_docker_names_them, snapshots_or_records};
use super::store::Docker;
use crate::bytes::Bytes;
use crate::dir::Kind;
use crate::engine::bolt::{self, Database, Item};
use crate::engine::containerd::DOCKERS_NAMESPACE;
use crate::engine::interface::Engine;
use crate::engine::inventory::{INIT, Image, LayerName, is_id};
use crate::engine::linked::LINKS;
use crate::engine::oci::CHAIN_MAX;
use crate::engine::usage::{ContainerName, ImageUse, LayerUse, Space, UseKind};
use crate::error::{Error, Result};

const MINUTE: i64 = 60;

/// The name that a removal gives to a directory before it goes.
pub(super) const REMOVING: &str = "-removing";

impl Docker<'_> {
    pub(super) fn read_uses(&self) -> Result<Vec<LayerUse>> {
        let mut uses = Vec::new();
        self.note_lost_layers(&self.read_containers());
        let images = self.read_images();
        let cache = self.build_cache()?;
        let (in_progress, unnamed_since) = self.in_progress();
        for here in self.drivers_here() {
            let driver = here.driver;
            let of_images = uses_by_image(&images, driver.name());
            let of_containers = self.containers_of_layers(driver)?;
            let known = self.known_layers(driver)?;
            let standing = self.standing_on(driver)?;
            for id in self.directories(driver)? {
                let own = id.trim_end_matches(REMOVING);
                let images = of_images.get(own).cloned().unwrap_or_default();
                let containers: Vec<ContainerName> =
                    of_containers.get(own).cloned().into_iter().collect();
                let above = standing.get(own).cloned().unwrap_or_default();
                let kind = if !containers.is_empty() {
                    if own.ends_with(INIT) {
                        UseKind::Init
                    } else {
                        UseKind::Container
                    }
                } else if !images.is_empty() || !above.is_empty() {
                    UseKind::Image
                } else if cache.contains(own) {
                    UseKind::BuildCache
                } else if in_progress.contains(own) {
                    UseKind::InProgress
                } else if known.contains(own) {
                    UseKind::Unused
                } else if unnamed_since.is_some_and(|since| self.is_since(driver, &id, since)) {
                    UseKind::InProgress
                } else {
                    UseKind::Unknown
                };
                let layer = LayerId {
                    driver,
                    id: id.clone(),
                };
                uses.push(LayerUse {
                    directory: self.content_dir(&layer),
                    layer: LayerName {
                        driver: driver.name().to_owned(),
                        id,
                        aliases: Vec::new(),
                    },
                    kind,
                    containers,
                    images,
                    note: None,
                    is_lent: false,
                    above,
                });
            }
        }
        uses.extend(self.snapshot_uses()?);
        Ok(uses)
    }

    /// The snapshots of the daemon's own containerd, and those of its that another one keeps.
    fn snapshot_uses(&self) -> Result<Vec<LayerUse>> {
        let mut all = Vec::new();
        for containerd in self.own_containerds() {
            all.extend(containerd.layer_uses()?);
        }
        for containerd in self.lending_containerds() {
            let lent = containerd.uses_in(DOCKERS_NAMESPACE)?.into_iter();
            all.extend(lent.map(|of| LayerUse {
                is_lent: true,
                ..of
            }));
        }
        for of in &mut all {
            for user in of.containers.iter_mut().chain(&mut of.above) {
                if let Ok(container) = self.container(&user.id) {
                    user.name = container.name;
                }
            }
            for image in &mut of.images {
                as_docker_names_them(&mut image.tags);
            }
        }
        Ok(all)
    }

    /// The directories that a driver has for layers, whatever their names say.
    pub(super) fn directories(&self, driver: Driver) -> Result<Vec<String>> {
        let names = self.host.list(&self.at(driver.content().0))?.into_iter();
        let ids = names
            .filter(|(_, kind)| *kind == Kind::Directory)
            .filter_map(|(name, _)| String::from_utf8(name).ok());
        Ok(ids.filter(|id| is_id(id) && id != LINKS).collect())
    }

    /// The layers that a driver's records have.
    fn known_layers(&self, driver: Driver) -> Result<HashSet<String>> {
        let mut known = HashSet::new();
        let records = self.at(&["image", driver.name(), "layerdb", "sha256"]);
        for (hex, _) in self.host.list(&records)? {
            known.extend(self.recorded(&records.join(&hex), "cache-id")?);
        }
        // The older layout has no records beside the layers themselves.
        known.extend(self.ids(&["graph"]));
        Ok(known)
    }

    /// The layers of which a driver's records have another one below.
    pub(super) fn with_parents(&self, driver: Driver) -> Result<HashSet<String>> {
        let mut upper = HashSet::new();
        let database = self.at(&["image", driver.name(), "layerdb"]);
        let kinds: [(&[u8], &[&str]); 2] = [
            (b"sha256", &["cache-id"]),
            (b"mounts", &["mount-id", "init-id"]),
        ];
        for (directory, files) in kinds {
            let records = database.join(directory);
            for (name, _) in self.host.list(&records)? {
                let record = records.join(&name);
                if self
                    .recorded(&record, "parent")?
                    .is_some_and(|parent| !parent.is_empty())
                {
                    for file in files {
                        upper.extend(self.recorded(&record, file)?);
                    }
                }
            }
        }
        Ok(upper)
    }

    /// `mount id -> container`, from the records of mounts and of the older layout.
    fn containers_of_layers(&self, driver: Driver) -> Result<HashMap<String, ContainerName>> {
        let mut owners = HashMap::new();
        let mounts = self.at(&["image", driver.name(), "layerdb", "mounts"]);
        for (cid, _) in self.host.list(&mounts)? {
            let Some(cid) = String::from_utf8(cid).ok().filter(|cid| is_id(cid)) else {
                continue;
            };
            let record = mounts.join(cid.as_bytes());
            if self.is_builders_mount(&cid) {
                continue;
            }
            let name = match self.container(&cid) {
                Ok(container) => container.name,
                // Its record is a leftover of its own.
                Err(_) => cid.clone(),
            };
            for file in ["mount-id", "init-id"] {
                if let Some(id) = self.recorded(&record, file)? {
                    let owner = ContainerName {
                        id: cid.clone(),
                        name: name.clone(),
                        namespace: None,
                    };
                    owners.insert(id, owner);
                }
            }
        }
        if driver == Driver::Aufs && self.is_there(&["graph"]) {
            for container in self.read_containers() {
                for id in [container.id.clone(), format!("{}{INIT}", container.id)] {
                    let owner = ContainerName {
                        id: container.id.clone(),
                        name: container.name.clone(),
                        namespace: None,
                    };
                    owners.entry(id).or_insert(owner);
                }
            }
        }
        Ok(owners)
    }

    /// `cache id -> the containers that stand on the layer`, from the records of mounts and of what
    /// each layer stands on.
    fn standing_on(&self, driver: Driver) -> Result<HashMap<String, Vec<ContainerName>>> {
        let layers = self.at(&["image", driver.name(), "layerdb", "sha256"]);
        let mut standing: HashMap<String, Vec<ContainerName>> = HashMap::new();
        let mounts = self.at(&["image", driver.name(), "layerdb", "mounts"]);
        let owners = self.containers_of_layers(driver)?;
        let mut seen = HashSet::new();
        for (mount, owner) in &owners {
            if !seen.insert(&owner.id) {
                continue;
            }
            let mut ids = Vec::new();
            let mut next = self.recorded(&mounts.join(owner.id.as_bytes()), "parent")?;
            let has_parent = next.is_some();
            let mut depth = 0;
            while let Some(chain_id) = next.take().filter(|_| depth < CHAIN_MAX) {
                depth += 1;
                let hex = chain_id.trim_start_matches("sha256:");
                if !is_id(hex) {
                    break;
                }
                let record = layers.join(hex.as_bytes());
                ids.extend(self.recorded(&record, "cache-id")?);
                next = self.recorded(&record, "parent")?;
            }
            if !has_parent {
                // The older layout has no such records.
                let layer = LayerId {
                    driver,
                    id: mount.trim_end_matches(INIT).to_owned(),
                };
                ids.extend(self.ids_below(&layer));
            }
            for id in ids {
                standing.entry(id).or_default().push(owner.clone());
            }
        }
        for above in standing.values_mut() {
            above.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
        }
        Ok(standing)
    }

    /// The layers that the builder keeps, and those of its steps: each of these has a record as a
    /// container's layer has, under the builder's name for it.
    pub(super) fn build_cache(&self) -> Result<HashSet<String>> {
        let mut ids = self.builders_records()?;
        for driver in self.ids(&["image"]) {
            let mounts = self.at(&["image", &driver, "layerdb", "mounts"]);
            for (name, _) in self.host.list(&mounts)? {
                let is_builders = std::str::from_utf8(&name).is_ok_and(|name| ids.contains(name));
                if is_builders {
                    ids.extend(self.recorded(&mounts.join(&name), "mount-id")?);
                }
            }
        }
        Ok(ids)
    }

    /// What the builder's database has, by names of its own.
    fn builders_records(&self) -> Result<HashSet<String>> {
        let path = self.at(&["buildkit", "snapshots.db"]);
        let bytes = match bolt::read(self.host, &path) {
            Ok(bytes) => bytes,
            Err(error) if error.is_not_found() => {
                // What it has in the daemon's own containerd is recorded there.
                if self.is_there(&["buildkit", "containerdmeta.db"]) {
                    return Err(error);
                }
                return Ok(HashSet::new());
            }
            Err(error) => return Err(error),
        };
        let mut ids = HashSet::new();
        let read = Database::open(&bytes).and_then(|database| {
            for item in database.root().iter() {
                let (key, item) = item?;
                ids.extend(std::str::from_utf8(key).ok().map(str::to_owned));
                if let Item::Bucket(bucket) = item {
                    let committed = bucket.get(b"committed")?;
                    let committed = committed.and_then(|id| std::str::from_utf8(id).ok());
                    ids.extend(committed.map(str::to_owned));
                }
            }
            Ok(())
        });
        read.map_err(|damage| Error::damaged(path, damage.to_string()))?;
        Ok(ids)
    }

    /// The layers that are being pulled or committed: their records are still apart. A record names its
    /// layer only at the end of what comes: since when there is one that does not, in seconds.
    fn in_progress(&self) -> (HashSet<String>, Option<i64>) {
        let (mut ids, mut since) = (HashSet::new(), None);
        for driver in self.ids(&["image"]) {
            let directory = ["image", &driver, "layerdb", "tmp"];
            for set in self.ids(&directory) {
                let parts = ["image", &driver, "layerdb", "tmp", &set, "cache-id"];
                if let Some(id) = self.id(&parts) {
                    ids.insert(id);
                } else if let Some((begun, written)) = self.times_of_set(&self.at(&parts[..5])) {
                    let age = Timestamp::now().as_second().saturating_sub(written);
                    // One that stands still for long was killed.
                    if !self.host.is_live() || age <= 60 * MINUTE {
                        since = since.into_iter().chain([begun]).min();
                    }
                }
            }
        }
        (ids, since)
    }

    /// When what is being made was begun, and written to last, in seconds; none where it is gone.
    fn times_of_set(&self, set: &Bytes) -> Option<(i64, i64)> {
        let time = |path: &Bytes| Some(self.host.stat(path).ok()??.mtime.0);
        let begun = time(set)?;
        let written = time(&set.join(b"tar-split.json.gz"));
        Some((begun, written.map_or(begun, |written| written.max(begun))))
    }

    /// Whether a layer's directory may be as young as a record, which is begun right after it.
    fn is_since(&self, driver: Driver, id: &str, since: i64) -> bool {
        let directory = self.at(driver.content().0).join(id.as_bytes());
        let stat = self.host.stat(&directory);
        // Who is not there any more is nobody's.
        stat.is_ok_and(|stat| stat.is_some_and(|stat| stat.mtime.0 > since.saturating_sub(MINUTE)))
    }

    pub(super) fn space(&self, inside: &Bytes) -> Space {
        let parts: Vec<&[u8]> = inside.components().collect();
        let text = |part: &[u8]| String::from_utf8_lossy(part).into_owned();
        for driver in Driver::ALL {
            let directories = [Some(driver.content().0), Some(driver.layers())];
            for directory in directories.into_iter().flatten() {
                let names = directory.iter().map(|part| part.as_bytes());
                if parts.len() > directory.len()
                    && parts.iter().copied().zip(names).all(|(a, b)| a == b)
                    && parts[directory.len()] != LINKS.as_bytes()
                {
                    return Space::Layer {
                        driver: driver.name().to_owned(),
                        id: text(parts[directory.len()]),
                    };
                }
            }
        }
        match parts.as_slice() {
            [b"containers", id, file, ..] if is_log(file) => Space::Log(text(id)),
            [b"containers", id, ..] => Space::Container(text(id)),
            [b"volumes"] | [b"volumes", b"metadata.db" | b"backingFsBlockDev"] => Space::Volumes,
            [b"volumes", name, ..] => Space::Volume(text(name)),
            [b"buildkit", ..] => Space::BuildCache,
            [b"containerd", b"daemon", rest @ ..] => {
                let inside = Bytes::absolute(rest.iter().copied());
                let mut own = self.own_containerds();
                let own = own.find(|of| of.root().lies_in(&self.root));
                own.map_or(Space::Records, |of| snapshots_or_records(of, &inside))
            }
            [b"image" | b"graph" | b"containerd", ..] => Space::Records,
            _ => Space::Other,
        }
    }

    /// Whether a directory of the store is a mount point of a container's, which shows what is
    /// counted elsewhere.
    pub(super) fn shows_layers(&self, inside: &Bytes) -> bool {
        let parts: Vec<&[u8]> = inside.components().collect();
        match parts.as_slice() {
            [driver, _, b"merged"] => Driver::ALL
                .iter()
                .any(|of| of.stacking() != Stacking::Copies && of.name().as_bytes() == *driver),
            [b"aufs", b"mnt", _] | [b"rootfs", _, _] => true,
            _ => false,
        }
    }
}

/// `cache id -> the images that have the layer`.
fn uses_by_image(images: &[Image], driver: &str) -> HashMap<String, Vec<ImageUse>> {
    let mut uses: HashMap<String, Vec<ImageUse>> = HashMap::new();
    for image in images.iter().filter(|image| image.driver == driver) {
        let layers: Vec<&str> = image
            .history
            .iter()
            .filter_map(|entry| entry.layer.as_ref())
            .map(|layer| layer.cache_id.as_deref().unwrap_or_default())
            .collect();
        for (index, id) in layers.iter().enumerate().filter(|(_, id)| !id.is_empty()) {
            uses.entry((*id).to_owned()).or_default().push(ImageUse {
                id: image.id.clone(),
                tags: image.names.tags.clone(),
                number: layers.len() - index,
                of: layers.len(),
            });
        }
    }
    uses
}

/// Whether a container's file, or directory, has what it printed.
pub(super) fn is_log(name: &[u8]) -> bool {
    let text = String::from_utf8_lossy(name);
    text.contains("-json.log") || text == "local-logs" || text == "container-cached.log"
}
