//! Who knows stacks: the kernel knows what is mounted, engines know what it is called.
//!
//! An engine ends in [`Union`]s: a list of branches with what each of them is. It knows no verb.

pub mod bolt;
pub mod containerd;
pub mod docker;
pub mod fuse;
pub mod inventory;
pub mod kernel;
pub mod linked;
pub mod mount_table;
pub mod namespace;
pub mod oci;
pub mod podman;
pub mod reach;
pub mod usage;
pub mod watch;

use std::sync::Arc;

use serde::Serialize;

use std::cell::{OnceCell, RefCell};

use crate::branch::{BranchSpec, Permission};
use crate::bytes::Bytes;
use crate::error::{Error, Result};
use crate::host::Host;
use crate::overlay::{Namespace, Rules};
use crate::union::{Branch, IdMap, Stack};
use crate::whiteout::Grammar;
use inventory::{Container, Image, LayerName};
use mount_table::{MountTable, Superblock};
use usage::{LayerUse, Leftover, Space};

/// What knows containers, images and layers by name.
pub trait Engine {
    /// `docker`.
    fn name(&self) -> &'static str;

    /// Its data directory.
    fn root(&self) -> &Bytes;

    /// Whether there is anything of its here.
    fn exists(&self) -> bool;

    /// What could not be read until now. An unreadable part is not an empty part.
    fn take_problems(&self) -> Vec<Error>;

    /// Every container, newest first.
    fn containers(&self) -> Vec<Container>;

    /// Every image, newest first, the intermediate ones too.
    fn images(&self) -> Vec<Image>;

    /// Every layer that has a directory.
    fn layers(&self) -> Vec<LayerName>;

    /// Of some owners those that are in this store, and of which it has no record any more or, on a
    /// live host, says that it is removing them: on a copy nothing goes on, and such a word is as
    /// old as the copy. Records are read anew.
    fn gone<'o>(&self, owners: &[&'o Owner]) -> Vec<&'o Owner>;

    /// The storage driver in use.
    fn driver(&self, containers: &[Container]) -> String;

    /// Whether a container's layers can be read.
    fn reads(&self, container: &Container) -> bool;

    /// Whether the kernel has a union for a container that runs: some drivers copy instead.
    fn has_union(&self, container: &Container) -> bool;

    /// The union of a container, mounted or not.
    ///
    /// # Errors
    /// Metadata that is missing or damaged; a driver that is not read.
    fn union_of(&self, container: &Container) -> Result<Union>;

    /// The union that an image's layers make, as a container would see them.
    ///
    /// # Errors
    /// Metadata that is missing or damaged; a driver that is not read.
    fn union_of_image(&self, image: &Image) -> Result<Union>;

    /// A layer and those below it.
    ///
    /// # Errors
    /// Metadata that is missing or damaged.
    fn union_of_layer(&self, layer: &LayerName) -> Result<Union>;

    /// The image that is, or is below, what a union belongs to; none where it is not ours.
    fn image_of(&self, union: &Union) -> Option<Result<Image>>;

    /// Every layer that has a directory in this store, and who uses it.
    ///
    /// # Errors
    /// A record that cannot be read: who uses what cannot be told then.
    fn layer_uses(&self) -> Result<Vec<LayerUse>>;

    /// What nothing refers to, and what refers to what is gone.
    ///
    /// # Errors
    /// A record that cannot be read: nothing can be told then.
    fn leftovers(&self) -> Result<Vec<Leftover>>;

    /// What a path below the data directory is for.
    fn space_of(&self, inside: &Bytes) -> Space;

    /// Whether a path below the data directory is a mount point, which shows what is counted
    /// elsewhere.
    fn is_merged(&self, inside: &Bytes) -> bool;

    /// Whether a path of the host, outside of the data directory, is where a container's union is
    /// mounted.
    fn is_mount_point(&self, path: &Bytes) -> bool;

    /// Where a storage driver keeps its layers.
    fn directory_of_driver(&self, driver: &str) -> Bytes;

    /// Where a layer's content is.
    fn directory_of_layer(&self, driver: &str, id: &str) -> Option<Bytes>;

    /// Finds out whether a mounted union is a container's. It is asked of every one, so that only
    /// what is topmost is looked at.
    fn recognise(&self, union: &mut Union);

    /// Says what the branches of a mounted union are.
    fn describe(&self, union: &mut Union);

    /// The layer directory that a path of the host is, or lies in, and where in it.
    fn layer_at(&self, path: &Bytes) -> Option<(LayerName, Bytes)>;

    /// The container whose mount directory a path is, or lies in, and where in it.
    fn mount_dir_at(&self, path: &Bytes) -> Option<(Container, Bytes)>;
}

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
    /// What the engine itself makes in the topmost branch, which is nobody's change.
    pub engine_made: &'static [&'static str],
    /// What the topmost branch began as a copy of, and is compared with; none where the branches
    /// below it are that.
    pub base: Option<Box<Union>>,
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
    #[serde(skip)]
    pub store: Store,
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
            superblock: None,
            mounts: Vec::new(),
            state: MountState::NotMounted,
            owner: None,
            driver: None,
            branches,
            kind: UnionKind::Aufs,
            engine_made: &[],
            owners: None,
            base: None,
        }
    }

    /// AUFS's own name for the mount: the hexadecimal digits after `si_`.
    pub fn si(&self) -> Option<&str> {
        match self.superblock.as_ref()? {
            Superblock::Aufs(si) => Some(si),
            Superblock::Device(..) | Superblock::Options(_) => None,
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
        match (mount, self.si(), self.branches.first()) {
            (Some(mount), ..) => mount.path.clone(),
            (None, Some(si), _) => Bytes::from(format!("si_{si}")),
            (None, None, Some(branch)) => branch.spec.path.clone(),
            (None, None, None) => Bytes::from("empty union"),
        }
    }

    /// That the kernel has the union and nothing tells its branches.
    pub fn unknown(&self) -> Option<Error> {
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

    /// Opens every branch. Those that cannot be opened are kept with the reason.
    pub fn open(&self, survey: &Survey<'_>) -> Stack {
        let reach = reach::Reach::new(survey, self);
        let merged = match self.kind {
            UnionKind::Overlay { data, .. } => self.branches.len().saturating_sub(data),
            UnionKind::Aufs | UnionKind::FuseOverlay(_) | UnionKind::Copy => self.branches.len(),
        };
        let open = |(index, branch): (usize, &LayeredBranch)| {
            let dir = reach.open(branch);
            let grammar = match self.kind {
                UnionKind::Aufs => return Branch::aufs(&branch.spec, dir),
                UnionKind::Overlay { .. } if index >= merged => Grammar::OverlayData,
                UnionKind::Overlay { rules, .. } => Grammar::Overlay(rules),
                UnionKind::FuseOverlay(namespace) => Grammar::FuseOverlay(namespace),
                UnionKind::Copy => Grammar::Plain,
            };
            let is_below = !branch.spec.permission.is_writable();
            Branch {
                owners: self.owners.clone().filter(|_| is_below),
                ..Branch::new(&branch.spec, grammar, dir)
            }
        };
        let branches: Vec<Branch> = self.branches.iter().enumerate().map(open).collect();
        let top = branches.first().and_then(|top| top.dir.as_ref().ok());
        survey.watch(self, top);
        Stack {
            branches,
            base: self.base.as_ref().map(|base| Box::new(base.open(survey))),
        }
    }

    /// The layer id of a branch, for machine formats.
    pub fn layer_id(&self, branch: usize) -> Option<&str> {
        self.branches.get(branch)?.layer.id.as_deref()
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

    /// A branch of what the topmost one is compared with: its number and its layer.
    pub fn compared_with(&self, branch: usize) -> (usize, Option<String>) {
        let Some(base) = &self.base else {
            return (branch, self.layer_id(branch).map(str::to_owned));
        };
        let path = base.branches.get(branch).map(|of| &of.spec.path);
        let is_same = |of: &LayeredBranch| Some(&of.spec.path) == path;
        let own = self.branches.iter().position(is_same);
        let number = own.unwrap_or(self.branches.len() + branch);
        (number, base.layer_id(branch).map(str::to_owned))
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

/// Where engines keep their data, as far as the person says so.
#[derive(Debug, Clone, Default)]
pub struct Roots {
    pub docker: Option<Bytes>,
    /// The one graph root of containers-storage.
    pub storage: Option<Bytes>,
    /// The `storage.conf` that counts before the machine's own.
    pub storage_configuration: Option<Bytes>,
    /// Whose stores are looked for, unless it is root, who may see every user's.
    pub caller: Option<u32>,
    /// containerd's root.
    pub containerd: Option<Bytes>,
    /// containerd's state directory, where its tasks are.
    pub containerd_state: Option<Bytes>,
    /// The one namespace of containerd's that is asked for.
    pub namespace: Option<String>,
    /// The person named it, and so asks for nothing that has no namespace.
    pub is_only_namespace: bool,
}

/// Everything that is known of the unions of a host.
pub struct Survey<'h> {
    pub host: &'h Host,
    roots: Roots,
    engines: OnceCell<Engines<'h>>,
    /// What could not be read on the way.
    pub problems: Vec<Error>,
    /// What the kernel has mounted, as far as it has been looked for.
    pub mounted: Vec<Union>,
    pub table: MountTable,
    /// Whether other mount namespaces have been looked at.
    is_complete: bool,
    /// What the answer will rest on.
    watched: RefCell<watch::Watched>,
}

/// The engines that were found, and what could not be read on the way. That a data directory is
/// not there concerns everybody; what is wrong with one container, whoever asks for it.
struct Engines<'h> {
    all: Vec<Box<dyn Engine + 'h>>,
    problems: Vec<Error>,
}

impl<'h> Engines<'h> {
    fn find(host: &'h Host, roots: &Roots) -> Engines<'h> {
        let mut all: Vec<Box<dyn Engine + 'h>> = Vec::new();
        let dockers = docker::Docker::find(host, roots.docker.as_ref()).into_iter();
        all.extend(dockers.map(|docker| Box::new(docker) as Box<dyn Engine + 'h>));
        let podmans = podman::Podman::find(host, roots).into_iter();
        all.extend(podmans.map(|podman| Box::new(podman) as Box<dyn Engine + 'h>));
        let containerds = containerd::Containerd::find(host, roots).into_iter();
        all.extend(containerds.map(|containerd| Box::new(containerd) as Box<dyn Engine + 'h>));
        let problems = all.iter().flat_map(|engine| engine.take_problems());
        Engines {
            problems: problems.collect(),
            all,
        }
    }
}

impl<'h> Survey<'h> {
    /// Asks the kernel. Engines are looked for when a name of theirs is needed, and other mount
    /// namespaces when [`Survey::look_everywhere`] is.
    pub fn new(host: &'h Host, roots: Roots) -> Survey<'h> {
        let mut problems = Vec::new();
        let (table, mounted) = kernel::unions(host, &mut problems);
        let mut survey = Survey {
            host,
            roots,
            engines: OnceCell::new(),
            problems,
            mounted: Vec::new(),
            table,
            is_complete: false,
            watched: RefCell::default(),
        };
        survey.add(mounted);
        survey
    }

    /// Every engine whose data directory may be here.
    pub fn engines(&self) -> &[Box<dyn Engine + 'h>] {
        let find = || Engines::find(self.host, &self.roots);
        &self.engines.get_or_init(find).all
    }

    /// Looks into every other mount namespace for unions that are not mounted in ours.
    pub fn look_everywhere(&mut self) {
        if std::mem::replace(&mut self.is_complete, true) {
            return;
        }
        let elsewhere = kernel::unions_elsewhere(self.host, &self.mounted);
        self.add(elsewhere);
    }

    fn add(&mut self, mut unions: Vec<Union>) {
        for union in &mut unions {
            for engine in self.engines() {
                engine.recognise(union);
            }
            if matches!(union.kind, UnionKind::FuseOverlay(_)) && union.branches.is_empty() {
                fuse::ask_program(self.host, union);
            }
        }
        self.mounted.append(&mut unions);
    }

    /// A mounted union with all that engines know of its branches.
    pub fn describe(&self, union: &Union) -> Union {
        let mut union = union.clone();
        for engine in self.engines() {
            engine.describe(&mut union);
        }
        union
    }

    /// What engines could not read since they were asked last.
    pub fn take_problems(&self) -> Vec<Error> {
        let engines = self.engines.get().into_iter();
        let engines = engines.flat_map(|engines| &engines.all);
        engines.flat_map(|engine| engine.take_problems()).collect()
    }

    /// What could not be read when unions and engines were looked for.
    pub fn problems(&self) -> impl Iterator<Item = &Error> {
        let of_engines = self.engines.get().into_iter();
        let of_engines = of_engines.flat_map(|engines| &engines.problems);
        of_engines.chain(&self.problems)
    }

    /// The engines of which there is anything here.
    pub fn engines_here(&self) -> impl Iterator<Item = &dyn Engine> {
        let engines = self.engines().iter();
        let engines = engines.map(|engine| &**engine as &dyn Engine);
        engines.filter(|engine| engine.exists())
    }

    /// The one namespace of an engine that is asked for.
    fn only_namespace(&self) -> Option<&String> {
        let namespace = self.roots.namespace.as_ref();
        namespace.filter(|_| self.roots.is_only_namespace)
    }

    /// Every engine's containers.
    pub fn containers(&self) -> Vec<(&dyn Engine, Container)> {
        let mut containers = self.of_engines(|engine| engine.containers());
        if let Some(only) = self.only_namespace() {
            containers.retain(|(_, container)| container.namespace.as_ref() == Some(only));
        }
        containers
    }

    /// Every engine's images.
    pub fn images(&self) -> Vec<(&dyn Engine, Image)> {
        let mut images = self.of_engines(|engine| engine.images());
        if let Some(only) = self.only_namespace() {
            images.retain(|(_, image)| image.namespace.as_ref() == Some(only));
        }
        images
    }

    /// Every engine's layers.
    pub fn layers(&self) -> Vec<(&dyn Engine, LayerName)> {
        self.of_engines(|engine| engine.layers())
    }

    fn of_engines<T>(&self, list: impl Fn(&dyn Engine) -> Vec<T>) -> Vec<(&dyn Engine, T)> {
        let engines = self.engines().iter();
        engines
            .map(|engine| &**engine as &dyn Engine)
            .flat_map(|engine| list(engine).into_iter().map(move |item| (engine, item)))
            .collect()
    }

    /// The unions that containers would have, but that are not mounted now.
    pub fn unmounted(&mut self) -> Vec<Union> {
        let mut problems = Vec::new();
        let mut unions = Vec::new();
        for (engine, container) in self.containers() {
            if self.mounted_of(&container.id).is_none() && engine.reads(&container) {
                match engine.union_of(&container) {
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
            .any(|other| other.superblock != union.superblock && other.label() == label);
        match (is_shared, &union.superblock) {
            (true, Some(superblock)) => {
                Bytes([label.as_bytes(), format!(" ({superblock})").as_bytes()].concat())
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

    /// The mounted union that the kernel knows by this.
    pub fn mounted_as(&self, superblock: &Superblock) -> Option<&Union> {
        let mut mounted = self.mounted.iter();
        mounted.find(|union| union.superblock.as_ref() == Some(superblock))
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
