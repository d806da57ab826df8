//! `restore [TARGET:]PATH`: why the path is hidden, a plan to bring it back, and what was seen
//! afterwards.

use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use serde::Serialize;

use crate::bytes::{Bytes, escape};
use crate::command::{Context, Group, Help, One, Outcome, Verb};
use crate::error::{Error, Result};
use crate::render::Look;
use crate::restore::choose::choose;
use crate::restore::describe::Step;
use crate::restore::diagnose::{Cause, diagnose};
use crate::restore::guard::{self, Lock};
use crate::restore::plan::{Nothing, Plan, propose};
use crate::restore::verify;
use crate::restore::view::Site;
use crate::restore::{Apply, Changed, Consent, Depth, Goal, Query, Strategy};
use crate::union::Cut;

/// Bring a deleted file back
///
/// Removes the whiteout that hides the path, or copies the version below; never overwrites
/// anything, and never writes to a read-only branch.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The path is one of this union, byte for byte
    #[arg(long = "in", value_name = "TARGET")]
    within: Option<OsString>,
    /// Without TARGET the one mounted union in which it is deleted
    #[arg(value_name = "[TARGET:]PATH")]
    path: OsString,
    /// Print the plan and change nothing
    #[arg(long)]
    dry_run: bool,
    /// How to bring it back (default: unhide where a whiteout of the very name hides it)
    #[arg(long, hide_short_help = true)]
    strategy: Option<Strategy>,
    /// Copy directories whole
    #[arg(short, long)]
    recursive: bool,
    /// Go on although more than the path will reappear
    #[arg(short, long)]
    yes: bool,
    /// Copy the hidden version out to this directory instead
    #[arg(long, value_name = "DIR", value_hint = clap::ValueHint::DirPath, conflicts_with_all = ["revert", "strategy"])]
    to: Option<PathBuf>,
    /// Put the lower version of a copied-up file back
    #[arg(long, conflicts_with = "strategy")]
    revert: bool,
    /// With --revert: move the changed file to this directory
    #[arg(long, hide_short_help = true, value_name = "DIR", value_hint = clap::ValueHint::DirPath, requires = "revert")]
    save: Option<PathBuf>,
    /// With --revert: throw the changed file away
    #[arg(
        long,
        hide_short_help = true,
        requires = "revert",
        conflicts_with = "save"
    )]
    discard: bool,
    /// Permit writing under a --root other than /
    #[arg(long, hide_short_help = true)]
    write: bool,
}

impl Verb for Args {
    const HELP: Help = Help {
        group: Group::Repair,
        examples: &[
            "layerctl restore --dry-run web:/etc/motd",
            "layerctl restore web:/etc/motd",
            "layerctl restore web:/srv --to /tmp/rescued -r",
        ],
        exit: "0 done, or planned; 1 nothing to restore; 2 refused, or could not tell",
    };

    type Answer = One<Row>;

    fn run(self, context: &mut Context<'_>) -> Result<Outcome<One<Row>>> {
        run(context, &self.query()?)
    }
}

impl Args {
    /// What was meant.
    fn query(&self) -> Result<Query<'_>> {
        let goal = match (&self.to, self.revert, &self.save, self.discard) {
            (Some(to), ..) => Goal::CopyOut(std::path::absolute(to).unwrap_or_else(|_| to.clone())),
            (_, true, Some(save), _) => Goal::Revert(Changed::Save(
                std::path::absolute(save).unwrap_or_else(|_| save.clone()),
            )),
            (_, true, None, true) => Goal::Revert(Changed::Discard),
            (_, true, None, false) => {
                return Err(Error::Usage(
                    "--revert replaces the changed file: say --save DIR to keep it, or --discard"
                        .into(),
                ));
            }
            _ => Goal::Undelete(self.strategy),
        };
        Ok(Query {
            within: self.within.as_deref().map(OsStr::as_bytes),
            path: self.path.as_bytes(),
            goal,
            apply: if self.dry_run {
                Apply::OnlyPlan
            } else {
                Apply::Now
            },
            depth: if self.recursive {
                Depth::Whole
            } else {
                Depth::OneEntry
            },
            consent: if self.yes {
                Consent::Given
            } else {
                Consent::NotGiven
            },
            may_write_copy: self.write,
        })
    }
}

/// What was done, or would be.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct Row {
    /// The union, as a TARGET.
    pub target: Bytes,
    pub path: Bytes,
    /// None where there is nothing to restore.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strategy: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hidden_by: Option<Cut>,
    /// False for a dry run, and where there was nothing to do.
    pub applied: bool,
    /// Why there is nothing to restore.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nothing: Option<String>,
    pub steps: Vec<Step>,
    /// What else comes back.
    pub reappears: Vec<Bytes>,
    /// What the union showed afterwards.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seen: Option<String>,
    /// Shell commands that take it back.
    pub undo: Vec<String>,
}

fn run(context: &mut Context<'_>, query: &Query<'_>) -> Result<Outcome<One<Row>>> {
    // What is mounted is written to in another way, wherever it is mounted.
    context.survey.look_everywhere();
    let (target, path) = choose(&mut context.survey, &context.base, query)?;
    let stack = context.open(&target);
    if let Some(error) = stack.lost().next() {
        // Reported by the caller already; here it is the reason not to write.
        context.problems.clear();
        return Err(error);
    }
    let (survey, union) = (&context.survey, &target.union);
    let mut site = Site::new(survey, union, &path, query);
    let _lock = match query.apply {
        Apply::Now => Some(Lock::take(union, &stack)),
        Apply::OnlyPlan => None,
    };
    site.outside = guard::destination(survey, union, &stack, &query.goal)?;
    let diagnosis = diagnose(&stack, &path)?;
    let proposal = propose(&stack, &diagnosis, query, site.view.is_some())?;
    let mut row = Row {
        target: survey.label(union),
        path: diagnosis.path,
        strategy: None,
        hidden_by: match (diagnosis.cause, &query.goal) {
            (Cause::Hidden(hidden), Goal::Undelete(_) | Goal::CopyOut(_)) => Some(hidden.cut),
            _ => None,
        },
        applied: false,
        nothing: None,
        steps: Vec::new(),
        reappears: proposal.reappears,
        seen: None,
        undo: Vec::new(),
    };
    let plan = match proposal.plan {
        Ok(plan) => plan,
        Err(_) if verify::is_forgotten(&stack, &site, &row.path)? => {
            if stack.overlay_rules().is_some() {
                return Err(verify::forgotten_by_overlay(union, &row.path));
            }
            Plan::Refresh(row.path.clone())
        }
        Err(Nothing(why)) => {
            row.strategy = matches!(query.goal, Goal::Revert(_)).then_some("revert");
            row.nothing = Some(why);
            return Ok(Outcome {
                answer: One(Box::new(row)),
                is_yes: false,
            });
        }
    };
    guard::plan(survey, union, &plan, &site, query)?;
    row.strategy = Some(plan.strategy());
    if let Some(view) = &site.view {
        for also in plan.also_back(&stack, view)? {
            if also != row.path && !row.reappears.contains(&also) {
                row.reappears.push(also);
            }
        }
    }
    row.steps = plan.steps(&stack, &site)?;
    row.undo = plan.undo(&stack, &site)?;
    if query.apply == Apply::Now {
        guard::consent(survey, &row.path, &plan, &row.reappears, &site, query)?;
        let lacks = plan.apply(&stack, &site)?;
        row.applied = true;
        let seen = verify::look_again(survey, union, &row.path, &plan, &site)?;
        row.seen = Some(format!("{seen}{lacks}"));
    }
    Ok(Outcome {
        answer: One(Box::new(row)),
        is_yes: true,
    })
}

impl crate::command::Row for Row {
    fn words(&self, give: &mut dyn FnMut(&[u8])) {
        give(self.path.as_bytes());
    }

    fn table(rows: &[Row], look: Look, out: &mut dyn Write) -> io::Result<()> {
        rows.iter().try_for_each(|row| row.write(look, out))
    }
}

impl Row {
    fn write(&self, look: Look, out: &mut dyn Write) -> io::Result<()> {
        let path = format!("{}:{}", escape(self.target.as_bytes()), self.path);
        let path = look.bold(&path);
        if let Some(nothing) = &self.nothing {
            return writeln!(out, "{path}  nothing to restore: {nothing}");
        }
        let strategy = self.strategy.unwrap_or_default();
        let head = if self.applied { "restored" } else { "plan" };
        writeln!(out, "{path}  {head} ({strategy})")?;
        for step in &self.steps {
            writeln!(out, "  {}", step.words)?;
        }
        for also in self.reappears.iter().take(20) {
            writeln!(out, "  also reappears: {also}")?;
        }
        if self.reappears.len() > 20 {
            writeln!(out, "  also reappear: {} more", self.reappears.len() - 20)?;
        }
        if let Some(seen) = &self.seen {
            writeln!(out, "seen: {seen}")?;
        }
        match self.undo.as_slice() {
            [] => writeln!(out, "this cannot be taken back"),
            commands => writeln!(out, "to take it back: {}", commands.join(" && ")),
        }
    }
}
