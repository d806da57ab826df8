//! `cp` and `export` killed before every one of their system calls, whatever it does: under a final name
//! there is all of it or nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command;

use crate::lab::held::{killed_at, traced};
use crate::lab::union::{Detail, Facts, Union, fact, facts};
use crate::lab::{needs, of_many, run};

/// What is killed: a command in a union made anew, and what has to be so then.
struct Case<'c> {
    what: &'c str,
    make: &'c dyn Fn() -> Union,
    words: &'c [&'c str],
    look: &'c dyn Fn(&Union, &str),
}

impl Case<'_> {
    fn command(&self, union: &Union) -> Command {
        let mut command = run::command();
        let words = self.words.iter();
        for word in words {
            match *word {
                "UNION" => command.arg(union.spelled()),
                word => command.arg(word),
            };
        }
        // What it keeps elsewhere is seen, too.
        command.env("TMPDIR", union.at("tmp"));
        command.current_dir(union.home());
        command
    }

    /// Every call that it makes, by name and its number among those of that name.
    fn calls(&self) -> Vec<(String, usize)> {
        let union = (self.make)();
        let log = tempfile::NamedTempFile::new().expect("a temporary file");
        let mut command = traced(&["-qq"], log.path(), &self.command(&union));
        let output = command.output().expect("strace is installed");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {said}", self.what);
        let log = fs::read_to_string(log.path()).expect("what strace wrote");
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        let calls = log.lines().filter_map(|line| {
            // `PID NAME(...) = ...`
            let name = line.split_once(' ')?.1.trim_start().split_once('(')?.0;
            let is_name = name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
            let count = counts.entry(name).or_default();
            *count += 1;
            (is_name && !name.is_empty()).then(|| (name.to_owned(), *count))
        });
        calls.collect()
    }

    fn any_call(&self) {
        let calls = self.calls();
        let all = u64::try_from(calls.len()).expect("a count");
        let what = format!("moments at which {} is killed", self.what);
        let tried = of_many(all, 10, &what);
        let step = usize::try_from(all / tried.max(1)).expect("a step").max(1);
        let mut killed = 0;
        for (name, number) in calls.iter().rev().step_by(step) {
            let union = (self.make)();
            let output = killed_at(name, *number, &self.command(&union));
            let moment = format!("{}: killed before {name} number {number}", self.what);
            killed += usize::from(!output.status.success());
            (self.look)(&union, &moment);
        }
        // What varies from run to run is little.
        let most = calls.len() / step * 9 / 10;
        assert!(
            killed > 10 && killed >= most,
            "{}: {killed} of {all} by {step}",
            self.what
        );
    }
}

/// Of everything that a copy can have.
fn make() -> Union {
    let union = Union::usual();
    union
        .file("low/d/f", "content")
        .file("mid/d/g/h", "more")
        .hard_link("low/d/f", "low/d/hard")
        .link("low/d/l", "f")
        .xattr("low/d/f", "user.x", b"y")
        .mode("low/d/f", 0o751)
        .file("low/large", vec![7; 300_000])
        .file("low/top", "top")
        .hard_link("low/d/f", "low/same")
        .dir("low/empty")
        .dir("out")
        .dir("tmp")
        .time_all(1_000_000_000);
    union
}

/// What is in a directory, without what was being made: that is hidden, and known by its name.
fn found(at: &Path) -> Facts {
    let paths = facts(at).into_keys();
    let fact = |path: Vec<u8>| {
        let fact = fact(&at.join(OsStr::from_bytes(&path)), Detail::Copied);
        (path, fact)
    };
    let is_passing = |path: &Vec<u8>| {
        path.split(|byte| *byte == b'/')
            .any(|name| name.starts_with(b".layerctl-"))
    };
    paths.filter(|path| !is_passing(path)).map(fact).collect()
}

/// A directory's part below one of its names, with that.
fn below(all: &Facts, name: &[u8]) -> Facts {
    let is_in = |path: &Vec<u8>| {
        path.strip_prefix(name)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
    };
    let all = all.iter().filter(|(path, _)| is_in(path));
    all.map(|(path, fact)| (path.clone(), fact.clone()))
        .collect()
}

fn tops(all: &Facts) -> BTreeSet<Vec<u8>> {
    let first = |path: &Vec<u8>| path.split(|byte| *byte == b'/').next().map(<[u8]>::to_vec);
    all.keys().filter_map(first).collect()
}

/// Kills a command in the usual union at any moment.
fn kill(what: &str, words: &[&str], look: &dyn Fn(&Union, &str)) {
    let make = &make;
    Case {
        what,
        make,
        words,
        look,
    }
    .any_call();
}

/// What a command makes when nobody kills it.
fn whole(words: &[&str], at: &str) -> Facts {
    let union = make();
    let case = Case {
        what: "",
        make: &make,
        words,
        look: &|_, _| {},
    };
    run::run(&mut case.command(&union)).exits(0);
    let whole = found(&union.at(at));
    assert!(whole.len() >= 5, "{words:?}: {whole:#?}");
    whole
}

#[apply(test)]
fn a_tree_is_whole_or_not_there() {
    needs::time();
    needs::strace();
    // Into a directory, as a new one, and the whole view as a new one.
    for (path, to, at) in [
        ("/d", "out", "out"),
        ("/d", "new", "new"),
        ("/", "out/new", "out"),
    ] {
        let words = ["cp", "-a", "--in", "UNION", "--", path, to];
        let whole = whole(&words, at);
        let look = |union: &Union, moment: &str| {
            let at = union.at(at);
            let then = if at.exists() {
                found(&at)
            } else {
                Facts::new()
            };
            assert!(then.is_empty() || then == whole, "{moment}: {then:#?}");
        };
        let what = format!("cp {path} {to}");
        kill(&what, &words, &look);
    }
}

/// A view's root has no name: what is in it comes into a directory that is there name by name, each whole.
#[apply(test)]
fn what_is_in_a_whole_view_comes_name_by_name() {
    needs::time();
    needs::strace();
    for words in [
        &["cp", "-a", "--in", "UNION", "--", "/.", "out"][..],
        &[
            "cp", "-a", "--in", "UNION", "--", "/d/.", "/large", "/top", "out",
        ],
        &[
            "cp", "-a", "--to", "out", "--in", "UNION", "--", "/d", "/large", "/top",
        ],
    ] {
        let whole = whole(words, "out");
        let look = |union: &Union, moment: &str| {
            let then = found(&union.at("out"));
            for name in tops(&then) {
                let (then, whole) = (below(&then, &name), below(&whole, &name));
                assert!(then == whole, "{moment}: {then:#?}");
            }
            let path = union.at("out/large");
            let is_half = fs::metadata(path).is_ok_and(|large| large.len() != 300_000);
            assert!(!is_half, "{moment}");
        };
        let what = words[words.len() - 3..].join(" ");
        kill(&what, words, &look);
    }
}

/// With force each file is what it was or what it is to be.
#[apply(test)]
fn what_is_overwritten_is_the_old_or_the_new() {
    needs::strace();
    let make = || {
        let union = make();
        union
            .file("out/f", "old")
            .file("out/g/h", "old")
            .file("out/g/own", "stays")
            .file("out/large", vec![1; 100_000])
            .time_all(1_000_000_000);
        union
    };
    let words = [
        "cp", "-a", "--force", "--in", "UNION", "--", "/d/.", "/large", "out",
    ];
    let case = |look| Case {
        what: "cp --force",
        make: &make,
        words: &words,
        look,
    };
    let union = make();
    let old = found(&union.at("out"));
    run::run(&mut case(&|_, _| {}).command(&union)).exits(0);
    let new = found(&union.at("out"));
    let look = |union: &Union, moment: &str| {
        let then = found(&union.at("out"));
        for (path, fact) in &then {
            // A directory's own metadata follow what is in it.
            let is_directory = union.at("out").join(OsStr::from_bytes(path)).is_dir();
            let is_known = old.get(path) == Some(fact) || new.get(path) == Some(fact);
            assert!(
                is_known || is_directory,
                "{moment}: {} {fact}",
                path.escape_ascii()
            );
        }
        for path in old.keys() {
            assert!(
                then.contains_key(path),
                "{moment}: {} is lost",
                path.escape_ascii()
            );
        }
    };
    case(&look).any_call();
}

/// A tar file on its way to somebody leaves nothing behind, here or where temporary files are.
#[apply(test)]
fn a_tar_file_to_stdout_leaves_nothing() {
    needs::strace();
    let before = facts(make().home());
    for words in [
        &["cp", "--in", "UNION", "--", "/", "-"][..],
        &["export", "UNION", "-o", "-"],
    ] {
        let look = |union: &Union, moment: &str| {
            let now = facts(union.home());
            let names = |of: &Facts| of.keys().cloned().collect::<Vec<_>>();
            assert!(
                names(&now) == names(&before),
                "{moment}: {:#?}",
                names(&now)
            );
        };
        let what = format!("{} to stdout", words[0]);
        kill(&what, words, &look);
    }
}

/// What is exported is there under its name when it is whole.
#[apply(test)]
fn an_export_is_whole_or_not_there() {
    needs::time();
    needs::strace();
    needs::program("python3", "--version");
    for (words, at) in [
        (
            &["export", "UNION", "-o", "out/files.tar"][..],
            "out/files.tar",
        ),
        (
            &["export", "UNION", "--as", "docker", "-o", "out/image.tar"],
            "out/image.tar",
        ),
        (
            &["export", "UNION", "--as", "oci", "-o", "out/layout"],
            "out/layout",
        ),
    ] {
        let look = |union: &Union, moment: &str| {
            let path = union.at(at);
            if path.is_dir() {
                // The index is written last.
                let names = facts(&path);
                for name in ["index.json", "oci-layout", "blobs/sha256"] {
                    assert!(names.contains_key(name.as_bytes()), "{moment}: no {name}");
                }
                assert_eq!(names.len(), 7, "{moment}: {names:#?}");
            } else if path.exists() {
                let archive = fs::read(&path).expect("ours");
                assert!(
                    archive.ends_with(&[0; 1024]),
                    "{moment}: {} bytes",
                    archive.len()
                );
                let names = crate::lab::archive::read(&archive[..]).len();
                assert!(names >= 6, "{moment}: {names}");
            }
        };
        kill(&words.join(" "), words, &look);
    }
}
