//! `restore [TARGET:]PATH`: why the path is hidden, a plan to bring it back, and what was seen
//! afterwards.

use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use serde::Serialize;

use crate::bytes::{Bytes, escape, shell_quote};
use crate::command::{Answer, Context, Ended, Group, Help, Label, One, Outcome, Verb, Which};
use crate::engine::Survey;
use crate::engine::cover::Cover;
use crate::error::{Error, Result};
use crate::interrupt::was_ended;
use crate::render::Look;
use crate::restore::choose::choose;
use crate::restore::deleted::{Replaced, count, missing_below};
use crate::restore::describe::Step;
use crate::restore::diagnose::{Cause, diagnose};
use crate::restore::guard::{self, Lock};
use crate::restore::out;
use crate::restore::plan::{Nothing, Plan, propose};
use crate::restore::verify;
use crate::restore::view::Site;
use crate::restore::{Apply, Changed, Consent, Depth, Goal, Query, Strategy};
use crate::target::Target;
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
    /// Without TARGET the one union in which it is deleted
    #[arg(value_name = "[TARGET:]PATH", required_unless_present = "all_deleted")]
    paths: Vec<OsString>,
    /// Bring back all that was deleted; arguments are TARGETs
    #[arg(long, conflicts_with = "revert")]
    all_deleted: bool,
    /// Print the plan and change nothing
    #[arg(long)]
    dry_run: bool,
    /// How to bring it back (default: unhide where a whiteout of the very name hides it)
    #[arg(long, hide_short_help = true)]
    strategy: Option<Strategy>,
    /// Directories whole; of one that is there what is missing in it
    #[arg(short, long)]
    recursive: bool,
    /// Go on although more than the path will reappear
    #[arg(short, long)]
    yes: bool,
    /// Copy out to this directory instead; several keep their paths
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
            "layerctl restore --all-deleted --to /tmp/rescued",
        ],
        exit: "0 done, or planned; 1 nothing to restore; 2 refused",
    };

    type Answer = Rows;

    fn run(self, context: &mut Context<'_>) -> Result<Outcome<Rows>> {
        let goal = self.goal()?;
        if self.all_deleted {
            return self.all(context, &goal);
        }
        if let [path] = &self.paths[..] {
            let (mut rows, is_yes) = self.one(context, &goal, path.as_bytes(), None)?;
            let is_list = rows.len() != 1 || rows[0].is_missing_in_directory;
            let answer = if is_list {
                Rows::many(rows)
            } else {
                Rows::One(One(Box::new(rows.remove(0))))
            };
            return Ok(Outcome { answer, is_yes });
        }
        self.check(context, &goal)?;
        let mut rows = Vec::new();
        let mut is_yes = true;
        for path in &self.paths {
            let below = Some(Bytes::from("/"));
            match self.one(context, &goal, path.as_bytes(), below) {
                Ok((more, is_done)) => {
                    is_yes &= is_done;
                    rows.extend(more);
                }
                Err(error) => context.problems.push(error),
            }
            if was_ended() {
                break;
            }
        }
        let answer = Rows::many(rows);
        Ok(Outcome { answer, is_yes })
    }
}

impl Args {
    /// Brings one path back; with `-r` of a directory that is there what is missing in it. Else it is
    /// told how much that is.
    fn one(
        &self,
        context: &mut Context<'_>,
        goal: &Goal,
        path: &[u8],
        below: Option<Bytes>,
    ) -> Result<(Vec<Row>, bool)> {
        let within = self.within.as_deref().map(OsStr::as_bytes);
        let query = self.query(goal, within, path, below);
        let (mut row, is_yes) = run(context, &query)?;
        let is_covered = row.covered_by.is_some();
        if row.nothing.is_none() || is_covered || matches!(goal, Goal::Revert(_)) {
            return Ok((vec![row], is_yes));
        }
        let (target, path) = choose(&mut context.survey, &context.base, &query)?;
        let Some(branch) = target.subject() else {
            return Ok((vec![row], is_yes));
        };
        let stack = target.union.open(&context.survey);
        let threads = context.threads.count();
        let missing = missing_below(&stack, branch, &path, threads, &mut context.problems)?;
        if missing.paths.is_empty() {
            return Ok((vec![row], is_yes));
        }
        if !self.recursive {
            let all = count(&stack, branch, &missing.paths)?;
            row.nothing = Some(is_there_but(&missing.directory, missing.paths.len(), all));
            row.hidden_count = Some(all);
            return Ok((vec![row], is_yes));
        }
        drop(stack);
        let label = context.survey.label(&target.union);
        let mut rows = Vec::new();
        for path in missing.paths {
            let (within, below) = (Some(label.as_bytes()), Some(Bytes::from("/")));
            match run(context, &self.query(goal, within, path.as_bytes(), below)) {
                Ok((mut row, _)) => {
                    row.is_missing_in_directory = true;
                    rows.push(row);
                }
                Err(error) => context.problems.push(error),
            }
            if was_ended() {
                break;
            }
        }
        Ok((rows, true))
    }

    /// Sees of every path which union is meant, before anything is written for one of them: a word
    /// that names nothing may be what the next one was to be a path of.
    fn check(&self, context: &mut Context<'_>, goal: &Goal) -> Result<()> {
        let within = self.within.as_deref().map(OsStr::as_bytes);
        for path in &self.paths {
            let query = self.query(goal, within, path.as_bytes(), None);
            choose(&mut context.survey, &context.base, &query)?;
        }
        Ok(())
    }

    /// What is to become of the paths.
    fn goal(&self) -> Result<Goal> {
        let absolute = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone());
        Ok(match (&self.to, self.revert, &self.save, self.discard) {
            (Some(to), ..) => Goal::CopyOut(absolute(to)),
            (_, true, Some(save), _) => Goal::Revert(Changed::Save(absolute(save))),
            (_, true, None, true) => Goal::Revert(Changed::Discard),
            (_, true, None, false) => {
                return Err(Error::Usage(
                    "--revert replaces the changed file: say --save DIR to keep it, or --discard"
                        .into(),
                ));
            }
            _ => Goal::Undelete(self.strategy),
        })
    }

    /// What was meant of one path.
    fn query<'a>(
        &self,
        goal: &Goal,
        within: Option<&'a [u8]>,
        path: &'a [u8],
        below: Option<Bytes>,
    ) -> Query<'a> {
        Query {
            within,
            path,
            goal: goal.clone(),
            below,
            apply: if self.dry_run {
                Apply::OnlyPlan
            } else {
                Apply::Now
            },
            depth: if self.recursive || self.all_deleted {
                Depth::Whole
            } else {
                Depth::OneEntry
            },
            // What would come back with it was deleted, too.
            consent: if self.yes || self.all_deleted {
                Consent::Given
            } else {
                Consent::NotGiven
            },
            may_write_copy: self.write,
        }
    }

    /// Everything that was deleted. What comes back with something else needs no more.
    fn all(&self, context: &mut Context<'_>, goal: &Goal) -> Result<Outcome<Rows>> {
        let named: Vec<OsString> = self.within.iter().chain(&self.paths).cloned().collect();
        if named.is_empty() && !matches!(goal, Goal::CopyOut(_)) {
            let what =
                "say in which unions everything is to be brought back: --all-deleted TARGET...";
            return Err(Error::Usage(what.into()));
        }
        let subjects = context.subjects(&named, Which::default())?;
        let is_one = named.len() == 1;
        let mut rows = Vec::new();
        for (label, mut target, branch) in subjects {
            let stack = context.open_part(&mut target);
            let within = (&label, &target);
            let paths = context.all_deleted(within, (&stack, branch), Replaced::LeftOut);
            let own = Bytes::from("/").join(&label.as_file_name());
            let below = if is_one { Bytes::from("/") } else { own };
            for path in paths {
                let within = Some(label.target().as_bytes());
                let query = self.query(goal, within, path.as_bytes(), Some(below.clone()));
                match run(context, &query) {
                    Ok((row, _)) => rows.push(row),
                    Err(error) => context.problems.push(label.of(error)),
                }
                if was_ended() {
                    break;
                }
            }
        }
        Outcome::yes(Rows::many(rows))
    }
}

/// That a directory is there, and how much is missing in it: so many names, or with all that was
/// in directories among them.
fn is_there_but(directory: &Bytes, names: usize, all: usize) -> String {
    let what = if directory.as_bytes() == b"/" {
        "the root of the union is there"
    } else {
        "it is there, a directory"
    };
    let hidden = match names {
        1 => "1 name below it is hidden".to_owned(),
        more => format!("{more} names below it are hidden"),
    };
    let with = if all == names {
        String::new()
    } else {
        format!(" ({all} with what is in them)")
    };
    format!(
        "{what}, and {hidden}{with}: -r brings back what is missing in it, -r --to DIR copies that out"
    )
}

/// What became of one path, or of several.
#[derive(Debug)]
pub enum Rows {
    One(One<Row>),
    Many(Vec<Row>),
}

impl Rows {
    fn many(mut rows: Vec<Row>) -> Rows {
        Label::tell_apart(rows.iter_mut().map(|row| &mut row.target));
        Rows::Many(rows)
    }
}

impl Answer for Rows {
    type Row = Row;

    fn show(
        self,
        look: Look,
        context: &Context<'_>,
        out: &mut dyn Write,
        ended: &mut Ended,
    ) -> io::Result<()> {
        match self {
            Rows::One(row) => row.show(look, context, out, ended),
            Rows::Many(rows) => rows.show(look, context, out, ended),
        }
    }
}

/// What was done, or would be.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct Row {
    /// The union, as a TARGET.
    pub target: Label,
    pub path: Bytes,
    /// None where there is nothing to restore.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strategy: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hidden_by: Option<Cut>,
    /// What lies over the layers there, so that they do not show it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub covered_by: Option<Cover>,
    /// False for a dry run, and where there was nothing to do.
    pub applied: bool,
    /// Why there is nothing to restore.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nothing: Option<String>,
    /// Of a directory that is there: how many names below it are hidden.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hidden_count: Option<usize>,
    /// What was asked for is the directory that it is missing in.
    #[serde(skip)]
    pub is_missing_in_directory: bool,
    pub steps: Vec<Step>,
    /// What else comes back.
    pub reappears: Vec<Bytes>,
    /// What the union showed afterwards.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seen: Option<String>,
    /// Shell commands that take it back.
    pub undo: Vec<String>,
}

/// So often one run after another is waited for, and all is looked at anew.
const WAITS_MAX: usize = 100;

/// Does what is asked of one path. With what was done: whether there was anything to do.
fn run(context: &mut Context<'_>, query: &Query<'_>) -> Result<(Row, bool)> {
    run_after(context, query, 0)
}

/// The same when it has waited so often for other runs.
fn run_after(context: &mut Context<'_>, query: &Query<'_>, waits: usize) -> Result<(Row, bool)> {
    // What is mounted is written to in another way, wherever it is mounted.
    context.survey.look_everywhere();
    let (target, path) = choose(&mut context.survey, &context.base, query)?;
    let stack = context.open(&target);
    if let Some(error) = stack.lost().next() {
        // Reported by the caller already; here it is the reason not to write.
        context.problems.clear();
        return Err(error.of(&context.survey.label(&target.union)));
    }
    let covers = context.covers(&target.union);
    let (survey, union) = (&context.survey, &target.union);
    let mut site = Site::new(survey, union, &path, query);
    let lock = match query.apply {
        Apply::Now => Some(Lock::take(union, &stack)),
        Apply::OnlyPlan => None,
    };
    if lock.as_ref().is_some_and(|lock| lock.has_waited) && waits < WAITS_MAX {
        // What was not mounted then may be by now, and the other way round.
        drop(lock);
        context.survey = context.survey.again();
        return run_after(context, query, waits + 1);
    }
    site.outside = guard::destination(survey, union, &stack, query)?;
    let diagnosis = diagnose(&stack, &path)?;
    let proposal = propose(&stack, &diagnosis, query, site.view.is_some())?;
    let mut row = Row {
        target: Label::named(survey.label(union)),
        covered_by: covers.at(&diagnosis.path).cloned(),
        path: diagnosis.path,
        strategy: None,
        hidden_by: match (diagnosis.cause, &query.goal) {
            (Cause::Hidden(hidden), Goal::Undelete(_) | Goal::CopyOut(_)) => Some(hidden.cut),
            _ => None,
        },
        applied: false,
        nothing: None,
        hidden_count: None,
        is_missing_in_directory: false,
        steps: Vec::new(),
        reappears: proposal.reappears,
        seen: None,
        undo: Vec::new(),
    };
    let plan = match proposal.plan {
        Ok(Plan::CopyOut(copy)) => Plan::CopyOut(copy.below(query.below.as_ref(), &row.path)),
        Ok(plan) => plan,
        Err(_) if verify::is_forgotten(&stack, &site, &row.path)? => {
            if !stack.merger().can_look_again() {
                return Err(verify::forgotten_by_overlay(union, &row.path));
            }
            Plan::Refresh(row.path.clone())
        }
        Err(Nothing(why)) => {
            row.strategy = matches!(query.goal, Goal::Revert(_)).then_some("revert");
            row.nothing = Some(why_nothing(survey, &target, &row, why));
            return Ok((row, false));
        }
    };
    guard::plan(survey, union, &stack, &plan, &site, query)?;
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
    let mut left_out = Vec::new();
    if query.apply == Apply::Now {
        guard::consent(survey, &row.path, &plan, &row.reappears, &site, query)?;
        if let (Plan::CopyOut(copy), Some(outside)) = (&plan, &site.outside) {
            site.outside = Some(out::directory(outside, copy.way.components())?);
        }
        let lacks = plan.apply(&stack, &site)?;
        row.applied = true;
        let seen = verify::look_again(survey, union, &row.path, &plan, &site)?;
        row.seen = Some(format!("{seen}{lacks}"));
        left_out = lacks.left_out;
    }
    context.problems.extend(left_out);
    Ok((row, true))
}

/// Why nothing is done: what lies over it, or what was found out; and what tells what could be reverted
/// instead, if that was wanted.
fn why_nothing(survey: &Survey<'_>, target: &Target, row: &Row, why: String) -> String {
    let cover = row.covered_by.as_ref().map(Cover::words);
    let mut words = cover.unwrap_or(why);
    if row.strategy == Some("revert") && !target.is_layer {
        let label = shell_quote(&survey.label(&target.union));
        words.push_str(&format!(
            "; `layerctl copyups {label}` lists what can be reverted"
        ));
    }
    words
}

impl crate::command::Row for Row {
    fn words(&self, give: &mut dyn FnMut(&[u8])) {
        give(&self.target.word(&self.path));
    }

    fn table(rows: &[Row], look: Look, out: &mut dyn Write) -> io::Result<()> {
        rows.iter().try_for_each(|row| row.write(look, out))?;
        // A person does not count them.
        if look.is_terminal && rows.len() > 1 {
            writeln!(out, "{}", summary(rows))?;
        }
        Ok(())
    }
}

/// `12 restored, 1 with nothing to restore`.
fn summary(rows: &[Row]) -> String {
    let count = |is_it: fn(&Row) -> bool| rows.iter().filter(|row| is_it(row)).count();
    let counted = [
        (count(|row| row.applied), "restored"),
        (
            count(|row| !row.applied && row.nothing.is_none()),
            "planned",
        ),
        (
            count(|row| row.nothing.is_some()),
            "with nothing to restore",
        ),
    ];
    let told = counted.iter().filter(|(count, _)| *count > 0);
    let told = told.map(|(count, what)| format!("{count} {what}"));
    told.collect::<Vec<String>>().join(", ")
}

impl Row {
    fn write(&self, look: Look, out: &mut dyn Write) -> io::Result<()> {
        let path = format!("{}:{}", escape(self.target.target().as_bytes()), self.path);
        let path = look.bold(&path);
        if let Some(nothing) = &self.nothing {
            return writeln!(out, "{path}  nothing to restore: {nothing}");
        }
        let strategy = self.strategy.unwrap_or_default();
        let head = if self.applied { "restored" } else { "plan" };
        writeln!(out, "{path}  {head} ({strategy})")?;
        if let Some(cover) = &self.covered_by {
            writeln!(out, "  but {}", cover.words())?;
        }
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
