//! Whether what was read is still there when the answer is given. What is removed while it is
//! read looks like something emptied, and nothing in a layer tells the one from the other.
//!
//! An engine takes the layers above before those below, and marks a record, or takes it away,
//! before the layers that it is of. So two questions are enough: whether the topmost branch's path
//! leads where it led, and what the engine's record says now. Of a stack that no engine keeps only
//! the first is asked: two system calls for each branch would make `which` dearer by half.

use std::collections::BTreeMap;

use super::union::{Owner, Union};
use crate::bytes::Bytes;
use crate::dir::Dir;
use crate::error::Error;

/// What an answer rests on, by the path of its topmost branch and the namespace and the id of its
/// owner: one that is opened for many questions is looked at once.
#[derive(Default)]
pub struct Watched(BTreeMap<(Bytes, OwnerName), Watch>);

/// The namespace and the id of an owner, where there is one.
type OwnerName = Option<(Option<String>, String)>;

struct Watch {
    label: Bytes,
    /// The topmost branch, where it was opened.
    top: Option<Dir>,
    owner: Option<Owner>,
}

impl Watched {
    pub fn add(&mut self, union: &Union, top: Option<&Dir>) {
        let Some(branch) = union.branches.first() else {
            return;
        };
        let owner = union.owner.as_ref();
        let id = owner.map(|owner| (owner.store.namespace.clone(), owner.id.clone()));
        self.0
            .entry((branch.spec.path.clone(), id))
            .or_insert_with(|| Watch {
                label: union.label(),
                top: top.cloned(),
                owner: union.owner.clone(),
            });
    }

    /// What is not where it was. `gone` says which of some owners have been removed.
    pub fn vanished<'o>(&'o self, gone: impl FnOnce(&[&'o Owner]) -> Vec<&'o Owner>) -> Vec<Error> {
        let mut vanished = Vec::new();
        for ((path, _), watch) in &self.0 {
            match watch.top.as_ref().map(Dir::is_at_its_path) {
                None | Some(Ok(true)) => {}
                Some(Ok(false)) => vanished.push(Error::Moved(path.clone())),
                Some(Err(errno)) => vanished.push(Error::io(path.clone(), errno)),
            }
        }
        let owners = self.0.values().filter_map(|watch| watch.owner.as_ref());
        let gone = gone(&owners.collect::<Vec<&Owner>>());
        let is_gone = |of: &&Watch| of.owner.as_ref().is_some_and(|own| gone.contains(&own));
        let going = self.0.values().filter(is_gone);
        vanished.extend(going.map(|of| Error::Removed(of.label.clone())));
        vanished
    }
}
