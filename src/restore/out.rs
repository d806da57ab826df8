//! How a version leaves its union: into an open directory, under a passing name until it is whole.
//! `restore --to` and `cp` are both this.
//!
//! Nothing that is there is replaced unless that was asked for, and no link is followed: of a
//! directory that is there, only its own entries are made or replaced, one by one.

use rustix::io::Errno;

use super::attributes::Keep;
use super::copy::{Copied, How, copy};
use super::links::Links;
use super::made::{self, sync_dir};
use super::staging::Staging;
use crate::dir::{Access, Dir, Kind};
use crate::error::{Error, Result};
use crate::union::{Entry, Node};

/// How something is copied out.
#[derive(Debug, Clone, Copy)]
pub struct Way {
    pub how: How,
    /// What is there may be replaced; a directory is added to.
    pub may_replace: bool,
}

/// What is to be copied, and to which name in which directory.
struct Placing<'s> {
    from: Node<'s>,
    name: Vec<u8>,
    to: Dir,
    to_name: Vec<u8>,
}

/// Copies what a place of a view has under a name.
///
/// # Errors
/// `EEXIST` where something is and may not be replaced; what cannot be written, or an interrupt.
/// Nothing half-made is left then.
pub fn place(
    source: &Node<'_>,
    name: &[u8],
    (to, to_name): (&Dir, &[u8]),
    way: Way,
    links: &mut Links,
) -> Result<Copied> {
    let mut all = Copied::default();
    let mut pending = vec![Placing {
        from: source.clone(),
        name: name.to_vec(),
        to: to.clone(),
        to_name: to_name.to_vec(),
    }];
    // In a loop: a tree can be deeper than the stack.
    while let Some(next) = pending.pop() {
        let Placing {
            from,
            name,
            to,
            to_name,
        } = &next;
        let fail = |errno| Error::io(to.path().join(to_name), errno);
        check(to, to_name)?;
        let there = to.stat(to_name).map_err(fail)?;
        let Some(there) = there.filter(|_| way.may_replace) else {
            all.add(beside(
                from,
                std::slice::from_ref(name),
                (to, to_name),
                way.how,
                links,
            )?);
            continue;
        };
        match (from.child(name)?, there.kind) {
            (Entry::Dir(node), Kind::Directory) => {
                let inner = to.child(to_name, Access::Lookup).map_err(fail)?;
                let node = node.read();
                let names = node.names()?.to_vec();
                pending.extend(names.into_iter().rev().map(|name| Placing {
                    from: node.clone(),
                    to_name: name.clone(),
                    name,
                    to: inner.clone(),
                }));
            }
            (Entry::Dir(_), _) => return Err(fail(Errno::NOTDIR)),
            (_, Kind::Directory) => return Err(fail(Errno::ISDIR)),
            (entry, there) if !is_replaced(there, entry.kind()) => {
                return Err(Error::Refused {
                    what: format!(
                        "{} is a {}, which nothing but another one replaces",
                        to.path().join(to_name),
                        there.word()
                    ),
                    hint: "name another file, or remove it first".into(),
                });
            }
            _ => all.add(instead(from, name, (to, to_name), way.how, links)?),
        }
    }
    Ok(all)
}

/// Copies a directory of a view itself, such as its root, which has no name there.
///
/// # Errors
/// As of [`place`].
pub fn itself(
    source: &Node<'_>,
    (to, to_name): (&Dir, &[u8]),
    way: Way,
    links: &mut Links,
) -> Result<Copied> {
    let fail = |errno| Error::io(to.path().join(to_name), errno);
    check(to, to_name)?;
    let there = to.stat(to_name).map_err(fail)?;
    match there.filter(|_| way.may_replace).map(|there| there.kind) {
        None => beside(source, &[], (to, to_name), way.how, links),
        Some(Kind::Directory) => {
            let inner = to.child(to_name, Access::Lookup).map_err(fail)?;
            content(source, &inner, way, links)
        }
        Some(_) => Err(fail(Errno::NOTDIR)),
    }
}

/// Copies what is in a directory of a view.
///
/// # Errors
/// As of [`place`].
pub fn content(source: &Node<'_>, to: &Dir, way: Way, links: &mut Links) -> Result<Copied> {
    let mut all = Copied::default();
    let node = source.clone().read();
    for name in node.names()?.to_vec() {
        all.add(place(&node, &name, (to, &name), way, links)?);
    }
    Ok(all)
}

/// Whether what is there may be replaced at all. A device's name is the machine's: who types
/// `/dev/null` means what writes to it do.
fn is_replaced(there: Kind, by: Option<Kind>) -> bool {
    matches!(there, Kind::File | Kind::Symlink) || by.is_none_or(|by| by == there)
}

/// Copies under a passing name, so that nothing half-written ever has the real one, which nothing
/// has.
///
/// # Errors
/// As of [`place`].
pub fn beside(
    source: &Node<'_>,
    chain: &[Vec<u8>],
    (to, name): (&Dir, &[u8]),
    how: How,
    links: &mut Links,
) -> Result<Copied> {
    let fail = |errno| Error::io(to.path().join(name), errno);
    check(to, name)?;
    if to.stat(name).map_err(fail)?.is_some() {
        return Err(fail(Errno::EXIST));
    }
    let put = |staging: &Staging| staging.place(to, name);
    made_whole(source, chain, (to, name), (how, &put), links)
}

/// The same over what is there, which is no directory.
fn instead(
    source: &Node<'_>,
    name: &[u8],
    (to, to_name): (&Dir, &[u8]),
    how: How,
    links: &mut Links,
) -> Result<Copied> {
    let chain = [name.to_vec()];
    let put = |staging: &Staging| {
        let there = to.stat(to_name)?.map(|there| there.identity());
        // To rename one name of a file over another of the same does nothing.
        if there.is_some() && there == staging.made() {
            staging.discard();
            return Ok(());
        }
        staging.replace(to, to_name)
    };
    made_whole(source, &chain, (to, to_name), (how, &put), links)
}

/// Gives what was staged its name.
type Put<'p> = &'p dyn Fn(&Staging) -> Result<(), Errno>;

fn made_whole(
    source: &Node<'_>,
    chain: &[Vec<u8>],
    (to, name): (&Dir, &[u8]),
    (how, put): (How, Put<'_>),
    links: &mut Links,
) -> Result<Copied> {
    let fail = |errno| Error::io(to.path().join(name), errno);
    let staging = Staging::beside(to);
    let copied = copy(source, chain, &staging, how, links);
    let copied = copied
        .inspect_err(|_| take_back(&staging, links))
        .map_err(|error| staging.told(error, to, name))?;
    // What could not be read has no copy.
    let Some(made) = staging.made() else {
        return Ok(copied);
    };
    put(&staging)
        .map_err(fail)
        .inspect_err(|_| take_back(&staging, links))?;
    staging.confirm(to, name, copied.directory.as_ref())?;
    links.placed(made, to, name);
    if how.keep == Keep::All {
        sync_dir(to).map_err(fail)?;
    }
    Ok(copied)
}

fn take_back(staging: &Staging, links: &mut Links) {
    staging.discard();
    links.discarded();
}

/// What a directory on the way to a copy is made with. What it was in may have been closed to others.
const CLOSED: u32 = 0o700;

/// The directory at a path below another, its parts made where they are missing, for nobody but their
/// owner. No link is followed.
///
/// # Errors
/// Something else has one of the names; what the system calls say.
pub fn directory<'n>(from: &Dir, path: impl Iterator<Item = &'n [u8]>) -> Result<Dir> {
    let mut dir = from.clone();
    for name in path {
        let fail = |errno| Error::io(dir.path().join(name), errno);
        check(&dir, name)?;
        dir = match dir.child(name, Access::Lookup) {
            Err(Errno::NOENT) => made::directory(&dir, name, CLOSED).map_err(fail)?,
            Err(Errno::LOOP | Errno::NOTDIR) => return Err(no_directory(&dir, name)),
            found => found.map_err(fail)?,
        };
    }
    Ok(dir)
}

/// Sees that a name is one of something in the directory.
///
/// # Errors
/// It leads elsewhere.
fn check(dir: &Dir, name: &[u8]) -> Result<()> {
    if matches!(name, b"" | b"." | b"..") || name.contains(&b'/') {
        return Err(Error::io(dir.path().join(name), Errno::INVAL));
    }
    Ok(())
}

fn no_directory(dir: &Dir, name: &[u8]) -> Error {
    let path = dir.path().join(name);
    match dir.read_link(name) {
        Ok(target) => Error::Refused {
            what: format!(
                "{path} is a symbolic link to {}, and is not followed",
                crate::bytes::Bytes(target)
            ),
            hint: "name another directory".into(),
        },
        Err(_) => Error::io(path, Errno::NOTDIR),
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // a test makes the disk that is read
mod tests {
    use super::*;

    #[test]
    fn nothing_is_made_of_what_is_no_name() {
        let home = tempfile::tempdir().expect("a temporary directory");
        let root = Dir::open_root(home.path()).expect("a directory of our own");
        let made = |parts: &[&[u8]]| directory(&root, parts.iter().copied()).map(|_| ());
        for name in [&b""[..], b".", b"..", b"a/b", b"/a"] {
            let error = made(&[name]).expect_err("it is no name");
            assert_eq!(error.errno(), Errno::INVAL, "{name:?}");
        }
        made(&[b"new", b"deep"]).expect("these are names");
        assert!(home.path().join("new/deep").is_dir());
        let all = std::fs::read_dir(home.path()).expect("our own").count();
        assert_eq!(all, 1);
    }
}
