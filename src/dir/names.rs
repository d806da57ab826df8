//! The names in a directory, sorted by bytes, in one piece of memory.

use std::cmp::Ordering as Order;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::io::Errno;

use super::stat::Kind;

/// How many entries a listing may have whose memory is kept for the next one.
const KEPT_MAX: usize = 4096;
/// From how many names on it is worth looking at what they have in common.
const MANY: usize = 256;

/// A directory's listing: names sorted by bytes, in one piece of memory.
#[derive(Debug, Default)]
pub struct Names {
    /// The names, one behind the other.
    bytes: Box<[u8]>,
    entries: Box<[Listed]>,
    /// The entry that answered the last question: most questions come in order.
    last: AtomicUsize,
    /// In bytes.
    longest: usize,
    has_directories: bool,
}

/// One entry of a listing.
#[derive(Debug, Clone, Copy)]
struct Listed {
    /// The first bytes of the name, which tell most names apart.
    key: u64,
    /// Where the name begins among all names.
    start: u32,
    len: u16,
    kind: Kind,
}

impl Listed {
    fn name(self, bytes: &[u8]) -> &[u8] {
        &bytes[self.start as usize..self.start as usize + usize::from(self.len)]
    }
}

/// The first bytes of a name as a number that is ordered as they are. A name has no NUL, so that
/// those that fit whole are equal only if the names are.
fn key_of(name: &[u8]) -> u64 {
    if let Some(first) = name.first_chunk() {
        return u64::from_be_bytes(*first);
    }
    let half = |bytes: &[u8; 4]| u64::from(u32::from_be_bytes(*bytes));
    match (name.first_chunk(), name.last_chunk()) {
        // Where the two overlap they are the same.
        (Some(first), Some(last)) => half(first) << 32 | half(last) << (8 * (8 - name.len())),
        _ => name
            .iter()
            .zip([56, 48, 40])
            .fold(0, |key, (byte, shift)| key | u64::from(*byte) << shift),
    }
}

/// A listing while it is read. Its memory is kept for the next one.
#[derive(Default)]
pub(super) struct Reading {
    /// What the kernel fills with entries.
    pub buffer: Vec<u8>,
    bytes: Vec<u8>,
    entries: Vec<Listed>,
}

/// Sorts many names, of which most begin with the same, as `file000001` does: what follows it tells
/// them apart.
fn sort_many(entries: &mut [Listed], bytes: &[u8]) {
    let common = |a: &[u8], b: &[u8]| a.iter().zip(b).take_while(|(a, b)| a == b).count();
    let Some(first) = entries.first().map(|first| first.name(bytes)) else {
        return;
    };
    let shared = entries.iter().fold(first.len(), |shared, entry| {
        common(&first[..shared], entry.name(bytes))
    });
    let mut order: Vec<(u64, Listed)> = entries
        .iter()
        .map(|entry| (key_of(&entry.name(bytes)[shared..]), *entry))
        .collect();
    order.sort_unstable_by(|(a, first), (b, second)| {
        let by_key = a.cmp(b);
        by_key.then_with(|| first.name(bytes).cmp(second.name(bytes)))
    });
    for (entry, (_, sorted)) in entries.iter_mut().zip(order) {
        *entry = sorted;
    }
}

impl Reading {
    /// Nothing, and no memory.
    pub(super) const fn empty() -> Reading {
        Reading {
            buffer: Vec::new(),
            bytes: Vec::new(),
            entries: Vec::new(),
        }
    }

    /// # Errors
    /// `ENOMEM` for 4 GiB of names in one directory.
    pub(super) fn push(&mut self, name: &[u8], kind: Kind) -> Result<(), Errno> {
        let (Ok(start), Ok(len)) = (u32::try_from(self.bytes.len()), u16::try_from(name.len()))
        else {
            return Err(Errno::NOMEM);
        };
        self.bytes.extend_from_slice(name);
        self.entries.push(Listed {
            key: key_of(name),
            start,
            len,
            kind,
        });
        Ok(())
    }

    /// How many names there are.
    pub(super) fn count(&self) -> usize {
        self.entries.len()
    }

    /// What was read, in order.
    pub(super) fn names(&mut self) -> Names {
        let bytes = &self.bytes;
        if self.entries.len() < MANY {
            self.entries.sort_unstable_by(|a, b| {
                let by_key = a.key.cmp(&b.key);
                by_key.then_with(|| a.name(bytes).cmp(b.name(bytes)))
            })
        } else {
            sort_many(&mut self.entries, bytes)
        }
        // A name that is renamed while the directory is read may be listed twice.
        self.entries
            .dedup_by(|a, b| a.key == b.key && a.name(bytes) == b.name(bytes));
        let lengths = self.entries.iter().map(|entry| usize::from(entry.len));
        let mut kinds = self.entries.iter().map(|entry| entry.kind);
        Names {
            longest: lengths.max().unwrap_or_default(),
            has_directories: kinds.any(|kind| kind == Kind::Directory),
            bytes: self.bytes.as_slice().into(),
            entries: self.entries.as_slice().into(),
            last: AtomicUsize::new(0),
        }
    }

    /// Ready for the next one.
    pub(super) fn emptied(mut self) -> Reading {
        if self.entries.capacity() > KEPT_MAX {
            self.bytes = Vec::new();
            self.entries = Vec::new();
        }
        self.bytes.clear();
        self.entries.clear();
        self
    }
}

impl Names {
    /// The kind of `name`, where it is listed.
    pub fn kind(&self, name: &[u8]) -> Option<Kind> {
        let key = key_of(name);
        self.find(key, |listed| listed.cmp(name))
    }

    /// The kind of the entry whose name is `prefix` and `rest`.
    pub fn kind_of_joined(&self, prefix: &[u8], rest: &[u8]) -> Option<Kind> {
        // The key of both together, without putting them together.
        let room = u32::try_from(8 * prefix.len()).unwrap_or(u32::MAX);
        let key = key_of(prefix) | key_of(rest).checked_shr(room).unwrap_or_default();
        self.find(key, |listed| {
            let (start, end) = listed.split_at(listed.len().min(prefix.len()));
            start.cmp(prefix).then_with(|| end.cmp(rest))
        })
    }

    fn find(&self, key: u64, order: impl Fn(&[u8]) -> Order) -> Option<Kind> {
        let order_of = |at: &Listed| {
            let by_key = at.key.cmp(&key);
            by_key.then_with(|| order(at.name(&self.bytes)))
        };
        let (Some(first), Some(end)) = (self.entries.first(), self.entries.last()) else {
            return None;
        };
        if !(first.key..=end.key).contains(&key) {
            return None;
        }
        let last = self.last.load(Ordering::Relaxed);
        let next = last + 1;
        let found = match order_of(&self.entries[last]) {
            Order::Equal => Ok(last),
            Order::Greater => self.entries[..last].binary_search_by(order_of),
            Order::Less => match self.entries.get(next).map(order_of) {
                Some(Order::Equal) => Ok(next),
                Some(Order::Greater) | None => Err(next),
                Some(Order::Less) => {
                    let behind = self.entries[next..].binary_search_by(order_of);
                    behind.map(|at| next + at).map_err(|at| next + at)
                }
            },
        };
        // A name that is not listed is answered by the last entry before it.
        let (Ok(answer) | Err(answer)) = found.map_err(|at| at.saturating_sub(1));
        if answer != last {
            self.last.store(answer, Ordering::Relaxed);
        }
        Some(self.entries[found.ok()?].kind)
    }

    /// The names and their kinds, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], Kind)> {
        self.entries
            .iter()
            .map(|entry| (entry.name(&self.bytes), entry.kind))
    }

    /// The name and the kind at a position in the order.
    pub fn get(&self, at: usize) -> Option<(&[u8], Kind)> {
        let entry = self.entries.get(at)?;
        Some((entry.name(&self.bytes), entry.kind))
    }

    /// Whether any name begins with this.
    pub fn has_prefix(&self, prefix: &[u8]) -> bool {
        let key = key_of(prefix);
        let at = |entry: &Listed| {
            entry.key < key || entry.key == key && entry.name(&self.bytes) < prefix
        };
        let first = self.entries.partition_point(at);
        let first = self.entries.get(first);
        first.is_some_and(|entry| entry.name(&self.bytes).starts_with(prefix))
    }

    /// The length of the longest name, in bytes.
    pub fn longest(&self) -> usize {
        self.longest
    }

    /// Whether any entry is a directory.
    pub fn has_directories(&self) -> bool {
        self.has_directories
    }

    /// How many entries there are.
    pub fn count(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn names_are_found(
            names in prop::collection::vec("[ab]{1,10}|a{6,9}[a-d]", 0..20),
            questions in prop::collection::vec(("[ab]{0,9}", "[abd]{1,10}"), 0..60),
        ) {
            let mut reading = Reading::default();
            for name in &names {
                reading.push(name.as_bytes(), Kind::File).unwrap();
            }
            let listing = reading.names();
            let mut sorted = names.clone();
            sorted.sort();
            sorted.dedup();
            let listed: Vec<&[u8]> = listing.iter().map(|(name, _)| name).collect();
            let expected: Vec<&[u8]> = sorted.iter().map(|name| name.as_bytes()).collect();
            prop_assert_eq!(listed, expected);
            for name in &names {
                prop_assert!(listing.kind(name.as_bytes()).is_some());
            }
            for (prefix, rest) in questions {
                let joined = format!("{prefix}{rest}");
                let is_there = names.contains(&joined);
                prop_assert_eq!(listing.kind(joined.as_bytes()).is_some(), is_there);
                let found = listing.kind_of_joined(prefix.as_bytes(), rest.as_bytes());
                prop_assert_eq!(found.is_some(), is_there);
                let begins = names.iter().any(|name| name.starts_with(&prefix));
                prop_assert_eq!(listing.has_prefix(prefix.as_bytes()), begins);
            }
        }
    }
}
