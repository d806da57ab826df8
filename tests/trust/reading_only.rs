//! Nothing is written, and little has to be readable.

use super::*;
use crate::lab::needs;
use std::hash::{DefaultHasher, Hash, Hasher};

const NOBODY: u32 = 65534;

/// Everything below a root, the times of reading among it.
struct Trace {
    root: PathBuf,
    facts: BTreeMap<PathBuf, String>,
}

impl Trace {
    fn of(root: &Path) -> Trace {
        let paths: Vec<PathBuf> = WalkDir::new(root)
            .into_iter()
            .map(|entry| entry.expect("our own").into_path())
            .collect();
        for path in &paths {
            // Read before it was written, so that even `relatime` notes the next reading.
            let times = Timestamps {
                last_access: Timespec {
                    tv_sec: 1_000_000_000,
                    tv_nsec: 0,
                },
                last_modification: Timespec {
                    tv_sec: 0,
                    tv_nsec: UTIME_OMIT,
                },
            };
            utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).expect("our own");
        }
        let facts = paths.into_iter().map(|path| {
            let fact = fact(&path);
            (path, fact)
        });
        Trace {
            root: root.to_owned(),
            facts: facts.collect(),
        }
    }

    /// What is not as it was.
    fn changes(&self) -> Vec<String> {
        let differs = self.facts.iter().filter_map(|(path, before)| {
            let after = fact(path);
            (after != *before).then(|| format!("{}: {before}\n  now {after}", path.display()))
        });
        let mut changes: Vec<String> = differs.collect();
        // Only now: listing changes directories' times.
        let count = WalkDir::new(&self.root).into_iter().count();
        if count != self.facts.len() {
            changes.push(format!("{count} entries, not {}", self.facts.len()));
        }
        changes
    }
}

fn fact(path: &Path) -> String {
    let Ok(meta) = path.symlink_metadata() else {
        return "gone".into();
    };
    let mut hasher = DefaultHasher::new();
    if meta.is_file() {
        let flags = OFlags::RDONLY | OFlags::NOATIME | OFlags::CLOEXEC;
        let file = openat(CWD, path, flags, Mode::empty()).expect("our own");
        let mut content = Vec::new();
        File::from(file)
            .take(1 << 20)
            .read_to_end(&mut content)
            .expect("our own");
        content.hash(&mut hasher);
    } else if meta.is_symlink() {
        fs::read_link(path).expect("our own").hash(&mut hasher);
    }
    let mut names = vec![0; 4096];
    let length = llistxattr(path, &mut names[..]).unwrap_or(0);
    for name in names[..length]
        .split(|&byte| byte == 0)
        .filter(|name| !name.is_empty())
    {
        let mut value = vec![0; 4096];
        let length = lgetxattr(path, name, &mut value[..]).unwrap_or(0);
        (name, &value[..length]).hash(&mut hasher);
    }
    // Linux notes the reading of a link, and has no way to forbid it.
    let read = if meta.is_symlink() {
        0
    } else {
        meta.atime_nsec() + meta.atime() * 1_000_000_000
    };
    format!(
        "inode {} mode {:o} links {} owner {}:{} size {} blocks {} read {read} written {}.{} changed {}.{} content {:x}",
        meta.ino(),
        meta.mode(),
        meta.nlink(),
        meta.uid(),
        meta.gid(),
        meta.len(),
        meta.blocks(),
        meta.mtime(),
        meta.mtime_nsec(),
        meta.ctime(),
        meta.ctime_nsec(),
        hasher.finish()
    )
}

/// Puts a command into a mount namespace in which a directory is mounted read-only.
fn read_only(root: &Path) -> Command {
    let script = "mount --bind \"$1\" \"$1\" && mount -o remount,bind,ro \"$1\" || exit 97
        if mkdir \"$1/written\" 2>/dev/null; then exit 98; fi
        shift && exec \"$@\"";
    let mut command = bounded(Path::new("unshare"));
    command
        .args(["-m", "--propagation", "private", "sh", "-c", script, "sh"])
        .arg(root)
        .arg(env!("CARGO_BIN_EXE_layerctl"));
    command
}

#[apply(test)]
fn leaves_no_trace_and_needs_no_more_than_to_read() {
    needs::time();
    needs::captured_hosts();
    needs::mounts();
    let home = tempfile::tempdir().expect("a temporary directory");
    let program = home.path().join("layerctl");
    run::copy_program(env!("CARGO_BIN_EXE_layerctl"), &program);
    fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).expect("our own");
    let hosts = [
        ("docker-overlay2", "run-a"),
        ("containerd-kubernetes", "nat-run"),
        ("docker-fuse-overlayfs", "run-a"),
        ("podman-rootless-fuse-overlayfs", "run-a"),
        ("docker-29", "run-a"),
    ];
    all_right(&hosts, |&(name, target)| {
        let host = Host::captured(name);
        fs::set_permissions(&host.root, fs::Permissions::from_mode(0o755)).expect("our own");
        host.settle();
        let directory = OsString::from_vec(host.branches_of(target).remove(0));
        let trace = Trace::of(&host.root);
        let verbs = reading(target.as_ref(), "/etc/passwd".as_ref(), &directory);
        let mut wrong = Vec::new();
        let outputs: Vec<Output> = verbs.iter().map(|asked| ask(&host.root, asked)).collect();
        for (asked, output) in verbs.iter().zip(&outputs) {
            wrong.extend(ill_end(asked, output));
        }
        for (asked, before) in verbs.iter().zip(&outputs) {
            let output = run::run(
                read_only(&host.root)
                    .arg("--root")
                    .arg(&host.root)
                    .args(asked),
            );
            // An age in words is another one once its hour is over, so that the answer is to be
            // the one before or the one after.
            let is_answer = |answer: &Output| {
                (&output.stdout, output.status) == (&answer.stdout, answer.status)
            };
            if !is_answer(before) && !is_answer(&ask(&host.root, asked)) {
                wrong.push(format!(
                    "{asked:?} on a read-only mount: {:?} {}",
                    output.status, output.stderr
                ));
            }
        }
        wrong.extend(trace.changes().into_iter().take(5));
        // Others than the owner may not read without a trace, and need not read everything.
        for asked in verbs.iter().step_by(3) {
            let mut command = bounded(&program);
            command
                .current_dir("/")
                .uid(NOBODY)
                .gid(NOBODY)
                .arg("--root")
                .arg(&host.root)
                .args(asked);
            let why = ill_end(asked, &run::run(&mut command));
            wrong.extend(why.map(|why| format!("as an ordinary user {why}")));
        }
        wrong
            .into_iter()
            .map(|why| format!("{name}: {why}"))
            .collect()
    });
}

#[apply(test)]
fn no_verb_answers_nothing() {
    needs::time();
    all_right(&small_hosts(), |(host, target)| {
        let mut verbs = reading(OsStr::new(target), "/etc".as_ref(), "/var/lib".as_ref());
        // Without a target it is asked of what is mounted, which may be nothing.
        verbs.retain(|asked| *asked != words(["check"]));
        // There is no content of a directory, which is said.
        verbs.retain(|asked| asked[0] != "cat" && !is_refused(asked));
        let answers_nothing = |asked: &Words| {
            let output = ask(&host.root, asked);
            let is_empty = output.stdout.is_empty();
            is_empty.then(|| format!("{target} {asked:?} answers nothing: {}", output.stderr))
        };
        verbs.iter().filter_map(answers_nothing).collect()
    });
}

#[apply(test)]
fn needs_neither_proc_nor_sys() {
    needs::time();
    let mut hosts = small_hosts();
    hosts.retain(|(host, _)| host.at("/proc").exists() || host.at("/sys").exists());
    all_right(&hosts, |(host, target)| {
        let mut wrong = Vec::new();
        let before = host.jsonl(["containers"]);
        for missing in ["/sys", "/proc"] {
            if host.at(missing).exists() {
                fs::rename(host.at(missing), host.at(format!("{missing}-gone"))).expect("our own");
            }
            for asked in reading(
                OsStr::new(target),
                "/etc/passwd".as_ref(),
                "/var/lib".as_ref(),
            ) {
                wrong.extend(
                    ill_end(&asked, &ask(&host.root, &asked))
                        .map(|why| format!("without {missing} {why}")),
                );
            }
            // Neither has anything to do with what is on disk.
            let after = host.jsonl(["containers"]);
            let (before, after) = (before.rows(), after.rows());
            if texts(&before, "id") != texts(&after, "id") {
                wrong.push(format!(
                    "without {missing} there are {} containers, not {}",
                    after.len(),
                    before.len()
                ));
            }
        }
        wrong
    });
}
