//! The directories of a branch's own tree.

use std::sync::Arc;

use crate::error::Result;
use crate::union::{Entry, Node, Reading, Stack, Why};

/// A directory of a branch's own tree. It is opened only when it is visited.
pub enum InBranch<'s> {
    /// The branch's root.
    Root,
    /// The directory of that name in one that is open.
    Name(Arc<Node<'s>>, Vec<u8>),
}

/// The directory that one is in, and its name there; `None` for the root.
pub type Above<'s> = Option<(Arc<Node<'s>>, Vec<u8>)>;

impl<'s> InBranch<'s> {
    /// Opens the directory, in the view of that branch and those below it. `directory` says what
    /// is in it, `refused` what to say of one that the union refuses: nothing below that means
    /// anything.
    ///
    /// # Errors
    /// A directory that cannot be read.
    pub fn open(
        self,
        stack: &'s Stack,
        branch: usize,
        directory: impl FnOnce(Node<'s>, Above<'s>) -> Result<()>,
        refused: impl FnOnce(&Node<'s>, &[u8], Why),
    ) -> Result<()> {
        match self {
            InBranch::Root => {
                let root = stack.root(|index| index >= branch, Reading::Branch(branch));
                directory(root, None)
            }
            InBranch::Name(parent, name) => match parent.child_directory(&name)? {
                Entry::Dir(node) => directory(node, Some((parent, name))),
                Entry::Broken { why, .. } => {
                    refused(&parent, &name, why);
                    Ok(())
                }
                _ => Ok(()),
            },
        }
    }
}
