//! Where it is found.

use super::DESCRIPTION;
use super::store::Example;
use crate::bytes::Bytes;
use crate::engine::interface::FoundEngine;
use crate::engine::problems::Problems;
use crate::engine::roots::Roots;
use crate::engine::search::{Search, Why};
use crate::host::Host;

/// One that was named, or the only one there can be.
pub(super) fn find<'h>(host: &'h Host, roots: &Roots, search: &Search) -> Vec<FoundEngine<'h>> {
    let named = roots.option("example-root").cloned();
    let root = named.unwrap_or_else(|| Bytes::from("/srv/example"));
    let is_there = host.stat(&root).is_ok_and(|stat| stat.is_some());
    search.looked_at(DESCRIPTION.name, &root, Why::Default, is_there);
    if !is_there {
        return Vec::new();
    }
    let problems = Problems::default();
    vec![FoundEngine {
        problems: problems.clone(),
        engine: Box::new(Example {
            host,
            root,
            problems,
        }),
    }]
}
