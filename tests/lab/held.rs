//! Programs that are held at a moment of their own, however fast or busy the machine is.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// Between two looks at what nothing tells of.
const LOOK: Duration = Duration::from_millis(2);

/// A program that strace has stopped after a system call.
pub struct Held {
    strace: Child,
    held: Pid,
    _home: TempDir,
}

impl Held {
    /// Runs a command until its first call of that name is done. It needs strace.
    pub fn after(call: &str, inner: &Command) -> Held {
        let held = Held::after_each(call, 1, inner);
        held.unwrap_or_else(|ended| panic!("it ended without {call}: {ended}"))
    }

    /// The same for its call of that number, counted from 1; how it ended if it made no such.
    pub fn after_each(call: &str, number: usize, inner: &Command) -> Result<Held, ExitStatus> {
        let home = tempfile::tempdir().expect("a temporary directory");
        let log = home.path().join("log");
        let what = format!("signal=STOP:when={number}");
        let mut strace = injecting(call, &what, &log, inner)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("strace is installed");
        let held = loop {
            if let Some(held) = stopped(&log) {
                break held;
            }
            if let Some(ended) = strace.try_wait().expect("our child") {
                return Err(ended);
            }
            thread::sleep(LOOK);
        };
        Ok(Held {
            strace,
            held,
            _home: home,
        })
    }

    /// Lets it go on, to its end.
    pub fn let_go(mut self) -> ExitStatus {
        kill_process(self.held, Signal::CONT).expect("it is held");
        self.strace.wait().expect("our child")
    }
}

/// Who stopped, as strace tells: `PID --- stopped by SIGSTOP ---`.
fn stopped(log: &PathBuf) -> Option<Pid> {
    let text = fs::read_to_string(log).ok()?;
    let line = text.lines().find(|line| line.contains("stopped by"))?;
    let pid = line.split_whitespace().next()?.parse().ok()?;
    Pid::from_raw(pid)
}

/// Lets strace stop a program at the calls that it is to trace, and at no other. Not for calls that it
/// does something to: a program in a process namespace of its own was not killed then.
pub const ONLY_THESE: &str = "--seccomp-bpf";

/// A command under strace, which writes what it sees to `log`.
pub fn traced(options: &[&str], log: &Path, inner: &Command) -> Command {
    let mut strace = Command::new("strace");
    strace.arg("-f").arg("-o").arg(log).args(options);
    under(strace, inner)
}

/// A command under strace that does something to some calls: kills before the first `unlinkat`, say,
/// with `signal=KILL:when=1`. What strace tells of them goes to `log`.
pub fn injecting(calls: &str, what: &str, log: &Path, inner: &Command) -> Command {
    let trace = format!("trace={calls}");
    let inject = format!("inject={calls}:{what}");
    traced(&["-e", &trace, "-e", &inject], log, inner)
}

/// Runs such a command.
pub fn injected(calls: &str, what: &str, log: &Path, inner: &Command) -> Output {
    let output = injecting(calls, what, log, inner).output();
    output.expect("strace is installed")
}

/// Kills a command before its call of that number, counted from 1. It succeeds if it has no such.
pub fn killed_at(call: &str, number: usize, inner: &Command) -> Output {
    let what = format!("signal=KILL:when={number}");
    injected(call, &what, Path::new("/dev/null"), inner)
}

/// A command run by another.
pub fn under(mut outer: Command, inner: &Command) -> Command {
    outer.arg(inner.get_program()).args(inner.get_args());
    if let Some(dir) = inner.get_current_dir() {
        outer.current_dir(dir);
    }
    outer
}

/// Returns once a child has ended, or waits for a lock that somebody else has: it looks for it now
/// and then, and sleeps.
pub fn until_it_waits_or_ends(child: &mut Child) {
    let asleep = format!("/proc/{}/wchan", child.id());
    let is_waiting = || fs::read_to_string(&asleep).is_ok_and(|call| call.contains("nanosleep"));
    while child.try_wait().expect("our child").is_none() && !is_waiting() {
        thread::sleep(LOOK);
    }
}
