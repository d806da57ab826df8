//! Who knows stacks: the kernel knows what is mounted, engines know what it is called.
//!
//! An engine ends in [`Union`]s: a list of branches with what each of them is. It knows no verb.

pub mod docker;
pub mod kernel;

use serde::Serialize;

use crate::branch::{BranchSpec, Permission};
use crate::bytes::Bytes;
use crate::error::{Error, Result};
use crate::host::Host;
use crate::overlay::Rules;
use crate::union::{Branch, Stack};
use crate::whiteout::Grammar;

/// A union that some engine knows, before any of its branches is opened.
#[derive(Debug, Clone)]
pub struct Union {
    /// AUFS's own name for the mount: the hexadecimal digits after `si_`.
    pub si: Option<String>,
    pub mounts: Vec<MountPoint>,
    pub state: MountState,
    pub owner: Option<Owner>,
    pub branches: Vec<LayeredBranch>,
    pub kind: UnionKind,
}

/// What kind of union stacks the branches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnionKind {
    Aufs,
    Overlay {
        rules: Rules,
        /// How many of the lowest branches give nothing but the content of files.
        data: usize,
    },
}

/// A place where a union can be seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountPoint {
    pub path: Bytes,
    /// The directory of the union that is mounted there: `/`, but for bind mounts of a part.
    pub root: Bytes,
    /// The mount's own flags, as the mount table has them: `rw,nodev,relatime`.
    pub flags: String,
    /// A process in whose mount namespace it is, where that is not ours.
    pub process: Option<u32>,
}

impl MountPoint {
    /// The path by which this process reaches it.
    pub fn reach(&self) -> std::path::PathBuf {
        match self.process {
            Some(process) => {
                let root = Bytes::from(format!("/proc/{process}/root"));
                root.join_path(&self.path).to_path()
            }
            None => self.path.to_path(),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum MountState {
    Mounted,
    /// The kernel has it, but not in this mount namespace.
    Elsewhere,
    NotMounted,
}

/// Whose union it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Owner {
    pub engine: &'static str,
    pub kind: OwnerKind,
    pub id: String,
    /// A container's name without the slash, an image's first tag.
    pub name: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OwnerKind {
    Container,
    Image,
    Layer,
}

/// A branch and what its engine says of it.
#[derive(Debug, Clone)]
pub struct LayeredBranch {
    pub spec: BranchSpec,
    pub layer: Layer,
}

/// What stands behind a branch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    pub role: Role,
    /// The engine's name of the layer's directory; none outside engines.
    pub id: Option<String>,
    /// What made the layer, where the image's history knows it.
    pub instruction: Option<String>,
    /// The file that the branch is mounted from: a live distribution's module.
    pub module: Option<Bytes>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// No engine knows it.
    Plain,
    /// A file system mounted from a file.
    Module,
    Container,
    Init,
    /// Number `number` of `of`, counted from the base.
    Image {
        number: usize,
        of: usize,
    },
}

impl Layer {
    pub const PLAIN: Layer = Layer {
        role: Role::Plain,
        id: None,
        instruction: None,
        module: None,
    };
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Role::Plain => f.pad("plain"),
            Role::Module => f.pad("module"),
            Role::Container => f.pad("container"),
            Role::Init => f.pad("init"),
            Role::Image { number, of } => f.pad(&format!("image {number}/{of}")),
        }
    }
}

impl Serialize for Role {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Union {
    /// A union that nobody owns and no kernel has.
    pub fn unmounted(branches: Vec<LayeredBranch>) -> Union {
        Union {
            si: None,
            mounts: Vec::new(),
            state: MountState::NotMounted,
            owner: None,
            branches,
            kind: UnionKind::Aufs,
        }
    }

    /// What a person would call it: the container's or image's name, the mount point, `si_HEX`
    /// (a mount point means nothing in another mount namespace), or the topmost directory.
    pub fn label(&self) -> Bytes {
        if let Some(owner) = &self.owner {
            return Bytes::from(owner.name.clone().unwrap_or_else(|| owner.id.clone()));
        }
        let mount = self
            .mounts
            .first()
            .filter(|_| self.state == MountState::Mounted);
        match (mount, &self.si, self.branches.first()) {
            (Some(mount), ..) => mount.path.clone(),
            (None, Some(si), _) => Bytes::from(format!("si_{si}")),
            (None, None, Some(branch)) => branch.spec.path.clone(),
            (None, None, None) => Bytes::from("empty union"),
        }
    }

    /// That the kernel has the union and nothing tells its branches.
    pub fn unknown(&self) -> Option<Error> {
        let si = self.si.as_ref().filter(|_| self.branches.is_empty())?;
        Some(Error::damaged(
            format!("/sys/fs/aufs/si_{si}"),
            "neither /sys nor the mount table tells the branches of this union",
        ))
    }

    /// Opens every branch. Those that cannot be opened are kept with the reason.
    pub fn open(&self, host: &Host) -> Stack {
        let merged = match self.kind {
            UnionKind::Aufs => self.branches.len(),
            UnionKind::Overlay { data, .. } => self.branches.len().saturating_sub(data),
        };
        let open = |(index, branch): (usize, &LayeredBranch)| {
            let dir = host.open_dir(&branch.spec.path);
            match self.kind {
                UnionKind::Aufs => Branch::aufs(&branch.spec, dir),
                UnionKind::Overlay { .. } if index >= merged => {
                    Branch::new(&branch.spec, Grammar::OverlayData, dir)
                }
                UnionKind::Overlay { rules, .. } => {
                    Branch::new(&branch.spec, Grammar::Overlay(rules), dir)
                }
            }
        };
        let branches = self.branches.iter().enumerate().map(open).collect();
        Stack { branches }
    }

    /// The layer id of a branch, for machine formats.
    pub fn layer_id(&self, branch: usize) -> Option<&str> {
        self.branches.get(branch)?.layer.id.as_deref()
    }

    /// Whether any mount of this union shows it, in whatever namespace.
    pub fn is_mounted(&self) -> bool {
        self.state != MountState::NotMounted
    }
}

/// A stack that is only spelled: no kernel and no engine has to know it.
pub fn spelled_union(specs: Vec<BranchSpec>, kind: UnionKind) -> Union {
    let plain = |spec| LayeredBranch {
        spec,
        layer: Layer::PLAIN,
    };
    Union {
        kind,
        ..Union::unmounted(specs.into_iter().map(plain).collect())
    }
}

/// Everything that is known of the unions of a host.
pub struct Survey<'h> {
    pub host: &'h Host,
    pub docker: docker::Docker<'h>,
    /// What could not be read on the way.
    pub problems: Vec<Error>,
    /// What the kernel has mounted.
    pub mounted: Vec<Union>,
    pub table: kernel::MountTable,
}

impl<'h> Survey<'h> {
    /// Asks the kernel. Engines are asked when a name of theirs is needed.
    pub fn new(host: &'h Host, docker_root: Option<&Bytes>) -> Survey<'h> {
        let mut problems = Vec::new();
        let docker = docker::Docker::find(host, docker_root);
        // That the data directory is not there concerns everybody; what is wrong with one container
        // concerns whoever asks for it.
        problems.extend(docker.take_problems());
        let (table, mut mounted) = kernel::unions(host, &mut problems);
        for union in &mut mounted {
            docker.recognise(union);
        }
        Survey {
            host,
            docker,
            problems,
            mounted,
            table,
        }
    }

    /// The unions that containers would have, but that are not mounted now.
    pub fn unmounted(&mut self) -> Vec<Union> {
        let mut problems = Vec::new();
        let mut unions = Vec::new();
        for container in self.docker.containers() {
            if self.mounted_of(&container.id).is_none() && container.is_aufs() {
                match self.docker.union_of(&container) {
                    Ok(union) => unions.push(union),
                    Err(error) => problems.push(error),
                }
            }
        }
        self.problems.extend(problems);
        unions
    }

    /// A union's label, made unlike those of other mounted ones: mounts can cover each other.
    pub fn label(&self, union: &Union) -> Bytes {
        let label = union.label();
        let is_shared = self
            .mounted
            .iter()
            .any(|other| other.si != union.si && other.label() == label);
        match (is_shared, &union.si) {
            (true, Some(si)) => {
                Bytes([label.as_bytes(), format!(" (si_{si})").as_bytes()].concat())
            }
            _ => label,
        }
    }

    /// The mounted union of a container.
    pub fn mounted_of(&self, container: &str) -> Option<&Union> {
        self.mounted.iter().find(|union| {
            union
                .owner
                .as_ref()
                .is_some_and(|owner| owner.id == container)
        })
    }
}

/// A layer directory of an engine, in a branch of its own.
pub fn layer_branch(path: Bytes, permission: Permission, id: String) -> LayeredBranch {
    LayeredBranch {
        spec: BranchSpec { path, permission },
        layer: Layer {
            id: Some(id),
            ..Layer::PLAIN
        },
    }
}
