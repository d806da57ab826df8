//! AUFS's branches: `br:` as a person spells it, a line of sysfs, a mount's options.

#![no_main]

use layerctl::internals::branch;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    if branch::is_spelled(input) {
        let _ = branch::parse_spelled(input);
    }
    let _ = branch::parse_spelled(&[b"br:", input].concat());
    let _ = branch::parse_sysfs(input);
    let _ = branch::parse_mount_options(input);
    let plain = branch::unescape_octal(input);
    assert!(plain.len() <= input.len());
});
