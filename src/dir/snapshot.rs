//! Whether a file is still what it was when it was opened.

use std::fs::File;

use rustix::fs;
use rustix::io::Errno;

/// An open file, as it was when it was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Snapshot {
    /// Bytes.
    pub size: u64,
    /// Whether there is less of it on disk.
    pub has_holes: bool,
    /// Device and inode; none of what is in an image.
    pub identity: Option<(u64, u64)>,
    /// Seconds and nanoseconds since 1970. Nothing in an image changes.
    mtime: (i64, i64),
    has_name: bool,
}

impl Snapshot {
    /// Looks at an open file.
    ///
    /// # Errors
    /// What the system call says.
    pub(super) fn of(file: &File) -> Result<Snapshot, Errno> {
        Ok(Snapshot::from_raw(&fs::fstat(file)?))
    }

    /// What was said of it.
    pub(super) fn from_raw(raw: &fs::Stat) -> Snapshot {
        let size = u64::try_from(raw.st_size).unwrap_or(0);
        let on_disk = u64::try_from(raw.st_blocks)
            .unwrap_or(0)
            .saturating_mul(512);
        Snapshot {
            size,
            has_holes: on_disk < size,
            identity: Some((raw.st_dev, raw.st_ino)),
            mtime: (
                raw.st_mtime,
                i64::try_from(raw.st_mtime_nsec).unwrap_or_default(),
            ),
            has_name: raw.st_nlink > 0,
        }
    }

    /// What is in an image.
    pub(super) fn in_image(size: u64) -> Snapshot {
        Snapshot {
            size,
            has_holes: false,
            identity: None,
            mtime: (0, 0),
            has_name: true,
        }
    }

    /// What has become of the file until now, as a sentence goes on; none where it is as it was.
    pub(super) fn became(self, now: Snapshot) -> Option<&'static str> {
        if self.has_name && !now.has_name {
            return Some("was removed while it was read");
        }
        let is_same = (now.size, now.mtime) == (self.size, self.mtime);
        (!is_same)
            .then_some("was changed while it was read: what was read may be a part of each version")
    }
}
