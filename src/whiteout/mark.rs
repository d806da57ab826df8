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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marks_name_is_the_same_in_every_form() {
        for kind in [MarkKind::Whiteout, MarkKind::Opaque] {
            let written = serde_json::to_value(kind).expect("it is a word");
            assert_eq!(written, kind.word());
        }
        assert_eq!(MarkKind::Whiteout.word(), "whiteout");
    }
}
