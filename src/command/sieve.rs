//! What `find` is asked for: patterns of names and paths, and tests of what has them.

use std::io::Read;
use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use regex::bytes::{Regex, RegexBuilder};
use sha2::{Digest, Sha256};

use crate::bytes::Bytes;
use crate::dir::{Kind, Stat};
use crate::engine::inventory::is_hex_id;
use crate::error::{Error, Result, errno_of};
use crate::forest::Sight;

/// How a pattern is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Syntax {
    Glob,
    Regex,
    Fixed,
}

/// Names, or paths where the pattern has a slash.
pub struct Pattern {
    regex: Regex,
    of_path: bool,
}

impl Pattern {
    /// # Errors
    /// The pattern is none.
    pub fn new(typed: &str, syntax: Syntax, ignores_case: bool) -> Result<Pattern> {
        let fail = |why: String| Error::Usage(format!("{typed}: is no pattern: {why}"));
        let of_path = typed.contains('/');
        let regex = match syntax {
            Syntax::Regex => typed.to_owned(),
            Syntax::Fixed => regex::escape(typed),
            Syntax::Glob => {
                // A path is matched from the root on, unless the pattern says otherwise.
                let rooted = if of_path && !typed.starts_with(['/', '*']) {
                    format!("**/{typed}")
                } else {
                    typed.to_owned()
                };
                let mut glob = globset::GlobBuilder::new(&rooted);
                let glob = glob.literal_separator(true).backslash_escape(true);
                glob.build()
                    .map_err(|error| fail(error.to_string()))?
                    .regex()
                    .to_owned()
            }
        };
        let mut builder = RegexBuilder::new(&regex);
        builder
            .case_insensitive(ignores_case)
            .unicode(syntax != Syntax::Glob);
        if syntax == Syntax::Glob {
            builder.dot_matches_new_line(true);
        }
        let regex = builder.build().map_err(|error| fail(error.to_string()))?;
        Ok(Pattern { regex, of_path })
    }

    /// Whether a name can be meant.
    pub fn may_be(&self, name: &[u8]) -> bool {
        self.of_path || self.regex.is_match(name)
    }

    fn is_match(&self, name: &[u8], path: &Bytes) -> bool {
        let text = if self.of_path { path.as_bytes() } else { name };
        self.regex.is_match(text)
    }
}

/// A size that is asked for, in bytes.
#[derive(Debug, Clone, Copy)]
pub enum Size {
    AtLeast(u64),
    AtMost(u64),
    Exactly(u64),
}

/// `+10M`, `-4k`, `512`.
///
/// # Errors
/// It is no size.
pub fn size(typed: &str) -> std::result::Result<Size, String> {
    let (sign, rest) = match typed.split_at_checked(1) {
        Some(("+", rest)) => ('+', rest),
        Some(("-", rest)) => ('-', rest),
        _ => ('=', typed),
    };
    let end = rest
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(rest.len());
    let number: u64 = rest[..end]
        .parse()
        .map_err(|_| "say +10M, -4k or 512".to_owned())?;
    let unit = match rest[end..].to_ascii_lowercase().as_str() {
        "" | "b" | "c" => 1,
        "k" | "kb" => 1000,
        "ki" | "kib" => 1 << 10,
        "m" | "mb" => 1_000_000,
        "mi" | "mib" => 1 << 20,
        "g" | "gb" => 1_000_000_000,
        "gi" | "gib" => 1 << 30,
        "t" | "tb" => 1_000_000_000_000,
        "ti" | "tib" => 1 << 40,
        _ => return Err("units are b, k, M, G, T, and Ki, Mi, Gi, Ti".into()),
    };
    let size = number.checked_mul(unit).ok_or("no file is so large")?;
    Ok(match sign {
        '+' => Size::AtLeast(size),
        '-' => Size::AtMost(size),
        _ => Size::Exactly(size),
    })
}

/// `2h`, `3d`, or a date, in UTC unless it says otherwise: seconds since 1970.
///
/// # Errors
/// It is neither.
pub fn newer(typed: &str) -> std::result::Result<i64, String> {
    if let Ok(time) = typed.parse::<Timestamp>() {
        return Ok(time.as_second());
    }
    if let Ok(date) = typed.parse::<DateTime>() {
        let time = TimeZone::UTC.to_timestamp(date);
        return time
            .map(|of| of.as_second())
            .map_err(|error| error.to_string());
    }
    let usage =
        || "say how long ago (30min, 2h, 3d) or a date (2026-01-31, 2026-01-31T12:00Z)".to_owned();
    let ago = seconds(typed).ok_or_else(usage)?;
    Ok(Timestamp::now().as_second().saturating_sub(ago))
}

/// `30s`, `2h`, `1h30min`: a time without a unit is none.
///
/// # Errors
/// It is none, or no time at all.
pub fn period(typed: &str) -> std::result::Result<Duration, String> {
    let period = seconds(typed).and_then(|seconds| u64::try_from(seconds).ok());
    let period = period.filter(|seconds| *seconds > 0);
    let period = period.ok_or("say how often: 30s, 5min, 2h, 1h30min, 1d")?;
    Ok(Duration::from_secs(period))
}

/// The sum of one or more numbers with units.
fn seconds(typed: &str) -> Option<i64> {
    let is_digit = |c: char| c.is_ascii_digit();
    let mut rest = typed;
    let mut sum = 0i64;
    loop {
        let (count, with_unit) = rest.split_at(rest.find(|c| !is_digit(c))?);
        let (unit, others) =
            with_unit.split_at(with_unit.find(is_digit).unwrap_or(with_unit.len()));
        let unit = match unit {
            "s" | "sec" => 1,
            "m" | "min" => 60,
            "h" | "hour" | "hours" => 3600,
            "d" | "day" | "days" => 86_400,
            "w" | "week" | "weeks" => 604_800,
            _ => return None,
        };
        let part = count.parse::<i64>().ok()?.saturating_mul(unit);
        sum = sum.saturating_add(part);
        rest = others;
        if rest.is_empty() {
            return Some(sum);
        }
    }
}

/// An owner, or a group, or both.
#[derive(Debug, Clone, Copy)]
pub struct Owner {
    uid: Option<u32>,
    gid: Option<u32>,
}

/// `UID`, `UID:GID`, `:GID`.
///
/// # Errors
/// They are no numbers.
pub fn owner(typed: &str) -> std::result::Result<Owner, String> {
    let (uid, gid) = typed.split_once(':').unwrap_or((typed, ""));
    let number = |text: &str| match text {
        "" => Ok(None),
        text => text
            .parse()
            .map(Some)
            .map_err(|_| "an owner is UID[:GID], in numbers: names are the container's".to_owned()),
    };
    Ok(Owner {
        uid: number(uid)?,
        gid: number(gid)?,
    })
}

/// Permissions as find(1) has them.
#[derive(Debug, Clone, Copy)]
pub enum Permissions {
    Exactly(u32),
    All(u32),
    Any(u32),
}

/// `/6000`: any of them; `-644`: all of them; `644`: these.
///
/// # Errors
/// It is no octal number.
pub fn permissions(typed: &str) -> std::result::Result<Permissions, String> {
    let octal = |text: &str| {
        let mode = u32::from_str_radix(text, 8)
            .ok()
            .filter(|mode| *mode <= 0o7777);
        mode.ok_or_else(|| "say an octal mode: /6000, -644 or 755".to_owned())
    };
    match typed.split_at_checked(1) {
        Some(("/", rest)) => octal(rest).map(Permissions::Any),
        Some(("-", rest)) => octal(rest).map(Permissions::All),
        _ => octal(typed).map(Permissions::Exactly),
    }
}

/// A hash, in hexadecimal.
///
/// # Errors
/// It is none.
pub fn sha256(typed: &str) -> std::result::Result<[u8; 32], String> {
    let digits = typed.strip_prefix("sha256:").unwrap_or(typed);
    let mut hash = [0; 32];
    if !is_hex_id(digits) {
        return Err("a SHA-256 has 64 hexadecimal digits".into());
    }
    for (byte, at) in hash.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(&digits[at..at + 2], 16).unwrap_or_default();
    }
    Ok(hash)
}

/// Everything that is asked of a version.
#[derive(Default)]
pub struct Sieve {
    pub pattern: Option<Pattern>,
    /// The letters of `-t`.
    pub types: Vec<char>,
    pub size: Option<Size>,
    /// Seconds since 1970.
    pub newer: Option<i64>,
    pub owner: Option<Owner>,
    pub permissions: Option<Permissions>,
    pub sha256: Option<[u8; 32]>,
}

impl Sieve {
    /// Whether a version is one that is asked for; then what `lstat` says of it.
    ///
    /// # Errors
    /// It cannot be looked at.
    pub fn pass(&self, sight: &Sight<'_, '_>, path: &Bytes) -> Result<Option<Stat>> {
        let is_named = self
            .pattern
            .as_ref()
            .is_none_or(|of| of.is_match(sight.name, path));
        if !is_named || !self.is_of_type(sight.kind) {
            return Ok(None);
        }
        let stat = sight.place.stat(sight.branch, sight.name)?;
        let is_executable = sight.kind == Kind::File && stat.mode & 0o111 != 0;
        if self.types.contains(&'x') && !is_executable && !self.has_letter(sight.kind) {
            return Ok(None);
        }
        let is_of_size = self.size.is_none_or(|size| {
            sight.kind == Kind::File
                && match size {
                    Size::AtLeast(least) => stat.size >= least,
                    Size::AtMost(most) => stat.size <= most,
                    Size::Exactly(size) => stat.size == size,
                }
        });
        let is_newer = self.newer.is_none_or(|since| stat.mtime.0 > since);
        let is_owned = self.owner.is_none_or(|owner| {
            owner.uid.is_none_or(|uid| uid == stat.uid)
                && owner.gid.is_none_or(|gid| gid == stat.gid)
        });
        let is_permitted = self.permissions.is_none_or(|wanted| match wanted {
            Permissions::Exactly(mode) => stat.mode == mode,
            Permissions::All(mode) => stat.mode & mode == mode,
            Permissions::Any(mode) => mode == 0 || stat.mode & mode != 0,
        });
        let is_it =
            is_of_size && is_newer && is_owned && is_permitted && self.has_content(sight)?;
        Ok(is_it.then_some(stat))
    }

    fn is_of_type(&self, kind: Kind) -> bool {
        let may_be_executable = kind == Kind::File && self.types.contains(&'x');
        self.types.is_empty() || may_be_executable || self.has_letter(kind)
    }

    fn has_letter(&self, kind: Kind) -> bool {
        let letter = match kind {
            Kind::File => 'f',
            Kind::Directory => 'd',
            Kind::Symlink => 'l',
            Kind::Char => 'c',
            Kind::Block => 'b',
            Kind::Fifo => 'p',
            Kind::Socket => 's',
        };
        self.types.contains(&letter)
    }

    /// Whether the content has the hash that is asked for. It is read last of all.
    fn has_content(&self, sight: &Sight<'_, '_>) -> Result<bool> {
        let Some(wanted) = self.sha256 else {
            return Ok(true);
        };
        if sight.kind != Kind::File {
            return Ok(false);
        }
        let mut file = sight
            .place
            .open_content(sight.branch, sight.name, sight.data)?;
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; 128 << 10];
        loop {
            match file.read(&mut buffer) {
                Ok(0) => return Ok(hasher.finalize()[..] == wanted),
                Ok(count) => hasher.update(&buffer[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let path = sight.place.on_host(sight.branch, sight.name);
                    return Err(Error::io(path, errno_of(&error)));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_match(pattern: &str, syntax: Syntax, path: &str) -> bool {
        let pattern = Pattern::new(pattern, syntax, false).unwrap();
        let path = Bytes::from(path);
        pattern.is_match(path.file_name(), &path)
    }

    #[test]
    fn a_pattern_without_a_slash_is_of_names() {
        for (pattern, path, is_it) in [
            ("*.conf", "/etc/a.conf", true),
            ("*.conf", "/etc/a.conf.d", false),
            ("a?b", "/x/a-b", true),
            ("[!a]*", "/x/b", true),
            ("etc", "/etc/passwd", false),
            ("/etc/*", "/etc/passwd", true),
            ("/etc/*", "/etc/apt/x", false),
            ("/etc/**", "/etc/apt/x", true),
            ("apt/*", "/etc/apt/x", true),
            ("**/x", "/etc/apt/x", true),
            ("{a,b}.txt", "/b.txt", true),
        ] {
            assert_eq!(
                is_match(pattern, Syntax::Glob, path),
                is_it,
                "{pattern} {path}"
            );
        }
        assert!(is_match("^lib.*so$", Syntax::Regex, "/usr/libc.so"));
        assert!(is_match("etc/.*sh", Syntax::Regex, "/etc/a.sh"));
        assert!(is_match("a.b", Syntax::Fixed, "/xa.bx"));
        assert!(!is_match("a.b", Syntax::Fixed, "/axb"));
    }

    #[test]
    fn sizes_owners_and_modes_are_read() {
        assert!(matches!(size("+10M"), Ok(Size::AtLeast(10_000_000))));
        assert!(matches!(size("-4Ki"), Ok(Size::AtMost(4096))));
        assert!(matches!(size("7"), Ok(Size::Exactly(7))));
        assert!(size("10X").is_err() && size("").is_err() && size("+").is_err());
        assert!(matches!(
            owner("0:7"),
            Ok(Owner {
                uid: Some(0),
                gid: Some(7)
            })
        ));
        assert!(matches!(
            owner(":7"),
            Ok(Owner {
                uid: None,
                gid: Some(7)
            })
        ));
        assert!(owner("root").is_err());
        assert!(matches!(permissions("/6000"), Ok(Permissions::Any(0o6000))));
        assert!(permissions("9").is_err() && permissions("77777").is_err());
        for (typed, seconds) in [
            ("30s", Some(30)),
            ("5min", Some(300)),
            ("1h30m", Some(5400)),
            ("1d", Some(86_400)),
            ("0s", None),
            ("5", None),
            ("1h30", None),
            ("h", None),
            ("", None),
            ("-5s", None),
            ("5 s", None),
        ] {
            let period = period(typed).ok().map(|period| period.as_secs());
            assert_eq!(period, seconds, "{typed}");
        }
        assert!(newer("2h").is_ok() && newer("2026-01-31").is_ok() && newer("soon").is_err());
        assert!(sha256(&"ab".repeat(32)).is_ok() && sha256("ab").is_err());
    }
}
