//! layerctl shows what is really in the layers of a union file system.
//!
//! One idea carries all of it: **a union is a stack of branches, and one small function says
//! what a name means in it** - [`union::Node::child`]. Every verb is a use of that function.
//!
//! ```text
//! cli/         what can be typed
//! command/     one verb, one file: what was meant -> a report
//! restore/     found out, planned, printed, applied: how deleted things come back
//! target/      what a person calls a stack
//! engine/      who knows stacks: the kernel's mounts, Docker, containers-storage, containerd
//! difference   what a branch makes of the view below it
//! walk/        trees in order, however deep
//! host         where we look: --root
//! union/       what a name means in a stack                      <- the core
//! whiteout     how one branch spells that a name is deleted
//! overlay      what the options of an overlay mount say
//! branch       how branches are written by kernels and people
//! dir/         every system call on a layer, relative to an open directory
//! render/      how answers look: tables, JSON
//! error        what can go wrong, worded in one place
//! bytes        names are bytes: shown escaped, written for machines exactly
//! ```
//!
//! Dependencies point downwards. `union` and `whiteout` know no engine, an engine knows no verb,
//! and only this module sees both `cli` and `render`. All verbs but `restore` only read.

#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::todo,
        clippy::dbg_macro
    )
)]

pub mod branch;
pub mod bytes;
mod cli;
pub mod command;
pub mod difference;
pub mod dir;
pub mod engine;
pub mod error;
pub mod host;
pub mod overlay;
pub mod render;
pub mod restore;
pub mod target;
pub mod union;
pub mod walk;
pub mod whiteout;

use std::ffi::{OsStr, OsString};
use std::io::{self, BufWriter, IsTerminal, Read, Write};
use std::mem::ManuallyDrop;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use bytes::Bytes;
use command::{Context, Outcome, Threads};
use engine::{Roots, Survey};
use error::{Error, Result, errno_of};
use host::Host;
use render::{Ended, Format, Look, render};
use target::Base;
use union::Follow;

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

/// Runs the program and says how it ended.
pub fn run(arguments: std::env::ArgsOs) -> ExitCode {
    clap_complete::CompleteEnv::with_factory(cli::Cli::command).complete();
    let cli = match cli::Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            let status = if error.use_stderr() {
                Status::Unsure
            } else {
                Status::Yes
            };
            // A closed pipe is no reason to complain.
            let _ = error.print();
            return status.into();
        }
    };
    let look = look(&cli.global);
    match answer(cli, look) {
        Ok(status) => status.into(),
        Err(Failure::Error(error)) => {
            report(&error);
            Status::Unsure.into()
        }
        Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            Status::Yes.into()
        }
        Err(Failure::Output(error)) => {
            report(&Error::Usage(format!("standard output: {error}")));
            Status::Unsure.into()
        }
    }
}

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

/// Says on stderr what went wrong and what to do next.
fn report(error: &Error) {
    let mut err = io::stderr().lock();
    let _ = writeln!(err, "layerctl: {error}");
    if let Some(hint) = error.hint() {
        let _ = writeln!(err, "  {hint}");
    }
}

fn look(global: &cli::Global) -> Look {
    let stdout = io::stdout();
    let colors = match global.color {
        cli::ColorWhen::Always => true,
        cli::ColorWhen::Never => false,
        cli::ColorWhen::Auto => {
            anstream::AutoStream::choice(&stdout) != anstream::ColorChoice::Never
        }
    };
    let format = match (global.null, global.quiet, global.format) {
        (true, ..) => Format::Null,
        (_, true, _) => Format::Quiet,
        (.., cli::Format::Table) => Format::Table,
        (.., cli::Format::Json) => Format::Json,
        (.., cli::Format::Jsonl) => Format::Jsonl,
    };
    Look {
        format,
        no_trunc: global.no_trunc,
        exact_sizes: global.bytes,
        verbose: global.verbose,
        colors,
        is_terminal: stdout.is_terminal(),
    }
}

fn answer(cli: cli::Cli, look: Look) -> Result<Status, Failure> {
    let mut out = BufWriter::new(io::stdout().lock());
    let namespace = cli.namespace().cloned();
    let verb = match cli.command {
        cli::Command::Completions { shell } => {
            completions(shell, &mut out)?;
            out.flush()?;
            return Ok(Status::Yes);
        }
        cli::Command::Man { verb } => {
            man(verb.as_deref(), &mut out)?;
            out.flush()?;
            return Ok(Status::Yes);
        }
        cli::Command::Schema { verb } => {
            let schema = command::schema(&verb).ok_or_else(|| no_such_verb(&verb))?;
            serde_json::to_writer_pretty(&mut out, &schema).map_err(io::Error::from)?;
            writeln!(out)?;
            out.flush()?;
            return Ok(Status::Yes);
        }
        verb => verb,
    };
    // The process ends when the answer is given: what is open then, the kernel closes at once.
    let host = ManuallyDrop::new(Host::open(&cli.global.root)?);
    let survey = Survey::new(&host, roots(&host, &cli.global.roots(), namespace));
    let mut context = Context {
        survey,
        base: base(&host),
        problems: Vec::new(),
        threads: Threads(cli.global.threads),
    };
    let threads = context.threads;
    let outcome = dispatch(&mut context, verb, look);
    let shown = outcome.map(|Outcome { report, is_yes }| {
        let mut ended = Ended::default();
        let written = render(report, look, threads, &mut out, &mut ended);
        context.problems.extend(ended.problems);
        written.and_then(|()| out.flush())?;
        Ok::<bool, io::Error>(is_yes && !ended.is_no)
    });
    let is_incomplete = report_problems(&context);
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
    let mut said = std::collections::HashSet::new();
    for problem in problems {
        if said.insert(problem.to_string()) {
            report(problem);
        }
    }
    !said.is_empty()
}

/// Relative directories start at the working directory, or at the root that was given.
fn base(host: &Host) -> Base {
    let here = if host.is_live() {
        std::env::current_dir().unwrap_or_else(|_| "/".into())
    } else {
        "/".into()
    };
    Base(Bytes::from(here.as_path()))
}

/// What engines are told. On a copy of a host it does not matter who asks, nor in what
/// environment.
fn roots(host: &Host, named: &cli::NamedRoots, namespace: Option<String>) -> Roots {
    let on_host = |path: &Option<PathBuf>| path.as_deref().map(|path| on_host(host, path));
    let configuration = std::env::var_os("CONTAINERS_STORAGE_CONF").filter(|_| host.is_live());
    let user = rustix::process::geteuid();
    let of_environment = std::env::var("CONTAINERD_NAMESPACE").ok();
    let of_environment = of_environment.filter(|name| !name.is_empty());
    Roots {
        containerd: on_host(&named.containerd),
        containerd_state: on_host(&named.containerd_state),
        is_only_namespace: namespace.is_some(),
        namespace: namespace.or(of_environment),
        docker: on_host(&named.docker),
        storage: on_host(&named.storage),
        storage_configuration: on_host(&configuration.map(PathBuf::from)),
        caller: (host.is_live() && !user.is_root()).then(|| user.as_raw()),
    }
}

/// An engine's directory lies inside the root; a relative one starts where others do.
fn on_host(host: &Host, path: &Path) -> Bytes {
    if path.is_absolute() {
        Bytes::from(path)
    } else {
        base(host).0.join(path.as_os_str().as_bytes())
    }
}

fn read_stdin() -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    io::stdin()
        .lock()
        .read_to_end(&mut bytes)
        .map_err(|error| Error::io("/dev/stdin", errno_of(&error)))?;
    Ok(bytes)
}

fn dispatch(context: &mut Context<'_>, verb: cli::Command, look: Look) -> Result<Outcome> {
    use command::*;
    let bytes = |text: &Option<OsString>| text.as_deref().map(|text| text.as_bytes().to_vec());
    match verb {
        cli::Command::Whois { things, .. } => {
            let (stdin, things): (Vec<OsString>, Vec<OsString>) =
                things.into_iter().partition(|thing| thing == "-");
            whois::run(
                context,
                &whois::Query {
                    things: things.iter().map(|thing| thing.as_bytes()).collect(),
                    lines: if stdin.is_empty() {
                        None
                    } else {
                        Some(read_stdin()?)
                    },
                },
            )
        }
        cli::Command::Orphans { .. } => orphans::run(context),
        cli::Command::Du { target, .. } => du::run(context, bytes(&target).as_deref()),
        cli::Command::Branches { target, .. } => branches::run(context, bytes(&target).as_deref()),
        cli::Command::Which {
            within,
            no_follow,
            paths,
            ..
        } => which::run(
            context,
            &which::Query {
                within: within.as_deref().map(OsStr::as_bytes),
                paths: paths.iter().map(|path| path.as_bytes()).collect(),
                follow: if no_follow {
                    Follow::NotLast
                } else {
                    Follow::All
                },
            },
        ),
        cli::Command::Ls {
            within,
            recursive,
            long,
            arguments,
            ..
        } => ls::run(
            context,
            &ls::Query {
                within: within.as_deref().map(OsStr::as_bytes),
                arguments: arguments
                    .iter()
                    .map(|argument| argument.as_bytes())
                    .collect(),
                depth: if recursive {
                    ls::Depth::Recursive
                } else {
                    ls::Depth::OneLevel
                },
                detail: if long {
                    ls::Detail::Long
                } else {
                    ls::Detail::Short
                },
                ghosts: if look.verbose {
                    ls::Ghosts::Shown
                } else {
                    ls::Ghosts::Hidden
                },
            },
        ),
        cli::Command::Whiteouts {
            target,
            glob,
            all_layers,
            recoverable,
            ..
        } => whiteouts::run(
            context,
            whiteouts::Query {
                target: target.as_deref().map(OsStr::as_bytes),
                layers: if all_layers {
                    whiteouts::Layers::All
                } else {
                    whiteouts::Layers::Writable
                },
                glob: glob
                    .as_deref()
                    .map(|glob| whiteouts::Glob::new(glob.as_bytes()))
                    .transpose()?,
                only: if recoverable {
                    whiteouts::Only::Recoverable
                } else {
                    whiteouts::Only::Everything
                },
            },
        ),
        cli::Command::Copyups { target, .. } => copyups::run(context, bytes(&target).as_deref()),
        cli::Command::Changes { target, long, .. } => changes::run(
            context,
            &changes::Query {
                target: target.as_deref().map(OsStr::as_bytes),
                detail: if long {
                    changes::Detail::Long
                } else {
                    changes::Detail::Short
                },
            },
        ),
        cli::Command::History { target, .. } => history::run(context, target.as_bytes()),
        cli::Command::Containers { .. } => containers::run(context),
        cli::Command::Images { all, .. } => images::run(
            context,
            if all {
                images::Which::All
            } else {
                images::Which::Top
            },
        ),
        cli::Command::Check { target, .. } => check::run(context, bytes(&target).as_deref()),
        cli::Command::Info { .. } => info::run(context),
        cli::Command::Restore(arguments) => restore::run(context, &restore_query(&arguments)?),
        cli::Command::Completions { .. }
        | cli::Command::Man { .. }
        | cli::Command::Schema { .. } => {
            unreachable!("answered before a host is opened")
        }
    }
}

fn restore_query(typed: &cli::Restore) -> Result<command::restore::Query<'_>> {
    use command::restore::{Apply, Changed, Consent, Depth, Goal, Query, Strategy};
    let goal = match (&typed.to, typed.revert, &typed.save, typed.discard) {
        (Some(to), ..) => Goal::CopyOut(std::path::absolute(to).unwrap_or_else(|_| to.clone())),
        (_, true, Some(save), _) => Goal::Revert(Changed::Save(
            std::path::absolute(save).unwrap_or_else(|_| save.clone()),
        )),
        (_, true, None, true) => Goal::Revert(Changed::Discard),
        (_, true, None, false) => {
            return Err(Error::Usage(
                "--revert replaces the changed file: say --save DIR to keep it, or --discard"
                    .into(),
            ));
        }
        _ => Goal::Undelete(typed.strategy.map(|strategy| match strategy {
            cli::Strategy::Unhide => Strategy::Unhide,
            cli::Strategy::Copy => Strategy::Copy,
        })),
    };
    Ok(Query {
        within: typed.within.as_deref().map(OsStr::as_bytes),
        path: typed.path.as_bytes(),
        goal,
        apply: if typed.dry_run {
            Apply::OnlyPlan
        } else {
            Apply::Now
        },
        depth: if typed.recursive {
            Depth::Whole
        } else {
            Depth::OneEntry
        },
        consent: if typed.yes {
            Consent::Given
        } else {
            Consent::NotGiven
        },
        may_write_copy: typed.write,
    })
}

fn no_such_verb(verb: &str) -> Error {
    Error::Usage(format!(
        "{}: no such verb; `layerctl --help` lists them",
        bytes::escape(verb.as_bytes())
    ))
}

fn completions(shell: cli::Shell, out: &mut impl Write) -> io::Result<()> {
    use clap_complete::env::{Bash, EnvCompleter, Fish, Zsh};
    let completer: &dyn EnvCompleter = match shell {
        cli::Shell::Bash => &Bash,
        cli::Shell::Zsh => &Zsh,
        cli::Shell::Fish => &Fish,
    };
    completer.write_registration("COMPLETE", "layerctl", "layerctl", "layerctl", out)
}

fn man(verb: Option<&str>, out: &mut impl Write) -> Result<(), Failure> {
    let mut command = cli::Cli::command();
    command.build();
    let page = match verb {
        None => command,
        // Once built, a verb's display name is layerctl-VERB.
        Some(verb) => command
            .find_subcommand(verb)
            .cloned()
            .ok_or_else(|| no_such_verb(verb))?,
    };
    Ok(clap_mangen::Man::new(page).render(out)?)
}

/// Names for completion: what the command line that is being typed would find.
fn target_names() -> Vec<(String, String)> {
    let named = cli::NamedRoots::of(std::env::args_os());
    let Ok(host) = Host::open(&named.host) else {
        return Vec::new();
    };
    target::names(&Survey::new(&host, roots(&host, &named, None)))
}
