//! Podman 5.8 on captured hosts: its containers' state is in `db.sql`. What Podman and the kernel
//! said there is what layerctl has to say.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;

use crate::docker_drivers::{Change, View, change_of_row, entry_of_row, seen};
use crate::lab::captured::{Captured, Shared};
use crate::lab::host::Host;
use crate::lab::needs;
use crate::lab::run::{self, text, texts};

/// The hosts, which tests that run at one time share, and the second in which each was captured.
const HOSTS: [(&str, &str); 2] = [
    ("podman-5.8-overlay", "1795815281"),
    ("podman-5.8-composefs", "1795815481"),
];

fn hosts() -> Arc<Vec<Captured>> {
    static SHARED: Shared<Vec<Captured>> = Shared::new();
    SHARED.get(|| {
        needs::captured_hosts();
        HOSTS.map(|(name, _)| Captured::new(name)).into()
    })
}

/// The one without composefs.
fn overlay(hosts: &[Captured]) -> impl Iterator<Item = &Captured> {
    hosts.iter().filter(|host| host.name == HOSTS[0].0)
}

fn containers(host: &Captured) -> Vec<&str> {
    let mut names = host.named("inspect-", ".json");
    names.retain(|name| !name.starts_with("image-"));
    names
}

#[apply(test)]
fn containers_are_what_podman_lists_and_inspects() {
    for host in hosts().iter() {
        let rows = host.host.jsonl(["containers"]).exits(0).rows();
        assert_eq!(rows.len(), host.jsonl("ps.jsonl").len());
        for said in host.jsonl("ps.jsonl") {
            let name = said["Names"][0].as_str().expect("a name");
            let row = rows.iter().find(|row| row["id"] == said["Id"]);
            let row = row.expect("every container");
            assert_eq!(row["name"], *name);
            assert_eq!(row["image"], said["Image"]);
            assert_eq!(row["image_id"], said["ImageID"]);
            let command: Vec<&str> = said["Command"]
                .as_array()
                .expect("words")
                .iter()
                .filter_map(Value::as_str)
                .collect();
            assert_eq!(row["command"], command.join(" "), "{name}");
            let state = &host.inspected(name)["State"];
            assert_eq!(row["exit_code"], state["ExitCode"], "{name}");
            assert_eq!(row["created"], said["Created"], "{name}");
            let seconds = |field: &str| {
                let time = row[field].as_str()?;
                let time: jiff::Timestamp = time.parse().expect("a time");
                Some(time.as_second())
            };
            let said_seconds = |field: &str| said[field].as_i64().filter(|&time| time > 0);
            assert_eq!(seconds("started"), said_seconds("StartedAt"), "{name}");
            assert_eq!(seconds("finished"), said_seconds("ExitedAt"), "{name}");
        }
    }
}

/// A column of Podman's table, or of ours, by the container's name.
fn column(table: &str, heading: &str) -> BTreeSet<(String, String)> {
    let mut lines = table.lines();
    let headings = lines.next().expect("headings");
    let from = headings.find(heading).expect("the column");
    let rest = &headings[from + heading.len()..];
    let to = from + heading.len() + rest.len() - rest.trim_start().len();
    lines
        .map(|line| {
            let cell: String = line.chars().skip(from).take(to - from).collect();
            let name = line.split_whitespace().next_back().expect("a name");
            (name.to_owned(), cell.trim().to_owned())
        })
        .collect()
}

#[apply(test)]
fn states_and_ports_are_shown_as_podman_shows_them() {
    let hosts = hosts();
    for (host, (_, moment)) in hosts.iter().zip(HOSTS) {
        let mut command = run::command();
        command
            .env("SOURCE_DATE_EPOCH", moment)
            .arg("--root")
            .arg(&host.host.root)
            .args(["containers", "--no-trunc"]);
        let ours = run::run(&mut command).exits(0).text().to_owned();
        let said = host.said("ps.txt");
        assert_eq!(column(&ours, "PORTS"), column(said, "PORTS"));
        // Docker's words, and no ages: the capture took some seconds.
        let word = |(name, status): (String, String)| {
            let word = match status.split_once(')') {
                Some((exited, _)) if exited.starts_with("Exited (") => format!("{exited})"),
                _ if status.contains("Paused") => "Paused".to_owned(),
                _ => status.split(' ').next().unwrap_or_default().to_owned(),
            };
            (name, word)
        };
        let words = |table: &str| -> BTreeSet<(String, String)> {
            column(table, "STATUS").into_iter().map(word).collect()
        };
        assert_eq!(words(&ours), words(said));
        assert!(words(said).iter().any(|(_, word)| word == "Exited (3)"));
    }
}

#[apply(test)]
fn images_and_histories_are_podmans() {
    needs::time();
    let hosts = hosts();
    for host in hosts.iter() {
        let rows = host.host.jsonl(["images", "--all"]).exits(0).rows();
        let ours: BTreeMap<String, BTreeSet<String>> = rows
            .iter()
            .map(|row| {
                let tags = row["tags"].as_array().expect("tags").iter();
                let tags = tags.map(|tag| tag.as_str().expect("a tag").to_owned());
                (text(row, "id").to_owned(), tags.collect())
            })
            .collect();
        let said = host.listed_images();
        assert_eq!(ours.len(), rows.len());
        assert_eq!(ours, said);
        for name in host.named("inspect-image-", ".json") {
            let said = host.inspected(&format!("image-{name}"));
            let id = text(&said, "Id");
            let row = rows.iter().find(|row| row["id"] == id).expect("the image");
            assert_eq!(row["size"], said["Size"], "{name}");
            let steps = host.host.jsonl(["history", id]).exits(0).rows();
            let mut history = texts(said["History"].as_array().expect("a history"), "created_by");
            history.reverse();
            assert_eq!(texts(&steps, "instruction"), history, "{name}");
        }
    }
}

/// What Podman said is deleted that is there, and what is true instead: a directory was removed and
/// made anew, and a file took a directory's place.
const REMADE: [(&str, &str); 2] = [("paused-6", "/usr/share/doc"), ("web-2", "/opt/app/3")];
/// Where it compares two views, as on composefs, it does not; and names directories of which the time
/// differs.
const OF_ANOTHER_TIME: [(&str, &str); 2] =
    [("stopped-7", "/data/sticky"), ("web-1", "/data/sticky")];
/// It fails where a file became a directory.
const FAILED_WITH: &str = "/opt/app/2/in: not a directory";

#[apply(test)]
fn changes_are_podman_diff_without_podmans_errors() {
    let hosts = hosts();
    for host in hosts.iter() {
        let mut failed = Vec::new();
        for name in containers(host) {
            let diff = &host.truth[&format!("diff-{name}.json")];
            if diff.is_empty() {
                let words = host.said(&format!("diff-{name}.err")).trim_end();
                assert!(words.ends_with(FAILED_WITH), "{words}");
                failed.push(name);
                continue;
            }
            let mut said: BTreeSet<Change> = BTreeSet::new();
            let diff = host.json(&format!("diff-{name}.json"));
            for (letter, of) in [(b'A', "added"), (b'C', "changed"), (b'D', "deleted")] {
                let paths = diff[of].as_array().into_iter().flatten();
                said.extend(paths.map(|path| {
                    // Of the one name that is no text JSON keeps where the odd byte was.
                    let path = path.as_str().expect("a path").split('\u{fffd}');
                    let path: Vec<&[u8]> = path.map(str::as_bytes).collect();
                    (letter, path.join(&b"\xff"[..]))
                }));
            }
            if host.name == HOSTS[1].0 {
                for (_, path) in OF_ANOTHER_TIME.iter().filter(|(of, _)| *of == name) {
                    assert!(said.remove(&(b'C', path.as_bytes().to_vec())), "{name}");
                }
                host.compare_changes(&["changes", name], &said);
                continue;
            }
            for (_, path) in REMADE.iter().filter(|(of, _)| *of == name) {
                let path = path.as_bytes();
                assert!(said.remove(&(b'D', path.to_vec())), "{name}");
                said.insert((b'C', path.to_vec()));
                // What was in it before, and is not any more.
                said.extend(gone(host, name, path).into_iter().map(|path| (b'D', path)));
            }
            host.compare_changes(&["changes", name], &said);
        }
        let fails = host.name == HOSTS[0].0;
        assert_eq!(
            failed,
            if fails {
                &["stopped-7", "web-1"][..]
            } else {
                &[]
            }
        );
    }
}

fn view(host: &Captured, file: &str) -> View {
    // An export tells the size of a hard link at the first of its names only.
    seen(&host.said(file).replace("\"hardlink\":", "\"hardlink_to\":")).0
}

/// What Podman makes in a container to mount something on: no change.
const MADE: [&[u8]; 6] = [
    b"/etc/hostname",
    b"/etc/hosts",
    b"/etc/mtab",
    b"/etc/resolv.conf",
    b"/run/.containerenv",
    b"/run/secrets",
];

/// What the kernel showed below a directory without the container's own layer, and not with it.
fn gone(host: &Captured, name: &str, directory: &[u8]) -> Vec<Vec<u8>> {
    let inside = [directory, b"/"].concat();
    let now = view(host, &format!("merged-{name}.jsonl"));
    let before = view(host, &format!("lower-{name}.jsonl"));
    let mut gone: Vec<Vec<u8>> = before.into_keys().collect();
    gone.retain(|path| path.starts_with(&inside) && !now.contains_key(path));
    assert!(!gone.is_empty());
    gone
}

/// Where Podman fails there is what the kernel showed with the container's layer and without it.
#[apply(test)]
fn changes_are_what_the_kernel_showed() {
    let hosts = hosts();
    for host in overlay(&hosts) {
        for name in containers(host) {
            let (now, over) = beside_mounts(host, &format!("merged-{name}.jsonl"));
            let (before, _) = beside_mounts(host, &format!("lower-{name}.jsonl"));
            let rows = host.host.jsonl(["changes", name]).exits(0).rows();
            let ours: BTreeSet<Change> = rows.iter().map(change_of_row).collect();
            for (letter, path) in &ours {
                let (is_now, was) = (now.contains_key(path), before.contains_key(path));
                if over.iter().any(|over| path.starts_with(over)) {
                    continue;
                }
                let expected = match letter {
                    b'A' => (true, false),
                    b'C' => (true, true),
                    _ => (false, true),
                };
                assert_eq!((is_now, was), expected, "{name} {}", path.escape_ascii());
            }
            let ours: BTreeSet<&[u8]> = ours.iter().map(|(_, path)| &path[..]).collect();
            let is_told = |path: &[u8]| {
                let mut ends = (1..path.len()).filter(|&at| path[at] == b'/');
                ours.contains(path) || ends.any(|at| ours.contains(&path[..at]))
            };
            let all: BTreeSet<&Vec<u8>> = now.keys().chain(before.keys()).collect();
            for path in all {
                let is_over = over.iter().any(|over| path.starts_with(over));
                let is_over = is_over || MADE.iter().any(|made| path == made);
                let is_same = now.get(path) == before.get(path);
                assert!(
                    is_over || is_same || is_told(path),
                    "{name} {}",
                    path.escape_ascii()
                );
            }
        }
    }
}

/// A view of the kernel's, and what was mounted over it.
fn beside_mounts(host: &Captured, file: &str) -> (View, Vec<Vec<u8>>) {
    let rows = host.jsonl(file);
    let over = rows.iter().filter(|row| row["mounted_over"] == true);
    let over = over.map(|row| text(row, "path").as_bytes().to_vec());
    (view(host, file), over.collect())
}

#[apply(test)]
fn the_view_is_what_the_kernel_showed() {
    needs::time();
    let hosts = hosts();
    for host in hosts.iter() {
        for file in host.named("merged-", ".jsonl") {
            let name = file.strip_prefix("export-").unwrap_or(file);
            let (mut engine, over) = beside_mounts(host, &format!("merged-{file}.jsonl"));
            let rows = host.host.jsonl(["ls", "-R", "-l", name]).exits(0).rows();
            let mut ours: View = rows.iter().map(entry_of_row).collect();
            ours.retain(|path, _| {
                let mut over = over.iter();
                !over.any(|over| {
                    path.len() > over.len() && path.starts_with(&[over, &b"/"[..]].concat())
                })
            });
            for path in &over {
                for view in [&mut engine, &mut ours] {
                    if let Some(entry) = view.get_mut(path) {
                        (entry.rights, entry.size) = (None, None);
                    }
                }
            }
            let paths: BTreeSet<&Vec<u8>> = engine.keys().chain(ours.keys()).collect();
            for path in paths {
                let is_same = engine.get(path) == ours.get(path);
                let (engine, ours) = (engine.get(path), ours.get(path));
                assert!(
                    is_same,
                    "{file} {}: {engine:?} {ours:?}",
                    path.escape_ascii()
                );
            }
        }
    }
}

/// Podman's own sign that it has worked since the machine was started is gone, or of another start:
/// what ran has exited, as `podman ps -a` says then.
#[apply(test)]
fn nothing_runs_after_the_machine_was_started_anew() {
    needs::captured_hosts();
    let captured = Captured::new(HOSTS[0].0);
    let host = &captured.host;
    let states = || {
        let rows = host.jsonl(["containers"]).exits(0).rows();
        let state = |row: &Value| {
            let told = (text(row, "state").to_owned(), row["exit_code"].clone());
            (text(row, "name").to_owned(), told)
        };
        rows.iter().map(state).collect::<BTreeMap<_, _>>()
    };
    let before = states();
    let ran = |state: &str| matches!(state, "running" | "paused");
    assert!(before.values().any(|(state, _)| ran(state)), "{before:?}");
    let sign = host.at("/run/libpod/alive");
    let noted = std::fs::read(&sign).expect("it was captured");
    // Processes that are there are better evidence than a file that is not.
    std::fs::remove_file(&sign).expect("our own");
    assert_eq!(states(), before);
    for entry in std::fs::read_dir(host.at("/proc")).expect("it was captured") {
        let entry = entry.expect("readable");
        let name = entry.file_name();
        if name
            .to_string_lossy()
            .bytes()
            .all(|byte| byte.is_ascii_digit())
        {
            std::fs::remove_dir_all(entry.path()).expect("our own");
        }
    }
    let expected: BTreeMap<_, _> = before
        .iter()
        .map(|(name, (state, code))| {
            let state = if ran(state) { "exited" } else { state };
            (name.clone(), (state.to_owned(), code.clone()))
        })
        .collect();
    assert_eq!(states(), expected);
    // The same start of the machine, and another.
    let boot = "/proc/sys/kernel/random/boot_id";
    host.file("/run/libpod/alive", &noted).file(boot, &noted);
    assert_eq!(states(), before);
    host.file(boot, "0f1e2d3c-0000-4000-8000-000000000000\n");
    assert_eq!(states(), expected);
}

/// What came of a container's own checks is in a file beside its run directory.
#[apply(test)]
fn health_is_told_as_podman_tells_it() {
    needs::captured_hosts();
    let host = Host::captured("podman-5.8-overlay");
    let database = host.at("/var/lib/containers/storage/db.sql");
    let connection = rusqlite::Connection::open(database).expect("its database");
    let containers = host.jsonl(["containers"]).exits(0).rows();
    let id = |name: &str| {
        let mut rows = containers.iter();
        let row = rows.find(|row| row["name"] == name).expect("a container");
        text(row, "id").to_owned()
    };
    for (name, status) in [
        (
            "web-1",
            r#"{"Status":"unhealthy","FailingStreak":3,"Log":[]}"#,
        ),
        (
            "web-2",
            r#"{"Status":"starting","FailingStreak":0,"Log":null}"#,
        ),
        (
            "stopped-7",
            r#"{"Status":"healthy","FailingStreak":0,"Log":[]}"#,
        ),
        ("ro-5", "no JSON"),
    ] {
        let checks = r#"{"Test":["CMD-SHELL","true"],"Interval":30000000000}"#;
        let sql = "UPDATE ContainerConfig SET JSON = json_set(CAST(JSON AS TEXT), '$.healthcheck', json(?1)) WHERE ID = ?2";
        connection
            .execute(sql, [checks, &id(name)])
            .expect("a row of its own");
        let run = "/run/containers/storage/overlay-containers";
        host.file(format!("{run}/{}/healthcheck.log", id(name)), status);
    }
    drop(connection);
    let told = host.jsonl(["containers"]).exits(0).rows();
    for (name, health) in [
        ("web-1", Value::from("unhealthy")),
        ("web-2", Value::from("starting")),
        ("stopped-7", Value::Null),
        ("ro-5", Value::Null),
        ("paused-6", Value::Null),
    ] {
        let row = told.iter().find(|row| row["name"] == name).expect("it");
        assert_eq!(row["health"], health, "{row}");
    }
    let table = host.ask(["containers"]).exits(0).text().to_owned();
    let line = |name: &str| {
        let mut lines = table.lines();
        lines.find(|line| line.ends_with(name)).expect("a line")
    };
    assert!(line("web-1").contains(" (unhealthy) "), "{table}");
    // Docker says what is starting.
    assert!(line("web-2").contains(" (starting) "), "{table}");
}
