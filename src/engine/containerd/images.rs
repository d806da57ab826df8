//! Images: what they are called, their history, and the snapshots that their layers are in.

use std::collections::{BTreeSet, HashSet};
use std::rc::Rc;

use rustix::io::Errno;

use super::containers::cri_image;
use super::layers::{copied_from, key_in};
use super::record::{ContainerRecord, ImageRecord, NamespaceRecords};
use super::snapshotter::is_copying;
use super::store::{Containerd, DOCKERS_NAMESPACE, NAME};
use crate::branch::Permission;
use crate::engine::inventory::{Image, ImageLayer, Names, sort_newest_first};
use crate::engine::manifest::Content;
use crate::engine::oci;
use crate::engine::platform::ForPlatform;
use crate::engine::union::{Owner, OwnerKind, Union};
use crate::error::{Error, Result};

impl Containerd<'_> {
    /// Every image but Docker's, newest first.
    pub(super) fn read_images(&self) -> Vec<Image> {
        let own = self
            .namespaces()
            .filter(|(name, _)| *name != DOCKERS_NAMESPACE);
        let mut images: Vec<Image> = own.flat_map(|(name, _)| self.images_in(name)).collect();
        sort_newest_first(&mut images, |of| (&of.created, &of.id));
        images
    }

    /// Whether a namespace has an image of this digest.
    pub fn has_image(&self, namespace: &str, digest: &str) -> bool {
        let of = self.meta().get(namespace);
        of.is_some_and(|of| of.images.iter().any(|image| image.digest == digest))
    }

    /// A namespace's images, one for each digest.
    pub fn images_in(&self, name: &str) -> Vec<Image> {
        let Some(namespace) = self.meta().get(name) else {
            return Vec::new();
        };
        let snapshotter = self.snapshotter_of(namespace);
        let mut seen = HashSet::new();
        let mut images = Vec::new();
        for record in namespace
            .images
            .iter()
            .filter(|record| seen.insert(&record.digest))
        {
            let own = self.snapshotter_of_image(name, namespace, &record.digest, &snapshotter);
            match self.image_of_digest(name, own, &record.digest) {
                Ok(image) => images.push(image),
                Err(error) => images.push(self.unread_image(name, own, record, &error)),
            }
        }
        images
    }

    /// The snapshotter that an image is unpacked with, which may be chosen for each: `usual`, if it
    /// is one of several, or none has it.
    fn snapshotter_of_image<'s>(
        &self,
        name: &str,
        namespace: &'s NamespaceRecords,
        digest: &str,
        usual: &'s str,
    ) -> &'s str {
        let Ok(Some(top)) = self.top_layer(name, digest) else {
            return usual;
        };
        let having = namespace.snapshots.keys().filter(|(_, key)| *key == top);
        let having: BTreeSet<&str> = having
            .map(|(snapshotter, _)| snapshotter.as_str())
            .collect();
        if having.contains(usual) {
            return usual;
        }
        having.into_iter().next().unwrap_or(usual)
    }

    /// An image of which there is only the record: its name is told all the same.
    fn unread_image(
        &self,
        namespace: &str,
        snapshotter: &str,
        record: &ImageRecord,
        error: &Error,
    ) -> Image {
        let problem = match error {
            Error::Io {
                path,
                errno: Errno::NOENT,
            } => {
                let digest = path.file_name();
                let digest = String::from_utf8_lossy(digest);
                format!("content digest sha256:{digest}: not found")
            }
            error => error.to_string(),
        };
        let names = self.names_of(namespace, &record.digest);
        let what = format!("the image {}: {problem}", record.name);
        self.note(Error::damaged(self.database(), what));
        let id = record.digest.trim_start_matches("sha256:");
        Image {
            created: record.created.clone(),
            namespace: Some(namespace.to_owned()),
            ..Image::unread(id, snapshotter, names, problem)
        }
    }

    /// What a namespace calls the image of a digest.
    fn names_of(&self, namespace: &str, digest: &str) -> Names {
        let records = self.meta().get(namespace).map(|of| &of.images[..]);
        let records = records.unwrap_or_default().iter();
        // A name may be the image's own digest.
        let named = records.filter(|image| image.digest == digest);
        let (digests, tags): (Vec<String>, Vec<String>) = named
            .map(|image| image.name.clone())
            .partition(|name| name.contains('@') || name.starts_with("sha256:"));
        Names::new(tags, digests, [digest])
    }

    /// The digest of the image that Docker made another one from, if that is here.
    pub fn parent_of_image(&self, namespace: &str, digest: &str) -> Option<String> {
        let images = &self.meta().get(namespace)?.images;
        let mut of = images.iter().filter(|image| image.digest == digest);
        let parent = of.find_map(|image| image.parent.as_ref())?;
        let is_here = images.iter().any(|image| image.digest == *parent);
        is_here.then(|| parent.clone())
    }

    pub(super) fn image_record(&self, namespace: &str, name: &str) -> Option<&ImageRecord> {
        let images = &self.meta().get(namespace)?.images;
        images.iter().find(|image| image.name == name)
    }

    fn content_of(&self, digest: &str, size: u64) -> Result<Rc<Content>> {
        if let Some(known) = self.contents.borrow().get(digest) {
            return Ok(Rc::clone(known));
        }
        let content = Rc::new(self.content(digest, size)?);
        let mut contents = self.contents.borrow_mut();
        contents.insert(digest.to_owned(), Rc::clone(&content));
        Ok(content)
    }

    /// The digest of the image that a container stands on. Its record has no more than a name, which
    /// may have been given to another image since: the truth is what its snapshot stands on. None
    /// where no image that is still here has those layers.
    pub(super) fn image_below(&self, namespace: &str, record: &ContainerRecord) -> Option<String> {
        let named = |name: &str| {
            let image = self.image_record(namespace, name)?;
            Some(image.digest.as_str())
        };
        if !self.has_records(&record.snapshotter) {
            // Nothing is known of its layers, and nothing is said of them.
            return named(&record.image).map(str::to_owned);
        }
        let place = (record.snapshotter.clone(), record.snapshot_key.clone());
        let of = self.meta().get(namespace)?;
        let all = self.snapshots(&record.snapshotter);
        let own = of.snapshots.get(&place).and_then(|own| all.get(&own.name));
        let Some(own) = own else {
            // The layer goes before the record does: the name is all that is left.
            return named(&record.image).map(str::to_owned);
        };
        let parent = own.parent.as_deref().map(key_in).map(copied_from);
        let is_below = |digest: &&str| match self.top_layer(namespace, digest) {
            Ok(top) => top.as_deref() == parent,
            Err(error) if error.is_not_found() => false,
            Err(error) => {
                self.note(error);
                false
            }
        };
        let by_cri = cri_image(record);
        let by_cri = by_cri.as_deref().and_then(named);
        let mut likely = by_cri.into_iter().chain(named(&record.image));
        let digests = of.images.iter().map(|image| image.digest.as_str());
        // Many images have no layer.
        let mut others = digests.filter(|_| parent.is_some());
        let found = likely.find(is_below).or_else(|| others.find(is_below));
        found.map(str::to_owned)
    }

    /// The chain id of an image's topmost layer; none where it has no layer.
    fn top_layer(&self, namespace: &str, digest: &str) -> Result<Option<String>> {
        if let Some(known) = self.tops.borrow().get(digest) {
            return Ok(known.clone());
        }
        let images = self.meta().get(namespace).map(|of| &of.images[..]);
        let mut images = images.unwrap_or_default().iter();
        let size = images.find(|image| image.digest == digest);
        let content = self.content_of(digest, size.map_or(0, |image| image.size))?;
        let diff_ids = content.config.diff_ids();
        let diff_ids = diff_ids.map_err(|what| Error::damaged(self.root.clone(), what))?;
        let top = oci::chain_ids(diff_ids).pop();
        let mut tops = self.tops.borrow_mut();
        tops.insert(digest.to_owned(), top.clone());
        Ok(top)
    }

    /// The image that a digest stands for, with the snapshots that its layers are in.
    ///
    /// # Errors
    /// Content that is missing or damaged.
    pub fn image_of_digest(
        &self,
        namespace: &str,
        snapshotter: &str,
        digest: &str,
    ) -> Result<Image> {
        let records = self
            .meta()
            .get(namespace)
            .map(|of| &of.images[..])
            .unwrap_or_default();
        let named: Vec<&ImageRecord> = records
            .iter()
            .filter(|image| image.digest == digest)
            .collect();
        let size = named.first().map_or(0, |image| image.size);
        let content = self.content_of(digest, size)?;
        let diff_ids = content.config.diff_ids();
        let diff_ids = diff_ids.map_err(|what| Error::damaged(self.root.clone(), what))?;
        let snapshots = self.snapshots_of(namespace, snapshotter);
        let layers = oci::chain_ids(diff_ids).into_iter().zip(diff_ids);
        let layers = layers.map(|(chain_id, diff_id)| {
            let snapshot = snapshots.get(&chain_id);
            ImageLayer {
                diff_id: Some(diff_id.clone()),
                cache_id: snapshot.map(|snapshot| snapshot.id.to_string()),
                size: snapshot.and_then(|snapshot| snapshot.size),
                chain_id: Some(chain_id),
            }
        });
        let history = content.config.history(layers.collect());
        let names = self.names_of(namespace, digest);
        let created = named.first().map(|image| image.created.clone());
        Ok(Image {
            id: digest.trim_start_matches("sha256:").to_owned(),
            names,
            created: content
                .config
                .created
                .clone()
                .or(created)
                .unwrap_or_default(),
            driver: snapshotter.to_owned(),
            size: content.size,
            parent: None,
            history,
            namespace: Some(namespace.to_owned()),
            problem: None,
            platform: None,
        })
    }

    /// The image that a digest stands for, as one of its manifests has it: of an image for several
    /// platforms each can be here.
    ///
    /// # Errors
    /// Content that is missing or damaged.
    pub fn image_of_manifest(
        &self,
        namespace: &str,
        snapshotter: &str,
        digest: &str,
        manifest: &str,
    ) -> Result<Image> {
        let image = self.image_of_digest(namespace, snapshotter, manifest)?;
        Ok(Image {
            id: digest.trim_start_matches("sha256:").to_owned(),
            names: self.names_of(namespace, digest),
            ..image
        })
    }

    /// An image as it is for one of its platforms.
    ///
    /// # Errors
    /// Content that is missing or damaged.
    pub fn image_of_platform(&self, image: &Image, of: &ForPlatform) -> Result<Image> {
        let Some(manifest) = &of.manifest else {
            return Ok(image.clone());
        };
        let namespace = image.namespace.as_deref().unwrap_or(DOCKERS_NAMESPACE);
        let digest = format!("sha256:{}", image.id);
        let usual = &image.driver;
        let driver = match self.meta().get(namespace) {
            Some(records) => self.snapshotter_of_image(namespace, records, manifest, usual),
            None => usual,
        };
        let found = self.image_of_manifest(namespace, driver, &digest, manifest)?;
        Ok(Image {
            platform: Some(of.clone()),
            ..found
        })
    }

    /// The union that an image's layers make.
    ///
    /// # Errors
    /// A snapshotter that is not read; a snapshot that is missing.
    pub(super) fn image_union(&self, image: &Image) -> Result<Union> {
        if let Some(problem) = &image.problem {
            let name = image.names.tags.first().unwrap_or(&image.id);
            let what = format!("the image {name}: {problem}");
            return Err(Error::damaged(self.database(), what));
        }
        let namespace = image.namespace.clone().unwrap_or_default();
        let top = image
            .history
            .iter()
            .find_map(|entry| entry.layer.as_ref()?.chain_id.clone());
        let owner = Owner {
            engine: NAME,
            kind: OwnerKind::Image,
            id: image.id.clone(),
            name: image.names.tags.first().cloned(),
            store: self.store(&image.driver, Some(&namespace)),
        };
        let mut union = match top {
            Some(key) => self.union_of_key(&namespace, &image.driver, &key, Permission::RO)?,
            None => Union {
                kind: self.kind(&image.driver),
                driver: Some(image.driver.clone()),
                ..Union::unmounted(Vec::new())
            },
        };
        union.owner = Some(owner);
        union.platform.clone_from(&image.platform);
        union.label_image(&image.clone().steps(), !is_copying(&image.driver));
        Ok(union)
    }

    /// The image that is, or is below, what a union belongs to; none where it is not ours.
    pub(super) fn image_of_union(&self, union: &Union) -> Option<Result<Image>> {
        let owner = union.owner.as_ref().filter(|owner| owner.engine == NAME)?;
        match owner.kind {
            OwnerKind::Layer => None,
            OwnerKind::Image => self
                .images_in(owner.store.namespace.as_deref()?)
                .into_iter()
                .find(|image| image.id == owner.id)
                .map(|image| match &union.platform {
                    Some(of) => self.image_of_platform(&image, of),
                    None => Ok(image),
                }),
            OwnerKind::Container => {
                let namespace = owner.store.namespace.as_deref()?;
                let (namespace, record) = self.record(namespace, &owner.id)?;
                let Some(digest) = self.image_below(namespace, record) else {
                    let what = format!(
                        "does not have the image any more that {} was made from and called {}",
                        record.id, record.image
                    );
                    return Some(Err(Error::damaged(self.database(), what)));
                };
                Some(self.image_of_digest(namespace, &record.snapshotter, &digest))
            }
        }
    }

    /// Gives the layers of a union the instructions of the image that is made of them: known by
    /// the names of snapshots, which are chain ids.
    pub fn label_layers(
        &self,
        union: &mut Union,
        namespace: &str,
        snapshotter: &str,
        digest: &str,
    ) {
        let steps = match self.image_of_digest(namespace, snapshotter, digest) {
            Ok(image) => image.steps(),
            Err(error) if error.is_not_found() => Vec::new(),
            Err(error) => {
                self.note(error);
                Vec::new()
            }
        };
        union.label_image(&steps, !is_copying(snapshotter));
    }
}
