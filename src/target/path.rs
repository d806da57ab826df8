//! A path of the host: under a union's mount point, in a layer, or a branch's directory.

use super::{Target, find_known, layer_target};
use crate::bytes::Bytes;
use crate::engine::mount_table::Superblock;
use crate::engine::{Survey, Union};
use crate::error::{Error, Result};
use crate::union::Follow;

/// The stack that a path of the host is in, topmost first: the union that it shows, the layer that
/// it lies in, the mounted branch that it lies in.
///
/// # Errors
/// A container or a layer whose stack is not known; a directory that is a branch of several unions.
pub(super) fn at_path(survey: &Survey<'_>, path: &Bytes) -> Result<Option<Target>> {
    if let Some(target) = seen_at(survey, path)? {
        return Ok(Some(target));
    }
    if let Some(target) = in_layer(survey, path)? {
        return Ok(Some(target));
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

/// The union that is mounted at a path, or above it, in no mount namespace but others.
///
/// # Errors
/// There are several.
pub(super) fn mounted_elsewhere(survey: &Survey<'_>, path: &Bytes) -> Result<Option<Target>> {
    let mut found: Vec<(&Union, Bytes)> = Vec::new();
    for union in &survey.mounted {
        let inside = union.mounts.iter().find_map(|mount| {
            // What a container has as its root is no path of anybody else's.
            let is_place = mount.process.is_some() && mount.path.as_bytes() != b"/";
            let rest = path.strip_prefix(&mount.path).filter(|_| is_place)?;
            Some(mount.root.join_path(&rest))
        });
        found.extend(inside.map(|inside| (union, inside)));
    }
    if found.len() > 1 {
        let superblocks = found.iter().filter_map(|(of, _)| of.superblock.as_ref());
        return Err(Error::Ambiguous {
            name: path.to_text().into_owned(),
            candidates: superblocks.map(Superblock::to_string).collect(),
        });
    }
    Ok(found.pop().map(|(union, inside)| Target {
        inside,
        ..Target::of(survey.describe(union))
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
            let union = survey.union_of(engine, &container)?;
            let target = Target::of(union);
            return Ok(Some(Target { inside, ..target }));
        }
    }
    Ok(None)
}

/// The union that a path of the host is a path of, as a person has it from somewhere: where the union
/// shows it, below the root of one of its processes, or in a layer where the engine keeps that.
///
/// # Errors
/// A container or a layer whose stack is not known.
pub fn pasted(survey: &Survey<'_>, path: &Bytes) -> Result<Option<Target>> {
    if let Some(target) = seen_at(survey, path)? {
        return Ok(Some(target));
    }
    if let Some((process, inside)) = in_root_of(path)
        && let Ok(target) = find_known(survey, &process)
    {
        let inside = target.path(&inside);
        return Ok(Some(Target { inside, ..target }));
    }
    in_layer(survey, path)
}

/// The layer of an engine in which a path of the host lies.
fn in_layer(survey: &Survey<'_>, path: &Bytes) -> Result<Option<Target>> {
    for engine in survey.engines() {
        if let Some((layer, inside)) = engine.layer_at(path) {
            let union = engine.union_of_layer(&layer)?;
            let target = layer_target(survey, union);
            return Ok(Some(Target { inside, ..target }));
        }
    }
    Ok(None)
}

/// The number of a process, and the path below its root: `/proc/PID/root/...`.
fn in_root_of(path: &Bytes) -> Option<(Vec<u8>, Bytes)> {
    let mut parts = path.components();
    let (proc, process, root) = (parts.next()?, parts.next()?, parts.next()?);
    let is_number = process.iter().all(u8::is_ascii_digit);
    let is_it = proc == b"proc" && root == b"root" && is_number;
    is_it.then(|| (process.to_vec(), Bytes::absolute(parts)))
}

/// The union of a container below whose mount point something lies on the disk, and not in the
/// union: it was written while nothing was mounted there.
///
/// # Errors
/// A container whose layers are not known; what cannot be looked at.
pub fn beneath_mount(survey: &Survey<'_>, path: &Bytes) -> Result<Option<Union>> {
    if under_mount(survey, path).is_some() {
        return Ok(None);
    }
    for engine in survey.engines() {
        let below = engine.mount_dir_at(path);
        if let Some((container, _)) = below.filter(|(_, inside)| inside.as_bytes() != b"/") {
            let is_there = survey.host.lookup(path.as_bytes(), Follow::NotLast)?;
            let is_there = is_there.entry.kind().is_some();
            return is_there
                .then(|| survey.union_of(engine, &container))
                .transpose();
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
