//! Numbers from the records of a report. How many samples there are is bounded: by words that
//! layerctl has itself, by engines and stores, and for containers by `--containers`.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use serde::Serialize;

use super::Row;
use crate::bytes::Bytes;
use crate::command::check::Finding;
use crate::command::du;
use crate::command::report::record::{Changes, Record};
use crate::command::{containers, orphans};

/// The longest name of a container that is told, in characters.
const NAME_MAX: usize = 128;
/// What stands for the containers that are not told one by one: no TARGET is called so.
const OTHERS: &str = "(others)";

/// A metric: its name, and what it means.
type Metric = (&'static str, &'static str);

type Labels = BTreeMap<&'static str, String>;

const WRITABLE: Metric = (
    "layerctl_container_writable_bytes",
    "Bytes on disk of a container's own layer.",
);
const LOGS: Metric = (
    "layerctl_container_log_bytes",
    "Bytes on disk of a container's logs.",
);
const COPYUPS: Metric = (
    "layerctl_container_copyup_bytes",
    "Bytes on disk of files copied up into a container's own layer.",
);
const CHANGES: Metric = (
    "layerctl_container_changes",
    "Paths that a container added, changed and deleted.",
);
const CONTAINERS: Metric = ("layerctl_containers", "Containers, by state.");
const IMAGES: Metric = ("layerctl_images", "Images.");
const LAYERS: Metric = ("layerctl_layers", "Layers that have a directory, by use.");
const LAYER_BYTES: Metric = ("layerctl_layer_bytes", "Bytes on disk of layers, by use.");
const STORE: Metric = (
    "layerctl_store_bytes",
    "Bytes on disk of an engine's data directory, by use; total is their sum.",
);
const ORPHANS: Metric = (
    "layerctl_orphans",
    "Things in stores that no metadata refers to, or that refer to what is gone.",
);
const ORPHAN_BYTES: Metric = ("layerctl_orphan_bytes", "Bytes on disk of orphans.");
const UNUSED: Metric = (
    "layerctl_unused",
    "Things that an engine knows and nothing uses.",
);
const UNUSED_BYTES: Metric = (
    "layerctl_unused_bytes",
    "Bytes on disk of what an engine knows and nothing uses.",
);
const FINDINGS: Metric = ("layerctl_findings", "Findings of layerctl check.");
const PROBLEMS: Metric = (
    "layerctl_unreadable_parts",
    "Parts of the host that could not be read: what they have is in no other metric.",
);
const COMPLETE: Metric = ("layerctl_complete", "Whether everything could be read.");
const SECONDS: Metric = (
    "layerctl_duration_seconds",
    "How long layerctl took to find these metrics.",
);
const TIME: Metric = (
    "layerctl_report_timestamp_seconds",
    "When these metrics were found, in seconds since 1970.",
);
const BUILD: Metric = (
    "layerctl_build_info",
    "The version and the commit of layerctl; always 1.",
);

/// The order in which metrics are told.
const ORDER: [Metric; 19] = [
    BUILD,
    TIME,
    SECONDS,
    COMPLETE,
    PROBLEMS,
    CONTAINERS,
    IMAGES,
    LAYERS,
    LAYER_BYTES,
    STORE,
    ORPHANS,
    ORPHAN_BYTES,
    UNUSED,
    UNUSED_BYTES,
    FINDINGS,
    WRITABLE,
    LOGS,
    COPYUPS,
    CHANGES,
];

/// Sums of one kind of thing. A part that nobody knows leaves the sum unknown, and untold.
#[derive(Default)]
struct Sums(BTreeMap<(&'static str, Labels), Option<f64>>);

impl Sums {
    #[allow(clippy::cast_precision_loss, reason = "Prometheus keeps nothing else")]
    fn add(&mut self, metric: Metric, labels: Labels, value: Option<u64>) {
        let sum = self.0.entry((metric.0, labels)).or_insert(Some(0.0));
        *sum = sum.zip(value).map(|(sum, value)| sum + value as f64);
    }

    fn set(&mut self, metric: Metric, value: f64) {
        self.0.insert((metric.0, Labels::new()), Some(value));
    }
}

/// What is known of one container.
#[derive(Default)]
struct OfContainer {
    engine: &'static str,
    values: Vec<OfMetric>,
    writable: Option<u64>,
}

/// What a metric says of a container, with what more it is labelled.
type OfMetric = (Metric, Option<(&'static str, &'static str)>, Option<u64>);

/// Everything that was counted.
pub struct Counts {
    sums: Sums,
    containers: BTreeMap<Bytes, OfContainer>,
}

fn labels<const N: usize>(labels: [(&'static str, &str); N]) -> Labels {
    let labels = labels.into_iter();
    labels
        .map(|(name, value)| (name, value.chars().take(NAME_MAX).collect()))
        .collect()
}

/// A word as machine formats have it.
fn word(of: &impl Serialize) -> String {
    match serde_json::to_value(of) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}

impl Counts {
    /// Nothing yet, at a time.
    #[allow(clippy::cast_precision_loss, reason = "Prometheus keeps nothing else")]
    pub fn new(time: jiff::Timestamp) -> Counts {
        let mut sums = Sums::default();
        sums.set(TIME, time.as_second() as f64);
        for finding in Finding::ALL {
            let of_finding = labels([("finding", &word(&finding))]);
            sums.add(FINDINGS, of_finding, Some(0));
        }
        Counts {
            sums,
            containers: BTreeMap::new(),
        }
    }

    pub fn add(&mut self, record: &Record) {
        let sums = &mut self.sums;
        match record {
            Record::Host(host) => {
                let commit = host.commit.unwrap_or_default();
                let build = labels([("version", host.version), ("commit", commit)]);
                sums.add(BUILD, build, Some(1));
            }
            Record::Engine(of) => {
                let of = || labels([("engine", of.engine)]);
                sums.add(IMAGES, of(), Some(0));
            }
            Record::Container(of) => self.container(of),
            Record::Image(of) => sums.add(IMAGES, labels([("engine", of.engine)]), Some(1)),
            Record::Layer(of) => {
                let of_kind = labels([("engine", of.engine), ("kind", &word(&of.kind))]);
                sums.add(LAYERS, of_kind.clone(), Some(1));
                sums.add(LAYER_BYTES, of_kind, of.disk);
            }
            Record::Space(of) => self.space(of),
            Record::Orphan(of) => self.left(ORPHANS, ORPHAN_BYTES, of),
            Record::Unused(of) => self.left(UNUSED, UNUSED_BYTES, of),
            Record::Finding(of) => {
                let of_finding = labels([("finding", &word(&of.finding))]);
                sums.add(FINDINGS, of_finding, Some(1));
            }
            Record::Changes(of) => self.changes(of),
            Record::End(end) => {
                sums.set(SECONDS, end.seconds);
                sums.set(COMPLETE, if end.complete { 1.0 } else { 0.0 });
                let problems = u64::try_from(end.problem_count).ok();
                sums.add(PROBLEMS, Labels::new(), problems);
            }
            Record::Root(_) | Record::Change(_) | Record::Problem(_) => {}
        }
    }

    fn container(&mut self, of: &containers::Row) {
        let by_state = labels([("engine", of.engine), ("state", of.state)]);
        self.sums.add(CONTAINERS, by_state, Some(1));
    }

    /// A part of a store; of a container what is its own layer, and not configuration or logs.
    fn space(&mut self, of: &du::Row) {
        let store = of.store.to_text();
        let kind = word(&of.kind);
        let of_kind = labels([("engine", of.engine), ("store", &store), ("kind", &kind)]);
        self.sums.add(STORE, of_kind, of.disk);
        let target = of.target.as_ref();
        if let Some(target) = target.filter(|_| of.kind == du::Kind::Container) {
            let writable = of.disk.zip(of.files);
            let writable = writable.map(|(disk, files)| disk.saturating_sub(files));
            let told = self.containers.entry(target.clone()).or_default();
            told.engine = of.engine;
            told.writable = writable;
            told.values.push((WRITABLE, None, writable));
            told.values.push((LOGS, None, of.logs));
        }
    }

    fn left(&mut self, count: Metric, bytes: Metric, of: &orphans::Row) {
        let of_kind = labels([("engine", of.engine), ("kind", of.kind.word())]);
        self.sums.add(count, of_kind.clone(), Some(1));
        let disk = if of.kind.is_record() {
            Some(0)
        } else {
            of.disk
        };
        self.sums.add(bytes, of_kind, disk);
    }

    fn changes(&mut self, of: &Changes) {
        let Some(engine) = of.engine else { return };
        let told = self
            .containers
            .entry(of.target.target().clone())
            .or_default();
        told.engine = engine;
        told.values.push((COPYUPS, None, Some(of.copyup_disk)));
        for (change, count) in [
            ("added", of.added_count),
            ("changed", of.changed_count),
            ("deleted", of.deleted_count),
        ] {
            let more = Some(("change", change));
            told.values.push((CHANGES, more, Some(count)));
        }
    }

    /// All of it, each metric's samples together. Of the containers so many are told one by one.
    pub fn rows(mut self, most: usize) -> Vec<Row> {
        let mut containers: Vec<_> = std::mem::take(&mut self.containers).into_iter().collect();
        containers.sort_by_key(|(_, of)| Reverse(of.writable));
        for (place, (target, of)) in containers.into_iter().enumerate() {
            let name = target.to_text();
            let name = if place < most { &*name } else { OTHERS };
            for (metric, more, value) in of.values {
                let mut of_value = labels([("engine", of.engine), ("container", name)]);
                of_value.extend(more.map(|(name, value)| (name, value.to_owned())));
                self.sums.add(metric, of_value, value);
            }
        }
        let mut rows = Vec::new();
        for (metric, help) in ORDER {
            let of_it = self.sums.0.iter().filter(|((of, _), _)| *of == metric);
            rows.extend(of_it.filter_map(|((_, labels), value)| {
                Some(Row {
                    metric,
                    labels: labels.clone(),
                    value: (*value)?,
                    help,
                })
            }));
        }
        rows
    }
}
