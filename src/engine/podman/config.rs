//! Where containers-storage keeps its stores: `storage.conf`.
//!
//! ```text
//! [storage]                  driver, graphroot, runroot, imagestore, rootless_storage_path
//! [storage.options]          additionalimagestores, mountopt
//! [storage.options.overlay]  mount_program, mountopt
//! ```
//!
//! What a later file says goes before what an earlier one says, key by key:
//!
//! ```text
//! /usr/share/containers/storage.conf, /etc/containers/storage.conf
//! storage.conf.d and storage.rootful.conf.d, or storage.rootless.conf.d[/UID], beside either: the last by name first
//! ~/.config/containers/storage.conf, ~/.config/containers/storage.conf.d       of root, too
//! ```
//!
//! `$CONTAINERS_STORAGE_CONF` takes the place of all of them, and what
//! `$CONTAINERS_STORAGE_CONF_OVERRIDE` says goes before all. Of the machine's own files a user has
//! the driver and the options, not the directories; of those for users alone, all.
//! docs/facts.md#engines-2026-b7

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::bytes::Bytes;
use crate::engine::problems::Problems;
use crate::error::Error;
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
    /// The file that names the graph root.
    #[serde(skip)]
    pub graphroot_file: Option<Bytes>,
    /// The file that names the one of users.
    #[serde(skip)]
    pub rootless_file: Option<Bytes>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct StorageOptions {
    pub additionalimagestores: Vec<String>,
    pub mount_program: Option<String>,
    pub mountopt: Option<String>,
    pub overlay: OverlayOptions,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct OverlayOptions {
    pub mount_program: Option<String>,
    pub mountopt: Option<String>,
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
        take(&mut own.mountopt, later.mountopt);
        take(&mut own.overlay.mountopt, later.overlay.mountopt);
        if !later.additionalimagestores.is_empty() {
            own.additionalimagestores = later.additionalimagestores;
        }
    }

    /// Takes what the drop-ins in some directories say.
    pub fn take_drop_ins(&mut self, host: &Host, directories: &[Bytes], problems: &Problems) {
        for path in drop_ins(host, directories, problems) {
            self.take_file(host, &path, problems);
        }
    }

    /// Takes what a file says, where there is one. What cannot be read is noted.
    pub fn take_file(&mut self, host: &Host, path: &Bytes, problems: &Problems) {
        let read = host
            .read(path)
            .and_then(|bytes| parse(&bytes).map_err(|what| Error::damaged(path.clone(), what)));
        match read {
            Ok(storage) => {
                let file = |said: &Option<String>| said.is_some().then(|| path.clone());
                let (own, rootless) = (
                    file(&storage.graphroot),
                    file(&storage.rootless_storage_path),
                );
                self.graphroot_file = own.or(self.graphroot_file.take());
                self.rootless_file = rootless.or(self.rootless_file.take());
                self.take(storage);
            }
            Err(error) if error.is_not_found() => {}
            Err(error) => problems.note(error),
        }
    }

    /// The options with which overlays are mounted.
    pub fn mount_options(&self) -> &str {
        let options = [&self.options.overlay.mountopt, &self.options.mountopt];
        let mut options = options.into_iter().flatten();
        options.next().map_or("", String::as_str)
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

/// The drop-ins in some directories, by name: of one name the last directory's counts. A directory
/// that cannot be listed is noted, and the others count.
pub(super) fn drop_ins(host: &Host, directories: &[Bytes], problems: &Problems) -> Vec<Bytes> {
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
    files.into_values().collect()
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
