//! Configuration in TOML that says where stores are.

#![no_main]

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::{fs, io};

use libfuzzer_sys::fuzz_target;

static ROOT: LazyLock<PathBuf> = LazyLock::new(|| {
    let root = tempfile::tempdir().expect("a temporary directory").keep();
    for directory in ["etc/containers", "etc/containerd", "var/lib/containers/storage/overlay-layers"] {
        fs::create_dir_all(root.join(directory)).expect("a directory of our own");
    }
    root
});

fuzz_target!(|input: &[u8]| {
    for file in ["etc/containers/storage.conf", "etc/containerd/config.toml"] {
        fs::write(ROOT.join(file), input).expect("a file of our own");
    }
    let words = ["layerctl", "--root"].map(OsString::from);
    let words = words.into_iter().chain([ROOT.as_os_str().to_owned(), "info".into()]);
    layerctl::run_to(words, &mut io::sink());
});
