//! `check [TARGET[:PATH]...]`: what is wrong or surprising in the marks of a union, and without TARGET in
//! stores and records.

mod marks;

use std::ffi::OsString;
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::sync::atomic::AtomicU64;

use serde::Serialize;

use crate::bytes::Bytes;
use crate::command::orphans::left_over;
use crate::command::users::Users;
use crate::command::{
    Answer, Context, Ended, Findings, Group, Help, Label, Outcome, Verb, Which, counted, or_none,
    union_column,
};
use crate::engine::Survey;
use crate::engine::usage::{FaultKind, Leftover, LeftoverKind};
use crate::error::Result;
use crate::render::column::{Column, column, optional};
use crate::render::{Format, Look};
use crate::target::Target;
use crate::union::Stack;
use marks::{findings, leftovers};

/// Look for what is wrong or surprising in marks, stores and records
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A union, or a path of it; without it every container of the host, and the engines' stores
    #[arg(value_name = "TARGET[:PATH]")]
    targets: Vec<OsString>,
    #[command(flatten)]
    which: Which,
}

/// One finding.
#[derive(Debug, Serialize, schemars::JsonSchema)]
#[schemars(rename = "FindingRow")]
pub struct Row {
    /// The union, as a TARGET; none where it is a store's.
    #[serde(default, skip_serializing_if = "Label::is_none")]
    pub target: Label,
    /// The engine whose store it is in, where it is no union's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub engine: Option<&'static str>,
    pub finding: Finding,
    /// Index of the branch, 0 is topmost; none in a store.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub branch: Option<usize>,
    /// What it is about, as a path of the union, or of the host in a store.
    pub path: Bytes,
    /// The entry on disk, as a path of the branch, or of the host in a store.
    pub entry: Bytes,
    /// What it means.
    pub means: String,
    /// Of a store's: the containers and images that stand on the layer that is named, as TARGETs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub users: Vec<Bytes>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Finding {
    /// A whiteout that hides nothing.
    StaleWhiteout,
    /// A name beside its own whiteout.
    BesideWhiteout,
    /// A mark that is not a regular file.
    BadMark,
    /// A name that the union cannot have.
    NameTooLong,
    /// A mark that means nothing where it is.
    NoEffect,
    /// Deleted content that the next mount shows again.
    ComesBack,
    /// What AUFS left in its own directories.
    Leftover,
    /// A store's list of layers, or a layer's short name, that is empty or missing.
    BadList,
    /// A short name of a layer without its link, or with one that leads nowhere.
    LostLink,
    /// A record of what is gone.
    LostRecord,
    /// A layer that its engine has not finished.
    Incomplete,
    /// A mount of a layer that nothing runs on.
    StaleMount,
    /// Files in a directory that a union would cover.
    BeneathMount,
    /// What no record refers to: `orphans` tells its size, and lists what can be removed.
    Orphan,
}

impl Finding {
    pub const ALL: [Finding; 14] = [
        Finding::StaleWhiteout,
        Finding::BesideWhiteout,
        Finding::BadMark,
        Finding::NameTooLong,
        Finding::NoEffect,
        Finding::ComesBack,
        Finding::Leftover,
        Finding::BadList,
        Finding::LostLink,
        Finding::LostRecord,
        Finding::Incomplete,
        Finding::StaleMount,
        Finding::BeneathMount,
        Finding::Orphan,
    ];

    pub fn word(self) -> &'static str {
        match self {
            Finding::StaleWhiteout => "stale whiteout",
            Finding::BesideWhiteout => "beside whiteout",
            Finding::BadMark => "bad mark",
            Finding::NameTooLong => "name too long",
            Finding::NoEffect => "no effect",
            Finding::ComesBack => "comes back",
            Finding::Leftover => "leftover",
            Finding::BadList => "bad list",
            Finding::LostLink => "lost link",
            Finding::LostRecord => "lost record",
            Finding::Incomplete => "incomplete",
            Finding::StaleMount => "stale mount",
            Finding::BeneathMount => "beneath mount",
            Finding::Orphan => "orphan",
        }
    }
}

impl Verb for Args {
    const HELP: Help = Help {
        group: Group::Repair,
        examples: &[
            "layerctl check",
            "layerctl check web",
            "layerctl --root /mnt/disk check",
        ],
        exit: "0 nothing found; 1 something found; 2 could not tell",
    };

    type Answer = Checked;

    fn run(self, context: &mut Context<'_>) -> Result<Outcome<Checked>> {
        let mut rows = Vec::new();
        let names = AtomicU64::new(0);
        let mut examined = Examined::default();
        let targets = context.targets(&self.targets, self.which);
        // There are stores to look at.
        let has_stores = context.survey.engines_here().next().is_some();
        let targets = or_none(targets, has_stores)?;
        examined.unions = targets.len();
        if self.targets.is_empty() {
            examined.stores = context.survey.engines_here().count();
            let orphaned = left_over(context);
            rows.extend(in_stores(context, &orphaned.found));
            context.problems.extend(orphaned.problems);
        }
        let threads = context.threads.count();
        for (label, mut target) in targets {
            let stack = context.open_part(&mut target);
            in_union(
                &context.survey,
                (&label, &target),
                &stack,
                threads,
                &names,
                |found| match found {
                    Ok(row) if !target.has(&row.path) => {}
                    Ok(row) => rows.push(row),
                    Err(error) => context.problems.push(label.of(error)),
                },
            );
        }
        context.problems.extend(context.survey.take_vanished());
        examined.names = names.into_inner();
        // It is said in the answer.
        context.looked = None;
        let is_whole = context.problems.is_empty();
        Ok(Outcome {
            is_yes: rows.is_empty(),
            answer: Checked {
                findings: Findings { rows, is_whole },
                examined,
            },
        })
    }
}

/// What was found, and in how much.
#[derive(Debug)]
pub struct Checked {
    findings: Findings<Row>,
    examined: Examined,
}

#[derive(Debug, Default)]
struct Examined {
    unions: usize,
    /// Of engines.
    stores: usize,
    /// In branches, marks among them.
    names: u64,
}

impl Answer for Checked {
    type Row = Row;

    fn show(
        self,
        look: Look,
        context: &Context<'_>,
        out: &mut dyn Write,
        ended: &mut Ended,
    ) -> io::Result<()> {
        self.findings.show(look, context, out, ended)?;
        if look.format != Format::Table {
            return Ok(());
        }
        let Examined {
            unions,
            stores,
            names,
        } = self.examined;
        write!(
            out,
            "examined: {}, {}",
            counted(unions as u64, "union"),
            counted(names, "name")
        )?;
        if stores > 0 {
            write!(out, ", {}", counted(stores as u64, "store"))?;
        }
        writeln!(out)
    }
}

/// What is wrong in the marks of one union whose branches are open; `names` counts the names that were
/// looked at.
pub(super) fn in_union(
    survey: &Survey<'_>,
    (label, target): (&Label, &Target),
    stack: &Stack,
    threads: NonZeroUsize,
    names: &AtomicU64,
    mut give: impl FnMut(Result<Row>),
) {
    let mut labelled = |found: Result<Row>| {
        give(found.map(|row| Row {
            target: label.clone(),
            ..row
        }));
    };
    let in_use = survey.host.is_live() && target.union.is_mounted();
    for branch in 0..stack.branches.len() {
        let part = (branch, &target.inside);
        findings(stack, part, threads, names, &mut labelled);
        // While it is mounted, AUFS is still using them.
        if !in_use && stack.merger().keeps_files_in_branches() {
            match leftovers(stack, branch) {
                Ok(found) => found.into_iter().map(Ok).for_each(&mut labelled),
                Err(error) => labelled(Err(error)),
            }
        }
    }
}

/// What engines stumble over in their stores, what is left over in them among it.
pub(super) fn in_stores(
    context: &mut Context<'_>,
    orphaned: &[(&'static str, Leftover)],
) -> Vec<Row> {
    let row = |engine, finding, path: Bytes, means| Row {
        target: Label::default(),
        engine: Some(engine),
        finding,
        branch: None,
        entry: path.clone(),
        path,
        means,
        users: Vec::new(),
    };
    let mut rows = Vec::new();
    for engine in context.survey.engines_here() {
        match engine.faults() {
            Ok(found) => rows.extend(found.into_iter().map(|of| {
                let finding = match of.kind {
                    FaultKind::List => Finding::BadList,
                    FaultKind::Link => Finding::LostLink,
                    FaultKind::Incomplete => Finding::Incomplete,
                };
                row(engine.name(), finding, of.path, of.means)
            })),
            Err(error) => context.problems.push(error),
        }
    }
    for (engine, path) in beneath_mounts(context) {
        let means = format!(
            "nothing is mounted here, and there are files: \"replacing mount point \\\"{path}\\\": directory not empty\""
        );
        rows.push(row(engine, Finding::BeneathMount, path, means));
    }
    rows.extend(orphaned.iter().filter_map(|(engine, of)| {
        let finding = match of.kind {
            LeftoverKind::Metadata => Finding::LostRecord,
            LeftoverKind::Mount => Finding::StaleMount,
            // It is being made or removed.
            LeftoverKind::InProgress | LeftoverKind::Collected => return None,
            _ => Finding::Orphan,
        };
        Some(row(engine, finding, of.path.clone(), of.why.clone()))
    }));
    add_users(&context.survey, &mut rows);
    rows
}

/// Says whose the layers are that rows name.
fn add_users(survey: &Survey<'_>, rows: &mut [Row]) {
    for engine in survey.engines_here() {
        let of_engine = |row: &&mut Row| row.engine == Some(engine.name());
        let mut own = rows.iter_mut().filter(of_engine).peekable();
        if own.peek().is_none() {
            continue;
        }
        let users = Users::of(survey, engine);
        for row in own.filter(|row| row.path.lies_in(engine.root())) {
            row.users = users.named_in(&row.path, &row.means);
        }
    }
}

/// The mount points in stores that have files of their own.
fn beneath_mounts(context: &Context<'_>) -> Vec<(&'static str, Bytes)> {
    let host = context.survey.host;
    let mut found = Vec::new();
    for engine in context.survey.engines_here() {
        // What cannot be read is told by whoever needs it.
        for of in engine.layer_uses().unwrap_or_default() {
            let point = of.directory.parent().join(b"merged");
            let inside = point.strip_prefix(engine.root());
            let mut mounts = context
                .survey
                .mounted
                .iter()
                .flat_map(|union| &union.mounts);
            let is_shown = host.is_live() && mounts.any(|mount| mount.path == point);
            if inside.is_some_and(|inside| engine.is_merged(&inside))
                && !is_shown
                && host.list(&point).is_ok_and(|names| !names.is_empty())
            {
                found.push((engine.name(), point));
            }
        }
    }
    found
}

/// So many of those that stand on a layer are shown: JSON has all.
const USERS_SHOWN: usize = 3;

impl crate::command::Row for Row {
    fn words(&self, give: &mut dyn FnMut(&[u8])) {
        give(&self.target.word(&self.path));
    }

    fn label(&self) -> Option<&Label> {
        Some(&self.target)
    }

    fn columns(_look: Look) -> Vec<Column<Row>> {
        vec![
            union_column(),
            column("FINDING", |row: &Row, _, cell| {
                cell.word(row.finding.word())
            }),
            column("BRANCH", |row, _, cell| {
                if let Some(branch) = row.branch {
                    cell.show(branch);
                }
            }),
            optional("USED BY", |row: &Row, _, cell| {
                let users = row.users.iter().take(USERS_SHOWN);
                let users: Vec<String> = users.map(Bytes::to_string).collect();
                cell.word(&users.join(", "));
                if row.users.len() > USERS_SHOWN {
                    cell.show(format_args!(" and {} more", row.users.len() - USERS_SHOWN));
                }
            })
            .below(),
            column("MEANS", |row: &Row, _, cell| cell.text(&row.means)).below(),
            column("PATH", |row: &Row, _, cell| cell.show(&row.path)).below(),
        ]
    }
}
