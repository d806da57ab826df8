//! Where containers-storage keeps its stores: `storage.conf`.
//!
//! ```text
//! [storage]                  driver, graphroot, runroot, imagestore, rootless_storage_path
//! [storage.options]          additionalimagestores
//! [storage.options.overlay]  mount_program
//! ```
//!
//! The first that is there counts, whole: `$CONTAINERS_STORAGE_CONF`, for a user
//! `~/.config/containers/storage.conf`, `/etc/containers/storage.conf`,
//! `/usr/share/containers/storage.conf`. What drop-ins say goes before it, key by key, the last by
//! name first. Of the machine's own files a user has the driver and the options, not the
//! directories.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::bytes::Bytes;
use crate::engine::problems::Problems;
use crate::error::{Error, Result};
use crate::host::Host;

/// What a `storage.conf` says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Storage {
    pub driver: Option<String>,
    pub graphroot: Option<String>,
    pub runroot: Option<String>,
    pub imagestore: Option<String>,
    pub rootless_storage_path: Option<String>,
    pub options: StorageOptions,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct StorageOptions {
    pub additionalimagestores: Vec<String>,
    pub mount_program: Option<String>,
    pub overlay: OverlayOptions,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct OverlayOptions {
    pub mount_program: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct File {
    storage: Storage,
}

impl Storage {
    /// Takes what a later file says.
    fn take(&mut self, later: Storage) {
        let take = |own: &mut Option<String>, later: Option<String>| {
            if later.is_some() {
                *own = later;
            }
        };
        take(&mut self.driver, later.driver);
        take(&mut self.graphroot, later.graphroot);
        take(&mut self.runroot, later.runroot);
        take(&mut self.imagestore, later.imagestore);
        take(&mut self.rootless_storage_path, later.rootless_storage_path);
        let (own, later) = (&mut self.options, later.options);
        take(&mut own.mount_program, later.mount_program);
        take(&mut own.overlay.mount_program, later.overlay.mount_program);
        if !later.additionalimagestores.is_empty() {
            own.additionalimagestores = later.additionalimagestores;
        }
    }

    /// Takes what the drop-ins in some directories say: of a name that is in several, those of the
    /// last count. What cannot be read is noted, and the others count.
    pub fn take_drop_ins(&mut self, host: &Host, directories: &[Bytes], problems: &Problems) {
        let mut files: BTreeMap<Vec<u8>, Bytes> = BTreeMap::new();
        for directory in directories {
            match host.list(directory) {
                Ok(names) => {
                    let names = names.into_iter().map(|(name, _)| name);
                    let names = names.filter(|name| name.ends_with(b".conf"));
                    files.extend(names.map(|name| (name.clone(), directory.join(&name))));
                }
                Err(error) if error.is_not_found() => {}
                Err(error) => problems.note(error),
            }
        }
        for path in files.into_values() {
            match read_first(host, &[path]) {
                Ok(storage) => self.take(storage),
                Err(error) => problems.note(error),
            }
        }
    }

    /// Whether a program makes the mounts.
    pub fn has_mount_program(&self) -> bool {
        let programs = [
            &self.options.overlay.mount_program,
            &self.options.mount_program,
        ];
        programs
            .into_iter()
            .flatten()
            .any(|program| !program.is_empty())
    }
}

/// Reads the first of the files that is there.
///
/// # Errors
/// One that is there and cannot be read.
pub(super) fn read_first(host: &Host, paths: &[Bytes]) -> Result<Storage> {
    for path in paths {
        match host.read(path) {
            Ok(bytes) => {
                return parse(&bytes).map_err(|what| Error::damaged(path.clone(), what));
            }
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Storage::default())
}

fn parse(bytes: &[u8]) -> Result<Storage, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "is not text".to_owned())?;
    let file: File = toml::from_str(text)
        .map_err(|error| format!("is not what containers-storage reads: {}", error.message()))?;
    Ok(file.storage)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_as_distributions_ship_it() {
        let storage = parse(
            b"[storage]\ndriver = \"overlay\"\nrunroot = \"/run/containers/storage\"\n\
              graphroot = \"/var/lib/containers/storage\"\n[storage.options]\nadditionalimagestores = [\n]\n\
              pull_options = {enable_partial_images = \"false\"}\n[storage.options.overlay]\n\
              mountopt = \"nodev\"\nmount_program = \"/usr/bin/fuse-overlayfs\"\n[storage.options.thinpool]\n",
        );
        let storage = storage.unwrap();
        assert_eq!(storage.driver.as_deref(), Some("overlay"));
        assert_eq!(
            storage.graphroot.as_deref(),
            Some("/var/lib/containers/storage")
        );
        assert!(storage.has_mount_program());
        assert!(parse(b"[storage").is_err());
        assert!(!parse(b"").unwrap().has_mount_program());
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _ = parse(&bytes);
        }
    }
}
