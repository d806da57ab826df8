//! What a name means, and what each branch had to say of it.

use rustix::io::Errno;
use serde::Serialize;

use super::cut::Cut;
use super::node::{DataAt, Expected, Node};
use crate::dir::{Kind, Stat};
use crate::whiteout::{MarkKind, Seen};

/// How a name is to be decided.
pub(super) struct Question<'q> {
    pub name: &'q [u8],
    pub expected: Expected,
    /// A mark that is to be looked past: its branch and kind.
    pub without: Option<(usize, MarkKind)>,
    /// What a branch's own directory here is known to say of the name.
    pub seen: Option<(usize, Seen)>,
}

impl<'q> Question<'q> {
    pub fn new(name: &'q [u8]) -> Question<'q> {
        Question {
            name,
            expected: Expected::Anything,
            without: None,
            seen: None,
        }
    }

    /// Whether a branch's mark is the one that is to be looked past.
    pub fn looks_past(&self, branch: usize, kind: MarkKind) -> bool {
        self.without == Some((branch, kind))
    }
}

/// What a name means.
#[derive(Debug)]
pub enum Entry<'s> {
    /// No branch that takes part has it.
    Missing,
    /// A whiteout of exactly this name deletes it.
    Deleted {
        /// The whiteout.
        by: Cut,
    },
    /// The union refuses the name.
    Broken {
        /// What a process inside the union is told.
        errno: Errno,
        /// What the union cannot accept.
        why: Why,
    },
    /// Anything but a directory.
    Leaf {
        /// The branch that provides it.
        from: usize,
        /// What it is.
        kind: Kind,
        /// What `lstat` said of it in its branch, where that was asked: [`Node::stat_of`].
        stat: Option<Stat>,
        /// Where the content is, if only the metadata is in `from`.
        data: Option<Box<DataAt>>,
    },
    /// A directory, which may be merged of several.
    Dir(Node<'s>),
}

impl Entry<'_> {
    /// What a name means that the union refuses before it looks at any branch
    /// ([`Grammar::refuses`](crate::whiteout::Grammar::refuses)).
    #[cold]
    pub(super) fn refused(errno: Errno) -> Self {
        let why = match errno {
            Errno::NOENT => return Entry::Missing,
            Errno::PERM => Why::Reserved,
            _ => Why::TooLong,
        };
        Entry::Broken { errno, why }
    }

    /// What is there, if anything is.
    pub fn kind(&self) -> Option<Kind> {
        match self {
            Entry::Leaf { kind, .. } => Some(*kind),
            Entry::Dir(_) => Some(Kind::Directory),
            Entry::Missing | Entry::Deleted { .. } | Entry::Broken { .. } => None,
        }
    }

    /// What `lstat` said of the entry in its branch, where that was asked.
    pub fn stat(&self) -> Option<Stat> {
        match self {
            Entry::Leaf { stat, .. } => *stat,
            Entry::Dir(_) | Entry::Missing | Entry::Deleted { .. } | Entry::Broken { .. } => None,
        }
    }

    /// Where the content of a file is, if only the metadata is in the branch that provides it.
    pub fn data(&self) -> Option<&DataAt> {
        match self {
            Entry::Leaf { data, .. } => data.as_deref(),
            Entry::Dir(_) | Entry::Missing | Entry::Deleted { .. } | Entry::Broken { .. } => None,
        }
    }

    /// The branch whose entry the merged view shows.
    pub fn provider(&self) -> Option<usize> {
        match self {
            Entry::Leaf { from, .. } => Some(*from),
            Entry::Dir(node) => node.provider(),
            Entry::Missing | Entry::Deleted { .. } | Entry::Broken { .. } => None,
        }
    }
}

/// Why the union refuses a name. A `branch` is the index of the one that holds what is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It begins with `.wh.`, which the union keeps for itself.
    Reserved,
    /// It is longer than a name of the union can be.
    TooLong,
    /// It stands beside its own whiteout in the first branch searched.
    BesideWhiteout { branch: usize },
    /// Its whiteout is not a regular file.
    BadWhiteout { branch: usize },
    /// The directory's opaque mark is not a regular file.
    BadOpaque { branch: usize },
    /// Too many symbolic links.
    Links,
    /// A component of the path is not a directory.
    NotDirectory,
    /// A redirect in a branch that the union may not follow.
    Redirect { branch: usize },
    /// A redirect that can be no name.
    BadRedirect { branch: usize },
    /// A file without content in a branch whose metacopies the union may not follow.
    Metacopy { branch: usize },
    /// A file whose content is nowhere.
    NoData { branch: usize },
    /// A metacopy attribute that cannot be one.
    BadMetacopy { branch: usize },
}

/// One branch's verdict on a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Says {
    /// Its entry is what the union shows.
    Provides,
    /// It has the content of the file, whose metadata is the provider's.
    ProvidesData,
    /// Its directory is shown, and hides what is below.
    ProvidesOpaque,
    /// Its directory is merged under the provider's.
    Merges,
    /// The same, and it hides what is below.
    MergesOpaque,
    /// It holds a whiteout of the name.
    Whiteout,
    /// It holds a mark that the union cannot read.
    Invalid,
    /// It has the name, which is no directory, under a directory of a higher branch.
    Skipped,
    /// It has the name, but a higher branch provides it.
    Shadowed,
    /// It has the name, behind a mark of a higher branch.
    Hidden,
    /// It does not have the name.
    Nothing,
    /// It could not be read.
    Unread,
}

impl Says {
    /// As a table has it.
    pub fn words(self) -> &'static str {
        match self {
            Says::ProvidesData => "provides the content",
            Says::Provides => "provides",
            Says::ProvidesOpaque => "provides, opaque",
            Says::Merges => "merges",
            Says::MergesOpaque => "merges, opaque",
            Says::Whiteout => "whiteout",
            Says::Invalid => "bad mark",
            Says::Skipped => "skipped",
            Says::Shadowed => "shadowed",
            Says::Hidden => "hidden",
            Says::Nothing => "-",
            Says::Unread => "not read",
        }
    }

    /// Of a directory that is shown: as the first of its name, or merged under another.
    pub(super) fn of_directory(is_first: bool, is_opaque: bool) -> Says {
        match (is_first, is_opaque) {
            (true, false) => Says::Provides,
            (true, true) => Says::ProvidesOpaque,
            (false, false) => Says::Merges,
            (false, true) => Says::MergesOpaque,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_says_why() {
        // docs/facts.md#aufs-1.9, #aufs-1.10, and fuse-overlayfs denies that it has such a name.
        assert!(matches!(Entry::refused(Errno::NOENT), Entry::Missing));
        for (errno, expected) in [
            (Errno::PERM, Why::Reserved),
            (Errno::NAMETOOLONG, Why::TooLong),
        ] {
            let Entry::Broken { errno: said, why } = Entry::refused(errno) else {
                panic!("{errno} is no refusal");
            };
            assert_eq!((said, why), (errno, expected));
        }
    }
}
