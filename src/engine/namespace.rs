//! Other mount namespaces: what is mounted there is learned from the processes in them, and of those
//! that have none and that a file keeps (`unshare --mount=FILE`, snapd's) from within.

use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::io::Errno;
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use super::mount_table::{Mount, MountTable, parse_mountinfo, parse_mounts};
use crate::bytes::Bytes;
use crate::dir::{Dir, Kind};
use crate::error::{Error, Result, errno_of};
use crate::host::Host;

/// A process, and what is mounted in its mount namespace.
#[derive(Debug)]
pub struct Process {
    pub id: u32,
    pub table: MountTable,
    /// What the kernel calls that namespace, where it was asked for.
    namespace: Option<Bytes>,
}

impl Process {
    /// # Errors
    /// The process is not there, or its mount table cannot be read.
    pub fn read(host: &Host, id: u32) -> Result<Process> {
        let bytes = host.read(&directory(id).join(b"mountinfo"))?;
        Ok(Process {
            id,
            table: parse_mountinfo(&bytes),
            namespace: None,
        })
    }
}

/// Where the kernel tells of a process in the host's own mount namespace: of this one, but of the
/// host's first where this one only looks in from a container (`--root /host`).
pub fn own(host: &Host) -> Bytes {
    let this = Bytes::from("/proc/self");
    if !host.is_alias() {
        return this;
    }
    let first = directory(1);
    match (name_of(host, &this), name_of(host, &first)) {
        (Some(own), Some(of_first)) if own != of_first => first,
        // It is the same, or closed to us.
        _ => this,
    }
}

/// What is mounted in the host's own mount namespace, or was there for a copied host's first process.
///
/// # Errors
/// It cannot be read.
pub fn mount_table(host: &Host) -> Result<MountTable> {
    let mut last = Ok(MountTable::default());
    let own = own(host);
    // In a namespace of its own, a container has the host's mounts below the root that was given.
    let is_looked_at_from_outside = own.file_name() == b"self" && host.is_other_root();
    let others = ["/proc/1/mountinfo", "/proc/mounts"].map(Bytes::from);
    for path in [own.join(b"mountinfo")].into_iter().chain(others) {
        match host.read(&path) {
            Ok(bytes) if path.file_name() == b"mountinfo" => {
                let table = parse_mountinfo(&bytes);
                return Ok(if is_looked_at_from_outside {
                    table.seen_by(|path| host.inside(&path.to_path()))
                } else {
                    table
                });
            }
            Ok(bytes) => return Ok(parse_mounts(&bytes)),
            Err(error) if error.is_not_found() => {}
            Err(error) => last = Err(error),
        }
    }
    last
}

/// One process of each mount namespace that is not the host's own. Where all of one's have a root of
/// their own (`chroot`), each of them: they are told only of what is mounted below it.
pub fn others(host: &Host) -> Vec<Process> {
    let mut seen: HashSet<Bytes> = name_of(host, &own(host)).into_iter().collect();
    let mut processes: Vec<Process> = Vec::new();
    for id in processes_of(host) {
        // A thread of the kernel has no program, and mounts nothing.
        if host.is_live() && matches!(program_of(host, id), Ok(None)) {
            continue;
        }
        let namespace = name_of(host, &directory(id));
        if namespace.as_ref().is_some_and(|name| seen.contains(name)) {
            continue;
        }
        // A process that has ended meanwhile, or is not ours to read, tells nothing.
        let Ok(process) = Process::read(host, id) else {
            continue;
        };
        if let Some(name) = namespace.as_ref().filter(|_| sees_all(host, id)) {
            processes.retain(|of| of.namespace.as_ref() != Some(name));
            seen.insert(name.clone());
        }
        processes.push(Process {
            namespace,
            ..process
        });
    }
    processes
}

/// Whether a process has the root of its mount namespace. Of a copied host nobody knows.
fn sees_all(host: &Host, process: u32) -> bool {
    let root = host.read_link(&directory(process).join(b"root"));
    !matches!(root, Ok(Some(root)) if root.as_bytes() != b"/")
}

/// What is mounted in those mount namespaces that a file of `table` keeps and that none of some
/// processes is in. Each is entered by a thread, which leaves nothing there.
///
/// # Errors
/// What cannot be entered, each by the file that keeps it. To others than root they are closed, as other
/// users' processes are.
pub fn kept(host: &Host, table: &MountTable, processes: &[Process]) -> Vec<Result<MountTable>> {
    if !host.is_live() && !host.is_alias() {
        return Vec::new();
    }
    let is_namespace =
        |mount: &&Mount| mount.fs_type == b"nsfs" && mount.root.as_bytes().starts_with(b"mnt:[");
    let mut seen: HashSet<Bytes> = name_of(host, &own(host)).into_iter().collect();
    seen.extend(processes.iter().filter_map(|of| of.namespace.clone()));
    let files = table.0.iter().filter(is_namespace);
    let kept = files.filter(|mount| seen.insert(mount.root.clone()));
    let tables = kept.map(|mount| mounted_within(host, &mount.point));
    let is_closed = |error: &Error| matches!(error.errno(), Errno::PERM | Errno::ACCESS);
    let is_root = rustix::process::geteuid().is_root();
    tables
        .filter(|table| is_root || !table.as_ref().is_err_and(is_closed))
        .collect()
}

/// What is mounted in the mount namespace that a file keeps.
fn mounted_within(host: &Host, keeper: &Bytes) -> Result<MountTable> {
    let (file, _) = host.open_sized(keeper)?;
    let fail = |errno| Error::io(keeper.clone(), errno);
    let enter = || {
        // What the thread is told of itself, which no path of the namespace may lead to.
        let own = Dir::open_root(Path::new("/proc/thread-self"))?;
        // It enters alone: its working directory and root are its own from here.
        #[allow(deprecated)] // unsafe is what shares descriptors, which is not asked for
        rustix::thread::unshare(UnshareFlags::FS).map_err(fail)?;
        let kind = Some(LinkNameSpaceType::Mount);
        move_into_link_name_space(file.as_fd(), kind).map_err(fail)?;
        let mounts = own.open_file(b"mountinfo").map_err(fail)?;
        let mut bytes = Vec::new();
        let read = File::from(mounts).read_to_end(&mut bytes);
        read.map_err(|error| fail(errno_of(&error)))?;
        Ok(parse_mountinfo(&bytes))
    };
    std::thread::scope(|scope| scope.spawn(enter).join()).unwrap_or_else(|_| Err(fail(Errno::IO)))
}

/// The processes of a host.
pub fn processes_of(host: &Host) -> Vec<u32> {
    let Ok(names) = host.list(&Bytes::from("/proc")) else {
        return Vec::new();
    };
    let directories = names
        .into_iter()
        .filter(|(_, kind)| *kind == Kind::Directory);
    let mut ids: Vec<u32> = directories
        .filter_map(|(name, _)| std::str::from_utf8(&name).ok()?.parse().ok())
        .collect();
    ids.sort_unstable();
    ids
}

/// Where the kernel tells of a process.
pub fn directory(process: u32) -> Bytes {
    Bytes::from(format!("/proc/{process}"))
}

/// The program that a process runs, as the kernel tells; none where it tells nothing: of a thread
/// of its own, and on a copied host.
///
/// # Errors
/// A process of somebody else's.
pub fn program_of(host: &Host, process: u32) -> Result<Option<Bytes>> {
    let directory = directory(process);
    if host.is_live() {
        // It is asked for more than this.
        host.open_and_keep(&directory)?;
    }
    host.read_link_once(&directory.join(b"exe"))
}

/// What the kernel calls the mount namespace of a process: `mnt:[4026531841]`. A copied host has
/// it beside the mount table, since it is no link that could be copied.
pub fn name_of(host: &Host, process: &Bytes) -> Option<Bytes> {
    if host.is_live() {
        // Every process is asked: one call each.
        let name = host.open_dir(process).ok()?.read_link(b"ns/mnt").ok()?;
        return Some(Bytes(name));
    }
    let link = |path: Bytes| host.read_link(&path).ok().flatten();
    link(process.join(b"ns").join(b"mnt")).or_else(|| link(process.join(b"ns_mnt")))
}
