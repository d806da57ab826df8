//! How layers are touched: every system call on a branch is made here, relative to an open
//! directory and never following a symbolic link.
//!
//! ```text
//! open        directories and regular files, opened from the directory that they are in
//! path        where an open directory is, as messages and rows say it
//! facts       what is known of an entry without opening it
//! stat        what `lstat` says of it
//! attribute   extended attributes
//! list        directories, listed
//! names       what a listing has, in order
//! pass        what is in a file, passed on by the kernel
//! budget      how many descriptors are open, and which is closed next
//! rights      what the process may ask the kernel
//! image       directories in an EROFS image, which answer as the kernel would
//! snapshot    whether a file is still what it was
//! content     what is in a regular file, wherever that is
//! way         whose symbolic links lead to what is written to
//! ```
//!
//! Descriptors are few and trees are deep, so a [`Dir`] may be *parked*: its descriptor is closed
//! when too many are open, and opened again from its parent when it is next used. The directory
//! found then must be the one that was parked; another one in its place is an error.

mod attribute;
mod budget;
mod content;
mod facts;
mod image;
mod list;
mod names;
mod open;
mod pass;
mod path;
mod rights;
mod snapshot;
mod stat;
mod way;

pub use attribute::{AttributeList, entry_path};
pub use budget::threads_max;
pub use content::{Content, at_once};
pub use list::names_listed;
pub use names::Names;
pub use open::{Access, Dir};
pub use pass::Passed;
pub use rights::{enters_everything, is_in_user_namespace, reads_trusted_attributes};
pub use stat::{Kind, Stat};
pub use way::see_way;
