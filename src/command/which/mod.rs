//! `which [TARGET:]PATH...`: the layer that provides a path, what it shadows, and why a path
//! is not there.

mod show;

use std::collections::HashMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use rustix::io::Errno;
use serde::Serialize;

use crate::bytes::Bytes;
use crate::command::unseen::Unseen;
use crate::command::{
    Context, Group, Help, Label, Labelled, Outcome, Verb, Version, Which, path_in_union,
};
use crate::dir::Kind;
use crate::engine::cover::Cover;
use crate::engine::covered::Covers;
use crate::engine::{Role, Union};
use crate::error::{Result, errno_name};
use crate::restore::diagnose::hidden_by;
use crate::target;
use crate::union::{Cut, Entry, Follow, Link, Reading, Resolution, Says, Stack, Why, lookup};
use crate::whiteout::AUFS_NAME_MAX;

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
    /// Without TARGET every container is asked, or the union it is mounted in
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
    /// What lies over the layers there, so that they do not show it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub covered_by: Option<Cover>,
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
            covers: HashMap::new(),
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
            let mut all = Vec::new();
            for typed in paths {
                all.push((typed, targets(context, typed, self.which)?));
            }
            let targets = all.iter_mut().flat_map(|(_, (targets, _))| targets);
            Label::tell_apart(targets.map(|(label, _)| label));
            for (typed, (targets, path)) in all {
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
    let path = target::path_alone(&mut context.survey, typed, &context.base)?;
    let path = path_in_union(path.as_bytes());
    match target::pasted(&context.survey, &path)? {
        Some(target) => {
            let inside = target.inside.clone();
            let label = Label::found(context.survey.label(&target.union));
            Ok((vec![(label, target)], inside))
        }
        None => Ok((context.everything(which)?, path)),
    }
}

/// The answers so far, and how links are taken.
struct Asking {
    follow: Follow,
    rows: Vec<Row>,
    /// What lies over the unions that were asked, by their labels.
    covers: HashMap<Bytes, Covers>,
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
            Ok(found) => {
                let known = self.covers.entry(label.target().clone());
                let covers = known.or_insert_with(|| context.covers(union));
                let mut row = row(context, union, stack, typed, found, label);
                row.covered_by = covers.at(&row.path).cloned();
                self.rows.push(row);
            }
            Err(error) => context.problems.push(label.of(error)),
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
        context.problems.push(label.of(error));
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
        covered_by: None,
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
            let most = stack.map_or(AUFS_NAME_MAX, |stack| stack.merger().name_max());
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
