//! What can be typed, and what the command line says of itself. Verbs bring their own arguments.

pub mod completion;
pub mod globals;
pub mod help;
pub mod kubectl;
mod paragraph;
pub mod plugin;

use std::ffi::OsString;
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Duration;

use clap::error::{ContextKind, ContextValue};
use clap::{FromArgMatches, Parser, Subcommand};

use crate::alike;
use crate::bytes::escape;
use crate::command;
use crate::error::{Error, Result};
use crate::repeat;
use globals::Global;

/// Show what is really in the layers of a union file system, and bring deleted files back
///
/// A TARGET is a container (id, name or unique prefix), an image (name[:tag] or id), a mount
/// point or a path under one, si_HEX, a process (PID) in a container, a layer (id, cache id or
/// directory), or a stack spelled br:DIR=PERM:DIR=PERM... or lowerdir=DIR:DIR,upperdir=DIR. Of each
/// of them TARGET@N is the view from branch N down.
/// Read-only but for `restore`.
#[derive(Debug, Parser)]
#[command(
    name = "layerctl",
    version = env!("LAYERCTL_VERSION"),
    disable_version_flag = true,
    propagate_version = true,
    arg_required_else_help = true
)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// What was typed.
///
/// # Errors
/// It cannot be meant. Help that was asked for is an error, too.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    // The texts of the help are made only for whoever will read them.
    if let Ok(typed) = Cli::try_parse_from(&arguments) {
        return Ok(typed);
    }
    let mut command = help::command();
    let matches = command.try_get_matches_from_mut(&arguments);
    let matches = matches.map_err(|error| with_verb(error, &command).format(&mut command))?;
    Cli::from_arg_matches(&matches)
}

/// Words of other programs that are no verbs here, each with the verb that does what they do there.
const WORDS: [(&str, &str); 32] = [
    ("inspect", "branches"),
    ("tree", "ls"),
    ("list", "ls"),
    ("stat", "which"),
    ("where", "which"),
    ("prune", "orphans"),
    ("df", "du"),
    ("system", "du"),
    ("size", "du"),
    ("usage", "du"),
    ("volume", "du"),
    ("volumes", "du"),
    ("log", "history"),
    ("search", "find"),
    ("locate", "find"),
    ("grep", "find"),
    ("recover", "restore"),
    ("rollback", "restore"),
    ("undo", "restore"),
    ("copy", "cp"),
    ("get", "cp"),
    ("extract", "cp"),
    ("save", "export"),
    ("commit", "export"),
    ("unmount", "umount"),
    ("fsck", "check"),
    ("doctor", "check"),
    ("health", "check"),
    ("status", "check"),
    ("who", "whois"),
    ("container", "containers"),
    ("image", "images"),
];

/// Names the verb where a word is another program's, or a slip of the pen.
fn with_verb(mut error: clap::Error, command: &clap::Command) -> clap::Error {
    let typed = match error.get(ContextKind::InvalidSubcommand) {
        Some(ContextValue::String(typed)) => typed.clone(),
        _ => return error,
    };
    let meant: Vec<&str> = match WORDS.iter().find(|(word, _)| *word == typed) {
        Some((_, verb)) => vec![*verb],
        None => {
            let verbs = command.get_subcommands().filter(|of| !of.is_hide_set());
            let words =
                verbs.flat_map(|of| std::iter::once(of.get_name()).chain(of.get_all_aliases()));
            alike::best(words.map(|word| (alike::likeness(&typed, word), word)))
        }
    };
    if !meant.is_empty() {
        let meant = meant.into_iter().map(str::to_owned).collect();
        error.insert(
            ContextKind::SuggestedSubcommand,
            ContextValue::Strings(meant),
        );
    }
    error
}

#[derive(Debug, Subcommand)]
pub enum Command {
    #[command(flatten)]
    OfHost(command::Command),
    #[command(flatten)]
    OfProgram(OfProgram),
}

impl Command {
    /// How often it is to be answered, where once is not enough.
    pub fn every(&self) -> Option<Duration> {
        match self {
            Command::OfHost(command) => command.every(),
            Command::OfProgram(_) => None,
        }
    }
}

/// What is asked about the program itself: no host is looked at.
#[derive(Debug, Subcommand)]
pub enum OfProgram {
    /// Print the completion script of a shell
    Completions {
        /// The shell
        shell: completion::Shell,
    },
    /// Print a man page: of one verb, or of layerctl itself
    Man {
        /// The verb; layerctl itself without it
        verb: Option<String>,
        /// Write every page into this directory, overwriting nothing
        #[arg(long, value_name = "DIR", conflicts_with = "verb", value_hint = clap::ValueHint::DirPath)]
        all: Option<PathBuf>,
    },
    /// Print the JSON Schema of a verb's `--format jsonl`, or of all verbs
    Schema {
        /// The verb; all of them without it
        verb: Option<String>,
    },
    /// Print version
    #[command(hide = true)]
    Version,
    /// Do nothing until ended: what keeps a pod that is asked
    #[command(hide = true)]
    Idle,
}

/// Longer than anybody waits.
const AN_AGE: Duration = Duration::from_secs(365 * 86_400);

impl OfProgram {
    /// Writes the answer.
    ///
    /// # Errors
    /// There is no such verb. Inside: the answer cannot be written.
    pub fn run(&self, out: &mut dyn Write) -> Result<io::Result<()>> {
        Ok(match self {
            OfProgram::Completions { shell } => completion::script(*shell, out),
            OfProgram::Idle => {
                repeat::every(AN_AGE, || ControlFlow::<()>::Continue(())).map(|_| ())
            }
            OfProgram::Version => writeln!(out, "layerctl {}", env!("LAYERCTL_VERSION")),
            OfProgram::Man {
                all: Some(directory),
                ..
            } => {
                help::write_pages(directory)?;
                Ok(())
            }
            OfProgram::Man { verb, all: None } => out.write_all(&help::page(verb.as_deref())?),
            OfProgram::Schema { verb } => {
                let schema = match verb {
                    Some(verb) => command::schema(verb).ok_or_else(|| no_such_verb(verb))?,
                    None => command::schemas(),
                };
                let written = serde_json::to_writer_pretty(&mut *out, &schema);
                written.map_err(Into::into).and_then(|()| writeln!(out))
            }
        })
    }
}

/// That a word is no verb's, and which may be meant.
fn no_such_verb(verb: &str) -> Error {
    let verbs = command::HELPS.iter().map(|(name, _)| *name);
    let meant = alike::best(verbs.map(|name| (alike::likeness(verb, name), name)));
    let hint = if meant.is_empty() {
        "`layerctl --help` lists them".to_owned()
    } else {
        format!("did you mean {}?", meant.join(", or "))
    };
    Error::Refused {
        what: format!("{}: no such verb", escape(verb.as_bytes())),
        hint,
    }
}
