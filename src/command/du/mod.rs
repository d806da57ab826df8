//! `du [TARGET...]`: who fills the disk. The sizes of a store's rows add up to what `du` says of it.

mod store;
mod table;
mod wasted;

use std::cmp::Reverse;
use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::os::unix::ffi::OsStrExt;

use serde::Serialize;

use crate::bytes::{Bytes, escape, shell_quote};
use crate::command::progress;
use crate::command::space::Patience;
use crate::command::{Context, Group, Help, Outcome, Verb};
use crate::engine::usage::ContainerName;
use crate::engine::{self, Engine, OwnerKind, Survey, Union};
use crate::error::{Error, Result};
use crate::target::{self, Target};
pub(super) use store::Store;
use wasted::WastedFile;

/// Tell who fills the disk: containers, images, and everything else of a store
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A container, an image or a layer; without it the whole of every store
    #[arg(value_name = "TARGET")]
    targets: Vec<OsString>,
    /// Only the N largest; sums are of all
    #[arg(short = 'n', long, value_name = "N")]
    largest: Option<usize>,
    // Here it has no short form: -n is for the largest.
    /// The namespace of containerd's to look at: default, k8s.io, ...
    #[arg(
        long,
        id = "namespace",
        value_name = "NAMESPACE",
        help_heading = "Global options",
        hide_short_help = true
    )]
    _namespace: Option<String>,
}

/// What takes the space.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "SpaceKind")]
pub enum Kind {
    /// A container's own layer, its init layer, and what is kept beside them.
    Container,
    /// The layers that only this image has.
    Image,
    /// The layers that several images have.
    Shared,
    /// Layers that nothing uses.
    Unused,
    /// Layers of which no record says who uses them: records are lost, or something needs them that the
    /// engine has forgotten.
    Unknown,
    BuildCache,
    /// One volume.
    Volume,
    /// A container's logs.
    Log,
    /// Images' and layers' records, content that was downloaded; of a container its configuration.
    Records,
    /// Files in mount points on which nothing is mounted: they are in no layer.
    Beneath,
    Other,
    Total,
    /// One layer of the target.
    Layer,
}

impl Kind {
    pub fn word(self) -> &'static str {
        match self {
            Kind::Container => "container",
            Kind::Image => "image",
            Kind::Shared => "shared layers",
            Kind::Unused => "unused layers",
            Kind::Unknown => "layers of unknown use",
            Kind::BuildCache => "build cache",
            Kind::Volume => "volume",
            Kind::Log => "log",
            Kind::Records => "records",
            Kind::Beneath => "beneath mounts",
            Kind::Other => "other",
            Kind::Total => "total",
            Kind::Layer => "layer",
        }
    }
}

#[derive(Debug, Serialize, schemars::JsonSchema)]
#[schemars(rename = "SpaceRow")]
pub struct Row {
    pub engine: &'static str,
    /// The engine's data directory.
    pub store: Bytes,
    pub kind: Kind,
    /// The container or the image that it is, or is of, as a TARGET.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<Bytes>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Bytes on disk of nothing that another row counts, too; none where nobody knows them: what
    /// keeps the layers has them elsewhere, or somebody ended the walk before it came there.
    pub disk: Option<u64>,
    /// Somebody ended the walk: what is not known was not reached.
    #[serde(skip)]
    pub is_part: bool,
    /// It is of one of several that were named, so that tables say of which.
    #[serde(skip)]
    pub is_of_several: bool,
    /// Of an image's layer: bytes of content.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Of an image's layer: bytes on disk that later layers have overwritten, deleted, or copied to
    /// change a mode or an owner.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wasted: Option<u64>,
    /// What made an image's layer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instruction: Option<String>,
    /// Who uses a volume.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub containers: Option<Vec<ContainerName>>,
    /// Of a container's: configuration and logs. They are in a container's size, and not in that
    /// of one of its layers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files: Option<u64>,
    /// Of a container's: its logs, which `files` counts, too; none where the engine keeps none in its store.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logs: Option<u64>,
    /// Bytes of the layers that an image shares with others, which the row `shared` counts; of a
    /// container's rows those of a layer of its image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shared: Option<u64>,
    /// How many images have the layer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_count: Option<usize>,
    /// The largest files of a container's own layer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub largest: Vec<Large>,
    /// The largest of what is counted and lies in no layer, as paths of the host: a container's
    /// logs, files beneath mounts, the directories of unused layers and of what is `other`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<Large>,
    /// Of an image: the largest files that are wasted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub wasted_files: Vec<WastedFile>,
}

#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct Large {
    pub path: Bytes,
    /// Bytes on disk.
    pub disk: u64,
    /// It is a container's log.
    #[serde(skip)]
    pub is_log: bool,
}

impl Verb for Args {
    const HELP: Help = Help {
        group: Group::Disk,
        examples: &[
            "layerctl du",
            "layerctl du web db",
            "layerctl du -n 5 nginx:latest",
        ],
        exit: "0 told; 2 something could not be read",
    };

    type Answer = Vec<Row>;

    fn run(self, context: &mut Context<'_>) -> Result<Outcome<Vec<Row>>> {
        let mut targets: Vec<(Bytes, Target)> = Vec::new();
        for name in &self.targets {
            let (name, path) = target::split(name.as_bytes());
            let target = context.find(name)?;
            let label = context.survey.label(&target.union);
            if let Some(path) = path {
                return Err(no_part(&label, path));
            }
            if targets.iter().any(|(known, _)| *known == label) {
                continue;
            }
            context.survey.watch(&target.union, None);
            targets.push((label, target));
        }
        context.survey.look_everywhere();
        let unions: Vec<&Union> = targets.iter().map(|(_, target)| &target.union).collect();
        let mut problems = Vec::new();
        let threads = context.threads.count();
        let mut parts = rows(&context.survey, &unions, threads, &mut problems)?;
        for ((_, target), rows) in targets.iter().zip(&mut parts) {
            if rows.is_empty() {
                return Err(Error::Refused {
                    what: format!("{} is in no engine's store", target.union.label()),
                    hint: "name a container, an image or a layer".into(),
                });
            }
            problems.extend(store::missing_of(&context.survey, &target.union));
            if !is_container(&target.union) {
                let stack = context.open(target);
                wasted::add_to(rows, &target.union, &stack, threads, &mut problems);
                biggest_first(rows);
            }
            for row in rows {
                row.is_of_several = targets.len() > 1;
            }
        }
        let mut rows: Vec<Row> = parts.into_iter().flatten().collect();
        if targets.is_empty() {
            biggest_first(&mut rows);
        }
        if let Some(most) = self.largest {
            keep_largest(&mut rows, most);
        }
        context.problems.append(&mut problems);
        context.note_no_engine();
        Outcome::yes(rows)
    }
}

/// That a part was asked for. A layer is one thing on the disk; its files can be listed.
fn no_part(label: &Bytes, path: &[u8]) -> Error {
    let part = Bytes([label.as_bytes(), b":", path].concat());
    let (whole, part_typed) = (shell_quote(label), shell_quote(&part));
    Error::Refused {
        what: format!(
            "{}: du tells of whole containers, images and layers",
            escape(part.as_bytes())
        ),
        hint: format!(
            "`layerctl du {whole}` does; `layerctl find -t f --size +0 {part_typed}` lists the files of a part"
        ),
    }
}

/// About how many names a store has: as many as its file system, where it has one of its own.
fn expected(survey: &Survey<'_>, root: &Bytes) -> Option<u64> {
    let device = |path: &Bytes| {
        let stat = survey.host.stat(path).ok().flatten();
        stat.map(|stat| stat.dev)
    };
    let is_own = device(root) != device(&root.parent());
    let root = survey.host.open_dir(root).ok().filter(|_| is_own)?;
    root.inodes_used()
}

/// The rows of every store; or of unions in them, those of each for itself.
fn rows(
    survey: &Survey<'_>,
    unions: &[&Union],
    threads: NonZeroUsize,
    problems: &mut Vec<Error>,
) -> Result<Vec<Vec<Row>>> {
    let is_of = |union: &Union, engine: &dyn Engine| {
        let owner = union.owner.as_ref();
        owner.is_some_and(|owner| owner.engine == engine.name())
    };
    let is_wanted =
        |engine: &dyn Engine| unions.is_empty() || unions.iter().any(|union| is_of(union, engine));
    let mut parts: Vec<Vec<Row>> = Vec::new();
    parts.resize_with(unions.len().max(1), Vec::new);
    walk(survey, is_wanted, threads, problems, |store, problems| {
        let store = store?;
        if unions.is_empty() {
            parts[0].extend(store.everything(problems));
        }
        for (union, rows) in unions.iter().zip(&mut parts) {
            if !is_of(union, store.engine()) {
                continue;
            }
            let found = store.rows_of(union);
            if found.iter().any(|row| row.disk.is_none()) {
                problems.extend(store.unknown());
            }
            rows.extend(found);
        }
        Ok(())
    })?;
    Ok(parts)
}

/// Walks the stores that are wanted, one after the other. `give` is told of one that cannot be opened,
/// too.
///
/// # Errors
/// What `give` says.
pub(super) fn walk<E>(
    survey: &Survey<'_>,
    is_wanted: impl Fn(&dyn Engine) -> bool,
    threads: NonZeroUsize,
    problems: &mut Vec<Error>,
    mut give: impl FnMut(Result<Store<'_, '_>>, &mut Vec<Error>) -> Result<(), E>,
) -> Result<(), E> {
    let patience = Patience::new();
    let (uses, unread) = engine::layer_uses(survey);
    problems.extend(unread);
    for (engine, uses) in uses {
        if !is_wanted(engine) {
            continue;
        }
        expected(survey, engine.root())
            .into_iter()
            .for_each(progress::expect);
        let store = Store::walk(survey, engine, uses, (threads, &patience), problems);
        give(store, problems)?;
    }
    Ok(())
}

/// Leaves the first rows; a sum is of all, and stays.
fn keep_largest(rows: &mut Vec<Row>, most: usize) {
    let mut left = most;
    rows.retain(|row| {
        let is_sum = row.kind == Kind::Total;
        let is_kept = is_sum || left > 0;
        left = left.saturating_sub(usize::from(!is_sum));
        is_kept
    });
}

fn is_container(union: &Union) -> bool {
    let owner = union.owner.as_ref();
    owner.is_some_and(|owner| owner.kind == OwnerKind::Container)
}

/// The largest at the top, what is not known below, sums at the end.
fn biggest_first(rows: &mut [Row]) {
    rows.sort_by_key(|row| (row.kind == Kind::Total, Reverse(row.disk)));
}
