//! Messages and findings say of which container or image they are, as it can be typed, and not only by
//! the hashes of layers.

use std::collections::BTreeSet;
use std::fs;

use crate::lab::host::Host;
use crate::lab::needs;
use crate::lab::run::{text, texts};
use crate::lab::terminal;

const LAYERS: &str = "/var/lib/docker/overlay2";

/// A host on which one image layer's content is gone, and the layer.
fn without_a_layer() -> (Host, String) {
    needs::captured_hosts();
    let host = Host::captured("docker-28-overlay2");
    let branches = host.branches_of("lab/web:2");
    // Not the lowest: that is lab/base's, too.
    let second = &branches[branches.len() - 2];
    let directory = String::from_utf8(second.clone()).expect("plain names");
    fs::remove_dir_all(host.at(&directory)).expect("our own");
    let layer = directory
        .strip_prefix(LAYERS)
        .and_then(|rest| rest.strip_suffix("/diff"))
        .expect("a layer");
    (host, layer.trim_start_matches('/').to_owned())
}

/// The containers that stand on the image.
fn containers_on_it(host: &Host) -> BTreeSet<String> {
    let rows = host.jsonl(["containers"]).exits(0).rows();
    let of_image = |row: &&serde_json::Value| {
        let image = text(row, "image");
        image.starts_with("lab/web")
    };
    let all = rows.iter().filter(of_image);
    all.map(|row| text(row, "target").to_owned()).collect()
}

#[apply(test)]
fn each_message_about_a_union_names_it() {
    let (host, layer) = without_a_layer();
    let lost = format!("{LAYERS}/{layer}/diff) could not be read");
    let all = containers_on_it(&host);
    for verb in ["changes", "whiteouts", "copyups", "check"] {
        let said = host.ask([verb]).exits(2).stderr;
        let lines: Vec<&str> = said.lines().filter(|line| line.contains(&lost)).collect();
        assert!(!lines.is_empty(), "{verb}: {said}");
        // Each says whose it is, and what is there can be typed.
        let mut counted = 0;
        for line in lines {
            let of = line
                .strip_prefix("layerctl: ")
                .and_then(|line| line.split_once(": branch "));
            let of = of.unwrap_or_else(|| panic!("{line}")).0;
            let (named, more) = match of.split_once(" and ") {
                Some((named, more)) => (
                    named,
                    more.trim_end_matches(" more").parse().expect("a number"),
                ),
                None => (of, 0),
            };
            for name in named.split(", ") {
                assert!(all.contains(name), "{name}: {line}");
                host.ask(["branches", name]);
                counted += 1;
            }
            counted += more;
        }
        assert_eq!(counted, all.len(), "{verb}: {said}");
    }
    // The same where one was named.
    for words in [
        ["ls", "web-1:/"],
        ["which", "web-1:/etc/motd"],
        ["changes", "web-1"],
    ] {
        let said = host.ask(words).exits(2).stderr;
        assert!(
            said.contains("layerctl: docker:web-1: branch "),
            "{words:?}: {said}"
        );
    }
}

/// What cannot be read in one of several.
#[apply(test)]
fn an_error_in_a_tree_of_several_names_the_union() {
    needs::captured_hosts();
    let host = Host::captured("docker-28-overlay2");
    let records = format!(
        "/var/lib/docker/image/overlay2/layerdb/mounts/{}",
        id_of(&host, "job-3")
    );
    host.file(format!("{records}/mount-id"), "../../etc");
    let said = host
        .ask(["changes", "--", "web-1", "job-3"])
        .exits(2)
        .stderr;
    assert!(said.contains("mount-id"), "{said}");
    let said = host.ask(["changes"]).exits(2).stderr;
    let line = said.lines().find(|line| line.contains("mount-id"));
    assert!(
        line.is_some_and(|line| line.starts_with("layerctl: docker:job-3: ")),
        "{said}"
    );
    // A report says it in a field of its own.
    let rows = host.jsonl(["report"]).rows();
    let problem = rows
        .iter()
        .find(|row| row["record"] == "problem" && row["target"] == "docker:job-3");
    let problem = problem.expect("the problem");
    assert!(text(problem, "problem").contains("mount-id"), "{problem}");
}

/// A pipe gets each message once, with how often it came, and nothing of a terminal's.
#[apply(test)]
fn what_repeats_is_said_once_with_a_count() {
    let (host, _) = without_a_layer();
    let records = "/var/lib/docker/image/overlay2/layerdb/mounts";
    for id in ["job-3", "snap-8"].map(|name| id_of(&host, name)) {
        host.file(format!("{records}/{id}/mount-id"), "../../etc");
    }
    let mut counted = 0;
    for words in [
        &["containers"][..],
        &["changes"],
        &["whiteouts"],
        &["copyups"],
        &["check"],
        &["du"],
        &["orphans"],
        &["find", "passwd"],
        &["which", "/etc/passwd"],
        &["branches"],
        &["verify"],
    ] {
        let said = host.ask(words).stderr;
        let lines: Vec<&str> = said
            .lines()
            .filter(|line| line.starts_with("layerctl: "))
            .collect();
        let different: BTreeSet<&str> = lines.iter().copied().collect();
        assert_eq!(lines.len(), different.len(), "{words:?}: {said}");
        assert!(
            !said.contains('\u{1b}') && !said.contains('\r'),
            "{words:?}: {said:?}"
        );
        counted += said.matches(" times)").count();
    }
    assert!(counted > 0);
}

fn id_of(host: &Host, name: &str) -> String {
    let rows = host.jsonl(["containers"]).exits(0).rows();
    let row = rows.iter().find(|row| row["name"] == name);
    text(row.expect("the container"), "id").to_owned()
}

#[apply(test)]
fn a_finding_about_a_layer_says_whose_it_is() {
    let (host, layer) = without_a_layer();
    let rows = host.jsonl(["check"]).exits(2).rows();
    let link = fs::read_to_string(host.at(format!("{LAYERS}/{layer}/link"))).expect("a short name");
    let of_it = |row: &&serde_json::Value| text(row, "path").ends_with(&format!("/l/{link}"));
    let found: Vec<_> = rows.iter().filter(of_it).collect();
    assert!(!found.is_empty(), "{rows:?}");
    for row in found {
        let users: BTreeSet<&str> = row["users"]
            .as_array()
            .expect("users")
            .iter()
            .filter_map(|of| of.as_str())
            .collect();
        assert!(
            users.contains("docker:lab/web:2") && users.contains("docker:web-1"),
            "{row}"
        );
        assert!(
            !users.contains("docker:lab/base:1") && !users.contains("docker:paused-6"),
            "{row}"
        );
        for user in users {
            assert!(
                host.ask(["branches", user]).status != Some(2)
                    || user.contains("web")
                    || user.contains('-'),
                "{user}"
            );
        }
    }
    let table = host.ask(["check"]);
    assert!(
        table.text().contains("USED BY") && table.text().contains(" and "),
        "{}",
        table.text()
    );
}

/// On a narrow screen nothing is cut that tells what to do; what has no room has a line of its own.
#[apply(test)]
fn what_is_needed_to_act_is_whole_on_every_screen() {
    let (host, _) = without_a_layer();
    let root = host.root.to_str().expect("plain names");
    let unused = host.jsonl(["orphans", "--unused"]).rows();
    let found = host.jsonl(["check"]).rows();
    assert!(unused.len() > 2 && found.len() > 1);
    for columns in [50, 80, 120, 400] {
        let screen = |words: &[&str]| {
            let words = ["--root", root].into_iter().chain(words.iter().copied());
            terminal::run_at(columns, &[("NO_COLOR", "1")], words.collect::<Vec<_>>()).1
        };
        let seen = screen(&["orphans", "--unused"]);
        for field in ["name", "command", "path", "why"] {
            for value in texts(&unused, field) {
                let shown = if field == "name" {
                    &value[..value.len().min(12)]
                } else {
                    value
                };
                assert!(seen.contains(shown), "{columns}: {value}\n{seen}");
            }
        }
        let is_path = |line: &&str| line.trim_start().starts_with('/') || line.contains("  /");
        assert!(seen.lines().skip(1).any(|line| is_path(&line)), "{seen}");
        let seen = screen(&["check"]);
        for field in ["means", "path"] {
            for value in texts(&found, field) {
                assert!(seen.contains(value), "{columns}: {value}\n{seen}");
            }
        }
        // The path comes last, so that a long one hides nothing.
        for line in seen
            .lines()
            .filter(|line| line.contains(LAYERS) && !line.contains('"'))
        {
            assert!(
                line.trim_start().starts_with('/')
                    || line
                        .rsplit("  ")
                        .next()
                        .is_some_and(|last| last.starts_with('/')),
                "{line}"
            );
        }
    }
}

/// Of two stores each sum says whose it is.
#[apply(test)]
fn a_sum_of_several_stores_says_of_which() {
    needs::captured_hosts();
    let host = Host::captured("docker-28-overlay2");
    let podman = Host::captured("podman-5.8-overlay");
    let home = "/var/lib/containers";
    fs::create_dir_all(host.at("/var/lib")).expect("our own");
    fs::rename(podman.at(home), host.at(home)).expect("our own");
    let root = host.root.to_str().expect("plain names");
    for columns in [50, 80] {
        let words = ["--root", root, "du"];
        let (_, seen) = terminal::run_at(columns, &[("NO_COLOR", "1")], words);
        let sums: Vec<&str> = seen
            .lines()
            .filter(|line| line.contains(" total "))
            .collect();
        for (engine, store) in [
            ("docker", "/var/lib/docker"),
            ("podman", "/var/lib/containers/storage"),
        ] {
            let is_its = |line: &&&str| line.starts_with(engine) && line.ends_with(store);
            assert_eq!(sums.iter().filter(is_its).count(), 1, "{columns}: {seen}");
        }
    }
}
