//! Bolt databases, in which containerd, Docker and Podman keep what they know. They are read from
//! bytes in memory: to open one in place is to wait for a lock that a running engine never gives.
//!
//! ```text
//! file     page 0: meta | page 1: meta | pages of trees and of the free list, in any order
//! page     id u64 | flags u16: 1 branch, 2 leaf, 4 meta, 16 free list | count u16 | overflow u32 | ...
//!          overflow: how many of the next pages belong to it; all numbers are little-endian
//! meta     ED 0C DA ED u32 | version 2 u32 | page size u32 | flags u32 | root bucket | free list u64
//!          | page after the last u64 | transaction u64 | FNV-1a-64 of the 56 bytes before u64
//! bucket   root page u64 | sequence u64 | where the root is 0: a leaf page, in place
//! leaf     count x [flags u32: 1 bucket | pos u32 | key size u32 | value size u32] | data
//! branch   count x [pos u32 | key size u32 | page u64] | data
//!          data: each element's key and value; pos counts from the element itself; keys ascend,
//!          and those of a branch say where the keys of its pages begin
//! ```
//!
//! Of the meta pages whose checksums are right, the one of the later transaction counts. The free
//! list is no use to a reader.
//!
//! Nothing in the bytes is trusted. Bolt refers to a page from one place only, and the data of a
//! page lies in the order of its elements. Because this is insisted on, no walk goes in a circle,
//! and a walk through everything, all nested buckets with it, yields no more bytes than the file
//! has.

mod page;
mod read;
#[cfg(test)]
#[allow(clippy::too_many_lines)] // a table of cases may be long
mod tests;
mod values;

use std::sync::atomic::{AtomicU64, Ordering};
use std::vec;

use page::{
    BRANCH, Child, Entry, HEADER, LEAF, branch, fnv1a, inline, leaf, size, u16_at, u32_at, u64_at,
};

pub use page::Damage;
pub use values::{any, time, uvarint, varint};

pub use read::read;

const MAGIC: u32 = 0xED0C_DAED;
const VERSION: u32 = 2;
/// What stands in a bucket before the page that it may have in place.
const BUCKET: usize = 16;
/// A meta page's content with its checksum.
const META: usize = 64;
const PAGE_SIZES: [usize; 7] = [1024, 2048, 4096, 8192, 16_384, 32_768, 65_536];
/// Levels of one tree. Two keys a page are enough for bolt to fill any disk with fewer.
const LEVELS_MAX: usize = 64;
/// Buckets within buckets.
const NESTING_MAX: usize = 64;
/// The place that refers to the root bucket's page: a meta page, which no element lies in.
const META_REFERS: u64 = 1;

/// How much of a file's beginning [`is_sound`] has to see again: both meta pages, whatever the
/// size of a page.
pub const METAS: usize = 65_536 + HEADER + META;

/// What a valid meta page says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Meta {
    page_size: usize,
    root: u64,
    /// How many pages there are: the first number that was never given to a page.
    pages: u64,
    txid: u64,
}

impl Meta {
    fn read(bytes: &[u8], at: usize) -> Option<Meta> {
        let meta: &[u8; META] = bytes.get(at..)?.get(HEADER..)?.first_chunk()?;
        let (summed, checksum) = meta.split_last_chunk()?;
        let page_size = size(u32_at(meta, 8)?);
        let is_valid = u32_at(meta, 0)? == MAGIC
            && u32_at(meta, 4)? == VERSION
            && u64::from_le_bytes(*checksum) == fnv1a(summed)
            && PAGE_SIZES.contains(&page_size);
        let meta = Meta {
            page_size,
            root: u64_at(meta, 16)?,
            pages: u64_at(meta, 40)?,
            txid: u64_at(meta, 48)?,
        };
        is_valid.then_some(meta)
    }

    /// The second meta page of a database with pages of this size.
    fn second(bytes: &[u8], page_size: usize) -> Option<Meta> {
        Meta::read(bytes, page_size).filter(|meta| meta.page_size == page_size)
    }
}

/// A database as its last transaction left it.
#[derive(Debug)]
pub struct Database<'a> {
    bytes: &'a [u8],
    meta: Meta,
    /// For each page the offset of what refers to it, as far as it was read; else 0.
    referrers: Vec<AtomicU64>,
}

impl<'a> Database<'a> {
    /// Reads the meta pages.
    ///
    /// # Errors
    /// [`Damage::NoMeta`] if none is valid.
    pub fn open(bytes: &'a [u8]) -> Result<Database<'a>, Damage> {
        let first = Meta::read(bytes, 0);
        let second = match first {
            Some(first) => Meta::second(bytes, first.page_size),
            None => PAGE_SIZES
                .iter()
                .find_map(|page_size| Meta::second(bytes, *page_size)),
        };
        let valid = [second, first].into_iter().flatten();
        let meta = valid.max_by_key(|meta| meta.txid).ok_or(Damage::NoMeta)?;
        // What was never given to a page, or what a torn copy lacks, is no page.
        let whole = bytes.len() / meta.page_size;
        let pages = usize::try_from(meta.pages).map_or(whole, |pages| pages.min(whole));
        Ok(Database {
            bytes,
            meta,
            referrers: (0..pages).map(|_| AtomicU64::new(0)).collect(),
        })
    }

    /// The number of the transaction that is read.
    #[cfg(test)]
    fn txid(&self) -> u64 {
        self.meta.txid
    }

    /// The bucket that all others lie in.
    pub fn root(&self) -> Bucket<'_> {
        Bucket {
            database: self,
            root: Root::Page(Child {
                page: self.meta.root,
                referrer: META_REFERS,
                floor: b"",
                ceiling: None,
            }),
            nesting: 0,
        }
    }

    /// A page with what overflows from it.
    fn page(&self, id: u64, referrer: u64) -> Result<&[u8], &'static str> {
        let outside = "lies outside of the file";
        let first = usize::try_from(id).map_err(|_| outside)?;
        let start = first.checked_mul(self.meta.page_size).ok_or(outside)?;
        let header = self.bytes.get(start..).ok_or(outside)?;
        let overflow = size(u32_at(header, 12).ok_or(outside)?);
        let end = first.saturating_add(1).saturating_add(overflow);
        // The first two are meta pages.
        if first < 2 || end > self.referrers.len() {
            return Err(outside);
        }
        // Before anything costs time: each page is read from one place only.
        for known in self.referrers.get(first..end).unwrap_or_default() {
            match known.compare_exchange(0, referrer, Ordering::Relaxed, Ordering::Relaxed) {
                Err(other) if other != referrer => return Err("is referred to from two places"),
                _ => {}
            }
        }
        if u64_at(header, 0) != Some(id) {
            return Err("says that it is another page");
        }
        let length = (end - first).saturating_mul(self.meta.page_size);
        header.get(..length).ok_or(outside)
    }

    fn node<'s>(&'s self, child: Child<'s>) -> Result<Node<'s>, Damage> {
        let read = || {
            let bytes = self.page(child.page, child.referrer)?;
            let start = child.page.saturating_mul(self.meta.page_size as u64);
            match u16_at(bytes, 8) {
                Some(BRANCH) => branch(bytes, start, child).map(Node::Branch),
                Some(LEAF) => leaf(bytes, start, child).map(Node::Leaf),
                _ => Err("is no page of a tree"),
            }
        };
        read().map_err(|why| Damage::Page {
            page: child.page,
            why,
        })
    }
}

/// A bucket: values and further buckets under keys.
#[derive(Debug, Clone, Copy)]
pub struct Bucket<'a> {
    database: &'a Database<'a>,
    root: Root<'a>,
    nesting: usize,
}

/// What a key of a bucket leads to.
#[derive(Debug, Clone, Copy)]
pub enum Item<'a> {
    Value(&'a [u8]),
    Bucket(Bucket<'a>),
}

#[derive(Debug, Clone, Copy)]
enum Root<'a> {
    Page(Child<'a>),
    /// A leaf page inside of the page with this number.
    Inline {
        leaf: &'a [u8],
        within: u64,
    },
}

enum Node<'a> {
    Branch(Vec<Child<'a>>),
    Leaf(Vec<Entry<'a>>),
}

impl<'a> Bucket<'a> {
    /// The value under a key; none if there is a bucket or nothing.
    ///
    /// # Errors
    /// A page on the way is damaged.
    pub fn get(&self, key: &[u8]) -> Result<Option<&'a [u8]>, Damage> {
        let entry = self.find(key)?.filter(|entry| !entry.is_bucket);
        Ok(entry.map(|entry| entry.value))
    }

    /// The bucket under a key; none if there is a value or nothing.
    ///
    /// # Errors
    /// A page on the way, or what should be the bucket, is damaged.
    pub fn bucket(&self, key: &[u8]) -> Result<Option<Bucket<'a>>, Damage> {
        let entry = self.find(key)?.filter(|entry| entry.is_bucket);
        entry.map(|entry| self.nested(entry)).transpose()
    }

    /// All keys in their order, with what they lead to. A damaged page or bucket is one error,
    /// after which come those behind it.
    pub fn iter(&self) -> Items<'a> {
        let mut items = Items {
            bucket: *self,
            pages: Vec::new(),
            entries: Vec::new().into_iter(),
            damage: None,
        };
        match self.root {
            Root::Page(child) => items.pages.push((child, 1)),
            Root::Inline { leaf, within } => match inline(leaf, within) {
                Ok(entries) => items.entries = entries.into_iter(),
                Err(damage) => items.damage = Some(damage),
            },
        }
        items
    }

    fn find(&self, key: &[u8]) -> Result<Option<Entry<'a>>, Damage> {
        let mut child = match self.root {
            Root::Page(child) => child,
            Root::Inline { leaf, within } => return Ok(entry_of(&inline(leaf, within)?, key)),
        };
        for _ in 0..LEVELS_MAX {
            match self.database.node(child)? {
                Node::Leaf(entries) => return Ok(entry_of(&entries, key)),
                Node::Branch(children) => {
                    let begun = children.partition_point(|child| child.floor <= key);
                    match begun.checked_sub(1).and_then(|last| children.get(last)) {
                        Some(next) => child = *next,
                        None => return Ok(None),
                    }
                }
            }
        }
        Err(too_deep(child.page))
    }

    fn nested(&self, entry: Entry<'a>) -> Result<Bucket<'a>, Damage> {
        let damaged = |why| Damage::Page {
            page: entry.page,
            why,
        };
        if self.nesting >= NESTING_MAX {
            return Err(damaged("nests its buckets too deep"));
        }
        let root = u64_at(entry.value, 0);
        let inline = entry.value.get(BUCKET..);
        let (Some(root), Some(leaf)) = (root, inline) else {
            return Err(damaged("has a bucket that is cut short"));
        };
        let root = match (root, self.root) {
            // Bolt does not write one, and here a short file could nest them without end.
            (_, Root::Inline { .. }) => {
                return Err(damaged("has a bucket within a bucket in place"));
            }
            (0, _) => Root::Inline {
                leaf,
                within: entry.page,
            },
            (page, _) => Root::Page(Child {
                page,
                referrer: entry.at,
                floor: b"",
                ceiling: None,
            }),
        };
        Ok(Bucket {
            database: self.database,
            root,
            nesting: self.nesting + 1,
        })
    }
}

/// The items of a bucket; see [`Bucket::iter`].
#[derive(Debug)]
pub struct Items<'a> {
    bucket: Bucket<'a>,
    /// Those not yet read with their level, the next one last.
    pages: Vec<(Child<'a>, usize)>,
    entries: vec::IntoIter<Entry<'a>>,
    damage: Option<Damage>,
}

impl<'a> Iterator for Items<'a> {
    type Item = Result<(&'a [u8], Item<'a>), Damage>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(damage) = self.damage.take() {
            return Some(Err(damage));
        }
        loop {
            if let Some(entry) = self.entries.next() {
                return Some(if entry.is_bucket {
                    self.bucket
                        .nested(entry)
                        .map(|bucket| (entry.key, Item::Bucket(bucket)))
                } else {
                    Ok((entry.key, Item::Value(entry.value)))
                });
            }
            let (child, level) = self.pages.pop()?;
            if level > LEVELS_MAX {
                return Some(Err(too_deep(child.page)));
            }
            match self.bucket.database.node(child) {
                Ok(Node::Leaf(entries)) => self.entries = entries.into_iter(),
                Ok(Node::Branch(children)) => {
                    let children = children.into_iter().rev();
                    self.pages.extend(children.map(|child| (child, level + 1)));
                }
                Err(damage) => return Some(Err(damage)),
            }
        }
    }
}

fn too_deep(page: u64) -> Damage {
    let why = "lies too deep in its tree";
    Damage::Page { page, why }
}

fn entry_of<'a>(entries: &[Entry<'a>], key: &[u8]) -> Option<Entry<'a>> {
    let found = entries.binary_search_by(|entry| entry.key.cmp(key));
    found.ok().and_then(|at| entries.get(at)).copied()
}

/// Whether a copy of a database that a writer may have been at work on is what one transaction
/// left. `copy` was read from the file's beginning to its end; `metas` are the first [`METAS`]
/// bytes, or all there are, read from the same open file when that was done. If not, a new copy
/// has to be taken, also where this one seems damaged.
///
/// Transaction N + 1 writes over no page that N refers to: only N + 2 may, and not before the meta
/// page of N + 1 is written, which takes the place of that of N - 1. A meta page is written last,
/// so that all pages of the N that a copy begins with were there to be copied. They still were
/// where both meta pages are found unchanged afterwards: so N + 2 had not begun.
///
/// To compare the valid numbers would not do: while N + 3 writes its meta page that page is torn,
/// and the other one may have been read just before N + 2 was in it.
pub fn is_sound(copy: &[u8], metas: &[u8]) -> bool {
    let page_sizes = match Database::open(copy) {
        Ok(database) => vec![database.meta.page_size],
        Err(_) => PAGE_SIZES.to_vec(),
    };
    let mut slots = page_sizes.into_iter().chain([0]);
    slots.all(|at| meta_at(copy, at) == meta_at(metas, at))
}

fn meta_at(bytes: &[u8], page: usize) -> Option<&[u8]> {
    bytes.get(page..)?.get(..HEADER + META)
}
