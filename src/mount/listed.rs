//! The mounts that are ours, as the kernel's table has them.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::io::Errno;

use super::attach::FS_TYPE;
use crate::bytes::Bytes;
use crate::engine::mount_table::{Mount, MountTable, parse_mountinfo};
use crate::error::{Error, Result};
use crate::host::Host;

/// What begins the source of a mount that the kernel answers for itself.
pub const BY_KERNEL: &[u8] = b"layerctl:";
/// How long a mount has to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Who answers for a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum By {
    Fuse,
    Kernel,
}

impl By {
    pub fn word(self) -> &'static str {
        match self {
            By::Fuse => "fuse",
            By::Kernel => "kernel",
        }
    }
}

/// Whether anybody answers for a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    Answers,
    Dead,
    Silent,
}

impl Health {
    pub fn word(self) -> &'static str {
        match self {
            Health::Answers => "answers",
            Health::Dead => "dead",
            Health::Silent => "silent",
        }
    }
}

/// One of our mounts.
#[derive(Debug, Clone)]
pub struct Ours {
    /// What is mounted, as a TARGET.
    pub target: Bytes,
    pub path: Bytes,
    pub by: By,
    /// The kernel's number of the mount.
    pub number: Option<u32>,
}

impl Ours {
    fn of(mount: &Mount) -> Option<Ours> {
        let (target, by) = if mount.fs_type == FS_TYPE.as_bytes() {
            (mount.source.clone(), By::Fuse)
        } else {
            let target = mount.source.as_bytes().strip_prefix(BY_KERNEL)?;
            (Bytes::from(target), By::Kernel)
        };
        Some(Ours {
            target,
            path: mount.point.clone(),
            by,
            number: mount.ids.map(|(own, _)| own),
        })
    }

    /// Whether it is answered for. Who is asked may never answer: it is not waited for long.
    pub fn state(&self) -> Health {
        let (tell, told) = mpsc::channel();
        let path = self.path.clone();
        let ask = move || {
            let _ = tell.send(rustix::fs::statfs(path.as_bytes()).map(|_| ()));
        };
        if thread::Builder::new().spawn(ask).is_err() {
            return Health::Silent;
        }
        match told.recv_timeout(PATIENCE) {
            Ok(Err(Errno::NOTCONN | Errno::CONNABORTED)) => Health::Dead,
            Ok(_) => Health::Answers,
            Err(_) => Health::Silent,
        }
    }
}

/// The mount table of this machine, wherever `--root` is.
fn table() -> Result<MountTable> {
    let host = Host::open(Path::new("/"))?;
    let bytes = host.read(&Bytes::from("/proc/self/mountinfo"))?;
    Ok(parse_mountinfo(&bytes))
}

/// Our mounts, in the order in which they were made.
///
/// # Errors
/// The mount table cannot be read.
pub fn ours() -> Result<Vec<Ours>> {
    Ok(table()?.0.iter().filter_map(Ours::of).collect())
}

/// What is mounted at a path of this machine, the last of it: one of ours, or the type of another's;
/// none where nothing is.
///
/// # Errors
/// The mount table cannot be read.
pub fn at(path: &Bytes) -> Result<Option<Result<Ours, Vec<u8>>>> {
    let table = table()?;
    let last = table.0.iter().rev().find(|mount| mount.point == *path);
    Ok(last.map(|mount| Ours::of(mount).ok_or_else(|| mount.fs_type.clone())))
}

/// The path of a directory, links resolved, without asking what is mounted there: nobody may answer.
///
/// # Errors
/// The directory that it is in cannot be found.
pub fn real_path(typed: &Path) -> Result<Bytes> {
    let absolute = std::path::absolute(typed).unwrap_or_else(|_| typed.to_owned());
    let real = |path: &Path| {
        let real = rustix::fs::openat(
            rustix::fs::CWD,
            path,
            rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC,
            rustix::fs::Mode::empty(),
        );
        let fd = real.map_err(|errno| Error::io(path, errno))?;
        let link = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&fd));
        let path = rustix::fs::readlink(&link, Vec::new());
        path.map(|path| Bytes::from(path.to_bytes()))
            .map_err(|errno| Error::io(link.as_str(), errno))
    };
    let path: std::path::PathBuf = absolute.components().collect();
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) if name != ".." => Ok(real(parent)?.join(name.as_bytes())),
        _ => real(&path),
    }
}

/// The same of what is to be unmounted: where a symbolic link leads, that of where it leads. A link is told
/// from a mount by the table of mounts, and reading one asks nobody.
///
/// # Errors
/// A directory on the way cannot be found.
pub fn real_path_of_mount(typed: &Path) -> Result<Bytes> {
    let mut path = real_path(typed)?;
    for _ in 0..LINKS_MAX {
        if at(&path)?.is_some() {
            break;
        }
        let Ok(target) = rustix::fs::readlink(path.as_bytes(), Vec::new()) else {
            break;
        };
        let link = path.to_path();
        let around = link.parent().unwrap_or(Path::new("/"));
        path = real_path(&around.join(std::ffi::OsStr::from_bytes(target.to_bytes())))?;
    }
    Ok(path)
}

/// As many links as the kernel follows.
const LINKS_MAX: usize = 40;
