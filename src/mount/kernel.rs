//! The same view, shown by the kernel: an overlay of lower directories only, so that nothing is
//! written.

use std::ffi::CString;
use std::os::fd::AsRawFd;
use std::path::Path;

use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount,
};

use super::attach::Allowed;
use super::listed::BY_KERNEL;
use crate::bytes::{Bytes, shell_quote};
use crate::dir::Dir;
use crate::engine::{Union, UnionKind};
use crate::error::{Error, Result};
use crate::overlay::{Namespace, Rules};
use crate::union::Stack;

/// The longest value of an option that fsconfig(2) takes, in bytes.
const OPTION_MAX: usize = 255;
/// The most of all options together that mount(2) takes, in bytes.
const PAGE_MAX: usize = 4095;

/// What an overlay is to be mounted with.
pub struct Overlay {
    /// The directories that are merged, topmost first.
    merged: Vec<Bytes>,
    /// Those that give nothing but content.
    data: Vec<Bytes>,
    rules: Rules,
    source: Bytes,
    allowed: Allowed,
}

impl Overlay {
    /// What the kernel would have to mount to show what a union shows. `root` is where the host is.
    ///
    /// # Errors
    /// The kernel cannot show it, or not for sure.
    pub fn of(
        (union, stack): (&Union, &Stack),
        root: &Path,
        target: &Bytes,
        allowed: Allowed,
    ) -> Result<Overlay> {
        let refuse = |why: &str| Error::Refused {
            what: format!("the kernel cannot show {target}: {why}"),
            hint: "leave --kernel away".into(),
        };
        let UnionKind::Overlay { rules, data } = union.kind else {
            return Err(refuse("it is no overlay"));
        };
        let branches = &stack.branches;
        let root = std::path::absolute(root).unwrap_or_else(|_| root.to_owned());
        let keeps_owners =
            |of: &crate::union::Branch| of.owners.is_none() && of.overrides.is_none();
        if !branches.iter().all(keeps_owners) {
            return Err(refuse(
                "its owners are kept otherwise than as they are shown",
            ));
        }
        if union.is_mounted() && stack.writable().is_some() {
            return Err(refuse(
                "it is mounted, and may change below, which the kernel does not heed",
            ));
        }
        let mut paths = Vec::new();
        for branch in branches {
            let dir = branch.dir.as_ref().map_err(Clone::clone)?;
            let path = Bytes::from(root.as_path()).join_path(&branch.path);
            let own = dir.stat_self().map(|stat| stat.identity());
            let found = Dir::open_root(&path.to_path()).and_then(|dir| {
                let stat = dir.stat_self();
                stat.map_err(|errno| Error::io(path.clone(), errno))
            });
            if dir.is_in_image()
                || found.is_err()
                || own != found.map(|of| of.identity()).map_err(|error| error.errno())
            {
                return Err(refuse(
                    "one of its branches is no directory that has a path",
                ));
            }
            paths.push(path);
        }
        let data = paths.split_off(paths.len().saturating_sub(data));
        if paths.len() < 2 {
            return Err(refuse("it has only one branch, and an overlay has two"));
        }
        Ok(Overlay {
            merged: paths,
            data,
            rules,
            source: Bytes([BY_KERNEL, target.as_bytes()].concat()),
            allowed,
        })
    }

    /// The options beside the directories: with a value, or alone.
    fn options(&self) -> Vec<(&'static str, &'static str)> {
        let mut options = Vec::new();
        let is_users = self.rules.namespace == Namespace::User;
        if is_users {
            options.push(("userxattr", ""));
        } else if self.rules.follows_redirects {
            options.push(("redirect_dir", "follow"));
        } else {
            options.push(("redirect_dir", "nofollow"));
        }
        if !is_users && self.rules.metacopy {
            options.push(("metacopy", "on"));
        }
        options
    }

    /// `lowerdir=`, as mount(2) takes it.
    fn lowerdir(&self) -> Vec<u8> {
        let escaped = |path: &Bytes| -> Vec<u8> {
            let escape = |&byte: &u8| {
                let is_special = matches!(byte, b':' | b',' | b'\\');
                is_special.then_some(b'\\').into_iter().chain([byte])
            };
            path.as_bytes().iter().flat_map(escape).collect()
        };
        let mut all: Vec<u8> = self
            .merged
            .iter()
            .map(escaped)
            .collect::<Vec<_>>()
            .join(&b':');
        for data in &self.data {
            all.extend_from_slice(b"::");
            all.extend(escaped(data));
        }
        all
    }

    /// The command that mounts it, for a shell; none where mount(8) cannot be given so many directories.
    /// From 2.39 on it takes options of up to [`OPTION_MAX`] bytes (util-linux issue 2287), unless it is told
    /// to mount as before (its pull request 2297), which older ones do anyway.
    pub fn command(&self, at: &Bytes) -> Option<String> {
        let mut options = String::from("ro");
        for (is_allowed, option) in [(self.allowed.suid, "nosuid"), (self.allowed.dev, "nodev")] {
            if !is_allowed {
                options.push(',');
                options.push_str(option);
            }
        }
        for (option, value) in self.options() {
            options.push(',');
            options.push_str(option);
            if !value.is_empty() {
                options.push('=');
                options.push_str(value);
            }
        }
        let lowerdir = self.lowerdir();
        let before = if lowerdir.len().max(self.source.as_bytes().len()) > OPTION_MAX {
            "LIBMOUNT_FORCE_MOUNT2=always "
        } else {
            ""
        };
        let options = [options.as_bytes(), b",lowerdir=", &lowerdir].concat();
        (options.len() <= PAGE_MAX).then(|| {
            format!(
                "{before}mount -t overlay -o {} {} {}",
                shell_quote(&Bytes(options)),
                shell_quote(&self.source),
                shell_quote(at)
            )
        })
    }

    /// Mounts it at a directory that is open.
    ///
    /// # Errors
    /// Only root may; what the system calls say.
    pub fn mount(&self, dir: &Dir, path: &Bytes) -> Result<()> {
        let fail = |errno| match errno {
            Errno::PERM => Error::Refused {
                what: "only root may have the kernel mount it".into(),
                hint: "run layerctl as root, or leave --kernel away".into(),
            },
            errno => Error::io(path.clone(), errno),
        };
        match self.by_options(dir) {
            // Kernels before 6.8 take no directory by itself.
            Err(Errno::INVAL | Errno::NOSYS) => self.by_page(dir).map_err(fail),
            mounted => mounted.map_err(fail),
        }
    }

    /// One option after the other, directories as they are.
    fn by_options(&self, dir: &Dir) -> Result<(), Errno> {
        let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        // A stack that is spelled out may be longer than what tells a mount's source.
        let source = self.source.as_bytes();
        let source = &source[..source.len().min(OPTION_MAX)];
        fsconfig_set_string(&context, "source", source)?;
        fsconfig_set_flag(&context, "ro")?;
        for (option, value) in self.options() {
            if value.is_empty() {
                fsconfig_set_flag(&context, option)?;
            } else {
                fsconfig_set_string(&context, option, value)?;
            }
        }
        for path in &self.merged {
            fsconfig_set_string(&context, "lowerdir+", path.as_bytes())?;
        }
        for path in &self.data {
            fsconfig_set_string(&context, "datadir+", path.as_bytes())?;
        }
        fsconfig_create(&context)?;
        let mut attributes = MountAttrFlags::MOUNT_ATTR_RDONLY;
        attributes.set(MountAttrFlags::MOUNT_ATTR_NOSUID, !self.allowed.suid);
        attributes.set(MountAttrFlags::MOUNT_ATTR_NODEV, !self.allowed.dev);
        let mounted = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
        let flags =
            MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        move_mount(&mounted, "", &*dir.fd()?, "", flags)
    }

    /// All options in the one page that mount(2) takes.
    fn by_page(&self, dir: &Dir) -> Result<(), Errno> {
        let mut options = [b"lowerdir=", &self.lowerdir()[..]].concat();
        for (option, value) in self.options() {
            options.push(b',');
            options.extend_from_slice(option.as_bytes());
            if !value.is_empty() {
                options.push(b'=');
                options.extend_from_slice(value.as_bytes());
            }
        }
        let options = CString::new(options).map_err(|_| Errno::INVAL)?;
        let mut flags = MountFlags::RDONLY;
        flags.set(MountFlags::NOSUID, !self.allowed.suid);
        flags.set(MountFlags::NODEV, !self.allowed.dev);
        let at = format!("/proc/self/fd/{}", dir.fd()?.as_raw_fd());
        let source = self.source.as_bytes();
        rustix::mount::mount(source, at, "overlay", flags, options.as_c_str())
    }
}
