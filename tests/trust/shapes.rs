//! Trees too deep, too wide or too large.

use super::*;
use crate::lab::needs;

#[apply(test)]
fn trees_of_ten_thousand_levels_have_an_end() {
    needs::time();
    const LEVELS: usize = 10_000;
    let store = Store::new("");
    store.container("web", "");
    let upper_dir = upper("web");
    // What nobody refers to is measured, and so has a host of its own.
    let leftover = Store::new("");
    let _deep = [
        store.host.at(&upper_dir),
        store.host.at(upper("base")),
        leftover.at("overlay2/lost/diff"),
    ]
    .map(|at| Deep::make(at, LEVELS));
    let path = "/d".repeat(LEVELS);
    let verbs: [(&[&str], Option<i32>); 9] = [
        (&["whiteouts", "--all-layers", "web"], Some(0)),
        (&["copyups", "web"], Some(0)),
        (&["check", "web"], Some(0)),
        (&["changes", "web"], Some(0)),
        (&["which", "--in", "web", &path], Some(0)),
        (&["which", "--in", "web", &format!("{path}/x")], Some(1)),
        (&["whois", &format!("{upper_dir}{path}")], Some(0)),
        (&["orphans"], Some(1)),
        (&["du"], Some(0)),
    ];
    all_right(&verbs, |(verb, status)| {
        let asked = words(verb.iter());
        let mut with_format = words(["--format", "jsonl"]);
        with_format.extend(asked.iter().cloned());
        let host = match verb[0] {
            "du" | "orphans" => &leftover.host,
            _ => &store.host,
        };
        let output = ask(&host.root, &with_format);
        let mut wrong: Vec<String> = ill_end(&asked, &output).into_iter().collect();
        if output.status != *status {
            let said: String = output.stderr.chars().take(300).collect();
            wrong.push(format!(
                "{} ended with {:?}: {said}",
                verb[0], output.status
            ));
        }
        wrong
            .into_iter()
            .map(|why| why.replace(&path, "/d..."))
            .collect()
    });
    // Of a copy that lies deeper than a path can tell.
    let asked = words(["--root".to_owned(), path, "info".into()]);
    assert_eq!(run::run(layerctl().args(&asked)).status, Some(2));
}

#[apply(test)]
fn what_waits_in_a_deep_tree_takes_little_memory() {
    needs::time();
    // Of two files in each level, which come after what is below, the paths are 150 MB; and
    // a mark in each level is above all that are below.
    const LEVELS: usize = 1_000;
    let name = "d".repeat(150);
    let host = Host::empty();
    host.dir("/low");
    let files = [".wh..wh..opq", ".wh.x", "y", "z"];
    let _deep = Deep::make_with(host.at("/up"), LEVELS, &name, &files);
    let verbs = [
        ("whiteouts", 2 * LEVELS),
        ("changes", 3 * LEVELS),
        ("ls -R", 3 * LEVELS),
    ];
    all_right(&verbs, |(verb, rows)| {
        let command = format!(
            "ulimit -v 65536 && \"$@\" -j1 --root {} {verb} br:/up=rw:/low=ro+wh | wc -l",
            host.root.display()
        );
        let output = run::run(bounded(Path::new("/bin/sh")).args([
            "-c",
            &command,
            "sh",
            env!("CARGO_BIN_EXE_layerctl"),
            "-q",
        ]));
        let counted = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let is_right = counted == rows.to_string() && output.stderr.is_empty();
        (!is_right)
            .then(|| format!("{verb}: {counted} rows, not {rows}: {}", output.stderr))
            .into_iter()
            .collect()
    });
}

#[apply(test)]
fn the_longest_names_are_names() {
    let store = Store::new("");
    store.container("web", "");
    let names = [
        "n".repeat(255),
        "\u{1f980}".repeat(63),
        "\u{1}".repeat(255),
        ".wh.".repeat(63),
    ];
    for name in &names {
        for layer in ["base", "web"] {
            store.host.file(format!("{}/{name}", upper(layer)), layer);
            store.host.file(
                format!("{}/{name}-/{name}", upper(layer))
                    .replace(&format!("{name}-"), &"x".repeat(255)),
                layer,
            );
        }
    }
    for name in &names {
        let at = format!("{}/{name}", upper("web"));
        let row = store
            .host
            .jsonl(["which", "--in", "web", name.as_str()])
            .exits(0)
            .row();
        assert_eq!(
            (row["state"].as_str(), row["branch"].as_u64()),
            (Some("present"), Some(0)),
            "{row}"
        );
        for asked in reading("web".as_ref(), name.as_ref(), at.as_ref()) {
            let output = ask(&store.host.root, &asked);
            assert_eq!(ill_end(&asked, &output), None);
        }
    }
    let asked = store.host.jsonl(["ls", "-R", "--in", "web", "/"]).exits(0);
    let listed = asked.rows();
    for name in &names {
        assert!(
            listed
                .iter()
                .any(|row| bytes(&row["path"]) == format!("/{name}").as_bytes()),
            "{name}"
        );
    }
}

/// Every verb, once something goes round in circles.
fn ends(host: &Host, target: &str, what: &str) -> Vec<String> {
    let verbs = reading(
        target.as_ref(),
        "/etc/passwd".as_ref(),
        upper("web").as_ref(),
    );
    verbs
        .iter()
        .filter_map(|asked| ill_end(asked, &ask(&host.root, asked)))
        .map(|why| format!("{what}: {why}"))
        .collect()
}

/// What goes round, and how it is made to.
type Circle = (&'static str, fn(&Store));

#[apply(test)]
fn circles_of_docker_end() {
    needs::time();
    let cases: [Circle; 8] = [
        ("lower names itself", |store| {
            store.file("overlay2/web/lower", "l/WEB:l/TOP:l/BASE");
            store.file("overlay2/base/lower", "l/WEB:l/BASE");
        }),
        ("lower ten thousand times", |store| {
            store.file("overlay2/web/lower", ["l/TOP"; 10_000].join(":"));
        }),
        ("layers that are each other's parents", |store| {
            let base = sha256("base");
            let parent = store.top_chain.clone();
            store.file(
                &format!("image/overlay2/layerdb/sha256/{base}/parent"),
                parent,
            );
        }),
        ("a layer that is its own parent", |store| {
            let base = sha256("base");
            store.file(
                &format!("image/overlay2/layerdb/sha256/{base}/parent"),
                format!("sha256:{base}"),
            );
        }),
        ("short names that lead to each other", |store| {
            for (link, to) in [("TOP", "BASE"), ("BASE", "TOP")] {
                let at = store.at("overlay2/l").join(link);
                fs::remove_file(&at).expect("our own");
                symlink(to, at).expect("our own");
            }
        }),
        ("a layer that is a link to itself", |store| {
            let diff = store.at("overlay2/top/diff");
            fs::remove_dir_all(&diff).expect("our own");
            symlink("../l/TOP", diff).expect("our own");
        }),
        ("a data directory that is a link to itself", |store| {
            let data = store.host.at(DATA);
            fs::rename(&data, store.host.at("/kept")).expect("our own");
            symlink("../lib/docker", data).expect("our own");
        }),
        ("mounts that lie in each other", |store| {
            store.host.file(
                "/proc/self/mountinfo",
                "1 2 0:1 / / rw - overlay o rw,lowerdir=/a:/b,upperdir=/u,workdir=/w\n\
                 2 1 0:1 / / rw - overlay o rw,lowerdir=/a:/b,upperdir=/u,workdir=/w\n\
                 3 3 0:2 / /var/lib/docker/overlay2/web/merged rw - overlay o rw,lowerdir=/a:/b,upperdir=/u,workdir=/w\n",
            );
        }),
    ];
    all_right(&cases, |(what, change)| {
        let store = Store::new("");
        store.container("web", "");
        change(&store);
        ends(&store.host, "web", what)
    });
}

#[apply(test)]
fn circles_of_other_engines_end() {
    needs::time();
    needs::captured_hosts();
    let mut wrong = Vec::new();
    let host = Host::captured("podman-rootless-overlay");
    let list = WalkDir::new(&host.root)
        .into_iter()
        .map(|entry| entry.expect("our own").into_path())
        .find(|at| at.ends_with("overlay-layers/layers.json"))
        .expect("a store");
    let mut layers: Value =
        serde_json::from_slice(&fs::read(&list).expect("our own")).expect("JSON");
    let ids: Vec<Value> = layers
        .as_array()
        .expect("layers")
        .iter()
        .map(|layer| layer["id"].clone())
        .collect();
    for step in [0, 1, ids.len() - 1] {
        for (index, layer) in layers
            .as_array_mut()
            .expect("layers")
            .iter_mut()
            .enumerate()
        {
            layer["parent"] = ids[(index + step) % ids.len()].clone();
        }
        fs::write(&list, layers.to_string()).expect("our own");
        wrong.extend(ends(&host, "run-a", &format!("Podman's layers, {step} on")));
    }
    // containerd names a snapshot's parent by its key. One key for all of them is a circle.
    let host = Host::captured("containerd-overlayfs");
    for database in [
        "io.containerd.metadata.v1.bolt/meta.db",
        "io.containerd.snapshotter.v1.overlayfs/metadata.db",
    ] {
        let at = host.at(format!("/var/lib/containerd/{database}"));
        let whole = fs::read(&at).expect("our own");
        let mut content = whole.clone();
        let digests: Vec<usize> = content
            .windows(7)
            .enumerate()
            .filter(|(_, window)| window == b"sha256:")
            .map(|(at, _)| at)
            .collect();
        let first = content[digests[0]..digests[0] + 71].to_vec();
        for at in digests {
            if content.len() >= at + first.len() {
                content[at..at + first.len()].copy_from_slice(&first);
            }
        }
        fs::write(&at, content).expect("our own");
        wrong.extend(ends(&host, "run-a", database));
        fs::write(&at, whole).expect("our own");
    }
    // An index that lists itself, and each manifest as a manifest of itself.
    let blobs = host.at("/var/lib/containerd/io.containerd.content.v1.content/blobs/sha256");
    for entry in fs::read_dir(&blobs).expect("a store") {
        let at = entry.expect("our own").path();
        let Ok(mut blob) = serde_json::from_slice::<Value>(&fs::read(&at).expect("our own")) else {
            continue;
        };
        let own = json!({
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "digest": format!("sha256:{}", at.file_name().unwrap_or_default().to_string_lossy()),
            "size": 1,
            "platform": {"architecture": "amd64", "os": "linux"},
        });
        for field in ["manifests", "layers"] {
            if !blob[field].is_null() {
                blob[field] = json!([own, own]);
            }
        }
        if !blob["config"]["digest"].is_null() {
            blob["config"]["digest"] = own["digest"].clone();
        }
        fs::write(&at, blob.to_string()).expect("our own");
    }
    wrong.extend(ends(&host, "run-a", "blobs that name themselves"));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
