//! A stack that is spelled out, branch by branch.

use super::{Base, Target, typed_path};
use crate::branch::{self, BranchSpec};
use crate::bytes::Bytes;
use crate::dir;
use crate::engine::reach::Reach;
use crate::engine::{LayeredBranch, MountPoint, Survey, Union, UnionKind, spelled_union};
use crate::error::{Error, Result};
use crate::overlay::{self, Namespace};

/// Whether an argument spells a stack rather than names one.
pub fn is_spelled(argument: &[u8]) -> bool {
    branch::is_spelled(argument) || overlay::is_spelled(argument)
}

/// Whether a text spells a stack of which directories start at the working directory.
pub fn spells_relative(text: &[u8]) -> bool {
    let is_relative = |spec: &BranchSpec| !spec.path.as_bytes().starts_with(b"/");
    parse(text).is_ok_and(|(specs, _)| specs.iter().any(is_relative))
}

/// The branches that a text spells, and who merges them.
fn parse(text: &[u8]) -> Result<(Vec<BranchSpec>, UnionKind)> {
    if let Some(options) = overlay::spelled_fuse(text) {
        let options = overlay::parse_fuse_spelled(options).map_err(Error::Usage)?;
        // The program sees what the user sees who runs it.
        let kind = UnionKind::FuseOverlay(if dir::reads_trusted_attributes() {
            Namespace::Trusted
        } else {
            Namespace::User
        });
        return Ok((options.branches(), kind));
    }
    if overlay::is_spelled(text) {
        let options = overlay::parse(text).map_err(Error::Usage)?;
        let kind = UnionKind::Overlay {
            rules: options.rules,
            data: options.data.len(),
        };
        return Ok((options.branches(), kind));
    }
    let specs = branch::parse_spelled(text).map_err(Error::Usage)?;
    Ok((specs, UnionKind::Aufs))
}

/// The stack that a text spells.
///
/// # Errors
/// The text spells none, or a directory is not there.
pub(super) fn spelled(survey: &Survey<'_>, text: &[u8], base: &Base) -> Result<Target> {
    let (mut specs, kind) = parse(text)?;
    for spec in &mut specs {
        let path = typed_path(survey, spec.path.as_bytes(), base);
        if path != spec.path {
            spec.path = normal(&path);
        }
        // Said at once: a directory that is not there is a slip of the pen.
        survey.host.open_and_keep(&spec.path)?;
    }
    let mut union = spelled_union(specs, kind);
    union.spelled = Some(Bytes::from(text));
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
        let reach = Reach::new(survey.host, &survey.table, of);
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
