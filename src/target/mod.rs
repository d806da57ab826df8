//! What a person calls a stack: a container, an image, a mount point, `si_HEX`, a layer, or the
//! stack itself, spelled `br:DIR=PERM:DIR=PERM...`, `lowerdir=DIR:DIR,upperdir=DIR`, or that with
//! `fuse-overlayfs:` before it; and of each of these what it would be without the branches above
//! one: `TARGET@N`; of an image for several platforms, the one for `IMAGE@OS/ARCHITECTURE`.

mod named;
mod path;
mod platform;
mod spelled;
mod view;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::bytes::{Bytes, escape, shell_quote};
use crate::engine::mount_table::Superblock;
use crate::engine::{OwnerKind, Survey, Union};
use crate::error::{Error, Result};
use named::named;
use path::{at_path, mounted_elsewhere};
pub use path::{beneath_mount, pasted, seen_at};
use spelled::spelled;
pub use spelled::{is_spelled, mount_if_mounted, spells_relative};

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

    /// Whether a path is the one that is meant, or lies below it.
    pub fn has(&self, path: &Bytes) -> bool {
        path.lies_in(&self.inside)
    }

    /// Whether a path leads to the one that is meant: what hides it hides all of that.
    pub fn is_below(&self, path: &Bytes) -> bool {
        self.inside.lies_in(path)
    }

    /// What is meant of a tree at a path: all of it, or the part that the target is inside.
    pub fn part_of(&self, path: Bytes) -> Option<Bytes> {
        if self.has(&path) {
            Some(path)
        } else {
            self.is_below(&path).then(|| self.inside.clone())
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
    let found = match view::split(name) {
        Some((of, from)) => view::find(survey, name, (of, from), base),
        None => find_whole(survey, name, base),
    };
    match found {
        // What is alike is looked for once, and only for a person's own word.
        Err(Error::NoSuchTarget { name: of, .. }) if name.starts_with(of.as_bytes()) => {
            if let (whole, Some(_)) = split(name) {
                let target = find(survey, whole, base)?;
                return Err(is_a_path(survey, name, &target));
            }
            // An image's name may have a tag; a container's has nothing behind it but a path.
            if let Some((target, error)) = without_slash(survey, name, base)
                && target.union.owner.as_ref().map(|of| of.kind) == Some(OwnerKind::Container)
            {
                return Err(error);
            }
            // With a namespace that is not there nothing is known by any name.
            if let Some(error) = survey.no_namespace() {
                return Err(error);
            }
            let mut error = named::no_such(survey, &of);
            // As for docker, a bare word is no path; but that may be what was meant.
            let path = typed_path(survey, of.as_bytes(), base);
            if let Error::NoSuchTarget { similar, .. } = &mut error
                && !of.contains('/')
                && let Ok(Some(_)) = anywhere(survey, &path)
            {
                similar.insert(0, format!("./{of}"));
            }
            Err(error)
        }
        found => found,
    }
}

/// That a path of a union was named where a whole one is meant.
fn is_a_path(survey: &Survey<'_>, typed: &[u8], target: &Target) -> Error {
    let label = survey.label(&target.union);
    Error::Refused {
        what: format!(
            "{} is a path, and all of {} is taken",
            escape(typed),
            escape(label.as_bytes())
        ),
        hint: format!("name {} alone", shell_quote(&label)),
    }
}

/// The same, of a name that is none of a view.
fn find_whole(survey: &mut Survey<'_>, name: &[u8], base: &Base) -> Result<Target> {
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
        let path = typed_path(survey, name, base);
        let target = anywhere(survey, &path)?;
        // Docker itself writes a container's name with a slash before it.
        let is_one_name = path.components().count() == 1 && name.starts_with(b"/");
        return match target {
            Some(target) => Ok(target),
            None if is_one_name => named(survey, &String::from_utf8_lossy(&name[1..]))
                .map_err(|_| Error::NothingAt(path)),
            None => Err(Error::NothingAt(path)),
        };
    }
    match named(survey, &String::from_utf8_lossy(name)) {
        Err(error @ Error::NoSuchTarget { .. }) if name.contains(&b'/') => {
            // With the root before it a path need not begin with a slash.
            let path = survey.host.inside(Path::new(OsStr::from_bytes(name)));
            let target = path.map(|path| anywhere(survey, &path)).transpose()?;
            target.flatten().ok_or(error)
        }
        found => found,
    }
}

/// A path of the host, from one that was typed without a TARGET.
///
/// # Errors
/// It is a TARGET alone, or one and a path whose slash is missing.
pub fn path_alone(survey: &mut Survey<'_>, typed: &[u8], base: &Base) -> Result<Bytes> {
    if is_spelled(typed) || !typed.contains(&b'/') {
        return Err(no_path(typed));
    }
    match without_slash(survey, typed, base) {
        Some((_, error)) => Err(error),
        None => Ok(typed_path(survey, typed, base)),
    }
}

/// A path of the host, from one as it was typed. A relative one starts at `base`. Completion, `du`
/// and `find` give paths that have the root before them which was given: where the host has no such
/// path itself, they are what is meant.
pub fn typed_path(survey: &Survey<'_>, typed: &[u8], base: &Base) -> Bytes {
    let path = if typed.starts_with(b"/") {
        Bytes::from(typed)
    } else {
        base.0.join(typed)
    };
    let Some(inside) = survey.host.inside(Path::new(OsStr::from_bytes(typed))) else {
        return path;
    };
    match survey.host.stat(&path) {
        Ok(None) => inside,
        Ok(Some(_)) | Err(_) => path,
    }
}

/// What is at a path of the host: in our own mount namespace, or else in another.
fn anywhere(survey: &mut Survey<'_>, path: &Bytes) -> Result<Option<Target>> {
    if let Some(target) = at_path(survey, path)? {
        return Ok(Some(target));
    }
    survey.look_everywhere();
    match at_path(survey, path)? {
        Some(target) => Ok(Some(target)),
        None => mounted_elsewhere(survey, path),
    }
}

/// Finds what an engine, or a process, has a name for. Paths and spelled stacks are no names.
///
/// # Errors
/// Nothing has the name, or more than one thing has.
pub fn find_known(survey: &Survey<'_>, name: &[u8]) -> Result<Target> {
    named(survey, &String::from_utf8_lossy(name))
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
            .and_then(|owner| survey.mounted_by(owner))
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

/// Which unions are meant where no TARGET is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Every container's, and what is mounted and no container's.
    All,
    /// Those of containers that run.
    Running,
    /// What is mounted.
    Mounted,
}

/// The unions that were meant, and what of them there is no answer about.
#[derive(Debug)]
pub struct Everything {
    /// Containers' as their engines list them, then those that are nobody's.
    pub targets: Vec<Target>,
    /// How many of them are containers'.
    pub containers: usize,
    /// Why there is no answer about a container.
    pub unread: Vec<Error>,
    /// How many containers were left out since nothing tells whether they run.
    pub unknown: usize,
}

/// The unions that are meant when no TARGET is named.
pub fn everything(survey: &mut Survey<'_>, scope: Scope) -> Everything {
    survey.look_everywhere();
    let survey = &*survey;
    let mut found = Everything {
        targets: Vec::new(),
        containers: 0,
        unread: Vec::new(),
        unknown: 0,
    };
    for (engine, container) in survey.containers() {
        let is_meant = match scope {
            Scope::All => true,
            Scope::Running => container.state.running,
            Scope::Mounted => survey.mounted_of(engine, &container).is_some(),
        };
        if scope == Scope::Running && container.state.is_unknown {
            found.unknown += 1;
        }
        if !is_meant {
            continue;
        }
        found.containers += 1;
        match survey.union_of(engine, &container) {
            Ok(union) => found.targets.push(Target::of(union)),
            Err(error) => {
                let label = survey.labels().of_container(engine, &container).cloned();
                let label = label
                    .unwrap_or_else(|| Bytes::from(format!("{}:{}", engine.name(), container.id)));
                found.unread.push(error.of(&label));
            }
        }
    }
    if scope != Scope::Running {
        let is_containers = |union: &&Union| {
            let owner = union.owner.as_ref();
            owner.is_some_and(|owner| owner.kind == OwnerKind::Container)
        };
        let mounted = survey.mounted.iter().filter(|union| !is_containers(union));
        let others = mounted.filter(|union| union.is_mounted());
        found
            .targets
            .extend(others.map(|union| Target::of(survey.describe(union))));
    }
    found
}

/// That there is no union to ask; where a store may not be read, that nobody knows.
pub fn nothing_mounted(survey: &Survey<'_>) -> Error {
    survey
        .unknown("a container")
        .unwrap_or(Error::NothingMounted)
}

/// Every image's union, each image once; and why there is none of some.
pub fn all_images(survey: &Survey<'_>) -> (Vec<Target>, Vec<Error>) {
    let mut images = survey.images();
    named::prefer_drivers_in_use(survey, &mut images);
    let (mut targets, mut problems) = (Vec::new(), Vec::new());
    for (engine, image) in images {
        match engine.union_of_image(&image) {
            Ok(union) => targets.push(Target {
                is_layer: true,
                ..Target::of(union)
            }),
            Err(error) => {
                let label = survey.labels().of_image(engine, &image).cloned();
                let label = label.unwrap_or_else(|| {
                    Bytes::from(format!("{}:sha256:{}", engine.name(), image.id))
                });
                problems.push(error.of(&label));
            }
        }
    }
    (targets, problems)
}

/// What has the name before a colon, and that the slash is missing with which the path behind it begins:
/// docker's own `cp` takes that.
fn without_slash(survey: &mut Survey<'_>, typed: &[u8], base: &Base) -> Option<(Target, Error)> {
    let colons = typed.iter().enumerate().rev();
    let colons = colons.filter(|(_, byte)| **byte == b':');
    for (at, _) in colons {
        let (target, path) = (&typed[..at], &typed[at + 1..]);
        let may_be = !target.is_empty() && !path.is_empty() && !path.starts_with(b"/");
        if may_be && let Ok(found) = find_whole(survey, target, base) {
            let (target, path) = (escape(target), escape(path));
            let what = format!("{target}:{path}: write {target}:/{path}");
            return Some((found, Error::Usage(what)));
        }
    }
    None
}

/// That a word is no path of a union: a name alone, most likely.
fn no_path(typed: &[u8]) -> Error {
    let name = escape(typed);
    Error::Usage(format!(
        "{name}: is no absolute path; write {name}:/PATH, or --in {name} PATH"
    ))
}

/// What can be named, for completion.
pub struct Named {
    /// What it is called, shortest first: alone, and as answers label it.
    pub names: Vec<String>,
    pub what: String,
}

/// Containers and images, read from disk.
pub fn names(survey: &Survey<'_>) -> Vec<Named> {
    let labels = survey.labels();
    let label = |label: Option<&Bytes>| label.map(|label| label.to_text().into_owned());
    let containers = survey.containers().into_iter().map(|(engine, container)| {
        let label = label(labels.of_container(engine, &container));
        Named {
            what: format!("container {}", escape(container.image.as_bytes())),
            names: std::iter::once(container.name).chain(label).collect(),
        }
    });
    let images = survey.images().into_iter().flat_map(|(engine, image)| {
        let with_engine = |tag: &String| format!("{}:{tag}", engine.name());
        let tags = image.names.tags.into_iter();
        tags.map(move |tag| Named {
            names: vec![tag.clone(), with_engine(&tag)],
            what: "image".to_owned(),
        })
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
