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
    /// Reads the headers of an entry, of which all bytes are given as well; none of what describes others.
    ///
    /// # Errors
    /// They are no headers of an archive.
    pub fn read(entry: &Entry<'_, impl Read>, headers: &[u8]) -> io::Result<Option<Expected>> {
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
        let extended = Extended::of(headers);
        for record in records(extended.records) {
            let (key, value) = record?;
            let is_known = match key {
                b"path" => extended.has_long_name,
                b"linkpath" => extended.has_long_link,
                _ => false,
            };
            if !is_known {
                expected.record(key, value);
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
        Expected::read(&entry?, headers)
    }

    fn record(&mut self, key: &[u8], value: &[u8]) {
        let number = || std::str::from_utf8(value).ok()?.parse().ok();
        match key {
            b"uid" => self.uid = number().unwrap_or(self.uid),
            b"gid" => self.gid = number().unwrap_or(self.gid),
            b"mtime" => self.mtime = time(value).unwrap_or(self.mtime),
            b"path" | b"linkpath" if value.is_empty() => {}
            b"path" => self.name = value.to_vec(),
            b"linkpath" => self.link = value.to_vec(),
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

/// What stands before an entry's own header.
#[derive(Default)]
struct Extended<'h> {
    records: &'h [u8],
    /// Of GNU's kind: it goes before that of a record.
    has_long_name: bool,
    has_long_link: bool,
}

impl<'h> Extended<'h> {
    fn of(headers: &'h [u8]) -> Extended<'h> {
        let mut extended = Extended::default();
        let mut rest = headers;
        while let Some((block, after)) = rest.split_at_checked(512) {
            let header = tar::Header::from_byte_slice(block);
            let size = header.entry_size().ok();
            let size = size.and_then(|size| usize::try_from(size).ok());
            let data = size.and_then(|size| after.get(..size));
            match header.entry_type() {
                EntryType::XHeader => extended.records = data.unwrap_or_default(),
                EntryType::GNULongName => extended.has_long_name = true,
                EntryType::GNULongLink => extended.has_long_link = true,
                _ => break,
            }
            let padded = data.map(|data| data.len().next_multiple_of(512));
            rest = padded
                .and_then(|padded| after.get(padded..))
                .unwrap_or_default();
        }
        extended
    }
}

/// Records of `LENGTH KEY=VALUE` and a newline: the length alone says where one ends, as a value has
/// any bytes, newlines among them.
fn records(mut rest: &[u8]) -> impl Iterator<Item = io::Result<(&[u8], &[u8])>> {
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let record = record(rest);
        rest = match &record {
            Some((_, _, rest)) => rest,
            None => &[],
        };
        let no_record = || io::Error::new(ErrorKind::InvalidData, "malformed pax extension");
        Some(
            record
                .map(|(key, value, _)| (key, value))
                .ok_or_else(no_record),
        )
    })
}

/// The first one: its key, its value, and what comes after it.
fn record(all: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let digits = all.iter().position(|byte| *byte == b' ')?;
    let length: usize = std::str::from_utf8(&all[..digits]).ok()?.parse().ok()?;
    let (record, rest) = all.split_at_checked(length)?;
    let record = record.get(digits + 1..)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|byte| *byte == b'=')?;
    Some((&record[..equals], &record[equals + 1..], rest))
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

    /// The headers of a file with some records, in bytes.
    fn headers(records: &[(&str, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        let records = records.iter().copied();
        builder.append_pax_extensions(records).expect("memory");
        let mut header = tar::Header::new_ustar();
        header.set_path("cut").expect("short");
        header.set_size(0);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_cksum();
        builder.append(&header, &[][..]).expect("memory");
        builder.into_inner().expect("memory")
    }

    #[test]
    fn records_end_where_their_lengths_say() {
        // Bits 1 and 3 of a byte of capabilities are a newline; what looks like a record is none.
        let capability = b"\x01\0\0\x02\x0a\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
        let headers = headers(&[
            ("SCHILY.xattr.security.capability", capability),
            ("SCHILY.xattr.user.lines", b"one\n9 uid=77\n\n"),
            ("SCHILY.xattr.user.empty", b""),
            ("gid", b"12"),
            ("path", b"ctx\nname\x01\xff"),
        ]);
        let expected = Expected::of_headers(&headers).expect("headers");
        let expected = expected.expect("an entry");
        assert_eq!(expected.name, b"ctx\nname\x01\xff");
        assert_eq!((expected.uid, expected.gid), (0, 12));
        let attributes: Vec<(&[u8], &[u8])> = expected
            .attributes
            .iter()
            .map(|(name, value)| (&name[..], &value[..]))
            .collect();
        assert_eq!(
            attributes,
            [
                (&b"security.capability"[..], &capability[..]),
                (b"user.empty", b""),
                (b"user.lines", b"one\n9 uid=77\n\n"),
            ]
        );
    }

    #[test]
    fn what_is_no_record_is_refused() {
        for data in [
            &b"x"[..],
            b"7 a=b\n",
            b"5 a=b\n",
            b"0 a=b\n",
            b"1 a=b\n",
            b"2 a=b\n",
            b"6 a=bc",
            b"6 ab c\n",
            b"99999999999999999999999 a=b\n",
            b"-6 a=b\n",
            b"6 a=b\n\0\0",
        ] {
            let mut last = records(data);
            assert!(last.any(|of| of.is_err()), "{}", data.escape_ascii());
        }
        let two: Vec<_> = records(b"6 a=b\n6 =\n=\n")
            .map(|of| of.expect("a record"))
            .collect();
        assert_eq!(two, [(&b"a"[..], &b"b"[..]), (b"", b"\n=")]);
    }
}
