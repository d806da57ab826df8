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
use crate::union::{Entry, Follow, Node, Reading, Stack, lookup};
use crate::walk::walk;

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
    let mut archive = Archive::new(out).for_layer().with_names_kept();
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
    if archive.lacks_names() {
        add_names(&mut archive, &whole, &is_made)?;
    }
    archive.finish()
}

/// Adds the names of files that were added by another one only. In a copy of a whole tree a name that a
/// layer has already can be one with what was linked to it since, and differs in nothing.
fn add_names(
    archive: &mut Archive<'_>,
    whole: &Node<'_>,
    is_made: &dyn Fn(&Bytes) -> bool,
) -> io::Result<()> {
    let mut written = Ok(());
    let walked = walk(whole.clone(), |node: Node<'_>, found| {
        let node = node.read();
        // What cannot be read was told of when it was compared.
        let Ok(names) = node.names() else { return };
        for name in names.to_vec() {
            match node.child(&name) {
                Ok(Entry::Dir(below)) => found.directory(below),
                Ok(Entry::Leaf { from, .. }) if written.is_ok() => {
                    let path = node.path_of(&name);
                    let stat = node.stat(from, &name);
                    let is_lacking = |stat| archive.lacks(&stat, &inside(&path));
                    if stat.is_ok_and(is_lacking) && !is_made(&path) {
                        written = archive.alone(&node, &name, &inside(&path));
                    }
                }
                _ => {}
            }
        }
        if written.is_err() {
            // A row ends the walk.
            found.rows().push(());
        }
    });
    let _ended = { walked }.next();
    written
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
