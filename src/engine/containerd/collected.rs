//! What the next collection takes away: nobody's any more, and nobody's fault.
//!
//! A collection keeps what images, leases and labels lead to. A lease that has expired goes, and so
//! does a download that no lease holds once its own time is over. What no namespace has of the
//! content store is removed with it. docs/facts.md#engines-2026-a7

use std::collections::HashSet;

use jiff::Timestamp;

use super::record::{IngestRecord, Lease};
use super::store::Containerd;
use crate::bytes::Bytes;
use crate::engine::inventory::is_id;
use crate::engine::usage::{Leftover, LeftoverKind};
use crate::error::Result;

/// No store has images of nearly as much content.
const NAMED_MAX: usize = 1 << 20;

impl Containerd<'_> {
    pub(super) fn find_collected(&self) -> Result<Vec<Leftover>> {
        let now = self.now()?;
        let mut found = self.expired_leases(now);
        found.extend(self.ended_downloads(now)?);
        found.extend(self.blobs_of_nobody()?);
        Ok(found)
    }

    /// What time it is to containerd. A copy of a host stands still since it wrote last.
    fn now(&self) -> Result<Timestamp> {
        if self.host.is_live() {
            return Ok(Timestamp::now());
        }
        let stat = self.host.stat(&self.database())?;
        let written = stat.and_then(|stat| {
            let nanoseconds = i32::try_from(stat.mtime.1).ok()?;
            Timestamp::new(stat.mtime.0, nanoseconds).ok()
        });
        Ok(written.unwrap_or_else(Timestamp::now))
    }

    /// The same, or ours where nobody tells.
    pub(super) fn time(&self) -> Timestamp {
        self.now().unwrap_or_else(|_| Timestamp::now())
    }

    fn expired_leases(&self, now: Timestamp) -> Vec<Leftover> {
        let mut found = Vec::new();
        for (namespace, records) in self.namespaces() {
            let expired = records.leases.iter().filter(|lease| lease.is_over(now));
            found.extend(expired.map(|lease| {
                let until = lease.expires.as_deref().unwrap_or_default();
                let why = format!(
                    "the lease {namespace}/{} expired at {until}: what it alone holds goes with it ({} snapshots, {} blobs, {} downloads)",
                    lease.id,
                    lease.snapshots.len(),
                    lease.content.len(),
                    lease.ingests.len()
                );
                collected(self.database(), why, Some(0))
            }));
        }
        found
    }

    /// Downloads that nobody goes on with, as far as their records say so.
    fn ended_downloads(&self, now: Timestamp) -> Result<Vec<Leftover>> {
        let ingests = self.content_store().join(b"ingest");
        let names = self.problems.unless_absent(self.host.list(&ingests));
        let mut found = Vec::new();
        for (name, _) in names.unwrap_or_default() {
            let path = ingests.join(&name);
            let reference = self.host.read(&path.join(b"ref"));
            // One without ends, or begins.
            let Some(reference) = self.problems.unless_absent(reference) else {
                continue;
            };
            let reference = String::from_utf8_lossy(&reference).trim().to_owned();
            let recorded = self.meta().values().find_map(|records| {
                let mut ingests = records.ingests.iter();
                let own = ingests.find(|(_, ingest)| ingest.reference == reference)?;
                Some((records, own))
            });
            let why = match recorded {
                None if self.is_leased(&reference, now) => continue,
                None => format!("the download {reference} is in no namespace's records"),
                Some((records, (client, ingest))) => {
                    let mut leases = records.leases.iter().filter(|lease| !lease.is_over(now));
                    let is_held = leases.any(|lease| lease.ingests.contains(client));
                    if is_held || !ingest.is_over(now) {
                        continue;
                    }
                    format!("no lease holds the download {reference}, and its own time is over")
                }
            };
            found.push(collected(path, why, None));
        }
        Ok(found)
    }

    /// Whether a lease that has not expired holds a download, which the store calls
    /// `namespace/number/reference`.
    fn is_leased(&self, name: &str, now: Timestamp) -> bool {
        let mut parts = name.splitn(3, '/');
        let (Some(namespace), Some(_), Some(client)) = (parts.next(), parts.next(), parts.next())
        else {
            return false;
        };
        let leases = self.meta().get(namespace).map(|of| &of.leases[..]);
        let mut leases = leases.unwrap_or_default().iter();
        leases.any(|lease| !lease.is_over(now) && lease.ingests.contains(client))
    }

    /// Content that is in no namespace's records.
    fn blobs_of_nobody(&self) -> Result<Vec<Leftover>> {
        let recorded = self.meta().values().flat_map(|of| of.blobs.keys());
        let recorded: HashSet<&str> = recorded.map(String::as_str).collect();
        let blobs = self.content_store().join(b"blobs");
        let algorithms = self.problems.unless_absent(self.host.list(&blobs));
        let mut unknown = Vec::new();
        for (algorithm, _) in algorithms.unwrap_or_default() {
            let directory = blobs.join(&algorithm);
            let algorithm = String::from_utf8_lossy(&algorithm).into_owned();
            let mut names = self.host.list(&directory)?;
            names.sort_by(|(a, _), (b, _)| a.cmp(b));
            for (name, _) in names {
                let hex = String::from_utf8_lossy(&name).into_owned();
                let is_known = recorded.contains(format!("{algorithm}:{hex}").as_str());
                if !is_known && is_id(&hex) {
                    unknown.push((format!("{algorithm}:{hex}"), directory.join(&name)));
                }
            }
        }
        if !unknown.is_empty() {
            let named = self.named_content();
            unknown.retain(|(digest, _)| !named.contains(digest));
        }
        let why = "no namespace has this content";
        let found = unknown.into_iter();
        let found = found.map(|(_, path)| collected(path, why.to_owned(), None));
        Ok(found.collect())
    }

    /// The digests that images, leases and labels lead to, whether or not there are records of the
    /// content: what anything names is nobody's waste.
    fn named_content(&self) -> HashSet<String> {
        let mut next: Vec<String> = Vec::new();
        for records in self.meta().values() {
            next.extend(records.images.iter().map(|image| image.digest.clone()));
            next.extend(records.kept.iter().cloned());
            let blobs = records.blobs.values();
            next.extend(blobs.flat_map(|blob| blob.refers.iter().cloned()));
            let leases = records.leases.iter();
            next.extend(leases.flat_map(|lease| lease.content.iter().cloned()));
        }
        let mut named = HashSet::new();
        while let Some(digest) = next.pop() {
            if named.len() == NAMED_MAX || !named.insert(digest.clone()) {
                continue;
            }
            // What is no index and no manifest leads no further.
            let Ok(document) = self.document(&digest) else {
                continue;
            };
            let of = [document.manifests, document.layers].into_iter().flatten();
            let of = of.flatten().chain(document.config);
            next.extend(of.map(|of| of.digest));
        }
        named
    }
}

impl Lease {
    pub(super) fn is_over(&self, now: Timestamp) -> bool {
        let until = self.expires.as_deref().and_then(|of| of.parse().ok());
        until.is_some_and(|until: Timestamp| until < now)
    }
}

impl IngestRecord {
    /// Whether it is kept for no time of its own any more.
    fn is_over(&self, now: Timestamp) -> bool {
        let until: Option<Timestamp> = self.expires.parse().ok();
        until.is_none_or(|until| until < now)
    }
}

fn collected(path: Bytes, why: String, size: Option<u64>) -> Leftover {
    Leftover {
        is_removable: false,
        size,
        ..Leftover::new(
            LeftoverKind::Collected,
            path,
            format!("{why}; containerd collects it"),
        )
    }
}
