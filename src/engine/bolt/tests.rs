//! Databases as bolt writes them, and damaged ones.

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

#[test]
fn what_bolt_itself_wrote() {
    // bbolt 1.3.6, pages of 1024 bytes, three transactions; what is not here is zero.
    let written = [
        (0x0008, "0400000000000000edda0ced0200000000040000000000000d"),
        (
            0x0030,
            "0e000000000000000f0000000000000004000000000000002f87a6e84dca4607",
        ),
        (
            0x0400,
            "01000000000000000400000000000000edda0ced02000000000400000000000009",
        ),
        (
            0x0430,
            "0a000000000000000b0000000000000003000000000000004ca212be692e354a",
        ),
        (0x0800, "0200000000000000020002"),
        (
            0x0814,
            "20000000020000002c010000000000003e010000020000002c0100006b30",
        ),
        (0x095e, "6b3101"),
        (0x0c00, "0300000000000000020003"),
        (
            0x0c14,
            "30000000020000002c010000000000004e010000020000002c010000000000006c020000020000002c0100006b3202",
        ),
        (0x0d6e, "6b3303"),
        (0x0e9c, "6b3404"),
        (
            0x1000,
            "040000000000000002000400020000000000000040000000020000002c010000000000005e010000020000002c010000000000007c020000020000002c010000000000009a03000001000000dc0500006b3202",
        ),
        (0x117e, "6b3303"),
        (0x12ac, "6b3404"),
        (0x13da, "7a"),
        (
            0x1c00,
            "0700000000000000010002000000000020000000020000000200000000000000120000000200000003000000000000006b306b32",
        ),
        (
            0x2000,
            "080000000000000002000300000000000100000030000000060000004300000001000000690000000400000010000000000000006d00000007000000010000006c6162656c73",
        ),
        (0x205e, "020002"),
        (
            0x206a,
            "200000000100000001000000000000001200000001000000000000006131626d616e7907",
        ),
        (0x209d, "76657273696f6e06"),
        (
            0x2400,
            "0900000000000000020001000000000001000000100000000200000010000000763108",
        ),
        (
            0x2800,
            "0a0000000000000010000300000000000400000000000000050000000000000006",
        ),
        (
            0x2c00,
            "0b00000000000000010002000000000020000000020000000200000000000000120000000200000004000000000000006b306b32",
        ),
        (
            0x3000,
            "0c0000000000000002000300000000000100000030000000060000004300000001000000690000000400000010000000000000006d00000007000000010000006c6162656c73",
        ),
        (0x305e, "020002"),
        (
            0x306a,
            "200000000100000001000000000000001200000001000000000000006131626d616e790b",
        ),
        (0x309d, "76657273696f6e06"),
        (
            0x3400,
            "0d0000000000000002000100000000000100000010000000020000001000000076310c",
        ),
        (
            0x3800,
            "0e00000000000000100005000000000003000000000000000700000000000000080000000000000009000000000000000a",
        ),
    ];
    let mut bytes = vec![0; 32_768];
    for (at, hex) in written {
        for (at, digits) in (at..).zip(hex.as_bytes().chunks(2)) {
            let digits = std::str::from_utf8(digits).unwrap();
            bytes[at] = u8::from_str_radix(digits, 16).unwrap();
        }
    }
    let long = |first| value([&[first], &[0; 299][..]].concat());
    let mut many = map([
        ("k0", long(0)),
        ("k1", long(1)),
        ("k2", long(2)),
        ("k3", long(3)),
        ("k4", long(4)),
    ]);
    let expected = |many: &Map| {
        let labels = bucket([("a", value("1")), ("b", value(""))]);
        let many = Tree::Bucket(many.clone());
        let items = [("labels", labels), ("many", many), ("version", value([6]))];
        map([("v1", bucket(items))])
    };
    // The last transaction but one is still whole.
    let mut before = bytes.clone();
    before[0x40] ^= 1;
    assert_eq!(Database::open(&before).unwrap().txid(), 3);
    assert_eq!(read(&before).map, expected(&many));

    many.insert("z".into(), value([0; 1500]));
    let database = Database::open(&bytes).unwrap();
    assert_eq!(database.txid(), 4);
    assert_eq!(walk(database.root()).map, expected(&many));
    assert_eq!(walk(database.root()).damage, []);
    assert_found(database.root(), &expected(&many));
}

#[test]
fn small_databases() {
    let numbered = |count: u32, tree: Tree| -> Tree {
        let key = |number: u32| format!("key {number:04}").into_bytes();
        Tree::Bucket((0..count).map(|at| (key(at), tree.clone())).collect())
    };
    for (what, root) in [
        ("nothing", map([])),
        ("a value", map([("a", value("1"))])),
        ("an empty value", map([("a", value("")), ("b", value("2"))])),
        ("a long value", map([("a", value([7; 70_000]))])),
        ("an empty bucket", map([("a", bucket([]))])),
        ("a bucket in place", map([("a", numbered(3, value("x")))])),
        (
            "a bucket in its page",
            map([("a", numbered(900, value("x")))]),
        ),
        (
            "buckets in buckets",
            map([("a", numbered(20, numbered(20, bucket([("b", value("c"))]))))]),
        ),
        (
            "levels of branches",
            map([("a", numbered(1200, value([1; 90]))), ("b", value("x"))]),
        ),
    ] {
        for page_size in PAGE_SIZES {
            let bytes = Writer::database(page_size, &root);
            let database = Database::open(&bytes).unwrap();
            let found = walk(database.root());
            assert_eq!(found.damage, [], "{what}, {page_size}");
            assert_eq!(found.map, root, "{what}, {page_size}");
            assert_found(database.root(), &root);
        }
    }
}

#[test]
fn the_later_valid_meta_page_counts() {
    let root = map([("a", value("1"))]);
    for page_size in PAGE_SIZES {
        let whole = Writer::database(page_size, &root);
        let damaged = |places: &[usize]| {
            let mut bytes = whole.clone();
            places.iter().for_each(|at| bytes[*at] ^= 0x10);
            Database::open(&bytes).map(|database| database.txid())
        };
        assert_eq!(damaged(&[]), Ok(7));
        // The free list's page, the transaction, the checksum.
        for at in [HEADER + 32, HEADER + 48, HEADER + 63] {
            assert_eq!(damaged(&[page_size + at]), Ok(6));
            assert_eq!(damaged(&[at]), Ok(7));
            assert_eq!(damaged(&[at, page_size + at]), Err(Damage::NoMeta));
        }
    }
    let unusual = |page_size| meta(page_size, 6, 2, 3);
    for page_size in [0, 512, 1025, 131_072] {
        assert!(Database::open(&unusual(page_size)).is_err(), "{page_size}");
    }
    assert!(Database::open(&unusual(4096)).is_ok());
    for wrong in [0, 4] {
        let mut bytes = unusual(4096);
        bytes[HEADER + wrong] ^= 1;
        let checksum = fnv1a(&bytes[HEADER..HEADER + META - 8]);
        bytes[HEADER + META - 8..].copy_from_slice(&checksum.to_le_bytes());
        assert_eq!(Database::open(&bytes).err(), Some(Damage::NoMeta));
    }
}

#[test]
fn damage_is_told() {
    let element = |key: &str, number, value: &[u8]| (key.into(), number, value.to_vec());
    let at = |key, page| element(key, page, b"");
    let leaf = |key| (LEAF, vec![element(key, 0, b"")]);
    let in_place = |elements: &[Element]| [vec![0; BUCKET], page(0, LEAF, elements)].concat();
    // Pages from 2 on; 2 is the root.
    for (pages, why) in [
        (
            vec![(BRANCH, vec![at("", 2)])],
            "is referred to from two places",
        ),
        (
            vec![(BRANCH, vec![at("a", 3), at("b", 3)]), leaf("a")],
            "is referred to from two places",
        ),
        (
            vec![(LEAF, vec![element("a", 1, &in_page(2))])],
            "is referred to from two places",
        ),
        (
            vec![
                (
                    LEAF,
                    vec![element("a", 1, &in_page(3)), element("b", 1, &in_page(3))],
                ),
                leaf("a"),
            ],
            "is referred to from two places",
        ),
        (vec![(BRANCH, vec![at("a", 1)])], "lies outside of the file"),
        (vec![(BRANCH, vec![at("a", 3)])], "lies outside of the file"),
        (
            vec![(BRANCH, vec![at("a", u64::MAX)])],
            "lies outside of the file",
        ),
        (vec![(BRANCH, vec![])], "is a branch without pages"),
        (vec![(16, vec![])], "is no page of a tree"),
        (vec![(BRANCH | LEAF, vec![])], "is no page of a tree"),
        (
            vec![(LEAF, vec![element("a", 2, b"")])],
            "has an element of an unknown kind",
        ),
        (
            vec![(LEAF, vec![at("b", 0), at("a", 0)])],
            "has keys out of order",
        ),
        (
            vec![(LEAF, vec![at("a", 0), at("a", 0)])],
            "has keys out of order",
        ),
        (
            vec![(BRANCH, vec![at("b", 3)]), leaf("a")],
            "has keys of another page",
        ),
        (
            vec![(BRANCH, vec![at("a", 3), at("b", 4)]), leaf("c"), leaf("d")],
            "has keys of another page",
        ),
        (
            vec![(LEAF, vec![element("a", 1, b"")])],
            "has a bucket that is cut short",
        ),
        (
            vec![(LEAF, vec![element("a", 1, &[0; BUCKET])])],
            "has a bucket in place that is no leaf",
        ),
        (
            vec![(
                LEAF,
                vec![element("a", 1, &in_place(&[element("b", 1, &in_page(2))]))],
            )],
            "has a bucket within a bucket in place",
        ),
    ] {
        let mut writer = Writer::new(1024);
        for (kind, elements) in &pages {
            writer.page(*kind, elements);
        }
        writer.meta(7, 2);
        let found = read(&writer.bytes).damage;
        assert!(
            matches!(found[..], [Damage::Page { why: found, .. }] if found == why),
            "{found:?}, {why}"
        );
        assert_bounded(&writer.bytes);
    }

    let mut writer = Writer::new(1024);
    writer.page(LEAF, &[element("a", 0, b"1"), element("b", 0, b"2")]);
    writer.meta(7, 2);
    // The page's number, its count, its overflow, the second position, the last size.
    for (offset, byte, why) in [
        (0, 3, "says that it is another page"),
        (10, 200, "is cut short"),
        (12, 1, "lies outside of the file"),
        (36, 17, "has elements that overlap"),
        (45, 4, "has an element that reaches beyond it"),
    ] {
        let mut bytes = writer.bytes.clone();
        bytes[2048 + offset] = byte;
        assert_eq!(read(&bytes).damage, [Damage::Page { page: 2, why }]);
    }
}

#[test]
fn what_lies_behind_damage_is_still_read() {
    let mut writer = Writer::new(1024);
    let leaf = |key: &str| [(key.into(), 0, Vec::new())];
    writer.page(
        BRANCH,
        &[
            ("a".into(), 3, Vec::new()),
            ("b".into(), 9, Vec::new()),
            ("c".into(), 4, Vec::new()),
        ],
    );
    writer.page(LEAF, &leaf("a"));
    writer.page(LEAF, &leaf("c"));
    writer.meta(7, 2);
    let found = read(&writer.bytes);
    assert_eq!(found.map, map([("a", value("")), ("c", value(""))]));
    assert_eq!(found.damage.len(), 1);
}

#[test]
fn depth_is_bounded() {
    // A tree of branches with one page each, and buckets each in the one before.
    for is_tree in [true, false] {
        for (count, is_whole) in [(60, true), (70, false)] {
            let mut writer = Writer::new(1024);
            for next in 3..3 + count {
                if is_tree {
                    writer.page(BRANCH, &[(Vec::new(), next, Vec::new())])
                } else {
                    writer.page(LEAF, &[(b"a".to_vec(), 1, in_page(next))])
                };
            }
            writer.page(LEAF, &[(b"a".to_vec(), 0, b"1".to_vec())]);
            writer.meta(7, 2);
            assert_eq!(read(&writer.bytes).damage.is_empty(), is_whole);
            let database = Database::open(&writer.bytes).unwrap();
            if is_tree {
                assert_eq!(database.root().get(b"a").is_ok(), is_whole);
            }
        }
    }
}

const UNIT: usize = 16;

/// A file that transactions change in small steps: 3 pages each, of which none is the last
/// one's, then the meta page.
struct Changing {
    bytes: Vec<u8>,
    steps: Vec<(usize, [u8; UNIT])>,
    /// How many steps of these were made.
    done: usize,
}

impl Changing {
    fn new(transactions: u64) -> Changing {
        let images = (4..4 + transactions).map(|txid| {
            let mut writer = Writer::new(1024);
            writer
                .bytes
                .resize(1024 * if txid % 2 == 0 { 2 } else { 5 }, 0);
            let first = writer.bytes.len();
            let number = txid.to_le_bytes().to_vec();
            let base = writer.next();
            let element = |key: &str, number, value| (key.into(), number, value);
            writer.page(
                LEAF,
                &[
                    element("a", 0, number.clone()),
                    element("b", 0, number.repeat(60)),
                ],
            );
            writer.page(
                LEAF,
                &[element("c", 0, number.repeat(60)), element("d", 0, number)],
            );
            let root = writer.page(
                BRANCH,
                &[element("a", base, vec![]), element("c", base + 1, vec![])],
            );
            let data = first..writer.bytes.len();
            writer.bytes.resize(8 * 1024, 0);
            writer.meta(txid, root);
            let meta = (txid % 2) as usize * 1024;
            (writer.bytes, data.chain(meta..meta + HEADER + META))
        });
        let mut changing = Changing {
            bytes: vec![0; 8 * 1024],
            steps: Vec::new(),
            done: 0,
        };
        for (image, places) in images {
            for at in places.step_by(UNIT) {
                changing
                    .steps
                    .push((at, image[at..at + UNIT].try_into().unwrap()));
            }
        }
        // One transaction is done when the copying begins.
        changing.advance(changing.steps.len() / transactions as usize);
        changing
    }

    fn advance(&mut self, count: usize) {
        for (at, unit) in self.steps.iter().skip(self.done).take(count) {
            self.bytes[*at..*at + UNIT].copy_from_slice(unit);
        }
        self.done += count;
    }

    /// Reads while the transactions go on.
    fn read(&mut self, length: usize, pace: &mut impl FnMut() -> usize) -> Vec<u8> {
        let mut read = Vec::new();
        while read.len() < length {
            self.advance(pace());
            read.extend_from_slice(&self.bytes[read.len()..read.len() + UNIT]);
        }
        read
    }
}

#[test]
fn a_copy_is_sound_where_no_meta_page_changed() {
    let mut writer = Writer::new(1024);
    let root = writer.tree(&Map::new());
    let mut file = |txids: [u64; 2]| {
        txids.into_iter().for_each(|txid| writer.meta(txid, root));
        writer.bytes.clone()
    };
    let (copy, later) = (file([6, 7]), file([8, 7]));
    let (mut torn, mut afterwards) = (copy.clone(), copy.clone());
    torn[1024 + HEADER + 48] ^= 1;
    // Further pages may change, and are not looked at.
    *afterwards.last_mut().unwrap() = 1;
    assert!(is_sound(&copy, &copy));
    assert!(is_sound(&copy, &afterwards));
    assert!(is_sound(&copy, &copy[..1024 + HEADER + META]));
    assert!(!is_sound(&copy, &copy[..1024]));
    assert!(!is_sound(&copy, &later));
    assert!(!is_sound(&copy, &torn));
    assert!(!is_sound(&torn, &copy));
    // Both begin with 8, but for all one knows 10 was at work by then.
    let mut torn_later = later.clone();
    torn_later[1024 + HEADER + 48] ^= 1;
    assert!(!is_sound(&later, &torn_later));
    // What is damaged for good is not torn.
    assert!(is_sound(&torn, &torn));
    assert!(is_sound(b"no database", b"no database"));
    assert!(is_sound(b"", b""));
}

#[test]
fn numbers_as_go_writes_them() {
    for (bytes, expected) in [
        (&[][..], None),
        (&[0], Some((0, &[][..]))),
        (&[0x7f, 9], Some((127, &[9]))),
        (&[0x80], None),
        (&[0x80, 1], Some((128, &[]))),
        (
            b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
            Some((u64::MAX, &[])),
        ),
        (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", None),
        (&[0x80; 12], None),
    ] {
        assert_eq!(uvarint(bytes), expected, "{bytes:?}");
    }
    for (bytes, expected) in [
        (&[0][..], 0),
        (&[1], -1),
        (&[6], 3),
        (&[5], -3),
        (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", i64::MIN),
        (b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01", i64::MAX),
    ] {
        assert_eq!(varint(bytes), Some((expected, &[][..])), "{bytes:?}");
    }
}

#[test]
fn times_as_go_writes_them() {
    let text = |bytes: &[u8]| time(bytes).map(|time| time.to_string());
    let real = b"\x01\0\0\0\x0e\xe2\x96\xfb\x5b\x03\x68\x59\x59\xff\xff";
    assert_eq!(
        text(real).as_deref(),
        Some("2026-11-24T03:28:27.057170265Z")
    );
    let zone = b"\x02\0\0\0\x0e\xe2\x96\xfb\x5b\x03\x68\x59\x59\0\x3c\x1e";
    assert_eq!(text(zone), text(real));
    assert_eq!(
        text(&[&[1][..], &[0; 14]].concat()).as_deref(),
        Some("0001-01-01T00:00:00Z")
    );
    let with = |at: usize, byte: u8| {
        let mut bytes = real.to_vec();
        bytes[at] = byte;
        text(&bytes)
    };
    // Another version, a year that no calendar has, more nanoseconds than a second has.
    for wrong in [
        with(0, 0),
        with(0, 2),
        with(1, 0x7f),
        with(1, 0x80),
        with(9, 0x40),
        with(9, 0x80),
    ] {
        assert_eq!(wrong, None);
    }
    assert_eq!(text(b""), None);
    assert_eq!(text(&real[..14]), None);
    assert_eq!(text(&[&real[..], &[0]].concat()), None);
}

#[test]
fn any_messages() {
    let any_of = |type_url, value| Some(Any { type_url, value });
    for (bytes, expected) in [
        (&b""[..], any_of(&b""[..], &b""[..])),
        (b"\x0a\x03a/b\x12\x02{}", any_of(b"a/b", b"{}")),
        (b"\x12\x02{}\x0a\x03a/b", any_of(b"a/b", b"{}")),
        (b"\x0a\x03a/b", any_of(b"a/b", b"")),
        // Unknown fields of every kind, and a known one of another.
        (
            b"\x18\xff\x01\x21\0\0\0\0\0\0\0\0\x2a\x01x\x35\0\0\0\0\x08\x01\x12\x01y",
            any_of(b"", b"y"),
        ),
        (b"\x0a\x04a/b", None),
        (b"\x0a", None),
        (b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01x", None),
        (b"\x21\0\0", None),
        (b"\x0b", None),
    ] {
        assert_eq!(super::values::any(bytes), expected, "{bytes:?}");
    }
}

fn trees() -> impl Strategy<Value = Map> {
    let key = || proptest::collection::vec(any::<u8>(), 1..6);
    let length = prop_oneof![9 => 0..60usize, 1 => 0..3000usize];
    let value = (length, any::<u8>()).prop_map(|(length, byte)| value(vec![byte; length]));
    let tree = value.prop_recursive(3, 60, 20, move |inner| {
        proptest::collection::btree_map(key(), inner, 0..20).prop_map(Tree::Bucket)
    });
    proptest::collection::btree_map(proptest::collection::vec(any::<u8>(), 1..6), tree, 0..30)
}

/// Pages that look right and refer to any others.
fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let kind = prop_oneof![2 => Just(BRANCH), 3 => Just(LEAF)];
    let element = ((0..12u8), (0..2u64), (2..9u64), any::<bool>());
    let pages = (kind, proptest::collection::vec(element, 1..6));
    proptest::collection::vec(pages, 1..8).prop_map(|pages| {
        let mut writer = Writer::new(1024);
        for (kind, elements) in pages {
            let elements: BTreeMap<Vec<u8>, (u64, Vec<u8>)> = elements
                .into_iter()
                .map(|(key, flags, to, is_in_place)| match (kind, is_in_place) {
                    (BRANCH, _) => (vec![key], (to, Vec::new())),
                    (_, false) => (vec![key], (flags, in_page(to))),
                    (_, true) => {
                        let leaf = page(0, LEAF, &[(vec![key], flags, in_page(to))]);
                        (vec![key], (flags, [vec![0; BUCKET], leaf].concat()))
                    }
                })
                .collect();
            let elements = elements
                .into_iter()
                .map(|(key, (number, value))| (key, number, value));
            writer.page(kind, &elements.collect::<Vec<Element>>());
        }
        writer.meta(7, 2);
        writer.bytes
    })
}

proptest! {
    #[test]
    fn every_tree_is_read_as_it_was_written(root in trees(), size in 0..3usize) {
        let bytes = Writer::database(PAGE_SIZES[size], &root);
        let database = Database::open(&bytes).unwrap();
        let found = walk(database.root());
        prop_assert_eq!(found.damage, []);
        prop_assert_eq!(&found.map, &root);
        assert_found(database.root(), &root);
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..6000)) {
        assert_bounded(&bytes);
        // Behind meta pages that are right, too.
        let metas = [meta(1024, 6, 2, 9), vec![0; 1024 - HEADER - META], meta(1024, 7, 3, 9)];
        assert_bounded(&[metas.concat(), vec![0; 1024 - HEADER - META], bytes.clone()].concat());
        let _ = is_sound(&bytes, &bytes[bytes.len() / 2..]);
        let _ = (uvarint(&bytes), varint(&bytes), time(&bytes), super::values::any(&bytes));
        let _ = time(&[&[1], bytes.get(..14).unwrap_or_default()].concat());
    }

    #[test]
    fn no_pages_lead_in_a_circle(bytes in hostile()) {
        assert_bounded(&bytes);
    }

    #[test]
    fn damage_never_makes_it_panic(
        root in trees(),
        flips in proptest::collection::vec((any::<prop::sample::Index>(), 0..8u8), 0..8),
        swaps in proptest::collection::vec(any::<[prop::sample::Index; 2]>(), 0..3),
        length in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = Writer::database(1024, &root);
        let pages = bytes.len() / 1024;
        for swap in swaps {
            let [one, other] = swap.map(|index| index.index(pages) * 1024);
            let kept = bytes[one..one + 1024].to_vec();
            bytes.copy_within(other..other + 1024, one);
            bytes[other..other + 1024].copy_from_slice(&kept);
        }
        for (index, bit) in flips {
            let at = index.index(bytes.len());
            bytes[at] ^= 1 << bit;
        }
        if let Some(length) = length {
            bytes.truncate(length.index(bytes.len()));
        }
        assert_bounded(&bytes);
    }

    #[test]
    fn a_copy_torn_in_mid_write_is_right_or_not_sound(
        before in 0..400usize,
        jumps in proptest::collection::vec((0..640usize, 1..250usize), 0..5),
    ) {
        let mut jumps = jumps;
        jumps.push((0, before));
        let mut at = 0..;
        let mut pace = || {
            let now = at.next();
            let due = jumps.iter().filter(|(at, _)| Some(*at) == now);
            due.map(|(_, steps)| steps).sum()
        };
        let mut file = Changing::new(9);
        let copy = file.read(8 * 1024, &mut pace);
        let metas = file.read(2 * 1024, &mut pace);
        if is_sound(&copy, &metas) {
            let found = read(&copy);
            let txid = Database::open(&copy).unwrap().txid().to_le_bytes();
            prop_assert_eq!(found.damage, []);
            prop_assert_eq!(found.map, map([
                ("a", value(txid)),
                ("b", value(txid.repeat(60))),
                ("c", value(txid.repeat(60))),
                ("d", value(txid)),
            ]));
        }
    }

    #[test]
    fn numbers_are_read_as_they_were_written(number in any::<u64>(), shift in 0..64u32, rest in any::<[u8; 2]>()) {
        let number = number >> shift;
        let written = |mut number: u64| {
            let mut bytes = Vec::new();
            while number >= 0x80 {
                bytes.push(number as u8 | 0x80);
                number >>= 7;
            }
            bytes.push(number as u8);
            [bytes, rest.to_vec()].concat()
        };
        let bytes = written(number);
        prop_assert_eq!(uvarint(&bytes), Some((number, &rest[..])));
        let signed = number.cast_signed();
        let zigzag = (signed << 1) ^ (signed >> 63);
        let bytes = written(zigzag.cast_unsigned());
        prop_assert_eq!(varint(&bytes), Some((signed, &rest[..])));
    }
}
