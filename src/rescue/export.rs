//! What was asked for, written where it was asked for: under a passing name, that becomes the real one
//! only when everything is there.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;

use rustix::io::Errno;

use super::image::{self, Exported, Subject};
use super::layer::How;
use super::layout::Layout;
use super::packed::{Compression, Hashed, Noted, Packer};
use super::{Failure, changes};
use crate::dir::{Dir, Kind};
use crate::engine::Survey;
use crate::error::Error;
use crate::restore::made::{Made, sync_dir};
use crate::restore::staging::Staging;

/// What is wanted of images.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    pub how: How,
    /// All that a union shows as one layer.
    pub is_flat: bool,
    /// With docker's own list beside OCI's.
    pub for_docker: bool,
}

/// A directory where content waits whose size is not known yet. It has no name there.
pub struct Spool(pub PathBuf);

/// Writes unions as images of one layout that is a directory. They share their layers.
///
/// # Errors
/// One of them cannot be written; what the output says.
pub fn directory(
    survey: &Survey<'_>,
    subjects: &[Subject],
    wanted: Wanted,
    spool: &Spool,
    place: &Place<'_>,
) -> Result<Vec<Exported>, Failure> {
    place.directory(|root| {
        let layout = Layout::in_directory(root, spool.0.clone(), wanted.for_docker)?;
        images(survey, subjects, wanted, layout)
    })
}

/// The same as an archive.
///
/// # Errors
/// As of [`directory`].
pub fn archive(
    survey: &Survey<'_>,
    subjects: &[Subject],
    wanted: Wanted,
    spool: &Spool,
    place: &Place<'_>,
) -> Result<Vec<Exported>, Failure> {
    place.file(|out| {
        let layout = Layout::in_archive(out, spool.0.clone(), wanted.for_docker);
        images(survey, subjects, wanted, layout)
    })
}

/// The same as a stream. What waits does so in the temporary directory.
///
/// # Errors
/// As of [`directory`].
pub fn stream(
    survey: &Survey<'_>,
    subjects: &[Subject],
    wanted: Wanted,
    out: &mut dyn Write,
) -> Result<Vec<Exported>, Failure> {
    let layout = Layout::in_archive(out, std::env::temp_dir(), wanted.for_docker);
    images(survey, subjects, wanted, layout)
}

fn images(
    survey: &Survey<'_>,
    subjects: &[Subject],
    wanted: Wanted,
    mut layout: Layout<'_>,
) -> Result<Vec<Exported>, Failure> {
    let mut all = Vec::new();
    let mut faults = Vec::new();
    for subject in subjects {
        match image::write(survey, subject, wanted.how, wanted.is_flat, &mut layout) {
            Ok(exported) => all.push(exported),
            // The others may have something to tell as well.
            Err(Failure::Source(of_image)) => faults.extend(of_image),
            Err(output) => return Err(output),
        }
    }
    if !faults.is_empty() {
        return Err(Failure::Source(faults));
    }
    layout.finish()?;
    Ok(all)
}

/// Writes the files that a union shows as one tar: how many bytes that took, and what could not be
/// read or kept.
///
/// # Errors
/// A branch is lost; what the output says.
pub fn files(
    subject: &Subject,
    how: How,
    out: &mut dyn Write,
) -> Result<(u64, Vec<Error>), Failure> {
    let lost: Vec<Error> = subject.stack.lost().collect();
    if !lost.is_empty() && !how.as_is {
        return Err(Failure::Source(lost));
    }
    let compression = how.compression.unwrap_or(Compression::None);
    let mut packer = Packer::new(compression, Hashed::new(out))?;
    let said = changes::write_merged(&subject.stack, false, &mut Noted(&mut packer))?;
    let (_, _, size) = packer.finish()?.finish();
    Ok((size, said))
}

/// A name in a directory that something new is to have.
pub struct Place<'t> {
    pub dir: &'t Dir,
    pub name: &'t [u8],
    /// What has the name may be replaced: a file, or a directory that is empty.
    pub may_replace: bool,
}

impl Place<'_> {
    /// Makes a file that only its owner can read, and has it written.
    ///
    /// # Errors
    /// What writes it says; the name is taken; what the system calls say.
    pub fn file<T>(
        &self,
        write: impl FnOnce(&mut dyn Write) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        self.make(Kind::File, |made| self.filled(made, write))
    }

    /// Makes a file that everybody can read, and has it written.
    ///
    /// # Errors
    /// As of [`Place::file`].
    pub fn file_for_all<T>(
        &self,
        write: impl FnOnce(&mut dyn Write) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        self.make(Kind::File, |made| {
            let written = self.filled(made, write)?;
            made.share()?;
            Ok(written)
        })
    }

    fn filled<T>(
        &self,
        made: &Made,
        write: impl FnOnce(&mut dyn Write) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let fd = made.as_file().ok_or_else(|| self.fail(Errno::INVAL))?;
        let mut out = BufWriter::with_capacity(256 << 10, File::from(fd.try_clone_to_owned()?));
        let written = write(&mut out)?;
        out.flush()?;
        Ok(written)
    }

    /// Makes a directory that only its owner can enter, and has it filled.
    ///
    /// # Errors
    /// As of [`Place::file`].
    pub fn directory<T>(
        &self,
        fill: impl FnOnce(&Dir) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let fail = |errno| self.fail(errno);
        self.make(Kind::Directory, |made| {
            fill(made.as_dir().ok_or_else(|| fail(Errno::NOTDIR))?)
        })
    }

    fn fail(&self, errno: Errno) -> Failure {
        Failure::of(Error::io(self.dir.path().join(self.name), errno))
    }

    fn make<T>(
        &self,
        kind: Kind,
        fill: impl FnOnce(&Made) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let fail = |errno| self.fail(errno);
        let there = self.dir.stat(self.name).map_err(fail)?;
        let may_be = there.is_none_or(|there| self.may_replace && there.kind == kind);
        if !may_be {
            return Err(fail(Errno::EXIST));
        }
        let staging = Staging::beside(self.dir);
        let made = match kind {
            Kind::Directory => Made::directory(&staging.dir, &staging.name)?,
            _ => Made::file(&staging.dir, &staging.name)?,
        };
        staging.note(&made);
        let filled = fill(&made).and_then(|filled| {
            made.sync()?;
            let placed = match there {
                Some(_) => staging.replace(self.dir, self.name),
                None => staging.place(self.dir, self.name),
            };
            placed.map_err(fail)?;
            staging.confirm(self.dir, self.name, None)?;
            sync_dir(self.dir).map_err(fail)?;
            Ok(filled)
        });
        filled.inspect_err(|_| staging.discard())
    }
}
