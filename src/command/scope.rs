//! Which unions are meant where no TARGET is named, and what a person is told of them.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use super::{Context, Label, counted, path_in_union};
use crate::bytes::{Bytes, escape};
use crate::error::{Error, Result};
use crate::restore::deleted::{Replaced, deleted};
use crate::target::{self, Scope, Target};
use crate::union::{Entry, Follow, Reading, Stack, lookup};

/// A target, and what rows call it.
pub type Labelled = (Label, Target);

/// Without TARGET: which unions are looked at.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
#[group(multiple = false)]
pub struct Which {
    /// Without TARGET: only containers that run
    #[arg(long)]
    running: bool,
    /// Without TARGET: only what is mounted
    #[arg(long)]
    mounted: bool,
}

impl Which {
    fn scope(self) -> Scope {
        match (self.running, self.mounted) {
            (true, _) => Scope::Running,
            (_, true) => Scope::Mounted,
            (false, false) => Scope::All,
        }
    }
}

impl Context<'_> {
    /// The targets that were named, each once; where none was, those of every container, and what is
    /// mounted beside them. A path behind a name is where the target is `inside`.
    ///
    /// # Errors
    /// Nothing has one of the names, or several things have; no union is here.
    pub fn targets(&mut self, names: &[OsString], which: Which) -> Result<Vec<Labelled>> {
        if names.is_empty() {
            self.everything(which)
        } else {
            self.named(names)
        }
    }

    fn named(&mut self, names: &[OsString]) -> Result<Vec<Labelled>> {
        let mut found: Vec<(Bytes, Target)> = Vec::new();
        for name in names {
            let (name, path) = target::split(name.as_bytes());
            let mut target = self.find(name)?;
            if let Some(path) = path {
                target.inside = target.path(&path_in_union(path));
            }
            let label = self.survey.label(&target.union);
            let is_known = |(of, known): &(Bytes, Target)| {
                *of == label && known.inside.components().eq(target.inside.components())
            };
            if !found.iter().any(is_known) {
                found.push((label, target));
            }
        }
        let is_one = found.windows(2).all(|pair| pair[0].0 == pair[1].0);
        let labelled = found.into_iter().map(|(label, target)| {
            let label = if is_one {
                Label::named(label)
            } else {
                Label::found(label)
            };
            (label, target)
        });
        Ok(labelled.collect())
    }

    /// Those of every container, and what is mounted beside them.
    ///
    /// # Errors
    /// No union is here.
    pub fn everything(&mut self, which: Which) -> Result<Vec<Labelled>> {
        let found = target::everything(&mut self.survey, which.scope());
        let is_empty = found.targets.is_empty() && found.unread.is_empty();
        if is_empty {
            self.note_no_engine();
        } else {
            self.notes.extend(self.survey.no_namespace());
        }
        if is_empty && which.scope() == Scope::All {
            return Err(target::nothing_mounted(&self.survey));
        }
        self.looked = Some(Looked {
            containers: found.containers,
            others: found.targets.len() + found.unread.len() - found.containers,
            unread: found.unread.len(),
            unknown: found.unknown,
        });
        self.problems.extend(found.unread);
        let labelled = found.targets.into_iter().map(|target| {
            let label = Label::found(self.survey.label(&target.union));
            (label, target)
        });
        Ok(labelled.collect())
    }

    /// The targets and the branch of each that changes and marks are about. Of all the unions of a
    /// host, those in which nothing can be written are left out.
    ///
    /// # Errors
    /// The same; nothing can have changed in the one that was named.
    pub fn subjects(
        &mut self,
        names: &[OsString],
        which: Which,
    ) -> Result<Vec<(Label, Target, usize)>> {
        let mut subjects = Vec::new();
        for (label, target) in self.targets(names, which)? {
            match target.subject() {
                Some(branch) => subjects.push((label, target, branch)),
                None if !names.is_empty() => return Err(no_subject(&target)),
                None => {}
            }
        }
        Ok(subjects)
    }

    /// Opens a target's branches, and finds where it is `inside` as a process in the union would.
    pub fn open_part(&mut self, target: &mut Target) -> Stack {
        let stack = self.open(target);
        target.inside = self.part(target, &stack, &target.inside);
        stack
    }

    /// Where a path of a target leads to a process in the union. What lies over that is said; that no
    /// branch has it, too, for then the answer is about nothing.
    pub fn part(&mut self, target: &Target, stack: &Stack, path: &Bytes) -> Bytes {
        if path.components().next().is_none() {
            return path.clone();
        }
        match resolved(stack, path) {
            Ok(Some(path)) => {
                self.covers_noted(&target.union, &path);
                return path;
            }
            Ok(None) => {
                let label = self.survey.label(&target.union);
                let label = escape(label.as_bytes());
                self.problems
                    .push(Error::Usage(format!("{label}:{path}: no branch has it")));
            }
            Err(error) => {
                let label = self.survey.label(&target.union);
                self.problems.push(error.of(&label));
            }
        }
        path.clone()
    }

    /// Everything that a branch deletes in the part that is asked about. What could not be read is said.
    pub fn all_deleted(
        &mut self,
        (label, target): (&Label, &Target),
        (stack, branch): (&Stack, usize),
        replaced: Replaced,
    ) -> Vec<Bytes> {
        let part = (branch, &target.inside);
        let (paths, problems) = deleted(stack, part, replaced, self.threads.count());
        let problems = problems.into_iter().map(|error| label.of(error));
        self.problems.extend(problems);
        let paths = paths.into_iter();
        paths.filter_map(|path| target.part_of(path)).collect()
    }
}

/// A path with its links resolved; none where no branch has it, nor what the union is a copy of.
fn resolved(stack: &Stack, path: &Bytes) -> Result<Option<Bytes>> {
    let base = stack.base.as_deref();
    let views = [Some(stack), base].into_iter().flatten();
    for view in views {
        let root = view.whole(Reading::Nothing);
        let found = lookup(&root, path.as_bytes(), Follow::NotLast)?;
        if !matches!(found.entry, Entry::Missing) {
            return Ok(Some(Bytes::absolute(found.path.components())));
        }
    }
    Ok(None)
}

fn no_subject(target: &Target) -> Error {
    Error::Refused {
        what: format!(
            "{} has no writable branch, so nothing in it can have changed",
            target.union.label()
        ),
        hint: "name a layer or an image to see what that changed".into(),
    }
}

/// How much was looked at, where no TARGET was named.
#[derive(Debug, Clone, Copy)]
pub struct Looked {
    containers: usize,
    others: usize,
    unread: usize,
    unknown: usize,
}

impl std::fmt::Display for Looked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", counted(self.containers as u64, "container"))?;
        if self.others > 0 {
            write!(f, ", {}", counted(self.others as u64, "other union"))?;
        }
        if self.unread > 0 {
            write!(f, ", {} could not be read", self.unread)?;
        }
        if self.unknown > 0 {
            write!(f, ", of {} nobody knows whether they run", self.unknown)?;
        }
        Ok(())
    }
}
