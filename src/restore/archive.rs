//! What a view has, as a tar file: POSIX's pax form (POSIX.1-2024, pax, "pax Interchange Format").
//!
//! ```text
//! [ header 'x' ][ records ]     what a header has no room for: long names, times, attributes
//! [ header     ][ content ]     of each entry; every part is filled up to 512 bytes
//! ...
//! [ 1024 zero bytes ]
//!
//! header   name 100, mode 8, uid 8, gid 8, size 12, mtime 12, checksum 8, type 1, link name 100,
//!          "ustar" NUL "00", user 32, group 32, major 8, minor 8, prefix 155, padding 12
//! record   LENGTH SPACE KEY = VALUE NEWLINE, where the length counts itself
//! ```
//!
//! Extended attributes are `SCHILY.xattr.NAME`, sparse files GNU's form 1.0: the content begins with a
//! map of where there are data.

use std::collections::{HashMap, HashSet};
use std::io::{self, ErrorKind, Read, Write};

use rustix::fs;
use rustix::io::Errno;

use super::attributes::{Attributes, Into};
use super::made::Identity;
use crate::bytes::Bytes;
use crate::dir::{Content, Kind, Stat, at_once};
use crate::error::{Error, Result, errno_of};
use crate::union::{DataAt, Entry, Node};
use crate::walk::walk;

/// The size of a header, and what everything is filled up to, in bytes.
const BLOCK: usize = 512;
/// The longest name that a header has room for, in bytes.
const NAME_MAX: usize = 100;
/// The largest number that seven octal digits can say.
const ID_MAX: u32 = 0o7_777_777;
/// The largest size that eleven octal digits can say, in bytes.
const SIZE_MAX: u64 = 0o77_777_777_777;

/// What OCI puts before the name of what a layer deletes.
pub const OCI_WHITEOUT: &[u8] = b".wh.";

/// What a mark has in an archive: nothing.
const MARK: Stat = Stat {
    kind: Kind::File,
    mode: 0,
    uid: 0,
    gid: 0,
    size: 0,
    mtime: (0, 0),
    atime: (0, 0),
    ctime: (0, 0),
    ino: 0,
    dev: 0,
    rdev: 0,
    nlink: 1,
    blocks: 0,
};

/// A tar file that is being written.
pub struct Archive<'o> {
    out: &'o mut dyn Write,
    /// Files of which there may be more names.
    links: HashMap<Identity, LinkNames>,
    /// What could not be read, or not be kept.
    pub said: Vec<Error>,
    /// It is a layer's.
    is_layer: bool,
    keeps_names: bool,
    /// Why the output takes no more.
    failed: Option<io::Error>,
}

/// What a file with several names is called in an archive.
struct LinkNames {
    first: Bytes,
    written: u64,
    /// How many it has where it is.
    all: u64,
    /// The others that were written, where that is asked for.
    more: HashSet<Bytes>,
}

/// Something that is to be written, and its name in the archive.
struct Item<'s> {
    from: Node<'s>,
    name: Vec<u8>,
    path: Bytes,
}

/// What went wrong: with what is read, or with the output.
enum Fault {
    Source(Error),
    Output(io::Error),
}

impl From<Error> for Fault {
    fn from(error: Error) -> Fault {
        Fault::Source(error)
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Fault {
        Fault::Output(error)
    }
}

impl<'o> Archive<'o> {
    pub fn new(out: &'o mut dyn Write) -> Archive<'o> {
        Archive {
            out,
            links: HashMap::new(),
            said: Vec::new(),
            is_layer: false,
            keeps_names: false,
            failed: None,
        }
    }

    /// The same for a layer. Holes are written as the zeros that they read as, since engines that take
    /// a layer apart lose the form of sparse files. A name that would delete another one is left out.
    pub fn for_layer(self) -> Archive<'o> {
        Archive {
            is_layer: true,
            ..self
        }
    }

    /// Adds what is in a directory of a view, by its names there.
    ///
    /// # Errors
    /// The output takes no more.
    pub fn content(&mut self, node: &Node<'_>) -> io::Result<()> {
        let names = match node.names() {
            Ok(names) => names.to_vec(),
            Err(error) => {
                self.said.push(error);
                return Ok(());
            }
        };
        let mut names = names.into_iter();
        names.try_for_each(|name| self.add(node, &name, &Bytes(name.clone())))
    }

    /// Adds what a place of a view has under a name, and nothing that is in it.
    ///
    /// # Errors
    /// The output takes no more.
    pub fn alone(&mut self, from: &Node<'_>, name: &[u8], path: &Bytes) -> io::Result<()> {
        let item = Item {
            from: from.clone(),
            name: name.to_vec(),
            path: path.clone(),
        };
        match self.entry(&item) {
            Ok(_) => Ok(()),
            Err(Fault::Source(error)) => {
                self.said.push(error);
                Ok(())
            }
            Err(Fault::Output(error)) => Err(error),
        }
    }

    /// Adds an empty file that is no file of a view: a mark.
    ///
    /// # Errors
    /// The output takes no more.
    pub fn mark(&mut self, path: &Bytes) -> io::Result<()> {
        Header::new(&MARK, b'0', path.as_bytes()).write(self.out)
    }

    /// Adds what a place of a view has under a name, and all that is in it. `path` is its name in
    /// the archive, without a slash at its beginning.
    ///
    /// # Errors
    /// The output takes no more.
    pub fn add(&mut self, from: &Node<'_>, name: &[u8], path: &Bytes) -> io::Result<()> {
        let root = Item {
            from: from.clone(),
            name: name.to_vec(),
            path: path.clone(),
        };
        let walked = walk(root, |item, found| {
            if self.failed.is_some() {
                return;
            }
            match self.entry(&item) {
                Ok(below) => below.into_iter().for_each(|below| found.directory(below)),
                Err(Fault::Source(error)) => self.said.push(error),
                Err(Fault::Output(error)) => {
                    self.failed = Some(error);
                    // A row ends the walk.
                    found.rows().push(());
                }
            }
        });
        let _ended = { walked }.next();
        match self.failed.take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// The same, which can tell by [`Archive::lacks`] which names it has.
    pub fn with_names_kept(self) -> Archive<'o> {
        Archive {
            keeps_names: true,
            ..self
        }
    }

    /// Whether it has a file without all of its names.
    pub fn lacks_names(&self) -> bool {
        self.links.values().any(|names| names.written < names.all)
    }

    /// Whether it has a file, and not by this name.
    pub fn lacks(&self, stat: &Stat, path: &Bytes) -> bool {
        let names = self.links.get(&stat.identity());
        names.is_some_and(|names| names.first != *path && !names.more.contains(path))
    }

    /// Ends the archive, and tells what was not kept.
    ///
    /// # Errors
    /// The output takes no more.
    pub fn finish(self) -> io::Result<Vec<Error>> {
        self.out.write_all(&[0; 2 * BLOCK])?;
        Ok(self.said)
    }

    /// Writes one entry, and gives what is in it.
    fn entry<'s>(&mut self, item: &Item<'s>) -> Result<Vec<Item<'s>>, Fault> {
        let Item { from, name, path } = item;
        if self.is_layer && name.starts_with(OCI_WHITEOUT) {
            let what = "is called as a layer calls what it deletes: it was left out";
            return Err(Error::damaged(from.path_of(name), what).into());
        }
        match from.child(name)? {
            Entry::Dir(node) => self.directory(node.read(), path),
            Entry::Leaf {
                from: branch,
                kind,
                data,
                ..
            } => {
                self.leaf(item, (branch, kind), data.as_deref())?;
                Ok(Vec::new())
            }
            Entry::Broken { errno, .. } => Err(Error::io(from.path_of(name), errno).into()),
            Entry::Missing | Entry::Deleted { .. } => Ok(Vec::new()),
        }
    }

    fn directory<'s>(&mut self, node: Node<'s>, path: &Bytes) -> Result<Vec<Item<'s>>, Fault> {
        let stat = node.stat_self()?;
        let provider = node.provider().unwrap_or_default();
        let source = node.dir(provider).ok_or(Errno::NOENT);
        let attributes = source.and_then(Attributes::of_directory);
        let fail = |errno| Error::io(node.on_host(provider, b""), errno);
        let attributes = attributes.map_err(fail)?.seen(&node, provider, Into::View);
        let mut header = Header::new(&stat, b'5', &[path.as_bytes(), b"/"].concat());
        header.attributes(&attributes);
        header.write(self.out)?;
        let names = node.names()?.to_vec();
        let below = names.into_iter().map(|name| Item {
            path: Bytes([path.as_bytes(), b"/", &name].concat()),
            from: node.clone(),
            name,
        });
        Ok(below.collect())
    }

    fn leaf(
        &mut self,
        item: &Item<'_>,
        (branch, kind): (usize, Kind),
        data: Option<&DataAt>,
    ) -> Result<(), Fault> {
        let Item { from, name, path } = item;
        let fail = |errno| Error::io(from.on_host(branch, name), errno);
        let version = from.open_version((branch, kind), name, data)?;
        let stat = version.stat;
        if let Some(names) = self.links.get_mut(&stat.identity()) {
            let mut header = Header::new(&stat, b'1', path.as_bytes());
            header.link(names.first.as_bytes());
            names.written += 1;
            if self.keeps_names {
                names.more.insert(path.clone());
            }
            return Ok(header.write(self.out)?);
        }
        let dir = from.dir(branch).ok_or_else(|| fail(Errno::NOENT))?;
        let attributes = match version.own_file() {
            Some(file) => Attributes::of(file),
            None => Attributes::of_entry(dir, name),
        };
        let attributes = attributes.map_err(fail)?.seen(from, branch, Into::View);
        let letter = match kind {
            Kind::File | Kind::Directory => b'0',
            Kind::Symlink => b'2',
            Kind::Char => b'3',
            Kind::Block => b'4',
            Kind::Fifo => b'6',
            Kind::Socket => {
                let what = "is a socket, which a tar file cannot hold: it was left out";
                return Err(Error::damaged(from.path_of(name), what).into());
            }
        };
        let mut header = Header::new(&stat, letter, path.as_bytes());
        header.attributes(&attributes);
        if kind == Kind::Symlink {
            header.link(&dir.read_link(name).map_err(fail)?);
        }
        match version.content {
            Some(source) => self.file(header, source, &from.on_host(branch, name))?,
            None => header.write(self.out)?,
        }
        if stat.nlink > 1 {
            let names = LinkNames {
                first: path.clone(),
                written: 1,
                all: stat.nlink,
                more: HashSet::new(),
            };
            self.links.insert(stat.identity(), names);
        }
        Ok(())
    }

    /// Writes a file with its content: as much as it had when it was opened, whatever becomes of it.
    fn file(&mut self, mut header: Header, mut source: Content, path: &Bytes) -> Result<(), Fault> {
        let fail = |errno| Error::io(path.clone(), errno);
        let before = source.opened();
        let pieces = if self.is_layer {
            Ok(vec![(0, before.size)])
        } else {
            pieces(&mut source, before.size)
        };
        let pieces = pieces.map_err(|error| fail(errno_of(&error)))?;
        let is_sparse = pieces.iter().map(|(_, length)| length).sum::<u64>() < before.size;
        let map = if is_sparse {
            header.sparse(before.size);
            map_of(&pieces, before.size)
        } else {
            Vec::new()
        };
        let size: u64 = pieces.iter().map(|(_, length)| length).sum();
        let size = size + map.len() as u64;
        header.size(size);
        header.write(self.out)?;
        self.out.write_all(&map)?;
        let longest = pieces.iter().map(|(_, length)| *length).max();
        let mut buffer = vec![0; at_once(longest.unwrap_or(0))];
        let mut is_short = false;
        for (start, length) in pieces {
            let moved = source.seek(start);
            is_short |= moved.is_err();
            let mut left = length;
            while left > 0 {
                let most = usize::try_from(left)
                    .unwrap_or(usize::MAX)
                    .min(buffer.len());
                let count = match source.read(&mut buffer[..most]) {
                    Ok(count @ 1..) if !is_short => count,
                    Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                    read => {
                        if let Err(error) = read {
                            self.said.push(fail(errno_of(&error)));
                        }
                        // The header has promised so much.
                        is_short = true;
                        buffer[..most].fill(0);
                        most
                    }
                };
                self.out.write_all(&buffer[..count])?;
                left -= count as u64;
            }
        }
        fill(self.out, size)?;
        if let Some(changed) = source.changed() {
            self.said.push(Error::damaged(path.clone(), changed));
        }
        Ok(())
    }
}

/// Where a file has data: offsets and lengths.
fn pieces(source: &mut Content, size: u64) -> io::Result<Vec<(u64, u64)>> {
    let mut pieces = Vec::new();
    let mut at = 0;
    while at < size {
        let Some((start, end)) = source.next_data(at)? else {
            break; // a hole to the end
        };
        pieces.push((start, end - start));
        at = end;
    }
    Ok(pieces)
}

/// GNU's map of a sparse file, filled up: how many pieces there are, and of each where it begins and
/// how long it is, every number on a line. An empty piece at the end says how long the file is.
fn map_of(pieces: &[(u64, u64)], size: u64) -> Vec<u8> {
    let has_end = pieces
        .last()
        .is_some_and(|(start, length)| start + length == size);
    let end = (!has_end).then_some((size, 0));
    let all: Vec<(u64, u64)> = pieces.iter().copied().chain(end).collect();
    let mut map = format!("{}\n", all.len());
    for (start, length) in all {
        map.push_str(&format!("{start}\n{length}\n"));
    }
    let mut map = map.into_bytes();
    map.resize(map.len().next_multiple_of(BLOCK), 0);
    map
}

/// Fills up to a whole block.
fn fill(out: &mut dyn Write, size: u64) -> io::Result<()> {
    let over = usize::try_from(size % BLOCK as u64).unwrap_or(0);
    if over == 0 {
        return Ok(());
    }
    out.write_all(&[0; BLOCK][over..])
}

/// A header, and the records before it.
struct Header {
    block: [u8; BLOCK],
    records: Vec<u8>,
}

impl Header {
    fn new(stat: &Stat, kind: u8, path: &[u8]) -> Header {
        let mut header = Header {
            block: [0; BLOCK],
            records: Vec::new(),
        };
        header.name(path);
        header.octal(100, 8, u64::from(stat.mode));
        for (at, key, id) in [(108, "uid", stat.uid), (116, "gid", stat.gid)] {
            header.octal(at, 8, u64::from(id.min(ID_MAX)));
            if id > ID_MAX {
                header.record(key, id.to_string().as_bytes());
            }
        }
        header.octal(124, 12, 0);
        let (seconds, nanoseconds) = stat.mtime;
        header.octal(136, 12, u64::try_from(seconds).unwrap_or(0).min(SIZE_MAX));
        if nanoseconds != 0 || !(0..=SIZE_MAX.cast_signed()).contains(&seconds) {
            header.record("mtime", time(seconds, nanoseconds).as_bytes());
        }
        header.block[156] = kind;
        header.block[257..265].copy_from_slice(b"ustar\x0000");
        if matches!(stat.kind, Kind::Char | Kind::Block) {
            header.octal(329, 8, u64::from(fs::major(stat.rdev)));
            header.octal(337, 8, u64::from(fs::minor(stat.rdev)));
        }
        header
    }

    fn name(&mut self, path: &[u8]) {
        self.text(0, path);
        if path.len() > NAME_MAX || !path.is_ascii() {
            self.record("path", path);
        }
    }

    fn link(&mut self, target: &[u8]) {
        self.text(157, target);
        if target.len() > NAME_MAX || !target.is_ascii() {
            self.record("linkpath", target);
        }
    }

    fn text(&mut self, at: usize, text: &[u8]) {
        let length = text.len().min(NAME_MAX);
        self.block[at..at + NAME_MAX].fill(0);
        self.block[at..at + length].copy_from_slice(&text[..length]);
    }

    /// How much content follows, in bytes.
    fn size(&mut self, size: u64) {
        self.octal(124, 12, size.min(SIZE_MAX));
        if size > SIZE_MAX {
            self.record("size", size.to_string().as_bytes());
        }
    }

    /// What follows is a sparse file of so many bytes. Who knows no such files sees another name.
    fn sparse(&mut self, size: u64) {
        let end = self.block[..NAME_MAX].iter().position(|&byte| byte == 0);
        let name = self.block[..end.unwrap_or(NAME_MAX)].to_vec();
        let name = self.recorded("path").unwrap_or(name);
        self.record("GNU.sparse.major", b"1");
        self.record("GNU.sparse.minor", b"0");
        self.record("GNU.sparse.name", &name);
        self.record("GNU.sparse.realsize", size.to_string().as_bytes());
        let base = name.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
        self.text(0, &[b"GNUSparseFile.0/", base].concat());
    }

    /// The value of a record that was added before.
    fn recorded(&self, key: &str) -> Option<Vec<u8>> {
        let mut rest = &self.records[..];
        while let Some(space) = rest.iter().position(|&byte| byte == b' ') {
            let length: usize = std::str::from_utf8(&rest[..space]).ok()?.parse().ok()?;
            let record = &rest[space + 1..length - 1];
            if let Some(value) = record.strip_prefix(format!("{key}=").as_bytes()) {
                return Some(value.to_vec());
            }
            rest = &rest[length..];
        }
        None
    }

    fn attributes(&mut self, attributes: &Attributes) {
        for (name, value) in attributes.iter() {
            let mut key = b"SCHILY.xattr.".to_vec();
            for &byte in name {
                // A record's value begins after the first `=`: these two are written as GNU tar does.
                match byte {
                    b'=' => key.extend_from_slice(b"%3D"),
                    b'%' => key.extend_from_slice(b"%25"),
                    byte => key.push(byte),
                }
            }
            self.record(key, value);
        }
    }

    fn record(&mut self, key: impl AsRef<[u8]>, value: &[u8]) {
        let key = key.as_ref();
        let rest = 1 + key.len() + 1 + value.len() + 1;
        // The length counts its own digits.
        let mut length = rest + 1;
        while length != rest + length.to_string().len() {
            length = rest + length.to_string().len();
        }
        let length = length.to_string();
        for part in [length.as_bytes(), b" ", key, b"=", value, b"\n"] {
            self.records.extend_from_slice(part);
        }
    }

    fn octal(&mut self, at: usize, width: usize, value: u64) {
        let digits = format!("{value:0digits$o}", digits = width - 1);
        self.block[at..at + width - 1].copy_from_slice(digits.as_bytes());
        self.block[at + width - 1] = 0;
    }

    fn write(mut self, out: &mut dyn Write) -> io::Result<()> {
        if !self.records.is_empty() {
            let mut before = Header {
                block: [0; BLOCK],
                records: Vec::new(),
            };
            before.text(0, b"././@PaxHeader");
            for (at, width, value) in [(100, 8, 0o644), (108, 8, 0), (116, 8, 0), (136, 12, 0)] {
                before.octal(at, width, value);
            }
            before.octal(124, 12, self.records.len() as u64);
            before.block[156] = b'x';
            before.block[257..265].copy_from_slice(b"ustar\x0000");
            before.write_block(out)?;
            out.write_all(&self.records)?;
            fill(out, self.records.len() as u64)?;
        }
        self.write_block(out)
    }

    fn write_block(&mut self, out: &mut dyn Write) -> io::Result<()> {
        self.block[148..156].fill(b' ');
        let sum: u32 = self.block.iter().map(|&byte| u32::from(byte)).sum();
        self.block[148..154].copy_from_slice(format!("{sum:06o}").as_bytes());
        self.block[154] = 0;
        out.write_all(&self.block)
    }
}

/// Seconds since 1970, with their fraction.
fn time(seconds: i64, nanoseconds: u32) -> String {
    if seconds < 0 && nanoseconds > 0 {
        // The fraction counts away from zero as it is written, and up as it is kept.
        let (seconds, nanoseconds) = (-(seconds + 1), 1_000_000_000 - nanoseconds);
        return format!("-{seconds}.{nanoseconds:09}");
    }
    format!("{seconds}.{nanoseconds:09}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: Stat = Stat {
        mode: 0o4755,
        uid: 1234,
        gid: 5678,
        mtime: (1_000_000_000, 0),
        ..MARK
    };

    fn written(header: Header) -> Vec<u8> {
        let mut out = Vec::new();
        header.write(&mut out).expect("memory takes it");
        assert_eq!(out.len() % BLOCK, 0);
        out
    }

    fn records(stat: &Stat, path: &[u8]) -> String {
        let header = Header::new(stat, b'0', path);
        String::from_utf8(header.records).expect("plain text")
    }

    /// Another writer's header, for the same file.
    #[test]
    fn a_header_is_what_others_write() {
        let mut ours = Header::new(&STAT, b'2', b"d/name");
        ours.size(0o1234);
        ours.link(b"where/to");
        let mut theirs = tar::Header::new_ustar();
        theirs.set_path("d/name").expect("it fits");
        theirs.set_link_name("where/to").expect("it fits");
        theirs.set_entry_type(tar::EntryType::Symlink);
        theirs.set_mode(STAT.mode);
        theirs.set_uid(STAT.uid.into());
        theirs.set_gid(STAT.gid.into());
        theirs.set_size(0o1234);
        theirs.set_mtime(1_000_000_000);
        theirs.set_cksum();
        let ours = written(ours);
        let read = tar::Header::from_byte_slice(&ours);
        assert_eq!(read.cksum().expect("a number"), theirs.cksum().expect("it"));
        let without_sum = |block: &[u8]| [&block[..148], &block[156..]].concat();
        assert_eq!(without_sum(&ours), without_sum(theirs.as_bytes()));
    }

    #[test]
    fn what_a_header_has_no_room_for_is_a_record() {
        let longest = [b'n'; NAME_MAX];
        let longer = [b'n'; NAME_MAX + 1];
        for (path, record) in [
            (&b"short"[..], String::new()),
            (&longest, String::new()),
            (&longer, format!("111 path={}\n", "n".repeat(101))),
            ("é".as_bytes(), "11 path=é\n".into()),
        ] {
            assert_eq!(records(&STAT, path), record);
            let mut header = Header::new(&STAT, b'2', b"");
            header.link(path);
            let length = record.split(' ').next().unwrap_or_default();
            let longer = length.parse::<usize>().map(|length| length + 4);
            let record = match longer {
                Ok(longer) => record
                    .replacen(length, &longer.to_string(), 1)
                    .replace("path", "linkpath"),
                Err(_) => record,
            };
            assert_eq!(String::from_utf8_lossy(&header.records), record);
        }
        for (size, record) in [
            (0, ""),
            (SIZE_MAX, ""),
            (SIZE_MAX + 1, "19 size=8589934592\n"),
        ] {
            let mut header = Header::new(&STAT, b'0', b"");
            header.size(size);
            assert_eq!(String::from_utf8_lossy(&header.records), record);
        }
        let id = |uid, gid| records(&Stat { uid, gid, ..STAT }, b"");
        assert_eq!(id(ID_MAX, ID_MAX), "");
        assert_eq!(id(ID_MAX + 1, 0), "15 uid=2097152\n");
        assert_eq!(id(0, ID_MAX + 1), "15 gid=2097152\n");
    }

    #[test]
    fn times_that_are_no_whole_seconds_of_our_age_are_records() {
        let last = SIZE_MAX.cast_signed();
        for (mtime, record) in [
            ((0, 0), ""),
            ((last, 0), ""),
            ((last + 1, 0), "30 mtime=8589934592.000000000\n"),
            ((0, 5), "21 mtime=0.000000005\n"),
            ((5, 7), "21 mtime=5.000000007\n"),
            ((-1, 0), "22 mtime=-1.000000000\n"),
            ((-1, 500_000_000), "22 mtime=-0.500000000\n"),
            ((-2, 250_000_000), "22 mtime=-1.750000000\n"),
        ] {
            assert_eq!(records(&Stat { mtime, ..STAT }, b""), record);
        }
    }

    /// The length of a record counts its own digits.
    #[test]
    fn every_record_is_as_long_as_it_says() {
        let mut header = Header::new(&STAT, b'0', b"");
        let mut values = Vec::new();
        for length in (0..12).chain(88..100).chain(985..1000) {
            let key = format!("key{length}");
            let value = vec![b'='; length];
            let before = header.records.len();
            header.record(&key, &value);
            let record = &header.records[before..];
            let digits = record.iter().position(|&byte| byte == b' ').expect("one");
            let said = String::from_utf8_lossy(&record[..digits]).into_owned();
            assert_eq!(said, record.len().to_string());
            values.push((key, value));
        }
        for (key, value) in values {
            assert_eq!(header.recorded(&key), Some(value), "{key}");
        }
        assert_eq!(header.recorded("key"), None);
    }

    #[test]
    fn a_sparse_file_has_its_own_name_for_those_who_know() {
        let long = [&[b'd'; NAME_MAX][..], b"/sparse"].concat();
        for name in [&b"sparse"[..], b"d/sparse", &long, &[b'n'; NAME_MAX]] {
            let large = Stat {
                uid: ID_MAX + 1,
                ..STAT
            };
            let mut header = Header::new(&large, b'0', name);
            header.sparse(1 << 40);
            let of = |key: &str| header.recorded(&format!("GNU.sparse.{key}"));
            assert_eq!(of("name").as_deref(), Some(name));
            assert_eq!(of("realsize").as_deref(), Some(&b"1099511627776"[..]));
            assert_eq!(
                (of("major"), of("minor")),
                (Some(b"1".into()), Some(b"0".into()))
            );
            let known = tar::Header::from_byte_slice(&header.block).path_bytes();
            assert!(known.starts_with(b"GNUSparseFile.0/"));
            let base = name.rsplit(|&byte| byte == b'/').next().expect("one");
            let room = base.len().min(NAME_MAX - b"GNUSparseFile.0/".len());
            assert!(known.ends_with(&base[..room]));
        }
    }

    #[test]
    fn a_map_ends_where_the_file_does() {
        for (pieces, size, map) in [
            (&[][..], 10, "1\n10\n0\n"),
            (&[(0, 5)], 5, "1\n0\n5\n"),
            (&[(2, 3)], 5, "1\n2\n3\n"),
            (&[(2, 3)], 6, "2\n2\n3\n6\n0\n"),
            (&[(0, 1), (4, 4)], 9, "3\n0\n1\n4\n4\n9\n0\n"),
        ] {
            let made = map_of(pieces, size);
            assert_eq!(made.len(), BLOCK);
            let text = String::from_utf8(made).expect("plain text");
            assert_eq!(text.trim_end_matches('\0'), map);
        }
        let many: Vec<_> = (0..200).map(|number| (number * 10, 5)).collect();
        assert_eq!(map_of(&many, 2000).len() % BLOCK, 0);
    }
}
