//! `images`: what the host's engine holds.

use std::io::{self, Write};

use serde::Serialize;

use crate::bytes::Bytes;
use crate::command::{Context, Group, Help, Outcome, Verb};
use crate::engine::Survey;
use crate::error::Result;
use crate::render::column::{column, giving, optional};
use crate::render::{Look, table, time};

/// List the host's images
#[derive(Debug, clap::Args)]
pub struct Args {
    /// List images that are only steps of others, too
    #[arg(short, long)]
    all: bool,
}

#[derive(Debug, Serialize, schemars::JsonSchema)]
#[schemars(rename = "ImageRow")]
pub struct Row {
    /// What it is called, as a TARGET.
    pub target: Bytes,
    pub engine: &'static str,
    pub id: String,
    /// `name:tag`; none for a dangling image.
    pub tags: Vec<String>,
    /// `name@sha256:...`, as it was pulled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub digests: Vec<String>,
    /// RFC 3339.
    pub created: String,
    /// Bytes: the sum of the layers'.
    pub size: u64,
    pub layer_count: usize,
    pub driver: String,
    /// containerd's namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Why it cannot be used, in the engine's words: a record or content in the middle is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

impl Verb for Args {
    const HELP: Help = Help {
        group: Group::Host,
        examples: &[
            "layerctl images",
            "layerctl images --all",
            "layerctl --root /mnt/disk images --format json",
        ],
        exit: "0 listed, be there none; 2 something could not be read",
    };

    const DOCKER: &'static [(&'static str, &'static str)] = &[
        ("ID", "IMAGE ID"),
        ("Repository", "REPOSITORY"),
        ("Tag", "TAG"),
        ("CreatedSince", "CREATED"),
        ("CreatedAt", "CREATED AT"),
        ("Size", "SIZE"),
    ];

    type Answer = Vec<Row>;

    fn run(self, context: &mut Context<'_>) -> Result<Outcome<Vec<Row>>> {
        let rows = rows(&context.survey, self.all);
        context.note_no_engine();
        Outcome::yes(rows)
    }
}

/// The images; with `all` also those that are only steps of others.
pub(super) fn rows(survey: &Survey<'_>, all: bool) -> Vec<Row> {
    let labels = survey.labels();
    let images = survey.images();
    let parents: std::collections::HashSet<String> = images
        .iter()
        .filter_map(|(_, image)| image.parent.clone())
        .collect();
    images
        .into_iter()
        // As docker: an untagged image that another was built on is a step, not an image.
        .filter(|(_, image)| {
            let names = &image.names;
            let is_named = !names.tags.is_empty() || !names.digests.is_empty();
            all || is_named || !parents.contains(&image.id)
        })
        .map(|(engine, image)| Row {
            target: labels
                .of_image(engine, &image)
                .cloned()
                .unwrap_or_else(|| Bytes::from(format!("{}:sha256:{}", engine.name(), image.id))),
            engine: engine.name(),
            layer_count: image
                .history
                .iter()
                .filter(|entry| entry.layer.is_some())
                .count(),
            id: image.id,
            tags: image.names.tags,
            // The CRI calls an image by its id, too.
            digests: image
                .names
                .digests
                .into_iter()
                .filter(|name| name.contains('@'))
                .collect(),
            created: image.created,
            size: image.size,
            driver: image.driver,
            namespace: image.namespace,
            problem: image.problem,
        })
        .collect()
}

/// An image by one of its names: each is a line, as docker has it.
struct Named<'r> {
    row: &'r Row,
    repository: &'r str,
    tag: &'r str,
}

/// What docker shows where there is no name, or no tag.
const NONE: &str = "<none>";

impl crate::command::Row for Row {
    fn words(&self, give: &mut dyn FnMut(&[u8])) {
        give(self.id.as_bytes());
    }

    fn docker(&self, look: Look) -> Vec<Vec<String>> {
        let shown = |of: Named<'_>| {
            vec![
                look.id(&self.id),
                of.repository.to_owned(),
                of.tag.to_owned(),
                time::ago(&self.created),
                time::moment(&self.created),
                look.size(self.size),
            ]
        };
        self.names().into_iter().map(shown).collect()
    }

    fn table(rows: &[Row], look: Look, out: &mut dyn Write) -> io::Result<()> {
        let columns = [
            optional("NAMESPACE", |of: &Named<'_>, _, cell| {
                cell.text(of.row.namespace.as_deref().unwrap_or_default());
            }),
            column("REPOSITORY", |of, _, cell| cell.text(of.repository)),
            column("TAG", |of, _, cell| cell.text(of.tag)),
            column("IMAGE ID", |of, look, cell| cell.text(&look.id(&of.row.id))),
            giving(1, "CREATED", |of, _, cell| {
                cell.text(&time::ago(&of.row.created))
            }),
            column("SIZE", |of, look, cell| cell.text(&look.size(of.row.size))),
            giving(2, "LAYERS", |of, _, cell| cell.show(of.row.layer_count)),
            giving(3, "DRIVER", |of, _, cell| cell.text(&of.row.driver)),
            optional("PROBLEM", |of, _, cell| {
                cell.text(of.row.problem.as_deref().unwrap_or_default());
            }),
        ];
        let lines: Vec<Named<'_>> = rows.iter().flat_map(Row::names).collect();
        table::write(&columns, &lines, look, out)
    }
}

impl Row {
    fn names(&self) -> Vec<Named<'_>> {
        let named = |repository, tag| Named {
            row: self,
            repository,
            tag,
        };
        let tags = self.tags.iter();
        let tagged = tags.map(|tag| {
            let (repository, tag) = tag.rsplit_once(':').unwrap_or((tag, NONE));
            named(repository, tag)
        });
        let mut all: Vec<Named<'_>> = tagged.collect();
        // A repository that has no tag of it has a line nevertheless.
        for digest in &self.digests {
            let repository = digest.split_once('@').map_or(&**digest, |(name, _)| name);
            if all.iter().all(|of| of.repository != repository) {
                all.push(named(repository, NONE));
            }
        }
        if all.is_empty() {
            all.push(named(NONE, NONE));
        }
        all
    }
}
