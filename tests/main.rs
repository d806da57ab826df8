//! One integration binary, one file a feature; the environment is in `lab`.

// Tests make and spoil the disk that the program only reads.
#![allow(clippy::disallowed_methods)]

mod blog_host;
mod completions;
mod containerd;
mod containerd_live;
mod dependencies;
mod docker_drivers;
mod docker_layouts;
mod docker_live;
mod docs;
mod du;
mod fuse;
mod hosts;
mod identity;
mod lab;
mod mislead;
mod oracle;
mod orphans;
mod overlay;
mod overlay_mounts;
mod overlay_operations;
mod overlay_restore;
mod pivot;
mod podman;
mod podman_live;
mod readme;
mod restore;
mod restore_aufs;
mod restore_calls;
mod restore_hostile;
mod schema;
mod speed;
mod spellings;
mod target;
mod trouble;
mod trust;
mod whois;
