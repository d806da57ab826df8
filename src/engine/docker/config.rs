//! What `daemon.json` says that concerns files.

use serde::Deserialize;

use super::records::read_json;
use crate::bytes::Bytes;
use crate::engine::problems::Problems;
use crate::host::Host;

const PATH: &str = "/etc/docker/daemon.json";

#[derive(Deserialize, Default)]
#[serde(rename_all = "kebab-case", default)]
pub(super) struct Daemon {
    data_root: Option<String>,
    /// The older name of the same.
    graph: Option<String>,
    pub storage_driver: Option<String>,
}

impl Daemon {
    /// The data directory that it names.
    pub fn root(&self) -> Option<Bytes> {
        let root = self.data_root.as_ref().or(self.graph.as_ref());
        root.map(|root| Bytes::from(root.as_str()))
    }
}

/// Reads the daemon's configuration; one that is not there says nothing.
pub(super) fn read(host: &Host, problems: &Problems) -> Daemon {
    match read_json::<Option<Daemon>>(host, &Bytes::from(PATH)) {
        Ok(daemon) => daemon.unwrap_or_default(),
        Err(error) => {
            if !error.is_absent() {
                problems.note(error);
            }
            Daemon::default()
        }
    }
}
