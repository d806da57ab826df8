//! What images are called: Docker's lists of repositories, in either layout.
//!
//! ```text
//! image/DRIVER/repositories.json   {"Repositories": {"app": {"app:1": "sha256:ID", "app@sha256:...": "sha256:ID"}}}
//! repositories-aufs                {"Repositories": {"app": {"1": "ID"}}}
//! ```

use std::collections::{BTreeMap, HashMap};

use serde::Deserialize;

use super::records::read_json;
use super::store::Docker;
use crate::bytes::Bytes;
use crate::engine::inventory::{Names, is_id, null_default};
use crate::engine::stored::{NameFault, RecordFault};

#[derive(Deserialize)]
struct Repositories {
    #[serde(rename = "Repositories", default, deserialize_with = "null_default")]
    repositories: BTreeMap<String, Option<BTreeMap<String, String>>>,
}

impl Docker<'_> {
    /// `image id -> names`, from a repositories file of either layout.
    pub(super) fn names(&self, parts: &[&str]) -> HashMap<String, Names> {
        let repositories: Repositories = match read_json(self.host, &self.at(parts)) {
            Ok(repositories) => repositories,
            Err(error) => {
                self.note_unless_absent(error);
                return HashMap::new();
            }
        };
        let mut names: HashMap<String, Names> = HashMap::new();
        for (name, references) in repositories.repositories {
            for (reference, id) in references.unwrap_or_default() {
                let of = names
                    .entry(id.trim_start_matches("sha256:").to_owned())
                    .or_default();
                // name:tag and name@digest in the newer layout, tag and digest in the older.
                if reference.contains('@') {
                    of.digests.push(reference);
                } else if reference.starts_with("sha256:") {
                    of.digests.push(format!("{name}@{reference}"));
                } else if reference.starts_with(&format!("{name}:")) {
                    of.tags.push(reference);
                } else {
                    of.tags.push(format!("{name}:{reference}"));
                }
            }
        }
        for of in names.values_mut() {
            of.tags.sort();
            of.digests.sort();
        }
        names
    }

    /// Names of images that are not there.
    pub(super) fn find_name_faults(&self) -> Vec<NameFault> {
        let mut faults = Vec::new();
        for driver in self.ids(&["image"]) {
            let list = ["image", &driver, "repositories.json"];
            faults.extend(self.names_of_none(&list, |id| self.has_image(&driver, id)));
        }
        let list = ["repositories-aufs"];
        if self.is_there(&list) {
            faults.extend(self.names_of_none(&list, |id| self.is_there(&["graph", id])));
        }
        faults
    }

    /// The names that a list has for images that `has` does not know.
    fn names_of_none(&self, list: &[&str], has: impl Fn(&str) -> bool) -> Vec<NameFault> {
        let none = |id: &String| !is_id(id) || !has(id);
        let mut found = self.names(list);
        found.retain(|id, _| none(id));
        if !found.is_empty() {
            // An image that is removed loses its names, and then what it has: who looked between the two
            // looks again.
            let now = self.names(list);
            found.retain(|id, _| now.contains_key(id) && none(id));
        }
        let path = self.at(list);
        let mut faults: Vec<NameFault> = found
            .into_iter()
            .flat_map(|(id, names)| {
                let all = names.tags.into_iter().chain(names.digests);
                let path = path.clone();
                all.map(move |name| fault(&path, name, &id))
            })
            .collect();
        faults.sort_by(|a, b| a.name.cmp(&b.name));
        faults
    }
}

fn fault(path: &Bytes, name: String, id: &str) -> NameFault {
    let what = if is_id(id) {
        format!("names {name}, and there is no image {id}")
    } else {
        format!("names {name}, and {id} is no image id")
    };
    let path = path.clone();
    NameFault {
        name,
        fault: RecordFault { path, what },
    }
}
