//! A hermetic place for tests: fixtures unpacked into temporary directories, stacks made from
//! the oracle's words, and the binary run with an environment of its own.

pub mod oracle;

use std::path::{Path, PathBuf};

pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name)
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
