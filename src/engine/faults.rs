//! What engines stumble over in stores of linked layers: lists that are empty, links that are lost.

use std::collections::{BTreeSet, HashSet};

use super::inventory::is_id;
use super::linked::{Below, LINKS, Linked, Parent};
use super::usage::{Fault, FaultKind};
use crate::bytes::Bytes;
use crate::error::Result;

impl Linked<'_> {
    /// What is wrong with the lists and the links of one of the directories. `has_parent` tells of which
    /// layers an engine's records have another one below.
    ///
    /// # Errors
    /// What cannot be read.
    pub fn faults(&self, home: usize, has_parent: impl Fn(&str) -> bool) -> Result<Vec<Fault>> {
        let mut faults = Vec::new();
        let directory = &self.homes[home];
        let links = directory.join(LINKS.as_bytes());
        let target = self.host.read_link(&links)?;
        let is_link = target.is_some();
        if let Some(target) = target {
            let means = format!(
                "it is a link to {target}, not a directory: Podman says \"mkdir {links}: file exists\""
            );
            faults.push(fault(FaultKind::Link, &links, means));
        }
        let mut needed = BTreeSet::new();
        for id in self.ids(directory)? {
            let layer = directory.join(id.as_bytes());
            // Beside layers there are an engine's own directories.
            if self.host.stat(&layer.join(b"diff"))?.is_none() {
                continue;
            }
            let own = layer.join(b"link");
            match self.read_if_there(&own)? {
                Some(name) if is_id(name.trim()) => {
                    needed.insert(name.trim().to_owned());
                }
                Some(_) => {
                    let means = format!(
                        "it is empty or damaged, so that what stands on the layer cannot name it: \"readlink {links}: invalid argument\""
                    );
                    faults.push(fault(FaultKind::List, &own, means));
                }
                None => {
                    let means = format!(
                        "the layer has no short name: \"open {own}: no such file or directory\""
                    );
                    faults.push(fault(FaultKind::List, &own, means));
                }
            }
            let below = self.named_below(home, &id)?;
            let lower = layer.join(b"lower");
            let list = self.read_if_there(&lower)?;
            faults.extend(list_fault(lower, list.as_deref(), &below, &links, || {
                has_parent(&id)
            }));
            let below = below.into_iter();
            needed.extend(below.filter_map(|below| match below {
                Below::Link(name) => Some(name),
                Below::Id(_) => None,
            }));
        }
        // Where that is no directory, there is no need to say so of each.
        for name in needed.into_iter().filter(|_| !is_link) {
            faults.extend(self.link_fault(home, &name)?);
        }
        Ok(faults)
    }

    /// What is wrong with a link that some layer needs.
    fn link_fault(&self, home: usize, name: &str) -> Result<Option<Fault>> {
        let at = |home: &Bytes| home.join(LINKS.as_bytes()).join(name.as_bytes());
        let own = at(&self.homes[home]);
        for home in &self.homes {
            let link = at(home);
            if self.host.read_link(&link)?.is_none() {
                continue;
            }
            let is_whole = self.host.stat(&link)?.is_some();
            let means = format!(
                "a layer needs what it leads to, which is gone: \"stat {link}: no such file or directory\""
            );
            return Ok((!is_whole).then(|| fault(FaultKind::Link, &link, means)));
        }
        let words = format!("\"readlink {own}: no such file or directory\"");
        let means = match self.find(name) {
            Ok(Parent::Layer { id, .. }) => format!(
                "the link to the layer {id} is missing, {words}: Podman makes it anew, Docker does not"
            ),
            _ => format!("a layer names it as one below, and nothing tells which it was: {words}"),
        };
        Ok(Some(fault(FaultKind::Link, &own, means)))
    }

    fn read_if_there(&self, path: &Bytes) -> Result<Option<String>> {
        match self.host.read(path) {
            Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
            Err(error) if error.is_absent() => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// What is wrong with the list of the layers below one.
fn list_fault(
    path: Bytes,
    list: Option<&str>,
    below: &[Below],
    links: &Bytes,
    has_parent: impl FnOnce() -> bool,
) -> Option<Fault> {
    let mut seen = HashSet::new();
    let is_any_twice = below.iter().any(|of| !seen.insert(of));
    let means = match list.map(str::trim) {
        Some("") => format!(
            "the list of the layers below is empty: \"readlink {links}: invalid argument\", \"overlayfs: missing 'lowerdir'\""
        ),
        Some(_) if below.is_empty() => {
            "the list of the layers below names none: a container has none but this layer"
                .to_owned()
        }
        None if below.is_empty() && has_parent() => {
            "the list of the layers below is gone: a container has none but this layer".to_owned()
        }
        _ if is_any_twice => {
            "the list of the layers below names one twice: \"too many levels of symbolic links\""
                .to_owned()
        }
        _ => return None,
    };
    Some(fault(FaultKind::List, &path, means))
}

fn fault(kind: FaultKind, path: &Bytes, means: String) -> Fault {
    Fault {
        kind,
        path: path.clone(),
        means,
    }
}
