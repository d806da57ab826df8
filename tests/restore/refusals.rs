//! What is not restored.

use super::*;

#[apply(test)]
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
        ("/stale/x", "not deleted: no branch has it"),
        ("/", "the root"),
        ("/other/x", "ENOTDIR"),
        ("/.wh.f", "EPERM"),
    ] {
        has_nothing_to_do(&union, &[], path, words);
    }
}

#[apply(test)]
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

#[apply(test)]
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

#[apply(test)]
fn a_mark_in_a_read_only_branch_stays() {
    let union = Union::of(&[("up", "ro+wh"), ("low", "rw"), ("base", "ro")]);
    union.mark("up/.wh.f").file("base/f", "x");
    refuses_and_changes_nothing(&union, &["--strategy", "unhide"], "/f", "read-only");
    // A copy in the writable branch would stay hidden.
    refuses_and_changes_nothing(&union, &[], "/f", "--to");
}

/// Also where a mark that lies nearer the root, in a lower branch, is met first.
#[apply(test)]
fn nothing_is_written_that_would_stay_hidden() {
    let union = Union::of(&[("top", "ro+wh"), ("up", "rw"), ("low", "ro")]);
    union
        .mark("top/a/b/.wh..wh..opq")
        .mark("up/a/.wh..wh..opq")
        .file("low/a/b/x", "");
    refuses_and_changes_nothing(&union, &[], "/a/b/x", "--to");
}

#[apply(test)]
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

#[apply(test)]
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
        union.restore(options, "/f").exits(0);
        assert_eq!(
            fs::read(union.at("up/f")).expect("it stays"),
            b"mine",
            "{options:?}"
        );
    }
}

/// The directory on the way is another branch's: made in the writable one it would take the place
/// of that one's whiteout, and bring back what it hides.
#[apply(test)]
fn no_directory_is_made_over_its_own_whiteout() {
    let union = Union::of(&[("top", "ro"), ("up", "rw"), ("low", "ro")]);
    union
        .dir("top/d")
        .mark("up/.wh.d")
        .file("low/d/x", "")
        .file("low/d/y", "");
    refuses_and_changes_nothing(
        &union,
        &["--strategy", "copy"],
        "/d/x",
        "shown by a branch above it",
    );
}

#[apply(test)]
fn a_lost_branch_is_no_answer() {
    let union = deleted_file();
    fs::remove_dir_all(union.at("low")).expect("it is there");
    refuses_and_changes_nothing(&union, &[], "/f", "low");
}
