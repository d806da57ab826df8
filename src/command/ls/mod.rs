//! `ls [-R] TARGET[:PATH]`: the merged view with each name's provider.

mod listing;
mod tree;

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use serde::Serialize;

use crate::bytes::Bytes;
use crate::command::{
    Answer, Context, Ended, Group, Help, Label, Outcome, Shape, Stream, Verb, path_in_union,
    union_column,
};
use crate::dir::Kind;
use crate::engine::cover::{Cover, CoverKind};
use crate::engine::{Survey, Union};
use crate::error::Result;
use crate::render::Look;
use crate::render::column::{Column, column, optional, optional_giving};
use crate::render::time::Stamp;
use crate::render::{Format, Indicator};
use crate::target::{self, Target};
use listing::Listing;

/// List the merged view with each name's provider
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Every argument is a path of this union, byte for byte
    #[arg(long = "in", value_name = "TARGET")]
    within: Option<OsString>,
    /// List directories below, too
    #[arg(short = 'R', long)]
    recursive: bool,
    /// Draw the directories below as a tree
    #[arg(long, conflicts_with = "long")]
    tree: bool,
    /// Of the directories below only so many levels
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    depth: Option<u32>,
    /// Show mode, owner, size, time and link target
    #[arg(short, long)]
    long: bool,
    /// What is done anyway: people type `ls -la`
    #[arg(short, long = "all", short_alias = 'A', hide = true)]
    _all: bool,
    /// The union, and a path in it (default: /)
    #[arg(required_unless_present = "within", value_name = "TARGET[:PATH]")]
    arguments: Vec<OsString>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Depth {
    OneLevel,
    /// So many levels; all of them without a number.
    Recursive(Option<u32>),
}

impl Depth {
    /// Whether the directory at `path` is listed, too, below the one at `start`.
    fn reaches(self, start: &Bytes, path: &Bytes) -> bool {
        let level = || path.components().count() - start.components().count();
        match self {
            Depth::OneLevel => false,
            Depth::Recursive(None) => true,
            Depth::Recursive(Some(most)) => level() < most as usize,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Detail {
    Short,
    /// With mode, owner, size, time and link target.
    Long,
}

/// Names that `readdir` lists and `lstat` denies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ghosts {
    Hidden,
    Shown,
}

/// One name of the merged view.
#[derive(Debug, Serialize, schemars::JsonSchema)]
#[serde(untagged)]
pub enum Row {
    Shown(Shown),
    Refused(Refused),
}

impl Row {
    fn path(&self) -> &Bytes {
        match self {
            Row::Shown(shown) => &shown.path,
            Row::Refused(refused) => &refused.path,
        }
    }

    /// What lies over it and is worth a word: every container has the engine's own.
    fn cover(&self) -> Option<&Cover> {
        let cover = match self {
            Row::Shown(shown) => shown.covered_by.as_deref(),
            Row::Refused(refused) => refused.covered_by.as_deref(),
        };
        cover.filter(|of| of.kind != CoverKind::Engine)
    }

    fn into_path(self) -> Bytes {
        match self {
            Row::Shown(shown) => shown.path,
            Row::Refused(refused) => refused.path,
        }
    }
}

#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct Shown {
    /// The union, as a TARGET.
    pub target: Label,
    pub path: Bytes,
    #[serde(rename = "type")]
    pub kind: Kind,
    /// Index of the branch that provides it, 0 is topmost.
    pub branch: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layer: Option<String>,
    /// What lies over the layers there, so that they do not show it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub covered_by: Option<Box<Cover>>,
    #[serde(flatten)]
    pub long: Option<Box<Long>>,
}

impl Shown {
    /// What its colour is for.
    fn indicator(&self) -> Indicator {
        match self.kind {
            Kind::Directory => Indicator::Directory,
            Kind::Symlink => Indicator::SymbolicLink,
            Kind::Fifo => Indicator::FIFO,
            Kind::Socket => Indicator::Socket,
            Kind::Block => Indicator::BlockDevice,
            Kind::Char => Indicator::CharacterDevice,
            Kind::File => {
                // What mode it has was only looked at for `--long`.
                let mode = self.long.as_ref().map(|long| long.mode.as_bytes());
                let digits = mode.and_then(|mode| mode.last_chunk::<3>());
                let is_executable =
                    digits.is_some_and(|digits| digits.iter().any(|digit| digit & 1 == 1));
                if is_executable {
                    Indicator::ExecutableFile
                } else {
                    Indicator::RegularFile
                }
            }
        }
    }
}

/// What `--long` adds.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct Long {
    /// Octal.
    pub mode: String,
    pub uid: u32,
    pub gid: u32,
    /// Bytes.
    pub size: u64,
    /// RFC 3339.
    pub mtime: Stamp,
    /// What a symbolic link says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub link: Option<Bytes>,
}

#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct Refused {
    /// The union, as a TARGET.
    pub target: Label,
    pub path: Bytes,
    /// The errno's name.
    pub error: &'static str,
    /// What lies over the layers there, so that they do not show it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub covered_by: Option<Box<Cover>>,
    /// Listed by the kernel's `readdir` all the same.
    #[serde(skip)]
    pub is_ghost: bool,
}

impl Verb for Args {
    const HELP: Help = Help {
        group: Group::Look,
        examples: &[
            "layerctl ls web:/etc",
            "layerctl ls -lR nginx:latest",
            "layerctl ls -q web:/usr/bin",
        ],
        exit: "0 listed; 1 one is not there; 2 could not tell",
    };

    type Answer = Answered;

    fn run(self, context: &mut Context<'_>) -> Result<Outcome<Answered>> {
        let asked = asked(context, &self)?;
        let is_one = asked
            .windows(2)
            .all(|pair| Arc::ptr_eq(&pair[0].0, &pair[1].0));
        let label = |survey: &Survey<'_>, union: &Union| {
            let target = survey.label(union);
            if is_one {
                Label::named(target)
            } else {
                Label::found(target)
            }
        };
        let listings: Vec<Listing> = asked
            .into_iter()
            .map(|(target, path)| Listing {
                stack: context.open(&target),
                covers: context.covers_noted(&target.union, &path),
                label: label(&context.survey, &target.union),
                target,
                path,
                depth: if self.recursive || self.tree || self.depth.is_some() {
                    Depth::Recursive(self.depth)
                } else {
                    Depth::OneLevel
                },
                detail: if self.long {
                    Detail::Long
                } else {
                    Detail::Short
                },
                ghosts: if context.is_verbose {
                    Ghosts::Shown
                } else {
                    Ghosts::Hidden
                },
            })
            .collect();
        Outcome::yes(Answered {
            listings,
            is_tree: self.tree,
        })
    }
}

/// What is listed.
pub struct Answered {
    listings: Vec<Listing>,
    is_tree: bool,
}

fn stream(listings: Vec<Listing>) -> Stream<Row> {
    Stream::new(Shape::Columns, move |how, give| {
        let _ = listings
            .iter()
            .try_for_each(|listing| listing.find(how, &mut *give));
    })
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
        if !self.is_tree || look.format != Format::Table {
            return stream(self.listings).show(look, context, out, ended);
        }
        self.listings.into_iter().try_for_each(|listing| {
            let target = listing.label.target().clone();
            let start = listing.directory();
            let rows = stream(vec![listing]).collect(context, ended);
            tree::write(&target, start.as_ref(), rows, look, out)
        })
    }
}

/// The paths that are to be listed, each with its union.
fn asked(context: &mut Context<'_>, typed: &Args) -> Result<Vec<(Arc<Target>, Bytes)>> {
    let arguments = typed.arguments.iter().map(|argument| argument.as_bytes());
    if let Some(name) = &typed.within {
        let target = Arc::new(context.find(name.as_bytes())?);
        let root: &[u8] = b"/";
        let whole = arguments.len() == 0;
        let paths = arguments.chain(whole.then_some(root));
        let asked = paths.map(|path| (Arc::clone(&target), target.path(&path_in_union(path))));
        return Ok(asked.collect());
    }
    arguments
        .map(|argument| {
            let (name, path) = target::split(argument);
            let target = context.find(name)?;
            let path = path.map_or_else(
                || target.inside.clone(),
                |path| target.path(&path_in_union(path)),
            );
            Ok((Arc::new(target), path))
        })
        .collect()
}

impl crate::command::Row for Row {
    const HEADS_NOTHING: bool = false;

    fn label(&self) -> Option<&Label> {
        Some(match self {
            Row::Shown(shown) => &shown.target,
            Row::Refused(refused) => &refused.target,
        })
    }

    fn words(&self, give: &mut dyn FnMut(&[u8])) {
        if let Row::Shown(shown) = self {
            give(&shown.target.word(&shown.path));
        }
    }

    fn columns(_look: Look) -> Vec<Column<Row>> {
        fn long(row: &Row) -> Option<&Long> {
            match row {
                Row::Shown(shown) => shown.long.as_deref(),
                Row::Refused(_) => None,
            }
        }
        vec![
            union_column(),
            column("TYPE", |row: &Row, _, cell| {
                cell.word(match row {
                    Row::Shown(shown) => shown.kind.word(),
                    Row::Refused(refused) if refused.is_ghost => "ghost",
                    Row::Refused(_) => "-",
                });
            }),
            column("BRANCH", |row, _, cell| match row {
                Row::Shown(shown) => cell.show(shown.branch),
                Row::Refused(_) => cell.word("-"),
            }),
            optional_giving(1, "LAYER", |row, look, cell| {
                if let Row::Shown(Shown {
                    layer: Some(id), ..
                }) = row
                {
                    cell.text(&look.id(id));
                }
            }),
            optional("COVERED BY", |row: &Row, _, cell| {
                if let Some(cover) = row.cover() {
                    cell.text(&cover.title());
                }
            }),
            optional("MODE", |row, _, cell| {
                cell.word(long(row).map(|long| &*long.mode).unwrap_or_default());
            }),
            optional_giving(2, "OWNER", |row, _, cell| {
                if let Some(long) = long(row) {
                    cell.show(format_args!("{}:{}", long.uid, long.gid));
                }
            }),
            optional("SIZE", |row, look, cell| {
                let size = long(row).map(|long| look.size(long.size));
                cell.word(&size.unwrap_or_default());
            }),
            optional_giving(1, "MODIFIED", |row, _, cell| {
                if let Some(long) = long(row) {
                    cell.show(long.mtime.whole_second());
                }
            }),
            column("PATH", |row, look, cell| match (row, long(row)) {
                (Row::Refused(refused), _) => {
                    cell.show(format_args!("{} ({})", refused.path, refused.error));
                }
                (
                    Row::Shown(shown),
                    Some(Long {
                        link: Some(link), ..
                    }),
                ) => {
                    let path = look.path(&shown.path, shown.indicator());
                    cell.show(format_args!("{path} -> {link}"));
                }
                (Row::Shown(shown), _) if look.colors => {
                    cell.word(&look.path(&shown.path, shown.indicator()));
                }
                (Row::Shown(shown), _) => cell.show(&shown.path),
            }),
        ]
    }
}
