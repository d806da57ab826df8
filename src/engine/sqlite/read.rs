//! Reads a database that its engine may be writing to, without its lock.

use std::thread::sleep;
use std::time::Duration;

use super::journal::roll_back;
use super::{Database, MODES};
use crate::bytes::Bytes;
use crate::error::{Error, Result};
use crate::host::{Host, Steady};

/// The largest database or journal that is read, in bytes.
const SIZE_MAX: u64 = 256 << 20;
/// How often it is read that changes meanwhile, and how long each waits for the writer to end.
const ATTEMPTS: usize = 30;
const PAUSE: Duration = Duration::from_millis(5);

/// A database as its last ended transaction left it.
///
/// # Errors
/// What the system call says; one that is larger than 256 MiB, is damaged, or kept changing while
/// it was read.
pub fn read(host: &Host, path: &Bytes) -> Result<Database> {
    let bytes = read_steady(host, path)?;
    let log = beside(path, "-wal");
    if bytes.get(MODES).is_some_and(|modes| modes != [1, 1])
        && host.stat(&log)?.is_some_and(|stat| stat.size > 0)
    {
        let what = "holds transactions of a database that is read from its journal only";
        return Err(Error::damaged(log, what));
    }
    Database::open(bytes).map_err(|damage| Error::damaged(path.clone(), damage.to_string()))
}

/// The bytes of one state. While a transaction writes there is a journal, which takes back what it
/// wrote so far; without one nobody writes. Whatever ends between two readings shows in the second:
/// no transaction leaves the change counter as it was.
fn read_steady(host: &Host, path: &Bytes) -> Result<Vec<u8>> {
    let journal = beside(path, "-journal");
    let mut last = None;
    for _ in 0..ATTEMPTS {
        let now = (read_file(host, path)?, read_if_there(host, &journal)?);
        if last.as_ref() == Some(&now) {
            let (mut database, journal) = now;
            roll_back(&mut database, &journal);
            return Ok(database);
        }
        if last.replace(now).is_some() {
            sleep(PAUSE);
        }
    }
    let what = "kept changing while it was read";
    Err(Error::damaged(path.clone(), what))
}

fn beside(path: &Bytes, suffix: &str) -> Bytes {
    Bytes([path.as_bytes(), suffix.as_bytes()].concat())
}

fn read_file(host: &Host, path: &Bytes) -> Result<Vec<u8>> {
    let steady = Steady {
        size_max: SIZE_MAX,
        head: 0,
        is_sound: |_, _| true,
    };
    host.read_steady(path, steady)
}

fn read_if_there(host: &Host, path: &Bytes) -> Result<Vec<u8>> {
    match read_file(host, path) {
        Err(error) if error.is_not_found() => Ok(Vec::new()),
        read => read,
    }
}
