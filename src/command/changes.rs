//! `changes [TARGET]`: what a container made of its image, in `docker diff`'s lines.

use serde::Serialize;

use crate::bytes::Bytes;
use crate::command::copyups::{Differs, differs};
use crate::command::{Context, Outcome, Report, subjects};
use crate::difference::{self, Change};
use crate::dir::Kind;
use crate::error::Result;

pub struct Query<'a> {
    pub target: Option<&'a [u8]>,
    pub detail: Detail,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    Short,
    /// With sizes and what differs.
    Long,
}

/// One change.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct Row {
    /// The union, where the query did not name one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub union: Option<Bytes>,
    pub path: Bytes,
    pub change: Change,
    /// The version that was changed or deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    #[serde(flatten)]
    pub long: Option<Long>,
}

#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct Origin {
    /// Index of the branch, 0 is topmost; past the last one for what a copy was made from.
    pub branch: usize,
    #[serde(rename = "type")]
    pub kind: Kind,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layer: Option<String>,
}

/// What `--long` adds. Sizes are in bytes.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct Long {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_before: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub differs: Option<Vec<Differs>>,
}

pub fn run(context: &mut Context<'_>, query: &Query<'_>) -> Result<Outcome> {
    let mut rows = Vec::new();
    for (label, target, branch) in subjects(context, query.target)? {
        let stack = context.open(&target);
        for difference in difference::changes(&stack, branch) {
            let is_engines = |path: &Bytes| {
                let mut made = target.union.engine_made.iter();
                made.any(|made| made.as_bytes() == path.as_bytes())
            };
            if difference.as_ref().is_ok_and(|of| is_engines(&of.path)) {
                continue;
            }
            let row = difference.and_then(|difference| {
                let long = match query.detail {
                    Detail::Short => None,
                    Detail::Long => Some(Long {
                        size: difference.stat_after()?.map(|stat| stat.size),
                        size_before: difference.stat_before()?.map(|stat| stat.size),
                        differs: match difference.change {
                            Change::Changed => Some(differs(&difference)?),
                            Change::Added | Change::Deleted => None,
                        },
                    }),
                };
                Ok(Row {
                    union: label.clone(),
                    path: difference.path,
                    change: difference.change,
                    origin: difference.before.map(|before| {
                        let (branch, layer) = target.union.compared_with(before.branch);
                        Origin {
                            branch,
                            kind: before.kind,
                            layer,
                        }
                    }),
                    long,
                })
            });
            match row {
                Ok(row) => rows.push(row),
                Err(error) => context.problems.push(error),
            }
        }
    }
    Outcome::yes(Report::Changes(rows))
}
