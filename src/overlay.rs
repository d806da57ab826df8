//! Overlay's mount options: what is stacked, and which marks count.
//!
//! ```text
//! mount table, old API   lowerdir=/a\134:b:/c\040d,upperdir=/u,workdir=/w,userxattr
//!                        octal escapes first, then overlay's own: \: \, \\
//! mount table, new API   lowerdir+=/a:b,lowerdir+=/c,datadir+=/d      nothing to unescape
//! typed by a person      lowerdir=/a\:b:/c::/data,upperdir=/u         as mount(8) takes it
//! ```
//!
//! The topmost branch is the upper one, then come the lower ones from left to right, and last
//! those that give nothing but the content of files (`::`, `datadir+`).

use crate::branch::{BranchSpec, Permission, unescape_octal};
use crate::bytes::Bytes;

/// Where overlay keeps its marks: `trusted.overlay.*`, or `user.overlay.*` with `userxattr`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Namespace {
    /// `trusted.overlay.*`: the kernel tells root only.
    #[default]
    Trusted,
    /// `user.overlay.*`: unprivileged mounts can use it.
    User,
}

impl Namespace {
    /// What the names of overlay's own attributes begin with.
    pub fn prefix(self) -> &'static [u8] {
        match self {
            Namespace::Trusted => b"trusted.overlay.",
            Namespace::User => b"user.overlay.",
        }
    }

    /// The names of the attributes that are marks.
    pub fn attributes(self) -> &'static Attributes {
        match self {
            Namespace::Trusted => &Attributes {
                whiteout: "trusted.overlay.whiteout",
                opaque: "trusted.overlay.opaque",
                redirect: "trusted.overlay.redirect",
                metacopy: "trusted.overlay.metacopy",
                impure: "trusted.overlay.impure",
            },
            Namespace::User => &Attributes {
                whiteout: "user.overlay.whiteout",
                opaque: "user.overlay.opaque",
                redirect: "user.overlay.redirect",
                metacopy: "user.overlay.metacopy",
                impure: "user.overlay.impure",
            },
        }
    }
}

/// The whole names of overlay's attributes.
#[derive(Debug)]
pub struct Attributes {
    /// On an empty file, which it makes a whiteout.
    pub whiteout: &'static str,
    /// On a directory that hides what is below it.
    pub opaque: &'static str,
    /// On an entry that the branches below have under another name.
    pub redirect: &'static str,
    /// On a file that has its content below.
    pub metacopy: &'static str,
    /// On a directory in which something may have come from below.
    pub impure: &'static str,
}

/// Which marks a union heeds beside whiteouts and opaque directories.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// Which attributes are marks.
    pub namespace: Namespace,
    /// Directories that were renamed are looked for under their old name.
    pub follows_redirects: bool,
    /// Files may have their content in a lower branch.
    pub metacopy: bool,
}

impl Rules {
    /// The kernel's own, where no option says otherwise: redirects are followed, metacopies are
    /// not.
    pub const DEFAULT: Rules = Rules {
        namespace: Namespace::Trusted,
        follows_redirects: true,
        metacopy: false,
    };

    /// Those of a union that an engine mounts: with `userxattr` the kernel follows no redirects.
    pub fn of(namespace: Namespace) -> Rules {
        Rules {
            namespace,
            follows_redirects: namespace == Namespace::Trusted,
            ..Rules::DEFAULT
        }
    }

    /// The same with what an engine's configuration adds to the options of its mounts:
    /// `nodev,metacopy=on`. What is no value of overlay's keeps no mount from being made that there
    /// is, and changes nothing.
    pub fn with_options(self, options: &str) -> Rules {
        let mut rules = self;
        for option in options.split(',').map(str::trim) {
            match option {
                "userxattr" => rules = Rules::of(Namespace::User),
                "metacopy=on" => rules.metacopy = true,
                "metacopy=off" => rules.metacopy = false,
                "redirect_dir=nofollow" => rules.follows_redirects = false,
                "redirect_dir=on" | "redirect_dir=follow" | "redirect_dir=off" => {
                    rules.follows_redirects = true;
                }
                _ => {}
            }
        }
        // With userxattr the kernel takes neither.
        let is_user = rules.namespace == Namespace::User;
        rules.follows_redirects &= !is_user;
        rules.metacopy &= !is_user;
        rules
    }
}

/// What the options of an overlay mount say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The upper directory, if the overlay can be written to.
    pub upper: Option<Bytes>,
    /// The upper directory with its backslashes as they are: where it was given to the kernel as an
    /// open directory, none of them is an escape.
    pub upper_as_shown: Option<Bytes>,
    /// The lower directories, topmost first.
    pub lowers: Vec<Bytes>,
    /// The directories below them that give the content of files only.
    pub data: Vec<Bytes>,
    /// Which marks the overlay heeds.
    pub rules: Rules,
}

impl Options {
    /// The branches, topmost first.
    pub fn branches(&self) -> Vec<BranchSpec> {
        let branch = |path: &Bytes, permission| BranchSpec {
            path: path.clone(),
            permission,
        };
        let upper = self.upper.iter().map(|path| branch(path, Permission::RW));
        let below = self.lowers.iter().chain(&self.data);
        upper
            .chain(below.map(|path| branch(path, Permission::RO)))
            .collect()
    }
}

/// The options by which a person's argument is known to spell an overlay.
const OPENING: [&[u8]; 5] = [
    b"lowerdir=",
    b"lowerdir+=",
    b"datadir+=",
    b"upperdir=",
    b"userxattr,",
];

/// Whether an argument spells an overlay rather than names one.
pub fn is_spelled(text: &[u8]) -> bool {
    if spelled_fuse(text).is_some() || OPENING.iter().any(|opening| text.starts_with(opening)) {
        return true;
    }
    // Pasted from a mount table, where others stand before.
    let is_path = text.starts_with(b"/") || text.starts_with(b".");
    let mut options = text.split(|&byte| byte == b',').skip(1);
    !is_path
        && options
            .any(|option| option.starts_with(b"lowerdir=") || option.starts_with(b"lowerdir+="))
}

/// The most branches that the kernel stacks below the upper one.
pub const LOWERS_MAX: usize = 500;

/// Reads the options as a person types them.
///
/// # Errors
/// Says what is wrong with them.
pub fn parse(text: &[u8]) -> Result<Options, String> {
    let options = split_unescaped(text, b',');
    // The kernel refuses others, too: a slip of the pen would be another stack.
    known("overlay", &options, &OPTIONS)?;
    read(options.into_iter(), Rules::DEFAULT)
}

/// Sees that every option is one of a file system's own, or of any mount.
fn known(whose: &str, options: &[&[u8]], own: &[&str]) -> Result<(), String> {
    for option in options {
        let key = option.split(|&byte| byte == b'=').next().unwrap_or(option);
        let mut all = own.iter().chain(&MOUNT_OPTIONS);
        if !key.is_empty() && !all.any(|of| of.as_bytes() == key) {
            let key = crate::bytes::escape(key);
            return Err(format!("{key}: {whose} has no such option"));
        }
    }
    Ok(())
}

/// The options of overlay, as the kernel has them (6.18).
const OPTIONS: [&str; 17] = [
    "lowerdir",
    "lowerdir+",
    "datadir+",
    "upperdir",
    "workdir",
    "default_permissions",
    "redirect_dir",
    "index",
    "uuid",
    "nfs_export",
    "userxattr",
    "xino",
    "metacopy",
    "verity",
    "volatile",
    "override_creds",
    "nooverride_creds",
];

/// What any mount can have, and so a line of a mount table that is copied here.
const MOUNT_OPTIONS: [&str; 21] = [
    "rw",
    "ro",
    "defaults",
    "nosuid",
    "suid",
    "nodev",
    "dev",
    "noexec",
    "exec",
    "noatime",
    "relatime",
    "nodiratime",
    "strictatime",
    "lazytime",
    "sync",
    "dirsync",
    "seclabel",
    "context",
    "fscontext",
    "defcontext",
    "rootcontext",
];

/// The options of fuse-overlayfs, as the program and its manual have them.
const FUSE_OPTIONS: [&str; 30] = [
    "lowerdir",
    "upperdir",
    "workdir",
    "redirect_dir",
    "context",
    "uidmapping",
    "gidmapping",
    "timeout",
    "threaded",
    "fsync",
    "fast_ino",
    "writeback",
    "noxattrs",
    "plugins",
    "xattr_permissions",
    "squash_to_root",
    "squash_to_uid",
    "squash_to_gid",
    "static_nlink",
    "volatile",
    "noacl",
    "xino",
    "ino32_t",
    "clone_fd",
    "max_threads",
    "max_idle_threads",
    "allow_root",
    "allow_other",
    "default_permissions",
    "fsname",
];

/// Reads the options of fuse-overlayfs as a person types them. One that the program does not know it ignores
/// (docs/facts.md#engines-20); a slip of the pen would be another stack.
///
/// # Errors
/// Says what is wrong with them.
pub fn parse_fuse_spelled(text: &[u8]) -> Result<Options, String> {
    let options = split_unescaped(text, b',');
    known("fuse-overlayfs", &options, &FUSE_OPTIONS)?;
    parse_fuse(text)
}

/// Reads the options of fuse-overlayfs. A backslash protects a comma, but never a colon; of the
/// kernel's options it knows only the directories.
///
/// # Errors
/// Says what is wrong with them.
pub fn parse_fuse(text: &[u8]) -> Result<Options, String> {
    let mut options = Options {
        upper: None,
        upper_as_shown: None,
        lowers: Vec::new(),
        data: Vec::new(),
        rules: Rules::DEFAULT,
    };
    for option in split_unescaped(text, b',') {
        let option = unescape_as_fuse(option);
        if let Some(value) = option.strip_prefix(b"lowerdir=") {
            let pieces = value
                .split(|&byte| byte == b':')
                .filter(|piece| !piece.is_empty());
            options.lowers = pieces.map(Bytes::from).collect();
        } else if let Some(value) = option.strip_prefix(b"upperdir=") {
            options.upper = Some(path(value)?);
        }
    }
    if options.lowers.is_empty() {
        Err("fuse-overlayfs is spelled fuse-overlayfs:lowerdir=DIR:DIR...,upperdir=DIR".into())
    } else {
        Ok(options)
    }
}

/// A backslash takes the next byte as it is, or three octal digits as a byte: in one pass.
fn unescape_as_fuse(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        match (first, tail) {
            (b'\\', [b'0'..=b'3', b'0'..=b'7', b'0'..=b'7', after @ ..]) => {
                plain.extend(unescape_octal(&[&b"\\"[..], &tail[..3]].concat()));
                rest = after;
            }
            (b'\\', [next, after @ ..]) => {
                plain.push(*next);
                rest = after;
            }
            _ => plain.push(first),
        }
    }
    plain
}

/// The options by which a person spells a stack of fuse-overlayfs.
pub fn spelled_fuse(text: &[u8]) -> Option<&[u8]> {
    text.strip_prefix(b"fuse-overlayfs:")
}

/// Reads the options as a mount table shows them. `defaults` are the kernel's own, which a mount
/// table leaves out.
///
/// # Errors
/// Says what is wrong with them.
pub fn parse_mounted(text: &[u8], defaults: Rules) -> Result<Options, String> {
    // A comma of a directory's name is escaped.
    let options: Vec<Vec<u8>> = text
        .split(|&byte| byte == b',')
        .map(unescape_octal)
        .collect();
    read(options.iter().map(Vec::as_slice), defaults)
}

fn read<'o>(all: impl Iterator<Item = &'o [u8]>, defaults: Rules) -> Result<Options, String> {
    let mut options = Options {
        upper: None,
        upper_as_shown: None,
        lowers: Vec::new(),
        data: Vec::new(),
        rules: defaults,
    };
    let (mut redirects, mut metacopy) = (None, None);
    for option in all {
        let (key, value) = match option.iter().position(|&byte| byte == b'=') {
            Some(at) => (&option[..at], &option[at + 1..]),
            None => (option, &b""[..]),
        };
        match key {
            b"lowerdir" => (options.lowers, options.data) = lowers(value)?,
            b"lowerdir+" => options.lowers.push(path(value)?),
            b"datadir+" => options.data.push(path(value)?),
            b"upperdir" => {
                options.upper = Some(path(&unescape(value))?);
                options.upper_as_shown = Some(Bytes::from(value));
            }
            b"userxattr" => options.rules.namespace = Namespace::User,
            b"redirect_dir" => {
                redirects = match value {
                    b"nofollow" => Some(false),
                    b"on" | b"follow" | b"off" => Some(true),
                    _ => return Err(unknown(option)),
                }
            }
            b"metacopy" => {
                metacopy = match value {
                    b"on" => Some(true),
                    b"off" => Some(false),
                    _ => return Err(unknown(option)),
                }
            }
            _ => {}
        }
    }
    if options.lowers.is_empty() {
        return Err("an overlay is spelled lowerdir=DIR:DIR...,upperdir=DIR".into());
    }
    // With userxattr the kernel takes neither, whatever its own defaults are.
    let is_user = options.rules.namespace == Namespace::User;
    options.rules.follows_redirects = redirects.unwrap_or(defaults.follows_redirects) && !is_user;
    options.rules.metacopy = metacopy.unwrap_or(defaults.metacopy) && !is_user;
    Ok(options)
}

fn unknown(option: &[u8]) -> String {
    format!(
        "{}: overlay has no such value",
        crate::bytes::escape(option)
    )
}

fn path(value: &[u8]) -> Result<Bytes, String> {
    if value.is_empty() {
        Err("an overlay's directory has no name".into())
    } else {
        Ok(Bytes::from(value))
    }
}

/// `a:b::c`: lower branches, and after `::` those for content only.
fn lowers(value: &[u8]) -> Result<(Vec<Bytes>, Vec<Bytes>), String> {
    let (mut lowers, mut data) = (Vec::new(), Vec::new());
    // Two colons before a branch of data, one before any other.
    let mut is_data = false;
    for piece in split_unescaped(value, b':') {
        if piece.is_empty() && !lowers.is_empty() && !is_data {
            is_data = true;
            continue;
        }
        let piece = path(&unescape(piece))?;
        if is_data {
            data.push(piece);
        } else if data.is_empty() {
            lowers.push(piece);
        } else {
            return Err("below a branch for content only there are no others".into());
        }
        is_data = false;
    }
    if is_data {
        return Err("a colon at the end of lowerdir= begins no directory".into());
    }
    Ok((lowers, data))
}

/// The pieces between separators that no backslash protects.
fn split_unescaped(text: &[u8], separator: u8) -> Vec<&[u8]> {
    let mut pieces = Vec::new();
    let (mut start, mut at) = (0, 0);
    while at < text.len() {
        match text[at] {
            b'\\' => at += 1,
            byte if byte == separator => {
                pieces.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
        at += 1;
    }
    pieces.push(&text[start..]);
    pieces
}

fn unescape(text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    let mut bytes = text.iter();
    while let Some(&byte) = bytes.next() {
        match byte {
            b'\\' => plain.push(*bytes.next().unwrap_or(&byte)),
            _ => plain.push(byte),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(paths: &[&str]) -> Vec<Bytes> {
        paths.iter().map(|path| Bytes::from(*path)).collect()
    }

    #[test]
    fn options_as_kernels_and_people_write_them() {
        // docs/facts.md#engines-58
        let options =
            parse(br"rw,lowerdir=/a\:b:/c d:/e\,f:/g\\h,upperdir=/u:1,workdir=/w").unwrap();
        assert_eq!(options.lowers, paths(&["/a:b", "/c d", "/e,f", r"/g\h"]));
        assert_eq!(options.upper, Some(Bytes::from("/u:1")));
        assert_eq!(options.rules, Rules::DEFAULT);

        let options =
            parse(b"lowerdir+=/a:b,lowerdir+=/c,datadir+=/d,redirect_dir=nofollow").unwrap();
        assert_eq!(options.lowers, paths(&["/a:b", "/c"]));
        assert_eq!(options.data, paths(&["/d"]));
        assert!(!options.rules.follows_redirects);

        let options = parse(b"lowerdir=a:b::c::d,metacopy=on").unwrap();
        assert_eq!(options.lowers, paths(&["a", "b"]));
        assert_eq!(options.data, paths(&["c", "d"]));
        assert!(options.rules.metacopy);

        let options = parse(b"userxattr,lowerdir=a,metacopy=on").unwrap();
        assert_eq!(options.rules.namespace, Namespace::User);
        assert!(!options.rules.metacopy && !options.rules.follows_redirects);
        assert_eq!(options.branches().len(), 1);

        for bad in [
            &b"upperdir=/u"[..],
            b"lowerdir=",
            b"lowerdir=a,redirect_dir=maybe",
        ] {
            assert!(parse(bad).is_err(), "{}", crate::bytes::escape(bad));
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
            let _ = parse(&bytes);
        }
    }
}
