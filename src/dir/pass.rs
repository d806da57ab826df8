//! How the kernel itself passes on what is in a file, without a copy in this process.

use std::os::fd::AsFd;

use rustix::fs;
use rustix::io::Errno;

/// How much is passed on by one call, in bytes.
const AT_ONCE: usize = 1 << 30;

/// What is left to do when the kernel has passed on what it can.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passed {
    /// Nothing: all that was to be passed on was, or the file's end was reached.
    All,
    /// What follows where the file is read now: the kernel cannot, or something went wrong, which
    /// reading and writing will tell.
    ToBeRead,
}

/// Passes a file on from where it is read now, `left` bytes at most, which is lessened by what was
/// passed: shared or copied in the file system (`copy_file_range`), or through the page cache
/// (`sendfile`, which splices into a pipe).
///
/// # Errors
/// The other side takes no more.
pub(super) fn pass(from: impl AsFd, to: impl AsFd, left: &mut u64) -> Result<Passed, Errno> {
    pass_by(left, |most| {
        fs::copy_file_range(&from, None, &to, None, most)
    })?;
    // What is in the kernel's own files ends at once to that call: this one says what is left.
    pass_by(left, |most| fs::sendfile(&to, &from, None, most))
}

fn pass_by(
    left: &mut u64,
    mut call: impl FnMut(usize) -> Result<usize, Errno>,
) -> Result<Passed, Errno> {
    while *left > 0 {
        let most = usize::try_from(*left).unwrap_or(AT_ONCE).min(AT_ONCE);
        match call(most) {
            Ok(0) => return Ok(Passed::All),
            Ok(count) => *left -= count as u64,
            Err(Errno::INTR) => {}
            Err(errno @ (Errno::PIPE | Errno::NOSPC | Errno::DQUOT | Errno::FBIG)) => {
                return Err(errno);
            }
            Err(_) => return Ok(Passed::ToBeRead),
        }
    }
    Ok(Passed::All)
}
