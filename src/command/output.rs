//! A file that an answer is written to instead of standard output: whole, or as it was before.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::bytes::Bytes;
use crate::dir::Dir;
use crate::engine::Survey;
use crate::error::{Error, Result};
use crate::rescue::Failure;
use crate::rescue::export::Place;
use crate::restore::mount::open_by_person;
use crate::restore::staging::Staging;

/// Where an answer goes.
pub enum Output {
    Standard,
    File {
        path: PathBuf,
        dir: Dir,
        name: OsString,
    },
}

/// Who may read what is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readers {
    /// Who had it written: there are command lines in it, and names of what is closed to others.
    Owner,
    All,
}

impl Output {
    /// Finds out where that is, before anything is looked at.
    ///
    /// # Errors
    /// The directory cannot be opened, or is one of those that are looked at.
    pub fn find(survey: &Survey<'_>, typed: Option<PathBuf>) -> Result<Output> {
        let Some(typed) = typed.filter(|typed| typed.as_os_str() != "-") else {
            return Ok(Output::Standard);
        };
        let path = std::path::absolute(&typed).unwrap_or(typed);
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(Error::Usage(format!("{}: is no name", path.display())));
        };
        check(survey, parent)?;
        Ok(Output::File {
            dir: open_by_person(parent)?,
            name: name.to_owned(),
            path,
        })
    }

    /// Has the answer written, for `readers`. A file takes the place of the one before when
    /// all is written; what is there and no file stays, a link among it.
    ///
    /// # Errors
    /// What writes it says; the file cannot be made.
    pub fn write(
        &self,
        out: &mut dyn Write,
        readers: Readers,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> io::Result<()> {
        let Output::File { path, dir, name } = self else {
            return write(out);
        };
        Staging::clear(dir);
        let place = Place {
            dir,
            name: name.as_bytes(),
            may_replace: true,
        };
        let written = match readers {
            Readers::Owner => place.file(|out| Ok(write(out)?)),
            Readers::All => place.file_for_all(|out| Ok(write(out)?)),
        };
        written.map_err(|failure: Failure| {
            let mut errors = failure.errors(path).into_iter();
            errors
                .next()
                .map_or_else(|| io::ErrorKind::Other.into(), io::Error::other)
        })
    }
}

/// Nothing is written into what is only looked at: a copy of a host, a layer.
fn check(survey: &Survey<'_>, parent: &Path) -> Result<()> {
    let real = parent.canonicalize().unwrap_or_else(|_| parent.to_owned());
    let host = survey.host;
    if !host.is_live() && host.inside(&real).is_some() {
        return Err(Error::Refused {
            what: format!("{} lies in the host that is looked at", real.display()),
            hint: "nothing is written below --root: name a file elsewhere".into(),
        });
    }
    let path = Bytes::from(&*real);
    let is_layer = host.is_live()
        && survey
            .engines_here()
            .any(|engine| engine.layer_at(&path).is_some());
    if is_layer {
        return Err(Error::Refused {
            what: format!("{} lies in a layer", real.display()),
            hint: "name a file elsewhere".into(),
        });
    }
    Ok(())
}
