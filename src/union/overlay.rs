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

use rustix::io::Errno;

use super::{
    Branch, Cut, DataAt, Entry, Expected, Node, Part, Parts, Question, Says, Why, add_cut,
};
use crate::bytes::Bytes;
use crate::dir::{Dir, Kind};
use crate::error::{Error, Result};
use crate::overlay::Rules;
use crate::whiteout::{Grammar, MarkKind, Source, Validity};

/// How far the search for a name has come.
struct Search {
    /// What the next branch is asked for: a name, or a path from its root.
    wanted: Vec<u8>,
    /// A directory was found.
    is_dir: bool,
    /// No further branch is asked.
    stop: bool,
    /// This is the last branch: what would concern those below it is not looked at.
    last: bool,
    /// A redirect was met, and by whom.
    redirected: Option<usize>,
    /// What was looked at last has a redirect, which is a path.
    is_absolute: bool,
    /// A file was found that has its content below, and by whom.
    metacopy: Option<usize>,
    /// A directory that is found now shows nothing.
    is_emptied: bool,
}

/// What a branch has of a name.
enum Layer {
    Nothing,
    /// Something that the search passes over.
    Skipped,
    Whiteout(Cut),
    /// And where it is in its branch, if the content of another one is looked for.
    Leaf(Kind, Option<Bytes>),
    Dir {
        dir: Dir,
        opaque: bool,
    },
    Broken(Errno, Why),
}

impl<'s> Node<'s> {
    pub(super) fn decide_overlay(
        &self,
        rules: Rules,
        question: &Question<'_>,
        says: &mut dyn FnMut(usize, Says),
    ) -> Result<Entry<'s>> {
        let name = question.name;
        let broken = |errno, why| Ok(Entry::Broken { errno, why });
        let stack = self.stack;
        let Some(roots) = self.roots.as_ref() else {
            return Ok(Entry::Missing);
        };
        let is_too_long = Grammar::Overlay(rules).refuses(name).is_some();
        let grammar = stack.branches.first().map(|branch| branch.grammar);
        match grammar {
            // It denies that it has any name that is a mark's, or too long for one.
            Some(grammar @ Grammar::FuseOverlay(_)) if is_too_long || grammar.hides_entry(name) => {
                return Ok(Entry::Missing);
            }
            _ if is_too_long => return broken(Errno::NAMETOOLONG, Why::TooLong),
            _ => {}
        }
        // They are the lowest.
        let has_data = stack.branches.last().is_some_and(is_data);
        let checks_redirects = rules.follows_redirects || has_data;
        let is_upper = |part: &Part| stack.branches[part.branch].permission.is_writable();
        let mut search = Search {
            wanted: name.to_vec(),
            is_dir: false,
            stop: false,
            last: false,
            redirected: None,
            is_absolute: false,
            metacopy: None,
            is_emptied: false,
        };
        let mut parts: &[Part] = &self.parts;
        let mut is_root = self.is_root();
        let mut at = 0;
        let mut found = Parts::new();
        // A leaf: its branch and kind; then where the content is, if it is not there.
        let mut leaf: Option<(usize, Kind)> = None;
        let mut content: Option<DataAt> = None;
        let mut cuts = self.cuts.clone();
        let mut deleted = None;
        while let Some(part) = parts.get(at).filter(|_| !search.stop) {
            at += 1;
            let branch = part.branch;
            let below_upper = !is_upper(part);
            if below_upper && let Some((errno, why)) = refused(&search, rules) {
                return broken(errno, why);
            }
            if !below_upper {
                search.last = !checks_redirects && at == parts.len();
            } else if !checks_redirects {
                search.last = at == parts.len();
            } else if search.is_dir || !has_data {
                search.last = roots.last().is_some_and(|last| last.branch == branch);
            }
            match self.in_branch(part, &mut search, question)? {
                Layer::Broken(errno, why) => {
                    says(branch, Says::Invalid);
                    return broken(errno, why);
                }
                Layer::Nothing => says(branch, Says::Nothing),
                Layer::Skipped => says(branch, Says::Skipped),
                Layer::Whiteout(mut cut) => {
                    says(branch, Says::Whiteout);
                    // A redirect may have asked for another name.
                    cut.of = self.path_of(name);
                    add_cut(&mut cuts, branch, cut.kind, || cut.clone());
                    deleted = Some(cut);
                }
                Layer::Leaf(kind, path) => match leaf {
                    None => {
                        says(branch, Says::Provides);
                        leaf = Some((branch, kind));
                    }
                    Some(_) => {
                        says(branch, Says::ProvidesData);
                        content = path.map(|path| DataAt { branch, path });
                    }
                },
                Layer::Dir { dir, opaque } => {
                    says(branch, Says::of_directory(found.is_empty(), opaque));
                    if opaque {
                        add_cut(&mut cuts, branch, MarkKind::Opaque, || Cut {
                            branch,
                            mark: self.path_in(branch, &dir, b"", Bytes::default()),
                            kind: MarkKind::Opaque,
                            of: self.path_of(name),
                        });
                    }
                    let at = (branch, stack.branches[branch].grammar);
                    let part = Part::new(at, dir, self.reading);
                    found.push(if search.is_emptied {
                        part.emptied()
                    } else {
                        part
                    });
                }
            }
            if !search.stop && search.wanted.starts_with(b"/") && !is_root {
                is_root = true;
                parts = roots;
                // From the roots of the branches below this one.
                at = parts.partition_point(|part| part.branch <= branch);
            }
        }
        // Data-only branches are asked for what a lower branch has the metadata of, not the upper.
        let is_below = content.is_some()
            || leaf.is_some_and(|(branch, _)| !stack.branches[branch].permission.is_writable());
        if search.metacopy.is_some() && has_data && search.is_absolute && is_below {
            content = self.in_data(&search.wanted)?;
            if let Some(content) = &content {
                says(content.branch, Says::ProvidesData);
            }
            search.metacopy = None;
        } else if let Some((errno, why)) = refused(&search, rules) {
            return broken(errno, why);
        }
        if let Some(branch) = search.metacopy {
            return broken(Errno::IO, Why::NoData { branch });
        }
        if let Some((from, kind)) = leaf {
            return Ok(Entry::Leaf {
                from,
                kind,
                data: content.map(Box::new),
            });
        }
        if found.is_empty() {
            return Ok(match deleted {
                Some(by) => Entry::Deleted { by },
                None => Entry::Missing,
            });
        }
        let is_redirected = self.shown.is_some() || search.redirected.is_some();
        Ok(Entry::Dir(Node {
            stack,
            shown: is_redirected.then(|| self.path_of(name)),
            parts: found,
            cuts,
            reading: self.reading,
            roots: self.roots.clone(),
        }))
    }

    /// One branch's answer, along a path where one is wanted.
    fn in_branch(
        &self,
        part: &Part,
        search: &mut Search,
        question: &Question<'_>,
    ) -> Result<Layer> {
        if !search.wanted.starts_with(b"/") {
            let name = search.wanted.clone();
            return self.element(part, &name, 0, b"", search, question);
        }
        // Counted from the end, since what is before it can change on the way.
        let mut left = search.wanted.len() - 1;
        let mut here = part.clone();
        loop {
            let start = search.wanted.len() - left;
            let rest = &search.wanted[start..];
            let end = rest
                .iter()
                .position(|&byte| byte == b'/')
                .unwrap_or(rest.len());
            let (name, post) = (rest[..end].to_vec(), rest[end..].to_vec());
            let layer = self.element(&here, &name, start, &post, search, question)?;
            match layer {
                Layer::Dir { dir, .. } if !post.is_empty() => {
                    let at = (here.branch, self.stack.branches[here.branch].grammar);
                    here = Part::new(at, dir, super::Reading::Nothing);
                    left = post.len() - 1;
                }
                layer => return Ok(layer),
            }
        }
    }

    /// One name in one directory. `start` bytes of what is wanted stand before it, `post` after.
    #[allow(clippy::too_many_arguments)]
    fn element(
        &self,
        part: &Part,
        name: &[u8],
        start: usize,
        post: &[u8],
        search: &mut Search,
        question: &Question<'_>,
    ) -> Result<Layer> {
        let without = question.without;
        let branch = part.branch;
        let grammar = self.stack.branches[branch].grammar;
        let path_of = |name: &[u8]| self.path_in(branch, &part.dir, name, Bytes::default());
        let fail = |errno| Error::io(self.stack.on_host(branch, &path_of(name)), errno);
        if name == b"." || name == b".." {
            return Ok(bad_redirect(Errno::ACCESS, branch));
        }
        let is_last_element = post.is_empty();
        let opened = Cell::new(None);
        let expected = if is_last_element {
            question.expected
        } else {
            Expected::Directory
        };
        let source = part.source_for(grammar, expected, &opened);
        let seen = match grammar.look(&source, name) {
            Err(Errno::NAMETOOLONG) => return Ok(Layer::Nothing),
            result => result.map_err(fail)?,
        };
        search.is_emptied |= seen.whiteout == Validity::TakenBack;
        let is_deleted = seen.whiteout.ends_search();
        if is_deleted && !(is_last_element && without == Some((branch, MarkKind::Whiteout))) {
            search.stop = true;
            let mark = grammar.whiteout_name(&source, name).map_err(fail)?;
            return Ok(Layer::Whiteout(Cut {
                branch,
                mark: path_of(mark.as_deref().unwrap_or(name)),
                kind: MarkKind::Whiteout,
                of: self.path_of(name),
            }));
        }
        let Some(kind) = seen.entry else {
            return Ok(Layer::Nothing);
        };
        let is_content = search.metacopy.is_some();
        if is_last_element && is_content && kind != Kind::File {
            search.stop = true;
            return Ok(Layer::Skipped);
        }
        if kind != Kind::Directory {
            if search.is_dir || !is_last_element {
                search.stop = true;
                return Ok(Layer::Skipped);
            }
            let is_metacopy = match kind {
                Kind::File => match grammar.metacopy(&source, name) {
                    Err(Errno::IO) => {
                        return Ok(Layer::Broken(Errno::IO, Why::BadMetacopy { branch }));
                    }
                    result => result.map_err(fail)?,
                },
                _ => false,
            };
            search.metacopy = is_metacopy.then_some(branch);
            search.stop = !is_metacopy;
            if is_metacopy && !search.last {
                match grammar.redirect(&source, Some(name)) {
                    Err(Errno::INVAL) => return Ok(bad_redirect(Errno::INVAL, branch)),
                    result => search.turn(result.map_err(fail)?, branch, start, post),
                }
            }
            return Ok(Layer::Leaf(kind, is_content.then(|| path_of(name))));
        }
        let dir = part
            .enter(name, opened.take(), self.reading)
            .map_err(fail)?;
        search.is_dir |= is_last_element;
        let mut opaque = false;
        // fuse-overlayfs reads the mark of every directory, be there something below or not.
        if !search.last || matches!(grammar, Grammar::FuseOverlay(_)) {
            let source = Source::Disk(&dir);
            let found = match grammar.opaque(&source) {
                // fuse-overlayfs cannot read a mark that is too long.
                Err(Errno::RANGE) => {
                    return Ok(Layer::Broken(Errno::RANGE, Why::BadOpaque { branch }));
                }
                found => found.map_err(fail)?,
            };
            opaque = found == Validity::Valid
                && !(is_last_element && without == Some((branch, MarkKind::Opaque)));
            if opaque {
                search.stop = true;
            } else {
                match grammar.redirect(&source, None) {
                    Err(Errno::INVAL) => return Ok(bad_redirect(Errno::INVAL, branch)),
                    result => search.turn(result.map_err(fail)?, branch, start, post),
                }
            }
        }
        Ok(Layer::Dir {
            dir,
            opaque: opaque && is_last_element,
        })
    }

    /// The content of a file, in the branches that give nothing else. No link is followed.
    fn in_data(&self, path: &[u8]) -> Result<Option<DataAt>> {
        let path = Bytes::from(path);
        for (branch, of) in self.stack.branches.iter().enumerate() {
            if is_data(of)
                && self
                    .stack
                    .version(branch, &path)?
                    .is_some_and(|stat| stat.kind == Kind::File)
            {
                return Ok(Some(DataAt { branch, path }));
            }
        }
        Ok(None)
    }
}

impl Search {
    /// Heeds a redirect, if there is one.
    fn turn(&mut self, redirect: Option<Vec<u8>>, branch: usize, start: usize, post: &[u8]) {
        // Forgotten by whatever is looked at after it, be it only on the way.
        self.is_absolute = redirect
            .as_ref()
            .is_some_and(|redirect| redirect.starts_with(b"/"));
        let Some(redirect) = redirect else {
            return;
        };
        // A path leads on, though a directory on the way to it was opaque.
        self.stop &= !self.is_absolute;
        self.wanted = if self.is_absolute {
            [&redirect, post].concat()
        } else {
            [&self.wanted[..start], &redirect, post].concat()
        };
        self.redirected = Some(branch);
    }
}

fn is_data(branch: &Branch) -> bool {
    branch.grammar == Grammar::OverlayData
}

fn bad_redirect(errno: Errno, branch: usize) -> Layer {
    Layer::Broken(errno, Why::BadRedirect { branch })
}

/// What the union may not follow: `EPERM`, before the next branch is asked.
fn refused(search: &Search, rules: Rules) -> Option<(Errno, Why)> {
    match (search.metacopy, search.redirected) {
        (Some(branch), _) if !rules.metacopy => Some((Errno::PERM, Why::Metacopy { branch })),
        (_, Some(branch)) if !rules.follows_redirects => {
            Some((Errno::PERM, Why::Redirect { branch }))
        }
        _ => None,
    }
}
