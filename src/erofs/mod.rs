//! EROFS images, as composefs and containerd keep layers: read where they lie, in bounded memory,
//! whatever is in them.
//!
//! ```text
//!    0  nothing, or a boot loader
//! 1024  the superblock, 128 bytes, numbers little-endian:
//!         0 magic  4 checksum  8 compatible features  12 block size, as a power of two
//!        14 root's number  24 time  32 its nanoseconds  40 block of the inodes
//!        44 block of the shared attributes  80 incompatible features
//!        86 how many further devices  88 where they are listed  90 size of directories' blocks
//!        91 how many prefixes of attributes  92 where they are listed  96 number of the packed inode
//!       inode N   32 bytes behind inode N - 1, each with its attributes and the tail of its content
//! ```
//!
//! Compressed content is not read; names, attributes and everything else of such a file are. Nothing
//! in an image is believed: an inode's number, a size or an address that leads out of it is an
//! error, and so is a directory that is not in its parent, so that every walk ends
//! (docs/facts.md#erofs-1).

mod attribute;
mod data;
mod directory;
mod inode;

use rustix::io::Errno;

pub use directory::Entry;
pub use inode::Inode;

/// Where an image's bytes are.
pub trait Source: Send + Sync {
    /// How many bytes there are.
    fn size(&self) -> u64;

    /// Reads bytes from a place on, as many as there are.
    ///
    /// # Errors
    /// What the system call says.
    fn read_at(&self, into: &mut [u8], at: u64) -> Result<usize, Errno>;
}

/// Why something of an image cannot be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It is none.
    NoImage,
    /// The image is not what it has to be.
    Damaged(&'static str),
    /// It is in a form that is not read here.
    Unread(&'static str),
    /// Its bytes cannot be read.
    Io(Errno),
}

impl Fault {
    /// What a kernel that has the image mounted would say.
    pub fn errno(self) -> Errno {
        match self {
            Fault::NoImage => Errno::INVAL,
            Fault::Damaged(_) => Errno::UCLEAN,
            Fault::Unread(_) => Errno::OPNOTSUPP,
            Fault::Io(errno) => errno,
        }
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Fault::NoImage => f.write_str("is neither a directory nor an EROFS image"),
            Fault::Damaged(what) => write!(f, "is a damaged EROFS image: {what}"),
            Fault::Unread(what) => write!(f, "is an EROFS image with {what}, which is not read"),
            Fault::Io(errno) => std::io::Error::from(*errno).fmt(f),
        }
    }
}

const SUPER_AT: u64 = 1024;
const SUPER_SIZE: usize = 128;
const MAGIC: u32 = 0xE0F5_E1E2;
/// The block sizes that there are, as powers of two.
const BLOCK_BITS: std::ops::RangeInclusive<u8> = 9..=16;
/// How many bytes an inode's number stands for, as a power of two.
const SLOT_BITS: u32 = 5;
/// What an entry of the list of devices takes, in bytes.
const DEVICE_SIZE: u64 = 128;
/// A block that there is none of: its bytes are zeros.
const NO_BLOCK: u32 = u32::MAX;

const HAS_CHECKSUM: u32 = 0x1;
const HAS_PLAIN_PREFIXES: u32 = 0x10;

/// Further devices, or a second head of compressed data: one bit means both.
const HAS_DEVICES: u32 = 0x8;
const HAS_FRAGMENTS: u32 = 0x20;
const HAS_PREFIXES: u32 = 0x40;
const HAS_48_BITS: u32 = 0x80;
const HAS_METABOX: u32 = 0x100;
/// What concerns compressed content alone, and files in chunks.
const HARMLESS: u32 = 0x1 | 0x2 | 0x4 | 0x10;

/// An image that was opened.
pub struct Image {
    source: Box<dyn Source>,
    block_bits: u32,
    /// Where the inodes begin, in bytes.
    inodes_at: u64,
    /// Where the shared attributes begin, in bytes.
    shared_at: u64,
    root: u64,
    /// What a short inode's time counts from.
    time: (i64, u32),
    /// Where the blocks of further devices begin in this file, in blocks.
    devices: Vec<u32>,
    /// The long beginnings of attributes' names, or why they are not known.
    prefixes: Result<Vec<Vec<u8>>, Fault>,
}

impl std::fmt::Debug for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Image").finish_non_exhaustive()
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

impl Image {
    /// Reads the superblock, and what belongs to it.
    ///
    /// # Errors
    /// No EROFS, a damaged one, or one of a form that is not read.
    pub fn open(source: Box<dyn Source>) -> Result<Image, Fault> {
        let mut raw = [0; SUPER_SIZE];
        let got = source.read_at(&mut raw, SUPER_AT).map_err(Fault::Io)?;
        if got < SUPER_SIZE || u32_at(&raw, 0) != MAGIC {
            return Err(Fault::NoImage);
        }
        let (compatible, incompatible) = (u32_at(&raw, 8), u32_at(&raw, 80));
        for (feature, what) in [
            (HAS_48_BITS, "addresses of 48 bits"),
            (HAS_METABOX, "compressed metadata"),
        ] {
            if incompatible & feature != 0 {
                return Err(Fault::Unread(what));
            }
        }
        if incompatible & !(HARMLESS | HAS_DEVICES | HAS_FRAGMENTS | HAS_PREFIXES) != 0 {
            return Err(Fault::Unread(
                "a feature that nobody knew when this was written",
            ));
        }
        if !BLOCK_BITS.contains(&raw[12]) {
            return Err(Fault::Damaged("its blocks have no possible size"));
        }
        if raw[90] != 0 {
            return Err(Fault::Unread("large blocks of directories"));
        }
        let block_bits = u32::from(raw[12]);
        let of_block = |at: usize| u64::from(u32_at(&raw, at)) << block_bits;
        let mut image = Image {
            source,
            block_bits,
            inodes_at: of_block(40),
            shared_at: of_block(44),
            root: u16_at(&raw, 14).into(),
            time: (u64_at(&raw, 24).cast_signed(), u32_at(&raw, 32)),
            devices: Vec::new(),
            prefixes: Ok(Vec::new()),
        };
        if compatible & HAS_CHECKSUM != 0 && image.checksum()? != u32_at(&raw, 4) {
            return Err(Fault::Damaged("its superblock has another checksum"));
        }
        if incompatible & HAS_DEVICES != 0 {
            image.read_devices(u16_at(&raw, 86).into(), u16_at(&raw, 88).into())?;
        }
        if raw[91] != 0 {
            let packed = u64_at(&raw, 96);
            let is_plain = compatible & HAS_PLAIN_PREFIXES != 0;
            let is_packed = incompatible & HAS_FRAGMENTS != 0 && packed != 0 && !is_plain;
            let place = is_packed.then_some(packed);
            image.prefixes = image.read_prefixes(raw[91], u64::from(u32_at(&raw, 92)) << 2, place);
        }
        Ok(image)
    }

    /// The number of the root directory.
    pub fn root(&self) -> u64 {
        self.root
    }

    fn block_size(&self) -> u64 {
        1 << self.block_bits
    }

    /// Fills all of `into` from a place of the image.
    fn read(&self, into: &mut [u8], at: u64) -> Result<(), Fault> {
        let end = at.checked_add(into.len() as u64);
        if end.is_none_or(|end| end > self.source.size()) {
            return Err(Fault::Damaged("something is said to lie beyond its end"));
        }
        let (mut done, mut from) = (0, at);
        while done < into.len() {
            match self.source.read_at(&mut into[done..], from) {
                Ok(0) => return Err(Fault::Damaged("it ended while it was read")),
                Ok(count) => {
                    done += count;
                    from += count as u64;
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(Fault::Io(errno)),
            }
        }
        Ok(())
    }

    /// The checksum of the superblock's own block.
    fn checksum(&self) -> Result<u32, Fault> {
        let block = self.block_size();
        let size = if block > SUPER_AT {
            block - SUPER_AT
        } else {
            block
        };
        // Behind the magic number and the checksum itself.
        let mut bytes = vec![0; usize::try_from(size).unwrap_or(0).saturating_sub(8)];
        self.read(&mut bytes, SUPER_AT + 8)?;
        Ok(crc32c(CRC_OF_MAGIC, &bytes))
    }

    /// Where the blocks of further devices are in this very file: it was put together from an image
    /// and what that is an index of.
    fn read_devices(&mut self, count: u64, slot: u64) -> Result<(), Fault> {
        for number in 0..count {
            let mut raw = [0; DEVICE_SIZE as usize];
            self.read(&mut raw, (slot + number) * DEVICE_SIZE)?;
            self.devices.push(u32_at(&raw, 68));
        }
        Ok(())
    }
}

/// What the four bytes of the magic number and four zeros make of the checksum.
const CRC_OF_MAGIC: u32 = 0x5045_B54A;

/// CRC-32C, bit by bit: it is asked for one block of an image.
fn crc32c(mut sum: u32, bytes: &[u8]) -> u32 {
    for byte in bytes {
        sum ^= u32::from(*byte);
        for _ in 0..8 {
            let is_odd = sum & 1 != 0;
            sum >>= 1;
            if is_odd {
                sum ^= 0x82F6_3B78;
            }
        }
    }
    sum
}

#[cfg(feature = "internals")]
impl Source for Vec<u8> {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn read_at(&self, into: &mut [u8], at: u64) -> Result<usize, Errno> {
        let at = usize::try_from(at).unwrap_or(usize::MAX);
        let rest = self.get(at..).unwrap_or_default();
        let count = rest.len().min(into.len());
        into[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }
}
