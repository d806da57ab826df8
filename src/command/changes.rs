//! `changes [TARGET]`: what a container made of its image, in `docker diff`'s lines.

use serde::Serialize;

use crate::bytes::Bytes;
use crate::command::copyups::{Differs, differs};
use crate::command::{Batch, Context, Find, Outcome, Report, Shape, Stream, subjects};
use crate::difference::{Change, Changed, Difference, differences};
use crate::dir::Kind;
use crate::error::Result;
use crate::target::Target;
use crate::union::Stack;

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
    pub long: Option<Box<Long>>,
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
    let detail = query.detail;
    let subjects: Vec<Subject> = subjects(context, query.target)?
        .into_iter()
        .map(|(label, target, branch)| Subject {
            stack: context.open(&target),
            label,
            target,
            branch,
        })
        .collect();
    Outcome::yes(Report::Changes(Stream {
        shape: match (detail, query.target) {
            (Detail::Long, _) => Shape::Columns,
            (Detail::Short, None) => Shape::Headed,
            (Detail::Short, Some(_)) => Shape::Lines,
        },
        find: Box::new(move |how, give| {
            let _ = subjects.iter().try_for_each(|subject| {
                let changed = Changed::of_docker(&subject.stack);
                let row = |found: Result<Difference<'_, '_>>, batch: &mut Batch<Row>| {
                    if let Err(error) =
                        found.and_then(|found| subject.row(&found, detail, how, batch))
                    {
                        batch.problems.push(error);
                    }
                };
                differences(
                    &subject.stack,
                    subject.branch,
                    changed,
                    how.threads,
                    &row,
                    &mut *give,
                )
            });
        }),
    }))
}

/// A union, and the branch whose changes are asked for.
struct Subject {
    label: Option<Bytes>,
    target: Target,
    stack: Stack,
    branch: usize,
}

impl Subject {
    fn row(
        &self,
        found: &Difference<'_, '_>,
        detail: Detail,
        how: &Find<'_, Row>,
        batch: &mut Batch<Row>,
    ) -> Result<()> {
        let path = found.path();
        let mut made = self.target.union.engine_made.iter();
        if made.any(|made| made.as_bytes() == path.as_bytes()) {
            batch.has_hidden = true;
            return Ok(());
        }
        let long = match detail {
            Detail::Short => None,
            Detail::Long => Some(Box::new(Long {
                size: found.stat_after()?.map(|stat| stat.size),
                size_before: found.stat_before()?.map(|stat| stat.size),
                differs: match found.change {
                    Change::Changed => Some(differs(found)?),
                    Change::Added | Change::Deleted => None,
                },
            })),
        };
        let row = Row {
            union: self.label.clone(),
            path,
            change: found.change,
            origin: found.before.map(|before| {
                let (branch, layer) = self.target.union.compared_with(before.branch);
                Origin {
                    branch,
                    kind: before.kind,
                    layer,
                }
            }),
            long,
        };
        if let Some(row) = batch.keep(how.keep, row) {
            found.give_back(row.path);
        }
        Ok(())
    }
}
