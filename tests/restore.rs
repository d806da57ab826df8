//! `restore`: what comes back, what does not, and what is never touched.

use std::ffi::{CString, OsStr};
use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::fs::{FileType, makedev};
use serde_json::Value;

use crate::lab::host::Host;
use crate::lab::run::{self, Output, bytes, run, text};
use crate::lab::{has_strace, is_root, skip};

#[path = "lab/union.rs"]
mod union;

use union::{Detail, Facts, Union, assert_same, difference, fact};

/// `up` deletes `/f` of `mid`, which has another below it.
fn deleted_file() -> Union {
    let union = Union::usual();
    union
        .file("mid/f", "before")
        .file("low/f", "older")
        .mark("up/.wh.f")
        .file("up/other", "stays");
    union.mark("up/.wh.gone").file("mid/gone", "stays deleted");
    union
}

/// `up` deletes `/d`, with a file and more beside it below.
fn deleted_ancestor() -> Union {
    let union = Union::usual();
    union
        .file("mid/d/x", "asked")
        .file("mid/d/y", "not asked")
        .file("low/d/z", "not asked")
        .file("mid/d/sub/s", "not asked");
    union.mark("up/.wh.d");
    union
}

fn steps(row: &Value) -> Vec<(String, Vec<u8>, String)> {
    let steps = row["steps"].as_array().expect("steps");
    steps
        .iter()
        .map(|step| {
            (
                text(step, "action").to_owned(),
                bytes(&step["path"]),
                text(step, "words").to_owned(),
            )
        })
        .collect()
}

fn actions(row: &Value) -> Vec<&str> {
    row["steps"]
        .as_array()
        .expect("steps")
        .iter()
        .map(|step| text(step, "action"))
        .collect()
}

/// Runs the commands that the report ended with.
#[track_caller]
fn take_back(row: &Value) {
    let commands = row["undo"].as_array().expect("commands");
    assert!(!commands.is_empty(), "{row}");
    let script: Vec<&str> = commands
        .iter()
        .map(|command| command.as_str().expect("text"))
        .collect();
    let output = Command::new("bash")
        .args(["-ec", &script.join(" && ")])
        .output()
        .expect("bash");
    assert!(
        output.status.success(),
        "{script:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn without(mut facts: Facts, paths: &[&str]) -> Facts {
    for path in paths {
        facts
            .remove(path.as_bytes())
            .unwrap_or_else(|| panic!("{path} is not there"));
    }
    facts
}

/// Facts without the time of directories in which names were made, and the inodes and links of marks.
fn settled(facts: Facts) -> Facts {
    let cut = |(path, fact): (Vec<u8>, String)| {
        let is_mark = path
            .rsplit(|&byte| byte == b'/')
            .next()
            .is_some_and(|name| name.starts_with(b".wh."));
        let fact = if is_mark || fact.starts_with('4') {
            fact.split(" mtime ").next().unwrap_or_default().to_owned()
        } else {
            fact
        };
        (path, fact)
    };
    facts.into_iter().map(cut).collect()
}

#[track_caller]
fn refuses_and_changes_nothing(
    union: &Union,
    options: &[&str],
    path: impl AsRef<OsStr>,
    words: &str,
) {
    let before = union.disk();
    union.restore(options, path).exits(2).says(words);
    assert_same(&before, &union.disk());
}

#[track_caller]
fn has_nothing_to_do(union: &Union, options: &[&str], path: impl AsRef<OsStr>, words: &str) {
    let before = union.disk();
    let row = union.restore(options, path).exits(1).row();
    assert!(text(&row, "nothing").contains(words), "{row}");
    assert_eq!(row["applied"], false);
    assert_same(&before, &union.disk());
}

mod unhide {
    use super::*;

    #[test]
    fn removes_the_mark_and_nothing_else() {
        let union = deleted_file();
        let before = union.disk();
        let row = union.restore(&[], "/f").exits(0).row();
        assert_eq!(row["strategy"], "unhide");
        assert_eq!(row["applied"], true);
        let mut expected = without(before, &["up/.wh.f"]);
        // Removing a name is a change of its directory.
        expected.insert(b"up".to_vec(), union.disk()[&b"up"[..]].clone());
        assert_same(&expected, &union.disk());
        assert!(union.view()[&b"/f"[..]].contains("before"));
    }

    #[test]
    fn removes_one_of_many_names_of_the_same_inode() {
        let union = deleted_file();
        fs::remove_file(union.at("up/.wh.f")).expect("it is there");
        union
            .mark("up/.wh..wh.aufs")
            .hard_link("up/.wh..wh.aufs", "up/.wh.f")
            .hard_link("up/.wh..wh.aufs", "up/d/.wh.g");
        union.restore(&[], "/f").exits(0);
        assert_eq!(
            fs::metadata(union.at("up/.wh..wh.aufs"))
                .expect("it stays")
                .nlink(),
            2
        );
        assert!(union.at("up/d/.wh.g").exists());
    }

    #[test]
    fn brings_a_directory_back_with_what_was_in_it() {
        let union = deleted_ancestor();
        let lower = union.branch("mid");
        union.restore(&[], "/d").exits(0);
        for path in ["/d/x", "/d/y", "/d/z", "/d/sub/s"] {
            assert!(union.view().contains_key(path.as_bytes()), "{path}");
        }
        assert_same(&lower, &union.branch("mid"));
        assert!(union.branch("up").is_empty());
    }

    #[test]
    fn of_a_mark_in_a_lower_writable_branch() {
        let union = Union::of(&[("top", "rw"), ("second", "rw"), ("low", "ro")]);
        union.file("low/f", "x").mark("second/.wh.f");
        let row = union.restore(&[], "/f").exits(0).row();
        assert_eq!(row["hidden_by"]["branch"], 1);
        assert!(union.branch("top").is_empty() && union.branch("second").is_empty());
    }

    #[test]
    fn of_a_mark_below_read_only_branches() {
        let union = Union::of(&[("top", "ro+wh"), ("up", "rw"), ("low", "ro")]);
        union.dir("top/d").mark("up/d/.wh.f").file("low/d/f", "x");
        let top = union.branch("top");
        union.restore(&[], "/d/f").exits(0);
        assert_same(&top, &union.branch("top"));
        assert!(union.view().contains_key(&b"/d/f"[..]));
    }

    #[test]
    fn of_an_ancestor_lists_what_else_comes_back_and_asks() {
        let union = deleted_ancestor();
        refuses_and_changes_nothing(&union, &["--strategy", "unhide"], "/d/x", "--yes");
        let refusal = union.restore(&["--strategy", "unhide"], "/d/x").exits(2);
        for path in ["/d/y", "/d/z", "/d/sub"] {
            assert!(refusal.stderr.contains(path), "{}", refusal.stderr);
        }
        let planned = union
            .restore(&["--strategy", "unhide", "--dry-run"], "/d/x")
            .exits(0)
            .row();
        assert_eq!(
            planned["reappears"].to_string(),
            r#"["/d/sub","/d/y","/d/z"]"#
        );
        union
            .restore(&["--strategy", "unhide", "--yes"], "/d/x")
            .exits(0);
        assert!(union.view().contains_key(&b"/d/z"[..]));
    }

    #[test]
    fn of_an_ancestor_with_nothing_else_in_it_does_not_ask() {
        let union = Union::usual();
        union.file("low/d/x", "only").mark("up/.wh.d");
        let row = union
            .restore(&["--strategy", "unhide"], "/d/x")
            .exits(0)
            .row();
        assert_eq!(row["reappears"].to_string(), "[]");
        assert!(union.branch("up").is_empty());
    }

    #[test]
    fn of_an_opaque_mark_asks_too() {
        let union = Union::usual();
        union
            .file("low/d/x", "asked")
            .file("low/d/y", "not asked")
            .file("up/d/new", "")
            .mark("up/d/.wh..wh..opq");
        refuses_and_changes_nothing(&union, &["--strategy", "unhide"], "/d/x", "/d/y");
        union
            .restore(&["--strategy", "unhide", "-y"], "/d/x")
            .exits(0);
        assert!(!union.at("up/d/.wh..wh..opq").exists());
    }

    #[test]
    fn is_refused_where_another_mark_hides_it_too() {
        let union = Union::usual();
        union.mark("up/.wh.f").mark("mid/.wh.f").file("low/f", "x");
        refuses_and_changes_nothing(&union, &["--strategy", "unhide"], "/f", "--strategy copy");
    }

    #[test]
    fn of_a_name_beside_its_own_whiteout() {
        let union = Union::usual();
        union
            .mark("up/.wh.f")
            .file("up/f", "mine")
            .file("low/f", "older");
        union.restore(&[], "/f").exits(0);
        assert!(union.view()[&b"/f"[..]].contains("mine"));
    }
}

mod copy {
    use super::*;

    #[test]
    fn out_of_a_deleted_ancestor_brings_only_what_was_asked_for() {
        let union = deleted_ancestor();
        let lower = (union.branch("mid"), union.branch("low"));
        let row = union.restore(&[], "/d/x").exits(0).row();
        assert_eq!(row["strategy"], "copy");
        assert_eq!(
            actions(&row),
            ["copy", "make-opaque", "remove-mark", "look"]
        );
        let shown: Vec<Vec<u8>> = union.view().into_keys().collect();
        assert_eq!(shown, [b"/d".to_vec(), b"/d/x".to_vec()]);
        let on_disk: Vec<Vec<u8>> = union.branch("up").into_keys().collect();
        assert_eq!(
            on_disk,
            [b"d".to_vec(), b"d/.wh..wh..opq".to_vec(), b"d/x".to_vec()]
        );
        assert_same(&lower.0, &union.branch("mid"));
        assert_same(&lower.1, &union.branch("low"));
    }

    #[test]
    fn into_an_opaque_directory() {
        let union = Union::usual();
        union
            .file("mid/d/x", "asked")
            .file("mid/d/y", "")
            .mark("up/d/.wh..wh..opq")
            .file("up/d/new", "");
        let row = union.restore(&[], "/d/x").exits(0).row();
        assert_eq!(
            (row["strategy"].as_str(), row["hidden_by"]["kind"].as_str()),
            (Some("copy"), Some("opaque"))
        );
        let shown: Vec<Vec<u8>> = union.view().into_keys().collect();
        assert_eq!(
            shown,
            [b"/d".to_vec(), b"/d/new".to_vec(), b"/d/x".to_vec()]
        );
        assert!(union.at("up/d/.wh..wh..opq").exists());
    }

    #[test]
    fn from_below_two_opaque_marks() {
        let union = Union::usual();
        union
            .file("low/d/e/x", "asked")
            .file("low/d/e/y", "")
            .mark("mid/d/e/.wh..wh..opq")
            .mark("up/d/.wh..wh..opq");
        union.restore(&[], "/d/e/x").exits(0);
        let shown: Vec<Vec<u8>> = union.view().into_keys().collect();
        assert_eq!(
            shown,
            [b"/d".to_vec(), b"/d/e".to_vec(), b"/d/e/x".to_vec()]
        );
    }

    #[test]
    fn from_below_a_whiteout_in_a_read_only_layer() {
        let union = Union::usual();
        union
            .mark("mid/d/.wh.x")
            .file("low/d/x", "asked")
            .file("mid/d/y", "");
        let mid = union.branch("mid");
        let row = union.restore(&[], "/d/x").exits(0).row();
        assert_eq!(
            (
                row["strategy"].as_str(),
                row["hidden_by"]["branch"].as_u64()
            ),
            (Some("copy"), Some(1))
        );
        assert_same(&mid, &union.branch("mid"));
        assert!(union.at("up/d/x").exists());
    }

    #[test]
    fn by_demand_in_the_place_of_the_mark() {
        let union = deleted_file();
        let row = union.restore(&["--strategy", "copy"], "/f").exits(0).row();
        assert_eq!(actions(&row), ["copy", "remove-mark", "look"]);
        assert!(!union.at("up/.wh.f").exists());
        assert_eq!(
            fact(&union.at("up/f"), Detail::Copied),
            fact(&union.at("mid/f"), Detail::Copied)
        );
    }

    #[test]
    fn keeps_all_that_belongs_to_a_file() {
        let union = Union::usual();
        union
            .file("mid/f", "x")
            .xattr("mid/f", "user.kept", b"\0\xff")
            .xattr("mid/f", "user.empty", b"");
        if is_root() {
            union.owner("mid/f", 1234, 4321);
        }
        union
            .mode("mid/f", 0o6751)
            .time("mid/f", 1_000_000_000)
            .mark("up/.wh.f");
        union.restore(&["--strategy", "copy"], "/f").exits(0);
        // Reading the content would change it.
        for branch in ["up", "mid"] {
            let meta = fs::metadata(union.at(format!("{branch}/f"))).expect("it is there");
            assert_eq!(meta.atime(), 1_000_000_005, "{branch}");
        }
        assert_eq!(
            fact(&union.at("up/f"), Detail::Copied),
            fact(&union.at("mid/f"), Detail::Copied)
        );
    }

    #[test]
    fn keeps_all_that_belongs_to_the_directories_on_the_way() {
        let union = Union::usual();
        union.file("mid/a/b/c/x", "asked").file("low/a/b/c/y", "");
        for (at, mode) in [("mid/a/b/c", 0o2750), ("mid/a/b", 0o1777), ("mid/a", 0o711)] {
            if is_root() {
                union.owner(at, mode, 7);
            }
            union
                .mode(at, mode)
                .xattr(at, "user.of", at.as_bytes())
                .time(at, i64::from(mode) * 1000);
        }
        union.mark("up/.wh.a");
        union.restore(&[], "/a/b/c/x").exits(0);
        for at in ["a/b/c", "a/b", "a"] {
            let of = |branch: &str| fact(&union.at(format!("{branch}/{at}")), Detail::Copied);
            assert_eq!(of("up"), of("mid"), "{at}");
        }
    }

    /// The directory that was shown before it was deleted is the topmost one below the mark,
    /// whichever branch has the file.
    #[test]
    fn gives_an_ancestor_the_metadata_that_the_union_showed() {
        let union = Union::usual();
        union
            .dir("mid/d")
            .mode("mid/d", 0o700)
            .time("mid/d", 1_000_000_000)
            .file("low/d/x", "asked")
            .mode("low/d", 0o755);
        union.mark("up/.wh.d");
        union.restore(&[], "/d/x").exits(0);
        assert_eq!(
            fact(&union.at("up/d"), Detail::Copied),
            fact(&union.at("mid/d"), Detail::Copied)
        );
    }

    /// Where the writable branch does not have the directory, its copy is what the union shows.
    #[test]
    fn makes_missing_directories_as_the_union_shows_them() {
        let union = Union::usual();
        union
            .mark("mid/a/b/.wh.x")
            .file("low/a/b/x", "asked")
            .mode("mid/a/b", 0o701)
            .mode("mid/a", 0o710)
            .time("mid/a", 1_000_000_000);
        let before = union.view();
        union.restore(&[], "/a/b/x").exits(0);
        let after = union.view();
        assert_eq!(without(after.clone(), &["/a/b/x"]), before);
        assert!(union.at("up/a/b/x").exists());
    }

    #[test]
    fn of_a_directory_needs_to_be_asked_for_it_whole() {
        let union = Union::usual();
        union
            .file("mid/d/x", "")
            .mark("mid/d/deep/.wh.w")
            .file("low/d/deep/w", "")
            .file("low/d/deep/v", "")
            .file("low/d/z", "")
            .mark("up/.wh.d");
        refuses_and_changes_nothing(&union, &["--strategy", "copy"], "/d", "-r");
        union.restore(&["--strategy", "copy", "-r"], "/d").exits(0);
        // Merged from both, and what was deleted in the middle stays so.
        let shown: Vec<String> = union
            .view()
            .into_keys()
            .map(|path| String::from_utf8(path).expect("text"))
            .collect();
        assert_eq!(shown, ["/d", "/d/deep", "/d/deep/v", "/d/x", "/d/z"]);
        assert!(union.at("up/d/z").exists() && union.at("up/d/.wh..wh..opq").exists());
    }

    #[test]
    fn keeps_hard_links_inside_the_tree() {
        let union = Union::usual();
        union
            .file("mid/d/one", "same")
            .hard_link("mid/d/one", "mid/d/e/two")
            .hard_link("mid/d/one", "mid/outside")
            .mark("up/.wh.d");
        union.restore(&["--strategy", "copy", "-r"], "/d").exits(0);
        let meta = |path: &str| fs::metadata(union.at(path)).expect("it is there");
        assert_eq!(meta("up/d/one").ino(), meta("up/d/e/two").ino());
        assert_eq!(meta("up/d/one").nlink(), 2);
        assert_eq!(meta("mid/d/one").nlink(), 3);
    }

    #[test]
    fn keeps_holes() {
        let union = Union::usual();
        union.file("mid/f", "head").mark("up/.wh.f");
        let mut file = fs::OpenOptions::new()
            .write(true)
            .open(union.at("mid/f"))
            .expect("our own");
        file.seek(SeekFrom::Start(40 << 20)).expect("it seeks");
        file.write_all(b"middle").expect("it writes");
        file.set_len(90 << 20).expect("it grows");
        file.sync_all().expect("it syncs");
        union.restore(&["--strategy", "copy"], "/f").exits(0);
        let meta = fs::metadata(union.at("up/f")).expect("it is there");
        assert_eq!(meta.len(), 90 << 20);
        assert!(meta.blocks() < 1 << 11, "{} blocks", meta.blocks());
        assert!(
            fs::read(union.at("up/f")).expect("it reads")
                == fs::read(union.at("mid/f")).expect("it reads")
        );
    }

    #[test]
    fn of_what_is_no_regular_file() {
        let union = Union::usual();
        union
            .link("mid/d/link", "/nowhere/\u{e9}")
            .time("mid/d/link", 1_000_000_000)
            .node("mid/d/fifo", FileType::Fifo, 0)
            .node("mid/d/socket", FileType::Socket, 0);
        let mut names = vec!["link", "fifo", "socket"];
        if is_root() {
            union
                .node("mid/d/char", FileType::CharacterDevice, makedev(1, 3))
                .node("mid/d/block", FileType::BlockDevice, makedev(250, 70_000));
            union
                .node("mid/d/zero", FileType::CharacterDevice, 0)
                .owner("mid/d/link", 5, 6)
                .owner("mid/d/char", 5, 6)
                .mode("mid/d/char", 0o4604);
            names.extend(["char", "block", "zero"]);
        } else {
            skip("devices take root");
        }
        union.mark("up/.wh.d");
        union.restore(&["--strategy", "copy", "-r"], "/d").exits(0);
        for name in names {
            let of = |branch: &str| fact(&union.at(format!("{branch}/d/{name}")), Detail::Copied);
            assert_eq!(of("up"), of("mid"), "{name}");
            // And alone, in the place of its own mark.
            let alone = Union::usual();
            alone.link("mid/other", "x");
            fs::rename(union.at(format!("mid/d/{name}")), alone.at("mid/n"))
                .expect("one file system");
            alone.mark("up/.wh.n");
            alone.restore(&["--strategy", "copy"], "/n").exits(0);
            assert_eq!(
                fact(&alone.at("up/n"), Detail::Copied),
                fact(&alone.at("mid/n"), Detail::Copied),
                "{name}"
            );
            assert!(!alone.at("up/.wh.n").exists());
        }
    }

    #[test]
    fn keeps_extended_attributes_of_what_is_no_regular_file() {
        if !is_root() {
            return skip("attributes of links take root");
        }
        let union = Union::usual();
        union
            .link("mid/link", "x")
            .xattr("mid/link", "trusted.kept", b"1")
            .mark("up/.wh.link");
        union
            .node("mid/fifo", FileType::Fifo, 0)
            .xattr("mid/fifo", "trusted.kept", b"2")
            .mark("up/.wh.fifo");
        for name in ["link", "fifo"] {
            union.restore(&["--strategy", "copy"], name).exits(0);
            assert_eq!(
                fact(&union.at(format!("up/{name}")), Detail::Copied),
                fact(&union.at(format!("mid/{name}")), Detail::Copied)
            );
        }
    }

    /// A default access list of the directory is not what the file had.
    #[test]
    fn gives_no_attributes_that_the_version_did_not_have() {
        let union = Union::usual();
        union
            .file("mid/d/x", "")
            .mode("mid/d/x", 0o640)
            .mark("up/d/.wh.x");
        // user::rwx, user:1234:rwx, group::r-x, mask::rwx, other::---
        let entry = |tag: u16, perm: u16, id: u32| {
            [
                &tag.to_le_bytes()[..],
                &perm.to_le_bytes(),
                &id.to_le_bytes(),
            ]
            .concat()
        };
        let acl = [
            2u32.to_le_bytes().to_vec(),
            entry(1, 7, !0),
            entry(2, 7, 1234),
            entry(4, 5, !0),
            entry(16, 7, !0),
            entry(32, 0, !0),
        ]
        .concat();
        if rustix::fs::lsetxattr(
            union.at("up/d"),
            "system.posix_acl_default",
            &acl,
            rustix::fs::XattrFlags::empty(),
        )
        .is_err()
        {
            return skip("the file system has no access lists");
        }
        union.restore(&["--strategy", "copy"], "/d/x").exits(0);
        assert_eq!(
            fact(&union.at("up/d/x"), Detail::Copied),
            fact(&union.at("mid/d/x"), Detail::Copied)
        );
    }

    #[test]
    fn links_the_opaque_mark_as_aufs_does() {
        let union = deleted_ancestor();
        union.mark("up/.wh..wh.aufs");
        union.restore(&[], "/d/x").exits(0);
        let inode = |path: &str| fs::metadata(union.at(path)).expect("it is there").ino();
        assert_eq!(inode("up/d/.wh..wh..opq"), inode("up/.wh..wh.aufs"));
    }

    #[test]
    fn through_a_link_of_the_union() {
        let union = Union::usual();
        union
            .link("low/short", "long/way")
            .file("low/long/way/x", "asked")
            .mark("up/long/way/.wh.x");
        let row = union
            .restore(&["--strategy", "copy"], "/short/x")
            .exits(0)
            .row();
        assert_eq!(row["path"], "/long/way/x");
        assert!(union.at("up/long/way/x").exists() && !union.at("up/short").exists());
    }
}

#[test]
fn odd_names_come_back_as_they_were() {
    for name in [
        &b"new\nline"[..],
        b"-rf",
        b"\xff\xfe",
        b" blank ",
        b"it's",
        b"$(touch x)",
        b"back\\slash",
        b"\x1b[31m",
        b".wh",
        "\u{e9}".as_bytes(),
        &[b'n'; 242],
    ] {
        let shown = name.escape_ascii();
        for options in [&[][..], &["--strategy", "copy"]] {
            let union = Union::usual();
            let path = |branch: &[u8], prefix: &[u8]| {
                OsStr::from_bytes(&[branch, b"/", prefix, name].concat()).to_owned()
            };
            union
                .file(path(b"low", b""), "x")
                .mark(path(b"up", b".wh."));
            let before = union.disk();
            let row = union.restore(options, path(b"", b"")).exits(0).row();
            assert_eq!(bytes(&row["path"]), [b"/", name].concat());
            assert!(!union.at(path(b"up", b".wh.")).exists(), "{shown}");
            assert_eq!(
                union.at(path(b"up", b"")).exists(),
                !options.is_empty(),
                "{shown}"
            );
            take_back(&row);
            assert_same(&settled(before), &settled(union.disk()));
        }
    }
}

mod plans {
    use super::*;

    #[test]
    fn a_dry_run_prints_what_is_then_done_and_changes_nothing() {
        let opaque = || {
            let union = Union::usual();
            union
                .file("low/f", "x")
                .mark("up/.wh..wh..opq")
                .mark("mid/.wh.f");
            union
        };
        let changed = || {
            let union = Union::usual();
            union.file("low/f", "old").file("up/f", "new").dir("saved");
            union
        };
        type Case<'c> = (&'c dyn Fn() -> Union, &'c [&'c str], &'c str);
        let cases: [Case<'_>; 8] = [
            (&deleted_file, &[], "/f"),
            (&deleted_file, &["--strategy", "copy"], "/f"),
            (&deleted_ancestor, &[], "/d/x"),
            (
                &deleted_ancestor,
                &["--strategy", "unhide", "--yes"],
                "/d/x",
            ),
            (&deleted_ancestor, &["--strategy", "copy", "-r"], "/d"),
            (&opaque, &[], "/f"),
            (&changed, &["--revert", "--discard"], "/f"),
            (&changed, &["--revert", "--save", "saved"], "/f"),
        ];
        for (make, options, path) in cases {
            let union = make();
            let before = union.disk();
            let planned = union
                .restore(&[options, &["--dry-run"]].concat(), path)
                .exits(0)
                .row();
            assert_eq!(planned["applied"], false);
            assert_same(&before, &union.disk());
            let done = union.restore(options, path).exits(0).row();
            assert_eq!(done["applied"], true);
            assert_eq!(steps(&planned), steps(&done), "{options:?}");
            for field in ["undo", "reappears", "hidden_by", "strategy", "path"] {
                assert_eq!(planned[field], done[field], "{options:?}");
            }
            assert!(before != union.disk(), "{options:?}");
        }
    }

    #[test]
    fn a_table_ends_with_the_way_back() {
        let union = deleted_file();
        let mut command = run::command();
        command
            .arg("restore")
            .arg("--in")
            .arg(union.spelled())
            .args(["--", "/f"]);
        let output = run(&mut command).exits(0);
        let last = output.text().lines().last().expect("lines").to_owned();
        assert_eq!(
            last,
            format!(
                "to take it back: install -m 0444 /dev/null {}",
                union.at("up/.wh.f").display()
            )
        );
    }

    #[test]
    fn the_way_back_leads_back() {
        type Case<'c> = (&'c dyn Fn() -> Union, &'c [&'c str], &'c str);
        let cases: [Case<'_>; 6] = [
            (&deleted_file, &[], "/f"),
            (&deleted_file, &["--strategy", "copy"], "/f"),
            (&deleted_ancestor, &[], "/d"),
            (&deleted_ancestor, &[], "/d/x"),
            (
                &deleted_ancestor,
                &["--strategy", "unhide", "--yes"],
                "/d/x",
            ),
            (&deleted_ancestor, &["--strategy", "copy", "-r"], "/d"),
        ];
        for (make, options, path) in cases {
            let union = make();
            let (before, view) = (union.disk(), union.view());
            let row = union.restore(options, path).exits(0).row();
            take_back(&row);
            assert_same(&settled(before), &settled(union.disk()));
            assert_same(&view, &union.view());
        }
    }
}

mod copy_out {
    use super::*;

    #[test]
    fn touches_nothing_in_the_union() {
        let union = deleted_ancestor();
        let out = tempfile::tempdir().expect("a temporary directory");
        let to = out.path().to_str().expect("text");
        let before = union.disk();
        union.restore(&["--to", to], "/d/x").exits(0);
        union.restore(&["--to", to, "-r"], "/d").exits(0);
        assert_same(&before, &union.disk());
        assert_eq!(
            fact(&out.path().join("x"), Detail::Copied),
            fact(&union.at("mid/d/x"), Detail::Copied)
        );
        let copied: Vec<Vec<u8>> = union::facts(&out.path().join("d")).into_keys().collect();
        assert_eq!(copied, [&b"sub"[..], b"sub/s", b"x", b"y", b"z"]);
    }

    #[test]
    fn never_overwrites() {
        let union = deleted_file();
        for kind in ["file", "directory", "link"] {
            let out = Union::of(&[]);
            match kind {
                "file" => out.file("f", "mine"),
                "directory" => out.dir("f"),
                _ => out.link("f", "dangling"),
            };
            let before = out.disk();
            union
                .restore(&["--to", out.home().to_str().expect("text")], "/f")
                .exits(2)
                .says("exists");
            assert_same(&before, &out.disk());
        }
    }

    #[test]
    fn needs_no_writable_branch() {
        let union = Union::of(&[("mid", "ro+wh"), ("low", "ro")]);
        union.mark("mid/.wh.f").file("low/f", "x").dir("out");
        refuses_and_changes_nothing(&union, &[], "/f", "--to");
        union.restore(&["--to", "out"], "/f").exits(0);
        assert!(union.at("out/f").exists());
    }

    #[test]
    fn into_a_branch_would_touch_the_union_and_is_refused() {
        let union = deleted_file();
        union.dir("up/sub").dir("low/sub").link("alias", "up");
        for to in ["up", "up/sub", "low/sub", "alias/sub"] {
            refuses_and_changes_nothing(&union, &["--to", to], "/f", "");
        }
        union.file("up/g", "changed").file("low/g", "old");
        for to in ["up/sub", "low/sub"] {
            refuses_and_changes_nothing(&union, &["--revert", "--save", to], "/g", "");
        }
    }

    #[test]
    fn to_nowhere_is_an_error() {
        let union = deleted_file();
        refuses_and_changes_nothing(&union, &["--to", "missing"], "/f", "missing");
        refuses_and_changes_nothing(&union, &["--to", "up/other"], "/f", "other");
    }
}

mod revert {
    use super::*;

    fn changed() -> Union {
        let union = Union::usual();
        union
            .file("low/f", "old")
            .file("up/f", "new")
            .dir("saved")
            .xattr("up/f", "user.x", b"y")
            .time("up/f", 1_000_000_000);
        union
    }

    #[test]
    fn keeps_the_changed_file() {
        let union = changed();
        let (before, saved) = (union.disk(), fact(&union.at("up/f"), Detail::Copied));
        let row = union
            .restore(&["--revert", "--save", "saved"], "/f")
            .exits(0)
            .row();
        assert_eq!(row["strategy"], "revert");
        assert!(union.view()[&b"/f"[..]].contains("old"));
        assert!(!union.at("up/f").exists());
        assert_eq!(fact(&union.at("saved/f"), Detail::Copied), saved);
        take_back(&row);
        fs::remove_file(union.at("saved/f")).expect("it is there");
        let inode = |facts: Facts| -> Facts {
            let cut = |fact: String| fact.replace(|letter: char| letter.is_ascii_digit(), "");
            settled(facts)
                .into_iter()
                .map(|(path, fact)| {
                    if path == b"up/f" {
                        (path, cut(fact))
                    } else {
                        (path, fact)
                    }
                })
                .collect()
        };
        assert_same(&inode(before), &inode(union.disk()));
        assert_eq!(fact(&union.at("up/f"), Detail::Copied), saved);
    }

    #[test]
    fn throws_it_away_only_when_told_to() {
        let union = changed();
        refuses_and_changes_nothing(&union, &["--revert"], "/f", "--discard");
        let row = union
            .restore(&["--revert", "--discard"], "/f")
            .exits(0)
            .row();
        assert_eq!(row["undo"].to_string(), "[]");
        assert!(union.view()[&b"/f"[..]].contains("old"));
    }

    #[test]
    fn overwrites_nothing_that_was_saved() {
        let union = changed();
        union.file("saved/f", "saved before");
        refuses_and_changes_nothing(&union, &["--revert", "--save", "saved"], "/f", "exists");
    }

    #[test]
    fn has_nothing_to_do_where_nothing_was_copied_up() {
        let union = changed();
        union.file("up/made", "").file("mid/unchanged", "");
        union.dir("low/replaced").file("up/replaced", "");
        for (path, words) in [
            ("/made", "made here"),
            ("/unchanged", "not changed"),
            ("/replaced", "directory"),
            ("/missing", "not there"),
        ] {
            has_nothing_to_do(&union, &["--revert", "--discard"], path, words);
        }
    }

    /// What lies in an opaque directory was made there: the lower file of its name is hidden, and
    /// would not come back.
    #[test]
    fn loses_nothing_in_an_opaque_directory() {
        for mark in ["up/d/.wh..wh..opq", "mid/.wh.d"] {
            let union = Union::usual();
            union
                .file("low/d/x", "old")
                .file("up/d/x", "made here")
                .mark(mark);
            has_nothing_to_do(&union, &["--revert", "--discard"], "/d/x", "");
        }
    }

    #[test]
    fn of_a_directory_is_refused() {
        let union = Union::usual();
        union.file("up/d/x", "").file("low/d/x", "");
        refuses_and_changes_nothing(&union, &["--revert", "--discard"], "/d", "is a directory");
    }
}

mod refusals {
    use super::*;

    #[test]
    fn what_is_there_or_was_never_there_is_not_restored() {
        let union = deleted_file();
        union
            .dir("mid/d")
            .mark("up/.wh.stale")
            .mark("up/d/.wh..wh..opq")
            .link("up/link", "nowhere");
        for (path, words) in [
            ("/other", "it is there"),
            ("/d", "it is there"),
            ("/link", "it is there"),
            ("/never", "not deleted"),
            ("/never/ever", "not deleted"),
            ("/d/never", "not deleted"),
            ("/stale", "nothing is left below"),
            ("/", "the root"),
            ("/other/x", "ENOTDIR"),
            ("/.wh.f", "EPERM"),
        ] {
            has_nothing_to_do(&union, &[], path, words);
        }
    }

    #[test]
    fn the_words_are_in_the_table_too() {
        let union = deleted_file();
        let mut command = run::command();
        command
            .arg("restore")
            .arg("--in")
            .arg(union.spelled())
            .args(["--", "/never"]);
        assert!(run(&mut command).exits(1).text().contains("not deleted"));
    }

    #[test]
    fn usage_errors() {
        let union = deleted_file();
        for options in [
            &["--save", "up"][..],
            &["--discard"],
            &["--revert", "--save", "up", "--discard"],
            &["--revert", "--strategy", "copy", "--discard"],
            &["--to", "up", "--strategy", "copy"],
            &["--to", "up", "--revert", "--discard"],
            &["--strategy", "magic"],
        ] {
            refuses_and_changes_nothing(&union, options, "/f", "");
        }
        for arguments in [
            &["restore"][..],
            &["restore", ""],
            &["restore", "br:/tmp=rw:/"],
            &["restore", "relative"],
        ] {
            run::layerctl(arguments).exits(2);
        }
    }

    #[test]
    fn a_mark_in_a_read_only_branch_stays() {
        let union = Union::of(&[("up", "ro+wh"), ("low", "rw"), ("base", "ro")]);
        union.mark("up/.wh.f").file("base/f", "x");
        refuses_and_changes_nothing(&union, &["--strategy", "unhide"], "/f", "read-only");
        // A copy in the writable branch would stay hidden.
        refuses_and_changes_nothing(&union, &[], "/f", "--to");
    }

    /// Also where a mark that lies nearer the root, in a lower branch, is met first.
    #[test]
    fn nothing_is_written_that_would_stay_hidden() {
        let union = Union::of(&[("top", "ro+wh"), ("up", "rw"), ("low", "ro")]);
        union
            .mark("top/a/b/.wh..wh..opq")
            .mark("up/a/.wh..wh..opq")
            .file("low/a/b/x", "");
        refuses_and_changes_nothing(&union, &[], "/a/b/x", "--to");
    }

    #[test]
    fn a_whiteout_that_is_no_file_is_not_removed() {
        let union = Union::usual();
        union
            .dir("up/.wh.f/full")
            .file("low/f", "x")
            .link("up/.wh.g", "x")
            .file("low/g", "x");
        for path in ["/f", "/g"] {
            for options in [
                &[][..],
                &["--strategy", "copy"],
                &["--strategy", "unhide", "--yes"],
            ] {
                has_nothing_to_do(&union, options, path, "EIO");
            }
        }
    }

    #[test]
    fn what_hides_in_the_writable_branch_is_not_overwritten() {
        // The place is a directory of a branch above, and a file in the writable one.
        let union = Union::of(&[("top", "ro"), ("up", "rw"), ("mid", "ro+wh"), ("low", "ro")]);
        union
            .dir("top/d")
            .file("up/d", "a file")
            .mark("mid/d/.wh.x")
            .file("low/d/x", "");
        let before = union.disk();
        union.restore(&[], "/d/x").exits(2);
        assert_same(&settled(before), &settled(union.disk()));
        // Where it stands beside its own whiteout, it is what comes back.
        for options in [&[][..], &["--strategy", "copy"]] {
            let union = Union::usual();
            union
                .mark("up/.wh.f")
                .file("up/f", "mine")
                .file("low/f", "x");
            union.restore(options, "/f");
            assert_eq!(
                fs::read(union.at("up/f")).expect("it stays"),
                b"mine",
                "{options:?}"
            );
        }
    }

    #[test]
    fn a_lost_branch_is_no_answer() {
        let union = deleted_file();
        fs::remove_dir_all(union.at("low")).expect("it is there");
        refuses_and_changes_nothing(&union, &[], "/f", "low");
    }
}

mod escapes {
    use super::*;

    /// A union beside something that it must not reach.
    fn with_outside() -> Union {
        let union = Union::usual();
        union
            .file("outside/x", "secret")
            .file("outside/d/x", "secret");
        union
    }

    fn outside(union: &Union) -> Facts {
        union.branch("outside")
    }

    #[test]
    fn a_link_on_the_way_leads_nowhere_but_into_the_union() {
        for options in [
            &[][..],
            &["--strategy", "copy"],
            &["--strategy", "unhide", "--yes"],
            &["--strategy", "copy", "-r"],
            &["--revert", "--discard"],
        ] {
            let union = with_outside();
            let to = union.at("outside");
            // In the writable branch, where directories are opened and made.
            union
                .link("up/a", &to)
                .file("mid/a/x", "")
                .mark("mid/b/.wh.x")
                .link("up/b", &to)
                .file("low/b/x", "");
            // Below, where versions are read.
            union
                .mark("up/.wh.c")
                .link("mid/c", &to)
                .mark("up/e/.wh..wh..opq")
                .link("mid/e", &to);
            let before = outside(&union);
            for path in ["/a/x", "/b/x", "/c/x", "/e/x", "/c/d/x", "/c/d", "/c"] {
                union.restore(options, path);
                for branch in ["up", "mid", "low"] {
                    let has = union
                        .branch(branch)
                        .into_values()
                        .any(|fact| fact.contains("secret"));
                    assert!(!has, "{options:?} {path}");
                }
            }
            assert_same(&before, &outside(&union));
        }
    }

    #[test]
    fn dots_never_lead_out() {
        let union = with_outside();
        union
            .mark("up/.wh.gone")
            .dir("mid/gone")
            .file("mid/f", "x")
            .mark("up/.wh.f")
            .dir("out");
        let before = union.disk();
        for path in [
            "/gone/../../outside/x",
            "/gone/../../../../../../../../../../../etc/passwd",
            "/gone/../../up",
            "/gone/..",
            "/gone/../f",
        ] {
            for options in [
                &["--strategy", "copy"][..],
                &["--dry-run"],
                &["--to", "out"],
                &["--strategy", "unhide"],
            ] {
                // Nothing is behind what is not there: the kernel says ENOENT.
                let output = union.restore(options, path);
                assert_ne!(
                    output.status,
                    Some(0),
                    "{options:?} {path}: {}",
                    output.text()
                );
                assert!(
                    !output.stderr.contains("File exists"),
                    "{options:?} {path}: {}",
                    output.stderr
                );
                assert_same(&before, &union.disk());
            }
        }
        union.restore(&[], "/../../f").exits(0);
        assert!(!union.at("up/.wh.f").exists());
    }

    #[test]
    fn slashes_change_nothing() {
        for path in ["/f/", "f", "//f", "/./f/.", "f/"] {
            let union = deleted_file();
            assert_eq!(
                union.restore(&[], path).exits(0).row()["path"],
                "/f",
                "{path}"
            );
        }
        let union = deleted_file();
        has_nothing_to_do(&union, &[], "", "");
    }
}

mod obstacles {
    use super::*;

    #[test]
    fn a_read_only_file_system() {
        let script = "mount -t tmpfs none \"$1\" && cd \"$1\" && mkdir up low && touch up/.wh.f && echo x > low/f && mount -o remount,ro \"$1\" && \
                      for strategy in unhide copy; do \"$LAYERCTL\" restore --strategy $strategy --in br:up=rw:low -- /f; echo \"exit $?\"; done; \
                      test -e up/.wh.f && ! test -e up/f && ls -A up";
        let Some(output) = in_own_mounts(script) else {
            return;
        };
        assert_eq!(
            output.text(),
            "exit 2\nexit 2\n.wh.f\n",
            "{}",
            output.stderr
        );
        assert_eq!(
            output.stderr.matches("Read-only file system").count(),
            2,
            "{}",
            output.stderr
        );
    }

    #[test]
    fn a_full_disk_leaves_the_old_state() {
        let script = "mount -t tmpfs -o size=1M none \"$1\" && cd \"$1\" && mkdir up low && mount -t tmpfs -o size=64M none low && \
                      touch up/.wh.f up/.wh.d && head -c 4M /dev/zero > low/f && mkdir low/d && head -c 4M /dev/zero > low/d/big && \
                      for path in f d/big; do \"$LAYERCTL\" restore --strategy copy --in br:up=rw:low -- $path; echo \"exit $?\"; done; ls -A up";
        let Some(output) = in_own_mounts(script) else {
            return;
        };
        assert_eq!(
            output.text(),
            "exit 2\nexit 2\n.wh.d\n.wh.f\n",
            "{}",
            output.stderr
        );
        assert_eq!(
            output.stderr.matches("No space left").count(),
            2,
            "{}",
            output.stderr
        );
    }

    #[test]
    fn ten_thousand_levels() {
        let home = tempfile::Builder::new()
            .tempdir_in("/dev/shm")
            .or_else(|_| tempfile::tempdir())
            .expect("a temporary directory");
        let union = Union::at_home(home.path(), &[("up", "rw"), ("low", "ro")]);
        deep(&union.at("low"), 10_000);
        union.mark("up/.wh.d");
        let row = union
            .restore(&["--strategy", "copy", "-r"], "/d")
            .exits(0)
            .row();
        assert_eq!(row["applied"], true);
        assert_eq!(depth(&union.at("up")), 10_000);
        let output = Command::new("rm")
            .arg("-rf")
            .arg(home.path())
            .status()
            .expect("rm");
        assert!(output.success());
    }

    fn deep(at: &Path, levels: usize) {
        use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};
        let mut dir = openat(CWD, at, OFlags::PATH, Mode::empty()).expect("it is there");
        for _ in 0..levels {
            mkdirat(&dir, c"d", Mode::from_raw_mode(0o755)).expect("it is ours");
            dir = openat(&dir, c"d", OFlags::PATH, Mode::empty()).expect("it is there");
        }
    }

    fn depth(at: &Path) -> usize {
        use rustix::fs::{CWD, Mode, OFlags, openat};
        let mut dir = openat(CWD, at, OFlags::PATH, Mode::empty()).expect("it is there");
        let mut levels = 0;
        while let Ok(next) = openat(&dir, CString::from(c"d"), OFlags::PATH, Mode::empty()) {
            dir = next;
            levels += 1;
        }
        levels
    }

    #[test]
    fn two_at_once_make_one() {
        for options in [&[][..], &["--strategy", "copy"]] {
            for path in ["/f", "/d"] {
                for _ in 0..10 {
                    let union = deleted_file();
                    union.file("low/d/x", "").mark("up/.wh.d");
                    let options = [options, &["-r"]].concat();
                    let spawn = || {
                        let mut command = union.command(&options, path);
                        command
                            .stdout(Stdio::piped())
                            .stderr(Stdio::piped())
                            .spawn()
                            .expect("it was built")
                    };
                    let outputs: Vec<_> = [spawn(), spawn(), spawn()]
                        .into_iter()
                        .map(|child| child.wait_with_output().expect("it ends"))
                        .collect();
                    assert!(
                        outputs.iter().any(|output| output.status.success()),
                        "{outputs:?}"
                    );
                    let view = union.view();
                    assert!(
                        !view[path.as_bytes()].contains("error"),
                        "{}",
                        view[path.as_bytes()]
                    );
                    assert!(
                        !union
                            .branch("up")
                            .keys()
                            .any(|name| name.starts_with(b".wh..wh.layerctl")),
                        "{:?}",
                        union.branch("up")
                    );
                }
            }
        }
    }

    /// One is held just before its first rename, and another goes all the way meanwhile.
    #[test]
    fn a_second_one_in_between_breaks_nothing() {
        if !has_strace() {
            return skip("strace is not installed");
        }
        let union = deleted_file();
        let mut slow = Command::new("strace");
        slow.args([
            "-f",
            "-o",
            "/dev/null",
            "-e",
            "trace=renameat,renameat2",
            "-e",
            "inject=renameat,renameat2:delay_enter=1500000:when=1",
        ]);
        let slow = under(slow, &union.command(&["--strategy", "copy"], "/f"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let mut slow = slow.expect("strace");
        std::thread::sleep(Duration::from_millis(700));
        let quick = union.restore(&["--strategy", "copy"], "/f");
        slow.wait().expect("it ends");
        let view = union.view();
        assert!(
            view[&b"/f"[..]].contains("before"),
            "{}\n{:?} {}",
            view[&b"/f"[..]],
            quick.status,
            quick.stderr
        );
    }
}

/// A command run by another.
fn under(mut outer: Command, inner: &Command) -> Command {
    outer.arg(inner.get_program()).args(inner.get_args());
    if let Some(dir) = inner.get_current_dir() {
        outer.current_dir(dir);
    }
    outer
}

/// Runs a shell script as root in a mount namespace of its own; `$1` is an empty directory.
fn in_own_mounts(script: &str) -> Option<Output> {
    if !is_root() {
        skip("mounting takes root");
        return None;
    }
    let can = Command::new("unshare")
        .args([
            "-m",
            "--propagation",
            "private",
            "mount",
            "-t",
            "tmpfs",
            "none",
            "/mnt",
        ])
        .output();
    if !can.is_ok_and(|output| output.status.success()) {
        skip("this machine forbids mounting");
        return None;
    }
    let home = tempfile::tempdir().expect("a temporary directory");
    let mut command = Command::new("unshare");
    command
        .args([
            "-m",
            "--propagation",
            "private",
            "bash",
            "-uc",
            script,
            "bash",
        ])
        .arg(home.path());
    command.env("LAYERCTL", env!("CARGO_BIN_EXE_layerctl"));
    Some(run(&mut command))
}

mod host_copies {
    use super::*;

    /// A copied host with a union that its mount table and sysfs call mounted.
    fn host() -> Host {
        let host = Host::empty();
        host.file("/b/low/f", "x")
            .file("/b/up/.wh.f", "")
            .file("/b/low/d/x", "x")
            .file("/b/up/.wh.d", "")
            .dir("/mnt");
        host.union(
            "abc123",
            &[("/mnt", "/")],
            &[(b"/b/up", "rw"), (b"/b/low", "ro+wh")],
        );
        host
    }

    #[test]
    fn are_not_written_to_unasked() {
        let host = host();
        let before = union::facts(&host.root);
        host.ask(["restore", "/mnt/f"]).exits(2).says("--write");
        host.ask(["restore", "--revert", "--discard", "/mnt/f"])
            .exits(1);
        assert_same(&before, &union::facts(&host.root));
        // A plan and a copy outside write nothing in it.
        host.ask(["restore", "--dry-run", "/mnt/f"]).exits(0);
        let out = tempfile::tempdir().expect("a temporary directory");
        host.ask([
            OsStr::new("restore"),
            "--to".as_ref(),
            out.path().as_os_str(),
            "/mnt/f".as_ref(),
        ])
        .exits(0);
        assert_same(&before, &union::facts(&host.root));
        assert!(out.path().join("f").exists());
    }

    #[test]
    fn are_never_live() {
        let host = host();
        let row = host.jsonl(["restore", "--write", "/mnt/f"]).exits(0).row();
        assert_eq!(actions(&row), ["remove-mark", "look"]);
        assert_eq!(
            steps(&row)[0].1,
            host.at("/b/up/.wh.f").as_os_str().as_bytes()
        );
        assert!(!host.at("/b/up/.wh.f").exists());
        take_back(&row);
        assert!(host.at("/b/up/.wh.f").exists());
        let row = host
            .jsonl(["restore", "--write", "/mnt/d/x"])
            .exits(0)
            .row();
        assert_eq!(
            actions(&row),
            ["copy", "make-opaque", "remove-mark", "look"]
        );
        assert!(host.at("/b/up/d/x").exists() && !host.at("/mnt/d").exists());
    }

    #[test]
    fn without_a_target_one_union_must_have_it_deleted() {
        let host = host();
        host.file("/c/low/f", "y")
            .file("/c/low/only", "y")
            .file("/c/up/.wh.only", "")
            .dir("/c/up");
        host.union(
            "def456",
            &[("/srv/two", "/")],
            &[(b"/c/up", "rw"), (b"/c/low", "ro+wh")],
        );
        let row = host.jsonl(["restore", "--dry-run", "/only"]).exits(0).row();
        assert!(bytes(&row["steps"][0]["path"]).ends_with(b"/c/up/.wh.only"));
        host.jsonl(["restore", "--dry-run", "/f"]).exits(0);
        host.file("/c/up/.wh.f", "");
        host.jsonl(["restore", "--dry-run", "/f"])
            .exits(2)
            .says("/mnt:/f")
            .says("/srv/two:/f");
        host.jsonl(["restore", "--dry-run", "/never"])
            .exits(2)
            .says("not deleted");
        let before = union::facts(&host.root);
        host.jsonl(["restore", "--write", "/f"]).exits(2);
        assert_same(&before, &union::facts(&host.root));
    }

    #[test]
    fn all_spellings_mean_the_same() {
        let host = host();
        for arguments in [
            &["restore", "-n", "/mnt/d/x"][..],
            &["restore", "-n", "/mnt:/d/x"],
            &["restore", "-n", "si_abc123:/d/x"],
            &["restore", "-n", "--in", "/mnt", "d/x"],
            &["restore", "-n", "/d/x"],
            &["restore", "-n", "--in", "br:/b/up=rw:/b/low=ro+wh", "/d/x"],
        ] {
            assert_eq!(
                host.jsonl(arguments).exits(0).row()["path"],
                "/d/x",
                "{arguments:?}"
            );
        }
    }
}

mod kills {
    use super::*;

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
        if !has_strace() {
            return skip("strace is not installed");
        }
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
                let mut strace = Command::new("strace");
                strace.args([
                    "-f",
                    "-o",
                    "/dev/null",
                    "-e",
                    &format!("trace={call}"),
                    "-e",
                    &format!("inject={call}:signal=KILL:when={count}"),
                ]);
                let output = under(strace, &union.command(case.options, case.path))
                    .output()
                    .expect("strace");
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

    #[test]
    fn while_a_mark_is_removed() {
        any_moment(&Case {
            make: &deleted_file,
            options: &[],
            path: "/f",
            may_be_eio: false,
        });
    }

    #[test]
    fn while_a_file_takes_the_place_of_its_mark() {
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

    #[test]
    fn while_directories_are_made_on_the_way() {
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

    #[test]
    fn while_a_link_takes_the_place_of_its_mark() {
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

    #[test]
    fn while_a_deleted_ancestor_is_made() {
        any_moment(&Case {
            make: &deleted_ancestor,
            options: &[],
            path: "/d/x",
            may_be_eio: true,
        });
    }

    #[test]
    fn while_a_directory_is_copied_whole() {
        any_moment(&Case {
            make: &deleted_ancestor,
            options: &["--strategy", "copy", "-r"],
            path: "/d",
            may_be_eio: true,
        });
    }

    #[test]
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
    #[test]
    fn while_a_changed_file_is_saved() {
        if !has_strace() {
            return skip("strace is not installed");
        }
        for call in CALLS {
            for count in 1.. {
                let union = Union::usual();
                union.file("low/f", "old").file("up/f", "new").dir("saved");
                let saved = fact(&union.at("up/f"), Detail::Copied);
                let mut strace = Command::new("strace");
                strace.args([
                    "-f",
                    "-o",
                    "/dev/null",
                    "-e",
                    &format!("trace={call}"),
                    "-e",
                    &format!("inject={call}:signal=KILL:when={count}"),
                ]);
                let output = under(
                    strace,
                    &union.command(&["--revert", "--save", "saved"], "/f"),
                )
                .output()
                .expect("strace");
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

    #[test]
    fn leave_something_that_check_names() {
        if !has_strace() {
            return skip("strace is not installed");
        }
        let union = deleted_ancestor();
        let mut strace = Command::new("strace");
        strace.args([
            "-f",
            "-o",
            "/dev/null",
            "-e",
            "trace=renameat2",
            "-e",
            "inject=renameat2:signal=KILL:when=1",
        ]);
        under(strace, &union.command(&[], "/d/x"))
            .output()
            .expect("strace");
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
}

mod failures {
    use super::*;

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
        if !has_strace() {
            return skip("strace is not installed");
        }
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
                let mut strace = Command::new("strace");
                let trace = union.home().join("trace");
                strace
                    .arg("-f")
                    .arg("-o")
                    .arg(&trace)
                    .args(["-e", &format!("trace={call}")]);
                strace.args(["-e", &format!("inject={call}:error=EIO:when={count}")]);
                let output = under(strace, &union.command(options, path))
                    .output()
                    .expect("strace");
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

    #[test]
    fn of_a_removed_mark() {
        any_call(&deleted_file, &[], "/f");
    }

    #[test]
    fn of_a_copied_file() {
        any_call(&deleted_file, &["--strategy", "copy"], "/f");
    }

    #[test]
    fn of_a_copied_ancestor() {
        any_call(&deleted_ancestor, &[], "/d/x");
    }

    #[test]
    fn of_a_copied_tree() {
        any_call(&deleted_ancestor, &["--strategy", "copy", "-r"], "/d");
    }

    #[test]
    fn of_a_reverted_file() {
        let make = || {
            let union = Union::usual();
            union.file("low/f", "old").file("up/f", "new").dir("saved");
            union
        };
        any_call(&make, &["--revert", "--discard"], "/f");
    }
}

/// A union that layerctl takes for a mounted AUFS: the mount table and sysfs say so, and what
/// answers at the mount point is an overlay whose upper directory is branch 0.
mod live {
    use super::*;

    /// `$lower` is what the kernel merges: `br1`, or `empty` where a mark is to count.
    const IMITATION: &str = r#"
        set -e
        cd "$1"; mount -t tmpfs none "$1"; cd "$1"
        mkdir br0 br1 empty work mnt trace
        br() { for i in 0 1; do echo "$1/br$i=$([ $i = 0 ] && echo rw || echo ro+wh)" > /sys/fs/aufs/si_abc123/br$i; echo 6$i > /sys/fs/aufs/si_abc123/brid$i; done; }
        imitate() {
            mount -t overlay overlay -o lowerdir="$H/$1",upperdir="$H/br0",workdir="$H/work" "$H/mnt"
            mount -t tmpfs none /sys; mkdir -p /sys/fs/aufs/si_abc123; br "$H"
            mount -t tmpfs none /proc; mkdir -p /proc/self
            echo "33 15 0:29 / $H/mnt rw,relatime - aufs none rw,si=abc123" > /proc/self/mountinfo
        }
        H=$1
        restore() { "$LAYERCTL" --format jsonl restore "$@"; }
        look() { (cd "$H/br0"; find . -mindepth 1 | LC_ALL=C sort | tr '\n' ' '; echo); }
        set +e
    "#;

    pub fn imitation(script: &str) -> Option<Output> {
        if script.contains("strace ") && !has_strace() {
            skip("strace is not installed");
            return None;
        }
        in_own_mounts(&format!("{IMITATION}\n{script}"))
    }

    fn lines(output: &Output) -> Vec<&str> {
        output.text().lines().collect()
    }

    fn json(line: &str) -> Value {
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }

    #[test]
    fn a_copy_goes_through_the_mount() {
        let Some(output) = imitation(
            "mkdir br0/d br1/d; echo x > br1/d/x; chmod 4751 br1/d/x; touch br0/d/.wh.x; imitate empty
             strace -f -o trace/t -e trace=%file $LAYERCTL --format jsonl restore --strategy copy $H/mnt/d/x; echo $?
             look; stat -c %a br0/d/x mnt/d/x; grep -c 'wh..wh.layerctl' trace/t; grep -c '\"\\.layerctl-.*mnt\\|\"\\.layerctl-' trace/t",
        ) else {
            return;
        };
        let lines = lines(&output);
        assert_eq!(lines.len(), 6 + 1, "{}\n{}", output.text(), output.stderr);
        let row = json(lines[0]);
        assert_eq!(actions(&row), ["copy", "look"]);
        assert!(
            bytes(&row["steps"][0]["path"]).ends_with(b"/mnt/d/x"),
            "{row}"
        );
        // The mark is the kernel's to remove; this one knows only its own.
        assert_eq!(
            lines[1..5],
            ["0", "./d ./d/.wh.x ./d/x ", "4751", "4751"],
            "{}",
            output.stderr
        );
        assert_eq!(lines[5], "0");
        assert_ne!(lines[6], "0");
        assert!(text(&row, "seen").contains("/mnt/d/x"));
        assert!(row["undo"].to_string().contains("/mnt/d/x"), "{row}");
    }

    #[test]
    fn a_deleted_ancestor_is_made_through_the_mount() {
        let Some(output) = imitation(
            "mkdir br1/d; echo x > br1/d/x; touch br1/d/y br0/.wh.d; imitate empty; restore $H/mnt/d/x; echo $?; look; ls mnt/d",
        ) else {
            return;
        };
        let lines = lines(&output);
        assert_eq!(actions(&json(lines[0])), ["copy", "look"]);
        assert_eq!(
            lines[1..],
            ["0", "./.wh.d ./d ./d/x ", "x"],
            "{}",
            output.stderr
        );
    }

    #[test]
    fn a_mark_is_removed_between_two_refreshes() {
        let Some(output) = imitation(
            "echo x > br1/f; touch br0/.wh.f; imitate br1
             restore --dry-run $H/mnt/f; echo $?; look
             strace -f -o trace/t -e trace=fspick,fsconfig,unlinkat,mount $LAYERCTL --format jsonl restore $H/mnt/f; echo $?; look
             sed -E 's/^[0-9]+ +([a-z_]+)\\(.*/\\1/; /^\\+|exited/d' trace/t",
        ) else {
            return;
        };
        let lines = lines(&output);
        let (planned, done) = (json(lines[0]), json(lines[3]));
        assert_eq!(lines[1..3], ["0", "./.wh.f "]);
        assert_eq!(
            actions(&done),
            ["check-refresh", "remove-mark", "refresh", "look"]
        );
        assert_eq!(steps(&planned), steps(&done));
        assert_eq!(lines[4..6], ["0", ""], "{}", output.stderr);
        let mut calls = lines[6..].to_vec();
        // Whether the mount is picked again or kept does not matter.
        calls.dedup();
        if calls.get(3) == Some(&"fspick") {
            calls.remove(3);
        }
        assert_eq!(
            calls,
            ["fspick", "fsconfig", "unlinkat", "fsconfig"],
            "{}",
            output.stderr
        );
        assert!(text(&done, "seen").contains("a file of 2 bytes"), "{done}");
        assert_eq!(done["undo"].as_array().map(Vec::len), Some(1));
        assert!(
            done["undo"].to_string().contains("rm -r -- ")
                && done["undo"].to_string().contains("/mnt/f"),
            "{done}"
        );
    }

    /// A name that is looked up between the two is dangerous: nothing slow may come between.
    #[test]
    fn a_mark_is_removed_and_refreshed_in_one_breath() {
        let Some(output) = imitation(
            "echo x > br1/f; touch br0/.wh.f; imitate br1
             strace -f -o trace/t $LAYERCTL restore $H/mnt/f >/dev/null; grep -A2 unlinkat trace/t | sed -E 's/^[0-9]+ +([a-z_0-9]+).*/\\1/'",
        ) else {
            return;
        };
        let calls = lines(&output);
        let refresh = calls.iter().position(|call| *call == "fsconfig");
        assert!(refresh.is_some(), "{calls:?}");
        assert!(!calls.contains(&"fsync"), "{calls:?}");
    }

    #[test]
    fn whatever_fails_after_the_mark_is_gone_it_is_refreshed() {
        let Some(output) = imitation(
            "echo x > br1/f; touch br0/.wh.f; imitate br1
             strace -f -o trace/t -e trace=fspick,fsconfig,unlinkat,fsync -e inject=fsync:error=EIO $LAYERCTL restore $H/mnt/f >/dev/null
             sed -nE '/unlinkat/,$ s/^[0-9]+ +(fsconfig)\\(.*/\\1/p' trace/t",
        ) else {
            return;
        };
        assert_eq!(lines(&output), ["fsconfig"], "{}", output.stderr);
    }

    #[test]
    fn a_mark_that_cannot_be_refreshed_is_put_back() {
        for aufs in [
            "",
            "touch br0/.wh..wh.aufs; chmod 444 br0/.wh..wh.aufs; rm br0/.wh.f; ln br0/.wh..wh.aufs br0/.wh.f;",
        ] {
            let Some(output) = imitation(&format!(
                "echo x > br1/f; touch br0/.wh.f; chmod 444 br0/.wh.f; {aufs} imitate br1
                 strace -f -o trace/t -e trace=fsconfig -e inject=fsconfig:error=EPERM:when=2 $LAYERCTL restore $H/mnt/f; echo $?; stat -c '%a %s' br0/.wh.f"
            )) else {
                return;
            };
            assert_eq!(lines(&output), ["2", "444 0"], "{}", output.stderr);
            assert!(
                output.stderr.contains("--strategy copy"),
                "{}",
                output.stderr
            );
        }
    }

    /// Nothing half-written has the real name, whenever a copy through the mount is killed.
    #[test]
    fn a_killed_copy_never_shows_half() {
        let Some(output) = imitation(
            "mkdir br1/d; head -c 900000 /dev/zero > br1/d/x; mkdir br0/d; touch br0/d/.wh.x; imitate empty
             for call in renameat2 write ftruncate fchmod utimensat fsync; do for n in 1 2 3 4 5 6; do
                strace -f -o trace/t -e trace=$call -e inject=$call:signal=KILL:when=$n $LAYERCTL restore --strategy copy $H/mnt/d/x >/dev/null 2>&1 && echo whole
                test -e mnt/d/x && stat -c %s mnt/d/x; rm -f mnt/d/x
             done; done",
        ) else {
            return;
        };
        assert!(lines(&output).contains(&"whole"), "{}", output.stderr);
        assert!(
            lines(&output)
                .iter()
                .all(|line| *line == "whole" || *line == "900000"),
            "{}",
            output.text()
        );
    }

    #[test]
    fn whoever_may_not_refresh_is_refused_and_told_what_to_do() {
        let Some(output) = imitation(
            "echo x > br1/f; touch br0/.wh.f; imitate br1
             setpriv --bounding-set -sys_admin --inh-caps -sys_admin $LAYERCTL restore $H/mnt/f; echo $?; look",
        ) else {
            return;
        };
        assert_eq!(lines(&output), ["2", "./.wh.f "], "{}", output.stderr);
        assert!(
            output.stderr.contains("--strategy copy"),
            "{}",
            output.stderr
        );
        assert!(output.stderr.contains("as root"), "{}", output.stderr);
        let names_the_command =
            output.stderr.contains("layerctl restore") || output.stderr.contains("sudo");
        assert!(
            names_the_command,
            "the command to run as root is not named: {}",
            output.stderr
        );
    }

    #[test]
    fn what_is_still_not_there_is_said() {
        let Some(output) = imitation(
            "echo x > br1/f; touch br0/.wh.f; imitate empty; restore $H/mnt/f; echo $?; look",
        ) else {
            return;
        };
        assert_eq!(lines(&output), ["2", ""], "{}", output.stderr);
        assert!(
            output.stderr.contains("still not there"),
            "{}",
            output.stderr
        );
    }

    #[test]
    fn a_path_through_a_link_is_looked_at_where_it_leads() {
        let Some(output) = imitation(
            "mkdir br1/way; echo x > br1/way/f; ln -s way br1/short; mkdir br0/way; touch br0/way/.wh.f; imitate br1; restore $H/mnt:/short/f; echo $?; look",
        ) else {
            return;
        };
        let lines = lines(&output);
        assert_eq!(lines.last(), Some(&"./way "), "{}", output.stderr);
        assert!(lines.contains(&"0"), "{}\n{}", output.text(), output.stderr);
    }

    /// Whoever spells a mounted union's writable branch gets its mount, or is refused.
    #[test]
    fn spelling_a_mounted_union_does_not_go_behind_its_back() {
        let mut wrong = Vec::new();
        for (spelled, path) in [
            ("br:$H/br0=rw:$H/br1=ro", "/d/x"),
            ("br:br0=rw:br1", "/d/x"),
            ("br:link=rw:br1", "/d/x"),
            ("br:$H/empty=ro:br0=rw:br1", "/d/x"),
            ("br:$H/alias=rw:$H/br1=ro", "/d/x"),
            ("br:br0/d=rw:br1/d", "/x"),
        ] {
            let Some(output) = imitation(&format!(
                "mkdir br0/d br1/d alias; ln -s br0 link; echo x > br1/d/x; touch br0/d/.wh.x; mount --bind br0 alias; imitate br1
                 for strategy in unhide copy; do restore --dry-run --strategy $strategy --in {spelled} -- {path}; done"
            )) else {
                return;
            };
            for line in output.text().lines().map(json) {
                let is_live = match actions(&line)[..] {
                    ["check-refresh", "remove-mark", "refresh", "look"] => true,
                    ["copy", "look"] => bytes(&line["steps"][0]["path"]).ends_with(b"/mnt/d/x"),
                    _ => false,
                };
                if !is_live {
                    wrong.push(format!("{spelled}: {}", line["steps"][0]["words"]));
                }
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    #[test]
    fn a_union_of_another_namespace_counts_as_mounted() {
        let hidden = "echo x > br1/f; touch br0/.wh.f; mkdir br1/d; echo x > br1/d/x; mkdir br0/d; touch br0/d/.wh..wh..opq; imitate br1; : > /proc/self/mountinfo";
        let Some(output) = imitation(&format!(
            "{hidden}; for path in f d/x; do restore si_abc123:/$path; echo $?; restore --in br:br0=rw:br1=ro+wh -- $path; echo $?; done; look"
        )) else {
            return;
        };
        assert_eq!(
            lines(&output),
            ["2", "2", "2", "2", "./.wh.f ./d ./d/.wh..wh..opq "],
            "{}",
            output.stderr
        );
        assert_eq!(
            output.stderr.matches("is mounted").count(),
            4,
            "{}",
            output.stderr
        );
        // Where a process of that namespace can be reached, its mount is used.
        let Some(output) = imitation(&format!(
            "{hidden}; mkdir /proc/77; ln -s / /proc/77/root; echo \"33 15 0:29 / $H/mnt rw - aufs none rw,si=abc123\" > /proc/77/mountinfo
             restore si_abc123:/f; echo $?; look"
        )) else {
            return;
        };
        let lines = lines(&output);
        assert_eq!(
            actions(&json(lines[0])),
            ["check-refresh", "remove-mark", "refresh", "look"]
        );
        assert_eq!(
            lines[1..],
            ["0", "./d ./d/.wh..wh..opq "],
            "{}",
            output.stderr
        );
    }

    #[test]
    fn a_changed_file_is_replaced_through_the_mount() {
        let Some(output) = imitation(
            "echo old > br1/f; echo new > br0/f; imitate br1
             mkdir saved; restore --revert --save saved $H/mnt/f; echo $?; cat mnt/f saved/f; look",
        ) else {
            return;
        };
        let lines = lines(&output);
        assert_eq!(actions(&json(lines[0])), ["move", "replace", "look"]);
        assert_eq!(lines[1..], ["0", "old", "new", "./f "], "{}", output.stderr);
    }

    #[test]
    fn a_copy_out_needs_no_mount() {
        let Some(output) = imitation(
            "echo x > br1/f; touch br0/.wh.f; imitate br1; : > /proc/self/mountinfo; mkdir out; restore --to out si_abc123:/f >/dev/null; echo $?; cat out/f; look",
        ) else {
            return;
        };
        assert_eq!(lines(&output), ["0", "x", "./.wh.f "], "{}", output.stderr);
    }
}
mod mounts {
    use super::*;

    #[test]
    fn a_kill_before_the_refresh_is_made_good_by_the_next_run() {
        if !has_strace() {
            return skip("strace is not installed");
        }
        let Some(output) = live::imitation(
            "echo x > br1/f; touch br0/.wh.f; imitate empty
             strace -o /dev/null -e trace=fspick -e inject=fspick:signal=KILL:when=2 $LAYERCTL restore $H/mnt/f; look
             strace -o trace/t -e trace=fsconfig $LAYERCTL restore $H/mnt/f >/dev/null; grep -c RECONFIGURE trace/t",
        ) else {
            return;
        };
        assert_eq!(output.text(), "\n1\n", "{}", output.stderr);
    }

    #[test]
    fn a_mount_point_that_something_else_covers_is_not_taken_for_the_union() {
        for strategy in ["copy", "unhide"] {
            let Some(output) = live::imitation(&format!(
                "echo x > br1/f; touch br0/.wh.f; imitate empty; mount -t tmpfs other mnt
                 echo \"34 33 0:30 / $H/mnt rw,relatime - tmpfs other rw\" >> /proc/self/mountinfo
                 restore --strategy {strategy} si_abc123:/f >/dev/null; echo $?; look; ls -A mnt"
            )) else {
                return;
            };
            assert_eq!(
                output.text(),
                "2\n./.wh.f \n",
                "{strategy}: {}",
                output.stderr
            );
        }
    }

    /// The same directory may be the writable branch of two mounts (FACTS-aufs 4.11): both have
    /// cached what was there.
    #[test]
    fn every_union_that_has_the_branch_is_refreshed() {
        if !has_strace() {
            return skip("strace is not installed");
        }
        let Some(output) = live::imitation(
            "mkdir mnt2; echo x > br1/f; touch br0/.wh.f; imitate br1; mount --bind mnt mnt2
             mkdir /sys/fs/aufs/si_def456; cp /sys/fs/aufs/si_abc123/* /sys/fs/aufs/si_def456/
             echo \"35 15 0:31 / $H/mnt2 rw,relatime - aufs none rw,si=def456\" >> /proc/self/mountinfo
             strace -o trace/t -e trace=fspick,unlinkat $LAYERCTL restore si_abc123:/f > /dev/null; echo $?; sed 's/,.*//' trace/t | grep -v '^+'",
        ) else {
            return;
        };
        let lines: Vec<&str> = output.text().lines().collect();
        let unlink = lines
            .iter()
            .position(|line| line.starts_with("unlinkat"))
            .expect("the mark is removed");
        // Each by a descriptor of its own.
        let refreshed = lines[unlink..]
            .iter()
            .filter(|line| line.starts_with("fspick"));
        let mounts: std::collections::BTreeSet<&&str> = refreshed.collect();
        assert_eq!(mounts.len(), 2, "{lines:?} {}", output.stderr);
    }
}

mod the_plan {
    use super::*;

    fn past_a_layer() -> Union {
        let union = Union::usual();
        union
            .file("low/e/sub/f", "content")
            .file("low/e/sub/g", "g")
            .mark("mid/e/sub/.wh.f");
        union
    }

    #[test]
    fn names_every_directory_that_will_be_made() {
        let union = past_a_layer();
        let row = union.restore(&["-n"], "/e/sub/f").exits(0).row();
        let paths: Vec<Vec<u8>> = steps(&row).into_iter().map(|(_, path, _)| path).collect();
        for made in ["up/e", "up/e/sub", "up/e/sub/f"] {
            let made = union.at(made).into_os_string();
            assert!(
                paths.iter().any(|path| path == made.as_bytes()),
                "{made:?}: {row}"
            );
        }
    }

    #[test]
    fn takes_the_directories_back_that_it_made() {
        let union = past_a_layer();
        let before = union.disk();
        let row = union.restore(&[], "/e/sub/f").exits(0).row();
        take_back(&row);
        assert_same(&settled(before), &settled(union.disk()));
    }

    /// Writing into a copied host needs leave, whatever the option is called.
    #[test]
    fn copies_nothing_out_into_a_copied_host_unasked() {
        let host = Host::empty();
        host.file("/up/.wh.f", "").file("/low/f", "f").dir("/out");
        let arguments = ["restore", "--in", "br:/up=rw:/low", "/f", "--to"];
        let arguments = arguments.iter().map(OsStr::new);
        let out = host.at("/out");
        let output = host.ask(arguments.chain([out.as_os_str()]));
        assert!(!out.join("f").exists());
        output.exits(2).says("--write");
    }

    /// Whether exactly one union fits cannot be told while another cannot be read.
    #[test]
    fn is_not_made_while_a_union_that_might_be_meant_cannot_be_read() {
        let host = Host::empty();
        for number in ["1", "2"] {
            let (up, low) = (format!("/u{number}"), format!("/l{number}"));
            host.file(format!("{up}/.wh.f"), "")
                .file(format!("{low}/f"), "f");
            let branches = [(up.as_bytes(), "rw"), (low.as_bytes(), "ro+wh")];
            host.union(
                &format!("abc{number}"),
                &[(&format!("/mnt/{number}"), "/")],
                &branches,
            );
        }
        fs::rename(host.at("/u1"), host.at("/elsewhere")).expect("ours");
        let output = host.ask(["restore", "--write", "/f"]);
        assert!(
            host.at("/u2/.wh.f").exists(),
            "it was restored all the same"
        );
        output.exits(2);
    }
}
