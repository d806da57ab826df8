//! Copies to somewhere else.

use super::*;

#[apply(test)]
fn touches_nothing_in_the_union() {
    let union = deleted_ancestor();
    let out = tempfile::tempdir().expect("a temporary directory");
    let to = out.path().to_str().expect("text");
    let before = union.disk();
    union.restore(&["--to", to], "/d/x").exits(0);
    union.restore(&["--to", to, "-r"], "/d").exits(0);
    assert_same(&before, &union.disk());
    assert_eq!(
        fact(&out.path().join("x"), Detail::Copied),
        fact(&union.at("mid/d/x"), Detail::Copied)
    );
    let copied: Vec<Vec<u8>> = facts(&out.path().join("d")).into_keys().collect();
    assert_eq!(copied, [&b"sub"[..], b"sub/s", b"x", b"y", b"z"]);
}

/// What was in a directory that is closed to others is in one that is.
#[apply(test)]
fn is_closed_to_others_as_far_as_it_was_made_for_it() {
    let union = deleted_file();
    let to = |name: &str| union.at(name).to_str().expect("text").to_owned();
    union.restore(&["--to", &to("out")], "/f").exits(0);
    for (verb, name) in [("restore", "all"), ("cp", "copied")] {
        let mut command = crate::lab::run::command();
        command.args([verb, "--all-deleted", "--to", &to(name), "--in"]);
        crate::lab::run::run(command.arg(union.spelled())).exits(0);
    }
    let mut made = 0;
    for name in ["out", "all", "copied"] {
        for entry in walkdir::WalkDir::new(union.at(name)) {
            let entry = entry.expect("our own");
            let mode = entry.metadata().expect("our own").mode();
            if entry.file_type().is_dir() && mode & 0o077 != 0 {
                panic!("{}: {mode:o}", entry.path().display());
            }
            made += 1;
        }
    }
    assert!(made >= 6, "{made}");
}

/// What had whole seconds lacks nothing.
#[apply(test)]
fn of_a_time_in_whole_seconds_says_nothing_of_it() {
    let union = deleted_file();
    union.dir("out");
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
    let file = fs::File::open(union.at("mid/f")).expect("our own");
    file.set_modified(time).expect("our own");
    let row = union.restore(&["--to", "out"], "/f").exits(0).row();
    let out = union.at("out/f");
    assert_eq!(text(&row, "seen"), out.to_str().expect("a plain path"));
    let made = fs::metadata(&out).expect("it was made");
    assert_eq!((made.mtime(), made.mtime_nsec()), (1_000_000_000, 0));
}

#[apply(test)]
fn never_overwrites() {
    let union = deleted_file();
    for kind in ["file", "directory", "link"] {
        let out = Union::of(&[]);
        match kind {
            "file" => out.file("f", "mine"),
            "directory" => out.dir("f"),
            _ => out.link("f", "dangling"),
        };
        let before = out.disk();
        union
            .restore(&["--to", out.home().to_str().expect("text")], "/f")
            .exits(2)
            .says("exists");
        assert_same(&before, &out.disk());
    }
}

#[apply(test)]
fn needs_no_writable_branch() {
    let union = Union::of(&[("mid", "ro+wh"), ("low", "ro")]);
    union.mark("mid/.wh.f").file("low/f", "x").dir("out");
    refuses_and_changes_nothing(&union, &[], "/f", "--to");
    union.restore(&["--to", "out"], "/f").exits(0);
    assert!(union.at("out/f").exists());
}

#[apply(test)]
fn into_a_branch_would_touch_the_union_and_is_refused() {
    let union = deleted_file();
    union.dir("up/sub").dir("low/sub").link("alias", "up");
    for to in ["up", "up/sub", "low/sub", "alias/sub"] {
        refuses_and_changes_nothing(&union, &["--to", to], "/f", "");
    }
    union.file("up/g", "changed").file("low/g", "old");
    for to in ["up/sub", "low/sub"] {
        refuses_and_changes_nothing(&union, &["--revert", "--save", to], "/g", "");
    }
}

#[apply(test)]
fn a_directory_that_is_not_there_is_made_outside_of_the_union_only() {
    let union = deleted_file();
    refuses_and_changes_nothing(&union, &["--to", "up/other"], "/f", "other");
    let before = union.disk();
    union
        .restore(&["--to", "new/deep", "--dry-run"], "/f")
        .exits(0);
    assert_same(&before, &union.disk());
    union.restore(&["--to", "new/deep"], "/f").exits(0);
    assert_eq!(
        fact(&union.at("new/deep/f"), Detail::Copied),
        fact(&union.at("mid/f"), Detail::Copied)
    );
    union.link("alias", "new");
    refuses_and_changes_nothing(&union, &["--to", "alias"], "/f", "is not followed");
}
