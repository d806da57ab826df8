//! The verbs. Each takes what was meant, not what was typed, and computes a report: data that
//! `render` shows. Nothing here prints.

pub mod branches;
pub mod changes;
pub mod check;
pub mod containers;
pub mod copyups;
pub mod du;
pub mod history;
pub mod images;
pub mod info;
pub mod ls;
pub mod orphans;
pub mod restore;
pub mod space;
pub mod which;
pub mod whiteouts;
pub mod whois;

use std::num::NonZeroUsize;
use std::ops::ControlFlow;

use serde::Serialize;

use crate::bytes::Bytes;
use crate::dir::{self, Kind, Stat};
use crate::engine::{Survey, Union};
use crate::error::{Error, Result};
use crate::target::{self, Base, Target};
use crate::union::Stack;
use crate::walk::Rows;

/// What every verb has at hand.
pub struct Context<'h> {
    pub survey: Survey<'h>,
    /// Where relative directories and paths start.
    pub base: Base,
    /// What could not be read. The report is incomplete while there is anything here.
    pub problems: Vec<Error>,
    pub threads: Threads,
}

/// How many threads walk a tree.
#[derive(Debug, Clone, Copy)]
pub struct Threads(pub Option<NonZeroUsize>);

/// More than a few wait for the disk and for each other.
const THREADS_MAX: usize = 8;
/// More than so many are not started, whoever asks for them.
const THREADS_ASKED_MAX: usize = 64;

impl Threads {
    /// As many as there are processors, if nobody says otherwise. That takes a look at the machine,
    /// which only a walk is worth.
    pub fn count(self) -> NonZeroUsize {
        let count = match self.0 {
            Some(asked) => asked.get().min(THREADS_ASKED_MAX),
            None => {
                let processors = std::thread::available_parallelism();
                processors.map_or(1, NonZeroUsize::get).min(THREADS_MAX)
            }
        };
        NonZeroUsize::new(count.min(dir::threads_max())).unwrap_or(NonZeroUsize::MIN)
    }
}

/// A target, and its label where the person did not name it.
pub type Labelled = (Option<Bytes>, Target);

impl Context<'_> {
    pub fn find(&mut self, name: &[u8]) -> Result<Target> {
        target::find(&mut self.survey, name, &self.base)
    }

    /// The target that was named; where none was, every mounted union, each with its label.
    pub fn targets(&mut self, name: Option<&[u8]>) -> Result<Vec<Labelled>> {
        match name {
            Some(name) => Ok(vec![(None, self.find(name)?)]),
            None => Ok(target::all_mounted(&mut self.survey)?
                .into_iter()
                .map(|target| (Some(self.survey.label(&target.union)), target))
                .collect()),
        }
    }

    /// Opens a target's branches. One that cannot be opened makes every answer unsure.
    pub fn open(&mut self, target: &Target) -> Stack {
        let stack = target.union.open(&self.survey);
        if stack.has_trusted_marks() && !dir::reads_trusted_attributes() {
            let union = self.survey.label(&target.union);
            self.problems.push(Error::MarksUnreadable { union });
        }
        self.problems.extend(stack.overridden().map(|branch| {
            let what = "keeps owners and modes in attributes (override_stat): those shown are the files' own";
            Error::damaged(branch.path.clone(), what)
        }));
        self.problems.extend(target.union.unknown());
        self.problems.extend(stack.lost());
        stack
    }
}

/// A report, and what the exit status says beside it.
#[derive(Debug)]
pub struct Outcome {
    pub report: Report,
    /// The answer is yes: the path is there, the thing is done, nothing was found wrong.
    pub is_yes: bool,
}

impl Outcome {
    fn yes(report: Report) -> Result<Outcome> {
        Ok(Outcome {
            report,
            is_yes: true,
        })
    }
}

/// What a verb answers.
#[derive(Debug)]
pub enum Report {
    Branches(Vec<branches::Row>),
    Which(Vec<which::Row>),
    Ls(Stream<ls::Row>),
    Whiteouts(Stream<whiteouts::Row>),
    Copyups(Vec<copyups::Row>),
    Changes(Stream<changes::Row>),
    History(Vec<history::Row>),
    Containers(Vec<containers::Row>),
    Images(Vec<images::Row>),
    Check(check::Findings),
    Info(Box<info::Row>),
    Restore(Box<restore::Row>),
    Whois(Vec<whois::Row>),
    Orphans(Vec<orphans::Row>),
    Du(Vec<du::Row>),
}

/// Rows that are found while they are shown: a tree can have millions.
pub struct Stream<R> {
    pub shape: Shape,
    find: Box<Finder<R>>,
}

/// How rows are shown to a person.
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
    /// Finds the rows, and gives them in order until that says that it is enough. What could not
    /// be read is among them.
    pub fn find(self, how: &Find<'_, R>, mut give: impl FnMut(Batch<R>) -> ControlFlow<()>) {
        (self.find)(how, &mut give);
    }
}

impl<R> std::fmt::Debug for Stream<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream").finish_non_exhaustive()
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
    has_hidden: bool,
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
    fn keep(&mut self, how: Keep<'_, R>, row: R) -> Option<R> {
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

/// A version of a path in some branch, as other rows refer to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Version {
    /// Index of the branch, 0 is topmost.
    pub branch: usize,
    #[serde(rename = "type")]
    pub kind: Kind,
    /// Bytes.
    pub size: u64,
    /// The engine's id of the layer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layer: Option<String>,
}

impl Version {
    fn new(union: &Union, branch: usize, stat: &Stat) -> Version {
        Version {
            branch,
            kind: stat.kind,
            size: stat.size,
            layer: union.layer_id(branch).map(str::to_owned),
        }
    }
}

/// The targets and the branch of each that changes and marks are about. Of all the mounted
/// unions, those in which nothing can be written are left out.
fn subjects(
    context: &mut Context<'_>,
    name: Option<&[u8]>,
) -> Result<Vec<(Option<Bytes>, Target, usize)>> {
    let mut subjects = Vec::new();
    for (label, target) in context.targets(name)? {
        match target.subject() {
            Some(branch) => subjects.push((label, target, branch)),
            None if name.is_some() => return Err(no_subject(&target)),
            None => {}
        }
    }
    Ok(subjects)
}

fn no_subject(target: &Target) -> Error {
    Error::Refused {
        what: format!(
            "{} has no writable branch, so nothing in it can have changed",
            target.union.label()
        ),
        hint: "name a layer or an image to see what that changed".into(),
    }
}

/// An absolute path of the union from what was typed.
fn path_in_union(typed: &[u8]) -> Bytes {
    let mut path = Bytes::absolute(crate::bytes::components(typed));
    // A trailing slash means "the directory", and follows a link.
    if (typed.ends_with(b"/") || typed.ends_with(b"/.")) && path.as_bytes() != b"/" {
        path.0.push(b'/');
    }
    path
}

/// The JSON Schema of one line of a verb's `--format jsonl`.
pub fn schema(verb: &str) -> Option<schemars::Schema> {
    Some(match verb {
        "branches" => schemars::schema_for!(branches::Row),
        "which" => schemars::schema_for!(which::Row),
        "ls" => schemars::schema_for!(ls::Row),
        "whiteouts" => schemars::schema_for!(whiteouts::Row),
        "copyups" => schemars::schema_for!(copyups::Row),
        "changes" => schemars::schema_for!(changes::Row),
        "history" => schemars::schema_for!(history::Row),
        "containers" => schemars::schema_for!(containers::Row),
        "images" => schemars::schema_for!(images::Row),
        "check" => schemars::schema_for!(check::Row),
        "info" => schemars::schema_for!(info::Row),
        "restore" => schemars::schema_for!(restore::Row),
        "whois" => schemars::schema_for!(whois::Row),
        "orphans" => schemars::schema_for!(orphans::Row),
        "du" => schemars::schema_for!(du::Row),
        _ => return None,
    })
}
