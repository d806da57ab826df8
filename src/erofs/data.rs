//! The content of files, and where it is in the image.

use super::inode::{Inode, Layout};
use super::{Fault, Image, NO_BLOCK, u16_at, u32_at};

/// A part of a file that lies in one piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Extent {
    /// Where in the image; none where all of it is zeros.
    at: Option<u64>,
    /// Bytes, at least one.
    length: u64,
}

impl Image {
    /// Reads a part of a file's content: as much as there is of it, up to what `into` holds. Nothing
    /// is read only at the end.
    ///
    /// # Errors
    /// Content that is compressed, or lies where nothing is.
    pub fn read_content(&self, inode: &Inode, into: &mut [u8], from: u64) -> Result<usize, Fault> {
        if from >= inode.size || into.is_empty() {
            return Ok(0);
        }
        let extent = self.extent(inode, from)?;
        let length = extent.length.min(into.len() as u64);
        let into = &mut into[..usize::try_from(length).unwrap_or(usize::MAX)];
        match extent.at {
            Some(at) => self.read(into, at)?,
            None => into.fill(0),
        }
        Ok(into.len())
    }

    /// Reads a part of a file's content whole.
    pub(super) fn read_all(&self, inode: &Inode, into: &mut [u8], from: u64) -> Result<(), Fault> {
        let mut done = 0;
        while done < into.len() {
            let count = self.read_content(inode, &mut into[done..], from + done as u64)?;
            if count == 0 {
                return Err(Fault::Damaged("a file ends before its end"));
            }
            done += count;
        }
        Ok(())
    }

    /// The next part from a place on that is no hole: where it begins and where it ends. None where
    /// there are only zeros.
    ///
    /// # Errors
    /// As of [`Image::read_content`].
    pub fn next_data(&self, inode: &Inode, from: u64) -> Result<Option<(u64, u64)>, Fault> {
        let mut at = from;
        while at < inode.size {
            let extent = self.extent(inode, at)?;
            if extent.at.is_some() {
                return Ok(Some((at, at + extent.length)));
            }
            at += extent.length;
        }
        Ok(None)
    }

    /// The part of the content that a place before its end is in, from there on.
    fn extent(&self, inode: &Inode, from: u64) -> Result<Extent, Fault> {
        match inode.layout {
            Layout::Plain(block) => Ok(Extent {
                at: block.map(|block| (u64::from(block) << self.block_bits) + from),
                length: inode.size - from,
            }),
            Layout::Inline(block) => self.extent_inline(inode, block, from),
            Layout::Chunks { bits, wide } => self.extent_of_chunk(inode, (bits, wide), from),
            Layout::Compressed => Err(Fault::Unread("compressed content")),
        }
    }

    fn extent_inline(&self, inode: &Inode, block: u32, from: u64) -> Result<Extent, Fault> {
        // Content that ends with a block has its last block behind the inode.
        let tail = (inode.size - 1) >> self.block_bits << self.block_bits;
        if from < tail {
            return Ok(Extent {
                at: Some((u64::from(block) << self.block_bits) + from),
                length: tail - from,
            });
        }
        let at = inode.tail_at();
        let in_block = at & (self.block_size() - 1);
        if in_block + (inode.size - tail) > self.block_size() {
            return Err(Fault::Damaged(
                "the end of a file does not fit where it is said to be",
            ));
        }
        Ok(Extent {
            at: Some(at + (from - tail)),
            length: inode.size - from,
        })
    }

    fn extent_of_chunk(
        &self,
        inode: &Inode,
        (bits, wide): (u32, bool),
        from: u64,
    ) -> Result<Extent, Fault> {
        let unit: u64 = if wide { 8 } else { 4 };
        let list = inode.tail_at().next_multiple_of(unit);
        let count = ((inode.size - 1) >> bits) + 1;
        // What is not listed is not there: no file has more chunks than the image has room for.
        let end = count
            .checked_mul(unit)
            .and_then(|size| size.checked_add(list));
        if end.is_none_or(|end| end > self.source.size()) {
            return Err(Fault::Damaged("a file has more chunks than are listed"));
        }
        let mut raw = [0; 8];
        self.read(
            &mut raw[..if wide { 8 } else { 4 }],
            list + (from >> bits) * unit,
        )?;
        let block = u32_at(&raw, if wide { 4 } else { 0 });
        let device = if wide { u16_at(&raw, 2) } else { 0 };
        let in_chunk = from & ((1 << bits) - 1);
        let length = ((1 << bits) - in_chunk).min(inode.size - from);
        if block == NO_BLOCK {
            return Ok(Extent { at: None, length });
        }
        let block = u64::from(block) + self.first_block(device)?;
        Ok(Extent {
            at: Some((block << self.block_bits) + in_chunk),
            length,
        })
    }

    /// Where the blocks of a device begin in this file.
    fn first_block(&self, device: u16) -> Result<u64, Fault> {
        // As many low bits are the number as the numbers take.
        let mask = (self.devices.len() + 1).next_power_of_two() - 1;
        match (usize::from(device) & mask).checked_sub(1) {
            None => Ok(0),
            Some(number) => match self.devices.get(number) {
                Some(0) => Err(Fault::Unread("content on another device")),
                Some(first) => Ok((*first).into()),
                None => Err(Fault::Damaged(
                    "a file is said to be on a device that is not listed",
                )),
            },
        }
    }
}
