//! `metrics`: the numbers of a report, in a format that Prometheus' own programs find nothing wrong
//! with.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::lab::host::Host;
use crate::lab::needs;
use crate::lab::run::text;

fn samples(host: &Host, more: &[&str]) -> Vec<Value> {
    host.jsonl(["metrics"].iter().chain(more)).exits(0).rows()
}

/// The value of the only sample with a name and some of its labels.
#[track_caller]
fn value(samples: &[Value], metric: &str, labels: &[(&str, &str)]) -> f64 {
    let fits = |sample: &&Value| {
        let has = |(name, value): &(&str, &str)| sample["labels"][name] == *value;
        text(sample, "metric") == metric && labels.iter().all(has)
    };
    let found: Vec<&Value> = samples.iter().filter(fits).collect();
    assert_eq!(found.len(), 1, "{metric} {labels:?}: {found:?}");
    found[0]["value"].as_f64().expect("a number")
}

#[allow(clippy::cast_precision_loss)]
fn number(of: &Value) -> f64 {
    of.as_u64().expect("a number") as f64
}

#[apply(test)]
fn says_what_the_verbs_say() {
    needs::captured_hosts();
    let host = Host::captured("docker-28-overlay2");
    host.settle();
    let samples = samples(&host, &[]);
    for row in host.jsonl(["du"]).exits(0).rows() {
        match text(&row, "kind") {
            "container" => {
                let labels = [("container", text(&row, "target")), ("engine", "docker")];
                let (disk, files) = (number(&row["disk"]), number(&row["files"]));
                let writable = "layerctl_container_writable_bytes";
                assert_eq!(value(&samples, writable, &labels), disk - files, "{row}");
                let logs = value(&samples, "layerctl_container_log_bytes", &labels);
                assert_eq!(logs, number(&row["logs"]), "{row}");
            }
            "total" => {
                let labels = [("kind", "total"), ("store", "/var/lib/docker")];
                let total = value(&samples, "layerctl_store_bytes", &labels);
                assert_eq!(total, number(&row["disk"]), "{row}");
            }
            _ => {}
        }
    }
    let mut copies: BTreeMap<String, f64> = BTreeMap::new();
    for row in host.jsonl(["copyups"]).exits(0).rows() {
        *copies.entry(text(&row, "target").to_owned()).or_default() += number(&row["disk"]);
    }
    assert!(!copies.is_empty());
    for (target, disk) in copies {
        let labels = [("container", &*target)];
        let told = value(&samples, "layerctl_container_copyup_bytes", &labels);
        assert_eq!(told, disk, "{target}");
    }
    let mut unused: BTreeMap<String, f64> = BTreeMap::new();
    for row in host.jsonl(["orphans", "--unused"]).exits(1).rows() {
        *unused.entry(text(&row, "kind").to_owned()).or_default() += number(&row["disk"]);
    }
    for (kind, disk) in unused {
        let told = value(&samples, "layerctl_unused_bytes", &[("kind", &kind)]);
        assert_eq!(told, disk, "{kind}");
    }
    let running = [("engine", "docker"), ("state", "running")];
    assert_eq!(value(&samples, "layerctl_containers", &running), 3.0);
    let stale = [("finding", "stale-whiteout")];
    assert_eq!(value(&samples, "layerctl_findings", &stale), 1.0);
    assert_eq!(
        value(&samples, "layerctl_findings", &[("finding", "orphan")]),
        0.0
    );
    assert_eq!(value(&samples, "layerctl_complete", &[]), 1.0);
}

#[apply(test)]
fn so_many_containers_are_told_one_by_one() {
    needs::time();
    needs::captured_hosts();
    let host = Host::captured("docker-28-overlay2");
    host.settle();
    let all = samples(&host, &[]);
    let few = samples(&host, &["--containers", "2"]);
    for metric in [
        "layerctl_container_writable_bytes",
        "layerctl_container_copyup_bytes",
        "layerctl_container_changes",
    ] {
        let of_it = |samples: &[Value]| {
            let of_it = samples.iter().filter(|of| text(of, "metric") == metric);
            let names = of_it
                .clone()
                .map(|of| text(&of["labels"], "container").to_owned());
            let sum = of_it.filter_map(|of| of["value"].as_f64()).sum::<f64>();
            (names.collect::<BTreeSet<String>>(), sum)
        };
        let ((few, few_sum), (all, all_sum)) = (of_it(&few), of_it(&all));
        assert_eq!(few_sum, all_sum, "{metric}");
        assert_eq!((few.len(), all.len()), (3, 8), "{metric}");
        assert!(few.contains("(others)"), "{metric}");
        // Those with the largest layers.
        assert!(
            few.contains("docker:web-1") && few.contains("docker:stopped-7"),
            "{few:?}"
        );
    }
    let none = samples(&host, &["--containers", "0"]);
    let names = none.iter().filter_map(|of| of["labels"].get("container"));
    assert!(names.into_iter().all(|name| name == "(others)"));
}

#[apply(test)]
fn what_is_not_known_is_not_zero() {
    let host = Host::copy_of("blog-host");
    let containers = host.at("/var/lib/docker/containers");
    for record in fs::read_dir(containers).expect("containers") {
        let record = record.expect("one").path().join("config.v2.json");
        fs::write(record, "{").expect("our own copy");
    }
    let samples = host.jsonl(["metrics"]).exits(2).rows();
    assert_eq!(value(&samples, "layerctl_complete", &[]), 0.0);
    assert!(value(&samples, "layerctl_unreadable_parts", &[]) >= 1.0);
}

/// Hands the metrics of hosts to Prometheus' own linter, which reads node_exporter's format.
#[apply(test)]
fn promtool_finds_nothing_wrong() {
    needs::program("promtool", "--version");
    let hosts = [
        Host::fixture("blog-host"),
        Host::fixture("fruits-example"),
        Host::empty(),
    ];
    for host in hosts {
        let metrics = host.ask(["metrics"]);
        let mut child = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("promtool is there");
        let mut input = child.stdin.take().expect("a pipe");
        input.write_all(&metrics.stdout).expect("a pipe");
        drop(input);
        let said = child.wait_with_output().expect("our child");
        let words = [said.stdout, said.stderr].concat();
        let words = String::from_utf8_lossy(&words).into_owned();
        assert!(
            said.status.success() && words.is_empty(),
            "{words}\n{}",
            metrics.text()
        );
        // OpenMetrics wants an end, and nothing behind it.
        assert!(metrics.text().ends_with("\n# EOF\n"));
    }
}
