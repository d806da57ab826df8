//! What differs in the lines of two texts: a unified diff, or how much was added and removed.

use std::io::{Read, Write};

use owo_colors::OwoColorize;
use similar::{ChangeTag, TextDiff};

use crate::bytes::{Bytes, escape_content};
use crate::difference::{Between, Version};
use crate::dir::{Content, Kind};
use crate::error::{Error, Result, errno_of};
use crate::render::Look;

/// The largest file whose lines are compared unasked, in bytes.
const TEXT_MAX: u64 = 1 << 20;
/// The largest file whose lines are compared at all, in bytes: both versions are held in memory.
const ALL_TEXT_MAX: u64 = 256 << 20;
/// How much of a file's beginning tells whether it is text, in bytes: as git has it.
const LOOKED_AT: usize = 8000;
/// How many lines around a change are shown.
const AROUND: usize = 3;

/// The two contents of a file.
pub struct Texts {
    before: Option<Vec<u8>>,
    after: Option<Vec<u8>>,
    is_text: bool,
}

impl Texts {
    /// Reads both versions of a file, where at least one is a file; none where there is nothing to
    /// be read. What is large or no text is not read whole, unless all of it is asked for.
    ///
    /// # Errors
    /// A version that cannot be read.
    pub fn read(difference: &Between<'_>, all_text: bool) -> Result<Option<Texts>> {
        let is_file = |of: &&Version<'_>| of.stat.kind == Kind::File;
        let before = difference.before.as_ref().filter(is_file);
        let after = difference.after.as_ref().filter(is_file);
        if before.is_none() && after.is_none() {
            return Ok(None);
        }
        let mut is_text = true;
        let mut read = |version: Option<&Version<'_>>| -> Result<Option<Vec<u8>>> {
            let Some(version) = version else {
                return Ok(None);
            };
            let most = if all_text { ALL_TEXT_MAX } else { TEXT_MAX };
            if version.stat.size > most {
                is_text = false;
                return Ok(Some(Vec::new()));
            }
            let content = content(version.open()?, most, &version.on_host())?;
            let looked_at = &content[..content.len().min(LOOKED_AT)];
            is_text &= content.len() as u64 <= most && (all_text || !looked_at.contains(&0));
            Ok(Some(content))
        };
        Ok(Some(Texts {
            before: read(before)?,
            after: read(after)?,
            is_text,
        }))
    }

    /// A unified diff, or that the files differ where they are no texts. `names` are what the two
    /// are called.
    pub fn patch(&self, names: [&Bytes; 2]) -> Vec<u8> {
        let nothing = Bytes::from("/dev/null");
        let name = |content: &Option<Vec<u8>>, name| match content {
            Some(_) => name,
            None => nothing.to_string(),
        };
        let before = name(&self.before, names[0].to_string());
        let after = name(&self.after, names[1].to_string());
        if !self.is_text {
            return format!("Binary files {before} and {after} differ\n").into_bytes();
        }
        let [old, new] = [&self.before, &self.after].map(|of| of.as_deref().unwrap_or_default());
        let diff = TextDiff::from_lines(old, new);
        let mut patch = Vec::new();
        let mut unified = diff.unified_diff();
        let unified = unified.context_radius(AROUND).header(&before, &after);
        // Memory takes whatever is written to it.
        let _ = unified.to_writer(&mut patch);
        patch
    }

    /// How many bytes of lines were added and removed; of what is no text, all of it.
    pub fn counts(&self, sizes: [u64; 2]) -> (u64, u64) {
        let [old, new] = [&self.before, &self.after].map(|of| of.as_deref().unwrap_or_default());
        if !self.is_text {
            return (sizes[1], sizes[0]);
        }
        let (mut added, mut removed) = (0, 0);
        for change in TextDiff::from_lines(old, new).iter_all_changes() {
            let size = change.value().len() as u64;
            match change.tag() {
                ChangeTag::Insert => added += size,
                ChangeTag::Delete => removed += size,
                ChangeTag::Equal => {}
            }
        }
        (added, removed)
    }
}

fn content(file: Content, most: u64, path: &Bytes) -> Result<Vec<u8>> {
    let mut content = Vec::new();
    let read = file.take(most.saturating_add(1)).read_to_end(&mut content);
    read.map_err(|error| Error::io(path.clone(), errno_of(&error)))?;
    Ok(content)
}

/// Writes a patch as it is, or as a terminal may be sent it.
pub fn write(patch: &[u8], look: Look, out: &mut Vec<u8>) {
    if !look.is_terminal && !look.colors {
        out.extend_from_slice(patch);
        return;
    }
    for line in patch.split_inclusive(|&byte| byte == b'\n') {
        let mut text = String::new();
        if look.is_terminal {
            let done = escape_content(line, &mut text);
            text.push_str(&crate::bytes::escape(&line[done..]));
        } else {
            text.push_str(&String::from_utf8_lossy(line));
        }
        let text = text.trim_end_matches('\n');
        // Memory takes whatever is written to it.
        let _ = match line.first() {
            _ if !look.colors => writeln!(out, "{text}"),
            Some(b'+') => writeln!(out, "{}", text.green()),
            Some(b'-') => writeln!(out, "{}", text.red()),
            Some(b'@') => writeln!(out, "{}", text.cyan()),
            _ => writeln!(out, "{text}"),
        };
    }
}
