//! Real Podmans and a real buildah, started here and changed here: root's on overlay and vfs, and
//! an ordinary user's on overlay and fuse-overlayfs. What they say and what their containers see
//! is what layerctl has to say, and what layerctl restores has to be seen there.
//!
//! Numbers are those of FACTS-engines. Truth is what the mounted directories differ in; `podman
//! diff` is compared with that too, without its known errors.

use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustix::fs::{CWD, FileType, FlockOperation, Mode, fcntl_lock, flock, makedev, mknodat};
use serde_json::{Value, json};

use crate::docker_drivers::{Change, change_of_row, changes};
use crate::lab::live::{
    self, CHANGE, CHANGE_MARKS, CHANGE_MORE, Check, Live, Snapshot, Tree, asked, assert_changes,
    assert_directories, assert_untouched, assert_view, busybox, done, os, snapshot,
};
use crate::lab::run::{self, Output, bytes, text, texts};
use crate::lab::verbs::{self, Words};

/// More layers than a few, and of everything that a layer can do to those below it.
const CONTAINERFILE: &str = r#"
FROM scratch
ADD root /
RUN ["/bin/busybox", "--install", "-s", "/bin"]
RUN mkdir -p /etc /opt/app /root /srv /tmp && chmod 1777 /tmp && echo root:x:0:0:root:/root:/bin/sh > /etc/passwd; for n in 1 2 3 4 5 6 7 8 9 10 11 12; do echo "$n as it was" > /opt/app/$n; done
RUN for d in a b c d e f g h; do mkdir -p "/opt/tree/$d/deep/er" && echo "$d" > "/opt/tree/$d/deep/er/file" && echo "$d" > "/opt/tree/$d/file" && ln -s deep "/opt/tree/$d/link"; done; ln /opt/tree/h/file /opt/tree/h/same && chmod 2750 /opt/tree/h/deep && chown 7:8 /opt/tree/h/file
RUN echo "changed in a layer" > /opt/app/2 && chmod 4750 /opt/app/5 && chown 7:8 /opt/app/6 && rm /opt/app/3 && rm -r /opt/tree/a && mkdir /opt/tree/a && echo again > /opt/tree/a/again && ln -s ../opt/app /srv/link
RUN rm -r /opt/tree/b && echo "a file" > /opt/tree/b && rm /opt/app/4 && mkdir /opt/app/4 && echo in > /opt/app/4/in && mkdir /opt/odd && cd /opt/odd && for name in "$(printf 'new\nline')" "$(printf 'not utf\377')" ' white space ' 'back\slash' 'a:b' '"'; do echo "$name" > "$name"; done
RUN echo "back in a layer" > /opt/app/3 && head -c 300000 /bin/busybox > /opt/big
CMD ["sleep", "3600"]
"#;

pub const IMAGE: &str = "localhost/lab/app:1";

/// The ordinary user, and the first of the user's subordinate ids.
const USER: u32 = 4242;
const SUBORDINATE: u32 = 100_000;

#[apply(test)]
fn podman_agrees() {
    Live {
        engine: "Podman",
        programs: &["podman", "buildah", "runc", "conmon"],
        stores: "overlay and vfs, of root",
    }
    .run(
        Machine::of_root,
        &[
            ("a changed container", |machine| {
                a_changed_container(&machine.podman)
            }),
            ("a changed container on vfs", |machine| {
                a_changed_container(machine.other())
            }),
            ("an unchanged container", |machine| {
                an_unchanged_container(&machine.podman);
                an_unchanged_container(machine.other());
            }),
            ("names of a union", |machine| {
                every_name_of_a_union_means_it(&machine.podman)
            }),
            ("podman's own init", |machine| {
                podmans_init_is_no_change(&machine.podman)
            }),
            ("overlays over layers", |machine| {
                overlays_over_layers(&machine.podman);
                a_forged_overlay(&machine.podman);
            }),
            ("mapped ids", |machine| ids_may_be_mapped(&machine.podman)),
            ("restore while it runs", |machine| {
                restore_while_it_runs(&machine.podman)
            }),
            ("restore after stop", |machine| {
                restore_after_stop(&machine.podman)
            }),
            ("restore below a mount", |machine| {
                restore_below_a_mount_of_the_container(&machine.podman)
            }),
            ("containers and images", |machine| {
                lists_are_podmans(&machine.podman)
            }),
            ("info", info_is_podmans),
            ("history", |machine| history_is_podmans(&machine.podman)),
            ("a working container", a_working_container),
            ("locks", |machine| locks_are_not_waited_for(&machine.podman)),
            ("containers that go", |machine| {
                containers_that_go(&machine.podman);
                containers_that_go(machine.other());
            }),
            ("sixty layers", |machine| sixty_layers(&machine.podman)),
            ("a transient store", |machine| {
                a_changed_container(&machine.podman.transient())
            }),
            ("while others come and go", |machine| {
                nobody_is_accused(&machine.podman)
            }),
            ("nothing is written", nothing_is_written),
        ],
    );
}

#[apply(test)]
fn a_users_podman_agrees() {
    Live {
        engine: "Podman",
        programs: &["podman", "runc", "conmon", "setpriv", "fuse-overlayfs"],
        stores: "overlay and fuse-overlayfs, of a user",
    }
    .run(Machine::of_user, &USERS_CHECKS);
}

const USERS_CHECKS: [Check<Machine>; 15] = [
    ("a user's changed container", |machine| {
        a_changed_container(&machine.podman)
    }),
    ("a user's unchanged container", |machine| {
        an_unchanged_container(&machine.podman)
    }),
    ("a user's overlays over layers", |machine| {
        overlays_over_layers(&machine.podman)
    }),
    ("mounted only elsewhere", |machine| {
        only_the_users_processes_have_it_mounted(&machine.podman)
    }),
    ("names of a user's union", |machine| {
        every_name_of_a_union_means_it(&machine.podman)
    }),
    ("the user asks", |machine| the_user_asks(&machine.podman)),
    ("root is told who can restore while it runs", |machine| {
        only_the_user_can_write(&machine.podman)
    }),
    ("the user restores while it runs", |machine| {
        the_user_restores(&machine.podman)
    }),
    ("the user asks from within", |machine| {
        the_user_asks_from_within(&machine.podman)
    }),
    ("restore after stop", |machine| {
        restore_after_stop(&machine.podman)
    }),
    ("fuse-overlayfs", fuse_shows_what_overlay_shows),
    ("restore on fuse-overlayfs", |machine| {
        restore_on_fuse(machine.other())
    }),
    ("fuse-overlayfs from within", |machine| {
        the_user_asks_from_within(machine.other())
    }),
    ("a user's containers", |machine| {
        lists_are_podmans(&machine.podman)
    }),
    ("nothing of a user's is written", nothing_is_written),
];

// ---- podmans ----

pub struct Machine {
    pub podman: Podman,
    /// Made when it is asked for: with other directories, of another driver.
    other: OnceCell<Podman>,
    make_other: fn(&Podman) -> Podman,
}

pub struct Podman {
    pub home: PathBuf,
    user: Option<u32>,
    pub driver: &'static str,
    pub graph: PathBuf,
    /// Below it is the run root.
    pub run: PathBuf,
    /// Those of its directories, where no configuration names them.
    options: Vec<OsString>,
    /// A configuration of its own.
    configuration: Option<PathBuf>,
    /// What the image shows.
    image: Tree,
    /// How many containers were made.
    made: AtomicUsize,
}

impl Machine {
    pub fn of_root(home: &Path) -> Result<Machine, String> {
        let (graph, run) = (home.join("graph"), home.join("run"));
        let storage = "[storage]\ndriver = \"overlay\"\n";
        configure(
            home,
            format!("{storage}graphroot = {graph:?}\nrunroot = {run:?}\n"),
        );
        let mut podman = Podman::of(home, None, &graph, &run);
        podman.build()?;
        podman.try_out()?;
        Ok(Machine {
            podman,
            other: OnceCell::new(),
            make_other: Podman::on_vfs,
        })
    }

    fn of_user(home: &Path) -> Result<Machine, String> {
        let version = asked(Command::new("podman").arg("--version"))?;
        let is_older = String::from_utf8_lossy(&version).contains(" version 4.");
        // What is said of directories there holds for users, too, since Podman 5; before, it has to be
        // said.
        let (graph, run) = (home.join("graph"), home.join("run"));
        let directories = if is_older {
            format!("graphroot = {graph:?}\nrunroot = {run:?}\n")
        } else {
            String::new()
        };
        configure(
            home,
            format!("[storage]\ndriver = \"overlay\"\n{directories}"),
        );
        add_user(home)?;
        let at_home = home.join("user");
        let graph = at_home.join(".local/share/containers/storage");
        let run = PathBuf::from(format!("/run/user/{USER}/containers"));
        let mut podman = Podman::of(home, Some(USER), &graph, &run);
        podman.build()?;
        podman.try_out()?;
        Ok(Machine {
            podman,
            other: OnceCell::new(),
            make_other: Podman::on_fuse,
        })
    }

    pub fn other(&self) -> &Podman {
        self.other.get_or_init(|| (self.make_other)(&self.podman))
    }
}

/// What all Podmans read. Their `/etc` is the test's.
fn configure(home: &Path, storage: String) {
    let containers = Path::new("/etc/containers");
    fs::create_dir_all(containers).expect("a directory of our own");
    let write = |name: &str, text: String| {
        fs::write(containers.join(name), text).expect("a directory of our own");
    };
    write("storage.conf", storage);
    // 3: even root may not raise limits everywhere.
    write(
        "containers.conf",
        "[containers]\ndefault_ulimits = [\"nofile=1024:2048\", \"nproc=1024:2048\"]\n\
         netns = \"none\"\nlog_driver = \"k8s-file\"\n[engine]\nruntime = \"runc\"\n\
         cgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\n"
            .into(),
    );
    write(
        "policy.json",
        json!({"default": [{"type": "insecureAcceptAnything"}]}).to_string(),
    );
    for name in ["root", "tmp"] {
        fs::create_dir(home.join(name)).expect("a directory of our own");
    }
    fs::set_permissions(home.join("tmp"), fs::Permissions::from_mode(0o1777))
        .expect("a directory of our own");
    // Everybody has to reach it.
    let program = home.join("layerctl");
    run::copy_program(env!("CARGO_BIN_EXE_layerctl"), program);
}

fn add_user(home: &Path) -> Result<(), String> {
    let at_home = home.join("user");
    let run = PathBuf::from(format!("/run/user/{USER}"));
    for directory in [&at_home, &run] {
        fs::create_dir_all(directory).expect("a directory of our own");
        chown(directory, Some(USER), Some(USER)).expect("this is root");
        fs::set_permissions(directory, fs::Permissions::from_mode(0o700)).expect("our own");
    }
    let ids = format!("lab:{SUBORDINATE}:65536\n");
    let at = at_home.display();
    for (name, text) in [
        (
            "passwd",
            format!("root:x:0:0:root:/root:/bin/sh\nlab:x:{USER}:{USER}::{at}:/bin/sh\n"),
        ),
        ("group", format!("root:x:0:\nlab:x:{USER}:\n")),
        ("subuid", ids.clone()),
        ("subgid", ids),
    ] {
        fs::write(Path::new("/etc").join(name), text).expect("a directory of our own");
    }
    // An ordinary user may use it where it is so configured.
    let fuse = home.join("fuse");
    let mode = Mode::from_raw_mode(0o666);
    mknodat(
        CWD,
        &fuse,
        FileType::CharacterDevice,
        mode,
        makedev(10, 229),
    )
    .map_err(|error| format!("{}: {error}", fuse.display()))?;
    fs::set_permissions(&fuse, fs::Permissions::from_mode(0o666)).expect("our own file");
    let over = Path::new("/dev/fuse");
    done(Command::new("mount").arg("--bind").arg(&fuse).arg(over))
}

impl Podman {
    pub fn of(home: &Path, user: Option<u32>, graph: &Path, run: &Path) -> Podman {
        Podman {
            home: home.to_owned(),
            user,
            driver: "overlay",
            graph: graph.to_owned(),
            run: run.to_owned(),
            options: Vec::new(),
            configuration: None,
            image: Tree::new(),
            made: AtomicUsize::new(0),
        }
    }

    /// Another one that its command line tells its directories, with the same image.
    fn elsewhere(&self, driver: &'static str, home: &Path, options: &[&str]) -> Podman {
        self.filled(self.without_images(driver, home, options))
    }

    pub fn without_images(&self, driver: &'static str, home: &Path, options: &[&str]) -> Podman {
        let (graph, run) = (home.join("graph"), home.join("run"));
        let mut all: Vec<OsString> = vec!["--root".into(), graph.clone().into()];
        all.extend(["--runroot".into(), run.clone().into()]);
        all.extend(["--storage-driver".into(), driver.into()]);
        all.extend(options.iter().map(OsString::from));
        Podman {
            driver,
            options: all,
            ..Podman::of(&self.home, self.user, &graph, &run)
        }
    }

    /// Another one with the same image.
    fn filled(&self, mut podman: Podman) -> Podman {
        let archive = self.home.join("tmp/app.tar");
        self.said(["save", "--quiet", "--output", path_of(&archive), IMAGE]);
        podman.said(["load", "--quiet", "--input", path_of(&archive)]);
        fs::remove_file(archive).expect("our own file");
        podman.try_out().unwrap_or_else(|why| panic!("{why}"));
        podman
    }

    fn on_vfs(&self) -> Podman {
        self.elsewhere("vfs", &self.home.join("vfs"), &[])
    }

    /// One that forgets its containers with the machine's run.
    fn transient(&self) -> Podman {
        let home = self.home.join("transient");
        fs::create_dir(&home).expect("a directory of our own");
        let (graph, run, at) = (home.join("graph"), home.join("run"), home.join("conf"));
        let text = format!(
            "[storage]\ndriver = \"overlay\"\ngraphroot = {graph:?}\nrunroot = {run:?}\n\
             transient_store = true\n"
        );
        fs::write(&at, text).expect("a file of our own");
        self.filled(Podman {
            configuration: Some(at),
            ..Podman::of(&self.home, self.user, &graph, &run)
        })
    }

    fn on_fuse(&self) -> Podman {
        let options = [
            "--storage-opt",
            "overlay.mount_program=/usr/bin/fuse-overlayfs",
        ];
        self.elsewhere("overlay", &self.home.join("user/fuse"), &options)
    }

    fn build(&self) -> Result<(), String> {
        let context = self.home.join("tmp/context");
        busybox(&context.join("root"))?;
        fs::write(context.join("Containerfile"), CONTAINERFILE).expect("a file of our own");
        symlink("busybox", context.join("root/bin/sh")).expect("a directory of our own");
        let options = ["build", "--quiet", "--layers", "--isolation=chroot"];
        let mut command = self.command(options);
        command
            .args(["--network=host", "--tag", IMAGE])
            .arg(&context);
        done(&mut command)
    }

    /// Runs a container, and looks at the image.
    fn try_out(&mut self) -> Result<(), String> {
        done(self.running(&["--rm"]).args([IMAGE, "true"]))?;
        if self.is_fuse() {
            // It shows itself to nobody else, not even to root.
            return Ok(());
        }
        let mounted = asked(&mut self.in_its_namespace(["image", "mount", IMAGE]))?;
        self.image = live::tree(&self.reach(os(mounted.trim_ascii_end())));
        done(&mut self.in_its_namespace(["image", "umount", IMAGE]))
    }

    fn is_fuse(&self) -> bool {
        let is_it = |option: &OsString| option.to_string_lossy().contains("fuse-overlayfs");
        self.options.iter().any(is_it)
    }

    /// A program of the user, in an environment of its own.
    pub fn program(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = match self.user {
            None => Command::new(program),
            Some(user) => {
                let mut command = Command::new("setpriv");
                command
                    .arg(format!("--reuid={user}"))
                    .arg(format!("--regid={user}"))
                    .arg("--clear-groups")
                    .arg(program);
                command
            }
        };
        let at_home = match self.user {
            None => "root",
            Some(_) => "user",
        };
        command
            .env_clear()
            .env(
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            )
            .env("HOME", self.home.join(at_home))
            .env("TMPDIR", self.home.join("tmp"))
            .env("PODMAN_IGNORE_CGROUPSV1_WARNING", "1")
            .current_dir(self.home.join(at_home));
        if let Some(user) = self.user {
            command.env("XDG_RUNTIME_DIR", format!("/run/user/{user}"));
        }
        if let Some(configuration) = &self.configuration {
            command.env("CONTAINERS_STORAGE_CONF", configuration);
        }
        command
    }

    pub fn command(&self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
        let mut command = self.program("podman");
        command.args(&self.options).args(arguments);
        command
    }

    /// Where the user's Podman itself mounts.
    pub fn in_its_namespace(
        &self,
        arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
    ) -> Command {
        let mut command = self.program("podman");
        command.args(&self.options);
        if self.user.is_some() {
            command.args(["unshare", "podman"]).args(&self.options);
        }
        command.args(arguments);
        command
    }

    #[track_caller]
    pub fn printed(&self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Vec<u8> {
        asked(&mut self.command(arguments)).unwrap_or_else(|why| panic!("{why}"))
    }

    #[track_caller]
    pub fn said(&self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> String {
        String::from_utf8(self.printed(arguments)).expect("podman prints UTF-8")
    }

    #[track_caller]
    pub fn json(&self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Value {
        serde_json::from_slice(&self.printed(arguments)).expect("podman prints JSON")
    }

    #[track_caller]
    pub fn inspected(&self, what: &str) -> Value {
        self.json(["inspect", what])[0].take()
    }

    pub fn new_name(&self) -> String {
        let made = self.made.fetch_add(1, Ordering::Relaxed) + 1;
        let engine = match (self.is_fuse(), self.driver) {
            (true, _) => "fuse",
            (false, driver) => driver,
        };
        format!("{engine}-{made}")
    }

    /// `podman run`, in the control group that is removed in the end.
    pub fn running(&self, options: &[&str]) -> Command {
        let mut command = self.command(["run"]);
        if self.user.is_none() {
            let mut parent = OsString::from("--cgroup-parent=/");
            parent.push(live::cgroup(&self.home));
            command.arg(parent);
        }
        command.args(options);
        command
    }

    /// Starts a container of the image.
    #[track_caller]
    pub fn run(&self) -> String {
        self.run_with(&[], &[])
    }

    #[track_caller]
    fn run_with(&self, options: &[&str], words: &[&str]) -> String {
        let name = self.new_name();
        let mut command = self.running(&["--detach", "--name", &name]);
        done(command.args(options).arg(IMAGE).args(words)).unwrap_or_else(|why| panic!("{why}"));
        name
    }

    #[track_caller]
    pub fn stop(&self, container: &str) {
        self.said(["stop", "--time=0", container]);
    }

    #[track_caller]
    fn start(&self, container: &str) {
        self.said(["start", container]);
    }

    /// Runs a script in a container.
    #[track_caller]
    pub fn exec(&self, container: &str, script: &str) -> Vec<u8> {
        self.printed(["exec", container, "sh", "-c", script])
    }

    /// What a container reads; none where it finds nothing.
    fn cat(&self, container: &str, path: impl AsRef<OsStr>) -> Option<Vec<u8>> {
        let mut command = self.command(["exec", container, "cat"]);
        asked(command.arg(path)).ok()
    }

    #[track_caller]
    fn pid(&self, container: &str) -> String {
        self.inspected(container)["State"]["Pid"].to_string()
    }

    /// A path that the user's Podman mounted something at, for those outside of its namespace.
    pub fn reach(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        let Some(user) = self.user else {
            return path.to_owned();
        };
        let pause = fs::read_to_string(format!("/run/user/{user}/libpod/tmp/pause.pid"));
        let root = PathBuf::from(format!(
            "/proc/{}/root",
            pause.expect("one holds it").trim()
        ));
        root.join(path.strip_prefix("/").expect("absolute"))
    }

    /// Where libpod keeps its state: SQLite since Podman 5, Bolt before.
    fn database(&self) -> PathBuf {
        let all = ["db.sql", "libpod/bolt_state.db"].map(|name| self.graph.join(name));
        let found = all.into_iter().find(|path| path.exists());
        found.expect("it has run containers")
    }

    /// The id of a container's own layer.
    #[track_caller]
    fn layer(&self, container: &str) -> String {
        let driver = self.driver;
        // A transient store has it with what the machine forgets.
        let lists = ["containers.json", "volatile-containers.json"]
            .map(|name| format!("{driver}-containers/{name}"));
        let mut lists = [&self.run, &self.graph].into_iter().flat_map(|root| {
            let lists = lists.iter().map(|list| root.join(list));
            lists.collect::<Vec<_>>()
        });
        let has_it = |list: &PathBuf| {
            fs::read_to_string(list).is_ok_and(|list| list.contains(&format!("\"{container}\"")))
        };
        let list = lists.find(has_it).expect("a list has it");
        let list: Vec<Value> =
            serde_json::from_slice(&fs::read(list).expect("root may read it")).expect("JSON");
        let is_it = |record: &&Value| record["names"] == json!([container]);
        let record = list.iter().find(is_it);
        text(record.expect("it was made"), "layer").to_owned()
    }

    /// The directories of a container's or an image's layers, topmost first.
    #[track_caller]
    fn directories(&self, what: &str) -> Vec<Vec<u8>> {
        if self.driver == "vfs" {
            return vec![path_of(&self.upper(what)).into()];
        }
        let driver = self.inspected(what)["GraphDriver"].take();
        let lower = driver["Data"]["LowerDir"].as_str();
        let lower = lower.into_iter().flat_map(|lower| lower.split(':'));
        std::iter::once(text(&driver["Data"], "UpperDir"))
            .chain(lower)
            .map(|path| path.as_bytes().to_vec())
            .collect()
    }

    #[track_caller]
    fn upper(&self, container: &str) -> PathBuf {
        let layer = self.layer(container);
        match self.driver {
            "vfs" => self.graph.join("vfs/dir").join(layer),
            driver => self.graph.join(driver).join(layer).join("diff"),
        }
    }

    /// What is kept beside a container's layer.
    #[track_caller]
    fn userdata(&self, container: &str) -> PathBuf {
        let id = text(&self.inspected(container), "Id").to_owned();
        let all = self.graph.join(format!("{}-containers", self.driver));
        all.join(id).join("userdata")
    }

    /// Where a container's root is mounted, for its Podman.
    #[track_caller]
    pub fn merged(&self, container: &str) -> PathBuf {
        let upper = self.upper(container);
        match self.driver {
            "vfs" => upper,
            _ => upper.with_file_name("merged"),
        }
    }

    /// What is to be seen in a container's root, be it mounted or not. Nothing that is mounted in
    /// the container is seen there.
    #[track_caller]
    fn seen(&self, container: &str) -> Tree {
        assert!(!self.is_fuse());
        let mount = |verb: &str| {
            let mut command = self.in_its_namespace([verb, container]);
            done(&mut command).unwrap_or_else(|why| panic!("{why}"));
        };
        mount("mount");
        let seen = live::tree(&self.reach(self.merged(container)));
        mount("umount");
        seen
    }

    /// What a container changed, found out without anybody's help.
    #[track_caller]
    fn truth(&self, seen: &Tree) -> BTreeSet<Change> {
        without_podmans(live::differences(&self.image, seen))
    }

    /// `layerctl` in a machine's format.
    pub fn ask(&self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Output {
        self.ask_with(&mut run::command(), arguments)
    }

    /// `layerctl` as a person asks it.
    pub fn plain(&self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Output {
        let mut command = run::command();
        if !self.options.is_empty() {
            command.arg("--storage-root").arg(&self.graph);
        }
        run::run(command.args(arguments))
    }

    fn ask_with(
        &self,
        command: &mut Command,
        arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
    ) -> Output {
        if !self.options.is_empty() {
            command.arg("--storage-root").arg(&self.graph);
        }
        if let Some(configuration) = &self.configuration {
            command.env("CONTAINERS_STORAGE_CONF", configuration);
        }
        run::run(command.args(["--format", "jsonl"]).args(arguments))
    }

    /// The user asks.
    fn ask_as_user(&self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Output {
        let mut command = self.program(self.home.join("layerctl"));
        self.ask_with(&mut command, arguments)
    }

    /// `restore` of a path of a container.
    fn restore(&self, options: &[&str], container: &str, path: impl AsRef<OsStr>) -> Output {
        let arguments = ["restore", "--in", container];
        let arguments = arguments.iter().chain(options).chain(&["--"]);
        let mut arguments: Vec<&OsStr> = arguments.map(OsStr::new).collect();
        arguments.push(path.as_ref());
        self.ask(arguments)
    }

    #[track_caller]
    fn changes(&self, container: &str) -> BTreeSet<Change> {
        changes_of(&self.ask(["changes", container]).exits(0).rows())
    }

    #[track_caller]
    fn assert_changes(&self, container: &str, truth: &BTreeSet<Change>) {
        assert_changes(container, &self.changes(container), truth);
    }

    #[track_caller]
    fn diff(&self, container: &str) -> BTreeSet<Change> {
        changes(self.printed(["diff", container]))
    }
}

#[track_caller]
fn changes_of(rows: &[Value]) -> BTreeSet<Change> {
    let ours: BTreeSet<Change> = rows.iter().map(change_of_row).collect();
    assert_eq!(ours.len(), rows.len(), "a line twice");
    ours
}

#[track_caller]
pub fn path_of(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

/// What libpod leaves out of every diff: what it may have made to mount something there.
const MADE_BY_PODMAN: [&str; 13] = [
    "/dev",
    "/dev/init",
    "/etc/hostname",
    "/etc/hosts",
    "/etc/mtab",
    "/etc/resolv.conf",
    "/proc",
    "/run",
    "/run/.containerenv",
    "/run/notify",
    "/run/podman-init",
    "/run/secrets",
    "/sys",
];

fn without_podmans(mut found: BTreeSet<Change>) -> BTreeSet<Change> {
    found.retain(|(_, path)| !MADE_BY_PODMAN.iter().any(|made| made.as_bytes() == path));
    found
}

fn change(letter: u8, path: impl AsRef<[u8]>) -> Change {
    (letter, path.as_ref().to_vec())
}

// ---- what is looked at ----

fn a_changed_container(podman: &Podman) {
    let container = podman.run();
    podman.exec(&container, CHANGE);
    let truth = podman.truth(&podman.seen(&container));
    for expected in [
        change(b'A', "/new/deep/file"),
        change(b'C', "/etc/passwd"),
        change(b'C', "/opt/app/1"),
        change(b'D', "/opt/app/7"),
        change(b'D', "/opt/tree/d"),
        change(b'D', "/opt/odd/new\nline"),
        change(b'A', b"/root/odd/\xff\xfe"),
    ] {
        assert!(truth.contains(&expected), "no {expected:?}");
    }
    // Copied up, and no different.
    assert!(!truth.contains(&change(b'C', "/opt/app/6")));
    podman.assert_changes(&container, &truth);
    let said = podman.diff(&container);
    assert_changes("podman diff", &without_errors(podman, said), &truth);

    podman.exec(&container, CHANGE_MORE);
    podman.exec(&container, CHANGE_MARKS);
    let seen = podman.seen(&container);
    let truth = podman.truth(&seen);
    for expected in [
        change(b'C', "/opt/app/9"),
        change(b'A', "/opt/app/9/in"),
        change(b'D', "/opt/tree/e/link"),
        change(b'A', "/root/odd/.wh.mine"),
    ] {
        assert!(truth.contains(&expected), "no {expected:?}");
    }
    let look = |state: &str| {
        podman.assert_changes(&container, &truth);
        let listed = podman.ask(["ls", "-R", "-l", &format!("{container}:/")]);
        assert_view(&container, listed, &live::view(&seen));
        assert_providers(podman, &container, &seen);
        assert_deleted(podman, &container);
        let row = podman.ask(["branches", &container]).exits(0).row();
        assert_directories(&container, &row, &podman.directories(&container));
        assert_eq!(row["state"], state, "{row}");
    };
    look(match (podman.driver, podman.user) {
        ("vfs", _) => "not-mounted",
        (_, None) => "mounted",
        (_, Some(_)) => "elsewhere",
    });
    podman.stop(&container);
    look("not-mounted");
    let stopped = podman.seen(&container);
    assert_changes("stopped", &podman.truth(&stopped), &truth);
}

/// A change that `podman diff` gets wrong on overlay without a mount program, where it looks at
/// nothing but the upper directory.
struct PodmansError {
    said: Option<(u8, &'static str)>,
    truth: Option<(u8, &'static str)>,
    why: &'static str,
}

const OF_UPPER: &str = "all that is in the upper directory is listed, also what differs in nothing";

const PODMANS_ERRORS: [PodmansError; 4] = [
    PodmansError {
        said: Some((b'C', "/opt/app/6")),
        truth: None,
        why: OF_UPPER,
    },
    PodmansError {
        said: Some((b'C', "/opt/app/10")),
        truth: None,
        why: OF_UPPER,
    },
    PodmansError {
        said: Some((b'D', "/srv/link")),
        truth: Some((b'C', "/srv/link")),
        why: "the directory is there: new, and opaque",
    },
    PodmansError {
        said: None,
        truth: Some((b'C', "/opt/tree/h")),
        why: "a directory whose own time is the same is left out, whatever changed in it",
    },
];

/// What `podman diff` should have said. Other versions may be right.
fn without_errors(podman: &Podman, mut said: BTreeSet<Change>) -> BTreeSet<Change> {
    let errors = PODMANS_ERRORS.iter();
    for error in errors.filter(|_| podman.driver == "overlay" && !podman.is_fuse()) {
        let [wrong, right] =
            [error.said, error.truth].map(|side| side.map(|(letter, path)| change(letter, path)));
        let was_seen = wrong.is_none_or(|wrong| said.remove(&wrong));
        let is_new = right.is_none_or(|right| said.insert(right));
        if !was_seen || !is_new {
            eprintln!("podman diff is right now: {}", error.why);
        }
    }
    said
}

/// Every file's provider has what is seen.
#[track_caller]
fn assert_providers(podman: &Podman, container: &str, seen: &Tree) {
    let view = live::view(seen);
    let files = view.iter().filter(|(_, entry)| entry.kind == "file");
    let paths: Vec<&OsStr> = files.map(|(path, _)| os(path)).collect();
    assert!(paths.len() > 40, "{}", paths.len());
    let directories = podman.directories(container);
    let arguments = ["which", "--in", container, "--"].map(OsStr::new);
    let asked = arguments.into_iter().chain(paths.iter().copied());
    let rows = podman.ask(asked).exits(0).rows();
    assert_eq!(rows.len(), paths.len());
    for (row, path) in rows.iter().zip(&paths) {
        assert_eq!(row["state"], "present", "{row}");
        assert_eq!(os(&bytes(&row["path"])), *path);
        let branch = row["branch"].as_u64().expect("a branch");
        let branch = usize::try_from(branch).expect("a small number");
        let at = [os(&directories[branch]), path].join(OsStr::new(""));
        let found = fs::symlink_metadata(&at).unwrap_or_else(|error| panic!("{at:?}: {error}"));
        assert_eq!(Some(found.size()), view[path.as_encoded_bytes()].size);
    }
}

#[track_caller]
fn assert_deleted(podman: &Podman, container: &str) {
    for path in ["/opt/app/7", "/opt/tree/d/deep/er/file", "/opt/tree/e/link"] {
        let asked = format!("{container}:{path}");
        let row = podman.ask(["which", &asked]).exits(1).row();
        if podman.driver != "vfs" {
            assert_eq!(row["state"], "deleted", "{row}");
            assert_eq!(row["hidden_by"]["branch"], 0, "{row}");
        }
    }
    if podman.driver == "vfs" {
        return;
    }
    let paths_of = |verb: &[&str]| -> BTreeSet<Vec<u8>> {
        let rows = podman.ask(verb.iter().chain(&[container])).exits(0).rows();
        rows.iter().map(|row| bytes(&row["path"])).collect()
    };
    let hidden = paths_of(&["whiteouts", "--recoverable"]);
    for path in ["/opt/app/7", "/opt/tree/d", "/opt/tree/c/deep/er/file"] {
        assert!(hidden.contains(path.as_bytes()), "{path} of {hidden:?}");
    }
    let copied = paths_of(&["copyups"]);
    for path in ["/etc/passwd", "/opt/app/6", "/opt/big"] {
        assert!(copied.contains(path.as_bytes()), "{path} of {copied:?}");
    }
}

/// More layers than the kernel's options have room for: their names are descriptors (B3).
fn sixty_layers(podman: &Podman) {
    let context = podman.home.join("tmp/sixty");
    fs::create_dir(&context).expect("a directory of our own");
    // Copied rather than run: of many short runs one fails now and then (`sealing memfd copy`, buildah's).
    let steps: Vec<String> = (1..=60)
        .map(|step| {
            let of_step = context.join(format!("{step}"));
            fs::create_dir(&of_step).expect("a directory of our own");
            for name in ["step".to_owned(), format!("step-{step}")] {
                fs::write(of_step.join(name), format!("{step}\n")).expect("a file of our own");
            }
            format!("COPY {step}/ /opt/\n")
        })
        .collect();
    let all = format!("FROM {IMAGE}\n{}", steps.concat());
    fs::write(context.join("Containerfile"), all).expect("a file of our own");
    let tag = "localhost/lab/sixty:1";
    podman.said([
        "build",
        "--quiet",
        "--layers",
        "--isolation=chroot",
        "--network=host",
        "--tag",
        tag,
        path_of(&context),
    ]);
    let container = podman.new_name();
    let mut command = podman.running(&["--detach", "--name", &container]);
    done(command.arg(tag)).unwrap_or_else(|why| panic!("{why}"));
    podman.exec(&container, "rm /opt/step-7; echo more >> /opt/step");
    let seen = podman.seen(&container);
    assert!(seen.contains_key(&b"/opt/step-60"[..]));
    let changed = BTreeSet::from([
        change(b'C', "/etc"),
        change(b'C', "/opt"),
        change(b'C', "/opt/step"),
        change(b'D', "/opt/step-7"),
    ]);
    for is_running in [true, false] {
        let listed = podman.ask(["ls", "-R", "-l", &format!("{container}:/")]);
        assert_view(&container, listed, &live::view(&seen));
        let row = podman.ask(["branches", &container]).exits(0).row();
        assert_directories(&container, &row, &podman.directories(&container));
        assert!(directories_of(&row) > 60);
        podman.assert_changes(&container, &changed);
        if is_running {
            podman.restore(&[], &container, "/opt/step-7").exits(0);
            assert_eq!(podman.cat(&container, "/opt/step-7"), Some(b"7\n".to_vec()));
            podman.exec(&container, "rm /opt/step-7");
            podman.stop(&container);
        }
    }
}

fn directories_of(row: &Value) -> usize {
    row["branches"].as_array().map_or(0, Vec::len)
}

/// While all that can be made is made and removed, `orphans` finds nothing.
fn nobody_is_accused(podman: &Podman) {
    let archive = podman.home.join("tmp/storm.tar");
    let archive = path_of(&archive);
    podman.said(["save", "--quiet", "--output", archive, IMAGE]);
    let context = podman.home.join("tmp/storm");
    fs::create_dir(&context).expect("a directory of our own");
    let all = format!("FROM {IMAGE}\nRUN echo 1 > /one\nRUN rm -r /opt/tree\n");
    fs::write(context.join("Containerfile"), all).expect("a file of our own");
    let context = path_of(&context);
    let build = [
        "build",
        "--quiet",
        "--no-cache",
        "--isolation=chroot",
        "--network=host",
        "--tag",
        "storm:2",
        context,
    ];
    let jobs: [Vec<Vec<&str>>; 4] = [
        vec![
            vec!["run", "--detach", "--name", "storm-1", IMAGE],
            vec!["exec", "storm-1", "rm", "-r", "/opt/tree"],
            vec!["rm", "--force", "--time=0", "storm-1"],
        ],
        vec![
            vec!["create", "--name", "storm-2", IMAGE],
            vec!["commit", "--quiet", "storm-2", "storm:1"],
            vec!["rm", "storm-2"],
            vec!["rmi", "--force", "storm:1"],
        ],
        vec![build.into(), vec!["rmi", "--force", "storm:2"]],
        vec![
            vec!["import", "--quiet", archive, "storm:3"],
            vec!["rmi", "--force", "storm:3"],
            vec!["load", "--quiet", "--input", archive],
        ],
    ];
    let parent = format!("--cgroup-parent=/{}", live::cgroup(&podman.home).display());
    let step = |words: &[&str]| {
        let mut command = podman.command([words[0]]);
        if words[0] == "run" {
            command.arg(&parent);
        }
        let _ = asked(command.args(&words[1..]));
    };
    live::assert_nobody_is_accused(&jobs, &step, live::LOOKS, |asked| podman.ask(asked));
    let _ = asked(&mut podman.command(["rm", "--force", "--time=0", "storm-1", "storm-2"]));
    let _ = asked(&mut podman.command(["rmi", "--force", "storm:1", "storm:2", "storm:3"]));
}

fn an_unchanged_container(podman: &Podman) {
    let container = podman.run();
    let seen = podman.seen(&container);
    let truth = podman.truth(&seen);
    assert_eq!(truth, BTreeSet::from([change(b'C', "/etc")]));
    podman.assert_changes(&container, &truth);
    assert_eq!(podman.diff(&container), truth);
    let listed = podman.ask(["ls", "-R", "-l", &container]);
    assert_view(&container, listed, &live::view(&seen));
    // What it is started over.
    let listed = podman.ask(["ls", "-R", "-l", &format!("{IMAGE}:/")]);
    if podman.options.is_empty() {
        assert_view(IMAGE, listed, &live::view(&podman.image));
    }
}

fn every_name_of_a_union_means_it(podman: &Podman) {
    let container = podman.run();
    let said = podman.inspected(&container);
    let branches = podman.directories(&container);
    assert!(branches.len() > 7);
    let id = text(&said, "Id");
    let pid = podman.pid(&container);
    let merged = podman.merged(&container);

    let row = podman.ask(["branches", &container]).exits(0).row();
    assert_eq!(row["owner"]["engine"], "podman");
    assert_eq!(row["owner"]["kind"], "container");
    assert_eq!(row["owner"]["id"], id);
    assert_eq!(row["target"], format!("podman:{container}"));
    let rows = row["branches"].as_array().expect("branches");
    let layers = branches.len() - 1;
    for (index, branch) in rows.iter().enumerate() {
        let role = match index {
            0 => "container".into(),
            _ => format!("image {}/{layers}", layers + 1 - index),
        };
        assert_eq!(branch["role"], role.as_str(), "{branch}");
        let is_writable = text(branch, "permission").starts_with("rw");
        assert_eq!(is_writable, index == 0, "{branch}");
    }
    let engine = format!("podman:{container}");
    let mut names = vec![&container, id, &id[..12], &pid, &engine];
    let inside = merged.join("opt");
    if podman.user.is_none() {
        // In the user's mount namespace only the user's processes are there.
        names.extend([path_of(&merged), path_of(&inside)]);
    }
    for name in names {
        let of_name = podman.ask(["branches", name]).exits(0).row();
        assert_directories(name, &of_name, &branches);
        assert_eq!(of_name["owner"], row["owner"], "{name}");
    }
    let which = |asked: &[&str]| {
        let arguments = ["which"].iter().chain(asked);
        podman.ask(arguments).exits(0).row()
    };
    let expected = which(&[&format!("{container}:/opt/app/2")]);
    assert_eq!(
        podman.cat(&container, "/opt/app/2"),
        Some(b"changed in a layer\n".to_vec())
    );
    for asked in [
        &[&*format!("{pid}:/opt/app/2")][..],
        &["--in", &pid, "/opt/app/2"],
        &["--in", id, "/srv/link/2"],
    ] {
        let row = which(asked);
        for field in ["path", "branch", "layer", "versions"] {
            assert_eq!(row[field], expected[field], "{row}");
        }
    }
    let all = podman.ask(["branches"]).exits(0).rows();
    let found = all
        .iter()
        .find(|row| row["target"] == format!("podman:{container}"));
    assert_directories("all unions", found.expect("all unions"), &branches);

    let image = podman.ask(["branches", IMAGE]).exits(0).row();
    assert_directories(IMAGE, &image, &podman.directories(IMAGE));

    podman.stop(&container);
    let row = podman.ask(["branches", &container]).exits(0).row();
    assert_directories(&container, &row, &branches);
    assert_eq!(row["state"], "not-mounted");
    assert_eq!(podman.ask(["branches", &pid]).status, Some(2));
}

fn containers_that_go(podman: &Podman) {
    for round in 0..2 {
        let container = podman.run();
        podman.exec(&container, live::MAKE_MANY);
        if round % 2 == 0 {
            podman.stop(&container);
        }
        let mut remove = podman.command(["rm", "--force", "--time=0", &container]);
        live::assert_goes_whole(&mut remove, |asked| podman.ask(asked), &container);
    }
}

/// The place where Podman mounts an init, if it is asked for one.
fn podmans_init_is_no_change(podman: &Podman) {
    let init = podman.home.join("init");
    fs::write(&init, "#!/bin/sh\nexec sleep 3600\n").expect("a file of our own");
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755)).expect("our own file");
    let path = format!("--init-path={}", path_of(&init));
    let container = podman.run_with(&["--init", &path], &[]);
    assert_eq!(podman.inspected(&container)["State"]["Status"], "running");
    let truth = podman.diff(&container);
    assert_eq!(truth, podman.truth(&podman.seen(&container)));
    let changes = podman.changes(&container);
    let rows = podman.ask(["containers"]).exits(0).rows();
    podman.said(["rm", "--force", "--time=0", &container]);
    assert_changes(&container, &changes, &truth);
    let row = rows.iter().find(|row| row["name"] == container.as_str());
    assert_eq!(row.expect("it runs")["command"], "sleep 3600");
}

/// A container with `-v DIRECTORY:/dst:O` and `-v VOLUME:/named:O`, and the directory.
fn with_overlays(podman: &Podman) -> (String, PathBuf) {
    let name = podman.made.load(Ordering::Relaxed);
    let below = podman.home.join("tmp").join(format!("below-{name}"));
    fs::create_dir(&below).expect("a directory of our own");
    for file in ["a", "b"] {
        fs::write(below.join(file), file).expect("a file of our own");
        chown(below.join(file), podman.user, podman.user).expect("this is root");
    }
    chown(&below, podman.user, podman.user).expect("this is root");
    let volume = format!("below-{name}");
    podman.said(["volume", "create", &volume]);
    let options = [
        format!("--volume={}:/dst:O", below.display()),
        format!("--volume={volume}:/named:O"),
    ];
    let container = podman.run_with(&[&options[0], &options[1]], &[]);
    (container, below)
}

/// Where Podman says that the changes of an overlay are.
#[track_caller]
fn upper_of(podman: &Podman, container: &str, path: &str) -> PathBuf {
    let given = podman.userdata(container).join("config.json");
    let given = fs::read(given).expect("it was started");
    let given: Value = serde_json::from_slice(&given).expect("JSON");
    let mounts = given["mounts"].as_array().expect("mounts");
    let mount = mounts.iter().find(|mount| mount["destination"] == path);
    let merged = text(mount.expect("it is mounted"), "source");
    Path::new(merged).with_file_name("upper")
}

/// What `:O` volumes are, as what is mounted in the container shows them.
fn overlays_over_layers(podman: &Podman) {
    let (container, below) = with_overlays(podman);
    podman.exec(&container, "rm /dst/a; echo c > /dst/c; echo n > /named/n");
    let seen = podman.exec(&container, "ls -A /dst");
    let upper = upper_of(podman, &container, "/dst");
    let asked = path_of(&upper);
    let checked = podman.ask(["check"]);
    assert_eq!(checked.stderr, "", "nothing is unexplained");
    let listed = podman.ask(["ls", asked]).exits(0).rows();
    let listed: String = texts(&listed, "path")
        .iter()
        .map(|path| format!("{}\n", &path[1..]))
        .collect();
    assert_eq!(listed.as_bytes(), seen);
    let changed = changes_of(&podman.ask(["changes", asked]).exits(0).rows());
    let truth = BTreeSet::from([change(b'D', "/a"), change(b'A', "/c")]);
    assert_eq!(changed, truth);
    let cover = |path: &str| {
        let rows = podman.ask(["which", &format!("{container}:{path}")]).rows();
        rows[0]["covered_by"].clone()
    };
    let (dst, named) = (cover("/dst/b"), cover("/named"));
    assert_eq!(dst["kind"], "overlay", "{dst}");
    assert_eq!(text(&dst, "source"), path_of(&below));
    assert_eq!(text(&dst, "upper"), asked);
    let upper_of_named = upper_of(podman, &container, "/named");
    assert_eq!(text(&named, "upper"), path_of(&upper_of_named));
    assert_eq!(
        text(&named, "name"),
        path_of(below.file_name().map(Path::new).expect("a name"))
    );
    for (path, at) in [
        (upper.join("c"), "/dst"),
        (below.join("b"), "/dst"),
        (upper_of_named.join("n"), "/named"),
    ] {
        let row = podman.ask(["whois", path_of(&path)]).exits(0).row();
        assert_eq!(row["containers"][0]["name"], container.as_str(), "{row}");
        assert!(
            text(&row, "why").contains(&format!("in the overlay at {at} of")),
            "{row}"
        );
    }
    let rows = podman.ask(["du", &container]).exits(0).rows();
    let row = rows
        .iter()
        .find(|row| row["kind"] == "volume")
        .expect("it has changes");
    assert!(text(row, "name").contains("/dst"), "{row}");
    let kept = podman.userdata(&container);
    for row in podman.ask(["orphans"]).rows() {
        assert!(!text(&row, "path").starts_with(path_of(&kept)), "{row}");
    }
    podman.stop(&container);
    assert!(!upper.exists(), "Podman takes it away");
    assert_eq!(podman.ask(["check"]).stderr, "");
    let dst = cover("/dst/b");
    assert_eq!(text(&dst, "source"), path_of(&below));
    assert!(dst["upper"].is_null(), "{dst}");
    podman.said(["rm", &container]);
}

/// A container that mounts what is called as its overlay is, of directories of its own.
fn a_forged_overlay(podman: &Podman) {
    let (container, below) = with_overlays(podman);
    let upper = upper_of(podman, &container, "/dst");
    let (upper, work) = (path_of(&upper), upper.with_file_name("work"));
    // Its own root may be an overlay already, which cannot be an upper one once more.
    let script = format!(
        "set -e; umount /dst; for at in {upper} {work} {below}; do mkdir -p /tmp/f/$at; done; \
         mount -t tmpfs none /tmp/f; mkdir -p /tmp/f{upper} /tmp/f{work} /tmp/f{below}; \
         echo 1 > /tmp/f{below}/x; echo 2 > /tmp/f{below}/y; echo 3 > /tmp/f{upper}/z; \
         mkdir -p /tmp/f/bin /tmp/f/dst; cp /bin/busybox /tmp/f/bin/busybox; mkdir -p {top}; mount --rbind /tmp/f{top} {top}; \
         mount -t overlay none -o lowerdir={below},upperdir={upper},workdir={work} /dst",
        work = work.display(),
        below = below.display(),
        top = podman.home.display(),
    );
    let pid = podman.pid(&container);
    let mut forged = Command::new("nsenter");
    forged.args([
        "--target",
        &pid,
        "--mount",
        "--",
        "/bin/busybox",
        "sh",
        "-c",
        &script,
    ]);
    done(&mut forged).unwrap_or_else(|why| panic!("{why}"));
    assert_eq!(podman.exec(&container, "ls /dst"), b"x\ny\nz\n");
    // What it shows is not what the record has, and nothing of the host's is said to be there.
    let checked = podman.ask(["check"]).exits(2);
    assert!(
        checked.stderr.contains("is another directory than the one"),
        "{}",
        checked.stderr
    );
    let listed = podman.ask(["ls", upper]);
    assert!(!listed.text().contains("\"/b\""), "{}", listed.text());
    podman.said(["rm", "--force", "--time=0", &container]);
    assert_eq!(podman.ask(["check"]).stderr, "");
}

/// The layers of an image keep their owners, and the kernel shows them as others: where it can,
/// they are mounted once more for that, in the container's own directory.
fn ids_may_be_mapped(podman: &Podman) {
    let maps = ["--uidmap", "--gidmap"].map(|option| format!("{option}=0:{SUBORDINATE}:65536"));
    let container = podman.run_with(&[&maps[0], &maps[1]], &[]);
    podman.exec(&container, CHANGE);
    let seen = podman.seen(&container);
    let mut image = podman.image.clone();
    live::shift_owners(&mut image, SUBORDINATE);
    let truth = live::differences(&image, &seen);
    let truth = without_podmans(truth);
    assert!(truth.contains(&change(b'D', "/opt/app/7")));
    assert!(!truth.contains(&change(b'C', "/opt/app/6")));
    for state in ["running", "stopped"] {
        podman.assert_changes(&container, &truth);
        let row = podman.ask(["branches", &container]).exits(0).row();
        assert_directories(state, &row, &podman.directories(&container));
        let rows = podman.ask(["ls", "-R", &container]).exits(0).rows();
        let ours: BTreeSet<Vec<u8>> = rows.iter().map(|row| bytes(&row["path"])).collect();
        assert_eq!(ours, seen.keys().cloned().collect(), "{state}");
        if state == "running" {
            podman.restore(&[], &container, "/opt/app/7").exits(0);
            let stat = podman.exec(&container, "stat -c '%u %g' /opt/app/7");
            assert_eq!(stat, b"0 0\n");
            podman.exec(&container, "rm /opt/app/7");
            podman.stop(&container);
        }
    }
}

// ---- lists ----

/// Docker's word for a state of Podman's.
fn word(state: &str) -> &str {
    match state {
        "configured" | "created" | "initialized" => "created",
        "stopped" | "exited" => "exited",
        "running" | "paused" => state,
        other => panic!("no state is {other:?}"),
    }
}

fn words(value: &Value) -> Vec<&str> {
    let words = value.as_array().into_iter().flatten();
    words.filter_map(Value::as_str).collect()
}

fn lists_are_podmans(podman: &Podman) {
    let (running, exited) = (podman.run(), podman.run());
    let failed = podman.run_with(&[], &["sh", "-c", "exit 3"]);
    let created = podman.new_name();
    podman.said(["create", "--name", &created, IMAGE, "sleep", "1 2", "3"]);
    podman.stop(&exited);
    podman.said(["wait", &failed]);
    let paused = podman.user.is_none().then(|| podman.run());
    if let Some(paused) = &paused {
        podman.said(["pause", paused]);
    }
    podman.said(["commit", "--quiet", &running, "lab/committed"]);

    let rows = podman.ask(["containers"]).exits(0).rows();
    let said = podman.json(["ps", "--all", "--external", "--format", "json"]);
    let said = said.as_array().expect("a list");
    assert_eq!(rows.len(), said.len(), "{rows:#?}");
    for said in said {
        let row = rows.iter().find(|row| row["id"] == said["Id"]);
        let row = row.unwrap_or_else(|| panic!("no {said}"));
        assert_eq!(row["engine"], "podman");
        assert_eq!(row["driver"], podman.driver);
        assert_eq!(row["name"], said["Names"][0], "{said}");
        assert_eq!(row["image"], said["Image"], "{said}");
        assert_eq!(row["image_id"], said["ImageID"], "{said}");
        let inspected = podman.inspected(text(said, "Id"));
        assert_eq!(text(row, "command"), words(&said["Command"]).join(" "));
        assert_eq!(row["created"], inspected["Created"]);
        let state = text(&inspected["State"], "Status");
        assert_eq!(text(row, "state"), word(state), "{row}");
        assert_eq!(row["exit_code"], inspected["State"]["ExitCode"], "{row}");
        let is_running = matches!(state, "running" | "paused");
        assert_eq!(row["mounted"], is_running, "{row}");
    }
    let state_of = |name: &str| {
        let row = rows.iter().find(|row| row["name"] == name);
        let row = row.expect("it was made");
        (text(row, "state").to_owned(), row["exit_code"].as_i64())
    };
    assert_eq!(state_of(&running), ("running".into(), Some(0)));
    assert_eq!(state_of(&created), ("created".into(), Some(0)));
    assert_eq!(state_of(&failed), ("exited".into(), Some(3)));
    assert_eq!(state_of(&exited).0, "exited");
    assert_eq!(podman.changes(&created), BTreeSet::new());
    if let Some(paused) = &paused {
        assert_eq!(state_of(paused).0, "paused");
        assert_eq!(podman.changes(paused), podman.diff(paused));
        podman.said(["unpause", paused]);
    }
    images_are_podmans(podman);
}

fn images_are_podmans(podman: &Podman) {
    let said = podman.json(["images", "--all", "--format", "json"]);
    let said = said.as_array().expect("a list");
    let rows = podman.ask(["images", "--all"]).exits(0).rows();
    let ours: BTreeSet<&str> = texts(&rows, "id").into_iter().collect();
    let theirs: BTreeSet<&str> = texts(said, "Id").into_iter().collect();
    assert_eq!(ours, theirs);
    assert_eq!(rows.len(), ours.len());
    assert!(rows.len() > 7);
    for row in &rows {
        let said = podman.inspected(text(row, "id"));
        let layers = said["RootFS"]["Layers"].as_array().expect("layers");
        assert_eq!(row["engine"], "podman");
        assert_eq!(row["driver"], podman.driver);
        assert_eq!(words(&row["tags"]), words(&said["RepoTags"]), "{row}");
        assert_eq!(row["layer_count"], layers.len(), "{row}");
        assert_eq!(row["size"], said["Size"], "{row}");
        assert_eq!(row["created"], said["Created"], "{row}");
    }
}

fn history_is_podmans(podman: &Podman) {
    let said = podman.json([
        "history",
        "--no-trunc",
        "--human=false",
        "--format",
        "json",
        IMAGE,
    ]);
    let said = said.as_array().expect("a list");
    let inspected = podman.inspected(IMAGE);
    let rows = podman.ask(["history", IMAGE]).exits(0).rows();
    assert_eq!(rows.len(), said.len());
    for (row, said) in rows.iter().zip(said) {
        assert_eq!(row["instruction"], said["CreatedBy"]);
        let size = said["size"].as_u64().unwrap_or_default();
        assert_eq!(row["size"].as_u64().unwrap_or_default(), size, "{row}");
    }
    assert_eq!(rows[0]["image"], inspected["Id"]);
    // Newest first, and the layers of an image are named oldest first.
    let diffs: Vec<&Value> = rows.iter().filter_map(|row| row.get("diff_id")).collect();
    let layers = inspected["RootFS"]["Layers"].as_array().expect("layers");
    assert!(layers.len() > 6);
    assert_eq!(diffs, layers.iter().rev().collect::<Vec<_>>());
    let ours: Vec<Vec<u8>> = rows
        .iter()
        .filter(|row| row.get("diff_id").is_some())
        .map(|row| bytes(&row["directory"]))
        .collect();
    assert_eq!(ours, podman.directories(IMAGE));
}

/// The one that has a store of its own: nothing but Podman's containers is in it.
fn info_is_podmans(machine: &Machine) {
    let podman = machine.other();
    podman.run();
    let said = podman.json(["info", "--format", "json"])["store"].take();
    let row = podman.ask(["info"]).exits(0).row();
    let engine = &row["engines"][0];
    let counts = &said["containerStore"];
    for (field, said) in [
        ("container_count", &counts["number"]),
        ("running_count", &counts["running"]),
        ("paused_count", &counts["paused"]),
        ("stopped_count", &counts["stopped"]),
        ("image_count", &said["imageStore"]["number"]),
        ("storage_driver", &said["graphDriverName"]),
    ] {
        assert_eq!(engine[field], *said, "{field}");
    }
    assert_eq!(engine["engine"], "podman");
    assert_eq!(row["problems"], json!([]));
}

// ---- buildah ----

fn a_working_container(machine: &Machine) {
    let podman = &machine.podman;
    let buildah = |arguments: &[&str]| {
        let printed = asked(podman.program("buildah").args(arguments));
        let printed = printed.unwrap_or_else(|why| panic!("{why}"));
        let printed = String::from_utf8(printed).expect("buildah prints UTF-8");
        printed.trim_end().to_owned()
    };
    let container = "lab-working-container";
    buildah(&["from", "--name", container, IMAGE]);
    let script = [
        "run",
        "--isolation=chroot",
        container,
        "--",
        "sh",
        "-c",
        CHANGE,
    ];
    buildah(&script);
    let copied = podman.home.join("tmp/copied");
    fs::write(&copied, "copied").expect("a directory of our own");
    buildah(&["copy", container, path_of(&copied), "/srv/"]);

    let listed: Value = serde_json::from_str(&buildah(&["containers", "--json"])).expect("JSON");
    let said = listed.as_array().expect("a list");
    let said = said.iter().find(|said| said["containername"] == container);
    let said = said.expect("it was made");
    let rows = podman.ask(["containers"]).exits(0).rows();
    let mut rows = rows.iter().filter(|row| row["name"] == container);
    let row = rows.next().expect("it is listed");
    assert!(rows.next().is_none());
    assert_eq!(row["id"], said["id"]);
    assert_eq!(row["image_id"], said["imageid"]);
    assert_eq!(row["image"], said["imagename"]);
    assert_ne!(row["state"], "running", "{row}");

    // Mounted, and not.
    let mounted = PathBuf::from(buildah(&["mount", container]));
    let truth = podman.truth(&live::tree(&mounted));
    assert!(truth.contains(&change(b'A', "/srv/copied")), "{truth:?}");
    podman.assert_changes(container, &truth);
    let listed = podman.ask(["ls", "-R", "-l", container]);
    assert_view(container, listed, &live::view(&live::tree(&mounted)));
    let row = podman.ask(["branches", container]).exits(0).row();
    assert_eq!(row["state"], "mounted", "{row}");
    assert_eq!(row["mounts"], json!([mounted]));
    let asked = format!("{}/opt/app/7", path_of(&mounted));
    podman.ask(["which", &asked]).exits(1);
    // Through its mount.
    let row = podman.restore(&[], container, "/opt/app/7").exits(0).row();
    assert_eq!(row["strategy"], "copy", "{row}");
    let found = fs::read(mounted.join("opt/app/7"));
    assert_eq!(found.expect("it is back"), b"7 as it was\n");
    buildah(&["umount", container]);

    let mut truth = truth;
    truth.remove(&change(b'D', "/opt/app/7"));
    podman.assert_changes(container, &truth);
    let row = podman.ask(["branches", container]).exits(0).row();
    assert_eq!(row["state"], "not-mounted", "{row}");
    let row = podman.restore(&[], container, "/opt/tree/c/deep/er/file");
    assert_eq!(row.exits(0).row()["strategy"], "unhide");
    let mounted = PathBuf::from(buildah(&["mount", container]));
    let found = fs::read(mounted.join("opt/tree/c/deep/er/file"));
    assert_eq!(found.expect("it is back"), b"c\n");
    podman.assert_changes(container, &podman.truth(&live::tree(&mounted)));
    buildah(&["rm", container]);
}

// ---- what is restored ----

fn is_whiteout(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|meta| meta.mode() >> 12 == 0o02 && meta.rdev() == 0)
}

/// In the mount of a user's own namespace root is nobody, and the kernel makes nothing for him.
fn only_the_user_can_write(podman: &Podman) {
    let container = podman.run();
    let path = "/opt/app/7";
    podman.exec(&container, &format!("rm {path}"));
    let names = podman.exec(&container, "ls -a /opt/app");
    let refused = podman.restore(&[], &container, path).exits(2);
    let hint = "as the user whose container it is";
    assert!(refused.stderr.contains(hint), "{}", refused.stderr);
    assert_eq!(podman.exec(&container, "ls -a /opt/app"), names);
}

fn restore_while_it_runs(podman: &Podman) {
    let container = podman.run();
    let path = "/opt/app/7";
    let before = podman.cat(&container, path).expect("the image has it");
    let stat = format!("stat -c '%a %u %g %s %Y' {path} /opt/app/2 /opt/tree/h/*");
    let stat_before = podman.exec(&container, &stat);
    // Looked up after its deletion, so that the kernel has it in mind (64).
    podman.exec(&container, &format!("rm {path}; ls -l {path} || true"));
    assert_eq!(podman.cat(&container, path), None);
    let row = podman.restore(&[], &container, path).exits(0).row();
    assert_eq!(row["strategy"], "copy", "{row}");
    assert_eq!(row["applied"], true, "{row}");
    assert_eq!(podman.cat(&container, path), Some(before.clone()));
    assert_eq!(podman.exec(&container, &stat), stat_before);
    // There is nothing to bring back now.
    podman.restore(&[], &container, path).exits(1);

    // By the process, and whole trees with other owners.
    podman.exec(
        &container,
        &format!("rm -r {path} /opt/tree/h /opt/tree/d; ls -l {path} /opt/tree/h || true"),
    );
    let pid = podman.pid(&container);
    podman.ask(["restore", &format!("{pid}:{path}")]).exits(0);
    assert_eq!(podman.cat(&container, path), Some(before.clone()));
    for tree in ["/opt/tree/h", "/opt/tree/d"] {
        podman.restore(&["--recursive"], &container, tree).exits(0);
    }
    assert_eq!(podman.exec(&container, &stat), stat_before);
    let unchanged = BTreeSet::from([change(b'C', "/etc")]);
    assert_eq!(podman.truth(&podman.seen(&container)), unchanged);
    podman.assert_changes(&container, &unchanged);
    // And odd names.
    podman.exec(&container, "cd /opt/odd && rm ./* && ls -l");
    let odd: Vec<&Vec<u8>> = podman
        .image
        .keys()
        .filter(|path| path.starts_with(b"/opt/odd/"))
        .collect();
    assert_eq!(odd.len(), 6);
    for path in odd {
        podman.restore(&[], &container, os(path)).exits(0);
    }
    podman.assert_changes(&container, &unchanged);

    // A new start does not lose it.
    podman.stop(&container);
    podman.start(&container);
    assert_eq!(podman.cat(&container, path), Some(before));
    assert_eq!(podman.exec(&container, &stat), stat_before);
}

fn restore_after_stop(podman: &Podman) {
    let container = podman.run();
    podman.exec(
        &container,
        "rm /opt/app/7 && rm -r /opt/tree/d /opt/tree/e && mkdir /opt/tree/e; echo x > /opt/app/2",
    );
    podman.stop(&container);
    let upper = podman.upper(&container);
    let layers = || -> Snapshot {
        let all = snapshot(&podman.graph.join(podman.driver)).into_iter();
        let ours = upper.parent().expect("a layer's directory");
        all.filter(|(path, _)| !path.starts_with(ours)).collect()
    };
    let before = layers();
    assert!(is_whiteout(&upper.join("opt/app/7")));
    let row = podman.restore(&[], &container, "/opt/app/7").exits(0).row();
    assert_eq!(row["strategy"], "unhide", "{row}");
    assert_eq!(row["applied"], true, "{row}");
    let gone = fs::symlink_metadata(upper.join("opt/app/7"));
    assert_eq!(
        gone.map_err(|error| error.kind()).err(),
        Some(io::ErrorKind::NotFound)
    );
    // A directory comes back whole with its whiteout, which takes a word; and a file out of one.
    podman
        .restore(&["--yes"], &container, "/opt/tree/d")
        .exits(0);
    podman
        .restore(&[], &container, "/opt/tree/e/deep/er/file")
        .exits(0);
    podman
        .restore(&["--revert", "--discard"], &container, "/opt/app/2")
        .exits(0);
    assert_untouched(&before, &layers(), "restore");

    podman.start(&container);
    for (path, content) in [
        ("/opt/app/7", "7 as it was\n"),
        ("/opt/app/2", "changed in a layer\n"),
        ("/opt/tree/d/deep/er/file", "d\n"),
        ("/opt/tree/e/deep/er/file", "e\n"),
    ] {
        let found = podman.cat(&container, path);
        assert_eq!(found, Some(content.into()), "{path}");
    }
    let truth = podman.truth(&podman.seen(&container));
    let expected = [
        (b'C', "/etc"),
        (b'C', "/opt"),
        (b'C', "/opt/tree"),
        (b'C', "/opt/tree/e"),
        (b'D', "/opt/tree/e/file"),
        (b'D', "/opt/tree/e/link"),
    ];
    assert_eq!(
        truth,
        expected.map(|(letter, path)| change(letter, path)).into()
    );
    podman.assert_changes(&container, &truth);
    // Owners are what they were.
    let seen = podman.seen(&container);
    let view = live::view(&seen);
    let image = live::view(&podman.image);
    for path in ["/opt/app/7", "/opt/tree/e/deep", "/opt/tree/e/deep/er/file"] {
        assert_eq!(view[path.as_bytes()], image[path.as_bytes()], "{path}");
    }
}

/// What a container has mounted over its union is not the union.
fn restore_below_a_mount_of_the_container(podman: &Podman) {
    let container = podman.run_with(&["--tmpfs=/opt/app:notmpcopyup"], &[]);
    let at = podman.merged(&container).join("opt/app/7");
    let pid = podman.pid(&container);
    let listed = || podman.exec(&container, "ls -A /opt/app");
    // Where the union itself can be reached, that is the way.
    for target in [&container, &pid] {
        fs::remove_file(&at).expect("it is mounted");
        podman
            .ask(["restore", &format!("{target}:/opt/app/7")])
            .exits(0);
        assert_eq!(fs::read(&at).expect("it is back"), b"7 as it was\n");
        assert_eq!(listed(), b"");
    }
    podman.assert_changes(&container, &podman.truth(&podman.seen(&container)));
}

// ---- an ordinary user's ----

fn only_the_users_processes_have_it_mounted(podman: &Podman) {
    let container = podman.run();
    let merged = podman.merged(&container);
    let table = fs::read_to_string("/proc/self/mountinfo").expect("a mount table");
    assert!(!table.contains(path_of(&merged)));
    let here = fs::read_dir(&merged).expect("an empty directory");
    assert_eq!(here.count(), 0);

    podman.exec(&container, "rm /opt/app/7; ls -l /opt/app/7 || true");
    let row = podman.ask(["branches", &container]).exits(0).row();
    assert_eq!(row["state"], "elsewhere", "{row}");
    assert_directories(&container, &row, &podman.directories(&container));
    let mounts = row["mounts"].as_array().expect("mounts");
    assert!(mounts.contains(&json!(merged)), "{row}");
    let named = format!("{container}:/opt/app/7");
    let row = podman.ask(["which", &named]).exits(1).row();
    assert_eq!(row["state"], "deleted", "{row}");
    let rows = podman.ask(["containers"]).exits(0).rows();
    let row = rows.iter().find(|row| row["name"] == container.as_str());
    assert_eq!(row.expect("it runs")["mounted"], true);

    // It is in use, though not here.
    let upper = podman.upper(&container);
    let before = snapshot(&upper);
    for options in [
        &["--strategy", "unhide"][..],
        &["--strategy", "unhide", "--yes"],
        &["--strategy", "unhide", "--dry-run"],
    ] {
        let refused = podman.restore(options, &container, "/opt/app/7").exits(2);
        assert!(refused.stderr.contains("mounted"), "{}", refused.stderr);
        assert_untouched(&before, &snapshot(&upper), "a refused restore");
    }
}

fn the_user_asks(podman: &Podman) {
    let container = podman.run();
    podman.exec(&container, "rm /opt/app/7; echo more >> /opt/app/2");
    for arguments in [
        &["containers"][..],
        &["images", "--all"],
        &["history", IMAGE],
        &["changes", &container],
        &["ls", "-R", "-l", &container],
        &["whiteouts", &container],
        &["copyups", &container],
    ] {
        let (mut mine, mut roots) = (podman.ask_as_user(arguments), podman.ask(arguments));
        // Times go by.
        for output in [&mut mine, &mut roots] {
            assert_eq!(output.status, Some(0), "{arguments:?} {}", output.stderr);
        }
        assert_eq!(mine.rows(), roots.rows(), "{arguments:?}");
    }
    let row = podman.ask_as_user(["branches", &container]).exits(0).row();
    assert_directories(&container, &row, &podman.directories(&container));
    assert_eq!(row["state"], "elsewhere", "{row}");
    // Who is in the namespace sees the mount.
    let mut command = podman.program("podman");
    command.arg("unshare").arg(podman.home.join("layerctl"));
    let row = podman.ask_with(&mut command, ["branches", &container]);
    let row = row.exits(0).row();
    assert_directories(&container, &row, &podman.directories(&container));
    assert_eq!(row["state"], "mounted", "{row}");
}

fn the_user_restores(podman: &Podman) {
    let container = podman.run();
    let named = format!("{container}:/opt/app/7");
    podman.exec(&container, "rm /opt/app/7; ls -l /opt/app/7 || true");
    let row = podman.ask_as_user(["restore", &named]).exits(0).row();
    assert_eq!(row["strategy"], "copy", "{row}");
    assert_eq!(
        podman.cat(&container, "/opt/app/7"),
        Some(b"7 as it was\n".to_vec())
    );
    let unchanged = BTreeSet::from([change(b'C', "/etc")]);
    podman.assert_changes(&container, &unchanged);
    podman.stop(&container);
    assert_eq!(podman.truth(&podman.seen(&container)), unchanged);
}

/// What the kernel's overlay shows of the same image after the same commands.
fn fuse_shows_what_overlay_shows(machine: &Machine) {
    let (podman, fuse) = (&machine.podman, machine.other());
    let (container, of_fuse) = (podman.run(), fuse.run());
    for script in [CHANGE, CHANGE_MORE] {
        podman.exec(&container, script);
        fuse.exec(&of_fuse, script);
    }
    let seen = podman.seen(&container);
    let truth = podman.truth(&seen);
    let mut view = live::view(&seen);
    // The program's copy of a file loses the set-user-id bit, and newer ones make a FIFO whatever the
    // umask is.
    for path in ["/opt/app/5", "/root/fifo"] {
        let said = fuse.exec(&of_fuse, &format!("stat -c %a {path}"));
        let entry = view.get_mut(path.as_bytes()).expect("it is there");
        if let Some((mode, ..)) = &mut entry.rights {
            let said = std::str::from_utf8(&said).expect("a number").trim();
            *mode = u32::from_str_radix(said, 8).expect("a mode");
        }
    }
    for state in ["running", "stopped"] {
        fuse.assert_changes(&of_fuse, &truth);
        let listed = fuse.ask(["ls", "-R", "-l", &of_fuse]);
        assert_view(&format!("{of_fuse} {state}"), listed, &view);
        assert_deleted(fuse, &of_fuse);
        let row = fuse.ask(["branches", &of_fuse]).exits(0).row();
        assert_directories(&of_fuse, &row, &fuse.directories(&of_fuse));
        let expected = match state {
            "running" => "elsewhere",
            _ => "not-mounted",
        };
        assert_eq!(row["state"], expected, "{row}");
        if state == "running" {
            let pid = fuse.pid(&of_fuse);
            let of_process = fuse.ask(["branches", &pid]).exits(0).row();
            assert_directories(&pid, &of_process, &fuse.directories(&of_fuse));
            fuse.stop(&of_fuse);
        }
    }
}

/// Its mount is closed to everybody else, root too.
fn restore_on_fuse(fuse: &Podman) {
    let container = fuse.run();
    fuse.exec(
        &container,
        "rm /opt/app/7 /opt/app/8; ls -l /opt/app/7 || true",
    );
    let upper = fuse.upper(&container);
    let before = snapshot(&upper);
    let refused = fuse.restore(&[], &container, "/opt/app/7").exits(2);
    assert_untouched(&before, &snapshot(&upper), "a refused restore");
    fuse.stop(&container);
    for path in ["/opt/app/7", "/opt/app/8"] {
        fuse.restore(&[], &container, path).exits(0);
    }
    fuse.start(&container);
    for name in [7, 8] {
        assert_eq!(
            fuse.cat(&container, format!("/opt/app/{name}")),
            Some(format!("{name} as it was\n").into_bytes())
        );
    }
    assert_eq!(
        fuse.changes(&container),
        BTreeSet::from([change(b'C', "/etc")])
    );
    // Whoever is root need not be told.
    assert!(
        !refused.stderr.contains("run layerctl as root"),
        "{}",
        refused.stderr
    );
}

/// What a layer has where `CHANGE_MORE` made a directory anew, by its names and attributes.
fn marks_in(layer: &Path) -> String {
    let look = "find \"$0\" -ls; getfattr -R -d -m - -- \"$0\"";
    let mut looking = Command::new("sh");
    looking.args(["-c", look]).arg(layer.join("opt/tree/e"));
    let found = asked(&mut looking).map(|found| String::from_utf8_lossy(&found).into_owned());
    found.unwrap_or_else(|why| why)
}

/// In the user's own namespaces, where the user's files belong to root.
fn the_user_asks_from_within(podman: &Podman) {
    let within = |arguments: &[&str]| {
        let mut command = podman.program("podman");
        command.arg("unshare").arg(podman.home.join("layerctl"));
        podman.ask_with(&mut command, arguments)
    };
    let container = podman.run();
    for script in [CHANGE, CHANGE_MORE] {
        podman.exec(&container, script);
    }
    let truth = podman.changes(&container);
    // An opaque directory hides it.
    let is_opaque = truth.contains(&change(b'D', "/opt/tree/e/link"));
    assert!(
        is_opaque,
        "{truth:?}\n{}",
        marks_in(&podman.upper(&container))
    );
    let look = |state: &str| {
        let rows = within(&["changes", &container]).exits(0).rows();
        assert_changes(state, &changes_of(&rows), &truth);
    };
    look("running");
    podman.exec(&container, "ls -l /opt/app/7 || true");
    let named = format!("{container}:/opt/app/7");
    within(&["restore", &named]).exits(0);
    assert_eq!(
        podman.cat(&container, "/opt/app/7"),
        Some(b"7 as it was\n".to_vec())
    );
    // Another one: what fuse-overlayfs got back it deletes without a mark.
    let container = podman.run();
    for script in [CHANGE, CHANGE_MORE] {
        podman.exec(&container, script);
    }
    let named = format!("{container}:/opt/app/7");
    podman.stop(&container);
    let rows = within(&["changes", &container]).exits(0).rows();
    assert_changes("stopped", &changes_of(&rows), &truth);
    within(&["restore", &named]).exits(0);
    podman.start(&container);
    assert_eq!(
        podman.cat(&container, "/opt/app/7"),
        Some(b"7 as it was\n".to_vec())
    );
}

// ---- what is left alone ----

/// Every verb that only reads, and one that would write.
fn reading(container: &str) -> Vec<Words> {
    let path = format!("{container}:/opt/app/7");
    let mut all = verbs::reading(
        container.as_ref(),
        "/opt/app/7".as_ref(),
        "/var/lib".as_ref(),
    );
    all.extend([
        verbs::words(["branches", IMAGE]),
        verbs::words(["ls", "-R", "-l", IMAGE]),
        verbs::words(["restore", "--dry-run", "--revert", "--discard", &path]),
    ]);
    all
}

/// The locks of a store, and of libpod's database.
fn hold_locks(podman: &Podman) -> Vec<File> {
    let driver = podman.driver;
    let mut held = Vec::new();
    for path in [
        podman.graph.join("storage.lock"),
        podman.graph.join(format!("{driver}-layers/layers.lock")),
        podman.graph.join(format!("{driver}-images/images.lock")),
        podman
            .graph
            .join(format!("{driver}-containers/containers.lock")),
        podman.run.join(format!("{driver}-layers/mountpoints.lock")),
        podman.database(),
    ] {
        let file = OpenOptions::new().read(true).write(true).open(&path);
        let file = file.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        while flock(&file, FlockOperation::NonBlockingLockExclusive).is_err()
            || fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive).is_err()
        {
            std::thread::yield_now();
        }
        held.push(file);
    }
    held
}

fn locks_are_not_waited_for(podman: &Podman) {
    let container = podman.run();
    podman.exec(&container, "rm /opt/app/7");
    let answers = || {
        let of = |arguments: &Words| {
            let mut command = Command::new("timeout");
            command
                .env_clear()
                .args(["--kill-after=1", "300", env!("CARGO_BIN_EXE_layerctl")]);
            let output = podman.ask_with(&mut command, arguments);
            // These tell when they were made, and how long that took.
            let tells_time = arguments
                .iter()
                .any(|of| *of == "report" || *of == "metrics");
            (
                output.status,
                if tells_time {
                    Vec::new()
                } else {
                    output.stdout
                },
            )
        };
        reading(&container).iter().map(of).collect::<Vec<_>>()
    };
    let before = answers();
    let held = hold_locks(podman);
    let meanwhile = answers();
    // Podman waits.
    let mut waiting = Command::new("timeout");
    waiting.args(["--signal=KILL", "1", "podman", "ps"]);
    let waited = waiting.output().expect("timeout ran before").status;
    drop(held);
    assert!(!waited.success(), "the locks were not held");
    assert_eq!(meanwhile, before);
}

fn nothing_is_written(machine: &Machine) {
    for podman in [&machine.podman, machine.other()] {
        let (running, stopped) = (podman.run(), podman.run());
        for container in [&running, &stopped] {
            podman.exec(container, "rm /opt/app/7; echo more >> /opt/app/2");
        }
        podman.stop(&stopped);
        let all = || {
            let mut all = snapshot(&podman.graph);
            all.extend(snapshot(&podman.run));
            all
        };
        // Podman cleans up for a while.
        let mut before = all();
        for _ in 0..20 {
            std::thread::sleep(Duration::from_millis(150));
            let now = all();
            if now == before {
                break;
            }
            before = now;
        }
        for container in [&running, &stopped] {
            for arguments in reading(container) {
                podman.ask(&arguments);
                if podman.user.is_some() && *container == running {
                    podman.ask_as_user(&arguments);
                }
            }
        }
        assert_untouched(&before, &all(), "reading");
    }
}
