//! Changed files that make room for what they were copied from.

use super::*;

fn copied_up(options: &'static str) -> Lab {
    let lab = Lab::of("mid:low", options);
    lab.file("mid/d/f", "before")
        .mode("mid/d/f", 0o640)
        .owner("mid/d/f", 3, 4);
    lab.xattr("mid/d/f", "user.note", b"kept")
        .time("mid/d/f", 1_000_000_000);
    lab.file("low/d/f", "older").file("mid/d/g", "stays");
    lab.with_mount(|merged| {
        let mut file = fs::OpenOptions::new()
            .append(true)
            .open(merged.join("d/f"))
            .expect("it is there");
        file.write_all(b" and after").expect("it is writable");
    });
    lab
}

#[apply(test)]
fn saves_the_changed_file() {
    in_own_mounts(|| {
        for options in ["", ",userxattr"] {
            let lab = copied_up(options);
            let changed = lab.agrees(&[]);
            let row = lab.brings_back(&["--revert", "--save", "out"], "/d/f");
            let new = lab.agrees(&[]);
            assert_eq!(new[&b"/d/f"[..]], fact(&lab.at("mid/d/f"), Detail::Copied));
            let saved = fact(&lab.at("out/f"), Detail::Copied);
            assert_eq!(saved, changed[&b"/d/f"[..]]);
            lab.restore(&["--revert", "--discard"], "/d/f").exits(1);
            take_back(&row);
            assert_same(&settled(changed), &settled(lab.agrees(&[])));
            // What has the saved file's name is left alone.
            let before = lab.disk();
            lab.restore(&["--revert", "--save", "out"], "/d/f").exits(2);
            assert_same(&before, &lab.disk());
        }
    });
}

#[apply(test)]
fn throws_the_changed_file_away() {
    in_own_mounts(|| {
        let lab = copied_up("");
        lab.brings_back(&["--revert", "--discard"], "/d/f");
        assert!(!lab.at("up/d/f").exists());
        assert!(lab.agrees(&[])[&b"/d/f"[..]].contains("before"));
    });
}

/// The copy that stays is the lower version again, and nobody is told that it differs.
#[apply(test)]
fn what_stays_through_the_mount_does_not_differ() {
    in_own_mounts(|| {
        let lab = copied_up("");
        let mounted = lab.mount();
        let target = mounted.0.display().to_string();
        let differs = || {
            let output = run::layerctl(["--format", "jsonl", "copyups", &target]).exits(0);
            let rows = output.rows();
            let file = rows.iter().find(|row| row["path"] == "/d/f").cloned();
            file.expect("a copy-up")["differs"].clone()
        };
        assert_ne!(differs(), serde_json::json!([]));
        lab.brings_back(&["--revert", "--discard"], "/d/f");
        assert!(lab.at("up/d/f").exists());
        assert_eq!(differs(), serde_json::json!([]));
        drop(mounted);
    });
}

/// Only the mode was changed: the content that is saved is the lower one's.
#[apply(test)]
fn of_a_copy_of_metadata() {
    in_own_mounts(|| {
        let lab = Lab::of("mid:low", ",metacopy=on");
        lab.file("mid/f", "the content").mode("mid/f", 0o600);
        lab.with_mount(|merged| {
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
            fs::set_permissions(merged.join("f"), mode).expect("root may");
        });
        assert!(attribute(&lab.at("up/f"), "trusted.overlay.metacopy").is_some());
        let changed = lab.agrees(&[]);
        lab.brings_back(&["--revert", "--save", "out"], "/f");
        assert_eq!(fact(&lab.at("out/f"), Detail::Copied), changed[&b"/f"[..]]);
        assert_eq!(
            lab.agrees(&[])[&b"/f"[..]],
            fact(&lab.at("mid/f"), Detail::Copied)
        );
    });
}

#[apply(test)]
fn of_what_has_no_lower_version_changes_nothing() {
    in_own_mounts(|| {
        let lab = Lab::usual();
        lab.file("up/new", "").file("mid/untouched", "");
        lab.device("mid/w")
            .file("low/w", "below a mark")
            .file("up/w", "mine");
        let before = lab.disk();
        for path in ["/new", "/untouched", "/w"] {
            let row = lab.restore(&["--revert", "--discard"], path).exits(1).row();
            assert!(row["nothing"].is_string(), "{row}");
        }
        assert_same(&before, &lab.disk());
    });
}

/// The lower file would not show by itself, mounted or not.
#[apply(test)]
fn of_a_file_that_was_made_anew_in_an_opaque_directory() {
    in_own_mounts(|| {
        let made = || {
            let lab = Lab::usual();
            lab.opaque("up/d")
                .file("up/d/f", "made anew")
                .file("mid/d/f", "before")
                .mode("mid/d/f", 0o640)
                .file("mid/d/g", "stays hidden");
            lab
        };
        let lab = made();
        lab.brings_back(&["--revert", "--save", "out"], "/d/f");
        let now = lab.agrees(&[]);
        assert_eq!(now[&b"/d/f"[..]], fact(&lab.at("mid/d/f"), Detail::Copied));
        assert!(!now.contains_key(&b"/d/g"[..]));
        let lab = made();
        lab.with_mount(|merged| {
            lab.restore(&["--revert", "--save", "out"], "/d/f").exits(0);
            let content = fs::read_to_string(merged.join("d/f")).expect("it is there");
            assert_eq!(content, "before");
        });
    });
}

/// Mounted, the union would have to take the file away and show what its branch does not have: that
/// would be a copy of the whole directory. Unmounted, the file only makes room.
#[apply(test)]
fn of_a_file_in_the_place_of_a_directory() {
    in_own_mounts(|| {
        let lab = Lab::usual();
        lab.file("mid/d/f", "before");
        lab.with_mount(|merged| {
            fs::remove_dir_all(merged.join("d")).expect("it is there");
            fs::write(merged.join("d"), "mine").expect("the name is free");
        });
        let mounted = lab.mount();
        let before = lab.disk();
        for options in [&["--discard"][..], &["--save", "out"]] {
            let options = [&["--revert"], options].concat();
            let row = lab.restore(&options, "/d").exits(1).row();
            let why = row["nothing"].as_str().expect("a reason");
            assert!(why.contains("taken the place of a directory"), "{why}");
        }
        assert_same(&before, &lab.disk());
        drop(mounted);
        let row = lab.brings_back(&["--revert", "--save", "out"], "/d");
        assert_eq!(actions(&row), ["move", "remove", "look"], "{row}");
        assert!(lab.agrees(&[])[&b"/d/f"[..]].contains("before"));
    });
}
