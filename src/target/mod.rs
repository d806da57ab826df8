//! What a person calls a stack: a container, an image, a mount point, `si_HEX`, a layer, or the
//! stack itself, spelled `br:DIR=PERM:DIR=PERM...`, `lowerdir=DIR:DIR,upperdir=DIR`, or that with
//! `fuse-overlayfs:` before it.

use crate::branch;
use crate::bytes::{Bytes, escape};
use crate::dir;
use crate::engine::inventory::{Container, Image, LayerName, short};
use crate::engine::mount_table::Superblock;
use crate::engine::reach::Reach;
use crate::engine::{
    self, Engine, LayeredBranch, MountPoint, MountState, Survey, Union, UnionKind, kernel,
    spelled_union,
};
use crate::error::{Error, Result};
use crate::overlay::{self, Namespace};

/// A stack that a person named.
#[derive(Debug, Clone)]
pub struct Target {
    pub union: Union,
    /// Where in the union the name led: a path under a mount point; else `/`.
    pub inside: Bytes,
    /// Where the paths of this name start: for a process that has only a part of the union as its
    /// root, that part.
    pub base: Bytes,
    /// The name stands for a read-only layer or image, so that its topmost branch is what
    /// "changes" and "whiteouts" are about although nothing can be written there.
    pub is_layer: bool,
}

impl Target {
    fn of(union: Union) -> Target {
        Target {
            union,
            inside: Bytes::from("/"),
            base: Bytes::from("/"),
            is_layer: false,
        }
    }

    /// A path of the union, from one as it was typed after the target's name.
    pub fn path(&self, typed: &Bytes) -> Bytes {
        match self.base.as_bytes() {
            b"/" => typed.clone(),
            _ => self.base.join_path(typed),
        }
    }

    /// The branch whose changes and marks are asked for.
    pub fn subject(&self) -> Option<usize> {
        if self.is_layer && !self.union.branches.is_empty() {
            return Some(0);
        }
        self.union
            .branches
            .iter()
            .position(|branch| branch.spec.permission.is_writable())
    }
}

/// Where relative directories of a spelled stack start.
#[derive(Debug, Clone)]
pub struct Base(pub Bytes);

/// Whether an argument spells a stack rather than names one.
pub fn is_spelled(argument: &[u8]) -> bool {
    branch::is_spelled(argument) || overlay::is_spelled(argument)
}

/// Splits `TARGET:PATH` at the first `:/`, as `docker cp` does. A spelled stack is all TARGET.
pub fn split(argument: &[u8]) -> (&[u8], Option<&[u8]>) {
    if is_spelled(argument) {
        return (argument, None);
    }
    match argument.windows(2).position(|pair| pair == b":/") {
        Some(at) => (&argument[..at], Some(&argument[at + 1..])),
        None => (argument, None),
    }
}

/// Finds the stack that `name` stands for.
///
/// # Errors
/// Nothing has the name, or more than one thing has.
pub fn find(survey: &mut Survey<'_>, name: &[u8], base: &Base) -> Result<Target> {
    if is_spelled(name) {
        return spelled(survey, name, base);
    }
    if let Some(hex) = name.strip_prefix(b"si_") {
        let superblock = Superblock::Aufs(String::from_utf8_lossy(hex).into_owned());
        let union = survey.mounted_as(&superblock);
        if let Some(union) = union {
            return Ok(Target::of(survey.describe(union)));
        }
    }
    let is_path = name.starts_with(b"/") || name.starts_with(b"./") || name.starts_with(b"../");
    if is_path || name == b"." || name == b".." {
        let path = if name.starts_with(b"/") {
            Bytes::from(name)
        } else {
            base.0.join(name)
        };
        let target = at_path(survey, &path)?;
        // Docker itself writes a container's name with a slash before it.
        let is_one_name = path.components().count() == 1 && name.starts_with(b"/");
        return match target {
            Some(target) => Ok(target),
            None if is_one_name => named(survey, &String::from_utf8_lossy(&name[1..]))
                .map_err(|_| Error::NothingAt(path)),
            None => Err(Error::NothingAt(path)),
        };
    }
    named(survey, &String::from_utf8_lossy(name))
}

/// Finds what an engine, or a process, has a name for. Paths and spelled stacks are no names.
///
/// # Errors
/// Nothing has the name, or more than one thing has.
pub fn find_known(survey: &Survey<'_>, name: &[u8]) -> Result<Target> {
    named(survey, &String::from_utf8_lossy(name))
}

fn spelled(survey: &Survey<'_>, text: &[u8], base: &Base) -> Result<Target> {
    let (mut specs, kind) = if let Some(options) = overlay::spelled_fuse(text) {
        let options = overlay::parse_fuse(options).map_err(Error::Usage)?;
        // The program sees what the user sees who runs it.
        let kind = UnionKind::FuseOverlay(if dir::reads_trusted_attributes() {
            Namespace::Trusted
        } else {
            Namespace::User
        });
        (options.branches(), kind)
    } else if overlay::is_spelled(text) {
        let options = overlay::parse(text).map_err(Error::Usage)?;
        let kind = UnionKind::Overlay {
            rules: options.rules,
            data: options.data.len(),
        };
        (options.branches(), kind)
    } else {
        let specs = branch::parse_spelled(text).map_err(Error::Usage)?;
        (specs, UnionKind::Aufs)
    };
    for spec in &mut specs {
        if !spec.path.as_bytes().starts_with(b"/") {
            spec.path = normal(&base.0.join(spec.path.as_bytes()));
        }
        // Said at once: a directory that is not there is a slip of the pen.
        survey.host.open_and_keep(&spec.path)?;
    }
    let mut union = spelled_union(specs, kind);
    if survey.host.is_live() {
        mount_if_mounted(survey, &mut union);
    }
    Ok(Target::of(union))
}

/// Spelling out what the kernel has mounted does not make it less mounted: a branch that may be
/// written to is looked for among the mounted ones, by what it is and not by its path, and so is
/// every directory that it lies in.
pub fn mount_if_mounted(survey: &Survey<'_>, union: &mut Union) {
    let identity = |path: &Bytes| {
        survey
            .host
            .stat(path)
            .ok()
            .flatten()
            .map(|stat| stat.identity())
    };
    // As each union reaches its own: in another mount namespace a path may mean something else.
    let mut mounted = Vec::new();
    for of in &survey.mounted {
        let reach = Reach::new(survey, of);
        for branch in &of.branches {
            let stat = reach.open(branch).ok().and_then(|dir| dir.stat_self().ok());
            mounted.push((of, branch, stat.map(|stat| stat.identity())));
        }
    }
    let written = union
        .branches
        .iter()
        .filter(|branch| branch.spec.permission.is_writable());
    for branch in written {
        let Ok(real) = survey.host.resolve(&branch.spec.path) else {
            continue;
        };
        // What lies in it may be a branch, too, and is no less in use.
        let is_below = |(_, branch, _): &&(&Union, &LayeredBranch, _)| {
            let path = survey.host.resolve(&branch.spec.path);
            path.is_ok_and(|path| path != real && path.strip_prefix(&real).is_some())
        };
        let in_it = mounted
            .iter()
            .find(is_below)
            .map(|(mounted, ..)| mounted.state);
        let parts: Vec<&[u8]> = real.components().collect();
        for end in (0..=parts.len()).rev() {
            let Some(found) = identity(&Bytes::absolute(parts[..end].iter().copied())) else {
                continue;
            };
            let Some((mounted, branch, _)) = mounted.iter().find(|(.., of)| *of == Some(found))
            else {
                continue;
            };
            // The spelled stack's root is this directory of the mounted union.
            let inside = Bytes::absolute(parts[end..].iter().copied());
            union.state = mounted.state;
            union.superblock.clone_from(&mounted.superblock);
            // Through an overlay only its upper branch can be written to.
            if mounted.kind != UnionKind::Aufs && !branch.spec.permission.is_writable() {
                return;
            }
            union.mounts = mounted
                .mounts
                .iter()
                .filter_map(|mount| {
                    // The mount shows all of the stack, or a part.
                    let (path, root) = match inside.strip_prefix(&mount.root) {
                        Some(below) => (mount.path.join_path(&below), Bytes::from("/")),
                        None => (mount.path.clone(), mount.root.strip_prefix(&inside)?),
                    };
                    Some(MountPoint {
                        path,
                        root,
                        ..mount.clone()
                    })
                })
                .collect();
            return;
        }
        if let Some(state) = in_it {
            union.state = state;
            return;
        }
    }
}

/// A path without `.` and empty components; `..` is left to the file system.
fn normal(path: &Bytes) -> Bytes {
    Bytes::absolute(path.components())
}

/// A path of the host: under a union's mount point, in a layer, or a branch's directory.
fn at_path(survey: &Survey<'_>, path: &Bytes) -> Result<Option<Target>> {
    if let Some(target) = seen_at(survey, path)? {
        return Ok(Some(target));
    }
    for engine in survey.engines() {
        if let Some((layer, inside)) = engine.layer_at(path) {
            let union = engine.union_of_layer(&layer)?;
            let target = layer_target(survey, union);
            return Ok(Some(Target { inside, ..target }));
        }
    }
    let branches = survey.mounted.iter().flat_map(|union| {
        union
            .branches
            .iter()
            .enumerate()
            .filter_map(move |(index, branch)| {
                Some((union, index, path.strip_prefix(&branch.spec.path)?))
            })
    });
    let mut branches: Vec<_> = branches.collect();
    // The branch of a union of which the path is the deepest part.
    branches.sort_by_key(|(_, _, inside)| inside.components().count());
    let deepest = branches
        .first()
        .map(|(_, _, inside)| inside.components().count());
    branches.retain(|(_, _, inside)| Some(inside.components().count()) == deepest);
    if branches.len() > 1 {
        return Err(Error::Ambiguous {
            name: path.to_text().into_owned(),
            candidates: branches
                .iter()
                .map(|(union, index, _)| {
                    let superblock = union.superblock.as_ref().map(Superblock::to_string);
                    format!(
                        "{}, branch {index} of {}",
                        superblock.unwrap_or_default(),
                        union.label().to_text()
                    )
                })
                .collect(),
        });
    }
    Ok(branches.into_iter().next().map(|(union, index, inside)| {
        let mut union = survey.describe(union);
        if index == 0 {
            return Target {
                inside,
                ..Target::of(union)
            };
        }
        // What is left of the union is no union that the kernel has.
        union.branches.drain(..index);
        union.superblock = None;
        union.owner = None;
        union.mounts.clear();
        Target {
            union,
            inside,
            base: Bytes::from("/"),
            is_layer: true,
        }
    }))
}

/// The union that a path of the host shows: the mounted one that it lies under, or the one that
/// would be mounted there if its container ran.
///
/// # Errors
/// A container whose layers are not known.
pub fn seen_at(survey: &Survey<'_>, path: &Bytes) -> Result<Option<Target>> {
    if let Some(target) = under_mount(survey, path) {
        return Ok(Some(target));
    }
    for engine in survey.engines() {
        if let Some((container, inside)) = engine.mount_dir_at(path) {
            let union = container_union(survey, engine, &container)?;
            let target = Target::of(union);
            return Ok(Some(Target { inside, ..target }));
        }
    }
    Ok(None)
}

/// The union whose mount point `path` lies under, unless another file system is mounted between.
fn under_mount(survey: &Survey<'_>, path: &Bytes) -> Option<Target> {
    let inside_union = |path: &Bytes| {
        let mount = survey.table.covering(path)?;
        let superblock = mount.superblock().filter(|_| !mount.is_of_removed());
        let union = survey.mounted_as(&superblock?)?;
        let rest = path.strip_prefix(&mount.point)?;
        let inside = mount.root.join_path(&rest);
        Some(Target {
            union: survey.describe(union),
            inside,
            base: Bytes::from("/"),
            is_layer: false,
        })
    };
    inside_union(path).or_else(|| {
        // The path may lead there through links of the host.
        let parent = survey.host.resolve(&path.parent()).ok()?;
        inside_union(&parent.join(path.file_name())).filter(|_| !path.file_name().is_empty())
    })
}

fn layer_target(survey: &Survey<'_>, union: Union) -> Target {
    let is_container = union
        .branches
        .first()
        .is_some_and(|branch| branch.spec.permission.is_writable());
    if is_container
        && let Some(mounted) = union
            .owner
            .as_ref()
            .and_then(|owner| survey.mounted_of(&owner.id))
    {
        return Target::of(survey.describe(mounted));
    }
    Target {
        union,
        inside: Bytes::from("/"),
        base: Bytes::from("/"),
        is_layer: !is_container,
    }
}

fn container_union(
    survey: &Survey<'_>,
    engine: &dyn Engine,
    container: &Container,
) -> Result<Union> {
    match survey.mounted_of(&container.id) {
        Some(union) => Ok(survey.describe(union)),
        None => engine.union_of(container),
    }
}

/// What an engine's name, or a number, can stand for.
enum Candidate<'s> {
    Container(&'s dyn Engine, Box<Container>),
    Image(&'s dyn Engine, Box<Image>),
    Layer(&'s dyn Engine, LayerName),
    Process(u32),
}

impl Candidate<'_> {
    fn describe(&self) -> String {
        match self {
            Candidate::Container(_, container) => {
                format!("container {} ({})", short(&container.id), container.name)
            }
            Candidate::Image(_, image) => {
                let tags = if image.names.tags.is_empty() {
                    "untagged".to_owned()
                } else {
                    image.names.tags.join(", ")
                };
                format!("image {} ({tags})", short(&image.id))
            }
            Candidate::Layer(_, layer) => format!("layer {}", layer.id),
            Candidate::Process(id) => format!("process {id}"),
        }
    }

    fn has_whole_name(&self, name: &str) -> bool {
        let hex = name.strip_prefix("sha256:").unwrap_or(name);
        match self {
            Candidate::Container(_, container) => {
                // The digits that engines print are as good as the whole.
                let is_beginning = container.id.starts_with(hex) && hex.len() < SHORT_ID;
                !is_beginning
            }
            Candidate::Image(_, image) => !image.id.starts_with(hex) || image.id == hex,
            Candidate::Layer(_, layer) => layer.id == hex,
            Candidate::Process(_) => true,
        }
    }

    fn target(self, survey: &Survey<'_>) -> Result<Target> {
        match self {
            Candidate::Container(engine, container) => {
                Ok(Target::of(container_union(survey, engine, &container)?))
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
fn named(survey: &Survey<'_>, name: &str) -> Result<Target> {
    let candidate = candidate(survey, name)?;
    // What has the whole name was found: what is broken elsewhere does not matter. That a
    // beginning is the only one nobody knows then.
    if candidate.has_whole_name(name) {
        survey.take_problems();
    }
    candidate.target(survey)
}

fn candidate<'s>(survey: &'s Survey<'_>, name: &str) -> Result<Candidate<'s>> {
    if let Some(id) = name.strip_prefix("pid:").and_then(|id| id.parse().ok()) {
        return Ok(Candidate::Process(id));
    }
    // `podman:web` settles what two engines know. There are images that are called docker.
    let is_image =
        |(_, image): &(&dyn Engine, Image)| image.names.tags.iter().any(|tag| tag == name);
    let spelled = name.split_once(':');
    let spelled = spelled.and_then(|(engine, rest)| Some((engine::called(engine)?.name, rest)));
    let (engine, name) = match spelled {
        Some((engine, rest)) if !survey.images().iter().any(is_image) => (Some(engine), rest),
        _ => (None, name),
    };
    let is_asked = |of: &&dyn Engine| engine.is_none_or(|engine| engine == of.name());
    let mut containers = survey.containers();
    containers.retain(|(of, _)| is_asked(of));
    let container = |(engine, container): &(&'s dyn Engine, Container)| {
        Candidate::Container(*engine, Box::new(container.clone()))
    };
    if let Some(found) = containers.iter().find(|(_, of)| of.id == name) {
        return Ok(container(found));
    }
    if let Some(found) = of_pod(name, &containers)? {
        return Ok(found);
    }
    let of_name = containers.iter().filter(|(_, of)| of.name == name);
    if let Some(found) = only(name, of_name.map(container).collect())? {
        return Ok(found);
    }
    let hex = name.strip_prefix("sha256:").unwrap_or(name);
    // What people type is the twelve digits that engines print. Nothing else has them by chance.
    if hex.len() >= SHORT_ID && hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        let mut begin = containers.iter().filter(|(_, of)| of.id.starts_with(hex));
        if let (Some(found), None) = (begin.next(), begin.next()) {
            return Ok(container(found));
        }
    }
    let mut images = survey.images();
    images.retain(|(of, _)| is_asked(of));
    // A migrated host has the same image under two drivers.
    let in_use: Vec<String> = survey
        .engines_here()
        .map(|engine| engine.driver(&engine.containers()))
        .collect();
    images.sort_by_key(|(_, image)| (image.id.clone(), !in_use.contains(&image.driver)));
    images.dedup_by(|(_, a), (_, b)| a.id == b.id);
    let is_tag = |(_, image): &&(&dyn Engine, Image)| {
        image.names.digests.iter().any(|digest| digest == name)
            || image
                .names
                .tags
                .iter()
                .any(|tag| tag == name || tag.strip_suffix(":latest") == Some(name))
    };
    if let Some((engine, image)) = images
        .iter()
        .find(|(_, image)| image.id == hex)
        .or_else(|| images.iter().find(is_tag))
    {
        return Ok(Candidate::Image(*engine, Box::new(image.clone())));
    }
    if hex.is_empty()
        || !hex
            .bytes()
            .all(|byte| byte.is_ascii_hexdigit() || byte == b'-' || hex.ends_with("-init"))
    {
        return Err(Error::NoSuchTarget(name.to_owned()));
    }
    let mut layers = survey.layers();
    layers.retain(|(of, _)| is_asked(of));
    // The number of a snapshot may be a process's, too.
    let is_number = hex.len() < SHORT_ID && hex.bytes().all(|byte| byte.is_ascii_digit());
    if let Some((engine, layer)) = layers.iter().find(|(_, layer)| layer.id == hex)
        && !is_number
    {
        return Ok(Candidate::Layer(*engine, layer.clone()));
    }
    let mut found: Vec<Candidate> = Vec::new();
    let is_prefix = |id: &str| id.starts_with(hex);
    found.extend(
        containers
            .into_iter()
            .filter(|(_, container)| is_prefix(&container.id))
            .map(|(engine, container)| Candidate::Container(engine, Box::new(container))),
    );
    found.extend(
        images
            .into_iter()
            .filter(|(_, image)| is_prefix(&image.id))
            .map(|(engine, image)| Candidate::Image(engine, Box::new(image))),
    );
    for (engine, layer) in layers {
        // In the older layout an image, a container and their layers share one name.
        let is_known = found.iter().any(|candidate| match candidate {
            Candidate::Container(_, container) => {
                layer.id.trim_end_matches("-init") == container.id
            }
            Candidate::Image(_, image) => image.id == layer.id,
            Candidate::Layer(..) | Candidate::Process(_) => false,
        });
        let is_short = layer.id.len() < SHORT_ID;
        let is_named = layer.id == hex
            || (!is_short && is_prefix(&layer.id))
            || layer.aliases.iter().any(|alias| is_prefix(alias));
        // A container's init layer shares its prefix: the shorter one is meant.
        let is_init_of = layer
            .id
            .strip_suffix("-init")
            .is_some_and(|of| of.starts_with(hex));
        if is_named && !is_known && !is_init_of {
            found.push(Candidate::Layer(engine, layer));
        }
    }
    let process = name.parse().ok().filter(|_| engine.is_none());
    let process = process.filter(|id| is_process(survey, *id));
    found.extend(process.map(Candidate::Process));
    only(name, found)?.ok_or_else(|| Error::NoSuchTarget(name.to_owned()))
}

/// The fewest digits of an id that engines print. What is shorter is a number.
const SHORT_ID: usize = 12;

/// The container that Kubernetes calls `POD/CONTAINER`: of those that were started one after
/// another, the one that runs, or else the newest.
fn of_pod<'s>(
    name: &str,
    containers: &[(&'s dyn Engine, Container)],
) -> Result<Option<Candidate<'s>>> {
    let Some((pod, own)) = name.rsplit_once('/') else {
        return Ok(None);
    };
    let is_it = |(_, container): &&(&'s dyn Engine, Container)| {
        container.pod.as_ref().is_some_and(|of| {
            let namespace = of.namespace.as_deref().unwrap_or_default();
            let is_pod = of.name == pod || pod == format!("{namespace}/{}", of.name);
            is_pod && of.container.as_deref() == Some(own)
        })
    };
    let mut found: Vec<_> = containers.iter().filter(is_it).collect();
    found.sort_by_key(|(_, container)| !container.state.running);
    let mut pods: Vec<(&str, Option<&String>)> = Vec::new();
    found.retain(|(engine, container)| {
        let pod = container
            .pod
            .as_ref()
            .and_then(|pod| pod.namespace.as_ref());
        let is_new = !pods.contains(&(engine.name(), pod));
        pods.push((engine.name(), pod));
        is_new
    });
    let candidates = found
        .into_iter()
        .map(|(engine, container)| Candidate::Container(*engine, Box::new(container.clone())));
    only(name, candidates.collect())
}

/// The one thing that has a name.
///
/// # Errors
/// There are several.
fn only<'s>(name: &str, mut found: Vec<Candidate<'s>>) -> Result<Option<Candidate<'s>>> {
    match found.len() {
        0 | 1 => Ok(found.pop()),
        _ => Err(Error::Ambiguous {
            name: name.to_owned(),
            candidates: found.iter().map(Candidate::describe).collect(),
        }),
    }
}

fn is_process(survey: &Survey<'_>, id: u32) -> bool {
    let directory = crate::engine::namespace::directory(id);
    survey
        .host
        .stat(&directory)
        .is_ok_and(|stat| stat.is_some())
}

/// The unions that are meant when no TARGET is named.
///
/// # Errors
/// There are none.
pub fn all_mounted(survey: &mut Survey<'_>) -> Result<Vec<Target>> {
    survey.look_everywhere();
    let targets: Vec<Target> = survey
        .mounted
        .iter()
        .filter(|union| union.state != MountState::NotMounted)
        .map(|union| Target::of(survey.describe(union)))
        .collect();
    if targets.is_empty() {
        Err(Error::NothingMounted)
    } else {
        Ok(targets)
    }
}

/// Names for completion: containers' and images', read from disk.
pub fn names(survey: &Survey<'_>) -> Vec<(String, String)> {
    let containers = survey.containers().into_iter().map(|(_, container)| {
        (
            container.name,
            format!("container {}", escape(container.image.as_bytes())),
        )
    });
    let images = survey.images().into_iter().flat_map(|(_, image)| {
        image
            .names
            .tags
            .into_iter()
            .map(|tag| (tag, "image".to_owned()))
            .collect::<Vec<_>>()
    });
    containers.chain(images).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_split_where_docker_cp_splits_them() {
        for (argument, target, path) in [
            ("web:/etc/passwd", "web", Some("/etc/passwd")),
            ("web", "web", None),
            ("/mnt/a:b:/etc", "/mnt/a:b", Some("/etc")),
            ("name:tag:/x", "name:tag", Some("/x")),
            ("name:tag", "name:tag", None),
            ("br:/a=rw:/b", "br:/a=rw:/b", None),
            ("dirs=./a:./b", "dirs=./a:./b", None),
            ("/etc/passwd", "/etc/passwd", None),
        ] {
            let split = split(argument.as_bytes());
            assert_eq!(
                split,
                (target.as_bytes(), path.map(str::as_bytes)),
                "{argument}"
            );
        }
    }
}
