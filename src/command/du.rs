//! `du [TARGET]`: who fills the disk. The sizes of a store's rows add up to what `du` says of it.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;

use serde::Serialize;

use crate::bytes::Bytes;
use crate::command::space::{LARGEST, Patience, Walked};
use crate::command::{Context, Group, Help, Outcome, Verb};
use crate::engine::usage::{LayerUse, Space, UseKind};
use crate::engine::{self, Engine, OwnerKind};
use crate::error::{Error, Result};
use crate::render::column::column;
use crate::render::{Look, table};

/// Tell who fills the disk: containers, images, and everything else of a store
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A container, an image or a layer; without it the whole of every store
    target: Option<OsString>,
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
    BuildCache,
    Volumes,
    /// Images' and layers' records, content that was downloaded.
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
            Kind::BuildCache => "build cache",
            Kind::Volumes => "volumes",
            Kind::Records => "records",
            Kind::Beneath => "beneath mounts",
            Kind::Other => "other",
            Kind::Total => "total",
            Kind::Layer => "layer",
        }
    }
}

#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct Row {
    pub engine: &'static str,
    /// The engine's data directory.
    pub store: Bytes,
    pub kind: Kind,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Bytes on disk of nothing that another row counts, too; none where nobody knows them: what
    /// keeps the layers has them elsewhere.
    pub disk: Option<u64>,
    /// Of a container's: configuration and logs. They are in a container's size, and not in that
    /// of one of its layers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files: Option<u64>,
    /// Bytes of the layers that an image shares with others, which the row `shared` counts.
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
}

#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct Large {
    pub path: Bytes,
    /// Bytes on disk.
    pub disk: u64,
}

/// A store that was walked.
struct Store<'s> {
    engine: &'s dyn Engine,
    uses: Vec<LayerUse>,
    walked: Walked,
}

impl Verb for Args {
    const HELP: Help = Help {
        group: Group::Disk,
        examples: &["layerctl du", "layerctl du web", "layerctl du nginx:latest"],
        exit: "0 told; 2 something could not be read",
    };

    type Answer = Vec<Row>;

    fn run(self, context: &mut Context<'_>) -> Result<Outcome<Vec<Row>>> {
        let target = self.target.as_ref();
        let target = target
            .map(|name| context.find(name.as_bytes()))
            .transpose()?;
        if let Some(target) = &target {
            context.survey.watch(&target.union, None);
        }
        context.survey.look_everywhere();
        let mut problems = Vec::new();
        let rows = {
            let patience = Patience::new("measuring");
            let mut rows = Vec::new();
            let mut was_found = false;
            let (uses, unread) = engine::layer_uses(&context.survey);
            problems.extend(unread);
            for (engine, uses) in uses {
                let owner = target.as_ref().map(|target| &target.union.owner);
                let is_wanted = owner.is_none_or(|owner| {
                    owner
                        .as_ref()
                        .is_some_and(|owner| owner.engine == engine.name())
                });
                if !is_wanted {
                    continue;
                }
                let is_there = |of: &&LayerUse| {
                    let found = context.survey.host.stat(&of.directory);
                    found.is_ok_and(|stat| stat.is_some())
                };
                let walked_over: Vec<&LayerUse> = uses.iter().filter(is_there).collect();
                let mut walked = Walked::store(&context.survey, engine, &patience)?;
                problems.append(&mut walked.problems);
                let gone = walked_over.into_iter().filter(|of| !is_there(of));
                problems.extend(gone.map(|of| Error::Moved(of.directory.clone())));
                let store = Store {
                    engine,
                    uses,
                    walked,
                };
                match &target {
                    None => {
                        problems.extend(store.unknown());
                        rows.extend(store.rows());
                    }
                    Some(target) => {
                        let found = store.rows_of(&target.union);
                        if found.iter().any(|row| row.disk.is_none()) {
                            problems.extend(store.unknown());
                        }
                        was_found |= !found.is_empty();
                        rows.extend(found);
                    }
                }
            }
            if let Some(target) = target.filter(|_| !was_found) {
                return Err(Error::Refused {
                    what: format!("{} is in no engine's store", target.union.label()),
                    hint: "name a container, an image or a layer".into(),
                });
            }
            rows
        };
        context.problems.append(&mut problems);
        context.note_no_engine();
        Outcome::yes(rows)
    }
}

/// What is not known makes a sum that is not known.
fn add(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    Some(a? + b?)
}

impl Store<'_> {
    /// None where it lies elsewhere than in the store.
    fn size_of(&self, of: &LayerUse) -> Option<u64> {
        let walked = self.walked.spaces.get(&self.space(of)).copied();
        let is_here = || {
            let inside = of.directory.strip_prefix(self.engine.root());
            inside.is_some() && self.engine.reads_driver(&of.layer.driver)
        };
        walked.or_else(|| is_here().then_some(0))
    }

    /// That some sizes are not known, by driver.
    fn unknown(&self) -> Vec<Error> {
        let unknown = self.uses.iter().filter(|of| self.size_of(of).is_none());
        let drivers: BTreeSet<&str> = unknown.map(|of| of.layer.driver.as_str()).collect();
        let problem = |driver: &str| {
            let directory = self.engine.directory_of_driver(driver);
            let what =
                format!("the sizes of the layers of {driver} are not known: they lie elsewhere");
            Error::damaged(directory, what)
        };
        drivers.into_iter().map(problem).collect()
    }

    fn space(&self, of: &LayerUse) -> Space {
        Space::Layer {
            driver: of.layer.driver.clone(),
            id: of.layer.id.clone(),
        }
    }

    fn row(&self, kind: Kind, size: impl Into<Option<u64>>) -> Row {
        Row {
            engine: self.engine.name(),
            store: self.engine.root().clone(),
            kind,
            id: None,
            name: None,
            disk: size.into(),
            files: None,
            shared: None,
            image_count: None,
            largest: Vec::new(),
            parts: Vec::new(),
        }
    }

    /// Things by their paths in the store, largest first, as paths of the host.
    fn parts(&self, mut parts: Vec<(u64, Bytes)>) -> Vec<Large> {
        parts.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
        let parts = parts.into_iter().filter(|(size, _)| *size > 0);
        let parts = parts.map(|(size, path)| Large {
            path: self.engine.root().join_path(&path),
            disk: size,
        });
        parts.take(LARGEST).collect()
    }

    /// The largest files beside a container's layer.
    fn beside(&self, id: &str) -> Vec<Large> {
        let space = Space::Container(id.to_owned());
        self.parts(self.walked.largest.get(&space).cloned().unwrap_or_default())
    }

    /// Everything, so that the sizes add up.
    fn rows(&self) -> Vec<Row> {
        let mut counted: HashSet<Space> = HashSet::new();
        let mut rows = self.rows_of_containers(&mut counted);
        rows.extend(self.rows_of_images(&mut counted));
        rows.extend(self.rows_of_rest(counted));
        rows
    }

    /// A container's own layers, and what is kept beside them.
    fn rows_of_containers(&self, counted: &mut HashSet<Space>) -> Vec<Row> {
        let mut files: HashMap<&str, u64> = HashMap::new();
        for (space, size) in &self.walked.spaces {
            if let Space::Container(id) = space {
                *files.entry(id).or_default() += size;
            }
        }
        let mut rows = Vec::new();
        for container in &self.engine.containers() {
            let own = self.uses.iter().filter(|of| {
                matches!(of.kind, UseKind::Container | UseKind::Init)
                    && of.containers.iter().any(|user| user.is(container))
            });
            let (mut size, mut largest) = (Some(0), Vec::new());
            for of in own {
                size = add(size, self.size_of(of));
                counted.insert(self.space(of));
                if of.kind == UseKind::Container {
                    largest = self.largest(of);
                }
            }
            let files = files.remove(container.id.as_str()).unwrap_or_default();
            counted.insert(Space::Container(container.id.clone()));
            rows.push(Row {
                id: Some(container.id.clone()),
                name: Some(container.name.clone()),
                files: Some(files),
                largest,
                parts: self.beside(&container.id),
                ..self.row(Kind::Container, add(size, Some(files)))
            });
        }
        rows
    }

    /// The layers that each image has alone, and in one row those that several have.
    fn rows_of_images(&self, counted: &mut HashSet<Space>) -> Vec<Row> {
        let images = self.engine.images();
        // An image that another was built on is a step of that.
        let steps: HashSet<&String> = images
            .iter()
            .filter_map(|image| image.parent.as_ref())
            .collect();
        let is_step = |id: &String, tags: &[String]| tags.is_empty() && steps.contains(id);
        // Bytes that are an image's own, and that it shares.
        let mut of_image: HashMap<String, (Option<u64>, Option<u64>)> = HashMap::new();
        let mut shared = Some(0);
        for of in self.uses.iter().filter(|of| of.kind == UseKind::Image) {
            let size = self.size_of(of);
            counted.insert(self.space(of));
            let users: HashSet<&String> = of
                .images
                .iter()
                .filter(|user| !is_step(&user.id, &user.tags))
                .map(|user| &user.id)
                .collect();
            let is_own = users.len() == 1;
            if !is_own {
                shared = add(shared, size);
            }
            for id in users {
                let sizes = of_image.entry(id.clone()).or_insert((Some(0), Some(0)));
                let part = if is_own { &mut sizes.0 } else { &mut sizes.1 };
                *part = add(*part, size);
            }
        }
        let mut rows = Vec::new();
        let mut seen = HashSet::new();
        for image in &images {
            if is_step(&image.id, &image.names.tags) || !seen.insert(&image.id) {
                continue;
            }
            let known = of_image.get(&image.id).copied();
            let (unique, shared) = known.unwrap_or((Some(0), Some(0)));
            rows.push(Row {
                id: Some(image.id.clone()),
                name: image.names.tags.first().cloned(),
                shared,
                ..self.row(Kind::Image, unique)
            });
        }
        rows.push(self.row(Kind::Shared, shared));
        rows
    }

    /// What is neither a container's nor an image's, and the sum of all.
    fn rows_of_rest(&self, mut counted: HashSet<Space>) -> Vec<Row> {
        let (mut unused, mut cache) = (Some(0), Some(0));
        let mut unused_parts = Vec::new();
        for of in &self.uses {
            let space = self.space(of);
            if !counted.insert(space) {
                continue;
            }
            match of.kind {
                UseKind::BuildCache => cache = add(cache, self.size_of(of)),
                _ => {
                    unused = add(unused, self.size_of(of));
                    let path = of.directory.strip_prefix(self.engine.root());
                    unused_parts.extend(self.size_of(of).zip(path));
                }
            }
        }
        let (mut volumes, mut records, mut other, mut beneath) = (0, 0, 0, 0);
        let mut others: Vec<(u64, Bytes)> = Vec::new();
        let mut covered = Vec::new();
        for (space, size) in &self.walked.spaces {
            match space {
                _ if counted.contains(space) => {}
                Space::BuildCache => cache = add(cache, Some(*size)),
                Space::Volumes => volumes += size,
                Space::Records => records += size,
                Space::Beneath(_) => {
                    beneath += size;
                    covered.extend(self.walked.largest.get(space).cloned().unwrap_or_default());
                }
                Space::Layer { .. } | Space::Container(_) => {
                    other += size;
                    // One that is gone has left it.
                    others.extend(self.walked.largest.get(space).cloned().unwrap_or_default());
                }
                Space::Other => other += size,
            }
        }
        let entries = self.walked.others.iter();
        others.extend(entries.map(|(path, size)| (*size, path.clone())));
        let sums = [
            (Kind::Unused, unused, unused_parts),
            (Kind::BuildCache, cache, Vec::new()),
            (Kind::Volumes, Some(volumes), Vec::new()),
            (Kind::Records, Some(records), Vec::new()),
            (Kind::Beneath, Some(beneath), covered),
            (Kind::Other, Some(other), others),
            (Kind::Total, Some(self.walked.total), Vec::new()),
        ];
        let told = sums
            .into_iter()
            .filter(|(kind, size, _)| *kind != Kind::Beneath || *size > Some(0));
        let rows = told.map(|(kind, size, parts)| Row {
            parts: self.parts(parts),
            ..self.row(kind, size)
        });
        rows.collect()
    }

    /// The layers of one container or image, topmost first.
    fn rows_of(&self, union: &crate::engine::Union) -> Vec<Row> {
        let mut rows = Vec::new();
        for branch in &union.branches {
            let found = self.uses.iter().find(|of| {
                Some(&of.layer.id) == branch.layer.id.as_ref()
                    && union
                        .driver
                        .as_ref()
                        .is_none_or(|driver| *driver == of.layer.driver)
            });
            let Some(of) = found else { continue };
            let is_own = of.kind == UseKind::Container;
            let is_container = union
                .owner
                .as_ref()
                .is_some_and(|owner| owner.kind == OwnerKind::Container);
            // What is kept beside a container is told with its own layer.
            let owner = union.owner.as_ref().filter(|_| is_own && is_container);
            let files = owner.map(|owner| Space::Container(owner.id.clone()));
            let files = files.map(|space| self.walked.spaces.get(&space).copied());
            rows.push(Row {
                id: Some(of.layer.id.clone()),
                name: Some(branch.layer.role.to_string()),
                image_count: (of.kind == UseKind::Image).then_some(of.images.len()),
                files: files.map(Option::unwrap_or_default),
                parts: owner
                    .map(|owner| self.beside(&owner.id))
                    .unwrap_or_default(),
                largest: if is_own || !is_container {
                    self.largest(of)
                } else {
                    Vec::new()
                },
                ..self.row(Kind::Layer, self.size_of(of))
            });
        }
        rows
    }

    /// The largest files of a layer, by their paths in it.
    fn largest(&self, of: &LayerUse) -> Vec<Large> {
        let largest = self.walked.largest.get(&self.space(of));
        let content = of.directory.strip_prefix(self.engine.root());
        largest
            .into_iter()
            .flatten()
            .filter_map(|(size, path)| {
                Some(Large {
                    path: path.strip_prefix(content.as_ref()?)?,
                    disk: *size,
                })
            })
            .take(LARGEST)
            .collect()
    }
}

/// Smaller parts are not shown in the table, in bytes.
const PART_MIN: u64 = 64 << 10;

/// A line of the table: a row, or one of its largest files.
enum Line<'r> {
    Row(&'r Row),
    Large(&'r Large),
}

impl Line<'_> {
    fn row(&self) -> Option<&Row> {
        match self {
            Line::Row(row) => Some(row),
            Line::Large(_) => None,
        }
    }
}

impl crate::command::Row for Row {
    fn words(&self, give: &mut dyn FnMut(&[u8])) {
        self.id.iter().for_each(|id| give(id.as_bytes()));
    }

    fn table(rows: &[Row], look: Look, out: &mut dyn Write) -> io::Result<()> {
        let columns = [
            column("ENGINE", |line: &Line<'_>, _, cell| {
                cell.text(line.row().map(|row| row.engine).unwrap_or_default());
            }),
            column("SIZE", |line, look, cell| {
                let size = match line {
                    Line::Row(row) => row.disk,
                    Line::Large(large) => Some(large.disk),
                };
                let size = size.map(|size| look.size(size));
                cell.word(size.as_deref().unwrap_or("unknown"));
            }),
            column("SHARED", |line, look, cell| {
                let shared = line.row().and_then(|row| row.shared);
                cell.word(&shared.map(|size| look.size(size)).unwrap_or_default());
            }),
            column("WHAT", |line, _, cell| {
                cell.word(line.row().map(|row| row.kind.word()).unwrap_or_default());
            }),
            column("ID", |line, look, cell| {
                let id = line.row().and_then(|row| row.id.as_deref());
                cell.text(&id.map(|id| look.id(id)).unwrap_or_default());
            }),
            column("NAME", |line, _, cell| match line {
                Line::Row(row) => cell.text(row.name.as_deref().unwrap_or_default()),
                Line::Large(large) => cell.show(&large.path),
            }),
        ];
        let lines: Vec<Line<'_>> = rows
            .iter()
            .flat_map(|row| {
                // Whoever wants all asks for a machine format.
                let largest = row.largest.iter().filter(|large| large.disk > 0).take(3);
                // Small records are no answer to what fills the disk.
                let parts = row.parts.iter().filter(|part| part.disk >= PART_MIN);
                let parts = parts.take(3).map(Line::Large);
                let largest = largest.map(Line::Large);
                std::iter::once(Line::Row(row)).chain(largest).chain(parts)
            })
            .collect();
        table::write(&columns, &lines, look, out)
    }
}
