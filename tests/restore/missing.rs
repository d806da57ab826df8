//! `restore -r` of a directory that is there: what is missing in it comes back, and what is there
//! stays as it is.

use super::*;

/// `rm -rf html; mkdir html`, and fifty files deleted in `/etc`.
fn accident() -> Union {
    let union = Union::usual();
    union
        .file("low/html/index", "old")
        .file("low/html/css/a", "a")
        .file("mid/html/css/b", "b")
        .file("low/html/new", "older")
        .file("up/html/new", "mine")
        .mark("up/html/.wh..wh..opq")
        .file("low/etc/stays", "s")
        .file("low/elsewhere/gone", "stays deleted")
        .mark("up/elsewhere/.wh.gone");
    for number in 0..50 {
        union
            .file(format!("low/etc/{number}"), format!("content {number}"))
            .mark(format!("up/etc/.wh.{number}"));
    }
    union
}

#[track_caller]
fn rows_are_taken_back(rows: &[Value]) {
    rows.iter().rev().for_each(take_back);
}

/// The disk without the times of directories, which making and removing a name changes.
fn settled(union: &Union) -> Facts {
    let disk = union.disk().into_iter();
    let cut = |(path, fact): (Vec<u8>, String)| match fact.split_once(" mtime ") {
        Some((before, _)) if fact.starts_with('4') => (path, before.to_owned()),
        Some((before, after)) if after.contains("(0, \"\")") => (path, before.to_owned()),
        _ => (path, fact),
    };
    disk.map(cut).collect()
}

#[apply(test)]
fn without_r_it_is_said_how_much_that_is() {
    let union = accident();
    let before = union.disk();
    for (path, count, words) in [
        (
            "/html",
            4,
            "2 names below it are hidden (4 with what is in them)",
        ),
        ("/etc", 50, "50 names below it are hidden:"),
        ("/elsewhere", 1, "1 name below it is hidden:"),
        ("/", 55, "53 names below it are hidden (55 with"),
    ] {
        for options in [&[][..], &["--dry-run"], &["--to", "out"]] {
            let row = union.restore(options, path).exits(1).row();
            let nothing = text(&row, "nothing");
            assert!(nothing.contains(words), "{path}: {nothing}");
            assert!(nothing.contains("-r brings back"), "{path}: {nothing}");
            assert_eq!(row["hidden_count"], count, "{row}");
            assert_eq!(row["applied"], false, "{row}");
        }
    }
    fs::remove_dir_all(union.at("out")).expect("made for what is copied out");
    assert_same(&before, &union.disk());
}

#[apply(test)]
fn an_opaque_directory_gets_back_what_it_hides() {
    let union = accident();
    let (before, view) = (settled(&union), union.view());
    let planned = union.restore(&["-r", "--dry-run"], "/html").exits(0);
    assert_eq!(before, settled(&union));
    let done = union.restore(&["-r"], "/html").exits(0).rows();
    for (plan, row) in planned.rows().iter().zip(&done) {
        for field in ["path", "strategy", "steps", "undo"] {
            assert_eq!(plan[field], row[field], "{field}");
        }
    }
    let paths: Vec<&str> = done.iter().map(|row| text(row, "path")).collect();
    assert_eq!(paths, ["/html/css", "/html/index"]);
    let mut after = union.view();
    for path in ["/html/css", "/html/css/a", "/html/css/b", "/html/index"] {
        assert!(after.remove(path.as_bytes()).is_some(), "{path}");
    }
    assert_same(&view, &after);
    assert_eq!(fs::read(union.at("up/html/new")).expect("it"), b"mine");
    rows_are_taken_back(&done);
    assert_same(&before, &settled(&union));
}

#[apply(test)]
fn fifty_whiteouts_are_removed_and_come_again() {
    let union = accident();
    let (before, view) = (settled(&union), union.view());
    let plans = union.restore(&["-r", "--dry-run"], "/etc").exits(0).rows();
    assert_eq!(plans.len(), 50);
    assert!(plans.iter().all(|row| row["applied"] == false));
    assert_same(&before, &settled(&union));
    let done = union.restore(&["-r"], "/etc").exits(0).rows();
    assert_eq!(done.len(), 50);
    for row in &done {
        assert_eq!(row["strategy"], "unhide", "{row}");
    }
    let after = union.view();
    assert_eq!(after.len(), view.len() + 50);
    assert!(union.at("up/elsewhere/.wh.gone").exists());
    // There is nothing left to do.
    let row = union.restore(&["-r"], "/etc").exits(1).row();
    assert!(text(&row, "nothing").contains("it is there"), "{row}");
    rows_are_taken_back(&done);
    assert_same(&before, &settled(&union));
}

#[apply(test)]
fn it_can_be_copied_out_by_both_verbs() {
    let union = accident();
    let branches = union.disk();
    union.restore(&["-r", "--to", "out"], "/html").exits(0);
    let run_cp = |options: &[&str], path: &str, to: &[&str]| {
        let mut command = run::command();
        command.args(["--format", "jsonl", "cp", "--hidden", "--in"]);
        command.arg(union.spelled()).args(options).arg(path);
        command.args(to).current_dir(union.home());
        run(&mut command)
    };
    run_cp(&["--to", "to"], "/html", &[]).exits(0);
    run_cp(&[], "/html", &["named"]).exits(0);
    let plan = run_cp(&["--dry-run"], "/html", &["other"]).exits(0).rows();
    let to: Vec<Vec<u8>> = plan.iter().map(|row| bytes(&row["to"])).collect();
    let at = |path: &str| union.at(path).as_os_str().as_bytes().to_vec();
    assert_eq!(to, [at("other/css"), at("other/index")]);
    union.dir("into").dir("content");
    run_cp(&[], "/html", &["into"]).exits(0);
    run_cp(&[], "/html/.", &["content"]).exits(0);
    for place in ["out/html", "to/html", "named", "into/html", "content"] {
        let found = facts(&union.at(place));
        let files = found.keys().map(|path| String::from_utf8_lossy(path));
        let files: Vec<String> = files.map(|path| path.into_owned()).collect();
        assert_eq!(files, ["css", "css/a", "css/b", "index"], "{place}");
        for (path, content) in [("css/a", "a"), ("css/b", "b"), ("index", "old")] {
            let at = union.at(format!("{place}/{path}"));
            assert_eq!(fs::read_to_string(at).expect("it"), content);
        }
    }
    let mut command = run::command();
    command
        .args(["cp", "--hidden", "--in"])
        .arg(union.spelled());
    let tar = run(command.args(["/html", "-"])).exits(0);
    let names = ["html/css/a", "html/css/b", "html/index"];
    for name in names {
        let is_there = tar
            .stdout
            .windows(name.len())
            .any(|of| of == name.as_bytes());
        assert!(is_there, "{name}");
    }
    // Nothing is hidden in this one, and nothing of the union was touched.
    run_cp(&[], "/html/css", &["never"]).exits(0);
    assert_eq!(run_cp(&[], "/etc/stays", &["never"]).status, Some(1));
    let mut after = union.disk();
    after.retain(|path, _| branches.contains_key(path));
    assert_same(&branches, &after);
}

#[apply(test)]
fn a_path_alone_means_the_union_in_which_something_is_missing() {
    let host = Host::copy_of("blog-host");
    let path = "/usr/local/lib/python2.7/dist-packages";
    let row = host.jsonl(["restore", "--dry-run", path]).exits(1).row();
    assert_eq!(row["hidden_count"], 1, "{row}");
    let rows = host
        .jsonl(["restore", "-r", "--write", path])
        .exits(0)
        .rows();
    assert_eq!(rows.len(), 1);
    assert_eq!(text(&rows[0], "path"), format!("{path}/itsdangerous.py"));
}

/// A container that does not run may have lost the same, and is meant as well.
#[apply(test)]
fn a_path_alone_that_two_have_lost_is_ambiguous() {
    let host = Host::copy_of("blog-host");
    let writable = |name: &str| {
        let branches = host.jsonl(["branches", name]).exits(0).rows();
        text(&branches[0]["branches"][0], "directory").to_owned()
    };
    let lost = |name: &str| host.file(format!("{}/etc/.wh.group", writable(name)), "");
    lost("old_shell");
    let row = host
        .jsonl(["restore", "--dry-run", "/etc/group"])
        .exits(0)
        .row();
    assert_eq!(text(&row, "target"), "docker:old_shell");
    lost("determined_sammet");
    host.ask(["restore", "--write", "/etc/group"])
        .exits(2)
        .says("docker:old_shell:/etc/group");
    for name in ["old_shell", "determined_sammet"] {
        let mark = format!("{}/etc/.wh.group", writable(name));
        assert!(host.at(mark).exists());
    }
}

/// A word that names nothing stops all that was asked for: what follows it was to be a path of it.
#[apply(test)]
fn a_wrong_word_is_seen_before_anything_is_written() {
    let host = Host::copy_of("blog-host");
    let path = "/usr/local/lib/python2.7/dist-packages/itsdangerous.py";
    for wrong in ["old_shell", "old_shell:", "nobody:/etc/group", "./"] {
        for words in [[wrong, path], [path, wrong]] {
            let ask = ["restore", "--write"].into_iter().chain(words);
            host.ask(ask).exits(2);
            host.jsonl(["restore", "--dry-run", path]).exits(0);
        }
    }
    host.ask(["restore", "--write", "old_shell", path])
        .exits(2)
        .says("write old_shell:/PATH");
}

#[apply(test)]
fn a_mounted_aufs_gets_it_back_through_its_mount() {
    let output = live::imitation(
        "mkdir -p br0/html br1/html/css br0/etc br1/etc; echo i > br1/html/index; echo a > br1/html/css/a
         touch br0/html/.wh..wh..opq; echo mine > br0/html/new; imitate empty
         restore $H/mnt/html; restore -r --dry-run $H/mnt/html >/dev/null; look
         restore -r $H/mnt/html >rows; echo $?; wc -l <rows; look; cat mnt/html/new",
    );
    let lines: Vec<&str> = output.text().lines().collect();
    let row: Value = serde_json::from_str(lines[0]).expect("JSON");
    assert_eq!(row["hidden_count"], 3, "{row}");
    assert_eq!(
        lines[1..],
        [
            "./etc ./html ./html/.wh..wh..opq ./html/new ",
            "0",
            "2",
            "./etc ./html ./html/.wh..wh..opq ./html/css ./html/css/a ./html/index ./html/new ",
            "mine"
        ],
        "{}",
        output.stderr
    );
}

#[apply(test)]
fn whiteouts_behind_a_mounted_aufs_are_removed_one_by_one() {
    let output = live::imitation(
        "mkdir br0/etc br1/etc; for i in $(seq 10 59); do echo $i > br1/etc/$i; touch br0/etc/.wh.$i; done; imitate br1
         restore -r $H/mnt/etc >rows; echo $?; wc -l <rows; grep -c '\"refresh\"' rows; look; ls mnt/etc | wc -l",
    );
    let lines: Vec<&str> = output.text().lines().collect();
    assert_eq!(
        lines,
        ["0", "50", "50", "./etc ", "50"],
        "{}",
        output.stderr
    );
}
