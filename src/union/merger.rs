//! Who makes one view of the branches: what is no question of a branch but of what merges them.

use crate::overlay::Rules;
use crate::whiteout::{AUFS_NAME_MAX, Grammar, OVERLAY_NAME_MAX};

/// By whose rules the branches become one view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Merger {
    /// AUFS.
    Aufs,
    /// Overlay, the kernel's or fuse-overlayfs.
    Overlay(Rules),
    /// Nothing: a directory that is shown as it is, such as a whole copy or a host's root. By
    /// AUFS's rules a single branch without marks is just that.
    Alone,
}

// A further one is one more arm above, and the compiler names every question that it must answer.

impl Merger {
    /// Who reads a topmost branch that spells its marks so.
    pub fn of(topmost: Grammar) -> Merger {
        match topmost {
            Grammar::Aufs | Grammar::AufsIgnored => Merger::Aufs,
            Grammar::Overlay(rules) => Merger::Overlay(rules),
            // It has neither redirects nor metacopies to follow.
            Grammar::FuseOverlay(namespace) => Merger::Overlay(Rules {
                namespace,
                ..Rules::DEFAULT
            }),
            Grammar::Plain | Grammar::OverlayData => Merger::Alone,
        }
    }

    /// The longest name that the view has, in bytes.
    pub fn name_max(self) -> usize {
        match self {
            Merger::Overlay(_) => OVERLAY_NAME_MAX,
            Merger::Aufs | Merger::Alone => AUFS_NAME_MAX,
        }
    }

    /// Whether a directory may lead, in a branch below, to others than those of its own path.
    pub fn leads_elsewhere(self) -> bool {
        match self {
            Merger::Overlay(_) => true,
            Merger::Aufs | Merger::Alone => false,
        }
    }

    /// Whether marks say where a directory leads to, or where a file's content is.
    pub fn follows_redirects(self) -> bool {
        match self {
            Merger::Overlay(rules) => rules.follows_redirects,
            Merger::Aufs | Merger::Alone => false,
        }
    }

    /// Whether the content of a file may be in another branch than the file.
    pub fn has_metacopies(self) -> bool {
        match self {
            Merger::Overlay(rules) => rules.metacopy,
            Merger::Aufs | Merger::Alone => false,
        }
    }

    /// Whether an entry that is answered with an error is neither there nor deleted, whatever the
    /// branches have of it.
    pub fn refuses_what_is_broken(self) -> bool {
        match self {
            Merger::Overlay(_) => true,
            Merger::Aufs | Merger::Alone => false,
        }
    }

    /// Whether its branches may be changed below a mount, since that can be told to look again.
    pub fn can_look_again(self) -> bool {
        match self {
            Merger::Aufs | Merger::Alone => true,
            Merger::Overlay(_) => false,
        }
    }

    /// Whether a directory that is opaque hides what an opaque directory below it has.
    pub fn heeds_each_opaque_mark(self) -> bool {
        match self {
            Merger::Overlay(_) => true,
            Merger::Aufs | Merger::Alone => false,
        }
    }

    /// Whether it keeps files of its own in its branches, which are left over when it ends.
    pub fn keeps_files_in_branches(self) -> bool {
        match self {
            Merger::Aufs | Merger::Alone => true,
            Merger::Overlay(_) => false,
        }
    }
}
