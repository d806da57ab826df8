//! Every spelling of deletion, and which marks count for it: the worked example that
//! CONTRIBUTING.md follows. A new arm of `Grammar` is not built before it has its line here.

use std::fs;
use std::path::Path;

use layerctl::internals::dir::{Access, Dir, Kind};
use layerctl::internals::overlay::{Namespace, Rules};
use layerctl::internals::union::Merger;
use layerctl::internals::whiteout::{AUFS_NAME_MAX, Grammar, Marks, Source, Validity};
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
        opaque_name: Option<&'static [u8]>,
        overrides: usize,
    }
    let aufs = Rule {
        namespace: None,
        has_redirects: false,
        is_data_only: false,
        holds_changes_only: true,
        honours_marks: true,
        opaque_name: Some(b".wh..wh..opq"),
        overrides: 0,
    };
    for grammar in grammars() {
        let rule = match grammar {
            Grammar::Aufs => Rule { ..aufs },
            Grammar::AufsIgnored => Rule {
                honours_marks: false,
                ..aufs
            },
            Grammar::Plain => Rule {
                holds_changes_only: false,
                honours_marks: false,
                ..aufs
            },
            Grammar::Overlay(_) => Rule {
                namespace: Some(Namespace::Trusted),
                has_redirects: true,
                opaque_name: None,
                ..aufs
            },
            Grammar::OverlayData => Rule {
                is_data_only: true,
                honours_marks: false,
                opaque_name: None,
                ..aufs
            },
            Grammar::FuseOverlay(_) => Rule {
                namespace: Some(Namespace::Trusted),
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
