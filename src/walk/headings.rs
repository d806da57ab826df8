//! Headings: rows that are given only once there is something below them.

use std::ops::ControlFlow;

use super::rows::{Bundle, Found, Heading, Out, Piece, Rows};

/// The headings above what is given now.
pub(super) struct Headings<D, B> {
    open: Vec<Option<Heading<D, B>>>,
    /// How many of them were given: those above the others.
    given: usize,
}

impl<D, B: Rows> Headings<D, B> {
    pub(super) fn new() -> Headings<D, B> {
        Headings {
            open: Vec::new(),
            given: 0,
        }
    }

    /// Gives what was found, each heading before the first row that is below it.
    pub(super) fn give(
        &mut self,
        bundle: Bundle<D, B>,
        visit: &mut impl FnMut(D, &mut Found<'_, D, B>),
        give: &mut impl FnMut(B) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        for piece in bundle.pieces {
            match piece {
                Piece::Open(heading) => self.open.push(Some(heading)),
                Piece::Close => {
                    self.open.pop();
                    self.given = self.given.min(self.open.len());
                }
                Piece::Rows(rows) => {
                    if !rows.is_empty() {
                        for heading in &mut self.open[self.given..] {
                            match heading.take() {
                                Some(Heading::Rows(rows)) => give(rows)?,
                                Some(Heading::Directory(directory)) => {
                                    give(rows_of(directory, visit))?;
                                }
                                None => {}
                            }
                        }
                        self.given = self.open.len();
                    }
                    give(rows)?;
                }
            }
        }
        ControlFlow::Continue(())
    }
}

/// The rows that a heading's directory is visited for.
fn rows_of<D, B: Rows>(directory: D, visit: &mut impl FnMut(D, &mut Found<'_, D, B>)) -> B {
    let mut out = Out::new();
    visit(directory, &mut Found::new(&mut out, 0));
    out.now
}
