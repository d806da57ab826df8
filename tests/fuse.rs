//! Random stacks of fuse-overlayfs, asked of layerctl and of the program itself.
//!
//! Every entry has an owner of its own, and a group that tells its branch, so that `lstat` on the
//! mount says which entry of which branch is shown. Paths are asked for first and directories are
//! listed last: one that was listed and closed is searched by other rules, in which a file in
//! between hides nothing.
//!
//! All of it runs again in mount and process namespaces of its own: whatever becomes of the test,
//! no mount and no server outlives it.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, XattrFlags};
use rustix::io::Errno;
use rustix::mount::UnmountFlags;
use serde_json::Value;

use crate::lab;
use crate::lab::run::{bytes, layerctl, text};
use crate::lab::{again, needs};

const RUNS: u8 = 10;
const STACKS_A_RUN: u32 = 30;
/// How many stacks are made small before they are shown.
const SHRUNK: usize = 3;
/// Set where the test runs in namespaces of its own.
const INSIDE: &str = "LAYERCTL_FUSE_INSIDE";
/// `lstat` says of an entry that its group is this and its branch.
const GROUP: u32 = 1000;

const COMMON: [&[u8]; 4] = [b"a", b"b", b"c", b"d"];
/// The longest are too long to be whiteouts' names behind `.wh.`, or to be at all.
const ODD: [&[u8]; 9] = [
    b"e f",
    b"g\\h",
    b"i\nj",
    b"k\xff",
    b".wh",
    b".opq",
    &[b'l'; 251],
    &[b'm'; 252],
    &[b'n'; 255],
];
/// Never there.
const HIDDEN: [&[u8]; 6] = [
    b".wh.a",
    b".wh.",
    b".wh..opq",
    b".wh..wh..opq",
    b".wh..wh.a",
    &[b'o'; 300],
];
const LINKS: [&[u8]; 12] = [
    b"b", b"d", b"./a", b"..", b"../a", b"../b/c", b"/", b"/a/b", b"/c/d", b"../../d", b"nowhere",
    b"b/",
];
const OPAQUE: [&str; 3] = [
    "trusted.overlay.opaque",
    "user.overlay.opaque",
    "user.fuseoverlayfs.opaque",
];
const VALUES: [&[u8]; 5] = [b"x", b"n", b"Y", b"yes", &[b'y'; 16]];
/// Marks that are of no name.
const META: [&[u8]; 5] = [
    b".wh..wh..opq",
    b".wh..wh..opq",
    b".wh..opq",
    b".wh.",
    b".wh...",
];
/// What means nothing here.
const NOISE: [(&str, &[u8]); 5] = [
    ("trusted.overlay.redirect", b"/a"),
    ("trusted.overlay.metacopy", b""),
    ("trusted.overlay.whiteout", b"y"),
    ("user.fuseoverlayfs.redirect", b"b"),
    ("user.overlay.whiteout", b"y"),
];

#[apply(test)]
fn what_stands_beside_its_whiteout_is_no_mark() {
    let home = tempfile::tempdir().expect("a temporary directory");
    for path in ["up/x", "up/.wh.x", "lo/x"] {
        let at = home.path().join(path);
        fs::create_dir_all(at.parent().expect("a directory")).expect("our own");
        fs::write(at, "").expect("our own");
    }
    let at = home.path().display();
    let target = format!("fuse-overlayfs:lowerdir={at}/lo,upperdir={at}/up");
    let rows = layerctl(["--format", "jsonl", "whiteouts", &target]).exits(0);
    assert_eq!(text(&rows.row(), "mark"), "/.wh.x");
}

#[apply(test)]
fn fuse_overlayfs_agrees() {
    needs::time();
    if std::env::var_os(INSIDE).is_some() {
        return inside();
    }
    needs::root("to mount");
    needs::program("fuse-overlayfs", "-V");
    let unshared = || {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private"]);
        command.args(["--pid", "--fork", "--kill-child"]);
        command
    };
    let probe = tempfile::tempdir().expect("a directory");
    for name in ["lower", "mount"] {
        fs::create_dir(probe.path().join(name)).expect("a new directory");
    }
    let mounted = unshared()
        .current_dir(probe.path())
        .args(["fuse-overlayfs", "-o", "lowerdir=lower", "mount"])
        .output();
    match mounted {
        Ok(output) if output.status.success() => {}
        Ok(output) => lab::skip(&String::from_utf8_lossy(&output.stderr)),
        Err(error) => lab::skip(&format!("unshare: {error}")),
    }
    again(unshared().env(INSIDE, "1"));
}

fn inside() {
    let place = tempfile::tempdir().expect("a directory");
    let tally = Tally::default();
    let runs: Vec<u8> = (0..RUNS).collect();
    let failed = AtomicUsize::new(0);
    lab::all_right(&runs, |&run| {
        let is_shrunk = failed.load(Ordering::Relaxed) < SHRUNK;
        let config = Config {
            cases: STACKS_A_RUN,
            failure_persistence: None,
            max_shrink_iters: if is_shrunk { 3000 } else { 0 },
            ..Config::default()
        };
        let here = place.path().join(run.to_string());
        let random = TestRng::from_seed(RngAlgorithm::ChaCha, &[run; 32]);
        let result = TestRunner::new_with_rng(config, random).run(&stacks(), |stack| {
            let differences = stack.differences(&here, &tally);
            prop_assert!(differences.is_empty(), "{}", differences.join("\n"));
            Ok(())
        });
        let result = result.map_err(|error| {
            failed.fetch_add(1, Ordering::Relaxed);
            error.to_string()
        });
        result.err().into_iter().collect()
    });
    let tally = tally.into_inner().expect("no worker panicked");
    let of = |what: &str| tally.get(what).copied().unwrap_or(0);
    assert!(
        of("compared") > usize::from(RUNS) * STACKS_A_RUN as usize * 9 / 10,
        "{tally:?}"
    );
    for answer in ["ENOENT", "ENOTDIR", "ELOOP", "ERANGE"] {
        assert!(of(answer) > 0, "never {answer}: {tally:?}");
    }
}

type Tally = Mutex<BTreeMap<String, usize>>;

fn count(tally: &Tally, what: &str) {
    let mut tally = tally.lock().expect("no worker panicked");
    *tally.entry(what.to_owned()).or_default() += 1;
}

#[derive(Debug, Clone)]
enum What {
    Directory,
    File(u64),
    Symlink(&'static [u8]),
    Fifo,
    Char(u32, u32),
    /// Of a directory that is made if nothing is there.
    Attribute(&'static str, &'static [u8]),
}

#[derive(Clone)]
struct Entry {
    branch: usize,
    /// Empty for the branch's own directory.
    path: Vec<u8>,
    what: What,
    mode: u32,
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} ", self.branch, shown(&self.path))?;
        match self.what {
            What::Symlink(target) => write!(f, "-> {}", target.escape_ascii()),
            What::Attribute(name, value) => write!(f, "{name}={}", value.escape_ascii()),
            ref what => write!(f, "{what:?} {:o}", self.mode),
        }
    }
}

#[derive(Debug, Clone)]
struct Stack {
    branches: usize,
    /// Branch 0 is writable.
    has_upper: bool,
    /// The branches have names that the options have to escape.
    is_escaped: bool,
    /// In the order in which they are made, their parents with them. What cannot be is left out.
    entries: Vec<Entry>,
    /// What is looked up as a path, beside every name.
    paths: Vec<String>,
}

fn stacks() -> impl Strategy<Value = Stack> {
    let entries = (2usize..6, vec(entries().no_shrink(), 0..120));
    let piece = prop_oneof![
        6 => select(&COMMON[..]).prop_map(|name| String::from_utf8_lossy(name).into_owned()),
        3 => Just("..".to_owned()),
        1 => Just(".".to_owned()),
    ];
    let path = (vec(piece, 1..6), prop_oneof![6 => Just(""), 1 => Just("/")])
        .prop_map(|(pieces, end)| format!("/{}{end}", pieces.join("/")));
    let flags = (prop::bool::weighted(0.6), prop::bool::weighted(0.2));
    (entries, flags, vec(path, 0..80)).prop_map(|((branches, entries), flags, paths)| Stack {
        branches,
        has_upper: flags.0,
        is_escaped: flags.1,
        entries,
        paths,
    })
}

fn entries() -> impl Strategy<Value = Entry> {
    let name = || prop_oneof![85 => select(&COMMON[..]), 15 => select(&ODD[..])].boxed();
    let parent = |range| vec(name(), range).prop_map(|names| names.join(&b'/'));
    let any = || {
        prop_oneof![
            8 => Just(What::Directory),
            6 => (0u64..99).prop_map(What::File),
            3 => select(&LINKS[..]).prop_map(What::Symlink),
            1 => Just(What::Fifo),
            3 => Just(What::Char(0, 0)),
            1 => select(&[(0, 3), (1, 0)][..]).prop_map(|(major, minor)| What::Char(major, minor)),
        ]
    };
    let beside = |mark: &'static [u8]| {
        (parent(0..3), name()).prop_map(move |(parent, name)| join(&parent, &[mark, name].concat()))
    };
    let value = prop_oneof![
        6 => Just(&b"y"[..]),
        4 => select(&VALUES[..]),
        1 => Just(&[b'y'; 17][..]),
    ];
    let opaque =
        (select(&OPAQUE[..]), value).prop_map(|(name, value)| What::Attribute(name, value));
    let noise = select(&NOISE[..]).prop_map(|(name, value)| What::Attribute(name, value));
    let inner = parent(1..4).boxed();
    let meta = (inner.clone(), select(&META[..])).prop_map(|(parent, name)| join(&parent, name));
    let top = select(&META[..]).prop_map(<[u8]>::to_vec);
    let what = prop_oneof![
        60 => (beside(b""), any()),
        10 => (beside(b".wh."), any()),
        2 => (beside(b".wh..wh."), any()),
        8 => (inner.clone(), opaque),
        4 => (inner, noise.clone()),
        2 => (beside(b""), noise),
        7 => (meta, any()),
        1 => (top, any()),
    ];
    let mode = select(&[0o644, 0o600, 0o755, 0o1777, 0o4711][..]);
    (0..5usize, what, mode).prop_map(|(branch, (path, what), mode)| Entry {
        branch,
        path,
        what,
        mode,
    })
}

impl Stack {
    fn branch(&self, here: &Path, index: usize) -> PathBuf {
        here.join(if self.is_escaped {
            format!("{index},\\054 x")
        } else {
            index.to_string()
        })
    }

    /// What both are given.
    fn options(&self, here: &Path) -> OsString {
        let spelled = |index| {
            let path = self.branch(here, index).into_os_string().into_vec();
            path.iter().fold(Vec::new(), |mut escaped, &byte| {
                if matches!(byte, b',' | b'\\') {
                    escaped.push(b'\\');
                }
                escaped.push(byte);
                escaped
            })
        };
        let lower: Vec<Vec<u8>> = (usize::from(self.has_upper)..self.branches)
            .map(spelled)
            .collect();
        let mut options = [b"lowerdir=", &lower.join(&b':')[..]].concat();
        if self.has_upper {
            let work = here.join("work").into_os_string().into_vec();
            options = [
                &options,
                &b",upperdir="[..],
                &spelled(0),
                b",workdir=",
                &work,
            ]
            .concat();
        }
        OsString::from_vec(options)
    }

    fn make(&self, here: &Path) -> io::Result<()> {
        let mut owner = 2000;
        let mut made = |path: &Path, branch: usize, mode: u32| {
            owner += 1;
            let group = GROUP + u32::try_from(branch).expect("few");
            lchown(path, Some(owner), Some(group))?;
            if path.is_symlink() {
                Ok(())
            } else {
                fs::set_permissions(path, fs::Permissions::from_mode(mode))
            }
        };
        for index in 0..self.branches {
            let root = self.branch(here, index);
            fs::create_dir_all(&root)?;
            made(&root, index, 0o755)?;
        }
        let entries = self
            .entries
            .iter()
            .filter(|entry| entry.branch < self.branches);
        'entries: for entry in entries {
            let mut path = self.branch(here, entry.branch);
            let mut names: Vec<&[u8]> = entry.path.split(|&byte| byte == b'/').collect();
            let last = names.pop().unwrap_or_default();
            for name in names {
                path.push(OsStr::from_bytes(name));
                match fs::create_dir(&path) {
                    Ok(()) => made(&path, entry.branch, 0o755)?,
                    Err(_) if path.is_dir() && !path.is_symlink() => {}
                    Err(_) => continue 'entries,
                }
            }
            path.push(OsStr::from_bytes(last));
            let node = |kind, device| {
                let mode = Mode::RUSR;
                rustix::fs::mknodat(CWD, &path, kind, mode, device).map_err(io::Error::from)
            };
            let result = match entry.what {
                What::Directory => fs::create_dir(&path),
                What::File(size) => fs::File::create_new(&path).and_then(|file| file.set_len(size)),
                What::Symlink(target) => symlink(OsStr::from_bytes(target), &path),
                What::Fifo => node(FileType::Fifo, 0),
                What::Char(major, minor) => {
                    let device = rustix::fs::makedev(major, minor);
                    node(FileType::CharacterDevice, device)
                }
                What::Attribute(name, value) => {
                    let result = fs::create_dir(&path);
                    // No link and no device has some of them.
                    let _ = rustix::fs::lsetxattr(&path, name, value, XattrFlags::empty());
                    result
                }
            };
            match result {
                Ok(()) => made(&path, entry.branch, entry.mode)?,
                // Something is there already, or the name is too long behind its mark.
                Err(error) => assert!(
                    matches!(errno(&error), Errno::EXIST | Errno::NAMETOOLONG),
                    "{error}"
                ),
            }
        }
        Ok(())
    }

    /// Everything that layerctl and fuse-overlayfs do not say alike.
    fn differences(&self, here: &Path, tally: &Tally) -> Vec<String> {
        // What a panic left.
        let _ = fs::remove_dir_all(here);
        let (mount, options) = (here.join("mount"), self.options(here));
        for path in [&mount, &here.join("work")] {
            fs::create_dir_all(path).expect("a new directory");
        }
        self.make(here).expect("entries can be made");
        let target = [b"fuse-overlayfs:", options.as_bytes()].concat();
        let target = OsStr::from_bytes(&target);
        let mut wrong = Vec::new();
        match Seen::of(&mount, &options, &self.paths) {
            // A mark that cannot be read, on a branch itself.
            None => count(tally, "refused"),
            // A directory in whose place a lower branch has a link that leads to itself.
            Some(seen) if seen.errors().any(|error| error == "ENOMEM") => count(tally, "looping"),
            Some(seen) => {
                count(tally, "compared");
                seen.errors().for_each(|error| count(tally, error));
                let ls = ["--format", "jsonl", "ls", "-R", "-l"].map(OsStr::new);
                let ls = layerctl(ls.into_iter().chain([target]));
                let rows = ls.rows();
                let told = rows.iter().map(|row| (relative(row), listed(row)));
                compare("ls", &seen.listed, told.collect(), &mut wrong);
                let names = (["which", "--no-follow"].as_slice(), &seen.names);
                for (verb, asked) in [names, (["which"].as_slice(), &seen.paths)] {
                    let verb = ["--format", "jsonl"].iter().chain(verb).map(OsStr::new);
                    let paths = asked.keys().map(|path| OsStr::from_bytes(path));
                    let stack = [OsStr::new("--in"), target, OsStr::new("--")];
                    let which = layerctl(verb.chain(stack).chain(paths));
                    let rows = which.rows();
                    let told = asked.keys().cloned().zip(rows.iter().map(found));
                    compare("which", asked, told.collect(), &mut wrong);
                }
            }
        }
        fs::remove_dir_all(here).expect("nothing is mounted there");
        wrong
    }
}

/// What is shown, in words, by path.
type Facts = BTreeMap<Vec<u8>, String>;

fn compare(verb: &str, expected: &Facts, told: Facts, wrong: &mut Vec<String>) {
    let paths = expected
        .keys()
        .chain(told.keys().filter(|path| !expected.contains_key(*path)));
    for path in paths {
        let (expected, told) = (expected.get(path), told.get(path));
        if expected != told {
            let path = shown(path);
            wrong.push(format!(
                "{verb} {path}: shown {expected:?}, layerctl {told:?}"
            ));
        }
    }
}

/// What a mount shows.
#[derive(Default)]
struct Seen {
    /// Whether there, and what of which branch: every name that there might be.
    names: Facts,
    /// The same, of what paths lead to.
    paths: Facts,
    /// All that `lstat` says of what `readdir` lists.
    listed: Facts,
}

impl Seen {
    fn of(mount: &Path, options: &OsStr, paths: &[String]) -> Option<Seen> {
        let mut command = Command::new("fuse-overlayfs");
        let output = command
            .arg("-o")
            .args([options, mount.as_os_str()])
            .output();
        if !output.expect("it ran before").status.success() {
            return None;
        }
        let mut seen = Seen::default();
        let mut facts = BTreeMap::from([(Vec::new(), Facts::new())]);
        seen.look(mount, b"", &mut facts);
        seen.resolve(mount, paths);
        for (parent, facts) in facts {
            let listing = fs::read_dir(under(mount, &parent))
                .and_then(|names| names.map(|name| Ok(name?.file_name().into_vec())).collect());
            match listing {
                Ok(names) => {
                    let names: Vec<Vec<u8>> = names;
                    seen.listed.extend(names.into_iter().map(|name| {
                        let path = join(&parent, &name);
                        let fact = facts.get(&path).cloned().unwrap_or_default();
                        (path, fact)
                    }));
                }
                // A name that cannot be looked up spoils the whole listing.
                Err(_) => seen.listed.extend(facts),
            }
        }
        // A child that another thread starts has everything open until it is the child that was meant.
        rustix::mount::unmount(mount, UnmountFlags::DETACH).expect("it was mounted");
        Some(seen)
    }

    fn errors(&self) -> impl Iterator<Item = &str> {
        let answers = self.names.values().chain(self.paths.values());
        answers
            .filter(|answer| answer.starts_with('E'))
            .map(String::as_str)
    }

    /// Looks every name up, and keeps what a listing of each directory should show.
    fn look(&mut self, mount: &Path, parent: &[u8], all: &mut BTreeMap<Vec<u8>, Facts>) {
        let mut facts = Facts::new();
        for name in COMMON.iter().chain(&ODD).chain(&HIDDEN) {
            let path = join(parent, name);
            match fs::symlink_metadata(under(mount, &path)) {
                Ok(stat) => {
                    let target = || fs::read_link(under(mount, &path)).expect("a link");
                    facts.insert(path.clone(), listed_fact(&stat, target));
                    self.names.insert(path.clone(), found_fact(&stat));
                    if stat.is_dir() {
                        self.look(mount, &path, all);
                    }
                }
                Err(error) => {
                    let error = self::name(errno(&error));
                    if error != "ENOENT" {
                        facts.insert(path.clone(), error.clone());
                    }
                    self.names.insert(path, error);
                }
            }
        }
        all.insert(parent.to_vec(), facts);
    }

    fn resolve(&mut self, mount: &Path, paths: &[String]) {
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let root = rustix::fs::open(mount, flags, Mode::empty()).expect("it is mounted");
        for path in paths {
            let answer = loop {
                let resolve = ResolveFlags::IN_ROOT;
                match rustix::fs::openat2(&root, path, flags, Mode::empty(), resolve) {
                    // Something was mounted or renamed meanwhile, and `..` could not be trusted.
                    Err(Errno::AGAIN) => {}
                    Err(errno) => break name(errno),
                    Ok(file) => {
                        break found_fact(&fs::File::from(file).metadata().expect("it is open"));
                    }
                }
            };
            self.paths.insert(path.clone().into_bytes(), answer);
        }
    }
}

fn found_fact(stat: &fs::Metadata) -> String {
    let kind = match FileType::from_raw_mode(stat.mode()) {
        FileType::RegularFile => "file",
        FileType::Directory => "directory",
        FileType::Symlink => "symlink",
        FileType::Fifo => "fifo",
        FileType::CharacterDevice => "char",
        other => panic!("{other:?} was never made"),
    };
    format!("{kind} of {}", stat.gid() - GROUP)
}

/// As `which` says it.
fn found(row: &Value) -> String {
    let error = row["error"].as_str().unwrap_or_default();
    match (text(row, "state"), error) {
        ("present", "") => format!("{} of {}", text(row, "type"), row["branch"]),
        ("deleted" | "missing", "ENOENT") | ("missing", "ENOTDIR") => error.to_owned(),
        ("broken", _) if !matches!(error, "ENOENT" | "ENOTDIR") => error.to_owned(),
        _ => row.to_string(),
    }
}

fn listed_fact(stat: &fs::Metadata, target: impl FnOnce() -> PathBuf) -> String {
    let (mode, uid, gid) = (stat.mode() & 0o7777, stat.uid(), stat.gid());
    let fact = format!("{} {mode:04o} {uid}:{gid}", found_fact(stat));
    if stat.is_file() {
        format!("{fact} {}", stat.size())
    } else if stat.is_symlink() {
        format!("{fact} {}", target().as_os_str().as_bytes().escape_ascii())
    } else {
        fact
    }
}

/// As `ls` says it.
fn listed(row: &Value) -> String {
    if let Some(error) = row["error"].as_str() {
        return error.to_owned();
    }
    let (kind, mode) = (text(row, "type"), text(row, "mode"));
    let fact = format!(
        "{kind} of {} {mode} {}:{}",
        row["branch"], row["uid"], row["gid"]
    );
    match kind {
        "file" => format!("{fact} {}", row["size"]),
        "symlink" => format!("{fact} {}", bytes(&row["link"]).escape_ascii()),
        _ => fact,
    }
}

fn relative(row: &Value) -> Vec<u8> {
    let path = bytes(&row["path"]);
    path.strip_prefix(b"/").unwrap_or(&path).to_vec()
}

/// A path for people, long names in short.
fn shown(path: &[u8]) -> String {
    let names = path.split(|&byte| byte == b'/').map(|name| match name {
        [.., last] if name.len() > 100 => format!("{}*{}", *last as char, name.len()),
        _ => name.escape_ascii().to_string(),
    });
    names.collect::<Vec<_>>().join("/")
}

fn join(parent: &[u8], name: &[u8]) -> Vec<u8> {
    match parent {
        b"" => name.to_vec(),
        _ => [parent, b"/", name].concat(),
    }
}

fn under(mount: &Path, path: &[u8]) -> PathBuf {
    mount.join(OsStr::from_bytes(path))
}

fn errno(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or_else(|| panic!("{error} is not the kernel's"))
}

fn name(errno: Errno) -> String {
    match errno {
        Errno::NOENT => "ENOENT".into(),
        Errno::NOTDIR => "ENOTDIR".into(),
        Errno::LOOP => "ELOOP".into(),
        Errno::RANGE => "ERANGE".into(),
        Errno::NOMEM => "ENOMEM".into(),
        other => format!("E? {other:?}"),
    }
}
