//! Layers as Docker's overlay2 and containers-storage keep them: a directory for each, and short
//! names, since mount options have little room.
//!
//! ```text
//! <home>/<id>/diff     the content
//! <home>/<id>/link     AAA
//! <home>/<id>/lower    l/BBB:l/CCC     the layers below, topmost first; a base has no such file
//! <home>/<id>/lower-layers   ID:ID     the same by their ids, in newer containers-storage
//! <home>/l/AAA         -> ../<id>/diff
//! ```

use std::collections::{HashMap, HashSet};

use crate::bytes::Bytes;
use crate::engine::inventory::is_id;
use crate::error::{Error, Result};
use crate::host::Host;
use crate::overlay::LOWERS_MAX;

/// Where the short names are.
pub const LINKS: &str = "l";

/// The directories in which layers are kept. Those of one store are looked for in all of them.
pub struct Linked<'a> {
    pub host: &'a Host,
    pub homes: Vec<Bytes>,
}

/// `short name -> directory and id`, as the layers themselves have it.
type OwnNames = HashMap<Vec<u8>, (usize, String)>;

/// A layer below another one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Parent {
    /// The directory that it is in, by number, and its id.
    Layer { home: usize, id: String },
    /// Nothing tells which one it was. It stays in its place, so that no answer seems sure.
    Lost(Bytes),
}

/// What a layer calls one below it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Below {
    /// `AAA` of `l/AAA`.
    Link(String),
    Id(String),
}

impl Linked<'_> {
    /// The layers below one, nearest first.
    ///
    /// # Errors
    /// A list that is missing where there should be one, or damaged; a short name that leads to
    /// something else than a layer.
    pub fn parents(&self, home: usize, id: &str) -> Result<Vec<Parent>> {
        let layer = self.homes[home].join(id.as_bytes());
        let path = layer.join(b"lower");
        let bytes = match self.host.read(&path) {
            Err(error) if error.is_absent() && self.exists(&layer.join(b"diff"))? => {
                return Ok(Vec::new());
            }
            result => result?,
        };
        let links = parse_lower(&bytes).map_err(|what| Error::damaged(path.clone(), what))?;
        if let Some(parents) = self.parents_by_id(home, id, links.len())? {
            return Ok(parents);
        }
        let own = Parent::Layer {
            home,
            id: id.to_owned(),
        };
        let mut seen = HashSet::from([own]);
        let mut parents = Vec::new();
        let mut lost = None;
        for link in links {
            let parent = self.find_or_recover(link, &mut lost)?;
            if !seen.insert(parent.clone()) {
                let what = format!("names {link} twice: a loop of parents");
                return Err(Error::damaged(path, what));
            }
            parents.push(parent);
        }
        Ok(parents)
    }

    /// The layers below one, as newer stores list them beside their short names. None where there
    /// is no such list, or it was not kept with the other.
    fn parents_by_id(&self, home: usize, id: &str, count: usize) -> Result<Option<Vec<Parent>>> {
        let path = self.homes[home].join(id.as_bytes()).join(b"lower-layers");
        let bytes = match self.host.read(&path) {
            Err(error) if error.is_absent() => return Ok(None),
            result => result?,
        };
        let text = String::from_utf8_lossy(&bytes);
        let ids: Vec<&str> = text.trim().split(':').collect();
        let distinct: HashSet<&str> = ids.iter().copied().chain([id]).collect();
        if ids.len() != count || distinct.len() != count + 1 || !ids.iter().all(|id| is_id(id)) {
            return Ok(None);
        }
        let mut parents = Vec::new();
        for id in ids {
            let mut parent = None;
            for (number, home) in self.homes.iter().enumerate() {
                if self.exists(&home.join(id.as_bytes()))? {
                    parent = Some(Parent::Layer {
                        home: number,
                        id: id.to_owned(),
                    });
                    break;
                }
            }
            let lost = || Parent::Lost(self.homes[home].join(id.as_bytes()).join(b"diff"));
            parents.push(parent.unwrap_or_else(lost));
        }
        Ok(Some(parents))
    }

    /// The layer that a short name stands for.
    ///
    /// # Errors
    /// A link that leads to something else than a layer.
    pub fn find(&self, name: &str) -> Result<Parent> {
        self.find_or_recover(name, &mut None)
    }

    /// The same. What layers say of themselves is read once for many names.
    fn find_or_recover(&self, name: &str, own: &mut Option<OwnNames>) -> Result<Parent> {
        let link = |home: &Bytes| home.join(LINKS.as_bytes()).join(name.as_bytes());
        for (number, home) in self.homes.iter().enumerate() {
            if let Some(target) = self.host.read_link(&link(home))? {
                let id = layer_of_link(&target).ok_or_else(|| {
                    let what = format!("leads to {}, which is no layer", target.to_text());
                    Error::damaged(link(home), what)
                })?;
                return Ok(Parent::Layer { home: number, id });
            }
        }
        // An engine makes a lost link anew from what the layer itself says.
        let own = match own {
            Some(own) => own,
            None => own.insert(self.own_names()?),
        };
        if let Some((home, id)) = own.get(name.as_bytes()) {
            return Ok(Parent::Layer {
                home: *home,
                id: id.clone(),
            });
        }
        let first = self.homes.first().map(link);
        Ok(Parent::Lost(first.unwrap_or_default()))
    }

    fn own_names(&self) -> Result<OwnNames> {
        let mut names = OwnNames::new();
        for (number, home) in self.homes.iter().enumerate() {
            for id in self.ids(home)? {
                let own = self.host.read(&home.join(id.as_bytes()).join(b"link"));
                if let Ok(own) = own {
                    let name = own.trim_ascii().to_vec();
                    names.entry(name).or_insert((number, id));
                }
            }
        }
        Ok(names)
    }

    /// The layers in one of the directories.
    ///
    /// # Errors
    /// A directory that cannot be listed.
    pub fn ids(&self, home: &Bytes) -> Result<Vec<String>> {
        let names = self.host.list(home)?.into_iter();
        Ok(names
            .filter_map(|(name, _)| String::from_utf8(name).ok())
            .filter(|name| is_id(name) && name != LINKS)
            .collect())
    }

    /// The short names that lead to nothing, with what each says.
    ///
    /// # Errors
    /// A directory that cannot be listed, a link that cannot be read.
    pub fn dangling(&self, home: usize) -> Result<Vec<(Bytes, Bytes)>> {
        let links = self.homes[home].join(LINKS.as_bytes());
        let mut dangling = Vec::new();
        for (name, _) in self.host.list(&links)? {
            let link = links.join(&name);
            if !self.exists(&link)? {
                let target = self.host.read_link(&link)?.unwrap_or_default();
                dangling.push((link, target));
            }
        }
        Ok(dangling)
    }

    /// What a layer's own lists name as the layers below it, whether or not the lists are whole:
    /// short names, and in newer stores ids.
    ///
    /// # Errors
    /// A list that is there and cannot be read.
    pub fn named_below(&self, home: usize, id: &str) -> Result<Vec<Below>> {
        let layer = self.homes[home].join(id.as_bytes());
        let read = |file: &str| match self.host.read(&layer.join(file.as_bytes())) {
            Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
            Err(error) if error.is_absent() => Ok(String::new()),
            Err(error) => Err(error),
        };
        let (links, ids) = (read("lower")?, read("lower-layers")?);
        let links = links.trim().split(':').filter_map(|part| {
            let name = part.strip_prefix("l/").filter(|name| is_id(name))?;
            Some(Below::Link(name.to_owned()))
        });
        let ids = ids.trim().split(':').filter(|id| is_id(id));
        Ok(links
            .chain(ids.map(|id| Below::Id(id.to_owned())))
            .collect())
    }

    /// The directories of short names: one may be a link to another directory.
    pub fn links(&self) -> Vec<Bytes> {
        let homes = self.homes.iter();
        homes.map(|home| home.join(LINKS.as_bytes())).collect()
    }

    /// The paths that are needed by whoever stands on these: links and the directories of layers.
    pub fn paths_of(&self, below: &[Below], content: impl Fn(usize, &str) -> Bytes) -> Vec<Bytes> {
        let mut paths = Vec::new();
        let mut own = None;
        for below in below {
            match below {
                Below::Id(id) => {
                    paths.extend((0..self.homes.len()).map(|home| content(home, id)));
                }
                Below::Link(name) => {
                    let link = |home: &Bytes| home.join(LINKS.as_bytes()).join(name.as_bytes());
                    paths.extend(self.homes.iter().map(link));
                    // A link that leads elsewhere is needed as it is.
                    if let Ok(Parent::Layer { home, id }) = self.find_or_recover(name, &mut own) {
                        paths.push(content(home, &id));
                    }
                }
            }
        }
        paths
    }

    fn exists(&self, path: &Bytes) -> Result<bool> {
        Ok(self.host.stat(path)?.is_some())
    }
}

/// The short names in a `lower` file: `l/AAA:l/BBB`, topmost first.
fn parse_lower(bytes: &[u8]) -> Result<Vec<&str>, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "is not text".to_owned())?;
    let mut links = Vec::new();
    for part in text.trim_end().split(':') {
        let name = part.strip_prefix("l/").filter(|name| is_id(name));
        let name = name.ok_or_else(|| {
            let shown: String = part.chars().take(40).collect();
            format!("holds {shown:?}, which is no short name of a layer")
        })?;
        if links.len() == LOWERS_MAX {
            return Err("names more layers than a union can have".into());
        }
        links.push(name);
    }
    Ok(links)
}

/// The id in what a short name links to: `../<id>/diff`.
fn layer_of_link(target: &Bytes) -> Option<String> {
    let parts: Vec<&[u8]> = target.as_bytes().split(|&byte| byte == b'/').collect();
    match parts.as_slice() {
        [b"..", id, b"diff"] => String::from_utf8(id.to_vec()).ok().filter(|id| is_id(id)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lower_files() {
        // docs/facts.md#engines-6
        assert_eq!(parse_lower(b"l/AAA:l/BBB"), Ok(vec!["AAA", "BBB"]));
        for bad in [&b""[..], b"AAA", b"l/..", b"l/a/b", b"l/A::l/B", b"\xff"] {
            assert!(parse_lower(bad).is_err(), "{}", crate::bytes::escape(bad));
        }
        assert_eq!(
            layer_of_link(&Bytes::from("../abc/diff")).as_deref(),
            Some("abc")
        );
        for bad in [
            "../../../etc",
            "/etc",
            "../../diff",
            "abc/diff",
            "../abc/diff/..",
        ] {
            assert_eq!(layer_of_link(&Bytes::from(bad)), None, "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
            let _ = parse_lower(&bytes);
        }
    }
}
