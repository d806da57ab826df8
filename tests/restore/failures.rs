//! Any system call fails.

use super::*;
use crate::lab::needs;

const CALLS: [&str; 12] = [
    "renameat",
    "renameat2",
    "unlinkat",
    "linkat",
    "mkdirat",
    "mknodat",
    "symlinkat",
    "write",
    "ftruncate",
    "fchmod",
    "utimensat",
    "fsync",
];

/// Lets every single system call fail: what was begun is taken back, or it was done.
#[track_caller]
fn any_call(make: &dyn Fn() -> Union, options: &[&str], path: &str) {
    needs::strace();
    let make = || {
        let union = make();
        union.time_all(1_000_000_000);
        union
    };
    let union = make();
    let old = union.view();
    union.restore(options, path).exits(0);
    let new = union.view();
    for call in CALLS {
        for count in 1.. {
            let union = make();
            let trace = union.home().join("trace");
            let failure = format!("error=EIO:when={count}");
            let output = injected(call, &failure, &trace, &union.command(options, path));
            let was_injected = fs::read(&trace)
                .is_ok_and(|trace| trace.windows(8).any(|words| words == b"INJECTED"));
            let moment = format!(
                "{options:?} {path}: {call} number {count} failed: {}",
                String::from_utf8_lossy(&output.stderr)
            );
            if !was_injected {
                break;
            }
            let view = union.view();
            assert!(
                view == old || view == new,
                "{moment}\n{}",
                difference(&old, &view)
            );
            // Removing what was begun may be the very thing that fails.
            let leftovers: Vec<Vec<u8>> = union
                .branch("up")
                .into_keys()
                .filter(|path| path.escape_ascii().to_string().contains("layerctl-"))
                .collect();
            assert!(
                call == "unlinkat" || leftovers.is_empty(),
                "{moment}\n{leftovers:?}"
            );
        }
    }
}

#[apply(test)]
fn of_a_removed_mark() {
    any_call(&deleted_file, &[], "/f");
}

#[apply(test)]
fn of_a_copied_file() {
    any_call(&deleted_file, &["--strategy", "copy"], "/f");
}

#[apply(test)]
fn of_a_copied_ancestor() {
    needs::time();
    any_call(&deleted_ancestor, &[], "/d/x");
}

#[apply(test)]
fn of_a_copied_tree() {
    needs::time();
    any_call(&deleted_ancestor, &["--strategy", "copy", "-r"], "/d");
}

#[apply(test)]
fn of_a_reverted_file() {
    let make = || {
        let union = Union::usual();
        union.file("low/f", "old").file("up/f", "new").dir("saved");
        union
    };
    any_call(&make, &["--revert", "--discard"], "/f");
}
