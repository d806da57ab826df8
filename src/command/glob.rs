//! Patterns over paths.

use std::borrow::Cow;

use crate::bytes::Bytes;
use crate::error::{Error, Result};

/// A pattern over paths: against the whole path if it holds a slash, where `*` stops at a slash
/// and `**` does not; else against the name.
pub struct Glob {
    pattern: glob::Pattern,
    is_path: bool,
    is_text: bool,
}

impl Glob {
    /// # Errors
    /// What is wrong with the pattern.
    pub fn new(pattern: &[u8]) -> Result<Glob> {
        let is_text = std::str::from_utf8(pattern).is_ok();
        let text = readable(pattern, is_text);
        let parsed = glob::Pattern::new(&text).map_err(|error| {
            Error::Usage(format!(
                "{}: is no pattern: {error}",
                crate::bytes::escape(pattern)
            ))
        })?;
        Ok(Glob {
            pattern: parsed,
            is_path: pattern.contains(&b'/'),
            is_text,
        })
    }

    /// Whether a path fits.
    pub fn matches(&self, path: &Bytes) -> bool {
        let bytes = if self.is_path {
            path.as_bytes()
        } else {
            path.file_name()
        };
        let options = glob::MatchOptions {
            require_literal_separator: true,
            ..Default::default()
        };
        self.pattern
            .matches_with(&readable(bytes, self.is_text), options)
    }
}

/// Bytes as the pattern matcher takes them, which knows only text: as they are, or each byte as a
/// character of its own where either side is not UTF-8.
fn readable(bytes: &[u8], is_text: bool) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) if is_text => Cow::Borrowed(text),
        _ => bytes.iter().map(|&byte| char::from(byte)).collect(),
    }
}
