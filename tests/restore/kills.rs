//! Killed before any system call that writes.

use super::*;
use crate::lab::needs;

/// Every system call that changes something. What `openat` makes is seen before the next one.
const CALLS: [&str; 16] = [
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
    "fchmodat",
    "fchown",
    "fchownat",
    "fsetxattr",
    "utimensat",
    "fsync",
];

struct Case<'c> {
    make: &'c dyn Fn() -> Union,
    options: &'c [&'c str],
    path: &'c str,
    /// The only state in between: the name is refused, and shows nothing.
    may_be_eio: bool,
}

/// Kills a run before every single system call, and looks.
fn any_moment(case: &Case<'_>) {
    needs::strace();
    let make = || {
        let union = (case.make)();
        union.time_all(1_000_000_000);
        union
    };
    let union = make();
    let old = union.view();
    let first = union.restore(case.options, case.path).exits(0);
    let new = union.view();
    assert!(old != new, "{}", first.text());
    let mut killed = 0;
    for call in CALLS {
        for count in 1.. {
            let union = make();
            let output = killed_at(call, count, &union.command(case.options, case.path));
            if output.status.success() {
                break;
            }
            killed += 1;
            let moment = format!(
                "{:?} {}: killed before {call} number {count}",
                case.options, case.path
            );
            let view = union.view();
            let is_eio = case.may_be_eio && only_refused(&view, &old, &new);
            assert!(
                view == old || view == new || is_eio,
                "{moment}\nfrom old: {}from new: {}",
                difference(&old, &view),
                difference(&new, &view)
            );
            let again = union.restore(case.options, case.path);
            let finishes = again.status == Some(if view == new { 1 } else { 0 });
            assert!(
                finishes,
                "{moment}\nrun again: {:?} {}{}",
                again.status,
                again.text(),
                again.stderr
            );
            assert!(
                union.view() == new,
                "{moment}\nrun again: {}",
                difference(&new, &union.view())
            );
        }
    }
    assert!(killed > 1, "only {killed} kills: is strace working?");
}

/// The old view, but for one name that the new view has and that is refused.
fn only_refused(view: &Facts, old: &Facts, new: &Facts) -> bool {
    let refused: Vec<&Vec<u8>> = view
        .iter()
        .filter(|(_, fact)| fact.contains("EIO"))
        .map(|(path, _)| path)
        .collect();
    let [name] = refused[..] else { return false };
    let rest: Facts = view
        .iter()
        .filter(|(path, _)| *path != name)
        .map(|(path, fact)| (path.clone(), fact.clone()))
        .collect();
    new.contains_key(name) && !old.contains_key(name) && rest == *old
}

#[apply(test)]
fn while_a_mark_is_removed() {
    any_moment(&Case {
        make: &deleted_file,
        options: &[],
        path: "/f",
        may_be_eio: false,
    });
}

#[apply(test)]
fn while_a_file_takes_the_place_of_its_mark() {
    needs::time();
    let make = || {
        let union = deleted_file();
        union.mode("mid/f", 0o4755).xattr("mid/f", "user.x", b"y");
        union
    };
    any_moment(&Case {
        make: &make,
        options: &["--strategy", "copy"],
        path: "/f",
        may_be_eio: false,
    });
}

#[apply(test)]
fn while_directories_are_made_on_the_way() {
    needs::time();
    let make = || {
        let union = Union::usual();
        union
            .mark("mid/a/b/.wh.x")
            .file("low/a/b/x", "asked")
            .mode("mid/a/b", 0o701)
            .mode("mid/a", 0o710)
            .file("low/a/y", "");
        union
    };
    any_moment(&Case {
        make: &make,
        options: &[],
        path: "/a/b/x",
        may_be_eio: false,
    });
}

#[apply(test)]
fn while_a_link_takes_the_place_of_its_mark() {
    needs::time();
    let make = || {
        let union = Union::usual();
        union.link("low/l", "target").mark("up/.wh.l");
        union
    };
    any_moment(&Case {
        make: &make,
        options: &[],
        path: "/l",
        may_be_eio: false,
    });
    any_moment(&Case {
        make: &make,
        options: &["--strategy", "copy"],
        path: "/l",
        may_be_eio: true,
    });
}

#[apply(test)]
fn while_a_deleted_ancestor_is_made() {
    needs::time();
    any_moment(&Case {
        make: &deleted_ancestor,
        options: &[],
        path: "/d/x",
        may_be_eio: true,
    });
}

#[apply(test)]
fn while_a_directory_is_copied_whole() {
    needs::time();
    any_moment(&Case {
        make: &deleted_ancestor,
        options: &["--strategy", "copy", "-r"],
        path: "/d",
        may_be_eio: true,
    });
}

#[apply(test)]
fn while_a_changed_file_is_thrown_away() {
    let make = || {
        let union = Union::usual();
        union.file("low/f", "old").file("up/f", "new");
        union
    };
    any_moment(&Case {
        make: &make,
        options: &["--revert", "--discard"],
        path: "/f",
        may_be_eio: false,
    });
}

/// The saved file is there, whole, before the changed one is gone.
#[apply(test)]
fn while_a_changed_file_is_saved() {
    needs::time();
    needs::strace();
    for call in CALLS {
        for count in 1.. {
            let union = Union::usual();
            union.file("low/f", "old").file("up/f", "new").dir("saved");
            let saved = fact(&union.at("up/f"), Detail::Copied);
            let output = killed_at(
                call,
                count,
                &union.command(&["--revert", "--save", "saved"], "/f"),
            );
            if output.status.success() {
                break;
            }
            let is_saved = union.at("saved/f").exists();
            if is_saved {
                assert_eq!(
                    fact(&union.at("saved/f"), Detail::Copied),
                    saved,
                    "{call} {count}"
                );
            }
            assert!(
                is_saved || union.view()[&b"/f"[..]].contains("new"),
                "{call} {count}"
            );
        }
    }
}

#[apply(test)]
fn leave_something_that_check_names() {
    needs::strace();
    let union = deleted_ancestor();
    killed_at("renameat2", 1, &union.command(&[], "/d/x"));
    let spelled = union.spelled();
    let found = run::layerctl([
        OsStr::new("--format"),
        "jsonl".as_ref(),
        "check".as_ref(),
        &spelled,
    ])
    .exits(1);
    assert!(
        found.text().contains(".wh..wh.layerctl-"),
        "{}",
        found.text()
    );
}
