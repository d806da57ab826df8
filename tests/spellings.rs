//! Every spelling of deletion, and which marks count for it: the worked example that
//! CONTRIBUTING.md follows. A new arm of `Grammar` is not built before it has its line here.

use std::fs;
use std::path::Path;

use layerctl::internals::dir::{Access, Dir, Kind, Stat};
use layerctl::internals::overlay::{Namespace, Rules};
use layerctl::internals::union::Merger;
use layerctl::internals::whiteout::{AUFS_NAME_MAX, Grammar, Marks, Seen, Source, Validity};
use rustix::fs::{CWD, FileType, Mode, XattrFlags, lsetxattr, makedev, mknodat};
use rustix::io::Errno;

use crate::lab::{needs, skip};

/// Marks that some union writes or reads. Each deletes `gone`, or hides what is below a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    /// AUFS, and fuse-overlayfs in images: an empty file `.wh.gone`.
    Named,
    /// Overlay: a character device 0:0 in the name's place.
    Device,
    /// Overlay: an empty file with an attribute in the name's place.
    Attribute,
    /// AUFS, and fuse-overlayfs: `.wh..wh..opq` in the directory.
    OpaqueNamed,
    /// Overlay: an attribute of the directory.
    OpaqueAttribute,
}

use Mark::{Attribute, Device, Named, OpaqueAttribute, OpaqueNamed};

/// All marks, from one to the next: a further one is not built before it has its place here.
fn marks() -> impl Iterator<Item = Mark> {
    std::iter::successors(Some(Named), |mark| match mark {
        Named => Some(Device),
        Device => Some(Attribute),
        Attribute => Some(OpaqueNamed),
        OpaqueNamed => Some(OpaqueAttribute),
        OpaqueAttribute => None,
    })
}

/// All spellings, one of each arm, from one to the next: a further one is not built before it has its
/// place here.
fn grammars() -> impl Iterator<Item = Grammar> {
    std::iter::successors(Some(Grammar::Aufs), |grammar| match grammar {
        Grammar::Aufs => Some(Grammar::AufsIgnored),
        Grammar::AufsIgnored => Some(Grammar::Plain),
        Grammar::Plain => Some(Grammar::Overlay(Rules::of(Namespace::Trusted))),
        Grammar::Overlay(_) => Some(Grammar::OverlayData),
        Grammar::OverlayData => Some(Grammar::FuseOverlay(Namespace::Trusted)),
        Grammar::FuseOverlay(_) => None,
    })
}

/// The marks that count.
fn count(grammar: Grammar) -> &'static [Mark] {
    match grammar {
        // docs/facts.md#aufs-1.2, docs/facts.md#aufs-1.6
        Grammar::Aufs => &[Named, OpaqueNamed],
        // docs/facts.md#aufs-3.2
        Grammar::AufsIgnored => &[],
        Grammar::Plain => &[],
        // docs/facts.md#engines-48, docs/facts.md#engines-52
        Grammar::Overlay(_) => &[Device, Attribute, OpaqueAttribute],
        Grammar::OverlayData => &[],
        // docs/facts.md#engines-19
        Grammar::FuseOverlay(_) => &[Named, Device, OpaqueNamed, OpaqueAttribute],
    }
}

fn make(mark: Mark, directory: &Path) {
    let attributes = Namespace::Trusted.attributes();
    let set = |at: &Path, name: &str, value: &[u8]| {
        lsetxattr(at, name, value, XattrFlags::empty()).expect("an attribute of our own");
    };
    let empty = |name: &str| {
        fs::write(directory.join(name), "").expect("a file of our own");
        directory.join(name)
    };
    match mark {
        Named => drop(empty(".wh.gone")),
        Device => {
            let (kind, mode) = (FileType::CharacterDevice, Mode::empty());
            mknodat(CWD, directory.join("gone"), kind, mode, makedev(0, 0))
                .expect("a device of our own");
        }
        Attribute => set(&empty("gone"), attributes.whiteout, b""),
        OpaqueNamed => drop(empty(".wh..wh..opq")),
        OpaqueAttribute => set(directory, attributes.opaque, b"y"),
    }
}

#[apply(test)]
fn every_spelling_counts_its_own_marks_and_no_others() {
    needs::root("to make marks that are devices or trusted attributes");
    let home = tempfile::tempdir().expect("a temporary directory");
    for mark in marks() {
        let at = home.path().join(format!("{mark:?}"));
        fs::create_dir(&at).expect("a directory of our own");
        make(mark, &at);
        for grammar in grammars() {
            let dir = Dir::open_root(&at).expect("a directory of our own");
            let source = Source::Disk(&dir);
            let found = match mark {
                Named | Device | Attribute => {
                    let seen = grammar.look(&source, b"gone").expect("it is readable");
                    seen.whiteout
                }
                OpaqueNamed | OpaqueAttribute => grammar.opaque(&source).expect("it is readable"),
            };
            let expected = if count(grammar).contains(&mark) {
                Validity::Valid
            } else {
                Validity::Absent
            };
            assert_eq!(found, expected, "{mark:?} for {grammar:?}");
        }
    }
}

/// What holds for a spelling as a whole.
#[apply(test)]
fn every_spelling_has_its_own_rules() {
    struct Rule {
        namespace: Option<Namespace>,
        has_redirects: bool,
        is_data_only: bool,
        holds_changes_only: bool,
        honours_marks: bool,
        wants_regular_marks: bool,
        always_reads_opaque: bool,
        opaque_name: Option<&'static [u8]>,
        overrides: usize,
    }
    let aufs = Rule {
        namespace: None,
        has_redirects: false,
        is_data_only: false,
        holds_changes_only: true,
        honours_marks: true,
        // docs/facts.md#aufs-1.13
        wants_regular_marks: true,
        always_reads_opaque: false,
        opaque_name: Some(b".wh..wh..opq"),
        overrides: 0,
    };
    for grammar in grammars() {
        let rule = match grammar {
            Grammar::Aufs => Rule { ..aufs },
            Grammar::AufsIgnored => Rule {
                honours_marks: false,
                wants_regular_marks: false,
                ..aufs
            },
            Grammar::Plain => Rule {
                holds_changes_only: false,
                honours_marks: false,
                wants_regular_marks: false,
                ..aufs
            },
            Grammar::Overlay(_) => Rule {
                namespace: Some(Namespace::Trusted),
                has_redirects: true,
                wants_regular_marks: false,
                opaque_name: None,
                ..aufs
            },
            Grammar::OverlayData => Rule {
                is_data_only: true,
                honours_marks: false,
                wants_regular_marks: false,
                opaque_name: None,
                ..aufs
            },
            Grammar::FuseOverlay(_) => Rule {
                namespace: Some(Namespace::Trusted),
                wants_regular_marks: false,
                always_reads_opaque: true,
                opaque_name: None,
                overrides: 3,
                ..aufs
            },
        };
        assert_eq!(grammar.namespace(), rule.namespace, "{grammar:?}");
        let of_rules = match Merger::of(grammar) {
            Merger::Overlay(rules) => Some(rules.namespace),
            Merger::Aufs | Merger::Alone => None,
        };
        assert_eq!(of_rules, rule.namespace, "{grammar:?}");
        let facts = [
            (grammar.has_redirects(), rule.has_redirects),
            (grammar.is_data_only(), rule.is_data_only),
            (grammar.holds_changes_only(), rule.holds_changes_only),
            (grammar.honours_marks(), rule.honours_marks),
            (grammar.wants_regular_marks(), rule.wants_regular_marks),
            (grammar.always_reads_opaque(), rule.always_reads_opaque),
        ];
        for (index, (found, expected)) in facts.into_iter().enumerate() {
            assert_eq!(found, expected, "{grammar:?}, fact {index}");
        }
        assert_eq!(grammar.opaque_name(), rule.opaque_name, "{grammar:?}");
        let overrides = grammar.override_attributes();
        assert_eq!(overrides.len(), rule.overrides, "{grammar:?}");
        let is_theirs = |name: &&str| name.ends_with(".override_stat");
        assert!(overrides.iter().all(is_theirs), "{overrides:?}");
    }
}

/// A directory of a temporary one with such files, listed.
fn listed(home: &Path, names: &[&str]) -> Dir {
    for name in names {
        fs::write(home.join(name), "").expect("a file of our own");
    }
    let root = Dir::open_root(home).expect("a directory of our own");
    root.child(b".", Access::List).expect("it is readable")
}

#[apply(test)]
fn a_listing_tells_what_is_shown_without_a_look() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let long = "l".repeat(AUFS_NAME_MAX);
    let dir = listed(home.path(), &["plain", "both", ".wh.both", &long]);
    let names = dir.names().expect("it is readable");
    for (grammar, name, is_shown) in [
        (Grammar::Aufs, "plain", true),
        (Grammar::Aufs, "both", false),
        (Grammar::Aufs, ".wh.both", false),
        (Grammar::Aufs, &long, true),
        (Grammar::AufsIgnored, "both", true),
        (Grammar::AufsIgnored, ".wh.both", false),
        (Grammar::Plain, "both", true),
    ] {
        let is = grammar.is_unmarked(&names, name.as_bytes());
        assert_eq!(is, is_shown, "{grammar:?} {name}");
    }
    assert!(Grammar::Aufs.has_marks(&names) == Marks::Named);
}

/// A name that is as long as it may be needs no look, and one that is longer does.
#[apply(test)]
fn the_longest_name_is_no_mark() {
    for (length, marks) in [
        (AUFS_NAME_MAX, Marks::None),
        (AUFS_NAME_MAX + 1, Marks::Named),
    ] {
        let home = tempfile::tempdir().expect("a temporary directory");
        let dir = listed(home.path(), &["a", &"l".repeat(length)]);
        let names = dir.names().expect("it is readable");
        assert!(Grammar::Aufs.has_marks(&names) == marks, "{length}");
    }
}

/// Files that could be marks, and are none.
#[apply(test)]
fn what_only_looks_like_a_mark_is_an_entry() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let dir = listed(home.path(), &["empty", ".wh.back", ".wh..wh.back"]);
    fs::write(home.path().join("full"), "content").expect("a file of our own");
    let attribute = Namespace::User.attributes().whiteout;
    let at = home.path().join("full");
    if lsetxattr(&at, attribute, b"y", XattrFlags::empty()).is_err() {
        skip("this file system takes no attributes of users");
    }
    let source = Source::Disk(&dir);
    let overlay = Grammar::Overlay(Rules::of(Namespace::User));
    for name in ["empty", "full"] {
        let seen = overlay.look(&source, name.as_bytes()).expect("readable");
        assert_eq!(seen.whiteout, Validity::Absent, "{name}");
        assert_eq!(seen.entry, Some(Kind::File), "{name}");
    }
    // docs/facts.md#engines-19: a mark of fuse-overlayfs that has a mark itself.
    let fuse = Grammar::FuseOverlay(Namespace::User);
    let seen = fuse.look(&source, b"back").expect("readable");
    assert_eq!(seen.whiteout, Validity::TakenBack);
    // What is longer than fuse-overlayfs reads is an error to it.
    for (length, expected) in [(16, Ok(Validity::Valid)), (17, Err(Errno::RANGE))] {
        let name = "user.fuseoverlayfs.opaque";
        let value = vec![b'y'; length];
        lsetxattr(home.path(), name, &value, XattrFlags::empty()).expect("it took one");
        assert_eq!(fuse.opaque(&source), expected, "{length}");
    }
}

/// What is worth a look, told by its name and kind alone: every mark, and no more than could be one.
#[apply(test)]
fn what_could_be_a_mark_is_told_by_its_name_and_kind() {
    let mark = Some(b".wh.x".as_slice());
    for grammar in grammars() {
        let (of_names, of_kinds): (_, &[Kind]) = match grammar {
            Grammar::Aufs | Grammar::AufsIgnored => (mark, &[]),
            Grammar::Plain | Grammar::OverlayData => (None, &[]),
            // docs/facts.md#engines-48
            Grammar::Overlay(_) => (None, &[Kind::Char, Kind::File]),
            // docs/facts.md#engines-19
            Grammar::FuseOverlay(_) => (mark, &[Kind::Char]),
        };
        let kinds = [
            Kind::File,
            Kind::Directory,
            Kind::Symlink,
            Kind::Char,
            Kind::Block,
        ];
        for kind in kinds {
            let is_kind = of_kinds.contains(&kind);
            for name in [&b"x"[..], b".whx", b".wh", b".wh.x"] {
                let expected = is_kind || of_names == Some(name);
                let is = grammar.could_be_mark(name, kind);
                assert_eq!(is, expected, "{grammar:?} {kind:?} {name:?}");
            }
        }
    }
}

/// An entry says something of the name that it has, and of the one that it marks.
#[apply(test)]
fn an_entry_concerns_what_it_marks_and_itself() {
    for grammar in grammars() {
        let marks = match grammar {
            Grammar::Aufs | Grammar::AufsIgnored | Grammar::FuseOverlay(_) => true,
            Grammar::Plain | Grammar::Overlay(_) | Grammar::OverlayData => false,
        };
        for (entry, name, expected) in [
            (&b"x"[..], &b"x"[..], true),
            (b"x", b"y", false),
            (b".wh.x", b"x", marks),
            (b".wh.x", b".wh.x", true),
            (b".wh.x", b"y", false),
            (b".wh..wh.x", b"y", false),
        ] {
            let is = grammar.concerns(entry, name);
            assert_eq!(is, expected, "{grammar:?} {entry:?} {name:?}");
        }
    }
    // docs/facts.md#aufs-1.6: what is below the directory is hidden, whatever its name.
    assert!(Grammar::Aufs.concerns(b".wh..wh..opq", b"x"));
}

/// What marks of a branch's own root mean: fuse-overlayfs alone heeds them, which
/// `fuse::fuse_overlayfs_agrees` holds against the real one.
#[apply(test)]
fn marks_of_a_branchs_root() {
    let is_theirs = |grammar| matches!(grammar, Grammar::FuseOverlay(_));
    for (mark, is_cut_off) in [(".wh.", true), (".wh..wh..opq", false), ("none", false)] {
        let home = tempfile::tempdir().expect("a temporary directory");
        let dir = listed(home.path(), &[mark]);
        for grammar in grammars() {
            let found = grammar.is_cut_off(&dir);
            assert_eq!(found, Ok(is_cut_off && is_theirs(grammar)), "{grammar:?}");
            let is_opaque = mark == ".wh..wh..opq" && is_theirs(grammar);
            let found = grammar.is_opaque_root(&dir);
            assert_eq!(found, Ok(is_opaque), "{grammar:?}");
        }
    }
}

/// `x` in the place of the opaque mark: there are whiteouts by attribute (docs/facts.md#engines-52).
#[apply(test)]
fn a_directory_says_whether_whiteouts_by_attribute_are_in_it() {
    let overlay = Grammar::Overlay(Rules::of(Namespace::User));
    for (value, expected) in [(None, false), (Some(b"x"), true), (Some(b"y"), false)] {
        let home = tempfile::tempdir().expect("a temporary directory");
        let dir = listed(home.path(), &["x"]);
        if let Some(value) = value {
            let name = Namespace::User.attributes().opaque;
            if lsetxattr(home.path(), name, value, XattrFlags::empty()).is_err() {
                skip("this file system takes no attributes of users");
            }
        }
        for grammar in grammars().chain([overlay]) {
            let is = grammar.has_attribute_whiteouts(&dir);
            assert_eq!(is, Ok(expected && grammar == overlay), "{grammar:?}");
        }
    }
}

/// Of a listing's entries fuse-overlayfs's marks mark, unless they have a mark themselves, and its
/// housekeeping does not, whatever it is: `fuse::fuse_overlayfs_agrees` asks the real one.
#[apply(test)]
fn a_mark_with_a_mark_marks_nothing() {
    needs::root("to make a device");
    let home = tempfile::tempdir().expect("a temporary directory");
    let names = [".wh.gone", ".wh.back", ".wh..wh.back", "file"];
    let dir = listed(home.path(), &names);
    let mark = makedev(0, 0);
    for (name, device) in [
        ("device", mark),
        (".wh..wh.device", mark),
        ("null", makedev(1, 3)),
    ] {
        let mode = Mode::from_raw_mode(0o600);
        let made = mknodat(
            CWD,
            home.path().join(name),
            FileType::CharacterDevice,
            mode,
            device,
        );
        made.expect("root may");
    }
    let fuse = Grammar::FuseOverlay(Namespace::User);
    for (name, of) in [
        (".wh.gone", Some("gone")),
        (".wh.back", None),
        (".wh..wh.back", None),
        (".wh..wh.device", None),
        ("device", Some("device")),
        ("null", None),
        ("file", None),
    ] {
        let of = of.map(|of| layerctl::internals::whiteout::Mark::Whiteout(of.as_bytes()));
        let (mark, _) = fuse
            .mark_at(&Source::Disk(&dir), name.as_bytes())
            .expect("readable");
        assert_eq!(mark, of, "{name}");
    }
}

/// What a branch alone has of a name: no whiteout, but a name that is too long for one.
#[apply(test)]
fn a_version_is_no_mark() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let long = "l".repeat(255);
    let dir = listed(home.path(), &["gone", "there", &long]);
    let attribute = Namespace::User.attributes().whiteout;
    let gone = home.path().join("gone");
    if lsetxattr(&gone, attribute, b"y", XattrFlags::empty()).is_err() {
        skip("this file system takes no attributes of users");
    }
    let overlay = Grammar::Overlay(Rules::of(Namespace::User));
    for grammar in grammars().chain([overlay]) {
        for (name, is_there) in [
            ("gone", grammar != overlay),
            ("there", true),
            (&long[..], true),
            ("nowhere", false),
        ] {
            let version = grammar.version(&dir, name.as_bytes()).expect("readable");
            assert_eq!(version.is_some(), is_there, "{grammar:?} {name}");
        }
    }
}

/// A metacopy's attribute is empty, or has a header of four bytes and more (docs/facts.md#engines-73).
#[apply(test)]
fn a_short_value_of_a_metacopy_is_an_error() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let overlay = Grammar::Overlay(Rules::of(Namespace::User));
    let attribute = Namespace::User.attributes().metacopy;
    for (length, expected) in [
        (None, Ok(false)),
        (Some(0), Ok(true)),
        (Some(1), Err(Errno::IO)),
        (Some(3), Err(Errno::IO)),
        (Some(4), Ok(true)),
        (Some(5), Ok(true)),
    ] {
        let name = format!("{length:?}");
        let dir = listed(home.path(), &[&name]);
        if let Some(length) = length {
            let (at, value) = (home.path().join(&name), vec![0; length]);
            if lsetxattr(&at, attribute, &value, XattrFlags::empty()).is_err() {
                skip("this file system takes no attributes of users");
            }
        }
        let source = Source::Disk(&dir);
        let seen = overlay.look(&source, name.as_bytes()).expect("readable");
        let is = overlay.metacopy(&source, name.as_bytes(), &seen);
        assert_eq!(is, expected, "{name}");
    }
}

/// What of a branch's attributes is not the union's own (docs/facts.md#engines-53, docs/facts.md#engines-2026-b12).
#[apply(test)]
fn a_unions_own_attributes_are_not_shown() {
    for grammar in grammars() {
        let (is_overlay, is_fuse) = match grammar {
            Grammar::Overlay(_) => (true, false),
            Grammar::FuseOverlay(_) => (false, true),
            Grammar::Aufs | Grammar::AufsIgnored | Grammar::Plain | Grammar::OverlayData => {
                (false, false)
            }
        };
        for (name, is_shown) in [
            ("trusted.overlay.opaque", !is_overlay && !is_fuse),
            ("user.overlay.opaque", !is_fuse),
            ("user.fuseoverlayfs.opaque", !is_fuse),
            ("user.containers.override_stat", !is_fuse),
            ("security.fuseoverlayfs.override_stat", !is_fuse),
            ("user.containers.other", true),
            ("user.name", true),
        ] {
            let shown = grammar.shown_attribute(name.as_bytes());
            let expected = is_shown.then_some(name.as_bytes());
            assert_eq!(shown.as_deref(), expected, "{grammar:?} {name}");
        }
    }
}

/// A regular file is asked for a metacopy unless all that is known of it says that it is none
/// (docs/facts.md#engines-73). This one says that it is one; what is known is varied.
#[apply(test)]
fn a_file_is_asked_for_a_metacopy_if_one_fact_says_that_it_could_be() {
    let attributes = Namespace::User.attributes();
    let overlay = Grammar::Overlay(Rules::of(Namespace::User));
    let whole = |stat: Stat| Stat {
        size: 7,
        blocks: 8,
        ctime: stat.mtime,
        ..stat
    };
    type Vary = fn(&mut Seen, Stat);
    let cases: [(&str, usize, bool, Vary, bool); 8] = [
        ("nothing", 12, false, |_, _| {}, false),
        ("few names", 2, false, |_, _| {}, true),
        ("impure", 12, true, |_, _| {}, true),
        ("unknown", 12, false, |seen, _| seen.stat = None, true),
        (
            "empty",
            12,
            false,
            |seen, stat| seen.stat = Some(Stat { size: 0, ..stat }),
            true,
        ),
        (
            "not on disk",
            12,
            false,
            |seen, stat| seen.stat = Some(Stat { blocks: 0, ..stat }),
            true,
        ),
        (
            "changed later",
            12,
            false,
            |seen, stat| {
                let ctime = (stat.mtime.0 + 1, stat.mtime.1);
                seen.stat = Some(Stat { ctime, ..stat });
            },
            true,
        ),
        ("bare", 2, false, |seen, _| seen.is_bare = true, false),
    ];
    for (case, count, is_impure, vary, expected) in cases {
        let home = tempfile::tempdir().expect("a temporary directory");
        let others: Vec<String> = (1..count).map(|number| number.to_string()).collect();
        let mut all: Vec<&str> = others.iter().map(String::as_str).collect();
        all.push("file");
        let dir = listed(home.path(), &all);
        let file = home.path().join("file");
        fs::write(&file, "content").expect("a file of our own");
        if lsetxattr(&file, attributes.metacopy, b"", XattrFlags::empty()).is_err() {
            skip("this file system takes no attributes of users");
        }
        if is_impure {
            let set = lsetxattr(home.path(), attributes.impure, b"y", XattrFlags::empty());
            set.expect("it took one");
        }
        let names = dir.names().expect("it is readable");
        let source = Source::Listing(&names, Marks::Hidden, &dir);
        let mut seen = overlay.look(&source, b"file").expect("it is readable");
        let stat = whole(seen.stat.expect("a file is looked at"));
        seen.stat = Some(stat);
        vary(&mut seen, stat);
        // Elsewhere what a file takes on disk is no hint.
        let is_asked = !seen.is_bare && !dir.counts_blocks(stat.dev);
        let is = overlay.metacopy(&source, b"file", &seen);
        assert_eq!(is, Ok(expected || is_asked), "{case}");
    }
}

/// What differs by who merges the branches. fuse-overlayfs merges as overlay does, with neither redirects
/// nor metacopies to follow.
#[apply(test)]
fn every_merger_has_its_own_rules() {
    let rules = |namespace, follows_redirects, metacopy| Rules {
        namespace,
        follows_redirects,
        metacopy,
    };
    for (follows_redirects, metacopy) in [(true, true), (true, false), (false, true)] {
        let of = rules(Namespace::User, follows_redirects, metacopy);
        let merger = Merger::of(Grammar::Overlay(of));
        assert_eq!(merger, Merger::Overlay(of));
        assert_eq!(merger.follows_redirects(), follows_redirects);
        assert_eq!(merger.has_metacopies(), metacopy);
    }
    for namespace in [Namespace::Trusted, Namespace::User] {
        let merger = Merger::of(Grammar::FuseOverlay(namespace));
        assert!(
            matches!(merger, Merger::Overlay(rules) if rules.namespace == namespace),
            "{namespace:?}"
        );
        assert!(!merger.has_metacopies(), "{namespace:?}");
    }
    for grammar in grammars() {
        let (is_overlay, name_max) = match grammar {
            Grammar::Aufs | Grammar::AufsIgnored => (false, 242),
            Grammar::Overlay(_) | Grammar::FuseOverlay(_) => (true, 255),
            Grammar::Plain | Grammar::OverlayData => (false, 242),
        };
        let merger = Merger::of(grammar);
        assert_eq!(merger.name_max(), name_max, "{grammar:?}");
        assert_eq!(merger.leads_elsewhere(), is_overlay, "{grammar:?}");
        assert_eq!(merger.refuses_what_is_broken(), is_overlay, "{grammar:?}");
        assert_eq!(merger.heeds_each_opaque_mark(), is_overlay, "{grammar:?}");
        // docs/facts.md#aufs-1.6: `.wh..wh.aufs` and its like are files in the branches.
        assert_eq!(merger.keeps_files_in_branches(), !is_overlay, "{grammar:?}");
        assert_eq!(merger.can_look_again(), !is_overlay, "{grammar:?}");
        if !is_overlay {
            assert!(!merger.follows_redirects(), "{grammar:?}");
            assert!(!merger.has_metacopies(), "{grammar:?}");
        }
    }
}
