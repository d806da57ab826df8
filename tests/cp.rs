//! `cp`: what leaves a union, whole or not at all, and never through a link.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::{FileType, makedev};

use crate::lab::deep::Deep;
use crate::lab::held::{injected, killed_at, under};
use crate::lab::host::Host;
use crate::lab::laid::laid;
use crate::lab::run::{self, Output, layerctl, text};
use crate::lab::union::{Detail, Facts, Union, assert_same, fact, facts};
use crate::lab::{in_part, is_root, needs};

/// A union with everything that can be copied in `/d`, below two branches.
fn rich() -> Union {
    let union = Union::usual();
    union
        .file("low/d/one", "content")
        .hard_link("low/d/one", "low/d/hard")
        .link("low/d/sym", "one")
        .link("low/d/out", "/etc/passwd")
        .node("low/d/fifo", FileType::Fifo, 0)
        .file("mid/d/upper/f", "merged")
        .file("low/d/upper/g", "below")
        .file("low/d/gone", "")
        .mark("mid/d/.wh.gone")
        .file("low/d/empty", "")
        .dir("low/d/dir")
        .mode("low/d/one", 0o4751)
        .mode("low/d/dir", 0o2770)
        .xattr("low/d/one", "user.note", b"kept\xff\0")
        .xattr("low/d/empty", "user.a=b%3D", b"c=d")
        .xattr("low/d/dir", "user.long", &[b'l'; 2000])
        .file(format!("low/d/{}", "n".repeat(242)), "long")
        .file("low/d/gr\u{fc}n \x1b", "odd")
        .time("low/d/one", 1_000_000_000)
        .time("low/d/sym", 900_000_000)
        .time("low/d/dir", 5);
    let sparse = fs::File::create(union.at("low/d/sparse")).expect("our own");
    sparse.set_len(4 << 20).expect("our own");
    std::os::unix::fs::FileExt::write_all_at(&sparse, &b"middle".repeat(2000), 1 << 20)
        .expect("our own");
    if is_root() {
        union
            .node("low/d/null", FileType::CharacterDevice, makedev(1, 3))
            .owner("low/d/one", 1234, 4321)
            .owner("low/d/sym", 3_000_000, 7);
    }
    union
}

fn command(union: &Union, options: &[&str], paths: &[&str], to: &OsStr) -> Command {
    let mut command = run::command();
    command
        .args(["--format", "jsonl", "cp", "--in"])
        .arg(union.spelled())
        .args(options)
        .arg("--")
        .args(paths)
        .arg(to)
        .current_dir(union.home());
    command
}

#[track_caller]
fn cp(union: &Union, options: &[&str], paths: &[&str], to: impl AsRef<OsStr>) -> Output {
    run::run(&mut command(union, options, paths, to.as_ref()))
}

/// What the union shows below `/d`, put together by hand.
fn expected(union: &Union) -> Facts {
    let mut all = tree(&union.at("low/d"));
    all.extend(tree(&union.at("mid/d")));
    all.retain(|path, _| path != b"gone" && path != b".wh.gone");
    // What is merged has two directories.
    without_times(all)
}

/// The times of directories are not those of the provider alone.
fn without_times(all: Facts) -> Facts {
    let all = all.into_iter();
    let all = all.filter(|(path, _)| !path.starts_with(b"upper") || path.contains(&b'/'));
    all.collect()
}

/// A tree as it was copied.
fn copied(at: &Path) -> Facts {
    without_times(tree(at))
}

/// A tree in what a copy can have.
fn tree(at: &Path) -> Facts {
    let paths = facts(at).into_keys();
    let fact = |path: Vec<u8>| {
        let fact = fact(&at.join(OsStr::from_bytes(&path)), Detail::Copied);
        (path, fact)
    };
    paths.map(fact).collect()
}

#[apply(test)]
fn an_archive_copy_has_all_that_belongs_to_it() {
    needs::root("owners and devices");
    let union = rich();
    let row = cp(&union, &["-a"], &["/d"], "new").exits(0).row();
    assert_same(&expected(&union), &copied(&union.at("new")));
    assert_eq!(text(&row, "path"), "/d");
    assert_eq!(text(&row, "to"), union.at("new").to_str().expect("text"));
    assert_eq!(row["applied"], true);
    let count = facts(&union.at("new")).len() + 1;
    assert_eq!(row["entries"], count);
    let metadata = |name: &str| fs::metadata(union.at(format!("new/{name}"))).expect("it");
    assert_eq!(metadata("one").ino(), metadata("hard").ino());
    assert!(
        metadata("sparse").blocks() * 512 < 1 << 20,
        "holes are kept"
    );
}

#[apply(test)]
fn a_plain_copy_is_the_person_s_own() {
    let union = rich();
    cp(&union, &[], &["/d/one", "/d/sym"], &{
        union.dir("out");
        OsString::from("out")
    })
    .exits(0);
    let made = fs::symlink_metadata(union.at("out/one")).expect("it");
    assert_eq!(made.uid(), rustix::process::geteuid().as_raw());
    assert_eq!(
        made.mode() & 0o7777,
        0o751,
        "what runs as its owner does not"
    );
    assert_eq!(made.mtime(), 1_000_000_000);
    assert!(union.at("out/sym").is_symlink());
    cp(&union, &["-L"], &["/d/sym"], "out/followed").exits(0);
    assert_eq!(fs::read(union.at("out/followed")).expect("it"), b"content");
    assert!(!union.at("out/followed").is_symlink());
}

#[apply(test)]
fn the_destination_is_docker_s() {
    let union = rich();
    union.dir("there");
    cp(&union, &[], &["/d/upper"], "there").exits(0);
    cp(&union, &[], &["/d/upper"], "as_it").exits(0);
    cp(&union, &[], &["/d/upper/."], "there").exits(0);
    for path in ["there/upper/f", "as_it/f", "as_it/g", "there/f"] {
        assert!(union.at(path).is_file(), "{path}");
    }
    cp(&union, &[], &["/d/one"], "no/such")
        .exits(2)
        .says("No such file");
    cp(&union, &[], &["/d/one"], "file/")
        .exits(2)
        .says("Not a directory");
    cp(&union, &[], &["/d/one", "/d/empty"], "new")
        .exits(2)
        .says("is no directory");
    assert!(!union.at("new").exists() && !union.at("file").exists());
    cp(&union, &[], &["/"], "root").exits(0);
    assert!(union.at("root/d/upper/f").is_file());
    let output = cp(&union, &[], &["/nothing"], "new");
    assert_eq!(output.status, Some(1));
    assert!(
        output.stderr.contains("it is not there"),
        "{}",
        output.stderr
    );
}

#[apply(test)]
fn a_dry_run_says_what_the_copy_would_say() {
    let union = rich();
    union.file("there/one", "mine").dir("there/upper");
    let before = facts(union.home());
    for (options, path, to, status) in [
        (&[][..], "/d/one", "there", 2),
        (&[], "/d/upper", "there", 2),
        (&["--force"], "/d/one", "there", 0),
        (&[], "/d/empty", "there", 0),
        (&[], "/d/upper/.", "there", 0),
        (&[], "/d/one", "new", 0),
        (&[], "/d/one", "up", 2),
        (&[], "/d/one", "mid/d/new", 2),
        (&[], "/d/nothing", "there", 1),
    ] {
        let options = [options, &["--dry-run"]].concat();
        let output = cp(&union, &options, &[path], to);
        assert_eq!(output.status, Some(status), "{path} {to} {}", output.stderr);
    }
    assert_same(&before, &facts(union.home()));
}

#[apply(test)]
fn nothing_is_overwritten_without_force_and_nothing_written_through_a_link() {
    let union = rich();
    union.file("outside/one", "mine").dir("out");
    union
        .link("out/one", "../outside/one")
        .link("out/upper", "../outside")
        .link("alias", "outside");
    let before = facts(&union.at("outside"));
    cp(&union, &[], &["/d/one"], "out").exits(2).says("exists");
    cp(&union, &[], &["/d/upper"], "out")
        .exits(2)
        .says("exists");
    cp(&union, &[], &["/d/one"], "alias")
        .exits(2)
        .says("is not followed");
    cp(&union, &["--to", "out"], &["/d/upper/f"], "/d/one").exits(0);
    assert!(union.at("out/d/upper/f").is_file() && union.at("out/d/one").is_file());
    // A link on the way is no way.
    union.link("kept/d", "../outside");
    cp(&union, &["--to", "kept"], &["/d/upper/f"], "/d/one")
        .exits(2)
        .says("is not followed");
    // With force a link is replaced itself, and a directory never is.
    cp(&union, &["--force"], &["/d/one"], "out").exits(0);
    assert!(!union.at("out/one").is_symlink());
    cp(&union, &["--force"], &["/d/upper"], "out")
        .exits(2)
        .says("Not a directory");
    assert_same(&before, &facts(&union.at("outside")));
    union
        .dir("out/d2")
        .file("out/d2/upper/f", "old")
        .file("out/d2/upper/own", "stays");
    cp(&union, &["--force"], &["/d/upper"], "out/d2").exits(0);
    assert_eq!(fs::read(union.at("out/d2/upper/f")).expect("it"), b"merged");
    assert_eq!(
        fs::read(union.at("out/d2/upper/own")).expect("it"),
        b"stays"
    );
}

#[apply(test)]
fn no_path_leads_out_of_the_destination() {
    let union = rich();
    union
        .file("low/x", "top")
        .link("low/s", "d/upper")
        .file("low/gone/y", "y")
        .mark("up/gone/.wh.y")
        .dir("a/b/c");
    let outside = |union: &Union| {
        let mut all = facts(union.home());
        all.retain(|path, _| !path.starts_with(b"a/b"));
        all
    };
    let before = outside(&union);
    let paths = [
        ("/../../x", "x"),
        ("/d/../../../x", "x"),
        ("/d/upper/../../x", "x"),
        ("/d/upper/..", "d"),
        ("/d/upper/../../d/upper", "d/upper"),
        // A link leads to where `..` is another's.
        ("/s/..", "d"),
        ("/s/../one", "d/one"),
    ];
    let afresh = || {
        fs::remove_dir_all(union.at("a/b/c")).expect("our own");
        union.dir("a/b/c");
    };
    for (path, kept) in paths {
        afresh();
        for options in [&["--to", "a/b/c"][..], &["--force", "--to", "a/b/c"]] {
            cp(&union, options, &[], path).exits(0);
            assert!(union.at(format!("a/b/c/{kept}")).exists(), "{path}");
        }
        afresh();
        let name = kept.rsplit('/').next().expect("a name");
        for options in [&[][..], &["--force"]] {
            cp(&union, options, &[path], "a/b/c").exits(0);
            assert!(union.at(format!("a/b/c/{name}")).exists(), "{path}");
        }
        assert_same(&before, &outside(&union));
        for to in [&["--to", "-"][..], &[]] {
            let mut command = run::command();
            command.args(["cp", "--in"]).arg(union.spelled()).args(to);
            command.args(["--", path]);
            if to.is_empty() {
                command.arg("-");
            }
            let output = run::run(&mut command).exits(0);
            let mut archive = tar::Archive::new(&output.stdout[..]);
            for entry in archive.entries().expect("a tar file") {
                let entry = entry.expect("an entry");
                let name = entry.path_bytes().into_owned();
                let is_below = name.split(|&byte| byte == b'/').all(|part| part != b"..");
                assert!(is_below && !name.starts_with(b"/"), "{path}: {name:?}");
            }
        }
    }
    cp(
        &union,
        &["--hidden", "--to", "a/b/c"],
        &[],
        "/d/../../../gone/../gone/y",
    )
    .exits(0);
    assert!(union.at("a/b/c/gone/y").exists());
    let mut restore = run::command();
    restore.args(["restore", "--to", "a/b/c/r", "--in"]);
    restore
        .arg(union.spelled())
        .args(["--", "/../../d/../gone/y"]);
    run::run(restore.current_dir(union.home())).exits(0);
    assert_same(&before, &outside(&union));
    // What stands for the whole union is what the union is.
    cp(&union, &[], &["/d/.."], "a/b/c/whole").exits(0);
    assert!(union.at("a/b/c/whole/d/one").exists());
}

#[apply(test)]
fn a_device_is_not_replaced_by_a_file_and_nobody_else_s() {
    needs::root("devices");
    let union = rich();
    let disk = makedev(259, 77);
    union
        .dir("out")
        .node("out/null", FileType::CharacterDevice, makedev(1, 3))
        .node("out/fifo", FileType::Fifo, 0)
        .node("low/d/disk", FileType::BlockDevice, disk)
        .mode("low/d/disk", 0o666);
    for to in ["out/null", "out/fifo"] {
        let before = fact(&union.at(to), Detail::Copied);
        cp(&union, &["--force"], &["/d/one"], to)
            .exits(2)
            .says("nothing but another one replaces");
        assert_eq!(before, fact(&union.at(to), Detail::Copied));
    }
    // Another one of its kind replaces it.
    cp(
        &union,
        &["--force"],
        &["/d/null", "/d/fifo", "/d/disk"],
        "out",
    )
    .exits(0);
    let mode = |name: &str| fs::symlink_metadata(union.at(name)).expect("it").mode() & 0o7777;
    assert_eq!(mode("out/disk"), 0o600, "every user could write to a disk");
    cp(&union, &["-a"], &["/d/disk"], "out/exact").exits(0);
    assert_eq!(mode("out/exact"), 0o666);
}

#[apply(test)]
fn into_its_own_layers_is_refused() {
    let union = rich();
    union.link("alias", "up").dir("mid/sub");
    let before = union.disk();
    for to in ["up", "up/new", "mid/sub", "low/d", "alias/x", "up/a/b/c"] {
        let options: &[&str] = &["--to", to];
        cp(&union, options, &["/d/one"], "/d/empty").exits(2);
        cp(&union, &[], &["/d/one"], to).exits(2);
    }
    assert_same(&before, &union.disk());
}

#[apply(test)]
fn hidden_versions_and_all_that_was_deleted() {
    let union = Union::usual();
    union
        .file("low/a/conf", "a")
        .file("mid/b/conf", "b")
        .file("low/tree/x", "x")
        .file("mid/tree/sub/y", "y")
        .file("low/opaque/old", "old")
        .file("up/opaque/new", "new")
        .mark("up/opaque/.wh..wh..opq")
        .mark("up/a/.wh.conf")
        .mark("up/b/.wh.conf")
        .mark("up/.wh.tree")
        .mark("up/.wh.nothing")
        .file("low/stays", "");
    let paths = ["/a/conf", "/b/conf"];
    let to = ["--hidden", "--to", "kept/new"];
    cp(&union, &to, &paths[..1], paths[1]).exits(0);
    for (path, content) in [("a/conf", "a"), ("b/conf", "b")] {
        let at = union.at(format!("kept/new/{path}"));
        assert_eq!(fs::read_to_string(at).expect("it"), content);
    }
    let output = cp(&union, &["--hidden"], &["/stays"], "out");
    assert_eq!(output.status, Some(1), "{}", output.stderr);
    let all = |verb: &str| {
        let mut command = run::command();
        command.args([verb, "--all-deleted", "--to", verb, "--"]);
        command.arg(union.spelled()).current_dir(union.home());
        run::run(&mut command).exits(0);
        let files = facts(&union.at(verb));
        let names: Vec<String> = files
            .keys()
            .filter(|path| union.at(verb).join(path_of(path)).is_file())
            .map(|path| String::from_utf8_lossy(path).into_owned())
            .collect();
        names
    };
    let expected = ["a/conf", "b/conf", "opaque/old", "tree/sub/y", "tree/x"];
    assert_eq!(all("cp"), expected);
    assert_eq!(all("restore"), expected);
    assert_eq!(fs::read(union.at("cp/tree/sub/y")).expect("it"), b"y");
}

fn path_of(path: &[u8]) -> PathBuf {
    PathBuf::from(String::from_utf8_lossy(path).into_owned())
}

#[apply(test)]
fn all_that_was_deleted_in_all_containers_is_one_command() {
    let host = Host::fixture("blog-host");
    let out = tempfile::tempdir().expect("a temporary directory");
    let to = out.path().join("rescued");
    let rows = host
        .jsonl([
            "cp".as_ref(),
            "--all-deleted".as_ref(),
            "--to".as_ref(),
            to.as_os_str(),
        ])
        .rows();
    let mut deleted = 0;
    for row in host.jsonl(["changes"]).rows() {
        if row["change"] != "deleted" {
            continue;
        }
        deleted += 1;
        let (target, path) = (text(&row, "target"), text(&row, "path"));
        let copy = rows
            .iter()
            .find(|of| of["target"] == target && of["path"] == path);
        let copy = copy.unwrap_or_else(|| panic!("{target}:{path} was not copied"));
        let at = to.join(target).join(&path[1..]);
        assert_eq!(text(copy, "to"), at.to_str().expect("text"));
        if at.is_file() {
            let hidden = host.ask(["cat", "--hidden", &format!("{target}:{path}")]);
            assert!(fs::read(&at).expect("it") == hidden.stdout, "{path}");
        }
    }
    assert!(
        deleted > 1 && rows.len() == deleted,
        "{deleted} {}",
        rows.len()
    );
}

/// The names and the bytes are those of the layers, laid over each other by hand.
#[apply(test)]
fn the_export_of_all_that_was_deleted_is_complete() {
    needs::time();
    needs::captured_hosts();
    for name in ["docker-28-overlay2", "podman-5.8-overlay"] {
        let host = Host::captured(name);
        let out = tempfile::tempdir().expect("a temporary directory");
        let to = out.path().join("rescued");
        let words = ["cp", "--all-deleted", "--to"].map(OsStr::new);
        host.jsonl(words.into_iter().chain([to.as_os_str()]))
            .exits(0);
        let mut expected: Vec<PathBuf> = Vec::new();
        for union in host.jsonl(["containers"]).exits(0).rows() {
            let target = text(&union, "target");
            let layers = host.branches_of(target);
            let (image, union) = (laid(&host, &layers[1..]), laid(&host, &layers));
            for (path, was) in image.seen {
                if union.seen.contains_key(&path) {
                    continue;
                }
                let at = to.join(target).join(&path);
                let kept = fs::symlink_metadata(&at);
                let kept = kept.unwrap_or_else(|error| panic!("{}: {error}", at.display()));
                assert_eq!(kept.file_type(), was.meta.file_type(), "{}", at.display());
                if kept.is_file() {
                    let same = fs::read(&at).expect("it") == fs::read(&was.at).expect("it");
                    assert!(same, "{}", at.display());
                }
                expected.push(at);
            }
        }
        assert!(expected.len() > 20, "{name}: {expected:?}");
        for entry in walkdir::WalkDir::new(&to) {
            let path = entry.expect("our own").into_path();
            let is_one = expected.iter().any(|of| of.starts_with(&path));
            assert!(is_one, "{name}: {} was not deleted", path.display());
        }
    }
}

#[apply(test)]
fn restore_takes_many_paths() {
    let union = Union::usual();
    union
        .file("low/a", "a")
        .file("mid/b/x", "x")
        .mark("up/.wh.a")
        .mark("up/.wh.b");
    let restore = |options: &[&str], paths: &[&str]| {
        let mut command = run::command();
        command.args(["--format", "jsonl", "restore", "--in"]);
        command
            .arg(union.spelled())
            .args(options)
            .arg("--")
            .args(paths);
        run::run(command.current_dir(union.home()))
    };
    let rows = restore(&["--dry-run"], &["/a", "/b/x"]).exits(0).rows();
    assert_eq!(rows.len(), 2);
    restore(&["--to", "out"], &["/a", "/b/x"]).exits(0);
    assert!(union.at("out/a").is_file() && union.at("out/b/x").is_file());
    assert_eq!(restore(&[], &["/a", "/nothing"]).exits(1).rows().len(), 2);
    union.mark("up/.wh.a");
    restore(&["--all-deleted"], &[]).exits(0);
    assert!(!union.at("up/.wh.a").exists() && !union.at("up/.wh.b").exists());
    let mut command = run::command();
    run::run(command.args(["restore", "--all-deleted"]))
        .exits(2)
        .says("--all-deleted TARGET");
}

#[apply(test)]
fn a_tar_file_has_all_that_belongs_to_it() {
    needs::root("owners and devices");
    needs::program("tar", "--version");
    let union = rich();
    union.file("low/d/large-id", "");
    let output = cp(&union, &[], &["/d"], "-");
    assert_eq!(
        output.status,
        Some(2),
        "the form is refused: {}",
        output.stderr
    );
    let mut command = run::command();
    command
        .args(["cp", "--in"])
        .arg(union.spelled())
        .args(["--", "/d", "-"]);
    let output = run::run(&mut command).exits(0);
    assert_eq!(output.stdout.len() % 512, 0);
    assert!(
        output.stdout.ends_with(&[0; 1024]),
        "two empty blocks end it"
    );
    union.dir("unpacked");
    fs::write(union.at("d.tar"), &output.stdout).expect("our own");
    let status = Command::new("tar")
        .args([
            "--xattrs",
            "--xattrs-include=*",
            "--numeric-owner",
            "-xpf",
            "d.tar",
            "-C",
            "unpacked",
        ])
        .current_dir(union.home())
        .status();
    assert!(status.expect("tar").success());
    assert_same(&expected(&union), &copied(&union.at("unpacked/d")));
    let sparse = fs::metadata(union.at("unpacked/d/sparse")).expect("it");
    assert!(sparse.blocks() * 512 < 1 << 20, "holes are kept");
    let hard = |name: &str| {
        fs::metadata(union.at(format!("unpacked/d/{name}")))
            .expect("it")
            .ino()
    };
    assert_eq!(hard("one"), hard("hard"));
    // Another reader than GNU's.
    let mut archive = tar::Archive::new(&output.stdout[..]);
    let entries = archive.entries().expect("a tar file");
    let names: Vec<PathBuf> = entries
        .map(|entry| {
            entry
                .expect("an entry")
                .path()
                .expect("a path")
                .into_owned()
        })
        .collect();
    assert!(
        names.contains(&PathBuf::from("d/gr\u{fc}n \x1b")),
        "{names:?}"
    );
}

#[apply(test)]
fn what_an_ordinary_user_cannot_make_is_said() {
    needs::root("another user");
    let union = rich();
    union
        .file("low/d/suid", "runs")
        .owner("low/d/suid", 1234, 1234)
        .mode("low/d/suid", 0o4755);
    let stack = union.spelled();
    fs::set_permissions(
        union.home(),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .expect("our own");
    union.dir("theirs").owner("theirs", 1000, 1000);
    let program = union.at("layerctl");
    run::copy_program(env!("CARGO_BIN_EXE_layerctl"), &program);
    let ask = |options: &[&str], to: &str| {
        let mut command = Command::new(&program);
        command
            .args(["cp", "--in"])
            .arg(&stack)
            .args(options)
            .args(["--", "/d"])
            .arg(union.at(to))
            .env_clear()
            .stdin(Stdio::null())
            .uid(1000)
            .gid(1000);
        run::run(&mut command)
    };
    let output = ask(&["-a"], "theirs/kept").exits(2);
    let output = output.says("/d/null").says("only root can make");
    assert!(
        output.stderr.contains("owner could not be kept"),
        "{}",
        output.stderr
    );
    // What may not be read is said, and has no copy.
    assert!(
        output.stderr.contains("/d/one: Permission denied"),
        "{}",
        output.stderr
    );
    assert!(!union.at("theirs/kept/one").exists());
    assert_eq!(fs::read(union.at("theirs/kept/suid")).expect("it"), b"runs");
    let mode = fs::metadata(union.at("theirs/kept/suid"))
        .expect("it")
        .mode();
    assert_eq!(mode & 0o7777, 0o755, "not set-user-id of another user");
    assert!(!union.at("theirs/kept/null").exists());
}

/// Content, and no link's length; into a directory that is there, of all that was copied.
#[apply(test)]
fn how_much_was_copied_is_told() {
    let union = Union::usual();
    union
        .file("low/d/one", "1234567")
        .file("mid/d/two", "12345")
        .file("low/d/sub/three", "123")
        .link("low/d/link", "a/long/way");
    for options in [&[][..], &["--force"]] {
        let row = cp(&union, options, &["/d/."], "new").exits(0).row();
        assert_eq!(row["size"], 15, "{row}");
    }
}

/// What a copy cannot have is said once, with how often and of which: by the name that it has in the
/// union, whatever it is called until it has its place.
#[apply(test)]
fn what_copies_lack_is_counted() {
    needs::root("another user");
    let union = Union::usual();
    for name in ["one", "two", "three"] {
        union.file(format!("low/d/{name}"), name);
    }
    union
        .dir("low/empty/inner")
        .dir("theirs")
        .owner("theirs", 1000, 1000);
    union.mode("", 0o755);
    let program = union.at("layerctl");
    run::copy_program(env!("CARGO_BIN_EXE_layerctl"), &program);
    for (options, path, to, said) in [
        (&["-a"][..], "/d", "new", "(and of 3 more)"),
        (&["-a", "--force"], "/d/.", "new", "(and of 2 more)"),
        (
            &["-a"],
            "/empty",
            "copy",
            "/empty/inner: the owner could not be kept (and of one more)",
        ),
    ] {
        let inner = command(
            &union,
            options,
            &[path],
            union.at("theirs").join(to).as_os_str(),
        );
        let mut command = Command::new(&program);
        command
            .args(inner.get_args())
            .env_clear()
            .stdin(Stdio::null());
        let output = run::run(command.uid(1000).gid(1000)).exits(2);
        let lines: Vec<&str> = output.stderr.lines().collect();
        let [line] = lines[..] else {
            panic!("{path}: {lines:?}");
        };
        assert!(line.contains("the owner could not be kept"), "{line}");
        assert!(line.ends_with(said), "{line}");
        assert!(!line.contains(".layerctl-"), "{line}");
    }
}

/// What a new file inherits and cannot be rid of, the original had not.
#[apply(test)]
fn an_inherited_access_list_that_stays_is_said() {
    needs::root("another's access list");
    needs::strace();
    let union = Union::usual();
    let none = [255; 4];
    let entries = [
        (1u8, 7u8, none),
        (2, 4, [232, 3, 0, 0]),
        (4, 0, none),
        (16, 4, none),
        (32, 0, none),
    ];
    let entries = entries.map(|(tag, may, id)| [&[tag, 0, may, 0][..], &id].concat());
    let list = [&[2, 0, 0, 0][..], &entries.concat()].concat();
    union
        .file("low/f", "f")
        .dir("out")
        .xattr("out", "system.posix_acl_default", &list);
    for (how, is_said) in [("error=EOPNOTSUPP", true), ("delay_enter=1", false)] {
        let to = OsStr::new(if is_said { "out/one" } else { "out/two" });
        let inner = command(&union, &["-a"], &["/f"], to);
        let output = injected("fremovexattr", how, Path::new("/dev/null"), &inner);
        assert_eq!(output.status.code(), Some(if is_said { 2 } else { 0 }));
        let said = String::from_utf8_lossy(&output.stderr);
        let words = "/f: not all attributes could be kept";
        assert_eq!(said.contains(words), is_said, "{how}: {said}");
    }
}

/// A link is made of what was copied before, unless that was taken away again.
#[apply(test)]
fn no_link_is_made_of_what_was_taken_back() {
    needs::root("a file system of its own");
    needs::mounts();
    let union = Union::usual();
    union
        .file("low/d/a", "linked")
        .file("low/d/large", vec![7; 3 << 20])
        .hard_link("low/d/a", "low/z")
        .dir("full");
    let script = "mount -t tmpfs -o size=1m tmpfs full && \"$@\"; echo $?; ls -A full; cat full/z";
    let inner = command(&union, &[], &["/d", "/z"], "full".as_ref());
    let mut outer = needs::own_mounts();
    outer.args(["sh", "-c", script, "sh"]);
    let output = run::run(&mut under(outer, &inner));
    assert!(
        output.text().ends_with("\n2\nz\nlinked"),
        "{}{}",
        output.text(),
        output.stderr
    );
    assert_eq!(output.stderr.lines().count(), 1, "{}", output.stderr);
}

/// Of two things one of which lies in the other, the first could be a link for whoever unpacks both.
#[apply(test)]
fn a_tar_file_has_nothing_below_what_it_has_already() {
    let union = Union::usual();
    union
        .link("low/d/x", "../elsewhere")
        .file("low/e/x/y", "content");
    for paths in [["/d/x", "/e/x"], ["/e/x", "/d/x"]] {
        let mut cp = run::command();
        cp.args(["cp", "--in"])
            .arg(union.spelled())
            .arg("--")
            .args(paths)
            .arg("-");
        let output = run::run(&mut cp);
        assert_eq!(output.status, Some(2), "{paths:?}");
        assert!(
            output.stderr.contains("lies in what was named before it"),
            "{}",
            output.stderr
        );
        let names: Vec<Vec<u8>> = crate::lab::archive::read(&output.stdout[..])
            .into_iter()
            .map(|of| of.0)
            .collect();
        let is_below = |name: &Vec<u8>| name.starts_with(b"x/") && name.len() > 2;
        assert!(
            paths[0] == "/e/x" || !names.iter().any(is_below),
            "{names:?}"
        );
    }
}

/// A file may be larger than its user may make one: an error, and nothing is left of it.
#[apply(test)]
fn a_limit_of_the_user_leaves_nothing_half_made() {
    needs::program("prlimit", "util-linux");
    let union = Union::usual();
    union.file("low/d/large", vec![7; 1 << 20]).dir("out");
    let inner = command(&union, &[], &["/d/large"], "out".as_ref());
    let mut outer = Command::new("prlimit");
    outer.arg("--fsize=65536");
    let output = run::run(&mut under(outer, &inner));
    assert_eq!(output.status, Some(2), "{}", output.stderr);
    assert!(
        output.stderr.contains("File too large"),
        "{}",
        output.stderr
    );
    assert_eq!(fs::read_dir(union.at("out")).expect("our own").count(), 0);
}

#[apply(test)]
fn a_full_disk_leaves_nothing_half_made() {
    needs::root("a file system of its own");
    needs::mounts();
    let union = Union::usual();
    union
        .file("low/d/small", "x")
        .file("low/d/large", vec![7; 3 << 20]);
    union.dir("full");
    let script = "mount -t tmpfs -o size=1m tmpfs full && \"$@\"; echo $?; ls -A full";
    let mut outer = needs::own_mounts();
    outer.args(["sh", "-c", script, "sh"]);
    for path in ["/d", "/d/large"] {
        let inner = command(&union, &[], &[path], "full".as_ref());
        let mut outer = needs::own_mounts();
        outer.args(["sh", "-c", script, "sh"]);
        let output = run::run(&mut under(outer, &inner));
        let lines: Vec<&str> = output.text().lines().collect();
        assert_eq!(lines.last(), Some(&"2"), "{path}: {}", output.text());
        assert!(output.stderr.contains("No space left"), "{}", output.stderr);
    }
}

#[apply(test)]
fn killed_at_any_moment_it_is_whole_or_not_there() {
    needs::time();
    needs::strace();
    let make = || {
        let union = Union::usual();
        union
            .file("low/d/f", "content")
            .file("mid/d/g/h", "more")
            .hard_link("low/d/f", "low/d/hard")
            .link("low/d/l", "f")
            .xattr("low/d/f", "user.x", b"y")
            .dir("out")
            .time_all(1_000_000_000);
        union
    };
    let union = make();
    let ask = |union: &Union| command(union, &["-a"], &["/d"], "out".as_ref());
    run::run(&mut ask(&union)).exits(0);
    let whole = tree(&union.at("out"));
    let mut killed = 0;
    for call in [
        "renameat",
        "renameat2",
        "linkat",
        "mkdirat",
        "symlinkat",
        "write",
        "ftruncate",
        "copy_file_range",
        "ioctl",
        "fchmod",
        "fchmodat",
        "fchown",
        "fchownat",
        "fsetxattr",
        "setxattr",
        "removexattr",
        "fremovexattr",
        "utimensat",
        "openat",
    ] {
        for count in 1.. {
            let union = make();
            let output = killed_at(call, count, &ask(&union));
            if output.status.success() {
                break;
            }
            killed += 1;
            // What was being made is hidden, and known by its name.
            let found = || {
                let mut found = tree(&union.at("out"));
                found.retain(|path, _| !path.starts_with(b".layerctl-"));
                found
            };
            let then = found();
            assert!(
                then.is_empty() || then == whole,
                "killed before {call} number {count}: {then:#?}"
            );
            run::run(&mut ask(&union)).exits(if then.is_empty() { 0 } else { 2 });
            assert_same(&whole, &found());
        }
    }
    assert!(killed > 20, "only {killed} kills: is strace working?");
}

#[apply(test)]
fn ctrl_c_leaves_nothing() {
    needs::time();
    // A view's root has no name, and is copied as whole as what has one.
    for (path, to) in [("/d", "out"), ("/", "out/new")] {
        interrupt(path, to);
    }
}

fn interrupt(path: &str, to: &str) {
    let union = Union::usual();
    union.dir("out");
    for number in 0..3000 {
        union.file(format!("low/d/{number}"), "x");
    }
    let mut child = command(&union, &[], &[path], to.as_ref())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it was built");
    while fs::read_dir(union.at("out"))
        .expect("our own")
        .next()
        .is_none()
    {
        assert!(
            child.try_wait().expect("our child").is_none(),
            "it was too fast"
        );
    }
    let id = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(id, rustix::process::Signal::TERM).expect("our child");
    let status = child.wait().expect("our child");
    let mut said = String::new();
    let mut stderr = child.stderr.take().expect("piped");
    stderr.read_to_string(&mut said).expect("text");
    assert_eq!(status.code(), Some(2), "{said}");
    assert!(said.contains("interrupted"), "{said}");
    assert_eq!(fs::read_dir(union.at("out")).expect("our own").count(), 0);
}

#[apply(test)]
fn a_fifo_is_copied_and_never_opened_and_depth_has_no_limit() {
    needs::time();
    let union = Union::usual();
    union.node("low/d/fifo", FileType::Fifo, 0);
    cp(&union, &[], &["/d"], "out").exits(0);
    let made = fact(&union.at("out/fifo"), Detail::Copied);
    assert_eq!(made, fact(&union.at("low/d/fifo"), Detail::Copied));
    let home = tempfile::tempdir().expect("a temporary directory");
    let deep = Deep::make(home.path().join("low"), 10_000);
    // It removes what is in it, however deep.
    let out = Deep::make(home.path().join("out"), 0);
    let stack = crate::lab::host::spelled(&[(&home.path().join("low"), "ro")]);
    let to = home.path().join("out");
    let words: [&OsStr; 6] = [
        "cp".as_ref(),
        "--in".as_ref(),
        &stack,
        "--".as_ref(),
        "/".as_ref(),
        to.as_os_str(),
    ];
    let output = layerctl(words).exits(0);
    assert!(output.text().contains("10000"), "{}", output.text());
    drop((deep, out));
}

#[apply(test)]
fn a_view_s_root_is_copied_with_all_that_belongs_to_it() {
    let union = Union::usual();
    union
        .file("low/a/f", "x")
        .hard_link("low/a/f", "low/a/g")
        .dir("low/b");
    fs::hard_link(union.at("low/a/f"), union.at("low/b/h")).expect("our own");
    union.mode("up", 0o750).xattr("up", "user.of", b"the root");
    cp(&union, &["-a"], &["/"], "new").exits(0);
    let ino = |name: &str| fs::metadata(union.at(name)).expect("it").ino();
    assert_eq!(
        ino("new/a/f"),
        ino("new/b/h"),
        "hard links of two directories"
    );
    let [root, copy] = ["up", "new"].map(|name| fact(&union.at(name), Detail::Copied));
    assert_eq!(root, copy);
    // So they are among the entries of a directory that are copied side by side, and of several.
    union.dir("beside").hard_link("low/a/f", "low/top");
    cp(&union, &["-a"], &["/a/.", "/top", "/b/h"], "beside").exits(0);
    for name in ["g", "top", "h"] {
        assert_eq!(ino("beside/f"), ino(&format!("beside/{name}")), "{name}");
    }
    // One that is a name of the same already stays, and nothing is left beside it.
    cp(&union, &["--force"], &["/a/f", "/a/f", "/a/g"], "beside").exits(0);
    let mut names: Vec<_> = fs::read_dir(union.at("beside"))
        .expect("ours")
        .map(|entry| entry.expect("ours").file_name())
        .collect();
    names.sort_unstable();
    assert_eq!(names, ["f", "g", "h", "top"]);
    // Into what is there it is added.
    cp(&union, &["--force"], &["/"], "new").exits(0);
    cp(&union, &[], &["/"], "new").exits(2).says("exists");
}

/// Lets two names change places as long as something runs.
fn swapping(union: &Union, pairs: &[(&str, &str)], run: impl FnOnce()) {
    let is_done = std::sync::atomic::AtomicBool::new(false);
    let order = std::sync::atomic::Ordering::Relaxed;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_done.load(order) {
                for (a, b) in pairs {
                    let (a, b) = (union.at(a), union.at(b));
                    let flags = rustix::fs::RenameFlags::EXCHANGE;
                    let cwd = rustix::fs::CWD;
                    rustix::fs::renameat_with(cwd, a, cwd, b, flags).expect("our own");
                }
            }
        });
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
        is_done.store(true, order);
        if let Err(why) = ended {
            std::panic::resume_unwind(why);
        }
    });
}

#[apply(test)]
fn what_is_swapped_while_it_is_copied_is_one_or_the_other() {
    needs::time();
    needs::strace();
    let union = Union::of(&[("up", "rw"), ("aside", "rw"), ("low", "ro+wh")]);
    let mut pairs = Vec::new();
    for number in 0..8 {
        let (a, b) = (format!("up/d/f{number}"), format!("aside/f{number}"));
        // What everybody may read, and what nobody may.
        union
            .file(&a, "open")
            .mode(&a, 0o644)
            .xattr(&a, "user.is", b"open");
        union
            .file(&b, "secret")
            .mode(&b, 0o600)
            .xattr(&b, "user.is", b"secret");
        pairs.push((a, b));
        let (a, b) = (format!("up/d/k{number}"), format!("aside/k{number}"));
        match number % 3 {
            0 => union.file(&a, "x").node(&b, FileType::Fifo, 0),
            1 => union.link(&a, "x").dir(&b),
            // An overlay would have deleted it.
            _ => union.file(&a, "x").node(&b, FileType::CharacterDevice, 0),
        };
        pairs.push((a, b));
    }
    let pairs: Vec<(&str, &str)> = pairs.iter().map(|(a, b)| (&a[..], &b[..])).collect();
    let mut stack = OsString::from("upperdir=");
    stack.push(union.at("up"));
    stack.push(",lowerdir=");
    stack.push(union.at("low"));
    swapping(&union, &pairs, || {
        for round in 0..10 {
            let to = format!("out{round}");
            let mut inner = run::command();
            inner
                .args(["cp", "-a", "--in"])
                .arg(&stack)
                .args(["--", "/d", &to]);
            inner.current_dir(union.home());
            // Between two looks there is time.
            let calls = "newfstatat,openat,llistxattr";
            crate::lab::held::injected(calls, "delay_exit=1500", "/dev/null".as_ref(), &inner);
            for entry in fs::read_dir(union.at(&to)).expect("it was copied") {
                let path = entry.expect("an entry").path();
                let name = path.file_name().expect("a name").to_owned();
                let metadata = fs::symlink_metadata(&path).expect("an entry");
                let fact = fact(&path, Detail::Copied);
                if name.as_bytes().starts_with(b"f") {
                    let is_secret = metadata.mode() & 0o7777 == 0o600;
                    let words = if is_secret { "secret" } else { "open" };
                    let content = fs::read_to_string(&path).expect("a file");
                    let has = format!("user.is={:?}", words.as_bytes());
                    assert!(content == words && fact.contains(&has), "{name:?} {fact}");
                } else {
                    let kind = std::os::unix::fs::FileTypeExt::is_char_device;
                    assert!(!kind(&metadata.file_type()), "the union's own mark: {fact}");
                    let socket = std::os::unix::fs::FileTypeExt::is_socket;
                    assert!(!socket(&metadata.file_type()), "nobody made one: {fact}");
                }
            }
        }
    });
}

#[apply(test)]
fn a_file_that_grows_ends_where_it_ended_when_it_was_opened() {
    use std::io::Write;
    const SIZE: usize = 1 << 20;
    let union = Union::usual();
    let words: [&[&str]; 2] = [&["cat", "--in"], &["cp", "--in"]];
    for (number, words) in words.into_iter().enumerate() {
        let name = format!("log{number}");
        union.file(format!("up/{name}"), vec![b'x'; SIZE]);
        let mut command = run::command();
        command
            .args(words)
            .arg(union.spelled())
            .arg("--")
            .arg(format!("/{name}"));
        if number == 1 {
            command.arg("-");
        }
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it was built");
        let mut log = fs::File::options()
            .append(true)
            .open(union.at(format!("up/{name}")))
            .expect("our own");
        let mut stdout = child.stdout.take().expect("piped");
        let mut buffer = vec![0; 16 << 10];
        let mut length = 0;
        loop {
            let count = stdout.read(&mut buffer).expect("a pipe");
            length += count;
            if count == 0 || length > 4 * SIZE {
                break;
            }
            log.write_all(&[b'y'; 32 << 10]).expect("our own");
        }
        drop(stdout);
        let output = child.wait_with_output().expect("our child");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(length < SIZE + 8192, "{words:?}: {length} bytes");
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains("was changed while it was read"), "{said}");
    }
}

/// What is only set aside for a file is a hole of it (`fallocate`).
#[apply(test)]
fn what_is_set_aside_and_not_written_stays_a_hole() {
    let union = Union::of(&[("a", "ro")]);
    let file = fs::File::create(union.at("a/disk")).expect("our own");
    let size = 8 << 20;
    let set_aside = rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, size);
    let first = rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(0));
    if set_aside.is_err() || first.is_ok() {
        in_part("this file system does not tell what is set aside");
        return;
    }
    cp(&union, &[], &["/disk"], "copy").exits(0);
    let copy = fs::metadata(union.at("copy")).expect("it");
    assert_eq!((copy.size(), copy.blocks()), (size, 0));
    let mut command = run::command();
    command
        .args(["cp", "--in"])
        .arg(union.spelled())
        .args(["--", "/disk", "-"]);
    let archive = run::run(&mut command).exits(0).stdout;
    assert!(archive.len() < 1 << 20, "{} bytes", archive.len());
}
