//! What a person sees: on screens of 50, 80 and 120 columns, with and without colours.

use crate::lab::host::Host;
use crate::lab::{needs, terminal};

const PLAIN: &[(&str, &str)] = &[("NO_COLOR", "1"), ("SOURCE_DATE_EPOCH", "1795000000")];

fn screen(host: &Host, columns: u16, words: &[&str]) -> String {
    let root = host.root.to_str().expect("plain names");
    let words = ["--root", root].into_iter().chain(words.iter().copied());
    let (status, seen) = terminal::run_at(columns, PLAIN, words.collect::<Vec<_>>());
    assert_eq!(status, Some(0), "{seen}");
    seen
}

/// On every screen ids and names are whole, and at the widths that people have no line goes on.
#[apply(test)]
fn what_is_typed_again_is_whole_on_every_screen() {
    needs::captured_hosts();
    let host = Host::captured("docker-28-overlay2");
    let rows = host.jsonl(["containers"]).exits(0).rows();
    let whole = screen(&host, 0, &["containers"]);
    for columns in [50, 80, 120] {
        let seen = screen(&host, columns, &["containers"]);
        for row in &rows {
            let (id, name) = (
                row["id"].as_str().expect("one"),
                row["name"].as_str().expect("one"),
            );
            let line = seen.lines().find(|line| line.starts_with(&id[..12]));
            assert!(
                line.is_some_and(|line| line.ends_with(name)),
                "{columns}: {seen}"
            );
        }
        let widest = seen.lines().map(|line| line.chars().count()).max();
        assert!(widest <= Some(usize::from(columns)), "{columns}:\n{seen}");
        let heads = seen.lines().next().expect("headings");
        assert!(
            heads.starts_with("CONTAINER ID") && heads.ends_with("NAMES"),
            "{heads}"
        );
    }
    // What does not say how wide it is, is as wide as a pipe.
    assert_eq!(whole.lines().count(), rows.len() + 1);
}

/// Where many columns have no room, whether a container runs is what is left.
#[apply(test)]
fn whether_it_runs_is_seen_on_a_narrow_screen() {
    needs::time();
    needs::captured_hosts();
    for (name, columns) in [("docker-28-overlay2", 50), ("containerd-kubernetes", 80)] {
        let host = Host::captured(name);
        let rows = host.jsonl(["containers"]).exits(0).rows();
        let seen = screen(&host, columns, &["containers"]);
        for row in rows {
            let word = match row["state"].as_str().expect("a state") {
                "running" | "paused" => "Up",
                "exited" => "Exited",
                "created" => "Created",
                _ => "Unknown",
            };
            let id = row["id"].as_str().expect("one");
            let line = seen
                .lines()
                .find(|line| line.contains(&id[..id.len().min(12)]));
            assert!(
                line.is_some_and(|line| line.split_whitespace().any(|of| of == word)),
                "{name} {word}: {seen}"
            );
        }
    }
}

#[apply(test)]
fn a_narrow_screen_cuts_what_says_least() {
    let host = Host::fixture("blog-host");
    let narrow = screen(&host, 50, &["history", "determined_sammet"]);
    assert!(!narrow.contains("CREATED BY"), "{narrow}");
    // The layers' ids are what is typed again.
    let rows = host.jsonl(["history", "determined_sammet"]).exits(0).rows();
    for layer in rows.iter().filter_map(|row| row["layer"].as_str()) {
        assert!(narrow.contains(&layer[..12]), "{layer}: {narrow}");
    }
    let full = screen(&host, 50, &["--no-trunc", "history", "determined_sammet"]);
    assert!(full.lines().any(|line| line.chars().count() > 50));
}

/// Drawn by hand.
const TREE: &str = "\
br:/a=rw:/b=ro:/
├── d  [branch 0]
│   ├── e  [branch 1]
│   │   └── f  [branch 1]
│   └── x  [branch 0]
├── l  [branch 1]
└── z  [branch 0]
";

#[apply(test)]
fn a_tree_is_drawn() {
    let host = Host::empty();
    for name in ["/a/d/x", "/a/z", "/b/d/e/f", "/b/d/x"] {
        host.file(name, "1");
    }
    host.link("/b/l", "d");
    let stack = "br:/a=rw:/b=ro";
    assert_eq!(host.ask(["ls", "--tree", stack]).exits(0).text(), TREE);
    let two: String = TREE
        .lines()
        .filter(|line| !line.contains(" f "))
        .map(|line| format!("{line}\n"))
        .collect();
    assert_eq!(
        host.ask(["ls", "--tree", "--depth", "2", stack])
            .exits(0)
            .text(),
        two
    );
    let one = host.ask(["-q", "ls", "-R", "--depth", "1", stack]).exits(0);
    assert_eq!(one.text(), host.ask(["-q", "ls", stack]).exits(0).text());
    // The same rows for a program.
    let drawn = host.jsonl(["ls", "--tree", stack]).exits(0);
    assert_eq!(
        drawn.text(),
        host.jsonl(["ls", "-R", stack]).exits(0).text()
    );
}

#[apply(test)]
fn names_have_the_colours_of_ls() {
    let host = Host::empty();
    for name in ["/a/d/x", "/a/y.tar"] {
        host.file(name, "1");
    }
    host.link("/a/l", "d");
    let root = host.root.to_str().expect("plain names");
    let words = ["--root", root, "ls", "br:/a=rw"];
    let colours = [("LS_COLORS", "di=01;34:ln=35:*.tar=32")];
    let (_, seen) = terminal::run_at(80, &colours, words);
    for colour in [
        "\u{1b}[34;1m/d\u{1b}[0m",
        "\u{1b}[35m/l\u{1b}[0m",
        "\u{1b}[32m/y.tar\u{1b}[0m",
    ] {
        let same = colour.replace("34;1", "1;34");
        assert!(
            seen.contains(colour) || seen.contains(&same),
            "{colour:?}: {seen:?}"
        );
    }
    let (_, plain) = terminal::run_at(80, &[("NO_COLOR", "1")], words);
    assert!(!plain.contains('\u{1b}'), "{plain:?}");
}

/// What a terminal was sent, without colours; and the colours that some text has that is not to be
/// seen on a light ground, or on a dark one: black, yellow, white and all bright ones, where nothing
/// is said of the ground.
fn without_colours(sent: &str) -> (String, Vec<String>) {
    let mut text = String::new();
    let mut unseen = Vec::new();
    let mut pieces = sent.split("\u{1b}[");
    text.push_str(pieces.next().unwrap_or_default());
    for piece in pieces {
        let (codes, rest) = piece.split_once('m').expect("nothing but colours is sent");
        text.push_str(rest);
        let numbers: Vec<u32> = codes
            .split(';')
            .filter_map(|code| code.parse().ok())
            .collect();
        let has_ground = numbers
            .iter()
            .any(|code| matches!(code, 40..=49 | 100..=107));
        let is_unseen = |code: &u32| matches!(code, 30 | 33 | 37 | 90..=97);
        if !has_ground && numbers.iter().any(is_unseen) {
            unseen.push(format!("{codes}: {rest}"));
        }
    }
    (text, unseen)
}

/// Light or dark, the text is the same as without colours, and no colour is one that cannot be seen.
#[apply(test)]
fn colours_are_seen_on_light_and_on_dark() {
    let root = crate::lab::fixture("blog-host");
    let root = root.to_str().expect("plain names");
    let web = "determined_sammet";
    let deleted = "/usr/local/lib/python2.7/dist-packages/itsdangerous.py";
    let mut coloured = 0;
    for words in [
        &["containers"][..],
        &["branches", web],
        &["which", "--in", web, "/etc/apt/sources.list"],
        &["changes", web],
        &["whiteouts", web],
        &["copyups", web],
        &["ls", "-l", "--in", web, "/"],
        &["ls", "--tree", "--in", web, "/etc"],
        &[
            "diff",
            "-p",
            "determined_sammet@14:/etc/apt/sources.list",
            "determined_sammet:/etc/apt/sources.list",
        ],
        &["find", "--state", "all", "itsdangerous.py"],
        &["check", web],
        &["du"],
        &["history", "training/webapp"],
        &["restore", "--dry-run", "--in", web, deleted],
    ] {
        for columns in [50, 80, 120] {
            let words = ["--root", root].into_iter().chain(words.iter().copied());
            let words: Vec<&str> = words.collect();
            let (_, plain) = terminal::run_at(columns, PLAIN, &words);
            let (_, sent) = terminal::run_at(columns, &PLAIN[1..], &words);
            let (text, unseen) = without_colours(&sent);
            assert_eq!(text, plain, "{words:?}");
            assert_eq!(unseen, Vec::<String>::new(), "{words:?}");
            coloured += usize::from(text != sent);
        }
    }
    assert!(coloured > 10, "{coloured} answers had colours");
}

/// A person is told how much was looked at, and a pipe is not.
#[apply(test)]
fn how_much_was_looked_at_is_said_on_a_terminal() {
    let host = Host::fixture("blog-host");
    let root = host.root.to_str().expect("plain names");
    let containers = host.jsonl(["containers"]).exits(0).rows().len();
    let (_, said) = terminal::said(["--root", root, "changes"]);
    assert_eq!(said, format!("{containers} containers\n"));
    assert_eq!(host.ask(["changes"]).stderr, "");
    // What there is no answer about is counted.
    let spoilt = Host::copy_of("blog-host");
    let id = "6e34f74c1961320c2ea57b073b34ae9ff15a217a7d9f7db46d9ad8cfa62c782f";
    spoilt.file(
        format!("/var/lib/docker/image/aufs/layerdb/mounts/{id}/mount-id"),
        "../../etc",
    );
    // Nothing is mounted there, so that only the record tells.
    spoilt.file(
        "/proc/self/mountinfo",
        "1 0 8:1 / / rw - ext4 /dev/sda rw\n",
    );
    let spoilt_root = spoilt.root.to_str().expect("plain names");
    let (_, said) = terminal::said(["--root", spoilt_root, "changes"]);
    let last = said.lines().last().unwrap_or_default();
    let begin = format!("{containers} containers, ");
    assert!(
        last.starts_with(&begin) && last.ends_with(", 1 could not be read"),
        "{said}"
    );
    // Who names a TARGET knows it.
    let (_, said) = terminal::said(["--root", root, "changes", "determined_sammet"]);
    assert_eq!(said, "");
}

/// What takes long says so, to a terminal: what, how much, how fast. What is quick says nothing, and
/// neither is anything left of it.
#[apply(test)]
fn long_work_shows_itself_on_a_terminal() {
    needs::strace();
    let host = Host::empty();
    for number in 0..40 {
        host.file(format!("/a/{number}/x"), "1");
    }
    let root = host.root.to_str().expect("plain names");
    let (_, said) = terminal::said(["--root", root, "ls", "-R", "br:/a=rw"]);
    assert_eq!(said, "");
    // Each directory takes a while.
    let stack = "br:/a=rw:/b=ro";
    host.dir("/b");
    for words in [
        &["ls", "-R", "br:/a=rw"][..],
        &["find", stack, "--", "y"],
        &["changes", stack],
        &["whiteouts", stack],
        &["copyups", stack],
        &["check", stack],
    ] {
        let verb = words[0];
        let words = ["--root", root, "-j1"]
            .into_iter()
            .chain(words.iter().copied());
        let slow = terminal::said_slowly(("getdents64", 50_000), words);
        let named = format!("{verb}: ");
        assert!(
            slow.contains(&named) && slow.contains(" names, "),
            "{verb}: {slow:?}"
        );
        assert!(slow.contains("/s"), "{verb}: {slow:?}");
        let last = slow.rsplit('\r').next().unwrap_or_default();
        assert!(
            !last.contains("names"),
            "{verb}: its line is taken away: {slow:?}"
        );
    }
}
