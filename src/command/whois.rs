//! `whois PATH|HASH...`: whose a directory, a layer, a mount or a process is.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;

use serde::Serialize;

use crate::bytes::{Bytes, escape};
use crate::command::{Context, Outcome, Verb};
use crate::engine::inventory::{Container, Image, LayerName, short};
use crate::engine::usage::{ContainerName, ImageUse, LayerUse, Space, UseKind};
use crate::engine::{Engine, OwnerKind, Union};
use crate::error::{Error, Result, errno_of};
use crate::render::Look;
use crate::target;
use crate::union::{Entry, Follow, Reading, lookup};

/// Tell whose a directory, a layer, a mount, a device or a process is
///
/// With - lines are read from stdin, such as du prints, and each is annotated.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[arg(required = true, value_name = "PATH|HASH")]
    things: Vec<OsString>,
}

/// What a thing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    Container,
    Init,
    Image,
    BuildCache,
    InProgress,
    View,
    Unused,
    /// A union's mount.
    Mount,
    /// Kept beside a container's layer: configuration, logs.
    ContainerFiles,
    Volumes,
    Records,
    /// A part of a store that is none of these.
    Store,
    Unknown,
}

impl Kind {
    fn of(kind: UseKind) -> Kind {
        match kind {
            UseKind::Container => Kind::Container,
            UseKind::Init => Kind::Init,
            UseKind::Image => Kind::Image,
            UseKind::BuildCache => Kind::BuildCache,
            UseKind::InProgress => Kind::InProgress,
            UseKind::View => Kind::View,
            UseKind::Unused => Kind::Unused,
            UseKind::Unknown => Kind::Unknown,
        }
    }

    pub fn words(self) -> &'static str {
        match self {
            Kind::Container => "container layer",
            Kind::Init => "init layer",
            Kind::Image => "image layer",
            Kind::BuildCache => "build cache",
            Kind::InProgress => "in progress",
            Kind::View => "snapshot view",
            Kind::Unused => "unused layer",
            Kind::Mount => "mount",
            Kind::ContainerFiles => "container's files",
            Kind::Volumes => "volumes",
            Kind::Records => "records",
            Kind::Store => "store",
            Kind::Unknown => "unknown",
        }
    }
}

/// The answer for one thing.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct Row {
    /// As it was asked for.
    pub query: Bytes,
    /// The line that it was found in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<Bytes>,
    pub kind: Kind,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub engine: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// The engine's id of the layer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layer: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub directory: Option<Bytes>,
    /// Those that use it.
    pub containers: Vec<ContainerName>,
    pub images: Vec<ImageUse>,
    /// The containers that stand on those images.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub above: Vec<ContainerName>,
    /// Where it is for those who use it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inside: Vec<Inside>,
    /// Why nobody is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// A path as a container, or an image, has it.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct Inside {
    /// The container's name, or the image's first tag.
    pub of: String,
    pub path: Bytes,
    pub state: Visibility,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Visibility {
    /// It is what is seen there.
    Visible,
    /// It is merged with other layers' directories.
    Merged,
    /// A layer above has another one.
    Shadowed,
    /// A layer above deletes it.
    Deleted,
}

impl Visibility {
    pub fn word(self) -> &'static str {
        match self {
            Visibility::Visible => "visible",
            Visibility::Merged => "merged",
            Visibility::Shadowed => "shadowed",
            Visibility::Deleted => "deleted",
        }
    }
}

impl Row {
    fn new(query: &[u8], kind: Kind) -> Row {
        Row {
            query: Bytes::from(query),
            line: None,
            kind,
            engine: None,
            driver: None,
            layer: None,
            directory: None,
            containers: Vec::new(),
            images: Vec::new(),
            above: Vec::new(),
            inside: Vec::new(),
            why: None,
        }
    }

    fn unknown(query: &[u8], why: impl Into<String>) -> Row {
        Row {
            why: Some(why.into()),
            ..Row::new(query, Kind::Unknown)
        }
    }

    /// The one name that says most: a container's, or an image's.
    pub fn owner(&self) -> String {
        if let Some(container) = self.containers.first() {
            return container.name.clone();
        }
        let tag = self.images.iter().find_map(|image| image.tags.first());
        if let Some(tag) = tag {
            return tag.clone();
        }
        match self.images.first() {
            Some(image) => short(&image.id).to_owned(),
            None => self.kind.words().to_owned(),
        }
    }
}

/// What an engine says, asked once for all things, and not before one needs it.
struct Known<'s> {
    engine: &'s dyn Engine,
    layers: Vec<LayerUse>,
    containers: OnceCell<Vec<Container>>,
    images: OnceCell<Vec<Image>>,
    names: OnceCell<Vec<(usize, String)>>,
}

impl<'s> Known<'s> {
    /// # Errors
    /// Who uses which layer cannot be told.
    fn new(engine: &'s dyn Engine) -> Result<Known<'s>> {
        Ok(Known {
            engine,
            layers: engine.layer_uses()?,
            containers: OnceCell::new(),
            images: OnceCell::new(),
            names: OnceCell::new(),
        })
    }

    fn containers(&self) -> &[Container] {
        self.containers.get_or_init(|| self.engine.containers())
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

impl Verb for Args {
    type Answer = Vec<Row>;

    fn run(self, context: &mut Context<'_>) -> Result<Outcome<Vec<Row>>> {
        let (stdin, things): (Vec<&[u8]>, Vec<&[u8]>) = {
            let things = self.things.iter().map(|thing| thing.as_bytes());
            things.partition(|thing| *thing == b"-")
        };
        let text = if stdin.is_empty() {
            Vec::new()
        } else {
            read_stdin()?
        };
        context.survey.look_everywhere();
        let (rows, mut problems) = answer(context, &things, &text);
        context.problems.append(&mut problems);
        Ok(Outcome {
            is_yes: rows.iter().all(|row| row.kind != Kind::Unknown),
            answer: rows,
        })
    }
}

fn read_stdin() -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    io::stdin()
        .lock()
        .read_to_end(&mut bytes)
        .map_err(|error| Error::io("/dev/stdin", errno_of(&error)))?;
    Ok(bytes)
}

/// Whose each thing is, and each line's; and what could not be read.
fn answer(context: &Context<'_>, things: &[&[u8]], text: &[u8]) -> (Vec<Row>, Vec<Error>) {
    let mut problems = Vec::new();
    let mut known = Vec::new();
    for engine in context.survey.engines_here() {
        match Known::new(engine) {
            Ok(of) => known.push(of),
            Err(error) => problems.push(error),
        }
    }
    let mut rows = Vec::new();
    for thing in things {
        match who(context, &known, thing, Places::Shown) {
            Ok(row) => rows.push(row),
            Err(error) => problems.push(error),
        }
    }
    let lines = text.split(|&byte| byte == b'\n');
    for line in lines.filter(|line| !line.is_empty()) {
        let Some(thing) = thing_in(line) else {
            continue;
        };
        match who(context, &known, thing, Places::LeftOut) {
            Ok(row) => rows.push(Row {
                line: Some(Bytes::from(line)),
                ..row
            }),
            Err(error) => problems.push(error),
        }
    }
    (rows, problems)
}

/// The path in a line of `du`, `find` or `df`: from the first slash that begins a word.
fn thing_in(line: &[u8]) -> Option<&[u8]> {
    let starts = |at: &usize| line[*at] == b'/' && (*at == 0 || line[at - 1].is_ascii_whitespace());
    let start = (0..line.len()).find(starts);
    match start {
        Some(start) => Some(&line[start..]),
        // A name alone.
        None => Some(line.trim_ascii()).filter(|line| !line.is_empty()),
    }
}

/// Whether it is said where a thing is for those who use it, which takes a look into their unions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Places {
    Shown,
    LeftOut,
}

fn who(context: &Context<'_>, known: &[Known<'_>], thing: &[u8], places: Places) -> Result<Row> {
    if thing.starts_with(b"/dev/") {
        return device(context, known, thing, places);
    }
    let is_path = thing.starts_with(b"/") || thing.starts_with(b"./") || thing.starts_with(b"../");
    if is_path || thing == b"." {
        let path = if thing.starts_with(b"/") {
            Bytes::absolute(crate::bytes::components(thing))
        } else {
            let joined = context.base.0.join(thing);
            Bytes::absolute(joined.components())
        };
        return at_path(context, known, thing, &path, places);
    }
    named(context, known, thing)
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
    let shown = |inside| Some(inside).filter(|_| places == Places::Shown);
    // A link of the host may lead there, and so may one of the store's own short names.
    let real = context
        .survey
        .host
        .resolve(path)
        .unwrap_or_else(|_| path.clone());
    for path in [path, &real] {
        for known in known {
            if let Some((layer, inside)) = known.engine.layer_at(path) {
                let of = known
                    .layers
                    .iter()
                    .find(|of| of.layer.driver == layer.driver && of.layer.id == layer.id);
                return match of {
                    Some(of) => row_of_use(context, known, thing, of, shown(&inside)),
                    None => Ok(Row {
                        engine: Some(known.engine.name()),
                        driver: Some(layer.driver),
                        layer: Some(layer.id),
                        ..Row::unknown(thing, "its engine's records do not have this layer")
                    }),
                };
            }
        }
    }
    if let Some(target) = target::seen_at(&context.survey, path)? {
        return Ok(row_of_union(
            context,
            thing,
            &target.union,
            shown(&target.inside),
        ));
    }
    for known in known {
        let root = known.engine.root();
        let inside = path.strip_prefix(root).or_else(|| {
            let root = context.survey.host.resolve(root).ok()?;
            real.strip_prefix(&root)
        });
        if let Some(inside) = inside {
            return Ok(row_of_space(known, thing, known.engine.space_of(&inside)));
        }
    }
    // A branch of a mounted union that is no engine's.
    let branch = context.survey.mounted.iter().find(|union| {
        let mut branches = union.branches.iter();
        branches.any(|branch| real.strip_prefix(&branch.spec.path).is_some())
    });
    match branch {
        Some(union) => Ok(row_of_union(context, thing, union, None)),
        None => Ok(Row::unknown(thing, "it lies in no store and no union")),
    }
}

fn row_of_space(known: &Known<'_>, thing: &[u8], space: Space) -> Row {
    let mut row = Row::new(thing, Kind::Store);
    row.engine = Some(known.engine.name());
    row.kind = match space {
        Space::Layer { .. } | Space::Other => Kind::Store,
        Space::BuildCache => Kind::BuildCache,
        Space::Volumes => Kind::Volumes,
        Space::Records => Kind::Records,
        Space::Container(id) => {
            let mut containers = known.containers().iter();
            let name = containers.find(|container| container.id == id);
            row.containers.push(ContainerName {
                name: name.map_or_else(|| id.clone(), |container| container.name.clone()),
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
    let of = match &union.owner {
        Some(owner) => {
            row.engine = Some(owner.engine);
            let name = owner.name.clone().unwrap_or_else(|| owner.id.clone());
            if owner.kind == OwnerKind::Container {
                row.containers.push(ContainerName {
                    id: owner.id.clone(),
                    name: name.clone(),
                });
            }
            name
        }
        None => context.survey.label(union).to_text().into_owned(),
    };
    if let Some(path) = inside {
        row.inside.push(Inside {
            of,
            path: path.clone(),
            state: Visibility::Visible,
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
        why: (of.kind == UseKind::Unknown)
            .then(|| "its engine's records do not have this layer".to_owned()),
        ..Row::new(thing, Kind::of(of.kind))
    };
    if of.kind == UseKind::Image {
        let is_on = |container: &&Container| of.images.iter().any(|of| of.id == container.image_id);
        let containers = known.containers().iter().filter(is_on);
        row.above.extend(containers.map(|container| ContainerName {
            id: container.id.clone(),
            name: container.name.clone(),
        }));
    }
    let path = inside.filter(|path| path.as_bytes() != b"/");
    if let Some(path) = path {
        let containers = known.containers();
        for user in &of.containers {
            let container = containers.iter().find(|container| container.id == user.id);
            let Some(container) = container else { continue };
            let union = known.engine.union_of(container)?;
            row.inside
                .extend(seen_in(context, &union, &user.name, of, path)?);
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
                let name = image.names.tags.first();
                let name = name.map_or_else(|| short(&image.id).to_owned(), Clone::clone);
                row.inside
                    .extend(seen_in(context, &union, &name, of, path)?);
            }
        }
    }
    Ok(row)
}

/// How a union shows a path of one of its layers.
fn seen_in(
    context: &Context<'_>,
    union: &Union,
    name: &str,
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
        of: name.to_owned(),
        path: path.clone(),
        state,
    }))
}

/// A hash or the beginning of one, a short name, a number, an engine's name.
fn named(context: &Context<'_>, known: &[Known<'_>], thing: &[u8]) -> Result<Row> {
    let Ok(text) = std::str::from_utf8(thing) else {
        return Ok(Row::unknown(thing, "nothing has this name"));
    };
    if let Some(link) = text.strip_prefix("l/") {
        for known in known {
            for directory in ["overlay2", "overlay", "fuse-overlayfs"] {
                let parts = [directory.as_bytes(), b"l", link.as_bytes()];
                let path = parts
                    .iter()
                    .fold(known.engine.root().clone(), |path, part| path.join(part));
                let Some((layer, _)) = known.engine.layer_at(&path) else {
                    continue;
                };
                if let Some(of) = known.layers.iter().find(|of| of.layer.id == layer.id) {
                    return row_of_use(context, known, thing, of, None);
                }
            }
        }
        return Ok(Row::unknown(thing, "no store has this short name"));
    }
    let hex = text.strip_prefix("sha256:").unwrap_or(text);
    let mut found: Vec<(&Known<'_>, &LayerUse)> = Vec::new();
    for is_whole in [true, false] {
        let is_it = |name: &str| {
            if is_whole {
                name == hex
            } else {
                hex.len() >= PREFIX_MIN && name.starts_with(hex)
            }
        };
        for known in known {
            let named = known.names().iter().filter(|(_, name)| is_it(name));
            let mut layers: Vec<usize> = named.map(|(index, _)| *index).collect();
            layers.dedup();
            found.extend(
                layers
                    .into_iter()
                    .map(|index| (known, &known.layers[index])),
            );
        }
        if !found.is_empty() {
            break;
        }
    }
    if found.len() > 1 {
        // A container's init layer shares its beginning: the container's own is meant.
        let own: Vec<_> = found
            .iter()
            .filter(|(_, of)| of.kind != UseKind::Init)
            .copied()
            .collect();
        if own.len() == 1 {
            found = own;
        }
    }
    match found.as_slice() {
        [(known, of)] => return row_of_use(context, known, thing, of, None),
        [] => {}
        several => {
            return Err(Error::Ambiguous {
                name: text.to_owned(),
                candidates: several
                    .iter()
                    .map(|(known, of)| {
                        let engine = known.engine.name();
                        format!("{engine} {} {}", of.kind.words(), of.layer.id)
                    })
                    .collect(),
            });
        }
    }
    // `containerd:3` is a number, and not the beginning of one. Docker's snapshots are containerd's.
    if let Some((engine, number)) = text.split_once(':') {
        let is_number = number.bytes().all(|byte| byte.is_ascii_digit());
        let found = known.iter().find_map(|known| {
            let is_asked = known.engine.name() == engine || (engine == "containerd" && is_number);
            let mut layers = known.layers.iter().filter(|_| is_asked);
            Some((known, layers.find(|layer| layer.layer.id == number)?))
        });
        if let Some((known, of)) = found {
            return row_of_use(context, known, thing, of, None);
        }
    }
    match target::find_known(&context.survey, thing) {
        Ok(target) => {
            let mut row = row_of_union(context, thing, &target.union, None);
            if let Some(owner) = &target.union.owner {
                row.kind = match owner.kind {
                    OwnerKind::Container => Kind::Container,
                    OwnerKind::Image | OwnerKind::Layer => Kind::Image,
                };
                if owner.kind == OwnerKind::Image {
                    row.images.push(ImageUse {
                        id: owner.id.clone(),
                        tags: owner.name.clone().into_iter().collect(),
                        number: target.union.branches.len(),
                        of: target.union.branches.len(),
                    });
                }
            }
            row.directory = target
                .union
                .branches
                .first()
                .map(|branch| branch.spec.path.clone());
            row.layer = target
                .union
                .branches
                .first()
                .and_then(|branch| branch.layer.id.clone());
            Ok(row)
        }
        Err(Error::NoSuchTarget(_)) => Ok(Row::unknown(thing, "no engine has this name")),
        Err(error) if error.is_not_found() => Ok(Row::unknown(thing, "it is not there")),
        Err(error) => Err(error),
    }
}

/// The fewest digits that stand for a longer name.
const PREFIX_MIN: usize = 4;

impl crate::command::Row for Row {
    fn words(&self, give: &mut dyn FnMut(&[u8])) {
        give(self.owner().as_bytes());
    }

    fn table(rows: &[Row], look: Look, out: &mut dyn Write) -> io::Result<()> {
        rows.iter().try_for_each(|row| match &row.line {
            Some(line) => row.write_behind(line, look, out),
            None => row.write(look, out),
        })
    }
}

impl Row {
    /// A line of another program's is given back with what was asked for behind it.
    fn write_behind(&self, line: &Bytes, look: Look, out: &mut dyn Write) -> io::Result<()> {
        // Its tabs are its columns.
        for part in line.as_bytes().split(|&byte| byte == b'\t') {
            write!(out, "{}\t", escape(part))?;
        }
        writeln!(out, "{}", self.words_of_owner(look))
    }

    fn write(&self, look: Look, out: &mut dyn Write) -> io::Result<()> {
        let query = look.bold(&escape(self.query.as_bytes()));
        writeln!(out, "{query}  {}", self.words_of_owner(look))?;
        if let Some(directory) = &self.directory {
            writeln!(out, "  in {}", look.directory(directory))?;
        }
        if !self.above.is_empty() {
            let names = self.above.iter().map(|of| escape(of.name.as_bytes()));
            let names: Vec<_> = names.collect();
            writeln!(out, "  below {}", names.join(", "))?;
        }
        for inside in &self.inside {
            let (of, state) = (escape(inside.of.as_bytes()), inside.state.word());
            writeln!(out, "  {of}:{}  {state}", inside.path)?;
        }
        Ok(())
    }

    /// What it is, in one line.
    fn words_of_owner(&self, look: Look) -> String {
        let mut words: Vec<String> = Vec::new();
        words.extend(self.engine.map(str::to_owned));
        words.push(self.kind.words().to_owned());
        if let [image, ..] = self.images.as_slice()
            && self.kind == Kind::Image
        {
            words.push(format!("{} of {}", image.number, image.of));
        }
        let containers = self.containers.iter();
        let containers = containers.map(|of| escape(of.name.as_bytes()).into_owned());
        let mut names: Vec<String> = containers.collect();
        let tags = self.images.iter().flat_map(|image| &image.tags);
        let mut tags: Vec<String> = tags
            .map(|tag| escape(tag.as_bytes()).into_owned())
            .collect();
        tags.dedup();
        if tags.is_empty() {
            tags.extend(self.images.first().map(|image| look.id(&image.id)));
        }
        names.extend(tags);
        if !names.is_empty() {
            words.push(format!("of {}", names.join(", ")));
        }
        if let Some(why) = &self.why {
            words.push(format!("({})", escape(why.as_bytes())));
        }
        words.join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_in_lines() {
        for (line, thing) in [
            (
                &b"1234\t/var/lib/docker/overlay2/ab c"[..],
                &b"/var/lib/docker/overlay2/ab c"[..],
            ),
            (b"/a/b", b"/a/b"),
            (b"  4f1c  ", b"4f1c"),
            (b"12 x/y /z", b"/z"),
        ] {
            assert_eq!(thing_in(line), Some(thing));
        }
    }
}
