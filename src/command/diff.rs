//! `diff A [B]`: in what two views differ; of one, what its topmost branch made of the others.

use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use serde::Serialize;

use crate::bytes::Bytes;
use crate::command::copyups::differing_words;
use crate::command::patch::{self, Texts};
use crate::command::{
    Answer, Batch, Context, Ended, Find, Group, Help, Label, Outcome, Shape, Stream, Verb, Which,
    changes, path_in_union,
};
use crate::difference::{Between, Change, Criteria, Differs, Version, between};
use crate::dir::Kind;
use crate::engine::{ENGINES, Roots, Survey};
use crate::error::{Error, Result};
use crate::host::Host;
use crate::render::column::{Column, column, giving};
use crate::render::{Format, Look};
use crate::target::{self, Base};
use crate::union::{Entry, Follow, Node, Reading, Stack, lookup};

/// Tell what differs between two containers, images, layers or versions
///
/// A and B are TARGET[:PATH]. Without B: what A's own branch made of those below it, as `changes`
/// has it. Exit status: 0 the same, 1 different, 2 trouble.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A and B are paths of this union, byte for byte
    #[arg(hide_short_help = true, long = "in", value_name = "TARGET")]
    within: Option<OsString>,
    /// Add sizes and what differs: type, mode, owner, time, xattr, capability, link, size, content
    #[arg(short, long)]
    long: bool,
    /// Do not read files
    #[arg(long)]
    no_content: bool,
    /// Count times, too, where neither view is below the other
    #[arg(long)]
    times: bool,
    /// Print unified diffs of text files
    #[arg(short, long, conflicts_with = "long")]
    patch: bool,
    /// Compare lines of binary files and of those above 1 MiB
    #[arg(hide_short_help = true, long)]
    all_text: bool,
    /// Tell how many bytes were added and removed
    #[arg(long, conflicts_with_all = ["patch", "long"])]
    stat: bool,
    /// The root of B's host
    #[arg(long, value_name = "DIR", value_hint = clap::ValueHint::DirPath, requires = "b")]
    root_b: Option<PathBuf>,
    /// The one view
    #[arg(value_name = "TARGET[:PATH]")]
    a: OsString,
    /// The other; without it what A changed of what is below
    #[arg(value_name = "TARGET_B[:PATH]")]
    b: Option<OsString>,
}

/// One difference.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct Row {
    /// The union that has it last, as a TARGET.
    pub target: Label,
    pub path: Bytes,
    pub change: Change,
    /// What it is in the view that has it last.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<Kind>,
    /// Bytes of content in B.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Bytes of content in A.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size_before: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub differs: Option<Vec<Differs>>,
    /// The names of the extended attributes that differ.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attributes: Vec<Bytes>,
    /// With --patch: the unified diff.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patch: Option<Bytes>,
    /// With --stat: bytes that were added.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub added: Option<u64>,
    /// With --stat: bytes that were removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub removed: Option<u64>,
}

impl Verb for Args {
    const HELP: Help = Help {
        group: Group::Look,
        examples: &[
            "layerctl diff web",
            "layerctl diff app:1 app:2 --stat",
            "layerctl diff -p web@2:/etc web:/etc",
        ],
        exit: "0 the same; 1 different; 2 could not tell",
    };

    type Answer = Answered;

    fn run(self, context: &mut Context<'_>) -> Result<Outcome<Answered>> {
        if self.b.is_none() && self.within.is_none() {
            let (name, path) = target::split(self.a.as_bytes());
            let is_plain = !(self.patch || self.stat || self.no_content || self.times);
            if is_plain && path.is_none() {
                return self.changes(context, name);
            }
        }
        let (old, new) = self.sides(context)?;
        let criteria = Criteria {
            times: self.times || is_related(&old, &new),
            content: !self.no_content,
        };
        let asking = Asking {
            criteria,
            is_long: self.long,
            patch: self.patch,
            stat: self.stat,
            all_text: self.all_text,
        };
        let shape = if self.long {
            Shape::Columns
        } else {
            Shape::Lines
        };
        let rows = Stream::new(shape, move |how, give| {
            let found = asking.find(&old, &new, how, &mut *give);
            if let Err(error) = found {
                let mut batch = Batch::default();
                batch.problems.push(error);
                let _ = give(batch);
            }
        });
        Outcome::yes(Answered {
            rows,
            is_stat: self.stat,
        })
    }
}

impl Args {
    /// People type docker's word for `changes`.
    fn changes(&self, context: &mut Context<'_>, name: &[u8]) -> Result<Outcome<Answered>> {
        let typed = changes::Args {
            targets: vec![OsStr::from_bytes(name).to_owned()],
            which: Which::default(),
            long: self.long,
            content: self.long,
        };
        let shape = if self.long {
            Shape::Columns
        } else {
            Shape::Lines
        };
        let Outcome { answer, .. } = typed.run(context)?;
        Outcome::yes(Answered {
            rows: answer.map(shape, Row::from),
            is_stat: false,
        })
    }

    /// The two views.
    fn sides(&self, context: &mut Context<'_>) -> Result<(Side, Side)> {
        let argument = |typed: &OsStr| -> (Vec<u8>, Option<Vec<u8>>) {
            let typed = typed.as_bytes();
            match &self.within {
                Some(name) => (name.as_bytes().to_vec(), Some(typed.to_vec())),
                None => {
                    let (name, path) = target::split(typed);
                    (name.to_vec(), path.map(<[u8]>::to_vec))
                }
            }
        };
        let (name, path) = argument(&self.a);
        let a = Side::find(context, &name, path.as_deref())?;
        let Some(b) = &self.b else {
            return a.alone(context, &name, path.as_deref());
        };
        let (name, path) = argument(b);
        let b = match &self.root_b {
            None => Side::find(context, &name, path.as_deref())?,
            Some(root) => Side::find_in(context, root, &name, path.as_deref())?,
        };
        Ok((a, b))
    }
}

/// Which part of a stack is looked at.
#[derive(Clone, Copy)]
enum Part {
    Whole,
    Without(usize),
    /// What the topmost branch began as a copy of.
    Base,
}

/// One of the two views, at a path.
struct Side {
    label: Label,
    stack: Stack,
    part: Part,
    path: Bytes,
}

impl Side {
    fn find(context: &mut Context<'_>, name: &[u8], path: Option<&[u8]>) -> Result<Side> {
        let target = context.find(name)?;
        let path = path.map_or_else(
            || target.inside.clone(),
            |path| target.path(&path_in_union(path)),
        );
        Ok(Side {
            label: Label::named(context.survey.label(&target.union)),
            stack: context.open(&target),
            part: Part::Whole,
            path,
        })
    }

    /// The same on another host.
    fn find_in(
        context: &mut Context<'_>,
        root: &std::path::Path,
        name: &[u8],
        path: Option<&[u8]>,
    ) -> Result<Side> {
        let host = Host::open(root)?;
        let mut survey = Survey::new(&host, ENGINES, Roots::of_caller(&host));
        let base = if host.is_live() {
            context.base.clone()
        } else {
            Base(Bytes::from("/"))
        };
        let target = target::find(&mut survey, name, &base)?;
        let stack = target.union.open(&survey);
        context.problems.extend(target.union.unknown());
        let lost = stack
            .lost()
            .map(|error| error.of(&survey.label(&target.union)));
        context.problems.extend(lost);
        context.problems.extend(survey.take_problems());
        let path = path.map_or_else(
            || target.inside.clone(),
            |path| target.path(&path_in_union(path)),
        );
        Ok(Side {
            label: Label::named(survey.label(&target.union)),
            stack,
            part: Part::Whole,
            path,
        })
    }

    /// A union with and without its own branch.
    fn alone(
        self,
        context: &mut Context<'_>,
        name: &[u8],
        path: Option<&[u8]>,
    ) -> Result<(Side, Side)> {
        let name_alone = [OsStr::from_bytes(name).to_owned()];
        let subjects = context.subjects(&name_alone, Which::default())?;
        let branch = subjects
            .into_iter()
            .next()
            .map_or(0, |(_, _, branch)| branch);
        let mut before = Side::find(context, name, path)?;
        before.part = match before.stack.base {
            Some(_) => Part::Base,
            None => Part::Without(branch),
        };
        if branch == 0 {
            // What is below it has a name, too.
            let whole = self.label.target().as_bytes();
            before.label = Label::named(Bytes([whole, b"@1"].concat()));
        }
        Ok((before, self))
    }

    fn root(&self) -> Node<'_> {
        match (self.part, &self.stack.base) {
            (Part::Base, Some(base)) => base.whole(Reading::Nothing),
            (Part::Without(branch), _) => self.stack.root(|of| of != branch, Reading::Nothing),
            (Part::Whole | Part::Base, _) => self.stack.whole(Reading::Nothing),
        }
    }

    /// What its branches are, topmost first.
    fn identities(&self) -> Vec<Option<(u64, u64)>> {
        let root = self.root();
        let branches = root.branches();
        let identity = |branch| Some(root.dir(branch)?.stat_self().ok()?.identity());
        branches.map(identity).collect()
    }
}

/// Whether one view is below the other: what is in both is the same there, times and all.
fn is_related(a: &Side, b: &Side) -> bool {
    let (a, b) = (a.identities(), b.identities());
    !a.is_empty() && !b.is_empty() && (a.ends_with(&b) || b.ends_with(&a))
}

/// What is to be told.
struct Asking {
    criteria: Criteria,
    is_long: bool,
    patch: bool,
    stat: bool,
    all_text: bool,
}

impl Asking {
    fn find(
        &self,
        old: &Side,
        new: &Side,
        how: &Find<'_, Row>,
        mut give: impl FnMut(Batch<Row>) -> ControlFlow<()>,
    ) -> Result<()> {
        let (old_root, new_root) = (old.root(), new.root());
        let found = |root: &Node<'_>, side: &Side| {
            let follow = Follow::All;
            let found = lookup(root, side.path.as_bytes(), follow)?;
            match found.entry.kind() {
                Some(_) => Ok(()),
                None => Err(Error::Refused {
                    what: format!("{}:{} is not there", side.label.target(), side.path),
                    hint: "`layerctl which` tells why".into(),
                }),
            }
        };
        found(&old_root, old)?;
        found(&new_root, new)?;
        let before = lookup(&old_root, old.path.as_bytes(), Follow::All)?;
        let after = lookup(&new_root, new.path.as_bytes(), Follow::All)?;
        let row = |found: Result<Between<'_>>, batch: &mut Batch<Row>| {
            let kept = found.and_then(|found| {
                batch.is_no = true;
                let row = self.row(&found, old, new)?;
                batch.keep(how.keep, row);
                Ok(())
            });
            batch.problems.extend(kept.err());
        };
        if let (Entry::Dir(before), Entry::Dir(after)) = (&before.entry, &after.entry) {
            let (criteria, threads) = (self.criteria, how.threads);
            let _ = between(before, after, criteria, threads, &row, give);
            return Ok(());
        }
        let mut batch = Batch::default();
        let version = |found| Version::of(found);
        let (before, after) = (version(&before)?, version(&after)?);
        match Between::of(before, after, self.criteria) {
            Ok(Some(difference)) => row(Ok(difference), &mut batch),
            Ok(None) => {}
            Err(error) => batch.problems.push(error),
        }
        let _ = give(batch);
        Ok(())
    }

    fn row(&self, found: &Between<'_>, old: &Side, new: &Side) -> Result<Row> {
        let size = |version: &Option<Version<'_>>| {
            let stat = version.as_ref().map(|of| of.stat);
            stat.filter(|stat| stat.kind != Kind::Directory)
                .map(|stat| stat.size)
        };
        let label = match found.change {
            Change::Added | Change::Changed => &new.label,
            Change::Deleted => &old.label,
        };
        let last = found.after.as_ref().or(found.before.as_ref());
        let mut row = Row {
            target: label.clone(),
            path: found.path(),
            change: found.change,
            kind: last.map(|of| of.stat.kind),
            size: None,
            size_before: None,
            differs: None,
            attributes: Vec::new(),
            patch: None,
            added: None,
            removed: None,
        };
        if self.is_long {
            (row.size_before, row.size) = (size(&found.before), size(&found.after));
            if found.change == Change::Changed {
                row.differs = Some(found.differing.what.clone());
                row.attributes = found.differing.attributes.clone();
            }
        }
        let is_content = found.change != Change::Changed
            || found
                .differing
                .what
                .iter()
                .any(|of| matches!(of, Differs::Content | Differs::Size | Differs::Type));
        if is_content && (self.patch || self.stat) {
            let texts = Texts::read(found, self.all_text)?;
            if self.patch {
                let name = |side: &Side, version: &Option<Version<'_>>| {
                    let path = version.as_ref().map_or_else(|| found.path(), Version::path);
                    Bytes([side.label.target().as_bytes(), b":", path.as_bytes()].concat())
                };
                let names = [name(old, &found.before), name(new, &found.after)];
                row.patch = texts.map(|texts| Bytes(texts.patch([&names[0], &names[1]])));
            } else {
                let sizes =
                    [size(&found.before), size(&found.after)].map(Option::unwrap_or_default);
                let counts = texts.map(|texts| texts.counts(sizes)).unwrap_or_default();
                (row.added, row.removed) = (Some(counts.0), Some(counts.1));
            }
        } else if self.stat {
            (row.added, row.removed) = (Some(0), Some(0));
        }
        Ok(row)
    }
}

impl From<changes::Row> for Row {
    fn from(row: changes::Row) -> Row {
        let (size, size_before, differs, attributes) = match row.long {
            Some(long) => (long.size, long.size_before, long.differs, long.attributes),
            None => (None, None, None, Vec::new()),
        };
        Row {
            kind: row.kind,
            target: row.target,
            path: row.path,
            change: row.change,
            size,
            size_before,
            differs,
            attributes,
            patch: None,
            added: None,
            removed: None,
        }
    }
}

impl crate::command::Row for Row {
    const HEADS_NOTHING: bool = false;

    fn words(&self, give: &mut dyn FnMut(&[u8])) {
        give(self.path.as_bytes());
    }

    fn line(&self, look: Look, out: &mut Vec<u8>) {
        match &self.patch {
            Some(patch) => patch::write(patch.as_bytes(), look, out),
            None => changes::write_line(self.change, &self.path, look, out),
        }
    }

    fn columns(look: Look) -> Vec<Column<Row>> {
        let _ = look;
        vec![
            column("CHANGE", |row: &Row, _, cell| {
                cell.show(row.change.letter());
            }),
            column("WAS", |row, look, cell| {
                let size = row.size_before.map(|size| look.size(size));
                cell.word(&size.unwrap_or_default());
            }),
            column("IS", |row, look, cell| {
                let size = row.size.map(|size| look.size(size));
                cell.word(&size.unwrap_or_default());
            }),
            giving(1, "DIFFERS", |row, look, cell| {
                let differs = row.differs.as_deref().unwrap_or_default();
                cell.word(&differing_words(differs, &row.attributes, look));
            }),
            column("PATH", |row, _, cell| cell.show(&row.path)),
        ]
    }
}

/// The differences; with --stat as a summary.
pub struct Answered {
    rows: Stream<Row>,
    is_stat: bool,
}

impl Answer for Answered {
    type Row = Row;

    fn show(
        self,
        look: Look,
        context: &Context<'_>,
        out: &mut dyn Write,
        ended: &mut Ended,
    ) -> io::Result<()> {
        if !self.is_stat || look.format != Format::Table {
            return self.rows.show(look, context, out, ended);
        }
        let rows = self.rows.collect(context, ended);
        let widest = rows
            .iter()
            .map(|row| look.size(row.added.unwrap_or(0)).len() + 1);
        let widest = widest.max().unwrap_or(0);
        let (mut added, mut removed) = (0, 0);
        for row in &rows {
            let (more, less) = (row.added.unwrap_or(0), row.removed.unwrap_or(0));
            (added, removed) = (added + more, removed + less);
            let (more, less) = (
                format!("+{}", look.size(more)),
                format!("-{}", look.size(less)),
            );
            let letter = row.change.letter();
            writeln!(
                out,
                "{letter}  {more:>widest$}  {less:>widest$}  {}",
                row.path
            )?;
        }
        let files = match rows.len() {
            1 => "1 path differs".to_owned(),
            count => format!("{count} paths differ"),
        };
        writeln!(
            out,
            "{files}, {} added, {} removed",
            look.size(added),
            look.size(removed)
        )
    }
}
