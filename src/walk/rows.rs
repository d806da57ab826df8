//! What a visit finds: rows, and further directories, in the order in which they are to come out.

use std::mem::{replace, take};
use std::vec::IntoIter;

/// Rows that come before others, if there are any.
pub enum Heading<D, B> {
    /// The rows themselves.
    Rows(B),
    /// A directory whose visit finds them. It is visited only when they are wanted: in a deep tree
    /// the headings of all levels wait.
    Directory(D),
}

/// What a walk finds, gathered.
pub trait Rows: Default + Send {
    /// Whether nobody would see anything of it.
    fn is_empty(&self) -> bool;
    /// Whether there is nothing at all, not even what nobody sees.
    fn is_nothing(&self) -> bool {
        self.is_empty()
    }
    /// About how much memory it takes, in bytes.
    fn size(&self) -> usize;
    /// Puts what was found later behind it.
    fn append(&mut self, later: Self);
    /// An empty one that has room for as much.
    fn with_room_for(like: &Self) -> Self;
}

impl<R: Send> Rows for Vec<R> {
    fn is_empty(&self) -> bool {
        self.is_empty()
    }

    fn size(&self) -> usize {
        size_of_val(&self[..])
    }

    fn append(&mut self, mut later: Self) {
        Vec::append(self, &mut later);
    }

    fn with_room_for(like: &Self) -> Self {
        Vec::with_capacity(like.len())
    }
}

/// How large a bundle is at least, in bytes; only the last of a walk may be smaller.
pub(super) const BUNDLE: usize = if cfg!(test) { 1 << 10 } else { 32 << 10 };

/// How much waits behind the directories of a walk before no more is found ahead of its turn, in
/// bytes.
pub(super) const BEHIND_MAX: usize = if cfg!(test) { 256 } else { 32 * BUNDLE };

/// What one visit finds: rows and further directories, in their order.
pub struct Found<'w, D, B> {
    out: &'w mut Out<D, B>,
    /// Further directories, each with the rows that come after all that is below it.
    pub(super) directories: Vec<(D, B)>,
    /// The rows that wait behind all directories of the walk but the last, in bytes.
    pub(super) behind: usize,
    pub(super) has_heading: bool,
}

impl<'w, D, B: Rows> Found<'w, D, B> {
    pub(super) fn new(out: &'w mut Out<D, B>, behind: usize) -> Found<'w, D, B> {
        Found {
            out,
            directories: Vec::new(),
            behind,
            has_heading: false,
        }
    }

    /// Where the next row goes.
    pub fn rows(&mut self) -> &mut B {
        match self.directories.last_mut() {
            Some((_, after)) => after,
            None => &mut self.out.now,
        }
    }

    /// A directory that is visited before the rows that follow.
    pub fn directory(&mut self, directory: D) {
        if let Some((_, after)) = self.directories.last() {
            self.behind += after.size();
        }
        self.directories.push((directory, B::default()));
    }

    /// Visits entries in their order, until [`BEHIND_MAX`] waits behind directories. What is left
    /// then had better be a directory of its own ([`Found::rest`]), because every level of a deep
    /// tree waits.
    #[inline]
    pub fn each<E>(
        &mut self,
        entries: &mut impl Iterator<Item = E>,
        mut visit: impl FnMut(E, &mut Self),
    ) {
        loop {
            let after = self.directories.last().map(|(_, after)| after.size());
            if after.is_some_and(|after| self.behind + after >= BEHIND_MAX) {
                return;
            }
            match entries.next() {
                Some(entry) => visit(entry, self),
                None => return,
            }
        }
    }

    /// Makes what is left of a directory's entries one more directory, if any are left.
    pub fn rest<O, K>(
        &mut self,
        directory: O,
        entries: impl Iterator<Item = (Vec<u8>, K)>,
        visited_as: impl FnOnce(Box<Rest<O, K>>) -> D,
    ) {
        let entries: Vec<(Vec<u8>, K)> = entries.collect();
        if !entries.is_empty() {
            let entries = entries.into_iter();
            self.directory(visited_as(Box::new(Rest { directory, entries })));
        }
    }

    /// Visits what was left of a directory.
    pub fn each_of_rest<O, K>(
        &mut self,
        mut rest: Box<Rest<O, K>>,
        mut visit: impl FnMut(&O, Vec<u8>, K, &mut Self),
        visited_as: impl FnOnce(Box<Rest<O, K>>) -> D,
    ) {
        let Rest { directory, entries } = &mut *rest;
        self.each(entries, |(name, known), found| {
            visit(directory, name, known, found);
        });
        if entries.len() > 0 {
            self.directory(visited_as(rest));
        }
    }

    /// Rows that count only if there are others in this directory, or below it. They are the
    /// first of it.
    pub fn heading(&mut self, heading: Heading<D, B>) {
        self.out.cut();
        self.out.push(Piece::Open(heading));
        self.has_heading = true;
    }
}

/// What is left of a directory of which some entries were visited: the names of the others, and
/// what is known of each.
pub struct Rest<O, K> {
    /// The directory itself.
    pub directory: O,
    entries: IntoIter<(Vec<u8>, K)>,
}

/// A part of what was found.
pub(super) enum Piece<D, B> {
    Rows(B),
    /// Everything up to its [`Piece::Close`] is below this heading.
    Open(Heading<D, B>),
    Close,
}

/// What a walk has found and nobody has taken yet.
pub(super) struct Out<D, B> {
    pub(super) pieces: Vec<Piece<D, B>>,
    /// The pieces' size, in bytes.
    pub(super) size: usize,
    /// The rows behind the last piece.
    pub(super) now: B,
}

/// What is given away at once.
pub(super) struct Bundle<D, B> {
    pub(super) pieces: Vec<Piece<D, B>>,
    /// In bytes.
    pub(super) size: usize,
}

impl<D, B: Rows> Out<D, B> {
    pub(super) fn new() -> Out<D, B> {
        Out {
            pieces: Vec::new(),
            size: 0,
            now: B::default(),
        }
    }

    fn cut(&mut self) {
        if self.now.is_nothing() {
            return;
        }
        // Once there was much, there will be again.
        let next = if self.now.size() >= BUNDLE {
            B::with_room_for(&self.now)
        } else {
            B::default()
        };
        let now = replace(&mut self.now, next);
        self.push(Piece::Rows(now));
    }

    fn push(&mut self, piece: Piece<D, B>) {
        self.size += size_of::<Piece<D, B>>();
        if let Piece::Rows(rows) | Piece::Open(Heading::Rows(rows)) = &piece {
            self.size += rows.size();
        }
        self.pieces.push(piece);
    }

    /// Ends a directory below which everything was found. The rows `after` it are next.
    pub(super) fn end(&mut self, closes: bool, after: B) {
        if closes {
            self.cut();
            self.close();
        }
        self.now.append(after);
    }

    /// Ends what a heading is of. A heading of nothing is forgotten.
    fn close(&mut self) {
        match self.pieces.pop_if(|last| matches!(last, Piece::Open(_))) {
            Some(Piece::Open(heading)) => {
                self.size -= size_of::<Piece<D, B>>();
                if let Heading::Rows(rows) = heading {
                    self.size -= rows.size();
                }
            }
            _ => self.push(Piece::Close),
        }
    }

    pub(super) fn is_large(&self) -> bool {
        self.size + self.now.size() >= BUNDLE
    }

    pub(super) fn take(&mut self) -> Bundle<D, B> {
        self.cut();
        Bundle {
            pieces: take(&mut self.pieces),
            size: take(&mut self.size),
        }
    }
}
