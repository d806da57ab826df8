//! What Docker's layers stand on, as they say it themselves: records can be lost.

use super::driver::Driver;
use super::layer::LayerId;
use super::store::Docker;
use crate::bytes::Bytes;
use crate::engine::interface::Engine;
use crate::engine::inventory::is_id;
use crate::engine::usage::Need;
use crate::error::Result;

impl Docker<'_> {
    pub(super) fn find_needs(&self) -> Result<Vec<Need>> {
        let mut needs = Vec::new();
        for here in self.drivers_here() {
            let driver = here.driver;
            let content = |id: &str| {
                let id = id.to_owned();
                self.content_dir(&LayerId { driver, id })
            };
            let linked = self.linked(driver);
            needs.push(Need {
                layer: None,
                by: "short names of layers".to_owned(),
                needed: linked.links(),
                always: true,
            });
            for id in self.directories(driver)? {
                if matches!(driver, Driver::Vfs | Driver::Btrfs) {
                    // Each is whole.
                    continue;
                }
                let needed = self.named_below(driver, &id)?;
                needs.push(Need {
                    layer: Some(content(&id)),
                    by: format!("layer {id}"),
                    needed,
                    always: false,
                });
            }
        }
        for containerd in self.own_containerds() {
            needs.extend(containerd.needs()?);
        }
        Ok(needs)
    }

    /// The directories of the layers below one, as its own list has them.
    pub(super) fn named_below(&self, driver: Driver, id: &str) -> Result<Vec<Bytes>> {
        let content = |id: &str| {
            let id = id.to_owned();
            self.content_dir(&LayerId { driver, id })
        };
        let ids = match driver {
            Driver::Overlay2 | Driver::FuseOverlayfs => {
                let linked = self.linked(driver);
                let below = linked.named_below(0, id)?;
                return Ok(linked.paths_of(&below, |_, id| content(id)));
            }
            Driver::Aufs => self.lines(&["aufs", "layers", id])?,
            Driver::Overlay => self.lines(&["overlay", id, "lower-id"])?,
            Driver::Vfs | Driver::Btrfs => Vec::new(),
        };
        Ok(ids.iter().map(|id| content(id)).collect())
    }

    /// The ids in a file that may be missing, one a line.
    fn lines(&self, parts: &[&str]) -> Result<Vec<String>> {
        match self.host.read(&self.at(parts)) {
            Ok(bytes) => {
                let text = String::from_utf8_lossy(&bytes).into_owned();
                let ids = text.lines().filter(|line| is_id(line));
                Ok(ids.map(str::to_owned).collect())
            }
            Err(error) if error.is_absent() => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }
}
