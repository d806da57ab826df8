//! How many names a mark hides.

use crate::error::Result;
use crate::union::{Entry, Listed, Node};

/// So many names are looked at for one mark. Whoever reads that there are more needs no number, and
/// marks can hide all of an image.
const LOOKED_MAX: u64 = 20_000;

/// The names that are hidden, those in directories among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hidden {
    pub count: u64,
    /// There are more, or may be.
    pub is_part: bool,
}

/// A directory of the union as it would be, and of the union as it is, where that has it.
pub struct Pair<'s> {
    pub without: Node<'s>,
    pub with: Option<Node<'s>>,
}

/// Counts the names below a directory that only the union as it would be has. `count` are known.
///
/// # Errors
/// A directory that cannot be read.
pub fn count_below(pair: Pair<'_>, count: u64) -> Result<Hidden> {
    let (mut count, mut looked) = (count, 0);
    let mut pending = vec![pair];
    while let Some(Pair { without, with }) = pending.pop() {
        for Listed { name, .. } in without.names()?.iter() {
            looked += 1;
            if looked > LOOKED_MAX {
                return Ok(Hidden {
                    count,
                    is_part: true,
                });
            }
            let hidden = without.child(name)?;
            if hidden.kind().is_none() {
                continue;
            }
            let shown = with.as_ref().map(|node| node.child(name)).transpose()?;
            let is_shown = shown.as_ref().is_some_and(|of| of.kind().is_some());
            count += u64::from(!is_shown);
            let Entry::Dir(without) = hidden else {
                continue;
            };
            let with = match shown {
                Some(Entry::Dir(with)) => Some(with),
                _ => None,
            };
            // Where the same is merged, the same is shown.
            let is_same = with
                .as_ref()
                .is_some_and(|with| with.branches().eq(without.branches()));
            if !is_same {
                pending.push(Pair { without, with });
            }
        }
    }
    Ok(Hidden {
        count,
        is_part: false,
    })
}
