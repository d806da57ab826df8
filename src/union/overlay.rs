//! Overlay's rules, as the kernel was seen to follow them:
//!
//! ```text
//! the upper branch, then the lower ones in which the parent directory is merged:
//!   a whiteout             the search ends
//!   NAME, no directory     is the answer if nothing was found yet; the search ends in any case,
//!                          unless it is a metacopy, which has its content below
//!   NAME, a directory      is merged; an opaque one ends the search
//!   a redirect on either   the branches below are asked for another name: of the same directory,
//!                          or as a path from their roots
//! ```

use std::cell::Cell;
use std::sync::Arc;

use rustix::io::Errno;

use super::cut::{Cut, add_cut};
use super::entry::{Entry, Question, Says, Why};
use super::node::{DataAt, Expected, Node, Part, Parts, Reading};
use crate::bytes::Bytes;
use crate::dir::{Dir, Kind, Stat};
use crate::error::{Error, Result};
use crate::overlay::Rules;
use crate::whiteout::{MarkKind, Seen, Source, Validity};

/// What one branch has of a name.
enum Answer {
    Nothing,
    /// Something that the search passes over.
    Skipped,
    Whiteout(Cut),
    /// Anything but a directory. The path in its branch is given where it is the content of a
    /// metacopy.
    Leaf(Kind, Option<Stat>, Option<Bytes>),
    Directory {
        dir: Dir,
        is_opaque: bool,
    },
    Broken(Errno, Why),
}

/// What a name means at a place: each branch is asked, its answer is merged with those above it,
/// and in the end what has no content, or is not to be followed, is cut.
pub(super) fn decide<'s>(
    node: &Node<'s>,
    rules: Rules,
    question: &Question<'_>,
    says: &mut dyn FnMut(usize, Says),
) -> Result<Entry<'s>> {
    let (Some(roots), Some(top)) = (node.roots.as_deref(), node.stack.branches.first()) else {
        return Ok(Entry::Missing);
    };
    if let Some(errno) = top.grammar.refuses(question.name) {
        return Ok(Entry::refused(errno));
    }
    let mut route = Route::new(node, roots);
    let mut search = Search::new(node, rules, question);
    let mut merge = Merge::new(node, question.name);
    while !search.stop
        && let Some(part) = route.next()
    {
        if !is_upper(node, part.branch)
            && let Some(refusal) = search.refusal()
        {
            return Ok(refusal);
        }
        search.last = search.is_last(&route, part);
        let answer = search.ask(part)?;
        if let Some(entry) = merge.add(part.branch, answer, &search, says) {
            return Ok(entry);
        }
        if !search.stop && search.wants_path() {
            route.go_on_at_roots(part.branch);
        }
    }
    merge.cut(search, says)
}

/// The branches that are asked, in order: those of a place, until a redirect leads elsewhere.
struct Route<'n, 's> {
    node: &'n Node<'s>,
    roots: &'n [Part],
    parts: &'n [Part],
    /// How many of the parts were asked.
    asked: usize,
    is_at_roots: bool,
}

impl<'n, 's> Route<'n, 's> {
    fn new(node: &'n Node<'s>, roots: &'n [Part]) -> Route<'n, 's> {
        Route {
            node,
            roots,
            parts: &node.parts,
            asked: 0,
            is_at_roots: false,
        }
    }

    fn next(&mut self) -> Option<&'n Part> {
        let part = self.parts.get(self.asked)?;
        self.asked += 1;
        Some(part)
    }

    fn is_at_end(&self) -> bool {
        self.asked == self.parts.len()
    }

    /// Goes on at the roots of the branches below one.
    fn go_on_at_roots(&mut self, branch: usize) {
        if self.is_at_roots || self.node.is_root() {
            return;
        }
        self.is_at_roots = true;
        self.parts = self.roots;
        self.asked = self.roots.partition_point(|part| part.branch <= branch);
    }
}

/// How far the search for a name has come.
struct Search<'n, 's> {
    node: &'n Node<'s>,
    rules: Rules,
    question: &'n Question<'n>,
    /// The lowest branches give the content of files only.
    has_data: bool,
    /// What the next branch is asked for: a name, or a path from its root.
    wanted: Vec<u8>,
    /// A directory was found.
    is_dir: bool,
    /// No further branch is asked.
    stop: bool,
    /// This is the last branch: what would concern those below it is not looked at.
    last: bool,
    /// The branch of the last redirect.
    redirected: Option<usize>,
    /// The entry that was looked at last has a redirect, which is a path.
    is_absolute: bool,
    /// The branch of a file that has its content below.
    metacopy: Option<usize>,
    /// A directory that is found now shows nothing.
    is_emptied: bool,
}

/// One name of what is wanted.
struct Element<'e> {
    name: &'e [u8],
    /// How many bytes of what is wanted stand before the name.
    start: usize,
    /// What stands after it.
    post: &'e [u8],
}

impl Element<'_> {
    fn is_last(&self) -> bool {
        self.post.is_empty()
    }
}

impl<'n, 's> Search<'n, 's> {
    fn new(node: &'n Node<'s>, rules: Rules, question: &'n Question<'n>) -> Search<'n, 's> {
        let lowest = node.stack.branches.last();
        Search {
            node,
            rules,
            question,
            has_data: lowest.is_some_and(|lowest| lowest.grammar.is_data_only()),
            wanted: question.name.to_vec(),
            is_dir: false,
            stop: false,
            last: false,
            redirected: None,
            is_absolute: false,
            metacopy: None,
            is_emptied: false,
        }
    }

    fn wants_path(&self) -> bool {
        self.wanted.starts_with(b"/")
    }

    /// Why the next branch is not asked: a redirect or a metacopy that the union may not follow.
    fn refusal<'e>(&self) -> Option<Entry<'e>> {
        let why = match (self.metacopy, self.redirected) {
            (Some(branch), _) if !self.rules.metacopy => Why::Metacopy { branch },
            (_, Some(branch)) if !self.rules.follows_redirects => Why::Redirect { branch },
            _ => return None,
        };
        let errno = Errno::PERM;
        Some(Entry::Broken { errno, why })
    }

    /// Whether the kernel asks no branch below this one, as far as it knows when it asks this one.
    fn is_last(&self, route: &Route<'_, '_>, part: &Part) -> bool {
        if !self.rules.follows_redirects && !self.has_data {
            route.is_at_end()
        } else if is_upper(self.node, part.branch) {
            false
        } else if self.is_dir || !self.has_data {
            let lowest = route.roots.last();
            lowest.is_some_and(|lowest| lowest.branch == part.branch)
        } else {
            self.last
        }
    }

    /// The first step: what one branch has, along a path where one is wanted.
    fn ask(&mut self, part: &Part) -> Result<Answer> {
        if !self.wants_path() {
            let element = Element {
                name: &self.wanted.clone(),
                start: 0,
                post: b"",
            };
            return self.look(part, &element);
        }
        // Counted from the end, since a redirect on the way changes what is before it.
        let mut left = self.wanted.len() - 1;
        let mut here = part.clone();
        loop {
            let start = self.wanted.len() - left;
            let rest = &self.wanted[start..];
            let end = rest.iter().position(|&byte| byte == b'/');
            let (name, post) = rest.split_at(end.unwrap_or(rest.len()));
            let (name, post) = (name.to_vec(), post.to_vec());
            let element = Element {
                name: &name,
                start,
                post: &post,
            };
            let answer = self.look(&here, &element)?;
            if !element.is_last()
                && let Answer::Directory { dir, .. } = answer
            {
                let at = (here.branch, self.node.grammar(&here));
                here = Part::new(at, dir, Reading::Nothing);
                left = post.len() - 1;
            } else {
                return Ok(answer);
            }
        }
    }

    /// What one directory has of one name.
    fn look(&mut self, part: &Part, element: &Element<'_>) -> Result<Answer> {
        let name = element.name;
        let branch = part.branch;
        let grammar = self.node.grammar(part);
        if name == b"." || name == b".." {
            return Ok(bad_redirect(Errno::ACCESS, branch));
        }
        let opened = Cell::new(None);
        let expected = if element.is_last() {
            self.question.expected
        } else {
            Expected::Directory
        };
        let source = part.source_for(grammar, expected, &opened);
        let seen = match self.seen(branch) {
            Some(seen) => seen,
            None => match grammar.look(&source, name) {
                Err(Errno::NAMETOOLONG) => return Ok(Answer::Nothing),
                seen => seen.map_err(|errno| self.error(part, name, errno))?,
            },
        };
        self.is_emptied |= seen.whiteout == Validity::TakenBack;
        let is_looked_past = || {
            let question = self.question;
            element.is_last() && question.looks_past(branch, MarkKind::Whiteout)
        };
        if seen.whiteout.ends_search() && !is_looked_past() {
            self.stop = true;
            let mark = grammar.name_of_whiteout(&source, name);
            return Ok(Answer::Whiteout(Cut {
                branch,
                mark: self.path_in(part, &mark),
                kind: MarkKind::Whiteout,
                // A redirect may have asked for another name.
                of: self.node.path_of(self.question.name),
            }));
        }
        match seen.entry {
            None => Ok(Answer::Nothing),
            // The content of a file can only be a file's.
            Some(kind) if self.metacopy.is_some() && element.is_last() && kind != Kind::File => {
                self.stop = true;
                Ok(Answer::Skipped)
            }
            Some(Kind::Directory) => self.directory(part, element, opened.take()),
            Some(kind) => self.leaf(part, element, (kind, &seen), &source),
        }
    }

    /// What is known already of the name that is wanted, in a branch's directory of this place.
    fn seen(&self, branch: usize) -> Option<Seen> {
        let (of, seen) = self.question.seen?;
        (of == branch && self.redirected.is_none()).then_some(seen)
    }

    /// What something is that is no directory.
    fn leaf(
        &mut self,
        part: &Part,
        element: &Element<'_>,
        (kind, seen): (Kind, &Seen),
        source: &Source<'_>,
    ) -> Result<Answer> {
        let branch = part.branch;
        if self.is_dir || !element.is_last() {
            self.stop = true;
            return Ok(Answer::Skipped);
        }
        let grammar = self.node.grammar(part);
        let is_content = self.metacopy.is_some();
        let is_metacopy = kind == Kind::File
            && match grammar.metacopy(source, element.name, seen) {
                Err(Errno::IO) => {
                    return Ok(Answer::Broken(Errno::IO, Why::BadMetacopy { branch }));
                }
                found => found.map_err(|errno| self.error(part, element.name, errno))?,
            };
        self.metacopy = is_metacopy.then_some(branch);
        self.stop = !is_metacopy;
        if is_metacopy && !self.last {
            match grammar.redirect(source, Some(element.name)) {
                Err(Errno::INVAL) => return Ok(bad_redirect(Errno::INVAL, branch)),
                found => {
                    let found = found.map_err(|errno| self.error(part, element.name, errno))?;
                    self.heed(found, branch, element);
                }
            }
        }
        let path = is_content.then(|| self.path_in(part, element.name));
        Ok(Answer::Leaf(kind, seen.stat, path))
    }

    /// What a directory is, and what its attributes say. `opened` is the directory where it is
    /// open.
    fn directory(
        &mut self,
        part: &Part,
        element: &Element<'_>,
        opened: Option<Dir>,
    ) -> Result<Answer> {
        let branch = part.branch;
        let grammar = self.node.grammar(part);
        let dir = part.enter(element.name, opened, self.node.reading);
        let dir = dir.map_err(|errno| self.error(part, element.name, errno))?;
        self.is_dir |= element.is_last();
        let mut is_opaque = false;
        if !self.last || grammar.always_reads_opaque() {
            let source = Source::Disk(&dir);
            let listed = grammar.attributes_of(&dir);
            let listed = listed.map_err(|errno| self.error(part, element.name, errno))?;
            let found = match grammar.opaque_of(&source, &listed) {
                Err(Errno::RANGE) => {
                    return Ok(Answer::Broken(Errno::RANGE, Why::BadOpaque { branch }));
                }
                found => found.map_err(|errno| self.error(part, element.name, errno))?,
            };
            let is_looked_past =
                element.is_last() && self.question.looks_past(branch, MarkKind::Opaque);
            is_opaque = found == Validity::Valid && !is_looked_past;
            if is_opaque {
                self.stop = true;
            } else {
                match grammar.redirect_of(&source, &listed) {
                    Err(Errno::INVAL) => return Ok(bad_redirect(Errno::INVAL, branch)),
                    found => {
                        let found = found.map_err(|errno| self.error(part, element.name, errno))?;
                        self.heed(found, branch, element);
                    }
                }
            }
        }
        Ok(Answer::Directory {
            dir,
            is_opaque: is_opaque && element.is_last(),
        })
    }

    /// Heeds the redirect of an entry, if it has one.
    fn heed(&mut self, redirect: Option<Vec<u8>>, branch: usize, element: &Element<'_>) {
        let is_path = |redirect: &Vec<u8>| redirect.starts_with(b"/");
        // The kernel forgets it over whatever it looks at next, be that only on the way.
        self.is_absolute = redirect.as_ref().is_some_and(is_path);
        let Some(redirect) = redirect else {
            return;
        };
        // A path leads on, though a directory on the way to it was opaque.
        self.stop &= !self.is_absolute;
        self.wanted = if self.is_absolute {
            [&redirect, element.post].concat()
        } else {
            [&self.wanted[..element.start], &redirect, element.post].concat()
        };
        self.redirected = Some(branch);
    }

    /// Where a branch has a name of one of its directories.
    fn path_in(&self, part: &Part, name: &[u8]) -> Bytes {
        self.node
            .path_in(part.branch, &part.dir, name, Bytes::default())
    }

    fn error(&self, part: &Part, name: &[u8], errno: Errno) -> Error {
        let path = self.path_in(part, name);
        Error::io(self.node.stack.on_host(part.branch, &path), errno)
    }

    /// The content of the file that is wanted, in the branches that give nothing else. No link is
    /// followed.
    fn in_data(&self) -> Result<DataAt> {
        let path = Bytes::from(&self.wanted[..]);
        let branches = self.node.stack.branches.iter().enumerate();
        let mut all = branches.filter(|(_, of)| of.grammar.is_data_only());
        let first = all.clone().next().map_or(0, |(branch, _)| branch);
        let has = |branch: usize| {
            let found = self.node.stack.version(branch, &path)?;
            Ok(found.is_some_and(|stat| stat.kind == Kind::File))
        };
        let found = all.find_map(|(branch, _)| match has(branch) {
            Ok(false) => None,
            Ok(true) => Some(Ok(branch)),
            Err(error) => Some(Err(error)),
        });
        Ok(DataAt {
            is_lost: found.is_none(),
            branch: found.transpose()?.unwrap_or(first),
            path,
        })
    }
}

/// What the branches that were asked make of a name together.
struct Merge<'n, 's> {
    node: &'n Node<'s>,
    name: &'n [u8],
    /// The branch and the kind of what is no directory.
    leaf: Option<(usize, Kind, Option<Stat>)>,
    /// Where its content is, if that is not there.
    content: Option<DataAt>,
    directories: Parts,
    /// The whiteout that ended the search.
    whiteout: Option<Cut>,
    cuts: Vec<Arc<Cut>>,
}

impl<'n, 's> Merge<'n, 's> {
    fn new(node: &'n Node<'s>, name: &'n [u8]) -> Merge<'n, 's> {
        Merge {
            node,
            name,
            leaf: None,
            content: None,
            directories: Parts::new(),
            whiteout: None,
            cuts: node.cuts.clone(),
        }
    }

    /// The second step: what a branch has is merged with what those above it have. Returns what
    /// the name means where no branch below can change that.
    fn add(
        &mut self,
        branch: usize,
        answer: Answer,
        search: &Search<'_, '_>,
        says: &mut dyn FnMut(usize, Says),
    ) -> Option<Entry<'s>> {
        match answer {
            Answer::Nothing => says(branch, Says::Nothing),
            Answer::Skipped => says(branch, Says::Skipped),
            Answer::Broken(errno, why) => {
                says(branch, Says::Invalid);
                return Some(Entry::Broken { errno, why });
            }
            Answer::Whiteout(cut) => {
                says(branch, Says::Whiteout);
                add_cut(&mut self.cuts, branch, cut.kind, || cut.clone());
                self.whiteout = Some(cut);
            }
            Answer::Leaf(kind, stat, _) if self.leaf.is_none() => {
                says(branch, Says::Provides);
                self.leaf = Some((branch, kind, stat));
            }
            Answer::Leaf(.., path) => {
                says(branch, Says::ProvidesData);
                self.content = path.map(|path| DataAt {
                    branch,
                    path,
                    is_lost: false,
                });
            }
            Answer::Directory { dir, is_opaque } => {
                let is_first = self.directories.is_empty();
                says(branch, Says::of_directory(is_first, is_opaque));
                let (node, name) = (self.node, self.name);
                if is_opaque {
                    add_cut(&mut self.cuts, branch, MarkKind::Opaque, || Cut {
                        branch,
                        mark: node.path_in(branch, &dir, b"", Bytes::default()),
                        kind: MarkKind::Opaque,
                        of: node.path_of(name),
                    });
                }
                let at = (branch, node.stack.branches[branch].grammar);
                let part = Part::new(at, dir, node.reading);
                self.directories.push(if search.is_emptied {
                    part.emptied()
                } else {
                    part
                });
            }
        }
        None
    }

    /// The third step: a file without content is looked for in the branches that give only that,
    /// and what the union may not follow is refused. What opaque directories hide was not asked.
    fn cut(
        mut self,
        mut search: Search<'_, '_>,
        says: &mut dyn FnMut(usize, Says),
    ) -> Result<Entry<'s>> {
        let node = self.node;
        // Data-only branches are asked for what a lower branch has the metadata of, not the upper.
        let is_below = self.content.is_some()
            || self
                .leaf
                .is_some_and(|(branch, ..)| !is_upper(node, branch));
        if search.metacopy.is_some() && search.has_data && search.is_absolute && is_below {
            let content = search.in_data()?;
            if !content.is_lost {
                says(content.branch, Says::ProvidesData);
            }
            self.content = Some(content);
            search.metacopy = None;
        } else if let Some(refusal) = search.refusal() {
            return Ok(refusal);
        }
        if let Some(branch) = search.metacopy {
            let (errno, why) = (Errno::IO, Why::NoData { branch });
            return Ok(Entry::Broken { errno, why });
        }
        if let Some((from, kind, stat)) = self.leaf {
            return Ok(Entry::Leaf {
                from,
                kind,
                stat,
                data: self.content.map(Box::new),
            });
        }
        if self.directories.is_empty() {
            return Ok(match self.whiteout {
                Some(by) => Entry::Deleted { by },
                None => Entry::Missing,
            });
        }
        let is_redirected = node.shown.is_some() || search.redirected.is_some();
        Ok(Entry::Dir(Node {
            stack: node.stack,
            shown: is_redirected.then(|| node.path_of(self.name)),
            parts: self.directories,
            cuts: self.cuts,
            reading: node.reading,
            roots: node.roots.clone(),
        }))
    }
}

fn is_upper(node: &Node<'_>, branch: usize) -> bool {
    node.stack.branches[branch].permission.is_writable()
}

fn bad_redirect(errno: Errno, branch: usize) -> Answer {
    Answer::Broken(errno, Why::BadRedirect { branch })
}
