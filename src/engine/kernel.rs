//! What unions the kernel has mounted: from the mount table, and for AUFS from `/sys/fs/aufs`.
//!
//! ```text
//! /sys/fs/aufs/          si_80a122805ed3e91b/br0 br1 ... br10   (brid* and xi_path are not branches)
//! ```
//!
//! `/sys` shows every AUFS of the machine, the mount table only those of one mount namespace, as
//! it does overlays. An overlay's branches are in the mount's options; those of one that a
//! program makes are nowhere.

use std::os::fd::AsRawFd;

use rustix::io::Errno;
use rustix::mount::{FsPickFlags, MountFlags, fsconfig_reconfigure, fspick, mount_remount};

use crate::branch::{self, BranchSpec, unescape_octal};
use crate::bytes::Bytes;
use crate::dir::{Access, Dir};
use crate::engine::mount_table::{self, Mount, MountKind, MountTable, Superblock};
use crate::engine::namespace::{self, Process};
use crate::engine::union::{LayeredBranch, MountPoint, MountState, Role, Union, UnionKind};
use crate::error::{Error, Result};
use crate::host::Host;
use crate::overlay::{self, Namespace, Rules};

const SYSFS: &str = "/sys/fs/aufs";
/// How often a listing that changes under our eyes is read again.
const ATTEMPTS: usize = 5;

/// Every union of our own mount namespace, in mount order, with every AUFS of the machine; and
/// the mount table that was read on the way.
pub fn unions(host: &Host, problems: &mut Vec<Error>) -> (MountTable, Vec<Union>) {
    let table = namespace::mount_table(host).unwrap_or_else(|error| {
        problems.push(error);
        MountTable::default()
    });
    let mut found = Unions::default();
    for mount in &table.0 {
        found.add(mount, None);
    }
    let in_sysfs = sysfs_names(host, problems);
    for si in &in_sysfs {
        let superblock = Superblock::Aufs(si.clone());
        if !found.has(&superblock) {
            found.unions.push(Union {
                state: MountState::Elsewhere,
                ..new_union(superblock, MountKind::Aufs)
            });
        }
    }
    let is_elsewhere = |union: &Union| union.state == MountState::Elsewhere;
    if found.unions.iter().any(is_elsewhere) {
        for process in namespace::others(host) {
            let mounts = process.table.0.iter();
            for mount in mounts.filter(|mount| mount.kind() == Some(MountKind::Aufs)) {
                found.add_known(mount, Some(process.id));
            }
        }
    }
    let mut unions = Vec::new();
    for mut union in found.unions {
        if let Some(si) = union.si().filter(|si| in_sysfs.iter().any(|of| of == si)) {
            match sysfs_branches(host, si) {
                // None: unmounted since the listing.
                Ok(None) if union.mounts.is_empty() => continue,
                Ok(None) => {}
                Ok(Some(specs)) if specs.is_empty() => {}
                Ok(Some(specs)) => union.branches = layered(specs),
                Err(error) => problems.push(error),
            }
        }
        finish(host, &table, &mut union);
        unions.push(union);
    }
    (table, unions)
}

/// The unions that are mounted in other mount namespaces only.
pub fn unions_elsewhere(host: &Host, known: &[Union]) -> Vec<Union> {
    let mut found = Unions::default();
    let mut tables = Vec::new();
    for process in namespace::others(host) {
        for mount in &process.table.0 {
            let superblock = mount.superblock();
            let is_known = known.iter().any(|union| union.superblock == superblock);
            if !is_known {
                found.add(mount, Some(process.id));
            }
        }
        tables.push(process);
    }
    let mut unions = found.unions;
    for union in &mut unions {
        union.state = MountState::Elsewhere;
        let process = union.mounts.first().and_then(|mount| mount.process);
        let table = tables.iter().find(|of| Some(of.id) == process);
        if let Some(Process { table, .. }) = table {
            finish(host, table, union);
        }
    }
    unions
}

/// The unions of a mount table of another namespace, each by itself.
pub fn unions_of(host: &Host, table: &MountTable) -> Vec<Union> {
    let mut found = Unions::default();
    for mount in &table.0 {
        found.add(mount, None);
    }
    let mut unions = found.unions;
    for union in &mut unions {
        finish(host, table, union);
    }
    unions
}

/// The union that a process has as its root, and the directory of it that the root is.
///
/// # Errors
/// There is no such process, or its mount table cannot be read.
pub fn root_of_process(host: &Host, id: u32) -> Result<Root> {
    let process = Process::read(host, id)?;
    let Some(mount) = process.table.covering(&Bytes::from("/")).cloned() else {
        let path = namespace::directory(id).join(b"mountinfo");
        return Err(Error::damaged(path, "has no line for the root"));
    };
    let mut found = Unions::default();
    // Its other mounts may tell where its branches are.
    for other in &process.table.0 {
        if other.superblock() == mount.superblock() {
            found.add(other, Some(id));
        }
    }
    let union = found.unions.pop().map(|mut union| {
        union.state = MountState::Elsewhere;
        finish(host, &process.table, &mut union);
        union
    });
    Ok(Root { mount, union })
}

/// What a process sees as `/`.
pub struct Root {
    pub mount: Mount,
    /// None: another file system.
    pub union: Option<Union>,
}

/// Unions in the order in which they were found.
#[derive(Default)]
struct Unions {
    unions: Vec<Union>,
}

impl Unions {
    fn has(&self, superblock: &Superblock) -> bool {
        self.unions
            .iter()
            .any(|union| union.superblock.as_ref() == Some(superblock))
    }

    /// Notes a mount, if it is a union's.
    fn add(&mut self, mount: &Mount, process: Option<u32>) {
        let (Some(kind), Some(superblock)) = (mount.kind(), mount.superblock()) else {
            return;
        };
        if mount.is_of_removed() {
            return;
        }
        if !self.has(&superblock) {
            self.unions.push(new_union(superblock, kind));
        }
        self.add_known(mount, process);
    }

    /// Notes a mount of a union that was found before. A process elsewhere tells nothing new of
    /// a place that is known.
    fn add_known(&mut self, mount: &Mount, process: Option<u32>) {
        let superblock = mount.superblock();
        let union = self
            .unions
            .iter_mut()
            .find(|union| union.superblock == superblock)
            .filter(|union| {
                process.is_none() || !union.mounts.iter().any(|known| known.path == mount.point)
            })
            .filter(|union| {
                process.is_none() || union.mounts.iter().all(|known| known.process.is_some())
            });
        if let Some(union) = union {
            add_mount(union, mount, process);
        }
    }
}

fn new_union(superblock: Superblock, kind: MountKind) -> Union {
    Union {
        superblock: Some(superblock),
        state: MountState::Mounted,
        kind: match kind {
            MountKind::Aufs => UnionKind::Aufs,
            MountKind::Overlay => UnionKind::Overlay {
                rules: Rules::DEFAULT,
                data: 0,
            },
            MountKind::FuseOverlay => UnionKind::FuseOverlay(Namespace::Trusted),
        },
        ..Union::unmounted(Vec::new())
    }
}

fn add_mount(union: &mut Union, mount: &Mount, process: Option<u32>) {
    union.mounts.push(MountPoint {
        path: mount.point.clone(),
        root: mount.root.clone(),
        flags: if mount.options.starts_with(b"ro") {
            format!("ro,{}", mount.flags)
        } else {
            mount.flags.clone()
        },
        process,
        options: mount.options.clone(),
    });
    if union.branches.is_empty()
        && union.kind == UnionKind::Aufs
        && let Some(specs) = branch::parse_mount_options(&unescape_octal(&mount.options))
    {
        union.branches = layered(specs);
    }
}

/// What needs all of a union's mounts to be known.
fn finish(host: &Host, table: &MountTable, union: &mut Union) {
    if let UnionKind::Overlay { .. } = union.kind {
        read_overlay(host, union);
    }
    find_modules(host, table, union);
}

/// An overlay's branches, from the options of its mounts.
fn read_overlay(host: &Host, union: &mut Union) {
    let defaults = overlay_defaults(host);
    let options = union
        .mounts
        .iter()
        .find_map(|mount| overlay::parse_mounted(&mount.options, defaults).ok());
    // Not told: some old kernels, and some tables, have no options.
    let Some(mut options) = options else { return };
    let exists = |path: &Bytes| host.stat(path).is_ok_and(|stat| stat.is_some());
    if let (Some(upper), Some(shown)) = (&options.upper, &options.upper_as_shown)
        && upper != shown
        && !exists(upper)
        && exists(shown)
    {
        options.upper = Some(shown.clone());
    }
    let is_absolute = |path: &Bytes| path.as_bytes().starts_with(b"/");
    let mut specs = options.branches();
    let relative = || specs.iter().filter(|spec| !is_absolute(&spec.path));
    let base = bases(union, options.upper.as_ref())
        .into_iter()
        .find(|base| {
            // The outermost ones speak for the hundreds between them.
            let ends = relative().next().into_iter().chain(relative().next_back());
            ends.into_iter()
                .all(|spec| exists(&base.join_path(&spec.path)))
        });
    if let Some(base) = base {
        for spec in specs.iter_mut().filter(|spec| !is_absolute(&spec.path)) {
            spec.path = base.join_path(&spec.path);
        }
    }
    union.branches = layered(specs);
    union.kind = UnionKind::Overlay {
        rules: options.rules,
        data: options.data.len(),
    };
}

/// Where relative options can start. Engines give long ones relative to the directory that they
/// keep layers in, in which each has its own directory, with its upper one and its mount point in
/// it. A person may have typed them in the directory where the mount point is.
fn bases(union: &Union, upper: Option<&Bytes>) -> Vec<Bytes> {
    let grandparent = |path: &Bytes| path.parent().parent();
    let mut bases = Vec::new();
    if let Some(upper) = upper.filter(|upper| upper.as_bytes().starts_with(b"/")) {
        bases.push(grandparent(upper));
    }
    for mount in &union.mounts {
        let layer = mount.path.parent();
        let own = upper.and_then(|upper| upper.components().next());
        if own.is_none_or(|own| own == layer.file_name()) {
            bases.push(grandparent(&mount.path));
        }
    }
    bases.extend(union.mounts.iter().map(|mount| mount.path.parent()));
    bases
}

/// What an overlay does whose options do not say, on this host.
fn overlay_defaults(host: &Host) -> Rules {
    let is_set = |name: &str, default| {
        let path = Bytes::from("/sys/module/overlay/parameters").join(name.as_bytes());
        match host.read(&path) {
            Ok(bytes) => bytes.starts_with(b"Y"),
            Err(_) => default,
        }
    };
    Rules {
        follows_redirects: is_set("redirect_dir", false) || is_set("redirect_always_follow", true),
        metacopy: is_set("metacopy", false),
        ..Rules::DEFAULT
    }
}

fn layered(specs: Vec<BranchSpec>) -> Vec<LayeredBranch> {
    specs.into_iter().map(LayeredBranch::from).collect()
}

fn sysfs_names(host: &Host, problems: &mut Vec<Error>) -> Vec<String> {
    let names = host.list(&Bytes::from(SYSFS)).unwrap_or_else(|error| {
        problems.push(error);
        Vec::new()
    });
    names
        .into_iter()
        .filter_map(|(name, _)| {
            let hex = name.strip_prefix(b"si_")?;
            mount_table::is_hex(hex).then(|| String::from_utf8_lossy(hex).into_owned())
        })
        .collect()
}

/// The branches of one union, in numerical order: empty with `brs=0`, `None` when the union has
/// gone. A remount renumbers them at once, so what changes while it is read is read again.
fn sysfs_branches(host: &Host, si: &str) -> Result<Option<Vec<BranchSpec>>> {
    let dir = Bytes::from(format!("{SYSFS}/si_{si}"));
    let mut before = branch_files(host, &dir)?;
    for _ in 0..ATTEMPTS {
        let Some(files) = before else { return Ok(None) };
        let read: Result<Vec<BranchSpec>> = files
            .iter()
            .map(|number| {
                let path = dir.join(format!("br{number}").as_bytes());
                let bytes = host.read(&path)?;
                branch::parse_sysfs(&bytes)
                    .ok_or_else(|| Error::damaged(path, "is not a branch line (path=permission)"))
            })
            .collect();
        let after = branch_files(host, &dir)?;
        let is_whole = files
            .iter()
            .enumerate()
            .all(|(index, number)| index == *number);
        match read {
            Ok(branches) if is_whole && after.as_ref() == Some(&files) => {
                return Ok(Some(branches));
            }
            Err(error) if after.as_ref() == Some(&files) && !error.is_not_found() => {
                return Err(error);
            }
            Ok(_) if !is_whole && after.as_ref() == Some(&files) => {
                return Err(Error::damaged(dir, "some of the br files are missing"));
            }
            _ => before = after,
        }
    }
    Err(Error::damaged(dir, "kept changing while it was read"))
}

fn branch_files(host: &Host, dir: &Bytes) -> Result<Option<Vec<usize>>> {
    let names = host.list(dir)?;
    if names.is_empty() {
        return Ok(None);
    }
    let mut numbers: Vec<usize> = names
        .iter()
        .filter_map(|(name, _)| {
            let digits = name.strip_prefix(b"br")?;
            std::str::from_utf8(digits).ok()?.parse().ok()
        })
        .collect();
    numbers.sort_unstable();
    Ok(Some(numbers))
}

/// Makes a mounted AUFS forget what it has cached, without changing any of its options: a name
/// that was looked up after its deletion stays "not there" until then, and is dangerous to make
/// anew (docs/facts.md#aufs-5.3, docs/facts.md#aufs-5.3a). `root` is what is seen at the mount
/// point, which may be a directory in the mount.
///
/// # Errors
/// `EPERM` for whoever may not do it; `EROFS` on an old kernel where the mount is a read-only one
/// of a union that is not. Nothing has changed then.
pub fn refresh(root: &Dir, mount: &MountPoint) -> std::result::Result<(), Errno> {
    let flags = FsPickFlags::FSPICK_CLOEXEC
        | FsPickFlags::FSPICK_NO_AUTOMOUNT
        | FsPickFlags::FSPICK_EMPTY_PATH;
    let mut below: Option<Dir> = None;
    loop {
        let at = below.as_ref().unwrap_or(root);
        let fd = at.fd()?;
        match fspick(&*fd, c"", flags) {
            Ok(picked) => return fsconfig_reconfigure(picked),
            // Below the mount's own root there is nothing to pick: it is further up.
            Err(Errno::INVAL) => {}
            // Kernels before 5.2.
            Err(Errno::NOSYS) => {
                let flags = remount_flags(mount).ok_or(Errno::ROFS)?;
                let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
                return mount_remount(path, flags, "");
            }
            Err(errno) => return Err(errno),
        }
        drop(fd);
        let above = at.child(b"..", Access::Lookup)?;
        // What is above the mount's root is of another mount.
        if above.mount_id().is_none_or(|id| Some(id) != at.mount_id())
            || above.stat_self()?.identity() == at.stat_self()?.identity()
        {
            return Err(Errno::INVAL);
        }
        below = Some(above);
    }
}

/// What a remount has to repeat, since it drops every flag that is not: those of the mount and
/// those of the file system. None where the mount alone is read-only: a remount through it would
/// make the whole union read-only, or the mount writable.
fn remount_flags(mount: &MountPoint) -> Option<MountFlags> {
    let of_union = String::from_utf8_lossy(&mount.options);
    let of_union = mount_flags(&of_union);
    let of_mount = mount_flags(&mount.flags);
    if of_mount.contains(MountFlags::RDONLY) && !of_union.contains(MountFlags::RDONLY) {
        return None;
    }
    let mut flags = of_mount | of_union;
    if !flags.intersects(MountFlags::NOATIME | MountFlags::RELATIME) {
        flags |= MountFlags::STRICTATIME;
    }
    Some(flags)
}

fn mount_flags(words: &str) -> MountFlags {
    let mut flags = MountFlags::empty();
    for word in words.split(',') {
        flags |= match word {
            "ro" => MountFlags::RDONLY,
            "nosuid" => MountFlags::NOSUID,
            "nodev" => MountFlags::NODEV,
            "noexec" => MountFlags::NOEXEC,
            "noatime" => MountFlags::NOATIME,
            "nodiratime" => MountFlags::NODIRATIME,
            "relatime" => MountFlags::RELATIME,
            "sync" => MountFlags::SYNCHRONOUS,
            "dirsync" => MountFlags::DIRSYNC,
            "lazytime" => MountFlags::LAZYTIME,
            "mand" => MountFlags::PERMIT_MANDATORY_FILE_LOCKING,
            "iversion" => MountFlags::from_bits_retain(1 << 23),
            _ => MountFlags::empty(),
        };
    }
    flags
}

/// Names the file behind a branch that is a file system mounted from a file, as live
/// distributions mount their squashfs modules.
pub(super) fn find_modules(host: &Host, table: &MountTable, union: &mut Union) {
    for branch in &mut union.branches {
        let mount = table
            .0
            .iter()
            .rev()
            .find(|mount| mount.point == branch.spec.path);
        let Some(mount) =
            mount.filter(|mount| mount.fs_type == b"squashfs" || mount.fs_type == b"erofs")
        else {
            continue;
        };
        let device = mount.source.as_bytes().strip_prefix(b"/dev/");
        let backing = device
            .filter(|device| device.starts_with(b"loop") && !device.contains(&b'/'))
            .and_then(|device| {
                let file = Bytes::from("/sys/block")
                    .join(device)
                    .join(b"loop")
                    .join(b"backing_file");
                host.read(&file).ok()
            })
            .map(|bytes| Bytes::from(bytes.strip_suffix(b"\n").unwrap_or(&bytes)));
        branch.layer.role = Role::Module;
        branch.layer.module = Some(backing.unwrap_or_else(|| mount.source.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A mount as the kernel's table has it: its own flags, and those of the file system.
    fn mounted(flags: &str, options: &str) -> MountPoint {
        MountPoint {
            path: "/mnt".into(),
            root: "/".into(),
            flags: flags.to_owned(),
            process: None,
            options: options.as_bytes().to_vec(),
        }
    }

    /// mount(2): a remount drops what is not given again, and MS_RDONLY is of the whole file system.
    #[test]
    fn a_remount_gives_again_what_was_given() {
        let flags = |flags: &str, options: &str| remount_flags(&mounted(flags, options));
        let kept = MountFlags::NOSUID
            | MountFlags::NODEV
            | MountFlags::NOEXEC
            | MountFlags::RELATIME
            | MountFlags::SYNCHRONOUS
            | MountFlags::DIRSYNC
            | MountFlags::LAZYTIME;
        assert_eq!(
            flags(
                "rw,nosuid,nodev,noexec,relatime",
                "rw,sync,dirsync,lazytime,si=1,dio"
            ),
            Some(kept)
        );
        let strict = Some(MountFlags::STRICTATIME);
        assert_eq!(flags("rw", "rw,si=1"), strict, "no words are said of it");
        assert_eq!(flags("ro,noatime", "rw,si=1"), None, "a read-only bind");
        let both = MountFlags::RDONLY | MountFlags::NOATIME;
        assert_eq!(flags("ro,noatime", "ro,si=1"), Some(both));
    }
}
