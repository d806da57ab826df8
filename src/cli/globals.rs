//! Options that every verb takes: which host, which stores, how to print.

use std::ffi::OsStr;
use std::io::{self, IsTerminal};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use clap::builder::ArgAction;
use clap::{Args, ValueEnum, ValueHint};

use crate::bytes::Bytes;
use crate::engine::{self, Roots};
use crate::host::Host;
use crate::render::{self, Look};
use crate::target::Base;

#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// The root of the host to look at: / or a copy of one
    #[arg(long, global = true, value_name = "DIR", default_value = "/", hide_default_value = true, value_hint = ValueHint::DirPath)]
    pub root: PathBuf,
    /// Docker's data directory, where it is elsewhere or all that is there
    #[arg(long, global = true, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub docker_root: Option<PathBuf>,
    /// The graph root of containers-storage (Podman, buildah, CRI-O): the only one looked at
    #[arg(long, global = true, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub storage_root: Option<PathBuf>,
    /// The root of containerd: the only one looked at
    #[arg(long, global = true, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub containerd_root: Option<PathBuf>,
    /// The state directory of the containerd that --containerd-root names
    #[arg(long, global = true, value_name = "DIR", value_hint = ValueHint::DirPath, requires = "containerd_root")]
    pub containerd_state: Option<PathBuf>,
    /// The namespace of containerd's to look at: default, k8s.io, ...
    #[arg(short, long, global = true, value_name = "NAMESPACE")]
    pub namespace: Option<String>,
    /// How to print the answer
    #[arg(
        long,
        global = true,
        value_name = "FORMAT",
        default_value = "table",
        hide_default_value = true
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

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Table,
    /// One document
    Json,
    /// One object a line
    Jsonl,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ColorWhen {
    Auto,
    Always,
    Never,
}

impl Global {
    /// How the answer is to be shown.
    pub fn look(&self) -> Look {
        let stdout = io::stdout();
        let colors = match self.color {
            ColorWhen::Always => true,
            ColorWhen::Never => false,
            ColorWhen::Auto => {
                anstream::AutoStream::choice(&stdout) != anstream::ColorChoice::Never
            }
        };
        let format = match (self.null, self.quiet, self.format) {
            (true, ..) => render::Format::Null,
            (_, true, _) => render::Format::Quiet,
            (.., Format::Table) => render::Format::Table,
            (.., Format::Json) => render::Format::Json,
            (.., Format::Jsonl) => render::Format::Jsonl,
        };
        Look {
            format,
            no_trunc: self.no_trunc,
            exact_sizes: self.bytes,
            verbose: self.verbose,
            colors,
            is_terminal: stdout.is_terminal(),
        }
    }

    /// What engines are told of where their data are.
    pub fn roots(&self, host: &Host) -> Roots {
        let base = base(host).0;
        let mut roots = Roots::of_caller(host);
        for option in engine::options() {
            let typed: Option<&OsStr> = match option.name {
                "docker-root" => self.docker_root.as_deref().map(Path::as_os_str),
                "storage-root" => self.storage_root.as_deref().map(Path::as_os_str),
                "containerd-root" => self.containerd_root.as_deref().map(Path::as_os_str),
                "containerd-state" => self.containerd_state.as_deref().map(Path::as_os_str),
                "namespace" => self.namespace.as_deref().map(OsStr::new),
                _ => None,
            };
            if let Some(typed) = typed {
                roots.take_option(option, typed, &base);
            }
        }
        for variable in engine::variables() {
            if let Some(text) = std::env::var_os(variable.name) {
                roots.take_variable(variable, &text, &base, host);
            }
        }
        roots
    }
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
