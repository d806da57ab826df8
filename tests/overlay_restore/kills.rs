//! Killed before any system call that writes.

use super::*;

const CALLS: [&str; 14] = [
    "renameat",
    "renameat2",
    "unlinkat",
    "mkdirat",
    "linkat",
    "symlinkat",
    "write",
    "ftruncate",
    "fchmod",
    "fchown",
    "fsetxattr",
    "lsetxattr",
    "lremovexattr",
    "fsync",
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Mounted,
    Unmounted,
}

/// Mounts the stack anew, so that nothing is cached, and says what it shows.
fn fresh(lab: &Lab, state: State, mounted: Option<Mounted>) -> (Facts, Option<Mounted>) {
    drop(mounted);
    let mounted = lab.mount();
    let mut shown = settled(shown(&mounted.0));
    if state == State::Mounted {
        // What a killed run was making there is in the union, under a name of its own.
        shown.retain(|path, _| !path.windows(11).any(|part| part == b"/.layerctl-"));
    }
    (shown, (state == State::Mounted).then_some(mounted))
}

/// Kills a run before every single system call that writes, and lets the kernel look.
fn any_moment(make: &dyn Fn() -> Lab, options: &[&str], path: &str, state: State) {
    needs::strace();
    let lab = make();
    let (old, mounted) = fresh(&lab, state, None);
    lab.restore(options, path).exits(0);
    let (new, mounted) = fresh(&lab, state, mounted);
    assert!(old != new);
    drop(mounted);
    let mut killed = 0;
    for call in CALLS {
        for count in 1.. {
            let lab = make();
            let mounted = (state == State::Mounted).then(|| lab.mount());
            let output = killed_at(call, count, &lab.command(&lab.target(), options, path));
            if output.status.success() {
                break;
            }
            killed += 1;
            let moment = format!("{options:?} {path}: killed before {call} number {count}");
            let (view, mounted) = fresh(&lab, state, mounted);
            assert!(
                view == old || view == new,
                "{moment}\nfrom old: {}from new: {}",
                difference(&old, &view),
                difference(&new, &view)
            );
            let again = lab.restore(options, path);
            assert_eq!(
                again.status,
                Some(if view == new { 1 } else { 0 }),
                "{moment}\nrun again: {}{}",
                again.text(),
                again.stderr
            );
            let (view, _mounted) = fresh(&lab, state, mounted);
            assert!(
                view == new,
                "{moment}\nrun again: {}",
                difference(&new, &view)
            );
        }
    }
    assert!(killed > 1, "only {killed} kills: is strace working?");
}

fn deleted() -> Lab {
    let lab = Lab::usual();
    lab.file("low/d/f", "before")
        .mode("low/d/f", 0o4755)
        .xattr("low/d/f", "trusted.x", b"y");
    lab.file("low/d/t/x", "x").device("up/d/f").device("up/d/t");
    lab.time("low/d/f", 1_000_000_000)
        .time("low/d/t/x", 1_000_000_000);
    lab
}

#[apply(test)]
fn while_a_mark_is_removed() {
    in_memory(|| any_moment(&deleted, &[], "/d/f", State::Unmounted));
}

#[apply(test)]
fn while_a_file_takes_the_place_of_its_mark() {
    let copy = ["--strategy", "copy"];
    in_memory(|| any_moment(&deleted, &copy, "/d/f", State::Unmounted));
}

#[apply(test)]
fn while_a_directory_takes_the_place_of_its_mark() {
    let copy = ["--strategy", "copy", "-r"];
    in_memory(|| any_moment(&deleted, &copy, "/d/t", State::Unmounted));
}

#[apply(test)]
fn while_directories_are_made_on_the_way() {
    in_memory(|| {
        let make = || {
            let lab = Lab::usual();
            lab.device("mid/a/b/x")
                .file("low/a/b/x", "asked")
                .mode("mid/a/b", 0o701);
            lab.time("low/a/b/x", 1_000_000_000);
            lab
        };
        any_moment(&make, &[], "/a/b/x", State::Unmounted);
    });
}

#[apply(test)]
fn while_a_directory_stops_being_opaque() {
    in_memory(|| {
        let make = || {
            let lab = Lab::usual();
            lab.opaque("up/d").file("low/d/x", "").file("low/d/y", "");
            lab.time("low/d/x", 1_000_000_000)
                .time("low/d/y", 1_000_000_000);
            lab
        };
        let unhide = ["--strategy", "unhide", "-y"];
        any_moment(&make, &unhide, "/d/x", State::Unmounted);
    });
}

#[apply(test)]
fn while_it_copies_through_the_mount() {
    in_memory(|| any_moment(&deleted, &[], "/d/f", State::Mounted));
}
