//! `export`: images and containers, read back by programs that we did not write.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::lab::archive;
use crate::lab::captured::Captured;
use crate::lab::host::Host;
use crate::lab::needs;
use crate::lab::packed::{ENGINES_OWN, of_archive};
use crate::lab::run::{self, bytes, text, texts};
use crate::lab::union::Union;

/// Python's own reader of archives tells of a layout, and holds every blob against its name.
const READER: &str = r#"
import hashlib, io, json, sys, tarfile, gzip
def spelled(name):
    return name.encode('utf-8', 'surrogateescape').decode('latin-1')
def files(path):
    if path.endswith('.tar'):
        with tarfile.open(path) as archive:
            for member in archive:
                yield member.name, archive.extractfile(member).read()
    else:
        import os
        for at, _, names in os.walk(path):
            for name in names:
                whole = os.path.join(at, name)
                yield os.path.relpath(whole, path), open(whole, 'rb').read()
blobs, others = {}, {}
for name, content in files(sys.argv[1]):
    if name.startswith('blobs/'):
        assert name == 'blobs/sha256/' + hashlib.sha256(content).hexdigest(), name
        blobs['sha256:' + name[13:]] = content
    else:
        others[name] = json.loads(content)
images = []
for entry in others['index.json']['manifests']:
    assert len(blobs[entry['digest']]) == entry['size']
    manifest = json.loads(blobs[entry['digest']])
    config = json.loads(blobs[manifest['config']['digest']])
    diff_ids, entries = [], []
    for layer in manifest['layers']:
        content = blobs[layer['digest']]
        assert len(content) == layer['size']
        if layer['mediaType'].endswith('gzip'):
            content = gzip.decompress(content)
        elif layer['mediaType'].endswith('zstd'):
            content = None
        if content is None:
            diff_ids.append(None)
            continue
        diff_ids.append('sha256:' + hashlib.sha256(content).hexdigest())
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            entries.append([spelled(member.name) for member in archive])
    images.append({'id': manifest['config']['digest'], 'manifest': entry['digest'], 'config': config,
        'diff_ids': diff_ids, 'entries': entries, 'annotations': entry.get('annotations', {})})
print(json.dumps({'images': images, 'docker': others.get('manifest.json'), 'layout': others['oci-layout']}))
"#;

#[track_caller]
fn read_back(path: &Path) -> Value {
    let output = Command::new("python3")
        .args(["-c", READER])
        .arg(path)
        .output()
        .expect("python3 ran before");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {complaint}", path.display());
    serde_json::from_slice(&output.stdout).expect("our own reader")
}

fn out() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

/// What is written of an image of a captured host.
#[track_caller]
fn exported(host: &Host, image: &str, options: &[&str], to: &Path) -> Value {
    let to = to.to_str().expect("a plain path");
    let arguments = ["export", image, "-o", to].into_iter();
    host.jsonl(arguments.chain(options.iter().copied()))
        .exits(0)
        .row()
}

#[track_caller]
fn diff_ids(image: &Value) -> &Value {
    assert_eq!(image["diff_ids"], image["config"]["rootfs"]["diff_ids"]);
    &image["diff_ids"]
}

/// A user's store, and pods with users of their own: as those know them inside. The host's listing of the same
/// files has what root is outside; an archive of the image, which has root's files, root.
#[apply(test)]
fn owners_are_those_that_the_container_sees() {
    needs::time();
    needs::captured_hosts();
    for (name, target, outside) in [
        ("podman-rootless-overlay", "podman:run-a", 4242),
        ("podman-rootless-overlay", "podman:stop-a", 4242),
        ("podman-rootless-fuse-overlayfs", "podman:run-a", 4242),
        ("containerd-2.1", "containerd:k8s.io/usr-0/u", 100_000),
        ("containerd-2.1", "containerd:k8s.io/usr-0/u2", 100_000),
    ] {
        let host = Host::captured(name);
        let listed = host.jsonl(["ls", "-l", "-R", target]).rows();
        let shown = listed.iter().filter(|row| row["uid"] == outside).count();
        assert!(shown > 20, "{name} {target}: {shown}");
        for form in [&[][..], &["--as", "docker", "--flat"]] {
            let arguments = [&["export", target, "-o", "-"], form].concat();
            let output = host.ask(arguments);
            let archive = if form.is_empty() {
                output.stdout
            } else {
                layer_of(&output.stdout)
            };
            let all = of_archive(&archive[..]);
            let count = |owner| all.values().filter(|entry| entry.owner == owner).count();
            assert!(
                count((0, 0)) >= shown.min(20),
                "{name} {target}: {}",
                count((0, 0))
            );
            assert_eq!(count((outside, outside)), 0, "{name} {target}");
            assert_eq!(all[&b"etc"[..]].owner, (0, 0), "{name} {target}");
        }
    }
}

/// The only layer of a docker archive.
fn layer_of(archive: &[u8]) -> Vec<u8> {
    let files = archive::read(archive);
    let layers = files.into_iter().filter(|(name, meta)| {
        name.starts_with(b"blobs/") && meta.content.get(257..262) == Some(b"ustar")
    });
    let mut contents = layers.map(|(_, meta)| meta.content);
    contents.next().expect("a layer")
}

#[apply(test)]
fn images_leave_with_their_ids() {
    needs::time();
    needs::captured_hosts();
    needs::program("python3", "--version");
    // Of each store an image, and the id that the engine itself called it by.
    for (name, image, id) in [
        ("docker-aufs-webapp", "training/webapp", "11795f21f8d6"),
        ("docker-28-overlay2", "lab/web:2", "7a79e3d3c46f"),
        ("podman-5.8-overlay", "localhost/lab/web:2", "5468084d8fdb"),
        (
            "podman-5.8-composefs",
            "127.0.0.1:5000/lab/web:2",
            "ef61357fd858",
        ),
    ] {
        let host = Host::captured(name);
        let home = out();
        for (to, options) in [
            ("docker.tar", &[][..]),
            ("oci.tar", &["--as", "oci", "--compress", "gzip"]),
            ("oci", &[]),
            ("zstd.tar", &["--compress", "zstd"]),
        ] {
            let to = home.path().join(to);
            let row = exported(&host, image, options, &to);
            let own = text(&row, "image");
            assert!(own.starts_with(&format!("sha256:{id}")), "{name}: {own}");
            let read = read_back(&to);
            let first = &read["images"][0];
            assert_eq!(text(first, "id"), own, "{name}");
            assert_eq!(read["layout"], json!({"imageLayoutVersion": "1.0.0"}));
            if !options.contains(&"zstd") {
                diff_ids(first);
            }
            let layers = row["layers"].as_array().expect("layers");
            let origins = texts(layers, "origin");
            assert!(
                origins.iter().all(|of| *of == "exact"),
                "{name} {origins:?}"
            );
            let said = &first["config"]["rootfs"]["diff_ids"];
            assert_eq!(json!(texts(layers, "diff_id")), *said, "{name}");
            let is_docker = !to.ends_with("oci") && !to.ends_with("oci.tar");
            assert_eq!(read["docker"].is_array(), is_docker, "{name}");
            assert!(first["annotations"]["io.containerd.image.name"].is_string());
        }
    }
}

/// containerd's content is what was pulled, and leaves as it is: with the manifest that it has.
#[apply(test)]
fn kept_archives_leave_as_they_are() {
    needs::time();
    needs::captured_hosts();
    needs::program("python3", "--version");
    let host = Host::captured("containerd-2.1");
    let home = out();
    for (image, to) in [
        ("containerd:default/docker.io/library/app:1", "app.tar"),
        ("containerd:default/quay.io/x/zst:1", "zst"),
    ] {
        let to = home.path().join(to);
        let row = exported(&host, image, &[], &to);
        let read = read_back(&to);
        let own = &read["images"][0];
        assert_eq!(own["id"], row["image"]);
        let manifest = text(own, "manifest").trim_start_matches("sha256:");
        let store = "/var/lib/containerd/io.containerd.content.v1.content/blobs/sha256";
        let kept = host.read(format!("{store}/{manifest}"));
        assert!(kept.starts_with(b"{"), "{image}: its own manifest");
        // Packed anew it is another manifest of the same image.
        let other = home.path().join("none.tar");
        let row = exported(&host, image, &["--compress", "none", "--force"], &other);
        let read = read_back(&other);
        assert_eq!(read["images"][0]["id"], row["image"]);
        diff_ids(&read["images"][0]);
        assert_ne!(text(&read["images"][0], "manifest"), text(own, "manifest"));
    }
}

#[apply(test)]
fn several_images_share_their_layers() {
    needs::captured_hosts();
    needs::program("python3", "--version");
    let host = Host::captured("podman-5.8-overlay");
    let home = out();
    let to = home.path().join("all.tar");
    let output = host.jsonl([
        "export".as_ref(),
        "localhost/lab/web:2".as_ref(),
        "localhost/lab/base:1".as_ref(),
        "-o".as_ref(),
        to.as_os_str(),
    ]);
    let rows = output.exits(0).rows();
    assert_eq!(rows.len(), 2);
    let read = read_back(&to);
    // The first has three names.
    let ids = texts(read["images"].as_array().expect("images"), "id");
    assert_eq!(ids.len(), 4);
    assert_eq!(ids[0], text(&rows[0], "image"));
    assert_eq!(ids[3], text(&rows[1], "image"));
    assert_eq!(read["docker"].as_array().map(Vec::len), Some(2));
    let entries = Command::new("tar").arg("-tf").arg(&to).output();
    let entries = String::from_utf8(entries.expect("tar is there").stdout).expect("names");
    let mut names: Vec<&str> = entries.lines().collect();
    names.sort_unstable();
    let count = names.len();
    names.dedup();
    assert_eq!(names.len(), count, "nothing is there twice");
}

/// A container as an image: the layers of its image, and one with its changes. What its layers make is
/// what it showed.
#[apply(test)]
fn a_container_leaves_as_an_image() {
    needs::time();
    needs::captured_hosts();
    needs::program("python3", "--version");
    for (name, container, image) in [
        ("docker-aufs-webapp", "web1", "training/webapp"),
        ("docker-28-overlay2", "web-1", "lab/web:2"),
        ("podman-5.8-overlay", "web-1", "localhost/lab/web:2"),
    ] {
        let host = Host::captured(name);
        let home = out();
        let whole = home.path().join("container.tar");
        let to = whole.to_str().expect("a plain path");
        let output = host.jsonl(["export", container, "--as", "docker", "-o", to]);
        // A file that is called as OCI calls what is deleted cannot be in a layer.
        let row = if name == "docker-aufs-webapp" {
            output.exits(0).row()
        } else {
            let output = output
                .exits(2)
                .says("/data/odd/.wh.looks: is called as a layer");
            output.row()
        };
        let read = read_back(&whole);
        let own = &read["images"][0];
        assert_eq!(own["id"], row["image"]);
        let ids = diff_ids(own).as_array().expect("ids").clone();
        let base = home.path().join("image.tar");
        exported(&host, image, &[], &base);
        let base = read_back(&base)["images"][0].take();
        let below = base["diff_ids"].as_array().expect("ids");
        assert_eq!(ids[..ids.len() - 1], below[..], "{name}");
        let marks = deleted(&host, container).into_iter().map(|path| {
            let at = path
                .iter()
                .rposition(|byte| *byte == b'/')
                .expect("an absolute path");
            // As Python's reader spells names that are not UTF-8.
            let mark = [&path[1..=at], b".wh.", &path[at + 1..]].concat();
            mark.iter().map(|byte| char::from(*byte)).collect()
        });
        let marks: Vec<String> = marks.collect();
        let last = own["entries"].as_array().expect("layers").last();
        let last: Vec<&str> = last
            .expect("a layer")
            .as_array()
            .expect("names")
            .iter()
            .filter_map(Value::as_str)
            .collect();
        assert!(!marks.is_empty());
        for mark in &marks {
            assert!(last.contains(&mark.as_str()), "{name}: {mark} of {last:?}");
        }
        let history = own["config"]["history"].as_array().expect("a history");
        let steps = base["config"]["history"].as_array().expect("a history");
        assert_eq!(history.len(), steps.len() + 1);
        assert_eq!(text(&history[steps.len()], "created_by"), "layerctl export");
        assert_view(&host, container, &whole, home.path());
    }
}

/// The paths of what a container deleted.
fn deleted(host: &Host, container: &str) -> Vec<Vec<u8>> {
    let rows = host.jsonl(["changes", container]).exits(0).rows();
    let deleted = rows.iter().filter(|row| row["change"] == "deleted");
    deleted.map(|row| bytes(&row["path"])).collect()
}

/// Layers on top of each other, as the OCI specification says that they are applied, in Python.
const APPLIER: &str = r#"
import hashlib, io, json, os, sys, tarfile
def spelled(name):
    return name.encode('utf-8', 'surrogateescape').decode('latin-1')
blobs = {}
with tarfile.open(sys.argv[1]) as archive:
    for member in archive:
        blobs[member.name] = archive.extractfile(member).read()
manifest = json.loads(blobs['manifest.json'])[0]
view = {}
def drop(path, itself):
    for name in [name for name in view if (itself and name == path) or name.startswith(path + '/')]:
        del view[name]
for layer in manifest['Layers']:
    added = {}
    with tarfile.open(fileobj=io.BytesIO(blobs[layer])) as archive:
        for member in archive:
            path = os.path.normpath(member.name)
            parent, name = os.path.split(path)
            if name == '.wh..wh..opq':
                drop(parent, False)
            elif name.startswith('.wh.'):
                drop(os.path.join(parent, name[4:]), True)
            else:
                content = archive.extractfile(member).read() if member.isfile() or member.islnk() else b''
                kind = b'0' if member.islnk() else member.type
                of = archive.getmember(member.linkname) if member.islnk() else member
                added[path] = [kind.decode(), of.mode & 0o7777, of.uid, of.gid, of.linkname if member.issym() else '', hashlib.sha256(content).hexdigest()]
    for path, entry in added.items():
        if path in view and view[path][0] != entry[0]:
            drop(path, True)
    view.update(added)
view.pop('.', None)
print(json.dumps({spelled(name): entry for name, entry in view.items()}))
"#;

/// The same of a tar of files.
const LISTER: &str = r#"
import hashlib, json, os, sys, tarfile
def spelled(name):
    return name.encode('utf-8', 'surrogateescape').decode('latin-1')
view = {}
with tarfile.open(sys.argv[1]) as archive:
    for member in archive:
        content = archive.extractfile(member).read() if member.isfile() or member.islnk() else b''
        kind = b'0' if member.islnk() else member.type
        of = archive.getmember(member.linkname) if member.islnk() else member
        view[os.path.normpath(member.name)] = [kind.decode(), of.mode & 0o7777, of.uid, of.gid, of.linkname if member.issym() else '', hashlib.sha256(content).hexdigest()]
print(json.dumps({spelled(name): entry for name, entry in view.items()}))
"#;

#[track_caller]
fn listed(script: &str, archive: &Path) -> BTreeMap<String, Value> {
    let output = Command::new("python3")
        .args(["-c", script])
        .arg(archive)
        .output()
        .expect("python3 ran before");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaint}");
    serde_json::from_slice(&output.stdout).expect("our own reader")
}

/// Demands that an image's layers make what the container shows.
#[track_caller]
fn assert_view(host: &Host, container: &str, archive: &Path, home: &Path) {
    let files = home.join("files.tar");
    exported(host, container, &[], &files);
    let (made, shown) = (listed(APPLIER, archive), listed(LISTER, &files));
    let is_own = |path: &str| {
        let mut own = ENGINES_OWN.iter().chain(&["data/odd/.wh.looks"]);
        own.any(|own| path == *own || path.starts_with(&format!("{own}/")))
    };
    let paths = made.keys().chain(shown.keys());
    let wrong: Vec<String> = paths
        .filter(|path| !is_own(path) && made.get(*path) != shown.get(*path))
        .map(|path| format!("{path}: {:?} {:?}", made.get(path), shown.get(path)))
        .collect();
    assert!(wrong.is_empty(), "{container}\n{}", wrong.join("\n"));
    assert!(shown.len() > 20);
}

/// `docker export` of a host with AUFS listed by GNU tar, and ours by the same.
#[apply(test)]
fn a_container_leaves_as_docker_exports_it() {
    needs::captured_hosts();
    let captured = Captured::new("docker-aufs-webapp");
    let home = out();
    for container in ["web1", "web2", "web3", "base1"] {
        let to = home.path().join(format!("{container}.tar"));
        let row = exported(&captured.host, container, &[], &to);
        assert_eq!(text(&row, "as"), "tar");
        assert_eq!(
            row["size"].as_u64(),
            fs::metadata(&to).ok().map(|file| file.len())
        );
        let listed = Command::new("tar")
            .args(["--numeric-owner", "-tf"])
            .arg(&to)
            .output()
            .expect("tar is there");
        let names = |listed: &str| {
            let mut names: Vec<String> = listed.lines().map(str::to_owned).collect();
            names.sort_unstable();
            names
        };
        let said: Vec<String> = captured
            .said(&format!("export-{container}.lst"))
            .lines()
            .map(name_of)
            .collect();
        let ours = names(&String::from_utf8_lossy(&listed.stdout));
        let said = names(&said.join("\n"));
        assert_eq!(ours, said, "{container}");
    }
}

/// The name in a line of `tar -tv`.
fn name_of(line: &str) -> String {
    let mut rest = line;
    // Mode, owner, size, date, time.
    for _ in 0..5 {
        rest = rest.trim_start();
        rest = &rest[rest.find(' ').expect("a line of tar")..];
    }
    let name = &rest[1..];
    let end = [" -> ", " link to "]
        .iter()
        .filter_map(|of| name.find(of))
        .min();
    name[..end.unwrap_or(name.len())].to_owned()
}

#[apply(test)]
fn what_does_not_fit_is_named_and_nothing_is_written() {
    needs::captured_hosts();
    needs::program("python3", "--version");
    let host = Host::captured("podman-5.8-overlay");
    let home = out();
    let layers = host.at("/var/lib/containers/storage/overlay");
    let mut spoilt = Vec::new();
    for entry in walkdir::WalkDir::new(&layers).sort_by_file_name() {
        let entry = entry.expect("our own");
        let path = entry.path();
        if entry.file_type().is_file() && path.ends_with("etc/passwd") {
            let mut content = fs::read(path).expect("our own");
            content[0] ^= 1;
            fs::write(path, content).expect("our own");
            spoilt.push(path.to_owned());
        }
    }
    assert!(!spoilt.is_empty());
    let to = home.path().join("out.tar");
    let to_text = to.to_str().expect("plain");
    let image = "localhost/lab/web:2";
    for (options, to) in [
        (&[][..], "out.tar"),
        (&["--compress", "gzip"], "packed.tar"),
        (&[], "layout"),
    ] {
        let to = home.path().join(to);
        let arguments = ["export", image, "-o", to.to_str().expect("plain")].into_iter();
        let output = host.ask(arguments.chain(options.iter().copied()));
        output
            .exits(2)
            .says("/etc/passwd: has other content than the recipe")
            .says("--as-is");
    }
    let left: Vec<_> = fs::read_dir(home.path()).expect("our own").collect();
    assert!(left.is_empty(), "{left:?}");
    // As it is, it is another image.
    let row = exported(&host, image, &["--as-is"], &to);
    let layers = row["layers"].as_array().expect("layers");
    let origins = texts(layers, "origin");
    assert!(origins.contains(&"as-is") && origins.contains(&"exact"));
    for layer in layers {
        let faults = layer["faults"].as_array();
        assert_eq!(faults.is_some(), layer["origin"] == "as-is", "{layer}");
        let names = |of: &Value| of.as_str().is_some_and(|of| of.contains("/etc/passwd: "));
        assert!(faults.is_none_or(|faults| faults.iter().all(names)));
    }
    let read = read_back(&to);
    diff_ids(&read["images"][0]);
    assert!(!text(&row, "image").starts_with("sha256:5468084d8fdb"));
    // What is there is not overwritten.
    host.ask(["export", image, "--as-is", "-o", to_text])
        .exits(2)
        .says("File exists");
    exported(&host, image, &["--as-is", "--force"], &to);
    // Without its recipe nothing gives a layer back.
    for entry in fs::read_dir(host.at("/var/lib/containers/storage/overlay-layers")).expect("ours")
    {
        let path = entry.expect("ours").path();
        if path.to_string_lossy().ends_with(".tar-split.gz") {
            fs::remove_file(path).expect("ours");
        }
    }
    host.ask([
        "export",
        image,
        "-o",
        home.path().join("b.tar").to_str().expect("plain"),
    ])
    .exits(2)
    .says("has lost the recipe of its archive");
}

#[apply(test)]
fn a_stack_leaves_as_files_or_as_an_image() {
    needs::program("python3", "--version");
    let union = Union::usual();
    union
        .file("low/d/one", "content")
        .file("low/d/gone", "")
        .mark("mid/d/.wh.gone")
        .file("mid/d/two", "2");
    let home = out();
    let spelled = union.spelled();
    let run = |options: &[&str], to: &Path| {
        let mut command = run::command();
        command.args(["--format", "jsonl", "export"]).arg(&spelled);
        command
            .args(options)
            .arg("-o")
            .arg(to)
            .current_dir(union.home());
        run::run(&mut command).exits(0).row()
    };
    let to = home.path().join("files.tar");
    run(&[], &to);
    let files = listed(LISTER, &to);
    let names: Vec<&str> = files.keys().map(String::as_str).collect();
    assert_eq!(names, ["d", "d/one", "d/two"]);
    let to = home.path().join("image.tar");
    let row = run(&["--as", "docker"], &to);
    let layers = row["layers"].as_array().expect("layers");
    assert_eq!(texts(layers, "origin"), ["new"]);
    assert_eq!(listed(APPLIER, &to), files);
    let read = read_back(&to);
    assert_eq!(read["images"][0]["id"], row["image"]);
    // A directory of the union is no place for it.
    let mut command = run::command();
    command
        .arg("export")
        .arg(&spelled)
        .args(["-o", "low/out.tar"])
        .current_dir(union.home());
    run::run(&mut command)
        .exits(2)
        .says("lies in the union's own branch");
}

/// Recipes of an attacker: nothing outside of the layer is read, nothing without end is made.
#[apply(test)]
fn hostile_recipes_are_refused() {
    let line = |name: &str, size: u64| json!({"type": 1, "name": name, "size": size, "payload": "AAAAAAAAAAA=", "position": 0});
    let bomb = [
        b"{\"type\":2,\"payload\":\"".to_vec(),
        vec![b'A'; 20 << 20],
        b"\"}\n".to_vec(),
    ]
    .concat();
    for (lines, words) in [
        (
            line("../../../../../../etc/passwd", 5).to_string(),
            "leads out of the layer",
        ),
        (
            line("/etc/hostname", 5).to_string(),
            "/etc/hostname: is missing",
        ),
        (line("out/passwd", 5).to_string(), "is no file"),
        (line("dir", 5).to_string(), "is no file"),
        (line("file", u64::MAX / 4).to_string(), "pebibyte"),
        (
            line("file", 1 << 40).to_string(),
            "has 4 bytes, and the recipe 1099511627776",
        ),
        (String::from_utf8(bomb).expect("text"), "16 MiB"),
        ("no json".into(), "has a line that no recipe has"),
    ] {
        let host = Host::empty();
        stored(&host, lines.as_bytes());
        host.ask(["export", "acme/app:1", "-o", "-"])
            .exits(2)
            .says(words);
    }
}

/// A Docker host with one image of one layer, whose recipe is given.
fn stored(host: &Host, recipe: &[u8]) {
    let docker = "/var/lib/docker";
    let hex = |bytes: &[u8]| -> String {
        let digest = Sha256::digest(bytes);
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    };
    let diff_id = hex(b"not what it is");
    let cache_id = "c".repeat(64);
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": {}, "created": "2026-01-02T03:04:05Z",
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{diff_id}")]},
        "history": [{"created": "2026-01-02T03:04:05Z", "created_by": "COPY"}],
    })
    .to_string();
    let id = hex(config.as_bytes());
    host.file(
        format!("{docker}/image/overlay2/imagedb/content/sha256/{id}"),
        config,
    );
    let names = json!({"Repositories": {"acme/app": {"acme/app:1": format!("sha256:{id}")}}});
    host.file(
        format!("{docker}/image/overlay2/repositories.json"),
        names.to_string(),
    );
    let layer = format!("{docker}/image/overlay2/layerdb/sha256/{diff_id}");
    host.file(format!("{layer}/cache-id"), &cache_id);
    host.file(format!("{layer}/diff"), format!("sha256:{diff_id}"));
    host.file(format!("{layer}/size"), "4");
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut packer, recipe).expect("memory");
    host.file(
        format!("{layer}/tar-split.json.gz"),
        packer.finish().expect("memory"),
    );
    let content = format!("{docker}/overlay2/{cache_id}/diff");
    host.file(format!("{content}/file"), "1234");
    host.dir(format!("{content}/dir"));
    host.link(format!("{content}/out"), "/etc");
    host.file(format!("{docker}/overlay2/{cache_id}/link"), "CCC");
}

/// The name of what is written says what it is, and where.
#[apply(test)]
fn names_of_outputs_are_kept() {
    let host = Host::fixture("blog-host");
    let home = out();
    let at = |name: &str| home.path().join(name).to_str().expect("text").to_owned();
    for (targets, to) in [
        (&["busybox"][..], at("image.tar.gz")),
        (&["old_shell"], at("files.tgz")),
        (&["old_shell", "determined_sammet"], at("several.tar")),
        (&["old_shell"], at("no/such/files.tar")),
    ] {
        let words = ["export", "-o", &to]
            .into_iter()
            .chain(targets.iter().copied());
        host.ask(words).exits(2);
    }
    let left = fs::read_dir(home.path()).expect("ours").count();
    assert_eq!(left, 0, "something was made");
    let to = at("several");
    host.ask(["export", "old_shell", "determined_sammet", "-o", &to])
        .exits(0);
    for name in ["docker_old_shell.tar", "docker_determined_sammet.tar"] {
        assert!(Path::new(&to).join(name).is_file(), "{name}");
    }
}

/// What `docker load` will call it is in the archive, and said; a container's image has no name unless
/// one is given.
#[apply(test)]
fn an_image_is_called_as_it_is_asked_for() {
    needs::captured_hosts();
    let host = Host::captured("docker-28-overlay2");
    let out = out();
    let names_of = |path: &Path| {
        let listed = Command::new("tar")
            .arg("-xOf")
            .arg(path)
            .arg("manifest.json")
            .output();
        let listed: Value = serde_json::from_slice(&listed.expect("tar").stdout).expect("JSON");
        listed[0]["RepoTags"].clone()
    };
    let export = |name: &str, target: &str, options: &[&str]| {
        let path = out.path().join(name);
        let to = path.to_str().expect("plain names");
        let words = [&["export", target, "--as", "docker", "-o", to], options].concat();
        let row = host.jsonl(words).rows().remove(0);
        (row, names_of(&path))
    };
    let (row, names) = export("plain.tar", "paused-6", &[]);
    assert!(row.get("names").is_none(), "{row}");
    assert_eq!(names, json!([]));
    for (typed, name) in [
        ("paused", "paused:latest"),
        ("team/paused:old", "team/paused:old"),
        (
            "registry.example.com:5000/team/paused:V1.2",
            "registry.example.com:5000/team/paused:V1.2",
        ),
    ] {
        let file = format!("{}.tar", name.len());
        for flat in [&["--force"][..], &["--force", "--flat"]] {
            let options = [flat, &["--tag", typed]].concat();
            let (row, names) = export(&file, "paused-6", &options);
            assert_eq!(row["names"], json!([name]));
            assert_eq!(names, json!([name]), "{typed}");
        }
    }
    // Docker's containerd has names of its own for what docker calls otherwise.
    let snapshots = Host::captured("docker-28-containerd");
    let to = out.path().join("snapshots.tar");
    let to = to.to_str().expect("plain names");
    let row = snapshots
        .jsonl(["export", "lab/small:edge", "--as", "docker", "-o", to])
        .exits(0)
        .row();
    assert_eq!(row["names"], json!(["lab/small:edge"]));
    assert_eq!(names_of(Path::new(to)), json!(["lab/small:edge"]));
    // An image has the names that it has, or the one that was asked for.
    let (row, names) = export("image.tar", "lab/base:1", &[]);
    assert_eq!(
        (&row["names"], &names),
        (&json!(["lab/base:1"]), &json!(["lab/base:1"]))
    );
    let (_, names) = export("renamed.tar", "lab/base:1", &["--tag", "base:old"]);
    assert_eq!(names, json!(["base:old"]));
    let to = out.path().join("no.tar");
    let to = to.to_str().expect("plain names");
    for wrong in [
        "",
        "Web",
        "web:",
        "web:-x",
        "a//b",
        "web@sha256",
        "-web",
        "a b",
    ] {
        let tag = format!("--tag={wrong}");
        let said = host
            .ask(["export", "paused-6", "--as", "docker", "-o", to, &tag])
            .exits(2);
        said.says("is no name of an image");
    }
    host.ask(["export", "paused-6", "-o", to, "--tag", "x"])
        .exits(2)
        .says("add --as docker");
    host.ask([
        "export", "web-1", "paused-6", "--as", "oci", "-o", to, "--tag", "x",
    ])
    .exits(2)
    .says("one TARGET");
}
