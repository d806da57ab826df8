//! `mount [TARGET DIR]`: a view as a directory that every program can read; without arguments, what
//! is mounted so.

use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use clap::ValueEnum;
use serde::Serialize;

use crate::bytes::{Bytes, escape, shell_quote};
use crate::command::asked::Opened;
use crate::command::{Answer, Context, Ended, Group, Help, Label, Outcome, Verb};
use crate::dir::{Access, Dir};
use crate::error::{Error, Result};
use crate::mount::attach::{Allowed, When, detach};
use crate::mount::catalogue::{Catalogue, Finder};
use crate::mount::kernel::Overlay;
use crate::mount::listed::{self, By, Health};
use crate::mount::serving::{self, Serving};
use crate::mount::{Server, Shows, View};
use crate::render::column::{Column, column};
use crate::render::{Format, Look};
use crate::restore::guard::Outside;
use crate::target;
use crate::union::Stack;

/// Mount a container, an image or a layer, read-only
///
/// DIR then shows what the union shows, to every program, without the engine and without a kernel
/// that knows the union. The layers are only read. What runs goes on: a change of a container's is
/// seen a second later. The mount is answered for in the background until it is unmounted. Without
/// arguments, what is mounted so is listed.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// All there is, below DIR/ENGINE/containers and DIR/ENGINE/images
    #[arg(long)]
    all: bool,
    /// Have the kernel show it, where it can: overlays, for root
    #[arg(hide_short_help = true, long, conflicts_with_all = ["all", "hidden", "foreground"])]
    kernel: bool,
    /// Print the command that would mount it, and mount nothing
    #[arg(hide_short_help = true, long)]
    print: bool,
    /// Stay in the foreground, and unmount when interrupted
    #[arg(short, long)]
    foreground: bool,
    /// Show what marks hide, too: as NAME, or NAME.hidden@N
    #[arg(long)]
    hidden: bool,
    /// As of mount(8): allow_other, suid, dev, and their opposites
    #[arg(
        hide_short_help = true,
        short,
        long,
        value_name = "LIST",
        value_delimiter = ','
    )]
    options: Vec<Opt>,
    /// The union; without it what is mounted so is listed
    target: Option<OsString>,
    /// A directory that is there
    #[arg(value_hint = clap::ValueHint::DirPath)]
    dir: Option<OsString>,
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
    /// None where nothing was mounted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<Health>,
    /// What would mount it, for a shell, where only that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
}

impl Verb for Args {
    const HELP: Help = Help {
        group: Group::Look,
        examples: &[
            "layerctl mount web /mnt/web",
            "layerctl mount web@1 /mnt/image    as the image has it",
            "layerctl mount --all /mnt/all    every container and image",
        ],
        exit: "0 mounted, or listed; 2 not mounted, or could not tell",
    };

    type Answer = Answered;

    fn run(self, context: &mut Context<'_>) -> Result<Outcome<Answered>> {
        if self.target.is_none() && !self.all {
            return list();
        }
        if !serving::is_server() {
            return self.mount(context);
        }
        serving::leave();
        let mounted = self.mount(context);
        mounted.inspect_err(serving::tell_failure)
    }
}

/// What is to be mounted.
enum What {
    /// All unions of the host.
    All(Box<Finder>),
    One(Box<Opened>),
}

impl What {
    /// The text of a stack that was spelled out.
    fn spelled(&self) -> Option<&Bytes> {
        match self {
            What::All(_) => None,
            What::One(of) => of.target.union.spelled.as_ref(),
        }
    }
}

impl Args {
    fn mount(&self, context: &mut Context<'_>) -> Result<Outcome<Answered>> {
        let (target, dir) = match (&self.target, &self.dir) {
            (Some(dir), None) if self.all => (None, dir),
            (Some(target), Some(dir)) if !self.all => (Some(target), dir),
            _ => {
                let what = "say what is to be mounted, and where: TARGET DIR, or --all DIR";
                return Err(Error::Usage(what.into()));
            }
        };
        let (at, path) = point(Path::new(dir))?;
        let (label, what) = match target {
            None => (Bytes::from(ALL), self.everything(context, &at)?),
            Some(target) => self.one(context, target, &path)?,
        };
        let mut row = Row {
            target: Label::found(label),
            path,
            by: if self.kernel { By::Kernel } else { By::Fuse },
            state: None,
            command: None,
        };
        if let (true, What::One(union)) = (self.kernel, &what) {
            let overlay = Overlay::of(
                (&union.target.union, &union.stack),
                context.survey.host.root(),
                row.target.target(),
                self.allowed(),
            )?;
            if self.print {
                let command = overlay.command(&typed_path(dir));
                let own = || self.own_command(context, &row, dir, what.spelled());
                let command = command.unwrap_or_else(own);
                return printed(row, command);
            }
            overlay.mount(&at, &row.path)?;
            row.state = Some(Health::Answers);
            return Outcome::yes(Answered::Rows(vec![row]));
        }
        if self.print {
            let command = self.own_command(context, &row, dir, what.spelled());
            return printed(row, command);
        }
        row.state = Some(Health::Answers);
        if self.foreground || serving::is_server() {
            let serving = self.serve(what, &at, &row)?;
            return Outcome::yes(Answered::Serving(Box::new(row), serving));
        }
        serving::start()?;
        Outcome::yes(Answered::Rows(vec![row]))
    }

    /// What mounts the same from anywhere, by this program.
    fn own_command(
        &self,
        context: &Context<'_>,
        row: &Row,
        dir: &OsString,
        spelled: Option<&Bytes>,
    ) -> String {
        let mut words = Vec::new();
        let host = context.survey.host;
        let roots = context.survey.roots();
        for (variable, value) in roots.variables() {
            words.push(format!("{variable}={}", shell_quote(value)));
        }
        words.push("layerctl".to_owned());
        if !host.is_live() {
            let root = typed_path(host.root().as_os_str());
            words.extend(["--root".into(), shell_quote(&root)]);
        }
        for (option, value) in roots.options() {
            words.extend([format!("--{option}"), shell_quote(value)]);
        }
        words.push("mount".into());
        for (is_asked, option) in [
            (self.kernel, "--kernel"),
            (self.foreground, "--foreground"),
            (self.hidden, "--hidden"),
        ] {
            words.extend(is_asked.then(|| option.to_owned()));
        }
        for option in &self.options {
            let name = option.to_possible_value();
            words.extend(name.map(|name| format!("--options={}", name.get_name())));
        }
        words.push(shell_quote(row.target.target()));
        words.push(shell_quote(&typed_path(dir)));
        let command = words.join(" ");
        // What was spelled is not spelled anew.
        match spelled.filter(|text| host.is_live() && target::spells_relative(text.as_bytes())) {
            Some(_) => {
                let here = shell_quote(&context.base.0);
                format!("(cd {here} && {command})")
            }
            None => command,
        }
    }

    fn one(
        &self,
        context: &mut Context<'_>,
        target: &OsString,
        path: &Bytes,
    ) -> Result<(Bytes, What)> {
        let target = context.find(target.as_bytes())?;
        let label = context.survey.label(&target.union);
        let stack = context.open(&target);
        if stack.lost().next().is_some() {
            return Err(Error::Refused {
                what: format!("{label} is not mounted: not all of its branches can be read"),
                hint: String::new(),
            });
        }
        let to = path.to_path();
        let outside = Outside::find(&to)?;
        outside.check(&context.survey, &target.union, &stack, &to)?;
        refuse_above(&outside.existing(&to)?, path, &stack)?;
        let opened = Box::new(Opened { target, stack });
        Ok((label, What::One(opened)))
    }

    fn everything(&self, context: &mut Context<'_>, at: &Dir) -> Result<What> {
        let host = context.survey.host;
        if let Some(error) = context.survey.no_engine() {
            return Err(error);
        }
        let root = std::path::absolute(host.root()).unwrap_or_else(|_| host.root().to_owned());
        Ok(What::All(Box::new(Finder {
            root,
            roots: context.survey.roots().clone(),
            base: context.base.clone(),
            above: above(at)?,
            shows: self.shows(),
        })))
    }

    fn shows(&self) -> Shows {
        if self.hidden {
            Shows::Hidden
        } else {
            Shows::Merged
        }
    }

    fn serve(&self, what: What, at: &Dir, row: &Row) -> Result<Serving> {
        let server = match what {
            What::One(union) => Server::new(View::new(union.stack, self.shows(), 0)),
            What::All(finder) => Server::of_all(Catalogue::new(*finder)),
        };
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

/// What all unions together are called.
const ALL: &str = "--all";

/// Device and inode of a directory, and of those that it is in.
fn above(dir: &Dir) -> Result<Vec<(u64, u64)>> {
    let fail = |errno| Error::io(dir.path(), errno);
    let mut above = Vec::new();
    let mut here = dir.clone();
    loop {
        let identity = here.stat_self().map_err(fail)?.identity();
        if above.last() == Some(&identity) {
            return Ok(above);
        }
        above.push(identity);
        here = here.child(b"..", Access::Lookup).map_err(fail)?;
    }
}

/// A directory as it is reached from anywhere.
fn typed_path(dir: &OsStr) -> Bytes {
    let path = std::path::absolute(dir);
    Bytes::from(path.unwrap_or_else(|_| dir.into()).as_path())
}

fn printed(row: Row, command: String) -> Result<Outcome<Answered>> {
    Outcome::yes(Answered::Printed(Box::new(Row {
        command: Some(command),
        ..row
    })))
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

/// Sees that no branch lies below a mount point: what is mounted there would cover its own branches, and the
/// server, which looks whether they are at their paths, would ask itself.
fn refuse_above(at: &Dir, path: &Bytes, stack: &Stack) -> Result<()> {
    let fail = |errno| Error::io(path.clone(), errno);
    let own = at.stat_self().map_err(fail)?.identity();
    for branch in &stack.branches {
        let Ok(dir) = &branch.dir else { continue };
        // In an image there is no way up.
        if above(dir).is_ok_and(|above| above.contains(&own)) {
            return Err(Error::Refused {
                what: format!(
                    "{path} is a directory that the union's own branch {} lies in",
                    branch.path
                ),
                hint: "name a directory outside of the union".into(),
            });
        }
    }
    Ok(())
}

fn list() -> Result<Outcome<Answered>> {
    let row = |ours: listed::Ours| Row {
        state: Some(ours.state()),
        command: None,
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
    /// Only the command is wanted.
    Printed(Box<Row>),
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
            Answered::Printed(row) => {
                return match (look.format, &row.command) {
                    (Format::Table | Format::Quiet, Some(command)) => writeln!(out, "{command}"),
                    _ => vec![*row].show(look, context, out, ended),
                };
            }
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
            ended
                .problems
                .extend(detach(&path, None, When::Unused).err());
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
            column("STATE", |row: &Row, _, cell| {
                cell.word(row.state.map_or("-", Health::word));
            }),
            column("BY", |row, _, cell| cell.word(row.by.word())),
            column("TARGET", |row, _, cell| cell.show(row.target.target())),
            column("PATH", |row, _, cell| cell.show(&row.path)),
        ]
    }
}
