//! `restore`: what comes back, what does not, and what is never touched.

use std::ffi::{CString, OsStr};
use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::fs::{FileType, makedev};
use serde_json::Value;

use crate::lab::held::{self, Held, injected, killed_at};
use crate::lab::host::Host;
use crate::lab::run::{self, Output, bytes, run, text};
use crate::lab::union::{Detail, Facts, Union, assert_same, difference, fact, facts};
use crate::lab::{in_part, is_root, needs, skip};

mod copy;
mod copy_out;
mod escapes;
mod failures;
mod host_copies;
mod kills;
mod live;
mod missing;
mod mounts;
mod obstacles;
mod plans;
mod refusals;
mod revert;
mod the_plan;
mod unhide;

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

#[apply(test)]
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

/// Runs a shell script as root in a mount namespace of its own; `$1` is an empty directory.
fn in_own_mounts(script: &str) -> Output {
    needs::mounts();
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
    run(&mut command)
}
