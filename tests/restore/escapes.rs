//! What would lead out of the union.

use super::*;

/// A union beside something that it must not reach.
fn with_outside() -> Union {
    let union = Union::usual();
    union
        .file("outside/x", "secret")
        .file("outside/d/x", "secret");
    union
}

fn outside(union: &Union) -> Facts {
    union.branch("outside")
}

#[apply(test)]
fn a_link_on_the_way_leads_nowhere_but_into_the_union() {
    for options in [
        &[][..],
        &["--strategy", "copy"],
        &["--strategy", "unhide", "--yes"],
        &["--strategy", "copy", "-r"],
        &["--revert", "--discard"],
    ] {
        let union = with_outside();
        let to = union.at("outside");
        // In the writable branch, where directories are opened and made.
        union
            .link("up/a", &to)
            .file("mid/a/x", "")
            .mark("mid/b/.wh.x")
            .link("up/b", &to)
            .file("low/b/x", "");
        // Below, where versions are read.
        union
            .mark("up/.wh.c")
            .link("mid/c", &to)
            .mark("up/e/.wh..wh..opq")
            .link("mid/e", &to);
        let before = outside(&union);
        for path in ["/a/x", "/b/x", "/c/x", "/e/x", "/c/d/x", "/c/d", "/c"] {
            union.restore(options, path);
            for branch in ["up", "mid", "low"] {
                let has = union
                    .branch(branch)
                    .into_values()
                    .any(|fact| fact.contains("secret"));
                assert!(!has, "{options:?} {path}");
            }
        }
        assert_same(&before, &outside(&union));
    }
}

#[apply(test)]
fn dots_never_lead_out() {
    let union = with_outside();
    union
        .mark("up/.wh.gone")
        .dir("mid/gone")
        .file("mid/f", "x")
        .mark("up/.wh.f")
        .dir("out");
    let before = union.disk();
    for path in [
        "/gone/../../outside/x",
        "/gone/../../../../../../../../../../../etc/passwd",
        "/gone/../../up",
        "/gone/..",
        "/gone/../f",
    ] {
        for options in [
            &["--strategy", "copy"][..],
            &["--dry-run"],
            &["--to", "out"],
            &["--strategy", "unhide"],
        ] {
            // Nothing is behind what is not there: the kernel says ENOENT.
            let output = union.restore(options, path);
            assert_ne!(
                output.status,
                Some(0),
                "{options:?} {path}: {}",
                output.text()
            );
            assert!(
                !output.stderr.contains("File exists"),
                "{options:?} {path}: {}",
                output.stderr
            );
            assert_same(&before, &union.disk());
        }
    }
    union.restore(&[], "/../../f").exits(0);
    assert!(!union.at("up/.wh.f").exists());
}

#[apply(test)]
fn slashes_change_nothing() {
    for path in ["/f/", "f", "//f", "/./f/.", "f/"] {
        let union = deleted_file();
        assert_eq!(
            union.restore(&[], path).exits(0).row()["path"],
            "/f",
            "{path}"
        );
    }
    let union = deleted_file();
    has_nothing_to_do(&union, &[], "", "");
}
