//! Full disks, deep trees, and others at the same time.

use super::*;
use crate::lab::needs;

#[apply(test)]
fn a_read_only_file_system() {
    let script = "mount -t tmpfs none \"$1\" && cd \"$1\" && mkdir up low && touch up/.wh.f && echo x > low/f && mount -o remount,ro \"$1\" && \
                  for strategy in unhide copy; do \"$LAYERCTL\" restore --strategy $strategy --in br:up=rw:low -- /f; echo \"exit $?\"; done; \
                  test -e up/.wh.f && ! test -e up/f && ls -A up";
    let output = in_own_mounts(script);
    assert_eq!(
        output.text(),
        "exit 2\nexit 2\n.wh.f\n",
        "{}",
        output.stderr
    );
    assert_eq!(
        output.stderr.matches("Read-only file system").count(),
        2,
        "{}",
        output.stderr
    );
    let hints = output.stderr.matches("mount -o remount,rw").count();
    assert_eq!(hints, 2, "{}", output.stderr);
}

/// "Not permitted" is no help to a root who lacks what root has elsewhere.
#[apply(test)]
fn root_without_capabilities() {
    for (right, words) in [("dac_override", "CAP_DAC_OVERRIDE"), ("mknod", "CAP_MKNOD")] {
        let lacking = format!("-{right},-dac_read_search");
        let output = in_own_mounts(&format!(
            "mount -t tmpfs none \"$1\" && cd \"$1\" && mkdir up low && touch up/.wh.f up/.wh.d && echo x > low/f && mknod low/d c 1 3
             chown 4242:4242 up && chmod 700 up && [ {right} = mknod ] && chown 0:0 up
             setpriv --bounding-set {lacking} --inh-caps {lacking} \"$LAYERCTL\" restore --strategy copy --in br:up=rw:low -- /f /d; echo \"exit $?\""
        ));
        assert_eq!(
            output.text().lines().last(),
            Some("exit 2"),
            "{}",
            output.stderr
        );
        let said = format!("this root lacks {words}");
        assert!(output.stderr.contains(&said), "{}", output.stderr);
    }
}

/// A tree is not restored without a device in it: nobody would miss that before it is needed.
#[apply(test)]
fn a_tree_comes_back_with_its_devices_or_not_at_all() {
    let output = in_own_mounts(
        "mount -t tmpfs none \"$1\" && cd \"$1\" && mkdir -p up low/d out && touch up/.wh.d low/d/file && mknod low/d/null c 1 3
         for options in '--strategy copy' '--to out'; do
             setpriv --bounding-set -mknod --inh-caps -mknod \"$LAYERCTL\" restore $options -r --in br:up=rw:low -- /d; echo \"exit $?\"
         done; ls -A up out",
    );
    assert_eq!(
        output.text(),
        "exit 2\nexit 2\nout:\n\nup:\n.wh.d\n",
        "{}",
        output.stderr
    );
}

#[apply(test)]
fn a_full_disk_leaves_the_old_state() {
    let script = "mount -t tmpfs -o size=1M none \"$1\" && cd \"$1\" && mkdir up low && mount -t tmpfs -o size=64M none low && \
                  touch up/.wh.f up/.wh.d && head -c 4M /dev/zero > low/f && mkdir low/d && head -c 4M /dev/zero > low/d/big && \
                  for path in f d/big; do \"$LAYERCTL\" restore --strategy copy --in br:up=rw:low -- $path; echo \"exit $?\"; done; ls -A up";
    let output = in_own_mounts(script);
    assert_eq!(
        output.text(),
        "exit 2\nexit 2\n.wh.d\n.wh.f\n",
        "{}",
        output.stderr
    );
    assert_eq!(
        output.stderr.matches("No space left").count(),
        2,
        "{}",
        output.stderr
    );
    for path in ["/up/f: No space", "/up/d/big: No space"] {
        assert!(output.stderr.contains(path), "{}", output.stderr);
    }
}

/// What is said of a union that is mounted read-only names what was to come back, not the name that the copy
/// would have had in passing, and what to do.
#[apply(test)]
fn a_union_that_is_mounted_read_only() {
    let output = in_own_mounts(
        "mount -t tmpfs none \"$1\" && cd \"$1\" && mkdir -p up/d low/d work merged && echo old >low/d/f && mknod up/d/f c 0 0
         union=lowerdir=$1/low,upperdir=$1/up,workdir=$1/work
         mount -t overlay -o ro,$union none merged
         \"$LAYERCTL\" restore merged/d/f; echo \"exit $?\"
         mount -o remount,rw merged; \"$LAYERCTL\" -q restore merged/d/f; echo \"exit $?\"
         echo new >merged/d/f; mount -o remount,ro merged
         \"$LAYERCTL\" restore --revert --discard merged/d/f; echo \"exit $?\"
         cat merged/d/f; ls -A up/d work/work",
    );
    let text = output.text();
    assert!(
        text.starts_with("exit 2\n") && text.contains("exit 2\nnew\nup/d:\nf\n\nwork/work:\n"),
        "{text}{}",
        output.stderr
    );
    let said = output.stderr.matches("/merged/d/f: Read-only file system");
    assert_eq!(said.count(), 2, "{}", output.stderr);
    let hints = output.stderr.matches("mount -o remount,rw");
    assert_eq!(hints.count(), 2, "{}", output.stderr);
}

#[apply(test)]
fn ten_thousand_levels() {
    let home = tempfile::Builder::new()
        .tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .expect("a temporary directory");
    let union = Union::at_home(home.path(), &[("up", "rw"), ("low", "ro")]);
    deep(&union.at("low"), 10_000);
    union.mark("up/.wh.d");
    let row = union
        .restore(&["--strategy", "copy", "-r"], "/d")
        .exits(0)
        .row();
    assert_eq!(row["applied"], true);
    assert_eq!(depth(&union.at("up")), 10_000);
    let output = Command::new("rm")
        .arg("-rf")
        .arg(home.path())
        .status()
        .expect("rm");
    assert!(output.success());
}

fn deep(at: &Path, levels: usize) {
    use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};
    let mut dir = openat(CWD, at, OFlags::PATH, Mode::empty()).expect("it is there");
    for _ in 0..levels {
        mkdirat(&dir, c"d", Mode::from_raw_mode(0o755)).expect("it is ours");
        dir = openat(&dir, c"d", OFlags::PATH, Mode::empty()).expect("it is there");
    }
}

fn depth(at: &Path) -> usize {
    use rustix::fs::{CWD, Mode, OFlags, openat};
    let mut dir = openat(CWD, at, OFlags::PATH, Mode::empty()).expect("it is there");
    let mut levels = 0;
    while let Ok(next) = openat(&dir, CString::from(c"d"), OFlags::PATH, Mode::empty()) {
        dir = next;
        levels += 1;
    }
    levels
}

#[apply(test)]
fn two_at_once_make_one() {
    needs::time();
    for options in [&[][..], &["--strategy", "copy"]] {
        for path in ["/f", "/d"] {
            for _ in 0..10 {
                let union = deleted_file();
                union.file("low/d/x", "").mark("up/.wh.d");
                let options = [options, &["-r"]].concat();
                let spawn = || {
                    let mut command = union.command(&options, path);
                    command
                        .stdout(Stdio::piped())
                        .stderr(Stdio::piped())
                        .spawn()
                        .expect("it was built")
                };
                let outputs: Vec<_> = [spawn(), spawn(), spawn()]
                    .into_iter()
                    .map(|child| child.wait_with_output().expect("it ends"))
                    .collect();
                assert!(
                    outputs.iter().any(|output| output.status.success()),
                    "{outputs:?}"
                );
                let view = union.view();
                assert!(
                    !view[path.as_bytes()].contains("error"),
                    "{}",
                    view[path.as_bytes()]
                );
                assert!(
                    !union
                        .branch("up")
                        .keys()
                        .any(|name| name.starts_with(b".wh..wh.layerctl")),
                    "{:?}",
                    union.branch("up")
                );
            }
        }
    }
}

/// One is held when its copy is on disk, before its first rename, and another goes all the way meanwhile.
#[apply(test)]
fn a_second_one_in_between_breaks_nothing() {
    needs::strace();
    let union = deleted_file();
    let slow = Held::after("fsync", &union.command(&["--strategy", "copy"], "/f"));
    let mut quick = union
        .command(&["--strategy", "copy"], "/f")
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("layerctl was built");
    held::until_it_waits_or_ends(&mut quick);
    slow.let_go();
    let quick = quick.wait_with_output().expect("our child");
    let view = union.view();
    assert!(
        view[&b"/f"[..]].contains("before"),
        "{}\n{:?} {}",
        view[&b"/f"[..]],
        quick.status,
        String::from_utf8_lossy(&quick.stderr)
    );
}

#[apply(test)]
fn one_name_that_is_too_long_is_left_out_and_said() {
    let union = Union::usual();
    let long = "n".repeat(250);
    union
        .file("low/d/a", "a")
        .file("low/d/e/b", "b")
        .file(format!("low/d/e/{long}"), "c")
        .dir(format!("low/d/{long}"))
        .mark("up/.wh.d");
    let said = union.restore(&["-r", "--strategy", "copy"], "/d");
    let said = said.exits(2).says("File name too long");
    let row = said.row();
    assert_eq!(row["applied"], true, "{row}");
    let seen = row["seen"].as_str().unwrap_or_default();
    assert!(seen.contains("2 names that are too long"), "{row}");
    for path in ["up/d/a", "up/d/e/b"] {
        assert!(union.at(path).exists(), "{path}");
    }
    assert!(!union.at(format!("up/d/{long}")).exists());
    // What was asked for is not left out.
    let union = Union::usual();
    union.file(format!("low/d/{long}"), "c").mark("up/.wh.d");
    union
        .restore(&["--strategy", "copy"], format!("/d/{long}"))
        .exits(2);
}
