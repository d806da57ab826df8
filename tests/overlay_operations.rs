//! Random operations through a mounted overlay, and what `changes` says of them.
//!
//! What is changed is told by two walks of the kernel's own merged view, one before the first
//! operation and one after the last, compared as `docker diff` compares them. layerctl sees only
//! the branches. For half of the sequences it does so while the overlay is mounted.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CString, OsStr, OsString};
use std::fmt;
use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode, OFlags, RenameFlags, XattrFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};
use serde_json::Value;

use crate::lab;
use crate::lab::run::{Output, bytes, layerctl, text};
use crate::lab::union::{Detail, Facts};
use crate::overlay::{
    Random, Tally, Who, count, escape, inside, join, name, quote, set_time, under,
};

const SEQUENCES: u64 = 600;
/// How many sequences are made small before they are shown.
const SHRUNK: usize = 6;

const NAMES: [&[u8]; 8] = [b"a", b"b", b"c", b"d", b".wh.a", b"e f", b"g\\h", b"k\xff"];
/// The first of them are common.
const COMMON: usize = 4;
/// None leads out of the mount, whatever it is that follows it.
const LINKS: [&str; 4] = ["a", "./b", "c/d", "nowhere"];
const MODES: [u32; 5] = [0o644, 0o600, 0o755, 0o700, 0o4755];
const MODES_OF_DIRECTORIES: [u32; 4] = [0o755, 0o700, 0o1777, 0o2775];
const OWNERS: [u32; 3] = [0, 1000, 2000];
/// Some have no nanoseconds, like those that come out of an archive.
const TIMES: [(i64, i64); 5] = [
    (1_000_000_000, 0),
    (1_000_000_000, 123_456_789),
    (1_000_000_000, 987_654_321),
    (1_000_000_001, 0),
    (1_100_000_000, 5),
];
/// Whatever is set through the mount is no mark in the branch.
const ATTRIBUTES: [&str; 6] = [
    "user.note",
    "trusted.note",
    "trusted.overlay.opaque",
    "user.overlay.opaque",
    "trusted.overlay.whiteout",
    "user.overlay.metacopy",
];
const CAPABILITY: &str = "security.capability";

#[apply(test)]
fn changes_are_the_difference_of_two_views() {
    inside(Who::Root, compare_views);
}

fn compare_views() {
    let (first, sequences) = match std::env::var("LAYERCTL_OVERLAY_SEQUENCE") {
        Ok(number) => (number.parse().expect("a number"), 1),
        Err(_) => (0, lab::of_many(SEQUENCES, 8, "random sequences")),
    };
    let numbers: Vec<u64> = (first..first + sequences).collect();
    let place = tempfile::tempdir().expect("a directory");
    let shrunk = AtomicUsize::new(0);
    let tally = Mutex::new(BTreeMap::new());
    lab::all_right(&numbers, |&number| {
        let here = place.path().join(number.to_string());
        let random = &mut Random::new(number);
        let mut sequence = Sequence::random(number, random);
        let wrong = sequence.run(&here, Some(random), &tally);
        if !wrong.is_empty() && shrunk.fetch_add(1, Ordering::Relaxed) < SHRUNK {
            let mut small = sequence.shrink(&here);
            let wrong = small.run(&here, None, &Mutex::default());
            eprintln!("{}{}", small.listing(), wrong.join("\n"));
        }
        let first = wrong.into_iter().take(1);
        first
            .map(|wrong| format!("sequence {number}: {wrong}"))
            .collect()
    });
    let tally = tally.into_inner().expect("no worker panicked");
    if sequences > 1 {
        for what in [
            "added",
            "changed",
            "deleted",
            "EXDEV",
            "a renamed directory",
        ] {
            assert!(tally.contains_key(what), "never {what}: {tally:?}");
        }
        let compared = tally["mounted"] + tally["unmounted"];
        assert_eq!(compared, numbers.len());
    }
}

/// A path in the mount, that is shown as a shell reads it.
#[derive(Clone, PartialEq, Eq)]
struct Inside(Vec<u8>);

impl std::ops::Deref for Inside {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Inside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&quote(&self.0))
    }
}

/// One entry of a lower branch.
#[derive(Debug, Clone)]
struct Made {
    branch: usize,
    /// Empty for the branch's own directory.
    path: Vec<u8>,
    what: What,
    mode: u32,
    owner: u32,
    time: (i64, i64),
    opaque: Option<&'static [u8]>,
    has_capability: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum What {
    Directory,
    File(usize),
    /// Another name of a file in the same branch.
    HardLink(Inside),
    Symlink(&'static str),
    Fifo,
    Device(u32),
    Whiteout,
    /// The same, as an attribute of an empty file.
    MarkedWhiteout,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mix {
    Default,
    /// Directories can be renamed, and what is copied up may lack its content.
    Moving,
    UserXattr,
}

/// What is done through the mount.
#[derive(Debug, Clone)]
enum Operation {
    Create(Inside, usize),
    Append(Inside, usize),
    /// The first byte is another one, and nothing else.
    Overwrite(Inside),
    /// The same, and the time is set back.
    OverwriteUnseen(Inside),
    Truncate(Inside, u64),
    /// To the length that it has, and the time is set back.
    TruncateUnseen(Inside),
    Chmod(Inside, u32),
    /// There and back again: copied up, and the same.
    ChmodUnseen(Inside),
    Chown(Inside, u32, u32),
    Times(Inside, (i64, i64)),
    /// As an archive without nanoseconds has it.
    WholeSeconds(Inside),
    SetAttribute(Inside, &'static str),
    RemoveAttribute(Inside, &'static str),
    SetCapability(Inside, u8),
    Remove(Inside),
    RemoveTree(Inside),
    MakeDirectory(Inside, u32),
    /// Emptied by being removed with all that is in it, and made as it was.
    RemakeDirectory(Inside),
    /// Removed and written anew with the same size, mode, owner and time.
    RemakeFile(Inside),
    Rename(Inside, Inside),
    /// In the place of another one, which is removed first.
    MoveInPlaceOf(Inside, Inside),
    Exchange(Inside, Inside),
    Symlink(&'static str, Inside),
    HardLink(Inside, Inside),
    MakeNode(Inside, Node),
    /// By a directory with a file in it.
    ReplaceByDirectory(Inside),
    ReplaceByFile(Inside),
    /// By a directory, and that by a file like the one that it was.
    ThereAndBack(Inside),
    /// What the kernel has in memory must be in the marks.
    Remount,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Node {
    Fifo,
    Socket,
    Device(u32),
}

#[derive(Debug, Clone)]
struct Sequence {
    number: u64,
    mix: Mix,
    /// Branch 0 is the upper one, these are the ones below it.
    lowers: usize,
    /// Parents first.
    entries: Vec<Made>,
    length: usize,
    operations: Vec<Operation>,
    /// Whether layerctl is asked while the overlay is mounted.
    stays_mounted: bool,
}

impl Sequence {
    /// With no operation yet: which are likely to do anything depends on those before.
    fn random(number: u64, random: &mut Random) -> Sequence {
        let mut sequence = Sequence {
            number,
            mix: match number % 5 {
                0 | 1 => Mix::Default,
                2 | 3 => Mix::Moving,
                _ => Mix::UserXattr,
            },
            lowers: 1 + random.below(4),
            entries: Vec::new(),
            length: 10 + random.below(51),
            operations: Vec::new(),
            stays_mounted: random.percent(50),
        };
        for branch in 1..=sequence.lowers {
            let mut root = Made::new(random, branch, Vec::new());
            root.what = What::Directory;
            root.mode = 0o755;
            sequence.entries.push(root);
            sequence.fill(random, branch, b"", 1);
        }
        sequence
    }

    /// Fills a directory that is the last entry yet.
    fn fill(&mut self, random: &mut Random, branch: usize, parent: &[u8], depth: usize) {
        let parent_at = self.entries.len() - 1;
        let chance = [0, 90, 65, 45][depth];
        for (index, name) in NAMES.iter().enumerate() {
            if !random.percent(if index < COMMON { chance } else { 12 }) {
                continue;
            }
            let path = join(parent, name);
            let mut entry = Made::new(random, branch, path.clone());
            match random.below(100) {
                0..40 if depth < 3 => {
                    entry.what = What::Directory;
                    entry.mode = random.of(&MODES_OF_DIRECTORIES);
                    entry.opaque = random.percent(15).then_some(b"y");
                    self.entries.push(entry);
                    self.fill(random, branch, &path, depth + 1);
                    continue;
                }
                0..60 => {
                    entry.what = What::File(random.of(&[0, 1, 100, 5000]));
                    entry.has_capability = random.percent(10);
                }
                60..68 => {
                    let is_file = |other: &&Made| {
                        other.branch == branch && matches!(other.what, What::File(_))
                    };
                    if let Some(other) = self.entries.iter().rfind(is_file) {
                        entry.what = What::HardLink(Inside(other.path.clone()));
                    }
                }
                68..76 => entry.what = What::Symlink(random.of(&LINKS)),
                76..80 => entry.what = What::Fifo,
                80..84 => entry.what = What::Device(random.of(&[3, 5])),
                84..96 => entry.what = What::Whiteout,
                _ => {
                    entry.what = What::MarkedWhiteout;
                    let parent = &mut self.entries[parent_at];
                    parent.opaque = parent.opaque.or(Some(b"x"));
                }
            }
            self.entries.push(entry);
        }
    }

    fn options(&self, here: &Path) -> OsString {
        let mut options = b"lowerdir=".to_vec();
        for branch in 1..=self.lowers {
            if branch > 1 {
                options.push(b':');
            }
            let path = here.join(branch.to_string());
            options.extend(escape(path.as_os_str().as_bytes()));
        }
        options.extend_from_slice(b",upperdir=");
        options.extend(escape(here.join("0").as_os_str().as_bytes()));
        options.extend_from_slice(match self.mix {
            Mix::Default => b"",
            Mix::Moving => b",redirect_dir=on,metacopy=on",
            Mix::UserXattr => b",userxattr",
        });
        OsString::from_vec(options)
    }

    fn make(&self, here: &Path) -> io::Result<()> {
        let at = |branch: usize, path: &[u8]| {
            if path.is_empty() {
                here.join(branch.to_string())
            } else {
                under(&here.join(branch.to_string()), path)
            }
        };
        let marks = match self.mix {
            Mix::UserXattr => "user.overlay",
            _ => "trusted.overlay",
        };
        let mark = |path: &Path, name: &str, value: &[u8]| {
            rustix::fs::lsetxattr(path, format!("{marks}.{name}"), value, XattrFlags::empty())
        };
        for entry in &self.entries {
            let path = at(entry.branch, &entry.path);
            match &entry.what {
                What::Directory => fs::create_dir(&path)?,
                What::File(size) => fs::write(&path, vec![b'.'; *size])?,
                What::HardLink(to) => match fs::hard_link(at(entry.branch, to), &path) {
                    // Dropped when the sequence was made small.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    result => result?,
                },
                What::Symlink(target) => symlink(target, &path)?,
                What::Fifo => make_node(&path, Node::Fifo)?,
                What::Device(minor) => make_node(&path, Node::Device(*minor))?,
                What::Whiteout => {
                    let device = rustix::fs::makedev(0, 0);
                    let kind = FileType::CharacterDevice;
                    rustix::fs::mknodat(CWD, &path, kind, Mode::empty(), device)?;
                }
                What::MarkedWhiteout => {
                    fs::write(&path, "")?;
                    mark(&path, "whiteout", b"y")?;
                }
            }
            lchown(&path, Some(entry.owner), Some(entry.owner))?;
            if !matches!(entry.what, What::Symlink(_)) {
                fs::set_permissions(&path, Permissions::from_mode(entry.mode))?;
            }
            if entry.has_capability {
                set_capability(&path, 1)?;
            }
            if let Some(value) = entry.opaque {
                mark(&path, "opaque", value)?;
            }
        }
        // What is made in a directory changes its time.
        for entry in self.entries.iter().rev() {
            match set_time(&at(entry.branch, &entry.path), entry.time) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                result => result?,
            }
        }
        Ok(())
    }

    /// Makes the branches, does the operations, and says where layerctl and the views disagree.
    /// With `random` the operations are invented, as long as there shall be any.
    fn run(&mut self, here: &Path, random: Option<&mut Random>, tally: &Tally) -> Vec<String> {
        fs::create_dir(here).expect("a new directory");
        for name in ["0", "work", "mount"] {
            fs::create_dir(here.join(name)).expect("a new directory");
        }
        self.make(here).expect("entries can be made");
        let mount = Mount::new(here, &self.options(here));
        let (before, facts_before) = (view(&mount.place), facts_of(&mount.place));
        match random {
            None => {
                for operation in &self.operations {
                    // What fails, because others were left out, changes nothing either.
                    let _ = operation.perform(&mount);
                }
            }
            Some(random) => {
                for _ in 0..self.length {
                    let operation = Operation::random(random, &found(&mount.place));
                    operation.tell(operation.perform(&mount), &mount, tally);
                    self.operations.push(operation);
                }
            }
        }
        if !self.stays_mounted {
            mount.again();
        }
        let after = view(&mount.place);
        let mut wrong = self.handed_over(here, &mount.place, &facts_before);
        if !self.stays_mounted {
            mount.unmount();
        }
        let expected = difference(&before, &after);
        let changes = layerctl([
            OsStr::new("--format"),
            OsStr::new("jsonl"),
            OsStr::new("changes"),
            &self.options(here),
        ]);
        if self.stays_mounted {
            mount.unmount();
        }
        let state = if self.stays_mounted {
            "mounted"
        } else {
            "unmounted"
        };
        count(tally, state);
        for _ in before.keys().filter(|path| after.contains_key(*path)) {
            count(tally, "in both");
        }
        for (_, change) in &expected {
            count(tally, change);
        }
        let rows = changes.rows();
        let told: Vec<_> = rows.iter().map(change_of).collect();
        wrong.extend(rows.iter().filter_map(|row| {
            let mode = |of: &BTreeMap<Vec<u8>, Version>, path: &[u8]| Some(of.get(path)?.mode);
            mistyped(
                row,
                [&|path| mode(&before, path), &|path| mode(&after, path)],
            )
        }));
        let set: BTreeSet<_> = told.iter().cloned().collect();
        if changes.status != Some(0) || !changes.stderr.is_empty() {
            wrong.push(format!("exit {:?}: {}", changes.status, changes.stderr));
        }
        if set.len() < told.len() {
            wrong.push(format!("told twice: {}", changes.text()));
        }
        let shown = |(path, change): &(Vec<u8>, String)| {
            let versions = (before.get(path), after.get(path));
            format!("{change} {}: {versions:?}", quote(path))
        };
        wrong.extend(
            expected
                .difference(&set)
                .map(|row| format!("lacks {}", shown(row))),
        );
        wrong.extend(
            set.difference(&expected)
                .map(|row| format!("has {}", shown(row))),
        );
        fs::remove_dir_all(here).expect("nothing is mounted there");
        wrong
    }

    /// Says where `cp`, `cat` and `diff` disagree with what the mount shows now.
    fn handed_over(&self, here: &Path, mount: &Path, before: &Facts) -> Vec<String> {
        let stack = self.options(here);
        let mut wrong = Vec::new();
        let now = facts_of(mount);
        let ask = |words: &[&str], paths: &[OsString]| {
            let words = words.iter().map(OsStr::new);
            let paths = paths.iter().map(OsString::as_os_str);
            layerctl(words.chain([&*stack, "--".as_ref()]).chain(paths))
        };
        let mut compare = |what: &str, output: &Output, expected: &Facts, found: &Facts| {
            // What is said is that a tar file has no sockets.
            let status = i32::from(expected.len() != now.len()) * 2;
            if output.status != Some(status) || expected != found {
                let (said, status) = (&output.stderr, output.status);
                let difference = lab::union::difference(expected, found);
                wrong.push(format!("{what}: exit {status:?}: {said}{difference}"));
            }
        };
        let copy = here.join("copy");
        let output = ask(&["cp", "-a", "--in"], &["/".into(), copy.clone().into()]);
        compare("cp", &output, &now, &facts_of(&copy));
        // The same by way of another program.
        let output = ask(&["cp", "--in"], &["/".into(), "-".into()]);
        let mut in_a_tar_file = now.clone();
        in_a_tar_file.retain(|_, fact| !fact.starts_with("140"));
        let unpacked = unpack(&output.stdout, &here.join("unpacked"));
        compare("tar", &output, &in_a_tar_file, &unpacked);
        let is_file = |(_, fact): &(&Vec<u8>, &String)| fact.starts_with("100");
        let files: Vec<&Vec<u8>> = now.iter().filter(is_file).map(|(path, _)| path).collect();
        let contents = files
            .iter()
            .flat_map(|path| fs::read(under(mount, path)).expect("a file"));
        let contents: Vec<u8> = contents.collect();
        let paths = files
            .iter()
            .map(|path| OsString::from_vec([b"/", &path[..]].concat()));
        let output = ask(&["cat", "--in"], &paths.collect::<Vec<_>>());
        if !files.is_empty() && (output.status != Some(0) || output.stdout != contents) {
            wrong.push(format!("cat: exit {:?}: {}", output.status, output.stderr));
        }
        let mut below = stack.clone();
        below.push("@1");
        // Both views at once: what they share is read once.
        let words = ["--format", "jsonl", "find"].map(OsStr::new);
        let words = words
            .into_iter()
            .chain([&*stack, &*below, "--".as_ref(), "*".as_ref()]);
        let output = layerctl(words);
        let (mut here_now, mut there_before) = (BTreeSet::new(), BTreeSet::new());
        for row in output.rows() {
            let path = bytes(&row["path"])[1..].to_vec();
            let is_below = text(&row, "target").ends_with("@1");
            let set = if is_below {
                &mut there_before
            } else {
                &mut here_now
            };
            if !set.insert(path) {
                wrong.push(format!("find told twice: {row}"));
            }
        }
        for (found, shown) in [(here_now, &now), (there_before, before)] {
            let shown: BTreeSet<Vec<u8>> = shown.keys().cloned().collect();
            if found != shown {
                let said = &output.stderr;
                let differing: Vec<_> = found.symmetric_difference(&shown).collect();
                wrong.push(format!("find: {said}{differing:?}"));
            }
        }
        let expected = differing(before, &now);
        let words = ["--format", "jsonl", "diff", "--"].map(OsStr::new);
        let output = layerctl(words.into_iter().chain([&*below, &*stack]));
        let rows = output.rows();
        wrong.extend(rows.iter().filter_map(|row| {
            // Facts begin with the mode.
            let mode = |of: &Facts, path: &[u8]| {
                let mode = of.get(path)?.split(' ').next()?;
                u32::from_str_radix(mode, 8).ok()
            };
            mistyped(row, [&|path| mode(before, path), &|path| mode(&now, path)])
        }));
        let rows: BTreeSet<Change> = rows.iter().map(change_of).collect();
        if output.status != Some(i32::from(!expected.is_empty())) || rows != expected {
            let of = |(path, _): &Change| format!("{:?} {:?}", before.get(path), now.get(path));
            let lacks = expected
                .difference(&rows)
                .map(|row| format!("lacks {row:?} {}", of(row)));
            let has = rows
                .difference(&expected)
                .map(|row| format!("has {row:?} {}", of(row)));
            let all: Vec<String> = lacks.chain(has).collect();
            wrong.push(format!("diff: {}{}", output.stderr, all.join("\n")));
        }
        wrong
    }

    /// The same with all left out that the difference does not need.
    fn shrink(&self, here: &Path) -> Sequence {
        let differs = |sequence: &Sequence| {
            !sequence
                .clone()
                .run(here, None, &Mutex::default())
                .is_empty()
        };
        let mut best = self.clone();
        loop {
            let before = best.operations.len() + best.entries.len();
            for at in (0..best.operations.len()).rev() {
                let mut tried = best.clone();
                tried.operations.remove(at);
                if differs(&tried) {
                    best = tried;
                }
            }
            let mut at = best.entries.len();
            while at > 0 {
                at -= 1;
                let Some(entry) = best.entries.get(at).cloned() else {
                    continue;
                };
                let mut tried = best.clone();
                tried.entries.retain(|other| !other.is_within(&entry));
                if !entry.path.is_empty() && differs(&tried) {
                    best = tried;
                }
            }
            if best.operations.len() + best.entries.len() == before {
                return best;
            }
        }
    }

    fn listing(&self) -> String {
        let mut lines = vec![format!("--- sequence {}, {:?}", self.number, self.mix)];
        for entry in &self.entries {
            let path = quote(&join(entry.branch.to_string().as_bytes(), &entry.path));
            lines.push(format!(
                "{path}: {:?}, mode {:o}, owner {}, time {:?}, opaque {:?}",
                entry.what,
                entry.mode,
                entry.owner,
                entry.time,
                entry.opaque.map(quote)
            ));
        }
        lines.extend(
            self.operations
                .iter()
                .map(|operation| format!("{operation:?}")),
        );
        let options = self.options(Path::new(""));
        lines.push(format!(
            "{} (mounted: {})\n",
            options.display(),
            self.stays_mounted
        ));
        lines.join("\n")
    }
}

impl Made {
    fn new(random: &mut Random, branch: usize, path: Vec<u8>) -> Made {
        Made {
            branch,
            path,
            what: What::File(10),
            mode: random.of(&MODES),
            owner: random.of(&OWNERS),
            time: random.of(&TIMES),
            opaque: None,
            has_capability: false,
        }
    }

    /// Whether it is the other, or below it.
    fn is_within(&self, other: &Made) -> bool {
        self.branch == other.branch
            && match self.path.strip_prefix(&other.path[..]) {
                Some(rest) => rest.is_empty() || rest.starts_with(b"/"),
                None => false,
            }
    }
}

struct Mount {
    place: PathBuf,
    options: CString,
}

impl Mount {
    fn new(here: &Path, options: &OsStr) -> Mount {
        let work = here.join("work");
        // With an index there is more in the union than its branches say.
        let options = [
            options.as_bytes(),
            b",index=off,workdir=",
            &escape(work.as_os_str().as_bytes()),
        ];
        let mount = Mount {
            place: here.join("mount"),
            options: CString::new(options.concat()).expect("no NUL"),
        };
        mount.mount();
        mount
    }

    fn mount(&self) {
        let options = self.options.as_c_str();
        rustix::mount::mount(
            "overlay",
            &self.place,
            "overlay",
            MountFlags::empty(),
            options,
        )
        .expect("it can be mounted");
    }

    /// Not detached: the upper branch must be free for the next mount.
    fn unmount(&self) {
        for _ in 0..100_000 {
            match rustix::mount::unmount(&self.place, UnmountFlags::empty()) {
                // A child that another thread starts has everything open until it is the child
                // that was meant.
                Err(Errno::BUSY) => thread::sleep(Duration::from_millis(5)),
                result => return result.expect("it was mounted"),
            }
        }
        panic!("{} stays busy", self.place.display());
    }

    fn again(&self) {
        self.unmount();
        self.mount();
    }
}

impl Operation {
    /// One that is likely to be possible.
    fn random(random: &mut Random, found: &BTreeMap<Vec<u8>, fs::Metadata>) -> Operation {
        let of_kind = |random: &mut Random, is_wanted: &dyn Fn(fs::FileType) -> bool| {
            let wanted = found.iter().filter(|(_, stat)| is_wanted(stat.file_type()));
            let wanted: Vec<_> = wanted.map(|(path, _)| path).collect();
            if wanted.is_empty() {
                Inside(NAMES[0].to_vec())
            } else {
                Inside(random.of(&wanted).clone())
            }
        };
        let any = |random: &mut Random| of_kind(random, &|_| true);
        let file = |random: &mut Random| of_kind(random, &|kind| kind.is_file());
        let directory = |random: &mut Random| of_kind(random, &|kind| kind.is_dir());
        let not_link = |random: &mut Random| of_kind(random, &|kind| !kind.is_symlink());
        let new = |random: &mut Random| {
            let name = if random.percent(85) {
                random.of(&NAMES[..COMMON])
            } else {
                random.of(&NAMES)
            };
            let parent = if random.percent(30) {
                Inside(Vec::new())
            } else {
                directory(random)
            };
            // Renamed into each other they would get ever deeper.
            match parent.iter().filter(|byte| **byte == b'/').count() {
                0..4 => Inside(join(&parent, name)),
                _ => Inside(name.to_vec()),
            }
        };
        match random.below(100) {
            0..14 => Operation::Create(new(random), random.of(&[0, 1, 100, 5000])),
            14..17 => Operation::Append(file(random), random.of(&[1, 100])),
            17..19 => Operation::Overwrite(file(random)),
            19..22 => Operation::OverwriteUnseen(file(random)),
            22..24 => Operation::Truncate(file(random), random.of(&[0, 1, 100, 9000])),
            24..27 => Operation::TruncateUnseen(file(random)),
            27..31 => Operation::Chmod(not_link(random), random.of(&MODES)),
            31..34 => Operation::ChmodUnseen(not_link(random)),
            34..37 => Operation::Chown(any(random), random.of(&OWNERS), random.of(&OWNERS)),
            37..39 => Operation::Times(any(random), random.of(&TIMES)),
            39..41 => Operation::WholeSeconds(any(random)),
            41..45 => Operation::SetAttribute(not_link(random), random.of(&ATTRIBUTES)),
            45..47 => Operation::RemoveAttribute(
                not_link(random),
                random.of(&[CAPABILITY, "user.note", "trusted.overlay.opaque"]),
            ),
            47..49 => Operation::SetCapability(file(random), random.of(&[1, 2])),
            49..54 => Operation::Remove(of_kind(random, &|kind| !kind.is_dir())),
            54..56 => Operation::RemoveTree(directory(random)),
            56..62 => Operation::MakeDirectory(new(random), random.of(&MODES_OF_DIRECTORIES)),
            62..65 => Operation::RemakeDirectory(directory(random)),
            65..67 => Operation::RemakeFile(file(random)),
            67..71 => Operation::Rename(any(random), new(random)),
            71..76 => Operation::Rename(directory(random), new(random)),
            76..77 => Operation::Rename(any(random), any(random)),
            77..80 => Operation::MoveInPlaceOf(directory(random), directory(random)),
            80..83 => Operation::Exchange(any(random), any(random)),
            83..86 => Operation::Symlink(random.of(&LINKS), new(random)),
            86..89 => Operation::HardLink(file(random), new(random)),
            89..92 => {
                let node = random.of(&[Node::Fifo, Node::Socket, Node::Device(3)]);
                Operation::MakeNode(new(random), node)
            }
            92..94 => Operation::ReplaceByDirectory(file(random)),
            94..95 => Operation::ReplaceByFile(directory(random)),
            95..97 => Operation::ThereAndBack(file(random)),
            _ => Operation::Remount,
        }
    }

    fn perform(&self, mount: &Mount) -> io::Result<()> {
        let at = |path: &[u8]| under(&mount.place, path);
        let stat = |path: &[u8]| fs::symlink_metadata(at(path));
        let set_back = |path: &[u8], stat: &fs::Metadata| {
            set_time(&at(path), (stat.mtime(), stat.mtime_nsec()))
        };
        let make_like = |path: &[u8], stat: &fs::Metadata| {
            lchown(at(path), Some(stat.uid()), Some(stat.gid()))?;
            fs::set_permissions(at(path), stat.permissions())
        };
        // A fifo would wait for its other end.
        let flags = (OFlags::NONBLOCK | OFlags::NOFOLLOW).bits();
        let flags = i32::try_from(flags).expect("flags of open");
        let with = |options: &mut OpenOptions, path: &[u8]| {
            options.write(true).custom_flags(flags).open(at(path))
        };
        let opened = |path: &[u8]| with(&mut OpenOptions::new(), path);
        match self {
            Operation::Create(path, size) => {
                with(OpenOptions::new().create(true).truncate(true), path)?
                    .write_all(&vec![b'+'; *size])
            }
            Operation::Append(path, size) => {
                with(OpenOptions::new().append(true), path)?.write_all(&vec![b'+'; *size])
            }
            Operation::Overwrite(path) => opened(path)?.write_all_at(b"*", 0),
            Operation::OverwriteUnseen(path) => {
                let stat = stat(path)?;
                opened(path)?.write_all_at(b"*", 0)?;
                set_back(path, &stat)
            }
            Operation::Truncate(path, size) => opened(path)?.set_len(*size),
            Operation::TruncateUnseen(path) => {
                let stat = stat(path)?;
                opened(path)?.set_len(stat.size())?;
                set_back(path, &stat)
            }
            Operation::Chmod(path, mode) => {
                fs::set_permissions(at(path), Permissions::from_mode(*mode))
            }
            Operation::ChmodUnseen(path) => {
                let stat = stat(path)?;
                fs::set_permissions(at(path), Permissions::from_mode(0o111))?;
                fs::set_permissions(at(path), stat.permissions())
            }
            Operation::Chown(path, owner, group) => lchown(at(path), Some(*owner), Some(*group)),
            Operation::Times(path, time) => set_time(&at(path), *time),
            Operation::WholeSeconds(path) => set_time(&at(path), (stat(path)?.mtime(), 0)),
            Operation::SetAttribute(path, name) => {
                rustix::fs::lsetxattr(at(path), *name, b"y", XattrFlags::empty())
                    .map_err(io::Error::from)
            }
            Operation::RemoveAttribute(path, name) => {
                rustix::fs::lremovexattr(at(path), *name).map_err(io::Error::from)
            }
            Operation::SetCapability(path, number) => set_capability(&at(path), *number),
            Operation::Remove(path) => fs::remove_file(at(path)),
            Operation::RemoveTree(path) => fs::remove_dir_all(at(path)),
            Operation::MakeDirectory(path, mode) => {
                fs::create_dir(at(path))?;
                fs::set_permissions(at(path), Permissions::from_mode(*mode))
            }
            Operation::RemakeDirectory(path) => {
                let stat = stat(path)?;
                fs::remove_dir_all(at(path))?;
                fs::create_dir(at(path))?;
                make_like(path, &stat)
            }
            Operation::RemakeFile(path) => {
                let stat = stat(path)?;
                fs::remove_file(at(path))?;
                make_file_like(&at(path), &stat)
            }
            Operation::Rename(from, to) => fs::rename(at(from), at(to)),
            Operation::MoveInPlaceOf(from, to) if to.starts_with(from) || from.starts_with(to) => {
                Err(Errno::INVAL.into())
            }
            Operation::MoveInPlaceOf(from, to) => {
                fs::remove_dir_all(at(to))?;
                fs::rename(at(from), at(to))
            }
            Operation::Exchange(one, other) => {
                let (one, other) = (at(one), at(other));
                rustix::fs::renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE)
                    .map_err(io::Error::from)
            }
            Operation::Symlink(target, path) => symlink(target, at(path)),
            Operation::HardLink(from, to) => fs::hard_link(at(from), at(to)),
            Operation::MakeNode(path, node) => make_node(&at(path), *node),
            Operation::ReplaceByDirectory(path) => {
                fs::remove_file(at(path))?;
                fs::create_dir(at(path))?;
                fs::write(at(&join(path, b"inside")), "x")
            }
            Operation::ReplaceByFile(path) => {
                fs::remove_dir_all(at(path))?;
                fs::write(at(path), "x")
            }
            Operation::ThereAndBack(path) => {
                let stat = stat(path)?;
                fs::remove_file(at(path))?;
                fs::create_dir(at(path))?;
                fs::write(at(&join(path, b"inside")), "x")?;
                fs::remove_dir_all(at(path))?;
                make_file_like(&at(path), &stat)
            }
            Operation::Remount => {
                mount.again();
                Ok(())
            }
        }
    }

    fn tell(&self, result: io::Result<()>, mount: &Mount, tally: &Tally) {
        match result {
            Ok(()) => count(tally, "done"),
            Err(error) => {
                let errno = Errno::from_io_error(&error).expect("the kernel's");
                return count(tally, &name(errno));
            }
        }
        if let Operation::Rename(_, to) = self
            && fs::symlink_metadata(under(&mount.place, to)).is_ok_and(|stat| stat.is_dir())
        {
            count(tally, "a renamed directory");
        }
    }
}

fn make_file_like(path: &Path, stat: &fs::Metadata) -> io::Result<()> {
    fs::File::create_new(path)?.set_len(stat.size())?;
    lchown(path, Some(stat.uid()), Some(stat.gid()))?;
    fs::set_permissions(path, stat.permissions())?;
    set_time(path, (stat.mtime(), stat.mtime_nsec()))
}

fn make_node(path: &Path, node: Node) -> io::Result<()> {
    let (kind, device) = match node {
        Node::Fifo => (FileType::Fifo, 0),
        Node::Socket => (FileType::Socket, 0),
        Node::Device(minor) => (FileType::CharacterDevice, rustix::fs::makedev(1, minor)),
    };
    Ok(rustix::fs::mknodat(CWD, path, kind, Mode::RUSR, device)?)
}

/// The attribute's second version: a capability that is permitted, by its bit.
fn set_capability(path: &Path, bits: u8) -> io::Result<()> {
    let mut value = [0; 20];
    value[3] = 2;
    value[4] = bits;
    Ok(rustix::fs::lsetxattr(
        path,
        CAPABILITY,
        &value,
        XattrFlags::empty(),
    )?)
}

/// What `docker diff` looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Version {
    /// With its kind.
    mode: u32,
    owner: u32,
    group: u32,
    device: u64,
    size: u64,
    time: (i64, i64),
    capability: Option<Vec<u8>>,
}

impl Version {
    fn is_directory(&self) -> bool {
        FileType::from_raw_mode(self.mode) == FileType::Directory
    }

    fn differs(&self, old: &Version) -> bool {
        let time = |version: &Version| {
            let (seconds, nanoseconds) = version.time;
            // Where one of them has no nanoseconds, the other's do not count.
            let counts = self.time.1 != 0 && old.time.1 != 0;
            (seconds, if counts { nanoseconds } else { 0 })
        };
        let whole = |version: &Version| {
            (
                version.mode,
                version.owner,
                version.group,
                version.device,
                version.capability.clone(),
            )
        };
        whole(self) != whole(old)
            || !self.is_directory() && (self.size != old.size || time(self) != time(old))
    }
}

/// Every path but the root's.
type View = BTreeMap<Vec<u8>, Version>;

fn view(mount: &Path) -> View {
    let version = |(path, stat): (Vec<u8>, fs::Metadata)| {
        let on_host = under(mount, &path);
        let mut capability = Vec::with_capacity(64);
        let spare = rustix::buffer::spare_capacity(&mut capability);
        let has_capability = match rustix::fs::lgetxattr(&on_host, CAPABILITY, spare) {
            Ok(_) => true,
            Err(Errno::NODATA | Errno::OPNOTSUPP) => false,
            Err(errno) => panic!("{}: {errno}", on_host.display()),
        };
        let version = Version {
            mode: stat.mode(),
            owner: stat.uid(),
            group: stat.gid(),
            device: stat.rdev(),
            size: stat.size(),
            time: (stat.mtime(), stat.mtime_nsec()),
            capability: has_capability.then_some(capability),
        };
        (path, version)
    };
    found(mount).into_iter().map(version).collect()
}

/// Everything that is there, at any depth, in an order that is always the same.
fn found(mount: &Path) -> BTreeMap<Vec<u8>, fs::Metadata> {
    let mut found = BTreeMap::new();
    let mut directories = vec![Vec::new()];
    while let Some(parent) = directories.pop() {
        let entries = fs::read_dir(under(mount, &parent)).expect("it can be listed");
        for entry in entries {
            let entry = entry.expect("it can be listed");
            let path = join(&parent, entry.file_name().as_bytes());
            let stat = match entry.metadata() {
                Ok(stat) => stat,
                // Listed, and not there: a whiteout where nothing is merged.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => panic!("{}: {error}", entry.path().display()),
            };
            if stat.is_dir() {
                directories.push(path.clone());
            }
            found.insert(path, stat);
        }
    }
    found
}

/// A path, and what has become of it.
type Change = (Vec<u8>, String);

/// The lines of `docker diff`.
fn difference(before: &View, after: &View) -> BTreeSet<Change> {
    let mut changes: BTreeMap<&[u8], &str> = BTreeMap::new();
    for (path, new) in after {
        match before.get(path) {
            None => {
                changes.insert(path, "added");
            }
            Some(old) if new.differs(old) => {
                changes.insert(path, "changed");
            }
            Some(_) => {}
        }
    }
    for path in before.keys().filter(|path| !after.contains_key(*path)) {
        // What vanished with its directory, or with what a file has replaced, is not named.
        if parent(path).is_none_or(|parent| after.get(parent).is_some_and(Version::is_directory)) {
            changes.insert(path, "deleted");
        }
    }
    let named: Vec<&[u8]> = changes.keys().copied().collect();
    for path in named {
        for parent in std::iter::successors(parent(path), |path| parent(path)) {
            changes.entry(parent).or_insert("changed");
        }
    }
    changes
        .into_iter()
        .map(|(path, change)| (path.to_vec(), change.to_owned()))
        .collect()
}

/// All that a copy shares, but for the root.
fn facts_of(place: &Path) -> Facts {
    let fact = |(path, _): (Vec<u8>, fs::Metadata)| {
        let fact = lab::union::fact(&under(place, &path), Detail::Copied);
        (path, fact)
    };
    found(place).into_iter().map(fact).collect()
}

/// What a tar file has, as another program sees it.
fn unpack(archive: &[u8], to: &Path) -> Facts {
    fs::create_dir(to).expect("a new directory");
    let mut tar = std::process::Command::new("tar");
    tar.args([
        "--xattrs",
        "--xattrs-include=*",
        "--numeric-owner",
        "-xpf",
        "-",
        "-C",
    ]);
    let mut tar = tar
        .arg(to)
        .stdin(std::process::Stdio::piped())
        .spawn()
        .expect("tar is installed");
    let mut stdin = tar.stdin.take().expect("piped");
    io::Write::write_all(&mut stdin, archive).expect("tar reads it all");
    drop(stdin);
    assert!(tar.wait().expect("our child").success());
    facts_of(to)
}

/// What `diff` has to tell of two views: of a directory not its time.
fn differing(before: &Facts, after: &Facts) -> BTreeSet<Change> {
    let counted = |fact: &String| match fact.split_once(" mtime ") {
        Some((mode, rest)) if mode.starts_with("4") => {
            let rest = rest.split_once(' ').map_or("", |(_, rest)| rest);
            format!("{mode} {rest}")
        }
        _ => fact.clone(),
    };
    let is_directory = |fact: &String| fact.starts_with('4');
    let mut changes = BTreeSet::new();
    for (path, new) in after {
        match before.get(path).map(counted) {
            None => drop(changes.insert((path.clone(), "added".to_owned()))),
            Some(old) if old != counted(new) => {
                changes.insert((path.clone(), "changed".to_owned()));
            }
            Some(_) => {}
        }
    }
    for path in before.keys().filter(|path| !after.contains_key(*path)) {
        if parent(path).is_none_or(|parent| after.get(parent).is_some_and(is_directory)) {
            changes.insert((path.clone(), "deleted".to_owned()));
        }
    }
    changes
}

fn parent(path: &[u8]) -> Option<&[u8]> {
    let at = path.iter().rposition(|byte| *byte == b'/')?;
    Some(&path[..at])
}

/// The mode that a view has at a path.
type ModeOf<'f> = &'f dyn Fn(&[u8]) -> Option<u32>;

/// The type of a row that is not the one that the mounted view has; `modes` are asked for the mode
/// before and after.
fn mistyped(row: &Value, modes: [ModeOf<'_>; 2]) -> Option<String> {
    let (path, change) = change_of(row);
    let mode = modes[usize::from(change != "deleted")](&path)?;
    let is = match FileType::from_raw_mode(mode) {
        FileType::Directory => "directory",
        FileType::RegularFile => "file",
        FileType::Symlink => "symlink",
        FileType::CharacterDevice => "char",
        FileType::BlockDevice => "block",
        FileType::Socket => "socket",
        _ => "fifo",
    };
    (row["type"] != is).then(|| format!("{row} is a {is}"))
}

/// A row of `changes`.
fn change_of(row: &Value) -> Change {
    let path = bytes(&row["path"]);
    let path = path.strip_prefix(b"/").expect("absolute");
    (path.to_vec(), text(row, "change").to_owned())
}
