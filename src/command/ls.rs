//! `ls [-R] TARGET[:PATH]`: the merged view with each name's provider.

use serde::Serialize;

use crate::bytes::Bytes;
use crate::command::{Context, Outcome, Report, path_in_union};
use crate::dir::Kind;
use crate::engine::Union;
use crate::error::{Error, Result, errno_name};
use crate::target;
use crate::union::{Entry, Follow, Node, Reading, Resolution, lookup};
use crate::walk::{Item, walk};

pub struct Query<'a> {
    pub within: Option<&'a [u8]>,
    /// With `within`, paths of that union; else `TARGET[:PATH]`.
    pub arguments: Vec<&'a [u8]>,
    pub depth: Depth,
    pub detail: Detail,
    pub ghosts: Ghosts,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    OneLevel,
    Recursive,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    Short,
    /// With mode, owner, size, time and link target.
    Long,
}

/// Names that `readdir` lists and `lstat` denies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ghosts {
    Hidden,
    Shown,
}

/// One name of the merged view.
#[derive(Debug, Serialize, schemars::JsonSchema)]
#[serde(untagged)]
pub enum Row {
    Shown(Box<Shown>),
    Refused(Refused),
}

#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct Shown {
    pub path: Bytes,
    #[serde(rename = "type")]
    pub kind: Kind,
    /// Index of the branch that provides it, 0 is topmost.
    pub branch: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layer: Option<String>,
    #[serde(flatten)]
    pub long: Option<Long>,
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
    /// Seconds since 1970.
    pub mtime: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<Bytes>,
}

#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct Refused {
    pub path: Bytes,
    /// The errno's name.
    pub error: &'static str,
    /// Listed by the kernel's `readdir` all the same.
    #[serde(skip)]
    pub is_ghost: bool,
}

pub fn run(context: &mut Context<'_>, query: &Query<'_>) -> Result<Outcome> {
    let mut rows = Vec::new();
    let mut is_yes = true;
    let mut list = |context: &mut Context<'_>, target: &target::Target, path: &Bytes| {
        let stack = context.open(target);
        let reading = match query.depth {
            Depth::OneLevel => Reading::Nothing,
            Depth::Recursive => Reading::Everything,
        };
        let start = match start(&stack.whole(Reading::Nothing), path) {
            Ok(start) => start,
            Err(error) => return context.problems.push(error),
        };
        match start {
            Start::Row(found) => match found.entry.kind() {
                Some(_) => match row_of(&target.union, query, &found) {
                    Ok(row) => rows.push(row),
                    Err(error) => context.problems.push(error),
                },
                None => {
                    is_yes = false;
                    rows.push(refused(
                        Bytes::absolute(found.path.components()),
                        &found.entry,
                        false,
                    ));
                }
            },
            Start::Directory(path) => {
                let node = directory(&stack.whole(reading), &path);
                match node {
                    Ok(node) => tree(&target.union, query, node, &mut rows, &mut context.problems),
                    Err(error) => context.problems.push(error),
                }
            }
        }
    };
    match query.within {
        Some(name) => {
            let target = context.find(name)?;
            let root: &[u8] = b"/";
            let paths = if query.arguments.is_empty() {
                vec![root]
            } else {
                query.arguments.clone()
            };
            for path in paths {
                list(context, &target, &target.path(&path_in_union(path)));
            }
        }
        None => {
            for argument in &query.arguments {
                let (name, path) = target::split(argument);
                let target = context.find(name)?;
                let path = path.map_or_else(
                    || target.inside.clone(),
                    |path| target.path(&path_in_union(path)),
                );
                list(context, &target, &path);
            }
        }
    }
    Ok(Outcome {
        report: Report::Ls(rows),
        is_yes,
    })
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
            return Ok(Start::Directory(node.path().clone()));
        }
    }
    Ok(match &found.entry {
        Entry::Dir(node) => Start::Directory(node.path().clone()),
        _ => Start::Row(Box::new(found)),
    })
}

enum Visit<'s> {
    Root(Node<'s>),
    Child(std::sync::Arc<Node<'s>>, Vec<u8>),
}

fn tree(
    union: &Union,
    query: &Query<'_>,
    node: Node<'_>,
    rows: &mut Vec<Row>,
    problems: &mut Vec<Error>,
) {
    let answers = walk(Visit::Root(node), |visit| {
        let found = match visit {
            Visit::Root(node) => children(node),
            Visit::Child(node, name) => child(union, query, &node, &name),
        };
        found.unwrap_or_else(|error| vec![Item::Row(Err(error))])
    });
    for answer in answers {
        match answer {
            Ok(row) => rows.push(row),
            Err(error) => problems.push(error),
        }
    }
}

type Found<'s> = Vec<Item<Visit<'s>, Result<Row>>>;

fn children(node: Node<'_>) -> Result<Found<'_>> {
    let node = std::sync::Arc::new(node);
    let names = node.names()?;
    Ok(names
        .into_iter()
        .map(|name| Item::Place(Visit::Child(std::sync::Arc::clone(&node), name)))
        .collect())
}

fn child<'s>(union: &Union, query: &Query<'_>, node: &Node<'s>, name: &[u8]) -> Result<Found<'s>> {
    let entry = node.child(name)?;
    let mut found: Found<'s> = Vec::new();
    let path = node.path().join(name);
    match entry.kind() {
        Some(_) => found.push(Item::Row(shown(union, query, node, name, &entry, path))),
        // As `ls` of the kernel's own listing: what is listed and broken is shown broken. What
        // is listed and not there is a ghost.
        None => {
            let is_broken = matches!(entry, Entry::Broken { .. });
            let is_wanted = is_broken || query.ghosts == Ghosts::Shown;
            if is_wanted
                && (node.readdir_lists(name)? || query.ghosts == Ghosts::Shown && is_broken)
            {
                found.push(Item::Row(Ok(refused(path, &entry, !is_broken))));
            }
        }
    }
    if let (Entry::Dir(node), Depth::Recursive) = (entry, query.depth) {
        match children(node) {
            Ok(below) => found.extend(below),
            Err(error) => found.push(Item::Row(Err(error))),
        }
    }
    Ok(found)
}

fn row_of(union: &Union, query: &Query<'_>, found: &Resolution<'_>) -> Result<Row> {
    match &found.place {
        Some((place, name)) => shown(
            union,
            query,
            place,
            name,
            &found.entry,
            place.path().join(name),
        ),
        None => Err(Error::io(found.path.clone(), rustix::io::Errno::NOENT)),
    }
}

fn shown(
    union: &Union,
    query: &Query<'_>,
    node: &Node<'_>,
    name: &[u8],
    entry: &Entry<'_>,
    path: Bytes,
) -> Result<Row> {
    let (Some(kind), Some(branch)) = (entry.kind(), entry.provider()) else {
        return Ok(refused(path, entry, false));
    };
    let long = match query.detail {
        Detail::Short => None,
        Detail::Long => {
            let stat = node.stat(branch, name)?;
            let target = match (stat.kind, node.dir(branch)) {
                (Kind::Symlink, Some(dir)) => {
                    let target = dir
                        .read_link(name)
                        .map_err(|errno| Error::io(node.on_host(branch, name), errno))?;
                    Some(Bytes(target))
                }
                _ => None,
            };
            Some(Long {
                mode: format!("{:04o}", stat.mode),
                uid: stat.uid,
                gid: stat.gid,
                size: stat.size,
                mtime: stat.mtime.0,
                target,
            })
        }
    };
    let layer = union.layer_id(branch).map(str::to_owned);
    Ok(Row::Shown(Box::new(Shown {
        path,
        kind,
        branch,
        layer,
        long,
    })))
}

fn refused(path: Bytes, entry: &Entry<'_>, is_ghost: bool) -> Row {
    let error = match entry {
        Entry::Broken { errno, .. } => errno_name(*errno),
        _ => "ENOENT",
    };
    Row::Refused(Refused {
        path,
        error,
        is_ghost,
    })
}
