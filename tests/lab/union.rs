//! A stack of directories of our own, to be changed: what lies on disk and what the union shows,
//! as texts that can be compared.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags, lgetxattr, llistxattr,
    lsetxattr, mknodat, utimensat,
};
use tempfile::TempDir;
use walkdir::WalkDir;

use crate::lab::host::spelled;
use crate::lab::run::{self, Output};

/// Facts by path.
pub type Facts = BTreeMap<Vec<u8>, String>;

pub struct Union {
    branches: Vec<(&'static str, &'static str)>,
    home: PathBuf,
    _home: Option<TempDir>,
}

impl Union {
    /// Branches by name and permission, topmost first.
    pub fn of(branches: &[(&'static str, &'static str)]) -> Union {
        let home = tempfile::tempdir().expect("a temporary directory");
        let mut union = Union::at_home(home.path(), branches);
        union._home = Some(home);
        union
    }

    pub fn at_home(home: &Path, branches: &[(&'static str, &'static str)]) -> Union {
        for (name, _) in branches {
            fs::create_dir_all(home.join(name)).expect("a directory of our own");
        }
        Union {
            branches: branches.to_vec(),
            home: home.to_owned(),
            _home: None,
        }
    }

    /// The container, an image layer, the base: what most is shown with.
    pub fn usual() -> Union {
        Union::of(&[("up", "rw"), ("mid", "ro+wh"), ("low", "ro+wh")])
    }

    pub fn home(&self) -> &Path {
        &self.home
    }

    pub fn at(&self, path: impl AsRef<OsStr>) -> PathBuf {
        self.home.join(Path::new(path.as_ref()))
    }

    fn ready(&self, path: &OsStr) -> PathBuf {
        let at = self.at(path);
        fs::create_dir_all(at.parent().expect("below a branch")).expect("a directory of our own");
        at
    }

    /// Makes a file and the directories on its way.
    pub fn file(&self, path: impl AsRef<OsStr>, content: impl AsRef<[u8]>) -> &Union {
        let at = self.ready(path.as_ref());
        fs::write(&at, content).unwrap_or_else(|error| panic!("{}: {error}", at.display()));
        self
    }

    /// Makes a mark as AUFS does.
    pub fn mark(&self, path: impl AsRef<OsStr>) -> &Union {
        let path = path.as_ref();
        self.file(path, "").mode(path, 0o444)
    }

    pub fn dir(&self, path: impl AsRef<OsStr>) -> &Union {
        fs::create_dir_all(self.at(path)).expect("a directory of our own");
        self
    }

    pub fn link(&self, path: impl AsRef<OsStr>, target: impl AsRef<Path>) -> &Union {
        let at = self.ready(path.as_ref());
        symlink(target, &at).unwrap_or_else(|error| panic!("{}: {error}", at.display()));
        self
    }

    pub fn hard_link(&self, of: &str, path: &str) -> &Union {
        let at = self.ready(OsStr::new(path));
        fs::hard_link(self.at(of), at).expect("a link of our own");
        self
    }

    pub fn node(&self, path: &str, kind: FileType, device: u64) -> &Union {
        let at = self.ready(OsStr::new(path));
        mknodat(CWD, &at, kind, Mode::from_raw_mode(0o640), device)
            .unwrap_or_else(|error| panic!("{}: {error}", at.display()));
        self
    }

    pub fn mode(&self, path: impl AsRef<OsStr>, mode: u32) -> &Union {
        fs::set_permissions(self.at(path), fs::Permissions::from_mode(mode)).expect("our own file");
        self
    }

    pub fn owner(&self, path: impl AsRef<OsStr>, uid: u32, gid: u32) -> &Union {
        lchown(self.at(path), Some(uid), Some(gid)).expect("root may");
        self
    }

    pub fn time(&self, path: impl AsRef<OsStr>, seconds: i64) -> &Union {
        let spec = |tv_sec| Timespec {
            tv_sec,
            tv_nsec: 123_456_789,
        };
        let times = Timestamps {
            last_access: spec(seconds + 5),
            last_modification: spec(seconds),
        };
        utimensat(CWD, self.at(path), &times, AtFlags::SYMLINK_NOFOLLOW).expect("our own file");
        self
    }

    /// Gives everything the same time, so that two unions made alike are alike.
    pub fn time_all(&self, seconds: i64) -> &Union {
        for path in self.disk().into_keys() {
            self.time(OsStr::from_bytes(&path), seconds);
        }
        self
    }

    pub fn xattr(&self, path: impl AsRef<OsStr>, name: &str, value: &[u8]) -> &Union {
        lsetxattr(self.at(path), name, value, XattrFlags::empty())
            .expect("a file system with attributes");
        self
    }

    /// Everything on disk below the home, in every detail but the time of reading.
    pub fn disk(&self) -> Facts {
        facts(&self.home)
    }

    /// One branch's part of it.
    pub fn branch(&self, name: &str) -> Facts {
        facts(&self.home.join(name))
    }

    /// As a person spells it.
    pub fn spelled(&self) -> OsString {
        let branches: Vec<(PathBuf, &str)> = self
            .branches
            .iter()
            .map(|(name, permission)| (self.home.join(name), *permission))
            .collect();
        let branches: Vec<(&Path, &str)> = branches
            .iter()
            .map(|(path, permission)| (path.as_path(), *permission))
            .collect();
        spelled(&branches)
    }

    /// `restore` with options, of a path.
    pub fn command(&self, options: &[&str], path: impl AsRef<OsStr>) -> Command {
        let mut command = run::command();
        command
            .args(["--format", "jsonl", "restore", "--in"])
            .arg(self.spelled())
            .args(options)
            .arg("--")
            .arg(path);
        command.current_dir(&self.home);
        command
    }

    #[track_caller]
    pub fn restore(&self, options: &[&str], path: impl AsRef<OsStr>) -> Output {
        run::run(&mut self.command(options, path))
    }

    /// What the union shows, each name with its metadata and content, whichever branch provides
    /// it. Directories without their times: making a name in one changes them.
    #[track_caller]
    pub fn view(&self) -> Facts {
        let mut facts = Facts::new();
        let listed = run::layerctl([
            OsStr::new("--format"),
            "jsonl".as_ref(),
            "ls".as_ref(),
            "-R".as_ref(),
            "-l".as_ref(),
            "--in".as_ref(),
            &self.spelled(),
            "/".as_ref(),
        ]);
        for mut row in listed.rows() {
            let path = run::bytes(&row["path"]);
            let object = row.as_object_mut().expect("an object");
            object.remove("target");
            let branch = object.remove("branch");
            if object.get("type").is_some_and(|kind| kind == "directory") {
                object.remove("mtime");
                object.remove("size");
            }
            let mut fact = row.to_string();
            if row["type"] == "file" {
                let branch = branch.and_then(|branch| branch.as_u64()).expect("a branch");
                let branch = self.branches[usize::try_from(branch).expect("small")].0;
                let at = [self.at(branch).as_os_str().as_bytes(), &path].concat();
                fact.push_str(&format!(
                    " {:?}",
                    digest(&fs::read(OsStr::from_bytes(&at)).expect("a file"))
                ));
            }
            facts.insert(path, fact);
        }
        facts
    }
}

fn digest(content: &[u8]) -> (usize, String) {
    (
        content.len(),
        String::from_utf8_lossy(&content[..content.len().min(80)]).into_owned(),
    )
}

/// A tree in every detail but the time of reading; the root itself left out.
pub fn facts(root: &Path) -> Facts {
    let mut facts = Facts::new();
    for entry in WalkDir::new(root).min_depth(1) {
        let entry = entry.expect("our own tree");
        let path = entry
            .path()
            .strip_prefix(root)
            .expect("below it")
            .as_os_str()
            .as_bytes()
            .to_vec();
        facts.insert(path, fact(entry.path(), Detail::All));
    }
    facts
}

#[derive(PartialEq, Eq, Clone, Copy)]
pub enum Detail {
    All,
    /// What a copy of it shares.
    Copied,
}

/// One entry, in words.
pub fn fact(at: &Path, detail: Detail) -> String {
    let meta = fs::symlink_metadata(at).unwrap_or_else(|error| panic!("{}: {error}", at.display()));
    let mut fact = format!(
        "{:o} {}:{} mtime {}.{:09}",
        meta.mode(),
        meta.uid(),
        meta.gid(),
        meta.mtime(),
        meta.mtime_nsec()
    );
    if detail == Detail::All {
        fact.push_str(&format!(" inode {} links {}", meta.ino(), meta.nlink()));
    }
    if meta.is_file() {
        fact.push_str(&format!(" {:?}", digest(&fs::read(at).expect("readable"))));
    } else if meta.is_symlink() {
        fact.push_str(&format!(" -> {:?}", fs::read_link(at).expect("a link")));
    } else if !meta.is_dir() {
        fact.push_str(&format!(" device {:x}", meta.rdev()));
    }
    for (name, value) in xattrs(at) {
        fact.push_str(&format!(" {name}={value:?}"));
    }
    fact
}

fn xattrs(at: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut list = vec![0u8; 4096];
    let length = llistxattr(at, &mut list[..]).unwrap_or(0);
    let names = list[..length]
        .split(|&byte| byte == 0)
        .filter(|name| !name.is_empty() && !name.starts_with(b"security.selinux"));
    let of = |name: &[u8]| {
        let mut value = vec![0u8; 4096];
        let length = lgetxattr(at, name, &mut value[..]).unwrap_or(0);
        value.truncate(length);
        value
    };
    names
        .map(|name| (String::from_utf8_lossy(name).into_owned(), of(name)))
        .collect()
}

/// What differs, in lines.
pub fn difference(before: &Facts, after: &Facts) -> String {
    let mut lines = String::new();
    for (path, fact) in before
        .iter()
        .filter(|(path, fact)| after.get(*path) != Some(fact))
    {
        lines.push_str(&format!("- {} {fact}\n", path.escape_ascii()));
    }
    for (path, fact) in after
        .iter()
        .filter(|(path, fact)| before.get(*path) != Some(fact))
    {
        lines.push_str(&format!("+ {} {fact}\n", path.escape_ascii()));
    }
    lines
}

#[track_caller]
pub fn assert_same(before: &Facts, after: &Facts) {
    assert!(
        before == after,
        "it changed:\n{}",
        difference(before, after)
    );
}
