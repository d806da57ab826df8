//! `mount`, `umount`: what is seen through a mount, by the kernel's own calls.
//!
//! All of it runs again in mount and process namespaces of its own: whatever becomes of a test, no
//! mount and no server outlives it.

mod hosts;
#[cfg(feature = "internals")]
mod kernels;
mod life;
mod proofs;
mod rights;
mod ways;

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::lab::run::{Output, command, run};
use crate::lab::{inside, needs};

/// Runs a test where it can mount, and sees nothing but what it made.
#[track_caller]
fn privately(test: impl FnOnce(&Ground)) {
    inside(
        || test(&Ground::new()),
        || {
            needs::fuse();
            needs::own_mounts()
        },
    );
}

/// A directory that is the test's own.
struct Ground(TempDir);

impl Ground {
    fn new() -> Ground {
        Ground(tempfile::tempdir().expect("a temporary directory"))
    }

    fn at(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn dir(&self, path: &str) -> PathBuf {
        let at = self.at(path);
        fs::create_dir_all(&at).expect("a directory of our own");
        at
    }

    fn file(&self, path: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let at = self.at(path);
        fs::create_dir_all(at.parent().expect("a directory")).expect("a directory of our own");
        fs::write(&at, content).expect("a file of our own");
        at
    }

    /// An overlay of two branches, as a person spells it.
    fn overlay(&self) -> String {
        let (up, low) = (self.dir("up"), self.dir("low"));
        format!("lowerdir={},upperdir={}", low.display(), up.display())
    }
}

/// Mounts a target at a directory.
fn mount(options: &[&str], target: impl AsRef<OsStr>, at: &Path) -> Output {
    let mut command = command();
    // The server is started anew, and finds `fusermount3` where this one would.
    command.env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin");
    run(command
        .args(["--format", "jsonl", "mount"])
        .args(options)
        .arg(target)
        .arg(at))
}

fn umount(at: &Path) -> Output {
    run(command().args(["umount"]).arg(at))
}

/// Our mounts, as they are listed.
fn listed() -> Vec<Value> {
    run(command().args(["--format", "jsonl", "mount"]))
        .exits(0)
        .rows()
}

/// The number of the only server.
fn server() -> String {
    let found = Command::new("pgrep")
        .args(["-f", "^layerctl .*mount"])
        .output();
    let found = String::from_utf8(found.expect("pgrep is there").stdout).expect("numbers");
    let mut numbers = found.split_whitespace();
    let only = numbers.next().expect("a server").to_owned();
    assert_eq!(numbers.next(), None, "one server");
    only
}
