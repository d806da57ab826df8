//! What an engine could not read. An unreadable part is not an empty part.
//!
//! Who asks an engine keeps the list, and the engine has a handle of it: so nothing that it notes
//! can be forgotten there.

use std::cell::RefCell;
use std::rc::Rc;

use rustix::io::Errno;

use crate::bytes::Bytes;
use crate::error::{Error, Result};
use crate::host::Host;

/// A handle of a list of problems. A clone is a handle of the same list.
#[derive(Debug, Clone, Default)]
pub struct Problems {
    noted: Rc<RefCell<Vec<(u8, Error)>>>,
    /// Problems of a lower rank are told first.
    rank: u8,
}

/// Something that was read once, and what could not be read of it.
#[derive(Debug, Clone)]
pub struct Kept<T> {
    value: T,
    problems: Vec<Error>,
}

impl<T> Kept<T> {
    /// What was read, and what could not be read of it.
    pub fn new(value: T, problems: Vec<Error>) -> Kept<T> {
        Kept { value, problems }
    }
}

impl Problems {
    /// A handle of the same list for an engine within this one. What it notes is told last.
    pub fn of_inner(&self) -> Problems {
        Problems {
            noted: Rc::clone(&self.noted),
            rank: self.rank + 1,
        }
    }

    pub fn note(&self, error: Error) {
        self.noted.borrow_mut().push((self.rank, error));
    }

    /// What is read once, with what could not be read of it: that concerns whoever asks, the last as
    /// the first. In between, the list may have been emptied.
    pub fn keep<T>(&self, read: impl FnOnce() -> T) -> Kept<T> {
        let before = self.noted.take();
        let value = read();
        let own = self.noted.replace(before);
        let problems = own.iter().map(|(_, error)| error.clone()).collect();
        self.noted.borrow_mut().extend(own);
        Kept::new(value, problems)
    }

    /// What was read once, with its problems noted.
    pub fn tell<'k, T>(&self, kept: &'k Kept<T>) -> &'k T {
        kept.problems
            .iter()
            .for_each(|error| self.note_again(error));
        &kept.value
    }

    /// Notes once more what was read once, unless nobody has taken it since.
    pub fn note_again(&self, error: &Error) {
        let is_noted = |noted: &[(u8, Error)]| {
            let words = error.to_string();
            noted.iter().any(|(_, known)| known.to_string() == words)
        };
        if !is_noted(&self.noted.borrow()) {
            self.note(error.clone());
        }
    }

    /// What was read, where it is there. That something is not there is no problem.
    pub fn unless_absent<T>(&self, read: Result<T>) -> Option<T> {
        match read {
            Ok(read) => Some(read),
            Err(error) => {
                self.note_unless_absent(error);
                None
            }
        }
    }

    /// Notes an error, but that something is not there.
    pub fn note_unless_absent(&self, error: Error) {
        if !error.is_not_found() {
            self.note(error);
        }
    }

    /// The text of a file that somebody configures something in. One that is not there says
    /// nothing, nor does one that is masked: a link to `/dev/null`.
    pub fn text_of(&self, host: &Host, path: &Bytes) -> Option<String> {
        let read = match host.read(path) {
            Err(Error::Io { errno, .. })
                if errno == Errno::INVAL
                    && host
                        .resolve(path)
                        .is_ok_and(|of| of.as_bytes() == b"/dev/null") =>
            {
                return None;
            }
            read => read,
        };
        let text = read.and_then(|bytes| {
            String::from_utf8(bytes).map_err(|_| Error::damaged(path.clone(), "is not text"))
        });
        self.unless_absent(text)
    }

    /// How many problems are on the list.
    pub fn count(&self) -> usize {
        self.noted.borrow().len()
    }

    /// Empties the list.
    pub fn take(&self) -> Vec<Error> {
        let mut noted = self.noted.take();
        noted.sort_by_key(|(rank, _)| *rank);
        noted.into_iter().map(|(_, error)| error).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_for_what_was_read_once_is_told_what_could_not_be_read() {
        let problems = Problems::default();
        problems.note(Error::damaged("/", "before"));
        let kept = problems.keep(|| {
            problems.note(Error::damaged("/", "own"));
            7
        });
        assert_eq!(*problems.tell(&kept), 7);
        assert_eq!(problems.take().len(), 2, "it is told once");
        assert_eq!(*problems.tell(&kept), 7);
        let told = problems.take();
        assert_eq!(told.len(), 1);
        assert!(told[0].to_string().contains("own"));
    }

    #[test]
    fn what_an_inner_engine_notes_is_told_last_and_once() {
        let outer = Problems::default();
        let inner = outer.of_inner();
        for (problems, what) in [(&inner, "c"), (&outer, "a"), (&inner, "d"), (&outer, "b")] {
            problems.note(Error::damaged("/", what));
        }
        assert_eq!((outer.count(), inner.count()), (4, 4));
        let told = outer.take();
        let ends: Vec<_> = told.iter().map(|of| of.to_string().pop()).collect();
        assert_eq!(ends, ["a", "b", "c", "d"].map(|end| end.chars().next()));
        assert!(inner.take().is_empty());
    }
}
