//! The verbs. One verb is one file: what can be typed ([`Verb`]), what is found, and how its rows
//! look ([`Row`]). `verbs!` below lists them, and nothing else has to know of one.

mod answer;
mod asked;
pub mod branches;
pub mod cat;
pub mod changes;
pub mod check;
pub mod containers;
pub mod copyups;
pub mod cp;
pub mod diff;
pub mod du;
#[cfg(test)]
mod example;
pub mod export;
pub mod find;
mod glob;
pub mod history;
pub mod images;
pub mod info;
mod label;
pub mod ls;
pub mod metrics;
pub mod mount;
pub mod orphans;
mod output;
mod patch;
pub mod progress;
pub mod report;
pub mod restore;
mod scope;
mod sieve;
pub mod space;
pub mod umount;
mod unseen;
mod users;
pub mod verify;
pub mod which;
pub mod whiteouts;
pub mod whois;

use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::time::Duration;

use serde::Serialize;

use crate::bytes::{Bytes, escape};
use crate::dir::{self, Kind, Stat};
use crate::engine::cover::Cover;
use crate::engine::covered::Covers;
use crate::engine::{Survey, Union};
use crate::error::{Error, Result};
use crate::render::Look;
use crate::render::template::Fields;
use crate::target::{self, Base, Target};
use crate::union::Stack;
pub use answer::{
    Answer, Batch, Ended, Find, Findings, Keep, One, Row, Shape, Stream, union_column,
};
pub use label::Label;
pub use scope::{Labelled, Looked, Which};
pub use sieve::period;

/// What a person typed after a verb's name, and what the verb does. The comment on the type is the
/// verb's help.
pub trait Verb: clap::Args {
    /// What its help says beside its arguments.
    const HELP: Help;

    /// The fields of docker's templates that it has beside the keys of its JSON, each with docker's
    /// heading.
    const DOCKER: &'static [(&'static str, &'static str)] = &[];

    type Answer: Answer;

    /// How often the answer is to be given, where once is not enough.
    fn every(&self) -> Option<Duration> {
        None
    }

    /// Finds the answer.
    ///
    /// # Errors
    /// There is no answer: the arguments fit nothing, or what decides cannot be read.
    fn run(self, context: &mut Context<'_>) -> Result<Outcome<Self::Answer>>;
}

/// What a verb's help says beside its arguments.
#[derive(Debug)]
pub struct Help {
    pub group: Group,
    /// Three command lines.
    pub examples: &'static [&'static str],
    /// What its exit status means.
    pub exit: &'static str,
}

/// What a person is about who looks for a verb.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// What is in a union.
    Look,
    /// Where something is, and whose.
    Find,
    /// What is wrong, and bringing things back.
    Repair,
    /// What takes space.
    Disk,
    /// What the host has.
    Host,
}

impl Group {
    pub const ALL: [Group; 5] = [
        Group::Look,
        Group::Find,
        Group::Repair,
        Group::Disk,
        Group::Host,
    ];

    pub fn word(self) -> &'static str {
        match self {
            Group::Look => "look",
            Group::Find => "find",
            Group::Repair => "repair",
            Group::Disk => "disk",
            Group::Host => "host",
        }
    }

    pub fn heading(self) -> &'static str {
        match self {
            Group::Look => "Look into a union",
            Group::Find => "Find",
            Group::Repair => "Check and repair",
            Group::Disk => "Who fills the disk",
            Group::Host => "What the host has",
        }
    }
}

/// An answer, and what the exit status says beside it.
#[derive(Debug)]
pub struct Outcome<A> {
    pub answer: A,
    /// The answer is yes: the path is there, the thing is done, nothing was found wrong.
    pub is_yes: bool,
}

impl<A> Outcome<A> {
    fn yes(answer: A) -> Result<Outcome<A>> {
        Ok(Outcome {
            answer,
            is_yes: true,
        })
    }

    /// Shows the answer, and says whether it is yes after all.
    fn show(self, context: &mut Context<'_>, look: Look, out: &mut dyn Write) -> io::Result<bool>
    where
        A: Answer,
    {
        let mut ended = Ended::default();
        let shown = self.answer.show(look, context, out, &mut ended);
        context.problems.extend(ended.problems);
        context.notes.extend(ended.notes);
        shown?;
        Ok(self.is_yes && !ended.is_no)
    }
}

macro_rules! verbs {
    ($($(#[$attribute:meta])* $name:ident($module:ident),)*) => {
        /// What is asked for.
        #[derive(Debug, clap::Subcommand)]
        pub enum Command {
            $($(#[$attribute])* $name($module::Args),)*
        }

        impl Command {
            /// Finds the answer and writes it. What comes back is whether it is yes.
            ///
            /// # Errors
            /// There is no answer. Inside: it cannot be written, a closed pipe among the reasons.
            pub fn run(
                self,
                context: &mut Context<'_>,
                look: Look,
                out: &mut dyn Write,
            ) -> Result<io::Result<bool>> {
                Ok(match self {
                    $(Command::$name(typed) => typed.run(context)?.show(context, look, out),)*
                })
            }

            /// The verb's name.
            pub fn verb(&self) -> &'static str {
                match self {
                    $(Command::$name(_) => stringify!($module),)*
                }
            }

            /// How often the answer is to be given, where once is not enough.
            pub fn every(&self) -> Option<Duration> {
                match self {
                    $(Command::$name(typed) => typed.every(),)*
                }
            }

            /// What a template can name of a row.
            pub fn fields(&self) -> Fields {
                match self {
                    $(Command::$name(_) => Fields {
                        schema: schemars::schema_for!(
                            <<$module::Args as Verb>::Answer as Answer>::Row
                        ),
                        docker: <$module::Args as Verb>::DOCKER,
                    },)*
                }
            }
        }

        /// The verbs, each with what its help says.
        pub const HELPS: &[(&str, &Help)] =
            &[$((stringify!($module), &<$module::Args as Verb>::HELP),)*];

        /// The JSON Schema of one line of a verb's `--format jsonl`.
        pub fn schema(verb: &str) -> Option<schemars::Schema> {
            $(
                if verb == stringify!($module) {
                    return Some(schemars::schema_for!(
                        <<$module::Args as Verb>::Answer as Answer>::Row
                    ));
                }
            )*
            None
        }
    };
}

/// The schemas of all verbs in one document: a property for each, and what they share once.
pub fn schemas() -> schemars::Schema {
    let mut shared = serde_json::Map::new();
    let mut verbs = serde_json::Map::new();
    for (verb, _) in HELPS {
        let Some(mut schema) = schema(verb) else {
            continue;
        };
        if let Some(serde_json::Value::Object(of_verb)) = schema.remove("$defs") {
            shared.extend(of_verb);
        }
        schema.remove("$schema");
        verbs.insert((*verb).to_owned(), schema.into());
    }
    schemars::json_schema!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "layerctl",
        "description": "A line of `--format jsonl` of each verb, by the verb's name",
        "type": "object",
        "properties": verbs,
        "$defs": shared,
    })
}

verbs! {
    #[command(alias = "mounts")]
    Branches(branches),
    Which(which),
    Ls(ls),
    Whiteouts(whiteouts),
    Copyups(copyups),
    Changes(changes),
    Diff(diff),
    Find(find),
    Cat(cat),
    Cp(cp),
    Mount(mount),
    Umount(umount),
    #[command(alias = "layers")]
    History(history),
    #[command(alias = "ps")]
    Containers(containers),
    Images(images),
    Check(check),
    Info(info),
    Report(report),
    Metrics(metrics),
    #[command(alias = "undelete")]
    Restore(restore),
    Verify(verify),
    Export(export),
    Whois(whois),
    Orphans(orphans),
    Du(du),
}

/// What every verb has at hand.
pub struct Context<'h> {
    pub survey: Survey<'h>,
    /// Where relative directories and paths start.
    pub base: Base,
    /// What could not be read. The report is incomplete while there is anything here.
    pub problems: Vec<Error>,
    /// What whoever reads the report has to know beside it. It is no less complete for that.
    pub notes: Vec<Error>,
    pub threads: Threads,
    /// More is to be told than usually.
    pub is_verbose: bool,
    /// The answer goes to standard output itself, so that the kernel may write there.
    pub is_direct: bool,
    /// How much was looked at; none where a TARGET was named.
    pub looked: Option<Looked>,
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

/// The unions that were found, or none where there is something else to tell of. What is closed, so that
/// nobody knows whether there is one, is told by whoever looked for engines.
pub fn or_none<T>(found: Result<Vec<T>>, has_others: bool) -> Result<Vec<T>> {
    match found {
        Err(Error::NothingMounted | Error::Closed { .. }) if has_others => Ok(Vec::new()),
        found => found,
    }
}

impl Context<'_> {
    /// Tells of an answer about engines that there is no engine, if there is none: nothing is
    /// known then, rather than known to be nothing.
    pub fn note_no_engine(&mut self) {
        let is_told =
            |note: &Error| matches!(note, Error::NoEngine { .. } | Error::NoNamespace { .. });
        if self.notes.iter().any(is_told) {
            return;
        }
        let why = self.survey.no_namespace();
        self.notes.extend(why.or_else(|| self.survey.no_engine()));
    }

    pub fn find(&mut self, name: &[u8]) -> Result<Target> {
        target::find(&mut self.survey, name, &self.base)
    }

    /// What lies over a union's layers. Where that cannot be read, the answer is not sure.
    pub fn covers(&mut self, union: &Union) -> Covers {
        Covers::of(&self.survey, union).unwrap_or_else(|error| {
            self.problems.push(error.of(&self.survey.label(union)));
            Covers::default()
        })
    }

    /// What lies over a union's layers; that it lies over all that was asked for is said beside the
    /// answer.
    pub fn covers_noted(&mut self, union: &Union, path: &Bytes) -> Covers {
        let covers = self.covers(union);
        self.note_cover(union, covers.at(path));
        covers
    }

    /// Says what lies over a path of a union, if anything does.
    fn note_cover(&mut self, union: &Union, cover: Option<&Cover>) {
        if let Some(cover) = cover {
            let label = self.survey.label(union);
            let note = format!("{}: {}", escape(label.as_bytes()), cover.words());
            self.notes.push(Error::Usage(note));
        }
    }

    /// Opens a target's branches. One that cannot be opened makes every answer unsure.
    pub fn open(&mut self, target: &Target) -> Stack {
        open(&self.survey, target, &mut self.problems)
    }
}

/// The same where the context is only looked at.
fn open(survey: &Survey<'_>, target: &Target, problems: &mut Vec<Error>) -> Stack {
    let stack = target.union.open(survey);
    if stack.has_trusted_marks() && !dir::reads_trusted_attributes() {
        let union = survey.label(&target.union);
        problems.push(Error::MarksUnreadable { union });
    }
    problems.extend(target.union.unknown());
    let lost = stack.lost();
    problems.extend(lost.map(|error| error.of(&survey.label(&target.union))));
    stack
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
    /// The branch's directory.
    pub directory: Bytes,
}

impl Version {
    fn new(union: &Union, branch: usize, stat: &Stat) -> Version {
        Version {
            branch,
            kind: stat.kind,
            size: stat.size,
            layer: union.layer_id(branch).map(str::to_owned),
            directory: union.directory_of(branch),
        }
    }

    /// A file's size; a directory's own size tells nothing.
    fn size_words(&self, look: Look) -> String {
        if self.kind == Kind::File {
            look.size(self.size)
        } else {
            String::new()
        }
    }

    fn layer_words(&self, look: Look) -> String {
        layer_words(self.layer.as_deref(), self.branch, look)
    }
}

/// A layer's short id, or the branch's number where no engine has given it one.
fn layer_words(layer: Option<&str>, branch: usize, look: Look) -> String {
    match layer {
        Some(id) => look.id(id),
        None => format!("branch {branch}"),
    }
}

/// `1 union`, `2 unions`.
fn counted(count: u64, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        _ => format!("{count} {what}s"),
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

/// `13 of 14` for an image's layer, which a column has room for.
fn role_words(role: &str) -> String {
    match role.strip_prefix("image ") {
        Some(number) => number.replace('/', " of "),
        None => role.to_owned(),
    }
}
