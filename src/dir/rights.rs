//! What the process may ask the kernel.

use std::io::Read;
use std::sync::OnceLock;

use super::open::Dir;

/// Whether the kernel tells this process of `trusted.*` attributes. That takes the right to
/// administer the machine, not just a user namespace.
pub fn reads_trusted_attributes() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| {
        let capabilities = rustix::thread::capabilities(None);
        let is_administrator = capabilities.is_ok_and(|sets| {
            let wanted = rustix::thread::CapabilitySet::SYS_ADMIN;
            sets.effective.contains(wanted)
        });
        is_administrator && !is_in_user_namespace()
    })
}

/// Whether no directory of the machine is closed to this process.
pub fn enters_everything() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| {
        let capabilities = rustix::thread::capabilities(None);
        let may = capabilities.is_ok_and(|sets| {
            let wanted = [
                rustix::thread::CapabilitySet::DAC_READ_SEARCH,
                rustix::thread::CapabilitySet::DAC_OVERRIDE,
            ];
            wanted.iter().any(|of| sets.effective.contains(*of))
        });
        may && !is_in_user_namespace()
    })
}

/// Whether the process is in a user namespace: in the machine's own every user is himself.
pub fn is_in_user_namespace() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(has_own_users)
}

/// Whether `/proc/self/uid_map` says anything but that every user is himself.
fn has_own_users() -> bool {
    let mut map = String::new();
    let file = Dir::open_root(std::path::Path::new("/proc/self"))
        .ok()
        .and_then(|dir| dir.open_file(b"uid_map").ok());
    // Without /proc nothing tells, and the capability alone decides.
    let Some(file) = file else { return false };
    match std::fs::File::from(file).read_to_string(&mut map) {
        Ok(_) => map.split_whitespace().ne(["0", "0", "4294967295"]),
        Err(_) => false,
    }
}
