//! Completion: scripts for shells, and the names that a TARGET can have, read from disk. No daemon
//! is asked.

use std::ffi::{OsStr, OsString};
use std::io::{self, Write};

use clap::{CommandFactory, FromArgMatches, ValueEnum};
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};
use clap_complete::env::{Bash, EnvCompleter, Fish, Zsh};

use super::Cli;
use super::globals::Global;
use crate::engine::{ENGINES, Survey};
use crate::host::Host;
use crate::target;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// Answers a shell that completes a command line, and ends the program then.
pub fn answer() {
    clap_complete::CompleteEnv::with_factory(command).complete();
}

/// Writes the script that makes a shell ask.
///
/// # Errors
/// The output cannot be written.
pub fn script(shell: Shell, out: &mut dyn Write) -> io::Result<()> {
    let completer: &dyn EnvCompleter = match shell {
        Shell::Bash => &Bash,
        Shell::Zsh => &Zsh,
        Shell::Fish => &Fish,
    };
    completer.write_registration("COMPLETE", "layerctl", "layerctl", "layerctl", &mut { out })
}

/// The command line, on which whatever takes a TARGET completes one.
fn command() -> clap::Command {
    Cli::command().mut_subcommands(|verb| {
        verb.mut_args(|argument| {
            let names = argument.get_value_names().unwrap_or_default();
            if names.iter().any(|name| name.contains("TARGET")) {
                argument.add(ArgValueCompleter::new(targets))
            } else {
                argument
            }
        })
    })
}

fn targets(current: &OsStr) -> Vec<CompletionCandidate> {
    let typed = current.to_string_lossy();
    let names = names().unwrap_or_default().into_iter();
    names
        .filter(|(name, _)| name.starts_with(&*typed))
        .map(|(name, what)| CompletionCandidate::new(name).help(Some(what.into())))
        .collect()
}

/// The names that the command line which is being typed would find, each with what it is.
fn names() -> Option<Vec<(String, String)>> {
    let typed = std::env::args_os().skip_while(|argument| argument != "--");
    let global = globals(typed.skip(1))?;
    let host = Host::open(&global.root).ok()?;
    let survey = Survey::new(&host, ENGINES, global.roots(&host));
    Some(target::names(&survey))
}

/// The options for every verb of a command line that need not be whole.
fn globals(typed: impl Iterator<Item = OsString>) -> Option<Global> {
    let command = Cli::command().ignore_errors(true);
    let matches = command.try_get_matches_from(typed).ok()?;
    Global::from_arg_matches(&matches).ok()
}
