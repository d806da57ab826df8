//! Whether what was read is still there when the answer is given. What is removed while it is
//! read looks like something emptied, and nothing in a layer tells the one from the other.
//!
//! Who removes takes the layers above before those below, and marks the record of a container or
//! an image, or takes it away, before its layers. So two questions are enough: whether the
//! topmost branch's path leads where it led, and what the engine's record says now.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use super::{Owner, Survey, Union};
use crate::bytes::Bytes;
use crate::dir::Dir;
use crate::error::Error;

/// What an answer rests on, by the path of its topmost branch and the id of its owner: one that is
/// opened for many questions is looked at once.
pub type Watched = BTreeMap<(Bytes, Option<String>), Watch>;

pub struct Watch {
    label: Bytes,
    /// The topmost branch, where it was opened.
    top: Option<Dir>,
    owner: Option<Owner>,
}

impl Survey<'_> {
    /// Remembers what an answer will rest on: a union, and its topmost branch where that was
    /// opened.
    pub fn watch(&self, union: &Union, top: Option<&Dir>) {
        let Some(branch) = union.branches.first() else {
            return;
        };
        let id = union.owner.as_ref().map(|owner| owner.id.clone());
        let mut watched = self.watched.borrow_mut();
        let Entry::Vacant(place) = watched.entry((branch.spec.path.clone(), id)) else {
            return;
        };
        // On a copy nothing goes on: what had been removed in part when it was made is what there
        // is to show.
        let is_there = |owner: &&Owner| self.host.is_live() || self.gone(&[owner]).is_empty();
        place.insert(Watch {
            label: union.label(),
            top: top.cloned(),
            owner: union.owner.as_ref().filter(is_there).cloned(),
        });
    }

    /// What was removed or renamed since it was opened.
    pub fn vanished(&self) -> Vec<Error> {
        let watched = self.watched.borrow();
        let mut vanished = Vec::new();
        for ((path, _), watch) in watched.iter() {
            match watch.top.as_ref().map(Dir::is_at_its_path) {
                None | Some(Ok(true)) => {}
                Some(Ok(false)) => vanished.push(Error::Vanished(path.clone())),
                Some(Err(errno)) => vanished.push(Error::io(path.clone(), errno)),
            }
        }
        let owners = watched.values().filter_map(|watch| watch.owner.as_ref());
        let gone = self.gone(&owners.collect::<Vec<_>>());
        let is_gone = |of: &&Watch| of.owner.as_ref().is_some_and(|own| gone.contains(&own));
        let of_records = watched.values().filter(is_gone);
        vanished.extend(of_records.map(|of| Error::Vanished(of.label.clone())));
        vanished
    }

    /// Those of whom no engine has a record, or that theirs is removing.
    fn gone<'o>(&self, owners: &[&'o Owner]) -> Vec<&'o Owner> {
        // No engine is looked for on their behalf: where there are owners, it was.
        let engines = self.engines.get().into_iter().flat_map(|of| &of.all);
        engines.fold(owners.to_vec(), |gone, engine| {
            let is_own = |of: &&Owner| of.engine == engine.name();
            let (own, mut others): (Vec<&Owner>, Vec<&Owner>) = gone.into_iter().partition(is_own);
            if !own.is_empty() {
                others.extend(engine.gone(&own));
            }
            others
        })
    }
}
