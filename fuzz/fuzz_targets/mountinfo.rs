//! Mount tables of both forms, and what is asked of their mounts.

#![no_main]

use layerctl::internals::bytes::Bytes;
use layerctl::internals::engine::mount_table::{MountTable, parse_mountinfo, parse_mounts};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    ask(&parse_mountinfo(input));
    ask(&parse_mounts(input));
});

fn ask(table: &MountTable) {
    for mount in &table.0 {
        let _ = mount.kind();
        let _ = mount.is_of_removed();
        let _ = mount.superblock();
        let _ = mount.si();
    }
    let _ = table.covering(&Bytes::from("/a/b"));
}
