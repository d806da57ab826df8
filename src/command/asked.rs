//! What the arguments of verbs mean that hand versions over: each a path of one union.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::rc::Rc;

use super::{Context, Label, Which, path_in_union};
use crate::bytes::{self, Bytes, escape};
use crate::engine::covered::Covers;
use crate::error::{Error, Result};
use crate::restore::deleted::{Missing, missing_below};
use crate::restore::locate::{Sought, locate};
use crate::target::{self, Target};
use crate::union::{Follow, Stack};

/// A path of a union.
#[derive(Clone)]
pub struct Asked {
    pub label: Label,
    pub union: Rc<Opened>,
    pub path: Bytes,
}

/// A union whose branches are open.
pub struct Opened {
    pub target: Target,
    pub stack: Stack,
}

impl Asked {
    /// What it is, where a layer has no more words.
    pub fn words(&self) -> String {
        let target = self.union.target.union.label();
        format!("{}:{}", escape(target.as_bytes()), self.path)
    }

    /// What was deleted in it, if it is a directory that is there.
    ///
    /// # Errors
    /// A branch that cannot be asked.
    pub fn missing(&self, context: &mut Context<'_>) -> Result<Missing> {
        let Opened { target, stack } = &*self.union;
        let Some(branch) = target.subject() else {
            return Ok(Missing::default());
        };
        let threads = context.threads.count();
        missing_below(stack, branch, &self.path, threads, &mut context.problems)
    }

    /// That there is no such version, and why.
    pub fn absent(&self, why: &str) -> Error {
        Error::Usage(format!("{}: {why}", self.words()))
    }
}

/// The paths that were asked for, each union opened once.
///
/// # Errors
/// There is no such union, or a path without one is of several.
pub fn asked<'a>(
    context: &mut Context<'_>,
    within: Option<&OsStr>,
    arguments: impl IntoIterator<Item = &'a OsStr>,
    sought: Sought,
) -> Result<Vec<Asked>> {
    let mut unions: HashMap<Vec<u8>, (Label, Rc<Opened>)> = HashMap::new();
    let mut all = Vec::new();
    for argument in arguments {
        let argument = argument.as_bytes();
        let (name, path) = match within {
            Some(name) => (name.as_bytes(), Some(argument)),
            None => target::split(argument),
        };
        let Some(path) = path else {
            all.push(without_target(context, argument, sought)?);
            continue;
        };
        let (label, union) = match unions.get(name) {
            Some(known) => known.clone(),
            None => {
                let target = context.find(name)?;
                let label = Label::named(context.survey.label(&target.union));
                let opened = (label, opened(context, target));
                unions.insert(name.to_vec(), opened.clone());
                opened
            }
        };
        all.push(Asked {
            path: union.target.path(&path_in_union(path)),
            label,
            union,
        });
    }
    Label::tell_apart(all.iter_mut().map(|asked| &mut asked.label));
    Ok(all)
}

/// Says what lies over what was asked for. A union's records are read once.
pub fn note_covers(context: &mut Context<'_>, all: &[Asked]) {
    let mut known: HashMap<*const Opened, Covers> = HashMap::new();
    for asked in all {
        let union = &asked.union.target.union;
        let covers = known
            .entry(Rc::as_ptr(&asked.union))
            .or_insert_with(|| context.covers(union));
        context.note_cover(union, covers.at(&asked.path));
    }
}

/// Opens a union's branches.
pub fn opened(context: &mut Context<'_>, target: Target) -> Rc<Opened> {
    let stack = context.open(&target);
    Rc::new(Opened { target, stack })
}

/// A path alone: of the union under whose mount point it lies, or of the only one that has it.
fn without_target(context: &mut Context<'_>, typed: &[u8], sought: Sought) -> Result<Asked> {
    let path = target::path_alone(&mut context.survey, typed, &context.base)?;
    let plain = Bytes::absolute(bytes::components(path.as_bytes()));
    if let Some(target) = target::pasted(&context.survey, &plain)? {
        let path = target.inside.clone();
        let label = Label::found(context.survey.label(&target.union));
        let union = opened(context, target);
        return Ok(Asked { label, union, path });
    }
    let path = path_in_union(path.as_bytes());
    let (mut having, mut others) = (Vec::new(), Vec::new());
    for (label, target) in context.everything(Which::default())? {
        let stack = target.union.open(&context.survey);
        // Whether this one has it cannot be told, and so neither whether another is the only one.
        if let Some(error) = stack.lost().next() {
            return Err(label.of(error));
        }
        let is_there = locate(&stack, &path, Follow::NotLast, sought)?.is_ok();
        let of_it = if is_there { &mut having } else { &mut others };
        of_it.push(Asked {
            label,
            path: path.clone(),
            union: Rc::new(Opened { target, stack }),
        });
    }
    if having.is_empty() && sought == Sought::Hidden {
        for asked in std::mem::take(&mut others) {
            let is_there = !asked.missing(context)?.paths.is_empty();
            let of_it = if is_there { &mut having } else { &mut others };
            of_it.push(asked);
        }
    }
    match having.len() {
        1 => Ok(having.remove(0)),
        0 if others.len() == 1 => Ok(others.remove(0)),
        0 => Err(Error::Refused {
            what: format!("{path} is in none of the {} unions", others.len()),
            hint: "name one: TARGET:PATH".into(),
        }),
        _ => Err(Error::Ambiguous {
            name: path.to_text().into_owned(),
            candidates: having
                .iter()
                .map(|of| String::from_utf8_lossy(&of.label.word(&path)).into_owned())
                .collect(),
        }),
    }
}
