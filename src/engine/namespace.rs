//! Other mount namespaces: what is mounted there is learned from the processes in them. Those that have
//! none are `kept`.

use std::collections::HashSet;

use super::mount_table::{MountTable, parse_mountinfo, parse_mounts};
use crate::bytes::Bytes;
use crate::dir::Kind;
use crate::error::Result;
use crate::host::Host;

/// A process, and what is mounted in its mount namespace.
#[derive(Debug)]
pub struct Process {
    pub id: u32,
    pub table: MountTable,
    /// What the kernel calls that namespace, where it was asked for.
    pub(super) namespace: Option<Bytes>,
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
