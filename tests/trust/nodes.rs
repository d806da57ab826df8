//! Nodes that must not be opened.

use super::*;
use crate::lab::needs;

/// Whether anything opened it, since the last time that this was asked.
struct Opened(OwnedFd);

impl Opened {
    fn of(paths: &[&Path]) -> Opened {
        let flags = CreateFlags::NONBLOCK | CreateFlags::CLOEXEC;
        let alarm = inotify::init(flags).expect("a kernel with inotify");
        for path in paths {
            inotify::add_watch(&alarm, *path, WatchFlags::OPEN).expect("a watch");
        }
        Opened(alarm)
    }

    fn take(&self) -> bool {
        let mut buffer = [0; 65536];
        rustix::io::read(&self.0, &mut buffer).is_ok_and(|length| length > 0)
    }
}

fn kinds() -> Vec<FileType> {
    let mut kinds = vec![FileType::Fifo, FileType::Socket];
    if is_root() {
        kinds.push(FileType::CharacterDevice);
    } else {
        in_part("only root makes devices");
    }
    kinds
}

/// An engine's files, and the kernel's.
fn records(host: &Host) -> Vec<PathBuf> {
    let mut of_kind = BTreeMap::new();
    for entry in WalkDir::new(&host.root) {
        let entry = entry.expect("our own");
        if entry.file_type().is_file() && is_record(entry.path()) {
            let kind = kind_of_record(entry.path());
            of_kind.entry(kind).or_insert(entry.into_path());
        }
    }
    of_kind.into_values().collect()
}

#[apply(test)]
fn in_place_of_an_engines_file_are_not_opened() {
    needs::time();
    let kinds = kinds();
    all_right(&small_hosts(), |(host, target)| {
        let verbs = [
            words(["info"]),
            words(["orphans"]),
            words(["history", target]),
        ];
        let mut wrong = Vec::new();
        for (index, at) in records(host).iter().enumerate() {
            let kept = at.with_extension("kept-by-the-test");
            fs::rename(at, &kept).expect("our own");
            // A fifo blocks whoever opens it; of the others each has its turn.
            for kind in [FileType::Fifo, kinds[index % kinds.len()]] {
                assert!(node(at, kind), "{}", at.display());
                let opened = Opened::of(&[at]);
                for asked in &verbs[index % 2..] {
                    let why = ill_end(asked, &ask(&host.root, asked));
                    wrong.extend(why.map(|why| format!("{} {why}", at.display())));
                }
                if opened.take() {
                    wrong.push(format!("{} was opened, a {kind:?}", at.display()));
                }
                fs::remove_file(at).expect("our own");
            }
            fs::rename(&kept, at).expect("our own");
        }
        wrong
    });
}

#[apply(test)]
fn in_a_layer_are_not_opened() {
    let store = Store::new("");
    store.container("web", "");
    let mut made = Vec::new();
    for layer in ["web", "top", "base"] {
        for kind in kinds() {
            for name in ["n", "d/n"] {
                let at = store.host.at(format!("{}/{name}-{kind:?}", upper(layer)));
                fs::create_dir_all(at.parent().expect("below")).expect("our own");
                assert!(node(&at, kind), "{}", at.display());
                made.push(at);
            }
        }
    }
    let opened = Opened::of(&made.iter().map(PathBuf::as_path).collect::<Vec<_>>());
    let inside = format!("{}/n-Fifo", upper("web"));
    let mut wrong = Vec::new();
    for asked in reading("web".as_ref(), "/d/n-Fifo".as_ref(), inside.as_ref()) {
        let output = ask(&store.host.root, &asked);
        wrong.extend(ill_end(&asked, &output));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(!opened.take(), "one of them was opened");
    File::options()
        .read(true)
        .write(true)
        .open(&made[0])
        .expect("a pipe of our own");
    if !opened.take() {
        skip_everywhere("this kernel does not tell who opens a fifo");
    }
}

/// A file is looked at before it is opened, and may be another one by then.
#[apply(test)]
fn that_take_a_files_place_are_not_opened() {
    needs::time();
    let home = tempfile::tempdir().expect("a temporary directory");
    let (up, low) = (home.path().join("up"), home.path().join("low"));
    for layer in [&up, &low] {
        fs::create_dir(layer).expect("our own");
        for index in 0..40 {
            fs::write(layer.join(format!("f{index}")), "x".repeat(3)).expect("our own");
        }
    }
    let (place, spare) = (up.join("f20"), home.path().join("fifo"));
    assert!(node(&spare, FileType::Fifo));
    let opened = Opened::of(&[&spare]);
    let stack = crate::lab::host::spelled(&[(&up, "rw"), (&low, "ro+wh")]);
    let is_over = AtomicBool::new(false);
    let asked = words(["copyups".as_ref(), "--".as_ref(), stack.as_os_str()]);
    let mut wrong = Vec::new();
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                renameat_with(CWD, &place, CWD, &spare, RenameFlags::EXCHANGE).expect("our own");
            }
        });
        for _ in 0..150 {
            let output = run::run(layerctl().args(&asked));
            wrong.extend(ill_end(&asked, &output));
            if opened.take() {
                wrong.push("a fifo was opened that took a file's place".into());
                break;
            }
        }
        is_over.store(true, Ordering::Relaxed);
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
