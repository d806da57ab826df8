//! What bolt writes is read as it was written.

use super::*;

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

pub(super) fn trees() -> impl Strategy<Value = Map> {
    let key = || proptest::collection::vec(any::<u8>(), 1..6);
    let length = prop_oneof![9 => 0..60usize, 1 => 0..3000usize];
    let value = (length, any::<u8>()).prop_map(|(length, byte)| value(vec![byte; length]));
    let tree = value.prop_recursive(3, 60, 20, move |inner| {
        proptest::collection::btree_map(key(), inner, 0..20).prop_map(Tree::Bucket)
    });
    proptest::collection::btree_map(proptest::collection::vec(any::<u8>(), 1..6), tree, 0..30)
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
}
