//! What tests need of a machine. Each of these leaves the calling test out where it is not there.

use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};

use super::harness::{in_part, needs_asking, skip};
use super::host::Host;
use super::{has_strace, is_root};

/// `what` takes root.
#[track_caller]
pub fn root(what: &str) {
    if !is_root() {
        skip(&format!("{what} takes root"));
    }
}

/// More of the processor's time than a second and a half: three minutes are what all others take
/// together, as an ordinary user.
#[track_caller]
pub fn time() {
    needs_asking("it takes long");
}

#[track_caller]
pub fn strace() {
    if !has_strace() {
        skip("strace is not installed");
    }
}

/// What comes with the source, and not with the package of the registry.
#[track_caller]
pub fn fixtures() {
    if !Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures")
        .is_dir()
    {
        skip("needs fixtures/ (not in the crate package)");
    }
}

/// A program that its argument makes end at once.
#[track_caller]
pub fn program(name: &str, argument: &str) {
    if Command::new(name).arg(argument).output().is_err() {
        skip(&format!("{name} is not installed"));
    }
}

/// Captured hosts hold whiteouts, owners and trusted attributes. An overlay below the temporary
/// directory refuses them to root, too (49).
fn no_captured_hosts() -> Option<&'static str> {
    if !is_root() {
        return Some("to unpack a captured host takes root");
    }
    let host = Host::empty();
    let (kind, mode) = (FileType::CharacterDevice, Mode::empty());
    let made = mknodat(CWD, host.at("/whiteout"), kind, mode, makedev(0, 0));
    made.is_err()
        .then_some("a captured host holds whiteouts, which this temporary directory refuses")
}

#[track_caller]
pub fn captured_hosts() {
    if let Some(why) = no_captured_hosts() {
        skip(why);
    }
}

/// Whether there are some. If not, the test goes on without them.
#[track_caller]
pub fn captured_hosts_in_part() -> bool {
    let why = no_captured_hosts();
    why.inspect(|why| in_part(why)).is_none()
}

/// Overlays can be mounted, by root, in [`own_mounts`].
#[track_caller]
pub fn mounts() {
    static WHY_NOT: OnceLock<Option<String>> = OnceLock::new();
    root("to mount");
    let why_not = WHY_NOT.get_or_init(|| {
        let probe = tempfile::tempdir().expect("a directory");
        for name in ["lower", "upper", "work", "mount"] {
            std::fs::create_dir(probe.path().join(name)).expect("a new directory");
        }
        let mounted = own_mounts()
            .current_dir(probe.path())
            .args(["mount", "-t", "overlay", "overlay", "-o"])
            .args(["lowerdir=lower,upperdir=upper,workdir=work", "mount"])
            .output();
        match mounted {
            Ok(output) if output.status.success() => None,
            Ok(output) => Some(String::from_utf8_lossy(&output.stderr).into_owned()),
            Err(error) => Some(format!("unshare: {error}")),
        }
    });
    if let Some(why) = why_not {
        skip(&format!("this machine forbids to mount: {}", why.trim()));
    }
}

/// Runs a program in mounts and processes of its own, which end with it.
pub fn own_mounts() -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private"]);
    command.args(["--pid", "--fork", "--kill-child", "--mount-proc"]);
    command
}

/// The kernel asks programs for files (FUSE), and this one may be asked in [`own_mounts`].
#[track_caller]
pub fn fuse() {
    mounts();
    if let Err(error) = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/fuse")
    {
        skip(&format!("/dev/fuse: {error}"));
    }
}
