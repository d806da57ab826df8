//! What layers of containers-storage stand on, as they and the lists say it: a list can have lost
//! one in the middle.

use std::collections::HashSet;

use super::store::Podman;
use crate::engine::linked::Below;
use crate::engine::usage::Need;
use crate::error::Result;

impl Podman<'_> {
    pub(super) fn find_needs(&self) -> Result<Vec<Need>> {
        let mut needs = Vec::new();
        let linked = self.linked();
        let content = |home: usize, id: &str| self.content_dir(home, id);
        needs.push(Need {
            layer: None,
            by: "short names of layers".to_owned(),
            needed: linked.links(),
            always: true,
        });
        let mut here = HashSet::new();
        let paths = |below: &[Below]| linked.paths_of(below, content);
        for (home, store) in self.stores.iter().enumerate() {
            // Whole copies name nothing.
            if self.copies() {
                break;
            }
            for id in linked.ids(&self.home(store))? {
                here.insert((home, id.clone()));
                needs.push(Need {
                    layer: Some(self.content_dir(home, &id)),
                    by: format!("layer {id}"),
                    needed: paths(&linked.named_below(home, &id)?),
                    always: false,
                });
            }
        }
        for layer in self
            .layer_records()
            .iter()
            .filter(|of| !of.parent.is_empty())
        {
            needs.push(Need {
                layer: Some(self.content_dir(layer.home, &layer.id)),
                by: format!("layer {}", layer.id),
                needed: paths(&[Below::Id(layer.parent.clone())]),
                // Nothing else speaks for one whose directory is gone.
                always: !self.copies() && !here.contains(&(layer.home, layer.id.clone())),
            });
        }
        // The lists of images and containers name layers, whether or not the list of layers does.
        let images = self.image_records().iter().map(|image| {
            let name = image.names.first().unwrap_or(&image.id).clone();
            let layers = std::iter::once(&image.layer).chain(&image.mapped_layers);
            let layers = layers.cloned().collect::<Vec<String>>();
            (format!("the image {name}"), layers)
        });
        let containers = self.container_records().iter().map(|container| {
            let name = container.names.first().unwrap_or(&container.id).clone();
            (
                format!("the container {name}"),
                vec![container.layer.clone()],
            )
        });
        for (by, layers) in images.chain(containers) {
            let layers = layers.into_iter().filter(|id| !id.is_empty());
            let layers: Vec<Below> = layers.map(Below::Id).collect();
            needs.push(Need {
                layer: None,
                by,
                needed: paths(&layers),
                always: true,
            });
        }
        Ok(needs)
    }
}
