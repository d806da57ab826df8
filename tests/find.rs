//! `find`: what every stack by itself would show, found in one walk.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use crate::lab::host::{Host, spelled};
use crate::lab::needs;
use crate::lab::run::{self, Output, text, texts};
use crate::lab::union::Union;

fn ask(words: &[&OsStr]) -> Output {
    let mut command = run::command();
    run::run(command.args(["--format", "jsonl"]).args(words))
}

fn find(stacks: &[OsString], options: &[&str]) -> Output {
    let mut words: Vec<&OsStr> = vec!["find".as_ref()];
    words.extend(stacks.iter().map(OsString::as_os_str));
    words.extend(options.iter().map(OsStr::new));
    ask(&words)
}

fn paths(output: &Output) -> Vec<String> {
    texts(&output.rows(), "path")
        .into_iter()
        .map(str::to_owned)
        .collect()
}

/// Of a target, a path: its type and the branch that has it.
type Shown = BTreeSet<(String, String, String, u64)>;

fn shown(rows: &[Value], target: Option<&OsStr>) -> Shown {
    let of = |row: &Value| {
        let target = target.map_or_else(
            || text(row, "target").to_owned(),
            |target| target.display().to_string(),
        );
        let branch = row["branch"].as_u64().expect("a number");
        (
            target,
            text(row, "path").to_owned(),
            text(row, "type").to_owned(),
            branch,
        )
    };
    rows.iter()
        .filter(|row| row.get("error").is_none())
        .map(of)
        .collect()
}

/// A small generator, the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(end).expect("small")).expect("small")
    }
}

/// Something in a branch that need not be there.
fn grow(union: &Union, branch: &str, random: &mut Random) {
    for _ in 0..random.below(12) {
        let mut at = PathBuf::from(branch);
        for _ in 0..=random.below(3) {
            at.push(format!("n{}", random.below(3)));
        }
        let name = at.file_name().expect("a name").display().to_string();
        let is_there = |path: &std::path::Path| fs::symlink_metadata(union.at(path)).is_ok();
        let is_marked = |path: &std::path::Path| {
            let name = path.file_name().unwrap_or_default().display().to_string();
            is_there(&path.with_file_name(format!(".wh.{name}")))
        };
        let is_free = at
            .ancestors()
            .skip(1)
            .all(|of| !is_there(of) || union.at(of).is_dir());
        if !is_free || is_there(&at) || at.ancestors().any(is_marked) {
            continue;
        }
        match random.below(6) {
            0..=2 => union.file(&at, ""),
            3 => union.link(&at, "n0"),
            4 => union.file(at.with_file_name(format!(".wh.{name}")), ""),
            _ => union.dir(&at).file(at.join(".wh..wh..opq"), ""),
        };
    }
}

#[apply(test)]
fn every_view_has_what_its_own_listing_has() {
    needs::time();
    let names = ["u1", "u2", "u3", "t1", "t2", "m", "low"];
    let all: [&[&str]; 6] = [
        &["u1", "t1", "m", "low"],
        &["u2", "t1", "m", "low"],
        &["t1", "m", "low"],
        &["u3", "t2", "low"],
        &["t2", "m"],
        &["u1", "t1", "m", "low"],
    ];
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    let mut seen = 0;
    for round in 0..40 {
        let branches: Vec<(&'static str, &'static str)> =
            names.map(|name| (name, "ro+wh")).to_vec();
        let union = Union::of(&branches);
        for name in names {
            grow(&union, name, &mut random);
        }
        let count = 1 + random.below(all.len());
        let stacks: Vec<OsString> = all[..count]
            .iter()
            .map(|names| {
                let paths: Vec<PathBuf> = names.iter().map(|name| union.at(name)).collect();
                let branches: Vec<_> = paths.iter().map(|path| (path.as_path(), "ro+wh")).collect();
                spelled(&branches)
            })
            .collect();
        let mut expected = Shown::new();
        for stack in &stacks {
            let listed = ask(&[
                "ls".as_ref(),
                "-R".as_ref(),
                "--in".as_ref(),
                stack,
                "/".as_ref(),
            ]);
            expected.extend(shown(&listed.rows(), Some(stack)));
        }
        let output = find(&stacks, &["--", "*"]);
        let found = shown(&output.rows(), None);
        assert_eq!(found, expected, "{round} {}", output.stderr);
        seen += found.len();
        let mut one = run::command();
        one.args(["--threads", "1", "--format", "jsonl", "find"])
            .args(&stacks)
            .args(["--", "*"]);
        assert!(
            run::run(&mut one).stdout == output.stdout,
            "the order is one"
        );
        // Whatever branches have is shown, shadowed or deleted, once.
        let rows = find(&stacks[..1], &["--state", "all", "-t", "fl"]).rows();
        let of_branch = |row: &Value| (text(row, "path").to_owned(), row["branch"].as_u64());
        let versions: BTreeSet<_> = rows.iter().map(of_branch).collect();
        assert_eq!(versions.len(), rows.len(), "{round} {rows:#?}");
        for (number, name) in all[0].iter().enumerate() {
            for entry in walkdir::WalkDir::new(union.at(name)).min_depth(1) {
                let entry = entry.expect("our own");
                let is_mark = entry.file_name().to_string_lossy().starts_with(".wh.");
                if is_mark || entry.file_type().is_dir() {
                    continue;
                }
                let path = entry.path().strip_prefix(union.at(name)).expect("below it");
                let version = (format!("/{}", path.display()), Some(number as u64));
                assert!(versions.contains(&version), "{round} {version:?} {rows:#?}");
            }
        }
    }
    assert!(seen > 500, "{seen}");
}

#[apply(test)]
fn patterns_and_tests() {
    let union = Union::usual();
    union
        .file("low/etc/a.conf", "12345")
        .file("low/etc/apt/B.CONF", "")
        .file("up/usr/bin/tool", "x")
        .mode("up/usr/bin/tool", 0o4755)
        .link("low/etc/link", "a.conf")
        .file("mid/etc/a.conf", "123")
        .mark("up/etc/.wh.a.conf")
        .time("low/etc/apt/B.CONF", 4_000_000_000);
    let stack = [union.spelled()];
    let hash = "03ac674216f3e15c761ee1a5e255f067953623c8b388b4459e13f978d7c846f4";
    union.file("low/etc/hashed", "1234");
    let cases: [(&[&str], &[&str]); 19] = [
        (&["--", "*.conf"], &[]),
        (&["-i", "--", "*.conf"], &["/etc/apt/B.CONF"]),
        (
            &["--state", "deleted", "--", "*.conf"],
            &["/etc/a.conf", "/etc/a.conf"],
        ),
        (&["--", "/etc/*"], &["/etc/apt", "/etc/hashed", "/etc/link"]),
        (
            &["--", "/etc/**"],
            &["/etc/apt", "/etc/apt/B.CONF", "/etc/hashed", "/etc/link"],
        ),
        (&["--regex", "--", "^b[a-z]n$"], &["/usr/bin"]),
        (&["--fixed", "--", "oo"], &["/usr/bin/tool"]),
        (&["-t", "l"], &["/etc/link"]),
        (&["-t", "x"], &["/usr/bin/tool"]),
        (
            &["-t", "f", "--size", "+1"],
            &["/etc/hashed", "/usr/bin/tool"],
        ),
        (&["--size", "-0"], &["/etc/apt/B.CONF"]),
        (&["--size", "4"], &["/etc/hashed"]),
        (&["--perm", "/6000"], &["/usr/bin/tool"]),
        (&["--perm", "4755"], &["/usr/bin/tool"]),
        (&["--newer", "2090-01-01"], &["/etc/apt/B.CONF"]),
        (&["--sha256", hash], &["/etc/hashed"]),
        (&["--changed", "-t", "f"], &["/usr/bin/tool"]),
        (&["-d", "1"], &["/etc", "/usr"]),
        (&["--owner", "4242"], &[]),
    ];
    for (options, expected) in cases {
        let output = find(&stack, options).exits(i32::from(expected.is_empty()));
        assert_eq!(paths(&output), expected, "{options:?}");
    }
    for wrong in [
        &["-t", "q"][..],
        &["--regex", "--", "("],
        &["--size", "x"],
        &["--sha256", "ab"],
    ] {
        find(&stack, wrong).exits(2);
    }
}

#[apply(test)]
fn within_a_union_every_argument_is_a_path() {
    let union = Union::usual();
    union
        .file("low/etc/a.conf", "")
        .file("mid/usr/a.conf", "")
        .file("up/a.conf", "")
        .file("low/odd@1:/x/a.conf", "");
    let stack = union.spelled();
    let within = |words: &[&str]| {
        let begin: [&OsStr; 3] = ["find".as_ref(), "--in".as_ref(), &stack];
        let words: Vec<&OsStr> = begin
            .into_iter()
            .chain(words.iter().map(OsStr::new))
            .collect();
        paths(&ask(&words))
    };
    let all = ["/a.conf", "/etc/a.conf", "/odd@1:/x/a.conf", "/usr/a.conf"];
    assert_eq!(within(&["--", "*.conf"]), all);
    assert_eq!(within(&["/etc", "/usr/", "--", "*.conf"]), [all[1], all[3]]);
    assert_eq!(within(&["/odd@1:", "-t", "f"]), [all[2]]);
    // Nothing is told twice.
    assert_eq!(within(&["/", "/etc", "--", "*.conf"]), all);
    assert_eq!(within(&["/nothing"]), [""; 0]);
}

#[apply(test)]
fn every_container_and_image_is_asked_and_what_they_share_is_one_row() {
    let host = Host::fixture("blog-host");
    let rows = host.jsonl(["find", "itsdangerous.py"]).exits(0).rows();
    assert_eq!(texts(&rows, "target"), ["docker:training/webapp:latest"]);
    let rows = host
        .jsonl(["find", "--state", "all", "itsdangerous.py"])
        .exits(0)
        .rows();
    let states: Vec<(&str, &str)> = rows
        .iter()
        .map(|row| (text(row, "target"), text(row, "state")))
        .collect();
    assert!(
        states.contains(&("docker:determined_sammet", "deleted")),
        "{states:?}"
    );
    let folded = host.ask(["find", "-t", "d", "--", "*"]).exits(0);
    let all = host.jsonl(["find", "-t", "d", "--", "*"]).exits(0).rows();
    assert!(folded.text().contains("  (and "), "{}", folded.text());
    assert!(folded.text().lines().count() < all.len());
    let listed = host.ask(["-v", "find", "-t", "d", "--", "*"]).exits(0);
    assert_eq!(listed.text().lines().count(), all.len());
    let named = host
        .jsonl(["find", "training/webapp", "--", "sources.list"])
        .exits(0)
        .rows();
    assert_eq!(texts(&named, "target"), ["docker:training/webapp:latest"]);
    // A container's name is no pattern, unless it is said to be one.
    assert!(
        host.jsonl(["find", "determined_sammet"])
            .exits(0)
            .rows()
            .len()
            > 10
    );
    host.ask(["find", "--", "determined_sammet"]).exits(1);
}

/// How many system calls of one kind it takes to ask so many containers of one image.
fn calls(union: &Union, containers: usize) -> usize {
    let names: Vec<String> = (0..containers)
        .map(|number| format!("up{number}"))
        .collect();
    let stacks = names.iter().map(|name| {
        let (up, image) = (union.at(name), union.at("image"));
        spelled(&[(&up, "rw"), (&image, "ro+wh")])
    });
    let trace = union.at("trace");
    let mut command = std::process::Command::new("strace");
    command
        .args(["-f", "-e", "trace=getdents64", "-o"])
        .arg(&trace)
        .arg(env!("CARGO_BIN_EXE_layerctl"))
        .arg("find")
        .args(stacks)
        .args(["--", "f*"])
        .env_clear();
    let output = command.output().expect("strace is there");
    assert_eq!(output.status.code(), Some(0));
    let trace = fs::read_to_string(trace).expect("our own");
    trace
        .lines()
        .filter(|line| line.contains("getdents64("))
        .count()
}

#[apply(test)]
fn a_layer_is_read_once_however_many_stand_on_it() {
    crate::lab::needs::strace();
    let union = Union::of(&[("image", "ro")]);
    for directory in 0..200 {
        union.file(format!("image/d{}/e{directory}/f", directory / 20), "");
    }
    for container in 0..40 {
        union.file(format!("up{container}/d3/own{container}"), "");
    }
    let (one, many) = (calls(&union, 1), calls(&union, 40));
    // Each container has three directories of its own.
    assert!(one > 200 && many < one + 40 * 3 * 2 + 10, "{one} {many}");
}
