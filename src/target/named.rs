//! What engines have names for: containers, images, layers, processes in containers.

use std::collections::HashSet;

use super::{Target, layer_target, platform};
use crate::alike::{self, likeness};
use crate::bytes::Bytes;
use crate::engine::inventory::{BUILDERS_ID, Container, INIT, Image, LayerName, familiar, short};
use crate::engine::platform::Platform;
use crate::engine::{self, Engine, Survey, kernel};
use crate::error::{Error, Result};

/// What an engine's name, or a number, can stand for.
enum Candidate<'s> {
    Container(&'s dyn Engine, Box<Container>),
    Image(&'s dyn Engine, Box<Image>),
    Layer(&'s dyn Engine, LayerName),
    Process(u32),
}

/// What tells candidates apart.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Telling {
    Names,
    /// Their stores, too.
    Drivers,
}

impl Candidate<'_> {
    /// How it must be typed to be told from others, and what it is.
    fn describe(&self, survey: &Survey<'_>, how: Telling) -> String {
        let labels = survey.labels();
        let driver = match self.driver().filter(|_| how == Telling::Drivers) {
            Some(driver) => format!(", {driver}"),
            None => String::new(),
        };
        match self {
            Candidate::Container(engine, container) => {
                let id = short(&container.id);
                let label = labels.of_container(*engine, container);
                let label = label.map_or_else(|| container.id.as_str().into(), Bytes::to_text);
                format!("{label}  (container {id}, {}{driver})", container.name)
            }
            Candidate::Image(engine, image) => {
                let tags = if image.names.tags.is_empty() {
                    "untagged".to_owned()
                } else {
                    image.names.tags.join(", ")
                };
                let label = labels.of_image(*engine, image);
                let label = label.map_or_else(|| image.id.as_str().into(), Bytes::to_text);
                let within = image.namespace.as_ref();
                let within = within.map(|of| format!(" in namespace {of}"));
                let within = within.unwrap_or_default();
                format!(
                    "{label}  (image {}, {tags}{within}{driver})",
                    short(&image.id)
                )
            }
            Candidate::Layer(engine, layer) => {
                let aliases = if engine.description().numbers_layers {
                    format!(", {}", layer.aliases.join(", "))
                } else {
                    String::new()
                };
                format!("{}:{}  (layer{aliases}{driver})", engine.name(), layer.id)
            }
            Candidate::Process(id) => format!("pid:{id}  (process)"),
        }
    }

    /// The storage driver that keeps it.
    fn driver(&self) -> Option<&str> {
        match self {
            Candidate::Container(_, container) => Some(&container.driver),
            Candidate::Image(_, image) => Some(&image.driver),
            Candidate::Layer(_, layer) => Some(&layer.driver),
            Candidate::Process(_) => None,
        }
    }

    fn has_whole_name(&self, name: &str) -> bool {
        let hex = without_algorithm(name);
        match self {
            Candidate::Container(_, container) => {
                // The digits that engines print are as good as the whole.
                let is_beginning = container.id.starts_with(hex) && hex.len() < SHORT_ID;
                !is_beginning
            }
            Candidate::Image(_, image) => has_name(image, name),
            Candidate::Layer(_, layer) => is_called(layer, hex),
            Candidate::Process(_) => true,
        }
    }

    /// An image as it is for a platform.
    ///
    /// # Errors
    /// It is no image, or not for this platform; what makes it is not here, or cannot be read.
    fn for_platform(self, survey: &Survey<'_>, name: &str, asked: &Platform) -> Result<Self> {
        let Candidate::Image(engine, image) = self else {
            return Err(Error::Refused {
                what: format!("{name} is no image, and only images are for platforms"),
                hint: "leave @OS/ARCHITECTURE away, or name an image".into(),
            });
        };
        let label = survey.labels().of_image(engine, &image);
        let label = label.map_or_else(|| name.into(), Bytes::to_text);
        let of = platform::choose(&engine.platforms(&image)?, &label, asked)?;
        let image = engine.image_for(&image, &of)?;
        Ok(Candidate::Image(engine, Box::new(image)))
    }

    fn target(self, survey: &Survey<'_>) -> Result<Target> {
        match self {
            Candidate::Container(engine, container) => {
                Ok(Target::of(survey.union_of(engine, &container)?))
            }
            Candidate::Image(engine, image) => Ok(Target {
                union: engine.union_of_image(&image)?,
                inside: Bytes::from("/"),
                base: Bytes::from("/"),
                is_layer: true,
            }),
            Candidate::Layer(engine, layer) => {
                Ok(layer_target(survey, engine.union_of_layer(&layer)?))
            }
            Candidate::Process(id) => process_target(survey, id),
        }
    }
}

/// What a process has as its root: a union, or a layer that is mounted as it is.
fn process_target(survey: &Survey<'_>, id: u32) -> Result<Target> {
    let root = kernel::root_of_process(survey.host, id)?;
    let no_union = || Error::Refused {
        what: format!("process {id} has no union as its root"),
        hint: "a TARGET is a process that runs in a container, on a union's mount".into(),
    };
    let inside = root.mount.root.clone();
    if let Some(mut union) = root.union {
        // Our own mount namespace knows it better, and an engine may know whose it is.
        let known = union.superblock.as_ref();
        if let Some(known) = known.and_then(|superblock| survey.mounted_as(superblock)) {
            return Ok(Target {
                base: inside.clone(),
                inside,
                ..Target::of(survey.describe(known))
            });
        }
        for engine in survey.engines() {
            engine.recognise(&mut union);
        }
        let union = survey.describe(&union);
        return Ok(Target {
            base: inside.clone(),
            inside,
            ..Target::of(union)
        });
    }
    // Where its file system is mounted here, and what of it.
    let here = survey.table.0.iter().filter_map(|mount| {
        let is_same = mount.device.is_some() && mount.device == root.mount.device;
        let rest = inside.strip_prefix(&mount.root).filter(|_| is_same)?;
        Some(mount.point.join_path(&rest))
    });
    for path in here {
        for engine in survey.engines() {
            if let Some((layer, inside)) = engine.layer_at(&path) {
                let target = layer_target(survey, engine.union_of_layer(&layer)?);
                return Ok(Target { inside, ..target });
            }
        }
    }
    Err(no_union())
}

/// Docker's order: full id, name, then unique prefix; containers before images before layers.
///
/// # Errors
/// Nothing has the name, or more than one thing has; or its stack is not known.
pub(super) fn named(survey: &Survey<'_>, name: &str) -> Result<Target> {
    let candidate = match (candidate(survey, name), platform::split(name)) {
        (Err(Error::NoSuchTarget { .. }), Some((of, asked))) => {
            candidate(survey, of)?.for_platform(survey, of, &asked)?
        }
        (found, _) => found?,
    };
    // What has the whole name was found: what is broken elsewhere does not matter. That a
    // beginning is the only one nobody knows then.
    if candidate.has_whole_name(name) {
        survey.take_problems();
    }
    candidate.target(survey)
}

pub(super) type OfEngines<'s, T> = Vec<(&'s dyn Engine, T)>;

fn candidate<'s>(survey: &'s Survey<'_>, typed: &str) -> Result<Candidate<'s>> {
    if let Some(id) = typed.strip_prefix("pid:").and_then(|id| id.parse().ok()) {
        return Ok(Candidate::Process(id));
    }
    let (engine, name) = of_engine(survey, typed);
    let is_asked = |of: &&dyn Engine| engine.is_none_or(|engine| engine == of.name());
    let mut containers = survey.containers();
    containers.retain(|(of, _)| is_asked(of));
    if let Some(found) = container(survey, name, &containers)? {
        return Ok(found);
    }
    for (namespace, own) in divisions(name) {
        let of_it = containers
            .iter()
            .filter(|(_, of)| of.namespace.as_deref() == Some(namespace));
        let of_it: OfEngines<'_, Container> = of_it.cloned().collect();
        if let Some(found) = container(survey, own, &of_it)? {
            return Ok(found);
        }
    }
    let mut images = survey.images();
    images.retain(|(of, _)| is_asked(of));
    prefer_drivers_in_use(survey, &mut images);
    if let Some(found) = image(survey, name, &images)? {
        return Ok(found);
    }
    for (namespace, own) in divisions(name) {
        let of_it = images
            .iter()
            .filter(|(_, of)| of.namespace.as_deref() == Some(namespace));
        let of_it: OfEngines<'_, Image> = of_it.cloned().collect();
        if let Some(found) = image(survey, own, &of_it)? {
            return Ok(found);
        }
    }
    let hex = without_algorithm(name);
    let mut layers = survey.layers();
    layers.retain(|(of, _)| is_asked(of));
    // The number of a snapshot may be a process's, too.
    let is_number = hex.len() < SHORT_ID && hex.bytes().all(|byte| byte.is_ascii_digit());
    let exact = match name.strip_prefix("l/") {
        Some(link) => of_short_name(survey, link),
        None if is_number => Vec::new(),
        None => layers
            .iter()
            .filter(|(_, of)| is_called(of, hex))
            .cloned()
            .collect(),
    };
    let exact = exact.into_iter();
    let exact = exact.map(|(engine, layer)| Candidate::Layer(engine, layer));
    if let Some(found) = only(survey, name, exact.collect())? {
        return Ok(found);
    }
    if !is_of_hash(hex) {
        // Some engines leave it to people what the id of a container is.
        containers.retain(|(_, of)| !name.is_empty() && of.id.starts_with(name));
        let begin = containers.into_iter();
        let begin = begin.map(|(engine, of)| Candidate::Container(engine, Box::new(of)));
        let found = only(survey, name, begin.collect())?;
        return found.ok_or_else(|| Error::no_such_target(typed));
    }
    let mut found = beginning_with(hex, containers, images, layers);
    let process = name.parse().ok().filter(|_| engine.is_none());
    let process = process.filter(|id| is_process(survey, *id));
    found.extend(process.map(Candidate::Process));
    only(survey, name, found)?.ok_or_else(|| Error::no_such_target(typed))
}

/// The engine that was named before a colon, and the name. `podman:web` settles what two engines
/// know.
fn of_engine<'n>(survey: &Survey<'_>, typed: &'n str) -> (Option<&'static str>, &'n str) {
    let spelled = typed.split_once(':');
    let spelled = spelled.and_then(|(engine, rest)| Some((engine::called(engine)?.name, rest)));
    // There are images that are called docker.
    let is_image =
        |(_, image): &(&dyn Engine, Image)| image.names.tags.iter().any(|tag| tag == typed);
    match spelled {
        Some((engine, rest)) if !survey.images().iter().any(is_image) => (Some(engine), rest),
        _ => (None, typed),
    }
}

/// That nothing has a name: in docker's words, with what has one that is nearly it, and where no
/// engine is, with where one was looked for.
pub(super) fn no_such(survey: &Survey<'_>, typed: &str) -> Error {
    let labels = survey.labels();
    let containers = survey.containers();
    let containers = containers.iter().filter_map(|(engine, container)| {
        let label = labels.of_container(*engine, container)?;
        Some((container.name.clone(), label.to_text().into_owned()))
    });
    let images = survey.images();
    let images = images.iter().flat_map(|(engine, image)| {
        let tags = image.names.tags.iter();
        tags.map(|tag| (familiar(tag).to_owned(), format!("{}:{tag}", engine.name())))
    });
    let similar = containers.chain(images).map(|(name, label)| {
        let alike = likeness(typed, &name).max(likeness(typed, &label));
        (alike, label)
    });
    let similar = alike::best(similar);
    if similar.is_empty()
        && let Some(error) = survey.unknown(typed)
    {
        return error;
    }
    Error::NoSuchTarget {
        name: typed.to_owned(),
        similar,
        no_engine: survey.no_engine().map(|error| error.to_string()),
    }
}

/// The ways to read a name as one in an engine's own division of names: `NAMESPACE/NAME`.
fn divisions(name: &str) -> impl Iterator<Item = (&str, &str)> {
    let slashes = name.match_indices('/');
    slashes.map(|(at, _)| (&name[..at], &name[at + 1..]))
}

/// A hash without the word before it that says which.
fn without_algorithm(name: &str) -> &str {
    name.strip_prefix("sha256:").unwrap_or(name)
}

/// The container that has the id or the name, or the digits that engines print.
fn container<'s>(
    survey: &Survey<'_>,
    name: &str,
    containers: &OfEngines<'s, Container>,
) -> Result<Option<Candidate<'s>>> {
    let candidate = |(engine, container): &(&'s dyn Engine, Container)| {
        Candidate::Container(*engine, Box::new(container.clone()))
    };
    // An id is one's own among those of its engine and namespace only. There it goes before names.
    let of_id: Vec<_> = containers.iter().filter(|(_, of)| of.id == name).collect();
    let is_beside = |(engine, of): &&(&dyn Engine, Container)| {
        let mut own = of_id.iter();
        own.any(|(known, id)| known.root() == engine.root() && id.namespace == of.namespace)
    };
    let others = containers.iter().filter(|of| !is_beside(of)).cloned();
    let mut found: Vec<Candidate<'s>> = of_id.iter().map(|of| candidate(of)).collect();
    found.extend(of_name(name, &others.collect()));
    if let Some(found) = only(survey, name, found)? {
        return Ok(Some(found));
    }
    // What people type is the twelve digits that engines print. Nothing else has them by chance.
    let hex = without_algorithm(name);
    if hex.len() < SHORT_ID || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(None);
    }
    let mut begin = containers.iter().filter(|(_, of)| of.id.starts_with(hex));
    match (begin.next(), begin.next()) {
        (Some(found), None) => Ok(Some(candidate(found))),
        _ => Ok(None),
    }
}

/// A migrated host has the same image under two drivers: the one in use is kept. One that two
/// namespaces have may have other names in each.
pub(super) fn prefer_drivers_in_use(survey: &Survey<'_>, images: &mut OfEngines<'_, Image>) {
    let in_use: Vec<String> = survey
        .engines_here()
        .map(|engine| engine.driver(&engine.containers()))
        .collect();
    images.sort_by_key(|(_, image)| {
        let is_other = !in_use.contains(&image.driver);
        (image.id.clone(), is_other, image.namespace.clone())
    });
    images.dedup_by(|(_, a), (_, b)| a.id == b.id && a.namespace == b.namespace);
}

/// The image that has the id, a tag or a digest, or that people call so.
///
/// # Errors
/// Several have the name: in two engines, or in two namespaces.
fn image<'s>(
    survey: &Survey<'_>,
    name: &str,
    images: &OfEngines<'s, Image>,
) -> Result<Option<Candidate<'s>>> {
    let hex = without_algorithm(name);
    let of_id = images.iter().find(|(_, image)| image.id == hex);
    // The same id is the same image, wherever it is kept.
    let candidate = |(engine, image): &(&'s dyn Engine, Image)| {
        Candidate::Image(*engine, Box::new(image.clone()))
    };
    if let Some(found) = of_id {
        return Ok(Some(candidate(found)));
    }
    // They are sorted by their ids.
    let named = |has: &dyn Fn(&Image) -> bool| {
        let mut found: Vec<_> = images.iter().filter(|(_, image)| has(image)).collect();
        found.dedup_by(|(_, a), (_, b)| a.id == b.id);
        found
    };
    let mut found = named(&|image| has_name(image, name));
    if found.is_empty() {
        found = named(&|image| image.names.tags.iter().any(|tag| is_familiar(tag, name)));
    }
    if found.is_empty() {
        // What has no registry in its name was built here, to Podman and buildah.
        let here = format!("localhost/{name}");
        found = named(&|image| has_name(image, &here));
    }
    only(survey, name, found.into_iter().map(candidate).collect())
}

/// Whether a name is short for a tag, or a tag for the name, as every engine's commands take it.
fn is_familiar(tag: &str, name: &str) -> bool {
    let (short, asked) = (familiar(tag), familiar(name));
    let is_short = short != tag || asked != name;
    is_short && (short == asked || short.strip_suffix(":latest") == Some(asked))
}

/// Whether a name is one of an image's, whole: its id, a tag, a digest with or without what stands
/// before it. Kubernetes calls images by the digests of their configurations.
fn has_name(image: &Image, name: &str) -> bool {
    let hex = without_algorithm(name);
    let mut tags = image.names.tags.iter();
    let mut digests = image.names.digests.iter();
    image.id == hex
        || tags.any(|tag| tag == name || tag.strip_suffix(":latest") == Some(name))
        || digests.any(|digest| digest == name || hex_of(digest) == hex)
}

/// The hash in `name@sha256:HASH`, or in a name that is no more than a hash.
fn hex_of(digest: &str) -> &str {
    let own = digest.rsplit_once('@').map_or(digest, |(_, own)| own);
    without_algorithm(own)
}

/// Whether a name is one of a layer's, whole: an id, a chain id, a diff id, a snapshot's key. Only
/// keys are words; a directory that has another name than a hash is no layer yet.
fn is_called(layer: &LayerName, name: &str) -> bool {
    let is_id = is_of_hash(name) || is_of_builder(name);
    (layer.id == name && is_id) || layer.aliases.iter().any(|alias| alias == name)
}

/// Whether a name could be of a layer of Docker's builder.
fn is_of_builder(name: &str) -> bool {
    let is_own = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    name.len() == BUILDERS_ID && name.bytes().all(is_own)
}

/// Whether a name could be of a layer's directory.
fn is_of_hash(name: &str) -> bool {
    let is_init = name.ends_with("-init");
    let is_part = |byte: u8| byte.is_ascii_hexdigit() || byte == b'-' || is_init;
    !name.is_empty() && name.bytes().all(is_part)
}

/// The layers that mount options call `l/LINK`, be the link itself lost.
fn of_short_name<'s>(survey: &'s Survey<'_>, link: &str) -> OfEngines<'s, LayerName> {
    let mut found: OfEngines<'s, LayerName> = Vec::new();
    for engine in survey.engines() {
        let named: Vec<LayerName> = engine.layers_of_link(link).collect();
        found.extend(named.into_iter().map(|layer| (engine, layer)));
    }
    found
}

/// Everything whose id begins so.
fn beginning_with<'s>(
    hex: &str,
    containers: OfEngines<'s, Container>,
    images: OfEngines<'s, Image>,
    layers: OfEngines<'s, LayerName>,
) -> Vec<Candidate<'s>> {
    let mut found: Vec<Candidate> = Vec::new();
    let is_prefix = |id: &str| id.starts_with(hex);
    found.extend(
        containers
            .into_iter()
            .filter(|(_, container)| is_prefix(&container.id))
            .map(|(engine, container)| Candidate::Container(engine, Box::new(container))),
    );
    let mut seen = HashSet::new();
    found.extend(
        images
            .into_iter()
            .filter(|(_, image)| {
                let mut digests = image.names.digests.iter();
                is_prefix(&image.id) || digests.any(|digest| is_prefix(hex_of(digest)))
            })
            .filter(|(_, image)| seen.insert(image.id.clone()))
            .map(|(engine, image)| Candidate::Image(engine, Box::new(image))),
    );
    for (engine, layer) in layers {
        // In the older layout an image, a container and their layers share one name.
        let is_known = found.iter().any(|candidate| match candidate {
            Candidate::Container(_, container) => {
                let mut names = std::iter::once(&layer.id).chain(&layer.aliases);
                names.any(|name| name.trim_end_matches(INIT) == container.id)
            }
            Candidate::Image(_, image) => image.id == layer.id,
            Candidate::Layer(..) | Candidate::Process(_) => false,
        });
        let is_short = layer.id.len() < SHORT_ID;
        let is_named = layer.id == hex
            || (!is_short && is_prefix(&layer.id))
            || layer
                .aliases
                .iter()
                .any(|alias| is_prefix(alias) && !alias.contains('/'));
        // A container's init layer shares its prefix: the shorter one is meant.
        let is_init_of = layer
            .id
            .strip_suffix("-init")
            .is_some_and(|of| of.starts_with(hex));
        if is_named && !is_known && !is_init_of {
            found.push(Candidate::Layer(engine, layer));
        }
    }
    found
}

/// The fewest digits of an id that engines print. What is shorter is a number.
const SHORT_ID: usize = 12;

/// The containers of a name, or that Kubernetes calls so: of those that were started one after another
/// the one that runs, or else the newest.
fn of_name<'s>(name: &str, containers: &OfEngines<'s, Container>) -> Vec<Candidate<'s>> {
    let is_it = |(_, of): &&(&'s dyn Engine, Container)| {
        of.name == name || of.pod.as_ref().is_some_and(|pod| pod.is_called(name))
    };
    let mut found: Vec<_> = containers.iter().filter(is_it).collect();
    found.sort_by_key(|(_, container)| !container.state.running);
    let mut pods: Vec<(&str, Option<String>)> = Vec::new();
    found.retain(|(engine, container)| {
        let pod = container.pod.as_ref().filter(|pod| pod.is_of_kubernetes());
        let Some(pod) = pod else {
            return true;
        };
        let pod = (engine.name(), pod.whole_name());
        let is_new = !pods.contains(&pod);
        pods.push(pod);
        is_new
    });
    let candidates = found
        .into_iter()
        .map(|(engine, container)| Candidate::Container(*engine, Box::new(container.clone())));
    candidates.collect()
}

/// The one thing that has a name.
///
/// # Errors
/// There are several.
fn only<'s>(
    survey: &Survey<'_>,
    name: &str,
    mut found: Vec<Candidate<'s>>,
) -> Result<Option<Candidate<'s>>> {
    match found.len() {
        0 | 1 => Ok(found.pop()),
        _ => {
            // One engine may have had both of its stores, the one after the other.
            let drivers: HashSet<&str> = found.iter().filter_map(Candidate::driver).collect();
            let how = match drivers.len() {
                0 | 1 => Telling::Names,
                _ => Telling::Drivers,
            };
            let candidates = found.iter().map(|of| of.describe(survey, how));
            Err(Error::Ambiguous {
                name: name.to_owned(),
                candidates: candidates.collect(),
            })
        }
    }
}

fn is_process(survey: &Survey<'_>, id: u32) -> bool {
    let directory = crate::engine::namespace::directory(id);
    survey
        .host
        .stat(&directory)
        .is_ok_and(|stat| stat.is_some())
}
