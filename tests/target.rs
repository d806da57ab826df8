//! What a person can call a stack, and how arguments are taken apart.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use serde_json::Value;

use crate::lab::fixture;
use crate::lab::host::{Host, directories, spelled};
use crate::lab::needs;
use crate::lab::run::{self, bytes, text, texts};

const CONTAINER: &str = "6e34f74c1961320c2ea57b073b34ae9ff15a217a7d9f7db46d9ad8cfa62c782f";
const IMAGE: &str = "6fae60ef344634d065760fa543df8a85dd899fbb8012d48827aced369753bb85";
const MOUNT: &str =
    "/var/lib/docker/aufs/mnt/2ee58d81e4ac6811bbc78beb4b46bf213c79c9e2dc7e441741afc8c4349c6bab";
const INIT: &str = "2ee58d81e4ac6811bbc78beb4b46bf213c79c9e2dc7e441741afc8c4349c6bab-init";
/// The fifth branch of the container, made by `ADD dir:`.
const LAYER: &str = "e104672666119006648d0b82988c49527e52c64629750c5c9adde88acc790682";
const LAYER_DIFF: &str = "sha256:b44b0832d4c6bf33122ce3aa896b133df88275e6d20663a9bf2d941f764ac1fd";
/// The diff id of an empty archive, which five layers of the image have.
const EMPTY_DIFF: &str = "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef";

fn blog_host() -> Host {
    Host::fixture("blog-host")
}

fn owner(target: &str) -> Value {
    blog_host().jsonl(["branches", target]).exits(0).row()["owner"].clone()
}

// ---- an engine's names ----

#[apply(test)]
fn a_container_is_found_by_id_name_and_prefix() {
    for name in [
        CONTAINER,
        "determined_sammet",
        &CONTAINER[..12],
        "6e34",
        "6e",
    ] {
        let owner = owner(name);
        assert_eq!(
            (text(&owner, "kind"), text(&owner, "id")),
            ("container", CONTAINER),
            "{name}"
        );
    }
}

#[apply(test)]
fn an_image_is_found_by_name_tag_id_and_prefix() {
    let digest = format!("sha256:{IMAGE}");
    for name in [
        "training/webapp",
        "training/webapp:latest",
        IMAGE,
        &digest,
        &IMAGE[..12],
        "sha256:6fae60ef",
        "6fae",
    ] {
        let owner = owner(name);
        assert_eq!(
            (text(&owner, "kind"), text(&owner, "id")),
            ("image", IMAGE),
            "{name}"
        );
    }
    let row = blog_host()
        .jsonl(["branches", "training/webapp"])
        .exits(0)
        .row();
    assert_eq!(directories(&row).len(), 13, "no layer of a container");
}

#[apply(test)]
fn a_mount_is_found_by_its_point_a_path_under_it_and_its_si() {
    let under = format!("{MOUNT}/opt/webapp");
    for name in [MOUNT, &under, "si_ab487e40195df24f"] {
        assert_eq!(owner(name)["id"], CONTAINER, "{name}");
    }
    // The path says where in the union to look.
    let rows = blog_host().jsonl(["ls", &under]).exits(0).rows();
    assert_eq!(
        texts(&rows, "path"),
        [
            "/opt/webapp/Procfile",
            "/opt/webapp/app.py",
            "/opt/webapp/createdbysammy",
            "/opt/webapp/requirements.txt",
            "/opt/webapp/tests.py",
        ]
    );
}

#[apply(test)]
fn a_layer_is_found_by_its_ids_and_its_directory() {
    let directory = format!("/var/lib/docker/aufs/diff/{LAYER}");
    let inside = format!("{directory}/opt/webapp");
    let chain = blog_host()
        .jsonl(["history", "training/webapp"])
        .exits(0)
        .rows();
    let chain = chain
        .iter()
        .find(|row| row["layer"] == LAYER)
        .expect("a layer of the image");
    for name in [
        LAYER,
        &LAYER[..12],
        LAYER_DIFF,
        &LAYER_DIFF[7..19],
        text(chain, "chain_id"),
        &directory,
        &inside,
    ] {
        let row = blog_host().jsonl(["branches", name]).exits(0).row();
        assert_eq!(row["branches"][0]["layer"], LAYER, "{name}");
        // A layer is seen on top of those below it.
        assert_eq!(directories(&row).len(), 10, "{name}");
    }
    let rows = blog_host().jsonl(["changes", LAYER]).exits(0).rows();
    assert!(
        texts(&rows, "path").contains(&"/opt/webapp/app.py"),
        "{rows:?}"
    );
    let row = blog_host().jsonl(["branches", INIT]).exits(0).row();
    assert_eq!(row["branches"][0]["role"], "init");
}

#[apply(test)]
fn the_directory_of_a_containers_layer_is_the_container() {
    let directory = &blog_host().branches_of("determined_sammet")[0];
    let row = blog_host()
        .jsonl([OsStr::new("branches"), OsStr::from_bytes(directory)])
        .exits(0)
        .row();
    assert_eq!(row["owner"]["id"], CONTAINER);
    assert_eq!(row["state"], "mounted");
}

#[apply(test)]
fn a_name_goes_before_a_prefix() {
    let host = Host::copy_of("blog-host");
    let config = format!("/var/lib/docker/containers/{CONTAINER}/config.v2.json");
    let text = String::from_utf8(host.read(&config)).expect("JSON");
    // A container named as another's id begins.
    host.file(&config, text.replace("/determined_sammet", "/18e8"));
    let row = host.jsonl(["branches", "18e8"]).exits(0).row();
    assert_eq!(row["owner"]["id"], CONTAINER);
}

#[apply(test)]
fn an_ambiguous_prefix_lists_its_candidates() {
    let host = Host::copy_of("blog-host");
    let other = CONTAINER.replace("6e34f7", "6e34aa");
    let config = host.read(format!(
        "/var/lib/docker/containers/{CONTAINER}/config.v2.json"
    ));
    let config = String::from_utf8(config)
        .expect("JSON")
        .replace(CONTAINER, &other)
        .replace("determined_sammet", "twin");
    host.file(
        format!("/var/lib/docker/containers/{other}/config.v2.json"),
        config,
    );
    for verb in ["which", "ls"] {
        host.ask([verb, "6e34:/etc"])
            .exits(2)
            .says("ambiguous")
            .says("determined_sammet")
            .says("twin");
    }
    // A longer prefix is not.
    assert_eq!(host.branches_of("6e34f").len(), 15);
    // Containers and images share the digit 6.
    blog_host()
        .ask(["branches", "6"])
        .exits(2)
        .says("determined_sammet")
        .says("training/webapp");
}

#[apply(test)]
fn a_diff_id_that_several_layers_have_is_ambiguous() {
    let output = blog_host()
        .ask(["branches", EMPTY_DIFF])
        .exits(2)
        .says("ambiguous");
    assert_eq!(
        output.stderr.matches("(layer").count(),
        5,
        "{}",
        output.stderr
    );
}

#[apply(test)]
fn what_nothing_is_called_is_said_in_dockers_words() {
    let no_name = "No such container: ";
    let no_path = "no union is mounted there";
    for (name, words) in [
        ("nobody", no_name),
        ("training/webapp:1.0", "No such image: "),
        ("ffffffffffff", no_name),
        ("si_0123", no_name),
        ("", no_name),
        ("a b\x1b[31m", no_name),
        ("../etc", no_path),
        ("/nowhere", no_path),
    ] {
        let output = blog_host()
            .ask(["branches", "--", name])
            .exits(2)
            .says(words);
        assert!(!output.stderr.contains('\x1b'), "{:?}", output.stderr);
        assert!(output.stdout.is_empty());
    }
}

// ---- spelled stacks ----

#[apply(test)]
fn relative_directories_start_where_the_person_is() {
    let mut command = run::command();
    command.current_dir(fixture("fruits-example")).args([
        "--format",
        "jsonl",
        "branches",
        "br:fruits:./vegetables=ro+wh",
    ]);
    let row = run::run(&mut command).exits(0).row();
    assert_eq!(
        texts(row["branches"].as_array().expect("branches"), "permission"),
        ["rw", "ro+wh"]
    );
    let here = fixture("fruits-example");
    let expected: Vec<Vec<u8>> = ["fruits", "vegetables"]
        .map(|name| here.join(name).into_os_string().into_vec())
        .into();
    assert_eq!(directories(&row), expected);
}

#[apply(test)]
fn relative_directories_start_at_the_root_that_is_given() {
    let host = Host::fixture("fruits-example");
    for stack in [
        "br:fruits=rw:vegetables=ro",
        "br:/fruits:/vegetables",
        "dirs=fruits:vegetables",
        "dirs:fruits:vegetables",
        "br=fruits:vegetables",
    ] {
        let rows = host.jsonl(["ls", stack]).exits(0).rows();
        assert_eq!(
            texts(&rows, "path"),
            ["/apple", "/carrots", "/tomato"],
            "{stack}"
        );
        assert_eq!(rows[2]["branch"], 0, "{stack}");
    }
}

#[apply(test)]
fn a_spelled_directory_that_is_not_there_is_said() {
    let host = Host::fixture("fruits-example");
    host.ask(["ls", "br:fruits:vegtables"])
        .exits(2)
        .says("/vegtables");
    host.ask(["ls", "br:fruits/apple"])
        .exits(2)
        .says("/fruits/apple");
    for nonsense in ["br:", "br:fruits::vegetables", "dirs="] {
        host.ask(["ls", nonsense])
            .exits(2)
            .says("br:DIR=PERM:DIR=PERM");
    }
}

#[apply(test)]
fn directories_with_odd_names_are_spelled() {
    let host = Host::empty();
    for name in ["/a=b/low", "/new\nline/mid", "/blank blank/up"] {
        host.file(format!("{name}/f"), name);
    }
    let stack = "br:/blank blank/up=rw:/new\nline/mid=ro+wh:/a=b/low";
    let row = host.jsonl(["which", "--in", stack, "/f"]).exits(0).row();
    assert_eq!(row["versions"].as_array().map(Vec::len), Some(3));
}

// ---- TARGET:PATH and --in ----

#[apply(test)]
fn target_and_path_split_as_docker_cp_splits_them() {
    let row = blog_host()
        .jsonl(["which", "training/webapp:latest:/etc/apt/sources.list"])
        .exits(0)
        .row();
    assert_eq!(row["path"], "/etc/apt/sources.list");
    assert_eq!(row["branch"], 0, "the image's own topmost layer");
    // The path's own colons are the path's.
    let host = Host::empty();
    host.union("1", &[("/mnt", "/")], &[(b"/up", "rw")])
        .file("/up/a:/b", "")
        .dir("/mnt");
    let row = host.jsonl(["which", "/mnt:/a:/b"]).exits(0).row();
    assert_eq!(row["path"], "/a:/b");
}

#[apply(test)]
fn several_targets_are_answered_in_their_order() {
    let rows = blog_host().jsonl([
        "which",
        "old_shell:/etc/motd",
        "determined_sammet:/opt/webapp/createdbysammy",
    ]);
    assert_eq!(
        texts(&rows.exits(0).rows(), "path"),
        ["/etc/motd", "/opt/webapp/createdbysammy"]
    );
}

#[apply(test)]
fn after_in_every_argument_is_a_path_byte_for_byte() {
    let host = Host::empty();
    let names: [&[u8]; 9] = [
        b"-n",
        b"--in",
        b"a:/b",
        b"br:x",
        b"\xff\xfe",
        b"new\nline",
        b" ",
        b"*",
        b"back\\slash",
    ];
    for name in names {
        host.file(OsString::from_vec([b"/up/", name].concat()), "");
    }
    let words = ["which", "--in", "br:/up", "--"].map(OsString::from);
    let paths = names.iter().map(|name| OsString::from_vec(name.to_vec()));
    let rows = host.jsonl(words.into_iter().chain(paths)).exits(0).rows();
    assert_eq!(rows.len(), names.len());
    for (row, name) in rows.iter().zip(names) {
        assert_eq!(bytes(&row["query"]), name);
        assert_eq!(bytes(&row["path"]), [b"/", name].concat());
    }
    let rows = host
        .jsonl(["ls", "--in", "br:/up", "--", "-n", "a:/b"])
        .exits(0)
        .rows();
    assert_eq!(texts(&rows, "path"), ["/-n", "/a:/b"]);
}

#[apply(test)]
fn one_path_that_is_not_there_makes_the_answer_no() {
    let output = blog_host()
        .jsonl([
            "which",
            "--in",
            "old_shell",
            "/etc/motd",
            "/etc/shadow",
            "/no",
        ])
        .exits(1);
    assert_eq!(
        texts(&output.rows(), "state"),
        ["present", "deleted", "missing"]
    );
}

// ---- mount points ----

/// Two unions: one at `/mnt`, a part of it also at `/bind`; another at `/other`.
fn two_unions() -> Host {
    let host = Host::empty();
    host.union(
        "80a122805ed3e91b",
        &[("/mnt", "/"), ("/bind", "/sub")],
        &[(b"/w/up", "rw"), (b"/w/low", "ro")],
    )
    .union(
        "1595c908361047b",
        &[("/other", "/")],
        &[(b"/w/second", "rw")],
    )
    .file("/w/low/sub/f", "low")
    .file("/w/low/only", "low")
    .file("/w/second/sub/f", "second")
    .dir("/w/up")
    .dir("/mnt/inner")
    .dir("/bind")
    .dir("/other");
    host
}

#[apply(test)]
fn a_path_under_a_mount_point_means_that_union() {
    let row = two_unions().jsonl(["which", "/mnt/sub/f"]).exits(0).row();
    assert_eq!(
        (text(&row, "target"), text(&row, "path"), &row["branch"]),
        ("/mnt", "/sub/f", &Value::from(1))
    );
    let row = two_unions().jsonl(["which", "/other/sub/f"]).exits(0).row();
    assert_eq!(
        (text(&row, "target"), &row["branch"]),
        ("/other", &Value::from(0))
    );
    let row = two_unions().jsonl(["which", "/mnt"]).exits(0).row();
    assert_eq!((text(&row, "path"), text(&row, "type")), ("/", "directory"));
}

#[apply(test)]
fn a_bind_mount_shows_its_part_of_the_union() {
    // 4.11
    let host = two_unions();
    let row = host.jsonl(["which", "/bind/f"]).exits(0).row();
    assert_eq!(
        (text(&row, "path"), &row["branch"]),
        ("/sub/f", &Value::from(1))
    );
    assert_eq!(
        texts(&host.jsonl(["ls", "/bind"]).exits(0).rows(), "path"),
        ["/sub/f"]
    );
    let rows = host.jsonl(["branches"]).exits(0).rows();
    assert_eq!(rows.len(), 2, "one union, however often it is mounted");
    assert_eq!(rows[0]["mounts"], Value::from(vec!["/mnt", "/bind"]));
}

#[apply(test)]
fn any_other_absolute_path_is_asked_of_every_mounted_union() {
    let rows = two_unions().jsonl(["which", "/sub/f"]).exits(0).rows();
    assert_eq!(texts(&rows, "target"), ["/mnt", "/other"]);
    // There is a union that has it.
    let rows = two_unions().jsonl(["which", "/only"]).exits(0).rows();
    assert_eq!(texts(&rows, "state"), ["present", "missing"]);
    two_unions().jsonl(["which", "/nowhere"]).exits(1);
    Host::empty()
        .ask(["which", "/etc/passwd"])
        .exits(2)
        .says("no container and no mounted union");
    two_unions()
        .ask(["which", "etc"])
        .exits(2)
        .says("write etc:/PATH");
}

#[apply(test)]
fn what_is_mounted_inside_a_union_is_not_the_unions() {
    let host = two_unions();
    host.mount("/ /mnt/inner rw - tmpfs tmpfs rw");
    let rows = host.jsonl(["which", "/mnt/inner/f"]).exits(1).rows();
    assert_eq!(
        texts(&rows, "path"),
        ["/mnt/inner/f", "/mnt/inner/f"],
        "asked of every union, as it stands"
    );
}

#[apply(test)]
fn a_branch_of_several_unions_is_ambiguous() {
    let host = Host::empty();
    host.union("a1", &[("/m1", "/")], &[(b"/w/a", "rw"), (b"/w/low", "ro")])
        .union("a2", &[("/m2", "/")], &[(b"/w/b", "rw"), (b"/w/low", "ro")])
        .file("/w/low/f", "")
        .dir("/w/a");
    for name in ["/w/low", "/w/low/f"] {
        host.ask(["branches", name])
            .exits(2)
            .says("si_a2, branch 1 of /m2");
    }
    host.ask(["branches", "/w/a"]).exits(0);
}

#[apply(test)]
fn of_unions_over_each_other_the_upper_one_answers() {
    let host = Host::empty();
    host.file(
        "/proc/self/mountinfo",
        "1 0 8:1 / / rw - ext4 /dev/sda rw\n\
         2 1 0:9 / /mnt rw - aufs none rw,si=aa1\n\
         3 2 0:10 / /mnt rw - aufs none rw,si=bb2\n",
    );
    for (si, branch) in [("aa1", "/w/covered"), ("bb2", "/w/upper")] {
        host.file(
            format!("/sys/fs/aufs/si_{si}/br0"),
            format!("{branch}=rw\n"),
        )
        .file(format!("{branch}/of_{si}"), "");
    }
    let row = host.jsonl(["which", "/mnt/of_bb2"]).exits(0).row();
    assert_eq!(text(&row, "target"), "si_bb2");
    host.jsonl(["which", "/mnt/of_aa1"]).exits(1);
    let rows = host.jsonl(["changes"]).exits(0).rows();
    assert_eq!(texts(&rows, "target"), ["si_aa1", "si_bb2"]);
}

#[apply(test)]
fn links_of_the_host_lead_to_mount_points_inside_the_root() {
    let host = two_unions();
    host.link("/short", "/mnt");
    let row = host.jsonl(["which", "/short/only"]).exits(0).row();
    assert_eq!(
        (text(&row, "target"), text(&row, "path")),
        ("/mnt", "/only")
    );
}

#[apply(test)]
fn a_union_on_the_root_has_every_path() {
    let host = Host::empty();
    host.union(
        "8d",
        &[("/", "/")],
        &[(b"/memory/changes", "rw"), (b"/memory/bundles/core", "rr")],
    )
    .file("/memory/bundles/core/etc/hostname", "live")
    .file("/memory/changes/etc/.wh.motd", "")
    .file("/memory/bundles/core/etc/motd", "hello");
    let row = host.jsonl(["which", "/etc/hostname"]).exits(0).row();
    assert_eq!(
        (text(&row, "target"), &row["branch"]),
        ("/", &Value::from(1))
    );
    let row = host.jsonl(["which", "/etc/motd"]).exits(1).row();
    assert_eq!(row["state"], "deleted");
    assert_eq!(
        texts(&host.jsonl(["ls", "/"]).exits(0).rows(), "path"),
        ["/etc"]
    );
    assert_eq!(
        host.ask(["changes", "/"]).exits(0).text(),
        "C /etc\nD /etc/motd\n"
    );
}

// ---- branches on the host ----

#[apply(test)]
fn branch_paths_are_bytes_whatever_they_hold() {
    // 4.5, 4.6
    let paths: [&[u8]; 9] = [
        b"/w/up",
        b"/w/x=rw",
        b"/w/a:b,c",
        b"/w/sp ace",
        b"/w/new\nline",
        b"/w/ends\\040lit",
        b"/w/tab\tdel\x7f#",
        b"/w/gr\xc3\xbcn \xff",
        b"/w/here (deleted)",
    ];
    let host = Host::empty();
    let branches: Vec<(&[u8], &str)> = paths
        .iter()
        .enumerate()
        .map(|(index, path)| (*path, if index == 0 { "rw" } else { "ro+wh" }))
        .collect();
    host.union("7", &[("/mnt", "/")], &branches).dir("/mnt");
    for (index, path) in paths.iter().enumerate() {
        host.file(
            OsString::from_vec([path, format!("/f{index}").as_bytes()].concat()),
            "",
        );
    }
    let row = host.jsonl(["branches", "/mnt"]).exits(0).row();
    assert_eq!(directories(&row), paths);
    let rows = host.jsonl(["ls", "/mnt"]).exits(0).rows();
    for (index, row) in rows.iter().enumerate() {
        assert_eq!(row["branch"], index, "{row}");
    }
    assert_eq!(rows.len(), paths.len());
}

#[apply(test)]
fn a_branch_whose_directory_was_removed_is_said_to_be_lost() {
    let host = Host::empty();
    host.union(
        "7",
        &[("/mnt", "/")],
        &[(b"/w/up", "rw"), (b"/w/gone (deleted)", "ro")],
    )
    .file("/w/up/f", "")
    .dir("/mnt");
    let output = host
        .jsonl(["ls", "/mnt"])
        .exits(2)
        .says("branch 1")
        .says("/w/gone (deleted)");
    assert_eq!(
        texts(&output.rows(), "path"),
        ["/f"],
        "the rest is answered"
    );
}

#[apply(test)]
fn a_branch_mounted_from_a_file_is_shown_with_it() {
    let host = Host::empty();
    host.union(
        "51",
        &[("/", "/")],
        &[
            (b"/memory/changes", "rw"),
            (b"/memory/bundles/01-core.sb", "rr"),
            (b"/memory/bundles/02-gone.sb", "rr"),
        ],
    )
    .mount("/ /memory/bundles/01-core.sb ro - squashfs /dev/loop3 ro")
    .mount("/ /memory/bundles/02-gone.sb ro - squashfs /dev/loop4 ro")
    .file(
        "/sys/block/loop3/loop/backing_file",
        "/media/usb stick/01-core.sb\n",
    )
    .dir("/memory/changes")
    .dir("/memory/bundles/01-core.sb")
    .dir("/memory/bundles/02-gone.sb");
    let row = host.jsonl(["branches"]).exits(0).row();
    let roles = texts(row["branches"].as_array().expect("branches"), "role");
    assert_eq!(roles, ["plain", "module", "module"]);
    assert_eq!(row["branches"][1]["module"], "/media/usb stick/01-core.sb");
    assert_eq!(
        row["branches"][2]["module"], "/dev/loop4",
        "no file is known"
    );
    let table = host.ask(["branches"]).exits(0);
    assert!(
        table.text().contains("/media/usb stick/01-core.sb"),
        "{}",
        table.text()
    );
}

#[apply(test)]
fn a_union_that_only_another_namespace_has_is_marked() {
    let host = Host::empty();
    host.union("99", &[], &[(b"/w/up", "rw")]).dir("/w/up");
    let row = host.jsonl(["branches", "si_99"]).exits(0).row();
    assert_eq!(row["state"], "elsewhere");
    assert_eq!(host.jsonl(["info"]).exits(0).row()["elsewhere_count"], 1);
}

#[apply(test)]
fn a_spelled_stack_of_links_and_dots_is_the_directories() {
    let host = Host::fixture("fruits-example");
    let (fruits, up_and_down) = (
        host.root.join("fruits"),
        host.root.join("fruits/../vegetables"),
    );
    let stack = spelled(&[(&fruits, "rw"), (&up_and_down, "ro")]);
    let mut command = run::command();
    command.args(["--format", "jsonl", "ls"]).arg(stack);
    assert_eq!(run::run(&mut command).exits(0).rows().len(), 3);
    assert!(fs::exists(host.root.join("fruits/tomato")).expect("a fixture"));
}

/// What is printed can be typed: each label leads to the union that it is the label of, with its
/// engine's name or without options.
#[apply(test)]
fn every_label_is_a_target() {
    needs::time();
    let blog = Host::copy_of("blog-host");
    let stores = crate::whois::stores();
    let mut asked = 0;
    for host in stores.iter().map(|store| &store.host).chain([&blog]) {
        let rows = host.jsonl(["branches"]).rows();
        assert!(!rows.is_empty());
        for row in rows.iter().step_by(2) {
            let label = text(row, "target");
            let again = host.jsonl(["branches", label]).rows();
            assert_eq!(again.len(), 1, "{label}");
            assert_eq!(again[0]["branches"], row["branches"], "{label}");
            assert_eq!(again[0]["target"], row["target"]);
            asked += 1;
        }
        for verb in [&["images", "--all"][..], &["containers"]] {
            // Some of them: each is a process.
            for row in host.jsonl(verb).rows().iter().step_by(4) {
                let label = text(row, "target");
                let found = host.ask(["branches", "-q", label]);
                assert!(
                    !found.stderr.contains("ambiguous") && !found.stderr.contains("No such"),
                    "{label}: {}",
                    found.stderr
                );
                asked += 1;
            }
        }
    }
    assert!(asked > 100, "{asked}");
}

/// A row for every container that there is, running or not, on a copied host, too.
#[apply(test)]
fn without_a_target_every_container_is_asked() {
    let host = Host::copy_of("blog-host");
    for (option, unions) in [
        (
            &[][..],
            &["docker:determined_sammet", "docker:old_shell"][..],
        ),
        (&["--running"], &["docker:determined_sammet"]),
        (&["--mounted"], &["docker:determined_sammet"]),
    ] {
        for verb in [
            &["changes"][..],
            &["whiteouts"],
            &["copyups"],
            &["which", "/etc/shadow"],
        ] {
            let rows = host.jsonl(verb.iter().chain(option)).rows();
            let mut of: Vec<&str> = rows.iter().map(|row| text(row, "target")).collect();
            of.dedup();
            let expected: Vec<&str> = unions
                .iter()
                .copied()
                .filter(|of| verb != ["copyups"] || rows.iter().any(|row| row["target"] == *of))
                .collect();
            assert_eq!(of, expected, "{verb:?} {option:?}");
        }
    }
    host.ask(["changes", "--running", "--mounted"]).exits(2);
    // Bare words say of which union a path is.
    let words = host.ask(["changes", "-q"]).exits(0);
    assert!(
        words
            .text()
            .lines()
            .any(|line| line == "docker:old_shell:/etc/shadow")
    );
    assert!(words.text().lines().all(|line| line.starts_with("docker:")));
    let one = host.ask(["changes", "-q", "old_shell"]).exits(0);
    assert!(one.text().lines().all(|line| line.starts_with('/')));
}

/// As docker has it, a bare word is a name and no path; whoever meant the directory is told how.
#[apply(test)]
fn a_bare_word_that_a_directory_has_is_told_apart() {
    let host = Host::empty();
    host.file(
        "/proc/self/mountinfo",
        "1 0 8:1 / / rw - ext4 /dev/sda rw\n2 1 0:9 / /mnt rw - aufs none rw,si=aa1\n",
    );
    host.file("/sys/fs/aufs/si_aa1/br0", "/w/up=rw\n");
    host.file("/w/up/f", "").file("/plain/f", "");
    host.ask(["branches", "mnt"])
        .exits(2)
        .says("did you mean ./mnt?");
    host.ask(["branches", "./mnt"]).exits(0);
    let said = host.ask(["branches", "plain"]).exits(2).stderr;
    assert!(!said.contains("./plain"), "{said}");
}

#[apply(test)]
fn a_slip_of_the_pen_is_told_what_may_have_been_meant() {
    for (typed, meant) in [
        ("old_shel", "docker:old_shell"),
        ("old-shell", "docker:old_shell"),
        ("shell", "docker:old_shell"),
        ("sammet", "docker:determined_sammet"),
        ("training/webap", "docker:training/webapp:latest"),
        ("webapp:latest", "docker:training/webapp:latest"),
        ("busybx", "docker:busybox:latest"),
    ] {
        let said = blog_host().ask(["branches", typed]).exits(2).stderr;
        assert!(
            said.contains("did you mean") && said.contains(meant),
            "{typed}: {said}"
        );
        blog_host().ask(["branches", meant]).exits(0);
    }
    let said = blog_host()
        .ask(["branches", "nothing-like-it"])
        .exits(2)
        .stderr;
    assert!(!said.contains("did you mean"), "{said}");
    // Where there is no engine, that is the answer.
    Host::empty()
        .ask(["branches", "web"])
        .exits(2)
        .says("no engine was found");
}

#[apply(test)]
fn a_namespace_without_anything_is_said_with_those_that_there_are() {
    needs::time();
    let stores = crate::whois::stores();
    let of_containerd = stores
        .iter()
        .find(|store| store.name == "containerd-overlayfs");
    let host = &of_containerd.expect("it is captured").host;
    for verb in ["containers", "images", "changes"] {
        host.ask(["-n", "nope", verb])
            .says("nothing is in the namespace nope")
            .says("default");
    }
    // A word that names something elsewhere is not "no such container"; find's `-name` is one.
    for words in [
        &["-n", "nope", "branches", "web"][..],
        &["restore", "-n", "nope", "web:/etc/x"],
        &["find", "-nope", "passwd"],
    ] {
        host.ask(words).says("nothing is in the namespace");
    }
}

/// What a person has from an engine's store, from `docker inspect`, or from `/proc`, is a path of the
/// union, in every verb that takes one, with the root before it or without.
#[apply(test)]
fn an_engines_own_path_is_a_path_of_the_union() {
    needs::captured_hosts();
    for (name, container, path, deleted) in [
        ("docker-28-overlay2", "web-1", "/etc/passwd", "/etc/group"),
        ("podman-5.8-overlay", "web-1", "/etc/passwd", "/etc/group"),
    ] {
        let host = Host::captured(name);
        let layer = host.ask(["-q", "branches", container]).exits(0);
        let layer = layer.text().lines().next().expect("a branch").to_owned();
        let rooted = format!("{}{layer}", host.root.display());
        let of_union = |path: &str| {
            let asked = format!("{container}:{path}");
            let mut row = host.jsonl(["which", &asked]).row();
            row.as_object_mut().expect("an object").remove("query");
            row
        };
        for directory in [&layer, &rooted] {
            for path in [path, deleted] {
                let mut row = host.jsonl(["which", &format!("{directory}{path}")]).row();
                row.as_object_mut().expect("an object").remove("query");
                assert_eq!(row, of_union(path), "{name} {directory}{path}");
            }
            let content = host.ask(["cat", &format!("{directory}{path}")]).exits(0);
            let whole = host.ask(["cat", &format!("{container}:{path}")]).exits(0);
            assert_eq!(content.stdout, whole.stdout);
            let plan = host.ask(["restore", "--dry-run", &format!("{directory}{deleted}")]);
            let same = host.ask(["restore", "--dry-run", &format!("{container}:{deleted}")]);
            assert_eq!(plan.text(), same.text(), "{name}");
            assert_eq!(plan.status, Some(0), "{}", plan.stderr);
        }
    }
}

/// Docker takes a name with all that it leaves out itself.
#[apply(test)]
fn whole_names_of_docker_s_images_are_known() {
    let named = |name: &str| {
        let rows = blog_host().jsonl(["branches", name]).exits(0).rows();
        rows[0]["target"].clone()
    };
    for name in [
        "library/busybox",
        "docker.io/library/busybox",
        "docker.io/library/busybox:latest",
    ] {
        assert_eq!(named(name), named("busybox"), "{name}");
    }
    blog_host()
        .ask(["branches", "docker.io/library/busybox:1"])
        .exits(2);
}
