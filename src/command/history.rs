//! `history TARGET`: the layers of an image or container, newest first.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use serde::Serialize;

use crate::bytes::Bytes;
use crate::command::{Context, Group, Help, Outcome, Verb};
use crate::engine::Role;
use crate::engine::inventory::Image;
use crate::error::{Error, Result};
use crate::render::column::{Column, column, giving};
use crate::render::{Look, time};
use crate::target::Target;

/// List the layers of an image or container, newest first
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A container or an image
    target: OsString,
}

/// One step, with the layer it made.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct Row {
    /// What has the history, as a TARGET.
    pub target: Bytes,
    /// The image that ended with this step, where the host still has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// RFC 3339.
    pub created: String,
    pub instruction: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub comment: String,
    /// The step made no layer.
    pub empty: bool,
    /// Bytes.
    pub size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub diff_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chain_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layer: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub directory: Option<Bytes>,
}

impl Verb for Args {
    const HELP: Help = Help {
        group: Group::Look,
        examples: &[
            "layerctl history nginx:latest",
            "layerctl history web",
            "layerctl history -v --no-trunc nginx",
        ],
        exit: "0 listed; 2 could not tell",
    };

    const DOCKER: &'static [(&'static str, &'static str)] = &[
        ("ID", "IMAGE"),
        ("CreatedSince", "CREATED"),
        ("CreatedAt", "CREATED AT"),
        ("CreatedBy", "CREATED BY"),
        ("Size", "SIZE"),
        ("Comment", "COMMENT"),
    ];

    type Answer = Vec<Row>;

    fn run(self, context: &mut Context<'_>) -> Result<Outcome<Vec<Row>>> {
        let target = context.find(self.target.as_bytes())?;
        let steps = match image_of(context, &target)? {
            Ok(image) => image.history,
            Err(error) => {
                context.problems.push(error);
                Vec::new()
            }
        };
        let label = context.survey.label(&target.union);
        let driver = target.union.driver.as_deref().unwrap_or_default();
        let directory = |cache_id: &str| {
            let mut engines = context.survey.engines_here();
            engines.find_map(|engine| engine.directory_of_layer(driver, cache_id))
        };
        // A container's own layers stand above its image's, whose layers are known even where the
        // image itself is gone. Below a layer of the image, Docker's init layer is no step of it.
        let is_own = |role| matches!(role, Role::Container | Role::Init);
        let branches = target.union.branches.iter();
        let own = branches
            .take_while(|branch| steps.is_empty() || is_own(branch.layer.role))
            .map(|branch| Row {
                target: label.clone(),
                image: None,
                created: String::new(),
                instruction: String::new(),
                comment: match branch.layer.role {
                    Role::Image { number, of } => format!("layer {number} of {of}"),
                    role => format!("the {role} layer"),
                },
                empty: false,
                size: None,
                diff_id: None,
                chain_id: None,
                layer: branch.layer.id.clone(),
                directory: Some(branch.spec.path.clone()),
            });
        let steps = steps.iter().map(|step| {
            let layer = step.layer.as_ref();
            Row {
                target: label.clone(),
                image: step.image.clone(),
                created: step.created.clone(),
                instruction: step.instruction.clone(),
                comment: step.comment.clone(),
                empty: layer.is_none(),
                size: layer.map_or(Some(0), |layer| layer.size),
                diff_id: layer.and_then(|layer| layer.diff_id.clone()),
                chain_id: layer.and_then(|layer| layer.chain_id.clone()),
                layer: layer.and_then(|layer| layer.cache_id.clone()),
                directory: layer
                    .and_then(|layer| layer.cache_id.as_deref())
                    .and_then(directory),
            }
        });
        Outcome::yes(own.chain(steps).collect())
    }
}

/// The image that a target is, or was made from.
/// Outside: there is none. Inside: it cannot be read.
fn image_of(context: &Context<'_>, target: &Target) -> Result<Result<Image>> {
    let none = || Error::Refused {
        what: format!("{} has no history", target.union.label()),
        hint: "name an image or a container".into(),
    };
    let mut engines = context.survey.engines();
    let image = engines.find_map(|engine| engine.image_of(&target.union));
    image.ok_or_else(none)
}

impl crate::command::Row for Row {
    fn docker(&self, look: Look) -> Vec<Vec<String>> {
        let image = self.image.as_ref();
        vec![vec![
            image.map_or_else(|| "<missing>".to_owned(), |id| look.id(id)),
            time::ago(&self.created),
            time::moment(&self.created),
            look.clip(&self.instruction, 45),
            self.size.map(|size| look.size(size)).unwrap_or_default(),
            self.comment.clone(),
        ]]
    }

    fn words(&self, give: &mut dyn FnMut(&[u8])) {
        let id = self.image.as_ref().or(self.layer.as_ref());
        id.into_iter().for_each(|id| give(id.as_bytes()));
    }

    fn columns(look: Look) -> Vec<Column<Row>> {
        let mut columns = vec![
            column("IMAGE", |row: &Row, look, cell| match &row.image {
                Some(id) => cell.text(&look.id(id)),
                None => cell.word("<missing>"),
            }),
            giving(2, "CREATED", |row, _, cell| {
                if !row.created.is_empty() {
                    cell.text(&time::ago(&row.created));
                }
            }),
            giving(1, "CREATED BY", |row, look, cell| {
                cell.word(&look.clip(&row.instruction, 45));
            }),
            column("SIZE", |row, look, cell| {
                cell.word(&row.size.map(|size| look.size(size)).unwrap_or_default());
            }),
            column("LAYER", |row, look, cell| match (&row.layer, row.empty) {
                (Some(id), _) => cell.text(&look.id(id)),
                (None, true) => cell.word("(empty)"),
                (None, false) => cell.word("(not here)"),
            }),
        ];
        if look.verbose {
            columns.push(column("DIFF ID", |row, look, cell| {
                let id = row.diff_id.as_deref();
                cell.text(&id.map(|id| look.id(id)).unwrap_or_default());
            }));
            columns.push(column("DIRECTORY", |row, look, cell| {
                let directory = row.directory.as_ref();
                cell.word(&directory.map(|dir| look.directory(dir)).unwrap_or_default());
            }));
        }
        columns.push(column("COMMENT", |row, _, cell| cell.text(&row.comment)));
        columns
    }
}
