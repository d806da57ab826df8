//! containers-storage, read without its locks: what Podman, buildah and CRI-O keep containers and
//! images in.
//!
//! ```text
//! <graphroot>/overlay/<layer>/{diff,link,lower,merged}   or vfs/dir/<layer>, btrfs/subvolumes/<layer>
//! <graphroot>/<driver>-{layers,images,containers}/       their lists: store
//! <runroot>/<driver>-layers/mountpoints.json             what is mounted
//! <graphroot>/libpod/bolt_state.db                       Podman's own records: libpod
//! ```
//!
//! Every user may have a store. Its overlays are mounted in a mount namespace of the user's own.

mod config;
mod libpod;
mod store;
mod usage;

use std::cell::{LazyCell, OnceCell, RefCell};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::branch::Permission;
use crate::bytes::Bytes;
use crate::dir::{self, Kind};
use crate::engine::inventory::{
    Container, HistoryEntry, Image, ImageLayer, LayerName, Names, is_id, repository,
    sort_newest_first,
};
use crate::engine::linked::{self, LINKS, Linked};
use crate::engine::oci::{self, CHAIN_MAX, ImageConfig};
use crate::engine::usage::{LayerUse, Leftover, Space};
use crate::engine::{
    Engine, LayeredBranch, Owner, OwnerKind, Role, Roots, Store, Union, UnionKind, layer_branch,
};
use crate::error::{Error, Result};
use crate::host::Host;
use crate::overlay::{Namespace, Rules};
use crate::union::{IdMap, IdRange};
use config::Storage;
use store::{ContainerRecord, ImageRecord, LayerRecord, MappedIds};

const NAME: &str = "podman";
const ROOT: &str = "/var/lib/containers/storage";
const RUN_ROOT: &str = "/run/containers/storage";
const DRIVERS_READ: &str = "layerctl reads the storage drivers overlay, vfs and btrfs";

/// What Podman makes in every container to mount something on, and so leaves out of `podman diff`.
const ENGINE_MADE: [&str; 13] = [
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
    host: &'h Host,
    /// The graph root.
    root: Bytes,
    run_root: Option<Bytes>,
    driver: String,
    /// Where layers and images are looked for: the graph root, then the stores it takes images
    /// from.
    stores: Vec<Bytes>,
    /// A program makes the mounts.
    has_mount_program: bool,
    namespace: Namespace,
    problems: RefCell<Vec<Error>>,
    layers: OnceCell<Vec<LayerRecord>>,
    libpod: OnceCell<libpod::Records>,
}

/// A user of the host.
struct User {
    id: u32,
    home: Bytes,
    name: String,
}

impl<'h> Podman<'h> {
    /// The stores of the machine and of its users, as far as there are any.
    pub fn find(host: &'h Host, roots: &Roots) -> Vec<Podman<'h>> {
        let mut found: Vec<Podman<'h>> = Vec::new();
        if let Some(root) = &roots.storage {
            let mut stores =
                Podman::of_root(host, root.clone(), None, &Storage::default(), Vec::new());
            if stores.is_empty() {
                // A directory that was named has to be one.
                let what = "is no graph root of containers-storage";
                let problem = Error::damaged(root.clone(), what);
                stores.push(Podman {
                    problems: RefCell::new(vec![problem]),
                    ..Podman::new(host, root.clone(), "overlay".into())
                });
            }
            return stores;
        }
        let system = [
            Bytes::from("/etc/containers/storage.conf"),
            Bytes::from("/usr/share/containers/storage.conf"),
        ];
        let mut problems = Vec::new();
        let mut read = |paths: &[Bytes]| {
            config::read_first(host, paths).unwrap_or_else(|error| {
                problems.push(error);
                Storage::default()
            })
        };
        let named: Vec<Bytes> = roots.storage_configuration.clone().into_iter().collect();
        let of_system = read(&[&named[..], &system[..]].concat());
        let path = |path: &Option<String>| {
            path.as_ref()
                .filter(|path| !path.is_empty())
                .cloned()
                .map(Bytes::from)
        };
        let root = path(&of_system.graphroot).unwrap_or_else(|| Bytes::from(ROOT));
        let run = path(&of_system.runroot).unwrap_or_else(|| Bytes::from(RUN_ROOT));
        let mut places = vec![(root, Some(run), of_system.clone())];
        for user in users(host) {
            if roots.caller.is_some_and(|caller| caller != user.id) || user.id == 0 {
                continue;
            }
            let own = user
                .home
                .join(b".config")
                .join(b"containers")
                .join(b"storage.conf");
            let of_user = match host.stat(&own) {
                Ok(Some(_)) => read(&[own]),
                _ => Storage {
                    graphroot: None,
                    runroot: None,
                    ..of_system.clone()
                },
            };
            let expanded = of_user
                .rootless_storage_path
                .as_ref()
                .map(|path| user.expand(path));
            let root = path(&of_user.graphroot)
                .or_else(|| path(&expanded))
                .unwrap_or_else(|| {
                    let parts = [&b".local"[..], b"share", b"containers", b"storage"];
                    parts
                        .iter()
                        .fold(user.home.clone(), |path, part| path.join(part))
                });
            let run = path(&of_user.runroot)
                .unwrap_or_else(|| Bytes::from(format!("/run/user/{}/containers", user.id)));
            places.push((root, Some(run), of_user));
        }
        for (root, run, storage) in places {
            if found.iter().any(|store| store.root == root) {
                continue;
            }
            let additional = storage
                .options
                .additionalimagestores
                .iter()
                .map(|path| Bytes::from(path.as_str()));
            let image_stores = path(&storage.imagestore)
                .into_iter()
                .chain(additional)
                .collect();
            found.extend(Podman::of_root(host, root, run, &storage, image_stores));
        }
        if let Some(first) = found.first() {
            first.problems.borrow_mut().append(&mut problems);
        }
        found
    }

    /// A store for each driver that one graph root has been used with.
    fn of_root(
        host: &'h Host,
        root: Bytes,
        run_root: Option<Bytes>,
        storage: &Storage,
        image_stores: Vec<Bytes>,
    ) -> Vec<Podman<'h>> {
        let names = match host.list(&root) {
            Ok(names) => names.into_iter(),
            // Whether it is one cannot be told.
            Err(error) => {
                return vec![Podman {
                    problems: RefCell::new(vec![error]),
                    ..Podman::new(host, root, "overlay".into())
                }];
            }
        };
        let drivers = names.filter_map(|(name, kind)| {
            let driver = name
                .strip_suffix(b"-layers")
                .or_else(|| name.strip_suffix(b"-containers"))?;
            let driver = String::from_utf8(driver.to_vec()).ok()?;
            (kind == Kind::Directory && is_id(&driver)).then_some(driver)
        });
        let mut drivers: Vec<String> = drivers.collect();
        drivers.sort_unstable();
        drivers.dedup();
        // The one that is configured comes first.
        drivers.sort_by_key(|driver| storage.driver.as_ref() != Some(driver));
        // In a user namespace its own store has root as its owner, and the user's marks.
        let is_inside = host.is_live() && dir::is_in_user_namespace();
        let owner = host.stat(&root).ok().flatten();
        let is_users = is_inside || owner.is_some_and(|stat| stat.uid != 0);
        let stores = drivers.into_iter().map(|driver| {
            let has_mount_program =
                host.read(&root.join(driver.as_bytes()).join(b".has-mount-program"));
            let has_mount_program = match has_mount_program {
                Ok(text) => text.trim_ascii() == b"true",
                Err(_) => storage.has_mount_program(),
            };
            Podman {
                run_root: run_root.clone(),
                stores: std::iter::once(root.clone())
                    .chain(image_stores.clone())
                    .collect(),
                has_mount_program,
                namespace: if is_users {
                    Namespace::User
                } else {
                    Namespace::Trusted
                },
                ..Podman::new(host, root.clone(), driver)
            }
        });
        stores.collect()
    }

    fn new(host: &'h Host, root: Bytes, driver: String) -> Podman<'h> {
        Podman {
            host,
            stores: vec![root.clone()],
            root,
            run_root: None,
            driver,
            has_mount_program: false,
            namespace: Namespace::Trusted,
            problems: RefCell::default(),
            layers: OnceCell::new(),
            libpod: OnceCell::new(),
        }
    }

    /// Keeps what could not be read: an unreadable part is not an empty part.
    fn note(&self, error: Error) {
        self.problems.borrow_mut().push(error);
    }

    fn note_unless_absent(&self, error: Error) {
        if !error.is_not_found() {
            self.note(error);
        }
    }

    /// Where a driver keeps the directories of layers, in one of the stores.
    fn home(&self, store: &Bytes) -> Bytes {
        match self.driver.as_str() {
            "vfs" => store.join(b"vfs").join(b"dir"),
            "btrfs" => store.join(b"btrfs").join(b"subvolumes"),
            driver => store.join(driver.as_bytes()),
        }
    }

    fn copies(&self) -> bool {
        matches!(self.driver.as_str(), "vfs" | "btrfs")
    }

    fn is_read(&self) -> bool {
        self.copies() || self.driver == "overlay"
    }

    fn refuse(&self) -> Result<()> {
        if self.is_read() {
            Ok(())
        } else {
            Err(Error::Refused {
                what: format!("{} uses the storage driver {}", self.root, self.driver),
                hint: DRIVERS_READ.into(),
            })
        }
    }

    fn linked(&self) -> Linked<'_> {
        Linked {
            host: self.host,
            homes: self.stores.iter().map(|store| self.home(store)).collect(),
        }
    }

    fn content_dir(&self, home: usize, id: &str) -> Bytes {
        let directory = self.home(&self.stores[home]).join(id.as_bytes());
        if self.copies() {
            directory
        } else {
            directory.join(b"diff")
        }
    }

    /// The store that has a layer's directory: the first that lists it, or else our own.
    fn home_of(&self, id: &str) -> usize {
        self.layer_record(id).map_or(0, |layer| layer.home)
    }

    /// The union that has a layer on top.
    fn stack(&self, id: &str, top: Permission) -> Result<Union> {
        self.refuse()?;
        if !is_id(id) {
            return Err(Error::damaged(
                self.root.clone(),
                "names a layer by what is no id",
            ));
        }
        let home = self.home_of(id);
        let own = layer_branch(self.content_dir(home, id), top, id.to_owned());
        if self.copies() {
            let mut union = self.union(UnionKind::Copy, vec![own]);
            let parent = self.layer_record(id).map(|layer| layer.parent.clone());
            if let Some(parent) = parent.filter(|parent| is_id(parent)) {
                let home = self.home_of(&parent);
                let base = layer_branch(self.content_dir(home, &parent), Permission::RO, parent);
                union.base = Some(Box::new(self.union(UnionKind::Copy, vec![base])));
            }
            return Ok(union);
        }
        self.refuse_composefs(home, id)?;
        let mut branches = vec![own];
        let parents = self.linked().parents(home, id)?;
        let has_parent = self
            .layer_record(id)
            .is_some_and(|layer| !layer.parent.is_empty());
        if parents.is_empty() && has_parent {
            let layer = self.home(&self.stores[home]).join(id.as_bytes());
            return Err(Error::damaged(layer, "has no list of the layers below it"));
        }
        for parent in parents {
            branches.push(match parent {
                linked::Parent::Layer { home, id } => {
                    layer_branch(self.content_dir(home, &id), Permission::RO, id)
                }
                linked::Parent::Lost(path) => LayeredBranch::plain(path, Permission::RO),
            });
        }
        Ok(self.union(self.kind(), branches))
    }

    /// A composefs layer has the names of its files in an image of its own format, and only their
    /// content in its directory.
    fn refuse_composefs(&self, home: usize, id: &str) -> Result<()> {
        let directory = self.home(&self.stores[home]).join(id.as_bytes());
        let blob = directory.join(b"composefs-data").join(b"composefs.blob");
        match self.host.stat(&blob)? {
            None => Ok(()),
            Some(_) => Err(Error::Refused {
                what: format!("layer {id} is a composefs image ({blob})"),
                hint: "layerctl does not read composefs; look through its mount instead".into(),
            }),
        }
    }

    fn kind(&self) -> UnionKind {
        if self.copies() {
            return UnionKind::Copy;
        }
        if self.has_mount_program {
            return UnionKind::FuseOverlay(self.namespace);
        }
        let rules = Rules::of(self.namespace);
        UnionKind::Overlay { rules, data: 0 }
    }

    fn union(&self, kind: UnionKind, branches: Vec<LayeredBranch>) -> Union {
        Union {
            kind,
            driver: Some(self.driver.clone()),
            ..Union::unmounted(branches)
        }
    }

    fn container_record(&self, id: &str) -> Option<ContainerRecord> {
        let mut records = self.container_records().into_iter();
        records.find(|container| container.id == id)
    }

    fn container(&self, record: ContainerRecord) -> Container {
        let metadata = record.metadata();
        let libpod = self.libpod_record(&record.id);
        let name = record
            .names
            .first()
            .cloned()
            .or_else(|| metadata.name.clone());
        let image = metadata.image_name.clone().filter(|name| !name.is_empty());
        let image = image.or_else(|| {
            let mut images = self.image_records().into_iter();
            let image = images.find(|image| image.id == record.image)?;
            image.names.into_iter().next()
        });
        Container {
            name: name.unwrap_or_else(|| record.id.clone()),
            image: image
                .filter(|name| !name.is_empty())
                .unwrap_or_else(|| record.image.clone()),
            image_id: record.image.clone(),
            command: libpod.command.unwrap_or_default(),
            created: libpod.created.unwrap_or_else(|| record.created.clone()),
            state: libpod.state,
            driver: self.driver.clone(),
            ports: String::new(),
            namespace: None,
            pod: metadata.pod(),
            id: record.id,
        }
    }

    fn as_store(&self) -> Store {
        Store {
            root: self.root.clone(),
            driver: self.driver.clone(),
            namespace: None,
        }
    }

    fn label_owner(&self, union: &mut Union, container: &ContainerRecord) {
        let name = container.names.first().cloned();
        union.driver = Some(self.driver.clone());
        union.engine_made = &ENGINE_MADE;
        union.owner = Some(Owner {
            engine: NAME,
            kind: OwnerKind::Container,
            id: container.id.clone(),
            name: name.or_else(|| container.metadata().name),
            store: self.as_store(),
        });
    }

    fn label_container(&self, union: &mut Union, container: &ContainerRecord) {
        self.label_owner(union, container);
        union.owners = self.owners_of(container);
        if let Some(top) = union.branches.first_mut() {
            top.layer.role = Role::Container;
        }
        let mut images = self.image_records().into_iter();
        let image = images.find(|image| image.id == container.image);
        self.label_image(union, image.as_ref());
    }

    /// How the layers below a container's show their owners, where it has users of its own and
    /// they were not copied for it.
    fn owners_of(&self, container: &ContainerRecord) -> Option<Arc<IdMap>> {
        let layer = self.layer_record(&container.layer)?;
        let below = self.layer_record(&layer.parent)?;
        if container.uidmap.is_empty() || below.uidmap == container.uidmap {
            return None;
        }
        let ranges = |mapped: &[MappedIds]| {
            let range = |ids: &MappedIds| IdRange {
                stored: ids.container_id,
                shown: ids.host_id,
                size: ids.size,
            };
            mapped.iter().map(range).collect()
        };
        Some(Arc::new(IdMap {
            users: ranges(&container.uidmap),
            groups: ranges(&container.gidmap),
        }))
    }

    fn label_image(&self, union: &mut Union, image: Option<&ImageRecord>) {
        let image = image.and_then(|image| {
            let read = self.image(image.clone());
            read.map_err(|error| self.note_unless_absent(error)).ok()
        });
        let steps = image.map(|image| image.steps()).unwrap_or_default();
        union.label_image(&steps, !self.copies());
    }

    /// The layers of an image, from its topmost one: nearest first.
    fn chain(&self, top: &str) -> Vec<&LayerRecord> {
        let mut chain: Vec<&LayerRecord> = Vec::new();
        let mut next = self.layer_record(top);
        while let Some(layer) = next {
            if chain.len() == CHAIN_MAX || chain.iter().any(|seen| seen.id == layer.id) {
                let what = format!("layer {} is its own ancestor", layer.id);
                self.note(Error::damaged(self.kind_of(&self.root, "layers"), what));
                break;
            }
            chain.push(layer);
            next = self.layer_record(&layer.parent);
        }
        chain
    }

    fn image(&self, record: ImageRecord) -> Result<Image> {
        let of_layers: u64 = self
            .chain(&record.layer)
            .iter()
            .filter_map(|layer| layer.diff_size)
            .sum();
        let of_data: u64 = record.data_sizes.values().sum();
        let config = format!("sha256:{}", record.id);
        let config = match record.data_names.iter().find(|name| **name == config) {
            Some(name) => name.clone(),
            None => config,
        };
        let bytes = self.image_data(&record, &config)?;
        let config = ImageConfig::parse(&bytes).map_err(|what| {
            let what = format!("the configuration of image {} {what}", record.id);
            Error::damaged(self.kind_of(&self.stores[record.home], "images"), what)
        })?;
        let diff_ids = config.diff_ids().map_err(|what| {
            Error::damaged(self.kind_of(&self.stores[record.home], "images"), what)
        })?;
        let mut chain = self.chain(&record.layer);
        chain.reverse();
        let layers = oci::chain_ids(diff_ids)
            .into_iter()
            .zip(diff_ids)
            .enumerate();
        let layers = layers.map(|(at, (chain_id, diff_id))| ImageLayer {
            diff_id: Some(diff_id.clone()),
            chain_id: Some(chain_id),
            cache_id: chain.get(at).map(|layer| layer.id.clone()),
            size: chain.get(at).and_then(|layer| layer.diff_size),
        });
        let history = config.history(layers.collect());
        let (digests, tags): (Vec<String>, Vec<String>) = record
            .names
            .iter()
            .cloned()
            .partition(|name| name.contains('@'));
        let by_digest = record.digest.iter().flat_map(|digest| {
            tags.iter()
                .map(move |tag| format!("{}@{digest}", repository(tag)))
        });
        let mut names = Names {
            digests: digests.into_iter().chain(by_digest).collect(),
            tags: tags.clone(),
        };
        names.tags.sort();
        names.digests.sort();
        names.digests.dedup();
        Ok(Image {
            id: record.id,
            names,
            created: config.created.clone().unwrap_or(record.created),
            driver: self.driver.clone(),
            size: of_layers + of_data,
            parent: None,
            history,
            namespace: None,
        })
    }

    /// The layer directory that a path is, or lies in, and what is left of the path.
    fn layer_inside(&self, path: &Bytes) -> Option<(String, Bytes)> {
        if !self.is_read() {
            return None;
        }
        let homes = self.linked().homes;
        let inside = homes.iter().find_map(|home| {
            path.strip_prefix(home).or_else(|| {
                let real = self.host.resolve(home).ok()?;
                path.strip_prefix(&real)
            })
        })?;
        let parts: Vec<&[u8]> = inside.components().collect();
        let id = |part: &[u8]| {
            let id = String::from_utf8(part.to_vec()).ok()?;
            is_id(&id).then_some(id)
        };
        let (first, rest) = parts.split_first()?;
        if self.copies() {
            return Some((id(first)?, Bytes::absolute(rest.iter().copied())));
        }
        // Where a container has users of its own, the layers below are mounted once more, with other
        // owners: `<layer>/mapped/<number>/l/<short name>`.
        let link = match rest {
            _ if *first == LINKS.as_bytes() => rest.split_first(),
            [b"mapped", _, links, rest @ ..] if *links == LINKS.as_bytes() => rest.split_first(),
            _ => None,
        };
        if let Some((name, rest)) = link {
            return match self.linked().find(&id(name)?) {
                Ok(linked::Parent::Layer { id, .. }) => {
                    Some((id, Bytes::absolute(rest.iter().copied())))
                }
                Ok(linked::Parent::Lost(_)) => None,
                Err(error) => {
                    self.note(error);
                    None
                }
            };
        }
        let rest = match rest {
            [b"merged", ..] => return None,
            [b"diff", rest @ ..] => rest,
            // A file beside the content, which is about the layer.
            _ => &[],
        };
        Some((id(first)?, Bytes::absolute(rest.iter().copied())))
    }

    /// The layer that the kernel's path of a branch stands for. It may be relative.
    fn layer_of_branch(&self, path: &Bytes) -> Option<String> {
        let is_absolute = path.as_bytes().starts_with(b"/");
        let full = if is_absolute {
            path.clone()
        } else {
            self.home(&self.root).join_path(path)
        };
        let (id, inside) = self.layer_inside(&full)?;
        let content = self.content_dir(self.home_of(&id), &id);
        let is_there = || self.host.stat(&content).is_ok_and(|stat| stat.is_some());
        (inside == Bytes::from("/") && (is_absolute || is_there())).then_some(id)
    }

    /// The container whose mounted union this is, by its mount point or its topmost branch.
    fn container_of_union(&self, union: &Union) -> Option<ContainerRecord> {
        let mut mounts = union.mounts.iter();
        let by_mount = mounts.find_map(|mount| self.merged(&mount.path));
        let top = union.branches.first();
        let layer = top.and_then(|top| self.layer_of_branch(&top.spec.path));
        self.container_of_layer(&layer.or(by_mount.map(|(id, _)| id))?)
    }

    fn container_of_layer(&self, layer: &str) -> Option<ContainerRecord> {
        let mut records = self.container_records().into_iter();
        records.find(|container| container.layer == layer)
    }

    /// The mount point in our directories that a path lies under, as the layer and what is left.
    fn merged(&self, path: &Bytes) -> Option<(String, Bytes)> {
        if self.copies() {
            return None;
        }
        let inside = path.strip_prefix(&self.home(&self.root))?;
        let mut parts = inside.components();
        let id = String::from_utf8(parts.next()?.to_vec()).ok()?;
        (parts.next() == Some(b"merged")).then(|| (id, Bytes::absolute(parts)))
    }
}

impl store::Metadata {
    /// The pod, as Kubernetes names it, and the container's name in it.
    fn pod(&self) -> Option<crate::engine::inventory::Pod> {
        Some(crate::engine::inventory::Pod {
            name: self.pod_name.clone()?,
            namespace: self.namespace.clone(),
            container: self.metadata_name.clone(),
        })
    }
}

/// Finds the image that ended with each step of another one: the one whose whole history is the
/// rest of the other's.
fn find_steps(images: &mut [Image]) {
    type Steps = Vec<(String, Option<String>)>;
    let steps = |history: &[HistoryEntry]| -> Steps {
        let step = |entry: &HistoryEntry| {
            let layer = entry
                .layer
                .as_ref()
                .and_then(|layer| layer.cache_id.clone());
            (entry.instruction.clone(), layer)
        };
        history.iter().map(step).collect()
    };
    let known: HashMap<Steps, String> = images
        .iter()
        .rev()
        .map(|image| (steps(&image.history), image.id.clone()))
        .collect();
    for image in images {
        for at in 0..image.history.len() {
            let of = match at {
                0 => Some(image.id.clone()),
                _ => known.get(&steps(&image.history[at..])).cloned(),
            };
            if at > 0 && image.parent.is_none() {
                image.parent.clone_from(&of);
            }
            image.history[at].image = of;
        }
    }
}

/// The users that `/etc/passwd` lists, with home directories.
fn users(host: &Host) -> Vec<User> {
    let bytes = host.read(&Bytes::from("/etc/passwd")).unwrap_or_default();
    let lines = bytes.split(|&byte| byte == b'\n');
    let user = |line: &[u8]| {
        let fields: Vec<&[u8]> = line.split(|&byte| byte == b':').collect();
        let home = *fields.get(5)?;
        Some(User {
            name: String::from_utf8(fields[0].to_vec()).ok()?,
            id: std::str::from_utf8(fields.get(2)?).ok()?.parse().ok()?,
            home: home.starts_with(b"/").then(|| Bytes::from(home))?,
        })
    };
    let mut users: Vec<User> = lines.filter_map(user).collect();
    // Many have no home of their own: `/` and `/nonexistent`.
    users.sort_by(|a, b| a.home.cmp(&b.home));
    users.dedup_by(|a, b| a.home == b.home);
    users
}

impl User {
    fn expand(&self, path: &str) -> String {
        let home = self.home.to_text();
        path.replace("$HOME", &home)
            .replace("$UID", &self.id.to_string())
            .replace("$USER", &self.name)
    }
}

impl Engine for Podman<'_> {
    fn name(&self) -> &'static str {
        NAME
    }

    fn root(&self) -> &Bytes {
        &self.root
    }

    fn exists(&self) -> bool {
        true
    }

    fn take_problems(&self) -> Vec<Error> {
        self.problems.take()
    }

    fn containers(&self) -> Vec<Container> {
        let records = self.container_records().into_iter();
        let mut containers: Vec<Container> = records.map(|record| self.container(record)).collect();
        sort_newest_first(&mut containers, |of| (&of.created, &of.id));
        containers
    }

    fn images(&self) -> Vec<Image> {
        let mut images = Vec::new();
        for record in self.image_records() {
            match self.image(record) {
                Ok(image) => images.push(image),
                Err(error) => self.note(error),
            }
        }
        sort_newest_first(&mut images, |of| (&of.created, &of.id));
        find_steps(&mut images);
        images
    }

    fn layers(&self) -> Vec<LayerName> {
        let mut layers: Vec<LayerName> = self
            .layer_records()
            .iter()
            .map(|layer| LayerName {
                driver: self.driver.clone(),
                id: layer.id.clone(),
                aliases: layer
                    .diff_digest
                    .iter()
                    .map(|digest| digest.trim_start_matches("sha256:").to_owned())
                    .collect(),
            })
            .collect();
        layers.dedup_by(|a, b| a.id == b.id);
        layers
    }

    /// A layer is marked before it is removed, a container's goes before its record, and those of an
    /// image after it.
    fn gone<'o>(&self, owners: &[&'o Owner]) -> Vec<&'o Owner> {
        let is_own = |owner: &&Owner| owner.store == self.as_store();
        let mut gone: Vec<&Owner> = owners.iter().copied().filter(is_own).collect();
        if gone.is_empty() {
            return gone;
        }
        let noted = self.problems.borrow().len();
        let is_live = self.host.is_live();
        let layers = self.read_layer_records();
        let layers: HashMap<&str, bool> = layers
            .iter()
            .map(|layer| (&*layer.id, layer.flags.incomplete))
            .collect();
        let is_marked = |id: &str| is_live && layers.get(id) == Some(&true);
        // One that had no record when it was opened never had one.
        let has_lost = |id: &str| self.layer_record(id).is_some() && !layers.contains_key(id);
        // Each is read if it is asked for.
        let containers = LazyCell::new(|| -> HashMap<String, String> {
            let records = self.container_records().into_iter();
            records.map(|record| (record.id, record.layer)).collect()
        });
        let images = LazyCell::new(|| -> HashSet<String> {
            let records = self.image_records().into_iter();
            records.map(|record| record.id).collect()
        });
        let libpod = LazyCell::new(|| self.read_libpod());
        let is_going = |id: &str| {
            is_live
                && libpod
                    .get(id)
                    .is_some_and(|record| record.state.removal_in_progress)
        };
        gone.retain(|owner| match owner.kind {
            OwnerKind::Image => !images.contains(&owner.id),
            OwnerKind::Container => containers
                .get(&owner.id)
                .is_none_or(|layer| is_going(&owner.id) || has_lost(layer) || is_marked(layer)),
            // What is being made is marked in the same way.
            OwnerKind::Layer => {
                let was_marked = self.layer_record(&owner.id).map(|of| of.flags.incomplete);
                has_lost(&owner.id) || is_marked(&owner.id) && was_marked == Some(false)
            }
        });
        // What cannot be read does not tell that anything is gone.
        if self.problems.borrow().len() > noted {
            gone.clear();
        }
        gone
    }

    fn driver(&self, _: &[Container]) -> String {
        self.driver.clone()
    }

    fn reads(&self, _: &Container) -> bool {
        self.is_read()
    }

    fn has_union(&self, _: &Container) -> bool {
        self.is_read() && !self.copies()
    }

    fn union_of(&self, container: &Container) -> Result<Union> {
        let record = self
            .container_record(&container.id)
            .ok_or_else(|| Error::NoSuchTarget(container.id.clone()))?;
        let mut union = self.stack(&record.layer, Permission::RW)?;
        self.label_container(&mut union, &record);
        Ok(union)
    }

    fn union_of_image(&self, image: &Image) -> Result<Union> {
        let mut records = self.image_records().into_iter();
        let record = records
            .find(|record| record.id == image.id)
            .ok_or_else(|| Error::NoSuchTarget(image.id.clone()))?;
        let mut union = if record.layer.is_empty() {
            self.union(self.kind(), Vec::new())
        } else {
            self.stack(&record.layer, Permission::RO)?
        };
        union.owner = Some(Owner {
            engine: NAME,
            kind: OwnerKind::Image,
            id: image.id.clone(),
            name: image.names.tags.first().cloned(),
            store: self.as_store(),
        });
        self.label_image(&mut union, Some(&record));
        Ok(union)
    }

    fn union_of_layer(&self, layer: &LayerName) -> Result<Union> {
        if let Some(container) = self.container_of_layer(&layer.id) {
            let mut union = self.stack(&layer.id, Permission::RW)?;
            self.label_container(&mut union, &container);
            return Ok(union);
        }
        let mut union = self.stack(&layer.id, Permission::RO)?;
        // Number the layers within the smallest image that has this one.
        let has = |image: &ImageRecord| self.chain(&image.layer).iter().any(|of| of.id == layer.id);
        let image = self
            .image_records()
            .into_iter()
            .filter(has)
            .min_by_key(|image| self.chain(&image.layer).len());
        self.label_image(&mut union, image.as_ref());
        union.owner = Some(Owner {
            engine: NAME,
            kind: OwnerKind::Layer,
            id: layer.id.clone(),
            name: None,
            store: self.as_store(),
        });
        Ok(union)
    }

    fn image_of(&self, union: &Union) -> Option<Result<Image>> {
        let owner = union.owner.as_ref().filter(|owner| owner.engine == NAME)?;
        let id = match owner.kind {
            OwnerKind::Layer => return None,
            OwnerKind::Image => owner.id.clone(),
            OwnerKind::Container => self.container_record(&owner.id)?.image,
        };
        let mut records = self.image_records().into_iter();
        let record = records.find(|record| record.id == id);
        match (record, owner.kind) {
            // The images of its steps are found among all.
            (Some(record), _) => {
                let found = self
                    .images()
                    .into_iter()
                    .find(|image| image.id == record.id);
                Some(found.map_or_else(|| self.image(record), Ok))
            }
            (None, OwnerKind::Container) => {
                let what = format!("does not have the image {id}");
                let path = self.kind_of(&self.root, "images").join(b"images.json");
                Some(Err(Error::damaged(path, what)))
            }
            (None, _) => None,
        }
    }

    fn layer_uses(&self) -> Result<Vec<LayerUse>> {
        self.read_uses()
    }

    fn leftovers(&self) -> Result<Vec<Leftover>> {
        self.find_leftovers()
    }

    fn space_of(&self, inside: &Bytes) -> Space {
        self.space(inside)
    }

    fn is_merged(&self, inside: &Bytes) -> bool {
        self.shows_layers(inside)
    }

    fn is_mount_point(&self, _: &Bytes) -> bool {
        false
    }

    fn directory_of_driver(&self, driver: &str) -> Bytes {
        self.root.join(driver.as_bytes())
    }

    fn directory_of_layer(&self, driver: &str, id: &str) -> Option<Bytes> {
        let layer = self.layer_record(id).filter(|_| driver == self.driver)?;
        Some(self.content_dir(layer.home, id))
    }

    fn recognise(&self, union: &mut Union) {
        if union.owner.is_some() || self.copies() || !self.is_read() {
            return;
        }
        let Some(container) = self.container_of_union(union) else {
            return;
        };
        if union.branches.is_empty() {
            match self.stack(&container.layer, Permission::RW) {
                Ok(stack) => (union.branches, union.kind) = (stack.branches, stack.kind),
                Err(error) => self.note(error),
            }
        }
        self.label_owner(union, &container);
    }

    fn describe(&self, union: &mut Union) {
        let is_anothers = union
            .owner
            .as_ref()
            .is_some_and(|owner| owner.engine != NAME);
        if is_anothers || self.copies() || !self.is_read() {
            return;
        }
        for branch in &mut union.branches {
            if let Some(id) = self.layer_of_branch(&branch.spec.path) {
                branch.spec.path = self.content_dir(self.home_of(&id), &id);
                branch.layer.id = Some(id);
            }
        }
        if let Some(container) = self.container_of_union(union) {
            self.label_container(union, &container);
        }
    }

    fn layer_at(&self, path: &Bytes) -> Option<(LayerName, Bytes)> {
        let (id, inside) = self.layer_inside(path)?;
        let name = LayerName {
            driver: self.driver.clone(),
            id,
            aliases: Vec::new(),
        };
        Some((name, inside))
    }

    fn mount_dir_at(&self, path: &Bytes) -> Option<(Container, Bytes)> {
        let (layer, inside) = self.merged(path)?;
        let container = self.container_of_layer(&layer)?;
        Some((self.container(container), inside))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories_of_tags() {
        for (tag, name) in [
            ("localhost/app:1", "localhost/app"),
            ("host:5000/app", "host:5000/app"),
            ("host:5000/app:1", "host:5000/app"),
        ] {
            assert_eq!(repository(tag), name);
        }
    }
}
