//! `cat`: exact bytes of the version that is meant.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::process::Stdio;

use rustix::fs::FileType;

use crate::lab::host::Host;
use crate::lab::run::{self, Output, bytes, text};
use crate::lab::terminal;
use crate::lab::union::Union;

fn words<'a>(options: &'a [&'a str], stack: &'a OsStr, paths: &'a [&'a str]) -> Vec<&'a OsStr> {
    let mut words: Vec<&OsStr> = vec!["cat".as_ref(), "--in".as_ref(), stack];
    words.extend(options.iter().map(OsStr::new));
    words.push("--".as_ref());
    words.extend(paths.iter().map(OsStr::new));
    words
}

fn cat(union: &Union, options: &[&str], paths: &[&str]) -> Output {
    run::layerctl(words(options, &union.spelled(), paths))
}

/// Demands the content, and that nothing else was said.
#[track_caller]
fn assert_prints(output: &Output, content: &[u8]) {
    assert_eq!(output.status, Some(0), "{}", output.stderr);
    assert_eq!(output.stderr, "");
    assert!(output.stdout == content, "{} bytes", output.stdout.len());
}

#[apply(test)]
fn links_are_followed_inside_the_union_and_never_out() {
    let union = Union::usual();
    union
        .file("low/etc/real", "inside")
        .link("up/absolute", "/etc/real")
        .link("mid/climbs", "../../../etc/real")
        .link("up/dir", "/etc")
        .link("up/etc/passwd", "/etc/shadow")
        .link("up/loop", "loop")
        .file("home", "");
    for path in ["/absolute", "/climbs", "/dir/real", "/dir/../etc//real"] {
        assert_prints(&cat(&union, &[], &[path]), b"inside");
    }
    // The machine has such a file, the union has not.
    let output = cat(&union, &[], &["/etc/passwd"]);
    assert_eq!((output.status, &output.stdout[..]), (Some(1), &b""[..]));
    cat(&union, &[], &["/loop"]).exits(2).says("symbolic links");
}

#[apply(test)]
fn a_hidden_version_is_printed_and_nothing_else_with_hidden() {
    let union = Union::usual();
    union
        .file("low/f", "lowest")
        .file("mid/f", "middle")
        .mark("up/.wh.f")
        .file("low/there", "there")
        .file("low/dir/x", "below an opaque directory")
        .mark("up/dir/.wh..wh..opq")
        .link("low/link", "there")
        .mark("up/.wh.link")
        .file("low/twice", "below two marks")
        .mark("mid/.wh.twice")
        .mark("up/.wh.twice");
    assert_prints(&cat(&union, &["--hidden"], &["/f"]), b"middle");
    assert_prints(
        &cat(&union, &["--hidden"], &["/dir/x"]),
        b"below an opaque directory",
    );
    assert_prints(&cat(&union, &["--hidden"], &["/link"]), b"there");
    assert_prints(&cat(&union, &["--hidden"], &["/twice"]), b"below two marks");
    for (options, path, why) in [
        (&["--hidden"][..], "/there", "nothing hides it"),
        (&["--hidden"], "/no", "it is not deleted"),
        (&[], "/f", "it is deleted"),
        (&[], "/no", "it is not there"),
        (&[], "/there/x", "it is not there"),
    ] {
        let output = cat(&union, options, &[path]);
        assert_eq!(output.status, Some(1), "{path}");
        assert!(output.stderr.contains(why), "{path}: {}", output.stderr);
        assert_eq!(output.stdout, b"");
    }
    // Below what is a file in every branch nothing was ever deleted.
    cat(&union, &["--hidden"], &["/there/x"])
        .exits(2)
        .says("/there/x: Not a directory");
}

#[apply(test)]
fn what_is_no_file_is_refused_by_name_and_never_opened() {
    let union = Union::usual();
    union
        .dir("low/dir")
        .node("up/fifo", FileType::Fifo, 0)
        .node("up/socket", FileType::Socket, 0)
        .file("low/f", "goes on");
    for (path, kind) in [
        ("/dir", "directory"),
        ("/", "directory"),
        ("/fifo", "fifo"),
        ("/socket", "socket"),
    ] {
        // A fifo that is opened would wait for ever.
        let output = cat(&union, &[], &[path, "/f"]);
        assert_eq!(output.status, Some(2), "{path}");
        let said = format!("{path} is a {kind}");
        assert!(output.stderr.contains(&said), "{}", output.stderr);
        assert_eq!(output.stdout, b"goes on");
    }
}

#[apply(test)]
fn bytes_are_exact_in_pipes_and_files_be_they_sparse_or_large() {
    let union = Union::usual();
    let odd: Vec<u8> = (0..=255).cycle().take(700_001).collect();
    union.file("low/odd", &odd).file("low/empty", "");
    let sparse = File::create(union.at("low/sparse")).expect("our own");
    sparse.set_len(5 << 20).expect("our own");
    let mut end = &sparse;
    std::io::Seek::seek(&mut end, std::io::SeekFrom::End(0)).expect("our own");
    end.write_all(b"end").expect("our own");
    let mut expected = odd.clone();
    expected.resize(odd.len() + (5 << 20), 0);
    expected.extend_from_slice(b"end");
    let paths = ["/odd", "/empty", "/sparse"];
    assert_prints(&cat(&union, &[], &paths), &expected);
    for append in [false, true] {
        let to = union.home().join("to");
        fs::write(&to, "before").expect("our own");
        let file = File::options().append(append).write(true).open(&to);
        let mut command = run::command();
        command
            .args(words(&[], &union.spelled(), &paths))
            .stdout(Stdio::from(file.expect("our own")));
        assert!(command.status().expect("it was built").success());
        let written = fs::read(&to).expect("our own");
        let before: &[u8] = if append { b"before" } else { b"" };
        assert!(written == [before, &expected].concat(), "{append}");
    }
    let full = File::options()
        .write(true)
        .open("/dev/full")
        .expect("a device");
    let mut command = run::command();
    command
        .args(words(&[], &union.spelled(), &["/odd"]))
        .stdout(Stdio::from(full));
    assert_eq!(command.status().expect("it was built").code(), Some(2));
}

#[apply(test)]
fn a_terminal_is_shown_control_bytes_escaped() {
    let union = Union::usual();
    let mut content = b"a\\b\tc\n\x1b[31mred\x07 gr\xc3\xbcn \xff".to_vec();
    union.file("low/f", &content);
    // A character lies across the end of what is read at once.
    let mut long = vec![b'x'; (128 << 10) - 1];
    long.extend_from_slice("ü\u{202e}".as_bytes());
    long.push(0xc3);
    union.file("low/long", &long);
    let stack = union.spelled();
    let (status, shown) = terminal::run(words(&[], &stack, &["/f"]));
    assert_eq!(status, Some(0));
    assert_eq!(shown, "a\\b\tc\n\\x1b[31mred\\x07 grün \\xff");
    let (_, shown) = terminal::run(words(&[], &stack, &["/long"]));
    assert_eq!(shown.trim_start_matches('x'), "ü\\u{202e}\\xc3");
    content.pop();
    union.file("low/f", &content);
    let (_, raw) = terminal::run(words(&["--raw"], &stack, &["/f"]));
    assert_eq!(raw.as_bytes(), content);
}

#[apply(test)]
fn machines_are_told_where_it_is() {
    let union = Union::usual();
    union.file("mid/f", "text").file("low/b", [0xff, 0]);
    let stack = union.spelled();
    let ask = |form: &[&str], path| {
        let mut command = run::command();
        command.args(form).args(words(&[], &stack, &[path]));
        run::run(&mut command).exits(0)
    };
    let row = ask(&["--format", "jsonl"], "/f").row();
    assert_eq!(text(&row, "content"), "text");
    assert_eq!((text(&row, "path"), text(&row, "type")), ("/f", "file"));
    assert_eq!((&row["branch"], &row["size"]), (&1.into(), &4.into()));
    let row = ask(&["--format", "jsonl"], "/b").row();
    assert_eq!(bytes(&row["content"]), [0xff, 0]);
    let words = ask(&["-0"], "/f").stdout;
    let at = union.at("mid/f");
    assert_eq!(words, [at.as_os_str().as_bytes(), b"\0"].concat());
}

#[apply(test)]
fn a_path_without_target_is_of_the_only_union_that_has_it() {
    let host = Host::fixture("blog-host");
    let deleted = "/usr/local/lib/python2.7/dist-packages/itsdangerous.py";
    let output = host.ask(["cat", "--hidden", deleted]);
    assert_eq!(output.status, Some(0), "{}", output.stderr);
    let named = host.ask(["cat", "--hidden", &format!("determined_sammet:{deleted}")]);
    assert!(!named.stdout.is_empty() && named.stdout == output.stdout);
    let whole = host.ask(["cat", &format!("determined_sammet@2:{deleted}")]);
    assert_eq!(whole.stdout, output.stdout);
    host.ask(["cat", "etc"])
        .exits(2)
        .says("is no absolute path");
}
