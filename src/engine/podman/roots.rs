//! Finding the stores of the machine and of its users.

use super::Podman;
use super::config::{self, Storage};
use crate::bytes::Bytes;
use crate::dir::{self, Kind};
use crate::engine::interface::{FoundEngine, Search};
use crate::engine::inventory::is_id;
use crate::engine::problems::Problems;
use crate::engine::roots::{EngineOption, Roots, Value, Variable};
use crate::error::Error;
use crate::host::Host;
use crate::overlay::Namespace;

const ROOT: &str = "/var/lib/containers/storage";
/// Where users have theirs, as it is told.
const USERS_PLACE: &str = "~/.local/share/containers/storage";
const RUN_ROOT: &str = "/run/containers/storage";
/// The machine's own configuration: the first that is there counts.
const SYSTEM_CONFIGURATIONS: [&str; 2] = [
    "/etc/containers/storage.conf",
    "/usr/share/containers/storage.conf",
];
/// What goes before them, key by key.
const DROP_INS: [&str; 2] = [
    "/usr/share/containers/storage.conf.d",
    "/etc/containers/storage.conf.d",
];
const OPTION: &str = "storage-root";
const CONFIGURATION: &str = "CONTAINERS_STORAGE_CONF";

pub(super) const OPTIONS: &[EngineOption] = &[EngineOption {
    name: OPTION,
    short: None,
    help: "The graph root of containers-storage (Podman, buildah, CRI-O): the only one looked at",
    value: Value::Path,
    requires: None,
}];

/// Its value names the `storage.conf` that counts before the machine's own.
pub(super) const VARIABLES: &[Variable] = &[Variable {
    name: CONFIGURATION,
    value: Value::Path,
}];

/// A graph root, and what belongs to it.
struct Configured {
    root: Bytes,
    /// How it is told where it is one of many: every user has the same.
    place: Option<Bytes>,
    run_root: Option<Bytes>,
    storage: Storage,
}

/// A user of the host.
struct User {
    id: u32,
    home: Bytes,
    name: String,
}

/// The stores of the machine and of its users, as far as there are any.
pub(super) fn find<'h>(host: &'h Host, roots: &Roots, search: &Search) -> Vec<FoundEngine<'h>> {
    if let Some(root) = roots.option(OPTION) {
        let configured = Configured {
            root: root.clone(),
            place: None,
            run_root: None,
            storage: Storage::default(),
        };
        search.looked_at(root);
        let stores = stores_of(host, &configured, &[]);
        if stores.is_empty() {
            // A directory that was named has to be one.
            let what = "is no graph root of containers-storage";
            return vec![unread(host, root, Error::damaged(root.clone(), what))];
        }
        return stores;
    }
    let mut found: Vec<FoundEngine<'h>> = Vec::new();
    for configured in configured(host, roots, &search.problems) {
        search.looked_at(configured.place.as_ref().unwrap_or(&configured.root));
        let is_known = |store: &FoundEngine<'h>| *store.engine.root() == configured.root;
        if found.iter().any(is_known) {
            continue;
        }
        let storage = &configured.storage;
        let additional = storage.options.additionalimagestores.iter();
        let additional = additional.map(|path| Bytes::from(path.as_str()));
        let own = path(storage.imagestore.as_ref()).into_iter();
        let image_stores: Vec<Bytes> = own.chain(additional).collect();
        found.extend(stores_of(host, &configured, &image_stores));
    }
    found
}

/// The graph roots that the machine and its users have, by configuration or by default.
fn configured(host: &Host, roots: &Roots, problems: &Problems) -> Vec<Configured> {
    let read = |paths: &[Bytes]| {
        config::read_first(host, paths).unwrap_or_else(|error| {
            problems.note(error);
            Storage::default()
        })
    };
    let named = roots.variable(CONFIGURATION).cloned();
    let files = named
        .into_iter()
        .chain(SYSTEM_CONFIGURATIONS.map(Bytes::from));
    let mut of_system = read(&files.collect::<Vec<Bytes>>());
    of_system.take_drop_ins(host, &DROP_INS.map(Bytes::from), problems);
    let root = path(of_system.graphroot.as_ref()).unwrap_or_else(|| Bytes::from(ROOT));
    let run_root = path(of_system.runroot.as_ref()).unwrap_or_else(|| Bytes::from(RUN_ROOT));
    let mut all = vec![Configured {
        root,
        place: None,
        run_root: Some(run_root),
        storage: of_system.clone(),
    }];
    for user in users(host, problems) {
        if roots.caller.is_some_and(|caller| caller != user.id) || user.id == 0 {
            continue;
        }
        let own = user.below_home(&[".config", "containers", "storage.conf"]);
        // One that cannot be looked for may say anything.
        let mut storage = if matches!(host.stat(&own), Ok(None)) {
            Storage {
                graphroot: None,
                runroot: None,
                ..of_system.clone()
            }
        } else {
            read(&[own])
        };
        let drop_ins = user.below_home(&[".config", "containers", "storage.conf.d"]);
        storage.take_drop_ins(host, &[drop_ins], problems);
        let rootless = storage.rootless_storage_path.as_ref();
        let expanded = rootless.map(|path| user.expand(path));
        let configured = path(storage.graphroot.as_ref()).or_else(|| path(expanded.as_ref()));
        let place = configured.is_none().then(|| Bytes::from(USERS_PLACE));
        let root = configured
            .unwrap_or_else(|| user.below_home(&[".local", "share", "containers", "storage"]));
        let run_root = path(storage.runroot.as_ref())
            .unwrap_or_else(|| Bytes::from(format!("/run/user/{}/containers", user.id)));
        all.push(Configured {
            root,
            place,
            run_root: Some(run_root),
            storage,
        });
    }
    all
}

/// A path that a configuration may leave empty.
fn path(path: Option<&String>) -> Option<Bytes> {
    path.filter(|path| !path.is_empty())
        .map(|path| Bytes::from(path.as_str()))
}

/// A store for each driver that one graph root has been used with.
fn stores_of<'h>(
    host: &'h Host,
    configured: &Configured,
    image_stores: &[Bytes],
) -> Vec<FoundEngine<'h>> {
    let Configured {
        root,
        run_root,
        storage,
        ..
    } = configured;
    let names = match host.list(root) {
        Ok(names) => names.into_iter(),
        // Whether it is one cannot be told.
        Err(error) => return vec![unread(host, root, error)],
    };
    let drivers = names.filter_map(|(name, kind)| {
        let driver = name
            .strip_suffix(b"-layers")
            .or_else(|| name.strip_suffix(b"-containers"))?;
        let driver = String::from_utf8(driver.to_vec()).ok()?;
        (kind == Kind::Directory && is_id(&driver)).then_some(driver)
    });
    let mut drivers: Vec<String> = drivers.collect();
    drivers.sort_unstable();
    drivers.dedup();
    // The one that is configured comes first.
    drivers.sort_by_key(|driver| storage.driver.as_ref() != Some(driver));
    // In a user namespace its own store has root as its owner, and the user's marks.
    let is_inside = host.is_live() && dir::is_in_user_namespace();
    let owner = host.stat(root).ok().flatten();
    let is_users = is_inside || owner.is_some_and(|stat| stat.uid != 0);
    let stores = drivers.into_iter().map(|driver| {
        let has_mount_program =
            host.read(&root.join(driver.as_bytes()).join(b".has-mount-program"));
        let has_mount_program = match has_mount_program {
            Ok(text) => text.trim_ascii() == b"true",
            Err(_) => storage.has_mount_program(),
        };
        let problems = Problems::default();
        let podman = Podman {
            run_root: run_root.clone(),
            stores: std::iter::once(root).chain(image_stores).cloned().collect(),
            has_mount_program,
            namespace: if is_users {
                Namespace::User
            } else {
                Namespace::Trusted
            },
            ..Podman::new(host, root.clone(), driver, problems.clone())
        };
        FoundEngine {
            engine: Box::new(podman),
            problems,
        }
    });
    stores.collect()
}

/// A directory of which nothing is known but that it should be a graph root.
fn unread<'h>(host: &'h Host, root: &Bytes, problem: Error) -> FoundEngine<'h> {
    let problems = Problems::default();
    problems.note(problem);
    FoundEngine {
        engine: Box::new(Podman::new(
            host,
            root.clone(),
            "overlay".into(),
            problems.clone(),
        )),
        problems,
    }
}

/// The users that `/etc/passwd` lists, with home directories.
fn users(host: &Host, problems: &Problems) -> Vec<User> {
    let path = Bytes::from("/etc/passwd");
    let bytes = host.read(&path).unwrap_or_else(|error| {
        if !error.is_not_found() {
            problems.note(error);
        }
        Vec::new()
    });
    let lines = bytes.split(|&byte| byte == b'\n');
    let user = |line: &[u8]| {
        let fields: Vec<&[u8]> = line.split(|&byte| byte == b':').collect();
        let home = *fields.get(5)?;
        Some(User {
            name: String::from_utf8_lossy(fields[0]).into_owned(),
            id: std::str::from_utf8(fields.get(2)?).ok()?.parse().ok()?,
            home: Bytes::from(home),
        })
    };
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
    users
}

impl User {
    fn below_home(&self, parts: &[&str]) -> Bytes {
        let parts = parts.iter();
        parts.fold(self.home.clone(), |path, part| path.join(part.as_bytes()))
    }

    fn expand(&self, path: &str) -> String {
        let home = self.home.to_text();
        path.replace("$HOME", &home)
            .replace("$UID", &self.id.to_string())
            .replace("$USER", &self.name)
    }
}
