//! The oracle's stacks, made on disk.

use std::collections::BTreeMap;
use std::fs;
use std::io::BufRead;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use serde::Deserialize;

#[derive(Deserialize)]
pub struct Branch {
    pub perm: String,
    pub entries: Vec<Vec<String>>,
}

/// One object of `aufs-lookup.ndjson.zst`. Paths are percent-encoded.
#[derive(Deserialize)]
pub struct LookupCase {
    pub id: u64,
    pub dirty: bool,
    pub branches: Vec<Branch>,
    pub view: BTreeMap<String, (String, usize)>,
    pub errors: BTreeMap<String, String>,
    pub list: BTreeMap<String, Vec<String>>,
    pub follow: BTreeMap<String, Answer>,
}

/// What a path led to: a type and a branch, or an errno.
#[derive(Deserialize, Debug, PartialEq, Eq, Clone)]
#[serde(untagged)]
pub enum Answer {
    Found(String, usize),
    Errno(String),
}

/// One object of `aufs-operations.ndjson.zst`.
#[derive(Deserialize)]
pub struct OperationsCase {
    pub id: u64,
    pub branches: Vec<Branch>,
    pub before: BTreeMap<String, Meta>,
    pub after: BTreeMap<String, Meta>,
    pub writable: BTreeMap<String, Meta>,
}

#[derive(Deserialize, Debug, PartialEq, Eq, Clone)]
pub struct Meta {
    #[serde(default)]
    pub t: String,
    #[serde(default)]
    pub l: Option<String>,
}

pub fn read<T: for<'de> Deserialize<'de>>(name: &str) -> Vec<T> {
    let file = fs::File::open(super::fixture("oracle").join(name)).unwrap();
    let reader = std::io::BufReader::new(zstd::Decoder::new(file).unwrap());
    reader
        .lines()
        .map(|line| serde_json::from_str(&line.unwrap()).unwrap())
        .collect()
}

pub fn decode(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let hex = [bytes.next().unwrap(), bytes.next().unwrap()];
            out.push(u8::from_str_radix(std::str::from_utf8(&hex).unwrap(), 16).unwrap());
        } else {
            out.push(byte);
        }
    }
    out
}

pub fn path_in(dir: &Path, encoded: &str) -> PathBuf {
    dir.join(std::ffi::OsStr::from_bytes(&decode(encoded)))
}

/// Makes one entry. Making a device takes root; a socket, which the oracle has none of, stands
/// in for it elsewhere (see [`device_kind`]).
pub fn make(dir: &Path, kind: &str, path: &str, target: Option<&str>) {
    let at = path_in(dir, path);
    match kind {
        "f" => fs::write(&at, b"").unwrap(),
        "d" => fs::create_dir_all(&at).unwrap(),
        "l" => symlink(std::ffi::OsStr::from_bytes(&decode(target.unwrap())), &at).unwrap(),
        "p" => mknodat(CWD, &at, FileType::Fifo, Mode::from_raw_mode(0o644), 0).unwrap(),
        "c" if super::is_root() => {
            mknodat(CWD, &at, FileType::CharacterDevice, Mode::from_raw_mode(0o644), makedev(1, 3)).unwrap();
        }
        "c" => mknodat(CWD, &at, FileType::Socket, Mode::from_raw_mode(0o644), 0).unwrap(),
        other => panic!("the oracle has no type {other}"),
    }
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
        other => panic!("the oracle has no type {other}"),
    }
}

/// Makes the branches `b0`, `b1`... below `dir` and spells the stack.
pub fn make_branches(dir: &Path, first: usize, branches: &[Branch]) -> Vec<String> {
    branches
        .iter()
        .enumerate()
        .map(|(index, branch)| {
            let at = dir.join(format!("b{}", first + index));
            fs::create_dir(&at).unwrap();
            for entry in &branch.entries {
                make(&at, &entry[0], &entry[1], entry.get(2).map(String::as_str));
            }
            format!("{}={}", at.display(), branch.perm)
        })
        .collect()
}
