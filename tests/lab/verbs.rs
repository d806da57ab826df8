//! What there is to ask, as the program's own help lists it: a new verb is in every test of all of
//! them, or those tests fail until it is.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::sync::LazyLock;

use super::run::layerctl;

/// What somebody types, word by word.
pub type Words = Vec<OsString>;

pub fn words<T: AsRef<OsStr>>(words: impl IntoIterator<Item = T>) -> Words {
    words
        .into_iter()
        .map(|word| word.as_ref().to_owned())
        .collect()
}

/// Every verb that answers about a host, in the order of the help.
pub fn verbs() -> &'static [String] {
    static VERBS: LazyLock<Vec<String>> = LazyLock::new(|| {
        let help = layerctl(["--help"]).exits(0);
        let (_, listed) = help.text().split_once("\nUsage: ").expect("a usage");
        let (listed, _) = listed
            .split_once("\nThe program itself:\n")
            .expect("a list");
        let lines = listed.lines();
        let verbs = lines.filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
        let verbs = verbs.filter(|verb| !verb.is_empty());
        verbs.map(str::to_owned).collect()
    });
    assert!(VERBS.len() > 10, "{:?}", *VERBS);
    &VERBS
}

/// Demands that everything is asked that there is to ask.
#[track_caller]
pub fn assert_every_verb<'a>(asked: impl IntoIterator<Item = &'a OsStr>) {
    let verbs: BTreeSet<&OsStr> = verbs().iter().map(OsStr::new).collect();
    let asked: BTreeSet<&OsStr> = asked.into_iter().filter(|of| verbs.contains(of)).collect();
    assert_eq!(asked, verbs, "every verb is asked");
}

/// Whether what is asked so is refused: an export over what is there, an end of what is not mounted.
pub fn is_refused(asked: &Words) -> bool {
    ["export", "umount"].iter().any(|verb| asked[0] == *verb)
}

/// Every verb, asked of one union, one path in it and one directory of the host, so that it reads only.
pub fn reading(target: &OsStr, path: &OsStr, directory: &OsStr) -> Vec<Words> {
    let plain: [&[&str]; 9] = [
        &["branches"],
        &["containers"],
        &["images", "--all"],
        &["check"],
        &["info"],
        &["orphans"],
        &["du"],
        &["report", "--changes"],
        &["metrics"],
    ];
    let of_target: [&[&str]; 12] = [
        &["branches", "--"],
        &["ls", "-R", "-l", "--in"],
        &["-v", "ls", "-R", "--in"],
        &["whiteouts", "--all-layers", "--"],
        &["copyups", "--"],
        &["changes", "--"],
        &["changes", "--long", "--"],
        &["diff", "--patch", "--"],
        &["find", "--state", "all"],
        &["-v", "history", "--"],
        &["check", "--"],
        &["du", "--"],
    ];
    let mut all: Vec<Words> = plain.into_iter().map(words).collect();
    for of_target in of_target {
        let mut asked = words(of_target);
        asked.push(target.to_owned());
        if of_target.contains(&"--in") {
            asked.extend(words(["--", "/"]));
        }
        all.push(asked);
    }
    for verb in [
        &["which"][..],
        &["restore", "--dry-run"],
        &["cat"],
        &["cp", "--dry-run"],
    ] {
        let mut asked = words(verb);
        asked.extend(words(["--in".as_ref(), target, "--".as_ref(), path]));
        if verb[0] == "cp" {
            asked.push("copy".into());
        }
        all.push(asked);
    }
    all.push(words(["whois".as_ref(), "--".as_ref(), directory]));
    // Nothing is written over what is there; what a mount would be is told; what is no mount stays.
    let there = "/proc/self/cmdline";
    let export = ["export".as_ref(), "-o".as_ref(), there.as_ref()];
    all.push(words([&export[..], &["--".as_ref(), target]].concat()));
    all.push(words([
        "verify".as_ref(),
        "--fast".as_ref(),
        "--".as_ref(),
        target,
    ]));
    let print = ["mount".as_ref(), "--print".as_ref(), "--".as_ref()];
    // A place of this machine, whatever host is looked at, that no store of the tests' lies in.
    all.push(words([&print[..], &[target, "/usr".as_ref()]].concat()));
    all.push(words(["umount".as_ref(), "--".as_ref(), directory]));
    assert_every_verb(all.iter().flatten().map(OsString::as_os_str));
    all
}
