//! Pods of a real containerd, made as a kubelet makes them: what its CRI plugin says of them, and what
//! their processes see, is what layerctl has to say.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use walkdir::WalkDir;

use crate::containerd_live::{self, Containerd, change, changes_of};
use crate::docker_drivers::Change;
use crate::lab::cri::{Client, Fields, Message};
use crate::lab::live::{
    self, CHANGE, CHANGE_MORE, Check, Live, Tree, assert_changes, assert_directories,
    assert_untouched, assert_view, done, os, snapshot,
};
use crate::lab::run::{self, Output, bytes, text};
use crate::lab::table;
use crate::lab::verbs::{self, is_refused};

const IMAGE: &str = "localhost/lab/app:1";
/// What holds a pod's namespaces.
const PAUSE: &str = "localhost/lab/pause:1";
/// Where all that Kubernetes has is.
const NAMESPACE: &str = "k8s.io";

/// What is held of every pod.
const CHECKS: [Check<Pods>; 6] = [
    ("containers and pods", lists_are_the_plugins),
    ("names", names_are_taken_back),
    ("images", images_are_the_plugins),
    ("changed containers", changed_containers),
    ("restore", restore_is_seen),
    ("nothing is written", nothing_is_written),
];

#[apply(test)]
fn pods_agree() {
    let storm: Check<Pods> = ("while pods come and go", nobody_is_accused);
    Live {
        engine: "containerd",
        programs: &["containerd", "ctr", "runc"],
        stores: "pods of Kubernetes (CRI)",
    }
    .run(
        |home| Pods::start(home, false),
        &[&CHECKS[..], &[storm]].concat(),
    );
}

/// Users of a pod's own: ids of the host's, from the first of them on.
#[apply(test)]
fn pods_with_users_of_their_own_agree() {
    let has_them = |version: &str| {
        let version: Vec<u32> = version.split('.').flat_map(str::parse).collect();
        version >= vec![1, 7]
    };
    Live {
        engine: "containerd",
        programs: &["containerd", "ctr", "runc"],
        stores: "pods of Kubernetes with users of their own",
    }
    .of_version(has_them, "knows no pods with users of their own")
    .run(|home| Pods::start(home, true), &CHECKS);
}

/// The first of the host's ids that a pod's users are.
const FIRST_ID: u32 = 200_000;
const IDS: u32 = 65_536;

// ---- the plugin ----

struct Pods {
    containerd: Containerd,
    client: Client,
    /// Whether pods have users of their own.
    own_users: bool,
}

/// A pod, by what Kubernetes calls it.
#[derive(Clone, Copy)]
struct Pod<'n> {
    namespace: &'n str,
    name: &'n str,
    attempt: u64,
    /// As the kubelet labels it, and `crictl` does not.
    has_labels: bool,
}

impl<'n> Pod<'n> {
    fn new(namespace: &'n str, name: &'n str) -> Pod<'n> {
        Pod {
            namespace,
            name,
            attempt: 0,
            has_labels: true,
        }
    }

    fn labelled(&self, message: Message, field: u64) -> Message {
        if !self.has_labels {
            return message;
        }
        message
            .entry(field, "io.kubernetes.pod.name", self.name)
            .entry(field, "io.kubernetes.pod.namespace", self.namespace)
            .entry(field, "io.kubernetes.pod.uid", &self.uid())
    }

    fn uid(&self) -> String {
        format!("{}-{}-uid", self.namespace, self.name)
    }
}

/// A pod that was made, and what it was made of.
struct Made<'n> {
    pod: Pod<'n>,
    id: String,
    config: Message,
}

/// Says that a pod has an address, which is all that is asked of a network.
const NETWORK: &str = r#"#!/bin/busybox sh
case $CNI_COMMAND in
VERSION) echo '{"cniVersion":"0.4.0","supportedVersions":["0.3.1","0.4.0"]}' ;;
ADD) echo '{"cniVersion":"0.4.0","interfaces":[{"name":"'$CNI_IFNAME'","sandbox":"'$CNI_NETNS'"}],
"ips":[{"version":"4","address":"10.9.9.9/24","interface":0}]}' ;;
*) echo '{}' ;;
esac
"#;

impl Drop for Pods {
    fn drop(&mut self) {
        // Whatever fails here, the namespace ends it.
        for pod in self.pods() {
            let _ = self.remove_pod(&pod.text(1));
        }
    }
}

fn message() -> Message {
    Message::default()
}

impl Pods {
    fn start(home: &Path, own_users: bool) -> Result<Pods, String> {
        let own = |name: &str| home.join(name);
        let up = ["ip", "link", "set", "lo", "up"];
        done(Command::new("busybox").args(up))?;
        for directory in ["networks", "network-programs"] {
            fs::create_dir_all(own(directory)).expect("a directory of our own");
        }
        for name in ["loopback", "lab"] {
            let at = own("network-programs").join(name);
            fs::write(&at, NETWORK).expect("a file of our own");
            fs::set_permissions(&at, fs::Permissions::from_mode(0o755)).expect("our own file");
        }
        let network = r#"{"cniVersion":"0.4.0","name":"lab","plugins":[{"type":"lab"}]}"#;
        fs::write(own("networks").join("lab.conflist"), network).expect("a file of our own");
        let plugin = format!(
            "[plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = {PAUSE:?}\n\
             disable_apparmor = true\nrestrict_oom_score_adj = true\n\
             [plugins.\"io.containerd.grpc.v1.cri\".cni]\nbin_dir = {:?}\nconf_dir = {:?}\n",
            own("network-programs"),
            own("networks"),
        );
        let (archive, config) = containerd_live::image(IMAGE, containerd_live::layers());
        let mut first = containerd_live::layers();
        first.truncate(1);
        let (pause, _) = containerd_live::image(PAUSE, first);
        let containerd = Containerd::spawn(home, ["", &plugin], config)?;
        let mut pods = Pods {
            client: Client {
                socket: home.join("socket"),
            },
            containerd,
            own_users,
        };
        let answers = || pods.client.ask("RuntimeService/Version", &message());
        pods.containerd.daemon.wait_for(|| answers().map(|_| ()))?;
        for (name, archive) in [(IMAGE, archive), (PAUSE, pause)] {
            fs::write(own("image.tar"), archive).expect("a file of our own");
            pods.containerd.import(NAMESPACE, "image.tar")?;
            // It hears of what others import a moment later.
            let is_known = || match pods.image(name) {
                Some(_) => Ok(()),
                None => Err(format!("no image {name}")),
            };
            pods.containerd.daemon.wait_for(is_known)?;
        }
        pods.containerd.look_at_image(NAMESPACE)?;
        let probe = pods.try_run(Pod::new("lab", "probe"))?;
        pods.remove_pod(&probe.id)?;
        Ok(pods)
    }

    #[track_caller]
    fn ask_plugin(&self, method: &str, request: &Message) -> Fields {
        let answer = self.client.ask(method, request);
        answer.unwrap_or_else(|why| panic!("{why}\n{}", self.containerd.daemon.complained()))
    }

    /// What the plugin knows of an image.
    fn image(&self, name: &str) -> Option<Fields> {
        let request = message().message(1, &message().bytes(1, name));
        let answer = self.client.ask("ImageService/ImageStatus", &request).ok()?;
        answer.messages(1).pop()
    }

    /// `NamespaceOption`: the node's network; users of its own need one of its own.
    fn namespaces(&self) -> Message {
        const POD: u64 = 0;
        const CONTAINER: u64 = 1;
        const NODE: u64 = 2;
        let own = message().number(1, NODE).number(2, CONTAINER);
        if !self.own_users {
            return own;
        }
        // `IDMapping`: the host's first, the container's first, how many.
        let ids = message().number(1, FIRST_ID.into()).number(2, 0);
        let ids = ids.number(3, IDS.into());
        let users = message().number(1, POD).message(2, &ids).message(3, &ids);
        message()
            .number(1, POD)
            .number(2, CONTAINER)
            .message(5, &users)
    }

    /// `PodSandboxConfig`
    fn pod_config(&self, pod: &Pod) -> Message {
        let metadata = message()
            .bytes(1, pod.name)
            .bytes(2, pod.uid())
            .bytes(3, pod.namespace)
            .number(4, pod.attempt);
        let security = message().message(1, &self.namespaces());
        let group = [b"/", live::cgroup(&self.containerd.home).as_bytes()].concat();
        let linux = message().bytes(1, group).message(2, &security);
        let logs = self.containerd.home.join("logs").join(pod.uid());
        let config = message()
            .message(1, &metadata)
            // On the node's network it has the node's.
            .bytes(2, if self.own_users { pod.name } else { "" })
            .bytes(3, logs.as_os_str().as_bytes());
        pod.labelled(config, 6).message(8, &linux)
    }

    fn try_run<'n>(&self, pod: Pod<'n>) -> Result<Made<'n>, String> {
        let config = self.pod_config(&pod);
        let request = message().message(1, &config);
        let answer = self.client.ask("RuntimeService/RunPodSandbox", &request);
        let answer =
            answer.map_err(|why| format!("{why}\n{}", self.containerd.daemon.complained()))?;
        let id = answer.text(1);
        Ok(Made { pod, id, config })
    }

    #[track_caller]
    fn run_pod<'n>(&self, pod: Pod<'n>) -> Made<'n> {
        self.try_run(pod).unwrap_or_else(|why| panic!("{why}"))
    }

    fn stop_pod(&self, id: &str) -> Result<(), String> {
        let request = message().bytes(1, id);
        let answer = self.client.ask("RuntimeService/StopPodSandbox", &request);
        answer.map(|_| ())
    }

    fn remove_pod(&self, id: &str) -> Result<(), String> {
        self.stop_pod(id)?;
        let request = message().bytes(1, id);
        let answer = self.client.ask("RuntimeService/RemovePodSandbox", &request);
        answer.map(|_| ())
    }

    /// Makes a container of a pod, which does not run yet.
    fn try_create(
        &self,
        of: &Made,
        name: &str,
        attempt: u64,
        script: &str,
    ) -> Result<String, String> {
        let metadata = message().bytes(1, name).number(2, attempt);
        let security = message().message(3, &self.namespaces());
        let mut config = message()
            .message(1, &metadata)
            .message(2, &message().bytes(1, IMAGE));
        for word in ["sh", "-c", script] {
            config = config.bytes(3, word);
        }
        config = of.pod.labelled(config, 9);
        if of.pod.has_labels {
            config = config.entry(9, "io.kubernetes.container.name", name);
        }
        let config = config
            .bytes(11, format!("{name}-{attempt}.log"))
            .message(15, &message().message(2, &security));
        let request = message()
            .bytes(1, &of.id)
            .message(2, &config)
            .message(3, &of.config);
        let answer = self.client.ask("RuntimeService/CreateContainer", &request);
        answer.map(|answer| answer.text(1))
    }

    #[track_caller]
    fn create(&self, of: &Made, name: &str, attempt: u64, script: &str) -> String {
        let made = self.try_create(of, name, attempt, script);
        made.unwrap_or_else(|why| panic!("{why}\n{}", self.containerd.daemon.complained()))
    }

    #[track_caller]
    fn start_container(&self, id: &str) {
        self.ask_plugin("RuntimeService/StartContainer", &message().bytes(1, id));
    }

    #[track_caller]
    fn stop_container(&self, id: &str) {
        self.ask_plugin("RuntimeService/StopContainer", &message().bytes(1, id));
    }

    /// Makes a container, and starts it.
    #[track_caller]
    fn run(&self, of: &Made, name: &str, attempt: u64) -> String {
        // What its first process prints is its log.
        let id = self.create(of, name, attempt, "echo said; sleep 3600");
        self.start_container(&id);
        id
    }

    /// Runs a script in a container.
    #[track_caller]
    fn exec(&self, id: &str, script: &str) -> Vec<u8> {
        let mut request = message().bytes(1, id);
        for word in ["sh", "-c", script] {
            request = request.bytes(2, word);
        }
        let answer = self.ask_plugin("RuntimeService/ExecSync", &request);
        let complaint = answer.bytes(2);
        assert_eq!(
            answer.number(3),
            0,
            "{script}: {}",
            complaint.escape_ascii()
        );
        answer.bytes(1)
    }

    /// `PodSandbox`es.
    fn pods(&self) -> Vec<Fields> {
        let listed = self.client.ask("RuntimeService/ListPodSandbox", &message());
        listed.map(|all| all.messages(1)).unwrap_or_default()
    }

    /// `Container`s.
    fn containers(&self) -> Vec<Fields> {
        let listed = self.ask_plugin("RuntimeService/ListContainers", &message());
        listed.messages(1)
    }

    /// `ContainerStatus`
    #[track_caller]
    fn status(&self, id: &str) -> Fields {
        let request = message().bytes(1, id);
        self.ask_plugin("RuntimeService/ContainerStatus", &request)
            .message(1)
    }

    /// The first process, by what the plugin says when it says all.
    #[track_caller]
    fn pid(&self, id: &str) -> String {
        let request = message().bytes(1, id).number(2, 1);
        let answer = self.ask_plugin("RuntimeService/ContainerStatus", &request);
        let mut info = answer.messages(2).into_iter();
        let info = info.find(|entry| entry.text(1) == "info");
        let info = info.expect("it says all").bytes(2);
        let info: Value = serde_json::from_slice(&info).expect("JSON");
        info["pid"].to_string()
    }

    fn rootfs(&self, id: &str) -> PathBuf {
        self.containerd.rootfs(NAMESPACE, id)
    }

    fn directories(&self, id: &str) -> Vec<Vec<u8>> {
        self.containerd.directories(NAMESPACE, id)
    }

    /// What is below a container's own layer, as the container sees it.
    fn below(&self, id: &str) -> Tree {
        if !self.own_users {
            return self.containerd.image.clone();
        }
        // containerd 1.7 copies the image's files for other owners, and what was setuid is so no more.
        let at = self.containerd.home.join("below");
        fs::create_dir_all(&at).expect("a directory of our own");
        let lower = self.directories(id).split_off(1).join(&b":"[..]);
        let options = [b"ro,lowerdir=", &lower[..]].concat();
        let mut mount = Command::new("mount");
        mount.args(["-t", "overlay", "overlay", "-o"]);
        done(mount.arg(os(&options)).arg(&at)).unwrap_or_else(|why| panic!("{why}"));
        let mut tree = live::tree(&at);
        done(Command::new("umount").arg(&at)).unwrap_or_else(|why| panic!("{why}"));
        live::shift_owners_below(&mut tree, FIRST_ID);
        tree
    }

    #[track_caller]
    fn changes(&self, name: &str) -> BTreeSet<Change> {
        changes_of(&ask(["changes", name]).exits(0).rows())
    }
}

fn ask(arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Output {
    let options = ["--format", "jsonl"].map(Into::into);
    let arguments = arguments.into_iter().map(|word| word.as_ref().to_owned());
    run::layerctl(options.into_iter().chain(arguments))
}

/// Waits until a container has ended by itself.
#[track_caller]
fn has_ended(pods: &Pods, id: &str) {
    const EXITED: u64 = 2;
    let ends = Instant::now() + Duration::from_secs(600);
    while pods.status(id).number(3) != EXITED {
        assert!(Instant::now() < ends, "{id} does not end");
        thread::sleep(Duration::from_millis(20));
    }
}

/// RFC 3339, of nanoseconds.
fn moment(nanoseconds: u64) -> Value {
    if nanoseconds == 0 {
        return Value::Null;
    }
    let nanoseconds = i128::from(nanoseconds);
    let time = jiff::Timestamp::from_nanosecond(nanoseconds).expect("a time");
    json!(time.to_string())
}

// ---- lists ----

fn lists_are_the_plugins(pods: &Pods) {
    let web = pods.run_pod(Pod::new("shop", "web-0"));
    let first = pods.run(&web, "app", 0);
    pods.stop_container(&first);
    pods.run(&web, "app", 1);
    let job = pods.create(&web, "job", 0, "exit 3");
    pods.start_container(&job);
    has_ended(pods, &job);
    pods.create(&web, "not-yet", 0, "sleep 3600");
    // The same name in another namespace of Kubernetes'.
    let other = pods.run_pod(Pod::new("team", "web-0"));
    pods.run(&other, "app", 0);
    // One whose sandbox was stopped, with all that was in it, and the one that stands for it now.
    let stopped = pods.run_pod(Pod::new("shop", "db-0"));
    pods.run(&stopped, "db", 0);
    pods.stop_pod(&stopped.id).expect("it runs");
    let again = Pod {
        attempt: 1,
        ..Pod::new("shop", "db-0")
    };
    let again = pods.run_pod(again);
    pods.run(&again, "db", 1);
    // As `crictl` makes them.
    let bare = Pod {
        has_labels: false,
        ..Pod::new("lab", "bare")
    };
    let bare = pods.run_pod(bare);
    pods.run(&bare, "app", 0);

    let rows = ask(["containers"]).exits(0).rows();
    let (said, sandboxes) = (pods.containers(), pods.pods());
    assert_eq!(said.len(), 8);
    assert_eq!(sandboxes.len(), 5);
    assert_eq!(rows.len(), said.len() + sandboxes.len());
    let row_of = |id: &str| {
        let mut rows = rows.iter();
        rows.find(|row| row["id"] == id)
            .unwrap_or_else(|| panic!("no {id}"))
    };
    // `PodSandboxMetadata`: name, uid, namespace, attempt.
    let of_pod: BTreeMap<String, Fields> = sandboxes
        .iter()
        .map(|of| (of.text(1), of.message(2)))
        .collect();
    for said in &sandboxes {
        let row = row_of(&said.text(1));
        let name = said.message(2);
        let is_ready = said.number(3) == 0;
        let state = if is_ready { "running" } else { "exited" };
        assert_eq!(row["state"], state, "{row}");
        assert_eq!(row["name"], name.text(1), "{row}");
        assert_eq!(row["image"], PAUSE, "{row}");
        let pod =
            json!({"name": name.text(1), "namespace": name.text(3), "attempt": name.number(4)});
        assert_eq!(row["pod"], pod, "{row}");
        assert_eq!(row["mounted"], is_ready, "{row}");
    }
    for said in &said {
        let id = said.text(1);
        let row = row_of(&id);
        let status = pods.status(&id);
        let state =
            ["created", "running", "exited"][usize::try_from(status.number(3)).expect("small")];
        assert_eq!(row["state"], state, "{row}");
        let (pod, own) = (&of_pod[&said.text(2)], said.message(3));
        let name = json!({
            "name": pod.text(1), "namespace": pod.text(3), "container": own.text(1), "attempt": own.number(2),
        });
        assert_eq!(row["pod"], name, "{row}");
        assert_eq!(
            row["name"],
            format!("{}/{}", pod.text(1), own.text(1)),
            "{row}"
        );
        assert_eq!(row["engine"], "containerd", "{row}");
        assert_eq!(row["namespace"], NAMESPACE, "{row}");
        assert_eq!(row["driver"], "overlayfs", "{row}");
        let image = status.message(8).text(1);
        assert_eq!(row["image"], image, "{row}");
        let images = ask(["images"]).exits(0).rows();
        let mut images = images.iter();
        let named = images.find(|row| row["tags"].to_string().contains(&image));
        assert_eq!(row["image_id"], named.expect("it is listed")["id"], "{row}");
        assert_eq!(row["started"], moment(status.number(5)), "{row}");
        assert_eq!(row["finished"], moment(status.number(6)), "{row}");
        let code = row["exit_code"].as_u64();
        assert!(code.is_some() || state != "exited", "{row}");
        assert_eq!(code.unwrap_or_default(), status.number(7), "{row}");
        assert_eq!(row["mounted"], state == "running", "{row}");
    }
}

/// Every name that is shown is one that every verb takes, and means what it is shown for.
fn names_are_taken_back(pods: &Pods) {
    let shown = run::layerctl(["containers", "--no-trunc"]);
    let shown = shown.exits(0).text().to_owned();
    let shown = table::columns(&shown, &["CONTAINER ID", "NAMES"]);
    let mut names: BTreeSet<&str> = BTreeSet::new();
    for row in &shown {
        let [id, name] = &row[..] else {
            panic!("{row:?}");
        };
        assert!(names.insert(name), "{name} twice");
        let label = ask(["branches", id]).exits(0).row()["target"].clone();
        for spelled in [id, &id[..12], name, &format!("containerd:{id}")] {
            let row = ask(["branches", spelled]).exits(0).row();
            assert_eq!(row["owner"]["id"], *id, "{spelled}");
            assert_eq!(row["target"], label, "{spelled}");
        }
    }
    for name in [
        "shop/web-0/app (attempt 0)",
        "shop/web-0/app (attempt 1)",
        "team/web-0/app",
        "web-0/job",
        "db-0/db (attempt 0)",
        "db-0/db (attempt 1)",
        "db-0 (attempt 0)",
        "shop/web-0",
        "bare/app",
    ] {
        assert!(names.contains(name), "no {name} in {names:?}");
    }
    // What runs is meant by a name that it shares with what came before it.
    let running = |name: &str| {
        let row = ask(["branches", name]).exits(0).row();
        let id = text(&row["owner"], "id").to_owned();
        assert_eq!(pods.status(&id).number(3), 1, "{name}");
    };
    running("shop/web-0/app");
    running("db-0/db");
    let two = ask(["branches", "web-0/app"]).exits(2);
    for whole in ["shop/web-0/app", "team/web-0/app"] {
        assert!(two.stderr.contains(whole), "{}", two.stderr);
    }
    for name in [
        "shop/web-0/app (attempt 0)",
        "shop/web-0/app (attempt 1)",
        "web-0/job",
        "db-0 (attempt 0)",
    ] {
        let row = ask(["branches", name]).exits(0).row();
        let id = text(&row["owner"], "id");
        let asked = |spelled: &str| {
            verbs::reading(
                spelled.as_ref(),
                "/etc/passwd".as_ref(),
                "/var/lib".as_ref(),
            )
        };
        for (by_name, by_id) in asked(name).iter().zip(&asked(id)) {
            let (by_name, by_id) = (ask(by_name), ask(by_id));
            assert_eq!(
                by_name.status, by_id.status,
                "{name}: {} {}",
                by_name.stderr, by_id.stderr
            );
        }
    }
}

fn images_are_the_plugins(pods: &Pods) {
    let rows = ask(["images", "--all"]).exits(0).rows();
    let said = pods.ask_plugin("ImageService/ListImages", &message());
    // `Image`: id, tags, digests. Who names an image by its digest has one more name for it.
    let said: BTreeMap<String, String> = said
        .messages(1)
        .iter()
        .map(|image| (image.text(2), image.text(1)))
        .collect();
    assert_eq!(said.keys().collect::<Vec<_>>(), [IMAGE, PAUSE]);
    assert_eq!(rows.len(), 2, "{rows:?}");
    for (tag, id) in &said {
        let listed = |name: &str| {
            let rows = ask(["branches", name]).exits(0).rows();
            rows.iter()
                .map(crate::lab::host::directories)
                .collect::<Vec<_>>()
        };
        let of_tag = listed(tag);
        assert!(!of_tag.is_empty());
        for name in [&**id, id.trim_start_matches("sha256:")] {
            assert_eq!(listed(name), of_tag, "{name}");
        }
        let row = rows
            .iter()
            .find(|row| row["tags"].to_string().contains(tag));
        assert!(row.is_some(), "no {tag}: {rows:?}");
    }
    let listed = ask(["ls", "-R", "-l", IMAGE]);
    assert_view(IMAGE, listed, &live::view(&pods.containerd.image));
}

// ---- what containers show ----

/// A tree without what is mounted in it, and without what these mounts hide.
fn without_mounts(mut tree: Tree, pid: &str) -> Tree {
    let mounts = fs::read(format!("/proc/{pid}/mountinfo")).expect("it runs");
    let points: Vec<Vec<u8>> = mounts
        .split(|&byte| byte == b'\n')
        .filter_map(|line| line.split(|&byte| byte == b' ').nth(4))
        .map(<[u8]>::to_vec)
        .filter(|point| point != b"/")
        .collect();
    assert!(points.len() > 5, "{points:?}");
    tree.retain(|path, _| {
        let is_below = |point: &Vec<u8>| {
            let rest = path.strip_prefix(&point[..]);
            rest.is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
        };
        !points.iter().any(is_below)
    });
    tree
}

/// What a container's snapshot shows: to its processes, or mounted for the question.
fn seen(pods: &Pods, id: &str, runs: bool) -> Tree {
    if !runs {
        let mut tree = pods.containerd.mounted(NAMESPACE, id);
        if pods.own_users {
            live::shift_owners_below(&mut tree, FIRST_ID);
        }
        return tree;
    }
    let tree = live::tree(&pods.rootfs(id));
    let pid = pods.pid(id);
    let inside = live::tree(Path::new(&format!("/proc/{pid}/root/")));
    assert_eq!(
        without_mounts(inside, &pid),
        without_mounts(tree.clone(), &pid)
    );
    tree
}

fn changed_containers(pods: &Pods) {
    let pod = pods.run_pod(Pod::new("prod", "changed-0"));
    let first = pods.run(&pod, "app", 0);
    pods.exec(&first, CHANGE);
    pods.stop_container(&first);
    let second = pods.run(&pod, "app", 1);
    pods.exec(&second, CHANGE);
    pods.exec(&second, CHANGE_MORE);
    let plain = pods.run(&pod, "plain", 0);
    for (id, runs) in [(&first, false), (&second, true), (&plain, true)] {
        a_container(pods, id, runs);
    }
    // To its own users it is as it would be without any.
    let owner = pods.exec(&second, "stat -c '%u %g' /opt/app/2 /opt/app/1");
    assert_eq!(owner, b"12 34\n0 0\n");
    pods.stop_container(&second);
    a_container(pods, &second, false);
    let log = fs::read_to_string(pods.status(&second).text(15)).expect("its log");
    assert!(log.ends_with(" stdout F said\n"), "{log}");
    pods.stop_pod(&pod.id).expect("it runs");
    a_container(pods, &second, false);
    let truth = differences(pods, &second, &seen(pods, &second, false));
    for expected in [
        change(b'A', "/new/deep/file"),
        change(b'C', "/etc/passwd"),
        change(b'A', "/opt/app/9/in"),
        change(b'D', "/opt/app/7"),
        change(b'D', "/opt/tree/d"),
        change(b'D', "/opt/tree/e/link"),
    ] {
        assert!(truth.contains(&expected), "no {expected:?}");
    }
    // The pod's own shows what its image has.
    ask(["changes", &pod.id]).exits(0);
    let checked = ask(["check"]).exits(0);
    assert!(checked.rows().is_empty(), "{}", checked.text());
    let found = ask(["orphans"]).exits(0);
    assert!(found.rows().is_empty(), "{}", found.text());
}

fn differences(pods: &Pods, id: &str, seen: &Tree) -> BTreeSet<Change> {
    live::differences(&pods.below(id), seen)
}

/// All that can be asked of a container, against what is on disk and what the kernel shows.
fn a_container(pods: &Pods, id: &str, runs: bool) {
    let seen = seen(pods, id, runs);
    let truth = differences(pods, id, &seen);
    let ours = pods.changes(id);
    assert_changes(id, &ours, &truth);
    if !pods.own_users {
        // Containerd's differ has the old names of a file that has a new one.
        let mut said = pods.containerd.differ(NAMESPACE, id);
        said.remove(&change(b'C', "/opt/app/10"));
        assert_changes("its differ", &said, &truth);
    }
    assert_view(id, ask(["ls", "-R", "-l", id]), &live::view(&seen));
    let directories = pods.directories(id);
    let row = ask(["branches", id]).exits(0).row();
    assert_directories(id, &row, &directories);
    assert_eq!(row["owner"]["id"], *id, "{row}");
    assert_eq!(
        row["state"],
        if runs { "mounted" } else { "not-mounted" },
        "{row}"
    );
    let upper = Path::new(os(&directories[0]));
    let (marks, others) = on_disk(upper);
    let rows = ask(["whiteouts", id]).exits(0).rows();
    let shown: BTreeSet<Vec<u8>> = rows.iter().map(|row| bytes(&row["path"])).collect();
    assert_eq!(shown, marks, "whiteouts {id}");
    let (image, shown) = (live::view(&pods.below(id)), live::view(&seen));
    let is_copy = |path: &&Vec<u8>| {
        let (was, is) = (image.get(*path), shown.get(*path));
        let both = was.zip(is).filter(|(was, is)| was.kind == is.kind);
        // A directory is in the upper one whatever changes in it.
        both.is_some_and(|(was, is)| is.kind == "file" || was.rights != is.rights)
    };
    let copied: BTreeSet<Vec<u8>> = others.iter().filter(is_copy).cloned().collect();
    let rows = ask(["copyups", id]).exits(0).rows();
    let shown: BTreeSet<Vec<u8>> = rows.iter().map(|row| bytes(&row["path"])).collect();
    assert_eq!(shown, copied, "copyups {id}");
    ask(["check", id]).exits(0);
    for (path, _) in live::view(&seen)
        .iter()
        .filter(|(_, entry)| entry.kind == "file")
    {
        let target = [id.as_bytes(), b":", path].concat();
        let which = ask(["which".as_ref(), os(&target)]).exits(0).row();
        let branch = usize::try_from(which["branch"].as_u64().expect("a branch")).expect("small");
        let relative = os(path.strip_prefix(b"/").expect("whole"));
        let first = directories
            .iter()
            .position(|at| Path::new(os(at)).join(relative).symlink_metadata().is_ok());
        assert_eq!(Some(branch), first, "{which}");
        let content =
            fs::read(Path::new(os(&directories[branch])).join(relative)).expect("it is there");
        let shown = run::layerctl(["cat".as_ref(), os(&target)]).exits(0);
        assert!(shown.stdout == content, "{which}");
    }
    for (at, directory) in directories.iter().enumerate() {
        let row = ask(["whois".as_ref(), os(directory)]).exits(0).row();
        let users = if at == 0 { "containers" } else { "above" };
        assert!(row[users].to_string().contains(id), "{row}");
    }
    sizes(pods, id, upper);
}

/// What a directory and all in it take on disk.
fn blocks(root: &Path) -> u64 {
    let mut counted = BTreeSet::new();
    let entries = WalkDir::new(root).into_iter();
    let sizes = entries.map(|entry| {
        let meta = entry.and_then(|entry| entry.metadata());
        let meta = meta.expect("root may read it");
        let is_new = counted.insert((meta.dev(), meta.ino()));
        if is_new { meta.blocks() * 512 } else { 0 }
    });
    sizes.sum()
}

fn sizes(pods: &Pods, id: &str, upper: &Path) {
    let data = pods.containerd.home.join("data");
    // Until blocks are given, each look guesses another number of them.
    let directory = fs::File::open(&data).expect("a directory of our own");
    rustix::fs::syncfs(directory).expect("it can be written");
    let rows = ask(["du", id]).exits(0).rows();
    let disk = |kind: &str| {
        let mut rows = rows.iter();
        rows.find(|row| row["kind"] == kind)
            .map(|row| row["disk"].clone())
    };
    let snapshot = upper.parent().expect("it has a work directory, too");
    assert_eq!(disk("layer"), Some(json!(blocks(snapshot))), "{id}");
    let record = data.join("io.containerd.grpc.v1.cri/containers").join(id);
    assert_eq!(disk("records"), Some(json!(blocks(&record))), "{id}");
    // They are where the kubelet wants them, which is not in containerd's store.
    assert_eq!(disk("log"), None, "{id}");
    let rows = ask(["du"]).exits(0).rows();
    let row = rows.iter().find(|row| row["id"] == *id);
    let row = row.expect("it is there");
    assert_eq!(row["disk"], blocks(snapshot) + blocks(&record), "{row}");
    assert_eq!(row["logs"], Value::Null, "{row}");
}

/// What an upper directory has on disk: marks of what is deleted, and the rest.
fn on_disk(upper: &Path) -> (BTreeSet<Vec<u8>>, BTreeSet<Vec<u8>>) {
    let (mut marks, mut others) = (BTreeSet::new(), BTreeSet::new());
    for entry in WalkDir::new(upper).min_depth(1) {
        let entry = entry.expect("root may read it");
        let meta = entry.metadata().expect("nobody removes it");
        let inside = entry.path().strip_prefix(upper).expect("below it");
        let path = [b"/", inside.as_os_str().as_bytes()].concat();
        let mut value = [0; 8];
        let opaque = rustix::fs::lgetxattr(entry.path(), "trusted.overlay.opaque", &mut value);
        let is_whiteout = meta.file_type().is_char_device() && meta.rdev() == 0;
        if is_whiteout || opaque.is_ok_and(|length| &value[..length] == b"y") {
            marks.insert(path.clone());
        }
        if !is_whiteout {
            others.insert(path);
        }
    }
    (marks, others)
}

// ---- what is restored ----

fn restore_is_seen(pods: &Pods) {
    let pod = pods.run_pod(Pod::new("prod", "restored-0"));
    let id = pods.run(&pod, "app", 0);
    let delete = "rm -r /opt/app/7 /opt/app/6 /opt/tree/h; ls -l /opt/app/7 /opt/tree/h || true";
    pods.exec(&id, delete);
    let name = "restored-0/app";
    let file = format!("{name}:/opt/app/7");
    ask(["restore", &file]).exits(0);
    ask(["restore", &format!("{name}:/opt/app/6")]).exits(0);
    ask(["restore", "--recursive", &format!("{name}:/opt/tree/h")]).exits(0);
    ask(["restore", &file]).exits(1);
    let pid = pods.pid(&id);
    let root = PathBuf::from(format!("/proc/{pid}/root"));
    let shown = fs::read(root.join("opt/app/7")).expect("it is back");
    assert_eq!(shown, b"7 as it was\n");
    let owners = pods.exec(
        &id,
        "stat -c '%u %g' /opt/app/7 /opt/app/6 /opt/tree/h /opt/tree/h/file",
    );
    assert_eq!(owners, b"0 0\n7 8\n0 0\n7 8\n");
    let of_host = fs::symlink_metadata(root.join("opt/app/6")).expect("it is back");
    let first = if pods.own_users { FIRST_ID } else { 0 };
    assert_eq!((of_host.uid(), of_host.gid()), (first + 7, first + 8));
    let unchanged = {
        let other = pods.run(&pod, "other", 0);
        differences(pods, &other, &seen(pods, &other, true))
    };
    let truth = differences(pods, &id, &seen(pods, &id, true));
    assert_changes("restored", &truth, &unchanged);
    assert_changes("restored", &pods.changes(&id), &unchanged);

    pods.exec(&id, "rm /opt/app/7 /opt/app/6; rm -r /opt/tree/d");
    pods.stop_container(&id);
    for path in ["/opt/app/7", "/opt/app/6", "/opt/tree/d"] {
        ask(["restore", "--recursive", &format!("{name}:{path}")]).exits(0);
    }
    let (back, below) = (seen(pods, &id, false), pods.below(&id));
    for path in [
        "/opt/app/7",
        "/opt/app/6",
        "/opt/tree/d",
        "/opt/tree/d/deep/er/file",
    ] {
        assert_eq!(
            back.get(path.as_bytes()),
            below.get(path.as_bytes()),
            "{path}"
        );
    }
    assert_changes("restored", &pods.changes(&id), &unchanged);
}

// ---- what is left alone ----

fn nothing_is_written(pods: &Pods) {
    let pod = pods.run_pod(Pod::new("prod", "read-0"));
    let running = pods.run(&pod, "running", 0);
    let stopped = pods.run(&pod, "stopped", 0);
    for id in [&running, &stopped] {
        pods.exec(id, "rm /opt/app/7; echo more >> /opt/app/2");
    }
    pods.stop_container(&stopped);
    let all = || {
        let mut all = snapshot(&pods.containerd.home.join("data"));
        all.extend(snapshot(&pods.containerd.home.join("state")));
        all
    };
    let before = live::settled(&all);
    for name in ["read-0/running", "read-0/stopped", "prod/read-0"] {
        for asked in verbs::reading(name.as_ref(), "/opt/app/7".as_ref(), "/var/lib".as_ref()) {
            let output = ask(&asked);
            let answers = is_refused(&asked) || output.status != Some(2);
            assert!(answers, "{asked:?} {}", output.stderr);
        }
    }
    assert_untouched(&before, &all(), "reading");
}

/// While pods are made, changed, stopped and removed, `orphans` finds nothing.
fn nobody_is_accused(pods: &Pods) {
    let come_and_go = |name: &str| -> Result<(), String> {
        let pod = pods.try_run(Pod::new("storm", name))?;
        for attempt in 0..2 {
            let id = pods.try_create(&pod, "app", attempt, "rm -r /opt/tree; sleep 3600")?;
            let of = message().bytes(1, &id);
            pods.client.ask("RuntimeService/StartContainer", &of)?;
            pods.client.ask("RuntimeService/StopContainer", &of)?;
            if attempt == 0 {
                pods.client.ask("RuntimeService/RemoveContainer", &of)?;
            }
        }
        pods.remove_pod(&pod.id)
    };
    let step = |words: &[&str]| {
        come_and_go(words[0]).unwrap_or_else(|why| panic!("{why}"));
    };
    let jobs = ["storm-1", "storm-2"].map(|name| vec![vec![name]]);
    live::assert_nobody_is_accused(&jobs, &step, 100, |asked| ask(asked));
}
