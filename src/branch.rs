//! A branch as people and kernels write it: a directory and a permission.
//!
//! ```text
//! /sys/fs/aufs/si_*/br0    /demo/sp\040ace=rw+nolwh\n          one branch, octal escapes
//! mount table, brs=0       si=1595..,br:/w/b0=rw:/w/b\0401=ro  all of them, last in the options
//! typed by a person        br:DIR=PERM:DIR  dirs=DIR:DIR       permissions may be left out
//! ```

use std::fmt;

use serde::Serialize;

use crate::bytes::Bytes;

/// How a branch may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The union may write to it.
    Rw,
    /// The union only reads it; others may write.
    Ro,
    /// Nobody can write to it: its file system is read-only for good, such as squashfs.
    Rr,
}

/// A branch's permission with its attributes, as AUFS writes it: `ro+wh`, `rw+nolwh`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permission {
    /// How the branch may be used.
    pub mode: Mode,
    attributes: Vec<&'static str>,
}

/// The attributes that AUFS knows, each with the modes for which it makes sense.
const ATTRIBUTES: [(&str, &[Mode]); 14] = [
    ("wh", &[Mode::Ro, Mode::Rr]),
    ("nolwh", &[Mode::Rw]),
    ("fhsm", &[Mode::Rw]),
    ("moo", &[Mode::Rw]),
    ("coo_reg", &[Mode::Rw, Mode::Ro, Mode::Rr]),
    ("coo_all", &[Mode::Rw, Mode::Ro, Mode::Rr]),
    ("unpin", &[Mode::Rw, Mode::Ro, Mode::Rr]),
    ("icex", &[Mode::Rw, Mode::Ro, Mode::Rr]),
    ("icexsec", &[Mode::Rw, Mode::Ro, Mode::Rr]),
    ("icexsys", &[Mode::Rw, Mode::Ro, Mode::Rr]),
    ("icextr", &[Mode::Rw, Mode::Ro, Mode::Rr]),
    ("icexusr", &[Mode::Rw, Mode::Ro, Mode::Rr]),
    ("icexoth", &[Mode::Rw, Mode::Ro, Mode::Rr]),
    ("verbose", &[]),
];

impl Permission {
    /// A plain `rw`.
    pub const RW: Permission = Permission {
        mode: Mode::Rw,
        attributes: Vec::new(),
    };
    /// A plain `ro`.
    pub const RO: Permission = Permission {
        mode: Mode::Ro,
        attributes: Vec::new(),
    };

    /// `ro+wh`: what Docker gives to every layer below the container's.
    pub fn ro_wh() -> Permission {
        Permission {
            mode: Mode::Ro,
            attributes: vec!["wh"],
        }
    }

    /// As AUFS reads it: an unknown mode is `ro`, attributes that make no sense for the mode are
    /// dropped.
    pub fn parse(text: &[u8]) -> Permission {
        let text = String::from_utf8_lossy(text);
        let mut words = text.split('+');
        let mode = match words.next() {
            Some("rw") => Mode::Rw,
            Some("rr") => Mode::Rr,
            Some("ro") => Mode::Ro,
            _ => return Permission::RO,
        };
        let known = |word| {
            let mut known = ATTRIBUTES.iter();
            known.find(|(known, modes)| *known == word && modes.contains(&mode))
        };
        let attributes = words.filter_map(known).map(|(known, _)| *known).collect();
        Permission { mode, attributes }
    }

    /// Whether `text` is a permission and nothing but one.
    fn is_permission(text: &[u8]) -> bool {
        let Ok(text) = std::str::from_utf8(text) else {
            return false;
        };
        let mut words = text.split('+');
        matches!(words.next(), Some("rw" | "ro" | "rr"))
            && words.all(|word| ATTRIBUTES.iter().any(|(known, _)| *known == word))
    }

    /// Whether the union may write to the branch.
    pub fn is_writable(&self) -> bool {
        self.mode == Mode::Rw
    }

    /// Whiteouts and opaque marks count only in `rw`, `ro+wh` and `rr+wh` branches.
    pub fn honours_marks(&self) -> bool {
        self.mode == Mode::Rw || self.attributes.contains(&"wh")
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.mode {
            Mode::Rw => "rw",
            Mode::Ro => "ro",
            Mode::Rr => "rr",
        })?;
        for attribute in &self.attributes {
            write!(f, "+{attribute}")?;
        }
        Ok(())
    }
}

impl Serialize for Permission {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// One branch before it is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BranchSpec {
    /// The directory, on the host.
    pub path: Bytes,
    /// How the union may use it.
    pub permission: Permission,
}

/// Reads `/sys/fs/aufs/si_*/br<N>`: `path=permission`, split at the last `=`.
pub fn parse_sysfs(bytes: &[u8]) -> Option<BranchSpec> {
    let line = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let at = line.iter().rposition(|&byte| byte == b'=')?;
    let path = unescape_octal(&line[..at]);
    if !path.starts_with(b"/") {
        return None;
    }
    Some(BranchSpec {
        path: Bytes(path),
        permission: Permission::parse(&line[at + 1..]),
    })
}

/// Reads the branches at the end of a mount table's options (`brs=0`): every path there is
/// absolute and has its permission, which is what tells a `:` in a path from one between two.
/// `options` has been octal-unescaped already.
pub fn parse_mount_options(options: &[u8]) -> Option<Vec<BranchSpec>> {
    let start = if options.starts_with(b"br:") {
        0
    } else {
        find(options, b",br:")? + 1
    };
    let list = &options[start + 3..];
    let mut branches = Vec::new();
    let mut from = 0;
    for end in 0..=list.len() {
        let between = end == list.len() || (list[end] == b':' && list.get(end + 1) == Some(&b'/'));
        if !between {
            continue;
        }
        let piece = &list[from..end];
        if let Some(at) = piece.iter().rposition(|&byte| byte == b'=')
            && Permission::is_permission(&piece[at + 1..])
        {
            branches.push(BranchSpec {
                path: Bytes::from(&piece[..at]),
                permission: Permission::parse(&piece[at + 1..]),
            });
            from = end + 1;
        }
    }
    (from == list.len() + 1 && !branches.is_empty()).then_some(branches)
}

/// Whether an argument spells a stack rather than names one.
pub fn is_spelled(text: &[u8]) -> bool {
    [&b"br:"[..], b"br=", b"dirs:", b"dirs="]
        .iter()
        .any(|prefix| text.starts_with(prefix))
}

/// Reads a stack as a person spells it. As in AUFS, the first branch without a permission is
/// `rw`, every other one `ro`, and what is no permission after the `=` means `ro`; but a suffix
/// that holds a slash belongs to the path.
///
/// # Errors
/// Says what is wrong with the spelling.
pub fn parse_spelled(text: &[u8]) -> Result<Vec<BranchSpec>, String> {
    let at = text
        .iter()
        .position(|byte| matches!(byte, b':' | b'='))
        .ok_or("a stack is spelled br:DIR=PERM:DIR=PERM...")?;
    let mut branches = Vec::new();
    for piece in text[at + 1..].split(|&byte| byte == b':') {
        let default = if branches.is_empty() {
            Permission::RW
        } else {
            Permission::RO
        };
        let (path, permission) = match piece.iter().rposition(|&byte| byte == b'=') {
            Some(at) if !piece[at + 1..].contains(&b'/') => {
                (&piece[..at], Permission::parse(&piece[at + 1..]))
            }
            _ => (piece, default),
        };
        if path.is_empty() {
            return Err(format!(
                "branch {} has no directory; a stack is spelled br:DIR=PERM:DIR=PERM...",
                branches.len()
            ));
        }
        branches.push(BranchSpec {
            path: Bytes::from(path),
            permission,
        });
    }
    Ok(branches)
}

/// Undoes the kernel's octal escapes (`\040`). What only looks like one stays as it is.
pub fn unescape_octal(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        if first == b'\\'
            && let [
                a @ b'0'..=b'3',
                b @ b'0'..=b'7',
                c @ b'0'..=b'7',
                after @ ..,
            ] = tail
        {
            out.push((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0'));
            rest = after;
        } else {
            out.push(first);
        }
    }
    out
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(branches: &[BranchSpec]) -> Vec<String> {
        branches
            .iter()
            .map(|branch| format!("{} {}", branch.path, branch.permission))
            .collect()
    }

    #[test]
    fn permissions_are_read_as_aufs_reads_them() {
        // docs/facts.md#aufs-4.7
        for (text, read, marks) in [
            ("rw", "rw", true),
            ("rw+nolwh", "rw+nolwh", true),
            ("ro", "ro", false),
            ("ro+wh", "ro+wh", true),
            ("ro+coo_reg+wh", "ro+coo_reg+wh", true),
            ("rr", "rr", false),
            ("rr+wh", "rr+wh", true),
            ("rw+wh", "rw", true),
            ("ro+nolwh", "ro", false),
            ("bogus", "ro", false),
            ("wh", "ro", false),
            ("", "ro", false),
        ] {
            let permission = Permission::parse(text.as_bytes());
            assert_eq!(permission.to_string(), read, "{text}");
            assert_eq!(permission.honours_marks(), marks, "{text}");
        }
    }

    #[test]
    fn sysfs_lines_split_at_the_last_equals_sign() {
        // docs/facts.md#aufs-4.2, #aufs-4.5, #aufs-4.6
        for (line, read) in [
            (&b"/demo/fruits=rw\n"[..], "/demo/fruits rw"),
            (b"/w/o/sp\\040ace=ro+wh\n", "/w/o/sp ace ro+wh"),
            (b"/w/o/x=rw=ro+wh\n", "/w/o/x=rw ro+wh"),
            (b"/w/b9x\\040(deleted)=ro\n", "/w/b9x (deleted) ro"),
            (b"/ends\\134040lit=ro", "/ends\\\\040lit ro"),
            (b"/new\\012line=rw\n", "/new\\nline rw"),
        ] {
            let branch = parse_sysfs(line).unwrap();
            assert_eq!(format!("{} {}", branch.path, branch.permission), read);
        }
        assert_eq!(parse_sysfs(b""), None);
        assert_eq!(parse_sysfs(b"no path=rw\n"), None);
    }

    #[test]
    fn branches_are_read_from_mount_options() {
        let read = |options: &str| parse_mount_options(options.as_bytes()).map(|list| shown(&list));
        assert_eq!(
            read("rw,si=15,br:/w/b0=rw:/w/b 1=ro+wh:/w/b2=ro").unwrap(),
            ["/w/b0 rw", "/w/b 1 ro+wh", "/w/b2 ro"]
        );
        assert_eq!(
            read("br:/a:b=x=rw:/c,d=ro").unwrap(),
            ["/a:b=x rw", "/c,d ro"]
        );
        assert_eq!(read("br:/a:/b=rw").unwrap(), ["/a:/b rw"]);
        assert_eq!(read("rw,si=15"), None);
        assert_eq!(read("br:/a"), None);
    }

    #[test]
    fn spelled_stacks_take_the_defaults_of_aufs() {
        let read = |text: &str| parse_spelled(text.as_bytes()).map(|list| shown(&list));
        assert_eq!(
            read("dirs=./fruits:./vegetables").unwrap(),
            ["./fruits rw", "./vegetables ro"]
        );
        assert_eq!(
            read("br:a=ro+wh:b=rw:c=bogus").unwrap(),
            ["a ro+wh", "b rw", "c ro"]
        );
        assert_eq!(read("br:/x=1/y").unwrap(), ["/x=1/y rw"]);
        assert!(read("br:").is_err());
        assert!(read("br:a::b").is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_a_parser_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _ = parse_sysfs(&bytes);
            let _ = parse_mount_options(&bytes);
            let _ = parse_spelled(&bytes);
            let _ = unescape_octal(&bytes);
        }

        #[test]
        fn octal_escapes_come_back(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..50)) {
            let escaped: Vec<u8> = bytes.iter().flat_map(|&byte| match byte {
                0..=0x20 | b'\\' | 0x7f => format!("\\{byte:03o}").into_bytes(),
                _ => vec![byte],
            }).collect();
            proptest::prop_assert_eq!(unescape_octal(&escaped), bytes);
        }
    }
}
