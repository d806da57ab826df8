//! What is cited exists: every fact that code, tests and documents name, by its anchor.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use walkdir::WalkDir;

const CITED: &str = "docs/facts.md#";

fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The project's own Rust files and documents.
fn files() -> Vec<PathBuf> {
    let below = ["src", "tests", "benches", "fuzz", "docs"].map(|name| project().join(name));
    let top = ["README.md", "CONTRIBUTING.md"].map(|name| project().join(name));
    below
        .iter()
        .flat_map(WalkDir::new)
        .filter_map(Result::ok)
        .map(|entry| entry.into_path())
        .filter(|path| {
            path.extension()
                .is_some_and(|end| end == "rs" || end == "md")
        })
        .chain(top)
        .filter(|path| path.exists())
        .collect()
}

/// What follows each `before`, as far as it can be part of an anchor.
fn after<'a>(text: &'a str, before: &'a str) -> impl Iterator<Item = &'a str> {
    text.split(before).skip(1).map(|rest| {
        let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '.'));
        rest[..end.unwrap_or(rest.len())].trim_end_matches('.')
    })
}

/// The anchors of the facts, and how a heading is linked to.
fn anchors(facts: &str) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    for anchor in after(facts, "<a id=\"") {
        assert!(anchors.insert(anchor.to_owned()), "two facts are {anchor}");
    }
    for heading in facts.lines().filter(|line| line.starts_with('#')) {
        let heading = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = heading.chars().filter_map(|c| match c {
            ' ' => Some('-'),
            c if c.is_alphanumeric() || c == '-' || c == '_' => Some(c),
            _ => None,
        });
        anchors.insert(kept.collect());
    }
    anchors
}

#[apply(test)]
fn every_fact_that_is_cited_exists() {
    let anchors = anchors(&text(&project().join("docs/facts.md")));
    let mut wrong = Vec::new();
    let mut cited = 0;
    for path in files() {
        let text = text(&path);
        let of_facts = path.ends_with("docs/facts.md").then_some("](#");
        for anchor in
            after(&text, CITED).chain(of_facts.into_iter().flat_map(|own| after(&text, own)))
        {
            // This file's own constant, and what only speaks of citing.
            if anchor.is_empty() {
                continue;
            }
            cited += 1;
            if !anchors.contains(anchor) {
                wrong.push(format!("{}: {anchor}", path.display()));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new(), "no such fact");
    assert!(cited > 20, "only {cited} citations were found");
}

#[apply(test)]
fn a_citation_is_read_to_its_end() {
    let text = format!("As {CITED}aufs-5.3a. Or {CITED}engines-2026-a12, or {CITED}engines-6: so.");
    let read: Vec<&str> = after(&text, CITED).collect();
    assert_eq!(read, ["aufs-5.3a", "engines-2026-a12", "engines-6"]);
}

/// Paths of the project in a document, between backticks.
fn paths(text: &str) -> impl Iterator<Item = &str> {
    let quoted = text.split('`').skip(1).step_by(2);
    let without_anchor = quoted.map(|word| word.split_once('#').map_or(word, |(path, _)| path));
    without_anchor.filter(|word| {
        let tops = [
            "src/",
            "tests/",
            "fixtures/",
            "benches/",
            "fuzz/",
            "docs/",
            ".ci/",
        ];
        // NAME is what the reader calls it.
        tops.iter().any(|top| word.starts_with(top)) && !word.contains([' ', 'N'])
    })
}

#[apply(test)]
fn what_the_recipes_lead_to_is_there() {
    let text = text(&project().join("CONTRIBUTING.md"));
    let named: BTreeSet<&str> = paths(&text).collect();
    assert!(named.len() > 8, "only {named:?} are named");
    // A package from the registry is without the fixtures.
    let is_package = !project().join("fixtures").exists();
    let missing: Vec<&str> = named
        .into_iter()
        .filter(|path| !(is_package && path.starts_with("fixtures/")))
        .filter(|path| !project().join(path).exists())
        .collect();
    assert_eq!(missing, Vec::<&str>::new());
}
