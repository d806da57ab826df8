//! `find [TARGET...] [-- PATTERN]`: where a name is, in any container and image.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;

use serde::Serialize;

use crate::bytes::{Bytes, escape};
use crate::command::sieve::{self, Owner, Pattern, Permissions, Sieve, Size, Syntax};
use crate::command::{
    Answer, Batch, Context, Ended, Group, Help, Label, Outcome, Shape, Stream, Verb, Which,
    layer_words, or_none, path_in_union,
};
use crate::dir::{Kind, Stat};
use crate::error::{Error, Result};
use crate::forest::{self, Sight, State, Wanted};
use crate::render::{Format, Look};
use crate::target::{self, Target};
use crate::union::Stack;

/// Tell where a name is, in every container and image
///
/// A PATTERN without a slash is matched against names, with one against paths; it is a glob unless
/// --regex or --fixed says otherwise, and `**` crosses slashes. Without `--` before it the last
/// argument is the PATTERN, unless it is the name of a TARGET. What many show is one row with a
/// count; -v lists them all.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Every argument is a path of this union, byte for byte; PATTERN stands behind --
    #[arg(hide_short_help = true, long = "in", value_name = "TARGET")]
    within: Option<OsString>,
    /// PATTERN is a regular expression
    #[arg(long, conflicts_with = "fixed")]
    regex: bool,
    /// PATTERN is a part of the name, as it is
    #[arg(hide_short_help = true, long)]
    fixed: bool,
    /// Upper and lower case are the same
    #[arg(short, long)]
    ignore_case: bool,
    /// f file, d directory, l link, b c device, p fifo, s socket, x program
    #[arg(short = 't', long = "type", value_name = "TYPE")]
    types: Vec<String>,
    /// At least (+10M), at most (-4k) or exactly so large
    #[arg(long, value_parser = sieve::size, allow_hyphen_values = true)]
    size: Option<Size>,
    /// Changed since then: 2h, 3d, or a date
    #[arg(hide_short_help = true, long, value_name = "WHEN", value_parser = sieve::newer)]
    newer: Option<i64>,
    /// Of this owner, in numbers
    #[arg(hide_short_help = true, long, value_name = "UID[:GID]", value_parser = sieve::owner)]
    owner: Option<Owner>,
    /// Any of (/6000), all of (-644) or just these (755)
    #[arg(long, value_name = "MODE", value_parser = sieve::permissions, allow_hyphen_values = true)]
    perm: Option<Permissions>,
    /// With this content
    #[arg(long, value_name = "HEX", value_parser = sieve::sha256)]
    sha256: Option<[u8; 32]>,
    /// visible (the default), shadowed, deleted or all
    #[arg(hide_possible_values = true, hide_default_value = true, long, value_enum, default_value_t = States::Visible)]
    state: States,
    /// Only what a container's own branch holds
    #[arg(hide_short_help = true, long)]
    changed: bool,
    /// Look no deeper: 1 is the root's own names
    #[arg(hide_short_help = true, short = 'd', long, value_name = "DEPTH")]
    max_depth: Option<usize>,
    /// Without it every container and image; a lone word is the PATTERN
    #[arg(value_name = "TARGET")]
    targets: Vec<OsString>,
    /// A glob: of names, with a slash of paths
    #[arg(last = true, value_name = "PATTERN")]
    pattern: Option<OsString>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum States {
    Visible,
    Shadowed,
    Deleted,
    All,
}

impl States {
    fn has(self, state: State) -> bool {
        match self {
            States::All => true,
            States::Visible => state == State::Visible,
            States::Shadowed => state == State::Shadowed,
            States::Deleted => state == State::Deleted,
        }
    }
}

/// One version.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct Row {
    /// The union, as a TARGET.
    pub target: Label,
    pub path: Bytes,
    pub state: State,
    #[serde(rename = "type")]
    pub kind: Kind,
    /// Bytes of content.
    pub size: u64,
    /// The engine's id of the layer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layer: Option<String>,
    /// Index of the branch that has it, 0 is topmost.
    pub branch: usize,
    /// The branch's directory.
    pub directory: Bytes,
    /// How many others have the same, where a row is of them all.
    #[serde(skip)]
    pub others: usize,
}

impl Verb for Args {
    const HELP: Help = Help {
        group: Group::Find,
        examples: &[
            "layerctl find 'log4j-core*.jar'",
            "layerctl find --perm /6000 web -- '*'",
            "layerctl find --state deleted -- /etc/",
        ],
        exit: "0 found; 1 nothing found; 2 something could not be read",
    };

    type Answer = Answered;

    fn run(mut self, context: &mut Context<'_>) -> Result<Outcome<Answered>> {
        let pattern = self.take_pattern(context);
        let syntax = match (self.regex, self.fixed) {
            (true, _) => Syntax::Regex,
            (_, true) => Syntax::Fixed,
            (false, false) => Syntax::Glob,
        };
        let pattern = pattern.map(|typed| {
            let text = typed.to_str().ok_or_else(|| {
                Error::Usage(format!(
                    "{}: is no text, and no pattern",
                    escape(typed.as_bytes())
                ))
            })?;
            Pattern::new(text, syntax, self.ignore_case)
        });
        let sieve = Sieve {
            pattern: pattern.transpose()?,
            types: types(&self.types)?,
            size: self.size,
            newer: self.newer,
            owner: self.owner,
            permissions: self.perm,
            sha256: self.sha256,
        };
        let mut targets = Vec::new();
        let mut stacks = Vec::new();
        for mut subject in self.subjects(context)? {
            let stack = context.open(&subject.target);
            for path in &mut subject.paths {
                let part = context.part(&subject.target, &stack, path);
                *path = Bytes::absolute(part.components());
            }
            stacks.push(stack);
            targets.push(subject);
        }
        let search = Search {
            sieve,
            states: self.state,
            is_changed: self.changed,
            depth_max: self.max_depth.unwrap_or(usize::MAX),
            targets,
            stacks,
        };
        Outcome::yes(Answered(search))
    }
}

/// The letters of `-t`.
fn types(typed: &[String]) -> Result<Vec<char>> {
    let letters: Vec<char> = typed
        .iter()
        .flat_map(|of| of.chars())
        .filter(|&of| of != ',')
        .collect();
    match letters.iter().find(|letter| !"fdlbcpsx".contains(**letter)) {
        Some(wrong) => Err(Error::Usage(format!(
            "-t {wrong}: types are f, d, l, b, c, p, s and x"
        ))),
        None => Ok(letters),
    }
}

impl Args {
    /// The pattern: what stands after `--`, or the last argument that is no TARGET's name.
    fn take_pattern(&mut self, context: &mut Context<'_>) -> Option<OsString> {
        if self.pattern.is_some() || self.within.is_some() {
            return self.pattern.take();
        }
        let last = self.targets.last()?;
        let name = target::split(last.as_bytes()).0;
        let is_digits = name.len() < 12 && name.iter().all(u8::is_ascii_hexdigit);
        let is_target = target::is_spelled(name)
            || match context.find(name) {
                // Few digits are more likely a name than the beginning of an id.
                Ok(found) => !is_digits || found.union.label().as_bytes() == name,
                Err(Error::Ambiguous { .. }) => true,
                Err(_) => false,
            };
        if is_target {
            return None;
        }
        self.targets.pop()
    }

    /// The unions that are asked.
    fn subjects(&self, context: &mut Context<'_>) -> Result<Vec<Subject>> {
        if let Some(name) = &self.within {
            let target = context.find(name.as_bytes())?;
            let inside = |typed: &OsString| target.path(&path_in_union(typed.as_bytes()));
            let mut paths: Vec<Bytes> = self.targets.iter().map(inside).collect();
            if paths.is_empty() {
                paths.push(target.inside.clone());
            }
            let label = Label::named(context.survey.label(&target.union));
            return Ok(vec![Subject::new(label, target, paths)]);
        }
        if self.targets.is_empty() {
            let found = context.everything(Which::default());
            let images = target::all_images(&context.survey);
            let mut all = or_none(found, !images.0.is_empty())?;
            context.problems.extend(images.1);
            for image in images.0 {
                let label = Label::found(context.survey.label(&image.union));
                all.push((label, image));
            }
            let whole = |(label, target)| Subject::new(label, target, vec![Bytes::from("/")]);
            return Ok(all.into_iter().map(whole).collect());
        }
        let is_one = self.targets.len() == 1;
        let mut all = Vec::new();
        for name in &self.targets {
            let (name, path) = target::split(name.as_bytes());
            let target = context.find(name)?;
            let path = path.map_or_else(
                || target.inside.clone(),
                |path| target.path(&path_in_union(path)),
            );
            let label = context.survey.label(&target.union);
            let label = if is_one {
                Label::named(label)
            } else {
                Label::found(label)
            };
            all.push(Subject::new(label, target, vec![path]));
        }
        Ok(all)
    }
}

/// A union that is asked.
struct Subject {
    label: Label,
    target: Target,
    /// What is looked into.
    paths: Vec<Bytes>,
}

impl Subject {
    fn new(label: Label, target: Target, paths: Vec<Bytes>) -> Subject {
        Subject {
            label,
            target,
            paths,
        }
    }
}

/// What is looked for, and where.
struct Search {
    sieve: Sieve,
    states: States,
    is_changed: bool,
    depth_max: usize,
    targets: Vec<Subject>,
    stacks: Vec<Stack>,
}

impl Search {
    /// Which of the stacks that have a version are asked for it.
    fn asked<'a>(&'a self, sight: &'a Sight<'_, '_>, path: &'a Bytes) -> Vec<usize> {
        let directory = &sight.place.stack().branches[sight.branch].path;
        let is_asked = |&number: &usize| {
            let subject = &self.targets[number];
            let is_own = || {
                let own = subject.target.subject();
                own.is_some_and(|own| self.stacks[number].branches[own].path == *directory)
            };
            subject.paths.iter().any(|of| path.lies_in(of)) && (!self.is_changed || is_own())
        };
        sight.stacks.iter().copied().filter(is_asked).collect()
    }

    fn row(&self, sight: &Sight<'_, '_>, number: usize, path: &Bytes, stat: &Stat) -> Row {
        let subject = &self.targets[number];
        let directory = sight.place.stack().branches[sight.branch].path.clone();
        // Another stack has the same branch at another place.
        let mut branches = self.stacks[number].branches.iter();
        let branch = branches
            .position(|of| of.path == directory)
            .unwrap_or(sight.branch);
        Row {
            target: subject.label.clone(),
            path: path.clone(),
            state: sight.state,
            kind: sight.kind,
            size: stat.size,
            layer: subject.target.union.layer_id(branch).map(str::to_owned),
            branch,
            directory,
            others: 0,
        }
    }

    /// The rows, as they are found. `is_folded`: what many have is one row.
    fn stream(self, is_folded: bool) -> Stream<Row> {
        Stream::new(Shape::Lines, move |how, give| {
            let row = |found: Result<Sight<'_, '_>>, batch: &mut Batch<Row>| {
                let told = found.and_then(|sight| {
                    let path = sight.path();
                    if !self.states.has(sight.state) {
                        return Ok(());
                    }
                    let asked = self.asked(&sight, &path);
                    if asked.is_empty() {
                        return Ok(());
                    }
                    let Some(stat) = self.sieve.pass(&sight, &path)? else {
                        return Ok(());
                    };
                    if is_folded {
                        let row = Row {
                            others: asked.len() - 1,
                            ..self.row(&sight, asked[0], &path, &stat)
                        };
                        batch.keep(how.keep, row);
                        return Ok(());
                    }
                    for number in asked {
                        batch.keep(how.keep, self.row(&sight, number, &path, &stat));
                    }
                    Ok(())
                });
                batch.problems.extend(told.err());
            };
            let may_be = |name: &[u8]| {
                let pattern = self.sieve.pattern.as_ref();
                pattern.is_none_or(|pattern| pattern.may_be(name))
            };
            let wanted = Wanted {
                hidden: self.states != States::Visible,
                depth_max: self.depth_max,
                name: &may_be,
            };
            let mut is_found = false;
            let _ = forest::walk(&self.stacks, &wanted, how.threads, &row, |batch| {
                is_found |= !batch.rows.is_empty() || !batch.text.is_empty();
                give(batch)
            });
            let _ = give(Batch {
                is_no: !is_found,
                ..Batch::default()
            });
        })
    }
}

/// What was found.
pub struct Answered(Search);

impl Answer for Answered {
    type Row = Row;

    fn show(
        self,
        look: Look,
        context: &Context<'_>,
        out: &mut dyn Write,
        ended: &mut Ended,
    ) -> io::Result<()> {
        let is_folded = look.format == Format::Table && !look.verbose;
        let rows = self.0.stream(is_folded);
        rows.show(look, context, out, ended)
    }
}

impl crate::command::Row for Row {
    const HEADS_NOTHING: bool = false;

    fn words(&self, give: &mut dyn FnMut(&[u8])) {
        give(&self.target.word(&self.path));
    }

    fn label(&self) -> Option<&Label> {
        Some(&self.target)
    }

    /// State, type, size and layer first, since they have a width; the path comes whole.
    fn line(&self, look: Look, out: &mut Vec<u8>) {
        let size = if self.kind == Kind::File {
            look.size(self.size)
        } else {
            String::new()
        };
        let layer = layer_words(self.layer.as_deref(), self.branch, look);
        let word = Bytes(self.target.word(&self.path).into_owned());
        let path = look.bold(&word.to_string());
        let others = match self.others {
            0 => String::new(),
            1 => "  (and 1 other)".to_owned(),
            more => format!("  (and {more} others)"),
        };
        let state = self.state.word();
        let kind = self.kind.word();
        // Memory takes whatever is written to it.
        let _ = writeln!(
            out,
            "{state:<8}  {kind:<9}  {size:>7}  {layer:<12}  {path}{others}"
        );
    }
}
