//! What `daemon.json` says that concerns files.

use serde::Deserialize;

use super::records::read_json;
use crate::bytes::Bytes;
use crate::engine::problems::Problems;
use crate::host::Host;

#[derive(Debug, Deserialize, Default)]
#[serde(rename_all = "kebab-case", default)]
pub(super) struct Daemon {
    data_root: Option<String>,
    /// The older name of the same.
    graph: Option<String>,
    exec_root: Option<String>,
    pub storage_driver: Option<String>,
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
