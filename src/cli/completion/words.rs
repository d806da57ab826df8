//! The words that a command line can go on with.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use clap::builder::StyledStr;
use clap::{CommandFactory, FromArgMatches};
use clap_complete::engine::{CompletionCandidate, PathCompleter, ValueCompleter};

use crate::bytes::{self, Bytes, needs_escape};
use crate::cli::Cli;
use crate::cli::globals::{Global, base};
use crate::command::HELPS;
use crate::dir::Kind;
use crate::engine::{ENGINES, Survey};
use crate::host::Host;
use crate::target;
use crate::union::{Entry, Follow, Node, Reading, lookup};

/// More names than that nobody reads.
const MOST: usize = 2000;

/// Whether nothing in it moves a cursor or hides.
fn is_plain(word: &str) -> bool {
    !word.chars().any(needs_escape)
}

/// The verbs that have a page and a schema.
pub fn verbs(current: &OsStr) -> Vec<CompletionCandidate> {
    let typed = current.to_string_lossy();
    let verbs = HELPS.iter().map(|(verb, _)| *verb);
    verbs
        .filter(|verb| verb.starts_with(&*typed))
        .map(CompletionCandidate::new)
        .collect()
}

/// What a TARGET can be.
pub fn targets(current: &OsStr) -> Vec<CompletionCandidate> {
    let Some(typed) = current.to_str() else {
        return Vec::new();
    };
    on_host(|survey| {
        let begun = target::names(survey).into_iter().filter_map(|of| {
            // With the engine before it, where that was begun.
            let mut names = of.names.into_iter();
            let name = names.find(|name| name.starts_with(typed))?;
            Some((name, of.what))
        });
        begun.collect()
    })
}

/// A TARGET, and behind its colon what the union has.
pub fn paths(current: &OsStr) -> Vec<CompletionCandidate> {
    let Some(typed) = current.to_str() else {
        return Vec::new();
    };
    let (name, path) = target::split(typed.as_bytes());
    let Some(path) = path else {
        if let Some(within) = within() {
            return paths_of(within.as_bytes(), typed, "");
        }
        let names = targets(current);
        return match typed.strip_suffix(':') {
            // A name that is whole: what follows is a path of it.
            Some(whole) if names.iter().all(|of| of.get_value() == current) => {
                paths_of(whole.as_bytes(), "/", typed)
            }
            _ => names,
        };
    };
    let before = &typed[..=name.len()];
    paths_of(name, &String::from_utf8_lossy(path), before)
}

/// The same, and files of the host: a destination is one.
pub fn paths_and_files(current: &OsStr) -> Vec<CompletionCandidate> {
    let mut words = paths(current);
    if matches!(current.as_bytes().first(), Some(b'/' | b'.' | b'~')) {
        words.extend(PathCompleter::any().complete(current));
    }
    words
}

/// Whether a name goes on from what was begun. Hidden names are offered to whoever begins one.
fn is_offered(name: &str, begun: &str) -> bool {
    name.starts_with(begun) && !(name.starts_with('.') && begun.is_empty())
}

/// Paths of the host, be it a copy that `--root` names.
pub fn host_paths(current: &OsStr) -> Vec<CompletionCandidate> {
    let Some(typed) = current.to_str() else {
        return Vec::new();
    };
    // Without a slash it is a hash, or the number of a process.
    let Some(at) = typed.rfind('/') else {
        return Vec::new();
    };
    let (directory, begun) = typed.split_at(at + 1);
    on_host(|survey| {
        let base = base(survey.host);
        let at = target::typed_path(survey, directory.as_bytes(), &base);
        let mut words = Vec::new();
        for (name, kind) in survey.host.list(&at).unwrap_or_default() {
            let Ok(text) = std::str::from_utf8(&name) else {
                continue;
            };
            if !is_offered(text, begun) {
                continue;
            }
            // A link leads where the host has it.
            let is_directory = match kind {
                Kind::Symlink => {
                    let stat = survey.host.stat(&at.join(&name)).ok().flatten();
                    stat.is_some_and(|stat| stat.kind == Kind::Directory)
                }
                kind => kind == Kind::Directory,
            };
            let end = if is_directory { "/" } else { "" };
            words.push((format!("{directory}{text}{end}"), String::new()));
            if words.len() == MOST {
                break;
            }
        }
        words
    })
}

/// The paths of a union that begin with what was typed, with what stands before it.
fn paths_of(name: &[u8], typed: &str, before: &str) -> Vec<CompletionCandidate> {
    let (directory, begun) = match typed.rfind('/') {
        Some(at) => typed.split_at(at + 1),
        None => ("", typed),
    };
    on_host(|survey| {
        let base = base(survey.host);
        let Ok(target) = target::find(survey, name, &base) else {
            return Vec::new();
        };
        let stack = target.union.open(survey);
        let at = target.path(&Bytes::absolute(bytes::components(directory.as_bytes())));
        let mut words = listed(&stack.whole(Reading::Nothing), &at, begun);
        if let Some(branch) = target.subject().filter(|_| wants_deleted()) {
            words.extend(listed(&stack.without(branch), &at, begun));
        }
        let words = words.into_iter().take(MOST);
        words
            .map(|name| (format!("{before}{directory}{name}"), String::new()))
            .collect()
    })
}

/// The names in a directory of a view that begin so; those of directories with a slash behind them.
fn listed(root: &Node<'_>, at: &Bytes, begun: &str) -> BTreeSet<String> {
    let mut words = BTreeSet::new();
    let found = lookup(root, at.as_bytes(), Follow::All);
    let Ok(Entry::Dir(node)) = found.map(|found| found.entry) else {
        return words;
    };
    let Ok(names) = node.names() else {
        return words;
    };
    for entry in names.iter() {
        let Ok(name) = std::str::from_utf8(entry.name) else {
            continue;
        };
        if !is_offered(name, begun) {
            continue;
        }
        match node.child(entry.name) {
            Ok(Entry::Dir(_)) => words.insert(format!("{name}/")),
            Ok(Entry::Leaf { .. }) => words.insert(name.to_owned()),
            Ok(_) | Err(_) => continue,
        };
        if words.len() == MOST {
            break;
        }
    }
    words
}

/// Whether what was deleted is a word as well: what is to be brought back, or looked at.
fn wants_deleted() -> bool {
    let is_it = |word: OsString| word == "restore" || word == "undelete" || word == "--hidden";
    typed().any(is_it)
}

/// What is found on the host that the command line names.
fn on_host(
    find: impl FnOnce(&mut Survey<'_>) -> Vec<(String, String)>,
) -> Vec<CompletionCandidate> {
    let Some(global) = globals() else {
        return Vec::new();
    };
    let Ok(host) = Host::open(&global.root) else {
        return Vec::new();
    };
    let mut survey = Survey::new(&host, ENGINES, global.roots(&host));
    let found = find(&mut survey).into_iter();
    // A shell's line has no place for what moves a cursor.
    let plain = found.filter(|(word, _)| is_plain(word));
    let words = plain.map(|(word, what)| {
        let help = (!what.is_empty()).then(|| StyledStr::from(what));
        CompletionCandidate::new(word).help(help)
    });
    words.collect()
}

/// The words of a command line that need not be whole.
fn typed() -> impl Iterator<Item = OsString> {
    let all = std::env::args_os().skip_while(|argument| argument != "--");
    all.skip(1)
}

/// The options for every verb.
fn globals() -> Option<Global> {
    let command = Cli::command().ignore_errors(true);
    let matches = command.try_get_matches_from(typed()).ok()?;
    Global::from_arg_matches(&matches).ok()
}

/// The union of which all paths are.
fn within() -> Option<OsString> {
    let mut words = typed();
    let mut within = None;
    while let Some(word) = words.next() {
        if word == "--in" {
            within = words.next();
        } else if let Some(name) = word.as_bytes().strip_prefix(b"--in=") {
            within = Some(OsStr::from_bytes(name).to_owned());
        }
    }
    within
}
