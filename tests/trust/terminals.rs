//! Words that a terminal would act on.

use super::*;
use crate::lab::needs;

/// Whatever a terminal acts on: every C0 and C1 control but NUL and the slash, DEL, an
/// operating system command, bidi overrides, separators.
fn hostile() -> String {
    let mut all = String::from("\u{1b}]0;title\u{7}\u{9d}1\u{9c}");
    all.extend((1..0x20).chain(0x7f..0xa0).filter_map(char::from_u32));
    all.push_str(
        "\u{61c}\u{200e}\u{200f}\u{2028}\u{2029}\u{202a}\u{202d}\u{202e}\u{2066}\u{2069}\u{feff}",
    );
    all
}

/// The same, and what is no UTF-8, as names: one to each, since a name may be only so long.
fn hostile_names() -> Vec<Vec<u8>> {
    let mut names: Vec<Vec<u8>> = (1..=255)
        .filter(|byte| !(0x20..0x7f).contains(byte))
        .map(|byte| vec![b'n', byte, b'm'])
        .collect();
    names.extend(
        hostile()
            .chars()
            .map(|char| format!("c{char}d").into_bytes()),
    );
    names.push(b"\x1b]0;title\x07".to_vec());
    names.push(b"over\xf4\x90\x80\x80long\xc0\xae\xed\xa0\x80".to_vec());
    let mut seen = BTreeSet::new();
    names.retain(|name| seen.insert(name.clone()));
    names
}

/// Without the line that long work shows of itself: it has a verb and numbers, and no word of a store.
fn without_progress(sent: &str) -> String {
    const GONE: &str = "\r\u{1b}[2K";
    let mut parts = sent.split(GONE).map(str::to_owned).collect::<Vec<_>>();
    let last = parts.pop().unwrap_or_default();
    for part in &mut parts {
        let start = part.rfind('\n').map_or(0, |at| at + 1);
        let numbers = part[start..].trim_end().strip_suffix("/s");
        let numbers = numbers.and_then(|line| Some(line.split_once(": ")?.1));
        let numbers =
            numbers.map(|numbers| numbers.replace(" of about ", "").replace(" names, ", ""));
        let is_own = numbers.is_some_and(|numbers| {
            numbers
                .bytes()
                .all(|byte| byte.is_ascii_digit() || byte == b',')
        });
        if is_own {
            part.truncate(start);
        } else {
            part.push_str(GONE);
        }
    }
    parts.concat() + &last
}

/// What a terminal must not be sent, if there is such a thing. A line may end, and a
/// terminal's own driver puts a carriage return before that.
fn harm(sent: &[u8], may_tab: bool) -> Option<String> {
    let sent = match std::str::from_utf8(sent) {
        Ok(sent) => without_progress(&sent.replace("\r\n", "\n")),
        Err(_) => return Some(format!("no UTF-8 was sent: {}", sent.escape_ascii())),
    };
    let harms = |char: char| match char {
        '\n' => false,
        '\t' => !may_tab,
        '\u{61c}'
        | '\u{200e}'
        | '\u{200f}'
        | '\u{2028}'..='\u{202e}'
        | '\u{2066}'..='\u{2069}'
        | '\u{feff}' => true,
        char => char.is_control(),
    };
    let at = sent.find(harms)?;
    let before = sent[..at].chars().rev().take(60).collect::<Vec<_>>();
    let before: String = before.into_iter().rev().collect();
    let harmful = sent[at..].chars().next();
    Some(format!("{harmful:?} was sent after {before:?}"))
}

/// What a terminal is sent on both outputs, and how it ended. `du` draws there that it is busy;
/// what else it says is looked at in a pipe.
fn on_a_terminal(root: &Path, arguments: &[OsString]) -> (Option<i32>, Vec<u8>) {
    let (mut master, slave) = terminal::open(0);
    let mut command = run::command();
    command
        .env("TERM", "xterm")
        .arg("--root")
        .arg(root)
        .args(arguments)
        .stdout(slave.try_clone().expect("a descriptor"));
    if arguments.iter().any(|word| word == "du") {
        command.stderr(Stdio::null());
        drop(slave);
    } else {
        command.stderr(slave);
    }
    let mut child = command.spawn().expect("layerctl was built");
    // Ours are the last hands on the slave: without them, reading ends.
    drop(command);
    let (mut seen, mut buffer) = (Vec::new(), [0; 4096]);
    while let Ok(length @ 1..) = master.read(&mut buffer) {
        seen.extend_from_slice(&buffer[..length]);
    }
    (child.wait().expect("our child").code(), seen)
}

/// Our own colours are `ESC [ ... m`; none of the hostile names has that.
fn without_colours(seen: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    let mut rest = seen;
    while let Some((&byte, after)) = rest.split_first() {
        let sequence = after.strip_prefix(b"[").filter(|_| byte == 0x1b);
        let end = sequence.and_then(|text| {
            text.iter()
                .position(|byte| !matches!(byte, b'0'..=b'9' | b';'))
        });
        rest = match (sequence, end) {
            (Some(text), Some(end)) if text[end] == b'm' => &text[end + 1..],
            _ => {
                plain.push(byte);
                after
            }
        };
    }
    plain
}

/// Asks every verb in every look, and says where harm was done.
fn harmed(root: &Path, verbs: &[Words]) {
    let looks: [(&[&str], bool); 7] = [
        (&[], false),
        (&["-v", "--no-trunc"], false),
        (&["-v", "--no-trunc", "--color", "always"], false),
        (&["-v", "--no-trunc", "--color", "never"], true),
        (&[], true),
        (&["-q"], true),
        (&["--format", "jsonl"], true),
    ];
    all_right(verbs, |verb| {
        let mut wrong = Vec::new();
        for (look, is_terminal) in looks {
            let mut asked = words(look);
            asked.extend(verb.iter().cloned());
            let (status, seen) = if is_terminal {
                on_a_terminal(root, &asked)
            } else {
                let output = ask(root, &asked);
                wrong.extend(ill_end(&asked, &output));
                // These lines are docker's, and raw for other programs.
                let is_raw = ["changes", "diff"].iter().any(|of| verb[0] == *of)
                    && verb.iter().all(|word| word != "--long")
                    && !look.contains(&"always");
                let stdout = if is_raw { Vec::new() } else { output.stdout };
                (output.status, [stdout, output.stderr.into_bytes()].concat())
            };
            if !matches!(status, Some(0..=2)) {
                wrong.push(format!("{asked:?} ended with {status:?}"));
            }
            wrong.extend(
                harm(&without_colours(&seen), false)
                    .map(|why| format!("{asked:?} terminal: {is_terminal}: {why}")),
            );
        }
        let mut asked = words(["--format", "jsonl"]);
        asked.extend(verb.iter().cloned());
        let output = ask(root, &asked);
        for line in output.stdout.split(|&byte| byte == b'\n') {
            if !line.is_empty() && serde_json::from_slice::<Value>(line).is_err() {
                wrong.push(format!(
                    "{asked:?} printed what is no JSON: {}",
                    line.escape_ascii()
                ));
            }
        }
        wrong
    });
}

#[apply(test)]
fn see_no_name_of_a_layer_raw() {
    needs::time();
    let store = Store::new("");
    store.container("web", "");
    for (index, name) in hostile_names().iter().enumerate() {
        let at = |layer: &str| store.host.at(upper(layer)).join(OsStr::from_bytes(name));
        match index % 4 {
            0 => {
                fs::write(at("base"), "below").expect("our own");
                fs::write(at("web"), "changed").expect("our own");
            }
            1 => {
                fs::write(at("base"), "below").expect("our own");
                // What is deleted, where anybody may say so.
                let _ = mknodat(CWD, at("web"), FileType::CharacterDevice, Mode::empty(), 0);
            }
            2 => symlink(OsStr::from_bytes(name), at("top")).expect("our own"),
            _ => {
                fs::create_dir(at("web")).expect("our own");
                fs::write(at("web").join(OsStr::from_bytes(name)), "in it").expect("our own");
            }
        }
    }
    let asked = OsString::from_vec(b"/\x1b]0;title\x07\x9b\xff\xc2\x9b".to_vec());
    let mut path = OsString::from(upper("web"));
    path.push(&asked);
    let mut verbs = reading("web".as_ref(), &asked, &path);
    for name in hostile_names().iter().step_by(23) {
        let path = OsString::from_vec([b"/", &name[..]].concat());
        verbs.push(words([
            "which".as_ref(),
            "--in".as_ref(),
            "web".as_ref(),
            "--".as_ref(),
            path.as_os_str(),
        ]));
        verbs.push(words([
            "branches".as_ref(),
            "--".as_ref(),
            path.as_os_str(),
        ]));
        verbs.push(words([
            "ls".as_ref(),
            "--".as_ref(),
            OsStr::from_bytes(name),
        ]));
        verbs.push(words(["whois".as_ref(), "--".as_ref(), path.as_os_str()]));
        verbs.push(words([
            "restore".as_ref(),
            "--dry-run".as_ref(),
            "--in".as_ref(),
            "web".as_ref(),
            "--".as_ref(),
            path.as_os_str(),
        ]));
    }
    harmed(&store.host.root, &verbs);
    // The same as AUFS marks in a stack that is spelled.
    let host = Host::empty();
    host.dir("/up/d").dir("/low");
    for name in hostile_names() {
        let at = |dir: &str, mark: &[u8]| {
            host.at(dir)
                .join(OsStr::from_bytes(&[mark, &name].concat()))
        };
        fs::write(at("/up", b".wh."), "").expect("our own");
        fs::write(at("/low", b""), "").expect("our own");
        fs::write(at("/up/d", b".wh."), "").expect("our own");
    }
    let stack: &OsStr = "br:/up=rw:/low=ro+wh".as_ref();
    let verbs: Vec<Words> = [
        &["whiteouts"][..],
        &["changes"],
        &["check"],
        &["ls", "-R", "-l"],
        &["copyups"],
        &["branches"],
    ]
    .into_iter()
    .map(|verb| {
        let mut asked = words(verb);
        asked.push(stack.to_owned());
        asked
    })
    .collect();
    harmed(&host.root, &verbs);
}

#[apply(test)]
fn see_no_word_of_a_docker_store_raw() {
    needs::time();
    let store = Store::new(&hostile());
    let id = store.container("web", &hostile());
    // A driver that cannot be one, an id that is none, and what is left over.
    let other = store.container("other", "");
    let at = format!("containers/{other}/config.v2.json");
    let config = String::from_utf8(fs::read(store.at(&at)).expect("our own")).expect("JSON");
    store.file(
        &at,
        config.replace("\"overlay2\"", "\"over\\u001b]0;\\u009b\""),
    );
    for name in hostile_names().iter().step_by(5) {
        let name = OsStr::from_bytes(name);
        for dir in [
            "overlay2",
            "containers",
            "image/overlay2/layerdb/sha256",
            "volumes",
        ] {
            fs::create_dir_all(store.at(dir).join(name)).expect("our own");
        }
        symlink(name, store.at("overlay2/l").join(name)).expect("our own");
    }
    let mut broken = 0;
    for content in ["\u{1b}]0;\u{9b}", "l/\u{1b}]0;", "../\u{202e}"] {
        broken += 1;
        let name = format!("broken{broken}");
        store.container(&name, "");
        store.file(&format!("overlay2/{name}/lower"), content);
        store.file(&format!("overlay2/{name}/link"), content);
        store.file(
            &format!("image/overlay2/layerdb/mounts/{}/init-id", sha256(&name)),
            content,
        );
    }
    // Mount points, types of file systems, options.
    let escaped: String = hostile()
        .bytes()
        .map(|byte| format!("\\{byte:03o}"))
        .collect();
    store
        .host
        .mount(&format!("/ /mnt/{escaped} rw - overlay {escaped} rw,lowerdir=/a{escaped}:/b,upperdir=/u{escaped},workdir=/w"))
        .mount(&format!("/ /var/lib rw - ext{escaped} /dev/{escaped} rw"))
        .mount("/ /a\u{1b}]0;\u{9b} rw - overlay \u{1b}]0;\u{9b} rw,lowerdir=/a\u{1b}]0;:/b,upperdir=/u\u{9b},workdir=/w")
        .union("80a122805ed3e91b", &[(&format!("/mnt/aufs{escaped}"), "/")], &[(hostile().as_bytes(), "rw"), (b"/\xff\x9b", "ro")]);
    for daemon in [
        None,
        Some("{\"data-root\": \"/nowhere/\\u001b]0;\\u009b\"}"),
        Some("{\u{1b}]0;\u{9b}"),
    ] {
        if let Some(daemon) = daemon {
            store.host.file("/etc/docker/daemon.json", daemon);
        }
        let mut verbs = reading(
            OsStr::new(&id),
            "/etc/group".as_ref(),
            upper("web").as_ref(),
        );
        if daemon.is_none() {
            for name in ["broken1", "broken2", "broken3", "other", "app", "app:1"] {
                verbs.push(words(["branches", name]));
                verbs.push(words(["history", name]));
                verbs.push(words(["whois", name]));
            }
            verbs.push(words(["branches".into(), format!("web{}", hostile())]));
            verbs.push(words(["history".into(), format!("app{}:1{0}", hostile())]));
            // Everything that is called so is listed when a name is ambiguous.
            verbs.push(words(["branches", &sha256("web")[..1]]));
        }
        harmed(&store.host.root, &verbs);
    }
    let named = [
        "--docker-root",
        "--storage-root",
        "--containerd-root",
        "--namespace",
    ];
    let mut verbs = Vec::new();
    for option in named {
        verbs.push(words([
            option.to_owned(),
            format!("/x{}", hostile()),
            "info".into(),
        ]));
    }
    harmed(&store.host.root, &verbs);
}

/// Puts hostile text behind every text in JSON but those that are read as names of files.
fn spoil(json: &mut Value, hostile: &str) {
    match json {
        Value::String(text) => {
            let is_id = text.len() >= 12
                && text
                    .rsplit(':')
                    .next()
                    .is_some_and(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit()));
            if !is_id && !text.starts_with('/') && !text.contains("manifest") {
                text.push_str(hostile);
            }
        }
        Value::Array(these) => these.iter_mut().for_each(|json| spoil(json, hostile)),
        Value::Object(map) => map.values_mut().for_each(|json| spoil(json, hostile)),
        _ => {}
    }
}

#[apply(test)]
fn see_no_word_of_other_stores_raw() {
    needs::time();
    needs::captured_hosts();
    let podman = Host::captured("podman-rootless-overlay");
    for entry in WalkDir::new(&podman.root) {
        let at = entry.expect("our own").into_path();
        let name = at
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let is_list = matches!(
            &*name,
            "layers.json" | "images.json" | "containers.json" | "volatile-containers.json"
        );
        if !is_record(&at) || !(is_list || name.starts_with('=')) {
            continue;
        }
        let Ok(mut json) = serde_json::from_slice::<Value>(&fs::read(&at).expect("our own")) else {
            continue;
        };
        spoil(&mut json, &hostile());
        fs::write(&at, json.to_string()).expect("our own");
    }
    // In a database, a text can only be replaced by one as long. C0 controls would end JSON.
    let mut hosts = vec![(podman, "run-a", &[("sleep", "s\u{9b}\u{7f}")][..])];
    for name in ["containerd-kubernetes", "docker-29"] {
        hosts.push((
            Host::captured(name),
            if name == "docker-29" {
                "run-a"
            } else {
                "nat-run"
            },
            &[
                ("nginx", "\u{9b}\u{7f}\u{9d}"),
                ("web-7d4b9c", "\u{202e}\u{9b}\u{7f}\u{2066}\u{7f}"),
                ("sidecar", "\u{1b}]0;\u{7}\u{9b}"),
            ],
        ));
    }
    for (host, target, replaced) in &hosts {
        let mut found = 0;
        for entry in WalkDir::new(&host.root) {
            let at = entry.expect("our own").into_path();
            let is_text = at
                .extension()
                .is_some_and(|kind| kind == "db" || kind == "json")
                || at.ends_with("config.toml");
            if !is_text || !is_record(&at) {
                continue;
            }
            let mut content = fs::read(&at).expect("our own");
            for (from, to) in *replaced {
                let (from, to) = (from.as_bytes(), to.as_bytes());
                let mut start = 0;
                while let Some(next) = content[start..]
                    .windows(from.len())
                    .position(|window| window == from)
                {
                    let length = from.len().min(to.len());
                    content[start + next..start + next + length].copy_from_slice(&to[..length]);
                    start += next + from.len();
                    found += 1;
                }
            }
            fs::write(&at, content).expect("our own");
        }
        let rows = host.jsonl(["containers"]).rows();
        assert!(found > 0 || !rows.is_empty(), "{target}");
        let branches = host.jsonl(["branches", "--", target]);
        let directory = branches
            .rows()
            .first()
            .map(|row| bytes(&row["branches"][0]["directory"]));
        let directory = OsString::from_vec(directory.unwrap_or_else(|| b"/var/lib".to_vec()));
        let mut verbs = reading(target.as_ref(), "/etc/passwd".as_ref(), &directory);
        for row in &rows {
            verbs.push(words(["history", text(row, "id")]));
            verbs.push(words(["whois", text(row, "id")]));
        }
        for row in host.jsonl(["images", "--all"]).rows() {
            verbs.push(words(["history", text(&row, "id")]));
        }
        harmed(&host.root, &verbs);
    }
}

#[apply(test)]
fn see_lines_of_other_programs_with_their_tabs_only() {
    let store = Store::new(&hostile());
    store.container("web", &hostile());
    let mut lines = Vec::new();
    for name in hostile_names() {
        lines.extend_from_slice(b"12K\t");
        lines.extend_from_slice(upper("web").as_bytes());
        lines.extend_from_slice(b"/");
        lines.extend_from_slice(&name);
        lines.push(b'\n');
    }
    store.host.file("/lines", &lines);
    let mut command = layerctl();
    command
        .stdin(File::open(store.host.at("/lines")).expect("our own"))
        .arg("--root")
        .arg(&store.host.root)
        .args(["whois", "-"]);
    let output = run::run(&mut command);
    let sent = [&output.stdout[..], output.stderr.as_bytes()].concat();
    assert_eq!(ill_end(&words(["whois", "-"]), &output), None);
    assert_eq!(harm(&sent, true), None);
}
