//! Where CRI-O keeps its store, if it is told to have one of its own: `crio.conf`.
//!
//! ```text
//! [crio]     root, runroot, storage_driver
//! ```
//!
//! `/etc/crio/crio.conf`, and then the files of `/etc/crio/crio.conf.d` by name: the last counts,
//! key by key.

use serde::Deserialize;

use super::config::drop_ins;
use crate::bytes::Bytes;
use crate::engine::problems::Problems;
use crate::error::Error;
use crate::host::Host;

const FILE: &str = "/etc/crio/crio.conf";
const DIRECTORY: &str = "/etc/crio/crio.conf.d";

/// What CRI-O's configuration says.
#[derive(Debug, Default)]
pub(super) struct Crio {
    /// The graph root, and the file that names it.
    pub root: Option<(String, Bytes)>,
    pub run_root: Option<String>,
    pub driver: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct File {
    crio: Section,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Section {
    root: Option<String>,
    runroot: Option<String>,
    storage_driver: Option<String>,
}

/// Reads the configuration; what is not there says nothing.
pub(super) fn read(host: &Host, problems: &Problems) -> Crio {
    let drop_ins = drop_ins(host, &[Bytes::from(DIRECTORY)], problems);
    let mut crio = Crio::default();
    for path in std::iter::once(Bytes::from(FILE)).chain(drop_ins) {
        let read = host
            .read(&path)
            .and_then(|bytes| parse(&bytes).map_err(|what| Error::damaged(path.clone(), what)));
        match read {
            Ok(Section {
                root,
                runroot,
                storage_driver,
            }) => {
                let said = |text: &String| !text.is_empty();
                crio.root = root.filter(said).map(|root| (root, path)).or(crio.root);
                crio.run_root = runroot.filter(said).or(crio.run_root);
                crio.driver = storage_driver.filter(said).or(crio.driver);
            }
            Err(error) if error.is_not_found() => {}
            Err(error) => problems.note(error),
        }
    }
    crio
}

fn parse(bytes: &[u8]) -> Result<Section, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "is not text".to_owned())?;
    let file: File = toml::from_str(text)
        .map_err(|error| format!("is not what CRI-O reads: {}", error.message()))?;
    Ok(file.crio)
}
