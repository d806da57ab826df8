//! What an engine answers, and what it says of itself.

use super::cover::Cover;
use super::inventory::{Container, Image, LayerName};
use super::platform::ForPlatform;
use super::problems::Problems;
use super::roots::{EngineOption, Roots, Variable};
use super::search::Search;
use super::stored::{NameFault, RecordFault, Settings, Stored};
use super::union::{Owner, Union};
use super::usage::{Fault, LayerUse, Leftover, LeftoverKind, Need, Space};
use crate::bytes::Bytes;
use crate::error::{Error, Result};
use crate::host::Host;

/// What an engine says of itself, before anything of it is looked for.
#[derive(Debug)]
pub struct Description {
    /// As answers name it, and as a person does who types `NAME:THING`.
    pub name: &'static str,
    /// Other programs that keep their containers in the same stores: `buildah`.
    pub also: &'static [&'static str],
    /// The options that say where its data are.
    pub options: &'static [EngineOption],
    /// The variables of the environment that it heeds.
    pub variables: &'static [Variable],
    /// A table that has nothing but this engine's things does not name the engine.
    pub goes_without_saying: bool,
    /// Its own list of containers has an image's name only while that is the image's, else the id.
    pub names_what_is_there: bool,
    /// Its own `diff` counts it as a change that an attribute `user.*` is another.
    pub diff_has_attributes: bool,
    /// Its layers are numbers, which are typed as `NAME:NUMBER`. Other engines may keep their
    /// layers with it.
    pub numbers_layers: bool,
    /// The engine in whose stores some of its layers can be.
    pub stands_on: Option<&'static str>,
    /// The programs whose command lines say where its data are.
    pub daemons: &'static [&'static str],
    /// Where its data can be in a volume of another engine; none where that is not looked for.
    pub in_volumes: Option<InVolumes>,
    /// Finds what there is of it on a host: a store, a data directory, or several. What says where
    /// to look and cannot be read is noted with the search, whatever is found.
    pub find: for<'h> fn(&'h Host, &Roots, &Search) -> Vec<FoundEngine<'h>>,
}

/// Where an engine that runs in a container of another one has its data in a volume.
#[derive(Debug)]
pub struct InVolumes {
    /// The directories in the volume, as paths: `/lib/containerd` in a node of kind.
    pub places: &'static [&'static str],
    /// What there is of the engine at such a place.
    pub find: for<'h> fn(&'h Host, Bytes) -> Option<FoundEngine<'h>>,
}

/// An engine that was found on a host.
pub struct FoundEngine<'h> {
    pub engine: Box<dyn Engine + 'h>,
    /// What it could not read until now; the engine has a handle of the same list.
    pub problems: Problems,
}

/// What knows containers, images and layers by name.
///
/// Four questions have to be answered. What an engine does not answer beyond them is unknown, and
/// is said to be unknown. What it cannot read goes to the [`Problems`] that it was found with.
pub trait Engine {
    fn description(&self) -> &'static Description;

    /// Its data directory.
    fn root(&self) -> &Bytes;

    /// Every container, newest first.
    fn containers(&self) -> Vec<Container>;

    /// The union of a container, mounted or not.
    ///
    /// # Errors
    /// Metadata that is missing or damaged; a driver that is not read.
    fn union_of(&self, container: &Container) -> Result<Union>;

    /// `docker`.
    fn name(&self) -> &'static str {
        self.description().name
    }

    /// Whether there is anything of its here.
    fn exists(&self) -> bool {
        true
    }

    /// Every image, newest first, the intermediate ones too.
    fn images(&self) -> Vec<Image> {
        Vec::new()
    }

    /// The engine's own divisions of names, whether or not they are asked for: `default`, `k8s.io`.
    fn divisions(&self) -> Vec<String> {
        Vec::new()
    }

    /// Every layer that has a directory.
    fn layers(&self) -> Vec<LayerName> {
        Vec::new()
    }

    /// Those of some owners that have been removed from this store since their unions were opened.
    ///
    /// An answer must not rest on a layer that goes while it is read: what is removed looks like
    /// something emptied. So the records are read anew. On a live host an owner counts as removed
    /// once its record says that a removal has begun. On a copy of a host no removal goes on, and
    /// only a record that is missing counts. A record that cannot be read counts as there. Owners
    /// of other stores are passed over.
    fn gone<'o>(&self, owners: &[&'o Owner]) -> Vec<&'o Owner> {
        let _ = owners;
        Vec::new()
    }

    /// The storage driver in use. By default that of the newest container.
    fn driver(&self, containers: &[Container]) -> String {
        let newest = containers.first();
        newest.map_or_else(|| "unknown".to_owned(), |of| of.driver.clone())
    }

    /// Whether a container's layers can be read.
    fn reads(&self, container: &Container) -> bool {
        let _ = container;
        true
    }

    /// Whether a storage driver keeps layers in directories that are read.
    fn reads_driver(&self, driver: &str) -> bool {
        let _ = driver;
        true
    }

    /// Whether the kernel is known to have a union for a container that runs: some drivers copy
    /// instead.
    fn has_union(&self, container: &Container) -> bool {
        let _ = container;
        false
    }

    /// The union that an image's layers make, as a container would see them.
    ///
    /// # Errors
    /// Metadata that is missing or damaged; a driver that is not read.
    fn union_of_image(&self, image: &Image) -> Result<Union> {
        Err(Error::no_such_target(image.id.clone()))
    }

    /// A layer and those below it.
    ///
    /// # Errors
    /// Metadata that is missing or damaged.
    fn union_of_layer(&self, layer: &LayerName) -> Result<Union> {
        Err(Error::no_such_target(layer.id.clone()))
    }

    /// The image that is, or is below, what a union belongs to; none where it is not ours.
    fn image_of(&self, union: &Union) -> Option<Result<Image>> {
        let _ = union;
        None
    }

    /// The platforms that an image is for, each with what an image of it is made of. By default its
    /// configuration says the only one.
    ///
    /// # Errors
    /// Metadata that is missing or damaged.
    fn platforms(&self, image: &Image) -> Result<Vec<ForPlatform>> {
        Ok(self.stored(image)?.platform().into_iter().collect())
    }

    /// An image as it is for one of its platforms.
    ///
    /// # Errors
    /// Metadata that is missing or damaged.
    fn image_for(&self, image: &Image, of: &ForPlatform) -> Result<Image> {
        let _ = of;
        Ok(image.clone())
    }

    /// What it keeps of an image that gives back the bytes which were pulled or built.
    ///
    /// # Errors
    /// Metadata that is missing or damaged. By default nothing is known.
    fn stored(&self, image: &Image) -> Result<Stored> {
        Err(Error::Refused {
            what: format!(
                "{} does not tell how {} keeps images",
                self.name(),
                image.id
            ),
            hint: String::new(),
        })
    }

    /// What its records of an image and its layers contradict: each other, or digests.
    ///
    /// # Errors
    /// A record that cannot be read.
    fn record_faults(&self, image: &Image) -> Result<Vec<RecordFault>> {
        let _ = image;
        Ok(Vec::new())
    }

    /// Names that its records have for images that are not there.
    fn name_faults(&self) -> Vec<NameFault> {
        Vec::new()
    }

    /// What a container runs as, in the words of an image's configuration (`Env`, `Entrypoint`,
    /// `Labels`, ...); none where its record does not tell.
    ///
    /// # Errors
    /// The record cannot be read.
    fn settings(&self, union: &Union) -> Result<Option<Settings>> {
        let _ = union;
        Ok(None)
    }

    /// Every layer that has a directory in this store, and who uses it.
    ///
    /// # Errors
    /// A record that cannot be read: who uses what cannot be told then.
    fn layer_uses(&self) -> Result<Vec<LayerUse>> {
        Ok(Vec::new())
    }

    /// What stands on which layers, as the layers themselves and all records have it.
    ///
    /// # Errors
    /// What cannot be read may need anything.
    fn needs(&self) -> Result<Vec<Need>> {
        Ok(Vec::new())
    }

    /// What nothing refers to, and what refers to what is gone.
    ///
    /// # Errors
    /// A record that cannot be read: nothing can be told then. By default nothing can.
    fn leftovers(&self) -> Result<Vec<Leftover>> {
        Err(Error::Refused {
            what: format!(
                "{} is not looked through for what is left over",
                self.root()
            ),
            hint: format!("layerctl does not know what {} refers to", self.name()),
        })
    }

    /// What the engine knows and nothing uses, beside layers: volumes, logs, images without a name;
    /// and what is being made, or was when whoever did so ended.
    ///
    /// # Errors
    /// A record that cannot be read: what is used cannot be told then.
    fn unused(&self) -> Result<Vec<Leftover>> {
        Ok(Vec::new())
    }

    /// A layer that the engine knows and nothing uses, as its own commands name and free it.
    fn unused_layer(&self, of: &LayerUse) -> Leftover {
        let (name, path) = (of.layer.id.clone(), of.directory.clone());
        Leftover::unused(LeftoverKind::Layer, name, path, "nothing uses it", None)
    }

    /// What the engine stumbles over in its store.
    ///
    /// # Errors
    /// A record that cannot be read.
    fn faults(&self) -> Result<Vec<Fault>> {
        Ok(Vec::new())
    }

    /// What lies over a container's layers, as its record has it.
    ///
    /// # Errors
    /// The record cannot be read.
    fn covers(&self, id: &str, namespace: Option<&str>) -> Result<Vec<Cover>> {
        let _ = (id, namespace);
        Ok(Vec::new())
    }

    /// The first process of a container, as its record has it; a number may be another's by now.
    fn process_of(&self, id: &str, namespace: Option<&str>) -> Option<u32> {
        let _ = (id, namespace);
        None
    }

    /// The directories of its volumes: an engine in a container may keep its data in one.
    fn volumes(&self) -> Vec<Bytes> {
        Vec::new()
    }

    /// Whether containers' logs are in the data directory. What they take elsewhere it does not know.
    fn keeps_logs(&self) -> bool {
        true
    }

    /// What a path below the data directory is for.
    fn space_of(&self, inside: &Bytes) -> Space {
        let _ = inside;
        Space::Other
    }

    /// The directories outside of the data directory whose content is this engine's: layers that another
    /// one keeps for it.
    fn directories_elsewhere(&self) -> Vec<Bytes> {
        Vec::new()
    }

    /// What a path of the host in one of these is for.
    fn space_elsewhere(&self, path: &Bytes) -> Space {
        let _ = path;
        Space::Other
    }

    /// Whether a path below the data directory is a mount point, which shows what is counted
    /// elsewhere.
    fn is_merged(&self, inside: &Bytes) -> bool {
        let _ = inside;
        false
    }

    /// Whether a path of the host, outside of the data directory, is where a container's union is
    /// mounted.
    fn is_mount_point(&self, path: &Bytes) -> bool {
        let _ = path;
        false
    }

    /// Where a storage driver keeps its layers. By default that is the data directory.
    fn directory_of_driver(&self, driver: &str) -> Bytes {
        let _ = driver;
        self.root().clone()
    }

    /// Where a layer's content is.
    fn directory_of_layer(&self, driver: &str, id: &str) -> Option<Bytes> {
        let _ = (driver, id);
        None
    }

    /// Finds out whether a mounted union is a container's. It is asked of every one, so that only
    /// what is topmost is looked at.
    fn recognise(&self, union: &mut Union) {
        let _ = union;
    }

    /// Says what the branches of a mounted union are.
    fn describe(&self, union: &mut Union) {
        let _ = union;
    }

    /// The layer directory that a path of the host is, or lies in, and where in it.
    fn layer_at(&self, path: &Bytes) -> Option<(LayerName, Bytes)> {
        let _ = path;
        None
    }

    /// The layers that a short name can stand for, as mount options have them: `AAA` of `l/AAA`.
    fn layers_of_link<'s>(&'s self, link: &'s str) -> Box<dyn Iterator<Item = LayerName> + 's> {
        let _ = link;
        Box::new(std::iter::empty())
    }

    /// The container whose mount directory a path is, or lies in, and where in it.
    fn mount_dir_at(&self, path: &Bytes) -> Option<(Container, Bytes)> {
        let _ = path;
        None
    }
}

/// Which of some engines has an owner.
pub fn engine_of<'e>(
    engines: impl IntoIterator<Item = &'e dyn Engine>,
    owner: &Owner,
) -> Option<&'e dyn Engine> {
    let mut engines = engines.into_iter();
    engines.find(|engine| engine.name() == owner.engine && *engine.root() == owner.store.root)
}
