//! Copies of hosts.

use super::*;

/// A copied host with a union that its mount table and sysfs call mounted.
fn host() -> Host {
    let host = Host::empty();
    host.file("/b/low/f", "x")
        .file("/b/up/.wh.f", "")
        .file("/b/low/d/x", "x")
        .file("/b/up/.wh.d", "")
        .dir("/mnt");
    host.union(
        "abc123",
        &[("/mnt", "/")],
        &[(b"/b/up", "rw"), (b"/b/low", "ro+wh")],
    );
    host
}

#[apply(test)]
fn are_not_written_to_unasked() {
    let host = host();
    let before = facts(&host.root);
    host.ask(["restore", "/mnt/f"]).exits(2).says("--write");
    host.ask(["restore", "--revert", "--discard", "/mnt/f"])
        .exits(1);
    assert_same(&before, &facts(&host.root));
    // A plan and a copy outside write nothing in it.
    host.ask(["restore", "--dry-run", "/mnt/f"]).exits(0);
    // There is no other union to be named.
    let row = host
        .jsonl(["restore", "--dry-run", "/never"])
        .exits(1)
        .row();
    assert!(text(&row, "nothing").contains("not deleted"), "{row}");
    let out = tempfile::tempdir().expect("a temporary directory");
    host.ask([
        OsStr::new("restore"),
        "--to".as_ref(),
        out.path().as_os_str(),
        "/mnt/f".as_ref(),
    ])
    .exits(0);
    assert_same(&before, &facts(&host.root));
    assert!(out.path().join("f").exists());
}

#[apply(test)]
fn are_never_live() {
    let host = host();
    let row = host.jsonl(["restore", "--write", "/mnt/f"]).exits(0).row();
    assert_eq!(actions(&row), ["remove-mark", "look"]);
    assert_eq!(
        steps(&row)[0].1,
        host.at("/b/up/.wh.f").as_os_str().as_bytes()
    );
    assert!(!host.at("/b/up/.wh.f").exists());
    take_back(&row);
    assert!(host.at("/b/up/.wh.f").exists());
    let row = host
        .jsonl(["restore", "--write", "/mnt/d/x"])
        .exits(0)
        .row();
    assert_eq!(
        actions(&row),
        ["copy", "make-opaque", "remove-mark", "look"]
    );
    assert!(host.at("/b/up/d/x").exists() && !host.at("/mnt/d").exists());
}

#[apply(test)]
fn without_a_target_one_union_must_have_it_deleted() {
    let host = host();
    host.file("/c/low/f", "y")
        .file("/c/low/only", "y")
        .file("/c/up/.wh.only", "")
        .dir("/c/up");
    host.union(
        "def456",
        &[("/srv/two", "/")],
        &[(b"/c/up", "rw"), (b"/c/low", "ro+wh")],
    );
    let row = host.jsonl(["restore", "--dry-run", "/only"]).exits(0).row();
    assert!(bytes(&row["steps"][0]["path"]).ends_with(b"/c/up/.wh.only"));
    host.jsonl(["restore", "--dry-run", "/f"]).exits(0);
    host.file("/c/up/.wh.f", "");
    host.jsonl(["restore", "--dry-run", "/f"])
        .exits(2)
        .says("/mnt:/f")
        .says("/srv/two:/f");
    host.jsonl(["restore", "--dry-run", "/never"])
        .exits(2)
        .says("not deleted");
    let before = facts(&host.root);
    host.jsonl(["restore", "--write", "/f"]).exits(2);
    assert_same(&before, &facts(&host.root));
}

#[apply(test)]
fn all_spellings_mean_the_same() {
    let host = host();
    for arguments in [
        &["restore", "--dry-run", "/mnt/d/x"][..],
        &["restore", "--dry-run", "/mnt:/d/x"],
        &["restore", "--dry-run", "si_abc123:/d/x"],
        &["restore", "--dry-run", "--in", "/mnt", "d/x"],
        &["restore", "--dry-run", "/d/x"],
        &[
            "restore",
            "--dry-run",
            "--in",
            "br:/b/up=rw:/b/low=ro+wh",
            "/d/x",
        ],
    ] {
        assert_eq!(
            host.jsonl(arguments).exits(0).row()["path"],
            "/d/x",
            "{arguments:?}"
        );
    }
}

/// The running machine's own root again, or that of another namespace: what is mounted there is not
/// known here, and `--write` is leave to write to a copy only.
#[apply(test)]
fn the_running_machine_under_another_name_is_no_copy() {
    let union = deleted_file();
    union.dir("out");
    let before = union.disk();
    let restore = |options: &[&str]| {
        let mut command = run::command();
        command
            .args(["--root", "/proc/self/root", "restore", "--write"])
            .args(options)
            .arg("--in")
            .arg(union.spelled())
            .args(["--", "/f"])
            .current_dir(union.home());
        run(&mut command)
    };
    for strategy in ["unhide", "copy"] {
        restore(&["--strategy", strategy])
            .exits(2)
            .says("is the running machine");
        restore(&["--strategy", strategy, "--dry-run"]).exits(0);
    }
    assert_same(&before, &union.disk());
    restore(&["--to", "out"]).exits(0);
    assert!(union.at("out/f").exists());
}

#[apply(test)]
fn a_root_with_a_living_proc_is_no_copy() {
    let output = in_own_mounts(
        "cd \"$1\"; mkdir -p r/proc r/up r/low; echo x > r/low/f; touch r/up/.wh.f
         mount -t proc proc r/proc
         restore() { $LAYERCTL --root r restore --write --in br:/up=rw:/low=ro /f > r/said; echo $?; ls -A r/up; }
         restore; umount r/proc; restore",
    );
    assert_eq!(output.text(), "2\n.wh.f\n0\n", "{}", output.stderr);
}
