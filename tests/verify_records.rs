//! `verify` of records: images' names, configurations, manifests and indexes, held against their digests.

use std::fs;

use serde_json::{Value, json};

use crate::lab::host::Host;
use crate::lab::needs;
use crate::lab::packed::sum;
use crate::lab::run::{Output, bytes, text};

/// A record that is spoilt, and what is told of it; nothing of it once that is undone.
struct Record<'h> {
    host: &'h Host,
    at: &'h str,
    before: Vec<u8>,
}

impl<'h> Record<'h> {
    fn of(host: &'h Host, at: &'h str) -> Record<'h> {
        let before = host.read(at);
        Record { host, at, before }
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.before).expect("JSON")
    }

    /// Demands that the record is told of in these words, for these users, and nothing besides.
    #[track_caller]
    fn spoilt(&self, after: impl AsRef<[u8]>, targets: &[&str], words: &[(&str, &str)]) -> Output {
        let path = self.host.at(self.at);
        fs::write(&path, after).expect("ours");
        let arguments = ["verify"].iter().chain(targets);
        let output = self.host.jsonl(arguments);
        let rows = output.rows();
        let differing = rows.iter().filter(|row| row["state"] == "differs");
        let mut told: Vec<(String, String)> = Vec::new();
        for row in differing {
            assert_eq!(row["what"], "record", "{row}");
            let at = String::from_utf8(bytes(&row["path"])).expect("plain names");
            assert_eq!(at, self.at, "{row}");
            let user = text(row, "target").to_owned();
            told.push((user, text(row, "why").to_owned()));
        }
        for (user, words) in words {
            let is_it = |(own, why): &(String, String)| own == user && why.contains(words);
            assert!(told.iter().any(is_it), "{user}: {words} of {told:#?}");
        }
        assert_eq!(told.len(), words.len(), "{told:#?}");
        assert_ne!(output.status, Some(0));
        fs::write(path, &self.before).expect("ours");
        output
    }
}

const REPOSITORIES: &str = "/var/lib/docker/image/overlay2/repositories.json";

/// A record that is lost, or is none any more, is a fault of the image, and the layers that are left are proved.
#[apply(test)]
fn an_image_that_lost_a_record_hides_no_layer() {
    needs::time();
    needs::captured_hosts();
    let host = Host::captured("docker-28-overlay2");
    let whole = host.jsonl(["verify"]).rows();
    let states =
        |rows: &[Value], state: &str| rows.iter().filter(|row| row["state"] == state).count();
    let proved = states(&whole, "proved");
    assert!(proved > 10);
    let database = "/var/lib/docker/image/overlay2/layerdb/sha256";
    let record = fs::read_dir(host.at(database)).expect("ours").next();
    let record = record.expect("a layer").expect("ours").path();
    let aside = host.at("/aside");
    fs::rename(&record, &aside).expect("ours");
    let rows = host.jsonl(["verify"]).rows();
    assert!(
        states(&rows, "proved") + 1 >= proved,
        "{} of {proved}",
        states(&rows, "proved")
    );
    let is_record = |row: &Value| row["state"] == "differs" && row["what"] == "record";
    assert!(rows.iter().any(is_record), "{rows:#?}");
    fs::rename(&aside, &record).expect("ours");
    // What is no JSON has not the digest either.
    let content = "/var/lib/docker/image/overlay2/imagedb/content/sha256";
    let mut lost = 0;
    for config in fs::read_dir(host.at(content)).expect("ours") {
        let config = config.expect("ours").path();
        let before = fs::read(&config).expect("ours");
        fs::write(&config, "{").expect("ours");
        let rows = host.jsonl(["verify"]).rows();
        assert!(
            rows.iter().any(is_record),
            "{}: {rows:#?}",
            config.display()
        );
        fs::write(&config, before).expect("ours");
        lost += 1;
        if lost == 3 {
            break;
        }
    }
}

#[apply(test)]
fn names_of_what_is_not_there_are_told() {
    needs::captured_hosts();
    let host = Host::captured("docker-28-overlay2");
    let record = Record::of(&host, REPOSITORIES);
    let gone = format!("sha256:{}", "0".repeat(64));
    let with = |name: &str, reference: &str, id: &Value| {
        let mut list = record.json();
        list["Repositories"][name][reference] = id.clone();
        list.to_string()
    };
    // Of an image that is not there, beside one that is.
    let told = "names lab/gone:1, and there is no image";
    record.spoilt(
        with("lab/gone", "lab/gone:1", &json!(gone)),
        &[],
        &[("lab/gone:1", told)],
    );
    let by_digest = format!("lab/base@{gone}");
    let told = format!("names {by_digest}, and there is no image");
    record.spoilt(
        with("lab/base", &by_digest, &json!(gone)),
        &[],
        &[(&by_digest, &told)],
    );
    // Of no image at all.
    record.spoilt(
        with(
            "lab/gone",
            "lab/gone:1",
            &json!("sha256:../../../etc/passwd"),
        ),
        &[],
        &[("lab/gone:1", "is no image id")],
    );
    // Who asks for one image is not told of another.
    fs::write(
        host.at(REPOSITORIES),
        with("lab/gone", "lab/gone:1", &json!(gone)),
    )
    .expect("ours");
    let rows = host.jsonl(["verify", "lab/base:1"]).rows();
    assert!(rows.iter().all(|row| row["state"] == "proved"), "{rows:?}");
}

/// The same of what Docker up to 1.9 kept.
#[apply(test)]
fn names_of_an_old_docker_are_told() {
    needs::fixtures();
    let host = Host::copy_of("docker-1.9");
    let at = "/var/lib/docker/repositories-aufs";
    let record = Record::of(&host, at);
    let mut list = record.json();
    list["Repositories"]["gone"]["latest"] = json!("0".repeat(64));
    let told = "names gone:latest, and there is no image";
    record.spoilt(list.to_string(), &[], &[("gone:latest", told)]);
}

#[apply(test)]
fn a_configuration_with_another_digest_is_told() {
    needs::captured_hosts();
    let host = Host::captured("docker-28-overlay2");
    let list = Record::of(&host, REPOSITORIES).json();
    let id = text(&list["Repositories"]["lab/small"], "lab/small:edge");
    let id = id.trim_start_matches("sha256:");
    let at = format!("/var/lib/docker/image/overlay2/imagedb/content/sha256/{id}");
    let record = Record::of(&host, &at);
    let mut config = record.json();
    config["config"]["Env"] = json!(["A=b"]);
    let config = config.to_string();
    let told = format!("has the digest sha256:{}", sum(config.as_bytes()));
    record.spoilt(
        config,
        &["lab/small:edge"],
        &[("docker:lab/small:edge", &told)],
    );
}

const IMAGES: &str = "/var/lib/containers/storage/overlay-images";

/// The file that a store keeps something of an image in.
fn kept(id: &str, name: &str) -> String {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    match name {
        "manifest" => format!("{IMAGES}/{id}/manifest"),
        name => format!("{IMAGES}/{id}/={}", STANDARD.encode(name)),
    }
}

#[apply(test)]
fn manifests_of_podman_are_what_their_digests_say() {
    needs::time();
    needs::captured_hosts();
    let host = Host::captured("podman-5.8-overlay");
    let list = format!("{IMAGES}/images.json");
    let record = Record::of(&host, &list);
    let image = "localhost/lab/base:1";
    let user = format!("podman:{image}");
    let images = record.json();
    let has_name = |of: &&Value| of["names"] == json!([image]);
    let of_image = images.as_array().expect("a list").iter().find(has_name);
    let of_image = of_image.expect("the image");
    let (id, digest) = (text(of_image, "id"), text(of_image, "digest"));

    // The manifest is another one than the record says.
    for name in ["manifest".to_owned(), format!("manifest-{digest}")] {
        let at = kept(id, &name);
        let manifest = Record::of(&host, &at);
        let mut spoilt = manifest.before.clone();
        let last = spoilt.len() - 1;
        spoilt[last] = b' ';
        let told = format!("has the digest sha256:{}", sum(&spoilt));
        manifest.spoilt(&spoilt, &[image], &[(&user, &told)]);
        // It is shorter than that.
        let told = format!("has {last} bytes, and images.json says {}", last + 1);
        let short = &manifest.before[..last];
        let digest = format!("has the digest sha256:{}", sum(short));
        manifest.spoilt(short, &[image], &[(&user, &told), (&user, &digest)]);
        let path = host.at(&at);
        fs::remove_file(&path).expect("ours");
        let rows = host.jsonl(["verify", image]).exits(1).rows();
        let row = rows
            .iter()
            .find(|row| row["what"] == "record")
            .expect("a row");
        assert_eq!(
            (text(row, "path"), text(row, "why")),
            (&at[..], "is not there")
        );
        fs::write(path, &manifest.before).expect("ours");
    }

    // The list says another digest, size or name.
    let with = |change: &dyn Fn(&mut Value)| {
        let mut images = record.json();
        let all = images.as_array_mut().expect("a list");
        let own = all.iter_mut().find(|of| of["id"] == id).expect("the image");
        change(own);
        images.to_string()
    };
    let other = format!("sha256:{}", "1".repeat(64));
    let told = format!("says that image {id} has the digest {other}");
    record.spoilt(
        with(&|of| of["digest"] = json!(other)),
        &[image],
        &[(&user, &told)],
    );
    let named = format!("localhost/lab/base@{other}");
    let told = format!("calls image {id} {named}");
    let spoilt = with(&|of| of["names"] = json!([image, named]));
    record.spoilt(spoilt, &[image], &[(&user, &told)]);
    // By its own digest it may be called.
    let named = format!("localhost/lab/base@{digest}");
    fs::write(
        host.at(&list),
        with(&|of| of["names"] = json!([image, named])),
    )
    .expect("ours");
    host.jsonl(["verify", image]).exits(0);
}

/// Docker keeps what containerd keeps, and it is held against the same.
#[apply(test)]
fn manifests_of_content_stores_are_what_their_digests_say() {
    needs::time();
    needs::captured_hosts();
    for (name, image, store) in [
        (
            "containerd-2.1",
            "containerd:default/docker.io/library/app:1",
            "/var/lib/containerd/io.containerd.content.v1.content/blobs/sha256",
        ),
        (
            "docker-28-containerd",
            "docker:lab/small:edge",
            "/var/lib/docker/containerd/daemon/io.containerd.content.v1.content/blobs/sha256",
        ),
    ] {
        let host = Host::captured(name);
        let row = host.jsonl(["images"]).rows();
        let is_it = |row: &&Value| row["target"] == image;
        let row = row
            .iter()
            .find(is_it)
            .unwrap_or_else(|| panic!("{name}: {row:?}"));
        let mut left = vec![text(row, "id").to_owned()];
        let mut spoilt = 0;
        while let Some(digest) = left.pop() {
            let at = format!("{store}/{}", digest.trim_start_matches("sha256:"));
            if !host.at(&at).exists() {
                continue;
            }
            let record = Record::of(&host, &at);
            let document = record.json();
            let manifests = document["manifests"].as_array().into_iter().flatten();
            let below = manifests.map(|of| text(of, "digest").to_owned());
            left.extend(below);
            let config = document["config"]["digest"].as_str();
            left.extend(config.map(str::to_owned));
            let mut other = document.clone();
            other["spoilt"] = json!(true);
            let told = other.to_string();
            let told = format!("has the digest sha256:{}", sum(told.as_bytes()));
            record.spoilt(other.to_string(), &[image], &[(image, &told)]);
            spoilt += 1;
        }
        assert!(spoilt > 1, "{name}: {spoilt}");
    }
}

/// Of an archive that is not what was pulled nothing is told but that, however much differs from it.
#[apply(test)]
fn what_differs_from_a_damaged_archive_is_not_counted() {
    needs::time();
    needs::captured_hosts();
    let host = Host::captured("containerd-2.1");
    let blobs = host.at("/var/lib/containerd/io.containerd.content.v1.content/blobs/sha256");
    let blobs = fs::read_dir(&blobs).expect("a store");
    let layers = blobs
        .map(|blob| blob.expect("a blob").path())
        .filter(|path| fs::read(path).expect("a blob").starts_with(&[0x1f, 0x8b]));
    let packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let mut builder = tar::Builder::new(packer);
    for number in 0..10_100 {
        let mut header = tar::Header::new_ustar();
        header.set_size(0);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        let name = format!("lost-{number}");
        builder
            .append_data(&mut header, name, &[][..])
            .expect("memory");
    }
    let packed = builder.into_inner().expect("memory").finish();
    let packed = packed.expect("memory");
    let layers: Vec<_> = layers.collect();
    for layer in &layers {
        fs::write(layer, &packed).expect("ours");
    }
    let rows = host.jsonl(["verify"]).exits(1).rows();
    let differing = rows.iter().filter(|row| row["state"] == "differs");
    let mut count = 0;
    for row in differing {
        assert_eq!(row["what"], "record", "{row}");
        count += 1;
    }
    assert!(count >= layers.len(), "{rows:?}");
}
