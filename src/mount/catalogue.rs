//! All containers and images of a host as directories: `ENGINE/containers/NAME`,
//! `ENGINE/images/REPOSITORY/TAG`.
//!
//! What there is is looked for again when a second is over; a union is opened when somebody enters
//! it, and not before.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use rustix::io::Errno;

use super::directory::Directory;
use super::places::Shows;
use super::view::{FRESH, View};
use crate::bytes::Bytes;
use crate::engine::{ENGINES, Roots, Survey};
use crate::error::{Error, Result};
use crate::host::Host;
use crate::target::{self, Base};
use crate::union::Stack;

/// The longest name of a directory, in bytes.
const NAME_MAX: usize = 255;
/// As docker has it, where there is no name.
const NONE: &str = "<none>";

/// Where the unions of a host are found, by whatever thread: what a survey has at hand is one
/// thread's.
pub struct Finder {
    /// The root of the host.
    pub root: PathBuf,
    pub roots: Roots,
    pub base: Base,
    /// Device and inode of the directory that all is mounted on, and of those that it is in.
    pub above: Vec<(u64, u64)>,
    pub shows: Shows,
}

/// A union that can be entered.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Known {
    /// What it is called, as a TARGET.
    target: Bytes,
    /// The engine's id: another one may get its name.
    id: String,
}

/// What has a name: a union, or more names.
enum Shelf {
    Union(Known),
    Names(BTreeMap<Vec<u8>, Shelf>),
}

/// All unions of a host.
pub struct Catalogue {
    finder: Finder,
    shelves: Mutex<Option<(Arc<Shelf>, Instant)>>,
    opened: Mutex<HashMap<Known, Arc<Directory>>>,
    /// The number of the next view.
    next: AtomicU32,
}

/// A directory of the catalogue.
pub struct Room {
    catalogue: Arc<Catalogue>,
    /// From the root on.
    pub path: Vec<Vec<u8>>,
}

/// What a name means in the catalogue.
pub enum Entered {
    Names,
    Union,
}

impl Finder {
    /// Does something with what is known of the host now.
    fn ask<T>(&self, ask: impl FnOnce(&mut Survey<'_>) -> Result<T>) -> Result<T> {
        let host = Host::open(&self.root)?;
        let mut survey = Survey::new(&host, ENGINES, self.roots.clone());
        survey.look_everywhere();
        ask(&mut survey)
    }

    /// What there is.
    fn shelves(&self) -> Result<Shelf> {
        self.ask(|survey| {
            let mut all = Shelf::Names(BTreeMap::new());
            let labels = survey.labels();
            for (engine, container) in survey.containers() {
                if !engine.reads(&container) {
                    continue;
                }
                let target = labels.of_container(engine, &container).cloned();
                let target = target.unwrap_or_else(|| called(engine.name(), &container.id));
                // Without the engine's name, which is above it.
                let name = target.as_bytes().split(|&byte| byte == b':').skip(1);
                let name = name.collect::<Vec<_>>().join(&b':');
                let path = parts(&[engine.name().as_bytes(), b"containers", &name]);
                let id = container.id;
                all.put(&path, Known { target, id });
            }
            for (engine, image) in survey.images() {
                let own = labels.of_image(engine, &image).cloned();
                let own = own.unwrap_or_else(|| called(engine.name(), &image.id));
                let tags = image.names.tags.iter();
                let mut named: Vec<(String, String)> = tags.map(|tag| of_tag(tag)).collect();
                if named.is_empty() {
                    named.push((NONE.to_owned(), image.id.chars().take(12).collect()));
                }
                for (repository, tag) in named {
                    let repository = match &image.namespace {
                        Some(namespace) => format!("{namespace}/{repository}"),
                        None => repository,
                    };
                    let path = [engine.name(), "images", &repository, &tag];
                    let path = parts(&path.map(str::as_bytes));
                    let (target, id) = (own.clone(), image.id.clone());
                    all.put(&path, Known { target, id });
                }
            }
            Ok(all)
        })
    }

    /// Opens a union.
    fn open(&self, known: &Known) -> Result<Stack> {
        self.ask(|survey| {
            let target = target::find(survey, known.target.as_bytes(), &self.base)?;
            let stack = target.union.open(survey);
            if let Some(lost) = stack.lost().next() {
                return Err(lost);
            }
            let mut dirs = stack.branches.iter().filter_map(|of| of.dir.as_ref().ok());
            let is_above = dirs.any(|dir| {
                let stat = dir.stat_self();
                stat.is_ok_and(|stat| self.above.contains(&stat.identity()))
            });
            if is_above {
                // Whoever looked at the branch would look at this very mount.
                return Err(Error::io(known.target.clone(), Errno::LOOP));
            }
            Ok(stack)
        })
    }
}

fn called(engine: &str, id: &str) -> Bytes {
    Bytes::from(format!("{engine}:{id}"))
}

/// The repository and the tag of `repository:tag`. A port has slashes behind it.
fn of_tag(name: &str) -> (String, String) {
    match name.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')) {
        Some((repository, tag)) => (repository.to_owned(), tag.to_owned()),
        None => (name.to_owned(), NONE.to_owned()),
    }
}

/// The names of directories on a way. Names are an engine's records, which anybody may have written.
fn parts(way: &[&[u8]]) -> Vec<Vec<u8>> {
    let parts = way.iter().flat_map(|part| part.split(|&byte| byte == b'/'));
    let parts = parts.filter(|part| !part.is_empty()).map(|part| {
        let part = &part[part.len().saturating_sub(NAME_MAX)..];
        let part = part.iter().map(|&byte| if byte == 0 { b'_' } else { byte });
        match part.collect::<Vec<u8>>() {
            dots if dots == b"." || dots == b".." => b"_".to_vec(),
            part => part,
        }
    });
    parts.collect()
}

impl Shelf {
    /// Puts a union under a path. Where a union has a part of the path already, what is left of it is
    /// one name beside that, with colons; the first that has a name keeps it.
    fn put(&mut self, path: &[Vec<u8>], known: Known) {
        let Shelf::Names(names) = self else {
            return;
        };
        match path {
            [] => {}
            [last] => match names.get(last) {
                None => {
                    names.insert(last.clone(), Shelf::Union(known));
                }
                Some(Shelf::Union(other)) if *other == known => {}
                Some(_) => {
                    let mut name = last.clone();
                    name.push(b':');
                    name.extend(known.id.bytes().take(12));
                    names.entry(name).or_insert(Shelf::Union(known));
                }
            },
            [first, rest @ ..] => {
                if let Some(Shelf::Union(_)) = names.get(first) {
                    let name = path.join(&b':');
                    return self.put(&[name], known);
                }
                let below = names.entry(first.clone());
                let below = below.or_insert_with(|| Shelf::Names(BTreeMap::new()));
                below.put(rest, known);
            }
        }
    }

    fn at(&self, path: &[Vec<u8>]) -> Option<&Shelf> {
        path.iter().try_fold(self, |shelf, name| match shelf {
            Shelf::Names(names) => names.get(name),
            Shelf::Union(_) => None,
        })
    }
}

impl Catalogue {
    pub fn new(finder: Finder) -> Catalogue {
        Catalogue {
            finder,
            shelves: Mutex::default(),
            opened: Mutex::default(),
            next: AtomicU32::new(0),
        }
    }

    /// What there is, looked for less than a second ago.
    fn shelves(&self) -> Result<Arc<Shelf>, Errno> {
        let mut kept = self.shelves.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((shelves, when)) = kept.as_ref()
            && when.elapsed() < FRESH
        {
            return Ok(Arc::clone(shelves));
        }
        let found = self.finder.shelves();
        let found = Arc::new(found.map_err(|error| error.errno())?);
        *kept = Some((Arc::clone(&found), Instant::now()));
        Ok(found)
    }

    /// The root of a union that is entered.
    fn open(&self, known: &Known) -> Result<Arc<Directory>, Errno> {
        // One after the other: who enters the same waits for it.
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(root) = opened.get(known) {
            return Ok(Arc::clone(root));
        }
        let stack = self.finder.open(known).map_err(|error| error.errno())?;
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let view = View::new(stack, self.finder.shows, number);
        let root = Arc::new(Directory::root(Arc::new(view)));
        opened.insert(known.clone(), Arc::clone(&root));
        Ok(root)
    }
}

impl Room {
    /// The whole catalogue.
    pub fn root(catalogue: Catalogue) -> Room {
        Room {
            catalogue: Arc::new(catalogue),
            path: Vec::new(),
        }
    }

    /// The room, or the union, with a name.
    ///
    /// # Errors
    /// `ENOENT` where there is none; what could not be read.
    pub fn child(&self, name: &[u8]) -> Result<Room, Errno> {
        let path: Vec<Vec<u8>> = self.path.iter().cloned().chain([name.to_vec()]).collect();
        let shelves = self.catalogue.shelves()?;
        shelves.at(&path).ok_or(Errno::NOENT)?;
        Ok(Room {
            catalogue: Arc::clone(&self.catalogue),
            path,
        })
    }

    /// What is here, as it is now.
    ///
    /// # Errors
    /// `ESTALE` where nothing is any more; what could not be read.
    pub fn what(&self) -> Result<Entered, Errno> {
        let shelves = self.catalogue.shelves()?;
        match shelves.at(&self.path) {
            _ if self.path.is_empty() => Ok(Entered::Names),
            None => Err(Errno::STALE),
            Some(Shelf::Names(_)) => Ok(Entered::Names),
            Some(Shelf::Union(_)) => Ok(Entered::Union),
        }
    }

    /// The names that are here.
    ///
    /// # Errors
    /// `ESTALE` where nothing is any more; what could not be read.
    pub fn names(&self) -> Result<Vec<Vec<u8>>, Errno> {
        let shelves = self.catalogue.shelves()?;
        match shelves.at(&self.path) {
            Some(Shelf::Names(names)) => Ok(names.keys().cloned().collect()),
            Some(Shelf::Union(_)) => Err(Errno::NOTDIR),
            None => Err(Errno::STALE),
        }
    }

    /// Enters the union that is here.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn enter(&self) -> Result<Arc<Directory>, Errno> {
        let shelves = self.catalogue.shelves()?;
        match shelves.at(&self.path) {
            Some(Shelf::Union(known)) => self.catalogue.open(known),
            Some(Shelf::Names(_)) => Err(Errno::NOTDIR),
            None => Err(Errno::STALE),
        }
    }

    /// The union that is here, where somebody has entered it.
    pub fn entered(&self) -> Option<Arc<Directory>> {
        let shelves = self.catalogue.shelves().ok()?;
        let Some(Shelf::Union(known)) = shelves.at(&self.path) else {
            return None;
        };
        let opened = self.catalogue.opened.lock();
        let opened = opened.unwrap_or_else(PoisonError::into_inner);
        opened.get(known).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(id: &str) -> Known {
        Known {
            target: Bytes::from(id),
            id: id.to_owned(),
        }
    }

    #[test]
    fn a_union_and_names_can_have_one_name() {
        let mut all = Shelf::Names(BTreeMap::new());
        for (way, id) in [
            ("a/b", "1"),
            ("a/b/c", "2"),
            ("d/e/f", "3"),
            ("d/e", "4"),
            ("a/b", "5"),
            ("a/b", "1"),
        ] {
            all.put(&parts(&[way.as_bytes()]), known(id));
        }
        for (way, id) in [
            ("a/b", "1"),
            ("a/b:c", "2"),
            ("d/e/f", "3"),
            ("d/e:4", "4"),
            ("a/b:5", "5"),
        ] {
            let found = all.at(&parts(&[way.as_bytes()]));
            let Some(Shelf::Union(found)) = found else {
                panic!("{way} is no union");
            };
            assert_eq!(found.id, id, "{way}");
        }
    }

    #[test]
    fn no_name_leads_elsewhere() {
        let long = "x".repeat(300);
        let way = format!("../a/./{long}//b\0c");
        let parts = parts(&[way.as_bytes()]);
        let long = "x".repeat(255);
        let expected: [&[u8]; 5] = [b"_", b"a", b"_", long.as_bytes(), b"b_c"];
        assert_eq!(parts, expected);
    }

    #[test]
    fn a_port_is_no_tag() {
        for (name, repository, tag) in [
            ("nginx:1.27", "nginx", "1.27"),
            ("host:5000/a/b:latest", "host:5000/a/b", "latest"),
            ("host:5000/a", "host:5000/a", NONE),
        ] {
            assert_eq!(of_tag(name), (repository.to_owned(), tag.to_owned()));
        }
    }
}
