//! Docker's own files: where each is, and how small ones are read.

use serde::Deserialize;

use super::store::Docker;
use crate::bytes::Bytes;
use crate::engine::inventory::is_id;
use crate::error::{Error, Result};
use crate::host::Host;

/// The longest file that holds a word, in bytes: a digest with its algorithm.
const WORD_MAX: usize = 256;

impl Docker<'_> {
    pub(super) fn note_unless_absent(&self, error: Error) {
        if !error.is_absent() {
            self.note(error);
        }
    }

    pub(super) fn is_there(&self, parts: &[&str]) -> bool {
        match self.host.stat(&self.at(parts)) {
            Ok(stat) => stat.is_some(),
            Err(error) => {
                self.note(error);
                false
            }
        }
    }

    pub(super) fn at(&self, parts: &[&str]) -> Bytes {
        parts
            .iter()
            .fold(self.root.clone(), |path, part| path.join(part.as_bytes()))
    }

    /// Reads a file that holds a word. Several questions need the same ones, of every layer.
    pub(super) fn read_small(&self, path: &Bytes) -> Result<Vec<u8>> {
        if let Some(known) = self.words.borrow().get(path) {
            return Ok(known.clone());
        }
        let bytes = self.host.read(path)?;
        if bytes.len() <= WORD_MAX {
            let mut words = self.words.borrow_mut();
            words.insert(path.clone(), bytes.clone());
        }
        Ok(bytes)
    }

    pub(super) fn read_word(&self, parts: &[&str]) -> Result<String> {
        let path = self.at(parts);
        let bytes = self.read_small(&path)?;
        match std::str::from_utf8(&bytes) {
            Ok(text) => Ok(text.trim().to_owned()),
            Err(_) => Err(Error::damaged(path, "is not text")),
        }
    }

    /// A word that may be missing. One that is there and cannot be read is noted.
    pub(super) fn word(&self, parts: &[&str]) -> Option<String> {
        self.read_word(parts)
            .map_err(|error| self.note_unless_absent(error))
            .ok()
    }

    /// An id in a file that may be missing. What is no id is noted.
    pub(super) fn id(&self, parts: &[&str]) -> Option<String> {
        let word = self.word(parts)?;
        if !is_id(&word) {
            self.note(Error::damaged(self.at(parts), "is not an id"));
            return None;
        }
        Some(word)
    }

    /// An id in a file that has to be there.
    pub(super) fn id_of(&self, parts: &[&str]) -> Result<String> {
        let word = self.read_word(parts)?;
        if is_id(&word) {
            Ok(word)
        } else {
            Err(Error::damaged(self.at(parts), "is not an id"))
        }
    }

    /// A number of bytes in a file that may be missing. What is no number is noted.
    pub(super) fn size(&self, parts: &[&str]) -> Option<u64> {
        let word = self.word(parts)?;
        let size = word.parse().ok();
        if size.is_none() {
            self.note(Error::damaged(self.at(parts), "is not a number of bytes"));
        }
        size
    }

    /// A number of bytes in a file that is there as long as another one of its record is.
    pub(super) fn size_beside(&self, parts: &[&str], other: &[&str]) -> Option<u64> {
        match self.read_word(parts) {
            Err(error) if error.is_absent() => {
                if self.is_there(other) {
                    self.note(error);
                }
                None
            }
            _ => self.size(parts),
        }
    }

    /// The names in a directory that can be ids.
    pub(super) fn ids(&self, parts: &[&str]) -> Vec<String> {
        let names = self.host.list(&self.at(parts)).unwrap_or_else(|error| {
            self.note(error);
            Vec::new()
        });
        names
            .into_iter()
            .filter_map(|(name, _)| String::from_utf8(name).ok())
            .filter(|name| is_id(name))
            .collect()
    }

    /// The id in a file of a record; none where it is missing or no text.
    pub(super) fn recorded(&self, record: &Bytes, file: &str) -> Result<Option<String>> {
        match self.read_small(&record.join(file.as_bytes())) {
            Ok(id) => Ok(String::from_utf8(id).ok().map(|id| id.trim().to_owned())),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Reads a file that holds an object.
///
/// # Errors
/// One that is missing, or is not what Docker writes.
pub(super) fn read_json<T: for<'de> Deserialize<'de>>(host: &Host, path: &Bytes) -> Result<T> {
    let bytes = host.read(path)?;
    // Where an object is expected, a list of its values would do for the parser.
    if bytes.trim_ascii_start().starts_with(b"[") {
        return Err(Error::damaged(path.clone(), "is a list, not an object"));
    }
    serde_json::from_slice(&bytes).map_err(|error| {
        Error::damaged(path.clone(), format!("is not what Docker writes: {error}"))
    })
}
