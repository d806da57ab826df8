//! What containerd knows and nothing uses.

use super::Containerd;
use crate::bytes::Bytes;
use crate::engine::usage::{LayerUse, Leftover, LeftoverKind, UseKind, command};
use crate::error::Result;

impl Containerd<'_> {
    /// Downloads that are not finished.
    pub(super) fn find_unused(&self) -> Result<Vec<Leftover>> {
        let ingests = self
            .root
            .join(b"io.containerd.content.v1.content")
            .join(b"ingest");
        let mut found = Vec::new();
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
            let why = format!(
                "it is being downloaded since {since}, or was when the client ended: containerd collects it"
            );
            found.push(Leftover::unused(
                LeftoverKind::InProgress,
                reference,
                path,
                why,
                None,
            ));
        }
        Ok(found)
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
            let why = "no namespace has it";
            return Leftover::unused(
                LeftoverKind::InProgress,
                of.layer.id.clone(),
                path,
                why,
                None,
            );
        };
        let name = format!("{namespace}/{key}");
        if let Some(lease) = self.lease_of(namespace, driver, key) {
            return Leftover::unused(LeftoverKind::InProgress, name, path, lease, None);
        }
        if of.kind == UseKind::InProgress {
            let why = "it is being unpacked, or was when the client ended: containerd collects what nothing holds";
            let command = Some(remove(namespace, driver, key));
            return Leftover::unused(LeftoverKind::InProgress, name, path, why, command);
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
        Some(match &lease.expires {
            Some(until) => format!("the lease {} holds it until {until}", lease.id),
            None => format!("the lease {} holds it", lease.id),
        })
    }

    fn snapshot_dir(&self, snapshotter: &str, number: &str) -> Bytes {
        let snapshots = self.directory(snapshotter).join(b"snapshots");
        snapshots.join(number.as_bytes())
    }
}

/// containerd's own command.
fn remove(namespace: &str, snapshotter: &str, key: &str) -> String {
    let snapshots = format!("{} snapshots", command("ctr -n", namespace.as_bytes()));
    let of_snapshotter = match snapshotter {
        "overlayfs" => snapshots,
        other => command(&format!("{snapshots} --snapshotter"), other.as_bytes()),
    };
    command(&format!("{of_snapshotter} rm"), key.as_bytes())
}
