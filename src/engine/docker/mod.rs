//! Docker's own files, read without a daemon.
//!
//! ```text
//! 1.10 and newer                                   1.9 and older
//! containers/<cid>/config.v2.json                  containers/<cid>/config.json
//! image/<driver>/repositories.json                 repositories-<driver>
//! image/<driver>/imagedb/content/sha256/<image>    graph/<image>/{json,layersize}
//! image/<driver>/layerdb/sha256/<chain>/{cache-id,diff,parent,size}
//! image/<driver>/layerdb/mounts/<cid>/{mount-id,init-id,parent}
//! aufs/{diff,layers,mnt}/<cache id | mount id>     aufs/{diff,layers,mnt}/<image | cid>
//! ```
//!
//! Every id read from a file is checked before it becomes part of a path.

mod container;
mod image;
mod layer;

use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;

use rustix::io::Errno;
use serde::Deserialize;

pub use container::{Container, ContainerState};
pub use image::{HistoryEntry, Image, ImageLayer, Names};

use crate::bytes::Bytes;
use crate::error::{Error, Result};
use crate::host::Host;
use crate::union::Follow;

const DEFAULT_ROOT: &str = "/var/lib/docker";
const NAME: &str = "docker";

/// One Docker data directory. Nothing is read from it until it is asked.
pub struct Docker<'h> {
    host: &'h Host,
    pub root: Bytes,
    /// What could not be read.
    problems: RefCell<Vec<Error>>,
    /// `mount id -> container id`, once it has been asked for.
    mounts: OnceCell<HashMap<String, String>>,
}

/// The two ways in which Docker has kept its files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Layout {
    /// 1.10 and newer: layers have chain ids and cache ids.
    Content,
    /// 1.9 and older: an image is a layer.
    Graph,
}

/// Go writes a time that never was as the first second of year 1.
pub fn is_zero_time(time: Option<&str>) -> bool {
    time.is_none_or(|time| time.is_empty() || time.starts_with("0001-01-01"))
}

impl<'h> Docker<'h> {
    /// Takes the data directory that the person named, that `daemon.json` names, or the default.
    pub fn find(host: &'h Host, named: Option<&Bytes>) -> Docker<'h> {
        let mut docker = Docker {
            host,
            root: Bytes::from(DEFAULT_ROOT),
            mounts: OnceCell::new(),
            problems: RefCell::default(),
        };
        let named = named.cloned().or_else(|| docker.configured_root());
        let is_named = named.is_some();
        docker.root = named.unwrap_or(docker.root);
        // A directory that was named, or to which a link leads, has to be there.
        let found = host.stat(&docker.root);
        let is_link = || {
            host.lookup(docker.root.as_bytes(), Follow::NotLast)
                .is_ok_and(|found| found.entry.kind().is_some())
        };
        match found {
            Ok(Some(_)) => {}
            Ok(None) if is_named || is_link() => {
                docker.note(Error::io(docker.root.clone(), Errno::NOENT))
            }
            Ok(None) => {}
            Err(error) => docker.note(error),
        }
        docker
    }

    fn configured_root(&self) -> Option<Bytes> {
        #[derive(Deserialize, Default)]
        #[serde(default)]
        struct Daemon {
            #[serde(rename = "data-root")]
            data_root: Option<String>,
            /// The older name of the same.
            graph: Option<String>,
        }
        let path = Bytes::from("/etc/docker/daemon.json");
        match read_json::<Option<Daemon>>(self.host, &path) {
            Ok(daemon) => {
                let daemon = daemon.unwrap_or_default();
                daemon.data_root.or(daemon.graph).map(Bytes::from)
            }
            Err(error) => {
                self.note_unless_absent(error);
                None
            }
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

    /// What could not be read until now.
    pub fn take_problems(&self) -> Vec<Error> {
        self.problems.take()
    }

    /// Whether there is anything of Docker's here.
    pub fn exists(&self) -> bool {
        ["containers", "image", "graph", "aufs"]
            .iter()
            .any(|name| self.is_there(&[name]))
    }

    /// The storage driver in use: aufs where any container has it, else the newest container's,
    /// else the one whose layers are here.
    pub fn driver(&self, containers: &[Container]) -> String {
        let in_use = containers
            .iter()
            .find(|container| container.is_aufs())
            .or(containers.first());
        if let Some(container) = in_use {
            return container.driver.clone();
        }
        let drivers = self.ids(&["image"]);
        let used = drivers.into_iter().find(|driver| self.is_there(&[driver]));
        used.unwrap_or_else(|| "aufs".into())
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

    pub(super) fn read_word(&self, parts: &[&str]) -> Result<String> {
        let path = self.at(parts);
        let bytes = self.host.read(&path)?;
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

/// A time as Docker writes it; what is no time sorts before all others.
fn instant(text: &str) -> Option<jiff::Timestamp> {
    text.parse().ok()
}

/// Docker's twelve digits.
pub fn short(id: &str) -> &str {
    let hex = id.strip_prefix("sha256:").unwrap_or(id);
    hex.get(..12).unwrap_or(hex)
}

/// Whether a text may become a path component: letters, digits, `-`, `_`, `.`, not led by a dot.
pub fn is_id(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 128
        && !text.starts_with('.')
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

fn read_json<T: for<'de> Deserialize<'de>>(host: &Host, path: &Bytes) -> Result<T> {
    let bytes = host.read(path)?;
    serde_json::from_slice(&bytes).map_err(|error| {
        Error::damaged(path.clone(), format!("is not what Docker writes: {error}"))
    })
}

/// Go writes `null` for what has its zero value.
fn null_default<'de, D, T>(deserializer: D) -> std::result::Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_never_leave_their_directory() {
        for bad in [
            "", ".", "..", "../x", "a/b", ".hidden", "a\nb", "a b", "\u{fc}",
        ] {
            assert!(!is_id(bad), "{bad:?}");
        }
        assert!(is_id(
            "2ee58d81e4ac6811bbc78beb4b46bf213c79c9e2dc7e441741afc8c4349c6bab-init"
        ));
    }
}
