//! Which commit `--version` tells: build.rs, built and run by itself in directories of every kind.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::lab::needs;
use crate::lab::run;

/// The version that a build in a directory would have.
fn built_in(directory: &Path, build: &Path, variables: &[(&str, &str)]) -> String {
    let mut command = Command::new(build);
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        // No repository above the directory counts.
        .env("GIT_CEILING_DIRECTORIES", directory.parent().expect("one"))
        .env("CARGO_PKG_VERSION", "1.2.3")
        .env("PROFILE", "release")
        .env("TARGET", "here")
        .envs(variables.iter().copied())
        .current_dir(directory);
    let said = run::run(&mut command);
    assert_eq!(said.status, Some(0), "{}", said.stderr);
    let mut lines = said.text().lines();
    let version = lines.find_map(|line| line.strip_prefix("cargo::rustc-env=LAYERCTL_VERSION="));
    version.expect("a version").to_owned()
}

#[apply(test)]
fn the_commit_is_told_where_there_is_one() {
    needs::program("rustc", "--version");
    needs::program("git", "--version");
    let home = tempfile::tempdir().expect("a temporary directory");
    let build = home.path().join("build");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("build.rs");
    let mut rustc = Command::new("rustc");
    rustc
        .args(["--edition=2024", "-Adead_code", "-o"])
        .arg(&build)
        .arg(source);
    assert_eq!(run::run(&mut rustc).status, Some(0));

    let plain = home.path().join("plain");
    fs::create_dir(&plain).expect("our own");
    assert_eq!(built_in(&plain, &build, &[]), "1.2.3 (here)");
    let named = [(
        "LAYERCTL_COMMIT",
        "0123456789abcdef0123456789abcdef01234567",
    )];
    assert_eq!(
        built_in(&plain, &build, &named),
        "1.2.3 (0123456789ab here)"
    );
    let dated = [("SOURCE_DATE_EPOCH", "1700000000")];
    assert_eq!(built_in(&plain, &build, &dated), "1.2.3 (here @1700000000)");
    // The registry's archive has what cargo noted in it.
    let note = |git: &str| fs::write(plain.join(".cargo_vcs_info.json"), git).expect("our own");
    note(
        "{\n  \"git\": {\n    \"sha1\": \"fedcba9876543210fedcba9876543210fedcba98\"\n  },\n  \"path_in_vcs\": \"\"\n}",
    );
    assert_eq!(built_in(&plain, &build, &[]), "1.2.3 (fedcba987654 here)");
    note(
        "{ \"git\": { \"sha1\": \"fedcba9876543210fedcba9876543210fedcba98\", \"dirty\": true } }",
    );
    assert_eq!(
        built_in(&plain, &build, &[]),
        "1.2.3 (fedcba987654-dirty here)"
    );
    note("{ \"path_in_vcs\": \"\" }");
    assert_eq!(built_in(&plain, &build, &[]), "1.2.3 (here)");

    let cloned = home.path().join("cloned");
    fs::create_dir(&cloned).expect("our own");
    let git = |words: &[&str]| {
        let mut command = Command::new("git");
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOME", home.path()).arg("-C").arg(&cloned);
        command
            .args(["-c", "user.name=x", "-c", "user.email=x@y"])
            .args(words);
        let said = run::run(&mut command);
        assert_eq!(said.status, Some(0), "{words:?}: {}", said.stderr);
        said.text().trim().to_owned()
    };
    git(&["init", "--quiet"]);
    fs::write(cloned.join("file"), "one").expect("our own");
    git(&["add", "file"]);
    git(&["commit", "--quiet", "--message", "one"]);
    let commit = &git(&["rev-parse", "HEAD"])[..12];
    assert_eq!(
        built_in(&cloned, &build, &[]),
        format!("1.2.3 ({commit} here)")
    );
    // Whoever works on it need not build it anew for each commit.
    assert_eq!(
        built_in(&cloned, &build, &[("PROFILE", "debug")]),
        "1.2.3 (here)"
    );
    fs::write(cloned.join("file"), "two").expect("our own");
    assert_eq!(
        built_in(&cloned, &build, &[]),
        format!("1.2.3 ({commit}-dirty here)")
    );
}
