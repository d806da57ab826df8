//! A real Docker on overlay2 and on containerd's image store, started here and changed here: what its daemon says and what its
//! containers see is what layerctl has to say, and what layerctl restores has to be seen there.
//!
//! Numbers are those of FACTS-engines. All of it runs again in namespaces of its own: whatever
//! becomes of the test, no daemon, no container and no mount outlives it.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::docker_drivers::{
    Change, Entry, MOUNTED_FILES, View, beside_mounts, change_of_row, changes, kind_of_mode,
};
use crate::lab::host::directories;
use crate::lab::live::{self, Check, Daemon, Live, Snapshot};
use crate::lab::packed::{assert_same, of_archive, sum};
use crate::lab::run::{self, Output, bytes, text};

/// More layers than a dozen, and of everything that a layer can do to those below it.
const DOCKERFILE: &str = r#"
FROM scratch
ADD root /
RUN ["/bin/busybox", "--install", "-s", "/bin"]
RUN mkdir -p /etc /opt/app /root /srv /tmp /var/tmp && chmod 1777 /tmp /var/tmp && echo root:x:0:0:root:/root:/bin/sh > /etc/passwd
RUN for n in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do echo "$n as it was" > /opt/app/$n; done
RUN for d in a b c d e f g h; do mkdir -p "/opt/tree/$d/deep/er" && echo "$d" > "/opt/tree/$d/deep/er/file" && echo "$d" > "/opt/tree/$d/file" && ln -s deep "/opt/tree/$d/link"; done
RUN ln /opt/tree/h/file /opt/tree/h/same && chmod 2750 /opt/tree/h/deep && chown 7:8 /opt/tree/h/file
RUN echo "changed in a layer" > /opt/app/2 && chmod 4750 /opt/app/5 && chown 7:8 /opt/app/6
RUN rm /opt/app/3
RUN rm -r /opt/tree/a && mkdir /opt/tree/a && echo again > /opt/tree/a/again
RUN rm -r /opt/tree/b && echo "a file" > /opt/tree/b
RUN rm /opt/app/4 && mkdir /opt/app/4 && echo in > /opt/app/4/in
RUN mkdir /opt/odd && cd /opt/odd && for name in "$(printf 'new\nline')" "$(printf 'not utf\377')" ' white space ' 'back\slash' 'a:b' '"'; do echo "$name" > "$name"; done
RUN mkdir /srv/weird && echo x > /srv/weird/.wh.notawhiteout && ln -s ../opt/app /srv/link
RUN rm /opt/app/3 2>/dev/null || echo "back in a layer" > /opt/app/3
RUN head -c 300000 /bin/busybox > /opt/big
CMD ["sleep", "3600"]
"#;

/// They share the daemon, and each has containers of its own.
/// What is so wherever Docker keeps layers.
const CHECKS: [Check<Docker>; 13] = [
    ("a changed container", a_changed_container),
    ("an unchanged container", an_unchanged_container),
    ("what is handed over", what_docker_hands_over),
    ("restore while it runs", restore_while_it_runs),
    (
        "restore of trees while it runs",
        restore_of_a_tree_while_it_runs,
    ),
    ("restore of odd names", restore_of_odd_names),
    ("restore after stop", restore_after_stop),
    ("restore of changed files", restore_of_changed_files),
    ("restore that changes nothing", restore_that_changes_nothing),
    ("containers that go", containers_that_go),
    ("while others come and go", nobody_is_accused),
    ("another mount namespace", mounted_only_elsewhere),
    (
        "a mount in a container",
        restore_below_a_mount_of_the_container,
    ),
];

/// What is asked of Docker's own stores besides.
const OF_DRIVERS: [Check<Docker>; 4] = [
    ("names of a union", every_name_of_a_union_means_it),
    ("an image", an_image),
    (
        "images that leave and come back",
        images_leave_and_come_back,
    ),
    ("containers, images and info", lists_are_dockers),
];

#[apply(test)]
fn docker_agrees() {
    // Later ones leave containers that are mounted in other namespaces only.
    let (early, late) = CHECKS.split_at(3);
    let in_order = [early, &OF_DRIVERS, late].concat();
    Live {
        engine: "Docker",
        programs: &["dockerd", "docker"],
        stores: "overlay2",
    }
    .run(|home| Docker::start(home, &OVERLAY2), &in_order);
}

/// What newer Dockers keep layers in by themselves: its own containerd.
#[apply(test)]
fn docker_agrees_on_containerds_image_store() {
    let live = Live {
        engine: "Docker",
        programs: &["dockerd", "docker"],
        stores: "containerd's image store",
    };
    let has_it = |version: &str| {
        let major = version
            .split('.')
            .next()
            .and_then(|major| major.parse().ok());
        major.is_some_and(|major: u32| major >= 26)
    };
    live.of_version(has_it, "has no image store of containerd's")
        .run(|home| Docker::start(home, &CONTAINERDS), &CHECKS);
}

/// Where Docker keeps layers.
pub struct Store {
    has_snapshotter: bool,
    /// Whether images have a file that is called as a whiteout: it cannot be committed to containerd's
    /// store, and is in no archive.
    has_mark: bool,
    pub driver: &'static str,
    /// Below the data directory.
    layers: &'static str,
}

const OVERLAY2: Store = Store {
    has_snapshotter: false,
    has_mark: true,
    driver: "overlay2",
    layers: "overlay2",
};

/// The same, of images that can be carried elsewhere.
pub const CARRIED: Store = Store {
    has_mark: false,
    ..OVERLAY2
};

/// Whose layers are whole copies.
pub const WHOLE: Store = Store {
    driver: "vfs",
    layers: "vfs/dir",
    ..CARRIED
};

pub const CONTAINERDS: Store = Store {
    has_snapshotter: true,
    has_mark: false,
    driver: "overlayfs",
    layers: "containerd/daemon/io.containerd.snapshotter.v1.overlayfs/snapshots",
};

// ---- the daemon ----

pub struct Docker {
    pub home: PathBuf,
    pub store: &'static Store,
    /// The directories of containers that were mounted, where only the kernel tells them.
    mounted: Mutex<BTreeMap<String, Vec<Vec<u8>>>>,
    daemon: Daemon,
    /// How many containers were made.
    made: AtomicUsize,
}

impl Drop for Docker {
    fn drop(&mut self) {
        // Whatever fails here, the namespace ends it.
        let all = self.command(["ps", "-aq"]).output();
        let all = all.map_or(Vec::new(), |output| output.stdout);
        let all = String::from_utf8_lossy(&all);
        if !all.is_empty() {
            let _ = self
                .command(["rm", "-f"])
                .args(all.split_whitespace())
                .output();
        }
    }
}

impl Docker {
    /// Starts the daemon and builds the image; or says why this machine cannot.
    pub fn start(home: &Path, store: &'static Store) -> Result<Docker, String> {
        let docker = Docker::without_images(home, store)?;
        docker.build()?;
        docker.asked(["run", "--rm", "--network", "none", IMAGE, "true"])?;
        Ok(docker)
    }

    /// Starts the daemon alone.
    pub fn without_images(home: &Path, store: &'static Store) -> Result<Docker, String> {
        let own = |name: &str| home.join(name);
        fs::create_dir(own("client")).expect("a directory of our own");
        let config = json!({
            "features": { "containerd-snapshotter": store.has_snapshotter },
            "exec-opts": ["native.cgroupdriver=cgroupfs"],
        });
        fs::write(own("daemon.json"), config.to_string()).expect("a file of our own");
        let option = |name: &str, path: &str| {
            [OsStr::new(name), own(path).as_os_str()].join(OsStr::new("="))
        };
        let mut socket = OsString::from("--host=unix://");
        socket.push(own("socket"));
        let mut parent = OsString::from("--cgroup-parent=/");
        parent.push(live::cgroup(home));
        let mut arguments = vec![
            option("--config-file", "daemon.json"),
            option("--data-root", "data"),
            option("--exec-root", "exec"),
            option("--pidfile", "pid"),
            socket,
            parent,
        ];
        let network = ["--iptables=false", "--ip6tables=false", "--ip-masq=false"];
        arguments.push(format!("--storage-driver={}", store.driver).into());
        arguments.push("--bridge=none".into());
        arguments.extend(network.map(OsString::from));
        let daemon = Daemon::spawn("dockerd", arguments, home)?;
        let docker = Docker {
            home: home.to_owned(),
            store,
            mounted: Mutex::default(),
            daemon,
            made: AtomicUsize::new(0),
        };
        let answers = || docker.asked(["version"]).map(|_| ());
        docker.daemon.wait_for(answers)?;
        Ok(docker)
    }

    fn build(&self) -> Result<(), String> {
        let context = self.home.join("context");
        live::busybox(&context.join("root"))?;
        let steps = DOCKERFILE.lines();
        let steps = steps.filter(|step| self.store.has_mark || !step.contains(".wh."));
        let steps: Vec<&str> = steps.collect();
        fs::write(context.join("Dockerfile"), steps.join("\n")).expect("a file of our own");
        self.asked([
            OsStr::new("build"),
            OsStr::new("--quiet"),
            OsStr::new("--network=none"),
            OsStr::new("--tag"),
            OsStr::new(IMAGE),
            context.as_os_str(),
        ])?;
        Ok(())
    }

    /// The client, in an environment of its own.
    pub fn command(&self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
        let mut socket = OsString::from("unix://");
        socket.push(self.home.join("socket"));
        let mut command = Command::new("docker");
        command
            .env_remove("DOCKER_CONTEXT")
            .env("DOCKER_HOST", socket)
            .env("DOCKER_CONFIG", self.home.join("client"))
            .env("DOCKER_BUILDKIT", "0")
            .stdin(Stdio::null())
            .args(arguments);
        command
    }

    /// What the client prints, or what it complains of.
    pub fn asked(
        &self,
        arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
    ) -> Result<Vec<u8>, String> {
        live::asked(&mut self.command(arguments))
    }

    #[track_caller]
    pub fn printed(&self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Vec<u8> {
        self.asked(arguments).unwrap_or_else(|why| panic!("{why}"))
    }

    #[track_caller]
    pub fn said(&self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> String {
        String::from_utf8(self.printed(arguments)).expect("docker prints UTF-8")
    }

    /// Every line of a list that docker prints as JSON.
    #[track_caller]
    fn listed(&self, arguments: &[&str]) -> Vec<Value> {
        let said = self.said(arguments.iter().chain(&["--format", "{{json .}}"]));
        said.lines()
            .map(|line| serde_json::from_str(line).expect("docker prints JSON"))
            .collect()
    }

    #[track_caller]
    pub fn inspected(&self, what: &str) -> Value {
        let found: Value =
            serde_json::from_str(&self.said(["inspect", what])).expect("docker prints JSON");
        found[0].clone()
    }

    /// Starts a container of the image.
    #[track_caller]
    pub fn run(&self) -> String {
        let name = self.new_name();
        self.said(["run", "-d", "--network=none", "--name", &name, IMAGE]);
        name
    }

    /// The first number of its version.
    fn major(&self) -> u32 {
        let version = self.said(["version", "--format", "{{.Server.Version}}"]);
        let major = version.split('.').next().map(str::parse);
        major.expect("a version").expect("a number")
    }

    pub fn new_name(&self) -> String {
        format!("lab-{}", self.made.fetch_add(1, Ordering::Relaxed) + 1)
    }

    #[track_caller]
    pub fn stop(&self, container: &str) {
        if self.store.has_snapshotter {
            self.directories(container);
        }
        self.said(["stop", "--time=0", container]);
    }

    /// Runs a script in a container.
    #[track_caller]
    pub fn exec(&self, container: &str, script: &str) -> Vec<u8> {
        self.printed(["exec", container, "sh", "-c", script])
    }

    /// What a container reads; none where it finds nothing.
    fn cat(&self, container: &str, path: impl AsRef<OsStr>) -> Option<Vec<u8>> {
        let mut command = self.command(["exec", container, "cat"]);
        let output = command.arg(path).output().expect("docker ran before");
        output.status.success().then_some(output.stdout)
    }

    #[track_caller]
    fn pid(&self, container: &str) -> String {
        self.inspected(container)["State"]["Pid"].to_string()
    }

    fn diff(&self, container: &str) -> BTreeSet<Change> {
        changes(self.said(["diff", container]))
    }

    /// The directories of a container's or an image's layers, topmost first.
    #[track_caller]
    fn directories(&self, what: &str) -> Vec<Vec<u8>> {
        if self.store.has_snapshotter {
            return self.mounted_directories(what);
        }
        let driver = self.inspected(what)["GraphDriver"].clone();
        assert_eq!(driver["Name"], "overlay2");
        let upper = text(&driver["Data"], "UpperDir");
        let lower = driver["Data"]["LowerDir"].as_str().unwrap_or_default();
        let all = [upper].into_iter().chain(lower.split(':'));
        all.filter(|path| !path.is_empty())
            .map(|path| path.as_bytes().to_vec())
            .collect()
    }

    /// The same of a container that is mounted or was when it was asked for last, as the kernel has
    /// them.
    #[track_caller]
    fn mounted_directories(&self, container: &str) -> Vec<Vec<u8>> {
        let merged = self.merged(container);
        let table = fs::read_to_string("/proc/self/mountinfo").expect("a mount table");
        let mut lines = table.lines();
        let line = lines.find(|line| line.split(' ').nth(4) == Some(&*merged));
        let mut known = self.mounted.lock().expect("no thread panicked");
        if let Some(line) = line {
            let option = |name: &str| line.split(',').find_map(|word| word.strip_prefix(name));
            let lower = option("lowerdir=").expect("an overlay").split(':');
            let upper = option("upperdir=").expect("a container");
            let all = [upper].into_iter().chain(lower);
            known.insert(container.into(), all.map(Into::into).collect());
        }
        known[container].clone()
    }

    /// Where a container's root is mounted.
    #[track_caller]
    pub fn merged(&self, container: &str) -> String {
        let said = self.inspected(container);
        if self.store.has_snapshotter {
            let roots = self.home.join("data/rootfs").join(self.store.driver);
            let at = roots.join(text(&said, "Id")).into_os_string();
            return at.into_string().expect("plain names");
        }
        if self.store.driver == "vfs" {
            let data = self.home.join("data");
            let mounts = data.join("image/vfs/layerdb/mounts");
            let id = fs::read_to_string(mounts.join(text(&said, "Id")).join("mount-id"));
            let at = data.join("vfs/dir").join(id.expect("its record"));
            return at.into_os_string().into_string().expect("plain names");
        }
        text(&said["GraphDriver"]["Data"], "MergedDir").to_owned()
    }

    #[track_caller]
    fn upper(&self, container: &str) -> PathBuf {
        PathBuf::from(OsString::from_vec(self.directories(container).remove(0)))
    }

    /// Everything that the daemon keeps of layers, as far as `lstat` can tell a change.
    fn layers(&self) -> Snapshot {
        live::snapshot(&self.home.join("data").join(self.store.layers))
    }

    /// `layerctl` in a machine's format.
    pub fn ask(&self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Output {
        run::run(
            run::command()
                .arg("--docker-root")
                .arg(self.home.join("data"))
                .args(["--format", "jsonl"])
                .args(arguments),
        )
    }

    /// `restore` of a path of a container.
    fn restore(&self, options: &[&str], container: &str, path: impl AsRef<OsStr>) -> Output {
        let arguments = ["restore", "--in", container];
        let arguments = arguments.iter().chain(options).chain(&["--"]);
        let mut arguments: Vec<&OsStr> = arguments.map(OsStr::new).collect();
        arguments.push(path.as_ref());
        self.ask(arguments)
    }
}

pub const IMAGE: &str = "lab/app:1";

// ---- what is compared ----

/// Everything that is done in a container.
pub fn change_all() -> String {
    [live::CHANGE, live::CHANGE_MORE, live::CHANGE_MARKS].concat()
}

/// As docker prints a name: JSON loses what is not UTF-8 on the way (61).
fn as_docker_prints(change: &Change) -> Change {
    let (letter, path) = change;
    (*letter, String::from_utf8_lossy(path).into_owned().into())
}

#[track_caller]
fn assert_changes_are_docker_diff(docker: &Docker, container: &str) -> BTreeSet<Change> {
    let rows = docker.ask(["changes", container]).exits(0).rows();
    let ours: BTreeSet<Change> = rows.iter().map(change_of_row).collect();
    assert_eq!(ours.len(), rows.len(), "{container}: a line twice");
    let ours_printed = ours.iter().map(as_docker_prints).collect();
    live::assert_changes(container, &ours_printed, &docker.diff(container));
    ours
}

/// What `find` and `stat` see in a container, without what is mounted below its root.
fn view_of(docker: &Docker, container: &str) -> View {
    // A name that `readdir` lists and `lstat` denies is complained of, and not found.
    let find = |then: &str| {
        docker.exec(
            container,
            &format!("cd /; find . -xdev {then} 2>/dev/null; true"),
        )
    };
    let names = |listed: &[u8]| -> Vec<Vec<u8>> {
        let names = listed.split(|&byte| byte == 0);
        names
            .filter(|name| !name.is_empty())
            .map(|name| name[1..].to_vec())
            .collect()
    };
    let all = names(&find("-print0"));
    let stats = String::from_utf8(find("-print0 | xargs -0 stat -c '%f %a %u %g %s'"))
        .expect("stat prints numbers");
    assert_eq!(all.len(), stats.lines().count(), "{container}");
    let links = names(&find("-type l -print0"));
    let targets = find("-type l -print0 | xargs -0 -n 1 readlink");
    let targets: Vec<&[u8]> = targets.split(|&byte| byte == b'\n').collect();
    assert_eq!(links.len(), targets.len() - 1, "{container}");
    let targets: BTreeMap<&Vec<u8>, &[u8]> = links.iter().zip(targets).collect();
    let mut view = View::new();
    for (path, stat) in all.iter().zip(stats.lines()) {
        let [mode, rights, uid, gid, size] = stat.split(' ').collect::<Vec<_>>()[..] else {
            panic!("{stat}");
        };
        let kind = kind_of_mode(u32::from_str_radix(mode, 16).expect("a mode"));
        let number = |text: &str| text.parse().expect("a number");
        let entry = Entry {
            kind: kind.into(),
            rights: Some((
                u32::from_str_radix(rights, 8).expect("a mode"),
                number(uid),
                number(gid),
            )),
            size: (kind == "file").then(|| number(size)),
            target: targets.get(path).map(|target| target.to_vec()),
        };
        // The root itself is no name.
        if !path.is_empty() {
            view.insert(path.clone(), entry);
        }
    }
    beside_mounts(view)
}

#[track_caller]
fn assert_view(docker: &Docker, container: &str, seen: &View) {
    let listed = docker.ask(["ls", "-R", "-l", &format!("{container}:/")]);
    let ours = beside_mounts(live::listed(container, listed));
    live::assert_same_view(container, &ours, seen);
}

/// The content of every regular file, as the container reads it.
fn contents_of(docker: &Docker, container: &str) -> BTreeMap<Vec<u8>, String> {
    let find = |then: &str| {
        docker.exec(
            container,
            &format!("cd /; find . -xdev -type f -print0 2>/dev/null {then}; true"),
        )
    };
    let names = find("");
    let names = names
        .split(|&byte| byte == 0)
        .filter(|name| !name.is_empty());
    let sums = find("| xargs -0 -n 1 sh -c 'sha256sum < \"$1\"' sh");
    let sums = String::from_utf8(sums).expect("sha256sum prints digits");
    let sums: Vec<&str> = sums.lines().map(|line| &line[..64]).collect();
    let names: Vec<Vec<u8>> = names.map(|name| name[1..].to_vec()).collect();
    assert_eq!(names.len(), sums.len(), "{container}");
    let all = names.into_iter().zip(sums.into_iter().map(str::to_owned));
    all.filter(|(path, _)| !MOUNTED_FILES.contains(&path.as_slice()))
        .collect()
}

/// Every file's provider has what the container reads.
#[track_caller]
fn assert_providers(docker: &Docker, container: &str, contents: &BTreeMap<Vec<u8>, String>) {
    let directories = docker.directories(container);
    let arguments = ["which", "--in", container, "--"].map(OsStr::new);
    let paths = contents.keys().map(|path| OsStr::from_bytes(path));
    let rows = docker
        .ask(arguments.into_iter().chain(paths))
        .exits(0)
        .rows();
    assert_eq!(rows.len(), contents.len(), "{container}");
    for (row, (path, said)) in rows.iter().zip(contents) {
        assert_eq!(bytes(&row["path"]), *path, "{container}");
        assert_eq!(row["state"], "present", "{row}");
        assert_eq!(row["type"], "file", "{row}");
        let branch = row["branch"].as_u64().expect("a branch");
        let branch = usize::try_from(branch).expect("a small number");
        let at = [&directories[branch][..], path].concat();
        let found = fs::read(OsStr::from_bytes(&at))
            .unwrap_or_else(|error| panic!("{}: {error}", at.escape_ascii()));
        assert_eq!(sum(&found), *said, "{container}: {}", path.escape_ascii());
        // The first version on disk is not always the one that is seen, but no other is above.
        let versions = row["versions"].as_array().expect("versions");
        assert!(versions.iter().any(|version| version["branch"] == branch));
    }
}

// ---- what is looked at ----

fn a_changed_container(docker: &Docker) {
    let container = docker.run();
    docker.exec(&container, &change_all());
    let (seen, contents) = (view_of(docker, &container), contents_of(docker, &container));
    let change = |letter, path: &[u8]| (letter, path.to_vec());
    let running = assert_changes_are_docker_diff(docker, &container);
    for expected in [
        change(b'A', b"/new/deep/file"),
        change(b'C', b"/etc/passwd"),
        change(b'C', b"/opt/app/1"),
        change(b'D', b"/opt/app/7"),
        change(b'D', b"/opt/tree/d"),
        change(b'D', b"/opt/tree/e/link"),
        change(b'D', b"/opt/odd/new\nline"),
        change(b'A', b"/root/odd/\xff\xfe"),
        change(b'A', b"/root/odd/.wh.mine"),
    ] {
        let (letter, path) = &expected;
        let line = format!("{} {}", *letter as char, path.escape_ascii());
        assert!(running.contains(&expected), "no {line}");
    }
    // Copied up, and no different.
    assert!(!running.contains(&change(b'C', b"/opt/app/6")));
    assert_view(docker, &container, &seen);
    assert!(contents.len() > 40, "{}", contents.len());
    assert_providers(docker, &container, &contents);
    assert_where_links_lead(docker, &container);

    let deleted = ["/opt/app/7", "/opt/tree/d/deep/er/file", "/opt/tree/e/link"];
    for path in deleted {
        assert_eq!(docker.cat(&container, path), None);
        let row = docker
            .ask(["which", &format!("{container}:{path}")])
            .exits(1)
            .row();
        assert_eq!(row["state"], "deleted", "{row}");
        assert_eq!(row["hidden_by"]["branch"], 0, "{row}");
        assert!(!row["versions"].as_array().expect("versions").is_empty());
    }
    // All that is left of an image's deleted file.
    let rows = docker
        .ask(["whiteouts", "--recoverable", &container])
        .exits(0)
        .rows();
    let found: BTreeSet<Vec<u8>> = rows.iter().map(|row| bytes(&row["path"])).collect();
    for path in ["/opt/app/7", "/opt/tree/d", "/opt/tree/c/deep/er/file"] {
        assert!(found.contains(path.as_bytes()), "{path} of {found:?}");
    }
    let rows = docker.ask(["copyups", &container]).exits(0).rows();
    let copied: BTreeSet<Vec<u8>> = rows.iter().map(|row| bytes(&row["path"])).collect();
    for path in ["/etc/passwd", "/opt/app/6", "/opt/big"] {
        assert!(copied.contains(path.as_bytes()), "{path} of {copied:?}");
    }

    docker.stop(&container);
    let stopped = assert_changes_are_docker_diff(docker, &container);
    live::assert_changes(&container, &stopped, &running);
    assert_view(docker, &container, &seen);
    assert_providers(docker, &container, &contents);
}

/// `cp` to a tar file is what docker makes of the same.
fn what_docker_hands_over(docker: &Docker) {
    let container = docker.run();
    docker.exec(&container, &change_all());
    let ours = |path: &str| {
        let mut command = run::command();
        command.arg("--docker-root").arg(docker.home.join("data"));
        command.args(["cp", &format!("{container}:{path}"), "-"]);
        let output = run::run(&mut command).exits(0);
        of_archive(&output.stdout[..])
    };
    let mut command = docker.command(["cp"]);
    let output = command.arg(format!("{container}:/opt")).arg("-").output();
    let theirs = of_archive(&output.expect("docker ran before").stdout[..]);
    assert_same("docker cp", &ours("/opt"), &theirs);
    docker.stop(&container);
    let theirs = of_archive(&docker.printed(["export", &container])[..]);
    assert_same("docker export", &ours("/"), &theirs);
}

fn assert_where_links_lead(docker: &Docker, container: &str) {
    for (asked, path) in [
        ("/root/link/2", "/opt/app/2"),
        ("/root/up", "/etc/passwd"),
        ("/opt/tree/h/link/er/file", "/opt/tree/h/deep/er/file"),
    ] {
        let row = docker
            .ask(["which", &format!("{container}:{asked}")])
            .exits(0)
            .row();
        assert_eq!(row["path"], path, "{row}");
        assert_eq!(docker.cat(container, asked), docker.cat(container, path));
    }
}

fn an_unchanged_container(docker: &Docker) {
    let container = docker.run();
    assert_eq!(
        assert_changes_are_docker_diff(docker, &container),
        BTreeSet::new()
    );
    assert_view(docker, &container, &view_of(docker, &container));
    assert_providers(docker, &container, &contents_of(docker, &container));
    if docker.store.has_snapshotter {
        return;
    }
    // Docker made a whiteout of that file, and a directory of one layer is not merged (14, 54).
    // `ls` complains of names that it was told and does not find.
    let listed = docker.exec(&container, "ls -A /srv/weird 2>&1 || true");
    let is_listed = !listed.is_empty();
    assert_eq!(docker.cat(&container, "/srv/weird/notawhiteout"), None);
    let ghosts = docker
        .ask(["ls", "-v", &format!("{container}:/srv/weird")])
        .exits(0)
        .rows();
    if is_listed {
        assert_eq!(ghosts.len(), 1, "{ghosts:?}");
        assert_eq!(ghosts[0]["path"], "/srv/weird/notawhiteout");
        assert_eq!(ghosts[0]["error"], "ENOENT");
    } else {
        assert!(ghosts.is_empty(), "{ghosts:?}")
    }
}

fn every_name_of_a_union_means_it(docker: &Docker) {
    let container = docker.run();
    let said = docker.inspected(&container);
    let branches = docker.directories(&container);
    assert!(branches.len() > 14);
    let id = text(&said, "Id");
    let merged = text(&said["GraphDriver"]["Data"], "MergedDir");
    let pid = docker.pid(&container);

    let row = docker.ask(["branches", &container]).exits(0).row();
    assert_eq!(directories(&row), branches);
    assert_eq!(row["target"], format!("docker:{container}"));
    assert_eq!(row["state"], "mounted");
    let mounts = row["mounts"].as_array().expect("mounts");
    assert!(mounts.contains(&json!(merged)), "{row}");
    assert_eq!(row["owner"]["engine"], "docker");
    assert_eq!(row["owner"]["kind"], "container");
    assert_eq!(row["owner"]["id"], id);
    let rows = row["branches"].as_array().expect("branches");
    let layers = docker.inspected(IMAGE)["RootFS"]["Layers"].clone();
    let layers = layers.as_array().expect("layers").len();
    for (index, branch) in rows.iter().enumerate() {
        let role = match index {
            0 => "container".into(),
            1 => "init".into(),
            _ => format!("image {}/{layers}", layers + 2 - index),
        };
        assert_eq!(branch["role"], role.as_str(), "{branch}");
        let is_writable = text(branch, "permission").starts_with("rw");
        assert_eq!(is_writable, index == 0, "{branch}");
    }

    for name in [id, &id[..12], merged, &format!("{merged}/opt"), &pid] {
        let of_name = docker.ask(["branches", name]).exits(0).row();
        assert_eq!(directories(&of_name), branches, "{name}");
    }
    let here = fs::read(Path::new(merged).join("opt/app/2")).expect("it is mounted");
    assert_eq!(docker.cat(&container, "/opt/app/2"), Some(here));
    let expected = docker
        .ask(["which", &format!("{container}:/opt/app/2")])
        .exits(0)
        .row();
    for arguments in [
        vec![format!("{pid}:/opt/app/2")],
        vec![format!("/proc/{pid}/root/opt/app/2")],
        vec![format!("{merged}/opt/app/2")],
        vec!["--in".into(), merged.into(), "/opt/app/2".into()],
        vec!["--in".into(), pid.clone(), "/opt/app/2".into()],
    ] {
        let row = docker
            .ask([String::from("which")].into_iter().chain(arguments))
            .exits(0)
            .row();
        for field in ["path", "branch", "layer", "versions", "trail"] {
            assert_eq!(row[field], expected[field], "{row}");
        }
    }
    // The kernel alone knows enough of a process.
    let row = run::layerctl(["--format", "jsonl", "branches", &pid])
        .exits(0)
        .row();
    let real = |path: &Vec<u8>| fs::canonicalize(OsStr::from_bytes(path)).expect("a directory");
    let found: Vec<PathBuf> = directories(&row).iter().map(real).collect();
    assert_eq!(found, branches.iter().map(real).collect::<Vec<_>>());

    let all = docker.ask(["branches"]).exits(0).rows();
    let found = all
        .iter()
        .find(|row| row["target"] == format!("docker:{container}"));
    assert_eq!(directories(found.expect("all unions")), branches);

    docker.stop(&container);
    let row = docker.ask(["branches", &container]).exits(0).row();
    assert_eq!(directories(&row), branches);
    assert_eq!(row["state"], "not-mounted");
    assert_eq!(row["mounts"], json!([]));
    assert_eq!(docker.ask(["branches", &pid]).status, Some(2));
}

fn an_image(docker: &Docker) {
    let said = docker.inspected(IMAGE);
    let row = docker.ask(["branches", IMAGE]).exits(0).row();
    assert_eq!(directories(&row), docker.directories(IMAGE));
    let rows = docker.ask(["history", IMAGE]).exits(0).rows();
    let history = docker.listed(&["history", "--no-trunc", "--human=false", IMAGE]);
    assert_eq!(rows.len(), history.len());
    for (row, said) in rows.iter().zip(&history) {
        let id = row["image"]
            .as_str()
            .map_or("<missing>".into(), |id| format!("sha256:{id}"));
        assert_eq!(id, text(said, "ID"));
        assert_eq!(text(row, "instruction"), text(said, "CreatedBy"));
        assert_eq!(row["size"].to_string(), text(said, "Size"));
    }
    // Newest first, and the layers of an image are named oldest first.
    let diffs: Vec<&Value> = rows.iter().filter_map(|row| row.get("diff_id")).collect();
    let layers = said["RootFS"]["Layers"].as_array().expect("layers");
    assert!(layers.len() > 12);
    assert_eq!(diffs, layers.iter().rev().collect::<Vec<_>>());
}

/// What is exported, removed and loaded has the id that it had; a container as an image has its files.
fn images_leave_and_come_back(docker: &Docker) {
    let archive = docker.home.join("leaving.tar");
    let to = archive.to_str().expect("a plain path");
    // An image without the file that every engine takes for a deletion: that is nowhere.
    let first = docker.run();
    docker.said(["export", "-o", to, &first]);
    docker.said(["import", to, "lab/flat:1"]);
    docker.said(["rm", "-f", &first]);
    fs::remove_file(&archive).expect("our own");
    let container = docker.new_name();
    let run = [
        "run",
        "-d",
        "--network=none",
        "--name",
        &container,
        "lab/flat:1",
    ];
    docker.said([&run[..], &["sleep", "100000"]].concat());
    docker.exec(&container, live::CHANGE);
    docker.said(["commit", &container, "lab/leaving:1"]);
    let before = docker.inspected("lab/leaving:1");
    let rows = docker.ask(["verify", "lab/leaving:1"]).exits(0).rows();
    assert!(rows.iter().all(|row| row["state"] == "proved"));
    let row = docker.ask(["export", "lab/leaving:1", "-o", to]);
    let row = row.exits(0).row();
    assert_eq!(row["image"], before["Id"]);
    docker.said(["rmi", "lab/leaving:1"]);
    docker.said(["load", "-i", to]);
    let after = docker.inspected("lab/leaving:1");
    assert_eq!(after["Id"], before["Id"]);
    assert_eq!(after["RootFS"], before["RootFS"]);

    let row = docker.ask(["export", &container, "--as", "docker", "--force", "-o", to]);
    let row = row.exits(0).row();
    docker.said(["load", "-i", to]);
    let again = docker.new_name();
    let image = text(&row, "image");
    docker.said(["run", "-d", "--network=none", "--name", &again, image]);
    let files = "cd / && find . -xdev ! -path './etc/host*' ! -path './etc/resolv.conf' \
                 ! -path './dev*' ! -path './proc*' ! -path './sys*' \
                 -exec stat -c '%n %F %a %u %g' {} + | sort; \
                 find opt srv root new bin etc/passwd -type f -exec md5sum {} + | sort";
    let (ours, theirs) = (docker.exec(&again, files), docker.exec(&container, files));
    assert!(theirs.len() > 1000);
    assert_eq!(
        String::from_utf8_lossy(&ours),
        String::from_utf8_lossy(&theirs)
    );
    docker.said(["rm", "-f", &again, &container]);
    docker.said(["rmi", "-f", image, "lab/leaving:1", "lab/flat:1"]);
}

fn lists_are_dockers(docker: &Docker) {
    let (running, paused, exited) = (docker.run(), docker.run(), docker.run());
    let created = docker.new_name();
    docker.said([
        "create",
        "--network=none",
        "--name",
        &created,
        IMAGE,
        "true",
    ]);
    docker.said(["pause", &paused]);
    docker.stop(&exited);
    docker.exec(&running, "echo committed > /committed");
    docker.said(["commit", &running, "lab/committed"]);
    names_that_went(docker, &running);
    health_is_dockers(docker);

    let rows = docker.ask(["containers"]).exits(0).rows();
    let said = docker.listed(&["ps", "--all", "--no-trunc"]);
    let table = fs::read_to_string("/proc/self/mountinfo").expect("a mount table");
    assert_eq!(rows.len(), said.len());
    for said in &said {
        let row = rows
            .iter()
            .find(|row| row["id"] == said["ID"])
            .unwrap_or_else(|| panic!("no {said}"));
        assert_eq!(row["name"], said["Names"]);
        assert_eq!(row["image"], said["Image"]);
        assert_eq!(
            text(row, "command"),
            text(said, "Command").trim_matches('"')
        );
        let inspected = docker.inspected(text(said, "ID"));
        assert_eq!(row["created"], inspected["Created"]);
        assert_eq!(row["driver"], inspected["Driver"]);
        let state = &inspected["State"];
        assert_eq!(row["state"], state["Status"]);
        assert_eq!(row["exit_code"], state["ExitCode"]);
        assert_eq!(
            format!("sha256:{}", text(row, "image_id")),
            text(&inspected, "Image")
        );
        // Docker 26 leaves mounted what it exported.
        let merged = docker.merged(text(said, "ID"));
        let is_mounted = table
            .lines()
            .any(|line| line.split(' ').nth(4) == Some(&*merged));
        assert_eq!(row["mounted"], is_mounted, "{row}");
        assert!(is_mounted || state["Running"] == false, "{row}");
    }
    for (name, state) in [
        (&running, "running"),
        (&paused, "paused"),
        (&exited, "exited"),
        (&created, "created"),
    ] {
        let row = rows.iter().find(|row| row["name"] == name.as_str());
        assert_eq!(row.expect("it was made")["state"], state);
    }
    for name in [&paused, &created] {
        assert_changes_are_docker_diff(docker, name);
        let row = docker.ask(["branches", name]).exits(0).row();
        assert_eq!(directories(&row), docker.directories(name), "{name}");
    }

    let rows = docker.ask(["images", "--all"]).exits(0).rows();
    let said: BTreeSet<String> = docker
        .said(["images", "--all", "--no-trunc", "--quiet"])
        .lines()
        .map(str::to_owned)
        .collect();
    let ours: BTreeSet<String> = rows
        .iter()
        .map(|row| format!("sha256:{}", text(row, "id")))
        .collect();
    assert_eq!(ours, said);
    assert!(said.len() > 12);
    for row in &rows {
        let said = docker.inspected(text(row, "id"));
        let layers = said["RootFS"]["Layers"].as_array().expect("layers");
        assert_eq!(row["tags"], said["RepoTags"], "{row}");
        assert_eq!(row["layer_count"], layers.len(), "{row}");
        assert_eq!(row["size"], said["Size"], "{row}");
        assert_eq!(row["created"], said["Created"], "{row}");
    }

    let said: Value = serde_json::from_str(&docker.said(["info", "--format", "{{json .}}"]))
        .expect("docker prints JSON");
    let row = docker.ask(["info"]).exits(0).row();
    let engine = &row["engines"][0];
    for (field, name) in [
        ("container_count", "Containers"),
        ("running_count", "ContainersRunning"),
        ("paused_count", "ContainersPaused"),
        ("stopped_count", "ContainersStopped"),
        ("image_count", "Images"),
        ("storage_driver", "Driver"),
    ] {
        assert_eq!(engine[field], said[name], "{name}");
    }
    let status = said["DriverStatus"].as_array().expect("a list");
    let backing = status.iter().find(|pair| pair[0] == "Backing Filesystem");
    assert_eq!(engine["backing_filesystem"], backing.expect("it tells")[1]);
    let root = Path::new(text(&said, "DockerRootDir")).join("overlay2");
    assert_eq!(engine["root_dir"], json!(root));
    // Where the tests run in a container, its root is one more.
    let mounted = fs::read_to_string("/proc/self/mountinfo").expect("a mount table");
    let mounted: BTreeSet<&str> = mounted
        .lines()
        .filter(|line| line.contains(" - overlay "))
        .filter_map(|line| line.split(' ').nth(2))
        .collect();
    assert!(mounted.len() >= docker.said(["ps", "--quiet"]).lines().count());
    assert_eq!(row["mounted_count"], mounted.len());
    assert_eq!(row["problems"], json!([]));
    docker.said(["unpause", &paused]);
}

// ---- what is restored ----

/// Containers whose images have not their names any more: removed by force, and given to another one.
fn names_that_went(docker: &Docker, of: &str) {
    let create = |image: &str| {
        let name = docker.new_name();
        docker.said(["create", "--network=none", "--name", &name, image, "true"]);
    };
    for name in ["lab/forced", "lab/moved"] {
        docker.said(["commit", of, name]);
        create(name);
    }
    docker.said(["rmi", "--force", "lab/forced"]);
    docker.said(["tag", "lab/committed", "lab/moved"]);
    let by_id = docker.inspected(IMAGE);
    let id = text(&by_id, "Id");
    for image in [id, &id["sha256:".len()..][..12]] {
        create(image);
    }
    let said = docker.said(["ps", "--all", "--format", "{{.Names}} {{.Image}}"]);
    let ours = docker
        .ask(["containers", "--format", "{{.Names}} {{.Image}}"])
        .exits(0)
        .text()
        .to_owned();
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<BTreeSet<_>>();
    assert_eq!(lines(&ours), lines(&said));
}

fn health_is_dockers(docker: &Docker) {
    let mut made = Vec::new();
    for (check, status) in [
        ("true", "healthy"),
        ("false", "unhealthy"),
        ("sleep 9", "starting"),
    ] {
        let name = docker.new_name();
        docker.said([
            "run",
            "-d",
            "--network=none",
            "--health-interval=1s",
            "--health-retries=1",
            "--health-timeout=60s",
            "--health-cmd",
            check,
            "--name",
            &name,
            IMAGE,
        ]);
        made.push((name, status));
    }
    for (name, status) in &made {
        let waited = docker.daemon.wait_for(|| {
            let said = docker.inspected(name);
            let is_so = said["State"]["Health"]["Status"] == *status;
            is_so.then_some(()).ok_or_else(|| said["State"].to_string())
        });
        waited.expect("its checks run");
        let rows = docker.ask(["containers"]).exits(0).rows();
        let row = rows.iter().find(|row| row["name"] == name.as_str());
        let told = row.expect("it was made")["health"].clone();
        // Newer ones keep it in memory: nothing is told then, and nothing else.
        if told.is_null() && (*status == "starting" || docker.major() >= 26) {
            continue;
        }
        assert_eq!(told, *status);
        let line = |text: &str| {
            let line = text.lines().find(|line| line.starts_with(name.as_str()));
            let (_, health) = line.unwrap_or_default().split_once('(').unwrap_or_default();
            health.to_owned()
        };
        let format = "{{.Names}} {{.Status}}";
        let said = docker.said(["ps", "--all", "--format", format]);
        let ours = docker.ask(["containers", "--format", format]).exits(0);
        assert_eq!(line(ours.text()), line(&said), "{said}");
    }
    for (name, _) in &made {
        docker.said(["rm", "--force", name]);
    }
}

fn is_whiteout(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|meta| meta.mode() >> 12 == 0o02 && meta.rdev() == 0)
}

fn restore_while_it_runs(docker: &Docker) {
    let container = docker.run();
    let path = "/opt/app/7";
    let before = docker.cat(&container, path).expect("the image has it");
    let stat = format!("stat -c '%a %u %g %s %Y' {path}");
    let stat_before = docker.exec(&container, &stat);
    // Looked up after its deletion, so that the kernel has it in mind (64).
    docker.exec(&container, &format!("rm {path}; ls -l {path} || true"));
    assert_eq!(docker.cat(&container, path), None);
    let change = (b'D', path.as_bytes().to_vec());
    assert!(docker.diff(&container).contains(&change));

    let row = docker
        .ask(["restore", &format!("{container}:{path}")])
        .exits(0)
        .row();
    assert_eq!(row["strategy"], "copy", "{row}");
    assert_eq!(row["applied"], true, "{row}");
    assert_eq!(docker.cat(&container, path), Some(before.clone()));
    assert_eq!(docker.exec(&container, &stat), stat_before);
    assert_eq!(docker.diff(&container), BTreeSet::new());
    assert_eq!(
        assert_changes_are_docker_diff(docker, &container),
        BTreeSet::new()
    );
    // There is nothing to bring back now.
    docker
        .ask(["restore", &format!("{container}:{path}")])
        .exits(1);

    // By the process, without Docker's files.
    docker.exec(&container, &format!("rm {path}; ls -l {path} || true"));
    let pid = docker.pid(&container);
    run::layerctl(["restore", &format!("{pid}:{path}")]).exits(0);
    assert_eq!(docker.cat(&container, path), Some(before.clone()));

    // A new start does not lose it.
    docker.stop(&container);
    docker.said(["start", &container]);
    assert_eq!(docker.cat(&container, path), Some(before));
}

fn restore_of_a_tree_while_it_runs(docker: &Docker) {
    let container = docker.run();
    let seen = view_of(docker, &container);
    docker.exec(
        &container,
        "rm -r /opt/tree/h /opt/tree/d; ls -l /opt/tree/h /opt/tree/d || true",
    );
    // One file, for which its directories have to come back.
    let deep = "/opt/tree/d/deep/er/file";
    docker.restore(&[], &container, deep).exits(0);
    assert_eq!(docker.cat(&container, deep), Some(b"d\n".to_vec()));
    let changes = assert_changes_are_docker_diff(docker, &container);
    assert!(changes.contains(&(b'D', b"/opt/tree/d/file".to_vec())));
    docker.restore(&[], &container, "/opt/tree/d/file").exits(0);
    docker.restore(&[], &container, "/opt/tree/d/link").exits(0);

    docker
        .restore(&["--recursive"], &container, "/opt/tree/h")
        .exits(0);
    assert_view(docker, &container, &seen);
    assert_eq!(view_of(docker, &container), seen);
    let linked = docker.exec(
        &container,
        "stat -c %h /opt/tree/h/file; [ /opt/tree/h/file -ef /opt/tree/h/same ] && echo same",
    );
    assert_eq!(linked, b"2\nsame\n");
    assert_eq!(docker.diff(&container), BTreeSet::new());
}

fn restore_of_odd_names(docker: &Docker) {
    let container = docker.run();
    let contents = contents_of(docker, &container);
    let odd = contents
        .keys()
        .filter(|path| path.starts_with(b"/opt/odd/"));
    let odd: Vec<&OsStr> = odd.map(|path| OsStr::from_bytes(path)).collect();
    assert_eq!(odd.len(), 6);
    docker.exec(&container, "cd /opt/odd && rm ./*; ls -l");
    for path in &odd {
        docker.restore(&[], &container, path).exits(0);
    }
    assert_eq!(contents_of(docker, &container), contents);
    assert_eq!(docker.diff(&container), BTreeSet::new());

    docker.exec(&container, "cd /opt/odd && rm ./*");
    docker.stop(&container);
    for path in &odd {
        docker.restore(&[], &container, path).exits(0);
    }
    docker.said(["start", &container]);
    assert_eq!(contents_of(docker, &container), contents);
    assert_eq!(docker.diff(&container), BTreeSet::new());
}

fn restore_after_stop(docker: &Docker) {
    let (container, other) = (docker.run(), docker.run());
    let before = docker.cat(&container, "/opt/app/7").expect("it is there");
    let deletion = "rm /opt/app/7 && rm -r /opt/tree/d /opt/tree/e && mkdir /opt/tree/e";
    docker.exec(&container, deletion);
    docker.exec(&other, deletion);
    docker.stop(&container);
    let (upper, other_upper) = (docker.upper(&container), docker.upper(&other));
    let (other_before, other_diff) = (live::snapshot(&other_upper), docker.diff(&other));
    // containerd's collector removes others meanwhile.
    let lower: Vec<PathBuf> = docker.directories(&container)[1..]
        .iter()
        .map(|path| PathBuf::from(OsStr::from_bytes(path)))
        .collect();
    let is_watched = |path: &Path| {
        !docker.store.has_snapshotter || lower.iter().any(|layer| path.starts_with(layer))
    };
    let layers = || -> Snapshot {
        let all = docker.layers().into_iter();
        let ours = upper.parent().expect("a layer's directory");
        let watched = all.filter(|(path, _)| !path.starts_with(ours) && is_watched(path));
        watched.collect()
    };
    let layers_before = layers();
    assert!(is_whiteout(&upper.join("opt/app/7")));

    let row = docker
        .ask(["restore", &format!("{container}:/opt/app/7")])
        .exits(0)
        .row();
    assert_eq!(row["strategy"], "unhide", "{row}");
    assert_eq!(row["applied"], true, "{row}");
    let gone = fs::symlink_metadata(upper.join("opt/app/7"));
    assert_eq!(
        gone.map_err(|error| error.kind()).err(),
        Some(io::ErrorKind::NotFound)
    );
    // A directory comes back whole with its whiteout, which takes a word; and a file out of one.
    docker
        .restore(&["--yes"], &container, "/opt/tree/d")
        .exits(0);
    docker
        .restore(&[], &container, "/opt/tree/e/deep/er/file")
        .exits(0);
    // Before docker mounts the init layer to compare it.
    live::assert_untouched(&layers_before, &layers(), "restore");
    assert_changes_are_docker_diff(docker, &container);

    docker.said(["start", &container]);
    assert_eq!(docker.cat(&container, "/opt/app/7"), Some(before));
    for path in ["/opt/tree/d/deep/er/file", "/opt/tree/e/deep/er/file"] {
        assert!(docker.cat(&container, path).is_some(), "{path}");
    }
    assert_eq!(docker.cat(&container, "/opt/tree/e/file"), None);
    let diff = assert_changes_are_docker_diff(docker, &container);
    let expected = [
        (b'C', "/opt"),
        (b'C', "/opt/tree"),
        (b'C', "/opt/tree/e"),
        (b'D', "/opt/tree/e/file"),
        (b'D', "/opt/tree/e/link"),
    ];
    assert_eq!(
        diff,
        expected.map(|(letter, path)| (letter, path.into())).into()
    );

    live::assert_untouched(&other_before, &live::snapshot(&other_upper), "restore");
    assert_eq!(docker.diff(&other), other_diff);
    for path in ["/opt/app/7", "/opt/tree/d/file", "/opt/tree/e/deep/er/file"] {
        assert_eq!(docker.cat(&other, path), None, "{path}");
    }
}

/// `--revert` and `--to`.
fn restore_of_changed_files(docker: &Docker) {
    let container = docker.run();
    let before = docker.cat(&container, "/opt/app/2").expect("it is there");
    let out = docker.home.join("out");
    let saved = docker.home.join("saved");
    for directory in [&out, &saved] {
        fs::create_dir(directory).expect("a directory of our own");
    }
    let change = "echo changed > /opt/app/2; chmod 600 /opt/app/2; rm -f /opt/app/7";
    docker.exec(&container, change);
    let to = out.to_str().expect("a plain path");
    docker
        .restore(&["--to", to], &container, "/opt/app/7")
        .exits(0);
    assert_eq!(
        fs::read(out.join("7")).expect("it was copied out"),
        b"7 as it was\n"
    );
    assert_eq!(docker.cat(&container, "/opt/app/7"), None);

    let save = saved.to_str().expect("a plain path");
    docker
        .restore(&["--revert", "--save", save], &container, "/opt/app/2")
        .exits(0);
    assert_eq!(docker.cat(&container, "/opt/app/2"), Some(before.clone()));
    assert_eq!(
        fs::read(saved.join("2")).expect("it was saved"),
        b"changed\n"
    );
    let deleted = BTreeSet::from([
        (b'C', b"/opt".to_vec()),
        (b'C', b"/opt/app".to_vec()),
        (b'D', b"/opt/app/7".to_vec()),
    ]);
    assert_eq!(docker.diff(&container), deleted);

    docker.exec(&container, change);
    docker.stop(&container);
    docker
        .restore(&["--revert", "--discard"], &container, "/opt/app/2")
        .exits(0);
    docker.said(["start", &container]);
    assert_eq!(docker.cat(&container, "/opt/app/2"), Some(before));
    assert_eq!(docker.diff(&container), deleted);
}

fn restore_that_changes_nothing(docker: &Docker) {
    let container = docker.run();
    docker.exec(
        &container,
        "rm /opt/app/7; rm -r /opt/tree/d; echo changed > /opt/app/2; ls -l /opt/app/7 || true",
    );
    let unchanged = |state: &str, options: &[&str], path: &str, status: i32| {
        let before = docker.layers();
        let output = docker.restore(options, &container, path);
        assert_eq!(output.status, Some(status), "{state}: {}", output.stderr);
        let what = format!("{state}: restore {options:?} {path}");
        live::assert_untouched(&before, &docker.layers(), &what);
        output
    };
    for state in ["running", "stopped"] {
        let strategy = match state {
            "running" => "copy",
            _ => "unhide",
        };
        let row = unchanged(state, &["--dry-run"], "/opt/app/7", 0).row();
        assert_eq!(row["strategy"], strategy, "{row}");
        assert_eq!(row["applied"], false, "{row}");
        assert!(!row["steps"].as_array().expect("steps").is_empty());
        unchanged(state, &["--dry-run", "--recursive"], "/opt/tree/d", 0);
        let revert = ["--dry-run", "--revert", "--discard"];
        unchanged(state, &revert, "/opt/app/2", 0);
        // What was never there, and what is there.
        unchanged(state, &[], "/opt/app/nothing", 1);
        unchanged(state, &[], "/opt/app/1", 1);
        if state == "running" {
            for options in [
                &["--strategy", "unhide"][..],
                &["--strategy", "unhide", "--yes"],
                &["--strategy", "unhide", "--dry-run"],
            ] {
                let refused = unchanged(state, options, "/opt/app/7", 2);
                assert!(refused.stderr.contains("mounted"), "{}", refused.stderr);
                // The two ways that work.
                assert!(refused.stderr.contains("copy"), "{}", refused.stderr);
            }
            docker.stop(&container);
        }
    }
    // Still deleted, whatever was asked.
    docker.said(["start", &container]);
    assert_eq!(docker.cat(&container, "/opt/app/7"), None);
}

fn containers_that_go(docker: &Docker) {
    for round in 0..4 {
        let container = docker.run();
        docker.exec(&container, live::MAKE_MANY);
        if round % 2 == 0 {
            docker.stop(&container);
        }
        let mut remove = docker.command(["rm", "-f", &container]);
        live::assert_goes_whole(&mut remove, |asked| docker.ask(asked), &container);
    }
}

/// While all that can be made is made and removed, `orphans` finds nothing.
fn nobody_is_accused(docker: &Docker) {
    let archive = docker.home.join("storm.tar");
    let archive = archive.to_str().expect("plain names");
    // Without the name that docker cannot save.
    let first = docker.run();
    docker.exec(&first, "rm -rf /srv/weird");
    docker.said(["export", "-o", archive, &first]);
    docker.said(["rm", "-f", &first]);
    let saved = docker.home.join("storm-saved.tar");
    let saved = saved.to_str().expect("plain names");
    docker.said(["import", archive, "lab/storm:1"]);
    docker.said(["save", "-o", saved, "lab/storm:1"]);
    let context = docker.home.join("storm");
    fs::create_dir(&context).expect("a directory of our own");
    let steps = format!("FROM {IMAGE}\nRUN echo 1 > /one\nRUN rm -r /opt/tree\n");
    fs::write(context.join("Dockerfile"), steps).expect("a file of our own");
    let context = context.to_str().expect("plain names");
    let out = docker.home.join("storm-out.tar");
    let archive_out = out.to_str().expect("plain names");
    let names = [0; 3].map(|_| docker.new_name());
    let run = |name| ["run", "-d", "--network=none", "--name", name, IMAGE];
    let build = [
        "build",
        "--quiet",
        "--no-cache",
        "--network=none",
        "--tag",
        "storm:2",
        context,
    ];
    let jobs: [Vec<Vec<&str>>; 4] = [
        vec![
            run(&names[0]).into(),
            vec!["exec", &names[0], "rm", "-r", "/opt/tree"],
            vec!["rm", "-f", &names[0]],
        ],
        vec![
            run(&names[1]).into(),
            vec!["commit", &names[1], "storm:1"],
            vec!["kill", &names[1]],
            vec!["rm", &names[1]],
            vec!["rmi", "storm:1"],
        ],
        vec![build.into(), vec!["rmi", "storm:2"]],
        vec![
            vec!["rmi", "lab/storm:1"],
            vec!["load", "-i", saved],
            vec!["import", archive, "storm:3"],
            vec!["rmi", "storm:3"],
            // Docker 26 forgets that it mounted this one.
            vec!["create", "--name", &names[2], IMAGE],
            vec!["export", "-o", archive_out, &names[2]],
            vec!["rm", &names[2]],
        ],
    ];
    let socket = docker.home.join("socket");
    let client = docker.home.join("client");
    let again = |words: &[&str]| {
        // All that is shared between threads.
        let mut command = Command::new("docker");
        let mut host = OsString::from("unix://");
        host.push(&socket);
        command
            .env("DOCKER_HOST", host)
            .env("DOCKER_CONFIG", &client);
        // With the builder that there is: an older one has none but its own.
        command.env("DOCKER_BUILDKIT", "0").args(words);
        let _ = live::asked(&mut command);
    };
    live::assert_nobody_is_accused(&jobs, &again, live::LOOKS, |asked| docker.ask(asked));
    for name in &names {
        let _ = docker.asked(["rm", "-f", name]);
    }
    for image in ["storm:1", "storm:2", "storm:3", "lab/storm:1"] {
        let _ = docker.asked(["rmi", "-f", image]);
    }
    // What it left is in nobody's way.
    for verb in ["containers", "images"] {
        docker.ask([verb]).exits(0);
    }
}

/// Asks as where a daemon has a mount namespace of its own: only the container's processes have
/// its union mounted.
fn elsewhere(docker: &Docker, merged: &str, arguments: &[&str]) -> Output {
    let script = r#"umount "$1" && shift && exec "$@""#;
    let mut command = Command::new("unshare");
    command
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command.args(["--mount", "--propagation", "private", "sh", "-c", script]);
    command.args(["sh", merged, env!("CARGO_BIN_EXE_layerctl")]);
    command.arg("--docker-root").arg(docker.home.join("data"));
    command.args(["--format", "jsonl"]).args(arguments);
    run::run(&mut command)
}

fn mounted_only_elsewhere(docker: &Docker) {
    let container = docker.run();
    let branches = docker.directories(&container);
    docker.exec(&container, &change_all());
    docker.exec(&container, "ls -l /opt/app/7 || true");
    let merged = docker.merged(&container);
    let ask = |arguments: &[&str]| elsewhere(docker, &merged, arguments);
    let path = format!("{container}:/opt/app/7");
    let row = ask(&["which", &path]).exits(1).row();
    assert_eq!(row["state"], "deleted", "{row}");

    let upper = docker.upper(&container);
    let before = live::snapshot(&upper);
    let refused = ask(&["restore", "--strategy", "unhide", &path]).exits(2);
    assert!(refused.stderr.contains("mounted"), "{}", refused.stderr);
    live::assert_untouched(&before, &live::snapshot(&upper), "a refused restore");

    let row = ask(&["restore", &path]).exits(0).row();
    assert_eq!(row["strategy"], "copy", "{row}");
    assert_eq!(
        docker.cat(&container, "/opt/app/7"),
        Some(b"7 as it was\n".to_vec())
    );
    assert_changes_are_docker_diff(docker, &container);
    let rows = ask(&["containers"]).exits(0).rows();
    let row = rows.iter().find(|row| row["name"] == container.as_str());
    assert_eq!(row.expect("it runs")["mounted"], true);
    let row = ask(&["branches", &container]).exits(0).row();
    assert_eq!(row["state"], "elsewhere", "{row}");
    assert_eq!(directories(&row), branches);
}

/// What a container has mounted over its union is not the union.
fn restore_below_a_mount_of_the_container(docker: &Docker) {
    let container = docker.new_name();
    let options = ["run", "-d", "--network=none", "--tmpfs=/opt/app"];
    docker.said(options.iter().chain(&["--name", &container, IMAGE]));
    let merged = docker.merged(&container);
    // What the kernel says of it is gone once it is not mounted here.
    docker.directories(&container);
    let pid = docker.pid(&container);
    let at = Path::new(&merged).join("opt/app/7");
    let [named, of_process] = [&container, &pid].map(|of| format!("{of}:/opt/app/7"));
    let listed = || docker.exec(&container, "ls -A /opt/app");
    // Where the union itself can be reached, that is the way.
    for ask in [
        &(|| docker.ask(["restore", &named])) as &dyn Fn() -> Output,
        &|| docker.ask(["restore", &of_process]),
        &|| elsewhere(docker, &merged, &["restore", &named]),
    ] {
        fs::remove_file(&at).expect("it is mounted");
        ask().exits(0);
        assert_eq!(fs::read(&at).expect("it is back"), b"7 as it was\n");
        assert_eq!(listed(), b"");
    }
    assert_changes_are_docker_diff(docker, &container);

    // Where only the container's processes lead there, they see something else.
    fs::remove_file(&at).expect("it is mounted");
    docker.exec(&container, "rm /opt/big");
    let unmounted = Command::new("umount").arg(&merged).status();
    assert!(unmounted.expect("umount ran before").success());
    let upper = docker.upper(&container);
    let before = live::snapshot(&upper);
    for path in [&named, &of_process] {
        docker.ask(["restore", path]).exits(2);
        live::assert_untouched(&before, &live::snapshot(&upper), "a refused restore");
        assert_eq!(listed(), b"");
    }
    // But not everywhere.
    docker
        .ask(["restore", &format!("{container}:/opt/big")])
        .exits(0);
    let big = docker.cat(&container, "/opt/big").expect("it is back");
    assert_eq!(big.len(), 300_000);
}
