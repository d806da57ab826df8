//! An EROFS image: the first byte picks the beginning of a superblock that is valid, the rest is the
//! input's. A file that is all input is tried, too.

#![no_main]

use layerctl::internals::erofs::{Image, Inode};
use libfuzzer_sys::fuzz_target;

/// Where the superblock is, and how much of it says whether the image is read at all.
const SUPER: usize = 1024;
/// How much content is read of all files together, in bytes: what is sparse has no end.
const CONTENT: usize = 1 << 16;

fuzz_target!(|input: &[u8]| {
    read(input.to_vec());
    let mut image = input.to_vec();
    if image.len() < SUPER + 128 {
        return;
    }
    image[SUPER..SUPER + 4].copy_from_slice(&0xE0F5_E1E2u32.to_le_bytes());
    // No checksum, blocks that there are, no feature that is not read.
    image[SUPER + 8] &= !1;
    image[SUPER + 12] = 9 + image[SUPER + 12] % 8;
    image[SUPER + 80] &= 0x7f;
    image[SUPER + 81..SUPER + 84].fill(0);
    image[SUPER + 90] = 0;
    read(image);
});

fn read(bytes: Vec<u8>) {
    // A directory has one parent and one name: there are no more than have room.
    let most = bytes.len();
    let Ok(image) = Image::open(Box::new(bytes)) else {
        return;
    };
    let Ok(root) = image.inode(image.root()) else {
        return;
    };
    let (mut left, mut directories) = (CONTENT, 0);
    let mut pending = vec![root];
    while let Some(inode) = pending.pop() {
        ask(&image, &inode, &mut left);
        if !inode.is_directory() {
            continue;
        }
        directories += 1;
        assert!(directories <= most);
        let mut names = Vec::new();
        let _ = image.list(&inode, |entry| {
            names.push(entry.name.to_vec());
            Ok(true)
        });
        for name in names {
            if let Ok(Some(found)) = image.enter(&inode, &name) {
                pending.push(found);
            }
        }
    }
}

fn ask(image: &Image, inode: &Inode, left: &mut usize) {
    let _ = image.target(inode);
    for name in image.attribute_names(inode).unwrap_or_default() {
        let _ = image.attribute(inode, &name, 1 << 16);
    }
    let _ = image.next_data(inode, 0);
    let (mut at, mut part) = (0, [0; 512]);
    while *left > 0 {
        match image.read_content(inode, &mut part, at) {
            Ok(count @ 1..) => {
                at += count as u64;
                *left -= count.min(*left);
            }
            _ => return,
        }
    }
}
