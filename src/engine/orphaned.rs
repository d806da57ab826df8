//! What is nobody's: what the engines find to be left over, but what is in use.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::in_use::{InUse, engines, has_owner};
use super::interface::Engine;
use super::survey::Survey;
use super::union::Union;
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

impl Orphaned {
    /// What could not be read of who uses what, where it is not said already.
    fn add_unread(&mut self, in_use: InUse) {
        for (_, error) in in_use.unread {
            let words = error.to_string();
            if !self.problems.iter().any(|known| known.to_string() == words) {
                self.problems.push(error);
            }
        }
    }
}

/// How long an engine that is at work is given to finish what it is making, before the next look.
const NEXT_LOOK: Duration = Duration::from_millis(500);

/// No more looks after that: an engine may be at work for ever.
const PATIENCE: Duration = Duration::from_secs(10);

/// What was made or renamed so many seconds ago may be somebody's who has not said so yet.
const YOUNG: i64 = 5;

/// Looks for what is nobody's in the stores that were asked for. Of a live host until a look finds
/// what the one before it found, none of it young, and as large as it was: a layer is made before it is
/// recorded, and its record goes before it does. `size` tells what a leftover takes on disk, in bytes; what is
/// found on a live host has it.
pub fn orphaned(
    survey: &mut Survey<'_>,
    size: &dyn Fn(&Survey<'_>, &Leftover) -> Option<u64>,
) -> Orphaned {
    let first = look(survey);
    if !survey.host.is_live() || (first.found.is_empty() && first.problems.is_empty()) {
        return first;
    }
    let ends = Instant::now() + PATIENCE;
    let mut last = Round::new(survey, first, size);
    // What could not be read may have been removed while it was.
    while !last.problems.is_empty() || !last.suspects.is_empty() {
        std::thread::sleep(NEXT_LOOK);
        let mut again = survey.again();
        let next = look(&mut again);
        let mut next = Round::new(&again, next, size);
        let is_calm = next.suspects.len() == last.suspects.len()
            && next.problems.len() == last.problems.len()
            && next.suspects.iter().all(|of| last.has_settled(of));
        let is_over = Instant::now() > ends;
        if is_calm || is_over {
            next.suspects.retain(|of| last.has_settled(of));
            return next.into();
        }
        // Those that are read only now count from now on.
        if last.problems.is_empty() {
            next.suspects.retain(|of| last.before(of).is_some());
        }
        last = next;
    }
    last.into()
}

/// What one look at a live host found: nobody's so far.
struct Round {
    suspects: Vec<Suspect>,
    problems: Vec<Error>,
}

struct Suspect {
    engine: &'static str,
    /// With its size.
    of: Leftover,
    is_young: bool,
}

impl Suspect {
    /// What it is, in every look.
    fn key(&self) -> (&str, LeftoverKind, &Bytes, &str) {
        (self.engine, self.of.kind, &self.of.path, &self.of.why)
    }
}

impl Round {
    fn new(
        survey: &Survey<'_>,
        orphaned: Orphaned,
        size: &dyn Fn(&Survey<'_>, &Leftover) -> Option<u64>,
    ) -> Round {
        let now = Timestamp::now().as_second();
        let suspect = |(engine, of): (&'static str, Leftover)| {
            let stat = survey.host.stat(&of.path).ok().flatten();
            // A time to come is no sign of youth.
            let is_young = |at: i64| (0..YOUNG).contains(&(now - at));
            Suspect {
                engine,
                is_young: stat.is_some_and(|stat| is_young(stat.mtime.0) || is_young(stat.ctime.0)),
                of: Leftover {
                    size: size(survey, &of),
                    ..of
                },
            }
        };
        Round {
            suspects: orphaned.found.into_iter().map(suspect).collect(),
            problems: orphaned.problems,
        }
    }

    /// The same as this look found it.
    fn before(&self, suspect: &Suspect) -> Option<&Suspect> {
        self.suspects.iter().find(|of| of.key() == suspect.key())
    }

    /// Whether something is as it was, and has been for a while.
    fn has_settled(&self, suspect: &Suspect) -> bool {
        let before = self.before(suspect);
        !suspect.is_young && before.is_some_and(|before| before.of.size == suspect.of.size)
    }
}

impl From<Round> for Orphaned {
    fn from(round: Round) -> Orphaned {
        let found = round.suspects.into_iter();
        Orphaned {
            found: found.map(|suspect| (suspect.engine, suspect.of)).collect(),
            problems: round.problems,
        }
    }
}

fn look(survey: &mut Survey<'_>) -> Orphaned {
    let in_use = InUse::find(survey);
    let survey = &*survey;
    let of_nobody = of_nobody(survey);
    let mut orphaned = Orphaned::default();
    for of in survey.found_here() {
        let engine = &*of.engine;
        let found = engine.leftovers();
        let unread = of.problems.take();
        let is_read = unread.is_empty() && !in_use.is_unsure(survey, engine);
        orphaned.problems.extend(unread);
        match found {
            Ok(found) if is_read => {
                let mut found = found;
                found.retain(|of| !is_used(survey, &in_use, of));
                found.extend(stale_mounts(&in_use, engine, &of_nobody));
                orphaned
                    .found
                    .extend(found.into_iter().map(|of| (engine.name(), of)));
            }
            // What could not be read may refer to anything: nobody is accused.
            Ok(_) => {}
            Err(error) => orphaned.problems.push(error),
        }
    }
    orphaned.add_unread(in_use);
    orphaned
}

/// Looks for what the engines know and nothing uses: another question than what is nobody's.
pub fn unused(survey: &mut Survey<'_>) -> Orphaned {
    survey.look_everywhere();
    let survey = &*survey;
    let is_used = |of: &LayerUse| {
        matches!(
            of.kind,
            UseKind::Container | UseKind::Init | UseKind::Image | UseKind::View | UseKind::InUse
        )
    };
    let in_use = InUse::starting(survey, is_used);
    let mut unused = Orphaned::default();
    for of in survey.found_here() {
        let engine = &*of.engine;
        let found = engine
            .layer_uses()
            .and_then(|uses| Ok((uses, engine.unused()?)));
        let unread = of.problems.take();
        let is_read = unread.is_empty() && !in_use.is_unsure(survey, engine);
        unused.problems.extend(unread);
        match found {
            Ok((uses, found)) if is_read => {
                let free = uses.iter().filter(|of| {
                    matches!(
                        of.kind,
                        UseKind::Unused | UseKind::BuildCache | UseKind::InProgress
                    ) && !of.is_lent
                        && in_use.by(survey.host, &of.directory).is_none()
                });
                let layers = free.map(|of| engine.unused_layer(of));
                let all = layers.chain(found).map(|of| (engine.name(), of));
                unused.found.extend(all);
            }
            Ok(_) => {}
            Err(error) => unused.problems.push(error),
        }
    }
    unused.add_unread(in_use);
    unused
}

fn is_used(survey: &Survey<'_>, in_use: &InUse, of: &Leftover) -> bool {
    let host = survey.host;
    match of.kind {
        // A link that leads nowhere is no layer, whoever names it.
        LeftoverKind::Mount | LeftoverKind::Link => false,
        // A record is somebody's while the layer that it is about is mounted, or a file of its own.
        LeftoverKind::Metadata => {
            let mut places = of.layer.iter().chain([&of.path]);
            places.any(|at| in_use.is_mounted(host, at))
        }
        _ => in_use.by(host, &of.path).is_some(),
    }
}

/// The mounted unions whose topmost layer is in no record.
fn of_nobody<'s>(survey: &'s Survey<'_>) -> Vec<&'s Union> {
    let unions = survey.mounted.iter();
    let mut unions: Vec<&Union> = unions.filter(|union| !has_owner(survey, union)).collect();
    if unions.is_empty() {
        return unions;
    }
    // What an engine knows without a container it may have mounted itself, to look or to build.
    let known: HashSet<Bytes> = engines(survey)
        .filter_map(|of| of.engine.layer_uses().ok())
        .flatten()
        .filter(|of| of.kind != UseKind::Unknown)
        .map(|of| of.directory)
        .collect();
    unions.retain(|union| {
        let top = union.branches.first().map(|top| &top.spec.path);
        let real = top.and_then(|path| survey.host.resolve(path).ok());
        !top.into_iter()
            .chain(&real)
            .any(|path| known.contains(path))
    });
    unions
}

/// Those of some unions that are mounted in an engine's directories.
fn stale_mounts(in_use: &InUse, engine: &dyn Engine, unions: &[&Union]) -> Vec<Leftover> {
    let mounts = unions.iter().flat_map(|union| &union.mounts);
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

#[cfg(test)]
#[allow(clippy::disallowed_methods)] // a test makes the disk that is read
mod tests {
    use super::*;
    use crate::engine::{ENGINES, Roots};
    use crate::host::Host;

    #[test]
    fn the_second_look_reads_every_record_and_the_mounts_anew() {
        let directory = tempfile::tempdir().unwrap();
        let store = directory.path().join("var/lib/containers/storage");
        let (made, mounted) = ("a".repeat(64), "b".repeat(64));
        for id in [&made, &mounted] {
            std::fs::create_dir_all(store.join("overlay").join(id).join("diff")).unwrap();
        }
        for of in ["layers", "images", "containers"] {
            std::fs::create_dir_all(store.join(format!("overlay-{of}"))).unwrap();
        }
        let list = store.join("overlay-layers/layers.json");
        std::fs::write(&list, "[]").unwrap();
        let host = Host::open(directory.path()).unwrap();
        let mut survey = Survey::new(&host, ENGINES, Roots::of_caller(&host));
        assert_eq!(look(&mut survey).found.len(), 2);

        std::fs::write(&list, format!(r#"[{{"id":"{made}"}}]"#)).unwrap();
        let proc = directory.path().join("proc/self");
        std::fs::create_dir_all(&proc).unwrap();
        let lower = format!("/var/lib/containers/storage/overlay/{mounted}/diff");
        let line = format!("33 15 0:29 / /mnt ro - overlay overlay ro,lowerdir={lower}:/other\n");
        std::fs::write(proc.join("mountinfo"), line).unwrap();
        let again = look(&mut survey.again());
        assert!(
            again.found.is_empty() && again.problems.is_empty(),
            "{again:?}"
        );
    }
}
