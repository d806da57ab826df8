//! The users of a host: each can have engines of their own.

use crate::bytes::Bytes;
use crate::engine::problems::Problems;
use crate::error::Error;
use crate::host::Host;

/// A user of the host.
#[derive(Debug)]
pub struct User {
    pub id: u32,
    pub name: String,
    pub home: Bytes,
    /// Whether there can be configuration of theirs: `~/.config`.
    pub has_configuration: bool,
    /// Whether there can be data of their programs: `~/.local/share`.
    pub has_data: bool,
}

impl User {
    /// A path in the home directory.
    pub fn below_home(&self, parts: &[&str]) -> Bytes {
        let parts = parts.iter();
        parts.fold(self.home.clone(), |path, part| path.join(part.as_bytes()))
    }

    /// A path that a configuration file has with `$HOME`, `$UID` and `$USER`.
    pub fn expand(&self, path: &str) -> String {
        let home = self.home.to_text();
        path.replace("$HOME", &home)
            .replace("$UID", &self.id.to_string())
            .replace("$USER", &self.name)
    }
}

/// The users that `/etc/passwd` lists, with home directories, one of each home.
pub fn of(host: &Host, problems: &Problems) -> Vec<User> {
    let path = Bytes::from("/etc/passwd");
    let bytes = host.read(&path).unwrap_or_else(|error| {
        if !error.is_not_found() {
            problems.note(error);
        }
        Vec::new()
    });
    let lines = bytes.split(|&byte| byte == b'\n');
    let mut users: Vec<User> = Vec::new();
    for (index, line) in lines.enumerate() {
        // Blank lines and comments are passed over, and so are references to other lists of users.
        if line.trim_ascii().is_empty() || matches!(line[0], b'#' | b'+' | b'-') {
            continue;
        }
        match user(line) {
            Some(user) => users.push(user),
            None => {
                let what = format!("line {} is no user's", index + 1);
                problems.note(Error::damaged(path.clone(), what));
            }
        }
    }
    users.retain(|user| user.home.as_bytes().starts_with(b"/"));
    // Many have no home of their own: `/` and `/nonexistent`.
    users.sort_by(|a, b| a.home.cmp(&b.home));
    users.dedup_by(|a, b| a.home == b.home);
    for user in &mut users {
        user.look(host);
    }
    users
}

fn user(line: &[u8]) -> Option<User> {
    let fields: Vec<&[u8]> = line.split(|&byte| byte == b':').collect();
    let home = *fields.get(5)?;
    Some(User {
        name: String::from_utf8_lossy(fields[0]).into_owned(),
        id: std::str::from_utf8(fields.get(2)?).ok()?.parse().ok()?,
        home: Bytes::from(home),
        has_configuration: false,
        has_data: false,
    })
}

impl User {
    /// Most users have neither, and then nothing else is looked for.
    fn look(&mut self, host: &Host) {
        // One that cannot be looked for may be there.
        let can_be = |path: &Bytes| match host.open_and_keep(path) {
            Ok(()) => true,
            Err(error) => !error.is_not_found(),
        };
        if can_be(&self.home) {
            self.has_configuration = can_be(&self.below_home(&[".config"]));
            self.has_data = can_be(&self.below_home(&[".local", "share"]));
        }
    }
}
