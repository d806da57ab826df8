//! Versions that are copied into the writable branch.

use super::*;

#[apply(test)]
fn out_of_a_deleted_ancestor_brings_only_what_was_asked_for() {
    let union = deleted_ancestor();
    let lower = (union.branch("mid"), union.branch("low"));
    let row = union.restore(&[], "/d/x").exits(0).row();
    assert_eq!(row["strategy"], "copy");
    assert_eq!(
        actions(&row),
        ["copy", "make-opaque", "remove-mark", "look"]
    );
    let shown: Vec<Vec<u8>> = union.view().into_keys().collect();
    assert_eq!(shown, [b"/d".to_vec(), b"/d/x".to_vec()]);
    let on_disk: Vec<Vec<u8>> = union.branch("up").into_keys().collect();
    assert_eq!(
        on_disk,
        [b"d".to_vec(), b"d/.wh..wh..opq".to_vec(), b"d/x".to_vec()]
    );
    assert_same(&lower.0, &union.branch("mid"));
    assert_same(&lower.1, &union.branch("low"));
}

#[apply(test)]
fn into_an_opaque_directory() {
    let union = Union::usual();
    union
        .file("mid/d/x", "asked")
        .file("mid/d/y", "")
        .mark("up/d/.wh..wh..opq")
        .file("up/d/new", "");
    let row = union.restore(&[], "/d/x").exits(0).row();
    assert_eq!(
        (row["strategy"].as_str(), row["hidden_by"]["kind"].as_str()),
        (Some("copy"), Some("opaque"))
    );
    let shown: Vec<Vec<u8>> = union.view().into_keys().collect();
    assert_eq!(
        shown,
        [b"/d".to_vec(), b"/d/new".to_vec(), b"/d/x".to_vec()]
    );
    assert!(union.at("up/d/.wh..wh..opq").exists());
}

#[apply(test)]
fn from_below_two_opaque_marks() {
    let union = Union::usual();
    union
        .file("low/d/e/x", "asked")
        .file("low/d/e/y", "")
        .mark("mid/d/e/.wh..wh..opq")
        .mark("up/d/.wh..wh..opq");
    union.restore(&[], "/d/e/x").exits(0);
    let shown: Vec<Vec<u8>> = union.view().into_keys().collect();
    assert_eq!(
        shown,
        [b"/d".to_vec(), b"/d/e".to_vec(), b"/d/e/x".to_vec()]
    );
}

#[apply(test)]
fn from_below_a_whiteout_in_a_read_only_layer() {
    let union = Union::usual();
    union
        .mark("mid/d/.wh.x")
        .file("low/d/x", "asked")
        .file("mid/d/y", "");
    let mid = union.branch("mid");
    let row = union.restore(&[], "/d/x").exits(0).row();
    assert_eq!(
        (
            row["strategy"].as_str(),
            row["hidden_by"]["branch"].as_u64()
        ),
        (Some("copy"), Some(1))
    );
    assert_same(&mid, &union.branch("mid"));
    assert!(union.at("up/d/x").exists());
}

#[apply(test)]
fn by_demand_in_the_place_of_the_mark() {
    let union = deleted_file();
    let row = union.restore(&["--strategy", "copy"], "/f").exits(0).row();
    assert_eq!(actions(&row), ["copy", "remove-mark", "look"]);
    assert!(!union.at("up/.wh.f").exists());
    assert_eq!(
        fact(&union.at("up/f"), Detail::Copied),
        fact(&union.at("mid/f"), Detail::Copied)
    );
}

#[apply(test)]
fn keeps_all_that_belongs_to_a_file() {
    let union = Union::usual();
    union
        .file("mid/f", "x")
        .xattr("mid/f", "user.kept", b"\0\xff")
        .xattr("mid/f", "user.empty", b"");
    if is_root() {
        union.owner("mid/f", 1234, 4321);
    }
    union
        .mode("mid/f", 0o6751)
        .time("mid/f", 1_000_000_000)
        .mark("up/.wh.f");
    union.restore(&["--strategy", "copy"], "/f").exits(0);
    // Reading the content would change it.
    for branch in ["up", "mid"] {
        let meta = fs::metadata(union.at(format!("{branch}/f"))).expect("it is there");
        assert_eq!(meta.atime(), 1_000_000_005, "{branch}");
    }
    assert_eq!(
        fact(&union.at("up/f"), Detail::Copied),
        fact(&union.at("mid/f"), Detail::Copied)
    );
}

#[apply(test)]
fn keeps_all_that_belongs_to_the_directories_on_the_way() {
    let union = Union::usual();
    union.file("mid/a/b/c/x", "asked").file("low/a/b/c/y", "");
    for (at, mode) in [("mid/a/b/c", 0o2750), ("mid/a/b", 0o1777), ("mid/a", 0o711)] {
        if is_root() {
            union.owner(at, mode, 7);
        }
        union
            .mode(at, mode)
            .xattr(at, "user.of", at.as_bytes())
            .time(at, i64::from(mode) * 1000);
    }
    union.mark("up/.wh.a");
    union.restore(&[], "/a/b/c/x").exits(0);
    for at in ["a/b/c", "a/b", "a"] {
        let of = |branch: &str| fact(&union.at(format!("{branch}/{at}")), Detail::Copied);
        assert_eq!(of("up"), of("mid"), "{at}");
    }
}

/// The directory that was shown before it was deleted is the topmost one below the mark,
/// whichever branch has the file.
#[apply(test)]
fn gives_an_ancestor_the_metadata_that_the_union_showed() {
    let union = Union::usual();
    union
        .dir("mid/d")
        .mode("mid/d", 0o700)
        .time("mid/d", 1_000_000_000)
        .file("low/d/x", "asked")
        .mode("low/d", 0o755);
    union.mark("up/.wh.d");
    union.restore(&[], "/d/x").exits(0);
    assert_eq!(
        fact(&union.at("up/d"), Detail::Copied),
        fact(&union.at("mid/d"), Detail::Copied)
    );
}

/// Where the writable branch does not have the directory, its copy is what the union shows.
#[apply(test)]
fn makes_missing_directories_as_the_union_shows_them() {
    let union = Union::usual();
    union
        .mark("mid/a/b/.wh.x")
        .file("low/a/b/x", "asked")
        .mode("mid/a/b", 0o701)
        .mode("mid/a", 0o710)
        .time("mid/a", 1_000_000_000);
    let before = union.view();
    union.restore(&[], "/a/b/x").exits(0);
    let after = union.view();
    assert_eq!(without(after.clone(), &["/a/b/x"]), before);
    assert!(union.at("up/a/b/x").exists());
}

#[apply(test)]
fn of_a_directory_needs_to_be_asked_for_it_whole() {
    let union = Union::usual();
    union
        .file("mid/d/x", "")
        .mark("mid/d/deep/.wh.w")
        .file("low/d/deep/w", "")
        .file("low/d/deep/v", "")
        .file("low/d/z", "")
        .mark("up/.wh.d");
    refuses_and_changes_nothing(&union, &["--strategy", "copy"], "/d", "-r");
    union.restore(&["--strategy", "copy", "-r"], "/d").exits(0);
    // Merged from both, and what was deleted in the middle stays so.
    let shown: Vec<String> = union
        .view()
        .into_keys()
        .map(|path| String::from_utf8(path).expect("text"))
        .collect();
    assert_eq!(shown, ["/d", "/d/deep", "/d/deep/v", "/d/x", "/d/z"]);
    assert!(union.at("up/d/z").exists() && union.at("up/d/.wh..wh..opq").exists());
}

#[apply(test)]
fn keeps_hard_links_inside_the_tree() {
    let union = Union::usual();
    union
        .file("mid/d/one", "same")
        .hard_link("mid/d/one", "mid/d/e/two")
        .hard_link("mid/d/one", "mid/outside")
        .mark("up/.wh.d");
    union.restore(&["--strategy", "copy", "-r"], "/d").exits(0);
    let meta = |path: &str| fs::metadata(union.at(path)).expect("it is there");
    assert_eq!(meta("up/d/one").ino(), meta("up/d/e/two").ino());
    assert_eq!(meta("up/d/one").nlink(), 2);
    assert_eq!(meta("mid/d/one").nlink(), 3);
}

#[apply(test)]
fn keeps_holes() {
    let union = Union::usual();
    union.file("mid/f", "head").mark("up/.wh.f");
    let mut file = fs::OpenOptions::new()
        .write(true)
        .open(union.at("mid/f"))
        .expect("our own");
    file.seek(SeekFrom::Start(40 << 20)).expect("it seeks");
    file.write_all(b"middle").expect("it writes");
    file.set_len(90 << 20).expect("it grows");
    file.sync_all().expect("it syncs");
    union.restore(&["--strategy", "copy"], "/f").exits(0);
    let meta = fs::metadata(union.at("up/f")).expect("it is there");
    assert_eq!(meta.len(), 90 << 20);
    assert!(meta.blocks() < 1 << 11, "{} blocks", meta.blocks());
    assert!(
        fs::read(union.at("up/f")).expect("it reads")
            == fs::read(union.at("mid/f")).expect("it reads")
    );
}

#[apply(test)]
fn of_what_is_no_regular_file() {
    let union = Union::usual();
    union
        .link("mid/d/link", "/nowhere/\u{e9}")
        .time("mid/d/link", 1_000_000_000)
        .node("mid/d/fifo", FileType::Fifo, 0)
        .node("mid/d/socket", FileType::Socket, 0);
    let mut names = vec!["link", "fifo", "socket"];
    if is_root() {
        union
            .node("mid/d/char", FileType::CharacterDevice, makedev(1, 3))
            .node("mid/d/block", FileType::BlockDevice, makedev(250, 70_000));
        union
            .node("mid/d/zero", FileType::CharacterDevice, 0)
            .owner("mid/d/link", 5, 6)
            .owner("mid/d/char", 5, 6)
            .mode("mid/d/char", 0o4604);
        names.extend(["char", "block", "zero"]);
    } else {
        in_part("devices take root");
    }
    union.mark("up/.wh.d");
    union.restore(&["--strategy", "copy", "-r"], "/d").exits(0);
    for name in names {
        let of = |branch: &str| fact(&union.at(format!("{branch}/d/{name}")), Detail::Copied);
        assert_eq!(of("up"), of("mid"), "{name}");
        // And alone, in the place of its own mark.
        let alone = Union::usual();
        alone.link("mid/other", "x");
        fs::rename(union.at(format!("mid/d/{name}")), alone.at("mid/n")).expect("one file system");
        alone.mark("up/.wh.n");
        alone.restore(&["--strategy", "copy"], "/n").exits(0);
        assert_eq!(
            fact(&alone.at("up/n"), Detail::Copied),
            fact(&alone.at("mid/n"), Detail::Copied),
            "{name}"
        );
        assert!(!alone.at("up/.wh.n").exists());
    }
}

#[apply(test)]
fn keeps_extended_attributes_of_what_is_no_regular_file() {
    needs::root("to set an attribute of a link");
    let union = Union::usual();
    union
        .link("mid/link", "x")
        .xattr("mid/link", "trusted.kept", b"1")
        .mark("up/.wh.link");
    union
        .node("mid/fifo", FileType::Fifo, 0)
        .xattr("mid/fifo", "trusted.kept", b"2")
        .mark("up/.wh.fifo");
    for name in ["link", "fifo"] {
        union.restore(&["--strategy", "copy"], name).exits(0);
        assert_eq!(
            fact(&union.at(format!("up/{name}")), Detail::Copied),
            fact(&union.at(format!("mid/{name}")), Detail::Copied)
        );
    }
}

/// A default access list of the directory is not what the file had.
#[apply(test)]
fn gives_no_attributes_that_the_version_did_not_have() {
    let union = Union::usual();
    union
        .file("mid/d/x", "")
        .mode("mid/d/x", 0o640)
        .mark("up/d/.wh.x");
    // user::rwx, user:1234:rwx, group::r-x, mask::rwx, other::---
    let entry = |tag: u16, perm: u16, id: u32| {
        [
            &tag.to_le_bytes()[..],
            &perm.to_le_bytes(),
            &id.to_le_bytes(),
        ]
        .concat()
    };
    let acl = [
        2u32.to_le_bytes().to_vec(),
        entry(1, 7, !0),
        entry(2, 7, 1234),
        entry(4, 5, !0),
        entry(16, 7, !0),
        entry(32, 0, !0),
    ]
    .concat();
    if rustix::fs::lsetxattr(
        union.at("up/d"),
        "system.posix_acl_default",
        &acl,
        rustix::fs::XattrFlags::empty(),
    )
    .is_err()
    {
        skip("the file system has no access lists");
    }
    union.restore(&["--strategy", "copy"], "/d/x").exits(0);
    assert_eq!(
        fact(&union.at("up/d/x"), Detail::Copied),
        fact(&union.at("mid/d/x"), Detail::Copied)
    );
}

#[apply(test)]
fn links_the_opaque_mark_as_aufs_does() {
    let union = deleted_ancestor();
    union.mark("up/.wh..wh.aufs");
    union.restore(&[], "/d/x").exits(0);
    let inode = |path: &str| fs::metadata(union.at(path)).expect("it is there").ino();
    assert_eq!(inode("up/d/.wh..wh..opq"), inode("up/.wh..wh.aufs"));
}

#[apply(test)]
fn through_a_link_of_the_union() {
    let union = Union::usual();
    union
        .link("low/short", "long/way")
        .file("low/long/way/x", "asked")
        .mark("up/long/way/.wh.x");
    let row = union
        .restore(&["--strategy", "copy"], "/short/x")
        .exits(0)
        .row();
    assert_eq!(row["path"], "/long/way/x");
    assert!(union.at("up/long/way/x").exists() && !union.at("up/short").exists());
}
