//! `restore` where a real AUFS was seen to do what nobody expects: what it brings back beside
//! what was asked for, what it does not show, and what it does not take.

use std::process::{Command, Stdio};

use rustix::fs::{FileType, makedev};

use crate::lab::run::{self, Output};
use crate::lab::{has_strace, is_root, needs, skip};

// It is shared, and not all of it is of use here.
#[allow(dead_code, clippy::duplicate_mod)]
#[path = "lab/union.rs"]
mod union;

use union::{Detail, Facts, Union, assert_same};

fn paths(facts: &Facts) -> Vec<String> {
    let paths = facts.keys();
    paths
        .map(|path| String::from_utf8_lossy(path).into_owned())
        .collect()
}

/// A directory that a lower layer removed and made anew, with what that layer has in it, deleted
/// in the writable branch.
fn made_anew() -> Union {
    let union = Union::usual();
    union
        .mark("mid/d/.wh..wh..opq")
        .file("mid/d/f", "f")
        .file("mid/d/keep", "keep")
        .file("mid/d/sub/f", "f in sub")
        .file("mid/d/sub/other", "other")
        .file("low/d/ghost", "ghost")
        .file("low/d/sub/ghost", "ghost")
        .mark("up/.wh.d");
    union
}

/// The writable branch's own opaque mark would mean nothing there: the lowest one counts.
#[apply(test)]
fn nothing_else_comes_back_where_a_lower_layer_made_the_directory_anew() {
    for (path, expected) in [
        ("/d/f", &["/d", "/d/f"][..]),
        ("/d/sub/f", &["/d", "/d/sub", "/d/sub/f"]),
    ] {
        let union = made_anew();
        for directory in ["mid/d/sub", "mid/d"] {
            union.time(directory, 1_000_000_000);
        }
        let before = union.disk();
        let row = union.restore(&[], path).exits(0).row();
        assert_eq!(row["strategy"], "copy", "{row}");
        assert_eq!(row["reappears"].as_array().map(Vec::len), Some(0), "{row}");
        assert_eq!(paths(&union.view()), expected, "{row}");
        // What is made in them to hide the rest is no change of theirs.
        for directory in &expected[..expected.len() - 1] {
            let [of, made] = ["mid", "up"].map(|branch| {
                let at = union.at(format!("{branch}{directory}"));
                std::fs::metadata(at)
                    .and_then(|meta| meta.modified())
                    .expect("it is there")
            });
            assert_eq!(of, made, "{directory}");
        }
        let undo = row["undo"].as_array().expect("commands");
        for command in undo {
            let command = command.as_str().expect("text");
            let status = Command::new("sh").args(["-c", command]).status();
            assert!(status.expect("sh").success(), "{command}");
        }
        let settled = |facts: Facts| paths(&facts);
        assert_eq!(settled(before), settled(union.disk()));
    }
}

#[apply(test)]
fn a_plan_says_which_names_it_keeps_hidden() {
    let union = made_anew();
    let row = union.restore(&["--dry-run"], "/d/sub/f").exits(0).row();
    let steps = row["steps"].as_array().expect("steps");
    let hidden: Vec<&str> = steps
        .iter()
        .filter(|step| step["action"] == "make-whiteout")
        .filter_map(|step| step["words"].as_str())
        .collect();
    assert_eq!(
        hidden,
        [
            "keep /d/f hidden",
            "keep /d/keep hidden",
            "keep /d/sub/other hidden"
        ]
    );
    assert!(
        steps.iter().all(|step| step["action"] != "make-opaque"),
        "{row}"
    );
}

// ---- what layerctl takes for a mounted AUFS ----

/// The mount table and sysfs say that it is one; what answers at the mount point is an overlay
/// that shows `shown`, and writes to branch 0. `$more` are further options of the mount.
const IMITATION: &str = r#"
    set -e
    mount -t tmpfs none "$1"; cd "$1"; H=$1
    mkdir br0 br1 br2 shown work mnt trace
    imitate() {
        mount -t overlay overlay -o lowerdir="$H/shown",upperdir="$H/br0",workdir="$H/work" "$H/mnt"
        mount -t tmpfs none /sys; mkdir -p /sys/fs/aufs/si_abc123
        for i in 0 1 2; do
            echo "$H/br$i=$([ $i = 0 ] && echo rw || echo ro+wh)" > /sys/fs/aufs/si_abc123/br$i
        done
        mount -t tmpfs none /proc; mkdir -p /proc/self
        echo "33 15 0:29 / $H/mnt rw,relatime - aufs none rw,si=abc123$more" > /proc/self/mountinfo
    }
    look() { (cd "$H/br0"; find . -mindepth 1 | LC_ALL=C sort | tr '\n' ' '; echo); }
    set +e
"#;

fn imitation(script: &str) -> Option<Output> {
    if !is_root() {
        skip("this is not root");
    }
    if script.contains("strace ") && !has_strace() {
        skip("strace is not installed");
    }
    let home = tempfile::tempdir().expect("a temporary directory");
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c"]);
    command
        .arg(format!("{IMITATION}\n{script}"))
        .arg("sh")
        .arg(home.path());
    command.env("LAYERCTL", env!("CARGO_BIN_EXE_layerctl"));
    command.stdin(Stdio::null());
    Some(run::run(&mut command))
}

/// What the writable branch had made anew is opaque to a layer below that had made it anew, too:
/// the kernel forgets that at a refresh, be it for another file.
const BOTH_ANEW: &str = "
    mkdir br0/d br1/d br2/d shown/d
    touch br0/d/.wh..wh..opq br0/d/new br1/d/.wh..wh..opq br1/d/back br2/d/ghost
    echo x > br1/f; touch br0/.wh.f
";

#[apply(test)]
fn what_a_refresh_brings_back_is_said_and_asked_for() {
    let Some(output) = imitation(&format!(
        "{BOTH_ANEW} imitate
         $LAYERCTL --format jsonl restore --dry-run si_abc123:/f
         $LAYERCTL restore si_abc123:/f; echo $?; look"
    )) else {
        return;
    };
    let lines: Vec<&str> = output.text().lines().collect();
    let row: serde_json::Value = serde_json::from_str(lines[0]).expect("JSON");
    assert_eq!(row["reappears"], serde_json::json!(["/d/back"]), "{row}");
    assert_eq!(lines[1], "2", "{}", output.stderr);
    assert!(output.stderr.contains("/d/back"), "{}", output.stderr);
    assert!(lines[2].contains("./.wh.f"), "{lines:?}");
}

#[apply(test)]
fn of_many_that_come_back_ten_are_named() {
    const BELOW: &str =
        "mkdir br1/d br2/d; touch br1/d/.wh..wh..opq br1/d/back br1/d/f br2/d/ghost br0/.wh.d;";
    for (disk, path) in [(BOTH_ANEW, "/f"), (BELOW, "/d/f")] {
        for (count, more) in [(10, None), (12, Some("and 2 more"))] {
            let Some(output) = imitation(&format!(
                "{disk} for n in $(seq 2 {count}); do touch br1/d/back$n; done; imitate
                 $LAYERCTL restore si_abc123:{path}; echo $?"
            )) else {
                return;
            };
            let said = &output.stderr;
            assert_eq!(output.text(), "2\n", "{path}: {said}");
            assert_eq!(said.matches("/d/back").count(), 10, "{path}: {said}");
            let rest = said.lines().find(|line| line.ends_with(" more"));
            assert_eq!(rest.map(str::trim), more, "{path}: {said}");
        }
    }
}

/// Nor only the directory's own names: what is in those that are shown is compared, too.
#[apply(test)]
fn what_a_refresh_brings_back_is_found_below_what_is_shown() {
    let Some(output) = imitation(&format!(
        "{BOTH_ANEW} mkdir -p br1/d/sub br1/d/was shown/d/sub
         touch br1/d/sub/deep br1/d/was/in_it shown/d/was; imitate
         $LAYERCTL --format jsonl restore --dry-run si_abc123:/f"
    )) else {
        return;
    };
    let back = serde_json::json!(["/d/back", "/d/sub/deep"]);
    assert_eq!(output.exits(0).row()["reappears"], back);
}

/// What is shown already does not come back.
#[apply(test)]
fn what_a_refresh_does_not_change_is_not_said() {
    let Some(output) = imitation(&format!(
        "{BOTH_ANEW} touch shown/d/back; imitate
         $LAYERCTL --format jsonl restore --dry-run si_abc123:/f"
    )) else {
        return;
    };
    assert_eq!(output.row()["reappears"].as_array().map(Vec::len), Some(0));
}

/// A copy through the mount is made opaque by the kernel, and as little as that helps.
#[apply(test)]
fn what_a_copy_through_the_mount_brings_back_later_is_said() {
    let Some(output) = imitation(
        "mkdir br1/d br2/d; touch br1/d/.wh..wh..opq br1/d/back br1/d/f br2/d/ghost br0/.wh.d; imitate
         $LAYERCTL --format jsonl restore --dry-run si_abc123:/d/f
         $LAYERCTL restore si_abc123:/d/f; echo $?; look",
    ) else {
        return;
    };
    let lines: Vec<&str> = output.text().lines().collect();
    let row: serde_json::Value = serde_json::from_str(lines[0]).expect("JSON");
    assert_eq!(row["reappears"], serde_json::json!(["/d/back"]), "{row}");
    assert_eq!(lines[1..], ["2", "./.wh.d "], "{}", output.stderr);
}

/// Renamed directories are recorded in a grammar of its own, which is not read.
#[apply(test)]
fn a_union_with_dirren_is_not_written_to_and_never_sure() {
    let Some(output) = imitation(
        "echo x > br1/f; touch br0/.wh.f; more=,dirren; imitate
         $LAYERCTL restore si_abc123:/f; echo $?; $LAYERCTL ls si_abc123:/ > /dev/null; echo $?; look",
    ) else {
        return;
    };
    assert_eq!(output.text(), "2\n2\n./.wh.f \n", "{}", output.stderr);
    assert!(output.stderr.contains("dirren"), "{}", output.stderr);
}

/// A default access list that a mount without `acl` hides is inherited all the same, however long it is.
#[apply(test)]
fn nothing_is_copied_to_where_a_hidden_access_list_would_be_inherited() {
    if Command::new("setfattr").arg("--version").output().is_err() {
        skip("setfattr is not installed (package attr)");
    }
    for users in [1, 200] {
        is_refused_below_a_hidden_list(users);
    }
}

fn is_refused_below_a_hidden_list(users: u32) {
    let user = |number: u32| [&[2, 0, 4, 0][..], &(1000 + number).to_le_bytes()].concat();
    let list: Vec<String> = [2u8, 0, 0, 0]
        .into_iter()
        .chain([1, 0, 7, 0, 255, 255, 255, 255])
        .chain((0..users).flat_map(user))
        .chain([4, 0, 0, 0, 255, 255, 255, 255])
        .chain([16, 0, 4, 0, 255, 255, 255, 255])
        .chain([32, 0, 0, 0, 255, 255, 255, 255])
        .map(|byte| format!("{byte:02x}"))
        .collect();
    // The mount answers ENODATA for what branch 1 has: the lower directory of the overlay is
    // another one.
    let Some(output) = imitation(&format!(
        "mkdir br1/d shown/d; echo x > br1/d/f; mkdir br0/d; touch br0/d/.wh.f
         setfattr -n system.posix_acl_default -v 0x{} br1/d || exit 77
         imitate
         $LAYERCTL restore --strategy copy si_abc123:/d/f; echo $?; look",
        list.concat()
    )) else {
        return;
    };
    if output.status == Some(77) {
        skip("no access lists in a tmpfs here");
    }
    assert_eq!(output.text(), "2\n./d ./d/.wh.f \n", "{}", output.stderr);
    assert!(output.stderr.contains("access list"), "{}", output.stderr);
}

/// A mount can show other owners than those on disk: which ones it would write is not known then.
#[apply(test)]
fn nothing_is_copied_to_where_the_mount_shows_other_owners() {
    for (owner, expected) in [
        ("0:0", "0\n./d ./d/f \n"),
        ("5:0", "2\n\n"),
        ("0:5", "2\n\n"),
    ] {
        let Some(output) = imitation(&format!(
            "mkdir br1/d br2/d shown/d; echo x > br2/d/f; touch br1/d/.wh.f; chown {owner} shown/d; imitate
             $LAYERCTL restore si_abc123:/d/f > trace/said; echo $?; look"
        )) else {
            return;
        };
        assert_eq!(output.text(), expected, "{owner}: {}", output.stderr);
        let is_said = output.stderr.contains("the owner of a copy could be wrong");
        assert_eq!(is_said, owner != "0:0", "{owner}: {}", output.stderr);
    }
}

// ---- what a file system does not take ----

/// Copied out with some calls failing or doing nothing.
fn copied_out_with(union: &Union, calls: &str, how: &str) -> std::process::Output {
    union.dir("out");
    let out = union.at("out");
    let inner = union.command(&["--to", out.to_str().expect("a plain path")], "/f");
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-o", "/dev/null", "-e"]);
    strace.arg(format!("trace={calls}")).arg("-e");
    strace.arg(format!("inject={calls}:{how}"));
    strace.arg(inner.get_program()).args(inner.get_args());
    strace.output().expect("strace")
}

fn deleted() -> Union {
    let union = Union::usual();
    union
        .file("low/f", "before")
        .mark("up/.wh.f")
        .mode("low/f", 0o640);
    union
}

/// An access list that lets one user read.
fn access_list() -> Vec<u8> {
    let entry = |tag: u16, permissions: u16, id: u32| {
        [
            &tag.to_le_bytes()[..],
            &permissions.to_le_bytes(),
            &id.to_le_bytes(),
        ]
        .concat()
    };
    let none = u32::MAX;
    [
        2u32.to_le_bytes().to_vec(),
        entry(1, 6, none),
        entry(2, 4, 1000),
        entry(4, 0, none),
        entry(16, 4, none),
        entry(32, 0, none),
    ]
    .concat()
}

fn capability() -> Vec<u8> {
    let words: [u32; 5] = [0x0200_0001, 1 << 10, 0, 0, 0];
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// With the mode alone, the group could read what the list keeps from it.
#[apply(test)]
fn a_copy_that_cannot_have_its_access_list_is_not_made() {
    if !has_strace() || !is_root() {
        skip("strace is not installed, or this is not root");
    }
    for error in ["EOPNOTSUPP", "EPERM", "ENOSPC"] {
        let union = deleted();
        union.xattr("low/f", "system.posix_acl_access", &access_list());
        let output = copied_out_with(&union, "fsetxattr", &format!("error={error}"));
        assert_eq!(output.status.code(), Some(2), "{error}: {output:?}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("access list"), "{error}: {said}");
        assert_eq!(paths(&union::facts(&union.at("out"))), [""; 0], "{error}");
    }
}

/// What is made inherits its directory's default list: a copy has the list that the version had, or
/// none.
#[apply(test)]
fn a_copy_inherits_no_access_list() {
    needs::root("devices");
    let union = Union::usual();
    let list = |path: &str, of: &str| union.xattr(path, of, &access_list());
    let names = ["fifo", "device", "file", "noted", "listed", "sub"];
    union
        .node("low/d/fifo", FileType::Fifo, 0)
        .node("low/d/device", FileType::CharacterDevice, makedev(1, 3))
        .file("low/d/file", "")
        .file("low/d/noted", "")
        .file("low/d/listed", "")
        .file("low/d/sub/in_it", "");
    for name in ["noted", "listed", "sub"] {
        union.xattr(format!("low/d/{name}"), "user.note", b"kept");
    }
    list("low/d/listed", "system.posix_acl_access");
    union.dir("up/d");
    list("up/d", "system.posix_acl_default");
    for name in names {
        union.mark(format!("up/d/.wh.{name}"));
        let copy = ["--strategy", "copy", "-r"];
        union.restore(&copy, format!("/d/{name}")).exits(0);
        let fact =
            |branch: &str| union::fact(&union.at(format!("{branch}/d/{name}")), Detail::Copied);
        assert_eq!(fact("up"), fact("low"), "{name}");
    }
}

/// The one that the version has takes the place of what was inherited; that is not removed before.
#[apply(test)]
fn an_access_list_of_its_own_replaces_what_was_inherited() {
    if !has_strace() || !is_root() {
        skip("strace is not installed, or this is not root");
    }
    let union = deleted();
    union
        .xattr("low/f", "system.posix_acl_access", &access_list())
        .dir("out")
        .xattr("out", "system.posix_acl_default", &access_list());
    let output = copied_out_with(&union, "fremovexattr", "error=EPERM");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let [of, made] = ["low/f", "out/f"].map(|path| union::fact(&union.at(path), Detail::Copied));
    assert_eq!(of, made);
}

/// It can do less then, which harms nobody, and is said.
#[apply(test)]
fn a_capability_that_is_lost_is_said() {
    if !has_strace() || !is_root() {
        skip("strace is not installed, or this is not root");
    }
    // One that says yes and does nothing, too.
    for (how, is_lost) in [
        ("error=EOPNOTSUPP", true),
        ("retval=0", true),
        ("delay_enter=1", false),
    ] {
        let union = deleted();
        union.xattr("low/f", "security.capability", &capability());
        let output = copied_out_with(&union, "fsetxattr", how);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let said = String::from_utf8_lossy(&output.stdout);
        let is_said = said.contains("its capabilities could not be set");
        assert_eq!(is_said, is_lost, "{how}: {said}");
    }
}

/// A file system that says yes and does nothing is not believed.
#[apply(test)]
fn owner_and_mode_are_looked_at_afterwards() {
    if !has_strace() || !is_root() {
        skip("strace is not installed, or this is not root");
    }
    for call in ["fchmod", "fchown"] {
        let union = deleted();
        union.owner("low/f", 1234, 1234);
        let output = copied_out_with(&union, call, "retval=0");
        assert_eq!(output.status.code(), Some(2), "{call}: {output:?}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("would be"), "{call}: {said}");
        assert_eq!(paths(&union::facts(&union.at("out"))), [""; 0], "{call}");
    }
}

/// A directory that is renamed into its place has the times of what it is a copy of.
#[apply(test)]
fn a_directory_has_its_times_in_its_place() {
    let union = Union::usual();
    union
        .file("low/d/f", "f")
        .time("low/d", 1_000_000_000)
        .mark("up/.wh.d");
    union.restore(&["-r", "--strategy", "copy"], "/d").exits(0);
    let before = union::fact(&union.at("low/d"), union::Detail::Copied);
    let after = union::fact(&union.at("up/d"), union::Detail::Copied);
    assert_eq!(before, after);
    let unchanged = union.branch("low");
    assert_same(&unchanged, &union.branch("low"));
}

/// "Not permitted" is no help to root.
#[apply(test)]
fn what_is_protected_is_said_to_be() {
    for (flag, word, protected) in [
        ("i", "immutable", "up/.wh.f"),
        ("a", "append-only", "up/.wh.f"),
        ("i", "immutable", "up"),
    ] {
        let union = deleted();
        let chattr = |sign: &str| {
            let mut command = Command::new("chattr");
            command
                .arg(format!("{sign}{flag}"))
                .arg(union.at(protected));
            command.stderr(Stdio::null());
            command.status().is_ok_and(|status| status.success())
        };
        if !chattr("+") {
            skip("nothing can be made immutable here");
        }
        let output = union.restore(&[], "/f");
        chattr("-");
        output
            .exits(2)
            .says(&format!("is {word}"))
            .says(&format!("chattr -{flag}"));
        assert!(union.at("up/.wh.f").exists());
    }
}
