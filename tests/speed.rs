//! What answers cost, counted and never timed: system calls, and whatever a verb has no need to
//! look at. The times are in `benches`.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::lab::host::{Host, spelled};
use crate::lab::run::{self, Output, layerctl};
use crate::lab::{all_right, needs};

/// The system calls of a run, a line each.
fn calls(arguments: &[OsString]) -> Vec<String> {
    let home = tempfile::tempdir().expect("a temporary directory");
    let trace = home.path().join("trace");
    let mut command = std::process::Command::new("strace");
    command
        .env_clear()
        .args(["-f", "-o"])
        .arg(&trace)
        .arg(env!("CARGO_BIN_EXE_layerctl"))
        .args(arguments);
    let output = run::run(&mut command);
    assert_eq!(output.status, Some(0), "{}", output.stderr);
    let trace = fs::read_to_string(&trace).expect("what strace wrote");
    // An unoptimised program asks of a descriptor whether it is open before it is closed.
    let calls = trace.lines().filter(|line| !line.contains("F_GETFD"));
    calls.map(str::to_owned).collect()
}

fn words(words: &[&OsStr]) -> Vec<OsString> {
    words.iter().map(OsString::from).collect()
}

fn make(path: PathBuf) {
    fs::create_dir_all(path.parent().expect("a directory")).expect("a temporary directory");
    fs::write(path, "").expect("a temporary directory");
}

/// A tree that is worth several threads, with marks of every kind and something wrong in it.
fn tree(home: &Path) {
    for directory in 0..600 {
        let at = format!("d{}/e{}/f{directory}", directory % 7, directory % 31);
        for (branch, names) in [
            ("up", ["new", "both", ".wh.gone"]),
            ("mid", ["both", "middle", ".wh.older"]),
            ("lo", ["both", "gone", "older"]),
        ] {
            for name in names {
                make(home.join(branch).join(&at).join(name));
            }
        }
        let own = home.join("up").join(&at);
        match directory % 9 {
            0 => make(own.join(".wh..wh..opq")),
            // What AUFS answers EIO for.
            1 => fs::create_dir(own.join(".wh.bad")).expect("a temporary directory"),
            2 => make(own.join(".wh.both")),
            3 => make(own.join("deep/er/and/deeper")),
            _ => {}
        }
    }
}

#[apply(test)]
fn any_number_of_threads_says_the_same() {
    needs::time();
    let home = tempfile::tempdir().expect("a temporary directory");
    tree(home.path());
    let at = |branch: &str| home.path().join(branch);
    let aufs = spelled(&[(&at("up"), "rw"), (&at("mid"), "ro+wh"), (&at("lo"), "ro")]);
    let lower = |option: &str| {
        let (up, mid, lo) = (at("up"), at("mid"), at("lo"));
        OsString::from(format!(
            "lowerdir={}:{},upperdir={},{option}",
            mid.display(),
            lo.display(),
            up.display()
        ))
    };
    let one = OsString::from(format!("br:{}=rw", at("up").display()));
    let mut targets: Vec<(Option<Host>, OsString)> =
        vec![(None, aufs), (None, one), (None, lower("userxattr"))];
    if needs::captured_hosts_in_part() {
        targets.push((Some(Host::captured("docker-overlay2")), "run-a".into()));
        targets.push((Some(Host::captured("docker-vfs")), "run-a".into()));
    }
    let verbs: [&[&str]; 9] = [
        &["whiteouts", "--all-layers"],
        &["changes"],
        &["changes", "--long"],
        &["ls", "-R"],
        &["ls", "-R", "-v"],
        &["ls", "-R", "--long"],
        &["copyups"],
        &["check"],
        &["whiteouts", "--recoverable"],
    ];
    let formats: [&[&str]; 3] = [&[], &["-q"], &["--format", "jsonl"]];
    all_right(&targets, |(host, target)| {
        let ask = |verb: &[&str], format: &[&str], threads: &str| -> Output {
            let mut arguments: Vec<&OsStr> = Vec::new();
            if let Some(host) = host {
                arguments.extend(["--root".as_ref(), host.root.as_os_str()]);
            }
            arguments.extend(["-j", threads].map(OsStr::new));
            arguments.extend(verb.iter().chain(format).map(OsStr::new));
            arguments.push(target);
            layerctl(arguments)
        };
        let mut wrong = Vec::new();
        for verb in verbs {
            for format in formats {
                let alone = ask(verb, format, "1");
                if alone.stdout.is_empty() && matches!(verb[0], "changes" | "ls") {
                    wrong.push(format!(
                        "{target:?} {verb:?} says nothing: {}",
                        alone.stderr
                    ));
                }
                for threads in ["2", "8"] {
                    let several = ask(verb, format, threads);
                    let is_same = (&several.stdout, &several.stderr, several.status)
                        == (&alone.stdout, &alone.stderr, alone.status);
                    if !is_same {
                        wrong.push(format!(
                            "{target:?} {verb:?} {format:?} of {threads} threads"
                        ));
                    }
                }
            }
        }
        wrong
    });
}

#[apply(test)]
fn rows_are_in_the_order_of_their_paths() {
    let home = tempfile::tempdir().expect("a temporary directory");
    tree(home.path());
    let target = OsString::from(format!("br:{}/mid=rw:{0}/lo=ro", home.path().display()));
    let output = layerctl([OsStr::new("-q"), "ls".as_ref(), "-R".as_ref(), &target]).exits(0);
    let paths: Vec<Vec<&[u8]>> = output
        .stdout
        .split(|&byte| byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| line.split(|&byte| byte == b'/').collect())
        .collect();
    assert!(paths.len() > 1500);
    assert!(paths.is_sorted());
}

#[apply(test)]
fn which_costs_what_its_path_and_its_branches_do() {
    needs::strace();
    let home = tempfile::tempdir().expect("a temporary directory");
    const BRANCHES: usize = 60;
    for branch in 0..BRANCHES {
        let at = home.path().join(format!("b{branch}"));
        fs::create_dir_all(at.join("a/b/c")).expect("a temporary directory");
    }
    for path in ["f", "a/f", "a/b/f", "a/b/c/f"] {
        make(home.path().join(format!("b{}", BRANCHES - 1)).join(path));
    }
    let count = |branches: usize, path: &str| {
        let directories: Vec<PathBuf> = (BRANCHES - branches..BRANCHES)
            .map(|branch| home.path().join(format!("b{branch}")))
            .collect();
        let stack: Vec<(&Path, &str)> = directories.iter().map(|of| (&**of, "ro+wh")).collect();
        let stack = spelled(&stack);
        calls(&words(&[
            "which".as_ref(),
            "--in".as_ref(),
            &stack,
            path.as_ref(),
        ]))
        .len()
    };
    // Of a branch: that it is there, opened, closed.
    const BRANCH: usize = 3;
    // Of a directory on the way: its whiteout, itself opened and closed, its opaque mark.
    const COMPONENT: usize = 4;
    let start = count(1, "/f");
    for (above, path) in ["/f", "/a/f", "/a/b/f", "/a/b/c/f"].into_iter().enumerate() {
        for branches in [2, BRANCHES / 2, BRANCHES] {
            let most = start + branches * (BRANCH + COMPONENT * above + 2);
            let calls = count(branches, path);
            assert!(
                calls <= most,
                "{path} on {branches}: {calls} calls, not {most}"
            );
        }
    }
}

#[apply(test)]
fn changes_cost_what_was_changed() {
    needs::strace();
    let home = tempfile::tempdir().expect("a temporary directory");
    let image = |name: &str, files: usize| {
        for file in 0..files {
            let at = format!("{name}/d{}/file{file}", file % 50);
            make(home.path().join(at));
        }
        home.path().join(name)
    };
    let (small, large) = (image("small", 500), image("large", 2000));
    let container = home.path().join("container");
    (0..40).for_each(|file| make(container.join(format!("d{}/file{file}", file % 50))));
    let count = |image: &Path| {
        let stack = spelled(&[(&container, "rw"), (image, "ro+wh")]);
        calls(&words(&["-j1".as_ref(), "changes".as_ref(), &stack])).len()
    };
    let (of_small, of_large) = (count(&small), count(&large));
    assert!(of_large <= of_small + 2, "{of_large} calls, not {of_small}");
}

#[apply(test)]
fn a_stack_that_is_spelled_is_no_matter_of_engines() {
    needs::strace();
    let home = tempfile::tempdir().expect("a temporary directory");
    make(home.path().join("up/f"));
    let stack = spelled(&[(&home.path().join("up"), "rw")]);
    let stack = OsString::from(stack.to_string_lossy().replace("=rw", "=ro"));
    let looked = calls(&words(&[
        "which".as_ref(),
        "--in".as_ref(),
        &stack,
        "/f".as_ref(),
    ]));
    for state in ["docker", "containers", "containerd", "passwd", "cgroup"] {
        let found = looked
            .iter()
            .find(|line| line.contains(&format!("\"{state}")));
        assert_eq!(found, None);
    }
}

/// System calls of `containers` on a live host on which nothing is: eight users, no engine, one
/// process beside its own. It is not measured in the tests' own mounts, which others share.
#[apply(test)]
fn looking_for_engines_that_are_not_there_is_cheap() {
    needs::strace();
    needs::mounts();
    let script = r#"
mount -t tmpfs none /mnt && cp "$1" /mnt/program || exit 1
for directory in /var /run /home /root /etc; do mount -t tmpfs none $directory || exit 1; done
mkdir -p /etc/systemd/system
for user in 1 2 3 4 5 6 7 8; do echo "u$user:x:100$user:100$user::/home/u$user:/bin/sh"; done >/etc/passwd
strace -f -o /mnt/trace /mnt/program containers >/dev/null 2>/mnt/said
cat /mnt/trace"#;
    let mut command = needs::own_mounts();
    // Where libraries are looked for is not the program's to say.
    command.env_remove("LD_LIBRARY_PATH");
    command.args(["bash", "-c", script, "bash"]);
    let output = run::run(command.arg(env!("CARGO_BIN_EXE_layerctl"))).exits(0);
    let calls = output.text().lines();
    let calls = calls.filter(|line| !line.contains("F_GETFD")).count();
    assert!((100..=LOOKING).contains(&calls), "{calls} calls");
}

/// What it costs to look, with what a program takes to start and to end.
const LOOKING: usize = 250;

// ---- what overlays, AUFS and copies are asked ----

const BRANCHES: usize = 4;
const DIRECTORIES: usize = 10;
/// Of each directory of a branch: enough that it is no small one.
const FILES: usize = 20;
const ALL: usize = BRANCHES * DIRECTORIES * FILES;
const CHANGED: usize = ALL / 4;
/// What starting and the directories cost at most, of any one call.
const BESIDE: usize = 40 + 3 * DIRECTORIES;

/// Branches of 10-byte files, each in directories that all have, and on top 11-byte ones of a quarter.
fn versions(home: &Path) {
    for number in 0..ALL {
        let (branch, rest) = (number % BRANCHES, number / BRANCHES);
        let path = format!("d{}/{branch}-{rest}", rest % DIRECTORIES);
        let low = home.join(format!("b{branch}")).join(&path);
        let own = (rest / DIRECTORIES)
            .is_multiple_of(4)
            .then(|| home.join("up").join(&path));
        for (path, content) in [(Some(low), "0123456789"), (own, "0123456789a")] {
            let Some(path) = path else { continue };
            fs::create_dir_all(path.parent().expect("a directory")).expect("a new directory");
            fs::write(path, content).expect("a new file");
        }
    }
}

fn lowers(home: &Path) -> Vec<PathBuf> {
    (0..BRANCHES)
        .map(|branch| home.join(format!("b{branch}")))
        .collect()
}

/// How often a run of one thread makes a system call.
fn times(calls: &[String], name: &str) -> usize {
    let call = format!(" {name}(");
    calls.iter().filter(|line| line.contains(&call)).count()
}

/// Each verb with how many `newfstatat`, attributes asked by name and lists of attributes it needs, but
/// for what is beside.
fn assert_asked(target: &OsStr, verbs: &[(&str, [usize; 3])]) {
    for (verb, needed) in verbs {
        let options = ["-q", "-j1"].into_iter().chain(verb.split(' '));
        let arguments: Vec<&OsStr> = options.map(OsStr::new).chain([target]).collect();
        let calls = calls(&words(&arguments));
        for (call, needed) in ["newfstatat", "lgetxattr", "llistxattr"].iter().zip(needed) {
            let made = times(&calls, call);
            assert!(
                (*needed..=needed + BESIDE).contains(&made),
                "{verb}: {made} {call}, not {needed}"
            );
        }
    }
}

#[apply(test)]
fn an_overlay_is_asked_for_each_version_once() {
    crate::lab::needs::root("to be told of overlay\'s marks");
    needs::strace();
    let home = tempfile::tempdir().expect("a temporary directory");
    versions(home.path());
    let lowers: Vec<String> = lowers(home.path())
        .iter()
        .map(|of| of.display().to_string())
        .collect();
    let up = home.path().join("up");
    let stack = format!("lowerdir={},upperdir={}", lowers.join(":"), up.display());
    let both = 2 * CHANGED;
    assert_asked(
        OsStr::new(&stack),
        &[
            ("ls -R", [ALL, 0, 0]),
            ("ls -lR", [ALL, 0, 0]),
            ("check", [ALL + CHANGED, 0, 0]),
            ("whiteouts", [CHANGED, 0, 0]),
            ("whiteouts --all-layers", [ALL + CHANGED, 0, 0]),
            ("changes", [both, 0, 0]),
            ("changes --long", [both, 0, both]),
            ("copyups", [both, 0, both]),
        ],
    );
}

#[apply(test)]
fn aufs_is_asked_what_its_listings_do_not_tell() {
    needs::strace();
    let home = tempfile::tempdir().expect("a temporary directory");
    versions(home.path());
    let (up, lowers) = (home.path().join("up"), lowers(home.path()));
    let below = lowers.iter().map(|of| (&**of, "ro+wh"));
    let stack: Vec<(&Path, &str)> = [(&*up, "rw")].into_iter().chain(below).collect();
    let both = 2 * CHANGED;
    // Of the directories that are looked up in the branches below.
    let marks = DIRECTORIES * BRANCHES;
    assert_asked(
        &spelled(&stack),
        &[
            ("ls -R", [0, 0, 0]),
            ("ls -lR", [ALL, 0, 0]),
            ("check", [(BRANCHES + 1) * marks, 0, 0]),
            ("whiteouts", [2 * marks, 0, 0]),
            ("changes", [3 * marks, 0, 0]),
            ("changes --long", [3 * marks + both, 0, both]),
            ("copyups", [3 * marks + both, 0, both]),
        ],
    );
}

#[apply(test)]
fn a_copy_is_asked_for_each_version_once() {
    needs::strace();
    if !needs::captured_hosts_in_part() {
        return;
    }
    let host = Host::captured("docker-vfs");
    let root = host.root.as_os_str();
    let listed = host.ask(["-q", "ls", "-R", "run-a"]).exits(0);
    let names = listed.stdout.split(|&byte| byte == b'\n').count();
    // Each name once, or once in the copy and once in what it is a copy of; by name or while listed.
    for (verb, least, most) in [
        ("changes", names, 2 * names),
        ("changes --long", names, 2 * names),
        ("copyups", names, 2 * names),
        ("ls -R", 0, 0),
        ("ls -lR", names, names),
        ("check", 0, 0),
        ("whiteouts", 0, 0),
    ] {
        let arguments = ["--root".as_ref(), root, "-q".as_ref(), "-j1".as_ref()];
        let verb_words = verb.split(' ').map(OsStr::new);
        let arguments = arguments.into_iter().chain(verb_words);
        let arguments: Vec<&OsStr> = arguments.chain(["run-a".as_ref()]).collect();
        let calls = calls(&words(&arguments));
        let stats = times(&calls, "newfstatat");
        assert!(
            (least..=most + 200).contains(&stats),
            "{verb}: {stats} of {names}"
        );
    }
}

/// Of many files those are asked that show a sign: less on disk than their size, a change after that of
/// the content, a directory that the kernel calls impure.
#[apply(test)]
fn what_has_its_content_elsewhere_is_found_among_many() {
    needs::root("to set overlay's attributes");
    let home = tempfile::tempdir().expect("a temporary directory");
    let at = |path: &str| home.path().join(path);
    let mark = |path: &str, name: &str, value: &[u8]| {
        let flags = rustix::fs::XattrFlags::CREATE;
        rustix::fs::setxattr(at(path), name, value, flags).expect("root may");
    };
    for directory in ["up/d", "up/impure"] {
        fs::create_dir_all(at(directory)).expect("a new directory");
        (0..20).for_each(|number| {
            fs::write(at(&format!("{directory}/{number}")), "x").expect("a new file");
        });
    }
    fs::create_dir(at("low")).expect("a new directory");
    let file = fs::File::create(at("up/d/sparse")).expect("a new file");
    file.set_len(1000).expect("a size");
    let file = fs::File::options()
        .write(true)
        .open(at("up/d/7"))
        .expect("a file");
    file.set_modified(std::time::UNIX_EPOCH).expect("a time");
    mark("up/impure", "trusted.overlay.impure", b"y");
    let elsewhere = ["up/d/7", "up/d/sparse", "up/impure/3"];
    for path in elsewhere {
        mark(path, "trusted.overlay.metacopy", b"");
    }
    let (low, up) = (at("low"), at("up"));
    let stack = format!("lowerdir={},upperdir={}", low.display(), up.display());
    let found = layerctl(["--format", "jsonl", "check", &stack])
        .exits(1)
        .rows();
    let found: Vec<&str> = found
        .iter()
        .filter_map(|row| row["path"].as_str())
        .collect();
    assert_eq!(
        found,
        elsewhere.map(|path| path.strip_prefix("up").expect("in the branch"))
    );
}

/// A capability is the last thing that two versions are asked for, and it counts.
#[apply(test)]
fn a_file_whose_attribute_alone_differs_is_found_among_many() {
    needs::root("to set a capability");
    let home = tempfile::tempdir().expect("a temporary directory");
    for branch in ["low/d", "up/d"] {
        fs::create_dir_all(home.path().join(branch)).expect("a new directory");
        for number in 0..20 {
            let path = home.path().join(branch).join(number.to_string());
            fs::write(&path, "x").expect("a new file");
            let file = fs::File::options().write(true).open(&path).expect("a file");
            file.set_modified(std::time::UNIX_EPOCH).expect("a time");
        }
    }
    let value = b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let flags = rustix::fs::XattrFlags::CREATE;
    let path = home.path().join("up/d/11");
    rustix::fs::setxattr(path, "security.capability", value, flags).expect("root may");
    let (low, up) = (home.path().join("low"), home.path().join("up"));
    let stack = format!("lowerdir={},upperdir={}", low.display(), up.display());
    let said = layerctl(["changes", &stack]).exits(0);
    assert_eq!(said.text(), "C /d\nC /d/11\n");
}

/// A store of containers that do not say what their images are called.
fn containers_without_names(count: usize) -> Host {
    let host = Host::empty();
    let store = "/var/lib/containers/storage";
    let id = |kind: &str, number: usize| format!("{kind}{number:0>62}");
    let mut lists: [Vec<Value>; 3] = Default::default();
    for number in 0..count {
        let (image, below, own) = (id("aa", number), id("bb", number), id("cc", number));
        let container = id("dd", number);
        lists[0].push(json!({"id": below}));
        lists[0].push(json!({"id": own, "parent": below}));
        lists[1].push(json!({"id": image, "layer": below}));
        lists[2].push(json!({"id": container, "image": image, "layer": own, "metadata": "{}"}));
        for (kind, layer) in [("LOW", &below), ("OWN", &own)] {
            let link = format!("{kind}{number:0>23}");
            host.dir(format!("{store}/overlay/{layer}/diff"));
            host.file(format!("{store}/overlay/{layer}/link"), &link);
            host.link(
                format!("{store}/overlay/l/{link}"),
                format!("../{layer}/diff"),
            );
        }
        let link = format!("l/LOW{number:0>23}");
        host.file(format!("{store}/overlay/{own}/lower"), link);
        let configuration = STANDARD.encode(format!("sha256:{image}"));
        host.file(
            format!("{store}/overlay-images/{image}/={configuration}"),
            json!({"rootfs": {"type": "layers", "diff_ids": ["sha256:0"]}}).to_string(),
        );
    }
    for (kind, list) in ["layers", "images", "containers"].iter().zip(lists) {
        let path = format!("{store}/overlay-{kind}/{kind}.json");
        host.file(path, Value::from(list).to_string());
    }
    host
}

#[apply(test)]
fn a_store_s_lists_are_read_as_often_however_long_they_are() {
    needs::strace();
    let reads = |host: &Host, verb: &str| -> Vec<usize> {
        let root = host.root.as_os_str();
        let arguments = words(&["--root".as_ref(), root, "-q".as_ref(), verb.as_ref()]);
        let calls = calls(&arguments);
        let lists = ["layers.json", "images.json", "containers.json"];
        let read = lists.map(|name| calls.iter().filter(|line| line.contains(name)).count());
        read.to_vec()
    };
    let (few, many) = (containers_without_names(2), containers_without_names(40));
    for verb in ["containers", "images", "du", "whiteouts", "orphans"] {
        let (of_few, of_many) = (reads(&few, verb), reads(&many, verb));
        assert!(
            of_few.iter().any(|reads| *reads > 0),
            "{verb}: nothing read"
        );
        assert_eq!(of_few, of_many, "{verb}");
    }
}

#[apply(test)]
fn a_store_s_space_costs_a_look_at_each_name() {
    needs::strace();
    let host = containers_without_names(1);
    let layer = format!("/var/lib/containers/storage/overlay/cc{:0>62}/diff", 0);
    let du = |host: &Host| {
        let root = host.root.as_os_str();
        let options = ["--root".as_ref(), root, "-j1".as_ref(), "du".as_ref()];
        calls(&words(&options))
    };
    let asked = |host: &Host| {
        let calls = du(host);
        (times(&calls, "newfstatat"), times(&calls, "openat"))
    };
    let fill = |name: &str| {
        for number in 0..100 {
            host.file(format!("{layer}/a/b/c/d/{name}/{number}"), "x");
        }
    };
    fill("first");
    let (looks, opened) = asked(&host);
    fill("second");
    let (looks_then, opened_then) = asked(&host);
    assert_eq!(looks_then - looks, 101);
    assert_eq!(opened_then - opened, 1);
    // Each level of a deep tree costs as much as the one above.
    let deep = |depth: usize| {
        let host = containers_without_names(1);
        host.dir(format!("{layer}/{}", "d/".repeat(depth)));
        du(&host).len()
    };
    let (a, b, c) = (deep(200), deep(400), deep(600));
    assert!(c - b <= (b - a) + 40, "{a}, {b}, {c} calls");
}

/// A line that names a layer's directory as its engine does is not followed on the disk; of Podman's
/// layers one name is looked at.
#[apply(test)]
fn a_line_of_a_layer_costs_one_look_at_the_disk() {
    needs::strace();
    let host = containers_without_names(2);
    let layer = format!("/var/lib/containers/storage/overlay/cc{:0>62}/diff", 1);
    let cost = |lines: usize| {
        let home = tempfile::tempdir().expect("a temporary directory");
        let line = |number| format!("{number}\t{layer}/some/where/{number}\n");
        let input = home.path().join("lines");
        let text: String = (0..lines).map(line).collect();
        fs::write(&input, text).expect("a temporary file");
        let trace = home.path().join("trace");
        let mut command = std::process::Command::new("strace");
        command
            .env_clear()
            .args(["-f", "-o"])
            .arg(&trace)
            .arg(env!("CARGO_BIN_EXE_layerctl"))
            .arg("--root")
            .arg(&host.root)
            .args(["whois", "-"])
            .stdin(fs::File::open(&input).expect("a temporary file"));
        let output = run::run(&mut command).exits(0);
        assert_eq!(output.text().lines().count(), lines);
        let trace = fs::read_to_string(&trace).expect("what strace wrote");
        trace
            .lines()
            .filter(|line| !line.contains("F_GETFD"))
            .count()
    };
    let (few, many) = (cost(100), cost(4100));
    // And to read the lines, and to write them.
    assert!(many <= few + 4000 + 4000 / 10, "{few}, then {many} calls");
}

/// On a copied host, since a living one has processes, each of which may have mounts of its own.
#[apply(test)]
fn one_file_is_restored_at_the_cost_of_its_path() {
    needs::time();
    needs::strace();
    let cost = |others: usize| {
        let host = Host::empty();
        for path in ["/one/a/b/f", "/two/a/b/other", "/three/x", "/up/a/b/.wh.f"] {
            host.file(path, "");
        }
        for number in 0..others {
            host.file(format!("/up/a/{number}"), "");
            host.file(format!("/up/a/b/{number}"), "");
        }
        let stack = "br:/up=rw:/one=ro:/two=ro:/three=ro";
        let root = host.root.as_os_str();
        let asked = ["restore", "--write", "--in", stack, "/a/b/f"].map(OsStr::new);
        let arguments: Vec<&OsStr> = ["--root".as_ref(), root].into_iter().chain(asked).collect();
        let calls = calls(&words(&arguments));
        assert!(!host.at("/up/a/b/.wh.f").exists(), "the whiteout is gone");
        calls.len()
    };
    let (few, many) = (cost(10), cost(3000));
    // Three names of the path, in four branches.
    assert!(few <= 3 * 4 * 4 + 300, "{few} calls");
    // A large directory takes more calls to list, and that is all.
    assert!(many <= few + 3000 / 100, "{few}, then {many} calls");
}

/// What lies elsewhere is not opened.
#[apply(test)]
fn a_path_behind_a_target_limits_what_is_walked() {
    needs::strace();
    needs::captured_hosts();
    let host = Host::captured("docker-28-overlay2");
    let branches = host.branches_of("web-1");
    let top = branches.first().expect("a writable one");
    make(host.at(OsStr::from_bytes(top)).join("opt/elsewhere/in/f"));
    let home = tempfile::tempdir().expect("a temporary directory");
    let out = home.path().join("out");
    let root = host.root.as_os_str();
    let opened = |verb: &[&str], target: &str| {
        let mut all = words(&["--root".as_ref(), root]);
        all.extend(verb.iter().map(OsString::from));
        if verb[0] == "cp" {
            all.extend(["--to".into(), out.clone().into_os_string()]);
        }
        all.push(target.into());
        let calls = calls(&all);
        let into = calls.iter().filter(|call| call.contains("\"elsewhere\""));
        into.filter(|call| call.contains("openat(")).count()
    };
    for verb in [
        &["changes"][..],
        &["whiteouts"],
        &["copyups"],
        &["check"],
        &["cp", "--all-deleted"],
    ] {
        assert!(opened(verb, "web-1:/opt") > 0, "{verb:?}");
        assert_eq!(opened(verb, "web-1:/data/keep"), 0, "{verb:?}");
    }
}
