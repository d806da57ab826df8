//! Words that people type, and words that a copy of a host does not say.

use serde_json::Value;

use crate::lab::captured::Captured;
use crate::lab::host::Host;
use crate::lab::needs;
use crate::lab::run;
use crate::lab::terminal;

fn said(host: &Host, words: &[&str]) -> String {
    host.ask(words).exits(2).stderr
}

#[apply(test)]
fn options_of_docker_and_ls_that_say_what_is_done_anyway_are_taken() {
    let host = Host::fixture("blog-host");
    let all = host.ask(["containers"]).exits(0);
    for words in [["ps", "-a"], ["containers", "--all"], ["containers", "-a"]] {
        assert_eq!(host.ask(words).exits(0).text(), all.text(), "{words:?}");
    }
    let quiet = host.ask(["ps", "-aq"]).exits(0);
    assert_eq!(quiet.text().lines().count(), 2);
    let root = host.ask(["ls", "-l", "old_shell:/etc"]).exits(0);
    for option in ["-la", "-lA", "-al"] {
        let same = host.ask(["ls", option, "old_shell:/etc"]).exits(0);
        assert_eq!(same.text(), root.text(), "{option}");
    }
}

/// What docker's own filters leave, as docker documents them: a part of a name is enough, of one key one
/// has to hold, and one of each key.
#[apply(test)]
fn docker_s_filters_leave_what_docker_leaves() {
    needs::captured_hosts();
    let of = Captured::new("docker-28-overlay2");
    let said = of.jsonl("ps.jsonl");
    let is = |field: &'static str, value: &'static str| {
        move |row: &Value| row[field].as_str() == Some(value)
    };
    let web = |row: &Value| run::text(row, "Names").contains("web");
    let exited = |code: &'static str| {
        move |row: &Value| run::text(row, "Status").starts_with(&format!("Exited ({code})"))
    };
    let made = is("Image", "lab/web:2");
    // The same image has two names.
    let also = is("Image", "lab/web:latest");
    type IsLeft<'a> = &'a dyn Fn(&Value) -> bool;
    let cases: [(&[&str], IsLeft); 10] = [
        (&["name=web"], &web),
        (&["name=^/?web-1$"], &is("Names", "web-1")),
        (&["name=^/web-1$"], &is("Names", "web-1")),
        (&["status=exited"], &is("State", "exited")),
        (&["status=exited", "status=paused"], &|row| {
            is("State", "exited")(row) || is("State", "paused")(row)
        }),
        (&["status=running", "name=web-2"], &is("Names", "web-2")),
        (&["exited=3"], &exited("3")),
        (&["exited=0"], &exited("0")),
        (&["ancestor=lab/web:2"], &|row| made(row) || also(row)),
        (&["ancestor=lab/web"], &|row| made(row) || also(row)),
    ];
    for (filters, is_left) in cases {
        let mut left: Vec<&str> = said
            .iter()
            .filter(|row| is_left(row))
            .map(|row| run::text(row, "Names"))
            .collect();
        assert!(!left.is_empty(), "{filters:?}");
        let words: Vec<&str> = filters.iter().flat_map(|of| ["-f", *of]).collect();
        let rows = of
            .host
            .jsonl([&["ps"], &words[..]].concat())
            .exits(0)
            .rows();
        let mut ours = run::texts(&rows, "name");
        left.sort_unstable();
        ours.sort_unstable();
        assert_eq!(ours, left, "{filters:?}");
    }
    let none = of
        .host
        .ask(["ps", "-q", "--filter", "name=nobody"])
        .exits(0);
    assert_eq!(none.text(), "");
    for (filter, words) in [
        ("lable=x", "ancestor= are known"),
        ("name", "ancestor= are known"),
        ("status=gone", "running"),
        ("name=(", "regex"),
        ("exited=x", "number"),
        ("ancestor=lab/wbe:2", "did you mean docker:lab/web:2"),
        ("ancestor=web-1", "is no image"),
    ] {
        let said = of.host.ask(["ps", "--filter", filter]).exits(2).stderr;
        assert!(said.contains(words), "{filter}: {said}");
    }
}

#[apply(test)]
fn two_letters_in_each_others_place_are_understood() {
    let host = Host::empty();
    for (typed, verb) in [
        ("contianers", "containers"),
        ("chnages", "changes"),
        ("whcih", "which"),
        ("fnid", "find"),
        ("sl", "ls"),
        ("ud", "du"),
        ("pc", "cp"),
        ("sp", "ps"),
        ("resotre", "restore"),
        ("search", "find"),
    ] {
        let words = said(&host, &[typed]);
        let meant = words.lines().find(|line| line.contains("tip:"));
        let first = meant.and_then(|line| line.split('\'').nth(1));
        assert_eq!(first, Some(verb), "{typed}: {words}");
        let man = said(&host, &["man", typed]);
        let has_own_page = !matches!(typed, "sp" | "search");
        let is_named = man.contains(&format!("did you mean {verb}"));
        assert_eq!(is_named, has_own_page, "{typed}: {man}");
    }
}

#[apply(test)]
fn names_of_containers_and_images_too() {
    needs::captured_hosts();
    let host = Host::captured("docker-28-overlay2");
    for (typed, meant) in [
        ("wbe-1", "docker:web-1"),
        ("renaemd-4", "docker:renamed-4"),
        ("pasued-6", "docker:paused-6"),
        ("jbo-3", "docker:job-3"),
        ("lab/wbe:2", "docker:lab/web:2"),
        ("lab/bsae:1", "docker:lab/base:1"),
    ] {
        for words in [
            vec!["changes", typed],
            vec!["changes", "web-2", typed],
            vec!["find", typed, "--", "x"],
        ] {
            let said = said(&host, &words);
            let first = format!("did you mean {meant}");
            assert!(said.contains(&first), "{words:?}: {said}");
        }
    }
}

/// What nobody can know is not told: for how long something has run that ran when the copy was made.
/// What has happened stays as long ago as it is.
#[apply(test)]
fn a_copy_says_since_when_and_not_for_how_long() {
    needs::time();
    needs::captured_hosts();
    for name in ["docker-28-overlay2", "podman-5.8-overlay", "containerd-2.1"] {
        let host = Host::captured(name);
        let status = |epoch: Option<&str>| {
            let mut command = run::command();
            match epoch {
                Some(epoch) => command.env("SOURCE_DATE_EPOCH", epoch),
                None => command.env_remove("SOURCE_DATE_EPOCH"),
            };
            command.arg("--root").arg(&host.root);
            command.args([
                "containers",
                "--format",
                "{{.ID}} {{.Status}}",
                "--no-trunc",
            ]);
            run::run(&mut command).exits(0).text().to_owned()
        };
        let rows = host.jsonl(["containers"]).exits(0).rows();
        let copied = status(None);
        let mut up = 0;
        for row in rows
            .iter()
            .filter(|row| row["state"] == "running" || row["state"] == "paused")
        {
            let id = run::text(row, "id");
            let line = copied
                .lines()
                .find(|line| line.starts_with(&format!("{id} ")));
            let line = line.unwrap_or_else(|| panic!("{id}: {copied}"));
            let since = row.get("started").map(|time| {
                let time: jiff::Timestamp = time.as_str().expect("a time").parse().expect("a time");
                time.strftime("Up since %Y-%m-%dT%H:%M:%SZ").to_string()
            });
            let expected = since.unwrap_or_else(|| "Up".to_owned());
            assert!(
                line[id.len() + 1..].starts_with(&expected),
                "{line}, not {expected}"
            );
            up += 1;
        }
        assert!(up > 1);
        assert_eq!(copied.contains("(Paused)"), name != "containerd-2.1");
        assert!(copied.contains(" ago\n"), "{copied}");
        // Who says which moment it is of gets docker's words.
        let then = status(Some("1795815281"));
        assert!(!then.contains("Up since"), "{then}");
    }
}

/// Where there is nothing to be reverted, what lists what there is.
#[apply(test)]
fn revert_tells_where_to_look() {
    crate::lab::needs::root("to be told of overlay\'s marks");
    let host = Host::empty();
    for name in ["/low/etc/a", "/low/etc/b", "/low/c", "/low/d", "/low/e"] {
        host.file(name, "1");
    }
    for name in ["/up/etc/a", "/up/c", "/up/d", "/up/e", "/up/etc/new"] {
        host.file(name, "22");
    }
    let stack = "lowerdir=/low,upperdir=/up";
    for path in ["/etc/nope", "/etc/b", "/etc/new"] {
        let row = host
            .jsonl([
                "restore",
                "--revert",
                "--discard",
                "--dry-run",
                "--in",
                stack,
                path,
            ])
            .exits(1)
            .row();
        let said = run::text(&row, "nothing");
        assert!(
            said.contains("`layerctl copyups ") && said.ends_with("lists what can be reverted"),
            "{said}"
        );
    }
}

/// Who brings many back is told how many.
#[apply(test)]
fn a_terminal_is_told_how_many_came_back() {
    let host = Host::empty();
    for number in 0..12 {
        host.file(format!("/low/d/{number}"), "1");
        host.file(format!("/up/d/.wh.{number}"), "");
    }
    let root = host.root.to_str().expect("plain names");
    let stack = "br:/up=rw:/low=ro";
    let words = [
        "--root",
        root,
        "restore",
        "-r",
        "--dry-run",
        "--in",
        stack,
        "/d",
    ];
    let (_, seen) = terminal::run(words);
    assert_eq!(seen.lines().last(), Some("12 planned"), "{seen}");
    let piped = host.ask(&words[2..]).exits(0);
    assert!(!piped.text().contains("12 planned"));
    let words = [
        "--root", root, "restore", "-r", "--write", "--in", stack, "/d",
    ];
    let (_, seen) = terminal::run(words);
    assert_eq!(seen.lines().last(), Some("12 restored"), "{seen}");
}

/// Words of other programs name the verb that does it here, and nothing names one that does not.
#[apply(test)]
fn words_of_other_programs_name_the_verb() {
    let host = Host::empty();
    for (typed, verb) in [
        ("tree", "ls"),
        ("inspect", "branches"),
        ("stat", "which"),
        ("where", "which"),
        ("size", "du"),
        ("df", "du"),
        ("system", "du"),
        ("volumes", "du"),
        ("volume", "du"),
        ("log", "history"),
        ("grep", "find"),
        ("extract", "cp"),
        ("get", "cp"),
        ("save", "export"),
        ("commit", "export"),
        ("rollback", "restore"),
        ("undo", "restore"),
        ("fsck", "check"),
        ("doctor", "check"),
        ("health", "check"),
        ("status", "check"),
        ("container", "containers"),
        ("image", "images"),
    ] {
        let words = said(&host, &[typed]);
        let meant: Vec<&str> = words
            .lines()
            .filter(|line| line.contains("tip:"))
            .flat_map(|line| line.split('\'').skip(1).step_by(2))
            .collect();
        assert_eq!(meant, [verb], "{typed}: {words}");
    }
}

/// `docker cp web:etc/passwd .` works; here a TARGET may have a tag or an engine before it. It is said how
/// it is written.
#[apply(test)]
fn a_path_without_its_slash_is_told_how_it_is_written() {
    let host = Host::fixture("blog-host");
    for words in [
        &["which"][..],
        &["cat"],
        &["restore", "--dry-run"],
        &["ls"],
        &["find"],
        &["changes"],
        &["whiteouts"],
        &["check"],
        &["du"],
        &["diff"],
    ] {
        let typed = if words[0] == "find" {
            vec!["old_shell:etc/motd", "--", "x"]
        } else {
            vec!["old_shell:etc/motd"]
        };
        let said = said(&host, &[words, &typed].concat());
        assert_eq!(
            said, "layerctl: old_shell:etc/motd: write old_shell:/etc/motd\n",
            "{words:?}"
        );
    }
    // What has the name may have a colon itself, and a path without a TARGET may have one.
    for verb in ["which", "cat", "restore"] {
        let whole = said(&host, &[verb, "docker:old_shell:etc/motd"]);
        let meant = "docker:old_shell:etc/motd: write docker:old_shell:/etc/motd\n";
        assert!(whole.ends_with(meant), "{verb}: {whole}");
        let path = host.ask([verb, "a:b/f"]).stderr;
        assert!(!path.contains("write"), "{verb}: {path}");
    }
    let out = tempfile::tempdir().expect("a directory");
    let to = out.path().to_str().expect("plain names");
    let said = said(&host, &["cp", "old_shell:etc/motd", to]);
    assert!(said.contains("write old_shell:/etc/motd"), "{said}");
    // A tag that there is not is one all the same.
    host.ask(["branches", "training/webapp:3"])
        .exits(2)
        .says("No such image: training/webapp:3");
    host.ask(["ls", "docker:old_shell"]).exits(0);
}

/// A path of a container is no name of a thing on the host: who asks `whois` for one is told who tells.
#[apply(test)]
fn whois_of_a_path_in_a_container_names_who_tells() {
    let host = Host::fixture("blog-host");
    let shown = host.ask(["whois", "old_shell:/etc/motd"]).exits(1);
    let (_, command) = shown.text().split_once('`').expect("a command");
    let (command, _) = command.split_once('`').expect("a command");
    assert_eq!(command, "layerctl which docker:old_shell:/etc/motd");
    host.ask(command.split(' ').skip(1).collect::<Vec<_>>())
        .exits(0);
    let shown = host.ask(["whois", "nobody:/etc/motd"]).exits(1);
    assert!(!shown.text().contains('`'), "{}", shown.text());
}

/// Where no engine is, every verb says where one was looked for.
#[apply(test)]
fn without_an_engine_it_is_said_where_was_looked() {
    let host = Host::empty();
    let to = tempfile::tempdir().expect("a directory");
    let to = to.path().to_str().expect("plain names");
    for words in [
        &["containers"][..],
        &["images"],
        &["du"],
        &["orphans"],
        &["changes"],
        &["whiteouts"],
        &["copyups"],
        &["check"],
        &["find", "x"],
        &["which", "/etc/passwd"],
        &["cat", "/etc/passwd"],
        &["cp", "/etc/passwd", to],
        &["restore", "/etc/passwd"],
        &["ls", "/etc"],
        &["history", "web"],
        &["verify"],
        &["cp", "--all-deleted", "--to", to],
    ] {
        let said = host.ask(words).stderr;
        assert_eq!(
            said.matches("no engine was found").count(),
            1,
            "{words:?}: {said}"
        );
        assert!(said.contains("/var/lib/docker, "), "{words:?}: {said}");
    }
}

/// fuse-overlayfs says "unknown argument ignored: uperdir=..." and shows another stack.
#[apply(test)]
fn an_unknown_option_of_a_spelled_stack_is_an_error() {
    let host = Host::empty();
    host.file("/low/a", "1").file("/up/b", "1");
    for (stack, option) in [
        ("lowerdir=/low,uperdir=/up", "uperdir"),
        ("fuse-overlayfs:lowerdir=/low,uperdir=/up", "uperdir"),
        (
            "fuse-overlayfs:lowerdir=/low,squash_to_rot",
            "squash_to_rot",
        ),
        ("lowerdir=/low,upperdir=/up,userxatr", "userxatr"),
        ("lowerdir=/low,metacopy=maybe", "metacopy=maybe"),
    ] {
        let said = host.ask(["ls", stack]).exits(2);
        assert!(said.stderr.contains(option), "{stack}: {}", said.stderr);
        assert_eq!(said.text(), "");
    }
    for stack in [
        "fuse-overlayfs:lowerdir=/low,upperdir=/up,workdir=/work,squash_to_root,volatile,nodev",
        "fuse-overlayfs:lowerdir=/low,upperdir=/up,uidmapping=0:1000:1,timeout=0.5,noacl",
        "lowerdir=/low,upperdir=/up,workdir=/work,index=off,rw,relatime",
    ] {
        let rows = host.jsonl(["ls", stack]).rows();
        assert_eq!(rows.len(), 2, "{stack}");
    }
}
