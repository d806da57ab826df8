//! Bad input, unreadable parts, odd bytes: said clearly, answered as far as can be, and nothing
//! is lost or written.

use std::fs;
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};
use serde_json::Value;
use walkdir::WalkDir;

use crate::lab::deep::Deep;
use crate::lab::host::Host;
use crate::lab::is_root;
use crate::lab::needs;
use crate::lab::run::{self, Output, bytes, text, texts};
use crate::lab::terminal;
use crate::lab::verbs::{Words, is_refused, reading};

const CONTAINER: &str = "6e34f74c1961320c2ea57b073b34ae9ff15a217a7d9f7db46d9ad8cfa62c782f";
const MOUNT_ID: &str = "2ee58d81e4ac6811bbc78beb4b46bf213c79c9e2dc7e441741afc8c4349c6bab";
const DOCKER: &str = "/var/lib/docker";

fn config_of(container: &str) -> String {
    format!("{DOCKER}/containers/{container}/config.v2.json")
}

/// The article's host with one of its files replaced.
fn blog_host_with(path: &str, content: impl AsRef<[u8]>) -> Host {
    let host = Host::copy_of("blog-host");
    assert!(host.at(path).exists(), "{path}");
    host.file(path, content);
    host
}

// ---- an engine's files ----

#[apply(test)]
fn a_container_whose_configuration_is_damaged_does_not_hide_the_others() {
    needs::time();
    let whole = Host::fixture("blog-host").read(config_of(CONTAINER));
    for damaged in [
        &whole[..whole.len() / 2],
        b"",
        b"not JSON",
        b"[]",
        b"\x00\xff\xfe",
        b"{}",
        b"{\"ID\": 7}",
    ] {
        let host = blog_host_with(&config_of(CONTAINER), damaged);
        let output = host
            .jsonl(["containers"])
            .exits(2)
            .says(CONTAINER)
            .says("config.v2.json");
        assert_eq!(texts(&output.rows(), "name"), ["old_shell"]);
        host.ask(["changes", "old_shell"]).exits(0);
        host.ask(["branches", "determined_sammet"]).exits(2);
        let info = host.jsonl(["info"]).exits(2).row();
        assert_eq!(info["problems"].as_array().map(Vec::len), Some(1), "{info}");
    }
}

#[apply(test)]
fn a_configuration_cannot_name_another_container() {
    let whole =
        String::from_utf8(Host::fixture("blog-host").read(config_of(CONTAINER))).expect("JSON");
    for id in [
        "../../../../etc",
        "a/b",
        "..",
        "18e8c1c9dd0d8dfb4be834fede307a94d163d2aef7a8b9d2e60340893a8b5386",
    ] {
        let host = blog_host_with(&config_of(CONTAINER), whole.replace(CONTAINER, id));
        let output = host
            .jsonl(["containers"])
            .exits(2)
            .says("another container");
        assert_eq!(texts(&output.rows(), "name"), ["old_shell"], "{id}");
    }
}

#[apply(test)]
fn ids_never_lead_out_of_their_directory() {
    needs::time();
    let mount_id = format!(
        "{DOCKER}/image/aufs/layerdb/mounts/18e8c1c9dd0d8dfb4be834fede307a94d163d2aef7a8b9d2e60340893a8b5386/mount-id"
    );
    let layers = format!(
        "{DOCKER}/aufs/layers/dde1f945f3a0de856aa8cd97c3688a0361e94569fa14692088b714258677baf4"
    );
    for id in [
        "../../../../etc",
        "..",
        "a/../b",
        "/etc",
        ".hidden",
        "new\nline",
        "",
    ] {
        let host = blog_host_with(&mount_id, id);
        host.ask(["branches", "old_shell"])
            .exits(2)
            .says("is not an id");
    }
    for id in ["../../../../etc", "..", "a/../b", "/etc"] {
        let host = blog_host_with(&layers, format!("{id}\n"));
        host.ask(["ls", "old_shell"]).exits(2).says("is not an id");
    }
}

#[apply(test)]
fn a_layer_that_is_not_known_leaves_the_rest_of_a_history() {
    let host = Host::fixture("blog-host");
    let rows = host.jsonl(["history", "busybox"]).exits(0).rows();
    let base = rows.last().expect("a base layer");
    let chain = text(base, "chain_id")
        .trim_start_matches("sha256:")
        .to_owned();
    for id in ["../../../../etc", "a/b", "\u{fc}"] {
        let host = blog_host_with(
            &format!("{DOCKER}/image/aufs/layerdb/sha256/{chain}/cache-id"),
            id,
        );
        host.ask(["ls", "busybox"]).exits(2).says("layerdb");
        let told = host.jsonl(["history", "busybox"]).rows();
        assert_eq!(told.len(), rows.len(), "{id}");
        assert!(
            told.iter().all(|row| row.get("directory").is_none()),
            "{told:?}"
        );
    }
}

#[apply(test)]
fn a_layer_that_is_missing_is_named_and_the_rest_is_answered() {
    let layer = format!(
        "{DOCKER}/aufs/diff/7a085e415855435121fb7837c26a5e951f622bc69364d9228d409a4929b627e1"
    );
    let host = Host::copy_of("blog-host");
    fs::remove_dir_all(host.at(&layer)).expect("our own copy");
    for arguments in [
        &["which", "determined_sammet:/etc/apt/sources.list"][..],
        &["ls", "determined_sammet"],
        &["changes", "determined_sammet"],
        &["whiteouts", "determined_sammet"],
        &["copyups", "determined_sammet"],
        &["check", "determined_sammet"],
    ] {
        let output = host.jsonl(arguments).exits(2).says("branch 6").says(&layer);
        assert!(
            arguments[0] == "check" || !output.rows().is_empty(),
            "{arguments:?}"
        );
    }
    let row = host
        .jsonl(["which", "determined_sammet:/etc/apt/sources.list"])
        .exits(2)
        .row();
    assert_eq!(row["trail"][6]["says"], "unread");
    // Other containers have nothing to do with it.
    host.ask(["changes", "old_shell"]).exits(0);
}

#[apply(test)]
fn a_layer_that_is_a_link_leads_nowhere_outside_the_root() {
    let host = Host::copy_of("blog-host");
    let layer = host.at(format!(
        "{DOCKER}/aufs/diff/7a085e415855435121fb7837c26a5e951f622bc69364d9228d409a4929b627e1"
    ));
    fs::remove_dir_all(&layer).expect("our own copy");
    // On this machine the target exists; inside the root it does not.
    std::os::unix::fs::symlink(std::env::temp_dir(), &layer).expect("our own copy");
    host.ask(["ls", "determined_sammet"])
        .exits(2)
        .says("branch 6");
}

#[apply(test)]
fn a_loop_of_parents_ends() {
    let layers = format!("{DOCKER}/aufs/layers/{MOUNT_ID}");
    let whole = String::from_utf8(Host::fixture("blog-host").read(&layers)).expect("ids");
    for looped in [format!("{whole}{whole}"), format!("{whole}{MOUNT_ID}\n")] {
        let host = blog_host_with(&layers, looped);
        // The kernel's own list is there while it is mounted.
        host.ask(["changes", "determined_sammet"]).exits(0);
        fs::remove_dir_all(host.at("/sys/fs/aufs")).expect("our own copy");
        fs::remove_dir_all(host.at("/proc")).expect("our own copy");
        host.ask(["changes", "determined_sammet"])
            .exits(2)
            .says("loop")
            .says(MOUNT_ID);
    }
}

#[apply(test)]
fn a_loop_of_images_ends() {
    let host = Host::copy_of("docker-1.9");
    let images = host.jsonl(["history", "example/web:1.0"]).exits(0).rows();
    let (top, base) = (text(&images[0], "image"), text(&images[3], "image"));
    let path = format!("{DOCKER}/graph/{base}/json");
    let mut json: Value = serde_json::from_slice(&host.read(&path)).expect("JSON");
    json["parent"] = top.into();
    host.file(&path, json.to_string());
    host.ask(["history", "example/web:1.0"])
        .exits(2)
        .says("loop");
    host.ask(["images"]).exits(2).says("loop");
    // What is mounted needs no parents.
    assert_eq!(
        host.ask(["changes", "old_web"]).stdout,
        Host::fixture("docker-1.9")
            .ask(["changes", "old_web"])
            .stdout
    );
}

// ---- the kernel's files ----

#[apply(test)]
fn a_gap_in_sysfs_is_not_taken_for_a_whole_union() {
    let host = Host::copy_of("blog-host");
    fs::remove_file(host.at("/sys/fs/aufs/si_ab487e40195df24f/br3")).expect("our own copy");
    host.ask(["branches"]).exits(2).says("br files are missing");
}

#[apply(test)]
fn sysfs_lines_that_say_nothing_are_said() {
    for line in ["", "\n", "no equals sign\n", "relative=rw\n"] {
        let host = blog_host_with("/sys/fs/aufs/si_ab487e40195df24f/br3", line);
        host.ask(["branches"]).exits(2).says("br3");
    }
}

#[apply(test)]
fn a_mount_that_sysfs_does_not_know_is_said() {
    let host = Host::empty();
    host.mount("/ /mnt rw - aufs none rw,si=80a122805ed3e91b")
        .dir("/mnt");
    host.ask(["branches"]).exits(2).says("si_80a122805ed3e91b");
}

#[apply(test)]
fn nothing_of_a_kernel_is_nothing_mounted() {
    let host = Host::copy_of("blog-host");
    fs::remove_dir_all(host.at("/proc")).expect("our own copy");
    fs::remove_dir_all(host.at("/sys")).expect("our own copy");
    let rows = host.jsonl(["branches"]).exits(0).rows();
    assert_eq!(texts(&rows, "state"), ["not-mounted", "not-mounted"]);
    assert_eq!(host.jsonl(["info"]).exits(0).row()["mounted_count"], 0);
    host.ask(["whiteouts", "--mounted"]).exits(0);
    let rows = host.jsonl(["whiteouts"]).exits(0).rows();
    let of = texts(&rows, "target");
    assert_eq!(of, ["docker:determined_sammet", "docker:old_shell"]);
    assert!(
        host.jsonl(["containers"])
            .exits(0)
            .rows()
            .iter()
            .all(|row| row.get("mounted").is_none()),
        "nothing tells, so nothing is said"
    );
    // An empty root has no engine.
    let nothing = Host::empty();
    assert_eq!(
        nothing.jsonl(["info"]).exits(0).row()["engines"],
        Value::Array(Vec::new())
    );
    for verb in ["containers", "images", "branches"] {
        assert!(nothing.jsonl([verb]).exits(0).rows().is_empty());
    }
    run::layerctl(["--root", "/no/such/root", "info"])
        .exits(2)
        .says("/no/such/root");
}

// ---- branches ----

/// A stack of `/up` (rw) over `/low` (ro+wh), spelled.
const STACK: &str = "br:/up=rw:/low=ro+wh";

fn two_branches() -> Host {
    let host = Host::empty();
    host.dir("/up").dir("/low");
    host
}

#[apply(test)]
fn names_of_255_bytes_are_listed_and_refused() {
    // 1.10
    let host = two_branches();
    let (longest, too_long, full) = ("a".repeat(242), "b".repeat(243), "c".repeat(255));
    for name in [&longest, &too_long, &full] {
        host.file(format!("/low/{name}"), "");
    }
    host.file(format!("/up/.wh.{longest}"), "");
    let output = host.jsonl(["ls", STACK]).exits(0);
    let shown: Vec<(String, &str)> = output
        .rows()
        .iter()
        .map(|row| {
            (
                text(row, "path").to_owned(),
                if row["error"] == "ENAMETOOLONG" {
                    "refused"
                } else {
                    "shown"
                },
            )
        })
        .collect();
    assert_eq!(
        shown,
        [
            (format!("/{too_long}"), "refused"),
            (format!("/{full}"), "refused")
        ]
    );
    let rows = host
        .jsonl([
            "which",
            "--in",
            STACK,
            &longest,
            &too_long,
            &full,
            &"d".repeat(300),
        ])
        .exits(1)
        .rows();
    assert_eq!(
        texts(&rows, "state"),
        ["deleted", "broken", "broken", "broken"]
    );
    assert_eq!(rows[1]["error"], "ENAMETOOLONG");
    let found = host.jsonl(["check", STACK]).exits(1).rows();
    assert_eq!(texts(&found, "finding"), ["name-too-long", "name-too-long"]);
    assert_eq!(
        host.ask(["changes", STACK]).exits(0).text(),
        format!("D /{longest}\n")
    );
}

#[apply(test)]
fn marks_that_are_no_regular_files_break_what_they_mark() {
    // 1.13
    let host = two_branches();
    host.dir("/up/.wh.f")
        .dir("/up/d/.wh..wh..opq")
        .link("/up/.wh.l", "nowhere");
    host.file("/low/f", "")
        .file("/low/l", "")
        .file("/low/d/x", "")
        .file("/low/whole", "");
    for (path, state) in [
        ("/f", "broken"),
        ("/l", "broken"),
        ("/d", "broken"),
        ("/d/x", "broken"),
        ("/whole", "present"),
    ] {
        let row = host.jsonl(["which", "--in", STACK, path]).row();
        assert_eq!(row["state"], state, "{path}");
        assert_eq!(row["error"] == "EIO", state == "broken", "{path}");
    }
    let found = host.jsonl(["check", STACK]).exits(1).rows();
    assert_eq!(
        texts(&found, "finding"),
        ["bad-mark", "bad-mark", "bad-mark"]
    );
    let listed = host.jsonl(["ls", "-R", STACK]).exits(0).rows();
    assert!(
        listed
            .iter()
            .any(|row| row["path"] == "/whole" && row["type"] == "file"),
        "{listed:?}"
    );
    host.ask(["changes", STACK]).exits(0);
    host.ask(["whiteouts", STACK]).exits(0);
}

#[apply(test)]
fn a_name_beside_its_own_whiteout_is_found() {
    // 1.14
    let host = two_branches();
    host.file("/up/x", "")
        .file("/up/.wh.x", "")
        .file("/low/x", "");
    let row = host.jsonl(["which", "--in", STACK, "/x"]).exits(1).row();
    assert_eq!(
        (text(&row, "state"), text(&row, "error")),
        ("broken", "EIO")
    );
    let found = host.jsonl(["check", STACK]).exits(1).row();
    assert_eq!(found["finding"], "beside-whiteout");
}

#[apply(test)]
fn deleted_content_that_the_next_mount_shows_again_is_found() {
    // 3.4b
    let host = Host::empty();
    host.file("/up/d/.wh..wh..opq", "")
        .file("/mid/d/.wh..wh..opq", "")
        .file("/mid/d/back", "")
        .file("/low/d/gone", "");
    let found = host
        .jsonl(["check", "br:/up=rw:/mid=ro+wh:/low=ro+wh"])
        .exits(1)
        .row();
    assert_eq!(
        (text(&found, "finding"), text(&found, "path")),
        ("comes-back", "/d")
    );
    assert!(text(&found, "means").contains("back"), "{found}");
}

#[apply(test)]
fn marks_without_effect_are_found() {
    // 1.12, 3.2, 3.4
    let host = two_branches();
    host.file("/up/.wh..wh..opq", "")
        .file("/up/.wh.nothing", "")
        .file("/low/d/.wh.x", "");
    let rows = host.jsonl(["check", "br:/up=rw:/low=ro"]).exits(1).rows();
    let mut found: Vec<(&str, &str)> = rows
        .iter()
        .map(|row| (text(row, "finding"), text(row, "path")))
        .collect();
    found.sort_unstable();
    assert_eq!(
        found,
        [
            ("no-effect", "/"),
            ("no-effect", "/d/x"),
            ("stale-whiteout", "/nothing")
        ]
    );
}

#[apply(test)]
fn every_verb_can_take_127_branches() {
    let host = Host::empty();
    let branches: Vec<String> = (0..127).map(|number| format!("/b{number}")).collect();
    for (number, branch) in branches.iter().enumerate() {
        host.file(format!("{branch}/all"), "")
            .file(format!("{branch}/f{number}"), "");
    }
    host.file("/b0/.wh.f126", "");
    let stack = format!(
        "br:{}",
        branches
            .iter()
            .map(|path| format!("{path}=ro+wh"))
            .collect::<Vec<_>>()
            .join(":")
            .replacen("ro+wh", "rw", 1)
    );
    assert_eq!(
        host.jsonl(["ls", &stack]).exits(0).rows().len(),
        127,
        "126 files and the one that all have"
    );
    assert_eq!(
        host.ask(["changes", &stack]).exits(0).text(),
        "D /f126\nC /all\nA /f0\n"
    );
    let mark = host.jsonl(["whiteouts", &stack]).exits(0).row();
    assert_eq!(mark["hides"]["branch"], 126);
    let row = host.jsonl(["which", "--in", &stack, "/all"]).exits(0).row();
    assert_eq!(row["versions"].as_array().map(Vec::len), Some(127));
    host.ask(["check", &stack]).exits(0);
}

#[apply(test)]
fn trees_deeper_than_a_path_or_the_open_files_may_be_are_walked() {
    needs::time();
    // Longer than PATH_MAX twice over, and far deeper than a process may have files open.
    const LEVELS: usize = 5000;
    let host = two_branches();
    let _tree = Deep::make(host.at("/up"), LEVELS);
    for (verb, rows) in [
        (&["ls", "-R"][..], LEVELS),
        (&["changes"], LEVELS),
        (&["whiteouts"], 0),
        (&["check"], 0),
    ] {
        let mut command = limited("/bin/sh", "ulimit -n 64");
        command.args(run::jsonl(&host.root, verb.iter().chain(&[STACK])));
        let output = run::run(&mut command).exits(0);
        assert_eq!(output.rows().len(), rows, "{verb:?}");
    }
}

/// The binary within limits, which are a shell's to set: std has no call for it.
fn limited(shell: &str, limit: &str) -> Command {
    let mut command = Command::new(shell);
    command
        .env_clear()
        .args(["-c", &format!("{limit} && exec \"$@\""), "sh"])
        .arg(env!("CARGO_BIN_EXE_layerctl"));
    command
}

#[apply(test)]
fn threads_share_the_few_files_that_may_be_open() {
    needs::time();
    let host = two_branches();
    let chain = "d/".repeat(30);
    for top in 0..40 {
        host.file(format!("/up/{top}/{chain}file"), "");
    }
    let ask = |shell: &str, limit: &str, threads: &str| {
        let mut command = limited(shell, limit);
        command.args(run::jsonl(&host.root, ["-j", threads, "ls", "-R", STACK]));
        run::run(&mut command).exits(0).stdout
    };
    let alone = ask("/bin/sh", "true", "1");
    assert_eq!(alone.iter().filter(|&&byte| byte == b'\n').count(), 40 * 32);
    for limit in ["ulimit -n 16", "ulimit -n 24"] {
        for threads in ["1", "4", "8", "1000000"] {
            for _ in 0..5 {
                assert!(
                    ask("/bin/sh", limit, threads) == alone,
                    "{limit}: -j {threads}"
                );
            }
        }
    }
    // Somebody else has most of them.
    if !Path::new("/bin/bash").exists() {
        crate::lab::skip("no bash, which can hand many open files on");
    }
    let limit = "for n in {3..52}; do eval \"exec $n</dev/null\"; done; ulimit -n 80";
    for threads in ["1", "8"] {
        assert!(ask("/bin/bash", limit, threads) == alone, "-j {threads}");
    }
}

#[apply(test)]
fn what_may_not_be_read_is_said_and_the_rest_is_answered() {
    let host = two_branches();
    host.file("/up/a", "")
        .file("/up/closed/.wh.x", "")
        .file("/up/z/.wh.y", "")
        .file("/low/z/y", "")
        .file("/low/closed/x", "");
    set_mode(&host, "/", 0o755);
    set_mode(&host, "/up/closed", 0o000);
    let program = Ordinary::program(&host);
    for (verb, path, known) in [
        (&["ls", "-R"][..], "/up/closed", vec!["/a", "/z"]),
        (&["changes"], "/up/closed", vec!["/a", "/z", "/z/y"]),
        (&["whiteouts"], "/up/closed", vec!["/z/y"]),
        (&["which"], "/up/closed", vec!["/a"]),
    ] {
        let mut command = program.command();
        command
            .arg("--root")
            .arg(&host.root)
            .args(["--format", "jsonl"])
            .args(verb);
        match verb {
            ["which"] => command.args(["--in", STACK, "/closed/x", "/a"]),
            _ => command.arg(STACK),
        };
        let output = run::run(&mut command)
            .exits(2)
            .says("Permission denied")
            .says(path)
            .says("as root");
        let paths: Vec<String> = output
            .rows()
            .iter()
            .map(|row| text(row, "path").to_owned())
            .collect();
        for path in known {
            assert!(
                paths.iter().any(|seen| seen == path),
                "{verb:?} {path}: {paths:?}"
            );
        }
    }
    set_mode(&host, "/up/closed", 0o755);
}

#[apply(test)]
fn what_may_be_listed_but_not_searched_is_listed() {
    let host = two_branches();
    host.file("/up/half/x", "")
        .file("/low/half/y", "")
        .file("/up/z", "");
    set_mode(&host, "/", 0o755);
    set_mode(&host, "/up/half", 0o444);
    let program = Ordinary::program(&host);
    let ask = |arguments: &[&str]| -> Vec<String> {
        let mut command = program.command();
        command
            .arg("--root")
            .arg(&host.root)
            .args(["--format", "jsonl", "ls"])
            .args(arguments);
        let output = run::run(&mut command);
        let rows = output.rows();
        rows.iter()
            .map(|row| text(row, "path").to_owned())
            .collect()
    };
    assert_eq!(ask(&[STACK]), ["/half", "/z"]);
    assert_eq!(ask(&["-R", STACK]), ["/half", "/half/x", "/half/y", "/z"]);
    assert_eq!(ask(&["--in", STACK, "/half"]), ["/half/x", "/half/y"]);
    set_mode(&host, "/up/half", 0o755);
}

#[apply(test)]
fn an_entry_that_cannot_be_asked_leaves_its_neighbours() {
    let host = two_branches();
    for name in ["/up/b", "/up/w", "/up/z/b", "/up/z/w", "/low/w", "/low/z/w"] {
        host.file(name, "");
    }
    for whiteout in ["/up/w", "/up/z/w"] {
        let set = rustix::fs::lsetxattr(
            host.at(whiteout),
            "user.overlay.whiteout",
            b"y",
            rustix::fs::XattrFlags::empty(),
        );
        if let Err(errno) = set {
            crate::lab::skip(&format!("no attributes on this file system: {errno}"));
        }
    }
    set_mode(&host, "/", 0o755);
    // Whether an empty file is a whiteout the name of an attribute says, which is told to whoever may
    // search the directory, whatever the file's own mode.
    for closed in ["/up/b", "/up/z/b", "/up/w"] {
        set_mode(&host, closed, 0o000);
    }
    for searched in ["/up/h", "/up/z/h"] {
        host.file(format!("{searched}/b"), "");
        set_mode(&host, searched, 0o444);
    }
    let program = Ordinary::program(&host);
    let stack = "lowerdir=/low,upperdir=/up,userxattr";
    for (verb, stack) in [
        ("whiteouts", stack),
        ("check", "lowerdir=/nothing,upperdir=/up,userxattr"),
    ] {
        host.dir("/nothing");
        let mut command = program.command();
        command
            .arg("--root")
            .arg(&host.root)
            .args(["--format", "jsonl", verb, stack]);
        let output = run::run(&mut command)
            .exits(2)
            .says("/up/h/b: Permission denied")
            .says("/up/z/h/b: Permission denied");
        let rows = output.rows();
        let paths: Vec<&str> = rows.iter().map(|row| text(row, "path")).collect();
        assert_eq!(paths, ["/w", "/z/w"], "{verb}");
    }
    for searched in ["/up/h", "/up/z/h"] {
        set_mode(&host, searched, 0o755);
    }
}

fn set_mode(host: &Host, path: &str, mode: u32) {
    fs::set_permissions(host.at(path), fs::Permissions::from_mode(mode)).expect("our own");
}

/// The binary as a user runs it who may not read everything.
struct Ordinary(PathBuf);

impl Ordinary {
    /// A copy that such a user can reach.
    fn program(host: &Host) -> Ordinary {
        let copy = host.at("/layerctl");
        run::copy_program(env!("CARGO_BIN_EXE_layerctl"), &copy);
        Ordinary(copy)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.0);
        command.env_clear();
        if is_root() {
            const NOBODY: u32 = 65534;
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    }
}

/// What may not be read of a whole host is one line for one who is not root, and nothing of it is said
/// not to be there.
#[apply(test)]
fn who_is_not_root_is_told_so_in_one_line() {
    needs::root("to become somebody else");
    needs::captured_hosts();
    let host = Host::captured("docker-28-overlay2");
    set_mode(&host, "/", 0o755);
    // As Docker makes it: nobody else may look.
    set_mode(&host, "/var/lib/docker", 0o710);
    let program = Ordinary::program(&host);
    let ask = |words: &[&str]| {
        let mut command = program.command();
        run::run(command.arg("--root").arg(&host.root).args(words)).exits(2)
    };
    for words in [
        &["containers"][..],
        &["images"],
        &["changes"],
        &["whiteouts"],
        &["check"],
        &["du"],
        &["orphans"],
        &["find", "passwd"],
        &["which", "/etc/passwd"],
        &["ls", "web-1"],
        &["cat", "web-1:/etc/passwd"],
        &["restore", "--dry-run", "web-1:/etc/group"],
        &["whois", "web-1"],
        &["history", "lab/web:2"],
        &["info"],
        &["verify"],
        &["report"],
        &["metrics"],
    ] {
        let output = ask(words);
        let denied = |line: &&str| line.contains("ermission denied");
        let lines: Vec<&str> = output.stderr.lines().filter(denied).collect();
        assert_eq!(lines.len(), 1, "{words:?}: {}", output.stderr);
        let hints = output.stderr.matches("run layerctl as root").count();
        assert_eq!(hints, 1, "{words:?}: {}", output.stderr);
        for claim in [
            "no engine was found",
            "No such",
            "there is no container",
            "No engine found\n",
            "there is no image",
            "nothing found\n",
        ] {
            let said = format!("{}{}", output.text(), output.stderr);
            assert!(!said.contains(claim), "{words:?}: {said}");
        }
        if words[0] == "which" {
            assert!(!output.text().contains("not there"), "{}", output.text());
            assert!(output.text().contains("unknown"), "{}", output.text());
        }
    }
    // Who wants to know it is told of each place.
    let all = ask(&["-v", "containers"]).stderr;
    assert!(all.matches("Permission denied").count() > 1, "{all}");
}

/// A home that is closed to who asks takes no answer about stores that are open.
#[apply(test)]
fn a_closed_home_hides_no_open_store() {
    needs::root("to become somebody else");
    needs::captured_hosts();
    let host = Host::captured("docker-28-overlay2");
    set_mode(&host, "/", 0o755);
    set_mode(&host, "/var/lib/docker", 0o755);
    for directory in ["overlay2", "image"] {
        let mut command = std::process::Command::new("chmod");
        let at = host.at(format!("/var/lib/docker/{directory}"));
        assert!(
            command
                .args(["-R", "a+rX"])
                .arg(at)
                .status()
                .expect("chmod")
                .success()
        );
    }
    // Images, and no containers.
    fs::remove_dir_all(host.at("/var/lib/docker/containers")).expect("ours");
    host.dir("/var/lib/docker/containers");
    let mounts = "/var/lib/docker/image/overlay2/layerdb/mounts";
    let _ = fs::remove_dir_all(host.at(mounts));
    host.dir(mounts);
    let passwd = "root:x:0:0::/root:/bin/sh\nplain:x:1000:1000::/home/plain:/bin/sh\n";
    host.file("/etc/passwd", passwd).dir("/home/plain/.local");
    set_mode(&host, "/home/plain", 0o700);
    let program = Ordinary::program(&host);
    for (words, wanted) in [
        (&["report"][..], "lab/web"),
        (&["metrics"], "layerctl_"),
        (&["find", "passwd"], "/etc/passwd"),
        (&["check"], ""),
    ] {
        let mut command = program.command();
        let output = run::run(command.arg("--root").arg(&host.root).args(words)).exits(2);
        assert!(
            output.text().contains(wanted),
            "{words:?}: {}",
            output.stderr
        );
        assert!(
            !output.stderr.contains("whether there is"),
            "{words:?}: {}",
            output.stderr
        );
    }
}

// ---- output ----

const ODD: &[u8] = b"a\x1b[31mred\nline\t\xff";

fn odd_names() -> Host {
    let host = two_branches();
    host.file(std::ffi::OsStr::from_bytes(&[b"/up/", ODD].concat()), "");
    host
}

#[apply(test)]
fn control_bytes_are_escaped_in_tables() {
    let host = odd_names();
    for verb in [
        &["ls", STACK][..],
        &["which", "--in", STACK, "--", "/a"],
        &["check", STACK],
    ] {
        let output = host.ask(verb);
        assert!(
            !output
                .stdout
                .iter()
                .any(|&byte| byte < b' ' && byte != b'\n' || byte == 0x7f),
            "{verb:?}"
        );
    }
    let shown = host.ask(["ls", STACK]).exits(0);
    assert!(
        shown.text().contains("/a\\x1b[31mred\\nline\\t\\xff"),
        "{}",
        shown.text()
    );
}

#[apply(test)]
fn bare_paths_are_raw_for_machines_and_escaped_for_a_terminal() {
    let host = odd_names();
    let path = [b"/", ODD].concat();
    assert_eq!(
        host.ask(["-0", "ls", STACK]).exits(0).stdout,
        [&path[..], b"\0"].concat()
    );
    assert_eq!(
        host.ask(["-q", "ls", STACK]).exits(0).stdout,
        [&path[..], b"\n"].concat()
    );
    assert_eq!(
        host.ask(["changes", STACK]).exits(0).stdout,
        [b"A ", &path[..], b"\n"].concat()
    );
    for (arguments, shown) in [
        (&["-q", "ls", STACK][..], "/a\\x1b[31mred\\nline\\t\\xff"),
        (&["changes", STACK], "A /a\\x1b[31mred\\nline\\t\\xff"),
    ] {
        let seen = on_a_terminal(&host, arguments);
        // Colours are ours; the name's own escape must not be among them.
        assert!(
            seen.contains(shown) && !seen.contains("\x1b[31mred"),
            "{seen:?}"
        );
    }
}

/// What a terminal is sent.
fn on_a_terminal(host: &Host, arguments: &[&str]) -> String {
    let (mut master, slave) = terminal::open(0);
    let mut command = run::command();
    command
        .env("TERM", "xterm")
        .arg("--root")
        .arg(&host.root)
        .args(arguments)
        .stdout(slave);
    let status = command.status().expect("layerctl was built");
    assert!(status.success());
    // Ours is the last hand on the slave: without it, reading ends.
    drop(command);
    let mut seen = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = master.read(&mut buffer) {
        seen.extend_from_slice(&buffer[..length]);
    }
    String::from_utf8_lossy(&seen).into_owned()
}

#[apply(test)]
fn paths_that_are_not_utf_8_are_bytes_in_json() {
    let host = odd_names();
    let row = host.jsonl(["ls", STACK]).exits(0).row();
    assert_eq!(
        row["path"],
        serde_json::json!({"bytes": "L2EbWzMxbXJlZApsaW5lCf8="})
    );
    assert_eq!(bytes(&row["path"]), [b"/", ODD].concat());
    let document: Value = serde_json::from_slice(
        &host
            .ask(["--format", "json", "changes", STACK])
            .exits(0)
            .stdout,
    )
    .expect("JSON");
    assert_eq!(bytes(&document[0]["path"]), [b"/", ODD].concat());
}

#[apply(test)]
fn a_closed_pipe_is_quiet() {
    for arguments in [
        &["ls", "-R", "determined_sammet"][..],
        &["--format", "json", "branches"],
        &["man"],
        &["--help"],
        &["completions", "bash"],
    ] {
        let host = Host::fixture("blog-host");
        let mut command = run::command();
        command.arg("--root").arg(&host.root).args(arguments);
        let (status, said) = with_a_closed_pipe(&mut command);
        assert_eq!(status, Some(0), "{arguments:?}");
        assert_eq!(said, "", "{arguments:?}");
    }
}

/// The exit status where nobody reads the answer, and what is said beside it.
fn with_a_closed_pipe(command: &mut Command) -> (Option<i32>, String) {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let output = command
        .stdout(writer)
        .stderr(std::process::Stdio::piped())
        .spawn()
        .and_then(std::process::Child::wait_with_output)
        .expect("layerctl was built");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), said)
}

#[apply(test)]
fn what_went_wrong_is_said_though_the_pipe_is_closed() {
    let host = two_branches();
    host.file("/up/a", "").dir("/up/closed");
    set_mode(&host, "/", 0o755);
    set_mode(&host, "/up/closed", 0o000);
    let program = Ordinary::program(&host);
    // The one is found before anything is shown, the other while it is.
    for (stack, what) in [("br:/up=rw:/gone=ro", "/gone"), (STACK, "/up/closed")] {
        let mut command = program.command();
        command.arg("--root").arg(&host.root);
        let (status, said) = with_a_closed_pipe(command.args(["-q", "ls", "-R", stack]));
        assert_eq!(status, Some(2), "{said}");
        assert!(said.contains(what), "{said}");
    }
    set_mode(&host, "/up/closed", 0o755);
}

#[apply(test)]
fn colours_are_for_terminals_unless_they_are_asked_for() {
    let host = Host::fixture("blog-host");
    let is_coloured = |options: &[&str], variable: Option<(&str, &str)>| {
        let mut command = run::command();
        command
            .arg("--root")
            .arg(&host.root)
            .args(options)
            .args(["which", "/etc/apt/sources.list"])
            .envs(variable);
        run::run(&mut command).exits(0).stdout.contains(&0x1b)
    };
    assert!(!is_coloured(&[], None));
    assert!(is_coloured(&["--color", "always"], None));
    assert!(!is_coloured(
        &["--color", "never"],
        Some(("CLICOLOR_FORCE", "1"))
    ));
    assert!(is_coloured(&[], Some(("CLICOLOR_FORCE", "1"))));
    assert!(!is_coloured(&[], Some(("NO_COLOR", "1"))));
    assert!(
        is_coloured(&["--color", "always"], Some(("NO_COLOR", "1"))),
        "what is typed wins"
    );
    assert!(
        !is_coloured(&["--color", "always", "--format", "jsonl"], None),
        "JSON has no colours"
    );
}

#[apply(test)]
fn wrong_use_exits_2() {
    for arguments in [
        &["nonsense"][..],
        &["which"],
        &["ls"],
        &["--format", "xml", "info"],
        &["schema", "nonsense"],
        &["man", "nonsense"],
        &["whiteouts", "--glob", "[", "x"],
        // The kernel knows no such option, either: without it the stack would be another one.
        &["ls", "lowerdir=/,uperdir=/"],
        &["ls", "lowerdir=/,upperdir=/,metacpy=on"],
    ] {
        let output = run::layerctl(arguments).exits(2);
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
    for arguments in [&["--version"][..], &["-V"], &["--help"], &["help", "which"]] {
        run::layerctl(arguments).exits(0);
    }
}

// ---- reading only ----

#[apply(test)]
fn reading_leaves_no_trace_not_even_an_access_time() {
    let (host, container) = if is_root() {
        (Host::captured("docker-aufs-leftover"), "web1")
    } else {
        (Host::copy_of("blog-host"), "determined_sammet")
    };
    let before = Trace::of(&host);
    for asked in reading(
        container.as_ref(),
        "/etc/passwd".as_ref(),
        "/var/lib/docker".as_ref(),
    ) {
        let Output { stdout, stderr, .. } = host.ask(&asked);
        // Nothing is left over on this host, and nothing to be restored.
        let may_be_silent = asked[0] == "orphans" || asked[0] == "restore" || is_refused(&asked);
        assert!(may_be_silent || !stdout.is_empty(), "{asked:?}: {stderr}");
        before.compare(&asked);
    }
    before.compare_content();
}

/// Everything below a root: its metadata, times of reading among them, and its content.
struct Trace {
    root: PathBuf,
    entries: Vec<Entry>,
}

struct Entry {
    path: PathBuf,
    metadata: String,
    content: Vec<u8>,
}

impl Trace {
    fn of(host: &Host) -> Trace {
        let paths = WalkDir::new(&host.root).into_iter();
        let mut entries: Vec<Entry> = paths
            .map(|entry| entry.expect("our own copy").into_path())
            .map(|path| Entry {
                metadata: String::new(),
                content: content(&path),
                path,
            })
            .collect();
        for entry in &entries {
            // Read before it was written, so that the next reading is noted even with `relatime`.
            let seconds = |tv_sec| Timespec { tv_sec, tv_nsec: 0 };
            let times = Timestamps {
                last_access: seconds(1_000_000_000),
                last_modification: seconds(1_100_000_000),
            };
            utimensat(CWD, &entry.path, &times, AtFlags::SYMLINK_NOFOLLOW).expect("our own copy");
        }
        // Only now: what was done to one name of a file was done to its other names.
        for entry in &mut entries {
            entry.metadata = metadata(&entry.path);
        }
        Trace {
            root: host.root.clone(),
            entries,
        }
    }

    /// Looks only at metadata: looking at more would change it.
    fn compare(&self, after: &Words) {
        for entry in &self.entries {
            assert_eq!(
                metadata(&entry.path),
                entry.metadata,
                "{after:?} {}",
                entry.path.display()
            );
        }
    }

    /// Once all has been asked: the content is the same, and nothing was added.
    fn compare_content(self) {
        for entry in &self.entries {
            assert!(
                content(&entry.path) == entry.content,
                "{}",
                entry.path.display()
            );
        }
        assert_eq!(
            WalkDir::new(&self.root).into_iter().count(),
            self.entries.len()
        );
    }
}

fn metadata(path: &Path) -> String {
    let stat = path.symlink_metadata().expect("still there");
    // Linux notes the reading of a link, and has no way to forbid it.
    let read = if stat.is_symlink() {
        0
    } else {
        stat.atime_nsec() + stat.atime() * 1_000_000_000
    };
    format!(
        "inode {} mode {:o} links {} owner {}:{} size {} read {read} written {} changed {}.{};",
        stat.ino(),
        stat.mode(),
        stat.nlink(),
        stat.uid(),
        stat.gid(),
        stat.len(),
        stat.mtime(),
        stat.ctime(),
        stat.ctime_nsec()
    )
}

fn content(path: &Path) -> Vec<u8> {
    let stat = path.symlink_metadata().expect("still there");
    if stat.is_symlink() {
        fs::read_link(path)
            .expect("our own copy")
            .into_os_string()
            .into_vec()
    } else if stat.is_file() {
        fs::read(path).expect("our own copy")
    } else {
        Vec::new()
    }
}

#[apply(test)]
fn a_name_beside_its_own_whiteout_is_not_there_where_branches_are_not_watched() {
    // c2
    for (options, error, status) in [("", "EIO", 1), (",udba=none", "ENOENT", 1)] {
        let host = Host::empty();
        let branches: [(&[u8], &str); 2] = [(b"/up", "rw"), (b"/low", "ro")];
        host.union("a1", &[], &branches);
        host.mount(&format!("/ /u rw,relatime - aufs none rw,si=a1{options}"));
        host.file("/up/x", "")
            .file("/up/.wh.x", "")
            .file("/low/x", "");
        let row = host.jsonl(["which", "/u/x"]).exits(status).row();
        assert_eq!(row["error"], error, "{options} {row}");
        let found = host.jsonl(["check", "/u"]).exits(1).row();
        assert_eq!(found["finding"], "beside-whiteout");
        let said = serde_json::to_string(&found).expect("text");
        assert!(said.contains(error), "{options} {said}");
    }
}
