//! How a file system gets into the tree of directories, and out of it.
//!
//! Root mounts itself. Everybody else has `fusermount3` do it, which is there for that: it mounts, and
//! sends the descriptor through a socket that it is told of in `_FUSE_COMMFD`.

use std::ffi::{CString, OsString};
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};

use crate::bytes::{Bytes, escape};
use crate::dir::Dir;
use crate::error::{Error, Result};

/// The file system's type, as the mount table has it.
pub const FS_TYPE: &str = "fuse.layerctl";
/// The same for `fusermount3`, which puts `fuse.` before it.
const SUBTYPE: &str = "layerctl";
const DEVICE: &str = "/dev/fuse";
const HELPER: &str = "fusermount3";
/// The longest source that the kernel takes, in bytes.
const SOURCE_MAX: usize = 4095;

/// What may be done in a mount that may not be done by default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Allowed {
    /// Programs get the rights of their owners.
    pub suid: bool,
    /// Devices can be opened.
    pub dev: bool,
    /// Other users may look, too, each at what the permissions let him.
    pub other: bool,
}

/// Mounts a file system that this process answers for: at a directory that is open, whose path is
/// `path`. What comes back is where the kernel asks.
///
/// # Errors
/// There is no FUSE here, or this user may not mount; what the system calls say.
pub fn attach(dir: &Dir, path: &Bytes, source: &[u8], allowed: Allowed) -> Result<OwnedFd> {
    let fail = |errno| Error::io(path.clone(), errno);
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let device = match rustix::fs::open(DEVICE, flags, Mode::empty()) {
        Ok(device) => device,
        Err(Errno::NOENT | Errno::NODEV | Errno::NXIO) => {
            return Err(Error::Refused {
                what: "this machine has no FUSE: there is no /dev/fuse to open".into(),
                hint: "load the kernel's module (`modprobe fuse`), or give the container /dev/fuse"
                    .into(),
            });
        }
        Err(Errno::PERM | Errno::ACCESS) => return by_helper(path, source, allowed),
        Err(errno) => return Err(Error::io(DEVICE, errno)),
    };
    let mut options = format!(
        "fd={},rootmode=40000,user_id={},group_id={},default_permissions",
        device.as_raw_fd(),
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    );
    if allowed.other {
        options.push_str(",allow_other");
    }
    let options = CString::new(options).map_err(|_| fail(Errno::INVAL))?;
    let mut flags = MountFlags::RDONLY;
    flags.set(MountFlags::NOSUID, !allowed.suid);
    flags.set(MountFlags::NODEV, !allowed.dev);
    // By descriptor: another directory may have the name by now.
    let at = dir.fd().map_err(fail)?;
    let at = format!("/proc/self/fd/{}", at.as_raw_fd());
    let source = &source[..source.len().min(SOURCE_MAX)];
    match rustix::mount::mount(source, at, FS_TYPE, flags, options.as_c_str()) {
        Ok(()) => Ok(device),
        Err(Errno::PERM | Errno::ACCESS) => by_helper(path, source, allowed),
        Err(Errno::NODEV) => Err(Error::Refused {
            what: "this kernel has no FUSE".into(),
            hint: "load its module: `modprobe fuse`".into(),
        }),
        Err(errno) => Err(fail(errno)),
    }
}

/// Has `fusermount3` mount it.
fn by_helper(path: &Bytes, source: &[u8], allowed: Allowed) -> Result<OwnedFd> {
    let fail = |error: std::io::Error| Error::io(path.clone(), crate::error::errno_of(&error));
    let (ours, its) = UnixStream::pair().map_err(fail)?;
    fcntl_setfd(&its, FdFlags::empty()).map_err(|errno| Error::io(path.clone(), errno))?;
    let mut options = b"ro,default_permissions".to_vec();
    options.extend_from_slice(if allowed.suid { b",suid" } else { b",nosuid" });
    options.extend_from_slice(if allowed.dev { b",dev" } else { b",nodev" });
    if allowed.other {
        options.extend_from_slice(b",allow_other");
    }
    options.extend_from_slice(format!(",subtype={SUBTYPE},fsname=").as_bytes());
    for &byte in &source[..source.len().min(SOURCE_MAX / 2)] {
        if matches!(byte, b',' | b'\\') {
            options.push(b'\\');
        }
        options.push(byte);
    }
    let mut command = Command::new(HELPER);
    command
        .arg("-o")
        .arg(OsString::from_vec(options))
        .arg("--")
        .arg(path.to_path())
        .env("_FUSE_COMMFD", its.as_raw_fd().to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let child = command.spawn().map_err(|_| no_helper())?;
    drop(its);
    let received = receive(&ours);
    let output = child.wait_with_output().map_err(fail)?;
    match received {
        Some(device) if output.status.success() => Ok(device),
        _ => Err(Error::Refused {
            what: said(&output.stderr),
            hint: String::new(),
        }),
    }
}

fn no_helper() -> Error {
    Error::Refused {
        what: format!("only root may mount, and {HELPER}, which does it for others, is not there"),
        hint: "install fuse3, or run layerctl as root".into(),
    }
}

/// What the helper says, without its name.
fn said(words: &[u8]) -> String {
    let words = String::from_utf8_lossy(words);
    let words = words.trim().lines().next().unwrap_or_default();
    match words {
        "" => format!("{HELPER} could not mount it"),
        words => words.to_owned(),
    }
}

/// Receives the descriptor; none where none comes.
fn receive(from: &UnixStream) -> Option<OwnedFd> {
    let mut byte = [0];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut into = [IoSliceMut::new(&mut byte)];
    loop {
        let flags = RecvFlags::CMSG_CLOEXEC;
        match rustix::net::recvmsg(from, &mut into, &mut ancillary, flags) {
            Err(Errno::INTR) => {}
            Err(_) => return None,
            Ok(_) => break,
        }
    }
    ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut rights) => rights.next(),
        _ => None,
    })
}

/// When a mount goes away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// At once, or not at all where it is in use.
    Now,
    /// It is seen no more at once, and ends when nobody uses it any longer.
    Unused,
}

/// Unmounts what is mounted at a path: that mount, where its number is known. The directory that it is in is
/// opened once, so that nobody can put another one in its place.
///
/// # Errors
/// It is in use; it is not this user's; another is mounted there; what the system call says.
pub fn detach(path: &Bytes, number: Option<u32>, when: When) -> Result<()> {
    let mut flags = UnmountFlags::NOFOLLOW;
    flags.set(UnmountFlags::DETACH, when == When::Unused);
    let fail = |errno| Error::io(path.clone(), errno);
    let around = Dir::open_root(&path.parent().to_path())?;
    let there = around.mount_id_of(path.file_name());
    // What nobody serves any more may not be asked.
    let is_another = number
        .zip(there)
        .is_some_and(|(known, there)| u64::from(known) != there);
    if is_another {
        return Err(Error::Refused {
            what: format!("{path} is another mount than a moment ago"),
            hint: "see `layerctl mount`, and try again".into(),
        });
    }
    let fd = around.fd().map_err(fail)?;
    let held = Bytes::from(format!("/proc/self/fd/{}", fd.as_raw_fd()));
    match rustix::mount::unmount(held.join(path.file_name()).as_bytes(), flags) {
        Ok(()) => Ok(()),
        Err(Errno::PERM | Errno::ACCESS) => detach_by_helper(path, when),
        Err(Errno::BUSY) => Err(in_use(path)),
        Err(errno) => Err(Error::io(path.clone(), errno)),
    }
}

fn in_use(path: &Bytes) -> Error {
    Error::Refused {
        what: format!("{} is in use", escape(path.as_bytes())),
        hint: "end what uses it (`fuser -m DIR` tells), or `layerctl umount --lazy DIR`".into(),
    }
}

fn detach_by_helper(path: &Bytes, when: When) -> Result<()> {
    let mut command = Command::new(HELPER);
    command.arg("-u");
    if when == When::Unused {
        command.arg("-z");
    }
    let output = command
        .arg("--")
        .arg(path.to_path())
        .stdin(Stdio::null())
        .output()
        .map_err(|_| no_helper())?;
    if output.status.success() {
        return Ok(());
    }
    let words = said(&output.stderr);
    if words.contains("busy") {
        return Err(in_use(path));
    }
    Err(Error::Refused {
        what: words,
        hint: String::new(),
    })
}
