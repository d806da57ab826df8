//! layerctl as docker's `docker layers`, asked by the real docker.

use std::fs;
use std::process::Command;

use crate::lab::host::Host;
use crate::lab::needs;
use crate::lab::run;

#[apply(test)]
fn docker_lists_and_runs_it() {
    needs::program("docker", "--version");
    let home = tempfile::tempdir().expect("a temporary directory");
    let plugins = home.path().join("cli-plugins");
    fs::create_dir(&plugins).expect("our own");
    run::copy_program(
        env!("CARGO_BIN_EXE_layerctl"),
        plugins.join("docker-layers"),
    );
    let docker = |words: &[&str]| {
        let mut command = Command::new("docker");
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("TZ", "UTC")
            .env("DOCKER_CONFIG", home.path())
            // There is no daemon, and none is asked.
            .env("DOCKER_HOST", "unix:///nowhere")
            .args(words);
        run::run(&mut command)
    };
    let help = docker(&["--help"]);
    let listed = help
        .text()
        .lines()
        .find(|line| line.trim_start().starts_with("layers*"));
    let listed = listed.unwrap_or_else(|| panic!("{}", help.text()));
    assert!(listed.contains("without the daemon"), "{listed}");

    let host = Host::fixture("blog-host");
    let root = host.root.to_str().expect("UTF-8");
    for words in [
        &["containers"][..],
        &["which", "determined_sammet:/etc/apt/sources.list"],
        &["which", "determined_sammet:/no"],
        &["changes", "determined_sammet", "--format", "jsonl"],
    ] {
        let ours = host.ask(words);
        let theirs = docker(&[&["layers", "--root", root], words].concat());
        assert_eq!(theirs.text(), ours.text(), "{words:?}");
        assert_eq!(theirs.status, ours.status, "{words:?}");
        let behind = docker(&[&["--log-level", "error", "layers", "--root", root], words].concat());
        assert_eq!(behind.text(), ours.text(), "{words:?}");
    }
    assert!(
        docker(&["layers", "--help"])
            .text()
            .contains("Look into a union:")
    );
    assert_eq!(docker(&["layers", "no-such-verb"]).status, Some(2));
}
