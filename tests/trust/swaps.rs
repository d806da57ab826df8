//! Links that are put in the way of a reader.

use super::*;
use crate::lab::needs;

const CANARY: &str = "CANARY";
/// The size of a file outside, which nothing inside has.
const SIZE: u64 = 777_777;

/// What must never be looked at: names, bytes and sizes that are nowhere else, and an alarm.
struct Outside {
    home: TempDir,
    alarm: OwnedFd,
    /// A directory of another mount, with the same in it.
    mount: Option<TempDir>,
}

impl Outside {
    fn new() -> Outside {
        let home = tempfile::tempdir().expect("a temporary directory");
        let outside = home.path().join("outside");
        let elsewhere = tempfile::tempdir_in("/dev/shm").ok();
        let device = |path: &Path| path.metadata().map(|meta| meta.dev()).ok();
        let mount = elsewhere.filter(|shm| device(shm.path()) != device(home.path()));
        if mount.is_none() {
            in_part_everywhere("/dev/shm is no other file system, so that none is led to");
        }
        let alarm = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)
            .expect("a kernel with inotify");
        for tree in [Some(outside.as_path()), mount.as_ref().map(TempDir::path)]
            .into_iter()
            .flatten()
        {
            // The names that are looked up in the layers are here, too.
            for dir in ["", "d", "sub", "d/sub", "diff", "diff/d/sub"] {
                let dir = tree.join(dir);
                fs::create_dir_all(&dir).expect("our own");
                for name in ["f", "gone", "CANARY-name", ".wh.CANARY-mark"] {
                    fs::write(dir.join(name), "CANARY bytes").expect("our own");
                    File::options()
                        .write(true)
                        .open(dir.join(name))
                        .and_then(|file| file.set_len(SIZE))
                        .expect("our own");
                }
            }
            let record = json!({"ID": sha256("web"), "Name": "/CANARY"}).to_string();
            fs::write(tree.join("config.v2.json"), record).expect("our own");
            fs::write(tree.join("mount-id"), CANARY).expect("our own");
            for entry in WalkDir::new(tree) {
                inotify::add_watch(
                    &alarm,
                    entry.expect("our own").path(),
                    WatchFlags::OPEN
                        | WatchFlags::ACCESS
                        | WatchFlags::MODIFY
                        | WatchFlags::ATTRIB
                        | WatchFlags::CREATE
                        | WatchFlags::DELETE
                        | WatchFlags::MOVE,
                )
                .expect("a watch");
            }
        }
        Outside { home, alarm, mount }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.home.path().join(path)
    }

    /// How many bytes of events there are: something was opened, read or written.
    fn alarms(&self) -> usize {
        let mut buffer = [0; 65536];
        rustix::io::read(&self.alarm, &mut buffer).unwrap_or(0)
    }

    /// Where links lead that take a place in a layer. `beside` is a directory of the host's,
    /// but of no layer's.
    fn targets(&self) -> Vec<PathBuf> {
        let outside = self.at("outside");
        let up = "../".repeat(24);
        let from_root = outside.strip_prefix("/").expect("absolute").to_owned();
        let mut targets = vec![
            outside.clone(),
            Path::new(&up).join(&from_root),
            "..".into(),
            "../..".into(),
            Path::new("/proc/self/root").join(&from_root),
            // The programs are run there.
            "/proc/self/cwd".into(),
            "/proc/thread-self/cwd".into(),
            Path::new(&format!("/proc/{}/root", std::process::id())).join(&from_root),
            "/".into(),
        ];
        targets.extend(self.mount.as_ref().map(|shm| shm.path().to_owned()));
        targets
    }
}

/// Exchanges what is at `places` and links to `targets`, there and back, until it is told
/// that it is over.
struct Swapper<'a> {
    places: Vec<PathBuf>,
    spares: Vec<PathBuf>,
    rounds: &'a AtomicUsize,
    is_over: &'a AtomicBool,
    /// Held while a link is in place.
    is_swapped: &'a Mutex<()>,
}

impl Swapper<'_> {
    fn run(&self, seed: u64) {
        let mut random = Random(seed);
        let exchange =
            |a: &Path, b: &Path| renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE).is_ok();
        while !self.is_over.load(Ordering::Relaxed) {
            let (place, spare) = (random.of(&self.places), random.of(&self.spares));
            let guard = self.is_swapped.lock().expect("no panic");
            // Several times: a reader may be between any two of its steps.
            for _ in 0..1 + random.below(8) {
                assert!(
                    exchange(place, spare),
                    "{} {}",
                    place.display(),
                    spare.display()
                );
                for _ in 0..random.below(2000) {
                    std::hint::spin_loop();
                }
                if random.below(4) == 0 {
                    thread::sleep(Duration::from_micros(300));
                }
                assert!(
                    exchange(place, spare),
                    "{} {}",
                    place.display(),
                    spare.display()
                );
                self.rounds.fetch_add(1, Ordering::Relaxed);
            }
            drop(guard);
            if random.below(3) == 0 {
                thread::sleep(Duration::from_micros(random.next() % 2000));
            }
        }
    }
}

fn has_canary(bytes: &[u8]) -> bool {
    bytes
        .windows(CANARY.len())
        .any(|window| window == CANARY.as_bytes())
}

fn leaks(asked: &[OsString], output: &Output) -> Option<String> {
    let sizes = [
        format!("\"size\":{SIZE}"),
        format!("\"size_before\":{SIZE}"),
    ];
    let text = String::from_utf8_lossy(&output.stdout);
    let is_leak = has_canary(&output.stdout)
        || has_canary(output.stderr.as_bytes())
        || sizes.iter().any(|size| text.contains(size));
    is_leak.then(|| {
        format!(
            "{asked:?} told of what is outside: {text} {}",
            output.stderr
        )
    })
}

/// Runs `ask` until there were enough rounds, while the places are swapped.
fn while_swapped(
    outside: &Outside,
    places: Vec<PathBuf>,
    targets: &[PathBuf],
    mut ask: impl FnMut(&Mutex<()>) -> Vec<String>,
) {
    fs::read_dir(outside.at("outside")).expect("our own");
    if outside.alarms() == 0 {
        skip_everywhere("nothing tells here what was opened");
    }
    let spare = outside.at("spare");
    fs::create_dir(&spare).expect("our own");
    let spares: Vec<PathBuf> = targets
        .iter()
        .enumerate()
        .map(|(index, target)| {
            let at = spare.join(index.to_string());
            symlink(target, &at).expect("our own");
            at
        })
        .collect();
    let (rounds, is_over, is_swapped) =
        (AtomicUsize::new(0), AtomicBool::new(false), Mutex::new(()));
    let mut wrong = Vec::new();
    thread::scope(|scope| {
        let swapper = Swapper {
            places,
            spares,
            rounds: &rounds,
            is_over: &is_over,
            is_swapped: &is_swapped,
        };
        scope.spawn(move || swapper.run(6));
        let mut asked = 0;
        while wrong.is_empty() && (asked < 6 || rounds.load(Ordering::Relaxed) < 3000) {
            wrong = ask(&is_swapped);
            asked += 1;
        }
        is_over.store(true, Ordering::Relaxed);
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(outside.alarms(), 0, "something outside was opened");
}

/// A command that is run where `/proc/self/cwd` leads outside.
fn jsonl(outside: &Outside, arguments: &[OsString]) -> Output {
    let mut command = layerctl();
    command.current_dir(outside.at("outside"));
    run::run(command.args(["--format", "jsonl"]).args(arguments))
}

#[apply(test)]
fn in_a_store_are_followed_by_no_verb() {
    needs::time();
    let outside = Outside::new();
    let mut store = Store::new("");
    fs::rename(&store.host.root, outside.at("root")).expect("our own");
    store.host = Host::existing(&outside.at("root"));
    store.container("web", "");
    for layer in ["web", "base"] {
        for path in ["d/f", "d/sub/f", "d/sub/deep/f"] {
            store.file(&format!("overlay2/{layer}/diff/{path}"), layer);
        }
    }
    // Of the host, but of no layer.
    store.file("CANARY-beside", "");
    store.file("overlay2/web/CANARY-beside", "");
    let whiteout = store.at("overlay2/web/diff/d/sub/gone");
    if mknodat(CWD, &whiteout, FileType::CharacterDevice, Mode::empty(), 0).is_ok() {
        store.file("overlay2/base/diff/d/sub/gone", "was there");
    }
    let places = ["web", "base"]
        .iter()
        .flat_map(|layer| {
            ["d", "d/sub", "d/sub/deep", "d/f"].map(|path| format!("{}/{path}", upper(layer)))
        })
        .map(|path| store.host.at(path))
        .collect();
    let mut verbs = reading(
        "web".as_ref(),
        "/d/sub/f".as_ref(),
        upper("web/d/sub").as_ref(),
    );
    verbs.push(words(["which", "web:/d/sub/deep/f"]));
    verbs.push(words(["ls", "-l", "web:/d/sub"]));
    let (root, mut out) = (outside.at("root"), 0);
    while_swapped(&outside, places, &outside.targets(), |_| {
        let mut wrong = Vec::new();
        for verb in &verbs {
            let mut asked = words(["--root".as_ref(), root.as_os_str()]);
            asked.extend(verb.iter().cloned());
            let output = jsonl(&outside, &asked);
            wrong.extend(ill_end(verb, &output));
            wrong.extend(leaks(verb, &output));
        }
        out += 1;
        let to = outside.at(&format!("to-{out}"));
        fs::create_dir(&to).expect("our own");
        let asked = words([
            "--root".as_ref(),
            root.as_os_str(),
            "restore".as_ref(),
            "-r".as_ref(),
            "--to".as_ref(),
            to.as_os_str(),
            "--in".as_ref(),
            "web".as_ref(),
            "/d/sub/gone".as_ref(),
        ]);
        let output = jsonl(&outside, &asked);
        wrong.extend(ill_end(&asked, &output));
        wrong.extend(leaks(&asked, &output));
        wrong.extend(tree_leaks(&to));
        wrong
    });
}

/// The directories and records that an engine keeps may be links, but inside the root.
#[apply(test)]
fn of_an_engines_directories_never_lead_out_of_the_root() {
    needs::time();
    let outside = Outside::new();
    let mut store = Store::new("");
    fs::rename(&store.host.root, outside.at("root")).expect("our own");
    store.host = Host::existing(&outside.at("root"));
    let id = store.container("web", "");
    let places = [
        "overlay2".into(),
        "overlay2/web".into(),
        "overlay2/web/diff".into(),
        "overlay2/l".into(),
        "overlay2/web/lower".into(),
        "containers".into(),
        format!("containers/{id}"),
        format!("containers/{id}/config.v2.json"),
        "image/overlay2/layerdb".into(),
        format!("image/overlay2/layerdb/mounts/{id}"),
        format!("image/overlay2/layerdb/mounts/{id}/mount-id"),
        "image/overlay2/repositories.json".into(),
    ]
    .map(|path: String| store.at(&path));
    let mut targets = outside.targets();
    // Inside the root these are places of the host's, and may be.
    targets.retain(|target| target.starts_with(outside.home.path()) || target.starts_with("/proc"));
    targets.extend(outside.mount.as_ref().map(|shm| shm.path().join("diff")));
    let verbs = reading("web".as_ref(), "/new-web".as_ref(), upper("web").as_ref());
    let root = outside.at("root");
    while_swapped(&outside, places.to_vec(), &targets, |_| {
        let mut wrong = Vec::new();
        for verb in &verbs {
            let mut asked = words(["--root".as_ref(), root.as_os_str()]);
            asked.extend(verb.iter().cloned());
            let output = jsonl(&outside, &asked);
            wrong.extend(ill_end(verb, &output));
            wrong.extend(leaks(verb, &output));
        }
        wrong
    });
}

fn tree_leaks(tree: &Path) -> Option<String> {
    let leak = WalkDir::new(tree).into_iter().flatten().find(|entry| {
        has_canary(entry.file_name().as_bytes())
            || entry.file_type().is_file()
                && has_canary(&fs::read(entry.path()).unwrap_or_default())
    });
    leak.map(|entry| format!("{} is from outside", entry.path().display()))
}

/// On the running system, where links lead as far as they like.
#[apply(test)]
fn in_a_spelled_stack_are_followed_by_no_verb() {
    let outside = Outside::new();
    let (up, low) = (outside.at("layers/up"), outside.at("layers/low"));
    for layer in [&up, &low] {
        for path in ["d/f", "d/r", "d/sub/f", "d/sub/deep/f"] {
            let at = layer.join(path);
            fs::create_dir_all(at.parent().expect("below")).expect("our own");
            fs::write(at, "inside").expect("our own");
        }
    }
    for name in ["gone", "gone2", "gone3/x"] {
        let at = low.join("d/sub").join(name);
        fs::create_dir_all(at.parent().expect("below")).expect("our own");
        fs::write(at, "inside").expect("our own");
    }
    fs::write(outside.at("layers/CANARY-beside"), "").expect("our own");
    let stack = crate::lab::host::spelled(&[(&up, "rw"), (&low, "ro+wh")]);
    let places = [&up, &low]
        .iter()
        .flat_map(|layer| ["d", "d/sub", "d/sub/deep", "d/f"].map(|path| layer.join(path)))
        .collect();
    let on = |verb: &[&str], rest: &[&OsStr]| {
        let mut asked = words(verb);
        asked.extend(rest.iter().map(OsString::from));
        asked
    };
    let reading = [
        on(&["whiteouts", "--all-layers", "--"], &[&stack]),
        on(&["changes", "--long", "--"], &[&stack]),
        on(&["copyups", "--"], &[&stack]),
        on(&["check", "--"], &[&stack]),
        on(&["ls", "-R", "-l", "--in"], &[&stack, "/".as_ref()]),
        on(&["-v", "ls", "--in"], &[&stack, "/d/sub".as_ref()]),
        on(
            &["which", "--in"],
            &[
                &stack,
                "/d/sub/f".as_ref(),
                "/d/sub/deep/f".as_ref(),
                "/d/f".as_ref(),
                "/d/sub/gone".as_ref(),
            ],
        ),
    ];
    let layers = outside.at("layers");
    let mut out = 0;
    while_swapped(&outside, places, &outside.targets(), |is_swapped| {
        let mut wrong = Vec::new();
        for asked in &reading {
            let output = jsonl(&outside, asked);
            wrong.extend(ill_end(asked, &output));
            wrong.extend(leaks(asked, &output));
        }
        {
            // What this test makes must not itself go through a link.
            let _guard = is_swapped.lock().expect("no panic");
            for name in ["gone", "gone2", "gone3"] {
                let at = up.join("d/sub");
                let _ = fs::remove_file(at.join(name));
                let _ = fs::remove_dir_all(at.join(name));
                fs::write(at.join(format!(".wh.{name}")), "").expect("our own");
            }
            fs::write(up.join("d/r"), "changed").expect("our own");
        }
        out += 1;
        let to = outside.at(&format!("to-{out}"));
        fs::create_dir(&to).expect("our own");
        let restores = [
            on(&["restore", "--in"], &[&stack, "/d/sub/gone".as_ref()]),
            on(
                &["restore", "--strategy", "copy", "--in"],
                &[&stack, "/d/sub/gone2".as_ref()],
            ),
            on(
                &["restore", "--strategy", "copy", "-r", "--in"],
                &[&stack, "/d/sub/gone3".as_ref()],
            ),
            on(
                &["restore", "--revert", "--save"],
                &[to.as_os_str(), "--in".as_ref(), &stack, "/d/r".as_ref()],
            ),
            on(
                &["restore", "-r", "--to"],
                &[
                    to.as_os_str(),
                    "--in".as_ref(),
                    &stack,
                    "/d/sub/gone3".as_ref(),
                ],
            ),
        ];
        for asked in &restores {
            let output = jsonl(&outside, asked);
            wrong.extend(ill_end(asked, &output));
            wrong.extend(leaks(asked, &output));
        }
        wrong.extend(tree_leaks(&to));
        let _guard = is_swapped.lock().expect("no panic");
        wrong.extend(tree_leaks(&up).or_else(|| tree_leaks(&low)));
        let beside = fs::read_dir(&layers).expect("our own").count();
        wrong.extend((beside != 3).then(|| format!("{beside} names beside the layers")));
        wrong
    });
}
