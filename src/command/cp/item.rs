//! One version that is to be copied.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use super::{Destination, Row};
use crate::bytes::{self, Bytes};
use crate::command::Context;
use crate::command::asked::Asked;
use crate::dir::Kind;
use crate::error::Result;
use crate::restore::locate::{Located, Sought, locate};
use crate::union::Follow;

/// A version, and the path below the destination that it gets.
pub struct Item {
    pub asked: Asked,
    pub sought: Sought,
    /// The directory below the destination below which it keeps its path; none for its name alone.
    pub below: Option<Bytes>,
    /// Where in the union the path that it keeps begins.
    pub within: Bytes,
    /// Only what is in the directory is meant: `DIR/.`
    pub is_content: bool,
}

impl Item {
    pub fn locate(&self, follow: Follow) -> Result<Result<Located<'_>, String>> {
        locate(
            &self.asked.union.stack,
            &self.asked.path,
            follow,
            self.sought,
        )
    }

    /// What is hidden in a directory that is there.
    pub fn hidden_in(&self, context: &mut Context<'_>, to: &Destination) -> Result<Vec<Item>> {
        let missing = self.asked.missing(context)?;
        let name = match to {
            Destination::Name(to) => to.file_name().map_or(&b""[..], OsStr::as_bytes),
            _ if self.is_content => b"",
            _ if self.asked.path.has_parents() => missing.directory.file_name(),
            _ => self.asked.path.file_name(),
        };
        let named = Bytes::absolute(bytes::components(name));
        let (below, within) = match &self.below {
            Some(below) => (below.clone(), Bytes::from("/")),
            None => (named, missing.directory),
        };
        let items = missing.paths.into_iter().map(|path| Item {
            below: Some(below.clone()),
            within: within.clone(),
            asked: Asked {
                path,
                ..self.asked.clone()
            },
            is_content: false,
            ..*self
        });
        Ok(items.collect())
    }

    pub fn row(&self, located: &Located<'_>, to: Bytes) -> Row {
        let union = &self.asked.union.target.union;
        // A hidden one may be one of another stack, that the branch began as a copy of.
        let is_own = self.sought == Sought::Shown || union.base.is_none();
        let branch = located.entry.provider().filter(|_| is_own);
        Row {
            target: self.asked.label.clone(),
            path: self.asked.path.clone(),
            kind: located.entry.kind().unwrap_or(Kind::Directory),
            layer: branch.and_then(|of| union.layer_id(of)).map(str::to_owned),
            branch,
            to,
            entries: 0,
            size: 0,
            applied: false,
        }
    }

    /// Its path, as it is kept where it is copied to. A link that was followed keeps its name; `..`
    /// would lead out of there, so that a path with one is the path that it leads to.
    pub fn path<'p>(&'p self, located: &'p Located<'_>) -> &'p Bytes {
        if self.asked.path.has_parents() {
            &located.path
        } else {
            &self.asked.path
        }
    }

    /// What it is called where it is copied to, if only its directory is given.
    pub fn name(&self, located: &Located<'_>) -> Vec<u8> {
        match &located.place {
            Some(_) => self.path(located).file_name().to_vec(),
            None => Vec::new(),
        }
    }

    /// Its directory below the destination, and its name there, where it keeps its path.
    pub fn kept(&self, located: &Located<'_>) -> Option<(Bytes, Vec<u8>)> {
        let below = self.below.as_ref()?;
        let inside = self.path(located).strip_prefix(&self.within)?;
        let path = below.join_path(&inside);
        Some((path.parent(), path.file_name().to_vec()))
    }
}
