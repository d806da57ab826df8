//! How deleted things come back. `command::restore` goes down these floors once:
//!
//! ```text
//! choose       which union is meant, and which path of it
//! view         where that union is: mounted, and by which directories
//! mount        a mount of it, opened once and proved
//! deleted      what was deleted in a union, and below a directory that is there
//! diagnose     what it says of the path, and what hides it
//! locate       which version is meant: the one that shows, or the hidden one
//! revert       how a changed file makes room for the lower version
//! plan         what is to be done, as data
//! foresee      what else it brings back
//! guard        what must not be done; who else is at it
//! describe     the plan in words, and the way back
//! apply        the plan, done
//! verify       what the union shows then
//!
//! out          how a version leaves its union, as a whole
//! archive      the same as a tar file
//! staging      what is being made, until it has its place
//! mark         how marks are taken away and made
//! copy         how a version is copied
//! links        hard links among what is copied
//! attributes   what belongs to a file, as it is read
//! made         every call that changes a disk, by descriptor
//! ```

pub mod apply;
pub mod archive;
pub mod attributes;
pub mod choose;
pub mod copy;
pub mod deleted;
pub mod describe;
pub mod diagnose;
pub mod foresee;
pub mod guard;
pub mod links;
pub mod locate;
pub mod made;
pub mod mark;
pub mod mount;
pub mod out;
pub mod plan;
pub mod revert;
pub mod staging;
pub mod verify;
pub mod view;

use std::path::PathBuf;

use crate::bytes::{Bytes, shell_quote};

/// What is asked for.
pub struct Query<'a> {
    pub within: Option<&'a [u8]>,
    pub path: &'a [u8],
    pub goal: Goal,
    /// What is copied out keeps its path below this one of the destination; none for its name alone.
    pub below: Option<Bytes>,
    pub apply: Apply,
    pub depth: Depth,
    pub consent: Consent,
    /// A host copy, that is any root but `/`, may be written to.
    pub may_write_copy: bool,
}

impl Query<'_> {
    /// The command line that asks for this, for whoever may do it.
    pub fn command_line(&self) -> String {
        let path = shell_quote(&Bytes::from(self.path));
        match self.within {
            Some(name) => format!(
                "layerctl restore --in {} -- {path}",
                shell_quote(&Bytes::from(name))
            ),
            None => format!("layerctl restore {path}"),
        }
    }
}

#[derive(Clone)]
pub enum Goal {
    /// Bring a deleted path back, by this way or by the one that fits.
    Undelete(Option<Strategy>),
    /// Copy the hidden version to a directory outside.
    CopyOut(PathBuf),
    /// Put the lower version of a copied-up file back.
    Revert(Changed),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Strategy {
    /// Remove the mark that hides it
    Unhide,
    /// Copy the version below into the writable branch
    Copy,
}

/// What becomes of a changed file that is replaced.
#[derive(Clone)]
pub enum Changed {
    Save(PathBuf),
    Discard,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Apply {
    OnlyPlan,
    Now,
}

/// Whether a directory is copied with what is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Only the directory itself, with its metadata.
    OneEntry,
    Whole,
}

/// Whether more may reappear than was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consent {
    Given,
    NotGiven,
}
