//! Templates, and forms of an answer that exclude each other.

use std::ffi::OsStr;

use crate::lab::captured::Captured;
use crate::lab::host::Host;
use crate::lab::run::{self, layerctl};
use crate::lab::{table, verbs};

#[apply(test)]
fn dockers_fields_are_what_docker_shows_in_its_columns() {
    let host = Host::captured("docker-28-overlay2");
    let fields: [(&str, &str, &[&str]); 2] = [
        (
            "containers",
            "table {{.ID}}\\t{{.Image}}\\t{{.Command}}\\t{{.RunningFor}}\\t{{.Status}}\\t{{.Names}}",
            &[
                "CONTAINER ID",
                "IMAGE",
                "COMMAND",
                "CREATED",
                "STATUS",
                "NAMES",
            ],
        ),
        (
            "images",
            "table {{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}",
            &["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"],
        ),
    ];
    for (verb, template, headings) in fields {
        let table = host.ask([verb]).exits(0);
        let table = table.text();
        let ours = host.ask(["--format", template, verb]).exits(0);
        let ours = ours.text();
        for heading in headings {
            let shown = table::column(table, heading);
            assert!(shown.len() > 5, "{verb}: {table}");
            assert_eq!(table::column(ours, heading), shown, "{verb} {heading}");
        }
    }
}

/// As `docker ps --all --no-trunc --format json` said them on that host.
#[apply(test)]
fn a_template_says_of_a_container_what_docker_says() {
    let of = Captured::new("docker-28-overlay2");
    let fields = ["ID", "Image", "Names", "State", "CreatedAt", "Ports"];
    let template: Vec<String> = fields
        .iter()
        .map(|field| format!("{{{{.{field}}}}}"))
        .collect();
    let template = template.join("|");
    let ours = of
        .host
        .ask(["--no-trunc", "--format", &template, "containers"])
        .exits(0);
    let mut ours: Vec<&str> = ours.text().lines().collect();
    let said = of.jsonl("ps.jsonl");
    let said = said.iter().map(|row| {
        fields
            .map(|field| row[field].as_str().unwrap_or(""))
            .join("|")
    });
    let mut said: Vec<String> = said.collect();
    said.sort();
    ours.sort_unstable();
    assert_eq!(ours, said);
    assert!(ours.len() > 5);
}

#[apply(test)]
fn a_template_goes_through_lists_and_calls_functions() {
    let host = Host::fixture("blog-host");
    let ask = |template: &str, rest: &[&str]| {
        let words = ["--format", template]
            .into_iter()
            .chain(rest.iter().copied());
        host.ask(words.collect::<Vec<_>>())
    };
    let rows = host.jsonl(["history", "training/webapp"]).exits(0).rows();
    let lines = host.jsonl(["history", "training/webapp"]).exits(0);
    // The row itself, byte for byte.
    let same = ask("{{json .}}", &["history", "training/webapp"]).exits(0);
    assert_eq!(same.text(), lines.text());
    let made = ask(
        "{{with .layer}}{{truncate . 4 | upper}}{{else}}-{{end}} {{.empty}} {{if .size}}{{.size}}{{else}}0{{end}}",
        &["history", "training/webapp"],
    );
    let expected: Vec<String> = rows
        .iter()
        .map(|row| {
            let layer = row["layer"].as_str().map(|id| id[..4].to_uppercase());
            let size = row["size"].as_u64().unwrap_or(0);
            format!(
                "{} {} {size}",
                layer.as_deref().unwrap_or("-"),
                row["empty"]
            )
        })
        .collect();
    assert_eq!(made.exits(0).text().lines().collect::<Vec<_>>(), expected);

    let row = host.jsonl(["branches", "determined_sammet"]).exits(0).row();
    let directories: Vec<String> = row["branches"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|branch| {
            format!(
                "{}={}",
                branch["branch"],
                branch["permission"].as_str().unwrap_or("")
            )
        })
        .collect();
    let made = ask(
        "{{range $at, $branch := .branches}}{{if $at}},{{end}}{{$branch.branch}}={{.permission}}{{end}}",
        &["branches", "determined_sammet"],
    );
    assert_eq!(made.exits(0).text().trim_end(), directories.join(","));
    assert!(directories.len() > 2);
}

#[apply(test)]
fn what_fits_no_row_is_said_before_anything_is_read() {
    let none = "/there/is/no/such/root";
    for (template, words) in [
        ("{{.nme}}", "no row has nme; there are "),
        ("{{.pod.nme}}", "no row has nme"),
        ("{{.name", "unclosed action"),
        ("{{nonsense .name}}", "nonsense"),
    ] {
        let output = layerctl(["--root", none, "--format", template, "containers"]).exits(2);
        assert!(
            output.stderr.contains(words),
            "{template}: {}",
            output.stderr
        );
        assert_eq!(output.text(), "");
    }
    let known = layerctl(["--format", "{{.nme}}", "containers"]).exits(2);
    for name in ["image_id", "Names", "RunningFor"] {
        assert!(known.stderr.contains(name), "{}", known.stderr);
    }
    // What is in no braces would be the same for every row.
    layerctl(["--format", "name", "containers"]).exits(2);
}

#[apply(test)]
fn two_forms_at_once_are_refused() {
    let host = Host::fixture("blog-host");
    for bare in ["-q", "-0"] {
        for format in ["json", "jsonl", "{{.ID}}"] {
            let output = host.ask([bare, "--format", format, "containers"]).exits(2);
            assert!(output.stderr.contains("--format"), "{}", output.stderr);
            assert_eq!(output.text(), "");
        }
        host.ask([bare, "--format", "table", "containers"]).exits(0);
    }
}

/// A name that is no text, and one that would move a cursor.
#[apply(test)]
fn a_template_shows_any_name() {
    use std::os::unix::ffi::OsStrExt;
    let dir = tempfile::tempdir().expect("a directory");
    let (upper, lower) = (dir.path().join("upper"), dir.path().join("lower"));
    for place in [&upper, &lower] {
        std::fs::create_dir(place).expect("a directory");
    }
    let name = std::ffi::OsStr::from_bytes(b"a\xff");
    std::fs::write(upper.join(name), "1").expect("a file");
    let stack = format!("br:{}=rw:{}=ro", upper.display(), lower.display());
    let output = layerctl(["--format", "{{.change}} {{.path}}", "changes", &stack]).exits(0);
    assert_eq!(output.text(), "added /a\\xff\n");
    let output = layerctl([
        "--format",
        "table {{.change}}\\t{{.path}}",
        "changes",
        &stack,
    ])
    .exits(0);
    assert_eq!(output.text(), "CHANGE       PATH\nadded        /a\\xff\n");
    let output = layerctl(["--format", "{{.path}}", "cat", "--in", &stack, "/none"]);
    assert_eq!(output.status, Some(1), "{}", output.text());
}

/// Paths are the host's own in every answer, whatever directory it was copied to. Only what is done
/// on this machine - a plan, a command - has that before them, and what somebody typed.
#[apply(test)]
fn no_answer_has_the_prefix_of_the_root() {
    let root = crate::lab::fixture("blog-host");
    let host = root.to_str().expect("UTF-8");
    let union = OsStr::new("determined_sammet");
    let deleted = OsStr::new("/usr/local/lib/python2.7/dist-packages/itsdangerous.py");
    let mut looked = 0;
    for asked in verbs::reading(union, deleted, OsStr::new("/var/lib/docker")) {
        let verb = asked
            .iter()
            .find(|word| !word.as_encoded_bytes().starts_with(b"-"));
        let verb = verb.and_then(|verb| verb.to_str()).expect("a verb");
        // A report tells which root it is of.
        if ["restore", "mount", "export", "report"].contains(&verb) {
            continue;
        }
        for format in ["table", "jsonl"] {
            let output = run::run(
                run::command()
                    .args(["--root", host, "--format", format])
                    .args(&asked),
            );
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(!text.contains(host), "{asked:?}\n{text}");
            looked += usize::from(!text.is_empty());
        }
    }
    assert!(looked > 30, "{looked} answers");
}
