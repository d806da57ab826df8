//! Captured hosts: compressed tar files with owners, modes, devices and extended attributes.
//!
//! They are read record by record, since the tar crate's own unpacking knows no devices, and ends
//! a name at a newline in it.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, lchown, symlink};
use std::path::Path;
use std::str::FromStr;

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags, lsetxattr, makedev, mknodat,
    utimensat,
};
use tar::{Archive, EntryType, Header};

use super::{fixture, is_root};

/// An entry of a tar file.
#[derive(Debug, Clone)]
pub struct Meta {
    pub kind: &'static str,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: i64,
    mtime_nanoseconds: i64,
    /// A symbolic link's target.
    pub link: Option<Vec<u8>>,
    pub content: Vec<u8>,
    /// The size of a file of which only the size was kept.
    hole: Option<u64>,
    /// The earlier entry that this one is another name of.
    pub same_as: Option<Vec<u8>>,
    pub device: u64,
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Everything in an archive, in its order, by path.
fn entries(name: &str) -> Vec<(Vec<u8>, Meta)> {
    let path = fixture("hosts").join(format!("{name}.tar.zst"));
    let file = File::open(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    read(BufReader::new(
        zstd::Decoder::new(file).expect("a zstd stream"),
    ))
}

/// Everything in a tar stream, in its order, by path.
pub fn read(stream: impl Read) -> Vec<(Vec<u8>, Meta)> {
    let mut archive = Archive::new(stream);
    let mut found = Vec::new();
    let mut extension = Vec::new();
    for entry in archive.entries().expect("a tar stream").raw(true) {
        let mut entry = entry.expect("a whole tar stream");
        let mut content = Vec::new();
        entry.read_to_end(&mut content).expect("a whole tar stream");
        let header = entry.header();
        match header.entry_type() {
            EntryType::XHeader => extension = pax_records(&content),
            EntryType::XGlobalHeader => {}
            kind @ (EntryType::GNULongName | EntryType::GNULongLink) => {
                let key = match kind {
                    EntryType::GNULongName => "path",
                    _ => "linkpath",
                };
                let end = content.iter().position(|&byte| byte == 0);
                content.truncate(end.unwrap_or(content.len()));
                extension.push((key.into(), content));
            }
            _ => found.push(meta(header, content, &std::mem::take(&mut extension))),
        }
    }
    found
}

/// `LENGTH KEY=VALUE\n`, over and over. The length counts the whole record.
fn pax_records(mut bytes: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut records = Vec::new();
    while !bytes.is_empty() {
        let blank = bytes
            .iter()
            .position(|&byte| byte == b' ')
            .expect("a length");
        let length = std::str::from_utf8(&bytes[..blank])
            .ok()
            .and_then(|text| text.parse().ok())
            .expect("a length");
        let (record, rest) = bytes.split_at(length);
        let record = &record[blank + 1..record.len() - 1];
        let equals = record.iter().position(|&byte| byte == b'=').expect("a key");
        records.push((record[..equals].to_vec(), record[equals + 1..].to_vec()));
        bytes = rest;
    }
    records
}

fn meta(header: &Header, content: Vec<u8>, extension: &[(Vec<u8>, Vec<u8>)]) -> (Vec<u8>, Meta) {
    let extended = |key: &str| {
        extension
            .iter()
            .find(|(of, _)| of == key.as_bytes())
            .map(|(_, value)| value.clone())
    };
    let small =
        |field: io::Result<u64>| u32::try_from(field.expect("a number")).expect("a small one");
    let number = |field: io::Result<Option<u32>>| field.ok().flatten().unwrap_or(0);
    let path = extended("path").unwrap_or_else(|| header.path_bytes().into_owned());
    let target =
        extended("linkpath").or_else(|| header.link_name_bytes().map(|link| link.into_owned()));
    let (mtime_nanoseconds, hole) = (
        extended("mtime").map_or(0, |time| nanoseconds(&time)),
        extended("LAYERCTL.hole").map(|size| digits(&size)),
    );
    let is_hard_link = header.entry_type() == EntryType::Link;
    let meta = Meta {
        kind: match header.entry_type() {
            EntryType::Directory => "directory",
            EntryType::Symlink => "symlink",
            EntryType::Fifo => "fifo",
            EntryType::Char => "char",
            EntryType::Block => "block",
            _ => "file",
        },
        mode: header.mode().expect("a mode"),
        uid: small(header.uid()),
        gid: small(header.gid()),
        mtime: i64::try_from(header.mtime().expect("a time"))
            .expect("a time before the end of time"),
        mtime_nanoseconds,
        same_as: target
            .clone()
            .filter(|_| is_hard_link)
            .map(|target| clean(&target).to_vec()),
        link: target.filter(|_| !is_hard_link),
        content,
        hole,
        device: makedev(number(header.device_major()), number(header.device_minor())),
        xattrs: extension
            .iter()
            .filter_map(|(key, value)| {
                Some((key.strip_prefix(b"SCHILY.xattr.")?.to_vec(), value.clone()))
            })
            .collect(),
    };
    (clean(&path).to_vec(), meta)
}

fn digits<T: FromStr>(text: &[u8]) -> T {
    let number = std::str::from_utf8(text)
        .ok()
        .and_then(|text| text.parse().ok());
    number.expect("a number")
}

/// Those of a PAX time, which is `SECONDS` or `SECONDS.FRACTION`.
fn nanoseconds(time: &[u8]) -> i64 {
    let text = std::str::from_utf8(time).expect("a time");
    text.split_once('.').map_or(0, |(_, fraction)| {
        digits(format!("{fraction:0<9}").as_bytes())
    })
}

/// `./a/b/` as `a/b`.
fn clean(path: &[u8]) -> &[u8] {
    let path = path.strip_prefix(b"./").unwrap_or(path);
    path.strip_suffix(b"/").unwrap_or(path)
}

/// Unpacks a captured host, as true as the user may: an ordinary one owns everything and makes
/// no device.
pub fn unpack(name: &str, into: &Path) {
    let entries = entries(name);
    let at = |path: &[u8]| into.join(OsStr::from_bytes(path));
    for (path, meta) in &entries {
        let to = at(path);
        let done = match &meta.same_as {
            Some(of) => fs::hard_link(at(of), &to),
            None => make(&to, meta),
        };
        done.unwrap_or_else(|error| panic!("{}: {error}", to.display()));
    }
    // Last: what is made in a directory changes its time, and may need its permission.
    for (path, meta) in entries
        .iter()
        .rev()
        .filter(|(_, meta)| meta.same_as.is_none())
    {
        let to = at(path);
        dress(&to, meta).unwrap_or_else(|error| panic!("{}: {error}", to.display()));
    }
}

fn make(at: &Path, meta: &Meta) -> io::Result<()> {
    let node = |kind| {
        Ok(mknodat(
            CWD,
            at,
            kind,
            Mode::from_raw_mode(0o600),
            meta.device,
        )?)
    };
    match meta.kind {
        "directory" => fs::create_dir_all(at),
        "symlink" => symlink(
            OsStr::from_bytes(meta.link.as_deref().unwrap_or_default()),
            at,
        ),
        "fifo" => node(FileType::Fifo),
        "char" | "block" if !is_root() => Ok(()),
        "char" => node(FileType::CharacterDevice),
        "block" => node(FileType::BlockDevice),
        _ => match meta.hole {
            Some(size) => File::create(at)?.set_len(size),
            None => fs::write(at, &meta.content),
        },
    }
}

/// Gives an entry its owner, mode, attributes and time, in the only order that keeps them all.
fn dress(at: &Path, meta: &Meta) -> io::Result<()> {
    if !at.is_symlink() && !at.exists() {
        return Ok(());
    }
    if is_root() {
        lchown(at, Some(meta.uid), Some(meta.gid))?;
    }
    if meta.kind != "symlink" {
        fs::set_permissions(at, fs::Permissions::from_mode(meta.mode))?;
    }
    for (name, value) in meta.xattrs.iter().filter(|_| is_root()) {
        lsetxattr(at, name.as_slice(), value, XattrFlags::empty())?;
    }
    let time = Timespec {
        tv_sec: meta.mtime,
        tv_nsec: meta.mtime_nanoseconds,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    Ok(utimensat(CWD, at, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Unpacks the image of a file system, of which most is holes.
pub fn unpack_image(name: &str, to: &Path) {
    let path = fixture("hosts").join(format!("{name}.img.zst"));
    let file = File::open(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut image = zstd::Decoder::new(file).expect("a zstd stream");
    let mut to = File::create(to).expect("a file of our own");
    let (mut chunk, hole) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let mut size = 0;
    loop {
        let length = image.read(&mut chunk).expect("a whole zstd stream");
        match &chunk[..length] {
            [] => break,
            chunk if *chunk == hole[..length] => {}
            chunk => {
                to.seek(SeekFrom::Start(size)).expect("a file of our own");
                to.write_all(chunk).expect("a file of our own");
            }
        }
        size += length as u64;
    }
    to.set_len(size).expect("a file of our own");
}

/// Everything in an archive below `prefix`, by its path from there (`/etc/passwd`). A hard link
/// is what it is another name of.
pub fn contents(name: &str, prefix: &str) -> BTreeMap<Vec<u8>, Meta> {
    let below = |path: &[u8]| {
        path.strip_prefix(prefix.as_bytes())
            .filter(|rest| rest.starts_with(b"/"))
            .map(<[u8]>::to_vec)
    };
    let mut found: BTreeMap<Vec<u8>, Meta> = BTreeMap::new();
    for (path, mut meta) in entries(name) {
        let Some(path) = below(&path) else { continue };
        if let Some(of) = meta.same_as.as_deref().and_then(below) {
            meta = Meta {
                same_as: Some(of.clone()),
                ..found[&of].clone()
            };
        }
        found.insert(path, meta);
    }
    found
}

/// The text files of an archive, by name.
pub fn texts(name: &str) -> BTreeMap<String, Vec<u8>> {
    let named = |(path, meta): (Vec<u8>, Meta)| {
        (String::from_utf8(path).expect("plain names"), meta.content)
    };
    entries(name).into_iter().map(named).collect()
}
