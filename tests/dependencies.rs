//! What is built on, held against `deny.toml` and the oldest compiler that Cargo.toml promises.
//! `cargo deny` says the same in more words; to build it takes longer than all that is built here.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

const TARGETS: [&str; 2] = ["x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"];

fn deny() -> toml::Table {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deny.toml");
    let text = fs::read_to_string(&path).expect("deny.toml is there");
    text.parse().expect("deny.toml is TOML")
}

/// The texts of a list in `deny.toml`, or one field of its tables.
fn listed(section: &str, list: &str) -> BTreeSet<String> {
    let deny = deny();
    let list = deny[section][list].as_array().expect("a list");
    list.iter()
        .map(|item| item.get("crate").unwrap_or(item))
        .map(|item| item.as_str().expect("a text").to_owned())
        .collect()
}

/// What is built for Linux, as cargo resolved it, tests and benches included.
fn packages() -> Vec<Value> {
    let mut command = Command::new(env!("CARGO"));
    command.current_dir(env!("CARGO_MANIFEST_DIR")).args([
        "metadata",
        "--format-version",
        "1",
        "--locked",
    ]);
    for target in TARGETS {
        command.args(["--filter-platform", target]);
    }
    let output = command.output().expect("cargo is there: it runs this");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let mut metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo prints JSON");
    let used: BTreeSet<String> = metadata["resolve"]["nodes"]
        .as_array()
        .expect("nodes")
        .iter()
        .map(|node| node["id"].as_str().expect("an id").to_owned())
        .collect();
    let Value::Array(packages) = metadata["packages"].take() else {
        panic!("no packages");
    };
    let packages: Vec<Value> = packages
        .into_iter()
        .filter(|package| used.contains(package["id"].as_str().expect("an id")))
        .collect();
    assert!(packages.len() > 20, "only {} packages", packages.len());
    packages
}

fn named(package: &Value) -> String {
    format!("{} {}", text(package, "name"), text(package, "version"))
}

fn text<'a>(package: &'a Value, field: &str) -> &'a str {
    package[field].as_str().unwrap_or_default()
}

/// Whether a licence, spelled as SPDX or as crates once did (`MIT/Apache-2.0`), can be chosen so
/// that all of it is allowed.
fn is_allowed(licence: &str, allowed: &BTreeSet<String>) -> bool {
    let licence = licence.trim();
    // Of `A OR B AND C` AND binds closer; of brackets only whole sides occur.
    if let Some(sides) = split_outside(licence, " OR ").or_else(|| split_outside(licence, "/")) {
        return sides.iter().any(|side| is_allowed(side, allowed));
    }
    if let Some(sides) = split_outside(licence, " AND ") {
        return sides.iter().all(|side| is_allowed(side, allowed));
    }
    match licence
        .strip_prefix('(')
        .and_then(|rest| rest.strip_suffix(')'))
    {
        Some(inner) => is_allowed(inner, allowed),
        None => allowed.contains(licence),
    }
}

/// The sides of an operator that stands outside of brackets.
fn split_outside<'a>(text: &'a str, operator: &str) -> Option<Vec<&'a str>> {
    let mut sides = Vec::new();
    let (mut depth, mut start) = (0, 0);
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ if depth == 0 && at >= start && text[at..].starts_with(operator) => {
                sides.push(&text[start..at]);
                start = at + operator.len();
            }
            _ => {}
        }
    }
    sides.push(&text[start..]);
    (sides.len() > 1).then_some(sides)
}

#[apply(test)]
fn every_licence_is_allowed() {
    let allowed = listed("licenses", "allow");
    let wrong: Vec<String> = packages()
        .iter()
        .filter(|package| !is_allowed(text(package, "license"), &allowed))
        .map(|package| format!("{}: {:?}", named(package), text(package, "license")))
        .collect();
    assert_eq!(wrong, Vec::<String>::new());
}

#[apply(test)]
fn a_licence_is_read_as_it_is_written() {
    let allowed = ["MIT", "Zlib"].map(str::to_owned).into();
    for good in [
        "MIT",
        "MIT OR GPL-2.0",
        "GPL-2.0/MIT",
        "(GPL-2.0 OR MIT) AND Zlib",
        "GPL-2.0 AND Zlib OR MIT",
    ] {
        assert!(is_allowed(good, &allowed), "{good}");
    }
    for bad in [
        "",
        "GPL-2.0",
        "MIT AND GPL-2.0",
        "(MIT OR Zlib) AND GPL-2.0",
        "MIT WITH Something",
    ] {
        assert!(!is_allowed(bad, &allowed), "{bad}");
    }
}

#[apply(test)]
fn every_source_is_known() {
    let known = listed("sources", "allow-registry");
    let wrong: Vec<String> = packages()
        .iter()
        .filter(|package| {
            let source = text(package, "source").trim_start_matches("registry+");
            !known.contains(source) && text(package, "name") != env!("CARGO_PKG_NAME")
        })
        .map(named)
        .collect();
    assert_eq!(wrong, Vec::<String>::new());
}

#[apply(test)]
fn no_crate_is_there_twice_but_those_that_are_named() {
    let known = listed("bans", "skip");
    let mut versions: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for package in packages() {
        let of = versions
            .entry(text(&package, "name").to_owned())
            .or_default();
        of.push(text(&package, "version").to_owned());
    }
    versions.retain(|_, versions| versions.len() > 1);
    let twice: BTreeSet<String> = versions.into_keys().collect();
    assert_eq!(twice, known, "in two versions, and named in deny.toml");
}

/// Only one compiler is at hand where this runs, so that the promised one cannot be tried. clippy's
/// `incompatible_msrv` sees what the crate itself uses; here is what others demand.
#[apply(test)]
fn no_crate_needs_a_newer_compiler_than_is_promised() {
    let promised = version(env!("CARGO_PKG_RUST_VERSION"));
    let wrong: Vec<String> = packages()
        .iter()
        .filter(|package| version(text(package, "rust_version")) > promised)
        .map(|package| format!("{}: {}", named(package), text(package, "rust_version")))
        .collect();
    assert_eq!(wrong, Vec::<String>::new());
}

/// The numbers of `1.88`; none of a crate that does not say.
fn version(text: &str) -> Vec<u32> {
    text.split('.')
        .map_while(|number| number.parse().ok())
        .collect()
}
