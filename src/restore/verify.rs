//! What is to be seen afterwards: through the mount where there is one.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use rustix::io::Errno;
use walkdir::WalkDir;

use super::plan::{CopyOut, Plan};
use super::view::{Site, View};
use crate::bytes::Bytes;
use crate::engine::{Survey, Union};
use crate::error::{Error, Result};
use crate::union::{Follow, Reading, Stack, lookup};

/// Whether the branches show a path and the mount does not: it has cached that it is not there.
/// A run that was killed before it could refresh leaves that.
///
/// # Errors
/// A branch that cannot be asked.
pub fn is_forgotten(stack: &Stack, site: &Site, path: &Bytes) -> Result<bool> {
    let Some(view) = &site.view else {
        return Ok(false);
    };
    let root = stack.whole(Reading::Nothing);
    let found = lookup(&root, path.as_bytes(), Follow::NotLast)?;
    Ok(found.entry.kind().is_some() && found.place.is_some() && view.look(path)?.is_none())
}

/// An overlay cannot be told to look again.
pub fn forgotten_by_overlay(union: &Union, path: &Bytes) -> Error {
    Error::Refused {
        what: format!(
            "{path} is in the branches, but {} has cached that it is not there",
            union.label()
        ),
        hint: "stop the container, or unmount the union, and start it again; \
               `echo 2 > /proc/sys/vm/drop_caches` may do, too"
            .into(),
    }
}

/// Looks whether it worked, and says what is there now.
///
/// # Errors
/// It is not there.
pub fn look_again(
    survey: &Survey<'_>,
    union: &Union,
    path: &Bytes,
    plan: &Plan<'_>,
    site: &Site,
) -> Result<String> {
    match (plan, &site.view) {
        (Plan::CopyOut(copy), _) => look_outside(copy),
        (_, Some(view)) => look_through(view, path),
        (_, None) => look_in_branches(survey, union, path),
    }
}

fn look_outside(copy: &CopyOut<'_>) -> Result<String> {
    // For the words only: a walk by paths will do. What is a link is not followed.
    let made = copy.to.join(OsStr::from_bytes(&copy.name));
    let count = WalkDir::new(&made)
        .follow_root_links(false)
        .into_iter()
        .filter(Result::is_ok)
        .count();
    let made = Bytes::from(made.as_path());
    match count {
        0 => Err(Error::io(made, Errno::NOENT)),
        1 => Ok(made.to_string()),
        more => Ok(format!("{made} with {} entries in it", more - 1)),
    }
}

fn look_through(view: &View, path: &Bytes) -> Result<String> {
    match view.look(path)? {
        Some(stat) => {
            let unlisted = match view.lists(path) {
                Ok(false) => "; its directory does not list it yet, which takes some seconds",
                _ => "",
            };
            Ok(format!(
                "{}, a {} of {} bytes{unlisted}",
                view.path(path)?,
                stat.kind.word(),
                stat.size
            ))
        }
        None => Err(Error::Refused {
            what: format!("{} is still not there", view.path(path)?),
            hint: "nothing else was changed; `layerctl which` tells what hides it now".into(),
        }),
    }
}

fn look_in_branches(survey: &Survey<'_>, union: &Union, path: &Bytes) -> Result<String> {
    let stack = union.open(survey);
    let root = stack.whole(Reading::Nothing);
    let found = lookup(&root, path.as_bytes(), Follow::NotLast)?;
    match found.entry.provider() {
        Some(branch) => {
            let stat = found.stat()?;
            Ok(format!(
                "{} of {} bytes from branch {branch}",
                stat.kind.word(),
                stat.size
            ))
        }
        None => Err(Error::Refused {
            what: format!("{path} is still not there"),
            hint: "`layerctl which` tells what hides it now".into(),
        }),
    }
}
