//! `--all`, `--hidden`, `--kernel`, `--print`: what is mounted, and by whom.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use walkdir::WalkDir;

use super::{listed, mount, privately, umount};
use crate::docker_drivers::{Entry, View, beside_mounts, kind_of_mode, seen};
use crate::lab;
use crate::lab::captured::Captured;
use crate::lab::needs;
use crate::lab::run::{command, run, text};

const BLOG_HOST: &str = "blog-host";
const DELETED: &str = "usr/local/lib/python2.7/dist-packages/itsdangerous.py";

/// Mounts something of a host.
pub fn mount_of(host: &Path, arguments: &[&str], at: &Path) {
    let mut command = command();
    let command = command.arg("--root").arg(host);
    let command = command.args(["--format", "jsonl", "mount"]).args(arguments);
    run(command.arg(at)).exits(0);
}

/// The paths below a directory.
fn paths(at: &Path) -> BTreeSet<Vec<u8>> {
    let all = WalkDir::new(at).min_depth(1).into_iter();
    let all = all.map(|entry| {
        let entry = entry.expect("it can be walked");
        let path = entry.path().strip_prefix(at).expect("below it");
        path.as_os_str().as_bytes().to_vec()
    });
    all.collect()
}

#[apply(test)]
fn all_of_a_host_is_entered_by_name() {
    privately(|ground| {
        let host = lab::fixture(BLOG_HOST);
        let at = ground.dir("all");
        mount_of(&host, &["--all"], &at);
        let names = |path: &str| -> Vec<String> {
            let names = fs::read_dir(at.join(path)).expect("a directory");
            let names = names.map(|entry| entry.expect("listed").file_name());
            let mut names: Vec<_> = names
                .map(|name| name.into_string().expect("text"))
                .collect();
            names.sort();
            names
        };
        assert_eq!(names(""), ["docker"]);
        assert_eq!(names("docker"), ["containers", "images"]);
        assert_eq!(
            names("docker/containers"),
            ["determined_sammet", "old_shell"]
        );
        assert_eq!(names("docker/images"), ["<none>", "busybox", "training"]);
        assert_eq!(names("docker/images/training"), ["webapp"]);
        assert_eq!(names("docker/images/training/webapp"), ["latest"]);
        assert!(fs::read_dir(at.join("docker/containers/nobody")).is_err());
        // Each is what is mounted alone.
        for (path, target) in [
            ("docker/containers/determined_sammet", "determined_sammet"),
            ("docker/containers/old_shell", "old_shell"),
            ("docker/images/training/webapp/latest", "training/webapp"),
        ] {
            let one = ground.dir("one");
            mount_of(&host, &[target], &one);
            assert_eq!(paths(&at.join(path)), paths(&one), "{target}");
            umount(&one).exits(0);
        }
        assert!(
            !at.join("docker/containers/determined_sammet")
                .join(DELETED)
                .exists()
        );
        assert!(
            at.join("docker/images/training/webapp/latest")
                .join(DELETED)
                .exists()
        );
        // Each has its own inodes, though they stand on the same layers.
        let number = |path: &str| {
            let path = at.join("docker").join(path).join("bin/bash");
            fs::symlink_metadata(path).expect("it is in both").ino()
        };
        assert_ne!(
            number("containers/determined_sammet"),
            number("images/training/webapp/latest")
        );
        assert_eq!(text(&listed()[0], "target"), "--all");
        umount(&at).exits(0);
    });
}

#[apply(test)]
fn what_marks_hide_is_shown_on_request() {
    privately(|ground| {
        let host = lab::fixture(BLOG_HOST);
        let at = ground.dir("m");
        mount_of(&host, &["determined_sammet"], &at);
        let shown = paths(&at);
        umount(&at).exits(0);
        mount_of(&host, &["--hidden", "determined_sammet"], &at);
        let with_hidden = paths(&at);
        let content = fs::read_to_string(at.join(DELETED)).expect("it was deleted");
        umount(&at).exits(0);
        // What the article's container had deleted, and nothing else.
        let hidden: Vec<_> = with_hidden.difference(&shown).collect();
        assert_eq!(hidden, [DELETED.as_bytes()]);
        assert!(shown.is_subset(&with_hidden));
        assert!(content.contains("itsdangerous"));
    });
}

#[apply(test)]
fn what_is_hidden_and_has_no_free_name_tells_its_branch() {
    privately(|ground| {
        for branch in ["up", "mid", "low"] {
            ground.dir(branch);
        }
        // Deleted, and deleted again after it was made anew.
        ground.file("low/twice", "oldest");
        ground.file("mid/twice", "older");
        ground.file("up/.wh.twice", "");
        // A file where a directory was.
        ground.file("low/tree/leaf", "leaf");
        ground.file("up/.wh.tree", "");
        ground.file("mid/.wh.tree", "");
        // A directory made anew, with a name that it had.
        ground.file("low/etc/same", "before");
        ground.file("low/etc/gone", "gone");
        ground.file("up/etc/.wh..wh..opq", "");
        ground.file("up/etc/same", "now");
        // Changed, and nothing was deleted.
        ground.file("low/changed", "1");
        ground.file("up/changed", "2");
        let at = ground.dir("m");
        let path = |branch: &str| ground.at(branch).display().to_string();
        let target = format!(
            "br:{}=rw:{}=ro+wh:{}=ro+wh",
            path("up"),
            path("mid"),
            path("low")
        );
        mount(&["--hidden"], &target, &at).exits(0);
        let content = |path: &str| fs::read_to_string(at.join(path)).expect(path);
        assert_eq!(content("twice"), "older");
        assert_eq!(content("twice.hidden@2"), "oldest");
        assert_eq!(content("tree/leaf"), "leaf");
        assert_eq!(content("etc/same"), "now");
        assert_eq!(content("etc/same.hidden@2"), "before");
        assert_eq!(content("etc/gone"), "gone");
        assert_eq!(content("changed"), "2");
        let all: BTreeSet<Vec<u8>> = [
            "changed",
            "etc",
            "etc/gone",
            "etc/same",
            "etc/same.hidden@2",
            "tree",
            "tree/leaf",
            "twice",
            "twice.hidden@2",
        ]
        .map(|path| path.as_bytes().to_vec())
        .into();
        assert_eq!(paths(&at), all);
        for nothing in [
            "changed.hidden@2",
            "twice.hidden@02",
            "twice.hidden@1",
            "no.hidden@0",
        ] {
            assert!(!at.join(nothing).exists(), "{nothing}");
        }
        umount(&at).exits(0);
    });
}

#[apply(test)]
fn the_kernel_mounts_it_and_the_command_does_the_same() {
    privately(|ground| {
        let target = super::life::small(ground);
        let at = ground.dir("m");
        mount(&[], &target, &at).exits(0);
        let ours = paths(&at);
        umount(&at).exits(0);
        let row = mount(&["--kernel"], &target, &at).exits(0).row();
        assert_eq!(text(&row, "by"), "kernel");
        assert_eq!(listed(), [row]);
        assert_eq!(paths(&at), ours);
        assert!(fs::write(at.join("new"), "").is_err(), "it is read-only");
        umount(&at).exits(0);
        // As it stands: by the kernel, and by this program.
        for options in [&["--print", "--kernel"][..], &["--print"]] {
            let row = mount(options, &target, &at).exits(0).row();
            assert!(row.get("state").is_none());
            assert!(listed().is_empty(), "nothing is mounted");
            run_printed(&row);
            assert_eq!(listed().len(), 1);
            assert_eq!(paths(&at), ours);
            umount(&at).exits(0);
        }
        assert_eq!(fs::read_dir(ground.at("up")).expect("our own").count(), 1);
        // What the kernel cannot show.
        let (up, low) = (ground.at("up"), ground.at("low"));
        let aufs = format!("br:{}=rw:{}=ro", up.display(), low.display());
        mount(&["--kernel"], &aufs, &at).exits(2).says("no overlay");
        let one = format!("lowerdir={}", low.display());
        mount(&["--kernel"], &one, &at)
            .exits(2)
            .says("only one branch");
        assert!(listed().is_empty());
    });
}

#[apply(test)]
fn the_kernel_is_not_asked_for_what_it_shows_otherwise() {
    privately(|ground| {
        ground.file("low/file", "low");
        let target = ground.overlay();
        let (work, merged, at) = (ground.dir("work"), ground.dir("merged"), ground.dir("m"));
        let options = format!("{target},workdir={}", work.display());
        rustix::mount::mount(
            "overlay",
            &merged,
            "overlay",
            rustix::mount::MountFlags::empty(),
            std::ffi::CString::new(options).expect("text").as_c_str(),
        )
        .expect("root may");
        // It may change below: by its mount point, and by its branches.
        let mounted = merged.to_str().expect("text");
        for running in [mounted, &target] {
            for print in [&["--kernel"][..], &["--kernel", "--print"]] {
                let refused = mount(print, running, &at).exits(2);
                refused.says("it is mounted").says("leave --kernel away");
            }
        }
        rustix::mount::unmount(&merged, rustix::mount::UnmountFlags::empty()).expect("root may");
        mount(&["--kernel"], &target, &at).exits(0);
        umount(&at).exits(0);
        let fuse = format!("fuse-overlayfs:{target}");
        let refused = mount(&["--kernel"], &fuse, &at).exits(2);
        refused.says("no overlay");
        for other in ["--all", "--hidden", "--foreground"] {
            let refused = mount(&["--kernel", other], &target, &at).exits(2);
            refused.says("cannot be used with");
        }
        assert!(listed().is_empty());
    });
}

#[apply(test)]
fn the_kernel_is_not_asked_for_owners_and_images_that_it_cannot_show() {
    privately(|ground| {
        needs::captured_hosts();
        let at = ground.dir("m");
        for (host, container, why) in [
            ("podman-5.8-composefs", "stopped-7", "has a path"),
            ("docker-vfs", "run-a", "no overlay"),
            ("docker-fuse-overlayfs", "run-a", "kernel cannot show"),
        ] {
            let host = Captured::new(host);
            let mut command = command();
            let command = command.arg("--root").arg(host.host.at("/"));
            let refused = run(command.args(["mount", "--kernel", container]).arg(&at));
            refused.exits(2).says(why).says("leave --kernel away");
        }
        assert!(listed().is_empty());
    });
}

#[apply(test)]
fn a_view_that_begins_further_down_is_mounted() {
    privately(|ground| {
        let at = ground.dir("m");
        for (branch, name) in [("up", "of-up"), ("mid", "of-mid"), ("low", "of-low")] {
            ground.file(&format!("{branch}/{name}"), branch);
            ground.file(&format!("{branch}/same"), branch);
        }
        ground.file("up/.wh.of-low", "");
        let path = |branch: &str| ground.at(branch).display().to_string();
        let (up, mid, low) = (path("up"), path("mid"), path("low"));
        let target = format!("br:{up}=rw:{mid}=ro+wh:{low}=ro+wh");
        for (from, shown, same) in [
            ("@0", &["of-mid", "of-up", "same"][..], "up"),
            ("@1", &["of-low", "of-mid", "same"], "mid"),
            ("@2", &["of-low", "same"], "low"),
        ] {
            mount(&[], format!("{target}{from}"), &at).exits(0);
            let shown: BTreeSet<Vec<u8>> =
                shown.iter().map(|name| name.as_bytes().to_vec()).collect();
            assert_eq!(paths(&at), shown, "{from}");
            let content = fs::read_to_string(at.join("same")).expect("a file");
            assert_eq!(content, same, "{from}");
            umount(&at).exits(0);
        }
        mount(&[], format!("{target}@3"), &at)
            .exits(2)
            .says("no branch 3");
        // The image of the article's container, of which it had deleted something.
        let host = lab::fixture(BLOG_HOST);
        mount_of(&host, &["determined_sammet"], &at);
        assert!(!at.join(DELETED).exists());
        umount(&at).exits(0);
        mount_of(&host, &["determined_sammet@1"], &at);
        assert!(at.join(DELETED).exists());
        umount(&at).exits(0);
    });
}

/// A union of `--all` costs nothing before somebody enters it.
#[apply(test)]
fn a_union_is_opened_when_it_is_entered() {
    privately(|ground| {
        let host = lab::fixture(BLOG_HOST);
        let at = ground.dir("all");
        mount_of(&host, &["--all"], &at);
        let open = || {
            let open = format!("/proc/{}/fd", super::server());
            let open = fs::read_dir(open).expect("it runs");
            let open = open.filter_map(|of| fs::read_link(of.ok()?.path()).ok());
            open.filter(|path| path.components().any(|part| part.as_os_str() == "diff"))
                .count()
        };
        let mut listing = Command::new("ls");
        let listing = listing.arg("-l").arg(at.join("docker/containers")).output();
        assert!(listing.expect("ls is there").status.success());
        assert_eq!(open(), 0);
        let names = fs::read_dir(at.join("docker/containers/determined_sammet"));
        assert!(names.expect("a directory").count() > 0);
        let one = open();
        assert!(one > 0);
        assert!(at.join("docker/containers/old_shell/bin").exists());
        assert!(open() > one);
        umount(&at).exits(0);
    });
}

#[apply(test)]
fn numbers_of_inodes_are_the_same_when_it_is_mounted_again() {
    privately(|ground| {
        for number in 0..30 {
            ground.file(&format!("low/d{}/{number}", number % 4), "x");
            ground.file(&format!("up/d{}/up{number}", number % 5), "x");
        }
        fs::hard_link(ground.at("low/d0/0"), ground.at("low/d1/linked")).expect("our own");
        let at = ground.dir("m");
        let numbers = || {
            let all = paths(&at).into_iter();
            let all = all.map(|path| {
                let stat = fs::symlink_metadata(at.join(OsStr::from_bytes(&path)));
                (path, stat.expect("it is listed").ino())
            });
            all.collect::<std::collections::BTreeMap<_, _>>()
        };
        let target = ground.overlay();
        mount(&[], &target, &at).exits(0);
        let first = numbers();
        umount(&at).exits(0);
        assert_eq!(first[&b"d0/0"[..]], first[&b"d1/linked"[..]]);
        let different: BTreeSet<u64> = first.values().copied().collect();
        assert_eq!(different.len(), first.len() - 1);
        mount(&[], &target, &at).exits(0);
        // In another order.
        for path in first.keys().rev() {
            fs::symlink_metadata(at.join(OsStr::from_bytes(path))).expect("it is there");
        }
        assert_eq!(numbers(), first);
        umount(&at).exits(0);
        // The kernel has the same numbers of files, all on one file system.
        let kernel = ground.dir("kernel");
        mount(&["--kernel"], &target, &kernel).exits(0);
        for (path, number) in &first {
            let stat = fs::symlink_metadata(kernel.join(OsStr::from_bytes(path)));
            let stat = stat.expect("it is there");
            if stat.is_file() {
                assert_eq!(stat.ino(), *number, "{}", path.escape_ascii());
            }
        }
        umount(&kernel).exits(0);
    });
}

/// Runs what was printed for a shell, which may be anywhere.
#[track_caller]
fn run_printed(row: &Value) {
    let program = Path::new(env!("CARGO_BIN_EXE_layerctl"));
    let program = program
        .parent()
        .expect("a directory")
        .to_str()
        .expect("text");
    let path = format!("{program}:{}", std::env::var("PATH").expect("text"));
    let mut shell = Command::new("sh");
    shell.args(["-c", text(row, "command")]).env("PATH", path);
    let output = shell.current_dir("/").output().expect("sh is there");
    assert!(
        output.status.success(),
        "{row}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[apply(test)]
fn what_is_printed_runs_wherever_it_is_run() {
    privately(|ground| {
        ground.file("a dir/one", "1");
        ground.file("b/two", "2");
        let at = ground.dir("m");
        let (here, above) = (ground.at(""), ground.at("").join(".."));
        let name = ground.at("b");
        let name = name.parent().and_then(Path::file_name);
        let name = name.and_then(OsStr::to_str).expect("text");
        let host = Path::new(name).join("m/../");
        for (from, root, target, options) in [
            (&here, None, "lowerdir=a dir:b", &[][..]),
            (&here, None, "lowerdir=a dir:b", &["--kernel"]),
            (&here, None, "br:a dir=rw:b=ro", &["--hidden"]),
            (&here, None, "br:a dir=rw:b=ro:b=ro@0", &[]),
            (&above, Some(&host), "lowerdir=a dir:b", &[]),
            (&above, Some(&host), "lowerdir=/a dir:b", &["--kernel"]),
        ] {
            let mut command = command();
            command.current_dir(from);
            if let Some(root) = root {
                command.arg("--root").arg(root);
            }
            command.args(["--format", "jsonl", "mount", "--print"]);
            command.args(options).arg(target);
            let dir = if root.is_some() {
                Path::new(name).join("m")
            } else {
                "m".into()
            };
            let row = run(command.arg(dir)).exits(0).row();
            run_printed(&row);
            for (name, content) in [("one", "1"), ("two", "2")] {
                let read = fs::read_to_string(at.join(name));
                assert_eq!(read.expect("it is mounted"), content, "{row}");
            }
            umount(&at).exits(0);
        }
    });
}

#[apply(test)]
fn a_command_of_many_layers_runs() {
    privately(|ground| {
        let at = ground.dir("m");
        for layers in [8, 60, 113] {
            let layer = |number: usize| ground.file(&format!("{number:064}/diff/{number}"), "");
            let directories: Vec<String> = (0..layers)
                .map(|number| {
                    let directory = layer(number);
                    let directory = directory.parent().expect("a directory");
                    directory.to_str().expect("text").to_owned()
                })
                .collect();
            let target = format!("lowerdir={}", directories.join(":"));
            let options = ["--print", "--kernel"];
            let row = mount(&options, &target, &at).exits(0).row();
            run_printed(&row);
            assert_eq!(text(&listed()[0], "by"), "kernel");
            assert_eq!(paths(&at).len(), layers);
            umount(&at).exits(0);
            // From 2.39 on mount(8) takes no option of so many bytes otherwise (util-linux issue 2287).
            let command = text(&row, "command");
            if command.contains("mount -t overlay") {
                assert!(
                    command.starts_with("LIBMOUNT_FORCE_MOUNT2=always "),
                    "{row}"
                );
            }
        }
    });
}

#[apply(test)]
fn a_hidden_name_of_any_length_is_found() {
    privately(|ground| {
        let long = |length: usize, end: &str| "x".repeat(length - end.len()) + end;
        let character = "\u{fc}".repeat(127);
        let names = [
            long(245, "a"),
            long(246, "a"),
            long(247, "a"),
            long(247, "b"),
            long(255, "a"),
            long(255, "b"),
            character,
        ];
        for (number, name) in names.iter().enumerate() {
            ground.file(&format!("up/d/{name}"), "now");
            ground.file(&format!("low/d/{name}"), format!("before {number}"));
        }
        // What is opaque hides names of any length. AUFS has none that are so long.
        let (opaque, flags) = ("trusted.overlay.opaque", rustix::fs::XattrFlags::empty());
        rustix::fs::setxattr(ground.at("up/d"), opaque, b"y", flags).expect("root may");
        // A directory, too.
        let directory = long(250, "d");
        ground.file(&format!("up/d/{directory}"), "now");
        ground.file(&format!("low/d/{directory}/inside"), "inside");
        let at = ground.dir("m");
        mount(&["--hidden"], ground.overlay(), &at).exits(0);
        let listed: Vec<_> = fs::read_dir(at.join("d"))
            .expect("a directory")
            .map(|entry| entry.expect("listed").path())
            .collect();
        assert_eq!(listed.len(), 2 * (names.len() + 1), "{listed:#?}");
        let mut hidden = BTreeSet::new();
        for path in &listed {
            let name = path.file_name().expect("a name").to_str().expect("text");
            assert!(name.len() <= 255, "{name}");
            let stat = fs::symlink_metadata(path).expect("what is listed is there");
            if stat.is_dir() {
                let content = fs::read_to_string(path.join("inside")).expect("a file");
                assert_eq!(content, "inside");
            } else {
                let content = fs::read_to_string(path).expect("a file");
                assert_eq!(content != "now", name.ends_with(".hidden@1"), "{name}");
                if content != "now" {
                    assert!(hidden.insert(content), "{name}");
                }
            }
        }
        assert_eq!(hidden.len(), names.len());
        for name in &names {
            if name.len() + ".hidden@1".len() <= 255 {
                assert!(at.join(format!("d/{name}.hidden@1")).exists());
            }
        }
        // A digest that is nobody's.
        let nothing = long(200, "~0123456789abcdef0123456789abcdef.hidden@1");
        assert!(!at.join("d").join(nothing).exists());
        umount(&at).exits(0);
    });
}

// ---- what engines showed ----

#[apply(test)]
fn a_mount_shows_what_docker_showed() {
    needs::time();
    privately(|ground| {
        lab::needs::captured_hosts();
        for driver in ["overlay2", "fuse-overlayfs", "vfs"] {
            let docker = Captured::new(&format!("docker-{driver}"));
            let names = docker.named("merged-", ".jsonl");
            assert!(!names.is_empty());
            for name in names {
                let (engine, ghosts) = seen(docker.said(&format!("merged-{name}.jsonl")));
                let container = name.strip_prefix("export-").unwrap_or(name);
                let at = ground.dir("m");
                mount_of(&docker.host.at("/"), &[container], &at);
                let ours = view(&at);
                umount(&at).exits(0);
                assert!(ghosts.iter().all(|ghost| !ours.contains_key(ghost)));
                let (engine, ours) = if container == name {
                    (beside_mounts(engine), beside_mounts(ours))
                } else {
                    (engine, ours)
                };
                let wrong: Vec<_> = engine
                    .keys()
                    .chain(ours.keys())
                    .filter(|path| engine.get(*path) != ours.get(*path))
                    .map(|path| {
                        (
                            path.escape_ascii().to_string(),
                            engine.get(path),
                            ours.get(path),
                        )
                    })
                    .collect();
                assert!(wrong.is_empty(), "{driver} {name}: {wrong:#?}");
            }
        }
    });
}

/// What is seen through a mount, as the captures have it.
pub fn view(at: &Path) -> View {
    let mut view = View::new();
    for path in paths(at) {
        let on_host = at.join(OsStr::from_bytes(&path));
        let stat = fs::symlink_metadata(&on_host).expect("it is listed");
        let kind = kind_of_mode(stat.mode());
        let target = fs::read_link(&on_host).ok();
        let entry = Entry {
            kind: kind.into(),
            rights: Some((stat.mode() & 0o7777, stat.uid().into(), stat.gid().into())),
            size: (kind == "file").then_some(stat.len()),
            target: target.map(|target| target.into_os_string().into_vec()),
        };
        view.insert([b"/", &path[..]].concat(), entry);
    }
    view
}
