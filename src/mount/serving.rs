//! A mount from its beginning to its end: threads, signals, a background.
//!
//! ```text
//! layerctl mount web /mnt          finds the union, starts itself again, waits for a word, ends
//!   layerctl mount web /mnt        a session of its own: opens the union, mounts it, says the word,
//!                                  answers the kernel until it is unmounted
//! ```
//!
//! The word comes through standard output, once the kernel has had an answer from the mount.

use std::io::{Read, Write};
use std::num::NonZeroUsize;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::thread::{self, JoinHandle};

use fuser::{Config, Session, SessionACL};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::attach::{Allowed, When, attach, detach};
use super::server::Server;
use super::turns::Turns;
use crate::bytes::Bytes;
use crate::dir::Dir;
use crate::error::{Error, Result, errno_of};

/// How many requests are answered at once: as many as there are processors, within these. One slow
/// disk is to keep nobody else waiting. Those that are not needed stand aside ([`Turns`]).
const THREADS: std::ops::RangeInclusive<usize> = 2..=8;
/// Set for the process in the background.
const IS_SERVER: &str = "_LAYERCTL_MOUNT_SERVER";
/// What the one in the background says when its mount has answered.
const READY: &[u8] = b"mounted\n";

/// A mount that is answered for.
pub struct Serving(JoinHandle<std::io::Result<()>>);

/// Mounts a view at a directory, and answers for it. It has answered once when this returns.
///
/// # Errors
/// It cannot be mounted.
pub fn serve(
    server: Server,
    (dir, path): (&Dir, &Bytes),
    source: &[u8],
    allowed: Allowed,
) -> Result<Serving> {
    let device = attach(dir, path, source, allowed)?;
    let mut config = Config::default();
    let processors = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let threads = processors.clamp(*THREADS.start(), *THREADS.end());
    config.n_threads = Some(threads);
    let fail = |error: std::io::Error| Error::io(path.clone(), errno_of(&error));
    let turns = Turns::of(threads, Some(device.try_clone().map_err(fail)?));
    // Whom the kernel lets in has its permission already.
    let session =
        Session::from_fd(server.by(turns), device, SessionACL::All, config).map_err(fail)?;
    let point = path.clone();
    end_by_signals(point).map_err(fail)?;
    let name = thread::Builder::new().name("mount".into());
    let answering = name.spawn(move || session.run()).map_err(fail)?;
    match rustix::fs::stat(path.as_bytes()) {
        Ok(_) => Ok(Serving(answering)),
        Err(errno) => {
            let _ = detach(path, None, When::Unused);
            Err(Error::io(path.clone(), errno))
        }
    }
}

impl Serving {
    /// Answers until the mount has gone.
    ///
    /// # Errors
    /// The kernel takes no more answers.
    pub fn wait(self, path: &Bytes) -> Result<()> {
        let ended = self.0.join();
        let ended = ended.unwrap_or_else(|_| Err(std::io::ErrorKind::Other.into()));
        ended.map_err(|error| Error::io(path.clone(), errno_of(&error)))
    }
}

/// Whoever ends the process ends the mount: what would be left is a directory that nobody answers
/// for. The first time it waits for those who are in it.
fn end_by_signals(path: Bytes) -> std::io::Result<()> {
    let (mut heard, told) = UnixStream::pair()?;
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::low_level::pipe::register(signal, told.try_clone()?)?;
    }
    let name = thread::Builder::new().name("signals".into());
    name.spawn(move || {
        let mut byte = [0];
        while heard.read_exact(&mut byte).is_ok() {
            if detach(&path, None, When::Now).is_err() {
                let _ = detach(&path, None, When::Unused);
            }
        }
    })?;
    Ok(())
}

// ---- the background ----

/// Whether this process was started to be in the background.
pub fn is_server() -> bool {
    std::env::var_os(IS_SERVER).is_some()
}

/// Starts this program with its arguments once more, and waits until its mount answers.
///
/// # Errors
/// It cannot be started; what it says went wrong.
pub fn start() -> Result<()> {
    raise_limit();
    let mut command = Command::new("/proc/self/exe");
    command
        .arg0("layerctl")
        .args(std::env::args_os().skip(1))
        .env(IS_SERVER, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let fail = |error: std::io::Error| Error::io("/proc/self/exe", errno_of(&error));
    let mut server = command.spawn().map_err(fail)?;
    let mut said = Vec::new();
    if let Some(mut out) = server.stdout.take() {
        out.read_to_end(&mut said).map_err(fail)?;
    }
    if said == READY {
        return Ok(());
    }
    // It has ended, or is about to.
    let _ = server.wait();
    let words = String::from_utf8_lossy(&said);
    let (what, hint) = words.split_once('\n').unwrap_or((&words, ""));
    Err(Error::Refused {
        what: match what {
            "" => "the process that was to answer for the mount ended before it did".into(),
            what => what.to_owned(),
        },
        hint: hint.trim_end().to_owned(),
    })
}

/// Many directories are open at once. The limit that programs begin with is for those that cannot
/// take more.
fn raise_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    let _ = setrlimit(Resource::Nofile, raised);
}

/// Leaves the terminal that the one who waits was started from.
pub fn leave() {
    let _ = rustix::process::setsid();
}

/// Tells the one who waits that the mount answers, and has nothing more to say to anybody.
///
/// # Errors
/// Nobody waits any more.
pub fn tell_ready() -> Result<()> {
    let fail = |error: std::io::Error| Error::io("/dev/stdout", errno_of(&error));
    let mut out = std::io::stdout();
    out.write_all(READY)
        .and_then(|()| out.flush())
        .map_err(fail)?;
    let _ = rustix::process::chdir("/");
    be_silent(true);
    Ok(())
}

/// What is written from now on goes nowhere: to standard error, and to standard output where that is
/// over, too.
fn be_silent(is_over: bool) {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let Ok(null) = rustix::fs::open("/dev/null", flags, Mode::empty()) else {
        return;
    };
    let _ = rustix::stdio::dup2_stderr(&null);
    if is_over {
        let _ = rustix::stdio::dup2_stdout(&null);
    }
}

/// Tells the one who waits what went wrong.
pub fn tell_failure(error: &Error) {
    let mut out = std::io::stdout();
    let hint = error.hint().unwrap_or_default();
    let _ = writeln!(out, "{error}\n{hint}");
    // The one who waits says it.
    be_silent(false);
}
