//! What a mark is, however it is spelled.

use serde::Serialize;

/// The two kinds of mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum MarkKind {
    Whiteout,
    Opaque,
}

impl MarkKind {
    /// The mark's name in answers.
    pub fn word(self) -> &'static str {
        match self {
            MarkKind::Whiteout => "whiteout",
            MarkKind::Opaque => "opaque",
        }
    }
}

/// What an entry of a directory marks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark<'a> {
    /// The name that is deleted.
    Whiteout(&'a [u8]),
    /// The directory itself hides what is below it.
    Opaque,
}
