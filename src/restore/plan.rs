//! What is to be done to bring something back, as data: it can be described or applied, and is the
//! same both times.

use std::path::{Path, PathBuf};

use super::diagnose::{Cause, Diagnosis, Hidden, Version, is_shown_elsewhere, unhidden};
use super::foresee::{self, Hiding};
use super::locate::{Located, beneath, source_of};
use super::revert::{Revert, revert};
use super::view::View;
use super::{Depth, Goal, Query, Strategy};
use crate::bytes::Bytes;
use crate::dir::Kind;
use crate::error::{Error, Result, errno_name};
use crate::union::{Cut, Entry, Follow, Merger, Node, Reading, Resolution, Stack, lookup};
use crate::whiteout::MarkKind;

/// What is to be done.
pub enum Plan<'s> {
    /// Remove one mark from a writable branch.
    Unhide(Cut),
    /// Copy a hidden version into the writable branch.
    CopyIn(CopyIn<'s>),
    /// Copy a hidden version out of the union.
    CopyOut(CopyOut<'s>),
    /// The branches show this path, the mount does not: make the kernel look again.
    Refresh(Bytes),
    /// Take the writable branch's version away, so that the one below shows.
    Revert(Revert<'s>),
}

pub struct CopyIn<'s> {
    pub writable: usize,
    /// The deepest directory on the way that the union shows.
    pub place: Node<'s>,
    /// The names from there to what is restored.
    pub chain: Vec<Vec<u8>>,
    /// The same place in the view that still has the version.
    pub source: Node<'s>,
    /// The branch that provides the version there.
    pub from: usize,
    /// What the first name of the chain is there.
    pub first: Kind,
    /// The writable branch's whiteout of the first name.
    pub whiteout: Option<Cut>,
    /// What keeps hidden what that whiteout hid.
    pub hiding: Hiding,
    /// The directories on the way that the writable branch does not have, topmost first.
    pub missing: Vec<Bytes>,
    pub depth: Depth,
}

pub struct CopyOut<'s> {
    pub source: Node<'s>,
    /// The branch that provides the version.
    pub from: usize,
    pub name: Vec<u8>,
    pub to: PathBuf,
    /// The directories from the one that was named to that.
    pub way: Bytes,
    pub depth: Depth,
}

impl<'s> CopyOut<'s> {
    /// To the directory that was named itself.
    fn new((source, name): (Node<'s>, Vec<u8>), from: usize, to: &Path, depth: Depth) -> Self {
        CopyOut {
            source,
            from,
            name,
            to: to.to_owned(),
            way: Bytes::from("/"),
            depth,
        }
    }

    /// The same, but that what has this path keeps it below a path of the destination.
    pub fn below(self, below: Option<&Bytes>, path: &Bytes) -> Self {
        let Some(below) = below else { return self };
        let way = below.join_path(&path.parent());
        let relative: PathBuf = way.to_path().components().skip(1).collect();
        CopyOut {
            to: self.to.join(relative),
            way,
            ..self
        }
    }
}

impl Plan<'_> {
    /// Whether the union itself is changed.
    pub fn writes_union(&self) -> bool {
        match self {
            Plan::Unhide(_) | Plan::CopyIn(_) | Plan::Refresh(_) | Plan::Revert(_) => true,
            Plan::CopyOut(_) => false,
        }
    }

    /// What else comes back, now or when the kernel looks again, where it is carried out through a
    /// mount. An overlay cannot be told to look again, and heeds each opaque mark.
    ///
    /// # Errors
    /// A directory that cannot be read.
    pub fn also_back(&self, stack: &Stack, view: &View) -> Result<Vec<Bytes>> {
        if !stack.merger().can_look_again() {
            return Ok(Vec::new());
        }
        match self {
            Plan::Unhide(_) | Plan::Refresh(_) => foresee::by_refresh(stack, view),
            // The kernel itself makes the directory opaque, which hides nothing then.
            Plan::CopyIn(copy) => Ok(match &copy.hiding {
                Hiding::Nothing | Hiding::Opaque => Vec::new(),
                Hiding::Names(names) => {
                    let back = names.iter().map(|(depth, name)| {
                        let dirs = copy.chain[..=*depth].iter();
                        let dir = dirs.fold(copy.place.path(), |path, name| path.join(name));
                        dir.join(name)
                    });
                    back.collect()
                }
            }),
            Plan::CopyOut(_) | Plan::Revert(_) => Ok(Vec::new()),
        }
    }

    /// The way by which it comes back, in one word.
    pub fn strategy(&self) -> &'static str {
        match self {
            Plan::Unhide(_) => "unhide",
            Plan::CopyIn(_) => "copy",
            Plan::CopyOut(_) => "copy-out",
            Plan::Refresh(_) => "refresh",
            Plan::Revert(_) => "revert",
        }
    }
}

/// A plan with what else it brings back, or why there is nothing to do.
pub struct Proposal<'s> {
    pub plan: Result<Plan<'s>, Nothing>,
    pub reappears: Vec<Bytes>,
}

/// Why there is nothing to restore.
pub struct Nothing(pub String);

impl<'s> Proposal<'s> {
    fn plan(plan: Plan<'s>) -> Result<Proposal<'s>> {
        Ok(Proposal {
            plan: Ok(plan),
            reappears: Vec::new(),
        })
    }

    fn nothing(why: impl Into<String>) -> Result<Proposal<'s>> {
        Ok(Proposal {
            plan: Err(Nothing(why.into())),
            reappears: Vec::new(),
        })
    }
}

/// Makes a plan for what was found. `is_mounted`: the union is, and can be written through.
///
/// # Errors
/// It could be done and is refused, with the reason; a branch that cannot be asked.
pub fn propose<'s>(
    stack: &'s Stack,
    diagnosis: &Diagnosis<'s>,
    query: &Query<'_>,
    is_mounted: bool,
) -> Result<Proposal<'s>> {
    if let Goal::Revert(changed) = &query.goal {
        return match revert(stack, diagnosis, changed, is_mounted)? {
            Ok(revert) => Proposal::plan(Plan::Revert(revert)),
            Err(why) => Proposal::nothing(why),
        };
    }
    if let Goal::CopyOut(to) = &query.goal
        && let Some(plan) = copy_out_beneath(stack, diagnosis, to, query.depth)?
    {
        return Proposal::plan(plan);
    }
    match &diagnosis.cause {
        Cause::IsRoot => Proposal::nothing("the root of the union is there"),
        Cause::IsThere(kind) => Proposal::nothing(format!(
            "it is there, a {}; nothing is deleted{}",
            kind.word(),
            ways_to_beneath(stack, diagnosis)?
        )),
        Cause::Refused(errno) => {
            let ways = ways_to_beneath(stack, diagnosis)?;
            let errno = errno_name(*errno);
            Proposal::nothing(format!("the union refuses it ({errno}){ways}"))
        }
        Cause::NotDeleted { place, name } => {
            let plan = match &stack.base {
                Some(base) => from_base(base, &diagnosis.found, place, name, query)?,
                None => None,
            };
            match plan {
                Some(plan) => Proposal::plan(plan),
                None => Proposal::nothing("it is not deleted: no branch has it"),
            }
        }
        Cause::Hidden(hidden) if hidden.version.is_none() => Proposal::nothing(format!(
            "it is deleted, and nothing is left below {}",
            hidden.cut.mark
        )),
        Cause::Hidden(hidden) => match &query.goal {
            Goal::CopyOut(to) => copy_out(stack, diagnosis, hidden, to, query.depth),
            Goal::Undelete(wanted) => {
                let union = Mounted(is_mounted);
                undelete(stack, diagnosis, hidden, *wanted, query.depth, union)
            }
            Goal::Revert(_) => Proposal::nothing("nothing to do"),
        },
    }
}

#[derive(Clone, Copy)]
struct Mounted(bool);

fn undelete<'s>(
    stack: &'s Stack,
    diagnosis: &Diagnosis<'s>,
    hidden: &Hidden<'s>,
    wanted: Option<Strategy>,
    depth: Depth,
    Mounted(is_mounted): Mounted,
) -> Result<Proposal<'s>> {
    let cut = &hidden.cut;
    if diagnosis.found.rest.iter().any(|name| name == b"..") {
        return Proposal::nothing(format!(
            "the way to it is deleted ({}); name it without ..",
            cut.mark
        ));
    }
    let unhiding = Unhiding::new(stack, diagnosis, hidden, is_mounted)?;
    let strategy = match wanted {
        // What stands beside its mark needs no copy: an earlier run was killed between two steps.
        _ if hidden.is_beside && unhiding.reappears.is_some() => Strategy::Unhide,
        Some(strategy) => strategy,
        None if unhiding.fits() => Strategy::Unhide,
        None => Strategy::Copy,
    };
    match strategy {
        Strategy::Unhide => Ok(Proposal {
            reappears: unhiding.permit(cut)?,
            plan: Ok(Plan::Unhide(cut.clone())),
        }),
        Strategy::Copy => copy_in(stack, diagnosis, hidden, depth),
    }
}

/// What speaks for and against the removal of a mark.
struct Unhiding {
    /// It is the whiteout of the very name.
    is_exact: bool,
    can_write_mark: bool,
    /// What lies below a mounted overlay is not changed: what the mount would show is undefined.
    is_mounted_overlay: bool,
    /// A directory that was renamed is still the old one below: under both names it would be one
    /// directory twice, which the kernel refuses.
    is_renamed: bool,
    /// What else comes back; none if not even the path itself does.
    reappears: Option<Vec<Bytes>>,
}

impl Unhiding {
    fn new(
        stack: &Stack,
        diagnosis: &Diagnosis<'_>,
        hidden: &Hidden<'_>,
        is_mounted: bool,
    ) -> Result<Unhiding> {
        let (found, cut) = (&diagnosis.found, &hidden.cut);
        let is_exact = cut.kind == MarkKind::Whiteout
            && found.rest.is_empty()
            && matches!(found.entry, Entry::Deleted { .. } | Entry::Broken { .. });
        let reappears = unhidden(stack, cut, &diagnosis.path)?;
        let merger = stack.merger();
        let is_renamed = match &hidden.version {
            Some(version) if is_exact && is_moved(merger, version) => {
                let was = found.path_led_to(stack, version.branch)?;
                is_shown_elsewhere(stack, cut.branch, (version.branch, &was), version.kind)?
            }
            _ => false,
        };
        Ok(Unhiding {
            is_exact,
            can_write_mark: stack.branches[cut.branch].permission.is_writable(),
            is_mounted_overlay: is_mounted && !merger.can_look_again(),
            is_renamed,
            reappears,
        })
    }

    /// Whether it is the best way.
    fn fits(&self) -> bool {
        self.is_exact
            && self.can_write_mark
            && self.reappears.is_some()
            && !self.is_mounted_overlay
            && !self.is_renamed
    }

    /// What else comes back, where it can be done at all.
    fn permit(self, cut: &Cut) -> Result<Vec<Bytes>> {
        let refused = |what: String, hint: &str| {
            Err(Error::Refused {
                what,
                hint: hint.into(),
            })
        };
        let copy = "use --strategy copy";
        if self.is_mounted_overlay {
            return refused(
                format!(
                    "{} lies below a mounted overlay: what that shows when its branches change is undefined, \
                     and it would go on to deny the name",
                    cut.mark
                ),
                "copy it back through the mount with --strategy copy, or stop the container \
                 (unmount the union) and run this again",
            );
        }
        if self.is_renamed {
            let what = "was renamed: it would be there twice, which an overlay refuses";
            return refused(format!("{} {what}", cut.of), copy);
        }
        if !self.can_write_mark {
            let what = format!(
                "{} is in branch {}, which is read-only and is never written",
                cut.mark, cut.branch
            );
            return refused(what, copy);
        }
        match self.reappears {
            Some(reappears) => Ok(reappears),
            None => refused(
                format!(
                    "removing {} would not bring it back: another mark below hides it, too",
                    cut.mark
                ),
                copy,
            ),
        }
    }
}

/// Whether an overlay can show something of this kind under another name than the branch's: a
/// directory that was renamed, or the content of a file of which only the metadata was copied up.
fn is_moved(merger: Merger, version: &Version) -> bool {
    merger.follows_redirects()
        && match version.kind {
            Kind::Directory => true,
            Kind::File => merger.has_metacopies(),
            Kind::Symlink | Kind::Char | Kind::Block | Kind::Fifo | Kind::Socket => false,
        }
}

fn copy_in<'s>(
    stack: &'s Stack,
    diagnosis: &Diagnosis<'s>,
    hidden: &Hidden<'s>,
    depth: Depth,
) -> Result<Proposal<'s>> {
    let (found, place, cut) = (&diagnosis.found, &hidden.place, &hidden.cut);
    let out = "copy the version out with --to DIR";
    let writable = stack.writable().ok_or_else(|| Error::Refused {
        what: "the union has no writable branch".into(),
        hint: out.into(),
    })?;
    let above = std::iter::once(cut)
        .chain(place.cuts())
        .find(|cut| cut.branch < writable);
    if let Some(above) = above {
        return Err(Error::Refused {
            what: format!(
                "branch {} hides it with {}, above the writable branch {writable}",
                above.branch, above.mark
            ),
            hint: out.into(),
        });
    }
    let Some(version) = hidden.version else {
        return Proposal::nothing("nothing to do");
    };
    permit_kind(version.kind, depth, || found.path.clone())?;
    let (source, from) = source_of(stack, found, cut.branch + 1, version.branch, &place.path())?;
    let chain = chain(&hidden.name, found);
    let whiteout = stack.whiteout(writable, &place.path_of(&hidden.name))?;
    let first = first_of(&chain, version.kind);
    let hiding = if whiteout.is_some() && first == Kind::Directory {
        foresee::hiding(place, &chain, writable)?
    } else {
        Hiding::Nothing
    };
    Proposal::plan(Plan::CopyIn(CopyIn {
        missing: stack.missing(writable, &place.path())?,
        whiteout,
        hiding,
        first,
        writable,
        place: place.clone(),
        chain,
        source,
        from,
        depth,
    }))
}

/// The names from the place to what was looked up.
fn chain(name: &[u8], found: &Resolution<'_>) -> Vec<Vec<u8>> {
    let first = std::iter::once(name.to_vec());
    first.chain(found.rest.iter().cloned()).collect()
}

/// What the first name of a chain is, of which the last one is `last`.
fn first_of(chain: &[Vec<u8>], last: Kind) -> Kind {
    if chain.len() > 1 {
        Kind::Directory
    } else {
        last
    }
}

/// What the layer had that this one began as a copy of: no mark tells that it was deleted.
fn from_base<'s>(
    base: &'s Stack,
    found: &Resolution<'s>,
    place: &Node<'s>,
    name: &[u8],
    query: &Query<'_>,
) -> Result<Option<Plan<'s>>> {
    let root = base.whole(Reading::Nothing);
    let version = lookup(&root, found.path.as_bytes(), Follow::NotLast)?.entry;
    let (Some(kind), Some(from)) = (version.kind(), version.provider()) else {
        return Ok(None);
    };
    permit_kind(kind, query.depth, || found.path.clone())?;
    let directory = |path: &Bytes| match lookup(&root, path.as_bytes(), Follow::NotLast)?.entry {
        Entry::Dir(node) => Ok(Some(node)),
        _ => Ok(None),
    };
    if let Goal::CopyOut(to) = &query.goal {
        let source = directory(&found.path.parent())?;
        return Ok(source.map(|source| {
            let at = (source, found.path.file_name().to_vec());
            Plan::CopyOut(CopyOut::new(at, from, to, query.depth))
        }));
    }
    let (Some(source), Some(writable)) = (directory(&place.path())?, place.stack().writable())
    else {
        return Ok(None);
    };
    let chain = chain(name, found);
    Ok(Some(Plan::CopyIn(CopyIn {
        missing: place.stack().missing(writable, &place.path())?,
        writable,
        whiteout: None,
        hiding: Hiding::Nothing,
        place: place.clone(),
        first: first_of(&chain, kind),
        chain,
        source,
        from,
        depth: query.depth,
    })))
}

/// A directory is copied whole, or not at all.
fn permit_kind(kind: Kind, depth: Depth, path: impl FnOnce() -> Bytes) -> Result<()> {
    if kind == Kind::Directory && depth == Depth::OneEntry {
        return Err(Error::Refused {
            what: format!("{} is a directory", path()),
            hint: "copy it whole with -r".into(),
        });
    }
    Ok(())
}

fn copy_out<'s>(
    stack: &'s Stack,
    diagnosis: &Diagnosis<'s>,
    hidden: &Hidden<'s>,
    to: &Path,
    depth: Depth,
) -> Result<Proposal<'s>> {
    let path = &diagnosis.path;
    let Some(version) = hidden.version else {
        return Proposal::nothing("nothing to do");
    };
    permit_kind(version.kind, depth, || path.clone())?;
    let (source, from) = source_of(
        stack,
        &diagnosis.found,
        hidden.cut.branch + 1,
        version.branch,
        &path.parent(),
    )?;
    let at = (source, path.file_name().to_vec());
    Proposal::plan(Plan::CopyOut(CopyOut::new(at, from, to, depth)))
}

/// A copy of what was there before the writable branch had something else under the name.
fn copy_out_beneath<'s>(
    stack: &'s Stack,
    diagnosis: &Diagnosis<'s>,
    to: &Path,
    depth: Depth,
) -> Result<Option<Plan<'s>>> {
    let Some(Located { place, entry, .. }) = beneath(stack, diagnosis)? else {
        return Ok(None);
    };
    let (Some(at), Some(from), Some(kind)) = (place, entry.provider(), entry.kind()) else {
        return Ok(None);
    };
    permit_kind(kind, depth, || diagnosis.path.clone())?;
    Ok(Some(Plan::CopyOut(CopyOut::new(at, from, to, depth))))
}

/// What gets at the version beneath what is there, if there is one.
fn ways_to_beneath(stack: &Stack, diagnosis: &Diagnosis<'_>) -> Result<&'static str> {
    Ok(match (beneath(stack, diagnosis)?, &diagnosis.cause) {
        (None, _) => "",
        (Some(_), Cause::IsThere(Kind::Directory)) => {
            "; of what was there before --to DIR makes a copy"
        }
        (Some(_), Cause::IsThere(_)) => {
            "; of the version beneath it --to DIR makes a copy, and --revert puts it in its place"
        }
        (Some(_), _) => "; of what was there --to DIR makes a copy",
    })
}
