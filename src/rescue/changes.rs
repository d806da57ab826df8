//! An archive of what a branch changed, as OCI spells it: a file that is empty and called `.wh.NAME`
//! deletes NAME in the layers below, whatever the store's own spelling is. An opaque directory is
//! spelled by the names that it hides, which every engine reads alike.

use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::ops::ControlFlow;

use crate::bytes::Bytes;
use crate::difference::{Change, Criterion, Difference, differences};
use crate::error::{Error, Result};
use crate::restore::archive::{Archive, OCI_WHITEOUT};
use crate::union::{Follow, Reading, Stack, lookup};

/// A change and its path, or what could not be read.
type Found = Result<(Change, Bytes)>;

/// Writes what a branch of a stack changed. `engine_made` is what is nobody's change.
/// What comes back could not be read, or not be kept.
///
/// # Errors
/// The output takes no more.
pub fn write(
    stack: &Stack,
    branch: usize,
    engine_made: &[&str],
    out: &mut dyn Write,
) -> io::Result<Vec<Error>> {
    let whole = stack.whole(Reading::Nothing);
    let mut archive = Archive::new(out).for_layer();
    let mut written = Ok(());
    let row = |found: Result<Difference<'_, '_>>, rows: &mut Vec<Found>| {
        rows.push(found.map(|found| (found.change, found.path())));
    };
    let is_made = |path: &Bytes| {
        let mut made = engine_made.iter();
        made.any(|made| made.as_bytes() == path.as_bytes())
    };
    let mut add = |found: Found| -> io::Result<()> {
        let path = match found {
            Ok((_, path)) if is_made(&path) => return Ok(()),
            Ok((Change::Deleted, path)) => return archive.mark(&whiteout(&path)),
            Ok((Change::Added | Change::Changed, path)) => path,
            Err(error) => {
                archive.said.push(error);
                return Ok(());
            }
        };
        match lookup(&whole, path.as_bytes(), Follow::NotLast) {
            Ok(found) => match &found.place {
                Some((place, own)) => archive.alone(place, own, &inside(&path)),
                None => Ok(()),
            },
            Err(error) => {
                archive.said.push(error);
                Ok(())
            }
        }
    };
    let _ = differences(
        stack,
        branch,
        (Criterion::of_union(stack), &Bytes::from("/")),
        NonZeroUsize::MIN,
        &row,
        |found: Vec<Found>| {
            written = found.into_iter().try_for_each(&mut add);
            match written {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            }
        },
    );
    written?;
    archive.finish()
}

/// Writes the whole merged view. `is_layer`: an engine will take it apart.
/// What comes back could not be read, or not be kept.
///
/// # Errors
/// The output takes no more.
pub fn write_merged(stack: &Stack, is_layer: bool, out: &mut dyn Write) -> io::Result<Vec<Error>> {
    let root = stack.whole(Reading::Nothing).read();
    let mut archive = Archive::new(out);
    if is_layer {
        archive = archive.for_layer();
    }
    archive.content(&root)?;
    archive.finish()
}

/// A path without the slash at its beginning.
fn inside(path: &Bytes) -> Bytes {
    Bytes::from(
        path.as_bytes()
            .strip_prefix(b"/")
            .unwrap_or(path.as_bytes()),
    )
}

/// The mark in an archive that deletes a path.
fn whiteout(path: &Bytes) -> Bytes {
    let name = [OCI_WHITEOUT, path.file_name()].concat();
    inside(&path.parent().join(&name))
}
