//! Whether a file is still what it was when it was opened.

use rustix::fs;
use rustix::io::Errno;

use super::content::Content;
use crate::error::errno_of;

/// An open file, as it was when it was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Snapshot {
    /// Bytes.
    pub size: u64,
    /// Seconds and nanoseconds since 1970. Nothing in an image changes.
    mtime: (i64, i64),
    has_name: bool,
}

impl Snapshot {
    /// Looks at an open file.
    ///
    /// # Errors
    /// What the system call says.
    pub fn of(content: &Content) -> Result<Snapshot, Errno> {
        let Some(file) = content.as_file() else {
            return Ok(Snapshot {
                size: content.size().map_err(|error| errno_of(&error))?,
                mtime: (0, 0),
                has_name: true,
            });
        };
        let raw = fs::fstat(file)?;
        Ok(Snapshot {
            size: u64::try_from(raw.st_size).unwrap_or(0),
            mtime: (
                raw.st_mtime,
                i64::try_from(raw.st_mtime_nsec).unwrap_or_default(),
            ),
            has_name: raw.st_nlink > 0,
        })
    }

    /// What has become of the file since, as a sentence goes on; none where it is as it was.
    pub fn changed_since(self, content: &Content) -> Option<&'static str> {
        match Snapshot::of(content) {
            Ok(now) if self.has_name && !now.has_name => Some("was removed while it was read"),
            Ok(now) if (now.size, now.mtime) != (self.size, self.mtime) => {
                Some("was changed while it was read: what was read may be a part of each version")
            }
            Ok(_) => None,
            Err(_) => Some("could not be looked at again after it was read"),
        }
    }
}
