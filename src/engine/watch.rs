//! Whether what was read is still there when the answer is given. What is removed while it is
//! read looks like something emptied, and nothing in a layer tells the one from the other.
//!
//! An engine takes the layers above before those below, and marks a record, or takes it away,
//! before the layers that it is of. So two questions are enough: whether the topmost branch's path
//! leads where it led, and what the engine's record says now. Of a stack that no engine keeps only
//! the first is asked: two system calls for each branch would make `which` dearer by half.

use std::collections::BTreeMap;

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
        watched
            .entry((branch.spec.path.clone(), id))
            .or_insert_with(|| Watch {
                label: union.label(),
                top: top.cloned(),
                owner: union.owner.clone(),
            });
    }

    /// What was removed, renamed or covered since it was opened. It is told once.
    pub fn take_vanished(&self) -> Vec<Error> {
        let watched = self.watched.take();
        let mut vanished = Vec::new();
        for ((path, _), watch) in &watched {
            match watch.top.as_ref().map(Dir::is_at_its_path) {
                None | Some(Ok(true)) => {}
                Some(Ok(false)) => vanished.push(Error::Moved(path.clone())),
                Some(Err(errno)) => vanished.push(Error::io(path.clone(), errno)),
            }
        }
        let owners = watched.values().filter_map(|watch| watch.owner.as_ref());
        let owners: Vec<&Owner> = owners.collect();
        // No engine is looked for on their behalf: where there are owners, it was.
        let engines = self.engines.get().into_iter().flat_map(|of| &of.all);
        let gone: Vec<&Owner> = engines.flat_map(|engine| engine.gone(&owners)).collect();
        let is_gone = |of: &&Watch| of.owner.as_ref().is_some_and(|own| gone.contains(&own));
        let going = watched.values().filter(is_gone);
        vanished.extend(going.map(|of| Error::Removed(of.label.clone())));
        vanished
    }
}
