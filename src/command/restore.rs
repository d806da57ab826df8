//! `restore [TARGET:]PATH`: why the path is hidden, a plan to bring it back, and what was seen
//! afterwards.

use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::Serialize;
use walkdir::WalkDir;

use crate::bytes::{Bytes, escape, shell_quote};
use crate::command::which::hidden_by;
use crate::command::{Context, One, Outcome, Verb, Version};
use crate::dir::{Access, Dir, Kind};
use crate::engine::namespace::Process;
use crate::engine::reach::Reach;
use crate::engine::{MountPoint, MountState, Union, UnionKind};
use crate::error::{Error, Result, errno_of};
use crate::render::Look;
pub use crate::restore::copy::Depth;
use crate::restore::plan::{Ground, Plan, Step, View};
use crate::target::{self, Target};
use crate::union::{Cut, Entry, Follow, Listed, Node, Reading, Resolution, Stack, Why, lookup};
use crate::whiteout::MarkKind;

/// Bring a deleted file back
///
/// Removes the whiteout that hides the path, or copies the version below; never overwrites
/// anything, and never writes to a read-only branch.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The path is one of this union, byte for byte
    #[arg(long = "in", value_name = "TARGET")]
    within: Option<OsString>,
    #[arg(value_name = "[TARGET:]PATH")]
    path: OsString,
    /// Print the plan and change nothing
    #[arg(long)]
    dry_run: bool,
    /// How to bring it back (default: unhide where a whiteout of the very name hides it)
    #[arg(long)]
    strategy: Option<Strategy>,
    /// Copy directories whole
    #[arg(short, long)]
    recursive: bool,
    /// Go on although more than the path will reappear
    #[arg(short, long)]
    yes: bool,
    /// Copy the hidden version out to this directory and change nothing in the union
    #[arg(long, value_name = "DIR", value_hint = clap::ValueHint::DirPath, conflicts_with_all = ["revert", "strategy"])]
    to: Option<PathBuf>,
    /// Put the lower version of a copied-up file back
    #[arg(long, conflicts_with = "strategy")]
    revert: bool,
    /// With --revert: move the changed file to this directory
    #[arg(long, value_name = "DIR", value_hint = clap::ValueHint::DirPath, requires = "revert")]
    save: Option<PathBuf>,
    /// With --revert: throw the changed file away
    #[arg(long, requires = "revert", conflicts_with = "save")]
    discard: bool,
    /// Permit writing under a --root other than /
    #[arg(long)]
    write: bool,
}

impl Verb for Args {
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

struct Query<'a> {
    pub within: Option<&'a [u8]>,
    pub path: &'a [u8],
    pub goal: Goal,
    pub apply: Apply,
    pub depth: Depth,
    pub consent: Consent,
    /// A host copy, that is any root but `/`, may be written to.
    pub may_write_copy: bool,
}

pub enum Goal {
    /// Bring a deleted path back, by this way or by the one that fits.
    Undelete(Option<Strategy>),
    /// Copy the hidden version to a directory outside.
    CopyOut(PathBuf),
    /// Put the lower version of a copied-up file back.
    Revert(Changed),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Strategy {
    /// Remove the mark that hides it
    Unhide,
    /// Copy the version below into the writable branch
    Copy,
}

/// What becomes of a changed file that is replaced.
pub enum Changed {
    Save(PathBuf),
    Discard,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Apply {
    OnlyPlan,
    Now,
}

/// Whether more may reappear than was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consent {
    Given,
    NotGiven,
}

/// What was done, or would be.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct Row {
    pub union: Bytes,
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
    let (mut target, path) = choose(context, query)?;
    if context.survey.host.is_live() && target.union.state == MountState::NotMounted {
        target::mount_if_mounted(&context.survey, &mut target.union);
    }
    let stack = context.open(&target);
    if let Some(error) = stack.lost().next() {
        // Reported by the caller already; here it is the reason not to write.
        context.problems.clear();
        return Err(error);
    }
    let mut row = Row {
        union: target.union.label(),
        path: path.clone(),
        strategy: None,
        hidden_by: None,
        applied: false,
        nothing: None,
        steps: Vec::new(),
        reappears: Vec::new(),
        seen: None,
        undo: Vec::new(),
    };
    let ground = ground(context, &target.union, &path, query)?;
    // Two of us in one branch would each find what the other is making. The other one's end is
    // waited for, and then looked at.
    let _locks = match query.apply {
        Apply::Now => lock_writable(&stack),
        Apply::OnlyPlan => Vec::new(),
    };
    if let Goal::CopyOut(to) | Goal::Revert(Changed::Save(to)) = &query.goal {
        refuse_inside(&stack, to)?;
    }
    let plan = match plan(&stack, &path, query, &ground, &mut row)? {
        Ok(plan) => plan,
        Err(_) if is_forgotten(&stack, &ground, &row.path)? => {
            if stack.overlay_rules().is_some() {
                return Err(forgotten_by_overlay(&target.union, &row.path));
            }
            row.strategy = Some("refresh");
            Plan::Refresh
        }
        Err(nothing) => {
            row.nothing = Some(nothing);
            return Ok(Outcome {
                answer: One(Box::new(row)),
                is_yes: false,
            });
        }
    };
    let is_written = !matches!(plan, Plan::CopyOut { .. });
    if is_written
        && ground.view.is_none()
        && target.union.is_mounted()
        && context.survey.host.is_live()
    {
        return Err(Error::Refused {
            what: format!(
                "{} is mounted, but not where this process could look",
                target.union.label()
            ),
            hint: "run it as root on the host, or unmount the union first".into(),
        });
    }
    if is_written && ground.view.is_none() && context.survey.host.is_live() {
        refuse_unsure(context, &target.union)?;
    }
    if is_written && context.survey.host.is_alias() && query.apply == Apply::Now {
        return Err(Error::Refused {
            what: format!(
                "{} is the running machine, and what is mounted there cannot be told from here",
                context.survey.host.root().display()
            ),
            hint: "run it without --root, in the machine's own namespaces".into(),
        });
    }
    row.steps = plan.steps(&stack, &ground)?;
    row.undo = plan.undo(&stack, &ground)?;
    if query.apply == Apply::Now {
        let is_written = is_written || is_into(&plan, context.survey.host.root());
        if is_written && !context.survey.host.is_live() && !query.may_write_copy {
            return Err(Error::Refused {
                what: format!(
                    "{} is a copy of a host, which is not written to unasked",
                    context.survey.host.root().display()
                ),
                hint: "add --write, or see the plan with --dry-run".into(),
            });
        }
        if matches!(plan, Plan::Unhide { .. })
            && !row.reappears.is_empty()
            && query.consent == Consent::NotGiven
        {
            return Err(Error::MoreReappears {
                path: row.path,
                reappears: row.reappears,
            });
        }
        plan.apply(&stack, &ground)?;
        row.applied = true;
        row.seen = Some(look_again(context, &target, &row.path, &plan, &ground)?);
    }
    Ok(Outcome {
        answer: One(Box::new(row)),
        is_yes: true,
    })
}

/// Before a branch is written to that nothing seems to have mounted: there may be a mounted union
/// whose own branches are not known, as where they were given relative to a directory that nobody
/// remembers. Its root has the number of the directory that it writes to.
fn refuse_unsure(context: &Context<'_>, union: &Union) -> Result<()> {
    let host = context.survey.host;
    let writable = union
        .branches
        .iter()
        .find(|branch| branch.spec.permission.is_writable());
    let Some(upper) = writable.and_then(|branch| host.stat(&branch.spec.path).ok().flatten())
    else {
        return Ok(());
    };
    if union.kind == UnionKind::Aufs || union.kind == UnionKind::Copy {
        return Ok(());
    }
    for mounted in &context.survey.mounted {
        let is_overlay = matches!(mounted.kind, UnionKind::Overlay { .. });
        let mut own = mounted
            .branches
            .iter()
            .filter(|branch| branch.spec.permission.is_writable());
        let reach = Reach::new(&context.survey, mounted);
        if !is_overlay || !own.any(|branch| reach.open(branch).is_err()) {
            continue;
        }
        let mut mounts = mounted.mounts.iter();
        let whole = mounts.find(|mount| mount.root == Bytes::from("/"));
        let root = whole.map(|mount| {
            let dir = Dir::open_root(&mount.reach())?;
            dir.stat_self()
                .map_err(|errno| Error::io(mount.path.clone(), errno))
        });
        let is_another = match root {
            Some(Ok(stat)) => stat.ino != upper.ino,
            // It has been unmounted, or the process that had it has ended.
            Some(Err(error)) => error.is_not_found(),
            None => false,
        };
        if !is_another {
            return Err(Error::Refused {
                what: format!(
                    "{} is mounted, and which directory it writes to cannot be told: it may be this one",
                    mounted.label()
                ),
                hint: "unmount it, or restore through its mount point".into(),
            });
        }
    }
    Ok(())
}

/// The union and the path in it.
fn choose(context: &mut Context<'_>, query: &Query<'_>) -> Result<(Target, Bytes)> {
    let plain = |typed: &[u8]| Bytes::absolute(crate::bytes::components(typed));
    if let Some(name) = query.within {
        let target = context.find(name)?;
        let path = target.path(&plain(query.path));
        return Ok((target, path));
    }
    let (name, path) = target::split(query.path);
    if let Some(path) = path {
        let target = context.find(name)?;
        let path = target.path(&plain(path));
        return Ok((target, path));
    }
    if target::is_spelled(name) || !name.contains(&b'/') {
        return Err(Error::Usage(format!(
            "{}: is no absolute path; write TARGET:/PATH, or --in TARGET PATH",
            escape(name)
        )));
    }
    let path = if name.starts_with(b"/") {
        plain(name)
    } else {
        plain(context.base.0.join(name).as_bytes())
    };
    if let Some(target) = target::seen_at(&context.survey, &path)? {
        let inside = target.inside.clone();
        return Ok((target, inside));
    }
    // Exactly one mounted union must have it to restore.
    let mut fitting = Vec::new();
    let mut mounted = target::all_mounted(&mut context.survey)?;
    for target in &mounted {
        let stack = target.union.open(&context.survey);
        // Whether this one has it cannot be told, and so neither whether another is the only one.
        if let Some(error) = stack.lost().next() {
            return Err(error);
        }
        let root = stack.whole(Reading::Nothing);
        let found = lookup(&root, path.as_bytes(), Follow::NotLast)?;
        let fits = match &query.goal {
            Goal::Revert(_) => {
                found.entry.provider().is_some() && found.entry.provider() == stack.writable()
            }
            Goal::Undelete(_) | Goal::CopyOut(_) => {
                hidden_by(&found, &versions(&stack, &found)?).is_some()
            }
        };
        if fits {
            fitting.push(target.clone());
        }
    }
    match fitting.len() {
        1 => Ok((fitting.remove(0), path)),
        0 if mounted.len() == 1 => Ok((mounted.remove(0), path)),
        0 => Err(Error::Refused {
            what: format!(
                "{path} is not deleted in any of the {} mounted unions",
                mounted.len()
            ),
            hint: "name one: TARGET:PATH".into(),
        }),
        _ => Err(Error::Ambiguous {
            name: path.to_text().into_owned(),
            candidates: fitting
                .iter()
                .map(|target| format!("{}:{}", target.union.label(), path.to_text()))
                .collect(),
        }),
    }
}

/// Where other unions are mounted that have a writable branch of this one: the kernel has cached
/// there, too, what lies in it.
fn sharing(context: &Context<'_>, union: &Union) -> Vec<MountPoint> {
    let written: Vec<&Bytes> = union
        .branches
        .iter()
        .filter(|branch| branch.spec.permission.is_writable())
        .map(|branch| &branch.spec.path)
        .collect();
    let others = context.survey.mounted.iter().filter(|other| {
        other.superblock != union.superblock
            && other
                .branches
                .iter()
                .any(|branch| written.contains(&&branch.spec.path))
    });
    others
        .filter_map(|other| other.mounts.first().cloned())
        .collect()
}

/// Whether the branches show the path and the mount does not: it has cached that it is not there.
/// A run that was killed before it could refresh leaves that.
fn is_forgotten(stack: &Stack, ground: &Ground, path: &Bytes) -> Result<bool> {
    let Some(view) = &ground.view else {
        return Ok(false);
    };
    let root = stack.whole(Reading::Nothing);
    let found = lookup(&root, path.as_bytes(), Follow::NotLast)?;
    Ok(found.entry.kind().is_some() && found.place.is_some() && view.look(path)?.is_none())
}

/// An overlay cannot be told to look again.
fn forgotten_by_overlay(union: &Union, path: &Bytes) -> Error {
    Error::Refused {
        what: format!(
            "{path} is in the branches, but {} has cached that it is not there",
            union.label()
        ),
        hint: "stop the container, or unmount the union, and start it again; \
               `echo 2 > /proc/sys/vm/drop_caches` may do, too"
            .into(),
    }
}

/// Whether something is copied out into the host that is looked at.
fn is_into(plan: &Plan<'_>, root: &Path) -> bool {
    let real = |path: &Path| std::fs::canonicalize(path).ok();
    match (plan, real(root)) {
        (Plan::CopyOut { to, .. }, Some(root)) => real(to).is_some_and(|to| to.starts_with(root)),
        _ => false,
    }
}

/// Locks the union's writable branches against another restore. Where that cannot be had there
/// is nothing to wait for: whoever may not list a branch does not write to it.
fn lock_writable(stack: &Stack) -> Vec<Dir> {
    let writable = stack
        .branches
        .iter()
        .filter(|branch| branch.permission.is_writable());
    let mut dirs: Vec<((u64, u64), Dir)> = writable
        .filter_map(|branch| {
            let dir = branch.dir.as_ref().ok()?.child(b".", Access::List).ok()?;
            Some((dir.stat_self().ok()?.identity(), dir))
        })
        .collect();
    // In one order for everybody, so that no two wait for each other.
    dirs.sort_by_key(|(identity, _)| *identity);
    dirs.dedup_by_key(|(identity, _)| *identity);
    dirs.into_iter()
        .filter_map(|(_, dir)| {
            flock(&*dir.fd().ok()?, FlockOperation::LockExclusive).ok()?;
            Some(dir)
        })
        .collect()
}

/// What is copied out must not land in the union: a branch, or a directory below one.
fn refuse_inside(stack: &Stack, to: &Path) -> Result<()> {
    let identity = |dir: &Dir| dir.stat_self().ok().map(|stat| stat.identity());
    let branches: Vec<_> = stack
        .branches
        .iter()
        .filter_map(|branch| identity(branch.dir.as_ref().ok()?))
        .collect();
    let real = std::fs::canonicalize(to).map_err(|error| Error::io(to, errno_of(&error)))?;
    for ancestor in real.ancestors() {
        let is_branch =
            identity(&Dir::open_root(ancestor)?).is_some_and(|of| branches.contains(&of));
        if is_branch {
            return Err(Error::Refused {
                what: format!(
                    "{} lies in the union's own branch {}",
                    to.display(),
                    ancestor.display()
                ),
                hint: "name a directory outside of the union".into(),
            });
        }
    }
    Ok(())
}

/// The command line that asks for this, for whoever may do it.
fn command_line(query: &Query<'_>) -> String {
    let path = shell_quote(&Bytes::from(query.path));
    match query.within {
        Some(name) => format!(
            "layerctl restore --in {} -- {path}",
            shell_quote(&Bytes::from(name))
        ),
        None => format!("layerctl restore {path}"),
    }
}

/// How the union can be reached while it is mounted. Under another root nothing is mounted,
/// whatever the copied table says.
fn ground(context: &Context<'_>, union: &Union, path: &Bytes, query: &Query<'_>) -> Result<Ground> {
    let host = context.survey.host;
    let view = if host.is_live() && union.state != MountState::NotMounted {
        union
            .mounts
            .iter()
            .filter(|mount| path.strip_prefix(&mount.root).is_some())
            // What is mounted over it later is what a look there would see.
            .filter(|mount| {
                let table = match mount.process {
                    None => Ok(context.survey.table.clone()),
                    Some(id) => Process::read(host, id).map(|process| process.table),
                };
                let table = table.unwrap_or_default();
                // Something may be mounted over a part of it: a volume of the container's.
                let inside = path.strip_prefix(&mount.root).unwrap_or_default();
                let covering = table.covering(&mount.path.join_path(&inside));
                covering.is_some_and(|covering| covering.superblock() == union.superblock)
            })
            // The whole union rather than a part of it, and where it can be written to.
            .min_by_key(|mount| {
                let is_read_only = mount.flags.split(',').any(|flag| flag == "ro");
                (is_read_only, mount.root.components().count())
            })
            .map(|mount| View {
                mount: mount.clone(),
                also: sharing(context, union),
            })
    } else {
        None
    };
    let root = host.root().to_owned();
    Ok(Ground {
        root,
        view,
        workshop: workshop(context, union),
        command: command_line(query),
    })
}

/// The directory beside an overlay's upper one that its mount works in. In it nothing is ever
/// shown, and nothing but `work` and `index` is the kernel's.
fn workshop(context: &Context<'_>, union: &Union) -> Option<Dir> {
    let host = context.survey.host;
    let upper = union.branches.first()?;
    if union.kind == UnionKind::Aufs || !upper.spec.permission.is_writable() {
        return None;
    }
    let work = host
        .open_dir(&upper.spec.path.parent().join(b"work"))
        .ok()?;
    let is_workshop = work
        .stat(b"work")
        .ok()?
        .is_some_and(|stat| stat.kind == Kind::Directory);
    // A rename takes both to be of one mount, not just of one file system.
    let real = |path: &Bytes| host.resolve(path).ok();
    let (upper, beside) = (real(&upper.spec.path)?, real(&upper.spec.path.parent())?);
    let beside = beside.join(b"work");
    let mount = |path: &Bytes| context.survey.table.covering(path).map(|mount| mount.ids);
    let is_beside = host.stat(&upper).ok()??.dev == work.stat_self().ok()?.dev
        && mount(&upper) == mount(&beside);
    (is_workshop && is_beside).then_some(work)
}

/// What the branches hold of a path, topmost first, hidden or not.
fn versions(stack: &Stack, found: &Resolution<'_>) -> Result<Vec<Version>> {
    let versions = found.versions(stack)?.into_iter();
    Ok(versions
        .map(|(branch, stat)| Version {
            branch,
            kind: stat.kind,
            size: stat.size,
            layer: None,
        })
        .collect())
}

/// Makes the plan, or says why there is nothing to restore.
fn plan<'s>(
    stack: &'s Stack,
    path: &Bytes,
    query: &Query<'_>,
    ground: &Ground,
    row: &mut Row,
) -> Result<Result<Plan<'s>, String>> {
    let root = stack.whole(Reading::Nothing);
    let found = lookup(&root, path.as_bytes(), Follow::NotLast)?;
    row.path = Bytes::absolute(found.path.components());
    if let Goal::Revert(changed) = &query.goal {
        row.strategy = Some("revert");
        return revert(stack, found, changed);
    }
    let Some((place, name)) = found.place.clone() else {
        return Ok(Err("the root of the union is there".into()));
    };
    if let Some(kind) = found.entry.kind() {
        return Ok(Err(format!(
            "it is there, a {}; nothing is deleted",
            kind.word()
        )));
    }
    let versions = versions(stack, &found)?;
    let cut = match &found.entry {
        // What an earlier run that was killed between two steps has left, too.
        Entry::Broken {
            why: Why::BesideWhiteout { branch },
            ..
        } => Some(Cut {
            branch: *branch,
            mark: place.path_of(&stack.branches[*branch].grammar.whiteout_of(&name)),
            kind: MarkKind::Whiteout,
            of: place.path_of(&name),
        }),
        Entry::Broken { errno, .. } => {
            return Ok(Err(format!(
                "the union refuses it ({})",
                crate::error::errno_name(*errno)
            )));
        }
        _ => hidden_by(&found, &versions),
    };
    let Some(cut) = cut else {
        if let Some(base) = &stack.base
            && let Some(plan) = from_base(base, &found, &place, name, query)?
        {
            row.strategy = Some(match query.goal {
                Goal::CopyOut(_) => "copy-out",
                _ => "copy",
            });
            return Ok(Ok(plan));
        }
        return Ok(Err("it is not deleted: no branch has it".into()));
    };
    let is_beside = matches!(found.entry, Entry::Broken { .. });
    row.hidden_by = Some(cut.clone());
    let version = versions
        .iter()
        .find(|version| version.branch > cut.branch || (is_beside && version.branch == cut.branch));
    let Some(version) = version else {
        return Ok(Err(format!(
            "it is deleted, and nothing is left below {}",
            cut.mark
        )));
    };
    if let Goal::CopyOut(to) = &query.goal {
        row.strategy = Some("copy-out");
        return copy_out(stack, &found, &cut, version, to, query.depth).map(Ok);
    }
    if found.rest.iter().any(|name| name == b"..") {
        return Ok(Err(format!(
            "the way to it is deleted ({}); name it without ..",
            cut.mark
        )));
    }
    let is_exact = cut.kind == MarkKind::Whiteout
        && found.rest.is_empty()
        && matches!(found.entry, Entry::Deleted { .. } | Entry::Broken { .. });
    let can_write_mark = stack.branches[cut.branch].permission.is_writable();
    let unhidden = unhidden(stack, &cut, &row.path)?;
    let Goal::Undelete(wanted) = query.goal else {
        return Ok(Err("nothing to do".into()));
    };
    // What lies below a mounted overlay is not changed: what the mount would show is undefined.
    let is_mounted_overlay = stack.overlay_rules().is_some() && ground.view.is_some();
    // A directory that was renamed is still the old one below: under both names it would be one
    // directory twice, which the kernel refuses.
    let is_renamed = is_exact
        && stack
            .overlay_rules()
            .is_some_and(|rules| rules.follows_redirects)
        && is_shown_elsewhere(
            stack,
            cut.branch,
            (version.branch, &found.path_led_to(stack, version.branch)?),
        )?;
    let fits =
        is_exact && can_write_mark && unhidden.is_some() && !is_mounted_overlay && !is_renamed;
    let strategy = match wanted {
        // What stands beside its mark needs no copy: an earlier run was killed between two steps.
        _ if is_beside && unhidden.is_some() => Strategy::Unhide,
        Some(strategy) => strategy,
        None if fits => Strategy::Unhide,
        None => Strategy::Copy,
    };
    match strategy {
        Strategy::Unhide => {
            row.strategy = Some("unhide");
            if is_mounted_overlay {
                return Err(Error::Refused {
                    what: format!(
                        "{} lies below a mounted overlay: what that shows when its branches change is undefined, \
                         and it would go on to deny the name",
                        cut.mark
                    ),
                    hint: "copy it back through the mount with --strategy copy, or stop the container \
                           (unmount the union) and run this again"
                        .into(),
                });
            }
            if is_renamed {
                return Err(Error::Refused {
                    what: format!(
                        "{} was renamed: it would be there twice, which an overlay refuses",
                        cut.of
                    ),
                    hint: "use --strategy copy".into(),
                });
            }
            if !can_write_mark {
                return Err(Error::Refused {
                    what: format!(
                        "{} is in branch {}, which is read-only and is never written",
                        cut.mark, cut.branch
                    ),
                    hint: "use --strategy copy".into(),
                });
            }
            let Some(reappears) = unhidden else {
                return Err(Error::Refused {
                    what: format!(
                        "removing {} would not bring it back: another mark below hides it, too",
                        cut.mark
                    ),
                    hint: "use --strategy copy".into(),
                });
            };
            row.reappears = reappears;
            Ok(Ok(Plan::Unhide { cut }))
        }
        Strategy::Copy => {
            row.strategy = Some("copy");
            copy_plan(stack, &found, &place, name, version, &cut, query.depth).map(Ok)
        }
    }
}

fn copy_plan<'s>(
    stack: &'s Stack,
    found: &Resolution<'s>,
    place: &Node<'s>,
    name: Vec<u8>,
    version: &Version,
    cut: &Cut,
    depth: Depth,
) -> Result<Plan<'s>> {
    let out = "copy the version out with --to DIR";
    let writable = stack.writable().ok_or_else(|| Error::Refused {
        what: "the union has no writable branch".into(),
        hint: out.into(),
    })?;
    let above = std::iter::once(cut)
        .chain(place.cuts())
        .find(|cut| cut.branch < writable);
    if let Some(above) = above {
        return Err(Error::Refused {
            what: format!(
                "branch {} hides it with {}, above the writable branch {writable}",
                above.branch, above.mark
            ),
            hint: out.into(),
        });
    }
    if version.kind == Kind::Directory && depth == Depth::OneEntry {
        return Err(is_directory(&found.path));
    }
    let mut chain = vec![name.clone()];
    chain.extend(found.rest.iter().cloned());
    let whiteout = stack.whiteout(writable, &place.path_of(&name))?;
    let (source, from) = source_of(stack, found, cut.branch + 1, version.branch, &place.path())?;
    let first = if chain.len() > 1 {
        Kind::Directory
    } else {
        version.kind
    };
    Ok(Plan::Copy {
        missing: stack.missing(writable, &place.path())?,
        writable,
        whiteout,
        place: place.clone(),
        chain,
        source,
        from,
        first,
        depth,
    })
}

/// What the layer had that this one began as a copy of: no mark tells that it was deleted.
fn from_base<'s>(
    base: &'s Stack,
    found: &Resolution<'s>,
    place: &Node<'s>,
    name: Vec<u8>,
    query: &Query<'_>,
) -> Result<Option<Plan<'s>>> {
    let root = base.whole(Reading::Nothing);
    let version = lookup(&root, found.path.as_bytes(), Follow::NotLast)?.entry;
    let (Some(kind), Some(from)) = (version.kind(), version.provider()) else {
        return Ok(None);
    };
    if kind == Kind::Directory && query.depth == Depth::OneEntry {
        return Err(is_directory(&found.path));
    }
    let directory = |path: &Bytes| match lookup(&root, path.as_bytes(), Follow::NotLast)?.entry {
        Entry::Dir(node) => Ok(Some(node)),
        _ => Ok(None),
    };
    if let Goal::CopyOut(to) = &query.goal {
        let source = directory(&found.path.parent())?;
        return Ok(source.map(|source| Plan::CopyOut {
            source,
            from,
            name: found.path.file_name().to_vec(),
            to: to.clone(),
            depth: query.depth,
        }));
    }
    let (Some(source), Some(writable)) = (directory(&place.path())?, place.stack().writable())
    else {
        return Ok(None);
    };
    let mut chain = vec![name];
    chain.extend(found.rest.iter().cloned());
    Ok(Some(Plan::Copy {
        missing: place.stack().missing(writable, &place.path())?,
        writable,
        whiteout: None,
        place: place.clone(),
        first: if chain.len() > 1 {
            Kind::Directory
        } else {
            kind
        },
        chain,
        source,
        from,
        depth: query.depth,
    }))
}

/// Whether the union shows what a branch has at a path under another name already: something in
/// the writable branch, the only one that can have been renamed since, leads to it.
fn is_shown_elsewhere(stack: &Stack, writable: usize, of: (usize, &Bytes)) -> Result<bool> {
    let mut pending = vec![stack.whole(Reading::Branch(writable))];
    while let Some(node) = pending.pop() {
        let Some(listing) = node.listing(writable)? else {
            continue;
        };
        for (name, kind) in listing.iter() {
            if !matches!(kind, Kind::Directory | Kind::File) {
                continue;
            }
            match node.child(name)? {
                Entry::Dir(below) => {
                    if below.dir(of.0).is_some() && below.place_in(of.0) == *of.1 {
                        return Ok(true);
                    }
                    pending.push(below);
                }
                Entry::Leaf {
                    data: Some(data), ..
                } if (data.branch, &data.path) == of => return Ok(true),
                _ => {}
            }
        }
    }
    Ok(false)
}

/// The view that has the version, at one of its directories, and the branch that provides it:
/// what the union showed below the mark, or if marks further down hide the version there, too,
/// the view that begins with it.
fn source_of<'s>(
    stack: &'s Stack,
    found: &Resolution<'s>,
    below: usize,
    version: usize,
    place: &Bytes,
) -> Result<(Node<'s>, usize)> {
    let path = &Bytes::absolute(found.path.components());
    // What leads to other directories stands above: the place itself, as the union has it.
    if let Some((here, _)) = &found.place
        && stack.overlay_rules().is_some()
        && let Some(rest) = place.strip_prefix(&here.path())
    {
        for from in [below, version] {
            let here = here.narrowed(|branch| branch >= from);
            let mut node = Some(here.clone());
            for name in rest.components() {
                node = match node.map(|node| node.child(name)).transpose()? {
                    Some(Entry::Dir(node)) => Some(node),
                    _ => None,
                };
            }
            let name = path.strip_prefix(place).unwrap_or_default();
            let Some(node) = node else { continue };
            let last = lookup(&node, name.as_bytes(), Follow::NotLast)?.entry;
            if let Some(provider) = last.provider() {
                return Ok((node, provider));
            }
        }
    }
    for from in [below, version] {
        let root = stack.root(|branch| branch >= from, Reading::Nothing);
        let provider = lookup(&root, path.as_bytes(), Follow::NotLast)?
            .entry
            .provider();
        if let (Some(provider), Entry::Dir(node)) = (
            provider,
            lookup(&root, place.as_bytes(), Follow::NotLast)?.entry,
        ) {
            return Ok((node, provider));
        }
    }
    Err(Error::Refused {
        what: format!("{path} is in branch {version}, behind more than one mark"),
        hint: "`layerctl which` shows every version and where it is".into(),
    })
}

fn is_directory(path: &Bytes) -> Error {
    Error::Refused {
        what: format!("{path} is a directory"),
        hint: "copy it whole with -r".into(),
    }
}

fn copy_out<'s>(
    stack: &'s Stack,
    found: &Resolution<'s>,
    cut: &Cut,
    version: &Version,
    to: &Path,
    depth: Depth,
) -> Result<Plan<'s>> {
    let path = &Bytes::absolute(found.path.components());
    if version.kind == Kind::Directory && depth == Depth::OneEntry {
        return Err(is_directory(path));
    }
    let (source, from) = source_of(stack, found, cut.branch + 1, version.branch, &path.parent())?;
    Ok(Plan::CopyOut {
        source,
        from,
        name: path.file_name().to_vec(),
        to: to.to_owned(),
        depth,
    })
}

/// What else would come back if a mark were removed; `None` if the path itself would not.
fn unhidden(stack: &Stack, cut: &Cut, path: &Bytes) -> Result<Option<Vec<Bytes>>> {
    let marked = &cut.of;
    let root = stack.whole(Reading::Nothing);
    let Entry::Dir(parent) = lookup(&root, marked.parent().as_bytes(), Follow::NotLast)?.entry
    else {
        return Ok(None);
    };
    let without = parent.child_without_mark(marked.file_name(), cut.branch, cut.kind)?;
    let with = parent.child(marked.file_name())?;
    let Some(rest) = path.strip_prefix(marked) else {
        return Ok(None);
    };
    let mut reappears = Vec::new();
    let is_back = compare(
        without,
        Some(with),
        &rest.components().map(<[u8]>::to_vec).collect::<Vec<_>>(),
        &mut reappears,
    )?;
    Ok(is_back.then_some(reappears))
}

/// Follows `chain` down the view without the mark, noting what appears beside it that the view
/// with the mark does not have.
fn compare(
    without: Entry<'_>,
    with: Option<Entry<'_>>,
    chain: &[Vec<u8>],
    reappears: &mut Vec<Bytes>,
) -> Result<bool> {
    let Some((next, rest)) = chain.split_first() else {
        return Ok(without.kind().is_some());
    };
    let Entry::Dir(without) = without else {
        return Ok(false);
    };
    let with = match with {
        Some(Entry::Dir(node)) => Some(node),
        _ => None,
    };
    let mut is_back = false;
    for Listed { name, .. } in without.names()?.iter() {
        let now = match &with {
            Some(node) => Some(node.child(name)?),
            None => None,
        };
        let then = without.child(name)?;
        if name == *next {
            is_back = compare(then, now, rest, reappears)?;
        } else if then.kind().is_some() && now.is_none_or(|now| now.kind().is_none()) {
            reappears.push(without.path_of(name));
        }
    }
    Ok(is_back)
}

fn revert<'s>(
    stack: &'s Stack,
    found: Resolution<'s>,
    changed: &Changed,
) -> Result<Result<Plan<'s>, String>> {
    let Some(writable) = stack.writable() else {
        return Ok(Err("the union has no writable branch".into()));
    };
    let (Some((place, name)), Some(kind)) = (found.place, found.entry.kind()) else {
        return Ok(Err(
            "it is not there; restore brings deleted files back without --revert".into(),
        ));
    };
    if kind == Kind::Directory {
        return Err(Error::Refused {
            what: format!("{} is a directory", found.path),
            hint: "revert the files in it one by one; `layerctl changes` lists them".into(),
        });
    }
    if found.entry.provider() != Some(writable) {
        return Ok(Err(
            "it was not changed: the writable branch does not have it".into(),
        ));
    }
    let root = stack.root(|branch| branch != writable, Reading::Nothing);
    let below = match stack.overlay_rules() {
        // The writable branch may lead to other directories.
        Some(_) => place.narrowed(|branch| branch != writable),
        None => match lookup(&root, place.path().as_bytes(), Follow::NotLast)?.entry {
            Entry::Dir(node) => node,
            _ => return Ok(Err("it was made here: there is no lower version".into())),
        },
    };
    let lower = below.child(&name)?;
    if lower
        .provider()
        .is_some_and(|of| !place.branches().any(|branch| branch == of))
    {
        return Ok(Err(
            "its directory is opaque: the lower version would not show".into(),
        ));
    }
    match lower.kind() {
        None => return Ok(Err("it was made here: there is no lower version".into())),
        Some(Kind::Directory) => {
            return Ok(Err("it replaced a directory and was not copied up".into()));
        }
        Some(_) => {}
    }
    Ok(Ok(Plan::Revert {
        writable,
        place,
        name,
        below,
        save: match changed {
            Changed::Save(to) => Some(to.clone()),
            Changed::Discard => None,
        },
    }))
}

/// Looks whether it worked: through the mount where there is one.
fn look_again(
    context: &Context<'_>,
    target: &Target,
    path: &Bytes,
    plan: &Plan<'_>,
    ground: &Ground,
) -> Result<String> {
    if let Plan::CopyOut { to, name, .. } = plan {
        // Nobody else writes there: a walk by paths will do.
        let copy = to.join(OsStr::from_bytes(name));
        let count = WalkDir::new(&copy)
            .into_iter()
            .filter(Result::is_ok)
            .count();
        let copy = Bytes::from(copy.as_path());
        return match count {
            0 => Err(Error::io(copy, rustix::io::Errno::NOENT)),
            1 => Ok(copy.to_string()),
            more => Ok(format!("{copy} with {} entries in it", more - 1)),
        };
    }
    if let Some(view) = &ground.view {
        return match view.look(path)? {
            Some(stat) => Ok(format!(
                "{}, a {} of {} bytes",
                view.path(path)?,
                stat.kind.word(),
                stat.size
            )),
            None => Err(Error::Refused {
                what: format!("{} is still not there", view.path(path)?),
                hint: "nothing else was changed; `layerctl which` tells what hides it now".into(),
            }),
        };
    }
    let stack = target.union.open(&context.survey);
    let root = stack.whole(Reading::Nothing);
    let found = lookup(&root, path.as_bytes(), Follow::NotLast)?;
    match found.entry.provider() {
        Some(branch) => {
            let stat = found.stat()?;
            Ok(format!(
                "{} of {} bytes from branch {branch}",
                stat.kind.word(),
                stat.size
            ))
        }
        None => Err(Error::Refused {
            what: format!("{path} is still not there"),
            hint: "`layerctl which` tells what hides it now".into(),
        }),
    }
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
        let path = format!("{}:{}", escape(self.union.as_bytes()), self.path);
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
