//! A layer's directory held against its archive: every name, what it is, and what is in it. Whoever reads
//! the archive reads on and hashes while others look at what came before.

use std::cell::{Cell, RefCell};
use std::io::{self, Read};
use std::panic::resume_unwind;
use std::sync::mpsc::sync_channel;
use std::thread;

use sha2::{Digest, Sha256};

use super::expected::Expected;
use super::found::Found;
use super::group::{CONTENT_MAX, Group, Item, Looked, Sharing, look, look_at};
use super::proof::{Manner, Proof, Subject, What};
use super::prover::Prover;
use super::recipe::{Piece, Recipe};
use crate::bytes::Bytes;
use crate::interrupt::Interrupt;

/// What comes next in an archive.
struct Next {
    group: Group,
    after: After,
}

/// What comes after a group.
enum After {
    Group,
    /// What is too large to be kept in memory.
    Large(Item),
    /// The same, looked at already: it went by.
    Found(Found),
    End,
}

/// Why the rest of an archive is not held against anything.
enum Stop {
    Unproved(String),
    Archive(io::Error),
}

impl From<String> for Stop {
    fn from(why: String) -> Stop {
        Stop::Unproved(why)
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Stop {
        Stop::Archive(error)
    }
}

/// A layer that is held against an archive.
struct Against<'a, 's> {
    prover: Prover<'s>,
    digest: Sha256,
    manner: Manner,
    sharing: &'a Sharing<'a>,
}

impl<'a, 's> Against<'a, 's> {
    fn new(subject: &'s Subject<'s>, manner: Manner, sharing: &'a Sharing<'a>) -> Against<'a, 's> {
        Against {
            prover: Prover::new(subject, manner),
            digest: Sha256::new(),
            manner,
            sharing,
        }
    }

    /// Follows an archive to its end.
    fn follow(&mut self, mut read: impl FnMut() -> Result<Next, Stop>) -> Result<(), Stop> {
        let interrupt = Interrupt::catch_all();
        let mut current = read()?;
        let mut before: Option<(Vec<Looked>, After)> = None;
        loop {
            if interrupt.is_pressed() {
                return Err(Stop::Unproved("interrupted".into()));
            }
            let with = (self.prover.subject, self.manner);
            let threads = self.sharing.threads();
            let look = || look_at(&current.group, with, threads);
            let (next, looked) = thread::scope(|scope| {
                let looking = (threads.get() > 1 && !current.group.is_empty())
                    .then(|| thread::Builder::new().spawn_scoped(scope, look).ok())
                    .flatten();
                let taken = before
                    .take()
                    .map_or(Ok(()), |(looked, after)| self.take(looked, after));
                let is_end = matches!(current.after, After::End);
                let next = taken.and_then(|()| (!is_end).then(&mut read).transpose());
                let looked = match looking {
                    Some(looking) => looking.join().unwrap_or_else(|panic| resume_unwind(panic)),
                    // Alone, or no more threads can be had.
                    None => look(),
                };
                (next, looked)
            });
            match next {
                Ok(Some(next)) => {
                    let after = std::mem::replace(&mut current, next).after;
                    before = Some((looked, after));
                }
                Ok(None) => return self.take(looked, After::End),
                Err(stop) => {
                    // What came before that is known.
                    self.take(looked, current.after)?;
                    return Err(stop);
                }
            }
        }
    }

    /// Takes in what was found of a group and of what comes after it.
    fn take(&mut self, group: Vec<Looked>, after: After) -> Result<(), Stop> {
        for looked in group {
            self.digest.update(&looked.bytes);
            self.prover.found.absorb(looked.found);
            if looked.is_damaged {
                return Err(Stop::Unproved(NO_HEADER.into()));
            }
        }
        match after {
            After::Group | After::End => Ok(()),
            After::Large(item) => self.large(&item),
            After::Found(found) => {
                self.prover.found.absorb(found);
                Ok(())
            }
        }
    }

    /// Looks at one item; it is hashed by another thread where there is one.
    fn large(&mut self, item: &Item) -> Result<(), Stop> {
        let Against {
            prover,
            digest,
            sharing,
            ..
        } = self;
        let (give, take) = sync_channel::<Vec<u8>>(CHUNKS);
        let is_alone = sharing.threads().get() == 1;
        let hashed_beside = thread::scope(|scope| {
            let hash = || {
                for bytes in take {
                    digest.update(bytes);
                }
            };
            if is_alone || thread::Builder::new().spawn_scoped(scope, hash).is_err() {
                return None;
            }
            let is_whole = look(prover, item, &mut |bytes| {
                // It takes all, as long as there is somebody who gives.
                let _ = give.send(bytes.to_vec());
            });
            drop(give);
            Some(is_whole)
        });
        let is_whole =
            hashed_beside.unwrap_or_else(|| look(prover, item, &mut |bytes| digest.update(bytes)));
        if is_whole {
            Ok(())
        } else {
            Err(Stop::Unproved(NO_HEADER.into()))
        }
    }
}

/// How many pieces of a large file wait to be hashed.
const CHUNKS: usize = 8;
const NO_HEADER: &str = "its recipe has what is no header of an archive";

/// A recipe that is read in groups.
struct Reader {
    recipe: Recipe,
    /// What came since the last file's content.
    bytes: Vec<u8>,
    /// How much of that fills up that file's last block.
    fill: usize,
    /// Of the archive as far as it was read, in bytes; and of its files.
    archive_size: u64,
    content_size: u64,
}

impl Reader {
    fn next(&mut self) -> Result<Next, Stop> {
        let mut group = Group::default();
        loop {
            let piece = self.recipe.next();
            match piece.map_err(|what| format!("its recipe {what}"))? {
                None => {
                    let after = After::End;
                    return Ok(Next { group, after });
                }
                Some(Piece::Bytes(bytes)) => {
                    self.archive_size += bytes.len() as u64;
                    self.bytes.extend_from_slice(&bytes);
                    if self.bytes.len() > HEADERS_MAX {
                        return Err(Stop::Unproved("its recipe has no entries".into()));
                    }
                }
                Some(Piece::File(promise)) => {
                    let bytes = std::mem::take(&mut self.bytes);
                    let headers = self.fill.min(bytes.len());
                    let fill = promise.size.next_multiple_of(512) - promise.size;
                    self.fill = usize::try_from(fill).unwrap_or(0);
                    self.archive_size += promise.size;
                    self.content_size += promise.size;
                    let is_large = promise.size > CONTENT_MAX;
                    let item = Item::Promised {
                        bytes,
                        headers,
                        promise,
                    };
                    if is_large {
                        let after = After::Large(item);
                        return Ok(Next { group, after });
                    }
                    group.push(item);
                    if group.is_full() {
                        let after = After::Group;
                        return Ok(Next { group, after });
                    }
                }
            }
        }
    }
}

/// Holds a layer against the recipe of its archive.
pub fn by_recipe(
    recipe: Recipe,
    diff_id: Option<&str>,
    (subject, manner): (&Subject<'_>, Manner),
    sharing: &Sharing<'_>,
) -> Proof {
    let mut against = Against::new(subject, manner, sharing);
    let mut reader = Reader {
        recipe,
        bytes: Vec::new(),
        fill: 0,
        archive_size: 0,
        content_size: 0,
    };
    let followed = against.follow(|| reader.next());
    let Against {
        mut prover,
        mut digest,
        ..
    } = against;
    prover.found.proof.archive_size = reader.archive_size;
    prover.found.proof.content_size = reader.content_size;
    if let Err(stop) = followed {
        let mut proof = prover.found.proof;
        proof.leave(match stop {
            Stop::Unproved(why) => why,
            Stop::Archive(error) => error.to_string(),
        });
        return proof;
    }
    digest.update(&reader.bytes);
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

/// The same in an archive, where they are read by who does not ask how long they are. Paths have 4 KiB at
/// most, and attributes 64 KiB each.
const OF_ENTRY_MAX: u64 = 8 << 20;

/// An archive of which no more is read at once than may be: who made it says how long the headers of
/// an entry are, a name among them, and headers are read into memory whole.
struct Metered<'m, R> {
    archive: R,
    meter: &'m Meter,
}

/// What is known of what was read.
struct Meter {
    /// How much more may be read, in bytes.
    left: Cell<u64>,
    /// How much was read, in bytes.
    at: Cell<u64>,
    /// What was read since the last entry's end, while headers are read.
    headers: RefCell<Option<Vec<u8>>>,
}

impl Meter {
    /// The bytes of the headers that are read meanwhile.
    fn headers_of<T>(&self, read: impl FnOnce() -> T) -> (T, Vec<u8>) {
        self.left.set(OF_ENTRY_MAX);
        let at = self.at.get();
        let fill = usize::try_from(at.next_multiple_of(512) - at).unwrap_or(0);
        self.headers.replace(Some(Vec::new()));
        let entry = read();
        self.left.set(u64::MAX);
        let mut headers = self.headers.take().unwrap_or_default();
        headers.drain(..fill.min(headers.len()));
        (entry, headers)
    }
}

impl<R: Read> Read for Metered<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.archive.read(into)?;
        match self.meter.left.get().checked_sub(count as u64) {
            Some(left) => self.meter.left.set(left),
            None => return Err(io::Error::other("an entry has headers of more than 8 MiB")),
        }
        self.meter.at.update(|at| at.wrapping_add(count as u64));
        if let Some(headers) = &mut *self.meter.headers.borrow_mut() {
            headers.extend_from_slice(&into[..count]);
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
    sharing: &Sharing<'_>,
) -> io::Result<Proof> {
    let mut hashed = super::packed::Hashed::new(archive);
    let meter = Meter {
        left: Cell::new(u64::MAX),
        at: Cell::new(0),
        headers: RefCell::new(None),
    };
    let metered = Metered {
        archive: &mut hashed,
        meter: &meter,
    };
    let mut archive = tar::Archive::new(metered);
    let mut entries = archive.entries()?;
    let mut content_size = 0;
    let mut against = Against::new(subject, manner, sharing);
    let followed = against.follow(|| {
        let mut group = Group::default();
        loop {
            // The one before is read to its end: what is read now is kept in memory.
            let (entry, headers) = meter.headers_of(|| entries.next());
            let Some(entry) = entry else {
                let after = After::End;
                return Ok(Next { group, after });
            };
            let mut entry = entry?;
            let Some(expected) = Expected::read(&entry, &headers)? else {
                io::copy(&mut entry, &mut io::sink())?;
                continue;
            };
            content_size += expected.size;
            if expected.size > CONTENT_MAX {
                let mut prover = Prover::new(subject, manner);
                prover.archived(&expected, &mut entry)?;
                io::copy(&mut entry, &mut io::sink())?;
                let after = After::Found(prover.found);
                return Ok(Next { group, after });
            }
            let mut content = Vec::new();
            entry.read_to_end(&mut content)?;
            group.push(Item::Archived { expected, content });
            if group.is_full() {
                let after = After::Group;
                return Ok(Next { group, after });
            }
        }
    });
    let mut prover = against.prover;
    prover.found.proof.content_size = content_size;
    match followed {
        Ok(()) => {}
        Err(Stop::Unproved(why)) => {
            prover.found.proof.leave(why);
            return Ok(prover.found.proof);
        }
        Err(Stop::Archive(error)) => return Err(error),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_those_of_their_entries() {
        let mut builder = tar::Builder::new(Vec::new());
        let header = |name: &str, size| {
            let mut header = tar::Header::new_gnu();
            header.set_path(name).expect("short");
            header.set_size(size);
            header.set_mode(0o644);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(0);
            header.set_cksum();
            header
        };
        let mut names = vec![b"plain".to_vec()];
        let first = header("plain", 0);
        builder.append(&first, &[][..]).expect("memory");
        for size in [0, 1, 511, 512, 700] {
            let name = format!("two\nlines of {size}");
            let records = [("path", name.as_bytes())];
            builder.append_pax_extensions(records).expect("memory");
            let content = vec![b'x'; size];
            let cut = header("cut", size as u64);
            builder.append(&cut, &content[..]).expect("memory");
            names.push(name.into_bytes());
            let long = "long/".repeat(60);
            let mut own = header("cut", size as u64);
            builder
                .append_data(&mut own, &long, &content[..])
                .expect("memory");
            names.push(long.into_bytes());
        }
        let archive = builder.into_inner().expect("memory");
        let meter = Meter {
            left: Cell::new(u64::MAX),
            at: Cell::new(0),
            headers: RefCell::new(None),
        };
        let mut archive = tar::Archive::new(Metered {
            archive: &archive[..],
            meter: &meter,
        });
        let mut entries = archive.entries().expect("an archive");
        let mut found = Vec::new();
        while let (Some(entry), headers) = meter.headers_of(|| entries.next()) {
            let mut entry = entry.expect("an entry");
            assert!(headers.len() >= 512 && headers.len().is_multiple_of(512));
            let expected = Expected::read(&entry, &headers).expect("headers");
            found.push(expected.expect("an entry").name);
            io::copy(&mut entry, &mut io::sink()).expect("memory");
        }
        assert_eq!(found, names);
    }
}
