//! What a person sees who waits: what goes on, how much was looked at, and how fast.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::dir;

/// Work that is done sooner needs no word.
const PATIENCE: Duration = Duration::from_millis(500);
const TICK: Duration = Duration::from_millis(200);

/// About how many names are to be listed; 0 where nobody knows.
static EXPECTED: AtomicU64 = AtomicU64::new(0);

/// A file system has about so many names, and most of them are to be listed.
pub fn expect(names: u64) {
    EXPECTED.fetch_max(names, Ordering::Relaxed);
}

/// A line on a terminal's standard error, which tells how many names were listed.
pub struct Progress {
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
    /// The answer goes to a terminal, too, which has no place for both.
    is_shy: bool,
}

impl Progress {
    /// Tells of a verb, once that takes long. On anything but a terminal nothing is told.
    pub fn of(verb: &'static str) -> Option<Progress> {
        if !io::stderr().is_terminal() {
            return None;
        }
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        bar.set_message(verb);
        let (end, ended) = mpsc::channel();
        let draw = move || {
            let mut wait = PATIENCE;
            while ended.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
                if bar.is_hidden() {
                    let expected = EXPECTED.load(Ordering::Relaxed);
                    bar.set_style(style(expected > 0));
                    bar.set_length(expected);
                    bar.set_draw_target(ProgressDrawTarget::stderr());
                }
                bar.set_position(dir::names_listed());
                wait = TICK;
            }
            bar.finish_and_clear();
        };
        let thread = thread::Builder::new().name("progress".into()).spawn(draw);
        Some(Progress {
            end: Some(end),
            thread: thread.ok(),
            is_shy: io::stdout().is_terminal(),
        })
    }

    /// Ends, and takes its line away.
    pub fn end(&mut self) {
        self.end.take();
        if let Some(thread) = self.thread.take() {
            // It draws, and has nothing to say of how it ended.
            let _ = thread.join();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.end();
    }
}

fn style(is_known: bool) -> ProgressStyle {
    let template = if is_known {
        "{spinner} {msg}: {human_pos} of about {human_len} names, {per_sec}"
    } else {
        "{spinner} {msg}: {human_pos} names, {per_sec}"
    };
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}

/// An output before which a line of progress goes away.
pub struct Shown<'o> {
    pub progress: Option<&'o mut Progress>,
    pub out: &'o mut dyn Write,
}

impl Write for Shown<'_> {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        if let Some(progress) = self.progress.take_if(|progress| progress.is_shy) {
            progress.end();
        }
        self.out.write(text)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
