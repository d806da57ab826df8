//! JSON records as engines keep them, each of them the input, read by the verbs that list.

#![no_main]

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::{fs, io};

use libfuzzer_sys::fuzz_target;

const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

static ROOT: LazyLock<PathBuf> = LazyLock::new(|| {
    let root = tempfile::tempdir().expect("a temporary directory").keep();
    for directory in [
        format!("var/lib/docker/containers/{ID}"),
        format!("var/lib/docker/overlay2/{ID}/diff"),
        "var/lib/docker/overlay2/l".into(),
        "var/lib/docker/image/overlay2/imagedb/content/sha256".into(),
        format!("var/lib/docker/image/overlay2/layerdb/mounts/{ID}"),
        "var/lib/containers/storage/overlay".into(),
        "var/lib/containers/storage/overlay-layers".into(),
        format!("var/lib/containers/storage/overlay-images/{ID}"),
        format!("var/lib/containers/storage/overlay-containers/{ID}/userdata"),
    ] {
        fs::create_dir_all(root.join(directory)).expect("a directory of our own");
    }
    root
});

fuzz_target!(|input: &[u8]| {
    for file in [
        format!("var/lib/docker/containers/{ID}/config.v2.json"),
        "var/lib/docker/image/overlay2/repositories.json".into(),
        format!("var/lib/docker/image/overlay2/imagedb/content/sha256/{ID}"),
        "var/lib/containers/storage/overlay-layers/layers.json".into(),
        "var/lib/containers/storage/overlay-images/images.json".into(),
        "var/lib/containers/storage/overlay-containers/containers.json".into(),
        format!("var/lib/containers/storage/overlay-images/{ID}/manifest"),
        format!("var/lib/containers/storage/overlay-containers/{ID}/userdata/config.json"),
    ] {
        fs::write(ROOT.join(file), input).expect("a file of our own");
    }
    for verb in ["containers", "images", "branches", "orphans"] {
        let words = ["layerctl", "--root"].map(OsString::from);
        let words = words.into_iter().chain([ROOT.as_os_str().to_owned(), verb.into()]);
        layerctl::run_to(words, &mut io::sink());
    }
});
