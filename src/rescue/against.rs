//! A layer's directory held against its archive: every name, what it is, and what is in it.

use std::cell::Cell;
use std::io::{self, ErrorKind, Read};

use sha2::{Digest, Sha256};

use super::expected::Expected;
use super::proof::{Manner, Proof, Subject, What};
use super::prover::Prover;
use super::recipe::{Piece, Recipe};
use crate::bytes::Bytes;
use crate::interrupt::Interrupt;

/// Holds a layer against the recipe of its archive.
pub fn by_recipe(
    mut recipe: Recipe,
    diff_id: Option<&str>,
    (subject, manner): (&Subject<'_>, Manner),
) -> Proof {
    let mut prover = Prover::new(subject, manner);
    let mut digest = Sha256::new();
    // Headers, until the entry that they are of.
    let mut headers: Vec<u8> = Vec::new();
    let mut fill = 0;
    let interrupt = Interrupt::catch_all();
    loop {
        if interrupt.is_pressed() {
            prover.proof.leave("interrupted");
            return prover.proof;
        }
        match recipe.next() {
            Ok(None) => break,
            Ok(Some(Piece::Bytes(bytes))) => {
                prover.proof.archive_size += bytes.len() as u64;
                digest.update(&bytes);
                headers.extend_from_slice(&bytes);
                if headers.len() > HEADERS_MAX {
                    prover.proof.leave("its recipe has no entries");
                    return prover.proof;
                }
            }
            Ok(Some(Piece::File(promise))) => {
                let own = headers.split_off(fill.min(headers.len()));
                headers.clear();
                fill =
                    usize::try_from(promise.size.next_multiple_of(512) - promise.size).unwrap_or(0);
                prover.proof.archive_size += promise.size;
                prover.proof.content_size += promise.size;
                match headers_of(&own) {
                    Ok(Some(expected)) => prover.promised(&expected, &promise, &mut digest),
                    Ok(None) => {}
                    Err(_) => {
                        let what = "its recipe has what is no header of an archive";
                        prover.proof.leave(what);
                        return prover.proof;
                    }
                }
            }
            Err(what) => {
                prover.proof.leave(format!("its recipe {what}"));
                return prover.proof;
            }
        }
    }
    let own = format!("sha256:{}", super::hex(&digest.finalize()));
    let mut proof = prover.finish();
    let of_content = [What::Content, What::Missing, What::Type];
    let is_read = !manner.is_fast && !proof.has_unread;
    let is_whole = !proof
        .faults
        .iter()
        .any(|(_, what)| of_content.contains(what));
    match diff_id {
        None => proof.leave("it has no digest"),
        Some(diff_id) if own != diff_id && is_whole && is_read => {
            proof.faults.push((Bytes::from("/"), What::Digest));
        }
        Some(_) => {}
    }
    proof
}

/// The longest headers of one entry, in bytes.
const HEADERS_MAX: usize = 64 << 20;

/// The entry that headers are of.
fn headers_of(headers: &[u8]) -> io::Result<Option<Expected>> {
    let mut archive = tar::Archive::new(headers);
    let Some(entry) = archive.entries()?.next() else {
        return Err(ErrorKind::InvalidData.into());
    };
    Expected::read(&mut entry?)
}

/// The same in an archive, where they are read by who does not ask how long they are. Paths have 4 KiB at
/// most, and attributes 64 KiB each.
const OF_ENTRY_MAX: u64 = 8 << 20;

/// An archive of which no more is read at once than may be: who made it says how long the headers of
/// an entry are, a name among them, and headers are read into memory whole.
struct Metered<'m, R> {
    archive: R,
    /// Bytes.
    left: &'m Cell<u64>,
}

impl<R: Read> Read for Metered<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.archive.read(into)?;
        match self.left.get().checked_sub(count as u64) {
            Some(left) => self.left.set(left),
            None => return Err(io::Error::other("an entry has headers of more than 8 MiB")),
        }
        Ok(count)
    }
}

/// Holds a layer against its archive.
///
/// # Errors
/// The archive cannot be read.
pub fn by_archive(
    archive: impl Read,
    diff_id: &str,
    (subject, manner): (&Subject<'_>, Manner),
) -> io::Result<Proof> {
    let mut prover = Prover::new(subject, manner);
    let mut hashed = super::packed::Hashed::new(archive);
    let left = Cell::new(u64::MAX);
    let metered = Metered {
        archive: &mut hashed,
        left: &left,
    };
    let mut archive = tar::Archive::new(metered);
    let interrupt = Interrupt::catch_all();
    let mut entries = archive.entries()?;
    loop {
        // The one before is read to its end: what is read now is kept in memory.
        left.set(OF_ENTRY_MAX);
        let Some(entry) = entries.next() else { break };
        let mut entry = entry?;
        left.set(u64::MAX);
        if interrupt.is_pressed() {
            prover.proof.leave("interrupted");
            return Ok(prover.proof);
        }
        if let Some(expected) = Expected::read(&mut entry)? {
            prover.proof.content_size += expected.size;
            prover.archived(&expected, &mut entry)?;
        }
        io::copy(&mut entry, &mut io::sink())?;
    }
    left.set(u64::MAX);
    let mut rest = archive.into_inner();
    super::packed::copy(&mut rest, &mut io::sink())?;
    let (_, own, size) = hashed.finish();
    let mut proof = prover.finish();
    proof.archive_size = size;
    if own != diff_id {
        proof.faults.push((Bytes::from("/"), What::Digest));
    }
    Ok(proof)
}
