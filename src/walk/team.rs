//! Several threads that walk one tree: workers find, one writer gives what they found in order.
//!
//! The walk is a row of parts. A worker hands the end of its part over only to a worker that waits
//! for one, so that every part has a worker until all of it is found. The part that the writer is
//! at therefore always gets on, and so does everything else.
//!
//! ```text
//! who waits                       for what                                woken by
//! a worker without a part         the end of somebody's (`handed_over`)   who splits a part
//! a worker that is far ahead      memory (`given`)                        the writer
//! the writer                      what its part finds (`found`)           that part's worker
//! ```

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::sync::PoisonError;

use super::alone::Walk;
use super::headings::Headings;
use super::rows::{BUNDLE, Bundle, Found, Rows};
use super::sync::{AtomicBool, Condvar, Mutex, MutexGuard, Ordering, scope, spawn};

/// How many directories one thread visits before others are started: most trees are small.
const VISITS_ALONE: usize = 64;

/// How much may wait to be given, in bytes. (The tests' trees are small.)
pub(super) const WAITING_MAX: usize = if cfg!(test) { 4 * BUNDLE } else { 512 * BUNDLE };

/// Visits a tree depth first with so many threads, and gives its rows in order until `give` says
/// that it is enough. One more thread, the caller's, only gives.
pub fn walk_all<D: Send, B: Rows>(
    threads: NonZeroUsize,
    root: D,
    visit: &(impl Fn(D, &mut Found<'_, D, B>) + Sync),
    mut give: impl FnMut(B) -> ControlFlow<()>,
) -> ControlFlow<()> {
    let mut walk = Walk::at(root);
    let mut headings = Headings::new();
    let visits = if threads.get() == 1 {
        usize::MAX
    } else {
        VISITS_ALONE
    };
    let is_done = walk_alone(&mut walk, visits, visit, &mut headings, &mut give)?;
    if is_done {
        return ControlFlow::Continue(());
    }
    walk_together(threads, walk, visit, &mut headings, &mut give)
}

/// Visits as many directories, and gives what is found. Whether all were visited.
fn walk_alone<D, B: Rows>(
    walk: &mut Walk<D, B>,
    visits: usize,
    visit: &impl Fn(D, &mut Found<'_, D, B>),
    headings: &mut Headings<D, B>,
    give: &mut impl FnMut(B) -> ControlFlow<()>,
) -> ControlFlow<(), bool> {
    let mut visit = |directory: D, found: &mut Found<'_, D, B>| visit(directory, found);
    for _ in 0..visits {
        let is_done = !walk.step(&mut visit);
        if is_done || walk.out.is_large() {
            headings.give(walk.out.take(), &mut visit, give)?;
        }
        if is_done {
            return ControlFlow::Continue(true);
        }
    }
    ControlFlow::Continue(false)
}

/// Does what is left of a walk with so many workers. The calling thread is the writer.
pub(super) fn walk_together<D: Send, B: Rows>(
    threads: NonZeroUsize,
    walk: Walk<D, B>,
    visit: &(impl Fn(D, &mut Found<'_, D, B>) + Sync),
    headings: &mut Headings<D, B>,
    give: &mut impl FnMut(B) -> ControlFlow<()>,
) -> ControlFlow<()> {
    let team = &Team::new(walk);
    scope(|scope| {
        let _end = End(team);
        let workers = (0..threads.get()).filter(|_| spawn(scope, || team.work(visit)));
        let workers = workers.count();
        // Where no thread can be had, the work is the writer's.
        let unclaimed = if workers == 0 {
            team.lock().handed.pop()
        } else {
            None
        };
        match unclaimed {
            Some((_, mut walk)) => {
                walk_alone(&mut walk, usize::MAX, visit, headings, give)?;
                ControlFlow::Continue(())
            }
            None => team.write(visit, headings, give),
        }
    })
}

/// What the threads share.
struct Team<D, B> {
    state: Mutex<State<D, B>>,
    /// A worker without a part waits for one.
    handed_over: Condvar,
    /// A worker that is far ahead waits until more was given.
    given: Condvar,
    /// The writer waits for the part that it is at.
    found: Condvar,
    /// [`State::is_wanted`], which workers look at after every visit.
    is_wanted: AtomicBool,
    /// Whether every thread is to stop.
    is_over: AtomicBool,
}

struct State<D, B> {
    /// The parts as they were made, the first part of the walk first. Their order in the walk is
    /// that of [`Part::next`].
    parts: Vec<Part<D, B>>,
    /// The part that the writer is at.
    front: usize,
    /// What waits to be given, in bytes.
    waiting: usize,
    /// How many workers have no part.
    idle: usize,
    /// What was handed over and its new worker has not begun with.
    handed: Vec<(usize, Walk<D, B>)>,
}

/// What is known of a part of the walk.
struct Part<D, B> {
    /// What was found in it and waits to be given.
    found: VecDeque<Bundle<D, B>>,
    /// Whether everything in it was found.
    is_done: bool,
    /// The part that follows.
    next: Option<usize>,
}

impl<D, B> Part<D, B> {
    fn before(next: Option<usize>) -> Part<D, B> {
        Part {
            found: VecDeque::new(),
            is_done: false,
            next,
        }
    }
}

impl<D, B> State<D, B> {
    /// Whether a worker waits for a part. While much waits to be given it gets none: a part that is
    /// begun finds something at least.
    fn is_wanted(&self) -> bool {
        self.idle > self.handed.len() && self.waiting <= WAITING_MAX
    }

    /// Whether a part's worker is to wait until more was given. It never is where the writer waits
    /// for it.
    fn is_ahead(&self, part: usize) -> bool {
        let is_next = part == self.front && self.parts[part].found.is_empty();
        self.waiting > WAITING_MAX && !is_next
    }
}

impl<D: Send, B: Rows> Team<D, B> {
    /// The walk is handed over to the first worker that comes.
    fn new(walk: Walk<D, B>) -> Team<D, B> {
        Team {
            state: Mutex::new(State {
                parts: vec![Part::before(None)],
                front: 0,
                waiting: 0,
                idle: 0,
                handed: vec![(0, walk)],
            }),
            handed_over: Condvar::new(),
            given: Condvar::new(),
            found: Condvar::new(),
            is_wanted: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<D, B>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    /// Notes whether a part is wanted, after anything changed that tells.
    fn note_wanted(&self, state: &State<D, B>) {
        self.is_wanted.store(state.is_wanted(), Ordering::Relaxed);
    }

    /// Finds what is in one part after the other, until the team ends.
    fn work(&self, visit: &impl Fn(D, &mut Found<'_, D, B>)) {
        // A worker that panics takes the others with it: nobody would ever be done with its part.
        let _end = End(self);
        while let Some((part, walk)) = self.take_over() {
            self.find(part, walk, visit);
        }
    }

    /// Waits for a part; `None` when the team ends.
    fn take_over(&self) -> Option<(usize, Walk<D, B>)> {
        let mut state = self.lock();
        state.idle += 1;
        self.note_wanted(&state);
        while !self.is_over() {
            if let Some(handed) = state.handed.pop() {
                state.idle -= 1;
                return Some(handed);
            }
            state = wait(&self.handed_over, state);
        }
        None
    }

    /// Finds what is in a part, and hands its end over whenever somebody wants it.
    fn find(&self, part: usize, mut walk: Walk<D, B>, visit: &impl Fn(D, &mut Found<'_, D, B>)) {
        let mut visit = |directory: D, found: &mut Found<'_, D, B>| visit(directory, found);
        while !self.is_over() {
            let is_done = !walk.step(&mut visit);
            if self.is_wanted.load(Ordering::Relaxed) && walk.can_split() {
                self.hand_over(part, &mut walk);
            }
            if is_done || walk.out.is_large() {
                self.put(part, walk.out.take(), is_done);
            }
            if is_done {
                return;
            }
        }
    }

    /// Makes the end of a part one of its own, unless another worker was faster.
    fn hand_over(&self, part: usize, walk: &mut Walk<D, B>) {
        let mut state = self.lock();
        if state.is_wanted()
            && let Some(end) = walk.split()
        {
            let made = state.parts.len();
            let next = state.parts[part].next.replace(made);
            state.parts.push(Part::before(next));
            state.handed.push((made, end));
            self.note_wanted(&state);
            self.handed_over.notify_one();
        }
    }

    /// Puts what was found where the writer gets it. Who has more to find waits while it is ahead.
    fn put(&self, part: usize, found: Bundle<D, B>, is_done: bool) {
        let mut state = self.lock();
        state.waiting += found.size;
        state.parts[part].found.push_back(found);
        state.parts[part].is_done = is_done;
        self.note_wanted(&state);
        if part == state.front {
            self.found.notify_one();
        }
        while !is_done && state.is_ahead(part) && !self.is_over() {
            state = wait(&self.given, state);
        }
    }

    /// Gives what the parts found, in their order.
    fn write(
        &self,
        visit: &impl Fn(D, &mut Found<'_, D, B>),
        headings: &mut Headings<D, B>,
        give: &mut impl FnMut(B) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let mut visit = |directory: D, found: &mut Found<'_, D, B>| visit(directory, found);
        while let Some(found) = self.next_found() {
            headings.give(found, &mut visit, give)?;
        }
        ControlFlow::Continue(())
    }

    /// Waits for what comes next; `None` behind the last part, or when a worker panicked.
    fn next_found(&self) -> Option<Bundle<D, B>> {
        let mut state = self.lock();
        while !self.is_over() {
            let front = state.front;
            let part = &mut state.parts[front];
            if let Some(found) = part.found.pop_front() {
                state.waiting -= found.size;
                self.note_wanted(&state);
                self.given.notify_all();
                return Some(found);
            }
            if part.is_done {
                state.front = part.next?;
            } else {
                state = wait(&self.found, state);
            }
        }
        None
    }

    /// Makes all threads stop, those that wait among them.
    fn end(&self) {
        // The lock is held, so that nobody looks before and waits after it.
        let _state = self.lock();
        self.is_over.store(true, Ordering::Relaxed);
        self.handed_over.notify_all();
        self.given.notify_all();
        self.found.notify_all();
    }
}

fn wait<'t, T>(condition: &Condvar, state: MutexGuard<'t, T>) -> MutexGuard<'t, T> {
    let state = condition.wait(state);
    state.unwrap_or_else(PoisonError::into_inner)
}

/// Ends the team when it is dropped, however its thread ends.
struct End<'t, D: Send, B: Rows>(&'t Team<D, B>);

impl<D: Send, B: Rows> Drop for End<'_, D, B> {
    fn drop(&mut self) {
        self.0.end();
    }
}
