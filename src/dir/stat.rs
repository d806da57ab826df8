//! What `lstat` says of an entry.

use rustix::fs::{self, FileType};
use serde::Serialize;

/// The kinds of file that a branch can hold.
// A comment on a variant would be part of the schema that `layerctl schema` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    File,
    Directory,
    Symlink,
    Char,
    Block,
    Fifo,
    Socket,
}

impl Kind {
    pub(super) fn from_file_type(file_type: FileType) -> Option<Kind> {
        Some(match file_type {
            FileType::RegularFile => Kind::File,
            FileType::Directory => Kind::Directory,
            FileType::Symlink => Kind::Symlink,
            FileType::CharacterDevice => Kind::Char,
            FileType::BlockDevice => Kind::Block,
            FileType::Fifo => Kind::Fifo,
            FileType::Socket => Kind::Socket,
            FileType::Unknown => return None,
        })
    }

    /// What answers call it.
    pub fn word(self) -> &'static str {
        match self {
            Kind::File => "file",
            Kind::Directory => "directory",
            Kind::Symlink => "symlink",
            Kind::Char => "char",
            Kind::Block => "block",
            Kind::Fifo => "fifo",
            Kind::Socket => "socket",
        }
    }
}

/// What `lstat` says of one entry of a branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// What kind of file it is.
    pub kind: Kind,
    /// Permission bits with setuid, setgid and sticky: `mode & 0o7777`.
    pub mode: u32,
    /// The owner's number.
    pub uid: u32,
    /// The group's number.
    pub gid: u32,
    /// Bytes.
    pub size: u64,
    /// When the content was changed: seconds and nanoseconds since 1970.
    pub mtime: (i64, u32),
    /// When it was read, in the same units.
    pub atime: (i64, u32),
    /// When anything about it was changed last, in the same units.
    pub ctime: (i64, u32),
    /// The inode's number.
    pub ino: u64,
    /// The number of the device that it is on.
    pub dev: u64,
    /// The number of the device that it is; 0 where it is none.
    pub rdev: u64,
    /// How many names it has.
    pub nlink: u64,
    /// Blocks of 512 bytes on disk.
    pub blocks: u64,
}

impl Stat {
    pub(super) fn from_raw(raw: &fs::Stat) -> Option<Stat> {
        Some(Stat {
            kind: Kind::from_file_type(FileType::from_raw_mode(raw.st_mode))?,
            mode: raw.st_mode & 0o7777,
            uid: raw.st_uid,
            gid: raw.st_gid,
            size: u64::try_from(raw.st_size).unwrap_or(0),
            mtime: (raw.st_mtime, u32::try_from(raw.st_mtime_nsec).unwrap_or(0)),
            atime: (raw.st_atime, u32::try_from(raw.st_atime_nsec).unwrap_or(0)),
            ctime: (raw.st_ctime, u32::try_from(raw.st_ctime_nsec).unwrap_or(0)),
            ino: raw.st_ino,
            dev: raw.st_dev,
            rdev: raw.st_rdev,
            nlink: raw.st_nlink,
            blocks: u64::try_from(raw.st_blocks).unwrap_or(0),
        })
    }

    /// What it takes on disk, in bytes.
    pub fn disk(&self) -> u64 {
        self.blocks.saturating_mul(512)
    }

    /// What tells a file from all others of the machine: device and inode.
    pub fn identity(&self) -> (u64, u64) {
        (self.dev, self.ino)
    }
}
