//! Who knows stacks: the kernel knows what is mounted, engines know what it is called.
//!
//! An engine ends in [`Union`]s: a list of branches with what each of them is. It knows no verb.
//!
//! ```text
//! docker/ podman/ containerd/     one engine each, with equal rooms:
//!   mod          what it is, its description, and which room answers which question
//!   roots        finding it: options, the environment, configuration files, default places
//!   leftovers    what nobody uses
//!   removed      what went while it was read
//!   usage        who uses a layer; what a directory is for
//!   paths        which layer or container a path, or a mounted union, is
//!   containers   images   layers     what it keeps, and the unions that these make
//!   records      its own files and databases, read as they are
//!   store        one place where it keeps its data: what every room asks of it
//!   config       what its configuration file says
//!   record       forms of what it records
//!
//! orphaned     what is nobody's: every engine's leftovers but what is in use
//! in_use       what is in use, whatever records say: one place decides
//! covered      what lies over the layers of one union
//! survey       all of it together, for the verbs: engines are asked here
//! label        what unions are called in answers
//! open  watch  a union's branches opened; whether they are still there at the end
//! proof        whether a branch is the directory that the mount's options name
//! overlaid     which unions lie over a container's layers, and are mounted in the container
//! reach        how a branch's directory is reached
//! interface    the trait Engine, and how an engine describes itself
//! search       what looking for engines shares: users  daemons
//! roots        where engines keep their data, as far as a person says so
//! problems     what could not be read
//! kernel  fuse what is mounted, and with what branches
//! namespace  mount_table     processes, and what each has mounted
//! union        unions, branches, layers, owners
//! recorded     a mounted union's branches, as its store has them
//! manifest     from an image's digest to its layers: platform, oci
//! linked  faults  oci  bolt  sqlite  forms that several engines keep things in; what is wrong with such
//! stored       an image as it travels: configuration, manifest, recipes of layers
//! cover        one thing that lies over a container's layers
//! inventory  usage           what every engine keeps, in words that all share
//! ```
//!
//! A module imports from lower lines only. A new engine is a folder and its line in [`ENGINES`].

pub mod bolt;
mod containerd;
pub mod cover;
pub mod covered;
mod daemons;
mod docker;
mod faults;
mod fuse;
mod in_use;
mod interface;
pub mod inventory;
mod kept;
pub mod kernel;
mod label;
mod linked;
mod manifest;
pub mod mount_table;
pub mod namespace;
pub mod oci;
mod open;
mod orphaned;
mod overlaid;
pub mod platform;
mod podman;
mod problems;
mod proof;
pub mod reach;
mod recorded;
mod roots;
mod search;
mod sqlite;
pub mod stored;
mod survey;
mod union;
pub mod usage;
mod users;
mod watch;

#[cfg(test)]
mod example;

pub use in_use::layer_uses;
pub use interface::{Description, Engine};
pub use orphaned::{Orphaned, orphaned, unused};
pub use roots::{EngineOption, Roots, Value, Variable};
pub use survey::Survey;
pub use union::{
    LayeredBranch, MountPoint, MountState, Owner, OwnerKind, ReadOnly, Role, Store, Union,
    UnionKind, View, spelled_union,
};

/// Every engine, in the order in which they are asked: whose name for a thing is known first.
pub const ENGINES: &[&Description] = &[
    &docker::DESCRIPTION,
    &podman::DESCRIPTION,
    &containerd::DESCRIPTION,
];

/// The options that engines bring, in the order of `--help`.
pub fn options() -> impl Iterator<Item = &'static EngineOption> {
    ENGINES.iter().flat_map(|engine| engine.options)
}

/// The variables of the environment that engines heed.
pub fn variables() -> impl Iterator<Item = &'static Variable> {
    ENGINES.iter().flat_map(|engine| engine.variables)
}

/// The engine that a person calls by this name: its own, or that of a program which keeps its
/// containers in the same stores.
pub fn called(name: &str) -> Option<&'static Description> {
    let mut engines = ENGINES.iter().copied();
    engines.find(|engine| engine.name == name || engine.also.contains(&name))
}
