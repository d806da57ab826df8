//! Everything that a branch deletes.

use std::num::NonZeroUsize;
use std::ops::ControlFlow;

use super::diagnose::{Cause, diagnose};
use crate::bytes::Bytes;
use crate::difference::{Change, Criterion, Difference, Provided, differences};
use crate::dir::Kind;
use crate::error::{Error, Result};
use crate::union::{Entry, Follow, Listed, Stack, lookup};

/// What is listed of a directory that something else has taken the place of, which is no deletion of
/// the directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replaced {
    /// Nothing: it cannot come back while the other thing is there.
    LeftOut,
    /// What was in it.
    Listed,
}

/// The paths that the union without a branch has and the union with it has not, in order; of a tree
/// that is gone the topmost, be it on the way to `inside`. With what could not be read.
pub fn deleted(
    stack: &Stack,
    (branch, inside): (usize, &Bytes),
    replaced: Replaced,
    threads: NonZeroUsize,
) -> (Vec<Bytes>, Vec<Error>) {
    let (mut found, mut problems) = (Vec::new(), Vec::new());
    let row = |difference: Result<Difference<'_, '_>>, batch: &mut Vec<Result<(Bytes, bool)>>| {
        match difference {
            Ok(of) if of.change == Change::Deleted => batch.push(Ok((of.path(), false))),
            Ok(of) if replaced == Replaced::Listed && is_replaced(&of) => {
                batch.push(Ok((of.path(), true)));
            }
            Ok(_) => {}
            Err(error) => batch.push(Err(error)),
        }
    };
    let compared = (Criterion::of_union(stack), inside);
    let _ = differences(stack, branch, compared, threads, &row, |batch| {
        for of in batch {
            match of {
                Ok(of) => found.push(of),
                Err(error) => problems.push(error),
            }
        }
        ControlFlow::Continue(())
    });
    let mut paths = Vec::new();
    for (path, is_replaced) in found {
        if !is_replaced {
            paths.push(path);
            continue;
        }
        match children(stack, branch, &path) {
            Ok(children) => paths.extend(children),
            Err(error) => problems.push(error),
        }
    }
    (paths, problems)
}

fn is_replaced(difference: &Difference<'_, '_>) -> bool {
    let is_directory = |of: &Provided| of.kind == Kind::Directory;
    difference.before.as_ref().is_some_and(is_directory)
        && !difference.after.as_ref().is_none_or(is_directory)
}

/// What is in a directory of the union without a branch.
fn children(stack: &Stack, branch: usize, path: &Bytes) -> Result<Vec<Bytes>> {
    let root = stack.without(branch);
    let Entry::Dir(node) = lookup(&root, path.as_bytes(), Follow::NotLast)?.entry else {
        return Ok(Vec::new());
    };
    let mut paths = Vec::new();
    for Listed { name, .. } in node.names()?.iter() {
        if node.child(name)?.kind().is_some() {
            paths.push(path.join(name));
        }
    }
    Ok(paths)
}

/// What was deleted below a directory that the union shows.
#[derive(Debug, Default)]
pub struct Missing {
    /// The directory, links resolved.
    pub directory: Bytes,
    /// As of [`deleted`].
    pub paths: Vec<Bytes>,
}

/// What was deleted below a path; nothing where that is no directory which is there.
///
/// # Errors
/// A branch that cannot be asked. What could not be read of the rest is put to `problems`.
pub fn missing_below(
    stack: &Stack,
    branch: usize,
    path: &Bytes,
    threads: NonZeroUsize,
    problems: &mut Vec<Error>,
) -> Result<Missing> {
    let found = diagnose(stack, path)?;
    if !matches!(found.cause, Cause::IsRoot | Cause::IsThere(Kind::Directory)) {
        return Ok(Missing::default());
    }
    let part = (branch, &found.path);
    let (mut paths, unread) = deleted(stack, part, Replaced::LeftOut, threads);
    problems.extend(unread);
    paths.retain(|of| of.lies_in(&found.path));
    Ok(Missing {
        directory: found.path,
        paths,
    })
}

/// How many names these are, with all that was in those that were directories.
///
/// # Errors
/// A directory that cannot be read.
pub fn count(stack: &Stack, branch: usize, paths: &[Bytes]) -> Result<usize> {
    let root = stack.without(branch);
    let mut count = paths.len();
    for path in paths {
        let found = lookup(&root, path.as_bytes(), Follow::NotLast)?;
        let mut pending = vec![found.entry];
        while let Some(entry) = pending.pop() {
            let Entry::Dir(node) = entry else { continue };
            for Listed { name, .. } in node.names()?.iter() {
                let entry = node.child(name)?;
                count += usize::from(entry.kind().is_some());
                pending.push(entry);
            }
        }
    }
    Ok(count)
}
