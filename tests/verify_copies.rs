//! `verify` of a store whose layers are whole copies: of what a layer only copied from below each kind of
//! damage is named, and nothing else. Docker and Podman copy hard links as such (the captured `docker-vfs`
//! and `podman-vfs`).

use std::fs::{self, File, FileTimes, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::lab::host::Host;
use crate::lab::needs;
use crate::lab::packed::sum;
use crate::lab::run::{bytes, text, texts};
use crate::verify_many::crc64;

const DOCKER: &str = "/var/lib/docker";
/// Of all that it has its archive has `opt/keep` alone.
const LAYER: usize = 1;
const TIME: u64 = 1_600_000_000;
/// One of its bytes is a newline.
const CAPABILITY: &[u8] =
    b"\x01\x00\x00\x02\x0a\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00";

/// An entry of an archive.
enum Of {
    Directory,
    File(&'static str),
    /// One that has a capability.
    Capable,
    Symlink(&'static str),
    Link(&'static str),
}

const LAYERS: [&[(&str, Of)]; 3] = [
    &[
        ("bin", Of::Symlink("usr/bin")),
        ("etc/", Of::Directory),
        ("etc/group", Of::File("root:x:0:\n")),
        ("opt/", Of::Directory),
        ("opt/one", Of::File("alike")),
        ("opt/two", Of::File("alike")),
        ("srv/", Of::Directory),
        ("srv/h1", Of::File("of three")),
        ("srv/h2", Of::Link("srv/h1")),
        ("srv/h3", Of::Link("srv/h1")),
        ("usr/", Of::Directory),
        ("usr/bin/", Of::Directory),
        ("usr/bin/able", Of::Capable),
        ("usr/share/", Of::Directory),
        ("usr/share/doc/", Of::Directory),
        ("usr/share/doc/text", Of::File("words")),
    ],
    &[("opt/", Of::Directory), ("opt/keep", Of::File("kept"))],
    &[
        ("opt/", Of::Directory),
        ("opt/keep", Of::File("kept anew")),
        ("opt/more", Of::File("more")),
    ],
];

fn run(command: &mut Command) {
    assert!(command.status().expect("runs").success(), "{command:?}");
}

/// A layer's archive, and its recipe.
fn archive(entries: &[(&str, Of)]) -> (Vec<u8>, String) {
    let mut builder = tar::Builder::new(Vec::new());
    let mut recipe = String::new();
    let mut line = |line: Value| recipe.push_str(&format!("{line}\n"));
    let mut told = 0;
    for (name, of) in entries {
        let (kind, content, link) = match of {
            Of::Directory => (tar::EntryType::Directory, "", ""),
            Of::File(content) => (tar::EntryType::Regular, *content, ""),
            Of::Capable => (tar::EntryType::Regular, "able", ""),
            Of::Symlink(link) => (tar::EntryType::Symlink, "", *link),
            Of::Link(link) => (tar::EntryType::Link, "", *link),
        };
        if let Of::Capable = of {
            let records = [("SCHILY.xattr.security.capability", CAPABILITY)];
            builder.append_pax_extensions(records).expect("memory");
        }
        let mut header = tar::Header::new_ustar();
        header.set_path(name).expect("a short name");
        header.set_entry_type(kind);
        if !link.is_empty() {
            header.set_link_name(link).expect("a short name");
        }
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(TIME);
        header.set_size(content.len() as u64);
        header.set_cksum();
        builder.append(&header, content.as_bytes()).expect("memory");
        let all = builder.get_ref();
        let start = all.len() - content.len().next_multiple_of(512);
        line(json!({"type": 2, "payload": STANDARD.encode(&all[told..start])}));
        let crc = STANDARD.encode(crc64(content.as_bytes()).to_be_bytes());
        let crc = (!content.is_empty()).then_some(crc);
        line(json!({"type": 1, "name": name, "size": content.len(), "payload": crc}));
        told = start + content.len();
    }
    let archive = builder.into_inner().expect("memory");
    line(json!({"type": 2, "payload": STANDARD.encode(&archive[told..])}));
    (archive, recipe)
}

/// A Docker host with vfs, as Docker would have filled it, and its layers.
fn stored() -> (Host, Vec<String>) {
    let host = Host::empty();
    let database = format!("{DOCKER}/image/vfs");
    let (mut chain, mut diff_ids, mut layers) = (String::new(), Vec::new(), Vec::new());
    for (number, entries) in LAYERS.iter().enumerate() {
        let (archive, recipe) = archive(entries);
        let cache_id = format!("c{number:063x}");
        let root = host.at(format!("{DOCKER}/vfs/dir/{cache_id}"));
        match layers.last() {
            None => fs::create_dir_all(&root).expect("ours"),
            Some(below) => {
                let below = host.at(format!("{DOCKER}/vfs/dir/{below}"));
                run(Command::new("cp").arg("-a").args([&below, &root]));
            }
        }
        set_mode(&root, 0o755);
        host.file("/archive", &archive);
        let mut tar = Command::new("tar");
        run(tar.args(["--xattrs", "--xattrs-include=*", "-xpC"]).args([
            &root,
            Path::new("-f"),
            &host.at("/archive"),
        ]));
        let diff_id = format!("sha256:{}", sum(&archive));
        let parent = chain.clone();
        chain = match number {
            0 => diff_id.clone(),
            _ => format!("sha256:{}", sum(format!("{parent} {diff_id}").as_bytes())),
        };
        let layer = format!("{database}/layerdb/{}", chain.replace(':', "/"));
        host.file(format!("{layer}/cache-id"), &cache_id);
        host.file(format!("{layer}/diff"), &diff_id);
        if number > 0 {
            host.file(format!("{layer}/parent"), parent);
        }
        let size: usize = entries
            .iter()
            .map(|(_, of)| match of {
                Of::File(content) => content.len(),
                Of::Capable => 4,
                _ => 0,
            })
            .sum();
        host.file(format!("{layer}/size"), size.to_string());
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packer.write_all(recipe.as_bytes()).expect("memory");
        let recipe = packer.finish().expect("memory");
        host.file(format!("{layer}/tar-split.json.gz"), recipe);
        diff_ids.push(diff_id);
        layers.push(cache_id);
    }
    let created = "2026-01-02T03:04:05Z";
    let step = json!({"created": created, "created_by": "COPY"});
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": {}, "created": created,
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": [step.clone(), step.clone(), step],
    });
    let config = config.to_string();
    let id = sum(config.as_bytes());
    host.file(format!("{database}/imagedb/content/sha256/{id}"), config);
    let names = json!({"Repositories": {"acme/app": {"acme/app:1": format!("sha256:{id}")}}});
    host.file(format!("{database}/repositories.json"), names.to_string());
    (host, layers)
}

type Told = (String, String, String);

/// What is not proved: layer, path and what; a reason for what cannot be proved.
fn told(rows: &[Value]) -> Vec<Told> {
    let of = |row: &Value| {
        let word = |field: &str| row[field].as_str().unwrap_or_default().to_owned();
        let path = row.get("path").map(bytes).unwrap_or_default();
        let what = match text(row, "state") {
            "cannot be proved" => word("why"),
            _ => word("what"),
        };
        let path = String::from_utf8_lossy(&path).into_owned();
        (word("layer"), path, what)
    };
    let is_told = |row: &&Value| !matches!(text(row, "state"), "proved" | "metadata agrees");
    rows.iter().filter(is_told).map(of).collect()
}

/// A host of which one layer is spoilt.
struct Copied {
    host: Host,
    layers: Vec<String>,
}

impl Copied {
    fn new() -> Copied {
        needs::root("to give files away");
        needs::program("tar", "--version");
        let (host, layers) = stored();
        let rows = host.jsonl(["verify"]).exits(0).rows();
        assert_eq!(texts(&rows, "layer"), layers);
        assert_eq!(texts(&rows, "state"), ["proved"; 3]);
        Copied { host, layers }
    }

    fn of(&self, layer: usize) -> PathBuf {
        let layer = &self.layers[layer];
        self.host.at(format!("{DOCKER}/vfs/dir/{layer}"))
    }

    fn layer(&self) -> &str {
        &self.layers[LAYER]
    }

    fn root(&self) -> PathBuf {
        self.of(LAYER)
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root().join(path.trim_start_matches('/'))
    }

    fn asked(&self, options: &[&str]) -> Vec<Told> {
        told(&self.host.jsonl(options).rows())
    }

    /// Demands that this and nothing else is told of the layer, and nothing once it is undone.
    #[track_caller]
    fn tells(&self, path: &str, what: &str, undo: impl FnOnce()) {
        let said = [(self.layer().to_owned(), path.to_owned(), what.to_owned())];
        assert_eq!(self.asked(&["verify"]), said, "{path}");
        let fast = self.asked(&["verify", "--fast"]);
        let is_seen = what != "content";
        assert_eq!(fast, said[..usize::from(is_seen)], "{path}");
        undo();
        assert_eq!(self.asked(&["verify"]), [], "{path}");
    }
}

fn set_time(path: &Path, modified: SystemTime) {
    let file = File::open(path).expect("ours");
    file.set_times(FileTimes::new().set_modified(modified))
        .expect("ours");
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("ours");
}

fn set_attribute(path: &Path, name: &str, value: &[u8]) {
    rustix::fs::setxattr(path, name, value, rustix::fs::XattrFlags::CREATE).expect("ours");
}

#[apply(test)]
fn damage_to_what_a_copy_inherited_is_named_by_its_kind() {
    let copied = Copied::new();
    files(&copied);
    directories(&copied);
    links(&copied);
}

fn files(copied: &Copied) {
    let path = "/etc/group";
    let at = copied.at(path);
    let before = fs::metadata(&at).expect("ours");
    let modified = before.modified().expect("ours");
    let content = fs::read(&at).expect("ours");

    let file = OpenOptions::new().write(true).open(&at).expect("ours");
    file.write_all_at(&[content[1] ^ 4], 1).expect("ours");
    set_time(&at, modified);
    copied.tells(path, "content", || {
        file.write_all_at(&content, 0).expect("ours");
        set_time(&at, modified);
    });

    set_mode(&at, 0o4644);
    copied.tells(path, "mode", || set_mode(&at, before.mode()));

    for (user, group) in [(4321, before.gid()), (before.uid(), 4321)] {
        chown(&at, Some(user), Some(group)).expect("ours");
        copied.tells(path, "owner", || {
            chown(&at, Some(before.uid()), Some(before.gid())).expect("ours");
        });
    }

    set_time(&at, modified + Duration::from_secs(1));
    copied.tells(path, "time", || set_time(&at, modified));

    let name = "security.capability";
    set_attribute(&at, name, CAPABILITY);
    copied.tells(path, "xattr", || {
        rustix::fs::removexattr(&at, name).expect("ours");
    });
    let path_of_able = "/usr/bin/able";
    let able = copied.at(path_of_able);
    rustix::fs::removexattr(&able, name).expect("ours");
    copied.tells(path_of_able, "xattr", || {
        set_attribute(&able, name, CAPABILITY);
    });

    let aside = copied.host.at("/aside");
    fs::rename(&at, &aside).expect("ours");
    copied.tells(path, "missing", || fs::rename(&aside, &at).expect("ours"));

    fs::rename(&at, &aside).expect("ours");
    symlink("elsewhere", &at).expect("ours");
    copied.tells(path, "type", || fs::rename(&aside, &at).expect("ours"));

    let added = copied.at("/etc/added");
    fs::write(&added, "new").expect("ours");
    copied.tells("/etc/added", "not in the layer", || {
        fs::remove_file(&added).expect("ours");
    });
}

fn directories(copied: &Copied) {
    let path = "/usr/share";
    let at = copied.at(path);
    let before = fs::metadata(&at).expect("ours");
    set_mode(&at, 0o777);
    copied.tells(path, "mode", || set_mode(&at, before.mode()));

    chown(&at, Some(4321), Some(before.gid())).expect("ours");
    copied.tells(path, "owner", || {
        chown(&at, Some(before.uid()), Some(before.gid())).expect("ours");
    });

    let name = "security.lab";
    set_attribute(&at, name, b"x");
    copied.tells(path, "xattr", || {
        rustix::fs::removexattr(&at, name).expect("ours");
    });

    // What was in it is no fault of the copy above, which has it still.
    let aside = copied.host.at("/aside");
    fs::rename(copied.at("/usr/share/doc"), &aside).expect("ours");
    copied.tells("/usr/share/doc", "missing", || {
        fs::rename(&aside, copied.at("/usr/share/doc")).expect("ours");
    });

    // What is in it is no other fault.
    let added = at.join("added");
    set_mode(&at, 0o777);
    fs::write(&added, "new").expect("ours");
    let layer = copied.layer().to_owned();
    let said = [
        ("/usr/share", "mode"),
        ("/usr/share/added", "not in the layer"),
    ];
    let said = said.map(|(path, what)| (layer.clone(), path.to_owned(), what.to_owned()));
    assert_eq!(copied.asked(&["verify"]), said);
    fs::remove_file(&added).expect("ours");
    set_mode(&at, before.mode());
}

fn links(copied: &Copied) {
    let aside = copied.host.at("/aside");
    let link = copied.at("/bin");
    fs::rename(&link, &aside).expect("ours");
    symlink("usr/xxx", &link).expect("ours");
    let before = fs::symlink_metadata(&aside).expect("ours");
    let time = |seconds, nanoseconds| rustix::fs::Timespec {
        tv_sec: seconds,
        tv_nsec: nanoseconds,
    };
    let times = rustix::fs::Timestamps {
        last_access: time(0, 0),
        last_modification: time(before.mtime(), before.mtime_nsec()),
    };
    let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
    rustix::fs::utimensat(rustix::fs::CWD, &link, &times, flags).expect("ours");
    copied.tells("/bin", "link", || fs::rename(&aside, &link).expect("ours"));

    // A name of a file that has three is one of a copy.
    let name = copied.at("/srv/h3");
    fs::rename(&name, &aside).expect("ours");
    run(Command::new("cp").arg("-a").args([&aside, &name]));
    copied.tells("/srv/h3", "link", || {
        fs::rename(&aside, &name).expect("ours");
    });

    // Two files that are alike become one.
    let (one, two) = (copied.at("/opt/one"), copied.at("/opt/two"));
    fs::rename(&two, &aside).expect("ours");
    fs::hard_link(&one, &two).expect("ours");
    copied.tells("/opt/two", "link", || {
        fs::remove_file(&two).expect("ours");
        fs::rename(&aside, &two).expect("ours");
    });
}

/// A layer that is lost accuses no other one: what was copied from it is not known.
#[apply(test)]
fn a_lost_layer_accuses_no_copy_of_it() {
    let copied = Copied::new();
    let aside = copied.host.at("/aside");
    fs::rename(copied.root(), &aside).expect("ours");
    let told = copied.asked(&["verify"]);
    let [lost, above] = &told[..] else {
        panic!("{told:?}");
    };
    assert_eq!(
        *lost,
        (copied.layers[LAYER].clone(), "/".into(), "missing".into())
    );
    assert_eq!((&above.0, &above.1[..]), (&copied.layers[LAYER + 1], ""));
    assert!(above.2.contains("what it is a copy of"), "{above:?}");
    fs::rename(&aside, copied.root()).expect("ours");
    assert_eq!(copied.asked(&["verify"]), []);
}

/// What two layers have in their archives is proved of each.
#[apply(test)]
fn a_file_that_is_spoilt_in_two_copies_is_named_twice() {
    let copied = Copied::new();
    let mut said = Vec::new();
    for layer in [LAYER, LAYER + 1] {
        set_mode(&copied.of(layer).join("opt/keep"), 0o4755);
        let layer = copied.layers[layer].clone();
        said.push((layer, "/opt/keep".to_owned(), "mode".to_owned()));
    }
    assert_eq!(copied.asked(&["verify"]), said);
}
