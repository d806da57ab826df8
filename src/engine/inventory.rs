//! What engines keep, in words that all of them share: containers, images, layers.

use std::cmp::Reverse;

use serde::{Deserialize, Serialize};

use super::platform::ForPlatform;

/// A container, as its engine's files have it.
#[derive(Debug, Clone)]
pub struct Container {
    pub id: String,
    /// Without docker's leading slash.
    pub name: String,
    /// What the person called the image.
    pub image: String,
    /// Hexadecimal, without `sha256:`.
    pub image_id: String,
    /// The digest of what it was made from, of an image for several platforms; none where the
    /// engine noted none.
    pub manifest: Option<String>,
    pub command: String,
    /// RFC 3339.
    pub created: String,
    pub state: ContainerState,
    /// The storage driver's name.
    pub driver: String,
    pub ports: String,
    /// The engine's own division of names; none where it has none.
    pub namespace: Option<String>,
    /// Kubernetes' name for it.
    pub pod: Option<Pod>,
}

/// What Kubernetes calls a container, or the pod that Podman has it in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Pod {
    pub name: String,
    /// Kubernetes' namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The container's name in the pod; none for the pod's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// How often one of this name was made before; none where nobody counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
}

impl Pod {
    /// One that is known by its name alone.
    pub fn named(name: String) -> Pod {
        Pod {
            name,
            namespace: None,
            container: None,
            attempt: None,
        }
    }

    /// What it is called in its namespace: `POD`, or `POD/CONTAINER`.
    pub fn own_name(&self) -> String {
        match &self.container {
            Some(container) => format!("{}/{container}", self.name),
            None => self.name.clone(),
        }
    }

    /// The same after the namespace's name; none where there is no namespace.
    pub fn whole_name(&self) -> Option<String> {
        let namespace = self.namespace.as_ref()?;
        Some(format!("{namespace}/{}", self.own_name()))
    }

    /// A name with the number of the one that is meant, of those that were made one after another.
    pub fn numbered(name: &str, attempt: u32) -> String {
        format!("{name} (attempt {attempt})")
    }

    /// Whether Kubernetes counts containers in it. Podman's pods are names that containers share.
    pub fn is_of_kubernetes(&self) -> bool {
        self.namespace.is_some() || self.container.is_some()
    }

    /// Whether a name that was typed is this one's: whole or not, numbered or not.
    pub fn is_called(&self, typed: &str) -> bool {
        let names = [Some(self.own_name()), self.whole_name()];
        let is_it = |name: String| {
            let numbered = self.attempt.map(|attempt| Pod::numbered(&name, attempt));
            typed == name || numbered.is_some_and(|numbered| typed == numbered)
        };
        self.is_of_kubernetes() && names.into_iter().flatten().any(is_it)
    }
}

/// A container's state, in docker's own form.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ContainerState {
    #[serde(deserialize_with = "null_default")]
    pub running: bool,
    /// Of the first process; 0, or none, where there is none.
    pub pid: Option<u32>,
    #[serde(deserialize_with = "null_default")]
    pub paused: bool,
    #[serde(deserialize_with = "null_default")]
    pub restarting: bool,
    #[serde(deserialize_with = "null_default")]
    pub removal_in_progress: bool,
    #[serde(deserialize_with = "null_default")]
    pub dead: bool,
    /// None where nobody knows it.
    pub exit_code: Option<i64>,
    pub started_at: Option<String>,
    /// It was started, be it unknown when.
    #[serde(skip)]
    pub was_started: bool,
    pub finished_at: Option<String>,
    pub health: Option<Health>,
    /// Only a process could tell whether it runs, and a copied host has none.
    #[serde(skip)]
    pub is_unknown: bool,
}

/// What came of a container's own checks.
#[derive(Debug, Clone, Deserialize)]
pub struct Health {
    #[serde(rename = "Status", default)]
    pub status: String,
}

impl ContainerState {
    /// `starting`, `healthy` or `unhealthy`, of one that runs; none where nothing is checked.
    pub fn health(&self) -> Option<&'static str> {
        let health = self.health.as_ref();
        let health = health.filter(|_| matches!(self.word(), "running" | "paused"))?;
        match &*health.status {
            "starting" => Some("starting"),
            "healthy" => Some("healthy"),
            "unhealthy" => Some("unhealthy"),
            _ => None,
        }
    }

    /// Docker's word for it.
    pub fn word(&self) -> &'static str {
        if self.is_unknown {
            return "unknown";
        }
        if self.running {
            return match (self.paused, self.restarting) {
                (true, _) => "paused",
                (_, true) => "restarting",
                _ => "running",
            };
        }
        if self.removal_in_progress {
            "removing"
        } else if self.dead {
            "dead"
        } else if !self.was_started && is_zero_time(self.started_at.as_deref()) {
            "created"
        } else {
            "exited"
        }
    }
}

/// An image with its layers.
#[derive(Debug, Clone)]
pub struct Image {
    /// Hexadecimal, without `sha256:`.
    pub id: String,
    pub names: Names,
    /// RFC 3339.
    pub created: String,
    /// The storage driver's name.
    pub driver: String,
    /// Bytes: the sum of the layers'.
    pub size: u64,
    /// The image it was built from, where the engine noted one.
    pub parent: Option<String>,
    /// Newest first.
    pub history: Vec<HistoryEntry>,
    /// The engine's own division of names; none where it has none.
    pub namespace: Option<String>,
    /// Why it cannot be used: a record or content in the middle is missing.
    pub problem: Option<String>,
    /// Which of its platforms it is shown for, where that was asked.
    pub platform: Option<ForPlatform>,
}

impl Image {
    /// One of which there is only a name: why it cannot be used is told with it.
    pub fn unread(id: &str, driver: &str, names: Names, problem: String) -> Image {
        Image {
            id: id.to_owned(),
            names,
            created: String::new(),
            driver: driver.to_owned(),
            size: 0,
            parent: None,
            history: Vec::new(),
            namespace: None,
            problem: Some(problem),
            platform: None,
        }
    }

    /// The lowest layer that no record has; none where all are there.
    pub fn lost_layer(&self) -> Option<&ImageLayer> {
        let layers = self.history.iter();
        let layers = layers.filter_map(|entry| entry.layer.as_ref());
        let mut lost = layers.filter(|layer| layer.cache_id.is_none());
        lost.next_back()
    }

    /// The layers by the names of their directories, newest first, and what made each.
    pub fn steps(self) -> Vec<(String, String)> {
        steps(self.history)
    }
}

/// The same of a history that is all that is known of the image.
pub fn steps(history: Vec<HistoryEntry>) -> Vec<(String, String)> {
    let entries = history.into_iter();
    entries
        .filter_map(|entry| Some((entry.layer?.cache_id?, entry.instruction)))
        .collect()
}

/// What an image is called: nothing, if it is dangling.
#[derive(Debug, Clone, Default)]
pub struct Names {
    /// `name:tag`, sorted.
    pub tags: Vec<String>,
    /// `name@sha256:...`, sorted.
    pub digests: Vec<String>,
}

impl Names {
    /// The tags of an image and the names that hold a digest: those that were given, and each
    /// tag's repository with every digest that is the image's own.
    pub fn new<'d>(
        tags: Vec<String>,
        given: Vec<String>,
        own: impl IntoIterator<Item = &'d str>,
    ) -> Names {
        let mut names = Names {
            tags,
            digests: given,
        };
        for digest in own {
            let tags = names.tags.iter();
            let of_tags = tags.map(|tag| format!("{}@{digest}", repository(tag)));
            names.digests.extend(of_tags);
        }
        names.tags.sort();
        names.digests.sort();
        names.digests.dedup();
        names
    }
}

/// A step of an image's history, with the layer it made.
#[derive(Debug, Clone)]
pub struct HistoryEntry {
    /// RFC 3339.
    pub created: String,
    pub instruction: String,
    pub comment: String,
    /// The image that ended with this step, where the engine still has it.
    pub image: Option<String>,
    /// None: a step that made no layer.
    pub layer: Option<ImageLayer>,
}

/// A layer of an image.
#[derive(Debug, Clone)]
pub struct ImageLayer {
    pub diff_id: Option<String>,
    pub chain_id: Option<String>,
    /// The name of its directory; none where the layer database lacks it.
    pub cache_id: Option<String>,
    /// Bytes.
    pub size: Option<u64>,
}

/// A layer that an engine has a directory of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerName {
    /// The storage driver's name.
    pub driver: String,
    /// The name of the directory.
    pub id: String,
    /// What else it is called: hexadecimal chain id and diff id.
    pub aliases: Vec<String>,
}

/// How the name of the layer ends that an engine puts between a container and its image.
pub const INIT: &str = "-init";

/// Go writes a time that never was as the first second of year 1.
pub fn is_zero_time(time: Option<&str>) -> bool {
    time.is_none_or(|time| time.is_empty() || time.starts_with("0001-01-01"))
}

/// As `docker ps` shows it: arguments with blanks in single quotes.
pub fn command_line(path: &str, args: Vec<String>) -> String {
    let quoted = args.into_iter().map(|arg| {
        if arg.contains(' ') {
            format!("'{arg}'")
        } else {
            arg
        }
    });
    std::iter::once(path.to_owned())
        .chain(quoted)
        .collect::<Vec<_>>()
        .join(" ")
}

/// Docker's twelve digits.
pub fn short(id: &str) -> &str {
    let hex = id.strip_prefix("sha256:").unwrap_or(id);
    hex.get(..12).unwrap_or(hex)
}

/// How many digits the ids of Docker's containers and layers have.
pub const DOCKERS_ID: usize = 64;
/// How many letters and digits those of its builder's layers have.
pub const BUILDERS_ID: usize = 25;

/// Whether a text may become a path component: letters, digits, `-`, `_`, `.`, not led by a dot.
pub fn is_id(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 128
        && !text.starts_with('.')
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

/// Whether it is an id as engines make them: a SHA-256, in hexadecimal.
pub fn is_hex_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Sorts as engines list: newest first, and by id what is of one time. `of` tells when a thing was
/// made, in RFC 3339, and its id; what is no time is older than all others.
pub fn sort_newest_first<T>(things: &mut [T], of: impl Fn(&T) -> (&str, &str)) {
    things.sort_by_cached_key(|thing| {
        let (created, id) = of(thing);
        let created: Option<jiff::Timestamp> = created.parse().ok();
        (Reverse(created), id.to_owned())
    });
}

/// `localhost/app` of `localhost/app:1`, but `host:5000/app` of itself.
fn repository(name: &str) -> &str {
    match name.rfind(':') {
        Some(at) if !name[at..].contains('/') => &name[..at],
        _ => name,
    }
}

/// `docker.io/library/busybox:1` is `busybox:1` to people.
pub fn familiar(name: &str) -> &str {
    let name = name.strip_prefix("docker.io/").unwrap_or(name);
    name.strip_prefix("library/").unwrap_or(name)
}

/// Go writes `null` for what has its zero value.
pub fn null_default<'de, D, T>(deserializer: D) -> std::result::Result<T, D::Error>
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
    fn command_lines_are_quoted_as_docker_quotes_them() {
        assert_eq!(
            command_line("/bin/sh", vec!["-c".into(), "sleep 1".into()]),
            "/bin/sh -c 'sleep 1'"
        );
    }

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
