//! Captured hosts: a real Docker 20.10 on a real AUFS kernel, and AUFS mounted by hand. What the
//! engine and the kernel said there is what layerctl has to say. Numbers are those of FACTS-aufs.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::ops::Deref;
use std::os::unix::ffi::OsStringExt;
use std::sync::Arc;

use serde_json::Value;

use crate::lab::archive::{self, Meta};
use crate::lab::captured::{Captured, Shared};
use crate::lab::host::{Host, directories};
use crate::lab::run::{self, bytes, text, texts};
use crate::lab::{needs, table};

// ---- Docker ----

/// A captured Docker host with what Docker said on it.
struct Docker {
    /// The second in which it was captured: docker's ages are as of then.
    moment: &'static str,
    captured: Captured,
}

impl Deref for Docker {
    type Target = Captured;

    fn deref(&self) -> &Captured {
        &self.captured
    }
}

/// The captured Docker hosts, which tests that run at one time share.
fn dockers() -> Arc<Vec<Docker>> {
    static SHARED: Shared<Vec<Docker>> = Shared::new();
    SHARED.get(unpack_dockers)
}

fn unpack_dockers() -> Vec<Docker> {
    needs::captured_hosts();
    [
        ("docker-aufs-webapp", "1795493520"),
        ("docker-aufs-leftover", "1795493665"),
    ]
    .into_iter()
    .map(|(name, moment)| Docker {
        moment,
        captured: Captured::new(name),
    })
    .collect()
}

impl Docker {
    fn containers(&self) -> Vec<&str> {
        self.named("inspect-container-", ".json")
    }

    fn inspected_container(&self, container: &str) -> Value {
        self.inspected(&format!("container-{container}"))
    }

    /// A table as of the moment of the capture.
    fn table(&self, arguments: &[&str]) -> String {
        let mut command = run::command();
        command
            .env("SOURCE_DATE_EPOCH", self.moment)
            .arg("--root")
            .arg(&self.host.root)
            .args(arguments);
        run::run(&mut command).exits(0).text().to_owned()
    }

    fn mount_id(&self, container: &str) -> String {
        let id = self.inspected_container(container)["Id"]
            .as_str()
            .expect("an id")
            .to_owned();
        let path = format!("/var/lib/docker/image/aufs/layerdb/mounts/{id}/mount-id");
        String::from_utf8(self.host.read(path)).expect("an id")
    }
}

/// A line of `docker diff` that is docker's own error, and the lines that are true instead.
struct DockersError {
    containers: &'static [&'static str],
    line: &'static str,
    truth: &'static [&'static [u8]],
    why: &'static str,
}

const DOCKERS_ERRORS: [DockersError; 8] = [
    DockersError {
        containers: &["web1"],
        line: "C /.wh..wh.plnk\n",
        truth: &[],
        why: "6.10: AUFS's own directory",
    },
    DockersError {
        containers: &["web1"],
        line: "A /.wh..wh.plnk/25.10375\n",
        truth: &[],
        why: "6.10: in AUFS's own directory",
    },
    DockersError {
        containers: &["web1"],
        line: "A /.wh..wh.plnk/46.10363\n",
        truth: &[],
        why: "6.10: in AUFS's own directory",
    },
    DockersError {
        containers: &["web1"],
        line: "D /opt/webapp/\u{fffd}\u{fffd}raw\n",
        truth: &[b"D /opt/webapp/\xff\xferaw\n"],
        why: "6.10: the name's bytes are not UTF-8, and JSON lost them on the way",
    },
    DockersError {
        containers: &["web1"],
        line: "D /var/lib/dpkg/.wh..opq\n",
        truth: &[b"D /var/lib/dpkg/lock\n"],
        why: "6.10: an opaque mark taken for a whiteout; what it hides is not listed",
    },
    DockersError {
        containers: &["v2c"],
        line: "C /etc/apt\n",
        truth: &[b"A /etc/apt\n"],
        why: "6.10: whiteouts between the layers are not looked at; the image has deleted it",
    },
    DockersError {
        containers: &["v2c"],
        line: "C /etc/apt/sources.list\n",
        truth: &[b"A /etc/apt/sources.list\n"],
        why: "6.10: the same",
    },
    DockersError {
        containers: &["v2c"],
        line: "C /opt/cache\n",
        truth: &[b"A /opt/cache\n"],
        why: "6.10: the same",
    },
];

/// `docker diff` without docker's own errors.
fn true_diff(container: &str, docker: &[u8]) -> Vec<u8> {
    let errors = DOCKERS_ERRORS
        .iter()
        .filter(|error| error.containers.contains(&container));
    let mut lines = Vec::new();
    for line in docker.split_inclusive(|&byte| byte == b'\n') {
        match errors.clone().find(|error| error.line.as_bytes() == line) {
            Some(error) => lines.extend(error.truth.concat()),
            None => lines.extend_from_slice(line),
        }
    }
    lines
}

#[apply(test)]
fn changes_are_docker_diff_without_dockers_errors() {
    for docker in dockers().iter() {
        for container in docker.containers() {
            let diff = &docker.truth[&format!("diff-{container}.txt")];
            if container == "doomed" {
                // 6.12: half removed. Docker cannot diff it; what is left of its layer is told.
                assert!(diff.starts_with(b"Error response from daemon"));
                assert_eq!(
                    docker.host.ask(["changes", container]).exits(0).text(),
                    "A /immutable\n"
                );
                continue;
            }
            let ours = docker.host.ask(["changes", container]).exits(0).stdout;
            let (ours, diff) = (String::from_utf8_lossy(&ours), true_diff(container, diff));
            assert_eq!(
                ours,
                String::from_utf8_lossy(&diff),
                "{} {container}",
                docker.name
            );
        }
    }
}

#[apply(test)]
fn every_error_of_docker_that_is_named_was_seen() {
    let dockers = dockers();
    for error in DOCKERS_ERRORS.iter().filter(|_| !dockers.is_empty()) {
        for container in error.containers {
            let is_in = |docker: &Docker| {
                let diff = docker.truth.get(&format!("diff-{container}.txt"));
                diff.is_some_and(|diff| {
                    diff.split_inclusive(|&byte| byte == b'\n')
                        .any(|line| line == error.line.as_bytes())
                })
            };
            assert!(
                dockers.iter().any(is_in),
                "{container}: {} {}",
                error.line,
                error.why
            );
        }
    }
}

#[apply(test)]
fn the_view_is_what_docker_exported() {
    for docker in dockers().iter() {
        for container in docker
            .containers()
            .into_iter()
            .filter(|name| *name != "doomed")
        {
            let mut kernel = exported(docker.said(&format!("export-{container}.lst")));
            let rows = docker
                .host
                .jsonl(["ls", "-R", "-l", container])
                .exits(0)
                .rows();
            for path in pseudo_linked(&rows, |path| kernel.get(path)?.same_as.clone()) {
                kernel
                    .entry(path)
                    .and_modify(|entry| entry.mode = MODE_BELOW);
            }
            let ours: BTreeMap<Vec<u8>, Exported> = rows
                .iter()
                .map(|row| (bytes(&row["path"]), Exported::of_row(row)))
                .collect();
            let kernel = kernel
                .into_iter()
                .map(|(path, entry)| (path, entry.alone()))
                .collect();
            assert_same(&ours, &kernel, &format!("{} {container}", docker.name));
        }
    }
}

/// What `tar -tv` shows of an entry of `docker export`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported {
    pub kind: String,
    pub mode: u32,
    pub owner: String,
    /// Of regular files.
    pub size: u64,
    pub link: Option<Vec<u8>>,
    pub same_as: Option<Vec<u8>>,
}

impl Exported {
    fn of_row(row: &Value) -> Exported {
        let kind = text(row, "type");
        Exported {
            kind: kind.into(),
            mode: octal(text(row, "mode")),
            owner: format!("{}/{}", row["uid"], row["gid"]),
            size: if kind == "file" {
                row["size"].as_u64().expect("a size")
            } else {
                0
            },
            link: row.get("link").map(bytes),
            same_as: None,
        }
    }

    /// Without what `ls` does not tell.
    fn alone(self) -> Exported {
        Exported {
            same_as: None,
            ..self
        }
    }
}

/// A hard-linked file of the base image, which web1 made setuid through this one name, and the
/// mode that it has below.
pub const PSEUDO_LINK: &[u8] = b"/usr/bin/busybox";
pub const MODE_BELOW: u32 = 0o755;

/// The names that showed another name's copy only while they were mounted: hard links of a file
/// that was copied up, which nobody opened by that name. On disk, and after the next mount, they
/// are as they were (2.4).
pub fn pseudo_linked(rows: &[Value], same_as: impl Fn(&[u8]) -> Option<Vec<u8>>) -> Vec<Vec<u8>> {
    let is_copied = |path: &[u8]| {
        rows.iter()
            .any(|row| bytes(&row["path"]) == path && row["branch"] == 0)
    };
    if !is_copied(PSEUDO_LINK) {
        return Vec::new();
    }
    let first_name = |path: &[u8]| same_as(path).unwrap_or_else(|| path.to_vec());
    let paths = rows.iter().map(|row| bytes(&row["path"]));
    paths
        .filter(|path| first_name(path) == first_name(PSEUDO_LINK) && !is_copied(path))
        .collect()
}

fn octal(mode: &str) -> u32 {
    u32::from_str_radix(mode, 8).expect("an octal mode")
}

/// What `tar -tv` listed of an export.
pub fn exported(listing: &str) -> BTreeMap<Vec<u8>, Exported> {
    let mut found: BTreeMap<Vec<u8>, Exported> = BTreeMap::new();
    for line in listing.lines() {
        let mut rest = line;
        let mut word = || {
            let (word, after) = rest.trim_start().split_once(' ').expect("six fields");
            rest = after;
            word
        };
        let (mode, owner, size, _date, _time) = (word(), word(), word(), word(), word());
        let path = |name: &str| [b"/", &unescape(name.trim_end_matches('/'))[..]].concat();
        let entry = match mode.as_bytes()[0] {
            b'h' => {
                let (name, of) = rest.split_once(" link to ").expect("a hard link");
                let linked = found[&path(of)].clone();
                found.insert(
                    path(name),
                    Exported {
                        same_as: Some(path(of)),
                        ..linked
                    },
                );
                continue;
            }
            b'l' => {
                let (name, target) = rest.split_once(" -> ").expect("a symbolic link");
                (name, "symlink", Some(unescape(target)))
            }
            kind => (rest, kind_of_letter(kind), None),
        };
        let (name, kind, link) = entry;
        let size = if kind == "file" {
            size.parse().expect("a size")
        } else {
            0
        };
        found.insert(
            path(name),
            Exported {
                kind: kind.into(),
                mode: mode_of_letters(mode),
                owner: owner.into(),
                size,
                link,
                same_as: None,
            },
        );
    }
    found
}

fn kind_of_letter(letter: u8) -> &'static str {
    match letter {
        b'-' => "file",
        b'd' => "directory",
        b'p' => "fifo",
        b'c' => "char",
        b'b' => "block",
        other => panic!("tar shows no type {:?}", other as char),
    }
}

/// `rwsr-xr-t` as a number.
fn mode_of_letters(letters: &str) -> u32 {
    let letters = &letters.as_bytes()[1..];
    let mut mode = 0;
    for (position, letter) in letters.iter().enumerate() {
        let bit = 0o400 >> position;
        let special = 0o4000 >> (position / 3);
        mode |= match letter {
            b'-' => 0,
            b's' | b't' => bit | special,
            b'S' | b'T' => special,
            _ => bit,
        };
    }
    mode
}

/// Undoes `tar -tv`'s escapes: `\n`, `\t`, `\\` and octal ones.
fn unescape(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = name.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        if first != b'\\' {
            bytes.push(first);
            continue;
        }
        let length = match tail {
            [b'0'..=b'3', _, _, ..] => 3,
            _ => 1,
        };
        let (escape, after) = tail.split_at(length);
        rest = after;
        bytes.push(match escape {
            b"n" => b'\n',
            b"t" => b'\t',
            [byte] => *byte,
            digits => digits
                .iter()
                .fold(0, |value, digit| value * 8 + (digit - b'0')),
        });
    }
    bytes
}

/// Compares two views name by name, so that a failure says which.
fn assert_same<T: PartialEq + std::fmt::Debug>(
    ours: &BTreeMap<Vec<u8>, T>,
    kernel: &BTreeMap<Vec<u8>, T>,
    of: &str,
) {
    let names: BTreeSet<&Vec<u8>> = ours.keys().chain(kernel.keys()).collect();
    let wrong: Vec<String> = names
        .into_iter()
        .filter(|name| ours.get(*name) != kernel.get(*name))
        .map(|name| {
            format!(
                "{}: {:?}, truly {:?}",
                String::from_utf8_lossy(name),
                ours.get(name),
                kernel.get(name)
            )
        })
        .collect();
    assert!(wrong.is_empty(), "{of}:\n{}", wrong.join("\n"));
}

#[apply(test)]
fn the_view_of_mounted_containers_is_what_the_kernel_showed_to_the_byte() {
    for docker in dockers().iter() {
        let mounted = docker.host.jsonl(["branches"]).rows();
        let mounted: Vec<&Value> = mounted
            .iter()
            .filter(|row| row["state"] == "mounted")
            .collect();
        assert!(!mounted.is_empty());
        for union in mounted {
            let container = text(&union["owner"], "name");
            let mount = format!("var/lib/docker/aufs/mnt/{}", docker.mount_id(container));
            let mut kernel = archive::contents(&format!("{}.unions", docker.name), &mount);
            let directories = directories(union);
            let rows = docker
                .host
                .jsonl(["ls", "-R", "-l", container])
                .exits(0)
                .rows();
            let ours: BTreeMap<Vec<u8>, Seen> = rows
                .iter()
                .map(|row| {
                    (
                        bytes(&row["path"]),
                        Seen::of_row(row, &docker.host, &directories),
                    )
                })
                .collect();
            for path in pseudo_linked(&rows, |path| kernel.get(path)?.same_as.clone()) {
                kernel
                    .entry(path)
                    .and_modify(|entry| entry.mode = MODE_BELOW);
            }
            let kernel = kernel
                .into_iter()
                .map(|(path, meta)| (path, Seen::of_meta(meta)))
                .collect();
            assert_same(&ours, &kernel, &format!("{} {container}", docker.name));
        }
    }
}

/// What a mounted union showed of an entry.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    kind: String,
    mode: u32,
    owner: (u64, u64),
    mtime: i64,
    link: Option<Vec<u8>>,
    content: Content,
}

/// Compared to the byte, but shown so that a failure can be read.
#[derive(PartialEq, Eq)]
struct Content(Vec<u8>);

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = &self.0[..self.0.len().min(40)];
        write!(
            f,
            "{} bytes: {}",
            self.0.len(),
            String::from_utf8_lossy(shown)
        )
    }
}

impl Seen {
    fn of_meta(meta: Meta) -> Seen {
        Seen {
            kind: meta.kind.into(),
            mode: meta.mode,
            owner: (meta.uid.into(), meta.gid.into()),
            mtime: meta.mtime,
            link: meta.link,
            content: Content(meta.content),
        }
    }

    /// The content is that of the file in the branch that is said to provide it.
    fn of_row(row: &Value, host: &Host, directories: &[Vec<u8>]) -> Seen {
        let number = |field: &str| {
            row[field]
                .as_u64()
                .unwrap_or_else(|| panic!("no number {field:?} in {row}"))
        };
        let branch = usize::try_from(number("branch")).expect("a small number");
        let content = match text(row, "type") {
            "file" => host.read(OsString::from_vec(
                [&directories[branch][..], &bytes(&row["path"])].concat(),
            )),
            _ => Vec::new(),
        };
        Seen {
            kind: text(row, "type").into(),
            mode: octal(text(row, "mode")),
            owner: (number("uid"), number("gid")),
            mtime: run::seconds(&row["mtime"]).expect("a time"),
            link: row.get("link").map(bytes),
            content: Content(content),
        }
    }
}

#[apply(test)]
fn which_agrees_with_ls_on_every_path() {
    for docker in dockers().iter() {
        for container in docker
            .containers()
            .into_iter()
            .filter(|name| *name != "doomed")
        {
            let listed = docker.host.jsonl(["ls", "-R", container]).exits(0).rows();
            let words = ["which", "--no-follow", "--in", container, "--"].map(OsString::from);
            let paths = listed
                .iter()
                .map(|row| OsString::from_vec(bytes(&row["path"])));
            let asked = docker
                .host
                .jsonl(words.into_iter().chain(paths))
                .exits(0)
                .rows();
            assert_eq!(listed.len(), asked.len());
            for (listed, asked) in listed.iter().zip(&asked) {
                for field in ["path", "type", "branch", "layer"] {
                    assert_eq!(listed[field], asked[field], "{container}: {listed} {asked}");
                }
                assert_eq!(asked["state"], "present");
                // The visible version is among those on disk.
                let versions = asked["versions"].as_array().expect("versions");
                assert!(
                    versions
                        .iter()
                        .any(|version| version["branch"] == asked["branch"]),
                    "{asked}"
                );
            }
        }
    }
}

#[apply(test)]
fn the_history_of_every_image_is_dockers() {
    needs::time();
    for docker in dockers().iter() {
        let images = docker.named("history-", ".json");
        assert!(images.len() >= 17);
        for image in images {
            let said: Vec<Value> = docker
                .said(&format!("history-{image}.json"))
                .lines()
                .map(|line| serde_json::from_str(line).expect("docker prints JSON"))
                .collect();
            let rows = docker.host.jsonl(["history", image]).exits(0).rows();
            assert_eq!(rows.len(), said.len(), "{image}");
            for (row, said) in rows.iter().zip(&said) {
                let id = row["image"]
                    .as_str()
                    .map_or("<missing>".into(), |id| format!("sha256:{id}"));
                assert_eq!(id, text(said, "ID"), "{image}");
                assert_eq!(text(row, "instruction"), text(said, "CreatedBy"), "{image}");
                assert_eq!(row["size"].to_string(), text(said, "Size"), "{image}");
                assert_eq!(
                    row["comment"].as_str().unwrap_or_default(),
                    text(said, "Comment"),
                    "{image}"
                );
                // Docker prints whole seconds.
                assert_eq!(
                    &text(row, "created")[..19],
                    &text(said, "CreatedAt")[..19],
                    "{image}"
                );
            }
        }
    }
}

#[apply(test)]
fn a_history_looks_like_dockers() {
    needs::time();
    let columns = ["IMAGE", "CREATED BY", "SIZE", "COMMENT"];
    for docker in dockers().iter() {
        for image in docker.named("history-", ".json") {
            for (file, arguments) in [
                (
                    format!("history-{image}.short.txt"),
                    &["history", image][..],
                ),
                (
                    format!("history-{image}.txt"),
                    &["--no-trunc", "history", image],
                ),
            ] {
                let ours = table::columns(&docker.table(arguments), &columns);
                let said =
                    table::columns(&docker.said(&file).replace("sha256:", "       "), &columns);
                assert_eq!(ours, said, "{} {file}", docker.name);
            }
        }
    }
}

#[apply(test)]
fn the_layers_in_a_history_are_on_disk_and_in_dockers_database() {
    for docker in dockers().iter() {
        for row in docker
            .host
            .jsonl(["history", "training/webapp"])
            .exits(0)
            .rows()
        {
            // 6.6: a step that changed nothing has no layer.
            assert_eq!(row["empty"] == true, row.get("layer").is_none(), "{row}");
            if row["empty"] == true {
                continue;
            }
            let chain = text(&row, "chain_id")
                .strip_prefix("sha256:")
                .expect("a digest");
            let word = |name: &str| {
                let path = format!("/var/lib/docker/image/aufs/layerdb/sha256/{chain}/{name}");
                String::from_utf8(docker.host.read(path)).expect("text")
            };
            assert_eq!(word("cache-id"), text(&row, "layer"));
            assert_eq!(word("diff"), text(&row, "diff_id"));
            assert_eq!(word("size"), row["size"].to_string());
            assert!(docker.host.at(text(&row, "directory")).is_dir(), "{row}");
        }
    }
}

#[apply(test)]
fn the_history_of_a_container_begins_with_its_own_layers() {
    for docker in dockers().iter() {
        let rows = docker.host.jsonl(["history", "web1"]).exits(0).rows();
        let id = docker.mount_id("web1");
        assert_eq!(text(&rows[0], "layer"), id);
        assert_eq!(text(&rows[1], "layer"), format!("{id}-init"));
        let image = docker
            .host
            .jsonl(["history", "training/webapp"])
            .exits(0)
            .rows();
        for (of_container, of_image) in rows[2..].iter().zip(&image) {
            let mut of_image = of_image.clone();
            of_image["target"] = of_container["target"].clone();
            assert_eq!(*of_container, of_image);
        }
        assert_eq!(rows.len(), image.len() + 2);
    }
}

const PS: [&str; 7] = [
    "CONTAINER ID",
    "IMAGE",
    "COMMAND",
    "CREATED",
    "STATUS",
    "PORTS",
    "NAMES",
];

#[apply(test)]
fn containers_are_docker_ps_a() {
    for docker in dockers().iter() {
        for (file, arguments) in [
            ("docker-ps-a-short.txt", &["containers"][..]),
            ("docker-ps-a.txt", &["--no-trunc", "containers"]),
        ] {
            let ours = table::columns(&docker.table(arguments), &PS);
            let said = table::columns(docker.said(file), &PS);
            assert_eq!(
                without_seconds(ours),
                without_seconds(said),
                "{} {file}",
                docker.name
            );
        }
    }
}

/// Docker took more than a second to print all of this, so that its own seconds do not agree.
fn without_seconds(rows: Vec<Vec<String>>) -> Vec<Vec<String>> {
    let vague = |cell: String| match cell.split_once(" seconds") {
        Some((before, after)) => format!(
            "{} seconds{after}",
            before.trim_end_matches(|char: char| char.is_ascii_digit())
        ),
        None => cell,
    };
    rows.into_iter()
        .map(|row| row.into_iter().map(vague).collect())
        .collect()
}

#[apply(test)]
fn containers_are_what_docker_inspects() {
    for docker in dockers().iter() {
        let rows = docker.host.jsonl(["containers"]).exits(0).rows();
        assert_eq!(rows.len(), docker.containers().len());
        for name in docker.containers() {
            let said = docker.inspected_container(name);
            let row = rows
                .iter()
                .find(|row| row["name"] == name)
                .unwrap_or_else(|| panic!("no {name}"));
            assert_eq!(row["id"], said["Id"]);
            assert_eq!(row["created"], said["Created"]);
            assert_eq!(row["driver"], said["Driver"]);
            assert_eq!(row["exit_code"], said["State"]["ExitCode"]);
            assert_eq!(
                format!("sha256:{}", text(row, "image_id")),
                text(&said, "Image")
            );
            // `docker inspect` says dead where `docker ps` says that it is being removed.
            if name != "doomed" {
                assert_eq!(row["state"], said["State"]["Status"], "{name}");
            }
            let is_up = matches!(text(row, "state"), "running" | "paused");
            assert_eq!(
                row["mounted"], is_up,
                "{name}: only what runs is mounted (6.2)"
            );
        }
    }
}

#[apply(test)]
fn images_are_docker_images() {
    for docker in dockers().iter() {
        let columns = ["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"];
        for (file, arguments) in [
            ("docker-images.txt", &["images"][..]),
            ("docker-images-a.txt", &["--no-trunc", "images", "--all"]),
        ] {
            // Docker's order of names of one image is accidental.
            let sorted = |text: &str| {
                let mut rows = without_seconds(table::columns(
                    &text.replace("sha256:", "       "),
                    &columns,
                ));
                rows.sort();
                rows
            };
            assert_eq!(
                sorted(&docker.table(arguments)),
                sorted(docker.said(file)),
                "{} {file}",
                docker.name
            );
        }
    }
}

#[apply(test)]
fn info_is_the_storage_part_of_docker_info() {
    let lines = [
        "Containers",
        "Running",
        "Paused",
        "Stopped",
        "Images",
        "Storage Driver",
        "Root Dir",
        "Backing Filesystem",
        "Dirs",
        "Dirperm1 Supported",
    ];
    let value = |text: &str, name: &str| {
        let lines = text.lines().filter_map(|line| line.trim().split_once(": "));
        lines
            .clone()
            .find(|(of, _)| *of == name)
            .map(|(_, value)| value.to_owned())
    };
    for docker in dockers().iter() {
        let ours = docker.table(&["info"]);
        for name in lines {
            let said = value(docker.said("docker-info.txt"), name);
            assert!(said.is_some());
            assert_eq!(value(&ours, name), said, "{} {name}", docker.name);
        }
        let row = docker.host.jsonl(["info"]).exits(0).row();
        assert_eq!(
            row["engines"][0]["layer_count"].to_string(),
            value(&ours, "Dirs").expect("seen above")
        );
        assert_eq!(row["problems"], Value::Array(Vec::new()));
    }
}

#[apply(test)]
fn branches_are_what_sysfs_says_and_what_docker_would_mount() {
    for docker in dockers().iter() {
        let rows = docker.host.jsonl(["branches"]).exits(0).rows();
        let names: Vec<&str> = rows.iter().map(|row| text(&row["owner"], "name")).collect();
        let unique: BTreeSet<&str> = names.iter().copied().collect();
        assert_eq!(
            unique,
            docker.containers().into_iter().collect(),
            "every container once"
        );
        for row in &rows {
            let id = docker.mount_id(text(&row["owner"], "name"));
            assert_eq!(row["state"] == "mounted", row["si"].is_string());
            if let Some(si) = row["si"].as_str() {
                assert_eq!(spelled(row), sysfs(&docker.host, si));
            }
            // 6.1, 6.4: the container's layer, then its list of parents.
            let layers = match fs::read_to_string(
                docker.host.at(format!("/var/lib/docker/aufs/layers/{id}")),
            ) {
                Ok(layers) => format!("{id}\n{layers}"),
                // 6.12: half removed, its own list is gone.
                Err(_) => {
                    let init = docker
                        .host
                        .read(format!("/var/lib/docker/aufs/layers/{id}-init"));
                    format!("{id}\n{id}-init\n{}", String::from_utf8(init).expect("ids"))
                }
            };
            let branches = row["branches"].as_array().expect("branches");
            assert_eq!(texts(branches, "layer"), layers.lines().collect::<Vec<_>>());
            let roles = texts(branches, "role");
            let images = roles.len() - 2;
            let numbered = (1..=images)
                .rev()
                .map(|number| format!("image {number}/{images}"));
            let expected: Vec<String> = ["container".into(), "init".into()]
                .into_iter()
                .chain(numbered)
                .collect();
            assert_eq!(roles, expected);
        }
    }
}

/// The branches of a row as sysfs spells them.
fn spelled(row: &Value) -> Vec<String> {
    let branches = row["branches"].as_array().expect("branches");
    branches
        .iter()
        .map(|branch| {
            format!(
                "{}={}",
                String::from_utf8_lossy(&bytes(&branch["directory"])),
                text(branch, "permission")
            )
        })
        .collect()
}

/// `br<N>` of a union in sysfs, numerically.
fn sysfs(host: &Host, si: &str) -> Vec<String> {
    (0..)
        .map_while(|number| {
            fs::read_to_string(host.at(format!("/sys/fs/aufs/{si}/br{number}"))).ok()
        })
        .map(|line| line.trim_end_matches('\n').to_owned())
        .collect()
}

#[apply(test)]
fn instructions_stand_beside_the_layers_they_made() {
    for docker in dockers().iter() {
        let history = docker
            .host
            .jsonl(["history", "training/webapp"])
            .exits(0)
            .rows();
        let made: BTreeMap<&str, &str> = history
            .iter()
            .filter_map(|row| Some((row["layer"].as_str()?, text(row, "instruction"))))
            .collect();
        let web1 = docker.host.jsonl(["branches", "web1"]).exits(0).row();
        for branch in &web1["branches"].as_array().expect("branches")[2..] {
            // The imported base image has no instruction.
            let instruction = branch["instruction"].as_str().unwrap_or_default();
            assert_eq!(instruction, made[text(branch, "layer")], "{branch}");
        }
    }
}

#[apply(test)]
fn what_a_deletion_hides_is_the_version_below() {
    for docker in dockers()
        .iter()
        .filter(|docker| docker.name == "docker-aufs-webapp")
    {
        let path = "/usr/local/lib/python2.7/dist-packages/itsdangerous.py";
        let row = docker
            .host
            .jsonl(["which".to_owned(), format!("web1:{path}")])
            .exits(1)
            .row();
        assert_eq!(row["state"], "deleted");
        assert_eq!(row["hidden_by"]["branch"], 0);
        assert_eq!(row["hidden_by"]["kind"], "whiteout");
        let marks = docker
            .host
            .jsonl(["whiteouts", "--glob", "itsdangerous.py", "web1"])
            .exits(0)
            .row();
        assert_eq!(marks["hides"], row["versions"][0]);
        assert_eq!(marks["path"], path);

        let lock = docker
            .host
            .jsonl(["which", "web1:/var/lib/dpkg/lock"])
            .exits(1)
            .row();
        assert_eq!(lock["hidden_by"]["kind"], "opaque");
        assert_eq!(lock["hidden_by"]["mark"], "/var/lib/dpkg/.wh..wh..opq");
    }
}

#[apply(test)]
fn housekeeping_is_never_a_whiteout_and_is_a_leftover_once_unmounted() {
    for docker in dockers().iter() {
        for row in docker
            .host
            .jsonl(["whiteouts", "--all-layers", "web1"])
            .exits(0)
            .rows()
        {
            assert!(!bytes(&row["path"]).starts_with(b"/.wh..wh"), "{row}");
        }
        let found = docker.host.jsonl(["check", "web1"]).exits(1).rows();
        let leftovers: Vec<&Value> = found
            .iter()
            .filter(|row| row["finding"] == "leftover")
            .collect();
        // Under --root nothing is live: the two pseudo-links of 2.4 are left over.
        assert_eq!(leftovers.len(), 2, "{found:?}");
    }
}

#[apply(test)]
fn copyups_cost_what_the_files_measure() {
    for docker in dockers().iter() {
        let rows = docker.host.jsonl(["copyups", "web1"]).exits(0).rows();
        let row = |path: &str| {
            rows.iter()
                .find(|row| row["path"] == path)
                .unwrap_or_else(|| panic!("no {path}: {rows:?}"))
        };
        // 6.10: pseudo-links are copies of one file; the copy is paid for once.
        let busybox: Vec<&Value> = [
            "/usr/bin/busybox",
            "/usr/bin/rm",
            "/usr/bin/sh",
            "/usr/bin/tail",
        ]
        .map(row)
        .into();
        let paid = busybox.iter().filter(|row| row["disk"] != 0).count();
        assert_eq!(paid, 1, "{busybox:?}");
    }
}

// ---- AUFS mounted by hand ----

/// A host of `aufs-plain-*` with its one mount point.
fn plain(name: &str) -> (Host, &'static str) {
    let host = Host::captured(&format!("aufs-plain-{name}"));
    let point = if host.at("/demo").exists() {
        "/demo/mnt"
    } else {
        "/w/mnt"
    };
    (host, point)
}

/// `path branch` of everything in the view.
fn view(host: &Host, target: &str) -> Vec<String> {
    let rows = host.jsonl(["ls", "-R", target]).exits(0).rows();
    rows.iter()
        .map(|row| format!("{} {}", text(row, "path"), row["branch"]))
        .collect()
}

/// `finding branch path` of everything that is found.
fn findings(host: &Host, target: &str) -> Vec<String> {
    let output = host.jsonl(["check", target]);
    let rows = output.rows();
    output.exits(i32::from(!rows.is_empty()));
    rows.iter()
        .map(|row| {
            format!(
                "{} {} {}",
                text(row, "finding"),
                row["branch"],
                text(row, "path")
            )
        })
        .collect()
}

#[apply(test)]
fn the_fruits_of_the_article_before_and_after() {
    for (name, seen, changed) in [
        (
            "01-mounted",
            &["/apple 0", "/carrots 1", "/tomato 0"][..],
            "A /apple\nC /tomato\n",
        ),
        (
            "02-copyup",
            &["/apple 0", "/carrots 0", "/tomato 0"],
            "A /apple\nC /carrots\nC /tomato\n",
        ),
        (
            "03-whiteout",
            &["/apple 0", "/carrots 0"],
            "D /tomato\nA /apple\nC /carrots\n",
        ),
    ] {
        let (host, point) = plain(name);
        assert_eq!(view(&host, point), seen, "{name}");
        assert_eq!(
            host.ask(["changes", point]).exits(0).text(),
            changed,
            "{name}"
        );
        assert_eq!(findings(&host, point), [""; 0], "{name}");
    }
    let (host, point) = plain("03-whiteout");
    let row = host.jsonl(["which", "/demo/mnt/tomato"]).exits(1).row();
    assert_eq!(row["state"], "deleted");
    assert_eq!(row["hidden_by"]["mark"], "/.wh.tomato");
    let mark = host.jsonl(["whiteouts", point]).exits(0).row();
    assert_eq!(
        (text(&mark, "path"), &mark["hides"]["branch"]),
        ("/tomato", &Value::from(1))
    );
}

#[apply(test)]
fn an_opaque_directory_hides_what_is_below() {
    let (host, point) = plain("05-opaque");
    assert_eq!(view(&host, point), ["/d 0", "/d/f1 0"]);
    assert_eq!(
        host.ask(["changes", point]).exits(0).text(),
        "C /d\nD /d/sub\nC /d/f1\n"
    );
    let row = host.jsonl(["which", "/w/mnt/d/sub/f2"]).exits(1).row();
    assert_eq!(row["hidden_by"]["kind"], "opaque");
    assert_eq!(row["hidden_by"]["mark"], "/d/.wh..wh..opq");
    assert_eq!(findings(&host, point), [""; 0]);
}

#[apply(test)]
fn marks_count_where_the_permission_says_so() {
    let (host, point) = plain("06-fivebranch");
    let permissions = host.jsonl(["branches", point]).exits(0).row();
    assert_eq!(
        texts(
            permissions["branches"].as_array().expect("branches"),
            "permission"
        ),
        ["rw", "rw", "ro+wh", "ro", "rr+wh"]
    );
    // 3.2: the whiteout of /f4 in the plain ro branch hides nothing. 1.7: with one dot it is no opaque mark.
    assert_eq!(
        view(&host, point),
        [
            "/d 0",
            "/d/c 0",
            "/d2 2",
            "/d2/hidden 4",
            "/f0 0",
            "/f2 0",
            "/f3 0",
            "/f4 4",
            "/new 0",
            "/newf 0"
        ]
    );
    assert_eq!(
        findings(&host, point),
        ["no-effect 3 /f4", "stale-whiteout 4 /zz"]
    );
    let row = host.jsonl(["which", "/w/mnt/common"]).exits(1).row();
    let says: Vec<&str> = texts(row["trail"].as_array().expect("a trail"), "says");
    assert_eq!(says, ["whiteout", "hidden", "hidden", "hidden", "hidden"]);
    let marks = host
        .jsonl(["whiteouts", "--all-layers", "--recoverable", point])
        .exits(0)
        .rows();
    assert_eq!(texts(&marks, "path"), ["/common", "/f3"]);
}

#[apply(test)]
fn branches_are_in_numerical_order() {
    for (name, count) in [("08-br14", 14), ("08-br127", 127)] {
        let (host, point) = plain(name);
        let row = host.jsonl(["branches"]).exits(0).row();
        let expected: Vec<Vec<u8>> = (0..count)
            .map(|number| format!("/w/b{number}").into_bytes())
            .collect();
        assert_eq!(directories(&row), expected, "{name}");
        assert_eq!(spelled(&row), sysfs(&host, text(&row, "si")), "{name}");
        let last = count - 1;
        let found = host
            .jsonl([
                "which".to_owned(),
                format!("{point}/f{last}"),
                format!("{point}/all"),
            ])
            .exits(0)
            .rows();
        assert_eq!(
            (&found[0]["branch"], &found[1]["branch"]),
            (&Value::from(last), &Value::from(0)),
            "{name}"
        );
        assert_eq!(
            found[1]["versions"].as_array().map(Vec::len),
            Some(count),
            "{name}"
        );
    }
}

#[apply(test)]
fn without_branches_in_sysfs_the_mount_table_has_them() {
    // 4.9
    let (host, point) = plain("09-brs0");
    let row = host.jsonl(["branches", point]).exits(0).row();
    assert_eq!(spelled(&row), ["/w/b0=rw", "/w/b 1=ro+wh", "/w/b2=ro"]);
    assert_eq!(view(&host, point), ["/one 1"]);
}

#[apply(test)]
fn tables_name_what_machines_are_told() {
    let (host, point) = plain("08-br14");
    let output = host.ask(["branches", point]).exits(0);
    let rows = table::columns(
        output.text().split_once('\n').expect("a title").1,
        &["#", "PERM", "DIRECTORY"],
    );
    let row = host.jsonl(["branches", point]).exits(0).row();
    let ours: Vec<String> = rows
        .iter()
        .map(|row| format!("{}={}", row[2], row[1]))
        .collect();
    assert_eq!(ours, spelled(&row));
    let numbers: Vec<String> = (0..14).map(|number| number.to_string()).collect();
    assert_eq!(
        rows.iter().map(|row| row[0].clone()).collect::<Vec<_>>(),
        numbers
    );
}
