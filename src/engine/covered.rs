//! What lies over the layers of one union, so that they do not show it.
//!
//! The engine's record tells what a container is started with, and where each thing comes from;
//! the mount table of a container that runs tells what is there beside that.

use std::collections::{BTreeSet, HashMap};

use super::cover::{Cover, volume_name};
use super::interface::Engine;
use super::inventory::Container;
use super::mount_table::MountTable;
use super::namespace::Process;
use super::survey::Survey;
use super::union::{OwnerKind, Union};
use super::usage::ContainerName;
use crate::bytes::Bytes;
use crate::error::{Error, Result};

/// All that lies over the layers of one union.
#[derive(Debug, Clone, Default)]
pub struct Covers(Vec<Cover>);

impl Covers {
    /// What lies over the layers of a container; over anything else there is nothing. A view of some
    /// layers is asked for their own sake.
    ///
    /// # Errors
    /// The engine's record cannot be read.
    pub fn of(survey: &Survey<'_>, union: &Union) -> Result<Covers> {
        let owner = union.owner.as_ref().filter(|_| union.view.is_none());
        let Some(owner) = owner.filter(|owner| owner.kind == OwnerKind::Container) else {
            return Ok(Covers::default());
        };
        let Some(engine) = survey.engine_of(owner) else {
            return Ok(Covers::default());
        };
        let (id, namespace) = (&owner.id, owner.store.namespace.as_deref());
        let mut covers = engine.covers(id, namespace)?;
        let process = engine.process_of(id, namespace);
        if let Some(table) = process.and_then(|process| table_of(survey, union, process)) {
            covers.extend(of_table(&table, &covers));
        }
        Ok(Covers(covers))
    }

    /// What lies over an absolute path of the union, the nearest of it.
    pub fn at(&self, path: &Bytes) -> Option<&Cover> {
        let over = self.0.iter().filter(|cover| cover.is_over(path));
        // Of two at one place the first was told with more.
        over.rev().max_by_key(|cover| cover.path.as_bytes().len())
    }
}

/// Who uses each volume, by its name; with the records that could not be read.
pub fn users_of_volumes(
    engine: &dyn Engine,
    containers: &[Container],
) -> (HashMap<String, Vec<ContainerName>>, Vec<Error>) {
    let mut users: HashMap<String, Vec<ContainerName>> = HashMap::new();
    let mut problems = Vec::new();
    for container in containers {
        let covers = engine.covers(&container.id, container.namespace.as_deref());
        let covers = covers.unwrap_or_else(|error| {
            problems.push(error);
            Vec::new()
        });
        // One that is mounted twice is used once, be it as it is or below an overlay.
        let names: BTreeSet<String> = covers.into_iter().filter_map(|of| of.name).collect();
        for name in names {
            let users = users.entry(name).or_default();
            users.push(ContainerName::of(container));
        }
    }
    (users, problems)
}

/// The mount table of a process whose root is the union: a number may have been given to another
/// process since.
fn table_of(survey: &Survey<'_>, union: &Union, process: u32) -> Option<MountTable> {
    let mounted = union.owner.as_ref().and_then(|of| survey.mounted_by(of));
    let superblock = mounted.unwrap_or(union).superblock.as_ref()?;
    let table = Process::read(survey.host, process).ok()?.table;
    let root = table.covering(&Bytes::from("/"))?.superblock();
    (root.as_ref() == Some(superblock)).then_some(table)
}

/// What a container has mounted beside what its record says.
fn of_table(table: &MountTable, recorded: &[Cover]) -> Vec<Cover> {
    let own = table.0.iter().filter(|mount| {
        mount.point.as_bytes() != b"/" && !recorded.iter().any(|of| of.path == mount.point)
    });
    own.map(|mount| {
        // Where a mount comes from is told as a path of its own file system, which need not be one
        // of the host's.
        let source = mount.root.to_text();
        let source = volume_name(&source).map_or("", |_| &source);
        Cover::of_mount(&mount.fs_type, mount.point.clone(), source)
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::super::cover::CoverKind;
    use super::super::mount_table::parse_mountinfo;
    use super::*;

    #[test]
    fn the_nearest_cover_is_told() {
        let covers = Covers(vec![
            Cover::volume("/data/", "pgdata").at("/v/volumes/pgdata/_data"),
            Cover::new(CoverKind::Tmpfs, "/data/tmp"),
            Cover::new(CoverKind::Bind, "/data"),
        ]);
        let kind = |path: &str| covers.at(&Bytes::from(path)).map(|cover| cover.kind);
        assert_eq!(kind("/data"), Some(CoverKind::Volume));
        assert_eq!(kind("/data/x"), Some(CoverKind::Volume));
        assert_eq!(kind("/data/tmp/x/"), Some(CoverKind::Tmpfs));
        assert_eq!(kind("/database"), None);
        assert_eq!(kind("/"), None);
        assert_eq!(
            covers.0[0].words(),
            "/data is the volume pgdata, at /v/volumes/pgdata/_data; layers do not show it"
        );
    }

    #[test]
    fn a_mount_table_tells_what_no_record_has() {
        let table = parse_mountinfo(
            b"40 1 0:40 / / rw - overlay overlay rw\n\
              41 40 0:41 / /scratch rw - tmpfs tmpfs rw\n\
              42 40 8:1 /srv/here /conf rw - ext4 /dev/sda1 rw\n\
              43 40 8:1 /var/lib/x/volumes/late/_data /late rw - ext4 /dev/sda1 rw\n\
              44 40 0:44 / /proc rw - proc proc rw\n\
              45 40 8:1 /pg /data rw - ext4 /dev/sda1 rw\n",
        );
        let recorded = [Cover::volume("/data", "pg")];
        let found = of_table(&table, &recorded);
        let told: Vec<(&[u8], CoverKind, Option<&str>)> = found
            .iter()
            .map(|of| (of.path.as_bytes(), of.kind, of.name.as_deref()))
            .collect();
        assert_eq!(
            told,
            [
                (&b"/scratch"[..], CoverKind::Tmpfs, None),
                (b"/conf", CoverKind::Bind, None),
                (b"/late", CoverKind::Volume, Some("late")),
                (b"/proc", CoverKind::Engine, None),
            ]
        );
        assert_eq!(
            found[1].words(),
            "/conf is a mount of something else; layers do not show it"
        );
    }
}
