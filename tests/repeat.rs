//! `--every`: a report or metrics again and again, each whole, until somebody asks for an end.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::lab::host::{Host, copy_tree};
use crate::lab::needs;
use crate::lab::run::{self, text};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

struct Repeated(Child);

impl Repeated {
    fn start(host: &Host, words: &[&str]) -> Repeated {
        let mut command = run::command();
        command.arg("--root").arg(&host.root).args(words);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        Repeated(command.spawn().expect("layerctl was built"))
    }

    fn tell(&self, signal: Signal) {
        let pid = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.expect("a process"), signal).expect("it runs");
    }

    /// How it ended, and how long that took.
    fn ends(&mut self) -> (ExitStatus, Duration) {
        let told = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait().expect("our own child") {
                return (status, told.elapsed());
            }
            assert!(told.elapsed() < PATIENCE, "it does not end");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Repeated {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[track_caller]
fn wait_for<T>(mut found: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "nothing came");
        thread::sleep(Duration::from_millis(5));
    }
}

fn names(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).expect("our own");
    entries
        .map(|entry| entry.expect("our own").path())
        .collect()
}

/// When the numbers in a file were told; a file that is not whole fails the test.
fn told(file: &Path) -> Option<String> {
    let numbers = fs::read_to_string(file).ok()?;
    assert!(numbers.ends_with("# EOF\n"), "{numbers}");
    let time = "layerctl_report_timestamp_seconds ";
    let line = numbers.lines().find_map(|line| line.strip_prefix(time));
    Some(line.expect("a time").to_owned())
}

#[apply(test)]
fn numbers_are_told_again_until_asked_to_end() {
    let host = Host::empty();
    for signal in [Signal::TERM, Signal::INT] {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let file = directory.path().join("layerctl.prom");
        let output = file.to_str().expect("UTF-8");
        let mut run = Repeated::start(&host, &["metrics", "--every", "1s", "-o", output]);
        let mut times: Vec<String> = Vec::new();
        wait_for(|| {
            let time = told(&file)?;
            if times.last() != Some(&time) {
                times.push(time);
            }
            (times.len() == 3).then_some(())
        });
        run.tell(signal);
        let (status, took) = run.ends();
        assert_eq!(status.code(), Some(0), "{signal:?}");
        assert!(took < Duration::from_millis(900), "{signal:?}: {took:?}");
        assert_eq!(names(directory.path()), [file], "{signal:?}");
    }
}

#[apply(test)]
fn an_end_needs_no_patience() {
    let host = Host::empty();
    let mut run = Repeated::start(&host, &["report", "--every", "1w"]);
    let mut lines = BufReader::new(run.0.stdout.take().expect("a pipe")).lines();
    let is_end = |line: String| {
        let row: Value = serde_json::from_str(&line).expect("a row");
        text(&row, "record") == "end"
    };
    let end = lines.find_map(|line| is_end(line.expect("UTF-8")).then_some(()));
    assert!(end.is_some(), "a report comes at once");
    run.tell(Signal::TERM);
    let (status, took) = run.ends();
    assert_eq!(status.code(), Some(0));
    assert!(took < Duration::from_secs(10), "{took:?}");
}

/// Who stops the program and lets it go on breaks its wait off, and asks for nothing.
#[apply(test)]
fn a_wait_that_is_broken_off_goes_on() {
    let host = Host::empty();
    let mut run = Repeated::start(&host, &["report", "--every", "1w"]);
    let lines = BufReader::new(run.0.stdout.take().expect("a pipe")).lines();
    let mut ends = lines.filter(|line| {
        let row: Value = serde_json::from_str(line.as_ref().expect("UTF-8")).expect("a row");
        text(&row, "record") == "end"
    });
    assert!(ends.next().is_some(), "a report comes at once");
    for _ in 0..3 {
        thread::sleep(Duration::from_millis(50));
        run.tell(Signal::STOP);
        thread::sleep(Duration::from_millis(50));
        run.tell(Signal::CONT);
    }
    thread::sleep(Duration::from_millis(200));
    run.tell(Signal::TERM);
    assert_eq!(run.ends().0.code(), Some(0));
    assert_eq!(ends.count(), 0, "nobody asked for another report");
}

#[apply(test)]
fn what_appears_and_goes_is_seen() {
    needs::fixtures();
    let host = Host::empty();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("layerctl.prom");
    let output = file.to_str().expect("UTF-8");
    let _run = Repeated::start(&host, &["metrics", "--every", "1s", "-o", output]);
    let docker = |numbers: &str| numbers.contains("layerctl_containers{engine=\"docker\"");
    let numbers = || fs::read_to_string(&file).ok();
    wait_for(|| numbers().filter(|numbers| !docker(numbers)));
    copy_tree(&Host::fixture("blog-host").root, &host.root);
    wait_for(|| numbers().filter(|numbers| docker(numbers)));
    fs::remove_dir_all(host.at("/var")).expect("our own");
    wait_for(|| numbers().filter(|numbers| !docker(numbers)));
}

/// What is asked wrongly stays so; whoever started it is told at once.
#[apply(test)]
fn wrong_words_end_it() {
    let host = Host::empty();
    for words in [
        &["metrics", "--every", "1s", "-o", "/nowhere/at/all/file"][..],
        &["report", "--every", "1s", "--since", "/nowhere"],
        &["report", "--every", "0s"],
        &["report", "--every", "10"],
        &["containers", "--every", "10s"],
    ] {
        let mut run = Repeated::start(&host, words);
        assert_eq!(run.ends().0.code(), Some(2), "{words:?}");
    }
}

/// What is being written when the end is asked for is given up.
#[apply(test)]
fn an_end_in_a_round_leaves_nothing() {
    needs::time();
    needs::captured_hosts();
    let host = Host::captured("docker-28-overlay2");
    let mut given_up = 0;
    for _ in 0..20 {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let file = directory.path().join("report.jsonl");
        let output = file.to_str().expect("UTF-8");
        let words = ["report", "--changes", "--every", "1h", "-o", output];
        let mut run = Repeated::start(&host, &words);
        wait_for(|| (!names(directory.path()).is_empty()).then_some(()));
        run.tell(Signal::TERM);
        assert_eq!(run.ends().0.code(), Some(0));
        let left = names(directory.path());
        if left.is_empty() {
            given_up += 1;
            continue;
        }
        assert_eq!(left, [&*file]);
        let report = fs::read_to_string(file).expect("UTF-8");
        let last = report.lines().last().expect("lines");
        assert!(last.contains("\"record\":\"end\""), "{last}");
    }
    assert!(given_up > 0, "no round was met while it was written");
}

#[apply(test)]
fn it_ends_when_nobody_reads_on() {
    let host = Host::empty();
    let mut run = Repeated::start(&host, &["report", "--every", "1s"]);
    drop(run.0.stdout.take());
    assert_eq!(run.ends().0.code(), Some(0));
}
