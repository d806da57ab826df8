//! What Podman itself records of its containers: their state and command.
//!
//! ```text
//! <graphroot>/db.sql                 its database since Podman 5: database; <runroot>/db.sql of a transient store
//! <graphroot>/libpod/bolt_state.db   the one before. ctr/<id>/{config,state}: JSON; exit-code/<id>: decimal
//! <driver>-containers/<id>/userdata/config.json     below the graph root: it was started once
//! <driver>-containers/<id>/userdata/pidfile         below the run root: the last process
//! ```
//!
//! Where there is no record - buildah's and CRI-O's containers have none - the files tell what
//! they can.

use std::collections::BTreeMap;

use rustix::io::Errno;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use super::ports::{Exposed, Mapping};
use super::record::{LibpodRecord, Records, Rootfs};
use super::store::{DATABASE, Podman};
use crate::bytes::Bytes;
use crate::engine::bolt::{self, Bucket, Damage, Database, Item};
use crate::engine::cover::{Cover, CoverKind, engines_own};
use crate::engine::inventory::{ContainerState, Health, null_default};
use crate::engine::namespace;
use crate::engine::oci::RuntimeConfig;
use crate::engine::stored::Settings;
use crate::error::Error;

/// Its database before Podman 5, in its own directory.
const BOLT: &[u8] = b"bolt_state.db";

/// What Podman notes, since its fourth version, when it first starts.
const NETWORK_BACKEND: &[u8] = b"defaultNetworkBackend";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RecordedConfig {
    #[serde(default, deserialize_with = "null_default")]
    spec: RuntimeConfig,
    #[serde(rename = "createdTime")]
    created: Option<String>,
    #[serde(default, deserialize_with = "null_default")]
    entrypoint: Vec<String>,
    #[serde(default)]
    labels: Value,
    #[serde(default)]
    user: Value,
    /// What was asked for; the process may have an init before it.
    #[serde(default, deserialize_with = "null_default")]
    command: Vec<String>,
    #[serde(default)]
    name: Option<String>,
    #[serde(rename = "newPortMappings", default, deserialize_with = "null_default")]
    pub mappings: Vec<Mapping>,
    /// Protocols by port.
    #[serde(default, deserialize_with = "null_default")]
    pub exposed_ports: BTreeMap<u16, Vec<String>>,
    /// The container whose network it has, and so whose ports.
    #[serde(default, deserialize_with = "null_default")]
    pub net_ns_ctr: String,
    #[serde(default, deserialize_with = "null_default")]
    rootfs: String,
    #[serde(rename = "rootfs_overlay", default)]
    is_rootfs_below: bool,
    #[serde(default, deserialize_with = "null_default")]
    named_volumes: Vec<NamedVolume>,
    #[serde(default, deserialize_with = "null_default")]
    overlay_volumes: Vec<OverlayVolume>,
    /// What is run to see whether it is well.
    #[serde(default)]
    healthcheck: Option<IgnoredAny>,
}

/// A volume, and where it is in the container.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct NamedVolume {
    volume_name: String,
    dest: String,
    #[serde(default, deserialize_with = "null_default")]
    options: Vec<String>,
}

/// A directory of the host that no change reaches, and where it is in the container.
#[derive(Deserialize)]
struct OverlayVolume {
    dest: String,
    source: String,
    #[serde(default, deserialize_with = "null_default")]
    options: Vec<String>,
}

impl NamedVolume {
    fn cover(&self) -> Cover {
        let volume = Cover::volume(self.dest.as_str(), &self.volume_name);
        let is_below = self.options.iter().any(|option| option == "O");
        if is_below {
            volume.below_overlay(upper_in(&self.options))
        } else {
            volume
        }
    }
}

impl OverlayVolume {
    fn cover(&self) -> Cover {
        let directory = Cover::new(CoverKind::Bind, self.dest.as_str()).at(&self.source);
        directory.below_overlay(upper_in(&self.options))
    }
}

/// The directory that a person named for the changes; empty where Podman makes one.
fn upper_in(options: &[String]) -> &str {
    let mut options = options.iter();
    let found = options.find_map(|option| option.strip_prefix("upperdir="));
    found.unwrap_or_default()
}

impl RecordedConfig {
    pub fn parse(json: &[u8]) -> Option<RecordedConfig> {
        serde_json::from_slice(json).ok()
    }

    /// What it tells by itself.
    pub fn record(self) -> LibpodRecord {
        let volumes = self.named_volumes.iter().map(NamedVolume::cover);
        let overlays = self.overlay_volumes.iter().map(OverlayVolume::cover);
        let mut covers: Vec<Cover> = volumes.chain(overlays).chain(self.spec.covers()).collect();
        covers.extend(engines_own());
        let settings = self.settings();
        let args = if self.command.is_empty() {
            self.spec.args()
        } else {
            self.command
        };
        let names = self.named_volumes.into_iter().map(|of| of.volume_name);
        let rootfs = Some(self.rootfs).filter(|path| path.starts_with('/'));
        LibpodRecord {
            command: Some(args.join(" ")),
            created: self.created,
            name: self.name,
            covers,
            settings: Some(settings),
            volumes: Some(names.collect()),
            is_checked: self.healthcheck.is_some(),
            rootfs: rootfs.map(|path| Rootfs {
                directory: Bytes::from(path.as_str()),
                is_below: self.is_rootfs_below,
            }),
            ..LibpodRecord::default()
        }
    }

    /// What `podman commit` would put into an image's configuration.
    fn settings(&self) -> Settings {
        let list = |words: &[String]| match words {
            [] => Value::Null,
            words => json!(words),
        };
        let ports = self.exposed().into_iter();
        let ports = ports.map(|of| (format!("{}/{}", of.port, of.protocol), json!({})));
        let mut settings = self.spec.settings();
        settings.extend([
            ("Cmd".to_owned(), list(&self.command)),
            ("Entrypoint".to_owned(), list(&self.entrypoint)),
            ("ExposedPorts".to_owned(), Value::Object(ports.collect())),
            ("Labels".to_owned(), self.labels.clone()),
            ("User".to_owned(), self.user.clone()),
        ]);
        settings
    }

    pub fn exposed(&self) -> Vec<Exposed> {
        let of_port = |(&port, protocols): (&u16, &Vec<String>)| {
            let protocols = protocols.clone().into_iter();
            protocols
                .map(move |protocol| Exposed { protocol, port })
                .collect::<Vec<Exposed>>()
        };
        self.exposed_ports.iter().flat_map(of_port).collect()
    }
}

/// A state as it is recorded, in docker's form.
pub(super) fn parse_state(json: &[u8]) -> Option<ContainerState> {
    let state: RecordedState = serde_json::from_slice(json).ok()?;
    Some(state.in_dockers_form())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RecordedState {
    #[serde(default)]
    state: u8,
    started_time: Option<String>,
    finished_time: Option<String>,
    #[serde(default)]
    exit_code: i64,
    #[serde(default)]
    pid: Option<u32>,
}

impl RecordedState {
    /// In docker's form. Podman numbers its states: 0 unknown, 1 configured, 2 created, 3 running,
    /// 4 stopped, 5 paused, 6 exited, 7 removing, 8 stopping.
    fn in_dockers_form(self) -> ContainerState {
        ContainerState {
            running: matches!(self.state, 3 | 5 | 8),
            pid: self.pid,
            paused: self.state == 5,
            removal_in_progress: self.state == 7,
            is_unknown: self.state == 0,
            exit_code: Some(self.exit_code),
            started_at: self.started_time,
            finished_at: self.finished_time,
            ..ContainerState::default()
        }
    }
}

/// A number that the kernel makes anew with each start.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The annotation with the time at which Podman made a container.
const CREATED: &str = "io.kubernetes.cri-o.Created";

impl Podman<'_> {
    pub(super) fn libpod_record(&self, id: &str) -> LibpodRecord {
        let Some(record) = self.libpod_records().get(id) else {
            return self.record_from_files(id);
        };
        let mut record = record.clone();
        let pid = record.state.pid;
        // A process is better evidence than a file that is missing.
        if record.state.running
            && self.is_started_anew()
            && !pid.is_some_and(|pid| self.is_root_of(pid, id))
        {
            record.state = exited(record.state);
        }
        if record.is_checked && record.state.running {
            record.state.health = self.health_of(id);
        }
        record
    }

    /// What came of a container's checks; none before the first of them.
    /// docs/facts.md#engines-2026-b17
    fn health_of(&self, id: &str) -> Option<Health> {
        let userdata = self.userdata_of(self.run_root()?, id);
        let log = userdata.parent().join(b"healthcheck.log");
        let bytes = self.host.read(&log).ok()?;
        let health: Health = serde_json::from_slice(&bytes).ok()?;
        Some(health).filter(|health| !health.status.is_empty())
    }

    pub(super) fn libpod_records(&self) -> &Records {
        let read = || self.problems.keep(|| self.read_libpod());
        self.problems.tell(self.libpod.get_or_init(read))
    }

    /// What is recorded now. A database that was left behind when another took its place knows
    /// nothing of what that one has.
    pub(super) fn read_libpod(&self) -> Records {
        if self.closed.is_some() {
            return Records::new();
        }
        let mut records = self.read_bolt();
        records.extend(self.read_database());
        if records.is_empty() {
            self.note_lost_database();
        }
        records
    }

    /// Podman makes a database before it notes which networks it uses, at its first start; buildah and
    /// CRI-O do neither.
    fn note_lost_database(&self) {
        // An empty one knows nothing; what cannot be asked for is said elsewhere.
        let is_there = |path: &Bytes| {
            let stat = self.host.stat(path);
            stat.map_or(true, |stat| stat.is_some_and(|stat| stat.size > 0))
        };
        let roots = [Some(&self.root), self.run_root()].into_iter().flatten();
        let mut known = roots
            .map(|root| root.join(DATABASE))
            .chain([self.root.join(b"libpod").join(BOLT)]);
        if known.any(|path| is_there(&path)) || !is_there(&self.root.join(NETWORK_BACKEND)) {
            return;
        }
        let containers = self.unlisted(&self.kind_of(&self.root, "containers"), |_| false);
        if containers.is_ok_and(|containers| !containers.is_empty()) {
            self.note(Error::io(self.root.join(DATABASE), Errno::NOENT));
        }
    }

    /// The containers that Podman's database has now.
    pub(super) fn read_current(&self) -> Records {
        let records = self.read_database();
        if records.is_empty() {
            self.read_bolt()
        } else {
            records
        }
    }

    /// Whether the machine was started since Podman worked last: its own sign is a file in a
    /// directory that does not outlive the machine's running, with the number of that running in it.
    /// A disk alone has no sign of either.
    fn is_started_anew(&self) -> bool {
        *self.started_anew.get_or_init(|| self.finds_no_sign())
    }

    fn finds_no_sign(&self) -> bool {
        let is_there = |path: &str| {
            let found = self.host.stat(&Bytes::from(path));
            found.is_ok_and(|stat| stat.is_some())
        };
        if !is_there("/proc/self/mountinfo") || !is_there("/run") {
            return false;
        }
        let Some(sign) = self.tmp_dir().map(|directory| directory.join(b"alive")) else {
            return false;
        };
        match self.host.read(&sign) {
            Ok(noted) => {
                let now = self.host.read(&Bytes::from(BOOT_ID)).unwrap_or_default();
                let (noted, now) = (noted.trim_ascii(), now.trim_ascii());
                // Older ones write nothing.
                !noted.is_empty() && !now.is_empty() && noted != now
            }
            Err(error) => error.is_not_found(),
        }
    }

    fn read_bolt(&self) -> Records {
        let path = self.root.join(b"libpod").join(BOLT);
        let bytes = match bolt::read(self.host, &path) {
            Ok(bytes) => bytes,
            Err(error) => {
                self.problems.note_unless_absent(error);
                return Records::new();
            }
        };
        let records = Database::open(&bytes).and_then(|database| {
            let mut records = Records::new();
            if let Some(containers) = database.root().bucket(b"ctr")? {
                for item in containers.iter() {
                    if let (key, Item::Bucket(container)) = item?
                        && let Ok(id) = std::str::from_utf8(key)
                    {
                        records.insert(id.to_owned(), read_record(&container)?);
                    }
                }
            }
            Ok(records)
        });
        records.unwrap_or_else(|damage| {
            self.note(Error::damaged(path, damage.to_string()));
            Records::new()
        })
    }

    /// What is kept beside a container's layer, below the graph root or the run root.
    fn userdata_of(&self, root: &Bytes, id: &str) -> Bytes {
        let directory = self.kind_of(root, "containers").join(id.as_bytes());
        directory.join(b"userdata")
    }

    /// Where the changes of a container's overlays are that Podman made the directories for, by the
    /// configuration that it gave to the runtime. They go when the container stops.
    /// docs/facts.md#engines-2026-b11
    ///
    /// ```text
    /// <graphroot>/<driver>-containers/<id>/userdata/overlay/<number>/{upper,work,merge}
    /// ```
    pub(super) fn add_uppers(&self, id: &str, covers: &mut [Cover]) {
        let is_lacking = |of: &&mut Cover| of.kind == CoverKind::Overlay && of.upper.is_none();
        let mut lacking = covers.iter_mut().filter(is_lacking).peekable();
        if lacking.peek().is_none() {
            return;
        }
        let userdata = self.userdata_of(&self.root, id);
        let read = match self.host.read(&userdata.join(b"config.json")) {
            Ok(read) => read,
            Err(error) => return self.problems.note_unless_absent(error),
        };
        let Ok(given) = serde_json::from_slice::<RuntimeConfig>(&read) else {
            return;
        };
        let made = userdata.join(b"overlay");
        let real = self.host.resolve(&made);
        for cover in lacking {
            let Some(merged) = given.source_at(&cover.path) else {
                continue;
            };
            let real = || merged.strip_prefix(real.as_ref().ok()?);
            let Some(inside) = merged.strip_prefix(&made).or_else(real) else {
                continue;
            };
            let parts: Vec<&[u8]> = inside.components().collect();
            if let [number, b"merge"] = parts[..]
                && number.iter().all(u8::is_ascii_digit)
            {
                let upper = made.join(number).join(b"upper");
                let is_there = self.host.stat(&upper).is_ok_and(|stat| stat.is_some());
                cover.upper = Some(upper).filter(|_| is_there);
            }
        }
    }

    /// What the files of a container tell that nobody has a record of.
    fn record_from_files(&self, id: &str) -> LibpodRecord {
        let userdata = |root: &Bytes| self.userdata_of(root, id);
        let mut record = LibpodRecord::default();
        let Ok(spec) = self.host.read(&userdata(&self.root).join(b"config.json")) else {
            return record;
        };
        if let Ok(spec) = serde_json::from_slice::<RuntimeConfig>(&spec) {
            record.created = spec.annotations.get(CREATED).cloned();
            record.covers = spec.covers();
            record.command = Some(spec.args().join(" "));
        }
        let pid = self.run_root().and_then(|run| {
            let bytes = self.host.read(&userdata(run).join(b"pidfile")).ok()?;
            std::str::from_utf8(&bytes).ok()?.trim().parse().ok()
        });
        let is_there = |run: &Bytes| self.host.stat(run).is_ok_and(|stat| stat.is_some());
        record.state.pid = pid;
        record.state.running = pid.is_some_and(|pid| self.is_root_of(pid, id));
        // The run root does not outlive the machine's running, nor do processes.
        record.state.is_unknown = !self.host.is_live() && !self.run_root().is_some_and(is_there);
        // When is not known.
        record.state.was_started = true;
        record
    }

    /// Whether a process has the container's mount as its root: a number may have been given to
    /// another one since.
    fn is_root_of(&self, pid: u32, container: &str) -> bool {
        let layer = self.container_record(container).map(|of| of.layer.clone());
        let table = namespace::Process::read(self.host, pid).map(|process| process.table);
        let (Some(layer), Ok(table)) = (layer, table) else {
            return false;
        };
        table.covering(&Bytes::from("/")).is_some_and(|root| {
            let text = [&root.options, root.root.as_bytes()].concat();
            let is_program = root.fs_type.starts_with(b"fuse");
            is_program
                || text
                    .windows(layer.len())
                    .any(|part| part == layer.as_bytes())
        })
    }
}

/// What Podman makes of the state of what ran when it finds that the machine was started anew: it
/// has exited, with the code that is recorded.
fn exited(state: ContainerState) -> ContainerState {
    ContainerState {
        running: false,
        paused: false,
        pid: None,
        was_started: true,
        ..state
    }
}

fn read_record(container: &Bucket<'_>) -> Result<LibpodRecord, Damage> {
    let mut record = LibpodRecord::default();
    if let Some(config) = container.get(b"config")?
        && let Some(config) = RecordedConfig::parse(config)
    {
        record = config.record();
    }
    if let Some(state) = container.get(b"state")?
        && let Some(state) = parse_state(state)
    {
        record.state = state;
    }
    Ok(record)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A container has its volumes before it was ever started.
    #[test]
    fn a_configuration_tells_its_volumes() {
        let json = br#"{"createdTime": "2026-11-28T20:00:00Z",
            "namedVolumes": [{"volumeName": "data", "dest": "/data", "options": []}]}"#;
        let volumes = |json: &[u8]| RecordedConfig::parse(json).map(|of| of.record().volumes);
        assert_eq!(volumes(json), Some(Some(vec!["data".to_owned()])));
        assert_eq!(volumes(b"{}"), Some(Some(Vec::new())));
    }
}
