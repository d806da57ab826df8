//! Options that every verb takes: which host, which stores, how to print.

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::builder::ArgAction;
use clap::{Arg, ArgMatches, Args, FromArgMatches, ValueEnum, ValueHint, value_parser};
use clap_complete::engine::{ArgValueCandidates, CompletionCandidate};

use crate::bytes::Bytes;
use crate::engine::{self, EngineOption, Roots};
use crate::error::{Error, Result};
use crate::host::Host;
use crate::render::{self, Look};
use crate::target::Base;

#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// The root of the host to look at: / or a copy of one
    #[arg(long, global = true, value_name = "DIR", default_value = "/", hide_default_value = true, value_hint = ValueHint::DirPath)]
    pub root: PathBuf,
    #[command(flatten)]
    engines: EngineOptions,
    /// How to print the answer: table, json (one document), jsonl (one object a line), or a template
    /// as docker has it: '{{.name}}', 'table {{.ID}}\t{{.Names}}'
    #[arg(
        long,
        global = true,
        value_name = "FORMAT",
        default_value = "table",
        hide_default_value = true,
        value_parser = format_of,
        add = ArgValueCandidates::new(formats)
    )]
    pub format: Format,
    /// Print only ids or paths
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Print paths raw, each ended by a NUL byte
    #[arg(short = '0', long, global = true)]
    pub null: bool,
    /// Print whole ids and instructions
    #[arg(long, global = true)]
    pub no_trunc: bool,
    /// Print sizes exactly, in bytes
    #[arg(long, global = true)]
    pub bytes: bool,
    /// When to use colours
    #[arg(
        long,
        global = true,
        value_name = "WHEN",
        default_value = "auto",
        hide_default_value = true
    )]
    pub color: ColorWhen,
    /// Walk trees with so many threads [default: one a processor, 8 at most; never more than 64]
    #[arg(short = 'j', long, global = true, value_name = "N")]
    pub threads: Option<NonZeroUsize>,
    /// Print more
    #[arg(short, long, global = true)]
    pub verbose: bool,
    /// Print version
    #[arg(short = 'V', long, global = true, action = ArgAction::Version)]
    version: Option<bool>,
}

/// What was typed for the options that engines bring.
#[derive(Debug)]
struct EngineOptions(Vec<(&'static EngineOption, OsString)>);

impl FromArgMatches for EngineOptions {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let typed = engine::options().filter_map(|option| {
            let typed = match option.value {
                engine::Value::Path => matches.get_one::<PathBuf>(option.name)?.into(),
                engine::Value::Namespace => matches.get_one::<String>(option.name)?.into(),
            };
            Some((option, typed))
        });
        Ok(EngineOptions(typed.collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = EngineOptions::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for EngineOptions {
    fn augment_args(command: clap::Command) -> clap::Command {
        command.args(engine::options().map(|option| {
            let argument = Arg::new(option.name)
                .long(option.name)
                .help(option.help)
                .global(true)
                .value_name(option.value.placeholder());
            let argument = match option.value {
                engine::Value::Path => argument
                    .value_parser(value_parser!(PathBuf))
                    .value_hint(ValueHint::DirPath),
                engine::Value::Namespace => argument.value_parser(value_parser!(String)),
            };
            let argument = match option.short {
                Some(short) => argument.short(short),
                None => argument,
            };
            match option.requires {
                Some(other) => argument.requires(other),
                None => argument,
            }
        }))
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        EngineOptions::augment_args(command)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Format {
    Table,
    Json,
    Jsonl,
    /// A template for each row.
    Template(String),
}

fn format_of(typed: &str) -> Result<Format, String> {
    match typed.trim() {
        "table" => Ok(Format::Table),
        "json" => Ok(Format::Json),
        "jsonl" => Ok(Format::Jsonl),
        // What is in no braces would be the same for every row: a slip of the pen.
        template if template.contains("{{") => Ok(Format::Template(template.to_owned())),
        _ => Err("table, json, jsonl, or a template such as '{{.name}}'".to_owned()),
    }
}

fn formats() -> Vec<CompletionCandidate> {
    ["table", "json", "jsonl"]
        .map(CompletionCandidate::new)
        .into()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ColorWhen {
    Auto,
    Always,
    Never,
}

impl Global {
    /// How the answer is to be shown.
    ///
    /// # Errors
    /// It is to be shown in two ways at once.
    pub fn look(&self) -> Result<Look> {
        let is_bare = self.quiet || self.null;
        if is_bare && self.format != Format::Table {
            let what = "--format says what is printed, and so do -q and -0: leave one of them away";
            return Err(Error::Usage(what.to_owned()));
        }
        let stdout = io::stdout();
        let colors = match self.color {
            ColorWhen::Always => true,
            ColorWhen::Never => false,
            ColorWhen::Auto => {
                anstream::AutoStream::choice(&stdout) != anstream::ColorChoice::Never
            }
        };
        let format = match (self.null, self.quiet, &self.format) {
            (true, ..) => render::Format::Null,
            (_, true, _) => render::Format::Quiet,
            (.., Format::Table) => render::Format::Table,
            (.., Format::Json) => render::Format::Json,
            (.., Format::Jsonl) => render::Format::Jsonl,
            (.., Format::Template(_)) => render::Format::Template,
        };
        Ok(Look {
            format,
            no_trunc: self.no_trunc,
            exact_sizes: self.bytes,
            verbose: self.verbose,
            colors,
            is_terminal: stdout.is_terminal(),
            screen: screen(&stdout).filter(|_| !self.no_trunc),
        })
    }

    /// The template that rows are to be shown with.
    pub fn template(&self) -> Option<&str> {
        match &self.format {
            Format::Template(source) => Some(source),
            _ => None,
        }
    }

    /// What engines are told of where their data are.
    pub fn roots(&self, host: &Host) -> Roots {
        let base = base(host).0;
        let mut roots = Roots::of_caller(host);
        for (option, typed) in &self.engines.0 {
            roots.take_option(option, typed, &base);
        }
        for variable in engine::variables() {
            if let Some(text) = std::env::var_os(variable.name) {
                roots.take_variable(variable, &text, &base, host);
            }
        }
        roots
    }
}

/// The columns of a terminal; none where it does not tell, or is none.
fn screen(stdout: &io::Stdout) -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(stdout).ok()?;
    Some(usize::from(size.ws_col)).filter(|columns| *columns > 0)
}

/// Relative directories start at the working directory, or at the root that was given.
pub fn base(host: &Host) -> Base {
    let here = if host.is_live() {
        std::env::current_dir().unwrap_or_else(|_| "/".into())
    } else {
        "/".into()
    };
    Base(Bytes::from(here.as_path()))
}
