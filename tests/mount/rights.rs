//! Who may do what in a mount: programs with the rights of their owners, devices, other users.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

use rustix::fs::{CWD, FileType, Mode, XattrFlags, lgetxattr, lsetxattr, makedev, mknodat};

use super::life::device_for_everybody;
use super::{mount, privately, umount};
use crate::lab::needs;
use crate::lab::run::{copy_program, run};

/// Somebody who is not root, and owns nothing of it.
const USER: u32 = 65_534;

/// A command as that user.
fn as_user(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    let user = USER.to_string();
    command.args(["--reuid", &user, "--regid", &user, "--clear-groups"]);
    command.arg(program);
    command
}

/// What a mount's line in the table says that may be done in it.
fn options(at: &Path) -> Vec<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").expect("it is there");
    let at = at.to_str().expect("text");
    let mut lines = table
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>());
    let line = lines.find(|line| line[4] == at).expect("it is mounted");
    line[5].split(',').map(str::to_owned).collect()
}

#[apply(test)]
fn rights_of_owners_and_devices_are_nothing_unless_root_asks() {
    privately(|ground| {
        let id = ground.at("low/id");
        fs::create_dir_all(ground.at("low")).expect("our own");
        copy_program("/usr/bin/id", &id);
        chown(&id, Some(1234), Some(1234)).expect("root may");
        fs::set_permissions(&id, fs::Permissions::from_mode(0o4755)).expect("our own");
        let (zero, mode) = (ground.at("low/zero"), Mode::RUSR);
        mknodat(CWD, &zero, FileType::CharacterDevice, mode, makedev(1, 5)).expect("root may");
        let target = ground.overlay();
        let at = ground.dir("m");
        let user_in = || {
            let id = Command::new(at.join("id")).arg("-u").output();
            let said = id.expect("it can be run").stdout;
            String::from_utf8(said).expect("a number").trim().to_owned()
        };
        let opens = || fs::File::open(at.join("zero")).is_ok();
        for (asked, is_suid, is_dev) in [
            (&[][..], false, false),
            (&["-o", "suid,dev"], true, true),
            (&["-o", "suid"], true, false),
            (&["-o", "dev", "-o", "ro"], false, true),
            (&["-o", "suid,dev,nosuid", "-o", "nodev"], false, false),
        ] {
            for kernel in [&[][..], &["--kernel"]] {
                mount(&[asked, kernel].concat(), &target, &at).exits(0);
                assert_eq!(user_in() == "1234", is_suid, "{asked:?}");
                assert_eq!(opens(), is_dev, "{asked:?}");
                let options = options(&at);
                let has = |option: &str| options.iter().any(|of| of == option);
                assert!(has("ro"));
                assert_eq!((has("nosuid"), has("nodev")), (!is_suid, !is_dev));
                umount(&at).exits(0);
            }
        }
    });
}

/// Owners and modes decide, as the kernel decides everywhere, and nobody but who mounted it is let in
/// unless others are asked for.
#[apply(test)]
fn another_user_reads_what_modes_let_him() {
    privately(|ground| {
        for (name, mode) in [("open", 0o644), ("secret", 0o600), ("run", 0o711)] {
            let file = ground.file(&format!("low/d/{name}"), name);
            fs::set_permissions(file, fs::Permissions::from_mode(mode)).expect("our own");
        }
        ground.file("low/closed/open", "open");
        let closed = fs::Permissions::from_mode(0o700);
        fs::set_permissions(ground.at("low/closed"), closed).expect("our own");
        let theirs = ground.file("low/d/theirs", "theirs");
        fs::set_permissions(&theirs, fs::Permissions::from_mode(0o400)).expect("our own");
        chown(&theirs, Some(USER), Some(USER)).expect("root may");
        for path in ["", "low", "up"] {
            let all = fs::Permissions::from_mode(0o755);
            fs::create_dir_all(ground.at(path)).expect("our own");
            fs::set_permissions(ground.at(path), all).expect("our own");
        }
        let target = ground.overlay();
        let at = ground.dir("m");
        let reads = |path: &str| {
            let output = as_user(Path::new("cat")).arg(at.join(path)).output();
            let output = output.expect("setpriv is there");
            let words = String::from_utf8(output.stderr).expect("text");
            assert!(
                output.status.success() || words.contains("Permission denied"),
                "{words}"
            );
            output.status.success()
        };
        mount(&["-o", "allow_other"], &target, &at).exits(0);
        for (path, is_let) in [
            ("d/open", true),
            ("d/secret", false),
            ("d/run", false),
            ("d/theirs", true),
            ("closed/open", false),
        ] {
            // Root looks first: what was answered to him is not answered to all.
            fs::read(at.join(path)).expect("root may");
            assert_eq!(reads(path), is_let, "{path}");
        }
        umount(&at).exits(0);
        mount(&[], &target, &at).exits(0);
        assert!(!reads("d/open"), "nobody else was asked for");
        umount(&at).exits(0);
    });
}

#[apply(test)]
fn an_ordinary_user_gets_neither_devices_nor_rights() {
    privately(|ground| {
        needs::program("fusermount3", "-V");
        device_for_everybody(ground);
        ground.file("a/file", "a");
        ground.file("b/other", "b");
        let all = fs::Permissions::from_mode(0o755);
        fs::set_permissions(ground.at(""), all).expect("our own");
        let at = ground.dir("m");
        for path in ["a", "a/file", "b", "b/other", "m"] {
            chown(ground.at(path), Some(USER), Some(USER)).expect("root may");
        }
        let program = ground.at("layerctl");
        copy_program(env!("CARGO_BIN_EXE_layerctl"), &program);
        let (a, b) = (ground.at("a"), ground.at("b"));
        let target = format!("br:{}=rw:{}=ro", a.display(), b.display());
        let mut command = as_user(&program);
        let asked = ["mount", "-o", "suid,dev", &target];
        let mounted = run(command.args(asked).arg(&at));
        if mounted.status == Some(0) {
            let options = options(&at);
            for wanted in ["ro", "nosuid", "nodev"] {
                assert!(options.iter().any(|of| of == wanted), "{options:?}");
            }
            run(as_user(&program).arg("umount").arg(&at)).exits(0);
        }
        for wanted in [&[][..], &["-o", "nosuid,nodev"]] {
            let mut command = as_user(&program);
            run(command.arg("mount").args(wanted).arg(&target).arg(&at)).exits(0);
            let options = options(&at);
            assert!(options.iter().any(|of| of == "nosuid"), "{options:?}");
            run(as_user(&program).arg("umount").arg(&at)).exits(0);
        }
    });
}

/// An access list in the kernel's form: user 77 may do all.
const ACCESS: &[u8] = b"\x02\0\0\0\
    \x01\0\x07\0\xff\xff\xff\xff\
    \x02\0\x07\0\x4d\0\0\0\
    \x04\0\x05\0\xff\xff\xff\xff\
    \x10\0\x07\0\xff\xff\xff\xff\
    \x20\0\x05\0\xff\xff\xff\xff";

#[apply(test)]
fn access_lists_are_what_the_kernel_shows() {
    privately(|ground| {
        ground.file("low/file", "x");
        ground.dir("low/directory");
        let lists = [
            ("file", "system.posix_acl_access"),
            ("directory", "system.posix_acl_access"),
            ("directory", "system.posix_acl_default"),
        ];
        for (path, list) in lists {
            let path = ground.at("low").join(path);
            if lsetxattr(&path, list, ACCESS, XattrFlags::empty()).is_err() {
                crate::lab::skip("the temporary directory takes no access lists");
            }
        }
        let target = ground.overlay();
        let (kernel, ours) = (ground.dir("kernel"), ground.dir("ours"));
        mount(&["--kernel"], &target, &kernel).exits(0);
        mount(&[], &target, &ours).exits(0);
        let list_of = |at: &Path, list: &str| {
            let mut value = [0; 256];
            let count = lgetxattr(at, list, &mut value[..]);
            count.map(|count| value[..count].to_vec())
        };
        for path in ["file", "directory"] {
            for list in ["system.posix_acl_access", "system.posix_acl_default"] {
                let said = list_of(&kernel.join(path), list);
                assert_eq!(list_of(&ours.join(path), list), said, "{path} {list}");
                if lists.contains(&(path, list)) {
                    assert_eq!(said.as_deref(), Ok(ACCESS), "{path} {list}");
                }
            }
            let listed = |at: &Path| {
                let mut names = [0; 256];
                let count = rustix::fs::llistxattr(at, &mut names[..]).expect("it is there");
                let names = names[..count].split(|&byte| byte == 0);
                let mut names: Vec<_> = names.map(<[u8]>::to_vec).collect();
                names.sort();
                names
            };
            assert_eq!(listed(&ours.join(path)), listed(&kernel.join(path)));
        }
        umount(&ours).exits(0);
        umount(&kernel).exits(0);
    });
}
