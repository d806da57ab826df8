//! Trees in order, without recursion and without a limit on their depth: by one thread, or by
//! several that find the same in the same order.
//!
//! ```text
//! rows       what a visit finds: rows, and further directories
//! headings   rows that are given only once there is something below them
//! alone      one thread's walk, whose end can be split off
//! team       several threads: workers find, one writer gives in order
//! branch     the directories of a branch's own tree
//! ```

mod alone;
mod branch;
mod headings;
mod rows;
mod team;

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

pub use alone::walk;
pub use branch::{Above, InBranch};
pub use rows::{Found, Heading, Rest, Rows};
pub use team::walk_all;

/// What [`team`] is synchronised by. Its model has the same of another kind.
mod sync {
    pub use std::sync::atomic::{AtomicBool, Ordering};
    pub use std::sync::{Condvar, Mutex, MutexGuard};
    pub use std::thread::{Scope, scope};

    use std::thread::Builder;

    /// Starts a thread, unless none can be had.
    pub fn spawn<'scope>(
        scope: &'scope Scope<'scope, '_>,
        work: impl FnOnce() + Send + 'scope,
    ) -> bool {
        let thread = Builder::new().name("walk".into());
        thread.spawn_scoped(scope, work).is_ok()
    }
}
