//! What containerd knows and nothing uses.

use std::collections::HashSet;

use jiff::Timestamp;

use super::record::{Lease, NamespaceRecords};
use super::snapshotter::is_whole_directory;
use super::store::{Containerd, DOCKERS_HISTORY, DOCKERS_NAMESPACE};
use crate::bytes::Bytes;
use crate::engine::usage::{BUILD_CACHE, LayerUse, Leftover, LeftoverKind, UseKind, command};
use crate::error::Result;

impl Containerd<'_> {
    /// Downloads that are not finished, and content that no image has.
    pub(super) fn find_unused(&self) -> Result<Vec<Leftover>> {
        let mut found = Vec::new();
        let ingests = self.content_store().join(b"ingest");
        for (name, _) in self.host.list(&ingests)? {
            let path = ingests.join(&name);
            let text = |file: &str| {
                let bytes = self
                    .host
                    .read(&path.join(file.as_bytes()))
                    .unwrap_or_default();
                String::from_utf8_lossy(&bytes).trim().to_owned()
            };
            let (reference, since) = (text("ref"), text("startedat"));
            let mut why = format!(
                "it is being downloaded since {since}, or was when the client ended: containerd collects it"
            );
            if let Some(lease) = self.lease_of_ingest(&reference) {
                why = format!("{why}; {lease}");
            }
            found.push(Leftover::unused(
                LeftoverKind::InProgress,
                reference,
                path,
                why,
                None,
            ));
        }
        for (namespace, records) in self.namespaces() {
            found.extend(self.unused_blobs(namespace, records));
        }
        Ok(found)
    }

    /// The lease that holds a download. The store calls that `namespace/number/reference`.
    fn lease_of_ingest(&self, name: &str) -> Option<String> {
        let mut parts = name.splitn(3, '/');
        let (namespace, _, reference) = (parts.next()?, parts.next()?, parts.next()?);
        let leases = self.meta().get(namespace)?.leases.iter();
        let mut holding = leases.filter(|lease| lease.ingests.contains(reference));
        holding.next().map(|lease| lease.words(self.time()))
    }

    fn unused_blobs<'c>(
        &'c self,
        namespace: &'c str,
        records: &'c NamespaceRecords,
    ) -> impl Iterator<Item = Leftover> + 'c {
        let of_images = records.images.iter().map(|image| image.digest.as_str());
        let used = records.reached(of_images.chain(records.kept.iter().map(String::as_str)));
        let leases = records.leases.iter().map(|lease| {
            let content = lease.content.iter().map(String::as_str);
            (lease, records.reached(content))
        });
        let leases: Vec<(&Lease, HashSet<&str>)> = leases.collect();
        let (rest, now) = (records.blobs.iter(), self.time());
        rest.filter(move |(digest, _)| !used.contains(digest.as_str()))
            .map(move |(digest, blob)| {
                let name = format!("{namespace}/{digest}");
                let path = self.blob_path(digest);
                let mut holding = leases.iter();
                let lease = holding.find(|(_, held)| held.contains(digest.as_str()));
                let (kind, why, command) = match lease {
                    Some((lease, _)) => match builders(namespace) {
                        Some((why, command)) if lease.expires.is_none() => {
                            let why = format!("{why}: {}", lease.words(now));
                            (LeftoverKind::BuildCache, why, Some(command.to_owned()))
                        }
                        _ => (LeftoverKind::InProgress, lease.words(now), None),
                    },
                    None => {
                        let remove = format!("{} content rm", ctr(namespace));
                        let why = "no image and no lease has it".to_owned();
                        let command = command(&remove, digest.as_bytes());
                        (LeftoverKind::Blob, why, Some(command))
                    }
                };
                Leftover {
                    size: Some(blob.size),
                    ..Leftover::unused(kind, name, path, why, command)
                }
            })
    }

    pub(super) fn free_layer(&self, of: &LayerUse) -> Leftover {
        let driver = &of.layer.driver;
        let path = self.snapshot_dir(driver, &of.layer.id);
        let named = self.meta().iter().find_map(|(namespace, records)| {
            let snapshots = self.snapshots(driver);
            let mut own = records.snapshots.iter();
            let ((_, key), _) = own.find(|((name, _), snapshot)| {
                let found = snapshots.get(&snapshot.name);
                name == driver && found.is_some_and(|found| found.id.to_string() == of.layer.id)
            })?;
            Some((namespace, key))
        });
        let Some((namespace, key)) = named else {
            let why = "being removed: no namespace has it any more, and containerd collects it";
            return Leftover::unused(
                LeftoverKind::InProgress,
                of.layer.id.clone(),
                path,
                why,
                None,
            );
        };
        let name = format!("{namespace}/{key}");
        if let Some((why, command)) = builders(namespace)
            && of.kind == UseKind::BuildCache
        {
            let (kind, command) = (LeftoverKind::BuildCache, Some(command.to_owned()));
            return Leftover::unused(kind, name, path, why, command);
        }
        if let Some(lease) = self.lease_of(namespace, driver, key) {
            return Leftover::unused(LeftoverKind::InProgress, name, path, lease, None);
        }
        if of.kind == UseKind::InProgress {
            let why = "it is being unpacked, or was when the client ended: containerd collects what nothing holds";
            return Leftover::unused(LeftoverKind::InProgress, name, path, why, None);
        }
        let why = "no container, no image and no lease has it";
        let command = Some(remove(namespace, driver, key));
        Leftover::unused(LeftoverKind::Snapshot, name, path, why, command)
    }

    /// The lease that holds a snapshot, in words.
    pub(super) fn lease_of(&self, namespace: &str, snapshotter: &str, key: &str) -> Option<String> {
        let records = self.meta().get(namespace)?;
        let place = (snapshotter.to_owned(), key.to_owned());
        let lease = records
            .leases
            .iter()
            .find(|lease| lease.snapshots.contains(&place))?;
        Some(lease.words(self.time()))
    }

    /// The directory, or the file, that a snapshot has.
    pub(super) fn snapshot_dir(&self, snapshotter: &str, number: &str) -> Bytes {
        let number = number.parse().unwrap_or_default();
        let content = self.content_dir(snapshotter, number);
        if is_whole_directory(snapshotter) {
            content
        } else {
            content.parent()
        }
    }
}

impl Lease {
    /// That it holds something.
    fn words(&self, now: Timestamp) -> String {
        match &self.expires {
            Some(until) if self.is_over(now) => format!(
                "the lease {} held it until {until}: containerd collects it",
                self.id
            ),
            Some(until) => format!("the lease {} holds it until {until}", self.id),
            None => format!("the lease {} holds it", self.id),
        }
    }
}

impl NamespaceRecords {
    /// What is kept from being collected by some blobs: these, and what they refer to.
    fn reached<'r>(&'r self, from: impl Iterator<Item = &'r str>) -> HashSet<&'r str> {
        let mut reached = HashSet::new();
        let mut next: Vec<&str> = from.collect();
        while let Some(digest) = next.pop() {
            if reached.insert(digest)
                && let Some(blob) = self.blobs.get(digest)
            {
                next.extend(blob.refers.iter().map(String::as_str));
            }
        }
        reached
    }
}

/// Why Docker's builder keeps what it has in a namespace, and what frees it.
fn builders(namespace: &str) -> Option<(&'static str, &'static str)> {
    match namespace {
        DOCKERS_NAMESPACE => Some(BUILD_CACHE),
        DOCKERS_HISTORY => Some((
            "what the builder remembers of a build",
            "docker buildx history rm --all",
        )),
        _ => None,
    }
}

fn ctr(namespace: &str) -> String {
    command("ctr -n", namespace.as_bytes())
}

/// containerd's own command.
fn remove(namespace: &str, snapshotter: &str, key: &str) -> String {
    let snapshots = format!("{} snapshots", ctr(namespace));
    let of_snapshotter = match snapshotter {
        "overlayfs" => snapshots,
        other => command(&format!("{snapshots} --snapshotter"), other.as_bytes()),
    };
    command(&format!("{of_snapshotter} rm"), key.as_bytes())
}
