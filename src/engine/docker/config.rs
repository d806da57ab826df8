//! What `daemon.json` says that concerns files.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::records::read_json;
use crate::bytes::Bytes;
use crate::engine::inventory::null_default;
use crate::engine::problems::Problems;
use crate::host::Host;

#[derive(Debug, Deserialize, Default)]
#[serde(rename_all = "kebab-case", default)]
pub(super) struct Daemon {
    data_root: Option<String>,
    /// The older name of the same.
    graph: Option<String>,
    exec_root: Option<String>,
    storage_driver: Option<String>,
    #[serde(deserialize_with = "null_default")]
    features: BTreeMap<String, bool>,
    /// Where it was read; none where there is none.
    #[serde(skip)]
    pub path: Option<Bytes>,
}

impl Daemon {
    /// The data directory that it names.
    pub fn root(&self) -> Option<Bytes> {
        let root = self.data_root.as_ref().or(self.graph.as_ref());
        root.map(|root| Bytes::from(root.as_str()))
    }

    /// The storage driver that it names; of the newer image store that is a snapshotter, and there is
    /// a usual one.
    pub fn driver(&self) -> Option<String> {
        let has_snapshots = self.features.get("containerd-snapshotter") == Some(&true);
        let usual = has_snapshots.then(|| "overlayfs".to_owned());
        let named = self.storage_driver.clone().filter(|name| !name.is_empty());
        named.or(usual)
    }

    /// What does not outlive the machine's running, where it names that.
    pub fn exec_root(&self) -> Option<Bytes> {
        let root = self.exec_root.as_ref();
        root.map(|root| Bytes::from(root.as_str()))
    }
}

/// Reads the first of a daemon's configurations that is there; without any, nothing is said.
pub(super) fn read(host: &Host, paths: &[Bytes], problems: &Problems) -> Daemon {
    for path in paths {
        match read_json::<Option<Daemon>>(host, path) {
            Ok(daemon) => {
                return Daemon {
                    path: Some(path.clone()),
                    ..daemon.unwrap_or_default()
                };
            }
            Err(error) if error.is_absent() => {}
            Err(error) => {
                problems.note(error);
                break;
            }
        }
    }
    Daemon::default()
}
