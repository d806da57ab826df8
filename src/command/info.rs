//! `info`: the storage part of `docker info`, what is mounted, and what could not be read.

use std::io::{self, Write};

use serde::Serialize;

use crate::bytes::{Bytes, escape};
use crate::command::{Context, Group, Help, One, Outcome, Verb};
use crate::engine::{self, mount_table::MountKind};
use crate::error::Result;
use crate::render::Look;

/// Show storage driver, directories and unions, and what could not be read
#[derive(Debug, clap::Args)]
pub struct Args {}

#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct Row {
    pub engines: Vec<Engine>,
    /// Every data directory that was looked at.
    pub roots: Vec<Root>,
    pub mounted_count: usize,
    /// Of those, how many only another mount namespace has.
    pub elsewhere_count: usize,
    /// What could not be read.
    pub problems: Vec<String>,
}

#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct Engine {
    pub engine: &'static str,
    pub container_count: usize,
    pub running_count: usize,
    pub paused_count: usize,
    pub stopped_count: usize,
    /// Those of which nothing tells whether they run.
    pub unknown_count: usize,
    pub image_count: usize,
    pub storage_driver: String,
    pub root_dir: Bytes,
    /// The file system below, in docker's words; none where no mount table tells.
    pub backing_filesystem: Option<String>,
    /// Layers of the driver.
    pub layer_count: usize,
    /// Whether mounts carry `dirperm1`; none where nothing is mounted that tells.
    pub dirperm1_supported: Option<bool>,
}

/// A data directory that was looked at.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct Root {
    pub engine: &'static str,
    pub path: Bytes,
    /// Whether there is anything of the engine.
    pub found: bool,
    /// Why it was looked at: an option, a command, a configuration file, a known place.
    pub why: String,
}

impl Verb for Args {
    const HELP: Help = Help {
        group: Group::Host,
        examples: &[
            "layerctl info",
            "layerctl --root /mnt/disk info",
            "layerctl info --format json",
        ],
        exit: "0 told; 2 something could not be read",
    };

    type Answer = One<Row>;

    fn run(self, context: &mut Context<'_>) -> Result<Outcome<One<Row>>> {
        context.survey.look_everywhere();
        let here = context.survey.engines_here();
        let engines = here.map(|engine| row(context, engine)).collect();
        let mounted = &context.survey.mounted;
        let elsewhere = mounted
            .iter()
            .filter(|union| union.state == crate::engine::MountState::Elsewhere);
        context.problems.extend(context.survey.take_problems());
        let mut problems: Vec<String> = Vec::new();
        for problem in context.survey.problems.iter().chain(&context.problems) {
            let words = problem.to_string();
            if !problems.contains(&words) {
                problems.push(words);
            }
        }
        let roots = context.survey.places().iter().map(|place| Root {
            engine: place.engine,
            path: place.path.clone(),
            found: place.is_found,
            why: place.why.to_string(),
        });
        let roots = roots.collect();
        let row = Row {
            engines,
            roots,
            mounted_count: mounted.len(),
            elsewhere_count: elsewhere.count(),
            problems,
        };
        Outcome::yes(One(Box::new(row)))
    }
}

fn row(context: &Context<'_>, engine: &dyn engine::Engine) -> Engine {
    let survey = &context.survey;
    let containers = engine.containers();
    let count = |word: &str| {
        containers
            .iter()
            .filter(|container| container.state.word() == word)
            .count()
    };
    // As docker counts: a paused container is not running, nor is one that is started again and again.
    let (running, paused) = (count("running"), count("paused"));
    let unknown = count("unknown");
    let driver = engine.driver(&containers);
    let root_dir = engine.directory_of_driver(&driver);
    let dirperm1 = survey.table.0.iter().filter(|mount| {
        mount.kind() == Some(MountKind::Aufs) && mount.point.strip_prefix(&root_dir).is_some()
    });
    let layers = engine.layers().into_iter();
    Engine {
        engine: engine.name(),
        running_count: running,
        paused_count: paused,
        stopped_count: containers.len() - running - paused - unknown,
        unknown_count: unknown,
        image_count: engine.images().len(),
        layer_count: layers.filter(|layer| layer.driver == driver).count(),
        backing_filesystem: survey
            .table
            .covering(engine.root())
            .map(|mount| backing(&mount.fs_type)),
        dirperm1_supported: dirperm1
            .map(|mount| {
                mount
                    .options
                    .split(|&byte| byte == b',')
                    .any(|option| option == b"dirperm1")
            })
            .reduce(|a, b| a || b),
        container_count: containers.len(),
        storage_driver: driver,
        root_dir,
    }
}

/// Docker's name for a file system.
fn backing(fs_type: &[u8]) -> String {
    match fs_type {
        b"ext2" | b"ext3" | b"ext4" => "extfs".into(),
        b"overlay" => "overlayfs".into(),
        other => String::from_utf8_lossy(other).into_owned(),
    }
}

impl crate::command::Row for Row {
    fn words(&self, give: &mut dyn FnMut(&[u8])) {
        let engines = self.engines.iter();
        engines.for_each(|engine| give(engine.root_dir.as_bytes()));
    }

    fn table(rows: &[Row], look: Look, out: &mut dyn Write) -> io::Result<()> {
        rows.iter().try_for_each(|row| row.write(look, out))
    }
}

impl Row {
    fn write(&self, look: Look, out: &mut dyn Write) -> io::Result<()> {
        for engine in &self.engines {
            engine.write(look, out)?;
        }
        if self.engines.is_empty() {
            let words = if self.problems.is_empty() {
                "No engine found"
            } else {
                "No engine found in what could be read"
            };
            writeln!(out, "{words}")?;
        }
        writeln!(out, "Unions mounted: {}", self.mounted_count)?;
        if self.elsewhere_count > 0 {
            let elsewhere = self.elsewhere_count;
            writeln!(out, " In other mount namespaces: {elsewhere}")?;
        }
        if !self.problems.is_empty() {
            writeln!(out, "Not read:")?;
            for problem in &self.problems {
                writeln!(out, " {problem}")?;
            }
        }
        self.write_roots(out)
    }
}

impl Row {
    /// Where engines were looked for, and why there.
    fn write_roots(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "Looked at:")?;
        for root in &self.roots {
            let found = if root.found { "found" } else { "nothing" };
            let (path, why) = (&root.path, escape(root.why.as_bytes()));
            writeln!(out, " {path}: {found} ({}, {why})", root.engine)?;
        }
        Ok(())
    }
}

impl Engine {
    /// In the lines of `docker info`.
    fn write(&self, look: Look, out: &mut dyn Write) -> io::Result<()> {
        let unknown = "unknown".to_owned();
        let driver = escape(self.storage_driver.as_bytes());
        let backing = self.backing_filesystem.as_ref().unwrap_or(&unknown);
        let backing = escape(backing.as_bytes());
        let dirperm1 = self.dirperm1_supported.map(|yes| yes.to_string());
        let dirperm1 = dirperm1.as_ref().unwrap_or(&unknown);
        writeln!(out, "{}", look.bold(&format!("Engine: {}", self.engine)))?;
        writeln!(out, " Containers: {}", self.container_count)?;
        writeln!(out, "  Running: {}", self.running_count)?;
        writeln!(out, "  Paused: {}", self.paused_count)?;
        writeln!(out, "  Stopped: {}", self.stopped_count)?;
        if self.unknown_count > 0 {
            writeln!(out, "  Unknown: {}", self.unknown_count)?;
        }
        writeln!(out, " Images: {}", self.image_count)?;
        writeln!(out, " Storage Driver: {driver}")?;
        writeln!(out, "  Root Dir: {}", self.root_dir)?;
        writeln!(out, "  Backing Filesystem: {backing}")?;
        writeln!(out, "  Dirs: {}", self.layer_count)?;
        writeln!(out, "  Dirperm1 Supported: {dirperm1}")
    }
}
