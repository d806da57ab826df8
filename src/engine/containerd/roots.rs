//! Finding the machine's containerds.

use std::collections::BTreeMap;

use super::config::{self, SnapshotterSettings};
use super::store::{Containerd, NAME};
use crate::bytes::Bytes;
use crate::engine::daemons::{self, Command};
use crate::engine::interface::{FoundEngine, InVolumes};
use crate::engine::namespace;
use crate::engine::problems::Problems;
use crate::engine::roots::{EngineOption, Roots, Value, Variable};
use crate::engine::search::{Search, Why};
use crate::engine::users::User;
use crate::error::Error;
use crate::host::Host;

/// The root, and the state that does not outlive the machine's running.
const DEFAULT: (&str, &str) = ("/var/lib/containerd", "/run/containerd");
/// Of the machine's own.
const CONFIGURATION: &str = "/etc/containerd/config.toml";
const UNIT: &str = "containerd.service";

pub(super) const DAEMONS: &[&str] = &["containerd"];

/// Nodes of kind have it below their `/var`; those of k3d have all of k3s in one volume.
pub(super) const IN_VOLUMES: InVolumes = InVolumes {
    places: &["/lib/containerd", "/agent/containerd"],
    find: in_volume,
};

/// A Kubernetes that brings its own.
struct Distribution {
    /// As answers name it.
    name: &'static str,
    /// The root and the state if nothing else is said.
    place: (&'static str, &'static str),
    /// What may name its data directory, and where in that containerd's root is.
    data: Option<Data>,
    /// Its file of containerd's options.
    options: Option<&'static str>,
}

/// What such files of snaps have for directories.
const OF_SNAPS: [(&str, &str); 2] = [
    ("SNAP_COMMON", "/var/snap/microk8s/common"),
    ("SNAP_DATA", "/var/snap/microk8s/current"),
];

struct Data {
    /// Has `data-dir:`; so have the files of `<file>.d`.
    configuration: &'static str,
    units: &'static [&'static str],
    root: &'static str,
}

const DISTRIBUTIONS: [Distribution; 5] = [
    Distribution {
        name: "k3s",
        place: (
            "/var/lib/rancher/k3s/agent/containerd",
            "/run/k3s/containerd",
        ),
        data: Some(Data {
            configuration: "/etc/rancher/k3s/config.yaml",
            units: &["k3s.service", "k3s-agent.service"],
            root: "agent/containerd",
        }),
        options: None,
    },
    Distribution {
        name: "rke2",
        place: (
            "/var/lib/rancher/rke2/agent/containerd",
            "/run/k3s/containerd",
        ),
        data: Some(Data {
            configuration: "/etc/rancher/rke2/config.yaml",
            units: &["rke2-server.service", "rke2-agent.service"],
            root: "agent/containerd",
        }),
        options: None,
    },
    Distribution {
        name: "k0s",
        place: ("/var/lib/k0s/containerd", "/run/k0s/containerd"),
        data: Some(Data {
            configuration: "/etc/k0s/k0s.yaml",
            units: &["k0scontroller.service", "k0sworker.service"],
            root: "containerd",
        }),
        options: None,
    },
    Distribution {
        name: "MicroK8s",
        place: (
            "/var/snap/microk8s/common/var/lib/containerd",
            "/var/snap/microk8s/common/run/containerd",
        ),
        data: None,
        options: Some("/var/snap/microk8s/current/args/containerd"),
    },
    Distribution {
        name: "Canonical Kubernetes",
        place: ("/var/snap/k8s/common/var/lib/containerd", "/run/containerd"),
        data: None,
        options: Some("/var/snap/k8s/common/args/containerd"),
    },
];

const ROOT: &str = "containerd-root";
const STATE: &str = "containerd-state";
const NAMESPACE: &str = "namespace";
const NAMESPACE_VARIABLE: &str = "CONTAINERD_NAMESPACE";

pub(super) const OPTIONS: &[EngineOption] = &[
    EngineOption {
        name: ROOT,
        short: None,
        help: "The root of containerd: the only one looked at",
        value: Value::Path,
        requires: None,
    },
    EngineOption {
        name: STATE,
        short: None,
        help: "The state directory of the containerd that --containerd-root names",
        value: Value::Path,
        requires: Some(ROOT),
    },
    EngineOption {
        name: NAMESPACE,
        short: Some('n'),
        help: "The namespace of containerd's to look at: default, k8s.io, ...",
        value: Value::Namespace,
        requires: None,
    },
];

/// Its value is the namespace to look at, where the option names none.
pub(super) const VARIABLES: &[Variable] = &[Variable {
    name: NAMESPACE_VARIABLE,
    value: Value::Namespace,
}];

/// What is said of each snapshotter.
type Settings = BTreeMap<String, SnapshotterSettings>;

/// A containerd that may be somewhere.
struct Candidate {
    root: Bytes,
    state: Bytes,
    settings: Settings,
    why: Why,
}

/// Every containerd that there is anything of.
pub(super) fn find<'h>(host: &'h Host, roots: &Roots, search: &Search) -> Vec<FoundEngine<'h>> {
    let namespace = roots
        .option(NAMESPACE)
        .or_else(|| roots.variable(NAMESPACE_VARIABLE))
        .map(|name| name.to_text().into_owned());
    let make = |root: &Bytes, state: Bytes, settings: Settings| Containerd {
        namespace: namespace.clone(),
        settings,
        ..Containerd::at(host, root.clone(), state, Problems::default())
    };
    let systems = system(host, search);
    if let Some(root) = roots.option(ROOT) {
        let state = roots.option(STATE).cloned();
        // What its configuration says holds for the one that it names.
        let (own, settings) = if systems.root == *root {
            (Some(systems.state), systems.settings)
        } else {
            (None, Settings::new())
        };
        let state = state.or(own);
        let state = state.unwrap_or_else(|| Bytes::from(DEFAULT.1));
        let containerd = make(root, state, settings);
        let is_there = containerd.is_there();
        search.looked_at(NAME, root, Why::Option(ROOT), is_there);
        if !is_there {
            let what = "is no root of containerd: it has no io.containerd.metadata.v1.bolt/meta.db";
            containerd.note(Error::damaged(root.clone(), what));
        }
        return vec![found(containerd)];
    }
    let mut all = of_processes(host, search);
    all.push(systems);
    all.extend(DISTRIBUTIONS.iter().map(|of| of.candidate(host, search)));
    let users = roots.whose(search.users(host));
    all.extend(users.filter(|user| user.has_data).map(of_user));
    let mut seen: Vec<Option<Bytes>> = Vec::new();
    let mut engines = Vec::new();
    for candidate in all {
        let Candidate {
            root,
            state,
            settings,
            why,
        } = candidate;
        let containerd = make(&root, state, settings);
        // Most are not there, and then nothing in them is looked for.
        let is_there = !matches!(host.stat(&root), Ok(None)) && containerd.is_there();
        let real = if is_there {
            host.resolve(&root).ok()
        } else {
            None
        };
        if real.is_some() && seen.contains(&real) {
            continue;
        }
        search.looked_at(NAME, &root, why, is_there);
        if is_there {
            seen.push(real);
            engines.push(found(containerd));
        }
    }
    engines
}

/// Where the containerds have their data that Docker may keep snapshots in: the root, and the
/// state, of each that runs, and of the machine's own.
pub fn places(host: &Host, search: &Search) -> Vec<(Bytes, Bytes)> {
    let mut all = of_processes(host, search);
    all.push(system(host, search));
    let places = all.into_iter().map(|of| (of.root, of.state));
    let mut places: Vec<(Bytes, Bytes)> = places.collect();
    let mut seen: Vec<Bytes> = Vec::new();
    places.retain(|(root, _)| {
        let real = host.resolve(root).unwrap_or_else(|_| root.clone());
        let is_new = !seen.contains(&real);
        seen.push(real);
        is_new
    });
    places
}

fn system(host: &Host, search: &Search) -> Candidate {
    let commands = search.configured(host, UNIT, &[]);
    placed(host, commands.first(), search)
}

/// Those that run, but for those that dockerd starts, which are Docker's.
fn of_processes(host: &Host, search: &Search) -> Vec<Candidate> {
    let candidates = search.running(host, DAEMONS).filter_map(|command| {
        let process = command.process?;
        let mut candidate = placed(host, Some(command), search);
        if candidate.root.as_bytes().ends_with(b"/containerd/daemon") {
            return None;
        }
        candidate.root = daemons::path_on_host(host, command, &candidate.root)?;
        candidate.state = daemons::path_on_host(host, command, &candidate.state)
            // The state of one in a container is on a file system of its own.
            .unwrap_or_else(|| {
                let root = namespace::directory(process).join(b"root");
                root.join_path(&candidate.state)
            });
        candidate.why = Why::Command {
            source: command.source.clone(),
        };
        Some(candidate)
    });
    candidates.collect()
}

/// Where a containerd has its data that is started like this.
fn placed(host: &Host, command: Option<&Command>, search: &Search) -> Candidate {
    let path = |names: &[&str]| command.and_then(|command| command.path(names));
    let file = path(&["--config", "-c"]).unwrap_or_else(|| Bytes::from(CONFIGURATION));
    let configured = config::read(host, &file, &search.problems);
    let is_absolute = |path: &String| path.starts_with('/');
    let (root, why) = match (path(&["--root"]), configured.root.filter(is_absolute)) {
        (Some(root), _) => {
            let source = command.map(|command| command.source.clone());
            (
                root,
                Why::Command {
                    source: source.unwrap_or_default(),
                },
            )
        }
        (None, Some(root)) => {
            let file = configured.root_file.unwrap_or(file);
            (Bytes::from(root.as_str()), Why::File(file))
        }
        (None, None) => (Bytes::from(DEFAULT.0), Why::Default),
    };
    let state = configured.state.filter(is_absolute);
    let state = path(&["--state"]).or(state.map(|state| Bytes::from(state.as_str())));
    Candidate {
        root,
        state: state.unwrap_or_else(|| Bytes::from(DEFAULT.1)),
        settings: configured.snapshotters,
        why,
    }
}

impl Distribution {
    fn candidate(&self, host: &Host, search: &Search) -> Candidate {
        let (root, state) = self.place;
        let mut candidate = Candidate {
            root: Bytes::from(root),
            state: Bytes::from(state),
            settings: Settings::new(),
            why: Why::Known(self.name),
        };
        if let Some(data) = &self.data
            && let Some((directory, source)) = data.directory(host, search)
        {
            candidate.root = directory.join(data.root.as_bytes());
            candidate.why = Why::File(source);
        }
        if let Some(file) = self.options.map(Bytes::from)
            && let Some(text) = search.problems.text_of(host, &file)
        {
            let command = Command::of_options(&text, file.clone(), &OF_SNAPS);
            if let Some(root) = command.path(&["--root"]) {
                candidate.root = root;
                candidate.why = Why::File(file);
            }
            candidate.state = command.path(&["--state"]).unwrap_or(candidate.state);
        }
        candidate
    }
}

impl Data {
    /// The data directory that a command or a configuration file names, and what does so.
    fn directory(&self, host: &Host, search: &Search) -> Option<(Bytes, Bytes)> {
        let commands = self
            .units
            .iter()
            .flat_map(|unit| search.configured(host, unit, &[]));
        let named = commands.filter_map(|of| Some((of.path(&["--data-dir", "-d"])?, of.source)));
        named.chain(self.configured(host, &search.problems)).next()
    }

    /// The last file that has a line `data-dir:` counts.
    fn configured(&self, host: &Host, problems: &Problems) -> Option<(Bytes, Bytes)> {
        let file = Bytes::from(self.configuration);
        let directory = Bytes::from(format!("{}.d", self.configuration));
        let more = problems.unless_absent(host.list(&directory));
        let more = more.unwrap_or_default().into_iter();
        let more = more.filter(|(name, _)| name.ends_with(b".yaml"));
        let files = std::iter::once(file).chain(more.map(|(name, _)| directory.join(&name)));
        let named = files.filter_map(|file| {
            let found = data_dir(&problems.text_of(host, &file)?).unwrap_or_else(|what| {
                problems.note(Error::damaged(file.clone(), what));
                None
            });
            Some((found?, file))
        });
        named.last()
    }
}

/// The value of a top-level `data-dir:`. Of all YAML can say, that is one line: a parser of the
/// whole language would read no more of it.
///
/// # Errors
/// Says why the file is no mapping, or its value no path.
fn data_dir(text: &str) -> Result<Option<Bytes>, String> {
    // What is written as JSON is YAML, too.
    if text.trim_start().starts_with('{') {
        let read: serde_json::Value =
            serde_json::from_str(text).map_err(|error| format!("is no YAML: {error}"))?;
        return path_of(read["data-dir"].as_str().unwrap_or_default());
    }
    let mut value = "";
    for (index, line) in text.lines().enumerate() {
        let is_inner = line.starts_with([' ', '#', '-', '%', '\r']) || line.is_empty();
        let is_end = line.starts_with("...");
        let Some((key, of)) = line.split_once(':').filter(|_| !line.starts_with('\t')) else {
            if is_inner || is_end {
                continue;
            }
            return Err(format!(
                "is no YAML that layerctl reads: line {}",
                index + 1
            ));
        };
        if key.trim_matches(['"', '\'']) == "data-dir" {
            let of = of.split(" #").next().unwrap_or(of).trim();
            value = of.trim_matches(['"', '\'']);
        }
    }
    path_of(value)
}

/// A path that a data directory is given as; none is given by no text.
fn path_of(value: &str) -> Result<Option<Bytes>, String> {
    match value {
        "" => Ok(None),
        path if path.starts_with('/') => Ok(Some(Bytes::from(path))),
        other => Err(format!(
            "has a data-dir that is no absolute path: {other:?}"
        )),
    }
}

/// A user's own, as nerdctl starts it.
fn of_user(user: &User) -> Candidate {
    Candidate {
        root: user.below_home(&[".local", "share", "containerd"]),
        state: Bytes::from(format!("/run/user/{}/containerd", user.id)),
        settings: Settings::new(),
        why: Why::Known("a user"),
    }
}

fn in_volume(host: &Host, root: Bytes) -> Option<FoundEngine<'_>> {
    let state = Bytes::from(DEFAULT.1);
    let containerd = Containerd::at(host, root, state, Problems::default());
    containerd.is_there().then(|| found(containerd))
}

fn found(containerd: Containerd<'_>) -> FoundEngine<'_> {
    FoundEngine {
        problems: containerd.problems.clone(),
        engine: Box::new(containerd),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_data_directory_of_a_distribution() {
        for text in [
            "data-dir: /data/k3s\n",
            "node-label:\n  - a=b\ndata-dir: \"/data/k3s\" # big disk\n",
            "---\ntls-san:\n- a\n# b\ndata-dir: /old\n\"data-dir\": '/data/k3s'\n...\n",
            "{\"data-dir\": \"/data/k3s\"}",
        ] {
            assert_eq!(data_dir(text), Ok(Some(Bytes::from("/data/k3s"))), "{text}");
        }
        for text in ["", "  data-dir: /nested\n", "data-directory: /x\n", "{}"] {
            assert_eq!(data_dir(text), Ok(None), "{text}");
        }
        for text in [
            "data-dir: relative\n",
            "data-dir: [/a\n",
            "\tdata-dir: /a\n",
            "no mapping\n",
            "{\"data-dir\": ",
        ] {
            assert!(data_dir(text).is_err(), "{text}");
        }
    }
}
