//! Names and paths are bytes. This is the one place that says how such bytes are shown to a
//! person and how they are written for a machine.

use std::borrow::Cow;
use std::cell::Cell;
use std::ffi::OsStr;
use std::fmt::{self, Write as _};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

/// A name or a path as the kernel keeps it: any bytes but NUL.
///
/// `Display` escapes what a terminal would act on; `Serialize` writes a plain string where the
/// bytes are UTF-8 and `{"bytes": BASE64}` where they are not.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes(pub Vec<u8>);

thread_local! {
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// The most memory that is kept for the next path, in bytes: more than most paths take.
const SPARE_MAX: usize = 64 << 10;

impl Bytes {
    /// The bytes alone.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The same as a path of the standard library.
    pub fn to_path(&self) -> PathBuf {
        PathBuf::from(OsStr::from_bytes(&self.0))
    }

    /// `self` and `name` with one slash between them.
    pub fn join(&self, name: &[u8]) -> Bytes {
        self.join_into(name, Bytes::default())
    }

    /// The same, in memory that is not used any more.
    pub fn join_into(&self, name: &[u8], used: Bytes) -> Bytes {
        let mut joined = used;
        joined.0.clear();
        joined.0.reserve(self.0.len() + 1 + name.len());
        joined.0.extend_from_slice(&self.0);
        joined.push(name);
        joined
    }

    /// Adds a name, with one slash before it.
    fn push(&mut self, name: &[u8]) {
        if self.0.last() != Some(&b'/') {
            self.0.push(b'/');
        }
        self.0.extend_from_slice(name);
    }

    /// Memory for a path that is not kept for long: what was given back last in this thread.
    pub fn spare() -> Bytes {
        Bytes(SPARE.take())
    }

    /// Ends a path whose memory can be that of the next one.
    pub fn give_back(self) {
        if (1..=SPARE_MAX).contains(&self.0.capacity()) {
            SPARE.set(self.0);
        }
    }

    /// The paths of what is in this directory.
    pub fn entries(&self) -> Entries<'_> {
        let Bytes(memory) = self.join_into(b"", Bytes::spare());
        Entries {
            directory: self,
            prefix: memory.len(),
            memory: Cell::new(memory),
        }
    }

    /// A path that was taken as if `self` were the root.
    pub fn join_path(&self, path: &Bytes) -> Bytes {
        let mut joined = Vec::with_capacity(self.0.len() + 1 + path.0.len());
        joined.extend_from_slice(&self.0);
        let mut joined = Bytes(joined);
        path.components().for_each(|part| joined.push(part));
        joined
    }

    /// The absolute path of `components`: `/` of none.
    pub fn absolute<'a>(components: impl IntoIterator<Item = &'a [u8]>) -> Bytes {
        Bytes::absolute_in(Vec::new(), components)
    }

    fn absolute_in<'a>(mut path: Vec<u8>, components: impl IntoIterator<Item = &'a [u8]>) -> Bytes {
        for component in components {
            path.push(b'/');
            path.extend_from_slice(component);
        }
        if path.is_empty() {
            path.push(b'/');
        }
        Bytes(path)
    }

    /// The path's components, without empty ones and `.`; `..` is kept.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        components(&self.0)
    }

    /// Whether one of its components is `..`.
    pub fn has_parents(&self) -> bool {
        self.components().any(|name| name == b"..")
    }

    /// The last component; empty for `/`.
    pub fn file_name(&self) -> &[u8] {
        self.components().next_back().unwrap_or_default()
    }

    /// What stands before the last component; `/` for a top-level name.
    pub fn parent(&self) -> Bytes {
        let mut above = self.components();
        above.next_back();
        Bytes::absolute_in(Vec::with_capacity(self.0.len()), above)
    }

    /// `self` without `prefix`, where `prefix` is a whole leading part of the path.
    pub fn strip_prefix(&self, prefix: &Bytes) -> Option<Bytes> {
        let mut rest = self.components();
        for part in prefix.components() {
            if rest.next() != Some(part) {
                return None;
            }
        }
        Some(Bytes::absolute(rest))
    }

    /// Whether `directory` is a whole leading part of the path, or all of it.
    pub fn lies_in(&self, directory: &Bytes) -> bool {
        let mut parts = self.components();
        let mut above = directory.components();
        above.all(|part| parts.next() == Some(part))
    }

    /// The name by which the path goes on from a directory on its way; none where it does not lead
    /// through there, or ends there.
    pub fn step_from(&self, directory: &Bytes) -> Option<&[u8]> {
        let mut parts = self.components();
        let mut above = directory.components();
        above
            .all(|part| parts.next() == Some(part))
            .then(|| parts.next())?
    }

    /// The bytes as a text, for what is known to be one. What is not UTF-8 is replaced.
    pub fn to_text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.0)
    }
}

/// The paths of a directory's entries, one after the other in the same memory.
pub struct Entries<'d> {
    directory: &'d Bytes,
    /// How much of the memory is the directory's path, in bytes.
    prefix: usize,
    /// The path before, or nothing.
    memory: Cell<Vec<u8>>,
}

impl Entries<'_> {
    /// The path of one entry, in the memory of the one before if that was given back.
    #[inline]
    pub fn path(&self, name: &[u8]) -> Bytes {
        let mut path = self.memory.take();
        if path.len() < self.prefix {
            return self.directory.join(name);
        }
        path.truncate(self.prefix);
        path.extend_from_slice(name);
        Bytes(path)
    }

    /// Gives the memory of such a path back.
    #[inline]
    pub fn give_back(&self, path: Bytes) {
        debug_assert!(path.0.is_empty() || path.0.starts_with(&self.directory.0));
        self.memory.set(path.0);
    }
}

impl Drop for Entries<'_> {
    fn drop(&mut self) {
        Bytes(self.memory.take()).give_back();
    }
}

/// The components of a path's bytes, without empty ones and `.`; `..` is kept.
pub fn components(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|&byte| byte == b'/')
        .filter(|part| !part.is_empty() && *part != b".")
}

impl From<&[u8]> for Bytes {
    fn from(bytes: &[u8]) -> Self {
        Bytes(bytes.to_vec())
    }
}

impl From<&str> for Bytes {
    fn from(text: &str) -> Self {
        Bytes(text.as_bytes().to_vec())
    }
}

impl From<String> for Bytes {
    fn from(text: String) -> Self {
        Bytes(text.into_bytes())
    }
}

impl From<&OsStr> for Bytes {
    fn from(text: &OsStr) -> Self {
        Bytes(text.as_bytes().to_vec())
    }
}

impl From<&Path> for Bytes {
    fn from(path: &Path) -> Self {
        Bytes(path.as_os_str().as_bytes().to_vec())
    }
}

/// A text that is not read back, such as an instruction: [`escape`], but a backslash is left as
/// it is.
pub fn escape_text(text: &str) -> Cow<'_, str> {
    match escape(text.as_bytes()) {
        Cow::Owned(escaped) if text.contains('\\') => Cow::Owned(escaped.replace("\\\\", "\\")),
        escaped => escaped,
    }
}

/// Escapes whatever could move a cursor, change a colour, reverse the reading order or hide:
/// C0 and C1 controls, DEL, bidi and zero-width format characters, line separators, and bytes
/// that are not UTF-8. A backslash is doubled so that the escape can be read back.
pub fn escape(bytes: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(bytes)
        && !text.chars().any(needs_escape)
    {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(bytes.len() + 8);
    for chunk in bytes.utf8_chunks() {
        for (char, is_shown) in judged(chunk.valid()) {
            match char {
                '\n' => out.push_str("\\n"),
                '\t' => out.push_str("\\t"),
                '\r' => out.push_str("\\r"),
                '\\' => out.push_str("\\\\"),
                char if is_shown => out.push(char),
                char if char.is_ascii() => {
                    let _ = write!(out, "\\x{:02x}", char as u32);
                }
                char => {
                    let _ = write!(out, "\\u{{{:x}}}", char as u32);
                }
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(out, "\\x{byte:02x}");
        }
    }
    Cow::Owned(out)
}

/// Escapes content for a terminal: lines and tabs stay, and so does a backslash, since nobody reads
/// it back. Returns how much of it that was: less than all only where it ends within a character,
/// of which more may follow.
pub fn escape_content(bytes: &[u8], out: &mut String) -> usize {
    let mut done = 0;
    for chunk in bytes.utf8_chunks() {
        for (char, is_shown) in judged(chunk.valid()) {
            match char {
                '\n' | '\t' | '\\' => out.push(char),
                char if is_shown => out.push(char),
                char => out.push_str(&escape(char.encode_utf8(&mut [0; 4]).as_bytes())),
            }
        }
        done += chunk.valid().len();
        let invalid = chunk.invalid();
        let is_cut_off = done + invalid.len() == bytes.len()
            && std::str::from_utf8(invalid).is_err_and(|error| error.error_len().is_none());
        if is_cut_off {
            break;
        }
        for byte in invalid {
            let _ = write!(out, "\\x{byte:02x}");
        }
        done += invalid.len();
    }
    done
}

/// The characters of a text, each with whether it is shown as it is.
fn judged(text: &str) -> impl Iterator<Item = (char, bool)> {
    let mut chars = text.chars().peekable();
    let mut before = None;
    std::iter::from_fn(move || {
        let char = chars.next()?;
        let is_shown = !needs_escape(char) || joins(before, char, chars.peek().copied());
        before = Some(char);
        Some((char, is_shown))
    })
}

/// Whether a joiner does what it is for: makes one sign of two. Elsewhere it only hides that two names
/// differ.
///
/// An emoji may be joined with the next (Unicode 16, UTS #51 2.3), and in scripts of India a sign for
/// "no vowel" goes before a joiner or a non-joiner (The Unicode Standard, 12.1).
fn joins(before: Option<char>, char: char, after: Option<char>) -> bool {
    let (Some(before), Some(after)) = (before, after) else {
        return false;
    };
    match char {
        '\u{200d}' if is_emoji(after) => is_emoji(before) || is_of_emoji(before),
        '\u{200c}' | '\u{200d}' => VIRAMAS.contains(&before) && after.is_alphabetic(),
        _ => false,
    }
}

fn is_emoji(char: char) -> bool {
    use unicode_properties::UnicodeEmoji as _;
    // Digits are emoji to the standard, for they can become keys.
    !char.is_ascii() && char.is_emoji_char() && !is_of_emoji(char)
}

/// What follows an emoji and belongs to it: a form, or a colour of skin.
fn is_of_emoji(char: char) -> bool {
    matches!(char, '\u{fe0f}' | '\u{1f3fb}'..='\u{1f3ff}')
}

/// The signs that take the vowel from the letter before them (`InSC=Virama` of the scripts whose
/// letters join).
const VIRAMAS: [char; 11] = [
    '\u{94d}', '\u{9cd}', '\u{a4d}', '\u{acd}', '\u{b4d}', '\u{bcd}', '\u{c4d}', '\u{ccd}',
    '\u{d4d}', '\u{dca}', '\u{1039}',
];

/// Whether a character could make a terminal do or hide something.
pub fn needs_escape(char: char) -> bool {
    char == '\\'
        || char.is_control()
        || matches!(char,
            '\u{061c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&escape(&self.0))
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", escape(&self.0))
    }
}

impl serde::Serialize for Bytes {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap;
        match std::str::from_utf8(&self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => {
                let mut map = serializer.serialize_map(Some(1))?;
                map.serialize_entry("bytes", &BASE64.encode(&self.0))?;
                map.end()
            }
        }
    }
}

impl schemars::JsonSchema for Bytes {
    fn schema_name() -> Cow<'static, str> {
        "Bytes".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "A name or a path: a string where it is UTF-8, else its bytes in base64.",
            "oneOf": [
                {"type": "string"},
                {
                    "type": "object",
                    "properties": {"bytes": {"type": "string", "contentEncoding": "base64"}},
                    "required": ["bytes"],
                    "additionalProperties": false
                }
            ]
        })
    }
}

/// A path as a shell takes it: bare, in single quotes, or in `$'...'` where it has bytes that a
/// terminal would act on.
pub fn shell_quote(path: &Bytes) -> String {
    let bytes = path.as_bytes();
    let is_bare = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._-+,:=@%".contains(byte);
    if !bytes.is_empty() && bytes.iter().all(is_bare) {
        return String::from_utf8_lossy(bytes).into_owned();
    }
    if let Ok(text) = std::str::from_utf8(bytes)
        && escape(bytes).replace("\\\\", "\\") == text
    {
        return format!("'{}'", text.replace('\'', "'\\''"));
    }
    let mut quoted = String::from("$'");
    for &byte in bytes {
        match byte {
            // A shell that does not know `$'...'` takes a backslash for itself: a quote would end the word.
            b'\'' | b'\\' => {
                let _ = write!(quoted, "\\x{byte:02x}");
            }
            0x20..=0x7e => quoted.push(byte as char),
            _ => {
                let _ = write!(quoted, "\\x{byte:02x}");
            }
        }
    }
    quoted.push('\'');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_quoted_for_a_shell() {
        for (path, quoted) in [
            (&b"/a/.wh.b-1"[..], "/a/.wh.b-1"),
            (b"/a b", "'/a b'"),
            (b"/it's", "'/it'\\''s'"),
            (b"/back\\slash", "'/back\\slash'"),
            (b"/new\nline'\xff", "$'/new\\x0aline\\x27\\xff'"),
            (b"/$(rm)", "'/$(rm)'"),
            (b"", "''"),
        ] {
            assert_eq!(shell_quote(&Bytes::from(path)), quoted);
        }
    }

    #[test]
    fn escapes_what_a_terminal_would_act_on_and_nothing_else() {
        for (bytes, shown) in [
            (&b"plain name"[..], "plain name"),
            ("gr\u{fc}n".as_bytes(), "gr\u{fc}n"),
            (b"new\nline", "new\\nline"),
            (b"\x1b[31m", "\\x1b[31m"),
            (b"del\x7f", "del\\x7f"),
            (b"\xff\xferaw", "\\xff\\xferaw"),
            (b"back\\slash", "back\\\\slash"),
            ("c1\u{9b}".as_bytes(), "c1\\u{9b}"),
            ("a\u{202e}b".as_bytes(), "a\\u{202e}b"),
        ] {
            assert_eq!(escape(bytes), shown);
        }
    }

    #[test]
    fn json_is_a_string_where_it_can_be() {
        let json = |bytes: &[u8]| serde_json::to_string(&Bytes::from(bytes)).unwrap();
        assert_eq!(json(b"/a b\n"), r#""/a b\n""#);
        assert_eq!(json(b"\xff"), r#"{"bytes":"/w=="}"#);
    }

    #[test]
    fn paths_are_taken_apart_and_put_together() {
        let path = Bytes::from("//a/./b/../c/");
        let parts: Vec<&[u8]> = path.components().collect();
        assert_eq!(parts, [&b"a"[..], b"b", b"..", b"c"]);
        assert_eq!(Bytes::from("/a/b").parent(), Bytes::from("/a"));
        assert_eq!(Bytes::from("/a").parent(), Bytes::from("/"));
        assert_eq!(Bytes::from("/").join(b"x"), Bytes::from("/x"));
        assert_eq!(
            Bytes::from("/a/bc").strip_prefix(&Bytes::from("/a/b")),
            None
        );
        assert_eq!(
            Bytes::from("/a/b/c").strip_prefix(&Bytes::from("/a/b")),
            Some(Bytes::from("/c"))
        );
        assert_eq!(
            Bytes::from("/a").strip_prefix(&Bytes::from("/")),
            Some(Bytes::from("/a"))
        );
    }

    #[test]
    fn joiners_that_join_are_shown() {
        // A family, a flag of a rainbow, a woman with a colour of skin who is an astronaut.
        for shown in [
            "\u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467}",
            "\u{1f3f3}\u{fe0f}\u{200d}\u{1f308}",
            "\u{1f469}\u{1f3fd}\u{200d}\u{1f680}",
            // ksha, once with its parts apart; Sri Lanka's own spelling of its name.
            "\u{915}\u{94d}\u{200d}\u{937}",
            "\u{915}\u{94d}\u{200c}\u{937}",
            "\u{dc1}\u{dca}\u{200d}\u{dbb}\u{dd3}",
        ] {
            assert_eq!(escape(shown.as_bytes()), shown);
        }
        // Elsewhere they hide that two names differ.
        for hidden in [
            "a\u{200d}b",
            "1\u{200d}2",
            "\u{200d}\u{1f469}",
            "\u{1f469}\u{200d}",
            "a\u{200c}b",
            "\u{94d}\u{200d}",
            "\u{1f469}\u{200d}a",
        ] {
            assert!(escape(hidden.as_bytes()).contains("\\u{200"), "{hidden:?}");
        }
    }
}
