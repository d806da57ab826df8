//! What belongs to what was made: owner, access lists, attributes, mode, times.

use rustix::fs::{self, AtFlags, CWD, Gid, Mode, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::held::{CLAIM, Held, Made};
use crate::dir::{Kind, Stat};
use crate::error::{Error, Result, errno_words};
use crate::restore::attributes::{Attributes, Keep, Need, times};

const NOT_HERE: &str = "nothing was changed; copy it out with --to DIR on another file system, or stop the container \
     (unmount the union) and run this again";

impl Made {
    /// Gives it all that belongs to it, and sees that it has it. Owner first, since changing it
    /// takes set-id bits and capabilities away; times last.
    ///
    /// # Errors
    /// More could be done with it than with what it is a copy of; what the system calls say.
    pub fn dress(&self, attributes: &Attributes, stat: &Stat) -> Result<Lacks> {
        let fail = self.fail();
        self.own(stat.uid, stat.gid).map_err(&fail)?;
        self.drop_inherited(attributes)?;
        let mut lacks = Lacks::default();
        for (name, value) in attributes.iter() {
            match (self.set(name, value), Attributes::need(name)) {
                (Ok(()), _) => {}
                (Err(errno), Need::Access) => return Err(self.wider(name, errno)),
                (Err(Errno::OPNOTSUPP | Errno::PERM | Errno::ACCESS), Need::Capability) => {
                    lacks.capability = true;
                }
                (Err(Errno::OPNOTSUPP), Need::Content) => {}
                (Err(Errno::OPNOTSUPP | Errno::PERM | Errno::ACCESS), Need::Host) => {}
                (Err(errno), _) => return Err(fail(errno)),
            }
        }
        if stat.kind != Kind::Symlink {
            self.permit(stat.mode).map_err(&fail)?;
        }
        self.date(&times(stat)).map_err(&fail)?;
        let now = self.stat().map_err(&fail)?;
        let mode = now.st_mode & 0o7777;
        let is_alike = stat.kind == Kind::Symlink || mode == stat.mode;
        if (now.st_uid, now.st_gid) != (stat.uid, stat.gid) || !is_alike {
            return Err(Error::Refused {
                what: format!(
                    "{} would be {mode:04o} of {}:{}, and is {:04o} of {}:{}",
                    self.dir.path().join(&self.name),
                    now.st_uid,
                    now.st_gid,
                    stat.mode,
                    stat.uid,
                    stat.gid
                ),
                hint: NOT_HERE.into(),
            });
        }
        let is_capability = |name: &[u8]| Attributes::need(name) == Need::Capability;
        if attributes.iter().any(|(name, _)| is_capability(name)) {
            let listed = self.listed().map_err(&fail)?;
            lacks.capability |= !listed.iter().any(|name| is_capability(name));
        }
        lacks.seconds = now.st_mtime_nsec == 0 && stat.mtime.1 != 0;
        Ok(lacks)
    }

    /// The same, as far as is asked for.
    ///
    /// # Errors
    /// As of [`Made::dress`] where all is kept; else what the system calls say of what anybody may do.
    pub fn dress_as(&self, attributes: &Attributes, stat: &Stat, keep: Keep) -> Result<Lacks> {
        match keep {
            Keep::All => self.dress(attributes, stat),
            Keep::Possible => self.dress_possible(attributes, stat),
            Keep::Content => {
                for (name, value) in attributes
                    .iter()
                    .filter(|(name, _)| name.starts_with(b"user."))
                {
                    // Nothing but the program that set them misses them.
                    let _ = self.set(name, value);
                }
                // What runs as its owner would run as another one. A device is the machine's own,
                // whoever could use it in a container.
                let kept = match stat.kind {
                    Kind::Char | Kind::Block => 0o600,
                    _ => 0o1777,
                };
                self.permit_and_date(stat, stat.mode & kept)?;
                Ok(Lacks::default())
            }
        }
    }

    fn dress_possible(&self, attributes: &Attributes, stat: &Stat) -> Result<Lacks> {
        let mut lacks = Lacks {
            owner: self.own(stat.uid, stat.gid).is_err(),
            ..Lacks::default()
        };
        lacks.attributes |= self.drop_inherited(attributes).is_err();
        for (name, value) in attributes.iter() {
            match (self.set(name, value), Attributes::need(name)) {
                (Ok(()), _) | (Err(_), Need::Host) => {}
                (Err(_), Need::Capability) => lacks.capability = true,
                (Err(_), Need::Access | Need::Content) => lacks.attributes = true,
            }
        }
        let mode = if lacks.owner {
            stat.mode & 0o1777
        } else {
            stat.mode
        };
        self.permit_and_date(stat, mode)?;
        Ok(lacks)
    }

    fn permit_and_date(&self, stat: &Stat, mode: u32) -> Result<()> {
        if stat.kind != Kind::Symlink {
            self.permit(mode).map_err(self.fail())?;
        }
        self.date(&times(stat)).map_err(self.fail())
    }

    /// A new file inherits its directory's default access list, which the version had not.
    fn drop_inherited(&self, attributes: &Attributes) -> Result<()> {
        for name in self.listed().map_err(self.fail())? {
            if Attributes::need(&name) == Need::Access && !attributes.has(&name) {
                self.unset(&name)
                    .map_err(|errno| self.wider(&name, errno))?;
            }
        }
        Ok(())
    }

    /// Without its access list others may do more, or less.
    fn wider(&self, name: &[u8], errno: Errno) -> Error {
        Error::Refused {
            what: format!(
                "{} cannot have the access list that it had ({}: {})",
                self.dir.path().join(&self.name),
                name.escape_ascii(),
                errno_words(errno)
            ),
            hint: NOT_HERE.into(),
        }
    }

    /// Sets its times once more.
    ///
    /// # Errors
    /// What the system call says.
    pub fn date(&self, times: &Timestamps) -> Result<(), Errno> {
        match &self.held {
            Held::File(file) => fs::futimens(file, times),
            Held::Directory(dir) => fs::futimens(&*dir.fd()?, times),
            Held::Node(fd) => match fs::utimensat(fd, c"", times, AtFlags::EMPTY_PATH) {
                // Older kernels know no times of a descriptor alone.
                Err(Errno::INVAL | Errno::NOENT) => {
                    fs::utimensat(CWD, self.held.path()?, times, AtFlags::empty())
                }
                result => result,
            },
        }
    }

    fn stat(&self) -> Result<fs::Stat, Errno> {
        match &self.held {
            Held::File(fd) | Held::Node(fd) => fs::fstat(fd),
            Held::Directory(dir) => fs::fstat(&*dir.fd()?),
        }
    }

    fn own(&self, uid: u32, gid: u32) -> Result<(), Errno> {
        let now = self.stat()?;
        if (now.st_uid, now.st_gid) == (uid, gid) {
            return Ok(());
        }
        let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        match &self.held {
            Held::File(file) => fs::fchown(file, uid, gid),
            Held::Directory(dir) => fs::fchown(&*dir.fd()?, uid, gid),
            Held::Node(fd) => fs::chownat(fd, c"", uid, gid, AtFlags::EMPTY_PATH),
        }
    }

    fn permit(&self, mode: u32) -> Result<(), Errno> {
        let mode = Mode::from_raw_mode(mode);
        match &self.held {
            Held::File(file) => fs::fchmod(file, mode),
            Held::Directory(dir) => fs::fchmod(&*dir.fd()?, mode),
            // The link in /proc is the file itself.
            Held::Node(_) => fs::chmodat(CWD, self.held.path()?, mode, AtFlags::empty()),
        }
    }

    /// Lets everybody read a file, and its owner write it.
    ///
    /// # Errors
    /// What the system call says.
    pub fn share(&self) -> Result<()> {
        self.permit(0o644).map_err(self.fail())
    }

    fn set(&self, name: &[u8], value: &[u8]) -> Result<(), Errno> {
        let flags = XattrFlags::empty();
        match &self.held {
            Held::File(file) => fs::fsetxattr(file, name, value, flags),
            Held::Directory(dir) => fs::fsetxattr(&*dir.fd()?, name, value, flags),
            Held::Node(_) => fs::setxattr(self.held.path()?, name, value, flags),
        }
    }

    fn unset(&self, name: &[u8]) -> Result<(), Errno> {
        match &self.held {
            Held::File(file) => fs::fremovexattr(file, name),
            Held::Directory(dir) => fs::fremovexattr(&*dir.fd()?, name),
            Held::Node(_) => fs::removexattr(self.held.path()?, name),
        }
    }

    fn listed(&self) -> Result<Vec<Vec<u8>>, Errno> {
        match &self.held {
            Held::File(file) => Attributes::names_of(file),
            Held::Directory(dir) => Attributes::names_of(&*dir.fd()?),
            Held::Node(_) => Attributes::names_at(&self.held.path()?),
        }
    }

    /// Notes on a directory that it is not done, under which name: should this process be killed, the
    /// next one knows it. No process of a container can set such an attribute; not every file
    /// system takes it.
    pub fn claim(&self) {
        let _ = self.set(CLAIM.as_bytes(), &self.name);
    }

    /// Takes that note away.
    ///
    /// # Errors
    /// What the system call says.
    pub fn disclaim(&self) -> Result<()> {
        match self.unset(CLAIM.as_bytes()) {
            Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::PERM | Errno::ACCESS) => Ok(()),
            result => result.map_err(self.fail()),
        }
    }
}

/// What a copy does not have of what it is a copy of.
#[derive(Debug, Default, Clone)]
pub struct Lacks {
    pub capability: bool,
    /// It is of who copied it.
    pub owner: bool,
    /// An access list, or another attribute.
    pub attributes: bool,
    /// What is not in the copied tree, since its name is too long for where it was copied from or
    /// to.
    pub left_out: Vec<Error>,
    /// Its times are cut to whole seconds.
    pub seconds: bool,
}

impl std::fmt::Display for Lacks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.capability {
            f.write_str("; its capabilities could not be set there")?;
        }
        if self.seconds {
            f.write_str("; its times are kept in whole seconds there")?;
        }
        match self.left_out.len() {
            0 => {}
            1 => f.write_str("; a name that is too long was left out")?,
            count => write!(f, "; {count} names that are too long were left out")?,
        }
        Ok(())
    }
}

impl Lacks {
    /// What is missing, as a sentence about the copy goes on.
    pub fn missing(&self) -> impl Iterator<Item = &'static str> + use<> {
        let all = [
            (self.owner, "the owner could not be kept"),
            (self.capability, "the capabilities could not be kept"),
            (self.attributes, "not all attributes could be kept"),
        ];
        all.into_iter().filter(|of| of.0).map(|of| of.1)
    }

    pub fn and(self, other: Lacks) -> Lacks {
        Lacks {
            capability: self.capability || other.capability,
            owner: self.owner || other.owner,
            attributes: self.attributes || other.attributes,
            seconds: self.seconds || other.seconds,
            left_out: self.left_out.into_iter().chain(other.left_out).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What one of two copies lacks, both together lack.
    #[test]
    fn together_they_lack_what_either_lacks() {
        const ALL: [fn(&mut Lacks) -> &mut bool; 4] = [
            |lacks| &mut lacks.capability,
            |lacks| &mut lacks.owner,
            |lacks| &mut lacks.attributes,
            |lacks| &mut lacks.seconds,
        ];
        for (at, of) in ALL.iter().enumerate() {
            for (first, second) in [(false, false), (false, true), (true, false), (true, true)] {
                let lacking = |is_so: bool| {
                    let mut lacks = Lacks::default();
                    *of(&mut lacks) = is_so;
                    lacks
                };
                let mut both = lacking(first).and(lacking(second));
                for (other, of) in ALL.iter().enumerate() {
                    let expected = other == at && (first || second);
                    assert_eq!(*of(&mut both), expected, "{at} {other}");
                }
            }
        }
    }
}
