//! `mount [TARGET DIR]`: a view as a directory that every program can read; without arguments, what
//! is mounted so.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::bytes::{Bytes, escape};
use crate::command::{Answer, Context, Ended, Group, Help, Label, Outcome, Verb};
use crate::dir::Dir;
use crate::error::{Error, Result};
use crate::mount::attach::{Allowed, When, detach};
use crate::mount::listed::{self, By, Health};
use crate::mount::serving::{self, Serving};
use crate::mount::{Server, Shows, View};
use crate::render::Look;
use crate::render::column::{Column, column};
use crate::restore::guard::Outside;
use crate::union::Stack;

/// Mount a container, an image or a layer, read-only
///
/// DIR then shows what the union shows, to every program, without the engine and without a kernel
/// that knows the union. The layers are only read. What runs goes on: a change of a container's is
/// seen a second later. The mount is answered for in the background until it is unmounted. Without
/// arguments, what is mounted so is listed.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Stay in the foreground, and unmount when interrupted
    #[arg(short, long)]
    foreground: bool,
    /// Show what marks hide, too: as NAME, or NAME.hidden@N of branch N
    #[arg(long)]
    hidden: bool,
    /// As of mount(8): allow_other, suid, dev, and their opposites
    #[arg(short, long, value_name = "LIST", value_delimiter = ',')]
    options: Vec<Opt>,
    /// The union, and an empty directory that is there
    #[arg(num_args = 0..=2, value_names = ["TARGET", "DIR"])]
    arguments: Vec<OsString>,
}

/// What can be asked of a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Opt {
    AllowOther,
    Suid,
    Nosuid,
    Dev,
    Nodev,
    Ro,
}

/// One of our mounts.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct Row {
    /// The union, as a TARGET.
    pub target: Label,
    /// Where it is mounted.
    pub path: Bytes,
    /// Who answers: this program, or the kernel itself.
    pub by: By,
    /// Whether anybody answers. Of a dead one the process was killed; `layerctl umount` clears it.
    pub state: Health,
}

impl Verb for Args {
    const HELP: Help = Help {
        group: Group::Look,
        examples: &[
            "layerctl mount web /mnt/web",
            "layerctl mount web@1 /mnt/image    as the image has it",
            "layerctl mount    what is mounted so",
        ],
        exit: "0 mounted, or listed; 2 not mounted, or could not tell",
    };

    type Answer = Answered;

    fn run(self, context: &mut Context<'_>) -> Result<Outcome<Answered>> {
        let (target, dir) = match self.arguments.as_slice() {
            [] => return list(),
            [target, dir] => (target, PathBuf::from(dir)),
            _ => {
                let what = "say what is to be mounted, and where: TARGET DIR";
                return Err(Error::Usage(what.into()));
            }
        };
        if !serving::is_server() {
            return self.mount(context, target, &dir);
        }
        serving::leave();
        let mounted = self.mount(context, target, &dir);
        mounted.inspect_err(serving::tell_failure)
    }
}

impl Args {
    fn mount(
        &self,
        context: &mut Context<'_>,
        target: &OsString,
        dir: &Path,
    ) -> Result<Outcome<Answered>> {
        let (at, path) = point(dir)?;
        let target = context.find(target.as_bytes())?;
        let label = context.survey.label(&target.union);
        let stack = context.open(&target);
        if stack.lost().next().is_some() {
            return Err(Error::Refused {
                what: format!("{label} is not mounted: not all of its branches can be read"),
                hint: String::new(),
            });
        }
        Outside::find(&path.to_path())?.check(
            &context.survey,
            &target.union,
            &stack,
            &path.to_path(),
        )?;
        let row = Row {
            target: Label::found(label),
            path,
            by: By::Fuse,
            state: Health::Answers,
        };
        if self.foreground || serving::is_server() {
            let serving = self.serve(stack, &at, &row)?;
            return Outcome::yes(Answered::Serving(Box::new(row), serving));
        }
        serving::start()?;
        Outcome::yes(Answered::Rows(vec![row]))
    }

    fn serve(&self, stack: Stack, at: &Dir, row: &Row) -> Result<Serving> {
        let shows = if self.hidden {
            Shows::Hidden
        } else {
            Shows::Merged
        };
        let server = Server::new(View::new(stack, shows, 0));
        let source = row.target.target().as_bytes();
        serving::serve(server, (at, &row.path), source, self.allowed())
    }

    /// What the last of the options says of each.
    fn allowed(&self) -> Allowed {
        let mut allowed = Allowed::default();
        for option in &self.options {
            match option {
                Opt::AllowOther => allowed.other = true,
                Opt::Suid => allowed.suid = true,
                Opt::Nosuid => allowed.suid = false,
                Opt::Dev => allowed.dev = true,
                Opt::Nodev => allowed.dev = false,
                Opt::Ro => {}
            }
        }
        allowed
    }
}

/// The directory that something is mounted on, and its path.
///
/// # Errors
/// It is none, or something of ours is mounted there.
fn point(dir: &Path) -> Result<(Dir, Bytes)> {
    let path = listed::real_path(dir)?;
    if let Some(Ok(ours)) = listed::at(&path)? {
        let shown = escape(path.as_bytes());
        let what = match ours.state() {
            Health::Dead => format!("{shown} is a mount that nobody answers for any more"),
            Health::Answers | Health::Silent => {
                let target = escape(ours.target.as_bytes());
                format!("{target} is mounted on {shown} already")
            }
        };
        return Err(Error::Refused {
            what,
            hint: "`layerctl umount DIR` takes it away".into(),
        });
    }
    let at = Outside::find(&path.to_path())?.existing(&path.to_path())?;
    Ok((at, path))
}

fn list() -> Result<Outcome<Answered>> {
    let row = |ours: listed::Ours| Row {
        state: ours.state(),
        target: Label::found(ours.target),
        path: ours.path,
        by: ours.by,
    };
    Outcome::yes(Answered::Rows(
        listed::ours()?.into_iter().map(row).collect(),
    ))
}

/// What is mounted; one that this very process answers for is shown, and then answered for.
pub enum Answered {
    Rows(Vec<Row>),
    Serving(Box<Row>, Serving),
}

impl Answer for Answered {
    type Row = Row;

    fn show(
        self,
        look: Look,
        context: &Context<'_>,
        out: &mut dyn Write,
        ended: &mut Ended,
    ) -> io::Result<()> {
        let (row, serving) = match self {
            Answered::Rows(rows) => return rows.show(look, context, out, ended),
            Answered::Serving(row, serving) => (row, serving),
        };
        let path = row.path.clone();
        let shown = if serving::is_server() {
            serving::tell_ready().map_err(io::Error::other)
        } else {
            let shown = vec![*row].show(look, context, out, ended);
            shown.and_then(|()| out.flush())
        };
        if shown.is_err() {
            // Nobody knows of it.
            ended.problems.extend(detach(&path, When::Unused).err());
        }
        ended.problems.extend(serving.wait(&path).err());
        shown
    }
}

impl crate::command::Row for Row {
    fn words(&self, give: &mut dyn FnMut(&[u8])) {
        give(self.path.as_bytes());
    }

    fn label(&self) -> Option<&Label> {
        Some(&self.target)
    }

    fn columns(_look: Look) -> Vec<Column<Row>> {
        vec![
            column("STATE", |row: &Row, _, cell| cell.word(row.state.word())),
            column("BY", |row, _, cell| cell.word(row.by.word())),
            column("TARGET", |row, _, cell| cell.show(row.target.target())),
            column("PATH", |row, _, cell| cell.show(&row.path)),
        ]
    }
}
