//! What `export` writes, read by GNU tar, Python, skopeo and umoci: captured hosts, no living engine.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::lab::archive;
use crate::lab::host::Host;
use crate::lab::live::{asked, done};
use crate::lab::needs;
use crate::lab::packed::{
    Packed, assert_same, of_archive, of_directory, sum, without_times_of_directories,
};
use crate::lab::run::{bytes, text, texts};

fn out() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

fn plain(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

#[track_caller]
fn printed(command: &mut Command) -> Vec<u8> {
    asked(command).unwrap_or_else(|why| panic!("{why}"))
}

#[track_caller]
fn exported(host: &Host, target: &str, options: &[&str], to: &Path) -> Value {
    let arguments = ["export", target, "-o", plain(to)].into_iter();
    let output = host.jsonl(arguments.chain(options.iter().copied()));
    output.exits(0).row()
}

/// The layers of an archive for docker, bottom first.
fn layers_of(archive: &Path) -> Vec<Packed> {
    let layers = streams_of(archive).into_iter();
    layers.map(|layer| of_archive(&layer[..])).collect()
}

/// The same as they are in it.
fn streams_of(archive: &Path) -> Vec<Vec<u8>> {
    let blobs = archive::read(File::open(archive).expect("it was written"));
    let blobs: BTreeMap<Vec<u8>, Vec<u8>> = blobs
        .into_iter()
        .map(|(path, meta)| (path, meta.content))
        .collect();
    let list: Value = serde_json::from_slice(&blobs[&b"manifest.json"[..]]).expect("JSON");
    let layers = list[0]["Layers"].as_array().expect("layers").iter();
    let named = layers.map(|name| blobs[name.as_str().expect("a name").as_bytes()].clone());
    named.collect()
}

/// A store of whole copies: a name that differs in nothing is one with what was linked to it.
#[apply(test)]
fn a_new_name_of_an_old_file_is_no_other_file() {
    needs::time();
    needs::captured_hosts();
    for name in ["docker-vfs", "podman-vfs"] {
        let host = Host::captured(name);
        let row = host.jsonl(["containers"]).exits(0).rows().remove(0);
        let container = text(&row, "target").to_owned();
        let branches = host.branches_of(&container);
        let root = host.at(String::from_utf8(branches[0].clone()).expect("plain names"));
        let shown = of_directory(&root);
        let changed = host.jsonl(["changes", &container]).exits(0).rows();
        let changed: Vec<Vec<u8>> = changed.iter().map(|row| bytes(&row["path"])).collect();
        let is_one = |(path, entry): &(&Vec<u8>, &crate::lab::packed::Entry)| {
            entry.kind == "file"
                && entry.same_as.is_none()
                && entry.size > 0
                && !changed.contains(&[b"/", &path[..]].concat())
        };
        let (old, _) = shown.iter().find(is_one).expect("a file");
        let old = String::from_utf8(old.clone()).expect("plain names");
        fs::create_dir(root.join("a")).expect("ours");
        for new in ["a/first", "zlast"] {
            fs::hard_link(root.join(&old), root.join(new)).expect("ours");
        }
        let home = out();
        let to = home.path().join("container.tar");
        // These hosts' layers have no recipes.
        let options = ["--as", "docker", "--as-is"];
        let to_text = plain(&to).to_owned();
        let arguments = ["export", &container, "-o", &to_text].into_iter();
        let _ = host.jsonl(arguments.chain(options));
        let layer = layers_of(&to).pop().expect("a layer");
        let same = [&old[..], "a/first", "zlast"].map(|path| {
            let entry = layer.get(path.as_bytes());
            let entry = entry.unwrap_or_else(|| panic!("{name}: {path} is not in the layer"));
            (entry.same_as.clone(), entry.sum.clone())
        });
        assert_eq!(same[0].0.as_deref(), Some(&b"a/first"[..]), "{name}");
        assert_eq!(same[0], same[1], "{name}");
        assert_eq!(same[0], same[2], "{name}");
        // Nothing is in it twice, and nothing else but what changed and its other names.
        let mut expected: Vec<Vec<u8>> = vec![old.into_bytes()];
        let changed = host.jsonl(["changes", &container]).exits(0).rows();
        expected.extend(changed.iter().filter_map(|row| {
            let is_deleted = text(row, "change") == "deleted";
            (!is_deleted).then(|| bytes(&row["path"])[1..].to_vec())
        }));
        let stream = streams_of(&to).pop().expect("a layer");
        let names = archive::read(&stream[..]).into_iter().map(|(path, _)| path);
        let names = names.map(|path| path.strip_suffix(b"/").unwrap_or(&path).to_vec());
        let is_mark = |path: &Vec<u8>| path.windows(4).any(|part| part == b".wh.");
        let mut names: Vec<Vec<u8>> = names.filter(|path| !is_mark(path)).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count, "{name}: nothing is there twice");
        let inode = |path: &Vec<u8>| {
            let meta = fs::symlink_metadata(root.join(OsStr::from_bytes(path)));
            meta.expect("it is shown").ino()
        };
        let changed: BTreeSet<u64> = expected.iter().map(inode).collect();
        for path in &names {
            let is_of_changed = changed.contains(&inode(path));
            assert!(is_of_changed, "{name}: {}", path.escape_ascii());
        }
    }
}

/// What an image's layers make, as umoci unpacks them; none of an engine's that it is in.
fn unpacked(layout: &Path, tag: &str, bundle: &Path) -> Packed {
    let image = format!("{}:{tag}", plain(layout));
    let mut umoci = Command::new("umoci");
    printed(umoci.args(["unpack", "--image", &image]).arg(bundle));
    without_times_of_directories(of_directory(&bundle.join("rootfs")))
}

#[apply(test)]
fn umoci_and_skopeo_read_what_gnu_tar_reads() {
    needs::time();
    needs::captured_hosts();
    for (program, argument) in [
        ("umoci", "--version"),
        ("skopeo", "--version"),
        ("tar", "--version"),
    ] {
        needs::program(program, argument);
    }
    for (name, image, options) in [
        ("docker-aufs-webapp", "training/webapp", &[][..]),
        (
            "docker-28-overlay2",
            "lab/small:edge",
            &["--compress", "gzip"],
        ),
        ("podman-5.8-overlay", "localhost/lab/small:edge", &[]),
        (
            "containerd-2.1",
            "containerd:default/docker.io/library/app:1",
            &[],
        ),
    ] {
        let (host, home) = (Host::captured(name), out());
        let layout = home.path().join("layout");
        let row = exported(&host, image, options, &layout);
        let index = fs::read(layout.join("index.json")).expect("an index");
        let index: Value = serde_json::from_slice(&index).expect("JSON");
        let annotations = &index["manifests"][0]["annotations"];
        let tag = text(annotations, "org.opencontainers.image.ref.name");
        let listed = printed(
            Command::new("umoci")
                .args(["list", "--layout"])
                .arg(&layout),
        );
        let listed = String::from_utf8_lossy(&listed).into_owned();
        assert!(listed.lines().any(|line| line == tag), "{name}: {listed}");

        // The same image by both, in every form.
        let docker = home.path().join("docker.tar");
        let oci = home.path().join("oci.tar");
        exported(
            &host,
            image,
            &[&["--as", "docker"], options].concat(),
            &docker,
        );
        exported(&host, image, &[&["--as", "oci"], options].concat(), &oci);
        for from in [
            format!("oci:{}:{tag}", plain(&layout)),
            format!("oci-archive:{}:{tag}", plain(&oci)),
            format!("docker-archive:{}", plain(&docker)),
        ] {
            let mut skopeo = Command::new("skopeo");
            let config = printed(skopeo.args(["inspect", "--config", "--raw", &from]));
            assert_eq!(
                row["image"],
                format!("sha256:{}", sum(&config)),
                "{name} {from}"
            );
            let to = home.path().join("copied");
            let mut skopeo = Command::new("skopeo");
            // It holds every blob against its digest.
            skopeo.args(["copy", "--insecure-policy", "--quiet", &from]);
            printed(skopeo.arg(format!("dir:{}", plain(&to))));
            let manifest = fs::read(to.join("manifest.json")).expect("a manifest");
            let manifest: Value = serde_json::from_slice(&manifest).expect("JSON");
            assert_eq!(manifest["config"]["digest"], row["image"], "{name} {from}");
            fs::remove_dir_all(to).expect("ours");
        }

        // umoci's tree is what the stack shows, which GNU tar unpacks.
        let bundle = home.path().join("bundle");
        let made = unpacked(&layout, tag, &bundle);
        let (files, to) = (home.path().join("files.tar"), home.path().join("files"));
        exported(&host, image, &["--as", "tar"], &files);
        fs::create_dir(&to).expect("ours");
        let mut tar = Command::new("tar");
        tar.args(["--xattrs", "--xattrs-include=*", "--numeric-owner", "-xpf"]);
        done(tar.arg(&files).arg("-C").arg(&to)).unwrap_or_else(|why| panic!("{why}"));
        let shown = without_times_of_directories(of_directory(&to));
        let mut by_umoci = shown.clone();
        for entry in by_umoci.values_mut() {
            // An attribute without a value is none to Go's reader of archives.
            entry.xattrs.retain(|_, value| !value.is_empty());
        }
        assert_same(&format!("{name}: umoci and GNU tar"), &made, &by_umoci);
        let archive = of_archive(File::open(&files).expect("it was written"));
        let archive = without_times_of_directories(archive);
        assert_same(&format!("{name}: GNU tar"), &archive, &shown);
        let layers = row["layers"].as_array().expect("layers");
        assert!(
            texts(layers, "origin").iter().all(|of| *of == "exact"),
            "{row}"
        );
    }
}

/// A manifest that is made for a container has OCI's types, whatever its image's manifest calls the same:
/// umoci knows no others.
#[apply(test)]
fn layers_in_a_manifest_of_ours_have_oci_s_types() {
    needs::captured_hosts();
    let (host, home) = (Host::captured("docker-28-containerd"), out());
    let blobs =
        host.at("/var/lib/docker/containerd/daemon/io.containerd.content.v1.content/blobs/sha256");
    let mut renamed = 0;
    for blob in fs::read_dir(blobs).expect("a store") {
        let path = blob.expect("a blob").path();
        let content = fs::read(&path).expect("a blob");
        if let Ok(text) = String::from_utf8(content) {
            let other = "application/vnd.docker.image.rootfs.diff.tar.gzip";
            let after = text.replace("application/vnd.oci.image.layer.v1.tar+gzip", other);
            renamed += usize::from(after != text);
            fs::write(path, after).expect("ours");
        }
    }
    assert!(renamed > 0);
    let rows = host.jsonl(["containers"]).exits(0).rows();
    let layout = home.path().join("layout");
    let arguments = [
        "export",
        text(&rows[0], "target"),
        "--as",
        "oci",
        "-o",
        plain(&layout),
    ];
    let row = host.jsonl(arguments).row();
    assert!(row["image"].is_string(), "{row}");
    let read = |path: &str| -> Value {
        let text = fs::read(layout.join(path)).expect("it was written");
        serde_json::from_slice(&text).expect("JSON")
    };
    let digest = read("index.json")["manifests"][0]["digest"].take();
    let digest = digest.as_str().expect("a digest").replace(':', "/");
    let manifest = read(&format!("blobs/{digest}"));
    let layers = manifest["layers"].as_array().expect("layers");
    assert!(layers.len() > 2);
    for kind in texts(layers, "mediaType") {
        assert!(
            kind.starts_with("application/vnd.oci.image.layer.v1.tar"),
            "{kind}"
        );
    }
}
