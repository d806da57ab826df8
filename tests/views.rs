//! `TARGET@N`: the view from branch N down.

use std::ffi::{OsStr, OsString};

use crate::lab::host::{Host, directories};
use crate::lab::run::{self, Output, layerctl, text};
use crate::lab::terminal;
use crate::lab::union::Union;

/// The same stack, its name with `end` behind it.
fn spelled(union: &Union, end: &str) -> OsString {
    let mut spelled = union.spelled();
    spelled.push(end);
    spelled
}

fn asked(verb: &str, union: &Union, end: &str, path: &str) -> Output {
    let stack = spelled(union, end);
    layerctl([
        OsStr::new("--format"),
        "jsonl".as_ref(),
        verb.as_ref(),
        "--in".as_ref(),
        &stack,
        "--".as_ref(),
        path.as_ref(),
    ])
}

fn three_versions() -> Union {
    let union = Union::usual();
    union
        .file("up/f", "top")
        .file("mid/f", "middle")
        .file("low/f", "lowest!")
        .mark("up/.wh.gone")
        .file("mid/gone", "was here")
        .mark("mid/.wh.twice")
        .file("low/twice", "older");
    union
}

#[apply(test)]
fn a_view_is_the_union_without_the_branches_above() {
    let union = three_versions();
    for (end, path, branch, size) in [
        ("", "/f", 0, 3),
        ("@0", "/f", 0, 3),
        ("@1", "/f", 0, 6),
        ("@2", "/f", 0, 7),
        ("@1", "/gone", 0, 8),
        ("@2", "/twice", 0, 5),
    ] {
        let row = asked("which", &union, end, path).exits(0).row();
        assert_eq!(row["branch"], branch, "{end} {path}");
        assert_eq!(row["versions"][0]["size"], size, "{end} {path}");
        let target = spelled(&union, if end == "@0" { "" } else { end });
        assert_eq!(text(&row, "target"), target.to_str().expect("our own"));
    }
    for (end, path) in [("", "/gone"), ("@1", "/twice"), ("@2", "/gone")] {
        asked("which", &union, end, path).exits(1);
    }
}

#[apply(test)]
fn a_view_from_no_branch_is_refused() {
    let union = three_versions();
    asked("which", &union, "@3", "/f")
        .exits(2)
        .says("has no branch 3: it has the branches 0 to 2");
}

#[apply(test)]
fn an_engine_s_names_have_views_and_a_digest_is_none() {
    let host = Host::fixture("blog-host");
    let container = host.branches_of("determined_sammet");
    let image = host.branches_of("training/webapp");
    let view = host
        .jsonl(["branches", "determined_sammet@2"])
        .exits(0)
        .row();
    assert_eq!(directories(&view), image, "without its own two branches");
    assert_eq!(text(&view, "target"), "docker:determined_sammet@2");
    assert_eq!(view["mounts"].as_array().map_or(0, Vec::len), 0, "{view}");
    assert_eq!(host.branches_of("docker:determined_sammet@2"), image);
    assert_eq!(host.branches_of("training/webapp@1"), image[1..]);
    assert_eq!(host.branches_of("si_ab487e40195df24f@13"), container[13..]);
    host.ask(["branches", "training/webapp@sha256:12"])
        .exits(2)
        .says("No such image: training/webapp@sha256:12");
}

#[apply(test)]
fn what_is_called_so_is_ambiguous_and_both_can_be_typed() {
    let union = three_versions();
    union.dir("low@1");
    let stack = spelled(&union, "@1");
    // With its permission no directory's name ends there.
    asked("which", &union, "@1", "/f").exits(0);
    let bare = stack.to_str().expect("our own").replace("low=ro+wh", "low");
    let which = |name: &str| layerctl(["--format", "jsonl", "which", "--in", name, "--", "/f"]);
    let said = which(&bare).exits(2).stderr;
    assert!(said.contains("is ambiguous"), "{said}");
    let typed: Vec<&str> = said
        .lines()
        .filter_map(|line| line.trim().split_once("  (")?.0.into())
        .collect();
    assert_eq!(typed.len(), 2, "{said}");
    let sizes = typed.iter().map(|name| which(name).exits(0).row());
    let sizes: Vec<u64> = sizes
        .map(|row| row["versions"][0]["size"].as_u64().expect("a size"))
        .collect();
    assert_eq!(sizes, [3, 6], "the whole, and the view");
}

#[apply(test)]
fn only_the_union_itself_is_restored_to() {
    let union = three_versions();
    let stack = spelled(&union, "@1");
    let before = union.disk();
    let restore = |words: &[&OsStr]| {
        let mut command = run::command();
        command.args(["restore", "--in"]).arg(&stack).args(words);
        run::run(&mut command)
    };
    restore(&["--".as_ref(), "/twice".as_ref()])
        .exits(2)
        .says("which is only looked at");
    assert_eq!(union.disk(), before);
    let out = tempfile::tempdir().expect("a temporary directory");
    let to = [
        OsStr::new("--to"),
        out.path().as_os_str(),
        "/twice".as_ref(),
    ];
    restore(&to).exits(0);
    assert_eq!(
        std::fs::read(out.path().join("twice")).expect("it"),
        b"older"
    );
}

#[apply(test)]
fn which_ends_with_the_command_that_shows_what_is_not_shown() {
    let union = three_versions();
    for (path, end) in [("/f", Some(1)), ("/gone", Some(1)), ("/twice", Some(2))] {
        let words = [
            "which".as_ref(),
            "--in".as_ref(),
            &*union.spelled(),
            path.as_ref(),
        ];
        let (_, shown) = terminal::run(words);
        let command = shown.lines().find(|line| line.starts_with("layerctl cat "));
        let expected = end.map(|from| {
            let view = spelled(&union, &format!("@{from}"));
            format!("layerctl cat --in {} -- {path}", view.display())
        });
        assert_eq!(command, expected.as_deref(), "{shown}");
        // A program that reads the table has no use for it.
        let piped = layerctl(words);
        assert!(!piped.text().contains("layerctl cat"), "{}", piped.text());
    }
    let host = Host::fixture("blog-host");
    let root = host.root.as_os_str();
    let words = ["--root".as_ref(), root, "which".as_ref()];
    let path = OsStr::new("determined_sammet:/etc/apt/sources.list");
    let (_, shown) = terminal::run(words.into_iter().chain([path]));
    let command = "layerctl cat docker:determined_sammet@2:/etc/apt/sources.list";
    assert_eq!(shown.lines().last(), Some(command), "{shown}");
}
