//! An id is not an identity: engine, store, namespace and id together are.

use crate::lab::host::{Host, copy_tree};

/// A second data directory of Docker's, with remapped users, that has containers of the same ids:
/// what is mounted is the first one's.
#[apply(test)]
fn a_container_of_another_store_is_not_mounted_by_its_id() {
    let host = Host::copy_of("blog-host");
    let docker = host.at("/var/lib/docker");
    let aside = host.at("/aside");
    copy_tree(&docker, &aside);
    std::fs::rename(&aside, docker.join("100000.100000")).expect("our own");
    let rows = host.jsonl(["containers"]).exits(0).rows();
    let mounted = rows.iter().filter(|row| row["mounted"] == true);
    let mut ids: Vec<&str> = mounted.filter_map(|row| row["id"].as_str()).collect();
    assert!(!ids.is_empty(), "{rows:?}");
    let all = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), all, "{rows:?}");
    assert!(rows.len() >= 2 * all, "{rows:?}");
}
