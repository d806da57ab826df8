//! Random stacks of overlay branches, asked of layerctl and of the running kernel.
//!
//! Every entry has a time of its own that tells its branch, so that `lstat` on the mount says which
//! entry of which branch the kernel shows. All of it runs again in a mount namespace of its own:
//! whatever becomes of the test, no mount outlives it.
//!
//! Once it is root's stacks, and once an ordinary user's: made and mounted in a user namespace.
//! That user has the same number inside as outside, and layerctl is started there without a single
//! capability. So it may exactly what it may outside, and owners are what both see.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CString, OsStr, OsString};
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Timespec, Timestamps, XattrFlags,
};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};
use serde_json::Value;

use crate::lab;
use crate::lab::run::{self, Output, bytes, layerctl, text};
use crate::lab::{again_as, needs};

const STACKS: u64 = 1500;
const STACKS_OF_USER: u64 = 500;
/// Random paths asked of every stack.
const PATHS: usize = 40;
/// How many stacks are made small before they are shown.
const SHRUNK: usize = 8;
/// Set where the test runs in a mount namespace of its own.
const INSIDE: &str = "LAYERCTL_OVERLAY_INSIDE";
/// The binary, where an ordinary user can reach it.
const PROGRAM: &str = "LAYERCTL_OVERLAY_PROGRAM";
/// Where root's owners and groups begin.
const OWNER: u32 = 2000;
const GROUP: u32 = 1000;
/// `lstat` says of an entry that it is of this time, `BRANCHES` times its number, and its branch.
const TIME: i64 = 1_000_000_000;
const BRANCHES: i64 = 10;
/// Who an ordinary user is where root runs the test.
const NOBODY: u32 = 65534;

const NAMES: [&[u8]; 8] = [b"a", b"b", b"c", b"d", b"e f", b"g\\h", b"i\nj", b"k\xff"];
/// The first of them are common.
const COMMON: usize = 4;

const REDIRECTS_INVALID: [&[u8]; 10] = [
    b"", b"/", b"a/b", b"..", b".", b"/a/", b"//a", b"/a//b", b"/..", b"/a/../b",
];
const LINKS: [&[u8]; 16] = [
    b"a", b"b", b"c", b"d", b"./a", b"..", b"../a", b"../b/c", b"/", b"/a", b"/a/b", b"/c/d",
    b"a/b", b"../../d", b"nowhere", b"b/",
];

#[apply(test)]
fn the_kernel_agrees() {
    inside(Who::Root, || compare_stacks(Who::Root, STACKS));
}

#[apply(test)]
fn the_kernel_agrees_with_an_ordinary_user() {
    inside(Who::User, || compare_stacks(Who::User, STACKS_OF_USER));
}

/// Whose stacks they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    Root,
    /// In a user namespace, with marks that need no privilege.
    User,
}

/// Runs the calling test once more, where it may mount, or is that run.
pub fn inside(who: Who, test: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        return test();
    }
    if who == Who::Root {
        needs::mounts();
    }
    let home = tempfile::tempdir().expect("a directory");
    let at = |name: &str| home.path().join(name);
    for name in ["lower", "upper", "work", "mount"] {
        fs::create_dir(at(name)).expect("a new directory");
    }
    // Where root built them, an ordinary user may not even look.
    let this = std::env::current_exe().expect("this program has a path");
    let programs = [
        (this.as_path(), at("test")),
        (Path::new(env!("CARGO_BIN_EXE_layerctl")), at("layerctl")),
    ];
    for (from, to) in &programs {
        run::copy_program(from, to);
    }
    if who == Who::User && lab::is_root() {
        for path in [home.path(), &at("upper"), &at("work")] {
            lchown(path, Some(NOBODY), Some(NOBODY)).expect("root may");
        }
    }
    let unshared = || {
        let mut command = match who {
            Who::User if lab::is_root() => {
                let mut command = Command::new("setpriv");
                let nobody = NOBODY.to_string();
                command.args(["--reuid", &nobody, "--regid", &nobody, "--clear-groups"]);
                command.arg("unshare");
                command
            }
            _ => Command::new("unshare"),
        };
        if who == Who::User {
            command.args(["--user", "--map-current-user", "--keep-caps"]);
        }
        command.args(["--mount", "--propagation", "private"]);
        command.current_dir(home.path());
        command
    };
    let options = match who {
        Who::Root => "lowerdir=lower,upperdir=upper,workdir=work",
        Who::User => "lowerdir=lower,upperdir=upper,workdir=work,userxattr",
    };
    let mounted = unshared()
        .args(["mount", "-t", "overlay", "overlay", "-o", options, "mount"])
        .output();
    match mounted {
        Ok(output) if output.status.success() => {}
        Ok(output) => lab::skip(&String::from_utf8_lossy(&output.stderr)),
        Err(error) => lab::skip(&format!("unshare: {error}")),
    }
    again_as(
        unshared()
            .arg(at("test"))
            .env(INSIDE, "1")
            .env(PROGRAM, at("layerctl"))
            .env("TMPDIR", home.path()),
    );
}

/// Compares random stacks, or the one that `LAYERCTL_OVERLAY_STACK` names.
fn compare_stacks(who: Who, stacks: u64) {
    let (first, count) = match std::env::var("LAYERCTL_OVERLAY_STACK") {
        Ok(number) => (number.parse().expect("a number"), 1),
        Err(_) => (0, lab::of_many(stacks, 8, "random stacks")),
    };
    let numbers: Vec<u64> = (first..first + count).collect();
    let place = tempfile::tempdir().expect("a directory");
    let shrunk = AtomicUsize::new(0);
    let tally = Mutex::new(BTreeMap::new());
    lab::all_right(&numbers, |&number| {
        let stack = Stack::random(who, number);
        let here = place.path().join(number.to_string());
        let differences = stack.differences(&here, &tally);
        if differences.is_empty() {
            return Vec::new();
        }
        if shrunk.fetch_add(1, Ordering::Relaxed) >= SHRUNK {
            return differences
                .iter()
                .take(1)
                .map(|difference| format!("stack {number}: {difference}"))
                .collect();
        }
        let small = stack.shrink(&here);
        let differences = small.differences(&here, &Mutex::default());
        vec![format!("{}{}", small.listing(), differences.join("\n"))]
    });
    let tally = tally.into_inner().expect("no worker panicked");
    let of = |what: &str| tally.get(what).copied().unwrap_or(0);
    if count > 1 {
        let stacks = count;
        // Kernels before 6.16 refuse an ordinary user's data-only branches, a third of the stacks.
        let least = match who {
            Who::Root => stacks as usize * 9 / 10,
            Who::User => stacks as usize * 6 / 10,
        };
        assert!(of("mounted") > least, "{tally:?}");
        for answer in ["EIO", "ENOENT", "EPERM", "EINVAL", "ENOTDIR", "ELOOP"] {
            assert!(of(answer) > 0, "never {answer}: {tally:?}");
        }
        assert!(of("same inode") > least, "{tally:?}");
    }
}

pub type Tally = Mutex<BTreeMap<String, usize>>;

/// xorshift64*.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        let mut random = Random((seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        for _ in 0..4 {
            random.next();
        }
        random
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    pub fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    pub fn percent(&mut self, chance: usize) -> bool {
        self.below(100) < chance
    }

    pub fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }

    fn name(&mut self) -> &'static [u8] {
        if self.percent(85) {
            self.of(&NAMES[..COMMON])
        } else {
            self.of(&NAMES)
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum What {
    Directory,
    File(u64),
    Symlink(&'static [u8]),
    Fifo,
    Char(u32, u32),
}

#[derive(Debug, Clone)]
struct Entry {
    branch: usize,
    /// Empty for the branch's own directory.
    path: Vec<u8>,
    what: What,
    mode: u32,
    /// That of no other entry.
    number: u32,
    /// Name and value.
    xattrs: Vec<(String, Vec<u8>)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mix {
    Default,
    RedirectOn,
    NoFollow,
    Metacopy,
    DataOnly,
    UserXattr,
    UserNoFollow,
    UserDataOnly,
}

const MIXES: [Mix; 6] = [
    Mix::Default,
    Mix::RedirectOn,
    Mix::NoFollow,
    Mix::Metacopy,
    Mix::DataOnly,
    Mix::UserXattr,
];
/// With `userxattr` the kernel takes no other option that concerns marks.
const MIXES_OF_USER: [Mix; 3] = [Mix::UserXattr, Mix::UserNoFollow, Mix::UserDataOnly];

impl Mix {
    fn has_data(self) -> bool {
        matches!(self, Mix::DataOnly | Mix::UserDataOnly)
    }

    fn is_userxattr(self) -> bool {
        matches!(self, Mix::UserXattr | Mix::UserNoFollow | Mix::UserDataOnly)
    }
}

#[derive(Debug, Clone)]
pub struct Stack {
    who: Who,
    number: u64,
    mix: Mix,
    /// Branch 0 is writable.
    has_upper: bool,
    branches: usize,
    /// The last of them that are asked for content only.
    data: usize,
    /// Parents first.
    entries: Vec<Entry>,
}

impl Stack {
    pub fn random(who: Who, number: u64) -> Stack {
        let random = &mut Random::new(number);
        let mixes = match who {
            Who::Root => &MIXES[..],
            Who::User => &MIXES_OF_USER,
        };
        let mix = mixes[(number % mixes.len() as u64) as usize];
        let data = if mix.has_data() {
            1 + random.below(2)
        } else {
            0
        };
        let mut stack = Stack {
            who,
            number,
            mix,
            has_upper: random.percent(65),
            // Without data these are 2 to 6; a writable branch needs a lower one beside the data.
            branches: data + 2 + random.below(5 - data),
            data,
            entries: Vec::new(),
        };
        for branch in 0..stack.branches {
            let mut root = stack.entry(branch, Vec::new(), What::Directory);
            root.mode = 0o755;
            if random.percent(25) {
                root.xattrs.push(stack.xattr("opaque", b"x"));
            } else if random.percent(3) {
                root.xattrs.push(stack.xattr("opaque", b"y"));
            }
            stack.entries.push(root);
            stack.fill(random, branch, b"", 1);
        }
        stack
    }

    fn entry(&self, branch: usize, path: Vec<u8>, what: What) -> Entry {
        Entry {
            branch,
            path,
            what,
            mode: 0o644,
            number: u32::try_from(self.entries.len()).expect("few"),
            xattrs: Vec::new(),
        }
    }

    fn xattr(&self, name: &str, value: &[u8]) -> (String, Vec<u8>) {
        let namespace = if self.mix.is_userxattr() {
            "user"
        } else {
            "trusted"
        };
        (format!("{namespace}.overlay.{name}"), value.to_vec())
    }

    /// Fills a directory that is the last entry yet.
    fn fill(&mut self, random: &mut Random, branch: usize, parent: &[u8], depth: usize) {
        let parent_at = self.entries.len() - 1;
        let chance = [0, 55, 45, 35][depth];
        let metacopy = self.mix.has_data() || self.mix == Mix::Metacopy;
        let mut has_xattr_whiteout = false;
        for (index, name) in NAMES.iter().enumerate() {
            let is_common = index < COMMON;
            if !random.percent(if is_common { chance } else { 6 }) {
                continue;
            }
            let path = join(parent, name);
            let size = self.entries.len() as u64 * 7 + branch as u64 + 1;
            let mut entry = self.entry(branch, path.clone(), What::File(size));
            entry.mode = random.of(&[0o644, 0o600, 0o755, 0o4711]);
            match random.below(100) {
                0..40 if depth < 3 => {
                    entry.what = What::Directory;
                    entry.mode = random.of(&[0o755, 0o700, 0o1777]);
                    match random.below(100) {
                        0..14 => entry.xattrs.push(self.xattr("opaque", b"y")),
                        14..26 => entry.xattrs.push(self.xattr("opaque", b"x")),
                        26..29 => {
                            let value = random.of(&[&b""[..], b"n", b"yy", b"xx"]);
                            entry.xattrs.push(self.xattr("opaque", value));
                        }
                        _ => {}
                    }
                    if random.percent(18) {
                        let to = redirect(random);
                        entry.xattrs.push(self.xattr("redirect", &to));
                    }
                    self.entries.push(entry);
                    self.fill(random, branch, &path, depth + 1);
                    continue;
                }
                0..52 => {}
                52..62 => entry.what = What::Symlink(random.of(&LINKS)),
                62..66 => entry.what = What::Fifo,
                66..70 => {
                    let device = What::Char(random.of(&[0, 1]), random.of(&[3, 5]));
                    entry.what = match self.who {
                        Who::Root => device,
                        // May make no device but the one that is a whiteout.
                        Who::User => What::Fifo,
                    };
                }
                70..81 => entry.what = What::Char(0, 0),
                81..90 => {
                    entry.what = What::File(if random.percent(90) { 0 } else { size });
                    let value = random.of(&[&b""[..], b"y"]);
                    entry.xattrs.push(self.xattr("whiteout", value));
                    has_xattr_whiteout = true;
                }
                90..92 => entry.xattrs.push(self.xattr("redirect", b"/a")),
                // Marks of the other kind of mount, that mean nothing in this one.
                92..94 => match (self.who, self.mix) {
                    (Who::User, _) => {}
                    (_, Mix::UserXattr) => {
                        let name = "trusted.overlay.metacopy".into();
                        entry.xattrs.push((name, Vec::new()));
                    }
                    _ => {
                        let name = "user.overlay.metacopy".into();
                        entry.xattrs.push((name, Vec::new()));
                    }
                },
                _ => {
                    let value =
                        random.of(&[&b""[..], b"", b"", b"\0\0\0\0", b"\0\x04\0\0", b"\0\0"]);
                    entry.xattrs.push(self.xattr("metacopy", value));
                    if random.percent(50) {
                        let to = redirect(random);
                        entry.xattrs.push(self.xattr("redirect", &to));
                    }
                }
            }
            if metacopy
                && entry.xattrs.is_empty()
                && matches!(entry.what, What::File(_))
                && random.percent(40)
            {
                entry.xattrs.push(self.xattr("metacopy", b""));
                if random.percent(60) {
                    let to = redirect(random);
                    entry.xattrs.push(self.xattr("redirect", &to));
                }
            }
            self.entries.push(entry);
        }
        let opaque = self.xattr("opaque", b"x");
        let parent = &mut self.entries[parent_at].xattrs;
        if has_xattr_whiteout
            && !parent.iter().any(|(name, _)| *name == opaque.0)
            && random.percent(55)
        {
            parent.push(opaque);
        }
    }

    /// Where a branch lies. Some have names that the options have to escape.
    fn branch(&self, here: &Path, index: usize) -> PathBuf {
        here.join(match self.number % 7 {
            0 => format!("{index}:,\\ x"),
            _ => index.to_string(),
        })
    }

    /// What both are given, `workdir` aside.
    pub fn options(&self, here: &Path) -> OsString {
        let spelled = |index| escape(self.branch(here, index).as_os_str().as_bytes());
        let mut options = b"lowerdir=".to_vec();
        let first = usize::from(self.has_upper);
        for index in first..self.branches {
            if index > first {
                options.push(b':');
            }
            if index >= self.branches - self.data {
                options.push(b':');
            }
            options.extend(spelled(index));
        }
        if self.has_upper {
            options.extend_from_slice(b",upperdir=");
            options.extend(spelled(0));
        }
        options.extend_from_slice(match self.mix {
            Mix::Default => b"",
            Mix::RedirectOn => b",redirect_dir=on",
            Mix::NoFollow => b",redirect_dir=nofollow",
            Mix::Metacopy | Mix::DataOnly => b",metacopy=on",
            Mix::UserXattr | Mix::UserDataOnly => b",userxattr",
            Mix::UserNoFollow => b",userxattr,redirect_dir=nofollow",
        });
        OsString::from_vec(options)
    }

    /// Where an entry lies.
    fn on_host(&self, here: &Path, branch: usize, path: &[u8]) -> PathBuf {
        let root = self.branch(here, branch);
        if path.is_empty() {
            root
        } else {
            root.join(OsStr::from_bytes(path))
        }
    }

    /// Makes everything, and says which inode each entry has.
    pub fn make(&self, here: &Path) -> io::Result<BTreeMap<u32, u64>> {
        let at = |entry: &Entry| self.on_host(here, entry.branch, &entry.path);
        for entry in &self.entries {
            let path = at(entry);
            let node = |kind, device| rustix::fs::mknodat(CWD, &path, kind, Mode::RUSR, device);
            match entry.what {
                What::Directory => fs::create_dir_all(&path)?,
                What::File(size) => fs::File::create(&path)?.set_len(size)?,
                What::Symlink(target) => symlink(OsStr::from_bytes(target), &path)?,
                What::Fifo => node(FileType::Fifo, 0)?,
                What::Char(major, minor) => {
                    node(FileType::CharacterDevice, rustix::fs::makedev(major, minor))?
                }
            }
            if self.who == Who::Root {
                let group = GROUP + u32::try_from(entry.branch).expect("few");
                lchown(&path, Some(OWNER + entry.number), Some(group))?;
            }
            if !matches!(entry.what, What::Symlink(_)) {
                fs::set_permissions(&path, fs::Permissions::from_mode(entry.mode))?;
            }
            for (name, value) in &entry.xattrs {
                rustix::fs::lsetxattr(&path, name.as_str(), value, XattrFlags::empty())?;
            }
        }
        let mut inodes = BTreeMap::new();
        // What is made in a directory changes its time.
        for entry in self.entries.iter().rev() {
            let path = at(entry);
            set_time(&path, (entry.time(), 0))?;
            inodes.insert(entry.number, fs::symlink_metadata(&path)?.ino());
        }
        Ok(inodes)
    }

    /// Runs layerctl as whoever made the stack.
    fn layerctl<'a>(&self, arguments: impl IntoIterator<Item = &'a OsStr>) -> Output {
        match self.who {
            Who::Root => layerctl(arguments),
            Who::User => {
                let mut command = Command::new("setpriv");
                command.args(["--inh-caps=-all", "--ambient-caps=-all"]);
                command.arg(std::env::var_os(PROGRAM).expect("set where this was started"));
                command.env_clear().env("TZ", "UTC").args(arguments);
                run::run(&mut command)
            }
        }
    }

    /// Everything that layerctl and the kernel do not say alike.
    fn differences(&self, here: &Path, tally: &Tally) -> Vec<String> {
        fs::create_dir(here).expect("a new directory");
        let inodes = self.make(here).expect("entries can be made");
        let options = self.options(here);
        // The kernel writes marks of its own to the upper branch: layerctl goes first.
        let listed = self.layerctl([
            OsStr::new("--format"),
            OsStr::new("jsonl"),
            OsStr::new("ls"),
            OsStr::new("-R"),
            OsStr::new("-l"),
            &options,
        ]);
        let mut wrong = Vec::new();
        match self.seen(here, &options) {
            Err(errno) => count(tally, &format!("mount: {}", name(errno))),
            // Two names of one lower entry, which only forged redirects make: the kernel has one
            // inode for both, as it was when it was first asked, or answers ESTALE for the other.
            Ok(seen) if seen.is_stale() => count(tally, "stale"),
            Ok(seen) => {
                count(tally, "mounted");
                seen.tell(tally);
                if listed.stdout.is_empty() && seen.names.values().any(Result::is_ok) {
                    wrong.push(format!("ls says nothing: {}", listed.stderr));
                } else {
                    let rows = listed.rows();
                    seen.compare_listing(&rows, self.refusals(), &mut wrong);
                    self.compare_inodes(&seen, &rows, &inodes, tally, &mut wrong);
                }
                for (no_follow, answers) in [(true, &seen.names), (false, &seen.paths)] {
                    let mut arguments: Vec<&OsStr> =
                        ["--format", "jsonl", "which"].map(OsStr::new).to_vec();
                    if no_follow {
                        arguments.push(OsStr::new("--no-follow"));
                    }
                    arguments.extend([OsStr::new("--in"), &options, OsStr::new("--")]);
                    arguments.extend(answers.keys().map(|path| OsStr::from_bytes(path)));
                    let which = self.layerctl(arguments);
                    let rows = which.rows();
                    if rows.len() != answers.len() {
                        wrong.push(format!(
                            "which has {} answers for {} paths: {}",
                            rows.len(),
                            answers.len(),
                            which.stderr
                        ));
                        continue;
                    }
                    for ((path, answer), row) in answers.iter().zip(&rows) {
                        compare_which(path, answer, row, &mut wrong);
                        let content = self.inode_of_content(here, row);
                        if let (Some(inode), Ok(facts)) = (content, answer) {
                            if facts.inode == inode {
                                count(tally, "inode of content")
                            } else {
                                wrong.push(format!(
                                    "which {}: inode {inode}, kernel {facts:?}, {row}",
                                    quote(path)
                                ))
                            }
                        }
                    }
                }
            }
        }
        fs::remove_dir_all(here).expect("nothing is mounted there");
        wrong
    }

    /// That the entry which a row of `ls` means has the inode that the kernel shows. Those of
    /// directories the kernel need not pass on.
    fn compare_inodes(
        &self,
        seen: &Seen,
        rows: &[Value],
        inodes: &BTreeMap<u32, u64>,
        tally: &Tally,
        wrong: &mut Vec<String>,
    ) {
        for row in rows {
            let path = bytes(&row["path"]);
            let path = path.strip_prefix(b"/").unwrap_or(&path);
            let Some(Ok(facts)) = seen.names.get(path) else {
                continue;
            };
            let Some((_, number)) = run::seconds(&row["mtime"]).and_then(of_time) else {
                continue;
            };
            if facts.kind == "directory" || self.is_metacopy_of_upper(number) {
                continue;
            }
            match inodes.get(&number) {
                Some(inode) if *inode == facts.inode => count(tally, "same inode"),
                inode => wrong.push(format!(
                    "ls {}: inode {inode:?}, kernel {facts:?}, {row}",
                    quote(path)
                )),
            }
        }
    }

    /// Whether an entry is a metacopy of the upper branch: that has the inode of what it was copied from.
    fn is_metacopy_of_upper(&self, number: u32) -> bool {
        let entry = self.entries.iter().find(|entry| entry.number == number);
        entry.is_some_and(|entry| {
            let mut names = entry.xattrs.iter().map(|(name, _)| name);
            self.has_upper
                && entry.branch == 0
                && names.any(|name| name.ends_with("overlay.metacopy"))
        })
    }

    #[cfg(feature = "internals")]
    /// Whether what is shown has an inode of its own that any view of the stack can show.
    pub fn has_own_inode(&self, facts: &Facts) -> bool {
        let number = of_time(facts.time).map(|(_, number)| number);
        facts.kind != "directory" && !number.is_some_and(|of| self.is_metacopy_of_upper(of))
    }

    /// The inode of a metacopy of the upper branch, where a single file below it is all there is.
    fn inode_of_content(&self, here: &Path, row: &Value) -> Option<u64> {
        let content = row["data"].as_object()?;
        let gives_content = |verdict: &&Value| verdict["says"] == "provides-data";
        let givers = row["trail"].as_array()?.iter().filter(gives_content);
        if !self.has_upper || row["branch"] != 0 || givers.count() != 1 {
            return None;
        }
        let branch = usize::try_from(content["branch"].as_u64()?).ok()?;
        let path = bytes(&content["path"]);
        let path = self.on_host(here, branch, path.strip_prefix(b"/")?);
        Some(fs::symlink_metadata(path).ok()?.ino())
    }

    fn refusals(&self) -> Refusals {
        let mut xattrs = self.entries.iter().flat_map(|entry| &entry.xattrs);
        if xattrs.any(|(name, value)| name.ends_with("opaque") && value == b"x") {
            Refusals::MayBeLeftOut
        } else {
            Refusals::Listed
        }
    }

    /// What the kernel shows.
    pub fn seen(&self, here: &Path, options: &OsStr) -> Result<Seen, Errno> {
        let (mount, work) = (here.join("mount"), here.join("work"));
        for path in [&mount, &work] {
            fs::create_dir(path).expect("a new directory");
        }
        let mut options = options.as_bytes().to_vec();
        if self.has_upper {
            options.extend_from_slice(b",workdir=");
            options.extend(escape(work.as_os_str().as_bytes()));
        }
        let options = CString::new(options).expect("no NUL");
        rustix::mount::mount(
            "overlay",
            &mount,
            "overlay",
            MountFlags::empty(),
            options.as_c_str(),
        )?;
        let seen = self.seen_at(&mount);
        // A child that another thread starts has everything open until it is the child that was meant.
        rustix::mount::unmount(&mount, UnmountFlags::DETACH).expect("it was mounted");
        Ok(seen)
    }

    /// What is shown where it is mounted.
    pub fn seen_at(&self, mount: &Path) -> Seen {
        let mut seen = Seen::default();
        seen.walk(mount, b"", 0);
        seen.resolve(mount, &mut Random::new(self.number + 1_000_000));
        seen
    }

    /// The same with all removed that the difference does not need.
    pub fn shrink(&self, here: &Path) -> Stack {
        let differs = |stack: &Stack| !stack.differences(here, &Mutex::default()).is_empty();
        let mut best = self.clone();
        loop {
            let before = best.size();
            let mut at = best.entries.len();
            while at > 0 {
                at -= 1;
                let Some(entry) = best.entries.get(at).cloned() else {
                    continue;
                };
                if !entry.path.is_empty() {
                    let mut tried = best.clone();
                    tried.entries.retain(|other| !other.is_within(&entry));
                    if differs(&tried) {
                        best = tried;
                        continue;
                    }
                }
                for index in (0..entry.xattrs.len()).rev() {
                    let mut tried = best.clone();
                    tried.entries[at].xattrs.remove(index);
                    if differs(&tried) {
                        best = tried;
                    }
                }
            }
            if best.size() == before {
                return best;
            }
        }
    }

    fn size(&self) -> usize {
        let xattrs = self.entries.iter().map(|entry| entry.xattrs.len());
        self.entries.len() + xattrs.sum::<usize>()
    }

    /// The stack as a shell makes it.
    pub fn listing(&self) -> String {
        let mut out = format!("--- stack {}\n", self.number);
        for entry in &self.entries {
            let path = quote(
                self.branch(Path::new(""), entry.branch)
                    .join(OsStr::from_bytes(&entry.path))
                    .as_os_str()
                    .as_bytes(),
            );
            let made = match entry.what {
                What::Directory => format!("mkdir {path}"),
                What::File(size) => format!("truncate -s {size} {path}"),
                What::Symlink(target) => format!("ln -s {} {path}", quote(target)),
                What::Fifo => format!("mkfifo {path}"),
                What::Char(major, minor) => format!("mknod {path} c {major} {minor}"),
            };
            out += &made;
            for (name, value) in &entry.xattrs {
                let value = BASE64.encode(value);
                write!(out, "; setfattr -n {name} -v 0s{value} {path}").expect("a string");
            }
            out.push('\n');
        }
        let options = self.options(Path::new(""));
        let work = if self.has_upper { ",workdir=work" } else { "" };
        let options = [options.as_bytes(), work.as_bytes()].concat();
        writeln!(out, "mount -t overlay -o {} overlay mount", quote(&options)).expect("a string");
        out
    }
}

impl Entry {
    fn time(&self) -> i64 {
        let branch = i64::try_from(self.branch).expect("few");
        TIME + i64::from(self.number) * BRANCHES + branch
    }

    /// Whether it is the other, or below it.
    fn is_within(&self, other: &Entry) -> bool {
        self.branch == other.branch
            && match self.path.strip_prefix(&other.path[..]) {
                Some(rest) => rest.is_empty() || rest.starts_with(b"/"),
                None => false,
            }
    }
}

/// The branch and the number of the entry that has this time.
fn of_time(time: i64) -> Option<(u64, u32)> {
    let since = u64::try_from(time - TIME).ok()?;
    let branches = BRANCHES.unsigned_abs();
    Some((since % branches, u32::try_from(since / branches).ok()?))
}

/// Sets when an entry was changed last, be it a symbolic link.
pub fn set_time(path: &Path, (seconds, nanoseconds): (i64, i64)) -> io::Result<()> {
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: nanoseconds,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    Ok(rustix::fs::utimensat(
        CWD,
        path,
        &times,
        AtFlags::SYMLINK_NOFOLLOW,
    )?)
}

/// What `lstat` and `readlink` say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    pub kind: &'static str,
    branch: u64,
    size: u64,
    mode: u32,
    owner: u32,
    group: u32,
    time: i64,
    pub inode: u64,
    target: Option<Vec<u8>>,
}

impl Facts {
    fn new(stat: &fs::Metadata) -> Facts {
        let kind = match FileType::from_raw_mode(stat.mode()) {
            FileType::RegularFile => "file",
            FileType::Directory => "directory",
            FileType::Symlink => "symlink",
            FileType::Fifo => "fifo",
            FileType::CharacterDevice => "char",
            other => panic!("{other:?} was never made"),
        };
        Facts {
            kind,
            branch: of_time(stat.mtime()).expect("a time that was set").0,
            size: stat.size(),
            mode: stat.mode() & 0o7777,
            owner: stat.uid(),
            group: stat.gid(),
            time: stat.mtime(),
            inode: stat.ino(),
            target: None,
        }
    }
}

/// Whether `readdir` lists what `lstat` refuses. Where there can be whiteouts by attribute it
/// leaves out some, and which depends on what the kernel was asked before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusals {
    Listed,
    MayBeLeftOut,
}

pub type Answer = Result<Facts, Errno>;

#[derive(Debug, Default)]
pub struct Seen {
    /// What `readdir` lists.
    pub listed: BTreeSet<Vec<u8>>,
    /// What `readdir` refuses.
    pub unread: BTreeMap<Vec<u8>, Errno>,
    /// What `lstat` says of every name that there might be, listed or not.
    pub names: BTreeMap<Vec<u8>, Answer>,
    /// What a path leads to.
    pub paths: BTreeMap<Vec<u8>, Answer>,
}

impl Seen {
    pub fn is_stale(&self) -> bool {
        let answers = self.names.values().chain(self.paths.values());
        let mut errors = answers.filter_map(|answer| answer.as_ref().err());
        if errors.any(|errno| *errno == Errno::STALE) {
            return true;
        }
        let shown = self.names.values().flatten();
        let mut times: Vec<i64> = shown.map(|facts| facts.time).collect();
        let count = times.len();
        times.sort_unstable();
        times.dedup();
        times.len() < count
    }

    fn walk(&mut self, mount: &Path, parent: &[u8], depth: usize) {
        assert!(depth < 50, "no stack is this deep");
        let mut names: BTreeSet<Vec<u8>> = NAMES.iter().map(|name| name.to_vec()).collect();
        let directory = under(mount, parent);
        match fs::read_dir(&directory).and_then(Iterator::collect::<io::Result<Vec<_>>>) {
            Ok(found) => {
                for name in found {
                    let name = name.file_name().into_vec();
                    self.listed.insert(join(parent, &name));
                    names.insert(name);
                }
            }
            // A name that cannot be looked up may spoil the whole listing.
            Err(error) => {
                self.unread.insert(parent.to_vec(), errno(&error));
            }
        }
        let is_unread = self.unread.contains_key(parent);
        for name in names {
            let path = join(parent, &name);
            let on_host = under(mount, &path);
            let answer = fs::symlink_metadata(&on_host)
                .map(|stat| Facts::new(&stat))
                .map_err(|error| errno(&error))
                .map(|mut facts| {
                    if facts.kind == "symlink" {
                        let target = fs::read_link(&on_host).expect("a link");
                        facts.target = Some(target.into_os_string().into_vec());
                    }
                    facts
                });
            let is_directory = answer.as_ref().is_ok_and(|facts| facts.kind == "directory");
            if is_unread && !matches!(answer, Err(Errno::NOENT)) {
                self.listed.insert(path.clone());
            }
            self.names.insert(path.clone(), answer);
            if is_directory {
                self.walk(mount, &path, depth + 1);
            }
        }
    }

    fn resolve(&mut self, mount: &Path, random: &mut Random) {
        let is_there = |(path, answer): (&Vec<u8>, &Answer)| answer.is_ok().then(|| path.clone());
        let known: Vec<Vec<u8>> = self.names.iter().filter_map(is_there).collect();
        let links: Vec<Vec<u8>> = known
            .iter()
            .filter(|path| matches!(&self.names[*path], Ok(facts) if facts.kind == "symlink"))
            .cloned()
            .collect();
        let root = rustix::fs::open(mount, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
            .expect("it is mounted");
        for _ in 0..PATHS {
            let mut path = match random.below(10) {
                0..4 if !links.is_empty() => links[random.below(links.len())].clone(),
                0..7 if !known.is_empty() => known[random.below(known.len())].clone(),
                _ => random.name().to_vec(),
            };
            for _ in 0..random.below(5) {
                path = match random.below(12) {
                    0..3 => join(&path, b".."),
                    3 => join(&path, b"."),
                    4 if !known.is_empty() => {
                        [&path[..], b"/../", &known[random.below(known.len())]].concat()
                    }
                    _ => join(&path, random.name()),
                };
            }
            if random.percent(15) {
                path.push(b'/');
            }
            path.insert(0, b'/');
            let answer = loop {
                match rustix::fs::openat2(
                    &root,
                    OsStr::from_bytes(&path),
                    OFlags::PATH | OFlags::CLOEXEC,
                    Mode::empty(),
                    ResolveFlags::IN_ROOT,
                ) {
                    // Something was mounted or renamed meanwhile, and `..` could not be trusted.
                    Err(Errno::AGAIN) => {}
                    Err(errno) => break Err(errno),
                    Ok(file) => {
                        let stat = fs::File::from(file).metadata();
                        break Ok(Facts::new(&stat.expect("it is open")));
                    }
                }
            };
            self.paths.insert(path, answer);
        }
    }

    fn tell(&self, tally: &Tally) {
        for answer in self.names.values().chain(self.paths.values()) {
            match answer {
                Ok(facts) => count(tally, facts.kind),
                Err(errno) => count(tally, &name(*errno)),
            }
        }
        for path in &self.listed {
            if let Err(errno) = &self.names[path] {
                count(tally, &format!("listed, {}", name(*errno)));
            }
        }
        for (path, answer) in &self.names {
            if !self.listed.contains(path) {
                match answer {
                    Ok(_) => count(tally, "unlisted, there"),
                    Err(Errno::NOENT) => {}
                    Err(errno) => count(tally, &format!("unlisted, {}", name(*errno))),
                }
            }
        }
        for errno in self.unread.values() {
            count(tally, &format!("readdir: {}", name(*errno)));
        }
    }

    fn compare_listing(&self, rows: &[Value], refusals: Refusals, wrong: &mut Vec<String>) {
        let mut told = BTreeMap::new();
        for row in rows {
            let path = bytes(&row["path"]);
            let path = path.strip_prefix(b"/").unwrap_or(&path).to_vec();
            let is_left_out = refusals == Refusals::MayBeLeftOut && !row["error"].is_null();
            if !self.listed.contains(&path) && !is_left_out {
                wrong.push(format!("ls has {}, readdir does not: {row}", quote(&path)));
            } else if told.insert(path.clone(), row).is_some() {
                wrong.push(format!("ls has {} twice", quote(&path)));
            }
        }
        for path in &self.listed {
            let shown = quote(path);
            match (&self.names[path], told.get(path)) {
                // `readdir` names it, and it is not there: nothing that a listing need tell.
                (Err(Errno::NOENT), None) => {}
                (Err(_), None) if refusals == Refusals::MayBeLeftOut => {}
                (answer, None) => wrong.push(format!("ls lacks {shown}: kernel {answer:?}")),
                (Err(errno), Some(row)) => {
                    if row["error"].as_str() != Some(&name(*errno)) {
                        wrong.push(format!("ls {shown}: kernel {}, {row}", name(*errno)));
                    }
                }
                (Ok(facts), Some(row)) => {
                    if let Some(field) = facts.differ(row) {
                        wrong.push(format!("ls {shown}: {field}: kernel {facts:?}, {row}"));
                    }
                }
            }
        }
    }
}

impl Facts {
    /// The first field that a row of `ls` has otherwise.
    fn differ(&self, row: &Value) -> Option<&'static str> {
        let number = |field: &str| row[field].as_u64();
        let mode = row["mode"].as_str().unwrap_or_default();
        let is = [
            ("error", row["error"].is_null()),
            ("type", row["type"].as_str() == Some(self.kind)),
            ("branch", number("branch") == Some(self.branch)),
            ("uid", number("uid") == Some(self.owner.into())),
            ("gid", number("gid") == Some(self.group.into())),
            ("mode", u32::from_str_radix(mode, 8).ok() == Some(self.mode)),
            ("mtime", run::seconds(&row["mtime"]) == Some(self.time)),
            (
                "size",
                // That of a directory is the file system's own affair.
                self.kind != "file" || number("size") == Some(self.size),
            ),
            (
                "link",
                self.target.is_none()
                    || (!row["link"].is_null() && self.target == Some(bytes(&row["link"]))),
            ),
        ];
        is.into_iter()
            .find_map(|(field, is_same)| (!is_same).then_some(field))
    }
}

fn compare_which(path: &[u8], answer: &Answer, row: &Value, wrong: &mut Vec<String>) {
    let is_same = match answer {
        Ok(facts) => {
            text(row, "state") == "present"
                && row["type"].as_str() == Some(facts.kind)
                && row["branch"].as_u64() == Some(facts.branch)
        }
        Err(errno) => {
            let states: &[&str] = match *errno {
                Errno::NOENT => &["deleted", "missing"],
                Errno::NOTDIR => &["missing"],
                _ => &["broken"],
            };
            states.contains(&text(row, "state")) && row["error"].as_str() == Some(&name(*errno))
        }
    };
    if !is_same {
        let answer = match answer {
            Ok(facts) => format!("{} of branch {}", facts.kind, facts.branch),
            Err(errno) => name(*errno),
        };
        wrong.push(format!("which {}: kernel {answer}, {row}", quote(path)));
    }
}

/// What a redirect says: a name or path of this alphabet, or sometimes nothing valid.
fn redirect(random: &mut Random) -> Vec<u8> {
    match random.below(100) {
        0..45 => random.name().to_vec(),
        45..88 => {
            let mut path = Vec::new();
            for _ in 0..1 + random.below(3) {
                path.push(b'/');
                path.extend_from_slice(random.name());
            }
            path
        }
        _ => random.of(&REDIRECTS_INVALID).to_vec(),
    }
}

pub fn count(tally: &Tally, what: &str) {
    let mut tally = tally.lock().expect("no worker panicked");
    *tally.entry(what.to_owned()).or_default() += 1;
}

pub fn join(parent: &[u8], name: &[u8]) -> Vec<u8> {
    match parent {
        b"" => name.to_vec(),
        _ => [parent, b"/", name].concat(),
    }
}

pub fn under(mount: &Path, path: &[u8]) -> PathBuf {
    mount.join(OsStr::from_bytes(path))
}

fn errno(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or_else(|| panic!("{error} is not the kernel's"))
}

pub fn name(errno: Errno) -> String {
    match errno {
        Errno::NOENT => "ENOENT".into(),
        Errno::NOTDIR => "ENOTDIR".into(),
        Errno::LOOP => "ELOOP".into(),
        Errno::IO => "EIO".into(),
        Errno::PERM => "EPERM".into(),
        Errno::ACCESS => "EACCES".into(),
        Errno::STALE => "ESTALE".into(),
        Errno::INVAL => "EINVAL".into(),
        Errno::NAMETOOLONG => "ENAMETOOLONG".into(),
        Errno::XDEV => "EXDEV".into(),
        Errno::EXIST => "EEXIST".into(),
        Errno::NOTEMPTY => "ENOTEMPTY".into(),
        Errno::ISDIR => "EISDIR".into(),
        Errno::NODATA => "ENODATA".into(),
        Errno::NXIO => "ENXIO".into(),
        other => format!("{other:?}"),
    }
}

/// A path as an option of mount(8) has it.
pub fn escape(path: &[u8]) -> Vec<u8> {
    let mut escaped = Vec::new();
    for &byte in path {
        if matches!(byte, b':' | b',' | b'\\') {
            escaped.push(b'\\');
        }
        escaped.push(byte);
    }
    escaped
}

/// A word as bash reads it.
pub fn quote(word: &[u8]) -> String {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._-=,:".contains(byte);
    if !word.is_empty() && word.iter().all(is_plain) {
        return String::from_utf8_lossy(word).into_owned();
    }
    let mut quoted = String::from("$'");
    for &byte in word {
        match byte {
            b'\'' | b'\\' => write!(quoted, "\\{}", byte as char).expect("a string"),
            b' '..=b'~' => quoted.push(byte as char),
            _ => write!(quoted, "\\x{byte:02x}").expect("a string"),
        }
    }
    quoted.push('\'');
    quoted
}

// FACTS-engines 60: what is changed is what differs, not what has been copied up.
/// What the union refuses was neither deleted nor left alone.
#[apply(test)]
fn a_refused_name_is_no_change() {
    needs::root("to set overlay's attributes");
    let place = tempfile::tempdir().expect("a directory");
    let at = |path: &str| place.path().join(path);
    for (path, content) in [("low/both", "x"), ("up/both", "x"), ("up/own", "x")] {
        let path = at(path);
        fs::create_dir_all(path.parent().expect("a branch")).expect("a new directory");
        fs::write(&path, content).expect("a new file");
    }
    for name in ["up/both", "up/own"] {
        let flags = rustix::fs::XattrFlags::CREATE;
        let set = rustix::fs::setxattr(at(name), "trusted.overlay.metacopy", b"", flags);
        set.expect("root may");
    }
    let (low, up) = (at("low"), at("up"));
    let stack = format!("lowerdir={},upperdir={}", low.display(), up.display());
    for verb in ["changes", "copyups"] {
        let said = layerctl(["--format", "jsonl", verb, &stack]).exits(2);
        assert_eq!(said.text(), "", "{verb}");
        assert!(said.stderr.contains("up/both"), "{}", said.stderr);
    }
    let found = layerctl(["--format", "jsonl", "check", &stack])
        .exits(1)
        .rows();
    assert_eq!(found.len(), 2, "{found:?}");
}

/// A renamed directory is shown where it is now, and so is everything in it, though lower branches
/// have it elsewhere.
#[apply(test)]
fn what_was_renamed_has_the_path_that_is_shown() {
    needs::root("to set overlay's attributes");
    let place = tempfile::tempdir().expect("a directory");
    let at = |path: &str| place.path().join(path);
    for directory in ["low/old/in/deep", "up/new/in/own"] {
        fs::create_dir_all(at(directory)).expect("a new directory");
    }
    fs::write(at("low/old/in/deep/file"), "x").expect("a new file");
    for (of, name, value) in [
        ("up/new", "trusted.overlay.redirect", "old"),
        ("up/new/in/own", "trusted.overlay.opaque", "y"),
    ] {
        let flags = rustix::fs::XattrFlags::CREATE;
        rustix::fs::setxattr(at(of), name, value.as_bytes(), flags).expect("root may");
    }
    let (low, up) = (at("low"), at("up"));
    let options = format!("lowerdir={},upperdir={}", low.display(), up.display());
    let stack = format!("{options},redirect_dir=on");
    let paths = |arguments: &[&str]| -> Vec<String> {
        let asked = ["--format", "jsonl"].iter().chain(arguments);
        let rows = layerctl(asked.chain([&&*stack])).exits(0).rows();
        let path = |row: &Value| row["path"].as_str().expect("a path").to_owned();
        rows.iter().map(path).collect()
    };
    assert_eq!(paths(&["whiteouts"]), ["/new/in/own"]);
    let within = [
        "/new",
        "/new/in",
        "/new/in/deep",
        "/new/in/deep/file",
        "/new/in/own",
    ];
    // What is at the old place is there, too: nothing deletes it.
    let mut all = within.to_vec();
    all.extend(["/old", "/old/in", "/old/in/deep", "/old/in/deep/file"]);
    assert_eq!(paths(&["ls", "-R"]), all);
    assert_eq!(paths(&["changes"]), within);
    let asked = ["--format", "jsonl", "which", "--in", &stack, "/new/in/own"];
    let rows = layerctl(asked).exits(0).rows();
    assert_eq!(rows[0]["path"], "/new/in/own");
    // What a plan copies lies where the branch has it.
    fs::create_dir(at("low/old/gone")).expect("a new directory");
    let whiteout = rustix::fs::makedev(0, 0);
    let (kind, mode) = (FileType::CharacterDevice, Mode::empty());
    rustix::fs::mknodat(CWD, at("up/new/gone"), kind, mode, whiteout).expect("root may");
    let asked = ["restore", "--dry-run", "--strategy", "copy", "-r", "--in"];
    let plan = layerctl(asked.into_iter().chain([&*stack, "/new/gone"])).exits(0);
    let from = format!("copy {}", at("low/old/gone").display());
    assert!(plan.text().contains(&from), "{}", plan.text());
}

#[apply(test)]
fn changes_are_what_docker_compares() {
    needs::root("to make a whiteout");
    let place = tempfile::tempdir().expect("a directory");
    let at = |path: &str| place.path().join(path);
    for directory in ["low/etc/mere", "low/opt", "up/etc/mere", "up/opt", "up/new"] {
        fs::create_dir_all(at(directory)).expect("a new directory");
    }
    for (path, content) in [
        ("low/etc/same", "as it was"),
        ("low/etc/longer", "short"),
        ("low/opt/chmod", "x"),
        ("low/gone", "x"),
        ("up/etc/longer", "not short"),
        ("up/new/file", "x"),
    ] {
        fs::write(at(path), content).expect("a new file");
    }
    for path in ["etc/same", "opt/chmod"] {
        let status = Command::new("cp")
            .arg("-a")
            .args([at(&format!("low/{path}")), at(&format!("up/{path}"))])
            .status();
        assert!(status.expect("cp is there").success());
    }
    let mode = fs::Permissions::from_mode(0o600);
    fs::set_permissions(at("up/opt/chmod"), mode).expect("it is ours");
    let whiteout = rustix::fs::makedev(0, 0);
    let device = FileType::CharacterDevice;
    rustix::fs::mknodat(CWD, at("up/gone"), device, Mode::empty(), whiteout).expect("root may");
    let stack = format!(
        "lowerdir={},upperdir={}",
        at("low").display(),
        at("up").display()
    );
    let changes = layerctl(["changes", &stack]).exits(0);
    let expected = "C /etc\nC /etc/longer\nD /gone\nA /new\nA /new/file\nC /opt\nC /opt/chmod\n";
    assert_eq!(changes.text(), expected);
    // What was copied up and not changed is a copy-up all the same.
    let copyups = layerctl(["-q", "copyups", &stack]).exits(0);
    assert_eq!(copyups.text(), "/etc/longer\n/etc/same\n/opt/chmod\n");
}
