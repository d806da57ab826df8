//! What acts on a name itself, and can do no more.

use rustix::fs::{
    self, AtFlags, CWD, Mode, OFlags, RenameFlags, StatxFlags, Timestamps, XattrFlags,
};
use rustix::io::Errno;

use super::held::{CLAIM, Expected, Held, Identity, create, seize, sync};
use crate::dir::{Access, Dir, Kind};

/// The longest passing name, in bytes.
const CLAIM_MAX: usize = 64;

/// Makes a directory with a mode, as far as the umask permits, and opens it. Where somebody was faster
/// theirs is opened.
///
/// # Errors
/// What the system calls say; no link is followed.
pub fn directory(dir: &Dir, name: &[u8], mode: u32) -> Result<Dir, Errno> {
    match fs::mkdirat(&*dir.fd()?, name, Mode::from_raw_mode(mode)) {
        Ok(()) | Err(Errno::EXIST) => dir.child(name, Access::Lookup),
        Err(errno) => Err(errno),
    }
}

/// Moves a name to where nothing is.
///
/// # Errors
/// `EEXIST` if the place is taken.
pub fn rename(from: &Dir, name: &[u8], to: &Dir, to_name: &[u8]) -> Result<(), Errno> {
    let (from_fd, to_fd) = (from.fd()?, to.fd()?);
    match fs::renameat_with(&*from_fd, name, &*to_fd, to_name, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS) => place(from, name, to, to_name),
        result => result,
    }
}

/// The same on older kernels and file systems that cannot promise it. A second name they never put over
/// another; of directories only an empty one is ever replaced.
fn place(from: &Dir, name: &[u8], to: &Dir, to_name: &[u8]) -> Result<(), Errno> {
    let (from_fd, to_fd) = (from.fd()?, to.fd()?);
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let held = Held::Node(fs::openat(&*from_fd, name, flags, Mode::empty())?);
    let linked = held
        .path()
        .and_then(|path| fs::linkat(CWD, path, &*to_fd, to_name, AtFlags::SYMLINK_FOLLOW));
    match linked {
        Ok(()) => fs::unlinkat(&*from_fd, name, AtFlags::empty()),
        Err(Errno::EXIST) => Err(Errno::EXIST),
        // A directory, or a file system that has one name for each: look first.
        Err(_) => match to.stat(to_name)? {
            Some(_) => Err(Errno::EXIST),
            None => fs::renameat(&*from_fd, name, &*to_fd, to_name),
        },
    }
}

/// Moves a name over what is there.
///
/// # Errors
/// What the system call says.
pub fn rename_over(from: &Dir, name: &[u8], to: &Dir, to_name: &[u8]) -> Result<(), Errno> {
    let (from_fd, to_fd) = (from.fd()?, to.fd()?);
    fs::renameat(&*from_fd, name, &*to_fd, to_name)
}

/// Lets two names change places.
///
/// # Errors
/// `EINVAL` or `ENOSYS` on a file system that cannot do both at once.
pub fn exchange(from: &Dir, name: &[u8], to: &Dir, to_name: &[u8]) -> Result<(), Errno> {
    let (from_fd, to_fd) = (from.fd()?, to.fd()?);
    fs::renameat_with(&*from_fd, name, &*to_fd, to_name, RenameFlags::EXCHANGE)
}

/// Removes a name that is no directory's.
///
/// # Errors
/// What the system call says.
pub fn remove(dir: &Dir, name: &[u8]) -> Result<(), Errno> {
    fs::unlinkat(&*dir.fd()?, name, AtFlags::empty())
}

/// Removes a directory that is empty.
///
/// # Errors
/// What the system call says.
pub fn remove_directory(dir: &Dir, name: &[u8]) -> Result<(), Errno> {
    fs::unlinkat(&*dir.fd()?, name, AtFlags::REMOVEDIR)
}

/// Removes what a process that was killed has left under a passing name, if that is certain: a
/// directory that bears its note, or what is none and whoever may write here could remove.
///
/// # Errors
/// What the system call says.
pub fn remove_left(dir: &Dir, name: &[u8]) -> Result<(), Errno> {
    let Some(stat) = dir.stat(name)? else {
        return Ok(());
    };
    if stat.kind == Kind::Directory {
        let left = dir.child(name, Access::List)?;
        let note = left.attribute_self(CLAIM, CLAIM_MAX)?;
        if left.stat_self()?.identity() != stat.identity() || note.as_deref() != Some(name) {
            return Ok(());
        }
    } else if stat.uid != rustix::process::geteuid().as_raw() || stat.nlink > 1 {
        return Ok(());
    }
    remove_tree(dir, name, stat.identity(), &|_| false)
}

/// When a directory was made, in seconds and nanoseconds; none where its file system does not tell.
fn born(dir: &Dir) -> Option<(i64, u32)> {
    let fd = dir.fd().ok()?;
    let stat = fs::statx(&*fd, c"", AtFlags::EMPTY_PATH, StatxFlags::BTIME).ok()?;
    let is_told = stat.stx_mask & StatxFlags::BTIME.bits() != 0;
    is_told.then_some((stat.stx_btime.tv_sec, stat.stx_btime.tv_nsec))
}

/// Removes a tree that this process has made, and nothing else: what has its name now and is
/// another is left alone, and so is a directory in it that somebody has moved there. `is_made` knows those
/// below the first.
///
/// # Errors
/// `EBUSY` where something else is in it; what the system call says.
pub fn remove_tree(
    parent: &Dir,
    name: &[u8],
    made: Identity,
    is_made: &dyn Fn(&Dir) -> bool,
) -> Result<(), Errno> {
    let Some(stat) = parent.stat(name)? else {
        return Ok(());
    };
    if stat.identity() != made {
        return Err(Errno::STALE);
    }
    if stat.kind != Kind::Directory {
        return remove(parent, name);
    }
    let dir = parent.child(name, Access::List)?;
    if dir.stat_self()?.identity() != made {
        return Err(Errno::STALE);
    }
    let began = born(&dir);
    // What is older was moved into it. Where nobody tells, only what is known was made.
    let is_ours = |below: &Dir| is_made(below) || began.is_some() && born(below) >= began;
    let mut directories = vec![(parent.clone(), name.to_vec())];
    let mut pending = vec![dir];
    while let Some(dir) = pending.pop() {
        for (name, kind) in dir.names()?.iter() {
            if kind == Kind::Directory {
                let below = dir.child(name, Access::List)?;
                // What somebody has mounted in it was not made here.
                if below.mount_id() != dir.mount_id()
                    || below.stat_self()?.dev != dir.stat_self()?.dev
                    || !is_ours(&below)
                {
                    return Err(Errno::BUSY);
                }
                directories.push((dir.clone(), name.to_vec()));
                pending.push(below);
            } else {
                remove(&dir, name)?;
            }
        }
    }
    for (parent, name) in directories.iter().rev() {
        remove_directory(parent, name)?;
    }
    Ok(())
}

/// Sets an attribute of a directory that does not have it.
///
/// # Errors
/// `EEXIST` if it has; what else the system call says.
pub fn mark(dir: &Dir, attribute: &str, value: &[u8]) -> Result<(), Errno> {
    let open = dir.child(b".", Access::List)?;
    fs::fsetxattr(&*open.fd()?, attribute, value, XattrFlags::CREATE)
}

/// Removes an attribute of a directory.
///
/// # Errors
/// What the system call says.
pub fn unmark(dir: &Dir, attribute: &str) -> Result<(), Errno> {
    let open = dir.child(b".", Access::List)?;
    fs::fremovexattr(&*open.fd()?, attribute)
}

/// Makes an empty file that everybody may read.
///
/// # Errors
/// `EEXIST` if anything has the name.
pub fn empty_file(dir: &Dir, name: &[u8]) -> Result<(), Errno> {
    let file = create(dir, name)?;
    fs::fchmod(&file, Mode::from_raw_mode(0o444))
}

/// Gives what a directory has under one name another name, too, if it is what it was.
///
/// # Errors
/// `ESTALE` if it is not; what else the system call says.
pub fn link(
    from: &Dir,
    name: &[u8],
    known: Identity,
    to: &Dir,
    to_name: &[u8],
) -> Result<(), Errno> {
    let (held, _) = seize(from, name, &Expected::Known(known))?;
    fs::linkat(
        CWD,
        held.path()?,
        &*to.fd()?,
        to_name,
        AtFlags::SYMLINK_FOLLOW,
    )
}

/// Gives a directory times.
///
/// # Errors
/// What the system call says.
pub fn date_directory(dir: &Dir, times: &Timestamps) -> Result<(), Errno> {
    let open = dir.child(b".", Access::List)?;
    fs::futimens(&*open.fd()?, times)
}

/// Makes a directory's entries last: a rename in it has reached the disk.
///
/// # Errors
/// What the system call says.
pub fn sync_dir(dir: &Dir) -> Result<(), Errno> {
    let open = dir.child(b".", Access::List)?;
    sync(&*open.fd()?)
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // a test makes the disk that is read
mod tests {
    use std::fs;

    use super::*;
    use crate::restore::made::{Made, find};

    /// Whoever may write to the directory moves what was not made here into what was.
    #[test]
    fn what_was_moved_into_a_tree_stays() {
        let home = tempfile::tempdir().expect("a temporary directory");
        let at = |name: &str| home.path().join(name);
        fs::create_dir(at("theirs")).expect("our own");
        fs::write(at("theirs/file"), "precious").expect("our own");
        // Two directories of one moment are not told apart.
        std::thread::sleep(std::time::Duration::from_millis(50));
        let dir = Dir::open_root(home.path()).expect("our own");
        let made = Made::directory(&dir, b"tree").expect("the name is free");
        let tree = made.as_dir().expect("a directory");
        Made::directory(tree, b"own").expect("the name is free");
        if born(tree).is_none() {
            return;
        }
        fs::rename(at("theirs"), at("tree/own/theirs")).expect("our own");
        let removed = remove_tree(&dir, b"tree", made.identity(), &|_| false);
        assert_eq!(removed, Err(Errno::BUSY));
        assert!(at("tree/own/theirs/file").exists());
        fs::rename(at("tree/own/theirs"), at("theirs")).expect("our own");
        remove_tree(&dir, b"tree", made.identity(), &|_| false).expect("all of it is new");
        assert!(!at("tree").exists());
    }

    /// A number that is free is given again; what is held keeps its own.
    #[test]
    fn another_file_does_not_get_the_number_of_what_is_held() {
        let home = tempfile::tempdir().expect("a temporary directory");
        let dir = Dir::open_root(home.path()).expect("our own");
        let made = Made::file(&dir, b"file").expect("the name is free");
        let (identity, held) = (made.identity(), made.hold());
        drop(made);
        assert!(held.is_some());
        for _ in 0..16 {
            fs::remove_file(home.path().join("file")).expect("our own");
            fs::write(home.path().join("file"), "another").expect("our own");
            assert!(find(&dir, b"file", identity).is_err());
        }
    }

    /// Where a file system cannot promise to replace nothing, a second name does.
    #[test]
    fn a_place_that_is_taken_stays_as_it_is() {
        let home = tempfile::tempdir().expect("a temporary directory");
        let dir = Dir::open_root(home.path()).expect("our own");
        for name in ["file", "taken"] {
            fs::write(home.path().join(name), name).expect("our own");
        }
        assert_eq!(place(&dir, b"file", &dir, b"taken"), Err(Errno::EXIST));
        place(&dir, b"file", &dir, b"free").expect("the place is free");
        assert!(!home.path().join("file").exists());
        for (name, content) in [("taken", "taken"), ("free", "file")] {
            let found = fs::read_to_string(home.path().join(name));
            assert_eq!(found.expect("our own"), content);
        }
    }
}
