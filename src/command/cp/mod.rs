//! `cp [TARGET:]PATH... DEST`: versions of files and trees, copied out or as a tar file.

mod item;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use serde::Serialize;

use crate::bytes::Bytes;
use crate::command::asked::{Asked, Opened, asked, note_covers};
use crate::command::{Answer, Context, Ended, Group, Help, Label, Outcome, Verb, Which};
use crate::dir::{Dir, Kind};
use crate::error::{Error, Result};
use crate::interrupt::was_ended;
use crate::render::column::{Column, column};
use crate::render::{Format, Look};
use crate::restore::Depth;
use crate::restore::archive::Archive;
use crate::restore::attributes::{Into, Keep};
use crate::restore::copy::{Copied, How};
use crate::restore::deleted::Replaced;
use crate::restore::guard::{Outside, is_taken, permit_copy};
use crate::restore::links::Links;
use crate::restore::locate::{Located, Sought};
use crate::restore::out::{self, Way};
use crate::restore::staging::Staging;
use crate::union::{Entry, Follow};
use item::Item;

/// Copy files and directories out, of any container, image or layer
///
/// As `docker cp` does: into DEST if that is a directory, else as DEST; DEST `-` writes a tar file
/// to standard output. Nothing that exists is overwritten without --force, nothing is written
/// through a link, and nothing half-made is left.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Every argument but DEST is a path of this union
    #[arg(hide_short_help = true, long = "in", value_name = "TARGET")]
    within: Option<OsString>,
    /// Keep owners, and all attributes that can be kept
    #[arg(short, long)]
    archive: bool,
    /// Copy what a link named on the command line leads to
    #[arg(short = 'L', long)]
    follow_link: bool,
    /// Directories are copied whole in any case
    #[arg(hide_short_help = true, short, long)]
    recursive: bool,
    /// What a mark hides; in a directory that is there, too
    #[arg(long)]
    hidden: bool,
    /// Replace files that exist, and add to directories that do
    #[arg(short, long)]
    force: bool,
    /// Keep the paths below this directory; there is no DEST then
    #[arg(long, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    to: Option<PathBuf>,
    /// Copy all that was deleted; without TARGET of every container
    #[arg(long, conflicts_with = "follow_link")]
    all_deleted: bool,
    /// Print what would be copied, and copy nothing
    #[arg(long)]
    dry_run: bool,
    /// Permit writing under a --root other than /
    #[arg(long)]
    write: bool,
    /// Without TARGET the union that has it; - is a tar
    #[arg(value_name = "[TARGET:]PATH... DEST")]
    arguments: Vec<OsString>,
}

/// What was copied, or would be.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct Row {
    /// The union, as a TARGET.
    pub target: Label,
    pub path: Bytes,
    #[serde(rename = "type")]
    pub kind: Kind,
    /// Index of the branch that provides it, 0 is topmost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub branch: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layer: Option<String>,
    /// Where it was copied to.
    pub to: Bytes,
    /// How many entries were copied.
    pub entries: u64,
    /// What was in the files, in bytes.
    pub size: u64,
    /// False for a dry run, and where it could not be copied.
    pub applied: bool,
}

/// Where it goes.
pub enum Destination {
    Archive,
    Directory(PathBuf),
    /// A name that nothing has, or that may be replaced.
    Name(PathBuf),
}

impl Verb for Args {
    const HELP: Help = Help {
        group: Group::Look,
        examples: &[
            "layerctl cp web:/etc/passwd .",
            "layerctl cp -a --hidden web:/srv /tmp/rescued",
            "layerctl cp web:/etc - | tar -tv",
        ],
        exit: "0 copied; 1 one is not there; 2 not all could be copied",
    };

    type Answer = Answered;

    fn run(mut self, context: &mut Context<'_>) -> Result<Outcome<Answered>> {
        let destination = self.destination()?;
        let items = self.items(context, &destination)?;
        // What is hidden in one directory is several things that have one name together.
        let is_several = items.len() > 1 && (self.all_deleted || self.arguments.len() > 1);
        if let (Destination::Name(path), true) = (&destination, is_several) {
            return Err(Error::Refused {
                what: format!(
                    "{} is no directory, and several things cannot be it",
                    path.display()
                ),
                hint: "name a directory that exists, or --to DIR".into(),
            });
        }
        let way = Way {
            how: How {
                depth: Depth::Whole,
                into: Into::View,
                keep: if self.archive {
                    Keep::Possible
                } else {
                    Keep::Content
                },
            },
            may_replace: self.force,
        };
        let follow = if self.follow_link {
            Follow::All
        } else {
            Follow::NotLast
        };
        let is_in = match &destination {
            Destination::Name(path) => path.parent().map(Path::to_owned),
            Destination::Archive | Destination::Directory(_) => None,
        };
        match destination {
            Destination::Archive => Outcome::yes(Answered::Archive { items, follow }),
            Destination::Directory(path) | Destination::Name(path) if self.dry_run => {
                check(context, &items, is_in.as_deref().unwrap_or(&path))?;
                plan(context, &items, (&path, is_in.is_some()), follow, way)
            }
            Destination::Directory(path) => {
                let into = Copying::new(context, &items, &path, self.write)?;
                into.copy(context, &items, None, follow, way)
            }
            Destination::Name(path) => {
                let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
                    return Err(Error::Usage(format!("{}: is no name", path.display())));
                };
                let into = Copying::new(context, &items, parent, self.write)?;
                into.copy(context, &items, Some(name.as_bytes()), follow, way)
            }
        }
    }
}

impl Args {
    /// Takes the destination off the arguments.
    fn destination(&mut self) -> Result<Destination> {
        let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        if let Some(to) = &self.to {
            return Ok(if to.as_os_str() == "-" {
                Destination::Archive
            } else {
                Destination::Directory(absolute(to))
            });
        }
        let usage =
            || Error::Usage("say what is to be copied, and where to: [TARGET:]PATH... DEST".into());
        let typed = self.arguments.pop().ok_or_else(usage)?;
        if self.arguments.is_empty() && !self.all_deleted {
            return Err(usage());
        }
        if typed == "-" {
            return Ok(Destination::Archive);
        }
        let path = absolute(Path::new(&typed));
        let is_directory = match (path.parent(), path.file_name()) {
            (Some(parent), Some(name)) => {
                let parent = Outside::find(parent)?.existing(parent)?;
                let stat = parent.stat(name.as_bytes());
                let stat = stat.map_err(|errno| Error::io(&*path, errno))?;
                // Of a link to a directory it is said that it is not followed.
                let kind = stat.map(|stat| stat.kind);
                kind == Some(Kind::Directory)
                    || (kind == Some(Kind::Symlink) && path.is_dir())
                    || (kind.is_none() && self.all_deleted)
            }
            _ => true,
        };
        if is_directory {
            return Ok(Destination::Directory(path));
        }
        if typed.as_bytes().ends_with(b"/") {
            return Err(Error::io(&*path, rustix::io::Errno::NOTDIR));
        }
        Ok(Destination::Name(path))
    }

    /// What is to be copied.
    fn items(&self, context: &mut Context<'_>, destination: &Destination) -> Result<Vec<Item>> {
        if self.all_deleted {
            return self.deleted(context);
        }
        let sought = Sought::of(self.hidden);
        let arguments = self.arguments.iter().map(OsString::as_os_str);
        let all = asked(context, self.within.as_deref(), arguments, sought)?;
        note_covers(context, &all);
        let keeps_paths = self.to.is_some();
        let mut items = Vec::new();
        for (asked, typed) in all.into_iter().zip(&self.arguments) {
            let item = Item {
                below: keeps_paths.then(|| Bytes::from("/")),
                within: Bytes::from("/"),
                is_content: typed.as_bytes().ends_with(b"/."),
                sought,
                asked,
            };
            let hidden = self.hidden.then(|| item.hidden_in(context, destination));
            let hidden = hidden.transpose()?.unwrap_or_default();
            items.extend(hidden.is_empty().then_some(item));
            items.extend(hidden);
        }
        Ok(items)
    }

    /// Everything that was deleted, of each union below a directory of its own if there are several.
    fn deleted(&self, context: &mut Context<'_>) -> Result<Vec<Item>> {
        let named: Vec<OsString> = self.within.iter().chain(&self.arguments).cloned().collect();
        let subjects = context.subjects(&named, Which::default())?;
        // Without a name there may be one today and two tomorrow.
        let is_one = subjects.len() == 1 && !named.is_empty();
        let mut items = Vec::new();
        for (label, mut target, branch) in subjects {
            let stack = context.open_part(&mut target);
            let union = Rc::new(Opened { target, stack });
            let within = (&label, &union.target);
            let paths = context.all_deleted(within, (&union.stack, branch), Replaced::Listed);
            let own = label.as_file_name();
            items.extend(paths.into_iter().map(|path| Item {
                below: Some(if is_one {
                    Bytes::from("/")
                } else {
                    Bytes::from("/").join(&own)
                }),
                within: Bytes::from("/"),
                asked: Asked {
                    label: label.clone(),
                    union: Rc::clone(&union),
                    path,
                },
                sought: Sought::Without(branch),
                is_content: false,
            }));
        }
        Ok(items)
    }
}

/// What would be copied.
fn plan(
    context: &mut Context<'_>,
    items: &[Item],
    (path, is_name): (&Path, bool),
    follow: Follow,
    way: Way,
) -> Result<Outcome<Answered>> {
    let mut rows = Vec::new();
    let mut is_yes = true;
    for item in items {
        match item.locate(follow)? {
            Ok(located) => {
                // What keeps its path below a name does so beside other names.
                let is_beside = is_name && item.below.is_some();
                let to = Bytes::from(path.parent().filter(|_| is_beside).unwrap_or(path));
                let to = match item.kept(&located) {
                    Some((parent, own)) => to.join_path(&parent).join(&own),
                    None if path.is_dir() => to.join(&item.name(&located)),
                    None => to,
                };
                let is_added = item.is_content || item.name(&located).is_empty();
                if !way.may_replace && !is_added && is_taken(&to) {
                    let error = Error::io(to.clone(), rustix::io::Errno::EXIST);
                    context.problems.push(item.asked.label.of(error));
                }
                rows.push(item.row(&located, to));
            }
            Err(why) => {
                is_yes = false;
                context.notes.push(item.asked.absent(&why));
            }
        }
    }
    Ok(Outcome {
        answer: Answered::Rows(rows),
        is_yes,
    })
}

/// Sees that a destination lies in none of the unions.
///
/// # Errors
/// It does, or cannot be opened.
fn check(context: &Context<'_>, items: &[Item], path: &Path) -> Result<Outside> {
    let outside = Outside::find(path)?;
    let mut checked: Vec<*const Opened> = Vec::new();
    for item in items {
        let union = &item.asked.union;
        let is_new = !checked.contains(&Rc::as_ptr(union));
        if is_new {
            checked.push(Rc::as_ptr(union));
            outside.check(&context.survey, &union.target.union, &union.stack, path)?;
        }
    }
    Ok(outside)
}

/// A destination that is open.
struct Copying<'p> {
    dir: Dir,
    path: &'p Path,
}

impl<'p> Copying<'p> {
    /// Opens the destination, made where it is missing, once it is certain that it lies in none of the
    /// unions.
    fn new(
        context: &Context<'_>,
        items: &[Item],
        path: &'p Path,
        may_write: bool,
    ) -> Result<Copying<'p>> {
        let outside = check(context, items, path)?;
        permit_copy(&context.survey, path, may_write)?;
        let dir = outside.make()?;
        // What runs that were killed have left.
        Staging::clear(&dir);
        Ok(Copying { dir, path })
    }

    fn copy(
        self,
        context: &mut Context<'_>,
        items: &[Item],
        name: Option<&[u8]>,
        follow: Follow,
        way: Way,
    ) -> Result<Outcome<Answered>> {
        let mut rows = Vec::new();
        let mut is_yes = true;
        let mut links = Links::default();
        for item in items {
            let located = match item.locate(follow) {
                Ok(Ok(located)) => located,
                Ok(Err(why)) => {
                    is_yes = false;
                    context.notes.push(item.asked.absent(&why));
                    continue;
                }
                Err(error) => {
                    context.problems.push(item.asked.label.of(error));
                    continue;
                }
            };
            let (to, copied) = self.one(item, &located, name, (way, &mut links));
            let mut row = item.row(&located, to);
            match copied {
                Ok(copied) => {
                    (row.entries, row.size) = (copied.entries, copied.size);
                    row.applied = copied.entries > 0;
                    let said = copied.into_said().into_iter();
                    let said = said.map(|error| item.asked.label.of(error));
                    context.problems.extend(said);
                }
                Err(error) => context.problems.push(item.asked.label.of(error)),
            }
            rows.push(row);
            if was_ended() {
                break;
            }
        }
        Ok(Outcome {
            answer: Answered::Rows(rows),
            is_yes,
        })
    }

    /// Copies one version, and says where to.
    fn one(
        &self,
        item: &Item,
        located: &Located<'_>,
        name: Option<&[u8]>,
        (way, links): (Way, &mut Links),
    ) -> (Bytes, Result<Copied>) {
        let path = Bytes::from(self.path);
        let (parent, own) = match (item.kept(located), name) {
            (Some(kept), _) => kept,
            (None, Some(name)) => (Bytes::from("/"), name.to_vec()),
            (None, None) => (Bytes::from("/"), item.name(located)),
        };
        let to = path.join_path(&parent);
        let to = if own.is_empty() { to } else { to.join(&own) };
        let copied = out::directory(&self.dir, parent.components()).and_then(|dir| {
            match (&located.place, &located.entry) {
                (Some((place, from)), entry) => match entry {
                    Entry::Dir(node) if item.is_content && name.is_none() => {
                        out::content(node, &dir, way, links)
                    }
                    _ if own.is_empty() => Err(Error::io(to.clone(), rustix::io::Errno::EXIST)),
                    _ => out::place(place, from, (&dir, &own), way, links),
                },
                // A view's root has no name of its own.
                (None, Entry::Dir(node)) if own.is_empty() => out::content(node, &dir, way, links),
                (None, Entry::Dir(node)) => out::itself(node, (&dir, &own), way, links),
                (None, _) => Ok(Copied::default()),
            }
        });
        (to, copied)
    }
}

/// What was copied; or what is to be written as a tar file.
pub enum Answered {
    Rows(Vec<Row>),
    Archive { items: Vec<Item>, follow: Follow },
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
        let (items, follow) = match self {
            Answered::Rows(rows) => return rows.show(look, context, out, ended),
            Answered::Archive { items, follow } => (items, follow),
        };
        if look.format != Format::Table {
            let what = "a tar file has no other form: leave --format, -q and -0 away";
            ended.problems.push(Error::Usage(what.into()));
            return Ok(());
        }
        if context.is_direct && io::stdout().is_terminal() {
            let what = "a tar file is nothing for a terminal: redirect standard output";
            ended.problems.push(Error::Usage(what.into()));
            return Ok(());
        }
        // Files are smaller than what a pipe or a disk takes at once.
        let mut buffered = BufWriter::with_capacity(256 << 10, out);
        let mut archive = Archive::new(&mut buffered);
        let mut taken = Taken::default();
        for item in &items {
            match item.locate(follow) {
                Ok(Ok(located)) => {
                    let base = base(item, &located);
                    if taken.take(&base) {
                        add(&mut archive, &located, &base)?;
                    } else {
                        let error = Taken::refusal(&base);
                        ended.problems.push(item.asked.label.of(error));
                    }
                }
                Ok(Err(why)) => {
                    ended.is_no = true;
                    ended.notes.push(item.asked.absent(&why));
                }
                Err(error) => ended.problems.push(error),
            }
        }
        ended.problems.extend(archive.finish()?);
        buffered.flush()
    }
}

/// The names that an archive has, each with a slash before and after it.
#[derive(Default)]
struct Taken(BTreeSet<Vec<u8>>);

impl Taken {
    /// Takes a name, unless one is taken that lies in it, or that it lies in: what one item has as a link, and the
    /// next as a directory, leads whoever unpacks both to elsewhere.
    fn take(&mut self, base: &Bytes) -> bool {
        let mut own = vec![b'/'];
        for part in base.components() {
            own.extend_from_slice(part);
            own.push(b'/');
        }
        let ends = (0..own.len()).filter(|at| own[*at] == b'/');
        let is_in = ends.into_iter().any(|at| self.0.contains(&own[..=at]));
        let next = self.0.range(own.clone()..).next();
        let has = next.is_some_and(|next| next.starts_with(&own));
        !is_in && !has && self.0.insert(own)
    }

    fn refusal(base: &Bytes) -> Error {
        Error::Refused {
            what: format!("{base} lies in what was named before it, or that in this"),
            hint: "write one tar file for each: whoever unpacks both in one place could be led elsewhere by a link"
                .into(),
        }
    }
}

/// What a version is called in an archive.
fn base(item: &Item, located: &Located<'_>) -> Bytes {
    match item.kept(located) {
        Some((parent, own)) => {
            let parts: Vec<&[u8]> = parent.components().chain([&own[..]]).collect();
            Bytes(parts.join(&b"/"[..]))
        }
        None => Bytes(item.name(located)),
    }
}

/// Adds a version to an archive.
fn add(archive: &mut Archive<'_>, located: &Located<'_>, base: &Bytes) -> io::Result<()> {
    match (&located.place, &located.entry) {
        (Some((place, name)), _) => archive.add(place, name, base),
        (None, Entry::Dir(node)) => archive.content(&node.clone().read()),
        (None, _) => Ok(()),
    }
}

impl crate::command::Row for Row {
    const HEADS_NOTHING: bool = false;

    fn words(&self, give: &mut dyn FnMut(&[u8])) {
        give(self.to.as_bytes());
    }

    fn label(&self) -> Option<&Label> {
        Some(&self.target)
    }

    fn columns(_look: Look) -> Vec<Column<Row>> {
        vec![
            column("COPIED", |row: &Row, _, cell| {
                cell.word(if row.applied { "yes" } else { "no" });
            }),
            column("ENTRIES", |row, _, cell| cell.show(row.entries)),
            column("SIZE", |row, look, cell| cell.word(&look.size(row.size))),
            column("PATH", |row, _, cell| {
                cell.show(Bytes(row.target.word(&row.path).into_owned()));
            }),
            column("TO", |row, _, cell| cell.show(&row.to)),
        ]
    }
}
