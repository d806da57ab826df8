//! Images and containers carried from living engines to others: what leaves has the same id, the same
//! layers and the same files wherever it is loaded, and a container's files are those that its own engine
//! exports.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::containerd_live::{self, Containerd, DEFAULT, NATIVE};
use crate::docker_live::{self, Docker};
use crate::hosts;
use crate::lab::host::Host;
use crate::lab::live::{CHANGE, CHANGE_MORE, Live, asked, done};
use crate::lab::packed::{
    ENGINES_OWN, Entry, Packed, assert_same, of_archive, of_directory, of_union, sum,
    without_times_of_directories,
};
use crate::lab::run::{Output, text, texts};
use crate::lab::{archive, needs};
use crate::podman_live::{self, Machine, Podman, path_of};

#[apply(test)]
fn images_are_carried_from_every_engine_to_every_other() {
    Live {
        engine: "Docker",
        programs: &[
            "dockerd",
            "docker",
            "podman",
            "buildah",
            "runc",
            "conmon",
            "containerd",
            "ctr",
            "skopeo",
            "umoci",
        ],
        stores: "vfs",
    }
    .run(
        Engines::start,
        &[
            ("images of Docker", images_of_docker),
            ("images of Podman and buildah", images_of_podman),
            ("images of containerd", images_of_containerd),
            ("containers of Docker", containers_of_docker),
            ("containers of Podman", containers_of_podman),
            ("containers of containerd", containers_of_containerd),
            ("what podman cp hands over", what_podman_hands_over),
            ("containers of a kernel that had AUFS", containers_of_aufs),
            ("the article's container", the_articles_container),
        ],
    );
}

/// Where what arrives is unpacked.
const ARRIVED: &str = "arrived";
/// What a container is called that leaves as an image.
const TAG: &str = "carried/app:7";

struct Engines {
    home: PathBuf,
    overlay2: Docker,
    vfs: Docker,
    /// containerd's image store, where Docker has one.
    snapshots: Option<Docker>,
    machine: Machine,
    containerd: Containerd,
    /// These have no images.
    to_docker: Docker,
    to_podman: Podman,
}

impl Engines {
    fn start(home: &Path) -> Result<Engines, String> {
        let of = |name: &str| {
            let at = home.join(name);
            fs::create_dir(&at).expect("a directory of our own");
            fs::set_permissions(&at, std::os::unix::fs::PermissionsExt::from_mode(0o711))
                .expect("a directory of our own");
            at
        };
        let overlay2 = Docker::start(&of("overlay2"), &docker_live::CARRIED)?;
        let vfs = Docker::start(&of("whole"), &docker_live::WHOLE)?;
        let version = overlay2.asked(["version", "--format", "{{.Server.Version}}"])?;
        let major = String::from_utf8_lossy(&version);
        let major = major.split('.').next().and_then(|major| major.parse().ok());
        let snapshots = major
            .is_some_and(|major: u32| major >= 26)
            .then(|| Docker::start(&of("snapshots"), &docker_live::CONTAINERDS))
            .transpose()?;
        let machine = Machine::of_root(&of("podman"))?;
        let containerd = Containerd::start(&of("containerd"))?;
        let to_docker = Docker::without_images(&of("to-docker"), &docker_live::CARRIED)?;
        let at = of("to-podman");
        let to_podman = machine.podman.without_images("overlay", &at, &[]);
        Ok(Engines {
            home: home.to_owned(),
            overlay2,
            vfs,
            snapshots,
            machine,
            containerd,
            to_docker,
            to_podman,
        })
    }

    fn dockers(&self) -> impl Iterator<Item = &Docker> {
        [&self.overlay2, &self.vfs]
            .into_iter()
            .chain(&self.snapshots)
    }

    fn podmans(&self) -> [&Podman; 2] {
        [&self.machine.podman, self.machine.other()]
    }

    fn at(&self, name: &str) -> PathBuf {
        self.home.join(name)
    }
}

// ---- what is compared ----

/// The files of an image or a container, whichever engine has mounted them.
fn files(all: Packed) -> Packed {
    without_engines_own(without_times_of_directories(all))
}

fn without_engines_own(mut all: Packed) -> Packed {
    all.retain(|path, _| {
        let is_in = |own: &&str| {
            let rest = path.strip_prefix(own.as_bytes());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
        };
        !ENGINES_OWN.iter().any(is_in)
    });
    all
}

/// An image that is to leave.
struct Leaving<'e> {
    what: String,
    target: String,
    ask: &'e dyn Fn(&[&str]) -> Output,
    /// What its containers see.
    files: Packed,
    /// Besides, in both forms.
    options: &'e [&'e str],
}

impl Leaving<'_> {
    /// Writes it down in a form; what was said of it.
    #[track_caller]
    fn leave(&self, form: &str, to: &Path) -> Value {
        let _ = fs::remove_file(to);
        let arguments = ["export", &self.target, "--as", form, "-o", path_of(to)];
        let output = (self.ask)(&[&arguments[..], self.options].concat());
        output.exits(0).row()
    }
}

fn diff_ids(row: &Value) -> Vec<&str> {
    texts(row["layers"].as_array().expect("layers"), "diff_id")
}

impl Engines {
    /// Carries an image to everyone who takes such, in both forms, and runs it there.
    #[track_caller]
    fn carry(&self, image: &Leaving<'_>) -> Value {
        let [row, own] = self.carry_both(image);
        assert_eq!(own["image"], row["image"], "{}", image.what);
        let layers = row["layers"].as_array().expect("layers");
        let origins = texts(layers, "origin");
        assert!(origins.iter().all(|of| *of == "exact"), "{row}");
        row
    }

    /// The same of what is made only when it leaves, and says when.
    #[track_caller]
    fn carry_both(&self, image: &Leaving<'_>) -> [Value; 2] {
        let (docker, oci) = (self.at("docker.tar"), self.at("oci.tar"));
        let row = image.leave("docker", &docker);
        let own = image.leave("oci", &oci);
        assert_eq!(diff_ids(&own), diff_ids(&row), "{}", image.what);
        self.docker_loads(image, &docker, &row);
        for (form, archive, row) in [
            ("docker-archive", &docker, &row),
            ("oci-archive", &oci, &own),
        ] {
            let load = ["load", "--quiet", "--input", path_of(archive)];
            self.to_podman.said(load);
            self.podman_has(image, &format!("podman load, {form}"), row);
            self.skopeo_copies(image, form, archive, row);
            self.containerd_imports(image, &format!("ctr, {form}"), archive, row);
        }
        self.others_read(image, &oci, &own);
        [row, own]
    }

    fn docker_loads(&self, image: &Leaving<'_>, archive: &Path, row: &Value) {
        let (docker, id) = (&self.to_docker, text(row, "image"));
        // What an earlier check left when it failed.
        for left in docker.said(["images", "--quiet", "--no-trunc"]).lines() {
            docker.said(["rmi", "-f", left]);
        }
        docker.said(["load", "--input", path_of(archive)]);
        let said = docker.inspected(id);
        assert_eq!(said["Id"], id, "{}", image.what);
        assert_eq!(
            said["RootFS"]["Layers"],
            Value::from(diff_ids(row)),
            "{}",
            image.what
        );
        // What it is called is what it was said that it would be.
        let names = row["names"].as_array().cloned().unwrap_or_default();
        let names: Vec<&str> = names.iter().filter_map(Value::as_str).collect();
        let listed = docker.said(["images", "--format", "{{.Repository}}:{{.Tag}}"]);
        assert_eq!(listed.lines().collect::<Vec<_>>(), names, "{}", image.what);
        let container = docker.new_name();
        let run = ["run", "-d", "--network=none", "--name", &container, id];
        docker.said(run);
        let found = of_directory(Path::new(&docker.merged(&container)));
        assert_same(
            &format!("{}: docker load", image.what),
            &files(found),
            &image.files,
        );
        docker.said(["rm", "-f", &container]);
        docker.said(["rmi", "-f", id]);
    }

    /// Whether the image has arrived at Podman, which removes it.
    fn podman_has(&self, image: &Leaving<'_>, by: &str, row: &Value) {
        let (podman, what) = (&self.to_podman, format!("{}: {by}", image.what));
        let id = text(row, "image").trim_start_matches("sha256:");
        let said = podman.json(["image", "inspect", id])[0].take();
        assert_eq!(said["Id"], id, "{what}");
        assert_eq!(
            said["RootFS"]["Layers"],
            Value::from(diff_ids(row)),
            "{what}"
        );
        let container = podman.new_name();
        let mut run = podman.running(&["--detach", "--name", &container, id]);
        done(&mut run).unwrap_or_else(|why| panic!("{what}: {why}"));
        assert_same(&what, &files(mounted(podman, &container)), &image.files);
        podman.said(["rm", "--force", "--time=0", &container]);
        podman.said(["rmi", "--force", id]);
    }

    fn skopeo_copies(&self, image: &Leaving<'_>, form: &str, archive: &Path, row: &Value) {
        let podman = &self.to_podman;
        let from = format!("{form}:{}", path_of(archive));
        let (graph, run) = (path_of(&podman.graph), path_of(&podman.run));
        let to = format!("containers-storage:[overlay@{graph}+{run}]localhost/copied:1");
        let mut skopeo = podman.program("skopeo");
        done(skopeo.args(["copy", "--quiet", &from, &to])).unwrap_or_else(|why| panic!("{why}"));
        self.podman_has(image, &format!("skopeo copy, {form}"), row);
        // The configuration, byte for byte: its digest is the image's id.
        let inspect = ["inspect", "--raw", "--config", &from];
        let config = asked(podman.program("skopeo").args(inspect));
        let config = config.unwrap_or_else(|why| panic!("{why}"));
        let own = format!("sha256:{}", sum(&config));
        assert_eq!(row["image"], own, "{} {form}", image.what);
    }

    fn containerd_imports(&self, image: &Leaving<'_>, by: &str, archive: &Path, row: &Value) {
        let (containerd, what) = (&self.containerd, format!("{}: {by}", image.what));
        containerd.said(
            ARRIVED,
            &[
                "images",
                "import",
                "--index-name",
                "localhost/arrived:1",
                path_of(archive),
            ],
        );
        let listed = containerd.said(ARRIVED, &["images", "ls", "-q"]);
        let names: Vec<&str> = listed.lines().collect();
        let name = names
            .iter()
            .find(|name| !name.starts_with("localhost/arrived"));
        let name = name.unwrap_or_else(|| panic!("{what}: {names:?}"));
        let read = |digest: &str| -> Value {
            let said = containerd.said(ARRIVED, &["content", "get", digest]);
            serde_json::from_str(&said).expect("JSON")
        };
        let listed = containerd.said(ARRIVED, &["images", "ls", &format!("name=={name}")]);
        let digest = listed
            .split_whitespace()
            .find(|word| word.starts_with("sha256:"));
        let manifest = read(digest.expect("its digest"));
        assert_eq!(manifest["config"]["digest"], row["image"], "{what}");
        let config = read(text(row, "image"));
        assert_eq!(
            config["rootfs"]["diff_ids"],
            Value::from(diff_ids(row)),
            "{what}"
        );
        let container = containerd.new_name();
        containerd.said(ARRIVED, &["run", "--detach", "--cgroup=", name, &container]);
        let found = of_directory(&containerd.rootfs(ARRIVED, &container));
        assert_same(&what, &files(found), &image.files);
        containerd.stop(ARRIVED, &container);
        containerd.said(ARRIVED, &["containers", "rm", &container]);
        containerd.said(ARRIVED, &[&["images", "rm", "--sync"], &names[..]].concat());
    }

    /// umoci unpacks the layout that an archive is.
    fn others_read(&self, image: &Leaving<'_>, archive: &Path, row: &Value) {
        let (layout, bundle) = (self.at("layout"), self.at("bundle"));
        let unpack = |archive: &Path| {
            anew(&layout);
            let _ = fs::remove_dir_all(&bundle);
            let mut tar = Command::new("tar");
            let done = done(tar.arg("-xf").arg(archive).arg("-C").arg(&layout));
            done.unwrap_or_else(|why| panic!("{why}"));
            let read = |name: &str| -> Value {
                let text = fs::read(layout.join(name)).expect("it is there");
                serde_json::from_slice(&text).expect("JSON")
            };
            let manifest = read("index.json")["manifests"][0]["digest"].take();
            let manifest = manifest.as_str().expect("a digest").replace(':', "/");
            read(&format!("blobs/{manifest}")).to_string()
        };
        if unpack(archive).contains("application/vnd.docker.") {
            // Docker's own manifest, which is kept as it is. umoci knows OCI's types only; packed anew the
            // image has such.
            assert!(
                image.options.is_empty(),
                "{}: a manifest of ours",
                image.what
            );
            let packed_anew = self.at("anew.tar");
            let options = [image.options, &["--compress", "none"]].concat();
            let packed = Leaving {
                options: &options,
                what: image.what.clone(),
                target: image.target.clone(),
                files: Packed::new(),
                ask: image.ask,
            };
            packed.leave("oci", &packed_anew);
            unpack(&packed_anew);
        }
        let listed = asked(
            Command::new("umoci")
                .args(["list", "--layout"])
                .arg(&layout),
        );
        let listed = String::from_utf8(listed.unwrap_or_else(|why| panic!("{why}"))).expect("tags");
        let tag = listed.lines().next().expect("a tag");
        let of = format!("{}:{tag}", path_of(&layout));
        let mut umoci = Command::new("umoci");
        done(umoci.args(["unpack", "--image", &of]).arg(&bundle))
            .unwrap_or_else(|why| panic!("{why}"));
        let found = of_directory(&bundle.join("rootfs"));
        assert_same(
            &format!("{}: umoci", image.what),
            &files(found),
            &image.files,
        );
        let said = asked(Command::new("umoci").args(["stat", "--json", "--image", &of]));
        let said: Value =
            serde_json::from_slice(&said.unwrap_or_else(|why| panic!("{why}"))).expect("JSON");
        let steps = said["history"].as_array().expect("a history").iter();
        let layers = steps.filter(|step| step["layer"].is_object()).count();
        assert_eq!(layers, diff_ids(row).len(), "{}: umoci", image.what);
    }
}

/// Makes an empty directory, whatever an earlier check left there.
fn anew(at: &Path) {
    let _ = fs::remove_dir_all(at);
    fs::create_dir(at).expect("a directory of our own");
}

/// What a container of Podman shows, be it mounted or not.
fn mounted(podman: &Podman, container: &str) -> Packed {
    let mount = |verb: &str| {
        let mut command = podman.in_its_namespace([verb, container]);
        done(&mut command).unwrap_or_else(|why| panic!("{why}"));
    };
    mount("mount");
    let seen = of_directory(&podman.reach(podman.merged(container)));
    mount("umount");
    seen
}

// ---- images ----

fn images_of_docker(engines: &Engines) {
    for docker in engines.dockers() {
        let container = docker.run();
        let seen = of_directory(Path::new(&docker.merged(&container)));
        docker.said(["rm", "-f", &container]);
        let image = Leaving {
            what: format!("Docker on {}", docker.store.driver),
            target: format!("docker:{}", docker_live::IMAGE),
            ask: &|arguments| docker.ask(arguments),
            files: files(seen),
            options: &[],
        };
        let row = engines.carry(&image);
        // As the engine itself has it.
        let said = docker.inspected(docker_live::IMAGE);
        assert_eq!(said["RootFS"]["Layers"], Value::from(diff_ids(&row)));
        if docker.store.driver != "overlayfs" {
            assert_eq!(said["Id"], row["image"]);
        }
        let renamed = Leaving {
            options: &["--tag", TAG],
            what: format!("{} renamed", image.what),
            ..image
        };
        let archive = engines.at("renamed.tar");
        let row = renamed.leave("docker", &archive);
        assert_eq!(row["names"], serde_json::json!([TAG]));
        engines.docker_loads(&renamed, &archive, &row);
    }
}

fn images_of_podman(engines: &Engines) {
    for podman in engines.podmans() {
        let built = "localhost/lab/built:1";
        build(podman, built);
        for name in [podman_live::IMAGE, built] {
            let container = podman.new_name();
            let mut run = podman.running(&["--detach", "--name", &container, name]);
            done(&mut run).unwrap_or_else(|why| panic!("{why}"));
            let seen = mounted(podman, &container);
            podman.said(["rm", "--force", "--time=0", &container]);
            let image = Leaving {
                what: format!("Podman's {name} on {}", podman.driver),
                target: format!("podman:{name}"),
                ask: &|arguments| podman.ask(arguments),
                files: files(seen),
                options: &[],
            };
            let row = engines.carry(&image);
            let said = podman.json(["image", "inspect", name])[0].take();
            assert_eq!(row["image"], format!("sha256:{}", text(&said, "Id")));
            assert_eq!(said["RootFS"]["Layers"], Value::from(diff_ids(&row)));
        }
    }
}

/// An image that buildah commits.
fn build(podman: &Podman, name: &str) {
    let graph = [
        "--root",
        path_of(&podman.graph),
        "--runroot",
        path_of(&podman.run),
    ];
    let buildah = |arguments: &[&str]| {
        let mut command = podman.program("buildah");
        command
            .args(graph)
            .args(["--storage-driver", podman.driver])
            .args(arguments);
        done(&mut command).unwrap_or_else(|why| panic!("{why}"));
    };
    let container = "lab-leaving";
    buildah(&["from", "--name", container, podman_live::IMAGE]);
    let script = [CHANGE, CHANGE_MORE].concat();
    buildah(&[
        "run",
        "--isolation=chroot",
        container,
        "--",
        "sh",
        "-c",
        &script,
    ]);
    buildah(&[
        "config",
        "--env",
        "LAB=built",
        "--label",
        "of=lab",
        container,
    ]);
    buildah(&["commit", "--quiet", container, name]);
    buildah(&["rm", container]);
}

fn images_of_containerd(engines: &Engines) {
    let containerd = &engines.containerd;
    for namespace in [DEFAULT, NATIVE] {
        let container = containerd.run(namespace);
        let seen = of_directory(&containerd.rootfs(namespace, &container));
        containerd.stop(namespace, &container);
        containerd.said(namespace, &["containers", "rm", &container]);
        let image = Leaving {
            what: format!("containerd's in {namespace}"),
            target: format!("containerd:{namespace}/{}", containerd_live::IMAGE),
            ask: &|arguments| containerd.ask(namespace, arguments),
            files: files(seen),
            options: &[],
        };
        engines.carry(&image);
    }
}

// ---- containers ----

/// Changes that no image has.
fn change_all() -> String {
    [CHANGE, CHANGE_MORE].concat()
}

/// Attributes, of which busybox knows nothing.
fn set_attributes(root: &Path) {
    let set = |path: &str, name: &str, value: &[u8]| {
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::lsetxattr(root.join(path), name, value, flags).expect("root may");
    };
    set("new/deep/file", "user.note", b"kept\xff\0=\n");
    let capability =
        b"\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00";
    set("opt/app/8", "security.capability", capability);
}

/// What a container leaves as.
#[track_caller]
fn exported(engines: &Engines, target: &str, ask: &dyn Fn(&[&str]) -> Output) -> Vec<u8> {
    let to = engines.at("files.tar");
    let _ = fs::remove_file(&to);
    ask(&["export", target, "-o", path_of(&to)]).exits(0);
    fs::read(to).expect("it was written")
}

/// GNU tar unpacks what was exported: it is what the container showed.
#[track_caller]
fn assert_unpacks(engines: &Engines, what: &str, archive: &[u8], shown: &Packed) {
    let (at, to) = (engines.at("container.tar"), engines.at("unpacked"));
    fs::write(&at, archive).expect("a file of our own");
    anew(&to);
    let mut tar = Command::new("tar");
    tar.args(["--xattrs", "--xattrs-include=*", "--numeric-owner", "-xpf"]);
    done(tar.arg(&at).arg("-C").arg(&to)).unwrap_or_else(|why| panic!("{why}"));
    let found = files(of_directory(&to));
    assert_same(&format!("{what}: GNU tar"), &found, shown);
}

fn containers_of_docker(engines: &Engines) {
    for docker in engines.dockers() {
        let what = format!("Docker on {}", docker.store.driver);
        let container = docker.run();
        docker.exec(&container, &change_all());
        let root = docker.merged(&container);
        set_attributes(Path::new(&root));
        let shown = files(of_directory(Path::new(&root)));
        let target = format!("docker:{container}");
        for state in ["running", "stopped"] {
            let ours = exported(engines, &target, &|arguments| docker.ask(arguments));
            let theirs = docker.printed(["export", &container]);
            let what = format!("{what}: docker export, {state}");
            let mut own = of_archive(&ours[..]);
            for entry in own.values_mut() {
                // Docker writes capabilities, and no attribute of a user's.
                entry.xattrs.retain(|name, _| !name.starts_with(b"user."));
            }
            assert_same(&what, &own, &of_archive(&theirs[..]));
            assert_unpacks(engines, &what, &ours, &shown);
            docker.stop(&container);
        }
        let image = Leaving {
            what: format!("a container of {what}"),
            target,
            ask: &|arguments| docker.ask(arguments),
            files: shown,
            options: &["--tag", TAG],
        };
        engines.carry_both(&image);
        docker.said(["rm", "-f", &container]);
    }
}

fn containers_of_podman(engines: &Engines) {
    for podman in engines.podmans() {
        let what = format!("Podman on {}", podman.driver);
        let container = podman.run();
        podman.exec(&container, &change_all());
        let at = podman.merged(&container);
        set_attributes(&at);
        let shown = files(mounted(podman, &container));
        let target = format!("podman:{container}");
        for state in ["running", "stopped"] {
            let ours = exported(engines, &target, &|arguments| podman.ask(arguments));
            let theirs = podman.printed(["export", &container]);
            let what = format!("{what}: podman export, {state}");
            assert_same(&what, &of_archive(&ours[..]), &of_archive(&theirs[..]));
            assert_unpacks(engines, &what, &ours, &shown);
            podman.stop(&container);
        }
        let image = Leaving {
            what: format!("a container of {what}"),
            target,
            ask: &|arguments| podman.ask(arguments),
            files: shown,
            options: &["--tag", TAG],
        };
        engines.carry_both(&image);
        podman.said(["rm", "--force", "--time=0", &container]);
    }
}

/// containerd exports no containers: the truth is what a task sees.
fn containers_of_containerd(engines: &Engines) {
    let containerd = &engines.containerd;
    for namespace in [DEFAULT, NATIVE] {
        let container = containerd.run(namespace);
        containerd.exec(namespace, &container, &change_all());
        let root = containerd.rootfs(namespace, &container);
        set_attributes(&root);
        let shown = files(of_directory(&root));
        let target = format!("containerd:{namespace}/{container}");
        let ask = |arguments: &[&str]| containerd.ask(namespace, arguments);
        let ours = exported(engines, &target, &ask);
        let what = format!("containerd in {namespace}");
        assert_same(&what, &files(of_archive(&ours[..])), &shown);
        assert_unpacks(engines, &what, &ours, &shown);
        containerd.stop(namespace, &container);
        let image = Leaving {
            what: format!("a container of {what}"),
            target,
            ask: &|arguments| containerd.ask(namespace, arguments),
            files: shown,
            options: &["--tag", TAG],
        };
        engines.carry_both(&image);
        containerd.said(namespace, &["containers", "rm", &container]);
    }
}

/// What a kernel with AUFS showed of its containers is what engines of today show of them.
fn containers_of_aufs(engines: &Engines) {
    needs::captured_hosts();
    let name = "docker-aufs-webapp";
    let host = Host::captured(name);
    let mounted = host.jsonl(["branches"]).rows();
    let mounted = mounted.iter().filter(|row| row["state"] == "mounted");
    let mut carried = 0;
    for union in mounted {
        let owner = &union["owner"];
        let (id, container) = (text(owner, "id"), text(owner, "name"));
        let record = format!("/var/lib/docker/image/aufs/layerdb/mounts/{id}/mount-id");
        let mount = String::from_utf8(host.read(&record)).expect("an id");
        let mut shown = archive::contents(
            &format!("{name}.unions"),
            &format!("var/lib/docker/aufs/mnt/{mount}"),
        );
        let rows = host.jsonl(["ls", "-R", "-l", container]).exits(0).rows();
        let linked = hosts::pseudo_linked(&rows, |path| shown.get(path)?.same_as.clone());
        let group: Vec<Vec<u8>> = {
            let first =
                |path: &Vec<u8>| shown[path].same_as.clone().unwrap_or_else(|| path.clone());
            let copied = first(&hosts::PSEUDO_LINK.to_vec());
            let paths = shown.keys().filter(|path| first(path) == copied);
            paths.cloned().collect()
        };
        let (below, copied): (Vec<_>, Vec<_>) =
            group.into_iter().partition(|path| linked.contains(path));
        for path in &below {
            shown.get_mut(path).expect("it is shown").mode = hosts::MODE_BELOW;
        }
        for group in [below, copied] {
            for (at, path) in group.iter().enumerate() {
                let first = group.first().filter(|_| at > 0).cloned();
                shown.get_mut(path).expect("it is shown").same_as = first;
            }
        }
        let image = Leaving {
            what: format!("{container} of a kernel that had AUFS"),
            target: format!("docker:{container}"),
            ask: &|arguments| host.jsonl(arguments),
            files: files(of_union(shown)),
            options: &["--tag", TAG],
        };
        engines.carry_both(&image);
        carried += 1;
    }
    assert!(carried > 1);
}

/// The commands of README: the host of the article, as engines of today run it.
fn the_articles_container(engines: &Engines) {
    let host = Host::fixture("blog-host");
    let exported = host.ask([
        "export",
        "determined_sammet",
        "--as",
        "docker",
        "--as-is",
        "--tag",
        "webapp:2016",
        "-o",
        "-",
    ]);
    assert_eq!(exported.status, Some(0), "{}", exported.stderr);
    let archive = engines.at("webapp.tar");
    fs::write(&archive, &exported.stdout).expect("a file of our own");
    let load = ["load", "--input", path_of(&archive)];
    let sources = host.read("/var/lib/docker/aufs/diff/2ee58d81e4ac6811bbc78beb4b46bf213c79c9e2dc7e441741afc8c4349c6bab/etc/apt/sources.list");
    let packages = "/usr/local/lib/python2.7/dist-packages";
    let script = format!(
        "cat /etc/apt/sources.list; test -d {packages}/flask && test ! -e {packages}/itsdangerous.py && echo deleted"
    );
    let run = [
        "--rm",
        "--network=none",
        "--volume=/bin/busybox:/bin/busybox:ro",
        "webapp:2016",
        "/bin/busybox",
        "sh",
        "-c",
        &script,
    ];
    engines.to_docker.said(load);
    let docker = engines.to_docker.asked([&["run"], &run[..]].concat());
    engines.to_podman.said(load);
    let podman = asked(&mut engines.to_podman.running(&run));
    for said in [docker, podman] {
        let said = said.unwrap_or_else(|why| panic!("{why}"));
        let rest = said.strip_prefix(&sources[..]).expect("the changed list");
        assert_eq!(String::from_utf8_lossy(rest), "deleted\n");
    }
}

/// `cp` to a tar file is what podman makes of the same: types, modes, owners, times, attributes, hard links.
fn what_podman_hands_over(engines: &Engines) {
    for podman in engines.podmans() {
        let container = podman.run();
        podman.exec(&container, &change_all());
        podman.exec(&container, "mkdir /opt/more; ln /opt/app/ten /opt/more/ten; mkfifo -m 620 /opt/more/fifo; chown 5:6 /opt/more/fifo");
        set_attributes(&podman.merged(&container));
        for state in ["running", "stopped"] {
            for path in ["/opt", "/new", "/root", "/"] {
                let what = format!("podman cp {path} on {}, {state}", podman.driver);
                let of = format!("podman:{container}:{path}");
                let ours = podman.plain(["cp", &of, "-"]).exits(0).stdout;
                let theirs = podman.printed(["cp", &format!("{container}:{path}"), "-"]);
                // It hands over what is mounted in the container, and leaves out what is the kernel's.
                let of = |archive: &[u8]| without_engines_own(of_archive(archive));
                let (mut ours, theirs) = (of(&ours), of(&theirs));
                for (path, entry) in &mut ours {
                    as_podman_copies(entry, theirs.get(path));
                }
                assert_same(&what, &ours, &theirs);
            }
            podman.stop(&container);
        }
        podman.said(["rm", "--force", "--time=0", &container]);
    }
}

/// Podman hands over everything as root's, whoever owns it, and with times that are rounded to the nearest
/// second, where the form keeps their parts.
fn as_podman_copies(entry: &mut Entry, theirs: Option<&Entry>) {
    entry.owner = (0, 0);
    let rounded = entry.time.map(|time| time + 1);
    if theirs.is_some_and(|theirs| theirs.time == rounded) {
        entry.time = rounded;
    }
}
