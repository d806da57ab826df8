//! The binary, run as a person or a script runs it, in an environment of its own.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::Value;

/// `layerctl` with nothing of the environment that the tests run in.
pub fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_layerctl"));
    command.env_clear().env("TZ", "UTC").stdin(Stdio::null());
    command
}

/// A copy of a program that everybody can reach. Another process makes it: what one of our own
/// threads starts meanwhile would have the copy open for writing, and such a file is not run.
pub fn copy_program(from: impl AsRef<OsStr>, to: impl AsRef<OsStr>) {
    let mut command = Command::new("cp");
    let status = command.arg("--").arg(from).arg(to).status();
    assert!(status.expect("cp is there").success(), "{command:?}");
}

/// Runs it with `arguments`.
pub fn layerctl(arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Output {
    run(command().args(arguments))
}

pub fn run(command: &mut Command) -> Output {
    let output = command.output().expect("layerctl was built");
    Output {
        said: format!("{command:?}"),
        status: output.status.code(),
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// What a run left.
pub struct Output {
    said: String,
    pub status: Option<i32>,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Output {
    /// Demands an exit status. Only "could not tell" may, and must, come with words on stderr; that
    /// there is no engine, or what lies over the layers, is a note beside an answer.
    #[track_caller]
    pub fn exits(self, status: i32) -> Output {
        assert_eq!(
            self.status,
            Some(status),
            "{}\nstdout: {}\nstderr: {}",
            self.said,
            String::from_utf8_lossy(&self.stdout),
            self.stderr
        );
        let is_of_engines = self.stderr.starts_with("layerctl: no engine was found")
            && self.stderr.lines().count() == 2;
        let mut lines = self.stderr.lines();
        let is_of_covers = lines.all(|line| line.ends_with("; layers do not show it"));
        assert_eq!(
            status != 2,
            is_of_engines || is_of_covers,
            "{}\nstderr: {}",
            self.said,
            self.stderr
        );
        self
    }

    /// Demands words on stderr.
    #[track_caller]
    pub fn says(self, words: &str) -> Output {
        assert!(
            self.stderr.contains(words),
            "{}\nlacks {words:?}: {}",
            self.said,
            self.stderr
        );
        self
    }

    #[track_caller]
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout)
            .unwrap_or_else(|_| panic!("{}\nstdout is not UTF-8", self.said))
    }

    /// The objects of `--format jsonl`.
    #[track_caller]
    pub fn rows(&self) -> Vec<Value> {
        self.text()
            .lines()
            .map(|line| {
                serde_json::from_str(line)
                    .unwrap_or_else(|error| panic!("{}\n{error}: {line}", self.said))
            })
            .collect()
    }

    /// The only object of `--format jsonl`.
    #[track_caller]
    pub fn row(&self) -> Value {
        let rows = self.rows();
        assert_eq!(rows.len(), 1, "{}\nstdout: {}", self.said, self.text());
        rows.into_iter().next().expect("there is one")
    }
}

/// Arguments with a root and a machine format before them.
pub fn jsonl(root: &Path, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Vec<OsString> {
    let mut all: Vec<OsString> = vec![
        "--root".into(),
        root.into(),
        "--format".into(),
        "jsonl".into(),
    ];
    all.extend(
        arguments
            .into_iter()
            .map(|argument| argument.as_ref().to_owned()),
    );
    all
}

/// The bytes of a path as JSON has it: a string, or `{"bytes": BASE64}`.
#[track_caller]
pub fn bytes(path: &Value) -> Vec<u8> {
    match path {
        Value::String(text) => text.clone().into_bytes(),
        Value::Object(map) if map.len() == 1 && map.contains_key("bytes") => {
            let encoded = map["bytes"].as_str().unwrap_or_default();
            let bytes = BASE64
                .decode(encoded)
                .unwrap_or_else(|error| panic!("{encoded}: {error}"));
            assert!(
                std::str::from_utf8(&bytes).is_err(),
                "{bytes:?} is UTF-8 and should be a string"
            );
            bytes
        }
        other => panic!("{other} is no path"),
    }
}

/// The seconds since 1970 of a time as answers have it.
pub fn seconds(time: &Value) -> Option<i64> {
    let time = time.as_str()?;
    match time.strip_prefix('@') {
        Some(number) => number.parse().ok(),
        None => {
            let time: jiff::Timestamp = time.parse().ok()?;
            i64::try_from(time.as_nanosecond().div_euclid(1_000_000_000)).ok()
        }
    }
}

/// A field that has to be text.
#[track_caller]
pub fn text<'a>(row: &'a Value, field: &str) -> &'a str {
    row[field]
        .as_str()
        .unwrap_or_else(|| panic!("no text {field:?} in {row}"))
}

/// One field of every row, as text.
#[track_caller]
pub fn texts<'a>(rows: &'a [Value], field: &str) -> Vec<&'a str> {
    rows.iter().map(|row| text(row, field)).collect()
}
