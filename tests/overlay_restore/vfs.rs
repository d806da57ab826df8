//! Copies of whole layers, without marks.

use super::*;

/// What is there, without the content: some files are large.
fn outline(directory: &Path) -> Facts {
    let mut outline = Facts::new();
    for entry in WalkDir::new(directory).min_depth(1) {
        let entry = entry.expect("our own tree");
        let meta = entry.metadata().expect("our own tree");
        let time = (!meta.is_dir()).then(|| meta.mtime());
        let (mode, uid, gid) = (meta.mode(), meta.uid(), meta.gid());
        outline.insert(
            entry.path().as_os_str().as_bytes().to_vec(),
            format!("{mode:o} {uid}:{gid} {} {time:?}", meta.nlink()),
        );
    }
    outline
}

/// What a container changed gives way to what the layer has that it began as a copy of.
#[apply(test)]
fn what_a_container_changed_is_reverted_to_the_layer_below() {
    needs::time();
    needs::captured_hosts();
    let host = Host::captured("docker-vfs");
    let saved = tempfile::tempdir().expect("a directory");
    let layers = host.at("/var/lib/docker/vfs/dir");
    let rows = host.jsonl(["containers", "--no-trunc"]).exits(0).rows();
    let (mut reverted, mut unchanged) = (0, 0);
    for row in &rows {
        let id = text(row, "id");
        let of_container = |file: &str| {
            let at = format!("/var/lib/docker/image/vfs/layerdb/mounts/{id}/{file}");
            layers.join(fs::read_to_string(host.at(at)).expect("plain text"))
        };
        let (container, parent) = (of_container("mount-id"), of_container("init-id"));
        let changes = host.jsonl(["changes", "--long", id]).exits(0).rows();
        let paths: BTreeSet<&str> = changes
            .iter()
            .filter_map(|change| change["path"].as_str())
            .collect();
        // What is still as it was has nothing to make room for.
        let files = ["/usr/bin/busybox", "/etc/passwd", "/etc/group"];
        let is_unchanged =
            |path: &&str| container.join(&path[1..]).is_file() && !paths.contains(*path);
        for path in files.iter().filter(|path| is_unchanged(path)) {
            let target = format!("{id}:{path}");
            let words = ["restore", "--write", "--revert", "--discard", &target];
            host.jsonl(words).exits(1);
            unchanged += 1;
        }
        for path in paths {
            let (from, to) = (parent.join(&path[1..]), container.join(&path[1..]));
            let is_file = |at: &Path| at.symlink_metadata().is_ok_and(|meta| meta.is_file());
            if !is_file(&from) || !is_file(&to) {
                continue;
            }
            let changed = fact(&to, Detail::Copied);
            let target = format!("{id}:{path}");
            let to_save = saved.path().display().to_string();
            let words = [
                "restore", "--write", "--revert", "--save", &to_save, &target,
            ];
            let row = host.jsonl(words).exits(0).row();
            assert_eq!(
                fact(&from, Detail::Copied),
                fact(&to, Detail::Copied),
                "{path}"
            );
            take_back(&row);
            assert_eq!(fact(&to, Detail::Copied), changed, "{path}");
            let name = Path::new(path).file_name().expect("a file");
            fs::remove_file(saved.path().join(name)).expect("it was saved");
            reverted += 1;
        }
    }
    assert!(
        reverted > 2 && unchanged > 2,
        "only {reverted}, {unchanged} unchanged"
    );
}

/// A container is a copy of the layer below it, and no mark tells what was deleted.
#[apply(test)]
fn what_a_container_deleted_is_copied_from_the_layer_below() {
    needs::captured_hosts();
    let host = Host::captured("docker-vfs");
    let layers = host.at("/var/lib/docker/vfs/dir");
    let of_container = |id: &str, file: &str| {
        let at = host.at(format!(
            "/var/lib/docker/image/vfs/layerdb/mounts/{id}/{file}"
        ));
        fs::read_to_string(at).expect("plain text")
    };
    let rows = host.jsonl(["containers", "--no-trunc"]).exits(0).rows();
    let mut restored = 0;
    for row in &rows {
        let id = text(row, "id");
        let container = layers.join(of_container(id, "mount-id"));
        let parent = layers.join(of_container(id, "init-id"));
        let changes = host.jsonl(["changes", id]).exits(0).rows();
        let deleted = changes
            .iter()
            .filter(|change| change["change"] == "deleted");
        let deleted: Vec<&str> = deleted.map(|change| text(change, "path")).collect();
        let before = outline(&container);
        if let Some(path) = deleted.first() {
            let target = format!("{id}:{path}");
            host.jsonl(["restore", "--dry-run", "-r", &target]).exits(0);
            host.jsonl(["restore", "-r", &target])
                .exits(2)
                .says("--write");
            assert_same(&before, &outline(&container));
        }
        let mut done = Vec::new();
        for path in &deleted {
            let target = format!("{id}:{path}");
            let restore = ["restore", "--write", "-r", &target];
            let row = host.jsonl(restore).exits(0).row();
            assert_eq!(row["strategy"], "copy", "{row}");
            let (from, to) = (parent.join(&path[1..]), container.join(&path[1..]));
            assert_eq!(fact(&from, Detail::Copied), fact(&to, Detail::Copied));
            assert_same(&shown(&from), &shown(&to));
            host.jsonl(restore).exits(1);
            done.push(row);
        }
        let now = host.jsonl(["changes", id]).exits(0).rows();
        assert!(
            now.iter().all(|change| change["change"] != "deleted"),
            "{now:?}"
        );
        done.iter().rev().for_each(take_back);
        assert_same(&before, &outline(&container));
        restored += done.len();
    }
    assert!(restored > 3, "only {restored} were deleted");
}
