//! What comes next in an archive, looked at by several threads while the archive is read on. A layer of
//! half a million small files takes the time of their looks, and its digest that of one pass in order:
//! each part gives back its bytes, and who asked hashes them one after the other.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use super::expected::Expected;
use super::found::Found;
use super::packed::note;
use super::proof::{Manner, Subject};
use super::prover::Prover;
use super::recipe::Promise;

/// How many entries a thread takes at once.
const PART: usize = 256;
/// How many entries there are in a group, and how many bytes: of headers - an archive may say that a name
/// has megabytes - and of content.
const GROUP: usize = 4096;
const GROUP_BYTES: u64 = 8 << 20;
/// The largest file that is read in a group, in bytes: all of it is in memory.
pub const CONTENT_MAX: u64 = 1 << 20;

/// An entry of an archive.
pub enum Item {
    /// What a recipe has before a file's content - its headers begin at a place of that - and what it
    /// says of the content.
    Promised {
        bytes: Vec<u8>,
        headers: usize,
        promise: Promise,
    },
    Archived {
        expected: Expected,
        content: Vec<u8>,
    },
}

impl Item {
    /// What it takes in memory, or its content will, in bytes.
    fn size(&self) -> u64 {
        match self {
            Item::Promised { bytes, promise, .. } => bytes.len() as u64 + promise.size,
            Item::Archived { expected, content } => expected.memory() + content.len() as u64,
        }
    }
}

/// Entries that come one after the other.
#[derive(Default)]
pub struct Group {
    items: Vec<Item>,
    /// Bytes.
    size: u64,
}

impl Group {
    pub fn push(&mut self, item: Item) {
        self.size += item.size();
        self.items.push(item);
    }

    pub fn is_full(&self) -> bool {
        self.items.len() >= GROUP || self.size >= GROUP_BYTES
    }

    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }
}

/// What comes of some entries.
pub struct Looked {
    pub found: Found,
    /// The archive's bytes, as far as they are to be hashed.
    pub bytes: Vec<u8>,
    /// An entry has headers that no archive has.
    pub is_damaged: bool,
}

/// Holds an entry of a recipe against what is there; its bytes go to the digest. Whether it has the
/// headers of an archive.
pub fn look(prover: &mut Prover<'_>, item: &Item, digest: &mut dyn FnMut(&[u8])) -> bool {
    match item {
        Item::Promised {
            bytes,
            headers,
            promise,
        } => {
            digest(bytes);
            match Expected::of_headers(&bytes[*headers..]) {
                Ok(Some(expected)) => prover.promised(&expected, promise, &mut |content| {
                    // Records have sizes of contents, without headers.
                    note(content.len() as u64);
                    digest(content);
                }),
                Ok(None) => {}
                Err(_) => return false,
            }
        }
        Item::Archived { expected, content } => {
            if let Err(error) = prover.archived(expected, &mut &content[..]) {
                // It is in memory: Ctrl-C alone ends it.
                prover.found.proof.leave(error.to_string());
            }
        }
    }
    true
}

/// Holds a group against what is there, in parts by several threads. What comes of them is in their
/// order, up to a damaged one.
pub fn look_at(
    group: &Group,
    (subject, manner): (&Subject<'_>, Manner),
    threads: NonZeroUsize,
) -> Vec<Looked> {
    let parts = group.items.chunks(PART).collect();
    let prover = || Prover::new(subject, manner);
    in_order(parts, threads, prover, |prover, items: &[Item]| {
        let mut bytes = Vec::new();
        let mut digest = |read: &[u8]| bytes.extend_from_slice(read);
        let is_whole = items.iter().all(|item| look(prover, item, &mut digest));
        Looked {
            found: std::mem::take(&mut prover.found),
            bytes,
            is_damaged: !is_whole,
        }
    })
}

/// Does something with each of many by several threads, of which each has a state of its own, and gives
/// what comes of it in their order.
pub fn in_order<T: Send, S, R: Send>(
    all: Vec<T>,
    threads: NonZeroUsize,
    state: impl Fn() -> S + Sync,
    each: impl Fn(&mut S, T) -> R + Sync,
) -> Vec<R> {
    let count = all.len();
    let todo = Mutex::new(all.into_iter().enumerate());
    let done = Mutex::new(Vec::with_capacity(count));
    let work = || {
        let mut state = state();
        loop {
            // The lock is not held while it is done.
            let next = todo.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some((at, one)) = next else { break };
            let result = each(&mut state, one);
            let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
            done.push((at, result));
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads.get().min(count) {
            // Where no more threads can be had, those that are there do it.
            if thread::Builder::new().spawn_scoped(scope, work).is_err() {
                break;
            }
        }
        work();
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, result)| result).collect()
}

/// The threads that layers share while they are proved: the last one has all of them.
pub struct Share {
    threads: NonZeroUsize,
    /// How many layers are being proved.
    layers: AtomicUsize,
}

impl Share {
    pub fn new(threads: NonZeroUsize) -> Share {
        Share {
            threads,
            layers: AtomicUsize::new(0),
        }
    }

    /// Takes part, until what is given back is dropped.
    pub fn enter(&self) -> Sharing<'_> {
        self.layers.fetch_add(1, Ordering::Relaxed);
        Sharing(self)
    }
}

/// One of those who share.
pub struct Sharing<'s>(&'s Share);

impl Sharing<'_> {
    /// How many threads there are for one layer now.
    pub fn threads(&self) -> NonZeroUsize {
        let layers = NonZeroUsize::new(self.0.layers.load(Ordering::Relaxed));
        let each = self
            .0
            .threads
            .get()
            .div_ceil(layers.map_or(1, NonZeroUsize::get));
        NonZeroUsize::new(each).unwrap_or(NonZeroUsize::MIN)
    }
}

impl Drop for Sharing<'_> {
    fn drop(&mut self) {
        self.0.layers.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_layer_has_all_threads() {
        let share = Share::new(NonZeroUsize::new(8).expect("eight"));
        let first = share.enter();
        assert_eq!(first.threads().get(), 8);
        let (second, third) = (share.enter(), share.enter());
        assert_eq!(first.threads().get(), 3);
        drop(second);
        assert_eq!(third.threads().get(), 4);
        drop(first);
        assert_eq!(third.threads().get(), 8);
    }

    #[test]
    fn what_comes_is_in_the_order_of_what_was_asked() {
        for threads in [1, 2, 7] {
            let threads = NonZeroUsize::new(threads).expect("some");
            let done = in_order((0..1000).collect(), threads, || (), |(), one| one * 2);
            assert_eq!(done, (0..1000).map(|one| one * 2).collect::<Vec<_>>());
        }
    }
}
