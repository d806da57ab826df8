//! A model of the team: `shuttle` runs its threads in many of the orders in which they can be
//! scheduled, and says when all wait for each other.
//!
//! [`team`] is compiled here a second time, synchronised by what `shuttle` schedules.

use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use shuttle::rand::{Rng, thread_rng};
use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::{Config, Runner};

use super::{alone, headings, rows};
use alone::Walk;
use headings::Headings;
use rows::{BUNDLE, Found};

#[path = "team.rs"]
#[allow(dead_code, clippy::duplicate_mod)]
mod team;

/// As [`super::sync`].
mod sync {
    pub use shuttle::sync::atomic::{AtomicBool, Ordering};
    pub use shuttle::sync::{Condvar, Mutex, MutexGuard};
    pub use shuttle::thread::{Scope, scope};

    use shuttle::rand::{Rng, thread_rng};

    /// Now and then no thread can be had.
    pub fn spawn<'scope>(
        scope: &'scope Scope<'scope, '_>,
        work: impl FnOnce() + Send + 'scope,
    ) -> bool {
        let is_spawned = thread_rng().gen_bool(0.9);
        if is_spawned {
            scope.spawn(|| super::no_panic(work));
        }
        is_spawned
    }
}

/// What a worker's panic says that is part of a test.
struct Planned;

/// `shuttle` takes every panic of a thread for a failure.
fn no_panic(work: impl FnOnce()) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(work))
        && !panic.is::<Planned>()
    {
        resume_unwind(panic);
    }
}

/// A row so large that few of them fill all the memory that there is.
type Row = [usize; 64];

/// How many directories there are.
const DIRECTORIES: usize = 40;

/// The directories of a tree, numbered level by level. One in three has no row.
fn visit(directory: usize, found: &mut Found<'_, usize, Vec<Row>>) {
    if directory % 3 != 1 {
        found.rows().push([directory; 64]);
    }
    (3 * directory + 1..=3 * directory + 3)
        .filter(|below| *below < DIRECTORIES)
        .for_each(|below| found.directory(below));
}

/// What the tree's rows are, by the plainest of recursions.
fn expected(directory: usize, rows: &mut Vec<Row>) {
    if directory >= DIRECTORIES {
        return;
    }
    if directory % 3 != 1 {
        rows.push([directory; 64]);
    }
    (1..=3).for_each(|below| expected(3 * directory + below, rows));
}

/// Runs `test` in many orders: in random ones, and in those that few preemptions make.
fn in_many_orders(runs: usize, test: impl Fn() + Send + Sync + 'static) {
    let test = Arc::new(test);
    let mut config = Config::default();
    config.silence_warnings = true;
    let again = Arc::clone(&test);
    Runner::new(RandomScheduler::new(runs), config.clone()).run(move || again());
    Runner::new(PctScheduler::new(3, runs), config).run(move || {
        // Its first run has to have two threads, and a walk may get none beside its own.
        let beside = shuttle::thread::spawn(shuttle::thread::yield_now);
        test();
        beside.join().unwrap();
    });
}

/// The rows that one to three workers find with `visit`, until `enough` were given.
fn rows_until(
    enough: usize,
    visit: &(impl Fn(usize, &mut Found<'_, usize, Vec<Row>>) + Sync),
    mut at_each: impl FnMut(usize),
) -> Vec<Row> {
    let threads = NonZeroUsize::new(thread_rng().gen_range(1..=3)).unwrap();
    let mut given = Vec::new();
    let _ = team::walk_together(
        threads,
        Walk::at(0),
        visit,
        &mut Headings::new(),
        &mut |rows: Vec<Row>| {
            given.extend(rows);
            at_each(given.len());
            if given.len() < enough {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        },
    );
    given
}

#[test]
fn every_row_is_given_once_and_in_order() {
    in_many_orders(400, || {
        let mut wanted = Vec::new();
        expected(0, &mut wanted);
        assert!(rows_until(usize::MAX, &visit, |_| ()) == wanted);
    });
}

#[test]
fn what_waits_is_bounded() {
    in_many_orders(400, || {
        let found = AtomicUsize::new(0);
        let counted = |directory: usize, into: &mut Found<'_, usize, Vec<Row>>| {
            visit(directory, into);
            found.fetch_add(usize::from(directory % 3 != 1), Ordering::Relaxed);
        };
        // Each worker and the writer have as much as a bundle at hand besides.
        let most = (team::WAITING_MAX + 4 * BUNDLE) / size_of::<Row>();
        rows_until(usize::MAX, &counted, |given| {
            (0..8).for_each(|_| shuttle::thread::yield_now());
            let waiting = found.load(Ordering::Relaxed) - given;
            assert!(waiting <= most, "{waiting} rows wait");
        });
    });
}

#[test]
fn a_reader_that_stops_ends_all() {
    in_many_orders(400, || {
        let mut wanted = Vec::new();
        expected(0, &mut wanted);
        let enough = thread_rng().gen_range(1..wanted.len());
        let given = rows_until(enough, &visit, |_| ());
        assert!(given.len() >= enough && wanted.starts_with(&given));
    });
}

#[test]
fn a_worker_that_panics_ends_all() {
    in_many_orders(400, || {
        let last = thread_rng().gen_range(0..DIRECTORIES);
        let has_panicked = AtomicBool::new(false);
        let visit = |directory: usize, found: &mut Found<'_, usize, Vec<Row>>| {
            if directory == last && !has_panicked.swap(true, Ordering::Relaxed) {
                resume_unwind(Box::new(Planned));
            }
            visit(directory, found);
        };
        let mut wanted = Vec::new();
        expected(0, &mut wanted);
        no_panic(|| {
            let given = rows_until(usize::MAX, &visit, |_| ());
            assert!(wanted.starts_with(&given));
        });
    });
}
