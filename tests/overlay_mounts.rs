//! Overlays as they are mounted: by both of the kernel's interfaces, by engines, in other mount
//! namespaces and as the root of processes. The kernel itself says what is right.
//!
//! Every entry has a group that tells its branch, so that `lstat` on the mount says which branch
//! the kernel shows. What mounts runs again in mount and process namespaces of its own: whatever
//! becomes of it, no mount and no process outlives it, and no others are seen.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::fs::{CWD, FileType, Mode, XattrFlags, lsetxattr, makedev, mknodat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, UnmountFlags,
    fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount_bind,
    move_mount, unmount,
};
use serde_json::Value;
use walkdir::WalkDir;

use crate::lab;
use crate::lab::host::{Host, directories};
use crate::lab::run::{Output, bytes, command, layerctl, run, text, texts};
use crate::lab::{again, needs};

/// Set where a test runs in namespaces of its own: the directory that is its own, too.
const INSIDE: &str = "LAYERCTL_MOUNTS_INSIDE";
/// `lstat` says of an entry that its group is this and its branch.
const GROUP: u32 = 1000;

/// Directories' names. The separators are those of options, of mount tables and of arguments.
const ODD: [&[u8]; 18] = [
    b"a:b",
    b"c,d",
    b"e\\f",
    b"g h",
    b"i\nj",
    b"k\tl",
    b"literal\\072octal",
    b"ends\\",
    b"\\:begins",
    b"::,,\\\\",
    b" blank ",
    b"#no comment",
    b"key=value",
    b"\xff\xfe",
    b"gr\xc3\xbcn",
    b"it is (deleted)",
    b"quote\"'",
    b"\x01\x7f\r",
];

// ---- where it runs ----

/// Runs a test where it can mount, and sees nothing but what it made.
fn privately(check: impl FnOnce(&Place)) {
    if let Some(root) = std::env::var_os(INSIDE) {
        return check(&Place { root: root.into() });
    }
    needs::mounts();
    let place = tempfile::tempdir().expect("a directory");
    // The mount table has paths without links.
    let root = fs::canonicalize(place.path()).expect("it was made");
    again(needs::own_mounts().env(INSIDE, &root));
}

/// Options can be given one by one, with lower directories as they are (kernel 6.8).
fn needs_new_api() {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC);
    let is_taken = context.and_then(|context| fsconfig_set_string(&context, "lowerdir+", "/"));
    if is_taken.is_err() && lab::is_root() {
        lab::skip("this kernel's overlay takes no lowerdir+");
    }
}

/// A directory that is the test's own, and goes with its mounts.
struct Place {
    root: PathBuf,
}

impl Place {
    fn at(&self, path: impl AsRef<OsStr>) -> PathBuf {
        self.root.join(path.as_ref())
    }

    fn dir(&self, path: impl AsRef<OsStr>) -> PathBuf {
        let at = self.at(path);
        fs::create_dir_all(&at).unwrap_or_else(|error| panic!("{}: {error}", at.display()));
        at
    }

    /// A branch's directory, with entries of that branch: a directory where the path ends in a
    /// slash, else a file, which has the path as its content and as much more as its branch is.
    fn layer(&self, directory: impl AsRef<OsStr>, branch: u32, entries: &[&str]) -> PathBuf {
        let at = self.dir(directory);
        for entry in entries {
            let path = at.join(entry);
            if entry.ends_with('/') {
                fs::create_dir_all(&path).expect("a new directory");
                continue;
            }
            fs::create_dir_all(path.parent().expect("the branch")).expect("a new directory");
            let more = "+".repeat(branch as usize);
            fs::write(&path, format!("{entry}{more}")).expect("a new file");
        }
        for entry in WalkDir::new(&at) {
            let entry = entry.expect("just made");
            lchown(entry.path(), None, Some(GROUP + branch)).expect("root may");
        }
        at
    }

    /// An overlay with an upper branch 0 in `NAME/up`, lower ones `NAME/low1`..., all with a file
    /// `every`, a file `only_N` and one in a directory, mounted on `NAME/merged`.
    fn plain(&self, name: &str, lowers: u32) -> PathBuf {
        let (options, merged) = self.unmounted(name, lowers);
        mount_old(&options, &merged);
        merged
    }

    fn unmounted(&self, name: &str, lowers: u32) -> (Vec<u8>, PathBuf) {
        let entries = |branch| [format!("only_{branch}"), format!("sub/only_{branch}")];
        let layer = |directory: &str, branch| {
            let own = entries(branch);
            let all = ["every", "sub/every", &own[0], &own[1]];
            self.layer(format!("{name}/{directory}"), branch, &all)
        };
        let upper = layer("up", 0);
        let lowers: Vec<PathBuf> = (1..=lowers)
            .map(|branch| layer(&format!("low{branch}"), branch))
            .collect();
        let work = self.dir(format!("{name}/work"));
        let merged = self.dir(format!("{name}/merged"));
        (options(Some((&upper, &work)), &lowers), merged)
    }
}

fn whiteout(path: &Path) {
    let device = FileType::CharacterDevice;
    mknodat(CWD, path, device, Mode::empty(), makedev(0, 0)).expect("root may");
}

fn attribute(path: &Path, name: &str, value: &[u8]) {
    lsetxattr(path, name, value, XattrFlags::CREATE)
        .unwrap_or_else(|error| panic!("{name} of {}: {error}", path.display()));
}

// ---- how it is mounted ----

/// Options of mount(2), with what overlay wants escaped.
fn options(upper: Option<(&Path, &Path)>, lowers: &[impl AsRef<Path>]) -> Vec<u8> {
    let escaped = |path: &Path| {
        let mut escaped = Vec::new();
        for &byte in path.as_os_str().as_bytes() {
            if matches!(byte, b':' | b',' | b'\\') {
                escaped.push(b'\\');
            }
            escaped.push(byte);
        }
        escaped
    };
    let lowers: Vec<Vec<u8>> = lowers.iter().map(|path| escaped(path.as_ref())).collect();
    let mut options = [b"lowerdir=", &lowers.join(&b':')[..]].concat();
    if let Some((upper, work)) = upper {
        options.extend([b",upperdir=", &escaped(upper)[..]].concat());
        options.extend([b",workdir=", &escaped(work)[..]].concat());
    }
    options
}

/// By mount(2), which takes one page of options.
fn mount_old(options: &[u8], point: &Path) {
    try_mount_old(options, point)
        .unwrap_or_else(|error| panic!("{}: {error}", options.escape_ascii()));
}

fn try_mount_old(options: &[u8], point: &Path) -> Result<(), Errno> {
    let options = std::ffi::CString::new(options).expect("no NUL");
    let flags = MountFlags::empty();
    rustix::mount::mount("overlay", point, "overlay", flags, options.as_c_str())
}

/// By fsopen(2), which takes one option after the other. One without a value is a flag.
fn mount_new(options: &[(&str, &[u8])], point: &Path) -> Result<(), Errno> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options {
        if value.is_empty() {
            fsconfig_set_flag(&context, *key)?
        } else {
            fsconfig_set_string(&context, *key, *value)?
        }
    }
    fsconfig_create(&context)?;
    let attributes = MountAttrFlags::empty();
    let mount = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    move_mount(&mount, "", CWD, point, flags)
}

/// By mount(8) in a working directory, as a shell or an engine does it.
fn mount_from(directory: &Path, options: &str, point: impl AsRef<OsStr>) {
    let output = Command::new("mount")
        .current_dir(directory)
        // Else it takes options one by one, and lower directories only up to 255 bytes.
        .env("LIBMOUNT_FORCE_MOUNT2", "always")
        .args(["-t", "overlay", "overlay", "-o", options])
        .arg(point)
        .output()
        .expect("mount(8) is there");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{options}: {said}");
}

/// A process that ends with the test.
struct Process(Child);

impl Process {
    /// A shell script in a mount namespace of its own, that has done what it should before it
    /// sleeps. `$1` and what follows are the arguments.
    fn unshared<A: AsRef<OsStr>>(script: &str, arguments: &[A]) -> Process {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private"]);
        Process::started(command.args(["sh", "-ec", script, "sh"]).args(arguments))
    }

    /// Waits until it says `ready`.
    fn started(command: &mut Command) -> Process {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("it is there");
        let mut line = String::new();
        let out = child.stdout.take().expect("it is piped");
        BufReader::new(out).read_line(&mut line).expect("a pipe");
        assert_eq!(line, "ready\n", "{command:?}");
        Process(child)
    }

    fn id(&self) -> String {
        self.0.id().to_string()
    }

    /// What it has as its root, for this process.
    fn root(&self) -> PathBuf {
        Path::new("/proc").join(self.id()).join("root")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

// ---- what is asked ----

fn jsonl(arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Output {
    run(command().args(["--format", "jsonl"]).args(arguments))
}

/// Asks for a path without a target.
fn which(path: &Path) -> Output {
    jsonl([OsStr::new("which"), path.as_os_str()])
}

/// The row of `branches` for a target.
#[track_caller]
fn branches(target: impl AsRef<OsStr>) -> Value {
    jsonl([OsStr::new("branches"), OsStr::new("--"), target.as_ref()])
        .exits(0)
        .row()
}

/// Every union that there is in this place.
#[track_caller]
fn all_branches() -> Vec<Value> {
    jsonl(["branches"]).exits(0).rows()
}

#[track_caller]
fn assert_directories(row: &Value, expected: &[PathBuf]) {
    let shown: Vec<PathBuf> = directories(row)
        .into_iter()
        .map(|path| OsString::from_vec(path).into())
        .collect();
    assert_eq!(shown, expected);
}

/// The directories of the branches are these, whatever they are called.
#[track_caller]
fn assert_same_directories(row: &Value, expected: &[PathBuf]) {
    let identity = |path: &Path| {
        let stat = fs::metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        (stat.dev(), stat.ino())
    };
    let shown = directories(row).into_iter().map(|path| {
        assert!(path.starts_with(b"/"), "{row}");
        identity(Path::new(&OsString::from_vec(path)))
    });
    let expected = expected.iter().map(|path| identity(path));
    assert!(shown.eq(expected), "{row}");
}

/// What the kernel shows below a directory: every name that `readdir` lists with what `lstat`
/// says of it.
fn kernel(directory: &Path) -> BTreeMap<Vec<u8>, Result<fs::Metadata, Errno>> {
    let mut seen = BTreeMap::new();
    let mut left = vec![(directory.to_owned(), Vec::new())];
    while let Some((directory, above)) = left.pop() {
        let listed = fs::read_dir(&directory)
            .unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
        for entry in listed {
            let name = entry.expect("a name").file_name();
            let path = [&above[..], b"/", name.as_bytes()].concat();
            let on_host = directory.join(&name);
            let stat = fs::symlink_metadata(&on_host)
                .map_err(|error| Errno::from_io_error(&error).expect("the kernel's own"));
            if stat.as_ref().is_ok_and(fs::Metadata::is_dir) {
                left.push((on_host, path.clone()));
            }
            seen.insert(path, stat);
        }
    }
    seen
}

/// Compares the listing of a target, and the answer for every name, with the kernel's below
/// `seen`, which is the directory `inside` of the union. Says how many names there are.
#[track_caller]
fn agrees(seen: &Path, target: impl AsRef<OsStr>, inside: &str) -> usize {
    let kernel: BTreeMap<Vec<u8>, fs::Metadata> = kernel(seen)
        .into_iter()
        .filter_map(|(path, stat)| Some(([inside.as_bytes(), &path].concat(), stat.ok()?)))
        .collect();
    let target = target.as_ref();
    let listed = jsonl(
        ["ls", "-R", "-l", "--"]
            .map(OsStr::new)
            .iter()
            .chain([&target]),
    );
    let rows = listed.exits(0).rows();
    let told: BTreeMap<Vec<u8>, &Value> =
        rows.iter().map(|row| (bytes(&row["path"]), row)).collect();
    let names = |path: &[u8]| path.escape_ascii().to_string();
    let of_kernel: Vec<String> = kernel.keys().map(|path| names(path)).collect();
    let of_program: Vec<String> = told.keys().map(|path| names(path)).collect();
    assert_eq!(of_program, of_kernel, "the names");
    let paths = kernel.keys().map(|path| OsStr::from_bytes(path));
    let which = jsonl(
        ["which", "--no-follow", "--in"]
            .map(OsStr::new)
            .into_iter()
            .chain([target, OsStr::new("--")])
            .chain(paths),
    );
    let which = which.exits(0).rows();
    for ((path, stat), answer) in kernel.iter().zip(&which) {
        let row = told[path];
        let branch = u64::from(stat.gid() - GROUP);
        assert_eq!(row["branch"], branch, "{row}");
        assert_eq!(answer["branch"], branch, "{answer}");
        assert_eq!(row["uid"], stat.uid(), "{row}");
        assert_eq!(row["gid"], stat.gid(), "{row}");
        let mode = format!("{:04o}", stat.mode() & 0o7777);
        assert_eq!(row["mode"], mode, "{row}");
        if stat.is_file() {
            assert_eq!(row["size"], stat.size(), "{row}");
        }
    }
    kernel.len()
}

/// What a file of a mount contains, found by `which` in the branches.
#[track_caller]
fn content(target: impl AsRef<OsStr>, path: &str) -> Vec<u8> {
    let target = target.as_ref();
    let row = jsonl([
        OsStr::new("which"),
        OsStr::new("--in"),
        target,
        OsStr::new(path),
    ])
    .exits(0)
    .row();
    let branches = directories(&branches(target));
    let (branch, at) = if row["data"].is_null() {
        (&row["branch"], bytes(&row["path"]))
    } else {
        (&row["data"]["branch"], bytes(&row["data"]["path"]))
    };
    let branch = branch.as_u64().expect("a branch");
    let directory = &branches[usize::try_from(branch).expect("few")];
    fs::read(OsStr::from_bytes(&[&directory[..], &at].concat())).expect("a file")
}

#[track_caller]
fn state(target: &Path, path: &str) -> (String, Option<String>) {
    let arguments = ["which", "--in"].map(OsStr::new);
    let row = jsonl(
        arguments
            .into_iter()
            .chain([target.as_os_str(), OsStr::new(path)]),
    )
    .row();
    let error = row["error"].as_str().map(str::to_owned);
    (text(&row, "state").to_owned(), error)
}

/// Overlay's lookup as the kernel does it: what `which` has to say.
#[track_caller]
fn assert_as_kernel(mount: &Path, path: &str) -> Result<u64, Errno> {
    let (state, error) = state(mount, path);
    let answer = fs::symlink_metadata(mount.join(path.trim_start_matches('/')));
    match answer {
        Ok(stat) => {
            assert_eq!((state.as_str(), error), ("present", None), "{path}");
            Ok(stat.size())
        }
        Err(kernel) => {
            let errno = Errno::from_io_error(&kernel).expect("the kernel's own");
            let name = match errno {
                Errno::NOENT => "ENOENT",
                Errno::PERM => "EPERM",
                Errno::IO => "EIO",
                other => panic!("{path}: {other}"),
            };
            assert_eq!(error.as_deref(), Some(name), "{path}: {state}");
            Err(errno)
        }
    }
}

fn lines_of_mount_table() -> Vec<Vec<u8>> {
    let table = fs::read("/proc/self/mountinfo").expect("our own");
    table
        .split(|&byte| byte == b'\n')
        .map(<[u8]>::to_vec)
        .collect()
}

// ---- both interfaces ----

#[apply(test)]
fn mount_2_takes_escaped_names() {
    privately(|place| {
        // FACTS-engines 58
        for (number, name) in ODD.iter().enumerate() {
            let name = OsStr::from_bytes(name);
            let here = place.dir(number.to_string());
            let under = |what: &str| {
                let mut path = here.join(what).into_os_string();
                path.push(name);
                path
            };
            let upper = place.layer(under("up"), 0, &["every", "only_0"]);
            let lower = place.layer(under("low"), 1, &["every", "only_1"]);
            let (work, merged) = (place.dir(under("work")), place.dir(under("merged")));
            mount_old(&options(Some((&upper, &work)), &[&lower]), &merged);
            assert_directories(&branches(&merged), &[upper, lower]);
            assert_eq!(agrees(&merged, &merged, ""), 3, "{name:?}");
            let row = which(&merged.join("every"));
            let row = row.exits(0).row();
            assert_eq!(bytes(&row["target"]), merged.as_os_str().as_bytes());
            assert_eq!(row["branch"], 0);
        }
        assert_eq!(all_branches().len(), ODD.len());
    });
}

#[apply(test)]
fn odd_names_stand_side_by_side() {
    needs_new_api();
    privately(|place| {
        let lowers: Vec<PathBuf> = (0u32..)
            .zip(ODD)
            .map(|(branch, name)| {
                let own = format!("only_{branch}");
                place.layer(OsStr::from_bytes(name), branch, &["every", &own])
            })
            .collect();
        let old = place.dir("old");
        mount_old(&options(None, &lowers), &old);
        let new = place.dir("new");
        let raw: Vec<(&str, &[u8])> = lowers
            .iter()
            .map(|path| ("lowerdir+", path.as_os_str().as_bytes()))
            .collect();
        mount_new(&raw, &new).expect("directories with odd names");
        for point in [&old, &new] {
            assert_directories(&branches(point), &lowers);
            assert_eq!(agrees(point, point, ""), ODD.len() + 1);
        }
    });
}

#[apply(test)]
fn the_new_api_takes_names_as_they_are() {
    needs_new_api();
    privately(|place| {
        for (number, name) in ["u:1", "u,1", "u 1", "u\n1", "u=1", "u#1"]
            .iter()
            .enumerate()
        {
            let upper = place.layer(format!("{number}/{name}"), 0, &["every"]);
            let lower = place.layer(format!("{number}/low"), 1, &["every", "low"]);
            let work = place.dir(format!("{number}/work:1"));
            let merged = place.dir(format!("{number}/merged"));
            let options = [
                ("lowerdir+", lower.as_os_str().as_bytes()),
                ("upperdir", upper.as_os_str().as_bytes()),
                ("workdir", work.as_os_str().as_bytes()),
            ];
            mount_new(&options, &merged).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_directories(&branches(&merged), &[upper, lower]);
            assert_eq!(agrees(&merged, &merged, ""), 2);
        }
        // The old spelling by the new interface.
        let lowers = [
            place.layer("a:b", 0, &["every"]),
            place.layer("c", 1, &["every", "low"]),
        ];
        let spelled = options(None, &lowers);
        let merged = place.dir("merged");
        let value = spelled.strip_prefix(b"lowerdir=").expect("it begins so");
        mount_new(&[("lowerdir", value)], &merged).expect("two directories");
        assert_directories(&branches(&merged), &lowers);
        assert_eq!(agrees(&merged, &merged, ""), 2);
    });
}

#[apply(test)]
fn a_backslash_in_an_upper_directory_however_it_was_given() {
    needs_new_api();
    privately(|place| {
        let upper = place.layer("u\\x", 0, &["every"]);
        let lower = place.layer("low", 1, &["every", "low"]);
        let (work, merged) = (place.dir("work"), place.dir("merged"));
        mount_old(&options(Some((&upper, &work)), &[&lower]), &merged);
        assert_directories(&branches(&merged), &[upper, lower.clone()]);

        // A directory that is given open (kernel 6.13) has its name in the table as it is.
        let upper = place.layer("v\\x", 0, &["every"]);
        let (work, merged) = (place.dir("work2"), place.dir("merged2"));
        let open = |path: &Path| fs::File::open(path).expect("a directory");
        let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).expect("overlay");
        for (key, path) in [
            ("lowerdir+", &lower),
            ("upperdir", &upper),
            ("workdir", &work),
        ] {
            match rustix::mount::fsconfig_set_fd(&context, key, open(path)) {
                Ok(()) => {}
                Err(Errno::INVAL) => {
                    return lab::in_part_everywhere("this kernel takes no open directories");
                }
                Err(error) => panic!("{key}: {error}"),
            }
        }
        fsconfig_create(&context).expect("an overlay");
        let flags = FsMountFlags::FSMOUNT_CLOEXEC;
        let mount = fsmount(&context, flags, MountAttrFlags::empty()).expect("a mount");
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        move_mount(&mount, "", CWD, &merged, flags).expect("a directory");
        assert_directories(&branches(&merged), &[upper, lower]);
        assert_eq!(agrees(&merged, &merged, ""), 2);
    });
}

#[apply(test)]
fn five_hundred_lower_directories_and_40_kb() {
    needs::time();
    needs_new_api();
    privately(|place| {
        // FACTS-engines 57
        let long = "x".repeat(60);
        let lowers: Vec<PathBuf> = (1..=501)
            .map(|branch| {
                let own = format!("only_{branch}");
                place.layer(format!("{long}{branch}"), branch, &["every", &own])
            })
            .collect();
        let upper = place.layer("up", 0, &["every"]);
        let (work, merged) = (place.dir("work"), place.dir("merged"));
        let mut options: Vec<(&str, &[u8])> = lowers
            .iter()
            .map(|path| ("lowerdir+", path.as_os_str().as_bytes()))
            .collect();
        options.push(("upperdir", upper.as_os_str().as_bytes()));
        options.push(("workdir", work.as_os_str().as_bytes()));
        assert_eq!(
            mount_new(&options, &merged),
            Err(Errno::INVAL),
            "one too many"
        );
        options.remove(500);
        mount_new(&options, &merged).expect("as many as there can be");
        let longest = lines_of_mount_table().iter().map(Vec::len).max();
        assert!(longest > Some(40_000), "{longest:?}");

        let mut expected = vec![upper];
        expected.extend_from_slice(&lowers[..500]);
        assert_directories(&branches(&merged), &expected);
        for branch in [1u64, 2, 250, 499, 500] {
            let path = merged.join(format!("only_{branch}"));
            let row = which(&path).exits(0).row();
            let kernel = fs::symlink_metadata(&path).expect("it is mounted");
            assert_eq!(row["branch"], u64::from(kernel.gid() - GROUP));
            assert_eq!(row["branch"], branch);
        }
        // Each name once, with the branch that it says.
        let arguments = [OsStr::new("ls"), merged.as_os_str()];
        let rows = jsonl(arguments).exits(0).rows();
        assert_eq!(rows.len(), fs::read_dir(&merged).expect("a mount").count());
        for row in &rows {
            if let Some(branch) = text(row, "path").strip_prefix("/only_") {
                assert_eq!(row["branch"].to_string(), branch);
            }
        }
    });
}

// ---- what the options say beside directories ----

/// An upper branch that the kernel wrote with redirects and metacopies on, and the lower branch
/// that it refers to. Nothing is mounted any more.
fn renamed(place: &Place) -> (PathBuf, PathBuf) {
    let lower = place.layer("low", 1, &["dir/inner", "other/", "big", "chmod"]);
    fs::write(lower.join("big"), vec![b'b'; 20_000]).expect("ours");
    let upper = place.layer("up", 0, &[]);
    let (work, merged) = (place.dir("work"), place.dir("made"));
    let mut options = options(Some((&upper, &work)), &[&lower]);
    options.extend_from_slice(b",redirect_dir=on,metacopy=on");
    mount_old(&options, &merged);
    fs::rename(merged.join("dir"), merged.join("moved")).expect("redirect_dir=on");
    fs::rename(merged.join("big"), merged.join("other/big")).expect("a file");
    for path in ["other/big", "chmod"] {
        let mode = fs::Permissions::from_mode(0o751);
        fs::set_permissions(merged.join(path), mode).expect("a file");
    }
    unmount(&merged, UnmountFlags::empty()).expect("it was mounted");
    let stat = fs::symlink_metadata(upper.join("other/big")).expect("it was moved");
    assert!(stat.size() == 20_000 && stat.blocks() < 20, "no metacopy");
    (upper, lower)
}

#[apply(test)]
fn redirects_and_metacopies_as_the_mount_says() {
    privately(|place| {
        let (upper, lower) = renamed(place);
        let stack = options(None, &[upper.clone(), lower.clone()]);
        let mut answers = Vec::new();
        for (number, more) in [
            "",
            "redirect_dir=on",
            "redirect_dir=follow",
            "redirect_dir=off",
            "redirect_dir=nofollow",
            "metacopy=on",
            "metacopy=off",
            "redirect_dir=on,metacopy=on",
            "redirect_dir=nofollow,metacopy=off",
        ]
        .into_iter()
        .enumerate()
        {
            let merged = place.dir(format!("merged{number}"));
            let options = match more {
                "" => stack.clone(),
                _ => [&stack[..], b",", more.as_bytes()].concat(),
            };
            mount_old(&options, &merged);
            assert_directories(&branches(&merged), &[upper.clone(), lower.clone()]);
            for path in [
                "/moved",
                "/moved/inner",
                "/dir",
                "/big",
                "/other/big",
                "/chmod",
            ] {
                let answer = assert_as_kernel(&merged, path);
                let is_file = path.ends_with("big") || path == "/chmod";
                if let Ok(kernel) = fs::read(merged.join(&path[1..]))
                    && is_file
                {
                    assert_eq!(content(&merged, path), kernel, "{more}: {path}");
                }
                answers.push((path, answer.is_ok()));
            }
        }
        // Else nothing would be proved.
        for path in ["/moved", "/other/big", "/chmod"] {
            for answer in [true, false] {
                assert!(answers.contains(&(path, answer)), "{path} never {answer}");
            }
        }
    });
}

#[apply(test)]
fn data_only_directories_give_content_alone() {
    needs_new_api();
    privately(|place| {
        let (upper, lower) = renamed(place);
        let other = place.layer("odd:,data", 9, &["unseen"]);
        let (old, new) = (place.dir("old"), place.dir("new"));
        let mut stack = options(None, &[&upper]);
        for data in [&other, &lower] {
            let escaped = options(None, &[data]);
            stack.extend_from_slice(b"::");
            stack.extend_from_slice(escaped.strip_prefix(b"lowerdir=").expect("it begins so"));
        }
        stack.extend_from_slice(b",metacopy=on,redirect_dir=follow");
        mount_old(&stack, &old);
        let bytes_of = |path: &PathBuf| path.as_os_str().as_bytes().to_vec();
        let (upper_name, other_name, lower_name) =
            (bytes_of(&upper), bytes_of(&other), bytes_of(&lower));
        let options: [(&str, &[u8]); 5] = [
            ("lowerdir+", &upper_name),
            ("datadir+", &other_name),
            ("datadir+", &lower_name),
            ("metacopy", b"on"),
            ("redirect_dir", b"follow"),
        ];
        mount_new(&options, &new).expect("data-only directories");
        for point in [&old, &new] {
            assert_directories(
                &branches(point),
                &[upper.clone(), other.clone(), lower.clone()],
            );
            let row = which(&point.join("other/big"));
            let row = row.exits(0).row();
            assert_eq!(row["branch"], 0, "{row}");
            assert_eq!(row["data"]["branch"], 2, "{row}");
            assert_eq!(row["data"]["path"], "/big", "{row}");
            let kernel = fs::read(point.join("other/big")).expect("data is found");
            assert_eq!(kernel.len(), 20_000);
            assert_eq!(content(point, "/other/big"), kernel);
            // What is only in the data is not there, and neither is what the upper one only
            // names: the rest of the directory that was renamed.
            for path in [
                "/unseen",
                "/big",
                "/dir",
                "/moved",
                "/moved/inner",
                "/chmod",
            ] {
                let _ = assert_as_kernel(point, path);
            }
            assert_eq!(state(point, "/unseen").0, "missing");
            let rows = jsonl([OsStr::new("ls"), OsStr::new("-R"), point.as_os_str()]).rows();
            let seen = kernel_names(point);
            assert!(!rows.is_empty());
            for row in rows.iter().filter(|row| row["error"].is_null()) {
                assert!(seen.contains(&bytes(&row["path"])), "{row}");
            }
        }
    });
}

fn kernel_names(mount: &Path) -> Vec<Vec<u8>> {
    let seen = kernel(mount).into_iter();
    seen.filter_map(|(path, stat)| stat.is_ok().then_some(path))
        .collect()
}

#[apply(test)]
fn userxattr_tells_which_marks_count() {
    needs_new_api();
    privately(|place| {
        // FACTS-engines 55
        let lower = place.layer("low", 1, &["user/below", "trusted/below", "root/below"]);
        let upper = place.layer("up", 0, &["user/own", "trusted/own", "root/whited"]);
        attribute(&upper.join("user"), "user.overlay.opaque", b"y");
        attribute(&upper.join("trusted"), "trusted.overlay.opaque", b"y");
        let stack = options(None, &[upper, lower]);
        for (point, more, opaque) in [("plain", "", "trusted"), ("user", ",userxattr", "user")] {
            let merged = place.dir(point);
            mount_old(&[&stack[..], more.as_bytes()].concat(), &merged);
            agrees(&merged, &merged, "");
            for path in ["/user/below", "/trusted/below"] {
                let answer = assert_as_kernel(&merged, path);
                assert_eq!(
                    answer.is_err(),
                    path.starts_with(&format!("/{opaque}")),
                    "{path}"
                );
            }
        }
        let mount = Path::new("new");
        let merged = place.dir(mount);
        let (low, up) = (place.at("low"), place.at("up"));
        let options: [(&str, &[u8]); 3] = [
            ("userxattr", b""),
            ("lowerdir+", up.as_os_str().as_bytes()),
            ("lowerdir+", low.as_os_str().as_bytes()),
        ];
        mount_new(&options, &merged).expect("userxattr");
        agrees(&merged, &merged, "");
    });
}

#[apply(test)]
fn an_overlay_without_an_upper_is_read_only() {
    privately(|place| {
        let lowers = [
            place.layer("a", 0, &["every", "a"]),
            place.layer("b", 1, &["every", "b"]),
        ];
        let merged = place.dir("merged");
        mount_old(&options(None, &lowers), &merged);
        assert!(fs::write(merged.join("new"), "").is_err());
        let row = branches(&merged);
        assert_directories(&row, &lowers);
        let branches = row["branches"].as_array().expect("branches");
        assert_eq!(texts(branches, "permission"), ["ro", "ro"]);
        agrees(&merged, &merged, "");
        for verb in ["changes", "copyups"] {
            layerctl([OsStr::new(verb), merged.as_os_str()])
                .exits(2)
                .says("no writable branch");
        }
        // An upper one is written to by others, even if this mount may not.
        let writable = place.plain("writable", 1);
        let flags = MountFlags::RDONLY | MountFlags::BIND;
        rustix::mount::mount_remount(&writable, flags, "").expect("a mount");
        assert!(fs::write(writable.join("new"), "").is_err());
        let row = all_branches();
        assert_eq!(row.len(), 2);
        agrees(&writable, &writable, "");
    });
}

// ---- options relative to an engine's directory ----

/// Layers as an engine keeps them: `ID/diff`, with links `l/SHORT` to them.
fn stored(place: &Place, base: &str, ids: &[&str]) -> Vec<PathBuf> {
    place.dir(format!("{base}/l"));
    (0u32..)
        .zip(ids)
        .map(|(branch, id)| {
            let entries = ["every", &format!("only_{branch}")];
            let diff = place.layer(format!("{base}/{id}/diff"), branch, &entries);
            let short = place.at(format!("{base}/l/{}", id.to_uppercase()));
            symlink(format!("../{id}/diff"), short).expect("a new link");
            place.dir(format!("{base}/{id}/work"));
            diff
        })
        .collect()
}

#[apply(test)]
fn docker_mounts_from_its_own_directory() {
    privately(|place| {
        // FACTS-engines 56
        let expected = stored(place, "overlay2", &["x", "a", "b"]);
        place.dir("overlay2/x/merged");
        mount_from(
            &place.at("overlay2"),
            "lowerdir=l/A:l/B,upperdir=x/diff,workdir=x/work",
            "x/merged",
        );
        let merged = place.at("overlay2/x/merged");
        assert_same_directories(&branches(&merged), &expected);
        assert_eq!(agrees(&merged, &merged, ""), 4);
        // Some of them absolute, as their options fit.
        let expected = stored(place, "some", &["y", "c", "d"]);
        place.dir("some/y/merged");
        let some = place.at("some");
        let lowers = format!("{0}/l/C:{0}/l/D", some.display());
        let options = format!("lowerdir={lowers},upperdir=y/diff,workdir=y/work");
        mount_from(&some, &options, "y/merged");
        assert_same_directories(&branches(some.join("y/merged")), &expected);
        agrees(&some.join("y/merged"), some.join("y/merged"), "");
    });
}

#[apply(test)]
fn containerds_lower_directories_alone_are_relative() {
    privately(|place| {
        // FACTS-engines 56
        let entries = |branch: u32| format!("only_{branch}");
        let layer = |id: &str, branch| {
            let path = format!("snapshots/{id}/fs");
            place.layer(path, branch, &["every", &entries(branch)])
        };
        let expected = [layer("574", 0), layer("573", 1), layer("572", 2)];
        let work = place.dir("snapshots/574/work");
        let rootfs = place.dir("run/task/k8s.io/id/rootfs");
        let options = format!(
            "lowerdir=573/fs:572/fs,upperdir={},workdir={}",
            expected[0].display(),
            work.display()
        );
        mount_from(&place.at("snapshots"), &options, &rootfs);
        assert_same_directories(&branches(&rootfs), &expected);
        assert_eq!(agrees(&rootfs, &rootfs, ""), 4);
    });
}

#[apply(test)]
fn directories_relative_to_the_mount_point() {
    privately(|place| {
        let layer = |path: &str, branch: u32| {
            place.layer(path, branch, &["every", &format!("only_{branch}")])
        };
        let expected = [layer("here/up", 0), layer("here/low", 1)];
        for path in ["here/work", "here/merged"] {
            place.dir(path);
        }
        let options = "lowerdir=low,upperdir=up,workdir=work";
        mount_from(&place.at("here"), options, "merged");
        let merged = place.at("here/merged");
        assert_same_directories(&branches(&merged), &expected);
        agrees(&merged, &merged, "");
    });
}

#[apply(test)]
fn directories_only_called_alike_are_not_taken() {
    privately(|place| {
        let layer = |path: &str, branch: u32| {
            place.layer(path, branch, &["every", &format!("only_{branch}")])
        };
        // The directory above has others of the same names.
        for path in ["low", "up"] {
            place.layer(path, 9, &["wrong"]);
        }
        let expected = [layer("here/up", 0), layer("here/low", 1)];
        for path in ["here/work", "here/merged"] {
            place.dir(path);
        }
        let options = "lowerdir=low,upperdir=up,workdir=work";
        mount_from(&place.at("here"), options, "merged");
        let merged = place.at("here/merged");
        assert_same_directories(&branches(&merged), &expected);
        agrees(&merged, &merged, "");
    });
}

#[apply(test)]
fn relative_directories_of_nowhere_are_said_to_be_lost() {
    privately(|place| {
        place.layer("far/away/low", 0, &["every"]);
        place.layer("far/away/low2", 1, &["every"]);
        let merged = place.dir("x/y/z/merged");
        mount_from(&place.at("far/away"), "lowerdir=low:low2", &merged);
        assert!(merged.join("every").exists());
        for verb in ["ls", "branches"] {
            jsonl([OsStr::new(verb), merged.as_os_str()])
                .exits(2)
                .says("branch 0")
                .says("low");
        }
        // Not a plain "no".
        let row = which(&merged.join("every"));
        assert_eq!(row.exits(2).row()["uncertain"], true);
    });
}

// ---- several mounts of one union, and several unions ----

#[apply(test)]
fn bind_mounts_show_one_union() {
    privately(|place| {
        let merged = place.plain("one", 2);
        let (whole, part) = (place.dir("whole"), place.dir("odd \n\\part"));
        mount_bind(&merged, &whole).expect("a mount");
        mount_bind(merged.join("sub"), &part).expect("a mount");
        let file = place.at("file");
        fs::write(&file, "").expect("a new file");
        mount_bind(merged.join("sub/every"), &file).expect("a mount");

        let rows = all_branches();
        assert_eq!(rows.len(), 1, "{rows:?}");
        let mounts: Vec<Vec<u8>> = rows[0]["mounts"]
            .as_array()
            .expect("mounts")
            .iter()
            .map(bytes)
            .collect();
        let expected: Vec<Vec<u8>> = [&merged, &whole, &part, &file]
            .map(|path| path.as_os_str().as_bytes().to_vec())
            .into();
        assert_eq!(mounts, expected);
        let partial: Vec<(Vec<u8>, Vec<u8>)> = rows[0]["partial"]
            .as_array()
            .expect("partial mounts")
            .iter()
            .map(|partial| (bytes(&partial["mount"]), bytes(&partial["root"])))
            .collect();
        let expected = [
            (expected[2].clone(), b"/sub".to_vec()),
            (expected[3].clone(), b"/sub/every".to_vec()),
        ];
        assert_eq!(partial, expected);

        agrees(&merged, &merged, "");
        agrees(&whole, &whole, "");
        assert_eq!(agrees(&part, &part, "/sub"), 4);
        for (path, inside) in [
            (whole.join("only_2"), "/only_2"),
            (part.join("only_1"), "/sub/only_1"),
            (file.clone(), "/sub/every"),
        ] {
            let row = which(&path).exits(0).row();
            let kernel = fs::symlink_metadata(&path).expect("a mount");
            assert_eq!(text(&row, "path"), inside);
            assert_eq!(row["branch"], u64::from(kernel.gid() - GROUP));
        }
        // Without the first mount nothing changes.
        unmount(&merged, UnmountFlags::empty()).expect("a mount");
        agrees(&part, &part, "/sub");
        unmount(&whole, UnmountFlags::empty()).expect("a mount");
        agrees(&part, &part, "/sub");
        let answer = which(&merged.join("every"));
        answer.exits(1);
    });
}

#[apply(test)]
fn of_mounts_over_each_other_the_last_answers() {
    privately(|place| {
        let point = place.dir("point");
        let (first, _) = place.unmounted("first", 1);
        let (second, _) = place.unmounted("second", 2);
        mount_old(&first, &point);
        mount_old(&second, &point);
        let rows = all_branches();
        assert_eq!(rows.len(), 2);
        assert_ne!(rows[0]["target"], rows[1]["target"], "told apart");
        let ask = |path: &str| {
            let path = point.join(path);
            let row = which(&path).row();
            let is_there = fs::symlink_metadata(&path).is_ok();
            assert_eq!(text(&row, "state") == "present", is_there, "{row}");
            is_there
        };
        assert!(ask("only_2"));
        assert_eq!(agrees(&point, &point, ""), 9);
        // What lies over a part of it is not the union's.
        let sub = point.join("sub");
        tmpfs(&sub);
        assert_eq!(fs::read_dir(&sub).expect("a tmpfs").count(), 0);
        let answer = which(&sub.join("every"));
        for row in answer.exits(1).rows() {
            assert_ne!(row["state"], "present", "{row}");
        }
        unmount(&sub, UnmountFlags::empty()).expect("a mount");
        // A mount above covers all of it.
        tmpfs(&place.root);
        let answer = which(&point.join("every"));
        for row in answer.rows() {
            assert_ne!(row["state"], "present", "{row}");
        }
        unmount(&place.root, UnmountFlags::empty()).expect("a mount");
        unmount(&point, UnmountFlags::empty()).expect("a mount");
        assert!(!ask("only_2"));
        assert_eq!(agrees(&point, &point, ""), 7);
        assert_eq!(all_branches().len(), 1);
    });
}

#[apply(test)]
fn a_union_over_a_union_has_it_as_a_branch() {
    privately(|place| {
        let inner = place.plain("inner", 2);
        fs::remove_file(inner.join("only_2")).expect("a whiteout is made");
        fs::remove_dir_all(inner.join("sub")).expect("a whiteout is made");
        // All that is seen of it has to be of one branch of the outer one.
        for path in kernel_names(&inner) {
            let path = OsString::from_vec([inner.as_os_str().as_bytes(), &path].concat());
            lchown(path, None, Some(GROUP + 1)).expect("root may");
        }
        let upper = place.layer("up", 0, &["every"]);
        let (work, outer) = (place.dir("work"), place.dir("outer"));
        mount_old(&options(Some((&upper, &work)), &[&inner]), &outer);
        assert_directories(&branches(&outer), &[upper.clone(), inner.clone()]);
        agrees(&outer, &outer, "");
        for path in ["/every", "/only_1", "/only_2", "/sub", "/sub/every"] {
            let _ = assert_as_kernel(&outer, path);
        }
        assert_eq!(all_branches().len(), 2);
    });
}

#[apply(test)]
fn escaped_marks_of_a_nested_union() {
    privately(|place| {
        // FACTS-engines 53: what is set through an overlay is stored escaped, and only a
        // union over that overlay takes it for a mark.
        let inner = place.plain("inner", 1);
        let opaque = inner.join("sub");
        lsetxattr(&opaque, "trusted.overlay.opaque", b"y", XattrFlags::empty())
            .expect("it is stored escaped");
        let lower = place.layer("low", 1, &["sub/below", "below"]);
        for path in kernel_names(&inner) {
            let path = OsString::from_vec([inner.as_os_str().as_bytes(), &path].concat());
            lchown(path, None, Some(GROUP)).expect("root may");
        }
        let outer = place.dir("outer");
        mount_old(&options(None, &[inner.clone(), lower]), &outer);
        assert_eq!(assert_as_kernel(&outer, "/sub/below"), Err(Errno::NOENT));
        assert_eq!(state(&outer, "/sub/below").0, "deleted");
        assert!(assert_as_kernel(&outer, "/below").is_ok());
        agrees(&outer, &outer, "");
        // To the inner one itself it is no mark.
        assert!(assert_as_kernel(&inner, "/sub/only_1").is_ok());
    });
}

/// Of what cannot be read any more it may be said that it cannot; a wrong answer is none.
#[track_caller]
fn is_right_or_refused(output: &Output, is_right: impl FnOnce(&[Value]) -> bool) {
    let is_refused = output.status == Some(2) && !output.stderr.is_empty();
    assert!(is_refused || is_right(&output.rows()), "{}", output.text());
}

fn tmpfs(point: &Path) {
    let none = None::<&std::ffi::CStr>;
    rustix::mount::mount("none", point, "tmpfs", MountFlags::empty(), none).expect("a tmpfs");
}

#[apply(test)]
fn a_union_over_its_own_lower_directory() {
    privately(|place| {
        // As systemd-sysext does with /usr, and others with /etc.
        let lower = place.layer("etc", 1, &["every", "only_1"]);
        let upper = place.layer("up", 0, &["every", "only_0"]);
        let work = place.dir("work");
        mount_old(&options(Some((&upper, &work)), &[&lower]), &lower);
        is_right_or_refused(&jsonl([OsStr::new("changes"), lower.as_os_str()]), |rows| {
            texts(rows, "path") == ["/every", "/only_0"]
        });
        is_right_or_refused(&which(&lower.join("only_0")), |rows| {
            rows[0]["versions"].as_array().map(Vec::len) == Some(1)
        });
        is_right_or_refused(&which(&lower.join("every")), |rows| {
            rows[0]["versions"][1]["size"] == "every+".len()
        });
    });
}

#[apply(test)]
fn what_is_mounted_over_a_branch_is_not_the_branch() {
    privately(|place| {
        let merged = place.plain("one", 1);
        tmpfs(&place.at("one/low1"));
        assert!(merged.join("only_1").exists());
        is_right_or_refused(&which(&merged.join("only_1")), |rows| {
            rows[0]["state"] == "present"
        });
    });
}

#[apply(test)]
fn what_is_mounted_in_a_branch_is_not_the_unions() {
    privately(|place| {
        // As with lowerdir=/, where everything else is mounted.
        let (options, merged) = place.unmounted("one", 1);
        let covered = place.at("one/low1/sub");
        tmpfs(&covered);
        fs::write(covered.join("foreign"), "").expect("a new file");
        mount_old(&options, &merged);
        let names = kernel_names(&merged);
        assert!(names.contains(&b"/sub/only_1".to_vec()));
        let arguments = [OsStr::new("ls"), OsStr::new("-R"), merged.as_os_str()];
        is_right_or_refused(&jsonl(arguments), |rows| {
            names.iter().eq(&rows
                .iter()
                .map(|row| bytes(&row["path"]))
                .collect::<Vec<_>>())
        });
        is_right_or_refused(&which(&merged.join("sub/foreign")), |rows| {
            rows[0]["state"] == "missing"
        });
    });
}

#[apply(test)]
fn a_bind_mount_of_a_removed_directory() {
    privately(|place| {
        let merged = place.plain("one", 1);
        let part = place.dir("part");
        mount_bind(merged.join("sub"), &part).expect("a mount");
        fs::remove_dir_all(merged.join("sub")).expect("a mount is no reason to keep it");
        // As the mount table has it: `/sub//deleted`.
        fs::create_dir_all(merged.join("sub/deleted")).expect("a new directory");
        fs::write(merged.join("sub/deleted/f"), "").expect("a new file");
        assert!(!part.join("f").exists());
        let answer = which(&part.join("f"));
        is_right_or_refused(&answer, |rows| {
            rows.iter().all(|row| row["state"] != "present")
        });
        assert_eq!(all_branches().len(), 1);
    });
}

// ---- other mount namespaces ----

#[apply(test)]
fn a_union_of_another_namespace_has_its_process() {
    privately(|place| {
        let (options, merged) = place.unmounted("there", 2);
        let here = place.plain("here", 1);
        let script = r#"mount -t overlay overlay -o "$1" "$2"; echo ready; exec sleep 600"#;
        let options = OsString::from_vec(options);
        let there = Process::unshared(script, &[&*options, merged.as_os_str()]);
        assert!(!merged.join("every").exists(), "it is not mounted here");

        let rows = all_branches();
        assert_eq!(texts(&rows, "state"), ["mounted", "elsewhere"]);
        let row = &rows[1];
        let expected = ["up", "low1", "low2"].map(|name| place.at(format!("there/{name}")));
        assert_directories(row, &expected);
        assert_eq!(row["partial"][0]["process"].to_string(), there.id());
        assert_eq!(row["partial"][0]["root"], "/");
        // Its mount point means nothing here, but its branches are what they are.
        let path = merged.join("every");
        for row in which(&path).rows() {
            assert_ne!(row["state"], "present", "{row}");
        }
        // A path of no union is asked of every one.
        let rows = jsonl(["which", "/only_2"]).exits(0).rows();
        assert_eq!(texts(&rows, "state"), ["missing", "present"]);
        let kernel = there.root().join(path.strip_prefix("/").expect("absolute"));
        assert!(kernel.exists());
        let rows = jsonl(["changes"]).exits(0).rows();
        assert!(rows.iter().any(|row| row["path"] == "/only_0"), "{rows:?}");
        // The process itself has no union as its root.
        for arguments in [
            vec!["branches"],
            vec!["ls", "-R"],
            vec!["changes"],
            vec!["which"],
        ] {
            let target = match arguments[0] {
                "which" => format!("{}:/every", there.id()),
                _ => there.id(),
            };
            jsonl(arguments.iter().copied().chain([target.as_str()]))
                .exits(2)
                .says("no union as its root");
        }
        // It is gone with its process.
        drop(there);
        assert_eq!(all_branches().len(), 1);
        agrees(&here, &here, "");
    });
}

#[apply(test)]
fn a_namespace_of_many_processes_is_one() {
    privately(|place| {
        let (options, merged) = place.unmounted("there", 1);
        let script = r#"mount -t overlay overlay -o "$1" "$2"; mount --bind "$2/sub" "$3"
                sleep 600 & sleep 600 & echo ready; exec sleep 600"#;
        let part = place.dir("part");
        let options = OsString::from_vec(options);
        let arguments = [&*options, merged.as_os_str(), part.as_os_str()];
        let there = Process::unshared(script, &arguments);
        let rows = all_branches();
        assert_eq!(rows.len(), 1);
        let partial = rows[0]["partial"].as_array().expect("partial mounts");
        assert_eq!(texts(partial, "root"), ["/", "/sub"]);
        for mount in partial {
            assert_eq!(mount["process"].to_string(), there.id());
        }
    });
}

#[apply(test)]
fn another_namespaces_directories_are_not_ours() {
    privately(|place| {
        // Ours have the same names, and say something else.
        let hidden = place.dir("hidden");
        place.layer("hidden/low", 1, &["wrong"]);
        place.layer("hidden/up", 0, &["wrong"]);
        let script = r#"mount -t tmpfs none "$1"; cd "$1"; mkdir low up work merged
                echo x > low/right; chgrp 1001 low/right
                mount -t overlay overlay -o "lowerdir=$1/low,upperdir=$1/up,workdir=$1/work" merged
                echo ready; exec sleep 600"#;
        let there = Process::unshared(script, &[&hidden]);
        let inside = hidden.strip_prefix("/").expect("absolute").join("merged");
        let names = kernel_names(&there.root().join(inside));
        assert_eq!(names, [b"/right"]);
        assert_eq!(all_branches().len(), 1);
        // Either it is read where it is, or it is said that it cannot be.
        let output = jsonl(["which", "/wrong", "/right"]);
        let states: Vec<String> = output
            .rows()
            .iter()
            .map(|row| text(row, "state").to_owned())
            .collect();
        let is_right = states == ["missing", "present"];
        assert!(is_right || output.status == Some(2), "{states:?}");
    });
}

// ---- processes ----

/// A process whose root is a union, by `pivot_root`. The root has to hold a directory `old`.
fn pivoted(options: &[u8], merged: &Path) -> Process {
    let script = r#"mount -t overlay overlay -o "$1" "$2"; cd "$2"
        for of in bin lib lib64 usr proc; do [ ! -d /$of ] || mount --bind /$of $of; done
        pivot_root . old; umount -l /old; echo ready; exec sleep 600"#;
    let options = OsString::from_vec(options.to_vec());
    Process::unshared(script, &[&*options, merged.as_os_str()])
}

/// Mount points for the programs of a root.
const MOUNT_POINTS: [&str; 6] = ["bin/", "lib/", "lib64/", "usr/", "proc/", "old/"];

#[apply(test)]
fn a_process_is_a_target_if_its_root_is_a_union() {
    privately(|place| {
        // FACTS-engines 59
        let lower = place.layer("low", 1, &["every", "gone", "etc/changed", "etc/same"]);
        place.layer("low", 1, &MOUNT_POINTS);
        let upper = place.layer("up", 0, &["every", "etc/changed", "new"]);
        whiteout(&upper.join("gone"));
        let (work, merged) = (place.dir("work"), place.dir("merged"));
        let options = options(Some((&upper, &work)), &[&lower]);
        let process = pivoted(&options, &merged);
        let id = process.id();
        let row = branches(&id);
        assert_directories(&row, &[upper, lower]);
        assert_eq!(row["state"], "elsewhere");
        assert_eq!(bytes(&row["mounts"][0]), b"/");
        assert_eq!(row["partial"][0]["process"].to_string(), id);

        for path in ["every", "gone", "etc/changed", "etc/same", "new", "nowhere"] {
            let row = jsonl(["which".to_owned(), format!("{id}:/{path}")]).row();
            match fs::symlink_metadata(process.root().join(path)) {
                Ok(kernel) => {
                    assert_eq!(row["branch"], u64::from(kernel.gid() - GROUP), "{row}");
                }
                Err(_) => assert!(row["branch"].is_null(), "{row}"),
            }
        }
        let listed = jsonl(["ls", "-R", &id]).exits(0).rows();
        let listed: Vec<&str> = texts(&listed, "path");
        // Beside what is mounted there from elsewhere.
        let is_the_unions = |path: &Vec<u8>| {
            !MOUNT_POINTS
                .iter()
                .any(|point| path.starts_with(format!("/{point}").as_bytes()))
        };
        let kernel = top_of(&process.root(), &is_the_unions);
        assert_eq!(listed, kernel);
        let changes = layerctl(["changes", &id]).exits(0);
        assert_eq!(
            changes.text(),
            "C /etc\nC /etc/changed\nC /every\nD /gone\nA /new\n"
        );
        let rows = all_branches();
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0]["state"], "elsewhere");
        // This process has another root, and so has one that is not there.
        let own = std::process::id().to_string();
        jsonl(["branches", &own])
            .exits(2)
            .says("no union as its root");
        drop(process);
        jsonl(["branches", &id]).exits(2).says("No such container");
    });
}

/// The names below a directory that are of the union itself.
fn top_of(root: &Path, is_wanted: &dyn Fn(&Vec<u8>) -> bool) -> Vec<String> {
    let mut names = Vec::new();
    let mut left = vec![String::new()];
    while let Some(above) = left.pop() {
        for entry in fs::read_dir(root.join(above.trim_start_matches('/'))).expect("a directory") {
            let name = entry.expect("a name").file_name();
            let path = format!("{above}/{}", name.to_string_lossy());
            let stat = fs::symlink_metadata(root.join(&path[1..])).expect("an entry");
            let is_mounted = !is_wanted(&format!("{path}/").into_bytes());
            if stat.is_dir() && !is_mounted {
                left.push(path.clone());
            }
            names.push(path);
        }
    }
    names.sort();
    names
}

#[apply(test)]
fn a_process_sees_the_part_that_its_root_is() {
    privately(|place| {
        let (options, merged) = place.unmounted("there", 1);
        for point in MOUNT_POINTS {
            place.layer("there/low1/sub", 1, &[point]);
        }
        let script = r#"mount -t overlay overlay -o "$1" "$2"; mount --bind "$2/sub" "$2"; cd "$2"
            for of in bin lib lib64 usr proc; do [ ! -d /$of ] || mount --bind /$of $of; done
            pivot_root . old; umount -l /old; echo ready; exec sleep 600"#;
        let options = OsString::from_vec(options);
        let process = Process::unshared(script, &[&*options, merged.as_os_str()]);
        let id = process.id();
        let kernel = fs::symlink_metadata(process.root().join("only_1")).expect("it is its root");
        assert_eq!(kernel.gid(), GROUP + 1);
        let listed = jsonl(["ls", &id]).exits(0).rows();
        let listed = texts(&listed, "path");
        assert!(listed.contains(&"/sub/only_1"), "{listed:?}");
        assert!(!listed.contains(&"/only_1"), "{listed:?}");
        // A path of the process is one as the process has it.
        let row = jsonl(["which".to_owned(), format!("{id}:/only_1")])
            .exits(0)
            .row();
        assert_eq!(text(&row, "path"), "/sub/only_1");
        assert_eq!(row["branch"], 1);
    });
}

#[apply(test)]
fn a_process_in_a_union_of_our_own_namespace() {
    privately(|place| {
        let lower = place.layer("low", 1, &["every", "only_1", "sub/only_1"]);
        for root in ["", "sub/"] {
            let points: Vec<String> = MOUNT_POINTS
                .iter()
                .map(|point| format!("{root}{point}"))
                .collect();
            let points: Vec<&str> = points.iter().map(String::as_str).collect();
            place.layer("low", 1, &points);
        }
        let upper = place.layer("up", 0, &["every"]);
        let (work, merged) = (place.dir("work"), place.dir("merged"));
        mount_old(&options(Some((&upper, &work)), &[&lower]), &merged);
        let chrooted = |root: &Path| {
            for of in ["bin", "lib", "lib64", "usr"] {
                if !Path::new("/").join(of).exists() {
                    continue;
                }
                mount_bind(Path::new("/").join(of), root.join(of)).expect("a mount");
            }
            let mut command = Command::new("chroot");
            command
                .arg(root)
                .args(["sh", "-c", "echo ready; exec sleep 600"]);
            Process::started(&mut command)
        };
        let whole = chrooted(&merged);
        let row = branches(whole.id());
        assert_directories(&row, &[upper, lower]);
        assert_eq!(row["state"], "mounted");
        for path in [
            format!("{}:/only_1", whole.id()),
            format!("/proc/{}/root/only_1", whole.id()),
        ] {
            let row = jsonl(["which".to_owned(), path]).exits(0).row();
            assert_eq!(
                (&row["branch"], &row["path"]),
                (&1.into(), &"/only_1".into())
            );
        }

        // A root that is no mount point is not in the process's own table.
        let part = chrooted(&merged.join("sub"));
        assert!(part.root().join("only_1").exists());
        assert!(!part.root().join("every").exists());
        for path in ["only_1", "every"] {
            let output = jsonl(["which".to_owned(), format!("{}:/{path}", part.id())]);
            if output.status == Some(2) {
                assert!(!output.stderr.is_empty());
                continue;
            }
            let is_there = part.root().join(path).exists();
            assert_eq!(
                output.status == Some(0),
                is_there,
                "{path}: {}",
                output.text()
            );
        }
    });
}

#[apply(test)]
fn in_a_container_its_branches_are_out_of_reach() {
    privately(|place| {
        let (options, merged) = place.unmounted("there", 1);
        place.layer("there/low1", 1, &MOUNT_POINTS);
        place.layer("there/low1", 1, &["layerctl"]);
        let script = r#"mount -t overlay overlay -o "$1" "$2"; mount --bind "$3" "$2/layerctl"
            cd "$2"; for of in bin lib lib64 usr proc; do [ ! -d /$of ] || mount --bind /$of $of; done
            pivot_root . old; umount -l /old; exec /layerctl which /every"#;
        let output = Command::new("unshare")
            .args([
                "--mount",
                "--propagation",
                "private",
                "sh",
                "-ec",
                script,
                "sh",
            ])
            .arg(OsStr::from_bytes(&options))
            .args([
                merged.as_os_str(),
                OsStr::new(env!("CARGO_BIN_EXE_layerctl")),
            ])
            .output()
            .expect("unshare ran before");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains("branch 0"), "{said}");
    });
}

#[apply(test)]
fn a_process_that_has_ended_is_refused() {
    privately(|place| {
        let merged = place.plain("one", 1);
        // Its parent has not asked how it ended: it has no mounts any more.
        let mut ended = Command::new("true").spawn().expect("it is there");
        let status = format!("/proc/{}/stat", ended.id());
        while !fs::read_to_string(&status)
            .expect("it is ours")
            .contains(") Z ")
        {
            std::thread::yield_now();
        }
        for verb in ["branches", "ls", "changes"] {
            let output = jsonl([verb.to_owned(), ended.id().to_string()]);
            assert!(output.exits(2).stdout.is_empty());
        }
        agrees(&merged, &merged, "");
        assert_eq!(all_branches().len(), 1);
        ended.wait().expect("it is ours");
    });
}

// ---- fuse-overlayfs ----

fn start_fuse_overlayfs(directory: &Path, options: &str, point: &str) {
    let output = Command::new("fuse-overlayfs")
        .current_dir(directory)
        .args(["-o", options, point])
        .output()
        .expect("it is there");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{options}: {said}");
}

/// Two lower directories, and as many upper ones as there are mounts.
fn fuse_layers(place: &Place) -> Vec<PathBuf> {
    for path in ["work", "merged", "work2", "merged2", "merged3"] {
        place.dir(path);
    }
    let layer =
        |path: &str, branch: u32| place.layer(path, branch, &["every", &format!("only_{branch}")]);
    let layers = [("up", 0), ("up2", 0), ("low", 1), ("with blank", 2)];
    layers.map(|(path, branch)| layer(path, branch)).into()
}

#[apply(test)]
fn fuse_overlayfs_is_asked_for_its_command_line() {
    needs::program("fuse-overlayfs", "-V");
    privately(|place| {
        let layers = fuse_layers(place);
        let root = place.root.display();
        for (point, options, expected) in [
            (
                "merged",
                format!(
                    "lowerdir={root}/low:{root}/with blank,upperdir={root}/up,workdir={root}/work"
                ),
                vec![&layers[0], &layers[2], &layers[3]],
            ),
            (
                "merged2",
                "lowerdir=low:with blank,upperdir=up2,workdir=work2".into(),
                vec![&layers[1], &layers[2], &layers[3]],
            ),
            ("merged3", "lowerdir=low".into(), vec![&layers[2]]),
        ] {
            let merged = place.at(point);
            start_fuse_overlayfs(&place.root, &options, &format!("{root}/{point}"));
            let row = branches(&merged);
            let expected: Vec<PathBuf> = expected.into_iter().cloned().collect();
            assert_same_directories(&row, &expected);
            let is_writable = row["branches"][0]["permission"] == "rw";
            assert_eq!(is_writable, options.contains("upperdir"), "{row}");
            if is_writable {
                assert_eq!(agrees(&merged, &merged, ""), 4);
            }
        }
        assert_eq!(all_branches().len(), 3);
    });
}

#[apply(test)]
fn fuse_overlayfs_is_found_by_a_relative_mount_point() {
    needs::program("fuse-overlayfs", "-V");
    privately(|place| {
        let layers = fuse_layers(place);
        for (point, upper, work) in [("merged", "up", "work"), ("./merged2", "up2", "work2")] {
            let options = format!("lowerdir=low:with blank,upperdir={upper},workdir={work}");
            start_fuse_overlayfs(&place.root, &options, point);
            let merged = place.at(point.trim_start_matches("./"));
            let expected = [place.at(upper), layers[2].clone(), layers[3].clone()];
            assert_same_directories(&branches(&merged), &expected);
            assert_eq!(agrees(&merged, &merged, ""), 4);
        }
    });
}

/// A log or a lock that it has from whoever started it is open as well.
#[apply(test)]
fn what_fuse_overlayfs_was_started_with_is_no_branch() {
    needs::program("fuse-overlayfs", "-V");
    privately(|place| {
        let layers = fuse_layers(place);
        fs::write(place.at("lock"), "").expect("our own");
        let options = "lowerdir=low:with blank,upperdir=up,workdir=work";
        let started = Command::new("sh")
            .current_dir(&place.root)
            .args([
                "-c",
                r#"exec 3<lock fuse-overlayfs -o "$0" merged"#,
                options,
            ])
            .status();
        assert!(started.expect("a shell").success());
        let expected = [layers[0].clone(), layers[2].clone(), layers[3].clone()];
        assert_same_directories(&branches(place.at("merged")), &expected);
    });
}

// ---- ghosts ----

#[apply(test)]
fn ghosts_are_listed_and_not_there() {
    privately(|place| {
        // FACTS-engines 52, 54
        let lower = place.layer(
            "low",
            2,
            &[
                "both/low",
                "below/file",
                "marked/zero",
                "plain/zero",
                "deep/er/x",
                "gone",
            ],
        );
        let middle = place.layer("mid", 1, &["middle/file", "both/mid", "marked2/file"]);
        let upper = place.layer("up", 0, &["alone/file", "both/up", "alone/in/file"]);
        for path in [
            upper.join("alone/shade"),
            upper.join("alone/in/shade"),
            upper.join("both/low"),
            upper.join("gone"),
            upper.join("never"),
            middle.join("middle/shade"),
            middle.join("both/nothing"),
            lower.join("below/shade"),
            lower.join("deep/er/shade"),
            lower.join("at_the_bottom"),
        ] {
            whiteout(&path);
        }
        // By attribute, with and without the word of the directory.
        for (directory, is_told) in [("marked", true), ("plain", false)] {
            let at = lower.join(directory);
            let file = at.join("by_attribute");
            fs::write(&file, "").expect("a new file");
            attribute(&file, "trusted.overlay.whiteout", b"y");
            if is_told {
                attribute(&at, "trusted.overlay.opaque", b"x");
            }
        }
        let lowers = [middle, lower];
        let work = place.dir("work");
        for (point, options) in [
            ("writable", options(Some((&upper, &work)), &lowers)),
            ("bottom", options(None, &lowers)),
        ] {
            let merged = place.dir(point);
            mount_old(&options, &merged);
            let mut ghosts: Vec<String> = kernel(&merged)
                .into_iter()
                .filter(|(_, stat)| stat.as_ref().is_err_and(|errno| *errno == Errno::NOENT))
                .map(|(path, _)| String::from_utf8(path).expect("plain names"))
                .collect();
            ghosts.sort();
            assert!(ghosts.len() >= 3, "{ghosts:?}");
            let listing = |more: &[&str]| {
                let arguments = ["ls", "-R"].iter().chain(more).map(OsStr::new);
                let rows = jsonl(arguments.chain([merged.as_os_str()])).exits(0).rows();
                let mut refused: Vec<String> = rows
                    .iter()
                    .filter(|row| row["error"] == "ENOENT")
                    .map(|row| text(row, "path").to_owned())
                    .collect();
                refused.sort();
                (rows.len(), refused)
            };
            let (all, shown) = listing(&["-v"]);
            assert_eq!(shown, ghosts, "{point}");
            let (visible, shown) = listing(&[]);
            assert!(shown.is_empty(), "{shown:?}");
            assert_eq!(all, visible + ghosts.len());
            assert_eq!(visible, kernel_names(&merged).len());
            for ghost in &ghosts {
                assert_eq!(state(&merged, ghost).1.as_deref(), Some("ENOENT"));
            }
            // Said to a person for what they are.
            let words = ["ls", "-R", "-v"].map(OsStr::new).into_iter();
            let table = layerctl(words.chain([merged.as_os_str()])).exits(0);
            assert_eq!(table.text().matches("ghost").count(), ghosts.len());
        }
    });
}

/// Where a directory says that it has whiteouts by attribute the kernel looks at files before it lists
/// them, but not in the upper branch, nor in the lowest (docs/facts.md#engines-52).
#[apply(test)]
fn files_that_are_refused_are_listed_where_the_kernel_does_not_look() {
    privately(|place| {
        let mut branches = Vec::new();
        for (branch, name) in ["up", "told", "untold", "low"].into_iter().enumerate() {
            let number = u32::try_from(branch).expect("few");
            let file = format!("d/{name}");
            let at = place.layer(name, number, &[&file, &format!("d/whole_{name}")]);
            // No branch has its content.
            attribute(&at.join(file), "trusted.overlay.metacopy", b"");
            if name != "untold" {
                attribute(&at.join("d"), "trusted.overlay.opaque", b"x");
            }
            branches.push(at);
        }
        let work = place.dir("work");
        let (upper, lowers) = branches.split_first().expect("four");
        for (point, stack) in [
            ("writable", options(Some((upper, &work)), lowers)),
            ("bottom", options(None, lowers)),
        ] {
            let merged = place.dir(point);
            mount_old(&[&stack[..], b",metacopy=on"].concat(), &merged);
            let d = merged.join("d");
            let seen = kernel(&d);
            let refused = |name: &str| seen.get(format!("/{name}").as_bytes()).map(Result::is_err);
            // Else nothing would be proved.
            assert_eq!(refused("untold"), Some(true));
            assert_eq!(refused("low"), Some(true));
            let rows = jsonl([OsStr::new("ls"), d.as_os_str()]).rows();
            let listed: Vec<Vec<u8>> = rows
                .iter()
                .map(|row| bytes(&row["path"])[b"/d".len()..].to_vec())
                .collect();
            let names: Vec<Vec<u8>> = seen.into_keys().collect();
            assert_eq!(listed, names, "{point}");
        }
    });
}

/// A redirect that leads through a directory which is opaque, and is redirected in it once more.
#[apply(test)]
fn a_redirect_leads_through_an_opaque_directory() {
    privately(|place| {
        let low = place.layer("low", 2, &["c/of_path", "a/c/of_name", "a/b/of_b"]);
        let mid = place.layer("mid", 1, &["a/b/mid", "a/b2/mid"]);
        let up = place.layer("up", 0, &["x/", "x2/"]);
        attribute(&mid.join("a"), "trusted.overlay.opaque", b"y");
        for (at, redirect) in [
            (up.join("x"), "/a/b"),
            (mid.join("a/b"), "/c"),
            (up.join("x2"), "/a/b2"),
            (mid.join("a/b2"), "c"),
        ] {
            attribute(&at, "trusted.overlay.redirect", redirect.as_bytes());
        }
        let merged = place.dir("merged");
        let stack = options(None, &[up, mid, low]);
        mount_old(&[&stack[..], b",redirect_dir=follow"].concat(), &merged);
        agrees(&merged, &merged, "");
        // Else nothing would be proved.
        assert!(merged.join("x/of_path").exists());
        assert!(!merged.join("x2/of_name").exists());
    });
}

// ---- tables of copied hosts ----

/// An overlay's line of `mountinfo`. Its marks are some that everybody is told of.
fn line(device: u32, point: &str, options: &str) -> Vec<u8> {
    format!(
        "{device} 1 0:{device} / {point} rw,relatime - overlay overlay rw,userxattr,{options}\n"
    )
    .into()
}

#[apply(test)]
fn hostile_lines_of_the_mount_table_spoil_no_others() {
    needs::time();
    let host = Host::empty();
    host.file("/low/f", "").file("/up/g", "");
    let good = "lowerdir=/low,upperdir=/up,workdir=/work";
    let truncated: [&[u8]; 12] = [
        b"\n\n",
        b"-\n",
        b"50\n",
        b"51 1 0:51\n",
        b"52 1 0:52 / /m52 rw - overlay\n",
        b"53 1 0:53 / /m53 rw overlay overlay rw\n",
        b"x y z:z / /m54 rw - \xff\xff none rw\n",
        b"55 1 0:55 / /m55 rw - tmpfs none\n",
        b"99999999999999999999 1 0:56 / /m56 rw - tmpfs none rw\n",
        b"57 1 : / /m57 rw - tmpfs none rw\n",
        b"58 58 0:58 / /m58 rw - tmpfs none rw\n",
        b"\0\0\0 - - - - -\n",
    ];
    let mut table = truncated.concat();
    table.extend(line(60, "/good", good));
    // A line without its end, of 10 MB.
    table.extend(line(
        61,
        "/huge",
        &format!("lowerdir={}", "x".repeat(10 << 20)),
    ));
    table.extend_from_slice(b"62 1 0:62 / /m62 rw - tmpfs ");
    host.file("/proc/self/mountinfo", &table);
    assert_eq!(host.branches_of("/good"), [&b"/up"[..], b"/low"]);
    let rows = host.jsonl(["ls", "-R", "/good"]).exits(0).rows();
    assert_eq!(texts(&rows, "path"), ["/f", "/g"]);
    let rows = host.jsonl(["branches"]).exits(0).rows();
    let unions: Vec<&str> = texts(&rows, "target");
    assert_eq!(unions, ["/good", "/huge"]);
    // Its directory is none, which is said where it is asked for.
    host.jsonl(["ls", "/huge"]).exits(2).says("branch 0");
}

#[apply(test)]
fn options_that_tell_no_branches_are_said_to() {
    for options in [
        "lowerdir=",
        "",
        "lowerdir=:",
        "upperdir=/up",
        "lowerdir=/low,redirect_dir=?",
    ] {
        let host = Host::empty();
        host.file("/low/f", "").file("/up/g", "");
        host.file("/proc/self/mountinfo", line(60, "/m", options));
        host.jsonl(["branches"]).exits(2).says("does not tell");
        host.jsonl(["ls", "/m"]).exits(2).says("does not tell");
        let row = host.jsonl(["which", "/m/f"]).exits(2).says("does not tell");
        assert_eq!(row.row()["uncertain"], true, "{options}");
    }
}

#[apply(test)]
fn escapes_that_are_none_are_what_they_are() {
    let host = Host::empty();
    for (number, (options, directory)) in [
        (r"lowerdir=/a\04", r"/a04"),
        (r"lowerdir=/a\999", "/a999"),
        (r"lowerdir=/a\134", r"/a\"),
        (r"lowerdir=/a\134\072b", "/a:b"),
        (r"lowerdir=/a\134\054b", "/a,b"),
        (r"lowerdir=/a\054b", "/a,b"),
        (r"lowerdir=/a\134\134b", r"/a\b"),
        (r"lowerdir=/a\134\134072b", r"/a\072b"),
        (r"lowerdir+=/a\134\072b", r"/a\:b"),
        (r"lowerdir+=/a:b", "/a:b"),
        (r"lowerdir+=/a\040b\011\012", "/a b\t\n"),
    ]
    .into_iter()
    .enumerate()
    {
        let device = u32::try_from(number).expect("few") + 60;
        let point = format!("/m{number}");
        host.dir(directory);
        let mut table = fs::read(host.at("/proc/self/mountinfo")).unwrap_or_default();
        table.extend(line(device, &point, options));
        host.file("/proc/self/mountinfo", table);
        let shown = host.branches_of(&point);
        assert_eq!(shown, [directory.as_bytes()], "{options}");
    }
}

#[apply(test)]
fn proc_mounts_alone_tells_overlays() {
    let host = Host::empty();
    let options = r"rw,userxattr,lowerdir=/low:/a\134:b,upperdir=/up,workdir=/work";
    host.file(
        "/proc/mounts",
        format!(
            "/dev/a / ext4 rw 0 0\n\
             overlay /m\\040n overlay {options} 0 0\n\
             overlay /again overlay {options} 0 0\n\
             overlay /other overlay rw,userxattr,lowerdir=/low 0 0\n\
             broken\n\
             overlay /cut overlay\n"
        ),
    );
    host.file("/low/f", "").file("/a:b/g", "").dir("/up");
    let rows = host.jsonl(["branches"]).exits(0).rows();
    assert_eq!(rows.len(), 2, "{rows:?}");
    assert_eq!(directories(&rows[0]), [&b"/up"[..], b"/low", b"/a:b"]);
    assert_eq!(rows[0]["mounts"], Value::from(vec!["/m n", "/again"]));
    assert_eq!(directories(&rows[1]), [b"/low"]);
    let rows = host.jsonl(["ls", "/m n"]).exits(0).rows();
    assert_eq!(texts(&rows, "path"), ["/f", "/g"]);
    let row = host.jsonl(["which", "/other/f"]).exits(0).row();
    assert_eq!(row["branch"], 0);
}

#[apply(test)]
fn captured_processes_tell_of_their_mount_namespaces() {
    let host = Host::empty();
    let (ours, other, third) = ("mnt:[4026531841]", "mnt:[4026532000]", "mnt:[4026532001]");
    let container = line(70, "/", "lowerdir=/low,upperdir=/up,workdir=/work");
    host.file("/proc/self/mountinfo", line(60, "/here", "lowerdir=/low"))
        .link("/proc/self/ns_mnt", ours);
    for (id, namespace, table) in [
        ("1", ours, line(60, "/here", "lowerdir=/low")),
        ("20", other, container.clone()),
        ("21", other, container),
        ("30", third, line(80, "/elsewhere", "lowerdir=/up:/low")),
    ] {
        host.file(format!("/proc/{id}/mountinfo"), table)
            .link(format!("/proc/{id}/ns_mnt"), namespace);
    }
    // One that ended while it was copied, one that is not to be read, and what is no process.
    host.dir("/proc/40").dir("/proc/41/mountinfo");
    host.file("/proc/x20/mountinfo", line(90, "/no", "lowerdir=/low"));
    host.file("/low/f", "").file("/up/g", "");

    let rows = host.jsonl(["branches"]).exits(0).rows();
    assert_eq!(texts(&rows, "state"), ["mounted", "elsewhere", "elsewhere"]);
    let process = |row: &Value| row["partial"][0]["process"].clone();
    assert_eq!(process(&rows[1]), 20, "the first of its namespace");
    assert_eq!(process(&rows[2]), 30);
    for id in ["20", "21"] {
        assert_eq!(host.branches_of(id), [&b"/up"[..], b"/low"]);
        let row = host
            .jsonl(["which".into(), format!("{id}:/f")])
            .exits(0)
            .row();
        assert_eq!(row["branch"], 1);
        assert_eq!(host.ask(["changes", id]).exits(0).text(), "A /g\n");
    }
    for id in ["1", "30"] {
        host.ask(["branches", id]).exits(2);
        host.ask(["ls", id]).exits(2);
    }
    for id in ["40", "41"] {
        host.ask(["branches", id]).exits(2);
    }
    host.ask(["branches", "42"])
        .exits(2)
        .says("No such container");
}

#[apply(test)]
fn a_containers_prefix_that_is_a_process_too_is_ambiguous() {
    const CONTAINER: &str = "6e34f74c1961320c2ea57b073b34ae9ff15a217a7d9f7db46d9ad8cfa62c782f";
    let host = Host::copy_of("blog-host");
    let other = CONTAINER.replace("6e34f7", "123456");
    let config = host.read(format!(
        "/var/lib/docker/containers/{CONTAINER}/config.v2.json"
    ));
    let config = String::from_utf8(config)
        .expect("JSON")
        .replace(CONTAINER, &other)
        .replace("determined_sammet", "twin");
    host.file(
        format!("/var/lib/docker/containers/{other}/config.v2.json"),
        config,
    );
    host.file("/low/f", "").file("/up/g", "");
    host.file(
        "/proc/1234/mountinfo",
        line(70, "/", "lowerdir=/low,upperdir=/up,workdir=/work"),
    );
    for arguments in [
        ["branches", "1234"],
        ["which", "1234:/f"],
        ["ls", "1234"],
        ["changes", "1234"],
    ] {
        host.ask(arguments)
            .exits(2)
            .says("ambiguous")
            .says("twin")
            .says("pid:1234");
    }
    // One digit more is the container's alone; a process is no prefix of another.
    for prefix in ["123", "12345"] {
        host.ask(["branches", prefix]).exits(2).says(&other);
    }
    fs::remove_dir_all(host.at(format!("/var/lib/docker/containers/{other}"))).expect("ours");
    assert_eq!(host.branches_of("1234"), [&b"/up"[..], b"/low"]);
}
