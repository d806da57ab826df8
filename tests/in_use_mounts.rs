//! What is in use on a running machine although no record says so: the kernel's own answers, in mount
//! namespaces of the tests' own.

use std::path::Path;

use crate::lab::host::Host;
use crate::lab::needs;
use crate::lab::store::{DOCKER, docker_container, id, linked_layer};

/// A store with two layers of nobody's, old enough to be accused: `e`, which something may use, and `f`.
struct Store(Host);

impl Store {
    fn new() -> Store {
        let host = Host::empty();
        let home = format!("{DOCKER}/overlay2");
        linked_layer(&host, &home, 'a', &[]);
        linked_layer(&host, &home, 'c', &['a']);
        docker_container(&host, "app", '1', 'c');
        host.file(
            format!(
                "{DOCKER}/image/overlay2/layerdb/sha256/{}/cache-id",
                id('8')
            ),
            id('a'),
        );
        linked_layer(&host, &home, 'e', &[]);
        linked_layer(&host, &home, 'f', &[]);
        for name in ["bind", "merged", "other", "jail/bin", "names"] {
            host.dir(format!("/{name}"));
        }
        Store(host)
    }

    /// What `orphans -0 -q` gives to `rm` after a shell's commands in namespaces of their own, by the
    /// layers' letters, and its exit status. `$E` is the layer, `$R` the store, `$ASK` the question.
    fn accused(&self, script: &str) -> (String, i32) {
        let root = self.0.at(DOCKER);
        let path = |path: &Path| path.to_str().expect("a plain path").to_owned();
        let layer = root.join("overlay2").join(id('e'));
        let program = env!("CARGO_BIN_EXE_layerctl");
        let ask = format!("{program} --docker-root {} orphans -0 -q", path(&root));
        let mut command = needs::own_mounts();
        let output = command
            .args(["sh", "-e", "-c", script])
            .current_dir(self.0.at("/"))
            .env("R", &root)
            .env("E", &layer)
            .env("LINK", "E".repeat(26))
            .env("ASK", ask)
            .output()
            .expect("a shell");
        let text = String::from_utf8(output.stdout).expect("plain names");
        let errors = String::from_utf8_lossy(&output.stderr);
        let code = output.status.code().expect("an exit status");
        assert!([0, 1, 2].contains(&code), "{script}: {errors}");
        // Shown where the test fails.
        eprint!("{errors}");
        let layers = text
            .split('\0')
            .filter_map(|path| path.rsplit('/').next()?.chars().next());
        (layers.collect(), code)
    }
}

/// In directories of its own: those of a namespace that ends are in use for a while.
const OVERLAY: &str = "d=$(mktemp -d -p .); mkdir $d/u $d/w; \
    mount -t overlay o -o lowerdir=$E/diff,upperdir=$d/u,workdir=$d/w merged";

/// A branch is a branch by whatever name, and so is a directory that something is mounted in.
#[apply(test)]
fn what_is_mounted_is_nobodys_orphan() {
    needs::mounts();
    needs::program("busybox", "true");
    let store = Store::new();
    // Nothing that young is accused.
    std::thread::sleep(std::time::Duration::from_secs(6));
    assert_eq!(store.accused("$ASK"), ("ef".to_owned(), 1));

    let others = [
        ("by its path", format!("{OVERLAY}; $ASK")),
        (
            "in a store that is named by another path",
            format!("mount --bind $R bind; {OVERLAY}; ${{ASK%%--*}} --docker-root $PWD/bind orphans -0 -q"),
        ),
        (
            "mounted by another path, and the store by its own",
            "mount --bind $R bind; d=$(mktemp -d -p .); mkdir $d/u $d/w; mount -t overlay o -o lowerdir=$PWD/bind/overlay2/${E##*/}/diff,upperdir=$d/u,workdir=$d/w merged; $ASK".to_owned(),
        ),
        (
            "a file system in it",
            "mkdir -p $E/diff/mnt; mount -t tmpfs t $E/diff/mnt; $ASK".to_owned(),
        ),
        (
            "a file system in it, in another namespace",
            "mkdir -p $E/diff/mnt; unshare --mount --propagation private sh -c 'mount -t tmpfs t $E/diff/mnt; exec sleep 60' & \
             sleep 1; $ASK; kill $!".to_owned(),
        ),
        (
            // The kernel lets only an older namespace keep a newer one, and newer kernels number them by
            // processor: that of the one which made ours will do.
            "in a namespace that only a file keeps",
            format!(
                "mount -t tmpfs n names; mount --make-private names; touch names/own; \
                 for cpu in $(seq 0 $(nproc)); do \
                 taskset -c $cpu unshare --mount=names/own --propagation private sh -c '{OVERLAY}' && break; done; $ASK"
            ),
        ),
        (
            // The kernel copies no mount of a namespace to a new one.
            "in a namespace that a file of another namespace keeps",
            format!(
                "mount -t tmpfs t names; mount --make-private names; touch names/own; \
                 for cpu in $(seq 0 $(nproc)); do \
                 taskset -c $cpu unshare --mount=names/own --propagation private sh -c '{OVERLAY}' && break; done; \
                 unshare --mount --propagation private $ASK"
            ),
        ),
        (
            "in a namespace that only a descriptor keeps",
            format!(
                "mkfifo names/fifo; unshare --mount --propagation private sh -c '{OVERLAY}; echo >names/fifo; exec sleep 60' & \
                 read line <names/fifo; exec 7</proc/$!/ns/mnt; kill $!; wait $! || :; unshare --mount --propagation private $ASK"
            ),
        ),
        (
            "in a namespace whose first process has another root",
            format!(
                "cp $(command -v busybox) jail/bin/busybox; \
                 unshare --mount --propagation private sh -c '{OVERLAY}; sleep 60 & exec chroot jail /bin/busybox sleep 60' & \
                 sleep 1; $ASK; kill $!"
            ),
        ),
        (
            "by its short name, elsewhere than engines mount it",
            "(cd $R/overlay2; mount -t overlay o -o lowerdir=l/$LINK:HERE/other HERE/merged); $ASK".to_owned(),
        ),
    ];
    for (what, script) in others {
        let script = script.replace("HERE", &store.0.at("/").display().to_string());
        let (accused, status) = store.accused(&script);
        assert_eq!((accused.as_str(), status), ("f", 1), "{what}");
    }
}

/// A union whose branch is not found may have any layer of which nothing else is known.
#[apply(test)]
fn where_a_branch_is_not_found_nobody_is_accused() {
    needs::mounts();
    let store = Store::new();
    let root = store.0.at("/").display().to_string();
    std::thread::sleep(std::time::Duration::from_secs(6));
    assert_eq!(store.accused("$ASK"), ("ef".to_owned(), 1));
    let kept = format!(
        "mount -t tmpfs t names; mount --make-private names; touch names/own; \
         for cpu in $(seq 0 $(nproc)); do \
         taskset -c $cpu unshare --mount=names/own --propagation private sh -c '{OVERLAY}' && break; done; \
         setpriv --bounding-set -sys_admin --inh-caps -sys_admin $ASK"
    );
    let others = [
        (
            "a path that is not whole",
            "(cd $E; mount -t overlay o -o lowerdir=diff:HERE/other HERE/merged); $ASK",
        ),
        ("a kept namespace that cannot be entered", &kept),
    ];
    for (what, script) in others {
        let answer = store.accused(&script.replace("HERE", &root));
        assert_eq!(answer, (String::new(), 2), "{what}");
    }
}

/// The record of a layer that is being unpacked names it at the end. One that nothing was written to for hours
/// is what a killed daemon left, and so is the layer.
#[apply(test)]
fn a_transfer_that_ended_long_ago_hides_no_leftover() {
    needs::mounts();
    let store = Store::new();
    std::thread::sleep(std::time::Duration::from_secs(6));
    let set =
        "d=$R/image/overlay2/layerdb/tmp/write-set-1; mkdir -p $d; touch $d/tar-split.json.gz";
    assert_eq!(store.accused(&format!("{set}; $ASK")), (String::new(), 0));
    let old = format!("{set}; touch -d '2 hours ago' $d/tar-split.json.gz $d; $ASK");
    assert_eq!(store.accused(&old), ("ef".to_owned(), 1));
}

/// What cannot be a layer of the store leaves the rest as sure as it was: unions of other namespaces and
/// of engines, and those whose branches are gone.
#[apply(test)]
fn a_union_that_is_nobodys_concern_makes_nothing_unsure() {
    needs::mounts();
    let store = Store::new();
    let root = store.0.at("/").display().to_string();
    std::thread::sleep(std::time::Duration::from_secs(6));
    let others = [
        (
            "in a namespace of somebody's, by paths that mean something there",
            "unshare --mount --propagation private sh -c 'cd HERE; mount -t tmpfs t jail; mkdir jail/a jail/b; \
             cd jail; mount -t overlay o -o lowerdir=a:b HERE/merged; exec sleep 60' & sleep 1; $ASK; kill $!",
        ),
        (
            "of a file system that is gone from its place",
            "mount -t tmpfs t jail; mkdir jail/a jail/b; mount -t overlay o -o lowerdir=HERE/jail/a:HERE/jail/b merged; \
             umount -l jail; $ASK",
        ),
        (
            "where the engine mounts its own",
            "mkdir -p $R/overlay2/${E##*/}x/merged; cd jail; mkdir a b; mount -t overlay o -o lowerdir=a:b \
             $R/overlay2/${E##*/}x/merged; cd HERE; $ASK || code=$?; umount $R/overlay2/*x/merged; rm -r $R/overlay2/*x; exit $code",
        ),
    ];
    for (what, script) in others {
        let (accused, status) = store.accused(&script.replace("HERE", &root));
        assert!(
            status == 1 && accused.contains('e') && accused.contains('f'),
            "{what}: {accused} {status}"
        );
    }
}
