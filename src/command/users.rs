//! Who stands on a layer that a path or a message names by its hash, which nobody knows it by.

use std::collections::{BTreeSet, HashMap};

use crate::bytes::Bytes;
use crate::engine::inventory::INIT;
use crate::engine::usage::LayerUse;
use crate::engine::{Engine, Owner, OwnerKind, Store, Survey};

/// Fewer letters and digits are the name of no layer, but of something in one.
const ID_MIN: usize = 12;

/// The containers and images on each layer of a store, by what the layer is called.
pub struct Users<'e> {
    engine: &'e dyn Engine,
    of_layers: HashMap<String, Vec<Bytes>>,
}

impl<'e> Users<'e> {
    /// Of a store. What cannot be read of it is told by whoever needs it.
    pub fn of(survey: &Survey<'_>, engine: &'e dyn Engine) -> Users<'e> {
        let mut of_layers: HashMap<String, Vec<Bytes>> = HashMap::new();
        for of in engine.layer_uses().unwrap_or_default() {
            let users = labels(survey, engine, &of);
            for name in std::iter::once(of.layer.id).chain(of.layer.aliases) {
                let all = of_layers.entry(name).or_default();
                all.extend(users.iter().cloned());
            }
        }
        Users { engine, of_layers }
    }

    /// Those on the layers that a path of the store, or words about it, name.
    pub fn named_in(&self, path: &Bytes, words: &str) -> Vec<Bytes> {
        let path = path.to_text();
        let mut found = BTreeSet::new();
        let mut links = path.split('/').skip_while(|part| *part != "l").skip(1);
        if let Some(link) = links.next() {
            for layer in self.engine.layers_of_link(link) {
                found.extend(self.of_layers.get(&layer.id).into_iter().flatten());
            }
        }
        let is_part = |char: char| char.is_alphanumeric() || char == '-' || char == '_';
        let words = [&path, words].into_iter();
        for word in words.flat_map(|text| text.split(|char| !is_part(char))) {
            let id = word.strip_suffix(INIT).unwrap_or(word);
            let id = id.strip_suffix("-removing").unwrap_or(id);
            if id.len() >= ID_MIN {
                found.extend(self.of_layers.get(id).into_iter().flatten());
            }
        }
        found.into_iter().cloned().collect()
    }
}

/// What those are called who stand on a layer: TARGETs.
pub fn labels(survey: &Survey<'_>, engine: &dyn Engine, of: &LayerUse) -> Vec<Bytes> {
    let label = |kind, id: &str, namespace: Option<&String>, name: &str| {
        let owner = Owner {
            engine: engine.name(),
            kind,
            id: id.to_owned(),
            name: None,
            store: Store {
                root: engine.root().clone(),
                driver: of.layer.driver.clone(),
                namespace: namespace.cloned(),
            },
        };
        let label = survey.labels().of_owner(&owner);
        label.unwrap_or_else(|| Bytes::from(format!("{}:{name}", engine.name())))
    };
    let containers = of.containers.iter().chain(&of.above).map(|of| {
        let namespace = of.namespace.as_ref();
        label(OwnerKind::Container, &of.id, namespace, &of.name)
    });
    let images = of.images.iter().map(|image| {
        let id = format!("sha256:{}", image.id);
        let name = image.tags.first().unwrap_or(&id);
        label(OwnerKind::Image, &image.id, None, name)
    });
    containers.chain(images).collect()
}
