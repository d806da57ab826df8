//! The rows of one store.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::num::NonZeroUsize;

use super::{Kind, Large, Row, is_container};
use crate::bytes::Bytes;
use crate::command::space::{LARGEST, Patience, Walked};
use crate::engine::cover::Cover;
use crate::engine::covered::users_of_volumes;
use crate::engine::usage::{LayerUse, Space, UseKind};
use crate::engine::{self, Engine, Owner, OwnerKind, Survey, Union};
use crate::error::{Error, Result};

/// A store that was walked.
pub struct Store<'s, 'h> {
    survey: &'s Survey<'h>,
    engine: &'s dyn Engine,
    uses: Vec<LayerUse>,
    walked: Walked,
}

/// The branches of a union whose directories are missing.
pub fn missing_of(survey: &Survey<'_>, union: &Union) -> Vec<Error> {
    let branches = union.branches.iter();
    let missing = branches.filter(|branch| {
        let found = survey.host.stat(&branch.spec.path);
        branch.layer.id.is_some() && found.is_ok_and(|stat| stat.is_none())
    });
    missing
        .map(|branch| {
            let id = branch.layer.id.as_deref().unwrap_or_default();
            let what = format!("the layer {id} of {} is missing", union.label());
            Error::damaged(branch.spec.path.clone(), what)
        })
        .collect()
}

/// What an engine keeps in its store for others.
fn lent_by(survey: &Survey<'_>, engine: &dyn Engine) -> Vec<Space> {
    let others = survey
        .engines_here()
        .filter(|other| other.description().stands_on == Some(engine.name()));
    let directories = others.flat_map(|other| other.directories_elsewhere());
    let inside = directories.filter_map(|path| path.strip_prefix(engine.root()));
    inside
        .map(|inside| engine.space_of(&inside))
        .filter(|space| matches!(space, Space::Layer { .. }))
        .collect()
}

/// What is kept beside a container's layer, in bytes.
struct Files {
    all: Option<u64>,
    /// None where they are elsewhere, too.
    logs: Option<u64>,
    /// What it changed in overlays over its layers.
    overlaid: Option<u64>,
    /// Configuration.
    rest: Option<u64>,
}

/// The spaces that are beside a container's layer.
fn spaces_beside(id: &str) -> [Space; 3] {
    let id = || id.to_owned();
    [
        Space::Container(id()),
        Space::Log(id()),
        Space::Overlaid(id()),
    ]
}

/// What is not known makes a sum that is not known.
fn add(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    Some(a? + b?)
}

impl<'s, 'h> Store<'s, 'h> {
    /// Walks a store.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn walk(
        survey: &'s Survey<'h>,
        engine: &'s dyn Engine,
        uses: Vec<LayerUse>,
        (threads, patience): (NonZeroUsize, &Patience),
        problems: &mut Vec<Error>,
    ) -> Result<Store<'s, 'h>> {
        let is_there = |of: &&LayerUse| {
            let found = survey.host.stat(&of.directory);
            found.is_ok_and(|stat| stat.is_some())
        };
        let walked_over: Vec<&LayerUse> = uses.iter().filter(is_there).collect();
        let mut walked = Walked::store(survey, engine, (threads, patience))?;
        problems.append(&mut walked.problems);
        for lent in lent_by(survey, engine) {
            walked.leave_out(&lent);
        }
        let gone = walked_over.into_iter().filter(|of| !is_there(of));
        problems.extend(gone.map(|of| Error::Moved(of.directory.clone())));
        Ok(Store {
            survey,
            engine,
            uses,
            walked,
        })
    }

    /// The layers of containers and images whose directories are missing.
    pub fn missing(&self) -> Vec<Error> {
        let containers = self.engine.containers().into_iter();
        let containers = containers.filter(|container| self.engine.reads(container));
        let images = self.engine.images().into_iter();
        let unions = containers
            .map(|container| self.survey.union_of(self.engine, &container))
            .chain(images.map(|image| self.engine.union_of_image(&image)));
        let mut seen = HashSet::new();
        let mut missing = Vec::new();
        // What cannot be read is told by whoever needs it.
        for union in unions.flatten() {
            for error in missing_of(self.survey, &union) {
                if seen.insert(error.to_string()) {
                    missing.push(error);
                }
            }
        }
        missing
    }

    /// None where it lies elsewhere than in the store, or was not reached.
    fn size_of(&self, of: &LayerUse) -> Option<u64> {
        let space = self.space(of);
        if self.walked.unreached.is_some() {
            return self.walked.of(&space);
        }
        let walked = self.walked.spaces.get(&space).copied();
        let is_here = || {
            let inside = of.directory.strip_prefix(self.engine.root());
            inside.is_some() && self.engine.reads_driver(&of.layer.driver)
        };
        walked.or_else(|| is_here().then_some(0))
    }

    /// That some sizes are not known, by driver.
    pub fn unknown(&self) -> Vec<Error> {
        if self.walked.unreached.is_some() {
            return Vec::new();
        }
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
            target: None,
            id: None,
            name: None,
            disk: size.into(),
            is_part: self.walked.unreached.is_some(),
            is_of_several: false,
            size: None,
            wasted: None,
            instruction: None,
            containers: None,
            files: None,
            logs: None,
            shared: None,
            image_count: None,
            largest: Vec::new(),
            parts: Vec::new(),
            wasted_files: Vec::new(),
        }
    }

    /// What a container or an image is called.
    fn target(
        &self,
        kind: OwnerKind,
        id: &str,
        driver: &str,
        namespace: Option<&String>,
    ) -> Option<Bytes> {
        let owner = Owner {
            engine: self.engine.name(),
            kind,
            id: id.to_owned(),
            name: None,
            store: engine::Store {
                root: self.engine.root().clone(),
                driver: driver.to_owned(),
                namespace: namespace.cloned(),
            },
        };
        self.survey.labels().of_owner(&owner)
    }

    /// Things by their paths, largest first.
    fn parts(&self, mut parts: Vec<(u64, Bytes)>) -> Vec<Large> {
        parts.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
        let parts = parts.into_iter().filter(|(size, _)| *size > 0);
        let parts = parts.map(|(size, path)| {
            let inside = path.strip_prefix(self.engine.root());
            let space = inside.map(|inside| self.engine.space_of(&inside));
            Large {
                is_log: matches!(space, Some(Space::Log(_))),
                path,
                disk: size,
            }
        });
        parts.take(LARGEST).collect()
    }

    /// The largest files beside a container's layer.
    fn beside(&self, id: &str) -> Vec<Large> {
        let spaces = spaces_beside(id);
        let largest = spaces.iter().filter_map(|of| self.walked.largest.get(of));
        self.parts(largest.flatten().cloned().collect())
    }

    /// What is kept beside a container's layer.
    fn files_of(&self, id: &str) -> Files {
        let [own, log, overlaid] = spaces_beside(id);
        let rest = self.walked.of(&own);
        let of_part = |space: &Space| {
            let is_seen = self.walked.spaces.contains_key(space);
            if is_seen || rest.is_none() {
                self.walked.of(space)
            } else {
                Some(0)
            }
        };
        let (logs, overlaid) = (of_part(&log), of_part(&overlaid));
        Files {
            all: add(add(rest, logs), overlaid),
            rest,
            logs: logs.filter(|_| self.engine.keeps_logs()),
            overlaid,
        }
    }

    /// The engine's layers, each with its bytes on disk, where these are known.
    pub fn layers(&self) -> impl Iterator<Item = (&LayerUse, Option<u64>)> {
        self.uses.iter().map(|of| (of, self.size_of(of)))
    }

    /// The engine whose store it is.
    pub fn engine(&self) -> &'s dyn Engine {
        self.engine
    }

    /// Every row, and what is not known of them.
    pub fn everything(&self, problems: &mut Vec<Error>) -> Vec<Row> {
        problems.extend(self.unknown());
        problems.extend(self.missing());
        self.rows(problems)
    }

    /// Everything, so that the sizes add up.
    fn rows(&self, problems: &mut Vec<Error>) -> Vec<Row> {
        let mut counted: HashSet<Space> = HashSet::new();
        let mut rows = self.rows_of_containers(&mut counted);
        rows.extend(self.rows_of_images(&mut counted));
        rows.extend(self.rows_of_volumes(&mut counted, problems));
        rows.extend(self.rows_of_rest(counted));
        rows
    }

    /// The size of what has no layer: nothing, unless records are lost that would tell of one.
    fn unless_lost(&self) -> Option<u64> {
        let is_lost = self.uses.iter().any(|of| of.kind == UseKind::Untold);
        (!is_lost).then_some(0)
    }

    /// A container's own layers, and what is kept beside them.
    fn rows_of_containers(&self, counted: &mut HashSet<Space>) -> Vec<Row> {
        let mut rows = Vec::new();
        let mut of_ids: HashMap<&str, Vec<&LayerUse>> = HashMap::new();
        let own = |of: &&LayerUse| matches!(of.kind, UseKind::Container | UseKind::Init);
        for of in self.uses.iter().filter(own) {
            for user in &of.containers {
                of_ids.entry(&user.id).or_default().push(of);
            }
        }
        let none = self.unless_lost();
        for container in &self.engine.containers() {
            let own = of_ids.get(&*container.id).into_iter().flatten();
            let own = own.filter(|of| of.containers.iter().any(|user| user.is(container)));
            let mut own = own.peekable();
            let mut size = if own.peek().is_some() { Some(0) } else { none };
            let mut largest = Vec::new();
            for of in own {
                size = add(size, self.size_of(of));
                counted.insert(self.space(of));
                if of.kind == UseKind::Container {
                    largest = self.largest(of);
                }
            }
            let Files {
                all: files, logs, ..
            } = self.files_of(&container.id);
            counted.extend(spaces_beside(&container.id));
            let (id, namespace) = (&container.id, container.namespace.as_ref());
            rows.push(Row {
                id: Some(container.id.clone()),
                name: Some(container.name.clone()),
                target: self.target(OwnerKind::Container, id, &container.driver, namespace),
                files,
                logs,
                largest,
                parts: self.beside(&container.id),
                ..self.row(Kind::Container, add(size, files))
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
        let none = self.unless_lost();
        let mut shared = none;
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
            let (unique, shared) = known.unwrap_or((none, none));
            rows.push(Row {
                id: Some(image.id.clone()),
                name: image.names.tags.first().cloned(),
                target: self.target(
                    OwnerKind::Image,
                    &image.id,
                    &image.driver,
                    image.namespace.as_ref(),
                ),
                shared,
                ..self.row(Kind::Image, unique)
            });
        }
        rows.push(self.row(Kind::Shared, shared));
        rows
    }

    /// Each volume, with who uses it.
    fn rows_of_volumes(&self, counted: &mut HashSet<Space>, problems: &mut Vec<Error>) -> Vec<Row> {
        let mut rows = Vec::new();
        let is_left = |left: &HashSet<Space>| {
            left.contains(&Space::Volumes) || !self.walked.spaces.contains_key(&Space::Volumes)
        };
        if self.walked.unreached.as_ref().is_some_and(is_left) {
            rows.push(self.row(Kind::Volume, None));
        }
        let names = self.walked.spaces.keys().filter_map(|space| match space {
            Space::Volume(name) => Some(name),
            _ => None,
        });
        let names: Vec<&String> = names.collect();
        if names.is_empty() {
            return rows;
        }
        let (mut users, unread) = users_of_volumes(self.engine, &self.engine.containers());
        problems.extend(unread);
        for name in names {
            let space = Space::Volume(name.clone());
            rows.push(Row {
                name: Some(name.clone()),
                containers: Some(users.remove(name).unwrap_or_default()),
                ..self.row(Kind::Volume, self.walked.of(&space))
            });
            counted.insert(space);
        }
        rows
    }

    /// What is neither a container's nor an image's, and the sum of all.
    fn rows_of_rest(&self, mut counted: HashSet<Space>) -> Vec<Row> {
        let (mut cache, mut unused) = (self.unless_lost(), self.unless_lost());
        let mut unused_parts = Vec::new();
        let (mut unknown, mut unknown_parts) = (Some(0), Vec::new());
        for of in &self.uses {
            let space = self.space(of);
            if !counted.insert(space) {
                continue;
            }
            match of.kind {
                UseKind::BuildCache => cache = add(cache, self.size_of(of)),
                kind => {
                    let is_unknown = matches!(kind, UseKind::Untold | UseKind::InUse);
                    let (sum, parts) = if is_unknown {
                        (&mut unknown, &mut unknown_parts)
                    } else {
                        (&mut unused, &mut unused_parts)
                    };
                    let size = self.size_of(of);
                    *sum = add(*sum, size);
                    parts.extend(size.map(|size| (size, of.directory.clone())));
                }
            }
        }
        let (mut records, mut other, mut beneath) = (0, 0, 0);
        let mut others: Vec<(u64, Bytes)> = Vec::new();
        let mut covered = Vec::new();
        for (space, size) in &self.walked.spaces {
            match space {
                _ if counted.contains(space) => {}
                Space::BuildCache => cache = add(cache, Some(*size)),
                Space::Records | Space::Volumes => records += size,
                Space::Beneath(_) => {
                    beneath += size;
                    covered.extend(self.walked.largest.get(space).cloned().unwrap_or_default());
                }
                Space::Layer { .. }
                | Space::Container(_)
                | Space::Log(_)
                | Space::Overlaid(_)
                | Space::Volume(_) => {
                    other += size;
                    // One that is gone has left it.
                    others.extend(self.walked.largest.get(space).cloned().unwrap_or_default());
                }
                Space::Other => other += size,
            }
        }
        let entries = self.walked.others.iter();
        others.extend(entries.map(|(path, size)| (*size, path.clone())));
        // What somebody else might have found there is not known.
        let whole = |size: u64| Some(size).filter(|_| self.walked.unreached.is_none());
        let sums = [
            (Kind::Unused, unused, unused_parts),
            (Kind::Unknown, unknown, unknown_parts),
            (Kind::BuildCache, add(cache, whole(0)), Vec::new()),
            (Kind::Records, whole(records), Vec::new()),
            (Kind::Beneath, Some(beneath), covered),
            (Kind::Other, whole(other), others),
            (Kind::Total, Some(self.walked.total), Vec::new()),
        ];
        let is_rare = |kind: Kind| matches!(kind, Kind::Beneath | Kind::Unknown);
        let told = sums
            .into_iter()
            .filter(|(kind, size, _)| !is_rare(*kind) || *size != Some(0));
        let rows = told.map(|(kind, size, parts)| Row {
            parts: self.parts(parts),
            ..self.row(kind, size)
        });
        rows.collect()
    }

    /// The layers of one container or image, topmost first, and their sum. What a container stands
    /// on is no part of it: that is counted as shared.
    pub fn rows_of(&self, union: &Union) -> Vec<Row> {
        let label = self.survey.label(union);
        let is_container = is_container(union);
        let (mut rows, mut below) = (Vec::new(), Vec::new());
        for branch in &union.branches {
            let found = self.uses.iter().find(|of| {
                Some(&of.layer.id) == branch.layer.id.as_ref()
                    && union
                        .driver
                        .as_ref()
                        .is_none_or(|driver| *driver == of.layer.driver)
            });
            let Some(of) = found else { continue };
            let is_own = matches!(of.kind, UseKind::Container | UseKind::Init);
            let size = self.size_of(of);
            let is_below = is_container && !is_own;
            let row = Row {
                target: Some(label.clone()),
                id: Some(of.layer.id.clone()),
                name: Some(branch.layer.role.to_string()),
                image_count: (of.kind == UseKind::Image).then_some(of.images.len()),
                instruction: branch.layer.instruction.clone(),
                shared: size.filter(|_| is_below),
                largest: if is_below || of.kind == UseKind::Init {
                    Vec::new()
                } else {
                    self.largest(of)
                },
                ..self.row(Kind::Layer, if is_below { size.map(|_| 0) } else { size })
            };
            if is_below {
                below.push(row);
            } else {
                rows.push(row);
            }
        }
        if rows.is_empty() && below.is_empty() {
            return rows;
        }
        // What is kept beside a container is told with its own layer.
        if let Some(owner) = union.owner.as_ref().filter(|_| is_container) {
            let files = self.files_of(&owner.id);
            if let Some(first) = rows.first_mut() {
                first.files = files.all;
                first.parts = self.beside(&owner.id);
            }
            if files.overlaid != Some(0) {
                rows.push(Row {
                    target: Some(label.clone()),
                    name: self.overlays_of(owner),
                    ..self.row(Kind::Volume, files.overlaid)
                });
            }
            let beside = [(Kind::Log, files.logs), (Kind::Records, files.rest)];
            let beside = beside.into_iter();
            let beside = beside.filter(|(kind, _)| *kind != Kind::Log || self.engine.keeps_logs());
            rows.extend(beside.map(|(kind, size)| Row {
                target: Some(label.clone()),
                ..self.row(kind, size)
            }));
        }
        let sum: Option<u64> = rows.iter().map(|row| row.disk).sum();
        let total = Row {
            target: Some(label),
            ..self.row(Kind::Total, sum)
        };
        rows.extend(below);
        rows.push(total);
        rows
    }

    /// Where a container has the overlays whose changes the engine keeps beside its layer.
    fn overlays_of(&self, owner: &Owner) -> Option<String> {
        let covers = self
            .engine
            .covers(&owner.id, owner.store.namespace.as_deref());
        let root = self.engine.root();
        let is_kept = |of: &Cover| {
            let upper = of.upper.as_ref();
            upper.is_some_and(|upper| upper.lies_in(root))
        };
        let covers = covers.unwrap_or_default().into_iter().filter(is_kept);
        let paths: Vec<String> = covers.map(|of| of.path.to_text().into_owned()).collect();
        Some(paths.join(", ")).filter(|paths| !paths.is_empty())
    }

    /// The largest files of a layer, by their paths in it.
    fn largest(&self, of: &LayerUse) -> Vec<Large> {
        let largest = self.walked.largest.get(&self.space(of));
        largest
            .into_iter()
            .flatten()
            .filter_map(|(size, path)| {
                Some(Large {
                    path: path.strip_prefix(&of.directory)?,
                    disk: *size,
                    is_log: false,
                })
            })
            .take(LARGEST)
            .collect()
    }
}
