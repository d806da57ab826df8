//! A mount of a union, opened once. A path may lead elsewhere a moment later - somebody renames a
//! directory on the way, a process ends and another gets its number - so that what was opened is
//! looked at and kept: the kernel's own table has to say that it is the union, then, and again
//! before it is written to.

use std::io::Read;
use std::os::fd::AsRawFd;
use std::path::Path;

use rustix::io::{Errno, fcntl_dupfd_cloexec};

use crate::bytes::Bytes;
use crate::dir::{Access, Dir, see_way};
use crate::engine::mount_table::{Mount, MountTable, Superblock, parse_mountinfo};
use crate::engine::{MountPoint, kernel};
use crate::error::{Error, Result, errno_of};

/// A mount of a union that is open.
#[derive(Debug, Clone)]
pub struct OpenMount {
    pub point: MountPoint,
    /// What is seen at the mount point; it stays open.
    root: Dir,
    /// Where the path to it starts.
    top: Dir,
    /// The kernel's directory of the process in whose mount namespace it is. While it is open it
    /// is that process's, whoever gets its number.
    process: Dir,
    superblock: Option<Superblock>,
}

impl OpenMount {
    /// Opens a mount of the union that the kernel knows by `superblock`.
    ///
    /// # Errors
    /// It cannot be reached, or something else is there.
    pub fn open(point: &MountPoint, superblock: Option<&Superblock>) -> Result<OpenMount> {
        // The table has the path without links; whoever has put one there since is not followed.
        let (process, top) = match point.process {
            None => {
                let own = Dir::open_root(Path::new("/proc/self"))?;
                (own, Dir::open_root(Path::new("/"))?)
            }
            Some(id) => {
                let path = format!("/proc/{id}");
                let process = Dir::open_root(Path::new(&path))?;
                let top = namespace_root(&process, &path)?;
                (process, top)
            }
        };
        // The table has the path without links; whoever has put one there since is not followed.
        let open = OpenMount {
            root: keep(&top.descend(&point.path)?, point)?,
            point: point.clone(),
            top,
            process,
            superblock: superblock.cloned(),
        };
        open.prove()?;
        Ok(open)
    }

    /// What is seen at the mount point.
    pub fn root(&self) -> &Dir {
        &self.root
    }

    /// Sees that what is open is mounted now, and is a mount of the union.
    ///
    /// # Errors
    /// It is another file system, has been unmounted, or its process has ended.
    pub fn prove(&self) -> Result<()> {
        let table = self.table()?;
        let id = mount_number(&self.root);
        let has_id = |mount: &&Mount| {
            let own = mount.ids.map(|(own, _)| u64::from(own));
            own.is_some() && own == id
        };
        let is_it = match table.0.iter().find(has_id) {
            Some(mount) => mount.superblock() == self.superblock,
            None => self.is_at_its_path(&table)?,
        };
        if is_it {
            Ok(())
        } else {
            Err(Error::Refused {
                what: format!(
                    "{} is not, or no longer, the union that was looked at",
                    self.point.path
                ),
                hint: "nothing was changed; run it again".into(),
            })
        }
    }

    /// Whether the union's path leads to what is open. A table may not have the number of a mount:
    /// that of an old kernel, or of one that has been unmounted.
    fn is_at_its_path(&self, table: &MountTable) -> Result<bool> {
        let covering = table.covering(&self.point.path);
        if covering.and_then(Mount::superblock) != self.superblock {
            return Ok(false);
        }
        let what = |dir: &Dir| Ok::<_, Errno>((dir.stat_self()?.identity(), dir.mount_id()));
        let fail = |errno| Error::io(self.point.path.clone(), errno);
        let found = self.top.descend(&self.point.path)?;
        Ok(what(&found).map_err(fail)? == what(&self.root).map_err(fail)?)
    }

    fn table(&self) -> Result<MountTable> {
        let path = self.process.path().join(b"mountinfo");
        let fail = |errno| match errno {
            // What it was in has ended.
            Errno::SRCH | Errno::INVAL | Errno::NOENT => Error::Refused {
                what: format!(
                    "the process by which {} was reached has ended",
                    self.point.path
                ),
                hint: "nothing was changed; run it again".into(),
            },
            errno => Error::io(path.clone(), errno),
        };
        let file = self.process.open_file(b"mountinfo").map_err(fail)?;
        let mut bytes = Vec::new();
        let read = std::fs::File::from(file).read_to_end(&mut bytes);
        read.map_err(|error| fail(errno_of(&error)))?;
        Ok(parse_mountinfo(&bytes))
    }

    /// Makes the kernel forget what it has cached of the union.
    ///
    /// # Errors
    /// `EPERM` for whoever may not do it; nothing has changed then.
    pub fn refresh(&self) -> Result<(), Errno> {
        kernel::refresh(&self.root, &self.point)
    }
}

/// A descriptor of our own: the budget closes others.
fn keep(found: &Dir, point: &MountPoint) -> Result<Dir> {
    let name = Bytes::from(point.reach().as_path());
    let kept = found.fd().and_then(|fd| fcntl_dupfd_cloexec(&*fd, 0));
    match kept {
        Ok(kept) => Ok(Dir::of_fd(kept, &name)),
        Err(errno) => Err(Error::io(name, errno)),
    }
}

/// The number of the mount that a directory is on.
pub fn mount_number(dir: &Dir) -> Option<u64> {
    dir.mount_id().or_else(|| told_id(dir))
}

/// The same as kernels before 5.8 tell it.
fn told_id(dir: &Dir) -> Option<u64> {
    let number = dir.fd().ok()?.as_raw_fd().to_string();
    let known = Dir::open_root(Path::new("/proc/self/fdinfo")).ok()?;
    let file = known.open_file(number.as_bytes()).ok()?;
    let mut text = String::new();
    std::fs::File::from(file).read_to_string(&mut text).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("mnt_id:"))?;
    line.trim().parse().ok()
}

/// What a process has as `/`: the one link of the kernel's that is meant to lead elsewhere.
fn namespace_root(process: &Dir, path: &str) -> Result<Dir> {
    let name = Bytes::from(format!("{path}/root"));
    let fail = |errno| Error::io(name.clone(), errno);
    let flags =
        rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
    let fd = process.fd().map_err(fail)?;
    let root = rustix::fs::openat(&*fd, c"root", flags, rustix::fs::Mode::empty()).map_err(fail)?;
    Ok(Dir::of_fd(root, &name))
}

/// A directory that a person named to have something written there. Links on the way are followed, but
/// for traps.
///
/// # Errors
/// It is not there, or a link of somebody else's leads there.
pub fn open_by_person(path: &Path) -> Result<Dir> {
    let dir = Dir::open_root(path)?;
    let whole = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let root = Dir::open_root(Path::new("/"))?;
    see_way(&root, &Bytes::from(&*whole), &dir)?;
    Ok(dir)
}

/// A directory that nothing but a person's word leads to, opened once.
///
/// # Errors
/// It is not there, or is a symbolic link.
pub fn open_outside(path: &Path) -> Result<Dir> {
    // Without slashes at the end: they would ask for what a link leads to.
    let path: std::path::PathBuf = path.components().collect();
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Dir::open_root(&path);
    };
    let fail = |errno| Error::io(&*path, errno);
    let name = std::os::unix::ffi::OsStrExt::as_bytes(name);
    let parent = open_by_person(parent).map_err(|error| match error {
        Error::Io { errno, .. } => fail(errno),
        error => error,
    })?;
    match parent.child(name, Access::Lookup) {
        Err(Errno::NOTDIR | Errno::LOOP) if parent.read_link(name).is_ok() => {
            let leads = parent.read_link(name).map_err(fail)?;
            Err(Error::Refused {
                what: format!(
                    "{} is a symbolic link to {}, and is not followed",
                    Bytes::from(&*path),
                    Bytes::from(&leads[..])
                ),
                hint: "name the directory itself".into(),
            })
        }
        found => {
            let kept = found.and_then(|found| fcntl_dupfd_cloexec(&*found.fd()?, 0));
            Ok(Dir::of_fd(kept.map_err(fail)?, &Bytes::from(&*path)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fdinfo_tells_the_number_that_statx_tells() {
        for path in ["/", "/proc"] {
            let dir = Dir::open_root(Path::new(path)).expect("it is there");
            let told = told_id(&dir);
            // A kernel before 5.8 tells it only so.
            assert!(told.is_some(), "{path}");
            assert!([None, told].contains(&dir.mount_id()), "{path}: {told:?}");
        }
        let root = |path| told_id(&Dir::open_root(Path::new(path)).expect("it is there"));
        assert_ne!(root("/"), root("/proc"));
    }

    /// The mount table has the number of what is open, and says what else it is.
    #[test]
    fn what_is_no_mount_of_the_union_is_not_opened() {
        let point = MountPoint {
            path: Bytes::from("/proc"),
            root: Bytes::from("/"),
            flags: "rw".into(),
            process: None,
            options: Vec::new(),
        };
        for union in [
            Superblock::Device(0, 1),
            Superblock::Aufs("0123456789abcdef".into()),
        ] {
            let refused = OpenMount::open(&point, Some(&union));
            let Err(Error::Refused { what, hint }) = refused else {
                panic!("{union}: {refused:?}");
            };
            assert!(what.starts_with("/proc is not, or no longer,"), "{what}");
            assert!(hint.contains("nothing was changed"), "{hint}");
        }
    }
}
