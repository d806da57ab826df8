//! What is in use, whatever an engine's records say of it: one place decides.
//!
//! An engine can have lost a record and still stand on the layer. So a directory counts as used
//! that is a branch of a union mounted in any mount namespace, is shown by another mount or has one in
//! it; that the `lower` list, the parent record or another record of something that is itself used
//! names; or that stands below an active snapshot. What is to be shown does not limit what is known: all
//! namespaces and all data directories of the host are asked.

use std::collections::{HashMap, HashSet};

use super::interface::{Engine, FoundEngine};
use super::kept;
use super::kernel;
use super::mount_table::{Mount, MountTable};
use super::namespace;
use super::survey::Survey;
use super::union::{MountPoint, Union};
use super::usage::{LayerUse, Need, UseKind};
use crate::bytes::Bytes;
use crate::error::Error;
use crate::host::Host;

/// The directories that something uses.
#[derive(Debug, Default)]
pub struct InUse {
    /// Who uses a path, or something in it.
    users: HashMap<Bytes, String>,
    /// The paths that a mount has, or that have one in them.
    mounted: HashSet<Bytes>,
    /// The unions that other mount namespaces have, too: something runs on them.
    shared: HashSet<Bytes>,
    /// What could not be read, and the engine that keeps it: that may use anything of its kind.
    pub unread: Vec<(&'static str, Error)>,
}

impl InUse {
    /// Finds out what is used on a host. Other mount namespaces are looked into.
    pub fn find(survey: &mut Survey<'_>) -> InUse {
        survey.look_everywhere();
        InUse::of(survey)
    }

    /// The same of a survey that has looked everywhere. What an engine's records have counts as
    /// used, as far as anybody but the engine can know.
    pub fn of(survey: &Survey<'_>) -> InUse {
        InUse::starting(survey, is_recorded)
    }

    /// The same where only those layers count from the start of which something is true.
    pub(super) fn starting(survey: &Survey<'_>, is_used: impl Fn(&LayerUse) -> bool) -> InUse {
        let mut found = InUse::default();
        found.take_mounts(survey);
        let mut edges: HashMap<Bytes, Vec<Bytes>> = HashMap::new();
        let mut pending: Vec<(Bytes, String)> = Vec::new();
        for of in engines(survey) {
            let (engine, name) = (&*of.engine, of.engine.name());
            if !engine.exists() {
                continue;
            }
            let asked = engine
                .layer_uses()
                .and_then(|uses| Ok((uses, engine.needs()?)));
            let (uses, needs) = asked.unwrap_or_else(|error| {
                found.unread.push((name, error));
                Default::default()
            });
            found
                .unread
                .extend(of.problems.take().into_iter().map(|error| (name, error)));
            let known = uses.iter().filter(|of| is_used(of));
            pending.extend(known.map(|of| (real(survey.host, &of.directory), of.user())));
            for need in needs {
                let Need {
                    layer,
                    by,
                    needed,
                    always,
                } = need;
                // A link is needed as it is, and so is what it leads to.
                let real_ones: Vec<Bytes> =
                    needed.iter().map(|path| real(survey.host, path)).collect();
                let needed = needed.into_iter().chain(real_ones);
                match layer {
                    Some(layer) if !always => {
                        edges
                            .entry(real(survey.host, &layer))
                            .or_default()
                            .extend(needed);
                    }
                    _ => pending.extend(needed.map(|path| (path, by.clone()))),
                }
            }
        }
        pending.extend(
            found
                .users
                .iter()
                .map(|(path, by)| (path.clone(), by.clone())),
        );
        let mut seen = HashSet::new();
        while let Some((path, by)) = pending.pop() {
            if !seen.insert(path.clone()) {
                continue;
            }
            let below = edges.get(&path).into_iter().flatten();
            pending.extend(below.map(|path| (path.clone(), by.clone())));
            found.note(&path, &by);
        }
        found
    }

    /// Who uses a path, or something in it.
    pub fn by(&self, host: &Host, path: &Bytes) -> Option<&str> {
        let found = self.users.get(path);
        let found = found.or_else(|| self.users.get(&real(host, path)));
        found.map(String::as_str)
    }

    /// Whether a path is a branch of something that is mounted, is shown by a mount, or has one
    /// in it.
    pub fn is_mounted(&self, host: &Host, path: &Bytes) -> bool {
        self.mounted.contains(path) || self.mounted.contains(&real(host, path))
    }

    /// Whether the union that is mounted at a path is mounted in another mount namespace, too.
    pub fn is_shared(&self, point: &Bytes) -> bool {
        self.shared.contains(point)
    }

    /// Whether something could not be read that may use an engine's layers: of its own kind, or of an
    /// engine that it shares stores with.
    pub fn is_unsure(&self, survey: &Survey<'_>, engine: &dyn Engine) -> bool {
        let own = engine.description();
        let is_kin = |name: &str| {
            let stands_on = survey.described(name).and_then(|other| other.stands_on);
            name == own.name || own.stands_on == Some(name) || stands_on == Some(own.name)
        };
        self.unread.iter().any(|(name, _)| is_kin(name))
    }

    fn note(&mut self, path: &Bytes, by: &str) {
        for path in with_parents(path) {
            self.users.entry(path).or_insert_with(|| by.to_owned());
        }
    }

    fn note_mounted(&mut self, path: &Bytes, by: &str) {
        self.note(path, by);
        self.mounted.extend(with_parents(path));
    }

    /// What the mounts of all mount namespaces show, and where they are.
    fn take_mounts(&mut self, survey: &Survey<'_>) {
        let others = namespace::others(survey.host);
        let places = Places::of(&survey.table);
        for union in &survey.mounted {
            let by = survey.label(union).to_text().into_owned();
            let process = union.mounts.iter().find_map(|mount| mount.process);
            let process = others.iter().find(|of| Some(of.id) == process);
            let table = process.map_or(&survey.table, |process| &process.table);
            self.take_branches(survey, &places, table, union, &by);
            let own = union.mounts.iter().filter(|mount| mount.process.is_none());
            for mount in own {
                let elsewhere = others.iter().flat_map(|process| &process.table.0);
                let mut elsewhere = elsewhere.filter_map(Mount::superblock);
                if elsewhere.any(|of| Some(of) == union.superblock) {
                    self.shared.insert(mount.path.clone());
                }
                self.note_mounted(&real(survey.host, &mount.path), &by);
            }
        }
        let mut kept = Vec::new();
        for table in kept::kept(survey.host, &survey.table, &others) {
            match table {
                Ok(table) => kept.push(table),
                // It may have anything mounted.
                Err(error) => self.lose(survey, error),
            }
        }
        for table in &kept {
            for union in kernel::unions_of(survey.host, table) {
                let by = "a union in a mount namespace without processes";
                self.take_branches(survey, &places, table, &union, by);
            }
        }
        let others = others.iter().map(|of| &of.table).chain(&kept);
        for table in others.chain([&survey.table]) {
            self.take_points(&places, table);
        }
        for mount in &survey.table.0 {
            self.note_mounted(&mount.point, &mounted_at(mount));
        }
    }

    /// The branches of a union that a namespace has mounted. Where one cannot be found, a layer of which
    /// nothing else is known may be it.
    fn take_branches(
        &mut self,
        survey: &Survey<'_>,
        places: &Places<'_>,
        table: &MountTable,
        union: &Union,
        by: &str,
    ) {
        let host = survey.host;
        for branch in &union.branches {
            let path = &branch.spec.path;
            let linked = linked(survey, path);
            let is_found = |path: &Bytes| host.stat(path).is_ok_and(|of| of.is_some());
            let is_whole = path.as_bytes().starts_with(b"/");
            let is_known = is_whole || linked.iter().any(is_found);
            // A person can have mounted it by a path that means nothing here.
            if host.is_live() && !is_known && is_a_persons(survey, union) {
                let what = format!(
                    "is a branch of {by}, and is not found: it may be any layer that no record has"
                );
                self.lose(survey, Error::damaged(path.clone(), what));
            }
            for path in on_host(host, places, table, path).iter().chain(&linked) {
                self.note_mounted(path, by);
            }
        }
    }

    /// Notes what may be of any engine's.
    fn lose(&mut self, survey: &Survey<'_>, error: Error) {
        let names = engines(survey).map(|of| of.engine.name());
        self.unread.extend(names.map(|name| (name, error.clone())));
    }

    /// What a namespace's mounts show of other file systems, and the directories that they lie on:
    /// whoever removes one of these removes what is mounted there.
    fn take_points(&mut self, places: &Places<'_>, table: &MountTable) {
        let by_id: HashMap<u32, &Mount> = table
            .0
            .iter()
            .filter_map(|mount| Some((mount.ids?.0, mount)))
            .collect();
        for mount in &table.0 {
            let by = mounted_at(mount);
            // A layer that is whole is bound, not stacked.
            let is_part = mount.kind().is_none() && mount.root.as_bytes() != b"/";
            for path in places.show(mount, &mount.root).filter(|_| is_part) {
                self.note_mounted(&path, &by);
            }
            // What lies in a union lies in no layer.
            let below = mount.ids.and_then(|(_, parent)| by_id.get(&parent));
            let Some(below) = below.filter(|below| below.kind().is_none()) else {
                continue;
            };
            if let Some(inside) = mount.point.strip_prefix(&below.point) {
                let part = below.root.join_path(&inside);
                for path in places.show(below, &part) {
                    self.note_mounted(&path, &by);
                }
            }
        }
    }
}

/// Every engine of the host, whatever was asked for.
pub(super) fn engines<'s, 'h>(survey: &'s Survey<'h>) -> impl Iterator<Item = &'s FoundEngine<'h>> {
    survey.found_here().chain(survey.others())
}

/// Every engine that is here with its layers and who uses them, and what could not be read.
pub type Uses<'s> = (Vec<(&'s dyn Engine, Vec<LayerUse>)>, Vec<Error>);

/// Who uses the layers of the engines that were asked for, with what is in use although their
/// records do not have it. A survey that has looked everywhere knows more.
pub fn layer_uses<'s>(survey: &'s Survey<'_>) -> Uses<'s> {
    let (mut all, mut problems) = (Vec::new(), Vec::new());
    for engine in survey.engines_here() {
        match engine.layer_uses() {
            Ok(uses) => all.push((engine, uses)),
            Err(error) => problems.push(error),
        }
    }
    drop_lent(&mut all);
    let is_in_doubt = |of: &LayerUse| matches!(of.kind, UseKind::Unknown | UseKind::Unused);
    if !all.iter().flat_map(|(_, uses)| uses).any(is_in_doubt) {
        return (all, problems);
    }
    let in_use = InUse::of(survey);
    for (engine, uses) in &mut all {
        let is_unsure = in_use.is_unsure(survey, *engine);
        for of in uses.iter_mut().filter(|of| is_in_doubt(of)) {
            let by = in_use.by(survey.host, &of.directory);
            if let Some(by) = by.filter(|_| of.kind == UseKind::Unknown) {
                of.kind = UseKind::InUse;
                of.note = Some(words(by));
            } else if is_unsure {
                of.kind = UseKind::Untold;
            }
        }
    }
    problems.extend(in_use.unread.into_iter().map(|(_, error)| error));
    (all, problems)
}

/// A layer that an engine keeps for another one is that one's: who keeps it does not know its users' names.
fn drop_lent(all: &mut [(&dyn Engine, Vec<LayerUse>)]) {
    let lent = all.iter().flat_map(|(_, uses)| uses);
    let lent = lent.filter(|of| of.is_lent).map(|of| of.directory.clone());
    let lent: HashSet<Bytes> = lent.collect();
    for (_, uses) in all {
        uses.retain(|of| of.is_lent || !lent.contains(&of.directory));
    }
}

/// Whether a union is mounted in the host's own namespace, and not by an engine: neither as the union of
/// something that it knows, nor where it mounts them.
fn is_a_persons(survey: &Survey<'_>, union: &Union) -> bool {
    let is_engines = |mount: &MountPoint| {
        engines(survey).any(|of| {
            let inside = mount.path.strip_prefix(of.engine.root());
            inside.is_some() || of.engine.is_mount_point(&mount.path)
        })
    };
    let mut here = union.mounts.iter().filter(|mount| mount.process.is_none());
    !has_owner(survey, union) && here.any(|mount| !is_engines(mount))
}

/// Whether an engine of the host, whatever was asked for, knows a union as that of something of its own.
pub(super) fn has_owner(survey: &Survey<'_>, union: &Union) -> bool {
    let mut union = union.clone();
    for of in engines(survey) {
        of.engine.recognise(&mut union);
    }
    union.owner.is_some()
}

/// The layers of the host's engines that a union calls by a short name: `l/AAA`.
fn linked(survey: &Survey<'_>, path: &Bytes) -> Vec<Bytes> {
    let link = path.as_bytes().strip_prefix(b"l/");
    let Some(link) = link.and_then(|link| std::str::from_utf8(link).ok()) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for of in engines(survey) {
        let layers = of.engine.layers_of_link(link);
        let unions = layers.filter_map(|layer| of.engine.union_of_layer(&layer).ok());
        found.extend(unions.filter_map(|union| Some(union.branches.first()?.spec.path.clone())));
    }
    found
}

fn mounted_at(mount: &Mount) -> String {
    format!("the mount at {}", mount.point)
}

/// What is said of something in use that no record has.
fn words(by: &str) -> String {
    format!("in use by {by}, although its engine's records do not have it")
}

/// Whether an engine's records have a layer that it is not removing.
fn is_recorded(of: &LayerUse) -> bool {
    of.kind != UseKind::Unknown && !of.layer.id.ends_with("-removing")
}

fn real(host: &Host, path: &Bytes) -> Bytes {
    host.resolve(path).unwrap_or_else(|_| path.clone())
}

/// A path and every directory that it lies in.
fn with_parents(path: &Bytes) -> Vec<Bytes> {
    let parts: Vec<&[u8]> = path.components().collect();
    let lengths = 1..=parts.len();
    let paths = lengths.map(|length| Bytes::absolute(parts[..length].iter().copied()));
    paths.collect()
}

/// What a branch's path can be here: as it is, and wherever the same part of the same file system is
/// to be seen: where it was mounted its path can mean something else, and here it can have several.
/// What a path means in its own namespace only is not lost either: to use too much is to accuse too
/// little.
fn on_host(host: &Host, places: &Places<'_>, table: &MountTable, path: &Bytes) -> Vec<Bytes> {
    let mut paths = vec![path.clone(), real(host, path)];
    if let Some(mount) = table.covering(path) {
        let rest = path.strip_prefix(&mount.point).unwrap_or_default();
        paths.extend(places.show(mount, &mount.root.join_path(&rest)));
    }
    paths
}

/// The mounts of the host's own namespace, by the file system that each shows.
struct Places<'t>(HashMap<(u32, u32), Vec<&'t Mount>>);

impl<'t> Places<'t> {
    fn of(table: &'t MountTable) -> Places<'t> {
        let mut by_device: HashMap<(u32, u32), Vec<&Mount>> = HashMap::new();
        for mount in &table.0 {
            if let Some(device) = mount.device {
                by_device.entry(device).or_default().push(mount);
            }
        }
        Places(by_device)
    }

    /// Where a part of the file system of a mount is to be seen.
    fn show(&self, mount: &Mount, part: &Bytes) -> impl Iterator<Item = Bytes> {
        let same = mount.device.and_then(|device| self.0.get(&device));
        let same = same.into_iter().flatten();
        same.filter_map(|of| Some(of.point.join_path(&part.strip_prefix(&of.root)?)))
    }
}
