//! `containers`: what the host's engine holds.

mod filter;

use std::collections::HashMap;
use std::io::{self, Write};

use serde::Serialize;

use crate::bytes::Bytes;
use crate::command::{Context, Group, Help, Outcome, Verb};
use crate::engine::inventory::{ContainerState, Image, Pod, familiar, is_zero_time, short};
use crate::engine::{self, Engine, Survey};
use crate::error::Result;
use crate::render::column::{Column, column, giving, optional};
use crate::render::{Look, table, time};

/// List the host's containers
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What is done anyway: people type `ps -a`
    #[arg(short, long = "all", hide = true)]
    _all: bool,
    /// Only those: name=web, status=exited, exited=1, ancestor=nginx, health=unhealthy, id=1f
    #[arg(short, long = "filter", value_name = "KEY=VALUE", value_parser = filter::filter)]
    filters: Vec<filter::Filter>,
}

#[derive(Debug, Serialize, schemars::JsonSchema)]
#[schemars(rename = "ContainerRow")]
pub struct Row {
    /// What it is called, as a TARGET.
    pub target: Bytes,
    pub engine: &'static str,
    pub id: String,
    pub name: String,
    /// As the person called it; the id where that name has been given to another image, or, as docker has
    /// it, the image has it no more.
    pub image: String,
    /// The image that its layers are of; empty where no image that is still here has them.
    pub image_id: String,
    pub command: String,
    /// RFC 3339.
    pub created: String,
    /// `created`, `running`, `paused`, `restarting`, `removing`, `dead` or `exited`; `unknown` where
    /// nothing tells: only a process could, and the host is a copy, or it has gone and left no trace.
    pub state: &'static str,
    /// `starting`, `healthy` or `unhealthy`, of one that runs and has checks of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<&'static str>,
    /// None where nobody knows it: containerd forgets it with the task.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i64>,
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
    /// Its host is a copy, and nothing says as of when: what ran may have run on for a minute or a year.
    #[serde(skip)]
    pub is_of_copy: bool,
    /// The name as the table has it: with what tells it from another row's.
    #[serde(skip)]
    pub shown_name: String,
}

impl Verb for Args {
    const HELP: Help = Help {
        group: Group::Host,
        examples: &[
            "layerctl containers",
            "layerctl --root /mnt/disk containers",
            "layerctl containers -q | xargs -n1 layerctl changes",
        ],
        exit: "0 listed, be there none; 2 something could not be read",
    };

    const DOCKER: &'static [(&'static str, &'static str)] = &[
        ("ID", "CONTAINER ID"),
        ("Image", "IMAGE"),
        ("Command", "COMMAND"),
        ("CreatedAt", "CREATED AT"),
        ("RunningFor", "CREATED"),
        ("State", "STATE"),
        ("Status", "STATUS"),
        ("Ports", "PORTS"),
        ("Names", "NAMES"),
    ];

    type Answer = Vec<Row>;

    fn run(self, context: &mut Context<'_>) -> Result<Outcome<Vec<Row>>> {
        context.survey.look_everywhere();
        let mut rows = told_apart(rows(&context.survey));
        context.note_no_engine();
        filter::keep(context, &self.filters, &mut rows)?;
        Outcome::yes(rows)
    }
}

/// Every container, of a survey that has looked everywhere.
pub(super) fn rows(survey: &Survey<'_>) -> Vec<Row> {
    let labels = survey.labels();
    let images = survey.images();
    let containers = survey.containers();
    let is_live = survey.host.is_live() || survey.host.is_alias();
    let is_of_copy = !is_live && !time::is_told();
    containers
        .into_iter()
        .map(|(engine, container)| {
            let is_another = if engine.description().names_what_is_there {
                let mut of_engine = images.iter().filter(|(of, _)| of.root() == engine.root());
                let own = images.iter().find(|(of, image)| {
                    of.root() == engine.root() && image.id == container.image_id
                });
                match own {
                    Some((_, own)) => !is_name_of(&container.image, own),
                    // Where nothing tells of any image, what the container says is all that is known.
                    None => of_engine.next().is_some(),
                }
            } else {
                images.iter().any(|(_, image)| {
                    image.id != container.image_id
                        && image.names.tags.iter().any(|tag| {
                            *tag == container.image
                                || tag.strip_suffix(":latest") == Some(&container.image)
                        })
                })
            };
            let time =
                |time: &Option<String>| time.clone().filter(|time| !is_zero_time(Some(time)));
            let label = labels.of_container(engine, &container).cloned();
            Row {
                target: label
                    .unwrap_or_else(|| Bytes::from(format!("{}:{}", engine.name(), container.id))),
                engine: engine.name(),
                mounted: (engine.has_union(&container) && !survey.table.0.is_empty())
                    .then(|| survey.mounted_of(engine, &container).is_some()),
                image: if is_another && container.image_id.is_empty() {
                    "<none>".to_owned()
                } else if is_another {
                    renamed(engine, &container.image_id)
                } else {
                    container.image
                },
                id: container.id,
                name: container.name,
                image_id: container.image_id,
                command: container.command,
                created: container.created,
                state: container.state.word(),
                health: container.state.health(),
                exit_code: container.state.exit_code,
                started: time(&container.state.started_at),
                finished: time(&container.state.finished_at),
                ports: container.ports,
                driver: container.driver,
                namespace: container.namespace,
                pod: container.pod,
                full_state: container.state,
                is_of_copy,
                shown_name: String::new(),
            }
        })
        .collect()
}

/// What stands for a name that an image has no more: its id, as the engine itself writes it.
fn renamed(engine: &dyn Engine, id: &str) -> String {
    if engine.description().names_what_is_there {
        format!("sha256:{id}")
    } else {
        short(id).to_owned()
    }
}

/// Whether an image can be called so: by a name with its tag or a digest, or by its id or the start of that.
fn is_name_of(typed: &str, image: &Image) -> bool {
    let id = typed.strip_prefix("sha256:").unwrap_or(typed);
    let is_id = !id.is_empty() && image.id.starts_with(id);
    let typed = familiar(typed);
    // Of a name with a tag and a digest the digest counts.
    let (name, digest) = match typed.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (typed, None),
    };
    let mut tags = image.names.tags.iter().map(|tag| familiar(tag));
    let has_digest = |digest: &str| {
        let own = digest.strip_prefix("sha256:") == Some(&*image.id);
        let mut given = image.names.digests.iter();
        own || given.any(|of| of.split_once('@').is_some_and(|(_, of)| of == digest))
    };
    is_id
        || digest.is_some_and(has_digest)
        || digest.is_none()
            && tags.any(|tag| tag == name || tag.strip_suffix(":latest") == Some(name))
}

/// Rows by names that tell them apart: pods of two namespaces of Kubernetes' can have one name, and
/// what was started anew in a pod has the name of the one before.
fn told_apart(mut rows: Vec<Row>) -> Vec<Row> {
    let mut sharers: HashMap<String, usize> = HashMap::new();
    let in_pod = |row: &Row| {
        let whole = row.pod.as_ref().and_then(Pod::whole_name);
        whole.unwrap_or_else(|| row.name.clone())
    };
    // Names of one engine, in one division of its names.
    let key = |row: &Row, name: &str| {
        let namespace = row.namespace.as_deref().unwrap_or_default();
        format!("{}:{namespace}:{name}", row.engine)
    };
    for row in &rows {
        let (plain, whole) = (key(row, &row.name), key(row, &in_pod(row)));
        *sharers.entry(plain.clone()).or_default() += 1;
        if whole != plain {
            *sharers.entry(whole).or_default() += 1;
        }
    }
    let is_shared = |row: &Row, name: &str| sharers.get(&key(row, name)).is_some_and(|of| *of > 1);
    let names = rows.iter().map(|row| {
        let (plain, whole) = (row.name.clone(), in_pod(row));
        let attempt = row.pod.as_ref().and_then(|pod| pod.attempt);
        match attempt.filter(|_| is_shared(row, &whole)) {
            _ if !is_shared(row, &plain) => plain,
            // All of them are of one pod.
            Some(attempt) if sharers.get(&key(row, &plain)) == sharers.get(&key(row, &whole)) => {
                Pod::numbered(&plain, attempt)
            }
            Some(attempt) => Pod::numbered(&whole, attempt),
            None => whole,
        }
    });
    let names: Vec<String> = names.collect();
    for (row, name) in rows.iter_mut().zip(names) {
        row.shown_name = name;
    }
    rows
}

impl crate::command::Row for Row {
    fn words(&self, give: &mut dyn FnMut(&[u8])) {
        give(self.id.as_bytes());
    }

    fn columns(_look: Look) -> Vec<Column<Row>> {
        vec![
            optional("NAMESPACE", |row: &Row, _, cell| {
                cell.text(row.namespace.as_deref().unwrap_or_default());
            }),
            column("CONTAINER ID", |row, look, cell| {
                cell.text(&look.id(&row.id))
            }),
            giving(1, "IMAGE", |row, look, cell| {
                cell.text(row.shown_image(look));
            }),
            giving(4, "COMMAND", |row, look, cell| {
                cell.show(format_args!("\"{}\"", look.clip(&row.command, 20)));
            }),
            giving(2, "CREATED", |row, _, cell| {
                cell.text(&time::ago(&row.created))
            }),
            // Whether it runs says more than what it was made of.
            giving(0, "STATUS", |row, _, cell| cell.text(&row.status())),
            giving(2, "PORTS", |row, _, cell| cell.text(&row.ports)),
            giving(3, "DRIVER", |row, _, cell| cell.text(&row.driver)),
            column("NAMES", |row, _, cell| cell.text(&row.shown_name)),
        ]
    }

    fn docker(&self, look: Look) -> Vec<Vec<String>> {
        vec![vec![
            look.id(&self.id),
            self.shown_image(look).to_owned(),
            format!("\"{}\"", look.clip(&self.command, 20)),
            time::moment(&self.created),
            time::ago(&self.created),
            self.state.to_owned(),
            self.status(),
            self.ports.clone(),
            self.name.clone(),
        ]]
    }

    fn table(rows: &[Row], look: Look, out: &mut dyn Write) -> io::Result<()> {
        let mut columns = Row::columns(look);
        // Docker alone needs no name; what is not docker's is told apart.
        let goes_without_saying =
            |row: &Row| engine::called(row.engine).is_some_and(|of| of.goes_without_saying);
        if !rows.iter().all(goes_without_saying) {
            columns.insert(
                0,
                column("ENGINE", |row: &Row, _, cell| cell.text(row.engine)),
            );
        }
        table::write(&columns, rows, look, out)
    }
}

impl Row {
    /// Whether its engine's own list is docker's.
    fn is_dockers(&self) -> bool {
        engine::called(self.engine).is_some_and(|of| of.names_what_is_there)
    }

    /// The image as the engine's own list has it: docker cuts ids and digests.
    /// docs/facts.md#engines-2026-c8
    fn shown_image(&self, look: Look) -> &str {
        if look.no_trunc || !self.is_dockers() {
            return &self.image;
        }
        let whole = self.image.strip_prefix("sha256:").unwrap_or(&self.image);
        if !whole.is_empty() && whole == self.image_id {
            return short(whole);
        }
        let name = self.image.split_once('@').map(|(name, _)| name);
        name.unwrap_or(&self.image)
    }

    /// As `docker ps` words it, and what the mount table says against it. Of a copy it is said when a
    /// container was started: how long it has been up since then nobody knows.
    fn status(&self) -> String {
        let code = self.full_state.exit_code;
        let code = code.map_or_else(|| "unknown".to_owned(), |code| code.to_string());
        // What is no time, or lies ahead, is not said to be an age.
        let since = |time: &Option<String>| {
            let age = time.as_deref().and_then(time::since);
            age.map(|age| format!(" {age}")).unwrap_or_default()
        };
        let ago = |time: &Option<String>| match since(time).as_str() {
            "" => String::new(),
            age => format!("{age} ago"),
        };
        let up = || match &self.started {
            Some(moment) if self.is_of_copy => format!("Up since {}", time::to_the_second(moment)),
            started => format!("Up{}", since(started)),
        };
        let words = match self.state {
            "unknown" => "Unknown".into(),
            "running" => match self.health {
                Some(health) => format!("{} ({health})", up()),
                None => up(),
            },
            "paused" => format!("{} (Paused)", up()),
            "restarting" => format!("Restarting ({code}){}", ago(&self.finished)),
            "removing" => "Removal In Progress".into(),
            "dead" => "Dead".into(),
            "created" => "Created".into(),
            _ => format!("Exited ({code}){}", ago(&self.finished)),
        };
        let is_up = matches!(self.state, "running" | "paused");
        match (is_up, self.mounted) {
            (true, Some(false)) => format!("{words}, not mounted"),
            (false, Some(true)) if self.state != "unknown" => format!("{words}, still mounted"),
            _ => words,
        }
    }
}
