//! Where a union is: on which machine, where mounted, and in which directory it works.

use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::Query;
use super::mount::{OpenMount, mount_number};
use crate::bytes::Bytes;
use crate::dir::{Dir, Kind, Stat};
use crate::engine::namespace::Process;
use crate::engine::{MountPoint, MountState, ReadOnly, Survey, Union, UnionKind};
use crate::error::{Error, Result};

/// Where a union can be seen while it is mounted.
#[derive(Debug, Clone)]
pub struct View {
    pub mount: MountPoint,
    /// The same, opened once and for all; or why it could not be.
    open: Result<OpenMount>,
    /// Where other unions are mounted that share the branch.
    also: Vec<Result<OpenMount>>,
}

impl View {
    /// The mount by which a path of a union is reached best. Under another root nothing is
    /// mounted, whatever the copied table says.
    fn find(survey: &Survey<'_>, union: &Union, path: &Bytes) -> Option<View> {
        if !survey.host.is_live() || union.state == MountState::NotMounted {
            return None;
        }
        let reaching = union
            .mounts
            .iter()
            .filter(|mount| is_seen_through(survey, union, mount, path));
        // The whole union rather than a part of it, and where it can be written to.
        let best = reaching.min_by_key(|mount| {
            let is_read_only = mount.read_only() != ReadOnly::No;
            (is_read_only, mount.root.components().count())
        });
        best.map(|mount| View {
            mount: mount.clone(),
            open: OpenMount::open(mount, union.superblock.as_ref()),
            also: sharing(survey, union),
        })
    }

    fn mounted(&self) -> Result<&OpenMount> {
        self.open.as_ref().map_err(Clone::clone)
    }

    /// Sees that the union is still mounted there, which may have been a while ago.
    ///
    /// # Errors
    /// It is not.
    pub fn prove(&self) -> Result<()> {
        self.mounted()?.prove()
    }

    /// Refreshes each mount, whatever becomes of another.
    pub fn refresh(&self) -> Result<(), Errno> {
        let refresh = |open: &Result<OpenMount>| match open {
            Ok(open) => open.refresh(),
            Err(Error::Io { errno, .. }) => Err(*errno),
            Err(_) => Err(Errno::STALE),
        };
        let all = std::iter::once(&self.open).chain(&self.also);
        all.map(refresh).fold(Ok(()), Result::and)
    }

    /// The union's path as seen below the mount point.
    fn inside(&self, path: &Bytes) -> Result<Bytes> {
        path.strip_prefix(&self.mount.root)
            .ok_or_else(|| Error::Refused {
                what: format!(
                    "{path} lies outside of what is mounted at {}",
                    self.mount.path
                ),
                hint: "mount the whole union somewhere, and try again".into(),
            })
    }

    /// A directory of the union, through the mount.
    ///
    /// # Errors
    /// Something else is mounted there, or on the way: it may have been a moment ago.
    pub fn open(&self, path: &Bytes) -> Result<Dir> {
        let inside = self.inside(path)?;
        let root = self.mounted()?.root();
        let dir = root.descend(&inside)?;
        if mount_number(&dir) == mount_number(root) {
            Ok(dir)
        } else {
            Err(Error::Refused {
                what: format!("something else is mounted at {}", self.path(path)?),
                hint: "nothing is written there; unmount it, or see what it is".into(),
            })
        }
    }

    /// The path on the machine by which a person reaches something in the union.
    pub fn path(&self, path: &Bytes) -> Result<Bytes> {
        let inside = self.inside(path)?;
        let mount = Bytes::from(self.mount.reach().as_path());
        Ok(mount.join_path(&inside))
    }

    /// Whether the mounted union lists a path in its directory.
    ///
    /// # Errors
    /// The directory cannot be listed.
    pub fn lists(&self, path: &Bytes) -> Result<bool> {
        let dir = self.open(&path.parent())?;
        let names = dir.names();
        let names = names.map_err(|errno| Error::io(dir.path(), errno))?;
        Ok(names.kind(path.file_name()).is_some())
    }

    /// What the mounted union answers for a path.
    pub fn look(&self, path: &Bytes) -> Result<Option<Stat>> {
        match self.open(&path.parent()) {
            Ok(dir) => dir
                .stat(path.file_name())
                .map_err(|errno| Error::io(path.clone(), errno)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Whether a path of a union is what is seen at its place in one of the union's mounts.
fn is_seen_through(survey: &Survey<'_>, union: &Union, mount: &MountPoint, path: &Bytes) -> bool {
    let Some(inside) = path.strip_prefix(&mount.root) else {
        return false;
    };
    let table = match mount.process {
        None => Ok(survey.table.clone()),
        Some(id) => Process::read(survey.host, id).map(|process| process.table),
    };
    // What is mounted over it later is what a look there would see; and something may be mounted
    // over a part of it: a volume of the container's.
    let table = table.unwrap_or_default();
    let covering = table.covering(&mount.path.join_path(&inside));
    covering.is_some_and(|covering| covering.superblock() == union.superblock)
}

/// Where other unions are mounted that have a writable branch of this one: the kernel has cached
/// there, too, what lies in it.
fn sharing(survey: &Survey<'_>, union: &Union) -> Vec<Result<OpenMount>> {
    let written: Vec<&Bytes> = union
        .branches
        .iter()
        .filter(|branch| branch.spec.permission.is_writable())
        .map(|branch| &branch.spec.path)
        .collect();
    let others = survey.mounted.iter().filter(|other| {
        other.superblock != union.superblock
            && other
                .branches
                .iter()
                .any(|branch| written.contains(&&branch.spec.path))
    });
    others
        .filter_map(|other| Some((other.mounts.first()?, other.superblock.as_ref())))
        .map(|(mount, superblock)| OpenMount::open(mount, superblock))
        .collect()
}

/// Where a union is written to, and what its paths are called.
#[derive(Debug, Clone)]
pub struct Site {
    /// Where the host's root lies on the machine.
    root: PathBuf,
    /// The mounted view, where there is one.
    pub view: Option<View>,
    /// The directory in which an overlay makes what it does not show yet, on the writable
    /// branch's own file system; none where there is no such directory.
    pub workdir: Option<Dir>,
    /// The directory outside of the union that something is copied to, where there is one.
    pub outside: Option<Dir>,
    /// The command line that asks for this, as a shell takes it.
    pub command: String,
}

impl Site {
    pub fn new(survey: &Survey<'_>, union: &Union, path: &Bytes, query: &Query<'_>) -> Site {
        Site {
            root: survey.host.root().to_owned(),
            view: View::find(survey, union, path),
            workdir: workdir(survey, union),
            outside: None,
            command: query.command_line(),
        }
    }

    /// What a path of the host is on this machine: it lies below `--root`.
    pub fn machine_path(&self, on_host: &Bytes) -> Bytes {
        if self.root == Path::new("/") {
            on_host.clone()
        } else {
            Bytes::from(self.root.as_path()).join_path(on_host)
        }
    }
}

/// Where the directory is that an overlay works in whose upper one has a path.
pub fn workdir_of(upper: &Bytes) -> Bytes {
    upper.parent().join(b"work")
}

/// The directory beside an overlay's upper one that its mount works in. In it nothing is ever
/// shown, and nothing but `work` and `index` is the kernel's.
fn workdir(survey: &Survey<'_>, union: &Union) -> Option<Dir> {
    let host = survey.host;
    let upper = union.branches.first()?;
    if union.kind == UnionKind::Aufs || !upper.spec.permission.is_writable() {
        return None;
    }
    let work = host.open_dir(&workdir_of(&upper.spec.path)).ok()?;
    let is_workdir = work
        .stat(b"work")
        .ok()?
        .is_some_and(|stat| stat.kind == Kind::Directory);
    // A rename takes both to be of one mount, not just of one file system.
    let real = |path: &Bytes| host.resolve(path).ok();
    let (upper, beside) = (real(&upper.spec.path)?, real(&upper.spec.path.parent())?);
    let beside = beside.join(b"work");
    let mount = |path: &Bytes| survey.table.covering(path).map(|mount| mount.ids);
    let is_beside = host.stat(&upper).ok()??.dev == work.stat_self().ok()?.dev
        && mount(&upper) == mount(&beside);
    (is_workdir && is_beside).then_some(work)
}
