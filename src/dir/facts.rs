//! What is known of an entry without opening it.

use std::cell::Cell;

use rustix::fs::{self, AtFlags};
use rustix::io::Errno;

use super::open::{Dir, Ground};
use super::stat::Stat;

/// The file systems whose files' blocks are told apart: ext4 (and 2, and 3), XFS, btrfs, tmpfs.
const COUNTING: [fs::FsWord; 4] = [0xef53, 0x5846_5342, 0x9123_683e, 0x0102_1994];

impl Dir {
    /// What `lstat` says of `name`; `None` where there is nothing of that name.
    ///
    /// # Errors
    /// What the system call says.
    pub fn stat(&self, name: &[u8]) -> Result<Option<Stat>, Errno> {
        if let Ground::Image(place) = &self.0.ground {
            return place.stat(name);
        }
        match fs::statat(&*self.fd()?, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(raw) => Stat::from_raw(&raw).ok_or(Errno::IO).map(Some),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// What `fstat` says of the directory itself.
    ///
    /// # Errors
    /// What the system call says.
    pub fn stat_self(&self) -> Result<Stat, Errno> {
        if let Ground::Image(place) = &self.0.ground {
            return place.stat_of(&place.inode);
        }
        let raw = fs::fstat(&*self.fd()?)?;
        Stat::from_raw(&raw).ok_or(Errno::IO)
    }

    /// About how many files and directories its file system has; none where it does not count them.
    pub fn inodes_used(&self) -> Option<u64> {
        let said = fs::fstatvfs(&*self.fd().ok()?).ok()?;
        said.f_files
            .checked_sub(said.f_ffree)
            .filter(|used| *used > 0)
    }

    /// Whether the blocks that `lstat` tells of the files here are those that they take on disk, on a
    /// file system that has a file's data in none but these (docs/facts.md#engines-73). `device` is the
    /// number of that which the files are on.
    pub fn counts_blocks(&self, device: u64) -> bool {
        thread_local! {
            static KNOWN: Cell<Option<(u64, bool)>> = const { Cell::new(None) };
        }
        match KNOWN.get() {
            Some((known, counts)) if known == device => counts,
            _ => {
                let found = self.fd().and_then(|fd| fs::fstatfs(&*fd));
                let counts = found.is_ok_and(|found| COUNTING.contains(&found.f_type));
                KNOWN.set(Some((device, counts)));
                counts
            }
        }
    }

    /// The space of its file system.
    ///
    /// # Errors
    /// `EROFS` for what is in an image; what the system call says.
    pub fn space(&self) -> Result<fs::StatVfs, Errno> {
        fs::fstatvfs(&*self.fd()?)
    }

    /// Whether the directory is the kernel's own `/proc`.
    pub fn is_proc(&self) -> bool {
        let found = self.fd().and_then(|fd| fs::fstatfs(&*fd));
        found.is_ok_and(|found| found.f_type == fs::PROC_SUPER_MAGIC)
    }

    /// The mount that the directory is on: two file systems' may have one number, two mounts
    /// never. `None` on kernels before 5.8, and in an image, which is not mounted.
    pub fn mount_id(&self) -> Option<u64> {
        let wanted = fs::StatxFlags::MNT_ID;
        let found = fs::statx(&*self.fd().ok()?, "", AtFlags::EMPTY_PATH, wanted).ok()?;
        (found.stx_mask & wanted.bits() != 0).then_some(found.stx_mnt_id)
    }

    /// The same of an entry, no link followed: another file system may be mounted on it.
    pub fn mount_id_of(&self, name: &[u8]) -> Option<u64> {
        let wanted = fs::StatxFlags::MNT_ID;
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT | AtFlags::STATX_DONT_SYNC;
        let found = fs::statx(&*self.fd().ok()?, name, flags, wanted).ok()?;
        (found.stx_mask & wanted.bits() != 0).then_some(found.stx_mnt_id)
    }

    /// Where a symbolic link leads.
    ///
    /// # Errors
    /// `EINVAL` for what is no link; what the system call says.
    pub fn read_link(&self, name: &[u8]) -> Result<Vec<u8>, Errno> {
        if let Ground::Image(place) = &self.0.ground {
            return place.read_link(name);
        }
        Ok(fs::readlinkat(&*self.fd()?, name, Vec::new())?.into_bytes())
    }
}
