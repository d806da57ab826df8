//! `verify [TARGET...]`: whether layers are what their digests say.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::os::unix::ffi::OsStrExt;

use serde::Serialize;

use crate::bytes::Bytes;
use crate::command::users::labels;
use crate::command::{Context, Group, Help, Outcome, Verb, counted, progress};
use crate::engine::inventory::{Image, Names};
use crate::engine::stored::StoredLayer;
use crate::engine::{Engine, Survey};
use crate::error::{Error, Result};
use crate::interrupt::Interrupt;
use crate::render::Look;
use crate::render::column::{Column, column, optional};
use crate::rescue::proof::{Faults, Proof, What};
use crate::rescue::verify::{Kept, Task, prove_all};

/// Prove that layers are what their digests say
///
/// Names, types, owners, modes, times, attributes and contents of every layer are held against the recipe of its
/// archive or the archive itself, and that against its digest; then the records of each image. A layer is proved,
/// differs, or cannot be proved, and says so. What engines change themselves is no fault.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only layers whose id or digest begins so
    #[arg(long, value_name = "ID")]
    layers: Vec<String>,
    /// Read no contents: names, sizes, types and metadata
    #[arg(long)]
    fast: bool,
    /// Images, or containers for theirs; without it every image
    #[arg(value_name = "TARGET")]
    targets: Vec<OsString>,
}

/// Whether something is what its digest says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum VerifyState {
    Proved,
    /// All but the contents, which nobody read.
    #[serde(rename = "metadata agrees")]
    Agrees,
    Differs,
    #[serde(rename = "cannot be proved")]
    Unproved,
}

impl VerifyState {
    fn word(self) -> &'static str {
        match self {
            VerifyState::Proved => "proved",
            VerifyState::Agrees => "metadata agrees",
            VerifyState::Differs => "differs",
            VerifyState::Unproved => "cannot be proved",
        }
    }
}

/// A layer that is proved or cannot be; or a fault of a layer or a record.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct Row {
    /// The image, as a TARGET, or the first of those that have the layer; of a name that names no image, that name.
    pub target: Bytes,
    pub engine: &'static str,
    pub state: VerifyState,
    /// The engine's id of the layer; none for a record of an image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layer: Option<String>,
    /// The digest of the layer's archive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub diff_id: Option<String>,
    /// What differs, in the layer; of a record where that is on the host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<Bytes>,
    /// In what it differs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub what: Option<What>,
    /// Why it cannot be proved, or what a record says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// The containers and images that stand on it, as TARGETs; of a name that names no image, that name.
    pub users: Vec<Bytes>,
}

impl Verb for Args {
    const HELP: Help = Help {
        group: Group::Repair,
        examples: &[
            "layerctl verify",
            "layerctl verify web:latest",
            "layerctl --root /mnt/old verify --fast",
        ],
        exit: "0 all proved, or with --fast no fault in what it looks at; 1 faults; 2 not all could be proved",
    };

    type Answer = Vec<Row>;

    fn run(self, context: &mut Context<'_>) -> Result<Outcome<Vec<Row>>> {
        let mut problems = Vec::new();
        let names = self.targets.iter();
        let mut targets = Vec::new();
        for name in names {
            targets.push(context.find(name.as_bytes())?);
        }
        let survey = &context.survey;
        let images = if self.targets.is_empty() {
            survey.images()
        } else {
            let mut images = Vec::new();
            for target in &targets {
                let mut engines = survey.engines();
                let found =
                    engines.find_map(|engine| Some((engine, engine.image_of(&target.union)?)));
                let (engine, image) = found.ok_or_else(|| Error::Refused {
                    what: format!("{} has no image", target.union.label()),
                    hint: "name an image or a container, or a layer with --layers".into(),
                })?;
                images.push((engine, image?));
            }
            images
        };
        let mut proving = Proving {
            survey,
            only: &self.layers,
            is_fast: self.fast,
            threads: context.threads.count(),
            users: users(survey, &mut problems),
            done: HashMap::new(),
            rows: Vec::new(),
        };
        let interrupt = Interrupt::catch_all();
        let mut batch = Vec::new();
        let (mut layers, mut told) = (0, Vec::new());
        for (engine, image) in images {
            if interrupt.is_pressed() {
                continue;
            }
            let label = proving.label(engine, &image);
            // What it is called as one of all: who reads one image need not know. A row tells it.
            if let Some(problem) = &image.problem {
                told.push(problem.clone());
                if image.history.is_empty() {
                    proving.without_records(engine, &image, label);
                    continue;
                }
            }
            match Kept::new(survey, engine, image) {
                Ok(kept) => {
                    layers += kept.stored.layers.len().max(1);
                    batch.push((kept, label));
                }
                Err(error) => problems.push(error),
            }
            if layers >= LAYERS_AT_ONCE {
                proving.images(&std::mem::take(&mut batch), &mut problems);
                layers = 0;
            }
        }
        proving.images(&batch, &mut problems);
        if self.targets.is_empty() && self.layers.is_empty() {
            proving.names();
        }
        let rows = proving.rows;
        problems.extend(unsure(&context.survey, &rows, &self.layers));
        let of_engines = context.survey.take_problems().into_iter();
        let is_told = |error: &Error| {
            let words = error.to_string();
            told.iter().any(|problem| words.ends_with(problem))
        };
        context
            .problems
            .extend(of_engines.filter(|error| !is_told(error)));
        context.problems.extend(problems);
        context.note_no_engine();
        Ok(Outcome {
            is_yes: !rows.iter().any(|row| row.state == VerifyState::Differs),
            answer: rows,
        })
    }
}

/// How many layers are opened before they are proved, by several threads.
const LAYERS_AT_ONCE: usize = 32;

/// That not everything was proved, if so: nothing is proved by an answer without a row.
fn unsure(survey: &Survey<'_>, rows: &[Row], only: &[String]) -> Option<Error> {
    if rows.is_empty() {
        if let Some(error) = survey.unknown("an image") {
            return Some(error);
        }
        let what = match only {
            [] => "there is no image here: nothing was proved".to_owned(),
            only => format!(
                "no image has a layer {}: nothing was proved",
                only.join(", ")
            ),
        };
        return Some(Error::Usage(what));
    }
    let count = rows
        .iter()
        .filter(|row| row.state == VerifyState::Unproved)
        .count();
    (count > 0).then(|| {
        let what = format!("{} could not be proved", counted(count as u64, "layer"));
        Error::Usage(what)
    })
}

/// The containers and images on each layer, by engine, driver and id.
type Users = HashMap<(&'static str, String, String), Vec<Bytes>>;

fn users(survey: &Survey<'_>, problems: &mut Vec<Error>) -> Users {
    let mut users = Users::new();
    for engine in survey.engines_here() {
        let uses = engine.layer_uses().unwrap_or_else(|error| {
            problems.push(error);
            Vec::new()
        });
        for of in uses {
            let labels = labels(survey, engine, &of);
            let key = (engine.name(), of.layer.driver, of.layer.id);
            users.insert(key, labels);
        }
    }
    users
}

/// What makes two layers one: their engine, its root, and all that is recorded of where they are.
type Key = (&'static str, Bytes, String);

fn key(kept: &Kept<'_>, layer: &StoredLayer) -> Key {
    let engine = kept.engine;
    // Records are hostile: two of them may name one directory, and each is proved.
    let place = (
        layer.label(),
        &kept.image.driver,
        &layer.diff_id,
        &layer.recipe,
    );
    (engine.name(), engine.root().clone(), format!("{place:?}"))
}

/// Layers that are being proved, each once.
struct Proving<'a, 'h> {
    survey: &'a Survey<'h>,
    only: &'a [String],
    is_fast: bool,
    threads: NonZeroUsize,
    users: Users,
    /// The faults of those that were.
    done: HashMap<Key, Faults>,
    rows: Vec<Row>,
}

impl Proving<'_, '_> {
    fn label(&self, engine: &dyn Engine, image: &Image) -> Bytes {
        let label = self.survey.labels().of_image(engine, image).cloned();
        label.unwrap_or_else(|| Bytes::from(format!("{}:sha256:{}", engine.name(), image.id)))
    }

    /// Proves the layers of some images, and then tells of each image in turn.
    fn images(&mut self, images: &[(Kept<'_>, Bytes)], problems: &mut Vec<Error>) {
        let mut keys = HashSet::new();
        let mut tasks = Vec::new();
        let mut order = Vec::new();
        for (kept, _) in images {
            for (at, layer) in kept.stored.layers.iter().enumerate() {
                let key = key(kept, layer);
                let is_meant =
                    self.only.is_empty() || self.only.iter().any(|id| is_called(layer, id));
                if is_meant && !self.done.contains_key(&key) && keys.insert(key.clone()) {
                    tasks.push(kept.task(self.survey, at, self.is_fast));
                    order.push(key);
                }
            }
        }
        // One whose size nobody knows would make a lie of all.
        let sizes: Option<Vec<u64>> = tasks.iter().map(Task::size).collect();
        progress::expect_bytes(
            sizes.map_or(0, |sizes| sizes.into_iter().fold(0, u64::saturating_add)),
        );
        let proofs = prove_all(tasks, self.threads);
        let mut proofs: HashMap<Key, Proof> = order.into_iter().zip(proofs).collect();
        for (kept, label) in images {
            self.image(kept, label, &mut proofs, problems);
        }
    }

    fn image(
        &mut self,
        kept: &Kept<'_>,
        label: &Bytes,
        proofs: &mut HashMap<Key, Proof>,
        problems: &mut Vec<Error>,
    ) {
        let mut below: Option<Key> = None;
        for layer in &kept.stored.layers {
            let key = key(kept, layer);
            let of_below = below.replace(key.clone());
            let Some(mut proof) = proofs.remove(&key) else {
                continue;
            };
            let own = proof.all_faults();
            // A copy of what differs is no other fault.
            proof.inherit(of_below.and_then(|key| self.done.get(&key)));
            self.done.insert(key, own);
            self.layer(kept, layer, label, proof);
        }
        if !self.only.is_empty() {
            return;
        }
        match kept.record_faults() {
            Ok(faults) => {
                if faults.is_empty() && kept.stored.layers.is_empty() {
                    let row = self.row_without_layers(kept, label);
                    self.rows.push(row);
                }
                for fault in faults {
                    let row = self.row(kept, None, label);
                    let path = Some(fault.path);
                    let why = Some(fault.what);
                    let is_said = |of: &Row| of.path == path && of.why == why;
                    if !self.rows.iter().any(is_said) {
                        self.rows.push(Row {
                            state: VerifyState::Differs,
                            path,
                            what: Some(What::Record),
                            why,
                            users: vec![label.clone()],
                            ..row
                        });
                    }
                }
            }
            Err(error) => problems.push(error),
        }
    }

    /// Tells of an image of which there is only a name: what its layers are is not known.
    fn without_records(&mut self, engine: &dyn Engine, image: &Image, label: Bytes) {
        // A name of what is not there has a row of its own.
        let Names { tags, digests, .. } = &image.names;
        let is_own = |name: &String| tags.contains(name) || digests.contains(name);
        let is_told = engine.name_faults().iter().any(|of| is_own(&of.name));
        if is_told || !self.only.is_empty() {
            return;
        }
        self.rows.push(Row {
            target: label.clone(),
            engine: engine.name(),
            state: VerifyState::Differs,
            layer: None,
            diff_id: None,
            path: None,
            what: Some(What::Record),
            why: image.problem.clone(),
            users: vec![label],
        });
    }

    /// Tells of names that name nothing.
    fn names(&mut self) {
        for engine in self.survey.engines() {
            let rows = engine.name_faults().into_iter().map(|of| Row {
                target: Bytes::from(of.name.clone()),
                engine: engine.name(),
                state: VerifyState::Differs,
                layer: None,
                diff_id: None,
                path: Some(of.fault.path),
                what: Some(What::Record),
                why: Some(of.fault.what),
                users: vec![Bytes::from(of.name)],
            });
            self.rows.extend(rows);
        }
    }

    /// Of an image that has no layers, and no fault in its records.
    fn row_without_layers(&self, kept: &Kept<'_>, label: &Bytes) -> Row {
        let (state, why) = if kept.stored.is_list {
            let why = "it is a list of images: its records are what their digests say";
            (VerifyState::Proved, why)
        } else if kept.stored.config.is_some() {
            let why = "it has no layers: its records are what their digests say";
            (VerifyState::Proved, why)
        } else {
            let why = "it has no layers, and its engine keeps no configuration with a digest";
            (VerifyState::Unproved, why)
        };
        Row {
            state,
            why: Some(why.to_owned()),
            ..self.row(kept, None, label)
        }
    }

    fn row(&self, kept: &Kept<'_>, layer: Option<&StoredLayer>, label: &Bytes) -> Row {
        let name = layer.and_then(|layer| layer.name.as_ref());
        let users = name.and_then(|name| {
            let key = (kept.engine.name(), name.driver.clone(), name.id.clone());
            self.users.get(&key).cloned()
        });
        Row {
            target: label.clone(),
            engine: kept.engine.name(),
            state: VerifyState::Proved,
            layer: layer.map(|layer| layer.label().to_owned()),
            diff_id: layer.and_then(|layer| layer.diff_id.clone()),
            path: None,
            what: None,
            why: None,
            users: users.unwrap_or_else(|| vec![label.clone()]),
        }
    }

    /// A row for each fault of a layer, or one that says that there is none.
    fn layer(&mut self, kept: &Kept<'_>, layer: &StoredLayer, label: &Bytes, proof: Proof) {
        let row = || self.row(kept, Some(layer), label);
        let mut rows = Vec::new();
        for (path, what) in proof.faults {
            rows.push(Row {
                state: VerifyState::Differs,
                path: Some(path),
                what: Some(what),
                ..row()
            });
        }
        for fault in proof.records {
            rows.push(Row {
                state: VerifyState::Differs,
                path: Some(fault.path),
                what: Some(What::Record),
                why: Some(fault.what),
                ..row()
            });
        }
        if proof.more > 0 {
            rows.push(Row {
                state: VerifyState::Differs,
                why: Some(format!("{} more faults", proof.more)),
                ..row()
            });
        }
        if !proof.unproved.is_empty() {
            rows.push(Row {
                state: VerifyState::Unproved,
                why: Some(proof.unproved.join("; ")),
                ..row()
            });
        }
        if rows.is_empty() {
            let is_fast = self.is_fast;
            rows.push(Row {
                state: if is_fast {
                    VerifyState::Agrees
                } else {
                    VerifyState::Proved
                },
                why: is_fast.then(|| "contents were not read".to_owned()),
                ..row()
            });
        }
        self.rows.extend(rows);
    }
}

/// Whether a layer's id or digest begins with what was typed.
fn is_called(layer: &StoredLayer, typed: &str) -> bool {
    let typed = typed.strip_prefix("sha256:").unwrap_or(typed);
    let id = layer.name.as_ref().map(|name| name.id.as_str());
    let diff_id = layer.diff_id.as_deref();
    let digest = diff_id.map(|id| id.trim_start_matches("sha256:"));
    let mut names = id.into_iter().chain(digest);
    !typed.is_empty() && names.any(|name| name.starts_with(typed))
}

impl crate::command::Row for Row {
    fn words(&self, give: &mut dyn FnMut(&[u8])) {
        if !matches!(self.state, VerifyState::Proved | VerifyState::Agrees) {
            let words = self.layer.as_ref().map(|id| id.as_bytes());
            give(words.unwrap_or(self.target.as_bytes()));
        }
    }

    fn columns(_look: Look) -> Vec<Column<Row>> {
        vec![
            column("STATE", |row: &Row, _, cell| {
                cell.word(row.state.word());
            }),
            column("LAYER", |row, look, cell| {
                if let Some(id) = &row.layer {
                    cell.text(&look.id(id));
                }
            }),
            optional("WHAT", |row, _, cell| {
                cell.word(row.what.map(What::word).unwrap_or_default());
            }),
            column("USED BY", |row, _, cell| match &row.users[..] {
                [] => {}
                [user] => cell.show(user),
                [user, more @ ..] => {
                    cell.show(format_args!("{user} and {} more", more.len()));
                }
            }),
            optional("PATH", |row, _, cell| {
                if let Some(path) = &row.path {
                    cell.show(path);
                }
            }),
            optional("WHY", |row, _, cell| {
                cell.text(row.why.as_deref().unwrap_or_default());
            }),
        ]
    }
}
