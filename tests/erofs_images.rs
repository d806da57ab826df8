//! Images that mkfs.erofs and composefs made, and what the kernel showed of each
//! (fixtures/erofs/make.py); the same, damaged.

use std::collections::BTreeMap;
use std::fs::File;

use layerctl::internals::erofs::{Fault, Image, Inode};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::lab::{fixture as path_of, needs};

const IMAGES: [&str; 7] = [
    "inline",
    "chunks",
    "blocks-512",
    "compressed",
    "layer",
    "index",
    "composefs",
];

fn fixture(name: &str) -> Vec<u8> {
    needs::fixtures();
    let path = path_of("erofs").join(format!("{name}.zst"));
    let file = File::open(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    zstd::decode_all(file).expect("a zstd stream")
}

fn open(bytes: Vec<u8>) -> Result<Image, Fault> {
    Image::open(Box::new(bytes))
}

fn image(name: &str) -> Image {
    open(fixture(&format!("{name}.erofs"))).unwrap()
}

/// `%2F` and the like are bytes.
fn bytes(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes().iter();
    while let Some(&byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digits: String = rest.by_ref().take(2).map(|digit| *digit as char).collect();
                u8::from_str_radix(&digits, 16).unwrap()
            }
            byte => byte,
        });
    }
    bytes
}

/// What the kernel showed, by path.
fn shown(name: &str) -> BTreeMap<Vec<u8>, Value> {
    let lines = String::from_utf8(fixture(&format!("{name}.jsonl"))).unwrap();
    let rows = lines
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    rows.map(|row| (bytes(row["path"].as_str().unwrap()), row))
        .collect()
}

/// Every inode of an image, by path. What cannot be told is left out.
fn walk(image: &Image) -> BTreeMap<Vec<u8>, Inode> {
    let mut found = BTreeMap::new();
    let Ok(root) = image.inode(image.root()) else {
        return found;
    };
    let mut pending = vec![(Vec::new(), root)];
    while let Some((path, inode)) = pending.pop() {
        if inode.is_directory() {
            let mut names = Vec::new();
            let _ = image.list(&inode, |entry| {
                names.push(entry.name.to_vec());
                Ok(true)
            });
            for name in names {
                if let Ok(Some(below)) = image.enter(&inode, &name) {
                    pending.push(([&path[..], b"/", &name].concat(), below));
                }
            }
        }
        let path = if path.is_empty() { b"/".to_vec() } else { path };
        found.insert(path, inode);
    }
    found
}

fn content(image: &Image, inode: &Inode) -> Result<Vec<u8>, Fault> {
    let mut content = Vec::new();
    let mut part = [0; 1000];
    loop {
        let count = image.read_content(inode, &mut part, content.len() as u64)?;
        if count == 0 {
            return Ok(content);
        }
        content.extend_from_slice(&part[..count]);
    }
}

#[apply(test)]
fn images_are_what_the_kernel_shows() {
    for name in IMAGES {
        let image = image(name);
        let (ours, kernel) = (walk(&image), shown(name));
        assert!(kernel.len() > 5);
        let names: Vec<_> = kernel.keys().collect();
        assert_eq!(ours.keys().collect::<Vec<_>>(), names, "{name}");
        for (path, row) in kernel {
            let inode = &ours[&path];
            let at = format!("{name} {}", path.escape_ascii());
            let time = i128::from(inode.mtime.0) * 1_000_000_000 + i128::from(inode.mtime.1);
            let told = [
                ("mode", inode.mode.into()),
                ("uid", inode.uid.into()),
                ("gid", inode.gid.into()),
                ("size", inode.size.into()),
                ("mtime", time),
                ("ino", inode.number.into()),
                ("nlink", inode.names.into()),
                ("rdev", inode.device.into()),
                ("blocks", inode.blocks.into()),
            ];
            for (field, ours) in told {
                // An image with fragments tells the blocks of the whole.
                let is_told = name != "compressed" || field != "blocks";
                let kernel = i128::from(row[field].as_i64().unwrap());
                assert!(!is_told || kernel == ours, "{at} {field}: {kernel} {ours}");
            }
            let link = image.target(inode).unwrap();
            assert_eq!(link, row["link"].as_str().map(bytes), "{at}");
            assert_attributes(&image, inode, &row, &at);
            if let Some(said) = row["sha256"].as_str() {
                match content(&image, inode) {
                    Ok(content) => {
                        let sum = Sha256::digest(&content);
                        let sum: String = sum.iter().map(|byte| format!("{byte:02x}")).collect();
                        assert_eq!(sum, said, "{at}");
                    }
                    Err(fault) => {
                        assert_eq!(fault, Fault::Unread("compressed content"), "{at}");
                        assert_eq!(name, "compressed");
                    }
                }
            }
        }
    }
}

fn assert_attributes(image: &Image, inode: &Inode, row: &Value, at: &str) {
    let mut ours: BTreeMap<String, String> = BTreeMap::new();
    let names = match image.attribute_names(inode) {
        // The beginnings of names are compressed with other content.
        Err(Fault::Unread("compressed content")) if at.starts_with("compressed") => return,
        names => names.unwrap(),
    };
    for name in names {
        let value = image.attribute(inode, &name, 70_000).unwrap().unwrap();
        let value: String = value.iter().map(|byte| format!("{byte:02x}")).collect();
        ours.insert(String::from_utf8(name).unwrap(), value);
    }
    let said: BTreeMap<String, String> = serde_json::from_value(row["xattrs"].clone()).unwrap();
    assert_eq!(ours, said, "{at}");
}

#[apply(test)]
fn names_are_found_by_halves() {
    let image = image("blocks-512");
    let root = image.inode(image.root()).unwrap();
    let many = image.enter(&root, b"many").unwrap().unwrap();
    let mut names = Vec::new();
    let told = image.list(&many, |entry| {
        names.push((entry.name.to_vec(), entry.number));
        Ok(true)
    });
    told.unwrap();
    assert_eq!(names.len(), 700);
    for (name, number) in names {
        assert_eq!(image.find(&many, &name).unwrap(), Some(number));
        assert_eq!(
            image.find(&many, &[&name[..], b"x"].concat()).unwrap(),
            None
        );
    }
    for name in [&b"\x01"[..], b"\xff", b"zzz"] {
        assert_eq!(image.find(&many, name).unwrap(), None);
    }
    // A value that is longer than what is asked for is none.
    let file = image.enter(&root, b"attributes").unwrap().unwrap();
    assert_eq!(image.attribute(&file, b"user.long", 299).unwrap(), None);
    let whole = image.attribute(&file, b"user.long", 300).unwrap();
    assert_eq!(whole, Some(vec![b'v'; 300]));
}

#[apply(test)]
fn holes_are_told() {
    let image = image("chunks");
    let root = image.inode(image.root()).unwrap();
    let sparse = image.enter(&root, b"sparse").unwrap().unwrap();
    let (start, end) = image.next_data(&sparse, 0).unwrap().unwrap();
    assert_eq!((start, end), (131_072, 131_072 + 4096));
    assert_eq!(image.next_data(&sparse, end).unwrap(), None);
}

/// A fixture without its checksum, changed at some places.
fn changed(name: &str, changes: &[(usize, &[u8])]) -> Vec<u8> {
    let mut bytes = fixture(&format!("{name}.erofs"));
    bytes[1024 + 8] &= !1;
    for (at, change) in changes {
        bytes[*at..*at + change.len()].copy_from_slice(change);
    }
    bytes
}

#[apply(test)]
fn what_is_no_image_or_not_read_is_named() {
    let why = |name, changes: &[_]| open(changed(name, changes)).unwrap_err();
    assert_eq!(why("layer", &[(1024, b"x")]), Fault::NoImage);
    assert_eq!(open(Vec::new()).unwrap_err(), Fault::NoImage);
    assert_eq!(open(vec![0; 1100]).unwrap_err(), Fault::NoImage);
    let word = |fault: Fault| fault.to_string();
    let mut other = fixture("layer.erofs");
    other[1024 + 24] ^= 1;
    assert!(word(open(other).unwrap_err()).contains("checksum"));
    for (at, value, what) in [
        (12, &b"\x20"[..], "size"),
        (80, b"\x80", "48 bits"),
        (80, b"\0\x01", "metadata"),
        (80, b"\0\x02", "nobody knew"),
        (90, b"\x01", "large blocks"),
    ] {
        let said = word(why("layer", &[(1024 + at, value)]));
        assert!(said.contains(what), "{said}");
    }
    let cut = fixture("chunks.erofs");
    let image = open(cut[..40_000].to_vec()).unwrap();
    assert!((1..730).contains(&walk(&image).len()));
}

/// Where an inode of the fixture `layer` begins.
fn inode_at(number: usize) -> usize {
    number * 32
}

#[apply(test)]
fn directories_in_themselves_are_refused() {
    let layer = fixture("layer.erofs");
    let image = open(layer.clone()).unwrap();
    let root = image.inode(image.root()).unwrap();
    let number = |name: &[u8]| image.find(&root, name).unwrap().unwrap();
    let (gone, hidden) = (number(b"gone-from"), number(b"hidden"));
    // Its content stands behind the inode: where its entries are, is known.
    let entries = inode_at(usize::try_from(image.root()).unwrap()) + 32;
    let place = |wanted: u64| {
        let found = layer[entries..entries + 200]
            .windows(8)
            .position(|eight| eight == wanted.to_le_bytes());
        entries + found.unwrap()
    };
    // The root is in itself; one directory has two names.
    for (at, value, name) in [
        (place(gone), image.root(), &b"gone-from"[..]),
        (place(gone), hidden, b"gone-from"),
    ] {
        let damaged = open(changed("layer", &[(at, &value.to_le_bytes())])).unwrap();
        let root = damaged.inode(damaged.root()).unwrap();
        let entered = damaged.enter(&root, name);
        let listed = damaged.list(&root, |_| Ok(true));
        let is_refused = |fault| matches!(fault, Fault::Damaged(_));
        let refused = entered.err().is_some_and(is_refused) || listed.err().is_some_and(is_refused);
        assert!(refused, "{}", name.escape_ascii());
        walk(&damaged);
    }
}

#[apply(test)]
fn sizes_without_end_are_refused() {
    // The root's size, and what it counts as attributes.
    let image = image("layer");
    let at = inode_at(usize::try_from(image.root()).unwrap());
    let huge = open(changed("layer", &[(at + 8, b"\xff\xff\xff\xff")])).unwrap();
    let root = huge.inode(huge.root()).unwrap();
    let listed = huge.list(&root, |_| Ok(true));
    assert_eq!(
        listed,
        Err(Fault::Damaged("a directory is larger than the image"))
    );
    let attributes = open(changed("layer", &[(at + 2, b"\xff\xff")])).unwrap();
    let root = attributes.inode(attributes.root()).unwrap();
    assert!(attributes.attribute_names(&root).is_err());
}

/// Asks everything that can be asked, as far as a file is not endless.
fn ask_all(image: &Image) {
    let mut left = 1 << 20;
    for inode in walk(image).values() {
        let _ = image.target(inode);
        for name in image.attribute_names(inode).unwrap_or_default() {
            let _ = image.attribute(inode, &name, 1 << 16);
        }
        let (mut at, mut part) = (0, [0; 4096]);
        while left > 0
            && let Ok(count @ 1..) = image.read_content(inode, &mut part, at)
        {
            at += count as u64;
            left -= count.min(left);
        }
        let _ = image.next_data(inode, 0);
    }
}

#[apply(test)]
fn no_damage_makes_the_reader_panic_or_go_on_for_ever() {
    needs::fixtures();
    let change = (any::<prop::sample::Index>(), any::<u8>(), any::<bool>());
    let damage = (
        0..IMAGES.len(),
        prop::collection::vec(change, 1..24),
        prop::option::weighted(0.2, any::<prop::sample::Index>()),
    );
    let config = Config {
        failure_persistence: None,
        ..Config::with_cases(64)
    };
    let ran = TestRunner::new(config).run(&damage, |(which, changes, end)| {
        let mut bytes = fixture(&format!("{}.erofs", IMAGES[which]));
        // The checksum would keep every other change out.
        bytes[1024 + 8] &= !1;
        for (at, value, is_low) in changes {
            // What tells most stands at the beginning.
            let length = if is_low {
                bytes.len().min(16_384)
            } else {
                bytes.len()
            };
            bytes[at.index(length)] = value;
        }
        if let Some(end) = end {
            bytes.truncate(end.index(bytes.len()));
        }
        if let Ok(image) = open(bytes) {
            ask_all(&image);
        }
        Ok(())
    });
    ran.unwrap_or_else(|error| panic!("{error}"));
}
