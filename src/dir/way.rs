//! The way to a directory that is written to: whose symbolic links lead there.
//!
//! A path that somebody named, or that a record has, is followed through its links, as people expect. In a
//! place where somebody else may write, a link can be that one's trap: it leads root to a directory
//! where the link's owner could not write. The kernel's own rule (`fs.protected_symlinks`) has only
//! the last part of a path in a sticky directory in mind.

use rustix::io::Errno;
use rustix::process::geteuid;

use super::open::{Access, Dir};
use super::stat::Stat;
use crate::bytes::Bytes;
use crate::error::{Error, Result};

/// As many links are followed as the kernel follows.
const LINKS_MAX: usize = 40;
/// The longest path has so many parts, with those that links add to it.
const PARTS_MAX: usize = 4096;

/// Sees that a directory, which was opened by its path from `root`, is not where somebody else's link
/// leads through a third one's: only root's links, the caller's, and those to a directory of their
/// owner's, by a way that is open to that one, count. What lies below that the owner could have moved there.
///
/// # Errors
/// One does; on the way through other people's directories it leads elsewhere by now.
pub fn see_way(root: &Dir, path: &Bytes, opened: &Dir) -> Result<()> {
    let fail = |errno| Error::io(path.clone(), errno);
    let end = opened.stat_self().map_err(fail)?;
    let way = match Way::walk(root, path) {
        Ok(way) => way,
        Err(Fault::Call(errno)) => return Err(fail(errno)),
        Err(Fault::Trap(link, of)) => {
            return Err(Error::Refused {
                what: format!(
                    "{} is a symbolic link of user {}'s, and leads to what is user {of}'s",
                    link.path, link.owner
                ),
                hint: "see where it leads, and name the directory itself".into(),
            });
        }
    };
    // Through root's own directories it may have been opened in another way: by a process, or where its file
    // system was moved to. Others' may have another one there by now, or none.
    let is_it = way
        .end
        .is_some_and(|found| found.identity() == end.identity());
    if way.is_others && !is_it {
        return Err(Error::Refused {
            what: format!("{path} leads elsewhere than a moment ago"),
            hint: "somebody may be changing it: see who, and try again".into(),
        });
    }
    Ok(())
}

/// A link of somebody's, other than root and the caller.
struct Link {
    path: Bytes,
    owner: u32,
    /// So many parts of the way are behind it.
    behind: usize,
}

/// Why a way was not walked to its end.
enum Fault {
    Call(Errno),
    /// The link leads to a directory of this user's, who is not its owner.
    Trap(Link, u32),
}

impl From<Errno> for Fault {
    fn from(errno: Errno) -> Fault {
        Fault::Call(errno)
    }
}

/// What is on the way to a directory.
struct Way {
    /// Whether a directory or a link on it is another's.
    is_others: bool,
    /// Where it ends; none where a part of it is not there.
    end: Option<Stat>,
}

impl Way {
    fn walk(root: &Dir, path: &Bytes) -> Result<Way, Fault> {
        let is_anothers = |owner: u32| owner != 0 && owner != geteuid().as_raw();
        // Those above the last one, which `..` goes back to.
        let mut above: Vec<Dir> = Vec::new();
        let mut here = root.clone();
        let mut ahead = reversed(path.as_bytes());
        let mut links: Vec<Link> = Vec::new();
        let (mut followed, mut walked) = (0, 0);
        let mut is_others = false;
        loop {
            // Where a link leads is known when all that it says is walked.
            while let Some(link) = links.pop_if(|link| ahead.len() <= link.behind) {
                let owner = here.stat_self()?.uid;
                if owner != link.owner {
                    return Err(Fault::Trap(link, owner));
                }
            }
            let Some(part) = ahead.pop() else { break };
            walked += 1;
            if walked > PARTS_MAX {
                return Err(Errno::NAMETOOLONG.into());
            }
            if part == b".." {
                here = above.pop().unwrap_or(here);
                continue;
            }
            let stat = here.stat_self()?;
            is_others |= is_anothers(stat.uid);
            // What its owner cannot get to is not the owner's to name.
            if let Some(at) = links.iter().position(|link| !is_open_to(&stat, link.owner)) {
                return Err(Fault::Trap(links.swap_remove(at), stat.uid));
            }
            match here.child(&part, Access::Lookup) {
                Ok(child) => above.push(std::mem::replace(&mut here, child)),
                Err(Errno::NOENT) => {
                    let end = None;
                    return Ok(Way { is_others, end });
                }
                Err(errno @ (Errno::NOTDIR | Errno::LOOP)) => {
                    let target = here.read_link(&part).map_err(|_| errno)?;
                    followed += 1;
                    if followed > LINKS_MAX {
                        return Err(Errno::LOOP.into());
                    }
                    let owner = here.stat(&part)?.ok_or(Errno::NOENT)?.uid;
                    if is_anothers(owner) {
                        let link = here.path().join(&part);
                        links.push(Link {
                            // Messages speak of the host, wherever its root lies.
                            path: link.strip_prefix(&root.path()).unwrap_or(link),
                            owner,
                            behind: ahead.len(),
                        });
                        is_others = true;
                    }
                    if target.starts_with(b"/") {
                        here = root.clone();
                        above.clear();
                    }
                    ahead.extend(reversed(&target));
                }
                Err(errno) => return Err(errno.into()),
            }
        }
        let end = Some(here.stat_self()?);
        Ok(Way { is_others, end })
    }
}

/// Whether a user gets through a directory. Which groups that one is in nobody knows.
fn is_open_to(stat: &Stat, user: u32) -> bool {
    let class = if stat.uid == user { 6 } else { 0 };
    stat.mode >> class & 1 != 0
}

/// The parts of a path, the last one first.
fn reversed(path: &[u8]) -> Vec<Vec<u8>> {
    let parts = path.split(|&byte| byte == b'/');
    let parts = parts.filter(|part| !matches!(*part, b"" | b"."));
    parts.rev().map(<[u8]>::to_vec).collect()
}
