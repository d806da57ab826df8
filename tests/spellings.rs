//! Every spelling of deletion, and which marks count for it: the worked example that
//! CONTRIBUTING.md follows. A new arm of `Grammar` is not built before it has its line here.

use std::fs;
use std::path::Path;

use layerctl::internals::dir::Dir;
use layerctl::internals::overlay::{Namespace, Rules};
use layerctl::internals::whiteout::{Grammar, Source, Validity};
use rustix::fs::{CWD, FileType, Mode, XattrFlags, lsetxattr, makedev, mknodat};

use crate::lab::needs;

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

const MARKS: [Mark; 5] = [Named, Device, Attribute, OpaqueNamed, OpaqueAttribute];

/// The spellings, one of each arm.
fn grammars() -> [Grammar; 6] {
    [
        Grammar::Aufs,
        Grammar::AufsIgnored,
        Grammar::Plain,
        Grammar::Overlay(Rules::of(Namespace::Trusted)),
        Grammar::OverlayData,
        Grammar::FuseOverlay(Namespace::Trusted),
    ]
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
    for mark in MARKS {
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
