//! Docker's own files, read without a daemon.
//!
//! ```text
//! 1.10 and newer                                   1.9 and older
//! containers/<cid>/config.v2.json                  containers/<cid>/config.json
//! image/<driver>/repositories.json                 repositories-<driver>
//! image/<driver>/imagedb/content/sha256/<image>    graph/<image>/{json,layersize}
//! image/<driver>/layerdb/sha256/<chain>/{cache-id,diff,parent,size}
//! image/<driver>/layerdb/mounts/<cid>/{mount-id,init-id,parent}
//! ```
//!
//! Where the layers themselves are is the storage driver's affair: `driver`. With remapped users
//! everything is once more below `<uid>.<gid>/` of the data directory.
//!
//! Every id read from a file is checked before it becomes part of a path.

mod container;
mod driver;
mod image;
mod layer;
mod snapshot;
mod usage;

use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;

use rustix::io::Errno;
use serde::Deserialize;

use self::driver::{Driver, Stacking};
use self::layer::{DriverHere, Layer};
use crate::bytes::Bytes;
use crate::dir::Kind;
use crate::engine::containerd::Containerd;
use crate::engine::inventory::{Container, Image, LayerName, is_id};
use crate::engine::usage::{LayerUse, Leftover, Space};
use crate::engine::{Engine, Owner, OwnerKind, Store, Union};
use crate::error::{Error, Result};
use crate::host::Host;
use crate::overlay::Namespace;
use crate::union::Follow;

/// The longest file that holds a word, in bytes: a digest with its algorithm.
const WORD_MAX: usize = 256;
const DEFAULT_ROOT: &str = "/var/lib/docker";
const NAME: &str = "docker";
const DRIVERS_READ: &str =
    "layerctl reads Docker's drivers aufs, overlay2, overlay, fuse-overlayfs, vfs and btrfs";

/// One Docker data directory. Nothing is read from it until it is asked.
pub struct Docker<'h> {
    host: &'h Host,
    root: Bytes,
    /// Where overlay's marks are: a daemon without root's rights has the user's.
    namespace: Namespace,
    /// The storage driver that `daemon.json` names.
    configured_driver: Option<String>,
    /// What could not be read.
    problems: RefCell<Vec<Error>>,
    /// `mount id -> container id`, once it has been asked for.
    mounts: OnceCell<HashMap<String, String>>,
    /// The files that hold a word, as far as they were read.
    words: RefCell<HashMap<Bytes, Vec<u8>>>,
    /// `(driver, chain id) -> cache id and size`, as far as they were read.
    records: RefCell<HashMap<(String, String), LayerRecord>>,
    /// `(driver, image) -> the image it was built on`, as far as they were read.
    parents: RefCell<HashMap<(String, String), Option<String>>>,
    /// The drivers that have a directory here, once they have been asked for.
    drivers: OnceCell<Vec<DriverHere>>,
    /// The containerds that can have layers of ours, once they have been asked for.
    containerds: OnceCell<Vec<Containerd<'h>>>,
}

/// A layer's cache id, and its size in bytes.
type LayerRecord = (Option<String>, Option<u64>);

impl<'h> Docker<'h> {
    /// The data directory that the person named, that `daemon.json` names, or the default; and
    /// those in it that belong to remapped users.
    pub fn find(host: &'h Host, named: Option<&Bytes>) -> Vec<Docker<'h>> {
        let mut docker = Docker::new(host, Bytes::from(DEFAULT_ROOT));
        let daemon = docker.configuration();
        docker.configured_driver = daemon.storage_driver;
        let named = named.cloned().or_else(|| {
            let root = daemon.data_root.or(daemon.graph);
            root.map(Bytes::from)
        });
        let is_named = named.is_some();
        docker.root = named.unwrap_or(docker.root);
        // A directory that was named, or to which a link leads, has to be there.
        let is_link = || {
            host.lookup(docker.root.as_bytes(), Follow::NotLast)
                .is_ok_and(|found| found.entry.kind().is_some())
        };
        match host.stat(&docker.root) {
            Ok(Some(stat)) if stat.uid != 0 => docker.namespace = Namespace::User,
            Ok(Some(_)) => {}
            Ok(None) if is_named || is_link() => {
                docker.note(Error::io(docker.root.clone(), Errno::NOENT))
            }
            Ok(None) => {}
            Err(error) => docker.note(error),
        }
        let names = host.list(&docker.root).unwrap_or_default().into_iter();
        let remapped = names
            .filter(|(name, kind)| *kind == Kind::Directory && is_remapped(name))
            .map(|(name, _)| Docker {
                configured_driver: docker.configured_driver.clone(),
                ..Docker::new(host, docker.root.join(&name))
            })
            .collect::<Vec<_>>();
        std::iter::once(docker).chain(remapped).collect()
    }

    fn new(host: &'h Host, root: Bytes) -> Docker<'h> {
        Docker {
            host,
            root,
            namespace: Namespace::Trusted,
            configured_driver: None,
            problems: RefCell::default(),
            mounts: OnceCell::new(),
            words: RefCell::default(),
            records: RefCell::default(),
            parents: RefCell::default(),
            drivers: OnceCell::new(),
            containerds: OnceCell::new(),
        }
    }

    /// What `daemon.json` says that concerns files.
    fn configuration(&self) -> Daemon {
        let path = Bytes::from("/etc/docker/daemon.json");
        match read_json::<Option<Daemon>>(self.host, &path) {
            Ok(daemon) => daemon.unwrap_or_default(),
            Err(error) => {
                self.note_unless_absent(error);
                Daemon::default()
            }
        }
    }

    fn store(&self, driver: &str) -> Store {
        Store {
            root: self.root.clone(),
            driver: driver.to_owned(),
            namespace: None,
        }
    }

    /// Keeps what could not be read: an unreadable part is not an empty part.
    pub(super) fn note(&self, error: Error) {
        self.problems.borrow_mut().push(error);
    }

    fn note_unless_absent(&self, error: Error) {
        if !error.is_absent() {
            self.note(error);
        }
    }

    pub(super) fn is_there(&self, parts: &[&str]) -> bool {
        match self.host.stat(&self.at(parts)) {
            Ok(stat) => stat.is_some(),
            Err(error) => {
                self.note(error);
                false
            }
        }
    }

    pub(super) fn at(&self, parts: &[&str]) -> Bytes {
        parts
            .iter()
            .fold(self.root.clone(), |path, part| path.join(part.as_bytes()))
    }

    /// Reads a file that holds a word. Several questions need the same ones, of every layer.
    pub(super) fn read_small(&self, path: &Bytes) -> Result<Vec<u8>> {
        if let Some(known) = self.words.borrow().get(path) {
            return Ok(known.clone());
        }
        let bytes = self.host.read(path)?;
        if bytes.len() <= WORD_MAX {
            let mut words = self.words.borrow_mut();
            words.insert(path.clone(), bytes.clone());
        }
        Ok(bytes)
    }

    pub(super) fn read_word(&self, parts: &[&str]) -> Result<String> {
        let path = self.at(parts);
        let bytes = self.read_small(&path)?;
        match std::str::from_utf8(&bytes) {
            Ok(text) => Ok(text.trim().to_owned()),
            Err(_) => Err(Error::damaged(path, "is not text")),
        }
    }

    /// A word that may be missing. One that is there and cannot be read is noted.
    pub(super) fn word(&self, parts: &[&str]) -> Option<String> {
        self.read_word(parts)
            .map_err(|error| self.note_unless_absent(error))
            .ok()
    }

    /// An id in a file that may be missing. What is no id is noted.
    pub(super) fn id(&self, parts: &[&str]) -> Option<String> {
        let word = self.word(parts)?;
        if !is_id(&word) {
            self.note(Error::damaged(self.at(parts), "is not an id"));
            return None;
        }
        Some(word)
    }

    /// An id in a file that has to be there.
    pub(super) fn id_of(&self, parts: &[&str]) -> Result<String> {
        let word = self.read_word(parts)?;
        if is_id(&word) {
            Ok(word)
        } else {
            Err(Error::damaged(self.at(parts), "is not an id"))
        }
    }

    /// A number of bytes in a file that may be missing. What is no number is noted.
    pub(super) fn size(&self, parts: &[&str]) -> Option<u64> {
        let word = self.word(parts)?;
        let size = word.parse().ok();
        if size.is_none() {
            self.note(Error::damaged(self.at(parts), "is not a number of bytes"));
        }
        size
    }

    /// The names in a directory that can be ids.
    pub(super) fn ids(&self, parts: &[&str]) -> Vec<String> {
        let names = self.host.list(&self.at(parts)).unwrap_or_else(|error| {
            self.note(error);
            Vec::new()
        });
        names
            .into_iter()
            .filter_map(|(name, _)| String::from_utf8(name).ok())
            .filter(|name| is_id(name))
            .collect()
    }
}

impl Engine for Docker<'_> {
    fn name(&self) -> &'static str {
        NAME
    }

    fn root(&self) -> &Bytes {
        &self.root
    }

    fn exists(&self) -> bool {
        ["containers", "image", "graph", "aufs"]
            .iter()
            .any(|name| self.is_there(&[name]))
    }

    fn take_problems(&self) -> Vec<Error> {
        let containerds = self.containerds.get().into_iter().flatten();
        let of_containerds = containerds.flat_map(Engine::take_problems);
        self.problems
            .take()
            .into_iter()
            .chain(of_containerds)
            .collect()
    }

    fn containers(&self) -> Vec<Container> {
        self.read_containers()
    }

    fn images(&self) -> Vec<Image> {
        let mut images = self.read_images();
        images.extend(self.snapshot_images());
        images
    }

    fn layers(&self) -> Vec<LayerName> {
        self.read_layers()
    }

    /// A container is marked before its layer is removed; an image's record is the first to go, and
    /// the record of a layer is moved away.
    fn gone<'o>(&self, owners: &[&'o Owner]) -> Vec<&'o Owner> {
        let is_own = |owner: &&Owner| owner.store.root == self.root;
        let is_gone = |owner: &&Owner| match owner.kind {
            OwnerKind::Container => self.is_container_gone(&owner.id),
            OwnerKind::Image => !self.has_image(&owner.store.driver, &owner.id),
            OwnerKind::Layer => self.is_layer_gone(&owner.store.driver, &owner.id),
        };
        let own = owners.iter().copied().filter(is_own).filter(is_gone);
        let containerds = self.containerds.get().into_iter().flatten();
        let others = containerds.flat_map(|containerd| containerd.gone(owners));
        own.chain(others).collect()
    }

    /// The one that `daemon.json` names; else that of a container that runs; else aufs where any
    /// container has it, the newest container's, or the one whose layers are here.
    fn driver(&self, containers: &[Container]) -> String {
        if let Some(driver) = &self.configured_driver {
            return driver.clone();
        }
        let in_use = containers
            .iter()
            .find(|container| container.state.running)
            .or_else(|| {
                let mut containers = containers.iter();
                containers.find(|container| container.driver == Driver::Aufs.name())
            })
            .or(containers.first());
        if let Some(container) = in_use {
            return container.driver.clone();
        }
        let drivers = self.ids(&["image"]);
        let used = drivers.into_iter().find(|driver| self.is_there(&[driver]));
        used.unwrap_or_else(|| Driver::Aufs.name().into())
    }

    fn reads(&self, container: &Container) -> bool {
        Driver::named(&container.driver).is_some() || self.has_snapshot(container)
    }

    fn has_union(&self, container: &Container) -> bool {
        match Driver::named(&container.driver) {
            Some(driver) => driver.stacking() != Stacking::Copies,
            None => container.driver != "native" && self.has_snapshot(container),
        }
    }

    fn union_of(&self, container: &Container) -> Result<Union> {
        match self.snapshot_union(container) {
            Some(union) => union,
            None => self.container_union(container),
        }
    }

    fn union_of_image(&self, image: &Image) -> Result<Union> {
        match self.union_of_snapshot_image(image) {
            Some(union) => union,
            None => self.image_union(image),
        }
    }

    fn union_of_layer(&self, layer: &LayerName) -> Result<Union> {
        let is_number = layer.id.bytes().all(|byte| byte.is_ascii_digit());
        let driver = Driver::named(&layer.driver).filter(|_| !is_number);
        let Some(driver) = driver else {
            return self.union_of_snapshot(layer);
        };
        let id = layer.id.clone();
        self.layer_union(&Layer { driver, id })
    }

    fn image_of(&self, union: &Union) -> Option<Result<Image>> {
        let owner = union.owner.as_ref()?;
        let driver = union.driver.as_deref()?;
        match owner.kind {
            OwnerKind::Image if self.has_image(driver, &owner.id) => {
                Some(self.image(driver, &owner.id))
            }
            OwnerKind::Container if self.is_there(&["containers", &owner.id]) => {
                let container = self.container(&owner.id);
                Some(container.and_then(|container| {
                    let snapshot = self.snapshot_image(&container.driver, &container.image_id);
                    snapshot.unwrap_or_else(|| self.image_of_container(&container))
                }))
            }
            OwnerKind::Image => self.snapshot_image(driver, &owner.id),
            _ => None,
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
        let is_number = id.bytes().all(|byte| byte.is_ascii_digit());
        let Some(driver) = Driver::named(driver).filter(|_| !is_number) else {
            return self.directory_of_snapshot(driver, id);
        };
        let id = id.to_owned();
        Some(self.content_dir(&Layer { driver, id }))
    }

    fn recognise(&self, union: &mut Union) {
        self.recognise_union(union);
        if union.owner.is_none() {
            self.recognise_snapshots(union);
        }
    }

    fn describe(&self, union: &mut Union) {
        self.describe_union(union);
        self.describe_snapshots(union);
    }

    fn layer_at(&self, path: &Bytes) -> Option<(LayerName, Bytes)> {
        let Some((layer, inside)) = self.layer_inside(path) else {
            return self.snapshot_at(path);
        };
        let name = LayerName {
            driver: layer.driver.name().to_owned(),
            id: layer.id,
            aliases: Vec::new(),
        };
        Some((name, inside))
    }

    fn mount_dir_at(&self, path: &Bytes) -> Option<(Container, Bytes)> {
        self.mount_dir(path).or_else(|| self.rootfs(path))
    }
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "kebab-case", default)]
struct Daemon {
    data_root: Option<String>,
    /// The older name of the same.
    graph: Option<String>,
    storage_driver: Option<String>,
}

/// The directory of remapped users is called `<uid>.<gid>`.
fn is_remapped(name: &[u8]) -> bool {
    let is_number = |text: &[u8]| !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    let parts: Vec<&[u8]> = name.split(|&byte| byte == b'.').collect();
    matches!(parts.as_slice(), [uid, gid] if is_number(uid) && is_number(gid))
}

fn read_json<T: for<'de> Deserialize<'de>>(host: &Host, path: &Bytes) -> Result<T> {
    let bytes = host.read(path)?;
    // Where an object is expected, a list of its values would do for the parser.
    if bytes.trim_ascii_start().starts_with(b"[") {
        return Err(Error::damaged(path.clone(), "is a list, not an object"));
    }
    serde_json::from_slice(&bytes).map_err(|error| {
        Error::damaged(path.clone(), format!("is not what Docker writes: {error}"))
    })
}
