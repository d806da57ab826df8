//! Hosts that change while they are read.

use super::*;
use crate::lab::needs;

/// Docker removes a layer name by name, in the order of its directory. Whatever is gone
/// already: the rest is never taken for the whole.
#[apply(test)]
fn a_layer_that_is_removed_in_part_is_not_taken_for_a_whole_one() {
    let parts = ["lower", "link", "work", "diff"];
    let mut wrong = Vec::new();
    for gone in 1..1 << parts.len() {
        let store = Store::new("");
        store.container("web", "");
        let gone: Vec<&str> = (0..parts.len())
            .filter(|bit| gone & (1 << bit) != 0)
            .map(|bit| parts[bit])
            .collect();
        for part in &gone {
            let at = store.at("overlay2/web").join(part);
            let removed = if at.is_dir() {
                fs::remove_dir_all(at)
            } else {
                fs::remove_file(at)
            };
            removed.expect("our own");
        }
        let said = |asked: &[&str], whole: &str| {
            let output = store.host.jsonl(asked);
            let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
            let is_wrong = matches!(output.status, Some(0 | 1)) && !stdout.contains(whole);
            is_wrong.then(|| {
                format!(
                    "without {gone:?} {asked:?} exits {:?}: {stdout}",
                    output.status
                )
            })
        };
        wrong.extend(said(&["changes", "web"], "/new-web"));
        wrong.extend(said(&["which", "web:/etc/group"], "\"present\""));
        wrong.extend(said(&["ls", "-R", "web"], "/etc/group"));
        wrong.extend(said(&["branches", "web"], &upper("base")));
        wrong.extend(said(&["containers"], &sha256("web")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// How a run ends under which something happens when it has begun to answer: with which status,
/// and what it says beside the answer.
fn asked_while(asked: &[OsString], happens: impl FnOnce()) -> (Option<i32>, String) {
    let mut command = layerctl();
    command.args(asked);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("layerctl was built");
    let mut pipe = child.stdout.take().expect("a pipe");
    // The rest is more than the pipe holds: the program cannot have ended.
    let mut stdout = vec![0];
    let is_said = pipe.read_exact(&mut stdout).is_ok();
    happens();
    pipe.read_to_end(&mut stdout).expect("the rest");
    let output = child.wait_with_output().expect("our child");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(is_said, "{asked:?} answers nothing: {said}");
    (output.status.code(), said)
}

fn is_quiet(asked: &[OsString], happens: impl FnOnce()) {
    let ended = asked_while(asked, happens);
    assert_eq!(ended, (Some(0), String::new()), "{asked:?}");
}

/// More than a pipe holds, even of names alone.
const MANY: usize = 1500;

fn many(prefix: &str) -> impl Iterator<Item = String> {
    let name = move |number| format!("{prefix}{number:0>200}");
    (0..MANY).map(name)
}

/// What is wrong with how a run ends under which something goes.
fn goes(asked: &[OsString], what: &str, happens: impl FnOnce()) -> Option<String> {
    let (status, said) = asked_while(asked, happens);
    let is_said = said.contains(what) && said.contains("removed");
    (status != Some(2) || !is_said).then(|| format!("{asked:?} exits {status:?}: {said}"))
}

#[apply(test)]
fn a_branch_that_goes_while_it_is_read_is_said_to_have_gone() {
    needs::time();
    let stack = "br:/home/up=rw:/low=ro+wh";
    let mut wrong = Vec::new();
    for verb in [
        &["ls", "-R"][..],
        &["changes"],
        &["whiteouts"],
        &["copyups"],
    ] {
        let host = Host::empty();
        for name in many("") {
            host.file(format!("/low/{name}"), "");
            host.file(format!("/home/up/{name}"), "changed");
        }
        for name in many(".wh.x") {
            host.file(format!("/home/up/{name}"), "");
        }
        for name in many("x") {
            host.file(format!("/low/{name}"), "");
        }
        let mut asked = words(["--root".as_ref(), host.root.as_os_str()]);
        asked.extend(words(["-0"].iter().chain(verb).chain(&[stack])));
        is_quiet(&asked, || ());
        let (home, away) = (host.at("/home"), host.at("/away"));
        wrong.extend(goes(&asked, "/home/up", || {
            fs::rename(&home, &away).expect("our own");
        }));
        fs::rename(&away, &home).expect("our own");
        wrong.extend(goes(&asked, "/home/up", || {
            // Another directory has its name.
            fs::rename(&home, &away).expect("our own");
            fs::create_dir_all(home.join("up")).expect("our own");
        }));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Docker marks a container before it removes its layer, name by name and in place, and takes
/// away its record at the end. An image's record is the first to go, and a layer's is moved
/// away.
#[apply(test)]
fn what_docker_removes_while_it_is_read_is_said_to_have_gone() {
    needs::time();
    let store = Store::new("");
    let id = store.container("web", "");
    for name in many("") {
        store.file(&format!("overlay2/web/diff/{name}"), "");
        store.file(&format!("overlay2/top/diff/{name}"), "");
    }
    let record = store.at(&format!("containers/{id}/config.v2.json"));
    let alive = fs::read_to_string(&record).expect("our own");
    let with = |word: &str| {
        let old = "\"Dead\":false";
        let new = alive.replace(old, &format!("\"{word}\":true"));
        assert_ne!(alive, new);
        new
    };
    let (removing, dead) = (with("RemovalInProgress"), with("Dead"));
    // As Docker does: nobody sees a part of it.
    let write = |content: &str| {
        let beside = record.with_extension("tmp");
        fs::write(&beside, content).expect("our own");
        fs::rename(&beside, &record).expect("our own");
    };
    let data = store.host.at(DATA);
    let mut wrong = Vec::new();
    for verb in [&["ls", "-R"][..], &["changes"]] {
        let asks = |target: &str| {
            let mut asked = words(["--docker-root".as_ref(), data.as_os_str()]);
            asked.extend(words(["-0"].iter().chain(verb).chain(&[target])));
            asked
        };
        let asked = asks("web");
        is_quiet(&asked, || ());
        wrong.extend(goes(&asked, "web", || write(&removing)));
        // Newer Dockers mark it as dead alone; and where a removal failed, that may have taken a part.
        wrong.extend(goes(&asked, "web", || write(&dead)));
        wrong.extend(goes(&asked, "web", || {
            fs::remove_file(&record).expect("our own");
        }));
        write(&alive);
        let (status, said) = asked_while(&asked, || write("{"));
        assert!(status == Some(2) && !said.contains("removed"), "{said}");
        write(&alive);

        let mut copy = words(["--root".as_ref(), store.host.root.as_os_str()]);
        copy.extend(asked[2..].iter().cloned());
        // On a copy of a host nothing goes on: the word is as old as the copy.
        is_quiet(&copy, || write(&removing));
        is_quiet(&copy, || write(&dead));
        wrong.extend(goes(&copy, "web", || {
            fs::remove_file(&record).expect("our own");
        }));
        write(&alive);

        let image = store.at(&format!(
            "image/overlay2/imagedb/content/sha256/{}",
            store.image
        ));
        let chain = store.top_chain.trim_start_matches("sha256:");
        let layer = store.at(&format!("image/overlay2/layerdb/sha256/{chain}"));
        let away = store.at("away");
        for (target, name, record) in [("app:1", "app:1", image), (chain, "top", layer)] {
            is_quiet(&asks(target), || ());
            wrong.extend(goes(&asks(target), name, || {
                fs::rename(&record, &away).expect("our own");
            }));
            fs::rename(&away, &record).expect("our own");
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A captured host on which much is made of the topmost layer of a target, and what is asked
/// about it.
fn much_of(name: &str, target: &str, options: &[&str]) -> (Host, Vec<OsString>) {
    let host = Host::captured(name);
    let branches = host.jsonl(["branches", target]).exits(0).rows();
    let top = text(&branches[0]["branches"][0], "directory").to_owned();
    for name in many("") {
        host.file(format!("{top}/{name}"), "");
    }
    let [option, root, more @ ..] = options else {
        panic!("an option and a root");
    };
    let mut asked = words([option.as_ref(), host.at(root).as_os_str()]);
    asked.extend(words(more.iter().chain(&["-0", "changes", target])));
    is_quiet(&asked, || ());
    (host, asked)
}

#[apply(test)]
fn what_podman_removes_while_it_is_read_is_said_to_have_gone() {
    needs::time();
    needs::captured_hosts();
    let storage = "/var/lib/containers/storage";
    let none = |_: Value| json!([]);
    let incomplete = |list: Value| -> Value {
        let mark = |layer: &Value| {
            let mut layer = layer.clone();
            layer["flags"] = json!({"incomplete": true});
            layer
        };
        list.as_array().expect("layers").iter().map(mark).collect()
    };
    let layer = "a932360868954167fa8e3ed3856529b9dd3dd0633422c5f41f35cfde1885ce73";
    let mut wrong = Vec::new();
    for (target, list, change) in [
        (
            "stop-a",
            "overlay-layers/layers.json",
            incomplete as fn(Value) -> Value,
        ),
        (layer, "overlay-layers/layers.json", incomplete),
        ("stop-a", "overlay-containers/containers.json", none),
        ("localhost/lab/base:1", "overlay-images/images.json", none),
    ] {
        let (host, asked) = much_of("podman-overlay", target, &["--storage-root", storage]);
        let list = host.at(format!("{storage}/{list}"));
        let whole = fs::read(&list).expect("our own");
        // As the store replaces it.
        let replace = |new: &[u8]| {
            let beside = list.with_extension("new");
            fs::write(&beside, new).expect("our own");
            fs::rename(beside, &list).expect("our own");
        };
        wrong.extend(goes(&asked, target, || {
            let old = serde_json::from_slice(&whole).expect("JSON");
            replace(change(old).to_string().as_bytes());
        }));
        replace(&whole);
        let (status, said) = asked_while(&asked, || replace(b"["));
        assert!(status == Some(2) && !said.contains("removed"), "{said}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What is gone in one namespace may be there under the same name in another.
#[apply(test)]
fn what_containerd_removes_while_it_is_read_is_said_to_have_gone() {
    needs::time();
    needs::captured_hosts();
    fn bucket<'b>(root: &'b mut bolt::Bucket, path: &[&str]) -> &'b mut bolt::Bucket {
        path.iter()
            .fold(root, |bucket, name| match bucket.get_mut(name.as_bytes()) {
                Some(bolt::Item::Bucket(below)) => below,
                _ => panic!("no bucket {name}"),
            })
    }
    let meta = "io.containerd.metadata.v1.bolt/meta.db";
    let snapshots = "io.containerd.snapshotter.v1.overlayfs/metadata.db";
    let own = ("containerd-overlayfs", "/var/lib/containerd", "default");
    let dockers = ("docker-29", "/var/lib/docker/containerd/daemon", "moby");
    let mut wrong = Vec::new();
    for ((name, root, namespace), target, database, emptied) in [
        (own, "stop-a", meta, &["v1", "default", "containers"][..]),
        (
            own,
            "docker.io/lab/app:1",
            meta,
            &["v1", "default", "images"],
        ),
        (own, "12", snapshots, &["v1", "snapshots"]),
        (dockers, "small:1", meta, &["v1", "moby", "images"]),
    ] {
        let options: &[&str] = match namespace {
            "default" => &["--containerd-root", root, "--namespace", namespace],
            _ => &["--docker-root", "/var/lib/docker"],
        };
        let (host, asked) = much_of(name, target, options);
        let database = host.at(format!("{root}/{database}"));
        let mut content = bolt::read(&fs::read(&database).expect("our own"));
        if emptied.len() == 3 {
            let of_all = bucket(&mut content, &["v1"]);
            let same = of_all[namespace.as_bytes()].clone();
            of_all.insert(b"other".to_vec(), same);
            fs::write(&database, bolt::write(&content)).expect("our own");
            is_quiet(&asked, || ());
        }
        bucket(&mut content, emptied).clear();
        wrong.extend(goes(&asked, target, || {
            fs::write(&database, bolt::write(&content)).expect("our own");
        }));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Removes a container in Docker's order: its layers, what is known of them, its own records.
/// Each directory goes in one step, so that nothing is ever there in part.
fn remove(store: &Store, name: &str) {
    let bin = store.host.at("/bin-of-the-test");
    fs::create_dir_all(&bin).expect("our own");
    let id = sha256(name);
    let upper_case = name.to_uppercase();
    for (of, link) in [
        (name.to_owned(), upper_case.clone()),
        (format!("{name}-init"), format!("{upper_case}I")),
    ] {
        fs::remove_file(store.at("overlay2/l").join(link)).expect("our own");
        fs::rename(store.at("overlay2").join(&of), bin.join(&of)).expect("our own");
    }
    let mounts = format!("image/overlay2/layerdb/mounts/{id}");
    fs::rename(store.at(&mounts), bin.join("mounts")).expect("our own");
    fs::rename(store.at(&format!("containers/{id}")), bin.join("container")).expect("our own");
    fs::remove_dir_all(bin).expect("our own");
}

/// A generation's containers. No name and no id comes a second time.
fn names(generation: usize) -> [String; 3] {
    ["x", "y", "z"].map(|letter| format!("{letter}{generation}"))
}

#[apply(test)]
fn what_vanishes_is_never_an_empty_answer() {
    needs::time();
    let store = Store::new("");
    for name in ["keep", "stay"] {
        store.container(name, "");
    }
    let (is_over, generation) = (AtomicBool::new(false), AtomicUsize::new(0));
    let mut wrong = Vec::new();
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                let number = generation.load(Ordering::Relaxed);
                let names = names(number);
                for name in &names {
                    store.container(name, "");
                }
                // Long enough to be seen whole, and short enough to vanish under a reader.
                thread::sleep(Duration::from_millis(number as u64 % 40));
                for name in [1, 0, 2].map(|index| &names[index]) {
                    remove(&store, name);
                }
                generation.fetch_add(1, Ordering::Relaxed);
            }
        });
        let (mut rounds, mut answered) = (0, 0);
        while wrong.is_empty() && rounds < 200 {
            let is_enough = rounds >= 12 && answered > 0;
            if is_enough && generation.load(Ordering::Relaxed) >= 50 {
                break;
            }
            rounds += 1;
            wrong = round(&store, &generation, &mut answered);
        }
        is_over.store(true, Ordering::Relaxed);
        if answered == 0 && wrong.is_empty() {
            wrong.push("no container was ever seen whole".into());
        }
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Asks everything once, and says what was not as it should be.
fn round(store: &Store, generation: &AtomicUsize, answered: &mut usize) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut said = Vec::new();
    let mut asks = |asked: &[&str]| {
        let mut all = words(["--format", "jsonl"]);
        all.extend(words(asked));
        let output = ask(&store.host.root, &all);
        wrong.extend(ill_end(&all, &output));
        output
    };
    // What nobody touches is always there, and always the same.
    for name in ["keep", "stay"] {
        let output = asks(&["changes", name]);
        let rows = output.rows();
        let paths = texts(&rows, "path");
        if paths != [format!("/new-{name}")] || output.status != Some(0) {
            said.push(format!("changes {name}: {paths:?} {}", output.stderr));
        }
    }
    let rows = asks(&["containers"]).rows();
    for row in &rows {
        if text(row, "id") != sha256(text(row, "name")) || row["driver"] != "overlay2" {
            said.push(format!("containers: {row}"));
        }
    }
    let listed = texts(&rows, "name");
    if !["keep", "stay"].iter().all(|name| listed.contains(name)) {
        said.push(format!("containers: {listed:?}"));
    }
    let output = asks(&["images"]);
    if output.rows().len() != 1 {
        said.push(format!("images: {:?} {}", output.rows(), output.stderr));
    }
    let keep = [
        upper("keep"),
        upper("stay"),
        upper("base"),
        upper("top"),
        sha256("keep"),
        sha256("stay"),
    ];
    for row in asks(&["orphans"]).rows() {
        let path = String::from_utf8_lossy(&bytes(&row["path"])).into_owned();
        if keep
            .iter()
            .any(|of| path.contains(of.trim_end_matches("/diff")))
        {
            said.push(format!("orphans accuses {row}"));
        }
    }
    for index in 0..3 {
        let name = &*names(generation.load(Ordering::Relaxed))[index];
        let new = format!("/new-{name}");
        let layers = [upper("base"), upper("top"), upper(&format!("{name}-init"))];
        let layers: Vec<&str> = layers.iter().map(String::as_str).collect();
        // Whole, or said to be gone.
        for (verb, whole) in [
            (&["changes", name][..], vec![&*new]),
            (&["ls", "-R", name], vec![&new, "/etc/group", "/.dockerenv"]),
            (&["branches", name], layers),
            (&["history", name], vec!["made base", "made top"]),
            (
                &["which", &format!("{name}:/etc/group")],
                vec!["\"present\""],
            ),
            (&["whiteouts", name], vec![]),
            (&["du", name], vec![]),
        ] {
            let output = asks(verb);
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let is_answer = matches!(output.status, Some(0 | 1));
            if is_answer && !whole.iter().all(|part| text.contains(part)) {
                said.push(format!("{verb:?} answers {:?} {text:?}", output.status));
            }
            *answered += usize::from(is_answer && verb[0] == "changes");
        }
    }
    for verb in ["info", "du", "branches", "check"] {
        asks(&[verb]);
    }
    wrong.extend(said);
    wrong
}
