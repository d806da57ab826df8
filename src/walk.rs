//! Trees in order, without recursion and without a limit on their depth.

use std::sync::Arc;

use crate::error::Result;
use crate::union::{Entry, Node, Reading, Stack, Why};

/// What a place yields: answers and further places, in the order in which they are to come out.
pub enum Item<P, R> {
    Row(R),
    Place(P),
}

/// Visits a tree depth first. `visit` is given a place and says what is there; its places are
/// visited where they stand among its rows.
pub struct Walk<P, R, F> {
    pending: Vec<std::vec::IntoIter<Item<P, R>>>,
    visit: F,
}

pub fn walk<P, R, F: FnMut(P) -> Vec<Item<P, R>>>(root: P, visit: F) -> Walk<P, R, F> {
    Walk {
        pending: vec![vec![Item::Place(root)].into_iter()],
        visit,
    }
}

impl<P, R, F: FnMut(P) -> Vec<Item<P, R>>> Iterator for Walk<P, R, F> {
    type Item = R;

    fn next(&mut self) -> Option<R> {
        loop {
            match self.pending.last_mut()?.next() {
                Some(Item::Row(row)) => return Some(row),
                Some(Item::Place(place)) => self.pending.push((self.visit)(place).into_iter()),
                None => {
                    self.pending.pop();
                }
            }
        }
    }
}

/// A place of [`walk_branch`]. A directory is opened only when its turn comes.
pub enum InBranch<'s> {
    Root,
    Name(Arc<Node<'s>>, Vec<u8>),
}

/// The directory that a place lies in, and its name there; `None` for the root.
pub type Found<'s> = Option<(Arc<Node<'s>>, Vec<u8>)>;

/// What a directory of a branch yields.
pub type BranchItems<'s, R> = Vec<Item<InBranch<'s>, Result<R>>>;

/// Visits one branch's own tree, in the view of that branch and those below it. `directory` says
/// what is in a directory, `refused` what to say of one that the union refuses: nothing below it
/// means anything. What cannot be read comes out as an error, in its place.
pub fn walk_branch<'s, R>(
    stack: &'s Stack,
    branch: usize,
    directory: impl Fn(Node<'s>, Found<'s>) -> Result<BranchItems<'s, R>>,
    refused: impl Fn(&Node<'s>, &[u8], Why) -> Option<R>,
) -> impl Iterator<Item = Result<R>> {
    walk(InBranch::Root, move |place| {
        let items = match place {
            InBranch::Root => {
                let root = stack.root(|index| index >= branch, Reading::Branch(branch));
                directory(root, None)
            }
            InBranch::Name(parent, name) => match parent.child(&name) {
                Ok(Entry::Dir(node)) => directory(node, Some((parent, name))),
                Ok(Entry::Broken { why, .. }) => {
                    let row = refused(&parent, &name, why);
                    Ok(row.into_iter().map(|row| Item::Row(Ok(row))).collect())
                }
                Ok(_) => Ok(Vec::new()),
                Err(error) => Err(error),
            },
        };
        items.unwrap_or_else(|error| vec![Item::Row(Err(error))])
    })
}
