//! A union that layerctl takes for a mounted AUFS: the mount table and sysfs say so, and what
//! answers at the mount point is an overlay whose upper directory is branch 0.

use super::*;
use crate::lab::needs;

/// `$lower` is what the kernel merges: `br1`, or `empty` where a mark is to count.
const IMITATION: &str = r#"
        set -e
        cd "$1"; mount -t tmpfs none "$1"; cd "$1"
        mkdir br0 br1 empty work mnt trace
        br() { for i in 0 1; do echo "$1/br$i=$([ $i = 0 ] && echo rw || echo ro+wh)" > /sys/fs/aufs/si_abc123/br$i; echo 6$i > /sys/fs/aufs/si_abc123/brid$i; done; }
        imitate() {
            mount -t overlay overlay -o "${2:-rw},lowerdir=$H/$1,upperdir=$H/br0,workdir=$H/work" "$H/mnt"
            mount -t tmpfs none /sys; mkdir -p /sys/fs/aufs/si_abc123; br "$H"
            mount -t tmpfs none /proc; mkdir -p /proc/self
            echo "33 15 0:29 / $H/mnt rw,relatime - aufs none rw,si=abc123" > /proc/self/mountinfo
        }
        H=$1
        restore() { "$LAYERCTL" --format jsonl restore "$@"; }
        look() { (cd "$H/br0"; find . -mindepth 1 | LC_ALL=C sort | tr '\n' ' '; echo); }
        set +e
    "#;

pub fn imitation(script: &str) -> Output {
    if script.contains("strace ") {
        needs::strace();
    }
    in_own_mounts(&format!("{IMITATION}\n{script}"))
}

fn lines(output: &Output) -> Vec<&str> {
    output.text().lines().collect()
}

fn json(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
}

#[apply(test)]
fn a_copy_goes_through_the_mount() {
    let output = imitation(
        "mkdir br0/d br1/d; echo x > br1/d/x; chmod 4751 br1/d/x; touch br0/d/.wh.x; imitate empty
         strace -f -o trace/t -e trace=%file $LAYERCTL --format jsonl restore --strategy copy $H/mnt/d/x; echo $?
         look; stat -c %a br0/d/x mnt/d/x; grep -c 'wh..wh.layerctl' trace/t; grep -c '\"\\.layerctl-.*mnt\\|\"\\.layerctl-' trace/t",
    );
    let lines = lines(&output);
    assert_eq!(lines.len(), 6 + 1, "{}\n{}", output.text(), output.stderr);
    let row = json(lines[0]);
    assert_eq!(actions(&row), ["copy", "look"]);
    assert!(
        bytes(&row["steps"][0]["path"]).ends_with(b"/mnt/d/x"),
        "{row}"
    );
    // The mark is the kernel's to remove; this one knows only its own.
    assert_eq!(
        lines[1..5],
        ["0", "./d ./d/.wh.x ./d/x ", "4751", "4751"],
        "{}",
        output.stderr
    );
    assert_eq!(lines[5], "0");
    assert_ne!(lines[6], "0");
    assert!(text(&row, "seen").contains("/mnt/d/x"));
    assert!(row["undo"].to_string().contains("/mnt/d/x"), "{row}");
}

#[apply(test)]
fn a_deleted_ancestor_is_made_through_the_mount() {
    let output = imitation(
        "mkdir br1/d; echo x > br1/d/x; touch br1/d/y br0/.wh.d; imitate empty; restore $H/mnt/d/x; echo $?; look; ls mnt/d",
    );
    let lines = lines(&output);
    assert_eq!(actions(&json(lines[0])), ["copy", "look"]);
    assert_eq!(
        lines[1..],
        ["0", "./.wh.d ./d ./d/x ", "x"],
        "{}",
        output.stderr
    );
}

#[apply(test)]
fn a_mark_is_removed_between_two_refreshes() {
    let output = imitation(
        "echo x > br1/f; touch br0/.wh.f; imitate br1
         restore --dry-run $H/mnt/f; echo $?; look
         strace -f -o trace/t -e trace=fspick,fsconfig,unlinkat,mount $LAYERCTL --format jsonl restore $H/mnt/f; echo $?; look
         sed -E 's/^[0-9]+ +([a-z_]+)\\(.*/\\1/; /^\\+|exited/d' trace/t",
    );
    let lines = lines(&output);
    let (planned, done) = (json(lines[0]), json(lines[3]));
    assert_eq!(lines[1..3], ["0", "./.wh.f "]);
    assert_eq!(
        actions(&done),
        ["check-refresh", "remove-mark", "refresh", "look"]
    );
    assert_eq!(steps(&planned), steps(&done));
    assert_eq!(lines[4..6], ["0", ""], "{}", output.stderr);
    let mut calls = lines[6..].to_vec();
    // Whether the mount is picked again or kept does not matter.
    calls.dedup();
    if calls.get(3) == Some(&"fspick") {
        calls.remove(3);
    }
    assert_eq!(
        calls,
        ["fspick", "fsconfig", "unlinkat", "fsconfig"],
        "{}",
        output.stderr
    );
    assert!(text(&done, "seen").contains("a file of 2 bytes"), "{done}");
    assert_eq!(done["undo"].as_array().map(Vec::len), Some(1));
    assert!(
        done["undo"].to_string().contains("rm -- ") && done["undo"].to_string().contains("/mnt/f"),
        "{done}"
    );
}

/// A name that is looked up between the two is dangerous: nothing slow may come between.
#[apply(test)]
fn a_mark_is_removed_and_refreshed_in_one_breath() {
    let output = imitation(
        "echo x > br1/f; touch br0/.wh.f; imitate br1
         strace -f -o trace/t $LAYERCTL restore $H/mnt/f >/dev/null; grep -A2 unlinkat trace/t | sed -E 's/^[0-9]+ +([a-z_0-9]+).*/\\1/'",
    );
    let calls = lines(&output);
    let refresh = calls.iter().position(|call| *call == "fsconfig");
    assert!(refresh.is_some(), "{calls:?}");
    assert!(!calls.contains(&"fsync"), "{calls:?}");
}

#[apply(test)]
fn whatever_fails_after_the_mark_is_gone_it_is_refreshed() {
    let output = imitation(
        "echo x > br1/f; touch br0/.wh.f; imitate br1
         strace -f -o trace/t -e trace=fspick,fsconfig,unlinkat,fsync -e inject=fsync:error=EIO $LAYERCTL restore $H/mnt/f >/dev/null
         sed -nE '/unlinkat/,$ s/^[0-9]+ +(fsconfig)\\(.*/\\1/p' trace/t",
    );
    assert_eq!(lines(&output), ["fsconfig"], "{}", output.stderr);
}

#[apply(test)]
fn a_mark_that_cannot_be_refreshed_is_put_back() {
    for aufs in [
        "",
        "touch br0/.wh..wh.aufs; chmod 444 br0/.wh..wh.aufs; rm br0/.wh.f; ln br0/.wh..wh.aufs br0/.wh.f;",
    ] {
        let output = imitation(&format!(
            "echo x > br1/f; touch br0/.wh.f; chmod 444 br0/.wh.f; {aufs} imitate br1
             strace -f -o trace/t -e trace=fsconfig -e inject=fsconfig:error=EPERM:when=2 $LAYERCTL restore $H/mnt/f; echo $?; stat -c '%a %s' br0/.wh.f"
        ));
        assert_eq!(lines(&output), ["2", "444 0"], "{}", output.stderr);
        assert!(
            output.stderr.contains("--strategy copy"),
            "{}",
            output.stderr
        );
    }
}

/// Nothing half-written has the real name, whenever a copy through the mount is killed.
#[apply(test)]
fn a_killed_copy_never_shows_half() {
    needs::time();
    let output = imitation(
        "mkdir br1/d; head -c 900000 /dev/zero > br1/d/x; mkdir br0/d; touch br0/d/.wh.x; imitate empty
         for call in renameat2 write ftruncate fchmod utimensat fsync; do for n in 1 2 3 4 5 6; do
            strace -f -o trace/t -e trace=$call -e inject=$call:signal=KILL:when=$n $LAYERCTL restore --strategy copy $H/mnt/d/x >/dev/null 2>&1 && echo whole
            test -e mnt/d/x && stat -c %s mnt/d/x; rm -f mnt/d/x
         done; done",
    );
    assert!(lines(&output).contains(&"whole"), "{}", output.stderr);
    assert!(
        lines(&output)
            .iter()
            .all(|line| *line == "whole" || *line == "900000"),
        "{}",
        output.text()
    );
}

#[apply(test)]
fn whoever_may_not_refresh_is_refused_and_told_what_to_do() {
    let output = imitation(
        "echo x > br1/f; touch br0/.wh.f; imitate br1
         setpriv --bounding-set -sys_admin --inh-caps -sys_admin $LAYERCTL restore $H/mnt/f; echo $?; look",
    );
    assert_eq!(lines(&output), ["2", "./.wh.f "], "{}", output.stderr);
    assert!(
        output.stderr.contains("--strategy copy"),
        "{}",
        output.stderr
    );
    assert!(output.stderr.contains("as root"), "{}", output.stderr);
    let names_the_command =
        output.stderr.contains("layerctl restore") || output.stderr.contains("sudo");
    assert!(
        names_the_command,
        "the command to run as root is not named: {}",
        output.stderr
    );
}

#[apply(test)]
fn what_is_still_not_there_is_said() {
    let output = imitation(
        "echo x > br1/f; touch br0/.wh.f; imitate empty; restore $H/mnt/f; echo $?; look",
    );
    assert_eq!(lines(&output), ["2", ""], "{}", output.stderr);
    assert!(
        output.stderr.contains("still not there"),
        "{}",
        output.stderr
    );
}

#[apply(test)]
fn a_path_through_a_link_is_looked_at_where_it_leads() {
    let output = imitation(
        "mkdir br1/way; echo x > br1/way/f; ln -s way br1/short; mkdir br0/way; touch br0/way/.wh.f; imitate br1; restore $H/mnt:/short/f; echo $?; look",
    );
    let lines = lines(&output);
    assert_eq!(lines.last(), Some(&"./way "), "{}", output.stderr);
    assert!(lines.contains(&"0"), "{}\n{}", output.text(), output.stderr);
}

/// Whoever spells a mounted union's writable branch gets its mount, or is refused.
#[apply(test)]
fn spelling_a_mounted_union_does_not_go_behind_its_back() {
    let mut wrong = Vec::new();
    for (spelled, path) in [
        ("br:$H/br0=rw:$H/br1=ro", "/d/x"),
        ("br:br0=rw:br1", "/d/x"),
        ("br:link=rw:br1", "/d/x"),
        ("br:$H/empty=ro:br0=rw:br1", "/d/x"),
        ("br:$H/alias=rw:$H/br1=ro", "/d/x"),
        ("br:br0/d=rw:br1/d", "/x"),
    ] {
        let output = imitation(&format!(
            "mkdir br0/d br1/d alias; ln -s br0 link; echo x > br1/d/x; touch br0/d/.wh.x; mount --bind br0 alias; imitate br1
             for strategy in unhide copy; do restore --dry-run --strategy $strategy --in {spelled} -- {path}; done"
        ));
        for line in output.text().lines().map(json) {
            let is_live = match actions(&line)[..] {
                ["check-refresh", "remove-mark", "refresh", "look"] => true,
                ["copy", "look"] => bytes(&line["steps"][0]["path"]).ends_with(b"/mnt/d/x"),
                _ => false,
            };
            if !is_live {
                wrong.push(format!("{spelled}: {}", line["steps"][0]["words"]));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[apply(test)]
fn a_union_of_another_namespace_counts_as_mounted() {
    let hidden = "echo x > br1/f; touch br0/.wh.f; mkdir br1/d; echo x > br1/d/x; mkdir br0/d; touch br0/d/.wh..wh..opq; imitate br1; : > /proc/self/mountinfo";
    let output = imitation(&format!(
        "{hidden}; for path in f d/x; do restore si_abc123:/$path; echo $?; restore --in br:br0=rw:br1=ro+wh -- $path; echo $?; done; look"
    ));
    assert_eq!(
        lines(&output),
        ["2", "2", "2", "2", "./.wh.f ./d ./d/.wh..wh..opq "],
        "{}",
        output.stderr
    );
    assert_eq!(
        output.stderr.matches("is mounted").count(),
        4,
        "{}",
        output.stderr
    );
    // Where a process of that namespace can be reached, its mount is used.
    let output = imitation(&format!(
        "{hidden}; mkdir /proc/77; ln -s / /proc/77/root; ln -s /bin/sh /proc/77/exe; echo \"33 15 0:29 / $H/mnt rw - aufs none rw,si=abc123\" > /proc/77/mountinfo
         restore si_abc123:/f; echo $?; look"
    ));
    let lines = lines(&output);
    assert_eq!(
        actions(&json(lines[0])),
        ["check-refresh", "remove-mark", "refresh", "look"]
    );
    assert_eq!(
        lines[1..],
        ["0", "./d ./d/.wh..wh..opq "],
        "{}",
        output.stderr
    );
}

#[apply(test)]
fn a_changed_file_is_replaced_through_the_mount() {
    let output = imitation(
        "echo old > br1/f; echo new > br0/f; imitate br1
         mkdir saved; restore --revert --save saved $H/mnt/f; echo $?; cat mnt/f saved/f; look",
    );
    let lines = lines(&output);
    assert_eq!(actions(&json(lines[0])), ["move", "replace", "look"]);
    assert_eq!(lines[1..], ["0", "old", "new", "./f "], "{}", output.stderr);
}

#[apply(test)]
fn a_copy_out_needs_no_mount() {
    let output = imitation(
        "echo x > br1/f; touch br0/.wh.f; imitate br1; : > /proc/self/mountinfo; mkdir out; restore --to out si_abc123:/f >/dev/null; echo $?; cat out/f; look",
    );
    assert_eq!(lines(&output), ["0", "x", "./.wh.f "], "{}", output.stderr);
}

/// What was done behind a mount that nobody can write through is not taken back through it. The command
/// leaves nothing writable, whatever becomes of the removal.
#[apply(test)]
fn the_way_back_through_a_read_only_mount() {
    for (flags, options, rw, ro) in [
        ("rw,nosuid", "rw", "", ""),
        (
            "ro,nosuid,nodev",
            "rw",
            "mount -o remount,bind,rw,nosuid,nodev $ && { ",
            "; mount -o remount,bind,ro,nosuid,nodev $; }",
        ),
        (
            "ro",
            "ro",
            "mount -o remount,rw,relatime $ && { ",
            "; mount -o remount,ro,relatime $; }",
        ),
    ] {
        let output = imitation(&format!(
            "echo x > br1/f; touch br0/.wh.f; imitate br1
             sed -i 's/ rw,relatime - aufs none rw/ {flags}{} - aufs none {options}/' /proc/self/mountinfo
             restore --dry-run $H/mnt/f; echo $?; echo $H/mnt",
            if flags == "ro" { ",relatime" } else { "" }
        ));
        let lines = lines(&output);
        assert_eq!(lines[1], "0", "{}", output.stderr);
        let mount = lines[2];
        let undo = json(lines[0])["undo"].clone();
        let expected = format!("{rw}rm -- $/f{ro}").replace('$', mount);
        assert_eq!(undo, serde_json::json!([expected]));
    }
}

/// Whoever has a directory open has its old list, and whoever opens it then gets that, too: AUFS goes on
/// so for some seconds, an overlay as long as it is open.
#[apply(test)]
fn what_is_back_is_listed_at_once_or_it_is_said() {
    needs::program("python3", "--version");
    for (flags, listed, is_said) in [("rw", "f\n", false), ("ro", "", true)] {
        let output = imitation(&format!(
            "imitate br1 {flags}
             python3 -c 'import os, time; at = os.open(\"mnt\", os.O_RDONLY); os.listdir(at); print(\"held\", flush=True); time.sleep(60)' > held &
             until grep -q held held; do sleep 0.05; done
             echo x > br1/f; touch br0/.wh.f
             restore si_abc123:/f; ls mnt; kill $!"
        ));
        let (row, rest) = output.text().split_once('\n').expect("a row");
        let row = json(row);
        let words = "; its directory does not list it yet, which takes some seconds";
        assert_eq!(text(&row, "seen").ends_with(words), is_said, "{row}");
        assert_eq!(rest, listed, "{flags}: {}", output.stderr);
    }
}
