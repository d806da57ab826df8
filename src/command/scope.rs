//! Which unions are meant where no TARGET is named, and what a person is told of them.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use super::{Context, Label, counted};
use crate::error::{Error, Result};
use crate::target::{self, Scope, Target};

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
    /// The target that was named; where none was, those of every container, and what is mounted
    /// beside them.
    ///
    /// # Errors
    /// Nothing has the name, or several things have; no union is here.
    pub fn targets(&mut self, name: Option<&OsStr>, which: Which) -> Result<Vec<Labelled>> {
        if let Some(name) = name {
            let target = self.find(name.as_bytes())?;
            let label = Label::named(self.survey.label(&target.union));
            return Ok(vec![(label, target)]);
        }
        let found = target::everything(&mut self.survey, which.scope());
        let is_empty = found.targets.is_empty() && found.unread.is_empty();
        if is_empty {
            self.note_no_engine();
        } else {
            self.notes.extend(self.survey.no_namespace());
        }
        if is_empty && which.scope() == Scope::All {
            return Err(Error::NothingMounted);
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
        name: Option<&OsStr>,
        which: Which,
    ) -> Result<Vec<(Label, Target, usize)>> {
        let mut subjects = Vec::new();
        for (label, target) in self.targets(name, which)? {
            match target.subject() {
                Some(branch) => subjects.push((label, target, branch)),
                None if name.is_some() => return Err(no_subject(&target)),
                None => {}
            }
        }
        Ok(subjects)
    }
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
