//! Finding the stores of the machine and of its users.

use std::cell::{LazyCell, OnceCell};
use std::thread::sleep;
use std::time::Duration;

use rustix::io::Errno;

use super::config::Storage;
use super::crio;
use super::store::{NAME, Podman};
use crate::bytes::Bytes;
use crate::dir::{self, Kind};
use crate::engine::interface::FoundEngine;
use crate::engine::inventory::is_id;
use crate::engine::problems::Problems;
use crate::engine::roots::{EngineOption, Roots, Value, Variable};
use crate::engine::search::{Search, Why};
use crate::engine::users::User;
use crate::error::{Error, Result};
use crate::host::Host;
use crate::overlay::{Namespace, Rules};

const ROOT: &str = "/var/lib/containers/storage";
const RUN_ROOT: &str = "/run/containers/storage";
/// Where the machine's configuration is; what the second says goes before.
const CONFIGURATIONS: [&str; 2] = ["/usr/share/containers", "/etc/containers"];
/// What counts for users alone; what is for one is in a directory of the user's number.
const ROOTLESS: &[u8] = b"storage.rootless.conf.d";
const OPTION: &str = "storage-root";
const CONFIGURATION: &str = "CONTAINERS_STORAGE_CONF";
const OVERRIDE: &str = "CONTAINERS_STORAGE_CONF_OVERRIDE";

pub(super) const DAEMONS: &[&str] = &["crio"];

pub(super) const OPTIONS: &[EngineOption] = &[EngineOption {
    name: OPTION,
    short: None,
    help: "The graph root of containers-storage (Podman, buildah, CRI-O): the only one looked at",
    value: Value::Path,
    requires: None,
}];

/// The first names the `storage.conf` that takes the place of all others, the second one that goes
/// before all.
pub(super) const VARIABLES: &[Variable] = &[
    Variable {
        name: CONFIGURATION,
        value: Value::Path,
    },
    Variable {
        name: OVERRIDE,
        value: Value::Path,
    },
];

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

impl Configured {
    /// The stores that images are taken from besides.
    fn image_stores(&self) -> Vec<Bytes> {
        let additional = self.storage.options.additionalimagestores.iter();
        let additional = additional.map(|path| Bytes::from(path.as_str()));
        let own = path(self.storage.imagestore.as_ref()).into_iter();
        own.chain(additional).collect()
    }
}

/// A graph root that a person named. What belongs to it is known where it is somebody's, by that
/// one's configuration: a transient store has its records in the run root.
fn named(host: &Host, roots: &Roots, search: &Search, root: &Bytes) -> Configured {
    let real = |path: &Bytes| host.resolve(path).unwrap_or_else(|_| path.clone());
    let mut known = configured(host, roots, search).into_iter();
    let own = known.find(|of| real(&of.root) == real(root));
    let own = own.unwrap_or_else(|| {
        let owner = host.stat(root).ok().flatten();
        Configured {
            root: root.clone(),
            why: Why::Option(OPTION),
            run_root: None,
            usual_run_root: Some(usual_run_root(owner.map_or(0, |stat| stat.uid))),
            storage: Storage::default(),
        }
    });
    Configured {
        root: root.clone(),
        why: Why::Option(OPTION),
        ..own
    }
}

/// Where the run root of a user is, if nobody says.
fn usual_run_root(user: u32) -> Bytes {
    match user {
        0 => Bytes::from(RUN_ROOT),
        user => Bytes::from(format!("/run/user/{user}/containers")),
    }
}

/// The stores of the machine and of its users, as far as there are any.
pub(super) fn find<'h>(host: &'h Host, roots: &Roots, search: &Search) -> Vec<FoundEngine<'h>> {
    if let Some(root) = roots.option(OPTION) {
        let configured = named(host, roots, search, root);
        let stores = stores_of(host, &configured, &configured.image_stores());
        search.looked_at(NAME, root, Why::Option(OPTION), !stores.is_empty());
        if stores.is_empty() {
            // A directory that was named has to be one.
            let what = "is no graph root of containers-storage";
            return vec![unread(host, root, Error::damaged(root.clone(), what))];
        }
        return stores;
    }
    let mut found: Vec<FoundEngine<'h>> = Vec::new();
    let mut closed: Vec<FoundEngine<'h>> = Vec::new();
    let mut takers: Vec<(Configured, Vec<Bytes>)> = Vec::new();
    for configured in configured(host, roots, search) {
        let is_known = |store: &FoundEngine<'h>| *store.engine.root() == configured.root;
        if found.iter().any(is_known) {
            continue;
        }
        let image_stores = configured.image_stores();
        let (root, why) = (configured.root.clone(), configured.why.clone());
        // To an ordinary user the machine's store is closed.
        if is_anothers(host, roots)
            && let Err(error) = host.list(&root)
            && error.is_denied()
        {
            search.looked_at(NAME, &root, why, false);
            closed.push(boxed(Podman {
                closed: Some(Errno::ACCESS),
                ..Podman::new(host, root, "overlay".into(), Problems::default())
            }));
            continue;
        }
        let stores = stores_of(host, &configured, &image_stores);
        search.looked_at(NAME, &root, why, !stores.is_empty());
        found.extend(stores);
        if !image_stores.is_empty() {
            takers.push((configured, image_stores));
        }
    }
    found.extend(of_images(host, search, &takers, &found));
    // What was not asked for is missed only where nothing else answers.
    let is_asked_for = roots.variable(CONFIGURATION).is_some() || !roots.is_limited();
    if found.is_empty() && is_asked_for {
        found.append(&mut closed);
    }
    found
}

/// What the machine's files say, and which drop-ins of it count beside `storage.conf.d`.
fn machines(host: &Host, roots: &Roots, only: &[String], problems: &Problems) -> Storage {
    let mut storage = Storage::default();
    match roots.variable(CONFIGURATION) {
        Some(named) => storage.take_file(host, named, problems),
        None => {
            let places = CONFIGURATIONS.map(Bytes::from);
            for place in &places {
                storage.take_file(host, &place.join(b"storage.conf"), problems);
            }
            let drop_ins = places.iter().flat_map(|place| {
                let names =
                    std::iter::once("storage.conf.d").chain(only.iter().map(String::as_str));
                names.map(|name| place.join_path(&Bytes::from(name)))
            });
            storage.take_drop_ins(host, &drop_ins.collect::<Vec<Bytes>>(), problems);
        }
    }
    storage
}

/// Takes what a user's own files say, and what goes before all.
fn take_own(storage: &mut Storage, host: &Host, roots: &Roots, home: &User, problems: &Problems) {
    if roots.variable(CONFIGURATION).is_none() && home.has_configuration {
        let own = |name: &str| home.below_home(&[".config", "containers", name]);
        storage.take_file(host, &own("storage.conf"), problems);
        storage.take_drop_ins(host, &[own("storage.conf.d")], problems);
    }
    if let Some(named) = roots.variable(OVERRIDE) {
        storage.take_file(host, named, problems);
    }
}

/// Whether root's files are another's: to an ordinary user, also to one who is root in a namespace of the
/// user's own (`podman unshare`).
fn is_anothers(host: &Host, roots: &Roots) -> bool {
    roots.caller.is_some() || host.is_live() && dir::is_in_user_namespace()
}

/// The graph roots that the machine and its users have, by configuration or by default.
fn configured(host: &Host, roots: &Roots, search: &Search) -> Vec<Configured> {
    let problems = &search.problems;
    let rootful = ["storage.rootful.conf.d".to_owned()];
    let mut of_system = machines(host, roots, &rootful, problems);
    let users = search.users(host);
    let is_root = |user: &&User| user.id == 0;
    let root = users.iter().find(is_root);
    if let Some(root) = root.filter(|_| !is_anothers(host, roots)) {
        take_own(&mut of_system, host, roots, root, problems);
    }
    let named = path(of_system.graphroot.as_ref()).zip(of_system.graphroot_file.clone());
    let (root, why) = match named {
        Some((root, file)) => (root, Why::File(file)),
        None => (Bytes::from(ROOT), Why::Default),
    };
    let mut all = vec![Configured {
        root,
        why,
        run_root: path(of_system.runroot.as_ref()),
        usual_run_root: Some(Bytes::from(RUN_ROOT)),
        storage: of_system,
    }];
    all.extend(of_crio(host, search));
    // The machine's files are read for everybody: what is wrong with them was said.
    let for_users = LazyCell::new(|| Storage {
        graphroot: None,
        graphroot_file: None,
        runroot: None,
        ..machines(host, roots, &[], &Problems::default())
    });
    let rootless = CONFIGURATIONS.map(|place| Bytes::from(place).join(ROOTLESS));
    let is_there = |path: &Bytes| !matches!(host.stat(path), Ok(None));
    let has_rootless = roots.variable(CONFIGURATION).is_none() && rootless.iter().any(is_there);
    for user in roots.whose(users) {
        let mut storage = for_users.clone();
        if has_rootless {
            let of_user = user.id.to_string();
            let drop_ins = rootless
                .iter()
                .flat_map(|place| [place.clone(), place.join(of_user.as_bytes())]);
            storage.take_drop_ins(host, &drop_ins.collect::<Vec<Bytes>>(), problems);
        }
        take_own(&mut storage, host, roots, user, problems);
        let rootless = storage.rootless_storage_path.as_ref();
        let expanded = rootless.map(|path| user.expand(path));
        let graphroot = storage.graphroot.as_ref().map(|path| user.expand(path));
        let own = path(graphroot.as_ref()).zip(storage.graphroot_file.clone());
        let own = own.or_else(|| path(expanded.as_ref()).zip(storage.rootless_file.clone()));
        let (root, why) = match own {
            Some((root, file)) => (root, Why::File(file)),
            None if user.has_data => {
                let root = user.below_home(&[".local", "share", "containers", "storage"]);
                (root, Why::Known("a user"))
            }
            None => continue,
        };
        let runroot = storage.runroot.as_ref().map(|path| user.expand(path));
        all.push(Configured {
            root,
            why,
            run_root: path(runroot.as_ref()),
            usual_run_root: Some(usual_run_root(user.id)),
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

/// The stores that others take images from, and that are nobody's own: what is in them has a name,
/// takes space, and is in use.
fn of_images<'h>(
    host: &'h Host,
    search: &Search,
    takers: &[(Configured, Vec<Bytes>)],
    found: &[FoundEngine<'h>],
) -> Vec<FoundEngine<'h>> {
    let real = |path: &Bytes| host.resolve(path).unwrap_or_else(|_| path.clone());
    let own = found.iter().map(|store| real(store.engine.root()));
    let mut seen: Vec<Bytes> = own.collect();
    let mut others = Vec::new();
    for root in takers.iter().flat_map(|(_, stores)| stores) {
        if seen.contains(&real(root)) {
            continue;
        }
        seen.push(real(root));
        let of_it = takers.iter().filter(|(_, stores)| stores.contains(root));
        let of_it: Vec<&(Configured, Vec<Bytes>)> = of_it.collect();
        let Some((first, stores)) = of_it.first() else {
            continue;
        };
        let own = Configured {
            root: root.clone(),
            why: Why::ImageStore,
            run_root: None,
            usual_run_root: None,
            storage: first.storage.clone(),
        };
        let besides: Vec<Bytes> = stores.iter().filter(|of| *of != root).cloned().collect();
        // What cannot be read is told by who takes images from it.
        let podmans = podmans_of(host, &own, &besides).unwrap_or_default();
        search.looked_at(NAME, root, Why::ImageStore, !podmans.is_empty());
        others.extend(podmans.into_iter().map(|podman| {
            let of_driver = |(configured, stores): &&(Configured, Vec<Bytes>)| {
                podmans_of(host, configured, stores).unwrap_or_default()
            };
            let takers = of_it.iter().flat_map(of_driver);
            let takers = takers.filter(|of| of.driver == podman.driver).collect();
            boxed(Podman { takers, ..podman })
        }));
    }
    others
}

fn boxed(podman: Podman<'_>) -> FoundEngine<'_> {
    FoundEngine {
        problems: podman.problems.clone(),
        engine: Box::new(podman),
    }
}

/// A store for each driver that one graph root has been used with.
fn stores_of<'h>(
    host: &'h Host,
    configured: &Configured,
    image_stores: &[Bytes],
) -> Vec<FoundEngine<'h>> {
    match podmans_of(host, configured, image_stores) {
        Ok(podmans) => podmans.into_iter().map(boxed).collect(),
        // Whether it is one cannot be told.
        Err(error) => vec![unread(host, &configured.root, error)],
    }
}

/// The same, as they are.
///
/// # Errors
/// The graph root cannot be listed.
fn podmans_of<'h>(
    host: &'h Host,
    configured: &Configured,
    image_stores: &[Bytes],
) -> Result<Vec<Podman<'h>>> {
    let Configured {
        root,
        run_root,
        usual_run_root,
        storage,
        ..
    } = configured;
    let drivers = host.list(root)?.into_iter().filter_map(|(name, kind)| {
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
        let has_mount_program = noted_program(host, &root.join(driver.as_bytes()));
        let has_mount_program = has_mount_program.unwrap_or_else(|| storage.has_mount_program());
        Podman {
            run_root: match run_root {
                Some(_) => run_root.clone().into(),
                None => OnceCell::new(),
            },
            usual_run_root: usual_run_root.clone(),
            stores: std::iter::once(root).chain(image_stores).cloned().collect(),
            has_mount_program,
            rules: Rules::of(if is_users {
                Namespace::User
            } else {
                Namespace::Trusted
            })
            .with_options(storage.mount_options()),
            ..Podman::new(host, root.clone(), driver, Problems::default())
        }
    });
    Ok(stores.collect())
}

/// How often the note of a mount program is read, and how long it is waited for in between, while
/// there is nothing in it.
const TRIES: usize = 50;
const PAUSE: Duration = Duration::from_millis(2);

/// Whether a program makes the mounts, as the driver's directory has it noted; none where it does not say.
/// Every command of Podman's that uses one writes it anew, and for a moment it is empty.
fn noted_program(host: &Host, home: &Bytes) -> Option<bool> {
    let note = home.join(b".has-mount-program");
    for tried in 1..=TRIES {
        match host.read(&note).ok()?.trim_ascii() {
            b"true" => return Some(true),
            b"false" => return Some(false),
            _ if tried < TRIES && host.is_live() => sleep(PAUSE),
            _ => break,
        }
    }
    None
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
