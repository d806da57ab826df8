//! What was found of a layer while its archive was read: which paths that has, which faults there are.

use std::collections::{BTreeMap, HashSet};

use sha2::{Digest, Sha256};

use super::proof::{Proof, What};
use crate::bytes::Bytes;

/// How many faults of a layer are named; the others are counted.
const NAMED_MAX: usize = 10_000;
/// How long the paths of those are together, in bytes.
const NAMED_BYTES_MAX: usize = 16 << 20;

/// How many paths are remembered of a layer, directories on the way to them among those: they take a quarter
/// of a gigabyte then.
const PATHS_MAX: usize = 8 << 20;
/// How many owners are remembered of an archive, each with those that it is on disk.
const OWNERS_MAX: usize = 64 << 10;

/// What stands for a path: a layer may have millions.
type Key = [u8; 16];
/// What owners of an archive are on disk: each one's, and how often.
type Owners = BTreeMap<u64, BTreeMap<u64, (u64, Bytes)>>;

/// What was found of a layer, or of a part of its archive.
#[derive(Default)]
pub struct Found {
    pub proof: Proof,
    /// How long the paths of its faults are together, in bytes.
    named: usize,
    /// The paths that the archive has.
    seen: HashSet<Key>,
    /// The directories on the way to them.
    ways: HashSet<Key>,
    owners: [Owners; 2],
    /// How many of those there are.
    owners_known: usize,
    /// There are more.
    has_more_owners: bool,
}

impl Found {
    pub fn fault(&mut self, path: Bytes, what: What) {
        let size = path.as_bytes().len();
        if self.proof.faults.len() < NAMED_MAX && self.named + size <= NAMED_BYTES_MAX {
            self.named += size;
            self.proof.faults.push((path, what));
        } else {
            self.proof.more += 1;
        }
    }

    /// Remembers that the archive has a path. A later entry of the same name takes the place of an
    /// earlier one.
    pub fn see(&mut self, path: &Bytes) {
        if self.is_full() {
            return;
        }
        // Each way begins as the one above it: a deep path is read once.
        let mut digest = Sha256::new();
        let mut parts = path.components().peekable();
        while let Some(part) = parts.next() {
            digest.update(b"/");
            digest.update(part);
            if parts.peek().is_some() {
                self.ways.insert(short(digest.clone()));
            }
        }
        if !self.seen.insert(key(path)) {
            self.proof.faults.retain(|(of, _)| of != path);
        }
    }

    /// Whether it has come to what is remembered: what an archive has beside that is not known.
    pub fn is_full(&self) -> bool {
        self.seen.len() + self.ways.len() >= PATHS_MAX
    }

    /// Whether the archive has a path.
    pub fn has(&self, path: &Bytes) -> bool {
        self.seen.contains(&key(path))
    }

    /// Whether a path leads on to one that the archive has.
    pub fn leads_on(&self, path: &Bytes) -> bool {
        self.ways.contains(&key(path))
    }

    /// Remembers what the owners that an archive says of a path are on disk: user, group.
    pub fn note_owners(&mut self, said: (u64, u64), own: (u64, u64), path: &Bytes) {
        let pairs = [(said.0, own.0), (said.1, own.1)];
        for (which, (said, own)) in pairs.into_iter().enumerate() {
            self.note_owner(which, (said, own), || path.clone(), 1);
        }
    }

    fn note_owner(
        &mut self,
        which: usize,
        (said, own): (u64, u64),
        path: impl FnOnce() -> Bytes,
        times: u64,
    ) {
        let owners = &mut self.owners[which];
        if let Some((count, _)) = owners.get_mut(&said).and_then(|of| of.get_mut(&own)) {
            *count += times;
        } else if self.owners_known < OWNERS_MAX {
            self.owners_known += 1;
            owners.entry(said).or_default().insert(own, (times, path()));
        } else {
            self.has_more_owners = true;
        }
    }

    /// Owners that are mapped are mapped alike: who is not is named.
    pub fn remapped(&mut self) {
        if self.has_more_owners {
            self.proof
                .leave("the archive has more owners than are remembered");
        }
        let all = std::mem::take(&mut self.owners);
        let is_mapped =
            |(said, own): (&u64, &BTreeMap<u64, (u64, Bytes)>)| own.keys().any(|own| own != said);
        if !all.iter().flatten().any(is_mapped) {
            return;
        }
        for (_, own) in all.into_iter().flatten() {
            let usual = own.values().map(|(count, _)| *count).max().unwrap_or(0);
            for (count, path) in own.into_values() {
                if count < usual {
                    self.fault(path, What::Owner);
                }
            }
        }
        let what = "the store keeps owners as others: they are proved alike, not proved";
        self.proof.leave(what);
    }

    /// Takes in what was found of the part of the archive that comes next.
    pub fn absorb(&mut self, next: Found) {
        let again: HashSet<&Key> = next.seen.intersection(&self.seen).collect();
        if !again.is_empty() {
            let faults = &mut self.proof.faults;
            faults.retain(|(path, _)| !again.contains(&key(path)));
        }
        if !self.is_full() {
            self.seen.extend(next.seen);
            self.ways.extend(next.ways);
        }
        for (path, what) in next.proof.faults {
            self.fault(path, what);
        }
        for why in next.proof.unproved {
            self.proof.leave(why);
        }
        self.proof.more += next.proof.more;
        self.proof.has_unread |= next.proof.has_unread;
        self.proof.content_and_links += next.proof.content_and_links;
        self.has_more_owners |= next.has_more_owners;
        for (which, owners) in next.owners.into_iter().enumerate() {
            for (said, owners) in owners {
                for (own, (count, path)) in owners {
                    self.note_owner(which, (said, own), || path, count);
                }
            }
        }
    }
}

fn key(path: &Bytes) -> Key {
    short(Sha256::new_with_prefix(path.as_bytes()))
}

fn short(digest: Sha256) -> Key {
    let digest = digest.finalize();
    let mut key = [0; 16];
    key.copy_from_slice(&digest[..16]);
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is found of one path with one fault, or none.
    fn found(path: &str, what: Option<What>, owner: u64) -> Found {
        let mut found = Found::default();
        let path = Bytes::from(path);
        found.see(&path);
        found.note_owners((0, 0), (owner, 0), &path);
        if let Some(what) = what {
            found.fault(path, what);
        }
        found
    }

    #[test]
    fn a_later_entry_takes_the_place_of_an_earlier_one_of_another_part() {
        let mut all = found("/a/b", Some(What::Content), 0);
        all.absorb(found("/a/c", Some(What::Mode), 0));
        assert_eq!(all.proof.faults.len(), 2);
        all.absorb(found("/a/b", Some(What::Owner), 0));
        all.absorb(found("/a/c", None, 0));
        assert_eq!(all.proof.faults, [(Bytes::from("/a/b"), What::Owner)]);
        assert!(all.has(&Bytes::from("/a/c")) && all.leads_on(&Bytes::from("/a")));
        assert!(!all.has(&Bytes::from("/a")) && !all.leads_on(&Bytes::from("/a/b")));
    }

    #[test]
    fn owners_are_counted_over_all_parts() {
        let mut all = found("/a", None, 100_000);
        all.absorb(found("/b", None, 5));
        all.absorb(found("/c", None, 100_000));
        all.remapped();
        assert_eq!(all.proof.faults, [(Bytes::from("/b"), What::Owner)]);
    }

    #[test]
    fn no_more_faults_are_named_for_more_parts() {
        let mut all = Found::default();
        for part in 0..3 {
            let mut next = Found::default();
            for fault in 0..NAMED_MAX {
                next.fault(Bytes::from(format!("/{part}/{fault}")), What::Time);
            }
            all.absorb(next);
        }
        assert_eq!(
            (all.proof.faults.len(), all.proof.more),
            (NAMED_MAX, 2 * NAMED_MAX)
        );
    }
}
