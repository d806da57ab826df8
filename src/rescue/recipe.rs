//! The recipe of a layer's archive, as tar-split wrote it when the archive was taken apart: every
//! byte that is no file's content, and where the files go. Docker keeps it as `tar-split.json.gz`,
//! containers-storage as `LAYER.tar-split.gz`.
//!
//! ```text
//! gzip of lines of JSON, in the order of the archive:
//! {"type":2,"payload":"<base64>","position":0}                  bytes: headers, what fills up
//! {"type":1,"name":"etc/motd","size":7,"payload":"<base64>"}    a file's content, and its CRC-64 (ISO)
//! {"type":1,"name_raw":"<base64>",...}                          the same of a name that is not UTF-8
//! ```
//!
//! Recipes are as hostile as the host that they come from: a line, and all lines together, have a
//! limit, and nothing of a name is trusted here.

use std::borrow::Cow;
use std::io::{BufRead, BufReader, Read};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crc::{CRC_64_GO_ISO, Crc, Table};
use flate2::bufread::MultiGzDecoder;
use serde::Deserialize;

/// The longest line, in bytes. A header with the largest attributes takes a hundredth of it.
const LINE_MAX: u64 = 16 << 20;
/// The most that a recipe unpacks to, in bytes: that of ten million files takes half of it.
const RECIPE_MAX: u64 = 16 << 30;
/// The largest archive that is put together, in bytes.
pub const ARCHIVE_MAX: u64 = 1 << 50;

/// The checksum that recipes have of a file's content.
pub static CRC: Crc<u64, Table<16>> = Crc::<u64, Table<16>>::new(&CRC_64_GO_ISO);

/// A recipe that is being read.
pub struct Recipe {
    lines: BufReader<Box<dyn Read>>,
    /// How much has been unpacked, in bytes.
    unpacked: u64,
    /// How long the archive is up to here, in bytes.
    archived: u64,
    line: Vec<u8>,
}

/// What comes next in the archive.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece {
    Bytes(Vec<u8>),
    File(Promise),
}

/// What a recipe says of a file's content.
#[derive(Debug, PartialEq, Eq)]
pub struct Promise {
    /// As the archive has it.
    pub name: Vec<u8>,
    /// Bytes.
    pub size: u64,
    /// CRC-64; none where there is no content.
    pub crc: Option<u64>,
}

#[derive(Deserialize)]
struct Line<'l> {
    #[serde(rename = "type")]
    kind: u8,
    #[serde(borrow, default)]
    name: Option<Cow<'l, str>>,
    #[serde(borrow, default)]
    name_raw: Option<Cow<'l, str>>,
    #[serde(default)]
    size: Option<i64>,
    #[serde(borrow, default)]
    payload: Option<Cow<'l, str>>,
}

impl Recipe {
    /// Reads what was packed with gzip.
    pub fn new(packed: impl Read + 'static) -> Recipe {
        let unpacked = MultiGzDecoder::new(BufReader::with_capacity(64 << 10, packed));
        Recipe {
            lines: BufReader::with_capacity(64 << 10, Box::new(unpacked)),
            unpacked: 0,
            archived: 0,
            line: Vec::new(),
        }
    }

    /// What comes next; none at the end.
    ///
    /// # Errors
    /// Says what is wrong with the recipe.
    pub fn next(&mut self) -> Result<Option<Piece>, String> {
        self.line.clear();
        let read = (&mut self.lines)
            .take(LINE_MAX + 1)
            .read_until(b'\n', &mut self.line);
        let read = read.map_err(|error| format!("cannot be unpacked: {error}"))? as u64;
        self.unpacked += read;
        if read > LINE_MAX {
            return Err("has a line of more than 16 MiB".into());
        }
        if self.unpacked > RECIPE_MAX {
            return Err("unpacks to more than 16 GiB, which no layer's recipe does".into());
        }
        if read == 0 {
            return Ok(None);
        }
        let piece = piece(&self.line)?;
        let length = match &piece {
            Piece::Bytes(bytes) => bytes.len() as u64,
            Piece::File(promise) => promise.size,
        };
        self.archived = self.archived.saturating_add(length);
        if self.archived > ARCHIVE_MAX {
            return Err("promises an archive of more than a pebibyte".into());
        }
        Ok(Some(piece))
    }

    /// How long the whole archive is, in bytes. That takes the rest of the recipe.
    ///
    /// # Errors
    /// Says what is wrong with the recipe.
    pub fn length(mut self) -> Result<u64, String> {
        while self.next()?.is_some() {}
        Ok(self.archived)
    }
}

fn piece(line: &[u8]) -> Result<Piece, String> {
    let damaged = || "has a line that no recipe has".to_owned();
    let line: Line<'_> = serde_json::from_slice(line).map_err(|_| damaged())?;
    let decode = |text: &str| STANDARD.decode(text).map_err(|_| damaged());
    let payload = line.payload.as_deref().map(decode).transpose()?;
    match line.kind {
        1 => {
            let name = match (line.name_raw, line.name) {
                (Some(raw), _) if !raw.is_empty() => decode(&raw)?,
                (_, Some(name)) => name.into_owned().into_bytes(),
                (_, None) => return Err(damaged()),
            };
            let crc =
                payload.and_then(|payload| Some(u64::from_be_bytes(payload.try_into().ok()?)));
            Ok(Piece::File(Promise {
                name,
                size: u64::try_from(line.size.unwrap_or(0)).map_err(|_| damaged())?,
                crc,
            }))
        }
        2 => Ok(Piece::Bytes(payload.unwrap_or_default())),
        _ => Err(damaged()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn packed(lines: &[u8]) -> Recipe {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packer.write_all(lines).expect("memory");
        Recipe::new(std::io::Cursor::new(packer.finish().expect("memory")))
    }

    #[test]
    fn a_checksum_is_gos() {
        // Go: crc64.Checksum([]byte("123456789"), crc64.MakeTable(crc64.ISO))
        assert_eq!(CRC.checksum(b"123456789"), 0xb909_56c7_75a4_1001);
    }

    #[test]
    fn pieces_in_order() {
        // As Docker wrote them, shortened.
        let mut recipe = packed(
            b"{\"type\":2,\"payload\":\"YWI=\",\"position\":0}\n\
              {\"type\":1,\"name\":\"etc/motd\",\"size\":9,\"payload\":\"uQlWx3WkEAE=\",\"position\":1}\n\
              {\"type\":1,\"name_raw\":\"/w==\",\"payload\":null,\"position\":2}\n",
        );
        let mut next = || recipe.next().expect("a recipe").expect("a piece");
        assert_eq!(next(), Piece::Bytes(b"ab".to_vec()));
        assert_eq!(
            next(),
            Piece::File(Promise {
                name: b"etc/motd".to_vec(),
                size: 9,
                crc: Some(0xb909_56c7_75a4_1001),
            })
        );
        assert_eq!(
            next(),
            Piece::File(Promise {
                name: vec![0xff],
                size: 0,
                crc: None,
            })
        );
        assert_eq!(recipe.next(), Ok(None));
        assert_eq!(recipe.length(), Ok(11));
    }

    #[test]
    fn what_is_no_recipe_is_refused() {
        let refused = |lines: &[u8]| packed(lines).length().expect_err("a refusal");
        assert!(refused(b"{\"type\":3}\n").contains("no recipe"));
        assert!(refused(b"{\"type\":1}\n").contains("no recipe"));
        assert!(refused(b"{\"type\":1,\"name\":\"a\",\"size\":-1}\n").contains("no recipe"));
        assert!(refused(b"{\"type\":2,\"payload\":\"?\"}\n").contains("no recipe"));
        let lying = b"{\"type\":1,\"name\":\"a\",\"size\":9223372036854775807}\n".repeat(3);
        assert!(refused(&lying).contains("pebibyte"));
        let long = vec![b' '; (LINE_MAX + 1) as usize];
        assert!(refused(&long).contains("16 MiB"));
        let cut = Recipe::new(std::io::Cursor::new(b"no gzip".to_vec()));
        assert!(cut.length().is_err_and(|what| what.contains("unpacked")));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_a_reader_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
            let _ = piece(&bytes);
            let _ = Recipe::new(std::io::Cursor::new(bytes)).length();
        }
    }
}
