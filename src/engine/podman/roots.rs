//! Finding the stores of the machine and of its users.

use std::cell::OnceCell;

use super::config::{self, Storage};
use super::crio;
use super::{NAME, Podman};
use crate::bytes::Bytes;
use crate::dir::{self, Kind};
use crate::engine::interface::FoundEngine;
use crate::engine::inventory::is_id;
use crate::engine::problems::Problems;
use crate::engine::roots::{EngineOption, Roots, Value, Variable};
use crate::engine::search::{Search, Why};
use crate::error::Error;
use crate::host::Host;
use crate::overlay::Namespace;

const ROOT: &str = "/var/lib/containers/storage";
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

pub(super) const DAEMONS: &[&str] = &["crio"];

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
    why: Why,
    /// As it was configured.
    run_root: Option<Bytes>,
    /// Where it is if nobody says.
    usual_run_root: Option<Bytes>,
    storage: Storage,
}

/// The stores of the machine and of its users, as far as there are any.
pub(super) fn find<'h>(host: &'h Host, roots: &Roots, search: &Search) -> Vec<FoundEngine<'h>> {
    if let Some(root) = roots.option(OPTION) {
        let configured = Configured {
            root: root.clone(),
            why: Why::Option(OPTION),
            run_root: None,
            usual_run_root: None,
            storage: Storage::default(),
        };
        let stores = stores_of(host, &configured, &[]);
        search.looked_at(NAME, root, Why::Option(OPTION), !stores.is_empty());
        if stores.is_empty() {
            // A directory that was named has to be one.
            let what = "is no graph root of containers-storage";
            return vec![unread(host, root, Error::damaged(root.clone(), what))];
        }
        return stores;
    }
    let mut found: Vec<FoundEngine<'h>> = Vec::new();
    for configured in configured(host, roots, search) {
        let is_known = |store: &FoundEngine<'h>| *store.engine.root() == configured.root;
        if found.iter().any(is_known) {
            continue;
        }
        let storage = &configured.storage;
        let additional = storage.options.additionalimagestores.iter();
        let additional = additional.map(|path| Bytes::from(path.as_str()));
        let own = path(storage.imagestore.as_ref()).into_iter();
        let image_stores: Vec<Bytes> = own.chain(additional).collect();
        let stores = stores_of(host, &configured, &image_stores);
        let Configured { root, why, .. } = configured;
        search.looked_at(NAME, &root, why, !stores.is_empty());
        found.extend(stores);
    }
    found
}

/// The graph roots that the machine and its users have, by configuration or by default.
fn configured(host: &Host, roots: &Roots, search: &Search) -> Vec<Configured> {
    let problems = &search.problems;
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
    let why = match &of_system.graphroot {
        Some(_) => Why::File(Bytes::from("storage.conf")),
        None => Why::Default,
    };
    let mut all = vec![Configured {
        root,
        why,
        run_root: path(of_system.runroot.as_ref()),
        usual_run_root: Some(Bytes::from(RUN_ROOT)),
        storage: of_system.clone(),
    }];
    all.extend(of_crio(host, search));
    for user in search.users(host) {
        if roots.caller.is_some_and(|caller| caller != user.id) || user.id == 0 {
            continue;
        }
        let own = user.below_home(&[".config", "containers", "storage.conf"]);
        // One that cannot be looked for may say anything.
        let mut storage = if !user.has_configuration || matches!(host.stat(&own), Ok(None)) {
            Storage {
                graphroot: None,
                runroot: None,
                ..of_system.clone()
            }
        } else {
            read(&[own])
        };
        if user.has_configuration {
            let drop_ins = user.below_home(&[".config", "containers", "storage.conf.d"]);
            storage.take_drop_ins(host, &[drop_ins], problems);
        }
        let rootless = storage.rootless_storage_path.as_ref();
        let expanded = rootless.map(|path| user.expand(path));
        let configured = path(storage.graphroot.as_ref()).or_else(|| path(expanded.as_ref()));
        let (root, why) = match configured {
            Some(root) => (root, Why::File(Bytes::from("storage.conf"))),
            None if user.has_data => {
                let root = user.below_home(&[".local", "share", "containers", "storage"]);
                (root, Why::Known("a user"))
            }
            None => continue,
        };
        let run_root = path(storage.runroot.as_ref());
        let usual = Bytes::from(format!("/run/user/{}/containers", user.id));
        all.push(Configured {
            root,
            why,
            run_root,
            usual_run_root: Some(usual),
            storage,
        });
    }
    all
}

/// CRI-O's, where that is told to have a store of its own.
fn of_crio(host: &Host, search: &Search) -> Option<Configured> {
    let crio = crio::read(host, &search.problems);
    let command = search.running(host, DAEMONS).next();
    let of_command = command.and_then(|of| Some((of.path(&["--root", "-r"])?, of)));
    let (root, why) = match (of_command, crio.root) {
        (Some((root, command)), _) => {
            let source = command.source.clone();
            (root, Why::Command { source })
        }
        (None, Some((root, file))) => (Bytes::from(root.as_str()), Why::File(file)),
        (None, None) => return None,
    };
    let run_root = path(crio.run_root.as_ref());
    Some(Configured {
        root,
        why,
        run_root,
        usual_run_root: Some(Bytes::from(RUN_ROOT)),
        storage: Storage {
            driver: crio.driver,
            ..Storage::default()
        },
    })
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
        usual_run_root,
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
            run_root: match run_root {
                Some(_) => run_root.clone().into(),
                None => OnceCell::new(),
            },
            usual_run_root: usual_run_root.clone(),
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
