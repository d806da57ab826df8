//! Which union is meant, and which path of it.

use std::num::NonZeroUsize;

use super::deleted::missing_below;
use super::diagnose::hidden_by;
use super::{Goal, Query};
use crate::bytes::{self, Bytes};
use crate::engine::{MountState, Survey};
use crate::error::{Error, Result};
use crate::target::{self, Base, Scope, Target};
use crate::union::{Follow, Reading, Stack, lookup};

/// The union and the path in it.
///
/// # Errors
/// There is no such union, or more than one.
pub fn choose(survey: &mut Survey<'_>, base: &Base, query: &Query<'_>) -> Result<(Target, Bytes)> {
    let (mut target, path) = match named(survey, base, query)? {
        (Some(target), path) => (target, path),
        (None, path) => match target::pasted(survey, &path)? {
            Some(target) => {
                let inside = target.inside.clone();
                (target, inside)
            }
            None => only_one_that_has(survey, path, &query.goal)?,
        },
    };
    if let Some(view) = &target.union.view {
        return match query.goal {
            Goal::CopyOut(_) => Ok((target, path)),
            Goal::Undelete(_) | Goal::Revert(_) => Err(Error::Refused {
                what: format!(
                    "{} is a view of {}, which is only looked at",
                    view.label, view.whole
                ),
                hint: format!("name {} itself, or copy out with --to DIR", view.whole),
            }),
        };
    }
    if survey.host.is_live() && target.union.state == MountState::NotMounted {
        target::mount_if_mounted(survey, &mut target.union);
    }
    Ok((target, path))
}

/// The target that was named and a path in it; without one, a path whose union is to be found.
fn named(
    survey: &mut Survey<'_>,
    base: &Base,
    query: &Query<'_>,
) -> Result<(Option<Target>, Bytes)> {
    let plain = |typed: &[u8]| Bytes::absolute(bytes::components(typed));
    let (name, path) = match query.within {
        Some(name) => (name, Some(query.path)),
        None => target::split(query.path),
    };
    if let Some(path) = path {
        let target = target::find(survey, name, base)?;
        let path = target.path(&plain(path));
        return Ok((Some(target), path));
    }
    let path = plain(target::path_alone(survey, name, base)?.as_bytes());
    Ok((None, path))
}

/// Exactly one union of the host must have it to restore, mounted or not.
fn only_one_that_has(survey: &mut Survey<'_>, path: Bytes, goal: &Goal) -> Result<(Target, Bytes)> {
    let mut fitting = Vec::new();
    let found = target::everything(survey, Scope::All);
    let mut all = found.targets;
    // Whether this one has it cannot be told, and so neither whether another is the only one.
    if let Some(error) = found.unread.into_iter().next() {
        return Err(error);
    }
    if all.is_empty() {
        return Err(target::nothing_mounted(survey));
    }
    for target in &all {
        let stack = target.union.open(survey);
        if let Some(error) = stack.lost().next() {
            return Err(error.of(&survey.label(&target.union)));
        }
        if has_it(&stack, &path, goal)? {
            fitting.push(target.clone());
        }
    }
    if fitting.is_empty() && all.len() > 1 {
        for target in &all {
            if has_missing(survey, target, &path, goal)? {
                fitting.push(target.clone());
            }
        }
    }
    match fitting.len() {
        1 => Ok((fitting.remove(0), path)),
        0 if all.len() == 1 => Ok((all.remove(0), path)),
        0 => Err(Error::Refused {
            what: format!(
                "{path} is not deleted in any of the {} unions of the host",
                all.len()
            ),
            hint: "name one: TARGET:PATH".into(),
        }),
        _ => Err(Error::Ambiguous {
            name: path.to_text().into_owned(),
            candidates: fitting
                .iter()
                .map(|target| {
                    format!(
                        "{}:{}",
                        survey.label(&target.union).to_text(),
                        path.to_text()
                    )
                })
                .collect(),
        }),
    }
}

/// Whether it is a directory that something was deleted in.
fn has_missing(survey: &Survey<'_>, target: &Target, path: &Bytes, goal: &Goal) -> Result<bool> {
    let Some(branch) = target
        .subject()
        .filter(|_| !matches!(goal, Goal::Revert(_)))
    else {
        return Ok(false);
    };
    let stack = target.union.open(survey);
    // What cannot be read is told by whoever restores.
    let missing = missing_below(&stack, branch, path, NonZeroUsize::MIN, &mut Vec::new())?;
    Ok(!missing.paths.is_empty())
}

fn has_it(stack: &Stack, path: &Bytes, goal: &Goal) -> Result<bool> {
    let root = stack.whole(Reading::Nothing);
    let found = lookup(&root, path.as_bytes(), Follow::NotLast)?;
    Ok(match goal {
        Goal::Revert(_) => {
            found.entry.provider().is_some() && found.entry.provider() == stack.writable()
        }
        Goal::Undelete(_) | Goal::CopyOut(_) => {
            let versions = found.versions(stack)?;
            hidden_by(&found, versions.iter().map(|(branch, _)| *branch)).is_some()
        }
    })
}
