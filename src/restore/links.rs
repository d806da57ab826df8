//! Hard links among what is copied.

use std::collections::HashMap;

use super::made::{Identity, Named};
use crate::dir::Dir;

/// Files of which there may be more names, and the first that was made of each. Who copies several
/// things that belong together has one of them for all.
#[derive(Default)]
pub struct Links {
    first: HashMap<Identity, Named>,
    /// Which of them are in what is staged.
    staged: Vec<Identity>,
}

impl Links {
    /// The first name that was made of a file.
    pub fn first_of(&self, of: Identity) -> Option<&Named> {
        self.first.get(&of)
    }

    /// That a file has its first name.
    pub fn insert(&mut self, of: Identity, made: Named) {
        self.first.insert(of, made);
        self.staged.push(of);
    }

    /// What was staged has its name.
    pub fn placed(&mut self, made: Identity, dir: &Dir, name: &[u8]) {
        for of in self.staged.drain(..) {
            if let Some(first) = self.first.get_mut(&of) {
                first.follow(made, dir, name);
            }
        }
    }

    /// What was staged was taken away: no name is left that a link could be made of.
    pub fn discarded(&mut self) {
        for of in self.staged.drain(..) {
            self.first.remove(&of);
        }
    }
}
