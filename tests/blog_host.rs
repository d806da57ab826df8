//! The host of the article that asked for this tool, the older layout of Docker's files, and data
//! directories that are not where they were. All of it works for an ordinary user.

use std::fs;

use serde_json::Value;
use snapbox::{assert_data_eq, str};

use crate::lab::host::{Host, copy_tree, directories};
use crate::lab::run::{self, text, texts};

const SOURCES: &str = "/etc/apt/sources.list";
const CREATED: &str = "/opt/webapp/createdbysammy";
const DELETED: &str = "/usr/local/lib/python2.7/dist-packages/itsdangerous.py";

fn blog_host() -> Host {
    Host::fixture("blog-host")
}

/// The branches that have a version of what a row is about, topmost first.
fn versions(row: &Value) -> Vec<u64> {
    let versions = row["versions"].as_array().expect("versions");
    versions
        .iter()
        .map(|version| version["branch"].as_u64().expect("a number"))
        .collect()
}

// ---- the article ----

#[apply(test)]
fn the_branches_are_those_of_the_article() {
    let row = blog_host()
        .jsonl(["branches", "si_ab487e40195df24f"])
        .exits(0)
        .row();
    let branches = row["branches"].as_array().expect("branches");
    let short: Vec<&str> = texts(branches, "layer")
        .iter()
        .map(|id| &id[..12])
        .collect();
    let printed = [
        (0, "2ee58d81e4ac"),
        (1, "2ee58d81e4ac"),
        (2, "85cb84056278"),
        (3, "56d37c8eecd8"),
        (4, "31bc6290457a"),
        (5, "e10467266611"),
        (6, "7a085e415855"),
        (10, "5472f8388f9a"),
        (11, "61dcf0881e79"),
        (12, "f68672aaf17d"),
        (13, "45818d286499"),
        (14, "b2188d5c09cf"),
    ];
    assert_eq!(short.len(), 15);
    for (index, id) in printed {
        assert_eq!(short[index], id, "br{index}");
    }
    let permissions = texts(branches, "permission");
    assert_eq!(permissions[0], "rw");
    assert!(
        permissions[1..]
            .iter()
            .all(|permission| *permission == "ro+wh"),
        "{permissions:?}"
    );
}

#[apply(test)]
fn the_image_has_the_layers_and_instructions_of_the_article() {
    let rows = blog_host()
        .jsonl(["history", "training/webapp"])
        .exits(0)
        .rows();
    assert_eq!(rows.len(), 13);
    assert_eq!(&text(&rows[0], "image")[..12], "6fae60ef3446");
    assert!(
        rows[1..].iter().all(|row| row.get("image").is_none()),
        "docker prints <missing>"
    );
    let empty = "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef";
    let ends = [
        (r#"#(nop) CMD ["python" "app.py"]"#, empty),
        ("#(nop) EXPOSE 5000/tcp", empty),
        ("#(nop) WORKDIR /opt/webapp", empty),
        (
            "#(nop) ADD dir:9b2a69f6f30d18b02b5",
            "sha256:b44b0832d4c6bf33122ce3aa896b133df88275e6d20663a9bf2d941f764ac1fd",
        ),
        (
            "pip install -qr /tmp/requirements.",
            "sha256:6bbb1d0f845289217e20b66697fa7d651394d89983b0f5a89b88f037194476fe",
        ),
        (
            "#(nop) ADD file:c59059439864153904",
            "sha256:3ee91c5cb95b01496b4afdc721ba7fd3c22e0e5e2f3e9e70d3f8579b5082d4f3",
        ),
        (
            "DEBIAN_FRONTEND=noninteractive apt",
            "sha256:5c121779bb29172c628a21087ea8ced766959da2f223c8b6bd4ffe943ace43d8",
        ),
        (
            "apt-get update",
            "sha256:b75c0703b86b8ccbdc1f1b28b4982774768861ac250f83bdb940b1e90291f302",
        ),
        ("#(nop) MAINTAINER Docker Education", empty),
        (r#"#(nop) CMD ["/bin/bash"]"#, empty),
        (
            r"sed -i 's/^#\s*\(deb.*universe\)$/",
            "sha256:37ee47034d9b78f10f0c5ce3a25e6b6e58997fcadaf5f896c603a10c5f35fb31",
        ),
        (
            "echo '#!/bin/sh' > /usr/sbin/polic",
            "sha256:528c8710fd95f61d40b8bb8a549fa8dfa737d9b9c7c7b2ae55f745c972dddacd",
        ),
        (
            "#(nop) ADD file:f4d7b4b3402b5c53f2",
            "sha256:1154ba695078d29ea6c4e1adb55c463959cd77509adf09710e2315827d66271a",
        ),
    ];
    for (row, (instruction, diff_id)) in rows.iter().zip(ends) {
        assert!(
            text(row, "instruction").starts_with(&format!("/bin/sh -c {instruction}")),
            "{row}"
        );
        assert_eq!(text(row, "diff_id"), diff_id);
    }
}

#[apply(test)]
fn sizes_are_printed_as_docker_prints_them() {
    let shown = blog_host().ask(["history", "training/webapp"]).exits(0);
    let sizes = crate::lab::table::columns(shown.text(), &["SIZE"]).concat();
    // The article's docker wrote "4.363 MB"; since 17.04 it is three digits and no blank.
    assert_eq!(
        sizes,
        [
            "0B", "0B", "0B", "703B", "4.36MB", "41B", "135MB", "20.8MB", "0B", "0B", "1.9kB",
            "195kB", "188MB"
        ]
    );
}

#[apply(test)]
fn info_is_the_articles_storage_part() {
    assert_data_eq!(
        blog_host().ask(["info"]).exits(0).text(),
        str![[r#"
Engine: docker
 Containers: 2
  Running: 1
  Paused: 0
  Stopped: 1
 Images: 3
 Storage Driver: aufs
  Root Dir: /var/lib/docker/aufs
  Backing Filesystem: extfs
  Dirs: 19
  Dirperm1 Supported: false
Unions mounted: 1
Looked at:
...
 /var/lib/docker: found (docker, the default)
...

"#]]
    );
}

#[apply(test)]
fn the_first_experiment_a_file_is_created() {
    let row = blog_host()
        .jsonl(["which", "--running", CREATED])
        .exits(0)
        .row();
    assert_eq!(
        (text(&row, "state"), &row["branch"]),
        ("present", &Value::from(0))
    );
    assert_eq!(versions(&row), [0]);
}

#[apply(test)]
fn the_second_experiment_a_file_is_changed() {
    let output = blog_host().ask(["which", SOURCES]).exits(0);
    assert_data_eq!(
        output.text(),
        str![[r#"
docker:determined_sammet:/etc/apt/sources.list  file from branch 0, container
#   SAYS      LAYER      TYPE  SIZE  DIRECTORY
0   provides  container  file  747B  /var/lib/docker/aufs/diff/2ee58d81e4ac…
2   shadowed  13 of 13   file  640B  /var/lib/docker/aufs/diff/85cb84056278…
14  shadowed  1 of 13    file  644B  /var/lib/docker/aufs/diff/b2188d5c09cf…

/etc/apt/sources.list  not there in docker:old_shell

"#]]
    );
    let row = blog_host()
        .jsonl(["which", "--running", SOURCES])
        .exits(0)
        .row();
    assert_eq!(versions(&row), [0, 2, 14]);
    let copyup = blog_host().jsonl(["copyups", "--running"]).exits(0).row();
    assert_eq!(
        (text(&copyup, "path"), &copyup["from"]["branch"]),
        (SOURCES, &Value::from(2))
    );
}

#[apply(test)]
fn the_third_experiment_a_file_is_deleted() {
    let output = blog_host().ask(["which", DELETED]).exits(1);
    assert_data_eq!(
        output.text(),
        str![[r#"
docker:determined_sammet:/usr/local/lib/python2.7/dist-packages/itsdangerous.py  deleted
  by the whiteout /usr/local/lib/python2.7/dist-packages/.wh.itsdangerous.py of branch 0, container
#  SAYS      LAYER      TYPE  SIZE  DIRECTORY
0  whiteout  container              /var/lib/docker/aufs/diff/2ee58d81e4ac…
3  hidden    12 of 13   file  139B  /var/lib/docker/aufs/diff/56d37c8eecd8…

/usr/local/lib/python2.7/dist-packages/itsdangerous.py  not there in docker:old_shell

"#]]
    );
    let mark = blog_host().jsonl(["whiteouts", "--running"]).exits(0).row();
    assert_eq!(
        (text(&mark, "path"), &mark["hides"]["branch"]),
        (DELETED, &Value::from(3))
    );
}

#[apply(test)]
fn the_three_experiments_are_all_that_changed() {
    let output = blog_host().ask(["changes", "determined_sammet"]).exits(0);
    let lines: Vec<&str> = output
        .text()
        .lines()
        .filter(|line| !line.starts_with("C ") || line.contains("list"))
        .collect();
    assert_eq!(
        lines,
        [
            &format!("C {SOURCES}"),
            &format!("A {CREATED}"),
            &format!("D {DELETED}")
        ]
    );
}

#[apply(test)]
fn removing_the_mark_by_hand_brings_the_file_back_as_in_the_article() {
    let host = Host::copy_of("blog-host");
    let writable = host.branches_of("determined_sammet").remove(0);
    let writable = String::from_utf8(writable).expect("an id");
    let mark = DELETED.replace("/itsdangerous", "/.wh.itsdangerous");
    fs::remove_file(host.at(format!("{writable}{mark}"))).expect("the mark is there");
    let row = host.jsonl(["which", "--running", DELETED]).exits(0).row();
    assert_eq!(row["branch"], 3);
}

#[apply(test)]
fn a_container_that_is_not_mounted_is_read_from_dockers_files() {
    let host = blog_host();
    assert_eq!(
        host.ask(["changes", "old_shell"]).exits(0).text(),
        "C /etc\nD /etc/shadow\nA /etc/motd\nC /etc/passwd\n"
    );
    let row = host.jsonl(["branches", "old_shell"]).exits(0).row();
    assert_eq!(row["state"], "not-mounted");
}

#[apply(test)]
fn the_small_example_needs_nothing_but_directories() {
    let seen = run::run(
        run::command()
            .current_dir(crate::lab::fixture("fruits-example"))
            .args(["ls", "dirs=fruits:vegetables"]),
    );
    assert_data_eq!(
        seen.exits(0).text(),
        str![[r#"
TYPE  BRANCH  PATH
file  0       /apple
file  1       /carrots
file  0       /tomato

"#]]
    );
}

// ---- Docker 1.9 ----

#[apply(test)]
fn the_older_layout_tells_containers_images_and_layers() {
    let host = Host::fixture("docker-1.9");
    let containers = host.jsonl(["containers"]).exits(0).rows();
    assert_eq!(texts(&containers, "name"), ["old_job", "old_web"]);
    assert_eq!(texts(&containers, "state"), ["exited", "running"]);
    let images = host.jsonl(["images", "--all"]).exits(0).rows();
    assert_eq!(images.len(), 4);
    assert_eq!(
        images[0]["tags"],
        Value::from(vec!["example/web:1.0", "example/web:latest"])
    );
    let history = host.jsonl(["history", "example/web:1.0"]).exits(0).rows();
    assert_eq!(history.len(), 4);
    for row in &history {
        // There an image is a layer, and has one even where its instruction made nothing.
        assert_eq!(row["image"], row["layer"]);
        assert_eq!(row["empty"], false);
        assert!(host.at(text(row, "directory")).is_dir());
    }
    let branches = host.jsonl(["branches", "old_web"]).exits(0).row();
    let roles = texts(branches["branches"].as_array().expect("branches"), "role");
    assert_eq!(
        roles,
        [
            "container",
            "init",
            "image 4/4",
            "image 3/4",
            "image 2/4",
            "image 1/4"
        ]
    );
}

#[apply(test)]
fn the_older_layout_tells_changes() {
    let host = Host::fixture("docker-1.9");
    assert_eq!(
        host.ask(["changes", "old_web"]).exits(0).text(),
        "C /www\nD /www/about.html\nC /www/cache\nD /www/cache/page-1\nD /www/cache/page-2\nA /www/cache/page-3\n\
         C /www/index.html\nA /www/news.html\n"
    );
    assert_eq!(
        host.ask(["changes", "old_job"]).exits(0).text(),
        "A /out\nA /out/result.txt\n"
    );
}

// ---- data directories elsewhere ----

/// The article's host, its data directory moved to `/srv/docker`; the mount table and sysfs still
/// name the old place.
fn moved() -> Host {
    let host = Host::copy_of("blog-host");
    host.dir("/srv");
    fs::rename(host.at("/var/lib/docker"), host.at("/srv/docker")).expect("our own directories");
    host
}

fn assert_found_in_new_place(host: &Host, options: &[&str]) {
    let ask = |verb: &[&str]| host.jsonl(options.iter().chain(verb));
    let row = ask(&["branches", "determined_sammet"]).exits(0).row();
    assert_eq!(row["state"], "mounted");
    for directory in directories(&row) {
        assert!(
            directory.starts_with(b"/srv/docker/aufs/diff/"),
            "{}",
            String::from_utf8_lossy(&directory)
        );
    }
    let row = ask(&["which", &format!("determined_sammet:{SOURCES}")])
        .exits(0)
        .row();
    assert_eq!(versions(&row), [0, 2, 14]);
    assert_eq!(ask(&["containers"]).exits(0).rows().len(), 2);
    assert_eq!(
        ask(&["info"]).exits(0).row()["engines"][0]["root_dir"],
        "/srv/docker/aufs"
    );
}

#[apply(test)]
fn a_moved_data_directory_is_named() {
    assert_found_in_new_place(&moved(), &["--docker-root", "/srv/docker"]);
    assert_found_in_new_place(&moved(), &["--docker-root", "srv/docker"]);
}

#[apply(test)]
fn a_moved_data_directory_is_found_in_dockers_configuration() {
    for key in ["data-root", "graph"] {
        let host = moved();
        host.file(
            "/etc/docker/daemon.json",
            format!(r#"{{"debug": true, "{key}": "/srv/docker"}}"#),
        );
        assert_found_in_new_place(&host, &[]);
    }
}

#[apply(test)]
fn a_data_directory_may_be_all_that_is_there() {
    let host = Host::empty();
    copy_tree(
        &crate::lab::fixture("blog-host/var/lib/docker"),
        &host.at("/saved"),
    );
    let saved = host.at("/saved");
    let options = [
        "--format".as_ref(),
        "jsonl".as_ref(),
        "--docker-root".as_ref(),
        saved.as_os_str(),
    ];
    let ask = |verb: &[&str]| {
        run::layerctl(
            options
                .iter()
                .copied()
                .chain(verb.iter().map(AsRef::as_ref)),
        )
    };
    let row = ask(&["which", &format!("determined_sammet:{DELETED}")])
        .exits(1)
        .row();
    assert_eq!((text(&row, "state"), versions(&row)), ("deleted", vec![3]));
    assert_eq!(
        ask(&["branches", "determined_sammet"]).exits(0).row()["state"],
        "not-mounted"
    );
    assert_eq!(ask(&["changes", "old_shell"]).exits(0).rows().len(), 4);
    // A relative one starts at the working directory.
    let mut command = run::command();
    command
        .current_dir(&host.root)
        .args(["--docker-root", "saved", "changes", "old_shell"]);
    assert_eq!(run::run(&mut command).exits(0).text().lines().count(), 4);
}
