//! A mark that keeps branches out of the merged view.

use std::sync::Arc;

use serde::Serialize;

use crate::bytes::Bytes;
use crate::whiteout::MarkKind;

/// A mark that ends the search: below its branch nothing shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Cut {
    /// Index of the branch that holds the mark.
    pub branch: usize,
    /// The mark's own path, as if the branch were the root.
    pub mark: Bytes,
    pub kind: MarkKind,
    /// What is marked: the deleted name, or the opaque directory.
    #[serde(skip)]
    pub of: Bytes,
}

/// Adds a mark that keeps branches out, unless those above keep them out anyway: a path has more
/// directories than a union has branches.
pub(super) fn add_cut(
    cuts: &mut Vec<Arc<Cut>>,
    branch: usize,
    kind: MarkKind,
    cut: impl FnOnce() -> Cut,
) {
    let first_hidden = |branch: usize, kind: MarkKind| match kind {
        // It hides what its own branch has of the name, too.
        MarkKind::Whiteout => branch,
        MarkKind::Opaque => branch + 1,
    };
    let is_hidden = cuts.iter().any(|above| {
        above.branch <= branch
            && first_hidden(above.branch, above.kind) <= first_hidden(branch, kind)
    });
    if !is_hidden {
        cuts.push(Arc::new(cut()));
    }
}
