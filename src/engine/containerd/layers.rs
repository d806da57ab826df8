//! Layers, which containerd calls snapshots: where each is, what stands below it, and what they
//! make together.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::record::{NamespaceRecords, Snapshot, SnapshotKind};
use super::snapshotter::{SNAPSHOTTER, is_bind, is_copying, is_read, is_stacked, places};
use super::store::{Containerd, NAME};
use crate::branch::Permission;
use crate::bytes::Bytes;
use crate::engine::inventory::{Image, LayerName};
use crate::engine::oci::CHAIN_MAX;
use crate::engine::union::{LayeredBranch, Owner, OwnerKind, Role, Union, UnionKind, layer_branch};
use crate::error::{Error, Result};
use crate::overlay::{self, Rules};
use crate::union::IdMap;

impl Containerd<'_> {
    /// Every snapshot of every snapshotter.
    pub(super) fn read_layers(&self) -> Vec<LayerName> {
        let mut layers = Vec::new();
        for snapshotter in self.snapshotters() {
            for (name, snapshot) in self.snapshots(&snapshotter).iter() {
                let namespace = name.split('/').next().unwrap_or_default();
                // A key is a name in its namespace only.
                let key = Some(key_in(name)).filter(|_| self.is_shown(namespace));
                let aliases = key.map(|key| {
                    let own = key.trim_start_matches("sha256:");
                    [own.to_owned(), format!("{namespace}/{key}")]
                });
                layers.push(LayerName {
                    driver: snapshotter.clone(),
                    id: snapshot.id.to_string(),
                    aliases: aliases.into_iter().flatten().collect(),
                });
            }
        }
        layers.sort_by(|a, b| (&a.driver, &a.id).cmp(&(&b.driver, &b.id)));
        layers
    }

    pub(super) fn directory(&self, snapshotter: &str) -> Bytes {
        let told = self.settings.get(snapshotter);
        told.and_then(|told| told.root.clone()).unwrap_or_else(|| {
            self.root
                .join(format!("{SNAPSHOTTER}{snapshotter}").as_bytes())
        })
    }

    /// The snapshotters that have anything here: a directory with snapshots in it needs its
    /// database, which may be lost; a process of its own may have its directory anywhere.
    pub(super) fn snapshotters(&self) -> Vec<String> {
        let namespaces = self.meta().values();
        let mut found: BTreeSet<String> = namespaces
            .flat_map(|of| {
                of.snapshots
                    .keys()
                    .map(|(snapshotter, _)| snapshotter.clone())
            })
            .collect();
        let names = self.host.list(&self.root).unwrap_or_default().into_iter();
        let names = names
            .filter_map(|(name, _)| String::from_utf8(name).ok())
            .filter_map(|name| name.strip_prefix(SNAPSHOTTER).map(str::to_owned));
        let is_used = |name: &String| {
            let directory = self.directory(name);
            let database = self.host.stat(&directory.join(b"metadata.db"));
            let has_any = |place: &&str| {
                let snapshots = self.host.list(&directory.join(place.as_bytes()));
                snapshots.is_ok_and(|names| !names.is_empty())
            };
            database.map_or(true, |stat| stat.is_some()) || places(name).iter().any(has_any)
        };
        found.extend(names.chain(self.settings.keys().cloned()).filter(is_used));
        found.into_iter().collect()
    }

    /// Whether what a snapshotter has is recorded here.
    pub(super) fn has_records(&self, snapshotter: &str) -> bool {
        let is_known = self.snapshotters.borrow().contains_key(snapshotter);
        let database = self.directory(snapshotter).join(b"metadata.db");
        is_known || self.host.stat(&database).is_ok_and(|stat| stat.is_some())
    }

    /// Where the content of a snapshot is, which its database need not have.
    pub(super) fn content_dir(&self, snapshotter: &str, number: u64) -> Bytes {
        if is_stacked(snapshotter) {
            return self.place_of_kind(snapshotter, None, number);
        }
        let all = self.snapshots(snapshotter);
        let found = all.values().find(|snapshot| snapshot.id == number);
        match found {
            Some(snapshot) => self.place_of(snapshotter, snapshot, &all),
            None => self.place_of_kind(snapshotter, None, number),
        }
    }

    /// Where the content of a snapshot is.
    pub(super) fn place_of(
        &self,
        snapshotter: &str,
        snapshot: &Snapshot,
        all: &HashMap<String, Snapshot>,
    ) -> Bytes {
        let parent = snapshot.parent.as_ref().and_then(|parent| all.get(parent));
        let parent = parent.filter(|_| is_bind(snapshotter, snapshot));
        let shown = parent.unwrap_or(snapshot);
        self.place_of_kind(snapshotter, shown.kind, shown.id)
    }

    fn place_of_kind(&self, snapshotter: &str, kind: Option<SnapshotKind>, number: u64) -> Bytes {
        let directory = match (snapshotter, kind) {
            ("btrfs", Some(SnapshotKind::Active)) => "active",
            ("btrfs", Some(SnapshotKind::View)) => "view",
            _ => "snapshots",
        };
        let directory = self.directory(snapshotter).join(directory.as_bytes());
        let directory = directory.join(number.to_string().as_bytes());
        match (snapshotter, kind) {
            ("erofs", Some(SnapshotKind::Committed)) => directory.join(b"layer.erofs"),
            ("erofs", _) => directory.join(b"fs"),
            _ if is_stacked(snapshotter) => directory.join(b"fs"),
            _ => directory,
        }
    }

    /// A snapshot and those below it, nearest first, each with its name in the snapshotter's
    /// database.
    fn chain(&self, snapshotter: &str, name: &str) -> Result<Vec<(String, Snapshot)>> {
        let all = self.snapshots(snapshotter);
        let path = || self.directory(snapshotter).join(b"metadata.db");
        let mut snapshots: Vec<(String, Snapshot)> = Vec::new();
        let mut seen = HashSet::new();
        let mut next = Some(name.to_owned());
        while let Some(name) = next.take() {
            let Some(snapshot) = all.get(&name) else {
                return Err(Error::damaged(
                    path(),
                    format!("does not have the snapshot {name}"),
                ));
            };
            if !seen.insert(snapshot.id) || snapshots.len() > CHAIN_MAX {
                let what = format!("snapshot {name} is its own ancestor");
                return Err(Error::damaged(path(), what));
            }
            next.clone_from(&snapshot.parent);
            snapshots.push((name, snapshot.clone()));
        }
        Ok(snapshots)
    }

    /// The union that has a snapshot on top, which its namespace knows by `key`.
    ///
    /// # Errors
    /// A snapshot that is missing.
    pub fn union_of_key(
        &self,
        namespace: &str,
        snapshotter: &str,
        key: &str,
        top: Permission,
    ) -> Result<Union> {
        let place = (snapshotter.to_owned(), key.to_owned());
        let snapshot = self
            .meta()
            .get(namespace)
            .and_then(|of| of.snapshots.get(&place));
        let name = snapshot
            .map(|snapshot| snapshot.name.as_str())
            .ok_or_else(|| {
                let what =
                    format!("does not have the snapshot {key} of {snapshotter} in {namespace}");
                Error::damaged(self.database(), what)
            })?;
        self.union_of_name(snapshotter, name, top)
    }

    pub(super) fn union_of_name(
        &self,
        snapshotter: &str,
        name: &str,
        top: Permission,
    ) -> Result<Union> {
        let chain = self.chain(snapshotter, name)?;
        let all = self.snapshots(snapshotter);
        let doubt = (!is_read(snapshotter)).then_some(UNREAD);
        let mut branches: Vec<LayeredBranch> = Vec::new();
        for (index, (name, snapshot)) in chain.iter().enumerate() {
            let is_own = index == 0 && is_writable(snapshot);
            let permission = if is_own { top.clone() } else { Permission::RO };
            let directory = self.place_of(snapshotter, snapshot, &all);
            let mut branch = layer_branch(directory, permission, snapshot.id.to_string());
            branch.doubt = doubt;
            if name.ends_with("-init") {
                branch.layer.role = Role::Init;
            } else if index == 0 && !is_committed(snapshot) {
                branch.layer.role = Role::Snapshot;
            }
            branches.push(branch);
        }
        let union = |kind, branches| Union {
            kind,
            driver: Some(snapshotter.to_owned()),
            owners: owners(snapshotter, &chain),
            ids: chain.first().and_then(|(_, top)| top.owners.clone()),
            ..Union::unmounted(branches)
        };
        if !is_copying(snapshotter) {
            return Ok(union(self.kind(snapshotter), branches));
        }
        let mut branches = branches.into_iter();
        let mut own = union(UnionKind::Copy, branches.next().into_iter().collect());
        let base = branches
            .next()
            .map(|base| union(UnionKind::Copy, vec![base]));
        own.base = base.map(Box::new);
        Ok(own)
    }

    pub(super) fn kind(&self, snapshotter: &str) -> UnionKind {
        match snapshotter {
            "fuse-overlayfs" => UnionKind::FuseOverlay(self.marks),
            _ => UnionKind::Overlay {
                rules: self.rules(snapshotter),
                data: 0,
            },
        }
    }

    /// The rules of an overlay that is not mounted.
    fn rules(&self, snapshotter: &str) -> Rules {
        let rules = Rules::of(self.marks);
        let told = self.settings.get(snapshotter);
        let told = told.map(|told| told.mount_options.join(","));
        let Some(told) = told.filter(|told| !told.is_empty()) else {
            return rules;
        };
        let options = overlay::parse_mounted(format!("lowerdir=/,{told}").as_bytes(), rules);
        options.map_or(rules, |options| options.rules)
    }

    /// Whether a namespace has a snapshot of this name.
    pub fn has_snapshot(&self, namespace: &str, snapshotter: &str, key: &str) -> bool {
        let place = (snapshotter.to_owned(), key.to_owned());
        let of = self.meta().get(namespace);
        of.is_some_and(|of| of.snapshots.contains_key(&place))
    }

    /// The number of a snapshot's directory.
    pub fn number_of(&self, namespace: &str, snapshotter: &str, key: &str) -> Option<String> {
        let snapshots = self.snapshots_of(namespace, snapshotter);
        snapshots.get(key).map(|snapshot| snapshot.id.to_string())
    }

    /// What a namespace calls the snapshot whose directory has this number.
    pub fn key_of(&self, namespace: &str, snapshotter: &str, number: &str) -> Option<String> {
        let snapshots = self.snapshots_of(namespace, snapshotter).into_iter();
        let mut named = snapshots.filter(|(_, snapshot)| snapshot.id.to_string() == number);
        named.next().map(|(key, _)| key)
    }

    /// `key -> snapshot` in one namespace.
    pub(super) fn snapshots_of(
        &self,
        namespace: &str,
        snapshotter: &str,
    ) -> HashMap<String, Snapshot> {
        let Some(of) = self.meta().get(namespace) else {
            return HashMap::new();
        };
        let own = of.snapshots.iter().filter(|((of, _), _)| of == snapshotter);
        let own: Vec<_> = own.collect();
        if own.is_empty() {
            return HashMap::new();
        }
        let all = self.snapshots(snapshotter);
        own.into_iter()
            .filter_map(|((_, key), snapshot)| {
                Some((key.clone(), all.get(&snapshot.name)?.clone()))
            })
            .collect()
    }

    /// The snapshotter that a namespace's images are unpacked with: the one most of its snapshots
    /// belong to.
    pub(super) fn snapshotter_of(&self, namespace: &NamespaceRecords) -> String {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for (snapshotter, _) in namespace.snapshots.keys() {
            *counts.entry(snapshotter).or_default() += 1;
        }
        let most = counts.into_iter().max_by_key(|(_, count)| *count);
        most.map_or("overlayfs", |(snapshotter, _)| snapshotter)
            .to_owned()
    }

    /// A snapshot and those below it.
    ///
    /// # Errors
    /// Metadata that is missing or damaged.
    pub(super) fn layer_union(&self, layer: &LayerName) -> Result<Union> {
        if let Some((namespace, record)) = self.container_of(&layer.driver, &layer.id) {
            let (snapshotter, key) = (&record.snapshotter, &record.snapshot_key);
            let mut union = self.union_of_key(namespace, snapshotter, key, Permission::RW)?;
            self.label_container(&mut union, namespace, record);
            return Ok(union);
        }
        let all = self.snapshots(&layer.driver);
        let mut named = all.iter();
        let name = named.find(|(_, snapshot)| snapshot.id.to_string() == layer.id);
        let (name, _) = name.ok_or_else(|| {
            let what = format!("does not have the snapshot {}", layer.id);
            Error::damaged(self.directory(&layer.driver).join(b"metadata.db"), what)
        })?;
        let mut union = self.union_of_name(&layer.driver, name, Permission::RW)?;
        // Number the layers within the smallest image that has this one.
        let images = self.read_images().into_iter();
        let images = images.filter(|image| image.driver == layer.driver);
        let steps = images
            .map(Image::steps)
            .filter(|steps| steps.iter().any(|(id, _)| *id == layer.id))
            .min_by_key(Vec::len);
        union.label_image(&steps.unwrap_or_default(), !is_copying(&layer.driver));
        union.owner = Some(Owner {
            engine: NAME,
            kind: OwnerKind::Layer,
            id: layer.id.clone(),
            name: None,
            store: self.store(&layer.driver, None),
        });
        Ok(union)
    }
}

/// What a namespace calls a snapshot, in the snapshotter's own name of it: `namespace/number/key`.
pub(super) fn key_in(name: &str) -> &str {
    name.splitn(3, '/').nth(2).unwrap_or(name)
}

/// The layer of an image that a snapshot's key names. Where the kernel cannot show files as others', they
/// are copied for a pod with users of its own, and the copy has the first user and group after its key.
pub(super) fn copied_from(key: &str) -> &str {
    let is_number = |of: &str| !of.is_empty() && of.bytes().all(|byte| byte.is_ascii_digit());
    let mut parts = key.rsplitn(3, '-');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(group), Some(user), Some(layer)) if is_number(group) && is_number(user) => layer,
        _ => key,
    }
}

/// How a mount of a chain of snapshots shows the owners of those below the topmost one.
fn owners(snapshotter: &str, chain: &[(String, Snapshot)]) -> Option<Arc<IdMap>> {
    let (_, top) = chain.first().filter(|_| snapshotter == "overlayfs")?;
    let owners = top.owners.clone()?;
    // Where the kernel could not show them so, the image's files were copied for the pod.
    let (users, groups) = (owners.users.first()?, owners.groups.first()?);
    let copied = format!("-{}-{}", users.shown, groups.shown);
    let is_copy = top.parent.as_ref().is_some_and(|of| of.ends_with(&copied));
    (!is_copy).then_some(owners)
}

/// Whether somebody may write in a snapshot. Old databases do not say.
fn is_writable(snapshot: &Snapshot) -> bool {
    matches!(snapshot.kind, Some(SnapshotKind::Active) | None)
}

fn is_committed(snapshot: &Snapshot) -> bool {
    matches!(snapshot.kind, Some(SnapshotKind::Committed) | None)
}

/// What is said of a branch whose snapshotter keeps something else than directories.
const UNREAD: &str =
    "is kept by a snapshotter that layerctl does not read: only its records are known";
