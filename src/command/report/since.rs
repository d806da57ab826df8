//! A report held against an earlier one of the same host: what is new, changed, and gone.
//!
//! Of each earlier row two numbers are kept, and no row: what it says, and what it is about.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::record::{Drift, SCHEMA_VERSION, keys};
use crate::error::{Error, Result, errno_of};

/// The longest line, in bytes: no row is nearly as long.
const LINE_MAX: u64 = 16 << 20;

/// What a row has whatever it is about.
const ENVELOPE: [&str; 5] = ["schema_version", "host_id", "host", "time", "drift"];

/// 128 bits of a SHA-256.
type Mark = [u8; 16];

/// An earlier report.
pub struct Earlier {
    path: PathBuf,
    file: File,
    /// When it was begun.
    pub time: String,
    has_changes: bool,
    /// It was cut off, or could not read everything.
    pub is_partial: bool,
    /// What its rows say.
    said: HashSet<Mark>,
    /// What they are about, and whether that is there now.
    about: HashMap<Mark, bool>,
}

impl Earlier {
    /// Reads a report of the host that has an id.
    ///
    /// # Errors
    /// It cannot be read, is no report, another host's, or has other changes than are asked for.
    pub fn read(path: &Path, host_id: &str, has_changes: bool) -> Result<Earlier> {
        let refuse = |what: String| Error::Usage(format!("{}: {what}", path.display()));
        let file = open(path).map_err(|error| match error.raw_os_error() {
            Some(_) => Error::io(path, errno_of(&error)),
            None => refuse(error.to_string()),
        })?;
        let mut earlier = Earlier {
            path: path.to_owned(),
            file,
            time: String::new(),
            has_changes: false,
            is_partial: true,
            said: HashSet::new(),
            about: HashMap::new(),
        };
        let mut number = 0;
        let file = earlier.file.try_clone();
        let file = file.map_err(|error| refuse(error.to_string()))?;
        let read = each_line(file, |row| {
            number += 1;
            if number == 1 {
                earlier.begin(&row, host_id)?;
            }
            if text(&row, "record") == "end" {
                earlier.is_partial = row.get("complete") != Some(&Value::Bool(true));
            }
            if let Some((said, about)) = marks(&row) {
                earlier.said.insert(said);
                earlier.about.insert(about, false);
            }
            Ok(())
        });
        read.map_err(|error| refuse(format!("line {}: {error}", number.max(1))))?;
        if number == 0 {
            return Err(refuse("is no report: it is empty".into()));
        }
        if has_changes && !earlier.has_changes {
            let what = "has no changes: make it with --changes, too";
            return Err(refuse(what.into()));
        }
        earlier.has_changes = has_changes;
        Ok(earlier)
    }

    /// The first row says what the others are of.
    fn begin(&mut self, row: &Map<String, Value>, host_id: &str) -> io::Result<()> {
        let refuse = |what: String| Err(io::Error::other(what));
        if text(row, "record") != "host" {
            return refuse("is no report: it begins with another row than the host's".into());
        }
        if row.get("schema_version") != Some(&Value::from(SCHEMA_VERSION)) {
            return refuse(format!("is no report of version {SCHEMA_VERSION}"));
        }
        let other = text(row, "host_id");
        if other != host_id {
            return refuse(format!(
                "is a report of the host {other}, and this one is {host_id}"
            ));
        }
        if row.contains_key("since") {
            return refuse("has only what was new then: name a whole report".into());
        }
        self.time = text(row, "time").to_owned();
        self.has_changes = row.get("has_changes") == Some(&Value::Bool(true));
        Ok(())
    }

    /// Holds a row against what the report says of the same thing.
    pub fn drift(&mut self, row: &Map<String, Value>) -> Comparison {
        let Some((said, about)) = marks(row) else {
            return Comparison::NotCompared;
        };
        let was_there = self.about.get_mut(&about).map(|is_there| *is_there = true);
        if self.said.contains(&said) {
            Comparison::Unchanged
        } else if was_there.is_some() {
            Comparison::Drifted(Drift::Changed)
        } else {
            Comparison::Drifted(Drift::New)
        }
    }

    /// Gives the rows whose things are not there any more.
    ///
    /// # Errors
    /// What `give` says; the report cannot be read again.
    pub fn gone(
        &self,
        mut give: impl FnMut(Map<String, Value>) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut file = self.file.try_clone()?;
        file.rewind()?;
        let mut told = HashSet::new();
        each_line(file, |row| {
            // Changes that nobody asks for now were not looked at.
            let is_asked = self.has_changes || text(&row, "record") != "change";
            let Some((_, about)) = marks(&row).filter(|_| is_asked) else {
                return Ok(());
            };
            if self.about.get(&about) == Some(&false) && told.insert(about) {
                give(row)?;
            }
            Ok(())
        })
    }

    /// That what seems new may have been there.
    pub fn problem(&self) -> Option<Error> {
        let what = "is not the whole of a report: what is told as new may have been there";
        self.is_partial.then(|| Error::damaged(&*self.path, what))
    }
}

/// What a row is beside an earlier report.
pub enum Comparison {
    Unchanged,
    /// It is told whatever was told before.
    NotCompared,
    Drifted(Drift),
}

/// A file of whoever asks, wherever that is.
#[allow(
    clippy::disallowed_methods,
    reason = "no file of the host that is looked at"
)]
fn open(path: &Path) -> io::Result<File> {
    let file = File::open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("is no file: it is read twice"));
    }
    Ok(file)
}

fn each_line(
    file: File,
    mut give: impl FnMut(Map<String, Value>) -> io::Result<()>,
) -> io::Result<()> {
    let mut file = BufReader::with_capacity(256 << 10, file);
    let mut line = Vec::new();
    loop {
        line.clear();
        let length = (&mut file).take(LINE_MAX).read_until(b'\n', &mut line)?;
        if length == 0 {
            return Ok(());
        }
        if line.last() != Some(&b'\n') {
            // Whoever wrote it was ended: there is no last row, either.
            return match length as u64 {
                LINE_MAX => Err(io::Error::other("is longer than any row")),
                _ => Ok(()),
            };
        }
        match serde_json::from_slice(&line) {
            Ok(row) => give(row)?,
            Err(error) => return Err(io::Error::other(format!("is no row: {error}"))),
        }
    }
}

fn text<'r>(row: &'r Map<String, Value>, key: &str) -> &'r str {
    row.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// What a row says, and what it is about; none where it is told whatever was told before.
fn marks(row: &Map<String, Value>) -> Option<(Mark, Mark)> {
    let record = text(row, "record");
    let keys = keys(record)?;
    let said = row.iter();
    let said = said.filter(|(key, _)| !ENVELOPE.contains(&key.as_str()));
    let about = keys.iter().copied().chain(["record"]);
    let about = about.filter_map(|key| Some((key, row.get(key)?)));
    let said = said.map(|(key, value)| (key.as_str(), value));
    Some((mark(said), mark(about)))
}

fn mark<'v>(of: impl Iterator<Item = (&'v str, &'v Value)>) -> Mark {
    let mut digest = Sha256::new();
    let mut parts: Vec<_> = of.collect();
    parts.sort_by_key(|(key, _)| *key);
    for (key, value) in parts {
        add(&Value::from(key), &mut digest);
        add(value, &mut digest);
    }
    let mut mark = Mark::default();
    let digest = digest.finalize();
    mark.copy_from_slice(&digest[..16]);
    mark
}

/// A value as bytes that no other value has.
fn add(value: &Value, digest: &mut Sha256) {
    match value {
        Value::Object(map) => {
            digest.update(b"{");
            let mut parts: Vec<_> = map.iter().collect();
            parts.sort_by_key(|(key, _)| *key);
            for (key, value) in parts {
                add(&Value::from(key.as_str()), digest);
                add(value, digest);
            }
            digest.update(b"}");
        }
        Value::Array(values) => {
            digest.update(b"[");
            values.iter().for_each(|value| add(value, digest));
            digest.update(b"]");
        }
        // Strings are quoted, and what is none has no comma in it.
        other => digest.update(format!("{other},")),
    }
}
