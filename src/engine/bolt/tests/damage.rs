//! What is damaged is told, ends, and hides no more than itself.

use super::trees::trees;
use super::*;

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
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..6000)) {
        assert_bounded(&bytes);
        // Behind meta pages that are right, too.
        let metas = [meta(1024, 6, 2, 9), vec![0; 1024 - HEADER - META], meta(1024, 7, 3, 9)];
        assert_bounded(&[metas.concat(), vec![0; 1024 - HEADER - META], bytes.clone()].concat());
        let _ = is_sound(&bytes, &bytes[bytes.len() / 2..]);
        let _ = (uvarint(&bytes), varint(&bytes), time(&bytes), crate::engine::bolt::values::any(&bytes));
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
}
