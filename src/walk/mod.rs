//! Trees in order, without recursion and without a limit on their depth: by one thread, or by
//! several that find the same in the same order.
//!
//! What is left of a walk is, for every directory on the way down, the rest of its places. Such a
//! rest can be cut anywhere, and what comes after the cut be walked at the same time: a thread
//! that has nothing to do gets the end of another one's. What it finds waits until everything
//! before it was given.
//!
//! ```text
//! /            [ a  b  c  d ]         one thread goes on with      another gets
//!   b/         [ . x y z ]            b/x b/y b/z                   c d
//! ```

use std::collections::VecDeque;
use std::mem::{replace, take};
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicIsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::vec::IntoIter;

use crate::error::Result;
use crate::union::{Entry, Node, Reading, Stack, Why};

/// What a walk finds, gathered.
pub trait Rows: Default + Send {
    /// Whether there is nothing that anyone would see.
    fn is_empty(&self) -> bool;
    /// Whether there is nothing at all.
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

/// What a visit finds: rows and further places, in the order in which they are to come out.
pub struct Found<'w, P, B> {
    out: &'w mut Out<P, B>,
    /// Further places, each with the rows that come after all that is below it.
    places: Vec<(P, B)>,
    /// How much waits behind all places of the walk, but for the last, in bytes.
    behind: usize,
    has_heading: bool,
}

impl<'w, P, B: Rows> Found<'w, P, B> {
    fn new(out: &'w mut Out<P, B>, behind: usize) -> Found<'w, P, B> {
        Found {
            out,
            places: Vec::new(),
            behind,
            has_heading: false,
        }
    }

    /// Where the next row goes.
    pub fn rows(&mut self) -> &mut B {
        match self.places.last_mut() {
            Some((_, after)) => after,
            None => &mut self.out.now,
        }
    }

    /// A place that is to be visited now: before the rows that follow.
    pub fn place(&mut self, place: P) {
        if let Some((_, after)) = self.places.last() {
            self.behind += after.size();
        }
        self.places.push((place, B::default()));
    }

    /// Visits entries in their order, until so much waits behind places that what is left of them
    /// had better be a place of its own ([`Found::rest`]): of a deep tree every level waits.
    #[inline]
    pub fn each<E>(
        &mut self,
        entries: &mut impl Iterator<Item = E>,
        mut visit: impl FnMut(E, &mut Self),
    ) {
        loop {
            let after = self.places.last().map(|(_, after)| after.size());
            if after.is_some_and(|after| self.behind + after >= BEHIND_MAX) {
                return;
            }
            match entries.next() {
                Some(entry) => visit(entry, self),
                None => return,
            }
        }
    }

    /// What is left of a directory's entries is a place, if there are any.
    pub fn rest<D, K>(
        &mut self,
        directory: D,
        entries: impl Iterator<Item = (Vec<u8>, K)>,
        place: impl FnOnce(Box<Rest<D, K>>) -> P,
    ) {
        let entries: Vec<(Vec<u8>, K)> = entries.collect();
        if !entries.is_empty() {
            let entries = entries.into_iter();
            self.place(place(Box::new(Rest { directory, entries })));
        }
    }

    /// Visits such a place.
    pub fn each_of_rest<D, K>(
        &mut self,
        mut rest: Box<Rest<D, K>>,
        mut visit: impl FnMut(&D, Vec<u8>, K, &mut Self),
        place: impl FnOnce(Box<Rest<D, K>>) -> P,
    ) {
        let Rest { directory, entries } = &mut *rest;
        self.each(entries, |(name, known), found| {
            visit(directory, name, known, found);
        });
        if entries.len() > 0 {
            self.place(place(rest));
        }
    }

    /// Rows that count only if there are others here, or below. They are the first.
    pub fn heading(&mut self, heading: Heading<P, B>) {
        self.out.cut();
        self.out.push(Piece::Open(heading));
        self.has_heading = true;
    }
}

/// What is left of a directory, of which some entries were visited: their names, and what is known
/// of each.
pub struct Rest<D, K> {
    pub directory: D,
    entries: IntoIter<(Vec<u8>, K)>,
}

/// What comes before others, if there are any.
pub enum Heading<P, B> {
    Rows(B),
    /// Where they are found when they are wanted: of a deep tree they all wait.
    Place(P),
}

/// A part of what was found.
enum Piece<P, B> {
    Rows(B),
    /// A heading, and the end of what it is of.
    Open(Heading<P, B>),
    Close,
}

struct Out<P, B> {
    pieces: Vec<Piece<P, B>>,
    /// Of the pieces, in bytes.
    size: usize,
    now: B,
}

/// What a walk has found and not given away yet: how much it is, in bytes.
struct Bundle<P, B> {
    pieces: Vec<Piece<P, B>>,
    size: usize,
}

/// How much a bundle has at least, but for the last one.
const BUNDLE: usize = if cfg!(test) { 1 << 10 } else { 32 << 10 };
/// How much waits behind the places of a walk before no more is found ahead of its turn, in bytes.
const BEHIND_MAX: usize = if cfg!(test) { 256 } else { 32 * BUNDLE };

impl<P, B: Rows> Out<P, B> {
    fn new() -> Out<P, B> {
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

    fn push(&mut self, piece: Piece<P, B>) {
        self.size += size_of::<Piece<P, B>>();
        if let Piece::Rows(rows) | Piece::Open(Heading::Rows(rows)) = &piece {
            self.size += rows.size();
        }
        self.pieces.push(piece);
    }

    /// Everything below a place was found; these rows are next.
    fn end(&mut self, closes: bool, after: B) {
        if closes {
            self.cut();
            self.close();
        }
        self.now.append(after);
    }

    /// Ends what a heading is of. One of nothing is forgotten.
    fn close(&mut self) {
        match self.pieces.pop_if(|last| matches!(last, Piece::Open(_))) {
            Some(Piece::Open(heading)) => {
                self.size -= size_of::<Piece<P, B>>();
                if let Heading::Rows(rows) = heading {
                    self.size -= rows.size();
                }
            }
            _ => self.push(Piece::Close),
        }
    }

    fn is_large(&self) -> bool {
        self.size + self.now.size() >= BUNDLE
    }

    fn take(&mut self) -> Bundle<P, B> {
        self.cut();
        Bundle {
            pieces: take(&mut self.pieces),
            size: take(&mut self.size),
        }
    }
}

/// The rest of a walk.
struct Walk<P, B> {
    /// The directories on the way down.
    levels: Vec<Level<P, B>>,
    /// How many places they have that were not visited.
    left: usize,
    /// How much they have that comes after a place, in bytes.
    behind: usize,
    out: Out<P, B>,
}

/// A directory that was visited.
struct Level<P, B> {
    /// Its places that were not, each with what comes after it.
    places: IntoIter<(P, B)>,
    /// What comes after all of them.
    after: B,
    closes: bool,
}

impl<P, B: Rows> Walk<P, B> {
    fn of(levels: Vec<Level<P, B>>) -> Walk<P, B> {
        Walk {
            left: left(&levels),
            behind: behind(&levels),
            levels,
            out: Out::new(),
        }
    }

    fn at(root: P) -> Walk<P, B> {
        Walk::of(vec![Level {
            places: vec![(root, B::default())].into_iter(),
            after: B::default(),
            closes: false,
        }])
    }

    /// Visits the next place. Whether there was one.
    fn step(&mut self, visit: &mut impl FnMut(P, &mut Found<'_, P, B>)) -> bool {
        while let Some(level) = self.levels.last_mut() {
            if let Some((place, after)) = level.places.next() {
                self.left -= 1;
                let mut found = Found::new(&mut self.out, self.behind);
                visit(place, &mut found);
                let (places, closes) = (found.places, found.has_heading);
                let last = places.last().map_or(0, |(_, after)| after.size());
                self.behind = found.behind + last;
                self.left += places.len();
                match places.is_empty() {
                    true => {
                        self.behind -= after.size();
                        self.out.end(closes, after);
                    }
                    // What is below the last of a directory's places can take its level.
                    false if level.places.len() == 0 && !closes && after.size() == 0 => {
                        let behind = replace(&mut level.after, after);
                        level.after.append(behind);
                        level.places = places.into_iter();
                    }
                    false => self.levels.push(Level {
                        places: places.into_iter(),
                        after,
                        closes,
                    }),
                }
                return true;
            }
            if let Some(level) = self.levels.pop() {
                self.behind -= level.after.size();
                self.out.end(level.closes, level.after);
            }
        }
        false
    }

    /// The end of the walk, which it is then without. There is none if all that is left is one
    /// place.
    fn split(&mut self) -> Option<Walk<P, B>> {
        if self.left < 2 {
            return None;
        }
        let first = self
            .levels
            .iter()
            .position(|level| level.places.len() > 0)?;
        // Half of what the highest directory has, and everything that is left above it. One place
        // is half of something only if there is more below.
        let count = self.levels[first].places.len();
        let kept = if count == self.left {
            count.div_ceil(2)
        } else {
            count / 2
        };
        let mut given: Vec<Level<P, B>> = Vec::with_capacity(first + 1);
        for level in &mut self.levels[..=first] {
            given.push(Level {
                places: take(&mut level.places),
                after: take(&mut level.after),
                closes: take(&mut level.closes),
            });
        }
        if let (Some(own), Some(end)) = (self.levels.get_mut(first), given.last_mut()) {
            let mut rest: Vec<(P, B)> = take(&mut end.places).collect();
            end.places = rest.split_off(kept).into_iter();
            own.places = rest.into_iter();
        }
        self.left = left(&self.levels);
        self.behind = behind(&self.levels);
        Some(Walk::of(given))
    }
}

/// How many places were not visited.
fn left<P, B>(levels: &[Level<P, B>]) -> usize {
    levels.iter().map(|level| level.places.len()).sum()
}

/// How much comes after a place, in bytes.
fn behind<P, B: Rows>(levels: &[Level<P, B>]) -> usize {
    let of_level = |level: &Level<P, B>| {
        let places = level.places.as_slice().iter();
        level.after.size() + places.map(|(_, after)| after.size()).sum::<usize>()
    };
    levels.iter().map(of_level).sum()
}

/// Gives what was found, and a heading when there is something for it to be of.
struct Headings<P, B> {
    open: Vec<Option<Heading<P, B>>>,
    /// How many of them were given: those above the others.
    given: usize,
}

impl<P, B: Rows> Headings<P, B> {
    fn new() -> Headings<P, B> {
        Headings {
            open: Vec::new(),
            given: 0,
        }
    }

    fn give(
        &mut self,
        bundle: Bundle<P, B>,
        visit: &mut impl FnMut(P, &mut Found<'_, P, B>),
        give: &mut impl FnMut(B) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        for piece in bundle.pieces {
            match piece {
                Piece::Open(heading) => self.open.push(Some(heading)),
                Piece::Close => {
                    self.open.pop();
                    self.given = self.given.min(self.open.len());
                }
                Piece::Rows(rows) => {
                    if !rows.is_empty() {
                        for heading in &mut self.open[self.given..] {
                            match heading.take() {
                                Some(Heading::Rows(rows)) => give(rows)?,
                                Some(Heading::Place(place)) => give(rows_of(place, visit))?,
                                None => {}
                            }
                        }
                        self.given = self.open.len();
                    }
                    give(rows)?;
                }
            }
        }
        ControlFlow::Continue(())
    }
}

/// What a heading's place is visited for.
fn rows_of<P, B: Rows>(place: P, visit: &mut impl FnMut(P, &mut Found<'_, P, B>)) -> B {
    let mut out = Out::new();
    visit(place, &mut Found::new(&mut out, 0));
    out.now
}

/// Visits a tree depth first, as far as its rows are asked for. `visit` is given a place and says
/// what is there; its places are visited where they stand among its rows.
pub fn walk<P, R: Send>(
    root: P,
    mut visit: impl FnMut(P, &mut Found<'_, P, Vec<R>>),
) -> impl Iterator<Item = R> {
    let mut walk = Walk::at(root);
    let mut headings = Headings::new();
    let mut ready: VecDeque<R> = VecDeque::new();
    let mut is_over = false;
    std::iter::from_fn(move || {
        while ready.is_empty() && !is_over {
            is_over = !walk.step(&mut visit);
            let _ = headings.give(walk.out.take(), &mut visit, &mut |rows| {
                ready.extend(rows);
                ControlFlow::Continue(())
            });
        }
        ready.pop_front()
    })
}

/// How many places one thread visits before others are started: most trees are small.
const PLACES_ALONE: usize = 64;

/// How much may wait to be given, in bytes: with more, a thread that has found something waits.
/// (The tests' trees are small.)
const WAITING_MAX: usize = if cfg!(test) { 4 * BUNDLE } else { 512 * BUNDLE };

/// After how many places the thread that gives, while it walks another part, looks whether there
/// is something to give.
const PLACES_HELPED: usize = 64;

/// Visits a tree depth first with so many threads, and gives its rows in order until `give` says
/// that it is enough.
pub fn walk_all<P: Send, B: Rows>(
    threads: NonZeroUsize,
    root: P,
    visit: &(impl Fn(P, &mut Found<'_, P, B>) + Sync),
    mut give: impl FnMut(B) -> ControlFlow<()>,
) -> ControlFlow<()> {
    let mut walk = Walk::at(root);
    let mut headings = Headings::new();
    let mut visited = 0;
    let is_alone = threads.get() == 1;
    let mut visit_here = |place: P, found: &mut Found<'_, P, B>| visit(place, found);
    while is_alone || visited < PLACES_ALONE {
        let is_over = !walk.step(&mut visit_here);
        visited += 1;
        if is_over || walk.out.is_large() {
            headings.give(walk.out.take(), &mut visit_here, &mut give)?;
        }
        if is_over {
            return ControlFlow::Continue(());
        }
    }
    let team = Team {
        state: Mutex::new(State {
            parts: vec![Part::new(walk, None)],
            queue: VecDeque::from([0]),
            waiting: 0,
            front: 0,
        }),
        changed: Condvar::new(),
        wanted: AtomicIsize::new(-1),
        is_over: AtomicBool::new(false),
        visit,
    };
    std::thread::scope(|scope| {
        // However this ends, the others are told.
        let _end = End(&team);
        for _ in 1..threads.get() {
            let worker = std::thread::Builder::new().name("walk".into());
            let team = &team;
            // Where no thread can be had, there is one fewer.
            let _ = worker.spawn_scoped(scope, move || {
                let _end = EndIfPanicking(team);
                team.work();
            });
        }
        team.give_all(&mut headings, &mut give)
    })
}

/// Threads that walk one tree.
struct Team<'v, P, B, V> {
    state: Mutex<State<P, B>>,
    changed: Condvar,
    /// How many more threads wait for work than there is work that waits for a thread: at first
    /// there is the whole walk.
    wanted: AtomicIsize,
    is_over: AtomicBool,
    visit: &'v V,
}

struct State<P, B> {
    /// The walk, in the order in which its parts were made; which one follows which they say.
    parts: Vec<Part<P, B>>,
    /// The parts that nobody is at.
    queue: VecDeque<usize>,
    /// How much waits to be given, in bytes.
    waiting: usize,
    /// The part that is given, or is next to be.
    front: usize,
}

impl<P, B> State<P, B> {
    /// Whether what a part has found is too far ahead. What is to be given next never is: else
    /// everybody would wait for each other.
    fn is_ahead(&self, part: usize) -> bool {
        let is_next = part == self.front && self.parts[part].found.is_empty();
        self.waiting > WAITING_MAX && !is_next
    }
}

/// A part of the walk.
struct Part<P, B> {
    /// What is left of it, if nobody is at it.
    walk: Option<Walk<P, B>>,
    found: VecDeque<Bundle<P, B>>,
    is_done: bool,
    next: Option<usize>,
}

impl<P, B> Part<P, B> {
    fn new(walk: Walk<P, B>, next: Option<usize>) -> Part<P, B> {
        Part {
            walk: Some(walk),
            found: VecDeque::new(),
            is_done: false,
            next,
        }
    }
}

/// What the thread that gives does next.
enum Next<P, B> {
    Give(Bundle<P, B>),
    /// The part that is next to be given, at which nobody is.
    Walk(Walk<P, B>),
    /// Another one meanwhile.
    Help(usize, Walk<P, B>),
    End,
}

impl<P: Send, B: Rows, V: Fn(P, &mut Found<'_, P, B>) + Sync> Team<'_, P, B, V> {
    fn lock(&self) -> MutexGuard<'_, State<P, B>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'t>(&self, state: MutexGuard<'t, State<P, B>>) -> MutexGuard<'t, State<P, B>> {
        let state = self.changed.wait(state);
        state.unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_for_work<'t>(&self, state: MutexGuard<'t, State<P, B>>) -> MutexGuard<'t, State<P, B>> {
        self.wanted.fetch_add(1, Ordering::Relaxed);
        let state = self.wait(state);
        self.wanted.fetch_sub(1, Ordering::Relaxed);
        state
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    fn end(&self) {
        // Under the lock, so that nobody looks before and waits after it.
        let _state = self.lock();
        self.is_over.store(true, Ordering::Relaxed);
        self.changed.notify_all();
    }

    /// Takes a part out of the queue.
    fn dequeue(&self, state: &mut State<P, B>, part: usize) -> Option<Walk<P, B>> {
        let walk = state.parts[part].walk.take()?;
        state.queue.retain(|of| *of != part);
        self.wanted.fetch_add(1, Ordering::Relaxed);
        Some(walk)
    }

    fn enqueue(&self, state: &mut State<P, B>, part: usize) {
        state.queue.push_front(part);
        self.wanted.fetch_sub(1, Ordering::Relaxed);
        self.changed.notify_all();
    }

    /// Takes the next place, and gives the end of the walk to a thread that has nothing to do.
    fn step(&self, part: usize, walk: &mut Walk<P, B>) -> bool {
        let has_place = walk.step(&mut |place, found| (self.visit)(place, found));
        if self.wanted.load(Ordering::Relaxed) > 0
            && let Some(end) = walk.split()
        {
            let mut state = self.lock();
            let made = state.parts.len();
            let next = state.parts[part].next.replace(made);
            state.parts.push(Part::new(end, next));
            self.enqueue(&mut state, made);
        }
        has_place
    }

    /// Puts what was found where it will be given from.
    fn put(&self, part: usize, found: Bundle<P, B>, is_done: bool) -> MutexGuard<'_, State<P, B>> {
        let mut state = self.lock();
        state.waiting += found.size;
        state.parts[part].found.push_back(found);
        state.parts[part].is_done = is_done;
        self.changed.notify_all();
        state
    }

    fn work(&self) {
        let mut state = self.lock();
        while !self.is_over() {
            // What is to be given next is never left in the queue by who gives.
            let has_room = state.waiting <= WAITING_MAX;
            let part = state.queue.front().copied().filter(|_| has_room);
            let walk = part.and_then(|part| Some((part, self.dequeue(&mut state, part)?)));
            let Some((part, mut walk)) = walk else {
                state = self.wait_for_work(state);
                continue;
            };
            drop(state);
            state = loop {
                let is_done = !self.step(part, &mut walk);
                if self.is_over() {
                    return;
                }
                if is_done || walk.out.is_large() {
                    let mut state = self.put(part, walk.out.take(), is_done);
                    if is_done {
                        break state;
                    }
                    while state.is_ahead(part) && !self.is_over() {
                        state = self.wait(state);
                    }
                }
            };
        }
    }

    /// What there is to do for the thread that gives, which is at `part`.
    fn next(&self, part: &mut usize) -> Next<P, B> {
        let mut state = self.lock();
        loop {
            if self.is_over() {
                return Next::End;
            }
            let at = &mut state.parts[*part];
            if let Some(found) = at.found.pop_front() {
                state.waiting -= found.size;
                self.changed.notify_all();
                return Next::Give(found);
            }
            match (at.is_done, at.next) {
                (true, None) => return Next::End,
                (true, Some(next)) => {
                    *part = next;
                    state.front = next;
                    self.changed.notify_all();
                    continue;
                }
                (false, _) => {}
            }
            if let Some(walk) = self.dequeue(&mut state, *part) {
                return Next::Walk(walk);
            }
            if state.waiting <= WAITING_MAX / 2
                && let Some(other) = state.queue.front().copied()
                && let Some(walk) = self.dequeue(&mut state, other)
            {
                return Next::Help(other, walk);
            }
            state = self.wait_for_work(state);
        }
    }

    fn give_all(
        &self,
        headings: &mut Headings<P, B>,
        give: &mut impl FnMut(B) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let mut part = 0;
        let mut visit = |place: P, found: &mut Found<'_, P, B>| (self.visit)(place, found);
        loop {
            match self.next(&mut part) {
                Next::End => return ControlFlow::Continue(()),
                Next::Give(found) => headings.give(found, &mut visit, give)?,
                Next::Walk(mut walk) => {
                    while self.step(part, &mut walk) {
                        if walk.out.is_large() {
                            headings.give(walk.out.take(), &mut visit, give)?;
                        }
                        if self.is_over() {
                            break;
                        }
                    }
                    headings.give(walk.out.take(), &mut visit, give)?;
                    self.lock().parts[part].is_done = true;
                }
                Next::Help(other, walk) => self.help(part, other, walk),
            }
        }
    }

    /// Walks another part than that which is next to be given, until there is something to give.
    fn help(&self, part: usize, other: usize, mut walk: Walk<P, B>) {
        loop {
            let is_done = (0..PLACES_HELPED).any(|_| !self.step(other, &mut walk));
            if is_done {
                drop(self.put(other, walk.out.take(), true));
                return;
            }
            let mut state = if walk.out.is_large() {
                self.put(other, walk.out.take(), false)
            } else {
                self.lock()
            };
            let at = &state.parts[part];
            let is_urgent = at.is_done || state.waiting > WAITING_MAX / 2;
            if is_urgent || self.is_over() {
                state.parts[other].walk = Some(walk);
                self.enqueue(&mut state, other);
                return;
            }
        }
    }
}

/// Ends the team's work.
struct End<'t, 'v, P: Send, B: Rows, V: Fn(P, &mut Found<'_, P, B>) + Sync>(&'t Team<'v, P, B, V>);

impl<P: Send, B: Rows, V: Fn(P, &mut Found<'_, P, B>) + Sync> Drop for End<'_, '_, P, B, V> {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// A thread that panics takes the others with it: nobody would ever be done with its part.
struct EndIfPanicking<'t, 'v, P: Send, B: Rows, V: Fn(P, &mut Found<'_, P, B>) + Sync>(
    &'t Team<'v, P, B, V>,
);

impl<P: Send, B: Rows, V: Fn(P, &mut Found<'_, P, B>) + Sync> Drop
    for EndIfPanicking<'_, '_, P, B, V>
{
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.end();
        }
    }
}

/// A place of a branch's own tree. A directory is opened only when its turn comes.
pub enum InBranch<'s> {
    Root,
    Name(Arc<Node<'s>>, Vec<u8>),
}

/// The directory that a place lies in, and its name there; `None` for the root.
pub type Above<'s> = Option<(Arc<Node<'s>>, Vec<u8>)>;

impl<'s> InBranch<'s> {
    /// Opens the directory, in the view of that branch and those below it: `directory` says what
    /// is in it, `refused` what to say of one that the union refuses. Nothing below it means
    /// anything.
    ///
    /// # Errors
    /// What cannot be read.
    pub fn open(
        self,
        stack: &'s Stack,
        branch: usize,
        directory: impl FnOnce(Node<'s>, Above<'s>) -> Result<()>,
        refused: impl FnOnce(&Node<'s>, &[u8], Why),
    ) -> Result<()> {
        match self {
            InBranch::Root => {
                let root = stack.root(|index| index >= branch, Reading::Branch(branch));
                directory(root, None)
            }
            InBranch::Name(parent, name) => match parent.child(&name)? {
                Entry::Dir(node) => directory(node, Some((parent, name))),
                Entry::Broken { why, .. } => {
                    refused(&parent, &name, why);
                    Ok(())
                }
                _ => Ok(()),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A tree, and the names of its rows.
    #[derive(Debug, Clone)]
    struct Tree {
        name: u32,
        is_quiet: bool,
        below: Vec<Tree>,
    }

    fn trees() -> impl Strategy<Value = Tree> {
        let leaf = (0..1000u32, any::<bool>()).prop_map(|(name, is_quiet)| Tree {
            name,
            is_quiet,
            below: Vec::new(),
        });
        leaf.prop_recursive(6, 600, 12, |inner| {
            let below = proptest::collection::vec(inner, 0..12);
            (0..1000u32, any::<bool>(), below).prop_map(|(name, is_quiet, below)| Tree {
                name,
                is_quiet,
                below,
            })
        })
    }

    /// What comes out, by the plainest of recursions. A quiet tree's name counts only if anything
    /// is below it.
    fn expected(tree: &Tree, rows: &mut Vec<u32>) {
        let start = rows.len();
        if !tree.is_quiet {
            rows.push(tree.name);
        }
        for below in &tree.below {
            expected(below, rows);
            rows.push(below.name + 10_000);
        }
        if tree.is_quiet && rows.len() > start {
            rows.insert(start, tree.name);
        }
    }

    #[derive(Clone)]
    enum Place<'t> {
        Tree(&'t Tree),
        Heading(u32),
        Rest(std::slice::Iter<'t, Tree>),
    }

    fn visit<'t>(place: Place<'t>, found: &mut Found<'_, Place<'t>, Vec<u32>>) {
        let mut below = match place {
            Place::Heading(name) => return found.rows().push(name),
            Place::Rest(below) => below,
            Place::Tree(tree) => {
                match tree.is_quiet {
                    true if tree.name % 2 == 0 => found.heading(Heading::Rows(vec![tree.name])),
                    true => found.heading(Heading::Place(Place::Heading(tree.name))),
                    false => found.rows().push(tree.name),
                }
                tree.below.iter()
            }
        };
        found.each(&mut below, |tree, found| {
            found.place(Place::Tree(tree));
            found.rows().push(tree.name + 10_000);
        });
        if below.len() > 0 {
            found.place(Place::Rest(below));
        }
    }

    /// Many small trees below one, so that there is something to share.
    fn forest(trees: &[Tree]) -> Tree {
        Tree {
            name: 1,
            is_quiet: true,
            below: trees.iter().cycle().take(400).cloned().collect(),
        }
    }

    fn same(found: &[u32], wanted: &[u32]) -> Result<(), TestCaseError> {
        let first = found.iter().zip(wanted).position(|(a, b)| a != b);
        let (found, wanted) = (found.len(), wanted.len());
        prop_assert!(
            first.is_none() && found == wanted,
            "{found} rows, not {wanted}; the first that differs is {first:?}"
        );
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]
        #[test]
        fn any_number_of_threads_finds_the_same_in_order(trees in proptest::collection::vec(trees(), 1..5)) {
            let tree = forest(&trees);
            let mut wanted = Vec::new();
            expected(&tree, &mut wanted);
            same(&walk(Place::Tree(&tree), visit).collect::<Vec<u32>>(), &wanted)?;
            for threads in [1, 2, 3, 8] {
                let threads = NonZeroUsize::new(threads).unwrap();
                let mut found = Vec::new();
                let _ = walk_all(threads, Place::Tree(&tree), &visit, |rows| {
                    found.extend(rows);
                    ControlFlow::Continue(())
                });
                same(&found, &wanted)?;
            }
        }

        #[test]
        fn a_cut_anywhere_loses_nothing(tree in trees(), steps in 0usize..200) {
            let mut wanted = Vec::new();
            expected(&tree, &mut wanted);
            let mut first = Walk::at(Place::Tree(&tree));
            let mut visit = |tree, found: &mut Found<'_, _, _>| visit(tree, found);
            for _ in 0..steps {
                first.step(&mut visit);
            }
            let second = first.split();
            let mut found = Vec::new();
            let mut headings = Headings::new();
            for mut walk in [Some(first), second].into_iter().flatten() {
                while walk.step(&mut visit) {}
                let _ = headings.give(walk.out.take(), &mut visit, &mut |rows| {
                    found.extend(rows);
                    ControlFlow::Continue(())
                });
            }
            same(&found, &wanted)?;
        }
    }

    #[test]
    fn what_waits_behind_places_is_bounded() {
        const LEVELS: u32 = 4_000;
        let chain = (0..LEVELS).fold(tree(0, Vec::new()), |below, level| {
            tree(level, vec![below, tree(level, leaves(0..3))])
        });
        let wide = tree(0, leaves(0..LEVELS));
        for (tree, levels) in [(&chain, LEVELS as usize), (&wide, 1)] {
            let mut walk = Walk::at(Place::Tree(tree));
            let (mut found, mut most) = (0, 0);
            while walk.step(&mut |place, found: &mut Found<'_, _, _>| visit(place, found)) {
                assert_eq!(walk.behind, behind(&walk.levels));
                assert_eq!(walk.left, left(&walk.levels));
                most = most.max(walk.behind);
                found += walk.out.now.len();
                walk.out.now.clear();
            }
            let mut wanted = Vec::new();
            expected(tree, &mut wanted);
            assert_eq!(found + walk.out.now.len(), wanted.len());
            // Here every place comes with a row behind it.
            let with_places = levels * size_of::<u32>();
            assert!(
                most <= BEHIND_MAX + with_places,
                "{most} in {levels} levels"
            );
        }
    }

    #[test]
    fn enough_is_enough() {
        let tree = tree(0, leaves(1..100_000));
        for threads in [1, 2, 8] {
            let mut count = 0;
            let ended = walk_all(
                NonZeroUsize::new(threads).unwrap(),
                Place::Tree(&tree),
                &visit,
                |rows| {
                    count += rows.len();
                    ControlFlow::Break(())
                },
            );
            assert_eq!(ended, ControlFlow::Break(()));
            assert!(count < 100_000);
        }
    }

    fn tree(name: u32, below: Vec<Tree>) -> Tree {
        Tree {
            name,
            is_quiet: false,
            below,
        }
    }

    fn leaves(names: std::ops::Range<u32>) -> Vec<Tree> {
        names.map(|name| tree(name, Vec::new())).collect()
    }

    /// How many rows more were found than given, at most, where whoever is given them is slow.
    fn most_waiting<'t>(tree: &'t Tree, threads: usize) -> usize {
        let (found, mut given, mut most) = (AtomicIsize::new(0), 0, 0);
        let counted = |place: Place<'t>, into: &mut Found<'_, _, _>| {
            if let Place::Tree(tree) = &place {
                found.fetch_add(1 + tree.below.len() as isize, Ordering::Relaxed);
            }
            visit(place, into);
        };
        let threads = NonZeroUsize::new(threads).unwrap();
        let _ = walk_all(threads, Place::Tree(tree), &counted, |rows| {
            std::thread::sleep(std::time::Duration::from_micros(200));
            given += rows.len() as isize;
            most = most.max(found.load(Ordering::Relaxed) - given);
            ControlFlow::Continue(())
        });
        most as usize
    }

    /// How many rows may wait for so many threads: each has as much as a bundle at hand.
    fn waiting_max(threads: usize) -> usize {
        (WAITING_MAX + 2 * (threads + 1) * BUNDLE) / size_of::<u32>()
    }

    #[test]
    fn a_reader_that_is_slow_is_not_left_far_behind() {
        let branch = |name| tree(name, leaves(0..200));
        let wide = tree(0, (0..200).map(branch).collect());
        // What is found of the siblings is little each, and much together.
        const LEVELS: u32 = 400;
        let sibling = |name| tree(name, leaves(0..100));
        let chain = (0..LEVELS).fold(tree(0, Vec::new()), |below, level| {
            tree(level, vec![below, sibling(level)])
        });
        for threads in [2, 4] {
            let most = most_waiting(&wide, threads);
            // Of what is being walked, the rows behind each place wait, too.
            assert!(
                most <= waiting_max(threads) + 200,
                "{most} with {threads} threads"
            );
            let most = most_waiting(&chain, threads);
            let behind = 2 * LEVELS as usize;
            assert!(
                most <= waiting_max(threads) + behind,
                "{most} with {threads} threads"
            );
        }
    }

    #[test]
    fn headings_of_nothing_do_not_gather() {
        let quiet = |name| Tree {
            name,
            is_quiet: true,
            below: Vec::new(),
        };
        let outer = Tree {
            below: (0..1_000).map(quiet).collect(),
            ..quiet(1)
        };
        let mut walk = Walk::at(Place::Tree(&outer));
        while walk.step(
            &mut |place, found: &mut Found<'_, _, Vec<u32>>| match place {
                Place::Tree(tree) => {
                    found.heading(Heading::Rows(vec![tree.name]));
                    let places = tree.below.iter().map(Place::Tree);
                    places.for_each(|place| found.place(place));
                }
                _ => unreachable!("nothing is behind a place"),
            },
        ) {
            // That of the outer one, and of the inner one that is visited.
            assert!(walk.out.pieces.len() <= 2);
        }
        assert_eq!((walk.out.pieces.len(), walk.out.size), (0, 0));
    }

    #[test]
    fn the_last_place_takes_no_level() {
        // A directory of which so little is found at once that each step leaves a place and a rest.
        let wide = tree(0, (0..2_000).map(|name| tree(name, leaves(0..2))).collect());
        let outer = tree(0, vec![wide, tree(1, leaves(0..200))]);
        let mut walk = Walk::at(Place::Tree(&outer));
        let mut most = 0;
        while walk.step(&mut |place, found: &mut Found<'_, _, _>| visit(place, found)) {
            most = most.max(walk.levels.len());
        }
        assert!(most <= 8, "{most} levels");
    }

    #[test]
    #[should_panic(expected = "a scoped thread panicked")]
    fn a_panic_ends_all_threads() {
        let _ = walk_all(
            NonZeroUsize::new(4).unwrap(),
            0u32,
            &|place, found: &mut Found<'_, u32, Vec<u32>>| {
                if place == 0 {
                    (1..50_000).for_each(|place| found.place(place));
                }
                let is_other = std::thread::current().name() == Some("walk");
                assert!(!is_other, "of a thread that helps");
                std::thread::sleep(std::time::Duration::from_micros(10));
            },
            |_| ControlFlow::Continue(()),
        );
    }
}
