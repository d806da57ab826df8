//! `verify` of a layer of ten thousand files, in which single bits turn: all are found, and nothing else is.

use std::collections::BTreeSet;
use std::fs::{self, FileTimes, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::lab::host::Host;
use crate::lab::packed::sum;
use crate::lab::run::{bytes, text};
use crate::lab::{needs, of_many, terminal};

/// Numbers that a seed tells (splitmix64).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        let end = u64::try_from(end).expect("a count");
        usize::try_from(self.next() % end).expect("it is below a count")
    }
}

/// CRC-64 as ISO 3309 has it, and Go and tar-split (`crc64.ISO`).
pub fn crc64(content: &[u8]) -> u64 {
    let mut crc = !0;
    for byte in content {
        crc ^= u64::from(*byte);
        for _ in 0..8 {
            let is_odd = crc & 1 == 1;
            crc >>= 1;
            if is_odd {
                crc ^= 0xd800_0000_0000_0000;
            }
        }
    }
    !crc
}

/// The value that Go's package is documented with.
#[apply(test)]
fn sums_of_recipes_are_go_s() {
    assert_eq!(crc64(b"123456789"), 0xb909_56c7_75a4_1001);
}

struct File {
    path: String,
    at: PathBuf,
    content: Vec<u8>,
}

/// When everything was changed last, in seconds.
const TIME: u64 = 1_600_000_000;
const DOCKER: &str = "/var/lib/docker";

/// A Docker host with an image of one layer of so many files, as Docker would have unpacked it.
fn stored(count: usize) -> (Host, Vec<File>) {
    let host = Host::empty();
    let cache_id = "c".repeat(64);
    let root = host.at(format!("{DOCKER}/overlay2/{cache_id}/diff"));
    let (mut files, mut archive, mut recipe) = (Vec::new(), Vec::new(), String::new());
    let mut chance = Chance(21);
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    let header = |name: &str, kind: tar::EntryType, mode: u32, size: usize| {
        let mut header = tar::Header::new_ustar();
        header.set_path(name).expect("a short name");
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(uid.as_raw().into());
        header.set_gid(gid.as_raw().into());
        header.set_mtime(TIME);
        header.set_size(size as u64);
        header.set_cksum();
        header.as_bytes().to_vec()
    };
    // What is no content waits until there is some.
    let mut segment = Vec::new();
    let mut line = |line: serde_json::Value| recipe.push_str(&format!("{line}\n"));
    let mut directories = Vec::new();
    for number in 0..count {
        if number % 100 == 0 {
            let name = format!("d{:03}/", number / 100);
            let own = header(&name, tar::EntryType::Directory, 0o755, 0);
            segment.extend(&own);
            line(json!({"type": 2, "payload": STANDARD.encode(&segment)}));
            line(json!({"type": 1, "name": name, "payload": null}));
            segment.clear();
            archive.extend(own);
            fs::create_dir_all(root.join(&name)).expect("ours");
            directories.push(root.join(&name));
        }
        let name = format!("d{:03}/{number}", number / 100);
        // Most are small; some are longer than what is read at once, and some than what is kept in memory.
        let length = match number % 500 {
            0 if number % 1000 == 500 => (1 << 20) + chance.below(3 << 20),
            0 => 200_000 + chance.below(200_000),
            _ => 1 + chance.below(600),
        };
        let content: Vec<u8> = (0..length).map(|_| chance.next() as u8).collect();
        let own = header(&name, tar::EntryType::Regular, 0o644, length);
        segment.extend(&own);
        line(json!({"type": 2, "payload": STANDARD.encode(&segment)}));
        let crc = STANDARD.encode(crc64(&content).to_be_bytes());
        line(json!({"type": 1, "name": name, "size": length, "payload": crc}));
        archive.extend(own);
        archive.extend(&content);
        segment = vec![0; length.next_multiple_of(512) - length];
        archive.extend(&segment);
        let at = root.join(&name);
        fs::write(&at, &content).expect("ours");
        fs::set_permissions(&at, Permissions::from_mode(0o644)).expect("ours");
        keep_time(&at);
        let path = format!("/{name}");
        files.push(File { path, at, content });
    }
    segment.extend([0; 1024]);
    archive.extend([0; 1024]);
    line(json!({"type": 2, "payload": STANDARD.encode(&segment)}));
    for directory in directories {
        fs::set_permissions(&directory, Permissions::from_mode(0o755)).expect("ours");
        let directory = fs::File::open(directory).expect("ours");
        directory.set_times(times()).expect("ours");
    }
    let size: usize = files.iter().map(|file| file.content.len()).sum();
    records(&host, &cache_id, (&sum(&archive), size), &recipe);
    (host, files)
}

fn times() -> FileTimes {
    FileTimes::new().set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(TIME))
}

fn keep_time(at: &PathBuf) {
    let file = OpenOptions::new().write(true).open(at).expect("ours");
    file.set_times(times()).expect("ours");
}

/// What Docker records of an image of one layer.
fn records(host: &Host, cache_id: &str, (diff_id, size): (&str, usize), recipe: &str) {
    let created = "2026-01-02T03:04:05Z";
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": {}, "created": created,
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{diff_id}")]},
        "history": [{"created": created, "created_by": "COPY"}],
    });
    let config = config.to_string();
    let id = sum(config.as_bytes());
    let database = format!("{DOCKER}/image/overlay2");
    host.file(format!("{database}/imagedb/content/sha256/{id}"), config);
    let names = json!({"Repositories": {"acme/app": {"acme/app:1": format!("sha256:{id}")}}});
    host.file(format!("{database}/repositories.json"), names.to_string());
    let layer = format!("{database}/layerdb/sha256/{diff_id}");
    host.file(format!("{layer}/cache-id"), cache_id);
    host.file(format!("{layer}/size"), size.to_string());
    host.file(format!("{layer}/diff"), format!("sha256:{diff_id}"));
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packer.write_all(recipe.as_bytes()).expect("memory");
    let recipe = packer.finish().expect("memory");
    host.file(format!("{layer}/tar-split.json.gz"), recipe);
    host.file(format!("{DOCKER}/overlay2/{cache_id}/link"), "CCC");
}

/// Turns one bit of a file, somewhere; or turns it back, by the same chance.
fn turn(file: &File, chance: &mut Chance) {
    let place = chance.below(file.content.len());
    let bit = 1 << chance.below(8);
    let open = OpenOptions::new().write(true).open(&file.at).expect("ours");
    open.write_all_at(&[file.content[place] ^ bit], place as u64)
        .expect("ours");
    keep_time(&file.at);
}

/// The paths of what differs, of which nothing but the content may.
#[track_caller]
fn told(host: &Host) -> BTreeSet<String> {
    let rows = host.jsonl(["verify"]).exits(1).rows();
    let paths: BTreeSet<String> = rows
        .iter()
        .map(|row| {
            assert_eq!(
                (text(row, "state"), text(row, "what")),
                ("differs", "content")
            );
            String::from_utf8(bytes(&row["path"])).expect("plain names")
        })
        .collect();
    assert_eq!(paths.len(), rows.len(), "a path twice");
    paths
}

#[apply(test)]
fn bits_that_turn_in_ten_thousand_files_are_all_found() {
    let count = of_many(10_000, 4, "files in which a bit turns");
    let (host, files) = stored(usize::try_from(count).expect("a count"));
    let proved = || {
        for threads in ["1", "2", "5"] {
            let row = host.jsonl(["-j", threads, "verify"]).exits(0).row();
            assert_eq!(text(&row, "state"), "proved", "{threads} threads");
        }
    };
    proved();
    let restore = |file: &File| {
        fs::write(&file.at, &file.content).expect("ours");
        keep_time(&file.at);
    };
    // In every file one.
    for seed in [1, 2] {
        files
            .iter()
            .for_each(|file| turn(file, &mut Chance(seed ^ file.content.len() as u64)));
        let all: BTreeSet<String> = files.iter().map(|file| file.path.clone()).collect();
        let told = told(&host);
        let missed: Vec<&String> = all.difference(&told).collect();
        assert!(
            told == all,
            "seed {seed}: {} of {}, not {missed:?}",
            told.len(),
            all.len()
        );
        files.iter().for_each(restore);
    }
    proved();
    // In some among the others.
    for seed in 3..6 {
        let mut chance = Chance(seed);
        let chosen: BTreeSet<usize> = (0..300).map(|_| chance.below(files.len())).collect();
        chosen.iter().for_each(|at| turn(&files[*at], &mut chance));
        let expected: BTreeSet<String> = chosen.iter().map(|at| files[*at].path.clone()).collect();
        assert_eq!(told(&host), expected, "seed {seed}");
        chosen.iter().for_each(|at| restore(&files[*at]));
    }
    proved();
    // In one.
    for seed in 6..10 {
        let mut chance = Chance(seed);
        let file = &files[chance.below(files.len())];
        turn(file, &mut chance);
        assert_eq!(told(&host), [file.path.clone()].into(), "seed {seed}");
        restore(file);
    }
}

/// Who waits is told how much was read, of how much, how fast, and how long it will take.
#[apply(test)]
fn a_terminal_sees_how_far_it_is() {
    needs::strace();
    let (host, _) = stored(600);
    let root = host.root.to_str().expect("plain names");
    let slow = terminal::said_slowly(("llistxattr", 5_000), ["--root", root, "verify", "-j1"]);
    let line = slow.rsplit('\r').find(|line| line.contains("verify: "));
    let line = line.unwrap_or_else(|| panic!("{slow:?}"));
    for word in ["B of about ", "B/s, about ", " left"] {
        assert!(line.contains(word), "{word:?} in {line:?}");
    }
}
