//! One layer's archive, from whatever gives it back: its recipe, the archive itself, or the files
//! that are there.

use std::fs::File;
use std::io::{self, Write};
use std::rc::Rc;

use serde::Serialize;

use super::assembled::Assembled;
use super::layout::{Descriptor, Layout};
use super::packed::{Compression, Hashed, Noted, Packer, copy};
use super::recipe::Recipe;
use super::tree::Tree;
use super::{Failure, changes, ids};
use crate::bytes::Bytes;
use crate::engine::stored::{Blob, StoredLayer};
use crate::engine::{Engine, Survey};
use crate::error::{Error, Result};
use crate::union::Stack;

/// How a layer's archive came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ArchiveOrigin {
    /// Bit for bit what was pulled or built.
    Exact,
    /// What is there, where that was lost or changed: its digest is another.
    AsIs,
    /// There was none before: changes of a container, several layers in one, an image without
    /// digests.
    New,
}

impl ArchiveOrigin {
    pub fn word(self) -> &'static str {
        match self {
            ArchiveOrigin::Exact => "exact",
            ArchiveOrigin::AsIs => "as-is",
            ArchiveOrigin::New => "new",
        }
    }
}

/// A layer that is in a layout.
#[derive(Debug, Clone)]
pub struct Written {
    pub descriptor: Descriptor,
    /// The digest of the archive, unpacked.
    pub diff_id: String,
    pub origin: ArchiveOrigin,
    /// Why it is not what it was.
    pub faults: Vec<Error>,
}

/// How layers are written.
#[derive(Debug, Clone, Copy)]
pub struct How {
    /// None: an archive that is kept packed stays so, all others are not packed.
    pub compression: Option<Compression>,
    /// What is lost or changed is written as it is there.
    pub as_is: bool,
}

/// The branches of an open stack that are one layer.
pub struct Place {
    pub stack: Rc<Stack>,
    pub branches: Vec<usize>,
}

impl Place {
    /// Why one of the branches could not be opened.
    pub fn lost(&self) -> Option<Error> {
        let mut own = self.branches.iter();
        own.find_map(|branch| {
            self.stack
                .branches
                .get(*branch)?
                .dir
                .as_ref()
                .err()
                .cloned()
        })
    }
}

/// What writes the layers of one image.
pub struct Layers<'c, 'h> {
    pub survey: &'c Survey<'h>,
    /// The engine that has them; none where all of them are new.
    pub engine: Option<&'c dyn Engine>,
    pub how: How,
    /// What could not be read, or not be kept, of layers that are written all the same.
    pub said: Vec<Error>,
}

impl<'c, 'h> Layers<'c, 'h> {
    pub fn new(survey: &'c Survey<'h>, engine: Option<&'c dyn Engine>, how: How) -> Layers<'c, 'h> {
        Layers {
            survey,
            engine,
            how,
            said: Vec::new(),
        }
    }

    /// Writes a layer of an image.
    ///
    /// # Errors
    /// It is not there any more as its digest says; what the output says.
    pub fn stored(
        &mut self,
        layer: &StoredLayer,
        place: Option<&Place>,
        layout: &mut Layout<'_>,
    ) -> Result<Written, Failure> {
        let found = match (&layer.blob, &layer.diff_id) {
            (Some(blob), Some(diff_id)) => self.blob(blob, diff_id, layout),
            _ => match (self.recipe_of(layer)?, place) {
                (Some(recipe), Some(place)) => self.recipe(layer, recipe, place, layout),
                // There was no digest that it could have lost.
                (None, _) if layer.diff_id.is_none() => {
                    return self.as_it_is(layer, ArchiveOrigin::New, layout);
                }
                (_, None) => Err(Failure::of(named(layer, "has no directory in the store"))),
                (None, _) => Err(Failure::of(named(
                    layer,
                    "has lost the recipe of its archive",
                ))),
            },
        };
        match found {
            Err(Failure::Source(lost)) if self.how.as_is => {
                let written = self.as_it_is(layer, ArchiveOrigin::AsIs, layout)?;
                Ok(Written {
                    faults: lost,
                    ..written
                })
            }
            found => found,
        }
    }

    /// Where the recipe of a layer is, if it is there.
    fn recipe_of<'l>(&self, layer: &'l StoredLayer) -> Result<Option<&'l Bytes>> {
        let Some(recipe) = &layer.recipe else {
            return Ok(None);
        };
        let stat = self.survey.host.stat(recipe)?;
        Ok(stat.map(|_| recipe))
    }

    /// Writes an archive that is kept.
    fn blob(
        &self,
        blob: &Blob,
        diff_id: &str,
        layout: &mut Layout<'_>,
    ) -> Result<Written, Failure> {
        let (file, size) = self.survey.host.open_sized(&blob.path)?;
        let kept = Compression::of(&blob.media_type);
        let written = |descriptor| Written {
            descriptor,
            diff_id: diff_id.to_owned(),
            origin: ArchiveOrigin::Exact,
            faults: Vec::new(),
        };
        let differs = |what: &str| Failure::of(Error::damaged(blob.path.clone(), what));
        if self.how.compression.is_none() || self.how.compression == kept {
            let descriptor = Descriptor {
                // As OCI calls what Docker has another name for: some readers know no other.
                media_type: kept
                    .map_or_else(|| blob.media_type.clone(), |of| of.media_type().to_owned()),
                digest: blob.digest.clone(),
                size,
            };
            if !layout.has(&blob.digest) {
                self.prove(&blob.path, &blob.digest)?;
                let mut content = Hashed::new(file);
                layout.blob(&blob.digest, size, &mut content)?;
                if content.finish().1 != blob.digest {
                    return Err(Failure::Output(io::Error::other(
                        "a blob was changed while it was read",
                    )));
                }
            }
            return Ok(written(descriptor));
        }
        let kept = kept.ok_or_else(|| differs("is packed in a way that is not known"))?;
        self.prove(&blob.path, &blob.digest)?;
        let mut unpacked = Hashed::new(kept.unpack(file)?);
        let descriptor = self.pack(layout, |out| copy(&mut unpacked, out))?;
        if unpacked.finish().1 != diff_id {
            return Err(differs(
                "does not unpack to what the image's configuration says",
            ));
        }
        Ok(written(descriptor))
    }

    /// Sees that a file has a digest.
    fn prove(&self, path: &Bytes, digest: &str) -> Result<(), Failure> {
        let (mut file, _) = self.survey.host.open_sized(path)?;
        let mut hashed = Hashed::new(Noted(io::sink()));
        copy(&mut file, &mut hashed)?;
        let (_, own, _) = hashed.finish();
        if own == digest {
            return Ok(());
        }
        let what = format!("has the digest {own}, and not the one that it is called by");
        Err(Failure::of(Error::damaged(path.clone(), what)))
    }

    /// Writes an archive that its recipe and the layer's files give.
    fn recipe(
        &self,
        layer: &StoredLayer,
        path: &Bytes,
        place: &Place,
        layout: &mut Layout<'_>,
    ) -> Result<Written, Failure> {
        let open = || -> Result<Recipe> { Ok(Recipe::new(self.survey.host.open_sized(path)?.0)) };
        let tree = || Tree::new(&place.stack, &place.branches);
        let diff_id = layer.diff_id.as_deref();
        let label = layer.label();
        let compression = self.how.compression.unwrap_or(Compression::None);
        // Of what is to be written as it is if it does not fit, that has to be known before.
        if self.how.as_is {
            let mut assembled = Assembled::new(open()?, tree());
            let read = copy(&mut assembled, &mut io::sink());
            let faults = assembled.faults(label, path, diff_id);
            if !faults.is_empty() {
                return Err(Failure::Source(faults));
            }
            read?;
        }
        let mut assembled = Assembled::new(open()?, tree());
        let written = match diff_id {
            Some(diff_id) if compression == Compression::None => {
                let damaged = |what| Failure::of(Error::damaged(path.clone(), what));
                let size = open()?.length().map_err(damaged)?;
                let written = layout.blob(diff_id, size, &mut assembled);
                written.map(|()| Descriptor {
                    media_type: compression.media_type().to_owned(),
                    digest: diff_id.to_owned(),
                    size,
                })
            }
            _ => return self.packed_recipe(layer, path, assembled, layout),
        };
        let faults = assembled.faults(label, path, diff_id);
        // It did fit a moment ago: a part of it is in the output already, and nothing takes its place there.
        if !faults.is_empty() && self.how.as_is {
            let what = "a layer was changed while it was read";
            return Err(Failure::Output(io::Error::other(what)));
        }
        if !faults.is_empty() {
            return Err(Failure::Source(faults));
        }
        Ok(Written {
            descriptor: written?,
            diff_id: diff_id.unwrap_or_default().to_owned(),
            origin: ArchiveOrigin::Exact,
            faults: Vec::new(),
        })
    }

    /// The same where the digest of what is written is known only then.
    fn packed_recipe(
        &self,
        layer: &StoredLayer,
        path: &Bytes,
        assembled: Assembled<'_>,
        layout: &mut Layout<'_>,
    ) -> Result<Written, Failure> {
        let mut hashed = Hashed::new(assembled);
        let written = self.pack(layout, |out| copy(&mut hashed, out));
        let (assembled, digest, _) = hashed.finish();
        let faults = assembled.faults(layer.label(), path, layer.diff_id.as_deref());
        if !faults.is_empty() {
            return Err(Failure::Source(faults));
        }
        Ok(Written {
            descriptor: written?,
            diff_id: digest,
            origin: ArchiveOrigin::Exact,
            faults: Vec::new(),
        })
    }

    /// Writes what a layer's directory has now.
    fn as_it_is(
        &mut self,
        layer: &StoredLayer,
        origin: ArchiveOrigin,
        layout: &mut Layout<'_>,
    ) -> Result<Written, Failure> {
        let (Some(name), Some(engine)) = (&layer.name, self.engine) else {
            return Err(Failure::of(named(layer, "has no directory in the store")));
        };
        let union = engine.union_of_layer(name)?;
        let mut stack = union.open(self.survey);
        ids::show_inside(self.survey, &union, &mut stack)?;
        let lost: Vec<Error> = stack.lost().collect();
        if !lost.is_empty() {
            return Err(Failure::Source(lost));
        }
        self.new_layer(layout, origin, |out| changes::write(&stack, 0, &[], out))
    }

    /// Writes a layer whose archive a function makes, which gives what it could not read or keep.
    ///
    /// # Errors
    /// What the output says.
    pub fn new_layer(
        &mut self,
        layout: &mut Layout<'_>,
        origin: ArchiveOrigin,
        make: impl FnOnce(&mut dyn Write) -> io::Result<Vec<Error>>,
    ) -> Result<Written, Failure> {
        let mut diff_id = String::new();
        let mut said = Vec::new();
        let descriptor = self.pack(layout, |out| {
            let mut hashed = Hashed::new(out);
            said = make(&mut hashed)?;
            diff_id = hashed.finish().1;
            Ok(())
        })?;
        self.said.extend(said);
        Ok(Written {
            descriptor,
            diff_id,
            origin,
            faults: Vec::new(),
        })
    }

    /// Packs what a function writes, and adds it.
    fn pack(
        &self,
        layout: &mut Layout<'_>,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> io::Result<Descriptor> {
        let compression = self.how.compression.unwrap_or(Compression::None);
        let mut packer: Packer<Hashed<File>> = Packer::new(compression, layout.spool()?)?;
        write(&mut Noted(&mut packer))?;
        layout.spooled(compression.media_type(), packer.finish()?)
    }
}

fn named(layer: &StoredLayer, what: &str) -> Error {
    Error::damaged(format!("layer {}", layer.label()), what)
}
