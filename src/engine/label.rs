//! What unions are called in answers: each by a name that can be typed as a TARGET, and that means
//! nothing else while it is printed.
//!
//! ```text
//! docker:web                          ENGINE:NAME
//! containerd:k8s.io/shop/web-0/app    ENGINE:NAMESPACE/POD'S NAMESPACE/POD/CONTAINER
//! podman:3f2a...                      ENGINE:ID, where a name is of several
//! /mnt/union, si_HEX                  what no engine owns
//! /var/lib/.../diff                   the topmost branch, where nothing else tells it from others
//! ```

use std::collections::HashMap;

use super::interface::Engine;
use super::inventory::{Container, Image, Pod};
use super::union::{Owner, OwnerKind};
use crate::bytes::Bytes;

/// What containers and images are called.
#[derive(Default)]
pub struct Labels(HashMap<Key, Bytes>);

/// Which thing of which store it is.
#[derive(PartialEq, Eq, Hash)]
struct Key {
    engine: &'static str,
    root: Bytes,
    namespace: Option<String>,
    is_image: bool,
    id: String,
}

/// Those that answer to one name.
#[derive(Default, Clone, Copy)]
struct Sharers {
    all: usize,
    running: usize,
}

impl Labels {
    /// Names everything that engines have. A thing that shares all its names has none here.
    pub fn new(containers: &[(&dyn Engine, Container)], images: &[(&dyn Engine, Image)]) -> Labels {
        let mut labels = HashMap::new();
        let mut sharers: HashMap<String, Sharers> = HashMap::new();
        for (engine, container) in containers {
            let mut names = container_names(engine.name(), container);
            // One thing is not two for having one word as its name and its id.
            names.sort();
            names.dedup();
            for name in names {
                let sharers = sharers.entry(name).or_default();
                sharers.all += 1;
                sharers.running += usize::from(container.state.running);
            }
        }
        for (engine, container) in containers {
            let is_its = |name: &String| {
                let sharers = sharers.get(name).copied().unwrap_or_default();
                // Of those that Kubernetes started one after another the one that runs is meant.
                let is_the_running = container.state.running && sharers.running == 1;
                sharers.all <= 1
                    || (container.pod.is_some() && is_the_running && name.contains('/'))
            };
            let mut names = container_names(engine.name(), container).into_iter();
            if let Some(name) = names.find(is_its) {
                let key = Key::new(*engine, container.namespace.clone(), false, &container.id);
                labels.insert(key, Bytes::from(name));
            }
        }
        let mut sharers: HashMap<String, usize> = HashMap::new();
        for (engine, image) in images {
            for name in image_names(engine.name(), image) {
                *sharers.entry(name).or_default() += 1;
            }
        }
        for (engine, image) in images {
            let mut names = image_names(engine.name(), image).into_iter();
            if let Some(name) = names.find(|name| sharers.get(name).is_none_or(|of| *of <= 1)) {
                let key = Key::new(*engine, image.namespace.clone(), true, &image.id);
                labels.insert(key, Bytes::from(name));
            }
        }
        Labels(labels)
    }

    /// What an owner is called, where it has a name of its own.
    pub fn of_owner(&self, owner: &Owner) -> Option<Bytes> {
        match owner.kind {
            OwnerKind::Layer => Some(Bytes::from(format!("{}:{}", owner.engine, owner.id))),
            OwnerKind::Container | OwnerKind::Image => {
                let key = Key {
                    engine: owner.engine,
                    root: owner.store.root.clone(),
                    namespace: owner.store.namespace.clone(),
                    is_image: owner.kind == OwnerKind::Image,
                    id: owner.id.clone(),
                };
                self.0.get(&key).cloned()
            }
        }
    }

    /// What a container is called, where it has a name of its own.
    pub fn of_container(&self, engine: &dyn Engine, container: &Container) -> Option<&Bytes> {
        let key = Key::new(engine, container.namespace.clone(), false, &container.id);
        self.0.get(&key)
    }

    /// What an image is called, where it has a name of its own.
    pub fn of_image(&self, engine: &dyn Engine, image: &Image) -> Option<&Bytes> {
        let key = Key::new(engine, image.namespace.clone(), true, &image.id);
        self.0.get(&key)
    }
}

impl Key {
    fn new(engine: &dyn Engine, namespace: Option<String>, is_image: bool, id: &str) -> Key {
        Key {
            engine: engine.name(),
            root: engine.root().clone(),
            namespace,
            is_image,
            id: id.to_owned(),
        }
    }
}

/// What a container can be typed as, the best first.
fn container_names(engine: &str, container: &Container) -> Vec<String> {
    let within = within(container.namespace.as_ref());
    let pod = container.pod.as_ref().and_then(Pod::whole_name);
    let own = [Some(container.name.clone()), Some(container.id.clone())];
    let names = std::iter::once(pod).chain(own).flatten();
    let names = names.filter(|name| !name.is_empty());
    names
        .map(|name| format!("{engine}:{within}{name}"))
        .collect()
}

/// What an image can be typed as, the best first.
fn image_names(engine: &str, image: &Image) -> Vec<String> {
    let within = within(image.namespace.as_ref());
    let tags = image.names.tags.iter().cloned();
    let id = std::iter::once(format!("sha256:{}", image.id));
    tags.chain(id)
        .map(|name| format!("{engine}:{within}{name}"))
        .collect()
}

/// The engine's own division of names, as it stands before a name.
fn within(namespace: Option<&String>) -> String {
    namespace
        .map(|namespace| format!("{namespace}/"))
        .unwrap_or_default()
}
