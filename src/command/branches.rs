//! `branches [TARGET]`: every union and what it is made of.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;

use serde::Serialize;

use crate::bytes::{Bytes, escape};
use crate::command::{Context, Group, Help, Outcome, Verb, role_words};
use crate::engine::{MountState, Owner, Union};
use crate::error::Result;
use crate::render::column::{Column, column, optional};
use crate::render::{Look, table};

/// List unions and their branches, topmost first
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A container, an image, a mount point, a layer...; without it every union of the host
    target: Option<OsString>,
}

/// One union.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct Row {
    /// The union, as a TARGET.
    pub target: Bytes,
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
    pub branch: usize,
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

impl Verb for Args {
    const HELP: Help = Help {
        group: Group::Look,
        examples: &[
            "layerctl branches",
            "layerctl branches web",
            "layerctl branches nginx:latest -v",
        ],
        exit: "0 listed; 2 something could not be read",
    };

    type Answer = Vec<Row>;

    fn run(self, context: &mut Context<'_>) -> Result<Outcome<Vec<Row>>> {
        // Where a union is mounted is a part of the answer.
        context.survey.look_everywhere();
        let Some(name) = &self.target else {
            return Outcome::yes(all(context));
        };
        let target = context.find(name.as_bytes())?;
        // Says which branch is not there.
        context.open(&target);
        let label = context.survey.label(&target.union);
        Outcome::yes(vec![row(label, target.union)])
    }
}

/// Every union of the host, the mounted ones first.
fn all(context: &mut Context<'_>) -> Vec<Row> {
    let mounted = context.survey.mounted.iter();
    let mounted: Vec<Union> = mounted
        .map(|union| context.survey.describe(union))
        .collect();
    let unmounted = context.survey.unmounted();
    let unions: Vec<Union> = mounted.into_iter().chain(unmounted).collect();
    context
        .problems
        .extend(unions.iter().filter_map(Union::unknown));
    let doubts = unions.iter().flat_map(Union::doubts);
    context.problems.extend(doubts);
    unions
        .into_iter()
        .map(|union| row(context.survey.label(&union), union))
        .collect()
}

fn row(label: Bytes, mut union: Union) -> Row {
    if union.view.is_some() {
        // No mount shows it.
        union.mounts.clear();
    }
    Row {
        target: label,
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
                branch: index,
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

impl crate::command::Row for Row {
    fn words(&self, give: &mut dyn FnMut(&[u8])) {
        let branches = self.branches.iter();
        branches.for_each(|branch| give(branch.directory.as_bytes()));
    }

    fn table(rows: &[Self], look: Look, out: &mut dyn Write) -> io::Result<()> {
        for (index, union) in rows.iter().enumerate() {
            if index > 0 {
                writeln!(out)?;
            }
            union.write_title(look, out)?;
            union.write_mounts(look, out)?;
            table::write(&BranchRow::columns(look), &union.branches, look, out)?;
        }
        Ok(())
    }
}

impl Row {
    fn write_title(&self, look: Look, out: &mut dyn Write) -> io::Result<()> {
        write!(out, "{}", look.bold(&escape(self.target.as_bytes())))?;
        if let Some(owner) = &self.owner
            && owner.name.is_some()
        {
            write!(out, "  {}", look.id(&owner.id))?;
        }
        if let Some(si) = &self.si {
            write!(out, "  {si}")?;
        }
        let state = match self.state {
            MountState::Mounted => "",
            MountState::Elsewhere => "  mounted in another mount namespace",
            MountState::NotMounted => "  not mounted",
        };
        writeln!(out, "{state}")
    }

    /// Where it can be seen, as far as the title does not say it.
    fn write_mounts(&self, look: Look, out: &mut dyn Write) -> io::Result<()> {
        for mount in &self.mounts {
            let partial = self.partial.iter().find(|partial| partial.mount == *mount);
            if *mount == self.target && partial.is_none() {
                continue;
            }
            write!(out, "at {}", look.directory(mount))?;
            if let Some(partial) = partial {
                if partial.root.as_bytes() != b"/" {
                    write!(out, ", only {}", partial.root)?;
                }
                if let Some(process) = partial.process {
                    write!(out, ", in the mount namespace of process {process}")?;
                }
            }
            writeln!(out)?;
        }
        Ok(())
    }
}

impl BranchRow {
    fn columns(look: Look) -> Vec<Column<BranchRow>> {
        let mut columns = vec![
            column("#", |row: &BranchRow, _, cell| cell.show(row.branch)),
            column("PERM", |row, _, cell| cell.text(&row.permission)),
            column("LAYER", |row, _, cell| cell.text(&role_words(&row.role))),
            optional("ID", |row, look, cell| {
                cell.text(
                    &row.layer
                        .as_deref()
                        .map(|id| look.id(id))
                        .unwrap_or_default(),
                );
            }),
            column("DIRECTORY", |row, look, cell| {
                cell.word(&look.directory(&row.directory));
            }),
            optional("MODULE", |row, _, cell| {
                if let Some(module) = &row.module {
                    cell.show(module);
                }
            }),
        ];
        if look.verbose {
            columns.push(column("INSTRUCTION", |row, look, cell| {
                let instruction = row.instruction.as_deref().unwrap_or_default();
                cell.word(&look.clip(instruction, 45));
            }));
        }
        columns
    }
}
