//! Stacks that are mounted meanwhile.

use super::*;
use crate::lab::store::{DOCKER, docker_container, id, linked_layer};

const UNHIDE: [&str; 2] = ["--strategy", "unhide"];

/// Deleted through the mount, looked up there afterwards, and so known not to be there.
fn deleted() -> Lab {
    let lab = Lab::usual();
    lab.file("mid/d/f", "before")
        .mode("mid/d/f", 0o640)
        .owner("mid/d/f", 3, 4);
    lab.xattr("mid/d/f", "user.note", b"kept")
        .time("mid/d/f", 1_000_000_000);
    lab.file("low/d/f", "older")
        .file("low/d/g", "")
        .file("up/d/new", "mine");
    treasure(&lab, "low/d/tree");
    lab.file("mid/d/tree/more", "merged");
    lab
}

fn delete(merged: &Path) {
    fs::remove_file(merged.join("d/f")).expect("it is there");
    fs::remove_file(merged.join("d/g")).expect("it is there");
    fs::remove_dir_all(merged.join("d/tree")).expect("it is there");
    for name in ["d/f", "d/g", "d/tree"] {
        assert!(merged.join(name).symlink_metadata().is_err());
    }
}

/// A process in a mount namespace of its own.
struct Elsewhere(Child);

impl Elsewhere {
    /// It mounts the stack there and waits; `then` may replace the waiting process.
    fn new(lab: &Lab, then: &str) -> Elsewhere {
        let script = format!(
            "mount -t overlay overlay -o \"$0\" merged && {{ {then}; }} && echo ready && {WAIT}"
        );
        let mut child = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-ec", &script])
            .arg(lab.mount_options())
            .current_dir(lab.home())
            .stdout(Stdio::piped())
            .stdin(Stdio::piped())
            .spawn()
            .expect("unshare ran before");
        let mut line = String::new();
        let said = child.stdout.take().expect("a pipe");
        BufReader::new(said).read_line(&mut line).expect("a pipe");
        assert_eq!(line, "ready\n");
        Elsewhere(child)
    }

    fn id(&self) -> u32 {
        self.0.id()
    }

    /// A path as the process reaches it.
    fn at(&self, path: &Path) -> PathBuf {
        let root = format!("/proc/{}/root", self.id());
        Path::new(&root).join(path.strip_prefix("/").expect("an absolute path"))
    }

    /// What another process says there.
    fn says(&self, command: &str) -> String {
        let output = Command::new("nsenter")
            .args(["--mount", "--target", &self.id().to_string()])
            .args(["sh", "-ec", command])
            .output()
            .expect("nsenter comes with unshare");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("plain text")
    }
}

/// Until the test is over.
const WAIT: &str = "read -r _";

impl Drop for Elsewhere {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Restores `/d/f` and then `/d/tree` of a mounted stack, and looks at all of it.
#[track_caller]
fn come_back(lab: &Lab, target: &str, merged: &Path) {
    let lower = (lab.branch("mid"), lab.branch("low"));
    let (old, upper) = (shown(merged), lab.branch("up"));
    let row = lab.restore_in(target, &[], "/d/f").exits(0).row();
    assert_eq!(row["strategy"], "copy", "{row}");
    assert_eq!(actions(&row), ["copy", "look"], "{row}");
    // At once, by name and in the listing, although it was known not to be there.
    assert_eq!(
        fs::read(merged.join("d/f")).expect("it is there"),
        b"before"
    );
    assert_eq!(names(&merged.join("d")), ["f", "new"]);
    let new = shown(merged);
    let mut expected = settled(old.clone());
    let file = fact(&lab.at("mid/d/f"), Detail::Copied);
    expected.insert(b"/d/f".to_vec(), file);
    assert_same(&expected, &settled(new));
    // Below, only the mark has become a file: the kernel did it.
    let mut raw = lab.branch("up");
    let mut expected = upper.clone();
    for facts in [&mut raw, &mut expected] {
        // The kernel's marks are links of one another.
        for fact in facts.values_mut().filter(|fact| fact.starts_with("20000 ")) {
            *fact = without_links(fact);
        }
        facts.remove(&b"d/f"[..]).expect("a mark or a file");
        facts.remove(&b"d"[..]).expect("its directory");
    }
    assert_same(&expected, &raw);
    assert_eq!(
        attribute(&lab.at("up/d/f"), "user.note"),
        Some(b"kept".to_vec())
    );
    take_back(&row);
    assert_same(&settled(old.clone()), &settled(shown(merged)));

    lab.refuses_and_changes_nothing(target, &[], "/d/tree")
        .says("-r");
    let row = lab.restore_in(target, &["-r"], "/d/tree").exits(0).row();
    let new = shown(merged);
    is_the_treasure(&merged.join("d/tree"));
    assert_eq!(
        new[&b"/d/tree/listed"[..]],
        fact(&lab.at("low/d/tree/listed"), Detail::Copied)
    );
    let tree: Facts = below(&new, "/d/tree/");
    let mut expected = shown(&lab.at("low/d/tree"));
    expected.insert(
        b"/more".to_vec(),
        fact(&lab.at("mid/d/tree/more"), Detail::Copied),
    );
    let expected = expected
        .into_iter()
        .map(|(path, fact)| (path[1..].to_vec(), fact));
    assert_same(&expected.collect(), &tree);
    take_back(&row);
    assert_same(&settled(old), &settled(shown(merged)));
    assert_same(&lower.0, &lab.branch("mid"));
    assert_same(&lower.1, &lab.branch("low"));
}

#[apply(test)]
fn here() {
    in_own_mounts(|| {
        let lab = deleted();
        let mounted = lab.mount();
        delete(&mounted.0);
        let point = mounted.0.display().to_string();
        for target in [point.clone(), lab.target()] {
            come_back(&lab, &target, &mounted.0);
        }
        // As a path of the machine, too.
        let path = format!("{point}/d/f");
        run::layerctl(["restore", &path]).exits(0);
        assert_eq!(fs::read(&path).expect("it is there"), b"before");
        drop(mounted);
        assert_eq!(
            lab.agrees(&["/d/g"])[&b"/d/f"[..]],
            fact(&lab.at("mid/d/f"), Detail::Copied)
        );
    });
}

#[apply(test)]
fn through_a_link_to_the_upper_directory() {
    in_own_mounts(|| {
        let lab = deleted();
        std::os::unix::fs::symlink("up", lab.at("alias")).expect("our own");
        lab.dir("bound");
        rustix::mount::mount_bind(lab.at("up"), lab.at("bound")).expect("root may");
        let bound = Mounted(lab.at("bound"));
        let mounted = lab.mount();
        delete(&mounted.0);
        for alias in ["alias", "bound", "work/../up"] {
            let target = lab.target().replace("/up", &format!("/{alias}"));
            lab.refuses_and_changes_nothing(&target, &UNHIDE, "/d/f");
            come_back(&lab, &target, &mounted.0);
        }
        drop((mounted, bound));
    });
}

/// Only `/d` of the stack is mounted, at `part`.
fn in_part(lab: &Lab) -> Mounted {
    lab.dir("part").file("low/x", "outside");
    let mounted = lab.mount();
    delete(&mounted.0);
    fs::remove_file(mounted.0.join("x")).expect("it is there");
    rustix::mount::mount_bind(lab.at("merged/d"), lab.at("part")).expect("root may");
    drop(mounted);
    Mounted(lab.at("part"))
}

#[track_caller]
fn comes_back_in_part(lab: &Lab, target: &str, path: &str) {
    let part = lab.at("part");
    let row = lab.restore_in(target, &[], path).exits(0).row();
    assert_eq!(row["strategy"], "copy");
    assert_eq!(names(&part), ["f", "new"]);
    assert_eq!(fs::read(part.join("f")).expect("it is there"), b"before");
    take_back(&row);
    assert_eq!(names(&part), ["new"]);
}

#[apply(test)]
fn through_a_bind_mount_of_a_part() {
    in_own_mounts(|| {
        let lab = deleted();
        let part = in_part(&lab);
        let point = part.0.display().to_string();
        comes_back_in_part(&lab, &point, "/d/f");
        // What lies outside of the part can be reached nowhere.
        for target in [&point, &lab.target()] {
            lab.refuses_and_changes_nothing(target, &[], "/x");
            lab.refuses_and_changes_nothing(target, &UNHIDE, "/x");
            lab.refuses_and_changes_nothing(target, &UNHIDE, "/d/f");
        }
        run::layerctl(["restore", &format!("{point}/f")]).exits(0);
        assert_eq!(names(&part.0), ["f", "new"]);
    });
}

#[apply(test)]
fn through_a_bind_mount_of_a_part_of_a_spelled_stack() {
    in_own_mounts(|| {
        let lab = deleted();
        let _part = in_part(&lab);
        comes_back_in_part(&lab, &lab.target(), "/d/f");
    });
}

#[apply(test)]
fn in_another_mount_namespace_only() {
    in_own_mounts(|| {
        let lab = deleted();
        let elsewhere = Elsewhere::new(&lab, "true");
        let merged = elsewhere.at(&lab.at("merged"));
        assert!(names(&lab.at("merged")).is_empty());
        delete(&merged);
        let before = elsewhere.says(&format!("ls -a {}/d", lab.at("merged").display()));
        assert!(!before.contains("tree"));
        lab.refuses_and_changes_nothing(&lab.target(), &UNHIDE, "/d/f")
            .says("mounted");
        come_back(&lab, &lab.target(), &merged);
        lab.restore(&[], "/d/f").exits(0);
        let there = elsewhere.says(&format!(
            "cd {}/d && cat f && stat -c ' %s %a' f && ls",
            lab.at("merged").display()
        ));
        assert_eq!(there, "before 6 640\nf\nnew\n");
        assert!(names(&lab.at("merged")).is_empty());
    });
}

/// As a container's: the union is the root of the process.
fn as_root(lab: &Lab) -> Elsewhere {
    let mut binds = String::from("true");
    for name in ["usr", "lib", "lib64", "bin"] {
        let at = Path::new("/").join(name);
        if let Ok(target) = fs::read_link(&at) {
            lab.link(format!("low/{name}"), target);
        } else if at.is_dir() {
            lab.dir(format!("low/{name}"));
            binds += &format!(" && mount --bind /{name} merged/{name}");
        }
    }
    let then = format!("{binds} && exec chroot merged sh -c 'echo ready; {WAIT}'");
    Elsewhere::new(lab, &then)
}

#[apply(test)]
fn as_the_root_of_a_process() {
    in_own_mounts(|| {
        let lab = deleted();
        let elsewhere = as_root(&lab);
        let merged = elsewhere.at(Path::new("/"));
        delete(&merged);
        let id = elsewhere.id().to_string();
        let row = lab.restore_in(&id, &[], "/d/f").exits(0).row();
        assert_eq!(row["strategy"], "copy");
        let content = fs::read(merged.join("d/f")).expect("it is there");
        assert_eq!(content, b"before");
        assert_eq!(names(&merged.join("d")), ["f", "new"]);
        take_back(&row);
        assert_eq!(names(&merged.join("d")), ["new"]);
        lab.refuses_and_changes_nothing(&id, &UNHIDE, "/d/f")
            .says("mounted");
        run::layerctl(["restore", "-r", &format!("{id}:/d/tree")]).exits(0);
        is_the_treasure(&merged.join("d/tree"));
    });
}

/// What has the names there of our directories may be something else.
const HIDE: &str = "mount -t tmpfs none up && mkdir -p up/own up/work && touch up/there";

fn with_own_upper() -> Lab {
    let lab = Lab::usual();
    lab.file("low/f", "before")
        .dir("up/own")
        .dir("up/work")
        .device("up/own/f");
    lab
}

/// The same words for another directory.
fn own(lab: &Lab) -> String {
    lab.target().replace("/up", "/up/own")
}

#[apply(test)]
fn another_directory_of_the_same_name_elsewhere_is_not_taken_for_it() {
    in_own_mounts(|| {
        let lab = with_own_upper();
        let mount = format!(
            "mount -t overlay overlay -o '{},workdir={}/up/work' out && rm out/f",
            own(&lab),
            lab.home().display()
        );
        let elsewhere = Elsewhere::new(&lab, &format!("umount merged && {HIDE} && {mount}"));
        let there = elsewhere.at(&lab.at("out"));
        assert!(names(&there).is_empty());
        lab.restore_in(&own(&lab), &[], "/f").exits(0);
        assert!(names(&there).is_empty(), "it was restored in another union");
        assert!(!lab.at("up/own/f").exists());
    });
}

#[apply(test)]
fn is_not_edited_below_the_mount() {
    in_own_mounts(|| {
        let lab = deleted();
        lab.file("low/o/x", "").opaque("up/o");
        let mounted = lab.mount();
        delete(&mounted.0);
        let point = mounted.0.display().to_string();
        for target in [&point, &lab.target()] {
            for options in [
                &UNHIDE[..],
                &[UNHIDE[0], UNHIDE[1], "-y"],
                &[UNHIDE[0], UNHIDE[1], "--dry-run"],
            ] {
                for path in ["/d/f", "/o/x", "/d/tree/file"] {
                    let refusal = lab.refuses_and_changes_nothing(target, options, path);
                    for words in ["mounted", "undefined", "--strategy copy", "unmount"] {
                        assert!(refusal.stderr.contains(words), "{}", refusal.stderr);
                    }
                }
            }
        }
        // Unmounted it is the ordinary way.
        drop(mounted);
        let row = lab.brings_back(&[], "/d/f");
        assert_eq!(row["strategy"], "unhide");
        lab.agrees(&["/d/f"]);
    });
}

#[apply(test)]
fn a_dry_run_changes_nothing() {
    in_own_mounts(|| {
        let lab = deleted();
        let mounted = lab.mount();
        delete(&mounted.0);
        let point = mounted.0.display().to_string();
        let before = (lab.disk(), shown(&mounted.0));
        for target in [&point, &lab.target()] {
            for options in [
                &["--dry-run"][..],
                &["--dry-run", "-r"],
                &["--dry-run", "--strategy", "copy"],
                &["--dry-run", "--to", "out"],
            ] {
                let row = lab.restore_in(target, options, "/d/f").exits(0).row();
                assert_eq!(row["applied"], false);
            }
            lab.restore_in(target, &["--dry-run", "-r"], "/d/tree/sub/two")
                .exits(0);
        }
        assert_same(&before.0, &lab.disk());
        assert_same(&before.1, &shown(&mounted.0));
    });
}

#[apply(test)]
fn where_the_kernel_makes_directories_opaque() {
    in_own_mounts(|| {
        let lab = Lab::usual();
        lab.file("low/d/e/x", "asked")
            .file("low/d/e/y", "")
            .file("mid/d/z", "");
        lab.mode("low/d/e", 0o701)
            .owner("low/d/e", 7, 8)
            .time("low/d/e", 1_000_000_000);
        lab.file("mid/o/x", "asked")
            .file("mid/o/y", "")
            .opaque("up/o")
            .file("up/o/new", "");
        lab.device("mid/a/b/x")
            .file("low/a/b/x", "asked")
            .file("low/a/b/y", "");
        let mounted = lab.mount();
        fs::remove_dir_all(mounted.0.join("d")).expect("it is there");
        lab.restore(&[], "/d/e/x").exits(0);
        lab.restore(&[], "/o/x").exits(0);
        lab.restore(&[], "/a/b/x").exits(0);
        let all = [
            "/a", "/a/b", "/a/b/x", "/a/b/y", "/d", "/d/e", "/d/e/x", "/o", "/o/new", "/o/x",
        ];
        let new = shown(&mounted.0);
        assert_eq!(paths(&new), all);
        assert_eq!(new[&b"/d/e"[..]], fact(&lab.at("low/d/e"), Detail::Copied));
        drop(mounted);
        assert_eq!(paths(&lab.agrees(&["/d/z", "/o/y"])), all);
    });
}

#[apply(test)]
fn keeps_what_is_escaped_and_leaves_what_is_overlays_own() {
    in_own_mounts(|| {
        for options in ["", ",userxattr"] {
            let lab = Lab::of("mid:low", options);
            lab.file("mid/d/f", "x");
            for path in ["mid/d", "mid/d/f"] {
                lab.xattr(path, &lab.own("overlay.opaque"), b"y");
                lab.xattr(path, &lab.own("protattr"), b"own");
            }
            let mounted = lab.mount();
            let old = shown(&mounted.0);
            fs::remove_dir_all(mounted.0.join("d")).expect("it is there");
            lab.restore(&["-r"], "/d").exits(0);
            assert_same(&settled(old), &settled(shown(&mounted.0)));
            for path in ["up/d", "up/d/f"] {
                let at = lab.at(path);
                let escaped = attribute(&at, &lab.own("overlay.opaque"));
                assert_eq!(escaped, Some(b"y".to_vec()), "{path}");
                assert_eq!(attribute(&at, &lab.own("protattr")), None, "{path}");
            }
        }
    });
}

#[apply(test)]
fn of_a_file_whose_content_lies_in_another_branch() {
    in_own_mounts(|| {
        let lab = Lab::of("mid:low", ",metacopy=on,redirect_dir=on");
        lab.file("low/f", "the content").mode("low/f", 0o600);
        fs::File::create(lab.at("mid/f"))
            .expect("our own")
            .set_len(11)
            .expect("our own");
        lab.mode("mid/f", 0o640)
            .xattr("mid/f", "trusted.overlay.metacopy", b"");
        lab.time("mid/f", 1_000_000_000);
        let mounted = lab.mount();
        let old = shown(&mounted.0);
        assert!(old[&b"/f"[..]].contains("the content"), "{old:?}");
        fs::remove_file(mounted.0.join("f")).expect("it is there");
        lab.restore(&[], "/f").exits(0);
        assert_same(&old, &shown(&mounted.0));
    });
}

#[apply(test)]
fn puts_the_lower_version_back() {
    in_own_mounts(|| {
        let lab = deleted();
        let mounted = lab.mount();
        fs::write(mounted.0.join("d/f"), "changed").expect("root may");
        let changed = fact(&mounted.0.join("d/f"), Detail::Copied);
        let row = lab
            .restore(&["--revert", "--save", "out"], "/d/f")
            .exits(0)
            .row();
        assert_eq!(
            fact(&mounted.0.join("d/f"), Detail::Copied),
            fact(&lab.at("mid/d/f"), Detail::Copied)
        );
        assert_eq!(fact(&lab.at("out/f"), Detail::Copied), changed);
        assert_eq!(names(&mounted.0.join("d")), ["f", "g", "new", "tree"]);
        take_back(&row);
        assert_eq!(fact(&mounted.0.join("d/f"), Detail::Copied), changed);
        lab.restore(&["--revert", "--discard"], "/d/f").exits(0);
        assert_eq!(
            fs::read(mounted.0.join("d/f")).expect("it is there"),
            b"before"
        );
        drop(mounted);
        assert!(lab.agrees(&[])[&b"/d/f"[..]].contains("before"));
    });
}

#[apply(test)]
fn below_another_mount_nothing_is_written_to_that() {
    in_own_mounts(|| {
        let lab = deleted();
        lab.dir("second");
        let mounted = lab.mount();
        delete(&mounted.0);
        cover(&mounted.0);
        lab.refuses_and_changes_nothing(&lab.target(), &[], "/d/f")
            .says("mounted");
        lab.refuses_and_changes_nothing(&lab.target(), &UNHIDE, "/d/f");
        assert!(names(&mounted.0).is_empty());
        // Where it can be seen beside that it can be written to.
        rustix::mount::unmount(&mounted.0, UnmountFlags::empty()).expect("the cover");
        rustix::mount::mount_bind(&mounted.0, lab.at("second")).expect("root may");
        let second = Mounted(lab.at("second"));
        cover(&mounted.0);
        come_back(&lab, &lab.target(), &second.0);
        assert!(names(&mounted.0).is_empty());
    });
}

/// Whichever of two was mounted first, the one that can be written to is used.
#[apply(test)]
fn of_two_mounts_the_one_that_can_be_written_to_is_used() {
    in_own_mounts(|| {
        for is_first in [true, false] {
            let lab = deleted();
            lab.dir("second");
            let mounted = lab.mount();
            delete(&mounted.0);
            rustix::mount::mount_bind(&mounted.0, lab.at("second")).expect("root may");
            let second = Mounted(lab.at("second"));
            let (closed, open) = if is_first {
                (&mounted.0, &second.0)
            } else {
                (&second.0, &mounted.0)
            };
            let flags = MountFlags::BIND | MountFlags::RDONLY;
            rustix::mount::mount_remount(closed, flags, c"").expect("root may");
            let row = lab.restore(&[], "/d/f").exits(0).row();
            let to = bytes(&row["steps"][0]["path"]);
            assert!(to.starts_with(open.as_os_str().as_bytes()), "{row}");
        }
    });
}

/// By an engine's record its container does not run; somebody has mounted its layers, by another path.
#[apply(test)]
fn what_an_engine_calls_stopped_may_be_mounted() {
    in_own_mounts(|| {
        let host = Host::empty();
        let home = format!("{DOCKER}/overlay2");
        linked_layer(&host, &home, 'b', &[]);
        linked_layer(&host, &home, '2', &['b']);
        docker_container(&host, "web", '1', '2');
        host.file(format!("{home}/{}/diff/f", id('b')), "before")
            .dir(format!("{home}/{}/work", id('2')))
            .dir("/elsewhere")
            .dir("/merged");
        rustix::mount::mount_bind(host.at(&home), host.at("/elsewhere")).expect("root may");
        let elsewhere = Mounted(host.at("/elsewhere"));
        let of =
            |layer: char, part: &str| format!("{}/{}/{part}", elsewhere.0.display(), id(layer));
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            of('b', "diff"),
            of('2', "diff"),
            of('2', "work")
        );
        let mounted = Mounted::overlay(host.at("/merged"), &options);
        fs::remove_file(mounted.0.join("f")).expect("it is there");
        assert!(mounted.0.join("f").symlink_metadata().is_err());
        let mut command = run::command();
        command.arg("--docker-root").arg(host.at(DOCKER));
        run::run(command.args(["restore", "web:/f"])).exits(0);
        let content = fs::read_to_string(mounted.0.join("f"));
        assert_eq!(content.expect("it is there"), "before");
    });
}

/// A volume of a container, say.
#[apply(test)]
fn below_a_mount_inside_nothing_is_written_to_that() {
    in_own_mounts(|| {
        let lab = deleted();
        let mounted = lab.mount();
        delete(&mounted.0);
        let inside = Mounted(mounted.0.join("d"));
        cover(&inside.0);
        for target in [lab.target(), mounted.0.display().to_string()] {
            let before = lab.disk();
            let output = lab.restore_in(&target, &[], "/d/f");
            assert!(
                names(&inside.0).is_empty(),
                "written to the other mount: {}",
                output.text()
            );
            assert_eq!(output.status, Some(2), "{}{}", output.text(), output.stderr);
            assert_same(&before, &lab.disk());
        }
        drop(inside);
        drop(mounted);
    });
}

#[apply(test)]
fn an_upper_directory_below_another_overlay_is_left_alone() {
    in_own_mounts(|| {
        let lab = Lab::usual();
        lab.file("low/f", "before")
            .device("up/f")
            .dir("other/up")
            .dir("other/work");
        let home = lab.home().display();
        let options = format!(
            "lowerdir={home}/up:{home}/low,upperdir={home}/other/up,workdir={home}/other/work"
        );
        let mounted = Mounted::overlay(lab.at("merged"), &options);
        for options in [&[][..], &UNHIDE, &["--strategy", "copy"]] {
            lab.refuses_and_changes_nothing(&lab.target(), options, "/f");
        }
        assert!(names(&mounted.0).is_empty());
        drop(mounted);
        lab.brings_back(&[], "/f");
        lab.agrees(&[]);
    });
}

/// A directory further down in the upper one is what the other overlay has.
#[apply(test)]
fn an_upper_directory_with_a_part_below_another_overlay_is_left_alone() {
    in_own_mounts(|| {
        let lab = Lab::usual();
        lab.file("low/d/f", "before")
            .device("up/d/f")
            .dir("other/up")
            .dir("other/work");
        let home = lab.home().display();
        let options = format!(
            "lowerdir={home}/up/d:{home}/low/d,upperdir={home}/other/up,workdir={home}/other/work"
        );
        let mounted = Mounted::overlay(lab.at("merged"), &options);
        lab.refuses_and_changes_nothing(&lab.target(), &UNHIDE, "/d/f");
        drop(mounted);
    });
}

/// Directories that were given relative to one that nobody remembers: which they are is not known.
/// A mount's root has the number of the directory that it writes to.
#[apply(test)]
fn a_mount_whose_directories_are_not_known_may_be_this_union() {
    in_own_mounts(|| {
        let lab = Lab::usual();
        lab.file("low/d/f", "before").device("up/d/f");
        // Another upper directory, in which another number is another's.
        let own = format!("lowerdir={0}/low,upperdir={0}/own/up", lab.home().display());
        lab.dir("own/work/work").device("own/up/d/f");
        let away = tempfile::tempdir().expect("a directory");
        let (whole, part) = (away.path().join("a/whole"), away.path().join("a/part"));
        for point in [&whole, &part] {
            fs::create_dir_all(point).expect("our own");
        }
        let output = Command::new("mount")
            .current_dir(lab.home())
            .env("LIBMOUNT_FORCE_MOUNT2", "always")
            .args(["-t", "overlay", "overlay", "-o"])
            .arg("lowerdir=mid:low,upperdir=up,workdir=work")
            .arg(&whole)
            .output()
            .expect("mount(8) is there");
        assert!(output.status.success(), "{output:?}");
        let whole = Mounted(whole);
        let is_refused = || {
            for options in [&[][..], &UNHIDE, &["--strategy", "copy"]] {
                lab.refuses_and_changes_nothing(&lab.target(), options, "/d/f")
                    .says("which directory it writes to cannot be told");
            }
        };
        is_refused();
        lab.restore_in(&lab.target(), &["--dry-run", "--to", "out"], "/d/f")
            .exits(0);
        lab.restore_in(&own, &[], "/d/f").exits(0);
        assert!(!lab.at("own/up/d/f").exists());
        // A part of it has another number, and tells nothing.
        rustix::mount::mount_bind(whole.0.join("d"), &part).expect("root may");
        let part = Mounted(part);
        drop(whole);
        is_refused();
        // An AUFS is no overlay's upper directory.
        lab.file("aufs/low/f", "before").file("aufs/up/.wh.f", "");
        let aufs = format!("br:{0}/aufs/up=rw:{0}/aufs/low=ro", lab.home().display());
        lab.restore_in(&aufs, &[], "/f").exits(0);
        drop(part);
        lab.restore(&[], "/d/f").exits(0);
        assert!(!lab.at("up/d/f").exists());
    });
}

/// The upper directory has another name by now than the mount was told.
#[apply(test)]
fn a_mount_whose_upper_directory_was_renamed_is_not_gone_behind() {
    in_own_mounts(|| {
        let lab = Lab::usual();
        lab.file("low/d/f", "before").device("up/d/f");
        let mounted = lab.mount();
        fs::rename(lab.at("up"), lab.at("renamed")).expect("our own");
        let home = lab.home().display();
        let renamed = format!("lowerdir={home}/mid:{home}/low,upperdir={home}/renamed");
        for options in [&[][..], &UNHIDE, &["--strategy", "copy"]] {
            lab.refuses_and_changes_nothing(&renamed, options, "/d/f")
                .says("which directory it writes to cannot be told");
        }
        drop(mounted);
        lab.restore_in(&renamed, &[], "/d/f").exits(0);
    });
}

/// A mount whose directories are known is another union's, even where only a part of it is still to be
/// seen.
#[apply(test)]
fn a_part_of_another_union_is_no_reason_to_refuse() {
    in_own_mounts(|| {
        let lab = Lab::usual();
        lab.file("low/d/f", "before").device("up/d/f");
        lab.dir("other/up").dir("other/work").dir("part");
        let home = lab.home().display();
        let options =
            format!("lowerdir={home}/low,upperdir={home}/other/up,workdir={home}/other/work");
        let whole = Mounted::overlay(lab.at("merged"), &options);
        rustix::mount::mount_bind(whole.0.join("d"), lab.at("part")).expect("root may");
        let part = Mounted(lab.at("part"));
        drop(whole);
        lab.restore(&[], "/d/f").exits(0);
        assert!(!lab.at("up/d/f").exists());
        drop(part);
    });
}

#[apply(test)]
fn read_only_it_says_so() {
    in_own_mounts(|| {
        let lab = deleted();
        lab.with_mount(delete);
        let mounted = lab.mount_with(MountFlags::RDONLY);
        let refusal = lab.refuses_and_changes_nothing(&lab.target(), &[], "/d/f");
        assert!(
            refusal.stderr.to_lowercase().contains("read-only"),
            "{}",
            refusal.stderr
        );
        lab.refuses_and_changes_nothing(&lab.target(), &UNHIDE, "/d/f");
        lab.restore(&["--to", "out"], "/d/f").exits(0);
        drop(mounted);
        // Only lower directories, of which none is ever written to.
        let home = lab.home().display();
        let options = format!("lowerdir={home}/up:{home}/mid:{home}/low");
        let mounted = Mounted::overlay(lab.at("merged"), &options);
        let point = mounted.0.display().to_string();
        let refusal = lab.refuses_and_changes_nothing(&point, &[], "/d/f");
        assert!(refusal.stderr.contains("--to DIR"), "{}", refusal.stderr);
    });
}

/// Somebody has removed the mark behind the mount: the kernel goes on to deny the name (64).
#[apply(test)]
fn what_the_mount_has_cached_is_said_plainly() {
    in_own_mounts(|| {
        let lab = deleted();
        let mounted = lab.mount();
        delete(&mounted.0);
        fs::remove_file(lab.at("up/d/f")).expect("a mark");
        // Another test may drop what is cached meanwhile; nothing is wrong then.
        if mounted.0.join("d/f").symlink_metadata().is_ok() {
            skip_everywhere("the kernel has forgotten what it looked up");
        }
        for target in [lab.target(), mounted.0.display().to_string()] {
            let refusal = lab.refuses_and_changes_nothing(&target, &[], "/d/f");
            for words in ["cached", "unmount", "drop_caches"] {
                assert!(refusal.stderr.contains(words), "{}", refusal.stderr);
            }
        }
        // A directory on the way, too.
        fs::remove_file(lab.at("up/d/tree")).expect("a mark");
        if mounted.0.join("d/tree").symlink_metadata().is_ok() {
            skip_everywhere("the kernel has forgotten what it looked up");
        }
        lab.refuses_and_changes_nothing(&lab.target(), &[], "/d/tree/file")
            .says("cached");
        drop(mounted);
        assert!(lab.agrees(&[])[&b"/d/f"[..]].contains("before"));
    });
}

#[apply(test)]
fn what_is_there_again_is_left_alone() {
    in_own_mounts(|| {
        let lab = deleted();
        let mounted = lab.mount();
        delete(&mounted.0);
        fs::write(mounted.0.join("d/f"), "mine").expect("root may");
        fs::create_dir(mounted.0.join("d/tree")).expect("root may");
        let before = (lab.disk(), shown(&mounted.0));
        for options in [&[][..], &UNHIDE, &["--strategy", "copy"]] {
            lab.restore(options, "/d/f").exits(1);
            lab.restore(options, "/d/tree").exits(1);
        }
        lab.restore(&["-r"], "/d/f").exits(1);
        fs::write(lab.at("out/file"), "mine").expect("our own");
        let before = (lab.disk(), before.1);
        lab.restore(&["--to", "out"], "/d/tree/file").exits(2);
        assert_same(&before.0, &lab.disk());
        assert_same(&before.1, &shown(&mounted.0));
    });
}

/// A path without its union is the only one's that has it to restore; a directory that is there, the
/// only one's that something is missing in.
#[apply(test)]
fn of_several_the_only_one_that_has_it_is_meant() {
    in_own_mounts(|| {
        let labs = [Lab::usual(), Lab::usual()];
        for lab in &labs {
            lab.file("low/d/f", "before")
                .file("low/both", "before")
                .file("low/etc/f", "before")
                .file("low/tree/f", "before")
                .file("low/changed", "before");
        }
        let mounted = labs.each_ref().map(Lab::mount);
        let [one, two] = [&mounted[0].0, &mounted[1].0];
        let remove = |at: PathBuf| fs::remove_file(at).expect("it is there");
        remove(one.join("d/f"));
        remove(one.join("both"));
        remove(two.join("both"));
        remove(two.join("etc/f"));
        fs::remove_dir_all(one.join("tree")).expect("it is there");
        remove(two.join("tree/f"));
        fs::write(two.join("changed"), "after").expect("root may");
        let restore = |options: &[&str], path: &str| {
            let head = ["--format", "jsonl", "restore"];
            run::layerctl([&head[..], options, &["--", path]].concat())
        };
        let content = |at: PathBuf| fs::read_to_string(at).expect("it is there");
        restore(&[], "/d/f").exits(0);
        assert_eq!(content(one.join("d/f")), "before");
        restore(&["-r"], "/etc").exits(0);
        assert_eq!(content(two.join("etc/f")), "before");
        // What is wholly deleted in one is meant before what lacks something in another.
        restore(&["-r"], "/tree").exits(0);
        assert_eq!(content(one.join("tree/f")), "before");
        assert!(!two.join("tree/f").exists());
        restore(&["--revert", "--discard"], "/changed").exits(0);
        assert_eq!(content(two.join("changed")), "before");
        let refused = restore(&[], "/both").exits(2);
        for point in [one, two] {
            let candidate = format!("{}:/both", point.display());
            assert!(refused.stderr.contains(&candidate), "{}", refused.stderr);
            assert!(!point.join("both").exists());
        }
        for path in ["/d/f", "/etc", "/nowhere"] {
            restore(&[], path)
                .exits(2)
                .says("is not deleted in any of the");
        }
    });
}
