//! Layers and records proved: each says whether it is what its digest says.

use std::fs::File;
use std::io;
use std::num::NonZeroUsize;

use super::against::{by_archive, by_recipe};
use super::group::{Share, Sharing, in_order};
use super::ids;
use super::image::{Place, places};
use super::packed::{Compression, Hashed, Noted, copy};
use super::proof::{Manner, Proof, Subject, What};
use super::recipe::Recipe;
use crate::bytes::Bytes;
use crate::dir::reads_trusted_attributes;
use crate::engine::inventory::Image;
use crate::engine::oci;
use crate::engine::stored::{Blob, RecordFault, Stored, StoredLayer};
use crate::engine::{Engine, Survey};
use crate::error::{Error, Result};

/// An image and what its engine keeps of it.
pub struct Kept<'c> {
    pub engine: &'c dyn Engine,
    pub image: Image,
    pub stored: Stored,
    places: Vec<Option<Place>>,
}

impl<'c> Kept<'c> {
    /// # Errors
    /// What the engine keeps of it cannot be read.
    pub fn new(survey: &Survey<'_>, engine: &'c dyn Engine, image: Image) -> Result<Kept<'c>> {
        let stored = engine.stored(&image)?;
        let places = places(survey, engine, &image, &stored.layers);
        Ok(Kept {
            engine,
            image,
            stored,
            places,
        })
    }

    /// What is wrong with its records.
    ///
    /// # Errors
    /// One cannot be read.
    pub fn record_faults(&self) -> Result<Vec<RecordFault>> {
        let mut faults = self.engine.record_faults(&self.image)?;
        if let Some(config) = &self.stored.config {
            let own = oci::digest_of(&config.bytes);
            if own != config.digest {
                faults.push(RecordFault {
                    path: config.path.clone(),
                    what: format!(
                        "has the digest sha256:{own}, and the image is called by another"
                    ),
                });
            }
        }
        Ok(faults)
    }

    /// What is needed to prove one of its layers, by its number from the base.
    pub fn task(&self, survey: &Survey<'_>, at: usize, is_fast: bool) -> Task<'_> {
        let layer = &self.stored.layers[at];
        let place = self.places[at].as_ref();
        let manner = Manner {
            is_fast,
            is_remapped: ids::is_remapped(survey.host, self.engine),
            drops_user_attributes: layer.blob.is_none()
                && !self.engine.description().diff_has_attributes,
        };
        let source = match (&layer.blob, &layer.diff_id) {
            (Some(blob), Some(diff_id)) => source_of_blob(survey, blob, diff_id, place),
            _ => source_of_recipe(survey, layer, place),
        };
        Task {
            layer,
            manner,
            source: source
                .unwrap_or_else(|error| Source::Told(Box::new(Proof::unproved(error.to_string())))),
            subject: place.map(|place| Subject {
                stack: &place.stack,
                branches: &place.branches,
            }),
        }
    }
}

/// A layer that is to be proved, by any thread: no engine need be asked any more.
pub struct Task<'k> {
    layer: &'k StoredLayer,
    manner: Manner,
    source: Source<'k>,
    /// None of a layer that is not unpacked here.
    subject: Option<Subject<'k>>,
}

/// What a layer is held against.
enum Source<'k> {
    Recipe(File),
    Blob {
        file: File,
        /// Bytes.
        size: u64,
        blob: &'k Blob,
        diff_id: &'k str,
    },
    /// Nothing need be read.
    Told(Box<Proof>),
}

impl Task<'_> {
    /// About how many bytes are read for it; none where nobody knows before.
    pub fn size(&self) -> Option<u64> {
        let sizes = &self.layer.sizes;
        match &self.source {
            Source::Told(_) => Some(0),
            Source::Blob { size, .. } => Some(*size),
            Source::Recipe(_) if self.manner.is_fast => Some(0),
            Source::Recipe(_) => {
                let recorded = sizes.archive.as_ref().or(sizes.content.as_ref());
                recorded.map(|(_, size)| *size)
            }
        }
    }

    /// Proves the layer.
    fn prove(self, sharing: &Sharing<'_>) -> Proof {
        let proved = match (self.source, &self.subject) {
            (Source::Told(proof), _) => Ok(*proof),
            (Source::Recipe(file), Some(subject)) => {
                let diff_id = self.layer.diff_id.as_deref();
                let proof = by_recipe(Recipe::new(file), diff_id, (subject, self.manner), sharing);
                Ok(proof.without_untold(subject))
            }
            (Source::Recipe(_), None) => Ok(Proof::unproved("it has no directory in the store")),
            (
                Source::Blob {
                    file,
                    blob,
                    diff_id,
                    ..
                },
                subject,
            ) => of_blob(
                file,
                (blob, diff_id),
                (subject.as_ref(), self.manner),
                sharing,
            ),
        };
        let mut proof = proved.unwrap_or_else(|error| Proof::unproved(error.to_string()));
        proof.hold_sizes(self.layer);
        proof
    }
}

/// Proves layers by several threads, and gives the proofs in the order of the layers.
pub fn prove_all(tasks: Vec<Task<'_>>, threads: NonZeroUsize) -> Vec<Proof> {
    let share = Share::new(threads);
    in_order(
        tasks,
        threads,
        || share.enter(),
        |sharing, task| task.prove(sharing),
    )
}

fn source_of_recipe<'k>(
    survey: &Survey<'_>,
    layer: &StoredLayer,
    place: Option<&Place>,
) -> Result<Source<'k>> {
    let told = |proof| Ok(Source::Told(Box::new(proof)));
    let Some(recipe) = &layer.recipe else {
        return told(Proof::unproved("its engine keeps no recipe of its archive"));
    };
    let file = match survey.host.open_sized(recipe) {
        Ok((file, _)) => file,
        Err(error) if error.is_absent() => {
            return told(Proof::unproved(format!("it has no recipe ({recipe})")));
        }
        Err(error) => return Err(error),
    };
    match place.and_then(Place::lost) {
        Some(error) => told(Proof::gone(&error)),
        None => Ok(Source::Recipe(file)),
    }
}

fn source_of_blob<'k>(
    survey: &Survey<'_>,
    blob: &'k Blob,
    diff_id: &'k str,
    place: Option<&Place>,
) -> Result<Source<'k>> {
    let told = |proof| Ok(Source::Told(Box::new(proof)));
    let (file, size) = match survey.host.open_sized(&blob.path) {
        Ok(opened) => opened,
        Err(error) if error.is_absent() => {
            let what = format!("its archive was thrown away ({})", blob.path);
            return told(Proof::unproved(what));
        }
        Err(error) => return Err(error),
    };
    let is_known = Compression::of(&blob.media_type).is_some();
    match place.filter(|_| is_known).and_then(Place::lost) {
        Some(error) => told(Proof::gone(&error)),
        None => Ok(Source::Blob {
            file,
            size,
            blob,
            diff_id,
        }),
    }
}

fn of_blob(
    file: File,
    (blob, diff_id): (&Blob, &str),
    (subject, manner): (Option<&Subject<'_>>, Manner),
    sharing: &Sharing<'_>,
) -> Result<Proof> {
    let fail = |error: io::Error| Error::damaged(blob.path.clone(), error.to_string());
    let mut packed = Hashed::new(Noted(file));
    let mut proof = match (subject, Compression::of(&blob.media_type)) {
        (Some(subject), Some(compression)) => {
            let unpacked = compression.unpack(&mut packed).map_err(fail)?;
            let proved = by_archive(unpacked, diff_id, (subject, manner), sharing);
            let proof = proved.unwrap_or_else(|error| {
                Proof::unproved(format!("its archive cannot be unpacked: {error}"))
            });
            proof.without_untold(subject)
        }
        (None, _) => Proof::unproved("it is not unpacked here: its archive alone is proved"),
        (_, None) => Proof::unproved("its archive is packed in a way that is not known"),
    };
    copy(&mut packed, &mut io::sink()).map_err(fail)?;
    let (_, own, _) = packed.finish();
    if own != blob.digest {
        proof.records.push(RecordFault {
            path: blob.path.clone(),
            what: format!("has the digest {own}"),
        });
        // What was compared with is not what was pulled.
        proof.faults.clear();
        proof.inherited.clear();
        proof.more = 0;
        proof.unproved.clear();
    }
    Ok(proof)
}

impl Proof {
    fn unproved(why: impl Into<String>) -> Proof {
        Proof {
            unproved: vec![why.into()],
            ..Proof::default()
        }
    }

    /// Without faults in what the kernel does not tell this process: an attribute that is hidden is not
    /// lost.
    fn without_untold(mut self, subject: &Subject<'_>) -> Proof {
        if subject.stack.has_trusted_marks() && !reads_trusted_attributes() {
            let is_told = |what: What| !matches!(what, What::OpaqueMarkLost | What::Xattr);
            self.faults.retain(|(_, what)| is_told(*what));
            self.leave(
                "only root is told of trusted attributes: marks and attributes are not compared",
            );
        }
        self
    }

    /// Of a layer whose directory cannot be opened.
    fn gone(error: &Error) -> Proof {
        if !error.is_absent() {
            return Proof::unproved(error.to_string());
        }
        Proof {
            faults: vec![(Bytes::from("/"), What::Missing)],
            ..Proof::default()
        }
    }

    /// Holds the sizes that records have against those of the archive.
    fn hold_sizes(&mut self, layer: &StoredLayer) {
        if self.archive_size == 0 || !self.unproved.is_empty() {
            return;
        }
        let (archive, content) = (self.archive_size, self.content_size);
        let sizes = [
            (&layer.sizes.archive, archive, archive),
            (&layer.sizes.content, content, self.content_and_links),
        ];
        for (recorded, own, or) in sizes {
            if let Some((path, size)) = recorded
                && *size != own
                && *size != or
            {
                self.records.push(RecordFault {
                    path: path.clone(),
                    what: format!(
                        "says that layer {} has {size} bytes, and it has {own}",
                        layer.label()
                    ),
                });
            }
        }
    }
}
