//! The names of a directory that two views may differ in.

use std::borrow::Cow;

use super::Directory;
use crate::dir::Kind;
use crate::error::Result;
use crate::union::Listed;
use crate::whiteout::Mark;

/// A name that may differ.
pub(super) struct Named<'n> {
    /// What it is called in the order of `docker diff`.
    key: Cow<'n, [u8]>,
    pub(super) name: Cow<'n, [u8]>,
    /// As the branch itself lists it.
    pub(super) own: Option<Kind>,
}

/// The names that may differ, in docker's order: those the branch has something to say of, and
/// where lower branches take part in only one of the views, all of theirs. `only` limits it to one.
pub(super) fn names<'n>(
    directory: &'n Directory<'_>,
    branch: usize,
    only: Option<&[u8]>,
) -> Result<Vec<Named<'n>>> {
    let grammar = directory.after.stack().branches[branch].grammar;
    let mut names: Vec<Named<'n>> = Vec::new();
    if let Some(listing) = &directory.own {
        names.reserve(listing.count());
        for (key, kind) in listing.iter() {
            let (name, own) = match grammar.mark(key) {
                Some(Mark::Whiteout(hidden)) if listing.kind(hidden).is_none() => (hidden, None),
                _ if grammar.hides_entry(key) => continue,
                _ => (key, Some(kind)),
            };
            names.push(Named {
                key: key.into(),
                name: name.into(),
                own,
            });
        }
    }
    let (after, before) = (&directory.after, directory.before.as_deref());
    // The branches of another stack are other ones, whatever their numbers.
    if after.stack().base.is_some() || !after.is_same_but(branch, before) {
        let sides = std::iter::once(after).chain(before);
        for side in sides {
            for Listed { name, .. } in side.names()?.iter() {
                if directory.own_kind(name).is_none() {
                    names.push(Named {
                        key: grammar.whiteout_of(name).into(),
                        name: name.to_vec().into(),
                        own: None,
                    });
                }
            }
        }
        // Of two that are called the same the branch's own was the first.
        names.sort_by(|a, b| a.key.cmp(&b.key));
        names.dedup_by(|later, first| later.key == first.key);
    }
    if let Some(only) = only {
        names.retain(|of| *of.name == *only);
    }
    Ok(names)
}
