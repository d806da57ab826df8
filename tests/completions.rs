//! What is generated from the command line's own description: completion scripts, what they
//! offer, and man pages.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use crate::lab::fixture;
use crate::lab::host::Host;
use crate::lab::run::{command, layerctl, run};
use crate::lab::verbs::verbs;

#[apply(test)]
fn the_scripts_kept_here_are_those_that_the_program_prints() {
    for (shell, file) in [
        ("bash", "layerctl.bash"),
        ("zsh", "_layerctl"),
        ("fish", "layerctl.fish"),
    ] {
        let kept = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("completions")
            .join(file);
        let kept =
            fs::read_to_string(&kept).unwrap_or_else(|error| panic!("{}: {error}", kept.display()));
        let printed = layerctl(["completions", shell]).exits(0);
        assert_eq!(
            printed.text(),
            kept,
            "write it anew: layerctl completions {shell} > completions/{file}"
        );
    }
}

/// What a script is offered for the last of `words`, as the script asks for it.
fn offered(shell: &str, words: &[&OsStr]) -> Vec<String> {
    let mut command = command();
    command
        .env("COMPLETE", shell)
        .env("_CLAP_IFS", "\n")
        .env("_CLAP_COMPLETE_INDEX", words.len().to_string())
        .env("_CLAP_COMPLETE_COMP_TYPE", "9")
        .env("_CLAP_COMPLETE_SPACE", "false")
        .args(["--", "layerctl"])
        .args(words);
    run(&mut command)
        .exits(0)
        .text()
        .lines()
        .map(str::to_owned)
        .collect()
}

/// The same below a root.
fn offered_in(shell: &str, host: &Host, words: &[&str]) -> Vec<String> {
    let root = [OsStr::new("--root"), host.root.as_os_str()];
    let words: Vec<&OsStr> = root
        .into_iter()
        .chain(words.iter().map(OsStr::new))
        .collect();
    offered(shell, &words)
}

/// Whether a name is among what is offered; some shells take a description after it.
fn is_among(offered: &[String], name: &str) -> bool {
    offered
        .iter()
        .any(|line| line.split(['\t', ':']).next() == Some(name) || line == name)
}

#[apply(test)]
fn containers_are_offered_without_a_daemon() {
    let host = Host::fixture("blog-host");
    for shell in ["bash", "zsh", "fish"] {
        for verb in [
            "branches",
            "ls",
            "which",
            "changes",
            "whiteouts",
            "copyups",
            "history",
            "check",
            "restore",
        ] {
            let names = offered_in(shell, &host, &[verb, ""]);
            assert!(is_among(&names, "old_shell"), "{shell} {verb}: {names:?}");
            assert!(
                is_among(&names, "determined_sammet"),
                "{shell} {verb}: {names:?}"
            );
        }
        for verb in ["which", "ls", "restore"] {
            let names = offered_in(shell, &host, &[verb, "--in", "det"]);
            assert!(
                is_among(&names, "determined_sammet") && !is_among(&names, "old_shell"),
                "{shell} {verb}: {names:?}"
            );
        }
    }
}

/// `whois` takes paths of the host, be it a copy.
#[apply(test)]
fn whois_is_offered_paths_of_the_host() {
    let host = Host::fixture("blog-host");
    let root = host.root.to_str().expect("plain names");
    for shell in ["bash", "zsh", "fish"] {
        let docker = offered_in(shell, &host, &["whois", "/var/lib/d"]);
        assert!(is_among(&docker, "/var/lib/docker/"), "{shell}: {docker:?}");
        let layers = offered_in(shell, &host, &["whois", "/var/lib/docker/aufs/diff/2ee5"]);
        assert_eq!(
            layers.len(),
            2,
            "{shell}: a layer and its init layer: {layers:?}"
        );
        // With the root before it, as a path is typed that a program has printed.
        let whole = format!("{root}/var/lib/docker/au");
        let found = offered_in(shell, &host, &["whois", &whole]);
        assert!(
            is_among(&found, &format!("{root}/var/lib/docker/aufs/")),
            "{shell}: {found:?}"
        );
        assert!(offered_in(shell, &host, &["whois", "/nope/"]).is_empty());
        let live = offered(shell, &["whois", "/pro"].map(OsStr::new));
        assert!(is_among(&live, "/proc/"), "{shell}: {live:?}");
    }
}

#[apply(test)]
fn containers_are_offered_from_a_data_directory_elsewhere() {
    let docker_root = fixture("docker-1.9/var/lib/docker");
    let words = [
        OsStr::new("--docker-root"),
        docker_root.as_os_str(),
        OsStr::new("changes"),
        OsStr::new("old_"),
    ];
    let names = offered("bash", &words);
    assert!(
        is_among(&names, "old_web") && is_among(&names, "old_job"),
        "{names:?}"
    );
    let joined = format!("--docker-root={}", docker_root.display());
    assert_eq!(
        offered(
            "bash",
            &[
                OsStr::new(&joined),
                OsStr::new("changes"),
                OsStr::new("old_")
            ]
        ),
        names
    );
}

#[apply(test)]
fn verbs_and_formats_are_offered() {
    let offered_verbs = offered("bash", &[OsStr::new("")]);
    for verb in verbs() {
        assert!(is_among(&offered_verbs, verb), "{verb}: {offered_verbs:?}");
    }
    let formats = offered("bash", ["info", "--format", ""].map(OsStr::new).as_slice());
    for format in ["table", "json", "jsonl"] {
        assert!(is_among(&formats, format), "{formats:?}");
    }
}

#[apply(test)]
fn what_cannot_be_read_offers_nothing_and_says_nothing() {
    let host = Host::copy_of("blog-host");
    host.file("/var/lib/docker/containers/6e34f74c1961320c2ea57b073b34ae9ff15a217a7d9f7db46d9ad8cfa62c782f/config.v2.json", "{");
    let names = offered_in("bash", &host, &["changes", ""]);
    assert!(
        is_among(&names, "old_shell") && !is_among(&names, "determined_sammet"),
        "{names:?}"
    );
    offered(
        "bash",
        ["--root", "/no/such/root", "changes", ""]
            .map(OsStr::new)
            .as_slice(),
    );
}

#[apply(test)]
fn every_verb_has_a_man_page_and_help() {
    for verb in verbs() {
        let page = layerctl(["man", verb.as_str()]).exits(0);
        assert!(
            page.text().starts_with(".ie") || page.text().contains(".TH"),
            "{verb}"
        );
        assert!(
            page.text().contains(&format!("layerctl-{verb}"))
                || page.text().contains(&format!("layerctl\\-{verb}")),
            "{verb}: {}",
            page.text()
        );
        assert!(
            page.text().contains("docker\\-root") || page.text().contains("docker-root"),
            "{verb} has the global options"
        );
        layerctl([verb.as_str(), "--help"]).exits(0);
    }
    let page = layerctl(["man"]).exits(0);
    for verb in verbs() {
        assert!(page.text().contains(verb), "{verb}");
    }
}

/// What a page says of an option is what `--help` says of it, short help or not.
#[apply(test)]
fn a_page_has_the_text_of_every_option() {
    for verb in verbs() {
        let page = layerctl(["man", verb.as_str()]).exits(0);
        let mut lines = page.text().lines().peekable();
        while let Some(line) = lines.next() {
            let is_option = line.starts_with("\\fB\\-") && !line.starts_with("\\fB\\-\\-color");
            if is_option {
                let text = lines.peek().copied().unwrap_or_default();
                assert!(!text.is_empty() && !text.starts_with('.'), "{verb}: {line}");
            }
        }
    }
    let page = layerctl(["man", "restore"]).exits(0);
    for words in [
        "How to bring it back",
        "move the changed file",
        "throw the changed file away",
    ] {
        assert!(page.text().contains(words), "{words}");
    }
}

/// On a narrow screen what is to be typed can be pasted, and nothing is wider than the screen but a
/// usage and a word.
#[apply(test)]
fn help_wraps_so_that_it_can_be_pasted() {
    let mut broken = 0;
    for verb in verbs() {
        let help = run(command().env("COLUMNS", "50").args([verb, "-h"])).exits(0);
        let (_, examples) = help.text().split_once("\nExamples:\n").expect("examples");
        let (examples, _) = examples.split_once("\nExit status: ").expect("a status");
        for line in examples.lines() {
            let is_one_word = !line.trim().trim_end_matches(" \\").contains(' ');
            assert!(line.chars().count() <= 50 || is_one_word, "{verb}: {line}");
        }
        let wide = run(command().env("COLUMNS", "100").args([verb, "-h"])).exits(0);
        let (_, whole) = wide.text().split_once("\nExamples:\n").expect("examples");
        let (whole, _) = whole.split_once("\nExit status: ").expect("a status");
        for example in whole.lines() {
            let typed = example.trim().split("    ").next().expect("what is typed");
            let words: Vec<&str> = typed.split_whitespace().collect();
            let pasted = examples.replace(" \\\n    ", " ");
            let is_there = pasted.lines().any(|line| {
                let own = line.trim().split("    ").next().unwrap_or_default();
                own.split_whitespace().eq(words.iter().copied())
            });
            assert!(is_there, "{verb}: {typed}\n{examples}");
        }
        broken += usize::from(examples.contains(" \\\n"));
    }
    assert!(broken > 3);
    let help = run(command().env("COLUMNS", "50").arg("-h")).exits(0);
    for line in help.text().lines() {
        assert!(line.chars().count() <= 50, "{line}");
    }
}

// ---- help ----

/// What a person sees first fits the screen of a terminal that is as small as they are, and says
/// what a line of a shell looks like.
#[apply(test)]
fn help_fits_a_small_terminal() {
    let mut all: Vec<&str> = verbs().iter().map(String::as_str).collect();
    all.extend(["completions", "man", "schema"]);
    for verb in &all {
        let help = run(command().env("COLUMNS", "80").args([verb, "-h"])).exits(0);
        let lines: Vec<&str> = help.text().lines().collect();
        assert!(
            lines.len() <= 24,
            "{verb} has {} lines:\n{}",
            lines.len(),
            help.text()
        );
        assert!(!help.text().contains("--containerd-root"), "{verb}");
        let whole = run(command().env("COLUMNS", "80").args([verb, "--help"])).exits(0);
        assert!(whole.text().contains("--containerd-root"), "{verb}");
    }
    for verb in verbs() {
        let help = run(command().env("COLUMNS", "80").args([verb, "-h"])).exits(0);
        let (_, examples) = help.text().split_once("\nExamples:\n").expect("examples");
        let (examples, exit) = examples.split_once("\nExit status: ").expect("a status");
        assert_eq!(examples.lines().count(), 3, "{verb}");
        assert!(exit.contains("2 "), "{verb}: {exit}");
        for argument in help.text().split("\nArguments:\n").skip(1) {
            let line = argument.lines().next().expect("a line").trim();
            assert!(line.contains("  "), "{verb}: {line} is not explained");
        }
    }
    let help = run(command().env("COLUMNS", "80").arg("-h")).exits(0);
    assert!(help.text().lines().count() <= 24, "{}", help.text());
    for verb in verbs() {
        assert!(help.text().contains(&format!(" {verb}")), "{verb}");
    }
}

/// Who need not name a TARGET, or a path, reads what is done then.
#[apply(test)]
fn what_happens_without_a_target_is_said() {
    let mut asked = 0;
    for verb in verbs() {
        let help = run(command().env("COLUMNS", "80").args([verb, "-h"])).exits(0);
        let usage = help.text().lines().find(|line| line.starts_with("Usage: "));
        let usage = usage.expect("a usage");
        if !usage.contains("[TARGET") && !usage.contains("[[TARGET") {
            continue;
        }
        asked += 1;
        // A verb that has to be told one is not without it.
        if layerctl(["--root", "/", verb]).stderr.contains("required") {
            continue;
        }
        let (_, arguments) = help.text().split_once("\nArguments:\n").expect("arguments");
        let (arguments, _) = arguments.split_once("\n\n").expect("options");
        assert!(
            arguments.to_lowercase().contains("without"),
            "{verb}: {arguments}"
        );
    }
    assert!(asked > 8, "{asked}");
}

/// The groups are those that people look for something in.
#[apply(test)]
fn verbs_stand_in_groups() {
    let help = run(command().env("COLUMNS", "80").arg("-h")).exits(0);
    let lines: Vec<&str> = help.text().lines().collect();
    for (group, verbs) in [
        (
            "look",
            &["branches", "which", "ls", "whiteouts", "changes", "history"][..],
        ),
        ("find", &["find", "whois"]),
        ("repair", &["check", "restore"]),
        ("disk", &["orphans", "du"]),
        ("host", &["containers", "images", "info"]),
    ] {
        let begin = format!("  {group} ");
        let at = lines.iter().position(|line| line.starts_with(&begin));
        let at = at.unwrap_or_else(|| panic!("{group}: {}", help.text()));
        // A long group goes on in the next line.
        let is_more = |line: &&&str| line.starts_with("     ");
        let more = lines[at + 1..].iter().take_while(is_more);
        let words: Vec<&str> = lines[at..=at]
            .iter()
            .chain(more)
            .flat_map(|line| line.split_whitespace())
            .collect();
        for verb in verbs {
            assert!(words.contains(verb), "{group} {verb}: {words:?}");
        }
    }
}

#[apply(test)]
fn words_that_people_type_work_or_name_the_verb() {
    let host = Host::fixture("blog-host");
    for (word, verb) in [
        ("ps", "containers"),
        ("mounts", "branches"),
        ("layers", "history"),
        ("undelete", "restore"),
    ] {
        let rest: &[&str] = match verb {
            "history" => &["determined_sammet"],
            "restore" => &["--dry-run", "determined_sammet:/nothing"],
            _ => &[],
        };
        let asked = |verb: &str| host.ask([&[verb], rest].concat());
        assert_eq!(asked(word).stdout, asked(verb).stdout, "{word}");
    }
    layerctl(["version"]).exits(0);
    for (word, verb) in [
        ("inspect", "branches"),
        ("contaniers", "containers"),
        ("changed", "changes"),
    ] {
        layerctl([word]).exits(2).says(verb);
    }
}

#[apply(test)]
fn every_page_is_written_at_once_and_nothing_is_overwritten() {
    let home = tempfile::tempdir().expect("a directory");
    let at = home.path().join("man1");
    layerctl(["man".as_ref(), "--all".as_ref(), at.as_os_str()]).exits(0);
    for verb in verbs() {
        let page = fs::read_to_string(at.join(format!("layerctl-{verb}.1"))).expect("a page");
        for section in ["EXAMPLES", "EXIT STATUS", "SEE ALSO"] {
            assert!(page.contains(section), "{verb} {section}");
        }
        assert_eq!(page, layerctl(["man", verb]).exits(0).text());
    }
    assert!(at.join("layerctl.1").is_file());
    layerctl(["man".as_ref(), "--all".as_ref(), at.as_os_str()]).exits(2);
}

/// What can be brought back is what is not there.
#[apply(test)]
fn deleted_names_are_offered_where_they_are_wanted() {
    let host = Host::fixture("blog-host");
    let begun = "determined_sammet:/usr/local/lib/python2.7/dist-packages/its";
    let whole = format!("{begun}dangerous.py");
    for (words, is_offered) in [
        (&["restore", begun][..], true),
        (&["cat", "--hidden", begun], true),
        (&["cat", begun], false),
        (&["ls", begun], false),
    ] {
        let offered = offered_in("fish", &host, words);
        assert_eq!(
            is_among_paths(&offered, &whole),
            is_offered,
            "{words:?}: {offered:?}"
        );
    }
    // What is there is offered as well: `--revert` takes it.
    let offered = offered_in("fish", &host, &["restore", "determined_sammet:/etc/ap"]);
    assert!(
        is_among_paths(&offered, "determined_sammet:/etc/apt/"),
        "{offered:?}"
    );
}

fn is_among_paths(offered: &[String], path: &str) -> bool {
    offered
        .iter()
        .any(|line| line.split('\t').next() == Some(path))
}
