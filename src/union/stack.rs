//! The branches of a union, and what one of them has by itself.

use std::sync::Arc;

use rustix::io::Errno;

use super::cut::Cut;
use super::merger::Merger;
use crate::branch::{BranchSpec, Permission};
use crate::bytes::Bytes;
use crate::dir::{Access, Dir, Stat};
use crate::error::{Error, Result};
use crate::overlay::Namespace;
use crate::whiteout::{Grammar, MarkKind, Source};

/// The longest value of an attribute that keeps an owner and a mode, in bytes.
const OVERRIDE_MAX: usize = 64;

/// The branches of one union, topmost first.
#[derive(Debug)]
pub struct Stack {
    /// The directories of the union.
    pub branches: Vec<Branch>,
    /// What the topmost branch is compared with, where that is not the branches below it.
    pub base: Option<Box<Stack>>,
    /// Whether it is an AUFS that does not look for changes of its branches (`udba=none`): a name
    /// beside its own whiteout is not there, where others answer an error.
    pub is_unwatched: bool,
}

/// How a mount shows the owners of a branch: as others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IdMap {
    /// How user ids are shown.
    pub users: Vec<IdRange>,
    /// How group ids are shown.
    pub groups: Vec<IdRange>,
}

/// `size` ids from `stored` on stand for those from `shown` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdRange {
    /// The first id, as the branch has it.
    pub stored: u32,
    /// The first id, as the mount shows it.
    pub shown: u32,
    /// How many ids there are.
    pub size: u32,
}

impl IdRange {
    pub fn show(ranges: &[IdRange], id: u32) -> u32 {
        let found = ranges.iter().find_map(|range| {
            let at = id.checked_sub(range.stored).filter(|at| *at < range.size)?;
            range.shown.checked_add(at)
        });
        // The kernel shows an id that the map leaves out as nobody's.
        found.unwrap_or(OVERFLOW_ID)
    }
}

/// The kernel's id of what has none.
const OVERFLOW_ID: u32 = 65_534;

/// One directory of a union.
#[derive(Debug)]
pub struct Branch {
    /// The directory's path on the host.
    pub path: Bytes,
    /// How the union may use it.
    pub permission: Permission,
    /// How it spells that a name is deleted.
    pub grammar: Grammar,
    /// The directory itself, or why it could not be opened.
    pub dir: Result<Dir>,
    /// How its owners are shown, if not as they are.
    pub owners: Option<Arc<IdMap>>,
    /// The attribute in which entries have their owner and mode, if not as they are.
    pub overrides: Option<&'static str>,
}

impl Branch {
    /// A branch of an AUFS union, whose permission says whether its marks count.
    pub fn aufs(spec: &BranchSpec, dir: Result<Dir>) -> Branch {
        let grammar = if spec.permission.honours_marks() {
            Grammar::Aufs
        } else {
            Grammar::AufsIgnored
        };
        Branch::new(spec, grammar, dir)
    }

    /// A branch whose owners are shown as they are, or as it says itself: its root has the attribute
    /// where its entries may.
    pub fn new(spec: &BranchSpec, grammar: Grammar, dir: Result<Dir>) -> Branch {
        let mut names = grammar.override_attributes().iter();
        let has =
            |dir: &Dir, name: &str| matches!(dir.attribute_self(name, OVERRIDE_MAX), Ok(Some(_)));
        let overrides = dir
            .as_ref()
            .ok()
            .and_then(|dir| names.find(|name| has(dir, name)));
        Branch {
            overrides: overrides.copied(),
            path: spec.path.clone(),
            permission: spec.permission.clone(),
            grammar,
            dir,
            owners: None,
        }
    }

    /// What the union shows of something in the branch. `attribute` asks it for one of its extended
    /// attributes.
    pub(super) fn shown(
        &self,
        stat: Stat,
        attribute: impl FnOnce(&str, usize) -> Result<Option<Vec<u8>>, Errno>,
    ) -> Stat {
        let own = self
            .overrides
            .and_then(|name| attribute(name, OVERRIDE_MAX).ok()?);
        let stat = own.and_then(|own| overridden(&own, stat)).unwrap_or(stat);
        match &self.owners {
            None => stat,
            Some(map) => Stat {
                uid: IdRange::show(&map.users, stat.uid),
                gid: IdRange::show(&map.groups, stat.gid),
                ..stat
            },
        }
    }
}

/// What an attribute says of owner and mode: `1000:1000:0644:file`, `0:0:100755`, the mode octal and
/// with or without the type; none if it does not say it so. docs/facts.md#engines-2026-b12
fn overridden(attribute: &[u8], stat: Stat) -> Option<Stat> {
    let text = std::str::from_utf8(attribute).ok()?;
    let mut parts = text.trim_end_matches('\0').split(':');
    Some(Stat {
        uid: parts.next()?.parse().ok()?,
        gid: parts.next()?.parse().ok()?,
        mode: u32::from_str_radix(parts.next()?, 8).ok()? & 0o7777,
        ..stat
    })
}

impl Stack {
    /// A stack whose topmost branch is compared with those below it.
    #[cfg(feature = "internals")]
    pub fn new(branches: Vec<Branch>) -> Stack {
        Stack {
            branches,
            base: None,
            is_unwatched: false,
        }
    }

    /// By whose rules the branches become one view: the topmost tells.
    pub fn merger(&self) -> Merger {
        let topmost = self.branches.first();
        topmost.map_or(Merger::Alone, |branch| Merger::of(branch.grammar))
    }

    /// Whether the marks of this union are among those that the kernel tells root only: to others
    /// it denies that there are any.
    pub fn has_trusted_marks(&self) -> bool {
        let mut branches = self.branches.iter();
        branches.any(|branch| branch.grammar.namespace() == Some(Namespace::Trusted))
    }

    /// The topmost writable branch: where changes go.
    pub fn writable(&self) -> Option<usize> {
        self.branches
            .iter()
            .position(|branch| branch.permission.is_writable())
    }

    /// The branches that could not be opened. While there are any, no answer is sure.
    pub fn lost(&self) -> impl Iterator<Item = Error> {
        self.branches
            .iter()
            .enumerate()
            .filter_map(|(index, branch)| {
                let error = branch.dir.as_ref().err()?;
                Some(Error::BranchLost {
                    index,
                    path: branch.path.clone(),
                    why: error.reason(),
                    is_denied: error.is_denied(),
                })
            })
    }

    /// Whether a branch below another could not be opened.
    pub fn lost_below(&self, branch: usize) -> bool {
        self.branches
            .iter()
            .skip(branch + 1)
            .any(|below| below.dir.is_err())
    }

    /// What one branch alone holds at `path`, marks and other branches left aside.
    ///
    /// # Errors
    /// A directory on the way that cannot be searched.
    pub fn version(&self, branch: usize, path: &Bytes) -> Result<Option<Stat>> {
        if climbs(path) {
            return Ok(None);
        }
        let fail = |errno| Error::io(self.on_host(branch, path), errno);
        let Some(dir) = self.dir_at(branch, &path.parent())? else {
            return Ok(None);
        };
        let name = path.file_name();
        if name.is_empty() {
            return dir.stat_self().map(Some).map_err(fail);
        }
        match self.branches[branch].grammar.version(&dir, name) {
            Err(Errno::NAMETOOLONG) => Ok(None),
            version => version.map_err(fail),
        }
    }

    /// The whiteout that one branch has of a path.
    ///
    /// # Errors
    /// A directory on the way that cannot be searched.
    pub fn whiteout(&self, branch: usize, path: &Bytes) -> Result<Option<Cut>> {
        if climbs(path) {
            return Ok(None);
        }
        let Some(dir) = self.dir_at(branch, &path.parent())? else {
            return Ok(None);
        };
        let grammar = self.branches[branch].grammar;
        let mark = grammar.whiteout_name(&Source::Disk(&dir), path.file_name());
        let mark = mark.map_err(|errno| Error::io(self.on_host(branch, path), errno))?;
        Ok(mark.map(|mark| Cut {
            branch,
            mark: path.parent().join(&mark),
            kind: MarkKind::Whiteout,
            of: path.clone(),
        }))
    }

    /// A branch's own directory, no link followed; `None` where it has none there.
    ///
    /// # Errors
    /// A directory on the way that cannot be searched.
    pub fn dir_at(&self, branch: usize, path: &Bytes) -> Result<Option<Dir>> {
        let Ok(root) = &self.branches[branch].dir else {
            return Ok(None);
        };
        if climbs(path) {
            return Ok(None);
        }
        let mut dir = root.clone();
        for name in path.components() {
            let child = child_if_any(&dir, name);
            let child = child.map_err(|errno| Error::io(self.on_host(branch, path), errno))?;
            let Some(child) = child else {
                return Ok(None);
            };
            dir = child;
        }
        Ok(Some(dir))
    }

    /// The directories on the way to a path that a branch does not have, topmost first.
    ///
    /// # Errors
    /// A directory on the way that cannot be searched.
    pub fn missing(&self, branch: usize, path: &Bytes) -> Result<Vec<Bytes>> {
        let mut missing = Vec::new();
        let mut on_the_way = Bytes::from("/");
        let mut dir = self.dir_at(branch, &on_the_way)?;
        for name in path.components() {
            on_the_way = on_the_way.join(name);
            let child = dir.map(|dir| child_if_any(&dir, name)).transpose();
            let child = child.map_err(|errno| Error::io(self.on_host(branch, path), errno))?;
            dir = child.flatten();
            if dir.is_none() {
                missing.push(on_the_way.clone());
            }
        }
        Ok(missing)
    }

    /// Where a path of the union lies on the host, in one branch.
    pub fn on_host(&self, branch: usize, path: &Bytes) -> Bytes {
        self.branches[branch].path.join_path(path)
    }
}

/// A directory's own sub-directory; `None` where it has none of that name.
fn child_if_any(dir: &Dir, name: &[u8]) -> Result<Option<Dir>, Errno> {
    match dir.child(name, Access::Lookup) {
        Ok(child) => Ok(Some(child)),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NAMETOOLONG) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// What is left of a path that ended early may still climb; no branch is left that way.
fn climbs(path: &Bytes) -> bool {
    path.components().any(|part| part == b"..")
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // a test makes the disk that is read
mod tests {
    use std::path::Path;

    use super::*;
    use crate::dir::Kind;
    use crate::overlay::Rules;

    #[test]
    fn an_id_outside_of_every_range_is_nobodys() {
        let range = |stored, shown, size| IdRange {
            stored,
            shown,
            size,
        };
        let ranges = [range(0, 1000, 10), range(100, 5000, 1)];
        for (stored, shown) in [
            (0, 1000),
            (9, 1009),
            (10, OVERFLOW_ID),
            (99, OVERFLOW_ID),
            (100, 5000),
            (101, OVERFLOW_ID),
        ] {
            assert_eq!(IdRange::show(&ranges, stored), shown, "{stored}");
        }
        assert_eq!(
            IdRange::show(&[range(0, u32::MAX, 2)], 1),
            OVERFLOW_ID,
            "beyond the last id"
        );
    }

    fn stat() -> Stat {
        Stat {
            kind: Kind::File,
            mode: 0o4755,
            uid: 1,
            gid: 2,
            size: 3,
            mtime: (4, 5),
            atime: (6, 7),
            ctime: (8, 9),
            ino: 10,
            dev: 11,
            rdev: 0,
            nlink: 1,
            blocks: 8,
        }
    }

    #[test]
    fn an_attribute_says_owner_and_mode() {
        // docs/facts.md#engines-2026-b12
        let says = |uid, gid, mode| {
            Some(Stat {
                uid,
                gid,
                mode,
                ..stat()
            })
        };
        for (attribute, expected) in [
            (&b"0:0:0644:file"[..], says(0, 0, 0o644)),
            (b"1000:1001:100755", says(1000, 1001, 0o755)),
            (b"1000:1001:104755\0", says(1000, 1001, 0o4755)),
            (b"1000:1001", None),
            (b"1000:1001:9", None),
            (b"root:root:0644", None),
            (b"\xff", None),
        ] {
            assert_eq!(overridden(attribute, stat()), expected, "{attribute:?}");
        }
    }

    /// A branch whose directory is there, or is not.
    fn branch(path: &str, grammar: Grammar, is_there: bool) -> Branch {
        let path = Bytes::from(path);
        let dir = if is_there {
            Dir::open_root(Path::new("/"))
        } else {
            Err(Error::io(path.clone(), Errno::NOENT))
        };
        Branch {
            path,
            permission: Permission::parse(b"ro"),
            grammar,
            dir,
            owners: None,
            overrides: None,
        }
    }

    fn stack(branches: Vec<Branch>) -> Stack {
        Stack {
            branches,
            base: None,
            is_unwatched: false,
        }
    }

    #[test]
    fn a_branch_shows_what_its_mount_and_its_attributes_say() {
        let mut branch = branch("/", Grammar::Plain, true);
        let none = |_: &str, _| Ok(None);
        assert_eq!(branch.shown(stat(), none), stat());
        let range = |stored, shown| IdRange {
            stored,
            shown,
            size: 1,
        };
        branch.owners = Some(Arc::new(IdMap {
            users: vec![range(1, 501), range(100, 600)],
            groups: vec![range(2, 502), range(101, 601)],
        }));
        let shown = branch.shown(stat(), none);
        assert_eq!((shown.uid, shown.gid, shown.mode), (501, 502, 0o4755));
        branch.overrides = Some("user.containers.override_stat");
        let shown = branch.shown(stat(), |name, _| {
            assert_eq!(name, "user.containers.override_stat");
            Ok(Some(b"100:101:0600".to_vec()))
        });
        assert_eq!((shown.uid, shown.gid, shown.mode), (600, 601, 0o600));
    }

    #[test]
    fn what_a_stack_lacks_is_known() {
        let plain = Grammar::Plain;
        let stack = stack(vec![
            branch("/a", plain, true),
            branch("/b", plain, false),
            branch("/c", plain, true),
        ]);
        let below: Vec<bool> = (0..3).map(|branch| stack.lost_below(branch)).collect();
        assert_eq!(below, [true, false, false]);
        assert_eq!(stack.lost().count(), 1);
    }

    #[test]
    fn only_the_marks_of_root_are_trusted() {
        let overlay = |namespace| Grammar::Overlay(Rules::of(namespace));
        for (grammar, expected) in [
            (Grammar::Aufs, false),
            (overlay(Namespace::User), false),
            (overlay(Namespace::Trusted), true),
            (Grammar::FuseOverlay(Namespace::Trusted), true),
        ] {
            let plain = branch("/", Grammar::Plain, true);
            let stack = stack(vec![plain, branch("/", grammar, true)]);
            assert_eq!(stack.has_trusted_marks(), expected, "{grammar:?}");
        }
    }

    #[test]
    fn no_path_leaves_a_branch() {
        let home = tempfile::tempdir().expect("a temporary directory");
        let root = home.path().join("root");
        std::fs::create_dir_all(home.path().join("beside/deep")).expect("our own");
        std::fs::create_dir_all(root.join("beside/deep")).expect("our own");
        let mut branch = branch("/", Grammar::Plain, true);
        branch.dir = Dir::open_root(&root);
        let stack = stack(vec![branch]);
        let is_there = |path: &str| {
            let path = Bytes::from(path);
            let version = stack.version(0, &path).expect("it is readable");
            let dir = stack.dir_at(0, &path).expect("it is readable");
            (version.is_some(), dir.is_some())
        };
        assert_eq!(is_there("/beside/deep"), (true, true));
        assert_eq!(is_there("/beside/.."), (false, false));
        assert_eq!(is_there("/../beside"), (false, false));
        assert_eq!(is_there("/../root/beside"), (false, false));
    }
}
