//! Reads the database of an engine that may be writing to it, without its lock.

use super::{METAS, is_sound};
use crate::bytes::Bytes;
use crate::error::Result;
use crate::host::{Host, Steady};

/// The largest database that is read, in bytes.
const SIZE_MAX: u64 = 1 << 30;

/// A database's bytes.
///
/// # Errors
/// What the system call says; one that is larger than 1 GiB, or kept changing while it was read.
pub fn read(host: &Host, path: &Bytes) -> Result<Vec<u8>> {
    let steady = Steady {
        size_max: SIZE_MAX,
        head: METAS,
        is_sound,
    };
    host.read_steady(path, steady)
}
