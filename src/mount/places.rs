//! What a name means in a view, that of what marks hide among them.
//!
//! The merged view has one place under a path. What marks hide is in the views that begin further
//! down in the stack: there the marks above them are not. A view with what is hidden therefore has
//! several places under one path, the merged view's first, and asks the core of each.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

use rustix::io::Errno;
use smallvec::{SmallVec, smallvec};

use crate::dir::{Dir, Kind, Stat};
use crate::engine::oci;
use crate::error::Result;
use crate::union::{DataAt, Entry, Follow, Node, Reading, Says, Stack, lookup};

/// What a view shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shows {
    /// What the union shows.
    Merged,
    /// What its marks hide, too: under its name where that is free, else as `NAME.hidden@N`, where N
    /// is the branch that has it. A NAME that is too long for that is shortened, and ends with what
    /// tells it from all others.
    Hidden,
}

/// What is between a name and the branch in the name of something hidden.
const HIDDEN: &[u8] = b".hidden@";
/// The longest name, in bytes.
const NAME_MAX: usize = 255;
/// What is between the beginning of a name that was shortened and its digest.
const SHORTENED: u8 = b'~';
/// Digits of the digest of such a name: two that have the same cannot be made.
const DIGITS: usize = 32;

/// A place of one of the views: the number of the branch that the view begins with, and what is
/// merged there.
type Place = (usize, Arc<Node<'static>>);

/// What there is under one path: the places of the views that have a directory there, the one that is
/// shown first.
#[derive(Clone)]
pub struct Places {
    of: SmallVec<[Place; 1]>,
    /// The names here that may have to be shortened, by the digests that they then end with. They are
    /// looked for when such a name is asked for.
    long: Option<Arc<OnceLock<LongNames>>>,
}

type LongNames = BTreeMap<Vec<u8>, Vec<u8>>;

/// What a name means.
pub enum Found {
    Nothing,
    /// The union refuses the name.
    Refused(Errno),
    Directory(Places),
    Leaf(FoundLeaf),
}

/// Something that is no directory.
pub struct FoundLeaf {
    /// The view that it was found in.
    pub view: usize,
    /// The branch that provides it.
    pub from: usize,
    pub kind: Kind,
    /// Where the content is, if only the metadata is in `from`.
    pub data: Option<Box<DataAt>>,
    /// As the branch has it.
    pub name: Box<[u8]>,
    /// What `lstat` said of it in its branch, where that was asked to find it.
    pub stat: Option<Stat>,
}

impl Places {
    /// The root of a view.
    pub fn root(stack: &'static Stack, shows: Shows) -> Places {
        let views = match shows {
            Shows::Merged => 0..1,
            Shows::Hidden => 0..stack.branches.len().max(1),
        };
        let place = |from| {
            let node = stack.root(|branch| branch >= from, Reading::Nothing);
            (from, Arc::new(node))
        };
        Places::new(views.map(place).collect())
    }

    fn new(of: SmallVec<[Place; 1]>) -> Places {
        let long = (of.len() > 1).then(Arc::default);
        Places { of, long }
    }

    /// The place that is shown.
    pub fn shown(&self) -> &Node<'static> {
        &self.of[0].1
    }

    /// The place of the view that begins with a branch; none where that has no such directory any
    /// more.
    pub fn of(&self, view: usize) -> Option<&Arc<Node<'static>>> {
        let mut places = self.of.iter();
        places.find(|(from, _)| *from == view).map(|(_, node)| node)
    }

    /// The branches that are merged here, by the view that they are merged in.
    pub fn branches(&self) -> impl Iterator<Item = (usize, usize)> {
        let of = |(view, node): &Place| {
            let view = *view;
            let branches: SmallVec<[usize; 4]> = node.branches().collect();
            branches.into_iter().map(move |branch| (view, branch))
        };
        self.of.iter().flat_map(of)
    }

    /// Their directories.
    pub fn dirs(&self) -> impl Iterator<Item = &Dir> {
        let nodes = self.of.iter().map(|(_, node)| node);
        nodes.flat_map(|node| node.branches().filter_map(|branch| node.dir(branch)))
    }

    /// The same places, their directories read.
    pub fn read(&self) -> Places {
        let read = |(from, node): &Place| (*from, Arc::new(Node::clone(node).read()));
        Places::new(self.of.iter().map(read).collect())
    }

    /// What a name means here.
    ///
    /// # Errors
    /// A branch that cannot be asked.
    pub fn child(&self, name: &[u8]) -> Result<Found> {
        let (view, first) = &self.of[0];
        let entry = first.child(name)?;
        if self.of.len() == 1 {
            return Ok(match entry {
                Entry::Missing | Entry::Deleted { .. } => Found::Nothing,
                Entry::Broken { errno, .. } => Found::Refused(errno),
                Entry::Dir(node) => {
                    Found::Directory(Places::new(smallvec![(*view, Arc::new(node))]))
                }
                Entry::Leaf {
                    from,
                    kind,
                    stat,
                    data,
                } => Found::Leaf(FoundLeaf {
                    view: *view,
                    from,
                    kind,
                    data,
                    name: name.into(),
                    stat,
                }),
            });
        }
        let of_name = self.versions(name)?;
        if let Some(found) = of_name.own {
            return Ok(found);
        }
        let Some((name, branch)) = hidden_name(name) else {
            return Ok(Found::Nothing);
        };
        let mut others = self.versions(name)?.others;
        if let Some(found) = others.remove(&branch) {
            return Ok(found);
        }
        let Some(whole) = digest_in(name).map(|digest| self.long_name(digest)) else {
            return Ok(Found::Nothing);
        };
        let Some(whole) = whole?.filter(|whole| shortened(whole, branch) == name) else {
            return Ok(Found::Nothing);
        };
        let mut others = self.versions(&whole)?.others;
        Ok(others.remove(&branch).unwrap_or(Found::Nothing))
    }

    /// The name here with a digest, of those that may have to be shortened.
    fn long_name(&self, digest: &[u8]) -> Result<Option<Vec<u8>>> {
        let Some(long) = &self.long else {
            return Ok(None);
        };
        let known = match long.get() {
            Some(known) => known,
            None => {
                let mut found = LongNames::new();
                for (_, node) in &self.read().of {
                    let names = node.names()?.to_vec().into_iter();
                    let names = names.filter(|name| name.len() + HIDDEN.len() >= NAME_MAX);
                    found.extend(names.map(|name| (digest_of(&name), name)));
                }
                long.get_or_init(|| found)
            }
        };
        Ok(known.get(digest).cloned())
    }

    /// All that has a name, in all views.
    fn versions(&self, name: &[u8]) -> Result<Versions> {
        let (_, first) = &self.of[0];
        let verdicts = lookup(first, name, Follow::NotLast)?;
        let mut own = None;
        let mut directories = SmallVec::new();
        let mut others = BTreeMap::new();
        let mut known: Vec<usize> = Vec::new();
        // Where the merged view has something, what it has not looked at only lies below that.
        let is_shown = verdicts.entry.kind().is_some();
        let is_hidden = |branch| match verdicts.said(branch) {
            None => !is_shown || !first.branches().any(|here| here == branch),
            Some(says) => matches!(says, Says::Hidden | Says::Nothing | Says::Unread),
        };
        for (view, node) in &self.of {
            let entry = node.child(name)?;
            let provider = entry.provider();
            let is_first = own.is_none() && directories.is_empty();
            // A directory is one with those of the views above, where there is nothing else of its name.
            let is_joined = own.is_none() && matches!(entry, Entry::Dir(_));
            if let Some(branch) = provider {
                let is_other = is_first || is_joined || is_hidden(branch);
                if known.contains(&branch) || !is_other {
                    continue;
                }
                known.push(branch);
            }
            let found = match entry {
                Entry::Missing | Entry::Deleted { .. } => continue,
                Entry::Broken { errno, .. } => Found::Refused(errno),
                Entry::Dir(child) if is_joined => {
                    directories.push((*view, Arc::new(child)));
                    continue;
                }
                Entry::Dir(child) => {
                    Found::Directory(Places::new(smallvec![(*view, Arc::new(child))]))
                }
                Entry::Leaf {
                    from,
                    kind,
                    stat,
                    data,
                } => Found::Leaf(FoundLeaf {
                    view: *view,
                    from,
                    kind,
                    data,
                    name: name.into(),
                    stat,
                }),
            };
            if is_first {
                own = Some(found);
            } else if let Some(branch) = provider {
                others.insert(branch, found);
            }
        }
        if !directories.is_empty() {
            own = Some(Found::Directory(Places::new(directories)));
        }
        Ok(Versions { own, others })
    }

    /// The names that are listed here. What is listed must be read ([`Places::read`]).
    ///
    /// # Errors
    /// A directory that cannot be listed, a name that cannot be asked for.
    pub fn names(&self) -> Result<Vec<Vec<u8>>> {
        let (_, first) = &self.of[0];
        if self.of.len() == 1 {
            return Ok(first.names()?.to_vec());
        }
        let mut all = BTreeSet::new();
        for (_, node) in &self.of {
            all.extend(node.names()?.to_vec());
        }
        let mut hidden = Vec::new();
        for name in &all {
            let others = self.versions(name)?.others;
            hidden.extend(others.keys().map(|branch| name_of_hidden(name, *branch)));
        }
        all.extend(hidden);
        Ok(all.into_iter().collect())
    }

    /// Whether a name that the union refuses is listed all the same, as the kernel does.
    ///
    /// # Errors
    /// A directory that cannot be listed.
    pub fn lists_refused(&self, name: &[u8]) -> Result<bool> {
        self.shown().readdir_lists(name)
    }
}

/// All that has one name.
struct Versions {
    /// What is shown under the name.
    own: Option<Found>,
    /// What is hidden beside it, by branch.
    others: BTreeMap<usize, Found>,
}

/// The name under which a hidden version is shown where its own is not free.
fn name_of_hidden(name: &[u8], branch: usize) -> Vec<u8> {
    let name = shortened(name, branch);
    [&name, HIDDEN, branch.to_string().as_bytes()].concat()
}

/// A name, or its beginning and a digest of all of it where what tells the branch would make it too long.
fn shortened(name: &[u8], branch: usize) -> Vec<u8> {
    let room = NAME_MAX - HIDDEN.len() - branch.to_string().len();
    if name.len() <= room {
        return name.to_vec();
    }
    let mut end = room - 1 - DIGITS;
    // A character is not cut in two.
    if let Ok(text) = std::str::from_utf8(name) {
        while !text.is_char_boundary(end) {
            end -= 1;
        }
    }
    [&name[..end], &[SHORTENED], &digest_of(name)].concat()
}

fn digest_of(name: &[u8]) -> Vec<u8> {
    let mut digits = oci::digest_of(name).into_bytes();
    digits.truncate(DIGITS);
    digits
}

/// The digest in a name that looks as if it were shortened.
fn digest_in(name: &[u8]) -> Option<&[u8]> {
    let (name, digest) = name.split_at_checked(name.len().checked_sub(DIGITS)?)?;
    let is_one = digest
        .iter()
        .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    (is_one && name.last() == Some(&SHORTENED)).then_some(digest)
}

/// The name and the branch in such a name, spelled as it is shown.
fn hidden_name(name: &[u8]) -> Option<(&[u8], usize)> {
    let at = name
        .windows(HIDDEN.len())
        .rposition(|part| part == HIDDEN)?;
    let digits = std::str::from_utf8(&name[at + HIDDEN.len()..]).ok()?;
    let branch: usize = digits.parse().ok()?;
    (branch.to_string() == digits).then_some((&name[..at], branch))
}
