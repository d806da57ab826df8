//! What a place of a merged view answers to those who ask: its names, its paths, who has a version and
//! where, what is opened, and in what two views differ. Asked of the functions, of stacks of our own.

use std::fs;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use layerctl::internals::branch::parse_spelled;
use layerctl::internals::bytes::Bytes;
use layerctl::internals::difference::{
    Between, Change, Compared, Criteria, Criterion, Difference, Differs, Measure, Version, between,
    differences,
};
use layerctl::internals::dir::{Dir, Kind};
use layerctl::internals::error::{Result, errno_name, errno_of};
use layerctl::internals::overlay::{Namespace, Rules};
use layerctl::internals::union::{
    Branch, Entry, Follow, Node, Reading, Resolution, Says, Stack, Why, lookup,
};
use layerctl::internals::whiteout::{Grammar, Mark, MarkKind};
use rustix::fs::{FileType, XattrFlags, lsetxattr};
use rustix::io::Errno;

use crate::lab::union::Union;
use crate::lab::{needs, run, skip};

/// An overlay of root follows redirects and metacopies; its marks here are those that every user may
/// make.
const OVERLAY: Grammar = Grammar::Overlay(Rules {
    namespace: Namespace::User,
    follows_redirects: true,
    metacopy: true,
});
const FUSE: Grammar = Grammar::FuseOverlay(Namespace::User);

const REDIRECT: &str = "user.overlay.redirect";
const METACOPY: &str = "user.overlay.metacopy";

/// The stack of a union's directories, each read by its grammar: the last one by `lowest`.
fn stack_of(union: &Union, grammar: Grammar, lowest: Grammar) -> Stack {
    let specs = parse_spelled(union.spelled().as_bytes()).expect("a stack");
    let last = specs.len() - 1;
    let branch = |(index, spec)| {
        let grammar = if index == last { lowest } else { grammar };
        let spec: &layerctl::internals::branch::BranchSpec = spec;
        Branch::new(spec, grammar, Dir::open_root(&spec.path.to_path()))
    };
    Stack::new(specs.iter().enumerate().map(branch).collect())
}

fn overlay(union: &Union) -> Stack {
    stack_of(union, OVERLAY, OVERLAY)
}

/// As AUFS reads them: the permissions say which marks count.
fn aufs(union: &Union) -> Stack {
    let specs = parse_spelled(union.spelled().as_bytes()).expect("a stack");
    let branch = |spec: &_| {
        let spec: &layerctl::internals::branch::BranchSpec = spec;
        Branch::aufs(spec, Dir::open_root(&spec.path.to_path()))
    };
    Stack::new(specs.iter().map(branch).collect())
}

/// Sets an attribute of users, where the file system takes such.
fn attribute(union: &Union, path: &str, name: &str, value: &str) {
    let set = lsetxattr(union.at(path), name, value.as_bytes(), XattrFlags::empty());
    if set.is_err() {
        skip("this file system takes no attributes of users");
    }
}

fn found<'s>(root: &Node<'s>, path: &str) -> Resolution<'s> {
    lookup(root, path.as_bytes(), Follow::NotLast).expect("our own directories")
}

fn place<'s>(stack: &'s Stack, path: &str) -> Node<'s> {
    match found(&stack.whole(Reading::Nothing), path).entry {
        Entry::Dir(node) => node,
        other => panic!("{path}: {other:?}"),
    }
}

fn trail(stack: &Stack, path: &str) -> Vec<(usize, Says)> {
    found(&stack.whole(Reading::Nothing), path).trail
}

// ---- paths ----

#[apply(test)]
fn a_place_has_its_path_whatever_is_merged_there() {
    let union = Union::usual();
    union
        .dir("up/moved")
        .file("low/old/f", "")
        .file("up/d/f", "");
    attribute(&union, "up/moved", REDIRECT, "/old");
    let stack = overlay(&union);
    let nothing = stack.root(|_| false, Reading::Nothing);
    assert_eq!(nothing.path(), Bytes::from("/"));
    assert_eq!(nothing.path_of(b"x"), Bytes::from("/x"));
    // Of a view that only some branches make, be it none, and where a redirect leads elsewhere.
    for (path, keep) in [("/d", 9), ("/d", 0), ("/moved", 2), ("/moved", 9)] {
        let place = place(&stack, path).narrowed(|branch| branch == keep);
        assert_eq!(place.path(), Bytes::from(path), "{keep}");
        let name = Bytes::from(format!("{path}/x"));
        assert_eq!(place.path_of(b"x"), name, "{keep}");
    }
    let root = stack.whole(Reading::Nothing);
    let d = place(&stack, "/d");
    for (here, goal, step) in [
        (&root, "/d/f", Some(&b"d"[..])),
        (&d, "/d/f", Some(b"f")),
        (&d, "/moved", None),
        (&root, "/", None),
    ] {
        let goal = Bytes::from(goal);
        assert_eq!(here.step_to(&goal), step, "{here:?} {goal}");
    }
}

#[apply(test)]
fn what_cannot_be_listed_is_named() {
    let union = Union::usual();
    union.file("low/d/f", "");
    let stack = aufs(&union);
    let d = place(&stack, "/d");
    fs::remove_dir_all(union.at("low/d")).expect("our own");
    let error = d.listing(2).expect_err("it is gone");
    let at = union.at("low/d").display().to_string();
    assert!(error.to_string().contains(&at), "{error}");
}

/// A path that ends in a slash asks for a directory. The kernel says so of a directory by itself.
#[apply(test)]
fn a_slash_at_the_end_asks_for_a_directory() {
    let union = Union::of(&[("only", "rw")]);
    union.file("only/f", "").file("only/d/g", "");
    for (name, target) in [
        ("to_f", "f"),
        ("to_f_slash", "f/"),
        ("to_f_dot", "d/../f/."),
        ("to_d", "d"),
        ("to_d_slash", "d/"),
        ("twice", "to_f_slash"),
    ] {
        union.link(format!("only/{name}"), target);
    }
    let stack = aufs(&union);
    let root = stack.whole(Reading::Nothing);
    let mut refused = 0;
    for name in [
        "f",
        "d",
        "to_f",
        "to_f_slash",
        "to_f_dot",
        "to_d",
        "to_d_slash",
        "twice",
    ] {
        for end in ["", "/", "/.", "//", "/./"] {
            for follow in [Follow::All, Follow::NotLast] {
                let path = format!("{name}{end}");
                let at = union.at(format!("only/{path}"));
                let kernel = match follow {
                    Follow::All => fs::metadata(&at),
                    Follow::NotLast => fs::symlink_metadata(&at),
                };
                let kernel = kernel
                    .map(|stat| stat.is_dir())
                    .map_err(|error| errno_of(&error));
                let ours = lookup(&root, path.as_bytes(), follow).expect("our own");
                let ours = match ours.entry {
                    Entry::Broken { errno, .. } => Err(errno),
                    entry => Ok(entry.kind() == Some(Kind::Directory)),
                };
                assert_eq!(ours, kernel, "{path} {follow:?}");
                refused += u32::from(kernel == Err(Errno::NOTDIR));
            }
        }
    }
    assert!(refused > 20, "{refused}");
}

// ---- who has what, and where ----

#[apply(test)]
fn each_branch_has_one_verdict() {
    let union = Union::usual();
    union.dir("up/d").mark("mid/d/.wh..wh..opq").dir("low/d");
    let (provides, merges) = (Says::Provides, Says::Merges);
    let stack = aufs(&union);
    assert_eq!(
        trail(&stack, "/"),
        [(0, provides), (1, merges), (2, merges)]
    );
    let hidden = [(0, provides), (1, Says::MergesOpaque), (2, Says::Hidden)];
    assert_eq!(trail(&stack, "/d"), hidden);

    let union = Union::usual();
    union.file("up/d/f", "").dir("mid/d").dir("low/d");
    attribute(&union, "mid/d", "user.overlay.opaque", "y");
    let stack = overlay(&union);
    let asked = [(0, provides), (1, Says::MergesOpaque)];
    assert_eq!(trail(&stack, "/d"), asked);
}

/// A directory that a user may list and not search tells its mark in its listing.
#[apply(test)]
fn a_mark_is_read_where_nothing_may_be_looked_up() {
    needs::root("another user");
    let union = Union::usual();
    union
        .mark("up/d/.wh..wh..opq")
        .dir("low/d")
        .mode("up/d", 0o744)
        .mode("", 0o755);
    let program = union.at("layerctl");
    run::copy_program(env!("CARGO_BIN_EXE_layerctl"), &program);
    let ask = |user: u32| {
        let mut command = Command::new(&program);
        command
            .args(["--format", "jsonl", "which", "--in"])
            .arg(union.spelled())
            .args(["--", "/d"])
            .env_clear()
            .stdin(Stdio::null())
            .uid(user)
            .gid(user);
        run::run(&mut command).exits(0).row()
    };
    assert_eq!(ask(1000), ask(0));
    assert_eq!(ask(0)["trail"][0]["says"], "provides-opaque");
}

/// A branch that gives nothing but the content of files is told where it gives that.
#[apply(test)]
fn content_has_a_verdict_of_its_own() {
    let union = Union::of(&[("meta", "ro"), ("other", "ro"), ("data", "ro")]);
    union
        .file("meta/f", "")
        .file("meta/lost", "")
        .file("data/content", "content");
    for (path, to) in [("meta/f", "/content"), ("meta/lost", "/absent")] {
        attribute(&union, path, METACOPY, "");
        attribute(&union, path, REDIRECT, to);
    }
    let stack = stack_of(&union, OVERLAY, Grammar::OverlayData);
    let meta = (0, Says::Provides);
    let lost = trail(&stack, "/lost");
    assert_eq!(lost, [meta, (1, Says::Nothing)]);
    let all = [meta, (1, Says::Nothing), (2, Says::ProvidesData)];
    assert_eq!(trail(&stack, "/f"), all);
}

/// A redirect concerns every branch below it.
#[apply(test)]
fn a_version_is_where_redirects_lead() {
    let union = Union::usual();
    union
        .dir("up/b")
        .file("mid/b/own", "")
        .file("low/a/f", "")
        .dir("mid/e")
        .file("low/old/x", "x");
    attribute(&union, "up/b", REDIRECT, "/a");
    attribute(&union, "mid/e", REDIRECT, "/old");
    let stack = overlay(&union);
    let root = stack.whole(Reading::Nothing);
    let inner = found(&root, "/b/f");
    for (branch, at) in [(0, "/b/f"), (1, "/a/f"), (2, "/a/f")] {
        assert_eq!(inner.path_in(branch), Bytes::from(at), "{branch}");
    }
    // A branch that was asked for another name may have this one.
    let versions = found(&root, "/b").versions(&stack).expect("our own");
    let branches: Vec<usize> = versions.into_iter().map(|(branch, _)| branch).collect();
    assert_eq!(branches, [0, 1]);
    // Behind a whiteout only the views below it lead there.
    union.file("up/e", "");
    attribute(&union, "up/e", "user.overlay.whiteout", "y");
    let hidden = found(&root, "/e/x");
    let led = hidden.path_led_to(&stack, 2).expect("our own");
    assert_eq!(led, Bytes::from("/old/x"));
    let versions = hidden.versions(&stack).expect("our own");
    let branches: Vec<usize> = versions.into_iter().map(|(branch, _)| branch).collect();
    assert_eq!(branches, [2]);
}

/// What a branch has of a path is what lies there: no link of the branch leads to it.
#[apply(test)]
fn no_link_leads_to_a_version() {
    let union = Union::usual();
    union
        .mark("up/.wh.gone")
        .link("low/gone", "there")
        .file("low/there/x", "");
    let stack = aufs(&union);
    let hidden = found(&stack.whole(Reading::Nothing), "/gone/x");
    assert!(hidden.versions(&stack).expect("our own").is_empty());

    let union = Union::usual();
    union
        .file("up/d/x", "")
        .link("low/d", "there")
        .file("low/there/x", "");
    let stack = overlay(&union);
    let shown = found(&stack.whole(Reading::Nothing), "/d/x");
    let versions = shown.versions(&stack).expect("our own");
    assert_eq!(versions.len(), 1, "{versions:?}");
}

/// What was seen of a name in one branch says nothing of another.
#[apply(test)]
fn a_mark_is_looked_past_in_its_own_branch() {
    let union = Union::usual();
    union.file("up/gone", "").file("mid/gone", "older");
    attribute(&union, "up/gone", "user.overlay.whiteout", "y");
    let stack = overlay(&union);
    let root = stack.whole(Reading::Nothing);
    let (mark, seen) = root.look(0, b"gone").expect("our own");
    assert_eq!(mark, Some(Mark::Whiteout(b"gone")));
    assert!(seen.is_some());
    let entry = root
        .child_without_mark(b"gone", 0, MarkKind::Whiteout, seen)
        .expect("our own");
    assert_eq!(entry.provider(), Some(1), "{entry:?}");
}

/// Only composefs deletes the names of its objects for itself (docs/facts.md#engines-2026-b8).
#[apply(test)]
fn a_name_of_two_digits_can_be_deleted() {
    let union = Union::usual();
    union.file("up/ab", "");
    attribute(&union, "up/ab", "user.overlay.whiteout", "y");
    let stack = stack_of(&union, OVERLAY, Grammar::OverlayData);
    let root = stack.whole(Reading::Nothing);
    let mark = root.mark(0, b"ab").expect("our own");
    assert_eq!(mark, Some(Mark::Whiteout(b"ab")));
}

// ---- names ----

#[apply(test)]
fn a_name_could_be_a_directory_if_any_branch_has_one() {
    let union = Union::usual();
    union
        .file("up/one", "")
        .dir("mid/one")
        .file("up/none", "")
        .file("low/none", "")
        .dir("low/alone");
    let stack = aufs(&union);
    let names = stack.whole(Reading::Nothing).names().expect("our own");
    let listed: Vec<(&[u8], Kind, bool)> = names
        .iter()
        .map(|of| (of.name, of.kind, of.could_be_directory))
        .collect();
    let expected: [(&[u8], _, _); 3] = [
        (b"alone", Kind::Directory, true),
        (b"none", Kind::File, false),
        (b"one", Kind::File, true),
    ];
    assert_eq!(listed, expected);
}

#[apply(test)]
fn a_listing_tells_of_no_directory() {
    let union = Union::of(&[("only", "rw")]);
    union.file("only/f", "").dir("only/bad/.wh..wh..opq");
    let stack = aufs(&union);
    let root = stack.whole(Reading::Everything);
    assert_eq!(root.only_listing(), Some(0));
    assert_eq!(root.as_listed(b"f", Kind::File), Some(0));
    // Its mark is no file: docs/facts.md#aufs-1.13
    let bad = root.child(b"bad").expect("our own");
    let why = Why::BadOpaque { branch: 0 };
    let expected = (Errno::IO, why);
    assert!(
        matches!(bad, Entry::Broken { errno, why } if (errno, why) == expected),
        "{bad:?}"
    );
    assert_eq!(root.as_listed(b"bad", Kind::Directory), None);
    let stack = aufs(&Union::usual());
    assert_eq!(stack.whole(Reading::Everything).only_listing(), None);
}

/// docs/facts.md#aufs-1.2, #aufs-3.2, #aufs-3.5, #aufs-1.11
#[apply(test)]
fn aufs_lists_what_no_branch_above_deletes() {
    let union = Union::of(&[("up", "rw"), ("plain", "ro"), ("low", "ro+wh")]);
    union
        .file("low/kept", "")
        .mark("up/.wh.deleted")
        .file("low/deleted", "")
        .mark("plain/.wh.ignored")
        .file("low/ignored", "")
        .file("low/both", "")
        .mark("low/.wh.both")
        .mark("low/.wh.nothing");
    let stack = aufs(&union);
    let root = stack.whole(Reading::Nothing);
    for (name, expected) in [
        ("kept", true),
        ("deleted", false),
        ("ignored", true),
        ("both", true),
        ("nothing", false),
        ("never", false),
    ] {
        let listed = root.readdir_lists(name.as_bytes()).expect("our own");
        assert_eq!(listed, expected, "{name}");
    }
}

/// fuse-overlayfs: a branch with `.wh.` in its root is deleted as a whole, and a directory whose mark
/// has a mark itself shows empty (docs/facts.md#engines-19).
#[apply(test)]
fn what_fuse_overlayfs_empties_is_empty() {
    for reading in [Reading::Nothing, Reading::Everything] {
        let union = Union::usual();
        union.file("up/.wh.", "").file("up/f", "").file("low/g", "");
        let stack = stack_of(&union, FUSE, FUSE);
        let root = stack.whole(reading);
        assert!(root.names().expect("our own").to_vec().is_empty());
        for name in [b"f", b"g"] {
            let entry = root.child(name).expect("our own");
            assert!(matches!(entry, Entry::Missing), "{entry:?}");
        }

        let union = Union::usual();
        union
            .file("up/.wh.d", "")
            .file("up/.wh..wh.d", "")
            .file("low/d/f", "");
        let stack = stack_of(&union, FUSE, FUSE);
        let Entry::Dir(d) = stack.whole(reading).child(b"d").expect("our own") else {
            panic!("no directory");
        };
        assert!(d.names().expect("our own").to_vec().is_empty());
        let entry = d.child(b"f").expect("our own");
        assert!(matches!(entry, Entry::Missing), "{entry:?}");
    }
}

// ---- what is opened ----

#[apply(test)]
fn what_is_opened_is_what_was_found_or_says_what_it_is() {
    let union = Union::usual();
    union
        .file("up/f", "content")
        .link("up/link", "f")
        .node("up/fifo", FileType::Fifo, 0);
    let stack = aufs(&union);
    let root = stack.whole(Reading::Nothing);
    let open = |name: &str| root.open_version((0, Kind::File), name.as_bytes(), None);
    let version = open("f").expect("our own");
    assert_eq!(version.stat.size, 7);
    assert!(version.own_file().is_some());
    for (name, words) in [
        ("link", "was replaced"),
        ("fifo", "was replaced"),
        ("absent", "No such file"),
    ] {
        let error = open(name).err().expect("no file");
        assert!(error.to_string().contains(words), "{name}: {error}");
    }
    let error = root
        .open_content(0, b"absent", None)
        .err()
        .expect("nothing");
    assert_eq!(error.errno(), Errno::NOENT, "{error}");
}

/// docs/facts.md#engines-2026-b12
#[apply(test)]
fn an_opened_file_has_the_owner_that_is_shown() {
    const OVERRIDE: &str = "user.containers.override_stat";
    let union = Union::usual();
    union.file("up/f", "content");
    attribute(&union, "up", OVERRIDE, "0:0:0755:dir");
    attribute(&union, "up/f", OVERRIDE, "77:88:0640:file");
    let stack = stack_of(&union, FUSE, FUSE);
    let root = stack.whole(Reading::Nothing);
    let version = root.open_version((0, Kind::File), b"f", None);
    let version = version.unwrap_or_else(|error| panic!("{error}"));
    let stat = version.stat;
    assert_eq!((stat.uid, stat.gid, stat.mode), (77, 88, 0o640));
    assert!(version.own_file().is_some());
}

/// The kernel looks for the content of such a file late: the name is there, and opening it is an error.
#[apply(test)]
fn content_that_no_branch_has_cannot_be_opened() {
    let union = Union::usual();
    union.file("mid/f", "").file("low/other", "");
    attribute(&union, "mid/f", METACOPY, "");
    attribute(&union, "mid/f", REDIRECT, "/absent");
    let stack = stack_of(&union, OVERLAY, Grammar::OverlayData);
    let root = stack.whole(Reading::Nothing);
    let Entry::Leaf { from, data, .. } = root.child(b"f").expect("our own") else {
        panic!("no file");
    };
    let error = root.open_content(from, b"f", data.as_deref());
    let error = error.err().expect("it is nowhere");
    assert_eq!(errno_name(error.errno()), "EIO", "{error}");
    let at = union.at("mid/f").display().to_string();
    assert!(error.to_string().contains(&at), "{error}");
}

// ---- what differs ----

/// What the topmost branch makes of the view: letters and paths.
fn changes(stack: &Stack, criterion: Criterion) -> Vec<String> {
    let row = |found: Result<Difference<'_, '_>>, rows: &mut Vec<String>| {
        rows.push(match found {
            Ok(of) => format!("{} {}", of.change.letter(), of.path()),
            Err(error) => format!("{error}"),
        });
    };
    let mut all = Vec::new();
    let inside = Bytes::from("/");
    let _ = differences(
        stack,
        0,
        (criterion, &inside),
        NonZeroUsize::MIN,
        &row,
        |rows| {
            all.extend(rows);
            ControlFlow::Continue(())
        },
    );
    all
}

const MEASURE: Measure = Measure {
    attributes: Compared::Capabilities,
    content: false,
};

/// What `rm -r b; mv a b` does in the upper branch, where all has one time.
fn move_over(union: &Union) {
    union.dir("up/b").file("up/a", "");
    attribute(union, "up/a", "user.overlay.whiteout", "y");
    attribute(union, "up/b", REDIRECT, "/a");
    union.time_all(1_000_000);
}

/// `rm -r b; mv a b`: what is in b now came from below, and so did what was there before.
#[apply(test)]
fn a_directory_moved_over_another_changes_all_that_differs() {
    let union = Union::of(&[("up", "rw"), ("low", "ro")]);
    union
        .file("low/a/both", "longer")
        .file("low/a/x", "")
        .file("low/b/both", "short")
        .file("low/b/y", "");
    move_over(&union);
    let stack = overlay(&union);
    assert_eq!(
        changes(&stack, Criterion::of_engine(&stack, MEASURE)),
        ["D /a", "C /b", "C /b/both", "A /b/x", "D /b/y"]
    );
}

/// The first directory, which began as a copy of the second.
fn copy(union: &Union) -> Stack {
    let mut branches = stack_of(union, Grammar::Plain, Grammar::Plain).branches;
    let base = Stack::new(branches.split_off(1));
    let mut stack = Stack::new(branches);
    stack.base = Some(Box::new(base));
    stack
}

/// A layer that began as a copy is compared with what it is a copy of, whatever it has.
#[apply(test)]
fn a_copy_is_compared_by_what_differs() {
    let union = Union::of(&[("copy", "rw"), ("base", "ro")]);
    union
        .file("copy/same", "1")
        .file("base/same", "1")
        .file("copy/new", "");
    union.time_all(1_000_000);
    let stack = copy(&union);
    let found = changes(&stack, Criterion::of_engine(&stack, MEASURE));
    assert_eq!(found, ["A /new"]);
}

/// Files of one size and time are read where that is asked for, though one branch has both, or the two
/// stacks have them in the branch of the same number.
#[apply(test)]
fn content_is_compared_of_two_files_and_not_of_one() {
    let measure = Measure {
        content: true,
        ..MEASURE
    };
    let moved = Union::of(&[("up", "rw"), ("low", "ro")]);
    moved
        .file("low/a/f", "12345")
        .file("low/b/f", "67890")
        .file("low/a/same", "12345")
        .file("low/b/same", "12345");
    move_over(&moved);
    let stack = overlay(&moved);
    let found = changes(&stack, Criterion::of_engine(&stack, measure));
    assert_eq!(found, ["D /a", "C /b", "C /b/f"]);

    let copied = Union::of(&[("copy", "rw"), ("base", "ro")]);
    copied
        .file("copy/f", "12345")
        .file("base/f", "67890")
        .file("copy/same", "12345")
        .file("base/same", "12345")
        .time_all(1_000_000);
    let stack = copy(&copied);
    let found = changes(&stack, Criterion::of_engine(&stack, measure));
    assert_eq!(found, ["C /f"]);
}

/// A name beside its own whiteout is one name: docs/facts.md#aufs-1.11
#[apply(test)]
fn what_stands_beside_its_whiteout_is_one_change() {
    let union = Union::of(&[("up", "rw"), ("low", "ro")]);
    union
        .file("low/x", "")
        .file("up/x", "")
        .mark("up/.wh.x")
        .file("up/.wh..wh.aufs", "")
        .dir("up/.wh..wh.plnk")
        .mark("up/.wh.y")
        .file("low/y", "");
    let stack = aufs(&union);
    // In docker's order: by the names of the branch's own entries.
    assert_eq!(changes(&stack, Criterion::InBranch), ["D /y", "D /x"]);
}

fn compared(before: &Node<'_>, after: &Node<'_>, criteria: Criteria) -> Vec<String> {
    let row = |found: Result<Between<'_>>, rows: &mut Vec<String>| {
        rows.push(match found {
            Ok(of) => format!(
                "{} {} {:?}",
                of.change.letter(),
                of.path(),
                of.differing.what
            ),
            Err(error) => errno_name(error.errno()).to_owned(),
        });
    };
    let mut all = Vec::new();
    let _ = between(before, after, criteria, NonZeroUsize::MIN, &row, |rows| {
        all.extend(rows);
        ControlFlow::Continue(())
    });
    all
}

const CRITERIA: Criteria = Criteria {
    times: false,
    content: true,
};

/// A name that AUFS refuses is an error; one that it does not look for (`udba=none`) is not there.
/// docs/facts.md#aufs-c2
#[apply(test)]
fn a_refused_name_is_an_error_and_one_that_is_denied_is_none() {
    let union = Union::of(&[("up", "rw"), ("low", "ro")]);
    union.file("low/x", "").file("up/x", "").mark("up/.wh.x");
    for (is_unwatched, expected) in [(false, "EIO"), (true, "D /x []")] {
        let mut stack = aufs(&union);
        stack.is_unwatched = is_unwatched;
        let below = stack.without(0);
        let found = compared(&below, &stack.whole(Reading::Nothing), CRITERIA);
        assert_eq!(found, [expected]);
    }
}

/// What is a directory in one view only, and whose name is told by a mark in the other's branch.
#[apply(test)]
fn a_directory_in_another_ones_place_is_compared_in_the_order_of_names() {
    let union = Union::usual();
    union
        .file("mid/a", "")
        .mark("up/.wh.b")
        .file("mid/b/1", "")
        .file("mid/b/2", "")
        .file("up/c", "");
    let stack = aufs(&union);
    let below = stack.without(0);
    let whole = stack.whole(Reading::Nothing);
    assert_eq!(compared(&below, &whole, CRITERIA), ["D /b []", "A /c []"]);
    let back = ["A /b []", "A /b/1 []", "A /b/2 []", "D /c []"];
    assert_eq!(compared(&whole, &below, CRITERIA), back);
}

/// One file of metadata that two views share, over another content in each.
#[apply(test)]
fn a_metacopy_differs_where_its_content_does() {
    let union = Union::of(&[
        ("meta", "ro"),
        ("old", "ro"),
        ("new", "ro"),
        ("whole", "ro"),
    ]);
    union
        .file("meta/f", "")
        .file("old/f", "12345")
        .file("new/f", "67890")
        .file("whole/f", "12345");
    attribute(&union, "meta/f", METACOPY, "");
    for path in ["meta/f", "old/f", "new/f", "whole/f"] {
        union.mode(path, 0o644).time(path, 1_000_000);
    }
    let of = |wanted: &[usize]| {
        let all = overlay(&union).branches.into_iter().enumerate();
        let wanted = all.filter(|(index, _)| wanted.contains(index));
        Stack::new(wanted.map(|(_, branch)| branch).collect())
    };
    let (old, new, whole) = (of(&[0, 1]), of(&[0, 2]), of(&[3]));
    let differing = |a: &Stack, b: &Stack| {
        let (a, b) = (a.whole(Reading::Nothing), b.whole(Reading::Nothing));
        let (a, b) = (found(&a, "/f"), found(&b, "/f"));
        let version = |found| Version::of(found).expect("our own");
        let (a, b) = (version(&a), version(&b));
        let stat = a.as_ref().expect("it is there").stat;
        assert_eq!(stat.size, 5, "a metacopy is as large as its content");
        let found = Between::of(a, b, CRITERIA).expect("our own");
        found.map(|found| (found.change, found.differing.what))
    };
    let content = Some((Change::Changed, vec![Differs::Content]));
    assert_eq!(differing(&old, &new), content);
    assert_eq!(differing(&old, &old), None);
    assert_eq!(differing(&old, &whole), None);
    assert_eq!(differing(&new, &whole), content);
}

#[apply(test)]
fn a_version_has_its_place_and_a_view_s_root_is_none() {
    let union = Union::usual();
    union.file("mid/f", "");
    let stack = aufs(&union);
    let root = stack.whole(Reading::Nothing);
    let (file, top) = (found(&root, "/f"), found(&root, "/"));
    let version = Version::of(&file).expect("our own").expect("it is there");
    assert_eq!(version.on_host().to_path(), union.at("mid/f"));
    assert_eq!(version.path(), Bytes::from("/f"));
    assert!(Version::of(&top).expect("our own").is_none());
}

#[apply(test)]
fn long_attributes_are_compared() {
    let union = Union::of(&[("new", "rw"), ("old", "ro")]);
    union
        .file("new/f", "")
        .file("old/f", "")
        .time_all(1_000_000);
    attribute(&union, "new/f", "user.long", &"a".repeat(2000));
    attribute(&union, "old/f", "user.long", &"b".repeat(2000));
    let stack = aufs(&union);
    let below = stack.without(0);
    let whole = stack.whole(Reading::Nothing);
    assert_eq!(compared(&below, &whole, CRITERIA), ["C /f [Xattr]"]);
}
