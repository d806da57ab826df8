//! What is known of a layer once it was held against its archive: faults, and what is not proved.

use std::collections::HashSet;

use serde::Serialize;

use crate::bytes::Bytes;
use crate::engine::stored::RecordFault;
use crate::union::Stack;

/// What is wrong with an entry of a layer, or a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum What {
    /// Its size among it.
    Content,
    Mode,
    Owner,
    Time,
    Xattr,
    Type,
    Link,
    Missing,
    #[serde(rename = "not in the layer")]
    NotInTheLayer,
    #[serde(rename = "whiteout lost")]
    WhiteoutLost,
    #[serde(rename = "opaque mark lost")]
    OpaqueMarkLost,
    /// What a record or a recipe gives has another digest.
    Digest,
    /// A record names something else than is there.
    Record,
}

impl What {
    pub fn word(self) -> &'static str {
        match self {
            What::Content => "content",
            What::Mode => "mode",
            What::Owner => "owner",
            What::Time => "time",
            What::Xattr => "xattr",
            What::Type => "type",
            What::Link => "link",
            What::Missing => "missing",
            What::NotInTheLayer => "not in the layer",
            What::WhiteoutLost => "whiteout lost",
            What::OpaqueMarkLost => "opaque mark lost",
            What::Digest => "digest",
            What::Record => "record",
        }
    }
}

/// What is known of a layer once it was held against its archive.
#[derive(Debug, Default)]
pub struct Proof {
    pub faults: Vec<(Bytes, What)>,
    /// How many there are beside those.
    pub more: usize,
    /// What is wrong with records of it.
    pub records: Vec<RecordFault>,
    /// Why not all of it can be proved.
    pub unproved: Vec<String>,
    /// In what a copy differs from what it is a copy of, beside what its archive has.
    pub inherited: Vec<(Bytes, What)>,
    /// Some content could not be read, or is nowhere.
    pub has_unread: bool,
    /// How long the archive is, and what is in its files, in bytes.
    pub archive_size: u64,
    pub content_size: u64,
    /// The same with what symbolic links say, which some drivers count.
    pub content_and_links: u64,
}

/// The faults of a layer that another one is a copy of.
#[derive(Debug, Default)]
pub struct Faults {
    paths: HashSet<Bytes>,
    /// What was a directory there may be none.
    gone: HashSet<Bytes>,
}

impl Faults {
    /// Whether a copy, which is as it was, differs because of one of them.
    fn is_cause(&self, path: &Bytes, what: What) -> bool {
        if self.paths.contains(path) {
            return true;
        }
        let mut here = path.clone();
        while what == What::NotInTheLayer && here.as_bytes() != b"/" {
            here = here.parent();
            if self.gone.contains(&here) {
                return true;
            }
        }
        false
    }
}

/// How many reasons are told why something cannot be proved.
const REASONS_MAX: usize = 100;

impl Proof {
    /// Takes what a copy differs in for faults of it, unless it is what it was copied from that differs.
    pub fn inherit(&mut self, below: Option<&Faults>) {
        let inherited = std::mem::take(&mut self.inherited).into_iter();
        let is_own =
            |(path, what): &(Bytes, What)| below.is_none_or(|below| !below.is_cause(path, *what));
        self.faults.extend(inherited.filter(is_own));
    }

    /// What differs in the layer, for those who look at a copy of it.
    pub fn all_faults(&self) -> Faults {
        let mut faults = Faults::default();
        for (path, what) in self.faults.iter().chain(&self.inherited) {
            faults.paths.insert(path.clone());
            if matches!(what, What::Missing | What::Type) {
                faults.gone.insert(path.clone());
            }
        }
        faults
    }

    /// Notes why not all of it can be proved. Who wrote the layer's records decides how many reasons there
    /// are, and not how many are kept.
    pub(super) fn leave(&mut self, why: impl Into<String>) {
        match self.unproved.len() {
            len if len < REASONS_MAX => self.unproved.push(why.into()),
            REASONS_MAX => self.unproved.push("and more".into()),
            _ => {}
        }
    }
}

/// How a layer is held against its archive.
#[derive(Debug, Clone, Copy)]
pub struct Manner {
    /// Contents are not read.
    pub is_fast: bool,
    /// Owners are not as the archive has them: the store keeps them as others.
    pub is_remapped: bool,
    /// The engine does not take `user.*` attributes into archives: docs/facts.md#engines-16.
    pub drops_user_attributes: bool,
}

/// The branches that are one layer.
pub struct Subject<'s> {
    pub stack: &'s Stack,
    pub branches: &'s [usize],
}
