//! What verbs answer, and how an answer is shown: a verb says what its rows look like ([`Row`]),
//! and here every form is made of that.

use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::ops::ControlFlow;

use serde::Serialize;

use super::{Context, Label};
use crate::error::Error;
use crate::render::column::{Column, optional};
use crate::render::grid::{self, Grid};
use crate::render::{Format, Look, json, table, template};
use crate::walk::Rows;

/// A row of an answer: what `layerctl schema` describes, and how it looks.
pub trait Row: Serialize + schemars::JsonSchema + Sized {
    /// Whether a table without a row has its headings all the same.
    const HEADS_NOTHING: bool = true;

    /// The columns of its table. The last one has what may be long: paths, names.
    fn columns(_look: Look) -> Vec<Column<Self>> {
        Vec::new()
    }

    /// What `--quiet` leaves of it: ids or paths.
    fn words(&self, give: &mut dyn FnMut(&[u8]));

    /// What a person reads where all rows are known.
    ///
    /// # Errors
    /// The output cannot be written.
    fn table(rows: &[Self], look: Look, out: &mut dyn Write) -> io::Result<()> {
        table::write(&Self::columns(look), rows, look, out)
    }

    /// A person's line, where rows are shown without columns.
    fn line(&self, look: Look, out: &mut Vec<u8>) {
        // Memory takes whatever is written to it.
        self.words(&mut |word| drop(look.write_line(word, out)));
    }

    /// What docker shows of it in the fields that [`super::Verb::DOCKER`] names: once for each line
    /// that docker has of such a row.
    fn docker(&self, _look: Look) -> Vec<Vec<String>> {
        vec![Vec::new()]
    }

    /// The union that it is of, where it is of one.
    fn label(&self) -> Option<&Label> {
        None
    }
}

/// What a verb answers.
pub trait Answer {
    /// One line of `--format jsonl`.
    type Row: Serialize + schemars::JsonSchema;

    /// Writes the whole answer. Where rows are found as they are shown, the context is what they are
    /// found in. `ended` is told what else is found, however the writing ends.
    ///
    /// # Errors
    /// The output cannot be written, a closed pipe among the reasons.
    fn show(
        self,
        look: Look,
        context: &Context<'_>,
        out: &mut dyn Write,
        ended: &mut Ended,
    ) -> io::Result<()>;
}

/// What was only found while the answer was shown.
#[derive(Debug, Default)]
pub struct Ended {
    /// What could not be read.
    pub problems: Vec<Error>,
    /// What whoever reads the answer has to know beside it.
    pub notes: Vec<Error>,
    /// Something was asked for that is not there.
    pub is_no: bool,
}

/// Rows that are all known.
impl<R: Row> Answer for Vec<R> {
    type Row = R;

    fn show(
        self,
        look: Look,
        _context: &Context<'_>,
        out: &mut dyn Write,
        _ended: &mut Ended,
    ) -> io::Result<()> {
        match look.format {
            Format::Json => json::document(&self, out),
            Format::Jsonl => self.iter().try_for_each(|row| json::line(row, out)),
            Format::Template => self.iter().try_for_each(|row| {
                let lines = row.docker(look);
                lines
                    .iter()
                    .try_for_each(|shown| template::line(row, shown, out))
            }),
            Format::Table => R::table(&self, look, out),
            Format::Quiet | Format::Null => write_words(&self, look, out),
        }
    }
}

/// The one row of an answer that is no list.
#[derive(Debug)]
pub struct One<R>(pub Box<R>);

impl<R: Row> Answer for One<R> {
    type Row = R;

    fn show(
        self,
        look: Look,
        context: &Context<'_>,
        out: &mut dyn Write,
        ended: &mut Ended,
    ) -> io::Result<()> {
        match look.format {
            Format::Json => json::document(&self.0, out),
            _ => vec![*self.0].show(look, context, out, ended),
        }
    }
}

/// What is wrong: a person is told so where there is nothing.
#[derive(Debug)]
pub struct Findings<R> {
    pub rows: Vec<R>,
    /// Everything that may have been found could be read.
    pub is_whole: bool,
}

impl<R: Row> Answer for Findings<R> {
    type Row = R;

    fn show(
        self,
        look: Look,
        context: &Context<'_>,
        out: &mut dyn Write,
        ended: &mut Ended,
    ) -> io::Result<()> {
        match (look.format, self.rows.is_empty(), self.is_whole) {
            (Format::Table, true, true) => writeln!(out, "nothing found"),
            (Format::Table, true, false) => writeln!(out, "nothing found in what could be read"),
            _ => self.rows.show(look, context, out, ended),
        }
    }
}

fn write_words<R: Row>(rows: &[R], look: Look, out: &mut dyn Write) -> io::Result<()> {
    rows.iter().try_for_each(|row| {
        let mut written = Ok(());
        row.words(&mut |word| {
            if written.is_ok() {
                written = look.write_word(word, out);
            }
        });
        written
    })
}

/// Rows that are found while they are shown: a tree can have millions.
pub struct Stream<R> {
    pub shape: Shape,
    find: Box<Finder<R>>,
}

/// How the rows of a stream are shown to a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Each is a line.
    Lines,
    /// The same, under the names of the unions.
    Headed,
    Columns,
}

type Finder<R> = dyn FnOnce(&Find<'_, R>, &mut dyn FnMut(Batch<R>) -> ControlFlow<()>);

impl<R> Stream<R> {
    /// Rows that a function finds, and gives in order until that says that it is enough. What could
    /// not be read is among them.
    pub fn new(
        shape: Shape,
        find: impl FnOnce(&Find<'_, R>, &mut dyn FnMut(Batch<R>) -> ControlFlow<()>) + 'static,
    ) -> Stream<R> {
        Stream {
            shape,
            find: Box::new(find),
        }
    }
}

impl<R: 'static> Stream<R> {
    /// All rows at once.
    pub fn collect(self, context: &Context<'_>, ended: &mut Ended) -> Vec<R> {
        let how = Find {
            threads: context.threads.count(),
            keep: Keep::Rows,
        };
        let mut rows = Vec::new();
        (self.find)(&how, &mut |mut batch| {
            rows.append(&mut batch.rows);
            ended.problems.append(&mut batch.problems);
            ended.is_no |= batch.is_no;
            ControlFlow::Continue(())
        });
        rows
    }

    /// The same rows as others, of which any makes the answer no.
    pub fn map<S: 'static>(self, shape: Shape, map: impl Fn(R) -> S + 'static) -> Stream<S> {
        let find = self.find;
        Stream::new(shape, move |how: &Find<'_, S>, give| {
            let inner = Find {
                threads: how.threads,
                keep: Keep::Rows,
            };
            find(&inner, &mut |batch: Batch<R>| {
                let mut mapped = Batch {
                    problems: batch.problems,
                    is_no: batch.is_no,
                    has_hidden: batch.has_hidden,
                    ..Batch::default()
                };
                for row in batch.rows {
                    mapped.keep(how.keep, map(row));
                    mapped.is_no = true;
                }
                give(mapped)
            });
        })
    }
}

/// How rows are found.
pub struct Find<'f, R> {
    pub threads: NonZeroUsize,
    /// What becomes of a row where it is found, by whatever thread.
    pub keep: Keep<'f, R>,
}

pub enum Keep<'f, R> {
    Rows,
    Text(&'f (dyn Fn(&R, &mut Vec<u8>) + Sync)),
}

impl<R> Clone for Keep<'_, R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<R> Copy for Keep<'_, R> {}

/// Some of the rows.
pub struct Batch<R> {
    pub rows: Vec<R>,
    pub text: Vec<u8>,
    /// What could not be read.
    pub problems: Vec<Error>,
    /// Something was asked for that is not there.
    pub is_no: bool,
    /// There are rows that are not shown, but that make the directories count which they are in.
    pub has_hidden: bool,
}

impl<R> Default for Batch<R> {
    fn default() -> Self {
        Batch {
            rows: Vec::new(),
            text: Vec::new(),
            problems: Vec::new(),
            is_no: false,
            has_hidden: false,
        }
    }
}

impl<R: Send> Rows for Batch<R> {
    fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.text.is_empty() && !self.has_hidden
    }

    fn is_nothing(&self) -> bool {
        self.is_empty() && self.problems.is_empty() && !self.is_no
    }

    fn size(&self) -> usize {
        size_of_val(&self.rows[..]) + self.text.len()
    }

    fn with_room_for(like: &Self) -> Self {
        Batch {
            rows: Vec::with_capacity(like.rows.len()),
            // It is larger than it need be by up to what one directory has.
            text: Vec::with_capacity(like.text.len() / 4 * 5),
            ..Batch::default()
        }
    }

    fn append(&mut self, mut later: Self) {
        if self.is_empty() && self.problems.is_empty() {
            (self.rows, self.text) = (later.rows, later.text);
        } else {
            self.rows.append(&mut later.rows);
            self.text.append(&mut later.text);
        }
        self.problems.append(&mut later.problems);
        self.is_no |= later.is_no;
        self.has_hidden |= later.has_hidden;
    }
}

impl<R> Batch<R> {
    /// Keeps a row. One that is not needed any more is given back.
    #[inline]
    pub fn keep(&mut self, how: Keep<'_, R>, row: R) -> Option<R> {
        match how {
            Keep::Rows => {
                self.rows.push(row);
                None
            }
            Keep::Text(write) => {
                write(&row, &mut self.text);
                Some(row)
            }
        }
    }
}

impl<R: Row + Send> Answer for Stream<R> {
    type Row = R;

    fn show(
        self,
        look: Look,
        context: &Context<'_>,
        out: &mut dyn Write,
        ended: &mut Ended,
    ) -> io::Result<()> {
        let shape = self.shape;
        let columns = R::columns(look);
        // Memory takes whatever is written to it.
        let word = |row: &R, text: &mut Vec<u8>| {
            row.words(&mut |word| drop(look.write_word(word, text)));
        };
        let json = |row: &R, text: &mut Vec<u8>| drop(json::line(row, text));
        let line = |row: &R, text: &mut Vec<u8>| row.line(look, text);
        let cells = |row: &R, text: &mut Vec<u8>| grid::write_row(&columns, row, look, text);
        let keep = match (look.format, shape) {
            (Format::Quiet | Format::Null, _) => Keep::Text(&word),
            (Format::Jsonl | Format::Template, _) => Keep::Text(&json),
            (Format::Table, Shape::Lines) => Keep::Text(&line),
            (Format::Table, Shape::Columns) => Keep::Text(&cells),
            (Format::Json, _) | (Format::Table, Shape::Headed) => Keep::Rows,
        };
        let is_grid = look.format == Format::Table && shape == Shape::Columns;
        let mut grid = is_grid.then(|| Grid::new(&columns));
        let mut rows: Vec<R> = Vec::new();
        let mut written = Ok(());
        let how = Find {
            threads: context.threads.count(),
            keep,
        };
        (self.find)(&how, &mut |mut batch| {
            rows.append(&mut batch.rows);
            ended.problems.append(&mut batch.problems);
            ended.is_no |= batch.is_no;
            match &mut grid {
                Some(grid) => grid.add(std::mem::take(&mut batch.text)),
                None => written = out.write_all(&batch.text),
            }
            match written {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            }
        });
        written?;
        match (grid, look.format, shape) {
            (Some(grid), ..) if grid.is_empty() && !R::HEADS_NOTHING => Ok(()),
            (Some(grid), ..) => grid.write(look.screen, out),
            (None, Format::Json, _) => json::document(&rows, out),
            (None, Format::Table, Shape::Headed) => write_headed(&rows, look, out),
            _ => Ok(()),
        }
    }
}

/// Lines under the names of their unions.
fn write_headed<R: Row>(rows: &[R], look: Look, out: &mut dyn Write) -> io::Result<()> {
    let mut heading = None;
    let mut line = Vec::new();
    for row in rows {
        if let Some(union) = row.label().and_then(Label::told)
            && heading != Some(union)
        {
            heading = Some(union);
            writeln!(out, "{}:", look.bold(&union.to_string()))?;
        }
        line.clear();
        row.line(look, &mut line);
        out.write_all(&line)?;
    }
    Ok(())
}

/// The union that rows are of, where they are of several.
pub fn union_column<R: Row>() -> Column<R> {
    optional("UNION", |row: &R, _, cell| {
        if let Some(target) = row.label().and_then(Label::told) {
            cell.show(target);
        }
    })
}
