//! Hosts to look at: fixtures in place, copies of them that a test may spoil, captured ones, and
//! hosts made from nothing.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;
use walkdir::WalkDir;

use super::run::{self, Output};
use super::{archive, fixture};

/// A host's root.
pub struct Host {
    pub root: PathBuf,
    /// Where it lives, if it is not a fixture in place.
    _home: Option<TempDir>,
}

impl Host {
    /// A fixture of plain files, looked at where it is.
    pub fn fixture(name: &str) -> Host {
        Host {
            root: fixture(name),
            _home: None,
        }
    }

    /// A copy of a fixture, to be spoilt.
    pub fn copy_of(name: &str) -> Host {
        let host = Host::empty();
        copy_tree(&fixture(name), &host.root);
        host
    }

    /// A captured host.
    pub fn captured(name: &str) -> Host {
        let host = Host::empty();
        archive::unpack(name, &host.root);
        host
    }

    /// Has the file system give its blocks to what was written. Until it has, what a file takes on
    /// disk is a guess of the kernel's, and another one at the next look.
    pub fn settle(&self) {
        let root = fs::File::open(&self.root).expect("a directory of our own");
        rustix::fs::syncfs(root).expect("a file system that can be written");
    }

    /// One that somebody else made, and removes.
    pub fn existing(root: &Path) -> Host {
        Host {
            root: root.to_owned(),
            _home: None,
        }
    }

    pub fn empty() -> Host {
        let home = tempfile::tempdir().expect("a temporary directory");
        Host {
            root: home.path().to_owned(),
            _home: Some(home),
        }
    }

    /// Where a path of the host is.
    pub fn at(&self, path: impl AsRef<OsStr>) -> PathBuf {
        let path = path.as_ref().as_bytes();
        self.root
            .join(OsStr::from_bytes(path.strip_prefix(b"/").unwrap_or(path)))
    }

    /// Makes a file and the directories on its way.
    pub fn file(&self, path: impl AsRef<OsStr>, content: impl AsRef<[u8]>) -> &Host {
        let at = self.at(path);
        make_parent(&at);
        fs::write(&at, content).unwrap_or_else(|error| panic!("{}: {error}", at.display()));
        self
    }

    pub fn dir(&self, path: impl AsRef<OsStr>) -> &Host {
        make_dir(&self.at(path));
        self
    }

    pub fn link(&self, path: impl AsRef<OsStr>, target: impl AsRef<Path>) -> &Host {
        let at = self.at(path);
        make_parent(&at);
        symlink(target, &at).unwrap_or_else(|error| panic!("{}: {error}", at.display()));
        self
    }

    pub fn read(&self, path: impl AsRef<OsStr>) -> Vec<u8> {
        let at = self.at(path);
        fs::read(&at).unwrap_or_else(|error| panic!("{}: {error}", at.display()))
    }

    /// Mounts a union as far as a copied host can tell: its branches in sysfs, as the kernel
    /// escapes them, and a line of the mount table.
    pub fn union(&self, si: &str, mounts: &[(&str, &str)], branches: &[(&[u8], &str)]) -> &Host {
        for (index, (path, permission)) in branches.iter().enumerate() {
            let line = [&escape_octal(path)[..], b"=", permission.as_bytes(), b"\n"].concat();
            self.file(format!("/sys/fs/aufs/si_{si}/br{index}"), line);
            self.file(
                format!("/sys/fs/aufs/si_{si}/brid{index}"),
                format!("{}\n", 64 + index),
            );
        }
        self.file(format!("/sys/fs/aufs/si_{si}/xi_path"), "");
        for (point, root) in mounts {
            self.mount(&format!(
                "{root} {point} rw,relatime - aufs none rw,si={si}"
            ));
        }
        self
    }

    /// Adds a line to the mount table, from the mounted directory on.
    pub fn mount(&self, line: &str) -> &Host {
        let table = self.at("/proc/self/mountinfo");
        make_parent(&table);
        let mut file = fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(&table)
            .expect("our own file");
        writeln!(file, "33 15 0:29 {line}").expect("our own file");
        self
    }

    /// Asks about this host.
    pub fn ask(&self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Output {
        run::run(run::command().arg("--root").arg(&self.root).args(arguments))
    }

    /// Asks in a machine's format.
    pub fn jsonl(&self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Output {
        run::layerctl(run::jsonl(&self.root, arguments))
    }

    /// The directories of the branches that a target stands for.
    #[track_caller]
    pub fn branches_of(&self, target: impl AsRef<OsStr>) -> Vec<Vec<u8>> {
        let row = self
            .jsonl([OsStr::new("branches"), OsStr::new("--"), target.as_ref()])
            .exits(0)
            .row();
        directories(&row)
    }
}

fn make_dir(at: &Path) {
    fs::create_dir_all(at).unwrap_or_else(|error| panic!("{}: {error}", at.display()));
}

fn make_parent(at: &Path) {
    make_dir(at.parent().expect("a path below the root"));
}

/// The directories of a row of `branches`.
#[track_caller]
pub fn directories(row: &Value) -> Vec<Vec<u8>> {
    let branches = row["branches"].as_array().expect("branches");
    branches
        .iter()
        .map(|branch| run::bytes(&branch["directory"]))
        .collect()
}

/// A stack as a person spells it, of directories.
pub fn spelled(branches: &[(&Path, &str)]) -> OsString {
    let mut spelled = OsString::from("br");
    for (path, permission) in branches {
        spelled.push(":");
        spelled.push(path);
        spelled.push("=");
        spelled.push(permission);
    }
    spelled
}

/// What the kernel makes of a path in sysfs (FACTS-aufs 4.5).
fn escape_octal(path: &[u8]) -> Vec<u8> {
    let escape = |&byte: &u8| match byte {
        0..=0x20 | b'\\' | 0x7f => format!("\\{byte:03o}").into_bytes(),
        _ => vec![byte],
    };
    path.iter().flat_map(escape).collect()
}

/// Copies plain files, directories and links.
pub fn copy_tree(from: &Path, to: &Path) {
    for entry in WalkDir::new(from) {
        let entry = entry.expect("a readable fixture");
        let at = to.join(entry.path().strip_prefix(from).expect("below it"));
        let kind = entry.file_type();
        let done = if kind.is_dir() {
            fs::create_dir_all(&at)
        } else if kind.is_symlink() {
            fs::read_link(entry.path()).and_then(|target| symlink(target, &at))
        } else {
            fs::copy(entry.path(), &at).map(|_| ())
        };
        done.unwrap_or_else(|error| panic!("{}: {error}", at.display()));
    }
}
