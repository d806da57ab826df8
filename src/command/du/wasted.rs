//! What an image carries and nobody sees: what later layers have overwritten, deleted, or copied to
//! change no more than a mode or an owner.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::num::NonZeroUsize;
use std::ops::ControlFlow;

use serde::Serialize;

use super::{Kind, Row};
use crate::bytes::Bytes;
use crate::command::space::LARGEST;
use crate::dir::{self, Stat};
use crate::engine::{Union, UnionKind};
use crate::error::{Error, Result};
use crate::forest::{self, Sight, State, Wanted};
use crate::union::{Entry, Follow, Reading, Stack, lookup};

/// A file of a layer that no container of the image sees.
#[derive(Debug, Clone, Serialize, schemars::JsonSchema)]
pub struct WastedFile {
    /// Its path in the image.
    pub path: Bytes,
    /// Bytes on disk.
    pub disk: u64,
    pub why: Waste,
    /// The layer that has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layer: Option<String>,
    /// The layer that hides it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hidden_by_layer: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Waste {
    Overwritten,
    Deleted,
    /// A later layer has the same content with another mode or owner.
    ModeChange,
}

impl Waste {
    pub fn word(self) -> &'static str {
        match self {
            Waste::Overwritten => "overwritten",
            Waste::Deleted => "deleted",
            Waste::ModeChange => "mode change",
        }
    }
}

/// Says of an image's rows what is in each layer and what of that is wasted, and of their sum which
/// files that are.
pub fn add_to(
    rows: &mut [Row],
    union: &Union,
    stack: &Stack,
    threads: NonZeroUsize,
    problems: &mut Vec<Error>,
) {
    // Where each layer holds all those below it, nothing is told by one branch.
    if union.kind == UnionKind::Copy {
        return;
    }
    let (contents, mut files) = contents(stack, threads, problems);
    let layer = |branch: usize| union.layer_id(branch).map(str::to_owned);
    for (branch, content) in &contents {
        let id = layer(*branch);
        let mut layers = rows.iter_mut().filter(|row| row.kind == Kind::Layer);
        if let Some(row) = layers.find(|row| row.id == id) {
            row.size = Some(content.size);
            row.wasted = Some(content.wasted);
        }
    }
    let Some(total) = rows.iter_mut().find(|row| row.kind == Kind::Total) else {
        return;
    };
    total.size = Some(contents.values().map(|of| of.size).sum());
    total.wasted = Some(contents.values().map(|of| of.wasted).sum());
    files.sort_by(|a, b| b.disk.cmp(&a.disk).then_with(|| a.path.cmp(&b.path)));
    files.truncate(LARGEST);
    for file in files {
        let hidden = hidden_by(stack, &file);
        let (by, why) = hidden.unwrap_or_else(|error| {
            problems.push(error);
            (None, Waste::Overwritten)
        });
        total.wasted_files.push(WastedFile {
            layer: layer(file.branch),
            hidden_by_layer: by.and_then(layer),
            path: file.path,
            disk: file.disk,
            why,
        });
    }
}

/// What is in one layer, in bytes.
#[derive(Default)]
struct Content {
    size: u64,
    /// On disk.
    wasted: u64,
}

/// A file as one of its names has it.
struct File {
    branch: usize,
    path: Bytes,
    stat: Stat,
    is_hidden: bool,
    /// The branch and the path of its content, where the file itself has only metadata.
    data: Option<(usize, Bytes)>,
}

/// A file that nothing shows.
struct Hidden {
    branch: usize,
    path: Bytes,
    disk: u64,
    stat: Stat,
}

/// What is in each branch, and the files in them that the union does not show by any name.
fn contents(
    stack: &Stack,
    threads: NonZeroUsize,
    problems: &mut Vec<Error>,
) -> (BTreeMap<usize, Content>, Vec<Hidden>) {
    let row = |found: Result<Sight<'_, '_>>, batch: &mut Vec<Result<File>>| {
        batch.extend(found.and_then(|sight| file(&sight)).transpose());
    };
    let wanted = Wanted {
        hidden: true,
        depth_max: usize::MAX,
        name: &|_| true,
    };
    let readable = stack.branches.iter().enumerate();
    let readable = readable.filter(|(_, branch)| branch.dir.is_ok());
    let mut contents: BTreeMap<usize, Content> = readable
        .map(|(branch, _)| (branch, Content::default()))
        .collect();
    let mut files = Vec::new();
    // Of a file with several names where it is in `files`; none where one of them is seen.
    let mut links: HashMap<(u64, u64), Option<usize>> = HashMap::new();
    let mut used: HashSet<(usize, Bytes)> = HashSet::new();
    let stacks = std::slice::from_ref(stack);
    let _ = forest::walk(stacks, &wanted, threads, &row, |batch| {
        for file in batch {
            let file = match file {
                Ok(file) => file,
                Err(error) => {
                    problems.push(error);
                    continue;
                }
            };
            if !file.is_hidden {
                used.extend(file.data);
            }
            let known = (file.stat.nlink > 1)
                .then(|| links.get(&file.stat.identity()).copied())
                .flatten();
            if known.is_none() {
                contents.entry(file.branch).or_default().size += file.stat.size;
            }
            let at = match (file.is_hidden, known) {
                (false, _) => None,
                (true, Some(known)) => known,
                (true, None) => Some(files.len()),
            };
            if file.stat.nlink > 1 {
                links.insert(file.stat.identity(), at);
            }
            if file.is_hidden && known.is_none() {
                files.push(Hidden {
                    branch: file.branch,
                    disk: file.stat.disk(),
                    path: file.path,
                    stat: file.stat,
                });
            }
        }
        ControlFlow::Continue(())
    });
    files.retain(|file| {
        let is_seen = file.stat.nlink > 1 && links.get(&file.stat.identity()) == Some(&None);
        let is_used = used.contains(&(file.branch, file.path.clone()));
        file.disk > 0 && !is_seen && !is_used
    });
    for file in &files {
        contents.entry(file.branch).or_default().wasted += file.disk;
    }
    (contents, files)
}

/// What was seen, if it is a file.
fn file(sight: &Sight<'_, '_>) -> Result<Option<File>> {
    if sight.kind != dir::Kind::File {
        return Ok(None);
    }
    Ok(Some(File {
        branch: sight.branch,
        path: sight.path(),
        stat: sight.place.stat(sight.branch, sight.name)?,
        is_hidden: sight.state != State::Visible,
        data: sight.data.map(|data| (data.branch, data.path.clone())),
    }))
}

/// Which branch hides a file from those that have it, and how: of all views from a branch down the
/// first that does not show it.
fn hidden_by(stack: &Stack, file: &Hidden) -> Result<(Option<usize>, Waste)> {
    for from in (0..file.branch).rev() {
        let root = stack.root(|of| of >= from, Reading::Nothing);
        let found = lookup(&root, file.path.as_bytes(), Follow::NotLast)?;
        let is_same_place = found.links.is_empty();
        if is_same_place && found.entry.provider() == Some(file.branch) {
            continue;
        }
        let why = match found.entry {
            Entry::Missing | Entry::Deleted { .. } => Waste::Deleted,
            Entry::Leaf { .. } if is_same_place && is_only_dressed(&file.stat, &found.stat()?) => {
                Waste::ModeChange
            }
            Entry::Leaf { .. } | Entry::Dir(_) | Entry::Broken { .. } => Waste::Overwritten,
        };
        return Ok((Some(from), why));
    }
    Ok((None, Waste::Overwritten))
}

/// Whether a later file has the content of an earlier one, as far as size and time tell, and
/// another mode or owner.
fn is_only_dressed(file: &Stat, later: &Stat) -> bool {
    let content = |of: &Stat| (of.kind, of.size, of.mtime.0);
    let dress = |of: &Stat| (of.mode, of.uid, of.gid);
    content(file) == content(later) && dress(file) != dress(later)
}
