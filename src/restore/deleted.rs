//! Everything that a branch deletes.

use std::num::NonZeroUsize;
use std::ops::ControlFlow;

use crate::bytes::Bytes;
use crate::difference::{Change, Criterion, Difference, differences};
use crate::error::{Error, Result};
use crate::union::Stack;

/// The paths that the union without a branch has and the union with it has not, in order; of a tree
/// that is gone the topmost. With what could not be read.
pub fn deleted(stack: &Stack, branch: usize, threads: NonZeroUsize) -> (Vec<Bytes>, Vec<Error>) {
    let (mut paths, mut problems) = (Vec::new(), Vec::new());
    let row = |found: Result<Difference<'_, '_>>, batch: &mut Vec<Result<Bytes>>| match found {
        Ok(found) if found.change == Change::Deleted => batch.push(Ok(found.path())),
        Ok(_) => {}
        Err(error) => batch.push(Err(error)),
    };
    let criterion = Criterion::of_union(stack);
    let _ = differences(stack, branch, criterion, threads, &row, |batch| {
        for found in batch {
            match found {
                Ok(path) => paths.push(path),
                Err(error) => problems.push(error),
            }
        }
        ControlFlow::Continue(())
    });
    (paths, problems)
}
