//! What can be typed, and what the command line says of itself. Verbs bring their own arguments.

pub mod completion;
pub mod globals;

use std::io::{self, Write};

use clap::{CommandFactory, Parser, Subcommand};

use crate::bytes::escape;
use crate::command;
use crate::error::{Error, Result};
use globals::Global;

/// Show what is really in the layers of a union file system, and bring deleted files back
///
/// A TARGET is a container (id, name or unique prefix), an image (name[:tag] or id), a mount
/// point or a path under one, si_HEX, a process (PID) in a container, a layer (id, cache id or
/// directory), or a stack spelled br:DIR=PERM:DIR=PERM... or lowerdir=DIR:DIR,upperdir=DIR.
/// Read-only but for `restore`.
#[derive(Debug, Parser)]
#[command(
    name = "layerctl",
    version,
    disable_version_flag = true,
    propagate_version = true,
    arg_required_else_help = true
)]
#[command(after_help = "Exit status: 0 yes or done; 1 no; 2 could not tell, or used wrongly.")]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    #[command(flatten)]
    OfHost(command::Command),
    #[command(flatten)]
    OfProgram(OfProgram),
}

/// What is asked about the program itself: no host is looked at.
#[derive(Debug, Subcommand)]
pub enum OfProgram {
    /// Print the completion script of a shell
    Completions { shell: completion::Shell },
    /// Print a man page: of one verb, or of layerctl itself
    Man { verb: Option<String> },
    /// Print the JSON Schema of a verb's `--format jsonl`
    Schema { verb: String },
}

impl OfProgram {
    /// Writes the answer.
    ///
    /// # Errors
    /// There is no such verb. Inside: the answer cannot be written.
    pub fn run(&self, out: &mut dyn Write) -> Result<io::Result<()>> {
        Ok(match self {
            OfProgram::Completions { shell } => completion::script(*shell, out),
            OfProgram::Man { verb } => man(verb.as_deref())?.render(&mut { out }),
            OfProgram::Schema { verb } => {
                let schema = command::schema(verb).ok_or_else(|| no_such_verb(verb))?;
                let written = serde_json::to_writer_pretty(&mut *out, &schema);
                written.map_err(Into::into).and_then(|()| writeln!(out))
            }
        })
    }
}

fn man(verb: Option<&str>) -> Result<clap_mangen::Man> {
    let mut command = Cli::command();
    command.build();
    let page = match verb {
        None => command,
        // Once built, a verb's display name is layerctl-VERB.
        Some(verb) => command
            .find_subcommand(verb)
            .cloned()
            .ok_or_else(|| no_such_verb(verb))?,
    };
    Ok(clap_mangen::Man::new(page))
}

fn no_such_verb(verb: &str) -> Error {
    Error::Usage(format!(
        "{}: no such verb; `layerctl --help` lists them",
        escape(verb.as_bytes())
    ))
}
