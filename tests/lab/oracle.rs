//! The oracle's stacks, made on disk. What the fields mean: `fixtures/oracle/README.md`, whose
//! words are repeated here.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use layerctl::internals::branch::parse_spelled;
use layerctl::internals::dir::Dir;
use layerctl::internals::union;
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use serde::Deserialize;

#[derive(Deserialize)]
pub struct Branch {
    pub perm: String,
    /// In creation order: `[type, path]`, for a link `["l", path, target]`.
    pub entries: Vec<Vec<String>>,
}

/// One stack of `aufs-lookup.ndjson.zst`. Paths are percent-encoded; "" is the root.
#[derive(Deserialize)]
pub struct LookupCase {
    pub id: u64,
    /// The stack may hold what AUFS itself never makes.
    pub dirty: bool,
    pub branches: Vec<Branch>,
    /// What `lstat` showed.
    pub view: BTreeMap<String, (String, usize)>,
    /// What `lstat` refused.
    pub errors: BTreeMap<String, String>,
    /// What `readdir` listed.
    pub list: BTreeMap<String, Vec<String>>,
    /// What `stat` showed or refused.
    pub follow: BTreeMap<String, Answer>,
}

/// What a path led to: a type and a branch, or an errno.
#[derive(Deserialize, Debug, PartialEq, Eq, Clone)]
#[serde(untagged)]
pub enum Answer {
    Found(String, usize),
    Errno(String),
}

/// One history of `aufs-operations.ndjson.zst`.
#[derive(Deserialize)]
pub struct OperationsCase {
    pub id: u64,
    /// The read-only ones, numbered from 1.
    pub branches: Vec<Branch>,
    /// The whole view before the operations.
    pub before: BTreeMap<String, Meta>,
    /// The same after them, on a fresh mount.
    pub after: BTreeMap<String, Meta>,
    /// What the writable branch holds afterwards, housekeeping and whiteouts included.
    pub writable: BTreeMap<String, Meta>,
}

#[derive(Deserialize)]
pub struct Meta {
    #[serde(rename = "t")]
    pub kind: String,
    /// 1000 and the number of the branch that provided it.
    #[serde(rename = "u")]
    pub uid: usize,
    #[serde(rename = "l")]
    pub target: Option<String>,
}

pub fn read<T: for<'de> Deserialize<'de>>(name: &str) -> Vec<T> {
    let path = super::fixture("oracle").join(name);
    let file = fs::File::open(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    BufReader::new(zstd::Decoder::new(file).expect("a zstd stream"))
        .lines()
        .map(|line| serde_json::from_str(&line.expect("text")).expect("one object a line"))
        .collect()
}

/// The bytes that a percent-encoded text stands for.
pub fn decode(text: &str) -> Vec<u8> {
    let mut pieces = text.split('%');
    let mut bytes = pieces.next().unwrap_or_default().as_bytes().to_vec();
    for piece in pieces {
        let (hex, rest) = piece.split_at(2);
        bytes.push(u8::from_str_radix(hex, 16).expect("two digits after %"));
        bytes.extend_from_slice(rest.as_bytes());
    }
    bytes
}

/// The percent-encoded path of a name in a directory.
pub fn child(parent: &str, name: &str) -> String {
    if parent.is_empty() {
        name.to_owned()
    } else {
        format!("{parent}/{name}")
    }
}

/// The percent-encoded path of a directory that holds a name.
pub fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

/// How the tool names the oracle's types.
pub fn kind_word(kind: &str) -> &'static str {
    match kind {
        "f" => "file",
        "d" => "directory",
        "l" => "symlink",
        "p" => "fifo",
        "c" if super::is_root() => "char",
        "c" => "socket",
        other => panic!("the oracle has no type {other:?}"),
    }
}

/// The file, beside a stack's branches, that all files in them are links of.
const FILE: &str = "file";

/// A stack's branches on disk.
pub struct Made {
    /// As a person spells it: `br:DIR=PERM:...`.
    pub spelled: String,
    pub dir: PathBuf,
}

impl Made {
    pub fn lookup(dir: PathBuf, case: &LookupCase) -> Made {
        let mut made = Made::empty(dir);
        made.branches(&case.branches);
        made
    }

    pub fn operations(dir: PathBuf, case: &OperationsCase) -> Made {
        let mut made = Made::empty(dir);
        let writable = made.branch("rw");
        // Sorted, so that a directory comes before what is in it.
        for (path, meta) in &case.writable {
            made.entry(&writable, &meta.kind, path, meta.target.as_deref());
        }
        made.branches(&case.branches);
        made
    }

    fn empty(dir: PathBuf) -> Made {
        fs::create_dir(&dir).expect("a directory of our own");
        fs::write(dir.join(FILE), "").expect("a file of our own");
        Made {
            spelled: "br".into(),
            dir,
        }
    }

    fn branches(&mut self, branches: &[Branch]) {
        for branch in branches {
            let at = self.branch(&branch.perm);
            for entry in &branch.entries {
                self.entry(&at, &entry[0], &entry[1], entry.get(2).map(String::as_str));
            }
        }
    }

    fn branch(&mut self, permission: &str) -> PathBuf {
        let at = self
            .dir
            .join(format!("b{}", self.spelled.matches('=').count()));
        fs::create_dir(&at).expect("a directory of our own");
        self.spelled
            .push_str(&format!(":{}={permission}", at.display()));
        at
    }

    /// Makes one entry. Files are links of one, as AUFS's own marks are: thousands of new ones
    /// would take longer than all that is asked of them. Making a device takes root; a socket,
    /// which the oracle has none of, stands in for it elsewhere (see [`kind_word`]).
    fn entry(&self, branch: &Path, kind: &str, path: &str, target: Option<&str>) {
        let at = branch.join(OsStr::from_bytes(&decode(path)));
        let node = |kind, device| {
            mknodat(CWD, &at, kind, Mode::from_raw_mode(0o644), device)
                .map_err(std::io::Error::from)
        };
        let made = match (kind, target) {
            ("f", _) => fs::hard_link(self.dir.join(FILE), &at),
            ("d", _) => fs::create_dir(&at),
            ("l", Some(target)) => symlink(OsStr::from_bytes(&decode(target)), &at),
            ("p", _) => node(FileType::Fifo, 0),
            ("c", _) if super::is_root() => node(FileType::CharacterDevice, makedev(1, 3)),
            ("c", _) => node(FileType::Socket, 0),
            other => panic!("the oracle has no type {other:?}"),
        };
        made.unwrap_or_else(|error| panic!("{}: {error}", at.display()));
    }

    pub fn stack(&self) -> union::Stack {
        let specs = parse_spelled(self.spelled.as_bytes()).expect("a stack");
        let branches = specs
            .iter()
            .map(|spec| union::Branch::aufs(spec, Dir::open_root(&spec.path.to_path())))
            .collect();
        union::Stack::new(branches)
    }
}

impl Drop for Made {
    /// At once, before any of it has to be written to a disk.
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}
