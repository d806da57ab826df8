//! Databases as bolt writes them, and damaged ones.

mod copies;
mod damage;
mod trees;
mod values;

use std::collections::BTreeMap;

use proptest::prelude::{any, *};

use super::page::ELEMENT;
use super::values::Any;
use super::*;

/// What a bucket holds.
type Map = BTreeMap<Vec<u8>, Tree>;

#[derive(Debug, Clone, PartialEq)]
enum Tree {
    Value(Vec<u8>),
    Bucket(Map),
}

fn value(bytes: impl AsRef<[u8]>) -> Tree {
    Tree::Value(bytes.as_ref().to_vec())
}

fn bucket<const N: usize>(items: [(&str, Tree); N]) -> Tree {
    Tree::Bucket(map(items))
}

fn map<const N: usize>(items: [(&str, Tree); N]) -> Map {
    items.map(|(key, tree)| (key.into(), tree)).into()
}

/// An element: the key, the flags or the page, the value.
type Element = (Vec<u8>, u64, Vec<u8>);

/// Lays pages out as bolt does.
struct Writer {
    page_size: usize,
    bytes: Vec<u8>,
}

impl Writer {
    fn new(page_size: usize) -> Writer {
        let bytes = vec![0; 2 * page_size];
        Writer { page_size, bytes }
    }

    /// The database whose transaction 6 left an empty bucket, and 7 what is given.
    fn database(page_size: usize, root: &Map) -> Vec<u8> {
        let mut writer = Writer::new(page_size);
        let before = writer.tree(&Map::new());
        writer.page(16, &[]);
        let root = writer.tree(root);
        writer.meta(6, before);
        writer.meta(7, root);
        writer.bytes
    }

    fn next(&self) -> u64 {
        (self.bytes.len() / self.page_size) as u64
    }

    fn page(&mut self, kind: u16, elements: &[Element]) -> u64 {
        let id = self.next();
        let mut bytes = page(id, kind, elements);
        let pages = bytes.len().div_ceil(self.page_size);
        bytes.resize(pages * self.page_size, 0);
        bytes[12..16].copy_from_slice(&(pages as u32 - 1).to_le_bytes());
        self.bytes.extend(bytes);
        id
    }

    fn meta(&mut self, txid: u64, root: u64) {
        let meta = meta(self.page_size, txid, root, self.next());
        let at = (txid % 2) as usize * self.page_size;
        self.bytes[at..at + meta.len()].copy_from_slice(&meta);
    }

    fn tree(&mut self, map: &Map) -> u64 {
        let elements = map.iter().map(|(key, tree)| match tree {
            Tree::Value(value) => (key.clone(), 0, value.clone()),
            Tree::Bucket(map) => (key.clone(), 1, self.bucket(map)),
        });
        let mut level: Vec<Element> = elements.collect();
        let mut kind = LEAF;
        loop {
            let mut above: Vec<Element> = Vec::new();
            while !level.is_empty() || above.is_empty() {
                let mut length = HEADER;
                let fits = |(index, (key, _, value)): &(usize, &Element)| {
                    length += ELEMENT + key.len() + value.len();
                    length <= self.page_size || *index < 2
                };
                let count = level.iter().enumerate().take_while(fits).count();
                let rest = level.split_off(count);
                let key = level.first().map(|first| first.0.clone());
                let id = self.page(kind, &level);
                above.push((key.unwrap_or_default(), id, Vec::new()));
                level = rest;
            }
            if let [(_, root, _)] = &above[..] {
                return *root;
            }
            (level, kind) = (above, BRANCH);
        }
    }

    fn bucket(&mut self, map: &Map) -> Vec<u8> {
        let values = map.iter().filter_map(|(key, tree)| match tree {
            Tree::Value(value) => Some((key.clone(), 0, value.clone())),
            Tree::Bucket(_) => None,
        });
        let values: Vec<Element> = values.collect();
        let leaf = page(0, LEAF, &values);
        if values.len() == map.len() && leaf.len() <= self.page_size / 4 {
            [vec![0; BUCKET], leaf].concat()
        } else {
            in_page(self.tree(map))
        }
    }
}

/// The value of a bucket whose root is a page.
fn in_page(id: u64) -> Vec<u8> {
    [id, 0].map(u64::to_le_bytes).concat()
}

fn page(id: u64, kind: u16, elements: &[Element]) -> Vec<u8> {
    let mut page = id.to_le_bytes().to_vec();
    page.extend(kind.to_le_bytes());
    page.extend((elements.len() as u16).to_le_bytes());
    page.extend([0; 4]);
    let mut data: Vec<u8> = Vec::new();
    for (index, (key, number, value)) in elements.iter().enumerate() {
        let pos = (ELEMENT * (elements.len() - index) + data.len()) as u32;
        let key_size = key.len() as u32;
        let head = match kind {
            BRANCH => [pos, key_size, *number as u32, (*number >> 32) as u32],
            _ => [*number as u32, pos, key_size, value.len() as u32],
        };
        page.extend(head.map(u32::to_le_bytes).concat());
        data.extend(key);
        data.extend(value);
    }
    page.extend(data);
    page
}

fn meta(page_size: usize, txid: u64, root: u64, pages: u64) -> Vec<u8> {
    let mut page = page(txid % 2, 4, &[]);
    let head = [MAGIC, VERSION, page_size as u32, 0];
    page.extend(head.map(u32::to_le_bytes).concat());
    page.extend([root, 0, 2, pages, txid].map(u64::to_le_bytes).concat());
    let checksum = fnv1a(&page[HEADER..]);
    page.extend(checksum.to_le_bytes());
    page
}

/// What a walk through everything came by.
#[derive(Debug, Default)]
struct Walk {
    map: Map,
    damage: Vec<Damage>,
    items: usize,
    bytes: usize,
}

fn walk(bucket: Bucket) -> Walk {
    let mut walk = Walk::default();
    for item in bucket.iter() {
        walk.items += 1;
        match item {
            Ok((key, item)) => {
                let tree = match item {
                    Item::Value(value) => {
                        walk.bytes += value.len();
                        Tree::Value(value.to_vec())
                    }
                    Item::Bucket(bucket) => {
                        let inner = super::tests::walk(bucket);
                        walk.items += inner.items;
                        walk.bytes += inner.bytes;
                        walk.damage.extend(inner.damage);
                        Tree::Bucket(inner.map)
                    }
                };
                walk.bytes += key.len();
                assert_eq!(walk.map.insert(key.to_vec(), tree), None);
            }
            Err(damage) => walk.damage.push(damage),
        }
    }
    walk
}

/// Whether keys can be looked up, about twenty of a bucket, and no others.
fn assert_found(bucket: Bucket, map: &Map) {
    for (key, tree) in map.iter().step_by(1 + map.len() / 20) {
        let nested = bucket.bucket(key).unwrap();
        match tree {
            Tree::Value(value) => {
                assert_eq!(bucket.get(key), Ok(Some(&value[..])));
                assert!(nested.is_none());
            }
            Tree::Bucket(map) => {
                assert_eq!(bucket.get(key), Ok(None));
                assert_found(nested.unwrap(), map);
            }
        }
        for other in [[key, &b"\0"[..]].concat(), key[..key.len() / 2].to_vec()] {
            if !map.contains_key(&other) {
                assert_eq!(bucket.get(&other), Ok(None));
                assert!(bucket.bucket(&other).unwrap().is_none());
            }
        }
    }
}

fn read(bytes: &[u8]) -> Walk {
    walk(Database::open(bytes).unwrap().root())
}

/// Walks through whatever the bytes are, and says what holds for all bytes.
fn assert_bounded(bytes: &[u8]) {
    let Ok(database) = Database::open(bytes) else {
        return;
    };
    let walk = walk(database.root());
    assert!(walk.items <= 1 + bytes.len() / ELEMENT);
    assert!(walk.bytes <= bytes.len());
    if walk.damage.is_empty() {
        assert_found(database.root(), &walk.map);
    }
}
