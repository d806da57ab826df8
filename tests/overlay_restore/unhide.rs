//! Marks that are removed.

use super::*;

#[apply(test)]
fn of_what_the_kernel_deleted() {
    in_own_mounts(|| {
        let lab = Lab::usual();
        lab.file("mid/f", "before")
            .file("low/f", "older")
            .file("low/g", "stays deleted");
        lab.with_mount(|merged| {
            fs::remove_file(merged.join("f")).expect("it is there");
            fs::remove_file(merged.join("g")).expect("it is there");
        });
        let (row, new) = there_and_back(&lab, &[], "/f");
        assert_eq!(row["strategy"], "unhide");
        assert_eq!(actions(&row), ["remove-mark", "look"]);
        assert_eq!(paths(&new), ["/f"]);
        assert_eq!(new[&b"/f"[..]], fact(&lab.at("mid/f"), Detail::Copied));
    });
}

#[apply(test)]
fn removes_the_mark_and_nothing_else() {
    in_own_mounts(|| {
        let lab = Lab::usual();
        lab.file("low/d/f", "before").file("up/d/new", "mine");
        lab.device("up/d/f").device("up/d/g").file("low/d/g", "");
        let mut expected = lab.disk();
        expected.remove(&b"up/d/f"[..]).expect("a mark");
        let row = lab.brings_back(&[], "/d/f");
        let words = format!("remove the mark {}", lab.at("up/d/f").display());
        assert_eq!(text(&row["steps"][0], "words"), words);
        assert_eq!(text(&row, "seen"), "file of 6 bytes from branch 2");
        // Removing a name is a change of its directory.
        expected.insert(b"up/d".to_vec(), lab.disk()[&b"up/d"[..]].clone());
        assert_same(&expected, &lab.disk());
        assert_eq!(paths(&lab.agrees(&["/d/g"])), ["/d", "/d/f", "/d/new"]);
    });
}

#[apply(test)]
fn of_a_mark_by_attribute() {
    in_own_mounts(|| {
        for options in ["", ",userxattr"] {
            let lab = Lab::of("mid:low", options);
            lab.file("low/d/f", "before").attribute("up/d/f", b"");
            lab.attribute("up/d/g", b"").file("low/d/g", "");
            let (row, new) = there_and_back(&lab, &[], "/d/f");
            assert_eq!(row["strategy"], "unhide");
            assert_eq!(paths(&new), ["/d", "/d/f"]);
        }
    });
}

#[apply(test)]
fn of_a_whole_directory() {
    in_own_mounts(|| {
        for options in ["", ",userxattr"] {
            let lab = Lab::of("mid:low", options);
            lab.file("low/d/e/x", "x")
                .file("mid/d/y", "y")
                .file("low/d/z", "z");
            lab.device("mid/d/z").device("up/d");
            let (row, new) = there_and_back(&lab, &[], "/d");
            assert_eq!(row["strategy"], "unhide");
            assert_eq!(paths(&new), ["/d", "/d/e", "/d/e/x", "/d/y"]);
        }
    });
}

#[apply(test)]
fn gives_a_mark_its_mode_back_when_it_is_taken_back() {
    in_own_mounts(|| {
        let lab = Lab::usual();
        lab.file("low/f", "before");
        lab.with_mount(|merged| fs::remove_file(merged.join("f")).expect("it is there"));
        let before = fact(&lab.at("up/f"), Detail::Copied);
        let row = lab.brings_back(&[], "/f");
        take_back(&row);
        let after = fact(&lab.at("up/f"), Detail::Copied);
        assert_eq!(without_time(&before), without_time(&after));
    });
}

#[apply(test)]
fn of_an_opaque_directory_says_what_reappears_and_asks() {
    in_own_mounts(|| {
        for options in ["", ",userxattr"] {
            let lab = Lab::of("mid:low", options);
            lab.file("mid/d/x", "asked")
                .file("low/d/y", "")
                .file("mid/d/e/z", "");
            lab.opaque("up/d")
                .file("up/d/new", "")
                .device("up/d/z")
                .file("low/d/z", "");
            let unhide = ["--strategy", "unhide"];
            let refusal = lab.refuses_and_changes_nothing(&lab.target(), &unhide, "/d/x");
            for words in ["/d/y", "/d/e", "--yes"] {
                assert!(refusal.stderr.contains(words), "{}", refusal.stderr);
            }
            assert!(!refusal.stderr.contains("/d/z"), "{}", refusal.stderr);
            let (row, new) = there_and_back(&lab, &[&unhide[..], &["--yes"]].concat(), "/d/x");
            assert_eq!(row["reappears"].to_string(), r#"["/d/e","/d/y"]"#);
            // The mark is the directory's own, which stays.
            let words = format!("make {} no longer opaque", lab.at("up/d").display());
            assert_eq!(text(&row["steps"][0], "words"), words);
            assert_eq!(
                paths(&new),
                ["/d", "/d/e", "/d/e/z", "/d/new", "/d/x", "/d/y"]
            );
        }
    });
}

#[apply(test)]
fn of_a_deleted_ancestor_says_what_reappears_and_asks() {
    in_own_mounts(|| {
        let lab = Lab::usual();
        lab.file("mid/d/x", "asked")
            .file("low/d/y", "")
            .device("up/d");
        let unhide = ["--strategy", "unhide"];
        lab.refuses_and_changes_nothing(&lab.target(), &unhide, "/d/x")
            .says("/d/y");
        let (row, new) = there_and_back(&lab, &[&unhide[..], &["-y"]].concat(), "/d/x");
        assert_eq!(row["reappears"].to_string(), r#"["/d/y"]"#);
        assert_eq!(paths(&new), ["/d", "/d/x", "/d/y"]);
    });
}

#[apply(test)]
fn is_refused_where_another_mark_hides_it_too() {
    in_own_mounts(|| {
        let lab = Lab::usual();
        lab.device("up/f").device("mid/f").file("low/f", "x");
        let unhide = ["--strategy", "unhide"];
        let refusal = lab.refuses_and_changes_nothing(&lab.target(), &unhide, "/f");
        refusal.says("--strategy copy");
        // Without being told how it finds the other way.
        let (row, _) = there_and_back(&lab, &[], "/f");
        assert_eq!(row["strategy"], "copy");
    });
}
