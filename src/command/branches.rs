//! `branches [TARGET]`: every union and what it is made of.

use serde::Serialize;

use crate::bytes::Bytes;
use crate::command::{Context, Outcome, Report};
use crate::engine::{MountState, Owner, Union};
use crate::error::Result;

/// One union.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct Row {
    /// What a person would call it.
    pub union: Bytes,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub si: Option<String>,
    pub state: MountState,
    /// Where it can be seen.
    pub mounts: Vec<Bytes>,
    /// Of those, mounts that show only a part of the union, or are in another mount namespace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub partial: Vec<Partial>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<Owner>,
    /// Topmost first.
    pub branches: Vec<BranchRow>,
}

/// A mount that is not the whole union in our own mount namespace.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct Partial {
    pub mount: Bytes,
    /// The directory of the union that is mounted there.
    pub root: Bytes,
    /// A process in whose mount namespace it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<u32>,
}

#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct BranchRow {
    /// 0 is topmost.
    pub index: usize,
    /// `rw`, `ro` or `rr` with attributes.
    pub permission: String,
    /// `container`, `init`, `image K/N`, `module` or `plain`.
    pub role: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layer: Option<String>,
    pub directory: Bytes,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instruction: Option<String>,
    /// The file that the branch is mounted from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub module: Option<Bytes>,
}

pub fn run(context: &mut Context<'_>, target: Option<&[u8]>) -> Result<Outcome> {
    let rows = match target {
        Some(name) => {
            // Where it is mounted is a part of the answer.
            context.survey.look_everywhere();
            let target = context.find(name)?;
            // Says which branch is not there.
            context.open(&target);
            vec![row(target.union.label(), target.union)]
        }
        None => {
            context.survey.look_everywhere();
            let mounted = context.survey.mounted.iter();
            let mounted: Vec<Union> = mounted
                .map(|union| context.survey.describe(union))
                .collect();
            let unmounted = context.survey.unmounted();
            {
                let unions: Vec<Union> = mounted.into_iter().chain(unmounted).collect();
                context
                    .problems
                    .extend(unions.iter().filter_map(Union::unknown));
                unions
                    .into_iter()
                    .map(|union| row(context.survey.label(&union), union))
                    .collect()
            }
        }
    };
    Outcome::yes(Report::Branches(rows))
}

fn row(label: Bytes, union: Union) -> Row {
    Row {
        union: label,
        si: union.si().map(|si| format!("si_{si}")),
        state: union.state,
        partial: union
            .mounts
            .iter()
            .filter(|mount| mount.root != Bytes::from("/") || mount.process.is_some())
            .map(|mount| Partial {
                mount: mount.path.clone(),
                root: mount.root.clone(),
                process: mount.process,
            })
            .collect(),
        mounts: union
            .mounts
            .iter()
            .map(|mount| mount.path.clone())
            .collect(),
        owner: union.owner,
        branches: union
            .branches
            .into_iter()
            .enumerate()
            .map(|(index, branch)| BranchRow {
                index,
                permission: branch.spec.permission.to_string(),
                role: branch.layer.role.to_string(),
                layer: branch.layer.id,
                directory: branch.spec.path,
                instruction: branch.layer.instruction,
                module: branch.layer.module,
            })
            .collect(),
    }
}
