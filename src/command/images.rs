//! `images`: what the host's engine holds.

use serde::Serialize;

use crate::command::{Context, Outcome, Report};
use crate::error::Result;

/// Whether images that are only steps of others are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    Top,
    All,
}

#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct Row {
    pub engine: &'static str,
    pub id: String,
    /// `name:tag`; none for a dangling image.
    pub tags: Vec<String>,
    /// RFC 3339.
    pub created: String,
    /// Bytes: the sum of the layers'.
    pub size: u64,
    pub layers: usize,
    pub driver: String,
    /// containerd's namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

pub fn run(context: &mut Context<'_>, which: Which) -> Result<Outcome> {
    let images = context.survey.images();
    let parents: std::collections::HashSet<String> = images
        .iter()
        .filter_map(|(_, image)| image.parent.clone())
        .collect();
    let rows = images
        .into_iter()
        // As docker: an untagged image that another was built on is a step, not an image.
        .filter(|(_, image)| {
            which == Which::All || !image.names.tags.is_empty() || !parents.contains(&image.id)
        })
        .map(|(engine, image)| Row {
            engine: engine.name(),
            layers: image
                .history
                .iter()
                .filter(|entry| entry.layer.is_some())
                .count(),
            id: image.id,
            tags: image.names.tags,
            created: image.created,
            size: image.size,
            driver: image.driver,
            namespace: image.namespace,
        })
        .collect();
    Outcome::yes(Report::Images(rows))
}
