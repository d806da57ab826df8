//! Engines are found wherever people have them: as the running daemon was told, as its unit or its
//! configuration says, and where distributions put it. Grounds: public reports of places that
//! tools did not find.

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::lab::host::Host;
use crate::lab::needs;
use crate::lab::run::{copy_program, run, texts};
use crate::mislead::containerd_at;

const DROP_IN: &str = "/etc/systemd/system/docker.service.d/override.conf";
const ANN: (&str, &str) = ("/etc/passwd", "ann:x:1000:1000::/home/ann:/bin/sh\n");

/// A host whose Docker has its data, one container, at some place.
fn docker_at(place: &str) -> Host {
    let host = Host::empty();
    docker_in(&host, place);
    host
}

fn docker_in(host: &Host, place: &str) {
    let id = "5".repeat(64);
    let record = json!({
        "ID": id, "Name": "/web", "Driver": "overlay2", "Created": "2024-05-06T07:08:09Z",
        "Image": format!("sha256:{}", "1".repeat(64)), "State": {}, "Config": {"Image": "acme/a:1"},
    });
    for name in ["image", "volumes"] {
        host.dir(format!("{place}/{name}"));
    }
    let path = format!("{place}/containers/{id}/config.v2.json");
    host.file(path, record.to_string());
}

/// A host whose containers-storage has its data, one container, at some place.
fn storage_at(place: &str) -> Host {
    let host = Host::empty();
    let id = "7".repeat(64);
    let record = json!([{
        "id": id, "names": ["web"], "image": "1".repeat(64), "layer": "2".repeat(64),
        "metadata": "{\"image-name\":\"localhost/acme/a:1\"}", "created": "2024-05-06T07:08:09Z",
    }]);
    host.file(
        format!("{place}/overlay-containers/containers.json"),
        record.to_string(),
    );
    host
}

type Files = &'static [(&'static str, &'static str)];

/// That one container is found, that its root is said, and why it was looked at.
#[track_caller]
fn finds(host: &Host, place: &str, why: &str) {
    let rows = host.jsonl(["containers"]).exits(0).rows();
    assert_eq!(rows.len(), 1, "{place}: {rows:?}");
    let info = host.jsonl(["info"]).exits(0).rows();
    let roots = info[0]["roots"].as_array().cloned().unwrap_or_default();
    let found: Vec<&Value> = roots.iter().filter(|root| root["found"] == true).collect();
    assert_eq!(found.len(), 1, "{place}: {roots:?}");
    assert_eq!(found[0]["path"], place);
    let said = found[0]["why"].as_str().unwrap_or_default();
    assert!(said.contains(why), "{place}: {said}, not {why}");
}

#[track_caller]
fn all(make: fn(&str) -> Host, cases: &[(&str, Files, &str)]) {
    for (place, files, why) in cases {
        let host = make(place);
        for (path, text) in *files {
            host.file(path, text);
        }
        finds(&host, place, why);
    }
}

#[apply(test)]
fn docker_is_found_where_it_was_told_to_be() {
    let cases: &[(&str, Files, &str)] = &[
        ("/var/lib/docker", &[], "default"),
        (
            "/data/docker",
            &[(
                "/etc/docker/daemon.json",
                "{\"data-root\":\"/data/docker\"}",
            )],
            "daemon.json",
        ),
        (
            "/data/docker",
            &[("/etc/docker/daemon.json", "{\"graph\":\"/data/docker\"}")],
            "daemon.json",
        ),
        (
            "/data/docker",
            &[
                (
                    "/usr/lib/systemd/system/docker.service",
                    "[Service]\nExecStart=/usr/bin/dockerd -H fd://\n",
                ),
                (
                    DROP_IN,
                    "[Service]\nExecStart=\nExecStart=/usr/bin/dockerd -H fd:// \\\n --data-root=/data/docker\n",
                ),
            ],
            DROP_IN,
        ),
        (
            "/data/docker",
            &[
                (
                    "/lib/systemd/system/docker.service",
                    "[Service]\nExecStart=/usr/bin/dockerd $OPTIONS\n",
                ),
                (
                    "/etc/sysconfig/docker",
                    "OPTIONS='--selinux-enabled -g /data/docker'\n",
                ),
            ],
            "/lib/systemd/system/docker.service",
        ),
        (
            "/data/docker",
            &[("/etc/default/docker", "DOCKER_OPTS=\"-g /data/docker\"\n")],
            "/etc/default/docker",
        ),
        (
            "/srv/d",
            &[
                (
                    "/etc/default/docker",
                    "DOCKER_OPTS=\"--config-file /srv/daemon.json\"\n",
                ),
                ("/srv/daemon.json", "{\"data-root\": \"/srv/d\"}"),
            ],
            "/srv/daemon.json",
        ),
        // Kubespray's.
        (
            "/data/docker",
            &[
                (
                    "/etc/systemd/system/docker.service",
                    "[Service]\nEnvironment=GOTRACEBACK=crash\nExecStart=/usr/bin/dockerd $DOCKER_OPTS -H fd://\n",
                ),
                (
                    "/etc/systemd/system/docker.service.d/docker-options.conf",
                    "[Service]\nEnvironment=\"DOCKER_OPTS= --iptables=false --data-root=/data/docker\" A=b\n",
                ),
            ],
            "/etc/systemd/system/docker.service",
        ),
        (
            "/data/docker",
            &[
                (
                    DROP_IN,
                    "[Service]\nEnvironmentFile=-/srv/docker.env\nExecStart=\nExecStart=/usr/bin/dockerd ${MORE}\n",
                ),
                ("/srv/docker.env", "MORE=--data-root=/data/docker\n"),
            ],
            DROP_IN,
        ),
        (
            "/srv/balena",
            &[(
                "/lib/systemd/system/balena.service",
                "[Service]\nExecStart=/usr/bin/balenad --data-root=/srv/balena\n",
            )],
            "balena.service",
        ),
        ("/var/snap/docker/common/var-lib-docker", &[], "snap"),
        ("/var/lib/balena-engine", &[], "balena"),
        ("/mnt/data/docker", &[], "balena"),
        (
            "/volume2/@docker",
            &[(
                "/var/packages/ContainerManager/etc/dockerd.json",
                "{\"data-root\":\"/var/packages/ContainerManager/var/docker\"}",
            )],
            "Synology",
        ),
        ("/home/ann/.local/share/docker", &[ANN], "user"),
        (
            "/data/ann/docker",
            &[
                ANN,
                (
                    "/home/ann/.config/docker/daemon.json",
                    "{\"data-root\":\"/data/ann/docker\"}",
                ),
            ],
            "/home/ann/.config/docker/daemon.json",
        ),
    ];
    all(docker_at, cases);
}

#[apply(test)]
fn containerd_is_found_in_every_distribution() {
    let cases: &[(&str, Files, &str)] = &[
        ("/var/lib/containerd", &[], "default"),
        (
            "/data/ctd",
            &[(
                "/etc/containerd/config.toml",
                "version = 2\nroot = \"/data/ctd\"\n",
            )],
            "config.toml",
        ),
        (
            "/data/ctd",
            &[(
                "/etc/systemd/system/containerd.service",
                "[Service]\nExecStart=/usr/bin/containerd --root /data/ctd\n",
            )],
            "containerd.service",
        ),
        ("/var/lib/rancher/k3s/agent/containerd", &[], "k3s"),
        (
            "/data/k3s/agent/containerd",
            &[("/etc/rancher/k3s/config.yaml", "data-dir: /data/k3s\n")],
            "config.yaml",
        ),
        (
            "/data/k3s/agent/containerd",
            &[(
                "/etc/rancher/k3s/config.yaml.d/10.yaml",
                "# x\ndata-dir: \"/data/k3s\"\n",
            )],
            "10.yaml",
        ),
        (
            "/data/k3s/agent/containerd",
            &[(
                "/etc/systemd/system/k3s.service",
                "[Service]\nExecStart=/usr/local/bin/k3s \\\n    server '--data-dir' '/data/k3s'\n",
            )],
            "k3s.service",
        ),
        ("/var/lib/rancher/rke2/agent/containerd", &[], "rke2"),
        ("/var/lib/k0s/containerd", &[], "k0s"),
        (
            "/var/snap/microk8s/common/var/lib/containerd",
            &[],
            "MicroK8s",
        ),
        (
            "/var/snap/k8s/common/var/lib/containerd",
            &[],
            "Canonical Kubernetes",
        ),
        (
            "/data/microk8s",
            &[(
                "/var/snap/microk8s/current/args/containerd",
                "--config ${SNAP_DATA}/args/containerd.toml\n--root /data/microk8s\n",
            )],
            "args/containerd",
        ),
        (
            "/var/snap/microk8s/common/big",
            &[(
                "/var/snap/microk8s/current/args/containerd",
                "--root=\"${SNAP_COMMON}/big\"\n--state ${SNAP_COMMON}/run/containerd\n",
            )],
            "args/containerd",
        ),
        (
            "/data/k8s",
            &[(
                "/var/snap/k8s/common/args/containerd",
                "--root=\"/data/k8s\"\n",
            )],
            "args/containerd",
        ),
        ("/home/ann/.local/share/containerd", &[ANN], "user"),
        // A node of kind, a node of k3d, whose containers are gone.
        (
            "/var/lib/docker/volumes/abc/_data/lib/containerd",
            &[],
            "volume",
        ),
        (
            "/var/lib/docker/volumes/abc/_data/agent/containerd",
            &[],
            "volume",
        ),
    ];
    all(containerd_at, cases);
}

#[apply(test)]
fn a_store_of_cri_o_is_found() {
    let cases: &[(&str, Files, &str)] = &[
        (
            "/data/crio",
            &[(
                "/etc/crio/crio.conf.d/01.conf",
                "[crio]\nroot = \"/data/crio\"\nstorage_driver = \"overlay\"\n",
            )],
            "/etc/crio/crio.conf.d/01.conf",
        ),
        (
            "/data/crio",
            &[
                ("/etc/crio/crio.conf", "[crio]\nroot = \"/old\"\n"),
                (
                    "/etc/crio/crio.conf.d/01.conf",
                    "[crio]\nroot = \"/data/crio\"\n",
                ),
                ("/etc/crio/crio.conf.d/02.conf", "[crio.runtime]\n"),
            ],
            "01.conf",
        ),
    ];
    all(storage_at, cases);
    let host = storage_at("/var/lib/containers/storage");
    host.file("/etc/crio/crio.conf", "[crio\n");
    host.ask(["containers"])
        .exits(2)
        .says("/etc/crio/crio.conf");
}

// ---- daemons that run ----

const NAMESPACE: &str = "mnt:[4026531841]";

/// A process of a copied host: its command, its mount namespace and what is mounted there.
fn process(host: &Host, id: u32, words: &[&str], namespace: &str, mounts: &str) {
    let directory = format!("/proc/{id}");
    host.file(format!("{directory}/cmdline"), words.join("\0") + "\0");
    host.file(format!("{directory}/mountinfo"), mounts);
    host.link(format!("{directory}/ns_mnt"), namespace);
}

const HOSTS: &str = "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n";

fn with_process(place: &str, docker: bool, words: &[&str]) -> Host {
    let host = if docker {
        docker_at(place)
    } else {
        containerd_at(place)
    };
    host.file("/proc/self/mountinfo", HOSTS);
    host.link("/proc/self/ns_mnt", NAMESPACE);
    process(&host, 812, words, NAMESPACE, HOSTS);
    host
}

#[apply(test)]
fn what_a_running_daemon_was_told_counts() {
    let host = with_process(
        "/data/docker",
        true,
        &["/usr/bin/dockerd", "--data-root", "/data/docker"],
    );
    // What the file says is not how it was started.
    host.file("/etc/docker/daemon.json", "{}");
    finds(&host, "/data/docker", "/proc/812/cmdline");
    let host = with_process(
        "/data/docker",
        true,
        &["docker", "daemon", "-g", "/data/docker"],
    );
    finds(&host, "/data/docker", "/proc/812/cmdline");
    let host = with_process(
        "/srv/c",
        false,
        &["containerd", "--root=/srv/c", "--state", "/run/c"],
    );
    finds(&host, "/srv/c", "/proc/812/cmdline");
    let host = with_process("/srv/c", false, &["containerd", "-c", "/srv/c.toml"]);
    host.file("/srv/c.toml", "root = \"/srv/c\"\n");
    finds(&host, "/srv/c", "/proc/812/cmdline");
    // A copy may have command lines and nothing else.
    let host = docker_at("/data/docker");
    let words = "/usr/bin/dockerd\0--data-root=/data/docker\0";
    host.file("/proc/812/cmdline", words);
    finds(&host, "/data/docker", "/proc/812/cmdline");
    // Docker's client is no daemon.
    let host = with_process(
        "/var/lib/docker",
        true,
        &["docker", "run", "-g", "/data/docker"],
    );
    finds(&host, "/var/lib/docker", "default");
}

#[apply(test)]
fn a_daemon_in_a_container_keeps_its_data_in_a_volume() {
    let place = "/srv/volumes/node/lib/docker";
    let host = docker_at(place);
    host.file("/proc/self/mountinfo", HOSTS);
    host.link("/proc/self/ns_mnt", NAMESPACE);
    let inside = "50 49 0:60 / / rw - overlay overlay rw\n\
                  51 50 8:1 /srv/volumes/node /var rw - ext4 /dev/sda1 rw\n";
    process(&host, 900, &["dockerd"], "mnt:[4026532999]", inside);
    finds(&host, place, "/proc/900/cmdline");
}

/// A process that was started, and ends with its test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `readlink /proc/PID/exe` and `/proc/PID/ns/mnt` are for whoever may trace the process; its command
/// line and its mounts are for everybody.
#[apply(test)]
fn a_daemon_that_may_not_be_traced_is_known_by_its_command_line() {
    needs::root("a daemon of root's");
    needs::program("setpriv", "--version");
    let host = docker_at("/srv/docker");
    let root = host.at("/srv/docker");
    for at in [host.at("/"), host.at("/srv")] {
        let everybody = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(at, everybody).expect("ours");
    }
    let (daemon, own) = (host.at("/dockerd"), host.at("/layerctl"));
    copy_program("/bin/sh", &daemon);
    copy_program(env!("CARGO_BIN_EXE_layerctl"), &own);
    needs::mounts();
    for before in [&[][..], &["unshare", "--mount"]] {
        let option = format!("--data-root={}", root.display());
        let words = [
            daemon.as_os_str(),
            "-c".as_ref(),
            "read x; true".as_ref(),
            "dockerd".as_ref(),
            option.as_ref(),
        ];
        let words: Vec<&OsStr> = before.iter().map(OsStr::new).chain(words).collect();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).stdin(Stdio::piped());
        let running = Running(command.spawn().expect("a copy of the shell"));
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
        command.arg(&own).args(["info", "--format", "jsonl"]);
        let source = format!("/proc/{}/cmdline", running.0.id());
        let found = |roots: &Value| {
            let roots = roots.as_array().cloned().unwrap_or_default();
            roots.iter().any(|of| {
                let why = of["why"].as_str().unwrap_or_default();
                of["path"] == root.to_str().expect("ASCII")
                    && of["found"] == true
                    && why.contains(&source)
            })
        };
        // The program is another until `exec` is through.
        let is_found = (0..50).any(|_| {
            let rows = run(&mut command).rows();
            let is_found = found(&rows[0]["roots"]);
            if !is_found {
                std::thread::sleep(Duration::from_millis(20));
            }
            is_found
        });
        assert!(is_found, "{before:?}: {:?}", run(&mut command).text());
    }
}

#[apply(test)]
fn an_engine_is_listed_once_however_many_things_name_it() {
    let host = docker_at("/data/docker");
    host.link("/var/lib/docker", "/data/docker");
    host.link("/mnt/data/docker", "/data/docker");
    assert_eq!(host.jsonl(["containers"]).exits(0).rows().len(), 1);
    // Docker in Docker, beside the one whose volume it is.
    docker_in(&host, "/data/docker/volumes/inner/_data");
    let rows = host.jsonl(["containers"]).exits(0).rows();
    assert_eq!(texts(&rows, "name"), ["web", "web"]);
    // A volume with a directory of some name is no engine.
    let host = docker_at("/var/lib/docker");
    host.dir("/var/lib/docker/volumes/x/_data/containers");
    assert_eq!(host.jsonl(["containers"]).exits(0).rows().len(), 1);
}

#[apply(test)]
fn the_very_file_that_names_a_root_is_said() {
    all(
        storage_at,
        &[(
            "/srv/graph",
            &[
                (
                    "/etc/containers/storage.conf",
                    "[storage]\ndriver = \"overlay\"\n",
                ),
                (
                    "/etc/containers/storage.conf.d/10-root.conf",
                    "[storage]\ngraphroot = \"/srv/graph\"\n",
                ),
            ],
            "/etc/containers/storage.conf.d/10-root.conf",
        )],
    );
    all(
        containerd_at,
        &[(
            "/srv/containerd",
            &[
                (
                    "/etc/containerd/config.toml",
                    "imports = [\"conf.d/*.toml\"]\n",
                ),
                (
                    "/etc/containerd/conf.d/root.toml",
                    "root = \"/srv/containerd\"\n",
                ),
            ],
            "/etc/containerd/conf.d/root.toml",
        )],
    );
}

#[apply(test)]
fn what_says_where_to_look_and_cannot_be_read_is_no_silence() {
    for path in [
        "/etc/systemd/system/containerd.service",
        "/usr/lib/systemd/system/docker.service",
        "/etc/systemd/system/k3s.service",
        "/etc/rancher/k3s/config.yaml",
        "/etc/rancher/rke2/config.yaml",
        "/etc/k0s/k0s.yaml",
        "/etc/containerd/config.toml",
        "/etc/docker/daemon.json",
        "/etc/containers/storage.conf",
        "/etc/crio/crio.conf",
    ] {
        let host = docker_at("/var/lib/docker");
        host.dir(path);
        host.ask(["containers"]).exits(2).says(path);
        host.ask(["info"]).exits(2).says(path);
    }
}
