//! The forms of containerd's own files: its two kinds of database.
//!
//! ```text
//! meta.db      v1/<namespace>/containers/<id>/{image,snapshotKey,snapshotter,spec,createdat,labels/,extensions/}
//!                            /images/<name>/target/{digest,mediatype,size}
//!                            /leases/<id>/{labels/,snapshots/<snapshotter>/<key>,content/<digest>,ingests/<ref>}
//!                            /content/blob/<digest>/{size,createdat,labels/}
//!                            /content/ingests/<ref>/{ref,expireat}     ref: what the store calls it
//!                            /snapshots/<snapshotter>/<key>/{name,parent}      name: the key in metadata.db
//! metadata.db  v1/snapshots/<namespace>/<number>/<key>/{id,kind,parent,size,labels/}   one key, with its slashes
//! ```

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use crate::engine::bolt::{self, Bucket, Damage, Database, Item};
use crate::union::{IdMap, IdRange};

/// What one namespace has.
#[derive(Debug, Default)]
pub(super) struct NamespaceRecords {
    pub containers: Vec<ContainerRecord>,
    pub images: Vec<ImageRecord>,
    /// `(snapshotter, key) -> snapshot`.
    pub snapshots: HashMap<(String, String), SnapshotName>,
    pub leases: Vec<Lease>,
    /// `digest -> blob`.
    pub blobs: BTreeMap<String, BlobRecord>,
    /// What is being downloaded, by the names that clients gave.
    pub ingests: BTreeMap<String, IngestRecord>,
    /// The digests that something keeps beside images and leases: a container, a snapshot, a label.
    pub kept: Vec<String>,
}

/// A download as its namespace knows it.
#[derive(Debug, Clone, Default)]
pub(super) struct IngestRecord {
    /// What the content store calls it.
    pub reference: String,
    /// RFC 3339; empty where a lease was to say.
    pub expires: String,
}

/// A blob as its namespace knows it.
#[derive(Debug, Clone, Default)]
pub(super) struct BlobRecord {
    /// Bytes.
    pub size: u64,
    /// The digests that it keeps from being collected.
    pub refers: Vec<String>,
}

/// The label of an image that Docker made from another one without its builder.
const DOCKERS_PARENT: &[u8] = b"org.mobyproject.image.parent";

/// What keeps things from being collected.
#[derive(Debug, Default)]
pub(super) struct Lease {
    pub id: String,
    /// RFC 3339; none where it does not end by itself.
    pub expires: Option<String>,
    /// `(snapshotter, key)`.
    pub snapshots: HashSet<(String, String)>,
    /// Digests.
    pub content: HashSet<String>,
    /// What is being downloaded, by the names that clients gave.
    pub ingests: HashSet<String>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct ContainerRecord {
    pub id: String,
    pub image: String,
    pub snapshotter: String,
    pub snapshot_key: String,
    /// RFC 3339.
    pub created: String,
    pub labels: BTreeMap<String, String>,
    /// The runtime's configuration: JSON.
    pub spec: Vec<u8>,
    /// What the CRI plugin noted: JSON.
    pub cri: Option<Vec<u8>>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct ImageRecord {
    pub name: String,
    pub digest: String,
    /// RFC 3339.
    pub created: String,
    /// Bytes of what the digest stands for.
    pub size: u64,
    /// The digest of the image that Docker made it from, as its label has it.
    pub parent: Option<String>,
}

/// A snapshot as its namespace calls it.
#[derive(Debug, Clone, Default)]
pub(super) struct SnapshotName {
    /// What the snapshotter calls it.
    pub name: String,
    /// The key of the one below, in the same namespace.
    pub parent: Option<String>,
}

/// A snapshot as its snapshotter has it.
#[derive(Debug, Clone, Default)]
pub(super) struct Snapshot {
    /// The number of its directory.
    pub id: u64,
    /// What the snapshotter calls the one below.
    pub parent: Option<String>,
    /// Bytes on disk; of committed ones.
    pub size: Option<u64>,
    pub kind: Option<SnapshotKind>,
    /// How a mount of it shows the owners of what is below.
    pub owners: Option<Arc<IdMap>>,
}

/// What a snapshot is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SnapshotKind {
    View,
    /// Somebody may write in it.
    Active,
    Committed,
}

impl SnapshotKind {
    /// containerd's own number for it.
    fn of(number: u8) -> Option<SnapshotKind> {
        match number {
            1 => Some(SnapshotKind::View),
            2 => Some(SnapshotKind::Active),
            3 => Some(SnapshotKind::Committed),
            _ => None,
        }
    }
}

/// Reads `meta.db`.
///
/// # Errors
/// What is damaged.
pub(super) fn read_meta(bytes: &[u8]) -> Result<BTreeMap<String, NamespaceRecords>, Damage> {
    let database = Database::open(bytes)?;
    let mut namespaces = BTreeMap::new();
    for_each_bucket(database.root().bucket(b"v1")?, |name, bucket| {
        namespaces.insert(name, read_namespace(&bucket)?);
        Ok(())
    })?;
    Ok(namespaces)
}

fn read_namespace(bucket: &Bucket<'_>) -> Result<NamespaceRecords, Damage> {
    let mut namespace = NamespaceRecords::default();
    for_each_bucket(bucket.bucket(b"containers")?, |id, record| {
        let container = read_container(id, &record)?;
        namespace.kept.extend(kept(container.labels.clone()));
        namespace.containers.push(container);
        Ok(())
    })?;
    for_each_bucket(bucket.bucket(b"images")?, |name, record| {
        let mut image = ImageRecord {
            name,
            created: time(&record, b"createdat")?,
            ..ImageRecord::default()
        };
        if let Some(target) = record.bucket(b"target")? {
            image.digest = text(&target, b"digest")?;
            image.size = size(&target, b"size")?.unwrap_or_default();
        }
        if let Some(labels) = record.bucket(b"labels")? {
            image.parent = labels.get(DOCKERS_PARENT)?.map(lossy);
        }
        namespace.images.push(image);
        Ok(())
    })?;
    for_each_bucket(bucket.bucket(b"snapshots")?, |snapshotter, keys| {
        for_each_bucket(Some(keys), |key, record| {
            let name = text(&record, b"name")?;
            let place = (snapshotter.clone(), key);
            let parent = text(&record, b"parent")?;
            let parent = Some(parent).filter(|parent| !parent.is_empty());
            namespace.kept.extend(kept(labels(&record)?));
            let snapshot = SnapshotName { name, parent };
            namespace.snapshots.insert(place, snapshot);
            Ok(())
        })
    })?;
    for_each_bucket(bucket.bucket(b"leases")?, |id, record| {
        let mut lease = Lease {
            id,
            ..Lease::default()
        };
        if let Some(labels) = record.bucket(b"labels")? {
            lease.expires = labels.get(b"containerd.io/gc.expire")?.map(lossy);
        }
        for_each_bucket(record.bucket(b"snapshots")?, |snapshotter, keys| {
            for item in keys.iter() {
                let (key, _) = item?;
                lease.snapshots.insert((snapshotter.clone(), lossy(key)));
            }
            Ok(())
        })?;
        lease.content = names(record.bucket(b"content")?)?;
        lease.ingests = names(record.bucket(b"ingests")?)?;
        namespace.leases.push(lease);
        Ok(())
    })?;
    let content = bucket.bucket(b"content")?;
    let ingests = content.as_ref().map(|content| content.bucket(b"ingests"));
    for_each_bucket(ingests.transpose()?.flatten(), |name, record| {
        let ingest = IngestRecord {
            reference: text(&record, b"ref")?,
            expires: time(&record, b"expireat")?,
        };
        namespace.ingests.insert(name, ingest);
        Ok(())
    })?;
    let blobs = content.map(|content| content.bucket(b"blob")).transpose()?;
    for_each_bucket(blobs.flatten(), |digest, record| {
        let labels = labels(&record)?;
        if labels.contains_key(ROOT) {
            namespace.kept.push(digest.clone());
        }
        let blob = BlobRecord {
            size: size(&record, b"size")?.unwrap_or_default(),
            refers: kept(labels).collect(),
        };
        namespace.blobs.insert(digest, blob);
        Ok(())
    })?;
    Ok(namespace)
}

/// What keeps its label's value, a digest, from being collected; something follows it where one
/// thing keeps several.
const KEEPS: &str = "containerd.io/gc.ref.content";
/// Who has this label is kept.
const ROOT: &str = "containerd.io/gc.root";

/// The digests that something keeps by its labels.
fn kept(labels: BTreeMap<String, String>) -> impl Iterator<Item = String> {
    let keeping = labels.into_iter();
    keeping.filter_map(|(label, value)| label.starts_with(KEEPS).then_some(value))
}

fn labels(record: &Bucket<'_>) -> Result<BTreeMap<String, String>, Damage> {
    let mut labels = BTreeMap::new();
    if let Some(bucket) = record.bucket(b"labels")? {
        for item in bucket.iter() {
            if let (key, Item::Value(value)) = item? {
                labels.insert(lossy(key), lossy(value));
            }
        }
    }
    Ok(labels)
}

/// What is in a bucket that may be missing, by name.
fn names(bucket: Option<Bucket<'_>>) -> Result<HashSet<String>, Damage> {
    let mut names = HashSet::new();
    for item in bucket.iter().flat_map(Bucket::iter) {
        let (key, _) = item?;
        names.insert(lossy(key));
    }
    Ok(names)
}

fn read_container(id: String, record: &Bucket<'_>) -> Result<ContainerRecord, Damage> {
    let any = |bytes: Option<&[u8]>| Some(bolt::any(bytes?)?.value.to_vec());
    let mut cri = None;
    if let Some(extensions) = record.bucket(b"extensions")? {
        for key in [
            &b"io.cri-containerd.container.metadata"[..],
            b"io.cri-containerd.sandbox.metadata",
        ] {
            cri = any(extensions.get(key)?).or(cri);
        }
    }
    Ok(ContainerRecord {
        id,
        image: text(record, b"image")?,
        snapshotter: text(record, b"snapshotter")?,
        snapshot_key: text(record, b"snapshotKey")?,
        created: time(record, b"createdat")?,
        labels: labels(record)?,
        spec: any(record.get(b"spec")?).unwrap_or_default(),
        cri,
    })
}

/// Reads a snapshotter's `metadata.db`: snapshots by the snapshotter's own names.
///
/// # Errors
/// What is damaged.
pub(super) fn read_snapshots(bytes: &[u8]) -> Result<HashMap<String, Snapshot>, Damage> {
    let database = Database::open(bytes)?;
    let mut snapshots = HashMap::new();
    let Some(root) = database.root().bucket(b"v1")? else {
        return Ok(snapshots);
    };
    for_each_bucket(root.bucket(b"snapshots")?, |name, record| {
        let id = record.get(b"id")?.and_then(bolt::uvarint);
        let Some((id, _)) = id else { return Ok(()) };
        let parent = text(&record, b"parent")?;
        let snapshot = Snapshot {
            id,
            parent: Some(parent).filter(|parent| !parent.is_empty()),
            size: size(&record, b"size")?,
            kind: match record.get(b"kind")? {
                Some([kind]) => SnapshotKind::of(*kind),
                _ => None,
            },
            owners: owners(&labels(&record)?),
        };
        snapshots.insert(name, snapshot);
        Ok(())
    })?;
    Ok(snapshots)
}

/// How a pod with users of its own shows the owners of its image's files.
fn owners(labels: &BTreeMap<String, String>) -> Option<Arc<IdMap>> {
    let ranges = |what: &str| {
        let label = labels.get(&format!("containerd.io/snapshot/{what}mapping"))?;
        ranges(label)
    };
    let (users, groups) = (ranges("uid")?, ranges("gid")?);
    Some(Arc::new(IdMap { users, groups }))
}

/// `CONTAINER'S:HOST'S:SIZE,...`; none where it is something else.
fn ranges(label: &str) -> Option<Vec<IdRange>> {
    let range = |text: &str| {
        let mut numbers = text.split(':').map(|number| number.parse().ok());
        let (stored, shown, size) = (numbers.next()??, numbers.next()??, numbers.next()??);
        Some(IdRange {
            stored,
            shown,
            size,
        })
    };
    label.split(',').map(range).collect()
}

/// Calls `take` for every bucket in one that may be missing, with its name.
fn for_each_bucket<'a>(
    bucket: Option<Bucket<'a>>,
    mut take: impl FnMut(String, Bucket<'a>) -> Result<(), Damage>,
) -> Result<(), Damage> {
    let Some(bucket) = bucket else {
        return Ok(());
    };
    for item in bucket.iter() {
        if let (key, Item::Bucket(below)) = item? {
            take(lossy(key), below)?;
        }
    }
    Ok(())
}

/// Names and digests are text; what is not is no name that could be asked for.
fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn text(bucket: &Bucket<'_>, key: &[u8]) -> Result<String, Damage> {
    Ok(bucket.get(key)?.map(lossy).unwrap_or_default())
}

fn size(bucket: &Bucket<'_>, key: &[u8]) -> Result<Option<u64>, Damage> {
    let value = bucket.get(key)?.and_then(bolt::varint);
    Ok(value.and_then(|(size, _)| u64::try_from(size).ok()))
}

fn time(bucket: &Bucket<'_>, key: &[u8]) -> Result<String, Damage> {
    let time = bucket.get(key)?.and_then(bolt::time);
    Ok(time.map(|time| time.to_string()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn no_bytes_make_a_reader_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
            let _ = read_meta(&bytes);
            let _ = read_snapshots(&bytes);
        }
    }
}
