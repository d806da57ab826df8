//! The machine formats are a promise: every verb publishes a schema, what is printed keeps it,
//! and the four formats that scripts are told of have the keys that they are told.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::lab::host::Host;
use crate::lab::needs;
use crate::lab::run::{self, layerctl, text};
use crate::lab::verbs::verbs;

fn schema(verb: &str) -> Value {
    serde_json::from_slice(&layerctl(["schema", verb]).exits(0).stdout).expect("a JSON document")
}

/// A host where every field of every verb has something to say.
fn rich_host() -> Host {
    let host = Host::copy_of("blog-host");
    let writable = host.branches_of("determined_sammet").remove(0);
    let writable = String::from_utf8(writable).expect("an id");
    host.file(format!("{writable}/etc/apt/apt.conf.d/.wh..wh..opq"), "")
        .file(format!("{writable}/etc/.wh.nothing"), "")
        .file(format!("{writable}/etc/.wh.group"), "")
        .file(format!("{writable}/etc/group"), "")
        .file(format!("{writable}/etc/{}", "x".repeat(250)), "")
        .link(format!("{writable}/etc/link"), "apt/sources.list")
        .link(format!("{writable}/etc/loop"), "loop")
        .file("/var/lib/docker/aufs/diff/lost/file", "");
    host
}

/// What each verb is asked, so that its answers differ as much as they can.
const ASKED: [(&str, &[&[&str]]); 22] = [
    (
        "branches",
        &[
            &["branches"],
            &["branches", "training/webapp"],
            &["branches", "br:/etc"],
        ],
    ),
    (
        "which",
        &[
            &[
                "which",
                "/etc/apt/sources.list",
                "/etc/link",
                "/etc/loop",
                "/etc/group",
                "/etc/nothing",
                "/no",
                "/etc/passwd/x",
                "/.wh.x",
            ],
            &["which", "--in", "old_shell", "/etc/shadow", "/", "/etc"],
        ],
    ),
    (
        "ls",
        &[
            &["ls", "-R", "determined_sammet"],
            &["-v", "ls", "-R", "-l", "determined_sammet"],
            &["ls", "br:/etc"],
        ],
    ),
    (
        "whiteouts",
        &[
            &["whiteouts", "--all-layers"],
            &["whiteouts", "determined_sammet"],
        ],
    ),
    ("copyups", &[&["copyups"], &["copyups", "old_shell"]]),
    (
        "changes",
        &[
            &["changes"],
            &["changes", "--long", "determined_sammet"],
            &["changes", "old_shell"],
        ],
    ),
    (
        "diff",
        &[
            &["diff", "determined_sammet"],
            &["diff", "--long", "training/webapp", "determined_sammet"],
            &[
                "diff",
                "-p",
                "determined_sammet@14:/etc",
                "determined_sammet:/etc",
            ],
            &["diff", "--stat", "training/webapp", "busybox"],
        ],
    ),
    (
        "find",
        &[
            &["find", "--state", "all", "sources.list"],
            &["find", "determined_sammet", "-t", "l"],
        ],
    ),
    (
        "cat",
        &[&["cat", "determined_sammet@2:/etc/apt/sources.list"]],
    ),
    (
        "cp",
        &[
            &["cp", "--dry-run", "determined_sammet:/etc", "/new"],
            &["cp", "--dry-run", "--all-deleted", "--to", "/new"],
        ],
    ),
    (
        "history",
        &[&["history", "determined_sammet"], &["history", "busybox"]],
    ),
    ("containers", &[&["containers"]]),
    ("images", &[&["images", "--all"]]),
    ("check", &[&["check"], &["check", "determined_sammet"]]),
    ("info", &[&["info"]]),
    ("report", &[&["report", "--changes"], &["report"]]),
    (
        "metrics",
        &[&["metrics"], &["metrics", "--containers", "1"]],
    ),
    (
        "restore",
        &[&[
            "restore",
            "--dry-run",
            "--in",
            "determined_sammet",
            "/usr/local/lib/python2.7/dist-packages/itsdangerous.py",
        ]],
    ),
    (
        "whois",
        &[
            &["whois", "/var/lib/docker/aufs/diff"],
            &["whois", "si_ab487e40195df24f", "/etc"],
        ],
    ),
    ("orphans", &[&["orphans"]]),
    ("du", &[&["du"], &["du", "determined_sammet"]]),
    ("verify", &[&["verify"], &["verify", "--fast", "busybox"]]),
];

/// What mounts, and what writes a file that is named, is asked where that is tried.
const ELSEWHERE: [&str; 3] = ["mount", "umount", "export"];

/// Demands that a row is what its verb's schema says.
#[track_caller]
pub fn assert_promised(verb: &str, row: &Value) {
    assert!(jsonschema::is_valid(&schema(verb), row), "{verb} {row}");
}

#[apply(test)]
fn every_verb_prints_what_its_schema_says() {
    let host = rich_host();
    let asked = ASKED.iter().map(|(verb, _)| *verb);
    let asked: BTreeSet<&str> = asked.chain(ELSEWHERE).collect();
    let all: BTreeSet<&str> = verbs().iter().map(String::as_str).collect();
    assert_eq!(asked, all, "every verb is asked");
    let mut wrong = BTreeSet::new();
    for (verb, asked) in ASKED {
        let schema = schema(verb);
        let validator =
            jsonschema::validator_for(&schema).unwrap_or_else(|error| panic!("{verb}: {error}"));
        for arguments in asked {
            let rows = host.jsonl(*arguments).rows();
            assert!(!rows.is_empty(), "{arguments:?}");
            for row in rows {
                wrong.extend(
                    validator
                        .iter_errors(&row)
                        .map(|error| format!("{arguments:?}: {error}")),
                );
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[apply(test)]
fn one_document_holds_the_same_rows() {
    let host = rich_host();
    for (verb, asked) in ASKED {
        let ask = |format: &str| {
            let mut command = run::command();
            // A report tells its time.
            command.env("SOURCE_DATE_EPOCH", "1795000000");
            command.arg("--root").arg(&host.root);
            run::run(command.args(["--format", format]).args(asked[0]))
        };
        let lines = ask("jsonl").rows();
        let whole = ask("json");
        let whole: Value =
            serde_json::from_slice(&whole.stdout).unwrap_or_else(|error| panic!("{verb}: {error}"));
        match whole {
            Value::Array(rows) => assert_eq!(rows, lines, "{verb}"),
            row => assert_eq!(vec![row], lines, "{verb}"),
        }
    }
}

#[apply(test)]
fn a_schema_refuses_what_is_not_promised() {
    let wrong = [
        ("ls", serde_json::json!({"path": "/x"})),
        (
            "ls",
            serde_json::json!({"path": "/x", "type": "door", "branch": 0}),
        ),
        (
            "which",
            serde_json::json!({"query": "/x", "path": "/x", "state": "gone", "trail": [], "versions": []}),
        ),
        ("changes", serde_json::json!({"path": "/x", "change": "A"})),
        (
            "whiteouts",
            serde_json::json!({"path": "/x", "mark": "/.wh.x", "branch": 0, "hides": null}),
        ),
    ];
    for (verb, row) in wrong {
        assert!(!jsonschema::is_valid(&schema(verb), &row), "{verb} {row}");
    }
}

// ---- the four promised formats ----

fn keys(row: &Value) -> BTreeSet<&str> {
    row.as_object()
        .expect("an object")
        .keys()
        .map(String::as_str)
        .collect()
}

/// A row has all of `always`, and beyond that only some of `sometimes`.
#[track_caller]
fn assert_keys(row: &Value, always: &[&str], sometimes: &[&str]) {
    let (always, sometimes): (BTreeSet<&str>, BTreeSet<&str>) = (
        always.iter().copied().collect(),
        sometimes.iter().copied().collect(),
    );
    let keys = keys(row);
    assert!(
        keys.is_superset(&always),
        "{row} lacks {:?}",
        always.difference(&keys)
    );
    let more: Vec<&str> = keys
        .difference(&always)
        .copied()
        .filter(|key| !sometimes.contains(key))
        .collect();
    assert!(more.is_empty(), "{row} has {more:?}, too");
}

const TYPES: [&str; 7] = [
    "file",
    "directory",
    "symlink",
    "char",
    "block",
    "fifo",
    "socket",
];

#[apply(test)]
fn ls_has_the_promised_keys() {
    let rows = rich_host().jsonl(["ls", "-R", "determined_sammet"]).rows();
    let (refused, shown): (Vec<&Value>, Vec<&Value>) =
        rows.iter().partition(|row| row.get("error").is_some());
    assert!(!refused.is_empty() && !shown.is_empty());
    for row in refused {
        assert_keys(row, &["target", "path", "error"], &["covered_by"]);
    }
    for row in shown {
        let always = ["target", "path", "type", "branch", "layer"];
        // Every container has the engine's own.
        assert_keys(row, &always, &["covered_by"]);
        assert!(TYPES.contains(&text(row, "type")));
        assert!(text(row, "path").starts_with('/'));
    }
    // Outside engines there are no layers.
    for row in rich_host().jsonl(["ls", "br:/etc"]).exits(0).rows() {
        assert_keys(&row, &["target", "path", "type", "branch"], &[]);
    }
}

#[apply(test)]
fn which_has_the_promised_keys() {
    // Beyond the promise: what a person is told, too. Scripts need none of it.
    let besides = ["error", "why", "instruction", "links"];
    let paths = [
        "/etc/apt/sources.list",
        "/etc/link",
        "/etc/nothing",
        "/etc/group",
        "/no",
        "/usr/local/lib/python2.7/dist-packages/itsdangerous.py",
    ];
    let rows = rich_host()
        .jsonl(["which", "--in", "determined_sammet"].iter().chain(&paths))
        .exits(1)
        .rows();
    let always = ["query", "target", "path", "state", "trail", "versions"];
    for row in &rows {
        let state = text(row, "state");
        let more: &[&str] = match state {
            "present" => &["type", "branch", "layer"],
            "deleted" => &["hidden_by"],
            _ => &[],
        };
        assert_keys(row, &[&always[..], more].concat(), &besides);
        for verdict in row["trail"].as_array().expect("a trail") {
            assert_keys(verdict, &["branch", "says"], &[]);
        }
        for version in row["versions"].as_array().expect("versions") {
            assert_keys(
                version,
                &["branch", "type", "size", "layer", "directory"],
                &[],
            );
        }
        if state == "deleted" {
            assert_keys(&row["hidden_by"], &["branch", "mark", "kind"], &[]);
        }
    }
    let states: BTreeSet<&str> = rows.iter().map(|row| text(row, "state")).collect();
    assert_eq!(
        states,
        BTreeSet::from(["present", "deleted", "missing", "broken"])
    );
}

#[apply(test)]
fn changes_have_the_promised_keys() {
    for row in rich_host()
        .jsonl(["changes", "determined_sammet"])
        .exits(0)
        .rows()
    {
        match text(&row, "change") {
            "added" => assert_keys(&row, &["target", "path", "change", "type"], &[]),
            "changed" | "deleted" => {
                assert_keys(&row, &["target", "path", "change", "type", "origin"], &[])
            }
            other => panic!("{other} is no change"),
        }
    }
}

#[apply(test)]
fn whiteouts_have_the_promised_keys() {
    let rows = rich_host()
        .jsonl(["whiteouts", "determined_sammet"])
        .exits(0)
        .rows();
    let kinds: BTreeSet<&str> = rows.iter().map(|row| text(row, "kind")).collect();
    assert_eq!(kinds, BTreeSet::from(["whiteout", "opaque"]));
    for row in &rows {
        assert_keys(
            row,
            &["target", "path", "mark", "kind", "branch", "hides"],
            &[],
        );
    }
    let stale = rows
        .iter()
        .find(|row| row["path"] == "/etc/nothing")
        .expect("a stale one");
    assert_eq!(stale["hides"], Value::Null);
}

#[apply(test)]
fn every_row_says_which_union_it_is_of() {
    needs::time();
    for verb in ["whiteouts", "changes", "copyups", "check"] {
        for target in [&[][..], &["determined_sammet"], &["6e34"]] {
            let rows = rich_host().jsonl([&[verb], target].concat()).rows();
            assert!(!rows.is_empty(), "{verb} {target:?}");
            let of_it = rows
                .iter()
                .filter(|row| row["target"] == "docker:determined_sammet");
            assert!(
                target.is_empty() || of_it.count() == rows.len(),
                "{verb} {target:?}"
            );
        }
    }
}

/// One document has the schemas of all verbs, and what they share only once.
#[apply(test)]
fn all_schemas_are_one_document() {
    let all: Value =
        serde_json::from_str(crate::lab::run::layerctl(["schema"]).exits(0).text()).expect("JSON");
    for verb in crate::lab::verbs::verbs() {
        let own = crate::lab::run::layerctl(["schema", verb]).exits(0);
        let own: Value = serde_json::from_str(own.text()).expect("JSON");
        assert_eq!(
            all["properties"][verb]["properties"], own["properties"],
            "{verb}"
        );
        for (name, shared) in own["$defs"].as_object().into_iter().flatten() {
            assert_eq!(
                all["$defs"][name], *shared,
                "{verb} {name}: one name, one meaning"
            );
        }
    }
}

/// Every property of every verb, by its name, with what it is: its own schema without words, and
/// without whether it may be left out.
fn properties(schema: &Value, give: &mut dyn FnMut(&str, String)) {
    match schema {
        Value::Object(of) => {
            let own = of.get("properties").and_then(Value::as_object);
            for (name, property) in own.into_iter().flatten() {
                give(name, kind_of(property));
            }
            of.values().for_each(|below| properties(below, give));
        }
        Value::Array(of) => of.iter().for_each(|below| properties(below, give)),
        _ => {}
    }
}

fn kind_of(property: &Value) -> String {
    if let Some(of) = property["anyOf"].as_array() {
        let not_null = |of: &&Value| of["type"] != "null";
        let kinds: Vec<String> = of.iter().filter(not_null).map(kind_of).collect();
        return kinds.join(" or ");
    }
    if let Some(shared) = property["$ref"].as_str() {
        return shared.to_owned();
    }
    let kind = match &property["type"] {
        Value::Array(of) => of.iter().find(|of| *of != "null").cloned(),
        of => Some(of.clone()),
    };
    let kind = kind.unwrap_or(Value::Null);
    if kind == "array" {
        return format!("many {}", kind_of(&property["items"]));
    }
    kind.as_str().unwrap_or("anything").to_owned()
}

/// One vocabulary for all verbs: a name is one thing, a count is called one, a size is a number of bytes,
/// a path is bytes, and a time is text.
#[apply(test)]
fn one_name_is_one_thing_in_every_verb() {
    let all: Value = serde_json::from_str(layerctl(["schema"]).exits(0).text()).expect("JSON");
    let mut kinds: std::collections::BTreeMap<String, BTreeSet<String>> = Default::default();
    for part in [&all["properties"], &all["$defs"]] {
        for of in part.as_object().expect("schemas").values() {
            properties(of, &mut |name, kind| {
                kinds.entry(name.to_owned()).or_default().insert(kind);
            });
        }
    }
    // Each of these has words of its own, which the shared schema tells apart; `why` is said in words.
    let own_words = ["kind", "state", "why", "origin", "record"];
    for (name, kinds) in &kinds {
        if own_words.contains(&name.as_str()) {
            continue;
        }
        assert_eq!(kinds.len(), 1, "{name} is {kinds:?}");
    }
    let is = |name: &str| kinds[name].first().map_or("", String::as_str);
    for (name, kind) in [
        ("target", "#/$defs/Bytes"),
        ("path", "#/$defs/Bytes"),
        ("directory", "#/$defs/Bytes"),
        ("engine", "string"),
        ("image", "string"),
        ("layer", "string"),
        ("type", "#/$defs/Kind"),
        ("size", "integer"),
        ("disk", "integer"),
        ("mtime", "string"),
        ("created", "string"),
        ("started", "string"),
        ("finished", "string"),
        ("time", "string"),
        ("exit_code", "integer"),
        ("branch", "integer"),
        ("hidden_by", "#/$defs/Cut"),
        ("versions", "many #/$defs/Version"),
    ] {
        assert_eq!(is(name), kind, "{name}");
    }
    let counts = kinds.keys().filter(|name| name.contains("count"));
    for name in counts.filter(|name| name.ends_with("_count")) {
        assert_eq!(is(name), "integer", "{name}");
    }
}

/// Every verb that tells of what is in a union says of which in every row.
#[apply(test)]
fn every_verb_about_a_union_has_its_name() {
    for verb in [
        "branches",
        "which",
        "ls",
        "whiteouts",
        "copyups",
        "changes",
        "find",
        "cat",
        "cp",
        "restore",
        "history",
        "containers",
        "images",
    ] {
        let schema = schema(verb);
        let variants = schema["anyOf"].as_array().cloned();
        let variants = variants.unwrap_or_else(|| vec![schema.clone()]);
        for of in variants {
            let of = match of["$ref"].as_str() {
                Some(path) => schema.pointer(&path[1..]).cloned().expect("a schema"),
                None => of,
            };
            let required = of["required"].as_array().cloned().unwrap_or_default();
            assert!(required.contains(&"target".into()), "{verb}: {of}");
        }
    }
}
