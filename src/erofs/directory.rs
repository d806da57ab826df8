//! Directories.
//!
//! ```text
//! block   entry entry ... name name ...    both in the order of the names
//! entry    0 number of the inode  8 where the name begins in the block  10 type  11 nothing
//! ```
//!
//! A name ends where the next one begins, the block's last one with the block or a NUL.

use std::cmp::Ordering;
use std::collections::HashSet;

use super::inode::Inode;
use super::{Fault, Image, u16_at, u64_at};

const ENTRY: usize = 12;
const NAME_MAX: usize = 255;

/// One name in a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'b> {
    /// The name.
    pub name: &'b [u8],
    /// The number of what has it.
    pub number: u64,
    /// The type as the directory tells it: 1 a file, 2 a directory, 3 a character device, 4 a block
    /// device, 5 a fifo, 6 a socket, 7 a symbolic link; 0 where it does not.
    pub kind: u8,
}

/// A directory's type.
const DIRECTORY: u8 = 2;

/// A block of a directory.
struct Block<'b> {
    bytes: &'b [u8],
    count: usize,
}

impl<'b> Block<'b> {
    fn new(bytes: &'b [u8]) -> Result<Block<'b>, Fault> {
        if bytes.len() < ENTRY {
            return Err(Fault::Damaged("a directory ends within an entry"));
        }
        let first = usize::from(u16_at(bytes, 8));
        if first < ENTRY || first >= bytes.len() || !first.is_multiple_of(ENTRY) {
            return Err(Fault::Damaged(
                "a directory's first name is where none can be",
            ));
        }
        Ok(Block {
            bytes,
            count: first / ENTRY,
        })
    }

    fn get(&self, at: usize) -> Result<Entry<'b>, Fault> {
        let entry = at * ENTRY;
        let start = usize::from(u16_at(self.bytes, entry + 8));
        let end = if at + 1 == self.count {
            self.bytes.len()
        } else {
            usize::from(u16_at(self.bytes, entry + ENTRY + 8))
        };
        let name = self.bytes.get(start..end).unwrap_or_default();
        let name = match name.iter().position(|byte| *byte == 0) {
            Some(length) if at + 1 == self.count => &name[..length],
            _ => name,
        };
        let is_none = name.is_empty() || name.len() > NAME_MAX;
        if is_none || start < self.count * ENTRY || name.contains(&b'/') || name.contains(&0) {
            return Err(Fault::Damaged("a directory has a name that none can have"));
        }
        Ok(Entry {
            name,
            number: u64_at(self.bytes, entry),
            kind: self.bytes[entry + 10],
        })
    }
}

impl Image {
    fn check_directory(&self, inode: &Inode) -> Result<u64, Fault> {
        if !inode.is_directory() {
            return Err(Fault::Damaged(
                "something is no directory that should be one",
            ));
        }
        // Every name takes room of its own.
        if inode.size > self.source.size() {
            return Err(Fault::Damaged("a directory is larger than the image"));
        }
        Ok(inode.size.div_ceil(self.block_size()))
    }

    fn read_block(&self, inode: &Inode, number: u64, block: &mut Vec<u8>) -> Result<(), Fault> {
        let from = number << self.block_bits;
        let size = (inode.size - from).min(self.block_size());
        block.resize(usize::try_from(size).unwrap_or(0), 0);
        self.read_all(inode, block, from)
    }

    /// Every name in a directory but `.` and `..`. What is told of names goes on to the end unless
    /// it says otherwise.
    ///
    /// # Errors
    /// A directory that is damaged. One directory under two names is: a walk would meet it twice,
    /// and all that is in it.
    pub fn list(
        &self,
        inode: &Inode,
        mut tell: impl FnMut(Entry<'_>) -> Result<bool, Fault>,
    ) -> Result<(), Fault> {
        let mut bytes = Vec::new();
        let mut directories = HashSet::new();
        for number in 0..self.check_directory(inode)? {
            self.read_block(inode, number, &mut bytes)?;
            let block = Block::new(&bytes)?;
            for at in 0..block.count {
                let entry = block.get(at)?;
                if entry.name == b"." || entry.name == b".." {
                    continue;
                }
                if entry.kind == DIRECTORY && !directories.insert(entry.number) {
                    return Err(Fault::Damaged("a directory has two names"));
                }
                if !tell(entry)? {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// The number of what has a name in a directory, searched for as the kernel does: by halves,
    /// first among the blocks.
    ///
    /// # Errors
    /// A directory that is damaged.
    pub fn find(&self, inode: &Inode, name: &[u8]) -> Result<Option<u64>, Fault> {
        let mut bytes = Vec::new();
        let (mut low, mut high) = (0, self.check_directory(inode)?);
        while low < high {
            let middle = low + (high - low) / 2;
            self.read_block(inode, middle, &mut bytes)?;
            let block = Block::new(&bytes)?;
            match block.get(0)?.name.cmp(name) {
                Ordering::Equal => return Ok(Some(block.get(0)?.number)),
                Ordering::Greater => high = middle,
                Ordering::Less => low = middle + 1,
            }
        }
        let Some(number) = low.checked_sub(1) else {
            return Ok(None);
        };
        self.read_block(inode, number, &mut bytes)?;
        let block = Block::new(&bytes)?;
        let (mut low, mut high) = (0, block.count);
        while low < high {
            let middle = low + (high - low) / 2;
            let entry = block.get(middle)?;
            match entry.name.cmp(name) {
                Ordering::Equal => return Ok(Some(entry.number)),
                Ordering::Greater => high = middle,
                Ordering::Less => low = middle + 1,
            }
        }
        Ok(None)
    }

    /// The sub-directory of a name; none where there is nothing of that name.
    ///
    /// # Errors
    /// A directory that is damaged; one that says that it is in another one. Without that a
    /// directory could be in itself.
    pub fn enter(&self, inode: &Inode, name: &[u8]) -> Result<Option<Inode>, Fault> {
        let Some(number) = self.find(inode, name)? else {
            return Ok(None);
        };
        let found = self.inode(number)?;
        let is_below = |found: &Inode| {
            let parent = self.find(found, b"..")?;
            Ok::<_, Fault>(parent == Some(inode.number) && found.number != inode.number)
        };
        if found.is_directory() && !is_below(&found)? {
            return Err(Fault::Damaged(
                "a directory is not where it says that it is",
            ));
        }
        Ok(Some(found))
    }
}
