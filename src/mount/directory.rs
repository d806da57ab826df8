//! One place of a view while the kernel knows it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, Weak};
use std::time::Instant;

use rustix::io::Errno;

use super::places::{Found, FoundLeaf, Places};
use super::view::View;
use crate::dir::{Dir, Stat};
use crate::error::{Error, Result};
use crate::union::{Node, OpenVersion};

/// A directory of a view. Where a branch can be written it is looked for again when a second is over:
/// a branch may have got a directory of its own there.
pub struct Directory {
    pub view: Arc<View>,
    /// The directory that it is in, and its name there; none for the root of a view.
    parent: Option<(Arc<Directory>, Box<[u8]>)>,
    seen: RwLock<(Places, Instant)>,
    /// The directories that were found here, where nobody writes: one that is not as it was has been
    /// removed beneath.
    below: Mutex<HashMap<Box<[u8]>, Known>>,
}

/// A directory that was found.
#[derive(Clone)]
struct Known {
    /// The branches that are merged there, by view.
    branches: Vec<(usize, usize)>,
    /// As long as the kernel knows it.
    directory: Weak<Directory>,
}

impl Directory {
    /// The root of a view.
    pub fn root(view: Arc<View>) -> Directory {
        let seen = RwLock::new((view.root(), Instant::now()));
        Directory {
            view,
            parent: None,
            seen,
            below: Mutex::default(),
        }
    }

    fn below(parent: &Arc<Directory>, name: &[u8], places: Places) -> Directory {
        Directory {
            view: Arc::clone(&parent.view),
            parent: Some((Arc::clone(parent), name.into())),
            seen: RwLock::new((places, Instant::now())),
            below: Mutex::default(),
        }
    }

    fn known(&self, name: &[u8]) -> Option<Known> {
        let below = self.below.lock().unwrap_or_else(PoisonError::into_inner);
        below.get(name).cloned()
    }

    /// Sees that what is merged here has not been removed: what is open still looks emptied then.
    fn is_there(places: &Places) -> Result<(), Errno> {
        let mut dirs = places.dirs();
        dirs.try_for_each(|dir| match dir.stat_self()?.nlink {
            0 => Err(Errno::STALE),
            _ => Ok(()),
        })
    }

    /// What is merged here, looked at less than a second ago where anything can change.
    ///
    /// # Errors
    /// `ESTALE` where there is no such directory any more.
    pub fn places(&self) -> Result<Places, Errno> {
        if let Some(places) = self.fresh() {
            return Ok(places);
        }
        self.view.check()?;
        // A tree can be deeper than the stack: this is a loop and not a recursion.
        let mut old = vec![self];
        let mut places = loop {
            let Some((parent, _)) = &old[old.len() - 1].parent else {
                break old[old.len() - 1].see(self.view.root());
            };
            match parent.fresh() {
                Some(places) => break places,
                None => old.push(parent),
            }
        };
        while let Some(directory) = old.pop() {
            let Some((_, name)) = &directory.parent else {
                continue;
            };
            let found = places.child(name).map_err(|error| error.errno())?;
            let Found::Directory(below) = found else {
                return Err(Errno::STALE);
            };
            places = directory.see(below);
        }
        Ok(places)
    }

    /// What was seen, where that is not over.
    fn fresh(&self) -> Option<Places> {
        let seen = self.seen.read().unwrap_or_else(PoisonError::into_inner);
        (!self.view.is_over(seen.1)).then(|| seen.0.clone())
    }

    fn see(&self, places: Places) -> Places {
        let mut seen = self.seen.write().unwrap_or_else(PoisonError::into_inner);
        *seen = (places.clone(), Instant::now());
        places
    }

    /// What has a name here.
    ///
    /// # Errors
    /// What the union says of the name; `ENOENT` where there is nothing; `ESTALE` where there was a
    /// directory that nobody was to remove.
    pub fn child(self: &Arc<Self>, places: &Places, name: &[u8]) -> Result<Child, Errno> {
        let known = self.known(name);
        if let Some(directory) = known.as_ref().and_then(|known| known.directory.upgrade()) {
            Directory::is_there(&directory.places()?)?;
            return Ok(Child::Directory(directory));
        }
        let found = places.child(name).map_err(|error| error.errno())?;
        match (found, known) {
            (Found::Refused(errno), _) => Err(errno),
            (Found::Directory(places), known) => {
                let branches: Vec<_> = places.branches().collect();
                if known.is_some_and(|known| known.branches != branches) {
                    return Err(Errno::STALE);
                }
                let directory = Arc::new(Directory::below(self, name, places));
                if !self.view.is_writable() {
                    let known = Known {
                        branches,
                        directory: Arc::downgrade(&directory),
                    };
                    let mut below = self.below.lock().unwrap_or_else(PoisonError::into_inner);
                    below.insert(name.into(), known);
                }
                Ok(Child::Directory(directory))
            }
            (_, Some(_)) => Err(Errno::STALE),
            (Found::Nothing, None) => {
                Directory::is_there(places)?;
                Err(Errno::NOENT)
            }
            (Found::Leaf(mut found), None) => {
                let stat = found.stat.take();
                let leaf = Leaf {
                    directory: Arc::clone(self),
                    found,
                    identity: OnceLock::new(),
                };
                Ok(Child::Leaf(Arc::new(leaf), stat))
            }
        }
    }

    /// What `lstat` says of it. One that is merged of several says that it has one name: how many
    /// directories are in it is not counted, as an overlay has it.
    ///
    /// # Errors
    /// What the system call says.
    pub fn stat(&self) -> Result<Stat, Errno> {
        let places = self.places()?;
        Directory::is_there(&places)?;
        let node = places.shown();
        let stat = node.stat_self().map_err(|error| error.errno())?;
        let is_merged = node.branches().nth(1).is_some();
        Ok(Stat {
            nlink: if is_merged { 1 } else { stat.nlink },
            ..stat
        })
    }

    /// The space of the file system of its topmost branch.
    ///
    /// # Errors
    /// What the system call says.
    pub fn space(&self) -> Result<rustix::fs::StatVfs, Errno> {
        let places = self.places()?;
        let node = places.shown();
        let top = node.branches().next().and_then(|branch| node.dir(branch));
        top.ok_or(Errno::STALE)?.space()
    }

    /// What tells it from other directories of the view: its lowest part, since branches above may get
    /// their own any time.
    ///
    /// # Errors
    /// What the system call says.
    pub fn identity(&self) -> Result<(u64, u64), Errno> {
        let places = self.places()?;
        let node = places.shown();
        let lowest = node.branches().last().and_then(|branch| node.dir(branch));
        let stat = lowest.ok_or(Errno::STALE)?.stat_self()?;
        Ok(stat.identity())
    }
}

impl Drop for Directory {
    /// A tree can be deeper than the stack: the chain of parents is dropped in a loop.
    fn drop(&mut self) {
        let mut next = self.parent.take();
        while let Some((parent, _)) = next {
            match Arc::into_inner(parent) {
                Some(mut directory) => next = directory.parent.take(),
                None => break,
            }
        }
    }
}

/// What has a name in a directory.
pub enum Child {
    Directory(Arc<Directory>),
    /// With what its branch was heard to say of it just now.
    Leaf(Arc<Leaf>, Option<Stat>),
}

/// Anything else of a view.
pub struct Leaf {
    directory: Arc<Directory>,
    pub found: FoundLeaf,
    /// Device and inode, when it was first looked at: another one may get its name.
    identity: OnceLock<(u64, u64)>,
}

impl Leaf {
    pub fn view(&self) -> &Arc<View> {
        &self.directory.view
    }

    /// The place that has it.
    pub fn node(&self) -> Result<Arc<Node<'static>>, Errno> {
        let places = self.directory.places()?;
        places.of(self.found.view).cloned().ok_or(Errno::STALE)
    }

    /// What `lstat` says of it.
    ///
    /// # Errors
    /// `ESTALE` where nothing or something else has its name by now; what the system call says.
    pub fn stat(&self) -> Result<Stat, Errno> {
        self.stat_of(None)
    }

    /// The same, where its branch's own answer is known.
    ///
    /// # Errors
    /// As [`Leaf::stat`].
    pub fn stat_of(&self, known: Option<Stat>) -> Result<Stat, Errno> {
        let stat = self
            .node()?
            .stat_of(self.found.from, &self.found.name, known);
        self.same(stat.map_err(|error| stale(&error))?)
    }

    fn same(&self, stat: Stat) -> Result<Stat, Errno> {
        let first = self.identity.get_or_init(|| stat.identity());
        let is_same = *first == stat.identity() && stat.kind == self.found.kind;
        if is_same { Ok(stat) } else { Err(Errno::STALE) }
    }

    /// Whether nobody can write to the branch that it is in, nor to the one that has its content.
    pub fn is_of_layer(&self) -> bool {
        let branches = &self.view().stack.branches;
        let data = self.found.data.as_ref().map(|data| data.branch);
        let mut in_branches = [Some(self.found.from), data].into_iter().flatten();
        in_branches.all(|at| !branches[at].permission.is_writable())
    }

    /// Opens it, if it is a regular file.
    ///
    /// # Errors
    /// What the system calls say; `EIO` for content that no branch has.
    pub fn open(&self) -> Result<OpenVersion, Errno> {
        let found = &self.found;
        let data = found.data.as_deref();
        let version = self
            .node()?
            .open_version((found.from, found.kind), &found.name, data);
        let version = version.map_err(|error| stale(&error))?;
        self.same(version.stat)?;
        Ok(version)
    }

    /// Where a symbolic link leads.
    ///
    /// # Errors
    /// What the system call says.
    pub fn read_link(&self) -> Result<Vec<u8>, Errno> {
        self.entry(|dir, name| dir.read_link(name))
    }

    /// Asks the branch for it by its name.
    pub fn entry<T>(&self, ask: impl FnOnce(&Dir, &[u8]) -> Result<T, Errno>) -> Result<T, Errno> {
        let node = self.node()?;
        let dir = node.dir(self.found.from).ok_or(Errno::STALE)?;
        match ask(dir, &self.found.name) {
            Err(Errno::NOENT) => Err(Errno::STALE),
            answer => answer,
        }
    }
}

/// An error of something that was there when it was looked for.
fn stale(error: &Error) -> Errno {
    match error.errno() {
        Errno::NOENT => Errno::STALE,
        errno => errno,
    }
}
