//! Which commit is built, and for what: `layerctl --version` says so. Nothing else depends on where or
//! when it is built.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    reason = "cargo is told on standard output, and the files are our own"
)]

use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;

/// What cargo writes into the archive of a crate.
const OF_ARCHIVE: &str = ".cargo_vcs_info.json";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=LAYERCTL_COMMIT");
    println!("cargo::rerun-if-env-changed=SOURCE_DATE_EPOCH");
    let commit = env::var("LAYERCTL_COMMIT").ok();
    let commit = commit.or_else(of_archive).or_else(of_repository);
    let mut parts: Vec<String> = commit.iter().map(|commit| short(commit)).collect();
    parts.extend(env::var("TARGET"));
    // A time makes two builds two programs, unless whoever builds says which.
    parts.extend(env::var("SOURCE_DATE_EPOCH").map(|time| format!("@{time}")));
    let version = env::var("CARGO_PKG_VERSION").unwrap_or_default();
    let version = format!("{version} ({})", parts.join(" "));
    println!("cargo::rustc-env=LAYERCTL_VERSION={version}");
    let commit = commit.map(|commit| short(&commit)).unwrap_or_default();
    println!("cargo::rustc-env=LAYERCTL_COMMIT={commit}");
}

/// The first twelve digits, and that there was more than the commit.
fn short(commit: &str) -> String {
    let (digits, rest) = commit.split_at(commit.find('-').unwrap_or(commit.len()));
    let digits: String = digits
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .take(12)
        .collect();
    let is_dirty = rest == "-dirty";
    if is_dirty {
        format!("{digits}-dirty")
    } else {
        digits
    }
}

/// The commit that an archive was made of.
fn of_archive() -> Option<String> {
    let text = fs::read_to_string(OF_ARCHIVE).ok()?;
    println!("cargo::rerun-if-changed={OF_ARCHIVE}");
    let (_, rest) = text.split_once("\"sha1\"")?;
    let digits = rest.split('"').nth(1)?;
    let is_dirty = text.contains("\"dirty\": true");
    Some(format!("{digits}{}", if is_dirty { "-dirty" } else { "" }))
}

/// The commit that is checked out, of what is built to be used: whoever works on layerctl need not
/// build it anew for each commit.
fn of_repository() -> Option<String> {
    if env::var("PROFILE").ok()? != "release" || !Path::new(".git").exists() {
        return None;
    }
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).output().ok()?;
        let text = output.status.success().then_some(output.stdout)?;
        Some(String::from_utf8(text).ok()?.trim().to_owned())
    };
    let log = git(&["rev-parse", "--git-path", "logs/HEAD"])?;
    for path in [&*log, "src", "Cargo.toml", "Cargo.lock"] {
        if Path::new(path).exists() {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    git(&[
        "describe",
        "--always",
        "--dirty",
        "--abbrev=40",
        "--exclude=*",
    ])
}
