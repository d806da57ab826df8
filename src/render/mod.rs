//! How answers look. A verb says what its columns are; here is how columns become a table, rows
//! become JSON, sizes and times become docker's words, and what a terminal would act on is
//! escaped.

pub mod column;
mod fit;
pub mod grid;
pub mod json;
pub mod size;
pub mod table;
pub mod template;
pub mod time;
mod type_colors;

use std::io::{self, Write};

pub use lscolors::Indicator;
use owo_colors::OwoColorize;

use crate::bytes::{Bytes, escape, escape_text};
use crate::engine::inventory::short;

/// The form of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Table,
    Json,
    Jsonl,
    /// Lines of JSON for [`template`], which shows each with a template.
    Template,
    /// Only ids or paths, one a line.
    Quiet,
    /// Only ids or paths, each ended by a NUL byte.
    Null,
}

/// How to show an answer.
#[derive(Debug, Clone, Copy)]
#[allow(clippy::struct_excessive_bools)] // each is an option of the command line
pub struct Look {
    pub format: Format,
    pub no_trunc: bool,
    pub exact_sizes: bool,
    pub verbose: bool,
    pub colors: bool,
    /// Whether a person's terminal reads the answer, which acts on control bytes.
    pub is_terminal: bool,
    /// The columns of the screen, where tables have to fit one.
    pub screen: Option<usize>,
}

impl Look {
    /// A number of bytes.
    pub fn size(self, bytes: u64) -> String {
        if self.exact_sizes {
            bytes.to_string()
        } else {
            size::human(bytes)
        }
    }

    pub fn id(self, id: &str) -> String {
        if self.no_trunc {
            id.to_owned()
        } else {
            short(id).to_owned()
        }
    }

    /// Docker's ellipsis: so many characters, the last one a `…`. The text is escaped.
    pub fn clip(self, text: &str, max: usize) -> String {
        let text = escape_text(text);
        if self.no_trunc || text.chars().count() <= max {
            return text.into_owned();
        }
        text.chars().take(max - 1).chain(['…']).collect()
    }

    /// A directory, escaped, its long hexadecimal names cut to docker's twelve digits.
    pub fn directory(self, directory: &Bytes) -> String {
        let shown = directory.to_string();
        if self.no_trunc {
            return shown;
        }
        let parts: Vec<String> = shown
            .split('/')
            .map(|part| {
                let hex = part.bytes().take_while(u8::is_ascii_hexdigit).count();
                match part.get(64..) {
                    Some(rest) if hex == 64 => format!("{}…{rest}", &part[..12]),
                    _ => part.to_owned(),
                }
            })
            .collect();
        parts.join("/")
    }

    /// A text that is escaped already.
    pub fn bold(self, text: &str) -> String {
        if self.colors {
            text.bold().to_string()
        } else {
            text.to_owned()
        }
    }

    /// A path of what has that indicator, escaped, in the colour that `LS_COLORS` has for it.
    pub fn path(self, path: &Bytes, of: Indicator) -> String {
        let text = path.to_string();
        if self.colors {
            type_colors::paint(&text, of)
        } else {
            text
        }
    }

    /// A bare word of `--quiet` or `--null`: on a line, or ended by a NUL byte.
    ///
    /// # Errors
    /// The output cannot be written.
    #[inline]
    pub fn write_word(self, word: &[u8], out: &mut (impl Write + ?Sized)) -> io::Result<()> {
        match self.format {
            Format::Null => {
                out.write_all(word)?;
                out.write_all(b"\0")
            }
            Format::Table | Format::Json | Format::Jsonl | Format::Template | Format::Quiet => {
                self.write_line(word, out)
            }
        }
    }

    /// A bare line: escaped for a terminal, raw for everything else.
    ///
    /// # Errors
    /// The output cannot be written.
    #[inline]
    pub fn write_line(self, line: &[u8], out: &mut (impl Write + ?Sized)) -> io::Result<()> {
        if self.is_terminal {
            writeln!(out, "{}", escape(line))
        } else {
            out.write_all(line)?;
            out.write_all(b"\n")
        }
    }
}
