//! Which threads wait for the kernel's next request.
//!
//! The kernel wakes those that wait one after the other, each on another processor and with nothing in
//! its cache. One thread that is quick enough answers for a third less. So a thread that has answered steps aside
//! while another waits, and comes back when requests are left waiting: that one is held up, by a slow
//! disk, or has more to answer than it can.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// How often a thread that stands aside looks whether it is needed.
const LOOK: Duration = Duration::from_millis(2);
/// How often in sequence a request has to be left waiting before it is.
const LOOKS: usize = 2;
/// How long it stands aside at most.
const ASIDE: Duration = Duration::from_millis(200);

/// The threads that answer for a mount.
pub struct Turns {
    /// Where the kernel asks; none before that is known.
    device: Option<OwnedFd>,
    /// How many wait for requests.
    waiting: AtomicUsize,
}

/// A request that is being answered.
pub struct Turn<'t>(&'t Turns);

impl Turns {
    /// Of so many threads, all of which wait.
    pub fn of(threads: usize, device: Option<OwnedFd>) -> Turns {
        let waiting = AtomicUsize::new(threads);
        Turns { device, waiting }
    }

    /// A thread has a request.
    pub fn begin(&self) -> Turn<'_> {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        Turn(self)
    }

    fn is_another_waiting(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// What there is to be done where the kernel asks.
    fn left(&self) -> Left {
        let Some(device) = &self.device else {
            return Left::End;
        };
        let mut asked = [PollFd::new(device, PollFlags::IN)];
        match poll(&mut asked, Some(&Timespec::default())) {
            Ok(0) => Left::Nothing,
            Ok(_) if asked[0].revents() == PollFlags::IN => Left::Request,
            _ => Left::End,
        }
    }
}

/// What is left to a thread that stands aside.
enum Left {
    Nothing,
    /// A request that nobody has taken.
    Request,
    /// The mount has ended: that is told to who waits.
    End,
}

impl Drop for Turn<'_> {
    /// The thread has answered, and is about to wait for the next request.
    fn drop(&mut self) {
        if self.0.is_another_waiting() {
            let began = Instant::now();
            let mut looks = 0;
            while looks < LOOKS && began.elapsed() < ASIDE {
                thread::sleep(LOOK);
                looks = match self.0.left() {
                    Left::Nothing => 0,
                    Left::Request => looks + 1,
                    Left::End => break,
                };
            }
        }
        self.0.waiting.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    /// Turns of threads that are asked through a socket, and its other end.
    fn asked(threads: usize) -> (Turns, UnixStream) {
        let (ours, kernels) = UnixStream::pair().expect("a socket");
        (Turns::of(threads, Some(ours.into())), kernels)
    }

    /// How long a thread that has answered stands aside.
    fn aside(turns: &Turns) -> Duration {
        let turn = turns.begin();
        let began = Instant::now();
        drop(turn);
        began.elapsed()
    }

    #[test]
    fn a_thread_stands_aside_while_another_waits() {
        let (turns, _kernel) = asked(2);
        assert!(aside(&turns) >= ASIDE);
        // Held up with a request of its own, the other does not wait.
        let other = turns.begin();
        let alone = aside(&turns);
        assert!(alone < ASIDE, "{alone:?}");
        drop(other);
        let (alone, _kernel) = asked(1);
        assert!(aside(&alone) < ASIDE);
    }

    #[test]
    fn it_comes_back_for_a_request_that_nobody_takes() {
        let (turns, mut kernel) = asked(2);
        std::io::Write::write_all(&mut kernel, b"?").expect("room for a byte");
        let stood = aside(&turns);
        assert!((2 * LOOK..ASIDE).contains(&stood), "{stood:?}");
    }

    #[test]
    fn it_comes_back_when_the_mount_has_ended() {
        let (turns, kernel) = asked(2);
        drop(kernel);
        assert!(aside(&turns) < ASIDE);
    }
}
