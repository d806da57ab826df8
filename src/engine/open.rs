//! From what an engine or the kernel knows of a union to the stack that can be looked into.

use super::reach::Reach;
use super::survey::Survey;
use super::union::{LayeredBranch, Union, UnionKind};
use crate::error::Error;
use crate::union::{Branch, Stack};
use crate::whiteout::Grammar;

impl Union {
    /// Opens every branch. Those that cannot be opened are kept with the reason.
    pub fn open(&self, survey: &Survey<'_>) -> Stack {
        let reach = Reach::new(survey.host, &survey.table, self);
        let merged = match self.kind {
            UnionKind::Overlay { data, .. } => self.branches.len().saturating_sub(data),
            UnionKind::Aufs | UnionKind::FuseOverlay(_) | UnionKind::Copy => self.branches.len(),
        };
        let open = |(index, branch): (usize, &LayeredBranch)| {
            let dir = match branch.doubt {
                Some(why) => Err(Error::damaged(branch.spec.path.clone(), why)),
                None => reach.open(branch),
            };
            let grammar = match self.kind {
                UnionKind::Aufs => return Branch::aufs(&branch.spec, dir),
                UnionKind::Overlay { .. } if index >= merged => Grammar::OverlayData,
                UnionKind::Overlay { rules, .. } => Grammar::Overlay(rules),
                UnionKind::FuseOverlay(namespace) => Grammar::FuseOverlay(namespace),
                UnionKind::Copy => Grammar::Plain,
            };
            let is_below = !branch.spec.permission.is_writable();
            Branch {
                owners: self.owners.clone().filter(|_| is_below),
                ..Branch::new(&branch.spec, grammar, dir)
            }
        };
        let branches: Vec<Branch> = self.branches.iter().enumerate().map(open).collect();
        let top = branches.first().and_then(|top| top.dir.as_ref().ok());
        survey.watch(self, top);
        Stack {
            branches,
            base: self.base.as_ref().map(|base| Box::new(base.open(survey))),
            is_unwatched: self.has_aufs_option(|option| option == b"udba=none"),
        }
    }
}
