//! fuse-overlayfs's spellings of deletion.

use std::os::unix::fs::PermissionsExt as _;

use super::*;

/// A stack of fuse-overlayfs, where that can be mounted.
fn lab() -> Option<Lab> {
    let new = || Lab {
        by: By::FuseOverlayfs,
        ..Lab::usual()
    };
    static WHY: OnceLock<Option<String>> = OnceLock::new();
    let why = WHY.get_or_init(|| {
        let probe = new();
        let output = Command::new("fuse-overlayfs")
            .args(["-o", &probe.mount_options()])
            .arg(probe.at("merged"))
            .output();
        match output {
            Ok(output) if output.status.success() => {
                drop(Mounted(probe.at("merged")));
                None
            }
            Ok(output) => Some(String::from_utf8_lossy(&output.stderr).into_owned()),
            Err(error) => Some(error.to_string()),
        }
    });
    if let Some(why) = why {
        skip(&format!("nothing is restored in fuse-overlayfs: {why}"));
    }
    Some(new())
}

/// The ways in which `up` says that `/d/NAME` is deleted.
const MARKS: [&str; 2] = ["up/d/.wh.NAME", "up/d/NAME"];

fn mark(lab: &Lab, mark: &str, name: &str) {
    let path = mark.replace("NAME", name);
    if path.contains("/.wh.") {
        lab.file(&path, "").mode(&path, 0)
    } else {
        lab.device(&path)
    };
}

#[apply(test)]
fn unhides_a_name_that_is_deleted_either_way() {
    in_own_mounts(|| {
        for kind in MARKS {
            let Some(lab) = lab() else { return };
            lab.file("low/d/f", "before").file("low/d/g", "");
            mark(&lab, kind, "f");
            mark(&lab, kind, "g");
            let (row, new) = there_and_back(&lab, &[], "/d/f");
            assert_eq!(row["strategy"], "unhide", "{kind}");
            assert_eq!(paths(&new), ["/d", "/d/f"], "{kind}");
        }
    });
}

#[apply(test)]
fn copies_over_a_mark_of_either_kind() {
    in_own_mounts(|| {
        for kind in MARKS {
            let Some(lab) = lab() else { return };
            lab.file("low/d/f", "before")
                .mode("low/d/f", 0o640)
                .owner("low/d/f", 3, 4);
            lab.xattr("low/d/f", "user.note", b"kept")
                .time("low/d/f", 1_000_000_000);
            lab.link("low/d/l", "no/where")
                .node("low/d/p", FileType::Fifo, 0);
            lab.file("low/d/t/x", "x")
                .file("mid/d/t/y", "y")
                .mode("low/d/t", 0o750);
            for name in ["f", "l", "p", "t"] {
                mark(&lab, kind, name);
            }
            let copy = ["--strategy", "copy", "-r"];
            for (path, all) in [
                ("/d/f", &["/d", "/d/f"][..]),
                ("/d/l", &["/d", "/d/l"]),
                ("/d/p", &["/d", "/d/p"]),
                ("/d/t", &["/d", "/d/t", "/d/t/x", "/d/t/y"]),
            ] {
                let (_, new) = there_and_back(&lab, &copy, path);
                assert_eq!(paths(&new), all, "{kind}");
                if path == "/d/f" {
                    assert_eq!(new[&b"/d/f"[..]], fact(&lab.at("low/d/f"), Detail::Copied));
                }
            }
            // Of all that was below only this.
            let (_, new) = there_and_back(&lab, &[], "/d/t/x");
            assert_eq!(paths(&new), ["/d", "/d/t", "/d/t/x"], "{kind}");
        }
    });
}

/// fuse-overlayfs asks whether there is a mark, and not what it is.
#[apply(test)]
fn a_mark_may_be_a_directory() {
    in_own_mounts(|| {
        let Some(lab) = lab() else { return };
        lab.file("low/d/f", "before").dir("up/d/.wh.f");
        lab.file("low/e/x", "asked").dir("up/e/.wh..wh..opq");
        assert_eq!(paths(&lab.agrees(&["/d/f", "/e/x"])), ["/d", "/e"]);
        lab.brings_back(&["--strategy", "unhide"], "/d/f");
        lab.brings_back(&["--strategy", "unhide"], "/e/x");
        let all = ["/d", "/d/f", "/e", "/e/x"];
        assert_eq!(paths(&lab.agrees(&[])), all);
    });
}

/// It is there in the end, or nothing has changed.
#[apply(test)]
fn of_a_name_that_is_deleted_twice() {
    in_own_mounts(|| {
        for options in [&[][..], &["--strategy", "copy"]] {
            let Some(lab) = lab() else { return };
            lab.file("low/d/f", "before").device("up/d/f");
            lab.file("up/d/.wh.f", "").mode("up/d/.wh.f", 0);
            let before = lab.disk();
            match lab.restore(options, "/d/f").status {
                Some(0) => assert_eq!(paths(&lab.agrees(&[])), ["/d", "/d/f"]),
                _ => assert_same(&before, &lab.disk()),
            }
        }
    });
}

/// As fuse-overlayfs itself leaves it: opaque three times over.
fn opaque(lab: &Lab) {
    lab.file("low/d/x", "asked")
        .file("mid/d/y", "")
        .file("up/d/new", "");
    lab.xattr("up/d", "trusted.overlay.opaque", b"y");
    lab.file("up/d/.wh..wh..opq", "")
        .mode("up/d/.wh..wh..opq", 0o700);
    lab.device("up/d/.wh..opq");
}

#[apply(test)]
fn copies_into_an_opaque_directory() {
    in_own_mounts(|| {
        let Some(lab) = lab() else { return };
        opaque(&lab);
        let (row, new) = there_and_back(&lab, &[], "/d/x");
        assert_eq!(row["strategy"], "copy");
        assert_eq!(paths(&new), ["/d", "/d/new", "/d/x"]);
    });
}

#[apply(test)]
fn unhides_an_opaque_directory() {
    in_own_mounts(|| {
        let Some(lab) = lab() else { return };
        opaque(&lab);
        assert_eq!(paths(&lab.agrees(&["/d/x"])), ["/d", "/d/new"]);
        let unhide = ["--strategy", "unhide"];
        lab.refuses_and_changes_nothing(&lab.target(), &unhide, "/d/x")
            .says("/d/y");
        let row = lab.brings_back(&["--strategy", "unhide", "-y"], "/d/x");
        assert_eq!(paths(&lab.agrees(&[])), ["/d", "/d/new", "/d/x", "/d/y"]);
        assert_eq!(names(&lab.at("up/d")), ["new"]);
        take_back(&row);
        assert_eq!(paths(&lab.agrees(&["/d/x"])), ["/d", "/d/new"]);
    });
}

/// All three marks, not only one that does the same.
#[apply(test)]
fn gives_an_opaque_directory_all_of_its_marks_back() {
    in_own_mounts(|| {
        let Some(lab) = lab() else { return };
        opaque(&lab);
        there_and_back(&lab, &["--strategy", "unhide", "-y"], "/d/x");
    });
}

#[apply(test)]
fn of_what_it_deleted_itself() {
    in_own_mounts(|| {
        let Some(lab) = lab() else { return };
        lab.file("low/d/f", "before")
            .file("low/d/t/x", "x")
            .file("low/t/u/x", "");
        lab.with_mount(|merged| {
            fs::remove_file(merged.join("d/f")).expect("it is there");
            fs::remove_dir_all(merged.join("d/t")).expect("it is there");
            fs::remove_dir_all(merged.join("t")).expect("it is there");
            fs::create_dir_all(merged.join("t/u")).expect("nothing has the name");
        });
        let (_, new) = there_and_back(&lab, &[], "/d/f");
        assert_eq!(paths(&new), ["/d", "/d/f", "/t", "/t/u"]);
        let (_, new) = there_and_back(&lab, &["--strategy", "copy", "-r"], "/d/t");
        assert_eq!(paths(&new), ["/d", "/d/t", "/d/t/x", "/t", "/t/u"]);
        let (_, new) = there_and_back(&lab, &[], "/t/u/x");
        assert_eq!(paths(&new), ["/d", "/t", "/t/u", "/t/u/x"]);
    });
}

#[apply(test)]
fn through_the_mount() {
    in_own_mounts(|| {
        let Some(lab) = lab() else { return };
        lab.file("low/d/f", "before")
            .mode("low/d/f", 0o640)
            .file("up/d/new", "mine");
        let mounted = lab.mount();
        fs::remove_file(mounted.0.join("d/f")).expect("it is there");
        assert_eq!(names(&mounted.0.join("d")), ["new"]);
        let point = mounted.0.display().to_string();
        for target in [&point, &lab.target()] {
            let row = lab.restore_in(target, &[], "/d/f").exits(0).row();
            let content = fs::read(mounted.0.join("d/f")).expect("it is there");
            assert_eq!(content, b"before");
            assert_eq!(names(&mounted.0.join("d")), ["f", "new"], "{row}");
            take_back(&row);
            assert_eq!(names(&mounted.0.join("d")), ["new"]);
        }
    });
}

/// What the program writes back late takes capabilities and set-id bits away.
#[apply(test)]
fn through_the_mount_with_its_capability() {
    in_own_mounts(|| {
        let Some(lab) = lab() else { return };
        // Version 2: cap_net_raw, permitted and effective.
        let mut capability = [0; 20];
        capability[..4].copy_from_slice(&0x0200_0001u32.to_le_bytes());
        capability[4..8].copy_from_slice(&(1u32 << 13).to_le_bytes());
        lab.file("low/d/f", vec![7; 300_000])
            .xattr("low/d/f", "security.capability", &capability)
            .file("low/d/g", vec![7; 300_000])
            .mode("low/d/g", 0o4755);
        let mounted = lab.mount();
        let point = mounted.0.display().to_string();
        for name in ["f", "g"] {
            let path = format!("/d/{name}");
            fs::remove_file(mounted.0.join("d").join(name)).expect("it is there");
            lab.restore_in(&point, &["--strategy", "copy"], &path)
                .exits(0);
        }
        std::thread::sleep(std::time::Duration::from_millis(200));
        drop(mounted);
        let mut value = [0; 64];
        let read = rustix::fs::lgetxattr(lab.at("up/d/f"), "security.capability", &mut value);
        assert_eq!(
            read.map(|length| value[..length].to_vec()),
            Ok(capability.to_vec())
        );
        let mode = fs::metadata(lab.at("up/d/g"))
            .expect("it is there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o7777, 0o4755);
    });
}
