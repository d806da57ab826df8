//! Pods: the one that is meant, as the API server tells of it, and the one that is started.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{HOST, wrong};
use crate::error::{Error, Result};

/// The name of the container that is started.
pub const OURS: &str = "layerctl";
/// What names the container that is meant where nobody says.
const DEFAULT: &str = "kubectl.kubernetes.io/default-container";
/// After so many seconds a pod that nobody took away ends by itself.
const LIFE: u32 = 3600;

#[derive(Deserialize)]
struct Pod {
    metadata: Metadata,
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Deserialize)]
struct Metadata {
    namespace: String,
    #[serde(default)]
    annotations: Option<std::collections::BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    node_name: Option<String>,
    #[serde(default)]
    containers: Vec<Named>,
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    container_statuses: Vec<Told>,
    init_container_statuses: Vec<Told>,
    ephemeral_container_statuses: Vec<Told>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Told {
    name: String,
    #[serde(rename = "containerID", default)]
    container_id: String,
    #[serde(default)]
    state: State,
    #[serde(default)]
    last_state: State,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct State {
    waiting: Option<Waiting>,
    terminated: Option<Terminated>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Waiting {
    reason: String,
    message: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Terminated {
    #[serde(rename = "containerID")]
    container_id: String,
}

/// A container of a pod, and where it is.
#[derive(Debug)]
pub struct Container {
    pub namespace: String,
    pub node: String,
    /// What the node's engine calls it.
    pub id: String,
    /// What whoever asked should know.
    pub said: Vec<String>,
}

impl Container {
    /// The container that is meant, from kubectl's JSON.
    ///
    /// # Errors
    /// There is none, or what is told of it cannot be.
    pub fn find(pod: &[u8], typed: Option<&str>) -> Result<Container> {
        let pod: Pod = serde_json::from_slice(pod)
            .map_err(|error| wrong(format!("kubectl told of no pod: {error}")))?;
        let mut said = Vec::new();
        let told = pod.told(typed, &mut said)?;
        let node = pod.spec.node_name.clone().unwrap_or_default();
        if node.is_empty() {
            return Err(wrong("the pod is on no node yet"));
        }
        let last = told.last_state.terminated.as_ref();
        let ids = [Some(&told.container_id), last.map(|of| &of.container_id)];
        let id = ids.into_iter().flatten().find(|id| !id.is_empty());
        let id =
            id.ok_or_else(|| wrong(format!("the container {} was never started", told.name)))?;
        let (_, id) = id.split_once("://").unwrap_or(("", id));
        for (what, name, is_one) in [
            ("a node", &*node, is_name(&node)),
            (
                "a namespace",
                &pod.metadata.namespace,
                is_name(&pod.metadata.namespace),
            ),
            ("a container", id, is_id(id)),
        ] {
            if !is_one {
                return Err(wrong(format!(
                    "the API server names {what} that cannot be: {name}"
                )));
            }
        }
        Ok(Container {
            namespace: pod.metadata.namespace.clone(),
            id: id.to_owned(),
            node,
            said,
        })
    }
}

impl Pod {
    /// What is told of the container that is meant.
    fn told(&self, typed: Option<&str>, said: &mut Vec<String>) -> Result<&Told> {
        let names: Vec<&str> = self.spec.containers.iter().map(|of| &*of.name).collect();
        let annotations = self.metadata.annotations.as_ref();
        let noted = annotations
            .and_then(|of| of.get(DEFAULT))
            .map(|name| &**name);
        let noted = noted.filter(|name| names.contains(name));
        let name = match (typed, noted, &names[..]) {
            (Some(name), ..) | (None, Some(name), _) => name,
            (None, None, [name]) => name,
            (None, None, [first, ..]) => {
                said.push(format!(
                    "container {first} of {}; -c names another",
                    names.join(", ")
                ));
                first
            }
            (None, None, []) => return Err(wrong("the pod has no containers")),
        };
        let status = &self.status;
        let told = status.container_statuses.iter();
        let told = told.chain(&status.init_container_statuses);
        let mut told = told.chain(&status.ephemeral_container_statuses);
        told.find(|told| told.name == name)
            .ok_or_else(|| Error::Refused {
                what: format!("the pod has no container {name} that was started"),
                hint: format!("it has {}", names.join(", ")),
            })
    }
}

/// Why the first container of a pod does not run.
pub fn waits_for(pod: &[u8]) -> Option<String> {
    let pod: Pod = serde_json::from_slice(pod).ok()?;
    let mut told = pod.status.container_statuses.into_iter();
    let waits = told.find_map(|told| told.state.waiting)?;
    let why = [waits.reason, waits.message];
    let why: Vec<String> = why.into_iter().filter(|word| !word.is_empty()).collect();
    (!why.is_empty()).then(|| why.join(": "))
}

/// A name as Kubernetes has them (RFC 1123): no option, and nothing to a shell.
pub fn is_name(name: &str) -> bool {
    let is_part = |part: &str| {
        let is_inner =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        !part.is_empty()
            && part.bytes().all(is_inner)
            && !part.starts_with('-')
            && !part.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(is_part)
}

/// An engine's name for a container.
fn is_id(id: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    let begins = id
        .bytes()
        .next()
        .is_some_and(|byte| byte.is_ascii_alphanumeric());
    begins && id.len() <= 128 && id.bytes().all(is_inner)
}

/// A name that no other pod has.
pub fn name() -> String {
    let mut random = [0u8; 5];
    // Without randomness the process id has to do: a name that is taken is refused.
    if rustix::rand::getrandom(&mut random[..], rustix::rand::GetRandomFlags::NONBLOCK).is_err() {
        random[..4].copy_from_slice(&std::process::id().to_ne_bytes());
    }
    let random: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("layerctl-{random}")
}

/// The pod that is started: on the container's node, with its root and its processes to look at.
pub fn manifest(name: &str, container: &Container, image: &str, privileged: bool) -> Value {
    let security = if privileged {
        json!({ "privileged": true, "runAsUser": 0, "readOnlyRootFilesystem": true })
    } else {
        json!({
            "runAsUser": 0,
            "readOnlyRootFilesystem": true,
            "capabilities": { "drop": ["ALL"], "add": ["DAC_READ_SEARCH", "SYS_ADMIN", "SYS_PTRACE"] },
        })
    };
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": container.namespace,
            "labels": { "app.kubernetes.io/name": "layerctl", "app.kubernetes.io/managed-by": "kubectl-layers" },
        },
        "spec": {
            // It has to be this node, whatever it is tainted with.
            "nodeName": container.node,
            "tolerations": [{ "operator": "Exists" }],
            "hostPID": true,
            "restartPolicy": "Never",
            "activeDeadlineSeconds": LIFE,
            "terminationGracePeriodSeconds": 1,
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "containers": [{
                "name": OURS,
                "image": image,
                "args": ["idle"],
                "securityContext": security,
                "volumeMounts": [{ "name": "host", "mountPath": HOST, "readOnly": true }],
            }],
            "volumes": [{ "name": "host", "hostPath": { "path": "/", "type": "Directory" } }],
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "4f1a0000000000000000000000000000000000000000000000000000000000aa";

    fn pod(node: &str, id: &str) -> Value {
        json!({
            "metadata": { "namespace": "shop", "name": "web-0" },
            "spec": { "nodeName": node, "containers": [{ "name": "app" }, { "name": "side" }] },
            "status": { "containerStatuses": [
                { "name": "side", "containerID": format!("containerd://{ID}") },
                { "name": "app", "containerID": id },
            ] },
        })
    }

    fn find(pod: &Value, typed: Option<&str>) -> Result<Container> {
        Container::find(pod.to_string().as_bytes(), typed)
    }

    #[test]
    fn the_first_container_is_meant_and_that_is_said() {
        let found = find(&pod("node-1.example", &format!("cri-o://{ID}")), None).unwrap();
        assert_eq!((&*found.node, &*found.id), ("node-1.example", ID));
        assert_eq!(found.said, ["container app of app, side; -c names another"]);
        let found = find(&pod("n", "docker://abc"), Some("side")).unwrap();
        assert_eq!((&*found.id, found.said.len()), (ID, 0));
        let mut noted = pod("n", "docker://abc");
        noted["metadata"]["annotations"] = json!({ DEFAULT: "side" });
        let found = find(&noted, None).unwrap();
        assert_eq!((&*found.id, found.said.len()), (ID, 0));
    }

    #[test]
    fn one_that_waits_to_be_started_again_is_the_one_that_ended() {
        let mut pod = pod("n", "");
        let terminated = json!({ "terminated": { "containerID": format!("containerd://{ID}") } });
        pod["status"]["containerStatuses"][1]["lastState"] = terminated;
        assert_eq!(find(&pod, Some("app")).unwrap().id, ID);
    }

    #[test]
    fn what_the_server_says_is_no_option_and_no_path() {
        for (node, id) in [
            ("", "containerd://abc"),
            ("-n", "containerd://abc"),
            ("node 1", "containerd://abc"),
            ("node\n1", "containerd://abc"),
            ("../node", "containerd://abc"),
            ("node", ""),
            ("node", "containerd://"),
            ("node", "containerd://--root=/"),
            ("node", "--to=/"),
            ("node", "containerd://../../etc"),
            ("node", "containerd://a b"),
            ("node", "containerd://a\u{202e}b"),
        ] {
            assert!(
                find(&pod(node, id), Some("app")).is_err(),
                "{node:?} {id:?}"
            );
        }
        let mut elsewhere = pod("node", "docker://abc");
        elsewhere["metadata"]["namespace"] = "--all-namespaces".into();
        assert!(find(&elsewhere, Some("app")).is_err());
        assert!(find(&pod("node", "docker://abc"), Some("none")).is_err());
        assert!(Container::find(b"null", None).is_err());
        assert!(Container::find(b"", None).is_err());
    }
}
