//! Overlays whose options do not lead to their branches any more: what was the root when they were
//! mounted is elsewhere now, or a mount was moved.

use std::ffi::{CString, OsStr};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_change, mount_move,
    unmount,
};
use rustix::process::{chroot, pivot_root};
use serde_json::Value;

use crate::lab::run::{Output, command, copy_program, run};
use crate::lab::{again, needs, skip};

/// Set where a test runs in namespaces of its own: the directory that is its own, too.
const INSIDE: &str = "LAYERCTL_PIVOT_INSIDE";

/// Runs a test in mount and process namespaces of its own, in a directory of its own.
fn privately(check: impl FnOnce(&Path)) {
    if let Some(root) = std::env::var_os(INSIDE) {
        return check(Path::new(&root));
    }
    needs::mounts();
    let place = tempfile::tempdir().expect("a directory");
    // The mount table has paths without links.
    let root = fs::canonicalize(place.path()).expect("it was made");
    again(needs::own_mounts().env(INSIDE, &root));
}

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().expect("not the root")).expect("a new directory");
    fs::write(path, text).expect("a new file");
}

fn make(path: PathBuf) -> PathBuf {
    fs::create_dir_all(&path).expect("a new directory");
    path
}

fn overlay(options: &str, at: &Path) {
    let options = CString::new(options).expect("no NUL");
    mount(
        "overlay",
        at,
        "overlay",
        MountFlags::empty(),
        options.as_c_str(),
    )
    .unwrap_or_else(|error| panic!("{options:?}: {error}"));
}

fn tmpfs(at: &Path) {
    mount("tmpfs", at, "tmpfs", MountFlags::empty(), c"mode=755").expect("root may");
}

fn jsonl(arguments: &[&OsStr]) -> Output {
    run(command().args(["--format", "jsonl"]).args(arguments))
}

fn directories(row: &Value) -> Vec<&str> {
    let branches = row["branches"].as_array().expect("branches");
    let directories = branches.iter().map(|branch| branch["directory"].as_str());
    directories.map(|path| path.expect("text")).collect()
}

/// A program with what it needs to start, in another root.
fn install(program: &Path, root: &Path) {
    copy_program(program, root.join("layerctl"));
    let listed = Command::new("ldd").arg(program).output().expect("ldd");
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let paths = listed
        .split_whitespace()
        .filter(|word| word.starts_with('/'));
    for library in paths.map(Path::new) {
        let inside = root.join(library.strip_prefix("/").expect("absolute"));
        fs::create_dir_all(inside.parent().expect("a directory")).expect("a new directory");
        fs::copy(library, inside).expect("a library");
    }
}

/// As OpenWrt starts: the old root is a branch of the new one, and moves to `/rom`.
#[apply(test)]
fn the_root_that_was_is_a_branch() {
    privately(|place| {
        let rom = make(place.join("rom"));
        for name in ["overlay", "rom", "proc", "mnt", "dev"] {
            make(rom.join(name));
        }
        write(&rom.join("etc/banner"), "rom\n");
        write(&rom.join("etc/config/network"), "option rom\n");
        write(&rom.join("usr/pkg.list"), "pkg\n");
        let data = make(place.join("data"));
        install(Path::new(env!("CARGO_BIN_EXE_layerctl")), &rom);
        mount_bind(&rom, &rom).expect("root may");
        mount_change(&rom, MountPropagationFlags::PRIVATE).expect("root may");
        mount_bind(&data, rom.join("overlay")).expect("root may");
        mount_bind("/proc", rom.join("proc")).expect("root may");
        chroot(&rom).expect("root may");
        std::env::set_current_dir("/").expect("there is one");
        make("/overlay/upper".into());
        make("/overlay/work".into());
        let at = Path::new("/mnt");
        overlay(
            "lowerdir=/,upperdir=/overlay/upper,workdir=/overlay/work",
            at,
        );
        mount_move("/overlay", "/mnt/overlay").expect("root may");
        mount_move("/proc", "/mnt/proc").expect("root may");
        pivot_root("/mnt", "/mnt/rom").expect("root may");
        std::env::set_current_dir("/").expect("there is one");
        fs::remove_file("/etc/banner").expect("it is there");
        fs::write("/etc/config/network", "option mine\n").expect("a copy");
        fs::write("/etc/new", "new\n").expect("a new file");

        let layerctl = |arguments: &[&str]| {
            let mut command = Command::new("/layerctl");
            run(command
                .env_clear()
                .stdin(std::process::Stdio::inherit())
                .args(arguments))
        };
        let branches = layerctl(&["--format", "jsonl", "branches", "/"]).exits(0);
        assert_eq!(directories(&branches.row()), ["/overlay/upper", "/rom"]);
        assert_eq!(
            layerctl(&["changes", "/"]).exits(0).text(),
            "C /etc\nD /etc/banner\nC /etc/config\nC /etc/config/network\nA /etc/new\n"
        );
        layerctl(&["check", "/"]).exits(0);
        let copied = layerctl(&["-q", "copyups", "/"]).exits(0);
        assert_eq!(copied.text(), "/etc/config/network\n");
        let of_branch = layerctl(&["--format", "jsonl", "whois", "/rom/etc/banner"]);
        of_branch.exits(0);
        layerctl(&["restore", "/etc/banner"]).exits(0);
        assert_eq!(
            fs::read_to_string("/etc/banner").expect("it is back"),
            "rom\n"
        );
    });
}

/// What was moved since is found where it is now, whether or not something is left in its place.
#[apply(test)]
fn a_branch_that_was_moved_is_found() {
    privately(|place| {
        // The last one has another name now, as where overlayRoot.sh was there.
        for (name, left, moved) in [
            ("empty", None, "run/live/root"),
            ("other", Some("d/other"), "run/live/root"),
            ("renamed", None, "ro"),
        ] {
            let early = make(place.join(name).join("live/root"));
            if let Some(left) = left {
                write(&early.join(left), "of another directory");
                write(&early.join("d/file"), "of another directory, too");
            }
            tmpfs(&early);
            write(&early.join("d/file"), "lower");
            write(&early.join("d/kept"), "lower, too");
            let upper = make(place.join(name).join("upper"));
            let work = make(place.join(name).join("work"));
            let merged = make(place.join(name).join("merged"));
            let (low, up, work) = (early.display(), upper.display(), work.display());
            overlay(
                &format!("lowerdir={low},upperdir={up},workdir={work}"),
                &merged,
            );
            let now = make(place.join(name).join(moved));
            mount_move(&early, &now).expect("root may");
            fs::remove_file(merged.join("d/file")).expect("it is there");

            let merged = merged.as_os_str();
            let branches = jsonl(&[OsStr::new("branches"), merged]).exits(0).row();
            let expected = [upper.to_str(), now.to_str()].map(|path| path.expect("text"));
            assert_eq!(directories(&branches), expected, "{name}");
            let changes = run(command().arg("changes").arg(merged)).exits(0);
            assert_eq!(changes.text(), "C /d\nD /d/file\n", "{name}");
        }
    });
}

/// What cannot be found is said, whatever else has its path.
#[apply(test)]
fn a_branch_that_is_nowhere_is_in_doubt() {
    privately(|place| {
        for (name, left) in [("empty", None), ("other", Some("d/file"))] {
            let lower = make(place.join(name).join("lower"));
            if let Some(left) = left {
                write(&lower.join(left), "of another directory");
            }
            tmpfs(&lower);
            write(&lower.join("d/file"), "lower");
            let [upper, work, merged] =
                ["upper", "work", "merged"].map(|of| make(place.join(name).join(of)));
            let (low, up, work) = (lower.display(), upper.display(), work.display());
            overlay(
                &format!("lowerdir={low},upperdir={up},workdir={work}"),
                &merged,
            );
            unmount(&lower, UnmountFlags::DETACH).expect("root may");

            let changes = run(command().arg("changes").arg(&merged));
            changes.exits(2).says("cannot be told");
            run(command().arg("branches"))
                .exits(2)
                .says("cannot be told");
            unmount(&merged, UnmountFlags::empty()).expect("root may");
        }
    });
}

/// What is as it was is not doubted: names that the upper branch hides, files that were copied up,
/// lower directories without a file, what is mounted inside.
#[apply(test)]
fn what_is_in_its_place_is_not_doubted() {
    privately(|place| {
        let [one, two, upper, work, merged] =
            ["one", "two", "upper", "work", "merged"].map(|of| make(place.join(of)));
        write(&one.join("d/file"), "one");
        write(&two.join("d/file"), "two");
        write(&two.join("gone"), "two");
        make(two.join("mounted"));
        symlink("d", two.join("link")).expect("a new link");
        let options = format!(
            "lowerdir={}:{},upperdir={},workdir={}",
            one.display(),
            two.display(),
            upper.display(),
            work.display()
        );
        overlay(&options, &merged);
        fs::write(merged.join("d/file"), "changed").expect("a copy");
        fs::remove_file(merged.join("gone")).expect("it is there");
        fs::remove_file(merged.join("link")).expect("it is there");
        tmpfs(&merged.join("mounted"));
        write(&merged.join("mounted/inside"), "of another file system");
        let branches = jsonl(&[OsStr::new("branches"), merged.as_os_str()]).exits(0);
        let expected = [&upper, &one, &two].map(|path| path.to_str().expect("text"));
        assert_eq!(directories(&branches.row()), expected);
        run(command().arg("changes").arg(&merged)).exits(0);
    });
}

/// Names that an opaque lower directory hides are not missing to somebody who is not told of the mark.
#[apply(test)]
fn an_opaque_directory_is_not_doubted_by_who_is_not_root() {
    privately(|place| {
        fs::set_permissions(place, fs::Permissions::from_mode(0o755)).expect("our own");
        let [top, low, merged] = ["top", "low", "merged"].map(|of| make(place.join(of)));
        write(&top.join("d/new"), "top");
        for name in ["a", "b", "c", "e"] {
            write(&low.join("d").join(name), "low");
        }
        let opaque = Command::new("setfattr")
            .args(["-n", "trusted.overlay.opaque", "-v", "y"])
            .arg(top.join("d"))
            .status();
        assert!(opaque.is_ok_and(|status| status.success()));
        overlay(
            &format!("lowerdir={}:{}", top.display(), low.display()),
            &merged,
        );
        let program = env!("CARGO_BIN_EXE_layerctl");
        let as_nobody = |arguments: &[&OsStr]| {
            let mut command = Command::new("setpriv");
            command.args(["--reuid=65534", "--regid=65534", "--clear-groups", program]);
            command.args(arguments);
            command
        };
        let tried = as_nobody(&[OsStr::new("--version")]).output();
        if !tried.is_ok_and(|tried| tried.status.success()) {
            skip("nobody may run the program where it was built");
        }
        let words = ["ls", "--format", "jsonl", "-R"].map(OsStr::new);
        let mut arguments = words.to_vec();
        arguments.push(merged.as_os_str());
        let output = run(&mut as_nobody(&arguments)).exits(2);
        // That marks are hidden from him is all that is said.
        assert!(output.stderr.contains("only root"), "{}", output.stderr);
        assert!(
            !output.stderr.contains("another directory"),
            "{}",
            output.stderr
        );
        assert!(output.text().contains("/d/new"), "{}", output.text());
    });
}

/// A copy tells by what was copied: the same names, sizes and times.
#[apply(test)]
fn a_copied_host_that_was_pivoted() {
    crate::lab::needs::root("to be told of overlay's marks");
    let host = tempfile::tempdir().expect("a directory");
    let root = host.path();
    write(&root.join("rom/etc/banner"), "rom\n");
    write(&root.join("rom/usr/pkg.list"), "pkg\n");
    write(&root.join("overlay/upper/etc/new"), "new\n");
    make(root.join("data/etc"));
    write(&root.join("etc/new"), "new\n");
    write(&root.join("usr/pkg.list"), "pkg\n");
    for name in ["etc/banner", "usr/pkg.list"] {
        let copy = root.join("rom").join(name);
        let time = fs::metadata(&copy)
            .and_then(|of| of.modified())
            .expect("a time");
        let file = fs::File::options().append(true).open(root.join(name));
        if let Ok(file) = file {
            file.set_modified(time).expect("one's own");
        }
    }
    let table = "20 30 7:0 / /rom ro,relatime - squashfs /dev/root ro\n\
                 21 30 8:1 / /overlay rw - ext4 /dev/sda1 rw\n\
                 22 30 8:2 / /data rw - ext4 /dev/sda2 rw\n\
                 30 1 0:20 / / rw - overlay overlayfs:/overlay rw,lowerdir=/,upperdir=/overlay/upper,workdir=/overlay/work\n";
    write(&root.join("proc/1/mountinfo"), table);
    let branches = run(command()
        .arg("--root")
        .arg(root)
        .args(["--format", "jsonl", "branches", "/"]));
    assert_eq!(
        directories(&branches.exits(0).row()),
        ["/overlay/upper", "/rom"]
    );

    // Without a trace of it nothing tells which it was.
    fs::remove_dir_all(root.join("usr")).expect("it was made");
    let branches = run(command().arg("--root").arg(root).args(["branches", "/"]));
    branches.exits(2).says("cannot be told");
}
