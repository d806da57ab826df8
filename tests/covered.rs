//! What lies over a container's layers - volumes, bind mounts, tmpfs, the engine's own files - is
//! said by whoever is asked for a path there.

use std::fs;

use serde_json::{Value, json};

use crate::lab::host::Host;
use crate::lab::needs;
use crate::lab::run::text;
use crate::lab::store::{DOCKER, docker_container, id, linked_layer};

/// A container with everything that can lie over layers, made from nothing.
fn docker() -> Host {
    let host = Host::empty();
    let home = format!("{DOCKER}/overlay2");
    linked_layer(&host, &home, 'b', &[]);
    linked_layer(&host, &home, '2', &['b']);
    docker_container(&host, "web", '1', '2');
    let lower = format!("{home}/{}/diff", id('b'));
    for path in [
        "data/seed",
        "site/index",
        "scratch/old",
        "etc/hosts",
        "etc/motd",
        "database",
    ] {
        host.file(format!("{lower}/{path}"), "of the image");
    }
    let config = format!("{DOCKER}/containers/{}/config.v2.json", id('1'));
    let mut record: Value = serde_json::from_slice(&host.read(&config)).expect("JSON");
    record["MountPoints"] = json!({
        "/data": {
            "Type": "volume", "Name": "pgdata", "Destination": "/data",
            "Source": "/var/lib/docker/volumes/pgdata/_data",
        },
        "/site": {"Type": "bind", "Source": "/home/me/site", "Destination": "/site"},
    });
    record["HostsPath"] = format!("{DOCKER}/containers/{}/hosts", id('1')).into();
    host.file(&config, record.to_string());
    let asked = json!({"Tmpfs": {"/scratch": ""}, "Mounts": []});
    let asked_path = format!("{DOCKER}/containers/{}/hostconfig.json", id('1'));
    host.file(asked_path, asked.to_string());
    host.file(format!("{DOCKER}/volumes/pgdata/_data/base"), "content");
    host
}

/// Each path, and what is to be said of it: its kind, its name, and the words.
fn cases() -> [(&'static str, &'static str, Option<&'static str>, String); 8] {
    let volume = "/data is the volume pgdata, at /var/lib/docker/volumes/pgdata/_data; layers do not show it";
    let hosts = format!(
        "/etc/hosts is the engine's own, at {DOCKER}/containers/{}/hosts; layers do not show it",
        id('1')
    );
    let dev = "/dev is the engine's own; layers do not show it";
    let site = "/site is a bind mount of /home/me/site; layers do not show it";
    [
        ("/data", "volume", Some("pgdata"), volume.into()),
        ("/data/base/1", "volume", Some("pgdata"), volume.into()),
        ("/data/seed", "volume", Some("pgdata"), volume.into()),
        ("/site/index", "bind", None, site.into()),
        (
            "/scratch/old",
            "tmpfs",
            None,
            "/scratch is a tmpfs; layers do not show it".into(),
        ),
        ("/etc/hosts", "engine", None, hosts),
        ("/dev/null", "engine", None, dev.into()),
        ("/dev", "engine", None, dev.into()),
    ]
}

#[track_caller]
fn is_covered(row: &Value, kind: &str, name: Option<&str>) {
    let cover = &row["covered_by"];
    assert_eq!(cover["kind"], kind, "{row}");
    assert_eq!(cover["name"].as_str(), name, "{row}");
}

#[apply(test)]
fn which_says_it() {
    let host = docker();
    for (path, kind, name, words) in cases() {
        let spelled = format!("web:{path}");
        let row = host.jsonl(["which", &spelled]).rows().remove(0);
        is_covered(&row, kind, name);
        let shown = host.ask(["which", &spelled]);
        assert!(shown.text().contains(&words), "{}", shown.text());
        // And where no union was named.
        let shown = host.ask(["which", path]);
        assert!(shown.text().contains(&words), "{}", shown.text());
    }
    for path in ["/database", "/etc/motd", "/etc", "/"] {
        let row = host.jsonl(["which", &format!("web:{path}")]).exits(0).row();
        assert!(row["covered_by"].is_null(), "{row}");
    }
    // Some of its layers are asked for their own sake.
    let row = host.jsonl(["which", "web@1:/data/seed"]).exits(0).row();
    assert!(row["covered_by"].is_null(), "{row}");
}

#[apply(test)]
fn ls_says_it() {
    let host = docker();
    let rows = host.jsonl(["ls", "-R", "web"]).exits(0).rows();
    let of = |path: &str| {
        let mut rows = rows.iter();
        rows.find(|row| row["path"] == path).expect("it is listed")
    };
    for (path, kind, name, _) in cases() {
        if rows.iter().any(|row| row["path"] == path) {
            is_covered(of(path), kind, name);
        }
    }
    is_covered(of("/data"), "volume", Some("pgdata"));
    assert!(of("/database")["covered_by"].is_null());
    let shown = host.ask(["ls", "web"]).exits(0);
    let line = |name: &str| {
        let mut lines = shown.text().lines();
        lines
            .find(|line| line.ends_with(name))
            .expect("it is listed")
    };
    assert!(shown.text().contains("COVERED BY"), "{}", shown.text());
    assert!(line("/data").contains("volume pgdata"), "{}", shown.text());
    assert!(line("/scratch").contains("tmpfs"), "{}", shown.text());
    assert!(!line("/database").contains("volume"), "{}", shown.text());
    let row = host.jsonl(["ls", "web:/data/base"]).exits(1).row();
    assert_eq!(row["error"], "ENOENT", "{row}");
    is_covered(&row, "volume", Some("pgdata"));
    let tree = host.ask(["ls", "--tree", "web"]).exits(0);
    let covered = tree
        .text()
        .lines()
        .filter(|line| line.contains("  covered by "));
    let covered: Vec<&str> = covered.collect();
    assert_eq!(covered.len(), 3, "{}", tree.text());
    assert!(covered[0].contains("data") && covered[0].ends_with("volume pgdata"));
    // What is listed is all of it under the volume: that is said once, beside the list.
    for path in ["/data", "/data/seed"] {
        let output = host.ask(["ls", &format!("web:{path}")]).exits(0);
        let words = &cases()[0].3;
        assert!(output.stderr.contains(words.as_str()), "{}", output.stderr);
    }
}

#[apply(test)]
fn restore_says_it_and_writes_nothing_in_vain() {
    let host = docker();
    for (path, kind, name, words) in cases() {
        let row = host
            .jsonl(["restore", &format!("web:{path}")])
            .exits(1)
            .row();
        is_covered(&row, kind, name);
        assert_eq!(text(&row, "nothing"), words);
        let shown = host.ask(["restore", "-r", &format!("web:{path}")]).exits(1);
        assert!(shown.text().contains(&words), "{}", shown.text());
    }
}

/// What the layers have there can be had all the same: they are committed, and looked into.
#[apply(test)]
fn what_is_deleted_below_a_cover_comes_back_in_the_layers() {
    needs::root("to make a whiteout");
    let host = docker();
    let whiteout = host.at(format!("{DOCKER}/overlay2/{}/diff/data/seed", id('2')));
    host.dir(format!("{DOCKER}/overlay2/{}/diff/data", id('2')));
    let make = || {
        let mode = rustix::fs::Mode::empty();
        let kind = rustix::fs::FileType::CharacterDevice;
        rustix::fs::mknodat(rustix::fs::CWD, &whiteout, kind, mode, 0).expect("root may");
    };
    make();
    let plan = host
        .jsonl(["restore", "--dry-run", "web:/data/seed"])
        .exits(0)
        .row();
    is_covered(&plan, "volume", Some("pgdata"));
    assert!(plan["nothing"].is_null(), "{plan}");
    let shown = host.ask(["restore", "--write", "web:/data/seed"]).exits(0);
    assert!(
        shown.text().contains("but /data is the volume pgdata"),
        "{}",
        shown.text()
    );
    assert!(fs::symlink_metadata(&whiteout).is_err());
}

#[apply(test)]
fn whois_says_it() {
    let host = docker();
    let layer = format!("{DOCKER}/overlay2/{}/diff", id('2'));
    for path in ["data/seed", "etc/hosts", "etc/motd"] {
        host.file(format!("{layer}/{path}"), "of the container");
    }
    let row = host
        .jsonl(["whois", &format!("{layer}/data/seed")])
        .exits(0)
        .row();
    is_covered(&row["inside"][0], "volume", Some("pgdata"));
    let shown = host.ask(["whois", &format!("{layer}/etc/hosts")]).exits(0);
    assert!(
        shown.text().contains("/etc/hosts is the engine's own"),
        "{}",
        shown.text()
    );
    let row = host
        .jsonl(["whois", &format!("{layer}/etc/motd")])
        .exits(0)
        .row();
    assert!(row["inside"][0]["covered_by"].is_null(), "{row}");
    // The volume itself has a name, and users.
    let volume = format!("{DOCKER}/volumes/pgdata/_data/base");
    let row = host.jsonl(["whois", &volume]).exits(0).row();
    assert_eq!(row["kind"], "volumes", "{row}");
    assert_eq!(row["containers"][0]["name"], "web", "{row}");
    assert!(text(&row, "why").contains("pgdata"), "{row}");
}

/// What somebody mounted in a container since is in its mount table only; a process of another
/// union that has its number by now is not asked.
#[apply(test)]
fn a_running_container_s_mount_table_is_read() {
    let host = docker();
    let config = format!("{DOCKER}/containers/{}/config.v2.json", id('1'));
    let mut record: Value = serde_json::from_slice(&host.read(&config)).expect("JSON");
    record["State"] = json!({"Running": true, "Pid": 77});
    host.file(&config, record.to_string());
    let home = format!("{DOCKER}/overlay2");
    let options = format!(
        "rw,lowerdir={home}/l/{},upperdir={home}/{1}/diff,workdir={home}/{1}/work",
        crate::lab::store::short('b'),
        id('2')
    );
    let merged = format!("{home}/{}/merged", id('2'));
    host.dir(&merged);
    host.file(
        "/proc/self/mountinfo",
        format!("33 15 0:40 / {merged} rw - overlay overlay {options}\n"),
    );
    let table = |device: &str| {
        format!(
            "50 1 {device} / / rw - overlay overlay {options}\n\
             51 50 0:41 / /late rw - tmpfs tmpfs rw\n\
             52 50 8:1 /srv/conf /etc/conf.d rw - ext4 /dev/sda1 rw\n"
        )
    };
    host.file("/proc/77/mountinfo", table("0:40"));
    for (path, kind) in [
        ("/late/x", "tmpfs"),
        ("/etc/conf.d/a", "bind"),
        ("/data", "volume"),
    ] {
        let row = host
            .jsonl(["which", &format!("web:{path}")])
            .rows()
            .remove(0);
        assert_eq!(row["covered_by"]["kind"], kind, "{row}");
    }
    host.file("/proc/77/mountinfo", table("0:99"));
    let row = host.jsonl(["which", "web:/late/x"]).rows().remove(0);
    assert!(row["covered_by"].is_null(), "{row}");
}

const KUBERNETES: &str = "containerd:k8s.io/shop/web-7d4b9c/nginx";

/// Every engine's own records, as the engines wrote them.
#[apply(test)]
fn every_engine_s_records_are_read() {
    needs::time();
    needs::captured_hosts();
    for (name, target, path, kind, volume) in [
        (
            "docker-28-overlay2",
            "web-1",
            "/srv/vol/x",
            "volume",
            Some("datavol"),
        ),
        ("docker-28-overlay2", "ro-5", "/scratch/x", "tmpfs", None),
        (
            "docker-28-overlay2",
            "stopped-7",
            "/etc/hosts",
            "engine",
            None,
        ),
        (
            "podman-5.8-overlay",
            "web-1",
            "/srv/vol/x",
            "volume",
            Some("datavol"),
        ),
        (
            "podman-5.8-overlay",
            "stopped-7",
            "/etc/hosts",
            "engine",
            None,
        ),
        (
            "containerd-kubernetes",
            KUBERNETES,
            "/etc/hosts",
            "engine",
            None,
        ),
        (
            "containerd-kubernetes",
            KUBERNETES,
            "/proc/self",
            "engine",
            None,
        ),
    ] {
        let host = Host::captured(name);
        let row = host
            .jsonl(["which", &format!("{target}:{path}")])
            .rows()
            .remove(0);
        is_covered(&row, kind, volume);
    }
}

/// What is handed over is what the layers have: an empty file, or an old one. Nobody takes it for
/// what the container sees.
#[apply(test)]
fn what_is_handed_over_says_it() {
    let host = docker();
    for (path, ..) in cases().iter().filter(|(path, ..)| path.starts_with("/etc")) {
        let said = host.ask(["cat", &format!("web:{path}")]).exits(0).stderr;
        assert!(said.contains("layers do not show it"), "{said}");
    }
    let home = tempfile::tempdir().expect("a temporary directory");
    let to = home.path().join("out");
    let to = to.to_str().expect("text");
    host.ask(["cp", "web:/data", to])
        .exits(0)
        .says("/data is the volume pgdata");
    assert_eq!(
        fs::read_to_string(home.path().join("out/seed")).expect("copied"),
        "of the image"
    );
    let said = host.ask(["cat", "web:/etc/motd"]).exits(0).stderr;
    assert_eq!(said, "");
    // A volume's name is one for `whois`, too.
    let row = host.jsonl(["whois", "pgdata"]).exits(0).row();
    assert_eq!(text(&row, "kind"), "volumes");
    assert_eq!(text(&row["containers"][0], "name"), "web");
    host.ask(["whois", "nodata"]).exits(1);
}
