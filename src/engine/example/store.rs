//! What the rooms share.

use crate::bytes::Bytes;
use crate::engine::problems::Problems;
use crate::host::Host;

pub(super) struct Example<'h> {
    pub(super) host: &'h Host,
    pub(super) root: Bytes,
    /// What could not be read; the survey reads it out.
    pub(super) problems: Problems,
}
