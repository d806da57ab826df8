//! Marks that are removed.

use super::*;

#[apply(test)]
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

#[apply(test)]
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

#[apply(test)]
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

#[apply(test)]
fn of_a_mark_in_a_lower_writable_branch() {
    let union = Union::of(&[("top", "rw"), ("second", "rw"), ("low", "ro")]);
    union.file("low/f", "x").mark("second/.wh.f");
    let row = union.restore(&[], "/f").exits(0).row();
    assert_eq!(row["hidden_by"]["branch"], 1);
    assert!(union.branch("top").is_empty() && union.branch("second").is_empty());
}

#[apply(test)]
fn of_a_mark_below_read_only_branches() {
    let union = Union::of(&[("top", "ro+wh"), ("up", "rw"), ("low", "ro")]);
    union.dir("top/d").mark("up/d/.wh.f").file("low/d/f", "x");
    let top = union.branch("top");
    union.restore(&[], "/d/f").exits(0);
    assert_same(&top, &union.branch("top"));
    assert!(union.view().contains_key(&b"/d/f"[..]));
}

#[apply(test)]
fn of_an_ancestor_lists_what_else_comes_back_and_asks() {
    let union = deleted_ancestor();
    refuses_and_changes_nothing(&union, &["--strategy", "unhide"], "/d/x", "--yes");
    let refusal = union.restore(&["--strategy", "unhide"], "/d/x").exits(2);
    for path in ["/d/y", "/d/z", "/d/sub", "--strategy copy"] {
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

#[apply(test)]
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

#[apply(test)]
fn of_an_opaque_mark_asks_too() {
    let union = Union::usual();
    union
        .file("low/d/x", "asked")
        .file("low/d/y", "not asked")
        .file("up/d/new", "")
        .mark("up/d/.wh..wh..opq");
    refuses_and_changes_nothing(&union, &["--strategy", "unhide"], "/d/x", "/d/y");
    let row = union
        .restore(&["--strategy", "unhide", "-y"], "/d/x")
        .exits(0)
        .row();
    assert!(!union.at("up/d/.wh..wh..opq").exists());
    let mark = union.at("up/d/.wh..wh..opq");
    let words = format!("remove the mark {}", mark.display());
    assert_eq!(text(&row["steps"][0], "words"), words);
    assert_eq!(text(&row, "seen"), "file of 5 bytes from branch 2");
}

#[apply(test)]
fn is_refused_where_another_mark_hides_it_too() {
    let union = Union::usual();
    union.mark("up/.wh.f").mark("mid/.wh.f").file("low/f", "x");
    refuses_and_changes_nothing(&union, &["--strategy", "unhide"], "/f", "--strategy copy");
}

#[apply(test)]
fn of_a_name_beside_its_own_whiteout() {
    for lower in [true, false] {
        let union = Union::usual();
        union.mark("up/.wh.f").file("up/f", "mine");
        if lower {
            union.file("low/f", "older");
        }
        let row = union.restore(&[], "/f").exits(0).row();
        assert_eq!(row["strategy"], "unhide", "{row}");
        assert!(union.view()[&b"/f"[..]].contains("mine"));
    }
}

/// The union does not refuse the name where its directory is another branch's, and denies it. What the
/// whiteout's own branch has is hidden all the same.
#[apply(test)]
fn of_a_name_beside_its_own_whiteout_in_another_s_directory() {
    for lower in [true, false] {
        let union = Union::of(&[("top", "ro+wh"), ("up", "rw"), ("low", "ro")]);
        union.dir("top/d").mark("up/d/.wh.f").file("up/d/f", "mine");
        if lower {
            union.file("low/d/f", "older");
        }
        let row = union.restore(&[], "/d/f").exits(0).row();
        assert_eq!(row["strategy"], "unhide", "{row}");
        assert!(union.view()[&b"/d/f"[..]].contains("mine"));
    }
}
