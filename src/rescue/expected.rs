//! What a layer's archive says that its directory has: one entry, read from its headers.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read};

use tar::{Entry, EntryType};

use crate::bytes::Bytes;
use crate::dir::Kind;

/// The records of extended attributes in a header.
const ATTRIBUTE: &[u8] = b"SCHILY.xattr.";

/// An entry as its archive has it.
#[derive(Debug, PartialEq, Eq)]
pub struct Expected {
    /// As the archive spells it.
    pub name: Vec<u8>,
    /// None for a further name of a file.
    pub kind: Option<Kind>,
    pub mode: u32,
    pub uid: u64,
    pub gid: u64,
    /// Seconds since 1970, and nanoseconds where the archive has any.
    pub mtime: (i64, Option<u32>),
    /// Bytes of content.
    pub size: u64,
    /// What a symbolic link says, or the first name of a file.
    pub link: Vec<u8>,
    /// Of a device, as `rdev` has it.
    pub device: u64,
    pub attributes: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Expected {
    /// Reads the headers of an entry; none of what describes others.
    ///
    /// # Errors
    /// They are no headers of an archive.
    pub fn read(entry: &mut Entry<'_, impl Read>) -> io::Result<Option<Expected>> {
        let header = entry.header();
        let kind = match header.entry_type() {
            EntryType::Directory => Some(Kind::Directory),
            EntryType::Symlink => Some(Kind::Symlink),
            EntryType::Char => Some(Kind::Char),
            EntryType::Block => Some(Kind::Block),
            EntryType::Fifo => Some(Kind::Fifo),
            EntryType::Link => None,
            EntryType::XGlobalHeader | EntryType::XHeader => return Ok(None),
            _ => Some(Kind::File),
        };
        let number = |of: io::Result<Option<u32>>| of.ok().flatten().unwrap_or(0);
        let device =
            rustix::fs::makedev(number(header.device_major()), number(header.device_minor()));
        let mut expected = Expected {
            name: entry.path_bytes().into_owned(),
            kind,
            mode: header.mode()? & 0o7777,
            uid: header.uid()?,
            gid: header.gid()?,
            mtime: (i64::try_from(header.mtime()?).unwrap_or(i64::MAX), None),
            size: entry.size(),
            link: entry.link_name_bytes().unwrap_or_default().into_owned(),
            device,
            attributes: BTreeMap::new(),
        };
        if let Some(records) = entry.pax_extensions()? {
            for record in records {
                let record = record?;
                expected.record(record.key_bytes(), record.value_bytes());
            }
        }
        Ok(Some(expected))
    }

    /// The same of an entry's own headers alone.
    ///
    /// # Errors
    /// As of [`Expected::read`].
    pub fn of_headers(headers: &[u8]) -> io::Result<Option<Expected>> {
        let mut archive = tar::Archive::new(headers);
        let Some(entry) = archive.entries()?.next() else {
            return Err(ErrorKind::InvalidData.into());
        };
        Expected::read(&mut entry?)
    }

    fn record(&mut self, key: &[u8], value: &[u8]) {
        let number = || std::str::from_utf8(value).ok()?.parse().ok();
        match key {
            b"uid" => self.uid = number().unwrap_or(self.uid),
            b"gid" => self.gid = number().unwrap_or(self.gid),
            b"mtime" => self.mtime = time(value).unwrap_or(self.mtime),
            key => {
                if let Some(name) = key.strip_prefix(ATTRIBUTE) {
                    self.attributes.insert(name.to_vec(), value.to_vec());
                }
            }
        }
    }

    /// About what it takes in memory, in bytes.
    pub fn memory(&self) -> u64 {
        /// An attribute with the allocations of both its parts.
        const ATTRIBUTE: usize = 128;
        let attributes = self.attributes.iter();
        let attributes = attributes.map(|(name, value)| ATTRIBUTE + name.len() + value.len());
        let own = size_of::<Expected>() + self.name.len() + self.link.len();
        (own + attributes.sum::<usize>()) as u64
    }

    /// Its path in the layer.
    pub fn path(&self) -> Bytes {
        super::tree::path_of(&self.name)
    }
}

/// `SECONDS[.FRACTION]`, as a record has it.
fn time(value: &[u8]) -> Option<(i64, Option<u32>)> {
    let text = std::str::from_utf8(value).ok()?;
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits: String = fraction
        .chars()
        .chain("000000000".chars())
        .take(9)
        .collect();
    let nanoseconds: u32 = digits.parse().ok()?;
    let whole: i64 = seconds.parse().ok()?;
    Some(match (text.starts_with('-'), nanoseconds) {
        (true, 1..) => (whole - 1, Some(1_000_000_000 - nanoseconds)),
        _ => (whole, Some(nanoseconds)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_records() {
        for (text, said) in [
            ("1", Some((1, Some(0)))),
            ("1.5", Some((1, Some(500_000_000)))),
            ("1.0000000019", Some((1, Some(1)))),
            ("-1.25", Some((-2, Some(750_000_000)))),
            ("-0.25", Some((-1, Some(750_000_000)))),
            ("x", None),
            ("1.x", None),
        ] {
            assert_eq!(time(text.as_bytes()), said, "{text}");
        }
    }
}
