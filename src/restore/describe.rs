//! A plan in words: what will be done, step for step, and the commands that take it back.

use serde::Serialize;

use super::foresee::Hiding;
use super::mark::Mark;
use super::plan::{CopyIn, CopyOut, Plan};
use super::revert::Revert;
use super::view::{Site, View};
use crate::bytes::{Bytes, shell_quote};
use crate::dir::Kind;
use crate::engine::ReadOnly;
use crate::error::Result;
use crate::union::{Cut, Follow, Reading, Stack, lookup};
use crate::whiteout::MarkKind;

/// One thing that is done.
#[derive(Debug, Clone, Serialize, schemars::JsonSchema)]
pub struct Step {
    pub action: Action,
    /// Where, as a path of the machine.
    pub path: Bytes,
    /// The same in words.
    pub words: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Ask the kernel whether it will forget what it has cached.
    CheckRefresh,
    RemoveMark,
    Refresh,
    MakeDirectory,
    Copy,
    MakeOpaque,
    MakeWhiteout,
    Move,
    Remove,
    Replace,
    Look,
}

impl Step {
    fn new(action: Action, path: Bytes, words: String) -> Step {
        Step {
            action,
            path,
            words,
        }
    }

    fn refresh(view: &View) -> Step {
        let mount = view.mount.path.clone();
        let words = format!("refresh {mount}, no option changed");
        Step::new(Action::Refresh, mount, words)
    }

    fn remove_mark(mark: Bytes) -> Step {
        let words = format!("remove the mark {mark}");
        Step::new(Action::RemoveMark, mark, words)
    }
}

/// What the paths of a union are called where it is.
struct Paths<'a> {
    stack: &'a Stack,
    site: &'a Site,
}

impl Plan<'_> {
    /// What will be done, in order.
    ///
    /// # Errors
    /// It lies outside of what is mounted.
    pub fn steps(&self, stack: &Stack, site: &Site) -> Result<Vec<Step>> {
        let paths = Paths { stack, site };
        let mut steps = match self {
            Plan::Unhide(cut) => paths.steps_to_unhide(cut),
            Plan::CopyIn(copy) => paths.steps_to_copy_in(copy)?,
            Plan::CopyOut(copy) => vec![paths.step_to_copy_out(copy)],
            Plan::Refresh(_) => site.view.iter().map(Step::refresh).collect(),
            Plan::Revert(revert) => paths.steps_to_revert(revert)?,
        };
        if self.writes_union() {
            let words = "look at the union again".into();
            steps.push(Step::new(Action::Look, Bytes::from("/"), words));
        }
        Ok(steps)
    }

    /// The commands that take it back, for a shell.
    ///
    /// # Errors
    /// As [`Plan::steps`]; a mark that cannot be looked at.
    pub fn undo(&self, stack: &Stack, site: &Site) -> Result<Vec<String>> {
        let paths = Paths { stack, site };
        match self {
            Plan::Unhide(cut) => paths.undo_unhide(cut),
            Plan::CopyIn(copy) => paths.undo_copy_in(copy),
            Plan::CopyOut(copy) => {
                let made = Bytes::from(copy.to.as_path()).join(&copy.name);
                let kind = copy.source.child(&copy.name)?.kind();
                Ok(vec![remove(&made, kind)])
            }
            Plan::Refresh(_) => Ok(Vec::new()),
            Plan::Revert(revert) => paths.undo_revert(revert),
        }
    }
}

/// The command that removes it. It goes by name: what is no directory is not looked into, whatever
/// has its name by then.
fn remove(path: &Bytes, kind: Option<Kind>) -> String {
    let path = shell_quote(path);
    match kind {
        Some(Kind::Directory) | None => format!("rm -r -- {path}"),
        Some(Kind::File | Kind::Symlink | Kind::Char | Kind::Block | Kind::Fifo | Kind::Socket) => {
            format!("rm -- {path}")
        }
    }
}

/// The command that mounts a union anew where it is, so changed, and else with the words that its mount
/// has: not every `mount` keeps those that it is not given. None for a mount of another namespace: the
/// program `mount` there is somebody else's, and who enters runs it as root.
fn remount(view: &View, change: &str) -> Option<String> {
    if view.mount.process.is_some() {
        return None;
    }
    let mut options = vec!["remount"];
    if !change.is_empty() {
        options.push(change);
        let own = view.mount.flags.split(',');
        options.extend(own.filter(|word| !["ro", "rw", ""].contains(word)));
    }
    let mount = shell_quote(&view.mount.path);
    Some(format!("mount -o {} {mount}", options.join(",")))
}

impl Paths<'_> {
    fn in_branch(&self, branch: usize, path: &Bytes) -> Bytes {
        self.site.machine_path(&self.stack.on_host(branch, path))
    }

    fn of_mark(&self, cut: &Cut) -> Bytes {
        self.in_branch(cut.branch, &cut.mark)
    }

    fn put_back(&self, cut: &Cut) -> Result<Vec<String>> {
        Mark::new(self.stack, cut).undo(&self.of_mark(cut))
    }

    fn steps_to_unhide(&self, cut: &Cut) -> Vec<Step> {
        let at = self.of_mark(cut);
        let removal = if cut.mark == cut.of && cut.kind == MarkKind::Opaque {
            let words = format!("make {at} no longer opaque");
            Step::new(Action::RemoveMark, at, words)
        } else {
            Step::remove_mark(at)
        };
        let Some(view) = &self.site.view else {
            return vec![removal];
        };
        let mount = view.mount.path.clone();
        let words = format!("check that {mount} may be refreshed");
        vec![
            Step::new(Action::CheckRefresh, mount, words),
            removal,
            Step::refresh(view),
        ]
    }

    fn steps_to_copy_in(&self, copy: &CopyIn<'_>) -> Result<Vec<Step>> {
        let what = copy
            .chain
            .iter()
            .fold(copy.place.path(), |path, name| path.join(name));
        let from = copy.chain[1..].iter().fold(
            copy.source.on_host(copy.from, &copy.chain[0]),
            |path, name| path.join(name),
        );
        let from = self.site.machine_path(&from);
        if let Some(view) = &self.site.view {
            let to = view.path(&what)?;
            let words = format!("copy {from} to {to}, through the mount");
            return Ok(vec![Step::new(Action::Copy, to, words)]);
        }
        let mut steps = Vec::new();
        for made in &copy.missing {
            let to = self.in_branch(copy.writable, made);
            let words = format!("make the directory {to}, as the union shows it");
            steps.push(Step::new(Action::MakeDirectory, to, words));
        }
        let to = self.in_branch(copy.writable, &what);
        let words = format!("copy {from} to {to}");
        steps.push(Step::new(Action::Copy, to, words));
        steps.extend(self.steps_to_hide(copy));
        if let Some(whiteout) = &copy.whiteout {
            steps.push(Step::remove_mark(
                self.in_branch(copy.writable, &whiteout.mark),
            ));
        }
        Ok(steps)
    }

    fn steps_to_hide(&self, copy: &CopyIn<'_>) -> Vec<Step> {
        let first = copy.place.path_of(&copy.chain[0]);
        let grammar = self.stack.branches[copy.writable].grammar;
        match &copy.hiding {
            Hiding::Nothing => Vec::new(),
            Hiding::Opaque => {
                let mark = match grammar.opaque_name() {
                    None => first.clone(),
                    Some(name) => first.join(name),
                };
                let words = format!("make {first} opaque, so that nothing else reappears");
                let to = self.in_branch(copy.writable, &mark);
                vec![Step::new(Action::MakeOpaque, to, words)]
            }
            Hiding::Names(names) => {
                let steps = names.iter().map(|(depth, name)| {
                    let dirs = copy.chain[1..=*depth].iter();
                    let dir = dirs.fold(first.clone(), |path, name| path.join(name));
                    let words = format!("keep {} hidden", dir.join(name));
                    let mark = dir.join(&grammar.whiteout_of(name));
                    Step::new(
                        Action::MakeWhiteout,
                        self.in_branch(copy.writable, &mark),
                        words,
                    )
                });
                steps.collect()
            }
        }
    }

    fn step_to_copy_out(&self, copy: &CopyOut<'_>) -> Step {
        let from = copy.source.on_host(copy.from, &copy.name);
        let from = self.site.machine_path(&from);
        let to = Bytes::from(copy.to.as_path()).join(&copy.name);
        let words = format!("copy {from} to {to}");
        Step::new(Action::Copy, to, words)
    }

    fn steps_to_revert(&self, revert: &Revert<'_>) -> Result<Vec<Step>> {
        let path = revert.place.path_of(&revert.name);
        let mut steps = Vec::new();
        if let Some(save) = &revert.save {
            let to = Bytes::from(save.as_path()).join(&revert.name);
            let words = format!("save the changed file as {to}");
            steps.push(Step::new(Action::Move, to, words));
        }
        steps.push(match &self.site.view {
            Some(view) => {
                let at = view.path(&path)?;
                let words = format!("replace {at} by the lower version, through the mount");
                Step::new(Action::Replace, at, words)
            }
            None if revert.is_hidden => {
                let at = self.in_branch(revert.writable, &path);
                let words = format!("replace {at} by a copy of the lower version");
                Step::new(Action::Replace, at, words)
            }
            None => {
                let changed = self.in_branch(revert.writable, &path);
                let words = format!("remove {changed}");
                Step::new(Action::Remove, changed, words)
            }
        });
        Ok(steps)
    }

    fn undo_unhide(&self, cut: &Cut) -> Result<Vec<String>> {
        match (&self.site.view, cut.kind) {
            // While it is mounted, only the union itself may make the whiteout.
            (Some(view), MarkKind::Whiteout) => {
                let without = self
                    .stack
                    .root(|branch| branch > cut.branch, Reading::Nothing);
                let hidden = lookup(&without, cut.of.as_bytes(), Follow::NotLast)?;
                let remove = remove(&view.path(&cut.of)?, hidden.entry.kind());
                let (rw, ro) = match view.mount.read_only() {
                    ReadOnly::No => return Ok(vec![remove]),
                    ReadOnly::Mount => (remount(view, "bind,rw"), remount(view, "bind,ro")),
                    ReadOnly::Union => (remount(view, "rw"), remount(view, "ro")),
                };
                // One command: whatever becomes of the removal, nothing is left writable.
                Ok(rw
                    .zip(ro)
                    .into_iter()
                    .map(|(rw, ro)| format!("{rw} && {{ {remove}; {ro}; }}"))
                    .collect())
            }
            // An opaque mark can only be put back behind the mount, which then has to look again.
            (Some(view), MarkKind::Opaque) => {
                let Some(remount) = remount(view, "") else {
                    return Ok(Vec::new());
                };
                let mut commands = self.put_back(cut)?;
                commands.push(remount);
                Ok(commands)
            }
            (None, MarkKind::Whiteout | MarkKind::Opaque) => self.put_back(cut),
        }
    }

    fn undo_copy_in(&self, copy: &CopyIn<'_>) -> Result<Vec<String>> {
        let first = copy.place.path_of(&copy.chain[0]);
        if let Some(view) = &self.site.view {
            return Ok(vec![remove(&view.path(&first)?, Some(copy.first))]);
        }
        let first = self.in_branch(copy.writable, &first);
        let mut commands = vec![remove(&first, Some(copy.first))];
        if let Some(whiteout) = &copy.whiteout {
            commands.extend(self.put_back(whiteout)?);
        }
        if !copy.missing.is_empty() {
            let dirs = copy.missing.iter().rev();
            let dirs: Vec<String> = dirs
                .map(|dir| shell_quote(&self.in_branch(copy.writable, dir)))
                .collect();
            commands.push(format!("rmdir -- {}", dirs.join(" ")));
        }
        Ok(commands)
    }

    fn undo_revert(&self, revert: &Revert<'_>) -> Result<Vec<String>> {
        let Some(save) = &revert.save else {
            return Ok(Vec::new());
        };
        let path = revert.place.path_of(&revert.name);
        let saved = shell_quote(&Bytes::from(save.as_path()).join(&revert.name));
        let to = match &self.site.view {
            Some(view) => view.path(&path)?,
            None => self.in_branch(revert.writable, &path),
        };
        let to = shell_quote(&to);
        Ok(vec![format!("cp -a --remove-destination -- {saved} {to}")])
    }
}
