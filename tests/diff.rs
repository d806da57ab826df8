//! `diff`: two views, compared as somebody would who had both mounted.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::PathBuf;

use rustix::fs::{FileType, makedev};
use serde_json::Value;

use crate::lab::host::{Host, spelled};
use crate::lab::needs;
use crate::lab::run::{self, Output, text, texts};
use crate::lab::union::Union;

fn ask(words: &[&OsStr]) -> Output {
    let mut command = run::command();
    run::run(command.args(words))
}

fn diff(options: &[&str], a: &OsStr, b: &OsStr) -> Output {
    let mut words: Vec<&OsStr> = vec!["--format".as_ref(), "jsonl".as_ref(), "diff".as_ref()];
    words.extend(options.iter().map(OsStr::new));
    words.extend(["--".as_ref(), a, b]);
    ask(&words)
}

/// The letters and paths.
fn lines(output: &Output) -> Vec<String> {
    let rows = output.rows();
    let line = |row: &Value| {
        let letter = text(row, "change").chars().next().expect("a word");
        format!("{} {}", letter.to_ascii_uppercase(), text(row, "path"))
    };
    rows.iter().map(line).collect()
}

#[apply(test)]
fn of_one_it_is_changes_line_for_line() {
    for (host, targets) in [
        (
            Host::fixture("blog-host"),
            &["determined_sammet", "old_shell", "training/webapp"][..],
        ),
        (
            Host::fixture("blog-host"),
            &["determined_sammet@2", "busybox"][..],
        ),
    ] {
        for target in targets {
            let changes = host.ask(["changes", target]).exits(0);
            let status = i32::from(!changes.stdout.is_empty());
            let diff = host.ask(["diff", target]).exits(status);
            assert_eq!(diff.text(), changes.text(), "{target}");
            let long = host.jsonl(["diff", "--long", target]).exits(status);
            let paths = long.rows();
            let expected = host.jsonl(["changes", target]).rows();
            for key in ["path", "type"] {
                assert_eq!(texts(&paths, key), texts(&expected, key), "{target}");
            }
        }
    }
}

#[apply(test)]
fn what_differs_is_told_and_nothing_else() {
    let union = Union::of(&[("a", "ro"), ("b", "ro")]);
    for side in ["a", "b"] {
        union
            .file(format!("{side}/same"), "same")
            .file(format!("{side}/content"), side)
            .file(format!("{side}/mode"), "")
            .file(format!("{side}/time"), "")
            .file(format!("{side}/attribute"), "")
            .link(format!("{side}/link"), side)
            .file(format!("{side}/d/deep/same"), "")
            .file(
                format!("{side}/d/deep/size"),
                side.repeat(side.len() + usize::from(side == "b")),
            );
    }
    union
        .file("a/type/x", "")
        .file("b/type", "")
        .file("a/only/x", "")
        .file("b/new/x", "")
        .time_all(1_000_000_000)
        .time("b/time", 7)
        .mode("b/mode", 0o600)
        .xattr("b/attribute", "user.x", b"y");
    let (a, b) = (union.at("a"), union.at("b"));
    let (a, b) = (spelled(&[(&a, "ro")]), spelled(&[(&b, "ro")]));
    let output = diff(&["--long"], &a, &b).exits(1);
    let differs: BTreeMap<String, Vec<String>> = output
        .rows()
        .iter()
        .map(|row| {
            let words = row["differs"].as_array().cloned().unwrap_or_default();
            let words = words
                .iter()
                .map(|word| word.as_str().expect("a word").to_owned());
            (text(row, "path").to_owned(), words.collect())
        })
        .collect();
    let expected: [(&str, &[&str]); 9] = [
        ("/attribute", &["xattr"]),
        ("/content", &["content"]),
        ("/d/deep/size", &["size", "content"]),
        ("/link", &["link"]),
        ("/mode", &["mode"]),
        ("/new", &[]),
        ("/new/x", &[]),
        ("/only", &[]),
        ("/type", &["type"]),
    ];
    let expected: BTreeMap<String, Vec<String>> = expected
        .into_iter()
        .map(|(path, words)| {
            (
                path.to_owned(),
                words.iter().map(|&word| word.to_owned()).collect(),
            )
        })
        .collect();
    assert_eq!(differs, expected);
    let timed = lines(&diff(&["--times"], &a, &b).exits(1));
    assert!(timed.contains(&"C /time".to_owned()), "{timed:?}");
    let unread = lines(&diff(&["--no-content"], &a, &b).exits(1));
    assert!(!unread.contains(&"C /content".to_owned()), "{unread:?}");
    assert!(unread.contains(&"C /d/deep/size".to_owned()), "{unread:?}");
    diff(&[], &a, &a).exits(0);
    diff(&[], &a, OsStr::new("br:/no/such")).exits(2);
}

#[apply(test)]
fn texts_are_compared_line_by_line_and_what_is_none_is_named() {
    let union = Union::usual();
    union
        .file("low/text", "one\ntwo\n")
        .file("up/text", "one\n2\n")
        .file("low/binary", b"\0one")
        .file("up/binary", b"\0two")
        .file("up/large", "x".repeat((1 << 20) + 1));
    let stack = union.spelled();
    let mut below = stack.clone();
    below.push("@1");
    let words = |options: &[&str]| {
        let mut command = run::command();
        command
            .arg("diff")
            .args(options)
            .arg("--")
            .arg(&below)
            .arg(&stack);
        run::run(&mut command).exits(1)
    };
    let patch = words(&["-p"]);
    let name = |target: &OsString, path: &str| format!("{}:{path}", target.display());
    let expected = format!(
        "Binary files {} and {} differ\nBinary files /dev/null and {} differ\n--- {}\n+++ {}\n@@ -1,2 +1,2 @@\n one\n-two\n+2\n",
        name(&below, "/binary"),
        name(&stack, "/binary"),
        name(&stack, "/large"),
        name(&below, "/text"),
        name(&stack, "/text"),
    );
    assert_eq!(patch.text(), expected);
    let all = words(&["-p", "--all-text"]);
    assert!(all.text().contains(&format!("+{}", "x".repeat(1 << 20))));
    let stat = words(&["--stat"]);
    assert!(
        stat.text()
            .ends_with("3 paths differ, 1.05MB added, 8B removed\n"),
        "{}",
        stat.text()
    );
}

#[apply(test)]
fn another_host_is_the_other_side_s() {
    let (a, b) = (Host::copy_of("blog-host"), Host::copy_of("blog-host"));
    let own = b.branches_of("determined_sammet").remove(0);
    let own = String::from_utf8(own).expect("text");
    b.file(format!("{own}/etc/added"), "");
    let root_b = b.root.as_os_str();
    let target = OsStr::new("determined_sammet");
    let words = ["diff".as_ref(), "--root-b".as_ref(), root_b, target, target];
    let output = a.jsonl(words).exits(1);
    assert_eq!(lines(&output), ["A /etc/added"]);
    let words = [
        "diff".as_ref(),
        "--root-b".as_ref(),
        a.root.as_os_str(),
        target,
        target,
    ];
    a.jsonl(words).exits(0);
}

/// A small generator, the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

/// Something in a branch that need not be there.
fn grow(union: &Union, branch: &str, random: &mut Random) {
    for _ in 0..random.below(9) {
        let depth = random.below(3) + 1;
        let names: Vec<String> = (0..depth)
            .map(|_| format!("n{}", random.below(3)))
            .collect();
        let at = format!("{branch}/{}", names.join("/"));
        let parents: Vec<PathBuf> = PathBuf::from(&at)
            .ancestors()
            .skip(1)
            .map(Into::into)
            .collect();
        let is_free = parents.iter().all(|path| {
            let at = union.at(path);
            at.is_dir() || fs::symlink_metadata(at).is_err()
        });
        if !is_free || fs::symlink_metadata(union.at(&at)).is_ok() {
            continue;
        }
        let (parent, name) = at.rsplit_once('/').expect("a path");
        // A union refuses a name beside its own whiteout.
        let is_deleted = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().display().to_string();
            union
                .at(path.with_file_name(format!(".wh.{name}")))
                .exists()
        };
        if parents.iter().any(is_deleted) || is_deleted(&PathBuf::from(&at)) {
            continue;
        }
        match random.below(7) {
            0..=2 => union.file(
                &at,
                "x".repeat(usize::try_from(random.below(3)).expect("small")),
            ),
            3 => union.dir(&at),
            4 => union.link(&at, format!("{}", random.below(2))),
            5 => union.file(format!("{parent}/.wh.{name}"), ""),
            _ => union.dir(&at).file(format!("{at}/.wh..wh..opq"), ""),
        };
    }
}

/// What a view shows: of each path all that two views can differ in.
fn view(stack: &OsStr, union: &Union, branches: &[&str]) -> BTreeMap<String, String> {
    let words = ["--format", "jsonl", "ls", "-R", "-l", "--in"].map(OsStr::new);
    let words: Vec<&OsStr> = words.into_iter().chain([stack, "/".as_ref()]).collect();
    let rows = ask(&words).rows().into_iter();
    let rows = rows.filter(|row| row.get("error").is_none());
    rows.map(|row| {
        let path = text(&row, "path").to_owned();
        let branch = usize::try_from(row["branch"].as_u64().expect("a number")).expect("small");
        let at = union.at(format!("{}{path}", branches[branch]));
        let content = match text(&row, "type") {
            "file" => fs::read_to_string(at).expect("a file"),
            "symlink" => fs::read_link(at).expect("a link").display().to_string(),
            _ => String::new(),
        };
        (path, format!("{} {} {content}", row["type"], row["mode"]))
    })
    .collect()
}

#[apply(test)]
fn it_is_what_a_comparison_of_both_views_finds() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut differing = 0;
    for round in 0..60 {
        let union = Union::of(&[("a", "rw"), ("b", "rw"), ("mid", "ro"), ("low", "ro")]);
        for branch in ["a", "b", "mid", "low"] {
            grow(&union, branch, &mut random);
        }
        let stack = |names: &[&'static str]| {
            let paths: Vec<PathBuf> = names.iter().map(|name| union.at(name)).collect();
            let branches: Vec<_> = paths.iter().map(|path| (path.as_path(), "ro+wh")).collect();
            spelled(&branches)
        };
        let sides: [&[&'static str]; 2] = match round % 4 {
            0 => [&["mid", "low"], &["a", "mid", "low"]],
            1 => [&["a", "low"], &["b", "mid"]],
            2 => [&["a", "b", "low"], &["low"]],
            _ => [&["a", "mid", "low"], &["b", "mid", "low"]],
        };
        let [old, new] = sides.map(|side| view(&stack(side), &union, side));
        let mut expected: Vec<String> = Vec::new();
        for path in old
            .keys()
            .chain(new.keys().filter(|path| !old.contains_key(*path)))
        {
            let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
            match (old.get(path), new.get(path)) {
                (None, Some(_)) => expected.push(format!("A {path}")),
                (Some(was), Some(is)) if was != is => expected.push(format!("C {path}")),
                // Of a tree that is gone its topmost directory is told.
                (Some(_), None)
                    if parent.is_empty()
                        || new
                            .get(parent)
                            .is_some_and(|of| of.starts_with("\"directory")) =>
                {
                    expected.push(format!("D {path}"));
                }
                _ => {}
            }
        }
        expected.sort();
        differing += expected.len();
        let output = diff(&[], &stack(sides[0]), &stack(sides[1]));
        let status = Some(i32::from(!expected.is_empty()));
        let mut found = lines(&output);
        found.sort();
        assert_eq!(
            (found, output.status),
            (expected, status),
            "{round} {}",
            output.stderr
        );
    }
    assert!(differing > 200, "{differing}");
}

#[apply(test)]
fn what_is_on_no_disk_is_not_read() {
    let union = Union::of(&[("a", "ro"), ("b", "ro")]);
    // So much takes minutes to be read, and a layer may have files that take years.
    for (side, last) in [("a", b"x"), ("b", b"y")] {
        for name in ["same", "differs"] {
            let at = union.at(format!("{side}/{name}"));
            let file = fs::File::create(at).expect("our own");
            file.set_len(1 << 40).expect("our own");
            let at = |content: &[u8], offset| {
                std::os::unix::fs::FileExt::write_all_at(&file, content, offset).expect("our own");
            };
            at(b"middle", 1 << 39);
            if name == "differs" {
                at(last, (1 << 40) - 1);
            }
        }
    }
    let (a, b) = (union.at("a"), union.at("b"));
    let (a, b) = (spelled(&[(&a, "ro")]), spelled(&[(&b, "ro")]));
    assert_eq!(lines(&diff(&[], &a, &b).exits(1)), ["C /differs"]);
    let patch = diff(&["-p", "--all-text"], &a, &b).exits(1).row();
    assert!(
        text(&patch, "patch").starts_with("Binary files "),
        "{patch}"
    );
    let stat = diff(&["--stat"], &a, &b).exits(1).row();
    assert_eq!(stat["path"], "/differs");
}

/// Zeros are zeros, whether or not they are on disk.
#[apply(test)]
fn where_a_file_has_holes_is_no_difference() {
    use std::os::unix::fs::FileExt;
    const MIB: u64 = 1 << 20;
    let union = Union::of(&[("a", "ro"), ("b", "ro")]);
    for side in ["a", "b"] {
        for name in ["same", "differs"] {
            let file = fs::File::create(union.at(format!("{side}/{name}"))).expect("our own");
            file.set_len(8 * MIB).expect("our own");
            if side == "a" {
                file.write_all_at(&[0; 4096], MIB).expect("our own");
            }
            let last = if name == "same" { "x" } else { side };
            file.write_all_at(last.as_bytes(), 4 * MIB).expect("ours");
        }
    }
    let (a, b) = (union.at("a"), union.at("b"));
    let (a, b) = (spelled(&[(&a, "ro")]), spelled(&[(&b, "ro")]));
    assert_eq!(lines(&diff(&[], &a, &b).exits(1)), ["C /differs"]);
    assert_eq!(lines(&diff(&[], &b, &a).exits(1)), ["C /differs"]);
}

#[apply(test)]
fn devices_differ_in_what_they_are_devices_of() {
    needs::root("to make devices");
    let union = Union::of(&[("a", "ro"), ("b", "ro")]);
    for (side, minor) in [("a", 1), ("b", 2)] {
        union
            .node(
                &format!("{side}/char"),
                FileType::CharacterDevice,
                makedev(9, minor),
            )
            .node(
                &format!("{side}/same"),
                FileType::CharacterDevice,
                makedev(9, 9),
            )
            .node(
                &format!("{side}/block"),
                FileType::BlockDevice,
                makedev(9, minor),
            )
            .node(&format!("{side}/fifo"), FileType::Fifo, 0);
    }
    let (a, b) = (union.at("a"), union.at("b"));
    let (a, b) = (spelled(&[(&a, "ro")]), spelled(&[(&b, "ro")]));
    assert_eq!(lines(&diff(&[], &a, &b).exits(1)), ["C /block", "C /char"]);
}

/// What two views do not share is compared, however little that is beside what they do.
#[apply(test)]
fn every_branch_that_is_not_shared_counts() {
    let names = ["a", "b", "c", "d", "e", "low", "lowest"];
    let branches: Vec<(&'static str, &'static str)> =
        names.iter().map(|&name| (name, "ro+wh")).collect();
    let union = Union::of(&branches);
    for name in names {
        union.file(format!("{name}/of_{name}"), "");
        union.file(format!("{name}/d/of_{name}"), "");
    }
    union.mark("e/.wh.of_low").mark("e/d/.wh.of_lowest");
    let stack = |names: &[&str]| {
        let paths: Vec<PathBuf> = names.iter().map(|name| union.at(name)).collect();
        let branches: Vec<_> = paths.iter().map(|path| (path.as_path(), "ro+wh")).collect();
        spelled(&branches)
    };
    for shared in 1..=2 {
        let whole = stack(&names);
        let rest = stack(&names[names.len() - shared..]);
        let mut expected: Vec<String> = Vec::new();
        let own = &names[..names.len() - shared];
        for directory in ["/", "/d/"] {
            expected.extend(own.iter().map(|name| format!("A {directory}of_{name}")));
        }
        expected.push("D /d/of_lowest".to_owned());
        if shared == 2 {
            expected.push("D /of_low".to_owned());
        }
        expected.retain(|line| shared == 2 || line != "A /of_low");
        expected.sort_by(|one, other| one[2..].cmp(&other[2..]));
        let mut found = lines(&diff(&[], &rest, &whole).exits(1));
        found.sort_by(|one, other| one[2..].cmp(&other[2..]));
        assert_eq!(found, expected, "{shared}");
    }
}
