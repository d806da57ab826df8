//! Layers in EROFS images: Podman's with composefs, on a captured host and as the kernel shows them.
//! containerd's are with the other snapshotters (`containerd_2`).

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use layerctl::internals::branch::{BranchSpec, Permission};
use layerctl::internals::bytes::Bytes;
use layerctl::internals::dir::Dir;
use layerctl::internals::overlay::{Namespace, Rules};
use layerctl::internals::union::{Branch, Entry, Follow, Reading, Stack, lookup};
use layerctl::internals::whiteout::Grammar;
use rustix::fs::{CWD, FileType, Mode, getxattr, listxattr, makedev, mknodat};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::docker_drivers::unescape;
use crate::lab::captured::{Captured, Shared};
use crate::lab::harness::skip_everywhere;
use crate::lab::host::Host;
use crate::lab::needs;
use crate::lab::run::{bytes, text};

const STORE: &str = "/var/lib/containers/storage/overlay";

fn composefs() -> std::sync::Arc<Captured> {
    static SHARED: Shared<Captured> = Shared::new();
    SHARED.get(|| {
        needs::captured_hosts();
        Captured::new("podman-5.8-composefs")
    })
}

/// The branches of a union as `branches` names them: where each is, and its role.
fn branches(host: &Host, name: &str) -> Vec<(String, String)> {
    let row = host.jsonl(["branches", name]).exits(0).row();
    let branches = row["branches"].as_array().expect("branches").iter();
    branches
        .map(|of| {
            (
                text(of, "directory").to_owned(),
                text(of, "role").to_owned(),
            )
        })
        .collect()
}

/// The same, opened.
fn stack(host: &Host, name: &str) -> Stack {
    let rules = Rules {
        metacopy: true,
        ..Rules::of(Namespace::Trusted)
    };
    let open = |(index, (path, role)): (usize, (String, String))| {
        let at = host.at(&path);
        let dir = if path.ends_with(".blob") {
            let parent = Dir::open_root(at.parent().expect("a directory")).expect("a directory");
            parent.open_image(b"composefs.blob")
        } else {
            Dir::open_root(&at)
        };
        let grammar = if role == "data" {
            Grammar::OverlayData
        } else {
            Grammar::Overlay(rules)
        };
        let permission = if index == 0 {
            Permission::RW
        } else {
            Permission::RO
        };
        let spec = BranchSpec {
            path: Bytes::from(path.as_str()),
            permission,
        };
        Branch::new(&spec, grammar, dir)
    };
    Stack::new(
        branches(host, name)
            .into_iter()
            .enumerate()
            .map(open)
            .collect(),
    )
}

fn sum(content: &[u8]) -> String {
    let sum = Sha256::digest(content);
    sum.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The checksum of a file's content, as the union has it.
fn sum_in(stack: &Stack, path: &[u8]) -> String {
    let root = stack.whole(Reading::Nothing);
    let found = lookup(&root, path, Follow::NotLast).expect("a path");
    let (place, name) = found.place.as_ref().expect("a name");
    let Entry::Leaf { from, data, .. } = &found.entry else {
        panic!("{}: {:?}", path.escape_ascii(), found.entry);
    };
    let opened = place.open_content(*from, name, data.as_deref());
    let mut content = Vec::new();
    let mut opened = opened.unwrap_or_else(|error| panic!("{}: {error}", path.escape_ascii()));
    opened.read_to_end(&mut content).expect("content");
    sum(&content)
}

#[apply(test)]
fn the_content_is_what_podman_showed() {
    needs::root("to look into a captured host");
    let host = composefs();
    let mut compared = 0;
    for name in host.named("merged-", ".jsonl") {
        if name.starts_with("export-") {
            continue;
        }
        let stack = stack(&host.host, name);
        let rows = host.jsonl(&format!("merged-{name}.jsonl"));
        for row in rows.iter().filter(|row| row["mounted_over"] != true) {
            let Some(said) = row["sha256"].as_str() else {
                continue;
            };
            let path = unescape(text(row, "path"));
            assert_eq!(
                sum_in(&stack, &path),
                said,
                "{name} {}",
                path.escape_ascii()
            );
            compared += 1;
        }
    }
    assert!(compared > 400, "{compared}");
}

/// What a listing of the kernel's tells of one name.
type Told = (String, u64, u64, u64, Option<u64>, i64);

/// What is below a directory, as the kernel has it.
fn tree(root: &Path) -> BTreeMap<Vec<u8>, Told> {
    let entries = walkdir::WalkDir::new(root).min_depth(1).into_iter();
    let told = entries.map(|entry| {
        let entry = entry.expect("an entry");
        let stat = entry.path().symlink_metadata().expect("what it is");
        let kind = stat.file_type();
        let word = if kind.is_dir() {
            "directory"
        } else if kind.is_symlink() {
            "symlink"
        } else if kind.is_fifo() {
            "fifo"
        } else if kind.is_socket() {
            "socket"
        } else if kind.is_char_device() {
            "char"
        } else if kind.is_block_device() {
            "block"
        } else {
            "file"
        };
        let size = kind.is_file().then_some(stat.len());
        let path = entry.path().strip_prefix(root).expect("below");
        let path = [b"/", path.as_os_str().as_bytes()].concat();
        let (mode, uid, gid) = (stat.mode() & 0o7777, stat.uid(), stat.gid());
        (
            path,
            (
                word.to_owned(),
                mode.into(),
                uid.into(),
                gid.into(),
                size,
                stat.mtime(),
            ),
        )
    });
    told.collect()
}

fn told(row: &Value) -> (Vec<u8>, Told) {
    let number = |field: &str| row[field].as_u64().expect("a number");
    let kind = text(row, "type");
    let mode = u64::from_str_radix(text(row, "mode"), 8).expect("an octal mode");
    let size = row["size"].as_u64().filter(|_| kind == "file");
    let mtime = match row["mtime"].as_i64() {
        Some(seconds) => seconds,
        None => {
            let time: jiff::Timestamp = text(row, "mtime").parse().expect("a time");
            time.as_second()
        }
    };
    let told = (
        kind.to_owned(),
        mode,
        number("uid"),
        number("gid"),
        size,
        mtime,
    );
    (bytes(&row["path"]), told)
}

/// The kernel mounts the images, and an overlay of them, in mounts that end with the shell.
#[apply(test)]
fn the_view_is_what_this_kernel_shows() {
    needs::mounts();
    let known = fs::read_to_string("/proc/filesystems").expect("the kernel's file systems");
    if !known.lines().any(|line| line.trim() == "erofs") {
        skip_everywhere("this kernel has no EROFS");
    }
    let host = composefs();
    for name in ["web-1", "job-3", "stopped-7"] {
        let place = tempfile::tempdir().expect("a directory");
        let mut script = String::from("set -e\n");
        let (mut lowers, mut data) = (Vec::new(), Vec::new());
        for (index, (path, role)) in branches(&host.host, name).into_iter().enumerate() {
            let at = host.host.at(&path);
            let short = format!("{index}");
            let here = place.path().join(&short);
            if path.ends_with(".blob") {
                fs::create_dir(&here).expect("a directory");
                script += &format!("mount -t erofs -o ro,loop '{}' {short}\n", at.display());
            } else {
                std::os::unix::fs::symlink(&at, &here).expect("a link");
            }
            let list = if role == "data" {
                &mut data
            } else {
                &mut lowers
            };
            list.push(short);
        }
        fs::create_dir(place.path().join("merged")).expect("a directory");
        let data: String = data.iter().map(|of| format!("::{of}")).collect();
        let options = format!(
            "ro,metacopy=on,redirect_dir=on,lowerdir={}{data}",
            lowers.join(":")
        );
        script += &format!("mount -t overlay overlay -o {options} merged\n");
        // Outside of the shell's mounts nothing of this is to be seen.
        script += "cp -a merged copy\n";
        script += "(cd merged && find . -type f -print0 | xargs -0 sha256sum -z) > sums\n";
        let mut command = needs::own_mounts();
        command
            .current_dir(place.path())
            .args(["sh", "-c", &script]);
        let output = command.output().expect("a shell");
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        if !output.status.success() && words.contains("loop") {
            skip_everywhere(&format!("no loop device: {words}"));
        }
        assert!(output.status.success(), "{words}");
        let rows = host.host.jsonl(["ls", "-R", "-l", name]).exits(0).rows();
        let ours: BTreeMap<Vec<u8>, Told> = rows.iter().map(told).collect();
        let kernel = tree(&place.path().join("copy"));
        assert_eq!(
            ours.keys().collect::<Vec<_>>(),
            kernel.keys().collect::<Vec<_>>(),
            "{name}"
        );
        for (path, told) in &kernel {
            assert_eq!(&ours[path], told, "{name} {}", path.escape_ascii());
        }
        let stack = stack(&host.host, name);
        let sums = fs::read(place.path().join("sums")).expect("the checksums");
        let sums = sums
            .split(|byte| *byte == 0)
            .filter(|line| !line.is_empty());
        for line in sums {
            let (said, path) = line.split_at(64);
            let path = path.strip_prefix(b"  .").expect("a path");
            let said = std::str::from_utf8(said).expect("digits");
            assert_eq!(sum_in(&stack, path), said, "{name} {}", path.escape_ascii());
        }
    }
}

/// A copy of the host that may be spoilt.
fn own_composefs() -> Host {
    needs::captured_hosts();
    needs::root("to write into a captured host");
    Host::captured("podman-5.8-composefs")
}

/// The upper directory of a container.
fn upper(host: &Host, name: &str) -> String {
    branches(host, name).swap_remove(0).0
}

fn attribute(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = Vec::with_capacity(1024);
    getxattr(path, name, rustix::buffer::spare_capacity(&mut value)).ok()?;
    Some(value)
}

fn attributes(path: &Path) -> Vec<String> {
    let mut names: Vec<u8> = Vec::with_capacity(4096);
    listxattr(path, rustix::buffer::spare_capacity(&mut names)).expect("attributes");
    let names = names
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty());
    names
        .map(|name| String::from_utf8_lossy(name).into_owned())
        .collect()
}

#[apply(test)]
fn what_was_deleted_comes_back_with_all_that_belongs_to_it() {
    let host = own_composefs();
    let upper = upper(&host, "stopped-7");
    // A program with a capability, and one that is somebody's: deleted here.
    let rows = host
        .jsonl(["ls", "-R", "-l", "stopped-7:/opt"])
        .exits(0)
        .rows();
    let before: BTreeMap<Vec<u8>, Told> = rows.iter().map(told).collect();
    let stack_before = stack(&host, "stopped-7");
    let mut capable = 0;
    for name in ["cap", "6"] {
        let path = format!("/opt/app/{name}");
        let said = sum_in(&stack_before, path.as_bytes());
        let at = host.at(format!("{upper}{path}"));
        fs::create_dir_all(at.parent().expect("a directory")).expect("a directory");
        let _ = fs::remove_file(&at);
        mknodat(
            CWD,
            &at,
            FileType::CharacterDevice,
            Mode::empty(),
            makedev(0, 0),
        )
        .expect("a whiteout");
        let target = format!("stopped-7:{path}");
        host.ask(["which", &target]).exits(1);
        host.ask(["restore", "--write", "--strategy", "copy", &target])
            .exits(0);
        let stat = fs::symlink_metadata(&at).expect("what was restored");
        let (kind, mode, uid, gid, size, mtime) = &before[path.as_bytes()];
        assert_eq!(kind, "file");
        assert_eq!(u64::from(stat.mode() & 0o7777), *mode, "{path}");
        assert_eq!(
            (u64::from(stat.uid()), u64::from(stat.gid())),
            (*uid, *gid),
            "{path}"
        );
        assert_eq!((Some(stat.len()), stat.mtime()), (*size, *mtime), "{path}");
        assert_eq!(sum(&fs::read(&at).expect("content")), said, "{path}");
        let names = attributes(&at);
        assert!(
            !names.iter().any(|name| name.contains("overlay")),
            "{names:?}"
        );
        capable += usize::from(attribute(&at, "security.capability").is_some());
    }
    assert_eq!(capable, 1);
    // Beside the union, and whole.
    let out = tempfile::tempdir().expect("a directory");
    let to = out.path().to_str().expect("text");
    host.ask(["restore", "-r", "--to", to, "stopped-7:/data/keep"])
        .exits(0);
    let copied = tree(&out.path().join("keep"));
    let image = host
        .jsonl(["ls", "-R", "-l", "localhost/lab/web:2:/data/keep"])
        .exits(0)
        .rows();
    let image: BTreeMap<Vec<u8>, Told> = image.iter().map(told).collect();
    assert!(copied.len() > 2);
    for (path, told) in &copied {
        assert_eq!(told, &image[&[b"/data/keep", &path[..]].concat()]);
    }
}

#[apply(test)]
fn what_composefs_makes_for_itself_is_nobodys_deletion() {
    let host = composefs();
    let host = &host.host;
    let found = host.ask(["check", "web-1"]).exits(0);
    assert!(
        found.text().starts_with("nothing found\n"),
        "{}",
        found.text()
    );
    let rows = host
        .jsonl(["whiteouts", "--all-layers", "web-1"])
        .exits(0)
        .rows();
    assert!(!rows.is_empty());
    for row in &rows {
        assert_ne!(bytes(&row["path"]).len(), 3, "{row}");
        assert_ne!(row["path"], "/", "{row}");
    }
    // It is deleted all the same: the kernel shows nothing of that name.
    host.ask(["which", "web-1:/00"]).exits(1);
}

#[apply(test)]
fn layers_are_known_by_their_image_and_by_their_objects() {
    let host = composefs();
    let host = &host.host;
    let all = branches(host, "web-1");
    let blob = &all
        .iter()
        .find(|of| of.0.ends_with(".blob"))
        .expect("an image")
        .0;
    let object = {
        let row = host.jsonl(["which", "web-1:/etc/shadow"]).exits(0).row();
        let data = &row["data"];
        let branch = data["branch"].as_u64().expect("a branch");
        format!(
            "{}{}",
            all[usize::try_from(branch).expect("small")].0,
            text(data, "path")
        )
    };
    assert!(host.at(&object).is_file(), "{object}");
    for path in [blob, &object] {
        let row = host.jsonl(["whois", path]).exits(0).row();
        assert_eq!(row["kind"], "image", "{row}");
        let layer = text(&row, "layer");
        assert!(path.starts_with(&format!("{STORE}/{layer}/")), "{row}");
    }
    assert_eq!(host.ask(["orphans"]).exits(0).text(), "nothing found\n");
    host.ask(["du"]).exits(0);
}

#[apply(test)]
fn an_image_that_cannot_be_read_is_named() {
    let host = own_composefs();
    let all = branches(&host, "web-1");
    let blob = &all
        .iter()
        .find(|of| of.0.ends_with(".blob"))
        .expect("an image")
        .0;
    let at = host.at(blob);
    let whole = fs::read(&at).expect("an image");
    let mut feature = whole.clone();
    feature[1024 + 80] |= 0x80;
    let mut no_image = whole.clone();
    no_image[1024] ^= 1;
    let mut number = whole.clone();
    number[1024 + 14] = 0xff;
    for (bytes, why) in [
        (Some(no_image), "neither a directory nor an EROFS image"),
        (Some(feature), "addresses of 48 bits"),
        (Some(number), "damaged EROFS image"),
        (
            Some(whole[..1000].to_vec()),
            "neither a directory nor an EROFS image",
        ),
        (None, "No such file"),
    ] {
        match bytes {
            Some(bytes) => fs::write(&at, bytes).expect("an image"),
            None => fs::remove_file(&at).expect("an image"),
        }
        for ask in [
            &["ls", "-R", "web-1"][..],
            &["branches", "web-1"],
            &["changes", "web-1"],
        ] {
            host.ask(ask).exits(2).says(why).says(blob);
        }
    }
    // The names are there, and a file's content is not.
    fs::write(&at, &whole).expect("an image");
    let row = host.jsonl(["which", "web-1:/etc/shadow"]).exits(0).row();
    let branch = row["data"]["branch"].as_u64().expect("a branch");
    let objects = &all[usize::try_from(branch).expect("small")].0;
    fs::remove_file(host.at(format!("{objects}{}", text(&row["data"], "path"))))
        .expect("an object");
    let row = host.jsonl(["which", "web-1:/etc/shadow"]).row();
    // As to the kernel, which finds out when the file is opened.
    assert_eq!(row["state"], "present", "{row}");
    assert!(text(&row, "why").contains("EIO"), "{row}");
    // Nothing is copied in its place.
    let at = host.at(format!("{}/etc/shadow", all[0].0));
    mknodat(
        CWD,
        &at,
        FileType::CharacterDevice,
        Mode::empty(),
        makedev(0, 0),
    )
    .expect("a whiteout");
    let target = "web-1:/etc/shadow";
    let copy = ["restore", "--write", "--strategy", "copy", target];
    host.ask(copy).exits(2).says("Input/output error");
    let stat = fs::symlink_metadata(&at).expect("the whiteout");
    assert!(stat.file_type().is_char_device());
}
