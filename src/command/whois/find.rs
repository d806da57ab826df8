//! How a thing is found: a path, a device, a hash, a name.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::{Inside, Kind, Row, Visibility};
use crate::bytes::{Bytes, shell_quote};
use crate::command::Context;
use crate::engine::cover::Cover;
use crate::engine::covered::{Covers, users_of_volumes};
use crate::engine::inventory::{Container, Image, LayerName, is_id};
use crate::engine::usage::{ContainerName, ImageUse, LayerUse, Space, UseKind};
use crate::engine::{self, Engine, OwnerKind, Union};
use crate::error::{Error, Result};
use crate::target;
use crate::union::{Entry, Follow, Reading, lookup};

/// What an engine says, asked once for all things, and not before one needs it.
pub struct Known<'s> {
    engine: &'s dyn Engine,
    layers: Vec<LayerUse>,
    /// Where each is among them, by driver and id.
    index: HashMap<(String, String), usize>,
    containers: OnceCell<Vec<Container>>,
    images: OnceCell<Vec<Image>>,
    names: OnceCell<Vec<(usize, String)>>,
    /// Who uses each volume.
    volumes: OnceCell<HashMap<String, Vec<ContainerName>>>,
}

impl<'s> Known<'s> {
    pub fn new(engine: &'s dyn Engine, layers: Vec<LayerUse>) -> Known<'s> {
        let mut index = HashMap::new();
        for (at, of) in layers.iter().enumerate() {
            let key = (of.layer.driver.clone(), of.layer.id.clone());
            index.entry(key).or_insert(at);
        }
        Known {
            engine,
            layers,
            index,
            containers: OnceCell::new(),
            images: OnceCell::new(),
            names: OnceCell::new(),
            volumes: OnceCell::new(),
        }
    }

    /// What is known of a layer.
    fn layer(&self, name: LayerName) -> Option<&LayerUse> {
        let at = self.index.get(&(name.driver, name.id))?;
        self.layers.get(*at)
    }

    fn containers(&self) -> &[Container] {
        self.containers.get_or_init(|| self.engine.containers())
    }

    /// The containers that have a volume. Where a record cannot be read, `du` says so.
    fn users_of(&self, volume: &str) -> Vec<ContainerName> {
        let known = || users_of_volumes(self.engine, self.containers()).0;
        let users = self.volumes.get_or_init(known).get(volume);
        users.cloned().unwrap_or_default()
    }

    fn images(&self) -> &[Image] {
        self.images.get_or_init(|| self.engine.images())
    }

    /// Every name that a layer has, in the layers' order, each with the layer's index.
    fn names(&self) -> &[(usize, String)] {
        self.names.get_or_init(|| {
            let layers = self.engine.layers();
            let mut aliases: HashMap<(&str, &str), Vec<&String>> = HashMap::new();
            for of in &layers {
                let of_layer = aliases.entry((&of.driver, &of.id)).or_default();
                of_layer.extend(&of.aliases);
            }
            let mut names = Vec::new();
            for (index, of) in self.layers.iter().enumerate() {
                let LayerName { driver, id, .. } = &of.layer;
                let own = std::iter::once(id).chain(&of.layer.aliases);
                let others = aliases.get(&(driver.as_str(), id.as_str()));
                let all = own.chain(others.into_iter().flatten().copied());
                names.extend(all.map(|name| (index, name.clone())));
            }
            names
        })
    }
}

/// Whether it is said where a thing is for those who use it, which takes a look into their unions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Places {
    Shown,
    LeftOut,
}

pub fn who(
    context: &Context<'_>,
    known: &[Known<'_>],
    thing: &[u8],
    places: Places,
) -> Result<Row> {
    if thing.starts_with(b"/dev/") {
        return device(context, known, thing, places);
    }
    let is_path = thing.starts_with(b"/") || thing.starts_with(b"./") || thing.starts_with(b"../");
    if is_path || thing == b"." {
        let path = target::typed_path(&context.survey, thing, &context.base);
        let path = Bytes::absolute(path.components());
        return at_path(context, known, thing, &path, places);
    }
    named(context, known, thing, places)
}

/// A loop device, or another one, with a union's branch on it.
fn device(context: &Context<'_>, known: &[Known<'_>], thing: &[u8], places: Places) -> Result<Row> {
    let mut mounts = context.survey.table.0.iter();
    let mount = mounts.rfind(|mount| mount.source.as_bytes() == thing);
    match mount {
        Some(mount) => at_path(context, known, thing, &mount.point, places),
        None => Ok(Row::unknown(thing, "nothing is mounted from it")),
    }
}

fn at_path(
    context: &Context<'_>,
    known: &[Known<'_>],
    thing: &[u8],
    path: &Bytes,
    places: Places,
) -> Result<Row> {
    fn shown(inside: &Bytes, places: Places) -> Option<&Bytes> {
        Some(inside).filter(|_| places == Places::Shown)
    }
    let layer_at = |path: &Bytes| {
        let mut engines = known.iter();
        engines.find_map(|known| Some((known, known.engine.layer_at(path)?)))
    };
    let in_layer = |(known, (layer, inside)): (&Known<'_>, (LayerName, Bytes))| match known
        .layer(layer.clone())
    {
        Some(of) => row_of_use(context, known, thing, of, shown(&inside, places)),
        None => Ok(Row {
            engine: Some(known.engine.name()),
            driver: Some(layer.driver),
            layer: Some(layer.id),
            ..Row::unknown(thing, "its engine's records do not have this layer")
        }),
    };
    // Most lines name a layer's directory as its engine does: the disk need not be asked.
    if let Some(found) = layer_at(path) {
        return in_layer(found);
    }
    // A link of the host may lead there, and so may one of the store's own short names.
    let real = context.survey.host.resolve(path);
    let real = real.unwrap_or_else(|_| path.clone());
    if let Some(found) = layer_at(&real) {
        return in_layer(found);
    }
    for path in [path, &real] {
        if let Some(union) = target::beneath_mount(&context.survey, path)? {
            return Ok(Row {
                kind: Kind::BeneathMount,
                why: Some("it is in no layer and not in the union that belongs there".to_owned()),
                ..row_of_union(context, thing, &union, None)
            });
        }
    }
    if let Some(target) = target::seen_at(&context.survey, path)? {
        let mut row = row_of_union(context, thing, &target.union, shown(&target.inside, places));
        // What is there is shown; else the union is asked why it is not.
        let is_shown = target.union.superblock.is_some() && is_there(context, path);
        if !is_shown && !row.inside.is_empty() {
            let stack = target.union.open(&context.survey);
            if let Some(error) = stack.lost().next() {
                return Err(error);
            }
            let root = stack.whole(Reading::Nothing);
            let found = lookup(&root, target.inside.as_bytes(), Follow::NotLast)?;
            match found.entry {
                Entry::Missing => {
                    row.inside.clear();
                    row.why = Some("there is nothing at this path in the union".to_owned());
                }
                Entry::Deleted { .. } => row.inside[0].state = Visibility::Deleted,
                _ => {}
            }
        }
        return Ok(row);
    }
    for known in known {
        let root = known.engine.root();
        let inside = path.strip_prefix(root).or_else(|| {
            let root = context.survey.host.resolve(root).ok()?;
            real.strip_prefix(&root)
        });
        if let Some(inside) = inside {
            let row = row_of_space(known, thing, known.engine.space_of(&inside));
            return Ok(match branch_at(context, &real) {
                Some(union) => in_overlaid(row, union),
                None => row,
            });
        }
    }
    // A branch of a mounted union that is no engine's.
    match branch_at(context, &real) {
        Some(union) => Ok(in_overlaid(
            row_of_union(context, thing, union, None),
            union,
        )),
        None => Ok(Row::unknown(thing, "it lies in no store and no union")),
    }
}

/// The mounted union that has a branch in which a path lies.
fn branch_at<'c>(context: &'c Context<'_>, path: &Bytes) -> Option<&'c Union> {
    context.survey.mounted.iter().find(|union| {
        let mut branches = union.branches.iter();
        branches.any(|branch| path.strip_prefix(&branch.spec.path).is_some())
    })
}

/// Says of what lies in a branch of a union over a container's layers whose that is.
fn in_overlaid(mut row: Row, union: &Union) -> Row {
    let Some(over) = &union.over else { return row };
    let container = ContainerName::owner(&over.container);
    row.why = Some(format!(
        "in the overlay at {} of {}",
        over.path,
        crate::bytes::escape(container.name.as_bytes())
    ));
    row.engine = Some(over.container.engine);
    if !row.containers.contains(&container) {
        row.containers.push(container);
    }
    row
}

/// Whether the host has anything at a path, whatever a link there leads to.
fn is_there(context: &Context<'_>, path: &Bytes) -> bool {
    let found = context.survey.host.lookup(path.as_bytes(), Follow::NotLast);
    found.is_ok_and(|found| found.entry.kind().is_some())
}

fn row_of_space(known: &Known<'_>, thing: &[u8], space: Space) -> Row {
    let mut row = Row::new(thing, Kind::Store);
    row.engine = Some(known.engine.name());
    row.kind = match space {
        Space::Layer { .. } | Space::Other => Kind::Store,
        Space::Beneath(_) => Kind::Store,
        Space::BuildCache => Kind::BuildCache,
        Space::Volumes => Kind::Volumes,
        Space::Volume(name) => {
            row.containers.extend(known.users_of(&name));
            row.why = Some(format!("the volume {name}"));
            Kind::Volumes
        }
        Space::Records => Kind::Records,
        Space::Container(id) | Space::Log(id) | Space::Overlaid(id) => {
            let mut containers = known.containers().iter();
            let name = containers.find(|container| container.id == id);
            row.containers.push(ContainerName {
                name: name.map_or_else(|| id.clone(), |container| container.name.clone()),
                namespace: name.and_then(|container| container.namespace.clone()),
                id,
            });
            Kind::ContainerFiles
        }
    };
    row
}

fn row_of_union(context: &Context<'_>, thing: &[u8], union: &Union, inside: Option<&Bytes>) -> Row {
    let mut row = Row::new(thing, Kind::Mount);
    row.driver.clone_from(&union.driver);
    if let Some(owner) = &union.owner {
        row.engine = Some(owner.engine);
        if owner.kind == OwnerKind::Container {
            row.containers.push(ContainerName::owner(owner));
        }
    }
    if let Some(path) = inside {
        row.inside.push(Inside {
            target: context.survey.label(union),
            path: path.clone(),
            state: Visibility::Visible,
            covered_by: cover(context, union, path),
        });
    }
    row
}

fn row_of_use(
    context: &Context<'_>,
    known: &Known<'_>,
    thing: &[u8],
    of: &LayerUse,
    inside: Option<&Bytes>,
) -> Result<Row> {
    let mut row = Row {
        engine: Some(known.engine.name()),
        driver: Some(of.layer.driver.clone()),
        layer: Some(of.layer.id.clone()),
        directory: Some(of.directory.clone()),
        containers: of.containers.clone(),
        images: of.images.clone(),
        why: of.note.clone().or_else(|| {
            let words = match of.kind {
                UseKind::Unknown => "its engine's records do not have this layer",
                UseKind::Untold => "not all of its engine's records could be read",
                _ => return None,
            };
            Some(words.to_owned())
        }),
        ..Row::new(thing, Kind::of(of.kind))
    };
    row.above.clone_from(&of.above);
    let path = inside.filter(|path| path.as_bytes() != b"/");
    if let Some(path) = path {
        let containers = known.containers();
        for user in &of.containers {
            let container = containers.iter().find(|container| user.is(container));
            let Some(container) = container else { continue };
            let union = known.engine.union_of(container)?;
            row.inside.extend(seen_in(context, &union, of, path)?);
        }
        if of.containers.is_empty() {
            let own = known
                .images()
                .iter()
                .filter(|image| of.images.iter().any(|user| user.id == image.id));
            // Those with names; where none has one, the smallest.
            let named: Vec<_> = own
                .clone()
                .filter(|image| !image.names.tags.is_empty())
                .collect();
            let smallest = own.min_by_key(|image| image.history.len());
            let shown = if named.is_empty() {
                smallest.into_iter().collect()
            } else {
                named
            };
            for image in shown {
                let union = known.engine.union_of_image(image)?;
                row.inside.extend(seen_in(context, &union, of, path)?);
            }
        }
    }
    Ok(row)
}

/// How a union shows a path of one of its layers.
fn seen_in(
    context: &Context<'_>,
    union: &Union,
    of: &LayerUse,
    path: &Bytes,
) -> Result<Option<Inside>> {
    let is_it = |id: &Option<String>| id.as_deref() == Some(&of.layer.id);
    let branch = union
        .branches
        .iter()
        .position(|branch| is_it(&branch.layer.id));
    let Some(branch) = branch else {
        return Ok(None);
    };
    let stack = union.open(&context.survey);
    if let Some(error) = stack.lost().next() {
        return Err(error);
    }
    let root = stack.whole(Reading::Nothing);
    let found = lookup(&root, path.as_bytes(), Follow::NotLast)?;
    if matches!(found.entry, Entry::Missing) && found.versions(&stack)?.is_empty() {
        return Ok(None);
    }
    let state = match &found.entry {
        Entry::Dir(node) if node.branches().any(|of| of == branch) => {
            match node.branches().count() {
                1 => Visibility::Visible,
                _ => Visibility::Merged,
            }
        }
        entry if entry.provider() == Some(branch) => Visibility::Visible,
        entry if entry.provider().is_some() => Visibility::Shadowed,
        _ => Visibility::Deleted,
    };
    Ok(Some(Inside {
        target: context.survey.label(union),
        path: path.clone(),
        state,
        covered_by: cover(context, union, path),
    }))
}

/// What lies over a path; what cannot be read is told by whoever asks for that.
fn cover(context: &Context<'_>, union: &Union, path: &Bytes) -> Option<Cover> {
    let covers = Covers::of(&context.survey, union).ok()?;
    covers.at(path).cloned()
}

/// A hash or the beginning of one, a short name, a number, an engine's name.
fn named(context: &Context<'_>, known: &[Known<'_>], thing: &[u8], places: Places) -> Result<Row> {
    let Ok(text) = std::str::from_utf8(thing) else {
        return Ok(Row::unknown(thing, "nothing has this name"));
    };
    if let Some((known, of)) = exact(known, text)?.or_else(|| of_number(known, text)) {
        return row_of_use(context, known, thing, of, None);
    }
    match target::find_known(&context.survey, thing) {
        Ok(target) => match layer_of(known, &target.union, text) {
            Some((known, of)) => row_of_use(context, known, thing, of, None),
            None => Ok(row_of_target(context, thing, &target.union)),
        },
        Err(Error::NoSuchTarget { .. }) => {
            // With the root before it a path need not begin with a slash.
            let path = Path::new(OsStr::from_bytes(thing));
            let path = context.survey.host.inside(path);
            if let Some(path) = path.filter(|_| text.contains('/')) {
                return at_path(context, known, thing, &path, places);
            }
            match beginning(known, text)? {
                Some((known, of)) => row_of_use(context, known, thing, of, None),
                None => Ok(row_of_volume(context, known, thing, text)
                    .unwrap_or_else(|| Row::unknown(thing, nobody(context, thing)))),
            }
        }
        Err(error) if error.is_not_found() => Ok(Row::unknown(thing, "it is not there")),
        Err(error) => Err(error),
    }
}

/// Why nothing is known of a name.
fn nobody(context: &Context<'_>, thing: &[u8]) -> String {
    if let Some(place) = context.survey.closed() {
        return format!("{place} may not be read");
    }
    if let (name, Some(path)) = target::split(thing)
        && let Ok(target) = target::find_known(&context.survey, name)
    {
        let label = context.survey.label(&target.union);
        let inside = Bytes([label.as_bytes(), b":", path].concat());
        let inside = shell_quote(&inside);
        return format!("it is a path in a union: `layerctl which {inside}` tells of it");
    }
    "no engine has this name".to_owned()
}

/// The volume that has a name: all engines keep theirs alike.
fn row_of_volume(
    context: &Context<'_>,
    known: &[Known<'_>],
    thing: &[u8],
    name: &str,
) -> Option<Row> {
    let inside = Bytes::from("/volumes").join(name.as_bytes());
    known.iter().filter(|_| is_id(name)).find_map(|known| {
        let directory = known.engine.root().join_path(&inside);
        let space = known.engine.space_of(&inside);
        let is_it = matches!(space, Space::Volume(_)) && is_there(context, &directory);
        is_it.then(|| Row {
            directory: Some(directory),
            ..row_of_space(known, thing, space)
        })
    })
}

/// A layer, and who knows it.
type KnownLayer<'k, 's> = (&'k Known<'s>, &'k LayerUse);

/// The topmost layer of what was found by a name, if the name is that of the layer, too.
fn layer_of<'k, 's>(
    known: &'k [Known<'s>],
    union: &Union,
    text: &str,
) -> Option<KnownLayer<'k, 's>> {
    let hex = text.strip_prefix("sha256:").unwrap_or(text);
    let top = union.branches.first()?;
    let is_it = |of: &LayerUse| {
        Some(of.layer.id.as_str()) == top.layer.id.as_deref() && of.directory == top.spec.path
    };
    known.iter().find_map(|known| {
        let index = known.layers.iter().position(is_it)?;
        let mut names = known.names().iter().filter(|(of, _)| *of == index);
        let is_named = text.starts_with("l/") || names.any(|(_, name)| name.starts_with(hex));
        is_named.then(|| (known, &known.layers[index]))
    })
}

/// The layer that has a name, whole.
///
/// # Errors
/// There are several.
fn exact<'k, 's>(known: &'k [Known<'s>], text: &str) -> Result<Option<KnownLayer<'k, 's>>> {
    let hex = text.strip_prefix("sha256:").unwrap_or(text);
    only(text, with_name(known, |name| name == hex))
}

/// The layer whose name begins so, where no engine takes it for one of its own any more: what
/// is left of a removal.
///
/// # Errors
/// There are several.
fn beginning<'k, 's>(known: &'k [Known<'s>], text: &str) -> Result<Option<KnownLayer<'k, 's>>> {
    let hex = text.strip_prefix("sha256:").unwrap_or(text);
    if hex.len() < PREFIX_MIN {
        return Ok(None);
    }
    let mut found = with_name(known, |name| name.starts_with(hex));
    if found.len() > 1 {
        // A container's init layer shares its beginning: the container's own is meant.
        found.retain(|(_, of)| of.kind != UseKind::Init);
    }
    only(text, found)
}

/// The fewest digits that stand for a longer name.
const PREFIX_MIN: usize = 4;

/// The one layer that has a name.
///
/// # Errors
/// There are several.
fn only<'k, 's>(
    text: &str,
    mut found: Vec<KnownLayer<'k, 's>>,
) -> Result<Option<KnownLayer<'k, 's>>> {
    if found.len() > 1 {
        let candidates = found.iter().map(|(known, of)| {
            let (engine, kind) = (known.engine.name(), of.kind.words());
            format!("{engine}:{}  ({kind})", of.layer.id)
        });
        return Err(Error::Ambiguous {
            name: text.to_owned(),
            candidates: candidates.collect(),
        });
    }
    Ok(found.pop())
}

/// The layers that have a name of which something is true, each once.
fn with_name<'k, 's>(
    known: &'k [Known<'s>],
    is_it: impl Fn(&str) -> bool,
) -> Vec<KnownLayer<'k, 's>> {
    let of_one = |known: &'k Known<'s>| {
        let named = known.names().iter().filter(|(_, name)| is_it(name));
        let mut layers: Vec<usize> = named.map(|(index, _)| *index).collect();
        layers.dedup();
        let layers = layers.into_iter();
        layers.map(move |index| (known, &known.layers[index]))
    };
    known.iter().flat_map(of_one).collect()
}

/// `containerd:3` is a number, and not the beginning of one. Docker's snapshots are containerd's.
fn of_number<'k, 's>(known: &'k [Known<'s>], text: &str) -> Option<KnownLayer<'k, 's>> {
    let (engine, number) = text.split_once(':')?;
    let is_number = number.bytes().all(|byte| byte.is_ascii_digit());
    let is_numbering = engine::called(engine).is_some_and(|of| of.numbers_layers);
    known.iter().find_map(|known| {
        let is_asked = known.engine.name() == engine || (is_numbering && is_number);
        let mut layers = known.layers.iter().filter(|_| is_asked);
        Some((known, layers.find(|layer| layer.layer.id == number)?))
    })
}

/// A container, an image or a process, and its topmost layer.
fn row_of_target(context: &Context<'_>, thing: &[u8], union: &Union) -> Row {
    let mut row = row_of_union(context, thing, union, None);
    if let Some(owner) = &union.owner {
        row.kind = match owner.kind {
            OwnerKind::Container => Kind::Container,
            OwnerKind::Image | OwnerKind::Layer => Kind::Image,
        };
        if owner.kind == OwnerKind::Image {
            row.images.push(ImageUse {
                id: owner.id.clone(),
                tags: owner.name.clone().into_iter().collect(),
                number: union.branches.len(),
                of: union.branches.len(),
            });
        }
    }
    let top = union.branches.first();
    row.directory = top.map(|branch| branch.spec.path.clone());
    row.layer = top.and_then(|branch| branch.layer.id.clone());
    row
}
