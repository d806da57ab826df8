//! What the verbs cost, as ratios of one run: beside a bare walk of the same tree, beside a start
//! that does nothing, and beside themselves on twice as much.
//!
//! `cargo bench` makes the trees in a temporary directory (`TMPDIR`), and prints everything;
//! `cargo bench -- walks which` only those. The figures of one machine are in README.md here.

#![allow(clippy::disallowed_methods, clippy::disallowed_macros)]

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Write};
use std::mem::MaybeUninit;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{FileType, Mode, OFlags, RawDir, openat};
use rustix::time::{ClockId, clock_gettime};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

const BINARY: &str = env!("CARGO_BIN_EXE_layerctl");

/// A section of what is measured.
type Section = (&'static str, fn());

const SECTIONS: [Section; 10] = [
    ("walks", walks),
    ("wide", wide),
    ("facts", facts),
    ("which", which),
    ("growth", growth),
    ("find", find),
    ("copies", copies),
    ("engines", engines),
    ("stores", stores),
    ("start", start),
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.as_slice() {
        [mode, root, verb] if mode == "peak" => return print_peak(Path::new(root), verb),
        [mode, home, engine] if mode == "engine" => return print_engine(Path::new(home), engine),
        [mode, home] if mode == "copies" => return print_copies(Path::new(home)),
        _ => {}
    }
    let is_wanted = |name: &str| {
        let mut named = arguments
            .iter()
            .filter(|word| !word.starts_with('-'))
            .peekable();
        named.peek().is_none() || named.any(|word| word == name)
    };
    for (name, run) in SECTIONS {
        if is_wanted(name) {
            println!("\n{name}");
            run();
        }
    }
}

// ---- what is measured ----

/// The processor's time, that of all threads together, and the clock's.
#[derive(Clone, Copy)]
struct Cost {
    cpu: Duration,
    wall: Duration,
}

fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or_default(),
        u32::try_from(time.tv_nsec).unwrap_or_default(),
    )
}

fn cost(run: impl FnOnce()) -> Cost {
    let (start, clock) = (cpu(), Instant::now());
    run();
    Cost {
        wall: clock.elapsed(),
        cpu: cpu() - start,
    }
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

/// How often everything is measured, each beside the other in turn.
const ROUNDS: usize = 15;

/// One verb's answer, written to nowhere.
fn answer(spelled: &str, verb: &str, threads: usize) {
    let threads = threads.to_string();
    let options = ["layerctl", "--quiet", "--threads", &threads];
    let words = options.into_iter().chain(verb.split(' ')).chain([spelled]);
    let status = layerctl::run_to(words.map(OsString::from), &mut io::sink());
    assert_eq!(status, ExitCode::SUCCESS);
}

/// `openat`, `getdents64` and `close` for every directory, and nothing else.
fn bare(root: &Path) -> usize {
    let flags =
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NOATIME;
    let mut buffer = vec![MaybeUninit::<u8>::uninit(); 32 * 1024];
    let mut count = 0;
    let mut pending = vec![openat(rustix::fs::CWD, root, flags, Mode::empty()).expect("the tree")];
    while let Some(dir) = pending.pop() {
        let mut entries = RawDir::new(&dir, &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = entry.expect("an entry");
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            count += 1;
            if entry.file_type() == FileType::Directory {
                pending.push(openat(&dir, name, flags, Mode::empty()).expect("a directory"));
            }
        }
    }
    count
}

/// A verb beside a bare walk of its topmost branch.
fn beside_bare(top: &Path, spelled: &str) {
    println!("  verb       threads  cpu    wall   (times the bare walk's)");
    let mut bares = Vec::new();
    for verb in ["whiteouts", "changes", "ls -R"] {
        for threads in [1, 2] {
            let (mut cpus, mut walls) = (Vec::new(), Vec::new());
            for _ in 0..ROUNDS {
                let bare = cost(|| assert!(bare(top) > 0));
                let own = cost(|| answer(spelled, verb, threads));
                bares.push(bare.wall.as_secs_f64() * 1000.0);
                cpus.push(own.cpu.as_secs_f64() / bare.cpu.as_secs_f64());
                walls.push(own.wall.as_secs_f64() / bare.wall.as_secs_f64());
            }
            let (cpu, wall) = (median(cpus), median(walls));
            println!("  {verb:<10} {threads:<8} {cpu:<6.2} {wall:.2}");
        }
    }
    println!("  the bare walk: {:.0} ms", median(bares));
}

// ---- the sections ----

/// 300,000 entries in 33,000 directories, one file in twenty a whiteout, above an empty branch.
fn walks() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let mut count = 0;
    for directory in 0..30_000 {
        let (top, middle, low) = (directory / 300, directory / 10 % 30, directory % 10);
        let at = home.path().join(format!("up/d{top}/e{middle}/f{low}"));
        fs::create_dir_all(&at).expect("a directory");
        for entry in 0..9 {
            count += 1;
            let prefix = if count % 20 == 0 { ".wh." } else { "" };
            touch(&at.join(format!("{prefix}file{entry}")));
        }
    }
    fs::create_dir(home.path().join("lo")).expect("a directory");
    let at = home.path().display();
    let spelled = format!("br:{at}/up=rw:{at}/lo=ro+wh");
    beside_bare(&home.path().join("up"), &spelled);
}

/// 200,000 names in one directory.
fn wide() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let up = home.path().join("up");
    fs::create_dir_all(&up).expect("a directory");
    (0..200_000).for_each(|entry| touch(&up.join(format!("file{entry}"))));
    fs::create_dir(home.path().join("lo")).expect("a directory");
    let at = home.path().display();
    beside_bare(&up, &format!("br:{at}/up=rw:{at}/lo=ro+wh"));
}

/// What of a file is looked at.
#[derive(Clone, Copy)]
enum Wanted {
    /// Itself.
    One,
    /// Itself and the version below it.
    Both,
    /// The names of both's attributes, too.
    Attributes,
}

/// Lists every directory of a branch and looks at every file once, and nothing else. The file `fN_M`
/// has its version below in branch N.
fn bare_facts(home: &Path, branch: &str, wanted: Wanted) -> usize {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOATIME;
    let open =
        |path: PathBuf| openat(rustix::fs::CWD, path, flags, Mode::empty()).expect("the tree");
    let mut buffer = vec![MaybeUninit::<u8>::uninit(); 32 * 1024];
    let mut count = 0;
    for directory in 0..FACTS_DIRECTORIES {
        let at = |branch: &str| home.join(branch).join(format!("d{directory}"));
        let dir = open(at(branch));
        let lowers: Vec<_> = match wanted {
            Wanted::One => Vec::new(),
            _ => (0..FACTS_BRANCHES)
                .map(|of| open(at(&format!("l{of}"))))
                .collect(),
        };
        let mut entries = RawDir::new(&dir, &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = entry.expect("an entry");
            let name = entry.file_name();
            let text = name.to_bytes();
            if text.starts_with(b".") {
                continue;
            }
            count += 1;
            let ask = |dir: &rustix::fd::OwnedFd| {
                let found = rustix::fs::statat(dir, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW);
                assert!(found.expect("a file").st_size > 0);
                if let Wanted::Attributes = wanted {
                    let path = layerctl_path(dir, text);
                    let mut names = [0u8; 64];
                    assert_eq!(rustix::fs::llistxattr(path, &mut names), Ok(0));
                }
            };
            ask(&dir);
            if !lowers.is_empty() {
                let number = text[1..]
                    .split(|&byte| byte == b'_')
                    .next()
                    .unwrap_or_default();
                let number = std::str::from_utf8(number).expect("a number");
                ask(&lowers[number.parse::<usize>().expect("a number")]);
            }
        }
    }
    count
}

/// A path to a name in an open directory.
fn layerctl_path(dir: &rustix::fd::OwnedFd, name: &[u8]) -> Vec<u8> {
    let mut path = format!("/proc/self/fd/{}/", std::os::fd::AsRawFd::as_raw_fd(dir)).into_bytes();
    path.extend_from_slice(name);
    path
}

const FACTS_BRANCHES: usize = 20;
const FACTS_DIRECTORIES: usize = 200;
const FACTS_FILES: usize = 100_000;

/// An overlay of 100,000 files in 20 lower branches, a fifth of them changed, beside the bare minimum
/// that learns the same.
fn facts() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let branches = (0..FACTS_BRANCHES).map(|of| format!("l{of}"));
    for (branch, directory) in branches
        .chain(["up".into()])
        .flat_map(|branch| (0..FACTS_DIRECTORIES).map(move |directory| (branch.clone(), directory)))
    {
        fs::create_dir_all(home.path().join(branch).join(format!("d{directory}")))
            .expect("a directory");
    }
    for file in 0..FACTS_FILES {
        let (branch, rest) = (file % FACTS_BRANCHES, file / FACTS_BRANCHES);
        let path = format!("d{}/f{branch}_{rest}", rest % FACTS_DIRECTORIES);
        let low = home.path().join(format!("l{branch}")).join(&path);
        fs::write(low, "0123456789").expect("a file");
        if (rest / FACTS_DIRECTORIES).is_multiple_of(5) {
            fs::write(home.path().join("up").join(&path), "0123456789a").expect("a file");
        }
    }
    let at = home.path().display();
    let lowers: Vec<String> = (0..FACTS_BRANCHES)
        .map(|of| format!("{at}/l{of}"))
        .collect();
    let spelled = format!("lowerdir={},upperdir={at}/up", lowers.join(":"));
    let below = |wanted| {
        let each = (0..FACTS_BRANCHES).map(|of| bare_facts(home.path(), &format!("l{of}"), wanted));
        each.sum::<usize>()
    };
    let up = |wanted| bare_facts(home.path(), "up", wanted);
    println!("  verb       threads  cpu    wall   (times the bare minimum's)");
    for verb in ["changes", "ls -R", "check", "copyups", "whiteouts"] {
        for threads in [1, 2] {
            let (mut cpus, mut walls) = (Vec::new(), Vec::new());
            for _ in 0..ROUNDS {
                let bare = cost(|| {
                    let count = match verb {
                        "changes" => up(Wanted::Both),
                        "copyups" => up(Wanted::Attributes),
                        "whiteouts" => up(Wanted::One),
                        _ => up(Wanted::One) + below(Wanted::One),
                    };
                    assert!(count > 0);
                });
                let own = cost(|| answer(&spelled, verb, threads));
                cpus.push(own.cpu.as_secs_f64() / bare.cpu.as_secs_f64());
                walls.push(own.wall.as_secs_f64() / bare.wall.as_secs_f64());
            }
            println!(
                "  {verb:<10} {threads:<8} {:<6.2} {:.2}",
                median(cpus),
                median(walls)
            );
        }
    }
}

/// One process on 127 branches, and how many system calls it makes.
fn which() {
    let home = tempfile::tempdir().expect("a temporary directory");
    const BRANCHES: usize = 127;
    for branch in 0..BRANCHES {
        // Some files each, and all of them every directory of the path: the most to ask.
        let at = home.path().join(format!("b{branch}"));
        fs::create_dir_all(at.join("a/b/c/d")).expect("a directory");
        touch(&at.join(format!("own{branch}")));
    }
    let last = home.path().join(format!("b{}", BRANCHES - 1));
    for depth in ["f", "a/f", "a/b/f", "a/b/c/f"] {
        touch(&last.join(depth));
    }
    let spelled = |branches: usize| {
        let first = BRANCHES - branches;
        let branches = (first..BRANCHES).map(|branch| {
            let at = home.path().join(format!("b{branch}"));
            format!("{}=ro+wh", at.display())
        });
        format!("br:{}", branches.collect::<Vec<_>>().join(":"))
    };
    let all = spelled(BRANCHES);
    let run = |arguments: &[&str]| {
        let clock = Instant::now();
        let mut command = Command::new(BINARY);
        let status = command.args(arguments).stdout(Stdio::null()).status();
        assert!(status.expect("the program").success());
        clock.elapsed().as_secs_f64()
    };
    println!("  path on {BRANCHES} branches   wall (times that of --version)");
    for path in ["/own3", "/f", "/a/f", "/a/b/f", "/a/b/c/f"] {
        let ratios = (0..100).map(|_| run(&["which", "--in", &all, path]) / run(&["--version"]));
        println!("  {path:<24} {:.2}", median(ratios.collect()));
    }
    let calls = |arguments: &[&str]| -> Option<usize> {
        let trace = home.path().join("trace");
        let mut command = Command::new("strace");
        command
            .args(["-f", "-o"])
            .arg(&trace)
            .arg(BINARY)
            .args(arguments);
        let status = command.stdout(Stdio::null()).status().ok()?;
        assert!(status.success());
        Some(fs::read_to_string(&trace).ok()?.lines().count())
    };
    let Some(one) = calls(&["which", "--in", &spelled(1), "/f"]) else {
        return println!("  strace is not installed: system calls are not counted");
    };
    println!("  system calls: {one} for one branch; for each further one");
    for (depth, path) in ["/f", "/a/f", "/a/b/f", "/a/b/c/f"].into_iter().enumerate() {
        let of = |branches| calls(&["which", "--in", &spelled(branches), path]).unwrap_or_default();
        let each = (of(BRANCHES) - of(2)) as f64 / (BRANCHES - 2) as f64;
        println!("    depth {}  {each:.1}", depth + 1);
    }
}

/// Files are in directories of so many.
const IN_DIRECTORY: usize = 100;

/// Where a file of an image is.
fn place(file: usize) -> String {
    let directory = file / IN_DIRECTORY;
    format!("usr/d{}/e{}/file{file}", directory / 100, directory % 100)
}

/// One change in two is of a file of the image. There are no more of them than in half of it.
fn change(home: &Path, changes: usize) {
    for change in 0..changes {
        make(&home.join(match change % 2 {
            0 => place(change),
            _ => format!("{}-new", place(change)),
        }));
    }
}

/// An image in twenty layers, and a container that changes and adds files.
fn image(home: &Path, files: usize, changes: usize) -> String {
    const LAYERS: usize = 20;
    for file in 0..files {
        let layer = file / IN_DIRECTORY % LAYERS;
        make(&home.join(format!("layer{layer}")).join(place(file)));
    }
    change(&home.join("container"), changes);
    let at = home.display();
    let lower: Vec<String> = (0..LAYERS)
        .rev()
        .map(|layer| format!("{at}/layer{layer}=ro+wh"))
        .collect();
    format!("br:{at}/container=rw:{}", lower.join(":"))
}

/// `changes` on twice the changes, and on twice the image.
fn growth() {
    println!("  changes  image files  cpu");
    for (changes, files) in [(50_000, 250_000), (100_000, 250_000), (100_000, 500_000)] {
        let home = tempfile::tempdir().expect("a temporary directory");
        let spelled = image(home.path(), files, changes);
        let costs = (0..5).map(|_| cost(|| answer(&spelled, "changes", 1)).cpu.as_secs_f64());
        let cpu = median(costs.collect());
        println!("  {changes:<8} {files:<12} {:.0} ms", cpu * 1000.0);
    }
}

/// `find` in so many containers of one image of 500,000 files, each with files of its own; beside
/// find(1) in each of them, mounted one after the other.
fn find() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let spelled = image(home.path(), 500_000, 0);
    let at = home.path().display();
    let own = std::env::current_exe().expect("this program");
    let layers = spelled.split_once(":").map_or("", |(_, rest)| rest);
    let layers = layers.split_once(":").map_or("", |(_, rest)| rest);
    println!("  containers  wall    peak        find(1) in each");
    for containers in [1, 10, 100] {
        let mut words = String::from("find");
        for container in 0..containers {
            for file in 0..20 {
                make(
                    &home
                        .path()
                        .join(format!("up{container}/usr/d1/e{file}/own")),
                );
            }
            words.push_str(&format!(" br:{at}/up{container}=rw:{layers}"));
        }
        words.push_str(" -- file4999*");
        let clock = Instant::now();
        let output = Command::new(&own).args(["peak", "/", &words]).output();
        let wall = clock.elapsed().as_secs_f64();
        let peak = String::from_utf8_lossy(&output.expect("this program").stdout).into_owned();
        let lower: Vec<String> = (0..20).rev().map(|of| format!("{at}/layer{of}")).collect();
        let script = format!(
            "mkdir -p {at}/mount && for up in $(seq 0 {}); do
               mount -t overlay overlay -o lowerdir={at}/up$up:{} {at}/mount &&
               find {at}/mount -name 'file4999*' && umount {at}/mount || exit 1
             done",
            containers - 1,
            lower.join(":")
        );
        // A hundred take minutes.
        let theirs = if containers > 10 {
            "not measured".to_owned()
        } else {
            let mut command = Command::new("unshare");
            let clock = Instant::now();
            let output = command.args(["--mount", "sh", "-c", &script]).output();
            match output {
                Ok(output) if output.status.success() => {
                    format!("{:.2}", clock.elapsed().as_secs_f64())
                }
                _ => "cannot be mounted".to_owned(),
            }
        };
        println!(
            "  {containers:<11} {wall:<7.2} {:<11} {theirs}",
            peak.trim()
        );
    }
}

/// `cp`, `cat` and `diff` beside what a person would use who had mounted it all.
fn copies() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let own = std::env::current_exe().expect("this program");
    let mut command = Command::new("unshare");
    command
        .arg("--mount")
        .arg(own)
        .arg("copies")
        .arg(home.path());
    let output = command.output().expect("unshare");
    print!("{}", String::from_utf8_lossy(&output.stdout));
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        println!("  not measured: {}", why.trim());
    }
}

/// Mounts a container of 50,000 files and two images that differ in their topmost layer, and takes
/// the times of each.
fn print_copies(home: &Path) {
    let spelled = image(home, 50_000, 5_000);
    let at = home.display();
    fs::write(home.join("container/large"), vec![b'x'; 256 << 20]).expect("a file");
    for (name, file) in [("one", "a"), ("two", "b")] {
        make(&home.join(format!("{name}/etc/{file}")));
        fs::create_dir_all(home.join(format!("mount-{name}"))).expect("a directory");
    }
    fs::create_dir_all(home.join("mount")).expect("a directory");
    let lower: Vec<String> = (0..20).rev().map(|of| format!("{at}/layer{of}")).collect();
    let lower = lower.join(":");
    for (top, mount) in [
        ("container", "mount"),
        ("one", "mount-one"),
        ("two", "mount-two"),
    ] {
        let options = format!("lowerdir={at}/{top}:{lower}");
        let mut command = Command::new("mount");
        command.args(["-t", "overlay", "overlay", "-o", &options]);
        run(command.arg(home.join(mount)));
    }
    let image = |top: &str| {
        let lower = lower.replace(':', "=ro+wh:");
        format!("br:{at}/{top}=ro+wh:{lower}=ro+wh")
    };
    let (one, two) = (image("one"), image("two"));
    let own = BINARY;
    let cases = [
        (
            "cp -a, 55,000 files",
            format!("{own} cp -a --in {spelled} -- / {at}/copy"),
            format!("cp -a {at}/mount {at}/copy"),
        ),
        (
            "cp -, a tar file of them",
            format!("{own} cp --in {spelled} -- / - | cat > {at}/copy"),
            format!("tar -C {at}/mount -cf - . | cat > {at}/copy"),
        ),
        (
            "cat, 256 MiB",
            format!("{own} cat --in {spelled} -- /large | cat > /dev/null"),
            format!("cat {at}/mount/large | cat > /dev/null"),
        ),
        (
            "diff, two images",
            format!("{own} diff {one} {two} > {at}/copy; test $? = 1"),
            format!("diff -rq {at}/mount-one {at}/mount-two > {at}/copy; test $? = 1"),
        ),
    ];
    println!("  what                       layerctl  mounted (wall, s)");
    for (what, ours, theirs) in cases {
        let mut times = [Vec::new(), Vec::new()];
        for _ in 0..3 {
            for (script, times) in [&ours, &theirs].into_iter().zip(&mut times) {
                let (_, time) = run(Command::new("sh").args(["-c", script]));
                times.push(time);
                run(Command::new("rm").arg("-rf").arg(home.join("copy")));
            }
        }
        let [ours, theirs] = times.map(median);
        println!("  {what:<26} {ours:<9.2} {theirs:.2}");
    }
}

/// `changes` beside what engines say of the same container, where they are installed: each in
/// namespaces of its own, which end with it.
fn engines() {
    println!("  engine   its diff   changes   (wall; 100,000 changes, an image of 500,000 files)");
    let own = std::env::current_exe().expect("this program");
    for engine in ["docker", "podman"] {
        let home = tempfile::tempdir().expect("a temporary directory");
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"])
            .arg(&own)
            .arg("engine")
            .arg(home.path())
            .arg(engine);
        let output = command.output().expect("unshare");
        if output.status.success() {
            print!("{}", String::from_utf8_lossy(&output.stdout))
        } else {
            let why = String::from_utf8_lossy(&output.stderr);
            println!("  {engine:<8} not measured: {}", why.trim());
        }
    }
}

/// An engine with a store of its own.
struct Engine {
    program: &'static str,
    options: Vec<OsString>,
    /// How layerctl is told of the store.
    store: [OsString; 2],
    daemon: Option<Child>,
}

impl Engine {
    fn docker(home: &Path) -> Engine {
        let option = |name: &str, at: &str| {
            let mut option = OsString::from(name);
            option.push(home.join(at));
            option
        };
        let config = r#"{"features":{"containerd-snapshotter":false}}"#;
        fs::write(home.join("daemon.json"), config).expect("a file");
        let log = File::create(home.join("log")).expect("a file");
        let daemon = Command::new("dockerd")
            .arg(option("--config-file=", "daemon.json"))
            .arg(option("--data-root=", "store"))
            .arg(option("--exec-root=", "exec"))
            .arg(option("--pidfile=", "pid"))
            .arg(option("--host=unix://", "socket"))
            .args(["--storage-driver=overlay2", "--bridge=none"])
            .args(["--iptables=false", "--ip6tables=false", "--ip-masq=false"])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        let daemon = daemon.unwrap_or_else(|error| fail(&format!("dockerd: {error}")));
        let engine = Engine {
            program: "docker",
            options: vec![option("--host=unix://", "socket")],
            store: ["--docker-root".into(), home.join("store").into()],
            daemon: Some(daemon),
        };
        let ends = Instant::now() + Duration::from_secs(60);
        while !engine
            .command(&["version"])
            .output()
            .is_ok_and(|output| output.status.success())
        {
            if Instant::now() > ends {
                fail("dockerd did not start");
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        engine
    }

    fn podman(home: &Path) -> Engine {
        let mut options: Vec<OsString> = Vec::new();
        for (option, at) in [
            ("--root", "store"),
            ("--runroot", "run"),
            ("--tmpdir", "tmp"),
        ] {
            options.extend([option.into(), home.join(at).into()]);
        }
        options.extend(["--storage-driver", "overlay", "--events-backend", "none"].map(Into::into));
        Engine {
            program: "podman",
            options,
            store: ["--storage-root".into(), home.join("store").into()],
            daemon: None,
        }
    }

    /// The directory that is topmost in an image, or that a container writes to.
    fn top_of(&self, name: &str) -> PathBuf {
        let format = "{{.GraphDriver.Data.UpperDir}}";
        let (top, _) = run(&mut self.command(&["inspect", "--format", format, name]));
        PathBuf::from(top.trim())
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.program);
        command.args(&self.options).args(arguments);
        command
    }
}

/// Runs something to its end, and gives what it says and how long it took, in seconds.
fn run(command: &mut Command) -> (String, f64) {
    let clock = Instant::now();
    let output = command.output();
    let time = clock.elapsed().as_secs_f64();
    let output = output.unwrap_or_else(|error| fail(&format!("{command:?}: {error}")));
    if !output.status.success() {
        fail(&String::from_utf8_lossy(&output.stderr));
    }
    (String::from_utf8_lossy(&output.stdout).into_owned(), time)
}

fn fail(why: &str) -> ! {
    eprintln!("{why}");
    std::process::exit(1)
}

/// Makes an image and a container, and asks the engine and layerctl what was changed.
fn print_engine(home: &Path, engine: &str) {
    let engine = match engine {
        "docker" => Engine::docker(home),
        _ => Engine::podman(home),
    };
    let image = home.join("image");
    (0..500_000).for_each(|file| make(&image.join(place(file))));
    fs::write(image.join("large"), vec![b'x'; 256 << 20]).expect("a file");
    let mut tar = Command::new("tar")
        .arg("-C")
        .arg(&image)
        .args(["-cf", "-", "."])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| fail(&format!("tar: {error}")));
    let archive = tar.stdout.take().expect("a pipe");
    run(engine.command(&["import", "-", "bench:1"]).stdin(archive));
    tar.wait().expect("our own process");
    run(&mut engine.command(&[
        "create",
        "--name",
        "changed",
        "--network",
        "none",
        "bench:1",
        "/x",
    ]));
    change(&engine.top_of("changed"), 100_000);
    let (mut theirs, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let (diff, time) = run(&mut engine.command(&["diff", "changed"]));
        theirs.push(time);
        let (changes, time) = run(Command::new(BINARY)
            .args(&engine.store)
            .args(["changes", "changed"]));
        ours.push(time);
        let sorted = |text: &str| {
            let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
            lines.sort();
            lines
        };
        if sorted(&diff) != sorted(&changes) {
            fail(&format!(
                "{} lines, not {}",
                changes.lines().count(),
                diff.lines().count()
            ));
        }
    }
    let (theirs, ours) = (median(theirs), median(ours));
    println!("  {:<8} {theirs:<10.2} {ours:.2}", engine.program);
    print_copies_of_engine(home, &engine);
    if let Some(mut daemon) = engine.daemon {
        daemon
            .kill()
            .and_then(|()| daemon.wait())
            .expect("our own process");
    }
}

/// `cat` and `cp` beside the engine's own `cp`, `export` beside its `save`, `verify` beside sha256sum of the
/// same files.
fn print_copies_of_engine(home: &Path, engine: &Engine) {
    let words = |command: &Command| {
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        let words: Vec<String> = words.map(|word| word.display().to_string()).collect();
        words.join(" ")
    };
    let theirs = words(&engine.command(&["cp"]));
    let save = words(&engine.command(&["save"]));
    let layer = engine.top_of("bench:1");
    let layer = layer.display();
    let mut ours = Command::new(BINARY);
    let ours = words(ours.args(&engine.store));
    let (file, to) = (place(1), home.join("copied"));
    let to = to.display();
    for (what, ours, theirs) in [
        (
            "cat",
            format!("{ours} cat changed:/{file}"),
            format!("{theirs} changed:/{file} - | tar -xO"),
        ),
        (
            "cp -a",
            format!("{ours} cp -a changed:/usr/d1 {to}"),
            format!("{theirs} -a changed:/usr/d1 {to}"),
        ),
        (
            "export",
            format!("{ours} export bench:1 --as docker -o {to}"),
            format!("{save} -o {to} bench:1"),
        ),
        (
            "verify",
            format!("{ours} verify bench:1 > {to}"),
            format!("find {layer} -type f -print0 | xargs -0 sha256sum > {to}"),
        ),
    ] {
        let mut times = [Vec::new(), Vec::new()];
        for _ in 0..3 {
            for (script, times) in [&ours, &theirs].into_iter().zip(&mut times) {
                times.push(run(Command::new("sh").args(["-c", script])).1);
                run(Command::new("rm").arg("-rf").arg(home.join("copied")));
            }
        }
        let [ours, theirs] = times.map(median);
        println!("    {what:<6} {theirs:<10.2} {ours:.2}");
    }
}

/// A Docker data directory of 2,000 layers and a million entries: the time and the peak of memory
/// of a process of its own.
fn stores() {
    let home = docker_store(20, 100, 500);
    let own = std::env::current_exe().expect("this program");
    println!("  verb      wall     peak");
    let lines = home.path().join("lines");
    let layers = fs::read_dir(home.path().join("var/lib/docker/overlay2")).expect("the store");
    let layers = layers.map(|layer| layer.expect("a layer").file_name());
    let layers = layers.map(|name| format!("/var/lib/docker/overlay2/{}\n", name.display()));
    fs::write(&lines, layers.collect::<String>()).expect("a file");
    for verb in ["orphans", "du", "whois -"] {
        let clock = Instant::now();
        let mut command = Command::new(&own);
        command.stdin(File::open(&lines).expect("a file"));
        let output = command.arg("peak").arg(home.path()).arg(verb).output();
        let output = output.expect("this program");
        assert!(output.status.success(), "{output:?}");
        let peak = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        println!("  {verb:<9} {:<8.2} {peak}", clock.elapsed().as_secs_f64());
    }
    beside_du(home.path());
}

/// The space of the store beside du(1) of the same directory, in turn.
fn beside_du(home: &Path) {
    let clock = |command: &mut Command| {
        let clock = Instant::now();
        let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
        assert!(status.expect("a program").success());
        clock.elapsed().as_secs_f64()
    };
    let (mut own, mut other) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        own.push(clock(
            Command::new(BINARY)
                .arg("--root")
                .arg(home)
                .args(["-j2", "du"]),
        ));
        other.push(clock(Command::new("du").arg("-sx").arg(home)));
    }
    let ratio = median(own) / median(other);
    println!("  du, two threads, times the wall of du -sx: {ratio:.2}");
}

/// Answers in this process, and prints what it took at most.
fn print_peak(root: &Path, verb: &str) {
    let words = ["layerctl".as_ref(), "--root".as_ref(), root.as_os_str()];
    let verb = verb.split(' ').map(OsStr::new);
    let words = words.into_iter().chain(verb).map(OsStr::to_owned);
    layerctl::run_to(words, &mut io::sink());
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    println!("{}", peak.unwrap_or("not known").trim());
}

/// Starting, answering nothing.
fn start() {
    let clock = |command: &mut Command| {
        let clock = Instant::now();
        let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
        status.expect("a program");
        clock.elapsed().as_secs_f64() * 1000.0
    };
    let own = (0..200).map(|_| clock(Command::new(BINARY).arg("--version")));
    let other = (0..200).map(|_| clock(&mut Command::new("true")));
    let (own, other) = (median(own.collect()), median(other.collect()));
    println!("  --version {own:.2} ms; /bin/true {other:.2} ms");
}

// ---- trees ----

fn touch(path: &Path) {
    File::create(path).expect("a file");
}

/// A file, and the directories that it lies in.
fn make(path: &Path) {
    if let Err(error) = File::create(path) {
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
        touch(path);
    }
}

/// Docker's overlay2: so many images of so many layers, each with so many files, and as many
/// containers as images.
#[allow(clippy::too_many_lines)] // a store is many records
fn docker_store(images: usize, layers: usize, files: usize) -> TempDir {
    let home = tempfile::tempdir().expect("a temporary directory");
    let root = home.path().join("var/lib/docker");
    let write = |path: PathBuf, content: &str| {
        fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
        File::create(path)
            .and_then(|mut file| file.write_all(content.as_bytes()))
            .expect("a file");
    };
    let short = |id: &str| digest(id)[..26].to_uppercase();
    let layer = |id: &str, lower: &[String]| {
        let at = root.join("overlay2").join(id);
        for file in 0..files {
            make(&at.join(format!("diff/usr/d{}/file{file}", file / 50)));
        }
        fs::create_dir_all(at.join("diff")).expect("a directory");
        write(at.join("link"), &short(id));
        let links = root.join("overlay2/l");
        fs::create_dir_all(&links).expect("a directory");
        std::os::unix::fs::symlink(format!("../{id}/diff"), links.join(short(id))).expect("a link");
        if !lower.is_empty() {
            let shorts = lower.iter().map(|id| format!("l/{}", short(id)));
            write(at.join("lower"), &shorts.collect::<Vec<_>>().join(":"));
        }
    };
    let mut tags = Vec::new();
    for image in 0..images {
        let diff_ids: Vec<String> = (0..layers)
            .map(|layer| format!("sha256:{}", digest(&format!("diff {image} {layer}"))))
            .collect();
        // As OCI's image specification has it: of the chain below and the layer above.
        let mut chain_ids: Vec<String> = Vec::new();
        for diff_id in &diff_ids {
            chain_ids.push(match chain_ids.last() {
                None => diff_id.clone(),
                Some(below) => format!("sha256:{}", digest(&format!("{below} {diff_id}"))),
            });
        }
        let mut lower: Vec<String> = Vec::new();
        for (number, chain_id) in chain_ids.iter().enumerate() {
            let id = digest(&format!("cache {image} {number}"));
            let hex = chain_id.trim_start_matches("sha256:");
            let record = root.join("image/overlay2/layerdb/sha256").join(hex);
            write(record.join("cache-id"), &id);
            write(record.join("diff"), &diff_ids[number]);
            write(record.join("size"), "10");
            if number > 0 {
                write(record.join("parent"), &chain_ids[number - 1]);
            }
            layer(&id, &lower);
            lower.insert(0, id);
        }
        let steps: Vec<String> = (0..layers)
            .map(|step| format!(r#"{{"created_by":"RUN {step}"}}"#))
            .collect();
        let config = format!(
            r#"{{"created":"2024-01-01T00:00:00Z","rootfs":{{"type":"layers","diff_ids":{diff_ids:?}}},"history":[{}]}}"#,
            steps.join(",")
        );
        let id = digest(&config);
        let content = root.join("image/overlay2/imagedb/content/sha256");
        write(content.join(&id), &config);
        tags.push(format!(r#""app{image}":{{"app{image}:1":"sha256:{id}"}}"#));
        let (container, mount) = (digest(&format!("c {image}")), digest(&format!("m {image}")));
        let init = format!("{mount}-init");
        layer(&init, &lower);
        lower.insert(0, init.clone());
        layer(&mount, &lower);
        let record = root.join("image/overlay2/layerdb/mounts").join(&container);
        write(record.join("mount-id"), &mount);
        write(record.join("init-id"), &init);
        write(record.join("parent"), chain_ids.last().expect("a layer"));
        let config = format!(
            r#"{{"ID":"{container}","Name":"/c{image}","Image":"sha256:{id}","Created":"2024-01-02T00:00:00Z","Driver":"overlay2","Path":"sh","State":{{}},"Config":{{"Image":"app{image}:1"}}}}"#
        );
        let containers = root.join("containers");
        write(containers.join(&container).join("config.v2.json"), &config);
    }
    write(
        root.join("image/overlay2/repositories.json"),
        &format!(r#"{{"Repositories":{{{}}}}}"#, tags.join(",")),
    );
    home
}

/// SHA-256, in hexadecimal digits.
fn digest(text: &str) -> String {
    let digest = Sha256::digest(text.as_bytes());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
