//! What engines showed of captured hosts, seen through a mount.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::ways::{mount_of, view};
use super::{privately, umount};
use crate::docker_drivers::{View, seen, unescape};
use crate::hosts::{Exported, exported};
use crate::lab::captured::Captured;
use crate::lab::needs;
use crate::lab::run::text;

/// What engines mount over a container's root, and files that they make there for that.
const MOUNTED: [&str; 9] = [
    "/proc",
    "/sys",
    "/dev",
    "/etc/hosts",
    "/etc/hostname",
    "/etc/resolv.conf",
    "/etc/mtab",
    "/run/.containerenv",
    "/run/secrets",
];

/// Demands that a mount shows what an engine showed, beside what was mounted over that.
#[track_caller]
fn compare(of: &Captured, file: &str, at: &Path) -> usize {
    let said = format!("{file}.jsonl");
    let rows = of.jsonl(&said);
    let is_over = |row: &&serde_json::Value| row["mounted_over"] == true;
    let over = rows.iter().filter(is_over);
    let over: BTreeSet<Vec<u8>> = over
        .map(|row| unescape(text(row, "path")))
        .chain(MOUNTED.map(|path| path.as_bytes().to_vec()))
        .collect();
    let beside = |mut view: View| {
        view.retain(|path, _| {
            let parts =
                (1..=path.len()).filter(|&end| path.get(end).is_none_or(|&next| next == b'/'));
            !parts.into_iter().any(|end| over.contains(&path[..end]))
        });
        view
    };
    // An export tells the size of a hard link at the first of its names only.
    let text = of.said(&said).replace("\"hardlink\":", "\"hardlink_to\":");
    let (engine, ghosts) = seen(&text);
    let (engine, ours) = (beside(engine), beside(view(at)));
    assert!(ghosts.iter().all(|ghost| !ours.contains_key(ghost)));
    let wrong: Vec<_> = engine
        .keys()
        .chain(ours.keys())
        .filter(|path| engine.get(*path) != ours.get(*path))
        .map(|path| {
            let name = path.escape_ascii().to_string();
            (name, engine.get(path), ours.get(path))
        })
        .collect();
    assert!(wrong.is_empty(), "{} {file}: {wrong:#?}", of.name);
    engine.len()
}

#[apply(test)]
fn a_mount_shows_what_dockers_and_podmans_kernels_showed() {
    needs::time();
    privately(|ground| {
        needs::captured_hosts();
        for (host, containers) in [
            ("docker-28-overlay2", 8),
            ("docker-28-containerd", 8),
            ("docker-29", 3),
            ("podman-5.8-overlay", 7),
            ("podman-overlay", 5),
            ("podman-vfs", 1),
        ] {
            let of = Captured::new(host);
            let names = of.named("merged-", ".jsonl");
            assert!(names.len() >= containers, "{host}: {names:?}");
            for name in names {
                let container = name.strip_prefix("export-").unwrap_or(name);
                let at = ground.dir("m");
                mount_of(&of.host.at("/"), &[container], &at);
                assert!(compare(&of, &format!("merged-{name}"), &at) > 3);
                umount(&at).exits(0);
            }
        }
    });
}

#[apply(test)]
fn a_mount_shows_what_containerd_mounted() {
    needs::time();
    privately(|ground| {
        needs::captured_hosts();
        for (host, containers) in [("containerd-2.1", 7), ("containerd-overlayfs", 5)] {
            let of = Captured::new(host);
            let names = of.named("default-merged-", ".jsonl");
            assert_eq!(names.len(), containers, "{names:?}");
            for name in names {
                let at = ground.dir("m");
                mount_of(&of.host.at("/"), &["-n", "default", name], &at);
                assert!(compare(&of, &format!("default-merged-{name}"), &at) > 3);
                umount(&at).exits(0);
            }
        }
    });
}

/// `--all` finds what stands on no union, too: each container is a copy of its own.
#[apply(test)]
fn all_of_a_host_that_keeps_whole_copies_is_there() {
    privately(|ground| {
        needs::captured_hosts();
        let at = ground.dir("all");
        let names = |path: &str| {
            let names = fs::read_dir(at.join(path)).expect("a directory");
            let names = names.map(|entry| entry.expect("listed").file_name());
            let names = names.map(|name| name.into_string().expect("text"));
            names.collect::<BTreeSet<String>>()
        };
        let docker = Captured::new("docker-vfs");
        mount_of(&docker.host.at("/"), &["--all"], &at);
        let containers = names("docker/containers");
        for name in docker.named("merged-", ".jsonl") {
            let container = name.strip_prefix("export-").unwrap_or(name);
            assert!(containers.contains(container), "{containers:?}");
            let inside = at.join("docker/containers").join(container);
            assert!(compare(&docker, &format!("merged-{name}"), &inside) > 3);
        }
        umount(&at).exits(0);
        let containerd = Captured::new("containerd-2.1");
        mount_of(&containerd.host.at("/"), &["--all"], &at);
        let listed = names("containerd/containers/default");
        let known = containerd.named("default-merged-", ".jsonl");
        let known: BTreeSet<String> = known.into_iter().map(str::to_owned).collect();
        assert!(known.contains("nat"), "it is on native snapshots");
        assert_eq!(listed, known);
        let nat = at.join("containerd/containers/default/nat");
        assert!(compare(&containerd, "default-merged-nat", &nat) > 3);
        umount(&at).exits(0);
    });
}

/// The names of this file of the base image show `web1`'s copy of it only while that is mounted.
const PSEUDO_LINK: &str = "/usr/bin/busybox";

#[apply(test)]
fn a_mount_shows_what_docker_exported_of_aufs() {
    needs::time();
    privately(|ground| {
        needs::captured_hosts();
        let docker = Captured::new("docker-aufs-webapp");
        for container in ["web1", "web2", "web3", "base1"] {
            let said = exported(docker.said(&format!("export-{container}.lst")));
            assert!(said.len() > 100);
            let at = ground.dir("m");
            mount_of(&docker.host.at("/"), &[container], &at);
            let ours = view(&at);
            let names: BTreeSet<&Vec<u8>> = said.keys().chain(ours.keys()).collect();
            let pseudo_link = PSEUDO_LINK.as_bytes().to_vec();
            let first = said.get(&pseudo_link).and_then(|of| of.same_as.clone());
            let first = first.unwrap_or_else(|| pseudo_link.clone());
            let is_pseudo = |path: &[u8], of: &Exported| {
                container == "web1"
                    && path != pseudo_link
                    && of.same_as.as_deref().unwrap_or(path) == first
            };
            let mut links = 0;
            for path in names {
                let shown = path.escape_ascii().to_string();
                let (Some(said), Some(ours)) = (said.get(path), ours.get(path)) else {
                    panic!(
                        "{container} {shown}: {:?} {:?}",
                        said.get(path),
                        ours.get(path)
                    );
                };
                let (mode, user, group) = ours.rights.expect("all is told");
                assert_eq!(ours.kind, said.kind, "{container} {shown}");
                assert_eq!(format!("{user}/{group}"), said.owner, "{container} {shown}");
                assert_eq!(ours.size.unwrap_or(0), said.size, "{container} {shown}");
                assert_eq!(ours.target, said.link, "{container} {shown}");
                if !is_pseudo(path, said) {
                    assert_eq!(mode, said.mode, "{container} {shown}");
                }
                // What is one file in the export is one here.
                if let Some(of) = said.same_as.as_ref().filter(|_| !is_pseudo(path, said)) {
                    let number = |path: &[u8]| {
                        let path = at.join(std::ffi::OsStr::from_bytes(&path[1..]));
                        let stat = fs::symlink_metadata(path).expect("it is listed");
                        std::os::unix::fs::MetadataExt::ino(&stat)
                    };
                    if container != "web1" {
                        assert_eq!(number(path), number(of), "{container} {shown}");
                        links += 1;
                    }
                }
            }
            assert!(links > 0 || container == "web1", "{container}");
            umount(&at).exits(0);
        }
    });
}
