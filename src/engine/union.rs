//! Unions as engines and the kernel know them: a list of branches with what each of them is, before
//! any of them is opened.

use std::sync::Arc;

use serde::Serialize;

use super::inventory::Container;
use super::mount_table::Superblock;
use super::platform::ForPlatform;
use crate::branch::{BranchSpec, Permission};
use crate::bytes::Bytes;
use crate::error::{Error, Result};
use crate::overlay::{Namespace, Rules};
use crate::union::IdMap;

/// A union that some engine knows, before any of its branches is opened.
#[derive(Debug, Clone)]
pub struct Union {
    /// What the kernel knows it by, if it is mounted.
    pub superblock: Option<Superblock>,
    pub mounts: Vec<MountPoint>,
    pub state: MountState,
    pub owner: Option<Owner>,
    /// The engine's storage driver.
    pub driver: Option<String>,
    pub branches: Vec<LayeredBranch>,
    pub kind: UnionKind,
    /// How the mount shows the owners of the branches below the topmost one, if not as they are.
    pub owners: Option<Arc<IdMap>>,
    /// Of a container with users of its own: as what it knows them (`stored`), and what they are outside of it
    /// (`shown`).
    pub ids: Option<Arc<IdMap>>,
    /// What the engine itself makes in the topmost branch, which is nobody's change.
    pub engine_made: &'static [&'static str],
    /// What the topmost branch began as a copy of, and is compared with; none where the branches
    /// below it are that.
    pub base: Option<Box<Union>>,
    /// As a person spelled it who spelled all of it.
    pub spelled: Option<Bytes>,
    /// What it is a view of, if branches above were left out.
    pub view: Option<View>,
    /// Of an image for several platforms, the one that was asked for.
    pub platform: Option<ForPlatform>,
    /// The container in which it is mounted over the layers, as the engine's record has it.
    pub over: Option<Over>,
}

/// That a union lies over the layers of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Over {
    pub container: Owner,
    /// Where, as a path of the container.
    pub path: Bytes,
}

/// That a union is another one without its topmost branches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// What it is called: `TARGET@N`.
    pub label: Bytes,
    /// What the whole union is called.
    pub whole: Bytes,
    /// How many branches were left out.
    pub from: usize,
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
    /// Overlay as a program in user space makes it, with marks of its own.
    FuseOverlay(Namespace),
    /// No union: one directory that holds everything.
    Copy,
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
    /// The union's options, as the mount table has them.
    pub options: Vec<u8>,
}

impl MountPoint {
    /// Whether, and by whose word, nothing can be written through it.
    pub fn read_only(&self) -> ReadOnly {
        let says = |words: &str| words.split(',').any(|word| word == "ro");
        if says(&String::from_utf8_lossy(&self.options)) {
            ReadOnly::Union
        } else if says(&self.flags) {
            ReadOnly::Mount
        } else {
            ReadOnly::No
        }
    }

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

/// What is read-only of a mounted union.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadOnly {
    No,
    /// One mount, and others may not be.
    Mount,
    /// The union, wherever it is mounted.
    Union,
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
    #[serde(skip)]
    pub store: Store,
}

impl Owner {
    /// Whether it is a container of an engine that has its data directory at `root`.
    pub fn is_container(&self, engine: &str, root: &Bytes, container: &Container) -> bool {
        let store = &self.store;
        self.kind == OwnerKind::Container
            && self.engine == engine
            && self.id == container.id
            && store.root == *root
            && store.namespace == container.namespace
            && store.driver == container.driver
    }

    /// Whether both are one thing: names can differ, and the engine's word for the driver.
    pub fn is_same(&self, other: &Owner) -> bool {
        self.kind == other.kind
            && self.engine == other.engine
            && self.id == other.id
            && self.store == other.store
    }
}

/// Which of an engine's stores has something: two can have the same id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    /// The data directory.
    pub root: Bytes,
    pub driver: String,
    /// The engine's own division of names; none where it has none.
    pub namespace: Option<String>,
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
    /// Why the path is not where the branch is, where that is known and the place is not.
    pub doubt: Option<&'static str>,
}

impl LayeredBranch {
    /// A branch that no engine knows.
    pub fn plain(path: Bytes, permission: Permission) -> LayeredBranch {
        LayeredBranch::from(BranchSpec { path, permission })
    }
}

impl From<BranchSpec> for LayeredBranch {
    fn from(spec: BranchSpec) -> LayeredBranch {
        LayeredBranch {
            spec,
            layer: Layer::PLAIN,
            doubt: None,
        }
    }
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
    /// The content of files that a layer above has in an image.
    Data,
    /// Somebody works in it or looks at it, and no container has it.
    Snapshot,
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
            Role::Data => f.pad("data"),
            Role::Snapshot => f.pad("snapshot"),
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
            superblock: None,
            mounts: Vec::new(),
            state: MountState::NotMounted,
            owner: None,
            driver: None,
            branches,
            kind: UnionKind::Aufs,
            engine_made: &[],
            owners: None,
            ids: None,
            base: None,
            spelled: None,
            view: None,
            platform: None,
            over: None,
        }
    }

    /// AUFS's own name for the mount: the hexadecimal digits after `si_`.
    pub fn si(&self) -> Option<&str> {
        match self.superblock.as_ref()? {
            Superblock::Aufs(si) => Some(si),
            Superblock::Device(..) | Superblock::Options(_) => None,
        }
    }

    /// The container of an engine that it is.
    pub fn owned_container(&self, engine: &str) -> Option<&Owner> {
        let owner = self.owner.as_ref();
        owner.filter(|owner| owner.kind == OwnerKind::Container && owner.engine == engine)
    }

    /// What a sentence calls it: the container's or image's name, or what it is without an owner.
    /// Others can have the same name: [`Survey::label`](super::Survey::label) is what tells them
    /// apart.
    pub fn label(&self) -> Bytes {
        match (&self.view, &self.owner) {
            (Some(view), _) => view.label.clone(),
            (None, Some(owner)) => {
                let name = owner.name.clone().unwrap_or_else(|| owner.id.clone());
                self.of_platform(Bytes::from(name))
            }
            (None, None) => self.place(),
        }
    }

    /// A label, and which of an image's platforms was asked for, as both are typed.
    pub(super) fn of_platform(&self, label: Bytes) -> Bytes {
        match &self.platform {
            Some(of) => Bytes([label.as_bytes(), format!("@{}", of.platform).as_bytes()].concat()),
            None => label,
        }
    }

    /// What it is called without an owner: as it was spelled, its mount point, `si_HEX` (a mount
    /// point means nothing in another mount namespace), or its topmost directory.
    pub fn place(&self) -> Bytes {
        if let Some(spelled) = &self.spelled {
            return spelled.clone();
        }
        let mount = self.mounts.first();
        let mount = mount.filter(|_| self.state == MountState::Mounted);
        match (mount, self.si(), self.branches.first()) {
            (Some(mount), ..) => mount.path.clone(),
            (None, Some(si), _) => Bytes::from(format!("si_{si}")),
            (None, None, Some(branch)) => branch.spec.path.clone(),
            (None, None, None) => Bytes::from("empty union"),
        }
    }

    /// Whether an AUFS is mounted with `dirren`: directories that were renamed lie elsewhere in the
    /// branches below, by records that are not read.
    pub fn renames_directories(&self) -> bool {
        self.has_aufs_option(|option| option == b"dirren" || option.starts_with(b"dirren="))
    }

    /// Whether an AUFS is mounted with an option of which something is true.
    pub fn has_aufs_option(&self, is_it: impl Fn(&[u8]) -> bool) -> bool {
        let mut mounts = self.mounts.iter();
        self.kind == UnionKind::Aufs
            && mounts.any(|mount| mount.options.split(|byte| *byte == b',').any(&is_it))
    }

    /// That the kernel has the union, and its branches are not all that tells what it shows.
    pub fn unknown(&self) -> Option<Error> {
        if self.renames_directories() {
            let what = "is mounted with dirren: where directories were renamed is not read, and what is shown \
                        below them may be wrong";
            return Some(Error::damaged(self.label(), what));
        }
        let superblock = self.superblock.as_ref()?;
        if !self.branches.is_empty() {
            return None;
        }
        Some(match (superblock, self.kind) {
            (Superblock::Aufs(si), _) => Error::damaged(
                format!("/sys/fs/aufs/si_{si}"),
                "neither /sys nor the mount table tells the branches of this union",
            ),
            (_, UnionKind::FuseOverlay(_)) => Error::damaged(
                self.label(),
                "is mounted by a program whose command line does not tell its branches",
            ),
            _ => Error::damaged(
                self.label(),
                "the mount table does not tell the branches of this union",
            ),
        })
    }

    /// The branches of which it is known only where they are not.
    pub fn doubts(&self) -> impl Iterator<Item = Error> {
        let branches = self.branches.iter().enumerate();
        branches.filter_map(|(index, branch)| {
            Some(Error::BranchLost {
                index,
                path: branch.spec.path.clone(),
                why: branch.doubt?.to_owned(),
                is_denied: false,
            })
        })
    }

    /// The layer id of a branch, for machine formats.
    pub fn layer_id(&self, branch: usize) -> Option<&str> {
        self.branches.get(branch)?.layer.id.as_deref()
    }

    /// The directory of a branch; `/` where there is no such branch.
    pub fn directory_of(&self, branch: usize) -> Bytes {
        let branch = self.branches.get(branch);
        branch.map_or_else(|| Bytes::from("/"), |of| of.spec.path.clone())
    }

    /// Numbers the layers of an image and says what made each. `steps` are its layers, newest
    /// first. Where each layer holds all those below it, they are no branches, and the union is no
    /// stack.
    pub fn label_image(&mut self, steps: &[(String, String)], is_stack: bool) {
        let base = self.base.iter_mut().flat_map(|base| &mut base.branches);
        let layers: Vec<&mut Layer> = self
            .branches
            .iter_mut()
            .chain(base)
            .map(|branch| &mut branch.layer)
            .filter(|layer| layer.role == Role::Plain)
            .collect();
        let of = if is_stack { layers.len() } else { steps.len() };
        for (index, layer) in layers.into_iter().enumerate() {
            let id = layer.id.as_ref();
            let step = id.and_then(|id| steps.iter().position(|(of, _)| of == id));
            layer.instruction = step
                .map(|at| steps[at].1.clone())
                .filter(|instruction| !instruction.is_empty());
            let number = if is_stack {
                Some(of - index)
            } else {
                step.map(|at| of - at)
            };
            layer.role = number.map_or(Role::Plain, |number| Role::Image { number, of });
        }
    }

    /// A branch of what the topmost one is compared with: its number, its layer, its directory.
    pub fn compared_with(&self, branch: usize) -> (usize, Option<String>, Bytes) {
        let Some(base) = &self.base else {
            let layer = self.layer_id(branch).map(str::to_owned);
            return (branch, layer, self.directory_of(branch));
        };
        let path = base.branches.get(branch).map(|of| &of.spec.path);
        let is_same = |of: &LayeredBranch| Some(&of.spec.path) == path;
        let own = self.branches.iter().position(is_same);
        let number = own.unwrap_or(self.branches.len() + branch);
        (
            number,
            base.layer_id(branch).map(str::to_owned),
            base.directory_of(branch),
        )
    }

    /// Whether any mount of this union shows it, in whatever namespace.
    pub fn is_mounted(&self) -> bool {
        self.state != MountState::NotMounted
    }
}

/// A stack that is only spelled: no kernel and no engine has to know it.
pub fn spelled_union(specs: Vec<BranchSpec>, kind: UnionKind) -> Union {
    Union {
        kind,
        ..Union::unmounted(specs.into_iter().map(LayeredBranch::from).collect())
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
        doubt: None,
    }
}
