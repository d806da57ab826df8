//! README's console blocks are true: what stands below a `$` is what the command prints, all of it.
//!
//! A comment before a block, which no reader sees, says what a command ends with (`exit: 0 1`, one for
//! each), or which captured host is at /mnt/disk (`host: NAME`).

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::lab::host::Host;
use crate::lab::needs;
use crate::lab::run::run;

const DISK: &str = "/mnt/disk";

struct Block<'r> {
    line: usize,
    /// What the comment before it says.
    comment: &'r str,
    text: Vec<&'r str>,
}

fn blocks(readme: &str) -> Vec<Block<'_>> {
    let mut blocks = Vec::new();
    let mut lines = readme.lines().enumerate();
    let mut comment = "";
    while let Some((at, line)) = lines.next() {
        match line.strip_prefix("<!-- ") {
            Some(says) => comment = says.trim_end_matches(" -->"),
            None if line == "```console" => {
                let text = lines.by_ref().map(|(_, line)| line);
                let text = text.take_while(|line| *line != "```").collect();
                blocks.push(Block {
                    line: at + 1,
                    comment,
                    text,
                });
                comment = "";
            }
            None => comment = "",
        }
    }
    blocks
}

/// Each command of a block, with what it prints.
fn commands<'b>(block: &'b Block<'_>) -> Vec<(&'b str, Vec<&'b str>)> {
    let mut commands: Vec<(&str, Vec<&str>)> = Vec::new();
    for line in &block.text {
        match line.strip_prefix("$ ") {
            Some(command) => commands.push((command, Vec::new())),
            None => commands
                .last_mut()
                .expect("a command comes first")
                .1
                .push(line),
        }
    }
    commands
}

fn trimmed<'l>(lines: impl IntoIterator<Item = &'l str>) -> String {
    let lines: Vec<&str> = lines.into_iter().map(str::trim_end).collect();
    lines.join("\n").trim_end().to_owned()
}

#[apply(test)]
fn console_blocks_of_the_readme() {
    needs::fixtures();
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md"));
    let readme = readme.expect("our own source");
    let blocks = blocks(&readme);
    assert!(blocks.len() > 10, "{}", blocks.len());
    let mut wrong = Vec::new();
    for block in &blocks {
        let said = |key: &str| {
            block
                .comment
                .split(", ")
                .find_map(|said| said.strip_prefix(key))
        };
        let statuses: Vec<i32> = match said("exit: ") {
            Some(statuses) => statuses
                .split(' ')
                .map(|of| of.parse().expect("a number"))
                .collect(),
            None => Vec::new(),
        };
        let host = match said("host: ") {
            Some(_) if !needs::captured_hosts_in_part() => continue,
            Some(name) => Some(Host::captured(name)),
            None => None,
        };
        let disk = host
            .as_ref()
            .map_or(DISK, |host| host.root.to_str().expect("plain names"));
        for (at, (command, expected)) in commands(block).into_iter().enumerate() {
            let directory = Path::new(env!("CARGO_BIN_EXE_layerctl"))
                .parent()
                .expect("one");
            let path = std::env::var("PATH").unwrap_or_default();
            let mut shell = Command::new("sh");
            shell
                .args(["-c", &format!("{} 2>&1", command.replace(DISK, disk))])
                .current_dir(env!("CARGO_MANIFEST_DIR"))
                .env_clear()
                .env("TZ", "UTC")
                .env("PATH", format!("{}:{path}", directory.display()));
            let output = run(&mut shell);
            let printed = output.text().replace(disk, DISK);
            let status = statuses.get(at).copied().unwrap_or(0);
            if trimmed(printed.lines()) != trimmed(expected) || output.status != Some(status) {
                wrong.push(format!(
                    "README.md:{}: {command}\n{printed}status {:?}",
                    block.line, output.status
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// It begins with what people have today, and with what they ask; the host of the article comes after
/// that. What is to be typed for a question are verbs and options that there are.
#[apply(test)]
fn it_begins_with_questions_and_overlay2() {
    needs::fixtures();
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md"));
    let readme = readme.expect("our own source");
    let first = &blocks(&readme)[0];
    assert_eq!(
        first.comment.split(',').next(),
        Some("host: docker-28-overlay2")
    );
    let before = readme.lines().take(first.line);
    let table: Vec<&str> = before.filter(|line| line.starts_with("| ")).collect();
    let typed = table
        .iter()
        .flat_map(|line| line.split('`').skip(1).step_by(2));
    let typed: Vec<&str> = typed.filter(|of| of.contains("layerctl")).collect();
    for words in [
        "layerctl which ",
        "layerctl whois -",
        "layerctl changes ",
        "layerctl restore ",
        "layerctl cat web@",
        "layerctl cp --all-deleted --to DIR",
        "layerctl find ",
        "layerctl du IMAGE",
        "layerctl check",
        "layerctl --root ",
        "layerctl which shop/web-0/app:",
    ] {
        assert!(
            typed.iter().any(|of| of.contains(words)),
            "{words}: {typed:?}"
        );
    }
    let verbs = crate::lab::verbs::verbs();
    for command in typed {
        let (_, own) = command.split_once("layerctl ").expect("it is there");
        let own = own.split(" \\|").next().unwrap_or_default();
        let words: Vec<&str> = own.split_whitespace().collect();
        let Some(verb) = words.iter().find(|word| verbs.iter().any(|of| of == *word)) else {
            assert!(words.ends_with(&["..."]), "{command}");
            continue;
        };
        let help = crate::lab::run::layerctl([verb, "--help"]).exits(0);
        for option in words
            .iter()
            .filter(|word| word.starts_with('-') && word.len() > 1)
        {
            assert!(help.text().contains(option), "{command}: {option}");
        }
    }
    let article = readme
        .find("fixtures/blog-host branches")
        .expect("the article's host");
    let overlay = readme.find("docker-28-overlay2").expect("overlay2");
    assert!(overlay < article);
}

/// What a reader sees is what a shell shows: no mark of a test.
#[apply(test)]
fn no_mark_of_a_test_is_seen_in_the_readme() {
    needs::fixtures();
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md"));
    for line in readme.expect("our own source").lines() {
        assert!(!line.contains("[..]") && !line.starts_with("? "), "{line}");
    }
}
