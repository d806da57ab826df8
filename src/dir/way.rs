//! The way to a directory that is written to: whose symbolic links lead there.
//!
//! A path that somebody named, or that a record has, is gone with its links, as people expect. In a
//! place where somebody else may write, a link can be that one's trap: it leads root to a directory
//! where the link's owner could not write. The kernel's own rule (`fs.protected_symlinks`) has only
//! the last part of a path in a sticky directory in mind.

use rustix::io::Errno;
use rustix::process::geteuid;

use super::open::{Access, Dir};
use super::stat::Stat;
use crate::bytes::Bytes;
use crate::error::{Error, Result};

/// So many links lead on, as for the kernel.
const LINKS_MAX: usize = 40;
/// The parts of the longest path, with what links add to it.
const PARTS_MAX: usize = 4096;

/// Sees that a directory, which was opened by its path from `root`, is not where somebody else's link
/// leads through a third one's: only root's links, the caller's, and those to a directory of their
/// owner's count. What lies below that the owner could have moved there.
///
/// # Errors
/// One does; on the way through other people's directories it leads elsewhere by now.
pub fn see_way(root: &Dir, path: &Bytes, opened: &Dir) -> Result<()> {
    let fail = |errno| Error::io(path.clone(), errno);
    let end = opened.stat_self().map_err(fail)?;
    let found = Way::go(root, path).map_err(fail)?;
    if let Some(trap) = found.trap {
        return Err(Error::Refused {
            what: format!(
                "{} is a symbolic link of user {}'s, and leads to what is user {}'s",
                trap.link, trap.owner, trap.of
            ),
            hint: "see where it leads, and name the directory itself".into(),
        });
    }
    // Through root's own directories it may have been opened in another way: by a process, or where its file
    // system was moved to. Others' may have another one there by now, or none.
    let is_it = found
        .end
        .is_some_and(|found| found.identity() == end.identity());
    if found.is_others && !is_it {
        return Err(Error::Refused {
            what: format!("{path} leads elsewhere than a moment ago"),
            hint: "somebody may be changing it: see who, and try again".into(),
        });
    }
    Ok(())
}

/// A link of somebody's, other than root and the caller.
struct Link {
    link: Bytes,
    owner: u32,
    /// How much of the way is left behind it.
    left: usize,
}

/// Such a link that leads to what is another one's.
struct Trap {
    link: Bytes,
    owner: u32,
    of: u32,
}

/// What is on the way to a directory.
struct Way {
    /// The first that is found.
    trap: Option<Trap>,
    /// Whether a directory or a link on it is another's.
    is_others: bool,
    /// Where it ends; none where a part of it is not there.
    end: Option<Stat>,
}

impl Way {
    fn go(root: &Dir, path: &Bytes) -> Result<Way, Errno> {
        let is_anothers = |owner: u32| owner != 0 && owner != geteuid().as_raw();
        let mut dirs = vec![root.clone()];
        let mut names: Vec<Vec<u8>> = Vec::new();
        let mut to_go: Vec<Vec<u8>> = reversed(path.as_bytes());
        let mut links: Vec<Link> = Vec::new();
        let (mut trap, mut followed, mut gone) = (None, 0, 0);
        let mut is_others = false;
        loop {
            // Where a link leads is known when all that it says is gone.
            while let Some(of) = links.pop_if(|of| to_go.len() <= of.left) {
                let here = dirs.last().ok_or(Errno::NOENT)?.stat_self()?.uid;
                let Link { link, owner, .. } = of;
                if here != owner && trap.is_none() {
                    trap = Some(Trap {
                        link,
                        owner,
                        of: here,
                    });
                }
            }
            let Some(part) = to_go.pop() else { break };
            gone += 1;
            if gone > PARTS_MAX {
                return Err(Errno::NAMETOOLONG);
            }
            if part == b".." {
                if names.pop().is_some() {
                    dirs.pop();
                }
                continue;
            }
            let here = dirs.last().ok_or(Errno::NOENT)?;
            is_others |= is_anothers(here.stat_self()?.uid);
            match here.child(&part, Access::Lookup) {
                Ok(child) => {
                    dirs.push(child);
                    names.push(part);
                }
                Err(errno @ (Errno::NOTDIR | Errno::LOOP)) => {
                    let Ok(target) = here.read_link(&part) else {
                        return Err(errno);
                    };
                    followed += 1;
                    if followed > LINKS_MAX {
                        return Err(Errno::LOOP);
                    }
                    let owner = here.stat(&part)?.ok_or(Errno::NOENT)?.uid;
                    if is_anothers(owner) {
                        let on_way = names.iter().chain([&part]).map(Vec::as_slice);
                        links.push(Link {
                            link: Bytes::absolute(on_way),
                            owner,
                            left: to_go.len(),
                        });
                        is_others = true;
                    }
                    if target.starts_with(b"/") {
                        dirs.truncate(1);
                        names.clear();
                    }
                    to_go.extend(reversed(&target));
                }
                Err(Errno::NOENT) => {
                    return Ok(Way {
                        trap,
                        is_others,
                        end: None,
                    });
                }
                Err(errno) => return Err(errno),
            }
        }
        let end = dirs.last().ok_or(Errno::NOENT)?.stat_self()?;
        Ok(Way {
            trap,
            is_others,
            end: Some(end),
        })
    }
}

/// The parts of a path, the last one first.
fn reversed(path: &[u8]) -> Vec<Vec<u8>> {
    let parts = path.split(|&byte| byte == b'/');
    let parts = parts.filter(|part| !matches!(*part, b"" | b"."));
    let mut parts: Vec<Vec<u8>> = parts.map(<[u8]>::to_vec).collect();
    parts.reverse();
    parts
}
