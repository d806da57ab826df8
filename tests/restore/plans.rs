//! What a dry run prints, and the way back.

use super::*;

#[apply(test)]
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

#[apply(test)]
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

#[apply(test)]
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
