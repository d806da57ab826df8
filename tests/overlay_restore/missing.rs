//! A directory that is there gets back what is missing in it.

use super::*;

/// `rm -rf html; mkdir html` and fifty files deleted, by the kernel.
fn accident(merged: &Path) {
    fs::remove_dir_all(merged.join("html")).expect("it is there");
    fs::create_dir(merged.join("html")).expect("root may");
    fs::write(merged.join("html/new"), "mine").expect("root may");
    for number in 0..50 {
        fs::remove_file(merged.join(format!("etc/{number}"))).expect("it is there");
    }
}

fn lab(options: &'static str) -> Lab {
    let lab = Lab::of("mid:low", options);
    treasure(&lab, "low/html/tree");
    lab.file("low/html/index", "old")
        .file("low/html/css/a", "a")
        .file("mid/html/css/b", "b")
        .file("low/html/new", "older")
        .file("low/etc/stays", "s");
    for number in 0..50 {
        lab.file(format!("low/etc/{number}"), format!("content {number}"));
    }
    lab
}

/// `/html` is opaque, `/etc` has fifty whiteouts: both come back, and go again.
fn is_brought_back(lab: &Lab) {
    let before = lab.state();
    let (html, etc) = (["-r"], ["-r", "--dry-run"]);
    let row = lab.restore(&[], "/etc").exits(1).row();
    assert_eq!(row["hidden_count"], 50, "{row}");
    let row = lab.restore(&[], "/html").exits(1).row();
    assert!(row["hidden_count"].as_u64() > Some(4), "{row}");
    assert_eq!(lab.restore(&etc, "/etc").exits(0).rows().len(), 50);
    assert_same(&before, &lab.state());
    let mut done = lab.restore(&html, "/html").exits(0).rows();
    let names: Vec<&str> = done.iter().map(|row| text(row, "path")).collect();
    assert_eq!(names, ["/html/css", "/html/index", "/html/tree"]);
    done.extend(lab.restore(&["-r"], "/etc").exits(0).rows());
    assert_eq!(done.len(), 53);
    for row in &done {
        assert_eq!(row["applied"], true, "{row}");
    }
    let new = if lab.at("merged/html").exists() {
        shown(&lab.at("merged"))
    } else {
        lab.agrees(&[])
    };
    let mut expected: Vec<String> = (0..50).map(|number| format!("/etc/{number}")).collect();
    expected.extend(["css/a", "css/b", "index", "new"].map(|of| format!("/html/{of}")));
    for path in &expected {
        assert!(new.contains_key(path.as_bytes()), "{path}: {new:?}");
    }
    let content = |path: &str, branch: &str| {
        let lower = fact(&lab.at(format!("{branch}{path}")), Detail::Copied);
        assert_eq!(new.get(path.as_bytes()), Some(&lower), "{path}");
    };
    content("/html/new", "up");
    content("/html/css/b", "mid");
    (0..50).for_each(|number| content(&format!("/etc/{number}"), "low"));
    done.iter().rev().for_each(take_back);
    assert_same(&before, &lab.state());
}

#[apply(test)]
fn where_nothing_is_mounted() {
    in_own_mounts(|| {
        for options in ["", ",userxattr"] {
            let lab = lab(options);
            lab.with_mount(accident);
            assert!(attribute(&lab.at("up/html"), &lab.own("opaque")).is_some());
            is_brought_back(&lab);
        }
    });
}

#[apply(test)]
fn where_it_is_mounted() {
    in_own_mounts(|| {
        for options in ["", ",userxattr"] {
            let lab = lab(options);
            let mounted = lab.mount();
            accident(&mounted.0);
            is_brought_back(&lab);
        }
    });
}

/// Whiteouts by attribute, which only who makes them by hand has in an upper directory.
#[apply(test)]
fn whiteouts_by_attribute_too() {
    in_own_mounts(|| {
        for options in ["", ",userxattr"] {
            let lab = Lab::of("mid:low", options);
            for number in 0..50 {
                lab.file(format!("low/etc/{number}"), format!("content {number}"))
                    .attribute(&format!("up/etc/{number}"), b"");
            }
            let before = lab.state();
            let done = lab.restore(&["-r"], "/etc").exits(0).rows();
            assert_eq!(done.len(), 50);
            assert_eq!(lab.agrees(&[]).len(), 51);
            done.iter().rev().for_each(take_back);
            assert_same(&before, &lab.state());
        }
    });
}
