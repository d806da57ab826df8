//! A hermetic place for tests: hosts made of fixtures or from nothing in temporary directories,
//! stacks made from the oracle's words, and the binary run with an environment of its own.

pub mod archive;
pub mod deep;
pub mod host;
pub mod live;
pub mod oracle;
pub mod run;
pub mod table;

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;

/// Every verb that answers about unions, in the order of the help.
pub const VERBS: [&str; 12] = [
    "branches",
    "which",
    "ls",
    "whiteouts",
    "copyups",
    "changes",
    "history",
    "containers",
    "images",
    "check",
    "info",
    "restore",
];

pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures")
        .join(name)
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

pub fn has_strace() -> bool {
    let mut strace = std::process::Command::new("strace");
    strace
        .arg("-V")
        .output()
        .is_ok_and(|output| output.status.success())
}

/// Says that a test cannot prove here what it is for. Run as root in CI, none is skipped.
pub fn skip(why: &str) {
    eprintln!("SKIPPED: {why}");
}

/// Runs `check` on every case, on all processors, and fails with what it found wrong.
pub fn all_right<T: Sync>(cases: &[T], check: impl Fn(&T) -> Vec<String> + Sync) {
    let found = Mutex::new(Vec::new());
    let workers = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for worker in 0..workers {
            let (found, check) = (&found, &check);
            scope.spawn(move || {
                for case in cases.iter().skip(worker).step_by(workers) {
                    let wrong = check(case);
                    found.lock().expect("no worker panicked").extend(wrong);
                }
            });
        }
    });
    let wrong = found.into_inner().expect("no worker panicked");
    let shown = wrong
        .iter()
        .take(20)
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join("\n");
    assert!(
        wrong.is_empty(),
        "{} wrong, the first of them:\n{shown}",
        wrong.len()
    );
}
