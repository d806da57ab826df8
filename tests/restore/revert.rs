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

#[apply(test)]
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
#[apply(test)]
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

#[apply(test)]
fn of_a_directory_is_refused() {
    let union = Union::usual();
    union.file("up/d/x", "").file("low/d/x", "");
    refuses_and_changes_nothing(&union, &["--revert", "--discard"], "/d", "is a directory");
}
