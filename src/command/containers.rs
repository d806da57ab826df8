//! `containers`: what the host's engine holds.

use serde::Serialize;

use crate::command::{Context, Outcome, Report};
use crate::engine::inventory::{ContainerState, Pod, is_zero_time, short};
use crate::error::Result;

#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct Row {
    pub engine: &'static str,
    pub id: String,
    pub name: String,
    /// As the person called it; the id where that name has been given to another image.
    pub image: String,
    pub image_id: String,
    pub command: String,
    /// RFC 3339.
    pub created: String,
    /// `created`, `running`, `paused`, `restarting`, `removing`, `dead` or `exited`.
    pub state: &'static str,
    pub exit_code: i64,
    /// RFC 3339; none if it never was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished: Option<String>,
    pub ports: String,
    pub driver: String,
    /// containerd's namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Kubernetes' names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<Pod>,
    /// Whether the kernel has its union mounted, whatever the engine's files say; none where that
    /// is not known: another driver's, or a host without a mount table.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mounted: Option<bool>,
    #[serde(skip)]
    pub full_state: ContainerState,
}

pub fn run(context: &mut Context<'_>) -> Result<Outcome> {
    context.survey.look_everywhere();
    let survey = &context.survey;
    let images = survey.images();
    let containers = survey.containers();
    let rows = containers
        .into_iter()
        .map(|(engine, container)| {
            let is_another = images.iter().any(|(_, image)| {
                image.id != container.image_id
                    && image.names.tags.iter().any(|tag| {
                        *tag == container.image
                            || tag.strip_suffix(":latest") == Some(&container.image)
                    })
            });
            let time =
                |time: &Option<String>| time.clone().filter(|time| !is_zero_time(Some(time)));
            Row {
                engine: engine.name(),
                mounted: (engine.has_union(&container) && !survey.table.0.is_empty())
                    .then(|| survey.mounted_of(&container.id).is_some()),
                image: if is_another {
                    short(&container.image_id).to_owned()
                } else {
                    container.image
                },
                id: container.id,
                name: container.name,
                image_id: container.image_id,
                command: container.command,
                created: container.created,
                state: container.state.word(),
                exit_code: container.state.exit_code,
                started: time(&container.state.started_at),
                finished: time(&container.state.finished_at),
                ports: container.ports,
                driver: container.driver,
                namespace: container.namespace,
                pod: container.pod,
                full_state: container.state,
            }
        })
        .collect();
    Outcome::yes(Report::Containers(rows))
}
