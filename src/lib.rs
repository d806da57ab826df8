//! layerctl shows what is really in the layers of a union file system.
//!
//! One idea carries all of it: **a union is a stack of branches, and one small function says
//! what a name means in it** - `union::Node::child`. Every verb is a use of that function.
//!
//! # The floors
//!
//! A module imports from lines below its own only.
//!
//! ```text
//! cli/         what can be typed for every verb; completion, man pages
//! command/     one verb, one file: what can be typed, what is found, how its rows look
//! mount/       views as file systems that the kernel mounts: FUSE
//! rescue/      images and containers written down for other engines; layers held against their digests
//! restore/     found out, planned, guarded, applied: how deleted things come back
//! target/      what a person calls a stack
//! engine/      who knows stacks: the kernel's mounts, Docker, containers-storage, containerd
//! forest       many stacks, walked at once: what they share is read once
//! difference   what one view is, seen from another
//! walk/        trees in order, however deep, by several threads
//! host         where we look: --root
//! repeat       the same again and again
//! interrupt    Ctrl-C
//! union/       what a name means in a stack                      <- the core
//! whiteout/    how one branch spells that a name is deleted
//! overlay      what the options of an overlay mount say
//! branch       how branches are written by kernels and people
//! dir/         every system call on a layer, relative to an open directory
//! erofs/       what an EROFS image says, from its bytes
//! render/      how answers look: columns, tables, JSON, sizes and times
//! error        what can go wrong, worded in one place
//! alike        what was meant by a slip of the pen
//! bytes        names are bytes: shown escaped, written for machines exactly
//! ```
//!
//! `which web:/etc/shadow` goes down once: `cli` has the words, `target` asks the engines which
//! stack `web` is, `engine` opens its branches, `union::lookup` says what the path means. It comes
//! back once: the verb makes a row of that, and `command::answer` shows rows in every form. All
//! verbs but `restore` only read.
//!
//! # Words
//!
//! ```text
//! branch       one directory of a union, with a permission and attributes
//! stack        the branches of one union, topmost first
//! layer        what an engine calls the content behind a branch
//! whiteout     a mark that says: deleted
//! opaque       a mark on a directory that says: nothing below shows through
//! housekeeping AUFS's own entries, which are never whiteouts
//! copy-up      a lower file copied to the writable branch because something was to change it
//! provider     the branch whose entry the merged view shows
//! shadowed     an entry below the provider: on disk, not visible
//! stale        said of a whiteout that hides nothing
//! grammar      how one branch spells whiteout and opaque
//! engine       what knows names for stacks
//! host         the file system that is looked at: `/`, or the tree given with --root
//! ```
//!
//! What kernels and engines were seen to do, and what the code therefore relies on, is in
//! docs/facts.md. How a verb, an engine or a spelling of deletion is added is in CONTRIBUTING.md.

#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::todo,
        clippy::dbg_macro
    )
)]

mod alike;
mod branch;
mod bytes;
mod cli;
mod command;
mod difference;
mod dir;
mod engine;
mod erofs;
mod error;
mod forest;
mod host;
mod interrupt;
mod mount;
mod overlay;
mod render;
mod repeat;
mod rescue;
mod restore;
mod target;
mod union;
mod walk;
mod whiteout;

/// What the program's own tests and fuzz targets ask; to everybody else `run` is all there is.
#[cfg(feature = "internals")]
pub mod internals {
    macro_rules! open {
        ($($module:ident)*) => {
            $(pub mod $module {
                pub use crate::$module::*;
            })*
        };
    }

    open! { branch bytes difference dir engine erofs error overlay union whiteout }
}

use std::borrow::Cow;
use std::collections::HashMap;
use std::ffi::OsString;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::mem::ManuallyDrop;
use std::ops::ControlFlow;
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use command::progress::{Output, Progress};
use command::{Context, Threads};
use engine::Survey;
use error::Error;
use host::Host;
use render::Look;
use render::template::Lines;
use rustix::io::Errno;

/// How a run ended, as the exit status says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Status {
    /// Yes, or done.
    Yes,
    /// No: not there, nothing to restore, something was found.
    No,
    /// Could not tell, or was used wrongly.
    Unsure,
}

impl From<Status> for ExitCode {
    fn from(status: Status) -> ExitCode {
        ExitCode::from(match status {
            Status::Yes => 0,
            Status::No => 1,
            Status::Unsure => 2,
        })
    }
}

/// Runs the program and says how it ended: the answer goes to standard output, everything else to
/// standard error.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    cli::completion::answer();
    let out = &mut BufWriter::new(io::stdout().lock());
    match cli::plugin::asked(arguments.into_iter().collect()) {
        cli::plugin::Asked::Words(words) => run_with(words, out, true),
        cli::plugin::Asked::Kubectl(words) => cli::kubectl::run(words, out),
        cli::plugin::Asked::Metadata(metadata) => match writeln!(out, "{metadata}") {
            Ok(()) => Status::Yes.into(),
            Err(error) => Failure::Output(error).report().into(),
        },
    }
}

/// The same, with the answer written to `out`. What a terminal would need is still seen at
/// standard output.
pub fn run_to(arguments: impl IntoIterator<Item = OsString>, out: &mut dyn Write) -> ExitCode {
    run_with(arguments, out, false)
}

fn run_with(
    arguments: impl IntoIterator<Item = OsString>,
    out: &mut dyn Write,
    is_direct: bool,
) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let status = match cli::parse(arguments.iter().cloned()) {
        Ok(typed) => match typed.command.every() {
            Some(period) => answer_every(period, &arguments, out),
            None => answer(typed, out, is_direct).unwrap_or_else(Failure::report),
        },
        Err(error) => {
            // A closed pipe is no reason to complain.
            let _ = error.print();
            if error.use_stderr() {
                Status::Unsure
            } else {
                Status::Yes
            }
        }
    };
    status.into()
}

/// Why there is no answer, or no whole one.
enum Failure {
    Error(Error),
    Output(io::Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Error(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure::Output(error)
    }
}

impl Failure {
    /// The answer itself is what cannot be had, and not the place that it is written to.
    fn is_of_answer(&self) -> bool {
        match self {
            Failure::Error(_) => true,
            Failure::Output(error) => error.get_ref().is_some_and(|of| of.is::<Error>()),
        }
    }

    fn report(self) -> Status {
        match self {
            Failure::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                return Status::Yes;
            }
            Failure::Output(error) => match error.downcast::<Error>() {
                // A template fits no row.
                Ok(error) => report(&error, 1),
                Err(error) => report(&Error::Usage(format!("standard output: {error}")), 1),
            },
            Failure::Error(error) => report(&error, 1),
        }
        Status::Unsure
    }
}

/// Says on stderr what went wrong, how often, and what to do next.
fn report(error: &Error, times: usize) {
    say("", error, times);
}

/// The same, of what stands before it.
fn say(of: &str, error: &Error, times: usize) {
    let mut said = format!("layerctl: {of}{error}");
    if times > 1 {
        said.push_str(&format!(" ({times} times)"));
    }
    said.push('\n');
    if let Some(hint) = error.hint() {
        said.push_str(&format!("  {hint}\n"));
    }
    // At once: others may write there, too.
    let _ = io::stderr().write_all(said.as_bytes());
}

/// Answers again and again. What cannot be answered at all the first time is wrongly asked; later it
/// may be otherwise the next time.
fn answer_every(period: Duration, arguments: &[OsString], out: &mut dyn Write) -> Status {
    let mut is_first = true;
    let ended = repeat::every(period, || {
        let typed = match cli::parse(arguments.iter().cloned()) {
            Ok(typed) => typed,
            Err(_) => return ControlFlow::Break(Status::Unsure),
        };
        let answered = answer(typed, out, false);
        if interrupt::is_asked_to_end() {
            return ControlFlow::Break(Status::Yes);
        }
        let may_go_on = !std::mem::take(&mut is_first);
        match answered {
            Ok(_) => ControlFlow::Continue(()),
            Err(failure) => {
                let is_of_round = may_go_on && failure.is_of_answer();
                let status = failure.report();
                if is_of_round {
                    ControlFlow::Continue(())
                } else {
                    ControlFlow::Break(status)
                }
            }
        }
    });
    match ended {
        Ok(status) => status.unwrap_or(Status::Yes),
        Err(error) => Failure::Error(Error::Usage(format!("signals: {error}"))).report(),
    }
}

fn answer(typed: cli::Cli, out: &mut dyn Write, is_direct: bool) -> Result<Status, Failure> {
    let command = match typed.command {
        cli::Command::OfHost(command) => command,
        cli::Command::OfProgram(command) => {
            command.run(out)??;
            out.flush()?;
            return Ok(Status::Yes);
        }
    };
    // What fits no row is said before anything is looked at.
    let look = typed.global.look()?;
    let template = typed.global.template();
    let template = template
        .map(|source| Lines::new(source, command.fields(), look))
        .transpose()?;
    let shape = Shape { look, template };
    let is_last = command.every().is_none();
    // The process ends when the last answer is given: what is open then, the kernel closes at once.
    let host = ManuallyDrop::new(Host::open(&typed.global.root)?);
    let answered = answer_about(&host, &typed.global, command, shape, (out, is_direct));
    if !is_last {
        drop(ManuallyDrop::into_inner(host));
    }
    answered
}

/// How an answer is to be shown.
struct Shape {
    look: Look,
    template: Option<Lines>,
}

/// The same once it is known which host is meant.
fn answer_about(
    host: &Host,
    global: &cli::globals::Global,
    command: command::Command,
    Shape { look, mut template }: Shape,
    (out, is_direct): (&mut dyn Write, bool),
) -> Result<Status, Failure> {
    let mut context = Context {
        survey: Survey::new(host, engine::ENGINES, global.roots(host)),
        base: cli::globals::base(host),
        problems: Vec::new(),
        notes: Vec::new(),
        threads: Threads(global.threads),
        is_verbose: global.verbose,
        is_direct: is_direct && template.is_none(),
        looked: None,
    };
    let mut progress = Progress::of(command.verb());
    let shown = {
        let out = &mut Output {
            progress: progress.as_mut(),
            out: &mut *out,
        };
        let shown = match &mut template {
            Some(lines) => command.run(&mut context, look, &mut lines.to(out)),
            None => command.run(&mut context, look, out),
        };
        shown.map(|shown| {
            let is_yes = shown?;
            template.map_or(Ok(()), |lines| lines.end(out))?;
            out.flush().map(|()| is_yes)
        })
    };
    // Its line would stand among what is said now.
    drop(progress);
    if let Err(Error::NothingMounted | Error::NothingAt(_)) = &shown {
        context.note_no_engine();
    }
    context.notes.iter().for_each(|note| report(note, 1));
    let is_incomplete = report_problems(&context);
    // A person wants to know how much an answer is about; a program has counted.
    if let Some(looked) = context.looked.filter(|_| io::stderr().is_terminal()) {
        let _ = writeln!(io::stderr(), "{looked}");
    }
    match (shown?, is_incomplete) {
        // Whoever reads no further is told of what went wrong until then.
        (Err(error), true) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Status::Unsure),
        (Err(error), _) => Err(error.into()),
        (Ok(_), true) => Ok(Status::Unsure),
        (Ok(true), false) => Ok(Status::Yes),
        (Ok(false), false) => Ok(Status::No),
    }
}

/// Says what could not be read, each thing once, and whether there was any.
fn report_problems(context: &Context<'_>) -> bool {
    let vanished = context.survey.take_vanished();
    let of_engines = context.survey.take_problems();
    let problems = context
        .survey
        .problems()
        .chain(&of_engines)
        .chain(&vanished)
        .chain(&context.problems);
    // In the order in which they came; one that came again is counted.
    let mut said: Vec<Said<'_>> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    for problem in problems {
        let (error, union) = problem.parts();
        let place = closed_place(error, &context.survey).filter(|_| !context.is_verbose);
        let denied = place.map(|place| Error::io(place.clone(), Errno::ACCESS));
        let error = denied.map_or(Cow::Borrowed(error), Cow::Owned);
        let at = *places.entry(error.to_string()).or_insert(said.len());
        if at == said.len() {
            said.push(Said {
                error,
                unions: Vec::new(),
                times: 0,
            });
        }
        // That it is closed is one thing, whatever was looked for in it.
        if place.is_some() {
            said[at].times = 1;
            continue;
        }
        said[at].times += 1;
        if let Some(union) = union.filter(|union| !said[at].unions.contains(union)) {
            said[at].unions.push(union);
        }
    }
    said.iter().for_each(Said::report);
    !said.is_empty()
}

/// The data directory, closed to who asks, in which what could not be read lies.
fn closed_place<'s>(error: &Error, survey: &'s Survey<'_>) -> Option<&'s Bytes> {
    let path = match error {
        Error::MarksUnreadable { union } => union,
        Error::Io { path, .. } | Error::BranchLost { path, .. } if error.is_denied() => path,
        _ => return None,
    };
    let mut closed = survey.closed_places().iter();
    closed.find(|place| path.lies_in(place))
}

/// What could not be read, and of which unions, where it is of some.
struct Said<'e> {
    error: Cow<'e, Error>,
    unions: Vec<&'e Bytes>,
    times: usize,
}

/// So many unions are named of those that one problem is of.
const UNIONS_NAMED: usize = 3;

impl Said<'_> {
    fn report(&self) {
        let named = self.unions.iter().take(UNIONS_NAMED);
        let named: Vec<String> = named.map(ToString::to_string).collect();
        let mut of = named.join(", ");
        if self.unions.len() > UNIONS_NAMED {
            of.push_str(&format!(" and {} more", self.unions.len() - UNIONS_NAMED));
        }
        if !of.is_empty() {
            of.push_str(": ");
        }
        // Once of each goes without saying.
        let times = if self.times == self.unions.len() {
            1
        } else {
            self.times
        };
        say(&of, &self.error, times);
    }
}
