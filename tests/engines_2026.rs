//! Captured hosts of today's engines, with what the engines and the kernel said on them: Docker 28
//! with both of its image stores.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::lab::captured::{Captured, Shared};
use crate::lab::host::Host;
use crate::lab::run::{bytes, text};
use crate::lab::store::{self, Snapshot};
use crate::lab::{needs, table};

fn dockers() -> Arc<Vec<Captured>> {
    static SHARED: Shared<Vec<Captured>> = Shared::new();
    SHARED.get(|| {
        needs::captured_hosts();
        let names = ["docker-28-overlay2", "docker-28-containerd"];
        names.into_iter().map(Captured::new).collect()
    })
}

fn answer(of: &Captured, arguments: &[&str]) -> String {
    of.host.ask(arguments).exits(0).text().to_owned()
}

#[apply(test)]
fn containers_are_those_of_docker_ps() {
    for of in dockers().iter() {
        let said = of.jsonl("ps.jsonl");
        let ours = of.host.jsonl(["containers"]).exits(0).rows();
        assert_eq!(ours.len(), said.len(), "{}", of.name);
        for (ours, said) in ours.iter().zip(&said) {
            assert_eq!(text(ours, "id"), text(said, "ID"), "{}", of.name);
            assert_eq!(text(ours, "name"), text(said, "Names"));
            assert_eq!(text(ours, "image"), text(said, "Image"));
            assert_eq!(text(ours, "state"), text(said, "State"));
            let status = text(said, "Status");
            if let Some(code) = status.strip_prefix("Exited (") {
                let code = code.split(')').next().unwrap_or_default();
                assert_eq!(ours["exit_code"].to_string(), code, "{status}");
            }
        }
    }
}

#[apply(test)]
fn images_are_those_of_docker_images() {
    for of in dockers().iter() {
        let (said, ours) = (of.said("images.txt"), answer(of, &["images"]));
        for heading in ["REPOSITORY", "TAG", "SIZE"] {
            let mut said = table::column(said, heading);
            let mut ours = table::column(&ours, heading);
            if heading != "SIZE" {
                // Names of one image, and images of one second, come in an order of their own.
                said.sort();
                ours.sort();
            }
            assert_eq!(ours, said, "{} {heading}", of.name);
        }
        let ids = table::column(said, "IMAGE ID");
        let mut ids: Vec<&str> = ids.iter().map(|id| &id["sha256:".len()..][..12]).collect();
        let mut ours = table::column(&ours, "IMAGE ID");
        ids.sort_unstable();
        ours.sort();
        assert_eq!(ours, ids, "{}", of.name);
    }
}

#[apply(test)]
fn histories_are_those_of_docker_history() {
    for of in dockers().iter() {
        for name in of.named("history-", ".txt") {
            // `lab_web_2` is `lab/web:2`.
            let image = match name.rsplit_once('_') {
                Some((repository, tag)) => {
                    let port = repository.replace("5000_", ":5000/").replace("_:", ":");
                    format!("{}:{tag}", port.replace('_', "/"))
                }
                None => name.to_owned(),
            };
            let said = of.said(&format!("history-{name}.txt"));
            let ours = answer(of, &["history", &image]);
            for heading in ["SIZE", "COMMENT"] {
                let (said, ours) = (table::column(said, heading), table::column(&ours, heading));
                assert_eq!(ours, said, "{} {image} {heading}", of.name);
            }
            let short = |id: &String| match id.strip_prefix("sha256:") {
                Some(hex) => hex[..12].to_owned(),
                None => id.clone(),
            };
            let said: Vec<String> = table::column(said, "IMAGE").iter().map(short).collect();
            assert_eq!(table::column(&ours, "IMAGE"), said, "{} {image}", of.name);
        }
    }
}

#[apply(test)]
fn changes_are_those_of_docker_diff() {
    for of in dockers().iter() {
        for name in of.named("diff-", ".json") {
            let said = of.json(&format!("diff-{name}.json"));
            let said = said.as_array().cloned().unwrap_or_default();
            let said: BTreeSet<(String, &str)> = said
                .iter()
                .map(|change| {
                    let kind = match change["Kind"].as_u64() {
                        Some(0) => "changed",
                        Some(1) => "added",
                        _ => "deleted",
                    };
                    (text(change, "Path").to_owned(), kind)
                })
                .collect();
            let rows = of.host.jsonl(["changes", name]).exits(0).rows();
            let ours: BTreeSet<(String, &str)> = rows
                .iter()
                .map(|row| {
                    // The engine prints what is not UTF-8 as U+FFFD.
                    let path = String::from_utf8_lossy(&bytes(&row["path"])).into_owned();
                    (path, text(row, "change"))
                })
                .collect();
            assert_eq!(ours, said, "{} {name}", of.name);
        }
    }
}

/// A path whose bytes are percent-encoded.
fn decoded(path: &str) -> Vec<u8> {
    let mut parts = path.as_bytes().split(|&byte| byte == b'%');
    let mut bytes = parts.next().unwrap_or_default().to_vec();
    for part in parts {
        let hex = std::str::from_utf8(&part[..2]).expect("two digits");
        bytes.push(u8::from_str_radix(hex, 16).expect("two digits"));
        bytes.extend(&part[2..]);
    }
    bytes
}

#[apply(test)]
fn views_are_those_of_the_kernel() {
    for of in dockers().iter() {
        for name in of.named("merged-", ".jsonl") {
            let said = of.jsonl(&format!("merged-{name}.jsonl"));
            let hidden: Vec<Vec<u8>> = said
                .iter()
                .filter(|row| row["mounted_over"] == true)
                .map(|row| decoded(text(row, "path")))
                .collect();
            let is_hidden = |path: &[u8]| {
                hidden.iter().any(|point| {
                    path.strip_prefix(&point[..])
                        .is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
                })
            };
            let kind = |row: &Value| {
                let mode = text(row, "mode");
                match u32::from_str_radix(mode, 8).expect("octal") & 0o170_000 {
                    0o040_000 => "directory",
                    0o120_000 => "symlink",
                    0o100_000 => "file",
                    _ => "other",
                }
            };
            let said: BTreeSet<(Vec<u8>, &str)> = said
                .iter()
                .map(|row| (decoded(text(row, "path")), kind(row)))
                .filter(|(path, _)| !is_hidden(path))
                .collect();
            let rows = of.host.jsonl(["ls", "-R", name]).exits(0).rows();
            let ours: BTreeSet<(Vec<u8>, &str)> = rows
                .iter()
                .map(|row| match text(row, "type") {
                    kind @ ("directory" | "symlink" | "file") => (bytes(&row["path"]), kind),
                    _ => (bytes(&row["path"]), "other"),
                })
                .filter(|(path, _)| !is_hidden(path))
                .collect();
            assert_eq!(ours, said, "{} {name}", of.name);
        }
    }
}

/// What the engines' own listings of running containers have is beside what is mounted there.
const MOUNTED: [&str; 8] = [
    "/etc/hosts",
    "/etc/hostname",
    "/etc/resolv.conf",
    "/dev",
    "/proc",
    "/sys",
    "/run/secrets",
    "/run/.containerenv",
];

#[apply(test)]
fn every_file_that_is_handed_over_has_the_content_that_the_engine_listed() {
    needs::time();
    needs::captured_hosts();
    let mut compared = 0;
    for host in [
        "docker-28-overlay2",
        "docker-28-containerd",
        "docker-overlay2",
        "docker-vfs",
        "podman-5.8-overlay",
        "podman-overlay",
    ] {
        let of = Captured::new(host);
        for name in of.named("merged-", ".jsonl") {
            if name.starts_with("export-") {
                continue;
            }
            let said = of.jsonl(&format!("merged-{name}.jsonl"));
            let mut hidden: Vec<Vec<u8>> = MOUNTED.map(|path| path.as_bytes().to_vec()).to_vec();
            let is_over = |row: &&Value| row["mounted_over"] == true;
            hidden.extend(
                said.iter()
                    .filter(is_over)
                    .map(|row| decoded(text(row, "path"))),
            );
            let is_hidden = |path: &[u8]| {
                hidden.iter().any(|point| {
                    path.strip_prefix(&point[..])
                        .is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
                })
            };
            let output = of.host.ask(["cp", &format!("{name}:/"), "-"]);
            assert!(matches!(output.status, Some(0 | 2)), "{}", output.stderr);
            let sums = sums(&output.stdout);
            for row in &said {
                let path = decoded(text(row, "path"));
                // Of larger ones the captured host has holes.
                let is_kept = row["size"].as_u64().is_some_and(|size| size <= 64 << 10);
                let Some(sum) = row["sha256"].as_str().filter(|_| is_kept) else {
                    continue;
                };
                if !is_hidden(&path) {
                    let found = sums.get(path.strip_prefix(b"/").expect("absolute"));
                    let path = path.escape_ascii();
                    assert_eq!(
                        found.map(String::as_str),
                        Some(sum),
                        "{host} {name}: {path}"
                    );
                    compared += 1;
                }
            }
        }
    }
    assert!(compared > 500, "{compared}");
}

/// The sums of all files in a tar file.
fn sums(archive: &[u8]) -> BTreeMap<Vec<u8>, String> {
    let mut all = BTreeMap::new();
    let mut archive = tar::Archive::new(archive);
    for entry in archive.entries().expect("a tar file") {
        let mut entry = entry.expect("an entry");
        let path = entry.path_bytes().into_owned();
        let link = entry.link_name_bytes().unwrap_or_default().into_owned();
        if entry.header().entry_type() == tar::EntryType::Link {
            let known: Option<&String> = all.get(&link);
            let known = known.cloned().unwrap_or_default();
            all.insert(path, known);
            continue;
        }
        let mut content = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut content).expect("content");
        let digits = Sha256::digest(&content);
        let sum = digits.iter().map(|byte| format!("{byte:02x}")).collect();
        all.insert(path, sum);
    }
    all
}

/// The build cache, in both image stores: Docker's own list of it. What a build remembers is of a
/// namespace of its own.
#[apply(test)]
fn the_build_cache_is_that_of_docker_system_df() {
    needs::time();
    for of in dockers().iter() {
        let said = of.said("system-df.txt");
        let (_, said) = said.split_once("CACHE ID").expect("a build cache");
        let said: BTreeSet<&str> = said
            .lines()
            .skip(1)
            .filter_map(|line| line.split_whitespace().next())
            .collect();
        let unused = of.host.jsonl(["orphans", "--unused"]).exits(1).rows();
        let cache = unused.iter().filter(|row| row["kind"] == "build-cache");
        let mut ours: BTreeSet<String> = BTreeSet::new();
        for row in cache {
            let name = text(row, "name");
            let own = name.strip_prefix("moby/").unwrap_or(name);
            match name.split_once('/') {
                Some(("moby_history", _)) => {
                    assert_eq!(row["command"], "docker buildx history rm --all", "{row}");
                }
                _ => assert_eq!(row["command"], "docker builder prune", "{row}"),
            }
            // Views of its are no entries of the list, and content has digests.
            if own.len() == 25 {
                ours.insert(own[..12].to_owned());
            }
        }
        // Those that an image has, too, are in use.
        let is_shared = |id: &&&str| !ours.contains(**id);
        let missing: Vec<_> = said.iter().filter(is_shared).collect();
        if of.name.ends_with("containerd") {
            assert!(missing.is_empty(), "{}: {missing:?}", of.name);
        }
        let strange: Vec<_> = ours.iter().filter(|id| !said.contains(&***id)).collect();
        assert!(strange.is_empty(), "{}: {strange:?}", of.name);
        let in_progress = unused.iter().find(|row| row["kind"] == "in-progress");
        assert_eq!(in_progress, None, "{}", of.name);
        let rows = of.host.jsonl(["du"]).exits(0).rows();
        let of_kind = |kind: &str| rows.iter().find(|row| row["kind"] == kind);
        let size = of_kind("build-cache").expect("a row")["disk"].as_u64();
        assert!(size > Some(2_372_000), "{}: {size:?}", of.name);
        assert_eq!(
            of_kind("unused").map_or(0, |row| row["disk"].as_u64().unwrap_or(0)),
            0,
            "{}",
            of.name
        );
    }
    let of = &dockers()[1];
    let snapshots =
        "/var/lib/docker/containerd/daemon/io.containerd.snapshotter.v1.overlayfs/snapshots";
    let kinds: BTreeSet<String> = std::fs::read_dir(of.host.at(snapshots))
        .expect("a directory")
        .flatten()
        .map(|entry| {
            let path = format!("{snapshots}/{}", entry.file_name().display());
            let row = of.host.jsonl(["whois", &path]).exits(0).row();
            for user in row["containers"].as_array().into_iter().flatten() {
                assert_eq!(text(user, "id").len(), 64, "{row}");
            }
            text(&row, "kind").to_owned()
        })
        .collect();
    let expected = ["build-cache", "container", "image", "init"];
    assert_eq!(kinds, expected.map(str::to_owned).into());
}

/// What other engines have in the machine's containerd is told by itself.
#[apply(test)]
fn a_containerd_that_others_use_tells_dockers_layers_as_dockers() {
    let host = Host::empty();
    let id: &'static str = Box::leak("c".repeat(64).into_boxed_str());
    let init: &'static str = Box::leak(format!("{id}-init").into_boxed_str());
    let record = serde_json::json!({
        "ID": id, "Name": "/web", "Driver": "overlayfs", "Created": "2026-01-02T03:04:05Z",
        "State": {}, "Image": format!("sha256:{id}"), "Config": {"Image": "acme/app:1"},
    });
    host.file(
        format!("/var/lib/docker/containers/{id}/config.v2.json"),
        record.to_string(),
    );
    let moby = store::Namespace {
        snapshots: vec![Snapshot(1, init, None, 3), Snapshot(2, id, Some(init), 2)],
        ..store::Namespace::default()
    };
    let others = store::Namespace {
        snapshots: vec![Snapshot(3, "db", None, 2)],
        containers: vec![("db", "db")],
        ..store::Namespace::default()
    };
    let spaces = [("default", others), ("moby", moby)];
    store::containerd(&host, "/var/lib/containerd", &spaces, &[]);
    let at = |number: u8| {
        format!("/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots/{number}")
    };
    host.file(format!("{}/fs/big", at(2)), vec![7; 200_000]);
    host.settle();
    for (number, kind, engine, name) in [
        (1, "init", "docker", "web"),
        (2, "container", "docker", "web"),
        (3, "container", "containerd", "db"),
    ] {
        let row = host.jsonl(["whois", &at(number)]).exits(0).row();
        let told = (text(&row, "kind"), text(&row, "engine"));
        assert_eq!(told, (kind, engine), "{row}");
        assert_eq!(text(&row["containers"][0], "name"), name, "{row}");
    }
    let rows = host.jsonl(["du"]).exits(0).rows();
    let disk = |engine: &str, kind: &str| {
        let mut rows = rows.iter();
        let row = rows.find(|row| row["engine"] == engine && row["kind"] == kind);
        row.map_or(0, |row| row["disk"].as_u64().expect("a size"))
    };
    assert!(disk("docker", "container") > 200_000, "{rows:?}");
    for kind in ["unused", "other"] {
        assert!(disk("containerd", kind) < 100_000, "{kind}: {rows:?}");
    }
    // Nothing is counted twice, and nothing is left out.
    let all = disk("docker", "total") + disk("containerd", "total");
    let parts = rows.iter().filter(|row| row["kind"] != "total");
    let parts: u64 = parts.filter_map(|row| row["disk"].as_u64()).sum();
    assert_eq!(parts, all);
    let said = ["/var/lib/docker", "/var/lib/containerd"];
    let said = said.map(|root| crate::du::size(&host.at(root)));
    assert_eq!(all, said.into_iter().sum::<u64>());
}

#[apply(test)]
fn a_users_docker_does_not_take_what_is_in_the_machines_containerd() {
    needs::captured_hosts();
    needs::root("another owner");
    let host = Host::captured("docker-28-containerd");
    let users = host.at("/home/ann/.local/share");
    std::fs::create_dir_all(&users).expect("a directory of our own");
    let users = users.join("docker");
    let other = Host::captured("docker-28-containerd");
    std::fs::rename(other.at("/var/lib/docker"), &users).expect("one file system");
    std::fs::remove_dir_all(users.join("containers")).expect("a copy");
    std::fs::create_dir(users.join("containers")).expect("a copy");
    std::os::unix::fs::chown(&users, Some(1000), Some(1000)).expect("root");
    host.file("/etc/passwd", "ann:x:1000:1000::/home/ann:/bin/sh\n");
    with_the_machines_containerd(&host);
    host.settle();
    let rows = host.jsonl(["images"]).rows();
    assert_eq!(rows.len(), 8, "four each: {rows:?}");
    let rows = host.jsonl(["du"]).rows();
    let totals = rows.iter().filter(|row| row["kind"] == "total");
    let totals: u64 = totals.filter_map(|row| row["disk"].as_u64()).sum();
    let said = [
        "/var/lib/docker",
        "/var/lib/containerd",
        "/home/ann/.local/share/docker",
    ];
    let said = said.map(|root| crate::du::size(&host.at(root)));
    assert_eq!(totals, said.into_iter().sum::<u64>());
}

/// Moves the containerd that Docker started itself to where the machine's own one is.
fn with_the_machines_containerd(host: &Host) {
    let (own, own_state) = (
        "/var/lib/docker/containerd/daemon",
        "/run/docker/containerd/daemon",
    );
    let (root, state) = ("/var/lib/containerd", "/run/containerd");
    let rename = |from: &str, to: &str| {
        std::fs::rename(host.at(from), host.at(to)).expect("a directory of our own");
    };
    rename(own, root);
    rename(own_state, state);
    for process in std::fs::read_dir(host.at("/proc")).expect("processes") {
        for file in ["mountinfo", "mounts"] {
            let path = process.as_ref().expect("an entry").path().join(file);
            if let Ok(text) = std::fs::read_to_string(&path) {
                let text = text.replace(own, root).replace(own_state, state);
                std::fs::write(path, text).expect("a file of our own");
            }
        }
    }
}

#[apply(test)]
fn with_the_machines_containerd_all_is_as_with_dockers_own() {
    needs::captured_hosts();
    let [own, machines] = [(); 2].map(|()| Host::captured("docker-28-containerd"));
    with_the_machines_containerd(&machines);
    let told = |host: &Host, words: &[&str]| {
        let rows = host.jsonl(words).rows();
        let rows = rows.iter().map(|row| {
            let text = row.to_string();
            text.replace("/var/lib/docker/containerd/daemon", "/var/lib/containerd")
        });
        rows.collect::<BTreeSet<String>>()
    };
    for words in [
        &["containers"][..],
        &["images"],
        &["branches", "web-1"],
        &["branches", "51"],
        &["changes", "web-1"],
        &["history", "lab/web:2"],
        &["orphans"],
        &["orphans", "--unused"],
        &["check"],
    ] {
        assert_eq!(told(&machines, words), told(&own, words), "{words:?}");
    }
    let path = "/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs/snapshots/6";
    let base = machines.jsonl(["whois", path]).exits(0).row();
    let tags = base["images"].as_array().into_iter().flatten();
    let tags = tags.flat_map(|image| image["tags"].as_array().into_iter().flatten());
    let tags: BTreeSet<&str> = tags.filter_map(Value::as_str).collect();
    let named = [
        "lab/base:1",
        "lab/small:edge",
        "lab/web:2",
        "lab/web:latest",
        "lab/web:snap",
        "registry.example.com:5000/team/web:2.0",
    ];
    assert_eq!(tags, named.into());
    for number in [6, 10, 51, 68, 69] {
        let path = |root: &str| {
            format!("{root}/io.containerd.snapshotter.v1.overlayfs/snapshots/{number}/fs")
        };
        let [of_own, of_machines] = [
            told(&own, &["whois", &path("/var/lib/docker/containerd/daemon")]),
            told(&machines, &["whois", &path("/var/lib/containerd")]),
        ];
        assert_eq!(of_machines, of_own, "{number}");
    }
    // What the directories beside snapshots take is another matter: one was moved.
    let sizes = |words: &[&str], host: &Host| {
        host.settle();
        let rows = host.jsonl(words).exits(0).rows();
        let rows = rows.iter().filter(|row| {
            let kind = text(row, "kind");
            !["records", "other", "total"].contains(&kind) && row["disk"] != 0
        });
        let row = |row: &Value| {
            let name = row["name"].as_str().unwrap_or_default().to_owned();
            let largest = row["largest"].to_string();
            let kind = text(row, "kind").to_owned();
            (
                text(row, "engine").to_owned(),
                kind,
                name,
                row["disk"].to_string(),
                largest,
            )
        };
        rows.map(row).collect::<BTreeSet<_>>()
    };
    for words in [&["du"][..], &["du", "web-1"], &["du", "lab/web:2"]] {
        assert_eq!(sizes(words, &machines), sizes(words, &own), "{words:?}");
    }
}

/// Writes a container's record anew.
fn change(host: &Host, name: &str, edit: impl FnOnce(&mut Value)) {
    let directory = host.at("/var/lib/docker/containers");
    for entry in std::fs::read_dir(directory).expect("containers") {
        let path = entry.expect("an entry").path().join("config.v2.json");
        let text = std::fs::read(&path).expect("a record");
        let mut record: Value = serde_json::from_slice(&text).expect("JSON");
        if record["Name"] == format!("/{name}") {
            edit(&mut record);
            return std::fs::write(path, record.to_string()).expect("a file of our own");
        }
    }
    panic!("there is no {name}");
}

#[apply(test)]
fn health_and_restarts_are_told_as_docker_tells_them() {
    needs::captured_hosts();
    let host = Host::captured("docker-28-overlay2");
    let health = |name: &str, of: Value| {
        change(&host, name, |record| record["State"]["Health"] = of);
    };
    health("web-1", json!({"Status": "unhealthy", "FailingStreak": 3}));
    health("ro-5", json!({"Status": "starting"}));
    // None of them is shown.
    health("paused-6", json!({"Status": "healthy"}));
    health("stopped-7", json!({"Status": "unhealthy"}));
    change(&host, "web-2", |record| {
        let state = &mut record["State"];
        state["Restarting"] = json!(true);
        state["ExitCode"] = json!(7);
        state["FinishedAt"] = json!("2026-11-27T21:43:00Z");
    });
    let table = host.ask(["containers"]).exits(0).text().to_owned();
    for (name, end) in [("web-1", " (unhealthy)"), ("paused-6", " (Paused)")] {
        assert!(
            table
                .lines()
                .any(|line| line.ends_with(name) && line.contains(end)),
            "{table}"
        );
    }
    assert!(!table.contains("(healthy)"), "{table}");
    // It is what Docker 26 leaves there whatever came of the checks.
    assert!(!table.contains("(health"), "{table}");
    let rows = host.jsonl(["containers"]).exits(0).rows();
    let told = |name: &str| {
        let row = rows.iter().find(|row| row["name"] == name).expect("a row");
        row["health"].clone()
    };
    assert_eq!(told("web-1"), "unhealthy");
    assert_eq!(told("ro-5"), Value::Null);
    assert_eq!(told("paused-6"), "healthy");
    assert_eq!(told("stopped-7"), Value::Null);
    assert_eq!(told("renamed-4"), Value::Null);
    let named = |filter: &str| {
        let words = ["containers", "--filter", filter, "--format", "jsonl"];
        let rows = host.ask(words).exits(0).rows();
        let names = rows.iter().map(|row| text(row, "name").to_owned());
        names.collect::<Vec<_>>()
    };
    assert_eq!(named("health=unhealthy"), ["web-1"]);
    // As docker info counts.
    let info = host.jsonl(["info"]).exits(0).row();
    let engine = &info["engines"][0];
    let counts = ["running_count", "paused_count", "stopped_count"].map(|of| engine[of].clone());
    assert_eq!(counts, [json!(2), json!(1), json!(5)]);
}

#[apply(test)]
fn containers_call_images_as_docker_does() {
    needs::captured_hosts();
    for (host, image) in [
        (
            "docker-28-containerd",
            "d9df33a3a8d4ea7838df60a1d1810579f398f8b0ea8297d33652d7eacde37019",
        ),
        (
            "docker-28-overlay2",
            "7a79e3d3c46f11484aece79a2e23d8851249ecef7706429590e13ad754d8ca15",
        ),
    ] {
        let host = Host::captured(host);
        let whole = format!("sha256:{image}");
        let gone = "b".repeat(64);
        let named = |name: &str, image: &str| {
            change(&host, name, |record| {
                record["Config"]["Image"] = json!(image)
            });
        };
        named("web-1", "gone/x:1");
        named("web-2", &whole);
        named("ro-5", &image[..12]);
        named("stopped-7", "docker.io/lab/web");
        // The image was removed by force.
        change(&host, "snap-8", |record| {
            record["Image"] = json!(format!("sha256:{gone}"))
        });
        let column = |words: &[&str]| {
            let table = host.ask(words).exits(0).text().to_owned();
            let names = table::column(&table, "NAMES");
            let images = table::column(&table, "IMAGE");
            names.into_iter().zip(images).collect::<BTreeMap<_, _>>()
        };
        let (short, cut) = (
            column(&["containers"]),
            column(&["containers", "--no-trunc"]),
        );
        let rows = host.jsonl(["containers"]).exits(0).rows();
        for (name, said, uncut) in [
            ("web-1", &image[..12], &*whole),
            ("web-2", &image[..12], &whole),
            ("ro-5", &image[..12], &image[..12]),
            ("stopped-7", "docker.io/lab/web", "docker.io/lab/web"),
            ("snap-8", &gone[..12], &format!("sha256:{gone}")),
            ("job-3", "lab/small:edge", "lab/small:edge"),
        ] {
            assert_eq!(short[name], said, "{name}");
            assert_eq!(cut[name], uncut, "{name}");
            let row = rows.iter().find(|row| row["name"] == name);
            assert_eq!(row.expect("a row")["image"], uncut, "{name}");
        }
    }
}

/// `docker pull lab/small@sha256:...`: the repository has a row of its own, without a tag.
#[apply(test)]
fn an_image_that_has_only_a_digest_is_listed_by_its_repository() {
    needs::captured_hosts();
    let host = Host::captured("docker-28-overlay2");
    let path = host.at("/var/lib/docker/image/overlay2/repositories.json");
    let text = std::fs::read(&path).expect("a list");
    let mut names: Value = serde_json::from_slice(&text).expect("JSON");
    let names_of = &mut names["Repositories"];
    let digest = |letter: &str| format!("sha256:{}", letter.repeat(64));
    let small = names_of["lab/small"]["lab/small:edge"].take();
    names_of["lab/small"] = json!({format!("lab/small@{}", digest("c")): small});
    let web = names_of["lab/web"]["lab/web:2"].clone();
    names_of["lab/web"][format!("lab/web@{}", digest("d"))] = web.clone();
    names_of["other/web"] = json!({format!("other/web@{}", digest("e")): web});
    std::fs::write(path, names.to_string()).expect("a file of our own");
    let table = host.ask(["images"]).exits(0).text().to_owned();
    let (repositories, tags) = (
        table::column(&table, "REPOSITORY"),
        table::column(&table, "TAG"),
    );
    let named: BTreeSet<(String, String)> = repositories.into_iter().zip(tags).collect();
    let row = |repository: &str, tag: &str| (repository.to_owned(), tag.to_owned());
    let expected = [
        row("lab/web", "snap"),
        row("lab/web", "2"),
        row("lab/web", "latest"),
        row("registry.example.com:5000/team/web", "2.0"),
        row("other/web", "<none>"),
        row("lab/small", "<none>"),
        row("<none>", "<none>"),
        row("lab/base", "1"),
    ];
    assert_eq!(named, expected.into_iter().collect());
    assert_eq!(table.lines().count(), 9, "{table}");
}
