//! fuse-overlayfs: the mount table does not tell the branches, the program's command line does.
//!
//! ```text
//! /proc/PID/cmdline   fuse-overlayfs -o lowerdir=/a:/b,upperdir=/u,workdir=/w /mount/point
//! ```

use crate::bytes::Bytes;
use crate::dir::Kind;
use crate::engine::namespace;
use crate::engine::union::{LayeredBranch, Union};
use crate::host::Host;
use crate::overlay::{self, Options};

const PROGRAM: &[u8] = b"fuse-overlayfs";

/// Finds the process that makes a mount, and the branches that it was told to stack.
pub fn ask_program(host: &Host, union: &mut Union) {
    let mut found = None;
    for id in namespace::processes_of(host) {
        let directory = namespace::directory(id);
        let Ok(bytes) = host.read(&directory.join(b"cmdline")) else {
            continue;
        };
        let Some((options, point)) = parse_command_line(&bytes) else {
            continue;
        };
        if union.mounts.iter().any(|mount| mount.path == point) {
            found = Some((directory, options));
            break;
        }
        // One that was typed relative to a directory which the program has left.
        let is_end = |path: &Bytes| {
            path.components()
                .rev()
                .zip(point.components().rev())
                .all(|(a, b)| a == b)
        };
        let is_relative = !point.as_bytes().starts_with(b"/");
        if is_relative && union.mounts.iter().any(|mount| is_end(&mount.path)) {
            if found.is_some() {
                return; // either of two
            }
            found = Some((directory, options));
        }
    }
    let Some((directory, options)) = found else {
        return;
    };
    let mut specs = options.branches();
    let is_absolute = |path: &Bytes| path.as_bytes().starts_with(b"/");
    if !specs.iter().all(|spec| is_absolute(&spec.path)) {
        // The program has all directories open: the lower ones first, topmost first, and then
        // the upper one.
        let open = open_directories(host, &directory);
        let lowers = options.lowers.len();
        let order = options.upper.iter().map(|_| lowers).chain(0..lowers);
        for (spec, at) in specs.iter_mut().zip(order) {
            match open.get(at) {
                Some(path) if !is_absolute(&spec.path) => spec.path = path.clone(),
                _ => {}
            }
        }
    }
    union.branches = specs.into_iter().map(LayeredBranch::from).collect();
}

/// The branches and the mount point in a command line of fuse-overlayfs.
pub fn parse_command_line(bytes: &[u8]) -> Option<(Options, Bytes)> {
    let mut words = bytes
        .split(|&byte| byte == 0)
        .filter(|word| !word.is_empty());
    let program = words.next()?;
    if program.rsplit(|&byte| byte == b'/').next()? != PROGRAM {
        return None;
    }
    let mut options: Vec<&[u8]> = Vec::new();
    let mut point = None;
    while let Some(word) = words.next() {
        match word {
            b"-o" => options.push(words.next()?),
            _ => match word.strip_prefix(b"-o") {
                Some(attached) => options.push(attached),
                None if word.starts_with(b"-") => {}
                None => point = Some(Bytes::from(word)),
            },
        }
    }
    let options = overlay::parse_fuse(&options.join(&b","[..])).ok()?;
    Some((options, point?))
}

/// The directories that a process has open, by number. What it has from whoever started it, a log or a
/// lock, is none.
fn open_directories(host: &Host, process: &Bytes) -> Vec<Bytes> {
    let directory = process.join(b"fd");
    let names = host.list(&directory).unwrap_or_default().into_iter();
    let mut numbers: Vec<u32> = names
        .filter_map(|(name, _)| std::str::from_utf8(&name).ok()?.parse().ok())
        .collect();
    numbers.sort_unstable();
    let links = numbers.into_iter().filter_map(|number| {
        let path = directory.join(number.to_string().as_bytes());
        host.read_link(&path).ok().flatten()
    });
    let is_directory = |path: &Bytes| {
        let found = host.stat(path).ok().flatten();
        // What is not there here may be there for the process.
        found.is_none_or(|stat| stat.kind == Kind::Directory)
    };
    links
        .filter(|path| path.as_bytes().starts_with(b"/") && !path.as_bytes().starts_with(b"/dev/"))
        .filter(is_directory)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_that_docker_starts() {
        let line =
            b"fuse-overlayfs\0-o\0lowerdir=/l/A:/l/B,upperdir=/u/diff,workdir=/u/work\0/u/merged\0";
        let (options, point) = parse_command_line(line).unwrap();
        assert_eq!(point, Bytes::from("/u/merged"));
        assert_eq!(options.upper, Some(Bytes::from("/u/diff")));
        assert_eq!(options.lowers, [Bytes::from("/l/A"), Bytes::from("/l/B")]);
        assert!(parse_command_line(b"overlay\0-o\0lowerdir=/a\0/m\0").is_none());
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
            let _ = parse_command_line(&bytes);
            let _ = parse_command_line(&[b"fuse-overlayfs\0-o", &bytes[..]].concat());
        }
    }
}
