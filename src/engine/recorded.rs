//! A mounted union that a store knows: its branches are those of the store's records. The kernel's
//! options name them by what they were while it was mounted, and say how they are stacked.
//!
//! ```text
//! lowerdir=3:6:7               descriptors of the one who mounted it: many layers
//! lowerdir=<id>/mapped/0/diff  /tmp/ovl-idmapped12/33/fs     other owners, for the mount only
//! lowerdir=<id>/empty          nothing is below
//! ```

use super::union::{LayeredBranch, Union, UnionKind};
use crate::branch::Permission;
use crate::bytes::Bytes;
use crate::error::Error;

/// What the kernel's path of a branch stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Named {
    /// The content of a layer.
    Layer(String),
    /// An empty directory, where there has to be one.
    Empty,
    /// Nothing that lasts longer than the mounting.
    Unknown,
}

/// How a union's topmost branch is used.
pub fn top_permission(union: &Union) -> Permission {
    let top = union.branches.first();
    top.map_or(Permission::RW, |top| top.spec.permission.clone())
}

/// Gives a mounted union the branches that its store has recorded. What the kernel says of them is
/// compared as far as it can be.
///
/// # Errors
/// The two disagree. The union has the recorded branches all the same.
pub fn restack(
    union: &mut Union,
    recorded: Union,
    named: impl Fn(&Bytes) -> Named,
) -> Result<(), Error> {
    // Directories with nothing but content stand below: they belong to layers that stand above.
    let data = match &mut union.kind {
        UnionKind::Overlay { data, .. } => std::mem::take(data),
        _ => 0,
    };
    let merged = union.branches.len().saturating_sub(data);
    let told: Vec<Named> = union.branches[..merged]
        .iter()
        .map(|branch| named(&branch.spec.path))
        .filter(|named| *named != Named::Empty)
        .collect();
    let (with_names, of_content) = match recorded.kind {
        UnionKind::Overlay { data, .. } => (recorded.branches.len().saturating_sub(data), data),
        UnionKind::Aufs | UnionKind::FuseOverlay(_) | UnionKind::Copy => {
            (recorded.branches.len(), 0)
        }
    };
    let disagreement = disagreement(&told, &recorded.branches[..with_names]);
    let place = recorded.branches.first().map(|top| top.spec.path.clone());
    match &mut union.kind {
        UnionKind::Overlay { data, .. } => *data = of_content,
        kind => *kind = recorded.kind,
    }
    union.branches = recorded.branches;
    union.base = recorded.base;
    union.owners = recorded.owners;
    union.ids = recorded.ids;
    match disagreement {
        Some(what) => Err(Error::damaged(place.unwrap_or_default(), what)),
        None => Ok(()),
    }
}

/// In what the kernel disagrees with the records.
fn disagreement(told: &[Named], recorded: &[LayeredBranch]) -> Option<String> {
    if told.is_empty() {
        return None;
    }
    if told.len() != recorded.len() {
        return Some(format!(
            "is mounted with {} branches, and the store has recorded {}",
            told.len(),
            recorded.len()
        ));
    }
    told.iter().zip(recorded).find_map(|(told, recorded)| {
        let Named::Layer(told) = told else {
            return None;
        };
        let recorded = recorded.layer.id.as_ref()?;
        (told != recorded).then(|| {
            format!("is mounted above layer {told} where the store has recorded {recorded}")
        })
    })
}
