//! What a layer of Docker's is called: its driver with the name of its directory.

use super::driver::Driver;
use crate::bytes::Bytes;
use crate::engine::inventory::{INIT, LayerName};
use crate::engine::linked;

/// A layer's directory.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct LayerId {
    pub driver: Driver,
    pub id: String,
}

impl LayerId {
    pub fn is_init(&self) -> bool {
        self.id.ends_with(INIT)
    }

    /// As all engines name layers.
    pub fn named(self) -> LayerName {
        LayerName {
            driver: self.driver.name().to_owned(),
            id: self.id,
            aliases: Vec::new(),
        }
    }

    /// Another layer of the same driver.
    pub fn beside(&self, id: String) -> LayerId {
        LayerId {
            driver: self.driver,
            id,
        }
    }
}

/// A layer below another one.
#[derive(Debug, Clone)]
pub(super) enum LayerBelow {
    Layer(LayerId),
    /// Nothing tells which one it was. It stays in its place, so that no answer seems sure.
    Lost(Bytes),
}

impl LayerBelow {
    pub fn of_link(driver: Driver, parent: linked::Parent) -> LayerBelow {
        match parent {
            linked::Parent::Layer { id, .. } => LayerBelow::Layer(LayerId { driver, id }),
            linked::Parent::Lost(path) => LayerBelow::Lost(path),
        }
    }
}

/// A storage driver with its directories, under every name by which a path can lead there.
pub(super) struct DriverHere {
    pub driver: Driver,
    pub content: Vec<Bytes>,
    pub mount: Option<Vec<Bytes>>,
}
