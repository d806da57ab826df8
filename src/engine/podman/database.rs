//! Podman's database: what it records of its containers since Podman 5.
//!
//! ```text
//! DBConfig          RunRoot, TmpDir
//! ContainerConfig   ID, Name, PodID, JSON: command, createdTime, newPortMappings, exposedPorts, rootfs
//! ContainerState    ID, JSON: state, exitCode, startedTime, finishedTime
//! ContainerVolume   ContainerID, VolumeName
//! PodConfig         ID, Name
//! ```
//!
//! What a table has in columns beside its JSON is not kept up to date. docs/facts.md

use std::collections::HashMap;

use super::libpod::{RecordedConfig, parse_state};
use super::ports::{Mapping, shown};
use super::record::{LibpodRecord, Records};
use super::store::{DATABASE, Podman};
use crate::bytes::Bytes;
use crate::engine::sqlite::{self, Damage, Database};
use crate::error::{Error, Result};

fn text(bytes: &[u8]) -> Option<String> {
    String::from_utf8(bytes.to_vec()).ok()
}

impl Podman<'_> {
    /// Where what does not outlive the machine's running is kept.
    pub(super) fn run_root(&self) -> Option<&Bytes> {
        let run_root = self.run_root.get_or_init(|| {
            // Only one of the graph root can tell; what is wrong with it is said where it is read.
            let database = sqlite::read(self.host, &self.root.join(DATABASE)).ok()?;
            let rows = database.rows("DBConfig", &["RunRoot"]).ok()?;
            let path = Bytes::from(rows.first()?.first()?.as_slice());
            path.as_bytes().starts_with(b"/").then_some(path)
        });
        run_root.as_ref().or(self.usual_run_root.as_ref())
    }

    /// Where Podman notes that it has worked since the machine was started.
    pub(super) fn tmp_dir(&self) -> Option<Bytes> {
        let roots = [Some(&self.root), self.run_root()];
        roots.into_iter().flatten().find_map(|root| {
            let database = sqlite::read(self.host, &root.join(DATABASE)).ok()?;
            let rows = database.rows("DBConfig", &["TmpDir"]).ok()?;
            let path = Bytes::from(rows.first()?.first()?.as_slice());
            path.as_bytes().starts_with(b"/").then_some(path)
        })
    }

    /// What the databases have of containers.
    pub(super) fn read_database(&self) -> Records {
        let mut records = Records::new();
        // A transient store's is in the run root.
        let roots = [Some(&self.root), self.run_root()];
        for root in roots.into_iter().flatten() {
            let path = root.join(DATABASE);
            let read = sqlite::read(self.host, &path).and_then(|database| {
                let records = read_records(&database);
                records.map_err(|damage| Error::damaged(path, damage.to_string()))
            });
            match read {
                Ok(read) => records.extend(read),
                Err(error) => self.problems.note_unless_absent(error),
            }
        }
        records
    }
}

fn read_records(database: &Database) -> Result<Records, Damage> {
    let mut pods: HashMap<Vec<u8>, String> = HashMap::new();
    for row in database.rows("PodConfig", &["ID", "Name"])? {
        if let [id, name] = &row[..]
            && let Some(name) = text(name)
        {
            pods.insert(id.clone(), name);
        }
    }
    let mut configs: HashMap<String, RecordedConfig> = HashMap::new();
    let mut records = Records::new();
    let mut networks: HashMap<String, Vec<Mapping>> = HashMap::new();
    for row in database.rows("ContainerConfig", &["ID", "Name", "PodID", "JSON"])? {
        let [id, name, pod, json] = &row[..] else {
            continue;
        };
        let Some(id) = text(id) else { continue };
        let pod = pods.get(pod).cloned();
        let mut record = LibpodRecord::default();
        if let Some(config) = RecordedConfig::parse(json) {
            networks.insert(id.clone(), config.mappings.clone());
            configs.insert(id.clone(), config);
        }
        record.name = text(name).filter(|name| !name.is_empty());
        record.pod = pod;
        record.volumes = Some(Vec::new());
        records.insert(id, record);
    }
    for (id, config) in configs {
        let Some(record) = records.get_mut(&id) else {
            continue;
        };
        // In a pod they are those of the container that has the network.
        let of = match config.net_ns_ctr.as_str() {
            "" => &id,
            other => other,
        };
        let mappings = networks.get(of).map(Vec::as_slice).unwrap_or_default();
        let ports = shown(mappings, config.exposed());
        let own = std::mem::take(record);
        *record = LibpodRecord {
            name: own.name,
            pod: own.pod,
            volumes: own.volumes,
            ports,
            ..config.record()
        };
    }
    for row in database.rows("ContainerState", &["ID", "JSON"])? {
        if let [id, json] = &row[..]
            && let Some(record) = text(id).and_then(|id| records.get_mut(&id))
        {
            match parse_state(json) {
                Some(state) => record.state = state,
                None => record.state.is_unknown = true,
            }
        }
    }
    for row in database.rows("ContainerVolume", &["ContainerID", "VolumeName"])? {
        if let [id, volume] = &row[..]
            && let Some(record) = text(id).and_then(|id| records.get_mut(&id))
            && let Some(volume) = text(volume)
        {
            record.volumes.get_or_insert_default().push(volume);
        }
    }
    Ok(records)
}
