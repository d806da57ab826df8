//! How the lower version of a file comes back that the writable branch has changed or made anew.

use std::path::PathBuf;

use super::Changed;
use super::diagnose::Diagnosis;
use super::locate::{Located, beneath};
use crate::dir::Kind;
use crate::error::{Error, Result};
use crate::union::{Node, Stack};

/// What takes the place of the writable branch's version, and where that goes.
pub struct Revert<'s> {
    pub writable: usize,
    /// The directory in the whole view.
    pub place: Node<'s>,
    pub name: Vec<u8>,
    /// The directory that has the lower version.
    pub below: Node<'s>,
    /// A copy of it is made, since it would not show by itself: its directory is opaque, or the layer
    /// began as a copy of another.
    pub is_hidden: bool,
    pub save: Option<PathBuf>,
}

/// What is to be done to have the lower version back; or why there is nothing to do. `is_mounted`: the
/// union is, and is written through.
///
/// # Errors
/// It could be done and is refused, with the reason; a branch that cannot be asked.
pub fn revert<'s>(
    stack: &'s Stack,
    diagnosis: &Diagnosis<'s>,
    changed: &Changed,
    is_mounted: bool,
) -> Result<Result<Revert<'s>, &'static str>> {
    let found = &diagnosis.found;
    let Some(writable) = stack.writable() else {
        return Ok(Err("the union has no writable branch"));
    };
    let (Some((place, name)), Some(kind)) = (found.place.clone(), found.entry.kind()) else {
        return Ok(Err(
            "it is not there; restore brings deleted files back without --revert",
        ));
    };
    if kind == Kind::Directory {
        return Err(Error::Refused {
            what: format!("{} is a directory", found.path),
            hint: "revert the files in it one by one; `layerctl changes` lists them".into(),
        });
    }
    if found.entry.provider() != Some(writable) {
        return Ok(Err(
            "it was not changed: the writable branch does not have it",
        ));
    }
    let Some((below, kind, branch)) = lower(stack, diagnosis, &place, (&name, writable))? else {
        return Ok(Err("it was made here: there is no lower version"));
    };
    let is_hidden = stack.base.is_some() || !place.branches().any(|of| of == branch);
    if kind == Kind::Directory && (is_hidden || is_mounted) {
        return Ok(Err(
            "it has taken the place of a directory: copy that out with --to DIR -r, or stop the container \
             (unmount the union) and run this again",
        ));
    }
    Ok(Ok(Revert {
        writable,
        place,
        name,
        below,
        is_hidden,
        save: match changed {
            Changed::Save(to) => Some(to.clone()),
            Changed::Discard => None,
        },
    }))
}

/// The directory that has the lower version, what that is, and the branch that has it. In an overlay the
/// writable branch may lead to other directories than the path does.
fn lower<'s>(
    stack: &'s Stack,
    diagnosis: &Diagnosis<'s>,
    place: &Node<'s>,
    (name, writable): (&[u8], usize),
) -> Result<Option<(Node<'s>, Kind, usize)>> {
    if stack.merger().leads_elsewhere() {
        let below = place.narrowed(|branch| branch != writable);
        let entry = below.child(name)?;
        if let (Some(kind), Some(branch)) = (entry.kind(), entry.provider()) {
            return Ok(Some((below, kind, branch)));
        }
    }
    let Some(Located { place, entry, .. }) = beneath(stack, diagnosis)? else {
        return Ok(None);
    };
    Ok(match (place, entry.kind(), entry.provider()) {
        (Some((below, _)), Some(kind), Some(branch)) => Some((below, kind, branch)),
        _ => None,
    })
}
