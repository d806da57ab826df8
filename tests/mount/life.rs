//! How a mount begins and ends, and what is read in between.

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{XattrFlags, lgetxattr, lsetxattr};

use super::{Ground, listed, mount, privately, server, umount};
use crate::lab::needs;
use crate::lab::run::{command, run, text};
use crate::schema::assert_promised;

/// Waits until something is so, and for no longer than it can take.
#[track_caller]
pub fn until(what: &str, is_so: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < Duration::from_secs(10), "never {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub fn small(ground: &Ground) -> String {
    ground.file("low/etc/passwd", "root\n");
    ground.file("low/etc/gone", "x");
    ground.file("up/etc/motd", "hello\n");
    let device = rustix::fs::makedev(0, 0);
    let kind = rustix::fs::FileType::CharacterDevice;
    let at = ground.at("up/etc/gone");
    rustix::fs::mknodat(rustix::fs::CWD, at, kind, rustix::fs::Mode::empty(), device)
        .expect("root may");
    ground.overlay()
}

#[apply(test)]
fn it_is_mounted_listed_and_unmounted() {
    privately(|ground| {
        let target = small(ground);
        let at = ground.dir("m");
        let row = mount(&[], &target, &at).exits(0).row();
        assert_eq!(text(&row, "target"), target);
        assert_eq!(text(&row, "path"), at.to_str().expect("text"));
        assert_eq!(text(&row, "by"), "fuse");
        assert_promised("mount", &row);
        assert_eq!(listed(), [row]);
        assert_eq!(
            fs::read_to_string(at.join("etc/passwd")).expect("a file"),
            "root\n"
        );
        let mut names: Vec<_> = fs::read_dir(at.join("etc"))
            .expect("a directory")
            .map(|entry| entry.expect("listed").file_name())
            .collect();
        names.sort();
        assert_eq!(names, ["motd", "passwd"]);
        let error = fs::write(at.join("new"), "").expect_err("it is read-only");
        assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
        let again = mount(&[], &target, &at).exits(2);
        again.says("is mounted on").says("layerctl umount");
        let arguments = ["--format", "jsonl", "umount"];
        let row = run(command().args(arguments).arg(&at)).exits(0).row();
        assert_promised("umount", &row);
        assert_eq!(text(&row, "target"), target);
        assert!(listed().is_empty());
        until("ended", || !is_answered_for());
        assert_eq!(fs::read_dir(&at).expect("a directory").count(), 0);
        let nothing = umount(&at);
        assert_eq!(nothing.status, Some(1));
        nothing.says("nothing is mounted there");
    });
}

pub fn is_answered_for() -> bool {
    let mut pgrep = Command::new("pgrep");
    let found = pgrep
        .args(["-f", "^layerctl .*mount"])
        .stdout(Stdio::null());
    found.status().expect("pgrep is there").success()
}

#[apply(test)]
fn what_nobody_answers_for_is_recognised_and_cleared() {
    privately(|ground| {
        let target = small(ground);
        let at = ground.dir("m");
        mount(&[], &target, &at).exits(0);
        let killed = Command::new("kill").args(["-9", &server()]).status();
        assert!(killed.expect("kill is there").success());
        until("dead", || fs::read_dir(&at).is_err());
        let rows = listed();
        assert_eq!(text(&rows[0], "state"), "dead");
        let again = mount(&[], &target, &at).exits(2);
        again.says("nobody answers").says("layerctl umount");
        umount(&at).exits(0);
        mount(&[], &target, &at).exits(0);
        umount(&at).exits(0);
    });
}

#[apply(test)]
fn one_in_the_foreground_ends_with_its_process() {
    privately(|ground| {
        let target = small(ground);
        let at = ground.dir("m");
        let mut command = command();
        let command = command.args(["mount", "--foreground", &target]).arg(&at);
        let mut server = command
            .stdout(Stdio::piped())
            .spawn()
            .expect("it was built");
        let mut out = server.stdout.take().expect("it is piped");
        let mut said = [0; 4];
        std::io::Read::read_exact(&mut out, &mut said).expect("it says what it has mounted");
        assert!(at.join("etc/passwd").exists());
        let number = server.id().to_string();
        let asked = Command::new("kill").arg(&number).status();
        assert!(asked.expect("kill is there").success());
        assert!(server.wait().expect("it was started").success());
        assert!(!at.join("etc").exists());
        assert!(listed().is_empty());
    });
}

#[apply(test)]
fn one_in_use_stays_until_it_is_lazily_unmounted() {
    privately(|ground| {
        let target = small(ground);
        let at = ground.dir("m");
        mount(&[], &target, &at).exits(0);
        let open = fs::File::open(at.join("etc/passwd")).expect("a file");
        umount(&at).exits(2).says("is in use");
        assert_eq!(listed().len(), 1);
        run(command().args(["umount", "--lazy"]).arg(&at)).exits(0);
        assert!(listed().is_empty());
        let mut content = [0; 5];
        open.read_exact_at(&mut content, 0)
            .expect("it is open still");
        assert_eq!(&content, b"root\n");
        assert!(is_answered_for());
        drop(open);
        until("ended", || !is_answered_for());
    });
}

#[apply(test)]
fn what_cannot_be_mounted_is_refused() {
    privately(|ground| {
        let target = small(ground);
        let at = ground.dir("m");
        mount(&[], &target, &ground.at("nowhere")).exits(2);
        mount(&[], "nobody", &at).exits(2).says("No such container");
        let inside = ground.dir("low/etc/m");
        mount(&[], &target, &inside).exits(2).says("own branch");
        // What is mounted there would cover its own branches.
        for above in [ground.at("up").parent().expect("one"), Path::new("/")] {
            mount(&[], &target, above).exits(2).says("own branch");
        }
        symlink(&at, ground.at("link")).expect("our own");
        mount(&[], &target, &ground.at("link"))
            .exits(2)
            .says("symbolic link");
        mount(
            &[],
            format!("{target},lowerdir={}", ground.at("none").display()),
            &at,
        )
        .exits(2);
        run(command().args(["mount", &target]))
            .exits(2)
            .says("TARGET DIR");
        run(command().arg("umount").arg("/proc"))
            .exits(2)
            .says("not of layerctl");
        assert!(listed().is_empty());
        assert!(!is_answered_for());
    });
}

#[apply(test)]
fn a_change_is_seen_a_second_later() {
    privately(|ground| {
        let target = small(ground);
        let at = ground.dir("m");
        ground.file("low/sub/old", "old");
        mount(&[], &target, &at).exits(0);
        assert_eq!(
            fs::read_to_string(at.join("sub/old")).expect("a file"),
            "old"
        );
        assert!(!at.join("sub/new").exists());
        // A directory that gets a part above.
        ground.file("up/sub/new", "new");
        ground.file("up/sub/old", "newer");
        std::thread::sleep(Duration::from_millis(1100));
        assert_eq!(
            fs::read_to_string(at.join("sub/new")).expect("a file"),
            "new"
        );
        assert_eq!(
            fs::read_to_string(at.join("sub/old")).expect("a file"),
            "newer"
        );
        let names = fs::read_dir(at.join("sub")).expect("a directory").count();
        assert_eq!(names, 2);
        umount(&at).exits(0);
    });
}

#[apply(test)]
fn what_is_removed_beneath_is_an_error_and_not_empty() {
    privately(|ground| {
        let target = small(ground);
        let at = ground.dir("m");
        mount(&[], &target, &at).exits(0);
        assert_eq!(
            fs::read_dir(at.join("etc")).expect("a directory").count(),
            2
        );
        let open = fs::File::open(at.join("etc/motd")).expect("a file");
        // A part of a layer that the kernel knows, and that is an empty directory while it is open.
        ground.file("low/only/inner/file", "content");
        std::thread::sleep(Duration::from_millis(1100));
        assert!(at.join("only/inner").is_dir());
        fs::remove_dir_all(ground.at("low/only")).expect("our own");
        for gone in ["only/inner", "only"] {
            let listed = fs::read_dir(at.join(gone)).and_then(|mut names| names.next().transpose());
            assert!(listed.is_err(), "{gone}: {listed:?}");
        }
        fs::remove_dir_all(ground.at("up")).expect("our own");
        std::thread::sleep(Duration::from_millis(1100));
        let error = fs::read_dir(at.join("etc")).expect_err("it is gone");
        let errno = error
            .raw_os_error()
            .map(rustix::io::Errno::from_raw_os_error);
        assert!(
            matches!(
                errno,
                Some(rustix::io::Errno::STALE | rustix::io::Errno::IO)
            ),
            "{error}"
        );
        assert!(fs::read_dir(&at).is_err());
        let mut content = [0; 6];
        open.read_exact_at(&mut content, 0)
            .expect("it is open still");
        drop(open);
        run(command().args(["umount", "--lazy"]).arg(&at)).exits(0);
    });
}

#[apply(test)]
fn nothing_of_the_layers_is_changed_or_opened_that_would_act() {
    privately(|ground| {
        let target = small(ground);
        let fifo = ground.at("low/fifo");
        let kind = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, kind, rustix::fs::Mode::RUSR, 0)
            .expect("our own");
        let passwd = ground.at("low/etc/passwd");
        let of_passwd = "trusted.overlay.origin";
        lsetxattr(&passwd, of_passwd, b"x", XattrFlags::empty()).expect("root may");
        lsetxattr(&passwd, "user.own", b"value", XattrFlags::empty()).expect("our own");
        let old = (1_000_000_000, 0);
        for path in ["low/etc/passwd", "low/etc", "low", "up/etc", "up"] {
            crate::overlay::set_time(&ground.at(path), old).expect("our own");
        }
        let times = || {
            ["low/etc/passwd", "low/etc", "low", "up/etc", "up"].map(|path| {
                let stat = fs::symlink_metadata(ground.at(path)).expect("our own");
                (stat.atime(), stat.mtime(), stat.ctime())
            })
        };
        let before = times();
        let at = ground.dir("m");
        mount(&[], &target, &at).exits(0);
        let listing = Command::new("find").arg(&at).arg("-ls").output();
        assert!(listing.expect("find is there").status.success());
        let passwd = at.join("etc/passwd");
        assert_eq!(fs::read_to_string(&passwd).expect("a file"), "root\n");
        let mut value = [0; 16];
        let own = lgetxattr(&passwd, "user.own", &mut value[..]).expect("it is shown");
        assert_eq!(&value[..own], b"value");
        // The union's own is not.
        assert!(lgetxattr(&passwd, of_passwd, &mut value[..]).is_err());
        let listed = rustix::fs::llistxattr(&passwd, &mut value[..]).expect("it is there");
        assert_eq!(&value[..listed], b"user.own\0");
        let stat = fs::symlink_metadata(at.join("fifo")).expect("it is shown");
        assert_eq!(stat.mode(), 0o010_400);
        umount(&at).exits(0);
        assert_eq!(times(), before);
    });
}

/// Nobody writes to the layers of an image: what was said of them is not asked again, but whether they
/// are there is.
#[apply(test)]
fn what_is_removed_of_an_image_is_an_error_and_not_nothing() {
    privately(|ground| {
        ground.file("a/only/inner/file", "content");
        ground.file("a/both/of-a", "a");
        ground.file("b/both/of-b", "b");
        ground.file("b/stays", "b");
        symlink("target", ground.at("a/only/inner/link")).expect("our own");
        let at = ground.dir("m");
        let (a, b) = (ground.at("a"), ground.at("b"));
        let target = format!("lowerdir={}:{}", a.display(), b.display());
        mount(&[], &target, &at).exits(0);
        let known = [
            "only/inner/file",
            "only/inner/link",
            "only/inner",
            "only",
            "both",
            "both/of-a",
            "both/of-b",
        ];
        for path in known {
            fs::symlink_metadata(at.join(path)).expect("it is there");
        }
        fs::read(at.join("only/inner/file")).expect("a file");
        fs::remove_dir_all(ground.at("a/only")).expect("our own");
        fs::remove_dir_all(ground.at("a/both")).expect("our own");
        std::thread::sleep(Duration::from_millis(1100));
        let errno = |error: std::io::Error| {
            let errno = error.raw_os_error();
            errno.map(rustix::io::Errno::from_raw_os_error)
        };
        let gone = Some(rustix::io::Errno::STALE);
        // Again and again.
        for _ in 0..2 {
            for path in known {
                let stat = fs::symlink_metadata(at.join(path));
                assert_eq!(stat.err().and_then(errno), gone, "{path}");
                let read = fs::read(at.join(path));
                assert_eq!(read.err().and_then(errno), gone, "{path}");
            }
            for path in ["only", "only/inner", "both"] {
                let listed = fs::read_dir(at.join(path));
                assert_eq!(listed.err().and_then(errno), gone, "{path}");
            }
            let new = fs::symlink_metadata(at.join("only/inner/never"));
            assert_eq!(new.err().and_then(errno), gone);
        }
        assert_eq!(fs::read(at.join("stays")).expect("a file"), b"b");
        let absent = fs::symlink_metadata(at.join("absent"));
        assert_eq!(absent.err().and_then(errno), Some(rustix::io::Errno::NOENT));
        umount(&at).exits(0);
    });
}

#[apply(test)]
fn a_link_to_a_mount_is_unmounted() {
    privately(|ground| {
        let target = small(ground);
        let at = ground.dir("m");
        symlink("m", ground.at("link")).expect("our own");
        symlink(ground.at("link"), ground.at("far")).expect("our own");
        symlink("round", ground.at("round")).expect("our own");
        for link in ["link", "far", "far/../m/."] {
            mount(&[], &target, &at).exits(0);
            umount(&ground.at(link)).exits(0);
            assert!(listed().is_empty());
            assert_eq!(umount(&ground.at(link)).status, Some(1));
        }
        assert_eq!(umount(&ground.at("round")).status, Some(1));
        // One that nobody answers for.
        mount(&[], &target, &at).exits(0);
        let killed = Command::new("kill").args(["-9", &server()]).status();
        assert!(killed.expect("kill is there").success());
        until("dead", || fs::read_dir(&at).is_err());
        umount(&ground.at("far")).exits(0);
        assert!(listed().is_empty());
    });
}

/// As distributions have it.
pub fn device_for_everybody(ground: &Ground) {
    use std::os::unix::fs::PermissionsExt;
    let at = ground.at("fuse");
    let kind = rustix::fs::FileType::CharacterDevice;
    let number = fs::metadata("/dev/fuse").expect("it is there").rdev();
    let mode = rustix::fs::Mode::empty();
    rustix::fs::mknodat(rustix::fs::CWD, &at, kind, mode, number).expect("root may");
    fs::set_permissions(&at, fs::Permissions::from_mode(0o666)).expect("our own");
    rustix::mount::mount_bind(&at, "/dev/fuse").expect("root may");
}

#[apply(test)]
fn an_ordinary_user_mounts_what_he_may_read() {
    use std::os::unix::fs::{PermissionsExt, chown};
    const USER: u32 = 65_534;
    privately(|ground| {
        crate::lab::needs::program("fusermount3", "-V");
        device_for_everybody(ground);
        ground.file("a/etc/passwd", "user\n");
        ground.file("b/etc/group", "group\n");
        let home = ground.at("");
        fs::set_permissions(&home, fs::Permissions::from_mode(0o755)).expect("our own");
        let at = ground.dir("m");
        for path in [
            "a",
            "a/etc",
            "a/etc/passwd",
            "b",
            "b/etc",
            "b/etc/group",
            "m",
        ] {
            chown(ground.at(path), Some(USER), Some(USER)).expect("root may");
        }
        let program = ground.at("layerctl");
        crate::lab::run::copy_program(env!("CARGO_BIN_EXE_layerctl"), &program);
        let (a, b) = (ground.at("a"), ground.at("b"));
        let target = format!("br:{}=rw:{}=ro", a.display(), b.display());
        let as_user = |arguments: &[&str]| {
            let mut command = Command::new("setpriv");
            let user = USER.to_string();
            command
                .args(["--reuid", &user, "--regid", &user, "--clear-groups"])
                .arg(&program)
                .args(arguments);
            run(&mut command)
        };
        let point = at.to_str().expect("text");
        as_user(&["mount", &target, point]).exits(0);
        let cat = Command::new("setpriv")
            .args([
                "--reuid",
                "65534",
                "--regid",
                "65534",
                "--clear-groups",
                "cat",
            ])
            .args([at.join("etc/passwd"), at.join("etc/group")])
            .output()
            .expect("setpriv is there");
        assert_eq!(cat.stdout, b"user\ngroup\n");
        // It is his alone.
        assert!(fs::read_dir(&at).is_err());
        as_user(&["umount", point]).exits(0);
        assert!(listed().is_empty());
    });
}

/// What the kernel asks for costs the system calls that it takes, and no more.
#[apply(test)]
fn a_file_is_looked_at_once_and_opened_once() {
    privately(|ground| {
        needs::strace();
        const FILES: usize = 60;
        for number in 0..FILES {
            ground.file(&format!("low/d/file{number}"), "some content");
        }
        ground.file("up/d/other", "x");
        let at = ground.dir("m");
        let (up, low) = (ground.at("up"), ground.at("low"));
        // Nobody writes to any of it: what was said is not asked again.
        let target = format!("lowerdir={}:{}", up.display(), low.display());
        let trace = ground.at("trace");
        let mut strace = Command::new("strace");
        strace
            .args(["-f", "-s", "64", "-o"])
            .arg(&trace)
            .arg(env!("CARGO_BIN_EXE_layerctl"))
            .args(["mount", "--foreground", &target])
            .arg(&at)
            .stdout(Stdio::null());
        let mut server = strace.spawn().expect("strace is there");
        until("mounted", || at.join("d").exists());
        for entry in fs::read_dir(at.join("d")).expect("a directory") {
            let entry = entry.expect("listed");
            assert!(entry.metadata().expect("there").len() > 0);
        }
        for number in 0..FILES {
            let path = at.join(format!("d/file{number}"));
            let content = fs::read_to_string(path).expect("a file");
            assert_eq!(content, "some content");
        }
        umount(&at).exits(0);
        server.wait().expect("it was started");
        let trace = fs::read_to_string(&trace).expect("what strace wrote");
        let count = |call: &str, of: &str| {
            let is_it = |line: &&str| line.contains(call) && line.contains(of);
            // A call that another thread's comes between is written in two lines.
            let lines = trace.lines().filter(|line| !line.contains("resumed>"));
            lines.filter(is_it).count()
        };
        assert_eq!(count("newfstatat(", "\"file"), FILES);
        assert_eq!(count("openat(", "\"file"), FILES);
        // And a few of the host's own, to begin with.
        let opened = count("open(\"/proc/self/fd/", "");
        assert!(
            (FILES..FILES + 10).contains(&opened),
            "{opened} files opened"
        );
        let is_read = |line: &&str| line.contains("pread64") && line.contains("some content");
        assert_eq!(trace.lines().filter(is_read).count(), FILES);
        let ends = trace
            .lines()
            .filter(|line| line.contains("pread64") && line.ends_with("= 0"));
        assert_eq!(ends.count(), 0, "a file's end is asked for");
    });
}
