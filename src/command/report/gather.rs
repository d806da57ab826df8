//! Everything that a report tells, from the verbs that know it. What a host has few of - engines,
//! containers, images, layers - is found first; what is in layers is told as it is found.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::io;
use std::ops::ControlFlow;
use std::sync::atomic::AtomicU64;

use jiff::Timestamp;

use super::record::{Changes, End, Host, Layer, Problem, Record};
use crate::bytes::Bytes;
use crate::command::changes::Subject;
use crate::command::{
    self, Batch, Context, Ended, Find, Keep, Labelled, Verb, Which, changes, check, containers,
    copyups, du, images, info, or_none, orphans,
};
use crate::engine;
use crate::engine::inventory::ImageLayer;
use crate::engine::usage::LayerUse;
use crate::error::Result;
use crate::interrupt;
use crate::render::time;

/// Takes records one by one.
pub type Put<'p> = &'p mut dyn FnMut(&Record) -> io::Result<()>;

/// How many bytes of a file that names a host or a system are looked at.
const NAME_MAX: usize = 256;

/// What a host has few of.
pub struct Gathered {
    begun: Timestamp,
    pub host: Host,
    engines: Vec<info::Engine>,
    roots: Vec<info::Root>,
    containers: Vec<containers::Row>,
    images: Vec<images::Row>,
    orphans: Vec<orphans::Row>,
    unused: Vec<orphans::Row>,
    /// In stores.
    findings: Vec<check::Row>,
    targets: Vec<Labelled>,
}

impl Gathered {
    /// Looks at everything but what is in layers.
    ///
    /// # Errors
    /// There is no answer at all.
    pub fn of(context: &mut Context<'_>, has_changes: bool) -> Result<Gathered> {
        let begun = time::now();
        let info = *info::Args {}.run(context)?.answer.0;
        // There are stores, or there is nothing: that is an answer.
        let targets = context.everything(Which::default());
        let targets = or_none(targets, true)?;
        if context.notes.is_empty() {
            context.note_no_engine();
        }
        context.looked = None;
        let orphaned = orphans::left_over(context);
        let unused = engine::unused(&mut context.survey);
        let findings = check::in_stores(context, &orphaned.found);
        context.problems.extend(orphaned.problems);
        context.problems.extend(unused.problems);
        let host = Host {
            version: env!("CARGO_PKG_VERSION"),
            commit: Some(env!("LAYERCTL_COMMIT")).filter(|commit| !commit.is_empty()),
            root: Bytes::from(context.survey.host.root()),
            live: context.survey.host.is_live() || context.survey.host.is_alias(),
            kernel: first_line(context, "/proc/sys/kernel/osrelease"),
            os: system(context),
            mounted_count: info.mounted_count,
            elsewhere_count: info.elsewhere_count,
            has_changes,
            since: None,
        };
        Ok(Gathered {
            begun,
            host,
            engines: info.engines,
            roots: info.roots,
            containers: containers::rows(&context.survey),
            images: images::rows(&context.survey, false),
            orphans: orphans::rows(context, orphaned.found),
            unused: orphans::rows(context, unused.found),
            findings,
            targets,
        })
    }

    /// Tells it, and what is in layers.
    ///
    /// # Errors
    /// What `put` says.
    pub fn tell(self, context: &Context<'_>, ended: &mut Ended, put: Put<'_>) -> io::Result<()> {
        let has_changes = self.host.has_changes;
        let row_count = Cell::new(0);
        let mut put = |record: &Record| {
            if interrupt::is_asked_to_end() {
                return Err(io::Error::other("was told to end"));
            }
            row_count.set(row_count.get() + 1);
            put(record)
        };
        put(&Record::Host(self.host))?;
        let few = self.engines.into_iter().map(Record::Engine);
        let few = few.chain(self.roots.into_iter().map(Record::Root));
        let containers = self.containers.into_iter().map(Box::new);
        let few = few.chain(containers.map(Record::Container));
        let mut few = few.chain(self.images.into_iter().map(Record::Image));
        few.try_for_each(|record| put(&record))?;
        layers(context, ended, &mut put)?;
        let left = self.orphans.into_iter().map(Record::Orphan);
        let left = left.chain(self.unused.into_iter().map(Record::Unused));
        let mut left = left.chain(self.findings.into_iter().map(Record::Finding));
        left.try_for_each(|record| put(&record))?;
        for target in self.targets {
            in_union(context, target, has_changes, ended, &mut put)?;
        }
        let problems = problems(context, ended);
        let problem_count = problems.len();
        for problem in problems {
            put(&Record::Problem(problem))?;
        }
        let seconds = time::now().duration_since(self.begun).as_secs_f64();
        put(&Record::End(End {
            complete: problem_count == 0,
            problem_count,
            row_count: row_count.get() + 1,
            // In milliseconds: more is noise. A clock may be put back.
            seconds: (seconds.max(0.0) * 1000.0).round() / 1000.0,
        }))
    }
}

/// What could not be read, each thing once.
fn problems(context: &Context<'_>, ended: &mut Ended) -> Vec<Problem> {
    let survey = &context.survey;
    ended.problems.extend(survey.take_vanished());
    ended.problems.extend(survey.take_problems());
    let all = survey.problems().chain(&context.problems);
    let all = all.chain(&ended.problems).map(Problem::from);
    let mut said = HashSet::new();
    all.filter(|of| said.insert((of.problem.clone(), of.target.clone())))
        .collect()
}

/// The layers of every store, and what else takes space in it.
fn layers(context: &Context<'_>, ended: &mut Ended, put: Put<'_>) -> io::Result<()> {
    let survey = &context.survey;
    let images = survey.images();
    // Of each image, from its base on. It may be unpacked for other drivers than its own, too.
    let mut layers_of: HashMap<(&str, &str), Vec<&ImageLayer>> = HashMap::new();
    for (engine, image) in &images {
        let steps = image.history.iter().rev();
        let layers = steps.filter_map(|step| step.layer.as_ref());
        layers_of.insert((engine.name(), &image.id), layers.collect());
    }
    let threads = context.threads.count();
    let is_wanted = |_: &dyn engine::Engine| true;
    let problems = &mut ended.problems;
    du::walk(survey, is_wanted, threads, problems, |store, problems| {
        let store = match store {
            Ok(store) => store,
            Err(error) => {
                problems.push(error);
                return Ok(());
            }
        };
        let engine = store.engine();
        for (of, disk) in store.layers() {
            let known = of.images.iter().find_map(|user| {
                let layers = layers_of.get(&(engine.name(), &*user.id))?;
                // Of those that it was made from.
                let is_whole = layers.len() == user.of;
                let at = user.number.checked_sub(1).filter(|_| is_whole)?;
                layers.get(at).copied()
            });
            put(&Record::Layer(layer(engine, of, known, disk)))?;
        }
        let rows = store.everything(problems).into_iter().map(Box::new);
        rows.map(Record::Space).try_for_each(|record| put(&record))
    })
}

fn layer(
    engine: &dyn engine::Engine,
    of: &LayerUse,
    known: Option<&ImageLayer>,
    disk: Option<u64>,
) -> Layer {
    Layer {
        engine: engine.name(),
        store: engine.root().clone(),
        driver: of.layer.driver.clone(),
        layer: of.layer.id.clone(),
        kind: of.kind,
        diff_id: known.and_then(|known| known.diff_id.clone()),
        chain_id: known.and_then(|known| known.chain_id.clone()),
        directory: of.directory.clone(),
        disk,
        containers: of.containers.clone(),
        images: of.images.clone(),
    }
}

/// What is wrong in one union, and what was changed in it.
fn in_union(
    context: &Context<'_>,
    (label, target): Labelled,
    has_changes: bool,
    ended: &mut Ended,
    put: Put<'_>,
) -> io::Result<()> {
    let threads = context.threads.count();
    let stack = command::open(&context.survey, &target, &mut ended.problems);
    let mut written = Ok(());
    let labelled = (&label, &target);
    let names = AtomicU64::new(0);
    check::in_union(
        &context.survey,
        labelled,
        &stack,
        threads,
        &names,
        |found| match found {
            Ok(row) if written.is_ok() => written = put(&Record::Finding(row)),
            Ok(_) => {}
            Err(error) => ended.problems.push(label.of(error)),
        },
    );
    written?;
    let Some(branch) = target.subject() else {
        return Ok(());
    };
    let owner = target.union.owner.as_ref();
    let owner = owner.filter(|owner| owner.kind == engine::OwnerKind::Container);
    let mut told = Changes {
        target: label.clone(),
        engine: owner.map(|owner| owner.engine),
        container: owner.map(|owner| owner.id.clone()),
        added_count: 0,
        changed_count: 0,
        deleted_count: 0,
        copyup_count: 0,
        copyup_disk: 0,
    };
    let copies = (&stack, branch);
    copyups::in_union((&label, &target), copies, threads, |found| {
        match found {
            Ok(row) => {
                told.copyup_count += 1;
                told.copyup_disk += row.disk;
            }
            Err(error) => ended.problems.push(label.of(error)),
        }
        ControlFlow::Continue(())
    });
    let subject = Subject {
        label,
        target,
        stack,
        branch,
    };
    each_change(&subject, has_changes, context, (&mut told, ended), put)?;
    put(&Record::Changes(told))
}

/// Counts the changes of one union, and tells them if they are asked for.
fn each_change(
    subject: &Subject,
    has_changes: bool,
    context: &Context<'_>,
    (told, ended): (&mut Changes, &mut Ended),
    put: Put<'_>,
) -> io::Result<()> {
    let letter = |row: &changes::Row, text: &mut Vec<u8>| text.push(row.change.letter() as u8);
    let how = Find {
        threads: context.threads.count(),
        keep: if has_changes {
            Keep::Rows
        } else {
            Keep::Text(&letter)
        },
    };
    let mut written = Ok(());
    let _ = subject.walk(false, false, &how, |mut batch: Batch<changes::Row>| {
        ended.problems.append(&mut batch.problems);
        for row in &batch.rows {
            letter(row, &mut batch.text);
        }
        for letter in batch.text {
            match letter {
                b'A' => told.added_count += 1,
                b'C' => told.changed_count += 1,
                _ => told.deleted_count += 1,
            }
        }
        for row in batch.rows {
            written = put(&Record::Change(row));
            if written.is_err() {
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    });
    written
}

/// A file's first line, if it has one.
fn first_line(context: &mut Context<'_>, path: &str) -> Option<String> {
    let text = text(context, path)?;
    let line = text.lines().next()?.trim();
    let line: String = line.chars().take(NAME_MAX).collect();
    Some(line).filter(|line| !line.is_empty())
}

/// A file of the host, if it is there.
fn text(context: &mut Context<'_>, path: &str) -> Option<String> {
    match context.survey.host.read(&Bytes::from(path)) {
        Ok(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) => {
            // What is not there, or no file, names nothing.
            if error.is_denied() {
                context.problems.push(error);
            }
            None
        }
    }
}

/// The system's name, as /etc/os-release has it.
fn system(context: &mut Context<'_>) -> Option<String> {
    let text = text(context, "/etc/os-release")?;
    let mut lines = text.lines();
    let name = lines.find_map(|line| line.strip_prefix("PRETTY_NAME="))?;
    let name = name.trim().trim_matches(['"', '\'']);
    Some(name.chars().take(NAME_MAX).collect())
}

/// What a host is called: an id, and its name.
pub fn names(context: &mut Context<'_>, typed: Option<String>) -> (String, Option<String>) {
    let name = first_line(context, "/etc/hostname").or_else(|| {
        // Elsewhere it would be the name of where layerctl runs.
        let is_live = context.survey.host.is_live();
        is_live.then(|| first_line(context, "/proc/sys/kernel/hostname"))?
    });
    let id = typed.or_else(|| {
        let id = first_line(context, "/etc/machine-id")?;
        let is_id = id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_id.then_some(id)
    });
    let id = id.or_else(|| name.clone());
    (id.unwrap_or_else(|| "unknown".to_owned()), name)
}
