//! A hermetic place for tests: hosts made of fixtures or from nothing in temporary directories,
//! stacks made from the oracle's words, and the binary run with an environment of its own.

pub mod archive;
pub mod captured;
pub mod cri;
pub mod deep;
pub mod harness;
pub mod held;
pub mod host;
pub mod laid;
pub mod live;
pub mod needs;
#[cfg(feature = "internals")]
pub mod oracle;
pub mod packed;
pub mod run;
pub mod store;
pub mod table;
pub mod terminal;
pub mod union;
pub mod verbs;

use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;

pub use harness::{
    again, again_as, in_part, in_part_everywhere, inside, needs_asking, of_many, skip,
    skip_everywhere, wants_all,
};

/// What comes with the source, and not with the package of the registry.
pub fn fixture(name: &str) -> PathBuf {
    needs::fixtures();
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

/// Runs `check` on every case, on all processors, and fails with what it found wrong.
pub fn all_right<T: Sync>(cases: &[T], check: impl Fn(&T) -> Vec<String> + Sync) {
    let found = Mutex::new(Vec::new());
    let workers = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        let work = |worker: usize| {
            let (found, check) = (&found, &check);
            scope.spawn(move || {
                for case in cases.iter().skip(worker).step_by(workers) {
                    let wrong = check(case);
                    found.lock().expect("no worker panicked").extend(wrong);
                }
            })
        };
        let workers: Vec<_> = (0..workers).map(work).collect();
        for worker in workers {
            // One may leave the test out.
            worker
                .join()
                .unwrap_or_else(|payload| resume_unwind(payload));
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
