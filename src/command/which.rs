//! `which [TARGET:]PATH...`: the layer that provides a path, what it shadows, and why a path
//! is not there.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;

use rustix::io::Errno;
use serde::Serialize;

use crate::bytes::{Bytes, escape};
use crate::command::unseen::Unseen;
use crate::command::{
    Context, Group, Help, Label, Labelled, Outcome, Verb, Version, Which, path_in_union, role_words,
};
use crate::dir::Kind;
use crate::engine::{Role, Union};
use crate::error::{Error, Result, errno_name};
use crate::render::column::{Accent, Column, column};
use crate::render::{Look, table};
use crate::restore::diagnose::hidden_by;
use crate::target;
use crate::union::{Cut, Entry, Follow, Link, Reading, Resolution, Says, Stack, Why, lookup};
use crate::whiteout::{AUFS_NAME_MAX, MarkKind, OVERLAY_NAME_MAX};

/// Tell which layer provides a path, what it shadows, or why it is not there
///
/// A PATH without TARGET that lies under a union's mount point means that union; any other
/// absolute path is asked of every container, and of what is mounted beside them.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Every argument is a path of this union, byte for byte
    #[arg(long = "in", value_name = "TARGET")]
    within: Option<OsString>,
    /// Do not follow a symbolic link at the end of the path
    #[arg(long)]
    no_follow: bool,
    /// Without TARGET asked of every container, but under a mount point of its union
    #[arg(required = true, value_name = "[TARGET:]PATH")]
    paths: Vec<OsString>,
    #[command(flatten)]
    which: Which,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Present,
    /// A mark hides it.
    Deleted,
    /// No branch has it.
    Missing,
    /// The union refuses it.
    Broken,
}

/// The answer for one path in one union.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct Row {
    /// The path as it was asked for.
    pub query: Bytes,
    /// The union, as a TARGET.
    pub target: Label,
    /// The path with symbolic links resolved.
    pub path: Bytes,
    pub state: State,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<Kind>,
    /// Index of the branch that provides it, 0 is topmost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub branch: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layer: Option<String>,
    /// Where its content is, if that branch has only the metadata.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<Content>,
    /// What made the layer, where the image's history knows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instruction: Option<String>,
    /// A branch was not read that might say something else.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub uncertain: bool,
    /// The errno that the union answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hidden_by: Option<Cut>,
    /// The symbolic links that led there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<Link>,
    /// Each branch's verdict.
    pub trail: Vec<Verdict>,
    /// Every version on disk, topmost first, visible or not.
    pub versions: Vec<Version>,
    /// The branches, for tables.
    #[serde(skip)]
    pub branches: Vec<BranchNote>,
    /// The command that shows a version which the union does not.
    #[serde(skip)]
    pub shown_by: Option<String>,
}

/// Where the content of a metacopy is.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct Content {
    pub branch: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layer: Option<String>,
    /// The file's path in that branch.
    pub path: Bytes,
}

/// How a table names a branch.
#[derive(Debug)]
pub struct BranchNote {
    pub role: Role,
    pub directory: Bytes,
}

#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct Verdict {
    pub branch: usize,
    pub says: Says,
}

impl Verb for Args {
    const HELP: Help = Help {
        group: Group::Look,
        examples: &[
            "layerctl which /etc/apt/sources.list",
            "layerctl which web:/etc/passwd web:/etc/group",
            "layerctl which --in web -- relative/path",
        ],
        exit: "0 all are there; 1 one is not; 2 could not tell",
    };

    type Answer = Vec<Row>;

    fn run(self, context: &mut Context<'_>) -> Result<Outcome<Vec<Row>>> {
        let mut asking = Asking {
            follow: if self.no_follow {
                Follow::NotLast
            } else {
                Follow::All
            },
            rows: Vec::new(),
        };
        let paths = self.paths.iter().map(|path| path.as_bytes());
        if let Some(name) = &self.within {
            let target = context.find(name.as_bytes())?;
            let label = Label::named(context.survey.label(&target.union));
            let stack = context.open(&target);
            for typed in paths {
                let path = target.path(&path_in_union(typed));
                asking.ask(context, &target.union, &stack, typed, &path, label.clone());
            }
        } else {
            for typed in paths {
                let (targets, path) = targets(context, typed, self.which)?;
                for (label, target) in targets {
                    let stack = context.open(&target);
                    asking.ask(context, &target.union, &stack, typed, &path, label);
                }
            }
        }
        let rows = asking.rows;
        Ok(Outcome {
            is_yes: !rows.is_empty() && is_answered(&rows),
            answer: rows,
        })
    }
}

/// The unions that an argument is asked of, and the path in them.
fn targets(
    context: &mut Context<'_>,
    typed: &[u8],
    which: Which,
) -> Result<(Vec<Labelled>, Bytes)> {
    let (named, path) = target::split(typed);
    let Some(path) = path else {
        return everywhere(context, typed, which);
    };
    let target = context.find(named)?;
    let path = target.path(&path_in_union(path));
    let label = Label::named(context.survey.label(&target.union));
    Ok((vec![(label, target)], path))
}

/// A path that was asked of several unions is there if one of them has it.
fn is_answered(rows: &[Row]) -> bool {
    rows.iter().all(|row| {
        rows.iter()
            .any(|other| other.query == row.query && other.state == State::Present)
    })
}

/// A path without TARGET: the union it lies under, or else every mounted one.
fn everywhere(
    context: &mut Context<'_>,
    typed: &[u8],
    which: Which,
) -> Result<(Vec<Labelled>, Bytes)> {
    if branch_or_name(typed) {
        return Err(Error::Usage(format!(
            "{}: is no absolute path; write TARGET:/PATH, or --in TARGET PATH",
            escape(typed)
        )));
    }
    if !typed.starts_with(b"/")
        && let Some(at) = typed.iter().position(|&byte| byte == b':')
        && !typed[..at].contains(&b'/')
    {
        let (target, path) = (&typed[..at], &typed[at + 1..]);
        return Err(Error::Usage(format!(
            "{}: write {}:/{}",
            escape(typed),
            escape(target),
            escape(path)
        )));
    }
    let path = if typed.starts_with(b"/") {
        path_in_union(typed)
    } else {
        path_in_union(context.base.0.join(typed).as_bytes())
    };
    match target::seen_at(&context.survey, &path)? {
        Some(target) => {
            let inside = target.inside.clone();
            let label = Label::found(context.survey.label(&target.union));
            Ok((vec![(label, target)], inside))
        }
        None => Ok((context.targets(None, which)?, path)),
    }
}

/// Whether an argument looks like a TARGET rather than a path.
fn branch_or_name(typed: &[u8]) -> bool {
    target::is_spelled(typed) || !typed.contains(&b'/')
}

/// The answers so far, and how links are taken.
struct Asking {
    follow: Follow,
    rows: Vec<Row>,
}

impl Asking {
    fn ask(
        &mut self,
        context: &mut Context<'_>,
        union: &Union,
        stack: &Stack,
        typed: &[u8],
        path: &Bytes,
        label: Label,
    ) {
        match lookup(&stack.whole(Reading::Nothing), path.as_bytes(), self.follow) {
            Ok(found) => self
                .rows
                .push(row(context, union, stack, typed, found, label)),
            Err(error) => context.problems.push(error),
        }
    }
}

fn row(
    context: &mut Context<'_>,
    union: &Union,
    stack: &Stack,
    typed: &[u8],
    resolution: Resolution<'_>,
    label: Label,
) -> Row {
    let path = Bytes::absolute(resolution.path.components());
    let versions = resolution.versions(stack).unwrap_or_else(|error| {
        context.problems.push(error);
        Vec::new()
    });
    let versions: Vec<Version> = versions
        .iter()
        .map(|(branch, stat)| Version::new(union, *branch, stat))
        .collect();
    let hidden_by = hidden_by(&resolution, versions.iter().map(|version| version.branch));
    let (state, error, why) = state(&resolution, hidden_by.as_ref());
    let branch = resolution.entry.provider();
    let decided_by = branch.or(hidden_by.as_ref().map(|cut| cut.branch));
    let trail = trail(stack, &resolution, &versions, hidden_by.as_ref());
    let unseen = trail
        .iter()
        .filter(|of| matches!(of.says, Says::Shadowed | Says::Hidden));
    let shown_by = unseen
        .filter_map(|of| Unseen::find(stack, &path, of.branch))
        .next()
        .map(|unseen| unseen.command(&path, union, &context.survey.label(union)));
    let instruction =
        branch.and_then(|branch| union.branches.get(branch)?.layer.instruction.clone());
    Row {
        query: Bytes::from(typed),
        target: label,
        state,
        kind: resolution.entry.kind(),
        branch,
        layer: branch
            .and_then(|branch| union.layer_id(branch))
            .map(str::to_owned),
        data: match &resolution.entry {
            Entry::Leaf {
                data: Some(data), ..
            } if !data.is_lost => Some(Content {
                branch: data.branch,
                layer: union.layer_id(data.branch).map(str::to_owned),
                path: data.path.clone(),
            }),
            _ => None,
        },
        instruction,
        uncertain: stack
            .branches
            .iter()
            .take(decided_by.unwrap_or(stack.branches.len()))
            .any(|above| above.dir.is_err())
            // An image may have no layer, which is no branch that was not read.
            || union.unknown().is_some()
            || hidden_by
                .as_ref()
                .is_some_and(|cut| versions.is_empty() && stack.lost_below(cut.branch)),
        error,
        why,
        trail,
        shown_by,
        hidden_by: hidden_by.filter(|_| state == State::Deleted),
        versions,
        branches: union
            .branches
            .iter()
            .map(|branch| BranchNote {
                role: branch.layer.role,
                directory: branch.spec.path.clone(),
            })
            .collect(),
        links: resolution.links,
        path,
    }
}

/// What the union answers: the state, the errno's name, and why.
fn state(
    resolution: &Resolution<'_>,
    hidden_by: Option<&Cut>,
) -> (State, Option<&'static str>, Option<String>) {
    match &resolution.entry {
        Entry::Leaf {
            data: Some(data), ..
        } if data.is_lost => {
            let why = format!(
                "its content, {}, is in no branch: opening it is EIO",
                data.path
            );
            (State::Present, None, Some(why))
        }
        Entry::Dir(_) | Entry::Leaf { .. } => (State::Present, None, None),
        Entry::Broken { errno, why } => {
            let state = match *errno {
                Errno::NOTDIR => State::Missing,
                _ => State::Broken,
            };
            let why = words(*why, resolution);
            (state, Some(errno_name(*errno)), Some(why))
        }
        Entry::Missing | Entry::Deleted { .. } => match hidden_by {
            Some(_) => (State::Deleted, Some("ENOENT"), None),
            None => (State::Missing, Some("ENOENT"), deleted_ancestor(resolution)),
        },
    }
}

/// Every branch's verdict. What the lookup did not ask is told from the versions on disk.
fn trail(
    stack: &Stack,
    resolution: &Resolution<'_>,
    versions: &[Version],
    hidden_by: Option<&Cut>,
) -> Vec<Verdict> {
    let provider = resolution.entry.provider();
    (0..stack.branches.len())
        .map(|branch| {
            let heard = resolution.said(branch);
            let has_version = versions.iter().any(|version| version.branch == branch);
            let says = match heard {
                Some(says)
                    if resolution.rest.is_empty()
                        || says == Says::Whiteout
                        || says == Says::Invalid =>
                {
                    says
                }
                _ if stack.branches[branch].dir.is_err() => Says::Unread,
                _ if !has_version => Says::Nothing,
                _ if hidden_by.is_some_and(|cut| cut.branch < branch) => Says::Hidden,
                _ if provider.is_some_and(|provider| provider < branch)
                    && !is_cut(resolution, branch) =>
                {
                    Says::Shadowed
                }
                _ => Says::Hidden,
            };
            Verdict { branch, says }
        })
        .collect()
}

fn is_cut(resolution: &Resolution<'_>, branch: usize) -> bool {
    let here = resolution.place.as_ref();
    here.is_some_and(|(place, _)| place.cuts().any(|cut| cut.branch < branch))
}

/// Nothing is hidden there, but the way to it is deleted.
fn deleted_ancestor(resolution: &Resolution<'_>) -> Option<String> {
    match (&resolution.entry, &resolution.place) {
        (Entry::Deleted { by }, Some((place, name))) => Some(format!(
            "{} is deleted by {}, and no branch has it below",
            place.path_of(name),
            by.mark
        )),
        _ => None,
    }
}

fn words(why: Why, resolution: &Resolution<'_>) -> String {
    match why {
        Why::Reserved => "names that begin with .wh. belong to the union itself".into(),
        Why::TooLong => {
            let stack = resolution.place.as_ref().map(|(place, _)| place.stack());
            let is_overlay = stack.is_some_and(|stack| stack.overlay_rules().is_some());
            let most = if is_overlay {
                OVERLAY_NAME_MAX
            } else {
                AUFS_NAME_MAX
            };
            format!("a name in the union has at most {most} bytes")
        }
        Why::BesideWhiteout { branch } => {
            format!("branch {branch} has both the name and its whiteout")
        }
        Why::BadWhiteout { branch } => {
            format!("its whiteout in branch {branch} is not a regular file")
        }
        Why::BadOpaque { branch } => {
            format!("its opaque mark in branch {branch} is not a regular file")
        }
        Why::Redirect { branch } => format!(
            "branch {branch} says that it was renamed, and the union may not follow that (redirect_dir)"
        ),
        Why::BadRedirect { branch } => {
            format!("branch {branch} says that it was renamed, from what can be no name")
        }
        Why::Metacopy { branch } => format!(
            "branch {branch} has it without its content, and the union may not look for that (metacopy)"
        ),
        Why::NoData { branch } => {
            format!("branch {branch} has it without its content, and no branch below has that")
        }
        Why::BadMetacopy { branch } => {
            format!("its metacopy attribute in branch {branch} cannot be read")
        }
        Why::Links => "more than 40 symbolic links".into(),
        Why::NotDirectory => {
            let at = match &resolution.place {
                Some((place, name)) => place.path_of(name),
                None => resolution.path.clone(),
            };
            format!("{at} is not a directory")
        }
    }
}

impl crate::command::Row for Row {
    /// The file that provides it.
    fn words(&self, give: &mut dyn FnMut(&[u8])) {
        let provider = self.branch.and_then(|branch| self.branches.get(branch));
        if let Some(BranchNote { directory, .. }) = provider {
            give(directory.join_path(&self.path).as_bytes());
        }
    }

    fn table(rows: &[Row], look: Look, out: &mut dyn Write) -> io::Result<()> {
        // Of many containers most have nothing there: a line is enough for them.
        let (absent, told): (Vec<&Row>, Vec<&Row>) = rows
            .iter()
            .partition(|row| !look.verbose && row.is_absent());
        for (index, row) in told.iter().enumerate() {
            if index > 0 {
                writeln!(out)?;
            }
            row.write_verdict(look, out)?;
            row.write_trail(look, out)?;
            if let Some(command) = row.shown_by.as_ref().filter(|_| look.is_terminal) {
                writeln!(out, "{command}")?;
            }
        }
        let mut paths: Vec<&Bytes> = absent.iter().map(|row| &row.path).collect();
        paths.dedup();
        for (index, path) in paths.into_iter().enumerate() {
            if index > 0 || !told.is_empty() {
                writeln!(out)?;
            }
            let of_it = absent.iter().filter(|row| row.path == *path);
            let unions = of_it.filter_map(|row| row.target.told());
            let unions: Vec<String> = unions.map(Bytes::to_string).collect();
            let path = look.bold(&path.to_string());
            writeln!(out, "{path}  not there in {}", unions.join(", "))?;
        }
        Ok(())
    }
}

impl Row {
    /// Whether one of several unions has nothing at all there.
    fn is_absent(&self) -> bool {
        let is_plain = self.why.is_none() && self.links.is_empty() && !self.uncertain;
        let is_empty = self.state == State::Missing && self.versions.is_empty();
        self.target.told().is_some() && is_plain && is_empty
    }

    fn write_verdict(&self, look: Look, out: &mut dyn Write) -> io::Result<()> {
        if let Some(union) = self.target.told() {
            write!(out, "{}:", escape(union.as_bytes()))?;
        }
        for link in &self.links {
            write!(out, "{} -> {}\n  ", link.path, link.link)?;
        }
        let (verdict, reason) = self.verdict(look);
        writeln!(out, "{}  {verdict}", look.bold(&self.path.to_string()))?;
        if let Some(reason) = reason {
            writeln!(out, "  {reason}")?;
        }
        if self.uncertain {
            writeln!(
                out,
                "  but a branch was not read that may say something else"
            )?;
        }
        if let Some(instruction) = &self.instruction {
            writeln!(out, "  made by {}", look.clip(instruction, 70))?;
        }
        Ok(())
    }

    /// What is there, or that nothing is; and what decides it.
    fn verdict(&self, look: Look) -> (String, Option<String>) {
        let why = || self.why.clone();
        match (self.state, self.branch, &self.hidden_by) {
            (State::Present, Some(branch), _) => {
                let kind = self.kind.map(Kind::word).unwrap_or_default();
                let from = self.branch_words(branch, look);
                (format!("{kind} from {from}"), why())
            }
            (State::Deleted, _, Some(cut)) => {
                let verdict = if self.versions.is_empty() {
                    "deleted, and nothing is left below"
                } else {
                    "deleted"
                };
                let kind = match cut.kind {
                    MarkKind::Whiteout => "whiteout",
                    MarkKind::Opaque => "opaque mark",
                };
                let of = self.branch_words(cut.branch, look);
                let reason = format!("by the {kind} {} of {of}", cut.mark);
                (verdict.to_owned(), Some(reason))
            }
            (State::Missing, _, _) => {
                let why = why().unwrap_or_else(|| "no branch has it".into());
                (format!("not there: {why}"), None)
            }
            _ => {
                let (error, why) = (self.error.unwrap_or("EIO"), why().unwrap_or_default());
                (format!("broken ({error}): {why}"), None)
            }
        }
    }

    /// A branch as a sentence has it.
    fn branch_words(&self, branch: usize, look: Look) -> String {
        match self.branches.get(branch) {
            Some(note) if note.role != Role::Plain => format!("branch {branch}, {}", note.role),
            Some(note) => format!("branch {branch}, {}", look.directory(&note.directory)),
            None => format!("branch {branch}"),
        }
    }

    /// What the branches say; those that say nothing are asked for.
    fn write_trail(&self, look: Look, out: &mut dyn Write) -> io::Result<()> {
        let shown = self.trail.iter();
        let shown = shown.filter(|verdict| look.verbose || verdict.says != Says::Nothing);
        let lines: Vec<Line<'_>> = shown
            .map(|verdict| Line {
                verdict,
                version: {
                    let mut versions = self.versions.iter();
                    versions.find(|version| version.branch == verdict.branch)
                },
                note: self.branches.get(verdict.branch),
            })
            .collect();
        if lines.is_empty() {
            return Ok(());
        }
        table::write(&Line::columns(), &lines, look, out)
    }
}

/// What a branch says, with the version that it has.
struct Line<'r> {
    verdict: &'r Verdict,
    version: Option<&'r Version>,
    note: Option<&'r BranchNote>,
}

impl<'r> Line<'r> {
    fn columns() -> Vec<Column<Line<'r>>> {
        vec![
            column("#", |line: &Line<'_>, _, cell| {
                cell.show(line.verdict.branch)
            }),
            column("SAYS", |line, _, cell| {
                let says = line.verdict.says;
                cell.word(says.words());
                match says {
                    Says::Provides | Says::ProvidesOpaque => cell.accent(Accent::Good),
                    Says::Whiteout | Says::Invalid | Says::Unread => cell.accent(Accent::Bad),
                    _ => {}
                }
            }),
            column("LAYER", |line, _, cell| {
                let role = line.note.map(|note| role_words(&note.role.to_string()));
                cell.text(&role.unwrap_or_default());
            }),
            column("TYPE", |line, _, cell| {
                let kind = line.version.map(|version| version.kind.word());
                cell.word(kind.unwrap_or_default());
            }),
            column("SIZE", |line, look, cell| {
                let size = line.version.map(|version| version.size_words(look));
                cell.word(&size.unwrap_or_default());
            }),
            column("DIRECTORY", |line, look, cell| {
                let directory = line.note.map(|note| look.directory(&note.directory));
                cell.word(&directory.unwrap_or_default());
            }),
        ]
    }
}
