//! What the kernel has mounted: the mount table and `/sys/fs/aufs`.
//!
//! ```text
//! /proc/self/mountinfo   33 15 0:29 / /demo/mnt rw,relatime shared:2 - aufs none rw,si=80a122805ed3e91b
//!                        id parent dev root mount-point flags [tags] - type source options
//! /sys/fs/aufs/          si_80a122805ed3e91b/br0 br1 ... br10   (brid* and xi_path are not branches)
//! ```
//!
//! `/sys` shows every AUFS of the machine, the mount table only those of one mount namespace.

use std::collections::{BTreeMap, HashSet};

use rustix::io::Errno;
use rustix::mount::{FsPickFlags, MountFlags, fsconfig_reconfigure, fspick, mount_remount};

use crate::branch::{self, BranchSpec, unescape_octal};
use crate::bytes::Bytes;
use crate::dir::Kind;
use crate::engine::{Layer, LayeredBranch, MountPoint, MountState, Role, Union, UnionKind};
use crate::error::{Error, Result};
use crate::host::Host;

const SYSFS: &str = "/sys/fs/aufs";
/// How often a listing that changes under our eyes is read again.
const ATTEMPTS: usize = 5;

/// One line of a mount table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// The mount's own number and that of the mount it lies on; `/proc/mounts` has neither.
    pub ids: Option<(u32, u32)>,
    pub root: Bytes,
    pub point: Bytes,
    pub flags: String,
    pub fs_type: Vec<u8>,
    pub source: Bytes,
    pub options: Vec<u8>,
}

impl Mount {
    /// AUFS's `si=` option.
    pub fn si(&self) -> Option<String> {
        let value = self
            .options
            .split(|&byte| byte == b',')
            .find_map(|option| option.strip_prefix(b"si="))?;
        is_hex(value).then(|| String::from_utf8_lossy(value).into_owned())
    }
}

/// The mounts of one namespace, in mount order.
#[derive(Debug, Clone, Default)]
pub struct MountTable(pub Vec<Mount>);

impl MountTable {
    /// The mount that a path lies on. As the kernel walks: down from the first mount on the path,
    /// always to the next one that lies on it, however deep the ones are that it covers.
    pub fn covering(&self, path: &Bytes) -> Option<&Mount> {
        let on_path: Vec<&Mount> = self
            .0
            .iter()
            .filter(|mount| path.strip_prefix(&mount.point).is_some())
            .collect();
        let depth = |mount: &&&Mount| mount.point.components().count();
        let numbers: Option<Vec<(u32, u32)>> = on_path.iter().map(|mount| mount.ids).collect();
        let are_unlike = |numbers: &Vec<(u32, u32)>| {
            let ids: HashSet<u32> = numbers.iter().map(|(id, _)| *id).collect();
            ids.len() == numbers.len()
        };
        // Without numbers the order of mounting is all there is: the latest covers.
        let Some(numbers) = numbers.filter(are_unlike) else {
            return on_path.last().copied();
        };
        let is_lowest =
            |(id, parent): (u32, u32)| id == parent || !numbers.iter().any(|(of, _)| *of == parent);
        let lowest = on_path
            .iter()
            .rev()
            .filter(|mount| mount.ids.is_some_and(is_lowest));
        let mut at: &Mount = lowest.min_by_key(depth)?;
        for _ in 0..on_path.len() {
            let id = at.ids.map(|(id, _)| id);
            let lies_on_it = on_path.iter().rev().filter(|mount| {
                mount
                    .ids
                    .is_some_and(|(of, parent)| Some(parent) == id && Some(of) != id)
            });
            match lies_on_it.min_by_key(depth) {
                Some(next) => at = next,
                None => break,
            }
        }
        Some(at)
    }
}

/// Reads `mountinfo`. Lines that are no mounts are passed over.
pub fn parse_mountinfo(bytes: &[u8]) -> MountTable {
    let mounts = bytes.split(|&byte| byte == b'\n').filter_map(|line| {
        let fields: Vec<&[u8]> = line.split(|&byte| byte == b' ').collect();
        let dash = fields.iter().skip(6).position(|field| *field == b"-")? + 6;
        let number = |at: usize| std::str::from_utf8(fields[at]).ok()?.parse().ok();
        Some(Mount {
            ids: number(0).zip(number(1)),
            root: Bytes(unescape_octal(fields[3])),
            point: Bytes(unescape_octal(fields[4])),
            flags: String::from_utf8_lossy(fields[5]).into_owned(),
            fs_type: fields.get(dash + 1)?.to_vec(),
            source: Bytes(unescape_octal(fields.get(dash + 2)?)),
            options: unescape_octal(fields.get(dash + 3).copied().unwrap_or_default()),
        })
    });
    MountTable(mounts.collect())
}

/// Reads `/proc/mounts`, which lacks only the part that a bind mount shows.
pub fn parse_mounts(bytes: &[u8]) -> MountTable {
    let mounts = bytes.split(|&byte| byte == b'\n').filter_map(|line| {
        let mut fields = line.split(|&byte| byte == b' ');
        let source = fields.next()?;
        let point = fields.next()?;
        let fs_type = fields.next()?;
        let options = fields.next()?;
        Some(Mount {
            ids: None,
            root: Bytes::from("/"),
            point: Bytes(unescape_octal(point)),
            flags: String::from_utf8_lossy(options).into_owned(),
            fs_type: fs_type.to_vec(),
            source: Bytes(unescape_octal(source)),
            options: unescape_octal(options),
        })
    });
    MountTable(mounts.collect())
}

/// The mount table of our own namespace, or of the copied host's first process.
pub fn mount_table(host: &Host) -> Result<MountTable> {
    let mut last = Ok(MountTable::default());
    for path in ["/proc/self/mountinfo", "/proc/1/mountinfo", "/proc/mounts"] {
        match host.read(&Bytes::from(path)) {
            Ok(bytes) if path.ends_with("mountinfo") => return Ok(parse_mountinfo(&bytes)),
            Ok(bytes) => return Ok(parse_mounts(&bytes)),
            Err(error) if error.is_not_found() => {}
            Err(error) => last = Err(error),
        }
    }
    last
}

/// Every AUFS that the kernel has, by its `si`, and the mount table that was read on the way.
pub fn unions(host: &Host, problems: &mut Vec<Error>) -> (MountTable, Vec<Union>) {
    let table = mount_table(host).unwrap_or_else(|error| {
        problems.push(error);
        MountTable::default()
    });
    let mut found: BTreeMap<String, Union> = BTreeMap::new();
    let mut order = Vec::new();
    let note = |si: String, found: &mut BTreeMap<String, Union>, order: &mut Vec<String>| {
        found.entry(si.clone()).or_insert_with(|| {
            order.push(si.clone());
            Union {
                si: Some(si),
                mounts: Vec::new(),
                state: MountState::Mounted,
                owner: None,
                branches: Vec::new(),
                kind: UnionKind::Aufs,
            }
        });
    };
    for mount in table.0.iter().filter(|mount| mount.fs_type == b"aufs") {
        let Some(si) = mount.si() else { continue };
        note(si.clone(), &mut found, &mut order);
        if let Some(union) = found.get_mut(&si) {
            add_mount(union, mount, None);
        }
    }
    let known: Vec<String> = order.clone();
    let in_sysfs = sysfs_names(host, problems);
    for si in in_sysfs.iter().filter(|si| !known.contains(si)) {
        note(si.clone(), &mut found, &mut order);
        if let Some(union) = found.get_mut(si) {
            union.state = MountState::Elsewhere;
        }
    }
    if found
        .values()
        .any(|union| union.state == MountState::Elsewhere)
    {
        look_elsewhere(host, &mut found);
    }
    let mut unions = Vec::new();
    for si in order {
        let Some(mut union) = found.remove(&si) else {
            continue;
        };
        if in_sysfs.contains(&si) {
            match sysfs_branches(host, &si) {
                // None: unmounted since the listing.
                Ok(None) if union.mounts.is_empty() => continue,
                Ok(None) => {}
                Ok(Some(specs)) if specs.is_empty() => {}
                Ok(Some(specs)) => union.branches = layered(specs),
                Err(error) => problems.push(error),
            }
        }
        find_modules(host, &table, &mut union);
        unions.push(union);
    }
    (table, unions)
}

fn add_mount(union: &mut Union, mount: &Mount, process: Option<u32>) {
    union.mounts.push(MountPoint {
        path: mount.point.clone(),
        root: mount.root.clone(),
        flags: match mount.options.starts_with(b"ro") {
            true => format!("ro,{}", mount.flags),
            false => mount.flags.clone(),
        },
        process,
    });
    if union.branches.is_empty()
        && let Some(specs) = branch::parse_mount_options(&mount.options)
    {
        union.branches = layered(specs);
    }
}

fn layered(specs: Vec<BranchSpec>) -> Vec<LayeredBranch> {
    specs
        .into_iter()
        .map(|spec| LayeredBranch {
            spec,
            layer: Layer::PLAIN,
        })
        .collect()
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
            is_hex(hex).then(|| String::from_utf8_lossy(hex).into_owned())
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

/// Looks for unions that are mounted only in other mount namespaces.
fn look_elsewhere(host: &Host, found: &mut BTreeMap<String, Union>) {
    let Ok(processes) = host.list(&Bytes::from("/proc")) else {
        return;
    };
    for (name, kind) in processes {
        if kind != Kind::Directory || !name.iter().all(u8::is_ascii_digit) {
            continue;
        }
        // A process that has ended meanwhile, or is not ours to read, tells nothing.
        let Ok(bytes) = host.read(&Bytes::from("/proc").join(&name).join(b"mountinfo")) else {
            continue;
        };
        for mount in parse_mountinfo(&bytes).0 {
            let Some(si) = mount.si().filter(|_| mount.fs_type == b"aufs") else {
                continue;
            };
            if let Some(union) = found.get_mut(&si)
                && union.state == MountState::Elsewhere
                && !union.mounts.iter().any(|known| known.path == mount.point)
            {
                let process = std::str::from_utf8(&name)
                    .ok()
                    .and_then(|text| text.parse().ok());
                add_mount(union, &mount, process);
            }
        }
    }
}

/// Makes a mounted AUFS forget what it has cached, without changing any of its options: a name
/// that was looked up after its deletion stays "not there" until then, and is dangerous to make
/// anew (FACTS 5.3, 5.3a).
///
/// # Errors
/// `EPERM` for whoever may not do it. Nothing has changed then.
pub fn refresh(mount: &MountPoint) -> std::result::Result<(), Errno> {
    let path = mount.reach();
    let flags = FsPickFlags::FSPICK_CLOEXEC | FsPickFlags::FSPICK_NO_AUTOMOUNT;
    // A directory below the mount point is no mount, which is EINVAL; one above it is.
    for at in path.ancestors() {
        match fspick(rustix::fs::CWD, at, flags) {
            Ok(picked) => return fsconfig_reconfigure(picked),
            Err(Errno::INVAL) => {}
            // Kernels before 5.2: a remount drops every flag that is not repeated.
            Err(Errno::NOSYS) => return mount_remount(&path, mount_flags(&mount.flags), ""),
            Err(errno) => return Err(errno),
        }
    }
    Err(Errno::INVAL)
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
            _ => MountFlags::empty(),
        };
    }
    if !flags.intersects(MountFlags::NOATIME | MountFlags::RELATIME) {
        flags |= MountFlags::STRICTATIME;
    }
    flags
}

/// Names the file behind a branch that is a file system mounted from a file, as live
/// distributions mount their squashfs modules.
fn find_modules(host: &Host, table: &MountTable, union: &mut Union) {
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

fn is_hex(text: &[u8]) -> bool {
    !text.is_empty() && text.len() <= 16 && text.iter().all(u8::is_ascii_hexdigit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountinfo_lines() {
        // FACTS-aufs 4.4, 4.5, 4.11, 4.12
        let table = parse_mountinfo(
            b"32 15 0:28 / /host rw,relatime - hostfs none rw,/srv1/aufs/share\n\
              33 15 0:29 / /demo/mnt rw,relatime shared:2 master:1 - aufs none rw,si=e5fdfdcac24fc19,dio\n\
              34 15 0:29 /sub\\040dir /demo/bind ro - aufs none rw,si=e5fdfdcac24fc19\n\
              broken line\n",
        );
        assert_eq!(table.0.len(), 3);
        assert_eq!(table.0[0].si(), None);
        assert_eq!(table.0[1].si().as_deref(), Some("e5fdfdcac24fc19"));
        assert_eq!(table.0[2].root, Bytes::from("/sub dir"));
        assert_eq!(table.0[2].flags, "ro");
    }

    #[test]
    fn the_deepest_and_latest_mount_covers_a_path() {
        let table = parse_mountinfo(
            b"1 0 0:1 / / rw - aufs none rw,si=1\n\
              2 1 0:2 / /home rw - ext4 /dev/a rw\n\
              3 1 0:3 / /home rw - tmpfs t rw\n",
        );
        let covering = |path: &str| table.covering(&Bytes::from(path)).unwrap().fs_type.clone();
        assert_eq!(covering("/etc/passwd"), b"aufs");
        assert_eq!(covering("/home/me"), b"tmpfs");
        assert_eq!(covering("/homeless"), b"aufs");

        // A later mount over a parent covers what was mounted below it before.
        for table in [
            parse_mountinfo(
                b"1 0 0:1 / / rw - ext4 /dev/a rw\n\
                  2 1 0:2 / /mnt/sub rw - aufs none rw,si=1\n\
                  3 1 0:3 / /mnt rw - tmpfs t rw\n",
            ),
            parse_mounts(
                b"/dev/a / ext4 rw 0 0\nnone /mnt/sub aufs rw,si=1 0 0\nt /mnt tmpfs rw 0 0\n",
            ),
        ] {
            let covering = table.covering(&Bytes::from("/mnt/sub/x")).unwrap();
            assert_eq!(covering.fs_type, b"tmpfs");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_a_parser_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
            let _ = parse_mountinfo(&bytes);
            let _ = parse_mounts(&bytes);
        }
    }
}
