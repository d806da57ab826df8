//! How much marks hide: every name that the kernel shows without a container's own layer and not with
//! it is counted once.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::lab::captured::Captured;
use crate::lab::host::Host;
use crate::lab::needs;
use crate::lab::run::{bytes, text};

/// What the kernel showed of a tree, below what is mounted over it nothing.
fn shown(said: &[Value], mounts: &[Vec<u8>]) -> BTreeSet<Vec<u8>> {
    let paths = said.iter().map(|row| bytes(&row["path"]));
    let is_mounted_over = |path: &Vec<u8>| {
        mounts.iter().any(|mount| {
            let rest = path.strip_prefix(&mount[..]);
            rest.is_some_and(|rest| rest.starts_with(b"/"))
        })
    };
    paths.filter(|path| !is_mounted_over(path)).collect()
}

#[apply(test)]
fn what_the_kernel_does_not_show_any_more_is_counted_once() {
    needs::captured_hosts();
    let podman = Captured::new("podman-5.8-overlay");
    let mut kinds = BTreeSet::new();
    for name in podman.named("lower-", ".jsonl") {
        let merged = podman.jsonl(&format!("merged-{name}.jsonl"));
        let mounts = merged.iter().filter(|row| row["mounted_over"] == true);
        let mounts: Vec<Vec<u8>> = mounts.map(|row| bytes(&row["path"])).collect();
        let before = shown(&podman.jsonl(&format!("lower-{name}.jsonl")), &mounts);
        let after = shown(&merged, &mounts);
        let rows = podman.host.jsonl(["whiteouts", name]).exits(0).rows();
        let counted = rows.iter().map(|row| row["hidden_count"].as_u64());
        let counted: u64 = counted.map(|count| count.expect("a number")).sum();
        assert_eq!(counted, before.difference(&after).count() as u64, "{name}");
        assert!(rows.iter().all(|row| row.get("hidden_more").is_none()));
        kinds.extend(rows.iter().map(|row| text(row, "kind").to_owned()));
    }
    let all = ["opaque", "replaced", "whiteout"].map(String::from);
    assert_eq!(kinds, BTreeSet::from(all));
}

const STACK: &str = "lowerdir=/low,upperdir=/up";

/// The way that a count is shown; and what is beneath a file that has taken a directory's place.
#[apply(test)]
fn a_file_in_the_place_of_a_directory_has_a_row() {
    let host = Host::empty();
    for name in ["/low/d/a", "/low/d/s/b", "/low/e/c", "/low/f"] {
        host.file(name, "1");
    }
    host.file("/up/d", "now a file")
        .file("/up/e/c", "2")
        .file("/up/f", "3");
    let row = host.jsonl(["whiteouts", STACK]).exits(0).row();
    assert_eq!(row["kind"], "replaced");
    assert_eq!((&row["path"], &row["mark"]), (&"/d".into(), &"/d".into()));
    assert_eq!(row["hides"]["type"], "directory");
    // /d/a, /d/s, /d/s/b: /d itself is there.
    assert_eq!(row["hidden_count"], 3);
    let table = host.ask(["whiteouts", STACK]).exits(0);
    let table = table.text();
    assert!(
        table
            .lines()
            .next()
            .is_some_and(|line| line.contains("HIDES      NAMES")),
        "{table}"
    );
    // And on AUFS, where names are marks.
    host.file("/up/.wh.e", "").file("/low/.wh.f", "");
    let stack = "br:/up=rw:/low=ro";
    let rows = host.jsonl(["whiteouts", stack]).exits(0).rows();
    let told: Vec<(&str, u64)> = rows
        .iter()
        .map(|row| {
            (
                text(row, "path"),
                row["hidden_count"].as_u64().expect("one"),
            )
        })
        .collect();
    assert!(
        told.contains(&("/d", 3)) && told.contains(&("/e", 2)),
        "{told:?}"
    );
}

/// Nobody waits for an exact number of very many.
#[apply(test)]
fn counting_ends() {
    let host = Host::empty();
    host.dir("/up").dir("/low/many");
    for number in 0..20_100 {
        host.file(format!("/low/many/{number}"), "");
    }
    host.file("/up/many", "");
    let row = host.jsonl(["whiteouts", STACK]).exits(0).row();
    assert_eq!(row["hidden_count"], 20_000);
    assert_eq!(row["hidden_more"], true);
    let table = host.ask(["whiteouts", STACK]).exits(0);
    assert!(table.text().contains("  20000+  "), "{}", table.text());
}
