//! One integration binary, one file a feature; the environment is in `lab`.

// Tests make and spoil the disk that the program only reads.
#![allow(clippy::disallowed_methods)]
// A table of cases may be long.
#![allow(clippy::too_many_lines)]

#[macro_use]
extern crate macro_rules_attribute;

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use walkdir::WalkDir;

/// Hands a function to the harness (`lab::harness`): `#[apply(test)]`, instead of `#[test]`, which
/// would be no test here.
macro_rules! test {
    ($(#[$attribute:meta])* fn $name:ident() $body:block) => {
        $(#[$attribute])*
        fn $name() $body

        inventory::submit! {
            $crate::lab::harness::Test {
                name: concat!(module_path!(), "::", stringify!($name)),
                run: $name,
            }
        }
    };
}

mod attributes;
mod blog_host;
mod cat;
mod changes;
mod completions;
mod containerd;
mod containerd_2;
mod containerd_live;
mod covered;
mod cp;
mod cp_kills;
mod cri_live;
mod dependencies;
mod diff;
mod docker_drivers;
mod docker_layouts;
mod docker_live;
mod docs;
mod du;
mod engines_2026;
#[cfg(feature = "internals")]
mod erofs;
#[cfg(feature = "internals")]
mod erofs_images;
mod export;
mod export_read;
mod find;
mod fleet;
mod formats;
mod fuse;
mod hosts;
mod house;
mod identity;
mod in_use;
mod in_use_mounts;
mod kubectl;
mod lab;
mod lost_records;
mod metrics;
mod mislead;
mod mount;
#[cfg(feature = "internals")]
mod oracle;
mod orphans;
mod overlaid;
mod overlay;
mod overlay_mounts;
mod overlay_operations;
mod overlay_restore;
mod parts;
mod pivot;
mod plugin;
mod podman;
mod podman_5;
mod podman_live;
mod podman_stores;
mod readme;
mod records;
mod repeat;
mod report;
mod rescue_live;
mod restore;
mod restore_aufs;
mod restore_calls;
mod restore_hostile;
mod restore_swaps;
mod roots;
mod schema;
mod screens;
mod shells;
mod speed;
#[cfg(feature = "internals")]
mod spellings;
mod stores;
mod target;
mod told;
mod trouble;
mod trust;
#[cfg(feature = "internals")]
mod unions;
mod verify;
mod verify_copies;
mod verify_many;
mod verify_records;
mod version;
mod views;
mod whois;
mod words;

/// A package of the registry depends on nothing but the registry, and so not on itself.
#[cfg(not(feature = "internals"))]
#[apply(test)]
fn oracle_and_spellings() {
    lab::skip("asks modules that a package keeps closed: only with --features internals");
}

/// `#[test]` would be left out without a word: the harness finds `#[apply(test)]`.
#[apply(test)]
fn every_test_is_the_harness_s() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    for entry in WalkDir::new(tests) {
        let path = entry.expect("our own source").into_path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            let source = fs::read_to_string(&path).expect("our own source");
            let mut lines = source.lines().map(str::trim);
            assert!(!lines.any(|line| line == "#[test]"), "{}", path.display());
        }
    }
}

fn main() -> ExitCode {
    lab::harness::main()
}
