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

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a mark still counts below another one.
    fn counts(above: (MarkKind, usize), below: (MarkKind, usize)) -> bool {
        let cut = |(kind, branch)| Cut {
            branch,
            mark: Bytes::from("/mark"),
            kind,
            of: Bytes::from("/"),
        };
        let mut cuts = Vec::new();
        add_cut(&mut cuts, above.1, above.0, || cut(above));
        add_cut(&mut cuts, below.1, below.0, || cut(below));
        cuts.len() == 2
    }

    #[test]
    fn a_mark_counts_only_where_none_above_hides_as_much() {
        use MarkKind::{Opaque, Whiteout};
        for (above, below, expected) in [
            ((Whiteout, 1), (Whiteout, 2), false),
            ((Whiteout, 1), (Opaque, 1), false),
            ((Opaque, 1), (Whiteout, 2), false),
            ((Opaque, 1), (Opaque, 1), false),
            // What the branch of the opaque directory has itself is hidden by the whiteout alone.
            ((Opaque, 1), (Whiteout, 1), true),
            // One that was met first, and lies below.
            ((Whiteout, 2), (Opaque, 1), true),
            ((Whiteout, 3), (Whiteout, 1), true),
        ] {
            assert_eq!(counts(above, below), expected, "{above:?} {below:?}");
        }
    }
}
