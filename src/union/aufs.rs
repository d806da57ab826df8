//! AUFS's rules, as a kernel was seen to follow them:
//!
//! ```text
//! branch by branch, topmost first, in those that have the parent directory:
//!   .wh.NAME               the search ends; below it nothing shows (EIO if it is no regular file,
//!                          and if NAME stands beside it in the first branch searched)
//!   NAME, no directory     is the answer if nothing was found yet, else is skipped
//!   NAME, a directory      is merged; if it is opaque, nothing below it is
//!                          (the lowest opaque one counts: the search itself goes on)
//! ```
//!
//! A stack without marks, such as one directory, follows the same rules.

use std::cell::Cell;
use std::mem::take;

use rustix::io::Errno;

use super::cut::{Cut, add_cut};
use super::entry::{Entry, Question, Says, Why};
use super::node::{Node, Part, Parts, Reading};
use crate::dir::{Access, Dir, Kind, Stat};
use crate::error::{Error, Result};
use crate::whiteout::{MarkKind, OPAQUE, Validity};

/// What one branch has of a name.
enum Answer {
    Nothing,
    Whiteout {
        is_beside_name: bool,
    },
    /// Anything but a directory.
    Leaf(Kind, Option<Stat>),
    Directory {
        part: Part,
        is_opaque: bool,
    },
    /// A mark that is not a regular file.
    BadMark(Why),
    /// Something whose name is too long for the branch's file system.
    TooLong,
}

/// What a name means at a place: each branch is asked, its answer is merged with those above it,
/// and what marks hide is cut.
pub(super) fn decide<'s>(
    node: &Node<'s>,
    question: &Question<'_>,
    says: &mut dyn FnMut(usize, Says),
) -> Result<Entry<'s>> {
    let Some(first) = node.parts.first() else {
        return Ok(Entry::Missing);
    };
    if let Some(errno) = node.grammar(first).refuses(question.name) {
        return Ok(Entry::refused(errno));
    }
    let mut merge = Merge::new(node, question.name);
    for part in &node.parts {
        let answer = ask(node, part, question)?;
        if let Some(entry) = merge.add(part.branch, answer, says) {
            return Ok(entry);
        }
        if merge.whiteout.is_some() {
            break;
        }
    }
    Ok(merge.cut(says))
}

/// The first step: what one branch has.
fn ask(node: &Node<'_>, part: &Part, question: &Question<'_>) -> Result<Answer> {
    let Question { name, expected, .. } = *question;
    let branch = part.branch;
    let grammar = node.grammar(part);
    let fail = |errno| Error::io(node.on_host(branch, name), errno);
    let opened = Cell::new(None);
    let seen = match grammar.look(&part.source_for(grammar, expected, &opened), name) {
        Err(Errno::NAMETOOLONG) => return Ok(Answer::TooLong),
        seen => seen.map_err(fail)?,
    };
    match seen.whiteout {
        Validity::Absent | Validity::TakenBack => {}
        _ if question.looks_past(branch, MarkKind::Whiteout) => {}
        Validity::Invalid => return Ok(Answer::BadMark(Why::BadWhiteout { branch })),
        Validity::Valid => {
            return Ok(Answer::Whiteout {
                is_beside_name: seen.entry.is_some(),
            });
        }
    }
    match seen.entry {
        None => Ok(Answer::Nothing),
        Some(Kind::Directory) => enter(node, part, question, opened.take()).map_err(fail),
        Some(kind) => Ok(Answer::Leaf(kind, seen.stat)),
    }
}

/// Opens a branch's directory, and reads its mark. `opened` is the directory where it is open.
fn enter(
    node: &Node<'_>,
    part: &Part,
    question: &Question<'_>,
    opened: Option<Dir>,
) -> Result<Answer, Errno> {
    let (branch, grammar) = (part.branch, node.grammar(part));
    let at = (branch, grammar);
    let dir = part.enter(question.name, opened, node.reading)?;
    let mut child = Part::new(at, dir, node.reading);
    let mut opaque = grammar.opaque(&child.source());
    // A directory that may be listed but not searched tells its mark in its listing.
    if opaque == Err(Errno::ACCESS)
        && let Ok(dir) = part.dir.child(question.name, Access::List)
    {
        child = Part::new(at, dir, Reading::Branch(branch));
        opaque = grammar.opaque(&child.source());
    }
    let is_opaque = match opaque? {
        Validity::Absent | Validity::TakenBack => false,
        _ if question.looks_past(branch, MarkKind::Opaque) => false,
        Validity::Invalid => return Ok(Answer::BadMark(Why::BadOpaque { branch })),
        Validity::Valid => true,
    };
    Ok(Answer::Directory {
        part: child,
        is_opaque,
    })
}

/// A branch's whiteout of a name.
fn whiteout(node: &Node<'_>, branch: usize, name: &[u8]) -> Cut {
    let grammar = node.stack.branches[branch].grammar;
    Cut {
        branch,
        mark: node.path_of(&grammar.whiteout_of(name)),
        kind: MarkKind::Whiteout,
        of: node.path_of(name),
    }
}

/// What the branches that were asked make of a name together.
struct Merge<'n, 's> {
    node: &'n Node<'s>,
    name: &'n [u8],
    directories: Parts,
    /// Which of the directories is the lowest that is opaque.
    lowest_opaque: Option<usize>,
    /// The whiteout that ended the search.
    whiteout: Option<Cut>,
}

impl<'n, 's> Merge<'n, 's> {
    fn new(node: &'n Node<'s>, name: &'n [u8]) -> Merge<'n, 's> {
        Merge {
            node,
            name,
            directories: Parts::new(),
            lowest_opaque: None,
            whiteout: None,
        }
    }

    /// The second step: what a branch has is merged with what those above it have. Returns what
    /// the name means where no branch below can change that.
    fn add(
        &mut self,
        branch: usize,
        answer: Answer,
        says: &mut dyn FnMut(usize, Says),
    ) -> Option<Entry<'s>> {
        let broken = |errno, why| Some(Entry::Broken { errno, why });
        match answer {
            Answer::Nothing => says(branch, Says::Nothing),
            Answer::Leaf(kind, stat) if self.directories.is_empty() => {
                says(branch, Says::Provides);
                return Some(Entry::Leaf {
                    from: branch,
                    kind,
                    stat,
                    data: None,
                });
            }
            Answer::Leaf(..) => says(branch, Says::Skipped),
            Answer::Directory { part, is_opaque } => {
                let is_first = self.directories.is_empty();
                says(branch, Says::of_directory(is_first, is_opaque));
                if is_opaque {
                    self.lowest_opaque = Some(self.directories.len());
                }
                self.directories.push(part);
            }
            Answer::Whiteout { is_beside_name } => {
                says(branch, Says::Whiteout);
                if is_beside_name && self.node.provider() == Some(branch) {
                    // docs/facts.md#aufs-c2
                    let errno = if self.node.stack.is_unwatched {
                        Errno::NOENT
                    } else {
                        Errno::IO
                    };
                    return broken(errno, Why::BesideWhiteout { branch });
                }
                self.whiteout = Some(whiteout(self.node, branch, self.name));
            }
            Answer::BadMark(why) => {
                says(branch, Says::Invalid);
                return broken(Errno::IO, why);
            }
            Answer::TooLong => return broken(Errno::NAMETOOLONG, Why::TooLong),
        }
        None
    }

    /// The third step: what is below the lowest opaque directory does not show.
    fn cut(&mut self, says: &mut dyn FnMut(usize, Says)) -> Entry<'s> {
        let Merge { node, name, .. } = *self;
        if self.directories.is_empty() {
            return match self.whiteout.take() {
                Some(by) => Entry::Deleted { by },
                None => Entry::Missing,
            };
        }
        let mut cuts = node.cuts.clone();
        if let Some(lowest) = self.lowest_opaque {
            for part in self.directories.drain(lowest + 1..) {
                says(part.branch, Says::Hidden);
            }
            let branch = self.directories[lowest].branch;
            add_cut(&mut cuts, branch, MarkKind::Opaque, || {
                let of = node.path_of(name);
                Cut {
                    branch,
                    mark: of.join(OPAQUE),
                    kind: MarkKind::Opaque,
                    of,
                }
            });
        }
        if let Some(cut) = self.whiteout.take() {
            add_cut(&mut cuts, cut.branch, cut.kind, || cut);
        }
        Entry::Dir(Node {
            stack: node.stack,
            shown: None,
            parts: take(&mut self.directories),
            cuts,
            reading: node.reading,
            roots: None,
        })
    }
}
