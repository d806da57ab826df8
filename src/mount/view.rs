//! A stack that is looked at for long.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::places::{Places, Shows};
use crate::union::Stack;

/// How long what a writable branch may change is taken for what it is.
pub const FRESH: Duration = Duration::from_secs(1);
/// The same of what nobody writes to: as long as a mount lasts.
const FOR_EVER: Duration = Duration::from_secs(u32::MAX as u64);

/// A stack that is looked at until the process ends.
pub struct View {
    pub stack: &'static Stack,
    pub shows: Shows,
    /// Which of the mount's views it is: one inode in two of them is two.
    pub number: u32,
    /// The devices of the branches, topmost first, each once.
    devices: Vec<u64>,
    /// When it was last looked for the branches, and whether they were there.
    looked: Mutex<Option<(Instant, Result<(), Errno>)>>,
}

impl View {
    /// A view of a stack. It is kept until the process ends: the kernel may ask until then.
    pub fn new(stack: Stack, shows: Shows, number: u32) -> View {
        let stack: &'static Stack = Box::leak(Box::new(stack));
        let mut devices = Vec::new();
        for dir in stack.branches.iter().filter_map(|of| of.dir.as_ref().ok()) {
            if let Ok(stat) = dir.stat_self()
                && !devices.contains(&stat.dev)
            {
                devices.push(stat.dev);
            }
        }
        View {
            stack,
            shows,
            number,
            devices,
            looked: Mutex::new(None),
        }
    }

    /// Whether somebody may change what it shows.
    pub fn is_writable(&self) -> bool {
        self.stack.writable().is_some()
    }

    /// How long the kernel may take an answer for what is.
    pub fn lasts(&self) -> Duration {
        if self.is_writable() { FRESH } else { FOR_EVER }
    }

    /// Whether something that was looked at then is to be looked at again.
    pub fn is_over(&self, looked: Instant) -> bool {
        self.is_writable() && looked.elapsed() >= FRESH
    }

    /// The root, as it is now.
    pub fn root(&self) -> Places {
        Places::root(self.stack, self.shows)
    }

    /// Sees that the branches still have their places. What is removed beneath looks like something
    /// emptied, and nothing in a branch tells the one from the other. It is looked for once in
    /// [`FRESH`].
    ///
    /// # Errors
    /// `ESTALE` where one has not; what the system calls say.
    pub fn check(&self) -> Result<(), Errno> {
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((when, found)) = *looked
            && when.elapsed() < FRESH
        {
            return found;
        }
        let dirs = self.stack.branches.iter();
        let mut dirs = dirs.filter_map(|branch| branch.dir.as_ref().ok());
        let found = dirs.try_for_each(|dir| match dir.is_at_its_path() {
            Ok(true) => Ok(()),
            Ok(false) => Err(Errno::STALE),
            Err(errno) => Err(errno),
        });
        *looked = Some((Instant::now(), found));
        found
    }

    /// The number that something would have as an inode: its own where all is on one device, as an
    /// overlay has it. Two things may be given one number; [`Inodes`](super::inodes::Inodes) tells
    /// them apart.
    pub fn number_of(&self, (device, inode): (u64, u64)) -> u64 {
        let at = self.devices.iter().position(|&of| of == device);
        let device = match at {
            Some(at) => at as u64,
            None => device.rotate_left(32) | 1 << 63,
        };
        let seed = device.rotate_left(20) ^ u64::from(self.number);
        if seed == 0 {
            inode
        } else {
            inode ^ mixed(seed)
        }
    }
}

/// A number that has nothing to do with another, but is always the same: the finalizer of
/// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
pub fn mixed(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ number >> 31
}
