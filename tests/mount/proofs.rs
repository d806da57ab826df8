//! What programs do with a mounted view: they compare, copy, run, map; trees that are too deep, too
//! wide and too large; layers that were made to harm.

use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, openat, statat};

use super::{Ground, mount, privately, umount};
use crate::lab::deep::Deep;
use crate::lab::needs;
use crate::lab::run::{command, layerctl};

/// Runs a program that has nothing to say.
#[track_caller]
fn silent(command: &mut Command) {
    let output = command.output().expect("it is installed");
    assert!(
        output.status.success() && output.stdout.is_empty(),
        "{command:?}\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// An overlay in which everything happens that the kernel itself does in one: changed and deleted,
/// renamed and linked, owners and attributes. It is left unmounted.
fn used_overlay(ground: &Ground) -> String {
    for number in 0..40 {
        let directory = number % 7;
        ground.file(
            &format!("low/d{directory}/f{number}"),
            vec![b'x'; number * 331],
        );
    }
    ground.file("low/program", "#!/bin/sh\necho ran\n");
    fs::hard_link(ground.at("low/d0/f0"), ground.at("low/link")).expect("our own");
    symlink("d1/f1", ground.at("low/symlink")).expect("our own");
    let target = ground.overlay();
    let (work, merged) = (ground.dir("work"), ground.dir("merged"));
    let script = r#"
        set -e
        rm d0/f7; rm -r d1; mkdir d1; echo new > d1/new; echo more >> d2/f2
        mv d3/f3 d4/moved; chmod 4750 d4/f4; chown 12:34 d5/f5; ln d6/f6 d6/linked
        mkdir -p e/f; touch -d 2001-02-03 e/f/old; mkfifo e/pipe; mknod e/null c 1 3
        mknod e/disk b 259 70000; ln -s /absolute e/absolute; chmod +x program
        setfattr -n user.name -v value d5/f5; setfattr -n trusted.name -v value e
        setfattr -n security.capability -v 0x0100000200200000000000000000000000000000 program
        setfattr -n system.posix_acl_access -v 0x0200000001000700ffffffff020007004d00000004000500ffffffff10000700ffffffff20000500ffffffff e/f; truncate -s 5G e/sparse
        printf end | dd of=e/sparse bs=1 seek=5000000000 conv=notrunc status=none
    "#;
    let options = format!("{target},workdir={}", work.display());
    silent(
        Command::new("mount")
            .args(["-t", "overlay", "overlay", "-o", &options])
            .arg(&merged),
    );
    silent(Command::new("sh").args(["-c", script]).current_dir(&merged));
    silent(Command::new("umount").arg(&merged));
    target
}

#[apply(test)]
fn it_is_what_the_kernel_shows_and_what_is_copied() {
    needs::time();
    privately(|ground| {
        needs::program("rsync", "--version");
        needs::program("setfattr", "--version");
        let target = used_overlay(ground);
        let (kernel, ours) = (ground.dir("merged"), ground.dir("m"));
        mount(&[], &target, &ours).exits(0);
        let copy = ground.at("copy");
        let arguments: [&OsStr; 5] = [
            "cp".as_ref(),
            "-a".as_ref(),
            "--in".as_ref(),
            target.as_ref(),
            "/".as_ref(),
        ];
        layerctl(arguments.into_iter().chain([copy.as_os_str()])).exits(0);
        mount(&["--kernel"], &target, &kernel).exits(0);
        for other in [&kernel, &copy] {
            let slash = |path: &Path| [path.as_os_str(), OsStr::new("/")].join(OsStr::new(""));
            // What differs is listed: content, owner, mode, time, links, attributes, devices.
            let mut rsync = Command::new("rsync");
            rsync.args(["-aHAXn", "--checksum", "--itemize-changes", "--delete"]);
            silent(rsync.arg(slash(&ours)).arg(slash(other)));
            let mut diff = Command::new("diff");
            silent(
                diff.args([
                    "-r",
                    "--no-dereference",
                    "--exclude=sparse",
                    "--exclude=pipe",
                    "--exclude=null",
                    "--exclude=disk",
                ])
                .arg(&ours)
                .arg(other),
            );
            let listing = |at: &Path| {
                let format = "%P %y %m %U %G %s %T@ %l\n";
                let mut find = Command::new("find");
                find.args([".", "-mindepth", "1", "!", "-type", "d", "-printf", format]);
                let output = find.current_dir(at).output().expect("find is there");
                let text = String::from_utf8(output.stdout).expect("text");
                let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
                lines.sort();
                lines
            };
            assert_eq!(listing(&ours), listing(other));
        }
        let device = |at: &Path| {
            fs::symlink_metadata(at.join("e/disk"))
                .expect("a device")
                .rdev()
        };
        assert_eq!(device(&ours), device(&kernel));
        umount(&kernel).exits(0);
        umount(&ours).exits(0);
    });
}

#[apply(test)]
fn programs_run_and_map_what_is_in_it() {
    privately(|ground| {
        let program = ground.at("low/bin/true");
        fs::create_dir_all(program.parent().expect("a directory")).expect("our own");
        crate::lab::run::copy_program("/bin/true", &program);
        ground.file("low/script", "#!/bin/sh\necho ran\n");
        let script = ground.at("low/script");
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("our own");
        let at = ground.dir("m");
        let target = ground.overlay();
        mount(&[], &target, &at).exits(0);
        // To run it the kernel maps it.
        silent(&mut Command::new(at.join("bin/true")));
        let ran = Command::new(at.join("script")).output().expect("it is run");
        assert_eq!(ran.stdout, b"ran\n");
        umount(&at).exits(0);
    });
}

/// Maps files with mmap(2), shared and private, and prints what is at their beginnings and ends.
const MAPPING: &str = r#"
import mmap, sys
for flags in (mmap.MAP_SHARED, mmap.MAP_PRIVATE):
    with open(sys.argv[1], "rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, flags=flags, prot=mmap.PROT_READ)
        print(len(mapped), mapped[:5].decode(), mapped[-3:].decode(), mapped.find(b"middle"))
"#;

#[apply(test)]
fn a_file_is_mapped() {
    privately(|ground| {
        needs::program("python3", "--version");
        const SIZE: usize = 5_000_001;
        let mut content = vec![b'.'; SIZE];
        content[..5].copy_from_slice(b"first");
        content[3_000_000..3_000_006].copy_from_slice(b"middle");
        content[SIZE - 3..].copy_from_slice(b"end");
        ground.file("low/mapped", &content);
        let at = ground.dir("m");
        mount(&[], ground.overlay(), &at).exits(0);
        let mut python = Command::new("python3");
        let output = python.args(["-c", MAPPING]).arg(at.join("mapped")).output();
        let output = output.expect("it is there");
        let said = String::from_utf8_lossy(&output.stdout);
        let line = format!("{SIZE} first end 3000000\n");
        assert_eq!(said, line.repeat(2), "{output:?}");
        umount(&at).exits(0);
    });
}

#[apply(test)]
fn dpkg_finds_what_it_installed() {
    privately(|ground| {
        needs::program("dpkg", "--version");
        needs::program("dpkg-deb", "--version");
        ground.file(
            "package/DEBIAN/control",
            "Package: small\nVersion: 1\nArchitecture: all\nMaintainer: nobody <n@e>\n\
             Description: small\n",
        );
        ground.file("package/etc/small.conf", "a = 1\n");
        ground.file("package/DEBIAN/conffiles", "/etc/small.conf\n");
        for number in 0..50 {
            let content = format!("{number}\n").repeat(number * 100);
            ground.file(&format!("package/usr/share/small/{number}"), content);
        }
        let (deb, low) = (ground.at("small.deb"), ground.dir("low"));
        let mut build = Command::new("dpkg-deb");
        let build = build.args(["--root-owner-group", "--build"]);
        let built = build.arg(ground.at("package")).arg(&deb).output();
        assert!(built.expect("it is there").status.success());
        for path in ["info", "updates", "status", "available"] {
            let path = format!("low/var/lib/dpkg/{path}");
            if path.ends_with("us") || path.ends_with("le") {
                ground.file(&path, "");
            } else {
                ground.dir(&path);
            }
        }
        let dpkg = |root: &Path| {
            let mut dpkg = Command::new("dpkg");
            dpkg.arg(format!("--root={}", root.display()));
            dpkg
        };
        let mut install = dpkg(&low);
        let install = install.args(["--log=/dev/null", "--install"]).arg(&deb);
        let installed = install.output().expect("it is there");
        assert!(installed.status.success(), "{installed:?}");
        // What a container has changed is found, in the view and not in the layer.
        ground.file("up/usr/share/small/7", "other");
        ground.file("up/etc/small.conf", "a = 2\n");
        let target = ground.overlay();
        let at = ground.dir("m");
        for (target, said) in [
            (format!("{target}@1"), ""),
            (
                target,
                "??5?????? c /etc/small.conf\n??5??????   /usr/share/small/7\n",
            ),
        ] {
            mount(&[], &target, &at).exits(0);
            let verified = dpkg(&at).arg("--verify").output().expect("it is there");
            assert_eq!(String::from_utf8_lossy(&verified.stdout), said, "{target}");
            assert_eq!(String::from_utf8_lossy(&verified.stderr), "", "{target}");
            let listed = dpkg(&at).args(["--status", "small"]).output();
            let listed = String::from_utf8(listed.expect("it is there").stdout).expect("text");
            assert!(listed.contains("Status: install ok installed"), "{listed}");
            umount(&at).exits(0);
        }
    });
}

/// One who waits for a slow disk keeps nobody else waiting.
#[apply(test)]
fn a_request_that_waits_keeps_no_other_waiting() {
    const ROUNDS: usize = 10;
    privately(|ground| {
        for round in 0..ROUNDS {
            ground.file(&format!("slow/slow{round}"), "slow");
            ground.file(&format!("low/fast{round}"), "fast");
        }
        let (disk, at) = (ground.dir("disk"), ground.dir("m"));
        let (slow, low) = (ground.at("slow"), ground.at("low"));
        mount(&[], format!("br:{}=ro", slow.display()), &disk).exits(0);
        let server = super::server();
        let signal = |signal: &str| {
            let sent = Command::new("kill").args([signal, &server]).status();
            assert!(sent.expect("kill is there").success());
        };
        let target = format!("lowerdir={}:{}", low.display(), disk.display());
        mount(&[], target, &at).exits(0);
        let read = |name: String| {
            let path = at.join(name);
            std::thread::spawn(move || fs::read(path).expect("it is there"))
        };
        let wait = |until: Instant, is_so: &dyn Fn() -> bool| {
            while !is_so() && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(5));
            }
            is_so()
        };
        // The branches are looked for once in a second, all of them: what is asked has to be asked within.
        let mut answered = None;
        for round in 0..ROUNDS {
            let began = Instant::now();
            fs::symlink_metadata(at.join(format!("slow{round}"))).expect("it is there");
            signal("-STOP");
            let waiting = read(format!("slow{round}"));
            std::thread::sleep(Duration::from_millis(100));
            let (waits, asked) = (!waiting.is_finished(), Instant::now());
            let other = read(format!("fast{round}"));
            let is_answered = wait(asked + Duration::from_secs(2), &|| other.is_finished());
            signal("-CONT");
            assert_eq!(other.join().expect("it is read"), b"fast");
            assert_eq!(waiting.join().expect("it is read"), b"slow");
            if waits && (is_answered || asked - began < Duration::from_millis(700)) {
                answered = Some(is_answered);
                break;
            }
            std::thread::sleep(Duration::from_millis(1100));
        }
        umount(&at).exits(0);
        umount(&disk).exits(0);
        assert_eq!(answered, Some(true), "it waited for the other");
    });
}

#[apply(test)]
fn git_finds_nothing_changed() {
    privately(|ground| {
        needs::program("git", "--version");
        ground.file("low/repository/a/file", "content\n");
        ground.file("low/repository/b", "more\n");
        let repository = ground.at("low/repository");
        let git = |at: &Path, arguments: &[&str]| {
            let mut git = Command::new("git");
            git.args([
                "-c",
                "safe.directory=*",
                "-c",
                "user.name=n",
                "-c",
                "user.email=e",
            ]);
            git.env("GIT_OPTIONAL_LOCKS", "0")
                .args(arguments)
                .current_dir(at);
            git
        };
        silent(&mut git(&repository, &["init", "-q"]));
        silent(&mut git(&repository, &["add", "."]));
        silent(&mut git(&repository, &["commit", "-qm", "all"]));
        let at = ground.dir("m");
        mount(&[], ground.overlay(), &at).exits(0);
        silent(&mut git(&at.join("repository"), &["status", "--porcelain"]));
        silent(&mut git(&at.join("repository"), &["fsck", "--no-progress"]));
        umount(&at).exits(0);
    });
}

#[apply(test)]
fn ten_thousand_levels_are_entered_one_by_one() {
    needs::time();
    const LEVELS: usize = 10_000;
    privately(|ground| {
        let deep = Deep::make(ground.dir("low"), LEVELS);
        let at = ground.dir("m");
        mount(&[], ground.overlay(), &at).exits(0);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut here = openat(CWD, &at, flags, Mode::empty()).expect("it is mounted");
        for level in 0..LEVELS {
            here = openat(&here, "d", flags, Mode::empty())
                .unwrap_or_else(|errno| panic!("level {level}: {errno}"));
        }
        // Once more when what is known of all of them is over.
        std::thread::sleep(std::time::Duration::from_millis(1100));
        assert!(statat(&here, "d", AtFlags::empty()).is_err());
        drop(here);
        umount(&at).exits(0);
        drop(deep);
    });
}

#[apply(test)]
fn a_directory_of_many_names_is_listed_whole_and_from_anywhere() {
    needs::time();
    privately(|ground| {
        let count: usize = if crate::lab::harness::wants_all() {
            200_000
        } else {
            20_000
        };
        let low = ground.dir("low/many");
        for number in 0..count {
            let file = low.join(format!("{number:0255}"));
            openat(CWD, &file, OFlags::CREATE | OFlags::WRONLY, Mode::RUSR).expect("our own");
        }
        ground.dir("up/many");
        let at = ground.dir("m");
        mount(&[], ground.overlay(), &at).exits(0);
        let names: Vec<_> = fs::read_dir(at.join("many"))
            .expect("a directory")
            .map(|entry| entry.expect("listed").file_name())
            .collect();
        let mut once: Vec<_> = names.iter().collect();
        once.sort();
        once.dedup();
        assert_eq!((names.len(), once.len()), (count, count));
        // What an offset leads to is the same, whatever has happened in between.
        let mut dir = rustix::fs::Dir::new(
            openat(CWD, at.join("many"), OFlags::RDONLY, Mode::empty()).expect("a directory"),
        )
        .expect("a directory");
        let entries: Vec<_> = (&mut dir).map(|entry| entry.expect("listed")).collect();
        ground.file("up/many/0", "before all others");
        for at in [7, entries.len() / 2, entries.len() - 2] {
            dir.seek(entries[at].offset())
                .expect("an offset of its own");
            let next = dir.next().expect("there is one").expect("listed");
            assert_eq!(next.file_name(), entries[at + 1].file_name());
        }
        drop(dir);
        umount(&at).exits(0);
    });
}

#[apply(test)]
fn a_large_file_with_holes_is_read_anywhere() {
    const END: u64 = 5_000_000_000;
    privately(|ground| {
        let path = ground.file("low/sparse", "");
        let file = fs::OpenOptions::new()
            .write(true)
            .open(&path)
            .expect("our own");
        file.write_all_at(b"end", END).expect("our own");
        file.write_all_at(b"middle", END / 2).expect("our own");
        drop(file);
        let at = ground.dir("m");
        mount(&[], ground.overlay(), &at).exits(0);
        let mut file = fs::File::open(at.join("sparse")).expect("a file");
        assert_eq!(file.metadata().expect("it is open").len(), END + 3);
        let blocks = |path: &Path| fs::metadata(path).expect("a file").blocks();
        assert_eq!(blocks(&at.join("sparse")), blocks(&path));
        file.seek(SeekFrom::Start(END)).expect("a place");
        let mut content = Vec::new();
        file.read_to_end(&mut content).expect("readable");
        assert_eq!(content, b"end");
        let hole = |file: &fs::File| {
            let data = rustix::fs::seek(file, rustix::fs::SeekFrom::Data(1));
            let hole = rustix::fs::seek(file, rustix::fs::SeekFrom::Hole(END / 2));
            (data, hole)
        };
        let original = fs::File::open(&path).expect("our own");
        assert_eq!(hole(&file), hole(&original));
        drop(file);
        umount(&at).exits(0);
    });
}

#[apply(test)]
fn hostile_layers_lead_nowhere() {
    privately(|ground| {
        ground.file("secret", "of the host");
        ground.dir("low/etc");
        ground.dir("up/etc");
        for (link, target) in [
            ("low/etc/up", "../../../../../../../../etc"),
            ("low/loop", "loop"),
            ("low/a", "b"),
            ("low/b", "a"),
        ] {
            symlink(target, ground.at(link)).expect("our own");
        }
        symlink(ground.at("secret"), ground.at("low/out")).expect("our own");
        // A directory below, and a link that leads out above.
        ground.file("low/dir/file", "inside");
        symlink(ground.at(""), ground.at("up/dir")).expect("our own");
        let device = rustix::fs::makedev(1, 5);
        let kind = FileType::CharacterDevice;
        rustix::fs::mknodat(CWD, ground.at("low/zero"), kind, Mode::RUSR, device)
            .expect("root may");
        let at = ground.dir("m");
        mount(&[], ground.overlay(), &at).exits(0);
        for name in ["loop", "a", "etc/up", "out", "dir"] {
            let stat = fs::symlink_metadata(at.join(name)).expect("it is shown");
            assert!(stat.is_symlink(), "{name}");
        }
        // The device is one, and cannot be opened: nodev.
        let error = fs::File::open(at.join("zero")).expect_err("nodev");
        assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied);
        // A file that gives way to a link while it is looked at.
        let (file, link) = (ground.file("up/swapped", "mine"), ground.at("link"));
        symlink(ground.at("secret"), &link).expect("our own");
        for _ in 0..200 {
            let flags = rustix::fs::RenameFlags::EXCHANGE;
            rustix::fs::renameat_with(CWD, &file, CWD, &link, flags).expect("our own");
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW;
            if let Ok(open) = openat(CWD, at.join("swapped"), flags, Mode::empty()) {
                let mut content = String::new();
                let _ = fs::File::from(open).read_to_string(&mut content);
                assert_ne!(content, "of the host");
            }
        }
        umount(&at).exits(0);
    });
}

#[apply(test)]
fn many_read_at_once() {
    needs::time();
    privately(|ground| {
        for number in 0..200u32 {
            let content = number.to_le_bytes().repeat(20_000);
            let branch = if number % 3 == 0 { "up" } else { "low" };
            ground.file(&format!("{branch}/d{}/f{number}", number % 9), content);
        }
        let at = ground.dir("m");
        mount(&[], ground.overlay(), &at).exits(0);
        let read = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for reader in 0..8u32 {
                let (at, read) = (&at, &read);
                scope.spawn(move || {
                    for round in 0..600u32 {
                        let number = (round * 37 + reader * 11) % 200;
                        let path = at.join(format!("d{}/f{number}", number % 9));
                        let content = fs::read(&path).expect("a file");
                        assert!(content.len() == 80_000, "{path:?}");
                        let words = content.chunks_exact(4);
                        assert!(
                            { words }.all(|word| word == number.to_le_bytes()),
                            "{path:?}"
                        );
                        if round % 50 == 0 {
                            let names = fs::read_dir(at.join(format!("d{}", number % 9)));
                            assert!(names.expect("a directory").count() > 20);
                        }
                        read.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        assert_eq!(read.into_inner(), 4800);
        umount(&at).exits(0);
    });
}

#[apply(test)]
fn it_is_mounted_in_a_user_namespace() {
    privately(|ground| {
        let target = super::life::small(ground);
        let at = ground.dir("m");
        let script = r#"
            set -e
            "$1" mount "$2" "$3" >/dev/null || test $? -eq 2
            cat "$3/etc/passwd"; ls "$3/etc"
            "$1" umount "$3" >/dev/null
        "#;
        let mut unshare = Command::new("unshare");
        unshare.args([
            "--user",
            "--map-root-user",
            "--mount",
            "sh",
            "-c",
            script,
            "sh",
        ]);
        unshare
            .arg(env!("CARGO_BIN_EXE_layerctl"))
            .arg(&target)
            .arg(&at);
        let output = unshare.output().expect("unshare is there");
        let said = String::from_utf8_lossy(&output.stdout);
        let warned = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}{warned}");
        assert_eq!(said, "root\nmotd\npasswd\n", "{warned}");
        // There the marks in attributes are told to nobody, and that is said.
        assert!(warned.contains("only root is told"), "{warned}");
    });
}

#[apply(test)]
fn a_running_union_is_seen_as_it_changes() {
    privately(|ground| {
        ground.file("low/file", "old");
        let target = ground.overlay();
        let (work, merged, at) = (ground.dir("work"), ground.dir("merged"), ground.dir("m"));
        let options = format!("{target},workdir={}", work.display());
        silent(
            Command::new("mount")
                .args(["-t", "overlay", "overlay", "-o", &options])
                .arg(&merged),
        );
        let mounted = command().arg("mount").arg(&merged).arg(&at).output();
        assert!(mounted.expect("it was built").status.success());
        assert_eq!(fs::read_to_string(at.join("file")).expect("a file"), "old");
        fs::write(merged.join("file"), "changed").expect("a file");
        fs::create_dir(merged.join("made")).expect("a directory");
        let mut log = fs::File::create(merged.join("log")).expect("a file");
        log.write_all(b"one").expect("a file");
        std::thread::sleep(std::time::Duration::from_millis(1100));
        assert_eq!(
            fs::read_to_string(at.join("file")).expect("a file"),
            "changed"
        );
        assert!(at.join("made").is_dir());
        // What is open grows.
        let mut open = fs::File::open(at.join("log")).expect("a file");
        let mut content = String::new();
        open.read_to_string(&mut content).expect("a file");
        assert_eq!(content, "one");
        log.write_all(b"two").expect("a file");
        std::thread::sleep(std::time::Duration::from_millis(1100));
        open.read_to_string(&mut content).expect("a file");
        assert_eq!(content, "onetwo");
        // What is removed is not there, and what is open is.
        fs::remove_file(merged.join("log")).expect("a file");
        std::thread::sleep(std::time::Duration::from_millis(1100));
        assert!(!at.join("log").exists());
        assert_eq!(open.metadata().expect("it is open").len(), 6);
        drop((open, log));
        umount(&at).exits(0);
        super::life::until("ended", || !super::life::is_answered_for());
        silent(Command::new("umount").arg(&merged));
    });
}
