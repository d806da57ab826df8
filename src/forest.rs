//! Many stacks, walked at once: what their branches share is read once.
//!
//! At every place the stacks that merge the same directories are one class. A class whose directories
//! end with those of another stands on it, and only what its own directories list is asked anew:
//!
//! ```text
//! web    [ up1 | l3 l2 l1 ]      stands on image A: up1 alone is listed
//! db     [ up2 | l3 l2 l1 ]      the same with up2
//! A            [ l3 | l2 l1 ]    stands on what A and B share, be that nobody's stack
//! B            [ m3 | l2 l1 ]
//!                   [ l2 l1 ]    stands on nothing: all of it is listed
//! ```
//!
//! What a name means is for [`Node::child`] to say, for each class that lists it.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::iter::Peekable;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::vec::IntoIter;

use rustix::io::Errno;
use serde::Serialize;

use crate::bytes::Bytes;
use crate::difference::{ListedNames, listed_by};
use crate::dir::Kind;
use crate::error::{Error, Result, errno_name};
use crate::union::{DataAt, Entry, Node, Reading, Stack};
use crate::walk::{Found, Rest, Rows, walk_all};

/// Whether a stack shows a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "VersionState")]
pub enum State {
    Visible,
    Shadowed,
    Deleted,
}

impl State {
    pub fn word(self) -> &'static str {
        match self {
            State::Visible => "visible",
            State::Shadowed => "shadowed",
            State::Deleted => "deleted",
        }
    }
}

/// What is looked for.
pub struct Wanted<'w> {
    /// Versions that stacks do not show, too.
    pub hidden: bool,
    /// How deep directories are looked into: 1 is the root's own names.
    pub depth_max: usize,
    /// Whether a name that is no directory is worth a look.
    pub name: &'w (dyn Fn(&[u8]) -> bool + Sync),
}

/// A version that was seen, and whose it is.
pub struct Sight<'d, 's> {
    pub state: State,
    /// The directory that has it, in the view of one of the stacks.
    pub place: &'d Node<'s>,
    pub name: &'d [u8],
    /// The branch of that stack that provides it.
    pub branch: usize,
    pub kind: Kind,
    pub data: Option<&'d DataAt>,
    /// The numbers of the stacks that have it so, in order.
    pub stacks: &'d [usize],
}

impl Sight<'_, '_> {
    pub fn path(&self) -> Bytes {
        self.place.path_of(self.name)
    }
}

/// Stacks that merge the same directories at a place.
struct Class<'s> {
    node: Node<'s>,
    /// The stacks themselves.
    own: Vec<usize>,
    /// Those and all that stand on them.
    all: Arc<Vec<usize>>,
    /// What this stands on.
    base: Option<usize>,
    /// How many of the directories are not those of the base.
    own_parts: usize,
    /// What is seen here, if the stacks do not show it: the state, and what they show at this place.
    unseen: Option<(State, Option<Node<'s>>)>,
}

/// A place of all stacks that have it.
struct Level<'s> {
    classes: Vec<Class<'s>>,
    depth: usize,
}

/// The classes that list a name, and whether it may be a directory.
type Listed = (Vec<usize>, bool);

/// Names in order, each once, with the classes that list it. A directory may have a million: who lists
/// a name is put together when it is its turn.
struct ByName(Peekable<IntoIter<(Vec<u8>, usize, bool)>>);

impl ByName {
    fn new(mut names: Vec<(Vec<u8>, usize, bool)>) -> ByName {
        names.sort_unstable();
        ByName(names.into_iter().peekable())
    }
}

impl Iterator for ByName {
    type Item = (Vec<u8>, Listed);

    fn next(&mut self) -> Option<Self::Item> {
        let (name, number, mut may_be_directory) = self.0.next()?;
        let mut who = vec![number];
        while let Some((_, number, may_be)) = self.0.next_if(|(other, ..)| *other == name) {
            if who.last() != Some(&number) {
                who.push(number);
            }
            may_be_directory |= may_be;
        }
        Some((name, (who, may_be_directory)))
    }
}

/// What is still to be visited.
enum Place<'s> {
    Root,
    Name(Arc<Level<'s>>, Vec<u8>, Vec<usize>),
    Rest(Box<Rest<Arc<Level<'s>>, Listed>>),
}

/// Walks all stacks. `row` is told of each version, and of what cannot be read; it is called by
/// several threads at once. `give` gets what it put into rows in the order of the paths.
pub fn walk<'s, B: Rows>(
    stacks: &'s [Stack],
    wanted: &Wanted<'_>,
    threads: NonZeroUsize,
    row: &(impl Fn(Result<Sight<'_, '_>>, &mut B) + Sync),
    give: impl FnMut(B) -> ControlFlow<()>,
) -> ControlFlow<()> {
    let forest = Forest { wanted, row };
    let visit = |place: Place<'s>, found: &mut Found<'_, Place<'s>, B>| match place {
        Place::Root => {
            let classes = stacks.iter().enumerate().map(|(number, stack)| {
                Class::of(stack.whole(Reading::Nothing), vec![number], None)
            });
            forest.level(classes.collect(), 1, found);
        }
        Place::Name(level, name, who) => forest.name(&level, &name, &who, true, found),
        Place::Rest(rest) => {
            let visit = |level: &Arc<Level<'s>>, name: Vec<u8>, (who, may_be), found: &mut _| {
                forest.listed(level, name, who, may_be, found);
            };
            found.each_of_rest(rest, visit, Place::Rest);
        }
    };
    walk_all(threads, Place::Root, &visit, give)
}

impl<'s> Class<'s> {
    fn of(node: Node<'s>, own: Vec<usize>, unseen: Option<(State, Option<Node<'s>>)>) -> Class<'s> {
        Class {
            own_parts: node.branches().count(),
            all: Arc::new(own.clone()),
            node,
            own,
            base: None,
            unseen,
        }
    }
}

struct Forest<'f, V> {
    wanted: &'f Wanted<'f>,
    row: &'f V,
}

impl<V> Forest<'_, V> {
    /// Looks at all that is in a place.
    fn level<'s, B: Rows>(
        &self,
        classes: Vec<Class<'s>>,
        depth: usize,
        found: &mut Found<'_, Place<'s>, B>,
    ) where
        V: Fn(Result<Sight<'_, '_>>, &mut B),
    {
        let mut classes = match related(classes) {
            Ok(classes) => classes,
            Err((classes, error)) => {
                (self.row)(Err(error), found.rows());
                classes
            }
        };
        let is_wanted =
            |name: &[u8], may_be_directory| may_be_directory || (self.wanted.name)(name);
        let mut names = Vec::new();
        for (number, class) in classes.iter_mut().enumerate() {
            match class.names(&is_wanted) {
                Ok(listed) => {
                    let listed = listed.into_iter();
                    names.extend(listed.map(|(name, may_be)| (name, number, may_be)));
                }
                Err(error) => (self.row)(Err(error), found.rows()),
            }
        }
        let level = Arc::new(Level { classes, depth });
        let mut names = ByName::new(names);
        found.each(&mut names, |(name, (who, may_be)), found| {
            self.listed(&level, name, who, may_be, found);
        });
        found.rest(Arc::clone(&level), names, Place::Rest);
    }

    fn listed<'s, B: Rows>(
        &self,
        level: &Arc<Level<'s>>,
        name: Vec<u8>,
        who: Vec<usize>,
        may_be_directory: bool,
        found: &mut Found<'_, Place<'s>, B>,
    ) where
        V: Fn(Result<Sight<'_, '_>>, &mut B),
    {
        if may_be_directory {
            found.directory(Place::Name(Arc::clone(level), name, who));
        } else {
            self.name(level, &name, &who, false, found);
        }
    }

    /// What a name means to each class that has something to say of it.
    fn name<'s, B: Rows>(
        &self,
        level: &Arc<Level<'s>>,
        name: &[u8],
        who: &[usize],
        is_by_itself: bool,
        found: &mut Found<'_, Place<'s>, B>,
    ) where
        V: Fn(Result<Sight<'_, '_>>, &mut B),
    {
        let mut below = Vec::new();
        let mut leads_on = false;
        for &number in who {
            let class = &level.classes[number];
            let stacks = level.stacks_of(number, who);
            if stacks.is_empty() {
                continue;
            }
            let entry = match class.node.child(name) {
                Ok(Entry::Broken { errno, .. }) if errno_name(errno) != "ENOENT" => {
                    let error = Error::io(class.node.path_of(name), errno);
                    (self.row)(Err(error), found.rows());
                    continue;
                }
                Ok(entry) => entry,
                Err(error) => {
                    (self.row)(Err(error), found.rows());
                    continue;
                }
            };
            if !is_by_itself && matches!(entry, Entry::Dir(_)) {
                leads_on = true;
                break;
            }
            let state = match class.state_of(name) {
                Ok(state) => state,
                Err(error) => {
                    (self.row)(Err(error), found.rows());
                    continue;
                }
            };
            self.tell(&class.node, name, &entry, (state, &stacks), found);
            if self.wanted.hidden {
                let unseen = class.unseen.is_some().then_some(state);
                let of = (unseen, &stacks[..]);
                let looked = self.hidden(class, name, &entry, of, &mut below, found);
                if let Err(error) = looked {
                    (self.row)(Err(error), found.rows());
                }
            }
            if let Entry::Dir(node) = entry {
                let unseen = class.unseen.as_ref().map(|(state, shown)| {
                    let shown = shown.as_ref().and_then(|shown| shown.child(name).ok());
                    let shown = shown.and_then(|entry| match entry {
                        Entry::Dir(node) => Some(node),
                        _ => None,
                    });
                    (*state, shown)
                });
                below.push(Class::of(node, stacks, unseen));
            }
        }
        if leads_on {
            // A whiteout's name may be a directory's below.
            found.directory(Place::Name(Arc::clone(level), name.to_vec(), who.to_vec()));
            return;
        }
        if level.depth < self.wanted.depth_max && !below.is_empty() {
            self.level(below, level.depth + 1, found);
        }
    }

    fn tell<'s, B: Rows>(
        &self,
        place: &Node<'s>,
        name: &[u8],
        entry: &Entry<'s>,
        (state, stacks): (State, &[usize]),
        found: &mut Found<'_, Place<'s>, B>,
    ) where
        V: Fn(Result<Sight<'_, '_>>, &mut B),
    {
        let (Some(branch), Some(kind)) = (entry.provider(), entry.kind()) else {
            return;
        };
        let data = entry.data();
        let sight = Sight {
            state,
            place,
            name,
            branch,
            kind,
            data,
            stacks,
        };
        (self.row)(Ok(sight), found.rows());
    }

    /// The versions that the stacks of a class have and do not show.
    fn hidden<'s, B: Rows>(
        &self,
        class: &Class<'s>,
        name: &[u8],
        entry: &Entry<'s>,
        (unseen, stacks): (Option<State>, &[usize]),
        below: &mut Vec<Class<'s>>,
        found: &mut Found<'_, Place<'s>, B>,
    ) -> Result<()>
    where
        V: Fn(Result<Sight<'_, '_>>, &mut B),
    {
        let state = match (unseen, entry.kind()) {
            (Some(state), _) => state,
            (None, Some(_)) => State::Shadowed,
            (None, None) => State::Deleted,
        };
        let mut above = match entry {
            Entry::Leaf { from, .. } => Some(*from),
            Entry::Dir(node) => node.branches().last(),
            Entry::Deleted { by } => Some(by.branch),
            Entry::Missing | Entry::Broken { .. } => None,
        };
        if let Entry::Dir(merged) = entry {
            self.skipped(&class.node, merged, name, (state, stacks), found)?;
        }
        while let Some(last) = above {
            let rest = class.node.narrowed(|branch| branch > last);
            if rest.branches().next().is_none() {
                break;
            }
            let version = rest.child(name)?;
            above = match &version {
                Entry::Leaf { from, .. } => Some(*from),
                Entry::Dir(node) => node.branches().last(),
                Entry::Deleted { by } => Some(by.branch),
                Entry::Missing | Entry::Broken { .. } => None,
            };
            self.tell(&rest, name, &version, (state, stacks), found);
            if let Entry::Dir(node) = version {
                self.skipped(&rest, &node, name, (state, stacks), found)?;
                let shown = match entry {
                    Entry::Dir(shown) => Some(shown.clone()),
                    _ => None,
                };
                // What is below a directory that nothing shows was deleted with it.
                let state = if shown.is_some() {
                    State::Deleted
                } else {
                    state
                };
                below.push(Class::of(node, stacks.to_vec(), Some((state, shown))));
            }
        }
        Ok(())
    }

    /// What is no directory between directories that are merged.
    fn skipped<'s, B: Rows>(
        &self,
        place: &Node<'s>,
        merged: &Node<'s>,
        name: &[u8],
        (state, stacks): (State, &[usize]),
        found: &mut Found<'_, Place<'s>, B>,
    ) -> Result<()>
    where
        V: Fn(Result<Sight<'_, '_>>, &mut B),
    {
        let (Some(first), Some(last)) = (merged.provider(), merged.branches().last()) else {
            return Ok(());
        };
        let between = |branch: &usize| *branch > first && *branch < last;
        let is_skipped = |branch: &usize| between(branch) && merged.dir(*branch).is_none();
        for branch in place.branches().filter(is_skipped) {
            let alone = place.narrowed(|of| of == branch);
            let version = alone.child(name)?;
            if let Entry::Leaf { .. } = version {
                self.tell(&alone, name, &version, (state, stacks), found);
            }
        }
        Ok(())
    }
}

impl<'s> Class<'s> {
    /// The names that this class has something to say of, as far as they are wanted.
    fn names(&mut self, is_wanted: &impl Fn(&[u8], bool) -> bool) -> Result<ListedNames> {
        let mut names = Vec::new();
        if self.base.is_none() {
            self.node = self.node.clone().read();
            let listed = self.node.names()?;
            let wanted = listed
                .iter()
                .filter(|of| is_wanted(of.name, of.could_be_directory));
            names.extend(wanted.map(|of| (of.name.to_vec(), of.could_be_directory)));
            return Ok(names);
        }
        for branch in self.node.branches().take(self.own_parts) {
            listed_by(&self.node, branch, &mut names)?;
        }
        self.node = self.node.clone().read_for(names.len());
        names.retain(|(name, may_be_directory)| is_wanted(name, *may_be_directory));
        Ok(names)
    }

    /// Whether the stacks show what is seen here under a name.
    fn state_of(&self, name: &[u8]) -> Result<State> {
        Ok(match &self.unseen {
            None => State::Visible,
            Some((_, Some(shown))) if shown.child(name)?.kind().is_some() => State::Shadowed,
            Some((state, _)) => *state,
        })
    }
}

impl Level<'_> {
    /// The stacks that see a name as a class does: all that stand on it, but for those that stand on
    /// others which have a word of their own.
    fn stacks_of(&self, number: usize, who: &[usize]) -> Vec<usize> {
        let class = &self.classes[number];
        let stands_on = |mut of: usize| {
            while let Some(base) = self.classes[of].base {
                if base == number {
                    return true;
                }
                of = base;
            }
            false
        };
        let others: Vec<usize> = who
            .iter()
            .filter(|&&other| other != number && stands_on(other))
            .flat_map(|&other| self.classes[other].all.iter().copied())
            .collect();
        if others.is_empty() {
            return class.all.to_vec();
        }
        let others: std::collections::HashSet<usize> = others.into_iter().collect();
        let stacks = class.all.iter().copied();
        stacks.filter(|stack| !others.contains(stack)).collect()
    }
}

/// A directory that is merged somewhere, and how it is read.
type Part = ((u64, u64), u64);

/// Finds out which classes merge the same, and which stand on which. Where that cannot be told, each
/// is looked at alone.
fn related(classes: Vec<Class<'_>>) -> Result<Vec<Class<'_>>, (Vec<Class<'_>>, Error)> {
    if classes.len() < 2 {
        return Ok(classes);
    }
    let parts: Result<Vec<Vec<Part>>> = classes.iter().map(|class| parts(&class.node)).collect();
    let parts = match parts {
        Ok(parts) => parts,
        Err(error) => return Err((classes, error)),
    };
    let (mut kept, mut known): (Vec<Class<'_>>, Vec<Vec<Part>>) = (Vec::new(), Vec::new());
    let mut unseen = Vec::new();
    let mut whole: HashMap<Vec<Part>, usize> = HashMap::new();
    for (class, parts) in classes.into_iter().zip(parts) {
        if class.unseen.is_some() {
            unseen.push(class);
        } else if let Some(&same) = whole.get(&parts) {
            kept[same].own.extend(class.own);
        } else {
            whole.insert(parts.clone(), kept.len());
            known.push(parts);
            kept.push(class);
        }
    }
    // How many classes end with the same directories.
    let mut counts: HashMap<u64, usize> = HashMap::new();
    for parts in &known {
        for end in ends(parts) {
            *counts.entry(end).or_default() += 1;
        }
    }
    let mut number = 0;
    while number < kept.len() {
        let parts = known[number].clone();
        let ends = ends(&parts);
        let count = |end: &u64| counts.get(end).copied().unwrap_or(0);
        let own = count(&ends[0]);
        // The longest end that others have, too, who do not have all of it.
        let base = (1..parts.len()).find(|&from| count(&ends[from]) > own);
        if let Some(from) = base {
            let rest = parts[from..].to_vec();
            let base = match whole.get(&rest) {
                Some(&base) => base,
                None => {
                    let first = kept[number].node.branches().nth(from);
                    let node = kept[number].node.narrowed(|branch| Some(branch) >= first);
                    whole.insert(rest.clone(), kept.len());
                    known.push(rest);
                    kept.push(Class::of(node, Vec::new(), None));
                    kept.len() - 1
                }
            };
            kept[number].base = Some(base);
            kept[number].own_parts = from;
        }
        number += 1;
    }
    gather(&mut kept);
    // What is listed first is the base's, so that a name's stacks come in order.
    kept.extend(unseen);
    Ok(kept)
}

/// Tells each class who stands on it.
fn gather(classes: &mut [Class<'_>]) {
    let mut all: Vec<Vec<usize>> = classes.iter().map(|class| class.own.clone()).collect();
    for number in 0..classes.len() {
        let mut base = classes[number].base;
        while let Some(on) = base {
            let own = classes[number].own.clone();
            all[on].extend(own);
            base = classes[on].base;
        }
    }
    for (class, mut all) in classes.iter_mut().zip(all) {
        all.sort_unstable();
        all.dedup();
        class.all = Arc::new(all);
    }
}

/// A number for each end of a list, from the whole on.
fn ends(parts: &[Part]) -> Vec<u64> {
    let mut ends = vec![0; parts.len() + 1];
    for at in (0..parts.len()).rev() {
        let mut hasher = DefaultHasher::new();
        (parts[at], ends[at + 1]).hash(&mut hasher);
        ends[at] = hasher.finish();
    }
    ends
}

/// The directories that are merged at a place.
fn parts(node: &Node<'_>) -> Result<Vec<Part>> {
    let stack = node.stack();
    let mut parts = Vec::new();
    for branch in node.branches() {
        let fail = |errno| Error::io(node.on_host(branch, b""), errno);
        let dir = node.dir(branch).ok_or_else(|| fail(Errno::NOENT))?;
        let identity = dir.stat_self().map_err(fail)?.identity();
        let of = &stack.branches[branch];
        let mut hasher = DefaultHasher::new();
        format!("{:?} {:?} {:?}", of.grammar, of.owners, of.overrides).hash(&mut hasher);
        parts.push((identity, hasher.finish()));
    }
    Ok(parts)
}
