//! What the Open Container Initiative has given one form for all engines: an image's
//! configuration, and a runtime's.
//!
//! ```text
//! {"created": "...", "rootfs": {"diff_ids": ["sha256:...", ...]},
//!  "history": [{"created": "...", "created_by": "...", "empty_layer": true}, ...]}
//! {"process": {"args": ["/bin/sh", ...]}, "annotations": {"key": "value", ...}}
//! ```

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::cover::{Cover, CoverKind};
use super::inventory::{HistoryEntry, ImageLayer, null_default};
use super::stored::Settings;
use crate::bytes::Bytes;

/// No image has nearly as many layers; a longer chain of parents is a loop.
pub const CHAIN_MAX: usize = 1000;

#[derive(Debug, Deserialize)]
pub struct ImageConfig {
    /// RFC 3339.
    pub created: Option<String>,
    history: Option<Vec<Step>>,
    #[serde(default, deserialize_with = "null_default")]
    rootfs: RootFs,
}

#[derive(Debug, Deserialize, Default)]
struct RootFs {
    diff_ids: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
struct Step {
    created: Option<String>,
    created_by: Option<String>,
    comment: Option<String>,
    #[serde(default, deserialize_with = "null_default")]
    empty_layer: bool,
}

/// A runtime's configuration of one container.
#[derive(Debug, Deserialize, Default)]
#[serde(default)]
pub struct RuntimeConfig {
    #[serde(deserialize_with = "null_default")]
    process: RuntimeProcess,
    #[serde(deserialize_with = "null_default")]
    root: RuntimeRoot,
    #[serde(deserialize_with = "null_default")]
    pub annotations: HashMap<String, String>,
    #[serde(deserialize_with = "null_default")]
    mounts: Vec<RuntimeMount>,
}

/// What a runtime mounts in a container.
#[derive(Debug, Deserialize, Default)]
#[serde(default)]
struct RuntimeMount {
    #[serde(deserialize_with = "null_default")]
    destination: String,
    #[serde(rename = "type", deserialize_with = "null_default")]
    fs_type: String,
    #[serde(deserialize_with = "null_default")]
    source: String,
    #[serde(deserialize_with = "null_default")]
    options: Vec<String>,
}

#[derive(Debug, Deserialize, Default)]
#[serde(default)]
struct RuntimeProcess {
    #[serde(deserialize_with = "null_default")]
    args: Vec<String>,
    #[serde(deserialize_with = "null_default")]
    env: Vec<String>,
    #[serde(deserialize_with = "null_default")]
    cwd: String,
    #[serde(deserialize_with = "null_default")]
    user: RuntimeUser,
}

#[derive(Debug, Deserialize, Default)]
#[serde(default)]
struct RuntimeUser {
    #[serde(deserialize_with = "null_default")]
    uid: u32,
    #[serde(deserialize_with = "null_default")]
    gid: u32,
}

#[derive(Debug, Deserialize, Default)]
#[serde(default)]
struct RuntimeRoot {
    #[serde(deserialize_with = "null_default")]
    path: String,
}

impl RuntimeMount {
    /// What an option says; empty where there is none.
    fn option(&self, name: &str) -> &str {
        let mut options = self.options.iter();
        let found = options.find_map(|option| option.strip_prefix(name));
        found.unwrap_or_default()
    }
}

impl RuntimeConfig {
    /// The directory that the process has as its root; none where nothing says so.
    pub fn root(self) -> Option<String> {
        Some(self.root.path).filter(|path| !path.is_empty())
    }

    /// What lies over the container's layers.
    pub fn covers(&self) -> Vec<Cover> {
        let mounts = self.mounts.iter();
        let own = mounts.filter(|mount| !mount.destination.is_empty());
        own.map(|mount| {
            let destination = mount.destination.as_str();
            if mount.fs_type == "overlay" {
                let (lower, upper) = (mount.option("lowerdir="), mount.option("upperdir="));
                let cover = Cover::new(CoverKind::Overlay, destination).at(lower);
                return cover.below_overlay(upper);
            }
            Cover::of_mount(mount.fs_type.as_bytes(), destination, &mount.source)
        })
        .collect()
    }

    /// What is mounted last at a path of the container, as the path that it comes from.
    pub fn source_at(&self, path: &Bytes) -> Option<Bytes> {
        let mut mounts = self.mounts.iter();
        let is_it = |mount: &&RuntimeMount| mount.destination.as_bytes() == path.as_bytes();
        let mount = mounts.rfind(is_it)?;
        Some(Bytes::from(mount.source.as_str()))
    }

    /// What the container runs as, in the words of an image's configuration.
    pub fn settings(&self) -> Settings {
        let process = &self.process;
        let user = match (process.user.uid, process.user.gid) {
            (0, 0) => String::new(),
            (uid, gid) => format!("{uid}:{gid}"),
        };
        let settings = [
            ("Cmd", json!(process.args)),
            ("Entrypoint", Value::Null),
            ("Env", json!(process.env)),
            ("User", json!(user)),
            ("WorkingDir", json!(process.cwd)),
        ];
        let named = settings.map(|(key, value)| (key.to_owned(), value));
        named.into_iter().collect()
    }

    /// The command line of the container's first process.
    pub fn args(self) -> Vec<String> {
        self.process.args
    }
}

/// No image's configuration is nearly as large, in bytes.
const CONFIG_MAX: usize = 4 << 20;

impl ImageConfig {
    /// # Errors
    /// Says what is wrong with it.
    pub fn parse(bytes: &[u8]) -> Result<ImageConfig, String> {
        if bytes.len() > CONFIG_MAX {
            return Err("is larger than 4 MiB, which no image's configuration is".into());
        }
        if bytes.trim_ascii_start().starts_with(b"[") {
            return Err("is a list, not an object".into());
        }
        serde_json::from_slice(bytes)
            .map_err(|error| format!("is no image's configuration: {error}"))
    }

    /// The layers' contents by their digests, bottom first.
    ///
    /// # Errors
    /// Says that there are more than an image can have.
    pub fn diff_ids(&self) -> Result<&[String], &'static str> {
        let ids = self.rootfs.diff_ids.as_deref().unwrap_or_default();
        if ids.len() > CHAIN_MAX {
            Err("has more layers than an image can have")
        } else {
            Ok(ids)
        }
    }

    /// The steps, newest first, each with the layer that it made. `layers` are bottom first.
    pub fn history(&self, layers: Vec<ImageLayer>) -> Vec<HistoryEntry> {
        let mut left = layers.into_iter();
        let mut history = Vec::new();
        for step in self.history.iter().flatten() {
            let layer = if step.empty_layer { None } else { left.next() };
            history.push(HistoryEntry {
                created: step.created.clone().unwrap_or_default(),
                instruction: step.created_by.clone().unwrap_or_default(),
                comment: step.comment.clone().unwrap_or_default(),
                image: None,
                layer,
            });
        }
        // Layers that the history does not account for.
        history.extend(left.map(|layer| HistoryEntry {
            created: self.created.clone().unwrap_or_default(),
            instruction: String::new(),
            comment: String::new(),
            image: None,
            layer: Some(layer),
        }));
        history.reverse();
        history
    }
}

/// The chain ids of layers, bottom first: each is the digest of the chain id below and its own
/// diff id.
pub fn chain_ids(diff_ids: &[String]) -> Vec<String> {
    let mut chain: Vec<String> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        let id = match chain.last() {
            None => diff_id.clone(),
            Some(parent) => format!("sha256:{}", digest(&format!("{parent} {diff_id}"))),
        };
        chain.push(id);
    }
    chain
}

/// This machine's architecture, as images name it.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// The SHA-256 of a text, in hexadecimal.
pub fn digest(text: &str) -> String {
    digest_of(text.as_bytes())
}

/// The SHA-256 of bytes, in hexadecimal.
pub fn digest_of(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chain_ids_are_digests_of_two_names() {
        // docs/facts.md#engines-10
        let ids = ["sha256:a".to_owned(), "sha256:b".to_owned()];
        // printf 'sha256:a sha256:b' | sha256sum
        let second = "sha256:970a948bffa8de94d6e22d747ba8c95030e6e546909f98f54e99a13005e173a8";
        assert_eq!(chain_ids(&ids), ["sha256:a", second]);
    }
}
