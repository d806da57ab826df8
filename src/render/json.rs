//! Answers for machines: one document, or one object a line.

use std::io::{self, Write};

use serde::Serialize;
use serde::ser::{SerializeSeq, Serializer as _};
use serde_json::Serializer;
use serde_json::ser::{CompactFormatter, Formatter, PrettyFormatter};

use crate::bytes::needs_escape;

/// One document.
///
/// # Errors
/// The output cannot be written.
pub fn document(
    answer: &(impl Serialize + ?Sized),
    out: &mut (impl Write + ?Sized),
) -> io::Result<()> {
    let formatter = Harmless(PrettyFormatter::new());
    answer.serialize(&mut Serializer::with_formatter(&mut *out, formatter))?;
    out.write_all(b"\n")
}

/// One document that is an array, whose rows are written as `find` gives them.
///
/// # Errors
/// The output cannot be written.
pub fn array<R: Serialize>(
    out: &mut (impl Write + ?Sized),
    find: impl FnOnce(&mut dyn FnMut(&R) -> io::Result<()>) -> io::Result<()>,
) -> io::Result<()> {
    let formatter = Harmless(PrettyFormatter::new());
    let mut serializer = Serializer::with_formatter(&mut *out, formatter);
    let mut rows = (&mut serializer).serialize_seq(None)?;
    find(&mut |row| rows.serialize_element(row).map_err(io::Error::from))?;
    rows.end()?;
    out.write_all(b"\n")
}

/// One object on a line.
///
/// # Errors
/// The output cannot be written.
pub fn line(row: &impl Serialize, out: &mut (impl Write + ?Sized)) -> io::Result<()> {
    let formatter = Harmless(CompactFormatter);
    row.serialize(&mut Serializer::with_formatter(&mut *out, formatter))?;
    out.write_all(b"\n")
}

/// JSON leaves DEL, C1 controls and bidi overrides in strings as they are. A terminal that the
/// answer is shown on would act on them, so they are written as `\uXXXX`, which reads the same.
struct Harmless<F>(F);

impl<F: Formatter> Formatter for Harmless<F> {
    fn write_string_fragment<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut rest = fragment;
        while let Some(at) = rest.find(|char| char != '\\' && needs_escape(char)) {
            let (plain, from) = rest.split_at(at);
            writer.write_all(plain.as_bytes())?;
            let Some(char) = from.chars().next() else {
                break;
            };
            for unit in char.encode_utf16(&mut [0; 2]) {
                write!(writer, "\\u{unit:04x}")?;
            }
            rest = &from[char.len_utf8()..];
        }
        writer.write_all(rest.as_bytes())
    }

    fn begin_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_array(writer)
    }

    fn end_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_array(writer)
    }

    fn begin_array_value<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        self.0.begin_array_value(writer, first)
    }

    fn end_array_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_array_value(writer)
    }

    fn begin_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_object(writer)
    }

    fn end_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_object(writer)
    }

    fn begin_object_key<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        self.0.begin_object_key(writer, first)
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_object_value(writer)
    }

    fn end_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_object_value(writer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_string_reaches_a_terminal_raw() {
        for byte in (0..=0x1f)
            .chain(0x7f..=0x9f)
            .chain([0x202e, 0x2066, 0xe0001])
        {
            let text = format!("a{}b\\c", char::from_u32(byte).unwrap());
            let mut out = Vec::new();
            line(&text, &mut out).unwrap();
            let line = String::from_utf8(out).unwrap();
            let line = line.strip_suffix('\n').unwrap();
            assert!(
                !line.chars().any(|char| char != '\\' && needs_escape(char)),
                "{line:?}"
            );
            assert_eq!(serde_json::from_str::<String>(line).unwrap(), text);
        }
    }
}
