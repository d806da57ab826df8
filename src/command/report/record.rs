//! What a report tells of a host. Most records are another verb's rows, word for word.

use serde::Serialize;

use crate::bytes::Bytes;
use crate::command::{Label, changes, check, containers, du, images, info, orphans};
use crate::engine::usage::{ContainerName, ImageUse, UseKind};
use crate::error::Error;

/// What the keys and words of a report mean. What is only added leaves it as it is.
pub const SCHEMA_VERSION: u32 = 1;

/// One line of a report: it can be read without any other.
#[derive(Debug, Serialize, schemars::JsonSchema)]
#[schemars(rename = "ReportRow")]
pub struct Row<'r> {
    /// 1. Another number has other meanings.
    pub schema_version: u32,
    /// Which host: what `--host-id` says, else /etc/machine-id, else the host's name; `unknown` where
    /// it has none of them.
    pub host_id: &'r str,
    /// The host's name, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<&'r str>,
    /// When the report was begun: RFC 3339.
    pub time: &'r str,
    /// Of `--since`: what became of the row.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drift: Option<Drift>,
    #[serde(flatten)]
    pub record: &'r Record,
}

/// What became of a row since another report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Drift {
    /// Nothing there was it.
    New,
    /// It was there, and said something else.
    Changed,
    /// It was there, as the row says, and is not any more.
    Gone,
}

/// What a row is about.
#[derive(Debug, Serialize, schemars::JsonSchema)]
#[serde(tag = "record", rename_all = "lowercase")]
pub enum Record {
    /// The first row.
    Host(Host),
    /// As `info` has it.
    Engine(info::Engine),
    /// As `info` has it.
    Root(info::Root),
    /// As `containers` has it.
    Container(Box<containers::Row>),
    /// As `images` has it.
    Image(images::Row),
    Layer(Layer),
    /// As `du` has it.
    Space(Box<du::Row>),
    /// As `orphans` has it.
    Orphan(orphans::Row),
    /// As `orphans --unused` has it.
    Unused(orphans::Row),
    /// As `check` has it.
    Finding(check::Row),
    Changes(Changes),
    /// As `changes` has it; with `--changes`.
    Change(changes::Row),
    Problem(Problem),
    /// The last row: a report without it was cut off.
    End(End),
}

/// What the host is.
#[derive(Debug, Serialize, schemars::JsonSchema)]
#[schemars(rename = "HostFacts")]
pub struct Host {
    /// The version of layerctl.
    pub version: &'static str,
    /// The commit that it was built from, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub commit: Option<&'static str>,
    /// The root that was looked at.
    pub root: Bytes,
    /// Whether that is a running machine's, and not a copy.
    pub live: bool,
    /// The kernel's release, where it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel: Option<String>,
    /// The system's name and version, as /etc/os-release has them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub os: Option<String>,
    pub mounted_count: usize,
    /// Of those, how many only another mount namespace has.
    pub elsewhere_count: usize,
    /// Whether the report has every change.
    pub has_changes: bool,
    /// Of `--since`: the time of the report that this one is held against.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
}

/// A layer that an engine has a directory of.
#[derive(Debug, Serialize, schemars::JsonSchema)]
#[schemars(rename = "StoreLayer")]
pub struct Layer {
    pub engine: &'static str,
    /// The engine's data directory.
    pub store: Bytes,
    pub driver: String,
    /// The engine's id of the layer: on another host the same content has another one.
    pub layer: String,
    pub kind: UseKind,
    /// The digest of its archive, which is the same on every host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub diff_id: Option<String>,
    /// The digest of it and all those below.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chain_id: Option<String>,
    pub directory: Bytes,
    /// Bytes on disk; none where nobody knows them.
    pub disk: Option<u64>,
    /// Those that use it.
    pub containers: Vec<ContainerName>,
    pub images: Vec<ImageUse>,
}

/// How much a container made of its image.
#[derive(Debug, Serialize, schemars::JsonSchema)]
#[schemars(rename = "ChangeCounts")]
pub struct Changes {
    /// The union, as a TARGET.
    pub target: Label,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub engine: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    pub added_count: u64,
    pub changed_count: u64,
    pub deleted_count: u64,
    pub copyup_count: u64,
    /// Bytes that copied-up files take on disk.
    pub copyup_disk: u64,
}

/// Something that could not be read: what the report lacks.
#[derive(Debug, Serialize, schemars::JsonSchema)]
pub struct Problem {
    pub problem: String,
    /// Where on the host, if it is of one path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<Bytes>,
    /// The union, as a TARGET, if it is of one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<Bytes>,
}

impl From<&Error> for Problem {
    fn from(error: &Error) -> Problem {
        let (error, union) = error.parts();
        let path = match error {
            Error::Io { path, .. }
            | Error::Damaged { path, .. }
            | Error::Moved(path)
            | Error::BranchLost { path, .. } => Some(path.clone()),
            _ => None,
        };
        Problem {
            problem: error.to_string(),
            path,
            target: union.cloned(),
        }
    }
}

/// That nothing follows.
#[derive(Debug, Serialize, schemars::JsonSchema)]
#[schemars(rename = "ReportEnd")]
pub struct End {
    /// Everything could be read.
    pub complete: bool,
    pub problem_count: usize,
    /// How many rows the whole report has, this one among them.
    pub row_count: u64,
    /// How long it took.
    pub seconds: f64,
}

impl Record {
    /// What `--quiet` leaves of it.
    pub fn word(&self) -> Option<&[u8]> {
        Some(match self {
            Record::Engine(of) => of.root_dir.as_bytes(),
            Record::Root(of) => of.path.as_bytes(),
            Record::Container(of) => of.id.as_bytes(),
            Record::Image(of) => of.id.as_bytes(),
            Record::Layer(of) => of.layer.as_bytes(),
            Record::Orphan(of) | Record::Unused(of) => of.path.as_bytes(),
            Record::Finding(of) => of.entry.as_bytes(),
            Record::Changes(of) => of.target.target().as_bytes(),
            Record::Change(of) => of.path.as_bytes(),
            Record::Host(_) | Record::Space(_) | Record::Problem(_) | Record::End(_) => {
                return None;
            }
        })
    }
}

/// What tells one record of a host from another of its kind: of a row with other words these make it
/// the same thing, changed. None where rows are told whatever was told before.
pub fn keys(record: &str) -> Option<&'static [&'static str]> {
    Some(match record {
        "engine" => &["engine", "root_dir"],
        "root" => &["engine", "path"],
        "container" | "image" => &["engine", "id", "namespace", "driver"],
        "layer" => &["engine", "store", "driver", "layer"],
        "space" => &["engine", "store", "kind", "id", "name"],
        "orphan" | "unused" => &["engine", "kind", "path", "name"],
        "finding" => &["target", "engine", "finding", "branch", "entry"],
        "changes" => &["target"],
        "change" => &["target", "path"],
        _ => return None,
    })
}
