//! What `ls` finds: the names of a directory of the merged view, and of those below it.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::{Depth, Detail, Ghosts, Long, Refused, Row, Shown};
use crate::bytes::{Bytes, Entries};
use crate::command::{Batch, Find, Keep, Label};
use crate::dir::{Kind, Stat};
use crate::engine::covered::Covers;
use crate::error::{Error, Result, errno_name};
use crate::render::time::Stamp;
use crate::target::Target;
use crate::union::{Entry, Follow, Listed, Node, Reading, Resolution, Stack, lookup};
use crate::walk::{Found, Rest, walk_all};

/// What is to be listed.
pub(super) struct Listing {
    pub label: Label,
    pub target: Arc<Target>,
    pub stack: Stack,
    pub covers: Covers,
    pub path: Bytes,
    pub depth: Depth,
    pub detail: Detail,
    pub ghosts: Ghosts,
}

impl Listing {
    /// The directory that is listed, every link on the way to it followed; none where what was asked
    /// for is shown itself.
    pub fn directory(&self) -> Option<Bytes> {
        match start(&self.stack.whole(Reading::Nothing), &self.path) {
            Ok(Start::Directory(path)) => Some(path),
            Ok(Start::Row(_)) | Err(_) => None,
        }
    }

    pub fn find<'s>(
        &'s self,
        how: &Find<'_, Row>,
        mut give: impl FnMut(Batch<Row>) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let mut batch = Batch::default();
        let is_done = match start(&self.stack.whole(Reading::Nothing), &self.path) {
            Ok(Start::Directory(path)) => {
                let visit = |place: Place<'s>, found: &mut Found<'_, Place<'s>, Batch<Row>>| {
                    if let Err(error) = self.visit(&path, place, how.keep, found) {
                        found.rows().problems.push(self.label.of(error));
                    }
                };
                return walk_all(how.threads, Place::Root, &visit, give);
            }
            Ok(Start::Row(found)) => self.row_of(&found, how.keep, &mut batch),
            Err(error) => Err(error),
        };
        let error = is_done.err();
        batch
            .problems
            .extend(error.map(|error| self.label.of(error)));
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
                    Depth::Recursive(_) => Reading::Everything,
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
                let entry = node.child_directory(&name)?;
                // Of one that cannot be shown in full the children are shown all the same.
                let shown = self.child(&node, &name, &entry, keep, found.rows());
                let path = shown.unwrap_or_else(|error| {
                    found.rows().problems.push(self.label.of(error));
                    None
                });
                if let (Entry::Dir(child), Depth::Recursive(_)) = (entry, self.depth) {
                    let path = path.unwrap_or_else(|| node.path_of(&name));
                    if self.depth.reaches(start, &path) {
                        self.children(child, &path, keep, found)?;
                    }
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
                let (path, provided) = (paths.path(name), (branch, listed.kind, None));
                let used = self.shown(node, name, path, provided, keep, rows);
                used.map(|used| paths.give_back(used.unwrap_or_default()))
            }
            None => node
                .child(name)
                .and_then(|entry| self.child(node, name, &entry, keep, rows))
                .map(|used| used.unwrap_or_default().give_back()),
        };
        if let Err(error) = shown {
            found.rows().problems.push(self.label.of(error));
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
            let provided = (branch, kind, entry.stat());
            return self.shown(node, name, path, provided, keep, batch);
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
        (branch, kind, stat): (usize, Kind, Option<Stat>),
        keep: Keep<'_, Row>,
        batch: &mut Batch<Row>,
    ) -> Result<Option<Bytes>> {
        let long = match self.detail {
            Detail::Short => None,
            Detail::Long => Some(Box::new(long(node, (branch, stat), name)?)),
        };
        let layer = self.target.union.layer_id(branch).map(str::to_owned);
        let row = Row::Shown(Shown {
            target: self.label.clone(),
            covered_by: self.covers.at(&path).cloned().map(Box::new),
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
            covered_by: self.covers.at(&path).cloned().map(Box::new),
            path,
            error,
            is_ghost,
        })
    }
}

fn long(node: &Node<'_>, (branch, known): (usize, Option<Stat>), name: &[u8]) -> Result<Long> {
    let stat = node.stat_of(branch, name, known)?;
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
