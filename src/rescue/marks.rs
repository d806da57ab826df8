//! What is in a layer's directory and not in its archive, and what a union makes of that.

use super::proof::What;
use super::prover::Prover;
use crate::bytes::Bytes;
use crate::dir::Kind;
use crate::error::{Error, Result};
use crate::restore::archive::OCI_WHITEOUT;
use crate::union::{Entry, Follow, Node, Reading, lookup};
use crate::whiteout::Mark;

/// The ends of overlay's attributes that say that something is elsewhere: no archive has them.
const ELSEWHERE: [&str; 2] = [".overlay.redirect", ".overlay.metacopy"];

impl<'s> Prover<'s> {
    /// Sees that the archive has an entry that is there. A directory comes back.
    pub(super) fn known(
        &mut self,
        place: &Node<'s>,
        branch: usize,
        (name, kind): (&[u8], Kind),
    ) -> Result<Option<Node<'s>>> {
        let path = place.path_of(name);
        let grammar = self.subject.stack.branches[branch].grammar;
        let mark = match place.mark(branch, name)? {
            Some(Mark::Whiteout(hidden)) => {
                let mark = [OCI_WHITEOUT, hidden].concat();
                Some(place.path_of(&mark))
            }
            Some(Mark::Opaque) => Some(place.path_of(b".wh..wh..opq")),
            None if grammar.hides_entry(name) => return Ok(None),
            None => None,
        };
        if let Some(mark) = mark {
            // What is too much is the mark, whatever it is called here.
            if !self.found.has(&mark) {
                self.fault(path, What::NotInTheLayer);
            }
            return Ok(None);
        }
        let is_known = self.found.has(&path);
        // What the archive has was compared when its entry was read, attributes and all.
        if is_known && kind != Kind::Directory {
            return Ok(None);
        }
        if !is_known {
            self.has_its_own(place, branch, (name, &path))?;
        }
        let below = match place.child(name)? {
            // What composefs makes for itself is no entry.
            Entry::Missing | Entry::Deleted { .. } => return Ok(None),
            Entry::Dir(below) if kind == Kind::Directory => below,
            Entry::Dir(_) | Entry::Leaf { .. } | Entry::Broken { .. } => {
                if !is_known {
                    self.fault(path, What::NotInTheLayer);
                }
                return Ok(None);
            }
        };
        // The engine has made the directories on the way to an entry.
        if !is_known && !self.found.leads_on(&path) {
            self.fault(path, What::NotInTheLayer);
        } else if self.hides_unsaid(&below, branch, &path)? {
            self.fault(path, What::Xattr);
        }
        Ok(Some(below))
    }

    /// What an overlay takes from elsewhere is not what the archive says, whatever is here.
    fn has_its_own(
        &mut self,
        place: &Node<'s>,
        branch: usize,
        (name, path): (&[u8], &Bytes),
    ) -> Result<()> {
        let Some(dir) = place.dir(branch).filter(|_| !self.is_image()) else {
            return Ok(());
        };
        let names = dir.attribute_names(name);
        let names = names.map_err(|errno| Error::io(place.on_host(branch, name), errno))?;
        self.is_elsewhere(path, names.iter().map(String::as_bytes));
        Ok(())
    }

    /// Says so where one of an entry's attributes lets an overlay take it from elsewhere.
    pub(super) fn is_elsewhere<'n>(
        &mut self,
        path: &Bytes,
        mut names: impl Iterator<Item = &'n [u8]>,
    ) {
        let is_elsewhere = |of: &&[u8]| ELSEWHERE.iter().any(|end| of.ends_with(end.as_bytes()));
        if let Some(of) = names.find(is_elsewhere) {
            let of = Bytes::from(of);
            let what = format!("{path} has {of}: an overlay takes it from elsewhere");
            self.found.proof.leave(what);
        }
    }

    /// Whether a directory is opaque, and the archive says of a name that this hides in the layers below
    /// neither that it is deleted nor that the directory is opaque, or was made anew.
    fn hides_unsaid(&self, below: &Node<'s>, branch: usize, path: &Bytes) -> Result<bool> {
        if !below.is_opaque(branch)? {
            return Ok(false);
        }
        let has = |path: &Bytes| self.found.has(path);
        let anew = [OCI_WHITEOUT, path.file_name()].concat();
        if has(&path.join(b".wh..wh..opq")) || has(&path.parent().join(&anew)) {
            return Ok(false);
        }
        let last = self.subject.branches.iter().max().copied();
        let stack = self.subject.stack;
        let root = stack.root(|of| Some(of) > last, Reading::Nothing);
        let Entry::Dir(hidden) = lookup(&root, path.as_bytes(), Follow::NotLast)?.entry else {
            return Ok(false);
        };
        for of in hidden.names()?.iter() {
            let mark = path.join(&[OCI_WHITEOUT, of.name].concat());
            let is_there = hidden.child(of.name)?.kind().is_some();
            let is_made_anew = has(&path.join(of.name));
            if is_there && !is_made_anew && !has(&mark) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
