//! Finding the machine's containerds.

use super::Containerd;
use super::config;
use crate::bytes::Bytes;
use crate::engine::interface::{FoundEngine, Search};
use crate::engine::problems::Problems;
use crate::engine::roots::{EngineOption, Roots, Value, Variable};
use crate::error::Error;
use crate::host::Host;

/// Where it is by default, and in k3s: the root, and the state that does not outlive the
/// machine's running.
const DEFAULTS: [(&str, &str); 2] = [
    ("/var/lib/containerd", "/run/containerd"),
    (
        "/var/lib/rancher/k3s/agent/containerd",
        "/run/k3s/containerd",
    ),
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

/// Every containerd that there is anything of.
pub(super) fn find<'h>(host: &'h Host, roots: &Roots, search: &Search) -> Vec<FoundEngine<'h>> {
    let configured = config::read(host, &search.problems);
    let namespace = roots
        .option(NAMESPACE)
        .or_else(|| roots.variable(NAMESPACE_VARIABLE))
        .map(|name| name.to_text().into_owned());
    let make = |root: Bytes, state: Bytes| Containerd {
        namespace: namespace.clone(),
        ..Containerd::at(host, root, state, Problems::default())
    };
    if let Some(root) = roots.option(ROOT) {
        let state = roots.option(STATE).cloned();
        let is_it = configured.root.as_deref().map(Bytes::from).as_ref() == Some(root);
        let state = state.or_else(|| configured.state.filter(|_| is_it).map(Bytes::from));
        search.looked_at(root);
        let containerd = make(
            root.clone(),
            state.unwrap_or_else(|| Bytes::from(DEFAULTS[0].1)),
        );
        if !containerd.is_there() {
            let what = "is no root of containerd: it has no io.containerd.metadata.v1.bolt/meta.db";
            containerd.note(Error::damaged(root.clone(), what));
        }
        return vec![found(containerd)];
    }
    let path = |configured: Option<&String>, default: &str| {
        let configured = configured.filter(|path| path.starts_with('/'));
        Bytes::from(configured.map_or(default, String::as_str))
    };
    let [(root, state), k3s] = DEFAULTS;
    let places = [
        (
            path(configured.root.as_ref(), root),
            path(configured.state.as_ref(), state),
        ),
        (Bytes::from(k3s.0), Bytes::from(k3s.1)),
    ];
    let all = places.into_iter().map(|(root, state)| {
        search.looked_at(&root);
        make(root, state)
    });
    all.filter(Containerd::is_there).map(found).collect()
}

fn found(containerd: Containerd<'_>) -> FoundEngine<'_> {
    FoundEngine {
        problems: containerd.problems.clone(),
        engine: Box::new(containerd),
    }
}
