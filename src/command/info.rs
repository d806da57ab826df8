//! `info`: the storage part of `docker info`, what is mounted, and what could not be read.

use serde::Serialize;

use crate::bytes::Bytes;
use crate::command::{Context, Outcome, Report};
use crate::engine::{self, mount_table::MountKind};
use crate::error::Result;

#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct Row {
    pub engines: Vec<Engine>,
    pub unions_mounted: usize,
    /// Of those, how many only another mount namespace has.
    pub unions_elsewhere: usize,
    /// What could not be read.
    pub problems: Vec<String>,
}

#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct Engine {
    pub engine: &'static str,
    pub containers: usize,
    pub running: usize,
    pub paused: usize,
    pub stopped: usize,
    pub images: usize,
    pub storage_driver: String,
    pub root_dir: Bytes,
    /// The file system below, in docker's words; none where no mount table tells.
    pub backing_filesystem: Option<String>,
    /// Layers of the driver.
    pub dirs: usize,
    /// Whether mounts carry `dirperm1`; none where nothing is mounted that tells.
    pub dirperm1_supported: Option<bool>,
}

pub fn run(context: &mut Context<'_>) -> Result<Outcome> {
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
    let row = Row {
        engines,
        unions_mounted: mounted.len(),
        unions_elsewhere: elsewhere.count(),
        problems,
    };
    Outcome::yes(Report::Info(Box::new(row)))
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
    // As docker counts: a paused container is not running.
    let (running, paused) = (count("running") + count("restarting"), count("paused"));
    let driver = engine.driver(&containers);
    let root_dir = engine.directory_of_driver(&driver);
    let dirperm1 = survey.table.0.iter().filter(|mount| {
        mount.kind() == Some(MountKind::Aufs) && mount.point.strip_prefix(&root_dir).is_some()
    });
    let layers = engine.layers().into_iter();
    Engine {
        engine: engine.name(),
        running,
        paused,
        stopped: containers.len() - running - paused,
        images: engine.images().len(),
        dirs: layers.filter(|layer| layer.driver == driver).count(),
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
        containers: containers.len(),
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
