//! An image layout as OCI defines it (image-layout.md), as a directory or in an archive; for docker
//! with its own list of the same blobs beside it, as `docker save` writes it since version 25.
//!
//! ```text
//! oci-layout             {"imageLayoutVersion": "1.0.0"}
//! blobs/sha256/<hex>     layers, configurations, manifests
//! index.json             the manifests, each with its name
//! manifest.json          docker's: [{"Config": "blobs/...", "RepoTags": [...], "Layers": ["blobs/..."]}]
//! ```

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::PathBuf;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::packed::{Hashed, Noted, copy};
use crate::dir::Dir;
use crate::error::{Error, Result};
use crate::restore::made::{self, Made};

/// What a manifest refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    pub media_type: String,
    /// `sha256:...`
    pub digest: String,
    /// Bytes.
    pub size: u64,
}

impl Descriptor {
    fn json(&self) -> Value {
        json!({"mediaType": self.media_type, "digest": self.digest, "size": self.size})
    }
}

/// An image that is in the layout, with all its blobs.
pub struct Parts<'p> {
    pub config: Descriptor,
    /// Bottom first.
    pub layers: Vec<Descriptor>,
    /// The manifest to use, byte for byte; none where it is to be made.
    pub manifest: Option<&'p [u8]>,
    /// `name:tag`, as the engine has them.
    pub names: &'p [String],
}

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// OCI's media type of a configuration.
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// A layout that is being written.
pub struct Layout<'o> {
    to: To<'o>,
    /// Where content waits whose size is not known yet.
    spool: PathBuf,
    blobs: HashSet<String>,
    index: Vec<Value>,
    /// Docker's list; none where only OCI's is wanted.
    docker: Option<Vec<Value>>,
    /// How much content was written, in bytes.
    pub size: u64,
}

enum To<'o> {
    Directory { root: Dir, blobs: Dir },
    Archive(Box<tar::Builder<&'o mut dyn Write>>),
}

impl<'o> Layout<'o> {
    /// In a directory that is empty.
    ///
    /// # Errors
    /// What the system calls say.
    pub fn in_directory(root: &Dir, spool: PathBuf, is_docker: bool) -> Result<Layout<'o>> {
        let make = |dir: &Dir, name: &[u8]| {
            made::directory(dir, name, 0o777)
                .map_err(|errno| Error::io(dir.path().join(name), errno))
        };
        let blobs = make(&make(root, b"blobs")?, b"sha256")?;
        let root = root.clone();
        Ok(Layout::new(To::Directory { root, blobs }, spool, is_docker))
    }

    /// In an archive.
    pub fn in_archive(out: &'o mut dyn Write, spool: PathBuf, is_docker: bool) -> Layout<'o> {
        let archive = Box::new(tar::Builder::new(out));
        Layout::new(To::Archive(archive), spool, is_docker)
    }

    fn new(to: To<'o>, spool: PathBuf, is_docker: bool) -> Layout<'o> {
        Layout {
            to,
            spool,
            blobs: HashSet::new(),
            index: Vec::new(),
            docker: is_docker.then(Vec::new),
            size: 0,
        }
    }

    pub fn has(&self, digest: &str) -> bool {
        self.blobs.contains(digest)
    }

    /// Adds a blob, of which so many bytes are read. Whoever gives it sees to it that the digest is
    /// its own.
    ///
    /// # Errors
    /// What either side says.
    pub fn blob(&mut self, digest: &str, size: u64, content: &mut dyn Read) -> io::Result<()> {
        if !self.blobs.insert(digest.to_owned()) {
            return Ok(());
        }
        let hex = digest.trim_start_matches("sha256:");
        self.put(&format!("blobs/sha256/{hex}"), size, &mut Noted(content))
    }

    /// Adds a blob that is in memory.
    ///
    /// # Errors
    /// What the output says.
    pub fn bytes(&mut self, media_type: &str, bytes: &[u8]) -> io::Result<Descriptor> {
        let descriptor = Descriptor {
            media_type: media_type.to_owned(),
            digest: format!("sha256:{}", super::hex(&Sha256::digest(bytes))),
            size: bytes.len() as u64,
        };
        self.blob(&descriptor.digest, descriptor.size, &mut &bytes[..])?;
        Ok(descriptor)
    }

    /// A place for content whose digest and size are known only when it is written.
    ///
    /// # Errors
    /// No file can be made there.
    pub fn spool(&self) -> io::Result<Hashed<File>> {
        tempfile::tempfile_in(&self.spool).map(Hashed::new)
    }

    /// Adds what was written to such a place.
    ///
    /// # Errors
    /// What either side says.
    pub fn spooled(&mut self, media_type: &str, spool: Hashed<File>) -> io::Result<Descriptor> {
        let (mut file, digest, size) = spool.finish();
        file.rewind()?;
        self.blob(&digest, size, &mut file)?;
        Ok(Descriptor {
            media_type: media_type.to_owned(),
            digest,
            size,
        })
    }

    /// Adds an image whose blobs are there. What comes back is the manifest's digest.
    ///
    /// # Errors
    /// What the output says.
    pub fn image(&mut self, parts: &Parts<'_>) -> io::Result<String> {
        let layers: Vec<Value> = parts.layers.iter().map(Descriptor::json).collect();
        let made = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": parts.config.json(),
            "layers": layers,
        })
        .to_string();
        let bytes = parts.manifest.unwrap_or(made.as_bytes());
        let media_type = media_type_of(bytes).unwrap_or_else(|| MANIFEST.to_owned());
        let manifest = self.bytes(&media_type, bytes)?;
        if parts.names.is_empty() {
            self.index.push(manifest.json());
        }
        for name in parts.names {
            let mut named = manifest.json();
            named["annotations"] = json!({
                "io.containerd.image.name": whole_name(name),
                "org.opencontainers.image.ref.name": tag(name),
            });
            self.index.push(named);
        }
        let path = |of: &Descriptor| {
            let hex = of.digest.trim_start_matches("sha256:");
            format!("blobs/sha256/{hex}")
        };
        if let Some(docker) = &mut self.docker {
            docker.push(json!({
                "Config": path(&parts.config),
                "RepoTags": parts.names,
                "Layers": parts.layers.iter().map(path).collect::<Vec<String>>(),
            }));
        }
        Ok(manifest.digest)
    }

    /// Ends the layout.
    ///
    /// # Errors
    /// What the output says.
    pub fn finish(mut self) -> io::Result<()> {
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": self.index});
        let layout = json!({"imageLayoutVersion": "1.0.0"});
        let docker = self.docker.take().map(Value::from);
        let files = [("index.json", Some(index)), ("manifest.json", docker)];
        let files = files.into_iter().chain([("oci-layout", Some(layout))]);
        for (name, content) in files {
            if let Some(content) = content {
                let content = content.to_string();
                self.put(name, content.len() as u64, &mut content.as_bytes())?;
            }
        }
        match &mut self.to {
            To::Archive(archive) => archive.finish(),
            To::Directory { .. } => Ok(()),
        }
    }

    fn put(&mut self, path: &str, size: u64, content: &mut dyn Read) -> io::Result<()> {
        self.size += size;
        match &mut self.to {
            To::Archive(archive) => {
                let mut header = tar::Header::new_ustar();
                header.set_path(path)?;
                header.set_size(size);
                header.set_mode(0o644);
                // A number that is left out is none to some readers.
                header.set_uid(0);
                header.set_gid(0);
                header.set_mtime(0);
                header.set_entry_type(tar::EntryType::Regular);
                header.set_cksum();
                let mut exact = Exact {
                    content,
                    left: size,
                };
                archive.append(&header, &mut exact)
            }
            To::Directory { root, blobs } => {
                let (dir, name) = match path.rsplit_once('/') {
                    Some((_, name)) => (&*blobs, name),
                    None => (&*root, path),
                };
                let made = Made::file(dir, name.as_bytes()).map_err(io::Error::other)?;
                let file = made.as_file().ok_or(io::ErrorKind::NotFound)?;
                let mut file = File::from(file.try_clone_to_owned()?);
                let mut exact = Exact {
                    content,
                    left: size,
                };
                copy(&mut exact, &mut file)?;
                made.sync().map_err(io::Error::other)
            }
        }
    }
}

/// A reader that has as many bytes as were promised, or says that it has not.
struct Exact<'r> {
    content: &'r mut dyn Read,
    left: u64,
}

impl Read for Exact<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.content.read(buffer)?;
        match self.left.checked_sub(count as u64) {
            // What is behind the last byte may be an error.
            Some(left) if count > 0 || left == 0 => self.left = left,
            _ => {
                let what = "changed its size while it was read";
                return Err(io::Error::new(io::ErrorKind::InvalidData, what));
            }
        }
        Ok(count)
    }
}

/// The media type that a manifest says it has.
fn media_type_of(manifest: &[u8]) -> Option<String> {
    let manifest: Value = serde_json::from_slice(manifest).ok()?;
    Some(manifest.get("mediaType")?.as_str()?.to_owned())
}

/// A name with what docker leaves out: `busybox:1` is `docker.io/library/busybox:1`.
fn whole_name(name: &str) -> String {
    match name.split_once('/') {
        None => format!("docker.io/library/{name}"),
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => name.to_owned(),
        Some(_) => format!("docker.io/{name}"),
    }
}

fn tag(name: &str) -> &str {
    match name.rsplit_once(':') {
        Some((_, tag)) if !tag.contains('/') => tag,
        _ => "latest",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_made_whole() {
        for (name, whole, tag_of_it) in [
            ("busybox:1", "docker.io/library/busybox:1", "1"),
            ("acme/app:2", "docker.io/acme/app:2", "2"),
            ("localhost/app:3", "localhost/app:3", "3"),
            ("host:5000/app", "host:5000/app", "latest"),
            ("quay.io/a/b:c", "quay.io/a/b:c", "c"),
        ] {
            assert_eq!(whole_name(name), whole);
            assert_eq!(tag(name), tag_of_it);
        }
    }

    #[test]
    fn a_blob_has_as_many_bytes_as_were_promised() {
        let mut out = Vec::new();
        for size in [0, 4, 6] {
            let mut layout = Layout::in_archive(&mut out, PathBuf::new(), false);
            let put = layout.blob("sha256:a", size, &mut &b"12345"[..]);
            assert!(put.is_err(), "{size}");
        }
        let mut layout = Layout::in_archive(&mut out, PathBuf::new(), false);
        assert!(layout.blob("sha256:a", 5, &mut &b"12345"[..]).is_ok());
    }
}
