//! `ls [-R] TARGET[:PATH]`: the merged view with each name's provider.

use std::ffi::OsString;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use serde::Serialize;

use crate::bytes::{Bytes, Entries};
use crate::command::{
    Batch, Context, Find, Group, Help, Keep, Label, Outcome, Shape, Stream, Verb, path_in_union,
    union_column,
};
use crate::dir::Kind;
use crate::engine::{Survey, Union};
use crate::error::{Error, Result, errno_name};
use crate::render::Look;
use crate::render::column::{Column, column, optional};
use crate::render::time::Stamp;
use crate::target::{self, Target};
use crate::union::{Entry, Follow, Listed, Node, Reading, Resolution, Stack, lookup};
use crate::walk::{Found, Rest, walk_all};

/// List the merged view with each name's provider
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Every argument is a path of this union, byte for byte
    #[arg(long = "in", value_name = "TARGET")]
    within: Option<OsString>,
    /// List directories below, too
    #[arg(short = 'R', long)]
    recursive: bool,
    /// Show mode, owner, size, time and link target
    #[arg(short, long)]
    long: bool,
    /// The union, and a path in it (default: /)
    #[arg(required_unless_present = "within", value_name = "TARGET[:PATH]")]
    arguments: Vec<OsString>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Depth {
    OneLevel,
    Recursive,
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
    #[serde(flatten)]
    pub long: Option<Box<Long>>,
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

    type Answer = Stream<Row>;

    fn run(self, context: &mut Context<'_>) -> Result<Outcome<Stream<Row>>> {
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
                label: label(&context.survey, &target.union),
                target,
                path,
                depth: if self.recursive {
                    Depth::Recursive
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
        Outcome::yes(Stream::new(Shape::Columns, move |how, give| {
            let _ = listings
                .iter()
                .try_for_each(|listing| listing.find(how, &mut *give));
        }))
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

/// What is to be listed.
struct Listing {
    label: Label,
    target: Arc<Target>,
    stack: Stack,
    path: Bytes,
    depth: Depth,
    detail: Detail,
    ghosts: Ghosts,
}

impl Listing {
    fn find<'s>(
        &'s self,
        how: &Find<'_, Row>,
        mut give: impl FnMut(Batch<Row>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let mut batch = Batch::default();
        let is_done = match start(&self.stack.whole(Reading::Nothing), &self.path) {
            Ok(Start::Directory(path)) => {
                let visit = |place: Place<'s>, found: &mut Found<'_, Place<'s>, Batch<Row>>| {
                    if let Err(error) = self.visit(&path, place, how.keep, found) {
                        found.rows().problems.push(error);
                    }
                };
                return walk_all(how.threads, Place::Root, &visit, give);
            }
            Ok(Start::Row(found)) => self.row_of(&found, how.keep, &mut batch),
            Err(error) => Err(error),
        };
        batch.problems.extend(is_done.err());
        give(batch)
    }

    /// What was asked for by its own name.
    fn row_of(
        &self,
        found: &Resolution<'_>,
        keep: Keep<'_, Row>,
        batch: &mut Batch<Row>,
    ) -> Result<()> {
        match (found.entry.kind(), &found.place) {
            (Some(_), Some((place, name))) => {
                let shown = self.child(place, name, &found.entry, keep, batch);
                shown.map(|_| ())
            }
            (Some(_), None) => Err(Error::io(found.path.clone(), rustix::io::Errno::NOENT)),
            (None, _) => {
                batch.is_no = true;
                let path = Bytes::absolute(found.path.components());
                batch.keep(keep, self.refused(path, &found.entry, false));
                Ok(())
            }
        }
    }

    fn visit<'s>(
        &'s self,
        start: &Bytes,
        place: Place<'s>,
        keep: Keep<'_, Row>,
        found: &mut Found<'_, Place<'s>, Batch<Row>>,
    ) -> Result<()> {
        match place {
            Place::Root => {
                let reading = match self.depth {
                    Depth::OneLevel => Reading::Nothing,
                    Depth::Recursive => Reading::Everything,
                };
                let node = directory(&self.stack.whole(reading), start)?.read();
                let path = node.path();
                self.children(node, &path, keep, found)
            }
            Place::Rest(rest) => {
                let path = rest.directory.path();
                let paths = path.entries();
                let visit = |node: &_, name: Vec<u8>, (kind, could_be_directory), found: &mut _| {
                    let listed = Listed {
                        name: &name,
                        kind,
                        could_be_directory,
                    };
                    self.entry(node, &paths, listed, keep, found);
                };
                found.each_of_rest(rest, visit, Place::Rest);
                Ok(())
            }
            Place::Child(node, name) => {
                let entry = node.child(&name)?;
                // Of one that cannot be shown in full the children are shown all the same.
                let shown = self.child(&node, &name, &entry, keep, found.rows());
                let path = shown.unwrap_or_else(|error| {
                    found.rows().problems.push(error);
                    None
                });
                if let (Entry::Dir(child), Depth::Recursive) = (entry, self.depth) {
                    let path = path.unwrap_or_else(|| node.path_of(&name));
                    self.children(child, &path, keep, found)?;
                    path.give_back();
                }
                Ok(())
            }
        }
    }

    fn children<'s>(
        &self,
        node: Node<'s>,
        path: &Bytes,
        keep: Keep<'_, Row>,
        found: &mut Found<'_, Place<'s>, Batch<Row>>,
    ) -> Result<()> {
        let names = node.names()?;
        let node = Arc::new(node);
        let paths = path.entries();
        let mut entries = names.iter();
        found.each(&mut entries, |listed, found| {
            self.entry(&node, &paths, listed, keep, found);
        });
        let rest = entries.map(|of| (of.name.to_vec(), (of.kind, of.could_be_directory)));
        found.rest(Arc::clone(&node), rest, Place::Rest);
        Ok(())
    }

    /// A name of a directory that is listed.
    // It is called in two places, of which one has all the work.
    #[inline(always)]
    fn entry<'s>(
        &self,
        node: &Arc<Node<'s>>,
        paths: &Entries<'_>,
        listed: Listed<'_>,
        keep: Keep<'_, Row>,
        found: &mut Found<'_, Place<'s>, Batch<Row>>,
    ) {
        let name = listed.name;
        // Its turn comes later, so that a wide directory does not hold all of its open.
        if listed.could_be_directory {
            found.directory(Place::Child(Arc::clone(node), name.to_vec()));
            return;
        }
        let rows = found.rows();
        let shown = match node.as_listed(name, listed.kind) {
            Some(branch) => {
                let (path, provided) = (paths.path(name), (branch, listed.kind));
                let used = self.shown(node, name, path, provided, keep, rows);
                used.map(|used| paths.give_back(used.unwrap_or_default()))
            }
            None => node
                .child(name)
                .and_then(|entry| self.child(node, name, &entry, keep, rows))
                .map(|used| used.unwrap_or_default().give_back()),
        };
        if let Err(error) = shown {
            found.rows().problems.push(error);
        }
    }

    /// Keeps the row of an entry. What comes back is its path, if that is not kept.
    fn child(
        &self,
        node: &Node<'_>,
        name: &[u8],
        entry: &Entry<'_>,
        keep: Keep<'_, Row>,
        batch: &mut Batch<Row>,
    ) -> Result<Option<Bytes>> {
        if let (Some(branch), Some(kind)) = (entry.provider(), entry.kind()) {
            let path = node.path_into(name, Bytes::spare());
            return self.shown(node, name, path, (branch, kind), keep, batch);
        }
        // As `ls` of the kernel's own listing: what is listed and broken is shown broken. What
        // is listed and not there is a ghost.
        let is_broken = matches!(entry, Entry::Broken { .. });
        let is_wanted = is_broken || self.ghosts == Ghosts::Shown;
        if is_wanted && (self.ghosts == Ghosts::Shown && is_broken || node.readdir_lists(name)?) {
            batch.keep(keep, self.refused(node.path_of(name), entry, !is_broken));
        }
        Ok(None)
    }

    /// Keeps the row of a name that is shown. What comes back is its path, if that is not kept.
    fn shown(
        &self,
        node: &Node<'_>,
        name: &[u8],
        path: Bytes,
        (branch, kind): (usize, Kind),
        keep: Keep<'_, Row>,
        batch: &mut Batch<Row>,
    ) -> Result<Option<Bytes>> {
        let long = match self.detail {
            Detail::Short => None,
            Detail::Long => Some(Box::new(long(node, branch, name)?)),
        };
        let layer = self.target.union.layer_id(branch).map(str::to_owned);
        let row = Row::Shown(Shown {
            target: self.label.clone(),
            path,
            kind,
            branch,
            layer,
            long,
        });
        Ok(batch.keep(keep, row).map(Row::into_path))
    }

    fn refused(&self, path: Bytes, entry: &Entry<'_>, is_ghost: bool) -> Row {
        let error = match entry {
            Entry::Broken { errno, .. } => errno_name(*errno),
            _ => "ENOENT",
        };
        Row::Refused(Refused {
            target: self.label.clone(),
            path,
            error,
            is_ghost,
        })
    }
}

fn long(node: &Node<'_>, branch: usize, name: &[u8]) -> Result<Long> {
    let stat = node.stat(branch, name)?;
    let link = match (stat.kind, node.dir(branch)) {
        (Kind::Symlink, Some(dir)) => {
            let link = dir
                .read_link(name)
                .map_err(|errno| Error::io(node.on_host(branch, name), errno))?;
            Some(Bytes(link))
        }
        _ => None,
    };
    Ok(Long {
        mode: format!("{:04o}", stat.mode),
        uid: stat.uid,
        gid: stat.gid,
        size: stat.size,
        mtime: Stamp(stat.mtime.0, stat.mtime.1),
        link,
    })
}

/// A place of the merged view.
enum Place<'s> {
    Root,
    Child(Arc<Node<'s>>, Vec<u8>),
    /// As what its names are listed, and whether they could be directories.
    Rest(Box<Rest<Arc<Node<'s>>, (Kind, bool)>>),
}

fn directory<'s>(root: &Node<'s>, path: &Bytes) -> Result<Node<'s>> {
    match lookup(root, path.as_bytes(), Follow::NotLast)?.entry {
        Entry::Dir(node) => Ok(node),
        _ => Err(Error::io(path.clone(), rustix::io::Errno::STALE)),
    }
}

enum Start<'s> {
    Directory(Bytes),
    Row(Box<Resolution<'s>>),
}

/// As `ls` has it: a link to a directory is listed, a link to anything else is shown itself.
fn start<'s>(root: &Node<'s>, path: &Bytes) -> Result<Start<'s>> {
    let found = lookup(root, path.as_bytes(), Follow::NotLast)?;
    if found.entry.kind() == Some(Kind::Symlink) {
        let behind = lookup(root, path.as_bytes(), Follow::All)?;
        if let Entry::Dir(node) = &behind.entry {
            return Ok(Start::Directory(node.path()));
        }
    }
    Ok(match &found.entry {
        Entry::Dir(node) => Start::Directory(node.path()),
        _ => Start::Row(Box::new(found)),
    })
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
            optional("LAYER", |row, look, cell| {
                if let Row::Shown(Shown {
                    layer: Some(id), ..
                }) = row
                {
                    cell.text(&look.id(id));
                }
            }),
            optional("MODE", |row, _, cell| {
                cell.word(long(row).map(|long| &*long.mode).unwrap_or_default());
            }),
            optional("OWNER", |row, _, cell| {
                if let Some(long) = long(row) {
                    cell.show(format_args!("{}:{}", long.uid, long.gid));
                }
            }),
            optional("SIZE", |row, look, cell| {
                let size = long(row).map(|long| look.size(long.size));
                cell.word(&size.unwrap_or_default());
            }),
            optional("MODIFIED", |row, _, cell| {
                if let Some(long) = long(row) {
                    cell.show(long.mtime.whole_second());
                }
            }),
            column("PATH", |row, _, cell| match (row, long(row)) {
                (Row::Refused(refused), _) => {
                    cell.show(format_args!("{} ({})", refused.path, refused.error));
                }
                (
                    Row::Shown(shown),
                    Some(Long {
                        link: Some(link), ..
                    }),
                ) => cell.show(format_args!("{} -> {link}", shown.path)),
                (Row::Shown(shown), _) => cell.show(&shown.path),
            }),
        ]
    }
}
