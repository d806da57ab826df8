//! What a union says of a path, what hides it, and what else the same mark hides.

use rustix::io::Errno;

use crate::bytes::Bytes;
use crate::dir::{Kind, Stat};
use crate::error::Result;
use crate::union::{Cut, Entry, Follow, Listed, Node, Reading, Resolution, Stack, Why, lookup};
use crate::whiteout::MarkKind;

/// What a union says of a path.
pub struct Diagnosis<'s> {
    pub found: Resolution<'s>,
    /// The path with all links resolved that were met.
    pub path: Bytes,
    pub cause: Cause<'s>,
}

/// Why a path is, or is not, to be seen.
pub enum Cause<'s> {
    IsRoot,
    IsThere(Kind),
    /// The union refuses the name.
    Refused(Errno),
    /// No mark tells that it was deleted.
    NotDeleted {
        place: Node<'s>,
        name: Vec<u8>,
    },
    Hidden(Hidden<'s>),
}

/// What a mark hides.
pub struct Hidden<'s> {
    /// The deepest directory on the way that the union shows, and the name in it that it does not.
    pub place: Node<'s>,
    pub name: Vec<u8>,
    pub cut: Cut,
    /// It stands beside its own whiteout.
    pub is_beside: bool,
    /// The topmost of the versions that the mark hides; none where nothing is left of it.
    pub version: Option<Version>,
}

/// What one branch has of a path.
#[derive(Debug, Clone, Copy)]
pub struct Version {
    pub branch: usize,
    pub kind: Kind,
}

/// Looks a path up, and finds out why it is not there.
///
/// # Errors
/// A branch that cannot be asked.
pub fn diagnose<'s>(stack: &'s Stack, path: &Bytes) -> Result<Diagnosis<'s>> {
    let root = stack.whole(Reading::Nothing);
    let found = lookup(&root, path.as_bytes(), Follow::NotLast)?;
    let path = Bytes::absolute(found.path.components());
    let cause = cause(stack, &found)?;
    Ok(Diagnosis { found, path, cause })
}

fn cause<'s>(stack: &'s Stack, found: &Resolution<'s>) -> Result<Cause<'s>> {
    let Some((place, name)) = found.place.clone() else {
        return Ok(Cause::IsRoot);
    };
    if let Some(kind) = found.entry.kind() {
        return Ok(Cause::IsThere(kind));
    }
    let versions = found.versions(stack)?;
    let beside = match &found.entry {
        // What an earlier run that was killed between two steps has left, too.
        Entry::Broken {
            why: Why::BesideWhiteout { branch },
            ..
        } => Some(Cut {
            branch: *branch,
            mark: place.path_of(&stack.branches[*branch].grammar.whiteout_of(&name)),
            kind: MarkKind::Whiteout,
            of: place.path_of(&name),
        }),
        Entry::Broken { errno, .. } => return Ok(Cause::Refused(*errno)),
        Entry::Missing | Entry::Deleted { .. } | Entry::Leaf { .. } | Entry::Dir(_) => None,
    };
    let is_beside = beside.is_some();
    let cut = beside.or_else(|| hidden_by(found, versions.iter().map(|(branch, _)| *branch)));
    let Some(cut) = cut else {
        return Ok(Cause::NotDeleted { place, name });
    };
    let is_behind = |(branch, _): &&(usize, Stat)| hides(&cut, *branch);
    let version = versions.iter().find(is_behind);
    Ok(Cause::Hidden(Hidden {
        version: version.map(|(branch, stat)| Version {
            branch: *branch,
            kind: stat.kind,
        }),
        place,
        name,
        cut,
        is_beside,
    }))
}

/// Whether a mark hides what a branch has of the path: a whiteout what its own branch has, too.
fn hides(cut: &Cut, branch: usize) -> bool {
    match cut.kind {
        MarkKind::Whiteout => branch >= cut.branch,
        MarkKind::Opaque => branch > cut.branch,
    }
}

/// The mark that keeps a path from being seen, if one does: a whiteout of the very name, a
/// whiteout of an ancestor that a version lies below, or a mark that cut the branches off which
/// have it. `versions` are the branches that have it.
pub fn hidden_by(
    resolution: &Resolution<'_>,
    versions: impl Iterator<Item = usize> + Clone,
) -> Option<Cut> {
    let (place, _) = resolution.place.as_ref()?;
    let hides_something = |cut: &Cut| versions.clone().any(|branch| hides(cut, branch));
    match &resolution.entry {
        Entry::Deleted { by } if resolution.rest.is_empty() || hides_something(by) => {
            Some(by.clone())
        }
        Entry::Deleted { .. } | Entry::Missing => {
            place.cuts().find(|cut| hides_something(cut)).cloned()
        }
        Entry::Broken { .. } | Entry::Leaf { .. } | Entry::Dir(_) => None,
    }
}

/// What else would come back if a mark were removed; `None` if the path itself would not.
///
/// # Errors
/// A branch that cannot be asked.
pub fn unhidden(stack: &Stack, cut: &Cut, path: &Bytes) -> Result<Option<Vec<Bytes>>> {
    let marked = &cut.of;
    let root = stack.whole(Reading::Nothing);
    let Entry::Dir(parent) = lookup(&root, marked.parent().as_bytes(), Follow::NotLast)?.entry
    else {
        return Ok(None);
    };
    let without = parent.child_without_mark(marked.file_name(), cut.branch, cut.kind, None)?;
    let with = parent.child(marked.file_name())?;
    let Some(rest) = path.strip_prefix(marked) else {
        return Ok(None);
    };
    let mut reappears = Vec::new();
    let is_back = compare(without, with, rest.components(), &mut reappears)?;
    Ok(is_back.then_some(reappears))
}

/// Follows `chain` down the view without the mark, noting what appears beside it that the view
/// with the mark does not have. In a loop: a path can be deeper than the stack.
fn compare<'c>(
    mut without: Entry<'_>,
    with: Entry<'_>,
    chain: impl Iterator<Item = &'c [u8]>,
    reappears: &mut Vec<Bytes>,
) -> Result<bool> {
    let mut with = Some(with);
    for next in chain {
        let Entry::Dir(then_here) = without else {
            return Ok(false);
        };
        let now_here = match with {
            Some(Entry::Dir(node)) => Some(node),
            _ => None,
        };
        let mut on_the_way = None;
        for Listed { name, .. } in then_here.names()?.iter() {
            let now = now_here.as_ref().map(|node| node.child(name)).transpose()?;
            let then = then_here.child(name)?;
            if name == next {
                on_the_way = Some((then, now));
            } else if then.kind().is_some() && now.is_none_or(|now| now.kind().is_none()) {
                reappears.push(then_here.path_of(name));
            }
        }
        let Some(found) = on_the_way else {
            return Ok(false);
        };
        (without, with) = found;
    }
    Ok(without.kind().is_some())
}

/// Whether the union shows what a branch has at a path under another name already: something in
/// the writable branch, the only one that can have been renamed since, leads to it.
///
/// # Errors
/// A branch that cannot be asked.
pub fn is_shown_elsewhere(
    stack: &Stack,
    writable: usize,
    of: (usize, &Bytes),
    kind: Kind,
) -> Result<bool> {
    let mut pending = vec![stack.whole(Reading::Branch(writable))];
    while let Some(node) = pending.pop() {
        let Some(listing) = node.listing(writable)? else {
            continue;
        };
        for (name, listed) in listing.iter() {
            // A directory leads to a directory, and a file to a file.
            if listed != Kind::Directory && listed != kind {
                continue;
            }
            match node.child(name)? {
                Entry::Dir(below) => {
                    if below.dir(of.0).is_some() && below.place_in(of.0) == *of.1 {
                        return Ok(true);
                    }
                    pending.push(below);
                }
                Entry::Leaf {
                    data: Some(data), ..
                } if (data.branch, &data.path) == of => return Ok(true),
                _ => {}
            }
        }
    }
    Ok(false)
}
