//! Which version of a path is meant: the one that a union shows, or the one that a mark hides.

use rustix::io::Errno;

use super::diagnose::{Cause, Diagnosis, diagnose};
use crate::bytes::Bytes;
use crate::difference::{Between, Criteria, Version};
use crate::dir::Kind;
use crate::error::{Error, Result, errno_name};
use crate::union::{Entry, Follow, Node, Reading, Resolution, Stack, lookup};

/// Which version of a path is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sought {
    /// The one that the union shows.
    Shown,
    /// The one that a mark hides.
    Hidden,
    /// The one that the union without a branch shows.
    Without(usize),
}

impl Sought {
    /// Of an option that asks for what marks hide.
    pub fn of(is_hidden: bool) -> Sought {
        if is_hidden {
            Sought::Hidden
        } else {
            Sought::Shown
        }
    }
}

/// A version that was found.
pub struct Located<'s> {
    /// Its path in the union, links resolved.
    pub path: Bytes,
    /// The directory of a view that has it, and its name there; none of a view's root.
    pub place: Option<(Node<'s>, Vec<u8>)>,
    pub entry: Entry<'s>,
}

/// Looks for a version. Where there is none, the reason is told.
///
/// # Errors
/// A branch that cannot be asked; the union refuses the name.
pub fn locate<'s>(
    stack: &'s Stack,
    path: &Bytes,
    follow: Follow,
    sought: Sought,
) -> Result<Result<Located<'s>, String>> {
    match sought {
        Sought::Shown => {
            let root = stack.whole(Reading::Nothing);
            located(lookup(&root, path.as_bytes(), follow)?)
        }
        Sought::Hidden => hidden(stack, path, follow),
        Sought::Without(branch) => {
            located(lookup(&stack.without(branch), path.as_bytes(), follow)?)
        }
    }
}

fn located(found: Resolution<'_>) -> Result<Result<Located<'_>, String>> {
    let path = Bytes::absolute(found.path.components());
    Ok(match found.entry {
        Entry::Broken { errno, .. } if !matches!(errno_name(errno), "ENOENT" | "ENOTDIR") => {
            return Err(Error::io(path, errno));
        }
        Entry::Deleted { .. } => Err("it is deleted".into()),
        Entry::Missing | Entry::Broken { .. } => Err("it is not there".into()),
        entry @ (Entry::Leaf { .. } | Entry::Dir(_)) => Ok(Located {
            path,
            place: found.place,
            entry,
        }),
    })
}

fn hidden<'s>(
    stack: &'s Stack,
    path: &Bytes,
    follow: Follow,
) -> Result<Result<Located<'s>, String>> {
    let diagnosis = diagnose(stack, path)?;
    let path = diagnosis.path.clone();
    let (below, located) = match &diagnosis.cause {
        Cause::IsRoot | Cause::IsThere(_) | Cause::Refused(Errno::NOTDIR) => {
            let Some(located) = beneath(stack, &diagnosis)? else {
                return match diagnosis.cause {
                    Cause::Refused(errno) => Err(Error::io(path, errno)),
                    _ => Ok(Err("nothing hides it".into())),
                };
            };
            (before(stack), located)
        }
        Cause::Refused(errno) => return Err(Error::io(path, *errno)),
        Cause::Hidden(hidden) => {
            let Some(version) = hidden.version else {
                return Ok(Err("it is deleted, and nothing is left of it".into()));
            };
            let below = hidden.cut.branch + 1;
            let found = &diagnosis.found;
            let (place, _) = source_of(stack, found, below, version.branch, &path.parent())?;
            let name = path.file_name().to_vec();
            let entry = place.child(&name)?;
            let place = Some((place, name));
            let root = stack.root(|branch| branch >= below, Reading::Nothing);
            (root, Located { path, place, entry })
        }
        Cause::NotDeleted { .. } => {
            let nothing = || "it is not deleted: no branch has it".to_owned();
            let Some(base) = &stack.base else {
                return Ok(Err(nothing()));
            };
            let root = base.whole(Reading::Nothing);
            match located(lookup(&root, path.as_bytes(), Follow::NotLast)?)? {
                Ok(located) => (root, located),
                Err(_) => return Ok(Err(nothing())),
            }
        }
    };
    if follow == Follow::All && located.entry.kind() == Some(Kind::Symlink) {
        return self::located(lookup(&below, located.path.as_bytes(), follow)?);
    }
    Ok(Ok(located))
}

/// What there was before the writable branch wrote: the layer that this one began as a copy of, or the
/// union without that branch.
fn before(stack: &Stack) -> Node<'_> {
    match (&stack.base, stack.writable()) {
        (Some(base), _) => base.whole(Reading::Nothing),
        (None, Some(writable)) => stack.without(writable),
        (None, None) => stack.whole(Reading::Nothing),
    }
}

/// The version beneath something else that the writable branch has under the name, or on the way to
/// it: no mark tells of it. Of two directories (`rm -rf d; mkdir d`) what is missing in one is told.
///
/// ```text
/// rm -rf d; echo > d      d, and what was in it
/// rm f; mkdir f           f
/// ```
///
/// # Errors
/// A branch that cannot be asked.
pub fn beneath<'s>(stack: &'s Stack, diagnosis: &Diagnosis<'s>) -> Result<Option<Located<'s>>> {
    let Some(writable) = stack.writable() else {
        return Ok(None);
    };
    let is_replaced = match diagnosis.cause {
        Cause::IsThere(_) => diagnosis.found.entry.provider() == Some(writable),
        Cause::Refused(errno) => errno == Errno::NOTDIR,
        Cause::IsRoot | Cause::NotDeleted { .. } | Cause::Hidden(_) => false,
    };
    if !is_replaced {
        return Ok(None);
    }
    let root = before(stack);
    let found = lookup(&root, diagnosis.path.as_bytes(), Follow::NotLast)?;
    // A layer that began as a copy has all that is still as it was.
    if stack.base.is_some() {
        let all = Criteria {
            times: true,
            content: true,
        };
        let (was, is) = (Version::of(&found)?, Version::of(&diagnosis.found)?);
        if Between::of(was, is, all)?.is_none() {
            return Ok(None);
        }
    }
    let is_directory = |kind: Option<Kind>| kind == Some(Kind::Directory);
    if is_directory(found.entry.kind()) && is_directory(diagnosis.found.entry.kind()) {
        return Ok(None);
    }
    Ok(located(found)?.ok())
}

/// The view that has the version, at one of its directories, and the branch that provides it:
/// what the union showed below the mark, or if marks further down hide the version there, too,
/// the view that begins with it.
///
/// # Errors
/// A branch that cannot be asked; more than one mark hides the version.
pub fn source_of<'s>(
    stack: &'s Stack,
    found: &Resolution<'s>,
    below: usize,
    version: usize,
    place: &Bytes,
) -> Result<(Node<'s>, usize)> {
    let path = &Bytes::absolute(found.path.components());
    // What leads to other directories stands above: the place itself, as the union has it.
    if let Some((here, _)) = &found.place
        && stack.merger().leads_elsewhere()
        && let Some(rest) = place.strip_prefix(&here.path())
    {
        for from in [below, version] {
            let here = here.narrowed(|branch| branch >= from);
            let mut node = Some(here.clone());
            for name in rest.components() {
                node = match node.map(|node| node.child(name)).transpose()? {
                    Some(Entry::Dir(node)) => Some(node),
                    _ => None,
                };
            }
            let name = path.strip_prefix(place).unwrap_or_default();
            let Some(node) = node else { continue };
            let last = lookup(&node, name.as_bytes(), Follow::NotLast)?.entry;
            if let Some(provider) = last.provider() {
                return Ok((node, provider));
            }
        }
    }
    for from in [below, version] {
        let root = stack.root(|branch| branch >= from, Reading::Nothing);
        let provider = lookup(&root, path.as_bytes(), Follow::NotLast)?
            .entry
            .provider();
        if let (Some(provider), Entry::Dir(node)) = (
            provider,
            lookup(&root, place.as_bytes(), Follow::NotLast)?.entry,
        ) {
            return Ok((node, provider));
        }
    }
    Err(Error::Refused {
        what: format!("{path} is in branch {version}, behind more than one mark"),
        hint: "`layerctl which` shows every version and where it is".into(),
    })
}
