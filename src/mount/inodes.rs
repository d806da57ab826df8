//! The numbers by which the kernel knows what it was told of.
//!
//! A number is what it would be in an overlay ([`View::number_of`]), so that it is the same whenever
//! something is looked for again. Where something else has it, as a layer can be made to have it, the
//! next that is free is taken.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Mutex, PoisonError};

use rustix::io::Errno;

use super::item::{Item, NOTHING};
use super::view::{View, mixed};
use crate::dir::Stat;
use crate::union::DataAt;

/// The root's number.
pub const ROOT: u64 = 1;

/// What the kernel was told of and has not forgotten.
pub struct Inodes(Mutex<HashMap<u64, Slot>>);

struct Slot {
    key: Key,
    item: Item,
    /// How often the kernel was told of it.
    lookups: u64,
}

/// What makes two things one.
#[derive(PartialEq, Eq)]
pub enum Key {
    Root,
    /// Of directories only one has a name. A redirect can lead to one from two places, which are two.
    Directory {
        view: u32,
        parent: u64,
        name: Box<[u8]>,
        identity: (u64, u64),
    },
    /// Hard links are one. Names of one file of which the content is found by name are as many.
    Leaf {
        view: u32,
        identity: (u64, u64),
        data: Option<Box<DataAt>>,
    },
    /// A directory of names, or a union, by its path.
    Room(Vec<Vec<u8>>),
    Refused {
        parent: u64,
        name: Box<[u8]>,
    },
}

impl Inodes {
    pub fn new(root: Item) -> Inodes {
        let root = Slot {
            key: Key::Root,
            item: root,
            lookups: 1,
        };
        Inodes(Mutex::new(HashMap::from([(ROOT, root)])))
    }

    /// What has a number.
    ///
    /// # Errors
    /// `ESTALE` where nothing has.
    pub fn get(&self, number: u64) -> Result<Item, Errno> {
        let slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = slots.get(&number).ok_or(Errno::STALE)?;
        Ok(slot.item.clone())
    }

    /// Gives something its number, for the kernel to know it by until it forgets it.
    pub fn tell(&self, wanted: u64, key: Key, item: Item) -> u64 {
        let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Zero is nobody's.
        let mut number = wanted.max(ROOT);
        loop {
            match slots.entry(number) {
                Entry::Vacant(free) => {
                    free.insert(Slot {
                        key,
                        item,
                        lookups: 1,
                    });
                    return number;
                }
                Entry::Occupied(mut slot) if slot.get().key == key => {
                    let slot = slot.get_mut();
                    slot.item = item;
                    slot.lookups += 1;
                    return number;
                }
                Entry::Occupied(_) => number = mixed(number).max(ROOT),
            }
        }
    }

    /// The number that something would get.
    fn find(&self, wanted: u64, key: &Key) -> u64 {
        let slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut number = wanted.max(ROOT);
        while slots.get(&number).is_some_and(|slot| slot.key != *key) {
            number = mixed(number).max(ROOT);
        }
        number
    }

    /// The kernel forgets something as often as it was told of it.
    pub fn forget(&self, number: u64, times: u64) {
        let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Entry::Occupied(mut slot) = slots.entry(number) else {
            return;
        };
        slot.get_mut().lookups = slot.get().lookups.saturating_sub(times);
        let forgotten = (slot.get().lookups == 0 && number != ROOT).then(|| slot.remove());
        // What goes with it may be a whole chain of directories.
        drop(slots);
        drop(forgotten);
    }
}

/// A number for a name, the same at all times.
fn hashed(parent: u64, name: &[u8]) -> u64 {
    let add = |number, &byte: &u8| mixed(number ^ u64::from(byte));
    name.iter().fold(mixed(parent), add)
}

/// What the kernel is told of something under a name of a directory.
pub struct Told {
    pub item: Item,
    pub stat: Stat,
    key: Key,
    wanted: u64,
}

impl Told {
    /// Looks at what was found under a name; `known` is what its branch says of it, where that was
    /// heard just now.
    ///
    /// # Errors
    /// What the system calls say; the union refuses the name.
    pub fn of(
        parent: u64,
        name: &[u8],
        (item, known): (Item, Option<Stat>),
    ) -> Result<Told, Errno> {
        let (stat, key, wanted) = match &item {
            Item::Refused(errno) => return Err(*errno),
            Item::Directory(directory) => {
                let identity = directory.identity()?;
                let view = &directory.view;
                let key = Key::Directory {
                    view: view.number,
                    parent,
                    name: name.into(),
                    identity,
                };
                (directory.stat()?, key, view.number_of(identity))
            }
            Item::Room(room) => {
                let number = |number, name: &Vec<u8>| hashed(number, name);
                let wanted = room.path.iter().fold(ROOT, number);
                (item.stat()?, Key::Room(room.path.clone()), wanted)
            }
            Item::Leaf(leaf) => {
                let stat = leaf.stat_of(known)?;
                let view: &View = leaf.view();
                let key = Key::Leaf {
                    view: view.number,
                    identity: stat.identity(),
                    data: leaf.found.data.clone(),
                };
                (stat, key, view.number_of(stat.identity()))
            }
        };
        Ok(Told {
            item,
            stat,
            key,
            wanted,
        })
    }

    /// A name that is listed and refused: who asks for it is told why.
    pub fn refused(parent: u64, name: &[u8], errno: Errno) -> Told {
        Told {
            item: Item::Refused(errno),
            stat: NOTHING,
            wanted: hashed(parent, name),
            key: Key::Refused {
                parent,
                name: name.into(),
            },
        }
    }

    /// The number that it has, or would have if the kernel were told of it.
    pub fn would_be(&self, inodes: &Inodes) -> u64 {
        inodes.find(self.wanted, &self.key)
    }

    /// Gives it its number.
    pub fn number(self, inodes: &Inodes) -> u64 {
        inodes.tell(self.wanted, self.key, self.item)
    }
}
