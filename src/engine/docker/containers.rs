//! Containers: their configuration files, and the union that each has.

use std::collections::{BTreeMap, HashMap};

use rustix::io::Errno;
use serde::Deserialize;

use super::driver::Driver;
use super::layer::LayerId;
use super::records::read_json;
use super::store::{Docker, NAME};
use crate::bytes::Bytes;
use crate::engine::inventory::{
    Container, ContainerState, DOCKERS_ID, Health, INIT, command_line, is_id, null_default,
    sort_newest_first,
};
use crate::engine::stored::{Settings, settings_of};
use crate::engine::union::{LayeredBranch, Owner, OwnerKind, Role, Union};
use crate::error::{Error, Result};

/// A state without what may have changed since it was written: Docker 26 keeps what checks say in memory, and the
/// beginning on disk. docs/facts.md#engines-2026-c8
fn as_known(state: ContainerState) -> ContainerState {
    let is_told = |of: &Health| !matches!(&*of.status, "" | "starting");
    ContainerState {
        health: state.health.filter(is_told),
        ..state
    }
}

impl Docker<'_> {
    /// Every container, newest first, as `docker ps -a` lists them.
    pub(super) fn read_containers(&self) -> Vec<Container> {
        self.note_lost_directories();
        let mut containers = Vec::new();
        for id in self.ids(&["containers"]) {
            match self.recorded_container(&id) {
                Ok(container) => containers.extend(container),
                Err(error) => self.note(error),
            }
        }
        sort_newest_first(&mut containers, |of| (&of.created, &of.id));
        containers
    }

    /// Notes whole directories that are gone while another one tells of what was in them: what people
    /// remove to get a daemon to start again. It made all of them at its first start.
    pub(super) fn note_lost_directories(&self) {
        let read = || self.problems.keep(|| self.find_lost_directories());
        self.problems.tell(self.lost.get_or_init(read));
    }

    fn find_lost_directories(&self) {
        let lost = |parts: &[&str], what: String| {
            self.note(Error::damaged(
                self.at(parts),
                format!("is gone, and {what} are there"),
            ));
        };
        let mut containers = 0;
        for driver in self
            .ids(&["image"])
            .iter()
            .filter_map(|name| Driver::named(name))
        {
            let database = ["image", driver.name(), "layerdb"];
            let layers = self.ids(&[&database[..], &["sha256"]].concat()).len();
            let content = &driver.content().0[..1];
            if layers > 0 && !self.is_there(content) {
                lost(content, format!("the records of {layers} layers"));
            }
            let mounts = self.ids(&[&database[..], &["mounts"]].concat());
            let mounts = mounts.iter().filter(|of| !self.is_builders_mount(of));
            containers += mounts.count();
        }
        if containers > 0 && !self.is_there(&["containers"]) {
            lost(
                &["containers"],
                format!("the records of {containers} containers' layers"),
            );
        }
        // The older layout has no records beside the layers themselves.
        if self.is_there(&["image"]) || self.is_there(&["graph"]) {
            return;
        }
        let layers = self.drivers_here().iter();
        let layers = layers.filter_map(|here| self.directories(here.driver).ok());
        let layers = layers.flatten().count();
        if layers > 0 {
            lost(&["image"], format!("{layers} layers"));
        }
    }

    /// Notes those containers whose layer no record has any more, or a damaged one. A removal takes
    /// the record first, and says before that it does.
    pub(super) fn note_lost_layers(&self, containers: &[Container]) {
        let is_kept = |of: &&Container| !of.state.removal_in_progress && !of.state.dead;
        // Where a driver has no directory, its layers are elsewhere or were never there.
        let has_layers = |of: &&Container| {
            let mut here = self.drivers_here().iter();
            here.any(|here| here.driver.name() == of.driver)
        };
        for container in containers.iter().filter(is_kept).filter(has_layers) {
            match self.recorded_layer(container) {
                Err(Error::Io { path, errno, .. }) if errno == Errno::NOENT => {
                    let what = format!(
                        "is gone: \"RWLayer of container {} is unexpectedly nil\"",
                        container.id
                    );
                    self.problems.note_again(&Error::damaged(path, what));
                }
                Err(error) => self.problems.note_again(&error),
                Ok(_) => {}
            }
        }
    }

    /// A container's own layer, where both files that name it say the same.
    fn recorded_layer(&self, container: &Container) -> Result<LayerId> {
        let layer = self.own_layer(container)?;
        let record = [
            "image",
            layer.driver.name(),
            "layerdb",
            "mounts",
            &container.id,
        ];
        let record = self.at(&record);
        let init = self.recorded(&record, "init-id")?;
        let init = init.as_deref().and_then(|init| init.strip_suffix(INIT));
        if init.is_some_and(|init| init != layer.id) {
            let what = "does not name the layer that init-id names";
            return Err(Error::damaged(record.join(b"mount-id"), what));
        }
        Ok(layer)
    }

    /// A container by its id; none where it has no configuration, and so is none of Docker's either: it
    /// is being made, or was removed while it ended. What is left of it, leftovers name.
    pub(super) fn recorded_container(&self, id: &str) -> Result<Option<Container>> {
        if self.config_of(id)?.is_none() {
            return Ok(None);
        }
        match self.container(id) {
            Ok(container) => Ok(Some(container)),
            // It was removed meanwhile.
            Err(_) if self.config_of(id)?.is_none() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Where a container's configuration is, in the newer layout or the older one.
    pub(super) fn config_of(&self, id: &str) -> Result<Option<Bytes>> {
        for name in ["config.v2.json", "config.json"] {
            let path = self.at(&["containers", id, name]);
            if self.host.stat(&path)?.is_some() {
                return Ok(Some(path));
            }
        }
        Ok(None)
    }

    /// What a container runs as.
    ///
    /// # Errors
    /// A configuration that is damaged.
    pub(super) fn settings_of(&self, id: &str) -> Result<Option<Settings>> {
        #[derive(serde::Deserialize)]
        struct Recorded {
            #[serde(rename = "Config")]
            config: Option<Settings>,
        }
        let Some(path) = self.config_of(id)? else {
            return Ok(None);
        };
        let recorded: Recorded = read_json(self.host, &path)?;
        Ok(recorded.config.map(settings_of))
    }

    /// A container by its id.
    ///
    /// # Errors
    /// A configuration that is missing or damaged.
    pub(super) fn container(&self, id: &str) -> Result<Container> {
        let path = self
            .config_of(id)?
            .ok_or_else(|| Error::damaged(self.at(&["containers", id]), "has no config.v2.json"))?;
        let config: ContainerConfig = read_json(self.host, &path)?;
        if config.id != id {
            return Err(Error::damaged(
                path,
                "is the configuration of another container",
            ));
        }
        let driver = if config.driver.is_empty() {
            "aufs".to_owned()
        } else {
            config.driver
        };
        if !is_id(&driver) {
            return Err(Error::damaged(
                path,
                "names a storage driver that cannot be one",
            ));
        }
        let image_id = config.image.trim_start_matches("sha256:").to_owned();
        Ok(Container {
            id: config.id,
            name: config.name.trim_start_matches('/').to_owned(),
            image: config.config.image.unwrap_or_else(|| image_id.clone()),
            image_id,
            manifest: config.image_manifest.map(|of| of.digest),
            command: command_line(&config.path, config.args.unwrap_or_default()),
            created: config.created,
            state: as_known(config.state),
            driver,
            ports: ports(config.network_settings.ports.unwrap_or_default()),
            namespace: None,
            pod: None,
        })
    }

    /// The driver that keeps a container's layers.
    ///
    /// # Errors
    /// A driver whose layers are no directories, or that is not known.
    pub(super) fn driver_of(&self, container: &Container) -> Result<Driver> {
        Driver::named(&container.driver).ok_or_else(|| Error::Refused {
            what: format!(
                "{} uses the storage driver {}",
                container.name, container.driver
            ),
            hint: super::store::DRIVERS_READ.into(),
        })
    }

    /// The one that `daemon.json` names; else that of a container that runs; else aufs where any
    /// container has it, the newest container's, or the one whose layers are here.
    pub(super) fn driver_in_use(&self, containers: &[Container]) -> String {
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

    /// A container's own layer.
    ///
    /// # Errors
    /// Metadata that is missing or damaged; a driver that is not read.
    pub(super) fn own_layer(&self, container: &Container) -> Result<LayerId> {
        let driver = self.driver_of(container)?;
        // In the older layout a container's layer has the container's own id.
        let id = if !self.is_there(&["containers", &container.id, "config.v2.json"]) {
            container.id.clone()
        } else {
            let parts = [
                "image",
                driver.name(),
                "layerdb",
                "mounts",
                &container.id,
                "mount-id",
            ];
            let id = self.read_word(&parts)?;
            if !is_id(&id) {
                return Err(Error::damaged(self.at(&parts), "is not an id"));
            }
            id
        };
        Ok(LayerId { driver, id })
    }

    /// The union of a container, mounted or not.
    ///
    /// # Errors
    /// Metadata that is missing or damaged; a driver that has no layers of this kind.
    pub(super) fn container_union(&self, container: &Container) -> Result<Union> {
        let layer = self.own_layer(container)?;
        let mut union = self.stack(&layer, Some(container))?;
        self.label_container(&mut union, container);
        Ok(union)
    }

    /// The container that a layer directory is the own one of.
    pub(super) fn container_of_mount(&self, mount_id: &str) -> Option<Container> {
        let read = || self.problems.keep(|| self.read_mounts());
        let mounts = self.problems.tell(self.mounts.get_or_init(read));
        let id = match mounts.get(mount_id) {
            Some(id) => id,
            // In the older layout a container's layer has the container's own id.
            None if self.is_there(&["containers", mount_id]) => mount_id,
            None => return None,
        };
        let container = self.recorded_container(id);
        container.map_err(|error| self.note(error)).ok().flatten()
    }

    /// Whether a layer's record that is as containers have them is, or was, of a step of the
    /// builder's: its names are no ids of containers.
    pub(super) fn is_builders_mount(&self, id: &str) -> bool {
        id.len() != DOCKERS_ID && !self.is_there(&["containers", id])
    }

    fn read_mounts(&self) -> HashMap<String, String> {
        let of_driver = |driver: String| {
            let parts = ["image", &driver, "layerdb", "mounts"];
            let mount_id = |id: String| {
                if self.is_builders_mount(&id) {
                    return None;
                }
                let parts = ["image", &driver, "layerdb", "mounts", &id, "mount-id"];
                Some((self.id(&parts)?, id))
            };
            let ids = self.ids(&parts).into_iter();
            ids.filter_map(mount_id).collect::<Vec<_>>()
        };
        let drivers = self.ids(&["image"]).into_iter();
        drivers.flat_map(of_driver).collect()
    }

    pub(super) fn label_owner(&self, union: &mut Union, container: &Container) {
        union.driver = Some(container.driver.clone());
        union.owner = Some(Owner {
            engine: NAME,
            kind: OwnerKind::Container,
            id: container.id.clone(),
            name: Some(container.name.clone()),
            store: self.store(&container.driver),
        });
    }

    pub(super) fn label_container(&self, union: &mut Union, container: &Container) {
        self.label_owner(union, container);
        if let Some(top) = union.branches.first_mut() {
            top.layer.role = Role::Container;
        }
        let is_init = |branch: &LayeredBranch| {
            branch
                .layer
                .id
                .as_ref()
                .is_some_and(|id| id.ends_with(INIT))
        };
        if let Some(init) = union.branches.get_mut(1).filter(|branch| is_init(branch)) {
            init.layer.role = Role::Init;
        }
        self.label_image(union, &container.driver, &container.image_id);
    }
}

/// As `docker ps` shows them: `0.0.0.0:32768->5000/tcp`.
fn ports(ports: BTreeMap<String, Option<Vec<PortBinding>>>) -> String {
    let mut shown = Vec::new();
    for (port, bindings) in ports {
        let bindings = bindings.unwrap_or_default();
        if bindings.is_empty() {
            shown.push(port);
        } else {
            shown.extend(
                bindings
                    .iter()
                    .map(|to| format!("{}:{}->{port}", to.host_ip, to.host_port)),
            );
        }
    }
    shown.join(", ")
}

#[derive(Deserialize)]
struct ContainerConfig {
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "Name", default, deserialize_with = "null_default")]
    name: String,
    #[serde(rename = "Created", default, deserialize_with = "null_default")]
    created: String,
    #[serde(rename = "Path", default, deserialize_with = "null_default")]
    path: String,
    #[serde(rename = "Args", default)]
    args: Option<Vec<String>>,
    #[serde(rename = "Image", default, deserialize_with = "null_default")]
    image: String,
    #[serde(rename = "Driver", default, deserialize_with = "null_default")]
    driver: String,
    #[serde(rename = "State", default, deserialize_with = "null_default")]
    state: ContainerState,
    #[serde(rename = "Config", default, deserialize_with = "null_default")]
    config: ContainerInner,
    #[serde(rename = "ImageManifest", default)]
    image_manifest: Option<ImageManifest>,
    #[serde(rename = "NetworkSettings", default, deserialize_with = "null_default")]
    network_settings: NetworkSettings,
}

/// Which of an image's manifests, one for each platform, a container was made from.
#[derive(Deserialize)]
struct ImageManifest {
    digest: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct ContainerInner {
    image: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct NetworkSettings {
    ports: Option<BTreeMap<String, Option<Vec<PortBinding>>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct PortBinding {
    #[serde(default, deserialize_with = "null_default")]
    host_ip: String,
    #[serde(default, deserialize_with = "null_default")]
    host_port: String,
}
