//! `verify`: layers that nobody touched are proved, and each kind of damage is named, and nothing else.

use std::collections::BTreeSet;
use std::fs::{self, File, FileTimes, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use walkdir::WalkDir;

use crate::lab::host::Host;
use crate::lab::needs;
use crate::lab::run::{bytes, text, texts};

/// What is not proved of an answer: layer, path and what; a reason for what cannot be proved.
fn faults(rows: &[Value]) -> Vec<(String, String, String)> {
    let word = |row: &Value, field: &str| row[field].as_str().unwrap_or_default().to_owned();
    rows.iter()
        .filter(|row| !matches!(text(row, "state"), "proved" | "metadata agrees"))
        .map(|row| {
            let path = row.get("path").map(bytes).unwrap_or_default();
            let what = match text(row, "state") {
                "cannot be proved" => word(row, "why"),
                _ => word(row, "what"),
            };
            (
                word(row, "layer"),
                String::from_utf8_lossy(&path).into_owned(),
                what,
            )
        })
        .collect()
}

/// Those as well of which not all can be proved: users' own stores, older ones, and whole copies.
#[apply(test)]
fn no_host_that_nobody_touched_is_accused() {
    needs::time();
    needs::captured_hosts();
    for name in [
        "docker-overlay2",
        "docker-vfs",
        "docker-fuse-overlayfs",
        "docker-btrfs",
        "podman-overlay",
        "podman-vfs",
        "podman-rootless-overlay",
        "podman-rootless-fuse-overlayfs",
    ] {
        let rows = Host::captured(name).jsonl(["verify"]).rows();
        let states = texts(&rows, "state");
        assert!(states.len() > 5, "{name}: {states:?}");
        assert!(!states.contains(&"differs"), "{name}: {:#?}", faults(&rows));
    }
}

#[apply(test)]
fn hosts_that_nobody_touched_have_no_faults() {
    needs::time();
    needs::captured_hosts();
    for (name, layers, unproved) in [
        ("docker-aufs-webapp", 11, &[][..]),
        ("docker-aufs-leftover", 12, &[]),
        ("containerd-2.1", 36, &[]),
        // A file called `.wh.looks` was committed, and every engine takes it for a deletion.
        (
            "docker-28-overlay2",
            17,
            &["/data/odd/.wh.looks was taken for a deletion"],
        ),
        (
            "docker-28-containerd",
            18,
            &["/data/odd/.wh.looks was taken for a deletion"],
        ),
        (
            "podman-5.8-overlay",
            19,
            &["/data/odd/.wh.looks was taken for a deletion"],
        ),
        ("podman-5.8-composefs", 14, &["composefs has no whiteouts"]),
    ] {
        let host = Host::captured(name);
        for options in [&["verify"][..], &["verify", "--fast"]] {
            let output = host.jsonl(options);
            let output = output.exits(if unproved.is_empty() { 0 } else { 2 });
            let rows = output.rows();
            let states = texts(&rows, "state");
            assert!(!states.contains(&"differs"), "{name}: {:#?}", faults(&rows));
            // What nobody read is not proved.
            let good = if options.len() > 1 {
                ("metadata agrees", "proved")
            } else {
                ("proved", "metadata agrees")
            };
            assert!(states.contains(&good.0), "{name}");
            assert!(!states.contains(&good.1), "{name}");
            assert!(rows.len() >= layers, "{name}: {}", rows.len());
            for (_, _, why) in faults(&rows) {
                assert!(why.contains(unproved[0]), "{name}: {why}");
            }
            let mut all = BTreeSet::new();
            for row in &rows {
                let users = row["users"].as_array().expect("users");
                assert!(!users.is_empty(), "{name}: {row}");
                all.extend(users.iter().map(|of| of.as_str().expect("a label")));
            }
            // Each is a TARGET as it stands.
            for user in all.into_iter().take(4) {
                host.ask(["branches", user]).exits(0);
            }
        }
    }
}

#[apply(test)]
fn what_has_no_recipe_is_not_proved() {
    needs::fixtures();
    for name in ["docker-1.9", "blog-host"] {
        let rows = Host::fixture(name).jsonl(["verify"]).exits(2).rows();
        let states = texts(&rows, "state");
        assert!(!states.contains(&"proved"), "{name}");
        for (_, _, why) in faults(&rows).iter().filter(|(layer, ..)| !layer.is_empty()) {
            assert!(why.contains("recipe"), "{name}: {why}");
        }
    }
    // Nothing is no success.
    let output = Host::empty().ask(["verify"]);
    output.exits(2).says("nothing was proved");
}

/// A store with a layer that holds everything that can be spoilt.
struct Store {
    name: &'static str,
    image: &'static str,
    /// The directory of a layer, by its id.
    content: fn(&str) -> String,
    /// What the recipes, or archives, of layers end in.
    driver: &'static str,
}

const STORES: [Store; 4] = [
    Store {
        name: "docker-aufs-webapp",
        image: "training/webapp",
        content: |id| format!("/var/lib/docker/aufs/diff/{id}"),
        driver: "aufs",
    },
    Store {
        name: "docker-28-overlay2",
        image: "lab/web:2",
        content: |id| format!("/var/lib/docker/overlay2/{id}/diff"),
        driver: "overlay2",
    },
    Store {
        name: "podman-5.8-overlay",
        image: "localhost/lab/web:2",
        content: |id| format!("/var/lib/containers/storage/overlay/{id}/diff"),
        driver: "overlay",
    },
    Store {
        name: "containerd-2.1",
        image: "containerd:default/docker.io/library/app:1",
        content: |id| {
            format!("/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots/{id}/fs")
        },
        driver: "overlayfs",
    },
];

/// The first of a kind in any layer: the layer's id, its path there, and where it is.
fn first(
    host: &Host,
    store: &Store,
    layers: &[String],
    is_it: impl Fn(&walkdir::DirEntry) -> bool,
) -> Option<(String, String, PathBuf)> {
    for id in layers {
        let root = host.at((store.content)(id));
        let mut entries = WalkDir::new(&root)
            .min_depth(1)
            .sort_by_file_name()
            .into_iter();
        let found = entries.find_map(|entry| entry.ok().filter(|entry| is_it(entry)));
        if let Some(entry) = found {
            let inside = entry.path().strip_prefix(&root).expect("below it");
            let inside = format!("/{}", inside.to_str()?);
            return Some((id.clone(), inside, entry.into_path()));
        }
    }
    None
}

struct Spoilt<'h> {
    host: &'h Host,
    store: &'h Store,
    layer: String,
}

impl Spoilt<'_> {
    /// Demands that this and nothing else is told of the layer, and nothing of it once it is undone.
    #[track_caller]
    fn tells(&self, path: &str, what: &[&str], undo: impl FnOnce()) {
        let ask = || self.host.jsonl(["verify", self.store.image]);
        let output = ask();
        let rows = output.rows();
        let mut told = faults(&rows);
        told.sort();
        let mut said: Vec<(String, String, String)> = what
            .iter()
            .map(|what| (self.layer.clone(), path.to_owned(), (*what).to_owned()))
            .collect();
        said.sort();
        assert_eq!(told, said, "{} {path}", self.store.name);
        assert_eq!(output.status, Some(1));
        undo();
        let rows = ask().exits(0).rows();
        assert_eq!(faults(&rows), [], "{}", self.store.name);
    }
}

fn times(path: &Path, modified: SystemTime) {
    let file = File::open(path).expect("ours");
    file.set_times(FileTimes::new().set_modified(modified))
        .expect("ours");
}

#[apply(test)]
fn each_damage_is_named_and_nothing_else() {
    needs::time();
    needs::captured_hosts();
    for store in &STORES {
        let host = Host::captured(store.name);
        let rows = host.jsonl(["verify", store.image]).exits(0).rows();
        let layers: Vec<String> = texts(&rows, "layer")
            .into_iter()
            .map(str::to_owned)
            .collect();
        files(&host, store, &layers);
        others(&host, store, &layers);
        marks(&host, store, &layers);
        whole(&host, store, &layers);
    }
}

/// What can be wrong with a file.
fn files(host: &Host, store: &Store, layers: &[String]) {
    let is_file = |entry: &walkdir::DirEntry| {
        let metadata = entry.metadata().expect("ours");
        // AUFS's marks have no content.
        metadata.is_file() && metadata.len() > 8 && metadata.nlink() == 1
    };
    let (layer, path, at) = first(host, store, layers, is_file).expect("a file");
    let spoilt = Spoilt { host, store, layer };
    let before = fs::metadata(&at).expect("ours");
    let modified = before.modified().expect("ours");
    let file = OpenOptions::new().write(true).open(&at).expect("ours");
    let content = fs::read(&at).expect("ours");

    file.write_all_at(&[content[5] ^ 4], 5).expect("ours");
    times(&at, modified);
    spoilt.tells(&path, &["content"], || {
        file.write_all_at(&content, 0).expect("ours");
        times(&at, modified);
    });

    file.set_len(content.len() as u64 - 1).expect("ours");
    times(&at, modified);
    spoilt.tells(&path, &["content"], || {
        file.write_all_at(&content, 0).expect("ours");
        times(&at, modified);
    });

    fs::set_permissions(&at, Permissions::from_mode(0o4711)).expect("ours");
    spoilt.tells(&path, &["mode"], || {
        fs::set_permissions(&at, before.permissions()).expect("ours");
    });

    chown(&at, Some(before.uid()), Some(4321)).expect("ours");
    fs::set_permissions(&at, before.permissions()).expect("ours");
    spoilt.tells(&path, &["owner"], || {
        chown(&at, Some(before.uid()), Some(before.gid())).expect("ours");
        fs::set_permissions(&at, before.permissions()).expect("ours");
    });

    times(&at, modified + Duration::from_secs(1));
    spoilt.tells(&path, &["time"], || times(&at, modified));

    let name = c"security.capability";
    let value = b"\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00";
    rustix::fs::setxattr(&at, name, value, rustix::fs::XattrFlags::CREATE).expect("ours");
    spoilt.tells(&path, &["xattr"], || {
        rustix::fs::removexattr(&at, name).expect("ours");
    });

    let aside = host.at("/aside");
    fs::rename(&at, &aside).expect("ours");
    spoilt.tells(&path, &["missing"], || {
        fs::rename(&aside, &at).expect("ours");
    });

    fs::rename(&at, &aside).expect("ours");
    symlink("elsewhere", &at).expect("ours");
    spoilt.tells(&path, &["type"], || {
        fs::rename(&aside, &at).expect("ours");
    });

    let added = at.with_file_name("added by somebody");
    fs::write(&added, "new").expect("ours");
    let parent = path.rsplit_once('/').expect("a path").0;
    spoilt.tells(
        &format!("{parent}/added by somebody"),
        &["not in the layer"],
        || {
            fs::remove_file(&added).expect("ours");
        },
    );
}

/// What can be wrong with links and directories.
fn others(host: &Host, store: &Store, layers: &[String]) {
    if let Some((layer, path, at)) = first(host, store, layers, |entry| entry.path_is_symlink()) {
        let spoilt = Spoilt { host, store, layer };
        let before = fs::symlink_metadata(&at).expect("ours");
        let said = fs::read_link(&at).expect("ours");
        let aside = host.at("/aside");
        fs::rename(&at, &aside).expect("ours");
        symlink(said.join("elsewhere"), &at).expect("ours");
        lchown(&at, Some(before.uid()), Some(before.gid())).expect("ours");
        let time = |seconds| rustix::fs::Timespec {
            tv_sec: seconds,
            tv_nsec: before.mtime_nsec(),
        };
        let times = rustix::fs::Timestamps {
            last_access: time(0),
            last_modification: time(before.mtime()),
        };
        let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::utimensat(rustix::fs::CWD, &at, &times, flags).expect("ours");
        spoilt.tells(&path, &["link"], || fs::rename(&aside, &at).expect("ours"));
    }
    let is_directory = |entry: &walkdir::DirEntry| entry.file_type().is_dir() && !is_aufs(entry);
    let (layer, path, at) = first(host, store, layers, is_directory).expect("a directory");
    let spoilt = Spoilt { host, store, layer };
    let before = fs::metadata(&at).expect("ours").permissions();
    fs::set_permissions(&at, Permissions::from_mode(0o700)).expect("ours");
    spoilt.tells(&path, &["mode"], || {
        fs::set_permissions(&at, before).expect("ours");
    });
    // An archive's own root is not unpacked: a layer's is as its engine makes it, and nobody else.
    let root = Path::new(
        at.to_str()
            .expect("text")
            .strip_suffix(&path)
            .expect("below it"),
    );
    let before = fs::metadata(root).expect("ours").permissions();
    for (mode, is_fault) in [(0o555, false), (0o755, false), (0o777, true)] {
        fs::set_permissions(root, Permissions::from_mode(mode)).expect("ours");
        let told = faults(&host.jsonl(["verify", store.image]).rows());
        let root = ("/".to_owned(), "mode".to_owned());
        let has = told
            .iter()
            .any(|(_, path, what)| (path, what) == (&root.0, &root.1));
        // Of an archive without such an entry nothing is known of it.
        assert!(!has || is_fault, "{mode:o}: {told:?}");
    }
    fs::set_permissions(root, before).expect("ours");
}

fn is_aufs(entry: &walkdir::DirEntry) -> bool {
    let name = entry.file_name().to_string_lossy();
    name.starts_with(".wh.")
}

/// Marks that are lost, or that nobody made.
fn marks(host: &Host, store: &Store, layers: &[String]) {
    let is_whiteout = |entry: &walkdir::DirEntry| {
        let metadata = entry.metadata().expect("ours");
        let name = entry.file_name().to_string_lossy();
        let is_device = !metadata.is_file()
            && !metadata.is_dir()
            && metadata.rdev() == 0
            && metadata.mode() & 0o170_000 == 0o020_000;
        is_device || (name.starts_with(".wh.") && !name.starts_with(".wh..wh."))
    };
    let (layer, path, at) = first(host, store, layers, is_whiteout).expect("a whiteout");
    let spoilt = Spoilt { host, store, layer };
    let hidden = path.replace("/.wh.", "/");
    let aside = host.at("/aside");
    fs::rename(&at, &aside).expect("ours");
    spoilt.tells(&hidden, &["whiteout lost"], || {
        fs::rename(&aside, &at).expect("ours");
    });
    let name = if store.driver == "aufs" {
        ".wh.another"
    } else {
        "another"
    };
    let more = at.with_file_name(name);
    // AUFS's are links of one inode.
    fs::hard_link(&at, &more).expect("ours");
    let parent = hidden.rsplit_once('/').expect("a path").0;
    spoilt.tells(&format!("{parent}/{name}"), &["not in the layer"], || {
        fs::remove_file(&more).expect("ours");
    });
}

/// A layer's directory, its recipe and records.
fn whole(host: &Host, store: &Store, layers: &[String]) {
    let spoilt = Spoilt {
        host,
        store,
        layer: layers[0].clone(),
    };
    let content = host.at((store.content)(&layers[0]));
    let aside = host.at("/aside");
    fs::rename(&content, &aside).expect("ours");
    spoilt.tells("/", &["missing"], || {
        fs::rename(&aside, &content).expect("ours");
    });
    let record = |spoil: &dyn Fn(&str) -> Option<String>, file: &Path| {
        let before = fs::read(file).expect("ours");
        let text = String::from_utf8_lossy(&before).into_owned();
        let Some(after) = spoil(&text) else { return };
        fs::write(file, after).expect("ours");
        let output = host.jsonl(["verify", store.image]);
        assert_eq!(output.status, Some(1), "{} {}", store.name, file.display());
        let rows = output.rows();
        let told = faults(&rows);
        assert!(!told.is_empty());
        for (_, path, what) in told {
            assert_eq!(what, "record", "{}", store.name);
            assert!(file.ends_with(path.trim_start_matches('/')), "{path}");
        }
        fs::write(file, before).expect("ours");
    };
    if store.name.starts_with("docker") {
        let database = host.at(format!(
            "/var/lib/docker/image/{}/layerdb/sha256",
            store.driver
        ));
        let mut found = 0;
        for entry in fs::read_dir(database).expect("ours") {
            let at = entry.expect("ours").path();
            let own = fs::read_to_string(at.join("cache-id")).expect("ours");
            if own != layers[1] {
                continue;
            }
            found += 1;
            record(&|size| Some(format!("1{size}")), &at.join("size"));
            let turned =
                |of: &str| Some(of.chars().rev().collect::<String>().replace(":652ahs", ""));
            record(
                &|of| turned(of).map(|of| format!("sha256:{of}")),
                &at.join("parent"),
            );
            record(
                &|of| turned(of).map(|of| format!("sha256:{of}")),
                &at.join("diff"),
            );
        }
        assert_eq!(found, 1);
    }
    if store.name.starts_with("podman") {
        let list = host.at("/var/lib/containers/storage/overlay-layers/layers.json");
        let spoil = |text: &str| {
            let mut list: Value = serde_json::from_str(text).expect("a list");
            let of = list
                .as_array_mut()?
                .iter_mut()
                .find(|of| of["id"] == layers[1].as_str())?;
            of["diff-size"] = 1.into();
            Some(list.to_string())
        };
        record(&spoil, &list);
    }
}

/// Bits that turn, in many files of every store: all are found.
#[apply(test)]
fn turned_bits_are_found() {
    needs::time();
    needs::captured_hosts();
    STORES.iter().for_each(turn_bits);
}

fn turn_bits(store: &Store) {
    let host = Host::captured(store.name);
    let rows = host.jsonl(["verify", store.image]).exits(0).rows();
    let mut spoilt = Vec::new();
    for id in texts(&rows, "layer") {
        let root = host.at((store.content)(id));
        for entry in WalkDir::new(&root) {
            let entry = entry.expect("ours");
            let metadata = entry.metadata().expect("ours");
            // Who writes to a file takes its capabilities away.
            let mut value = [0; 64];
            let is_capable =
                rustix::fs::lgetxattr(entry.path(), "security.capability", &mut value).is_ok();
            if !metadata.is_file() || metadata.len() == 0 || metadata.nlink() > 1 || is_capable {
                continue;
            }
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .open(entry.path())
                .expect("ours");
            let at = (spoilt.len() as u64 * 7919) % metadata.len();
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).expect("ours");
            file.write_all_at(&[byte[0] ^ (1 << (spoilt.len() % 8))], at)
                .expect("ours");
            let times = FileTimes::new().set_modified(metadata.modified().expect("ours"));
            file.set_times(times).expect("ours");
            let inside = entry
                .path()
                .strip_prefix(&root)
                .expect("below")
                .to_string_lossy();
            spoilt.push((id.to_owned(), format!("/{inside}"), "content".to_owned()));
        }
    }
    assert!(spoilt.len() > 10, "{}: {}", store.name, spoilt.len());
    let mut told = faults(&host.jsonl(["verify", store.image]).exits(1).rows());
    told.sort();
    spoilt.sort();
    assert_eq!(told, spoilt, "{}", store.name);
    // Nothing of it is seen by who reads no contents, and nothing is proved.
    let rows = host
        .jsonl(["verify", store.image, "--fast"])
        .exits(0)
        .rows();
    let states = texts(&rows, "state");
    assert!(states.iter().all(|state| *state == "metadata agrees"));
}

/// Any number of threads proves the same, and tells it in the same order.
#[apply(test)]
fn any_number_of_threads_proves_the_same() {
    needs::time();
    needs::captured_hosts();
    let store = &STORES[3];
    let host = Host::captured(store.name);
    let rows = host.jsonl(["verify", store.image]).exits(0).rows();
    let layer = texts(&rows, "layer")[1].to_owned();
    let root = host.at((store.content)(&layer));
    fs::write(root.join("added"), "x").expect("ours");
    let said = |threads: &str| {
        let output = host.jsonl(["-j", threads, "verify"]).exits(1);
        (output.stdout, output.stderr)
    };
    let alone = said("1");
    assert!(String::from_utf8_lossy(&alone.0).contains("/added"));
    for threads in ["2", "8", "64"] {
        assert!(said(threads) == alone, "{threads} threads");
    }
}

/// Sizes that no disk has are no reason to end.
#[apply(test)]
fn records_of_sizes_that_no_disk_has_are_added_up() {
    needs::captured_hosts();
    let host = Host::captured("docker-28-overlay2");
    let database = host.at("/var/lib/docker/image/overlay2/layerdb/sha256");
    for layer in fs::read_dir(database).expect("layers") {
        let size = layer.expect("a layer").path().join("size");
        fs::write(size, "18446744073709551615").expect("ours");
    }
    for words in [
        &["verify"][..],
        &["images"],
        &["containers"],
        &["du"],
        &["report"],
    ] {
        let output = host.ask(words);
        assert!(
            matches!(output.status, Some(0..=2)),
            "{words:?}: {}",
            output.stderr
        );
        assert!(!output.text().is_empty(), "{words:?}: {}", output.stderr);
    }
}

/// An archive says how long names are that are read into memory: 14 MB can say gigabytes, in one name or in
/// many.
#[apply(test)]
fn names_of_gigabytes_in_an_archive_are_bounded() {
    needs::time();
    needs::captured_hosts();
    let header = |kind: tar::EntryType, size: u64| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_path("././@LongLink").expect("short");
        header.set_cksum();
        header.as_bytes().to_vec()
    };
    let one: &dyn Fn(&mut dyn Write) = &|to| {
        let mut write = |bytes: &[u8]| to.write_all(bytes).expect("memory");
        write(&header(tar::EntryType::GNULongName, 2 << 30));
        let zeros = vec![b'n'; 1 << 20];
        (0..256).for_each(|_| write(&zeros));
    };
    let many: &dyn Fn(&mut dyn Write) = &|to| {
        let mut write = |bytes: &[u8]| to.write_all(bytes).expect("memory");
        let name = b"n/".repeat(3 << 20);
        for _ in 0..80 {
            write(&header(tar::EntryType::GNULongName, name.len() as u64));
            write(&name);
            write(&header(tar::EntryType::Regular, 0));
        }
        write(&[0; 1024]);
    };
    // The shortest records take many times their length.
    let attributes: &dyn Fn(&mut dyn Write) = &|to| {
        let mut write = |bytes: &[u8]| to.write_all(bytes).expect("memory");
        let mut records = Vec::new();
        for number in 0..300_000 {
            records.extend(
                format!("23 SCHILY.xattr.{number:05x}\n")
                    .replace('\n', "=\n")
                    .into_bytes(),
            );
        }
        records.resize(records.len().next_multiple_of(512), 0);
        let length = 300_000 * 23;
        for _ in 0..12 {
            write(&header(tar::EntryType::XHeader, length));
            write(&records);
            write(&header(tar::EntryType::Regular, 0));
        }
        write(&[0; 1024]);
    };
    for make in [one, many, attributes] {
        let host = Host::captured("containerd-2.1");
        let blobs = host.at("/var/lib/containerd/io.containerd.content.v1.content/blobs/sha256");
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        make(&mut packer);
        let packed = packer.finish().expect("memory");
        let blobs = fs::read_dir(&blobs).expect("a store");
        let mut layers = blobs
            .map(|blob| blob.expect("a blob").path())
            .filter(|path| fs::read(path).expect("a blob").starts_with(&[0x1f, 0x8b]));
        fs::write(layers.next().expect("a layer"), &packed).expect("ours");
        // A process that may have no more is killed, or says that there is no memory.
        let mut command = std::process::Command::new("bash");
        command
            .args(["-c", "ulimit -v 400000; exec \"$@\"", "bash"])
            .arg(env!("CARGO_BIN_EXE_layerctl"))
            .arg("--root")
            .arg(&host.root)
            .args(["-j2", "--format", "jsonl", "verify"]);
        let output = crate::lab::run::run(&mut command);
        assert!(
            matches!(output.status, Some(1 | 2)),
            "{:?} {}",
            output.status,
            output.stderr
        );
        assert!(!output.rows().is_empty());
    }
}

/// What an overlay makes of marks that no archive has is not what the archive says.
#[apply(test)]
fn marks_that_only_an_overlay_reads_are_not_proved() {
    needs::time();
    needs::captured_hosts();
    needs::root("to set trusted attributes");
    let image = "lab/small:edge";
    let layers = |host: &Host| -> Vec<String> {
        let rows = host.jsonl(["verify", image]).exits(0).rows();
        texts(&rows, "layer")
            .iter()
            .map(|id| (*id).to_owned())
            .collect()
    };
    let set = |at: &Path, name: &str, value: &[u8]| {
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::lsetxattr(at, name, value, flags).expect("root may");
    };
    let state_of = |host: &Host, wanted: &str| -> Vec<String> {
        let output = host.jsonl(["verify", image]);
        assert_ne!(output.status, Some(0), "{}", output.stderr);
        let rows = output.rows();
        let is_wanted = |row: &&Value| row["layer"] == wanted;
        let rows = rows.iter().filter(is_wanted);
        rows.map(|row| text(row, "state").to_owned()).collect()
    };
    let directory = |host: &Host, id: &str| host.at(format!("/var/lib/docker/overlay2/{id}/diff"));
    let fresh = || Host::captured("docker-28-overlay2");
    let host = fresh();
    let all = layers(&host);
    let has_many = |id: &&String| directory(&host, id).join("many").is_dir();
    let top = all
        .iter()
        .find(has_many)
        .expect("a layer with a directory")
        .clone();
    // An added file whose content would be elsewhere, and a directory that is another one.
    fs::write(directory(&host, &top).join("added"), "evil").expect("ours");
    set(
        &directory(&host, &top).join("added"),
        "trusted.overlay.metacopy",
        b"",
    );
    assert!(state_of(&host, &top).contains(&"differs".to_owned()));
    let host = fresh();
    set(
        &directory(&host, &top).join("many"),
        "trusted.overlay.redirect",
        b"/bin",
    );
    assert!(state_of(&host, &top).contains(&"cannot be proved".to_owned()));
    // An opaque mark that hides what a layer below has.
    let host = fresh();
    let etc = all
        .iter()
        .filter(|id| directory(&host, id).join("etc").is_dir());
    let above = etc.filter(|id| **id != all[0] && **id != all[all.len() - 1]);
    let mut marked = 0;
    let mut tried = 0;
    for id in above {
        tried += 1;
        set(
            &directory(&host, id).join("etc"),
            "trusted.overlay.opaque",
            b"y",
        );
        marked += usize::from(state_of(&host, id).contains(&"differs".to_owned()));
        rustix::fs::lremovexattr(directory(&host, id).join("etc"), "trusted.overlay.opaque")
            .expect("root may");
    }
    assert!(
        tried > 0 && marked == tried,
        "{marked} of {tried} opaque directories"
    );
}

/// Two records that name one directory are two layers, and only one of them is there.
#[apply(test)]
fn a_record_that_names_another_layer_s_directory_is_not_passed_over() {
    needs::captured_hosts();
    let host = Host::captured("docker-28-overlay2");
    let image = "lab/small:edge";
    let count = |host: &Host| host.jsonl(["verify", image]).rows().len();
    let before = count(&host);
    let rows = host.jsonl(["verify", image]).exits(0).rows();
    let ids = texts(&rows, "layer");
    let database = host.at("/var/lib/docker/image/overlay2/layerdb/sha256");
    let of_id = |id: &str| {
        let chains = fs::read_dir(&database).expect("a database");
        let files = chains.map(|chain| chain.expect("a record").path().join("cache-id"));
        let mut files = files.filter(|file| fs::read_to_string(file).is_ok_and(|own| own == id));
        files.next().expect("a record of it")
    };
    fs::copy(of_id(ids[0]), of_id(ids[1])).expect("ours");
    let output = host.jsonl(["verify", image]);
    assert_ne!(output.status, Some(0), "{}", output.text());
    assert!(count(&host) >= before);
}

#[apply(test)]
fn a_recipe_of_a_thousand_levels_and_a_long_name_is_bounded() {
    needs::captured_hosts();
    let host = Host::captured("docker-28-overlay2");
    let recipe = |name: &str| {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_mode(0o755);
        header.set_size(0);
        header.set_path("short").expect("short");
        header.set_cksum();
        let mut long = tar::Header::new_gnu();
        long.set_entry_type(tar::EntryType::GNULongName);
        long.set_size(name.len() as u64 + 1);
        long.set_path("././@LongLink").expect("short");
        long.set_cksum();
        let mut bytes = long.as_bytes().to_vec();
        bytes.extend_from_slice(name.as_bytes());
        bytes.resize(
            bytes.len().next_multiple_of(512) + 512 * usize::from(name.len().is_multiple_of(512)),
            0,
        );
        bytes.extend_from_slice(header.as_bytes());
        let piece = json!({"type": 2, "payload": STANDARD.encode(&bytes), "position": 0});
        let file =
            json!({"type": 1, "name": STANDARD.encode(name), "payload": null, "position": 1});
        format!("{piece}\n{file}\n")
    };
    let database = host.at("/var/lib/docker/image/overlay2/layerdb/sha256");
    let chain = fs::read_dir(&database).expect("a database").next();
    let chain = chain.expect("a record").expect("a record").path();
    for name in ["d/".repeat(200_000), "n".repeat(100_000)] {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(recipe(&name).as_bytes()).expect("memory");
        let packed = packed.finish().expect("memory");
        fs::write(chain.join("tar-split.json.gz"), packed).expect("ours");
        let output = host.jsonl(["verify"]);
        assert_ne!(output.status, Some(0));
        assert!(
            output.stdout.len() < 4 << 20,
            "{} bytes",
            output.stdout.len()
        );
    }
}

/// An attribute that the kernel does not tell is not lost: nobody is accused of it.
#[apply(test)]
fn what_the_kernel_does_not_tell_is_not_proved() {
    needs::captured_hosts();
    needs::program("setpriv", "--version");
    let host = Host::captured("docker-28-overlay2");
    let mut command = std::process::Command::new("setpriv");
    command
        .args(["--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin"])
        .arg(env!("CARGO_BIN_EXE_layerctl"))
        .arg("--root")
        .arg(&host.root)
        .args(["--format", "jsonl", "verify"]);
    let output = crate::lab::run::run(&mut command).exits(2);
    let rows = output.rows();
    let accused: Vec<_> = rows
        .iter()
        .filter(|row| row["state"] == "differs")
        .collect();
    assert!(accused.is_empty(), "{accused:?}");
    let is_said = |row: &Value| text(row, "why").contains("trusted attributes");
    assert!(
        rows.iter()
            .any(|row| row["why"].is_string() && is_said(row)),
        "{rows:?}"
    );
}
