//! A rollback journal: the pages of a database as they were before a transaction that has not
//! ended. <https://www.sqlite.org/fileformat2.html#the_rollback_journal>
//!
//! ```text
//! header   magic[8] records:u32 nonce:u32 pages-before:u32 sector:u32 page:u32   padded to a sector
//! record   page-number:u32 page[page] checksum:u32                               so many as it says
//! header ...
//! ```
//!
//! Numbers are big-endian. A database in memory has no journal, so that what SQLite itself would
//! do on opening the file is done here, on its bytes.

use std::collections::HashSet;

const MAGIC: [u8; 8] = [0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7];
/// What a header says, without what pads it.
const HEADER: usize = 28;
/// A journal that is not synchronised does not count: it has records up to its end.
const UNCOUNTED: u32 = u32::MAX;
/// Every so many bytes of a page, counted from its end, one goes into the checksum.
const CHECKSUM_STEP: usize = 200;
/// The bytes in which locks are taken: their page is never written.
const PENDING_BYTE: u64 = 0x4000_0000;

struct Header {
    records: u32,
    nonce: u32,
    pages_before: u32,
    sector: usize,
    page: usize,
}

impl Header {
    fn parse(bytes: &[u8]) -> Option<Header> {
        let rest = bytes.strip_prefix(&MAGIC)?;
        let number = |at: usize| number(rest, at * 4);
        let header = Header {
            records: number(0)?,
            nonce: number(1)?,
            pages_before: number(2)?,
            sector: number(3)? as usize,
            page: number(4)? as usize,
        };
        let is_size = |size: usize, least: usize| size.is_power_of_two() && size >= least;
        let is_sound = is_size(header.page, 512)
            && header.page <= 1 << 16
            && is_size(header.sector, 32)
            && header.sector <= 1 << 16;
        is_sound.then_some(header)
    }

    fn checksum(&self, page: &[u8]) -> u32 {
        let counted = page.iter().rev().skip(CHECKSUM_STEP - 1);
        counted
            .step_by(CHECKSUM_STEP)
            .fold(self.nonce, |sum, &byte| sum.wrapping_add(u32::from(byte)))
    }
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}

/// Takes back in a database's bytes what an unended transaction wrote. A journal whose header was
/// not written, or was cleared, takes back nothing; one that breaks off takes back what it has, for
/// the database is written to only once the journal is whole.
pub(super) fn roll_back(database: &mut Vec<u8>, journal: &[u8]) {
    let Some(first) = Header::parse(journal) else {
        return;
    };
    let before = u64::from(first.pages_before) * first.page as u64;
    let mut done: HashSet<u32> = HashSet::new();
    let mut at = 0;
    'headers: while let Some(header) = journal.get(at..).and_then(Header::parse) {
        // A later one repeats the first's sizes.
        at += first.sector.max(HEADER);
        let mut left = header.records;
        while left > 0 {
            let Some(number) = number(journal, at) else {
                break 'headers;
            };
            let Some(page) = journal.get(at + 4..at + 4 + first.page) else {
                break 'headers;
            };
            let sum = self::number(journal, at + 4 + first.page);
            let is_page = number != 0 && u64::from(number) != PENDING_BYTE / first.page as u64 + 1;
            if !is_page || sum != Some(header.checksum(page)) {
                break 'headers;
            }
            at += 4 + first.page + 4;
            if left != UNCOUNTED {
                left -= 1;
            }
            if number > first.pages_before || !done.insert(number) {
                continue;
            }
            let start = (number as usize - 1) * first.page;
            // Pages that were cut off are all in the journal.
            let end = start + first.page;
            if database.len() < end && end <= database.len() + journal.len() {
                database.resize(end, 0);
            }
            if let Some(place) = database.get_mut(start..end) {
                place.copy_from_slice(page);
            }
        }
        at = at.next_multiple_of(first.sector);
    }
    database.truncate(usize::try_from(before).unwrap_or(usize::MAX));
}
