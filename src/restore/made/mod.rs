//! Every call by which `restore` changes a disk. Somebody else may be able to write to the
//! directory at hand - a container, through whose mount it is written - so that no name is used
//! twice: what was made is opened once, looked at, and gone on with by its descriptor. Nothing
//! here follows a symbolic link.
//!
//! ```text
//! held    Made::file, directory, symlink, node, link: make a name, and take hold of what was made
//! dress   Made::dress: owner, access lists, attributes, mode, times
//! name    rename, rename_over, exchange, remove ...: act on a name itself, and can do no more
//! ```

#![allow(
    clippy::disallowed_methods,
    reason = "the one place that changes what is on a disk"
)]

mod dress;
mod held;
mod name;

pub use dress::Lacks;
pub use held::{Identity, Made, Named, find};
pub use name::{
    date_directory, directory, empty_file, exchange, link, mark, remove, remove_directory,
    remove_left, remove_tree, rename, rename_over, sync_dir, unmark,
};
