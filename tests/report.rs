//! `report`: the rows of all verbs in one stream, each of which can be read alone; what is missing is
//! said; and what drifts from an earlier report is told.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use serde_json::{Map, Value};

use crate::lab::host::Host;
use crate::lab::needs;
use crate::lab::run::{self, text};

/// Captured hosts of every engine.
const HOSTS: [&str; 5] = [
    "docker-28-overlay2",
    "docker-28-containerd",
    "containerd-2.1",
    "podman-5.8-overlay",
    "podman-overlay",
];

/// What every row has, whatever it is about.
const ENVELOPE: [&str; 6] = [
    "schema_version",
    "host_id",
    "host",
    "time",
    "record",
    "drift",
];

fn report(host: &Host, more: &[&str]) -> Vec<Value> {
    host.ask(["report"].iter().chain(more)).exits(0).rows()
}

/// A row without what every row has.
fn bare(row: &Value) -> Map<String, Value> {
    let mut row = row.as_object().expect("an object").clone();
    row.retain(|key, _| !ENVELOPE.contains(&key.as_str()));
    row
}

fn of(rows: &[Value], record: &str) -> Vec<Map<String, Value>> {
    let of_it = rows.iter().filter(|row| text(row, "record") == record);
    of_it.map(bare).collect()
}

/// What a verb answers.
fn asked(host: &Host, words: &[&str]) -> Vec<Map<String, Value>> {
    host.jsonl(words).rows().iter().map(bare).collect()
}

fn records(rows: &[Value]) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for row in rows {
        *counts.entry(text(row, "record")).or_default() += 1;
    }
    counts
}

#[apply(test)]
fn tells_what_the_verbs_tell() {
    needs::time();
    needs::captured_hosts();
    for name in HOSTS {
        let host = Host::captured(name);
        host.settle();
        let rows = report(&host, &["--changes"]);
        for (record, words) in [
            ("container", &["containers"][..]),
            ("image", &["images"]),
            ("space", &["du"]),
            ("orphan", &["orphans"]),
            ("unused", &["orphans", "--unused"]),
            ("change", &["changes"]),
        ] {
            let key = |row: &Map<String, Value>| serde_json::to_string(row).expect("JSON");
            let mut told: Vec<String> = of(&rows, record).iter().map(key).collect();
            let mut answered: Vec<String> = asked(&host, words).iter().map(key).collect();
            // `du` sorts all stores' rows by size.
            told.sort();
            answered.sort();
            assert_eq!(told, answered, "{name} {record}");
        }
        // In stores first, whichever of them `check` tells first.
        let findings = |rows: Vec<Map<String, Value>>| {
            let words = rows.into_iter().map(|row| Value::from(row).to_string());
            words.collect::<BTreeSet<String>>()
        };
        assert_eq!(
            findings(of(&rows, "finding")),
            findings(asked(&host, &["check"])),
            "{name}"
        );
        let info = host.jsonl(["info"]).exits(0).row();
        assert_eq!(Value::from(of(&rows, "engine")), info["engines"], "{name}");
        assert_eq!(Value::from(of(&rows, "root")), info["roots"], "{name}");
        assert_eq!(of(&rows, "host")[0]["mounted_count"], info["mounted_count"]);
    }
}

#[apply(test)]
fn every_row_can_be_read_alone() {
    needs::time();
    needs::captured_hosts();
    let host = Host::captured("docker-28-overlay2");
    let rows = report(&host, &["--host-id", "node-17"]);
    for row in &rows {
        assert_eq!(row["schema_version"], 1);
        assert_eq!(row["host_id"], "node-17");
        assert_eq!(row["time"], rows[0]["time"]);
        crate::schema::assert_promised("report", row);
    }
    let time: jiff::Timestamp = text(&rows[0], "time").parse().expect("RFC 3339");
    assert!(time.as_second() > 1_700_000_000);
    assert_eq!(text(&rows[0], "record"), "host");
    let last = rows.last().expect("rows");
    assert_eq!(text(last, "record"), "end");
    assert_eq!(last["row_count"], rows.len());
    assert_eq!(
        (&last["complete"], &last["problem_count"]),
        (&true.into(), &0.into())
    );
}

#[apply(test)]
fn a_host_has_an_id_a_name_or_neither() {
    let host = Host::empty();
    let named = |host: &Host| {
        // Without an engine that is all there is to tell, and it is said.
        let rows = host.ask(["report"]).exits(0).rows();
        (rows[0]["host_id"].clone(), rows[0]["host"].clone())
    };
    assert_eq!(named(&host), ("unknown".into(), Value::Null));
    host.file("/etc/hostname", "node-1\n");
    assert_eq!(named(&host), ("node-1".into(), "node-1".into()));
    host.file("/etc/machine-id", "uninitialized\n");
    assert_eq!(named(&host), ("node-1".into(), "node-1".into()));
    let id = "0123456789abcdef0123456789abcdef";
    host.file("/etc/machine-id", format!("{id}\n"));
    assert_eq!(named(&host), (id.into(), "node-1".into()));
    // What somebody else wrote there is a name, whatever is in it.
    host.file(
        "/etc/hostname",
        [b"\x1b]0;x\x07\xff".as_slice(), &[b'a'; 9000]].concat(),
    );
    let output = host.ask(["report"]).exits(0);
    assert!(!output.stdout.contains(&0x1b));
    assert!(text(&output.rows()[0], "host").chars().count() <= 256);
}

#[apply(test)]
fn a_layer_has_the_digests_that_it_has_on_every_host() {
    needs::time();
    needs::captured_hosts();
    for name in HOSTS {
        let host = Host::captured(name);
        host.settle();
        let rows = report(&host, &[]);
        let layers = of(&rows, "layer");
        for image in of(&rows, "image") {
            let target = image["target"].as_str().expect("a word");
            for step in asked(&host, &["history", target]) {
                let Some(layer) = step.get("layer") else {
                    continue;
                };
                let is_it = |of: &&Map<String, Value>| {
                    of["layer"] == *layer && step.get("directory") == Some(&of["directory"])
                };
                let told = layers.iter().filter(is_it);
                let told: Vec<_> = told.collect();
                assert!(!told.is_empty(), "{name} {step:?}");
                for of in told {
                    assert_eq!(of.get("diff_id"), step.get("diff_id"), "{name} {step:?}");
                    assert_eq!(of.get("chain_id"), step.get("chain_id"), "{name} {step:?}");
                }
            }
        }
        let with_digest = layers.iter().filter(|of| of.contains_key("diff_id"));
        assert!(with_digest.count() > 2, "{name}");
    }
}

#[apply(test)]
fn changes_are_counted_and_told_only_if_asked_for() {
    needs::time();
    needs::captured_hosts();
    let host = Host::captured("docker-28-overlay2");
    host.settle();
    let rows = report(&host, &["--changes"]);
    let plain = report(&host, &[]);
    assert!(!records(&plain).contains_key("change"));
    assert_eq!(of(&plain, "changes"), of(&rows, "changes"));
    let copyups = asked(&host, &["copyups"]);
    for counted in of(&rows, "changes") {
        let target = &counted["target"];
        let changes = of(&rows, "change");
        let count = |change: &str| {
            let of_it = changes.iter();
            let of_it = of_it.filter(|row| row["target"] == *target && row["change"] == change);
            Value::from(of_it.count())
        };
        assert_eq!(counted["added_count"], count("added"), "{target}");
        assert_eq!(counted["changed_count"], count("changed"), "{target}");
        assert_eq!(counted["deleted_count"], count("deleted"), "{target}");
        let copies = copyups.iter().filter(|row| row["target"] == *target);
        let copies: Vec<u64> = copies.filter_map(|row| row["disk"].as_u64()).collect();
        assert_eq!(counted["copyup_count"], copies.len(), "{target}");
        assert_eq!(
            counted["copyup_disk"],
            copies.iter().sum::<u64>(),
            "{target}"
        );
    }
}

#[apply(test)]
fn what_could_not_be_read_is_said() {
    let host = Host::copy_of("blog-host");
    let containers = host.at("/var/lib/docker/containers");
    let record = fs::read_dir(containers).expect("containers").next();
    let record = record.expect("one").expect("one").path();
    fs::write(record.join("config.v2.json"), "{").expect("our own copy");
    let output = host.ask(["report"]).exits(2);
    let rows = output.rows();
    let problems = of(&rows, "problem");
    assert!(!problems.is_empty());
    for problem in &problems {
        let words = problem["problem"].as_str().expect("words");
        assert!(output.stderr.contains(words), "{words}\n{}", output.stderr);
    }
    assert!(problems.iter().any(|of| {
        let path = of.get("path").and_then(Value::as_str);
        path.is_some_and(|path| path.ends_with("config.v2.json"))
    }));
    let end = &of(&rows, "end")[0];
    assert_eq!(end["complete"], false);
    assert_eq!(end["problem_count"], problems.len());
}

// ---- drift ----

/// A report of a host in a file.
fn written(host: &Host, to: &Path, more: &[&str]) {
    let to = to.to_str().expect("UTF-8");
    let asked = ["report", "-o", to].into_iter();
    host.ask(asked.chain(more.iter().copied())).exits(0);
}

fn since(host: &Host, report: &Path, more: &[&str]) -> run::Output {
    let report = report.to_str().expect("UTF-8");
    host.ask(["report", "--since", report].iter().chain(more))
}

/// What drifted: how, and what it is about.
fn drift(rows: &[Value]) -> BTreeSet<(String, String, String)> {
    let drifted = rows.iter().filter(|row| row.get("drift").is_some());
    let about = |row: &Value| {
        let keys = ["path", "layer", "id", "target", "kind"];
        let about = keys.iter().find_map(|key| row.get(*key)?.as_str());
        about.unwrap_or_default().to_owned()
    };
    drifted
        .map(|row| {
            let words = ["drift", "record"].map(|key| text(row, key).to_owned());
            let [drift, record] = words;
            (drift, record, about(row))
        })
        .collect()
}

#[apply(test)]
fn tells_what_drifted_since_a_report() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let earlier = home.path().join("earlier.jsonl");
    let host = Host::copy_of("blog-host");
    let writable = host.branches_of("determined_sammet").remove(0);
    let writable = String::from_utf8(writable).expect("an id");
    host.file(format!("{writable}/srv/a"), "1")
        .file(format!("{writable}/srv/gone"), "1");
    written(&host, &earlier, &["--changes"]);

    let same = since(&host, &earlier, &["--changes"]).exits(0).rows();
    assert_eq!(records(&same), BTreeMap::from([("host", 1), ("end", 1)]));
    let then: Value = serde_json::from_str(
        fs::read_to_string(&earlier)
            .expect("a report")
            .lines()
            .next()
            .expect("a row"),
    )
    .expect("JSON");
    assert_eq!(same[0]["since"], then["time"]);

    fs::remove_file(host.at(format!("{writable}/srv/gone"))).expect("our own copy");
    host.file(format!("{writable}/srv/new"), "1")
        .file("/var/lib/docker/aufs/diff/lost/file", "1");
    let rows = since(&host, &earlier, &["--changes"]).exits(0).rows();
    let drifted = drift(&rows);
    let has = |drift: &str, record: &str, about: &str| {
        drifted.contains(&(drift.into(), record.into(), about.into()))
    };
    assert!(has("new", "change", "/srv/new"), "{drifted:#?}");
    assert!(has("gone", "change", "/srv/gone"), "{drifted:#?}");
    assert!(
        !drifted.iter().any(|(.., about)| about == "/srv/a"),
        "{drifted:#?}"
    );
    assert!(
        has("new", "orphan", "/var/lib/docker/aufs/diff/lost"),
        "{drifted:#?}"
    );
    assert!(has("new", "layer", "lost"), "{drifted:#?}");
    assert!(
        drifted
            .iter()
            .any(|(drift, record, _)| (&**drift, &**record) == ("changed", "space"))
    );
    for row in &rows {
        assert_eq!(row["time"], rows[0]["time"]);
        crate::schema::assert_promised("report", row);
    }

    // Without --changes nobody looks for changes: none is new, and none is gone.
    let counts = since(&host, &earlier, &[]).exits(0).rows();
    assert!(!records(&counts).contains_key("change"));
}

#[apply(test)]
fn what_is_not_known_is_not_gone() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let earlier = home.path().join("earlier.jsonl");
    let host = Host::copy_of("blog-host");
    written(&host, &earlier, &[]);
    let containers = host.at("/var/lib/docker/containers");
    for record in fs::read_dir(containers).expect("containers") {
        let record = record.expect("one").path().join("config.v2.json");
        fs::write(record, "{").expect("our own copy");
    }
    let rows = since(&host, &earlier, &[]).exits(2).rows();
    assert!(drift(&rows).iter().all(|(drift, ..)| drift != "gone"));
    assert!(records(&rows).contains_key("problem"));

    // What is new against a part of a report is not known, either.
    let whole = fs::read_to_string(&earlier).expect("a report");
    let (part, _) = whole.trim_end().rsplit_once('\n').expect("rows");
    fs::write(&earlier, format!("{part}\n")).expect("our own");
    let host = Host::copy_of("blog-host");
    since(&host, &earlier, &[])
        .exits(2)
        .says("is not the whole of a report");
}

#[apply(test)]
fn what_is_no_report_of_this_host_is_refused() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let earlier = home.path().join("earlier.jsonl");
    let host = Host::copy_of("blog-host");
    written(&host, &earlier, &["--host-id", "a"]);
    let refused = |words: &str, more: &[&str]| {
        let output = since(&host, &earlier, more).exits(2).says(words);
        assert_eq!(output.text(), "", "{words}");
    };
    refused("is a report of the host a", &["--host-id", "b"]);
    refused("has no changes", &["--host-id", "a", "--changes"]);
    let gone = home.path().join("gone.jsonl");
    let said = since(&host, &gone, &["--host-id", "a"]).exits(2).stderr;
    assert!(
        said.ends_with("gone.jsonl: No such file or directory\n"),
        "{said}"
    );
    let drift = since(&host, &earlier, &["--host-id", "a"]).exits(0);
    for (content, words) in [
        (drift.text(), "has only what was new then"),
        ("", "is empty"),
        ("{\"record\":\"container\"}\n", "is no report"),
        (
            "{\"record\":\"host\",\"schema_version\":9}\n",
            "no report of version 1",
        ),
        ("[]\n", "is no row"),
        ("what\n", "is no row"),
    ] {
        fs::write(&earlier, content).expect("our own");
        refused(words, &["--host-id", "a"]);
    }
    fs::remove_file(&earlier).expect("our own");
    refused("No such file", &[]);
    fs::create_dir(&earlier).expect("our own");
    refused("is no file", &[]);
}

// ---- where it goes ----

#[apply(test)]
fn a_file_is_replaced_whole_and_no_link_is_followed() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let host = Host::fixture("blog-host");
    // A report has what is closed to others; metrics are another program's to read.
    for (verb, readable) in [("report", 0o600), ("metrics", 0o644)] {
        let file = home.path().join(verb);
        let ask = || host.ask([verb, "-o", file.to_str().expect("UTF-8")]);
        assert_eq!(ask().exits(0).text(), "");
        let mode = || fs::metadata(&file).expect("made").permissions().mode() & 0o7777;
        assert_eq!(mode(), readable);
        fs::write(&file, "before").expect("our own");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("our own");
        ask().exits(0);
        assert!(fs::read_to_string(&file).expect("made").lines().count() > 10);
        assert_eq!(mode(), readable);

        let kept = home.path().join("kept");
        fs::write(&kept, "kept").expect("our own");
        fs::remove_file(&file).expect("our own");
        symlink(&kept, &file).expect("our own");
        ask().exits(2);
        assert_eq!(fs::read_to_string(&kept).expect("there"), "kept");
        assert_eq!(fs::read_link(&file).expect("a link"), kept);

        // Nothing half-made is left, and nothing is written into the host that is looked at.
        let names = fs::read_dir(home.path()).expect("our own");
        assert!(
            names
                .flatten()
                .all(|of| !of.file_name().to_string_lossy().starts_with('.'))
        );
        let copy = Host::copy_of("blog-host");
        let inside = copy.at("/etc/x");
        copy.ask([verb, "-o", inside.to_str().expect("UTF-8")])
            .exits(2)
            .says("lies in the host that is looked at");
        assert!(!inside.exists());
    }
}

/// However much was changed: the memory of a run that tells a hundred thousand changes is that of one
/// that tells none.
#[apply(test)]
fn takes_no_more_memory_for_more_changes() {
    needs::time();
    let host = Host::copy_of("blog-host");
    let writable = host.branches_of("determined_sammet").remove(0);
    let writable = String::from_utf8(writable).expect("an id");
    let peak = || {
        // One thread: how far others run ahead differs from run to run.
        let mut command = run::command();
        command.args(["-j", "1", "--root"]).arg(&host.root);
        peak_of(command.args(["report", "--changes"]))
    };
    let few = peak();
    for directory in 0..100 {
        let directory = host.at(format!("{writable}/srv/{directory}"));
        fs::create_dir_all(&directory).expect("our own copy");
        for file in 0..1000 {
            fs::write(directory.join(format!("a-name-of-some-length-{file}")), "")
                .expect("our own");
        }
    }
    let many = peak();
    // A row is some 200 bytes: all of them would be 20 MB.
    assert!(
        many < few + (6 << 10),
        "{few} kB for few, {many} kB for many"
    );
}

/// The most memory that a command had, in kB: what the kernel says of it while its output is read.
fn peak_of(command: &mut std::process::Command) -> u64 {
    use std::io::Read;
    let mut child = command
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("layerctl was built");
    let mut output = child.stdout.take().expect("a pipe");
    let mut part = vec![0; 1 << 16];
    let mut peak = 0;
    while output.read(&mut part).expect("a pipe") > 0 {
        let status = fs::read_to_string(format!("/proc/{}/status", child.id()));
        let status = status.unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok());
        peak = peak.max(kilobytes.unwrap_or(0));
    }
    assert!(child.wait().expect("our child").success());
    peak
}
