//! Completion: scripts for shells, and what they are offered, read from disk. No daemon is asked.

mod words;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::Path;

use clap::{CommandFactory, ValueEnum};
use clap_complete::engine::{ArgValueCompleter, complete};
use clap_complete::env::{EnvCompleter, Fish, Shells};

use super::Cli;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// Answers a shell that completes a command line, and ends the program then.
pub fn answer() {
    let completion = clap_complete::CompleteEnv::with_factory(command);
    completion.shells(Shells(&[&BASH, &ZSH, &Fish])).complete();
}

/// Writes the script that makes a shell ask.
///
/// # Errors
/// The output cannot be written.
pub fn script(shell: Shell, out: &mut dyn Write) -> io::Result<()> {
    let completer: &dyn EnvCompleter = match shell {
        Shell::Bash => &BASH,
        Shell::Zsh => &ZSH,
        Shell::Fish => &Fish,
    };
    completer.write_registration("COMPLETE", "layerctl", "layerctl", "layerctl", &mut { out })
}

/// A shell whose script is our own: the library's gives a word with a colon in parts, and puts
/// names into the line that the shell would act on.
struct OwnScript {
    name: &'static str,
    script: &'static str,
    /// What a word is goes behind it.
    has_help: bool,
}

const BASH: OwnScript = OwnScript {
    name: "bash",
    script: include_str!("../../../completions/layerctl.bash"),
    has_help: false,
};

const ZSH: OwnScript = OwnScript {
    name: "zsh",
    script: include_str!("../../../completions/_layerctl"),
    has_help: true,
};

impl EnvCompleter for OwnScript {
    fn name(&self) -> &'static str {
        self.name
    }

    fn is(&self, name: &str) -> bool {
        name == self.name
    }

    fn write_registration(
        &self,
        _var: &str,
        _name: &str,
        _bin: &str,
        _completer: &str,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        out.write_all(self.script.as_bytes())
    }

    fn write_complete(
        &self,
        command: &mut clap::Command,
        mut typed: Vec<OsString>,
        here: Option<&Path>,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        let index = std::env::var("_CLAP_COMPLETE_INDEX").ok();
        let index: usize = index.and_then(|text| text.parse().ok()).unwrap_or_default();
        if typed.len() == index {
            typed.push(OsString::new());
        }
        for candidate in complete(command, typed, index, here)? {
            let Some(word) = candidate.get_value().to_str() else {
                continue;
            };
            let help = candidate.get_help().map(ToString::to_string);
            match help.as_deref().and_then(|help| help.lines().next()) {
                Some(help) if self.has_help => writeln!(out, "{word}\t{help}")?,
                _ => writeln!(out, "{word}")?,
            }
        }
        Ok(())
    }
}

/// The command line, on which whatever takes a TARGET or a path of one completes it.
fn command() -> clap::Command {
    let command = Cli::command().mut_subcommands(|verb| {
        verb.mut_args(|argument| {
            let names = argument.get_value_names().unwrap_or_default();
            let is_named = |part: &str| names.iter().any(|name| name.contains(part));
            if is_named("DEST") {
                argument.add(ArgValueCompleter::new(words::paths_and_files))
            } else if is_named("PATH") && is_named("TARGET") {
                argument.add(ArgValueCompleter::new(words::paths))
            } else if is_named("TARGET") {
                argument.add(ArgValueCompleter::new(words::targets))
            } else {
                argument
            }
        })
    });
    let of_verbs = |verb: clap::Command| {
        verb.mut_arg("verb", |argument| {
            argument.add(ArgValueCompleter::new(words::verbs))
        })
    };
    let of_host = |verb: clap::Command| {
        verb.mut_arg("things", |argument| {
            argument.add(ArgValueCompleter::new(words::host_paths))
        })
    };
    command
        .mut_subcommand("whois", of_host)
        .mut_subcommand("man", of_verbs)
        .mut_subcommand("schema", of_verbs)
}
