//! Everything that is known of the unions of a host: what the kernel has mounted, what engines call
//! it, and what could not be read on the way.

use std::cell::{OnceCell, RefCell};
use std::collections::{BTreeSet, HashSet};

use super::interface::{Description, Engine, FoundEngine, engine_of};
use super::inventory::{Container, Image, LayerName};
use super::label::Labels;
use super::mount_table::{MountTable, Superblock};
use super::overlaid::Around;
use super::roots::{Roots, Value};
use super::search::{Place, Search, Why};
use super::union::{Over, Owner, Union, UnionKind};
use super::watch::Watched;
use super::{fuse, kernel, proof};
use crate::bytes::Bytes;
use crate::dir::{Dir, enters_everything};
use crate::error::{Error, Result};
use crate::host::Host;

/// Everything that is known of the unions of a host.
pub struct Survey<'h> {
    pub host: &'h Host,
    descriptions: &'static [&'static Description],
    roots: Roots,
    engines: OnceCell<Engines<'h>>,
    /// Data directories that are closed to who asks.
    closed: OnceCell<Vec<Bytes>>,
    /// Those that were not asked for.
    others: OnceCell<Engines<'h>>,
    /// The directories that are all one engine's, though another one keeps them.
    kept: OnceCell<HashSet<Bytes>>,
    labels: OnceCell<Labels>,
    /// What could not be read for the labels, with the number of the engine.
    unread: RefCell<Vec<(usize, Error)>>,
    /// What could not be read on the way.
    pub problems: Vec<Error>,
    /// What the kernel has mounted, as far as it has been looked for.
    pub mounted: Vec<Union>,
    pub table: MountTable,
    /// Whether other mount namespaces have been looked at.
    is_complete: bool,
    /// What the answer will rest on.
    watched: RefCell<Watched>,
}

/// The engines that were found, and what could not be read on the way. That a data directory is
/// not there concerns everybody; what is wrong with one container, whoever asks for it.
#[derive(Default)]
struct Engines<'h> {
    all: Vec<FoundEngine<'h>>,
    problems: Vec<Error>,
    /// The data directories that were looked at.
    places: Vec<Place>,
}

impl<'h> Survey<'h> {
    /// Asks the kernel. Engines are looked for when a name of theirs is needed, and other mount
    /// namespaces when [`Survey::look_everywhere`] is.
    pub fn new(
        host: &'h Host,
        descriptions: &'static [&'static Description],
        roots: Roots,
    ) -> Survey<'h> {
        let mut problems = Vec::new();
        let (table, mounted) = kernel::unions(host, &mut problems);
        let mut survey = Survey {
            host,
            descriptions,
            roots,
            engines: OnceCell::new(),
            closed: OnceCell::new(),
            others: OnceCell::new(),
            kept: OnceCell::new(),
            labels: OnceCell::new(),
            unread: RefCell::default(),
            problems,
            mounted: Vec::new(),
            table,
            is_complete: false,
            watched: RefCell::default(),
        };
        survey.add(mounted);
        survey
    }

    fn found(&self) -> &[FoundEngine<'h>] {
        &self.search().all
    }

    fn search(&self) -> &Engines<'h> {
        let find = || {
            let mut found = self.look_for(&self.roots);
            let problems = found.all.iter().flat_map(|found| found.problems.take());
            found.problems.extend(problems);
            found
        };
        self.engines.get_or_init(find)
    }

    /// What the engine of this name, which is looked for, says of itself.
    pub fn described(&self, name: &str) -> Option<&'static Description> {
        self.descriptions.iter().copied().find(|of| of.name == name)
    }

    /// That nobody knows whether there is something, as a sentence calls it; none where nothing is closed.
    pub fn unknown(&self, name: &str) -> Option<Error> {
        let place = self.closed()?;
        let name = name.to_owned();
        Some(Error::Closed { name, place })
    }

    /// A data directory that is closed to who asks: there may be anything in it. That it is closed is told
    /// by whoever asks for what is in it.
    pub fn closed(&self) -> Option<Bytes> {
        self.search();
        self.closed_places().first().cloned()
    }

    /// All of those, once it has been looked for engines.
    pub fn closed_places(&self) -> &[Bytes] {
        let Some(engines) = self.engines.get().filter(|_| !enters_everything()) else {
            return &[];
        };
        self.closed.get_or_init(|| {
            // Whoever may search it is told of any name whether it is there.
            let is_closed = |place: &&Place| {
                let looked = self.host.stat(&place.path.join(b"containers"));
                looked.is_err_and(|error| error.is_denied())
            };
            let closed = engines.places.iter().filter(is_closed);
            closed.map(|place| place.path.clone()).collect()
        })
    }

    /// That there is no engine here, and where it was looked for; none where there is one, or may be.
    pub fn no_engine(&self) -> Option<Error> {
        if self.engines_here().next().is_some() || self.closed().is_some() {
            return None;
        }
        let options = self.descriptions.iter().flat_map(|of| of.options);
        let roots = options.filter(|of| of.value == Value::Path && of.requires.is_none());
        // Where one of many installations would have had it is told by `info`.
        let places = self.places().iter();
        let places = places.filter(|place| !matches!(place.why, Why::Known(_)));
        Some(Error::NoEngine {
            places: places.map(|of| of.path.clone()).collect(),
            options: roots.map(|of| of.name).collect(),
            mistaken: self.mistaken(),
        })
    }

    /// The option whose directory was named as the root of a host: an engine's data directory itself.
    fn mistaken(&self) -> Option<(&'static str, Bytes)> {
        if self.host.is_live() || self.roots.is_limited() {
            return None;
        }
        let top = Bytes::from("/");
        let options = self.descriptions.iter().flat_map(|of| of.options);
        let mut options = options.filter(|of| of.value == Value::Path && of.requires.is_none());
        options.find_map(|option| {
            let mut roots = Roots::default();
            roots.take_option(option, "/".as_ref(), &top);
            let found = self.look_for(&roots).all;
            // An option is taken at its word: there is an engine where it has anything.
            let has_any = |of: &dyn Engine| !of.containers().is_empty() || !of.images().is_empty();
            let is_it = |of: &FoundEngine<'_>| *of.engine.root() == top && has_any(&*of.engine);
            let named = Bytes::from(self.host.root());
            found.iter().any(is_it).then_some((option.name, named))
        })
    }

    /// That nothing is in the namespace that was asked for, and which there are; none where there
    /// is something.
    pub fn no_namespace(&self) -> Option<Error> {
        let asked = self.roots.only_namespace()?;
        let there = self.engines().flat_map(|engine| engine.divisions());
        let there: BTreeSet<String> = there.collect();
        let is_there = there.iter().any(|name| name.as_bytes() == asked.as_bytes());
        (!is_there).then(|| Error::NoNamespace {
            name: asked.clone(),
            there: there.into_iter().collect(),
        })
    }

    /// Where engines keep their data, as far as the person has said so.
    pub fn roots(&self) -> &Roots {
        &self.roots
    }

    /// The data directories that were looked at.
    pub fn places(&self) -> &[Place] {
        &self.search().places
    }

    /// The same host as it is now: nothing is remembered.
    pub fn again(&self) -> Survey<'h> {
        let mut survey = Survey::new(self.host, self.descriptions, self.roots.clone());
        if self.is_complete {
            survey.look_everywhere();
        }
        survey
    }

    /// The engines of this host that were not asked for, since a person named another data
    /// directory. Their containers are there all the same.
    pub fn others(&self) -> &[FoundEngine<'h>] {
        let others = self.others.get_or_init(|| {
            if !self.roots.is_limited() {
                return Engines::default();
            }
            let mut found = self.look_for(&Roots::of_caller(self.host));
            found.all.retain(|other| {
                !self.engines().any(|engine| {
                    (engine.name(), engine.root()) == (other.engine.name(), other.engine.root())
                })
            });
            found
        });
        &others.all
    }

    /// Looks for engines. What is wrong with one of them is left to whoever asks for it.
    fn look_for(&self, roots: &Roots) -> Engines<'h> {
        let descriptions = self.descriptions.iter();
        let search = Search::new(descriptions.flat_map(|of| of.daemons).copied().collect());
        let descriptions = self.descriptions.iter();
        let found = descriptions.flat_map(|of| (of.find)(self.host, roots, &search));
        let mut all: Vec<FoundEngine<'h>> = self.host.missing_once(|| found.collect());
        if !roots.is_limited() {
            self.look_in_volumes(&mut all, &search);
        }
        Engines {
            all,
            problems: search.problems.take(),
            places: search.into_places(),
        }
    }

    /// Engines that run in containers of those that were found may have their data in volumes.
    fn look_in_volumes(&self, all: &mut Vec<FoundEngine<'h>>, search: &Search) {
        let volumes: Vec<Bytes> = all
            .iter()
            .flat_map(|found| found.engine.volumes())
            .collect();
        for of in self.descriptions {
            let Some(in_volumes) = &of.in_volumes else {
                continue;
            };
            for volume in &volumes {
                let places = in_volumes.places.iter().map(|place| match *place {
                    "/" => volume.clone(),
                    place => volume.join_path(&Bytes::from(place)),
                });
                let roots = places.filter(|root| self.host.open_dir(root).is_ok());
                let roots: Vec<Bytes> = roots.collect();
                for root in roots {
                    let is_known = all.iter().any(|found| {
                        found.engine.name() == of.name && *found.engine.root() == root
                    });
                    if let Some(found) =
                        (in_volumes.find)(self.host, root.clone()).filter(|_| !is_known)
                    {
                        search.looked_at(of.name, &root, Why::Volume, true);
                        all.push(found);
                    }
                }
            }
        }
    }

    /// Every engine whose data directory may be here.
    pub fn engines(&self) -> impl Iterator<Item = &dyn Engine> {
        let found = self.found().iter();
        found.map(|found| &*found.engine as &dyn Engine)
    }

    /// The engine that has an owner.
    pub fn engine_of(&self, owner: &Owner) -> Option<&dyn Engine> {
        engine_of(self.engines(), owner)
    }

    /// Looks into every other mount namespace for unions that are not mounted in ours.
    pub fn look_everywhere(&mut self) {
        if std::mem::replace(&mut self.is_complete, true) {
            return;
        }
        let elsewhere = kernel::unions_elsewhere(self.host, &self.mounted);
        self.add(elsewhere);
    }

    fn add(&mut self, mut unions: Vec<Union>) {
        for union in &mut unions {
            for engine in self.engines() {
                engine.recognise(union);
            }
            if matches!(union.kind, UnionKind::FuseOverlay(_)) && union.branches.is_empty() {
                fuse::ask_program(self.host, union);
            }
        }
        for (index, over) in self.find_over(&unions) {
            unions[index].over = Some(over);
        }
        for union in &mut unions {
            if proof::settle(self.host, &self.table, union) {
                kernel::find_modules(self.host, &self.table, union);
            }
        }
        self.mounted.append(&mut unions);
    }

    /// Which of the unions lie over a container's layers. Where there is none, no engine is looked for.
    fn find_over(&self, unions: &[Union]) -> Vec<(usize, Over)> {
        if unions.is_empty() {
            return Vec::new();
        }
        let engines: Vec<&dyn Engine> = self.engines().collect();
        let around = Around {
            host: self.host,
            engines: &engines,
            mounted: &self.mounted,
        };
        around.find(unions)
    }

    /// A mounted union with all that engines know of its branches.
    pub fn describe(&self, union: &Union) -> Union {
        let mut union = union.clone();
        for engine in self.engines() {
            engine.describe(&mut union);
        }
        union
    }

    /// What engines could not read since they were asked last.
    pub fn take_problems(&self) -> Vec<Error> {
        let engines = self.engines.get().into_iter();
        let engines = engines.flat_map(|engines| &engines.all);
        engines.flat_map(|found| found.problems.take()).collect()
    }

    /// What could not be read when unions and engines were looked for.
    pub fn problems(&self) -> impl Iterator<Item = &Error> {
        let of_engines = self.engines.get().into_iter().chain(self.others.get());
        let of_engines = of_engines.flat_map(|engines| &engines.problems);
        of_engines.chain(&self.problems)
    }

    /// The engines of which there is anything here.
    pub fn engines_here(&self) -> impl Iterator<Item = &dyn Engine> {
        self.engines().filter(|engine| self.is_here(*engine))
    }

    /// The same, each with what it could not read.
    pub fn found_here(&self) -> impl Iterator<Item = &FoundEngine<'h>> {
        let found = self.found().iter();
        found.filter(|found| self.is_here(&*found.engine))
    }

    /// Whether there is anything of an engine that is not all another one's, which tells of it.
    fn is_here(&self, engine: &dyn Engine) -> bool {
        engine.exists() && !self.is_anothers(engine)
    }

    fn is_anothers(&self, engine: &dyn Engine) -> bool {
        let stands = |of: &&'static Description| of.stands_on == Some(engine.name());
        let is_stood_on = self.descriptions.iter().any(stands);
        is_stood_on && self.kept_by_others().contains(engine.root())
    }

    /// The directories that are all one engine's, though another one keeps them.
    fn kept_by_others(&self) -> &HashSet<Bytes> {
        self.kept.get_or_init(|| {
            let others = self
                .engines()
                .filter(|of| of.description().stands_on.is_some());
            others.flat_map(|of| of.directories_elsewhere()).collect()
        })
    }

    /// Every engine's containers.
    pub fn containers(&self) -> Vec<(&dyn Engine, Container)> {
        let mut containers = self.of_engines(|engine| engine.containers());
        let roots = &self.roots;
        containers.retain(|(_, container)| roots.is_asked_for(container.namespace.as_ref()));
        containers
    }

    /// Every engine's images.
    pub fn images(&self) -> Vec<(&dyn Engine, Image)> {
        let mut images = self.of_engines(|engine| engine.images());
        let roots = &self.roots;
        images.retain(|(_, image)| roots.is_asked_for(image.namespace.as_ref()));
        images
    }

    /// Every engine's layers.
    pub fn layers(&self) -> Vec<(&dyn Engine, LayerName)> {
        self.of_engines(|engine| engine.layers())
    }

    fn of_engines<T>(&self, list: impl Fn(&dyn Engine) -> Vec<T>) -> Vec<(&dyn Engine, T)> {
        for (index, error) in self.unread.take() {
            self.found()[index].problems.note(error);
        }
        let engines = self.engines().filter(|engine| !self.is_anothers(*engine));
        engines
            .flat_map(|engine| list(engine).into_iter().map(move |item| (engine, item)))
            .collect()
    }

    /// The unions that containers would have, but that are not mounted now.
    pub fn unmounted(&mut self) -> Vec<Union> {
        let mut problems = Vec::new();
        let mut unions = Vec::new();
        for (engine, container) in self.containers() {
            if self.mounted_of(engine, &container).is_none() && engine.reads(&container) {
                match engine.union_of(&container) {
                    Ok(union) => unions.push(union),
                    Err(error) => problems.push(error),
                }
            }
        }
        self.problems.extend(problems);
        unions
    }

    /// The union of a container: as the kernel has it mounted, or as its engine would.
    ///
    /// # Errors
    /// Its layers are not known, or not read.
    pub fn union_of(&self, engine: &dyn Engine, container: &Container) -> Result<Union> {
        match self.mounted_of(engine, container) {
            Some(union) => Ok(self.describe(union)),
            None => engine.union_of(container),
        }
    }

    /// What a union is called in answers: a TARGET that means it and nothing else.
    pub fn label(&self, union: &Union) -> Bytes {
        if let Some(view) = &union.view {
            return view.label.clone();
        }
        let top = || {
            union
                .branches
                .first()
                .map(|branch| branch.spec.path.clone())
        };
        let Some(owner) = &union.owner else {
            let label = union.place();
            // Mounts can cover each other.
            let mut others = self.mounted.iter();
            let is_shared = others.any(|other| {
                let is_other = other.owner.is_none() && other.superblock != union.superblock;
                is_other && other.place() == label
            });
            return match union.si() {
                Some(si) if is_shared => Bytes::from(format!("si_{si}")),
                None if is_shared => top().unwrap_or(label),
                _ => label,
            };
        };
        let label = self.labels().of_owner(owner);
        let label = label.map(|label| union.of_platform(label));
        label.or_else(top).unwrap_or_else(|| union.label())
    }

    /// What containers and images are called in answers. A limit on what is shown changes no name.
    pub fn labels(&self) -> &Labels {
        self.labels.get_or_init(|| {
            let found = self.found();
            let before: Vec<Vec<Error>> = found.iter().map(|of| of.problems.take()).collect();
            let containers = self.of_engines(|engine| engine.containers());
            let images = self.of_engines(|engine| engine.images());
            // What cannot be read has no name that anything else could share: it is told to whoever
            // asks for such things themselves.
            for (index, (found, before)) in found.iter().zip(before).enumerate() {
                let unread = found.problems.take().into_iter();
                self.unread
                    .borrow_mut()
                    .extend(unread.map(|error| (index, error)));
                before
                    .into_iter()
                    .for_each(|error| found.problems.note(error));
            }
            Labels::new(&containers, &images)
        })
    }

    /// The mounted union of a container. An id alone does not tell which: namespaces and stores can
    /// have the same one.
    pub fn mounted_of(&self, engine: &dyn Engine, container: &Container) -> Option<&Union> {
        self.mounted.iter().find(|union| {
            let owner = union.owner.as_ref();
            owner.is_some_and(|owner| owner.is_container(engine.name(), engine.root(), container))
        })
    }

    /// The mounted union that has this owner.
    pub fn mounted_by(&self, owner: &Owner) -> Option<&Union> {
        let mut mounted = self.mounted.iter();
        mounted.find(|union| union.owner.as_ref().is_some_and(|of| of.is_same(owner)))
    }

    /// The mounted union that the kernel knows by this.
    pub fn mounted_as(&self, superblock: &Superblock) -> Option<&Union> {
        let mut mounted = self.mounted.iter();
        mounted.find(|union| union.superblock.as_ref() == Some(superblock))
    }

    /// Remembers what an answer will rest on: a union, and its topmost branch where that was
    /// opened.
    pub fn watch(&self, union: &Union, top: Option<&Dir>) {
        self.watched.borrow_mut().add(union, top);
    }

    /// What was removed, renamed or covered since it was opened. It is told once.
    pub fn take_vanished(&self) -> Vec<Error> {
        let watched = self.watched.take();
        // No engine is looked for on their behalf: where there are owners, it was.
        let engines = self.engines.get().into_iter().flat_map(|of| &of.all);
        watched.vanished(|owners| {
            let gone = engines.flat_map(|found| found.engine.gone(owners));
            gone.collect::<Vec<&Owner>>()
        })
    }
}
