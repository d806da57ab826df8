//! Images and containers written down in forms that engines load, and layers held against what
//! their digests say.
//!
//! ```text
//! export       what was asked for, written
//! image        an image: its layers one by one, its configuration
//! layout       the form: an OCI layout, as a directory or an archive, for docker as well
//! layer        one layer's archive, from whatever gives it back
//! changes      an archive of what a branch changed, in OCI's spelling
//! config       an image's configuration for layers that it does not have
//! verify       layers and records proved: each says whether it is what its digest says
//! against      a layer's directory held against its archive
//! group        what comes next of that, looked at by several threads
//! found        what was found until then
//! prover       its entries compared with what is there, one by one
//! marks        what is there and not in the archive
//! copied       the same of a whole copy, held against what it is a copy of
//! proof        what is known of it then
//! expected     what an archive says that there is
//! packed       archives packed, hashed and counted as they are written
//! assembled    an archive put together from its recipe
//! tree         a layer's files by the names that archives have for them
//! recipe       what tar-split wrote
//! ```

mod against;
mod assembled;
mod changes;
mod config;
mod copied;
mod expected;
pub mod export;
mod found;
mod group;
pub mod ids;
pub mod image;
pub mod layer;
pub mod layout;
mod marks;
pub mod packed;
pub mod proof;
mod prover;
mod recipe;
mod tree;
pub mod verify;

use std::io;

use crate::error::Error;

/// Why something was not written.
#[derive(Debug)]
pub enum Failure {
    /// What is to be written is not there as it has to be.
    Source(Vec<Error>),
    /// The output takes no more, or was interrupted.
    Output(io::Error),
}

impl Failure {
    fn of(error: Error) -> Failure {
        Failure::Source(vec![error])
    }

    /// What a person is told; `path` is where the output was to be.
    pub fn errors(self, path: &std::path::Path) -> Vec<Error> {
        match self {
            Failure::Source(errors) => errors,
            Failure::Output(error) => vec![Error::damaged(path, error.to_string())],
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::of(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure::Output(error)
    }
}

/// Bytes in hexadecimal.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
