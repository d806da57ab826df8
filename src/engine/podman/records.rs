//! A store's own lists: layers, images and containers.
//!
//! ```text
//! <graphroot>/<driver>-layers/{layers,volatile-layers}.json
//! <graphroot>/<driver>-images/images.json, <image>/<name>, <image>/=<base64 of another name>
//! <graphroot>/<driver>-containers/{containers,volatile-containers}.json
//! <runroot>/<driver>-{layers,containers}/volatile-*.json      of a transient store
//! ```

use std::collections::{HashMap, HashSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustix::io::Errno;
use serde::Deserialize;

use super::record::{
    ContainerRecord, ImageRecord, LayerRecord, LibpodRecord, RecordList, WithProblems,
};
use super::store::Podman;
use crate::bytes::Bytes;
use crate::dir::Kind;
use crate::engine::inventory::is_id;
use crate::engine::linked::LINKS;
use crate::error::{Error, Result};

impl Podman<'_> {
    /// The layers of this store, and of those that it may take images from.
    pub(super) fn layer_records(&self) -> &RecordList<LayerRecord> {
        let lists = &self.lists.layers;
        self.problems.tell(
            lists.get_or_init(|| RecordList::kept(self.read_layer_records(), |layer| &layer.id)),
        )
    }

    /// The same as they are now.
    pub(super) fn read_layer_records(&self) -> WithProblems<LayerRecord> {
        let mut layers: Vec<LayerRecord> = Vec::new();
        let (mut problems, mut missing) = (Vec::new(), Vec::new());
        for (home, store) in self.stores.iter().enumerate() {
            let directory = self.kind_of(store, "layers");
            for name in ["layers.json", "volatile-layers.json"] {
                let path = directory.join(name.as_bytes());
                let read: Option<Vec<LayerRecord>> = self.read_list(&path, &mut problems);
                if read.is_none() && name == "layers.json" {
                    missing.push((path, self.home(store)));
                }
                let read = read.into_iter().flatten();
                layers.extend(read.map(|layer| LayerRecord { home, ..layer }));
            }
        }
        if let Some(run) = self.run_root() {
            let path = self.kind_of(run, "layers").join(b"volatile-layers.json");
            layers.extend(self.read_list(&path, &mut problems).unwrap_or_default());
        }
        layers.retain(|layer: &LayerRecord| is_id(&layer.id));
        for (list, of) in missing {
            let is_listed = |id: &str| layers.iter().any(|layer| layer.id == id);
            problems.extend(self.lost_list(list, &of, is_listed));
        }
        (layers, problems)
    }

    pub(super) fn layer_record(&self, id: &str) -> Option<&LayerRecord> {
        self.layer_records().get(id)
    }

    /// The images of the same stores.
    pub(super) fn image_records(&self) -> &RecordList<ImageRecord> {
        let lists = &self.lists.images;
        self.problems.tell(
            lists.get_or_init(|| RecordList::kept(self.read_image_records(), |image| &image.id)),
        )
    }

    pub(super) fn image_record(&self, id: &str) -> Option<&ImageRecord> {
        self.image_records().get(id)
    }

    /// The same as they are now.
    pub(super) fn read_image_records(&self) -> WithProblems<ImageRecord> {
        let mut problems = Vec::new();
        let mut images: Vec<ImageRecord> = Vec::new();
        let mut known: HashSet<String> = HashSet::new();
        for (home, store) in self.stores.iter().enumerate() {
            let directory = self.kind_of(store, "images");
            let path = directory.join(b"images.json");
            let read: Option<Vec<ImageRecord>> = self.read_list(&path, &mut problems);
            if read.is_none() {
                problems.extend(self.lost_list(path, &directory, |_| false));
            }
            for image in read.into_iter().flatten() {
                if is_id(&image.id) && known.insert(image.id.clone()) {
                    images.push(ImageRecord { home, ..image });
                }
            }
        }
        (images, problems)
    }

    /// The containers of this store, and those that Podman has without it: on a directory of the host's,
    /// or because the store has lost them.
    pub(super) fn container_records(&self) -> &RecordList<ContainerRecord> {
        let lists = &self.lists.containers;
        let read = || RecordList::kept(self.read_container_records(), |container| &container.id);
        self.problems.tell(lists.get_or_init(read))
    }

    pub(super) fn container_record(&self, id: &str) -> Option<&ContainerRecord> {
        self.container_records().get(id)
    }

    /// The container that a layer was made for.
    pub(super) fn container_of_layer(&self, layer: &str) -> Option<&ContainerRecord> {
        let of_layers = self.lists.of_layers.get_or_init(|| {
            let mut of_layers = HashMap::new();
            for container in self.container_records().iter() {
                let id = || container.id.clone();
                of_layers.entry(container.layer.clone()).or_insert_with(id);
            }
            of_layers
        });
        let id = of_layers.get(layer).filter(|_| !layer.is_empty())?;
        self.container_record(id)
    }

    /// The same as they are now.
    pub(super) fn read_container_records(&self) -> WithProblems<ContainerRecord> {
        let mut problems = Vec::new();
        let mut containers: Vec<ContainerRecord> = Vec::new();
        let mut listed: HashSet<String> = HashSet::new();
        // Read before the lists: one that is made meanwhile is in the store first.
        let known = self.libpod_records();
        let mut missing = None;
        let roots = std::iter::once(&self.root).chain(self.run_root());
        for root in roots {
            let directory = self.kind_of(root, "containers");
            for name in ["containers.json", "volatile-containers.json"] {
                let path = directory.join(name.as_bytes());
                let read: Option<Vec<ContainerRecord>> = self.read_list(&path, &mut problems);
                if read.is_none() && name == "containers.json" && *root == self.root {
                    missing = Some((path, directory.clone()));
                }
                for container in read.into_iter().flatten() {
                    if is_id(&container.id) && listed.insert(container.id.clone()) {
                        containers.push(container);
                    }
                }
            }
        }
        if let Some((list, of)) = missing {
            problems.extend(self.lost_list(list, &of, |id| listed.contains(id)));
            // A store that others only read needs none.
            if self.takers.is_empty() {
                problems
                    .extend(self.lost_directory("containers", std::slice::from_ref(&self.root)));
            }
        }
        let unlisted = |(id, _): &(&String, &LibpodRecord)| is_id(id) && !listed.contains(*id);
        let unlisted: Vec<(&String, &LibpodRecord)> = known.iter().filter(unlisted).collect();
        let now = (unlisted.iter().any(|(_, of)| of.rootfs.is_none())).then(|| self.read_current());
        // A removal takes it out of the store first, and says before that it does.
        let is_kept = |id: &String| {
            let now = now.as_ref().and_then(|now| now.get(id));
            now.is_some_and(|record| !record.state.removal_in_progress)
        };
        let mut others: Vec<ContainerRecord> = unlisted
            .into_iter()
            .filter(|(id, record)| record.rootfs.is_some() || is_kept(id))
            .map(|(id, record)| ContainerRecord {
                id: id.clone(),
                names: record.name.iter().cloned().collect(),
                rootfs: record.rootfs.clone(),
                ..ContainerRecord::default()
            })
            .collect();
        others.sort_by(|a, b| a.id.cmp(&b.id));
        containers.extend(others);
        (containers, problems)
    }

    /// `<root>/overlay-layers` and the like.
    pub(super) fn kind_of(&self, root: &Bytes, kind: &str) -> Bytes {
        root.join(format!("{}-{kind}", self.driver).as_bytes())
    }

    /// A list that may be missing: none then.
    fn read_list<T: for<'de> Deserialize<'de>>(
        &self,
        path: &Bytes,
        problems: &mut Vec<Error>,
    ) -> Option<Vec<T>> {
        if self.closed.is_some() {
            return Some(Vec::new());
        }
        let bytes = match self.host.read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.is_not_found() => return None,
            Err(error) => {
                problems.push(error);
                return Some(Vec::new());
            }
        };
        let list: Option<Vec<T>> = serde_json::from_slice(&bytes).unwrap_or_else(|error| {
            let what = format!("is not what containers-storage writes: {error}");
            problems.push(Error::damaged(path.clone(), what));
            None
        });
        Some(list.unwrap_or_default())
    }

    /// What says that a list was lost: it is not there, and directories are that it must have had.
    fn lost_list(
        &self,
        list: Bytes,
        of: &Bytes,
        is_listed: impl Fn(&str) -> bool,
    ) -> Option<Error> {
        let unlisted = self.unlisted(of, is_listed).ok()?;
        (!unlisted.is_empty()).then(|| Error::io(list, Errno::NOENT))
    }

    /// Tells whoever lists the images, or asks what nobody uses, that they were lost altogether, if so.
    pub(super) fn note_lost_images(&self) {
        if let Some(error) = self.lost_directory("images", &self.stores) {
            self.note(error);
        }
    }

    /// What says that a directory of lists was lost: no store has it, although this one has layers, and
    /// containers-storage makes it before the first.
    fn lost_directory(&self, kind: &str, stores: &[Bytes]) -> Option<Error> {
        let is_missing = |store| matches!(self.host.stat(&self.kind_of(store, kind)), Ok(None));
        if self.closed.is_some() || !stores.iter().all(is_missing) {
            return None;
        }
        let list = self.kind_of(&self.root, kind);
        self.lost_list(list, &self.home(&self.root), |_| false)
    }

    /// The directories in one that are called as ids are, and are not listed.
    pub(super) fn unlisted(
        &self,
        directory: &Bytes,
        is_listed: impl Fn(&str) -> bool,
    ) -> Result<Vec<Bytes>> {
        let names = self.host.list(directory)?.into_iter();
        let directories = names.filter(|(_, kind)| *kind == Kind::Directory);
        let ids = directories.filter_map(|(name, _)| String::from_utf8(name).ok());
        let unlisted = ids.filter(|id| is_id(id) && id != LINKS && !is_listed(id));
        Ok(unlisted.map(|id| directory.join(id.as_bytes())).collect())
    }

    /// One of the files that a store keeps with an image.
    ///
    /// # Errors
    /// One that is missing or cannot be read.
    pub(super) fn image_data(&self, image: &ImageRecord, name: &str) -> Result<Vec<u8>> {
        self.host.read(&self.image_data_path(image, name))
    }

    /// Where such a file is.
    pub(super) fn image_data_path(&self, image: &ImageRecord, name: &str) -> Bytes {
        let directory = self.kind_of(&self.stores[image.home], "images");
        let directory = directory.join(image.id.as_bytes());
        directory.join(file_of(name).as_bytes())
    }
}

/// The file of a name: itself, or if it has other letters than files may have, encoded.
fn file_of(name: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_digit() || byte.is_ascii_lowercase() || byte == b'.';
    if name.bytes().all(is_plain) && !name.is_empty() && !name.starts_with('.') {
        name.to_owned()
    } else {
        format!("={}", STANDARD.encode(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_named_as_the_store_names_them() {
        // docs/facts.md#engines-38
        assert_eq!(file_of("manifest"), "manifest");
        assert_eq!(file_of("sha256:ab"), "=c2hhMjU2OmFi");
        assert!(file_of("../../etc/passwd").starts_with('='));
    }

    #[test]
    fn records_with_what_newer_stores_add() {
        let text = r#"[{"id":"ab","names":null,"parent":"cd","diff-digest":"sha256:x","diff-size":7,
                        "flags":{"incomplete":true},"uidmap":[{}],"created":"2026-11-24T03:32:39Z"}]"#;
        let layers: Vec<LayerRecord> = serde_json::from_str(text).unwrap();
        assert_eq!(
            (layers[0].parent.as_str(), layers[0].diff_size),
            ("cd", Some(7))
        );
    }
}
