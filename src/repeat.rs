//! The same again and again, until somebody asks for an end.

use std::io::{self, Read};
use std::ops::ControlFlow;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::low_level::pipe;

use crate::interrupt::Interrupt;

/// Calls `round` at once and then every `period`, until it says that it is enough or the program is
/// asked to end (Ctrl-C, SIGTERM). A round that takes longer than a period is followed by the next
/// one that is due: none is made up for.
///
/// # Errors
/// Nobody could ask for an end.
pub fn every<B>(
    period: Duration,
    mut round: impl FnMut() -> ControlFlow<B>,
) -> io::Result<Option<B>> {
    let asked = Interrupt::catch_end();
    let (mut end, told) = UnixStream::pair()?;
    for signal in [SIGINT, SIGTERM] {
        pipe::register(signal, told.try_clone()?)?;
    }
    let begun = Instant::now();
    loop {
        let done = round();
        if asked.is_pressed() {
            return Ok(None);
        }
        if let ControlFlow::Break(why) = done {
            return Ok(Some(why));
        }
        if is_told_within(&mut end, until_due(begun.elapsed(), period))? {
            return Ok(None);
        }
    }
}

/// Waits for somebody to ask for an end. Any signal may break a wait off, which then goes on; that of
/// one who asks has left a byte.
fn is_told_within(end: &mut UnixStream, wait: Duration) -> io::Result<bool> {
    let begun = Instant::now();
    loop {
        let left = wait.saturating_sub(begun.elapsed());
        if left.is_zero() {
            return Ok(false);
        }
        end.set_read_timeout(Some(left))?;
        match end.read(&mut [0]) {
            Ok(_) => return Ok(true),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// How long until the next round is due; never nothing, which a time-out could not be.
fn until_due(elapsed: Duration, period: Duration) -> Duration {
    let period = period.as_nanos().max(1);
    let rest = period - elapsed.as_nanos() % period;
    Duration::from_nanos(u64::try_from(rest).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_are_due_by_the_clock() {
        let seconds = Duration::from_secs;
        for (elapsed, wait) in [(0, 10), (3, 7), (10, 10), (25, 5)] {
            assert_eq!(until_due(seconds(elapsed), seconds(10)), seconds(wait));
        }
    }

    #[test]
    fn what_took_too_long_is_not_made_up_for() {
        let begun = Instant::now();
        let mut starts = Vec::new();
        let ended = every(Duration::from_millis(100), || {
            starts.push(begun.elapsed());
            if starts.len() == 1 {
                std::thread::sleep(Duration::from_millis(250));
            }
            match starts.len() {
                3 => ControlFlow::Break("enough"),
                _ => ControlFlow::Continue(()),
            }
        });
        assert_eq!(ended.unwrap(), Some("enough"));
        assert!(starts[1] >= Duration::from_millis(300), "{starts:?}");
        assert!(starts[2] >= Duration::from_millis(400), "{starts:?}");
    }
}
