//! `info`: the storage part of `docker info`, what is mounted, and what could not be read.

use serde::Serialize;

use crate::bytes::Bytes;
use crate::command::{Context, Outcome, Report};
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
    let engines = if context.survey.docker.exists() {
        vec![docker(context)]
    } else {
        Vec::new()
    };
    let mounted = &context.survey.mounted;
    let elsewhere = mounted
        .iter()
        .filter(|union| union.state == crate::engine::MountState::Elsewhere);
    context
        .problems
        .extend(context.survey.docker.take_problems());
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

fn docker(context: &Context<'_>) -> Engine {
    let survey = &context.survey;
    let docker = &survey.docker;
    let containers = docker.containers();
    let count = |word: &str| {
        containers
            .iter()
            .filter(|container| container.state.word() == word)
            .count()
    };
    // As docker counts: a paused container is not running.
    let (running, paused) = (count("running") + count("restarting"), count("paused"));
    let driver = docker.driver(&containers);
    let root_dir = docker.root.join(driver.as_bytes());
    let dirperm1 =
        survey.table.0.iter().filter(|mount| {
            mount.fs_type == b"aufs" && mount.point.strip_prefix(&root_dir).is_some()
        });
    Engine {
        engine: "docker",
        running,
        paused,
        stopped: containers.len() - running - paused,
        images: docker.images().len(),
        dirs: docker.layer_ids().len(),
        backing_filesystem: survey
            .table
            .covering(&docker.root)
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
