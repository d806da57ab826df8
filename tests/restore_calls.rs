//! Every call that changes a disk is made in one module, by a descriptor, and never follows a link:
//! held to it twice, by what stands in the source and by what the kernel is asked for.

use std::fs;
use std::path::Path;
use std::process::Command;

use quote::ToTokens;
use syn::visit::{self, Visit};
use walkdir::WalkDir;

use crate::lab::{has_strace, is_root, skip};

// It is AUFS's, too, and not all of it is of use here.
#[allow(dead_code, clippy::duplicate_mod)]
#[path = "lab/union.rs"]
mod union;

use union::Union;

/// Calls that change something, by a name or by a descriptor.
const CHANGING: [&str; 22] = [
    "chmodat",
    "chownat",
    "utimensat",
    "linkat",
    "symlinkat",
    "mknodat",
    "mkdirat",
    "renameat",
    "renameat_with",
    "unlinkat",
    "fchmod",
    "fchown",
    "futimens",
    "fsetxattr",
    "fremovexattr",
    "setxattr",
    "removexattr",
    "lsetxattr",
    "lremovexattr",
    "chmod",
    "chown",
    "ftruncate",
];

/// The one module that may make them.
const MADE: &str = "restore/made";

/// What is wrong with the calls of a file.
struct Calls {
    is_made: bool,
    wrong: Vec<String>,
    changing: usize,
}

impl<'ast> Visit<'ast> for Calls {
    // Tests make and spoil the disk that the program only reads.
    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        let is_test = |attribute: &syn::Attribute| {
            attribute.path().is_ident("cfg")
                && attribute.to_token_stream().to_string().contains("test")
        };
        if !module.attrs.iter().any(is_test) {
            visit::visit_item_mod(self, module);
        }
    }

    fn visit_expr_call(&mut self, call: &'ast syn::ExprCall) {
        if let syn::Expr::Path(function) = &*call.func
            && let Some(name) = function.path.segments.last()
        {
            self.check(&name.ident.to_string(), call);
        }
        visit::visit_expr_call(self, call);
    }
}

impl Calls {
    fn check(&mut self, name: &str, call: &syn::ExprCall) {
        let is_of_rustix = matches!(&*call.func, syn::Expr::Path(path) if path
            .path
            .segments
            .iter()
            .any(|segment| segment.ident == "fs" || segment.ident == "rustix"));
        if CHANGING.contains(&name) && is_of_rustix {
            self.changing += 1;
            if !self.is_made {
                self.wrong
                    .push(format!("{name} is called outside of {MADE}"));
            }
        }
        if !self.is_made {
            return;
        }
        let words = call.args.to_token_stream().to_string();
        // By the kernel's own link to a descriptor, or by the descriptor alone.
        let is_held = words.contains("held . path ()") || words.contains(", path ,");
        let is_right = match name {
            "chmodat" | "setxattr" | "removexattr" => is_held,
            "chownat" => words.contains("c\"\"") && words.contains("EMPTY_PATH"),
            "utimensat" => words.contains("EMPTY_PATH") || is_held,
            "linkat" => is_held && words.contains("SYMLINK_FOLLOW"),
            "openat" => words.contains("flags"),
            "lsetxattr" | "lremovexattr" | "chmod" | "chown" => false,
            _ => true,
        };
        if !is_right {
            self.wrong.push(format!("{name}({words}) acts on a name"));
        }
    }
}

fn calls_of(source: &str, is_made: bool) -> Calls {
    let file = syn::parse_file(source).expect("it compiles");
    let mut calls = Calls {
        is_made,
        wrong: Vec::new(),
        changing: 0,
    };
    calls.visit_file(&file);
    calls
}

#[apply(test)]
fn only_one_module_changes_a_disk_and_by_descriptor() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = Vec::new();
    let mut changing = 0;
    for entry in WalkDir::new(&src) {
        let entry = entry.expect("our own source");
        if entry
            .path()
            .extension()
            .is_none_or(|extension| extension != "rs")
        {
            continue;
        }
        let source = fs::read_to_string(entry.path()).expect("our own source");
        let is_made = entry.path().starts_with(src.join(MADE));
        let found = calls_of(&source, is_made);
        if is_made {
            changing += found.changing;
            // What is opened there is opened without following.
            for flags in source.split("let flags = ").skip(1) {
                let flags = flags.split(';').next().unwrap_or_default();
                if flags.contains("OFlags") && !flags.contains("NOFOLLOW") {
                    wrong.push(format!("{MADE}: {flags} follows"));
                }
            }
        }
        let of_file = found.wrong.iter();
        wrong.extend(of_file.map(|what| format!("{}: {what}", entry.path().display())));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(
        changing > 15,
        "only {changing} calls found: is {MADE} there?"
    );
}

/// The test above finds what it is for.
#[apply(test)]
fn a_call_on_a_name_is_found() {
    for (source, is_made) in [
        (
            "fn f() { fs::chmodat(&dir, name, mode, AtFlags::empty()); }",
            true,
        ),
        ("fn f() { rustix::fs::unlinkat(&dir, name, flags); }", false),
        (
            "fn f() { fs::chownat(&dir, name, u, g, AtFlags::SYMLINK_NOFOLLOW); }",
            true,
        ),
        (
            "fn f() { g(|| fs::linkat(a, b, c, d, AtFlags::empty())); }",
            true,
        ),
    ] {
        assert_eq!(calls_of(source, is_made).wrong.len(), 1, "{source}");
    }
}

/// What is wrong with a call that the kernel was asked for, as strace writes it.
fn is_wrong(line: &str) -> Option<&'static str> {
    let call = line.trim_start_matches(|c: char| c.is_ascii_digit() || c == ' ');
    let (name, arguments) = call.split_once('(')?;
    let by_link = arguments.contains("\"/proc/self/fd/");
    let writes = arguments.contains("O_WRONLY")
        || arguments.contains("O_RDWR")
        || arguments.contains("O_CREAT");
    match name {
        "open" | "creat" if writes => Some("opens a path"),
        "openat" if writes && !arguments.contains("O_NOFOLLOW") && !by_link => {
            Some("opens for writing, and follows")
        }
        "chmod" | "chown" | "lchown" | "mknod" | "mkdir" | "symlink" | "link" | "unlink"
        | "rmdir" | "rename" | "truncate" | "utime" | "utimes" => Some("acts on a path"),
        "fchmodat" | "fchmodat2" | "setxattr" | "removexattr" if !by_link => {
            Some("acts on a name, and follows")
        }
        "lsetxattr" | "lremovexattr" | "futimesat" => Some("acts on a name"),
        "fchownat" | "utimensat"
            if !by_link
                && !arguments.contains("AT_EMPTY_PATH")
                && !arguments.contains(", NULL,") =>
        {
            Some("acts on a name")
        }
        "linkat" if !by_link => Some("links what has a name"),
        "mkdirat" | "mknodat" | "symlinkat" | "unlinkat" | "renameat" | "renameat2"
            if arguments.contains("AT_FDCWD") =>
        {
            Some("acts on a path")
        }
        _ => None,
    }
}

/// A tree with every kind of file, attributes, and two names of one file.
fn tree() -> Union {
    use rustix::fs::{FileType, makedev};
    let union = Union::usual();
    union
        .file("low/d/sub/file", "content")
        .hard_link("low/d/sub/file", "low/d/other")
        .xattr("low/d/sub/file", "user.a", b"b")
        .link("low/d/link", "target")
        .node("low/d/fifo", FileType::Fifo, 0)
        .node("low/d/socket", FileType::Socket, 0)
        .node("low/d/char", FileType::CharacterDevice, makedev(1, 3))
        .node("low/d/block", FileType::BlockDevice, makedev(7, 201))
        .xattr("low/d/fifo", "trusted.a", b"b")
        .owner("low/d/link", 12, 34)
        .owner("low/d/fifo", 12, 34)
        .owner("low/d/sub/file", 12, 34)
        .mark("up/.wh.d")
        .file("low/changed", "old")
        .file("up/changed", "new")
        .dir("out")
        .dir("up/.wh..wh.plnk")
        .mark("up/.wh..wh.aufs");
    union
}

#[apply(test)]
fn the_kernel_is_asked_for_nothing_by_name_that_follows() {
    if !has_strace() || !is_root() {
        skip("strace is not installed, or this is not root");
    }
    for (options, path) in [
        (&["-r", "--strategy", "copy"][..], "/d"),
        (&["-r", "--to", "out"], "/d"),
        (&["--strategy", "copy"], "/d/sub/file"),
        (&[], "/d"),
        (&["--revert", "--save", "out"], "/changed"),
    ] {
        let union = tree();
        let trace = union.at("trace");
        let inner = union.command(options, path);
        let mut strace = Command::new("strace");
        strace.args(["-f", "-qq", "-s", "300", "-e", "trace=%file,%desc", "-o"]);
        strace
            .arg(&trace)
            .arg(inner.get_program())
            .args(inner.get_args());
        strace.current_dir(union.home());
        let output = strace.output().expect("strace");
        assert!(output.status.success(), "{options:?}: {output:?}");
        let trace = fs::read_to_string(trace).expect("what strace wrote");
        let wrong: Vec<String> = trace
            .lines()
            .filter_map(|line| Some(format!("{}: {line}", is_wrong(line)?)))
            .collect();
        assert!(wrong.is_empty(), "{options:?}\n{}", wrong.join("\n"));
        assert!(
            trace.contains("unlinkat") || trace.contains("renameat"),
            "{trace}"
        );
    }
}

/// The path in `FD<PATH>`, as `strace -y` writes a descriptor, from the last of them before `mark`.
fn directory_before<'l>(call: &'l str, mark: &str) -> &'l str {
    let before = &call[..call.find(mark).expect("a call on a name")];
    let from = before.rfind('<').expect("a descriptor") + 1;
    before[from..].trim_end_matches('>')
}

/// What a power cut could undo: paths that were changed and not synced since. No name is given or
/// taken away before everything else lasts, and in the end all of it does.
fn is_undone_by_a_power_cut(trace: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut pending = std::collections::BTreeSet::new();
    for line in trace.lines().filter(|line| !line.contains(" = -1 ")) {
        let call = line.trim_start_matches(|c: char| c.is_ascii_digit() || c == ' ');
        let Some((name, arguments)) = call.split_once('(') else {
            continue;
        };
        let descriptor = || {
            let path = arguments.split_once('<').expect("a descriptor").1;
            path.split_once('>').expect("its end").0.to_owned()
        };
        match name {
            "openat" if arguments.contains("O_CREAT") => {
                let made = arguments.rsplit_once('<').expect("a descriptor").1;
                pending.insert(made.trim_end_matches('>').to_owned());
                pending.insert(descriptor());
            }
            "fsetxattr" | "mkdirat" | "mknodat" => {
                pending.insert(descriptor());
            }
            "symlinkat" => {
                pending.insert(directory_before(arguments, ">, \"").to_owned());
            }
            "linkat" => {
                let to = arguments.rsplit_once(">, \"").expect("a directory").0;
                pending.insert(to.rsplit_once('<').expect("a descriptor").1.to_owned());
            }
            "renameat2" | "unlinkat" => {
                let directory = descriptor();
                let others = pending.iter().filter(|path| **path != directory);
                wrong.extend(others.map(|path| format!("{path} before {line}")));
                pending.insert(directory);
            }
            "fsync" => {
                pending.remove(&descriptor());
            }
            _ => {}
        }
    }
    wrong.extend(pending.into_iter().map(|path| format!("{path} in the end")));
    wrong
}

#[apply(test)]
fn no_power_cut_leaves_half_of_it() {
    if !has_strace() || !is_root() {
        skip("strace is not installed, or this is not root");
    }
    let mut is_synced_twice = false;
    for (options, path) in [
        (&["-r", "--strategy", "copy"][..], "/d"),
        (&["-r", "--to", "out"], "/d"),
        (&["--strategy", "copy"], "/d/sub/file"),
        (&["--strategy", "copy"], "/anew/file"),
        (&["--strategy", "copy"], "/new/way/file"),
        (&[], "/d"),
        (&["--revert", "--save", "out"], "/changed"),
        (&["--revert", "--discard"], "/changed"),
    ] {
        let union = tree();
        union
            .mark("up/.wh.anew")
            .mark("mid/anew/.wh..wh..opq")
            .file("mid/anew/file", "content")
            .file("mid/anew/stays_hidden", "")
            .mark("mid/new/way/.wh.file")
            .file("low/new/way/file", "content");
        let trace = union.at("trace");
        let inner = union.command(options, path);
        let mut strace = Command::new("strace");
        strace.args(["-f", "-qq", "-y", "-e"]).arg(
            "trace=openat,mkdirat,mknodat,symlinkat,linkat,renameat2,unlinkat,fsetxattr,fsync",
        );
        strace.arg("-o").arg(&trace);
        strace.arg(inner.get_program()).args(inner.get_args());
        let output = strace.current_dir(union.home()).output().expect("strace");
        assert!(output.status.success(), "{options:?}: {output:?}");
        let trace = fs::read_to_string(trace).expect("what strace wrote");
        assert!(trace.contains("fsync"), "{options:?}: {trace}");
        let wrong = is_undone_by_a_power_cut(&trace);
        assert!(wrong.is_empty(), "{options:?}\n{}", wrong.join("\n"));
        // What writes content back later may take away what was set before, as FUSE's cache does.
        is_synced_twice |= trace.find("fsync").expect("it is there")
            < trace.find("\"user.a\"").unwrap_or_default()
            && options.contains(&"--to");
    }
    assert!(is_synced_twice, "attributes are set on what lasts");
}

/// The test above finds what it is for.
#[apply(test)]
fn what_does_not_last_is_found() {
    let made = "7 mkdirat(5</u>, \"passing\", 0700) = 0";
    let placed = "7 renameat2(5</u>, \"passing\", 5</u>, \"d\", RENAME_NOREPLACE) = 0";
    let linked = "7 linkat(AT_FDCWD</x>, \"/proc/self/fd/3\", 6</u/passing>, \"mark\", AT_SYMLINK_FOLLOW) = 0";
    let link = "7 symlinkat(\"target\", 6</u/passing>, \"link\") = 0";
    let synced = "7 fsync(5</u>) = 0";
    for (calls, count) in [
        (&[made, placed, synced][..], 0),
        (&[made, placed], 1),
        (&[made, linked, placed, synced], 2),
        (&[made, link, placed, synced], 2),
        (
            &[made, linked, "7 fsync(6</u/passing>) = 0", placed, synced],
            0,
        ),
        (
            &["7 mkdirat(5</u>, \"taken\", 0700) = -1 EEXIST (File exists)"],
            0,
        ),
    ] {
        let wrong = is_undone_by_a_power_cut(&calls.join("\n"));
        assert_eq!(wrong.len(), count, "{calls:?}: {wrong:?}");
    }
}
