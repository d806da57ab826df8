//! What is nobody's: what the engines find to be left over, but what is in use.

use std::time::Duration;

use super::in_use::{InUse, engines};
use super::interface::Engine;
use super::survey::Survey;
use super::usage::{LayerUse, Leftover, LeftoverKind, UseKind};
use crate::bytes::Bytes;
use crate::error::Error;

/// What one look at a host found.
#[derive(Debug, Default)]
pub struct Orphaned {
    /// Each with the engine in whose store it is.
    pub found: Vec<(&'static str, Leftover)>,
    pub problems: Vec<Error>,
}

/// How long an engine that is at work is given to finish what it is making.
const SECOND_LOOK: Duration = Duration::from_millis(500);

/// Looks for what is nobody's in the stores that were asked for. Of a live host twice: a layer is
/// made before it is recorded, and what is still there is left over. Nothing that was read before
/// counts.
pub fn orphaned(survey: &mut Survey<'_>) -> Orphaned {
    let mut first = look(survey);
    if !survey.host.is_live() || first.found.is_empty() {
        return first;
    }
    std::thread::sleep(SECOND_LOOK);
    let second = look(&mut survey.again());
    let is_still = |(engine, of): &(&'static str, Leftover)| {
        let mut again = second.found.iter();
        again.any(|(name, other)| (name, other.kind, &other.path) == (engine, of.kind, &of.path))
    };
    first.found.retain(is_still);
    first.problems.extend(second.problems);
    first
}

fn look(survey: &mut Survey<'_>) -> Orphaned {
    let in_use = InUse::find(survey);
    let survey = &*survey;
    let mut orphaned = Orphaned::default();
    for of in survey.found_here() {
        let engine = &*of.engine;
        let found = engine.leftovers();
        let unread = of.problems.take();
        let is_read = unread.is_empty() && !is_unsure(&in_use, engine);
        orphaned.problems.extend(unread);
        match found {
            Ok(found) if is_read => {
                let mut found = found;
                found.retain(|of| !is_used(survey, &in_use, of));
                found.extend(stale_mounts(survey, &in_use, engine));
                orphaned
                    .found
                    .extend(found.into_iter().map(|of| (engine.name(), of)));
            }
            // What could not be read may refer to anything: nobody is accused.
            Ok(_) => {}
            Err(error) => orphaned.problems.push(error),
        }
    }
    orphaned
        .problems
        .extend(in_use.unread.into_iter().map(|(_, error)| error));
    orphaned
}

/// Whether something of an engine's kind could not be read. Docker's layers can be containerd's.
fn is_unsure(in_use: &InUse, engine: &dyn Engine) -> bool {
    let is_kin = |name: &str| {
        name == engine.name()
            || [name, engine.name()]
                .iter()
                .all(|of| ["docker", "containerd"].contains(of))
    };
    in_use.unread.iter().any(|(name, _)| is_kin(name))
}

fn is_used(survey: &Survey<'_>, in_use: &InUse, of: &Leftover) -> bool {
    let host = survey.host;
    match of.kind {
        LeftoverKind::Mount | LeftoverKind::InProgress => false,
        // A record is somebody's while the layer that it is about is mounted.
        LeftoverKind::Metadata => of
            .layer
            .as_ref()
            .is_some_and(|at| in_use.is_mounted(host, at)),
        LeftoverKind::Link => in_use.by_name(&of.path).is_some(),
        _ => in_use.by(host, &of.path).is_some(),
    }
}

/// Unions that are mounted in an engine's directories, and whose topmost layer is in no record.
fn stale_mounts(survey: &Survey<'_>, in_use: &InUse, engine: &dyn Engine) -> Vec<Leftover> {
    // What an engine knows without a container it may have mounted itself, to look or to build.
    let known: Vec<LayerUse> = engines(survey)
        .filter_map(|of| of.engine.layer_uses().ok())
        .flatten()
        .filter(|of| of.kind != UseKind::Unknown)
        .collect();
    let is_known = |path: &Bytes| {
        let real = survey.host.resolve(path);
        let is_it = |of: &LayerUse| {
            of.directory == *path || real.as_ref().is_ok_and(|real| of.directory == *real)
        };
        known.iter().any(is_it)
    };
    let is_nobodys = |union: &&super::union::Union| {
        let mut union = (*union).clone();
        for of in survey.others() {
            of.engine.recognise(&mut union);
        }
        let top = union.branches.first();
        union.owner.is_none() && !top.is_some_and(|top| is_known(&top.spec.path))
    };
    let unions = survey.mounted.iter().filter(is_nobodys);
    let mounts = unions.flat_map(|union| &union.mounts);
    let own = mounts.filter(|mount| {
        let inside = mount.path.strip_prefix(engine.root());
        let is_in_store = inside.is_some_and(|inside| engine.is_merged(&inside));
        mount.process.is_none()
            && (is_in_store || engine.is_mount_point(&mount.path))
            && !in_use.is_shared(&mount.path)
    });
    own.map(|mount| {
        let why = "no container has the layer that is mounted here; while it is mounted, the layer is in use";
        Leftover::new(LeftoverKind::Mount, mount.path.clone(), why)
    })
    .collect()
}
