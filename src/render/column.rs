//! What a table is made of, whichever way it is drawn: columns, each with its heading and with how
//! a row's cell is made.

use std::fmt::Display;
use std::io::Write;

use super::Look;
use crate::bytes::escape;

/// A column of a table of `T`s.
pub struct Column<T: ?Sized> {
    pub heading: &'static str,
    /// Left out where no row has anything in it.
    pub is_optional: bool,
    /// Its turn to be cut, and left out then, where a screen is too narrow: the largest goes first, and
    /// what has none never. Nothing that a person has to type again is in it.
    pub gives: Option<u8>,
    /// Where a screen is too narrow for a whole row, it stands below the others, in a line of its own.
    pub is_below: bool,
    /// Makes a row's cell.
    pub cell: fn(&T, Look, &mut Cell<'_>),
}

/// A column that is always there.
pub fn column<T: ?Sized>(heading: &'static str, cell: fn(&T, Look, &mut Cell<'_>)) -> Column<T> {
    Column {
        heading,
        is_optional: false,
        gives: None,
        is_below: false,
        cell,
    }
}

impl<T: ?Sized> Column<T> {
    /// The same column, which stands below the others where a screen is too narrow for all.
    pub fn below(self) -> Column<T> {
        Column {
            is_below: true,
            ..self
        }
    }
}

/// A column that is left out where no row has anything in it.
pub fn optional<T: ?Sized>(heading: &'static str, cell: fn(&T, Look, &mut Cell<'_>)) -> Column<T> {
    Column {
        is_optional: true,
        ..column(heading, cell)
    }
}

/// A column that gives where a screen is too narrow, in its turn.
pub fn giving<T: ?Sized>(
    turn: u8,
    heading: &'static str,
    cell: fn(&T, Look, &mut Cell<'_>),
) -> Column<T> {
    Column {
        gives: Some(turn),
        ..column(heading, cell)
    }
}

/// The same, left out where no row has anything in it.
pub fn optional_giving<T: ?Sized>(
    turn: u8,
    heading: &'static str,
    cell: fn(&T, Look, &mut Cell<'_>),
) -> Column<T> {
    Column {
        is_optional: true,
        ..giving(turn, heading, cell)
    }
}

/// What a cell says beside its words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accent {
    Good,
    Bad,
}

/// The text of one cell while it is written.
pub struct Cell<'t> {
    text: &'t mut Vec<u8>,
    accent: Option<Accent>,
}

impl Cell<'_> {
    /// A cell that is written at the end of a text.
    pub fn at_end(text: &mut Vec<u8>) -> Cell<'_> {
        Cell { text, accent: None }
    }

    /// A word of ours, or one that is escaped already.
    #[inline]
    pub fn word(&mut self, word: &str) {
        self.text.extend_from_slice(word.as_bytes());
    }

    /// What somebody else has written: escaped.
    pub fn text(&mut self, text: &str) {
        self.word(&escape(text.as_bytes()));
    }

    /// What escapes itself, such as a path, or needs no escape, such as a number.
    #[inline]
    pub fn show(&mut self, what: impl Display) {
        // Memory takes whatever is written to it.
        let _ = write!(self.text, "{what}");
    }

    pub fn accent(&mut self, accent: Accent) {
        self.accent = Some(accent);
    }

    /// What was said beside the words.
    pub fn accented(&self) -> Option<Accent> {
        self.accent
    }
}
