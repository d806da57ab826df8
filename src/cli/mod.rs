//! What can be typed. Nothing below this module sees clap.

use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::builder::ArgAction;
use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};

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
    #[command(flatten)]
    pub scope: Scope,
    #[command(subcommand)]
    pub command: Command,
}

/// The short form of `--namespace`, which `restore` has another use for.
#[derive(Debug, Args)]
pub struct Scope {
    #[arg(short, id = "scope", value_name = "NAMESPACE", hide = true)]
    namespace: Option<String>,
}

impl Cli {
    /// The namespace of containerd's that was asked for.
    pub fn namespace(&self) -> Option<&String> {
        let scope = match &self.command {
            Command::Branches { scope, .. }
            | Command::Which { scope, .. }
            | Command::Ls { scope, .. }
            | Command::Whiteouts { scope, .. }
            | Command::Copyups { scope, .. }
            | Command::Changes { scope, .. }
            | Command::History { scope, .. }
            | Command::Containers { scope }
            | Command::Images { scope, .. }
            | Command::Check { scope, .. }
            | Command::Whois { scope, .. }
            | Command::Orphans { scope }
            | Command::Du { scope, .. }
            | Command::Info { scope } => Some(scope),
            Command::Restore(_)
            | Command::Completions { .. }
            | Command::Man { .. }
            | Command::Schema { .. } => None,
        };
        let short = scope.and_then(|scope| scope.namespace.as_ref());
        let short = short.or(self.scope.namespace.as_ref());
        short.or(self.global.namespace.as_ref())
    }
}

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
    /// The namespace of containerd's to look at: default, k8s.io, ... (-n, but for restore)
    #[arg(long, global = true, value_name = "NAMESPACE")]
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

#[derive(Debug, Subcommand)]
pub enum Command {
    /// List unions and their branches, topmost first
    Branches {
        #[command(flatten)]
        scope: Scope,
        #[arg(add = target_completer())]
        target: Option<OsString>,
    },
    /// Tell which layer provides a path, what it shadows, or why it is not there
    ///
    /// A PATH without TARGET that lies under a union's mount point means that union; any other
    /// absolute path is asked of every mounted union.
    Which {
        #[command(flatten)]
        scope: Scope,
        /// Every argument is a path of this union, byte for byte
        #[arg(long = "in", value_name = "TARGET", add = target_completer())]
        within: Option<OsString>,
        /// Do not follow a symbolic link at the end of the path
        #[arg(long)]
        no_follow: bool,
        #[arg(required = true, value_name = "[TARGET:]PATH", add = target_completer())]
        paths: Vec<OsString>,
    },
    /// List the merged view with each name's provider
    Ls {
        #[command(flatten)]
        scope: Scope,
        /// Every argument is a path of this union, byte for byte
        #[arg(long = "in", value_name = "TARGET", add = target_completer())]
        within: Option<OsString>,
        /// List directories below, too
        #[arg(short = 'R', long)]
        recursive: bool,
        /// Show mode, owner, size, time and link target
        #[arg(short, long)]
        long: bool,
        #[arg(required_unless_present = "within", value_name = "TARGET[:PATH]", add = target_completer())]
        arguments: Vec<OsString>,
    },
    /// List whiteouts and opaque marks, and what they hide
    Whiteouts {
        #[command(flatten)]
        scope: Scope,
        #[arg(add = target_completer())]
        target: Option<OsString>,
        /// Only paths that match (names, if it has no slash); ** crosses slashes
        #[arg(long, value_name = "PATTERN")]
        glob: Option<OsString>,
        /// Look at read-only branches, too
        #[arg(long)]
        all_layers: bool,
        /// Only marks that hide something
        #[arg(long)]
        recoverable: bool,
    },
    /// List files copied up, what differs, and what the copies cost
    Copyups {
        #[command(flatten)]
        scope: Scope,
        #[arg(add = target_completer())]
        target: Option<OsString>,
    },
    /// List what was added, changed and deleted, in `docker diff`'s lines
    Changes {
        #[command(flatten)]
        scope: Scope,
        #[arg(add = target_completer())]
        target: Option<OsString>,
        /// Add origin, sizes and what differs
        #[arg(short, long)]
        long: bool,
    },
    /// List the layers of an image or container, newest first
    History {
        #[command(flatten)]
        scope: Scope,
        #[arg(add = target_completer())]
        target: OsString,
    },
    /// List the host's containers
    Containers {
        #[command(flatten)]
        scope: Scope,
    },
    /// List the host's images
    Images {
        #[command(flatten)]
        scope: Scope,
        /// List images that are only steps of others, too
        #[arg(short, long)]
        all: bool,
    },
    /// Look for what is wrong or surprising in the marks
    Check {
        #[command(flatten)]
        scope: Scope,
        #[arg(add = target_completer())]
        target: Option<OsString>,
    },
    /// Show storage driver, directories and unions, and what could not be read
    Info {
        #[command(flatten)]
        scope: Scope,
    },
    /// Bring a deleted file back
    ///
    /// Removes the whiteout that hides the path, or copies the version below; never overwrites
    /// anything, and never writes to a read-only branch.
    Restore(Restore),
    /// Tell whose a directory, a layer, a mount, a device or a process is
    ///
    /// With - lines are read from stdin, such as du prints, and each is annotated.
    Whois {
        #[command(flatten)]
        scope: Scope,
        #[arg(required = true, value_name = "PATH|HASH")]
        things: Vec<OsString>,
    },
    /// List what no metadata refers to, and metadata that refers to what is gone
    Orphans {
        #[command(flatten)]
        scope: Scope,
    },
    /// Tell who fills the disk: containers, images, and everything else of a store
    Du {
        #[command(flatten)]
        scope: Scope,
        #[arg(add = target_completer())]
        target: Option<OsString>,
    },
    /// Print the completion script of a shell
    Completions { shell: Shell },
    /// Print a man page: of one verb, or of layerctl itself
    Man { verb: Option<String> },
    /// Print the JSON Schema of a verb's `--format jsonl`
    Schema { verb: String },
}

#[derive(Debug, Args)]
pub struct Restore {
    /// The path is one of this union, byte for byte
    #[arg(long = "in", value_name = "TARGET", add = target_completer())]
    pub within: Option<OsString>,
    #[arg(value_name = "[TARGET:]PATH", add = target_completer())]
    pub path: OsString,
    /// Print the plan and change nothing
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// How to bring it back (default: unhide where a whiteout of the very name hides it)
    #[arg(long)]
    pub strategy: Option<Strategy>,
    /// Copy directories whole
    #[arg(short, long)]
    pub recursive: bool,
    /// Go on although more than the path will reappear
    #[arg(short, long)]
    pub yes: bool,
    /// Copy the hidden version out to this directory and change nothing in the union
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, conflicts_with_all = ["revert", "strategy"])]
    pub to: Option<PathBuf>,
    /// Put the lower version of a copied-up file back
    #[arg(long, conflicts_with = "strategy")]
    pub revert: bool,
    /// With --revert: move the changed file to this directory
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, requires = "revert")]
    pub save: Option<PathBuf>,
    /// With --revert: throw the changed file away
    #[arg(long, requires = "revert", conflicts_with = "save")]
    pub discard: bool,
    /// Permit writing under a --root other than /
    #[arg(long)]
    pub write: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Strategy {
    /// Remove the mark that hides it
    Unhide,
    /// Copy the version below into the writable branch
    Copy,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    Bash,
    Zsh,
    Fish,
}

fn target_completer() -> ArgValueCompleter {
    ArgValueCompleter::new(complete_target)
}

/// Offers containers' and images' names, read from disk: no daemon is asked.
fn complete_target(current: &std::ffi::OsStr) -> Vec<CompletionCandidate> {
    let typed = current.to_string_lossy();
    crate::target_names()
        .into_iter()
        .filter(|(name, _)| name.starts_with(&*typed))
        .map(|(name, what)| CompletionCandidate::new(name).help(Some(what.into())))
        .collect()
}

/// The roots that a command line names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedRoots {
    pub host: PathBuf,
    pub docker: Option<PathBuf>,
    pub storage: Option<PathBuf>,
    pub containerd: Option<PathBuf>,
    pub containerd_state: Option<PathBuf>,
}

impl Global {
    pub fn roots(&self) -> NamedRoots {
        NamedRoots {
            host: self.root.clone(),
            docker: self.docker_root.clone(),
            storage: self.storage_root.clone(),
            containerd: self.containerd_root.clone(),
            containerd_state: self.containerd_state.clone(),
        }
    }
}

impl NamedRoots {
    /// Those of a command line that need not be whole: for completion.
    pub fn of(arguments: impl Iterator<Item = OsString>) -> NamedRoots {
        let mut roots = NamedRoots {
            host: PathBuf::from("/"),
            docker: None,
            storage: None,
            containerd: None,
            containerd_state: None,
        };
        let mut arguments = arguments.skip_while(|argument| argument != "--").skip(1);
        while let Some(argument) = arguments.next() {
            let text = argument.to_string_lossy().into_owned();
            let (option, value) = match text.split_once('=') {
                Some((option, value)) => (option.to_owned(), Some(PathBuf::from(value))),
                None => (text, None),
            };
            let root = match option.as_str() {
                "--docker-root" => &mut roots.docker,
                "--storage-root" => &mut roots.storage,
                "--containerd-root" => &mut roots.containerd,
                "--containerd-state" => &mut roots.containerd_state,
                "--root" => &mut None,
                _ => continue,
            };
            let Some(value) = value.or_else(|| arguments.next().map(PathBuf::from)) else {
                break;
            };
            if option == "--root" {
                roots.host.clone_from(&value);
            }
            *root = Some(value);
        }
        roots
    }
}
