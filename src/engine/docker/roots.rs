//! Finding Docker's data directories.

use rustix::io::Errno;

use super::{Docker, config};
use crate::bytes::Bytes;
use crate::dir::Kind;
use crate::engine::interface::{FoundEngine, Search};
use crate::engine::problems::Problems;
use crate::engine::roots::{EngineOption, Roots, Value};
use crate::error::Error;
use crate::host::Host;
use crate::overlay::Namespace;
use crate::union::Follow;

const DEFAULT_ROOT: &str = "/var/lib/docker";
const ROOT: &str = "docker-root";

pub(super) const OPTIONS: &[EngineOption] = &[EngineOption {
    name: ROOT,
    short: None,
    help: "Docker's data directory, where it is elsewhere or all that is there",
    value: Value::Path,
    requires: None,
}];

/// The data directory that the person named, that `daemon.json` names, or the default; and those
/// in it that belong to remapped users.
pub(super) fn find<'h>(host: &'h Host, roots: &Roots, search: &Search) -> Vec<FoundEngine<'h>> {
    let problems = Problems::default();
    let daemon = config::read(host, &search.problems);
    let named = roots.option(ROOT).cloned().or_else(|| daemon.root());
    let is_named = named.is_some();
    let root = named.unwrap_or_else(|| Bytes::from(DEFAULT_ROOT));
    search.looked_at(&root);
    // A directory that was named, or to which a link leads, has to be there.
    let is_link = || {
        host.lookup(root.as_bytes(), Follow::NotLast)
            .is_ok_and(|found| found.entry.kind().is_some())
    };
    let mut namespace = Namespace::Trusted;
    match host.stat(&root) {
        Ok(Some(stat)) if stat.uid != 0 => namespace = Namespace::User,
        Ok(Some(_)) => {}
        Ok(None) if is_named || is_link() => {
            problems.note(Error::io(root.clone(), Errno::NOENT));
        }
        Ok(None) => {}
        Err(error) => problems.note(error),
    }
    let names = host.list(&root).unwrap_or_default().into_iter();
    let remapped = names.filter(|(name, kind)| *kind == Kind::Directory && is_remapped(name));
    let others = remapped.map(|(name, _)| {
        let root = root.join(&name);
        (root, Namespace::Trusted, Problems::default())
    });
    let mut all = vec![(root.clone(), namespace, problems)];
    all.extend(others);
    let found = all.into_iter().map(|(root, namespace, problems)| {
        let docker = Docker {
            namespace,
            configured_driver: daemon.storage_driver.clone(),
            ..Docker::new(host, root, problems.clone())
        };
        FoundEngine {
            engine: Box::new(docker),
            problems,
        }
    });
    found.collect()
}

/// The directory of remapped users is called `<uid>.<gid>`.
fn is_remapped(name: &[u8]) -> bool {
    let is_number = |text: &[u8]| !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    let parts: Vec<&[u8]> = name.split(|&byte| byte == b'.').collect();
    matches!(parts.as_slice(), [uid, gid] if is_number(uid) && is_number(gid))
}
