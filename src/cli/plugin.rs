//! layerctl as a plugin of other command lines: of docker's, where it is called `docker-layers` and asked by
//! `docker layers`; of kubectl's as `kubectl-layers` (see `kubectl`).
//!
//! docker runs each program `docker-*` in its plugins' directories with `docker-cli-plugin-metadata`
//! and lists those that answer. `docker OPTIONS layers WORDS` then runs the program with all words behind
//! `docker`. docker's options say which daemon is meant; none is asked here, and they are passed over.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use serde_json::json;

/// What kubectl calls it.
const KUBECTL_PROGRAM: &str = "kubectl-layers";
/// What the program has to be called.
const PROGRAM: &str = "docker-layers";
/// The command of docker's that it is.
const COMMAND: &str = "layers";
/// What docker asks with.
const METADATA: &str = "docker-cli-plugin-metadata";

/// What is meant by words.
pub enum Asked {
    /// What docker is told of a plugin: one JSON document.
    Metadata(String),
    /// What layerctl is asked.
    Words(Vec<OsString>),
    /// What is asked about a pod.
    Kubectl(Vec<OsString>),
}

/// Takes the words that are docker's away, if docker asks.
pub fn asked(words: Vec<OsString>) -> Asked {
    let name = words
        .first()
        .and_then(|program| Path::new(program).file_name());
    if name.is_some_and(|name| name.as_bytes() == KUBECTL_PROGRAM.as_bytes()) {
        return Asked::Kubectl(words);
    }
    if name.is_none_or(|name| name.as_bytes() != PROGRAM.as_bytes()) {
        return Asked::Words(words);
    }
    if words.get(1).is_some_and(|word| word == METADATA) {
        let metadata = json!({
            "SchemaVersion": "0.1.0",
            "Vendor": "layerctl",
            "Version": env!("CARGO_PKG_VERSION"),
            "ShortDescription": "Look into the layers of containers and images, without the daemon",
        });
        return Asked::Metadata(metadata.to_string());
    }
    let at = words.iter().position(|word| word == COMMAND);
    let own = at.map_or(1, |at| at + 1);
    let mut rest = words;
    rest.drain(1..own.min(rest.len()));
    Asked::Words(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words_of(words: &[&str]) -> Vec<OsString> {
        match asked(words.iter().map(OsString::from).collect()) {
            Asked::Words(words) => words,
            Asked::Metadata(metadata) => vec![metadata.into()],
            Asked::Kubectl(words) => words,
        }
    }

    #[test]
    fn docker_s_words_are_passed_over() {
        let plugin = "/usr/libexec/docker/cli-plugins/docker-layers";
        for (words, left) in [
            (
                &[plugin, "layers", "ls", "layers"][..],
                &[plugin, "ls", "layers"][..],
            ),
            (&[plugin, "--context", "x", "layers", "du"], &[plugin, "du"]),
            (&[plugin, "layers"], &[plugin]),
            (&[plugin, "containers"], &[plugin, "containers"]),
            (&[plugin], &[plugin]),
            (
                &["layerctl", "layers", "web"],
                &["layerctl", "layers", "web"],
            ),
            (&["layerctl", METADATA], &["layerctl", METADATA]),
            (&[], &[]),
        ] {
            assert_eq!(words_of(words), left, "{words:?}");
        }
        let metadata = words_of(&[plugin, METADATA]).remove(0);
        assert!(
            metadata
                .to_str()
                .unwrap()
                .contains("\"SchemaVersion\":\"0.1.0\"")
        );
    }
}
