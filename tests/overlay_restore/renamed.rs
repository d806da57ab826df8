//! Directories whose lower content has another name there.

use super::*;

const COPY: [&str; 2] = ["--strategy", "copy"];

/// `/old` has been renamed to `/moved`, and two files deleted in it.
fn moved() -> Lab {
    let lab = Lab::of("mid:low", ",redirect_dir=on");
    lab.file("low/old/f", "before")
        .file("low/old/g", "g")
        .file("mid/old/e/x", "deep");
    lab.time("low/old/f", 1_000_000_000)
        .mode("mid/old/e", 0o701);
    lab.with_mount(|merged| {
        fs::rename(merged.join("old"), merged.join("moved")).expect("redirects are on");
        fs::remove_file(merged.join("moved/f")).expect("it is there");
        fs::remove_dir_all(merged.join("moved/e")).expect("it is there");
    });
    assert!(attribute(&lab.at("up/moved"), "trusted.overlay.redirect").is_some());
    lab
}

/// What has the new name below has nothing to do with it.
fn with_another(lab: &Lab) -> &Lab {
    lab.file("low/moved/f", "another")
        .file("low/moved/e/x", "another");
    lab
}

#[track_caller]
fn comes_back(lab: &Lab) {
    let (row, new) = there_and_back(lab, &[], "/moved/f");
    assert_eq!(row["strategy"], "unhide");
    let of_file = fact(&lab.at("low/old/f"), Detail::Copied);
    assert_eq!(new[&b"/moved/f"[..]], of_file);
    lab.brings_back(&["--to", "out"], "/moved/f");
    assert_eq!(fact(&lab.at("out/f"), Detail::Copied), of_file);
    lab.brings_back(&["--to", "out"], "/moved/e/x");
    let deep = fact(&lab.at("mid/old/e/x"), Detail::Copied);
    assert_eq!(fact(&lab.at("out/x"), Detail::Copied), deep);
    let (_, new) = there_and_back(lab, &COPY, "/moved/f");
    assert_eq!(new[&b"/moved/f"[..]], of_file);
    let (_, new) = there_and_back(lab, &[], "/moved/e/x");
    assert!(new[&b"/moved/e/x"[..]].contains("deep"), "{new:?}");
}

#[apply(test)]
fn a_deleted_file_comes_back() {
    in_own_mounts(|| comes_back(&moved()));
}

#[apply(test)]
fn another_below_of_the_new_name_is_not_taken_for_it() {
    in_own_mounts(|| comes_back(with_another(&moved())));
}

#[apply(test)]
fn a_deleted_file_comes_back_through_the_mount() {
    in_own_mounts(|| {
        for another in [false, true] {
            let lab = moved();
            if another {
                with_another(&lab);
            }
            let mounted = lab.mount();
            lab.restore(&[], "/moved/f").exits(0);
            let now = fact(&mounted.0.join("moved/f"), Detail::Copied);
            assert_eq!(now, fact(&lab.at("low/old/f"), Detail::Copied));
        }
    });
}

#[apply(test)]
fn the_old_name_is_copied_beside_the_new_one() {
    in_own_mounts(|| {
        let lab = moved();
        let (_, new) = there_and_back(&lab, &[&COPY[..], &["-r"]].concat(), "/old");
        assert!(new[&b"/old/f"[..]].contains("before"), "{new:?}");
        assert!(new.contains_key(&b"/moved/g"[..]), "{new:?}");
    });
}

/// Two names of one lower directory the kernel does not have: without its mark the old one
/// would take the new one's place, which answers ESTALE from then on.
#[apply(test)]
fn the_old_name_comes_back_beside_the_new_one() {
    in_own_mounts(|| {
        let lab = moved();
        let (_, new) = there_and_back(&lab, &["-r"], "/old");
        assert!(new[&b"/old/f"[..]].contains("before"), "{new:?}");
        assert!(new.contains_key(&b"/moved/g"[..]), "{new:?}");
    });
}

/// Its mark is not removed by request either.
#[apply(test)]
fn the_mark_of_the_old_name_stays() {
    in_own_mounts(|| {
        let lab = moved();
        for options in [&[][..], &["-r"], &["-r", "--yes"], &["--dry-run"]] {
            let options = [&["--strategy", "unhide"], options].concat();
            lab.refuses_and_changes_nothing(&lab.target(), &options, "/old")
                .says("/old was renamed: it would be there twice");
        }
        // Where nothing shows it under another name any more, it is a mark as any other.
        fs::remove_dir_all(lab.at("up/moved")).expect("our own");
        lab.brings_back(&["--strategy", "unhide", "-r", "--yes"], "/old");
        assert!(lab.agrees(&[]).contains_key(&b"/old/f"[..]));
    });
}

/// The directory of the same name was itself renamed, by a lower branch.
#[apply(test)]
fn the_old_name_in_a_directory_that_was_renamed_below() {
    in_own_mounts(|| {
        let lab = Lab::of("mid:low", ",redirect_dir=on");
        lab.file("low/d/x/f", "before").device("mid/d");
        lab.dir("mid/e")
            .xattr("mid/e", "trusted.overlay.redirect", b"d");
        lab.with_mount(|merged| {
            fs::rename(merged.join("e/x"), merged.join("e/y")).expect("redirects are on");
        });
        let (row, new) = there_and_back(&lab, &["-r"], "/e/x");
        assert_eq!(row["strategy"], "copy");
        assert!(new[&b"/e/x/f"[..]].contains("before"), "{new:?}");
        assert!(new.contains_key(&b"/e/y/f"[..]), "{new:?}");
    });
}

/// What the whole directory had before it was deleted lies where only its redirect leads.
#[apply(test)]
fn what_lay_in_a_deleted_directory_that_was_renamed_below() {
    in_own_mounts(|| {
        let lab = Lab::of("mid:low", ",redirect_dir=on");
        lab.file("low/d/f", "before").device("mid/d");
        lab.dir("mid/e")
            .xattr("mid/e", "trusted.overlay.redirect", b"d");
        lab.with_mount(|merged| fs::remove_dir_all(merged.join("e")).expect("it is there"));
        let (_, new) = there_and_back(&lab, &[], "/e/f");
        assert!(new[&b"/e/f"[..]].contains("before"), "{new:?}");
    });
}

/// The writable branch gets a directory of its own above one that says where it was.
#[apply(test)]
fn in_a_directory_that_the_upper_one_lacks() {
    in_own_mounts(|| {
        let lab = Lab::of("mid:low", ",redirect_dir=on");
        lab.file("low/old/x", "asked")
            .file("low/old/y", "y")
            .device("mid/old");
        lab.dir("mid/new").device("mid/new/x");
        lab.xattr("mid/new", "trusted.overlay.redirect", b"old");
        let (_, new) = there_and_back(&lab, &[], "/new/x");
        assert_eq!(paths(&new), ["/new", "/new/x", "/new/y"]);
        assert!(new[&b"/new/x"[..]].contains("asked"));
    });
}

#[apply(test)]
fn a_changed_file_is_reverted() {
    in_own_mounts(|| {
        for another in [false, true] {
            for is_mounted in [false, true] {
                let lab = moved();
                if another {
                    lab.file("low/moved/g", "another");
                }
                lab.with_mount(|merged| {
                    fs::write(merged.join("moved/g"), "changed").expect("root may");
                });
                let mounted = is_mounted.then(|| lab.mount());
                lab.restore(&["--revert", "--discard"], "/moved/g").exits(0);
                let mounted = mounted.unwrap_or_else(|| lab.mount());
                let now = fs::read_to_string(mounted.0.join("moved/g"));
                assert_eq!(now.expect("it is there"), "g", "{another} {is_mounted}");
            }
        }
    });
}

/// Another directory that both branches have is not that one under another name.
#[apply(test)]
fn beside_another_directory_its_mark_is_removed() {
    in_own_mounts(|| {
        let lab = Lab::of("mid:low", ",redirect_dir=on");
        lab.file("low/gone/f", "before")
            .file("low/other/f", "other");
        lab.with_mount(|merged| {
            fs::write(merged.join("other/new"), "mine").expect("root may");
            fs::remove_dir_all(merged.join("gone")).expect("it is there");
        });
        let (row, new) = there_and_back(&lab, &["-r"], "/gone");
        assert_eq!(row["strategy"], "unhide", "{row}");
        assert!(new[&b"/gone/f"[..]].contains("before"), "{new:?}");
    });
}

/// A file of which only the metadata was copied up has its content under the old name still: without
/// its mark that would be there twice.
#[apply(test)]
fn a_file_whose_content_another_name_has() {
    in_own_mounts(|| {
        for name in ["moved", "new/moved"] {
            has_its_content_under(name);
        }
    });
}

fn has_its_content_under(name: &str) {
    let lab = Lab::of("mid:low", ",metacopy=on,redirect_dir=on");
    let moved = [&b"/"[..], name.as_bytes()].concat();
    lab.file("low/f", "content")
        .mode("low/f", 0o600)
        .file("low/g", "another");
    lab.with_mount(|merged| {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o640);
        fs::set_permissions(merged.join("f"), mode).expect("root may");
        fs::create_dir_all(merged.join(name).parent().expect("it has one")).expect("root may");
        fs::rename(merged.join("f"), merged.join(name)).expect("root may");
        fs::remove_file(merged.join("g")).expect("it is there");
    });
    assert!(attribute(&lab.at("up").join(name), "trusted.overlay.redirect").is_some());
    lab.refuses_and_changes_nothing(&lab.target(), &["--strategy", "unhide"], "/f")
        .says("was renamed");
    for (path, strategy, content) in [("/f", "copy", "content"), ("/g", "unhide", "another")] {
        let (row, new) = there_and_back(&lab, &[], path);
        assert_eq!(row["strategy"], strategy, "{row}");
        assert!(new[path.as_bytes()].contains(content), "{new:?}");
        assert!(new[&moved].contains("content"), "{new:?}");
    }
}
