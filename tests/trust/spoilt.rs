//! Engines' records that say anything.

use super::*;
use crate::lab::needs;

/// One way to spoil a file, in words.
fn spoil(random: &mut Random, content: &mut Vec<u8>) -> String {
    let at = random.below(content.len() + 1);
    let huge: [&[u8]; 9] = [
        b"99999999999999999999999",
        b"-1",
        b"18446744073709551615",
        b"9223372036854775807",
        b"4294967296",
        b"1e999",
        b"0.1",
        b"null",
        b"-9223372036854775808",
    ];
    let words: [&[u8]; 13] = [
        b"../../../../../../etc/passwd",
        b"/",
        b"..",
        "\u{fc}\u{1f980}\u{20ac}\u{fc}\u{1f980}\u{20ac}\u{fc}\u{1f980}".as_bytes(),
        b"\xff\xfe",
        b"\0",
        b"",
        b"sha256:",
        b"sha256:\xc3\xbc\xc3\xbc\xc3\xbc\xc3\xbc\xc3\xbc\xc3\xbc\xc3\xbc\xc3\xbc",
        b"-init",
        b"\\134\\12\\999\\",
        b"9999-99-99T99:99:99.999999999999999Z",
        b"-262143-01-01T00:00:00Z",
    ];
    let insert = |content: &mut Vec<u8>, at: usize, what: &[u8]| {
        content.splice(at..at, what.iter().copied());
    };
    // The next run of these bytes from `at` on.
    let run = |content: &[u8], of: &dyn Fn(u8) -> bool| {
        let start = at + content[at..].iter().position(|&byte| of(byte))?;
        let length = content[start..]
            .iter()
            .position(|&byte| !of(byte))
            .unwrap_or(content.len() - start);
        Some(start..start + length)
    };
    match random.below(12) {
        0 | 1 => {
            for _ in 0..1 + random.below(8) {
                let at = random.below(content.len());
                if let Some(byte) = content.get_mut(at) {
                    *byte ^= 1 << (random.next() % 8);
                }
            }
            "flipped bits".into()
        }
        2 => {
            content.truncate(at);
            format!("cut at {at}")
        }
        3 => {
            let of = *random.of(&huge);
            if let Some(range) = run(content, &|byte| byte.is_ascii_digit()) {
                content.splice(range, of.iter().copied());
            }
            format!("number {} at {at}", of.escape_ascii())
        }
        4 | 5 => {
            // A whole text, be it JSON's, TOML's, a path's part or an id.
            let of = *random.of(&words);
            if let Some(range) = run(content, &|byte| !b"\"'/ :,\n={}[]".contains(&byte)) {
                content.splice(range, of.iter().copied());
            }
            format!("text {} at {at}", of.escape_ascii())
        }
        6 => {
            let open = *random.of(&[&b"["[..], b"{\"a\":", b"{", b"[{\"a\":["]);
            insert(content, at, &open.repeat(5000));
            format!("{} nested at {at}", open.escape_ascii())
        }
        7 => {
            let end = at + random.below(200.min(content.len() - at) + 1);
            let piece = content[at..end].to_vec();
            let copies = 1 + random.below(3);
            insert(content, at, &piece.repeat(copies));
            format!("{at}..{end} again")
        }
        8 => {
            // The same key twice, with another value.
            let keys: Vec<usize> = content
                .windows(2)
                .enumerate()
                .filter(|(_, pair)| *pair == b"\":")
                .map(|(at, _)| at)
                .collect();
            if let Some(&end) = keys.get(random.below(keys.len())) {
                let start = content[..end]
                    .iter()
                    .rposition(|&byte| byte == b'"')
                    .unwrap_or(0);
                let key = content[start..=end].to_vec();
                let value = *random.of(&[&b"null"[..], b"7", b"[]", b"{}", b"\"x\"", b"true"]);
                insert(content, start, &[&key, &b":"[..], value, b","].concat());
            }
            "a key twice".into()
        }
        9 => {
            let length = random.below(64);
            insert(content, at, &vec![0; length]);
            format!("{length} NULs at {at}")
        }
        10 => {
            let end = at + random.below(content.len() - at + 1);
            content.drain(at..end);
            format!("{at}..{end} left out")
        }
        _ => {
            let other = random.below(content.len() + 1);
            let (from, to) = (at.min(other), at.max(other));
            content[from..to].reverse();
            format!("{from}..{to} reversed")
        }
    }
}

#[apply(test)]
fn records_are_damaged_and_no_more() {
    needs::time();
    const ROUNDS: usize = 70;
    let hosts: Vec<(usize, (Host, &str))> = small_hosts().into_iter().enumerate().collect();
    all_right(&hosts, |(number, (host, target))| {
        let mut random = Random(*number as u64);
        let mut kinds: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
        for entry in WalkDir::new(&host.root).sort_by_file_name() {
            let at = entry.expect("our own").into_path();
            if is_record(&at) {
                kinds.entry(kind_of_record(&at)).or_default().push(at);
            }
        }
        let kinds: Vec<Vec<PathBuf>> = kinds.into_values().collect();
        let directory = host.jsonl(["branches", "--", target]).rows();
        let directory = directory
            .first()
            .map(|row| bytes(&row["branches"][0]["directory"]));
        let directory = OsString::from_vec(directory.unwrap_or_else(|| b"/var".to_vec()));
        let verbs = reading(OsStr::new(target), "/etc/passwd".as_ref(), &directory);
        let mut wrong = Vec::new();
        for round in 0..ROUNDS {
            let files = &kinds[(round + random.below(2)) % kinds.len()];
            let at = random.of(files);
            let whole = fs::read(at).expect("our own");
            let mut content = whole.clone();
            let how: Vec<String> = (0..1 + random.below(3))
                .map(|_| spoil(&mut random, &mut content))
                .collect();
            fs::write(at, &content).expect("our own");
            for _ in 0..2 {
                let mut asked = random.of(&verbs).clone();
                if random.below(2) == 0 {
                    asked.splice(0..0, words(["--format", "jsonl"]));
                }
                let output = ask(&host.root, &asked);
                wrong.extend(ill_end(&asked, &output).map(|why| {
                    format!(
                        "round {round}, {}, {how:?}: {why}\n  {}",
                        at.display(),
                        content[..content.len().min(2000)].escape_ascii()
                    )
                }));
            }
            fs::write(at, whole).expect("our own");
        }
        wrong
    });
}

/// Replaces one record after the other by the same content.
fn replaced(content_of: impl Fn(&Path, &[u8]) -> Vec<Vec<u8>> + Sync) {
    let hosts = small_hosts();
    all_right(&hosts, |(host, target)| {
        let mut seen = BTreeSet::new();
        let mut wrong = Vec::new();
        for entry in WalkDir::new(&host.root).sort_by_file_name() {
            let at = entry.expect("our own").into_path();
            if !is_record(&at) || !seen.insert(kind_of_record(&at)) {
                continue;
            }
            let whole = fs::read(&at).expect("our own");
            for content in content_of(&at, &whole) {
                fs::write(&at, &content).expect("our own");
                for asked in [words(["-v", "history", target]), words(["orphans"])]
                    .iter()
                    .skip(seen.len() % 2)
                    .take(1)
                {
                    let output = ask(&host.root, asked);
                    wrong.extend(ill_end(asked, &output).map(|why| {
                        format!(
                            "{} {}: {why}",
                            at.display(),
                            content[..content.len().min(80)].escape_ascii()
                        )
                    }));
                }
            }
            fs::write(&at, whole).expect("our own");
        }
        wrong
    });
}

#[apply(test)]
fn records_nested_without_end_are_no_stack_overflow() {
    needs::time();
    const DEPTH: usize = 100_000;
    replaced(|at, whole| {
        let is_toml = at
            .extension()
            .is_some_and(|kind| kind == "toml" || kind == "conf");
        let is_json = matches!(whole.first(), Some(b'{' | b'['));
        if is_toml {
            let dotted = ["a"; DEPTH].join(".");
            return [
                format!("storage = {}", "[".repeat(DEPTH)),
                format!("storage = {}", "{a=".repeat(DEPTH)),
                format!("{dotted} = 1"),
                format!("[{dotted}]\nb = 1"),
                format!("[[{dotted}]]\nb = 1"),
            ]
            .map(String::into_bytes)
            .to_vec();
        }
        if !is_json {
            return Vec::new();
        }
        // Alone, and where a known object has a name that is not known.
        let inside =
            |nested: String| [&whole[..1], format!("\"unknown\":{nested}").as_bytes()].concat();
        let (open, close) = ("[".repeat(DEPTH), "]".repeat(DEPTH));
        let keys = "{\"a\":".repeat(DEPTH);
        vec![
            open.clone().into_bytes(),
            keys.clone().into_bytes(),
            inside(format!("{open}{close},\"x\":1}}")),
            inside(keys),
        ]
    });
}

/// An engine's directory may be anywhere, but no kernel finds it behind so long a path.
#[apply(test)]
fn a_path_of_many_parts_is_no_stack_overflow() {
    let path = "/a".repeat(20_000);
    let store = Store::new("");
    store.host.file(
        "/etc/docker/daemon.json",
        json!({"data-root": path}).to_string(),
    );
    let graph_root = format!("[storage]\ndriver = \"overlay\"\ngraphroot = \"{path}\"\n");
    store.host.file("/etc/containers/storage.conf", graph_root);
    let root = format!("version = 2\nroot = \"{path}\"\n");
    store.host.file("/etc/containerd/config.toml", root);
    let asked = words(["info"]);
    assert_eq!(ill_end(&asked, &ask(&store.host.root, &asked)), None);
}

/// 100 MB, as a hole; and as much as is read of a file in small pieces of JSON, each of which
/// takes many times as much memory as disk.
#[apply(test)]
fn records_without_end_take_no_memory_without_end() {
    needs::time();
    let store = Store::new("");
    let id = store.container("web", "");
    let image = format!("image/overlay2/imagedb/content/sha256/{}", store.image);
    let verbs = [words(["info"]), words(["history", "web"])];
    let mut wrong = Vec::new();
    let config = format!("containers/{id}/config.v2.json");
    for path in [
        &config,
        &image,
        "image/overlay2/repositories.json",
        "overlay2/web/lower",
        "overlay2/web/link",
    ] {
        let at = store.at(path);
        let whole = fs::read(&at).expect("our own");
        File::options()
            .write(true)
            .open(&at)
            .and_then(|file| file.set_len(100_000_000))
            .expect("our own");
        for asked in &verbs {
            let output = ask(&store.host.root, asked);
            wrong.extend(ill_end(asked, &output).map(|why| format!("{path}, 100 MB: {why}")));
        }
        fs::write(&at, whole).expect("our own");
    }
    const PIECES: usize = 6_000_000;
    for (path, open, piece, close) in [
        (
            &*image,
            "{\"rootfs\":{\"diff_ids\":[]},\"history\":[",
            "{},",
            "{}]}",
        ),
        (&*image, "{\"rootfs\":{\"diff_ids\":[", "\"\",", "\"\"]}}"),
        (&*config, "{\"Args\":[", "\"\",", "\"\"]}"),
    ] {
        let at = store.at(path);
        let whole = fs::read(&at).expect("our own");
        fs::write(&at, [open, &piece.repeat(PIECES), close].concat()).expect("our own");
        let asked = if path == image { &verbs[1] } else { &verbs[0] };
        let output = ask(&store.host.root, asked);
        wrong.extend(
            ill_end(asked, &output).map(|why| format!("{path}, {PIECES} times {piece} {why}")),
        );
        fs::write(&at, whole).expect("our own");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
