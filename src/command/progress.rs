//! What a person sees who waits: what goes on, how much was looked at, and how fast.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use indicatif::{HumanCount, HumanDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};
use rustix::fs::FileType;

use crate::dir;
use crate::interrupt::Watch;
use crate::render::size::human;
use crate::rescue::packed::gone_by;

/// Work that is done sooner needs no word.
const PATIENCE: Duration = Duration::from_millis(500);
const TICK: Duration = Duration::from_millis(200);

/// About how many names are to be listed; 0 where nobody knows.
static EXPECTED: AtomicU64 = AtomicU64::new(0);

/// A file system has about so many names, and most of them are to be listed.
pub fn expect(names: u64) {
    EXPECTED.fetch_max(names, Ordering::Relaxed);
}

/// About how many bytes are to go by, all in all; 0 where nobody knows.
static BYTES: AtomicU64 = AtomicU64::new(0);

/// So many bytes are to be read beside those that were.
pub fn expect_bytes(bytes: u64) {
    let until_now = if bytes == 0 { 0 } else { gone_by() };
    BYTES.store(until_now.saturating_add(bytes), Ordering::Relaxed);
}

/// A line on a terminal's standard error, which tells how many names were listed, or how many bytes
/// were read.
pub struct Progress {
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
    /// The answer goes to a terminal, too, or to what may write there: it has no place for both.
    is_shy: bool,
}

impl Progress {
    /// Tells of a verb, once that takes long. On anything but a terminal nothing is told.
    pub fn of(verb: &'static str) -> Option<Progress> {
        if !io::stderr().is_terminal() {
            return None;
        }
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        let begun = Instant::now();
        let (end, ended) = mpsc::channel();
        let draw = move || {
            if ended.recv_timeout(PATIENCE) != Err(RecvTimeoutError::Timeout) {
                return;
            }
            let watch = Watch::start();
            let style = ProgressStyle::with_template("{spinner} {wide_msg}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
            bar.set_draw_target(ProgressDrawTarget::stderr());
            loop {
                bar.set_message(words(verb, begun.elapsed()));
                bar.tick();
                let wait = ended.recv_timeout(TICK);
                if wait != Err(RecvTimeoutError::Timeout) || watch.is_pressed() {
                    bar.finish_and_clear();
                    watch.end();
                    return;
                }
            }
        };
        let thread = thread::Builder::new().name("progress".into()).spawn(draw);
        Some(Progress {
            end: Some(end),
            thread: thread.ok(),
            is_shy: !goes_to_a_file(),
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

/// What goes on, how much was looked at, and how fast.
fn words(verb: &str, time: Duration) -> String {
    let bytes = gone_by();
    if bytes > 0 {
        let expected = BYTES.load(Ordering::Relaxed);
        return format!("{verb}: {}", of_bytes(bytes, expected, time));
    }
    let expected = EXPECTED.load(Ordering::Relaxed);
    format!("{verb}: {}", of_names(dir::names_listed(), expected, time))
}

/// How many names of those that are expected were listed, and how fast.
fn of_names(names: u64, expected: u64, time: Duration) -> String {
    let a_second = HumanCount(a_second(names, time));
    let of = match expected {
        0 => String::new(),
        expected => format!(" of about {}", HumanCount(expected)),
    };
    format!("{}{of} names, {a_second}/s", HumanCount(names))
}

fn a_second(amount: u64, time: Duration) -> u64 {
    let milliseconds = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    amount.saturating_mul(1000) / milliseconds.max(1)
}

/// How much of what is expected went by, how fast, and how long the rest takes.
fn of_bytes(bytes: u64, expected: u64, time: Duration) -> String {
    let a_second = a_second(bytes, time);
    let rate = format!("{}/s", human(a_second));
    // What is more than was expected tells nothing of what is left.
    match expected.checked_sub(bytes) {
        Some(left) if expected > 0 => {
            let left = HumanDuration(Duration::from_secs(left / a_second.max(1)));
            let (bytes, expected) = (human(bytes), human(expected));
            format!("{bytes} of about {expected}, {rate}, about {left} left")
        }
        _ => format!("{}, {rate}", human(bytes)),
    }
}

/// Whether the answer goes where nobody reads it yet.
fn goes_to_a_file() -> bool {
    let stdout = io::stdout();
    let kind = rustix::fs::fstat(&stdout).map(|stat| FileType::from_raw_mode(stat.st_mode));
    match kind {
        Ok(FileType::RegularFile) => true,
        Ok(FileType::CharacterDevice) => !stdout.is_terminal(),
        _ => false,
    }
}

/// An output before which a line of progress goes away.
pub struct Output<'o> {
    pub progress: Option<&'o mut Progress>,
    pub out: &'o mut dyn Write,
}

impl Write for Output<'_> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_a_rate_and_an_end() {
        let told = |bytes, expected| of_bytes(bytes, expected, Duration::from_secs(4));
        assert_eq!(
            told(200_000_000, 800_000_000),
            "200MB of about 800MB, 50MB/s, about 12 seconds left"
        );
        assert_eq!(told(200_000_000, 0), "200MB, 50MB/s");
        assert_eq!(told(200_000_000, 100_000_000), "200MB, 50MB/s");
        assert_eq!(told(0, 5), "0B of about 5B, 0B/s, about 5 seconds left");
    }

    #[test]
    fn what_is_expected_is_told() {
        let told = |expected| of_names(90_000, expected, Duration::from_secs(2));
        assert_eq!(told(0), "90,000 names, 45,000/s");
        assert_eq!(told(120_000), "90,000 of about 120,000 names, 45,000/s");
    }
}
