//! Finding Docker's data directories.

use rustix::io::Errno;

use super::config::{self, Daemon};
use super::store::{Docker, EXEC_ROOT, NAME};
use crate::bytes::Bytes;
use crate::dir::Kind;
use crate::engine::containerd;
use crate::engine::daemons::{self, Command};
use crate::engine::interface::{FoundEngine, InVolumes};
use crate::engine::problems::Problems;
use crate::engine::roots::{EngineOption, Roots, Value};
use crate::engine::search::{Search, Why};
use crate::engine::users::User;
use crate::error::Error;
use crate::host::Host;
use crate::overlay::Namespace;
use crate::union::Follow;

const DEFAULT_ROOT: &str = "/var/lib/docker";
const ROOT: &str = "docker-root";
/// Of the machine's own daemon.
const CONFIGURATION: &str = "/etc/docker/daemon.json";
const UNIT: &str = "docker.service";
/// What names the data directory on a daemon's command line, in all its versions.
const ROOT_OPTIONS: &[&str] = &["--data-root", "--graph", "-g"];
/// What such a unit, or an older init system's script, reads.
const ENVIRONMENTS: [&str; 3] = [
    "/etc/default/docker",
    "/etc/sysconfig/docker",
    "/etc/conf.d/docker",
];

pub(super) const DAEMONS: &[&str] = &[
    "dockerd",
    "docker",
    "balenad",
    "balena-engine-daemon",
    "balena-engine",
];

pub(super) const OPTIONS: &[EngineOption] = &[EngineOption {
    name: ROOT,
    short: None,
    help: "Docker's data directory, where it is elsewhere or all that is there",
    value: Value::Path,
    requires: None,
}];

/// Docker in Docker.
pub(super) const IN_VOLUMES: InVolumes = InVolumes {
    places: &["/"],
    find: in_volume,
};

/// A way to install Docker beside the machine's own.
struct Installation {
    /// As answers name it.
    whose: &'static str,
    configurations: &'static [&'static str],
    units: &'static [&'static str],
    /// Data directories that it may have.
    roots: &'static [&'static str],
}

const INSTALLATIONS: [Installation; 3] = [
    Installation {
        whose: "the snap",
        configurations: &["/var/snap/docker/current/config/daemon.json"],
        units: &[],
        roots: &["/var/snap/docker/common/var-lib-docker"],
    },
    Installation {
        whose: "balena",
        configurations: &[],
        units: &["balena.service", "balena-engine.service"],
        roots: &["/var/lib/balena-engine", "/mnt/data/docker"],
    },
    Installation {
        whose: "Synology",
        configurations: &[
            "/var/packages/ContainerManager/etc/dockerd.json",
            "/var/packages/Docker/etc/dockerd.json",
        ],
        units: &[],
        roots: &[
            "/volume1/@docker",
            "/volume2/@docker",
            "/volume3/@docker",
            "/volume4/@docker",
        ],
    },
];

/// A data directory, and what was said with it.
struct Candidate {
    root: Bytes,
    why: Why,
    exec_root: Option<Bytes>,
    driver: Option<String>,
    /// A directory that was named, or to which a link leads, has to be there.
    is_named: bool,
}

impl Candidate {
    fn new(root: Bytes, why: Why) -> Candidate {
        Candidate {
            root,
            why,
            exec_root: None,
            driver: None,
            is_named: false,
        }
    }

    fn with(self, daemon: &Daemon) -> Candidate {
        Candidate {
            exec_root: self.exec_root.or_else(|| daemon.exec_root()),
            driver: daemon.driver(),
            ..self
        }
    }
}

/// The data directory that the person named; or else those of the machine's own daemon, of others
/// that run, of other ways to install it, and of users; and in each those of remapped users.
pub(super) fn find<'h>(host: &'h Host, roots: &Roots, search: &Search) -> Vec<FoundEngine<'h>> {
    let mut found: Vec<FoundEngine<'h>> = Vec::new();
    let mut seen: Vec<Bytes> = Vec::new();
    for candidate in candidates(host, roots, search) {
        if let Ok((_, real)) = host.open_real(&candidate.root) {
            if seen.contains(&real) {
                continue;
            }
            seen.push(real);
        }
        let (why, root) = (candidate.why.clone(), candidate.root.clone());
        let here = open(host, candidate, search);
        let is_found = here.iter().any(|of| of.engine.exists());
        search.looked_at(NAME, &root, why, is_found);
        found.extend(here);
    }
    found
}

fn candidates(host: &Host, roots: &Roots, search: &Search) -> Vec<Candidate> {
    let systems = of_system(host, search);
    if let Some(root) = roots.option(ROOT) {
        let named = Candidate {
            exec_root: systems.exec_root.filter(|_| *root == systems.root),
            driver: systems.driver,
            is_named: true,
            ..Candidate::new(root.clone(), Why::Option(ROOT))
        };
        return vec![named];
    }
    let mut all = vec![systems];
    all.extend(of_processes(host, search));
    all.extend(
        INSTALLATIONS
            .iter()
            .flat_map(|of| of.candidates(host, search)),
    );
    let users = roots.whose(search.users(host));
    all.extend(users.filter_map(|user| of_user(host, user, search)));
    all
}

/// The machine's own daemon: as it runs, as its command would start it, as its configuration says.
fn of_system(host: &Host, search: &Search) -> Candidate {
    let running = running(host, search).find(|command| {
        // Users' daemons are theirs.
        let owner = command.process.map(crate::engine::namespace::directory);
        let owner = owner.and_then(|path| host.stat(&path).ok().flatten());
        command.is_here && (!host.is_live() || owner.is_none_or(|stat| stat.uid == 0))
    });
    let commands = match running {
        Some(command) => vec![command.clone()],
        None => search.configured(host, UNIT, &ENVIRONMENTS),
    };
    let option = |names: &[&str]| commands.iter().find_map(|of| Some((of.path(names)?, of)));
    let configuration = option(&["--config-file"]).map(|(path, _)| path);
    let configuration = configuration.unwrap_or_else(|| Bytes::from(CONFIGURATION));
    let daemon = config::read(host, &[configuration], &search.problems);
    let (root, why) = match option(ROOT_OPTIONS) {
        Some((root, command)) => {
            let source = command.source.clone();
            (root, Why::Command { source })
        }
        None => match (daemon.root(), &daemon.path) {
            (Some(root), Some(path)) => (root, Why::File(path.clone())),
            _ => (Bytes::from(DEFAULT_ROOT), Why::Default),
        },
    };
    Candidate {
        is_named: why != Why::Default,
        exec_root: option(&["--exec-root"]).map(|(path, _)| path),
        ..Candidate::new(root, why)
    }
    .with(&daemon)
}

/// The daemons that run.
fn running<'s>(host: &Host, search: &'s Search) -> impl Iterator<Item = &'s Command> {
    // Old clients and daemons are one program.
    let is_daemon = |command: &&Command| {
        let is_client = matches!(command.program(), b"docker" | b"balena-engine");
        !is_client || command.has_word("daemon") || command.has_word("-d")
    };
    search.running(host, DAEMONS).filter(is_daemon)
}

/// Those of daemons that run elsewhere: in a snap, in a container.
fn of_processes(host: &Host, search: &Search) -> Vec<Candidate> {
    let elsewhere = running(host, search).filter(|command| !command.is_here);
    let candidates = elsewhere.filter_map(|command| {
        let root = command.path(ROOT_OPTIONS);
        let root = root.unwrap_or_else(|| Bytes::from(DEFAULT_ROOT));
        let source = command.source.clone();
        let root = daemons::path_on_host(host, command, &root)?;
        Some(Candidate::new(root, Why::Command { source }))
    });
    candidates.collect()
}

impl Installation {
    /// What is there of it. The directory that its configuration names counts if any does.
    fn candidates(&self, host: &Host, search: &Search) -> Vec<Candidate> {
        let paths: Vec<Bytes> = self
            .configurations
            .iter()
            .map(|of| Bytes::from(*of))
            .collect();
        let daemon = config::read(host, &paths, &search.problems);
        let configured = daemon.root().zip(daemon.path.clone());
        let configured = configured.map(|(root, path)| Candidate::new(root, Why::File(path)));
        let started = self
            .units
            .iter()
            .flat_map(|unit| search.configured(host, unit, &[]));
        let started = started.filter_map(|command| {
            let root = command.path(ROOT_OPTIONS)?;
            Some(Candidate::new(
                root,
                Why::Command {
                    source: command.source,
                },
            ))
        });
        let known = self.roots.iter();
        let known = known.map(|root| Candidate::new(Bytes::from(*root), Why::Known(self.whose)));
        let all = configured.into_iter().chain(started).chain(known);
        let mut there = Vec::new();
        let mut missing = None;
        for candidate in all {
            if matches!(host.stat(&candidate.root), Ok(None)) {
                search.looked_at(NAME, &candidate.root, candidate.why.clone(), false);
                missing = missing.or(matches!(candidate.why, Why::File(_)).then_some(candidate));
            } else {
                there.push(candidate.with(&daemon));
            }
        }
        if there.is_empty() {
            there.extend(missing.map(|of| Candidate {
                is_named: true,
                ..of
            }));
        }
        there
    }
}

/// A user's own: a daemon without root's rights.
fn of_user(host: &Host, user: &User, search: &Search) -> Option<Candidate> {
    let mut daemon = Daemon::default();
    if user.has_configuration {
        let path = user.below_home(&[".config", "docker", "daemon.json"]);
        daemon = config::read(host, &[path], &search.problems);
    }
    let candidate = match daemon.root().zip(daemon.path.clone()) {
        Some((root, path)) => Candidate {
            is_named: true,
            ..Candidate::new(root, Why::File(path))
        },
        None if user.has_data => {
            let root = user.below_home(&[".local", "share", "docker"]);
            // One that is not there was looked for, and that is all.
            host.stat(&root).ok().flatten()?;
            Candidate::new(root, Why::Known("a user"))
        }
        None => return None,
    };
    let exec_root = Bytes::from(format!("/run/user/{}/docker", user.id));
    Some(Candidate {
        exec_root: daemon.exec_root().or(Some(exec_root)),
        ..candidate.with(&daemon)
    })
}

/// A data directory, and those in it that belong to remapped users.
fn open<'h>(host: &'h Host, candidate: Candidate, search: &Search) -> Vec<FoundEngine<'h>> {
    let problems = Problems::default();
    let root = &candidate.root;
    let is_link = || {
        host.lookup(root.as_bytes(), Follow::NotLast)
            .is_ok_and(|found| found.entry.kind().is_some())
    };
    let mut namespace = Namespace::Trusted;
    match host.stat(root) {
        Ok(Some(stat)) if stat.uid != 0 => namespace = Namespace::User,
        Ok(Some(_)) => {}
        Ok(None) if candidate.is_named || is_link() => {
            problems.note(Error::io(root.clone(), Errno::NOENT));
        }
        // One that is not there has nothing to be asked for.
        Ok(None) => return Vec::new(),
        Err(error) => problems.note(error),
    }
    let names = host.list(root).unwrap_or_default().into_iter();
    let remapped = names.filter(|(name, kind)| *kind == Kind::Directory && is_remapped(name));
    let others = remapped.map(|(name, _)| {
        let root = root.join(&name);
        (root, Namespace::Trusted, Problems::default())
    });
    let mut all = vec![(root.clone(), namespace, problems)];
    all.extend(others);
    let exec_root = candidate.exec_root.clone();
    let exec_root = exec_root.unwrap_or_else(|| Bytes::from(EXEC_ROOT));
    let containerds = containerd::places(host, search);
    // A user's daemon cannot ask root's containerd, nor root's a user's.
    let owner = |path: &Bytes| host.stat(path).ok().flatten().map(|stat| stat.uid);
    let own = owner(root);
    let is_reached = |(root, _): &&(Bytes, Bytes)| owner(root) == own;
    let containerds: Vec<(Bytes, Bytes)> = containerds.iter().filter(is_reached).cloned().collect();
    let found = all.into_iter().map(|(root, namespace, problems)| {
        let docker = Docker {
            namespace,
            configured_driver: candidate.driver.clone(),
            exec_root: exec_root.clone(),
            others: containerds.clone(),
            ..Docker::new(host, root, problems.clone())
        };
        FoundEngine {
            engine: Box::new(docker),
            problems,
        }
    });
    found.collect()
}

/// The data directory of a Docker that runs in a container. A volume can hold anything: it takes
/// more than a directory with some name.
fn in_volume(host: &Host, root: Bytes) -> Option<FoundEngine<'_>> {
    let is_there = |name: &[u8]| host.open_dir(&root.join(name)).is_ok();
    if !is_there(b"containers")
        || !is_there(b"volumes")
        || !is_there(b"image") && !is_there(b"rootfs")
    {
        return None;
    }
    let problems = Problems::default();
    Some(FoundEngine {
        engine: Box::new(Docker::new(host, root, problems.clone())),
        problems,
    })
}

/// The directory of remapped users is called `<uid>.<gid>`.
fn is_remapped(name: &[u8]) -> bool {
    let is_number = |text: &[u8]| !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    let parts: Vec<&[u8]> = name.split(|&byte| byte == b'.').collect();
    matches!(parts.as_slice(), [uid, gid] if is_number(uid) && is_number(gid))
}
