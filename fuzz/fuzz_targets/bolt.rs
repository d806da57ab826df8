//! A bolt database: the pages are the input's, behind meta pages that are valid, so that the
//! checksum keeps nothing out. A file that is all input is tried, too.

#![no_main]

use layerctl::internals::engine::bolt::{self, Bucket, Database, Item};
use libfuzzer_sys::fuzz_target;

const PAGE: usize = 1024;

fuzz_target!(|input: &[u8]| {
    read(input);
    let mut file = Vec::new();
    let pages = input.len().div_ceil(PAGE) as u64 + 2;
    for number in 0..2 {
        file.extend(meta(number, pages));
    }
    file.extend(input);
    file.resize(PAGE * pages as usize, 0);
    // Pages know their numbers: without help nothing would be read of most inputs.
    for number in 2..pages {
        let at = PAGE * number as usize;
        file[at..at + 8].copy_from_slice(&number.to_le_bytes());
    }
    read(&file);
    assert!(bolt::is_sound(&file, &file[..file.len().min(bolt::METAS)]));
});

fn meta(number: u64, pages: u64) -> Vec<u8> {
    let mut page = Vec::from(number.to_le_bytes());
    page.extend(4u16.to_le_bytes());
    page.extend([0; 6]);
    let mut meta = Vec::new();
    for word in [0xED0C_DAEDu32, 2, PAGE as u32, 0] {
        meta.extend(word.to_le_bytes());
    }
    // The root's page, its sequence, the free list, how many pages, the transaction.
    for word in [2, 0, pages, pages, number] {
        meta.extend(u64::to_le_bytes(word));
    }
    let checksum = meta.iter().fold(0xcbf2_9ce4_8422_2325u64, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    });
    meta.extend(checksum.to_le_bytes());
    page.extend(meta);
    page.resize(PAGE, 0);
    page
}

fn read(bytes: &[u8]) {
    if let Ok(database) = Database::open(bytes) {
        walk(database.root());
    }
}

fn walk(bucket: Bucket<'_>) {
    for item in bucket.iter() {
        let Ok((key, item)) = item else { continue };
        match item {
            Item::Bucket(bucket) => walk(bucket),
            Item::Value(value) => {
                // What is listed is found.
                if let Ok(found) = bucket.get(key) {
                    assert_eq!(found, Some(value));
                }
                let _ = bolt::uvarint(value);
                let _ = bolt::varint(value);
                let _ = bolt::time(value);
                let _ = bolt::any(value);
            }
        }
    }
}
