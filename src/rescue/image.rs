//! An image written: its layers one by one, then its configuration.

use std::io;
use std::rc::Rc;

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::config::{self, Steps};
pub use super::layer::Place;
use super::layer::{ArchiveOrigin, How, Layers, Written};
use super::layout::{CONFIG, Layout, Parts};
use super::{Failure, changes};
use crate::engine::inventory::{Image, LayerName};
use crate::engine::stored::{Settings, Stored, StoredLayer};
use crate::engine::{Engine, OwnerKind, Survey, Union, UnionKind};
use crate::error::{Error, Result};
use crate::union::Stack;

/// What leaves as an image.
pub struct Subject {
    pub union: Union,
    pub stack: Rc<Stack>,
    /// The branch with a container's own changes.
    pub own: Option<usize>,
    /// `name:tag` that it is to have, and no other; without it those that it has.
    pub name: Option<String>,
}

/// A layer that was written.
#[derive(Debug, Clone, Serialize, schemars::JsonSchema)]
pub struct LayerRow {
    /// The engine's id of the layer; none for one that was made now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layer: Option<String>,
    /// The digest of its archive, unpacked.
    pub diff_id: String,
    /// Bytes, as it was written.
    pub size: u64,
    pub origin: ArchiveOrigin,
    /// Why it is not what it was.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<String>,
}

/// What was written.
#[derive(Debug)]
pub struct Exported {
    /// The image's id on the other side: the digest of its configuration.
    pub image: String,
    /// What it is called there.
    pub names: Vec<String>,
    /// Bottom first.
    pub layers: Vec<LayerRow>,
    /// What could not be read, or not be kept.
    pub said: Vec<Error>,
}

/// The words of a step that was made here, where a history is read.
const COMMITTED: &str = "layerctl export";
const FLAT: &str = "layerctl export --flat";

/// Writes a union as an image.
///
/// # Errors
/// Not all of it is there as digests say; what the output says.
pub fn write(
    survey: &Survey<'_>,
    subject: &Subject,
    how: How,
    is_flat: bool,
    layout: &mut Layout<'_>,
) -> Result<Exported, Failure> {
    let stored = match image_of(survey, &subject.union)? {
        Some((engine, image)) => {
            let stored = engine.stored(&image)?;
            Some((engine, image, stored))
        }
        None => None,
    };
    let mut engines = survey.engines();
    let of_container = engines.find_map(|engine| engine.settings(&subject.union).transpose());
    let of_container = of_container.transpose()?;
    let base = stored.as_ref();
    let base = base.map(|(engine, image, stored)| (*engine, image, stored));
    match base {
        Some((engine, image, stored)) if !is_flat => {
            let layers = Layers::new(survey, Some(engine), how);
            whole(layers, subject, (image, stored), of_container, layout)
        }
        _ => flat(survey, subject, base, (how, of_container), layout),
    }
}

/// The image that a union is, or stands on; none where it is part of one, or nobody's.
fn image_of<'c>(survey: &'c Survey<'_>, union: &Union) -> Result<Option<(&'c dyn Engine, Image)>> {
    let owner = union.owner.as_ref().filter(|_| union.view.is_none());
    if owner.is_none_or(|owner| owner.kind == OwnerKind::Layer) {
        return Ok(None);
    }
    let mut engines = survey.engines();
    let found = engines.find_map(|engine| Some((engine, engine.image_of(union)?)));
    let Some((engine, image)) = found else {
        return Ok(None);
    };
    let mut image = image?;
    // Who reads one image need not know what it is called.
    if image.names.tags.is_empty() {
        let mut all = engine.images().into_iter();
        let same = all.find(|of| of.id == image.id && of.namespace == image.namespace);
        image.names = same.map(|of| of.names).unwrap_or_default();
    }
    Ok(Some((engine, image)))
}

/// The image's own layers, and one with what the container changed.
fn whole(
    mut layers: Layers<'_, '_>,
    subject: &Subject,
    (image, stored): (&Image, &Stored),
    of_container: Option<Settings>,
    layout: &mut Layout<'_>,
) -> Result<Exported, Failure> {
    let mut faults = faults_of_config(stored, layers.how);
    let places = match layers.engine {
        Some(engine) => places(layers.survey, engine, image, &stored.layers),
        None => Vec::new(),
    };
    let mut written = Vec::new();
    let mut rows = Vec::new();
    for (layer, place) in stored.layers.iter().zip(&places) {
        match layers.stored(layer, place.as_ref(), layout) {
            Ok(done) => {
                rows.push(row(layer.name.as_ref().map(|name| name.id.clone()), &done));
                written.push(done);
            }
            // The others may have something to tell as well.
            Err(Failure::Source(of_layer)) => faults.extend(of_layer),
            Err(output) => return Err(output),
        }
    }
    if !faults.is_empty() {
        return Err(Failure::Source(faults));
    }
    if let Some(branch) = subject.own {
        let made = subject.union.engine_made;
        let done = layers.new_layer(layout, ArchiveOrigin::New, |out| {
            changes::write(&subject.stack, branch, made, out)
        })?;
        rows.push(row(None, &done));
        written.push(done);
    }
    let is_same = written
        .iter()
        .all(|layer| layer.origin == ArchiveOrigin::Exact);
    let bytes = match &stored.config {
        Some(own) if is_same && of_container.is_none() => own.bytes.clone(),
        own => {
            let old;
            let base = match own {
                Some(own) => &own.bytes,
                None => {
                    old = config::of_old_image(image, stored.settings.clone());
                    &old
                }
            };
            let (steps, created) = match subject.own {
                Some(_) => (Steps::Added(COMMITTED), now()),
                None => (Steps::Same, image.created.clone()),
            };
            config::made(
                Some(base),
                of_container,
                &diff_ids(&written),
                &steps,
                &created,
            )
        }
    };
    let as_kept = is_same && subject.own.is_none() && layers.how.compression.is_none();
    let manifest = stored.manifest.as_deref().filter(|_| as_kept);
    let names = match (&subject.name, subject.own) {
        (Some(name), _) => std::slice::from_ref(name),
        (None, Some(_)) => &[][..],
        (None, None) => &image.names.tags,
    };
    let image = finish(layout, &bytes, &written, manifest, names)?;
    Ok(Exported {
        image,
        names: names.to_vec(),
        layers: rows,
        said: layers.said,
    })
}

/// All that a union shows, as one layer.
fn flat(
    survey: &Survey<'_>,
    subject: &Subject,
    base: Option<(&dyn Engine, &Image, &Stored)>,
    (how, of_container): (How, Option<Settings>),
    layout: &mut Layout<'_>,
) -> Result<Exported, Failure> {
    let lost: Vec<Error> = subject.stack.lost().collect();
    if !lost.is_empty() && !how.as_is {
        return Err(Failure::Source(lost));
    }
    let mut layers = Layers::new(survey, None, how);
    let done = layers.new_layer(layout, ArchiveOrigin::New, |out| {
        changes::write_merged(&subject.stack, true, out)
    })?;
    let old = base.map(|(_, image, stored)| match &stored.config {
        Some(config) => config.bytes.clone(),
        None => config::of_old_image(image, stored.settings.clone()),
    });
    let mut written = [done];
    let bytes = config::made(
        old.as_deref(),
        of_container,
        &diff_ids(&written),
        &Steps::Only(FLAT),
        &now(),
    );
    written[0].faults = lost;
    let names = subject.name.as_slice();
    let image = finish(layout, &bytes, &written, None, names)?;
    Ok(Exported {
        image,
        names: names.to_vec(),
        layers: vec![row(None, &written[0])],
        said: layers.said,
    })
}

fn finish(
    layout: &mut Layout<'_>,
    config: &[u8],
    written: &[Written],
    manifest: Option<&[u8]>,
    names: &[String],
) -> io::Result<String> {
    let config = layout.bytes(CONFIG, config)?;
    let image = config.digest.clone();
    layout.image(&Parts {
        config,
        layers: written
            .iter()
            .map(|layer| layer.descriptor.clone())
            .collect(),
        manifest,
        names,
    })?;
    Ok(image)
}

fn diff_ids(written: &[Written]) -> Vec<String> {
    written.iter().map(|layer| layer.diff_id.clone()).collect()
}

fn row(layer: Option<String>, written: &Written) -> LayerRow {
    LayerRow {
        layer,
        diff_id: written.diff_id.clone(),
        size: written.descriptor.size,
        origin: written.origin,
        faults: written.faults.iter().map(Error::to_string).collect(),
    }
}

/// An image's id is the digest of its configuration: another one would be another image.
fn faults_of_config(stored: &Stored, how: How) -> Vec<Error> {
    let Some(config) = stored.config.as_ref().filter(|_| !how.as_is) else {
        return Vec::new();
    };
    let own = super::hex(&Sha256::digest(&config.bytes));
    if own == config.digest {
        return Vec::new();
    }
    let what = format!(
        "has the digest sha256:{own}, and the image is sha256:{}",
        config.digest
    );
    vec![Error::damaged(config.path.clone(), what)]
}

/// Where each layer's files are; none for one that cannot be told.
pub fn places(
    survey: &Survey<'_>,
    engine: &dyn Engine,
    image: &Image,
    stored: &[StoredLayer],
) -> Vec<Option<Place>> {
    let whole = engine.union_of_image(image).ok();
    let whole = whole.filter(|union| union.kind != UnionKind::Copy);
    let whole = whole.map(|union| (Rc::new(union.open(survey)), union));
    let of_whole = |name: &LayerName| {
        let (stack, union) = whole.as_ref()?;
        let of = |branch: &usize| union.layer_id(*branch) == Some(name.id.as_str());
        let branches: Vec<usize> = (0..union.branches.len()).filter(of).collect();
        (!branches.is_empty()).then(|| Place {
            stack: Rc::clone(stack),
            branches,
        })
    };
    let of_layer = |layer: &StoredLayer| {
        let name = layer.name.as_ref()?;
        of_whole(name).or_else(|| {
            let union = engine.union_of_layer(name).ok()?;
            Some(Place {
                stack: Rc::new(union.open(survey)),
                branches: vec![0],
            })
        })
    };
    stored.iter().map(of_layer).collect()
}

fn now() -> String {
    jiff::Timestamp::now().to_string()
}
