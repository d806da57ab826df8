//! One thread's walk, which can be cut in two anywhere.
//!
//! What is left of a walk is the rest of the directories on every level on the way down. Its end is
//! a walk, too, that another thread can do at the same time.
//!
//! ```text
//! /            [ a  b  c  d ]         the walk goes on with      its end is
//!   b/         [ . x y z ]            b/x b/y b/z                c d
//! ```

use std::collections::VecDeque;
use std::mem::{replace, take};
use std::ops::ControlFlow;
use std::vec::IntoIter;

use super::headings::Headings;
use super::rows::{Found, Out, Rows};

/// What is left of a walk, and what it has found.
pub(super) struct Walk<D, B> {
    /// The levels on the way down.
    pub(super) levels: Vec<Level<D, B>>,
    /// How many directories the levels have that were not visited.
    pub(super) left: usize,
    /// The rows that wait behind directories, in bytes.
    pub(super) behind: usize,
    pub(super) out: Out<D, B>,
}

/// What is left of a directory that was visited.
pub(super) struct Level<D, B> {
    /// The directories in it that were not visited, each with the rows that come after it.
    directories: IntoIter<(D, B)>,
    /// The rows that come after all of them.
    after: B,
    /// Whether a heading ends with it.
    closes: bool,
}

impl<D, B: Rows> Walk<D, B> {
    fn of(levels: Vec<Level<D, B>>) -> Walk<D, B> {
        Walk {
            left: left(&levels),
            behind: behind(&levels),
            levels,
            out: Out::new(),
        }
    }

    pub(super) fn at(root: D) -> Walk<D, B> {
        Walk::of(vec![Level {
            directories: vec![(root, B::default())].into_iter(),
            after: B::default(),
            closes: false,
        }])
    }

    /// Visits the next directory, and says whether there was one.
    pub(super) fn step(&mut self, visit: &mut impl FnMut(D, &mut Found<'_, D, B>)) -> bool {
        while let Some(level) = self.levels.last_mut() {
            if let Some((directory, after)) = level.directories.next() {
                self.left -= 1;
                let mut found = Found::new(&mut self.out, self.behind);
                visit(directory, &mut found);
                let (directories, closes) = (found.directories, found.has_heading);
                let last = directories.last().map_or(0, |(_, after)| after.size());
                self.behind = found.behind + last;
                self.left += directories.len();
                if directories.is_empty() {
                    self.behind -= after.size();
                    self.out.end(closes, after);
                } else if level.directories.len() == 0 && !closes && after.size() == 0 {
                    // What is below the last of a level takes its place: a directory that is
                    // visited in many rests does not become as many levels.
                    let behind = replace(&mut level.after, after);
                    level.after.append(behind);
                    level.directories = directories.into_iter();
                } else {
                    self.levels.push(Level {
                        directories: directories.into_iter(),
                        after,
                        closes,
                    });
                }
                return true;
            }
            if let Some(level) = self.levels.pop() {
                self.behind -= level.after.size();
                self.out.end(level.closes, level.after);
            }
        }
        false
    }

    /// Whether there is an end to be split off: with one directory left there is none.
    pub(super) fn can_split(&self) -> bool {
        self.left >= 2
    }

    /// Splits the end off the walk: half of what the highest level has, and everything that is left
    /// above it.
    pub(super) fn split(&mut self) -> Option<Walk<D, B>> {
        if !self.can_split() {
            return None;
        }
        let mut levels = self.levels.iter();
        let first = levels.position(|level| level.directories.len() > 0)?;
        let count = self.levels[first].directories.len();
        // One directory is half of something only if there is more below.
        let kept = if count == self.left {
            count.div_ceil(2)
        } else {
            count / 2
        };
        let mut given: Vec<Level<D, B>> = Vec::with_capacity(first + 1);
        for level in &mut self.levels[..=first] {
            given.push(Level {
                directories: take(&mut level.directories),
                after: take(&mut level.after),
                closes: take(&mut level.closes),
            });
        }
        if let (Some(own), Some(end)) = (self.levels.get_mut(first), given.last_mut()) {
            let mut rest: Vec<(D, B)> = take(&mut end.directories).collect();
            end.directories = rest.split_off(kept).into_iter();
            own.directories = rest.into_iter();
        }
        self.left = left(&self.levels);
        self.behind = behind(&self.levels);
        Some(Walk::of(given))
    }
}

/// How many directories were not visited.
pub(super) fn left<D, B>(levels: &[Level<D, B>]) -> usize {
    levels.iter().map(|level| level.directories.len()).sum()
}

/// The rows that come after directories, in bytes.
pub(super) fn behind<D, B: Rows>(levels: &[Level<D, B>]) -> usize {
    let of_level = |level: &Level<D, B>| {
        let directories = level.directories.as_slice().iter();
        level.after.size() + directories.map(|(_, after)| after.size()).sum::<usize>()
    };
    levels.iter().map(of_level).sum()
}

/// Visits a tree depth first, as far as its rows are asked for. `visit` is given a directory and
/// says what is in it; the directories that it finds are visited where they stand among its rows.
pub fn walk<D, R: Send>(
    root: D,
    mut visit: impl FnMut(D, &mut Found<'_, D, Vec<R>>),
) -> impl Iterator<Item = R> {
    let mut walk = Walk::at(root);
    let mut headings = Headings::new();
    let mut ready: VecDeque<R> = VecDeque::new();
    let mut is_over = false;
    std::iter::from_fn(move || {
        while ready.is_empty() && !is_over {
            is_over = !walk.step(&mut visit);
            let _ = headings.give(walk.out.take(), &mut visit, &mut |rows| {
                ready.extend(rows);
                ControlFlow::Continue(())
            });
        }
        ready.pop_front()
    })
}
