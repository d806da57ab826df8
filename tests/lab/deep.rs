//! Trees too deep for their paths.

use std::fs;
use std::os::fd::AsFd;
use std::path::PathBuf;

use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};

/// Directories one in the other, too deep to be made or removed by their path.
pub struct Deep {
    at: PathBuf,
    name: String,
}

impl Deep {
    pub fn make(at: PathBuf, levels: usize) -> Deep {
        Deep::make_with(at, levels, "d", &[])
    }

    /// With files beside each.
    pub fn make_with(at: PathBuf, levels: usize, name: &str, files: &[&str]) -> Deep {
        fs::create_dir_all(&at).expect("our own");
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let mut inner = openat(CWD, &at, flags, Mode::empty()).expect("our own");
        for _ in 0..levels {
            mkdirat(&inner, name, Mode::RWXU).expect("our own");
            inner = openat(inner.as_fd(), name, flags, Mode::empty()).expect("our own");
            for file in files {
                let flags = OFlags::CREATE | OFlags::WRONLY;
                openat(&inner, *file, flags, Mode::RUSR).expect("our own");
            }
        }
        let name = name.to_owned();
        Deep { at, name }
    }
}

impl Drop for Deep {
    /// From the top, level by level: `remove_dir_all` opens a file for each of them.
    fn drop(&mut self) {
        let (outer, inner) = (self.at.join(&self.name), self.at.join("inner"));
        while fs::rename(outer.join(&self.name), &inner).is_ok() {
            fs::remove_dir_all(&outer).expect("only files now");
            fs::rename(&inner, &outer).expect("our own");
        }
    }
}
