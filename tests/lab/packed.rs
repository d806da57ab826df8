//! What an archive of files holds and what a directory shows, in the same words: one can be held against
//! the other, whoever wrote it.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{lgetxattr, llistxattr};
use sha2::{Digest, Sha256};
use walkdir::WalkDir;

use super::archive::{self, Meta};
use crate::docker_drivers::kind_of_mode;

/// One name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub kind: &'static str,
    pub mode: u32,
    pub owner: (u32, u32),
    /// Seconds; none where it is not compared.
    pub time: Option<i64>,
    pub size: usize,
    /// SHA-256 of a file's content.
    pub sum: String,
    pub target: Option<Vec<u8>>,
    pub device: u64,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The first of the names of a file that has several.
    pub same_as: Option<Vec<u8>>,
}

/// What engines make in a container to mount something there, and what is theirs in it: nobody's change,
/// and in no image.
pub const ENGINES_OWN: [&str; 9] = [
    ".dockerenv",
    "dev",
    "etc/hostname",
    "etc/hosts",
    "etc/mtab",
    "etc/resolv.conf",
    "proc",
    "run",
    "sys",
];

/// By path, without a slash in front.
pub type Packed = BTreeMap<Vec<u8>, Entry>;

pub fn sum(content: &[u8]) -> String {
    let digits = Sha256::digest(content);
    digits.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What is in a tar stream.
pub fn of_archive(stream: impl Read) -> Packed {
    let mut all = Packed::new();
    // Every name of a file, by that which its content came with.
    let mut names: BTreeMap<Vec<u8>, Vec<Vec<u8>>> = BTreeMap::new();
    for (path, meta) in archive::read(stream) {
        // As engines write absolute names, some with a slash.
        let path = path.strip_prefix(b"/").unwrap_or(&path).to_vec();
        match &meta.same_as {
            Some(of) => {
                let of = of.strip_prefix(b"/").unwrap_or(of).to_vec();
                let entry: Entry = all[&of].clone();
                all.insert(path.clone(), entry);
                let group = names.entry(of.clone()).or_insert_with(|| vec![of]);
                group.push(path);
            }
            None => {
                all.insert(path, entry_of(meta));
            }
        }
    }
    name_groups(&mut all, names.into_values());
    all
}

/// What a union showed, of which each path begins with a slash.
pub fn of_union(shown: BTreeMap<Vec<u8>, Meta>) -> Packed {
    let relative = |path: &[u8]| path.strip_prefix(b"/").unwrap_or(path).to_vec();
    let mut names: BTreeMap<Vec<u8>, Vec<Vec<u8>>> = BTreeMap::new();
    let mut all = Packed::new();
    for (path, meta) in shown {
        if let Some(of) = &meta.same_as {
            let of = relative(of);
            names
                .entry(of.clone())
                .or_insert_with(|| vec![of])
                .push(relative(&path));
        }
        all.insert(relative(&path), entry_of(meta));
    }
    name_groups(&mut all, names.into_values());
    all
}

fn entry_of(meta: Meta) -> Entry {
    let is_file = meta.kind == "file";
    Entry {
        kind: meta.kind,
        mode: meta.mode & 0o7777,
        owner: (meta.uid, meta.gid),
        time: Some(meta.mtime),
        size: meta.content.len(),
        sum: if is_file {
            sum(&meta.content)
        } else {
            String::new()
        },
        target: meta.link,
        device: meta.device,
        xattrs: meta.xattrs.into_iter().collect(),
        same_as: None,
    }
}

fn name_groups(all: &mut Packed, groups: impl Iterator<Item = Vec<Vec<u8>>>) {
    for mut group in groups.filter(|group| group.len() > 1) {
        group.sort();
        for name in &group {
            let entry = all.get_mut(name).expect("it was inserted");
            entry.same_as = Some(group[0].clone());
        }
    }
}

/// What a directory shows, without what is mounted below it.
pub fn of_directory(root: &Path) -> Packed {
    let mut all = Packed::new();
    let mut names: BTreeMap<(u64, u64), Vec<Vec<u8>>> = BTreeMap::new();
    for entry in WalkDir::new(root).min_depth(1).same_file_system(true) {
        let entry = entry.expect("root may read it");
        let meta = entry.metadata().expect("nobody removes it");
        let inside = entry.path().strip_prefix(root).expect("below it");
        let path = inside.as_os_str().as_bytes().to_vec();
        let is_file = meta.is_file();
        let content = if is_file {
            fs::read(entry.path()).expect("root may read it")
        } else {
            Vec::new()
        };
        if is_file && meta.nlink() > 1 {
            let group = names.entry((meta.dev(), meta.ino())).or_default();
            group.push(path.clone());
        }
        let found = Entry {
            kind: kind_of_mode(meta.mode()),
            mode: meta.mode() & 0o7777,
            owner: (meta.uid(), meta.gid()),
            time: Some(meta.mtime()),
            size: content.len(),
            sum: if is_file {
                sum(&content)
            } else {
                String::new()
            },
            target: meta.is_symlink().then(|| {
                let target = fs::read_link(entry.path()).expect("a link");
                target.into_os_string().as_bytes().to_vec()
            }),
            device: meta.rdev(),
            xattrs: xattrs(entry.path()),
            same_as: None,
        };
        all.insert(path, found);
    }
    name_groups(&mut all, names.into_values());
    all
}

/// Without what only an overlay, or a machine's own policy, means.
fn xattrs(at: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut list = vec![0; 4096];
    let length = llistxattr(at, &mut list).unwrap_or(0);
    let names = list[..length].split(|&byte| byte == 0);
    let is_own = |name: &&[u8]| {
        !name.is_empty() && !name.starts_with(b"trusted.") && !name.starts_with(b"security.selinux")
    };
    let read = |name: &[u8]| {
        let mut value = vec![0; 4096];
        let length = lgetxattr(at, OsStr::from_bytes(name), &mut value).ok()?;
        value.truncate(length);
        Some((name.to_vec(), value))
    };
    names.filter(is_own).filter_map(read).collect()
}

/// Without the times of directories, which whoever makes something in them changes.
pub fn without_times_of_directories(mut all: Packed) -> Packed {
    for entry in all.values_mut().filter(|entry| entry.kind == "directory") {
        entry.time = None;
    }
    all
}

#[track_caller]
pub fn assert_same(what: &str, ours: &Packed, theirs: &Packed) {
    assert!(theirs.len() > 2, "{what}: {}", theirs.len());
    let paths = ours
        .keys()
        .chain(theirs.keys().filter(|path| !ours.contains_key(*path)));
    let wrong: Vec<String> = paths
        .filter(|path| ours.get(*path) != theirs.get(*path))
        .map(|path| {
            let (ours, theirs) = (ours.get(path), theirs.get(path));
            format!(
                "{}\n  ours: {ours:?}\n  theirs: {theirs:?}",
                path.escape_ascii()
            )
        })
        .collect();
    assert!(wrong.is_empty(), "{what}\n{}", wrong.join("\n"));
}
