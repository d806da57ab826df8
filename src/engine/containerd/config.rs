//! What `config.toml` says: where containerd keeps its data.

use serde::Deserialize;

use crate::bytes::Bytes;
use crate::engine::problems::Problems;
use crate::error::Error;
use crate::host::Host;

#[derive(Debug, Deserialize, Default)]
#[serde(default)]
pub(super) struct Configuration {
    pub root: Option<String>,
    /// The directory that does not outlive the machine's running.
    pub state: Option<String>,
}

/// Reads the configuration; one that is not there says nothing.
pub(super) fn read(host: &Host, path: &Bytes, problems: &Problems) -> Configuration {
    let read = host.read(path).and_then(|bytes| {
        let parsed = parse(&bytes);
        parsed.map_err(|what| Error::damaged(path.clone(), what))
    });
    read.unwrap_or_else(|error| {
        if !error.is_not_found() {
            problems.note(error);
        }
        Configuration::default()
    })
}

/// # Errors
/// Says what is wrong with it.
fn parse(bytes: &[u8]) -> Result<Configuration, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "is not text".to_owned())?;
    toml::from_str(text)
        .map_err(|error| format!("is not what containerd reads: {}", error.message()))
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
