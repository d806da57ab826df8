//! Archives that are packed, hashed and counted as they are written.

use std::io::{self, BufReader, Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::interrupt::Interrupt;

/// How layers are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, schemars::JsonSchema, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Compression {
    /// How an archive is packed whose media type says so.
    pub fn of(media_type: &str) -> Option<Compression> {
        if media_type.ends_with(".tar.gzip") || media_type.ends_with("+gzip") {
            Some(Compression::Gzip)
        } else if media_type.ends_with("+zstd") || media_type.ends_with(".tar.zstd") {
            Some(Compression::Zstd)
        } else if media_type.ends_with(".tar") {
            Some(Compression::None)
        } else {
            None
        }
    }

    /// OCI's media type of a layer that is packed so.
    pub fn media_type(self) -> &'static str {
        match self {
            Compression::None => "application/vnd.oci.image.layer.v1.tar",
            Compression::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Compression::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
        }
    }

    /// Unpacks what is read.
    ///
    /// # Errors
    /// There is no memory for it.
    pub fn unpack<'r>(self, packed: impl Read + 'r) -> io::Result<Box<dyn Read + 'r>> {
        Ok(match self {
            Compression::None => Box::new(packed),
            Compression::Gzip => Box::new(MultiGzDecoder::new(BufReader::new(packed))),
            Compression::Zstd => Box::new(zstd::stream::read::Decoder::new(packed)?),
        })
    }
}

/// A writer that packs what it is given.
pub enum Packer<W: Write> {
    None(W),
    Gzip(Box<GzEncoder<W>>),
    Zstd(Box<zstd::stream::write::Encoder<'static, W>>),
}

impl<W: Write> Packer<W> {
    /// # Errors
    /// There is no memory for it.
    pub fn new(how: Compression, out: W) -> io::Result<Packer<W>> {
        Ok(match how {
            Compression::None => Packer::None(out),
            Compression::Gzip => {
                let level = flate2::Compression::default();
                Packer::Gzip(Box::new(GzEncoder::new(out, level)))
            }
            Compression::Zstd => {
                let level = zstd::DEFAULT_COMPRESSION_LEVEL;
                Packer::Zstd(Box::new(zstd::stream::write::Encoder::new(out, level)?))
            }
        })
    }

    /// Ends the stream, and gives what it went to.
    ///
    /// # Errors
    /// What the output says.
    pub fn finish(self) -> io::Result<W> {
        match self {
            Packer::None(out) => Ok(out),
            Packer::Gzip(packer) => packer.finish(),
            Packer::Zstd(packer) => packer.finish(),
        }
    }
}

impl<W: Write> Write for Packer<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Packer::None(out) => out.write(bytes),
            Packer::Gzip(packer) => packer.write(bytes),
            Packer::Zstd(packer) => packer.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Packer::None(out) => out.flush(),
            Packer::Gzip(packer) => packer.flush(),
            Packer::Zstd(packer) => packer.flush(),
        }
    }
}

/// What passes through is hashed and counted.
pub struct Hashed<S> {
    inner: S,
    digest: Sha256,
    /// Bytes.
    pub count: u64,
}

impl<S> Hashed<S> {
    pub fn new(inner: S) -> Hashed<S> {
        Hashed {
            inner,
            digest: Sha256::new(),
            count: 0,
        }
    }

    /// What it was around, the digest (`sha256:...`), and how many bytes passed.
    pub fn finish(self) -> (S, String, u64) {
        let digest = format!("sha256:{}", super::hex(&self.digest.finalize()));
        (self.inner, digest, self.count)
    }

    fn pass(&mut self, bytes: &[u8]) {
        self.digest.update(bytes);
        self.count += bytes.len() as u64;
    }
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.pass(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.pass(&buffer[..count]);
        Ok(count)
    }
}

/// How many bytes of archives went by, for who waits.
static GONE_BY: AtomicU64 = AtomicU64::new(0);

/// How many bytes of archives were read or written until now.
pub fn gone_by() -> u64 {
    GONE_BY.load(Ordering::Relaxed)
}

/// Notes that so many bytes of an archive went by.
pub fn note(bytes: u64) {
    GONE_BY.fetch_add(bytes, Ordering::Relaxed);
}

/// What passes through is noted for who waits.
pub struct Noted<S>(pub S);

impl<R: Read> Read for Noted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).inspect(|count| note(*count as u64))
    }
}

impl<W: Write> Write for Noted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).inspect(|count| note(*count as u64))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// How much is copied at once, in bytes.
const AT_ONCE: usize = 256 << 10;

/// Copies everything; Ctrl-C ends it.
///
/// # Errors
/// What either side says; `Interrupted` for Ctrl-C.
pub fn copy(from: &mut dyn Read, to: &mut dyn Write) -> io::Result<()> {
    let interrupt = Interrupt::catch_all();
    let mut buffer = vec![0; AT_ONCE];
    loop {
        if interrupt.is_pressed() {
            return Err(io::Error::other("interrupted: nothing was written"));
        }
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => to.write_all(&buffer[..count])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
