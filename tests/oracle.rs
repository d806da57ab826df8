//! A real AUFS kernel's answers: all of them to the functions that decide, and a sample through
//! the command line.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use layerctl::internals::bytes::Bytes;
use layerctl::internals::difference::{Criterion, Difference, differences};
use layerctl::internals::error::{Result, errno_name};
use layerctl::internals::union::{Entry, Follow, Node, Reading, lookup};
use serde_json::Value;

use crate::lab::all_right;
use crate::lab::needs;
use crate::lab::oracle::{
    Answer, LookupCase, Made, Meta, OperationsCase, child, decode, kind_word, parent, read,
};
use crate::lab::run::{Output, bytes, layerctl, text};

/// Every so many stacks one goes through the command line.
const SAMPLE: usize = 50;

// ---- what a name means ----

#[apply(test)]
fn every_path_of_every_stack_means_what_the_kernel_said() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let cases = read::<LookupCase>("aufs-lookup.ndjson.zst");
    assert_eq!(cases.len(), 2500);
    all_right(&cases, |case| {
        let made = Made::lookup(home.path().join(case.id.to_string()), case);
        let stack = made.stack();
        let mut wrong = Vec::new();
        let root = stack.whole(Reading::Nothing);
        for (path, follow, kernel) in answers(case) {
            let ours = match lookup(&root, &decode(path), follow) {
                Ok(found) => answer(&found.entry),
                Err(error) => Answer::Errno(error.to_string()),
            };
            if ours != kernel {
                wrong.push(format!(
                    "stack {} {follow:?} {path:?}: {ours:?}, kernel {kernel:?}",
                    case.id
                ));
            }
        }
        // The view does not depend on which directories are read whole.
        for reading in [Reading::Everything, Reading::Branch(0)] {
            let mut walked = Walked::default();
            walked.walk(&stack.whole(reading), b"");
            wrong.extend(
                walked
                    .compare(case)
                    .iter()
                    .map(|what| format!("stack {} {reading:?} {what}", case.id)),
            );
        }
        wrong
    });
}

/// All that the kernel was asked of a stack, and what it said.
fn answers(case: &LookupCase) -> impl Iterator<Item = (&str, Follow, Answer)> {
    let view = case
        .view
        .iter()
        .map(|(path, (kind, branch))| (path, Answer::Found(kind.clone(), *branch)));
    let errors = case
        .errors
        .iter()
        .map(|(path, errno)| (path, Answer::Errno(errno.clone())));
    let follow = case
        .follow
        .iter()
        .map(|(path, answer)| (path.as_str(), Follow::All, in_words(answer.clone())));
    view.chain(errors)
        .map(|(path, answer)| (path.as_str(), Follow::NotLast, in_words(answer)))
        .chain(follow)
}

/// An answer with the type as the tool names it.
fn in_words(answer: Answer) -> Answer {
    match answer {
        Answer::Found(kind, branch) => Answer::Found(kind_word(&kind).into(), branch),
        refused @ Answer::Errno(_) => refused,
    }
}

fn answer(entry: &Entry<'_>) -> Answer {
    match (entry, entry.kind(), entry.provider()) {
        (Entry::Broken { errno, .. }, ..) => Answer::Errno(errno_name(*errno).into()),
        (_, Some(kind), Some(branch)) => Answer::Found(kind.word().into(), branch),
        _ => Answer::Errno("ENOENT".into()),
    }
}

/// The merged view as `ls -R` walks it.
#[derive(Default)]
struct Walked {
    view: BTreeMap<Vec<u8>, Answer>,
    /// Directory by directory what `readdir` would list.
    list: BTreeMap<Vec<u8>, BTreeSet<Vec<u8>>>,
}

impl Walked {
    fn walk(&mut self, node: &Node<'_>, path: &[u8]) {
        for name in node.names().expect("our own directories").to_vec() {
            let at = if path.is_empty() {
                name.clone()
            } else {
                [path, b"/", &name].concat()
            };
            if node.readdir_lists(&name).expect("our own directories") {
                self.list
                    .entry(path.to_vec())
                    .or_default()
                    .insert(name.clone());
            }
            let entry = node.child(&name).expect("our own directories");
            if let Entry::Dir(below) = &entry {
                self.walk(below, &at);
            }
            self.view.insert(at, answer(&entry));
        }
    }

    fn compare(&self, case: &LookupCase) -> Vec<String> {
        let mut wrong = Vec::new();
        for (path, (kind, branch)) in case.view.iter().filter(|(path, _)| !path.is_empty()) {
            let ours = self.view.get(&decode(path));
            if ours != Some(&Answer::Found(kind_word(kind).into(), *branch)) {
                wrong.push(format!("{path:?}: {ours:?}, kernel {kind} {branch}"));
            }
        }
        let shown = self
            .view
            .values()
            .filter(|answer| matches!(answer, Answer::Found(..)))
            .count();
        if shown != case.view.len() - 1 {
            wrong.push(format!(
                "{shown} names shown, kernel {}",
                case.view.len() - 1
            ));
        }
        for (directory, names) in &case.list {
            let undecided = names_beside_their_whiteout(case, directory);
            let decided = |name: &Vec<u8>| !undecided.contains(name);
            let kernel: BTreeSet<Vec<u8>> = names
                .iter()
                .map(|name| decode(name))
                .filter(decided)
                .collect();
            let ours = self
                .list
                .get(&decode(directory))
                .cloned()
                .unwrap_or_default();
            let ours: BTreeSet<Vec<u8>> = ours.into_iter().filter(decided).collect();
            if ours != kernel {
                wrong.push(format!(
                    "readdir {directory:?}: {ours:?}, kernel {kernel:?}"
                ));
            }
        }
        wrong
    }
}

/// The names of a directory that some branch has beside their whiteout. Whether `readdir` lists
/// them depends on which of the two comes first on disk (FACTS-aufs 1.14), on the kernel's disk.
pub fn names_beside_their_whiteout(case: &LookupCase, directory: &str) -> BTreeSet<Vec<u8>> {
    let mut names = BTreeSet::new();
    for branch in case.branches.iter().filter(|_| case.dirty) {
        let entries: BTreeSet<&str> = branch
            .entries
            .iter()
            .map(|entry| entry[1].as_str())
            .collect();
        for path in entries.iter().filter(|path| parent(path) == directory) {
            let name = path.rsplit('/').next().unwrap_or(path);
            if entries.contains(child(directory, &format!(".wh.{name}")).as_str()) {
                names.insert(decode(name));
            }
        }
    }
    names
}

#[apply(test)]
fn the_command_line_answers_as_the_kernel_did() {
    needs::time();
    let home = tempfile::tempdir().expect("a temporary directory");
    let cases: Vec<LookupCase> = read("aufs-lookup.ndjson.zst")
        .into_iter()
        .step_by(SAMPLE)
        .collect();
    all_right(&cases, |case| {
        let made = Made::lookup(home.path().join(case.id.to_string()), case);
        let mut wrong = Vec::new();

        let listed = layerctl(["--format", "jsonl", "ls", "-R", "--in", &made.spelled]).rows();
        let ours: BTreeMap<Vec<u8>, Answer> = listed
            .iter()
            .map(|row| (bytes(&row["path"]), answered(row)))
            .filter(|(_, ours)| is_found(ours))
            .collect();
        let kernel: BTreeMap<Vec<u8>, Answer> = case
            .view
            .iter()
            .filter(|(path, _)| !path.is_empty())
            .map(|(path, (kind, branch))| {
                (
                    absolute(path),
                    Answer::Found(kind_word(kind).into(), *branch),
                )
            })
            .collect();
        if ours != kernel {
            wrong.push(format!(
                "stack {}: ls -R {ours:?}, kernel {kernel:?}",
                case.id
            ));
        }

        // What is refused is said, and has no copy.
        let copy = home.path().join(format!("copy{}", case.id));
        let words = ["cp", "-a", "--in", &made.spelled, "--", "/"].map(OsString::from);
        let output = layerctl(words.into_iter().chain([copy.clone().into()]));
        let copied: BTreeMap<Vec<u8>, &str> = walkdir::WalkDir::new(&copy)
            .min_depth(1)
            .into_iter()
            .map(|entry| {
                let entry = entry.expect("our own");
                let path = entry.path().strip_prefix(&copy).expect("below it");
                let path = [b"/", path.as_os_str().as_bytes()].concat();
                (path, kind_of(entry.file_type()))
            })
            .collect();
        let shown: BTreeMap<Vec<u8>, &str> = kernel
            .iter()
            .filter_map(|(path, answer)| match answer {
                Answer::Found(kind, _) => Some((path.clone(), &kind[..])),
                Answer::Errno(_) => None,
            })
            .collect();
        if copied != shown || !matches!(output.status, Some(0 | 2)) {
            wrong.push(format!(
                "stack {}: cp {copied:?}, kernel {shown:?}: {}",
                case.id, output.stderr
            ));
        }

        for (follow, option) in [(Follow::NotLast, Some("--no-follow")), (Follow::All, None)] {
            let asked: Vec<(&str, Answer)> = answers(case)
                .filter(|asked| asked.1 == follow)
                .map(|(path, _, kernel)| (path, kernel))
                .collect();
            if asked.is_empty() {
                continue;
            }
            let rows = which(&made.spelled, option, asked.iter().map(|(path, _)| *path)).rows();
            assert_eq!(rows.len(), asked.len(), "one row a path");
            for ((path, kernel), row) in asked.iter().zip(&rows) {
                let ours = answered(row);
                if bytes(&row["query"]) != typed(path) || ours != *kernel {
                    wrong.push(format!(
                        "stack {} which {follow:?} {path:?}: {ours:?}, kernel {kernel:?}",
                        case.id
                    ));
                }
            }
        }
        wrong
    });
}

fn kind_of(kind: std::fs::FileType) -> &'static str {
    use std::os::unix::fs::FileTypeExt;
    match kind {
        of if of.is_dir() => "directory",
        of if of.is_symlink() => "symlink",
        of if of.is_fifo() => "fifo",
        of if of.is_char_device() => "char",
        of if of.is_socket() => "socket",
        _ => "file",
    }
}

fn which<'a>(spelled: &str, option: Option<&str>, paths: impl Iterator<Item = &'a str>) -> Output {
    let words = ["--format", "jsonl", "which", "--in", spelled]
        .into_iter()
        .chain(option)
        .chain(["--"]);
    layerctl(
        words
            .map(OsString::from)
            .chain(paths.map(|path| OsString::from_vec(typed(path)))),
    )
}

/// How a person types a path of the oracle. Its root has no name there.
fn typed(path: &str) -> Vec<u8> {
    if path.is_empty() {
        b"/".to_vec()
    } else {
        decode(path)
    }
}

fn absolute(path: &str) -> Vec<u8> {
    [b"/", &decode(path)[..]].concat()
}

fn is_found(answer: &Answer) -> bool {
    matches!(answer, Answer::Found(..))
}

/// A row of `ls` or `which`.
fn answered(row: &Value) -> Answer {
    match (row["type"].as_str(), row["branch"].as_u64()) {
        (Some(kind), Some(branch)) => Answer::Found(
            kind.into(),
            usize::try_from(branch).expect("a small number"),
        ),
        _ => Answer::Errno(text(row, "error").into()),
    }
}

// ---- what has changed ----

/// A change: its word, and the version before with its branch and type.
type Change = (&'static str, Option<(usize, &'static str)>);

/// The one right answer of `changes`, from the views before and after and the writable branch.
fn true_changes(case: &OperationsCase) -> BTreeMap<Vec<u8>, Change> {
    let is_directory = |view: &BTreeMap<String, Meta>, path: &str| {
        path.is_empty() || view.get(path).is_some_and(|meta| meta.kind == "d")
    };
    let mut changes = BTreeMap::new();
    for path in case
        .after
        .keys()
        .filter(|path| !case.before.contains_key(*path))
    {
        changes.insert(absolute(path), ("added", None));
    }
    for (path, meta) in &case.before {
        let origin = Some((meta.uid - 1000, kind_word(&meta.kind)));
        let parent = parent(path);
        if case.after.contains_key(path) {
            if case.writable.contains_key(path) {
                changes.insert(absolute(path), ("changed", origin));
            }
        } else if is_directory(&case.before, parent) && is_directory(&case.after, parent) {
            // Of what vanished together only the topmost.
            changes.insert(absolute(path), ("deleted", origin));
        }
    }
    changes
}

#[apply(test)]
fn every_history_changed_what_the_kernel_showed() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let cases = read::<OperationsCase>("aufs-operations.ndjson.zst");
    assert_eq!(cases.len(), 600);
    all_right(&cases, |case| {
        let made = Made::operations(home.path().join(case.id.to_string()), case);
        let stack = made.stack();
        let mut ours = BTreeMap::new();
        let row = |found: Result<Difference<'_, '_>>, rows: &mut Vec<_>| {
            let difference = found.expect("our own directories");
            let word = match difference.change.letter() {
                'A' => "added",
                'C' => "changed",
                _ => "deleted",
            };
            let before = difference
                .before
                .map(|before| (before.branch, before.kind.word()));
            let path = difference.path();
            rows.push((path.as_bytes().to_vec(), (word, before)));
        };
        let _ = differences(
            &stack,
            0,
            (Criterion::of_union(&stack), &Bytes::from("/")),
            NonZeroUsize::MIN,
            &row,
            |rows| {
                ours.extend(rows);
                ControlFlow::Continue(())
            },
        );
        let kernel = true_changes(case);
        if ours == kernel {
            Vec::new()
        } else {
            vec![format!(
                "history {}: {ours:?}\n  kernel {kernel:?}",
                case.id
            )]
        }
    });
}

#[apply(test)]
fn changes_on_the_command_line_are_what_the_kernel_showed() {
    let home = tempfile::tempdir().expect("a temporary directory");
    let cases: Vec<OperationsCase> = read("aufs-operations.ndjson.zst")
        .into_iter()
        .step_by(SAMPLE)
        .collect();
    all_right(&cases, |case| {
        let made = Made::operations(home.path().join(case.id.to_string()), case);
        let rows = layerctl(["--format", "jsonl", "changes", &made.spelled])
            .exits(0)
            .rows();
        let ours: BTreeMap<Vec<u8>, (&str, Option<u64>)> = rows
            .iter()
            .map(|row| {
                (
                    bytes(&row["path"]),
                    (text(row, "change"), row["origin"]["branch"].as_u64()),
                )
            })
            .collect();
        let kernel: BTreeMap<Vec<u8>, (&str, Option<u64>)> = true_changes(case)
            .into_iter()
            .map(|(path, (word, before))| (path, (word, before.map(|(branch, _)| branch as u64))))
            .collect();
        if ours == kernel {
            Vec::new()
        } else {
            vec![format!(
                "history {}: {ours:?}\n  kernel {kernel:?}",
                case.id
            )]
        }
    });
}
