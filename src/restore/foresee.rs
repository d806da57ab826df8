//! What a plan brings back beside what was asked for, found out before it is carried out.
//!
//! AUFS heeds the lowest opaque mark of a directory only. Where a lower layer removed a directory
//! and made it anew, the writable branch's own opaque mark hides nothing once the kernel looks
//! again: at the next mount, and at every refresh.

use crate::bytes::Bytes;
use crate::dir::{Dir, Kind};
use crate::error::{Error, Result};
use crate::union::{Entry, Node, Reading, Stack};
use crate::whiteout::MarkKind;

use super::view::View;

/// What a mounted AUFS does not show now and will show once it is refreshed.
///
/// # Errors
/// A directory that cannot be read.
pub fn by_refresh(stack: &Stack, view: &View) -> Result<Vec<Bytes>> {
    let Some(writable) = stack.writable() else {
        return Ok(Vec::new());
    };
    let mut back = Vec::new();
    let mut pending = vec![stack.whole(Reading::Branch(writable))];
    while let Some(node) = pending.pop() {
        let Some(listing) = node.listing(writable)? else {
            continue;
        };
        let is_anew = node.is_opaque(writable)? && has_opaque_below(&node, writable)?;
        if is_anew {
            compare(&node, view, &mut back)?;
            continue;
        }
        for (name, kind) in listing.iter() {
            if kind == Kind::Directory
                && let Entry::Dir(below) = node.child(name)?
            {
                pending.push(below);
            }
        }
    }
    back.sort_by(|a, b| a.as_bytes().cmp(b.as_bytes()));
    Ok(back)
}

/// Whether a branch below another marks a directory opaque, too.
///
/// # Errors
/// A directory that cannot be asked.
pub fn has_opaque_below(node: &Node<'_>, branch: usize) -> Result<bool> {
    for below in node.branches().filter(|below| *below > branch) {
        if node.is_opaque(below)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What the branches show at a place and below, and the mount does not.
fn compare(node: &Node<'_>, view: &View, back: &mut Vec<Bytes>) -> Result<()> {
    let mut pending = vec![(node.clone(), view.open(&node.path())?)];
    while let Some((node, shown)) = pending.pop() {
        for listed in node.names()?.iter() {
            let entry = node.child(listed.name)?;
            if entry.kind().is_none() {
                continue;
            }
            let fail = |errno| Error::io(shown.path().join(listed.name), errno);
            match (shown.stat(listed.name).map_err(fail)?, entry) {
                (None, _) => back.push(node.path_of(listed.name)),
                (Some(stat), Entry::Dir(below)) if stat.kind == Kind::Directory => {
                    let dir = child(&shown, listed.name)?;
                    pending.push((below, dir));
                }
                (Some(_), _) => {}
            }
        }
    }
    Ok(())
}

fn child(dir: &Dir, name: &[u8]) -> Result<Dir> {
    let child = dir.child(name, crate::dir::Access::Lookup);
    child.map_err(|errno| Error::io(dir.path().join(name), errno))
}

/// How what lies below a directory that takes the place of its whiteout stays hidden.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hiding {
    /// Nothing lies there.
    Nothing,
    /// The directory is made opaque.
    Opaque,
    /// A lower opaque mark makes ours mean nothing: each name is hidden by itself. How many
    /// directories down, and which name.
    Names(Vec<(usize, Vec<u8>)>),
}

/// What has to be hidden when `chain` is made in a branch, where a whiteout hid its first name.
///
/// # Errors
/// A branch that cannot be asked.
pub fn hiding(place: &Node<'_>, chain: &[Vec<u8>], branch: usize) -> Result<Hiding> {
    let [first, rest @ ..] = chain else {
        return Ok(Hiding::Nothing);
    };
    let without = place.child_without_mark(first, branch, MarkKind::Whiteout, None)?;
    let Entry::Dir(mut node) = without else {
        return Ok(Hiding::Opaque);
    };
    if place.stack().merger().heeds_each_opaque_mark() || !has_opaque_below(&node, branch)? {
        return Ok(Hiding::Opaque);
    }
    let mut names = Vec::new();
    for (depth, next) in rest.iter().enumerate() {
        for listed in node.names()?.iter() {
            let is_shown = listed.name != &next[..] && node.child(listed.name)?.kind().is_some();
            if is_shown {
                names.push((depth, listed.name.to_vec()));
            }
        }
        match node.child(next)? {
            Entry::Dir(below) => node = below,
            _ => break,
        }
    }
    Ok(Hiding::Names(names))
}
