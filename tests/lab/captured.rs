//! Captured hosts with what their engines said on them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use serde_json::Value;

use super::archive;
use super::host::Host;
use crate::docker_drivers::{Change, View, beside_mounts, change_of_row, entry_of_row};

pub struct Captured {
    pub name: String,
    pub host: Host,
    /// What was said, by the names of files.
    pub truth: BTreeMap<String, Vec<u8>>,
}

impl Captured {
    pub fn new(name: &str) -> Captured {
        Captured::on(name, Host::captured(name))
    }

    /// On a host that is there already.
    pub fn on(name: &str, host: Host) -> Captured {
        Captured {
            name: name.to_owned(),
            host,
            truth: archive::texts(&format!("{name}.truth")),
        }
    }

    #[track_caller]
    pub fn said(&self, file: &str) -> &str {
        let said = self.truth.get(file);
        let said = said.unwrap_or_else(|| panic!("{} lacks {file}", self.name));
        std::str::from_utf8(said).expect("engines print UTF-8")
    }

    /// A file with a JSON document on each line.
    #[track_caller]
    pub fn jsonl(&self, file: &str) -> Vec<Value> {
        let lines = self.said(file).lines();
        lines
            .map(|line| serde_json::from_str(line).expect("a JSON document"))
            .collect()
    }

    #[track_caller]
    pub fn json(&self, file: &str) -> Value {
        serde_json::from_str(self.said(file)).expect("a JSON document")
    }

    /// What `docker inspect` and `podman inspect` say of a thing.
    #[track_caller]
    pub fn inspected(&self, what: &str) -> Value {
        self.json(&format!("inspect-{what}.json"))[0].take()
    }

    /// What is between `before` and `after` in the names of the truth's files.
    pub fn named(&self, before: &str, after: &str) -> Vec<&str> {
        let names = self
            .truth
            .keys()
            .filter_map(|file| file.strip_prefix(before)?.strip_suffix(after));
        names.collect()
    }

    /// Names of images by id, as `docker images --digests --no-trunc` and podman's list them.
    pub fn listed_images(&self) -> BTreeMap<String, BTreeSet<String>> {
        let mut said = BTreeMap::<String, BTreeSet<String>>::new();
        for line in self.said("images.txt").lines().skip(1) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [repository, tag, _digest, id, ..] = words[..] else {
                panic!("{line}");
            };
            let id = id.strip_prefix("sha256:").expect("a whole id");
            let names = said.entry(id.into()).or_default();
            if repository != "<none>" {
                names.insert(format!("{repository}:{tag}"));
            }
        }
        said
    }

    /// Demands that what is asked are the changes that the engine said.
    #[track_caller]
    pub fn compare_changes(&self, ask: &[&str], said: &BTreeSet<Change>) {
        let rows = self.host.jsonl(ask).exits(0).rows();
        let ours: BTreeSet<Change> = rows.iter().map(change_of_row).collect();
        assert_eq!(ours.len(), rows.len(), "{} {ask:?}", self.name);
        let only = |these: &BTreeSet<Change>, those: &BTreeSet<Change>| {
            let only = these.difference(those);
            only.map(|(letter, path)| format!("{} {}", *letter as char, path.escape_ascii()))
                .collect::<Vec<_>>()
        };
        assert!(
            ours == *said,
            "{} {ask:?}\nonly ours: {:#?}\nonly the engine's: {:#?}",
            self.name,
            only(&ours, said),
            only(said, &ours)
        );
    }

    /// Demands that what is asked is what the engine shows, and nothing of `ghosts`. Inside of a
    /// container its mounts hide what is below them.
    #[track_caller]
    pub fn compare_view(
        &self,
        ask: &[&str],
        engine: View,
        ghosts: &BTreeSet<Vec<u8>>,
        is_inside: bool,
    ) {
        let rows = self.host.jsonl(ask).exits(0).rows();
        let ours: View = rows.iter().map(entry_of_row).collect();
        assert_eq!(ours.len(), rows.len(), "{} {ask:?}", self.name);
        for ghost in ghosts {
            assert!(!ours.contains_key(ghost), "{}", ghost.escape_ascii());
        }
        let (engine, ours) = if is_inside {
            (beside_mounts(engine), beside_mounts(ours))
        } else {
            (engine, ours)
        };
        let paths: BTreeSet<&Vec<u8>> = engine.keys().chain(ours.keys()).collect();
        let wrong: Vec<String> = paths
            .into_iter()
            .filter(|path| engine.get(*path) != ours.get(*path))
            .map(|path| differ(path, &engine.get(path), &ours.get(path)))
            .collect();
        assert!(
            wrong.is_empty(),
            "{} {ask:?}\n{}",
            self.name,
            wrong.join("\n")
        );
    }
}

fn differ(path: &[u8], engine: &impl Debug, ours: &impl Debug) -> String {
    let path = path.escape_ascii();
    format!("{path}\n  engine: {engine:?}\n  ours: {ours:?}")
}

/// Something that is dear to make, which tests that run at one time share.
pub struct Shared<T>(Mutex<Weak<T>>);

impl<T> Shared<T> {
    pub const fn new() -> Shared<T> {
        Shared(Mutex::new(Weak::new()))
    }

    pub fn get(&self, make: impl FnOnce() -> T) -> Arc<T> {
        let mut shared = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let made = Arc::new(make());
            *shared = Arc::downgrade(&made);
            made
        })
    }
}
