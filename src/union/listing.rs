//! The names of a place.

use std::sync::Arc;

use smallvec::SmallVec;

use super::entry::Entry;
use super::node::{Node, Part};
use crate::dir::{Kind, Names};
use crate::error::{Error, Result};
use crate::whiteout::{FEW, Grammar, Marks, Source};

/// How many names the kernel lists in the time that it takes to look one up.
const LISTED_FOR_ASKED: usize = 8;

impl<'s> Node<'s> {
    /// Every name that any branch has here, marks and housekeeping left out, sorted. Whether the
    /// union shows it is for [`Node::child`] to say.
    ///
    /// # Errors
    /// A directory that cannot be listed.
    pub fn names(&self) -> Result<Listing> {
        let mut sources = Sources::with_capacity(self.parts.len());
        for part in &self.parts {
            sources.push((self.read_part(part)?, self.grammar(part)));
        }
        let mut order = Vec::new();
        if sources.len() > 1 {
            for (source, (names, _)) in sources.iter().enumerate() {
                order.extend((0..names.count()).map(|at| (source, at)));
            }
            let name = |&(source, at): &(usize, usize)| sources[source].0.get(at).map(|of| of.0);
            // A stable sort merges what is in order already, as the names of each source are.
            order.sort_by(|a, b| name(a).cmp(&name(b)));
        }
        Ok(Listing { sources, order })
    }

    /// The same place, each of its directories read where that is less work than to ask it for so
    /// many names. The work does not grow with what else is in a directory.
    pub fn read_for(self, count: usize) -> Node<'s> {
        if count <= FEW {
            self
        } else {
            self.read_up_to(count.saturating_mul(LISTED_FOR_ASKED))
        }
    }

    /// The same place, its directories read.
    pub fn read(self) -> Node<'s> {
        self.read_up_to(usize::MAX)
    }

    fn read_up_to(mut self, most: usize) -> Node<'s> {
        for part in &mut self.parts {
            // A directory that may not be listed is asked name by name.
            if part.names.is_none()
                && let Ok(Some(names)) = part.dir.names_up_to(most)
            {
                let grammar = self.stack.branches[part.branch].grammar;
                part.marks = grammar.has_marks(&names);
                part.names = Some(Arc::new(names));
            }
        }
        self
    }

    /// The branch whose listing is the only one here and alone says what its names mean, but for
    /// its directories.
    pub fn only_listing(&self) -> Option<usize> {
        match self.parts.as_slice() {
            [part] if part.marks != Marks::Hidden => Some(part.branch),
            _ => None,
        }
    }

    /// The branch that provides an entry, which is of the kind that is listed, where such a listing
    /// says so at once. It is what [`Node::child`] says.
    pub fn as_listed(&self, name: &[u8], kind: Kind) -> Option<usize> {
        let [part] = self.parts.as_slice() else {
            return None;
        };
        let is_as_listed = match (&part.names, part.marks) {
            _ if kind == Kind::Directory => false,
            (Some(_), Marks::None) => true,
            (Some(names), Marks::Named) => {
                let grammar = self.grammar(part);
                grammar.is_unmarked(names, name)
            }
            (Some(_), Marks::Hidden) | (None, _) => false,
        };
        is_as_listed.then_some(part.branch)
    }

    /// Whether the kernel's `readdir` lists `name` here. It lists a few names that `lstat` denies:
    /// an overlay's does not heed the whiteouts of the lowest branch, and AUFS's hears of a name
    /// before it hears of the whiteout beside it.
    ///
    /// # Errors
    /// A directory that cannot be listed.
    pub fn readdir_lists(&self, name: &[u8]) -> Result<bool> {
        for part in &self.parts {
            let names = self.read_part(part)?;
            let listed = match self.grammar(part) {
                Grammar::FuseOverlay(_) => {
                    let entry = self.child(name)?;
                    Some(!matches!(entry, Entry::Missing | Entry::Deleted { .. }))
                }
                Grammar::Overlay(_) => self.overlay_lists(part, &names, name)?,
                grammar @ (Grammar::Aufs
                | Grammar::AufsIgnored
                | Grammar::Plain
                | Grammar::OverlayData) => {
                    let is_deleted = || {
                        let mark = grammar.whiteout_of(name);
                        grammar.honours_marks() && names.kind(&mark).is_some()
                    };
                    match names.kind(name) {
                        Some(_) => Some(true),
                        None => is_deleted().then_some(false),
                    }
                }
            };
            if let Some(listed) = listed {
                return Ok(listed);
            }
        }
        Ok(false)
    }

    /// Whether an overlay's `readdir` lists `name`, as far as one branch decides it.
    fn overlay_lists(&self, part: &Part, names: &Names, name: &[u8]) -> Result<Option<bool>> {
        let kind = names.kind(name);
        // A directory of one branch is read as it is, whiteouts and all.
        if self.parts.len() == 1 {
            return Ok(Some(kind.is_some()));
        }
        match self.grammar(part).look(&Source::Disk(&part.dir), name) {
            Ok(seen) if seen.whiteout.ends_search() => Ok(Some(false)),
            // Where there can be whiteouts by attribute the kernel looks at files, and leaves out
            // those that it refuses.
            Ok(_) if kind == Some(Kind::File) => Ok(Some(!self.has_attribute_whiteouts(part)?)),
            _ => Ok(kind.map(|_| true)),
        }
    }

    /// Whether the kernel looks for whiteouts by attribute when it lists a branch's directory: it
    /// does not ask the upper branch, nor the lowest of the union.
    fn has_attribute_whiteouts(&self, part: &Part) -> Result<bool> {
        let branch = &self.stack.branches[part.branch];
        let lowest = self.roots.as_ref().and_then(|roots| roots.last());
        if branch.permission.is_writable() || lowest.is_some_and(|of| of.branch == part.branch) {
            return Ok(false);
        }
        let has_whiteouts = branch.grammar.has_attribute_whiteouts(&part.dir);
        has_whiteouts.map_err(|errno| Error::io(self.host_path(part), errno))
    }
}

/// The listings of a place, and how each is to be read.
type Sources = SmallVec<[(Arc<Names>, Grammar); 1]>;

/// The names of a place, of all branches there.
#[derive(Debug)]
pub struct Listing {
    sources: Sources,
    /// Every name's source, and its place in that. It is empty where there is only one source.
    order: Vec<(usize, usize)>,
}

/// A name of a place.
#[derive(Debug, Clone, Copy)]
pub struct Listed<'l> {
    /// The name, as on disk.
    pub name: &'l [u8],
    /// The kind of the topmost entry of that name.
    pub kind: Kind,
    /// Whether any branch has a directory of that name.
    pub could_be_directory: bool,
}

impl Listing {
    fn get(&self, at: usize) -> Option<(&[u8], Kind, Grammar)> {
        let (source, at) = *self.order.get(at)?;
        let (names, grammar) = &self.sources[source];
        let (name, kind) = names.get(at)?;
        Some((name, kind, *grammar))
    }

    /// Each name once, without those of marks and housekeeping.
    pub fn iter(&self) -> impl Iterator<Item = Listed<'_>> {
        let mut at = 0;
        let single = match self.sources.as_slice() {
            [(names, grammar)] => Some((&**names, *grammar)),
            _ => None,
        };
        std::iter::from_fn(move || {
            loop {
                let (name, kind, grammar) = match single {
                    Some((names, grammar)) => {
                        let (name, kind) = names.get(at)?;
                        (name, kind, grammar)
                    }
                    None => self.get(at)?,
                };
                at += 1;
                if grammar.hides_entry(name) {
                    continue;
                }
                let mut could_be_directory = kind == Kind::Directory;
                // Lower sources may list the same name.
                while single.is_none()
                    && let Some((next, kind, grammar)) = self.get(at)
                    && next == name
                    && !grammar.hides_entry(next)
                {
                    could_be_directory |= kind == Kind::Directory;
                    at += 1;
                }
                return Some(Listed {
                    name,
                    kind,
                    could_be_directory,
                });
            }
        })
    }

    /// The names alone.
    pub fn to_vec(&self) -> Vec<Vec<u8>> {
        self.iter().map(|listed| listed.name.to_vec()).collect()
    }
}
