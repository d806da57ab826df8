//! What a person calls a stack: a container, an image, a mount point, `si_HEX`, a layer, or the
//! stack itself, spelled `br:DIR=PERM:DIR=PERM...` or `lowerdir=DIR:DIR,upperdir=DIR`.

use crate::branch;
use crate::bytes::{Bytes, escape};
use crate::engine::docker::{Container, Image, short};
use crate::engine::{MountPoint, MountState, Survey, Union, UnionKind, spelled_union};
use crate::error::{Error, Result};
use crate::overlay;

/// A stack that a person named.
#[derive(Debug, Clone)]
pub struct Target {
    pub union: Union,
    /// Where in the union the name led: a path under a mount point; else `/`.
    pub inside: Bytes,
    /// The name stands for a read-only layer or image, so that its topmost branch is what
    /// "changes" and "whiteouts" are about although nothing can be written there.
    pub is_layer: bool,
}

impl Target {
    fn of(union: Union) -> Target {
        Target {
            union,
            inside: Bytes::from("/"),
            is_layer: false,
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
pub fn find(survey: &Survey<'_>, name: &[u8], base: &Base) -> Result<Target> {
    if is_spelled(name) {
        return spelled(survey, name, base);
    }
    if let Some(hex) = name.strip_prefix(b"si_") {
        let union = survey
            .mounted
            .iter()
            .find(|union| union.si.as_ref().is_some_and(|si| si.as_bytes() == hex));
        if let Some(union) = union {
            return Ok(Target::of(union.clone()));
        }
    }
    let is_path = name.starts_with(b"/") || name.starts_with(b"./") || name.starts_with(b"../");
    if is_path || name == b"." || name == b".." {
        let path = match name.starts_with(b"/") {
            true => Bytes::from(name),
            false => base.0.join(name),
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

fn spelled(survey: &Survey<'_>, text: &[u8], base: &Base) -> Result<Target> {
    let (mut specs, kind) = match overlay::is_spelled(text) {
        true => {
            let options = overlay::parse(text).map_err(Error::Usage)?;
            let kind = UnionKind::Overlay {
                rules: options.rules,
                data: options.data.len(),
            };
            (options.branches(), kind)
        }
        false => (
            branch::parse_spelled(text).map_err(Error::Usage)?,
            UnionKind::Aufs,
        ),
    };
    for spec in &mut specs {
        if !spec.path.as_bytes().starts_with(b"/") {
            spec.path = normal(&base.0.join(spec.path.as_bytes()));
        }
        // Said at once: a directory that is not there is a slip of the pen.
        survey.host.open_dir(&spec.path)?;
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
fn mount_if_mounted(survey: &Survey<'_>, union: &mut Union) {
    let identity = |path: &Bytes| {
        survey
            .host
            .stat(path)
            .ok()
            .flatten()
            .map(|stat| (stat.dev, stat.ino))
    };
    let mounted: Vec<(&Union, Option<(u64, u64)>)> = survey
        .mounted
        .iter()
        .flat_map(|of| {
            of.branches
                .iter()
                .map(move |branch| (of, &branch.spec.path))
        })
        .map(|(of, path)| (of, identity(path)))
        .collect();
    let written = union
        .branches
        .iter()
        .filter(|branch| branch.spec.permission.is_writable());
    for branch in written {
        let Ok(real) = survey.host.resolve(&branch.spec.path) else {
            continue;
        };
        let parts: Vec<&[u8]> = real.components().collect();
        for end in (0..=parts.len()).rev() {
            let Some(found) = identity(&Bytes::absolute(parts[..end].iter().copied())) else {
                continue;
            };
            let Some((mounted, _)) = mounted.iter().find(|(_, of)| *of == Some(found)) else {
                continue;
            };
            // The spelled stack's root is this directory of the mounted union.
            let inside = Bytes::absolute(parts[end..].iter().copied());
            union.state = mounted.state;
            union.si.clone_from(&mounted.si);
            union.mounts = mounted
                .mounts
                .iter()
                .filter_map(|mount| {
                    let below = inside.strip_prefix(&mount.root)?;
                    let path = mount.path.join_path(&below);
                    Some(MountPoint {
                        path,
                        root: Bytes::from("/"),
                        ..mount.clone()
                    })
                })
                .collect();
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
    let docker = &survey.docker;
    if let Some((id, inside)) = docker.layer_at(path) {
        let union = docker.union_of_layer(&id)?;
        let target = layer_target(survey, union);
        return Ok(Some(Target { inside, ..target }));
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
                    let si = union.si.as_deref().unwrap_or_default();
                    format!("si_{si}, branch {index} of {}", union.label().to_text())
                })
                .collect(),
        });
    }
    Ok(branches.into_iter().next().map(|(union, index, inside)| {
        let mut union = union.clone();
        if index == 0 {
            return Target {
                inside,
                ..Target::of(union)
            };
        }
        // What is left of the union is no union that the kernel has.
        union.branches.drain(..index);
        union.si = None;
        union.owner = None;
        union.mounts.clear();
        Target {
            union,
            inside,
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
    match survey.docker.mount_dir_at(path) {
        Some((container, inside)) => {
            let union = container_union(survey, &container)?;
            Ok(Some(Target {
                inside,
                ..Target::of(union)
            }))
        }
        None => Ok(None),
    }
}

/// The union whose mount point `path` lies under, unless another file system is mounted between.
fn under_mount(survey: &Survey<'_>, path: &Bytes) -> Option<Target> {
    let inside_union = |path: &Bytes| {
        let mount = survey.table.covering(path)?;
        let si = mount.si().filter(|_| mount.fs_type == b"aufs")?;
        let union = survey
            .mounted
            .iter()
            .find(|union| union.si.as_ref() == Some(&si))?;
        let rest = path.strip_prefix(&mount.point)?;
        let inside = mount.root.join_path(&rest);
        Some(Target {
            union: union.clone(),
            inside,
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
        return Target::of(mounted.clone());
    }
    Target {
        union,
        inside: Bytes::from("/"),
        is_layer: !is_container,
    }
}

fn container_union(survey: &Survey<'_>, container: &Container) -> Result<Union> {
    match survey.mounted_of(&container.id) {
        Some(union) => Ok(union.clone()),
        None => survey.docker.union_of(container),
    }
}

/// What an engine's name can stand for.
enum Candidate {
    Container(Box<Container>),
    Image(Box<Image>),
    Layer(String),
}

impl Candidate {
    fn describe(&self) -> String {
        match self {
            Candidate::Container(container) => {
                format!("container {} ({})", short(&container.id), container.name)
            }
            Candidate::Image(image) => {
                let tags = if image.names.tags.is_empty() {
                    "untagged".to_owned()
                } else {
                    image.names.tags.join(", ")
                };
                format!("image {} ({tags})", short(&image.id))
            }
            Candidate::Layer(id) => format!("layer {id}"),
        }
    }

    fn target(self, survey: &Survey<'_>) -> Result<Target> {
        match self {
            Candidate::Container(container) => Ok(Target::of(container_union(survey, &container)?)),
            Candidate::Image(image) => {
                let union = survey.docker.union_of_image(&image)?;
                Ok(Target {
                    union,
                    inside: Bytes::from("/"),
                    is_layer: true,
                })
            }
            Candidate::Layer(id) => {
                let union = survey.docker.union_of_layer(&id)?;
                Ok(layer_target(survey, union))
            }
        }
    }
}

/// Docker's order: full id, name, then unique prefix; containers before images before layers.
fn named(survey: &Survey<'_>, name: &str) -> Result<Target> {
    let candidate = candidate(survey, name)?;
    // It was found: what is broken elsewhere in the engine's state does not matter.
    survey.docker.take_problems();
    candidate.target(survey)
}

fn candidate(survey: &Survey<'_>, name: &str) -> Result<Candidate> {
    let docker = &survey.docker;
    let containers = docker.containers();
    if let Some(container) = containers
        .iter()
        .find(|container| container.id == name)
        .or_else(|| containers.iter().find(|container| container.name == name))
    {
        return Ok(Candidate::Container(Box::new(container.clone())));
    }
    let hex = name.strip_prefix("sha256:").unwrap_or(name);
    let mut images = docker.images();
    // A migrated host has the same image under two drivers.
    images.sort_by_key(|image| (image.id.clone(), image.driver != "aufs"));
    images.dedup_by(|a, b| a.id == b.id);
    let is_tag = |image: &&Image| {
        image.names.digests.iter().any(|digest| digest == name)
            || image
                .names
                .tags
                .iter()
                .any(|tag| tag == name || tag.strip_suffix(":latest") == Some(name))
    };
    if let Some(image) = images
        .iter()
        .find(|image| image.id == hex)
        .or_else(|| images.iter().find(is_tag))
    {
        return Ok(Candidate::Image(Box::new(image.clone())));
    }
    if hex.is_empty()
        || !hex
            .bytes()
            .all(|byte| byte.is_ascii_hexdigit() || byte == b'-' || hex.ends_with("-init"))
    {
        return Err(Error::NoSuchTarget(name.to_owned()));
    }
    let layers = docker.layer_ids();
    let database = docker.layer_database();
    if let Some(layer) = layers.iter().find(|id| *id == hex) {
        return Ok(Candidate::Layer(layer.clone()));
    }
    let mut found: Vec<Candidate> = Vec::new();
    let is_prefix = |id: &str| id.starts_with(hex);
    found.extend(
        containers
            .into_iter()
            .filter(|container| is_prefix(&container.id))
            .map(|container| Candidate::Container(Box::new(container))),
    );
    found.extend(
        images
            .into_iter()
            .filter(|image| is_prefix(&image.id))
            .map(|image| Candidate::Image(Box::new(image))),
    );
    for id in layers {
        // In the older layout an image, a container and their layers share one name.
        let is_known = found.iter().any(|candidate| match candidate {
            Candidate::Container(container) => id.trim_end_matches("-init") == container.id,
            Candidate::Image(image) => image.id == id,
            Candidate::Layer(_) => false,
        });
        let ids = database.get(&id);
        let is_named = is_prefix(&id)
            || ids.is_some_and(|(chain, diff)| {
                is_prefix(chain) || is_prefix(diff.trim_start_matches("sha256:"))
            });
        // A container's init layer shares its prefix: the shorter one is meant.
        let is_init_of = id
            .strip_suffix("-init")
            .is_some_and(|of| of.starts_with(hex));
        if is_named && !is_known && !is_init_of {
            found.push(Candidate::Layer(id));
        }
    }
    match found.len() {
        0 => Err(Error::NoSuchTarget(name.to_owned())),
        1 => Ok(found.remove(0)),
        _ => Err(Error::Ambiguous {
            name: name.to_owned(),
            candidates: found.iter().map(Candidate::describe).collect(),
        }),
    }
}

/// The unions that are meant when no TARGET is named.
///
/// # Errors
/// There are none.
pub fn all_mounted(survey: &Survey<'_>) -> Result<Vec<Target>> {
    let targets: Vec<Target> = survey
        .mounted
        .iter()
        .filter(|union| union.state != MountState::NotMounted)
        .cloned()
        .map(Target::of)
        .collect();
    if targets.is_empty() {
        Err(Error::NothingMounted)
    } else {
        Ok(targets)
    }
}

/// Names for completion: containers' and images', read from disk.
pub fn names(survey: &Survey<'_>) -> Vec<(String, String)> {
    let containers = survey.docker.containers().into_iter().map(|container| {
        (
            container.name,
            format!("container {}", escape(container.image.as_bytes())),
        )
    });
    let images = survey.docker.images().into_iter().flat_map(|image| {
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
