//! A whole copy held against what it is a copy of: what its archive does not have is as it is there.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::sync::Arc;

use super::proof::What;
use super::prover::Prover;
use crate::bytes::Bytes;
use crate::difference::{Between, Change, Criteria, Differs, between, is_same_time};
use crate::dir::Kind;
use crate::error::Result;
use crate::interrupt::is_asked_to_end;
use crate::restore::archive::OCI_WHITEOUT;
use crate::union::{Entry, Node};
use crate::walk::walk;

/// How many files with several names are remembered.
const LINKS_MAX: usize = 1 << 20;

/// What differs at a path.
struct Differing {
    path: Bytes,
    change: Change,
    /// What is there now.
    kind: Option<Kind>,
    what: Vec<What>,
}

/// A directory of the copy, and the same of what it is a copy of.
type Pair<'s> = (Node<'s>, Node<'s>);
/// A file's identity.
type File = (u64, u64);

/// Which file of the copy each file with several names became, and the other way round.
#[derive(Default)]
struct Links {
    copies: HashMap<File, File>,
    originals: HashMap<File, File>,
}

impl Links {
    /// Whether names that were one file are one, and others are not, as far as they are known.
    fn is_kept(&mut self, was: File, is: File) -> bool {
        *self.copies.entry(was).or_insert(is) == is
            && *self.originals.entry(is).or_insert(was) == was
    }
}

impl<'s> Prover<'s> {
    /// A copy is proved by what it differs in from what it is a copy of.
    pub(super) fn not_in_the_copy(&mut self) {
        let stack = self.subject.stack;
        let lost = stack.base.iter().find_map(|base| base.lost().next());
        if let Some(error) = lost {
            let what = format!("what it is a copy of cannot be opened: {error}");
            self.found.proof.leave(what);
            return;
        }
        let before = stack.without(self.subject.branches[0]);
        let after = self.tree.root();
        let criteria = Criteria {
            times: true,
            content: !self.manner.is_fast,
        };
        let drops_user_attributes = self.manner.drops_user_attributes;
        let row = |found: Result<Between<'_>>, rows: &mut Vec<Result<Differing>>| {
            let differing = found.and_then(|found| {
                Ok(Differing {
                    path: found.path(),
                    change: found.change,
                    kind: found.after.as_ref().map(|after| after.stat.kind),
                    what: changed(&found, drops_user_attributes)?,
                })
            });
            rows.push(differing);
        };
        let threads = NonZeroUsize::MIN;
        let _ = between(&before, &after, criteria, threads, &row, |found| {
            for found in found {
                match found {
                    Ok(found) => self.differing(found),
                    Err(error) => self.found.proof.leave(error.to_string()),
                }
            }
            ControlFlow::Continue(())
        });
        self.other_links((after, before));
    }

    fn differing(&mut self, found: Differing) {
        let Differing {
            path,
            change,
            kind,
            what,
        } = found;
        // It was compared with its entry, or is missed there.
        if self.found.has(&path) {
            return;
        }
        match change {
            Change::Deleted => {
                let mark = [OCI_WHITEOUT, path.file_name()].concat();
                let is_known =
                    self.found.has(&path.parent().join(&mark)) || self.is_below_a_change(&path);
                if !is_known {
                    self.fault(path, What::Missing);
                }
            }
            // The engine has made the directories on the way to an entry.
            Change::Added if kind == Some(Kind::Directory) && self.found.leads_on(&path) => {}
            Change::Added => self.fault(path, What::NotInTheLayer),
            Change::Changed => {
                for what in what {
                    self.fault(path.clone(), what);
                }
            }
        }
    }

    /// Whether something that the archive has took the place of a directory on the way to a path.
    fn is_below_a_change(&self, path: &Bytes) -> bool {
        let mut here = path.clone();
        while here.as_bytes() != b"/" {
            let parent = here.parent();
            let opaque = parent.join(b".wh..wh..opq");
            let mark = parent.join(&[OCI_WHITEOUT, here.file_name()].concat());
            if self.found.has(&opaque) || self.found.has(&mark) {
                return true;
            }
            here = parent;
        }
        false
    }

    /// Names that were one file and are several, or the other way round: all engines copy links as links.
    fn other_links(&mut self, roots: Pair<'s>) {
        let mut links = Links::default();
        let mut is_full = false;
        let visit = |place: Option<(Arc<Pair<'s>>, Vec<u8>)>,
                     found: &mut crate::walk::Found<'_, _, Vec<()>>| {
            let pair = match place {
                None => roots.clone(),
                Some((above, name)) => {
                    match (
                        above.0.child_directory(&name),
                        above.1.child_directory(&name),
                    ) {
                        (Ok(Entry::Dir(after)), Ok(Entry::Dir(before))) => (after, before),
                        // What cannot be read was told of when it was compared.
                        _ => return,
                    }
                }
            };
            let pair = Arc::new((pair.0.read(), pair.1.read()));
            let Ok(names) = pair.0.names() else { return };
            for of in names.iter() {
                if is_asked_to_end() {
                    return;
                }
                if of.could_be_directory {
                    found.directory(Some((Arc::clone(&pair), of.name.to_vec())));
                    continue;
                }
                let path = pair.0.path_of(of.name);
                let identities = identities(&pair, of.name);
                if let Some((was, is)) = identities.filter(|_| !self.found.has(&path)) {
                    is_full |= links.copies.len() >= LINKS_MAX;
                    if !is_full && !links.is_kept(was, is) {
                        self.fault(path, What::Link);
                    }
                }
            }
        };
        let () = walk(None, visit).collect();
        if is_full {
            let what = "it has more files with several names than are remembered";
            self.found.proof.leave(what);
        }
    }
}

/// Of a name that is a file in both, which those are, if either has several names.
fn identities((after, before): &Pair<'_>, name: &[u8]) -> Option<(File, File)> {
    let stat = |node: &Node<'_>| match node.child(name) {
        Ok(Entry::Leaf {
            from,
            kind: Kind::File,
            ..
        }) => node.stat(from, name).ok(),
        _ => None,
    };
    let is = stat(after)?;
    let was = stat(before)?;
    (is.nlink > 1 || was.nlink > 1).then(|| (was.identity(), is.identity()))
}

/// What of a copy's entry is not as it was.
fn changed(found: &Between<'_>, drops_user_attributes: bool) -> Result<Vec<What>> {
    let (Some(before), Some(after)) = (&found.before, &found.after) else {
        return Ok(Vec::new());
    };
    let mut told = Vec::new();
    for differs in &found.differing.what {
        let what = match differs {
            Differs::Type => What::Type,
            Differs::Content if matches!(after.stat.kind, Kind::Char | Kind::Block) => What::Type,
            Differs::Content | Differs::Size => What::Content,
            Differs::Mode => What::Mode,
            Differs::Owner => What::Owner,
            Differs::Time if is_same_time(before.stat.mtime, after.stat.mtime) => continue,
            Differs::Time => What::Time,
            Differs::Link => What::Link,
            Differs::Xattr | Differs::Capability => continue,
        };
        if !told.contains(&what) {
            told.push(what);
        }
    }
    if has_other_attributes(found, drops_user_attributes)? {
        told.push(What::Xattr);
    }
    Ok(told)
}

/// Whether attributes differ that are copied, or that nobody has copied.
fn has_other_attributes(found: &Between<'_>, drops_user_attributes: bool) -> Result<bool> {
    let (Some(before), Some(after)) = (&found.before, &found.after) else {
        return Ok(false);
    };
    if found.differing.attributes.is_empty() {
        return Ok(false);
    }
    let (old, new) = (before.attribute_names()?, after.attribute_names()?);
    let is_fault = |name: &Bytes| {
        let has = |names: &[String]| names.iter().any(|of| of.as_bytes() == name.as_bytes());
        let is_users = name.as_bytes().starts_with(b"user.");
        match (has(&old), has(&new)) {
            // Drivers that copy leave others behind.
            (true, false) if is_users => !drops_user_attributes,
            (true, false) => name.as_bytes() == b"security.capability",
            (false, _) => !(is_users && drops_user_attributes),
            (true, true) => true,
        }
    };
    Ok(found.differing.attributes.iter().any(is_fault))
}
