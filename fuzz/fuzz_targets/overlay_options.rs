//! Overlay's options: as a person spells them, as a mount shows them, as fuse-overlayfs takes them.

#![no_main]

use layerctl::internals::overlay::{self, Namespace, Rules};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let _ = overlay::is_spelled(input);
    let read = [
        overlay::parse(input),
        overlay::parse_fuse(input),
        overlay::parse_mounted(input, Rules::of(Namespace::Trusted)),
    ];
    for options in read.into_iter().flatten() {
        let _ = options.branches();
    }
    let _ = overlay::spelled_fuse(input);
});
