//! [`Node::child`]: the one place that decides what a name means.

use super::entry::{Entry, Question, Says};
use super::merger::Merger;
use super::node::{Expected, Node};
use super::{aufs, overlay};
use crate::error::Result;
use crate::whiteout::{MarkKind, Seen};

impl<'s> Node<'s> {
    /// What `name` means here. This is the one place that decides it.
    ///
    /// # Errors
    /// A branch that cannot be asked. The answer is then not known, whatever other branches say.
    pub fn child(&self, name: &[u8]) -> Result<Entry<'s>> {
        self.decide(&Question::new(name), &mut |_, _| ())
    }

    /// The same of a name that is most likely a directory's.
    ///
    /// # Errors
    /// As [`Node::child`].
    pub fn child_directory(&self, name: &[u8]) -> Result<Entry<'s>> {
        let question = Question {
            expected: Expected::Directory,
            ..Question::new(name)
        };
        self.decide(&question, &mut |_, _| ())
    }

    /// The same of a name that was looked at in a branch's own directory here ([`Node::look`]).
    ///
    /// # Errors
    /// As [`Node::child`].
    pub fn child_seen(&self, name: &[u8], branch: usize, seen: Option<Seen>) -> Result<Entry<'s>> {
        let question = Question {
            seen: seen.map(|seen| (branch, seen)),
            ..Question::new(name)
        };
        self.decide(&question, &mut |_, _| ())
    }

    /// What `name` would mean if one mark on it were removed: the whiteout of it in `branch`, or
    /// the opaque mark of the directory that it is there. `seen` is what was seen there of the name.
    ///
    /// # Errors
    /// As [`Node::child`].
    pub fn child_without_mark(
        &self,
        name: &[u8],
        branch: usize,
        kind: MarkKind,
        seen: Option<Seen>,
    ) -> Result<Entry<'s>> {
        let question = Question {
            without: Some((branch, kind)),
            seen: seen.map(|seen| (branch, seen)),
            ..Question::new(name)
        };
        self.decide(&question, &mut |_, _| ())
    }

    /// [`Node::child`], and each branch's verdict as it was heard.
    ///
    /// # Errors
    /// As [`Node::child`].
    pub(super) fn child_with_trail(
        &self,
        name: &[u8],
        expected: Expected,
    ) -> Result<(Entry<'s>, Vec<(usize, Says)>)> {
        let mut trail: Vec<(usize, Says)> = Vec::new();
        let question = Question {
            expected,
            ..Question::new(name)
        };
        let entry = self.decide(&question, &mut |branch, says| {
            // The branches are asked in order. A later verdict on one that was heard replaces it.
            let heard = match trail.last() {
                Some((last, _)) if *last >= branch => {
                    trail.iter_mut().rfind(|(of, _)| *of == branch)
                }
                _ => None,
            };
            match heard {
                Some(verdict) => verdict.1 = says,
                None => trail.push((branch, says)),
            }
        })?;
        Ok((entry, trail))
    }

    fn decide(
        &self,
        question: &Question<'_>,
        says: &mut dyn FnMut(usize, Says),
    ) -> Result<Entry<'s>> {
        match self.stack.merger() {
            Merger::Overlay(rules) => overlay::decide(self, rules, question, says),
            Merger::Aufs | Merger::Alone => aufs::decide(self, question, says),
        }
    }
}
