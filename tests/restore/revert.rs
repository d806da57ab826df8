//! Changed files that make room for what they were copied from.

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

#[apply(test)]
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

#[apply(test)]
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

#[apply(test)]
fn overwrites_nothing_that_was_saved() {
    let union = changed();
    union.file("saved/f", "saved before");
    refuses_and_changes_nothing(&union, &["--revert", "--save", "saved"], "/f", "exists");
}

/// A name that was mistyped is no place for the only copy.
#[apply(test)]
fn saves_only_to_a_directory_that_is_there() {
    let union = changed();
    union.file("saved/file", "");
    for (to, words) in [
        ("sabed", "No such file"),
        ("saved/new", "No such file"),
        ("saved/file", "Not a directory"),
    ] {
        refuses_and_changes_nothing(&union, &["--revert", "--save", to], "/f", words);
    }
}

#[apply(test)]
fn has_nothing_to_do_where_nothing_was_copied_up() {
    let union = changed();
    union.file("up/made", "").file("mid/unchanged", "");
    for (path, words) in [
        ("/made", "made here"),
        ("/unchanged", "not changed"),
        ("/missing", "not there"),
    ] {
        has_nothing_to_do(&union, &["--revert", "--discard"], path, words);
    }
}

/// What an image deleted the container never had.
#[apply(test)]
fn brings_nothing_back_that_a_lower_branch_deleted() {
    let union = Union::usual();
    union
        .file("low/d/x", "old")
        .file("up/d/x", "made here")
        .mark("mid/.wh.d");
    let words = "made here";
    has_nothing_to_do(&union, &["--revert", "--discard"], "/d/x", words);
}

/// The lower file would not show by itself: a copy of it takes the place of the new one.
#[apply(test)]
fn of_a_file_that_was_made_anew_in_an_opaque_directory() {
    let union = Union::usual();
    union
        .file("low/d/x", "old")
        .mode("low/d/x", 0o640)
        .time("low/d/x", 1_000_000_000)
        .file("low/d/y", "stays hidden")
        .file("up/d/x", "made anew")
        .mark("up/d/.wh..wh..opq")
        .dir("saved");
    let before = union.view();
    let words = ["--dry-run", "--revert", "--save", "saved"];
    let disk = union.disk();
    union.restore(&words, "/d/x").exits(0);
    assert_same(&disk, &union.disk());
    let row = union.restore(&words[1..], "/d/x").exits(0).row();
    assert_eq!(actions(&row), ["move", "replace", "look"]);
    let copy = |path: &str| fact(&union.at(path), Detail::Copied);
    assert_eq!(copy("up/d/x"), copy("low/d/x"));
    assert!(copy("saved/x").contains("made anew"));
    assert!(union.view()[&b"/d/x"[..]].contains("old"));
    assert!(!union.view().contains_key(&b"/d/y"[..]));
    take_back(&row);
    assert_same(&before, &union.view());
}

#[apply(test)]
fn of_a_file_in_the_place_of_a_directory() {
    let union = Union::usual();
    union
        .file("low/d/x", "old")
        .file("up/d", "made anew")
        .dir("saved");
    let before = union.view();
    let words = ["--revert", "--save", "saved"];
    let row = union.restore(&words, "/d").exits(0).row();
    assert!(union.view()[&b"/d/x"[..]].contains("old"));
    take_back(&row);
    assert_same(&before, &union.view());
}

/// `rm -rf d; echo > d`, and a file that was written anew: no mark tells of what was there.
#[apply(test)]
fn what_is_beneath_something_else_is_copied_out() {
    let union = Union::usual();
    union
        .file("low/d/x", "old")
        .file("up/d", "made anew")
        .file("low/f", "below")
        .file("up/f", "above")
        .file("low/g", "a file")
        .mark("up/g/.wh..wh..opq")
        .file("up/g/new", "")
        .dir("out");
    let disk = || [union.branch("up"), union.branch("mid"), union.branch("low")];
    let before = disk();
    let and_revert =
        "of the version beneath it --to DIR makes a copy, and --revert puts it in its place";
    for (path, name, content, ways) in [
        (
            "/d/x",
            "x",
            "old",
            "of what was there --to DIR makes a copy",
        ),
        ("/f", "f", "below", and_revert),
        (
            "/g",
            "g",
            "a file",
            "of what was there before --to DIR makes a copy",
        ),
    ] {
        let told = union.restore(&[], path).exits(1).row();
        let ways = format!("; {ways}");
        assert!(text(&told, "nothing").ends_with(&ways), "{told}");
        union.restore(&["--to", "out"], path).exits(0);
        let copied = fs::read_to_string(union.at("out").join(name)).expect("it was copied out");
        assert_eq!(copied, content);
        let read = crate::lab::run::layerctl([
            OsStr::new("cat"),
            "--hidden".as_ref(),
            "--in".as_ref(),
            &union.spelled(),
            path.as_ref(),
        ]);
        assert_eq!(read.exits(0).stdout, content.as_bytes());
    }
    for (before, after) in before.iter().zip(disk()) {
        assert_same(before, &after);
    }
}

#[apply(test)]
fn of_a_directory_is_refused() {
    let union = Union::usual();
    union.file("up/d/x", "").file("low/d/x", "");
    refuses_and_changes_nothing(&union, &["--revert", "--discard"], "/d", "is a directory");
}
