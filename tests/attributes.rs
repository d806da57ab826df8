//! Changes of nothing but extended attributes, access control lists among them, and of content
//! behind the same size and time.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::{XattrFlags, lsetxattr};
use serde_json::json;

use crate::lab::run::{command, layerctl, run};
use crate::lab::{is_root, skip};
use crate::records::{CONTAINER, STORE, store};

/// An access control list: one user more may read.
const ACL: [(u16, u16, u32); 5] = [
    (0x01, 7, u32::MAX),
    (0x02, 5, 1000),
    (0x04, 5, u32::MAX),
    (0x10, 5, u32::MAX),
    (0x20, 5, u32::MAX),
];

fn acl() -> Vec<u8> {
    let mut bytes = 2u32.to_le_bytes().to_vec();
    for (tag, rights, id) in ACL {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(rights.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

/// Says whether the file system keeps it.
fn attribute(path: &Path, name: &str, value: &[u8]) -> bool {
    lsetxattr(path, name, value, XattrFlags::empty()).is_ok()
}

/// Two branches with the same directories and files, of one time each.
struct Place {
    home: tempfile::TempDir,
}

impl Place {
    /// None where attributes cannot be told, or not be kept.
    fn new() -> Option<Place> {
        let home = tempfile::tempdir().expect("a directory");
        let can = is_root()
            && attribute(home.path(), "user.test", b"1")
            && attribute(home.path(), "trusted.test", b"1");
        if !can {
            skip("only root is told of marks, and not every file system keeps attributes");
        }
        let place = Place { home };
        for branch in ["upper", "lower"] {
            for name in ["acl", "note", "mark", "same"] {
                fs::create_dir_all(place.at(branch, name)).expect("a new directory");
            }
            fs::write(place.at(branch, "file"), "same size").expect("a new file");
        }
        let time = fs::metadata(place.at("lower", "file")).and_then(|of| of.modified());
        place.set_time(time.expect("a time"));
        Some(place)
    }

    fn set_time(&self, time: std::time::SystemTime) {
        let file = fs::File::options()
            .append(true)
            .open(self.at("upper", "file"));
        file.and_then(|file| file.set_modified(time))
            .expect("one's own");
    }

    fn at(&self, branch: &str, name: &str) -> PathBuf {
        self.home.path().join(branch).join(name)
    }

    fn spelled(&self) -> String {
        let at = |branch| self.home.path().join(branch).display().to_string();
        format!("lowerdir={},upperdir={}", at("lower"), at("upper"))
    }
}

#[apply(test)]
fn a_directory_of_which_only_attributes_changed() {
    let Some(place) = Place::new() else { return };
    assert!(attribute(
        &place.at("upper", "acl"),
        "system.posix_acl_access",
        &acl()
    ));
    assert!(attribute(&place.at("upper", "note"), "user.note", b"new"));
    assert!(attribute(&place.at("lower", "note"), "user.gone", b"old"));
    assert!(attribute(&place.at("lower", "note"), "user.kept", b"both"));
    assert!(attribute(&place.at("upper", "note"), "user.kept", b"both"));
    assert!(attribute(
        &place.at("upper", "mark"),
        "trusted.overlay.origin",
        b"x"
    ));
    let stack = place.spelled();

    let rows = layerctl(["--format", "jsonl", "copyups", &stack])
        .exits(0)
        .rows();
    let rows: Vec<_> = rows
        .iter()
        .filter(|row| row["type"] == "directory")
        .collect();
    assert_eq!(rows.len(), 2, "{rows:?}");
    for (row, path, attributes) in [
        (rows[0], "/acl", json!(["system.posix_acl_access"])),
        (rows[1], "/note", json!(["user.gone", "user.note"])),
    ] {
        assert_eq!(row["path"], path);
        let differs = row["differs"].as_array().expect("a list");
        assert!(differs.contains(&json!("xattr")), "{row}");
        assert_eq!(row["attributes"], attributes);
    }
    let table = run(command().args(["-v", "copyups", &stack])).exits(0);
    assert!(
        table.text().contains("xattr(user.gone user.note)"),
        "{}",
        table.text()
    );

    // Docker does not count them; the long form does.
    assert_eq!(layerctl(["changes", &stack]).exits(0).text(), "");
    let long = layerctl(["--format", "jsonl", "changes", "--long", &stack])
        .exits(0)
        .rows();
    let paths: Vec<_> = long.iter().map(|row| row["path"].clone()).collect();
    assert_eq!(paths, ["/acl", "/note"]);
    assert_eq!(long[1]["attributes"], json!(["user.gone", "user.note"]));
}

#[apply(test)]
fn a_file_of_the_same_size_and_time() {
    let Some(place) = Place::new() else { return };
    let lower = fs::metadata(place.at("lower", "file")).and_then(|of| of.modified());
    fs::write(place.at("upper", "file"), "size same").expect("a file");
    place.set_time(lower.expect("a time"));
    let stack = place.spelled();
    assert_eq!(layerctl(["changes", &stack]).exits(0).text(), "");
    let read = layerctl(["changes", "--content", &stack]).exits(0);
    assert_eq!(read.text(), "C /file\n");
    fs::write(place.at("upper", "file"), "same size").expect("a file");
    place.set_time(
        fs::metadata(place.at("lower", "file"))
            .and_then(|of| of.modified())
            .expect("a time"),
    );
    assert_eq!(
        layerctl(["changes", "--content", &stack]).exits(0).text(),
        ""
    );
}

/// `podman diff` counts attributes `user.*`.
#[apply(test)]
fn an_engine_may_count_attributes() {
    if Place::new().is_none() {
        return;
    }
    let host = store(1);
    let layer = crate::records::id(1);
    for id in [CONTAINER, &layer] {
        host.dir(format!("{STORE}/overlay/{id}/diff/d"));
        host.dir(format!("{STORE}/overlay/{id}/diff/acl"));
    }
    let upper = host.at(format!("{STORE}/overlay/{CONTAINER}/diff"));
    if !attribute(&upper.join("d"), "user.note", b"new") {
        return;
    }
    assert!(attribute(
        &upper.join("acl"),
        "system.posix_acl_access",
        &acl()
    ));
    let changes = run(command()
        .arg("--root")
        .arg(&host.root)
        .args(["changes", "web"]));
    assert_eq!(changes.exits(0).text(), "C /d\nA /of2\n");
}
