//! layerctl as kubectl's `kubectl layers`, asked by the real kubectl; the API server is a small one of the
//! test's own, which runs in place of a pod what is to be run in it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::lab::harness::{attempt, skip, skip_everywhere};
use crate::lab::host::Host;
use crate::lab::needs;
use crate::lab::run::{self, Output, text};

const IMAGE: &str = "registry.example/layerctl:1";

/// An API server, and a home for kubectl.
struct Cluster {
    server: Child,
    home: tempfile::TempDir,
    host: Host,
    id: String,
}

impl Cluster {
    fn start(fault: &str) -> Cluster {
        Cluster::with(fault, |_| {})
    }

    /// One whose pod is spoilt.
    fn with(fault: &str, spoil: impl FnOnce(&mut Value)) -> Cluster {
        needs::program("kubectl", "--help");
        speaks_websockets();
        needs::program("python3", "--version");
        needs::fixtures();
        let host = Host::fixture("blog-host");
        let containers = host.ask(["containers", "-q", "--no-trunc"]).exits(0);
        let id = containers
            .text()
            .lines()
            .next()
            .expect("a container")
            .to_owned();
        let home = tempfile::tempdir().expect("a temporary directory");
        let own = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/kubectl");
        let pod = fs::read_to_string(own.join("pod.json")).expect("our own");
        let pod = pod.replace("docker://ID", &format!("docker://{id}"));
        let mut pod: Value = serde_json::from_str(&pod).expect("JSON");
        spoil(&mut pod);
        let pod_file = home.path().join("pod.json");
        fs::write(&pod_file, pod.to_string()).expect("our own");
        let mut server = Command::new("python3");
        server
            .arg(own.join("api.py"))
            .arg(pod_file)
            .arg(env!("CARGO_BIN_EXE_layerctl"));
        server
            .arg(&host.root)
            .arg(home.path().join("log"))
            .arg(fault);
        let mut server = server
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 is there");
        let mut port = String::new();
        let told = server.stdout.take().expect("a pipe");
        BufReader::new(told).read_line(&mut port).expect("a port");
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": {"server": format!("http://127.0.0.1:{}", port.trim())}}],
            "users": [{"name": "u", "user": {}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u", "namespace": "shop"}}],
            "current-context": "x",
        });
        fs::write(home.path().join("config"), config.to_string()).expect("our own");
        let plugin = home.path().join("kubectl-layers");
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_layerctl"), plugin).expect("our own");
        Cluster {
            server,
            home,
            host,
            id,
        }
    }

    fn kubectl(&self, words: &[&str]) -> Output {
        let mut path = self.home.path().as_os_str().to_owned();
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap_or_default());
        let mut command = Command::new("kubectl");
        command
            .env_clear()
            .env("PATH", path)
            .env("HOME", self.home.path())
            .env("TZ", "UTC");
        command.env("KUBECONFIG", self.home.path().join("config"));
        command
            .env("LAYERCTL_IMAGE", IMAGE)
            .stdin(Stdio::null())
            .args(words);
        run::run(&mut command)
    }

    /// What the server was asked, but for reading the pod.
    fn log(&self) -> Vec<Value> {
        let log = fs::read_to_string(self.home.path().join("log")).unwrap_or_default();
        log.lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect()
    }

    /// Demands that no pod is left, and gives the one that was made.
    #[track_caller]
    fn made(&self) -> Value {
        let log = self.log();
        let of = |method: &str, part: &str| {
            let is_one =
                |row: &&Value| text(row, "method") == method && text(row, "path").contains(part);
            log.iter().filter(is_one).collect::<Vec<_>>()
        };
        let made = of("POST", "/namespaces/shop/pods?");
        assert_eq!(made.len(), 1, "{log:#?}");
        let name = made[0]["body"]["metadata"]["name"]
            .as_str()
            .expect("a name");
        assert_eq!(
            of("DELETE", &format!("/namespaces/shop/pods/{name}")).len(),
            1,
            "{log:#?}"
        );
        made[0]["body"].clone()
    }
}

/// Older ones run programs in pods over SPDY, which the server here does not speak.
fn speaks_websockets() {
    let mut command = Command::new("kubectl");
    let version = run::run(command.args(["version", "--client", "--output=json"]));
    let version: Value = serde_json::from_slice(&version.stdout).unwrap_or_default();
    let minor = version["clientVersion"]["minor"]
        .as_str()
        .unwrap_or_default();
    let minor: u32 = minor.trim_end_matches('+').parse().unwrap_or_default();
    if minor < 31 {
        skip_everywhere(&format!("kubectl 1.{minor} speaks no WebSockets"));
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

#[apply(test)]
fn a_pod_s_container_is_asked_on_its_node() {
    needs::time();
    let cluster = Cluster::start("");
    let id = &*cluster.id;
    for (typed, asked) in [
        (
            &["web-0", "which", "/etc/apt/sources.list"][..],
            &["which", "--in", id, "/etc/apt/sources.list"][..],
        ),
        (
            &["-c", "app", "web-0", "which", "/no"],
            &["which", "--in", id, "/no"],
        ),
        (
            &["pod/web-0", "-c", "app", "changes", "--format", "jsonl"],
            &["changes", id, "--format", "jsonl"],
        ),
        (
            &["-n", "shop", "web-0", "whois", "/var/lib/docker/aufs"],
            &["whois", "/var/lib/docker/aufs"],
        ),
        (&["--context=x", "web-0", "containers"], &["containers"]),
        (
            &["web-0", "cp", "/etc/passwd", "-"],
            &["cp", "--in", id, "/etc/passwd", "-"],
        ),
        (
            &["web-0", "cat", "/nowhere"],
            &["cat", "--in", id, "/nowhere"],
        ),
    ] {
        let _ = fs::remove_file(cluster.home.path().join("log"));
        let theirs = cluster.kubectl(&[&["layers"], typed].concat());
        let ours = cluster.host.ask(asked);
        assert_eq!(theirs.stdout, ours.stdout, "{typed:?}: {}", theirs.stderr);
        assert_eq!(theirs.status, ours.status, "{typed:?}: {}", theirs.stderr);
        let said = theirs.stderr.replace(
            "layerctl: container app of app, side; -c names another\n",
            "",
        );
        assert_eq!(said, ours.stderr, "{typed:?}");
        let pod = cluster.made();
        assert_eq!(pod["spec"]["nodeName"], "node-1.example");
        assert_eq!(pod["spec"]["containers"][0]["image"], IMAGE);
        let mount = &pod["spec"]["containers"][0]["volumeMounts"][0];
        assert_eq!(
            (&mount["mountPath"], &mount["readOnly"]),
            (&json!("/host"), &json!(true))
        );
        let exec = cluster
            .log()
            .into_iter()
            .find(|row| row["command"].is_array());
        let command = exec.expect("an exec")["command"].clone();
        assert_eq!(
            command,
            json!([&["/layerctl", "--root", "/host"], asked].concat())
        );
    }
}

/// The commands that are shown do the same when a shell runs them.
#[apply(test)]
fn what_would_be_run_is_shown_and_can_be_pasted() {
    let cluster = Cluster::start("");
    let shown = cluster.kubectl(&["layers", "--dry-run", "web-0", "which", "/etc/a pt's;$(x)"]);
    assert_eq!(shown.status, Some(0), "{}", shown.stderr);
    let methods: Vec<Value> = cluster.log();
    assert!(
        methods.iter().all(|row| text(row, "method") == "GET"),
        "{methods:?}"
    );
    let lines: Vec<&str> = shown
        .text()
        .lines()
        .filter(|line| line.starts_with("kubectl "))
        .collect();
    let verbs: Vec<&str> = lines
        .iter()
        .filter_map(|line| line.split(' ').nth(1))
        .collect();
    assert_eq!(verbs, ["create", "wait", "exec", "delete"]);
    let mut shell = Command::new("sh");
    shell
        .arg("-c")
        .arg(shown.text())
        .env("KUBECONFIG", cluster.home.path().join("config"));
    let pasted = run::run(shell.env("HOME", cluster.home.path()));
    assert_eq!(pasted.status, Some(0), "{}", pasted.stderr);
    let exec = cluster
        .log()
        .into_iter()
        .find(|row| row["command"].is_array());
    let command = exec.expect("an exec")["command"].clone();
    assert_eq!(command[6], "/etc/a pt's;$(x)");
    cluster.made();
}

#[apply(test)]
fn a_pod_that_cannot_be_or_does_not_run_is_said() {
    let cluster = Cluster::start("forbidden");
    let refused = cluster.kubectl(&["layers", "web-0", "changes"]);
    assert_eq!(refused.status, Some(2));
    assert!(
        refused.stderr.contains("violates PodSecurity"),
        "{}",
        refused.stderr
    );

    let cluster = Cluster::start("pending");
    let words = ["layers", "--pod-running-timeout", "1s", "web-0", "changes"];
    let waits = cluster.kubectl(&words);
    assert_eq!((waits.status, waits.text()), (Some(2), ""));
    assert!(
        waits
            .stderr
            .contains("ErrImagePull: no such image\\x1b[31m"),
        "{}",
        waits.stderr
    );
    cluster.made();
}

/// Nothing that the API server says becomes an option, a path, or a shell's word.
#[apply(test)]
fn a_hostile_server_is_not_believed() {
    needs::time();
    for (at, what) in [
        ("/spec/nodeName", "--kubeconfig=/etc/passwd"),
        ("/spec/nodeName", "node;reboot"),
        ("/metadata/namespace", "--all-namespaces"),
        (
            "/status/containerStatuses/1/containerID",
            "docker://--root=/",
        ),
        (
            "/status/containerStatuses/1/containerID",
            "docker://../../x",
        ),
        ("/status/containerStatuses/1/containerID", ""),
    ] {
        let cluster = Cluster::with("", |pod| *pod.pointer_mut(at).expect("there") = json!(what));
        for words in [
            &["layers", "web-0", "-c", "app", "changes"][..],
            &["layers", "web-0", "--dry-run", "changes"],
        ] {
            let refused = cluster.kubectl(words);
            assert_eq!(
                (refused.status, refused.text()),
                (Some(2), ""),
                "{at} {what}"
            );
        }
        let log = cluster.log();
        assert!(
            log.iter().all(|row| text(row, "method") == "GET"),
            "{log:?}"
        );
    }
}

#[apply(test)]
fn wrong_words_ask_nobody() {
    let cluster = Cluster::start("");
    for words in [
        &["layers"][..],
        &["layers", "web-0"],
        &["layers", "web-0", "no-such-verb"],
        &["layers", "web-0", "restore", "/etc/motd"],
        &["layers", "--", "-A", "changes"],
        &["layers", "../web-0", "changes"],
        &["layers", "no-such-pod", "changes"],
        &["layers", "web-0", "-c", "none", "changes"],
    ] {
        let refused = cluster.kubectl(words);
        assert_eq!((refused.status, refused.text()), (Some(2), ""), "{words:?}");
        assert!(!refused.stderr.is_empty(), "{words:?}");
    }
    let log = cluster.log();
    assert!(
        log.iter().all(|row| text(row, "method") == "GET"),
        "{log:?}"
    );
    let help = cluster.kubectl(&["layers", "--help"]);
    assert_eq!(help.status, Some(0));
    assert!(help.text().contains("kubectl layers"), "{}", help.text());
    let listed = cluster.kubectl(&["plugin", "list"]);
    assert!(
        listed.text().contains("kubectl-layers"),
        "{}",
        listed.text()
    );
}

/// What is handed to clusters: as kubectl reads it, as Kubernetes' own schemas have it, and as layerctl
/// takes the words in it.
#[apply(test)]
fn manifests_are_what_clusters_take() {
    let cluster = Cluster::start("");
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/kubernetes");
    let read = cluster.kubectl(&[
        "create",
        "--dry-run=client",
        "--validate=false",
        "--output=json",
        "--filename",
        own.to_str().expect("UTF-8"),
    ]);
    assert_eq!(read.status, Some(0), "{}", read.stderr);
    let read = serde_json::Deserializer::from_slice(&read.stdout).into_iter::<Value>();
    let items: Vec<Value> = read.map(|item| item.expect("JSON")).collect();
    let kinds: Vec<&str> = items.iter().map(|item| text(item, "kind")).collect();
    assert_eq!(kinds, ["CronJob", "DaemonSet", "Namespace", "DaemonSet"]);
    let pods: Vec<&Value> = items
        .iter()
        .filter_map(|item| {
            let template = item.pointer("/spec/template/spec");
            template.or_else(|| item.pointer("/spec/jobTemplate/spec/template/spec"))
        })
        .collect();
    assert_eq!(pods.len(), 3);
    for pod in pods {
        let container = &pod["containers"][0];
        let mounts = container["volumeMounts"].as_array().expect("mounts");
        let host = mounts.iter().find(|mount| text(mount, "name") == "host");
        assert_eq!(host.expect("one")["readOnly"], true);
        let rights = &container["securityContext"]["capabilities"];
        assert_eq!(rights["drop"], json!(["ALL"]));
        assert_eq!(
            rights["add"],
            json!(["DAC_READ_SEARCH", "SYS_ADMIN", "SYS_PTRACE"])
        );
        writes_what_it_should(&cluster.host, &container["args"]);
    }
}

/// Runs a manifest's words, until the file is there that they name.
#[track_caller]
fn writes_what_it_should(host: &Host, args: &Value) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let at = directory.path().to_str().expect("UTF-8");
    let root = host.root.to_str().expect("UTF-8");
    let mut file = None;
    let words = args.as_array().expect("words").iter().map(|word| {
        let word = word.as_str().expect("a word").replace("$(NODE)", "node-1");
        let is_file = word.starts_with("/textfile/") || word.starts_with("/reports/");
        let word = word.replace("/host", root);
        let word = word.replace("/textfile", at).replace("/reports", at);
        if is_file {
            file = Some(PathBuf::from(&word));
        }
        word
    });
    let mut command = run::command();
    command.args(words.collect::<Vec<_>>());
    let file = file.expect("a file");
    let mut child = command.spawn().expect("layerctl was built");
    let begun = Instant::now();
    while !file.exists() && begun.elapsed() < Duration::from_secs(60) {
        thread::sleep(Duration::from_millis(20));
    }
    let _ = child.kill();
    let _ = child.wait();
    assert!(
        fs::read_to_string(&file).is_ok_and(|told| told.lines().count() > 10),
        "{args}"
    );
}

/// A Python that knows Kubernetes' schemas: that of the environment, or the system's.
fn kubernetes_takes(files: &[PathBuf]) {
    let python = std::env::var("LAYERCTL_PYTHON").unwrap_or_else(|_| "python3".into());
    let imported = Command::new(&python)
        .args(["-c", "import kubernetes_validate"])
        .output();
    if !imported.is_ok_and(|output| output.status.success()) {
        skip("no Python here has Kubernetes' schemas (pip install kubernetes-validate)");
    }
    for version in ["1.30", "1.36"] {
        let mut command = Command::new(&python);
        command.args(["-m", "kubernetes_validate", "--strict", "-k", version]);
        let said = run::run(command.args(files));
        assert_eq!(
            said.status,
            Some(0),
            "{version}: {}{}",
            said.text(),
            said.stderr
        );
    }
}

#[apply(test)]
fn manifests_fit_kubernetes_schemas() {
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/kubernetes");
    let files = fs::read_dir(own).expect("our own");
    let mut files: Vec<PathBuf> = files.map(|entry| entry.expect("our own").path()).collect();
    assert!(files.len() > 3);
    let cluster = Cluster::start("");
    for more in [&["--privileged"][..], &[]] {
        cluster.kubectl(&[&["layers"], more, &["web-0", "containers"]].concat());
        let pod = cluster
            .home
            .path()
            .join(format!("made-{}.yaml", files.len()));
        fs::write(&pod, cluster.made().to_string()).expect("our own");
        fs::remove_file(cluster.home.path().join("log")).expect("our own");
        files.push(pod);
    }
    kubernetes_takes(&files);
    // What is no manifest is not taken.
    let wrong = cluster.home.path().join("wrong.yaml");
    let pod = fs::read_to_string(files.last().expect("one")).expect("our own");
    fs::write(&wrong, pod.replace("hostPID", "hostPid")).expect("our own");
    let refused = attempt(|| kubernetes_takes(&[wrong]));
    assert!(refused.is_err(), "a wrong key is taken");
}
