//! `changes`: what one branch made of those below it, entry by entry.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{AtFlags, CWD, FileType, Timespec, Timestamps, makedev, utimensat};
use serde_json::{Value, json};

use crate::lab::host::{Host, spelled};
use crate::lab::needs;
use crate::lab::run::{self, text};
use crate::lab::union::Union;

/// One branch on another, as AUFS merges them.
fn aufs(union: &Union) -> OsString {
    let (up, low) = (union.at("up"), union.at("low"));
    spelled(&[(&up, "rw"), (&low, "ro+wh")])
}

fn changes(options: &[&str], target: &OsStr) -> run::Output {
    let mut words: Vec<&OsStr> = vec![OsStr::new("changes")];
    words.extend(options.iter().map(OsStr::new));
    words.extend([OsStr::new("--"), target]);
    run::layerctl(words)
}

#[apply(test)]
fn a_changed_entry_says_in_what_it_differs() {
    needs::root("to make devices");
    let union = Union::of(&[("up", "rw"), ("low", "ro+wh")]);
    for (side, minor, size) in [("low", 1, 3), ("up", 2, 4)] {
        union
            .file(format!("{side}/same"), "same")
            .file(format!("{side}/content"), side.repeat(6 / side.len()))
            .file(format!("{side}/size"), "s".repeat(size))
            .file(format!("{side}/mode"), "")
            .file(format!("{side}/owner"), "")
            .file(format!("{side}/time"), "")
            .file(format!("{side}/attribute"), "")
            .link(format!("{side}/link"), format!("{side:3}"))
            .link(format!("{side}/alike"), "alike");
        let device = makedev(1, minor);
        union
            .node(&format!("{side}/char"), FileType::CharacterDevice, device)
            .node(&format!("{side}/block"), FileType::BlockDevice, device)
            .node(&format!("{side}/fifo"), FileType::Fifo, 0);
    }
    union
        .mode("up/mode", 0o600)
        .owner("up/owner", 7, 7)
        .xattr("up/attribute", "user.x", b"y")
        .dir("up/kind")
        .file("low/kind", "")
        .time_all(1_000_000_000)
        .time("up/time", 7);
    let expected = [
        ("/alike", json!([])),
        ("/attribute", json!(["xattr"])),
        ("/block", json!(["content"])),
        ("/char", json!(["content"])),
        ("/content", json!(["content"])),
        ("/fifo", json!([])),
        ("/kind", json!(["type"])),
        ("/link", json!(["content"])),
        ("/mode", json!(["mode"])),
        ("/owner", json!(["owner"])),
        ("/same", json!([])),
        ("/size", json!(["content"])),
        ("/time", json!(["time"])),
    ];
    let target = aufs(&union);
    let rows = run::layerctl(
        ["--format", "jsonl", "changes", "--long"]
            .map(OsStr::new)
            .into_iter()
            .chain([&*target]),
    );
    let rows = rows.exits(0).rows();
    let found: Vec<(&str, Value)> = rows
        .iter()
        .map(|row| (text(row, "path"), row["differs"].clone()))
        .collect();
    assert_eq!(found, expected);
    let table = changes(&["--long"], &target).exits(0);
    for (path, words) in expected {
        for word in words.as_array().expect("a list") {
            let word = word.as_str().expect("a word");
            let mut lines = table.text().lines();
            let line = lines.find(|line| line.split_whitespace().any(|of| of == path));
            let line = line.unwrap_or_else(|| panic!("{path}: {}", table.text()));
            assert!(line.contains(word), "{path}: {word}: {line}");
        }
    }
}

/// Of a directory that is new with all that is in it only what the union shows is told: a name beside its
/// own whiteout is not there (docs/facts.md#aufs-1.14).
#[apply(test)]
fn of_what_is_new_only_what_is_shown_is_told() {
    let union = Union::of(&[("up", "rw"), ("low", "ro+wh")]);
    union
        .file("up/new/a", "")
        .file("up/new/b", "")
        .mark("up/new/.wh.c")
        .file("low/other", "");
    let all = changes(&[], &aufs(&union)).exits(0);
    assert_eq!(all.text(), "A /new\nA /new/a\nA /new/b\n");
    union.mark("up/new/.wh.b");
    let all = changes(&[], &aufs(&union));
    assert_eq!(all.text(), "A /new\nA /new/a\n");
}

#[apply(test)]
fn of_what_is_new_only_what_is_asked_for_is_told() {
    let host = Host::copy_of("blog-host");
    let branch = host.branches_of("determined_sammet").remove(0);
    let new = host.root.join(OsStr::from_bytes(&branch[1..])).join("new");
    fs::create_dir(&new).expect("a directory of our own");
    for name in ["a", "b", "c"] {
        fs::write(new.join(name), "").expect("a file of our own");
    }
    for name in ["a", "b", "c"] {
        let target = format!("determined_sammet:/new/{name}");
        let found = host.ask(["changes", &target]).exits(0);
        assert_eq!(found.text(), format!("A /new/{name}\n"));
    }
}

fn overlay(union: &Union) -> String {
    let (up, low) = (union.at("up"), union.at("low"));
    format!("lowerdir={},upperdir={}", low.display(), up.display())
}

/// Gives an entry a time, as exactly as the file system has it.
fn set_time(union: &Union, path: &str, (tv_sec, tv_nsec): (i64, i64)) {
    let time = Timespec { tv_sec, tv_nsec };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    let at = union.at(path);
    utimensat(CWD, at, &times, AtFlags::SYMLINK_NOFOLLOW).expect("our own file");
}

/// docs/facts.md#engines-60: of two files that were copied up, one differs whose time does. A time
/// without nanoseconds is from an archive that has none.
#[apply(test)]
fn a_copy_of_an_overlay_is_a_change_by_its_time() {
    crate::lab::needs::root("to be told of overlay\'s marks");
    for (low, up, is_changed) in [
        ((9, 5), (9, 5), false),
        ((9, 5), (9, 6), true),
        ((9, 5), (9, 0), false),
        ((9, 0), (9, 5), false),
        ((9, 0), (8, 0), true),
        ((9, 5), (8, 5), true),
    ] {
        let union = Union::of(&[("up", "rw"), ("low", "ro")]);
        union.file("low/file", "same").file("up/file", "same");
        set_time(&union, "low/file", low);
        set_time(&union, "up/file", up);
        let expected = if is_changed { "C /file\n" } else { "" };
        let found = changes(&[], OsStr::new(&overlay(&union))).exits(0);
        assert_eq!(found.text(), expected, "{low:?} {up:?}");
    }
}

/// What is alike by `lstat` is read on request, links as well as files.
#[apply(test)]
fn a_copy_of_an_overlay_is_read_on_request() {
    crate::lab::needs::root("to be told of overlay\'s marks");
    let union = Union::of(&[("up", "rw"), ("low", "ro")]);
    for side in ["low", "up"] {
        union
            .file(format!("{side}/file"), format!("{side:3}"))
            .link(format!("{side}/link"), format!("{side:_<3}"))
            .file(format!("{side}/same"), "same")
            .link(format!("{side}/same_link"), "same");
    }
    union.time_all(1_000_000_000);
    let overlay = overlay(&union);
    let found = changes(&[], OsStr::new(&overlay)).exits(0);
    assert_eq!(found.text(), "");
    let read = changes(&["--content"], OsStr::new(&overlay)).exits(0);
    assert_eq!(read.text(), "C /file\nC /link\n");
}
