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

use std::cell::OnceCell;
use std::collections::HashMap;

use serde::Deserialize;

pub use container::{Container, ContainerState};
pub use image::{HistoryEntry, Image, ImageLayer};

use crate::bytes::Bytes;
use crate::error::{Error, Result};
use crate::host::Host;

const DEFAULT_ROOT: &str = "/var/lib/docker";
const NAME: &str = "docker";

/// One Docker data directory. Nothing is read from it until it is asked.
pub struct Docker<'h> {
    host: &'h Host,
    pub root: Bytes,
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
    pub fn find(host: &'h Host, named: Option<&Bytes>, problems: &mut Vec<Error>) -> Docker<'h> {
        let configured = || {
            #[derive(Deserialize)]
            struct Daemon {
                #[serde(rename = "data-root", alias = "graph")]
                data_root: Option<String>,
            }
            let path = Bytes::from("/etc/docker/daemon.json");
            match read_json::<Daemon>(host, &path) {
                Ok(daemon) => daemon.data_root.map(Bytes::from),
                Err(error) if error.is_not_found() => None,
                Err(error) => {
                    problems.push(error);
                    None
                }
            }
        };
        let root = named
            .cloned()
            .or_else(configured)
            .unwrap_or_else(|| Bytes::from(DEFAULT_ROOT));
        Docker { host, root, mounts: OnceCell::new() }
    }

    /// Whether there is anything of Docker's here.
    pub fn exists(&self) -> bool {
        ["containers", "image", "graph", "aufs"]
            .iter()
            .any(|name| self.is_there(&[name]))
    }

    /// The storage driver in use: that of the containers, or the one whose layers are here.
    pub fn driver(&self, containers: &[Container], problems: &mut Vec<Error>) -> String {
        if let Some(container) = containers.first() {
            return container.driver.clone();
        }
        let drivers = self.ids(&["image"], problems);
        let used = drivers.into_iter().find(|driver| self.is_there(&[driver]));
        used.unwrap_or_else(|| "aufs".into())
    }

    pub(super) fn is_there(&self, parts: &[&str]) -> bool {
        self.host
            .stat(&self.at(parts))
            .is_ok_and(|stat| stat.is_some())
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

    /// The names in a directory that can be ids.
    pub(super) fn ids(&self, parts: &[&str], problems: &mut Vec<Error>) -> Vec<String> {
        let names = self.host.list(&self.at(parts)).unwrap_or_else(|error| {
            problems.push(error);
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
