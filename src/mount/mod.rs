//! Views as file systems: the kernel asks through FUSE, and every answer is the core's.
//!
//! ```text
//! server      what the kernel asks, and how an answer is put
//! serving     a mount from its beginning to its end: threads, signals, a background
//! kernel      the same view, shown by the kernel itself
//! attach      how a file system gets into the tree of directories, and out of it
//! listed      the mounts that are ours, as the kernel's table has them
//! turns       which threads wait for the kernel's next request
//! open        what is open: files, and directories with their lists
//! inodes      the numbers by which the kernel knows what it was told of
//! item        what the kernel can be told of
//! catalogue   all containers and images as directories
//! directory   one place of a view while the kernel knows it
//! places      what a name means in a view, that of what marks hide among them
//! view        a stack that is looked at for long: how fresh, and whether it is still there
//! ```
//!
//! Each imports only from those below it. What a name means, who provides it and what it has is
//! asked of [`Node`](crate::union::Node) anew for each question that the kernel has no answer to: for
//! at most [`FRESH`](view::FRESH) where a branch can be written.

pub mod attach;
pub mod catalogue;
mod directory;
mod inodes;
mod item;
pub mod kernel;
pub mod listed;
mod open;
mod places;
mod server;
pub mod serving;
mod turns;
mod view;

pub use places::Shows;
pub use server::Server;
pub use view::View;
