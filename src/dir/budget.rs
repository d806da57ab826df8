//! How many descriptors of directories are open at once, and which of them is closed next.
//!
//! Those that were opened while few were stay open.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use rustix::io::Errno;

/// What the budget counts, and may close for a while.
pub(super) trait Park: Send + Sync {
    /// The number of its descriptor, while it is open.
    fn number(&self) -> Option<usize>;

    /// Closes it for now, unless somebody looks at it.
    fn park(&self) -> Parked;
}

/// Whether a directory was parked.
pub(super) enum Parked {
    Yes,
    /// It was parked before, or is gone.
    Already,
    /// Somebody looks at it.
    InUse,
}

/// The fewest directories that the budget is for, however few descriptors the process may have.
const LIMIT_MIN: usize = 4;
/// The most, however many it may have.
const LIMIT_MAX: usize = 4096;
/// How many descriptors a thread needs: those that cannot be parked while it looks at a directory,
/// and its part of what is open all the time.
const PER_THREAD: usize = 6;
/// How often opening is tried while other threads hold all descriptors that can be had.
const TRIES: usize = 1000;

/// How many directories are open.
static OPEN: AtomicUsize = AtomicUsize::new(0);
/// The directories that may be parked, oldest first: those that were opened when half of the limit
/// was reached. Few walks reach it.
static QUEUE: Mutex<VecDeque<Weak<dyn Park>>> = Mutex::new(VecDeque::new());
/// How many more descriptors the process could have when the first directory was opened.
static FREE: OnceLock<usize> = OnceLock::new();

/// How many descriptors were free. `first` is the number of the first that is opened, the lowest
/// that is free: those below it are others', and seldom are there more.
fn free(first: impl FnOnce() -> usize) -> usize {
    *FREE.get_or_init(|| {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        let soft = usize::try_from(limit.current.unwrap_or(1024)).unwrap_or(1024);
        soft.saturating_sub(first())
    })
}

/// Counts a directory that was opened, and parks another one if that makes too many.
pub(super) fn opened<D: Park + 'static>(directory: &Arc<D>) {
    let free = free(|| directory.number().unwrap_or(0));
    // A quarter is left to everything else that is opened.
    let limit = (free / 4 * 3).clamp(LIMIT_MIN, LIMIT_MAX);
    let open = OPEN.fetch_add(1, Ordering::Relaxed);
    if open < limit / 2 {
        return;
    }
    let mut queue = QUEUE.lock().unwrap_or_else(PoisonError::into_inner);
    if open >= limit {
        park_oldest(&mut queue);
    }
    let directory: Weak<D> = Arc::downgrade(directory);
    queue.push_back(directory);
    if queue.len() > 4 * limit {
        queue.retain(|weak| weak.strong_count() > 0);
    }
}

/// Counts a directory that was closed.
pub(super) fn closed() {
    OPEN.fetch_sub(1, Ordering::Relaxed);
}

/// Opens something. Where the process may open no more, a directory is parked for it: the budget
/// does not count all that is open.
pub(super) fn with_room<T>(open: impl Fn() -> Result<T, Errno>) -> Result<T, Errno> {
    for _ in 0..TRIES {
        match open() {
            Err(Errno::MFILE) => {}
            result => return result,
        }
        let mut queue = QUEUE.lock().unwrap_or_else(PoisonError::into_inner);
        match park_oldest(&mut queue) {
            Parked::Yes => {}
            // Other threads hold what they look at, and for a moment only.
            Parked::InUse => {
                drop(queue);
                std::thread::yield_now();
            }
            Parked::Already => break,
        }
    }
    open()
}

/// Parks the directory that was opened first, of those that nobody looks at.
fn park_oldest(queue: &mut VecDeque<Weak<dyn Park>>) -> Parked {
    let mut parked = Parked::Already;
    for _ in 0..queue.len() {
        let Some(oldest) = queue.pop_front() else {
            break;
        };
        match oldest.upgrade().map(|oldest| oldest.park()) {
            Some(Parked::Yes) => return Parked::Yes,
            Some(Parked::InUse) => {
                queue.push_back(oldest);
                parked = Parked::InUse;
            }
            Some(Parked::Already) | None => {}
        }
    }
    parked
}

/// How many threads can look at directories at the same time with the descriptors that the process
/// may have; at least one.
pub fn threads_max() -> usize {
    // Before any is open, all but the standard three are free.
    (free(|| 3) / PER_THREAD).max(1)
}
