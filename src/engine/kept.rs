//! Mount namespaces that no process is in: a file keeps them (`unshare --mount=FILE`, snapd's), or
//! somebody's open descriptor. What is mounted there is learned from within.

use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{self, Mode, OFlags};
use rustix::io::Errno;
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use super::mount_table::{Mount, MountTable, parse_mountinfo};
use super::namespace::{Process, directory, name_of, own, processes_of};
use crate::bytes::Bytes;
use crate::dir::Dir;
use crate::error::{Error, Result, errno_of};
use crate::host::Host;

/// What keeps a namespace.
struct Keeper {
    /// What the kernel calls the namespace: `mnt:[4026531841]`.
    namespace: Bytes,
    kind: KeeperKind,
}

enum KeeperKind {
    /// A file of our own mount namespace.
    File(Bytes),
    /// A file of the mount namespace of a process: the kernel copies no such mount to a new one.
    FileOf(u32, Bytes),
    /// A descriptor of a process.
    Descriptor(Bytes),
}

/// What is mounted in those mount namespaces that are kept and that none of some processes is in. Each is
/// entered by a thread, which leaves nothing there. `table` has our own mounts.
///
/// # Errors
/// What cannot be entered, each by what keeps it. To others than root they are closed, as other users'
/// processes are.
pub fn kept(host: &Host, table: &MountTable, processes: &[Process]) -> Vec<Result<MountTable>> {
    if !host.is_live() && !host.is_alias() {
        return Vec::new();
    }
    let mut seen: HashSet<Bytes> = name_of(host, &own(host)).into_iter().collect();
    seen.extend(processes.iter().filter_map(|of| of.namespace.clone()));
    let here = files(table, KeeperKind::File);
    let there = processes
        .iter()
        .flat_map(|process| files(&process.table, |path| KeeperKind::FileOf(process.id, path)));
    let open = processes_of(host).into_iter();
    let open = open.flat_map(|process| descriptors(host, process));
    let is_closed = |error: &Error| matches!(error.errno(), Errno::PERM | Errno::ACCESS);
    let is_root = rustix::process::geteuid().is_root();
    let mut tables = Vec::new();
    for keeper in here.chain(there).chain(open) {
        if seen.contains(&keeper.namespace) {
            continue;
        }
        let found = match keeper.open(host) {
            // Its process has ended, or has closed it.
            Ok(None) => continue,
            Ok(Some(file)) => mounted_within(&file, &keeper.path()),
            Err(error) => Err(error),
        };
        match found {
            Err(error) if is_closed(&error) && !is_root => {}
            found => {
                seen.insert(keeper.namespace);
                tables.push(found);
            }
        }
    }
    tables
}

/// The mount namespaces that files of a mount table keep.
fn files(table: &MountTable, kind: impl Fn(Bytes) -> KeeperKind) -> impl Iterator<Item = Keeper> {
    let namespaces = table
        .0
        .iter()
        .filter(|mount| mount.fs_type == b"nsfs" && is_mount_namespace(&mount.root));
    namespaces.map(move |mount: &Mount| Keeper {
        namespace: mount.root.clone(),
        kind: kind(mount.point.clone()),
    })
}

/// The mount namespaces that a process has open. One that has ended or is not ours to ask tells nothing.
fn descriptors(host: &Host, process: u32) -> Vec<Keeper> {
    let at = directory(process).join(b"fd");
    let opened = host.open_dir(&at).ok();
    let Some((dir, names)) = opened.and_then(|dir| Some((dir.clone(), dir.names().ok()?))) else {
        return Vec::new();
    };
    let keepers = names.iter().filter_map(|(name, _)| {
        let namespace = Bytes(dir.read_link(name).ok()?);
        is_mount_namespace(&namespace).then(|| Keeper {
            namespace,
            kind: KeeperKind::Descriptor(at.join(name)),
        })
    });
    keepers.collect()
}

fn is_mount_namespace(name: &Bytes) -> bool {
    name.as_bytes().starts_with(b"mnt:[")
}

impl Keeper {
    /// Opens the namespace; none where what kept it is gone.
    ///
    /// # Errors
    /// It cannot be opened, or something else has its place.
    fn open(&self, host: &Host) -> Result<Option<OwnedFd>> {
        match &self.kind {
            KeeperKind::File(path) => Ok(Some(host.open_sized(path)?.0.into())),
            KeeperKind::FileOf(process, path) => {
                let root = on_machine(host, &directory(*process).join(b"root"));
                let Ok(root) = Dir::open_root(&root) else {
                    return Ok(None);
                };
                let around = root.descend(&path.parent())?;
                let file = around.open_file(path.file_name());
                file.map(Some).map_err(|errno| self.error(errno))
            }
            KeeperKind::Descriptor(path) => {
                // It is looked at before it is opened: its process can open something else in its place.
                let flags = OFlags::PATH | OFlags::CLOEXEC;
                let seen = fs::open(on_machine(host, path), flags, Mode::empty());
                let Ok(seen) = seen else {
                    return Ok(None);
                };
                let path = format!("/proc/self/fd/{}", seen.as_raw_fd());
                let is_it = |name: std::ffi::CString| name.as_bytes() == self.namespace.as_bytes();
                if !fs::readlink(&path[..], Vec::new()).is_ok_and(is_it) {
                    return Ok(None);
                }
                let file = fs::open(&path[..], OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
                file.map(Some).map_err(|errno| self.error(errno))
            }
        }
    }

    fn path(&self) -> Bytes {
        match &self.kind {
            KeeperKind::File(path) | KeeperKind::Descriptor(path) => path.clone(),
            KeeperKind::FileOf(process, path) => directory(*process).join(b"root").join_path(path),
        }
    }

    fn error(&self, errno: Errno) -> Error {
        Error::io(self.path(), errno)
    }
}

/// The path of this machine that a path of the host's `/proc` is.
fn on_machine(host: &Host, path: &Bytes) -> PathBuf {
    Bytes::from(host.root()).join_path(path).to_path()
}

/// What is mounted in a mount namespace.
fn mounted_within(namespace: &OwnedFd, keeper: &Bytes) -> Result<MountTable> {
    let fail = |errno| Error::io(keeper.clone(), errno);
    let enter = || {
        // What the thread is told of itself, which no path of the namespace may lead to.
        let own = Dir::open_root(Path::new("/proc/thread-self"))?;
        // It enters alone: its working directory and root are its own from here.
        #[allow(deprecated)] // unsafe is what shares descriptors, which is not asked for
        rustix::thread::unshare(UnshareFlags::FS).map_err(fail)?;
        let kind = Some(LinkNameSpaceType::Mount);
        move_into_link_name_space(namespace.as_fd(), kind).map_err(fail)?;
        let mounts = own.open_file(b"mountinfo").map_err(fail)?;
        let mut bytes = Vec::new();
        let read = File::from(mounts).read_to_end(&mut bytes);
        read.map_err(|error| fail(errno_of(&error)))?;
        Ok(parse_mountinfo(&bytes))
    };
    std::thread::scope(|scope| scope.spawn(enter).join()).unwrap_or_else(|_| Err(fail(Errno::IO)))
}
