//! Containers: their configuration files, and the union that each has.

use std::collections::{BTreeMap, HashMap};

use serde::Deserialize;

use super::{Docker, Layout, NAME, instant, is_id, is_zero_time, null_default, read_json};
use crate::branch::Permission;
use crate::engine::{Owner, OwnerKind, Role, Union, layer_branch};
use crate::error::{Error, Result};

/// A container, as its configuration file has it.
#[derive(Debug, Clone)]
pub struct Container {
    pub id: String,
    /// Without the leading slash.
    pub name: String,
    /// What the person called the image.
    pub image: String,
    /// Hexadecimal, without `sha256:`.
    pub image_id: String,
    pub command: String,
    /// RFC 3339.
    pub created: String,
    pub state: ContainerState,
    pub driver: String,
    pub ports: String,
    pub(super) layout: Layout,
}

impl Container {
    pub fn is_aufs(&self) -> bool {
        self.driver == "aufs"
    }
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ContainerState {
    #[serde(deserialize_with = "null_default")]
    pub running: bool,
    #[serde(deserialize_with = "null_default")]
    pub paused: bool,
    #[serde(deserialize_with = "null_default")]
    pub restarting: bool,
    #[serde(deserialize_with = "null_default")]
    pub removal_in_progress: bool,
    #[serde(deserialize_with = "null_default")]
    pub dead: bool,
    #[serde(deserialize_with = "null_default")]
    pub exit_code: i64,
    pub started_at: Option<String>,
    pub finished_at: Option<String>,
}

impl ContainerState {
    /// Docker's word for it.
    pub fn word(&self) -> &'static str {
        if self.running {
            return match (self.paused, self.restarting) {
                (true, _) => "paused",
                (_, true) => "restarting",
                _ => "running",
            };
        }
        if self.removal_in_progress {
            "removing"
        } else if self.dead {
            "dead"
        } else if is_zero_time(self.started_at.as_deref()) {
            "created"
        } else {
            "exited"
        }
    }
}

impl Docker<'_> {
    /// Every container, newest first, as `docker ps -a` lists them.
    pub fn containers(&self) -> Vec<Container> {
        let mut containers = Vec::new();
        for id in self.ids(&["containers"]) {
            match self.container(&id) {
                Ok(container) => containers.push(container),
                Err(error) => self.note(error),
            }
        }
        containers.sort_by(|a, b| {
            instant(&b.created)
                .cmp(&instant(&a.created))
                .then(a.id.cmp(&b.id))
        });
        containers
    }

    /// A container by its id.
    ///
    /// # Errors
    /// A configuration that is missing or damaged.
    pub fn container(&self, id: &str) -> Result<Container> {
        let new = self.at(&["containers", id, "config.v2.json"]);
        let old = self.at(&["containers", id, "config.json"]);
        let (path, layout) = match self.host.stat(&new)? {
            Some(_) => (new, Layout::Content),
            None if self.host.stat(&old)?.is_some() => (old, Layout::Graph),
            None => {
                return Err(Error::damaged(
                    self.at(&["containers", id]),
                    "has no config.v2.json",
                ));
            }
        };
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
            command: command_line(&config.path, config.args.unwrap_or_default()),
            created: config.created,
            state: config.state,
            driver,
            ports: ports(config.network_settings.ports.unwrap_or_default()),
            layout,
        })
    }

    /// The directory name of a container's own layer.
    pub(super) fn mount_id(&self, container: &Container) -> Result<String> {
        match container.layout {
            Layout::Graph => Ok(container.id.clone()),
            Layout::Content => {
                let parts = [
                    "image",
                    &container.driver,
                    "layerdb",
                    "mounts",
                    &container.id,
                    "mount-id",
                ];
                let id = self.read_word(&parts)?;
                if is_id(&id) {
                    Ok(id)
                } else {
                    Err(Error::damaged(self.at(&parts), "is not an id"))
                }
            }
        }
    }

    /// The union of a container, mounted or not.
    ///
    /// # Errors
    /// Metadata that is missing or damaged; a driver that has no layers of this kind.
    pub fn union_of(&self, container: &Container) -> Result<Union> {
        if !container.is_aufs() {
            return Err(Error::Refused {
                what: format!(
                    "{} uses the storage driver {}",
                    container.name, container.driver
                ),
                hint: "this version of layerctl reads Docker's aufs driver".into(),
            });
        }
        let mount_id = self.mount_id(container)?;
        let mut ids = vec![mount_id.clone()];
        match self.parents(&mount_id) {
            Ok(parents) => ids.extend(parents),
            // A half-removed container has lost its own list, but its init layer's is there.
            Err(error) if error.is_not_found() => {
                let init = format!("{mount_id}-init");
                ids.extend(
                    self.parents(&init)
                        .map(|parents| std::iter::once(init).chain(parents))
                        .map_err(|_| error)?,
                );
            }
            Err(error) => return Err(error),
        }
        let branches = ids
            .into_iter()
            .enumerate()
            .map(|(index, id)| {
                let permission = if index == 0 {
                    Permission::RW
                } else {
                    Permission::ro_wh()
                };
                let path = if index == 0 {
                    self.own_diff_dir(&id)
                } else {
                    self.diff_dir(&id)
                };
                layer_branch(path, permission, id)
            })
            .collect();
        let mut union = Union::unmounted(branches);
        self.label_container(&mut union, container);
        Ok(union)
    }

    /// The container that a layer directory is the own one of.
    pub(super) fn container_of_mount(&self, mount_id: &str) -> Option<Container> {
        let mounts = self.mounts.get_or_init(|| self.read_mounts());
        let id = match mounts.get(mount_id) {
            Some(id) => id,
            // In the older layout a container's layer has the container's own id.
            None if self.is_there(&["containers", mount_id]) => mount_id,
            None => return None,
        };
        self.container(id).map_err(|error| self.note(error)).ok()
    }

    fn read_mounts(&self) -> HashMap<String, String> {
        let parts = ["image", "aufs", "layerdb", "mounts"];
        self.ids(&parts)
            .into_iter()
            .filter_map(|id| {
                let parts = ["image", "aufs", "layerdb", "mounts", &id, "mount-id"];
                Some((self.id(&parts)?, id))
            })
            .collect()
    }

    pub(super) fn label_container(&self, union: &mut Union, container: &Container) {
        union.owner = Some(Owner {
            engine: NAME,
            kind: OwnerKind::Container,
            id: container.id.clone(),
            name: Some(container.name.clone()),
        });
        if let Some(top) = union.branches.first_mut() {
            top.layer.role = Role::Container;
        }
        let is_init = |branch: &crate::engine::LayeredBranch| {
            branch
                .layer
                .id
                .as_ref()
                .is_some_and(|id| id.ends_with("-init"))
        };
        if let Some(init) = union.branches.get_mut(1).filter(|branch| is_init(branch)) {
            init.layer.role = Role::Init;
        }
        self.label_image(
            union,
            container.layout,
            &container.driver,
            &container.image_id,
        );
    }
}

/// As `docker ps` shows it: arguments with blanks in single quotes.
fn command_line(path: &str, args: Vec<String>) -> String {
    let quoted = args.into_iter().map(|arg| {
        if arg.contains(' ') {
            format!("'{arg}'")
        } else {
            arg
        }
    });
    std::iter::once(path.to_owned())
        .chain(quoted)
        .collect::<Vec<_>>()
        .join(" ")
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
    #[serde(rename = "NetworkSettings", default, deserialize_with = "null_default")]
    network_settings: NetworkSettings,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_lines_are_quoted_as_docker_quotes_them() {
        assert_eq!(
            command_line("/bin/sh", vec!["-c".into(), "sleep 1".into()]),
            "/bin/sh -c 'sleep 1'"
        );
    }
}
