//! Layers: which there are, where each is, what stands below it, and what they make together.

use super::record::{ImageRecord, LayerRecord};
use super::store::{DRIVERS_READ, NAME, Podman};
use crate::branch::Permission;
use crate::bytes::Bytes;
use crate::engine::inventory::{LayerName, is_id};
use crate::engine::linked::{self, Linked};
use crate::engine::oci::CHAIN_MAX;
use crate::engine::union::{LayeredBranch, Owner, OwnerKind, Role, Union, UnionKind, layer_branch};
use crate::error::{Error, Result};
use crate::overlay::Rules;

impl Podman<'_> {
    /// Every layer that the store lists.
    pub(super) fn read_layers(&self) -> Vec<LayerName> {
        let mut layers: Vec<LayerName> = self
            .layer_records()
            .iter()
            .map(|layer| LayerName {
                driver: self.driver.clone(),
                id: layer.id.clone(),
                aliases: layer
                    .diff_digest
                    .iter()
                    .map(|digest| digest.trim_start_matches("sha256:").to_owned())
                    .collect(),
            })
            .collect();
        layers.dedup_by(|a, b| a.id == b.id);
        layers
    }

    /// Where a driver keeps the directories of layers, in one of the stores.
    pub(super) fn home(&self, store: &Bytes) -> Bytes {
        match self.driver.as_str() {
            "vfs" => store.join(b"vfs").join(b"dir"),
            "btrfs" => store.join(b"btrfs").join(b"subvolumes"),
            driver => store.join(driver.as_bytes()),
        }
    }

    pub(super) fn copies(&self) -> bool {
        matches!(self.driver.as_str(), "vfs" | "btrfs")
    }

    pub(super) fn is_read(&self) -> bool {
        self.copies() || self.driver == "overlay"
    }

    fn refuse(&self) -> Result<()> {
        if self.is_read() {
            Ok(())
        } else {
            Err(Error::Refused {
                what: format!("{} uses the storage driver {}", self.root, self.driver),
                hint: DRIVERS_READ.into(),
            })
        }
    }

    pub(super) fn linked(&self) -> Linked<'_> {
        Linked {
            host: self.host,
            homes: self.stores.iter().map(|store| self.home(store)).collect(),
        }
    }

    pub(super) fn content_dir(&self, home: usize, id: &str) -> Bytes {
        let directory = self.home(&self.stores[home]).join(id.as_bytes());
        if self.copies() {
            directory
        } else {
            directory.join(b"diff")
        }
    }

    /// The store that has a layer's directory: the first that lists it, or else our own.
    pub(super) fn home_of(&self, id: &str) -> usize {
        self.layer_record(id).map_or(0, |layer| layer.home)
    }

    /// The union that has a layer on top.
    pub(super) fn stack(&self, id: &str, top: Permission) -> Result<Union> {
        self.refuse()?;
        if !is_id(id) {
            return Err(Error::damaged(
                self.root.clone(),
                "names a layer by what is no id",
            ));
        }
        let home = self.home_of(id);
        if self.copies() {
            let own = layer_branch(self.content_dir(home, id), top, id.to_owned());
            let mut union = self.union(UnionKind::Copy, vec![own]);
            let parent = self.layer_record(id).map(|layer| layer.parent.clone());
            if let Some(parent) = parent.filter(|parent| is_id(parent)) {
                let home = self.home_of(&parent);
                let base = layer_branch(self.content_dir(home, &parent), Permission::RO, parent);
                union.base = Some(Box::new(self.union(UnionKind::Copy, vec![base])));
            }
            return Ok(union);
        }
        // Where they are and what they are called, of those whose names are in an image.
        let mut data = Vec::new();
        let mut branches = vec![self.merged_branch(home, id, top, &mut data)?];
        branches.extend(self.further_content(home, id)?);
        let parents = self.linked().parents(home, id)?;
        let has_parent = self
            .layer_record(id)
            .is_some_and(|layer| !layer.parent.is_empty());
        if parents.is_empty() && has_parent {
            let layer = self.home(&self.stores[home]).join(id.as_bytes());
            return Err(Error::damaged(layer, "has no list of the layers below it"));
        }
        for parent in parents {
            let mut further = Vec::new();
            branches.push(match parent {
                linked::Parent::Layer { home, id } => {
                    further = self.further_content(home, &id)?;
                    self.merged_branch(home, &id, Permission::RO, &mut data)?
                }
                linked::Parent::Lost(path) => LayeredBranch::plain(path, Permission::RO),
            });
            branches.append(&mut further);
        }
        let kind = match self.kind() {
            UnionKind::Overlay { rules, .. } if !data.is_empty() => UnionKind::Overlay {
                rules: Rules {
                    metacopy: true,
                    follows_redirects: true,
                    ..rules
                },
                data: data.len(),
            },
            kind => kind,
        };
        branches.append(&mut data);
        Ok(self.union(kind, branches))
    }

    /// The branch that has the names of a layer. A composefs layer has them in an image, and in its
    /// directory nothing but the content of files, which is put with `data`: it stands below all
    /// branches that have names. docs/facts.md#engines-2026-b8
    fn merged_branch(
        &self,
        home: usize,
        id: &str,
        permission: Permission,
        data: &mut Vec<LayeredBranch>,
    ) -> Result<LayeredBranch> {
        let content = self.content_dir(home, id);
        let Some(blob) = self.composefs(home, id)? else {
            return Ok(layer_branch(content, permission, id.to_owned()));
        };
        let mut of_content = layer_branch(content, Permission::RO, id.to_owned());
        of_content.layer.role = Role::Data;
        data.push(of_content);
        Ok(layer_branch(blob, permission, id.to_owned()))
    }

    /// Where a user's store could not give files to others than the user, it keeps a layer's content
    /// in several directories: below `diff` is `diff1`.
    fn further_content(&self, home: usize, id: &str) -> Result<Vec<LayeredBranch>> {
        let layer = self.home(&self.stores[home]).join(id.as_bytes());
        let mut further = Vec::new();
        loop {
            let path = layer.join(format!("diff{}", further.len() + 1).as_bytes());
            if self.host.stat(&path)?.is_none() {
                return Ok(further);
            }
            further.push(layer_branch(path, Permission::RO, id.to_owned()));
        }
    }

    /// The image in which a composefs layer has the names of its files; none for other layers. It
    /// may have been lost.
    pub(super) fn composefs(&self, home: usize, id: &str) -> Result<Option<Bytes>> {
        let layer = self.home(&self.stores[home]).join(id.as_bytes());
        let directory = layer.join(b"composefs-data");
        let is_there = self.host.stat(&directory)?.is_some();
        Ok(is_there.then(|| directory.join(b"composefs.blob")))
    }

    pub(super) fn kind(&self) -> UnionKind {
        if self.copies() {
            return UnionKind::Copy;
        }
        if self.has_mount_program {
            return UnionKind::FuseOverlay(self.rules.namespace);
        }
        UnionKind::Overlay {
            rules: self.rules,
            data: 0,
        }
    }

    pub(super) fn union(&self, kind: UnionKind, branches: Vec<LayeredBranch>) -> Union {
        Union {
            kind,
            driver: Some(self.driver.clone()),
            ..Union::unmounted(branches)
        }
    }

    /// The layers of an image, from its topmost one: nearest first.
    pub(super) fn chain(&self, top: &str) -> Vec<&LayerRecord> {
        let mut chain: Vec<&LayerRecord> = Vec::new();
        let mut next = self.layer_record(top);
        while let Some(layer) = next {
            if chain.len() == CHAIN_MAX || chain.iter().any(|seen| seen.id == layer.id) {
                let what = format!("layer {} is its own ancestor", layer.id);
                self.note(Error::damaged(self.kind_of(&self.root, "layers"), what));
                break;
            }
            chain.push(layer);
            next = self.layer_record(&layer.parent);
        }
        chain
    }

    /// The nearest layer of a chain that the list of layers does not have.
    pub(super) fn lost_layer(&self, top: &str) -> Option<String> {
        let chain = self.chain(top);
        let lost = match chain.last() {
            Some(last) => &last.parent,
            None => top,
        };
        (!lost.is_empty() && self.layer_record(lost).is_none()).then(|| lost.to_owned())
    }

    /// A layer and those below it.
    ///
    /// # Errors
    /// Metadata that is missing or damaged.
    pub(super) fn layer_union(&self, layer: &LayerName) -> Result<Union> {
        if let Some(container) = self.container_of_layer(&layer.id) {
            let mut union = self.stack(&layer.id, Permission::RW)?;
            self.label_container(&mut union, container);
            return Ok(union);
        }
        let mut union = self.stack(&layer.id, Permission::RO)?;
        // Number the layers within the smallest image that has this one.
        let has =
            |image: &&ImageRecord| self.chain(&image.layer).iter().any(|of| of.id == layer.id);
        let image = self
            .image_records()
            .iter()
            .filter(has)
            .min_by_key(|image| self.chain(&image.layer).len());
        self.label_image(&mut union, image);
        union.owner = Some(Owner {
            engine: NAME,
            kind: OwnerKind::Layer,
            id: layer.id.clone(),
            name: None,
            store: self.as_store(),
        });
        Ok(union)
    }
}
