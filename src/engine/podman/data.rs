//! What an image's record says of the files that are kept of it: its manifests and its configuration.

use super::record::ImageRecord;
use super::store::Podman;
use crate::engine::inventory::Image;
use crate::engine::oci;
use crate::engine::stored::RecordFault;
use crate::error::Result;

/// What a manifest of version 1 says of itself. Its digest is not that of all its bytes: signatures are
/// left out.
#[derive(serde::Deserialize)]
struct Signed {
    #[serde(rename = "schemaVersion")]
    version: u64,
}

fn is_signed(bytes: &[u8]) -> bool {
    serde_json::from_slice(bytes).is_ok_and(|of: Signed| of.version == 1)
}

impl Podman<'_> {
    /// What the list of images says of one, held against what is kept of it.
    ///
    /// # Errors
    /// What is there and cannot be read.
    pub(super) fn data_faults(&self, image: &Image) -> Result<Vec<RecordFault>> {
        let mut faults = Vec::new();
        let Some(record) = self.image_record(&image.id) else {
            return Ok(faults);
        };
        for name in &record.data_names {
            let path = self.image_data_path(record, name);
            let mut add = |what| {
                let path = path.clone();
                faults.push(RecordFault { path, what });
            };
            let bytes = match self.image_data(record, name) {
                Ok(bytes) => bytes,
                Err(error) if error.is_absent() => {
                    add("is not there".to_owned());
                    continue;
                }
                Err(error) => return Err(error),
            };
            let size = bytes.len() as u64;
            if let Some(said) = record.data_sizes.get(name).filter(|said| **said != size) {
                add(format!("has {size} bytes, and images.json says {said}"));
            }
            // Whoever proves the image has its configuration's digest.
            if *name == record.config_name() || is_signed(&bytes) {
                continue;
            }
            let own = format!("sha256:{}", oci::digest_of(&bytes));
            if recorded_digest(record, name).is_some_and(|said| said != own) {
                add(format!("has the digest {own}"));
            }
        }
        faults.extend(self.digest_faults(record));
        Ok(faults)
    }

    /// Whether the digests that a record has are those of what it has.
    fn digest_faults(&self, record: &ImageRecord) -> Vec<RecordFault> {
        let manifests = record.data_names.iter();
        let manifests = manifests.filter(|name| name.starts_with("manifest"));
        let all: Vec<&str> = manifests
            .filter_map(|of| recorded_digest(record, of))
            .collect();
        if all.is_empty() {
            return Vec::new();
        }
        let id = &record.id;
        // A list that grows keeps the digest of what it was at first.
        let digest = record.digest.iter().filter(|_| !record.is_list());
        let own = digest.map(|digest| {
            let what = format!("says that image {id} has the digest {digest}, and no manifest has");
            (digest.as_str(), what)
        });
        let names = record.names.iter().filter_map(|name| {
            let what = format!("calls image {id} {name}, and it has no such manifest");
            Some((name.split_once('@')?.1, what))
        });
        let wrong = own.chain(names).filter(|(digest, _)| !all.contains(digest));
        let list = self.kind_of(&self.stores[record.home], "images");
        let path = list.join(b"images.json");
        wrong
            .map(|(_, what)| RecordFault {
                path: path.clone(),
                what,
            })
            .collect()
    }
}

/// The digest that something kept of an image has to have, by its name or the list.
fn recorded_digest<'r>(record: &'r ImageRecord, name: &'r str) -> Option<&'r str> {
    let by_name = name
        .strip_prefix("manifest-")
        .filter(|of| of.starts_with("sha256:"));
    by_name.or_else(|| record.data_digests.get(name).map(String::as_str))
}
