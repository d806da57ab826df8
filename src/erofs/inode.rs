//! Inodes: what is known of a file.
//!
//! ```text
//!       short  long
//! format  0     0    bit 0: long; bits 1-3: how the content is kept
//! words   2     2    of its own attributes, each of four bytes
//! mode    4     4
//! names   6    44
//! size    8     8    four bytes, or eight
//! time   12    32
//! where  16    16    the first block, the device that it is, or the form of its chunks
//! owner  24    24    two bytes and two, or four and four
//! ```

use super::{Fault, Image, NO_BLOCK, SLOT_BITS, u16_at, u32_at, u64_at};

const SHORT: usize = 32;
const LONG: usize = 64;
/// What stands before an inode's own attributes, in bytes.
pub(super) const ATTRIBUTES_HEAD: u64 = 12;

const FORMAT: u32 = 0o170_000;
const DIRECTORY: u32 = 0o040_000;
const CHAR: u32 = 0o020_000;
const BLOCK: u32 = 0o060_000;
const SYMLINK: u32 = 0o120_000;

/// The longest target of a symbolic link, in bytes.
const TARGET_MAX: u64 = 4095;

/// What is known of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inode {
    /// Its number in the image.
    pub number: u64,
    /// Its type and its permission bits, as `stat` gives them.
    pub mode: u32,
    /// The owner's number.
    pub uid: u32,
    /// The group's number.
    pub gid: u32,
    /// How many names it has.
    pub names: u32,
    /// Bytes.
    pub size: u64,
    /// When its content was changed: seconds and nanoseconds since 1970.
    pub mtime: (i64, u32),
    /// The number of the device that it is; 0 where it is none.
    pub device: u32,
    /// Blocks of 512 bytes.
    pub blocks: u64,
    /// How its content is kept.
    pub(super) layout: Layout,
    /// Where its own attributes are, in bytes, and how many bytes they take.
    pub(super) attributes: (u64, u64),
}

/// How content is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// In blocks from one on; none: it is all zeros.
    Plain(Option<u32>),
    /// The same, but for what the last block would hold: that stands behind the inode.
    Inline(u32),
    /// In chunks of 2^bits bytes, which a list behind the inode has the places of; `wide` is a list
    /// that names devices.
    Chunks {
        bits: u32,
        wide: bool,
    },
    Compressed,
}

impl Inode {
    /// Whether it is a directory.
    pub fn is_directory(&self) -> bool {
        self.mode & FORMAT == DIRECTORY
    }

    /// What stands behind the inode and its attributes: where it is, in bytes.
    pub(super) fn tail_at(&self) -> u64 {
        self.attributes.0 + self.attributes.1
    }
}

impl Image {
    /// The inode of a number.
    ///
    /// # Errors
    /// A number that is none, an inode that makes no sense.
    pub fn inode(&self, number: u64) -> Result<Inode, Fault> {
        let at = number
            .checked_mul(1 << SLOT_BITS)
            .and_then(|at| at.checked_add(self.inodes_at))
            .ok_or(Fault::Damaged("an inode's number is too large"))?;
        let mut raw = [0; LONG];
        self.read(&mut raw[..SHORT], at)?;
        let format = u16_at(&raw, 0);
        if format >> 4 != 0 {
            return Err(Fault::Damaged("an inode has an unknown format"));
        }
        let is_long = format & 1 != 0;
        if is_long {
            self.read(&mut raw[SHORT..], at + SHORT as u64)?;
        }
        let length = if is_long { LONG } else { SHORT } as u64;
        let words = u64::from(u16_at(&raw, 2));
        let own = words.checked_sub(1);
        let mode = u32::from(u16_at(&raw, 4));
        let place = u32_at(&raw, 16);
        let mut inode = Inode {
            number,
            mode,
            uid: u16_at(&raw, 24).into(),
            gid: u16_at(&raw, 26).into(),
            names: u16_at(&raw, 6).into(),
            size: u32_at(&raw, 8).into(),
            mtime: (
                self.time.0.wrapping_add(u32_at(&raw, 12).into()),
                self.time.1,
            ),
            device: 0,
            blocks: 0,
            layout: self.layout(format >> 1 & 7, place)?,
            attributes: (at + length, own.map_or(0, |own| ATTRIBUTES_HEAD + own * 4)),
        };
        if is_long {
            inode.uid = u32_at(&raw, 24);
            inode.gid = u32_at(&raw, 28);
            inode.names = u32_at(&raw, 44);
            inode.size = u64_at(&raw, 8);
            inode.mtime = (u64_at(&raw, 32).cast_signed(), u32_at(&raw, 40));
        }
        if i64::try_from(inode.size).is_err() {
            return Err(Fault::Damaged("a file has a size that none can have"));
        }
        inode.mtime.1 = inode.mtime.1.min(999_999_999);
        match mode & FORMAT {
            CHAR | BLOCK => inode.device = place,
            _ if inode.layout == Layout::Compressed => {
                inode.blocks = u64::from(place) << (self.block_bits - 9);
            }
            _ => {}
        }
        if inode.layout != Layout::Compressed {
            inode.blocks = inode.size.next_multiple_of(self.block_size()) >> 9;
        }
        Ok(inode)
    }

    fn layout(&self, number: u16, place: u32) -> Result<Layout, Fault> {
        Ok(match number {
            0 => Layout::Plain((place != NO_BLOCK).then_some(place)),
            1 | 3 => Layout::Compressed,
            2 => Layout::Inline(place),
            4 => Layout::Chunks {
                bits: self.block_bits + (place & 0x1f),
                wide: place & 0x20 != 0,
            },
            _ => return Err(Fault::Damaged("an inode keeps its content in no known way")),
        })
    }

    /// Where a symbolic link leads; none for what is no link.
    ///
    /// # Errors
    /// A target that none can have.
    pub fn target(&self, inode: &Inode) -> Result<Option<Vec<u8>>, Fault> {
        if inode.mode & FORMAT != SYMLINK {
            return Ok(None);
        }
        if inode.size > TARGET_MAX {
            return Err(Fault::Damaged("a symbolic link is too long"));
        }
        let mut target = vec![0; usize::try_from(inode.size).unwrap_or(0)];
        self.read_all(inode, &mut target, 0)?;
        if target.is_empty() || target.contains(&0) {
            return Err(Fault::Damaged("a symbolic link leads nowhere"));
        }
        Ok(Some(target))
    }
}
