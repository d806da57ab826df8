//! What `config.toml` and what it imports say: where containerd and its snapshotters keep their
//! data, and how these mount it.
//!
//! ```text
//! root, state                                                   of versions 1, 2 and 3
//! imports = ["conf.d/*.toml"]                                   what is read later wins, key by key
//! [plugins."io.containerd.snapshotter.v1.<snapshotter>"]        root_path, mount_options
//! [proxy_plugins.<snapshotter>.exports]                         root
//! ```

use std::collections::BTreeMap;

use serde::Deserialize;

use super::snapshotter::SNAPSHOTTER;
use crate::bytes::Bytes;
use crate::engine::problems::Problems;
use crate::error::{Error, Result};
use crate::host::Host;

/// Files that import one another are read no deeper.
const IMPORTS_MAX: usize = 8;

#[derive(Debug, Default)]
pub(super) struct Configuration {
    pub root: Option<String>,
    /// The file that says so, which may be one that is imported.
    pub root_file: Option<Bytes>,
    /// The directory that does not outlive the machine's running.
    pub state: Option<String>,
    pub snapshotters: BTreeMap<String, SnapshotterSettings>,
}

/// What is said of one snapshotter.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct SnapshotterSettings {
    /// Its own directory, where that is not in containerd's root.
    pub root: Option<Bytes>,
    /// What it mounts with, too.
    pub mount_options: Vec<String>,
}

#[derive(Debug, Deserialize, Default)]
#[serde(default)]
struct File {
    root: Option<String>,
    state: Option<String>,
    imports: Vec<String>,
    plugins: BTreeMap<String, toml::Value>,
    proxy_plugins: BTreeMap<String, Proxy>,
}

#[derive(Debug, Deserialize, Default)]
#[serde(default)]
struct Plugin {
    root_path: Option<String>,
    mount_options: Option<Vec<String>>,
}

/// A snapshotter that is a process of its own.
#[derive(Debug, Deserialize, Default)]
#[serde(default)]
struct Proxy {
    exports: BTreeMap<String, String>,
}

/// Reads the configuration; one that is not there says nothing.
pub(super) fn read(host: &Host, path: &Bytes, problems: &Problems) -> Configuration {
    let mut read = Configuration::default();
    if let Err(error) = take(host, path, &mut read, problems, 0)
        && !error.is_not_found()
    {
        problems.note(error);
    }
    read
}

fn take(
    host: &Host,
    path: &Bytes,
    into: &mut Configuration,
    problems: &Problems,
    depth: usize,
) -> Result<()> {
    let bytes = host.read(path)?;
    let file = parse(&bytes).map_err(|what| Error::damaged(path.clone(), what))?;
    let imports = file.imports.clone();
    if file.root.is_some() {
        into.root_file = Some(path.clone());
    }
    into.take(file)
        .map_err(|what| Error::damaged(path.clone(), what))?;
    for import in imports {
        if depth == IMPORTS_MAX {
            let what = "imports files that import one another without an end";
            return Err(Error::damaged(path.clone(), what));
        }
        let import = Bytes::from(import.as_str());
        let pattern = if import.as_bytes().starts_with(b"/") {
            import
        } else {
            path.parent().join_path(&import)
        };
        let found = matching(host, &pattern).unwrap_or_else(|error| {
            problems.note(error);
            Vec::new()
        });
        for file in found.iter().filter(|file| *file != path) {
            take(host, file, into, problems, depth + 1)
                .unwrap_or_else(|error| problems.note(error));
        }
    }
    Ok(())
}

/// The files that a pattern stands for, in order. Only names of files have a pattern.
fn matching(host: &Host, pattern: &Bytes) -> Result<Vec<Bytes>> {
    let name = String::from_utf8_lossy(pattern.file_name()).into_owned();
    if !name.contains(['*', '?', '[']) {
        return Ok(vec![pattern.clone()]);
    }
    let parsed = glob::Pattern::new(&name).map_err(|error| {
        Error::damaged(pattern.clone(), format!("is no pattern: {}", error.msg))
    })?;
    let directory = pattern.parent();
    let names = match host.list(&directory) {
        Err(error) if error.is_not_found() => Vec::new(),
        names => names?,
    };
    let names = names.into_iter().map(|(name, _)| name);
    let fits = |name: &Vec<u8>| parsed.matches(&String::from_utf8_lossy(name));
    let mut found: Vec<Bytes> = names
        .filter(fits)
        .map(|name| directory.join(&name))
        .collect();
    found.sort();
    Ok(found)
}

impl Configuration {
    /// What is said later wins.
    fn take(&mut self, file: File) -> Result<(), String> {
        self.root = file.root.or(self.root.take());
        self.state = file.state.or(self.state.take());
        let absolute =
            |path: String| Some(Bytes::from(path.as_str())).filter(|_| path.starts_with('/'));
        for (id, section) in file.plugins {
            let Some(snapshotter) = id.strip_prefix(SNAPSHOTTER) else {
                continue;
            };
            let plugin: Plugin = section.try_into().map_err(|error: toml::de::Error| {
                format!("[plugins.{id:?}] {}", error.message())
            })?;
            let settings = self.snapshotters.entry(snapshotter.to_owned()).or_default();
            let root = plugin.root_path.and_then(absolute);
            settings.root = root.or(settings.root.take());
            if let Some(options) = plugin.mount_options {
                settings.mount_options = options;
            }
        }
        for (name, proxy) in file.proxy_plugins {
            let root = proxy.exports.get("root").cloned().and_then(absolute);
            if root.is_some() {
                self.snapshotters.entry(name).or_default().root = root;
            }
        }
        Ok(())
    }
}

/// # Errors
/// Says what is wrong with it.
fn parse(bytes: &[u8]) -> Result<File, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "is not text".to_owned())?;
    toml::from_str(text)
        .map_err(|error| format!("is not what containerd reads: {}", error.message()))
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // a test makes the disk that is read
mod tests {
    use super::*;

    const PATH: &str = "/etc/containerd/config.toml";

    #[test]
    fn configurations_of_both_versions() {
        for text in [
            "version = 2\nroot = \"/data/containerd\"\nstate = \"/run/c\"\n[plugins]\n[plugins.\"io.containerd.grpc.v1.cri\"]\n",
            "version = 3\nroot = '/data/containerd'\nstate = '/run/c'\n",
        ] {
            let configuration = parse(text.as_bytes()).unwrap();
            assert_eq!(configuration.root.as_deref(), Some("/data/containerd"));
            assert_eq!(configuration.state.as_deref(), Some("/run/c"));
        }
        assert!(parse(b"[").is_err());
    }

    #[test]
    fn what_is_imported_wins_key_by_key() {
        let directory = tempfile::tempdir().unwrap();
        let etc = directory.path().join("etc/containerd");
        std::fs::create_dir_all(etc.join("conf.d")).unwrap();
        let write = |name: &str, text: &str| std::fs::write(etc.join(name), text).unwrap();
        write(
            "config.toml",
            "version = 3\nroot = '/a'\nstate = '/s'\nimports = ['conf.d/*.toml', '/etc/containerd/config.toml']\n\
             [plugins.'io.containerd.snapshotter.v1.overlayfs']\nroot_path = '/o'\nmount_options = ['volatile']\n\
             [proxy_plugins.stargz]\ntype = 'snapshot'\n[proxy_plugins.stargz.exports]\nroot = '/st'\n",
        );
        write("conf.d/1.toml", "root = '/b'\n");
        write(
            "conf.d/2.toml",
            "root = '/c'\n[plugins.'io.containerd.snapshotter.v1.overlayfs']\nmount_options = ['metacopy=on']\n",
        );
        write("conf.d/not.conf", "root = '/d'\n");
        let host = Host::open(directory.path()).unwrap();
        let problems = Problems::default();
        let read = read(&host, &Bytes::from(PATH), &problems);
        assert!(problems.take().is_empty());
        assert_eq!(read.root.as_deref(), Some("/c"));
        let file = Bytes::from("/etc/containerd/conf.d/2.toml");
        assert_eq!(read.root_file, Some(file));
        assert_eq!(read.state.as_deref(), Some("/s"));
        let overlayfs = SnapshotterSettings {
            root: Some(Bytes::from("/o")),
            mount_options: vec!["metacopy=on".into()],
        };
        assert_eq!(read.snapshotters["overlayfs"], overlayfs);
        assert_eq!(read.snapshotters["stargz"].root, Some(Bytes::from("/st")));
        write("conf.d/3.toml", "[");
        let _ = super::read(&host, &Bytes::from(PATH), &problems);
        assert_eq!(problems.take().len(), 1);
    }
}
