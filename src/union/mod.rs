//! The core: what a name means in a stack of branches.
//!
//! A [`Node`] is one place of the merged view: the directories that are merged there, topmost
//! first. [`Node::child`] is the one function that decides what a name in it means. Everything
//! else - [`lookup`] along a path, listings, differences - folds it.
//!
//! ```text
//! lookup       child, folded over a path: links, `..`, the trail of verdicts
//! listing      the names that the branches have at a place
//! version      one version of an entry, opened
//! decide       child itself: a question, and by whose rules it is answered
//! aufs         AUFS's rules      \ each in three steps:
//! overlay      overlay's rules   / a branch is asked, its answer merged, what marks hide cut
//! entry        what a name can mean, and what each branch said of it
//! node         the directories merged at one place
//! stack        the branches, and what one of them has by itself
//! cut          a mark that keeps branches out
//! merger       who makes one view of the branches, and what differs by who it is
//! ```
//!
//! Each imports only from those below it.

#![deny(clippy::wildcard_enum_match_arm)]

mod aufs;
mod cut;
mod decide;
mod entry;
mod listing;
mod lookup;
mod merger;
mod node;
mod overlay;
mod stack;
mod version;

pub use cut::Cut;
pub use entry::{Entry, Says, Why};
pub use listing::Listed;
pub use lookup::{Follow, Link, Resolution, lookup};
pub use merger::Merger;
pub use node::{DataAt, Node, Reading};
pub use stack::{Branch, IdMap, IdRange, Stack};
pub use version::OpenVersion;
