//! Several TARGETs of one verb, and paths of them.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::lab::captured::Captured;
use crate::lab::host::Host;
use crate::lab::needs;
use crate::lab::run::{bytes, text};

const VERBS: [&str; 5] = ["changes", "whiteouts", "copyups", "check", "du"];

/// Rows without what tells how long ago something was.
fn rows(host: &Host, words: &[&str]) -> Vec<Value> {
    let answer = host.jsonl(words);
    assert!(
        matches!(answer.status, Some(0 | 1)),
        "{words:?}: {}",
        answer.stderr
    );
    answer.rows()
}

#[apply(test)]
fn of_several_targets_each_row_says_its_own() {
    needs::captured_hosts();
    let docker = Captured::new("docker-28-overlay2");
    let host = &docker.host;
    for verb in VERBS {
        let mut apart = rows(host, &[verb, "web-1"]);
        apart.extend(rows(host, &[verb, "paused-6"]));
        // What is named twice is told once.
        let together = rows(host, &[verb, "web-1", "paused-6", "docker:web-1"]);
        assert_eq!(together, apart, "{verb}");
        let table = host.ask([verb, "web-1", "paused-6"]);
        let table = String::from_utf8_lossy(&table.stdout);
        let says = |name: &str| table.contains(name);
        let finds = !rows(host, &[verb, "web-1"]).is_empty();
        assert_eq!(finds, says("docker:web-1"), "{verb}: {table}");
        // One of them that is not there is an error, before anything is told.
        let unknown = host.ask([verb, "web-1", "nope-17"]).exits(2);
        assert_eq!(unknown.text(), "");
        assert!(unknown.stderr.contains("nope-17"), "{}", unknown.stderr);
    }
    let words = host.ask(["-q", "changes", "web-1", "paused-6"]).exits(0);
    for name in ["docker:web-1:/", "docker:paused-6:/"] {
        let mut lines = words.stdout.split(|byte| *byte == b'\n');
        assert!(
            lines.any(|line| line.starts_with(name.as_bytes())),
            "{name}"
        );
    }
}

/// `docker diff` is the truth: of a part what lies there.
#[apply(test)]
fn a_path_behind_a_target_limits_the_answer() {
    needs::captured_hosts();
    let docker = Captured::new("docker-28-overlay2");
    let host = &docker.host;
    let said = docker.json("diff-web-1.json");
    let said = said.as_array().expect("a list").iter().map(|of| {
        let letter = ["C", "A", "D"][of["Kind"].as_u64().expect("a number") as usize];
        format!("{letter} {}", text(of, "Path"))
    });
    let said: BTreeSet<String> = said.collect();
    for path in ["/data/d1", "/data/d1/f1", "/opt"] {
        let part = host.ask(["changes", &format!("web-1:{path}")]).exits(0);
        let ours: BTreeSet<&str> = part.text().lines().collect();
        let is_in = |line: &&str| line[2..] == *path || line[2..].starts_with(&format!("{path}/"));
        let theirs: BTreeSet<&str> = said.iter().map(String::as_str).filter(is_in).collect();
        assert!(!theirs.is_empty());
        assert_eq!(ours, theirs, "{path}");
    }
    // What is gone with the directory that it was in.
    assert!(said.contains("D /data/keep"));
    let gone = host.ask(["changes", "web-1:/data/keep/k0"]).exits(0);
    assert_eq!(gone.text(), "D /data/keep\n");
    let mark = host
        .jsonl(["whiteouts", "web-1:/data/keep/k0"])
        .exits(0)
        .row();
    assert_eq!(mark["path"], "/data/keep");
    for verb in VERBS.into_iter().filter(|verb| *verb != "du") {
        let all = rows(host, &[verb, "web-1"]);
        let is_in = |row: &&Value| bytes(&row["path"]).starts_with(b"/opt");
        let part: Vec<Value> = all.iter().filter(is_in).cloned().collect();
        assert_eq!(rows(host, &[verb, "web-1:/opt"]), part, "{verb}");
    }
    // The way there is the container's own: /lib is a link to /usr/lib.
    let linked = host.ask(["changes", "web-1:/lib/x"]).exits(0);
    assert!(
        linked.text().contains("D /usr/lib/x/lib.so\n"),
        "{}",
        linked.text()
    );
    let nothing = host.ask(["changes", "web-1:/nope"]).exits(2);
    nothing.says("docker:web-1:/nope: no branch has it");
}

/// Who asks for a part where only a whole TARGET is told is told so, and what tells of a part.
#[apply(test)]
fn a_path_behind_a_target_that_is_taken_whole_is_said() {
    let host = Host::fixture("blog-host");
    let to = tempfile::tempdir().expect("a directory");
    let to = to.path().to_str().expect("plain names");
    for verb in [
        &["history"][..],
        &["branches"],
        &["verify"],
        &["export", "-o", "-"],
        &["mount"],
    ] {
        let asked = |target: &'static str| {
            let words = verb.iter().copied().chain([target]);
            let words: Vec<&str> = match verb {
                ["mount"] => words.chain([to]).collect(),
                _ => words.collect(),
            };
            host.ask(words).exits(2)
        };
        let said = asked("old_shell:/etc").stderr;
        let line = said.lines().next().unwrap_or_default();
        assert_eq!(
            line, "layerctl: old_shell:/etc is a path, and all of docker:old_shell is taken",
            "{verb:?}"
        );
        asked("old_shel:/etc")
            .says("No such container: old_shel\n")
            .says("did you mean docker:old_shell");
    }
    for path in ["/etc", "/"] {
        let said = host.ask(["du", &format!("old_shell:{path}")]).exits(2);
        let line = said.stderr.lines().nth(1).unwrap_or_default().trim();
        let typed: Vec<&str> = line.split('`').skip(1).step_by(2).collect();
        assert_eq!(typed[0], "layerctl du docker:old_shell", "{}", said.stderr);
        // What is named is typed as it stands.
        for command in typed {
            let words: Vec<&str> = command.split(' ').skip(1).collect();
            host.ask(words).exits(0);
        }
    }
    host.ask(["du", "old_shel:/etc"])
        .exits(2)
        .says("No such container: old_shel\n");
}

/// What is typed behind a name is a path of the container, links and all, and none where it is not.
#[apply(test)]
fn a_part_is_searched_as_the_container_has_it() {
    needs::captured_hosts();
    let docker = Captured::new("docker-28-overlay2");
    let host = &docker.host;
    let whole = rows(host, &["find", "web-2", "--", "*"]);
    // /lib is a link to /usr/lib.
    let is_in = |row: &&Value| bytes(&row["path"]).starts_with(b"/usr/lib/x");
    let part: Vec<Value> = whole.iter().filter(is_in).cloned().collect();
    assert!(part.len() > 1);
    for words in [
        &["find", "web-2:/lib/x", "--", "*"][..],
        &["find", "--in", "web-2", "/lib/x", "--", "*"],
        &["find", "web-2:/srv/../lib/x/", "--", "*"],
    ] {
        assert_eq!(rows(host, words), part, "{words:?}");
    }
    for words in [
        &["find", "web-1:/nope", "--", "x"][..],
        &["find", "--in", "web-1", "/etc", "/nope", "--", "x"],
        &["find", "web-1:/nope", "paused-6", "--", "x"],
    ] {
        let said = host.ask(words).exits(2);
        said.says("docker:web-1:/nope: no branch has it");
    }
}

/// Of several unions every row and every message says of which it is, in every form.
#[apply(test)]
fn of_paths_of_several_targets_each_says_its_own() {
    needs::captured_hosts();
    let docker = Captured::new("docker-28-overlay2");
    let host = &docker.host;
    let [web, paused] = ["docker:web-1", "docker:paused-6"];
    let shown = host
        .ask(["which", "web-1:/etc/passwd", "paused-6:/etc/passwd"])
        .exits(0);
    for union in [web, paused] {
        let head = format!("{union}:/etc/passwd  file from ");
        assert!(
            shown.text().lines().any(|line| line.starts_with(&head)),
            "{}",
            shown.text()
        );
    }
    let absent = host.ask(["which", "web-1:/nope", "paused-6:/nope"]);
    let line = format!("/nope  not there in {web}, {paused}\n");
    assert_eq!(absent.exits(1).text(), line);
    // One union has one name, however often it is typed.
    let same = host.ask(["which", "web-1:/etc/passwd", "docker:web-1:/nope"]);
    assert!(!same.exits(1).text().contains(web));

    let bare = host.ask([
        "-q",
        "restore",
        "--dry-run",
        "web-1:/etc/group",
        "stopped-7:/etc/group",
    ]);
    assert_eq!(
        bare.exits(0).text(),
        "docker:web-1:/etc/group\ndocker:stopped-7:/etc/group\n"
    );
    let one = host.ask(["-q", "restore", "--dry-run", "web-1:/etc/group"]);
    assert_eq!(one.exits(0).text(), "/etc/group\n");

    let home = tempfile::tempdir().expect("a directory");
    let to = home.path().to_str().expect("plain names");
    let copied = host.ask(["cp", "web-1:/etc", "paused-6:/etc", to]).exits(2);
    for union in [web, paused] {
        let path = format!("{union}:/etc ");
        assert!(copied.text().contains(&path), "{}", copied.text());
    }
    copied.says(&format!("layerctl: {paused}: {to}/etc: File exists"));
    // A layer that cannot be read to its end.
    let layer = String::from_utf8(host.branches_of("paused-6").remove(0)).expect("plain names");
    let loops = format!("{layer}/etc/round");
    host.link(loops, "round");
    for words in [
        vec!["cat", "web-1:/etc/passwd", "paused-6:/etc/round"],
        vec!["cp", "web-1:/etc/passwd", "paused-6:/etc/round/x", to],
    ] {
        let said = host.ask(&words).stderr;
        let lines: Vec<&str> = said.lines().filter(|line| line.contains("round")).collect();
        assert!(!lines.is_empty(), "{words:?}: {said}");
        assert!(lines.iter().all(|line| line.contains("paused-6")), "{said}");
    }
}

/// Everything that was deleted, of a part.
#[apply(test)]
fn a_part_of_all_that_was_deleted_is_copied_out() {
    needs::captured_hosts();
    let docker = Captured::new("docker-28-overlay2");
    let home = tempfile::tempdir().expect("a directory");
    let to = home.path().join("out");
    let to_text = to.to_str().expect("plain names");
    let host = &docker.host;
    host.ask([
        "cp",
        "--all-deleted",
        "--to",
        to_text,
        "web-1:/data/keep/k0",
        "web-1:/data/ln",
    ])
    .exits(0);
    let mut found: Vec<String> = walkdir::WalkDir::new(&to)
        .into_iter()
        .filter_map(|entry| {
            Some(
                entry
                    .ok()?
                    .path()
                    .strip_prefix(&to)
                    .ok()?
                    .display()
                    .to_string(),
            )
        })
        .filter(|path| path.ends_with("k0") || path.ends_with("/b") || path.ends_with("motd"))
        .collect();
    found.sort();
    let ends: Vec<&str> = found
        .iter()
        .filter_map(|path| path.split_once("data/").map(|of| of.1))
        .collect();
    assert_eq!(ends, ["keep/k0", "ln/b"], "{found:?}");
}
